//! Proposals: keywords against what strongSwan made of the same text, and hostile SA payloads.

use lockgate::wire::Malformed;
use lockgate::wire::isakmp::PayloadType;
use lockgate::wire::keyword::{
    KeywordError, default_esp_proposals, default_ike_proposals, esp_suite_text, ike_suite_text,
    parse_proposal, proposal_text,
};
use lockgate::wire::proposal::{
    AdditionalExchanges, CipherSuite, EncryptionId, EspSuite, IkeSuite, IntegrityId, KeyExchangeId,
    PrfId, ProtocolId, SaProposal, Transform,
};

use crate::messages::body;

const INIT_REQUEST: &[u8] = include_bytes!("../fuzz/seeds/isakmp_v2/init-request");
const AUTH_REQUEST: &[u8] = include_bytes!("../fuzz/seeds/isakmp_v2/auth-request-inner");
const REKEY_CHILD: &[u8] = include_bytes!("../fuzz/seeds/isakmp_v2/rekey-child-request-inner");
const REKEY_IKE: &[u8] = include_bytes!("../fuzz/seeds/isakmp_v2/rekey-ike-request-inner");

const IKE: [&str; 3] = [
    "aes256gcm16-prfsha384-x25519",
    "aes256-sha256-modp2048",
    "chacha20poly1305-prfsha256-ecp256",
];
const ESP: [&str; 3] = [
    "aes256gcm16-x25519-noesn-esn",
    "chacha20poly1305-noesn",
    "aes128-sha256-noesn",
];

fn encoded(protocol: ProtocolId, spi: &[u8], texts: &[&str]) -> Vec<u8> {
    let parse = |text: &&str| {
        let proposal = parse_proposal(protocol, text).unwrap();
        SaProposal {
            spi: spi.to_vec(),
            ..proposal
        }
    };
    let mut out = Vec::new();
    SaProposal::encode_list(&texts.iter().map(parse).collect::<Vec<_>>(), &mut out);
    out
}

#[test]
fn keywords_give_the_bytes_that_strongswan_sends_for_them() {
    assert_eq!(
        encoded(ProtocolId::Ike, &[], &IKE),
        body(INIT_REQUEST, PayloadType::SA)
    );
    let spi = [0xfa, 0x0d, 0x35, 0x50];
    assert_eq!(
        encoded(ProtocolId::Esp, &spi, &ESP),
        body(REKEY_CHILD, PayloadType::SA)
    );
    // The first exchange offers Child SAs without a key exchange of their own.
    let esp = ["aes256gcm16-noesn-esn", ESP[1], ESP[2]];
    let spi = [0x7d, 0xad, 0xd8, 0x1c];
    assert_eq!(
        encoded(ProtocolId::Esp, &spi, &esp),
        body(AUTH_REQUEST, PayloadType::SA)
    );
}

#[test]
fn a_rekeyed_ike_sa_is_proposed_under_an_eight_byte_spi() {
    let list = SaProposal::parse_list(body(REKEY_IKE, PayloadType::SA)).unwrap();
    assert!(!list.is_empty());
    for (_, proposal) in list {
        assert_eq!(
            (proposal.protocol, proposal.spi.len()),
            (ProtocolId::Ike, 8)
        );
    }
}

#[test]
fn every_keyword_of_every_spelling_is_read_and_written_in_one_spelling() {
    for (protocol, text, written) in [
        (ProtocolId::Ike, IKE[0], IKE[0]),
        (ProtocolId::Ike, IKE[1], "aes256-sha256-prfsha256-modp2048"),
        (
            ProtocolId::Ike,
            "aes128gcm-sha2_256-curve25519",
            "aes128gcm16-prfsha256-x25519",
        ),
        (
            ProtocolId::Ike,
            "AES192GCM128-prfsha512-ecp384",
            "aes192gcm16-prfsha512-ecp384",
        ),
        (
            ProtocolId::Ike,
            "aes192cbc-sha1-modp3072",
            "aes192-sha1-prfsha1-modp3072",
        ),
        (
            ProtocolId::Ike,
            "aes-sha2_384-modp4096",
            "aes128-sha384-prfsha384-modp4096",
        ),
        (
            ProtocolId::Ike,
            "x25519-ecp521-prfsha1-aes256gcm",
            "aes256gcm16-prfsha1-x25519-ecp521",
        ),
        (
            ProtocolId::Ike,
            "aes128-sha512-sha512-prfsha256-x25519",
            "aes128-sha512-prfsha256-x25519",
        ),
        (ProtocolId::Esp, "null-sha256", "null-sha256"),
        (
            ProtocolId::Esp,
            "aes128gcm16-esn-noesn",
            "aes128gcm16-esn-noesn",
        ),
        (
            ProtocolId::Esp,
            "chacha20poly1305-esn",
            "chacha20poly1305-esn",
        ),
        (ProtocolId::Esp, "aes256cbc-sha2_512", "aes256-sha512"),
        (ProtocolId::Esp, "aes128ctr-aescmac", "aes128ctr-aescmac"),
        (ProtocolId::Esp, "aes192ccm96", "aes192ccm12"),
        (
            ProtocolId::Esp,
            "aes256ccm-aes256gcm64",
            "aes256ccm16-aes256gcm8",
        ),
        (ProtocolId::Esp, "aes256gmac-noesn", "aes256gmac-noesn"),
        (
            ProtocolId::Ike,
            "3des-md5-modp1024",
            "3des-md5-prfmd5-modp1024",
        ),
        (
            ProtocolId::Ike,
            "aes128ctr-aesxcbc-aescmac-modp8192-ecp256bp-mlkem768",
            "aes128ctr-aesxcbc-aescmac-prfaesxcbc-prfaescmac-modp8192-ecp256bp-mlkem768",
        ),
    ] {
        let proposal = parse_proposal(protocol, text).unwrap();
        assert_eq!(proposal_text(&proposal), written);
        assert_eq!(parse_proposal(protocol, written), Ok(proposal));
    }
}

#[test]
fn an_unknown_keyword_is_named_with_the_nearest_known_one() {
    for (protocol, text, keyword, expected) in [
        (
            ProtocolId::Ike,
            "aes256gcm61-prfsha384-x25519",
            "aes256gcm61",
            "aes256gcm16",
        ),
        (
            ProtocolId::Ike,
            "aes256gcm16-prfsha348-x25519",
            "prfsha348",
            "prfsha384",
        ),
        (ProtocolId::Ike, "aes256-sha256-x22519", "x22519", "x25519"),
        (
            ProtocolId::Ike,
            "aes256-sha256-modp2040",
            "modp2040",
            "modp2048",
        ),
        (ProtocolId::Esp, "nul-sha256", "nul", "null"),
        (ProtocolId::Esp, "aes256gcm16-nesn", "nesn", "esn"),
        (ProtocolId::Esp, "des-sha1", "des", "3des"),
    ] {
        let error = parse_proposal(protocol, text).unwrap_err();
        let KeywordError::Unknown {
            keyword: found,
            nearest,
            allowed,
        } = &error
        else {
            panic!("{text}: {error}");
        };
        assert_eq!((found.as_str(), *nearest), (keyword, expected));
        assert!(allowed.contains("chacha20poly1305, aes256, "));
        assert!(
            error
                .to_string()
                .contains(&format!("did you mean {expected}?"))
        );
    }
}

#[test]
fn keywords_of_the_other_protocol_are_refused_with_the_reason() {
    for (protocol, text, reason) in [
        (ProtocolId::Ike, "null-sha256-x25519", "not encrypt"),
        (
            ProtocolId::Ike,
            "aes128gmac-prfsha256-x25519",
            "\"aes128gmac\" is for ESP only, because it does not encrypt",
        ),
        (
            ProtocolId::Ike,
            "aes256gcm16iiv-prfsha256-x25519",
            "sequence number is its IV",
        ),
        (
            ProtocolId::Ike,
            "aes256gcm16-prfsha256-x25519-esn",
            "\"esn\" is for ESP only",
        ),
        (
            ProtocolId::Esp,
            "aes256gcm16-prfsha256",
            "\"prfsha256\" is for IKE only",
        ),
    ] {
        let error = parse_proposal(protocol, text).unwrap_err().to_string();
        assert!(error.contains(reason), "{text}: {error}");
    }
}

#[test]
fn nothing_is_no_keyword() {
    for text in ["", "aes256gcm16--esn"] {
        let error = parse_proposal(ProtocolId::Esp, text).unwrap_err();
        assert!(
            matches!(error, KeywordError::Unknown { .. }),
            "{text}: {error}"
        );
    }
}

#[test]
fn a_proposal_that_lacks_or_mixes_kinds_is_refused_with_the_reason() {
    for (protocol, text, reason) in [
        (ProtocolId::Ike, "sha256-x25519", "no encryption"),
        (
            ProtocolId::Ike,
            "aes256-prfsha256-x25519",
            "needs an integrity",
        ),
        (ProtocolId::Ike, "aes256gcm16-x25519", "needs a PRF"),
        (ProtocolId::Ike, "aes256gcm16-prfsha256", "no key exchange"),
        (
            ProtocolId::Ike,
            "aes256gcm16-aes256-sha256-x25519",
            "a proposal each",
        ),
        (ProtocolId::Esp, "aes256", "needs an integrity"),
        (ProtocolId::Esp, "aes128ctr", "needs an integrity"),
        (
            ProtocolId::Esp,
            "aes256gcm16-sha256",
            "authenticates by itself",
        ),
        (
            ProtocolId::Esp,
            "aes128gmac-sha256",
            "authenticates by itself",
        ),
        (ProtocolId::Esp, "null", "needs an integrity"),
        (ProtocolId::Esp, "esn", "no encryption"),
        (ProtocolId::Ah, "sha256", "AH is not supported"),
    ] {
        let error = parse_proposal(protocol, text).unwrap_err().to_string();
        assert!(error.contains(reason), "{text}: {error}");
    }
}

#[test]
fn defaults_put_aeads_first_and_offer_extended_sequence_numbers() {
    let texts = |list: Vec<SaProposal>| list.iter().map(proposal_text).collect::<Vec<_>>();
    let ike = texts(default_ike_proposals());
    assert!(ike[0].starts_with("aes256gcm16-") && ike[0].contains("-x25519-ecp256-"));
    assert!(ike[1].starts_with("aes256-"));
    for text in &ike {
        assert_eq!(
            proposal_text(&parse_proposal(ProtocolId::Ike, text).unwrap()),
            *text
        );
    }
    let esp = texts(default_esp_proposals());
    assert!(esp.iter().all(|text| text.ends_with("-esn-noesn")));
    for text in &esp {
        assert_eq!(
            proposal_text(&parse_proposal(ProtocolId::Esp, text).unwrap()),
            *text
        );
    }
}

#[test]
fn suites_are_written_as_strongswan_logs_them() {
    let gcm = CipherSuite {
        encryption: EncryptionId::AES_GCM_16,
        key_bits: 256,
        integrity: None,
    };
    let cbc = CipherSuite {
        encryption: EncryptionId::AES_CBC,
        key_bits: 128,
        integrity: Some(IntegrityId::HMAC_SHA2_256_128),
    };
    let ike = IkeSuite {
        cipher: gcm,
        prf: PrfId::HMAC_SHA2_384,
        key_exchange: KeyExchangeId::X25519,
        additional: AdditionalExchanges::NONE,
    };
    assert_eq!(
        ike_suite_text(&ike),
        "AES_GCM_16_256/PRF_HMAC_SHA2_384/CURVE_25519"
    );
    let esp = EspSuite {
        cipher: cbc,
        key_exchange: Some(KeyExchangeId::ECP256),
        additional: AdditionalExchanges::NONE,
        esn: true,
    };
    assert_eq!(
        esp_suite_text(&esp),
        "AES_CBC_128/HMAC_SHA2_256_128/ECP_256/ESN"
    );
    assert_eq!(
        esp_suite_text(&EspSuite {
            cipher: gcm,
            key_exchange: None,
            additional: AdditionalExchanges::NONE,
            esn: false
        }),
        "AES_GCM_16_256"
    );
}

/// One proposal of one transform: AES-CBC with the given attribute bytes.
fn sa(attributes: &[u8]) -> Vec<u8> {
    let transform = u8::try_from(8 + attributes.len()).unwrap();
    let proposal = [
        &[0, 0, 0, 8 + transform, 1, 1, 0, 1][..],
        &[0, 0, 0, transform, 1, 0, 0, 12],
    ];
    [&proposal.concat(), attributes].concat()
}

fn transform(attributes: &[u8]) -> Transform {
    SaProposal::parse_list(&sa(attributes)).unwrap()[0]
        .1
        .transforms[0]
}

#[test]
fn a_transform_with_an_attribute_we_do_not_know_is_unknown_and_the_rest_stands() {
    let cbc = |key_bits| Transform::Encryption {
        id: EncryptionId::AES_CBC,
        key_bits,
    };
    let unknown = Transform::Unknown { kind: 1, id: 12 };
    assert_eq!(transform(&[]), cbc(None));
    for bits in [0u16, 7, 256, 257, u16::MAX] {
        let [high, low] = bits.to_be_bytes();
        assert_eq!(transform(&[0x80, 14, high, low]), cbc(Some(bits)));
    }
    assert_eq!(transform(&[0x00, 14, 0, 2, 1, 0]), unknown); // key length as TLV
    assert_eq!(transform(&[0x80, 15, 1, 0]), unknown);
    assert_eq!(transform(&[0x80, 14, 1, 0, 0x80, 14, 0, 128]), unknown);
    assert_eq!(
        SaProposal::parse_list(&sa(&[0x00, 14, 0, 9, 1])).err(),
        Some(Malformed::Truncated("transform attribute"))
    );
    assert!(SaProposal::parse_list(&sa(&[0x80, 14, 1])).is_err());
}

#[test]
fn key_lengths_and_numbers_in_the_wrong_place_make_a_transform_unknown() {
    let with = |kind, id| {
        let mut bytes = sa(&[0x80, 14, 1, 0]);
        (bytes[12], bytes[15]) = (kind, id);
        SaProposal::parse_list(&bytes).unwrap()[0].1.transforms[0]
    };
    assert_eq!(with(2, 5), Transform::Unknown { kind: 2, id: 5 });
    assert_eq!(with(4, 31), Transform::Unknown { kind: 4, id: 31 });
    let mut bytes = sa(&[]);
    (bytes[12], bytes[15]) = (5, 2);
    let list = SaProposal::parse_list(&bytes).unwrap();
    assert_eq!(
        list[0].1.transforms,
        [Transform::Unknown { kind: 5, id: 2 }]
    );
}

#[test]
fn an_sa_payload_that_contradicts_itself_is_refused() {
    let good = sa(&[0x80, 14, 1, 0]);
    assert!(SaProposal::parse_list(&good).is_ok());
    let changed = |at: usize, value: u8| {
        let mut bytes = good.clone();
        bytes[at] = value;
        SaProposal::parse_list(&bytes)
    };
    for (at, values) in [
        (0, &[1, 2, 3, 255][..]),    // another proposal follows, or nonsense
        (3, &[0, 3, 4, 7, 19, 21]),  // proposal length
        (4, &[0]),                   // proposal number
        (6, &[1, 3, 4, 8, 255]),     // SPI size
        (7, &[0, 2, 255]),           // transform count
        (8, &[2, 3, 255]),           // another transform follows, or nonsense
        (11, &[0, 3, 7, 9, 11, 13]), // transform length
    ] {
        for value in values {
            assert!(changed(at, *value).is_err(), "byte {at} = {value}");
        }
    }
    assert!(SaProposal::parse_list(&[]).is_err());
    assert!(SaProposal::parse_list(&[&good[..], &[0]].concat()).is_err());
}

#[test]
fn proposals_for_unknown_protocols_are_skipped_and_numbers_must_run() {
    let mut first = sa(&[]);
    (first[0], first[5]) = (2, 4);
    let mut second = sa(&[]);
    second[4] = 2;
    let list = SaProposal::parse_list(&[&first[..], &second].concat()).unwrap();
    assert_eq!(list.len(), 1);
    assert_eq!(list[0].0, 2);
    second[4] = 3;
    assert_eq!(
        SaProposal::parse_list(&[&first[..], &second].concat()).err(),
        Some(Malformed::BadValue("proposal number"))
    );
}

#[test]
fn the_answer_keeps_the_number_of_the_offer() {
    let mut out = Vec::new();
    parse_proposal(ProtocolId::Ike, IKE[0])
        .unwrap()
        .encode_answer(7, &mut out);
    let list = SaProposal::parse_list(&out).unwrap();
    assert_eq!((list.len(), list[0].0), (1, 7));
}

/// RFC 8750 §8: numbers of their own, and not for IKE.
#[test]
fn implicit_ivs_are_transforms_of_their_own_and_for_esp_alone() {
    let text = "aes256gcm16iiv-aes192gcm16iiv-aes128gcm16iiv-chacha20poly1305iiv-aes256gcm16-esn";
    let proposal = parse_proposal(ProtocolId::Esp, text).unwrap();
    let ciphers: Vec<_> = proposal
        .transforms
        .iter()
        .filter_map(|transform| match transform {
            Transform::Encryption { id, key_bits } => Some((id.0, *key_bits)),
            _ => None,
        })
        .collect();
    let bits = [Some(256), Some(192), Some(128)];
    let expected = [
        (30, bits[0]),
        (30, bits[1]),
        (30, bits[2]),
        (31, None),
        (20, bits[0]),
    ];
    assert_eq!(ciphers, expected);
    assert!(ciphers.iter().all(|(id, _)| EncryptionId(*id).is_aead()));
    assert_eq!(proposal_text(&proposal), text);
    assert_eq!(EncryptionId(30).to_string(), "AES_GCM_16_IIV");
    assert_eq!(EncryptionId(31).to_string(), "CHACHA20_POLY1305_IIV");

    for keyword in ["aes256gcm16iiv", "chacha20poly1305iiv"] {
        let refused = parse_proposal(ProtocolId::Ike, &format!("{keyword}-prfsha256-x25519"));
        assert!(
            matches!(refused, Err(KeywordError::OtherProtocol { .. })),
            "{keyword}"
        );
    }
}

#[test]
fn additional_key_exchanges_are_transform_types_of_their_own() {
    let text = "aes256gcm16-prfsha384-x25519-ke1_mlkem768-ke2_ecp256-ke2_none-ke7_mlkem1024";
    let proposal = parse_proposal(ProtocolId::Ike, text).unwrap();
    assert_eq!(proposal_text(&proposal), text);
    let body = encoded(ProtocolId::Ike, &[], &[text]);
    assert_eq!(SaProposal::parse_list(&body).unwrap(), [(1, proposal)]);
    // Type, reserved byte and ID of the last five transforms (RFC 9370 §2.2.1).
    let last = body[body.len() - 5 * 8..].chunks(8).map(|t| &t[4..]);
    let expected: [&[u8]; 5] = [
        &[4, 0, 0, 31],
        &[6, 0, 0, 36],
        &[7, 0, 0, 19],
        &[7, 0, 0, 0],
        &[12, 0, 0, 37],
    ];
    assert!(last.eq(expected));

    for wrong in [
        "ke0_x25519",
        "ke8_x25519",
        "ke1_sha256",
        "ke1_",
        "ke_x25519",
        "ke1x25519",
    ] {
        let text = format!("aes256gcm16-prfsha384-x25519-{wrong}");
        let error = parse_proposal(ProtocolId::Ike, &text).unwrap_err();
        assert!(matches!(error, KeywordError::Unknown { .. }), "{wrong}");
    }
    let alone = parse_proposal(ProtocolId::Esp, "aes256gcm16-ke1_mlkem768");
    let reason = alone.unwrap_err().to_string();
    assert!(reason.contains("follows another one"), "{reason}");
}
