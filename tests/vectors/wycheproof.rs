//! Project Wycheproof: edge cases that implementations got wrong before.

use data_encoding::HEXLOWER;
use lockgate::crypto::kex::KeyExchange;
use lockgate::crypto::prf::Prf;
use lockgate::crypto::{Associated, PacketKey, Provider};
use lockgate::wire::proposal::{EncryptionId, KeyExchangeId, PrfId};
use wycheproof::{TestResult, aead, ecdh, mac, xdh};

use crate::cases::{Prepared, suite};

/// Our AEADs have nonces of 12 bytes, or of 11 with CCM, and these ICVs of 16; the other groups of the
/// set do not apply.
fn aead(name: aead::TestName, encryption: EncryptionId, salt_len: usize, least: usize) {
    let set = aead::TestSet::load(name).expect("the set is built in");
    let mut run = 0;
    for group in set.test_groups {
        if group.nonce_size != (salt_len + 8) * 8 || group.tag_size != 128 {
            continue;
        }
        for test in group.tests {
            let suite = suite(encryption.0, test.key.len(), None);
            let (salt, iv) = test.nonce.split_at(salt_len);
            let key_and_salt = [&test.key[..], salt].concat();
            let associated = Associated {
                header: &test.aad,
                esn_high: None,
            };
            for provider in [Provider::Fast, Provider::Portable] {
                let key = PacketKey::with_provider(provider, suite, &key_and_salt, &[])
                    .expect("the sizes fit");
                let sealed = [iv, &test.ct, &test.tag].concat();
                let mut buffer = sealed.clone();
                let opened = key.open(associated, &mut buffer);
                if test.result == TestResult::Invalid {
                    assert!(opened.is_err(), "{provider:?} opens {}", test.tc_id);
                } else {
                    assert_eq!(opened, Ok(&mut test.pt.to_vec()[..]), "{}", test.tc_id);
                    let nonce = u64::from_be_bytes(iv.try_into().expect("8 bytes"));
                    let mut buffer = [iv, &test.pt, &[0; 16]].concat();
                    key.seal(nonce, associated, &mut buffer)
                        .expect("a good layout");
                    assert_eq!(buffer, sealed, "{provider:?} seals {}", test.tc_id);
                }
            }
            run += 1;
        }
    }
    assert!(run >= least, "only {run} tests apply");
}

#[test]
fn aes_gcm_passes() {
    aead(aead::TestName::AesGcm, EncryptionId::AES_GCM_16, 4, 150);
}

#[test]
fn chacha20_poly1305_passes() {
    aead(
        aead::TestName::ChaCha20Poly1305,
        EncryptionId::CHACHA20_POLY1305,
        4,
        250,
    );
}

#[test]
fn aes_ccm_passes() {
    aead(aead::TestName::AesCcm, EncryptionId::AES_CCM_16, 3, 18);
}

/// As a PRF the function has the keys of AES-128.
#[test]
fn aes_cmac_passes() {
    let prf = Prf::new(PrfId::AES128_CMAC).expect("one of ours");
    let set = mac::TestSet::load(mac::TestName::AesCmac).expect("the set is built in");
    let mut run = 0;
    for test in set.test_groups.into_iter().flat_map(|group| group.tests) {
        if test.key.len() == 16 {
            let output = prf.mac(&test.key, &[&test.msg]);
            let matches = output.as_bytes().starts_with(&test.tag);
            assert_eq!(matches, test.result == TestResult::Valid, "{}", test.tc_id);
            run += 1;
        }
    }
    assert!(run >= 50, "only {run} tests apply");
}

fn hmac(name: mac::TestName, id: PrfId) {
    let prf = Prf::new(id).expect("one of ours");
    for group in mac::TestSet::load(name)
        .expect("the set is built in")
        .test_groups
    {
        for test in group.tests {
            let output = prf.mac(&test.key, &[&test.msg]);
            let matches = output.as_bytes().starts_with(&test.tag);
            assert_eq!(matches, test.result == TestResult::Valid, "{}", test.tc_id);
        }
    }
}

#[test]
fn hmac_passes_with_every_hash() {
    hmac(mac::TestName::HmacSha1, PrfId::HMAC_SHA1);
    hmac(mac::TestName::HmacSha256, PrfId::HMAC_SHA2_256);
    hmac(mac::TestName::HmacSha384, PrfId::HMAC_SHA2_384);
    hmac(mac::TestName::HmacSha512, PrfId::HMAC_SHA2_512);
}

/// Public keys have `prefix` in front of a point. A KE payload can carry `x ‖ y` only, so a compressed
/// point becomes a value of the wrong length. Of the valid values one of `every` is tried.
fn ecdh(
    name: ecdh::TestName,
    (id, field_len): (KeyExchangeId, usize),
    prefix: &[u8],
    every: usize,
) {
    for group in ecdh::TestSet::load(name)
        .expect("the set is built in")
        .test_groups
    {
        for test in group.tests {
            if test.result == TestResult::Valid && !test.tc_id.is_multiple_of(every) {
                continue;
            }
            let private = test.private_key.iter().skip_while(|&&byte| byte == 0);
            let private: Vec<u8> = private.copied().collect();
            let private = [vec![0; field_len - private.len()], private].concat();
            let exchange = KeyExchange::generate(id, &mut Prepared(private)).expect("supported");

            let point = &test.public_key;
            let shared = exchange.finish(point.strip_prefix(prefix).unwrap_or(point));
            match (test.result, shared) {
                (TestResult::Invalid | TestResult::Acceptable, Err(_)) => {}
                (TestResult::Valid | TestResult::Acceptable, Ok(shared)) => {
                    assert_eq!(shared.as_bytes(), &test.shared_secret[..], "{}", test.tc_id);
                }
                (expected, got) => panic!("{}: {expected:?}, but {got:?}", test.tc_id),
            }
        }
    }
}

#[test]
fn ecdh_passes_on_the_nist_curves() {
    ecdh(
        ecdh::TestName::EcdhSecp256r1Ecpoint,
        (KeyExchangeId::ECP256, 32),
        &[4],
        1,
    );
    ecdh(
        ecdh::TestName::EcdhSecp384r1Ecpoint,
        (KeyExchangeId::ECP384, 48),
        &[4],
        1,
    );
    ecdh(
        ecdh::TestName::EcdhSecp521r1Ecpoint,
        (KeyExchangeId::ECP521, 66),
        &[4],
        1,
    );
}

/// These sets have whole SubjectPublicKeyInfos.
#[test]
fn ecdh_passes_on_the_brainpool_curves() {
    let info = |hex: &str| HEXLOWER.decode(hex.as_bytes()).expect("hexadecimal");
    ecdh(
        ecdh::TestName::EcdhBrainpool256r1,
        (KeyExchangeId::ECP256_BP, 32),
        &info("305a301406072a8648ce3d020106092b240303020801010703420004"),
        8,
    );
    ecdh(
        ecdh::TestName::EcdhBrainpool384r1,
        (KeyExchangeId::ECP384_BP, 48),
        &info("307a301406072a8648ce3d020106092b240303020801010b03620004"),
        8,
    );
}

#[test]
fn x25519_passes_and_a_zero_secret_is_refused() {
    let set = xdh::TestSet::load(xdh::TestName::X25519).expect("the set is built in");
    let mut zero = 0;
    for test in set.test_groups.into_iter().flat_map(|group| group.tests) {
        let private = test.private_key.to_vec();
        let exchange = KeyExchange::generate(KeyExchangeId::X25519, &mut Prepared(private));
        let shared = exchange.expect("supported").finish(&test.public_key);
        if test.shared_secret.iter().all(|&byte| byte == 0) {
            assert!(shared.is_err(), "{}", test.tc_id);
            zero += 1;
        } else if test.result != TestResult::Invalid {
            let shared = shared.expect("a shared secret that is not zero");
            assert_eq!(shared.as_bytes(), &test.shared_secret[..], "{}", test.tc_id);
        } else {
            assert!(shared.is_err(), "{}", test.tc_id);
        }
    }
    assert!(zero > 0);
}
