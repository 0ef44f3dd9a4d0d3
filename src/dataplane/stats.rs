//! Counters of the workers. Each has one writer; anyone may read them.

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

use super::latency::{Latency, LatencySnapshot};
use crate::io::offload::Offloads;
use crate::ipsec::DropReason;

/// What one worker has done so far.
#[derive(Clone, Debug, PartialEq, Eq)]
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
    /// Super-packets written to the TUN.
    pub super_in: u64,
    /// Super-packets read from the TUN.
    pub super_out: u64,
    /// Trains of datagrams received as one.
    pub trains_in: u64,
    /// Trains of datagrams sent as one.
    pub trains_out: u64,
    /// Datagrams in the trains received.
    pub train_packets_in: u64,
    /// Datagrams in the trains sent.
    pub train_packets_out: u64,
    /// System calls made: waiting, reading, writing, waking others, asking about paths.
    pub calls: u64,
    /// Reads from the TUN and the sockets that failed, not for want of packets.
    pub read_errors: u64,
    /// From the end of the call that received a packet to the end of the one that wrote it to the TUN.
    pub residence_inbound: LatencySnapshot,
    /// From the end of the call that read a packet from the TUN to the end of the one that sent it. All
    /// packets of a burst count as long as its first.
    pub residence_outbound: LatencySnapshot,
    /// The offloads in use.
    pub offloads: Offloads,
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

impl Default for WorkerSnapshot {
    /// Nothing done, no offload in use.
    fn default() -> Self {
        WorkerStats::default().snapshot()
    }
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
        self.super_in += other.super_in;
        self.super_out += other.super_out;
        self.trains_in += other.trains_in;
        self.trains_out += other.trains_out;
        self.train_packets_in += other.train_packets_in;
        self.train_packets_out += other.train_packets_out;
        self.calls += other.calls;
        self.read_errors += other.read_errors;
        self.residence_inbound.merge(&other.residence_inbound);
        self.residence_outbound.merge(&other.residence_outbound);
        self.offloads = self.offloads.and(other.offloads);
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
    /// The sum over all workers, with the offloads that all of them use.
    pub fn total(&self) -> WorkerSnapshot {
        let mut workers = self.workers.iter();
        let mut total = workers.next().cloned().unwrap_or_default();
        workers.for_each(|worker| total.add(worker));
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
    pub(super) super_in: Counter,
    pub(super) super_out: Counter,
    pub(super) trains_in: Counter,
    pub(super) trains_out: Counter,
    pub(super) train_packets_in: Counter,
    pub(super) train_packets_out: Counter,
    pub(super) calls: Counter,
    pub(super) read_errors: Counter,
    pub(super) residence_inbound: Latency,
    pub(super) residence_outbound: Latency,
    offloads: Flags,
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

    /// The offloads in use.
    pub fn offloads(&self) -> Offloads {
        self.offloads.get()
    }

    /// Takes note of the offloads in use.
    pub(super) fn set_offloads(&self, offloads: Offloads) {
        self.offloads.set(offloads);
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
            super_in: self.super_in.get(),
            super_out: self.super_out.get(),
            trains_in: self.trains_in.get(),
            trains_out: self.trains_out.get(),
            train_packets_in: self.train_packets_in.get(),
            train_packets_out: self.train_packets_out.get(),
            calls: self.calls.get(),
            read_errors: self.read_errors.get(),
            residence_inbound: self.residence_inbound.snapshot(),
            residence_outbound: self.residence_outbound.snapshot(),
            offloads: self.offloads(),
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

    pub(super) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// [`Offloads`] that others may read, one bit each.
#[derive(Debug, Default)]
struct Flags(AtomicU8);

impl Flags {
    fn set(&self, offloads: Offloads) {
        let bits = offloads.iter().zip(0..);
        let bits = bits.map(|((_, active), place)| u8::from(active) << place);
        self.0.store(bits.sum(), Ordering::Relaxed);
    }

    fn get(&self) -> Offloads {
        let bits = self.0.load(Ordering::Relaxed);
        let [tun_tso, tun_uso, tun_gro, udp_gso, udp_gro] =
            [0, 1, 2, 3, 4].map(|place| bits >> place & 1 != 0);
        Offloads {
            tun_tso,
            tun_uso,
            tun_gro,
            udp_gso,
            udp_gro,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offloads_are_read_as_they_were_written() {
        let flags = Flags::default();
        assert_eq!(flags.get(), Offloads::NONE);
        for offloads in [
            Offloads::ALL,
            Offloads {
                tun_gro: true,
                ..Offloads::NONE
            },
            Offloads {
                udp_gro: false,
                ..Offloads::ALL
            },
        ] {
            flags.set(offloads);
            assert_eq!(flags.get(), offloads);
        }
    }

    #[test]
    fn a_total_has_the_offloads_that_all_workers_use() {
        let worker = |offloads| WorkerSnapshot {
            offloads,
            calls: 2,
            ..WorkerSnapshot::default()
        };
        let without = Offloads {
            udp_gso: false,
            ..Offloads::ALL
        };
        let workers = vec![worker(Offloads::ALL), worker(without)];
        let total = Snapshot { workers }.total();
        assert_eq!((total.offloads, total.calls), (without, 4));
    }
}
