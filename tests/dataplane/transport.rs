//! Transport mode between the gateways themselves, over IPv6: what is opened does not fit where it arrived.

use std::net::SocketAddr;

use lockgate::ipsec::{DropReason, EspEncap};

use crate::gateway::{Datagram, Train, Tunnel};
use crate::packets::udp;
use crate::supers::{MERGE_ALL, flatten};

fn transport(encap: EspEncap) -> Tunnel {
    Tunnel {
        inner_v6: true,
        outer_v6: true,
        encap,
        sites_v6: ["2001:db8:1::a/128", "2001:db8:2::b/128"],
        transport: true,
        ..Tunnel::default()
    }
}

/// A packet of the first gateway to the second.
fn packet(port: u16, payload: &[u8]) -> Vec<u8> {
    let address = |text: &str| text.parse().expect("literal");
    let source = SocketAddr::new(address("2001:db8:1::a"), port);
    let destination = SocketAddr::new(address("2001:db8:2::b"), 53);
    udp(source, destination, payload, true)
}

/// As many packets of each length as a train holds, the shortest first.
#[test]
fn every_packet_of_a_train_comes_out_whole() {
    for length in [0, 1, 2, 3, 4, 500, 900] {
        let (mut a, mut b) = transport(EspEncap::Udp).build();
        let packets: Vec<_> = (0..64)
            .map(|number: u8| packet(u16::from(number), &vec![number; length]))
            .collect();
        let sealed = packets.iter().flat_map(|packet| a.send(packet).datagrams);
        let sealed: Vec<Datagram> = sealed.collect();
        let trains = Train::group(&sealed);
        assert_eq!((sealed.len(), trains.len()), (64, 1));
        let written = b.receive_burst(0, &trains, MERGE_ALL);
        assert_eq!(flatten(&written), packets, "{length}");
        assert!(b.drops().is_empty());
    }
}

#[test]
fn packets_without_udp_and_packets_that_another_worker_has_received_come_out_whole() {
    let tunnel = Tunnel {
        workers: 2,
        owner: 1,
        ..transport(EspEncap::None)
    };
    let (mut a, mut b) = tunnel.build();
    for length in [0, 1, 700] {
        let packet = packet(7, &vec![9; length]);
        let sealed = a.send_at(1, &packet).datagrams;
        assert_eq!(sealed.len(), 1);
        assert_eq!(b.receive_at(0, &sealed[0]), None);
        assert_eq!(b.take_over(1).1, [packet]);
    }
    assert!(b.drops().is_empty());
}

#[test]
fn a_damaged_packet_and_one_that_comes_again_take_no_other_one_along() {
    let (mut a, mut b) = transport(EspEncap::Udp).build();
    let mut packets: Vec<_> = (0..9).map(|number| packet(5, &[number; 30])).collect();
    let sealed = packets.iter().flat_map(|packet| a.send(packet).datagrams);
    let mut sealed: Vec<Datagram> = sealed.collect();
    sealed[3].bytes[30] ^= 1;
    sealed.push(sealed[5].clone());
    packets.remove(3);
    let written = b.receive_burst(0, &Train::group(&sealed), MERGE_ALL);
    assert_eq!(flatten(&written), packets);
    let drops = [DropReason::Replayed, DropReason::IntegrityFailed];
    assert_eq!(b.drops(), drops);
}

/// IPv6 packets of up to 1280 bytes are never refused; the outer packet is fragmented instead (RFC 8200 §5).
#[test]
fn what_the_path_does_not_carry_is_told_to_the_sender() {
    let tunnel = transport(EspEncap::Udp);
    let (mut a, mut b) = tunnel.build();
    let fits = packet(1, &[0; 1380]);
    let sent = a.send(&fits);
    assert_eq!(b.receive(&sent.datagrams[0]), Some(fits));
    assert!(sent.datagrams[0].bytes.len() + 48 <= 1500);
    let sent = a.send(&packet(1, &[0; 1420]));
    assert_eq!((sent.datagrams.len(), sent.replies.len()), (0, 1));
    assert_eq!(sent.replies[0][40], 2, "packet too big");
}
