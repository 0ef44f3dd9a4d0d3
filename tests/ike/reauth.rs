//! New authentications: make before break, and who wants them when (RFC 4478).

use std::collections::BTreeSet;

use lockgate::ike::{Event, Unique};
use lockgate::wire::ikev2::NotifyType;
use lockgate::wire::isakmp::{ExchangeType, PayloadType};

use super::actor::{Actor, delete, notify};
use super::config::Side;
use super::network::Fate;
use super::pair::{Pair, initiate, millis, rekey, rekey_ike, seconds};

/// How often an IKE SA was set up at a side.
fn ups(pair: &mut Pair, side: Side) -> usize {
    let up = |event: &&Event| matches!(event, Event::IkeUp { .. });
    pair.host(side).events.iter().filter(up).count()
}

#[test]
fn a_responder_says_how_long_an_authentication_is_good_for_and_the_initiator_keeps_to_it() {
    let mut pair = Pair::up_with(|side, setup| {
        if side == Side::B {
            setup.connection.reauth_time = seconds(100);
        }
        setup.connection.over_time = seconds(10);
        setup.connection.rekey_time = seconds(30);
    });
    pair.gapless = false;
    pair.run_for(seconds(79));
    assert_eq!(ups(&mut pair, Side::A), 1);
    pair.run_for(seconds(21));
    assert_eq!(
        ups(&mut pair, Side::A),
        2,
        "between 80 and 90 % of the time"
    );
    pair.run_for(seconds(900));
    assert!((10..=14).contains(&ups(&mut pair, Side::A)));
    pair.run_for(seconds(10));
    pair.assert_tunnels(1);
    pair.finish();
}

#[test]
fn an_initiator_that_does_not_authenticate_anew_loses_its_ike_sa_whatever_it_rekeys() {
    let mut pair = Pair::with(|side, setup| {
        if side == Side::B {
            setup.connection.reauth_time = seconds(100);
            setup.connection.over_time = seconds(10);
        }
    });
    let mut actor = Actor::half_open(&mut pair, 1);
    let answer = actor.request(&mut pair, ExchangeType::IKE_AUTH, &actor.auth());
    let answer = answer.unwrap();
    assert!(answer.notifies().contains(&NotifyType::AUTH_LIFETIME));
    let lifetime = answer.payloads.iter().any(|(kind, body)| {
        *kind == PayloadType::NOTIFY && body.ends_with(&[0x40, 0x13, 0, 0, 0, 100])
    });
    assert!(lifetime, "{answer:?}");
    pair.run_for(seconds(109));
    actor.replace_child(&mut pair);
    assert_eq!(pair.ike_sas(Side::B).len(), 1);
    pair.run_for(seconds(1));
    let request = actor.take_request(&pair).unwrap();
    assert_eq!(request.payloads, vec![delete(1, 0, 0, &[])]);
    actor.answer(&mut pair, &request, &vec![]);
    assert!(pair.ike_sas(Side::B).is_empty());

    // The same through rekeys of the IKE SA.
    let mut pair = Pair::up_with(|side, setup| {
        if side == Side::B {
            setup.connection.reauth_time = seconds(100);
            setup.connection.over_time = seconds(10);
        }
    });
    pair.gapless = false;
    for side in [Side::A, Side::B, Side::A] {
        pair.run_for(seconds(20));
        pair.command(side, rekey_ike());
    }
    pair.run_for(seconds(1));
    let init = ExchangeType::IKE_SA_INIT;
    pair.net.decide(move |sent| match sent.is(init, false) {
        true => Fate::Drop,
        false => Fate::Deliver,
    });
    pair.run_for(seconds(48));
    assert_eq!(pair.ike_sas(Side::B).len(), 1);
    pair.run_for(seconds(2));
    assert!(pair.ike_sas(Side::B).is_empty());
}

#[test]
fn a_peer_that_sets_a_time_later_is_obeyed_and_a_short_one_does_not_start_a_storm() {
    let mut pair = Pair::new();
    let mut actor = Actor::connect(&mut pair, 1);
    let inits = |pair: &Pair| {
        let sent = pair.net.trace.iter();
        let first = sent.filter(|sent| sent.is(ExchangeType::IKE_SA_INIT, false));
        let spis: BTreeSet<_> = first.map(|sent| sent.header.initiator_spi).collect();
        spis.len()
    };
    let before = inits(&pair);
    for seconds in [600u32, 60, 0] {
        let lifetime = notify(NotifyType::AUTH_LIFETIME, &seconds.to_be_bytes());
        let answer = actor.request(&mut pair, ExchangeType::INFORMATIONAL, &vec![lifetime]);
        assert!(answer.unwrap().payloads.is_empty());
    }
    pair.run_for(millis(3900));
    assert_eq!(inits(&pair), before);
    pair.run_for(millis(700));
    assert_eq!(inits(&pair), before + 1);
}

#[test]
fn a_new_authentication_that_fails_is_tried_again_and_the_old_ike_sa_stays_meanwhile() {
    let mut pair = Pair::up_with(|_, setup| {
        setup.connection.reauth_time = seconds(100);
        setup.connection.over_time = seconds(200);
    });
    let init = ExchangeType::IKE_SA_INIT;
    pair.net.decide(move |sent| match sent.is(init, false) {
        true => Fate::Drop,
        false => Fate::Deliver,
    });
    pair.run_for(seconds(150));
    pair.assert_tunnels(1);
    let old = pair.ike_sa(Side::B).id;
    pair.net.heal();
    pair.gapless = false;
    pair.run_for(seconds(100));
    assert_ne!(pair.ike_sa(Side::B).id, old);
    pair.assert_clean(1);
    pair.finish();
}

/// Make before break: the responder goes on with the old child until the peer has its answer.
#[test]
fn a_new_authentication_whose_answer_or_delete_is_late_or_lost_loses_no_packet() {
    let (auth, inform) = (ExchangeType::IKE_AUTH, ExchangeType::INFORMATIONAL);
    let late = [0, 5, 50, 400].map(|late| Fate::Late(millis(late)));
    let fates = late.into_iter().chain([Fate::Drop]);
    for (exchange, response) in [(auth, true), (inform, false), (inform, true)] {
        for (side, fate) in fates
            .clone()
            .flat_map(|fate| Side::BOTH.map(|side| (side, fate)))
        {
            println!("{exchange} {response} {side:?} {fate:?}");
            let mut pair = Pair::up();
            let old = pair.ike_sa(side).id;
            pair.start_traffic(millis(1));
            let mut is_met = false;
            pair.net.decide(move |sent| {
                if is_met || !sent.is(exchange, response) {
                    return Fate::Deliver;
                }
                is_met = true;
                fate
            });
            pair.command(side, rekey(None, true));
            pair.run_for(seconds(12));
            pair.stop_traffic();
            assert_eq!(pair.lost_packets, 0);
            pair.run_for(seconds(180)); // nobody answers a DELETE of what is gone
            assert_ne!(pair.ike_sa(side).id, old);
            pair.assert_clean(1);
            pair.finish();
        }
    }
}

#[test]
fn every_unique_policy_lets_a_peer_authenticate_anew() {
    let all = [Unique::No, Unique::Never, Unique::Keep, Unique::Replace];
    for (ours, theirs) in all.iter().flat_map(|one| all.map(|other| (*one, other))) {
        for side in Side::BOTH {
            println!("{ours:?} {theirs:?} {side:?}");
            let mut pair = Pair::up_with(|at, setup| {
                setup.connection.unique = if at == Side::A { ours } else { theirs };
            });
            pair.gapless = false;
            let old = pair.ike_sa(side).id;
            pair.command(side, rekey(None, true));
            pair.run_for(seconds(10));
            assert_ne!(pair.ike_sa(side).id, old);
            pair.assert_clean(1);
            pair.finish();
        }
    }
}

#[test]
fn every_pair_of_unique_policies_ends_with_what_both_allow_when_a_second_ike_sa_comes() {
    // B forgets nothing; A starts anew, with and without INITIAL_CONTACT, which `never` leaves out.
    let all = [Unique::No, Unique::Never, Unique::Keep, Unique::Replace];
    for (ours, theirs) in all.iter().flat_map(|one| all.map(|other| (*one, other))) {
        let mut pair = Pair::up_with(|at, setup| {
            setup.connection.unique = if at == Side::A { ours } else { theirs };
        });
        pair.restart(Side::A);
        let id = pair.command(Side::A, initiate("lan"));
        pair.run_for(seconds(40)); // nobody answers a DELETE of what is forgotten
        assert!(matches!(pair.result(Side::A, id), Some(Ok(_))));
        let forgotten = ours != Unique::Never && theirs != Unique::Never;
        let left = if forgotten || theirs == Unique::Replace {
            1
        } else {
            2
        };
        assert_eq!(pair.ike_sas(Side::B).len(), left, "{ours:?} {theirs:?}");
    }
}

#[test]
fn both_sides_may_authenticate_anew_at_once() {
    for delay in [0, 5, 15, 25, 35, 45] {
        let mut pair = Pair::up();
        pair.gapless = false;
        pair.command(Side::A, rekey(None, true));
        pair.run_for(millis(delay));
        pair.command(Side::B, rekey(None, true));
        pair.run_for(seconds(60));
        pair.assert_clean(1);
        pair.finish();
    }
}

#[test]
fn a_new_authentication_that_is_wanted_twice_is_made_once() {
    let mut pair = Pair::up();
    pair.gapless = false;
    for _ in 0..3 {
        pair.command(Side::A, rekey(None, true));
    }
    pair.run_for(seconds(10));
    assert_eq!(ups(&mut pair, Side::A), 2);
    pair.assert_clean(1);
    pair.finish();
}
