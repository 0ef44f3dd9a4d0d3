//! One provider against the other, and what both must refuse.

use lockgate::crypto::packet::{encryption_key_len, integrity_key_len, is_supported};
use lockgate::crypto::{
    Associated, AuthenticationFailed, KeyError, PacketKey, Provider, SealError,
};
use lockgate::wire::proposal::{CipherSuite, EncryptionId, IntegrityId};
use proptest::prelude::*;

const INTEGRITY: [IntegrityId; 7] = [
    IntegrityId::HMAC_MD5_96,
    IntegrityId::AES_XCBC_96,
    IntegrityId::AES_CMAC_96,
    IntegrityId::HMAC_SHA1_96,
    IntegrityId::HMAC_SHA2_256_128,
    IntegrityId::HMAC_SHA2_384_192,
    IntegrityId::HMAC_SHA2_512_256,
];

fn aead_suites() -> Vec<CipherSuite> {
    let aead = |encryption, key_bits| CipherSuite {
        encryption,
        key_bits,
        integrity: None,
    };
    vec![
        aead(EncryptionId::AES_GCM_16, 128),
        aead(EncryptionId::AES_GCM_16, 192),
        aead(EncryptionId::AES_GCM_16, 256),
        aead(EncryptionId::CHACHA20_POLY1305, 0),
        aead(EncryptionId::AES_GCM_16_IIV, 128),
        aead(EncryptionId::AES_GCM_16_IIV, 192),
        aead(EncryptionId::AES_GCM_16_IIV, 256),
        aead(EncryptionId::CHACHA20_POLY1305_IIV, 0),
    ]
}

fn all_suites() -> Vec<CipherSuite> {
    let mut suites = aead_suites();
    for encryption in [
        EncryptionId::AES_GCM_8,
        EncryptionId::AES_GCM_12,
        EncryptionId::AES_CCM_8,
        EncryptionId::AES_CCM_12,
        EncryptionId::AES_CCM_16,
        EncryptionId::AES_CCM_8_IIV,
        EncryptionId::NULL_AES_GMAC,
    ] {
        suites.extend([128, 192, 256].map(|key_bits| CipherSuite {
            encryption,
            key_bits,
            integrity: None,
        }));
    }
    for integrity in INTEGRITY.map(Some) {
        for (encryption, sizes) in [
            (EncryptionId::AES_CBC, &[128, 192, 256][..]),
            (EncryptionId::AES_CTR, &[128, 192, 256]),
            (EncryptionId::TRIPLE_DES, &[0]),
            (EncryptionId::NULL, &[0]),
        ] {
            suites.extend(sizes.iter().map(|&key_bits| CipherSuite {
                encryption,
                key_bits,
                integrity,
            }));
        }
    }
    suites
}

fn key(provider: Provider, suite: CipherSuite, material: &[u8]) -> PacketKey {
    let (encryption, _) = material.split_at(encryption_key_len(&suite));
    let (integrity, _) = material.split_at(integrity_key_len(&suite));
    PacketKey::with_provider(provider, suite, encryption, integrity).expect("a good key")
}

/// Any nonce, but the sequence number where the suite wants it.
fn nonce_for(suite: &CipherSuite, associated: Associated<'_>, nonce: u64) -> u64 {
    let implicit = [
        EncryptionId::AES_CCM_8_IIV,
        EncryptionId::AES_GCM_16_IIV,
        EncryptionId::CHACHA20_POLY1305_IIV,
    ];
    if !implicit.contains(&suite.encryption) {
        return nonce;
    }
    let low = u32::from_be_bytes(*associated.header.last_chunk().expect("an ESP header"));
    u64::from(associated.esn_high.unwrap_or(0)) << 32 | u64::from(low)
}

fn sealed(key: &PacketKey, nonce: u64, associated: Associated<'_>, text: &[u8]) -> Vec<u8> {
    let nonce = nonce_for(&key.suite(), associated, nonce);
    let (iv, icv) = (vec![0; key.iv_len()], vec![0; key.icv_len()]);
    let mut buffer = [&iv[..], text, &icv[..]].concat();
    key.seal(nonce, associated, &mut buffer)
        .expect("a good layout");
    buffer
}

proptest! {
    #[test]
    fn both_providers_seal_the_same_bytes_and_open_each_other(
        suite in prop::sample::select(aead_suites()),
        material in prop::array::uniform32(any::<u8>()),
        header in prop::array::uniform8(any::<u8>()),
        esn_high in any::<Option<u32>>(),
        nonce in any::<u64>(),
        text in prop::collection::vec(any::<u8>(), 0..2000),
    ) {
        let material = [material, material].concat();
        let associated = Associated { header: &header, esn_high };
        let fast = key(Provider::Fast, suite, &material);
        let portable = key(Provider::Portable, suite, &material);
        let mut one = sealed(&fast, nonce, associated, &text);
        let mut other = sealed(&portable, nonce, associated, &text);
        prop_assert_eq!(&one, &other);
        prop_assert_eq!(&*portable.open(associated, &mut one).expect("authentic"), &text[..]);
        prop_assert_eq!(&*fast.open(associated, &mut other).expect("authentic"), &text[..]);
    }

    #[test]
    fn a_packet_opens_unless_a_bit_of_it_or_its_header_changed(
        suite in prop::sample::select(all_suites()),
        provider in prop::sample::select(vec![Provider::Fast, Provider::Portable]),
        material in prop::array::uniform32(any::<u8>()),
        header in prop::array::uniform8(any::<u8>()),
        esn_high in any::<Option<u32>>(),
        blocks in 0_usize..20,
        flip in any::<prop::sample::Index>(),
    ) {
        let material = [material, material].concat();
        let key = key(provider, suite, &material);
        let text: Vec<u8> = (0..=255).cycle().take(blocks * 16).collect();
        let buffer = sealed(&key, 7, Associated { header: &header, esn_high }, &text);
        let associated = Associated { header: &header, esn_high };
        let mut copy = buffer.clone();
        prop_assert_eq!(&*key.open(associated, &mut copy).expect("authentic"), &text[..]);

        let mut packet = [&header[..], &buffer].concat();
        let bit = flip.index(packet.len() * 8);
        packet[bit / 8] ^= 1 << (bit % 8);
        let (changed, body) = packet.split_at_mut(8);
        let associated = Associated { header: changed, esn_high };
        prop_assert_eq!(key.open(associated, body), Err(AuthenticationFailed));

        let other_half = esn_high.map_or(Some(0), |high| Some(high.wrapping_add(1)));
        let associated = Associated { header: &header, esn_high: other_half };
        let mut copy = buffer.clone();
        prop_assert_eq!(key.open(associated, &mut copy), Err(AuthenticationFailed));
    }
}

#[test]
fn a_packet_cut_anywhere_is_refused() {
    let header = [1; 8];
    let associated = Associated {
        header: &header,
        esn_high: None,
    };
    for suite in all_suites() {
        for provider in [Provider::Fast, Provider::Portable] {
            let key = key(provider, suite, &[5; 64]);
            let whole = sealed(&key, 1, associated, &[9; 48]);
            for len in 0..whole.len() {
                let mut cut = whole[..len].to_vec();
                let opened = key.open(associated, &mut cut);
                assert_eq!(opened, Err(AuthenticationFailed), "{suite:?} cut to {len}");
            }
        }
    }
}

#[test]
fn a_layout_that_cannot_hold_the_suite_is_not_sealed() {
    let header = [1; 8];
    let associated = Associated {
        header: &header,
        esn_high: None,
    };
    for suite in all_suites() {
        let key = key(Provider::Fast, suite, &[5; 64]);
        let overhead = key.iv_len() + key.icv_len();
        let nonce = nonce_for(&suite, associated, 0);
        for len in 0..overhead {
            assert_eq!(
                key.seal(nonce, associated, &mut vec![0; len]),
                Err(SealError::Length)
            );
        }
        assert_eq!(key.seal(nonce, associated, &mut vec![0; overhead]), Ok(()));
        let odd = key.seal(nonce, associated, &mut vec![0; overhead + 1]);
        assert_eq!(odd.is_ok(), key.block_len() == 1);
    }
}

/// RFC 4106 §6 allows ICVs of 8 and 12 bytes, which are the start of the long one.
#[test]
fn a_short_icv_of_gcm_is_the_start_of_the_long_one() {
    let associated = Associated {
        header: &[1; 8],
        esn_high: Some(3),
    };
    for key_bits in [128, 192, 256] {
        let [eight, twelve, sixteen] = [
            EncryptionId::AES_GCM_8,
            EncryptionId::AES_GCM_12,
            EncryptionId::AES_GCM_16,
        ]
        .map(|encryption| {
            let suite = CipherSuite {
                encryption,
                key_bits,
                integrity: None,
            };
            sealed(
                &key(Provider::Fast, suite, &[5; 64]),
                7,
                associated,
                &[9; 100],
            )
        });
        assert_eq!(eight, sixteen[..8 + 100 + 8]);
        assert_eq!(twelve, sixteen[..8 + 100 + 12]);
    }
}

#[test]
fn an_aead_needs_an_esp_header_for_an_extended_sequence_number() {
    let key = key(Provider::Fast, aead_suites()[0], &[5; 64]);
    let associated = Associated {
        header: &[0; 32],
        esn_high: Some(1),
    };
    assert_eq!(
        key.seal(0, associated, &mut [0; 64]),
        Err(SealError::Length)
    );
    assert_eq!(
        key.open(associated, &mut [0; 64]),
        Err(AuthenticationFailed)
    );
}

#[test]
fn equal_texts_get_different_cbc_ivs_and_ciphertexts() {
    let cbc = CipherSuite {
        encryption: EncryptionId::AES_CBC,
        key_bits: 256,
        integrity: Some(IntegrityId::HMAC_SHA2_256_128),
    };
    let key = key(Provider::Fast, cbc, &[5; 64]);
    let associated = Associated {
        header: &[0; 8],
        esn_high: None,
    };
    let (one, two) = (
        sealed(&key, 1, associated, &[0; 16]),
        sealed(&key, 2, associated, &[0; 16]),
    );
    assert_ne!(one[..16], two[..16]);
    assert_ne!(one[16..32], two[16..32]);
}

#[test]
fn keys_of_the_wrong_length_and_unknown_suites_are_refused() {
    for suite in all_suites() {
        assert!(is_supported(&suite));
        let encryption = vec![0; encryption_key_len(&suite)];
        let integrity = vec![0; integrity_key_len(&suite)];
        let longer = |key: &[u8]| [key, &[0]].concat();
        assert!(PacketKey::new(suite, &encryption, &integrity).is_ok());
        for (encryption, integrity) in [
            (longer(&encryption), integrity.clone()),
            (encryption.clone(), longer(&integrity)),
        ] {
            let refused = PacketKey::new(suite, &encryption, &integrity);
            assert!(matches!(refused, Err(KeyError::Length { .. })), "{suite:?}");
        }
    }
    for suite in [
        CipherSuite {
            encryption: EncryptionId::NULL,
            key_bits: 0,
            integrity: None,
        },
        CipherSuite {
            encryption: EncryptionId::AES_CBC,
            key_bits: 256,
            integrity: None,
        },
        CipherSuite {
            encryption: EncryptionId::AES_GCM_16,
            key_bits: 257,
            integrity: None,
        },
        CipherSuite {
            encryption: EncryptionId::AES_CTR,
            key_bits: 128,
            integrity: None,
        },
        CipherSuite {
            encryption: EncryptionId::NULL_AES_GMAC,
            key_bits: 128,
            integrity: Some(IntegrityId::HMAC_SHA2_256_128),
        },
        CipherSuite {
            encryption: EncryptionId::TRIPLE_DES,
            key_bits: 192,
            integrity: Some(IntegrityId::HMAC_SHA1_96),
        },
        CipherSuite {
            encryption: EncryptionId::AES_GCM_16,
            key_bits: 128,
            integrity: Some(IntegrityId::HMAC_SHA1_96),
        },
    ] {
        assert!(!is_supported(&suite));
        assert!(matches!(
            PacketKey::new(suite, &[], &[]),
            Err(KeyError::Unsupported(_))
        ));
    }
}

#[test]
fn debug_output_of_a_key_shows_its_suite_only() {
    let text = format!("{:?}", key(Provider::Fast, aead_suites()[3], &[5; 64]));
    assert!(
        text.starts_with("PacketKey { suite: CipherSuite {"),
        "{text}"
    );
    assert!(text.ends_with(", .. }"), "{text}");
}
