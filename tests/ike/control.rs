//! Commands, start actions, reloads, restarts, and several IKE SAs of one peer.

use lockgate::ike::{
    AddressPattern, ChildMode, Command, CommandError, Discard, Event, IkeState, StartAction, Unique,
};
use lockgate::ipsec::{Reqid, SaEvent};
use lockgate::wire::ip::Flow;
use lockgate::wire::isakmp::ExchangeType;

use super::config::{Setup, Side, selectors};
use super::network::{Fate, Nat};
use super::pair::{
    Pair, initiate, millis, rekey, rekey_child, rekey_ike, seconds, terminate, terminate_child,
    terminate_ike,
};

fn start(action: StartAction) -> impl Fn(Side, &mut Setup) {
    move |_, setup| setup.children[0].start_action = action
}

/// A packet from the network of A to that of B.
fn acquire() -> SaEvent {
    SaEvent::Acquire {
        reqid: Reqid(1),
        flow: flow(),
        worker: None,
    }
}

pub(crate) fn flow() -> Flow {
    Flow {
        src: [10, 1, 0, 7].into(),
        dst: [10, 2, 0, 8].into(),
        protocol: 6,
        ports: Some((40_000, 443)),
    }
}

#[test]
fn children_start_when_they_are_configured_to() {
    for action in [StartAction::Start, StartAction::TrapStart] {
        let mut pair = Pair::with(|side, setup| {
            if side == Side::A {
                start(action)(side, setup);
            }
        });
        pair.run_for(seconds(1));
        pair.assert_clean(1);
        pair.finish();
    }
    for action in [StartAction::None, StartAction::Trap] {
        let mut pair = Pair::with(start(action));
        pair.run_for(seconds(100));
        assert_eq!(pair.net.sent(), 0);
        pair.finish();
    }
}

#[test]
fn two_gateways_that_both_start_end_with_one_ike_sa() {
    let mut pair = Pair::with(start(StartAction::Start));
    pair.run_for(seconds(20));
    for side in Side::BOTH {
        assert_eq!(pair.ike_sas(side).len(), 1, "{side:?}");
    }
    pair.assert_packets_pass(1);
    pair.finish();
}

#[test]
fn a_packet_sets_up_the_child_that_waits_for_it_once() {
    for action in [StartAction::Trap, StartAction::TrapStart] {
        let mut pair = Pair::with(|side, setup| {
            if side == Side::A {
                setup.children[0].start_action = action;
            }
        });
        for _ in 0..10 {
            pair.report(Side::A, acquire());
            pair.run_for(millis(3));
        }
        pair.settle();
        pair.report(Side::A, acquire());
        pair.settle();
        pair.assert_clean(1);
        // The specific selectors of the packet are within what was negotiated.
        assert_eq!(
            pair.child(Side::A).local_ts,
            [Side::A.network().parse().unwrap()]
        );
        // After its end, another packet sets it up again.
        pair.command(Side::A, terminate_ike());
        pair.run_for(seconds(3));
        pair.report(Side::A, acquire());
        pair.settle();
        pair.assert_clean(1);
        pair.finish();
    }
}

#[test]
fn packets_do_not_set_up_what_does_not_wait_for_them() {
    let mut pair = Pair::new();
    pair.report(Side::A, acquire());
    pair.run_for(seconds(10));
    assert_eq!(pair.net.sent(), 0);
    pair.finish();
}

#[test]
fn packets_for_a_peer_that_is_away_do_not_flood_it() {
    let mut pair = Pair::with(start(StartAction::Trap));
    pair.net.decide(|_| Fate::Drop);
    for _ in 0..6000 {
        pair.report(Side::A, acquire());
        pair.run_for(millis(100));
    }
    assert!(
        pair.net.sent() < 150,
        "{} messages in ten minutes",
        pair.net.sent()
    );
    pair.net.heal();
    pair.run_for(seconds(40));
    pair.report(Side::A, acquire());
    pair.run_for(seconds(10));
    pair.assert_clean(1);
    pair.finish();
}

#[test]
fn commands_that_mean_nothing_fail_at_once() {
    let mut pair = Pair::up_with(|_, setup| {
        let mut exception = setup.children[0].clone();
        exception.name = "exception".into();
        exception.mode = ChildMode::Pass;
        setup.children.push(exception);
    });
    let named = |ike: Option<&str>, child: Option<&str>| Command::Initiate {
        ike: ike.map(str::to_owned),
        child: child.map(str::to_owned),
    };
    for (command, text) in [
        (named(None, None), "missing"),
        (named(Some("sight"), None), "connection"),
        (named(Some("site"), Some("lon")), "child"),
        (named(None, Some("lon")), "child"),
        (named(Some("site"), Some("exception")), "child"),
        (terminate(Some("lon"), false), "no matching"),
        (rekey(Some("lon"), false), "no matching"),
    ] {
        let id = pair.command(Side::A, command);
        let failure = pair.failure(Side::A, id);
        assert!(failure.contains(text), "{failure}");
    }
    pair.assert_clean(1);
    pair.finish();
}

#[test]
fn a_child_that_is_up_is_not_set_up_twice() {
    let mut pair = Pair::up();
    let before = pair.net.sent();
    for side in Side::BOTH {
        let id = pair.command(side, initiate("lan"));
        let outcome = pair.result(side, id).unwrap().unwrap();
        assert_eq!(outcome.child, Some(pair.child(side).id.0));
    }
    assert_eq!(pair.net.sent(), before);
    pair.finish();
}

#[test]
fn commands_for_one_connection_share_its_ike_sa() {
    let mut pair = Pair::with(|side, setup| setup.add_second_child(side));
    let ids = ["lan", "lab", "lan"].map(|child| pair.command(Side::A, initiate(child)));
    pair.settle();
    for id in ids {
        assert!(matches!(pair.result(Side::A, id), Some(Ok(_))));
    }
    pair.assert_clean(2);
    pair.finish();
}

#[test]
fn an_attempt_can_be_called_off_at_every_moment() {
    for moment in [0, 5, 15, 25, 35] {
        for force in [false, true] {
            let mut pair = Pair::new();
            let id = pair.command(Side::A, initiate("lan"));
            pair.run_for(millis(moment));
            let end = pair.command(Side::A, terminate(None, force));
            assert!(matches!(
                pair.result(Side::A, id),
                Some(Err(CommandError::Failed(_)))
            ));
            assert!(matches!(pair.result(Side::A, end), Some(Ok(_))));
            pair.run_for(seconds(40));
            pair.assert_nothing_left();
            pair.finish();
        }
    }
}

#[test]
fn a_forced_end_does_not_wait_for_the_peer() {
    for side in Side::BOTH {
        let mut pair = Pair::up();
        pair.gapless = false;
        let id = pair.command(side, terminate(None, true));
        assert_eq!(pair.result(side, id).unwrap().unwrap().terminated, 1);
        pair.host(side).assert_empty("the side that wanted it");
        pair.settle();
        pair.assert_nothing_left();
    }
}

#[test]
fn sas_can_be_selected_by_their_ids() {
    let mut pair = Pair::up_with(|side, setup| setup.add_second_child(side));
    pair.gapless = false;
    pair.command(Side::A, initiate("lab"));
    pair.settle();
    let sa = pair.ike_sa(Side::A);
    let by_id = |ike_id, child_id| Command::Terminate {
        ike: None,
        child: None,
        ike_id,
        child_id,
        force: false,
    };
    let id = pair.command(Side::A, by_id(Some(sa.id + 1000), None));
    assert!(pair.failure(Side::A, id).contains("no matching"));
    pair.command(Side::A, by_id(None, Some(sa.children[0].id.0)));
    pair.settle();
    assert_eq!(pair.child(Side::A).id, sa.children[1].id);
    pair.command(Side::A, by_id(Some(sa.id), None));
    pair.settle();
    pair.assert_nothing_left();
}

#[test]
fn a_reload_of_the_same_configuration_changes_nothing() {
    let mut pair = Pair::up_with(start(StartAction::Start));
    pair.settle();
    let before = pair.net.sent();
    for side in Side::BOTH {
        let pad = pair.setup(side).pad();
        let id = pair.command(side, Command::Reload(pad));
        assert!(matches!(pair.result(side, id), Some(Ok(_))));
    }
    pair.run_for(seconds(60));
    assert_eq!(pair.net.sent(), before);
    pair.assert_tunnels(1);
    pair.finish();
}

#[test]
fn a_reload_ends_what_is_gone_from_the_configuration_and_leaves_the_rest() {
    for side in Side::BOTH {
        let mut pair = Pair::up_with(|side, setup| setup.add_second_child(side));
        pair.gapless = false;
        pair.command(Side::A, initiate("lab"));
        pair.settle();
        let kept = pair.children(side)[1].id;
        let mut changed = pair.setup(side).clone();
        changed.children.remove(0);
        pair.command(side, Command::Reload(changed.pad()));
        pair.settle();
        assert_eq!(pair.child(side).id, kept);
        pair.assert_clean(1);

        let empty = std::sync::Arc::default();
        pair.command(side, Command::Reload(empty));
        pair.settle();
        pair.assert_nothing_left();
        pair.finish();
    }
}

#[test]
fn a_reload_starts_what_is_new_and_changes_take_effect_at_the_next_rekey() {
    let mut pair = Pair::up();
    for side in Side::BOTH {
        let setup = pair.setup(side);
        setup.children[0].local_ts = selectors(&[if side == Side::A {
            "10.1.0.0/25"
        } else {
            "10.2.0.0/24"
        }]);
        setup.children[0].remote_ts = selectors(&[if side == Side::A {
            "10.2.0.0/24"
        } else {
            "10.1.0.0/25"
        }]);
        setup.add_second_child(side);
        setup.children[1].start_action = StartAction::Start;
        let pad = setup.pad();
        pair.gapless = false;
        pair.command(side, Command::Reload(pad));
    }
    pair.run_for(seconds(10));
    assert!(
        pair.children(Side::A)
            .iter()
            .any(|child| child.name == "lab")
    );
    pair.command(Side::A, rekey_child());
    pair.run_for(seconds(10));
    let children = pair.children(Side::A);
    let lan = children.iter().find(|child| child.name == "lan").unwrap();
    assert_eq!(lan.local_ts, ["10.1.0.0/25".parse().unwrap()]);
    pair.finish();
}

#[test]
fn a_shutdown_deletes_everything_and_accepts_nothing_more() {
    for side in Side::BOTH {
        let mut pair = Pair::up();
        pair.gapless = false;
        let id = pair.command(side, Command::Shutdown);
        assert_eq!(pair.result(side, id), None);
        pair.settle();
        assert!(matches!(pair.result(side, id), Some(Ok(_))));
        pair.assert_nothing_left();
        let id = pair.command(side, initiate("lan"));
        assert_eq!(pair.result(side, id), Some(Err(CommandError::ShuttingDown)));
        pair.command(side.other(), initiate("lan"));
        pair.settle();
        assert!(pair.host(side).discarded(Discard::ShuttingDown) > 0);
        assert!(pair.ike_sas(side).is_empty());
        pair.run_for(seconds(40));
        pair.assert_nothing_left();
    }
}

#[test]
fn a_shutdown_ends_also_if_the_peer_is_away() {
    for moment in [0, 15, 1000] {
        let mut pair = Pair::new();
        pair.command(Side::A, initiate("lan"));
        pair.run_for(millis(moment));
        pair.net.decide(|_| Fate::Drop);
        let id = pair.command(Side::A, Command::Shutdown);
        pair.run_for(seconds(40));
        assert!(matches!(pair.result(Side::A, id), Some(Ok(_))));
        pair.host(Side::A).assert_empty("A");
    }
}

#[test]
fn what_is_to_be_started_is_not_started_by_an_endpoint_that_ends() {
    let mut pair = Pair::with(start(StartAction::Start));
    for side in Side::BOTH {
        pair.command(side, Command::Shutdown);
    }
    pair.run_for(seconds(10));
    assert_eq!(pair.net.sent(), 0);
    pair.assert_nothing_left();
}

#[test]
fn a_refused_child_is_asked_for_again_where_the_attempts_have_no_limit() {
    let mut pair = Pair::with(|side, setup| {
        setup.connection.keyingtries = 0;
        match side {
            Side::A => start(StartAction::Start)(side, setup),
            Side::B => setup.children[0].local_ts = selectors(&["10.9.0.0/24"]),
        }
    });
    pair.run_for(seconds(5));
    for side in Side::BOTH {
        assert!(pair.ike_sa(side).children.is_empty());
    }
    let pad = Setup::new(Side::B).pad();
    pair.command(Side::B, Command::Reload(pad));
    pair.run_for(seconds(40));
    pair.assert_clean(1);
    pair.finish();
}

#[test]
fn a_gateway_that_restarts_replaces_the_sas_it_has_forgotten_at_once() {
    for side in Side::BOTH {
        let mut pair = Pair::up();
        let other = side.other();
        let old = pair.ike_sa(other).id;
        pair.restart(side);
        pair.command(side, initiate("lan"));
        pair.run_for(millis(41));
        assert_ne!(pair.ike_sa(other).id, old);
        pair.assert_clean(1);
        pair.finish();
    }
}

#[test]
fn a_gateway_learns_from_a_restarted_peer_that_its_sa_is_gone() {
    let mut pair = Pair::up_with(|_, setup| {
        setup.connection.dpd_delay = seconds(3600);
        setup.connection.keyingtries = 0;
        setup.children[0].dpd_action = lockgate::ike::DpdAction::Restart;
    });
    pair.restart(Side::B);
    pair.command(Side::A, rekey_ike());
    pair.run_for(seconds(60));
    pair.assert_clean(1);
    pair.finish();
}

#[test]
fn the_unique_policy_decides_about_a_second_ike_sa_of_the_same_peer() {
    for (policy, left) in [
        (Unique::No, 1),
        (Unique::Replace, 1),
        (Unique::Keep, 1),
        (Unique::Never, 2),
    ] {
        let mut pair = Pair::up_with(|_, setup| setup.connection.unique = policy);
        let old = pair.ike_sa(Side::B).id;
        pair.restart(Side::A);
        let id = pair.command(Side::A, initiate("lan"));
        pair.run_for(seconds(5));
        let ids: Vec<_> = pair.ike_sas(Side::B).iter().map(|sa| sa.id).collect();
        assert_eq!(ids.len(), left, "{policy:?}");
        assert_eq!(
            ids.contains(&old),
            policy == Unique::Never,
            "INITIAL_CONTACT"
        );
        assert!(matches!(pair.result(Side::A, id), Some(Ok(_))));
    }
}

#[test]
fn a_second_ike_sa_from_another_address_is_refused_where_the_first_one_is_to_be_kept() {
    for initial_contact in [false, true] {
        let mut pair = Pair::up_with(|side, setup| {
            setup.connection.remote_addrs = vec![AddressPattern::Any];
            setup.connection.unique = match side {
                Side::A if initial_contact => Unique::No,
                Side::A => Unique::Never,
                Side::B => Unique::Keep,
            };
            if side == Side::A {
                setup.connection.remote_addrs = vec![AddressPattern::Net(Side::B.addr().into())];
            }
        });
        let old = pair.ike_sa(Side::B).id;
        pair.net.nat = Some(Nat {
            outside: [198, 51, 100, 1].into(),
            shift: 0,
        });
        pair.restart(Side::A);
        let id = pair.command(Side::A, initiate("lan"));
        pair.run_for(seconds(5));
        let accepted = matches!(pair.result(Side::A, id), Some(Ok(_)));
        assert_eq!(accepted, initial_contact);
        assert_eq!(pair.ike_sa(Side::B).id == old, !initial_contact);
    }
}

#[test]
fn a_new_authentication_comes_before_the_end_of_the_old_one() {
    for side in Side::BOTH {
        let mut pair = Pair::up();
        pair.gapless = false;
        pair.start_traffic(millis(1));
        let old = pair.ike_sa(side).id;
        pair.command(side, rekey(None, true));
        pair.run_for(seconds(1));
        pair.stop_traffic();
        assert_ne!(pair.ike_sa(side).id, old);
        assert_eq!(pair.lost_packets, 0, "{side:?}");
        pair.run_for(seconds(6));
        pair.assert_clean(1);
        pair.finish();
    }
}

#[test]
fn an_ike_sa_is_authenticated_anew_when_its_time_has_come() {
    let mut pair = Pair::up_with(|_, setup| {
        setup.connection.reauth_time = seconds(100);
        setup.connection.rekey_time = seconds(30);
        setup.connection.over_time = seconds(50);
    });
    pair.gapless = false;
    pair.run_for(seconds(250));
    let ups = |event: &&Event| matches!(event, Event::IkeUp { .. });
    let count = pair.host(Side::A).events.iter().filter(ups).count();
    assert_eq!(count, 3, "one set-up and two new authentications");
    pair.run_for(seconds(10));
    pair.assert_tunnels(1);
    pair.finish();
}

#[test]
fn a_rekey_that_is_wanted_twice_is_done_once() {
    let mut pair = Pair::up();
    let before = pair.net.sent();
    for command in [rekey_child, rekey_ike] {
        pair.command(Side::A, command());
        pair.command(Side::A, command());
    }
    pair.settle();
    let sent = pair.net.from(Side::A, before);
    let creates = sent
        .iter()
        .filter(|sent| sent.is(ExchangeType::CREATE_CHILD_SA, false));
    assert_eq!(creates.count(), 2);
    assert_eq!(pair.ike_sa(Side::A).state, IkeState::Established);
    pair.run_for(seconds(6));
    pair.assert_clean(1);
    pair.finish();
}

#[test]
fn a_child_that_is_deleted_during_its_rekey_stays_deleted() {
    for moment in [0, 5, 15, 25, 35] {
        for side in Side::BOTH {
            let mut pair = Pair::up();
            pair.gapless = false;
            pair.command(Side::A, rekey_child());
            pair.run_for(millis(moment));
            pair.command(side, terminate_child());
            pair.run_for(seconds(60));
            pair.assert_clean(0);
            pair.finish();
        }
    }
}
