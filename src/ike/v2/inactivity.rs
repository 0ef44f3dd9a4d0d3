//! When a Child SA has carried nothing for so long that it is closed (swanctl's `inactivity`).

use std::time::{Duration, Instant};

/// Since when a Child SA has carried no packet, as far as looking now and then can tell.
#[derive(Clone, Copy, Debug)]
pub(super) struct Inactivity {
    packets: u64,
    since: Instant,
    look_at: Option<Instant>,
}

impl Inactivity {
    /// For a new Child SA; a `timeout` of zero never ends it.
    pub(super) fn new(timeout: Duration, now: Instant) -> Self {
        Self {
            packets: 0,
            since: now,
            look_at: (!timeout.is_zero()).then(|| now + interval(timeout)),
        }
    }

    /// Takes both directions' packets so far; true if there was none for `timeout`.
    pub(super) fn look(&mut self, packets: u64, timeout: Duration, now: Instant) -> bool {
        if packets != self.packets {
            (self.packets, self.since) = (packets, now);
        }
        let end = self.since + timeout;
        let goes_on = !timeout.is_zero() && now < end;
        self.look_at = goes_on.then(|| end.min(now + interval(timeout)));
        !timeout.is_zero() && now >= end
    }

    /// A successor goes on where its predecessor was, or a rekey would count as traffic.
    pub(super) fn continue_from(&mut self, old: &Self, packets: u64) {
        if old.packets == packets {
            self.since = old.since;
        }
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        self.look_at
    }
}

/// Nobody tells of a packet, so we look more often than we have to act.
fn interval(timeout: Duration) -> Duration {
    (timeout / 4).max(SHORTEST)
}

const SHORTEST: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rekey_is_no_traffic() {
        let start = Instant::now();
        let timeout = Duration::from_secs(40);
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut old = Inactivity::new(timeout, start);
        assert!(!old.look(7, timeout, at(10)));
        assert!(!old.look(7, timeout, at(20)));
        let mut new = Inactivity::new(timeout, at(30));
        new.continue_from(&old, 7);
        assert!(!new.look(0, timeout, at(49)));
        assert_eq!(new.deadline(), Some(at(50)));
        assert!(new.look(0, timeout, at(50)));

        let mut busy = Inactivity::new(timeout, at(30));
        busy.continue_from(&old, 8);
        assert!(!busy.look(0, timeout, at(69)));
        assert!(busy.look(0, timeout, at(70)));
    }
}
