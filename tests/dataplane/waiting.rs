//! Packets that wait for the SA they have asked for.

use std::time::Duration;

use lockgate::ipsec::{DropReason, SaEvent};

use crate::gateway::{Gateway, Tunnel};
use crate::packets::udp;

const TRAP: fn() -> Tunnel = || Tunnel {
    trap: true,
    ..Tunnel::default()
};

fn packet(tunnel: &Tunnel, number: u16) -> Vec<u8> {
    let payload = number.to_be_bytes();
    udp(
        tunnel.host_a(1, 9),
        tunnel.host_b(1, number),
        &payload,
        true,
    )
}

/// What a gateway's worker has waiting goes out, and arrives at the other gateway.
fn arrives(a: &mut Gateway, b: &mut Gateway, worker: usize) -> Vec<Vec<u8>> {
    let (sent, _) = a.take_over(worker);
    let received = sent.datagrams.iter().filter_map(|one| b.receive(one));
    received.collect()
}

fn acquires(a: &Gateway) -> usize {
    let events = a.events().into_iter();
    let is_acquire = |event: &SaEvent| matches!(event, SaEvent::Acquire { .. });
    events.filter(is_acquire).count()
}

#[test]
fn the_packets_that_ask_for_an_sa_go_through_it_in_order_when_it_is_there() {
    let tunnel = TRAP();
    let (mut a, mut b) = tunnel.without_sas();
    let packets: Vec<_> = (1..=5).map(|number| packet(&tunnel, number)).collect();
    for packet in &packets {
        assert!(a.send(packet).datagrams.is_empty());
    }
    assert_eq!(acquires(&a), 1);
    tunnel.connect(&mut a, &mut b, 0);
    assert_eq!(arrives(&mut a, &mut b, 0), packets);
    assert_eq!(a.drops(), []);
    let last = packet(&tunnel, 6);
    let sent = a.send(&last).datagrams;
    assert_eq!(b.receive(&sent[0]), Some(last));
}

#[test]
fn a_packet_that_comes_while_others_are_on_their_way_does_not_overtake_them() {
    let tunnel = TRAP();
    let (mut a, mut b) = tunnel.without_sas();
    a.send(&packet(&tunnel, 1));
    tunnel.connect(&mut a, &mut b, 0);
    assert!(a.send(&packet(&tunnel, 2)).datagrams.is_empty());
    let both = [packet(&tunnel, 1), packet(&tunnel, 2)];
    assert_eq!(arrives(&mut a, &mut b, 0), both);
}

#[test]
fn the_first_packets_stay_and_those_for_which_there_is_no_room_are_counted() {
    let tunnel = TRAP();
    let (mut a, mut b) = tunnel.without_sas();
    for number in 1..=100 {
        a.send(&packet(&tunnel, number));
    }
    assert_eq!(a.dropped(DropReason::NoOutboundSa), 36);
    tunnel.connect(&mut a, &mut b, 0);
    let arrived = arrives(&mut a, &mut b, 0);
    assert_eq!(arrived.len(), 64);
    assert_eq!(arrived[0], packet(&tunnel, 1));
}

#[test]
fn what_no_sa_came_for_is_dropped_after_ten_seconds() {
    let tunnel = TRAP();
    let (mut a, mut b) = tunnel.without_sas();
    a.send(&packet(&tunnel, 1));
    a.now += Duration::from_secs(5);
    a.send(&packet(&tunnel, 2));
    a.now += Duration::from_secs(5);
    let now = a.now;
    a.pipelines[0].expire(now);
    assert_eq!(a.dropped(DropReason::NoOutboundSa), 1);
    tunnel.connect(&mut a, &mut b, 0);
    assert_eq!(arrives(&mut a, &mut b, 0), [packet(&tunnel, 2)]);
}

#[test]
fn a_packet_that_waits_at_one_worker_leaves_through_the_sa_of_another() {
    let tunnel = Tunnel {
        workers: 2,
        owner: 1,
        ..TRAP()
    };
    let (mut a, mut b) = tunnel.without_sas();
    a.send_at(0, &packet(&tunnel, 1));
    tunnel.connect(&mut a, &mut b, 0);
    assert!(a.take_over(0).0.datagrams.is_empty());
    let sent = a.take_over(1).0.datagrams;
    let arrived = sent.iter().filter_map(|one| b.receive_at(1, one));
    assert_eq!(arrived.collect::<Vec<_>>(), [packet(&tunnel, 1)]);
}

#[test]
fn without_a_trap_nothing_waits() {
    let tunnel = Tunnel::default();
    let (mut a, mut b) = tunnel.without_sas();
    a.send(&packet(&tunnel, 1));
    assert_eq!(a.drops(), [DropReason::NoOutboundSa]);
    tunnel.connect(&mut a, &mut b, 0);
    assert_eq!(arrives(&mut a, &mut b, 0), Vec::<Vec<u8>>::new());
}
