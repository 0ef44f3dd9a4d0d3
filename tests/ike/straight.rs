//! Each exchange on a network that does nothing wrong.

use lockgate::ike::{Command, Event, IkeState};
use lockgate::ipsec::EspEncap;
use lockgate::wire::isakmp::ExchangeType;
use lockgate::wire::keyword::{esp_suite_text, ike_suite_text};

use super::config::{Side, esp_proposals, ike_proposals};
use super::pair::{
    Pair, initiate, millis, rekey_child, rekey_ike, seconds, terminate_child, terminate_ike,
};
use super::plane::Change::{
    AddInbound, RemoveInbound, RemoveOutbound, SetPolicies, SwitchOutbound,
};

#[test]
fn one_command_sets_up_a_tunnel_with_four_messages() {
    let mut pair = Pair::new();
    let id = pair.command(Side::A, initiate("lan"));
    assert_eq!(pair.ike_sa(Side::A).state, IkeState::Connecting);
    pair.settle();

    assert_eq!(pair.net.sent(), 4);
    assert_eq!(pair.elapsed(), millis(40));
    let outcome = pair.result(Side::A, id).unwrap().unwrap();
    assert_eq!(outcome.matches, 1);
    assert_eq!(outcome.ike, Some(pair.ike_sa(Side::A).id));
    assert_eq!(outcome.child, Some(pair.child(Side::A).id.0));
    for side in Side::BOTH {
        let sa = pair.ike_sa(side);
        assert_eq!(sa.initiator, side == Side::A);
        assert_eq!(sa.local_id, Some(side.identity().parse().unwrap()));
        assert_eq!(sa.remote_id, Some(side.other().identity().parse().unwrap()));
        assert!(!sa.nat.any());
        let suite = ike_suite_text(&sa.suite.unwrap());
        assert_eq!(suite, "AES_GCM_16_256/PRF_HMAC_SHA2_384/CURVE_25519");
        let child = pair.child(side);
        assert!(child.suite.esn);
        assert_eq!(child.encap, EspEncap::None);
        assert_eq!(child.local_ts, [side.network().parse().unwrap()]);
        assert_eq!(child.remote_ts, [side.other().network().parse().unwrap()]);
        let history = pair.host(side).plane.take_history();
        assert_eq!(history, [SetPolicies, AddInbound, SwitchOutbound]);
    }
    let (a, b) = (pair.child(Side::A), pair.child(Side::B));
    assert_eq!((a.spi_in, a.spi_out), (b.spi_out, b.spi_in));
    pair.assert_clean(1);
    pair.finish();
}

#[test]
fn an_ike_sa_can_be_set_up_without_a_child_and_get_one_later() {
    let mut pair = Pair::new();
    let command = Command::Initiate {
        ike: Some("site".into()),
        child: None,
    };
    let id = pair.command(Side::A, command);
    pair.settle();
    assert_eq!(pair.result(Side::A, id).unwrap().unwrap().child, None);
    pair.assert_clean(0);
    for side in Side::BOTH {
        let id = pair.command(side, initiate("lan"));
        pair.settle();
        assert!(pair.result(side, id).unwrap().is_ok());
        pair.assert_clean(1);
    }
    pair.finish();
}

#[test]
fn a_responder_can_answer_packets_before_it_tells_its_peer_that_it_may_send_them() {
    let mut pair = Pair::up();
    assert_eq!(pair.host(Side::B).opened_late, 0);
    for side in Side::BOTH {
        let mut pair = Pair::up_with(|side, setup| setup.add_second_child(side));
        pair.gapless = false; // the responder may send before its answer has arrived
        pair.command(side, initiate("lab"));
        pair.settle();
        pair.assert_clean(2);
        assert_eq!(pair.host(side.other()).opened_late, 0);
    }
}

#[test]
fn a_second_child_uses_the_same_ike_sa() {
    for side in Side::BOTH {
        let mut pair = Pair::up_with(|side, setup| setup.add_second_child(side));
        pair.gapless = false; // the responder may send before its answer has arrived
        let before = pair.net.sent();
        let id = pair.command(side, initiate("lab"));
        pair.settle();
        assert!(pair.result(side, id).unwrap().is_ok());
        assert_eq!(pair.net.sent(), before + 2);
        assert!(pair.net.trace[before].is(ExchangeType::CREATE_CHILD_SA, false));
        pair.assert_clean(2);
        pair.finish();
    }
}

#[test]
fn every_suite_of_ike_and_esp_is_negotiated() {
    let suites = [
        ("aes128gcm16-prfsha256-x25519", "aes128gcm16-esn"),
        ("aes192gcm16-prfsha512-ecp256", "aes192gcm16-noesn"),
        ("aes256gcm16-prfsha384-ecp384", "aes256gcm16-ecp384-esn"),
        (
            "chacha20poly1305-prfsha256-ecp521",
            "chacha20poly1305-ecp521-esn",
        ),
        ("aes128-sha1-modp2048", "aes128-sha1-modp2048-noesn"),
        ("aes192-sha256-modp2048", "aes192-sha256-esn"),
        ("aes256-sha384-x25519", "aes256-sha384-x25519-esn"),
        ("aes256-sha512-ecp256", "null-sha256-ecp256-esn"),
        ("aes128gcm8-prfaescmac-modp1536", "aes256gcm12-noesn"),
        ("aes256ccm16-prfaesxcbc-ecp256bp", "aes192ccm8-esn"),
        ("aes192ccm12-prfsha256-ecp384bp", "aes128ccm8iiv-esn"),
        ("aes256ctr-aescmac-modp1024", "aes192ctr-sha256-esn"),
        ("aes128-aesxcbc-mlkem512", "aes256gmac-mlkem768-esn"),
        ("3des-md5-mlkem1024", "3des-md5-noesn"),
    ];
    for (ike, esp) in suites {
        let mut pair = Pair::up_with(|_, setup| {
            setup.connection.proposals = ike_proposals(&[ike]);
            setup.children[0].esp_proposals = esp_proposals(&[esp]);
        });
        pair.command(Side::A, rekey_child());
        pair.settle();
        pair.command(Side::B, rekey_ike());
        pair.settle();
        pair.run_for(seconds(6));
        pair.assert_clean(1);
        for side in Side::BOTH {
            let suite = esp_suite_text(&pair.child(side).suite);
            assert_eq!(
                suite.matches("ESN").count() > 0,
                !esp.contains("noesn"),
                "{suite}"
            );
        }
        pair.finish();
    }
}

#[test]
fn a_rekeyed_child_is_replaced_in_the_order_that_loses_no_packet() {
    for side in Side::BOTH {
        let mut pair = Pair::up();
        let old = pair.child(side);
        pair.start_traffic(millis(1));
        pair.command(side, rekey_child());
        pair.run_for(seconds(4));
        assert_eq!(
            pair.host(side).plane.take_history(),
            [AddInbound, SwitchOutbound, RemoveOutbound]
        );
        pair.run_for(seconds(2));
        assert_eq!(pair.host(side).plane.take_history(), [RemoveInbound]);
        let history = pair.host(side.other()).plane.take_history();
        assert_eq!(
            history,
            [AddInbound, SwitchOutbound, RemoveOutbound, RemoveInbound]
        );

        pair.stop_traffic();
        assert_eq!(pair.lost_packets, 0);
        assert!(pair.delivered_packets > 10_000);
        let new = pair.child(side);
        assert_ne!((new.spi_in, new.spi_out), (old.spi_in, old.spi_out));
        assert_eq!(
            new.owner, old.owner,
            "a rekeyed child stays with its worker"
        );
        pair.assert_clean(1);
        pair.finish();
    }
}

#[test]
fn a_rekey_with_and_without_a_new_key_exchange_works_for_both_kinds_of_sa() {
    for esp in ["aes256gcm16", "aes256gcm16-x25519"] {
        let mut pair = Pair::up_with(|_, setup| {
            setup.children[0].esp_proposals = esp_proposals(&[esp]);
        });
        assert_eq!(pair.child(Side::A).suite.key_exchange, None);
        for side in Side::BOTH {
            pair.command(side, rekey_child());
            pair.run_for(seconds(6));
            let wanted = esp.contains("x25519");
            assert_eq!(pair.child(side).suite.key_exchange.is_some(), wanted);
            pair.assert_clean(1);
        }
        pair.finish();
    }
}

#[test]
fn a_rekeyed_ike_sa_takes_its_children_along() {
    for side in Side::BOTH {
        let mut pair = Pair::up();
        let old = pair.ike_sa(side);
        let child = pair.child(side);
        pair.start_traffic(millis(1));
        pair.command(side, rekey_ike());
        pair.settle_traffic();
        assert_eq!(pair.lost_packets, 0);
        let new = pair.ike_sa(side);
        assert_ne!(new.id, old.id);
        assert_ne!(new.initiator_spi, old.initiator_spi);
        assert!(new.initiator);
        assert!(!pair.ike_sa(side.other()).initiator);
        assert_eq!(pair.child(side).id, child.id);
        assert_eq!(pair.host(side).plane.take_history(), []);
        let told = |event: &Event| {
            matches!(event, Event::IkeRekeyed { old: o, new: n }
                if o.id == old.id && n.id == new.id && n.children.len() == 1)
        };
        assert!(pair.host(side).events.iter().any(told));
        // Every exchange works on the new SA, from both sides.
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

#[test]
fn a_deleted_child_leaves_the_ike_sa_and_can_be_set_up_again() {
    for side in Side::BOTH {
        let mut pair = Pair::up();
        pair.gapless = false;
        let id = pair.command(side, terminate_child());
        pair.settle();
        let outcome = pair.result(side, id).unwrap().unwrap();
        assert_eq!((outcome.matches, outcome.terminated), (1, 1));
        pair.assert_clean(0);
        for end in Side::BOTH {
            let history = pair.host(end).plane.take_history();
            assert_eq!(history, [RemoveOutbound, RemoveInbound]);
        }
        pair.command(side, initiate("lan"));
        pair.settle();
        pair.assert_clean(1);
        pair.finish();
    }
}

#[test]
fn a_deleted_ike_sa_takes_its_children_along() {
    for side in Side::BOTH {
        let mut pair = Pair::up_with(|side, setup| setup.add_second_child(side));
        pair.gapless = false;
        pair.command(Side::A, initiate("lab"));
        pair.settle();
        pair.assert_tunnels(2);
        let id = pair.command(side, terminate_ike());
        pair.settle();
        assert_eq!(pair.result(side, id).unwrap().unwrap().terminated, 1);
        pair.assert_nothing_left();
        pair.finish();
    }
}

#[test]
fn a_day_of_rekeys_from_both_sides_loses_no_packet() {
    let mut pair = Pair::up_with(|_, setup| {
        setup.connection.rekey_time = seconds(14_400);
        setup.connection.over_time = seconds(1440);
        setup.connection.rand_time = seconds(1440);
        setup.connection.dpd_delay = seconds(30);
        let child = &mut setup.children[0];
        child.rekey_time = seconds(3600);
        child.life_time = seconds(3960);
        child.rand_time = seconds(360);
    });
    pair.start_traffic(seconds(7));
    pair.run_for(seconds(86_400));
    pair.stop_traffic();
    assert_eq!(pair.lost_packets, 0);
    let rekeys = |event: &&Event| matches!(event, Event::ChildRekeyed { .. });
    let count = pair.host(Side::A).events.iter().filter(rekeys).count();
    assert!((24..30).contains(&count), "{count} rekeys");
    pair.run_for(seconds(6));
    pair.assert_clean(1);
    pair.finish();
}
