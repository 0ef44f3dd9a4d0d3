//! What a worker reports to the control thread, without waiting for it.

use std::collections::VecDeque;
use std::sync::Arc;

use crossbeam::queue::ArrayQueue;
use mio::Waker;

use crate::ipsec::SaEvent;

/// The worker's end of its ring to the control thread.
///
/// Punted datagrams are lost when the ring is full. Everything else waits here for the ring to have
/// room: at most one event per SA and cause, and what can be repeated only while [`Self::has_room`].
#[derive(Debug)]
pub(super) struct EventSender {
    ring: Arc<ArrayQueue<SaEvent>>,
    waiting: VecDeque<SaEvent>,
    control: Option<Arc<Waker>>,
    news: bool,
}

impl EventSender {
    pub(super) fn new(ring: Arc<ArrayQueue<SaEvent>>, control: Option<Arc<Waker>>) -> Self {
        Self {
            ring,
            waiting: VecDeque::with_capacity(WAITING),
            control,
            news: false,
        }
    }

    /// The ring, for its reader.
    pub(super) fn ring(&self) -> Arc<ArrayQueue<SaEvent>> {
        Arc::clone(&self.ring)
    }

    /// Sends an event that must not be lost.
    pub(super) fn send(&mut self, event: SaEvent) {
        self.waiting.push_back(event);
    }

    /// Whether an event that can be repeated should be sent now.
    pub(super) fn has_room(&self) -> bool {
        self.waiting.len() < WAITING
    }

    /// Sends a punted datagram, which is made only if there is room; false if there is none.
    pub(super) fn punt(&mut self, event: impl FnOnce() -> SaEvent) -> bool {
        if !self.waiting.is_empty() || self.ring.is_full() {
            return false;
        }
        self.news = true;
        self.ring.push(event()).is_ok()
    }

    /// Tells the control thread to look, whether or not there are events.
    pub(super) fn signal(&mut self) {
        self.news = true;
    }

    /// Moves what waits into the ring and wakes the control thread if there is news; once per turn.
    /// Whether it was woken.
    pub(super) fn flush(&mut self) -> bool {
        while let Some(event) = self.waiting.pop_front() {
            if let Err(event) = self.ring.push(event) {
                self.waiting.push_front(event);
                break;
            }
            self.news = true;
        }
        let control = self.control.as_ref();
        let Some(control) = control.filter(|_| std::mem::take(&mut self.news)) else {
            return false;
        };
        // A failed wake-up only means that the control thread is awake or gone.
        let _ = control.wake();
        true
    }

    /// Whether something waits for the ring to have room.
    pub(super) fn is_behind(&self) -> bool {
        !self.waiting.is_empty()
    }
}

const WAITING: usize = 1024;
