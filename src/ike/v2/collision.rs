//! Simultaneous rekeys (RFC 7296 §2.8.1): the SA that was made with the lowest of the four nonces
//! loses. Its creator deletes it; the creator of the other one deletes the replaced SA.

use std::time::{Duration, Instant};

use crate::ipsec::ChildId;

/// The peer has replaced a Child SA while our own request to do so was unanswered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ChildCollision {
    /// The peer's new Child SA.
    pub(super) successor: ChildId,
    pub(super) lowest: LowestNonce,
}

/// The lower nonce of one of the two exchanges.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct LowestNonce(Vec<u8>);

impl LowestNonce {
    pub(super) fn of(ni: &[u8], nr: &[u8]) -> Self {
        Self(ni.min(nr).to_vec())
    }

    /// Whether the SA that this exchange made has to go.
    pub(super) fn loses_to(&self, other: &Self) -> bool {
        self < other
    }
}

/// Which IKE SA takes the place of this one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Succession {
    /// None.
    None,
    /// The peer's, if our own unanswered request does not win.
    Contested { successor: u64, lowest: LowestNonce },
    /// A settled one. If the peer has not deleted this SA by then, we do.
    Replaced { until: Option<Instant> },
    /// None: this one was made to replace another, and has not taken over yet. If it never does, and
    /// the peer does not delete it, we do.
    Heir { until: Option<Instant> },
}

impl Succession {
    pub(super) fn replaced(now: Instant) -> Self {
        let until = Some(now + PASSIVE_WAIT);
        Self::Replaced { until }
    }

    pub(super) fn heir(now: Instant) -> Self {
        let until = Some(now + PASSIVE_WAIT);
        Self::Heir { until }
    }

    pub(super) fn is_none(&self) -> bool {
        *self == Self::None
    }

    pub(super) fn is_replaced(&self) -> bool {
        matches!(self, Self::Replaced { .. })
    }

    pub(super) fn is_heir(&self) -> bool {
        matches!(self, Self::Heir { .. })
    }

    /// Nobody would notice the end of this SA.
    pub(super) fn is_silent(&self) -> bool {
        self.is_replaced() || self.is_heir()
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        match self {
            Self::Replaced { until } | Self::Heir { until } => *until,
            Self::None | Self::Contested { .. } => None,
        }
    }

    pub(super) fn is_overdue(&self, now: Instant) -> bool {
        self.deadline().is_some_and(|until| until <= now)
    }

    pub(super) fn forget_deadline(&mut self) {
        if let Self::Replaced { until } | Self::Heir { until } = self {
            *until = None;
        }
    }
}

/// How long to wait for the peer to delete what it has to delete.
pub(super) const PASSIVE_WAIT: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_exchange_with_the_lowest_of_four_nonces_loses_on_both_sides() {
        for lowest in 0..4 {
            let mut nonces = [[9; 32]; 4];
            nonces[lowest][31] = 1;
            let [ni_a, nr_a, ni_b, nr_b] = nonces;
            let a = LowestNonce::of(&ni_a, &nr_a);
            let b = LowestNonce::of(&ni_b, &nr_b);
            assert_eq!(a.loses_to(&b), lowest < 2);
            assert_eq!(b.loses_to(&a), lowest >= 2);
        }
    }
}
