//! Any mix of super-packets and plain packets, against handling them one by one.

use std::collections::BTreeMap;

use lockgate::io::offload::MergeKinds;
use lockgate::wire::vnet::VnetHeader;
use proptest::prelude::*;

use crate::gateway::Train;
use crate::offload::packets::{ACK, CWR, ECE, PSH, Packet};
use crate::offload::reference;
use crate::supers::{flatten, tunnel};

/// One read from the TUN.
#[derive(Clone, Debug)]
struct Read {
    flow: u8,
    is_tcp: bool,
    payload: usize,
    gso_size: Option<u16>,
    tos: u8,
    flags: u8,
    dont_fragment: bool,
    damaged: bool,
}

fn reads() -> impl Strategy<Value = Vec<Read>> {
    let flags = prop_oneof![4 => Just(ACK), 1 => Just(ACK | PSH), 1 => Just(ACK | CWR | ECE)];
    let gso_size = prop_oneof![1 => Just(None), 2 => (1_u16..1360).prop_map(Some)];
    let read = (
        0_u8..3,
        any::<bool>(),
        0_usize..20_000,
        gso_size,
        0_u8..4,
        flags,
        any::<bool>(),
        0_u8..8,
    );
    let read = read.prop_map(
        |(flow, is_tcp, payload, gso_size, tos, flags, dont_fragment, damaged)| Read {
            flow,
            is_tcp,
            payload: match gso_size {
                Some(size) => payload.min(usize::from(size) * 64),
                None => payload % 1300,
            },
            gso_size,
            tos,
            flags,
            dont_fragment,
            damaged: damaged == 0,
        },
    );
    prop::collection::vec(read, 1..20)
}

/// The reads as the TUN gives them, each flow with its sequence numbers, and each packet with an
/// identification of its own: where all have the same, merging may renumber them.
fn build(reads: &[Read], ipv6: bool) -> Vec<(VnetHeader, Vec<u8>)> {
    let mut sequences = [1_u32; 3];
    let mut id = 1_u16;
    let mut built = Vec::new();
    for read in reads {
        let sequence = &mut sequences[usize::from(read.flow)];
        let packet = if read.is_tcp {
            let packet = Packet::tcp(ipv6, *sequence, read.payload);
            *sequence += u32::try_from(read.payload).expect("a packet");
            packet.with(|packet| packet.tcp_mut().flags = read.flags)
        } else {
            Packet::udp(ipv6, read.payload)
        };
        let packet = packet.with(|packet| {
            packet.host = 10 + read.flow;
            packet.tos = read.tos;
            packet.id = id;
            packet.dont_fragment = read.dont_fragment;
        });
        let (header, mut bytes) = match read.gso_size {
            Some(size) if read.payload > 0 => packet.build_super(size),
            _ => (VnetHeader::default(), packet.build()),
        };
        if read.damaged && header == VnetHeader::default() {
            *bytes.last_mut().expect("not empty") ^= 0x40;
        }
        let packets = read.payload / usize::from(read.gso_size.unwrap_or(u16::MAX)) + 1;
        id = id.wrapping_add(u16::try_from(packets).expect("a few"));
        built.push((header, bytes));
    }
    built
}

/// The packets of each flow in order.
fn by_flow(packets: Vec<Vec<u8>>, ipv6: bool) -> BTreeMap<Vec<u8>, Vec<Vec<u8>>> {
    let mut flows: BTreeMap<Vec<u8>, Vec<Vec<u8>>> = BTreeMap::new();
    for packet in packets {
        let (addresses, protocol) = if ipv6 {
            (&packet[8..40], packet[6])
        } else {
            (&packet[12..20], packet[9])
        };
        let key = [addresses, &[protocol]].concat();
        flows.entry(key).or_default().push(packet);
    }
    flows
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 64,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]
    #[test]
    fn every_flow_arrives_as_if_each_packet_went_alone(
        reads in reads(),
        ipv6 in any::<bool>(),
        as_trains in any::<bool>(),
        tcp in any::<bool>(),
        udp in any::<bool>(),
    ) {
        let (mut a, mut b) = tunnel(ipv6).build();
        let mut expected = Vec::new();
        let mut datagrams = Vec::new();
        for (header, bytes) in build(&reads, ipv6) {
            expected.extend(reference::split(&header, &bytes).expect("well formed"));
            let sent = a.send_super(0, &header, &bytes);
            prop_assert!(sent.replies.is_empty());
            datagrams.extend(sent.datagrams);
        }
        prop_assert_eq!(datagrams.len(), expected.len());
        let trains = if as_trains { Train::group(&datagrams) } else { Train::singles(&datagrams) };
        let mut written = Vec::new();
        for burst in trains.chunks(7) {
            written.extend(b.receive_burst(0, burst, MergeKinds { tcp, udp }));
        }
        prop_assert!(b.drops().is_empty());
        let arrived = by_flow(flatten(&written), ipv6);
        prop_assert!(arrived == by_flow(expected, ipv6));
    }
}
