//! Signatures and keys: OpenSSL's files, RFC 7427's identifiers, Wycheproof's edge cases.

use std::fs;
use std::path::Path;

use data_encoding::HEXLOWER_PERMISSIVE;
use lockgate::crypto::private_key::PrivateKeyError;
use lockgate::crypto::signature::{Hash, KeyKind, Scheme};
use lockgate::crypto::{PrivateKey, PublicKey, pem};
use wycheproof::{TestResult, ecdsa, eddsa, rsa_pkcs1_verify, rsa_pss_verify};

fn file(name: &str) -> Vec<u8> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/keys");
    fs::read(folder.join(name)).expect("a file of the repository")
}

fn public(name: &str) -> PublicKey {
    let objects = pem::objects(&file(name)).expect("PEM").expect("PEM");
    PublicKey::from_spki(&objects.first().expect("an object").der).expect("a public key")
}

#[test]
fn every_form_of_a_private_key_gives_the_same_public_key() {
    let forms: [(&str, KeyKind, &[&str]); 5] = [
        ("rsa", KeyKind::Rsa, &["pkcs1", "pkcs8", "encrypted"]),
        ("p256", KeyKind::P256, &["sec1", "pkcs8"]),
        ("p384", KeyKind::P384, &["sec1", "pkcs8", "encrypted"]),
        ("p521", KeyKind::P521, &["sec1", "pkcs8"]),
        ("ed25519", KeyKind::Ed25519, &["pkcs8"]),
    ];
    for (name, kind, forms) in forms {
        let expected = public(&format!("{name}.public.pem"));
        assert_eq!(expected.kind(), kind);
        for form in forms {
            let text = file(&format!("{name}.{form}.pem"));
            let key = PrivateKey::load(&text, Some(b"lockgate")).expect(name);
            assert_eq!(*key.public(), expected, "{name} {form}");
            let der = &pem::objects(&text).expect("PEM").expect("PEM");
            let der = der.last().expect("an object").der.clone();
            let key = PrivateKey::load(&der, Some(b"lockgate")).expect(name);
            assert_eq!(*key.public(), expected, "{name} {form} as DER");
        }
    }
}

#[test]
fn an_encrypted_key_needs_its_passphrase_and_says_so() {
    let text = file("rsa.encrypted.pem");
    let fail = |passphrase| PrivateKey::load(&text, passphrase).expect_err("no key");
    assert_eq!(fail(None), PrivateKeyError::Encrypted);
    assert_eq!(fail(Some(b"wrong")), PrivateKeyError::WrongPassphrase);
    for old in ["rsa.old-encryption.pem", "rsa.old-pbe.pem"] {
        let found = PrivateKey::load(&file(old), Some(b"lockgate")).expect_err(old);
        assert_eq!(found, PrivateKeyError::OldEncryption, "{old}");
    }
    for junk in [
        &b""[..],
        b"-----BEGIN PRIVATE KEY-----",
        b"\x30\x80",
        b"junk",
    ] {
        PrivateKey::load(junk, None).expect_err("no key");
    }
    PrivateKey::load(&file("rsa.public.pem"), None).expect_err("no private key");
}

#[test]
fn signatures_of_another_implementation_verify_and_changed_ones_do_not() {
    let message = file("message");
    let cases = [
        (
            "rsa",
            "rsa.pkcs1-sha256.sig",
            Scheme::RsaPkcs1(Hash::Sha256),
        ),
        ("rsa", "rsa.pkcs1-sha1.sig", Scheme::RsaPkcs1(Hash::Sha1)),
        ("rsa", "rsa.pss-sha384.sig", Scheme::RsaPss(Hash::Sha384)),
        ("p256", "p256.sha256.sig", Scheme::Ecdsa(Hash::Sha256)),
        ("p384", "p384.sha384.sig", Scheme::Ecdsa(Hash::Sha384)),
        ("p521", "p521.sha512.sig", Scheme::Ecdsa(Hash::Sha512)),
        ("ed25519", "ed25519.sig", Scheme::Ed25519),
    ];
    for (key, signature, scheme) in cases {
        let key = public(&format!("{key}.public.pem"));
        let mut signature = file(signature);
        assert_eq!(key.verify(scheme, &message, &signature), Ok(()), "{scheme}");
        key.verify(scheme, b"another message", &signature)
            .expect_err("another message");
        let other = Scheme::RsaPkcs1(Hash::Sha512);
        key.verify(other, &message, &signature)
            .expect_err("another scheme");
        signature[20] ^= 1;
        key.verify(scheme, &message, &signature)
            .expect_err("a changed signature");
        key.verify(scheme, &message, &[]).expect_err("no signature");
    }
    let long_salt = file("rsa.pss-long-salt.sig");
    let scheme = Scheme::RsaPss(Hash::Sha256);
    public("rsa.public.pem")
        .verify(scheme, &message, &long_salt)
        .expect_err("only salts of the hash's length");
}

#[test]
fn what_a_key_signs_its_public_half_verifies_with_every_scheme_it_has() {
    for name in ["rsa", "p256", "p384", "p521", "ed25519"] {
        let key = PrivateKey::load(&file(&format!("{name}.pkcs8.pem")), None).expect(name);
        for scheme in key.schemes() {
            let signature = key.sign(scheme, b"octets").expect("its own scheme");
            assert_eq!(
                key.public().verify(scheme, b"octets", &signature),
                Ok(()),
                "{scheme}"
            );
        }
        assert_eq!(key.sign(Scheme::RsaPkcs1(Hash::Sha1), b"octets"), None);
    }
}

/// RFC 7427 Appendix A; RFC 8420 Appendix A for Ed25519.
#[test]
fn algorithm_identifiers_are_those_of_the_rfc() {
    let cases = [
        (
            "300d06092a864886f70d01010b0500",
            Scheme::RsaPkcs1(Hash::Sha256),
        ),
        (
            "300d06092a864886f70d01010c0500",
            Scheme::RsaPkcs1(Hash::Sha384),
        ),
        (
            "300d06092a864886f70d01010d0500",
            Scheme::RsaPkcs1(Hash::Sha512),
        ),
        ("300a06082a8648ce3d040302", Scheme::Ecdsa(Hash::Sha256)),
        ("300a06082a8648ce3d040303", Scheme::Ecdsa(Hash::Sha384)),
        ("300a06082a8648ce3d040304", Scheme::Ecdsa(Hash::Sha512)),
        ("300506032b6570", Scheme::Ed25519),
    ];
    for (text, scheme) in cases {
        let der = HEXLOWER_PERMISSIVE.decode(text.as_bytes()).expect("hex");
        assert_eq!(scheme.to_algorithm_identifier().as_deref(), Some(&der[..]));
        assert_eq!(Scheme::from_algorithm_identifier(&der), Some(scheme));
        let trailing = [&der[..], &[0]].concat();
        assert_eq!(Scheme::from_algorithm_identifier(&trailing), None);
    }
    for hash in Hash::SHA2 {
        let pss = Scheme::RsaPss(hash);
        let der = pss.to_algorithm_identifier().expect("it has one");
        assert_eq!(Scheme::from_algorithm_identifier(&der), Some(pss));
    }
    // A.4.3 spells out a default, which DER would leave out; peers send either.
    let with_trailer = "304606092a864886f70d01010a3039a00f300d06096086480165030402010500a11c301a\
        06092a864886f70d010108300d06096086480165030402010500a203020120a303020101";
    let der = HEXLOWER_PERMISSIVE
        .decode(with_trailer.as_bytes())
        .expect("hex");
    assert_eq!(
        Scheme::from_algorithm_identifier(&der),
        Some(Scheme::RsaPss(Hash::Sha256))
    );
    // A.4.1: SHA-1 by default; and a salt of another length.
    for odd in [
        "300d06092a864886f70d01010a3000",
        &with_trailer.replace("020120", "020114"),
    ] {
        let der = HEXLOWER_PERMISSIVE.decode(odd.as_bytes()).expect("hex");
        let found = Scheme::from_algorithm_identifier(&der);
        assert!(
            matches!(found, None | Some(Scheme::RsaPss(Hash::Sha1))),
            "{found:?}"
        );
    }
}

fn hash(name: wycheproof::HashFunction) -> Option<Hash> {
    match name {
        wycheproof::HashFunction::Sha2_256 => Some(Hash::Sha256),
        wycheproof::HashFunction::Sha2_384 => Some(Hash::Sha384),
        wycheproof::HashFunction::Sha2_512 => Some(Hash::Sha512),
        _ => None,
    }
}

fn check(key: &PublicKey, scheme: Scheme, msg: &[u8], sig: &[u8], result: TestResult, id: usize) {
    let verified = key.verify(scheme, msg, sig).is_ok();
    match result {
        TestResult::Valid => assert!(verified, "{scheme} refuses {id}"),
        TestResult::Invalid => assert!(!verified, "{scheme} takes {id}"),
        TestResult::Acceptable => {}
    }
}

#[test]
fn ecdsa_passes_as_der_and_as_two_numbers() {
    let names = [
        (ecdsa::TestName::EcdsaSecp256r1Sha256, false),
        (ecdsa::TestName::EcdsaSecp384r1Sha384, false),
        (ecdsa::TestName::EcdsaSecp521r1Sha512, false),
        (ecdsa::TestName::EcdsaSecp256r1Sha256P1363, true),
        (ecdsa::TestName::EcdsaSecp384r1Sha384P1363, true),
        (ecdsa::TestName::EcdsaSecp521r1Sha512P1363, true),
    ];
    for (name, fixed) in names {
        let mut run = 0;
        for group in ecdsa::TestSet::load(name).expect("built in").test_groups {
            let key = PublicKey::from_spki(&group.der).expect("a public key");
            let hash = hash(group.hash).expect("SHA-2");
            let scheme = if fixed {
                Scheme::EcdsaFixed
            } else {
                Scheme::Ecdsa(hash)
            };
            for test in group.tests {
                check(&key, scheme, &test.msg, &test.sig, test.result, test.tc_id);
                run += 1;
            }
        }
        assert!(run > 100, "{name:?}: {run}");
    }
}

#[test]
fn rsa_passes_with_both_paddings() {
    for name in [
        rsa_pkcs1_verify::TestName::Rsa2048Sha256,
        rsa_pkcs1_verify::TestName::Rsa3072Sha384,
        rsa_pkcs1_verify::TestName::Rsa4096Sha512,
    ] {
        for group in rsa_pkcs1_verify::TestSet::load(name)
            .expect("built in")
            .test_groups
        {
            let key = PublicKey::from_spki(&group.der).expect("a public key");
            let scheme = Scheme::RsaPkcs1(hash(group.hash).expect("SHA-2"));
            for test in group.tests {
                check(&key, scheme, &test.msg, &test.sig, test.result, test.tc_id);
            }
        }
    }
    for name in [
        rsa_pss_verify::TestName::RsaPss2048Sha256Mgf1SaltLen32,
        rsa_pss_verify::TestName::RsaPss2048Sha384Mgf1SaltLen48,
        rsa_pss_verify::TestName::RsaPss4096Sha512Mgf1SaltLen64,
    ] {
        for group in rsa_pss_verify::TestSet::load(name)
            .expect("built in")
            .test_groups
        {
            let key = PublicKey::from_pkcs1(&group.asn_key).expect("a public key");
            let scheme = Scheme::RsaPss(hash(group.hash).expect("SHA-2"));
            for test in group.tests {
                check(&key, scheme, &test.msg, &test.sig, test.result, test.tc_id);
            }
        }
    }
}

#[test]
fn ed25519_passes() {
    let set = eddsa::TestSet::load(eddsa::TestName::Ed25519).expect("built in");
    for group in set.test_groups {
        let key = PublicKey::from_spki(&group.der).expect("a public key");
        for test in group.tests {
            check(
                &key,
                Scheme::Ed25519,
                &test.msg,
                &test.sig,
                test.result,
                test.tc_id,
            );
        }
    }
}

#[test]
fn an_rsa_key_whose_numbers_are_unsafe_is_no_key() {
    let objects = pem::objects(&file("rsa.public.pem")).expect("PEM");
    let good = objects.expect("PEM").first().expect("one").der.to_vec();
    // The modulus ends where the exponent, INTEGER 65537, begins.
    let (modulus, exponent) = good.split_at(good.len() - 5);
    assert_eq!(exponent, [2, 3, 1, 0, 1]);
    let with = |exponent: [u8; 5]| [modulus, &exponent].concat();
    let mut even = good.clone();
    let last = even.len() - 6;
    *even.get_mut(last).expect("in the modulus") &= 0xfe;
    for (what, key) in [
        ("an even exponent", with([2, 3, 1, 0, 0])),
        ("an exponent of zero", with([2, 3, 0, 0, 0])),
        ("a negative exponent", with([2, 3, 0x80, 0, 1])),
        ("an even modulus", even),
        ("a byte behind", [good.clone(), vec![0]].concat()),
    ] {
        assert!(PublicKey::from_spki(&key).is_err(), "{what}");
    }
    // RSAPublicKey of 1024 bits, and of 2048 bits with an exponent of 1 and of 3.
    let number = |length: usize| [&[0xc3][..], &vec![0x5b; length - 1]].concat();
    let key = |modulus: Vec<u8>, exponent: u8| {
        let integer = [
            &[2, 0x82][..],
            &u16::try_from(modulus.len() + 1)
                .expect("short")
                .to_be_bytes(),
            &[0],
            &modulus,
        ]
        .concat();
        let body = [&integer[..], &[2, 1, exponent]].concat();
        let length = u16::try_from(body.len()).expect("short").to_be_bytes();
        [&[0x30, 0x82][..], &length, &body].concat()
    };
    PublicKey::from_pkcs1(&key(number(256), 3)).expect("what the others are changed from");
    for (what, key) in [
        ("1024 bits", key(number(128), 3)),
        ("16 KiB", key(number(16 * 1024), 3)),
        ("an exponent of one", key(number(256), 1)),
    ] {
        assert!(PublicKey::from_pkcs1(&key).is_err(), "{what}");
    }
}
