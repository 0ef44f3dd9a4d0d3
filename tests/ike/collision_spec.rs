//! The cases in which exchanges of both sides meet, as strongSwan's exchange tests name them (C to Y),
//! and those that libreswan's tests and users of strongSwan add. A variant is a loop in its test.
//!
//! | case | test |
//! |---|---|
//! | C1, K1 both rekey, each of four nonces lowest | `collisions::the_exchange_with_the_lowest_nonce_loses_…` |
//! | C4, K6 one answer late | [`a_late_answer_to_a_lost_or_won_rekey_changes_nothing_any_more`] |
//! | C5 the new one is gone too by then | [`a_late_answer_about_what_the_peer_has_deleted_is_forgotten`] |
//! | C7, C8 a request comes late | [`a_late_request_to_replace_what_is_replaced_is_refused_once`] |
//! | C9 when everything is gone | [`a_late_request_to_replace_what_is_gone_is_refused_once`] |
//! | C11, C12, K4, K5 retries after INVALID_KE_PAYLOAD collide | [`retries_with_another_group_may_collide_too`] |
//! | C13 the loser deletes the old one | [`a_loser_that_deletes_the_replaced_child_does_not_take_the_new_one_along`] |
//! | D1–D4 rekey and delete of one child | `collision_deletes`, `collisions::a_delete_of_the_child_wins_over_what_it_crosses` |
//! | D5 the new child is deleted before the answer comes | [`a_new_child_that_is_deleted_before_its_answer_comes_is_not_missed`] |
//! | E1 child and IKE SA rekeyed | `collisions::crossing_rekeys_…` |
//! | E2, K12, K14, X5, X6 delete of the IKE SA | `collisions::a_delete_of_the_ike_sa_wins_over_what_it_crosses` |
//! | R1 plain | `straight::a_rekeyed_child_is_replaced_in_the_order_that_loses_no_packet` |
//! | R3 INVALID_KE_PAYLOAD | `negotiation::a_rekey_follows_the_peer_to_another_group` |
//! | R5, R6 lifetimes end while the old one waits for its DELETE | [`lifetimes_that_end_while_a_delete_is_awaited_start_nothing_new`] |
//! | R7 the new child is deleted early | [`a_new_child_that_is_deleted_at_once_ends_with_another_one`] |
//! | R8 the responder has lost the child | `insider::a_child_that_the_peer_has_lost_is_made_anew` |
//! | R9 the responder deletes the old one itself | [`a_responder_that_deletes_the_old_child_itself_is_followed`] |
//! | R10 the initiator never deletes the old one | [`a_replaced_child_that_the_peer_never_deletes_is_deleted_by_us`] |
//! | K8 the request is dropped | [`a_rekey_whose_request_is_dropped_gives_way_to_the_peers`] |
//! | K9, K10 the request is late, the DELETE before or after its refusal | [`a_late_request_to_replace_a_replaced_ike_sa_starts_no_second_rekey`] |
//! | K6 an SA that the peer never deletes | [`a_replaced_ike_sa_that_the_peer_never_deletes_is_deleted_by_us`] |
//! | X1 new child and IKE rekey | `collisions::a_rekey_that_crosses_a_new_child_survives_every_fault` |
//! | X2 one child is not made twice | `control::a_child_that_is_up_is_not_set_up_twice` |
//! | X3, X4 delete of one child by both, and during an IKE rekey | `collisions::a_delete_of_the_child_wins_over_what_it_crosses` |
//! | Y without a child | `childless` |
//! | Y message ID sync of RFC 6311 | `message_id_sync`, `answers::a_message_id_sync_that_was_not_agreed_on_is_ignored` |
//! | both initiate at once, in nine orders | `collision_field::two_handshakes_that_cross_at_any_moment_end_with_one_tunnel` |
//! | both initiate, each for another child | `collision_field::two_handshakes_that_cross_for_different_children_…` |
//! | a switch of the connection leaves two IKE SAs | `collision_field::two_handshakes_that_cross_and_switch_their_connection_…` |
//! | a second child while the handshake waits | `revocation::a_second_child_that_is_wanted_while_ike_auth_waits_…`, `revocation::a_request_for_a_child_that_comes_while_ike_auth_waits_…` |
//! | the peer restarts between IKE_SA_INIT and IKE_AUTH | `collision_field::a_peer_that_restarts_during_the_handshake_is_reached_in_the_end` |
//! | an answer and a DELETE in the wrong order | `collision_field::a_delete_that_overtakes_the_answer_before_it_loses_no_child` |
//! | one of two crossing rekeys is refused | `collision_field::a_rekey_that_only_one_side_allows_leaves_one_child` |
//! | one child replaced twice before a DELETE | `insider::one_child_is_rekeyed_once_at_a_time` |
//! | the link is down during an IKE rekey | `collision_field::an_ike_rekey_survives_a_link_that_is_down_meanwhile` |
//!
//! Cases with additional key exchanges are in [`super::collision_exchanges`].

use lockgate::ike::Command;
use lockgate::ipsec::{ChildId, SaEvent};
use lockgate::wire::isakmp::{ExchangeType, PayloadType};

use super::actor::{Actor, delete_esp, sa, selectors};
use super::collisions::{NONCES, Wish, assert_child_of, assert_ike_of, collide, collide_until};
use super::config::{Side, esp_proposals, ike_proposals};
use super::network::{Fate, Sent};
use super::pair::{Pair, millis, rekey_child, rekey_ike, seconds, terminate_child};

/// Messages by what they are in a rekey.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    Request,
    Answer,
    FollowUp,
    FollowUpAnswer,
    Delete,
}

impl Part {
    fn is(self, sent: &Sent) -> bool {
        let (exchange, response) = match self {
            Self::Request => (ExchangeType::CREATE_CHILD_SA, false),
            Self::Answer => (ExchangeType::CREATE_CHILD_SA, true),
            Self::FollowUp => (ExchangeType::IKE_FOLLOWUP_KE, false),
            Self::FollowUpAnswer => (ExchangeType::IKE_FOLLOWUP_KE, true),
            Self::Delete => (ExchangeType::INFORMATIONAL, false),
        };
        sent.is(exchange, response)
    }
}

/// The first message of each kind meets its fate.
pub(crate) fn spoil(pair: &mut Pair, rules: &[(Side, Part, Fate)]) {
    let mut rules = rules.to_vec();
    pair.net.decide(move |sent| {
        let hit = |(side, part, _): &(Side, Part, Fate)| sent.from == *side && part.is(sent);
        match rules.iter().position(hit) {
            Some(place) => rules.remove(place).2,
            None => Fate::Deliver,
        }
    });
}

/// How many different requests for new SAs a side has sent.
pub(crate) fn requests(pair: &Pair, side: Side, since: usize) -> usize {
    let sent = pair.net.from(side, since).into_iter();
    let mut all: Vec<_> = sent
        .filter(|sent| Part::Request.is(sent))
        .map(|sent| (sent.header.initiator_spi, sent.header.message_id))
        .collect();
    all.sort();
    all.dedup();
    all.len()
}

/// Each side has asked so often for new SAs.
#[track_caller]
pub(crate) fn assert_requests(pair: &Pair, since: usize, expected: usize) {
    for side in Side::BOTH {
        assert_eq!(requests(pair, side, since), expected, "{side:?}");
    }
}

/// With what a side was refused what it asked for.
pub(crate) fn refusals(pair: &mut Pair, side: Side) -> Vec<&'static str> {
    let names = ["TEMPORARY_FAILURE", "CHILD_SA_NOT_FOUND"].into_iter();
    names.filter(|name| pair.host(side).logged(name)).collect()
}

/// What is rekeyed, and by which command.
pub(crate) const KINDS: [Wish<'_>; 2] = [("child", rekey_child), ("IKE", rekey_ike)];

#[test]
fn a_late_answer_to_a_lost_or_won_rekey_changes_nothing_any_more() {
    for (kind, command) in KINDS {
        for lowest in NONCES {
            for delay in [11, 21, 31, 100, 400, 2000] {
                println!("{kind} {lowest:?} {delay}");
                let mut pair = Pair::up();
                pair.start_traffic(millis(1));
                spoil(
                    &mut pair,
                    &[(Side::B, Part::Answer, Fate::Late(millis(delay)))],
                );
                let before = pair.net.sent();
                collide(&mut pair, command, lowest);
                pair.settle_traffic();
                // What the peer never learnt of, it does not delete: we do, and wait for no answer.
                pair.run_for(seconds(90));
                assert_requests(&pair, before, 1);
                assert_eq!(pair.lost_packets, 0);
                pair.assert_clean(1);
                pair.finish();
            }
        }
    }
}

#[test]
fn a_late_answer_about_what_the_peer_has_deleted_is_forgotten() {
    for lowest in NONCES {
        for delay in [45, 60, 100, 400] {
            let mut pair = Pair::up();
            pair.gapless = false;
            spoil(
                &mut pair,
                &[(Side::B, Part::Answer, Fate::Late(millis(delay)))],
            );
            collide(&mut pair, rekey_child, lowest);
            pair.run_for(millis(12));
            pair.command(Side::B, terminate_child());
            pair.run_for(seconds(40));
            pair.assert_clean(0);
            pair.finish();
        }
    }
}

#[test]
fn a_late_request_to_replace_what_is_replaced_is_refused_once() {
    for lowest in NONCES {
        for (late, deleted) in [(15, 0), (25, 0), (100, 0), (15, 30), (25, 100), (400, 2000)] {
            println!("{lowest:?} {late} {deleted}");
            let mut pair = Pair::up();
            pair.start_traffic(millis(1));
            let rules = [
                (Side::B, Part::Request, Fate::Late(millis(late))),
                (Side::A, Part::Delete, Fate::Late(millis(deleted))),
            ];
            spoil(&mut pair, &rules);
            let before = pair.net.sent();
            collide(&mut pair, rekey_child, lowest);
            pair.settle_traffic();
            pair.run_for(seconds(60));
            assert!(pair.host(Side::A).logged("refused CREATE_CHILD_SA"));
            // A has deleted it after 40 ms, unless its DELETE is late.
            let gone = late > 40 && deleted == 0;
            let mut told = |name: &str| pair.host(Side::B).logged(name);
            assert_eq!(
                ["TEMPORARY_FAILURE", "CHILD_SA_NOT_FOUND"].map(&mut told),
                [!gone, gone]
            );
            assert_requests(&pair, before, 1);
            assert_eq!(pair.lost_packets, 0);
            pair.assert_clean(1);
            pair.finish();
        }
    }
}

#[test]
fn a_late_request_to_replace_what_is_gone_is_refused_once() {
    for late in [60, 100, 400] {
        let mut pair = Pair::up();
        pair.gapless = false;
        spoil(
            &mut pair,
            &[(Side::B, Part::Request, Fate::Late(millis(late)))],
        );
        let before = pair.net.sent();
        pair.command(Side::A, rekey_child());
        pair.command(Side::B, rekey_child());
        pair.run_for(millis(25));
        pair.command(Side::A, terminate_child());
        pair.run_for(seconds(60));
        assert!(pair.host(Side::A).logged("no Child SA has SPI"));
        assert!(pair.host(Side::B).logged("CHILD_SA_NOT_FOUND"));
        assert_eq!(requests(&pair, Side::B, before), 1);
        pair.assert_clean(0);
        pair.finish();
    }
}

#[test]
fn retries_with_another_group_may_collide_too() {
    let groups = [["x25519-ecp384", "ecp521-ecp384"], ["ecp256", "ecp256"]];
    for (kind, command) in KINDS {
        for lowest in NONCES {
            for late in [0, 15, 35, 100] {
                println!("{kind} {lowest:?} {late}");
                let mut pair = Pair::up_with(|side, setup| {
                    let ike = format!("aes256gcm16-prfsha384-{}", groups[1][side.index()]);
                    let esp = format!("aes256gcm16-{}-esn", groups[0][side.index()]);
                    setup.connection.proposals = ike_proposals(&[&ike]);
                    setup.children[0].esp_proposals = esp_proposals(&[&esp]);
                });
                for side in Side::BOTH {
                    let ike = format!("aes256gcm16-prfsha384-{}", groups[0][side.index()]);
                    let setup = pair.setup(side);
                    setup.connection.proposals = ike_proposals(&[&ike]);
                    let pad = setup.pad();
                    pair.command(side, Command::Reload(pad));
                }
                pair.start_traffic(millis(1));
                // Of the two retries, the second request of B comes late.
                let mut seen = 0;
                pair.net.decide(move |sent| {
                    seen += usize::from(sent.from == Side::B && Part::Request.is(sent));
                    let retry = seen == 2 && sent.from == Side::B && Part::Request.is(sent);
                    if retry {
                        Fate::Late(millis(late))
                    } else {
                        Fate::Deliver
                    }
                });
                let before = pair.net.sent();
                // Refused after 10 ms, asked again after 20 ms, answered after 30 ms or later.
                collide_until(&mut pair, command, lowest, millis(31 + late));
                pair.settle_traffic();
                // A late retry finds that A has been answered.
                let winner = if late == 0 {
                    lowest.loser().other()
                } else {
                    Side::A
                };
                match kind {
                    "IKE" => assert_ike_of(&pair, winner),
                    _ => assert_child_of(&mut pair, winner),
                }
                pair.run_for(seconds(60));
                assert_requests(&pair, before, 2);
                assert_eq!(pair.lost_packets, 0);
                pair.assert_clean(1);
                pair.finish();
            }
        }
    }
}

/// The answer to a request of B for a new child in place of `lan`.
fn accept(actor: &mut Actor, pair: &mut Pair, request: &super::actor::Opened, spi: u32) {
    let mut proposals = esp_proposals(&["aes256gcm16-esn"]);
    proposals[0].spi = spi.to_be_bytes().to_vec();
    let mut answer = vec![
        (PayloadType::SA, sa(&proposals)),
        (PayloadType::NONCE, vec![0xff; 32]),
    ];
    answer.extend(selectors(Side::B.network(), Side::A.network()));
    actor.answer(pair, request, &answer);
}

/// B's child has no key exchange of its own, and its peer is made by hand.
pub(crate) fn by_hand() -> (Pair, Actor) {
    let mut pair = Pair::with(|_, setup| {
        setup.children[0].esp_proposals = esp_proposals(&["aes256gcm16-esn-noesn"]);
    });
    let actor = Actor::connect(&mut pair, 1);
    (pair, actor)
}

#[test]
fn a_loser_that_deletes_the_replaced_child_does_not_take_the_new_one_along() {
    let (mut pair, mut actor) = by_hand();
    let old = actor.child_spi;
    pair.host(Side::B).nonces.set(Some(200));
    pair.command(Side::B, rekey_child());
    let request = actor.take_request(&pair).unwrap();
    let mut payloads = actor.rekey_child(old);
    payloads.retain(|(kind, _)| *kind != PayloadType::KE);
    for (kind, body) in &mut payloads {
        match *kind {
            PayloadType::NONCE => body[0] = 0,
            PayloadType::SA => {
                let mut proposals = esp_proposals(&["aes256gcm16-esn"]);
                proposals[0].spi = actor.child_spi.to_be_bytes().to_vec();
                *body = sa(&proposals);
            }
            _ => {}
        }
    }
    let answer = actor.request(&mut pair, ExchangeType::CREATE_CHILD_SA, &payloads);
    assert_eq!(answer.unwrap().error(), None, "the requests cross");
    let lost = actor.child_spi;
    let answer = actor.request(
        &mut pair,
        ExchangeType::INFORMATIONAL,
        &vec![delete_esp(old)],
    );
    assert!(answer.is_some());
    accept(&mut actor, &mut pair, &request, 0x7000_0001);
    let answer = actor.request(
        &mut pair,
        ExchangeType::INFORMATIONAL,
        &vec![delete_esp(lost)],
    );
    assert!(answer.is_some());
    pair.run_for(seconds(40));
    assert_eq!(pair.child(Side::B).spi_out.get(), 0x7000_0001);
    assert_eq!(pair.host(Side::B).plane.counts(), (1, 1));
    assert_eq!(pair.host(Side::B).told(), (1, 1));
}

#[test]
fn a_new_child_that_is_deleted_before_its_answer_comes_is_not_missed() {
    for side in Side::BOTH {
        for delay in [25, 100, 400, 2000] {
            let mut pair = Pair::up();
            pair.gapless = false;
            let other = side.other();
            spoil(
                &mut pair,
                &[(other, Part::Answer, Fate::Late(millis(delay)))],
            );
            pair.command(side, rekey_child());
            pair.run_for(millis(12));
            let newest = pair.children(other).iter().map(|child| child.id.0).max();
            let command = Command::Terminate {
                ike: None,
                child: None,
                ike_id: None,
                child_id: newest,
                force: false,
            };
            pair.command(other, command);
            pair.run_for(seconds(90));
            pair.assert_clean(1);
            pair.finish();
        }
    }
}

#[test]
fn lifetimes_that_end_while_a_delete_is_awaited_start_nothing_new() {
    let soft: fn(ChildId) -> SaEvent = |child| SaEvent::SoftLifetime { child };
    let hard: fn(ChildId) -> SaEvent = |child| SaEvent::HardLifetime { child };
    for (event, is_hard) in [(soft, false), (hard, true)] {
        for side in Side::BOTH {
            println!("{side:?} hard: {is_hard}");
            let mut pair = Pair::up();
            pair.start_traffic(millis(1));
            spoil(
                &mut pair,
                &[(Side::A, Part::Delete, Fate::Late(millis(300)))],
            );
            let old = pair.child(side).id;
            let before = pair.net.sent();
            pair.command(Side::A, rekey_child());
            pair.run_for(millis(100));
            for _ in 0..3 {
                pair.report(side, event(old));
            }
            pair.run_for(millis(20));
            assert!(
                pair.host(side).plane.sealers().len() == 1,
                "it goes on sending"
            );
            pair.settle_traffic();
            pair.run_for(seconds(40));
            assert_eq!(requests(&pair, Side::A, before), 1);
            assert_eq!(requests(&pair, Side::B, before), 0);
            assert_eq!(pair.lost_packets, 0);
            pair.assert_clean(1);
            pair.finish();
        }
    }
}

#[test]
fn a_new_child_that_is_deleted_at_once_ends_with_another_one() {
    let mut pair = Pair::up_with(|_, setup| {
        setup.children[0].close_action = lockgate::ike::CloseAction::Start;
    });
    pair.gapless = false;
    pair.command(Side::A, rekey_child());
    pair.run_for(millis(12));
    let newest = pair.children(Side::B).iter().map(|child| child.id.0).max();
    pair.run_for(millis(13));
    let command = Command::Terminate {
        ike: None,
        child: None,
        ike_id: None,
        child_id: newest,
        force: false,
    };
    pair.command(Side::B, command);
    pair.run_for(seconds(60));
    pair.assert_clean(1);
    pair.finish();
}

#[test]
fn a_responder_that_deletes_the_old_child_itself_is_followed() {
    let (mut pair, mut actor) = by_hand();
    let old = actor.child_spi;
    pair.command(Side::B, rekey_child());
    let request = actor.take_request(&pair).unwrap();
    accept(&mut actor, &mut pair, &request, 0x7000_0001);
    let theirs = actor.take_request(&pair).unwrap();
    assert!(theirs.body(PayloadType::DELETE).is_some());
    let answer = actor.request(
        &mut pair,
        ExchangeType::INFORMATIONAL,
        &vec![delete_esp(old)],
    );
    assert_eq!(
        answer.unwrap().body(PayloadType::DELETE),
        None,
        "the deletes cross"
    );
    actor.answer(&mut pair, &theirs, &vec![]);
    pair.run_for(seconds(40));
    assert_eq!(pair.child(Side::B).spi_out.get(), 0x7000_0001);
    assert_eq!(pair.host(Side::B).plane.counts(), (1, 1));
    assert_eq!(pair.host(Side::B).told(), (1, 1));
}

#[test]
fn a_replaced_child_that_the_peer_never_deletes_is_deleted_by_us() {
    let mut pair = Pair::new();
    let mut actor = Actor::connect(&mut pair, 1);
    let old = pair.child(Side::B).spi_in.get();
    let payloads = actor.rekey_child(actor.child_spi);
    let answer = actor.request(&mut pair, ExchangeType::CREATE_CHILD_SA, &payloads);
    assert_eq!(answer.unwrap().error(), None);
    pair.run_for(millis(29_900));
    assert!(actor.take_request(&pair).is_none());
    pair.run_for(millis(200));
    let request = actor.take_request(&pair).unwrap();
    let delete = request.body(PayloadType::DELETE).unwrap();
    assert_eq!(delete[4..], old.to_be_bytes());
    actor.answer(&mut pair, &request, &vec![]);
    pair.run_for(seconds(6));
    assert_eq!(pair.host(Side::B).plane.counts(), (1, 1));
    assert_eq!(pair.host(Side::B).told(), (1, 1));
}

#[test]
fn a_replaced_ike_sa_that_the_peer_never_deletes_is_deleted_by_us() {
    let mut pair = Pair::new();
    let mut actor = Actor::connect(&mut pair, 1);
    let payloads = actor.rekey_ike();
    let answer = actor.request(&mut pair, ExchangeType::CREATE_CHILD_SA, &payloads);
    assert_eq!(answer.unwrap().error(), None);
    assert_eq!(pair.ike_sas(Side::B).len(), 2);
    pair.run_for(seconds(31));
    let request = actor.take_request(&pair).unwrap();
    assert!(request.body(PayloadType::DELETE).is_some());
    actor.answer(&mut pair, &request, &vec![]);
    assert_eq!(pair.ike_sas(Side::B).len(), 1);
    assert_eq!(pair.children(Side::B).len(), 1, "on the new one");
}

#[test]
fn a_rekey_whose_request_is_dropped_gives_way_to_the_peers() {
    for (kind, command) in KINDS {
        for lowest in NONCES {
            for drops in 1..=3 {
                println!("{kind} {lowest:?} {drops}");
                let mut pair = Pair::up();
                pair.start_traffic(millis(1));
                spoil(
                    &mut pair,
                    &vec![(Side::A, Part::Request, Fate::Drop); drops],
                );
                let before = pair.net.sent();
                collide(&mut pair, command, lowest);
                pair.run_for(seconds(5));
                pair.settle_traffic();
                pair.run_for(seconds(60));
                assert_requests(&pair, before, 1);
                assert_eq!(pair.lost_packets, 0);
                pair.assert_clean(1);
                pair.finish();
            }
        }
    }
}

#[test]
fn a_late_request_to_replace_a_replaced_ike_sa_starts_no_second_rekey() {
    for lowest in NONCES {
        for (late, deleted) in [(15, 0), (25, 0), (35, 100), (100, 0), (25, 400), (400, 0)] {
            println!("{lowest:?} {late} {deleted}");
            let mut pair = Pair::up();
            pair.start_traffic(millis(1));
            let rules = [
                (Side::A, Part::Request, Fate::Late(millis(late))),
                (Side::B, Part::Delete, Fate::Late(millis(deleted))),
            ];
            spoil(&mut pair, &rules);
            let before = pair.net.sent();
            collide(&mut pair, rekey_ike, lowest);
            pair.settle_traffic();
            pair.run_for(seconds(90));
            assert_requests(&pair, before, 1);
            assert_eq!(pair.lost_packets, 0);
            pair.assert_clean(1);
            pair.finish();
        }
    }
}
