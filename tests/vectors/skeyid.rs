//! Keys and messages of IKEv1 with known answers.

use lockgate::crypto::Secret;
use lockgate::crypto::isakmp::{IsakmpCipher, Iv};
use lockgate::crypto::prf::Prf;
use lockgate::crypto::skeyid::{self, IsakmpKeys, QuickSeed};
use lockgate::wire::proposal::{CipherSuite, EncryptionId, IntegrityId, PrfId};

use crate::cases::{Case, cases};

fn prf_of(case: &Case) -> Prf {
    Prf::new(PrfId(case.id("prf"))).expect("one of ours")
}

fn cookies(case: &Case) -> [[u8; 8]; 2] {
    ["cky_i", "cky_r"].map(|name| case.get(name).try_into().expect("8 bytes"))
}

fn skeyid_of(case: &Case) -> Secret {
    let (ni, nr) = (case.get("ni"), case.get("nr"));
    match case.find("psk") {
        Some(psk) => skeyid::of_preshared_key(prf_of(case), &Secret::from(psk), &ni, &nr),
        None => {
            let shared = Secret::from(case.get("shared"));
            skeyid::of_signatures(prf_of(case), &shared, &ni, &nr)
        }
    }
}

fn keys_of(case: &Case) -> IsakmpKeys {
    let shared = Secret::from(case.get("shared"));
    IsakmpKeys::derive(prf_of(case), skeyid_of(case), &shared, cookies(case))
}

/// SKEYID_e is seen as an encryption key of its own length; SKEYID_d and SKEYID_a, which are never
/// given out, by what is made with them.
#[test]
fn keys_of_phase_one_are_those_that_nist_publishes() {
    for case in cases(include_str!("../data/ikev1_kdf.txt")) {
        let name = &case.name;
        assert_eq!(skeyid_of(&case).as_bytes(), case.get("skeyid"), "{name}");
        let (keys, prf) = (keys_of(&case), prf_of(&case));
        let len = prf.output_len();
        let skeyid_e = keys.encryption_key(len);
        assert_eq!(skeyid_e.as_bytes(), case.get("skeyid_e"), "{name}");
        let mac = |key: &str| prf.mac(&case.get(key), &[b"message"]);
        assert_eq!(keys.hash(&[b"message"]), mac("skeyid_a"), "{name}");
        assert_eq!(keys.proof(&[b"message"]), mac("skeyid"), "{name}");
        let seed = QuickSeed {
            shared: None,
            protocol: 3,
            spi: 0x0102_0304,
            ni: b"ni",
            nr: b"nr",
        };
        let suite = CipherSuite {
            encryption: EncryptionId::AES_CBC,
            key_bits: 128,
            integrity: None,
        };
        let whole = prf.mac(&case.get("skeyid_d"), &[&[3, 1, 2, 3, 4], b"ninr"]);
        let keymat = keys.keymat(&seed, &suite);
        assert_eq!(
            keymat.encryption.as_bytes(),
            &whole.as_bytes()[..16],
            "{name}"
        );
    }
}

struct Session {
    case: Case,
    keys: IsakmpKeys,
    cipher: IsakmpCipher,
}

fn sessions() -> Vec<Session> {
    let all = cases(include_str!("../data/ikev1_sessions.txt"));
    let session = |case: Case| {
        let keys = keys_of(&case);
        let suite = CipherSuite {
            encryption: EncryptionId::AES_CBC,
            key_bits: case.id("key_bits"),
            integrity: None,
        };
        let cipher = IsakmpCipher::new(&suite, &keys).expect("AES-CBC is one of ours");
        Session { case, keys, cipher }
    };
    all.into_iter().map(session).collect()
}

/// Appendix B: 32 bytes of key from the 20 of SHA-1 and from the 32 of SHA-256.
#[test]
fn strongswan_expands_skeyid_e_to_the_same_key() {
    for Session { case, keys, .. } in sessions() {
        assert_eq!(
            keys.encryption_key(32).as_bytes(),
            case.get("key"),
            "{}",
            case.name
        );
    }
}

#[test]
fn strongswan_proves_both_identities_by_the_same_hashes() {
    for Session { case, keys, .. } in sessions() {
        let of = |names: [&str; 6]| {
            let parts = names.map(|name| case.get(name));
            keys.proof(&parts.each_ref().map(Vec::as_slice))
        };
        let hash_i = of(["g_xi", "g_xr", "cky_i", "cky_r", "sa_i", "id_i"]);
        let hash_r = of(["g_xr", "g_xi", "cky_r", "cky_i", "sa_i", "id_r"]);
        assert_eq!(hash_i.as_bytes(), case.get("hash_i"), "{}", case.name);
        assert_eq!(hash_r.as_bytes(), case.get("hash_r"), "{}", case.name);
    }
}

/// Opens messages in turn, and seals what was in them to the same bytes again.
fn follow(session: &Session, mut iv: Iv, names: &[&str]) -> Iv {
    for name in names {
        let Some(plain) = session.case.find(name) else {
            continue;
        };
        let sealed = session.case.get(&format!("{name}_sealed"));
        let (_, sealed) = sealed.split_at(28);
        let mut text = sealed.to_vec();
        let next = session
            .cipher
            .decrypt(&iv, &mut text)
            .expect("whole blocks");
        assert_eq!(text, plain, "{name} of {}", session.case.name);
        assert_eq!(session.cipher.encrypt(&iv, &mut text), Some(next.clone()));
        assert_eq!(text, sealed, "{name} of {}", session.case.name);
        iv = next;
    }
    iv
}

#[test]
fn messages_of_strongswan_open_under_ivs_that_go_from_message_to_message() {
    for session in sessions() {
        let (case, cipher) = (&session.case, &session.cipher);
        let prf = prf_of(case).id();
        let iv = cipher.phase_one_iv(prf, &case.get("g_xi"), &case.get("g_xr"));
        let last = follow(
            &session,
            iv.expect("a hash"),
            &["phase_one_1", "phase_one_2"],
        );
        let message_id = case.get("quick_1_sealed")[20..24].try_into();
        let message_id = u32::from_be_bytes(message_id.expect("4 bytes"));
        let iv = cipher.phase_two_iv(prf, &last, message_id);
        follow(
            &session,
            iv.expect("a hash"),
            &["quick_1", "quick_2", "quick_3"],
        );
    }
}

/// HASH(1), HASH(2) and HASH(3) of RFC 2409 §5.5 over the payloads that strongSwan sent.
#[test]
fn quick_mode_of_strongswan_has_the_hashes_of_the_rfc() {
    for Session { case, keys, .. } in sessions() {
        let id = &case.get("quick_1_sealed")[20..24];
        let (ni, nr) = (case.get("quick_ni"), case.get("quick_nr"));
        let payloads = |name: &str| {
            let plain = case.get(name);
            let mut end = 0;
            let mut next = 8;
            while next != 0 {
                next = plain[end];
                end += usize::from(u16::from_be_bytes([plain[end + 2], plain[end + 3]]));
            }
            let hash_end = usize::from(u16::from_be_bytes([plain[2], plain[3]]));
            (plain[4..hash_end].to_vec(), plain[hash_end..end].to_vec())
        };
        let (hash_1, rest) = payloads("quick_1");
        assert_eq!(keys.hash(&[id, &rest]).as_bytes(), hash_1);
        let (hash_2, rest) = payloads("quick_2");
        assert_eq!(keys.hash(&[id, &ni, &rest]).as_bytes(), hash_2);
        let (hash_3, _) = payloads("quick_3");
        assert_eq!(keys.hash(&[&[0], id, &ni, &nr]).as_bytes(), hash_3);
    }
}

#[test]
fn quick_mode_gives_the_keys_that_strongswan_has() {
    for Session { case, keys, .. } in sessions() {
        let (ni, nr) = (case.get("quick_ni"), case.get("quick_nr"));
        let shared = case.find("quick_shared").map(Secret::from);
        let integrity = match prf_of(&case).id() {
            PrfId::HMAC_SHA1 => IntegrityId::HMAC_SHA1_96,
            _ => IntegrityId::HMAC_SHA2_256_128,
        };
        let encryption_len = case.get("initiator_encryption").len();
        let suite = CipherSuite {
            encryption: EncryptionId::AES_CBC,
            key_bits: u16::try_from(encryption_len * 8).expect("a key length"),
            integrity: Some(integrity),
        };
        // The initiator sends on the SA that the responder has named.
        for (sender, spi) in [("initiator", "spi_r"), ("responder", "spi_i")] {
            let seed = QuickSeed {
                shared: shared.as_ref(),
                protocol: 3,
                spi: u32::try_from(case.number(spi)).expect("4 bytes"),
                ni: &ni,
                nr: &nr,
            };
            let keymat = keys.keymat(&seed, &suite);
            let expected = |kind: &str| case.get(&format!("{sender}_{kind}"));
            assert_eq!(
                keymat.encryption.as_bytes(),
                expected("encryption"),
                "{}",
                case.name
            );
            assert_eq!(
                keymat.integrity.as_bytes(),
                expected("integrity"),
                "{}",
                case.name
            );
        }
    }
}
