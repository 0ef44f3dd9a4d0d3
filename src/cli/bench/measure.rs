//! Time per packet: the median over slices of a millisecond.

use std::{
    hint::black_box,
    time::{Duration, Instant},
};

use crate::io::tsc;

/// What one batch did, and how long the part of it took that counts.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Batch {
    pub(super) time: Duration,
    pub(super) packets: u64,
    pub(super) bytes: u64,
}

impl Batch {
    /// Times `work` on packets of these lengths.
    pub(super) fn timed<T>(lengths: &[usize], work: impl FnOnce() -> T) -> Self {
        let start = Instant::now();
        black_box(work());
        Self {
            time: start.elapsed(),
            packets: lengths.len() as u64,
            bytes: lengths.iter().map(|length| *length as u64).sum(),
        }
    }

    fn add(&mut self, other: Self) {
        self.time += other.time;
        self.packets += other.packets;
        self.bytes += other.bytes;
    }
}

/// What a stage costs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Cost {
    pub(super) ns_per_packet: f64,
    pub(super) gbit_per_s: f64,
    pub(super) packets: u64,
}

/// Repeats `batch` for about `seconds`, after one slice to warm up.
pub(super) fn repeat(seconds: f64, mut batch: impl FnMut() -> Batch) -> Cost {
    let whole = Duration::from_secs_f64(seconds);
    let slice = SLICE.min(whole / FEWEST);
    run(slice, &mut batch);
    let start = Instant::now();
    let mut slices = Vec::new();
    while slices.len() < 3 || start.elapsed() < whole {
        slices.push(run(slice, &mut batch));
    }
    median(slices)
}

/// Repeats two kinds of batches in turn, `seconds` for each, so that what disturbs one disturbs the
/// other and they can be compared.
pub(super) fn repeat_both(
    seconds: f64,
    mut first: impl FnMut() -> Batch,
    mut second: impl FnMut() -> Batch,
) -> [Cost; 2] {
    let whole = Duration::from_secs_f64(seconds * 2.0);
    let slice = SLICE.min(whole / (2 * FEWEST));
    run(slice, &mut first);
    run(slice, &mut second);
    let start = Instant::now();
    let mut slices = [Vec::new(), Vec::new()];
    let [of_first, of_second] = &mut slices;
    while of_first.len() < 3 || start.elapsed() < whole {
        of_first.push(run(slice, &mut first));
        of_second.push(run(slice, &mut second));
    }
    slices.map(median)
}

fn run(slice: Duration, batch: &mut impl FnMut() -> Batch) -> Batch {
    let start = Instant::now();
    let mut sum = batch();
    while start.elapsed() < slice {
        sum.add(batch());
    }
    sum
}

fn median(mut slices: Vec<Batch>) -> Cost {
    slices.sort_by(|a, b| per_packet(a).total_cmp(&per_packet(b)));
    let median = slices.get(slices.len() / 2).copied().unwrap_or_default();
    Cost {
        ns_per_packet: per_packet(&median),
        gbit_per_s: median.bytes as f64 * 8.0 / nanoseconds(median.time),
        packets: slices.iter().map(|slice| slice.packets).sum(),
    }
}

/// Ticks of the time-stamp counter in a nanosecond, where there is such a counter.
pub(super) fn ticks_per_nanosecond() -> Option<f64> {
    let (start, before) = (Instant::now(), tsc::timestamp()?);
    std::thread::sleep(CALIBRATION);
    let (time, after) = (start.elapsed(), tsc::timestamp()?);
    Some(after.wrapping_sub(before) as f64 / nanoseconds(time))
}

fn per_packet(batch: &Batch) -> f64 {
    nanoseconds(batch.time) / batch.packets.max(1) as f64
}

fn nanoseconds(time: Duration) -> f64 {
    time.as_secs_f64().max(1e-9) * 1e9
}

/// Shorter than a scheduler's turn: on a machine with other work most slices are whole.
const SLICE: Duration = Duration::from_millis(1);
const FEWEST: u32 = 5;
const CALIBRATION: Duration = Duration::from_millis(20);
