//! The TUN queue of a worker.

use std::io::{self, IoSlice};
use std::os::fd::AsRawFd;

use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};

use super::readiness::Readiness;
use crate::dataplane::stats::WorkerStats;
use crate::io::burst::SLOT_LEN;
use crate::io::offload::{Offloads, TunPacket};
use crate::io::tun::{TunBuffer, TunQueue};
use crate::ipsec::DropReason;
use crate::wire::vnet::VnetHeader;

/// A TUN queue and what it was read into last.
#[derive(Debug)]
pub(super) struct TunPort {
    pub(super) reader: TunBuffer,
    pub(super) writer: TunWriter,
    pub(super) readiness: Readiness,
}

/// The way into a TUN queue.
#[derive(Debug)]
pub(super) struct TunWriter {
    pub(super) queue: TunQueue,
    /// Where a super-packet is put together that the kernel does not take.
    refused: Box<[u8]>,
}

impl TunPort {
    /// Registers a queue for reading.
    pub(super) fn new(queue: TunQueue, token: Token, registry: &Registry) -> io::Result<Self> {
        let fd = queue.as_raw_fd();
        registry.register(&mut SourceFd(&fd), token, Interest::READABLE)?;
        Ok(Self {
            reader: TunBuffer::new(),
            writer: TunWriter {
                queue,
                refused: vec![0; SLOT_LEN].into_boxed_slice(),
            },
            readiness: Readiness::default(),
        })
    }
}

impl TunWriter {
    /// Writes one plain packet.
    pub(super) fn write(&mut self, packet: &[u8], stats: &WorkerStats) {
        stats.calls.add(1);
        if self.queue.write(packet).is_err() {
            stats.dropped(DropReason::TunWriteFailed);
        }
    }

    /// Writes what a merger gives: a plain packet or a super-packet.
    ///
    /// If the kernel does not take super-packets, they are cut into what they were made of, and no more
    /// are made.
    pub(super) fn write_merged(
        &mut self,
        header: &VnetHeader,
        pieces: &[IoSlice<'_>],
        stats: &WorkerStats,
    ) {
        stats.calls.add(1);
        let is_super = header.gso_type != VnetHeader::GSO_NONE;
        if is_super {
            stats.super_in.add(1);
        }
        let Err(error) = self.queue.write_vectored(header, pieces) else {
            return;
        };
        if !is_super {
            stats.dropped(DropReason::TunWriteFailed);
            return;
        }
        let offloads = stats.offloads();
        if error.kind() == io::ErrorKind::InvalidInput && offloads.tun_gro {
            tracing::warn!(%error, "the TUN takes no super-packets; packets are written one by one");
            stats.set_offloads(Offloads {
                tun_gro: false,
                ..offloads
            });
        }
        self.write_segments(header, pieces, stats);
    }

    fn write_segments(&mut self, header: &VnetHeader, pieces: &[IoSlice<'_>], stats: &WorkerStats) {
        let mut length = 0;
        for piece in pieces {
            if let Some(room) = self.refused.get_mut(length..length + piece.len()) {
                room.copy_from_slice(piece);
                length += piece.len();
            }
        }
        let bytes = self.refused.get_mut(..length).unwrap_or_default();
        let Ok(mut packet) = TunPacket::parse(header, bytes) else {
            stats.dropped(DropReason::TunWriteFailed);
            return;
        };
        while let Some(segment) = packet.next_segment() {
            stats.calls.add(1);
            if self.queue.write(segment).is_err() {
                stats.dropped(DropReason::TunWriteFailed);
            }
        }
    }
}
