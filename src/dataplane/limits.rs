//! How often a worker may say the same thing.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
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

/// What was learnt about path MTUs, so that a rekeyed SA does not have to learn it again.
#[derive(Debug, Default)]
pub(super) struct PathMtus {
    known: Vec<PathMtu>,
}

#[derive(Clone, Copy, Debug)]
struct PathMtu {
    local: IpAddr,
    remote: SocketAddr,
    mtu: u16,
    /// What the control thread has said, which no answer exceeds.
    ceiling: u16,
    asked: Instant,
}

impl PathMtus {
    /// Room for all the paths that are remembered.
    pub(super) fn new() -> Self {
        Self {
            known: Vec::with_capacity(PATHS),
        }
    }

    /// Whether the system should be asked about this path, which it is at most every 100 ms.
    pub(super) fn should_ask(&self, local: IpAddr, remote: SocketAddr, now: Instant) -> bool {
        let known = self.find(local, remote);
        known.is_none_or(|path| now.saturating_duration_since(path.asked) >= ASK_PATH)
    }

    /// Remembers an answer, or that there was none, and returns the MTU that holds now. `ceiling` is
    /// the limit of a path that was not known before.
    pub(super) fn learn(
        &mut self,
        local: IpAddr,
        remote: SocketAddr,
        answer: Option<u16>,
        ceiling: u16,
        now: Instant,
    ) -> u16 {
        if let Some(path) = self.find_mut(local, remote) {
            path.asked = now;
            path.mtu = answer.unwrap_or(path.mtu).min(path.ceiling);
            return path.mtu;
        }
        let mtu = answer.unwrap_or(ceiling).min(ceiling);
        let entry = PathMtu {
            local,
            remote,
            mtu,
            ceiling,
            asked: now,
        };
        if self.known.len() < PATHS {
            self.known.push(entry);
        } else if let Some(oldest) = self.known.iter_mut().min_by_key(|path| path.asked) {
            *oldest = entry;
        }
        mtu
    }

    /// The MTU for a new SA on a path, of which the control thread says `ceiling`.
    pub(super) fn adopt(&mut self, local: IpAddr, remote: SocketAddr, ceiling: u16) -> u16 {
        let Some(path) = self.find_mut(local, remote) else {
            return ceiling;
        };
        // The control thread may have asked while the path was narrow.
        path.ceiling = path.ceiling.max(ceiling);
        path.mtu = path.mtu.min(ceiling);
        path.mtu
    }

    /// Nobody uses this path any more.
    pub(super) fn forget(&mut self, local: IpAddr, remote: SocketAddr) {
        self.known.retain(|path| !path.is(local, remote));
    }

    /// A path whose answer is old enough that the path may have improved.
    pub(super) fn stale(&self, now: Instant) -> Option<(IpAddr, SocketAddr)> {
        let stale = |path: &&PathMtu| now.saturating_duration_since(path.asked) >= ASK_ANEW;
        let path = self.known.iter().find(stale)?;
        Some((path.local, path.remote))
    }

    fn find(&self, local: IpAddr, remote: SocketAddr) -> Option<&PathMtu> {
        self.known.iter().find(|path| path.is(local, remote))
    }

    fn find_mut(&mut self, local: IpAddr, remote: SocketAddr) -> Option<&mut PathMtu> {
        self.known.iter_mut().find(|path| path.is(local, remote))
    }
}

impl PathMtu {
    fn is(&self, local: IpAddr, remote: SocketAddr) -> bool {
        self.local == local && self.remote == remote
    }
}

const ASK_AGAIN: Duration = Duration::from_secs(1);
const ASK_SELDOM: Duration = Duration::from_secs(64);
const ASK_PATH: Duration = Duration::from_millis(100);
/// RFC 8201 §4: not before five minutes, and ten are recommended; the kernel forgets by itself.
const ASK_ANEW: Duration = Duration::from_secs(600);
const PATHS: usize = 256;

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

    #[test]
    fn paths_are_remembered_in_bounded_room() {
        let mut paths = PathMtus::new();
        let local = IpAddr::from([192, 0, 2, 1]);
        let now = Instant::now();
        for port in 0..2000 {
            let remote = SocketAddr::new(local, port);
            let later = now + Duration::from_millis(port.into());
            paths.learn(local, remote, Some(1400), 1500, later);
        }
        assert_eq!(paths.known.len(), PATHS);
        assert_eq!(paths.adopt(local, SocketAddr::new(local, 1999), 1500), 1400);
        assert_eq!(paths.adopt(local, SocketAddr::new(local, 0), 1500), 1500);
    }

    #[test]
    fn a_rekey_while_a_path_is_narrow_does_not_keep_it_narrow() {
        let mut paths = PathMtus::new();
        let local = IpAddr::from([192, 0, 2, 1]);
        let remote = SocketAddr::new(local, 4500);
        let start = Instant::now();
        assert_eq!(paths.learn(local, remote, Some(1300), 1500, start), 1300);
        assert_eq!(paths.adopt(local, remote, 1300), 1300);
        assert_eq!(paths.learn(local, remote, Some(1500), 1300, start), 1500);
    }

    #[test]
    fn a_path_may_improve_after_ten_minutes_up_to_what_the_control_thread_said() {
        let mut paths = PathMtus::new();
        let local = IpAddr::from([192, 0, 2, 1]);
        let remote = SocketAddr::new(local, 4500);
        let start = Instant::now();
        assert_eq!(paths.learn(local, remote, Some(1300), 1450, start), 1300);
        assert_eq!(paths.stale(start + Duration::from_secs(599)), None);
        let later = start + Duration::from_secs(600);
        assert_eq!(paths.stale(later), Some((local, remote)));
        assert_eq!(paths.learn(local, remote, None, 1450, later), 1300);
        assert_eq!(paths.stale(later), None);
        assert_eq!(paths.learn(local, remote, Some(9000), 1450, later), 1450);
    }
}
