//! A masquerading router in front of either gateway, which then is the one that initiates.

use std::{thread, time::Duration};

use super::pair::{Initiator, Pair};
use crate::support::{
    eventually,
    lab::{Family, NAT_OUTSIDE, Plan, Side},
    traffic::Stream,
};

fn connected(behind: Side, connection: &str, theirs: &str) -> Option<Pair> {
    let plan = Plan {
        inner: vec![Family::V4],
        nat: Some(behind),
        encap: false,
        connection: connection.to_owned(),
        ..Plan::default()
    };
    let initiator = match behind {
        Side::A => Initiator::Lockgate,
        Side::B => Initiator::StrongSwan,
    };
    Pair::connected(plan, theirs, initiator)
}

#[test]
fn a_tunnel_through_nat_comes_up_and_is_rekeyed_from_each_side() {
    for behind in [Side::A, Side::B] {
        let Some(pair) = connected(behind, "", "") else {
            return;
        };
        // Beside what is found, strongSwan pretends to be behind a NAT, for the sake of UDP.
        match behind {
            Side::A => assert!(pair.strongswan.sas().contains(NAT_OUTSIDE)),
            Side::B => {
                let sa = &pair.lockgate.established()[0];
                assert_eq!(sa.get("remote-host"), Some(NAT_OUTSIDE));
            }
        }
        assert_eq!(pair.lockgate.child_sas()[0].get("encap"), Some("yes"));
        pair.carries_traffic();
        let rekeys: [&dyn Fn(); 4] = [
            &|| drop(pair.lockgate.command("rekey", &[("child", "net")])),
            &|| drop(pair.strongswan.swanctl_ok(&["--rekey", "--child", "net"])),
            &|| drop(pair.lockgate.command("rekey", &[("ike", "lab")])),
            &|| drop(pair.strongswan.swanctl_ok(&["--rekey", "--ike", "lab"])),
        ];
        let stream = Stream::start(&pair.lab.host_a, &pair.lab.host_b, Side::B.host(Family::V4));
        for rekey in rekeys {
            let before = pair.spis();
            rekey();
            eventually("there are new keys", || {
                let now = pair.spis();
                let one = now.0.len() == 1 && now.1.len() == 1;
                (one && now != before).then_some(())
            });
            stream.wait_for(100);
        }
        let outcome = stream.finish();
        println!("{behind:?} behind NAT, 4 rekeys: {outcome:?}");
        let lost = outcome.lost + outcome.echoes_lost;
        assert!(lost <= 4 && outcome.duplicates == 0, "{outcome:?}");
        assert_eq!(pair.lockgate.drops("integrity-failed"), 0);
    }
}

/// The router forgets its mapping: who is outside learns the new one from what proves to be its peer's.
#[test]
fn a_router_that_forgets_its_mapping_does_not_end_the_tunnel() {
    for behind in [Side::A, Side::B] {
        // Who is outside is not to ask: strongSwan asks for ever where it has asked first.
        let (ours, theirs) = match behind {
            Side::A => ("dpd_delay = \"4s\"", "dpd_delay = 0s"),
            Side::B => ("dpd_delay = \"0s\"", "dpd_delay = 4s"),
        };
        let Some(pair) = connected(behind, ours, theirs) else {
            return;
        };
        pair.carries_traffic();
        let port = || match behind {
            Side::A => {
                let sas = pair.strongswan.sas();
                let (_, rest) = sas.split_once(&format!("{NAT_OUTSIDE}["))?;
                Some(rest.split_once(']')?.0.to_owned())
            }
            Side::B => {
                let sas = pair.lockgate.established();
                sas.first()?.get("remote-port").map(str::to_owned)
            }
        };
        let before = port();
        assert!(before.is_some());
        pair.lab.expire_mappings_after(1);
        eventually("the peer's new port is known", || {
            thread::sleep(Duration::from_millis(200));
            port().filter(|port| Some(port) != before.as_ref())
        });
        pair.lab.expire_mappings_after(120);
        pair.is_up();
        pair.carries_traffic();
    }
}
