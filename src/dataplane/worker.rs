//! A worker thread: one turn after another, each source a bounded burst per turn.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use core_affinity::CoreId;
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Registry, Token};

use super::command::WorkerCommand;
use super::egress::Egress;
use super::handle::{COMMAND_RING, Mailbox};
use super::pipeline::{Carrier, Pipeline};
use super::{WorkerPorts, stats::WorkerStats};
use crate::io::burst::{BURST, ReceiveBurst, TransmitBurst};
use crate::io::raw::RawSocket;
use crate::io::tun::{TunBuffer, TunQueue};
use crate::io::udp::{self, SendReport, UdpSocket};
use crate::ipsec::DropReason;
use crate::wire::vnet::VnetHeader;

/// A worker before and while it runs.
#[derive(Debug)]
pub(super) struct Worker {
    pipeline: Pipeline,
    mailbox: Arc<Mailbox>,
    poll: Poll,
    tun: TunPort,
    sockets: Vec<Port>,
    received: ReceiveBurst,
    egress: Egress,
    next_path_check: Instant,
}

#[derive(Debug)]
struct TunPort {
    queue: TunQueue,
    buffer: TunBuffer,
    ready: bool,
}

/// A socket and whether it may have more to read; readiness is edge-triggered.
#[derive(Debug)]
struct Port {
    socket: PortSocket,
    ready: bool,
}

#[derive(Debug)]
enum PortSocket {
    Udp(UdpSocket),
    Raw(RawSocket),
}

impl Worker {
    /// Registers the ports; nothing is read yet.
    pub(super) fn new(
        pipeline: Pipeline,
        poll: Poll,
        ports: WorkerPorts,
        mailbox: Arc<Mailbox>,
    ) -> io::Result<Self> {
        let udp = ports.udp.into_iter().map(PortSocket::Udp);
        let sockets = udp.chain(ports.raw.into_iter().map(PortSocket::Raw));
        let sockets: Vec<Port> = sockets
            .map(|socket| Port {
                socket,
                ready: true,
            })
            .collect();
        watch(poll.registry(), &ports.tun, TUN)?;
        for (index, port) in sockets.iter().enumerate() {
            port.socket
                .watch(poll.registry(), Token(FIRST_SOCKET.0 + index))?;
        }
        Ok(Self {
            pipeline,
            mailbox,
            poll,
            tun: TunPort {
                queue: ports.tun,
                buffer: TunBuffer::new(),
                ready: true,
            },
            sockets,
            received: ReceiveBurst::new(BURST),
            egress: Egress::default(),
            next_path_check: Instant::now() + PATH_CHECK,
        })
    }

    /// Works until it is told to stop.
    pub(super) fn run(mut self, core: Option<CoreId>) {
        let _guard = AbortOnPanic;
        if let Some(core) = core
            && !core_affinity::set_for_current(core)
        {
            tracing::warn!(
                core = core.id,
                "cannot tie a worker to its core; it runs on any"
            );
        }
        let mut events = Events::with_capacity(EVENTS);
        while !self.mailbox.stop.load(Ordering::Acquire) {
            if let Err(error) = self.poll.poll(&mut events, self.patience())
                && error.kind() != io::ErrorKind::Interrupted
            {
                tracing::error!(%error, "a worker cannot wait for packets");
                std::process::abort();
            }
            for event in &events {
                self.note_ready(event.token());
            }
            self.turn(Instant::now());
        }
    }

    /// How long to sleep: not at all while some source may have more.
    fn patience(&self) -> Option<Duration> {
        let (strays, events) = (self.pipeline.has_strays(), self.pipeline.is_behind());
        let more = self.tun.ready || self.sockets.iter().any(|port| port.ready);
        if more || strays || !self.mailbox.commands.is_empty() {
            Some(Duration::ZERO)
        } else if events {
            Some(EVENT_RETRY)
        } else {
            Some(PATH_CHECK)
        }
    }

    fn note_ready(&mut self, token: Token) {
        match token {
            WAKE => {}
            TUN => self.tun.ready = true,
            Token(number) => {
                let port = self.sockets.get_mut(number - FIRST_SOCKET.0);
                if let Some(port) = port {
                    port.ready = true;
                }
            }
        }
    }

    /// Gives every source one bounded chance.
    fn turn(&mut self, now: Instant) {
        self.obey(now);
        self.take_over(now);
        for index in 0..self.sockets.len() {
            self.receive(index, now);
        }
        self.seal(now);
        self.flush(now);
        self.pipeline.finish();
        if now >= self.next_path_check {
            self.next_path_check = now + PATH_CHECK;
            for _ in 0..PATHS_PER_CHECK {
                let Some((local, remote)) = self.pipeline.stale_path(now) else {
                    break;
                };
                let mark = self.sockets.iter().find_map(|port| port.socket.mark());
                ask_path_mtu(&mut self.pipeline, (local, remote), mark, now);
            }
        }
    }

    /// Carries out the commands that are there.
    ///
    /// Also done between taking packets in and processing them: whatever was commanded before a packet
    /// was sent, such as the SA that opens it, is then in force.
    fn obey(&mut self, now: Instant) {
        for _ in 0..COMMAND_RING {
            let Some(command) = self.mailbox.commands.pop() else {
                return;
            };
            let barrier = match command {
                WorkerCommand::Barrier(epoch) => Some(epoch),
                _ => None,
            };
            self.pipeline.apply(command);
            if let Some(epoch) = barrier {
                self.flush(now); // what was sealed under the old rules
                self.mailbox.passed.store(epoch, Ordering::Release);
            }
        }
    }

    fn take_over(&mut self, now: Instant) {
        for _ in 0..BURST {
            if !self.egress.has_room() {
                self.flush(now);
            }
            if !self.pipeline.has_strays() {
                return;
            }
            self.obey(now);
            let stats = Arc::clone(self.pipeline.stats());
            let queue = &mut self.tun.queue;
            let write = |packet: &[u8]| write(queue, packet, &stats);
            self.pipeline.take_over(now, &mut self.egress, write);
        }
    }

    /// Opens one burst from a socket.
    fn receive(&mut self, index: usize, now: Instant) {
        let Some(port) = self.sockets.get_mut(index).filter(|port| port.ready) else {
            return;
        };
        let carrier = port.socket.carrier();
        let count = port.socket.recv_burst(&mut self.received).unwrap_or(0);
        port.ready = self.received.is_full();
        if count == 0 {
            return;
        }
        self.obey(now);
        let stats = Arc::clone(self.pipeline.stats());
        stats.bursts.add(1);
        for received in self.received.iter_mut() {
            let Some(received) = received.filter(|received| !received.bytes.is_empty()) else {
                stats.dropped(DropReason::OuterMalformed);
                continue;
            };
            for segment in received.segments() {
                if let Some(inner) = self.pipeline.inbound(carrier, segment) {
                    write(&mut self.tun.queue, inner, &stats);
                }
            }
        }
    }

    /// Seals one burst from the TUN.
    fn seal(&mut self, now: Instant) {
        if !self.tun.ready {
            return;
        }
        self.obey(now); // an SA that was reported to be up is up for this burst
        let TunPort {
            queue,
            buffer,
            ready,
        } = &mut self.tun;
        let stats = Arc::clone(self.pipeline.stats());
        for number in 0..BURST {
            let Ok((header, packet)) = queue.read(buffer) else {
                *ready = false;
                return;
            };
            if number == 0 {
                stats.bursts.add(1);
            }
            if !is_plain(&header) {
                stats.dropped(DropReason::InnerMalformed);
                continue;
            }
            if !self.egress.has_room() {
                send(&mut self.sockets, &mut self.egress, &mut self.pipeline, now);
            }
            if let Some(reply) = self.pipeline.outbound(now, packet, &mut self.egress) {
                write(queue, reply, &stats);
            }
        }
    }

    fn flush(&mut self, now: Instant) {
        send(&mut self.sockets, &mut self.egress, &mut self.pipeline, now);
    }
}

/// Sends all that waits, each packet by the socket of its kind.
fn send(sockets: &mut [Port], egress: &mut Egress, pipeline: &mut Pipeline, now: Instant) {
    let bursts = [
        (false, false, &mut egress.udp_v4),
        (false, true, &mut egress.udp_v6),
        (true, false, &mut egress.raw_v4),
        (true, true, &mut egress.raw_v6),
    ];
    for (raw, ipv6, burst) in bursts {
        if burst.is_empty() {
            continue;
        }
        let mut ports = sockets.iter_mut();
        let Some(port) = ports.find(|port| port.socket.is_kind(raw, ipv6)) else {
            let lost = u32::try_from(burst.len()).unwrap_or(u32::MAX);
            pipeline.stats().dropped_many(DropReason::SendFailed, lost);
            burst.clear();
            continue;
        };
        let report = port.socket.send_burst(burst);
        if report.failed() > 0 {
            account(&report, port.socket.mark(), pipeline, now);
        }
    }
}

fn account(report: &SendReport, mark: Option<u32>, pipeline: &mut Pipeline, now: Instant) {
    let stats = pipeline.stats();
    let failed = report.unreachable + report.denied + report.other;
    stats.dropped_many(DropReason::SendFailed, failed);
    stats.dropped_many(DropReason::TransmitQueueFull, report.queue_full);
    stats.dropped_many(DropReason::TooBig, report.too_big);
    for (local, remote) in report.too_big_paths.into_iter().flatten() {
        if pipeline.should_ask_path_mtu(local, remote, now) {
            ask_path_mtu(pipeline, (local, remote), mark, now);
        }
    }
}

fn ask_path_mtu(
    pipeline: &mut Pipeline,
    (local, remote): (IpAddr, SocketAddr),
    mark: Option<u32>,
    now: Instant,
) {
    let answer = udp::path_mtu(local, remote, mark).ok();
    pipeline.learn_path_mtu(local, remote, answer, now);
}

fn write(queue: &mut TunQueue, packet: &[u8], stats: &WorkerStats) {
    if queue.write(packet).is_err() {
        stats.dropped(DropReason::TunWriteFailed);
    }
}

/// No offload was asked for, so no packet may come with work left to do.
fn is_plain(header: &VnetHeader) -> bool {
    header.gso_type == VnetHeader::GSO_NONE && header.flags & VnetHeader::NEEDS_CSUM == 0
}

impl PortSocket {
    fn watch(&self, registry: &Registry, token: Token) -> io::Result<()> {
        match self {
            Self::Udp(socket) => watch(registry, socket, token),
            Self::Raw(socket) => watch(registry, socket, token),
        }
    }

    fn mark(&self) -> Option<u32> {
        match self {
            Self::Udp(socket) => socket.mark(),
            Self::Raw(socket) => socket.mark(),
        }
    }

    fn carrier(&self) -> Carrier {
        match self {
            Self::Udp(socket) => Carrier::Udp {
                port: socket.local_addr().port(),
            },
            Self::Raw(_) => Carrier::Raw,
        }
    }

    fn is_kind(&self, raw: bool, ipv6: bool) -> bool {
        match self {
            Self::Udp(socket) => !raw && socket.local_addr().is_ipv6() == ipv6,
            Self::Raw(socket) => raw && socket.is_ipv6() == ipv6,
        }
    }

    fn recv_burst(&mut self, burst: &mut ReceiveBurst) -> io::Result<usize> {
        match self {
            Self::Udp(socket) => socket.recv_burst(burst),
            Self::Raw(socket) => socket.recv_burst(burst),
        }
    }

    fn send_burst(&mut self, burst: &mut TransmitBurst) -> SendReport {
        match self {
            Self::Udp(socket) => socket.send_burst(burst),
            Self::Raw(socket) => socket.send_burst(burst),
        }
    }
}

fn watch(registry: &Registry, source: &impl AsRawFd, token: Token) -> io::Result<()> {
    registry.register(
        &mut SourceFd(&source.as_raw_fd()),
        token,
        Interest::READABLE,
    )
}

/// Without its worker a gateway is a black hole; a supervisor can only restart what has ended.
struct AbortOnPanic;

impl Drop for AbortOnPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            std::process::abort();
        }
    }
}

pub(super) const WAKE: Token = Token(0);
const TUN: Token = Token(1);
const FIRST_SOCKET: Token = Token(2);
const EVENTS: usize = 16;
/// When to offer again what the control thread had no room for.
const EVENT_RETRY: Duration = Duration::from_millis(5);
const PATH_CHECK: Duration = Duration::from_secs(30);
const PATHS_PER_CHECK: usize = 16;
