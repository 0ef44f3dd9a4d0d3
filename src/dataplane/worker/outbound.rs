//! What a worker does with packets from the TUN, and with the egress.

use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use super::tun::TunWriter;
use super::{Core, Worker};
use crate::dataplane::hand_off::Stray;
use crate::dataplane::pipeline::{Outbound, Pipeline, Rest};
use crate::io::offload::Offloads;
use crate::io::udp::{self, SendReport};
use crate::ipsec::DropReason;
use crate::wire::vnet::VnetHeader;

/// A packet that is not sealed as a whole yet.
#[derive(Debug)]
pub(super) struct Pending {
    rest: Rest,
    source: Source,
}

/// Where the bytes of a packet are.
#[derive(Debug)]
enum Source {
    /// In the buffer into which the TUN was read.
    Tun,
    /// In this part of what another worker gave.
    Stray(Box<Stray>, usize),
}

impl Worker {
    /// Seals what the TUN has, one read after the other. Whether there was anything.
    pub(super) fn seal(&mut self, now: Instant) -> bool {
        if !self.tun.readiness.is_set() || !self.finish_pending(now) {
            return false;
        }
        let mut budget = BYTES_PER_TURN;
        for number in 0..READS_PER_TURN {
            let pipeline = &self.core.pipeline;
            let others_first = pipeline.is_settling() || pipeline.has_released();
            if budget == 0 || others_first || !self.core.has_room(now) {
                return number > 0;
            }
            self.core.stats.calls.add(1);
            let read = self.tun.writer.queue.read(&mut self.tun.reader);
            let (header, packet) = match read {
                Ok(read) => read,
                Err(error) => {
                    let stats = &self.core.stats;
                    self.tun.readiness.failed(&error, "the TUN", stats);
                    return number > 0;
                }
            };
            self.tun.readiness.succeeded(true);
            if number == 0 {
                self.core.stats.bursts.add(1);
            }
            budget = budget.saturating_sub(packet.len());
            self.core.oldest.get_or_insert_with(Instant::now);
            self.core.obey(now); // an SA that was reported to be up is up for this packet
            if let Some(rest) = self.core.seal(now, &header, packet, &mut self.tun.writer) {
                let source = Source::Tun;
                self.pending = Some(Pending { rest, source });
                return true;
            }
        }
        true
    }

    /// Seals what other workers have read and given to this one. Whether there was anything.
    pub(super) fn take_over(&mut self, now: Instant) -> bool {
        if !self.finish_pending(now) {
            return false;
        }
        for number in 0..STRAYS_PER_TURN {
            if !self.core.pipeline.has_outbound_strays() || !self.core.has_room(now) {
                return number > 0;
            }
            let Some(stray) = self.core.pipeline.next_outbound_stray() else {
                return number > 0;
            };
            self.core.obey(now);
            self.core.oldest.get_or_insert_with(Instant::now);
            let writer = &mut self.tun.writer;
            self.pending = self.core.seal_stray(now, stray, 0, None, writer);
            if self.pending.is_some() {
                return true;
            }
        }
        true
    }

    /// Seals the packet that had no room; false if it still has none.
    fn finish_pending(&mut self, now: Instant) -> bool {
        let Some(Pending { rest, source }) = self.pending.take() else {
            return true;
        };
        if !self.core.has_room(now) {
            self.pending = Some(Pending { rest, source });
            return false;
        }
        let writer = &mut self.tun.writer;
        self.pending = match source {
            Source::Tun => {
                let packet = self.tun.reader.packet_mut();
                let left = self.core.seal_rest(now, rest, packet, writer);
                let source = Source::Tun;
                left.map(|rest| Pending { rest, source })
            }
            Source::Stray(stray, index) => {
                self.core.seal_stray(now, stray, index, Some(rest), writer)
            }
        };
        self.pending.is_none()
    }
}

impl Core {
    /// Whether any socket takes no more. Which one a packet needs is seen only when it was read, so
    /// nothing is read that is to be sealed; what arrives is opened all the same.
    pub(super) fn is_blocked(&self) -> bool {
        self.ports.iter().any(|port| port.is_blocked())
    }

    /// Whether nothing must be added to the egress.
    fn is_closed(&self) -> bool {
        self.passing.is_some() || self.is_blocked()
    }

    /// Makes room in the egress if there is none; false if nothing must be added to it.
    fn has_room(&mut self, now: Instant) -> bool {
        if !self.is_closed() && !self.egress.has_room() {
            self.flush(now);
        }
        !self.is_closed()
    }

    /// Seals what one read from the TUN gave; returns the part for which there is no room.
    fn seal(
        &mut self,
        now: Instant,
        header: &VnetHeader,
        packet: &mut [u8],
        writer: &mut TunWriter,
    ) -> Option<Rest> {
        match self
            .pipeline
            .outbound(now, header, packet, &mut self.egress)
        {
            Outbound::Done => None,
            Outbound::Reply(reply) => {
                writer.write(reply, &self.stats);
                None
            }
            Outbound::Full(rest) => {
                self.flush(now);
                self.seal_rest(now, rest, packet, writer)
            }
        }
    }

    fn seal_rest(
        &mut self,
        now: Instant,
        mut rest: Rest,
        packet: &mut [u8],
        writer: &mut TunWriter,
    ) -> Option<Rest> {
        while !self.is_closed() {
            self.oldest.get_or_insert_with(Instant::now);
            match self.pipeline.resume(now, rest, packet, &mut self.egress) {
                Outbound::Done => return None,
                Outbound::Reply(reply) => {
                    writer.write(reply, &self.stats);
                    return None;
                }
                Outbound::Full(left) => rest = left,
            }
            self.flush(now);
        }
        Some(rest)
    }

    /// Seals a stray from part number `index` on, of which the `rest` may be all that is left.
    fn seal_stray(
        &mut self,
        now: Instant,
        mut stray: Box<Stray>,
        mut index: usize,
        mut rest: Option<Rest>,
        writer: &mut TunWriter,
    ) -> Option<Pending> {
        loop {
            let outbound = match rest.take() {
                Some(rest) => {
                    let part = (&mut *stray, index);
                    self.pipeline
                        .resume_stray(now, rest, part, &mut self.egress)
                }
                None => {
                    let egress = &mut self.egress;
                    match self.pipeline.outbound_stray(now, &mut stray, index, egress) {
                        Some(outbound) => outbound,
                        None => break,
                    }
                }
            };
            match outbound {
                Outbound::Done => index += 1,
                Outbound::Reply(reply) => {
                    writer.write(reply, &self.stats);
                    index += 1;
                }
                Outbound::Full(left) => {
                    self.flush(now);
                    if self.is_closed() {
                        let source = Source::Stray(stray, index);
                        return Some(Pending { rest: left, source });
                    }
                    rest = Some(left);
                }
            }
        }
        self.pipeline.recycle(stray);
        None
    }

    /// Sends all that waits, each packet by the socket of its kind. What a socket does not take stays.
    pub(super) fn flush(&mut self, now: Instant) {
        let mut sent = 0_u32;
        let egress = &mut self.egress;
        let bursts = [
            (false, false, &mut egress.udp_v4),
            (false, true, &mut egress.udp_v6),
            (true, false, &mut egress.raw_v4),
            (true, true, &mut egress.raw_v6),
        ];
        for (raw, ipv6, burst) in bursts {
            if burst.is_empty() {
                continue;
            }
            let mut ports = self.ports.iter_mut();
            let Some(port) = ports.find(|port| port.socket.is_kind(raw, ipv6)) else {
                let lost = u32::try_from(burst.len()).unwrap_or(u32::MAX);
                self.stats.dropped_many(DropReason::SendFailed, lost);
                burst.clear();
                continue;
            };
            let Some(report) = port.send(burst, &self.registry) else {
                continue;
            };
            sent = sent.saturating_add(report.sent);
            self.stats.calls.add(u64::from(report.calls));
            self.stats.trains_out.add(u64::from(report.trains));
            let in_trains = u64::from(report.in_trains);
            self.stats.train_packets_out.add(in_trains);
            if report.failed() > 0 {
                account(&report, port.socket.mark(), &mut self.pipeline, now);
            }
        }
        if sent > 0
            && let Some(oldest) = self.oldest
        {
            self.stats.residence_outbound.record(oldest.elapsed(), sent);
        }
        if self.egress.is_empty() {
            self.oldest = None;
            self.pipeline.has_sent();
            self.pass();
        }
        self.note_offloads();
    }

    /// Takes note of what the sockets have given up.
    pub(super) fn note_offloads(&self) {
        let known = self.stats.offloads();
        let sockets = self.ports.iter().filter_map(|port| port.socket.offloads());
        let udp = sockets.reduce(Offloads::and).unwrap_or(Offloads::NONE);
        if (udp.udp_gso, udp.udp_gro) != (known.udp_gso, known.udp_gro) {
            self.stats.set_offloads(Offloads {
                udp_gso: udp.udp_gso,
                udp_gro: udp.udp_gro,
                ..known
            });
        }
    }

    /// Asks the system about paths that may have improved.
    pub(super) fn check_paths(&mut self, now: Instant) {
        for _ in 0..PATHS_PER_CHECK {
            let Some(path) = self.pipeline.stale_path(now) else {
                break;
            };
            let mark = self.ports.iter().find_map(|port| port.socket.mark());
            ask_path_mtu(&mut self.pipeline, path, mark, now);
        }
    }
}

fn account(report: &SendReport, mark: Option<u32>, pipeline: &mut Pipeline, now: Instant) {
    let stats = pipeline.stats();
    let failed = report.unreachable + report.denied + report.other;
    stats.dropped_many(DropReason::SendFailed, failed);
    stats.dropped_many(DropReason::TransmitQueueFull, report.queue_full);
    stats.dropped_many(DropReason::TooBig, report.too_big);
    for (local, remote) in report.too_big_paths.into_iter().flatten() {
        if pipeline.should_ask_path_mtu(local, remote, now) {
            ask_path_mtu(pipeline, (local, remote), mark, now);
        }
    }
}

fn ask_path_mtu(
    pipeline: &mut Pipeline,
    (local, remote): (IpAddr, SocketAddr),
    mark: Option<u32>,
    now: Instant,
) {
    pipeline.stats().calls.add(udp::PATH_MTU_CALLS);
    let answer = udp::path_mtu(local, remote, mark).ok();
    pipeline.learn_path_mtu(local, remote, answer, now);
}

/// Reads from the TUN in one turn, each at most a super-packet.
const READS_PER_TURN: usize = 64;
/// Bytes read from the TUN in one turn: what the egress takes before it is sent. The sockets, and the
/// small packets that wait in them, get their chance after that.
const BYTES_PER_TURN: usize = 512 << 10;
/// Strays in one turn, each at most 64 KiB.
const STRAYS_PER_TURN: usize = 8;
const PATHS_PER_CHECK: usize = 16;
