//! Super-packets and trains that reach a worker which does not own their SA.

use lockgate::ipsec::DropReason;

use crate::gateway::{Train, Tunnel};
use crate::offload::packets::Packet;
use crate::offload::reference;
use crate::supers::{MERGE_ALL, flatten, tunnel};

fn owned_by_1() -> Tunnel {
    Tunnel {
        workers: 3,
        owner: 1,
        ..tunnel(false)
    }
}

#[test]
fn super_packets_and_packets_reach_their_owner_in_one_stray_and_in_order() {
    let (mut a, mut b) = owned_by_1().build();
    let mut packet = Packet::tcp(false, 0, 12_000);
    let mut expected = Vec::new();
    for round in 0..4 {
        let (header, bytes) = packet.build_super(1348);
        expected.extend(reference::split(&header, &bytes).expect("well formed"));
        let mut read = bytes.clone();
        let _ = a.pipelines[0].outbound(a.now, &header, &mut read, &mut a.egress);
        packet = packet.next(500);
        let mut plain = packet.build();
        expected.push(plain.clone());
        let header = Default::default();
        let _ = a.pipelines[0].outbound(a.now, &header, &mut plain, &mut a.egress);
        packet = packet.next(9000 + round);
    }
    assert!(a.egress.is_empty());
    a.pipelines[0].finish();

    let (sent, _) = a.take_over(1);
    assert!(a.take_over(1).0.datagrams.is_empty(), "it was one stray");
    let trains = Train::group(&sent.datagrams);
    assert_eq!(flatten(&b.receive_burst(1, &trains, MERGE_ALL)), expected);
    let packets = u64::try_from(expected.len()).expect("a few");
    assert_eq!(a.stats(0).handed_off, packets);
    assert_eq!(a.stats(1).taken_over, packets);
    assert!(a.drops().is_empty());
}

#[test]
fn runs_of_foreign_packets_in_a_train_go_to_their_owners_as_trains() {
    let first = owned_by_1();
    let second = Tunnel {
        owner: 2,
        ..first.clone()
    };
    let (mut a, mut b) = first.build();
    let seal = |a: &mut crate::gateway::Gateway, owner, sequence: u32| {
        let packet = Packet::tcp(false, sequence * 1000, 1000);
        let packet = packet.with(|packet| packet.id = u16::try_from(sequence).expect("a few"));
        let packet = packet.build();
        (a.send_at(owner, &packet).datagrams.remove(0), packet)
    };
    let of_1: Vec<_> = (0..5).map(|n| seal(&mut a, 1, n)).collect();
    second.connect(&mut a, &mut b, 1);
    let of_2: Vec<_> = (5..9).map(|n| seal(&mut a, 2, n)).collect();
    let order = [&of_1[..2], &of_2[..3], &of_1[2..], &of_2[3..]].concat();
    let datagrams = order.iter().map(|(datagram, _)| datagram.clone()).collect();
    let train = Train { datagrams };
    let inner = |of: &[(_, Vec<u8>)]| {
        of.iter()
            .map(|(_, packet)| packet.clone())
            .collect::<Vec<_>>()
    };

    let at_1 = flatten(&b.receive_burst(1, std::slice::from_ref(&train), MERGE_ALL));
    assert_eq!(at_1, inner(&of_1));
    assert_eq!(b.take_over(2).1, inner(&of_2), "one stray for the burst");
    assert_eq!(b.stats(2).taken_over, 4);

    assert!(b.receive_burst(0, &[train], MERGE_ALL).is_empty());
    assert!(b.take_over(1).1.is_empty() && b.take_over(2).1.is_empty());
    assert_eq!(b.drops(), [DropReason::Replayed; 9]);
}

#[test]
fn a_full_pool_drops_whole_super_packets_and_counts_their_segments() {
    let (mut a, _) = owned_by_1().build();
    let (header, bytes) = Packet::tcp(false, 0, 60_000).build_super(1348);
    let segments = reference::split(&header, &bytes)
        .expect("well formed")
        .len();
    for _ in 0..300 {
        a.send_super(0, &header, &bytes);
    }
    let lost = a.dropped(DropReason::HandOffFull);
    let given = a.stats(0).handed_off;
    let segments = u64::try_from(segments).expect("a few");
    assert_eq!(lost + given, 300 * segments);
    assert!(lost > 0 && given > 0 && lost % segments == 0);
    let mut sealed = 0;
    loop {
        let sent = a.take_over(1).0;
        if sent.datagrams.is_empty() {
            break;
        }
        sealed += u64::try_from(sent.datagrams.len()).expect("a few");
    }
    assert_eq!(sealed, given);
}

#[test]
fn a_super_packet_that_is_too_big_is_reported_by_the_owner() {
    let (mut a, _) = owned_by_1().build();
    let (header, bytes) = Packet::tcp(false, 0, 20_000).build_super(1420);
    assert!(a.send_super(0, &header, &bytes).replies.is_empty());
    let (sent, _) = a.take_over(1);
    assert_eq!(sent.replies.len(), 1);
    assert!(sent.datagrams.is_empty());
}
