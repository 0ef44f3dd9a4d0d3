//! MOBIKE (RFC 4555) with strongSwan: either gateway changes its address, whoever has initiated.
//!
//! strongSwan's ESP in user space cannot move an SA, so strongSwan rekeys its children instead.

use super::pair::{Initiator, Pair};
use crate::support::{
    eventually,
    lab::{Family, OUTER, Plan, Side, ip},
    program,
};

fn moves(mover: Side, initiator: Initiator) {
    let plan = Plan {
        inner: vec![Family::V4],
        roams: (mover == Side::A).then_some(Side::A),
        ..Plan::default()
    };
    let theirs = match mover {
        Side::A => "mobike = yes",
        Side::B => "mobike = yes\n local_addrs = %any",
    };
    if program("ip", "iproute2").is_none() {
        return;
    }
    let Some(pair) = Pair::connected(plan, theirs, initiator) else {
        return;
    };
    pair.carries_traffic();
    let gateway = pair.lab.gateway(mover);
    gateway
        .sysctl("ipv4/conf/all/promote_secondaries", "1")
        .unwrap();
    gateway
        .add_address(OUTER, "192.0.2.11/24".parse().unwrap())
        .unwrap();
    let old = mover.outer(Family::V4);
    ip(gateway, &format!("address delete {old}/24 dev {OUTER}"));
    let key = if mover == Side::A {
        "local-host"
    } else {
        "remote-host"
    };
    eventually("Lockgate knows the new address", || {
        let sas = pair.lockgate.established();
        (sas.first()?.get(key) == Some("192.0.2.11")).then_some(())
    });
    eventually("strongSwan knows the new address", || {
        pair.strongswan.sas().contains("192.0.2.11").then_some(())
    });
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
