//! New keys and new authentications while traffic flows, by the clock of each side.

use std::{collections::BTreeSet, fs, thread};

use super::pair::{Initiator, Pair, Spis};
use crate::support::{
    eventually,
    lab::{Family, Lab, Plan, Side},
    traffic::{Stream, WINDOW},
};

fn plan(connection: &str, child: &str) -> Plan {
    Plan {
        inner: vec![Family::V4],
        connection: connection.to_owned(),
        child: child.to_owned(),
        ..Plan::default()
    }
}

/// Runs traffic through thirty rekeys of the child and as many of the IKE SA, which one side makes
/// every two seconds. As many packets may be lost as there were rekeys: strongSwan, as responder,
/// does not receive on a new SA before it has sent its answer.
fn rekeys_every_two_seconds(ours: Plan, theirs: (&str, &str), who: &str) {
    let (connection, child) = theirs;
    let with_child = |of: Initiator, config: String| match of {
        Initiator::StrongSwan => config.replacen("local_ts =", &format!("{child}\n local_ts ="), 1),
        Initiator::Lockgate => config,
    };
    let Some(pair) = Pair::changed(ours, connection, with_child) else {
        return;
    };
    pair.initiate(Initiator::Lockgate);
    let stream = Stream::start(&pair.lab.host_a, &pair.lab.host_b, Side::B.host(Family::V4));
    let (mut ikes, mut children) = (BTreeSet::new(), BTreeSet::new());
    while ikes.len() <= REKEYS || children.len() <= REKEYS {
        let seen = children.len();
        eventually("there are new keys", || {
            let (ike, child) = pair.spis();
            ikes.extend(ike);
            children.extend(child);
            (children.len() > seen).then_some(())
        });
    }
    let outcome = stream.finish();
    let rekeys = ikes.len() + children.len() - 2;
    let lost = outcome.lost + outcome.echoes_lost;
    println!(
        "{who}: {rekeys} rekeys, {lost} of {} packets lost",
        outcome.sent
    );
    assert!(lost <= rekeys as u64, "{outcome:?}");
    assert_eq!(outcome.duplicates, 0, "{outcome:?}");
    assert_eq!(pair.lockgate.drops("integrity-failed"), 0);
    pair.carries_traffic();
}

/// Side by side, for each takes a minute.
#[test]
fn a_minute_of_rekeys_every_two_seconds_from_each_side_under_traffic() {
    let times = "rekey_time = \"2s\"\nrand_time = 0\n";
    let lockgate = plan(
        &format!("{times}over_time = \"60s\""),
        &format!("{times}life_time = \"60s\""),
    );
    let strongswan = (
        "rekey_time = 2s\n over_time = 60s\n rand_time = 0s",
        "rekey_time = 2s\n life_time = 60s\n rand_time = 0s",
    );
    let never = plan("rekey_time = 0", "rekey_time = 0");
    thread::scope(|scope| {
        scope.spawn(|| {
            let theirs = ("rekey_time = 0", "rekey_time = 0");
            rekeys_every_two_seconds(lockgate, theirs, "Lockgate rekeys");
        });
        scope.spawn(|| rekeys_every_two_seconds(never, strongswan, "strongSwan rekeys"));
    });
}

/// strongSwan deletes before it makes, unless it is told otherwise.
#[test]
fn either_side_authenticates_anew_under_traffic_when_it_is_told_to() {
    for (make_before_break, initiator) in [
        ("no", Initiator::Lockgate),
        ("yes", Initiator::Lockgate),
        ("no", Initiator::StrongSwan),
        ("yes", Initiator::StrongSwan),
    ] {
        let settings = format!("charon-systemd {{ make_before_break = {make_before_break} }}");
        let prepare = |lab: &Lab| fs::write(lab.folder.path().join("more.conf"), settings).unwrap();
        let Some(pair) = Pair::prepared(plan("", ""), "", prepare, |_, config| config) else {
            return;
        };
        pair.initiate(initiator);
        for who in Initiator::BOTH {
            let before = pair.spis();
            let host = Side::B.host(Family::V4);
            let stream = Stream::start(&pair.lab.host_a, &pair.lab.host_b, host);
            match who {
                Initiator::Lockgate => {
                    pair.lockgate
                        .command("rekey", &[("ike", "lab"), ("reauth", "yes")]);
                }
                Initiator::StrongSwan => {
                    pair.strongswan
                        .swanctl_ok(&["--rekey", "--ike", "lab", "--reauth"]);
                }
            }
            has_other_sas(&pair, &before);
            stream.wait_for(200);
            let outcome = stream.finish();
            let lost = outcome.lost + outcome.echoes_lost;
            println!(
                "{initiator:?} has initiated, {who:?} authenticates anew, make_before_break = \
                 {make_before_break}: {lost} of {} packets lost",
                outcome.sent
            );
            // As responder strongSwan sends on the new child before its answer has arrived.
            if who == Initiator::Lockgate || make_before_break == "yes" {
                assert!(lost <= WINDOW as u64, "{outcome:?}");
            }
            assert_eq!(outcome.duplicates, 0, "{outcome:?}");
            pair.carries_traffic();
        }
    }
}

/// RFC 4478: strongSwan keeps to what Lockgate says.
#[test]
fn strongswan_authenticates_anew_before_the_time_that_lockgate_sets() {
    let ours = "reauth_time = \"10s\"\nover_time = \"20s\"\nrand_time = 0";
    let theirs = "over_time = 2s";
    let Some(pair) = Pair::connected(plan(ours, ""), theirs, Initiator::StrongSwan) else {
        return;
    };
    let before = pair.spis();
    assert!(pair.strongswan.process.output().contains("AUTH_LFT"));
    has_other_sas(&pair, &before);
    pair.carries_traffic();
}

/// RFC 4478: strongSwan says it only where it cannot begin itself, as with an address that it has given.
#[test]
fn lockgate_authenticates_anew_before_the_time_that_strongswan_sets() {
    let theirs = "reauth_time = 10s\n over_time = 20s\n rand_time = 0s\n pools = guests";
    let pair = Pair::changed(plan("vips = [\"0.0.0.0\"]", ""), theirs, |whose, config| {
        let network = Side::A.network(Family::V4).to_string();
        let config = config.replace(&network, "dynamic");
        match whose {
            Initiator::Lockgate => config,
            Initiator::StrongSwan => config + "pools { guests { addrs = 10.3.0.0/24 } }\n",
        }
    });
    let Some(pair) = pair else { return };
    pair.initiate(Initiator::Lockgate);
    let before = pair.spis();
    let log = pair.lockgate.process.output();
    assert!(
        log.contains("peer wants a new authentication within"),
        "{log}"
    );
    has_other_sas(&pair, &before);
}

/// Waits until both SAs have been replaced.
#[track_caller]
fn has_other_sas(pair: &Pair, before: &Spis) {
    eventually("there is another IKE SA", || {
        let now = pair.spis();
        let new = now.0.len() == 1 && now.0 != before.0 && now.1 != before.1;
        new.then_some(())
    });
    pair.is_up();
}

#[test]
fn the_first_child_gets_an_exchange_of_its_own_where_both_sides_like_that() {
    for (initiator, ours, theirs) in [
        (Initiator::Lockgate, "prefer", "allow"),
        (Initiator::Lockgate, "force", "force"),
        (Initiator::StrongSwan, "allow", "force"),
        (Initiator::StrongSwan, "force", "force"),
    ] {
        let (ours, theirs) = (
            format!("childless = \"{ours}\""),
            format!("childless = {theirs}"),
        );
        let Some(pair) = Pair::connected(plan(&ours, ""), &theirs, initiator) else {
            return;
        };
        let log = pair.strongswan.process.output();
        assert!(log.contains("CREATE_CHILD_SA request"), "{log}");
        pair.carries_traffic();
    }
}

/// Of each kind.
const REKEYS: usize = 30;
