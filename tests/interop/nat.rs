//! A masquerading router in front of either gateway, which then is the one that initiates.

use std::{thread, time::Duration};

use super::pair::{Initiator, Pair};
use crate::support::{
    eventually,
    lab::{Family, NAT_OUTSIDE, Plan, Side},
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

/// The router forgets its mapping: who is outside learns the new one from what proves to be its peer's.
#[test]
fn a_router_that_forgets_its_mapping_does_not_end_the_tunnel() {
    for behind in [Side::A, Side::B] {
        let Some(pair) = connected(behind, "dpd_delay = \"4s\"", "dpd_delay = 4s") else {
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
