//! Sealing and opening one packet, per suite and size.

#[path = "../tests/esp/support.rs"]
#[allow(
    dead_code,
    clippy::indexing_slicing,
    reason = "shared with tests/esp.rs, which uses the rest"
)]
mod support;

use std::hint::black_box;

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use lockgate::ipsec::{InboundParams, InboundSa, OutboundParams, OutboundSa};

/// Inner packets; the last is the longest that IPv4 has.
const SIZES: [usize; 5] = [64, 576, 1400, 8192, 65_535];

const SUITES: [&str; 7] = [
    "aes128gcm16",
    "aes256gcm16",
    "aes256gcm16iiv",
    "chacha20poly1305",
    "aes128-sha256",
    "aes256-sha256",
    "null-sha256",
];

fn outbound(suite: &str) -> OutboundSa {
    OutboundSa::new(OutboundParams {
        esn: true,
        path_mtu: u16::MAX,
        ..support::outbound(support::key(support::suite(suite)))
    })
}

fn inbound(suite: &str) -> InboundSa {
    InboundSa::new(InboundParams {
        esn: true,
        replay_window: 4096,
        ..support::inbound(support::key(support::suite(suite)))
    })
}

/// A UDP packet of `size` bytes.
fn inner(size: usize) -> Vec<u8> {
    support::udp_v4(size - 28)
}

fn seal(c: &mut Criterion) {
    let mut group = c.benchmark_group("esp/seal");
    for suite in SUITES {
        for size in SIZES {
            let mut sa = outbound(suite);
            let packet = inner(size);
            let mut out = vec![0; sa.sealed_len(size)];
            group.throughput(Throughput::Bytes(size as u64));
            group.bench_function(BenchmarkId::new(suite, size), |bencher| {
                bencher.iter(|| sa.seal(&[black_box(&packet)], &mut out));
            });
        }
    }
    group.finish();
}

/// Each packet is opened once, in order, as the replay window wants it.
fn open(c: &mut Criterion) {
    let mut group = c.benchmark_group("esp/open");
    for suite in SUITES {
        for size in SIZES {
            let mut sealer = outbound(suite);
            let mut opener = inbound(suite);
            let packet = inner(size);
            let mut next = || {
                let mut esp = vec![0; sealer.sealed_len(size)];
                sealer.seal(&[&packet], &mut esp).expect("sealed");
                esp
            };
            group.throughput(Throughput::Bytes(size as u64));
            group.bench_function(BenchmarkId::new(suite, size), |bencher| {
                let batch = BatchSize::NumIterations(64);
                bencher.iter_batched_ref(&mut next, |esp| opener.open(esp, 0).is_ok(), batch);
            });
        }
    }
    group.finish();
}

criterion_group!(benches, seal, open);
criterion_main!(benches);
