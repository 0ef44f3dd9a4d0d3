//! What was learnt about path MTUs.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use crate::ipsec::OutboundSa;

/// The paths on which a packet was too big, so that a rekeyed SA does not have to learn it again.
///
/// News cost the same with ten thousand SAs as with one: each takes note of them with its next packet.
#[derive(Debug, Default)]
pub(super) struct PathMtus {
    known: Vec<PathMtu>,
    /// How often there were news.
    epoch: u32,
}

#[derive(Clone, Copy, Debug)]
struct PathMtu {
    local: IpAddr,
    remote: SocketAddr,
    /// What the system said last.
    answer: u16,
    /// What the control thread has said, which no answer exceeds; zero until an SA tells.
    ceiling: u16,
    asked: Instant,
}

impl PathMtus {
    /// Room for all the paths that are remembered.
    pub(super) fn new() -> Self {
        Self {
            known: Vec::with_capacity(PATHS),
            epoch: 0,
        }
    }

    /// Whether the system should be asked about this path: at most every 100 ms, as long as it is
    /// remembered.
    pub(super) fn should_ask(&self, local: IpAddr, remote: SocketAddr, now: Instant) -> bool {
        let known = self.known.iter().find(|path| path.is(local, remote));
        known.is_none_or(|path| now.saturating_duration_since(path.asked) >= ASK_PATH)
    }

    /// Remembers an answer, or that there was none.
    pub(super) fn learn(
        &mut self,
        local: IpAddr,
        remote: SocketAddr,
        answer: Option<u16>,
        now: Instant,
    ) {
        if let Some(path) = self.find_mut(local, remote) {
            path.asked = now;
            let answer = answer.unwrap_or(path.answer);
            if std::mem::replace(&mut path.answer, answer) != answer {
                self.epoch = self.epoch.wrapping_add(1);
            }
            return;
        }
        self.epoch = self.epoch.wrapping_add(1);
        let entry = PathMtu {
            local,
            remote,
            answer: answer.unwrap_or(u16::MAX),
            ceiling: 0,
            asked: now,
        };
        if self.known.len() < PATHS {
            self.known.push(entry);
        } else if let Some(oldest) = self.known.iter_mut().min_by_key(|path| path.asked) {
            *oldest = entry;
        }
    }

    /// Tells an SA what was learnt about its path since it was told last.
    #[inline]
    pub(super) fn tell(&mut self, sa: &mut OutboundSa) {
        if sa.path_epoch() != self.epoch {
            self.tell_news(sa);
        }
    }

    #[cold]
    fn tell_news(&mut self, sa: &mut OutboundSa) {
        sa.set_path_epoch(self.epoch);
        let (local, remote) = (sa.path().local.ip(), sa.path().remote);
        if let Some(mtu) = self.mtu(local, remote, sa.path_mtu()) {
            sa.set_path_mtu(mtu);
        }
    }

    /// The MTU of a path, if anything was learnt about it, for an SA that has believed in this one.
    fn mtu(&mut self, local: IpAddr, remote: SocketAddr, believed: u16) -> Option<u16> {
        let path = self.find_mut(local, remote)?;
        path.ceiling = path.ceiling.max(believed);
        Some(path.answer.min(path.ceiling))
    }

    /// The MTU for a new SA on a path, of which the control thread says `ceiling`.
    pub(super) fn adopt(&mut self, local: IpAddr, remote: SocketAddr, ceiling: u16) -> u16 {
        let Some(path) = self.find_mut(local, remote) else {
            return ceiling;
        };
        // The control thread may have asked while the path was narrow.
        path.ceiling = path.ceiling.max(ceiling);
        let answer = path.answer.min(ceiling);
        if std::mem::replace(&mut path.answer, answer) != answer {
            self.epoch = self.epoch.wrapping_add(1);
        }
        answer
    }

    /// A path whose answer is old enough that the path may have improved.
    pub(super) fn stale(&self, now: Instant) -> Option<(IpAddr, SocketAddr)> {
        let stale = |path: &&PathMtu| now.saturating_duration_since(path.asked) >= ASK_ANEW;
        let path = self.known.iter().find(stale)?;
        Some((path.local, path.remote))
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

const ASK_PATH: Duration = Duration::from_millis(100);
/// RFC 8201 §4: not before five minutes, and ten are recommended; the kernel forgets by itself.
const ASK_ANEW: Duration = Duration::from_secs(600);
const PATHS: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    const LOCAL: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));

    fn peer(port: u16) -> SocketAddr {
        SocketAddr::new(LOCAL, port)
    }

    #[test]
    fn paths_are_remembered_in_bounded_room() {
        let mut paths = PathMtus::new();
        let now = Instant::now();
        for port in 0..2000 {
            let later = now + Duration::from_millis(port.into());
            paths.learn(LOCAL, peer(port), Some(1400), later);
        }
        assert_eq!(paths.known.len(), PATHS);
        assert_eq!(paths.adopt(LOCAL, peer(1999), 1500), 1400);
        assert_eq!(paths.adopt(LOCAL, peer(0), 1500), 1500);
    }

    #[test]
    fn a_rekey_while_a_path_is_narrow_does_not_keep_it_narrow() {
        let mut paths = PathMtus::new();
        let start = Instant::now();
        paths.learn(LOCAL, peer(1), Some(1300), start);
        assert_eq!(paths.mtu(LOCAL, peer(1), 1500), Some(1300));
        assert_eq!(paths.adopt(LOCAL, peer(1), 1300), 1300);
        paths.learn(LOCAL, peer(1), Some(1500), start);
        assert_eq!(paths.mtu(LOCAL, peer(1), 1300), Some(1500));
    }

    #[test]
    fn a_path_may_improve_after_ten_minutes_up_to_what_the_control_thread_said() {
        let mut paths = PathMtus::new();
        let start = Instant::now();
        paths.learn(LOCAL, peer(1), Some(1300), start);
        assert_eq!(paths.mtu(LOCAL, peer(1), 1450), Some(1300));
        assert_eq!(paths.stale(start + Duration::from_secs(599)), None);
        let later = start + Duration::from_secs(600);
        assert_eq!(paths.stale(later), Some((LOCAL, peer(1))));
        paths.learn(LOCAL, peer(1), None, later);
        assert_eq!(paths.mtu(LOCAL, peer(1), 1300), Some(1300));
        assert_eq!(paths.stale(later), None);
        paths.learn(LOCAL, peer(1), Some(9000), later);
        assert_eq!(paths.mtu(LOCAL, peer(1), 1300), Some(1450));
    }

    #[test]
    fn only_news_are_told() {
        let mut paths = PathMtus::new();
        let now = Instant::now();
        let mut epochs = vec![paths.epoch];
        paths.learn(LOCAL, peer(1), Some(1400), now);
        epochs.push(paths.epoch);
        assert_eq!(paths.adopt(LOCAL, peer(1), 1300), 1300);
        epochs.push(paths.epoch);
        paths.learn(LOCAL, peer(1), Some(1300), now);
        paths.learn(LOCAL, peer(1), None, now);
        epochs.push(paths.epoch);
        assert_eq!(epochs, [0, 1, 2, 2]);
    }
}
