//! A worker that gets an SA of its own while another one still has packets of its flows.

use std::sync::Arc;
use std::time::Duration;

use lockgate::dataplane::WorkerCommand;
use lockgate::ipsec::{ChildId, SaEvent, SaUpdate, Selectors, WorkerId};
use lockgate::wire::selector::TrafficSelector;

use crate::gateway::{CHILD, Gateway, REQID, Tunnel};
use crate::packets::udp;

/// Worker 1 has the SA, and worker 0 may have one too.
fn first() -> Tunnel {
    Tunnel {
        workers: 3,
        owner: 1,
        per_worker: true,
        ..Tunnel::default()
    }
}

fn own() -> Tunnel {
    Tunnel {
        owner: 0,
        ..first()
    }
}

fn packet(number: u8) -> Vec<u8> {
    let tunnel = first();
    udp(tunnel.host_a(1, 1), tunnel.host_b(1, 2), &[number], true)
}

/// What worker 0 seals itself of one packet.
fn sealed_here(a: &mut Gateway, number: u8) -> usize {
    a.send_at(0, &packet(number)).datagrams.len()
}

fn settle(a: &mut Gateway) -> bool {
    a.pipelines[0].settle(a.now);
    !a.pipelines[0].is_settling()
}

#[test]
fn flows_stay_with_their_worker_until_all_that_was_handed_over_is_sent() {
    let (mut a, mut b) = first().build();
    assert_eq!(sealed_here(&mut a, 1) + sealed_here(&mut a, 2), 0);
    own().connect(&mut a, &mut b, 1);
    assert!(a.pipelines[0].is_settling() && !settle(&mut a));
    assert_eq!(sealed_here(&mut a, 3), 0, "read before the change was seen");

    for number in 1..=3 {
        assert!(!settle(&mut a), "{number} is not sent yet");
        let (sent, _) = a.take_over(1);
        assert_eq!(sent.datagrams.len(), 1);
        let inner = b.receive_at(1, &sent.datagrams[0]);
        assert_eq!(inner, Some(packet(number)));
    }
    assert!(settle(&mut a));
    assert_eq!(sealed_here(&mut a, 4), 1, "its own SA now");
    assert!(a.drops().is_empty());
}

#[test]
fn what_is_processed_but_not_sent_counts_as_not_done() {
    let (mut a, mut b) = first().build();
    assert_eq!(sealed_here(&mut a, 1), 0);
    own().connect(&mut a, &mut b, 1);
    let mut stray = a.pipelines[1].next_outbound_stray().expect("one packet");
    let _ = a.pipelines[1].outbound_stray(a.now, &mut stray, 0, &mut a.egress);
    a.pipelines[1].recycle(stray);
    a.pipelines[1].finish();
    assert!(!settle(&mut a));
    assert_eq!(a.drain().len(), 1);
    a.pipelines[1].has_sent();
    assert!(settle(&mut a));
}

#[test]
fn a_worker_that_has_handed_nothing_over_changes_at_once() {
    let (mut a, mut b) = first().build();
    own().connect(&mut a, &mut b, 1);
    assert!(!a.pipelines[0].is_settling());
    assert_eq!(sealed_here(&mut a, 1), 1);
}

#[test]
fn a_stuck_worker_is_not_waited_for_longer_than_a_moment() {
    let (mut a, mut b) = first().build();
    assert_eq!(sealed_here(&mut a, 1), 0);
    own().connect(&mut a, &mut b, 1);
    assert!(!settle(&mut a));
    a.now += Duration::from_millis(19);
    assert!(!settle(&mut a));
    a.now += Duration::from_millis(1);
    assert!(settle(&mut a));
    assert_eq!(sealed_here(&mut a, 2), 1);
}

#[test]
fn changes_that_wait_keep_their_order_and_a_barrier_ends_the_wait() {
    let (mut a, mut b) = first().build();
    assert_eq!(sealed_here(&mut a, 1), 0);
    own().connect(&mut a, &mut b, 1);
    a.update(SaUpdate::RemoveOutbound {
        child: ChildId(CHILD.0 + 1),
        reqid: REQID,
        owner: WorkerId(0),
    });
    assert!(a.pipelines[0].is_settling());
    a.pipelines[0].apply(WorkerCommand::Barrier(1));
    assert!(!a.pipelines[0].is_settling());
    assert_eq!(sealed_here(&mut a, 2), 0, "worker 1 has the only SA again");
    let retired = |event: &SaEvent| matches!(event, SaEvent::RetiredOutbound(_));
    assert_eq!(a.events().iter().filter(|event| retired(event)).count(), 1);
    assert_eq!(b.drops(), []);
}

#[test]
fn a_wait_that_a_barrier_ends_is_followed_by_a_rest_too() {
    let (mut a, mut b) = first().build();
    assert_eq!(sealed_here(&mut a, 1), 0); // its owner is stuck and never sends it
    own().connect(&mut a, &mut b, 1);
    assert!(!settle(&mut a));
    a.now += Duration::from_millis(1);
    assert!(!settle(&mut a));
    a.pipelines[0].apply(WorkerCommand::Barrier(1));
    let change = |a: &mut Gateway| {
        let (child, reqid) = (ChildId(1000), REQID);
        a.pipelines[0].apply(WorkerCommand::ForgetElsewhere { child, reqid });
        a.pipelines[0].is_settling()
    };
    assert!(!change(&mut a), "made at once");
    assert!(settle(&mut a));
    a.now += Duration::from_millis(8);
    assert!(settle(&mut a) && !change(&mut a), "made at once");
    a.now += Duration::from_millis(1);
    assert!(settle(&mut a) && change(&mut a), "the rest is over");
}

#[test]
fn a_worker_without_an_sa_waits_too_before_it_hands_over_to_another_one() {
    let (mut a, mut b) = first().build();
    assert_eq!(sealed_here(&mut a, 1), 0);
    let third = Tunnel {
        owner: 2,
        ..first()
    };
    third.connect(&mut a, &mut b, 1);
    assert!(!settle(&mut a));
    assert_eq!(a.take_over(1).0.datagrams.len(), 1);
    assert!(settle(&mut a));
    assert_eq!(sealed_here(&mut a, 2), 0);
    assert_eq!(a.take_over(2).0.datagrams.len(), 1, "the newest");
}

#[test]
fn a_peer_that_makes_and_deletes_child_sas_in_a_loop_cannot_stop_the_traffic_of_others() {
    let (mut a, _) = first().build();
    let net = |text: &str| TrafficSelector::net(text.parse().expect("literal"));
    let selectors = Arc::new(Selectors {
        local: vec![net("10.1.0.0/16")],
        remote: vec![net("10.2.0.0/16")],
    });
    let (mut paused, mut longest, mut pause) = (0, 0, 0);
    for millisecond in 0..10_000 {
        a.now += Duration::from_millis(1);
        if settle(&mut a) {
            pause = 0;
            assert_eq!(sealed_here(&mut a, 1), 0); // its owner is stuck and never sends it
        } else {
            paused += 1;
            pause += 1;
            longest = longest.max(pause);
        }
        let (child, reqid) = (ChildId(1000 + millisecond), REQID);
        a.pipelines[0].apply(WorkerCommand::NoteElsewhere {
            child,
            reqid,
            owner: WorkerId(2),
            selectors: Arc::clone(&selectors),
            per_worker: true,
        });
        a.pipelines[0].apply(WorkerCommand::ForgetElsewhere { child, reqid });
    }
    assert!(paused > 0 && longest <= 20, "{longest} ms at a time");
    assert!(paused <= 1000, "{paused} ms of 10 s");
}

/// What the peer sends on its new SA, and what others still send on the old one, has no common order;
/// each SA has a window of its own.
#[test]
fn packets_of_the_old_and_the_new_sa_may_overtake_one_another_and_none_is_lost() {
    let (mut a, mut b) = first().build();
    let mut sent = Vec::new();
    for number in 1..=3 {
        assert_eq!(sealed_here(&mut a, number), 0);
        sent.extend(a.take_over(1).0.datagrams);
    }
    own().connect(&mut a, &mut b, 1);
    assert!(settle(&mut a));
    for number in 4..=6 {
        sent.extend(a.send_at(0, &packet(number)).datagrams);
    }
    assert_eq!(sent.len(), 6, "in this order on the wire");
    let arrived = [3, 0, 4, 1, 5, 2].map(|place| {
        let worker = if place < 3 { 1 } else { 0 };
        b.receive_at(worker, &sent[place])
    });
    assert_eq!(
        arrived,
        [4, 1, 5, 2, 6, 3].map(|number| Some(packet(number)))
    );
    assert!(b.drops().is_empty());
}
