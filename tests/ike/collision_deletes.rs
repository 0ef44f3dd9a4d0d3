//! One side replaces a child, the other deletes it: rows D1 to D4 of [`super::collision_spec`], with the error
//! that the request for the new child is answered with (RFC 7296 §2.25).

use super::collision_spec::{Part, refusals, requests, spoil};
use super::config::{Side, esp_proposals};
use super::network::Fate;
use super::pair::{Pair, millis, rekey_child, seconds, terminate_child};

const PLAIN: &str = "aes256gcm16-x25519-esn";
const ADDITIONAL: &str = "aes256gcm16-x25519-ke1_ecp256-ke2_ecp384-esn";

fn up(esp: &str) -> Pair {
    let mut pair =
        Pair::up_with(|_, setup| setup.children[0].esp_proposals = esp_proposals(&[esp]));
    pair.gapless = false;
    pair
}

/// `side` has asked once for a new child, was refused with `expected`, and no child is left.
#[track_caller]
fn assert_refused(mut pair: Pair, side: Side, before: usize, expected: &str) {
    pair.run_for(seconds(90));
    assert_eq!(refusals(&mut pair, side), [expected]);
    assert!(refusals(&mut pair, side.other()).is_empty());
    assert_eq!(requests(&pair, side, before), 1);
    pair.assert_clean(0);
    pair.finish();
}

/// D1, and D2 as long as the first exchange goes on.
#[test]
fn a_rekey_of_a_child_that_its_peer_is_deleting_is_refused_for_now() {
    for esp in [PLAIN, ADDITIONAL] {
        for side in Side::BOTH {
            for ahead in [0, 5, 9] {
                println!("{esp} {side:?} {ahead}");
                let mut pair = up(esp);
                let before = pair.net.sent();
                pair.command(side, rekey_child());
                pair.run_for(millis(ahead));
                pair.command(side.other(), terminate_child());
                assert_refused(pair, side, before, "TEMPORARY_FAILURE");
            }
        }
    }
}

/// D2: the new child is half made.
#[test]
fn a_further_key_exchange_for_a_child_that_its_peer_has_deleted_meanwhile_is_refused() {
    for side in Side::BOTH {
        for moment in [15, 25, 35, 45] {
            println!("{side:?} {moment}");
            let mut pair = up(ADDITIONAL);
            let before = pair.net.sent();
            pair.command(side, rekey_child());
            pair.run_for(millis(moment));
            pair.command(side.other(), terminate_child());
            assert_refused(pair, side, before, "TEMPORARY_FAILURE");
        }
    }
}

/// D3.
#[test]
fn a_rekey_is_refused_for_now_as_long_as_the_delete_is_late_or_lost() {
    let late = [15, 50, 400].map(|late| Fate::Late(millis(late)));
    for esp in [PLAIN, ADDITIONAL] {
        for side in Side::BOTH {
            for fate in late.into_iter().chain([Fate::Drop]) {
                println!("{esp} {side:?} {fate:?}");
                let mut pair = up(esp);
                let other = side.other();
                spoil(&mut pair, &[(other, Part::Delete, fate)]);
                let before = pair.net.sent();
                pair.command(side, rekey_child());
                pair.command(other, terminate_child());
                assert_refused(pair, side, before, "TEMPORARY_FAILURE");
            }
        }
    }
}

/// D4.
#[test]
fn a_rekey_that_comes_after_the_delete_finds_no_child() {
    let late = [15, 50, 400].map(|late| Fate::Late(millis(late)));
    for esp in [PLAIN, ADDITIONAL] {
        for side in Side::BOTH {
            for fate in late.into_iter().chain([Fate::Drop]) {
                println!("{esp} {side:?} {fate:?}");
                let mut pair = up(esp);
                spoil(&mut pair, &[(side, Part::Request, fate)]);
                let before = pair.net.sent();
                pair.command(side, rekey_child());
                pair.command(side.other(), terminate_child());
                assert_refused(pair, side, before, "CHILD_SA_NOT_FOUND");
            }
        }
    }
}
