//! A schedule: event number n happens at start + n / rate.

use std::{io, num::NonZeroU64, time::Duration};

use rustix::thread::set_current_timer_slack;

use super::{stamp::now, whole};

/// The schedule of the calling thread.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    start: u64,
    rate: f64,
}

impl Pace {
    /// Starts now. The calling thread's timers become exact.
    pub(super) fn start(rate: f64) -> io::Result<Self> {
        if !(rate > 0.0 && rate.is_finite()) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "a rate is positive",
            ));
        }
        set_current_timer_slack(NonZeroU64::new(1))?;
        Ok(Self { start: now(), rate })
    }

    /// How many events ought to have happened by now.
    pub(super) fn due(&self) -> u64 {
        let elapsed = now().saturating_sub(self.start);
        whole(elapsed as f64 * 1e-9 * self.rate) + 1
    }

    /// When event `number` ought to happen, on [`now`]'s clock.
    pub(super) fn time_of(&self, number: u64) -> u64 {
        self.start + whole(number as f64 / self.rate * 1e9)
    }

    /// The time that `count` events take.
    pub(super) fn span(&self, count: u64) -> Duration {
        Duration::from_secs_f64(count as f64 / self.rate)
    }

    /// Sleeps until event `number` is due, at least a moment so that waking does not cost more than
    /// sending.
    pub(super) fn wait_for(&self, number: u64) {
        let left = self.time_of(number).saturating_sub(now());
        std::thread::sleep(Duration::from_nanos(left).max(QUANTUM));
    }

    /// Waits until event `number` is due, the last moment of it awake.
    pub(super) fn wait_exactly_for(&self, number: u64) {
        let target = self.time_of(number);
        let left = Duration::from_nanos(target.saturating_sub(now()));
        if let Some(sleep) = left.checked_sub(AWAKE) {
            std::thread::sleep(sleep);
        }
        while now() < target {
            std::hint::spin_loop();
        }
    }
}

const QUANTUM: Duration = Duration::from_micros(50);
/// Longer than a timer is late, as a rule.
const AWAKE: Duration = Duration::from_micros(80);
