//! Rekeying, deleting and liveness, from each side of a tunnel that each side initiated.

use super::pair::{Initiator, Pair};
use crate::support::{
    eventually,
    lab::{Family, Plan},
};

/// Perfect forward secrecy for the child, so that a rekey has a key exchange of its own.
fn plan() -> Plan {
    Plan {
        inner: vec![Family::V4],
        ..Plan::default()
    }
}

/// What identifies the keys at Lockgate's end.
fn keys(pair: &Pair, of: &str) -> String {
    let sa = if of == "ike" {
        pair.lockgate.established()
    } else {
        pair.lockgate.child_sas()
    };
    let key = if of == "ike" {
        "initiator-spi"
    } else {
        "spi-in"
    };
    sa.first()
        .and_then(|sa| sa.get(key))
        .unwrap_or_default()
        .to_owned()
}

fn rekeys(of: &str, rekey: impl Fn(&Pair)) {
    for initiator in Initiator::BOTH {
        let Some(pair) = Pair::connected(plan(), "", initiator) else {
            return;
        };
        for round in 0..2 {
            let before = keys(&pair, of);
            rekey(&pair);
            eventually("there are new keys", || {
                let now = keys(&pair, of);
                (now != before && !now.is_empty()).then_some(())
            });
            pair.is_up();
            pair.carries_traffic();
            let failed = pair.lockgate.drops("integrity-failed");
            assert_eq!(failed, 0, "{initiator:?}, round {round}");
        }
    }
}

#[test]
fn lockgate_rekeys_the_child() {
    rekeys("child", |pair| {
        pair.lockgate.command("rekey", &[("child", "net")]);
    });
}

#[test]
fn strongswan_rekeys_the_child() {
    rekeys("child", |pair| {
        pair.strongswan.swanctl_ok(&["--rekey", "--child", "net"]);
    });
}

#[test]
fn lockgate_rekeys_the_ike_sa() {
    rekeys("ike", |pair| {
        pair.lockgate.command("rekey", &[("ike", "lab")]);
    });
}

#[test]
fn strongswan_rekeys_the_ike_sa() {
    rekeys("ike", |pair| {
        pair.strongswan.swanctl_ok(&["--rekey", "--ike", "lab"]);
    });
}

#[test]
fn lockgate_deletes_the_child_and_brings_it_up_again() {
    for initiator in Initiator::BOTH {
        let Some(pair) = Pair::connected(plan(), "", initiator) else {
            return;
        };
        pair.lockgate.command("terminate", &[("child", "net")]);
        eventually("strongSwan has no child", || {
            (!pair.strongswan.sas().contains("INSTALLED")).then_some(())
        });
        pair.initiate(initiator);
        pair.carries_traffic();
    }
}

#[test]
fn strongswan_deletes_the_child_and_brings_it_up_again() {
    for initiator in Initiator::BOTH {
        let Some(pair) = Pair::connected(plan(), "", initiator) else {
            return;
        };
        pair.strongswan
            .swanctl_ok(&["--terminate", "--child", "net"]);
        eventually("Lockgate has no child", || {
            pair.lockgate.child_sas().is_empty().then_some(())
        });
        pair.initiate(initiator);
        pair.carries_traffic();
    }
}

#[test]
fn lockgate_deletes_the_ike_sa() {
    for initiator in Initiator::BOTH {
        let Some(pair) = Pair::connected(plan(), "", initiator) else {
            return;
        };
        pair.lockgate.command("terminate", &[("ike", "lab")]);
        pair.is_down();
        pair.initiate(initiator);
        pair.carries_traffic();
    }
}

#[test]
fn strongswan_deletes_the_ike_sa() {
    for initiator in Initiator::BOTH {
        let Some(pair) = Pair::connected(plan(), "", initiator) else {
            return;
        };
        pair.strongswan.swanctl_ok(&["--terminate", "--ike", "lab"]);
        pair.is_down();
        pair.initiate(initiator);
        pair.carries_traffic();
    }
}

#[test]
fn lockgate_stops_and_strongswan_is_told() {
    let Some(mut pair) = Pair::connected(plan(), "", Initiator::Lockgate) else {
        return;
    };
    assert!(pair.lockgate.process.terminate().success());
    eventually("strongSwan shows no tunnel", || {
        pair.strongswan.sas().trim().is_empty().then_some(())
    });
}

/// Each side in turn checks the other every second while nothing else is sent, and stays satisfied.
/// Not both at once: who is asked has no reason to ask.
#[test]
fn liveness_checks_are_answered_in_both_directions() {
    let sides = [
        (
            "1s",
            "0s",
            "parsed INFORMATIONAL request",
            "generating INFORMATIONAL response",
        ),
        (
            "0s",
            "1s",
            "generating INFORMATIONAL request",
            "parsed INFORMATIONAL response",
        ),
    ];
    for (ours, theirs, asked, answered) in sides {
        let plan = Plan {
            connection: format!("dpd_delay = \"{ours}\""),
            ..plan()
        };
        let theirs = format!("dpd_delay = {theirs}");
        let Some(pair) = Pair::connected(plan, &theirs, Initiator::Lockgate) else {
            return;
        };
        let ike = keys(&pair, "ike");
        eventually("one side has asked and the other answered", || {
            let log = pair.strongswan.process.output();
            let seen = |what: &str| log.lines().filter(|line| line.contains(what)).count() >= 2;
            (seen(asked) && seen(answered)).then_some(())
        });
        assert_eq!(keys(&pair, "ike"), ike);
        pair.carries_traffic();
    }
}

#[test]
fn lockgate_notices_that_strongswan_died() {
    let plan = Plan {
        connection: "dpd_delay = \"1s\"".to_owned(),
        ..plan()
    };
    let Some(mut pair) = Pair::connected(plan, "", Initiator::StrongSwan) else {
        return;
    };
    pair.strongswan.process.kill();
    eventually("Lockgate has given up", || {
        pair.lockgate.ike_sas().is_empty().then_some(())
    });
}

#[test]
fn strongswan_notices_that_lockgate_died() {
    let Some(mut pair) = Pair::connected(plan(), "dpd_delay = 1s", Initiator::Lockgate) else {
        return;
    };
    pair.lockgate.process.kill();
    eventually("strongSwan has given up", || {
        pair.strongswan.sas().trim().is_empty().then_some(())
    });
}

/// `swanctl` of the same package shows our SAs as it shows its own daemon's.
#[test]
fn swanctl_reads_our_control_socket() {
    let Some(pair) = Pair::connected(plan(), "", Initiator::Lockgate) else {
        return;
    };
    let ours = |arguments: &[&str]| {
        let socket = format!("unix://{}", pair.lockgate.socket().display());
        pair.strongswan.swanctl_at(arguments, &socket)
    };
    let sas = ours(&["--list-sas"]);
    for part in [
        "lab: #1, ESTABLISHED, IKEv2",
        "local  'gw-a.example' @ 192.0.2.1[4500]",
        "remote 'gw-b.example' @ 192.0.2.2[4500]",
        "AES_GCM_16-256/PRF_HMAC_SHA2_384/CURVE_25519",
        "INSTALLED, TUNNEL-in-UDP, ESP:AES_GCM_16-256",
        "local  10.1.0.0/24",
        "remote 10.2.0.0/24",
    ] {
        assert!(sas.contains(part), "{part} is not in\n{sas}");
    }
    assert!(ours(&["--list-conns"]).contains("lab: IKEv2"));
    assert!(ours(&["--stats"]).contains("uptime"));
    assert!(ours(&["--version", "--daemon"]).contains("lockgate"));
    assert!(ours(&["--list-pols"]).contains("net"));
    assert!(ours(&["--rekey", "--child", "net"]).contains("rekey completed successfully"));
    assert!(ours(&["--terminate", "--ike", "lab"]).contains("terminate completed successfully"));
    assert!(ours(&["--initiate", "--child", "net"]).contains("initiate completed successfully"));
    pair.is_up();
}
