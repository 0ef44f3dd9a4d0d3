//! Trains from the network, as UDP GRO delivers them.

use lockgate::io::offload::MergeKinds;
use lockgate::ipsec::{DropReason, SaEvent};
use lockgate::wire::vnet::VnetHeader;

use crate::gateway::{Datagram, Gateway, Train, Tunnel};
use crate::offload::packets::{Packet, put};
use crate::packets::{offered_mss, syn, udp};
use crate::supers::{MERGE_ALL, flatten, tunnel};

/// Sealed packets of a TCP flow, each with the inner packet.
fn flow(gateway: &mut Gateway, sequence: u32, count: usize) -> (Vec<Datagram>, Vec<Vec<u8>>) {
    let first = Packet::tcp(false, sequence, 1000);
    let packets = std::iter::successors(Some(first), |packet| Some(packet.next(1000)));
    let packets: Vec<_> = packets.take(count).map(|packet| packet.build()).collect();
    let sealed = packets
        .iter()
        .flat_map(|packet| gateway.send(packet).datagrams);
    (sealed.collect(), packets)
}

fn whole(datagrams: &[Datagram]) -> Vec<Train> {
    vec![Train {
        datagrams: datagrams.to_vec(),
    }]
}

#[test]
fn a_train_of_two_sas_is_opened_packet_by_packet() {
    let tunnel = tunnel(false);
    let (mut a, mut b) = tunnel.build();
    let (old, mut expected) = flow(&mut a, 0, 6);
    tunnel.connect(&mut a, &mut b, 1);
    let (new, packets) = flow(&mut a, 6000, 6);
    expected.extend(packets);
    let train: Vec<_> = [&old[..3], &new[..2], &old[3..], &new[2..]].concat();
    let mut written = flatten(&b.receive_burst(0, &whole(&train), MERGE_ALL));
    assert!(b.drops().is_empty());
    written.sort_by_key(|packet| packet[24..28].to_vec());
    assert_eq!(written, expected);
}

#[test]
fn a_damaged_packet_in_the_middle_of_a_train_is_the_only_one_lost() {
    let (mut a, mut b) = tunnel(false).build();
    let (mut datagrams, mut packets) = flow(&mut a, 0, 20);
    datagrams[9].bytes[500] ^= 0x10;
    packets.remove(9);
    let written = b.receive_burst(0, &whole(&datagrams), MERGE_ALL);
    assert_eq!(flatten(&written), packets);
    assert_eq!(b.drops(), [DropReason::IntegrityFailed]);
    assert_eq!(b.stats(0).inbound.packets, 19);
}

#[test]
fn a_ragged_tail_is_judged_by_itself() {
    let tails: [(&[u8], &[DropReason]); 5] = [
        (&[0xff], &[DropReason::Keepalive]),
        (&[1, 2, 3], &[DropReason::OuterMalformed]),
        (&[0, 0, 0, 0, 9, 9], &[]),
        (&[0, 0, 1, 0], &[DropReason::EspMalformed]),
        (&[9, 9, 9, 9, 0, 0, 0, 1, 7], &[DropReason::UnknownSpi]),
    ];
    for (tail, drops) in tails {
        let (mut a, mut b) = tunnel(false).build();
        let (mut datagrams, packets) = flow(&mut a, 0, 5);
        let mut last = datagrams[0].clone();
        last.bytes = tail.to_vec();
        datagrams.push(last);
        let written = b.receive_burst(0, &whole(&datagrams), MERGE_ALL);
        assert_eq!(flatten(&written), packets);
        assert_eq!(b.drops(), drops, "{tail:?}");
        let punted = b.events();
        let is_punted =
            matches!(punted.as_slice(), [SaEvent::Punted { bytes, .. }] if **bytes == [9, 9]);
        assert_eq!(is_punted, drops.is_empty());
    }
}

#[test]
fn a_cut_last_packet_of_the_same_sa_is_the_only_one_lost() {
    for cut in [1, 7, 8, 20, 40, 900] {
        let (mut a, mut b) = tunnel(false).build();
        let (mut datagrams, mut packets) = flow(&mut a, 0, 5);
        datagrams[4].bytes.truncate(cut);
        packets.pop();
        let written = b.receive_burst(0, &whole(&datagrams), MERGE_ALL);
        assert_eq!(flatten(&written), packets);
        assert_eq!(b.drops().len(), 1, "{cut}");
    }
}

#[test]
fn a_wrong_inner_checksum_is_still_wrong_after_the_tunnel() {
    let (mut a, mut b) = tunnel(false).build();
    let first = Packet::tcp(false, 0, 1000);
    let packets = std::iter::successors(Some(first), |packet| Some(packet.next(1000)));
    let mut packets: Vec<_> = packets.take(12).map(|packet| packet.build()).collect();
    put(&mut packets[0], 36, 0xdead);
    packets[5][600] ^= 1;
    packets[6][700] ^= 0x80;
    let sealed: Vec<_> = packets
        .iter()
        .flat_map(|packet| a.send(packet).datagrams)
        .collect();
    let written = b.receive_burst(0, &whole(&sealed), MERGE_ALL);
    assert_eq!(flatten(&written), packets);
    let alone = |packet: &Vec<u8>| {
        let plain = (VnetHeader::default(), packet.clone());
        written.contains(&plain)
    };
    assert!(alone(&packets[0]) && alone(&packets[5]) && alone(&packets[6]));
    assert!(written.len() < packets.len(), "the good ones are merged");
}

#[test]
fn a_train_in_which_every_packet_is_replayed_delivers_nothing() {
    let (mut a, mut b) = tunnel(false).build();
    let (datagrams, packets) = flow(&mut a, 0, 30);
    let trains = Train::group(&datagrams);
    assert_eq!(flatten(&b.receive_burst(0, &trains, MERGE_ALL)), packets);
    assert!(b.receive_burst(0, &trains, MERGE_ALL).is_empty());
    assert_eq!(b.drops(), [DropReason::Replayed; 30]);
}

#[test]
fn an_mss_is_clamped_in_the_middle_of_a_train() {
    let tunnel = Tunnel::default();
    let (_, mut b) = tunnel.build();
    let (here, there) = (tunnel.host_a(1, 1), tunnel.host_b(1, 2));
    // The sender's own tunnel would clamp it, so the SYN comes from one with a wide path.
    let wide = Tunnel {
        path_mtu: 9000,
        ..tunnel.clone()
    };
    let (mut far, _) = wide.build();
    let syn = syn(here, there, 8000);
    let filler = udp(here, there, &vec![1; syn.len() - 28], true);
    let train: Vec<_> = [&filler, &syn, &filler]
        .into_iter()
        .flat_map(|packet| far.send(packet).datagrams)
        .collect();
    let written = flatten(&b.receive_burst(0, &whole(&train), MergeKinds::default()));
    let (syns, others): (Vec<_>, Vec<_>) = written.into_iter().partition(|packet| packet[9] == 6);
    assert_eq!(syns.len(), 1);
    assert_eq!(offered_mss(&syns[0]), 1438 - 40);
    assert_eq!(others, [filler.clone(), filler]);
}
