//! How long packets stay in the gateway: log-linear histograms with one writer.
//!
//! Each power of two of nanoseconds is cut into `STEPS` equal buckets, so a value is known to
//! about 1.6 %, from 64 ns to one second, in 6 KiB and without allocation or read-modify-write.

use std::time::Duration;

use super::stats::Counter;

/// A histogram while it is being filled.
#[derive(Debug)]
pub struct Latency {
    buckets: Box<[Counter]>,
    sum: Counter,
}

impl Default for Latency {
    fn default() -> Self {
        Self {
            buckets: (0..BUCKETS).map(|_| Counter::default()).collect(),
            sum: Counter::default(),
        }
    }
}

impl Latency {
    /// Counts `packets` that all took this long.
    pub fn record(&self, taken: Duration, packets: u32) {
        let nanos = u64::try_from(taken.as_nanos()).unwrap_or(u64::MAX);
        if let Some(bucket) = self.buckets.get(bucket_of(nanos)) {
            bucket.add(u64::from(packets));
        }
        self.sum.add(nanos.saturating_mul(u64::from(packets)));
    }

    /// The values of this moment.
    pub fn snapshot(&self) -> LatencySnapshot {
        LatencySnapshot {
            buckets: self.buckets.iter().map(Counter::get).collect(),
            sum: self.sum.get(),
        }
    }
}

/// A histogram as it was at some moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LatencySnapshot {
    buckets: Vec<u64>,
    /// Nanoseconds.
    sum: u64,
}

impl LatencySnapshot {
    /// How many packets were counted.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }

    /// The time all packets took together.
    #[must_use]
    pub fn sum(&self) -> Duration {
        Duration::from_nanos(self.sum)
    }

    /// The time that this share of the packets, from 0 to 1, did not exceed; zero if there were none.
    #[must_use]
    pub fn quantile(&self, share: f64) -> Duration {
        let count = self.count();
        let mut left = rank(share, count);
        for (index, packets) in self.buckets.iter().enumerate() {
            if left <= *packets && *packets > 0 {
                return Duration::from_nanos(middle_of(index));
            }
            left = left.saturating_sub(*packets);
        }
        Duration::ZERO
    }

    /// How many packets took no longer than this, as exact as the histogram is fine.
    #[must_use]
    pub fn count_within(&self, limit: Duration) -> u64 {
        let nanos = u64::try_from(limit.as_nanos()).unwrap_or(u64::MAX);
        let buckets = self.buckets.iter().enumerate();
        let within = buckets.take_while(|(index, _)| middle_of(*index) <= nanos);
        within.map(|(_, packets)| packets).sum()
    }

    /// Adds what another histogram counted.
    pub fn merge(&mut self, other: &Self) {
        if self.buckets.len() < other.buckets.len() {
            self.buckets.resize(other.buckets.len(), 0);
        }
        for (sum, packets) in self.buckets.iter_mut().zip(&other.buckets) {
            *sum = sum.wrapping_add(*packets);
        }
        self.sum = self.sum.wrapping_add(other.sum);
    }
}

/// How many packets, from the fastest on, make up a share of all.
#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "a share of a count has no more digits than matter here"
)]
fn rank(share: f64, count: u64) -> u64 {
    ((share.clamp(0.0, 1.0) * count as f64).ceil() as u64).clamp(1, count.max(1))
}

fn bucket_of(nanos: u64) -> usize {
    let clamped = nanos.clamp(LEAST, MOST);
    let exponent = clamped.ilog2();
    let step = (clamped >> (exponent - STEP_BITS)) & (STEPS - 1);
    let bucket = u64::from(exponent - LEAST.ilog2()) * STEPS + step;
    usize::try_from(bucket).unwrap_or(BUCKETS)
}

/// The value that stands for all of a bucket.
fn middle_of(bucket: usize) -> u64 {
    let bucket = u64::try_from(bucket).unwrap_or(0);
    let shift = bucket / STEPS + u64::from(LEAST.ilog2() - STEP_BITS);
    let low = (STEPS + bucket % STEPS) << shift;
    low + ((1_u64 << shift) >> 1)
}

const STEP_BITS: u32 = 5;
/// Buckets for each power of two.
const STEPS: u64 = 1 << STEP_BITS;
const LEAST: u64 = 1 << 6;
const MOST: u64 = (1 << 30) - 1;
const BUCKETS: usize = 24 * (1 << STEP_BITS);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_between_64_ns_and_a_second_is_known_to_three_percent() {
        for exponent in 6..30 {
            for part in [0, 1, 3, 17, 99] {
                let nanos = (1_u64 << exponent) + ((1_u64 << exponent) * part / 100);
                let histogram = Latency::default();
                histogram.record(Duration::from_nanos(nanos), 1);
                let told = histogram.snapshot().quantile(0.5).as_nanos();
                let error = told.abs_diff(u128::from(nanos)) * 100;
                assert!(error <= 3 * u128::from(nanos), "{nanos} told as {told}");
            }
        }
    }

    #[test]
    fn values_out_of_range_are_counted_at_its_ends() {
        let histogram = Latency::default();
        histogram.record(Duration::ZERO, 1);
        histogram.record(Duration::from_secs(60), 1);
        let snapshot = histogram.snapshot();
        assert_eq!(snapshot.count(), 2);
        assert!(snapshot.quantile(0.0) < Duration::from_nanos(70));
        assert!(snapshot.quantile(1.0) > Duration::from_secs(1));
        assert_eq!(snapshot.sum(), Duration::from_secs(60));
    }

    #[test]
    fn quantiles_follow_the_number_of_packets_and_not_of_bursts() {
        let histogram = Latency::default();
        histogram.record(Duration::from_micros(10), 98);
        histogram.record(Duration::from_micros(500), 2);
        let snapshot = histogram.snapshot();
        let near = |share, micros: u128| {
            let told = snapshot.quantile(share).as_nanos();
            told.abs_diff(micros * 1000) * 100 <= 3 * micros * 1000
        };
        assert!(near(0.5, 10));
        assert!(near(0.98, 10));
        assert!(near(0.99, 500));
        assert_eq!(LatencySnapshot::default().quantile(0.5), Duration::ZERO);
    }

    #[test]
    fn the_count_within_a_limit_grows_from_nothing_to_all() {
        let histogram = Latency::default();
        for micros in [1, 10, 100, 1000] {
            histogram.record(Duration::from_micros(micros), 5);
        }
        let snapshot = histogram.snapshot();
        let limits = [0, 500, 2_000, 20_000, 200_000, 2_000_000, u64::MAX];
        let counts = limits.map(|nanos| snapshot.count_within(Duration::from_nanos(nanos)));
        assert_eq!(counts, [0, 0, 5, 10, 15, 20, 20]);
    }

    #[test]
    fn merging_two_histograms_is_counting_in_one() {
        let [one, other, both] = [(); 3].map(|()| Latency::default());
        for nanos in [100, 1000, 5000, 123_456] {
            one.record(Duration::from_nanos(nanos), 1);
            both.record(Duration::from_nanos(nanos), 1);
            other.record(Duration::from_nanos(nanos * 3), 2);
            both.record(Duration::from_nanos(nanos * 3), 2);
        }
        let mut merged = LatencySnapshot::default();
        merged.merge(&one.snapshot());
        merged.merge(&other.snapshot());
        assert_eq!(merged, both.snapshot());
    }
}
