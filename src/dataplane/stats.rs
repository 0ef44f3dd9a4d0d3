//! Counters of the workers. Each has one writer; anyone may read them.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::ipsec::DropReason;

/// What one worker has done so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WorkerSnapshot {
    /// Packets and bytes that came out of a tunnel, inner lengths.
    pub inbound: Traffic,
    /// Packets and bytes that went into a tunnel, inner lengths.
    pub outbound: Traffic,
    /// Bursts that were read, from sockets and from the TUN.
    pub bursts: u64,
    /// Packets that were given to the worker that owns their SA.
    pub handed_off: u64,
    /// Packets that other workers gave to this one.
    pub taken_over: u64,
    /// "Too big" messages written to the TUN.
    pub too_big_replies: u64,
    /// Packets dropped, by [`DropReason::index`].
    pub drops: [u64; DropReason::COUNT],
}

/// A number of packets and their bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Packets.
    pub packets: u64,
    /// Bytes.
    pub bytes: u64,
}

impl WorkerSnapshot {
    /// How many packets were dropped for this reason.
    pub fn dropped(&self, reason: DropReason) -> u64 {
        self.drops.get(reason.index()).copied().unwrap_or(0)
    }

    fn add(&mut self, other: &Self) {
        self.inbound.add(other.inbound);
        self.outbound.add(other.outbound);
        self.bursts += other.bursts;
        self.handed_off += other.handed_off;
        self.taken_over += other.taken_over;
        self.too_big_replies += other.too_big_replies;
        for (sum, count) in self.drops.iter_mut().zip(other.drops) {
            *sum += count;
        }
    }
}

impl Traffic {
    fn add(&mut self, other: Self) {
        self.packets += other.packets;
        self.bytes += other.bytes;
    }
}

/// What all workers have done so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// In the order of their numbers.
    pub workers: Vec<WorkerSnapshot>,
}

impl Snapshot {
    /// The sum over all workers.
    pub fn total(&self) -> WorkerSnapshot {
        let mut total = WorkerSnapshot::default();
        for worker in &self.workers {
            total.add(worker);
        }
        total
    }
}

/// The counters behind a [`WorkerSnapshot`].
#[derive(Debug, Default)]
#[repr(align(128))] // no cache line shared with what other threads write
pub struct WorkerStats {
    pub(super) packets_in: Counter,
    pub(super) bytes_in: Counter,
    pub(super) packets_out: Counter,
    pub(super) bytes_out: Counter,
    pub(super) bursts: Counter,
    pub(super) handed_off: Counter,
    pub(super) taken_over: Counter,
    pub(super) too_big_replies: Counter,
    drops: [Counter; DropReason::COUNT],
}

impl WorkerStats {
    /// Counts one dropped packet.
    pub(super) fn dropped(&self, reason: DropReason) {
        self.dropped_many(reason, 1);
    }

    /// Counts several dropped packets.
    pub(super) fn dropped_many(&self, reason: DropReason, packets: u32) {
        if let Some(counter) = self.drops.get(reason.index()) {
            counter.add(u64::from(packets));
        }
    }

    /// The values of this moment, each for itself.
    pub fn snapshot(&self) -> WorkerSnapshot {
        let mut drops = [0; DropReason::COUNT];
        for (value, counter) in drops.iter_mut().zip(&self.drops) {
            *value = counter.get();
        }
        WorkerSnapshot {
            inbound: Traffic {
                packets: self.packets_in.get(),
                bytes: self.bytes_in.get(),
            },
            outbound: Traffic {
                packets: self.packets_out.get(),
                bytes: self.bytes_out.get(),
            },
            bursts: self.bursts.get(),
            handed_off: self.handed_off.get(),
            taken_over: self.taken_over.get(),
            too_big_replies: self.too_big_replies.get(),
            drops,
        }
    }
}

/// A counter with one writer, which therefore needs no read-modify-write.
#[derive(Debug, Default)]
pub(super) struct Counter(AtomicU64);

impl Counter {
    pub(super) fn add(&self, count: u64) {
        self.0
            .store(self.get().wrapping_add(count), Ordering::Relaxed);
    }

    pub(super) fn add_len(&self, length: usize) {
        self.add(u64::try_from(length).unwrap_or(u64::MAX));
    }

    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}
