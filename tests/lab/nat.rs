//! A masquerading router between the gateways.

use std::time::Duration;

use crate::support::{
    eavesdropper::Eavesdropper,
    eventually,
    lab::{Family, Lab, NAT_OUTSIDE, OUTER, Plan, Side},
    traffic::{Stream, assert_reaches, tcp},
};

#[test]
fn a_gateway_behind_nat_brings_up_and_keeps_a_tunnel() {
    let Some(lab) = Lab::with_nat(Side::A) else {
        return;
    };
    let plan = Plan {
        nat: Some(Side::A),
        encap: false,
        inner: vec![Family::V4],
        ..Plan::default()
    };
    let outer = lab.outer_addresses();
    let eavesdropper = Eavesdropper::at(&lab.gateway_b, OUTER, outer);
    let [a, b] = lab.tunnel(&plan);

    let sa = &b.established()[0];
    assert_eq!(sa.get("remote-host"), Some(NAT_OUTSIDE));
    assert_ne!(
        sa.get("remote-port"),
        Some("4500"),
        "the router was to choose another port"
    );
    assert_eq!(sa.get("nat-remote"), Some("yes"));
    assert_eq!(a.established()[0].get("nat-local"), Some("yes"));
    // Nobody forced it: it was detected (RFC 7296 §2.23).
    assert_eq!(a.child_sas()[0].get("encap"), Some("yes"));

    let stream = Stream::start(&lab.host_a, &lab.host_b, Side::B.host(Family::V4));
    stream.wait_for(300);
    for gateway in [&a, &b] {
        for what in [("child", "net"), ("ike", "lab")] {
            gateway.command("rekey", &[what]);
            stream.wait_for(300);
        }
    }
    let outcome = stream.finish();
    assert_eq!(
        (outcome.lost, outcome.echoes_lost, outcome.duplicates),
        (0, 0, 0)
    );
    assert_reaches(&lab.host_b, &lab.host_a, Side::A.host(Family::V4));
    tcp(
        &lab.host_b,
        &lab.host_a,
        Side::A.host(Family::V4),
        1_000_000,
    );
    eavesdropper.finish().assert_nothing_in_clear();
}

/// The router forgets its mapping; the peer learns the new one from the next packet that proves
/// to be ours (RFC 7296 §2.23).
#[test]
fn a_router_that_forgets_its_mapping_does_not_end_the_tunnel() {
    let Some(lab) = Lab::with_nat(Side::A) else {
        return;
    };
    let plan = Plan {
        nat: Some(Side::A),
        inner: vec![Family::V4],
        ..Plan::default()
    };
    let [_a, b] = lab.tunnel(&plan);
    assert_reaches(&lab.host_a, &lab.host_b, Side::B.host(Family::V4));
    let port = || b.established()[0].get("remote-port").map(str::to_owned);
    let before = port();

    lab.expire_mappings_after(1);
    assert_reaches(&lab.host_a, &lab.host_b, Side::B.host(Family::V4));
    std::thread::sleep(Duration::from_secs(3));
    lab.expire_mappings_after(120);
    assert_reaches(&lab.host_a, &lab.host_b, Side::B.host(Family::V4));
    assert_reaches(&lab.host_b, &lab.host_a, Side::A.host(Family::V4));
    eventually("the peer's new port is known", || {
        (port() != before).then_some(())
    });
    assert_eq!(b.established().len(), 1);
}
