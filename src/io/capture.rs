//! Listening on a link (packet(7)), for those who check what leaves a gateway.

use std::{
    io::{self, Read},
    mem::size_of,
    os::fd::{AsFd, AsRawFd},
    time::Duration,
};

use rustix::net::sockopt::set_socket_recv_buffer_size_force;
use socket2::{Domain, SockAddr, SockAddrStorage, SockFilter, Socket, Type};

use super::netns::link_index;
use super::sockopt::set_bytes;
use crate::wire::vnet::VnetHeader;

/// Every frame that enters or leaves one link of the namespace in which it was opened.
#[derive(Debug)]
pub struct Capture {
    socket: Socket,
    buffer: Box<[u8]>,
    /// Whether each frame comes with a vnet header.
    described: bool,
}

/// A frame as it passed the link; virtual links pass trains and super-packets on as a whole.
#[derive(Clone, Copy, Debug)]
pub struct Frame<'a> {
    /// Ethernet header first.
    pub bytes: &'a [u8],
    /// Payload of each packet that the frame would be cut into on a real link, if it is one of several.
    pub segment_size: Option<u16>,
}

impl Capture {
    /// Starts to listen on `link`. `filter` is a classic BPF program over whole frames that keeps
    /// what the caller is interested in; none keeps everything.
    pub fn open(link: &str, filter: &[SockFilter]) -> io::Result<Self> {
        // Without a protocol it hears nothing until it is bound, so the filter misses nothing.
        let socket = Socket::new(Domain::PACKET, Type::RAW, None)?;
        if !filter.is_empty() {
            socket.attach_filter(filter)?;
        }
        set_socket_recv_buffer_size_force(&socket, QUEUE)
            .map_err(io::Error::from)
            .or_else(|_| socket.set_recv_buffer_size(QUEUE))?;
        let one = 1_i32.to_ne_bytes();
        let asked = set_bytes(socket.as_fd(), libc::SOL_PACKET, PACKET_VNET_HDR, &one);
        socket.bind(&link_address(link_index(link)?)?)?;
        Ok(Self {
            socket,
            buffer: vec![0; LONGEST].into(),
            described: asked.is_ok(),
        })
    }

    /// The next frame; `None` when none came within `patience`.
    pub fn next(&mut self, patience: Duration) -> io::Result<Option<Frame<'_>>> {
        self.socket
            .set_read_timeout(Some(patience.max(Duration::from_millis(1))))?;
        match self.socket.read(&mut self.buffer) {
            Ok(length) => {
                let whole = self.buffer.get(..length).unwrap_or_default();
                Ok(Some(frame(whole, self.described)))
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// How many frames were lost because [`Self::next`] was not called fast enough, since the last
    /// call of this function.
    pub fn lost(&self) -> io::Result<u32> {
        let mut statistics = libc::tpacket_stats {
            tp_packets: 0,
            tp_drops: 0,
        };
        let mut length = libc::socklen_t::try_from(size_of::<libc::tpacket_stats>())
            .expect("the structure is a few bytes");
        // SAFETY: the pointers are to a `tpacket_stats` and its length, valid for the call.
        let result = unsafe {
            libc::getsockopt(
                self.socket.as_raw_fd(),
                libc::SOL_PACKET,
                libc::PACKET_STATISTICS,
                (&raw mut statistics).cast(),
                &raw mut length,
            )
        };
        if result < 0 {
            Err(io::Error::last_os_error())
        } else {
            Ok(statistics.tp_drops)
        }
    }
}

fn frame(whole: &[u8], described: bool) -> Frame<'_> {
    match VnetHeader::parse(whole).filter(|_| described) {
        Some((header, bytes)) => Frame {
            bytes,
            segment_size: Some(header.gso_size).filter(|_| header.gso_type != VnetHeader::GSO_NONE),
        },
        None => Frame {
            bytes: whole,
            segment_size: None,
        },
    }
}

/// All protocols on the link with this index.
fn link_address(index: u32) -> io::Result<SockAddr> {
    let all = u16::try_from(libc::ETH_P_ALL).map_err(io::Error::other)?;
    let address = libc::sockaddr_ll {
        sll_family: u16::try_from(libc::AF_PACKET).map_err(io::Error::other)?,
        sll_protocol: all.to_be(),
        sll_ifindex: i32::try_from(index).map_err(io::Error::other)?,
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 0,
        sll_addr: [0; 8],
    };
    let length = libc::socklen_t::try_from(size_of::<libc::sockaddr_ll>())
        .expect("the structure is a few bytes");
    let mut storage = SockAddrStorage::zeroed();
    // SAFETY: a `sockaddr_ll` is a kind of socket address, for all of which there is room.
    *unsafe { storage.view_as::<libc::sockaddr_ll>() } = address;
    // SAFETY: the first `length` bytes of the storage are an address of its family.
    Ok(unsafe { SockAddr::new(storage, length) })
}

/// Bytes of queued frames that the kernel keeps for us.
const QUEUE: usize = 16 << 20;
/// The longest frame: an unsegmented super-packet and its link header.
const LONGEST: usize = (64 << 10) + 64;
const PACKET_VNET_HDR: i32 = 15;
