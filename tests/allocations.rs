//! The packet path does not allocate: not for good packets, not for bad ones.
#![allow(
    clippy::indexing_slicing,
    reason = "an index out of bounds fails the test, as it should"
)]

#[path = "dataplane/gateway.rs"]
mod gateway;
#[path = "dataplane/packets.rs"]
mod packets;

use allocation_counter::measure;
use gateway::{Gateway, Tunnel};
use lockgate::dataplane::Carrier;
use lockgate::io::burst::{Received, TransmitBurst};
use lockgate::wire::vnet::VnetHeader;
use packets::{syn, udp};

#[test]
fn the_counter_counts() {
    assert_eq!(measure(|| drop(Box::new(1))).count_total, 1);
}

#[test]
fn bursts_of_good_and_bad_packets_pass_without_a_single_allocation() {
    for (inner_v6, outer_v6) in [(false, false), (true, true)] {
        let tunnel = Tunnel {
            inner_v6,
            outer_v6,
            workers: 2,
            ..Tunnel::default()
        };
        let (mut a, mut b) = tunnel.build();
        let (src, dst) = (tunnel.host_a(1, 1), tunnel.host_b(1, 2));
        let packets = [
            udp(src, dst, &[1; 1400 - 48], true),
            udp(src, dst, &[2; 40], false),
            udp(src, dst, &[3; 1500], true),
            udp(src, dst, &[4; 3000], false),
            udp(src, tunnel.host_a(2, 2), &[5; 100], true),
            syn(src, dst, 1460),
            vec![0x45; 30],
        ];
        let mut buffer = vec![0; 65_536];
        // The first round may set up what the crypto provider keeps per thread.
        for round in 0..4 {
            let burst = packets.iter().cycle().take(64);
            let used = measure(|| {
                burst.for_each(|packet| round_trip(&mut a, &mut b, packet, &mut buffer));
            });
            assert!(
                round == 0 || used.count_total == 0,
                "{used:?} in round {round}"
            );
        }
        assert!(b.stats(0).inbound.packets > 100);
        assert!(!a.drops().is_empty());
    }
}

/// Sends a packet through both gateways, and each datagram also damaged, replayed and to the wrong
/// worker.
fn round_trip(a: &mut Gateway, b: &mut Gateway, packet: &[u8], buffer: &mut [u8]) {
    let inner = &mut buffer[..packet.len()];
    inner.copy_from_slice(packet);
    let plain = VnetHeader::default();
    let _ = a.pipelines[0].outbound(a.now, &plain, inner, &mut a.egress);
    a.pipelines[0].finish();
    for burst in [&mut a.egress.udp_v4, &mut a.egress.udp_v6] {
        arrive(b, burst, buffer);
        burst.clear();
    }
}

fn arrive(b: &mut Gateway, burst: &TransmitBurst, buffer: &mut [u8]) {
    for (transmit, bytes) in burst.iter() {
        for (worker, damaged) in [(0, true), (0, false), (0, false), (1, false)] {
            let bytes_in = &mut buffer[..bytes.len()];
            bytes_in.copy_from_slice(bytes);
            if damaged {
                bytes_in[12] ^= 1;
            }
            let received = Received {
                bytes: bytes_in,
                remote: transmit.remote,
                local: transmit.local,
                tos: transmit.tos,
                segment_size: None,
            };
            b.pipelines[worker].inbound(Carrier::Udp { port: 4500 }, received);
            b.pipelines[worker].finish();
        }
        while let Some(mut stray) = b.pipelines[0].next_stray() {
            b.pipelines[0].inbound_stray(&mut stray, |_| {});
            b.pipelines[0].recycle(stray);
        }
    }
}
