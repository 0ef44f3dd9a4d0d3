//! A worker thread: one turn after another, each source a bounded burst per turn.

mod inbound;
mod outbound;
mod port;
mod readiness;
mod tun;

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use core_affinity::CoreId;
use mio::event::Event;
use mio::{Events, Poll, Registry, Token};

use super::WorkerPorts;
use super::command::WorkerCommand;
use super::egress::Egress;
use super::handle::{COMMAND_RING, Mailbox};
use super::pipeline::Pipeline;
use super::stats::WorkerStats;
use crate::io::burst::{BURST, ReceiveBurst};
use crate::io::offload::MergeScratch;
use outbound::Pending;
use port::{Port, PortSocket};
use tun::TunPort;

/// A worker before and while it runs.
#[derive(Debug)]
pub(super) struct Worker {
    core: Core,
    poll: Poll,
    tun: TunPort,
    received: ReceiveBurst,
    scratch: MergeScratch,
    /// A packet for which the egress had no room; nothing else is read from the TUN meanwhile.
    pending: Option<Pending>,
    /// How long to look for packets after the last one before going to sleep.
    spin: Duration,
    pace: Pace,
    next_path_check: Instant,
}

/// What packets go through, apart from what they are read from.
#[derive(Debug)]
struct Core {
    pipeline: Pipeline,
    stats: Arc<WorkerStats>,
    mailbox: Arc<Mailbox>,
    registry: Registry,
    ports: Vec<Port>,
    egress: Egress,
    /// When the first of the packets in the egress was read.
    oldest: Option<Instant>,
    /// A barrier that is passed when the egress is empty; until then nothing more is read to be sealed.
    passing: Option<u64>,
}

/// When to ask the poll which sources are ready.
#[derive(Debug)]
struct Pace {
    last_packet: Instant,
    last_poll: Instant,
    turns: u32,
}

impl Worker {
    /// Registers the ports; nothing is read yet.
    pub(super) fn new(
        pipeline: Pipeline,
        poll: Poll,
        ports: WorkerPorts,
        spin: Duration,
        mailbox: Arc<Mailbox>,
    ) -> io::Result<Self> {
        let udp = ports.udp.into_iter().map(PortSocket::Udp);
        let sockets = udp.chain(ports.raw.into_iter().map(PortSocket::Raw));
        let registry = poll.registry().try_clone()?;
        let tun = TunPort::new(ports.tun, TUN, &registry)?;
        let ports = sockets.zip(FIRST_SOCKET.0..);
        let ports = ports.map(|(socket, number)| Port::new(socket, Token(number), &registry));
        let ports = ports.collect::<io::Result<Vec<_>>>()?;
        let now = Instant::now();
        let core = Core {
            stats: Arc::clone(pipeline.stats()),
            pipeline,
            mailbox,
            registry,
            ports,
            egress: Egress::default(),
            oldest: None,
            passing: None,
        };
        core.note_offloads();
        Ok(Self {
            core,
            poll,
            tun,
            received: ReceiveBurst::new(BURST),
            scratch: MergeScratch::new(),
            pending: None,
            spin,
            pace: Pace {
                last_packet: now,
                last_poll: now,
                turns: 0,
            },
            next_path_check: now + PATH_CHECK,
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
        let mut now = Instant::now();
        while !self.core.mailbox.stop.load(Ordering::Acquire) {
            if let Some(patience) = self.patience(now) {
                self.wait(&mut events, patience);
                now = Instant::now();
                self.pace.last_poll = now;
                self.pace.turns = 0;
            }
            self.pace.turns += 1;
            if self.turn(now) {
                now = Instant::now();
                self.pace.last_packet = now;
            }
        }
    }

    /// How long to wait for a source to become ready; `None` if it need not be asked now.
    fn patience(&self, now: Instant) -> Option<Duration> {
        let core = &self.core;
        let mut ports = core.ports.iter();
        let openable =
            ports.any(|port| port.readiness.is_set()) || core.pipeline.has_inbound_strays();
        let sealable = self.tun.readiness.is_set()
            || core.pipeline.has_outbound_strays()
            || self.pending.is_some()
            || core.passing.is_some();
        let commanded = core.pipeline.is_settling() || !core.mailbox.commands.is_empty();
        if commanded || openable || sealable && !core.is_blocked() {
            let recently = now.saturating_duration_since(self.pace.last_poll) < POLL_EVERY;
            return (!recently || self.pace.turns >= TURNS_PER_POLL).then_some(Duration::ZERO);
        }
        if now.saturating_duration_since(self.pace.last_packet) < self.spin {
            Some(Duration::ZERO)
        } else if self.core.pipeline.is_behind() {
            Some(EVENT_RETRY)
        } else if self.core.pipeline.has_waiting() {
            Some(WAITING_CHECK)
        } else {
            Some(PATH_CHECK)
        }
    }

    fn wait(&mut self, events: &mut Events, patience: Duration) {
        if let Err(error) = self.poll.poll(events, Some(patience))
            && error.kind() != io::ErrorKind::Interrupted
        {
            tracing::error!(%error, "a worker cannot wait for packets");
            std::process::abort();
        }
        self.core.stats.calls.add(1);
        for event in &*events {
            self.note_ready(event);
        }
    }

    fn note_ready(&mut self, event: &Event) {
        match event.token() {
            WAKE => {}
            TUN => self.tun.readiness.set(),
            Token(number) => {
                let port = self.core.ports.get_mut(number - FIRST_SOCKET.0);
                if let Some(port) = port {
                    if event.is_readable() || event.is_error() {
                        port.readiness.set();
                    }
                    if event.is_writable() {
                        port.unblock();
                    }
                }
            }
        }
    }

    /// Gives every source one bounded chance. Whether there was any packet.
    fn turn(&mut self, now: Instant) -> bool {
        self.core.obey(now);
        self.core.pipeline.settle(now);
        self.core.pipeline.expire(now);
        let mut busy = self.open_strays() | self.take_over(now);
        for index in 0..self.core.ports.len() {
            busy |= self.receive(index, now);
        }
        busy |= self.seal(now);
        self.core.flush(now);
        self.core.pipeline.finish();
        if now >= self.next_path_check {
            self.next_path_check = now + PATH_CHECK;
            self.core.check_paths(now);
        }
        busy
    }
}

impl Core {
    /// Carries out the commands that are there.
    ///
    /// Also done between taking packets in and processing them: whatever was commanded before a packet
    /// was sent, such as the SA that opens it, is then in force.
    fn obey(&mut self, now: Instant) {
        if self.mailbox.commands.is_empty() {
            return;
        }
        for _ in 0..COMMAND_RING {
            let Some(command) = self.mailbox.commands.pop() else {
                return;
            };
            let barrier = match command {
                WorkerCommand::Barrier(epoch) => Some(epoch),
                _ => None,
            };
            self.pipeline.apply(command);
            if barrier.is_some() {
                self.passing = barrier;
                self.flush(now); // what was sealed under the old rules
            }
        }
    }

    /// Acknowledges a barrier, since the egress is empty.
    fn pass(&mut self) {
        if let Some(epoch) = self.passing.take() {
            self.mailbox.passed.store(epoch, Ordering::Release);
            self.pipeline.signal();
        }
    }
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
/// How long other sources may wait to be noticed while some are known to be ready.
const POLL_EVERY: Duration = Duration::from_micros(50);
const TURNS_PER_POLL: u32 = 8;
/// When to offer again what the control thread had no room for.
const EVENT_RETRY: Duration = Duration::from_millis(5);
/// When to look whether packets have waited too long for an SA.
const WAITING_CHECK: Duration = Duration::from_secs(1);
const PATH_CHECK: Duration = Duration::from_secs(30);
