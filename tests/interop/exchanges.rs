//! Additional key exchanges (RFC 9370), which strongSwan has since 6.0. Debian builds it without ML-KEM, so
//! that others stand in for it.

use crate::matrix::pair::{Initiator, Pair};
use crate::support::{
    eventually,
    lab::{Family, Plan},
};

#[test]
fn set_up_and_rekeys_from_each_side_have_additional_key_exchanges() {
    for initiator in Initiator::BOTH {
        let plan = Plan {
            proposal: "aes256gcm16-prfsha384-x25519-ke1_ecp384-ke2_modp2048".to_owned(),
            esp_proposal: "aes256gcm16-x25519-ke1_ecp256-ke3_ecp521".to_owned(),
            inner: vec![Family::V4],
            ..Plan::default()
        };
        let Some(pair) = Pair::connected(plan, "", initiator) else {
            return;
        };
        let has = |ike: &str, esp: &str| {
            let sas = pair.strongswan.sas();
            let shown = |what: &str, text: &str| {
                let mut lines = sas.lines().filter(|line| line.contains(what));
                let found = lines.any(|line| line.trim().ends_with(text));
                assert!(found, "{initiator:?}: {text} is not in {sas}");
            };
            shown("PRF_", ike);
            shown("INSTALLED", esp);
            pair.carries_traffic();
        };
        let ike = "CURVE_25519/KE1_ECP_384/KE2_MODP_2048";
        let esp = "AES_GCM_16-256/CURVE_25519/KE1_ECP_256/KE3_ECP_521";
        has(ike, "AES_GCM_16-256");
        rekey(&pair, "child", || {
            pair.lockgate.command("rekey", &[("child", "net")]);
        });
        has(ike, esp);
        rekey(&pair, "child", || {
            pair.strongswan.swanctl_ok(&["--rekey", "--child", "net"]);
        });
        has(ike, esp);
        rekey(&pair, "ike", || {
            pair.lockgate.command("rekey", &[("ike", "lab")]);
        });
        has(ike, esp);
        rekey(&pair, "ike", || {
            pair.strongswan.swanctl_ok(&["--rekey", "--ike", "lab"]);
        });
        has(ike, esp);
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
