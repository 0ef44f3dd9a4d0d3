//! What is said about Child SAs for single workers, and how many a peer gets (RFC 9611).

use lockgate::ipsec::WorkerId;
use lockgate::wire::ikev2::{Notify, NotifyType};
use lockgate::wire::isakmp::{ExchangeType, PayloadType};

use super::actor::{Actor, notify};
use super::config::{Side, selectors};
use super::pair::{Pair, rekey_child, rekey_ike, seconds, terminate_ike};
use super::siblings::{LAN, ask, ask_all, assert_siblings, owners, workers};

#[test]
fn the_answer_repeats_the_announcement_only_if_it_was_made() {
    for announced in [false, true] {
        let mut pair = Pair::with(|_, _| {});
        let mut actor = Actor::half_open(&mut pair, 1);
        let mut payloads = actor.auth();
        if announced {
            payloads.push(notify(NotifyType::SA_RESOURCE_INFO, &[0, 0, 0, 7, 9]));
        }
        let answer = actor.request(&mut pair, ExchangeType::IKE_AUTH, &payloads);
        let answer = answer.unwrap();
        assert_eq!(answer.error(), None);
        let says = answer.notifies().contains(&NotifyType::SA_RESOURCE_INFO);
        assert_eq!(says, announced);
        assert_eq!(pair.child(Side::B).per_worker, announced);
    }
}

#[test]
fn the_announcement_names_the_worker_and_no_protocol() {
    let mut pair = Pair::with(workers(2, 4));
    let mut actor = Actor::half_open(&mut pair, 1);
    let mut payloads = actor.auth();
    payloads.push(notify(NotifyType::SA_RESOURCE_INFO, &[]));
    let answer = actor.request(&mut pair, ExchangeType::IKE_AUTH, &payloads);
    let answer = answer.unwrap();
    let owner = pair.child(Side::B).owner.0;
    let mut all = answer.payloads.iter();
    let found = all.find_map(|(kind, body)| {
        let notify = (*kind == PayloadType::NOTIFY).then(|| Notify::parse(body).unwrap())?;
        (notify.kind == NotifyType::SA_RESOURCE_INFO).then_some(notify)
    });
    let found = found.unwrap();
    assert_eq!((found.protocol, found.spi), (0, &[][..]));
    assert_eq!(found.data, u32::from(owner).to_be_bytes());
}

#[test]
fn a_peer_that_wants_no_more_is_not_asked_again_until_a_rekey() {
    let mut pair = Pair::up_with(|side, setup| {
        workers(4, 4)(side, setup);
        if side == Side::B {
            setup.settings.additional_per_child = 1;
        }
    });
    ask_all(&mut pair, Side::A);
    pair.settle();
    assert!(pair.host(Side::A).logged("TS_MAX_QUEUE"));
    assert_siblings(&mut pair, 2);
    let sent = pair.net.sent();
    for _ in 0..20 {
        ask_all(&mut pair, Side::A);
        pair.run_for(seconds(1));
    }
    assert_eq!(pair.net.sent(), sent);
    let missing: Vec<u16> = (0..4)
        .filter(|worker| {
            pair.host(Side::A)
                .plane
                .own(LAN, WorkerId(*worker))
                .is_none()
        })
        .collect();
    assert_eq!(missing.len(), 2);

    pair.command(Side::A, rekey_child());
    pair.settle();
    let sent = pair.net.sent();
    ask(&mut pair, Side::A, missing[0]);
    pair.settle();
    assert_eq!(pair.net.sent(), sent + 2);
    ask(&mut pair, Side::A, missing[1]);
    assert_eq!(pair.net.sent(), sent + 2);
    assert_siblings(&mut pair, 2);
    pair.finish();
}

#[test]
fn an_additional_child_sa_with_narrower_selectors_is_refused_and_deleted_at_the_peer() {
    let mut pair = Pair::up_with(workers(3, 3));
    pair.gapless = false; // the peer takes it for the first of a kind
    pair.setup(Side::B).children[0].local_ts = selectors(&["10.2.0.0/25"]);
    let pad = pair.setup(Side::B).pad();
    let now = pair.now;
    pair.host(Side::B).reload(now, pad);
    pair.collect();
    ask_all(&mut pair, Side::A);
    pair.settle();
    assert!(pair.host(Side::A).logged("out of"));
    pair.run_for(seconds(12));
    for side in Side::BOTH {
        assert_eq!(pair.children(side).len(), 1, "{side:?}");
    }
    let sent = pair.net.sent();
    ask_all(&mut pair, Side::A);
    assert_eq!(pair.net.sent(), sent, "that would end in the same way");
    pair.finish();
}

#[test]
fn a_peer_that_asks_for_ten_thousand_gets_a_few() {
    for announced in [false, true] {
        let mut pair = Pair::with(workers(2, 2));
        let mut actor = Actor::half_open(&mut pair, 1);
        let mut payloads = actor.auth();
        if announced {
            payloads.push(notify(NotifyType::SA_RESOURCE_INFO, &[]));
        }
        let answer = actor.request(&mut pair, ExchangeType::IKE_AUTH, &payloads);
        assert_eq!(answer.unwrap().error(), None);
        let mut refused = 0;
        for round in 0..10_000 {
            let mut payloads = actor.create_child(Side::A.network(), Side::B.network());
            payloads.push(notify(NotifyType::SA_RESOURCE_INFO, &[0xff; 64]));
            let answer = actor.request(&mut pair, ExchangeType::CREATE_CHILD_SA, &payloads);
            match answer.unwrap().error() {
                None => assert!(round < 4, "{round}"),
                Some(error) => {
                    assert_eq!(error, NotifyType::TS_MAX_QUEUE);
                    refused += 1;
                }
            }
        }
        assert_eq!(refused, 10_000 - 4);
        assert_eq!(pair.children(Side::B).len(), 5);
        assert_eq!(pair.host(Side::B).plane.counts().0, 5);
        let owners = owners(&pair, Side::B, 2);
        assert!(owners.iter().all(|own| *own >= 2), "{owners:?}");
    }
}

#[test]
fn rekeys_without_a_delete_are_bounded_too() {
    let mut pair = Pair::with(workers(2, 2));
    let mut actor = Actor::connect(&mut pair, 1);
    for _ in 0..4 {
        let mut payloads = actor.create_child(Side::A.network(), Side::B.network());
        payloads.push(notify(NotifyType::SA_RESOURCE_INFO, &[]));
        let answer = actor.request(&mut pair, ExchangeType::CREATE_CHILD_SA, &payloads);
        assert_eq!(answer.unwrap().error(), None);
    }
    let mut newest = actor.child_spi;
    for _ in 0..200 {
        let payloads = actor.rekey_child(newest);
        let answer = actor.request(&mut pair, ExchangeType::CREATE_CHILD_SA, &payloads);
        if answer.unwrap().error().is_none() {
            newest = actor.child_spi;
        }
    }
    assert!(pair.children(Side::B).len() <= 1 + 2 * 4);
}

#[test]
fn a_peer_that_replaces_its_child_sa_in_a_loop_leaves_few_inbound_sas_behind() {
    let mut pair = Pair::with(workers(2, 2));
    let mut actor = Actor::connect(&mut pair, 1);
    for _ in 0..500 {
        actor.replace_child(&mut pair);
    }
    let limit = pair.setup(Side::B).settings.children_per_ike;
    let plane = &pair.host(Side::B).plane;
    assert_eq!(plane.counts().0, 1 + limit);
    let newest = &plane.added[plane.added.len() - 1 - limit..];
    assert!(
        newest.iter().all(|spi| plane.receives(*spi)),
        "the oldest go first"
    );
    pair.run_for(seconds(6));
    assert_eq!(pair.host(Side::B).plane.counts().0, 1);
}

#[test]
fn what_lingers_goes_with_its_ike_sa_when_that_is_replaced_and_when_it_ends() {
    for side in Side::BOTH {
        let mut pair = Pair::up_with(|_, setup| {
            setup.settings.children_per_ike = 4;
            setup.settings.inbound_linger = seconds(600);
        });
        for _ in 0..5 {
            for _ in 0..3 {
                pair.command(side, rekey_child());
                pair.run_for(seconds(1));
            }
            pair.command(side, rekey_ike());
            pair.run_for(seconds(1));
        }
        for side in Side::BOTH {
            assert_eq!(pair.host(side).plane.counts(), (1 + 4, 1), "{side:?}");
        }
        pair.gapless = false;
        pair.command(side, terminate_ike());
        pair.settle();
        for side in Side::BOTH {
            assert_eq!(pair.host(side).plane.counts(), (0, 0), "{side:?}");
        }
        pair.finish();
    }
}
