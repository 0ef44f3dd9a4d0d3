//! What super-packets cost in userspace: checksums, splitting and merging, without system calls.

use std::hint::black_box;
use std::io::IoSlice;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use lockgate::io::offload::{MergeKinds, MergeScratch, Merger, TunPacket, checksum};
use lockgate::wire::ip;
use lockgate::wire::vnet::VnetHeader;

#[path = "../tests/offload/packets.rs"]
mod packets;

use packets::Packet;

const MSS: u16 = 1348;
const SEGMENTS: usize = 46;

fn checksums(c: &mut Criterion) {
    let mut group = c.benchmark_group("checksum");
    let bytes = packets::pattern(65_536);
    for size in [20, 64, 200, 1400, 65_536] {
        let bytes = bytes.get(..size).unwrap_or_default();
        group.throughput(Throughput::Bytes(u64::try_from(size).unwrap_or(0)));
        group.bench_function(format!("baseline/{size}"), |bencher| {
            bencher.iter(|| ip::checksum::sum(0, black_box(bytes)));
        });
        group.bench_function(format!("widest/{size}"), |bencher| {
            bencher.iter(|| checksum::sum(0, black_box(bytes)));
        });
    }
    group.finish();
}

/// Every segment of a full super-packet, with its checksum.
fn split(c: &mut Criterion) {
    let mut group = c.benchmark_group("split");
    group.throughput(Throughput::Elements(u64::try_from(SEGMENTS).unwrap_or(0)));
    let payload = SEGMENTS * usize::from(MSS);
    let small = SEGMENTS * 16;
    for (name, packet, mss) in [
        ("tcp-v4/1348", Packet::tcp(false, 1, payload), MSS),
        ("tcp-v6/1348", Packet::tcp(true, 1, payload), MSS),
        ("udp-v4/1348", Packet::udp(false, payload), MSS),
        // Hardly anything to sum: what remains is the cost of a header.
        ("tcp-v4/16", Packet::tcp(false, 1, small), 16),
        ("udp-v4/16", Packet::udp(false, small), 16),
    ] {
        let (header, bytes) = packet.build_super(mss);
        group.bench_function(name, |bencher| {
            bencher.iter_batched_ref(
                || bytes.clone(),
                |bytes| {
                    let mut total = 0;
                    if let Ok(mut packet) = TunPacket::parse(&header, bytes) {
                        while let Some(segment) = packet.next_segment() {
                            total += black_box(segment).len();
                        }
                    }
                    total
                },
                BatchSize::SmallInput,
            );
        });
    }
    group.finish();
}

/// One receive burst, pushed and emitted.
fn merge(c: &mut Criterion) {
    let mut group = c.benchmark_group("merge");
    group.throughput(Throughput::Elements(u64::try_from(SEGMENTS).unwrap_or(0)));
    let tcp = |payload| run(Packet::tcp(false, 1, payload));
    let alone: Vec<Vec<u8>> = tcp(1348)
        .into_iter()
        .map(|mut packet| {
            packet.truncate(60); // no length fits: nothing to merge
            packet
        })
        .collect();
    let flows =
        (0..4).map(|host| run(Packet::tcp(false, 1, 1348).with(|packet| packet.host = host)));
    let flows: Vec<Vec<Vec<u8>>> = flows.collect();
    let interleaved = (0..SEGMENTS).filter_map(|at| flows.get(at % 4)?.get(at / 4).cloned());
    for (name, burst) in [
        ("tcp-v4/1348", tcp(1348)),
        ("tcp-v6/1348", run(Packet::tcp(true, 1, 1348))),
        ("udp-v4/1348", run(Packet::udp(false, 1348))),
        ("tcp-v4/4-flows", interleaved.collect()),
        ("tcp-v4/16", tcp(16)),
        ("udp-v4/16", run(Packet::udp(false, 16))),
        ("nothing-to-merge", alone),
    ] {
        let mut scratch = MergeScratch::new();
        let kinds = MergeKinds {
            tcp: true,
            udp: true,
        };
        let mut sink = |header: &VnetHeader, pieces: &[IoSlice<'_>]| {
            black_box((header, pieces));
        };
        group.bench_function(name, |bencher| {
            bencher.iter_batched_ref(
                || burst.clone(),
                |burst| {
                    let mut merger = Merger::new(kinds, &mut scratch);
                    for packet in burst {
                        merger.push(packet, &mut sink);
                    }
                    merger.finish(&mut sink);
                },
                BatchSize::SmallInput,
            );
        });
    }
    group.finish();
}

fn run(first: Packet) -> Vec<Vec<u8>> {
    let payload = first.payload.len();
    let packets = std::iter::successors(Some(first), |packet| Some(packet.next(payload)));
    packets
        .take(SEGMENTS)
        .map(|packet| packet.build())
        .collect()
}

criterion_group!(benches, checksums, split, merge);
criterion_main!(benches);
