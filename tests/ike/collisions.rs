//! Both sides want something at once (RFC 7296 §2.8.1, §2.25).

use std::time::Duration;

use lockgate::ike::{Command, Event};
use lockgate::wire::isakmp::ExchangeType;

use super::config::{Side, esp_proposals};
use super::network::Fate;
use super::pair::{
    Pair, initiate, millis, rekey_child, rekey_ike, seconds, terminate_child, terminate_ike,
};

/// The four nonces of two crossing exchanges.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Nonce {
    /// Of the request of A, which with the answer of B makes the exchange of A.
    RequestA,
    AnswerB,
    RequestB,
    AnswerA,
}

pub(crate) const NONCES: [Nonce; 4] = [
    Nonce::RequestA,
    Nonce::AnswerB,
    Nonce::RequestB,
    Nonce::AnswerA,
];

impl Nonce {
    /// Whose exchange loses if this nonce is the lowest.
    pub(crate) fn loser(self) -> Side {
        match self {
            Self::RequestA | Self::AnswerB => Side::A,
            Self::RequestB | Self::AnswerA => Side::B,
        }
    }
}

/// Lets both sides send their requests before they see the other's, with the lowest of the four
/// nonces in a given place.
pub(crate) fn collide(pair: &mut Pair, command: impl Fn() -> Command, lowest: Nonce) {
    collide_until(pair, command, lowest, millis(11));
}

/// The same where the answers are not made before `answered`.
pub(crate) fn collide_until(
    pair: &mut Pair,
    command: impl Fn() -> Command,
    lowest: Nonce,
    answered: Duration,
) {
    let byte = |nonce: Nonce| Some(if nonce == lowest { 1 } else { 200 });
    for (side, nonce) in [(Side::A, Nonce::RequestA), (Side::B, Nonce::RequestB)] {
        pair.host(side).nonces.set(byte(nonce));
        pair.command(side, command());
    }
    pair.host(Side::A).nonces.set(byte(Nonce::AnswerA));
    pair.host(Side::B).nonces.set(byte(Nonce::AnswerB));
    pair.run_for(answered);
    for side in Side::BOTH {
        pair.host(side).nonces.set(None);
    }
}

/// The only Child SA is one that this side asked for, and the other one granted.
#[track_caller]
pub(crate) fn assert_child_of(pair: &mut Pair, maker: Side) {
    for side in Side::BOTH {
        let id = pair.child(side).id;
        let granted = format!("peer is rekeying to CHILD_SA lan{{{id}}}");
        let granted = pair.host(side).logged(&granted);
        assert_eq!(granted, side != maker, "{side:?} {id}, made by {maker:?}");
    }
}

/// The only IKE SA is one that this side asked for.
#[track_caller]
pub(crate) fn assert_ike_of(pair: &Pair, maker: Side) {
    for side in Side::BOTH {
        assert_eq!(pair.ike_sa(side).initiator, side == maker, "{side:?}");
    }
}

#[test]
fn the_exchange_with_the_lowest_nonce_loses_when_both_sides_rekey_a_child() {
    for esp in ["aes256gcm16", "aes256gcm16-x25519"] {
        for lowest in NONCES {
            let mut pair = Pair::up_with(|_, setup| {
                setup.children[0].esp_proposals = esp_proposals(&[esp]);
            });
            pair.start_traffic(millis(1));
            collide(&mut pair, rekey_child, lowest);
            for side in Side::BOTH {
                assert_eq!(
                    pair.host(side).plane.counts(),
                    (2, 1),
                    "only the request has come"
                );
            }
            pair.run_for(millis(10));
            for side in Side::BOTH {
                assert_eq!(pair.host(side).plane.counts().0, 3, "both have come");
            }
            pair.settle_traffic();
            // Each side installs what the peer made before what it made itself.
            let loser = lowest.loser();
            let added = pair.host(loser).plane.added.clone();
            assert_eq!(pair.child(loser).spi_in.get(), added[1], "{lowest:?}");
            let added = pair.host(loser.other()).plane.added.clone();
            assert_eq!(
                pair.child(loser.other()).spi_in.get(),
                added[2],
                "{lowest:?}"
            );
            assert_child_of(&mut pair, loser.other());
            assert_eq!(pair.lost_packets, 0, "{lowest:?}");
            pair.run_for(seconds(6));
            pair.assert_clean(1);
            pair.finish();
        }
    }
}

#[test]
fn the_exchange_with_the_lowest_nonce_loses_when_both_sides_rekey_the_ike_sa() {
    for lowest in NONCES {
        let mut pair = Pair::up();
        pair.start_traffic(millis(1));
        collide(&mut pair, rekey_ike, lowest);
        pair.settle_traffic();
        assert_ike_of(&pair, lowest.loser().other());
        assert_eq!(pair.lost_packets, 0);
        pair.assert_clean(1);
        for side in Side::BOTH {
            pair.command(side, rekey_child());
            pair.settle();
            pair.command(side, rekey_ike());
            pair.settle();
        }
        pair.run_for(seconds(6));
        pair.assert_clean(1);
        pair.finish();
    }
}

/// A command and its name.
pub(crate) type Wish<'a> = (&'a str, fn() -> Command);

/// What both sides may want at once.
const WISHES: [Wish<'_>; 5] = [
    ("child rekey", rekey_child),
    ("IKE rekey", rekey_ike),
    ("child delete", terminate_child),
    ("IKE delete", terminate_ike),
    ("new child", || initiate("lab")),
];

/// Two wishes cross each other; one message, whichever, meets a fault.
fn cross(
    (one, left): Wish<'_>,
    (two, right): Wish<'_>,
    fate: Fate,
    fault: Option<usize>,
    check: &dyn Fn(&mut Pair),
) -> usize {
    let what = format!("{one} crosses {two}, message {fault:?} {fate:?}");
    println!("{what}");
    let mut pair = Pair::up_with(|side, setup| setup.add_second_child(side));
    let harmless = [one, two].iter().all(|wish| wish.ends_with("rekey"));
    pair.gapless = harmless;
    let first = pair.net.sent();
    if let Some(number) = fault {
        pair.net.spoil(first + number, fate);
    }
    pair.command(Side::A, left());
    pair.command(Side::B, right());
    pair.run_for(seconds(100));
    let sent = pair.net.sent() - first;
    assert!(sent < 60, "{what}: {sent} messages");
    check(&mut pair);
    pair.finish();
    sent
}

fn cross_with_every_fault(left: Wish<'_>, right: Wish<'_>, check: &dyn Fn(&mut Pair)) {
    let fates = [
        Fate::Drop,
        Fate::Twice(millis(30)),
        Fate::Late(millis(5)),
        Fate::Late(millis(15)),
        Fate::Late(millis(35)),
        Fate::Late(millis(800)),
        Fate::Late(millis(5000)),
    ];
    let messages = cross(left, right, Fate::Deliver, None, check);
    for number in 0..messages.min(12) {
        for fate in fates {
            cross(left, right, fate, Some(number), check);
        }
    }
}

#[test]
fn crossing_rekeys_survive_every_fault_without_a_gap() {
    for left in &WISHES[..2] {
        for right in &WISHES[..2] {
            cross_with_every_fault(*left, *right, &|pair| pair.assert_clean(1));
        }
    }
}

#[test]
fn crossing_rekeys_survive_every_two_faults_without_a_gap() {
    let fates = [
        Fate::Drop,
        Fate::Twice(millis(30)),
        Fate::Late(millis(15)),
        Fate::Late(millis(800)),
    ];
    let places = (0..8).flat_map(|first| (first + 1..9).map(move |second| (first, second)));
    for (place, other) in places {
        for (left, right) in [(0, 0), (1, 1), (0, 1)] {
            for (fate, second) in fates.iter().flat_map(|one| fates.map(|two| (*one, two))) {
                println!("{left} {right}: {place} {fate:?}, {other} {second:?}");
                let mut pair = Pair::up();
                let sent = pair.net.sent();
                pair.net.decide(move |message| match message.number - sent {
                    number if number == place => fate,
                    number if number == other => second,
                    _ => Fate::Deliver,
                });
                pair.command(Side::A, WISHES[left].1());
                pair.command(Side::B, WISHES[right].1());
                pair.run_for(seconds(100));
                pair.assert_clean(1);
                pair.finish();
            }
        }
    }
}

#[test]
fn a_rekey_that_crosses_a_new_child_survives_every_fault() {
    for rekey in &WISHES[..2] {
        cross_with_every_fault(*rekey, WISHES[4], &|pair| pair.assert_clean(2));
        cross_with_every_fault(WISHES[4], *rekey, &|pair| pair.assert_clean(2));
    }
}

#[test]
fn a_delete_of_the_child_wins_over_what_it_crosses() {
    for other in &WISHES[..3] {
        cross_with_every_fault(*other, WISHES[2], &|pair| pair.assert_clean(0));
        cross_with_every_fault(WISHES[2], *other, &|pair| pair.assert_clean(0));
    }
}

#[test]
fn a_delete_of_the_ike_sa_wins_over_what_it_crosses() {
    for other in &WISHES[..4] {
        cross_with_every_fault(*other, WISHES[3], &|pair| pair.assert_nothing_left());
        cross_with_every_fault(WISHES[3], *other, &|pair| pair.assert_nothing_left());
    }
}

#[test]
fn both_sides_may_ask_for_the_same_new_child() {
    cross_with_every_fault(WISHES[4], WISHES[4], &|pair| {
        for side in Side::BOTH {
            let children = pair.children(side);
            let labs = children.iter().filter(|child| child.name == "lab").count();
            assert!((1..=2).contains(&labs));
        }
        pair.assert_packets_pass(2);
    });
}

#[test]
fn an_heir_that_is_deleted_takes_no_child_with_it_unseen() {
    let mut pair = Pair::up();
    pair.gapless = false;
    pair.net.decide(|sent| {
        let rekey = ExchangeType::CREATE_CHILD_SA;
        let arrives = match sent.from {
            // Its own rekey is lost.
            Side::A => sent.is(rekey, true),
            // Of the two deletes only that of the new SA, which starts again with message 0.
            Side::B => sent.is(rekey, false) || sent.header.message_id == 0,
        };
        if arrives { Fate::Deliver } else { Fate::Drop }
    });
    pair.command(Side::A, rekey_ike());
    pair.command(Side::B, rekey_ike());
    pair.run_for(millis(100));
    assert_eq!(pair.ike_sas(Side::A).len(), 2, "the old one and its heir");
    pair.command(Side::B, terminate_ike());
    pair.run_for(seconds(120));
    let down = |event: &Event| matches!(event, Event::ChildDown { .. });
    assert!(pair.host(Side::A).events.iter().any(down));
    pair.host(Side::A).assert_empty("A");
}

#[test]
fn crossing_rekeys_on_a_network_that_loses_and_reorders_at_random_end_with_one_child() {
    for seed in 0..200u64 {
        println!("seed {seed}");
        let mut pair = Pair::up_seeded(seed, |_, setup| setup.settings.retransmit.tries = 12);
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        pair.net.decide(move |_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            match state % 10 {
                0..=2 => Fate::Drop,
                3 => Fate::Twice(Duration::from_millis(state % 1000)),
                4..=5 => Fate::Late(Duration::from_millis(state % 2000)),
                _ => Fate::Deliver,
            }
        });
        for round in 0..3 {
            for side in Side::BOTH {
                let ike = (seed >> round) % 2 == 0;
                pair.command(side, if ike { rekey_ike() } else { rekey_child() });
            }
            pair.run_for(millis(300 * (seed % 7)));
        }
        pair.net.heal();
        pair.run_for(seconds(200));
        pair.assert_clean(1);
        pair.finish();
    }
}
