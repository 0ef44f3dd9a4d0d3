//! MOBIKE (RFC 4555) with strongSwan: either gateway changes its address under traffic, whoever has
//! initiated.
//!
//! strongSwan's ESP in user space cannot move an SA, so strongSwan rekeys its children instead.

use super::pair::{Initiator, Pair};
use crate::support::{
    eventually,
    lab::{BEHIND_NAT, Family, OUTER, Plan, Side, ip},
    program,
    traffic::Stream,
};

fn moves(mover: Side, initiator: Initiator) {
    let plan = Plan {
        inner: vec![Family::V4],
        roams: Some(mover),
        ..Plan::default()
    };
    if program("ip", "iproute2").is_none() {
        return;
    }
    let Some(pair) = Pair::connected(plan, "mobike = yes", initiator) else {
        return;
    };
    moves_under_traffic(&pair, mover, "192.0.2.11");
    let (own, far) = match mover {
        Side::A => ("local-host", "remote-host"),
        Side::B => ("remote-host", "local-host"),
    };
    let sas = pair.lockgate.established();
    assert_eq!(sas[0].get(own), Some("192.0.2.11"));
    let still = mover.other().outer(Family::V4).to_string();
    assert_eq!(sas[0].get(far), Some(still.as_str()));
}

/// Behind a NAT the other side sees only another port.
fn moves_behind_nat(mover: Side) {
    let plan = Plan {
        inner: vec![Family::V4],
        encap: false,
        nat: Some(mover),
        roams: Some(mover),
        ..Plan::default()
    };
    if program("ip", "iproute2").is_none() {
        return;
    }
    let initiator = match mover {
        Side::A => Initiator::Lockgate,
        Side::B => Initiator::StrongSwan,
    };
    let Some(pair) = Pair::connected(plan, "mobike = yes", initiator) else {
        return;
    };
    moves_under_traffic(&pair, mover, "172.16.0.11");
}

/// The mover's address goes, and with it what is on its way at that moment.
#[track_caller]
fn moves_under_traffic(pair: &Pair, mover: Side, to: &str) {
    let stream = Stream::start(&pair.lab.host_a, &pair.lab.host_b, Side::B.host(Family::V4));
    stream.wait_for(100);
    let gateway = pair.lab.gateway(mover);
    gateway
        .sysctl("ipv4/conf/all/promote_secondaries", "1")
        .unwrap();
    let address = format!("{to}/24").parse().unwrap();
    gateway.add_address(OUTER, address).unwrap();
    let old = match pair.plan.nat {
        Some(_) => BEHIND_NAT.to_owned(),
        None => mover.outer(Family::V4).to_string(),
    };
    ip(gateway, &format!("address delete {old}/24 dev {OUTER}"));
    if pair.plan.nat.is_some() {
        // It goes with the address that it was made with.
        ip(gateway, "route replace 192.0.2.0/24 via 172.16.0.254");
    }
    eventually("both know the new address", || {
        let knows = match mover {
            Side::A => {
                let sas = pair.lockgate.established();
                sas.first()?.get("local-host") == Some(to)
            }
            Side::B => pair.strongswan.sas().contains(to),
        };
        knows.then_some(())
    });
    stream.wait_for(100);
    let outcome = stream.finish();
    println!("{mover:?} moves to {to}: {outcome:?}");
    assert_eq!(outcome.duplicates, 0, "{outcome:?}");
    pair.is_up();
    pair.carries_traffic();
    assert_eq!(pair.lockgate.drops("integrity-failed"), 0);
}

#[test]
fn lockgate_moves_after_it_has_initiated() {
    moves(Side::A, Initiator::Lockgate);
}

#[test]
fn lockgate_moves_after_strongswan_has_initiated() {
    moves(Side::A, Initiator::StrongSwan);
}

#[test]
fn strongswan_moves_after_it_has_initiated() {
    moves(Side::B, Initiator::StrongSwan);
}

#[test]
fn strongswan_moves_after_lockgate_has_initiated() {
    moves(Side::B, Initiator::Lockgate);
}

#[test]
fn lockgate_moves_behind_a_nat() {
    moves_behind_nat(Side::A);
}

#[test]
fn strongswan_moves_behind_a_nat() {
    moves_behind_nat(Side::B);
}
