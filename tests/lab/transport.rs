//! Transport mode between the gateways themselves.

use crate::support::{
    eavesdropper::Eavesdropper,
    lab::{Family, Gateway, Lab, NAT_OUTSIDE, OUTER, Plan, Side},
    traffic::{assert_reaches, tcp},
};

/// The gateways' own addresses.
fn plan(outer: Family, encap: bool) -> Plan {
    Plan {
        outer,
        encap,
        inner: Vec::new(),
        child: "mode = \"transport\"".to_owned(),
        ..Plan::default()
    }
}

#[track_caller]
fn assert_transport(gateways: [&Gateway; 2]) {
    for gateway in gateways {
        let children = gateway.child_sas();
        let modes = children.iter().map(|child| child.get("mode"));
        assert_eq!(modes.collect::<Vec<_>>(), [Some("TRANSPORT")]);
        assert_eq!(gateway.drops("not-transportable"), 0);
        assert_eq!(gateway.drops("selector-mismatch"), 0);
    }
}

#[test]
fn the_gateways_own_traffic_goes_through_transport_mode() {
    let cases = [(true, 1), (false, 1), (true, 2)];
    let cases = cases.map(|case| Family::BOTH.map(|family| (family, case)));
    for (family, (encap, workers)) in cases.into_iter().flatten() {
        let Some(lab) = Lab::new() else { return };
        let plan = Plan {
            workers,
            ..plan(family, encap)
        };
        let eavesdropper = Eavesdropper::on(&lab);
        let [a, b] = lab.tunnel(&plan);
        for (from, to, side) in [
            (&lab.gateway_a, &lab.gateway_b, Side::B),
            (&lab.gateway_b, &lab.gateway_a, Side::A),
        ] {
            let address = side.outer(family);
            assert_reaches(from, to, address);
            tcp(from, to, address, 1_000_000);
        }
        a.command("rekey", &[("child", "net")]);
        tcp(
            &lab.gateway_a,
            &lab.gateway_b,
            Side::B.outer(family),
            1_000_000,
        );
        assert_transport([&a, &b]);
        eavesdropper.finish().assert_nothing_in_clear();
    }
}

/// The checksums are those of addresses that the other side does not have.
#[test]
fn a_gateway_behind_nat_has_transport_mode() {
    let Some(lab) = Lab::with_nat(Side::A) else {
        return;
    };
    let plan = Plan {
        nat: Some(Side::A),
        ..plan(Family::V4, false)
    };
    let outer = lab.outer_addresses();
    let eavesdropper = Eavesdropper::at(&lab.gateway_b, OUTER, outer);
    let b = plan.config(Side::B).replace("%any", NAT_OUTSIDE);
    let b = lab.start(Side::B, &b);
    let a = lab.start(Side::A, &plan.config(Side::A));
    a.initiate("net");
    let address = Side::B.outer(Family::V4);
    assert_reaches(&lab.gateway_a, &lab.gateway_b, address);
    tcp(&lab.gateway_a, &lab.gateway_b, address, 1_000_000);
    assert_transport([&a, &b]);
    eavesdropper.finish().assert_nothing_in_clear();
}
