//! Retransmission, giving up, and trying again.

use std::time::Duration;

use lockgate::wire::isakmp::ExchangeType;

use super::config::Side;
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
