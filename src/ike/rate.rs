//! Token buckets for what strangers can trigger.

use std::time::Instant;

/// Allows `per_second` on average and `burst` at once.
#[derive(Debug)]
pub(super) struct RateLimit {
    per_second: u32,
    burst: u32,
    tokens: f64,
    at: Instant,
}

impl RateLimit {
    pub(super) fn new(per_second: u32, burst: u32, now: Instant) -> Self {
        Self {
            per_second,
            burst,
            tokens: f64::from(burst),
            at: now,
        }
    }

    /// Whether it is as if nothing had ever been taken.
    pub(super) fn is_full(&mut self, now: Instant) -> bool {
        self.refill(now);
        self.tokens >= f64::from(self.burst)
    }

    /// Takes one token; false if there is none.
    pub(super) fn allow(&mut self, now: Instant) -> bool {
        self.refill(now);
        if self.tokens < 1.0 {
            return false;
        }
        self.tokens -= 1.0;
        true
    }

    fn refill(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.at).as_secs_f64();
        self.at = now;
        let refilled = self.tokens + passed * f64::from(self.per_second);
        self.tokens = refilled.min(f64::from(self.burst));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_burst_is_followed_by_the_average_rate() {
        let start = Instant::now();
        let mut limit = RateLimit::new(10, 3, start);
        let at = |ms| start + Duration::from_millis(ms);
        let allowed = (0..10).filter(|_| limit.allow(at(0))).count();
        assert_eq!(allowed, 3);
        assert!(!limit.allow(at(50)));
        assert!(limit.allow(at(200)));
    }
}
