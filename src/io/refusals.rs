//! Paths that refuse trains of datagrams, such as one through a device that computes no checksums (EIO).

use std::net::SocketAddr;

/// The last few peers to which trains were refused. One is tried again after as many as it takes for
/// the attempt to cost nothing.
#[derive(Debug)]
pub(super) struct Refusals {
    paths: [Option<Refusal>; PATHS],
    /// The one that makes room.
    victim: usize,
}

#[derive(Clone, Copy, Debug)]
struct Refusal {
    remote: SocketAddr,
    /// Trains that will not be tried.
    left: u32,
}

impl Default for Refusals {
    fn default() -> Self {
        Self {
            paths: [None; PATHS],
            victim: 0,
        }
    }
}

impl Refusals {
    /// Takes note of a refusal.
    pub(super) fn add(&mut self, remote: SocketAddr) {
        let is_it = |path: &Option<Refusal>| path.is_some_and(|path| path.remote == remote);
        let known = self.paths.iter().position(is_it);
        let place = known.or_else(|| self.paths.iter().position(Option::is_none));
        let place = place.unwrap_or_else(|| {
            self.victim = (self.victim + 1) % PATHS;
            self.victim
        });
        if let Some(path) = self.paths.get_mut(place) {
            *path = Some(Refusal {
                remote,
                left: TRY_AGAIN,
            });
        }
    }

    /// Whether the next train to this peer would be refused; asked once for each.
    pub(super) fn covers(&mut self, remote: &SocketAddr) -> bool {
        let is_it = |path: &&mut Option<Refusal>| path.is_some_and(|path| path.remote == *remote);
        let Some(path) = self.paths.iter_mut().find(is_it) else {
            return false;
        };
        if let Some(Refusal { left, .. }) = path {
            *left -= 1;
            if *left == 0 {
                *path = None;
            }
        }
        true
    }
}

const PATHS: usize = 64;
/// Seldom enough to cost nothing.
const TRY_AGAIN: u32 = 1000;

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(port: u16) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, 1], port))
    }

    #[test]
    fn a_path_that_refused_a_train_is_tried_again_after_a_while() {
        let mut refusals = Refusals::default();
        for _ in 0..2 {
            refusals.add(peer(1));
            refusals.add(peer(1));
            let spared = (0..).take_while(|_| refusals.covers(&peer(1))).count();
            assert_eq!(spared, 1000);
            assert!(!refusals.covers(&peer(1)));
        }
        assert!(!refusals.covers(&peer(2)));
    }

    #[test]
    fn the_last_few_paths_are_remembered() {
        let mut refusals = Refusals::default();
        (0..100).for_each(|port| refusals.add(peer(port)));
        let remembered = (0..100).filter(|port| refusals.covers(&peer(*port)));
        assert_eq!(remembered.count(), PATHS);
        assert!(refusals.covers(&peer(99)));
    }
}
