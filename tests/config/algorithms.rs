//! Proposals that name what is unknown, does not fit together, or can be broken.

use super::{SITE_A, mistakes::mistakes, parse};

#[test]
fn a_wrong_proposal_names_the_keyword_and_the_nearest_one() {
    let found = mistakes(&SITE_A.replace("aes256gcm16-x25519", "aes256gcm61-x25519"));
    assert_eq!(found.len(), 1, "{found:?}");
    let start = "gw.toml:14: connections.site-b.children.lan.esp_proposals: unknown algorithm \
                 \"aes256gcm61\"; did you mean aes256gcm16? allowed: ";
    assert!(found[0].starts_with(start), "{found:?}");
}

#[test]
fn algorithms_that_do_not_fit_together_or_the_protocol_are_refused_with_the_reason() {
    for (key, proposal, reason) in [
        (
            "proposals",
            "aes128gmac-prfsha256-x25519",
            "does not encrypt",
        ),
        (
            "proposals",
            "aes128ctr-prfsha256-x25519",
            "needs an integrity",
        ),
        ("esp_proposals", "aes128ctr", "needs an integrity algorithm"),
        (
            "esp_proposals",
            "aes256gmac-sha256",
            "authenticates by itself",
        ),
        (
            "esp_proposals",
            "aes256ccm8-sha256",
            "authenticates by itself",
        ),
    ] {
        let (at, old) = if key == "proposals" {
            ("6: connections.site-b", "aes256gcm16-prfsha384-x25519")
        } else {
            ("14: connections.site-b.children.lan", "aes256gcm16-x25519")
        };
        let found = mistakes(&SITE_A.replace(old, proposal));
        assert_eq!(found.len(), 1, "{proposal}: {found:?}");
        let line = &found[0];
        assert!(line.contains(&format!("{at}.{key}: ")), "{line}");
        assert!(line.contains(reason), "{line}");
    }
}

#[test]
fn a_weak_algorithm_needs_allow_weak_and_is_warned_of_even_then() {
    let ike = ("aes256gcm16-prfsha384-x25519", "3des-md5-modp1024");
    let esp = ("aes256gcm16-x25519", "aes128-md5");
    let weak = SITE_A.replace(ike.0, ike.1).replace(esp.0, esp.1);
    let found = mistakes(&weak);
    assert_eq!(
        found,
        [
            "gw.toml:6: connections.site-b.proposals: \"3des-md5-modp1024\": 3des and md5 and prfmd5 \
             and modp1024 can be broken; for a peer that has nothing better, set allow_weak = true in \
             the connection",
            "gw.toml:14: connections.site-b.children.lan.esp_proposals: \"aes128-md5\": md5 can be \
             broken; for a peer that has nothing better, set allow_weak = true in the connection",
        ]
    );

    let allowed = weak.replace("version = 2", "version = 2\nallow_weak = true");
    let warnings: Vec<String> = parse(&allowed)
        .warnings
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(
        warnings,
        [
            "gw.toml:7: connections.site-b.proposals: \"3des-md5-modp1024\": 3des and md5 and prfmd5 \
             and modp1024 can be broken",
            "gw.toml:15: connections.site-b.children.lan.esp_proposals: \"aes128-md5\": md5 can be \
             broken",
        ]
    );
    let strong = SITE_A.replace("version = 2", "version = 2\nallow_weak = true");
    assert!(parse(&strong).warnings.is_empty());
}
