//! Retransmission, giving up, and trying again.

use std::time::Duration;

use lockgate::wire::isakmp::{ExchangeType, PayloadType};

use super::actor::{Actor, sa, selectors};
use super::config::{Side, esp_proposals};
use super::network::{Fate, Sent};
use super::pair::{Pair, initiate, rekey_child, seconds};

fn times(sent: &[&Sent]) -> Vec<f64> {
    let start = sent[0].at;
    sent.iter()
        .map(|sent| (sent.at - start).as_secs_f64())
        .collect()
}

#[test]
fn an_unanswered_request_is_repeated_byte_for_byte_in_growing_intervals_and_given_up() {
    let mut pair = Pair::with(|_, setup| setup.settings.retransmit.jitter_percent = 0);
    pair.net.decide(|_| Fate::Drop);
    let id = pair.command(Side::A, initiate("lan"));
    pair.run_for(Duration::from_millis(31_499));
    assert_eq!(pair.result(Side::A, id), None);
    let sent = pair.net.from(Side::A, 0);
    assert_eq!(times(&sent), [0.0, 0.5, 1.5, 3.5, 7.5, 15.5]);
    assert!(sent.iter().all(|other| other.transmit == sent[0].transmit));
    pair.run_for(Duration::from_millis(1));
    let failure = pair.failure(Side::A, id);
    assert!(
        failure.contains("192.0.2.2:500 does not answer"),
        "{failure}"
    );
    pair.assert_nothing_left();
    pair.finish();
}

#[test]
fn intervals_differ_by_a_tenth_at_most() {
    let mut all = Vec::new();
    for seed in 0..20 {
        let mut pair = Pair::seeded(seed, |_, _| {});
        pair.net.decide(|_| Fate::Drop);
        pair.command(Side::A, initiate("lan"));
        pair.run_for(seconds(40));
        let times = times(&pair.net.from(Side::A, 0));
        for (wait, expected) in times.windows(2).zip([0.5, 1.0, 2.0, 4.0, 8.0]) {
            let wait = wait[1] - wait[0];
            assert!((wait / expected - 1.0).abs() <= 0.1, "{times:?}");
        }
        all.push(format!("{times:?}"));
    }
    all.sort();
    all.dedup();
    assert_eq!(all.len(), 20, "jitter is not random");
}

#[test]
fn a_peer_is_tried_as_often_as_configured() {
    let mut pair = Pair::with(|_, setup| setup.connection.keyingtries = 3);
    pair.net.decide(|_| Fate::Drop);
    let id = pair.command(Side::A, initiate("lan"));
    pair.run_for(seconds(60));
    assert_eq!(pair.result(Side::A, id), None, "the second try");
    pair.run_for(seconds(60));
    assert!(pair.failure(Side::A, id).contains("does not answer"));
    let mut spis: Vec<_> = pair
        .net
        .trace
        .iter()
        .map(|sent| sent.header.initiator_spi.0)
        .collect();
    assert_eq!(spis.len(), 18);
    spis.dedup();
    assert_eq!(spis.len(), 3);
    pair.assert_nothing_left();
    pair.finish();
}

#[test]
fn a_peer_that_comes_after_an_hour_is_reached_if_tries_are_unlimited() {
    let mut pair = Pair::with(|_, setup| setup.connection.keyingtries = 0);
    pair.net.decide(|_| Fate::Drop);
    let id = pair.command(Side::A, initiate("lan"));
    pair.run_for(seconds(3600));
    assert_eq!(pair.result(Side::A, id), None);
    assert!(
        pair.net.sent() < 800,
        "{} messages in an hour",
        pair.net.sent()
    );
    pair.net.heal();
    pair.run_for(seconds(25));
    assert!(matches!(pair.result(Side::A, id), Some(Ok(_))));
    pair.assert_clean(1);
    pair.finish();
}

#[test]
fn a_repeated_ike_auth_request_gets_the_same_answer() {
    let mut pair = Pair::new();
    let mut lost = 0;
    pair.net.decide(move |sent| {
        if sent.is(ExchangeType::IKE_AUTH, true) && lost < 3 {
            lost += 1;
            return Fate::Drop;
        }
        Fate::Deliver
    });
    pair.command(Side::A, initiate("lan"));
    pair.run_for(seconds(10));
    let answers: Vec<_> = pair
        .net
        .trace
        .iter()
        .filter(|sent| sent.is(ExchangeType::IKE_AUTH, true))
        .collect();
    assert_eq!(answers.len(), 4);
    assert!(
        answers
            .iter()
            .all(|answer| answer.transmit == answers[0].transmit)
    );
    pair.assert_clean(1);
    pair.finish();
}

#[test]
fn an_established_peer_that_does_not_answer_is_given_up_with_all_its_children() {
    for side in Side::BOTH {
        let mut pair = Pair::up();
        pair.gapless = false;
        pair.net.decide(|_| Fate::Drop);
        pair.command(side, rekey_child());
        pair.run_for(seconds(40));
        pair.host(side).assert_empty("the side that noticed");
        assert!(pair.host(side).logged("the peer does not answer"));
        assert_eq!(
            pair.children(side.other()).len(),
            1,
            "the other side has noticed nothing"
        );
        // A new tunnel replaces what the other side still has.
        pair.net.heal();
        pair.command(side, initiate("lan"));
        pair.run_for(seconds(10));
        pair.assert_clean(1);
        pair.finish();
    }
}

/// B wants a second child, and its peer is made by hand.
fn asked_for_a_child() -> (Pair, Actor, Vec<u8>) {
    let mut pair = Pair::with(|side, setup| setup.add_second_child(side));
    let mut actor = Actor::connect(&mut pair, 1);
    pair.command(Side::B, initiate("lab"));
    let request = actor.take_request(&pair).unwrap();
    let offer = request.body(PayloadType::SA).unwrap().to_vec();
    let mut proposals = esp_proposals(&["aes128gcm16-esn"]);
    proposals[0].spi = vec![0x70, 0, 0, 1];
    let mut answer = vec![
        (PayloadType::SA, sa(&proposals)),
        (PayloadType::NONCE, actor.nonce()),
    ];
    answer.extend(selectors("10.102.0.0/16", "10.101.0.0/16"));
    actor.answer(&mut pair, &request, &answer);
    (pair, actor, offer)
}

#[test]
fn a_child_sa_whose_answer_is_refused_is_deleted_at_the_peer() {
    let (mut pair, mut actor, offer) = asked_for_a_child();
    assert!(pair.host(Side::B).logged("not inside"));
    let request = actor.take_request(&pair).unwrap();
    let spi = &offer[8..12];
    let delete = request.body(PayloadType::DELETE).unwrap();
    assert_eq!(delete, [&[3, 4, 0, 1], spi].concat());
    actor.answer(&mut pair, &request, &vec![]);
    assert_eq!(pair.children(Side::B).len(), 1);
    assert_eq!(pair.host(Side::B).plane.counts(), (1, 1));
}

#[test]
fn a_peer_whose_answers_are_broken_is_not_called_again_at_once() {
    let mut pair = Pair::with(|side, setup| {
        setup.add_second_child(side);
        setup.connection.keyingtries = 0;
        for child in &mut setup.children {
            child.start_action = lockgate::ike::StartAction::Start;
        }
    });
    let mut actor = Actor::connect(&mut pair, 1);
    pair.command(Side::B, initiate("lab"));
    let request = actor.take_request(&pair).unwrap();
    let before = pair.net.sent();
    actor.answer(&mut pair, &request, &vec![(PayloadType::SA, vec![1, 2])]);
    let calls = |pair: &Pair| {
        let sent = pair.net.from(Side::B, before);
        let first = |sent: &&&Sent| sent.is(ExchangeType::IKE_SA_INIT, false);
        sent.iter().filter(first).count()
    };
    pair.run_for(seconds(9));
    assert_eq!(calls(&pair), 0);
    pair.run_for(seconds(60));
    assert!(calls(&pair) > 0);
}
