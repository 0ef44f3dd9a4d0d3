//! New keys while traffic flows: nothing may be lost and nothing delivered twice.

use crate::support::{
    eavesdropper::Eavesdropper,
    eventually,
    lab::{Family, Gateway, Lab, Plan, Side},
    traffic::Stream,
};

#[test]
fn child_rekeys_from_either_side_lose_and_repeat_nothing() {
    rekeys_under_traffic(&Plan::default(), &[("child", "net")]);
}

#[test]
fn ike_rekeys_from_either_side_lose_and_repeat_nothing() {
    rekeys_under_traffic(&Plan::default(), &[("ike", "lab")]);
}

#[test]
fn mixed_rekeys_with_two_workers_lose_and_repeat_nothing() {
    let plan = Plan {
        workers: 2,
        ..Plan::default()
    };
    rekeys_under_traffic(&plan, &[("child", "net"), ("ike", "lab")]);
}

#[test]
fn child_rekeys_over_raw_esp_lose_and_repeat_nothing() {
    let plan = Plan {
        encap: false,
        ..Plan::default()
    };
    rekeys_under_traffic(&plan, &[("child", "net")]);
}

/// A few packets make the key old: rekeying by volume, by whichever side notices first.
#[test]
fn rekeys_by_packet_count_lose_and_repeat_nothing() {
    let child = "rekey_packets = 1000\nlife_packets = 1000000\nrand_packets = 200".to_owned();
    let plan = Plan {
        child,
        ..Plan::default()
    };
    let Some(lab) = Lab::new() else { return };
    let [a, b] = lab.tunnel(&plan);
    let first = spis(&a);
    let stream = Stream::start(&lab.host_a, &lab.host_b, Side::B.host(Family::V4));
    for _ in 0..4 {
        let before = spis(&a);
        eventually("a rekey by volume", || (spis(&a) != before).then_some(()));
        stream.wait_for(100);
    }
    assert_clean(stream);
    assert_ne!(spis(&a), first);
    one_tunnel_is_left(&a, &b);
}

/// Both sides ask at the same moment, so that requests cross (RFC 7296 §2.8.1, §2.8.2).
#[test]
fn rekeys_from_both_sides_at_once_lose_and_repeat_nothing() {
    let Some(lab) = Lab::new() else { return };
    let gateways = lab.tunnel(&Plan::default());
    let [a, b] = &gateways;
    let stream = Stream::start(&lab.host_a, &lab.host_b, Side::B.host(Family::V4));
    for _ in 0..ROUNDS {
        for what in [("child", "net"), ("ike", "lab")] {
            let before = keys(a, what.0);
            std::thread::scope(|scope| {
                for gateway in &gateways {
                    scope.spawn(|| gateway.ask("rekey", &[what]));
                }
            });
            eventually("both ends use the same new keys", || {
                let (at_a, at_b) = (keys(a, what.0), keys(b, what.0));
                (at_a.len() == 1 && at_a == at_b && at_a != before).then_some(())
            });
            stream.wait_for(200);
        }
    }
    assert_clean(stream);
    one_tunnel_is_left(a, b);
}

fn rekeys_under_traffic(plan: &Plan, what: &[(&str, &str)]) {
    let Some(lab) = Lab::new() else { return };
    let eavesdropper = Eavesdropper::on(&lab);
    let [a, b] = lab.tunnel(plan);
    let streams = plan
        .inner
        .iter()
        .map(|family| Stream::start(&lab.host_a, &lab.host_b, Side::B.host(*family)))
        .collect::<Vec<_>>();
    for _ in 0..ROUNDS {
        for gateway in [&a, &b] {
            for what in what {
                let before = keys(gateway, what.0);
                gateway.command("rekey", &[*what]);
                eventually("both ends use the new keys", || {
                    let (at_a, at_b) = (keys(&a, what.0), keys(&b, what.0));
                    (at_a.len() == 1 && at_a == at_b && at_a != before).then_some(())
                });
                streams.iter().for_each(|stream| stream.wait_for(200));
            }
        }
    }
    streams.into_iter().for_each(assert_clean);
    one_tunnel_is_left(&a, &b);
    eavesdropper.finish().assert_nothing_in_clear();
}

#[track_caller]
fn assert_clean(stream: Stream) {
    let outcome = stream.finish();
    assert_eq!(
        (outcome.lost, outcome.echoes_lost, outcome.duplicates),
        (0, 0, 0),
        "{outcome:?}"
    );
}

fn one_tunnel_is_left(a: &Gateway, b: &Gateway) {
    for gateway in [a, b] {
        eventually("one tunnel is left", || {
            (gateway.ike_sas().len() == 1 && gateway.child_sas().len() == 1).then_some(())
        });
        for reason in [
            "integrity-failed",
            "unknown-spi",
            "replayed",
            "too-old",
            "no-outbound-sa",
        ] {
            assert_eq!(gateway.drops(reason), 0, "{reason}");
        }
    }
}

/// What names the keys in use, the same at both ends: the IKE SPIs, or the sum of both ESP SPIs.
fn keys(gateway: &Gateway, kind: &str) -> Vec<String> {
    let text = |sa: &lockgate::wire::vici::Message, key| sa.get(key).unwrap().to_owned();
    if kind == "ike" {
        let sas = gateway.established();
        return sas.iter().map(|sa| text(sa, "initiator-spi")).collect();
    }
    let children = gateway.child_sas();
    let pair = |child| {
        let mut pair = [text(child, "spi-in"), text(child, "spi-out")];
        pair.sort();
        pair.concat()
    };
    children.iter().map(pair).collect()
}

fn spis(gateway: &Gateway) -> Vec<String> {
    keys(gateway, "child")
}

const ROUNDS: usize = 3;
