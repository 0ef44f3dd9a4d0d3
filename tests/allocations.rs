//! The packet path does not allocate: not for good packets, not for bad ones, not for super-packets,
//! trains, merging and handing over. A handshake does, within bounds.
#![allow(
    clippy::indexing_slicing,
    reason = "an index out of bounds fails the test, as it should"
)]

#[path = "dataplane/gateway.rs"]
mod gateway;
#[path = "dataplane/packets.rs"]
mod packets;

#[path = "ike/config.rs"]
#[allow(
    dead_code,
    clippy::unwrap_used,
    reason = "shared with tests/ike.rs, which uses the rest"
)]
mod config;
#[path = "ike/converse.rs"]
mod converse;
#[path = "offload/packets.rs"]
mod offload;

use std::io::IoSlice;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use allocation_counter::measure;
use config::Side;
use converse::{converse, endpoint};
use gateway::{Gateway, PORT, Tunnel, policy};
use lockgate::dataplane::{Carrier, Outbound};
use lockgate::ike::Command;
use lockgate::io::burst::{Received, TransmitBurst};
use lockgate::io::offload::{MergeKinds, MergeScratch, Merger};
use lockgate::ipsec::{Action, DropReason, Mode, Reqid, Spd, Template};
use lockgate::wire::selector::TrafficSelector;
use lockgate::wire::vnet::VnetHeader;
use offload::Packet;
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
            sites_v6: ["fd00:1::/32", "fd00:2::/32"],
            ..Tunnel::default()
        };
        let (mut a, mut b) = tunnel.build();
        let [src, dst] = hosts(inner_v6);
        let plain = [
            udp(src, dst, &[1; 1400 - 48], true),
            udp(src, dst, &[2; 40], false),
            udp(src, dst, &[3; 1500], true),
            udp(src, dst, &[4; 3000], false),
            udp(src, SocketAddr::new(src.ip(), 9), &[5; 100], true),
            syn(src, dst, 1460),
            vec![0x45; 30],
        ];
        let mut reads: Vec<_> = plain
            .map(|packet| (VnetHeader::default(), packet))
            .into_iter()
            .collect();
        let tcp = Packet::tcp(inner_v6, 1, 60_000);
        let wide = tcp.with(|packet| packet.dont_fragment = false);
        for (packet, gso_size) in [(&tcp, 1300), (&tcp, 20), (&tcp, 1500), (&wide, 3000)] {
            reads.push(packet.build_super(gso_size));
        }
        reads.push(Packet::udp(inner_v6, 20_000).build_super(1200));

        let mut scene = Scene {
            buffer: vec![0; 65_536],
            train: vec![0; 65_536],
            scratch: MergeScratch::new(),
        };
        // The first round may set up what the crypto provider keeps per thread.
        for round in 0..4 {
            let burst = reads.iter().cycle().take(48);
            let used = measure(|| {
                burst.for_each(|(header, packet)| scene.pass(&mut a, &mut b, header, packet));
            });
            assert!(
                round == 0 || used.count_total == 0,
                "{used:?} in round {round}"
            );
        }
        assert!(b.stats(0).inbound.packets > 1000);
        assert!(a.stats(1).handed_off > 100 && a.stats(0).taken_over > 100);
        assert!(b.stats(1).handed_off > 100 && b.stats(0).taken_over > 100);
        assert!(!a.drops().is_empty());
    }
}

#[test]
fn packets_that_find_no_sa_ask_for_one_without_a_single_allocation() {
    let policies = (0..3000_u32).map(|number| {
        let template = Template {
            reqid: Reqid(number),
            mode: Mode::Tunnel,
            trap: false,
        };
        let local = TrafficSelector::net("10.1.0.0/16".parse().expect("literal"));
        let remote = TrafficSelector::net(network(number).parse().expect("literal"));
        policy(local, remote, Action::Protect(template), 100)
    });
    let mut a = Gateway::new(1, Spd::new(policies.collect()));
    let source = "10.1.0.1:1".parse().expect("literal");
    let host = |number| network(number).replace("0/24", "1:9");
    let packet = |number| udp(source, host(number).parse().expect("literal"), &[1], true);
    let mut packets: Vec<_> = (0..3000).map(packet).collect();
    let used = measure(|| {
        for packet in &mut packets {
            let header = VnetHeader::default();
            let _ = a.pipelines[0].outbound(a.now, &header, packet, &mut a.egress);
        }
        a.pipelines[0].finish();
    });
    assert_eq!(used.count_total, 0, "{used:?}");
    assert_eq!(a.dropped(DropReason::NoOutboundSa), 3000);
}

#[test]
fn a_handshake_of_both_ends_takes_few_allocations() {
    let start = Instant::now();
    let mut ends = Side::BOTH.map(|side| endpoint(side, PROPOSAL, start));
    // The first turns fill tables that stay.
    for turn in 0..8 {
        let now = start + Duration::from_secs(turn);
        let child = Some("lan".into());
        let up = Command::Initiate { ike: None, child };
        let used = measure(|| {
            assert_eq!(converse(&mut ends, now, up), (2, 4));
        });
        let down = Command::Terminate {
            ike: Some("site".into()),
            child: None,
            ike_id: None,
            child_id: None,
            force: false,
        };
        assert_eq!(converse(&mut ends, now, down), (0, 2));
        assert!(turn == 0 || used.count_total <= HANDSHAKE, "{used:?}");
    }
}

const PROPOSAL: &str = "aes128gcm16-prfsha256-x25519";
/// What both ends together may allocate, the C of the key exchange not counted.
const HANDSHAKE: u64 = 250;

/// One of many networks.
fn network(number: u32) -> String {
    format!("10.{}.{}.0/24", 100 + number / 256, number % 256)
}

/// One host of each site, those of the splitter's packets.
fn hosts(ipv6: bool) -> [SocketAddr; 2] {
    let texts = if ipv6 {
        ["[fd00:1::a]:1", "[fd00:2::1]:2"]
    } else {
        ["10.1.0.10:1", "10.2.0.1:2"]
    };
    texts.map(|text| text.parse().expect("literal"))
}

/// The buffers between two gateways.
struct Scene {
    buffer: Vec<u8>,
    train: Vec<u8>,
    scratch: MergeScratch,
}

impl Scene {
    /// Sends what the TUN gave through both gateways, read by the owner of the SA and by another worker.
    fn pass(&mut self, a: &mut Gateway, b: &mut Gateway, header: &VnetHeader, packet: &[u8]) {
        for worker in [0, 1] {
            let read = &mut self.buffer[..packet.len()];
            read.copy_from_slice(packet);
            let mut outbound = a.pipelines[worker].outbound(a.now, header, read, &mut a.egress);
            while let Outbound::Full(rest) = outbound {
                deliver(b, &mut a.egress.udp_v4, &mut self.train, &mut self.scratch);
                deliver(b, &mut a.egress.udp_v6, &mut self.train, &mut self.scratch);
                outbound = a.pipelines[worker].resume(a.now, rest, read, &mut a.egress);
            }
            a.pipelines[worker].finish();
        }
        while let Some(mut stray) = a.pipelines[0].next_outbound_stray() {
            let (now, egress) = (a.now, &mut a.egress);
            let _ = a.pipelines[0].outbound_stray(now, &mut stray, 0, egress);
            a.pipelines[0].recycle(stray);
        }
        deliver(b, &mut a.egress.udp_v4, &mut self.train, &mut self.scratch);
        deliver(b, &mut a.egress.udp_v6, &mut self.train, &mut self.scratch);
    }
}

/// Every datagram arrives damaged, well, and again at the wrong worker, each time in a train of its
/// like.
fn deliver(
    b: &mut Gateway,
    burst: &mut TransmitBurst,
    train: &mut [u8],
    scratch: &mut MergeScratch,
) {
    for (worker, damaged) in [(0, true), (0, false), (1, false)] {
        let mut used = 0;
        let mut size = 0;
        let mut sent = None;
        for (transmit, bytes) in burst.iter() {
            if sent != Some(transmit) || bytes.len() != size || used + size > 60_000 {
                if let Some(transmit) = sent {
                    arrive(b, worker, &mut train[..used], transmit, size, scratch);
                }
                (used, size, sent) = (0, bytes.len(), Some(transmit));
            }
            train[used..used + size].copy_from_slice(bytes);
            if damaged {
                train[used + 12] ^= 1;
            }
            used += size;
        }
        if let Some(transmit) = sent {
            arrive(b, worker, &mut train[..used], transmit, size, scratch);
        }
    }
    burst.clear();
}

fn arrive(
    b: &mut Gateway,
    worker: usize,
    bytes: &mut [u8],
    transmit: lockgate::io::burst::Transmit,
    size: usize,
    scratch: &mut MergeScratch,
) {
    let received = Received {
        bytes,
        remote: SocketAddr::new(transmit.local, PORT),
        local: transmit.remote.ip(),
        tos: transmit.tos,
        segment_size: u16::try_from(size).ok(),
    };
    let kinds = MergeKinds {
        tcp: true,
        udp: true,
    };
    let mut sink = |_: &VnetHeader, pieces: &[IoSlice<'_>]| assert!(!pieces.is_empty());
    let mut merger = Merger::new(kinds, scratch);
    let carrier = Carrier::Udp { port: PORT };
    let pipeline = &mut b.pipelines[worker];
    let mut room = Default::default();
    pipeline.inbound_train(carrier, received, &mut room, |inner| {
        merger.push(inner, &mut sink);
    });
    merger.finish(&mut sink);
    pipeline.finish();
    while let Some(mut stray) = b.pipelines[0].next_inbound_stray() {
        let mut merger = Merger::new(kinds, scratch);
        let mut room = Default::default();
        b.pipelines[0].inbound_stray(&mut stray, &mut room, |inner| {
            merger.push(inner, &mut sink);
        });
        merger.finish(&mut sink);
        b.pipelines[0].recycle(stray);
    }
}
