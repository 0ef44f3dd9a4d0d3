//! Every breach of the rules by a peer with keys: B tells it so in the way it has to, counts it once, and nothing else
//! changes.

use lockgate::crypto::Secret;
use lockgate::ike::Discard;
use lockgate::wire::ikev2::NotifyType;
use lockgate::wire::isakmp::{ExchangeType, Header, PayloadType};

use super::actor::{Actor, identity};
use super::breaches::{self, Answer, Breach, Names, Stage};
use super::config::Side;
use super::pair::{Pair, seconds};

fn names(pair: &mut Pair) -> Names {
    Names {
        secret: Secret::from(pair.setup(Side::A).secret.as_bytes().to_vec()),
        ids: Side::BOTH.map(identity),
        networks: Side::BOTH.map(Side::network),
    }
}

/// What B says to this.
fn answer(pair: &mut Pair, actor: &mut Actor, message: &[u8]) -> Answer {
    let before = pair.net.sent();
    actor.send(pair, message);
    let (asked, _) = Header::parse(message).unwrap();
    let sent = pair.net.from(Side::B, before).into_iter();
    let mut answers = sent.filter(|sent| {
        let header = sent.header;
        let sealed = header.next_payload == PayloadType::SK;
        sealed && header.flags.response() && header.message_id == asked.message_id
    });
    let Some(sent) = answers.next() else {
        return Answer::Silence;
    };
    actor.next_id += 1;
    let opened = actor.open(&sent.transmit.bytes);
    match (opened.error(), opened.payloads.len()) {
        (None, _) => Answer::Fine,
        (Some(error), 1) => Answer::Refused(error),
        (Some(error), count) => panic!("{error:?} and {count} other payloads"),
    }
}

/// What is wrong with how B takes it.
fn play(breach: &Breach) -> Option<String> {
    let mut pair = Pair::new();
    let names = names(&mut pair);
    let mut actor = match breach.stage {
        Stage::HalfOpen => Actor::half_open(&mut pair, 1),
        Stage::Up => Actor::connect(&mut pair, 1),
    };
    let counts = |pair: &mut Pair| *pair.host(Side::B).endpoint.discards();
    let mut expected = counts(&mut pair);
    if let Some(counter) = breach.counter {
        expected[counter.index()] += 1;
    }
    let message = (breach.make)(&mut actor, &names);
    let answer = answer(&mut pair, &mut actor, &message);
    let counted = counts(&mut pair);
    let mut wrong = Vec::new();
    if answer != breach.answer {
        wrong.push(format!("{answer:?} instead of {:?}", breach.answer));
    }
    if counted != expected {
        let rose = Discard::ALL.into_iter();
        let rose: Vec<_> = rose
            .filter(|why| counted[why.index()] != expected[why.index()])
            .collect();
        wrong.push(format!("{rose:?} with {:?}", breach.counter));
    }
    if let (Stage::Up, Answer::Silence | Answer::Fine) = (breach.stage, answer) {
        let payloads = vec![];
        let alive = actor.request(&mut pair, ExchangeType::INFORMATIONAL, &payloads);
        if alive.is_none_or(|answer| !answer.payloads.is_empty()) {
            wrong.push("it lost its IKE SA".to_owned());
        }
    }
    let refused = matches!(answer, Answer::Refused(_));
    let ended = answer == Answer::Refused(NotifyType::INVALID_SYNTAX)
        || (refused && breach.stage == Stage::HalfOpen);
    if ended {
        pair.run_for(seconds(31));
        pair.host(Side::B).assert_empty(&breach.name);
    }
    (!wrong.is_empty()).then(|| format!("{}: {}", breach.name, wrong.join(", ")))
}

#[test]
fn a_peer_with_keys_that_breaks_the_rules_is_counted_once_and_told_what_the_rules_say() {
    let wrong: Vec<_> = breaches::all().iter().filter_map(play).collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}
