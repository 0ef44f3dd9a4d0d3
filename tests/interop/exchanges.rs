//! Additional key exchanges (RFC 9370), which strongSwan has since 6.0.

use crate::pair::{Initiator, Pair};
use crate::support::{
    eventually,
    lab::{Family, Plan},
};

/// Proposals, and how strongSwan writes what came of them.
pub(crate) struct Exchanges {
    pub(crate) ike: (&'static str, &'static str),
    pub(crate) esp: (&'static str, &'static str),
}

/// Set-up, and rekeys of both SAs from each side, in both roles.
pub(crate) fn everywhere(exchanges: &Exchanges) {
    for initiator in Initiator::BOTH {
        let plan = Plan {
            proposal: exchanges.ike.0.to_owned(),
            esp_proposal: exchanges.esp.0.to_owned(),
            inner: vec![Family::V4],
            ..Plan::default()
        };
        let Some(pair) = Pair::connected(plan, "", initiator) else {
            return;
        };
        let has = |esp: &str| {
            let sas = pair.strongswan.sas();
            let shown = |what: &str, text: &str| {
                let mut lines = sas.lines().filter(|line| line.contains(what));
                let found = lines.any(|line| line.trim().ends_with(text));
                assert!(found, "{initiator:?}: {text} is not in {sas}");
            };
            shown("PRF_", exchanges.ike.1);
            shown("INSTALLED", esp);
            pair.carries_traffic();
        };
        // The first Child SA has its keys from the exchanges of the IKE SA.
        let esp = exchanges.esp.1;
        has(esp.split('/').next().unwrap());
        rekey(&pair, "child", || {
            pair.lockgate.command("rekey", &[("child", "net")]);
        });
        has(esp);
        rekey(&pair, "child", || {
            pair.strongswan.swanctl_ok(&["--rekey", "--child", "net"]);
        });
        has(esp);
        rekey(&pair, "ike", || {
            pair.lockgate.command("rekey", &[("ike", "lab")]);
        });
        has(esp);
        rekey(&pair, "ike", || {
            pair.strongswan.swanctl_ok(&["--rekey", "--ike", "lab"]);
        });
        has(esp);
        assert_eq!(pair.lockgate.drops("integrity-failed"), 0);
    }
}

/// Waits until what `act` replaces is replaced.
fn rekey(pair: &Pair, of: &str, act: impl Fn()) {
    let name = || {
        let (sas, key) = match of {
            "ike" => (pair.lockgate.established(), "initiator-spi"),
            _ => (pair.lockgate.child_sas(), "spi-in"),
        };
        let name = sas.first().and_then(|sa| sa.get(key));
        name.unwrap_or_default().to_owned()
    };
    let before = name();
    act();
    eventually("there are new keys", || {
        let now = name();
        (now != before && !now.is_empty()).then_some(())
    });
    pair.is_up();
}
