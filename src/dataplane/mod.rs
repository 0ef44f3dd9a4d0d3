//! Pinned workers that run the packet path to completion. Knows SAs, not IKE.
//!
//! A worker owns one TUN queue, one UDP socket per address family (and raw ESP sockets), its SAs and
//! a copy of the SPD. It takes a burst from one source, takes each packet all the way and sends what
//! came of the burst. Packets cross to another worker only when they reached the wrong one.
//!
//! ```text
//! control thread ── WorkerCommand ring ──► worker: commands, strays, sockets, TUN ─┐ one turn
//!       ▲                                    └───────────◄──────────────────────────┘
//!       └────────── SaEvent ring ────────────┘
//! ```
//!
//! [`pipeline`] is the path of a packet, [`Handle`] the control thread's end.

mod command;
mod databases;
mod egress;
mod events;
mod hand_off;
mod handle;
pub mod latency;
mod limits;
mod mss;
mod path_mtus;
pub mod pipeline;
pub mod stats;
mod waiting;
mod worker;

use std::io;
use std::num::NonZeroU16;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use crossbeam::queue::ArrayQueue;
use mio::Waker;

pub use command::WorkerCommand;
pub use egress::Egress;
pub use hand_off::Stray;
pub use handle::{Epoch, Handle};
pub use latency::LatencySnapshot;
pub use pipeline::{Carrier, Outbound, Pipeline, Rest};
pub use stats::{Snapshot, Traffic, WorkerSnapshot};

use crate::io::offload::Offloads;
use crate::io::raw::RawSocket;
use crate::io::tun::TunQueue;
use crate::io::udp::UdpSocket;
use crate::ipsec::{Spd, WorkerId};
use databases::Settling;
use events::EventSender;
use hand_off::{HandOff, Rings};
use handle::Mailbox;
use limits::Acquires;
use path_mtus::PathMtus;
use stats::WorkerStats;
use waiting::Waiting;
use worker::Worker;

/// What the workers start with.
#[derive(Debug)]
pub struct DataplaneConfig {
    /// One entry per worker, in the order of the sockets' steering.
    pub workers: Vec<WorkerPorts>,
    /// The SPD until another is set.
    pub policies: Arc<Spd>,
    /// Whether each worker is tied to a core.
    pub pin: bool,
    /// Wakes the control thread when there are events.
    pub control: Arc<Waker>,
    /// What the TUN does with several packets at once; the sockets say for themselves.
    pub offloads: Offloads,
    /// How long a worker looks for packets after the last one before it sleeps; zero to sleep at once.
    pub spin: Duration,
}

/// The queues and sockets of one worker.
#[derive(Debug)]
pub struct WorkerPorts {
    /// The inner side.
    pub tun: TunQueue,
    /// UDP sockets for encapsulated ESP: at most one per address family.
    pub udp: Vec<UdpSocket>,
    /// Raw ESP sockets: at most one per address family.
    pub raw: Vec<RawSocket>,
}

/// The worker threads as a whole.
#[derive(Debug)]
pub struct Dataplane;

impl Dataplane {
    /// Starts the workers. They stop when the handle is shut down or dropped.
    pub fn start(config: DataplaneConfig) -> io::Result<Handle> {
        let count = u16::try_from(config.workers.len()).ok();
        let count = count.and_then(NonZeroU16::new);
        let count = count.ok_or_else(|| io::Error::other("1 to 65535 workers are possible"))?;
        let mut polls = Vec::with_capacity(config.workers.len());
        let mut wakers = Vec::with_capacity(config.workers.len());
        for _ in 0..count.get() {
            let poll = mio::Poll::new()?;
            wakers.push(Arc::new(Waker::new(poll.registry(), worker::WAKE)?));
            polls.push(poll);
        }
        let threads = Some((&config.control, wakers.as_slice()));
        let pipelines = pipelines(count, &config.policies, threads);

        let cores = config.pin.then(core_affinity::get_core_ids).flatten();
        let cores = cores.unwrap_or_default();
        let mut handle = Handle::new(count);
        for (((number, ports), poll), (pipeline, waker)) in (0_u16..)
            .zip(config.workers)
            .zip(polls)
            .zip(pipelines.into_iter().zip(wakers))
        {
            let mailbox = Arc::new(Mailbox::new(
                waker,
                pipeline.event_ring(),
                Arc::clone(pipeline.stats()),
            ));
            pipeline.stats().set_offloads(config.offloads);
            let worker = Worker::new(pipeline, poll, ports, config.spin, Arc::clone(&mailbox))?;
            let core = cores.get(usize::from(number) % cores.len().max(1)).copied();
            let thread = thread::Builder::new()
                .name(format!("worker-{number}"))
                .spawn(move || worker.run(core))?;
            handle.add(mailbox, thread);
        }
        Ok(handle)
    }
}

/// The packet paths of `workers` workers, joined by their hand-off rings but without threads and
/// sockets, for tests, benchmarks and fuzzers.
pub fn detached_pipelines(workers: NonZeroU16, policies: &Arc<Spd>) -> Vec<Pipeline> {
    pipelines(workers, policies, None)
}

fn pipelines(
    workers: NonZeroU16,
    policies: &Arc<Spd>,
    threads: Option<(&Arc<Waker>, &[Arc<Waker>])>,
) -> Vec<Pipeline> {
    let rings = Arc::new(Rings::new(usize::from(workers.get())));
    let control = threads.map(|(control, _)| Arc::clone(control));
    let owners = threads.map_or(&[][..], |(_, owners)| owners);
    let pipeline = |number| {
        let worker = WorkerId(number);
        let mut acquires = Acquires::default();
        acquires.expect(policies.policies().len());
        let ring = Arc::new(ArrayQueue::new(EVENT_RING));
        Pipeline {
            worker,
            workers,
            sad: crate::ipsec::Sad::with_capacity(CHILDREN),
            spd: Arc::clone(policies),
            run: None,
            acquires,
            too_big: pipeline::too_big_limit(),
            path_mtus: PathMtus::new(),
            stats: Arc::new(WorkerStats::default()),
            events: EventSender::new(ring, control.clone()),
            waiting: Waiting::new(),
            settling: Settling::default(),
            hand_off: HandOff::new(Arc::clone(&rings), worker, owners.to_vec()),
            reply: vec![0; pipeline::REPLY_LEN].into_boxed_slice(),
            fragment: vec![0; pipeline::FRAGMENT_LEN].into_boxed_slice(),
        }
    };
    (0..workers.get()).map(pipeline).collect()
}

/// Events that may wait for the control thread.
const EVENT_RING: usize = 1024;
/// Child SAs for which a worker has room before its tables grow.
const CHILDREN: usize = 256;
