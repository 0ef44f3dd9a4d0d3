//! The TUN device: the gateway's inner side, one queue per worker.

use std::fs::{File, OpenOptions};
use std::io::{self, IoSlice};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::os::unix::fs::OpenOptionsExt;

use socket2::{Domain, Socket, Type};

use super::address::put;
use super::burst::{BURST, SLOT_LEN};
use super::netlink::sysctl;
use crate::wire::vnet::VnetHeader;

/// A TUN device. It disappears when its last queue is closed.
#[derive(Debug)]
pub struct Tun {
    name: String,
    index: u32,
}

impl Tun {
    /// Creates the device with `queues` queues, sets its MTU and brings it up.
    ///
    /// Packets carry a vnet header and no link header. No offload is asked for, so the kernel
    /// delivers plain packets with their checksums done.
    pub fn create(name: &str, queues: u16, mtu: u16) -> io::Result<(Self, Vec<TunQueue>)> {
        let mut request = InterfaceRequest::named(name)?;
        let mut opened = Vec::with_capacity(usize::from(queues));
        for _ in 0..queues.max(1) {
            opened.push(TunQueue::open(&mut request)?);
        }
        // The kernel replaced a pattern such as "ipsec%d" by the name it chose.
        let name = request.name()?;
        // A link-local address would make the kernel solicit routers through the tunnel. Without IPv6
        // there is no such switch, and where it cannot be set the solicitations are only dropped.
        let _ = sysctl::generate_no_addresses(&name);
        let control = Socket::new(Domain::IPV4, Type::DGRAM, None)?;
        request.set_value(i32::from(mtu));
        interface_ioctl(control.as_fd(), libc::SIOCSIFMTU, &mut request)?;
        interface_ioctl(control.as_fd(), libc::SIOCGIFFLAGS, &mut request)?;
        request.set_flags(request.flags() | IFF_UP);
        interface_ioctl(control.as_fd(), libc::SIOCSIFFLAGS, &mut request)?;
        let index = rustix::net::netdevice::name_to_index(&control, &name)?;
        Ok((Self { name, index }, opened))
    }

    /// The name that the kernel gave it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its interface index.
    pub fn index(&self) -> u32 {
        self.index
    }
}

/// One queue of a TUN device, non-blocking.
#[derive(Debug)]
pub struct TunQueue {
    file: File,
}

impl TunQueue {
    fn open(request: &mut InterfaceRequest) -> io::Result<Self> {
        let mut options = OpenOptions::new();
        options
            .read(true)
            .write(true)
            .custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC);
        let file = options.open("/dev/net/tun")?;
        request.set_flags(TUN_FLAGS);
        interface_ioctl(file.as_fd(), libc::TUNSETIFF, request)?;
        value_ioctl(file.as_fd(), libc::TUNSETOFFLOAD, 0)?;
        Ok(Self { file })
    }

    /// Reads packets until there are none or the burst is full. `WouldBlock` when there is none.
    pub fn read_burst(&mut self, burst: &mut TunBurst) -> io::Result<usize> {
        burst.filled = 0;
        for (slot, length) in burst
            .arena
            .chunks_exact_mut(STRIDE)
            .zip(burst.lengths.iter_mut())
        {
            let buffer = slot.get_mut(HEADROOM..).unwrap_or_default();
            match rustix::io::read(&self.file, buffer) {
                Ok(0) => break,
                Ok(read) => *length = read,
                Err(rustix::io::Errno::AGAIN) if burst.filled > 0 => break,
                Err(error) if burst.filled == 0 => return Err(error.into()),
                // It will be met again, as the first of the next burst.
                Err(_) => break,
            }
            burst.filled += 1;
        }
        Ok(burst.filled)
    }

    /// Writes one packet. Its checksums must be complete.
    pub fn write(&mut self, packet: &[u8]) -> io::Result<()> {
        self.write_vectored(&[IoSlice::new(&[0; VnetHeader::LEN]), IoSlice::new(packet)])
    }

    /// Writes one packet given as a vnet header and the pieces that follow it.
    pub fn write_vectored(&mut self, header_and_pieces: &[IoSlice<'_>]) -> io::Result<()> {
        loop {
            match rustix::io::writev(&self.file, header_and_pieces) {
                Err(rustix::io::Errno::INTR) => {}
                written => return Ok(written.map(drop)?),
            }
        }
    }
}

impl AsFd for TunQueue {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl AsRawFd for TunQueue {
    fn as_raw_fd(&self) -> RawFd {
        self.file.as_raw_fd()
    }
}

/// The arena that a queue is read into.
#[derive(Debug)]
pub struct TunBurst {
    arena: Box<[u8]>,
    lengths: [usize; BURST],
    filled: usize,
}

impl Default for TunBurst {
    fn default() -> Self {
        Self::new()
    }
}

impl TunBurst {
    /// An empty arena for [`BURST`] packets of 64 KiB.
    pub fn new() -> Self {
        Self {
            arena: vec![0; BURST * STRIDE].into_boxed_slice(),
            lengths: [0; BURST],
            filled: 0,
        }
    }

    /// How many packets the last read returned.
    pub fn len(&self) -> usize {
        self.filled
    }

    /// Whether the last read returned nothing.
    pub fn is_empty(&self) -> bool {
        self.filled == 0
    }

    /// The packets in order, each with its vnet header.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (VnetHeader, &mut [u8])> {
        self.arena
            .chunks_exact_mut(STRIDE)
            .zip(&self.lengths)
            .take(self.filled)
            .filter_map(|(slot, length)| {
                let frame = slot.get_mut(HEADROOM..HEADROOM + length)?;
                let (header, packet) = frame.split_at_mut_checked(VnetHeader::LEN)?;
                let (header, _) = VnetHeader::parse(header)?;
                Some((header, packet))
            })
    }
}

/// `struct ifreq`: a name and a union that we only use as an integer or as flags.
#[repr(C, align(8))]
struct InterfaceRequest {
    name: [u8; libc::IFNAMSIZ],
    value: [u8; 24],
}

impl InterfaceRequest {
    fn named(name: &str) -> io::Result<Self> {
        let mut bytes = [0; libc::IFNAMSIZ];
        if name.is_empty() || name.len() >= bytes.len() || name.contains(['/', '\0']) {
            let text = "an interface name has 1 to 15 bytes, without a slash";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        }
        put(&mut bytes, 0, name.as_bytes());
        Ok(Self {
            name: bytes,
            value: [0; 24],
        })
    }

    fn name(&self) -> io::Result<String> {
        let length = self
            .name
            .iter()
            .position(|byte| *byte == 0)
            .unwrap_or(self.name.len());
        let bytes = self.name.get(..length).unwrap_or_default();
        String::from_utf8(bytes.to_vec()).map_err(io::Error::other)
    }

    fn set_value(&mut self, value: i32) {
        put(&mut self.value, 0, &value.to_ne_bytes());
    }

    fn set_flags(&mut self, flags: u16) {
        put(&mut self.value, 0, &flags.to_ne_bytes());
    }

    fn flags(&self) -> u16 {
        let [low, high, ..] = self.value;
        u16::from_ne_bytes([low, high])
    }
}

fn interface_ioctl(
    fd: BorrowedFd<'_>,
    request: libc::Ioctl,
    argument: &mut InterfaceRequest,
) -> io::Result<()> {
    // SAFETY: each `request` used here takes a `struct ifreq`, whose size and layout
    // `InterfaceRequest` has, and `argument` is borrowed exclusively for the call.
    let status = unsafe { libc::ioctl(fd.as_raw_fd(), request, std::ptr::from_mut(argument)) };
    if status < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

fn value_ioctl(fd: BorrowedFd<'_>, request: libc::Ioctl, value: libc::c_ulong) -> io::Result<()> {
    // SAFETY: each `request` used here takes its argument by value, so no memory is touched.
    let status = unsafe { libc::ioctl(fd.as_raw_fd(), request, value) };
    if status < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

const TUN_FLAGS: u16 = 0x0001 | 0x1000 | 0x4000 | 0x0100; // TUN, NO_PI, VNET_HDR, MULTI_QUEUE
const IFF_UP: u16 = 0x0001;
/// Puts the IP header behind the vnet header on a 16-byte boundary.
const HEADROOM: usize = 6;
const STRIDE: usize = HEADROOM + VnetHeader::LEN + SLOT_LEN + 304;
