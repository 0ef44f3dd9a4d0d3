//! What a worker knows about a source between two events of the poll.

use std::io;

use crate::dataplane::stats::WorkerStats;

/// Whether a source may have more to read. The poll is edge-triggered: it says so once, so only the
/// source itself can say that there is nothing left.
#[derive(Debug)]
pub(super) struct Readiness {
    set: bool,
    /// Failures since the last read that gave something.
    failures: u32,
}

impl Default for Readiness {
    /// Nobody has looked yet.
    fn default() -> Self {
        Self {
            set: true,
            failures: 0,
        }
    }
}

impl Readiness {
    pub(super) fn is_set(&self) -> bool {
        self.set
    }

    /// The poll says that there is something.
    pub(super) fn set(&mut self) {
        self.set = true;
    }

    /// A read gave something, and there may be more.
    pub(super) fn succeeded(&mut self, more: bool) {
        self.set = more;
        self.failures = 0;
    }

    /// A read gave nothing. What fails again and again, such as a device that was deleted, is left
    /// alone between two events, and logged once.
    pub(super) fn failed(&mut self, error: &io::Error, source: &str, stats: &WorkerStats) {
        if error.kind() == io::ErrorKind::WouldBlock {
            self.set = false;
            return;
        }
        stats.read_errors.add(1);
        self.failures = self.failures.saturating_add(1);
        self.set = self.failures < PERSISTENT;
        if self.failures == PERSISTENT {
            tracing::error!(%error, "{source} cannot be read");
        }
    }
}

/// Failures in a row after which the next one is not sought.
const PERSISTENT: u32 = 8;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_empty_source_is_not_read_again_at_once() {
        let stats = WorkerStats::default();
        let mut readiness = Readiness::default();
        let interrupted = io::Error::from(io::ErrorKind::Interrupted);
        readiness.failed(&interrupted, "it", &stats);
        assert!(readiness.is_set());
        readiness.failed(&io::ErrorKind::WouldBlock.into(), "it", &stats);
        assert!(!readiness.is_set());
        assert_eq!(stats.snapshot().read_errors, 1);
    }

    #[test]
    fn a_source_that_fails_for_good_is_read_once_per_event() {
        let stats = WorkerStats::default();
        let gone = io::Error::from_raw_os_error(libc::EBADFD);
        let mut readiness = Readiness::default();
        let mut reads = 0;
        while readiness.is_set() {
            readiness.failed(&gone, "it", &stats);
            reads += 1;
        }
        assert_eq!(reads, PERSISTENT);
        readiness.set();
        readiness.failed(&gone, "it", &stats);
        assert!(!readiness.is_set());
        readiness.set();
        readiness.succeeded(true);
        readiness.failed(&gone, "it", &stats);
        assert!(readiness.is_set(), "it was well in between");
    }
}
