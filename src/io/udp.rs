//! UDP sockets for IKE and for UDP-encapsulated ESP (RFC 3948).

use std::io::{self, IoSlice};
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU16;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};

use rustix::net::sockopt::{ip_mtu, ipv6_mtu};
use socket2::{Domain, MsgHdr, Protocol, SockAddr, Socket, Type};

use super::burst::{Framing, ReceiveBurst, Transmit, TransmitBurst};
use super::control_message::ControlBuffer;
use super::offload::Offloads;
use super::socket::{BurstSocket, family_is_absent};
pub use super::socket::{OUTER_MARK, SendReport, SocketOptions};
use super::{sockopt, steering};

/// A UDP socket that receives and sends bursts, and knows for each datagram which own address,
/// traffic class and fragmentation rule it came with or shall have.
#[derive(Debug)]
pub struct UdpSocket {
    inner: BurstSocket,
    local: SocketAddr,
}

/// The sockets of one port and address family that share it by SPI (see [`steering`]).
#[derive(Debug)]
pub struct UdpGroup {
    /// Gets IKE and keepalives.
    pub control: UdpSocket,
    /// One per worker, in order; gets the ESP whose SPI is the worker's.
    pub workers: Vec<UdpSocket>,
}

impl UdpGroup {
    /// Binds the control socket and one socket per worker to `local`, usually a wildcard.
    ///
    /// Offloads are for the workers only. `None` if this system does not have the address family, as
    /// with IPv6 disabled. A port that
    /// somebody else has, be it another instance of ourselves, is refused (`AddrInUse`).
    pub fn bind(
        local: SocketAddr,
        workers: NonZeroU16,
        options: &SocketOptions,
    ) -> io::Result<Option<Self>> {
        // A shared bind would quietly join a group that another process has.
        let Some(probe) = UdpSocket::bind(local, options)? else {
            return Ok(None);
        };
        drop(probe);
        let single = SocketOptions {
            offloads: Offloads::NONE,
            ..*options
        };
        let control = UdpSocket::open(local, true, &single)?;
        // With port 0 the first member chooses; the others have to join it there.
        let shared = control.local;
        let workers_sockets = (0..workers.get())
            .map(|_| UdpSocket::open(shared, true, options))
            .collect::<io::Result<Vec<_>>>()?;
        steering::steer_group(&control, workers)?;
        Ok(Some(Self {
            control,
            workers: workers_sockets,
        }))
    }
}

impl UdpSocket {
    /// Binds a socket that shares its port with nobody.
    ///
    /// `None` if this system does not have the address family, as with IPv6 disabled.
    pub fn bind(local: SocketAddr, options: &SocketOptions) -> io::Result<Option<Self>> {
        match Self::open(local, false, options) {
            Err(error) if local.is_ipv6() && family_is_absent(&error) => Ok(None),
            opened => opened.map(Some),
        }
    }

    fn open(local: SocketAddr, shared: bool, options: &SocketOptions) -> io::Result<Self> {
        let ipv6 = local.is_ipv6();
        let domain = if ipv6 { Domain::IPV6 } else { Domain::IPV4 };
        let socket = Socket::new(domain, Type::DGRAM, Some(Protocol::UDP))?;
        if ipv6 {
            socket.set_only_v6(true)?;
        }
        socket.set_reuse_port(shared)?;
        let mut inner = BurstSocket::new(socket, ipv6, Framing::Bare, options)?;
        inner.use_offloads(options.offloads);
        inner.socket().bind(&SockAddr::from(local))?;
        let bound = inner.socket().local_addr()?.as_socket();
        let local = bound.ok_or_else(|| io::Error::other("a UDP socket has an IP address"))?;
        Ok(Self { inner, local })
    }

    /// The address and port it is bound to.
    pub fn local_addr(&self) -> SocketAddr {
        self.local
    }

    /// The mark of the packets it sends.
    pub fn mark(&self) -> Option<u32> {
        self.inner.mark()
    }

    /// Which of the offloads of a socket are in use; one that fails is given up.
    pub fn offloads(&self) -> Offloads {
        self.inner.offloads()
    }

    /// Receives what is there, up to the burst's capacity. `WouldBlock` when there is nothing.
    pub fn recv_burst(&mut self, burst: &mut ReceiveBurst) -> io::Result<usize> {
        self.inner.recv_burst(burst)
    }

    /// Sends the burst. What the socket does not take now stays in it, see [`SendReport::blocked`].
    pub fn send_burst(&mut self, burst: &mut TransmitBurst) -> SendReport {
        self.inner.send_burst(burst, true)
    }

    /// Sends one datagram, gathered from `parts`.
    pub fn send(&mut self, transmit: &Transmit, parts: &[IoSlice<'_>]) -> io::Result<()> {
        self.inner.switch_df(transmit.dont_fragment);
        let mut control = ControlBuffer::default();
        let length = control.set(transmit.local, transmit.tos, None);
        let control = control.bytes.get(..length).unwrap_or_default();
        let remote = SockAddr::from(transmit.remote);
        let message = MsgHdr::new()
            .with_addr(&remote)
            .with_buffers(parts)
            .with_control(control);
        self.inner
            .socket()
            .sendmsg(&message, libc::MSG_DONTWAIT)
            .map(drop)
    }
}

impl AsFd for UdpSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.inner.as_fd()
    }
}

impl AsRawFd for UdpSocket {
    fn as_raw_fd(&self) -> RawFd {
        self.inner.as_fd().as_raw_fd()
    }
}

/// The MTU that the kernel knows for the path to `remote`, ICMP "too big" messages included. `mark` is
/// that of the packets in question: without it the answer may be about the way into the tunnel.
pub fn path_mtu(local: IpAddr, remote: SocketAddr, mark: Option<u32>) -> io::Result<u16> {
    let ipv6 = remote.is_ipv6();
    let domain = if ipv6 { Domain::IPV6 } else { Domain::IPV4 };
    let socket = Socket::new(domain, Type::DGRAM, Some(Protocol::UDP))?;
    if let Some(mark) = mark {
        socket.set_mark(mark)?;
    }
    let _ = sockopt::allow_past_xfrm(socket.as_fd(), ipv6);
    socket.bind(&SockAddr::from(SocketAddr::new(local, 0)))?;
    let mut target = remote;
    if target.port() == 0 {
        target.set_port(PROBE_PORT);
    }
    socket.connect(&SockAddr::from(target))?;
    let mtu = if ipv6 {
        ipv6_mtu(&socket)?
    } else {
        ip_mtu(&socket)?
    };
    Ok(u16::try_from(mtu).unwrap_or(u16::MAX))
}

/// System calls that a [`path_mtu`] with a mark makes when it succeeds: a socket is opened, given four
/// properties, connected, asked and closed. One that fails makes fewer and is counted as this many.
pub const PATH_MTU_CALLS: u64 = 8;
/// Nothing is sent to it; connecting needs some port.
const PROBE_PORT: u16 = 4500;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::burst::{Flows, PushError, Received};

    const OPTIONS: SocketOptions = SocketOptions {
        mark: None,
        receive_buffer: 1 << 20,
        send_buffer: 1 << 20,
        past_xfrm: false,
        offloads: Offloads::ALL,
    };

    /// A socket that sends no checksums may send no trains: the kernel says EINVAL.
    #[test]
    fn a_socket_whose_trains_are_refused_sends_one_by_one_from_then_on() {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let open = || {
            UdpSocket::bind(any, &OPTIONS)
                .expect("bound")
                .expect("IPv4")
        };
        let (mut sender, mut receiver) = (open(), open());
        sockopt::set_int(sender.as_fd(), libc::SOL_SOCKET, libc::SO_NO_CHECK, 1).expect("set");
        let transmit = Transmit {
            local: any.ip(),
            remote: receiver.local_addr(),
            tos: 0,
            dont_fragment: true,
        };
        let mut burst = TransmitBurst::new();
        let mut received = ReceiveBurst::new(64);
        for round in 0..2 {
            for number in 0..100 {
                let pushed: Result<(), PushError<()>> =
                    burst.push(transmit, Flows::ANY, 50, |buffer| {
                        buffer.fill(number);
                        Ok(())
                    });
                assert_eq!(pushed, Ok(()));
            }
            let report = sender.send_burst(&mut burst);
            assert_eq!((report.sent, report.trains, report.failed()), (100, 0, 0));
            assert!(!sender.offloads().udp_gso);
            assert!(round == 0 || report.calls == 1, "{report:?}");
            let mut arrived = Vec::new();
            while receiver.recv_burst(&mut received).is_ok() {
                let datagrams = received.iter_mut().flatten().flat_map(Received::segments);
                arrived.extend(datagrams.filter_map(|one| one.bytes.first().copied()));
            }
            assert_eq!(arrived, (0..100).collect::<Vec<u8>>());
        }
    }

    /// Two flows of which one may be fragmented, and one whose packets congestion marks now and then.
    #[test]
    fn a_mix_of_df_and_ecn_goes_in_a_few_calls() {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let open = || {
            UdpSocket::bind(any, &OPTIONS)
                .expect("bound")
                .expect("IPv4")
        };
        let (mut sender, receiver) = (open(), open());
        let mut burst = TransmitBurst::new();
        let (mut calls, mut sent) = (0, 0);
        for _ in 0..3 {
            for number in 0..300_u64 {
                let transmit = Transmit {
                    local: any.ip(),
                    remote: receiver.local_addr(),
                    tos: if number % 3 == 2 { 2 } else { 0 },
                    dont_fragment: number % 3 != 1,
                };
                let flow = Flows::of((number % 3) << 58);
                let pushed = burst.push::<()>(transmit, flow, 50, |buffer| {
                    buffer.fill(0);
                    Ok(())
                });
                assert_eq!(pushed, Ok(()));
            }
            let report = sender.send_burst(&mut burst);
            assert_eq!(report.failed(), 0);
            calls += report.calls;
            sent += report.sent;
        }
        assert_eq!(sent, 900);
        assert!(calls * 5 < sent, "{calls} calls");
    }
}
