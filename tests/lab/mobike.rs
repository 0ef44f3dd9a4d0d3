//! Gateways whose addresses change under traffic (MOBIKE, RFC 4555).

use crate::support::{
    eventually,
    lab::{Family, Gateway, Lab, OUTER, Plan, Side, ip},
    program,
    traffic::{Stream, assert_reaches},
};

/// Both gateways, with the tunnel up; `mover` may use any of its addresses.
fn tunnel(lab: &Lab, mover: Side) -> [Gateway; 2] {
    let plan = Plan {
        inner: vec![Family::V4],
        roams: Some(mover),
        ..Plan::default()
    };
    lab.tunnel(&plan)
}

fn spi(gateway: &Gateway) -> String {
    gateway.child_sas()[0].get("spi-in").unwrap().to_owned()
}

/// Waits until both ends know the mover's new address.
#[track_caller]
fn assert_moved([a, b]: &[Gateway; 2], mover: Side, to: &str) {
    let (own, peer) = match mover {
        Side::A => (a, b),
        Side::B => (b, a),
    };
    eventually("the gateway itself has moved", || {
        let sas = own.established();
        (sas.first()?.get("local-host") == Some(to)).then_some(())
    });
    eventually("its peer has followed", || {
        let sas = peer.established();
        (sas.first()?.get("remote-host") == Some(to)).then_some(())
    });
}

/// Both addresses work all the while, so nothing may be lost.
#[test]
fn a_gateway_that_is_routed_from_another_address_loses_nothing() {
    let Some(lab) = Lab::new() else { return };
    if program("ip", "iproute2").is_none() {
        return;
    }
    let gateways = tunnel(&lab, Side::A);
    let before = spi(&gateways[0]);
    let other = "192.0.2.11/24".parse().unwrap();
    lab.gateway_a.add_address(OUTER, other).unwrap();
    let stream = Stream::start(&lab.host_a, &lab.host_b, Side::B.host(Family::V4));
    stream.wait_for(300);
    for to in ["192.0.2.11", "192.0.2.1", "192.0.2.11"] {
        let route =
            format!("route replace 192.0.2.0/24 dev {OUTER} proto kernel scope link src {to}");
        ip(&lab.gateway_a, &route);
        assert_moved(&gateways, Side::A, to);
        stream.wait_for(300);
    }
    let outcome = stream.finish();
    let lost = (outcome.lost, outcome.echoes_lost, outcome.duplicates);
    assert_eq!(lost, (0, 0, 0), "{outcome:?}");
    assert_eq!(spi(&gateways[0]), before, "no rekey");
}

/// The address goes, and with it what is on its way to it at that moment; then all passes again, under
/// the same keys.
#[test]
fn a_gateway_that_loses_its_address_takes_its_tunnel_to_the_next_one() {
    for mover in [Side::A, Side::B] {
        let Some(lab) = Lab::new() else { return };
        if program("ip", "iproute2").is_none() {
            return;
        }
        let gateways = tunnel(&lab, mover);
        let before = spi(&gateways[0]);
        let stream = Stream::start(&lab.host_a, &lab.host_b, Side::B.host(Family::V4));
        stream.wait_for(300);
        let gateway = lab.gateway(mover);
        gateway
            .sysctl("ipv4/conf/all/promote_secondaries", "1")
            .unwrap();
        gateway
            .add_address(OUTER, "192.0.2.11/24".parse().unwrap())
            .unwrap();
        let old = mover.outer(Family::V4);
        ip(gateway, &format!("address delete {old}/24 dev {OUTER}"));
        assert_moved(&gateways, mover, "192.0.2.11");
        stream.finish();
        let stream = Stream::start(&lab.host_a, &lab.host_b, Side::B.host(Family::V4));
        stream.wait_for(300);
        let outcome = stream.finish();
        let lost = (outcome.lost, outcome.echoes_lost, outcome.duplicates);
        assert_eq!(lost, (0, 0, 0), "{mover:?}: {outcome:?}");
        assert_reaches(&lab.host_b, &lab.host_a, Side::A.host(Family::V4));
        assert_eq!(spi(&gateways[0]), before, "{mover:?}: no rekey");
    }
}
