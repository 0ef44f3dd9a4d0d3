//! Which of two offers is chosen.

use super::*;
use crate::wire::keyword::parse_proposal;
use crate::wire::proposal::{EncryptionId, PrfId};

fn ike(text: &str) -> SaProposal {
    parse_proposal(ProtocolId::Ike, text).expect("a proposal")
}

fn esp(text: &str) -> SaProposal {
    parse_proposal(ProtocolId::Esp, text).expect("a proposal")
}

fn numbered(proposals: &[SaProposal]) -> Vec<(u8, SaProposal)> {
    (1..).zip(proposals.iter().cloned()).collect()
}

#[test]
fn our_order_decides_between_common_suites() {
    let ours = [
        ike("aes256gcm16-prfsha384-x25519"),
        ike("aes128-sha256-modp2048"),
    ];
    let theirs = [
        ike("aes128-sha256-modp2048"),
        ike("aes128gcm16-aes256gcm16-prfsha256-prfsha384-ecp256-x25519"),
    ];
    let choice = choose_ike(&ours, &numbered(&theirs), None).expect("a choice");
    assert_eq!(choice.number, 2);
    assert_eq!(choice.suite.cipher.key_bits, 256);
    assert_eq!(choice.suite.prf, PrfId::HMAC_SHA2_384);
    assert_eq!(choice.suite.key_exchange, KeyExchangeId::X25519);
    assert_eq!(
        check_answer(&theirs, &[(2, choice.proposal.clone())]),
        Some(&choice.proposal)
    );
    assert_eq!(check_answer(&theirs, &[(1, choice.proposal)]), None);
}

#[test]
fn an_acceptable_method_that_was_sent_saves_a_round_trip() {
    let ours = [ike("aes256gcm16-prfsha384-x25519-ecp256")];
    let theirs = numbered(&ours);
    let choice = choose_ike(&ours, &theirs, Some(KeyExchangeId::ECP256)).expect("a choice");
    assert_eq!(choice.suite.key_exchange, KeyExchangeId::ECP256);
    let choice = choose_ike(&ours, &theirs, Some(KeyExchangeId::MODP2048)).expect("a choice");
    assert_eq!(choice.suite.key_exchange, KeyExchangeId::X25519);
}

#[test]
fn a_mismatch_names_the_transform_and_both_sides() {
    let ours = [ike("aes256gcm16-prfsha384-x25519")];
    let theirs = numbered(&[ike("aes256gcm16-prfsha384-modp2048")]);
    let error = choose_ike(&ours, &theirs, None).expect_err("no common method");
    let text = error.to_string();
    assert!(text.contains("no common key exchange method"), "{text}");
    assert!(
        text.contains("modp2048") && text.contains("x25519"),
        "{text}"
    );
}

#[test]
fn ike_auth_negotiates_esp_without_key_exchange() {
    let ours = [esp("aes256gcm16-x25519-esn-noesn")];
    let theirs = numbered(&offer(
        &[esp("aes256gcm16-modp2048-noesn")],
        &[1, 2, 3, 4],
        false,
    ));
    let choice = choose_esp(&ours, &theirs, None, false).expect("a choice");
    assert_eq!(choice.suite.key_exchange, None);
    assert!(!choice.suite.esn);
    assert_eq!(choice.proposal.spi, [1, 2, 3, 4]);
    assert!(choose_esp(&ours, &theirs, None, true).is_err());
}

#[test]
fn sequence_numbers_are_short_unless_both_want_long_ones() {
    for (ours, theirs, esn) in [
        ("aes256gcm16-esn-noesn", "aes256gcm16-esn-noesn", Some(true)),
        ("aes256gcm16-esn", "aes256gcm16-noesn", None),
        ("aes256gcm16-noesn", "aes256gcm16-esn-noesn", Some(false)),
    ] {
        let choice = choose_esp(&[esp(ours)], &numbered(&[esp(theirs)]), None, false);
        assert_eq!(
            choice.ok().map(|choice| choice.suite.esn),
            esn,
            "{ours} {theirs}"
        );
    }
}

#[test]
fn an_unknown_transform_type_refuses_the_proposal_but_an_unknown_id_does_not() {
    let ours = [ike("aes256gcm16-prfsha384-x25519")];
    let mut theirs = ours[0].clone();
    theirs
        .transforms
        .push(Transform::Unknown { kind: 4, id: 999 });
    assert!(choose_ike(&ours, &[(1, theirs.clone())], None).is_ok());
    theirs
        .transforms
        .push(Transform::Unknown { kind: 13, id: 1 });
    assert!(choose_ike(&ours, &[(1, theirs)], None).is_err());
}

#[test]
fn an_implicit_iv_is_not_the_explicit_one_and_not_for_ike() {
    let both = numbered(&[esp("aes256gcm16iiv-aes256gcm16-noesn")]);
    let choice = |own: &str| choose_esp(&[esp(own)], &both, None, false).map(|choice| choice.suite);
    let [implicit, explicit] = ["aes256gcm16iiv-noesn", "aes256gcm16-noesn"]
        .map(|own| choice(own).expect("one of theirs").cipher.encryption);
    assert_eq!(implicit, EncryptionId::AES_GCM_16_IIV);
    assert_eq!(explicit, EncryptionId::AES_GCM_16);

    let only_implicit = numbered(&[esp("aes256gcm16iiv-noesn")]);
    assert!(choose_esp(&[esp("aes256gcm16-noesn")], &only_implicit, None, false).is_err());

    // Whatever a peer picks, there is no IKE suite with it.
    let mut proposal = ike("aes256gcm16-prfsha256-x25519");
    assert!(ike_suite(&proposal).is_some());
    for transform in &mut proposal.transforms {
        if let Transform::Encryption { id, .. } = transform {
            *id = EncryptionId::AES_GCM_16_IIV;
        }
    }
    assert_eq!(ike_suite(&proposal), None);
}

#[test]
fn an_answer_may_not_repeat_or_invent_transforms() {
    let offer = [ike("aes256gcm16-prfsha384-x25519-ecp256")];
    let answer = ike("aes256gcm16-prfsha384-x25519-ecp256");
    assert_eq!(check_answer(&offer, &[(1, answer)]), None);
    let answer = ike("aes128gcm16-prfsha384-x25519");
    assert_eq!(check_answer(&offer, &[(1, answer)]), None);
    assert_eq!(check_answer(&offer, &[]), None);
}

const X25519: &str = "aes256gcm16-prfsha384-x25519";

/// The additional exchanges that two IKE proposals lead to.
fn additional_of(ours: &str, theirs: &str) -> Option<Vec<(u8, KeyExchangeId)>> {
    let (ours, theirs) = (
        [ike(&format!("{X25519}-{ours}"))],
        [ike(&format!("{X25519}-{theirs}"))],
    );
    let choice = choose_ike(&ours, &numbered(&theirs), None).ok()?;
    let answer = [(choice.number, choice.proposal)];
    let checked = check_answer(&theirs, &answer).expect("the offerer takes it");
    assert_eq!(ike_suite(checked), Some(choice.suite));
    Some(choice.suite.additional.iter().collect())
}

#[test]
fn additional_exchanges_are_left_out_only_where_both_sides_can_do_without() {
    let (small, large) = (KeyExchangeId::ML_KEM_512, KeyExchangeId::ML_KEM_768);
    for (ours, theirs, expected) in [
        (
            "ke1_mlkem768",
            "ke1_mlkem512-ke1_mlkem768",
            Some(vec![(1, large)]),
        ),
        ("ke1_mlkem768-ke1_none", "ke2_none", Some(vec![])),
        (
            "ke1_none-ke1_mlkem512",
            "ke1_mlkem512-ke1_none",
            Some(vec![]),
        ),
        ("ke1_mlkem512", "ke2_mlkem512-ke2_none", None),
        ("ke1_mlkem512", "ke1_mlkem768", None),
        (
            "ke3_mlkem512-ke5_mlkem768",
            "ke5_mlkem768-ke3_mlkem512",
            Some(vec![(3, small), (5, large)]),
        ),
    ] {
        assert_eq!(additional_of(ours, theirs), expected, "{ours} and {theirs}");
    }
}

#[test]
fn no_method_is_used_twice_if_there_is_another_way() {
    let both = "ke1_mlkem768-ke1_mlkem512-ke2_mlkem768";
    let expected = [
        (1, KeyExchangeId::ML_KEM_512),
        (2, KeyExchangeId::ML_KEM_768),
    ];
    assert_eq!(additional_of(both, both), Some(expected.to_vec()));
    assert_eq!(additional_of("ke1_mlkem768-ke2_mlkem768", both), None);
    assert_eq!(additional_of("ke1_x25519", "ke1_x25519"), None);
}

#[test]
fn an_answer_may_not_drop_or_repeat_an_additional_exchange() {
    let with = |rest: &str| ike(&format!("{X25519}-{rest}"));
    let offer = [with("ke1_mlkem768-ke2_mlkem768-ke2_ecp256-ke2_none")];
    for (answer, good) in [
        ("ke1_mlkem768", true),
        ("ke1_mlkem768-ke2_none", true),
        ("ke1_mlkem768-ke2_ecp256", true),
        ("ke2_ecp256", false),
        ("ke1_none", false),
        ("ke1_mlkem768-ke2_mlkem768", false),
        ("ke1_mlkem768-ke3_ecp256", false),
    ] {
        let checked = check_answer(&offer, &[(1, with(answer))]).is_some();
        assert_eq!(checked, good, "{answer}");
    }
    assert!(check_answer(&offer, &[(1, ike(X25519))]).is_none());
}

#[test]
fn without_intermediate_exchanges_only_what_can_do_without_them_is_left() {
    let with = |rest: &str| ike(&format!("{X25519}-{rest}"));
    let offer = numbered(&[
        with("ke1_mlkem768"),
        with("ke1_mlkem768-ke1_none"),
        ike(X25519),
    ]);
    let left = single_exchange(&offer);
    assert_eq!(left, [(2, with("ke1_none")), (3, ike(X25519))]);
}

#[test]
fn ike_auth_negotiates_esp_without_additional_exchanges() {
    let ours = [esp("aes256gcm16-x25519-ke1_mlkem768-noesn")];
    let theirs = numbered(&offer(&ours, &[1, 2, 3, 4], false));
    assert!(!has_additional(&[theirs[0].1.clone()]));
    let choice = choose_esp(&ours, &theirs, None, false).expect("a choice");
    assert!(choice.suite.additional.is_empty());
}
