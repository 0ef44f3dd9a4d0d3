//! The TUN device: the gateway's inner side, one queue per worker.

use std::fs::{File, OpenOptions};
use std::io::{self, IoSlice};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::os::unix::fs::OpenOptionsExt;

use socket2::{Domain, Socket, Type};

use super::address::put;
use super::arena::Arena;
use super::burst::SLOT_LEN;

use super::netlink::sysctl;
use super::offload::Offloads;
use crate::wire::vnet::VnetHeader;

/// A TUN device. It disappears when its last queue is closed.
#[derive(Debug)]
pub struct Tun {
    name: String,
    index: u32,
    offloads: Offloads,
}

impl Tun {
    /// Creates the device with `queues` queues, sets its MTU and brings it up.
    ///
    /// Packets carry a vnet header and no link header. Of the `wanted` offloads it has those of
    /// [`Self::offloads`].
    pub fn create(
        name: &str,
        queues: u16,
        mtu: u16,
        wanted: Offloads,
    ) -> io::Result<(Self, Vec<TunQueue>)> {
        let mut request = InterfaceRequest::named(name)?;
        let mut opened = Vec::with_capacity(usize::from(queues));
        for _ in 0..queues.max(1) {
            opened.push(TunQueue::open(&mut request)?);
        }
        // The kernel replaced a pattern such as "ipsec%d" by the name it chose.
        let name = request.name()?;
        let offloads = opened
            .first()
            .map_or(Offloads::NONE, |queue| queue.set_offloads(wanted));
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
        let device = Self {
            name,
            index,
            offloads,
        };
        Ok((device, opened))
    }

    /// The name that the kernel gave it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its interface index.
    pub fn index(&self) -> u32 {
        self.index
    }

    /// Which of the offloads of a TUN it has.
    pub fn offloads(&self) -> Offloads {
        self.offloads
    }

    /// Sets how many packets, each perhaps a super-packet, may wait in each queue to be read.
    pub fn set_queue_length(&self, packets: u32) -> io::Result<()> {
        let control = Socket::new(Domain::IPV4, Type::DGRAM, None)?;
        let mut request = InterfaceRequest::named(&self.name)?;
        request.set_value(i32::try_from(packets).map_err(io::Error::other)?);
        interface_ioctl(control.as_fd(), SIOCSIFTXQLEN, &mut request)
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
        Ok(Self { file })
    }

    /// Asks for the `wanted` offloads, which are the device's, not the queue's. Gives up, one by one,
    /// what the kernel does not have, and returns what is left.
    fn set_offloads(&self, wanted: Offloads) -> Offloads {
        let set = |flags| value_ioctl(self.file.as_fd(), libc::TUNSETOFFLOAD, flags).is_ok();
        let tcp = TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6;
        // Without ECN the kernel segments what carries CWR itself.
        let tcp = [tcp | TUN_F_TSO_ECN, tcp];
        let tso = wanted.tun_tso.then_some(tcp).into_iter().flatten();
        let tso = tso.into_iter().find(|flags| set(*flags));
        // Kernels that have the two take them only together.
        let uso = tso.filter(|flags| wanted.tun_uso && set(flags | TUN_F_USO4 | TUN_F_USO6));
        if wanted.tun_tso && tso.is_none() {
            tracing::warn!(
                "the TUN has no TCP super-packets (tun-tso); packets are read one by one"
            );
        } else if wanted.tun_tso && wanted.tun_uso && uso.is_none() {
            tracing::warn!(
                "the TUN has no UDP super-packets (tun-uso); UDP is read packet by packet"
            );
        }
        if tso.is_none() {
            set(0);
        }
        Offloads {
            tun_tso: tso.is_some(),
            tun_uso: uso.is_some(),
            tun_gro: wanted.tun_gro,
            ..Offloads::NONE
        }
    }

    /// Reads one packet, which may be a super-packet if the device has such an offload.
    /// `WouldBlock` when there is none.
    pub fn read<'b>(
        &mut self,
        buffer: &'b mut TunBuffer,
    ) -> io::Result<(VnetHeader, &'b mut [u8])> {
        let frame = buffer.arena.get_mut(HEADROOM..).unwrap_or_default();
        let length = loop {
            match rustix::io::read(&self.file, &mut *frame) {
                Err(rustix::io::Errno::INTR) => {}
                read => break read?,
            }
        };
        let frame = frame.get_mut(..length).unwrap_or_default();
        let (header, packet) = frame
            .split_at_mut_checked(VnetHeader::LEN)
            .ok_or(io::ErrorKind::InvalidData)?;
        let (header, _) = VnetHeader::parse(header).ok_or(io::ErrorKind::InvalidData)?;
        buffer.length = packet.len();
        Ok((header, packet))
    }

    /// Writes one packet. Its checksums must be complete.
    pub fn write(&mut self, packet: &[u8]) -> io::Result<()> {
        self.writev(&[IoSlice::new(&[0; VnetHeader::LEN]), IoSlice::new(packet)])
    }

    /// Writes one packet, given as pieces, and how the kernel shall take it. At most
    /// [`WRITE_PIECES`] pieces are possible.
    pub fn write_vectored(
        &mut self,
        header: &VnetHeader,
        pieces: &[IoSlice<'_>],
    ) -> io::Result<()> {
        let header = header.encode();
        let header = IoSlice::new(&header);
        if let [packet] = pieces {
            return self.writev(&[header, *packet]);
        }
        let mut all = [header; WRITE_PIECES + 1];
        let room = all.get_mut(1..=pieces.len());
        room.ok_or(io::ErrorKind::InvalidInput)?
            .copy_from_slice(pieces);
        self.writev(all.get(..=pieces.len()).unwrap_or_default())
    }

    fn writev(&self, pieces: &[IoSlice<'_>]) -> io::Result<()> {
        loop {
            match rustix::io::writev(&self.file, pieces) {
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

/// The arena that a queue is read into, one packet at a time: the packet is copied out while it is
/// sealed, so a small arena stays in the cache.
#[derive(Debug)]
pub struct TunBuffer {
    arena: Arena,
    /// Of the packet read last.
    length: usize,
}

impl Default for TunBuffer {
    fn default() -> Self {
        Self::new()
    }
}

impl TunBuffer {
    /// An arena for one packet of 64 KiB.
    pub fn new() -> Self {
        Self {
            arena: Arena::new(HEADROOM + VnetHeader::LEN + SLOT_LEN),
            length: 0,
        }
    }

    /// The packet read last, as it is now.
    pub fn packet_mut(&mut self) -> &mut [u8] {
        let start = HEADROOM + VnetHeader::LEN;
        self.arena
            .get_mut(start..start + self.length)
            .unwrap_or_default()
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
const SIOCSIFTXQLEN: libc::Ioctl = 0x8943;
// linux/if_tun.h: what TUNSETOFFLOAD takes.
const TUN_F_CSUM: libc::c_ulong = 0x01;
const TUN_F_TSO4: libc::c_ulong = 0x02;
const TUN_F_TSO6: libc::c_ulong = 0x04;
const TUN_F_TSO_ECN: libc::c_ulong = 0x08;
const TUN_F_USO4: libc::c_ulong = 0x20;
const TUN_F_USO6: libc::c_ulong = 0x40;
/// Puts the IP header behind the vnet header on a 16-byte boundary.
const HEADROOM: usize = 6;
/// Pieces of one packet that [`TunQueue::write_vectored`] takes: headers and 64 segments, and some.
pub const WRITE_PIECES: usize = 130;
