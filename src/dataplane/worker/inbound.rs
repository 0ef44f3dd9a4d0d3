//! What a worker does with datagrams.

use std::io::IoSlice;
use std::time::Instant;

use super::Worker;
use crate::dataplane::hand_off::Stray;
use crate::dataplane::stats::WorkerStats;
use crate::io::offload::{MergeKinds, Merger};
use crate::ipsec::DropReason;
use crate::wire::vnet::VnetHeader;

impl Worker {
    /// Opens one burst from a socket. Whether there was anything.
    pub(super) fn receive(&mut self, index: usize, now: Instant) -> bool {
        let port = self.core.ports.get_mut(index);
        let Some(port) = port.filter(|port| port.readiness.is_set()) else {
            return false;
        };
        let stats = &*self.core.stats;
        stats.calls.add(1);
        let carrier = port.socket.carrier();
        if let Err(error) = port.socket.recv_burst(&mut self.received) {
            let name = port.socket.name();
            port.readiness.failed(&error, name, stats);
            return false;
        }
        port.readiness.succeeded(self.received.is_full());
        let began = Instant::now();
        self.core.obey(now);
        // Where the kernel put packets of one SA into two workers' trains, these are mostly the older.
        self.open_strays();

        let stats = &*self.core.stats;
        stats.bursts.add(1);
        let writer = &mut self.tun.writer;
        let mut sink = |header: &VnetHeader, pieces: &[IoSlice<'_>]| {
            writer.write_merged(header, pieces, stats);
        };
        let mut merger = Merger::new(kinds(stats), &mut self.scratch);
        let (mut packets, mut trains, mut in_trains) = (0_u32, 0, 0);
        if self.received.len() > 1 {
            let datagrams = self.received.iter_mut().flatten();
            let datagrams = datagrams.map(|received| &*received.bytes);
            self.core.pipeline.look_ahead(datagrams);
        }
        let (datagrams, mut room) = self.received.parts_mut();
        for received in datagrams {
            let Some(received) = received.filter(|received| !received.bytes.is_empty()) else {
                stats.dropped(DropReason::OuterMalformed);
                continue;
            };
            if let Some(size) = received.segment_size {
                trains += 1;
                in_trains += received.bytes.len().div_ceil(usize::from(size.max(1)));
            }
            let deliver = |inner| {
                packets += 1;
                merger.push(inner, &mut sink);
            };
            let pipeline = &mut self.core.pipeline;
            pipeline.inbound_train(carrier, received, &mut room, deliver);
        }
        merger.finish(&mut sink);
        stats.trains_in.add(trains);
        stats.train_packets_in.add_len(in_trains);
        stats.residence_inbound.record(began.elapsed(), packets);
        self.core.pipeline.finish();
        true
    }

    /// Opens what other workers have received and given to this one. Whether there was anything.
    pub(super) fn open_strays(&mut self) -> bool {
        for number in 0..STRAYS_AT_ONCE {
            let Some(stray) = self.core.pipeline.next_inbound_stray() else {
                return number > 0;
            };
            self.open_stray(stray);
        }
        true
    }

    /// Opens what another worker has received, like a burst of its own.
    fn open_stray(&mut self, mut stray: Box<Stray>) {
        let began = Instant::now();
        let stats = &*self.core.stats;
        let writer = &mut self.tun.writer;
        let mut sink = |header: &VnetHeader, pieces: &[IoSlice<'_>]| {
            writer.write_merged(header, pieces, stats);
        };
        let mut merger = Merger::new(kinds(stats), &mut self.scratch);
        let mut packets = 0;
        let mut room = self.received.room_mut();
        let deliver = |inner| {
            packets += 1;
            merger.push(inner, &mut sink);
        };
        let pipeline = &mut self.core.pipeline;
        pipeline.inbound_stray(&mut stray, &mut room, deliver);
        merger.finish(&mut sink);
        stats.residence_inbound.record(began.elapsed(), packets);
        self.core.pipeline.recycle(stray);
    }
}

/// Which packets to merge. Where the kernel gives no UDP super-packets, it takes none either.
fn kinds(stats: &WorkerStats) -> MergeKinds {
    let offloads = stats.offloads();
    MergeKinds {
        tcp: offloads.tun_gro,
        udp: offloads.tun_gro && offloads.tun_uso,
    }
}

/// Strays opened before something else gets its chance, each at most 64 KiB.
const STRAYS_AT_ONCE: usize = 8;
