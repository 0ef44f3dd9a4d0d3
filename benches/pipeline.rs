//! One core's packet path without sockets: a burst from the TUN to sealed datagrams and back.
#![allow(
    clippy::indexing_slicing,
    reason = "an index out of bounds ends the benchmark, as it should"
)]

#[path = "../tests/dataplane/gateway.rs"]
mod gateway;
#[path = "../tests/dataplane/packets.rs"]
mod packets;

use std::hint::black_box;
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use gateway::{Gateway, Tunnel};
use lockgate::dataplane::Carrier;
use lockgate::io::burst::Received;
use lockgate::wire::vnet::VnetHeader;
use packets::udp;

const BURST: u64 = 64;
/// Inner packets; the last is a super-packet.
const SIZES: [u16; 4] = [64, 576, 1400, 65_000];

fn outbound(c: &mut Criterion) {
    let mut group = c.benchmark_group("outbound");
    for size in SIZES {
        let (mut a, _, packet) = scene(size);
        let mut buffer = packet.clone();
        group.throughput(Throughput::Elements(BURST));
        group.bench_function(BenchmarkId::from_parameter(size), |bencher| {
            bencher.iter(|| {
                for _ in 0..BURST {
                    seal(&mut a, black_box(&mut buffer));
                }
                a.egress.udp_v4.clear();
            });
        });
    }
    group.finish();
}

fn inbound(c: &mut Criterion) {
    let mut group = c.benchmark_group("inbound");
    for size in SIZES {
        let (mut a, mut b, packet) = scene(size);
        group.throughput(Throughput::Elements(BURST));
        group.bench_function(BenchmarkId::from_parameter(size), |bencher| {
            // A packet opens once, so each burst is sealed first, outside the measured time.
            bencher.iter_custom(|rounds| {
                let mut spent = Duration::ZERO;
                let mut buffer = packet.clone();
                for _ in 0..rounds {
                    let mut sealed = Vec::new();
                    for _ in 0..BURST {
                        seal(&mut a, &mut buffer);
                        let burst = &mut a.egress.udp_v4;
                        sealed.extend(burst.iter().map(|(meta, bytes)| (meta, bytes.to_vec())));
                        burst.clear();
                    }
                    let start = Instant::now();
                    for (transmit, bytes) in &mut sealed {
                        let received = Received {
                            bytes,
                            remote: transmit.remote,
                            local: transmit.local,
                            tos: transmit.tos,
                            segment_size: None,
                        };
                        black_box(b.pipelines[0].inbound(Carrier::Udp { port: 4500 }, received));
                    }
                    spent += start.elapsed();
                }
                spent
            });
        });
        assert_eq!(b.drops(), [], "every packet was opened");
    }
    group.finish();
}

/// Two gateways whose path carries any size, and a packet between their hosts.
fn scene(size: u16) -> (Gateway, Gateway, Vec<u8>) {
    let tunnel = Tunnel {
        path_mtu: u16::MAX,
        replay_window: 4096,
        ..Tunnel::default()
    };
    let (a, b) = tunnel.build();
    let payload = vec![0xa5; usize::from(size) - 28];
    let packet = udp(tunnel.host_a(1, 1), tunnel.host_b(1, 2), &payload, true);
    (a, b, packet)
}

fn seal(gateway: &mut Gateway, packet: &mut [u8]) {
    if !gateway.egress.has_room() {
        gateway.egress.udp_v4.clear();
    }
    let plain = VnetHeader::default();
    let _ = gateway.pipelines[0].outbound(gateway.now, &plain, packet, &mut gateway.egress);
}

criterion_group!(benches, outbound, inbound);
criterion_main!(benches);
