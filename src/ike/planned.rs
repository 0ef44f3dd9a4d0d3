//! Attempts to open an IKE SA that have not begun: for what the configuration starts, and for what is
//! tried again.
//!
//! They begin a few at a time. A gateway with thousands of tunnels then neither floods its peers nor its
//! own sockets when it comes up, and peers that are silent hold up the others for one retransmission.

use std::collections::{BTreeMap, HashSet};
use std::time::Instant;

use super::context::Attempt;

/// What is planned, in the order of its time, and the IKE SAs whose turn it is.
#[derive(Default)]
pub(super) struct Planned {
    attempts: BTreeMap<(Instant, u64), Attempt>,
    /// Orders attempts of the same time.
    next: u64,
    under_way: HashSet<u64>,
}

impl Planned {
    /// `attempt` is to begin at that time, or when its turn comes.
    pub(super) fn add(&mut self, at: Instant, attempt: Attempt) {
        self.attempts.insert((at, self.next), attempt);
        self.next += 1;
    }

    /// The first one that may begin, if it is due.
    pub(super) fn pop(&mut self, now: Instant) -> Option<Attempt> {
        let first = self.attempts.first_entry()?;
        let may_begin = self.under_way.len() < AT_ONCE && first.key().0 <= now;
        may_begin.then(|| first.remove())
    }

    /// When [`Self::pop`] may have one; absent as long as others have to come to something first.
    pub(super) fn due(&self) -> Option<Instant> {
        let ((at, _), _) = self.attempts.first_key_value()?;
        (self.under_way.len() < AT_ONCE).then_some(*at)
    }

    /// This IKE SA is opened for an attempt.
    pub(super) fn begun(&mut self, id: u64) {
        self.under_way.insert(id);
    }

    /// An IKE SA is up, has failed, or its peer is silent: it is nobody's turn any more.
    pub(super) fn release(&mut self, id: u64) {
        self.under_way.remove(&id);
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Attempt> {
        self.attempts.values()
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Attempt> {
        self.attempts.values_mut()
    }

    /// Those that `test` chooses, which are not planned any more.
    pub(super) fn take(
        &mut self,
        mut test: impl FnMut(&Attempt) -> bool,
    ) -> Vec<(Instant, Attempt)> {
        let all = std::mem::take(&mut self.attempts);
        let (taken, rest): (Vec<_>, _) = all.into_iter().partition(|(_, attempt)| test(attempt));
        self.attempts = BTreeMap::from_iter::<Vec<_>>(rest);
        let taken = taken.into_iter();
        taken.map(|((at, _), attempt)| (at, attempt)).collect()
    }
}

/// IKE SAs that are opened side by side: their requests fit into any socket's buffer.
const AT_ONCE: usize = 256;
