//! What UDP and raw ESP sockets share: bursts in, bursts out, the DF switch.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};

use rustix::net::sockopt::{
    Ipv4PathMtuDiscovery, Ipv6PathMtuDiscovery, set_ip_mtu_discover, set_ipv6_mtu_discover,
};
use socket2::Socket;

use super::burst::{BURST, Framing, ReceiveBurst, Transmit, TransmitBurst};
use super::offload::Offloads;
use super::refusals::Refusals;
use super::sockopt;
use super::train::{Blame, Front, TRAIN_DATAGRAMS};

/// The mark of our own outer packets: the rule that leads protected traffic to the TUN excepts it.
pub const OUTER_MARK: u32 = 0x4c47;

/// What sockets of this gateway have in common.
#[derive(Clone, Copy, Debug)]
pub struct SocketOptions {
    /// SO_MARK; needs CAP_NET_ADMIN.
    pub mark: Option<u32>,
    /// Bytes asked for what was received and is not read yet.
    pub receive_buffer: usize,
    /// Bytes asked for what was sent and has not left yet.
    pub send_buffer: usize,
    /// Exempt from XFRM policies, that is, from our own guard; best effort.
    pub past_xfrm: bool,
    /// Which offloads to use, of those that the system has. With `udp_gro`, what is received has to be
    /// taken apart with [`Received::segments`](super::burst::Received::segments).
    pub offloads: Offloads,
}

impl Default for SocketOptions {
    fn default() -> Self {
        Self {
            mark: Some(OUTER_MARK),
            receive_buffer: 8 << 20,
            send_buffer: 8 << 20,
            past_xfrm: true,
            offloads: Offloads::NONE,
        }
    }
}

/// What became of a burst, in datagrams. No failure is fatal: the packets are lost, as on any network.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SendReport {
    /// Handed to the kernel.
    pub sent: u32,
    /// Messages that carried more than one of those sent.
    pub trains: u32,
    /// Datagrams that such messages carried.
    pub in_trains: u32,
    /// Refused with EMSGSIZE: larger than the path MTU, with DF set.
    pub too_big: u32,
    /// Refused because there is no route or no such source address.
    pub unreachable: u32,
    /// Refused because the socket's or the device's queue was full.
    pub queue_full: u32,
    /// Refused by a filter or policy of this system (EPERM, EACCES).
    pub denied: u32,
    /// Refused for any other reason.
    pub other: u32,
    /// Whether the socket took no more: what is unsent stays in the burst, to be sent again when the
    /// socket is writable.
    pub blocked: bool,
    /// System calls made.
    pub calls: u32,
    /// The first few distinct paths on which a packet was too big: the own and the peer's address.
    pub too_big_paths: [Option<(IpAddr, SocketAddr)>; 4],
}

impl SendReport {
    /// How many packets were not sent.
    pub fn failed(&self) -> u32 {
        self.too_big + self.unreachable + self.queue_full + self.denied + self.other
    }

    fn count(&mut self, error: &io::Error, transmit: &Transmit, datagrams: u16) {
        let datagrams = u32::from(datagrams);
        let Transmit { local, remote, .. } = *transmit;
        match error.raw_os_error() {
            Some(libc::EMSGSIZE) => {
                self.too_big += datagrams;
                self.note_path((local, remote));
            }
            Some(
                libc::ENETUNREACH
                | libc::EHOSTUNREACH
                | libc::EADDRNOTAVAIL
                | libc::ENETDOWN
                | libc::EINVAL,
            ) => self.unreachable += datagrams,
            Some(libc::ENOBUFS | libc::ENOMEM) => self.queue_full += datagrams,
            Some(libc::EPERM | libc::EACCES) => self.denied += datagrams,
            _ => self.other += datagrams,
        }
    }

    fn note_path(&mut self, path: (IpAddr, SocketAddr)) {
        for slot in &mut self.too_big_paths {
            match slot {
                Some(known) if *known == path => return,
                Some(_) => {}
                None => {
                    *slot = Some(path);
                    return;
                }
            }
        }
    }
}

/// A datagram socket that works in bursts.
#[derive(Debug)]
pub(super) struct BurstSocket {
    socket: Socket,
    ipv6: bool,
    framing: Framing,
    mark: Option<u32>,
    dont_fragment: Option<bool>,
    offloads: Offloads,
    /// Datagrams that a train may have.
    train: u16,
    /// Where trains are refused.
    refusals: Refusals,
    /// Whether a train was refused, and whether one has passed.
    was_refused: bool,
    has_passed: bool,
    /// How many buffers the next receive call is given.
    slots: usize,
}

impl BurstSocket {
    /// Applies everything that does not depend on the kind of socket.
    pub(super) fn new(
        socket: Socket,
        ipv6: bool,
        framing: Framing,
        options: &SocketOptions,
    ) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        if let Some(mark) = options.mark {
            socket.set_mark(mark)?;
        }
        sockopt::set_buffers(socket.as_fd(), options.receive_buffer, options.send_buffer);
        if options.past_xfrm {
            // Fails on kernels without XFRM and without CAP_NET_ADMIN, where no guard is either.
            let _ = sockopt::allow_past_xfrm(socket.as_fd(), ipv6);
        }
        let fd = socket.as_fd();
        if ipv6 {
            sockopt::set_int(fd, libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO, 1)?;
            sockopt::set_int(fd, libc::IPPROTO_IPV6, libc::IPV6_RECVTCLASS, 1)?;
        } else if framing == Framing::Bare {
            sockopt::set_int(fd, libc::IPPROTO_IP, libc::IP_PKTINFO, 1)?;
            sockopt::set_int(fd, libc::IPPROTO_IP, libc::IP_RECVTOS, 1)?;
        }
        Ok(Self {
            socket,
            ipv6,
            framing,
            mark: options.mark,
            dont_fragment: None,
            offloads: Offloads::NONE,
            train: TRAIN_DATAGRAMS,
            refusals: Refusals::default(),
            was_refused: false,
            has_passed: false,
            slots: BURST,
        })
    }

    pub(super) fn mark(&self) -> Option<u32> {
        self.mark
    }

    pub(super) fn socket(&self) -> &Socket {
        &self.socket
    }

    /// Which offloads of a socket it uses. Trains count as long as any path takes them.
    pub(super) fn offloads(&self) -> Offloads {
        let takes_trains = self.has_passed || !self.was_refused;
        Offloads {
            udp_gso: self.offloads.udp_gso && takes_trains,
            ..self.offloads
        }
    }

    /// Turns on the wanted offloads, as far as this kernel has them.
    pub(super) fn use_offloads(&mut self, wanted: Offloads) {
        self.offloads = Offloads {
            udp_gso: wanted.udp_gso,
            udp_gro: wanted.udp_gro && sockopt::receive_trains(self.socket.as_fd()),
            ..Offloads::NONE
        };
    }

    /// Receives what is there, up to the burst's capacity. `WouldBlock` when there is nothing.
    pub(super) fn recv_burst(&mut self, burst: &mut ReceiveBurst) -> io::Result<usize> {
        let headers = burst.prepare(self.slots, self.framing);
        let count = u32::try_from(headers.len()).map_err(io::Error::other)?;
        // SAFETY: `prepare` pointed the `count` headers at live, distinct buffers of `burst`, which is
        // borrowed exclusively for the call, with lengths no larger than those buffers.
        let received = unsafe {
            libc::recvmmsg(
                self.raw_fd(),
                headers.as_mut_ptr(),
                count,
                libc::MSG_DONTWAIT,
                std::ptr::null_mut(),
            )
        };
        let error = io::Error::last_os_error();
        let filled = usize::try_from(received).unwrap_or(0);
        let bytes = burst.fill(filled);
        if filled == 0 {
            return Err(error);
        }
        // Many single datagrams, few trains: what one call returns shall stay in the cache.
        self.slots = (WORKING_SET / (bytes / filled).max(1)).clamp(FEWEST_SLOTS, BURST);
        Ok(filled)
    }

    /// Sends the burst. What the socket does not take now stays in it, see [`SendReport::blocked`].
    pub(super) fn send_burst(&mut self, burst: &mut TransmitBurst, with_port: bool) -> SendReport {
        let mut report = SendReport::default();
        burst.offer(self.dont_fragment, |remote| {
            self.was_refused && self.refusals.covers(remote)
        });
        while let Some(front) = burst.front(self.most()) {
            report.calls += u32::from(self.switch_df(front.transmit.dont_fragment));
            let headers = burst.prepare(self.most(), with_port);
            let count = u32::try_from(headers.len()).unwrap_or(0);
            report.calls += 1;
            // SAFETY: `prepare` pointed the `count` headers at live buffers of `burst`, which stays
            // borrowed during the call, and the kernel only reads what they point to.
            let sent = unsafe {
                libc::sendmmsg(
                    self.raw_fd(),
                    headers.as_mut_ptr(),
                    count,
                    libc::MSG_DONTWAIT,
                )
            };
            match u32::try_from(sent) {
                Ok(sent) if sent > 0 => self.note_sent(burst, sent, &mut report),
                _ => match io::Error::last_os_error() {
                    error if error.kind() == io::ErrorKind::Interrupted => {}
                    error if error.kind() == io::ErrorKind::WouldBlock => {
                        report.blocked = true;
                        return report;
                    }
                    error => note_refused(burst, front, &error, &mut report),
                },
            }
        }
        burst.clear();
        report
    }

    /// Datagrams that one message carries.
    fn most(&self) -> u16 {
        if self.offloads.udp_gso { self.train } else { 1 }
    }

    fn note_sent(&mut self, burst: &mut TransmitBurst, messages: u32, report: &mut SendReport) {
        let sent = burst.advance(messages, self.most());
        report.sent += sent.datagrams;
        report.trains += sent.trains;
        let alone = messages.saturating_sub(sent.trains);
        report.in_trains += sent.datagrams.saturating_sub(alone);
        self.has_passed |= sent.trains > 0;
        match sent.blame {
            Some(Blame { limit, .. }) if limit > 1 => self.train = limit,
            Some(Blame { remote, error, .. }) => {
                self.refusals.add(remote);
                burst.send_singly(remote);
                if !std::mem::replace(&mut self.was_refused, true) {
                    let error = io::Error::from_raw_os_error(error);
                    tracing::warn!(
                        %error, %remote,
                        "UDP trains are refused (udp-gso); where that is so, datagrams are sent one by one"
                    );
                }
            }
            None => {}
        }
    }

    /// Sets DF for what follows. Without it the kernel may fragment, by the device's MTU. Whether that
    /// took a system call.
    pub(super) fn switch_df(&mut self, dont_fragment: bool) -> bool {
        if self.dont_fragment == Some(dont_fragment) {
            return false;
        }
        let switched = match (self.ipv6, dont_fragment) {
            (false, true) => set_ip_mtu_discover(&self.socket, Ipv4PathMtuDiscovery::DO),
            (false, false) => set_ip_mtu_discover(&self.socket, Ipv4PathMtuDiscovery::DONT),
            (true, true) => set_ipv6_mtu_discover(&self.socket, Ipv6PathMtuDiscovery::DO),
            (true, false) => set_ipv6_mtu_discover(&self.socket, Ipv6PathMtuDiscovery::DONT),
        };
        self.dont_fragment = switched.is_ok().then_some(dont_fragment);
        true
    }

    fn raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

impl AsFd for BurstSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// What is refused as a train may be so as a train only, or as one so long, so its parts are judged by
/// themselves. Of single datagrams, those to the same peer that are as long are judged together.
fn note_refused(
    burst: &mut TransmitBurst,
    front: Front,
    error: &io::Error,
    report: &mut SendReport,
) {
    let is_of_length = |code: &i32| [libc::EMSGSIZE, libc::EIO, libc::EINVAL].contains(code);
    match error.raw_os_error().filter(is_of_length) {
        Some(libc::EINVAL) if front.datagrams > OLD_TRAIN => {
            burst.shorten(OLD_TRAIN, libc::EINVAL);
        }
        Some(code) if front.datagrams > 1 => burst.shorten(1, code),
        Some(_) => {
            let datagrams = burst.skip_alike();
            report.count(error, &front.transmit, datagrams);
        }
        None => {
            report.count(error, &front.transmit, front.datagrams);
            burst.skip(front.datagrams);
        }
    }
}

/// Whether an error says that the system has no such address family, as with `ipv6.disable=1`.
pub(super) fn family_is_absent(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EAFNOSUPPORT | libc::EADDRNOTAVAIL)
    )
}

/// Bytes that one receive call shall not exceed by much.
const WORKING_SET: usize = 512 << 10;
const FEWEST_SLOTS: usize = 8;
/// UDP_MAX_SEGMENTS of older kernels.
const OLD_TRAIN: u16 = 64;
