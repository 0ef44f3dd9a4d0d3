//! Long messages in fragments (RFC 7383).

use super::pair::{Initiator, Pair};
use crate::support::{
    eventually,
    lab::{Family, Plan},
};

/// So many selectors that they need three fragments of 576 bytes.
fn networks(second: u8) -> Vec<String> {
    let nets = (0..60).map(|third| format!("10.{second}.{}.0/24", 2 * third));
    nets.collect()
}

#[test]
fn long_messages_pass_in_fragments_in_both_directions() {
    let (ours, theirs) = (networks(101), vec!["10.2.0.0/24".to_owned()]);
    let quoted = |list: &[String]| {
        let quoted = list.iter().map(|net| format!("\"{net}\""));
        quoted.collect::<Vec<_>>().join(", ")
    };
    let plan = Plan {
        inner: vec![Family::V4],
        daemon: "fragment_size = 576".to_owned(),
        more: format!(
            "[connections.lab.children.wide]\nlocal_ts = [{}]\nremote_ts = [{}]\n\
             esp_proposals = [\"aes256gcm16-x25519\"]\n",
            quoted(&ours),
            quoted(&theirs)
        ),
        ..Plan::default()
    };
    let connection = format!(
        "children {{ wide {{\n local_ts = {}\n remote_ts = {}\n \
         esp_proposals = aes256gcm16-x25519 \n}} }}",
        theirs.join(","),
        ours.join(",")
    );
    for initiator in Initiator::BOTH {
        let Some(pair) = Pair::new(plan.clone(), &connection) else {
            return;
        };
        match initiator {
            Initiator::Lockgate => pair.lockgate.initiate("wide"),
            Initiator::StrongSwan => {
                let wide = ["--initiate", "--child", "wide", "--timeout", "20"];
                pair.strongswan.swanctl_ok(&wide);
            }
        }
        // The child of IKE_AUTH, and a rekey from each side.
        pair.lockgate.command("rekey", &[("child", "wide")]);
        pair.strongswan.swanctl_ok(&["--rekey", "--child", "wide"]);
        eventually("three messages of each side have come in fragments", || {
            let log = pair.strongswan.process.output();
            let count = |what: &str| log.lines().filter(|line| line.contains(what)).count();
            let sent = count("splitting IKE message");
            let received = count("reassembled fragmented IKE message");
            (sent >= 3 && received >= 3).then_some(())
        });
        for reason in ["integrity-failed", "stale-fragment", "fragment-limit"] {
            assert_eq!(pair.lockgate.discards(reason), 0, "{reason}");
        }
        match initiator {
            Initiator::Lockgate => pair.lockgate.initiate("net"),
            Initiator::StrongSwan => {
                let net = ["--initiate", "--child", "net", "--timeout", "20"];
                pair.strongswan.swanctl_ok(&net);
            }
        }
        pair.carries_traffic();
    }
}
