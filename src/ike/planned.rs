//! Attempts to open an IKE SA that have not begun: for what the configuration starts, and for what is
//! tried again.
//!
//! They begin a few at a time. A gateway with thousands of tunnels then neither floods its peers nor its
//! own sockets when it comes up, and peers that are silent hold up the others for one retransmission.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::IpAddr;
use std::time::Instant;

use super::context::Attempt;

/// What is planned, in the order of its time, and the IKE SAs whose turn it is.
#[derive(Default)]
pub(super) struct Planned {
    attempts: BTreeMap<Key, Attempt>,
    /// Those that await our address towards their destination, by that.
    awaiting: HashMap<IpAddr, BTreeSet<Key>>,
    /// Orders attempts of the same time.
    next: u64,
    under_way: HashSet<u64>,
}

type Key = (Instant, u64);

impl Planned {
    /// `attempt` is to begin at that time, or when its turn comes.
    pub(super) fn add(&mut self, at: Instant, attempt: Attempt) {
        let key = (at, self.next);
        self.next += 1;
        if let Some(remote) = awaited(&attempt) {
            self.awaiting.entry(remote).or_default().insert(key);
        }
        self.attempts.insert(key, attempt);
    }

    /// The first one that may begin, if it is due.
    pub(super) fn pop(&mut self, now: Instant) -> Option<Attempt> {
        let first = self.attempts.first_entry()?;
        let may_begin = self.under_way.len() < AT_ONCE && first.key().0 <= now;
        if !may_begin {
            return None;
        }
        let (key, attempt) = first.remove_entry();
        self.forget(key, &attempt);
        Some(attempt)
    }

    /// Those that await our address towards this one, which are not planned any more.
    pub(super) fn take_awaiting(&mut self, remote: IpAddr) -> Vec<Attempt> {
        let keys = self.awaiting.remove(&remote).unwrap_or_default();
        let found = keys.into_iter().map(|key| self.attempts.remove(&key));
        found.flatten().collect()
    }

    fn forget(&mut self, key: Key, attempt: &Attempt) {
        if let Some(remote) = awaited(attempt)
            && let Some(keys) = self.awaiting.get_mut(&remote)
        {
            keys.remove(&key);
            if keys.is_empty() {
                self.awaiting.remove(&remote);
            }
        }
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
        for (key, attempt) in &taken {
            self.forget(*key, attempt);
        }
        let taken = taken.into_iter();
        taken.map(|((at, _), attempt)| (at, attempt)).collect()
    }
}

/// Where an attempt goes that awaits our address towards there.
fn awaited(attempt: &Attempt) -> Option<IpAddr> {
    let destination = attempt.destination().filter(|_| attempt.awaits_source);
    destination.map(|remote| remote.ip())
}

/// IKE SAs that are opened side by side: their requests fit into any socket's buffer.
const AT_ONCE: usize = 256;
