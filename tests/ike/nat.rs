//! Address translation between the gateways (RFC 7296 §2.23, RFC 3948).

use std::net::SocketAddr;

use lockgate::ike::{AddressPattern, Discard, Path};
use lockgate::ipsec::{EspEncap, Reqid, SaEvent};
use lockgate::wire::isakmp::ExchangeType;

use super::config::{Setup, Side};
use super::network::Nat;
use super::pair::{Pair, initiate, millis, rekey_child, rekey_ike, seconds};
use super::plane::Change::MoveOutbound;

fn nat() -> Nat {
    Nat {
        outside: [203, 0, 113, 9].into(),
        shift: 20_000,
    }
}

/// A is behind a NAT, and B accepts it from anywhere.
fn translated(change: impl Fn(Side, &mut Setup)) -> Pair {
    let mut pair = Pair::with(|side, setup| {
        if side == Side::B {
            setup.connection.remote_addrs = vec![AddressPattern::Any];
        }
        change(side, setup);
    });
    pair.net.nat = Some(nat());
    pair.command(Side::A, initiate("lan"));
    pair.settle();
    pair.gapless = true;
    for side in Side::BOTH {
        pair.host(side).plane.take_history();
    }
    pair
}

fn outside(port: u16) -> SocketAddr {
    SocketAddr::new(nat().outside, port)
}

#[test]
fn a_gateway_behind_a_nat_floats_to_port_4500_and_keeps_the_mapping_alive() {
    let mut pair = translated(|_, _| {});
    let (a, b) = (pair.ike_sa(Side::A), pair.ike_sa(Side::B));
    assert!(a.nat.local && !a.nat.remote && !a.nat.fake);
    assert!(b.nat.remote && !b.nat.local);
    assert_eq!(a.local.port(), 4500);
    assert_eq!(a.remote, SocketAddr::new(Side::B.addr(), 4500));
    assert_eq!(b.remote, outside(24_500));
    let ports: Vec<_> = pair
        .net
        .trace
        .iter()
        .map(|sent| sent.transmit.path.local.port())
        .collect();
    assert_eq!(ports, [500, 500, 4500, 4500]);
    for side in Side::BOTH {
        assert_eq!(pair.child(side).encap, EspEncap::Udp);
    }
    let newest = pair.host(Side::B).plane.newest(Reqid(1)).unwrap();
    assert_eq!(newest.path().remote, outside(24_500));

    pair.run_for(seconds(101));
    let path = Path {
        local: a.local,
        remote: a.remote,
    };
    assert_eq!(pair.host(Side::A).keepalives, [path; 5]);
    assert_eq!(pair.host(Side::B).keepalives, [], "B is not behind the NAT");
    pair.assert_clean(1);
    pair.finish();
}

#[test]
fn every_exchange_works_through_a_nat() {
    let mut pair = translated(|_, _| {});
    for side in Side::BOTH {
        pair.command(side, rekey_child());
        pair.settle();
        pair.command(side, rekey_ike());
        pair.settle();
        assert!(pair.ike_sa(Side::A).nat.local);
    }
    let before = pair.host(Side::A).keepalives.len();
    pair.run_for(seconds(61));
    assert_eq!(
        pair.host(Side::A).keepalives.len(),
        before + 3,
        "also after the rekeys"
    );
    pair.assert_clean(1);
    pair.finish();
}

#[test]
fn a_new_mapping_is_followed_when_an_esp_packet_shows_it() {
    let mut pair = translated(|_, _| {});
    pair.net.nat.as_mut().unwrap().shift = 30_000;
    pair.send_packet(Side::B);
    pair.settle();
    assert_eq!(pair.lost_packets, 0);
    assert_eq!(pair.delivered_packets, 0, "the old mapping is gone");
    pair.send_packet(Side::A);
    pair.settle();
    assert_eq!(pair.delivered_packets, 1);
    assert_eq!(pair.host(Side::B).plane.take_history(), [MoveOutbound]);
    assert_eq!(pair.ike_sa(Side::B).remote, outside(34_500));
    pair.command(Side::B, rekey_child());
    pair.run_for(seconds(6));
    pair.assert_clean(1);
    pair.finish();
}

#[test]
fn a_new_mapping_is_followed_when_an_ike_message_shows_it() {
    for response in [false, true] {
        let mut pair = translated(|_, _| {});
        if response {
            // The mapping changes while the request of B is on its way.
            pair.command(Side::B, rekey_child());
            pair.run_for(millis(5));
            pair.net.nat.as_mut().unwrap().shift = 30_000;
        } else {
            pair.net.nat.as_mut().unwrap().shift = 30_000;
            pair.command(Side::A, rekey_child());
        }
        pair.run_for(seconds(10));
        assert_eq!(pair.ike_sa(Side::B).remote, outside(34_500), "{response}");
        pair.assert_clean(1);
        pair.finish();
    }
}

#[test]
fn nobody_moves_a_peer_with_a_message_that_is_not_authentic() {
    let mut pair = translated(|_, _| {});
    pair.command(Side::A, rekey_child());
    pair.settle();
    let last = pair
        .net
        .from(Side::A, 0)
        .pop()
        .unwrap()
        .transmit
        .bytes
        .clone();
    let elsewhere = Path {
        local: SocketAddr::new(Side::B.addr(), 4500),
        remote: "198.51.100.66:4500".parse().unwrap(),
    };
    pair.inject_on(Side::B, elsewhere, &last); // a replay
    let mut forged = last.clone();
    forged[23] += 1; // the next message ID
    pair.inject_on(Side::B, elsewhere, &forged);
    assert_eq!(pair.host(Side::B).discarded(Discard::IntegrityFailed), 1);
    assert_eq!(pair.ike_sa(Side::B).remote, outside(24_500));
    pair.run_for(seconds(6));
    pair.assert_clean(1);
    pair.finish();
}

#[test]
fn a_peer_without_a_nat_is_not_followed() {
    let mut pair = Pair::up_with(|_, setup| setup.settings.cookie_rate = 100);
    let child = pair.child(Side::B);
    let remote = "198.51.100.66:4500".parse().unwrap();
    let spi = child.spi_in;
    let event = SaEvent::PeerMoved {
        child: child.id,
        spi,
        remote,
    };
    pair.report(Side::B, event);
    assert_eq!(pair.host(Side::B).plane.take_history(), []);
    assert_eq!(pair.ike_sa(Side::B).remote.ip(), Side::A.addr());
    pair.assert_clean(1);
    pair.finish();
}

#[test]
fn either_side_can_force_encapsulation() {
    for who in [&[Side::A][..], &[Side::B], &Side::BOTH] {
        for initiator in Side::BOTH {
            let mut pair = Pair::with(|side, setup| setup.connection.encap = who.contains(&side));
            pair.command(initiator, initiate("lan"));
            pair.settle();
            for side in Side::BOTH {
                let sa = pair.ike_sa(side);
                assert_eq!(sa.nat.fake, who.contains(&side));
                assert_eq!((sa.local.port(), sa.remote.port()), (4500, 4500));
                assert_eq!(pair.child(side).encap, EspEncap::Udp);
            }
            pair.run_for(seconds(30));
            pair.assert_clean(1);
            pair.finish();
        }
    }
}

#[test]
fn a_gateway_that_restarts_behind_its_nat_replaces_what_it_had() {
    let mut pair = translated(|_, _| {});
    pair.restart(Side::A);
    pair.net.nat.as_mut().unwrap().shift = 30_000;
    pair.command(Side::A, initiate("lan"));
    pair.run_for(seconds(10));
    assert_eq!(pair.ike_sa(Side::B).remote, outside(34_500));
    let informational = pair
        .net
        .trace
        .iter()
        .filter(|sent| sent.is(ExchangeType::INFORMATIONAL, false));
    assert_eq!(informational.count(), 0, "nobody needs to be told");
    pair.assert_clean(1);
    pair.finish();
}
