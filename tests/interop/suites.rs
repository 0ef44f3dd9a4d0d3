//! One tunnel for each suite, initiated by each side, carrying ping and TCP.

use super::pair::{Initiator, Pair};
use crate::support::lab::{Family, Plan};

#[test]
fn aes_gcm_with_x25519() {
    suite(
        ("aes256gcm16-prfsha384-x25519", "aes256gcm16-x25519"),
        (
            "AES_GCM_16-256/PRF_HMAC_SHA2_384/CURVE_25519",
            "AES_GCM_16-256",
        ),
    );
}

#[test]
fn aes_gcm_128_with_ecp256() {
    suite(
        ("aes128gcm16-prfsha256-ecp256", "aes128gcm16-ecp256"),
        ("AES_GCM_16-128/PRF_HMAC_SHA2_256/ECP_256", "AES_GCM_16-128"),
    );
}

#[test]
fn chacha20_poly1305_with_ecp256() {
    suite(
        (
            "chacha20poly1305-prfsha256-ecp256",
            "chacha20poly1305-ecp256",
        ),
        (
            "CHACHA20_POLY1305/PRF_HMAC_SHA2_256/ECP_256",
            "CHACHA20_POLY1305",
        ),
    );
}

#[test]
fn cbc_and_sha256_with_modp2048() {
    suite(
        ("aes256-sha256-modp2048", "aes256-sha256-modp2048"),
        (
            "AES_CBC-256/HMAC_SHA2_256_128/PRF_HMAC_SHA2_256/MODP_2048",
            "AES_CBC-256/HMAC_SHA2_256_128",
        ),
    );
}

#[test]
fn cbc_and_sha512_with_modp4096_and_sha1_with_ecp521() {
    suite(
        ("aes192-sha512-modp4096", "aes128-sha1"),
        (
            "AES_CBC-192/HMAC_SHA2_512_256/PRF_HMAC_SHA2_512/MODP_4096",
            "AES_CBC-128/HMAC_SHA1_96",
        ),
    );
    suite(
        ("aes128-sha384-ecp521", "aes192-sha384"),
        (
            "AES_CBC-128/HMAC_SHA2_384_192/PRF_HMAC_SHA2_384/ECP_521",
            "AES_CBC-192/HMAC_SHA2_384_192",
        ),
    );
}

#[test]
fn aes_gcm_192_with_ecp384_and_a_longer_cbc_key_with_modp3072() {
    suite(
        ("aes192gcm16-prfsha512-ecp384", "aes192gcm16-ecp384"),
        ("AES_GCM_16-192/PRF_HMAC_SHA2_512/ECP_384", "AES_GCM_16-192"),
    );
    suite(
        ("aes256-sha1-modp3072", "aes256-sha512-modp3072"),
        (
            "AES_CBC-256/HMAC_SHA1_96/PRF_HMAC_SHA1/MODP_3072",
            "AES_CBC-256/HMAC_SHA2_512_256",
        ),
    );
}

#[test]
fn aes_ctr_with_modp6144() {
    for (ike, esp, ike_shown, esp_shown) in [
        (
            "aes192ctr-sha256-x25519",
            "aes128ctr-sha1",
            "AES_CTR-192/HMAC_SHA2_256_128/PRF_HMAC_SHA2_256/CURVE_25519",
            "AES_CTR-128/HMAC_SHA1_96",
        ),
        (
            "aes256ctr-sha384-x25519",
            "aes192ctr-sha384",
            "AES_CTR-256/HMAC_SHA2_384_192/PRF_HMAC_SHA2_384/CURVE_25519",
            "AES_CTR-192/HMAC_SHA2_384_192",
        ),
    ] {
        suite((ike, esp), (ike_shown, esp_shown));
    }
    suite(
        ("aes128ctr-sha256-modp6144", "aes256ctr-sha256"),
        (
            "AES_CTR-128/HMAC_SHA2_256_128/PRF_HMAC_SHA2_256/MODP_6144",
            "AES_CTR-256/HMAC_SHA2_256_128",
        ),
    );
}

#[test]
fn aes_ccm_with_every_icv_and_the_brainpool_curves() {
    suite(
        ("aes256ccm16-prfaescmac-ecp256bp", "aes128ccm8"),
        ("AES_CCM_16-256/PRF_AES128_CMAC/ECP_256_BP", "AES_CCM_8-128"),
    );
    suite(
        ("aes192ccm12-prfaesxcbc-ecp384bp", "aes256ccm16"),
        (
            "AES_CCM_12-192/PRF_AES128_XCBC/ECP_384_BP",
            "AES_CCM_16-256",
        ),
    );
    suite(
        ("aes128ccm8-prfsha256-ecp256", "aes192ccm12"),
        ("AES_CCM_8-128/PRF_HMAC_SHA2_256/ECP_256", "AES_CCM_12-192"),
    );
}

#[test]
fn aes_gcm_with_short_icvs_and_modp8192() {
    suite(
        ("aes256gcm8-prfsha256-modp8192", "aes256gcm12"),
        (
            "AES_GCM_8-256/PRF_HMAC_SHA2_256/MODP_8192",
            "AES_GCM_12-256",
        ),
    );
    suite(
        ("aes128gcm12-prfsha256-x25519", "aes128gcm8"),
        (
            "AES_GCM_12-128/PRF_HMAC_SHA2_256/CURVE_25519",
            "AES_GCM_8-128",
        ),
    );
}

#[test]
fn aes_xcbc_and_aes_cmac_as_integrity_and_prf() {
    suite(
        ("aes128-aesxcbc-x25519", "aes128-aescmac"),
        (
            "AES_CBC-128/AES_XCBC_96/PRF_AES128_XCBC/CURVE_25519",
            "AES_CBC-128/AES_CMAC_96",
        ),
    );
    suite(
        ("aes256-aescmac-x25519", "aes192-aesxcbc"),
        (
            "AES_CBC-256/AES_CMAC_96/PRF_AES128_CMAC/CURVE_25519",
            "AES_CBC-192/AES_XCBC_96",
        ),
    );
}

#[test]
fn weak_algorithms_where_they_are_allowed() {
    suite_with(
        "allow_weak = true",
        ("3des-md5-modp1024", "3des-md5"),
        (
            "3DES_CBC/HMAC_MD5_96/PRF_HMAC_MD5/MODP_1024",
            "3DES_CBC/HMAC_MD5_96",
        ),
    );
    suite_with(
        "allow_weak = true",
        ("3des-sha1-modp1536", "null-sha256"),
        (
            "3DES_CBC/HMAC_SHA1_96/PRF_HMAC_SHA1/MODP_1536",
            "NULL/HMAC_SHA2_256_128",
        ),
    );
}

#[test]
fn the_defaults_of_both_sides_agree() {
    for initiator in Initiator::BOTH {
        let plan = Plan {
            proposal: "default".to_owned(),
            esp_proposal: "default".to_owned(),
            inner: vec![Family::V4],
            ..Plan::default()
        };
        let Some(pair) = Pair::connected(plan, "", initiator) else {
            return;
        };
        pair.carries_traffic();
    }
}

#[test]
fn ipv6_inside_ipv6() {
    let plan = Plan {
        outer: Family::V6,
        inner: vec![Family::V6],
        ..Plan::default()
    };
    for initiator in Initiator::BOTH {
        let Some(pair) = Pair::connected(plan.clone(), "", initiator) else {
            return;
        };
        pair.carries_traffic();
    }
}

#[test]
fn both_families_as_selectors_of_one_child() {
    for initiator in Initiator::BOTH {
        let Some(pair) = Pair::connected(Plan::default(), "", initiator) else {
            return;
        };
        pair.carries_traffic();
    }
}

fn suite(proposals: (&str, &str), shown: (&str, &str)) {
    suite_with("", proposals, shown);
}

/// With more lines for our connection.
fn suite_with(connection: &str, (ike, esp): (&str, &str), (ike_shown, esp_shown): (&str, &str)) {
    for initiator in Initiator::BOTH {
        let plan = Plan {
            proposal: ike.to_owned(),
            esp_proposal: esp.to_owned(),
            inner: vec![Family::V4],
            connection: connection.to_owned(),
            ..Plan::default()
        };
        let Some(pair) = Pair::connected(plan, "", initiator) else {
            return;
        };
        let (ike, esp) = pair.strongswan_algorithms();
        assert!(ike.ends_with(ike_shown), "{initiator:?}: {ike}");
        assert!(esp.ends_with(esp_shown), "{initiator:?}: {esp}");
        pair.carries_traffic();
        for reason in [
            "integrity-failed",
            "bad-padding",
            "bad-next-header",
            "selector-mismatch",
        ] {
            assert_eq!(pair.lockgate.drops(reason), 0, "{reason}");
        }
    }
}
