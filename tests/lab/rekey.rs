//! New keys while traffic flows: nothing may be lost and nothing delivered twice.

use std::{collections::BTreeSet, thread};

use lockgate::wire::vici::Message;

use crate::support::{
    eavesdropper::Eavesdropper,
    eventually,
    lab::{Family, Gateway, Lab, Plan, Side},
    traffic::Stream,
};

#[test]
fn child_rekeys_from_either_side_lose_and_repeat_nothing() {
    rekeys_under_traffic(&Plan::default(), &[CHILD]);
}

#[test]
fn ike_rekeys_from_either_side_lose_and_repeat_nothing() {
    rekeys_under_traffic(&Plan::default(), &[IKE]);
}

/// Make before break: the new SAs are there, and in use, before the old ones go.
#[test]
fn new_authentications_from_either_side_lose_and_repeat_nothing() {
    rekeys_under_traffic(&Plan::default(), &[REAUTHENTICATION]);
}

/// As clocks make them, the initiator's.
#[test]
fn new_authentications_every_two_seconds_lose_and_repeat_nothing() {
    let times = "reauth_time = \"2s\"\nrand_time = 0\nover_time = \"60s\"";
    let plan = Plan {
        connection: times.to_owned(),
        ..Plan::default()
    };
    let Some(lab) = Lab::new() else { return };
    let [a, b] = lab.tunnel(&plan);
    let stream = Stream::start(&lab.host_a, &lab.host_b, Side::B.host(Family::V4));
    let mut seen = BTreeSet::new();
    eventually("there were five new authentications", || {
        seen.extend(keys(&a, "ike"));
        (seen.len() > 5).then_some(())
    });
    assert_clean(stream);
    one_tunnel_is_left(&a, &b, plan.workers);
}

#[test]
fn mixed_rekeys_with_two_workers_lose_and_repeat_nothing() {
    let plan = Plan {
        workers: 2,
        ..Plan::default()
    };
    rekeys_under_traffic(&plan, &[CHILD, IKE]);
}

#[test]
fn child_rekeys_over_raw_esp_lose_and_repeat_nothing() {
    let plan = Plan {
        encap: false,
        ..Plan::default()
    };
    rekeys_under_traffic(&plan, &[CHILD]);
}

/// RFC 9611: flows move to the SA of their worker, are rekeyed with it, and survive its end.
#[test]
fn a_child_sa_for_every_worker_comes_and_goes_without_loss() {
    for encap in [true, false] {
        let plan = Plan {
            workers: 2,
            encap,
            ..Plan::default()
        };
        let Some(lab) = Lab::new() else { return };
        let gateways = lab.tunnel(&plan);
        let [a, b] = &gateways;
        let stream = || Stream::start(&lab.host_a, &lab.host_b, Side::B.host(Family::V4));
        let streams: Vec<_> = (0..4).map(|_| stream()).collect();
        let every_worker_has_one = |gateway: &Gateway| {
            let children = gateway.child_sas();
            let announced = |child: &Message| child.get("per-cpu-sas") == Some("yes");
            ["0", "1"].iter().all(|worker| {
                let mut own = children.iter().filter(|child| announced(child));
                own.any(|child| child.get("cpu") == Some(worker))
            })
        };
        for round in 0..2 {
            // A flow stays with the worker whose SA has brought it, so a worker without an SA sees
            // only the beginnings of new ones.
            eventually("every worker has a Child SA", || {
                let fresh = stream();
                fresh.wait_for(10);
                assert_clean(fresh);
                gateways.iter().all(every_worker_has_one).then_some(())
            });
            let before = spis(a);
            assert!(before.len() <= 3, "{before:?}");
            gateways[round].command("rekey", &[("child", "net")]);
            eventually("both ends use nothing but new keys", || {
                let (at_a, at_b) = (spis(a), spis(b));
                let new = at_a.iter().all(|key| !before.contains(key));
                (at_a == at_b && new).then_some(())
            });
            streams.iter().for_each(|stream| stream.wait_for(50));
            let child = gateways[round].child_sas().remove(round);
            let id = child.get("uniqueid").unwrap();
            gateways[round].command("terminate", &[("child-id", id)]);
            streams.iter().for_each(|stream| stream.wait_for(50));
            let ids = |child: &Message| child.get("uniqueid").unwrap().to_owned();
            assert!(
                gateways[round]
                    .child_sas()
                    .iter()
                    .all(|child| ids(child) != id)
            );
        }
        streams.into_iter().for_each(assert_clean);
        one_tunnel_is_left(a, b, plan.workers);
    }
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
    one_tunnel_is_left(&a, &b, plan.workers);
}

/// Both sides ask at the same moment, so that requests cross (RFC 7296 §2.8.1, §2.8.2).
#[test]
fn rekeys_from_both_sides_at_once_lose_and_repeat_nothing() {
    let Some(lab) = Lab::new() else { return };
    let gateways = lab.tunnel(&Plan::default());
    let [a, b] = &gateways;
    let stream = Stream::start(&lab.host_a, &lab.host_b, Side::B.host(Family::V4));
    for _ in 0..ROUNDS {
        for what in [CHILD, IKE] {
            let before = keys(a, what[0].0);
            thread::scope(|scope| {
                for gateway in &gateways {
                    scope.spawn(|| gateway.ask("rekey", what));
                }
            });
            eventually("both ends use the same new keys", || {
                let (at_a, at_b) = (keys(a, what[0].0), keys(b, what[0].0));
                (at_a.len() == 1 && at_a == at_b && at_a != before).then_some(())
            });
            stream.wait_for(200);
        }
    }
    assert_clean(stream);
    one_tunnel_is_left(a, b, 1);
}

/// One side replaces the child and the IKE SA every two seconds, thirty times each; in the lab beside
/// it the other one does.
#[test]
fn a_minute_of_rekeys_every_two_seconds_from_each_side_loses_nothing() {
    thread::scope(|scope| {
        for side in [Side::A, Side::B] {
            scope.spawn(move || rekeys_every_two_seconds(side));
        }
    });
}

fn rekeys_every_two_seconds(side: Side) {
    let plan = |at: Side| {
        let times = "rekey_time = \"2s\"\nrand_time = 0\n";
        let (connection, child) = match at == side {
            true => (
                format!("{times}over_time = \"60s\""),
                format!("{times}life_time = \"60s\""),
            ),
            false => ("rekey_time = 0".to_owned(), "rekey_time = 0".to_owned()),
        };
        Plan {
            inner: vec![Family::V4],
            connection,
            child,
            ..Plan::default()
        }
    };
    let Some(lab) = Lab::new() else { return };
    let b = lab.start(Side::B, &plan(Side::B).config(Side::B));
    let a = lab.start(Side::A, &plan(Side::A).config(Side::A));
    a.initiate("net");
    let stream = Stream::start(&lab.host_a, &lab.host_b, Side::B.host(Family::V4));
    let (mut ikes, mut children) = (BTreeSet::new(), BTreeSet::new());
    while ikes.len() <= 30 || children.len() <= 30 {
        let seen = children.len();
        eventually("there are new keys", || {
            ikes.extend(keys(&a, "ike"));
            children.extend(spis(&a));
            (children.len() > seen).then_some(())
        });
    }
    let rekeys = ikes.len() + children.len() - 2;
    let outcome = stream.finish();
    println!("{side:?} makes {rekeys} rekeys: {outcome:?}");
    let lost = (outcome.lost, outcome.echoes_lost, outcome.duplicates);
    assert_eq!(lost, (0, 0, 0), "{outcome:?}");
    one_tunnel_is_left(&a, &b, 1);
}

fn rekeys_under_traffic(plan: &Plan, what: &[Rekey]) {
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
                let kinds = match *what {
                    REAUTHENTICATION => &["ike", "child"][..],
                    _ => &[what[0].0],
                };
                let all = |gateway| kinds.iter().flat_map(move |kind| keys(gateway, kind));
                let before: Vec<_> = all(gateway).collect();
                gateway.command("rekey", what);
                eventually("both ends use nothing but new keys", || {
                    let [at_a, at_b]: [Vec<_>; 2] = [&a, &b].map(|gateway| all(gateway).collect());
                    let new = at_a.iter().all(|key| !before.contains(key));
                    (at_a.len() >= kinds.len() && at_a == at_b && new).then_some(())
                });
                streams.iter().for_each(|stream| stream.wait_for(200));
            }
        }
    }
    streams.into_iter().for_each(assert_clean);
    one_tunnel_is_left(&a, &b, plan.workers);
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

/// With a Child SA for each worker that has asked for one.
fn one_tunnel_is_left(a: &Gateway, b: &Gateway, workers: u16) {
    for gateway in [a, b] {
        eventually("one tunnel is left", || {
            let children = gateway.child_sas().len();
            let is_one = (1..=usize::from(2 * workers - 1)).contains(&children);
            (gateway.ike_sas().len() == 1 && is_one).then_some(())
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
    let text = |sa: &Message, key| sa.get(key).unwrap().to_owned();
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
    let mut keys: Vec<String> = children.iter().map(pair).collect();
    keys.sort();
    keys
}

fn spis(gateway: &Gateway) -> Vec<String> {
    keys(gateway, "child")
}

const ROUNDS: usize = 3;

/// What the command `rekey` is told.
type Rekey = &'static [(&'static str, &'static str)];

const CHILD: Rekey = &[("child", "net")];
const IKE: Rekey = &[("ike", "lab")];
const REAUTHENTICATION: Rekey = &[("ike", "lab"), ("reauth", "yes")];
