//! Identities of each type with a secret that belongs to them, with either side as initiator.

use super::pair::{Initiator, Pair};
use crate::support::lab::{Plan, Side};

/// A's and B's, as Lockgate and as strongSwan write them.
const IDENTITIES: [[[&str; 2]; 2]; 5] = [
    [["@#0102", "@#a0b1c2d3"], ["@#0102", "@#a0b1c2d3"]],
    // What is text for one is the same as its bytes for the other.
    [["keyid:gw a", "keyid:gw b"], ["@#67772061", "@#67772062"]],
    [
        ["203.0.113.1", "203.0.113.2"],
        ["203.0.113.1", "203.0.113.2"],
    ],
    [
        ["2001:db8:1::1", "2001:db8:1::2"],
        ["2001:db8:1::1", "2001:db8:1::2"],
    ],
    [
        ["a@gw.example", "b@gw.example"],
        ["a@gw.example", "b@gw.example"],
    ],
];

#[test]
fn key_ids_addresses_and_mail_addresses_name_either_side() {
    for [ours, theirs] in IDENTITIES {
        let pair = Pair::changed(Plan::default(), "", |whose, config| {
            let write = |config: String, side: Side, id: &str| match whose {
                Initiator::Lockgate => config.replace(side.identity(), id),
                Initiator::StrongSwan => config.replace(side.identity(), &format!("\"{id}\"")),
            };
            let [a, b] = match whose {
                Initiator::Lockgate => ours,
                Initiator::StrongSwan => theirs,
            };
            write(write(config, Side::A, a), Side::B, b)
        });
        let Some(pair) = pair else { return };
        for (before, initiator) in Initiator::BOTH.into_iter().enumerate() {
            pair.initiate(initiator);
            let log = pair.lockgate.process.output();
            let proofs = log.matches("authenticated with a shared secret");
            assert_eq!(proofs.count(), before + 1, "{log}");
            assert!(!log.contains(Side::B.identity()), "{log}");
            pair.strongswan.swanctl_ok(&["--terminate", "--ike", "lab"]);
            pair.is_down();
        }
    }
}
