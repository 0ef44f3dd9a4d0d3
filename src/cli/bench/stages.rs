//! One stage of the packet path at a time, on one core.

use std::{hint::black_box, io::IoSlice, net::SocketAddr, time::Instant};

use super::{
    measure::{Batch, Cost, repeat},
    scene::{self, Size},
};
use crate::{
    crypto::packet::{Associated, PacketKey},
    dataplane::{Carrier, Egress, Outbound, Pipeline},
    io::{
        burst::Received,
        offload::{MergeKinds, MergeScratch, Merger, TunPacket},
    },
    ipsec::{InboundSa, OutboundSa, ReplayWindow},
    wire::{proposal::CipherSuite, vnet::VnetHeader},
};

/// The bare cipher, in place.
pub(super) struct Aead {
    key: PacketKey,
    nonce: u64,
    buffers: Vec<Vec<u8>>,
    lengths: Vec<usize>,
}

impl Aead {
    pub(super) fn new(suite: CipherSuite, size: Size) -> Self {
        let key = scene::key(suite);
        let lengths = size.lengths();
        let overhead = key.iv_len() + key.icv_len();
        let block = key.block_len().max(1);
        let buffers = lengths.iter().map(|length| length.next_multiple_of(block));
        Self {
            nonce: 0,
            buffers: buffers.map(|text| vec![0x42; text + overhead]).collect(),
            key,
            lengths,
        }
    }

    pub(super) fn seal(&mut self) -> Batch {
        let Self {
            key,
            nonce,
            buffers,
            lengths,
        } = self;
        Batch::timed(lengths, || {
            for buffer in buffers {
                *nonce += 1;
                let sealed = key.seal(*nonce, ASSOCIATED, buffer);
                sealed.expect("the buffer has room for IV and ICV");
            }
        })
    }

    pub(super) fn open(&mut self) -> Batch {
        self.seal();
        let Self {
            key,
            buffers,
            lengths,
            ..
        } = self;
        Batch::timed(lengths, || {
            for buffer in buffers {
                let opened = key.open(ASSOCIATED, buffer);
                black_box(opened.expect("it was sealed with this key"));
            }
        })
    }
}

/// ESP with its SA: sequence number, padding, replay window, selectors.
pub(super) struct Esp {
    sealer: OutboundSa,
    opener: InboundSa,
    packets: Vec<Vec<u8>>,
    buffers: Vec<Vec<u8>>,
    lengths: Vec<usize>,
}

impl Esp {
    pub(super) fn new(suite: CipherSuite, size: Size) -> Self {
        let lengths = size.lengths();
        let sealer = scene::outbound_sa(suite);
        let packets = lengths.iter().map(|length| scene::plain_packet(*length));
        let buffers = lengths
            .iter()
            .map(|length| vec![0; sealer.sealed_len(*length)]);
        Self {
            packets: packets.collect(),
            buffers: buffers.collect(),
            opener: scene::inbound_sa(suite),
            sealer,
            lengths,
        }
    }

    pub(super) fn seal(&mut self) -> Batch {
        let Self {
            sealer,
            packets,
            buffers,
            lengths,
            ..
        } = self;
        Batch::timed(lengths, || {
            for (packet, buffer) in packets.iter().zip(buffers) {
                let sealed = sealer.seal(&[packet], buffer);
                sealed.expect("the buffer has the length asked for");
            }
        })
    }

    pub(super) fn open(&mut self) -> Batch {
        self.seal();
        let Self {
            opener,
            buffers,
            lengths,
            ..
        } = self;
        Batch::timed(lengths, || {
            for buffer in buffers {
                black_box(opener.open(buffer, 0).expect("sealed a moment ago"));
            }
        })
    }
}

const ASSOCIATED: Associated<'static> = Associated {
    header: &[0x5a; 8],
    esn_high: Some(0),
};

/// The replay window alone, in order.
pub(super) fn replay(seconds: f64) -> Cost {
    let mut window = ReplayWindow::new(4096, true);
    let mut next = 0_u32;
    let burst = [0; 64];
    repeat(seconds, || {
        Batch::timed(&burst, || {
            for _ in burst {
                next = next.wrapping_add(1);
                if let Ok(fresh) = window.check(next) {
                    let _ = black_box(window.accept(fresh));
                }
            }
        })
    })
}

/// A super-packet into its segments with final checksums, and the segments into one again.
pub(super) fn split_and_merge(length: usize, seconds: f64) -> [Cost; 2] {
    let (header, template, lengths) = scene::super_packet(length);
    let mut buffer = template.clone();
    let split = repeat(seconds, || {
        buffer.copy_from_slice(&template);
        Batch::timed(&lengths, || {
            let mut packet = TunPacket::parse(&header, &mut buffer).expect("a sound super-packet");
            while let Some(segment) = packet.next_segment() {
                black_box(segment);
            }
        })
    });
    let mut segments = Vec::new();
    buffer.copy_from_slice(&template);
    let mut packet = TunPacket::parse(&header, &mut buffer).expect("a sound super-packet");
    while let Some(segment) = packet.next_segment() {
        segments.push(segment.to_vec());
    }
    let mut scratch = MergeScratch::new();
    let merge = repeat(seconds, || {
        Batch::timed(&lengths, || {
            let mut merger = Merger::new(EVERY_KIND, &mut scratch);
            for segment in &mut segments {
                merger.push(segment, &mut written);
            }
            merger.finish(&mut written);
        })
    });
    [split, merge]
}

/// Stands for the write to the TUN.
fn written(header: &VnetHeader, pieces: &[IoSlice<'_>]) {
    black_box((header, pieces));
}

/// The whole packet path of one worker without its sockets.
pub(super) struct Path {
    pipeline: Pipeline,
    egress: Egress,
    scratch: MergeScratch,
    /// What the TUN gives, and the lengths of the inner packets in it.
    reads: Vec<(VnetHeader, Vec<u8>)>,
    buffers: Vec<Vec<u8>>,
    lengths: Vec<usize>,
    now: Instant,
}

impl Path {
    /// For bulk TCP in super-packets where the size is one, for single UDP packets in a mix.
    pub(super) fn new(suite: CipherSuite, size: Size) -> Self {
        let (reads, lengths) = match size {
            Size::Bytes(length) => {
                let (header, packet, lengths) = scene::super_packet(length);
                (vec![(header, packet)], lengths)
            }
            Size::Imix => {
                let lengths = size.lengths();
                let packets = lengths.iter().map(|length| scene::plain_packet(*length));
                let reads = packets.map(|packet| (VnetHeader::default(), packet));
                (reads.collect(), lengths)
            }
        };
        Self {
            pipeline: scene::pipeline(suite),
            egress: Egress::default(),
            scratch: MergeScratch::new(),
            buffers: reads.iter().map(|(_, packet)| packet.clone()).collect(),
            reads,
            lengths,
            now: Instant::now(),
        }
    }

    /// From the TUN to sealed datagrams.
    pub(super) fn outbound(&mut self) -> Batch {
        self.egress.udp_v4.clear();
        self.refill();
        let Self {
            pipeline,
            egress,
            reads,
            buffers,
            lengths,
            now,
            ..
        } = self;
        Batch::timed(lengths, || {
            for ((header, _), buffer) in reads.iter().zip(buffers) {
                let mut outcome = pipeline.outbound(*now, header, buffer, egress);
                while let Outbound::Full(rest) = outcome {
                    egress.udp_v4.clear();
                    outcome = pipeline.resume(*now, rest, buffer, egress);
                }
            }
            pipeline.finish();
        })
    }

    /// From sealed datagrams, received as trains, to what is written to the TUN.
    pub(super) fn inbound(&mut self) -> Batch {
        self.outbound();
        let mut trains = self.trains();
        let Self {
            pipeline,
            scratch,
            lengths,
            ..
        } = self;
        let remote = SocketAddr::from(([192, 0, 2, 1], 4500));
        Batch::timed(lengths, || {
            let mut merger = Merger::new(EVERY_KIND, scratch);
            for (bytes, size) in &mut trains {
                let received = Received {
                    bytes,
                    remote,
                    local: remote.ip(),
                    tos: 0,
                    segment_size: Some(*size),
                };
                let (carrier, mut room) = (Carrier::Udp { port: 4500 }, Default::default());
                pipeline.inbound_train(carrier, received, &mut room, |inner| {
                    merger.push(inner, &mut written);
                });
            }
            merger.finish(&mut written);
            pipeline.finish();
        })
    }

    /// Packets that were dropped; none should be.
    pub(super) fn dropped(&self) -> u64 {
        let snapshot = self.pipeline.stats().snapshot();
        snapshot.drops.iter().sum()
    }

    fn refill(&mut self) {
        for (buffer, (_, packet)) in self.buffers.iter_mut().zip(&self.reads) {
            buffer.copy_from_slice(packet);
        }
    }

    /// What the egress holds, as receive offload would deliver it.
    fn trains(&self) -> Vec<(Vec<u8>, u16)> {
        let mut trains: Vec<(Vec<u8>, u16)> = Vec::new();
        for (_, datagram) in self.egress.udp_v4.iter() {
            let length = u16::try_from(datagram.len()).unwrap_or(u16::MAX);
            match trains.last_mut() {
                Some((bytes, size))
                    if bytes.len() % usize::from(*size) == 0
                        && length <= *size
                        && bytes.len() + datagram.len() <= usize::from(u16::MAX) =>
                {
                    bytes.extend_from_slice(datagram);
                }
                _ => trains.push((datagram.to_vec(), length)),
            }
        }
        trains
    }
}

const EVERY_KIND: MergeKinds = MergeKinds {
    tcp: true,
    udp: true,
};
