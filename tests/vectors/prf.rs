//! PRF and key derivation with known answers.

use lockgate::crypto::Secret;
use lockgate::crypto::kdf::{self, ChildKeys, IkeKeys};
use lockgate::crypto::prf::Prf;
use lockgate::wire::proposal::{
    AdditionalExchanges, CipherSuite, EncryptionId, IkeSuite, IntegrityId, KeyExchangeId, PrfId,
};

use crate::cases::{Case, cases};

fn prf_of(case: &Case) -> Prf {
    Prf::new(PrfId(case.id("prf"))).expect("one of ours")
}

fn integrity_of(prf: Prf) -> IntegrityId {
    match prf.id() {
        PrfId::HMAC_SHA1 => IntegrityId::HMAC_SHA1_96,
        PrfId::HMAC_SHA2_256 => IntegrityId::HMAC_SHA2_256_128,
        PrfId::HMAC_SHA2_384 => IntegrityId::HMAC_SHA2_384_192,
        _ => IntegrityId::HMAC_SHA2_512_256,
    }
}

#[test]
fn prf_gives_the_macs_of_the_rfcs_for_keys_of_any_length() {
    let hmac = cases(include_str!("../data/hmac.txt"));
    for case in hmac
        .into_iter()
        .chain(cases(include_str!("../data/aes_mac.txt")))
    {
        let data = case.get("data");
        let (head, tail) = data.split_at(data.len() / 2);
        let mac = prf_of(&case).mac(&case.get("key"), &[head, tail]);
        assert_eq!(mac.as_bytes(), case.get("mac"), "{}", case.name);
    }
}

#[test]
fn ike_keys_are_those_that_nist_publishes() {
    for case in cases(include_str!("../data/ikev2_kdf.txt")) {
        let prf = prf_of(&case);
        let (ni, nr) = (case.get("ni"), case.get("nr"));
        let skeyseed = kdf::skeyseed(prf, (&ni, &nr), &Secret::from(case.get("shared")));
        assert_eq!(skeyseed.as_bytes(), case.get("skeyseed"), "{}", case.name);

        let cbc = CipherSuite {
            encryption: EncryptionId::AES_CBC,
            key_bits: 128,
            integrity: Some(integrity_of(prf)),
        };
        let gcm = CipherSuite {
            encryption: EncryptionId::AES_GCM_16,
            key_bits: 256,
            integrity: None,
        };
        let expected = case.get("ike");
        for (cipher, sk_a, sk_e) in [(cbc, prf.output_len(), 16), (gcm, 0, 36)] {
            let suite = IkeSuite {
                cipher,
                prf: prf.id(),
                key_exchange: KeyExchangeId::MODP2048,
                additional: AdditionalExchanges::NONE,
            };
            let spi = |name| <[u8; 8]>::try_from(case.get(name)).expect("8 bytes");
            let keys = IkeKeys::derive(&suite, &skeyseed, &ni, &nr, spi("spi_i"), spi("spi_r"));
            let in_order = [
                (&keys.sk_d, prf.output_len()),
                (&keys.sk_ai, sk_a),
                (&keys.sk_ar, sk_a),
                (&keys.sk_ei, sk_e),
                (&keys.sk_er, sk_e),
                (&keys.sk_pi, prf.output_len()),
                (&keys.sk_pr, prf.output_len()),
            ];
            let mut rest = &expected[..];
            for (key, len) in in_order {
                // The sample of NIST may end before the seventh key does.
                let (want, after) = rest.split_at(len.min(rest.len()));
                assert_eq!(key.len(), len);
                assert_eq!(&key.as_bytes()[..want.len()], want, "{}", case.name);
                rest = after;
            }
        }
    }
}

#[test]
fn keys_after_a_rekey_are_those_that_nist_publishes() {
    for case in cases(include_str!("../data/ikev2_kdf.txt")) {
        let prf = prf_of(&case);
        let (ni, nr) = (case.get("ni"), case.get("nr"));
        let sk_d = Secret::copy_from(&case.get("ike")[..prf.preferred_key_len()]);
        let shared = Secret::from(case.get("shared_new"));

        let skeyseed = kdf::skeyseed_rekey(prf, &sk_d, std::slice::from_ref(&shared), &ni, &nr);
        assert_eq!(skeyseed.as_bytes(), case.get("rekey"), "{}", case.name);

        let suite = CipherSuite {
            encryption: EncryptionId::AES_CBC,
            key_bits: 192,
            integrity: Some(IntegrityId::HMAC_SHA2_256_128),
        };
        for (name, shared) in [
            ("child", &[][..]),
            ("child_dh", std::slice::from_ref(&shared)),
        ] {
            let keys = ChildKeys::derive(prf, &sk_d, shared, &ni, &nr, &suite);
            let in_order = [
                keys.initiator.encryption.as_bytes(),
                keys.initiator.integrity.as_bytes(),
                keys.responder.encryption.as_bytes(),
                keys.responder.integrity.as_bytes(),
            ];
            assert_eq!(in_order.map(<[u8]>::len), [24, 32, 24, 32]);
            assert_eq!(in_order.concat(), case.get(name)[..112], "{}", case.name);
        }
    }
}

#[test]
fn prf_plus_is_cut_to_the_length_asked_for() {
    for case in cases(include_str!("../data/ikev2_kdf.txt")) {
        let seed = [
            case.get("ni"),
            case.get("nr"),
            case.get("spi_i"),
            case.get("spi_r"),
        ];
        let seed = seed.each_ref().map(Vec::as_slice);
        let expected = case.get("ike");
        for len in 0..=expected.len() {
            let output = prf_of(&case).prf_plus(&case.get("skeyseed"), &seed, len);
            assert_eq!(output.as_bytes(), &expected[..len], "{}", case.name);
        }
    }
}

/// Expected value from Python's hmac module: `prf(prf(b"secret", b"Key Pad for IKEv2"), b"octets")`.
#[test]
fn psk_authentication_pads_the_secret_first() {
    let prf = Prf::new(PrfId::HMAC_SHA2_256).expect("one of ours");
    let auth = kdf::psk_auth(prf, &Secret::copy_from(b"secret"), &[b"oct", b"ets"]);
    let expected = "93d6b432e988c4c184f49457ef7ddfef938f1179de4120120d1cc523b368d33b";
    assert_eq!(data_encoding::HEXLOWER.encode(auth.as_bytes()), expected);
}
