//! Key exchange with known private values.

use lockgate::crypto::kex::{
    AnswerError, InvalidPublic, KeyExchange, UnsupportedGroup, answer, is_supported_group,
};
use lockgate::wire::proposal::KeyExchangeId;

use crate::cases::{Prepared, cases};

const GROUPS: [KeyExchangeId; 13] = [
    KeyExchangeId::X25519,
    KeyExchangeId::ECP256,
    KeyExchangeId::ECP384,
    KeyExchangeId::ECP521,
    KeyExchangeId::ECP256_BP,
    KeyExchangeId::ECP384_BP,
    KeyExchangeId::MODP1024,
    KeyExchangeId::MODP1536,
    KeyExchangeId::MODP2048,
    KeyExchangeId::MODP3072,
    KeyExchangeId::MODP4096,
    KeyExchangeId::MODP6144,
    KeyExchangeId::MODP8192,
];

/// An exchange with the private value that `seed` repeated gives.
fn exchange(group: KeyExchangeId, seed: u8) -> KeyExchange {
    KeyExchange::generate(group, &mut Prepared(vec![seed; 1024])).expect("one of ours")
}

#[test]
fn public_values_and_shared_secrets_are_the_published_ones() {
    for case in cases(include_str!("../data/kex.txt")) {
        let group = KeyExchangeId(case.id("group"));
        for (own, peer) in [("i", "r"), ("r", "i")] {
            let private = case.get(&format!("private_{own}"));
            let exchange = KeyExchange::generate(group, &mut Prepared(private)).expect("supported");
            assert_eq!(exchange.group(), group);
            assert_eq!(
                exchange.public(),
                case.get(&format!("public_{own}")),
                "{}",
                case.name
            );

            let shared = exchange
                .finish(&case.get(&format!("public_{peer}")))
                .expect("valid");
            assert_eq!(shared.as_bytes(), case.get("shared"), "{}", case.name);
        }
    }
}

#[test]
fn only_the_groups_we_offer_are_supported() {
    let supported: Vec<_> = (0..=100)
        .map(KeyExchangeId)
        .filter(|&id| is_supported_group(id))
        .collect();
    let ml_kem = [
        KeyExchangeId::ML_KEM_512,
        KeyExchangeId::ML_KEM_768,
        KeyExchangeId::ML_KEM_1024,
    ];
    let mut ours = [&GROUPS[..], &ml_kem].concat();
    ours.sort();
    assert_eq!(supported, ours);
    let refused = KeyExchange::generate(KeyExchangeId::X448, &mut Prepared(vec![1; 1024]));
    let unsupported = UnsupportedGroup(KeyExchangeId::X448);
    assert_eq!(refused.err(), Some(unsupported));
    let refused = answer(KeyExchangeId::X448, &[2; 56], &mut Prepared(vec![]));
    assert_eq!(refused.err(), Some(AnswerError::Unsupported(unsupported)));
}

#[test]
fn the_answer_to_a_public_value_holds_the_secret_that_the_initiator_computes() {
    for group in GROUPS {
        let initiator = exchange(group, 1);
        let answer = answer(group, initiator.public(), &mut Prepared(vec![2; 1024]));
        let answer = answer.expect("a good value");
        assert_eq!(answer.public, exchange(group, 2).public(), "{group}");
        assert_eq!(initiator.finish(&answer.public), Ok(answer.shared));
    }
}

#[test]
fn a_public_value_of_another_length_is_refused() {
    for group in GROUPS {
        let good = exchange(group, 1).public().to_vec();
        let wrong = [
            Vec::new(),
            good[1..].to_vec(),
            good[..good.len() - 1].to_vec(),
            [&[0], &good[..]].concat(),
            [&[4], &good[..]].concat(),
            [&good[..], &[0]].concat(),
        ];
        let other = exchange(group, 2);
        for peer in wrong {
            assert_eq!(other.finish(&peer), Err(InvalidPublic), "{group}");
        }
        assert!(other.finish(&good).is_ok());
    }
}

#[test]
fn a_modp_value_outside_of_the_open_interval_is_refused() {
    for case in cases(include_str!("../data/kex.txt")) {
        let Some(prime) = case.find("prime") else {
            continue;
        };
        let group = KeyExchangeId(case.id("group"));
        let (&last, front) = prime.split_last().expect("a prime has bytes");
        let below = |by: u8| [front, &[last - by]].concat();
        let number = |low: u8| [&vec![0; front.len()][..], &[low]].concat();
        let exchange = exchange(group, 2);
        for peer in [
            number(0),
            number(1),
            below(1),
            prime.clone(),
            vec![0xff; prime.len()],
        ] {
            assert_eq!(exchange.finish(&peer), Err(InvalidPublic), "{}", case.name);
        }
        for peer in [number(2), below(2)] {
            assert!(exchange.finish(&peer).is_ok(), "{}", case.name);
        }
    }
}

#[test]
fn a_point_off_the_curve_is_refused() {
    for group in [
        KeyExchangeId::ECP256,
        KeyExchangeId::ECP384,
        KeyExchangeId::ECP521,
        KeyExchangeId::ECP256_BP,
        KeyExchangeId::ECP384_BP,
    ] {
        let mut peer = exchange(group, 1).public().to_vec();
        *peer.last_mut().expect("a point has bytes") ^= 1;
        assert_eq!(
            exchange(group, 2).finish(&peer),
            Err(InvalidPublic),
            "{group}"
        );
        let origin = vec![0; peer.len()];
        assert_eq!(
            exchange(group, 2).finish(&origin),
            Err(InvalidPublic),
            "{group}"
        );
    }
}

#[test]
fn the_same_random_bytes_give_the_same_exchange() {
    for group in GROUPS {
        let first = exchange(group, 1);
        assert_eq!(first.public(), exchange(group, 1).public());
        assert_ne!(first.public(), exchange(group, 2).public());
    }
}

/// The order of P-256 starts with 32 one bits: a draw of ones only is too large.
#[test]
fn a_private_value_that_is_no_scalar_is_drawn_again() {
    let good = [1; 32];
    let random = [[0xff; 32], [0; 32], good].concat();
    let exchange = KeyExchange::generate(KeyExchangeId::ECP256, &mut Prepared(random));
    let expected = KeyExchange::generate(KeyExchangeId::ECP256, &mut Prepared(good.to_vec()));
    assert_eq!(
        exchange.expect("supported").public(),
        expected.expect("supported").public(),
    );
}

#[test]
fn debug_output_names_the_group_only() {
    let text = format!("{:?}", exchange(KeyExchangeId::MODP2048, 1));
    assert_eq!(text, "KeyExchange { group: KeyExchangeId(14), .. }");
}
