//! How often a worker may say the same thing.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use crate::ipsec::Reqid;

/// What a worker may ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    /// An SA where nobody has one.
    First,
    /// One of its own, where another worker has one (RFC 9611).
    Own,
}

/// Asks for an SA once, and again each second until there is one. For one of its own a worker asks more
/// and more seldom, since the peer may want no more of them.
#[derive(Debug, Default)]
pub(super) struct Acquires {
    asked: HashMap<Reqid, Asked>,
}

#[derive(Debug, Default)]
struct Asked {
    first: Option<Turn>,
    own: Option<Turn>,
}

#[derive(Clone, Copy, Debug)]
struct Turn {
    at: Instant,
    /// Until the next one.
    pause: Duration,
}

impl Acquires {
    /// Makes room for as many reqids as there are policies, so that asking never allocates.
    pub(super) fn expect(&mut self, policies: usize) {
        self.asked.clear();
        self.asked.reserve(policies);
    }

    /// Whether to ask now.
    pub(super) fn is_due(&mut self, reqid: Reqid, wanted: Wanted, now: Instant) -> bool {
        let asked = self.asked.entry(reqid).or_default();
        let (turn, longest) = match wanted {
            Wanted::First => (&mut asked.first, ASK_AGAIN),
            Wanted::Own => (&mut asked.own, ASK_SELDOM),
        };
        let pause = match *turn {
            Some(last) if now.saturating_duration_since(last.at) < last.pause => return false,
            Some(last) => longest.min(2 * last.pause),
            None => ASK_AGAIN,
        };
        *turn = Some(Turn { at: now, pause });
        true
    }

    /// There is a new SA. The place of its reqid is kept: removing one could make the next allocate.
    pub(super) fn answered(&mut self, reqid: Reqid) {
        if let Some(asked) = self.asked.get_mut(&reqid) {
            *asked = Asked::default();
        }
    }
}

/// A bucket of tokens that fills steadily.
#[derive(Debug)]
pub(super) struct TokenBucket {
    tokens: u32,
    capacity: u32,
    interval: Duration,
    filled: Option<Instant>,
}

impl TokenBucket {
    /// A full bucket that gains one token each `interval`.
    pub(super) fn new(capacity: u32, interval: Duration) -> Self {
        Self {
            tokens: capacity,
            capacity,
            interval,
            filled: None,
        }
    }

    /// Takes a token if there is one.
    pub(super) fn take(&mut self, now: Instant) -> bool {
        let filled = *self.filled.get_or_insert(now);
        let elapsed = now.saturating_duration_since(filled).as_nanos();
        let gained = elapsed / self.interval.as_nanos().max(1);
        if gained > 0 {
            let gained = u32::try_from(gained).unwrap_or(u32::MAX);
            self.tokens = self.tokens.saturating_add(gained).min(self.capacity);
            self.filled = Some(filled + self.interval.saturating_mul(gained)); // the rest counts later
        }
        let taken = self.tokens > 0;
        self.tokens = self.tokens.saturating_sub(1);
        taken
    }
}

const ASK_AGAIN: Duration = Duration::from_secs(1);
const ASK_SELDOM: Duration = Duration::from_secs(64);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_acquire_is_repeated_each_second_until_it_is_answered() {
        let mut acquires = Acquires::default();
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        assert!(acquires.is_due(Reqid(1), Wanted::First, start));
        assert!(!acquires.is_due(Reqid(1), Wanted::First, at(999)));
        assert!(acquires.is_due(Reqid(2), Wanted::First, at(999)));
        for second in 1..100 {
            assert!(acquires.is_due(Reqid(1), Wanted::First, at(second * 1000)));
        }
        acquires.answered(Reqid(1));
        assert!(acquires.is_due(Reqid(1), Wanted::First, at(99_001)));
    }

    #[test]
    fn an_sa_of_its_own_is_asked_for_more_and_more_seldom_until_there_is_a_new_one() {
        let mut acquires = Acquires::default();
        let start = Instant::now();
        let mut asks = |seconds: std::ops::Range<u64>| -> Vec<u64> {
            let at = |second| start + Duration::from_secs(second);
            let mut is_due = |second: &u64| acquires.is_due(Reqid(1), Wanted::Own, at(*second));
            seconds.filter(|second| is_due(second)).collect()
        };
        assert_eq!(asks(0..300), [0, 1, 3, 7, 15, 31, 63, 127, 191, 255]);
        acquires.answered(Reqid(1));
        let mut is_due = |second| {
            let at = start + Duration::from_secs(second);
            acquires.is_due(Reqid(1), Wanted::Own, at)
        };
        assert_eq!([300, 301].map(&mut is_due), [true, true]);
    }

    #[test]
    fn a_bucket_gives_its_capacity_and_then_the_steady_rate() {
        let mut bucket = TokenBucket::new(3, Duration::from_millis(10));
        let start = Instant::now();
        assert_eq!((0..10).filter(|_| bucket.take(start)).count(), 3);
        let later = start + Duration::from_millis(25);
        assert_eq!((0..10).filter(|_| bucket.take(later)).count(), 2);
        let later = start + Duration::from_millis(35);
        assert_eq!((0..10).filter(|_| bucket.take(later)).count(), 1);
        let later = start + Duration::from_millis(50);
        assert_eq!((0..10).filter(|_| bucket.take(later)).count(), 2);
    }
}
