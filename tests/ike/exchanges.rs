//! Additional key exchanges between two gateways (RFC 9242, RFC 9370).

use std::collections::HashSet;
use std::time::Duration;

use lockgate::ike::Command;
use lockgate::wire::isakmp::{ExchangeType, Header};
use lockgate::wire::keyword::{esp_suite_text, ike_suite_text};

use super::collisions::{NONCES, assert_child_of, assert_ike_of, collide};
use super::config::{Setup, Side, esp_proposals, ike_proposals};
use super::faults::{command_survives, with_every_fault};
use super::network::Fate;
use super::pair::{Pair, initiate, millis, rekey_child, rekey_ike, seconds, terminate_ike};

const IKE: &str = "aes256gcm16-prfsha384-x25519-ke1_mlkem768";
const ESP: &str = "aes256gcm16-x25519-ke1_mlkem512-esn-noesn";

fn hybrid(_: Side, setup: &mut Setup) {
    setup.connection.proposals = ike_proposals(&[IKE]);
    setup.children[0].esp_proposals = esp_proposals(&[ESP]);
}

/// How many requests of a kind were sent, in one piece or in fragments.
fn requests(pair: &Pair, exchange: ExchangeType) -> usize {
    let sent = pair.net.trace.iter();
    let sent = sent.filter(|sent| sent.is(exchange, false));
    let ids = sent.map(|sent| {
        let Header {
            initiator_spi,
            message_id,
            flags,
            ..
        } = sent.header;
        (initiator_spi, flags.initiator(), message_id)
    });
    ids.collect::<HashSet<_>>().len()
}

#[track_caller]
fn assert_suites(pair: &Pair, ike: &str, esp: &str) {
    for side in Side::BOTH {
        let sa = pair.ike_sa(side);
        let suite = sa.suite.expect("it is established");
        assert!(ike_suite_text(&suite).ends_with(ike), "{suite:?}");
        let suite = sa.children[0].suite;
        assert!(esp_suite_text(&suite).ends_with(esp), "{suite:?}");
    }
}

#[test]
fn an_ike_sa_is_set_up_with_seven_key_exchanges_behind_the_first() {
    let all = "aes256gcm16-prfsha384-x25519-ke1_mlkem768-ke2_ecp256-ke3_none-ke4_mlkem512\
               -ke5_ecp384-ke6_modp2048-ke7_ecp521";
    let pair = Pair::up_with(|_, setup| setup.connection.proposals = ike_proposals(&[all]));
    let suite = pair.ike_sa(Side::A).suite.unwrap();
    let numbers: Vec<u8> = suite.additional.iter().map(|(number, _)| number).collect();
    assert_eq!(numbers, [1, 2, 4, 5, 6, 7]);
    assert_eq!(requests(&pair, ExchangeType::IKE_INTERMEDIATE), 6);
    let auth = |response| {
        let mut sent = pair.net.trace.iter();
        let auth = sent.find(|sent| sent.is(ExchangeType::IKE_AUTH, response));
        auth.unwrap().header.message_id
    };
    assert_eq!((auth(false), auth(true)), (7, 7));
    pair.finish();
}

#[test]
fn every_sa_can_have_additional_key_exchanges() {
    let mut pair = Pair::up_with(hybrid);
    // The child of IKE_AUTH has no key exchange of its own.
    assert_suites(&pair, "/CURVE_25519/KE1_ML_KEM_768", "AES_GCM_16_256/ESN");
    for side in Side::BOTH {
        pair.command(side, rekey_child());
        pair.run_for(seconds(10));
        pair.assert_clean(1);
        assert_suites(&pair, "KE1_ML_KEM_768", "/CURVE_25519/KE1_ML_KEM_512/ESN");
        pair.command(side, rekey_ike());
        pair.run_for(seconds(10));
        pair.assert_clean(1);
        assert_suites(&pair, "/KE1_ML_KEM_768", "/KE1_ML_KEM_512/ESN");
    }
    assert_eq!(requests(&pair, ExchangeType::IKE_FOLLOWUP_KE), 4);
    pair.finish();
}

#[test]
fn an_additional_key_exchange_is_left_out_where_both_sides_can_do_without() {
    let optional = "aes256gcm16-prfsha384-x25519-ke1_mlkem768-ke1_none";
    let plain = "aes256gcm16-prfsha384-x25519";
    for (offers, expected) in [
        ([optional, optional], "/KE1_ML_KEM_768"),
        ([optional, plain], "/CURVE_25519"),
        ([plain, optional], "/CURVE_25519"),
    ] {
        let pair = Pair::up_with(|side, setup| {
            setup.connection.proposals = ike_proposals(&[offers[side.index()]]);
        });
        assert_suites(&pair, expected, "/ESN");
        pair.finish();
    }
}

#[test]
fn a_side_that_insists_on_an_additional_key_exchange_gets_it_or_nothing() {
    for insists in Side::BOTH {
        let mut pair = Pair::with(|side, setup| {
            if side == insists {
                setup.connection.proposals = ike_proposals(&[IKE]);
            }
        });
        let id = pair.command(Side::A, initiate("lan"));
        pair.run_for(seconds(60));
        let reason = pair.failure(Side::A, id);
        assert!(reason.contains("NO_PROPOSAL_CHOSEN"), "{reason}");
        let told = pair
            .host(Side::B)
            .logged("no common additional key exchange");
        assert!(told, "{insists:?}");
        pair.finish();
    }
}

#[test]
fn a_handshake_with_additional_key_exchanges_survives_every_fault() {
    let ike = "aes256gcm16-prfsha384-x25519-ke1_mlkem512-ke2_ecp256";
    let prepare = || Pair::with(|_, setup| setup.connection.proposals = ike_proposals(&[ike]));
    command_survives(prepare, Side::A, || initiate("lan"), 1);
}

#[test]
fn key_exchanges_that_need_fragments_survive_every_fault() {
    let act = |pair: &mut Pair| {
        pair.command(Side::A, initiate("lan"));
        pair.run_for(seconds(5));
        pair.command(Side::B, rekey_ike());
    };
    with_every_fault(|| Pair::with(hybrid), act, |pair| pair.assert_clean(1));
}

#[test]
fn rekeys_with_additional_key_exchanges_survive_every_fault_without_a_gap() {
    let two = |_: Side, setup: &mut Setup| {
        let ike = "aes256gcm16-prfsha384-x25519-ke1_mlkem512-ke2_ecp256";
        setup.connection.proposals = ike_proposals(&[ike]);
        let esp = "aes256gcm16-x25519-ke1_mlkem512-ke3_ecp256";
        setup.children[0].esp_proposals = esp_proposals(&[esp]);
    };
    for side in Side::BOTH {
        for command in [rekey_child, rekey_ike] {
            command_survives(|| Pair::up_with(two), side, command, 1);
        }
    }
}

#[test]
fn a_new_child_with_additional_key_exchanges_survives_every_fault() {
    let prepare = || {
        let mut pair = Pair::up_with(|side, setup| {
            setup.add_second_child(side);
            setup.children[1].esp_proposals = esp_proposals(&[ESP]);
        });
        pair.gapless = false;
        pair
    };
    for side in Side::BOTH {
        command_survives(prepare, side, || initiate("lab"), 2);
    }
}

#[test]
fn a_child_rekey_with_additional_key_exchanges_loses_no_packet() {
    with_every_fault(
        || Pair::up_with(hybrid),
        |pair| {
            pair.start_traffic(millis(20));
            pair.command(Side::A, rekey_child());
        },
        |pair| {
            pair.stop_traffic();
            assert_eq!(pair.lost_packets, 0);
            pair.assert_clean(1);
        },
    );
}

/// Rekeys of both sides cross, with additional key exchanges in both exchanges or in that of one
/// side: the responder's order decides.
fn collisions(command: fn() -> Command, assert_of: fn(&mut Pair, Side)) {
    for plain in [None, Some(Side::A), Some(Side::B)] {
        for lowest in NONCES {
            println!("without: {plain:?}, lowest {lowest:?}");
            let mut pair = Pair::up_with(|side, setup| {
                let mut ike = vec!["aes256gcm16-prfsha384-x25519-ke1_mlkem512"];
                let mut esp = vec!["aes256gcm16-x25519-ke1_mlkem512-esn"];
                if let Some(plain) = plain {
                    ike.push("aes256gcm16-prfsha384-x25519");
                    esp.push("aes256gcm16-x25519-esn");
                    // What the peer of this side asks for, this side answers without.
                    if plain.other() == side {
                        ike.reverse();
                        esp.reverse();
                    }
                }
                setup.connection.proposals = ike_proposals(&ike);
                setup.children[0].esp_proposals = esp_proposals(&esp);
            });
            pair.start_traffic(millis(4));
            let before = pair.net.sent();
            collide(&mut pair, command, lowest);
            pair.settle_traffic();
            assert_eq!(pair.lost_packets, 0);
            let winner = lowest.loser().other();
            assert_of(&mut pair, winner);
            // The loser does not go on with its exchange.
            for side in Side::BOTH {
                let sent = pair.net.from(side, before).into_iter();
                let followed = sent.filter(|sent| sent.is(ExchangeType::IKE_FOLLOWUP_KE, false));
                let expected = usize::from(side == winner && plain != Some(side));
                assert_eq!(followed.count(), expected, "{side:?}");
            }
            pair.run_for(seconds(70));
            assert_of(&mut pair, winner);
            pair.assert_clean(1);
            pair.finish();
        }
    }
}

#[test]
fn the_lowest_nonce_loses_also_where_child_rekeys_have_additional_key_exchanges() {
    collisions(rekey_child, assert_child_of);
}

#[test]
fn the_lowest_nonce_loses_also_where_ike_rekeys_have_additional_key_exchanges() {
    collisions(rekey_ike, |pair, maker| assert_ike_of(pair, maker));
}

#[test]
fn a_request_that_is_late_for_a_rekey_with_additional_key_exchanges_is_put_off() {
    for command in [rekey_child, rekey_ike] {
        let mut pair = Pair::up_with(hybrid);
        // The request of B arrives when A is between its answer and the last exchange.
        let mut late = true;
        pair.net.decide(move |sent| {
            let ours = sent.from == Side::B && sent.is(ExchangeType::CREATE_CHILD_SA, false);
            if ours && std::mem::take(&mut late) {
                return Fate::Late(millis(15));
            }
            Fate::Deliver
        });
        pair.command(Side::B, command());
        pair.command(Side::A, command());
        pair.run_for(seconds(70));
        pair.assert_clean(1);
        pair.finish();
    }
}

#[test]
fn what_is_not_followed_up_is_forgotten_and_rekeyed_by_the_other_side() {
    for command in [rekey_child, rekey_ike] {
        let mut pair = Pair::up_with(hybrid);
        pair.gapless = false;
        // A asks, and is gone before it follows up.
        pair.net.decide(|sent| {
            if sent.header.exchange == ExchangeType::IKE_FOLLOWUP_KE {
                Fate::Drop
            } else {
                Fate::Deliver
            }
        });
        pair.command(Side::A, command());
        pair.run_for(seconds(25));
        let forgotten = "not followed up a key exchange";
        assert!(pair.host(Side::B).logged(forgotten));
        pair.net.heal();
        pair.run_for(seconds(60));
        for side in Side::BOTH {
            assert!(pair.children(side).len() <= 1);
        }
        pair.finish();
    }
}

#[test]
fn an_ike_sa_may_end_in_the_midst_of_additional_key_exchanges() {
    for side in Side::BOTH {
        for command in [rekey_child, rekey_ike] {
            for wait in [15, 25, 35] {
                let mut pair = Pair::up_with(hybrid);
                pair.gapless = false;
                pair.command(Side::A, command());
                pair.run_for(Duration::from_millis(wait));
                pair.command(side, terminate_ike());
                pair.run_for(seconds(70));
                pair.assert_nothing_left();
            }
        }
    }
}
