//! What UDP and raw ESP sockets share: bursts in, bursts out, the DF switch.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};

use rustix::net::sockopt::{
    Ipv4PathMtuDiscovery, Ipv6PathMtuDiscovery, set_ip_mtu_discover, set_ipv6_mtu_discover,
};
use socket2::Socket;

use super::address::SocketName;
use super::burst::{Framing, ReceiveBurst, SLOT_LEN, STRIDE, TransmitBurst};
use super::control_message::{CONTROL_LEN, ControlBuffer};
use super::offload::Offloads;
use super::sockopt;

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
    /// Which offloads to use, of those that the system has.
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

/// What became of a burst. No failure is fatal: the packets are lost, as on any network.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SendReport {
    /// Handed to the kernel.
    pub sent: u32,
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

    fn count(&mut self, error: &io::Error, local: IpAddr, remote: SocketAddr) {
        match error.raw_os_error() {
            Some(libc::EMSGSIZE) => {
                self.too_big += 1;
                self.note_path((local, remote));
            }
            Some(
                libc::ENETUNREACH
                | libc::EHOSTUNREACH
                | libc::EADDRNOTAVAIL
                | libc::ENETDOWN
                | libc::EINVAL,
            ) => self.unreachable += 1,
            Some(libc::ENOBUFS | libc::ENOMEM | libc::EAGAIN) => self.queue_full += 1,
            Some(libc::EPERM | libc::EACCES) => self.denied += 1,
            _ => self.other += 1,
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
        } else {
            sockopt::set_int(fd, libc::IPPROTO_IP, libc::IP_PKTINFO, 1)?;
            sockopt::set_int(fd, libc::IPPROTO_IP, libc::IP_RECVTOS, 1)?;
        }
        Ok(Self {
            socket,
            ipv6,
            framing,
            mark: options.mark,
            dont_fragment: None,
        })
    }

    pub(super) fn mark(&self) -> Option<u32> {
        self.mark
    }

    pub(super) fn socket(&self) -> &Socket {
        &self.socket
    }

    /// Receives what is there, up to the burst's capacity. `WouldBlock` when there is nothing.
    pub(super) fn recv_burst(&mut self, burst: &mut ReceiveBurst) -> io::Result<usize> {
        burst.filled = 0;
        burst.framing = self.framing;
        let slots = burst
            .arena
            .chunks_exact_mut(STRIDE)
            .zip(burst.names.iter_mut().zip(burst.controls.iter_mut()))
            .zip(
                burst
                    .calls
                    .vectors
                    .iter_mut()
                    .zip(burst.calls.headers.iter_mut()),
            );
        for ((slot, (name, control)), (vector, header)) in slots {
            vector.iov_base = slot.as_mut_ptr().cast();
            vector.iov_len = SLOT_LEN;
            header.msg_len = 0;
            point(
                &mut header.msg_hdr,
                vector,
                name,
                size_of::<SocketName>(),
                control,
                CONTROL_LEN,
            );
        }
        let count = u32::try_from(burst.calls.headers.len()).map_err(io::Error::other)?;
        let headers = burst.calls.headers.as_mut_ptr();
        // SAFETY: the `count` headers were just pointed at live, distinct buffers of `burst`, which
        // is borrowed exclusively for the call, with lengths no larger than those buffers.
        let received = unsafe {
            libc::recvmmsg(
                self.raw_fd(),
                headers,
                count,
                libc::MSG_DONTWAIT,
                std::ptr::null_mut(),
            )
        };
        burst.filled = usize::try_from(received).map_err(|_| io::Error::last_os_error())?;
        Ok(burst.filled)
    }

    /// Sends and empties the burst.
    pub(super) fn send_burst(&mut self, burst: &mut TransmitBurst, with_port: bool) -> SendReport {
        let mut report = SendReport::default();
        self.prepare(burst, with_port);
        let mut next = 0;
        while let Some(first) = burst.messages.get(next) {
            let dont_fragment = first.transmit.dont_fragment;
            let run = burst
                .messages
                .iter()
                .skip(next)
                .take_while(|message| message.transmit.dont_fragment == dont_fragment)
                .count();
            self.switch_df(dont_fragment);
            next = self.send_run(burst, next, next + run, &mut report);
        }
        burst.clear();
        report
    }

    fn prepare(&self, burst: &mut TransmitBurst, with_port: bool) {
        let calls = burst
            .calls
            .vectors
            .iter_mut()
            .zip(burst.calls.headers.iter_mut());
        let names = burst.names.iter_mut().zip(burst.controls.iter_mut());
        for ((message, (name, control)), (vector, header)) in
            burst.messages.iter().zip(names).zip(calls)
        {
            let transmit = &message.transmit;
            let mut remote = transmit.remote;
            if !with_port {
                remote.set_port(0);
            }
            let bytes = burst
                .arena
                .get(message.start..message.start + message.length);
            let bytes = bytes.unwrap_or_default();
            vector.iov_base = bytes.as_ptr().cast_mut().cast(); // only read, and only by the kernel
            vector.iov_len = bytes.len();
            let name_length = name.set(remote);
            let control_length = control.set(transmit.local, transmit.tos, None);
            header.msg_len = 0;
            point(
                &mut header.msg_hdr,
                vector,
                name,
                name_length,
                control,
                control_length,
            );
        }
    }

    /// Sends the messages from `next` to `end`, which agree on DF; returns where to go on.
    fn send_run(
        &self,
        burst: &mut TransmitBurst,
        mut next: usize,
        end: usize,
        report: &mut SendReport,
    ) -> usize {
        while next < end {
            let headers = burst.calls.headers.get_mut(next..end).unwrap_or_default();
            let count = u32::try_from(headers.len()).unwrap_or(0);
            report.calls += 1;
            // SAFETY: `prepare` pointed these headers at live buffers of `burst`, which stays
            // borrowed during the call, and the kernel only reads what they point to.
            let sent = unsafe {
                libc::sendmmsg(
                    self.raw_fd(),
                    headers.as_mut_ptr(),
                    count,
                    libc::MSG_DONTWAIT,
                )
            };
            if let Ok(sent) = u32::try_from(sent)
                && sent > 0
            {
                report.sent += sent;
                next = next.saturating_add(usize::try_from(sent).unwrap_or(usize::MAX));
                continue;
            }
            let error = io::Error::last_os_error();
            if error.kind() == io::ErrorKind::Interrupted {
                continue;
            }
            if error.kind() == io::ErrorKind::WouldBlock {
                report.queue_full += u32::try_from(end - next).unwrap_or(u32::MAX);
                return end;
            }
            if let Some(message) = burst.messages.get(next) {
                report.count(&error, message.transmit.local, message.transmit.remote);
            }
            next += 1;
        }
        next
    }

    /// Sets DF for what follows. Without it the kernel may fragment, by the device's MTU.
    pub(super) fn switch_df(&mut self, dont_fragment: bool) {
        if self.dont_fragment == Some(dont_fragment) {
            return;
        }
        let switched = match (self.ipv6, dont_fragment) {
            (false, true) => set_ip_mtu_discover(&self.socket, Ipv4PathMtuDiscovery::DO),
            (false, false) => set_ip_mtu_discover(&self.socket, Ipv4PathMtuDiscovery::DONT),
            (true, true) => set_ipv6_mtu_discover(&self.socket, Ipv6PathMtuDiscovery::DO),
            (true, false) => set_ipv6_mtu_discover(&self.socket, Ipv6PathMtuDiscovery::DONT),
        };
        self.dont_fragment = switched.is_ok().then_some(dont_fragment);
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

/// Points a message header at its parts.
fn point(
    header: &mut libc::msghdr,
    vector: &mut libc::iovec,
    name: &mut SocketName,
    name_length: usize,
    control: &mut ControlBuffer,
    control_length: usize,
) {
    header.msg_name = name.bytes.as_mut_ptr().cast();
    header.msg_namelen = libc::socklen_t::try_from(name_length).unwrap_or(0);
    header.msg_iov = vector;
    header.msg_iovlen = 1;
    header.msg_control = control.bytes.as_mut_ptr().cast();
    header.msg_controllen = control_length;
    header.msg_flags = 0;
}

/// Whether an error says that the system has no such address family, as with `ipv6.disable=1`.
pub(super) fn family_is_absent(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EAFNOSUPPORT | libc::EADDRNOTAVAIL)
    )
}
