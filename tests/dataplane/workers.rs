//! Packets that reach a worker which does not own their SA.

use std::time::Duration;

use lockgate::ipsec::{DropReason, SaEvent, WorkerId};

use crate::gateway::Tunnel;
use crate::packets::udp;

fn tunnel() -> Tunnel {
    Tunnel {
        workers: 3,
        owner: 1,
        ..Tunnel::default()
    }
}

#[test]
fn a_packet_is_sealed_by_the_owner_wherever_it_was_read() {
    let tunnel = tunnel();
    let (mut a, mut b) = tunnel.build();
    let mut sequence = 0;
    for worker in [0, 1, 2, 0, 1] {
        let packet = udp(tunnel.host_a(1, 1), tunnel.host_b(1, 2), &[7; 100], true);
        let mut sent = a.send_at(worker, &packet);
        if worker != 1 {
            assert!(sent.datagrams.is_empty());
            (sent, _) = a.take_over(1);
        }
        let datagram = &sent.datagrams[0];
        sequence += 1;
        assert_eq!(
            datagram.bytes[4..8],
            u32::to_be_bytes(sequence),
            "one counter"
        );
        assert_eq!(b.receive_at(1, datagram), Some(packet));
    }
    assert_eq!(a.stats(1).taken_over, 3);
    assert_eq!(a.stats(0).handed_off, 2);
    assert_eq!(a.stats(1).outbound.packets, 5);
}

#[test]
fn a_packet_is_opened_by_the_owner_wherever_it_arrived() {
    let tunnel = tunnel();
    let (mut a, mut b) = tunnel.build();
    for worker in [0, 1, 2] {
        let packet = udp(tunnel.host_a(1, 1), tunnel.host_b(1, 2), &[7; 100], true);
        let datagram = a.send_at(1, &packet).datagrams.remove(0);
        let delivered = match b.receive_at(worker, &datagram) {
            None => b.take_over(1).1,
            Some(inner) => vec![inner],
        };
        assert_eq!(delivered, [packet]);
        assert!(b.receive_at(worker, &datagram).is_none());
        b.take_over(1);
    }
    assert_eq!(b.drops(), [DropReason::Replayed; 3]);
}

#[test]
fn what_is_to_be_opened_does_not_wait_behind_what_is_to_be_sealed() {
    let tunnel = tunnel();
    let (mut a, mut b) = tunnel.build();
    let there = udp(tunnel.host_a(1, 1), tunnel.host_b(1, 2), &[7; 100], true);
    let back = udp(tunnel.host_b(1, 2), tunnel.host_a(1, 1), &[8; 100], true);
    assert!(a.send_at(0, &there).datagrams.is_empty());
    let datagram = b.send_at(1, &back).datagrams.remove(0);
    assert!(a.receive_at(0, &datagram).is_none());
    let mut stray = a.pipelines[1].next_inbound_stray().expect("given");
    let mut opened = Vec::new();
    a.pipelines[1].inbound_stray(&mut stray, &mut Default::default(), |inner| {
        opened.push(inner.to_vec());
    });
    a.pipelines[1].recycle(stray);
    assert_eq!(opened, [back]);
    assert_eq!(a.take_over(1).0.datagrams.len(), 1);
}

#[test]
fn a_full_ring_drops_and_recovers_when_the_owner_catches_up() {
    let tunnel = tunnel();
    let (mut a, _) = tunnel.build();
    let packet = udp(tunnel.host_a(1, 1), tunnel.host_b(1, 2), &[7; 100], true);
    for _ in 0..1000 {
        a.send_at(0, &packet);
    }
    let lost = a.dropped(DropReason::HandOffFull);
    assert!(lost > 0);
    let mut sealed = 0;
    while let Some(datagram) = a.take_over(1).0.datagrams.pop() {
        drop(datagram);
        sealed += 1;
    }
    assert_eq!(sealed + lost, 1000);
    a.send_at(0, &packet);
    assert_eq!(a.take_over(1).0.datagrams.len(), 1);
}

#[test]
fn a_packet_on_its_way_to_the_owner_survives_a_rekey_that_changes_the_owner() {
    let tunnel = tunnel();
    let (mut a, mut b) = tunnel.build();
    let packet = udp(tunnel.host_a(1, 1), tunnel.host_b(1, 2), &[7; 100], true);
    assert!(a.send_at(0, &packet).datagrams.is_empty());

    let successor = Tunnel { owner: 2, ..tunnel };
    successor.connect(&mut a, &mut b, 1);
    let sent = a.take_over(1).0;
    assert_eq!(b.receive_at(1, &sent.datagrams[0]), Some(packet.clone()));
    assert_eq!(a.send_at(2, &packet).datagrams.len(), 1, "the new owner");
}

#[test]
fn a_packet_is_handed_on_once_and_never_in_circles() {
    let tunnel = tunnel();
    let (mut a, _) = tunnel.build();
    // Worker 1 is named as the owner of every SPI that leaves remainder 1, and has no such SA.
    let packet = udp(tunnel.host_a(1, 1), tunnel.host_b(1, 2), &[7; 100], true);
    let mut datagram = a.send_at(1, &packet).datagrams.remove(0);
    datagram.bytes[..4].copy_from_slice(&(3000_u32 * 3 + 1).to_be_bytes());
    assert!(a.receive_at(0, &datagram).is_none());
    assert!(a.take_over(1).1.is_empty());
    assert_eq!(a.drops(), [DropReason::UnknownSpi]);
    assert_eq!(a.stats(1).handed_off, 0);
}

/// RFC 9611: until it has an SA of its own, the worker hands over what it reads.
#[test]
fn a_worker_that_hands_packets_over_asks_for_an_sa_of_its_own_if_the_peer_allows_it() {
    for per_worker in [false, true] {
        let tunnel = Tunnel {
            per_worker,
            ..tunnel()
        };
        let (mut a, mut b) = tunnel.build();
        let packet = udp(tunnel.host_a(1, 1), tunnel.host_b(1, 2), &[7; 100], true);
        for _ in 0..10 {
            a.send_at(0, &packet);
        }
        let events = a.events();
        let asks = |event: &SaEvent| {
            matches!(
                event,
                SaEvent::Acquire {
                    worker: Some(WorkerId(0)),
                    ..
                }
            )
        };
        assert!(events.iter().all(asks));
        assert_eq!(events.len(), usize::from(per_worker), "once");
        a.now += Duration::from_secs(2);
        a.send_at(0, &packet);
        assert_eq!(a.events().len(), usize::from(per_worker), "and again");
        assert_eq!(a.stats(0).handed_off, 11);

        let own = Tunnel { owner: 0, ..tunnel };
        while !a.take_over(1).0.datagrams.is_empty() {} // what was handed over goes first
        own.connect(&mut a, &mut b, 1);
        assert_eq!(a.send_at(0, &packet).datagrams.len(), 1);
        a.now += Duration::from_secs(2);
        a.send_at(0, &packet);
        assert!(a.events().is_empty());
    }
}
