//! The control thread's end of the data plane.

use std::collections::VecDeque;
use std::num::NonZeroU16;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam::queue::ArrayQueue;
use mio::Waker;

use super::command::WorkerCommand;
use super::stats::{Snapshot, WorkerStats};
use crate::ipsec::{SaEvent, SaUpdate, WorkerId};

/// What a worker and the control thread share.
#[derive(Debug)]
pub(super) struct Mailbox {
    pub(super) commands: ArrayQueue<WorkerCommand>,
    pub(super) stop: AtomicBool,
    /// The last barrier that the worker has passed.
    pub(super) passed: AtomicU64,
    events: Arc<ArrayQueue<SaEvent>>,
    stats: Arc<WorkerStats>,
    waker: Arc<Waker>,
}

impl Mailbox {
    pub(super) fn new(
        waker: Arc<Waker>,
        events: Arc<ArrayQueue<SaEvent>>,
        stats: Arc<WorkerStats>,
    ) -> Self {
        Self {
            commands: ArrayQueue::new(COMMAND_RING),
            stop: AtomicBool::new(false),
            passed: AtomicU64::new(0),
            events,
            stats,
            waker,
        }
    }
}

/// A barrier that was asked for; see [`Handle::barrier`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Epoch(u64);

/// The control thread's end of the data plane. Dropping it stops the workers.
#[derive(Debug)]
pub struct Handle {
    workers: NonZeroU16,
    links: Vec<Link>,
    /// What could not be delivered because it names no worker.
    returned: VecDeque<SaEvent>,
    epoch: u64,
}

#[derive(Debug)]
struct Link {
    mailbox: Arc<Mailbox>,
    /// Commands for which the ring had no room.
    overflow: VecDeque<WorkerCommand>,
    thread: Option<JoinHandle<()>>,
}

impl Handle {
    pub(super) fn new(workers: NonZeroU16) -> Self {
        Self {
            workers,
            links: Vec::with_capacity(usize::from(workers.get())),
            returned: VecDeque::new(),
            epoch: 0,
        }
    }

    pub(super) fn add(&mut self, mailbox: Arc<Mailbox>, thread: JoinHandle<()>) {
        self.links.push(Link {
            mailbox,
            overflow: VecDeque::new(),
            thread: Some(thread),
        });
    }

    /// How many workers there are.
    pub fn workers(&self) -> NonZeroU16 {
        self.workers
    }

    /// Sends a change to the workers it concerns. It is never lost: what finds no room waits in the
    /// handle for [`Self::flush`].
    pub fn apply(&mut self, update: SaUpdate) {
        match update {
            SaUpdate::AddInbound(sa) => {
                let owner = sa.owner();
                self.tell(owner, WorkerCommand::Update(SaUpdate::AddInbound(sa)));
            }
            SaUpdate::SwitchOutbound(sa) => {
                let (child, reqid, owner) = (sa.child(), sa.reqid(), sa.owner());
                let (selectors, per_worker) = (Arc::clone(sa.selectors()), sa.is_per_worker());
                self.tell(owner, WorkerCommand::Update(SaUpdate::SwitchOutbound(sa)));
                self.tell_others(owner, || WorkerCommand::NoteElsewhere {
                    child,
                    reqid,
                    owner,
                    selectors: Arc::clone(&selectors),
                    per_worker,
                });
            }
            SaUpdate::RemoveOutbound {
                child,
                reqid,
                owner,
            } => {
                self.tell(owner, WorkerCommand::Update(update));
                self.tell_others(owner, || WorkerCommand::ForgetElsewhere { child, reqid });
            }
            SaUpdate::RemoveInbound { owner, .. } | SaUpdate::MoveOutbound { owner, .. } => {
                self.tell(owner, WorkerCommand::Update(update));
            }
            SaUpdate::SetPolicies(spd) => {
                for link in &mut self.links {
                    let update = SaUpdate::SetPolicies(Arc::clone(&spd));
                    link.send(WorkerCommand::Update(update));
                }
            }
        }
    }

    fn tell(&mut self, owner: WorkerId, command: WorkerCommand) {
        if let Some(link) = self.links.get_mut(usize::from(owner.0)) {
            link.send(command);
            return;
        }
        tracing::error!(worker = owner.0, "an SA names a worker that does not exist");
        match command {
            WorkerCommand::Update(SaUpdate::AddInbound(sa)) => {
                self.returned.push_back(SaEvent::RetiredInbound(sa));
            }
            WorkerCommand::Update(SaUpdate::SwitchOutbound(sa)) => {
                self.returned.push_back(SaEvent::RetiredOutbound(sa));
            }
            _ => {}
        }
    }

    fn tell_others(&mut self, owner: WorkerId, command: impl Fn() -> WorkerCommand) {
        for (number, link) in self.links.iter_mut().enumerate() {
            if number != usize::from(owner.0) {
                link.send(command());
            }
        }
    }

    /// Delivers what waits for room in a ring; to be called once per turn. True if all is delivered.
    pub fn flush(&mut self) -> bool {
        let behind = self
            .links
            .iter_mut()
            .filter_map(|link| (!link.flush()).then_some(()));
        behind.count() == 0
    }

    /// The next event of any worker.
    pub fn poll_event(&mut self) -> Option<SaEvent> {
        self.flush();
        if let Some(event) = self.returned.pop_front() {
            return Some(event);
        }
        self.links.iter().find_map(|link| link.mailbox.events.pop())
    }

    /// Asks every worker to acknowledge that it has done all that was applied before. Once it has, no
    /// packet is sealed or opened the old way, not even one that was read before, and all that was
    /// sealed the old way is with the kernel. A worker whose socket takes no more therefore seals, the new
    /// way, only what it has already read, and acknowledges when the socket has taken all.
    pub fn barrier(&mut self) -> Epoch {
        self.epoch += 1;
        for link in &mut self.links {
            link.send(WorkerCommand::Barrier(self.epoch));
        }
        Epoch(self.epoch)
    }

    /// Whether all workers have acknowledged a barrier. The control thread is woken when one does.
    pub fn has_passed(&self, epoch: Epoch) -> bool {
        let passed = |link: &Link| link.mailbox.passed.load(Ordering::Acquire) >= epoch.0;
        self.links.iter().all(passed)
    }

    /// Waits for a barrier; false if some worker has not passed it in time.
    pub fn wait_for(&mut self, epoch: Epoch, timeout: Duration) -> bool {
        let deadline = Instant::now() + timeout;
        while !self.has_passed(epoch) {
            if Instant::now() >= deadline {
                return false;
            }
            self.flush();
            std::thread::sleep(Duration::from_micros(20));
        }
        true
    }

    /// All counters as they are now.
    pub fn stats(&self) -> Snapshot {
        let workers = self.links.iter().map(|link| link.mailbox.stats.snapshot());
        Snapshot {
            workers: workers.collect(),
        }
    }

    /// Commands that each worker has not taken in yet.
    pub fn backlogs(&self) -> impl Iterator<Item = usize> {
        let links = self.links.iter();
        links.map(|link| link.mailbox.commands.len() + link.overflow.len())
    }

    /// Stops the workers and waits for them. Their SAs, and the keys in them, are gone afterwards.
    pub fn shutdown(&mut self) {
        for link in &self.links {
            link.mailbox.stop.store(true, Ordering::Release);
            // A failed wake-up only means that the worker is awake or gone.
            let _ = link.mailbox.waker.wake();
        }
        for link in &mut self.links {
            if let Some(thread) = link.thread.take() {
                // A worker that panicked has ended the process before this could see it.
                let _ = thread.join();
            }
        }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.shutdown();
    }
}

impl Link {
    fn send(&mut self, command: WorkerCommand) {
        self.overflow.push_back(command);
        self.flush();
    }

    fn flush(&mut self) -> bool {
        let mut delivered = false;
        while let Some(command) = self.overflow.pop_front() {
            if let Err(command) = self.mailbox.commands.push(command) {
                self.overflow.push_front(command);
                break;
            }
            delivered = true;
        }
        if delivered {
            // A failed wake-up only means that the worker is awake or gone.
            let _ = self.mailbox.waker.wake();
        }
        self.overflow.is_empty()
    }
}

/// Commands that may wait for one worker before they wait in its [`Handle`].
pub(super) const COMMAND_RING: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ipsec::Spd;

    #[test]
    fn it_says_so_until_a_worker_that_has_fallen_behind_has_room_again() {
        let poll = mio::Poll::new().expect("a poll");
        let waker = Waker::new(poll.registry(), mio::Token(0)).expect("a waker");
        let events = Arc::new(ArrayQueue::new(1));
        let mailbox = Mailbox::new(Arc::new(waker), events, Arc::default());
        let mailbox = Arc::new(mailbox);
        let mut handle = Handle::new(NonZeroU16::MIN);
        handle.add(Arc::clone(&mailbox), std::thread::spawn(|| {}));
        let policies = Arc::new(Spd::default());
        for _ in 0..COMMAND_RING {
            handle.apply(SaUpdate::SetPolicies(Arc::clone(&policies)));
            assert!(handle.flush());
        }
        handle.apply(SaUpdate::SetPolicies(policies));
        assert!(!handle.flush());
        assert_eq!(handle.backlogs().sum::<usize>(), COMMAND_RING + 1);
        assert!(mailbox.commands.pop().is_some() && handle.flush());
    }
}
