//! Crossing exchanges that libreswan's tests and users of strongSwan have met: the last rows of the table in
//! [`super::collision_spec`].

use lockgate::ike::{DpdAction, StartAction, Unique};
use lockgate::wire::ikev2::NotifyType;
use lockgate::wire::isakmp::{ExchangeType, PayloadType};

use super::actor::{delete_esp, notify, sa};
use super::collision_spec::{KINDS, Part, by_hand, spoil};
use super::config::{Side, esp_proposals};
use super::network::Fate;
use super::pair::{
    Pair, initiate, millis, rekey_child, rekey_ike, seconds, terminate_child, terminate_ike,
};

#[test]
fn two_handshakes_that_cross_at_any_moment_end_with_one_tunnel() {
    for first in Side::BOTH {
        for moment in [0, 5, 10, 11, 15, 20, 21, 25, 30, 31, 35, 40, 41] {
            let mut pair = Pair::new();
            pair.command(first, initiate("lan"));
            pair.run_for(millis(moment));
            pair.command(first.other(), initiate("lan"));
            pair.run_for(seconds(60));
            pair.assert_clean(1);
            pair.finish();
        }
    }
}

#[test]
fn two_handshakes_that_cross_for_different_children_end_with_both_children() {
    for first in Side::BOTH {
        for moment in [0, 5, 10, 11, 15, 20, 21, 25, 30, 31, 35, 40, 41] {
            let mut pair = Pair::with(|side, setup| setup.add_second_child(side));
            pair.command(first, initiate("lan"));
            pair.run_for(millis(moment));
            pair.command(first.other(), initiate("lab"));
            pair.run_for(seconds(1));
            pair.assert_tunnels(2);
            pair.run_for(seconds(60));
            pair.assert_clean(2);
            pair.finish();
        }
    }
}

/// Each side learns only in IKE_AUTH, by the identity, which of two connections to that address is meant.
#[test]
fn two_handshakes_that_cross_and_switch_their_connection_leave_one_ike_sa() {
    for unique in [Unique::No, Unique::Keep, Unique::Replace] {
        for switching in [&Side::BOTH[..], &[Side::B]] {
            for first in Side::BOTH {
                for moment in [0, 5, 10, 11, 15, 20, 21, 25, 30, 31, 35] {
                    println!("{unique:?} {switching:?} {first:?} {moment}");
                    let mut pair = Pair::with(|side, setup| {
                        setup.connection.unique = unique;
                        if switching.contains(&side) {
                            setup.more.push(setup.connection.clone());
                            setup.connection.name = "other".into();
                            setup.connection.remote.id = "nobody.example".parse().unwrap();
                        }
                    });
                    pair.command(first, initiate("lan"));
                    pair.run_for(millis(moment));
                    pair.command(first.other(), initiate("lan"));
                    pair.run_for(seconds(60));
                    for side in Side::BOTH {
                        assert_eq!(pair.ike_sa(side).name, "site");
                    }
                    pair.assert_clean(1);
                    pair.finish();
                }
            }
        }
    }
}

#[test]
fn a_peer_that_restarts_during_the_handshake_is_reached_in_the_end() {
    for moment in [5, 11, 15, 21, 25, 31, 35] {
        let mut pair = Pair::with(|side, setup| {
            if side == Side::A {
                setup.connection.keyingtries = 0;
                setup.connection.dpd_delay = seconds(5);
                setup.children[0].start_action = StartAction::Start;
                setup.children[0].dpd_action = DpdAction::Restart;
            }
        });
        pair.run_for(millis(moment));
        pair.restart(Side::B);
        pair.run_for(seconds(200));
        pair.assert_clean(1);
        pair.finish();
    }
}

#[test]
fn a_delete_that_overtakes_the_answer_before_it_loses_no_child() {
    // B answers a request, and deletes what the answer brings, or what it replaces, at once.
    for (kind, command) in KINDS {
        for side in Side::BOTH {
            for delay in [11, 12, 20] {
                println!("{kind} {side:?} {delay}");
                let mut pair = Pair::up();
                pair.start_traffic(millis(1));
                let rules = [
                    (side, Part::Answer, Fate::Late(millis(delay))),
                    (side, Part::Delete, Fate::Deliver),
                ];
                spoil(&mut pair, &rules);
                for side in Side::BOTH {
                    pair.command(side, command());
                }
                pair.settle_traffic();
                pair.run_for(seconds(60));
                assert_eq!(pair.lost_packets, 0);
                pair.assert_clean(1);
                pair.finish();
            }
        }
    }
}

#[test]
fn a_rekey_that_only_one_side_allows_leaves_one_child() {
    // B covers less than A asks for, so that of two crossing rekeys one is refused.
    for refusal in [NotifyType::TS_UNACCEPTABLE, NotifyType::NO_PROPOSAL_CHOSEN] {
        let (mut pair, mut actor) = by_hand();
        let old = actor.child_spi;
        pair.command(Side::B, rekey_child());
        let request = actor.take_request(&pair).unwrap();
        let mut payloads = actor.rekey_child(old);
        payloads.retain(|(kind, _)| *kind != PayloadType::KE);
        let mut proposals = esp_proposals(&["aes256gcm16-esn"]);
        proposals[0].spi = actor.child_spi.to_be_bytes().to_vec();
        payloads[1] = (PayloadType::SA, sa(&proposals));
        let answer = actor.request(&mut pair, ExchangeType::CREATE_CHILD_SA, &payloads);
        assert_eq!(answer.unwrap().error(), None);
        actor.answer(&mut pair, &request, &vec![notify(refusal, &[])]);
        let answer = actor.request(
            &mut pair,
            ExchangeType::INFORMATIONAL,
            &vec![delete_esp(old)],
        );
        assert!(answer.unwrap().body(PayloadType::DELETE).is_some());
        pair.run_for(seconds(40));
        assert_eq!(pair.child(Side::B).spi_out.get(), actor.child_spi);
        assert_eq!(pair.host(Side::B).plane.counts(), (1, 1));
        assert_eq!(pair.host(Side::B).told(), (1, 1));
    }
}

#[test]
fn an_ike_rekey_survives_a_link_that_is_down_meanwhile() {
    for side in Side::BOTH {
        for moment in [0, 5, 15, 25, 35, 45] {
            for down in [200, 1000, 5000] {
                println!("{side:?} {moment} {down}");
                let mut pair = Pair::up();
                pair.command(side, rekey_ike());
                pair.run_for(millis(moment));
                pair.net.decide(|_| Fate::Drop);
                pair.run_for(millis(down));
                pair.net.heal();
                pair.run_for(seconds(90));
                pair.assert_clean(1);
                pair.finish();
            }
        }
    }
}

#[test]
fn deletes_of_a_child_and_of_its_ike_sa_may_cross_each_way() {
    for side in Side::BOTH {
        for moment in [0, 5, 11, 15] {
            let mut pair = Pair::up();
            pair.gapless = false;
            pair.command(side, terminate_child());
            pair.run_for(millis(moment));
            pair.command(side.other(), terminate_ike());
            pair.run_for(seconds(60));
            pair.assert_nothing_left();
        }
    }
}
