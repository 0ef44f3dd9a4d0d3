//! The sockets of a worker: those it reads in turn and sends through, whatever their kind.

use std::io;
use std::os::fd::AsRawFd;

use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};

use super::readiness::Readiness;
use crate::dataplane::pipeline::Carrier;
use crate::io::burst::{ReceiveBurst, TransmitBurst};
use crate::io::offload::Offloads;
use crate::io::raw::RawSocket;
use crate::io::udp::{SendReport, UdpSocket};

/// A socket and what is known about it.
#[derive(Debug)]
pub(super) struct Port {
    pub(super) socket: PortSocket,
    token: Token,
    pub(super) readiness: Readiness,
    /// It takes no more until the poll says that it does.
    blocked: bool,
    awaits_room: bool,
}

#[derive(Debug)]
pub(super) enum PortSocket {
    Udp(UdpSocket),
    Raw(RawSocket),
}

impl Port {
    /// Registers a socket for reading.
    pub(super) fn new(socket: PortSocket, token: Token, registry: &Registry) -> io::Result<Self> {
        let fd = socket.raw_fd();
        registry.register(&mut SourceFd(&fd), token, Interest::READABLE)?;
        Ok(Self {
            socket,
            token,
            readiness: Readiness::default(),
            blocked: false,
            awaits_room: false,
        })
    }

    pub(super) fn is_blocked(&self) -> bool {
        self.blocked
    }

    /// The poll says that it takes more.
    pub(super) fn unblock(&mut self) {
        self.blocked = false;
    }

    /// Sends what the socket takes, unless it is known to take nothing.
    pub(super) fn send(
        &mut self,
        burst: &mut TransmitBurst,
        registry: &Registry,
    ) -> Option<SendReport> {
        if self.blocked {
            return None;
        }
        let mut report = match &mut self.socket {
            PortSocket::Udp(socket) => socket.send_burst(burst),
            PortSocket::Raw(socket) => socket.send_burst(burst),
        };
        if report.blocked != self.awaits_room {
            report.calls += 1;
            self.blocked = self.await_room(report.blocked, registry).is_ok() && report.blocked;
        } else {
            self.blocked = report.blocked;
        }
        Some(report)
    }

    /// Room in a socket is made with every packet that leaves, so it is watched only when it is needed.
    fn await_room(&mut self, wanted: bool, registry: &Registry) -> io::Result<()> {
        let interest = if wanted {
            Interest::READABLE | Interest::WRITABLE
        } else {
            Interest::READABLE
        };
        let fd = self.socket.raw_fd();
        registry.reregister(&mut SourceFd(&fd), self.token, interest)?;
        self.awaits_room = wanted;
        Ok(())
    }
}

impl PortSocket {
    pub(super) fn mark(&self) -> Option<u32> {
        match self {
            Self::Udp(socket) => socket.mark(),
            Self::Raw(socket) => socket.mark(),
        }
    }

    /// Which offloads of a UDP socket it uses; `None` of a raw one.
    pub(super) fn offloads(&self) -> Option<Offloads> {
        match self {
            Self::Udp(socket) => Some(socket.offloads()),
            Self::Raw(_) => None,
        }
    }

    /// What the log calls it.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Udp(_) => "a UDP socket",
            Self::Raw(_) => "a raw ESP socket",
        }
    }

    pub(super) fn carrier(&self) -> Carrier {
        match self {
            Self::Udp(socket) => Carrier::Udp {
                port: socket.local_addr().port(),
            },
            Self::Raw(_) => Carrier::Raw,
        }
    }

    pub(super) fn is_kind(&self, raw: bool, ipv6: bool) -> bool {
        match self {
            Self::Udp(socket) => !raw && socket.local_addr().is_ipv6() == ipv6,
            Self::Raw(socket) => raw && socket.is_ipv6() == ipv6,
        }
    }

    pub(super) fn recv_burst(&mut self, burst: &mut ReceiveBurst) -> io::Result<usize> {
        match self {
            Self::Udp(socket) => socket.recv_burst(burst),
            Self::Raw(socket) => socket.recv_burst(burst),
        }
    }

    fn raw_fd(&self) -> std::os::fd::RawFd {
        match self {
            Self::Udp(socket) => socket.as_raw_fd(),
            Self::Raw(socket) => socket.as_raw_fd(),
        }
    }
}
