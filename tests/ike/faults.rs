//! Every message of every exchange: lost, doubled, late, or with everything after it lost.

use std::time::Duration;

use lockgate::ike::{AddressPattern, Command};

use super::config::{Side, esp_proposals, ike_proposals};
use super::network::{Fate, Nat};
use super::pair::{
    Pair, initiate, millis, rekey, rekey_child, rekey_ike, seconds, terminate_child, terminate_ike,
};

/// What can go wrong with one message. Retransmission starts after half a second, so one delay is
/// shorter than that and the others let the repetition overtake.
const FATES: [Fate; 7] = [
    Fate::Drop,
    Fate::Twice(Duration::ZERO),
    Fate::Twice(millis(25)),
    Fate::Twice(millis(3000)),
    Fate::Late(millis(25)),
    Fate::Late(millis(700)),
    Fate::Late(millis(4000)),
];

/// Runs an exchange once per message and fate. `act` starts it; `check` looks when all is over.
pub(crate) fn with_every_fault(
    prepare: impl Fn() -> Pair,
    act: impl Fn(&mut Pair),
    check: impl Fn(&mut Pair),
) {
    let mut clean = prepare();
    let first = clean.net.sent();
    act(&mut clean);
    clean.run_for(CALM);
    check(&mut clean);
    let last = clean.net.sent();
    clean.finish();
    assert!(last > first, "nothing was sent");

    for number in first..last {
        for fate in FATES {
            println!("message {number} of {first}..{last}: {fate:?}");
            let mut pair = prepare();
            pair.net.spoil(number, fate);
            act(&mut pair);
            pair.run_for(CALM);
            check(&mut pair);
            pair.finish();
        }
        for side in Side::BOTH {
            println!("from message {number}: silence of {side:?} for three seconds");
            let mut pair = prepare();
            let mut end = None;
            pair.net.decide(move |sent| {
                if sent.number >= number && end.is_none() {
                    end = Some(sent.at + seconds(3));
                }
                if sent.from == side && end.is_some_and(|end| sent.at < end) {
                    Fate::Drop
                } else {
                    Fate::Deliver
                }
            });
            act(&mut pair);
            pair.run_for(CALM);
            check(&mut pair);
            pair.finish();
        }
    }
}

/// Both directions lose every second message.
fn with_half_of_everything_lost(
    prepare: impl Fn() -> Pair,
    act: impl Fn(&mut Pair),
    check: impl Fn(&mut Pair),
) {
    for parity in [0, 1] {
        let mut pair = prepare();
        let mut counts = [parity, parity];
        pair.net.decide(move |sent| {
            let count = &mut counts[sent.from.index()];
            *count += 1;
            if *count % 2 == 1 {
                Fate::Drop
            } else {
                Fate::Deliver
            }
        });
        act(&mut pair);
        pair.run_for(CALM);
        check(&mut pair);
        pair.finish();
    }
}

fn survives(prepare: impl Fn() -> Pair, act: impl Fn(&mut Pair), check: impl Fn(&mut Pair)) {
    with_every_fault(&prepare, &act, &check);
    with_half_of_everything_lost(&prepare, &act, &check);
}

/// The same for one command of one side, after which so many children are there.
pub(crate) fn command_survives(
    prepare: impl Fn() -> Pair,
    side: Side,
    command: impl Fn() -> Command,
    children: usize,
) {
    survives(
        prepare,
        |pair| {
            pair.command(side, command());
        },
        |pair| pair.assert_clean(children),
    );
}

/// A tunnel of which a side may have its half a moment before or after the other.
fn up_with_gaps() -> Pair {
    let mut pair = Pair::up();
    pair.gapless = false;
    pair
}

#[test]
fn ike_sa_init_and_ike_auth_survive_every_fault_and_make_one_child() {
    command_survives(Pair::new, Side::A, || initiate("lan"), 1);
}

#[test]
fn a_handshake_with_cookies_another_group_and_a_nat_survives_every_fault() {
    command_survives(
        || {
            let mut pair = Pair::with(|side, setup| {
                let groups = ["x25519-ecp256", "ecp256"][side.index()];
                let proposal = format!("aes256gcm16-prfsha384-{groups}");
                setup.connection.proposals = ike_proposals(&[&proposal]);
                setup.settings.cookie_threshold = 0;
                if side == Side::B {
                    setup.connection.remote_addrs = vec![AddressPattern::Any];
                }
            });
            pair.net.nat = Some(Nat {
                outside: [203, 0, 113, 9].into(),
                shift: 20_000,
            });
            pair
        },
        Side::A,
        || initiate("lan"),
        1,
    );
}

#[test]
fn two_gateways_that_initiate_at_once_survive_every_fault_with_one_tunnel() {
    survives(
        Pair::new,
        |pair| {
            for side in Side::BOTH {
                pair.command(side, initiate("lan"));
            }
        },
        |pair| {
            for side in Side::BOTH {
                assert!(!pair.children(side).is_empty());
            }
            pair.assert_packets_pass(1);
        },
    );
}

#[test]
fn a_new_child_survives_every_fault() {
    for side in Side::BOTH {
        command_survives(
            || {
                let mut pair = Pair::up_with(|side, setup| setup.add_second_child(side));
                pair.gapless = false;
                pair
            },
            side,
            || initiate("lab"),
            2,
        );
    }
}

#[test]
fn a_child_rekey_survives_every_fault_without_a_gap() {
    for side in Side::BOTH {
        for esp in ["aes256gcm16", "aes256gcm16-x25519"] {
            let prepare = || {
                Pair::up_with(|_, setup| setup.children[0].esp_proposals = esp_proposals(&[esp]))
            };
            command_survives(prepare, side, rekey_child, 1);
        }
    }
}

#[test]
fn a_child_rekey_under_traffic_loses_no_packet_whatever_happens_to_ike() {
    for side in Side::BOTH {
        with_every_fault(
            Pair::up,
            |pair| {
                pair.start_traffic(millis(20));
                pair.command(side, rekey_child());
            },
            |pair| {
                pair.stop_traffic();
                assert_eq!(pair.lost_packets, 0);
                pair.assert_clean(1);
            },
        );
    }
}

#[test]
fn an_ike_rekey_survives_every_fault() {
    for side in Side::BOTH {
        command_survives(Pair::up, side, rekey_ike, 1);
    }
}

#[test]
fn a_rekey_of_everything_by_both_sides_in_turn_survives_every_fault() {
    with_every_fault(
        Pair::up,
        |pair| {
            for side in Side::BOTH {
                pair.command(side, rekey_child());
                pair.command(side, rekey_ike());
                pair.run_for(seconds(2));
            }
        },
        |pair| pair.assert_clean(1),
    );
}

#[test]
fn a_liveness_check_survives_every_fault() {
    for side in Side::BOTH {
        survives(
            || {
                Pair::up_with(|one, setup| {
                    if one == side {
                        setup.connection.dpd_delay = seconds(30);
                    }
                })
            },
            |_| {},
            |pair| {
                pair.run_for(seconds(5)); // the calm may end in the midst of a check
                pair.assert_clean(1);
            },
        );
    }
}

#[test]
fn the_end_of_a_child_survives_every_fault() {
    for side in Side::BOTH {
        command_survives(up_with_gaps, side, terminate_child, 0);
    }
}

#[test]
fn the_end_of_an_ike_sa_survives_every_fault() {
    for side in Side::BOTH {
        survives(
            up_with_gaps,
            |pair| {
                pair.command(side, terminate_ike());
            },
            |pair| pair.assert_nothing_left(),
        );
    }
}

#[test]
fn both_ends_may_end_the_same_child_or_ike_sa_at_once() {
    for command in [terminate_child, terminate_ike] {
        survives(
            up_with_gaps,
            |pair| {
                for side in Side::BOTH {
                    pair.command(side, command());
                }
            },
            |pair| {
                for side in Side::BOTH {
                    assert!(pair.children(side).is_empty());
                    assert_eq!(pair.host(side).plane.counts(), (0, 0));
                }
            },
        );
    }
}

#[test]
fn a_new_authentication_survives_every_fault_and_replaces_the_old_one() {
    for side in Side::BOTH {
        // The responder may send before its answer has arrived.
        command_survives(up_with_gaps, side, || rekey(None, true), 1);
    }
}

/// Longer than any fault and any wait that it causes.
const CALM: Duration = seconds(70);
