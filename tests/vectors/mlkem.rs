//! ML-KEM: Wycheproof, which holds NIST's ACVP vectors too, and `aws-lc-rs` as the other side.

use aws_lc_rs::kem;
use lockgate::crypto::kex::{AnswerError, InvalidPublic, KeyExchange, answer};
use lockgate::wire::proposal::KeyExchangeId;
use wycheproof::TestResult;
use wycheproof::mlkem::{Test, TestName, TestSet};

use crate::cases::Prepared;

const METHODS: [(KeyExchangeId, [TestName; 3]); 3] = [
    (
        KeyExchangeId::ML_KEM_512,
        [
            TestName::MlKem512KeyGenSeed,
            TestName::MlKem512Encaps,
            TestName::MlKem512,
        ],
    ),
    (
        KeyExchangeId::ML_KEM_768,
        [
            TestName::MlKem768KeyGenSeed,
            TestName::MlKem768Encaps,
            TestName::MlKem768,
        ],
    ),
    (
        KeyExchangeId::ML_KEM_1024,
        [
            TestName::MlKem1024KeyGenSeed,
            TestName::MlKem1024Encaps,
            TestName::MlKem1024,
        ],
    ),
];

fn tests(name: TestName) -> impl Iterator<Item = Test> {
    let set = TestSet::load(name).expect("the set is built in");
    set.test_groups.into_iter().flat_map(|group| group.tests)
}

fn initiator(method: KeyExchangeId, seed: &[u8]) -> KeyExchange {
    KeyExchange::generate(method, &mut Prepared(seed.to_vec())).expect("supported")
}

#[test]
fn a_seed_gives_the_published_encapsulation_key() {
    for (method, [keys, ..]) in METHODS {
        let mut run = 0;
        for test in tests(keys) {
            let seed = test.seed.expect("a seed");
            let expected = test.encaps_key.expect("a key");
            assert_eq!(initiator(method, &seed).public(), &expected[..]);
            run += 1;
        }
        assert!(run >= 100, "only {run} keys of {method}");
    }
}

/// Among the refused keys are those of a wrong length and those with coefficients of q and more.
#[test]
fn an_answer_is_the_published_ciphertext_and_a_bad_encapsulation_key_gets_none() {
    for (method, [_, encapsulations, _]) in METHODS {
        let (mut valid, mut refused) = (0, 0);
        for test in tests(encapsulations) {
            let key = test.encaps_key.expect("a key");
            let mut random = Prepared(test.msg.expect("a message").to_vec());
            let answer = answer(method, &key, &mut random);
            if test.result == TestResult::Invalid {
                let refusal = AnswerError::Invalid(InvalidPublic);
                assert_eq!(answer.err(), Some(refusal), "{method} {}", test.tc_id);
                refused += 1;
            } else {
                let answer = answer.expect("a good key");
                assert_eq!(answer.public, test.ct.expect("a ciphertext").to_vec());
                let expected = test.shared_secret.expect("a secret");
                assert_eq!(answer.shared.as_bytes(), &expected[..]);
                valid += 1;
            }
        }
        assert!(
            valid >= 100 && refused >= 100,
            "{method}: {valid}, {refused}"
        );
    }
}

/// A changed ciphertext is not refused, but gives a secret of its own (implicit rejection).
#[test]
fn a_ciphertext_gives_the_published_secret_and_one_of_another_length_none() {
    for (method, [.., decapsulations]) in METHODS {
        let (mut valid, mut refused) = (0, 0);
        for test in tests(decapsulations) {
            let seed = test.seed.expect("a seed");
            let ciphertext = test.ct.expect("a ciphertext");
            if seed.len() != 64 {
                continue; // seeds are what we draw
            }
            let shared = initiator(method, &seed).finish(&ciphertext);
            if test.result == TestResult::Invalid {
                assert_eq!(shared, Err(InvalidPublic), "{method} {}", test.tc_id);
                refused += 1;
            } else {
                let expected = test.shared_secret.expect("a secret");
                let shared = shared.expect("a good length");
                assert_eq!(shared.as_bytes(), &expected[..], "{}", test.tc_id);
                valid += 1;
            }
        }
        assert!(
            valid >= 100 && refused >= 10,
            "{method}: {valid}, {refused}"
        );
    }
}

#[test]
fn the_other_provider_agrees_in_both_roles() {
    for (method, theirs) in [
        (KeyExchangeId::ML_KEM_512, &kem::ML_KEM_512),
        (KeyExchangeId::ML_KEM_768, &kem::ML_KEM_768),
        (KeyExchangeId::ML_KEM_1024, &kem::ML_KEM_1024),
    ] {
        let ours = initiator(method, &[7; 64]);
        let key = kem::EncapsulationKey::new(theirs, ours.public()).expect("a good key");
        let (ciphertext, secret) = key.encapsulate().expect("a ciphertext");
        let shared = ours.finish(ciphertext.as_ref()).expect("a good length");
        assert_eq!(shared.as_bytes(), secret.as_ref());

        let key = kem::DecapsulationKey::generate(theirs).expect("a key");
        let public = key
            .encapsulation_key()
            .and_then(|key| key.key_bytes().map(|bytes| bytes.as_ref().to_vec()));
        let answer = answer(method, &public.expect("bytes"), &mut Prepared(vec![9; 32]));
        let answer = answer.expect("a good key");
        let secret = key.decapsulate(answer.public[..].into()).expect("a secret");
        assert_eq!(answer.shared.as_bytes(), secret.as_ref());
    }
}
