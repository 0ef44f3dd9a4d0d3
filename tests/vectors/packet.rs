//! Sealed packets with known bytes.

use lockgate::crypto::{Associated, PacketKey, Provider};
use lockgate::wire::proposal::{EncryptionId, IntegrityId, PrfId};

use crate::cases::{cases, suite};

const PROVIDERS: [Provider; 2] = [Provider::Fast, Provider::Portable];

#[test]
fn aead_packets_are_those_of_the_gcm_draft_and_of_rfc_7634() {
    for case in cases(include_str!("../data/aead.txt")) {
        let key = case.get("key");
        let (header, sealed) = (case.get("header"), case.get("buffer"));
        let associated = Associated {
            header: &header,
            esn_high: case.esn_high(),
        };
        let plaintext = case.get("plaintext");
        let nonce = u64::from_be_bytes(*sealed.first_chunk().expect("an IV"));
        for provider in PROVIDERS {
            let suite = suite(case.id("encryption"), key.len() - 4, None);
            let key = PacketKey::with_provider(provider, suite, &key, &[]).expect("a good key");

            let mut buffer = [&[0; 8], &plaintext[..], &[0; 16]].concat();
            key.seal(nonce, associated, &mut buffer)
                .expect("a good layout");
            assert_eq!(buffer, sealed, "{} by {provider:?}", case.name);
            assert_eq!(
                key.open(associated, &mut buffer),
                Ok(&mut plaintext.clone()[..])
            );
        }
    }
}

#[test]
fn aes_gcm_with_a_short_icv_is_that_of_nist() {
    let (mut sealed, mut refused) = (0, 0);
    for case in cases(include_str!("../data/gcm_short.txt")) {
        let (key, header, buffer) = (case.get("key"), case.get("header"), case.get("buffer"));
        let suite = suite(case.id("encryption"), key.len() - 4, None);
        let key = PacketKey::new(suite, &key, &[]).expect("a good key");
        let associated = Associated {
            header: &header,
            esn_high: None,
        };
        let opened = key
            .open(associated, &mut buffer.clone())
            .map(|text| text.to_vec());
        let Some(plaintext) = case.find("plaintext") else {
            assert!(opened.is_err(), "{}", case.name);
            refused += 1;
            continue;
        };
        assert_eq!(opened.as_ref(), Ok(&plaintext), "{}", case.name);
        let nonce = u64::from_be_bytes(*buffer.first_chunk().expect("an IV"));
        let mut own = [vec![0; 8], plaintext, vec![0; key.icv_len()]].concat();
        key.seal(nonce, associated, &mut own)
            .expect("a good layout");
        assert_eq!(own, buffer, "{}", case.name);
        sealed += 1;
    }
    assert_eq!((sealed, refused), (30, 12));
}

#[test]
fn encrypt_then_mac_packets_are_those_that_openssl_makes() {
    for case in cases(include_str!("../data/encrypt_then_mac.txt")) {
        let key = case.get("key");
        let suite = suite(case.id("encryption"), key.len(), Some(case.id("integrity")));
        let key = PacketKey::new(suite, &key, &case.get("integrity_key")).expect("a good key");
        let (header, sealed) = (case.get("header"), case.get("buffer"));
        let associated = Associated {
            header: &header,
            esn_high: case.esn_high(),
        };
        let plaintext = case.get("plaintext");

        let (iv, icv) = (vec![0; key.iv_len()], vec![0; key.icv_len()]);
        let mut buffer = [iv, plaintext.clone(), icv].concat();
        key.seal(case.number("nonce"), associated, &mut buffer)
            .expect("a good layout");
        assert_eq!(buffer, sealed, "{}", case.name);
        assert_eq!(
            key.open(associated, &mut buffer),
            Ok(&mut plaintext.clone()[..])
        );
    }
}

/// Sealing chooses the IV, so the RFC's ciphertexts can only be opened.
#[test]
fn aes_cbc_decrypts_the_examples_of_rfc_3602() {
    let prf = lockgate::crypto::prf::Prf::new(PrfId::HMAC_SHA2_256).expect("one of ours");
    for case in cases(include_str!("../data/aes_cbc.txt")) {
        let suite = suite(
            EncryptionId::AES_CBC.0,
            case.get("key").len(),
            Some(IntegrityId::HMAC_SHA2_256_128.0),
        );
        let key = PacketKey::new(suite, &case.get("key"), &[7; 32]).expect("a good key");
        let header = [1, 2, 3, 4, 0, 0, 0, 1];
        let mut buffer = [case.get("iv"), case.get("ciphertext")].concat();
        let mac = prf.mac(&[7; 32], &[&header, &buffer]);
        buffer.extend_from_slice(&mac.as_bytes()[..16]);

        let opened = key.open(
            Associated {
                header: &header,
                esn_high: None,
            },
            &mut buffer,
        );
        assert_eq!(opened, Ok(&mut case.get("plaintext")[..]), "{}", case.name);
    }
}

/// The nonce is the IV, so packets can be sealed as well.
#[test]
fn aes_ctr_packets_are_those_of_rfc_3686() {
    let prf = lockgate::crypto::prf::Prf::new(PrfId::HMAC_SHA2_256).expect("one of ours");
    for case in cases(include_str!("../data/aes_ctr.txt")) {
        let key = case.get("key");
        let integrity = Some(IntegrityId::HMAC_SHA2_256_128.0);
        let suite = suite(EncryptionId::AES_CTR.0, key.len() - 4, integrity);
        let key = PacketKey::new(suite, &key, &[7; 32]).expect("a good key");
        let header = [1, 2, 3, 4, 0, 0, 0, 1];
        let mut expected = [case.get("iv"), case.get("ciphertext")].concat();
        let mac = prf.mac(&[7; 32], &[&header, &expected]);
        expected.extend_from_slice(&mac.as_bytes()[..16]);

        let plaintext = case.get("plaintext");
        let associated = Associated {
            header: &header,
            esn_high: None,
        };
        let mut buffer = [&[0; 8], &plaintext[..], &[0; 16]].concat();
        key.seal(case.number("iv"), associated, &mut buffer)
            .expect("a good layout");
        assert_eq!(buffer, expected, "{}", case.name);
        let opened = key.open(associated, &mut buffer);
        assert_eq!(opened, Ok(&mut plaintext.clone()[..]), "{}", case.name);
    }
}

/// With NULL encryption the header and the text are just MACed, so the RFC's data can be split
/// between them anywhere.
#[test]
fn icvs_are_truncated_as_their_rfcs_say() {
    let mut checked = 0;
    let hmac = cases(include_str!("../data/hmac.txt"));
    for case in hmac
        .into_iter()
        .chain(cases(include_str!("../data/aes_mac.txt")))
    {
        let (integrity, icv) = match (PrfId(case.id("prf")), case.find("icv")) {
            (PrfId::HMAC_MD5, None) => (IntegrityId::HMAC_MD5_96, case.get("mac")[..12].to_vec()),
            (PrfId::AES128_XCBC, None) => {
                (IntegrityId::AES_XCBC_96, case.get("mac")[..12].to_vec())
            }
            (PrfId::AES128_CMAC, None) => {
                (IntegrityId::AES_CMAC_96, case.get("mac")[..12].to_vec())
            }
            (PrfId::HMAC_SHA1, None) => (IntegrityId::HMAC_SHA1_96, case.get("mac")[..12].to_vec()),
            (PrfId::HMAC_SHA2_256, Some(icv)) => (IntegrityId::HMAC_SHA2_256_128, icv),
            (PrfId::HMAC_SHA2_384, Some(icv)) => (IntegrityId::HMAC_SHA2_384_192, icv),
            (PrfId::HMAC_SHA2_512, Some(icv)) => (IntegrityId::HMAC_SHA2_512_256, icv),
            _ => continue,
        };
        let suite = suite(EncryptionId::NULL.0, 0, Some(integrity.0));
        let Ok(key) = PacketKey::new(suite, &[], &case.get("key")) else {
            continue; // some are keys that only a PRF allows
        };
        let data = case.get("data");
        let (header, text) = data.split_at(data.len().min(8));
        let mut buffer = [text, &vec![0; icv.len()]].concat();
        key.seal(
            0,
            Associated {
                header,
                esn_high: None,
            },
            &mut buffer,
        )
        .expect("a good layout");
        assert_eq!(buffer, [text, &icv].concat(), "{}", case.name);
        checked += 1;
    }
    assert_eq!(checked, 31);
}
