//! Each family inside each family, in UDP and as protocol 50, with one worker and with two.

use lockgate::wire::vici::Message;

use crate::support::{
    eavesdropper::Eavesdropper,
    eventually,
    lab::{Family, Gateway, Lab, Plan, Side},
    traffic::{Stream, assert_reaches, tcp},
};

#[test]
fn ipv4_travels_inside_ipv4() {
    carries(&Plan {
        outer: Family::V4,
        inner: vec![Family::V4],
        ..Plan::default()
    });
}

#[test]
fn ipv6_travels_inside_ipv4() {
    carries(&Plan {
        outer: Family::V4,
        inner: vec![Family::V6],
        ..Plan::default()
    });
}

#[test]
fn ipv4_travels_inside_ipv6() {
    carries(&Plan {
        outer: Family::V6,
        inner: vec![Family::V4],
        ..Plan::default()
    });
}

#[test]
fn ipv6_travels_inside_ipv6() {
    carries(&Plan {
        outer: Family::V6,
        inner: vec![Family::V6],
        ..Plan::default()
    });
}

#[test]
fn both_families_share_a_raw_esp_tunnel_over_ipv4() {
    carries(&Plan {
        outer: Family::V4,
        encap: false,
        ..Plan::default()
    });
}

#[test]
fn both_families_share_a_raw_esp_tunnel_over_ipv6() {
    carries(&Plan {
        outer: Family::V6,
        encap: false,
        ..Plan::default()
    });
}

#[test]
fn two_workers_share_a_tunnel_in_udp() {
    carries(&Plan {
        workers: 2,
        ..Plan::default()
    });
}

#[test]
fn two_workers_share_a_raw_esp_tunnel() {
    carries(&Plan {
        workers: 2,
        encap: false,
        ..Plan::default()
    });
}

#[test]
fn cbc_with_hmac_and_null_with_hmac_carry_traffic() {
    for esp in [
        "aes256-sha256",
        "aes128-sha1",
        "aes192-sha384",
        "null-sha512",
    ] {
        let plan = Plan {
            proposal: "aes256-sha256-ecp256".to_owned(),
            esp_proposal: esp.to_owned(),
            ..Plan::default()
        };
        let Some(lab) = Lab::new() else { return };
        let _gateways = lab.tunnel(&plan);
        assert_reaches(&lab.host_a, &lab.host_b, Side::B.host(Family::V4));
        tcp(&lab.host_b, &lab.host_a, Side::A.host(Family::V6), 300_000);
    }
}

/// Brings a tunnel up, sends over it in both directions, and compares what both ends counted.
fn carries(plan: &Plan) {
    let Some(lab) = Lab::new() else { return };
    let eavesdropper = Eavesdropper::on(&lab);
    let [a, b] = lab.tunnel(plan);
    for family in &plan.inner {
        assert_reaches(&lab.host_a, &lab.host_b, Side::B.host(*family));
        assert_reaches(&lab.host_b, &lab.host_a, Side::A.host(*family));
        tcp(&lab.host_a, &lab.host_b, Side::B.host(*family), 1_000_000);
        tcp(&lab.host_b, &lab.host_a, Side::A.host(*family), 1_000_000);
        let stream = Stream::start(&lab.host_a, &lab.host_b, Side::B.host(*family));
        stream.wait_for(500);
        let outcome = stream.finish();
        assert_eq!(
            (outcome.lost, outcome.echoes_lost, outcome.duplicates),
            (0, 0, 0)
        );
    }

    eventually("both ends have counted the same", || {
        counters_agree(&a, &b).then_some(())
    });
    let child = &a.child_sas()[0];
    assert_eq!(child.get("encap"), plan.encap.then_some("yes"));
    let overheard = eavesdropper.finish();
    assert!(overheard.esp > 100, "{overheard:?}");
    overheard.assert_nothing_in_clear();
}

fn counters_agree(a: &Gateway, b: &Gateway) -> bool {
    let (at_a, at_b) = (a.child_sas(), b.child_sas());
    let is_same = |one: &Message, other: &Message| {
        ["spi", "packets", "bytes"].iter().all(|key| {
            let (into, out) = (format!("{key}-in"), format!("{key}-out"));
            one.get(&into) == other.get(&out) && one.get(&out) == other.get(&into)
        })
    };
    at_a.len() == at_b.len()
        && at_a
            .iter()
            .all(|one| at_b.iter().any(|other| is_same(one, other)))
}
