//! Post-quantum preshared keys with IKE_AUTH (RFC 8784); strongSwan has no others.

use super::pair::{Initiator, Pair};
use crate::support::{
    eventually,
    lab::{Family, Plan},
};

const KEY: &str = "0x00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";

/// A plan whose connection of Lockgate has these lines, and a key of this name.
fn plan(connection: &str, name: &str) -> Plan {
    Plan {
        inner: vec![Family::V4],
        connection: connection.to_owned(),
        more: format!("[secrets.ppk-lab]\nid = \"{name}\"\nsecret = \"{KEY}\"\n"),
        ..Plan::default()
    }
}

fn mixes(pair: &Pair) -> bool {
    let log = pair.lockgate.process.output();
    log.contains("mixing in the post-quantum")
}

#[test]
fn a_key_that_both_sides_insist_on_is_used_and_outlives_rekeys() {
    let ours = "ppk_id = \"quantum.example\"\nppk_required = true";
    let theirs = "ppk_id = quantum.example\n ppk_required = yes";
    for initiator in Initiator::BOTH {
        let plan = plan(ours, "quantum.example");
        let Some(pair) = Pair::connected(plan, theirs, initiator) else {
            return;
        };
        assert!(mixes(&pair));
        let before = pair.lockgate.ike_sas();
        pair.lockgate.command("rekey", &[("ike", "lab")]);
        pair.strongswan.swanctl_ok(&["--rekey", "--ike", "lab"]);
        pair.strongswan.swanctl_ok(&["--rekey", "--child", "net"]);
        eventually("the IKE SA was rekeyed", || {
            let now = pair.lockgate.ike_sas();
            (now.len() == 1 && now[0].get("uniqueid") != before[0].get("uniqueid")).then_some(())
        });
        pair.is_up();
        pair.carries_traffic();
    }
}

#[test]
fn a_key_that_only_the_initiator_has_is_left_out_where_neither_insists() {
    for (initiator, ours, theirs) in [
        (Initiator::Lockgate, "ppk_id = \"other.example\"", ""),
        (Initiator::StrongSwan, "", "ppk_id = quantum.example"),
    ] {
        let plan = plan(ours, "other.example");
        let Some(pair) = Pair::connected(plan, theirs, initiator) else {
            return;
        };
        assert!(!mixes(&pair));
        pair.carries_traffic();
    }
}

#[test]
fn a_key_that_only_strongswan_insists_on_stops_the_tunnel() {
    let plan = plan("ppk_id = \"other.example\"", "other.example");
    let theirs = "ppk_id = quantum.example\n ppk_required = yes";
    let Some(pair) = Pair::new(plan, theirs) else {
        return;
    };
    let refused = ["--initiate", "--child", "net", "--timeout", "20"];
    assert!(!pair.strongswan.swanctl(&refused).status.success());
    pair.is_down();
}
