//! One core's packet path without sockets: what a read from the TUN gave to sealed datagrams, and back.
//!
//! All times are per inner packet, also where packets come and go as super-packets and trains.
#![allow(
    clippy::indexing_slicing,
    reason = "an index out of bounds ends the benchmark, as it should"
)]

#[path = "../tests/dataplane/gateway.rs"]
mod gateway;
#[path = "../tests/offload/packets.rs"]
mod packets;

use std::hint::black_box;
use std::io::IoSlice;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use gateway::{Gateway, PORT, Train, Tunnel};
use lockgate::dataplane::Outbound;
use lockgate::io::burst::Received;
use lockgate::io::offload::{MergeKinds, MergeScratch, Merger};
use lockgate::wire::vnet::VnetHeader;
use packets::Packet;

const BURST: usize = 64;
/// Inner packets.
const SIZES: [usize; 4] = [64, 576, 1400, 65_000];
/// Payload of the segments of a super-packet.
const SEGMENTS: [u16; 3] = [1348, 1400, 8900];

fn outbound(c: &mut Criterion) {
    let mut group = c.benchmark_group("outbound");
    for size in SIZES {
        let (mut a, _) = scene();
        let mut packet = Packet::udp(false, size - 28).build();
        group.throughput(elements(BURST));
        group.bench_function(BenchmarkId::from_parameter(size), |bencher| {
            bencher.iter(|| {
                for _ in 0..BURST {
                    seal(&mut a, &VnetHeader::default(), black_box(&mut packet));
                }
                a.egress.udp_v4.clear();
            });
        });
    }
    group.finish();
}

/// A super-packet of 64 KiB as the kernel gives it for bulk TCP.
fn outbound_super(c: &mut Criterion) {
    let mut group = c.benchmark_group("outbound super-packet");
    for mss in SEGMENTS {
        let (mut a, _) = scene();
        let (header, packet) = super_packet(mss);
        let mut read = packet.clone();
        group.throughput(elements(segments(&packet, mss)));
        group.bench_function(BenchmarkId::from_parameter(mss), |bencher| {
            bencher.iter(|| {
                read.copy_from_slice(&packet); // stands for the kernel's copy
                seal(&mut a, &header, black_box(&mut read));
                a.egress.udp_v4.clear();
            });
        });
    }
    group.finish();
}

fn inbound(c: &mut Criterion) {
    let mut group = c.benchmark_group("inbound");
    for size in SIZES {
        let (mut a, mut b) = scene();
        let packet = Packet::udp(false, size - 28).build();
        group.throughput(elements(BURST));
        group.bench_function(BenchmarkId::from_parameter(size), |bencher| {
            // A packet opens once, so each burst is sealed first, outside the measured time.
            bencher.iter_custom(|rounds| {
                let mut spent = Duration::ZERO;
                for _ in 0..rounds {
                    let sealed: Vec<_> =
                        (0..BURST).flat_map(|_| a.send(&packet).datagrams).collect();
                    spent += open(&mut b, &Train::singles(&sealed), NO_MERGE);
                }
                spent
            });
        });
        assert_eq!(b.drops(), [], "every packet was opened");
    }
    group.finish();
}

/// The trains that a super-packet became, up to the super-packet that is written to the TUN.
fn inbound_train(c: &mut Criterion) {
    let mut group = c.benchmark_group("inbound train");
    for (name, kinds) in [("", NO_MERGE), (" merged", MERGE)] {
        for mss in SEGMENTS {
            let (mut a, mut b) = scene();
            let (header, packet) = super_packet(mss);
            group.throughput(elements(segments(&packet, mss)));
            group.bench_function(format!("{mss}{name}"), |bencher| {
                bencher.iter_custom(|rounds| {
                    let mut spent = Duration::ZERO;
                    for _ in 0..rounds {
                        let sealed = a.send_super(0, &header, &packet).datagrams;
                        spent += open(&mut b, &Train::group(&sealed), kinds);
                    }
                    spent
                });
            });
            assert_eq!(b.drops(), [], "every packet was opened");
        }
    }
    group.finish();
}

/// Two gateways whose path carries any size.
fn scene() -> (Gateway, Gateway) {
    let tunnel = Tunnel {
        path_mtu: u16::MAX,
        replay_window: 4096,
        ..Tunnel::default()
    };
    tunnel.build()
}

fn super_packet(mss: u16) -> (VnetHeader, Vec<u8>) {
    Packet::tcp(false, 1, 65_000).build_super(mss)
}

fn segments(packet: &[u8], mss: u16) -> usize {
    (packet.len() - 52).div_ceil(mss.into())
}

fn elements(count: usize) -> Throughput {
    Throughput::Elements(u64::try_from(count).expect("a few"))
}

fn seal(gateway: &mut Gateway, header: &VnetHeader, packet: &mut [u8]) {
    let (now, pipeline) = (gateway.now, &mut gateway.pipelines[0]);
    let mut outbound = pipeline.outbound(now, header, packet, &mut gateway.egress);
    while let Outbound::Full(rest) = outbound {
        gateway.egress.udp_v4.clear();
        outbound = pipeline.resume(now, rest, packet, &mut gateway.egress);
    }
}

/// Opens a burst and merges what comes out; returns how long that took.
fn open(gateway: &mut Gateway, trains: &[Train], kinds: MergeKinds) -> Duration {
    let mut arenas: Vec<_> = trains.iter().map(Train::bytes).collect();
    let mut scratch = MergeScratch::new();
    let mut sink = |header: &VnetHeader, pieces: &[IoSlice<'_>]| {
        black_box((header, pieces.len()));
    };
    let pipeline = &mut gateway.pipelines[0];
    let start = Instant::now();
    let mut merger = Merger::new(kinds, &mut scratch);
    for (train, bytes) in trains.iter().zip(&mut arenas) {
        let first = &train.datagrams[0];
        let received = Received {
            bytes,
            remote: SocketAddr::new(first.transmit.local, PORT),
            local: first.transmit.remote.ip(),
            tos: first.transmit.tos,
            segment_size: train.segment_size(),
        };
        let mut room = Default::default();
        pipeline.inbound_train(first.carrier, received, &mut room, |inner| {
            merger.push(inner, &mut sink);
        });
    }
    merger.finish(&mut sink);
    start.elapsed()
}

const NO_MERGE: MergeKinds = MergeKinds {
    tcp: false,
    udp: false,
};
const MERGE: MergeKinds = MergeKinds {
    tcp: true,
    udp: true,
};

criterion_group!(benches, outbound, outbound_super, inbound, inbound_train);
criterion_main!(benches);
