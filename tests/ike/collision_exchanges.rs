//! The cases of [`super::collision_spec`] in which rekeys have additional key exchanges (RFC 9370 §2.2.4).
//!
//! | case | test |
//! |---|---|
//! | C2, C3, K2, K3 on both sides, or on one | `exchanges::the_lowest_nonce_loses_also_where_…` |
//! | C6, K7 one answer late | [`a_late_answer_changes_nothing_any_more`] |
//! | C10, K11 a request late | [`a_late_request_starts_no_second_rekey`] |
//! | D2 delete of the child meanwhile | `collision_deletes`, [`a_delete_of_the_child_wins_at_any_moment`] |
//! | R2 plain | `exchanges::every_sa_can_have_additional_key_exchanges` |
//! | R4 INVALID_KE_PAYLOAD before | [`a_rekey_follows_the_peer_to_another_first_group`] |
//! | K13 delete of the IKE SA meanwhile | [`a_delete_of_the_ike_sa_wins_at_any_moment_whatever_is_lost`] |

use lockgate::ike::Command;

use super::collision_spec::{KINDS, Part, assert_requests, refusals, spoil};
use super::collisions::{NONCES, collide};
use super::config::{Setup, Side, esp_proposals, ike_proposals};
use super::network::Fate;
use super::pair::{Pair, millis, rekey_child, rekey_ike, seconds, terminate_child, terminate_ike};

const IKE: &str = "aes256gcm16-prfsha384-x25519-ke1_ecp256";
const ESP: &str = "aes256gcm16-x25519-ke1_ecp256-ke2_ecp384-esn";

fn proposals(setup: &mut Setup, ike: &str, esp: &str) {
    setup.connection.proposals = ike_proposals(&[ike]);
    setup.children[0].esp_proposals = esp_proposals(&[esp]);
}

fn up() -> Pair {
    Pair::up_with(|_, setup| proposals(setup, IKE, ESP))
}

/// Each side has asked once, all is at rest, and no packet was lost.
#[track_caller]
fn assert_asked_once(mut pair: Pair, since: usize) {
    pair.settle_traffic();
    // What the peer never learnt of, it does not delete: we do, and wait for no answer.
    pair.run_for(seconds(90));
    assert_requests(&pair, since, 1);
    assert_eq!(pair.lost_packets, 0);
    pair.assert_clean(1);
    pair.finish();
}

#[test]
fn a_late_answer_changes_nothing_any_more() {
    for (kind, command) in KINDS {
        for part in [Part::Answer, Part::FollowUp, Part::FollowUpAnswer] {
            for lowest in NONCES {
                for delay in [11, 21, 31, 45, 100, 400, 2000] {
                    println!("{kind} {part:?} {lowest:?} {delay}");
                    let mut pair = up();
                    pair.start_traffic(millis(4));
                    spoil(&mut pair, &[(Side::B, part, Fate::Late(millis(delay)))]);
                    let before = pair.net.sent();
                    collide(&mut pair, command, lowest);
                    assert_asked_once(pair, before);
                }
            }
        }
    }
}

#[test]
fn a_late_request_starts_no_second_rekey() {
    let times = [
        (15, 0),
        (25, 0),
        (35, 0),
        (45, 0),
        (100, 0),
        (25, 100),
        (35, 30),
        (400, 2000),
    ];
    for (kind, command) in KINDS {
        for lowest in NONCES {
            for (late, deleted) in times {
                println!("{kind} {lowest:?} {late} {deleted}");
                let mut pair = up();
                pair.start_traffic(millis(4));
                let rules = [
                    (Side::B, Part::Request, Fate::Late(millis(late))),
                    (Side::A, Part::Delete, Fate::Late(millis(deleted))),
                ];
                spoil(&mut pair, &rules);
                let before = pair.net.sent();
                collide(&mut pair, command, lowest);
                pair.run_for(seconds(10));
                // It comes after `late` + 10 ms. The DELETE of the IKE SA, which A sends after 40 ms, comes to B
                // before an answer does; that of the child, sent after 60 ms, is answered after 80 ms.
                let expected = match (kind, late + 10) {
                    _ if deleted > 0 => &["TEMPORARY_FAILURE"][..],
                    ("IKE", 41..) => &[],
                    ("child", 81..) => &["CHILD_SA_NOT_FOUND"],
                    _ => &["TEMPORARY_FAILURE"],
                };
                assert_eq!(refusals(&mut pair, Side::B), expected);
                assert!(refusals(&mut pair, Side::A).is_empty());
                assert_asked_once(pair, before);
            }
        }
    }
}

#[test]
fn a_rekey_follows_the_peer_to_another_first_group() {
    for side in Side::BOTH {
        for (kind, command) in KINDS {
            println!("{kind} {side:?}");
            let mut pair = up();
            for one in Side::BOTH {
                let groups = if one == side {
                    "x25519-ecp384"
                } else {
                    "ecp384"
                };
                let ike = format!("aes256gcm16-prfsha384-{groups}-ke1_ecp256");
                let esp = format!("aes256gcm16-{groups}-ke1_ecp256-esn");
                let setup = pair.setup(one);
                proposals(setup, &ike, &esp);
                let pad = setup.pad();
                pair.command(one, Command::Reload(pad));
            }
            pair.start_traffic(millis(4));
            let before = pair.net.sent();
            pair.command(side, command());
            pair.settle_traffic();
            assert_eq!(
                pair.net.sent(),
                before + 8,
                "refusal, rekey, a further key exchange, delete"
            );
            pair.run_for(seconds(10));
            assert_eq!(pair.lost_packets, 0);
            pair.assert_clean(1);
            pair.finish();
        }
    }
}

#[test]
fn a_delete_of_the_child_wins_at_any_moment() {
    for side in Side::BOTH {
        for command in [rekey_child, rekey_ike] {
            for moment in [0, 5, 15, 25, 35, 45, 55, 65] {
                println!("{side:?} {moment}");
                let mut pair = up();
                pair.gapless = false;
                pair.command(Side::A, command());
                pair.run_for(millis(moment));
                pair.command(side, terminate_child());
                pair.run_for(seconds(90));
                pair.assert_clean(0);
                pair.finish();
            }
        }
    }
}

#[test]
fn a_delete_of_the_ike_sa_wins_at_any_moment_whatever_is_lost() {
    for side in Side::BOTH {
        for command in [rekey_child, rekey_ike] {
            for moment in [0, 5, 15, 25, 35] {
                for lost in [None, Some(Part::Delete), Some(Part::FollowUp)] {
                    println!("{side:?} {moment} {lost:?}");
                    let mut pair = up();
                    pair.gapless = false;
                    let lost = lost.map(|part| Side::BOTH.map(|side| (side, part, Fate::Drop)));
                    spoil(&mut pair, lost.as_ref().map_or(&[], |rules| rules));
                    pair.command(Side::A, command());
                    pair.run_for(millis(moment));
                    pair.command(side, terminate_ike());
                    pair.run_for(seconds(90));
                    pair.assert_nothing_left();
                }
            }
        }
    }
}
