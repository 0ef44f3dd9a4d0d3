//! Sealing and opening one packet, per suite and size.

use std::hint::black_box;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use lockgate::crypto::packet::{PacketKey, encryption_key_len, integrity_key_len};
use lockgate::ipsec::{
    ChildId, EspEncap, EspPath, HeaderRules, InboundParams, InboundSa, Limits, OutboundParams,
    OutboundSa, Reqid, SaUsage, Selectors, Spi, WorkerId,
};
use lockgate::wire::proposal::{CipherSuite, EncryptionId, IntegrityId};
use lockgate::wire::selector::TrafficSelector;

/// Inner packets; the last is the longest that IPv4 has.
const SIZES: [usize; 5] = [64, 576, 1400, 8192, 65_535];

const SHA256: Option<IntegrityId> = Some(IntegrityId::HMAC_SHA2_256_128);
const SUITES: [(&str, CipherSuite); 7] = [
    ("aes128gcm16", suite(EncryptionId::AES_GCM_16, 128, None)),
    ("aes256gcm16", suite(EncryptionId::AES_GCM_16, 256, None)),
    (
        "aes256gcm16iiv",
        suite(EncryptionId::AES_GCM_16_IIV, 256, None),
    ),
    (
        "chacha20poly1305",
        suite(EncryptionId::CHACHA20_POLY1305, 0, None),
    ),
    ("aes128-sha256", suite(EncryptionId::AES_CBC, 128, SHA256)),
    ("aes256-sha256", suite(EncryptionId::AES_CBC, 256, SHA256)),
    ("null-sha256", suite(EncryptionId::NULL, 0, SHA256)),
];

const fn suite(
    encryption: EncryptionId,
    key_bits: u16,
    integrity: Option<IntegrityId>,
) -> CipherSuite {
    CipherSuite {
        encryption,
        key_bits,
        integrity,
    }
}

fn key(suite: CipherSuite) -> PacketKey {
    let encryption = vec![0x5a; encryption_key_len(&suite)];
    let integrity = vec![0xa5; integrity_key_len(&suite)];
    PacketKey::new(suite, &encryption, &integrity).expect("keys of the right length")
}

fn path() -> EspPath {
    let end = SocketAddr::new(IpAddr::from([192, 0, 2, 1]), 4500);
    EspPath {
        encap: EspEncap::Udp,
        local: end,
        remote: end,
    }
}

fn selectors() -> Arc<Selectors> {
    let net = "10.0.0.0/8".parse::<TrafficSelector>().expect("a selector");
    Arc::new(Selectors {
        local: vec![net],
        remote: vec![net],
    })
}

fn outbound(suite: CipherSuite) -> OutboundSa {
    OutboundSa::new(OutboundParams {
        spi: Spi::new(0x1234_5678).expect("not reserved"),
        child: ChildId(1),
        reqid: Reqid(1),
        owner: WorkerId(0),
        key: key(suite),
        esn: true,
        path: path(),
        selectors: selectors(),
        rules: HeaderRules::default(),
        limits: Limits::NONE,
        usage: Arc::new(SaUsage::default()),
        path_mtu: u16::MAX,
    })
}

fn inbound(suite: CipherSuite) -> InboundSa {
    InboundSa::new(InboundParams {
        spi: Spi::new(0x1234_5678).expect("not reserved"),
        child: ChildId(1),
        reqid: Reqid(1),
        owner: WorkerId(0),
        key: key(suite),
        esn: true,
        replay_window: 4096,
        path: path(),
        selectors: selectors(),
        rules: HeaderRules::default(),
        limits: Limits::NONE,
        usage: Arc::new(SaUsage::default()),
    })
}

/// A UDP packet of `size` bytes.
fn inner(size: usize) -> Vec<u8> {
    let total = u16::try_from(size).expect("an IPv4 packet").to_be_bytes();
    let mut packet = vec![0x45, 0, total[0], total[1], 0, 0, 0, 0, 64, 17, 0, 0];
    packet.extend([10, 1, 0, 1, 10, 2, 0, 1]);
    packet.resize(size, 0x42);
    packet
}

fn seal(c: &mut Criterion) {
    let mut group = c.benchmark_group("esp/seal");
    for (name, suite) in SUITES {
        for size in SIZES {
            let mut sa = outbound(suite);
            let packet = inner(size);
            let mut out = vec![0; sa.sealed_len(size)];
            group.throughput(Throughput::Bytes(size as u64));
            group.bench_function(BenchmarkId::new(name, size), |bencher| {
                bencher.iter(|| sa.seal(&[black_box(&packet)], &mut out));
            });
        }
    }
    group.finish();
}

/// Each packet is opened once, in order, as the replay window wants it.
fn open(c: &mut Criterion) {
    let mut group = c.benchmark_group("esp/open");
    for (name, suite) in SUITES {
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
            group.bench_function(BenchmarkId::new(name, size), |bencher| {
                let batch = BatchSize::NumIterations(64);
                bencher.iter_batched_ref(&mut next, |esp| opener.open(esp, 0).is_ok(), batch);
            });
        }
    }
    group.finish();
}

criterion_group!(benches, seal, open);
criterion_main!(benches);
