//! Packets that get through, and what happens to them on the way.

use std::time::Duration;

use lockgate::dataplane::{Traffic, WorkerCommand};
use lockgate::ipsec::{
    Action, DropReason, EspEncap, Limits, SaEvent, SaUpdate, Spd, Spi, WorkerId,
};
use lockgate::wire::selector::TrafficSelector;

use crate::gateway::{CHILD, Gateway, REQID, Tunnel, policy, protect};
use crate::packets::{offered_mss, syn, udp};

#[test]
fn a_packet_arrives_as_it_was_sent_in_every_mix_of_families_and_carriers() {
    for inner_v6 in [false, true] {
        for outer_v6 in [false, true] {
            for encap in [EspEncap::Udp, EspEncap::None] {
                let tunnel = Tunnel {
                    inner_v6,
                    outer_v6,
                    encap,
                    ..Tunnel::default()
                };
                there_and_back(&tunnel);
            }
        }
    }
}

fn there_and_back(tunnel: &Tunnel) {
    let (mut a, mut b) = tunnel.build();
    for length in [0, 1, 17, 1300] {
        let payload = vec![0xa5; length];
        let request = udp(
            tunnel.host_a(1, 1000),
            tunnel.host_b(2, 2000),
            &payload,
            true,
        );
        let sent = a.send(&request);
        let [datagram] = sent.datagrams.as_slice() else {
            panic!("one datagram, not {}", sent.datagrams.len());
        };
        assert_eq!(datagram.transmit.remote.is_ipv6(), tunnel.outer_v6);
        assert!(!contains(&datagram.bytes, &request[12..]), "sealed");
        assert_eq!(b.receive(datagram).as_ref(), Some(&request));

        let answer = udp(
            tunnel.host_b(2, 2000),
            tunnel.host_a(1, 1000),
            &payload,
            true,
        );
        let sent = b.send(&answer);
        assert_eq!(a.receive(&sent.datagrams[0]).as_ref(), Some(&answer));
    }
    assert!(a.drops().is_empty() && b.drops().is_empty());
    assert_eq!(a.stats(0).outbound, b.stats(0).inbound);
    assert_eq!(a.stats(0).inbound.packets, 4);
}

#[test]
fn an_acquire_is_sent_once_per_second_until_there_is_an_sa() {
    let tunnel = Tunnel::default();
    let (mut a, mut b) = tunnel.without_sas();
    let packet = udp(tunnel.host_a(1, 1), tunnel.host_b(1, 2), b"hello", true);

    for _ in 0..100 {
        assert!(a.send(&packet).datagrams.is_empty());
    }
    let events = a.events();
    assert!(
        matches!(events.as_slice(), [SaEvent::Acquire { reqid: REQID, flow, worker: None }]
            if flow.src == tunnel.host_a(1, 1).ip() && flow.ports == Some((1, 2))),
        "{events:?}"
    );
    a.now += Duration::from_millis(1100);
    a.send(&packet);
    assert_eq!(a.events().len(), 1);
    assert_eq!(a.drops(), [DropReason::NoOutboundSa; 101]);

    tunnel.connect(&mut a, &mut b, 0);
    let sent = a.send(&packet);
    assert_eq!(b.receive(&sent.datagrams[0]), Some(packet));
    assert!(a.events().is_empty());
}

#[test]
fn only_what_a_policy_protects_leaves() {
    let net = |text: &str| TrafficSelector::net(text.parse().expect("literal"));
    let here = net("10.1.0.0/16");
    let mut gateway = Gateway::new(
        1,
        Spd::new(vec![
            policy(here, net("10.2.1.1/32"), Action::Discard, 1),
            policy(here, net("10.2.1.2/32"), Action::Bypass, 2),
            policy(here, net("10.2.0.0/16"), protect(), 3),
        ]),
    );
    let tunnel = Tunnel::default();
    let mut fate = |to| {
        let sent = gateway.send(&udp(tunnel.host_a(1, 1), to, b"x", true));
        assert!(sent.datagrams.is_empty() && sent.replies.is_empty());
        let drops = gateway.drops();
        gateway.pipelines = Gateway::new(1, Spd::default()).pipelines;
        let policies = std::sync::Arc::new(Spd::new(vec![
            policy(here, net("10.2.1.1/32"), Action::Discard, 1),
            policy(here, net("10.2.1.2/32"), Action::Bypass, 2),
            policy(here, net("10.2.0.0/16"), protect(), 3),
        ]));
        gateway.update(SaUpdate::SetPolicies(policies));
        drops
    };
    assert_eq!(fate(tunnel.host_b(1, 1)), [DropReason::PolicyDiscard]);
    assert_eq!(fate(tunnel.host_b(2, 1)), [DropReason::PolicyBypass]);
    assert_eq!(fate(tunnel.host_b(3, 1)), [DropReason::NoOutboundSa]);
    assert_eq!(
        fate("10.9.0.1:1".parse().expect("literal")),
        [DropReason::NoPolicy]
    );
}

#[test]
fn new_policies_decide_about_the_very_next_packet_of_a_run() {
    let tunnel = Tunnel::default();
    let (mut a, _) = tunnel.build();
    let packet = udp(tunnel.host_a(1, 1), tunnel.host_b(1, 2), b"hello", true);
    assert_eq!(a.send(&packet).datagrams.len(), 1);
    a.update(SaUpdate::SetPolicies(std::sync::Arc::new(Spd::default())));
    assert!(a.send(&packet).datagrams.is_empty());
    assert_eq!(a.drops(), [DropReason::NoPolicy]);
}

#[test]
fn a_rekey_loses_nothing_and_gives_the_old_keys_back() {
    let tunnel = Tunnel::default();
    let (mut a, mut b) = tunnel.build();
    let packet = udp(tunnel.host_a(1, 1), tunnel.host_b(1, 2), b"hello", true);
    let late = a.send(&packet).datagrams;

    tunnel.connect(&mut a, &mut b, 1);
    let fresh = a.send(&packet).datagrams;
    assert_ne!(
        late[0].bytes[..4],
        fresh[0].bytes[..4],
        "the new SA carries the traffic"
    );
    assert!(b.receive(&fresh[0]).is_some());
    assert!(b.receive(&late[0]).is_some(), "the old one still opens");

    let spi = Spi::new(0x1000).expect("not reserved");
    b.update(SaUpdate::RemoveInbound {
        spi,
        owner: WorkerId(0),
    });
    a.update(SaUpdate::RemoveOutbound {
        child: CHILD,
        reqid: REQID,
        owner: WorkerId(0),
    });
    a.pipelines[0].finish();
    b.pipelines[0].finish();
    assert!(matches!(a.events().as_slice(), [SaEvent::RetiredOutbound(sa)] if sa.child() == CHILD));
    assert!(matches!(b.events().as_slice(), [SaEvent::RetiredInbound(sa)] if sa.spi() == spi));
    assert!(b.receive(&late[0]).is_none());
    assert_eq!(b.drops(), [DropReason::UnknownSpi]);
    assert_eq!(a.send(&packet).datagrams.len(), 1);
}

#[test]
fn the_mss_is_clamped_to_the_inner_mtu_in_both_directions() {
    for inner_v6 in [false, true] {
        let tunnel = Tunnel {
            inner_v6,
            ..Tunnel::default()
        };
        let (mut a, mut b) = tunnel.build();
        let headers = if inner_v6 { 60 } else { 40 };

        let sent = a.send(&syn(tunnel.host_a(1, 1), tunnel.host_b(1, 80), 9000));
        let arrived = b.receive(&sent.datagrams[0]).expect("opened");
        // 1500 - IPv4 20 - UDP 8 - ESP 8 - IV 8 - ICV 16 = 1440; less trailer 2, down to 4n: 1438.
        assert_eq!(offered_mss(&arrived), 1438 - headers);

        let small = syn(tunnel.host_a(1, 1), tunnel.host_b(1, 80), 536);
        let sent = a.send(&small);
        assert_eq!(b.receive(&sent.datagrams[0]), Some(small));
    }
}

#[test]
fn a_syn_from_a_peer_that_does_not_clamp_is_clamped_on_arrival() {
    let generous = Tunnel {
        path_mtu: 9000,
        ..Tunnel::default()
    };
    let narrow = Tunnel::default();
    let (mut a, _) = generous.build();
    let (_, mut b) = narrow.build();
    let sent = a.send(&syn(generous.host_a(1, 1), generous.host_b(1, 80), 8000));
    let arrived = b.receive(&sent.datagrams[0]).expect("opened");
    assert_eq!(offered_mss(&arrived), 1438 - 40);
}

#[test]
fn soft_and_hard_limits_are_reported_once() {
    let limits = Limits {
        soft_packets: 2,
        hard_packets: 3,
        ..Limits::NONE
    };
    let tunnel = Tunnel {
        limits,
        ..Tunnel::default()
    };
    let (mut a, mut b) = tunnel.build();
    let packet = udp(tunnel.host_a(1, 1), tunnel.host_b(1, 2), b"hello", true);
    for _ in 0..6 {
        for datagram in a.send(&packet).datagrams {
            b.receive(&datagram);
        }
    }
    let events = a.events();
    assert!(
        matches!(
            events.as_slice(),
            [
                SaEvent::SoftLifetime { child: CHILD },
                SaEvent::HardLifetime { child: CHILD }
            ]
        ),
        "{events:?}"
    );
    assert_eq!(a.drops(), [DropReason::LifetimeExpired; 3]);
    assert!(matches!(
        b.events().as_slice(),
        [SaEvent::SoftLifetime { child: CHILD }]
    ));
}

#[test]
fn an_authentic_packet_from_a_new_address_moves_the_peer_and_a_late_one_does_not() {
    let tunnel = Tunnel::default();
    let (mut a, mut b) = tunnel.build();
    let packet = udp(tunnel.host_a(1, 1), tunnel.host_b(1, 2), b"hello", true);
    let late = a.send(&packet).datagrams.remove(0);
    let mut moved = a.send(&packet).datagrams.remove(0);
    moved.transmit.local = "203.0.113.9".parse().expect("literal");

    assert!(b.receive(&moved).is_some());
    let events = b.events();
    assert!(
        matches!(events.as_slice(), [SaEvent::PeerMoved { child: CHILD, remote, .. }]
            if remote.to_string() == "203.0.113.9:4500"),
        "{events:?}"
    );
    assert!(
        b.receive(&late).is_some(),
        "it is authentic and not replayed"
    );
    assert!(b.events().is_empty(), "but it is no news");
}

#[test]
fn a_barrier_comes_after_all_that_was_applied_before_it() {
    let tunnel = Tunnel::default();
    let (mut a, _) = tunnel.build();
    a.pipelines[0].apply(WorkerCommand::Barrier(1));
    let packet = udp(tunnel.host_a(1, 1), tunnel.host_b(1, 2), b"hello", true);
    assert_eq!(a.send(&packet).datagrams.len(), 1);
    let expected = Traffic {
        packets: 1,
        bytes: 33,
    };
    assert_eq!(a.stats(0).outbound, expected);
}

fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    !needle.is_empty()
        && haystack
            .windows(needle.len())
            .any(|window| window == needle)
}
