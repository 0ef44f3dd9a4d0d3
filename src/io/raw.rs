//! Raw sockets for ESP without UDP encapsulation (IP protocol 50, RFC 4303 §2).

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::num::NonZeroU16;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};

use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use super::burst::{Framing, ReceiveBurst, TransmitBurst};
use super::socket::{BurstSocket, family_is_absent};
pub use super::socket::{SendReport, SocketOptions};
use super::steering;

/// A raw ESP socket of one worker: it receives only the SPIs that are the worker's, from the ESP
/// header on, whatever IP options came before it.
#[derive(Debug)]
pub struct RawSocket {
    inner: BurstSocket,
    ipv6: bool,
}

impl RawSocket {
    /// Opens the socket of `worker` among `workers` for one address family.
    ///
    /// `None` if this system does not have the address family, as with IPv6 disabled.
    pub fn open(
        ipv6: bool,
        worker: u16,
        workers: NonZeroU16,
        options: &SocketOptions,
    ) -> io::Result<Option<Self>> {
        match Self::try_open(ipv6, worker, workers, options) {
            Err(error) if ipv6 && family_is_absent(&error) => Ok(None),
            opened => opened.map(Some),
        }
    }

    fn try_open(
        ipv6: bool,
        worker: u16,
        workers: NonZeroU16,
        options: &SocketOptions,
    ) -> io::Result<Self> {
        let (domain, wildcard, framing) = if ipv6 {
            (
                Domain::IPV6,
                SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)),
                Framing::Bare,
            )
        } else {
            (
                Domain::IPV4,
                SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
                Framing::Ipv4Header,
            )
        };
        let socket = Socket::new(domain, Type::RAW, Some(Protocol::from(libc::IPPROTO_ESP)))?;
        steering::filter_raw(&socket, ipv6, worker, workers)?;
        let inner = BurstSocket::new(socket, ipv6, framing, options)?;
        inner.socket().bind(&SockAddr::from(wildcard))?;
        Ok(Self { inner, ipv6 })
    }

    /// Whether this is the IPv6 socket.
    pub fn is_ipv6(&self) -> bool {
        self.ipv6
    }

    /// The mark of the packets it sends.
    pub fn mark(&self) -> Option<u32> {
        self.inner.mark()
    }

    /// Receives what is there, up to the burst's capacity. `WouldBlock` when there is nothing.
    pub fn recv_burst(&mut self, burst: &mut ReceiveBurst) -> io::Result<usize> {
        self.inner.recv_burst(burst)
    }

    /// Sends the burst; the kernel writes the IP header. Ports are ignored. What the socket does not
    /// take now stays in the burst, see [`SendReport::blocked`].
    pub fn send_burst(&mut self, burst: &mut TransmitBurst) -> SendReport {
        self.inner.send_burst(burst, false)
    }
}

impl AsFd for RawSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.inner.as_fd()
    }
}

impl AsRawFd for RawSocket {
    fn as_raw_fd(&self) -> RawFd {
        self.inner.as_fd().as_raw_fd()
    }
}
