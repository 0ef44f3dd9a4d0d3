//! SAs grow old: rekeys, ends, and checks that the peer lives.

use lockgate::ike::{CloseAction, DpdAction, Event, StartAction};
use lockgate::wire::isakmp::ExchangeType;

use super::config::{Setup, Side, ike_proposals};
use super::network::Fate;
use super::pair::{Pair, initiate, millis, seconds};
use super::plane::Change;

/// Changes the configuration of gateway A only.
fn on_a(change: impl Fn(&mut Setup)) -> impl Fn(Side, &mut Setup) {
    move |side, setup| {
        if side == Side::A {
            change(setup);
        }
    }
}

fn rekeys(pair: &mut Pair, side: Side) -> (usize, usize) {
    let count = |test: fn(&&Event) -> bool, events: &[Event]| events.iter().filter(test).count();
    let events = &pair.host(side).events;
    (
        count(|event| matches!(event, Event::ChildRekeyed { .. }), events),
        count(|event| matches!(event, Event::IkeRekeyed { .. }), events),
    )
}

#[test]
fn sas_are_rekeyed_before_their_time_at_a_random_moment() {
    let mut moments = Vec::new();
    for seed in 0..12 {
        let mut pair = Pair::up_seeded(
            seed,
            on_a(|setup| {
                setup.children[0].rekey_time = seconds(100);
                setup.children[0].rand_time = seconds(20);
                setup.connection.rekey_time = seconds(200);
                setup.connection.rand_time = seconds(40);
            }),
        );
        pair.run_for(millis(79_900));
        assert_eq!(rekeys(&mut pair, Side::A), (0, 0));
        let planned = pair.child(Side::A).rekey_at.unwrap();
        pair.run_for(seconds(21));
        assert_eq!(rekeys(&mut pair, Side::A), (1, 0));
        assert_eq!(rekeys(&mut pair, Side::B), (1, 0));
        moments.push(planned - pair.start);
        pair.run_for(seconds(58));
        assert_eq!(rekeys(&mut pair, Side::A).1, 0);
        pair.run_for(seconds(42));
        assert_eq!(rekeys(&mut pair, Side::A).1, 1);
        pair.run_for(seconds(5));
        pair.assert_tunnels(1);
        pair.finish();
    }
    moments.sort();
    moments.dedup();
    assert_eq!(moments.len(), 12);
}

#[test]
fn a_child_that_cannot_be_rekeyed_ends_with_its_lifetime_on_both_sides() {
    for action in [StartAction::None, StartAction::Start] {
        let mut pair = Pair::up_with(on_a(|setup| {
            setup.children[0].life_time = seconds(100);
            setup.children[0].start_action = action;
        }));
        let old = pair.child(Side::A).id;
        pair.run_for(seconds(99));
        assert_eq!(pair.child(Side::A).id, old);
        pair.gapless = false;
        pair.run_for(seconds(10));
        let starts = action == StartAction::Start;
        pair.assert_clean(usize::from(starts));
        pair.finish();
    }
}

#[test]
fn nothing_is_sent_through_a_child_after_its_lifetime() {
    let mut pair = Pair::up_with(on_a(|setup| setup.children[0].life_time = seconds(10)));
    pair.gapless = false;
    pair.net.decide(|_| Fate::Drop); // the DELETE is never answered
    pair.run_for(seconds(11));
    let history = pair.host(Side::A).plane.take_history();
    assert_eq!(history, [Change::RemoveOutbound]);
}

#[test]
fn an_ike_sa_that_cannot_be_rekeyed_ends_after_its_overtime() {
    let mut pair = Pair::up_with(on_a(|setup| {
        setup.connection.rekey_time = seconds(100);
        setup.connection.over_time = seconds(200);
    }));
    pair.gapless = false;
    let mut changed = pair.setup(Side::B).clone();
    changed.connection.proposals = ike_proposals(&["aes128-sha256-ecp256"]);
    let now = pair.now;
    pair.host(Side::B).reload(now, changed.pad());
    pair.collect();
    pair.run_for(seconds(299));
    assert_eq!(rekeys(&mut pair, Side::A).1, 0);
    pair.assert_tunnels(1);
    pair.run_for(seconds(3));
    pair.assert_nothing_left();
    pair.finish();
}

#[test]
fn packets_and_bytes_rekey_a_child_without_loss() {
    let by_packets = |setup: &mut Setup| setup.children[0].rekey_packets = 100;
    let by_bytes = |setup: &mut Setup| setup.children[0].rekey_bytes = 4400;
    for limit in [by_packets as fn(&mut Setup), by_bytes] {
        for limited in Side::BOTH {
            let mut pair = Pair::up_with(|side, setup| {
                if side == limited {
                    limit(setup);
                }
            });
            pair.start_traffic(millis(50));
            pair.run_for(seconds(60));
            pair.stop_traffic();
            let (children, ikes) = rekeys(&mut pair, limited);
            assert!(
                (10..=12).contains(&children),
                "{children} rekeys for 1200 packets"
            );
            assert_eq!(ikes, 0);
            assert_eq!(pair.lost_packets, 0);
            pair.run_for(seconds(6));
            pair.assert_clean(1);
            pair.finish();
        }
    }
}

#[test]
fn a_hard_limit_of_packets_or_bytes_ends_a_child() {
    let by_packets = |setup: &mut Setup| setup.children[0].life_packets = 100;
    let by_bytes = |setup: &mut Setup| setup.children[0].life_bytes = 4400;
    for limit in [by_packets as fn(&mut Setup), by_bytes] {
        let mut pair = Pair::up_with(on_a(limit));
        pair.gapless = false;
        pair.start_traffic(millis(50));
        pair.run_for(seconds(10));
        pair.stop_traffic();
        pair.assert_clean(0);
        assert!(pair.host(Side::A).logged("lifetime is over"));
        pair.finish();
    }
}

/// INFORMATIONAL requests of one side since a moment.
fn probes(pair: &Pair, side: Side, since: usize) -> usize {
    let sent = pair.net.from(side, since);
    let probes = sent
        .iter()
        .filter(|sent| sent.is(ExchangeType::INFORMATIONAL, false));
    probes.count()
}

#[test]
fn a_peer_that_sends_is_not_asked_whether_it_lives() {
    let mut pair = Pair::up_with(on_a(|setup| setup.connection.dpd_delay = seconds(30)));
    let since = pair.net.sent();
    pair.start_traffic(seconds(10));
    pair.run_for(seconds(600));
    pair.stop_traffic();
    assert_eq!(probes(&pair, Side::A, since), 0);
    pair.finish();
}

#[test]
fn an_idle_peer_is_asked_once_per_interval() {
    let mut pair = Pair::up_with(on_a(|setup| setup.connection.dpd_delay = seconds(30)));
    let since = pair.net.sent();
    pair.run_for(seconds(600));
    let count = probes(&pair, Side::A, since);
    assert!((13..=20).contains(&count), "{count} probes in ten minutes");
    assert_eq!(probes(&pair, Side::B, since), 0);
    pair.assert_clean(1);
    pair.finish();
}

#[test]
fn a_peer_that_only_receives_is_asked() {
    let mut pair = Pair::up_with(on_a(|setup| setup.connection.dpd_delay = seconds(30)));
    let since = pair.net.sent();
    for _ in 0..60 {
        pair.send_packet(Side::A);
        pair.run_for(seconds(1));
    }
    assert!(probes(&pair, Side::A, since) >= 1);
    pair.finish();
}

#[test]
fn a_peer_that_is_sent_to_and_says_nothing_is_found_dead_soon() {
    let mut pair = Pair::up_with(on_a(|setup| setup.connection.dpd_delay = seconds(60)));
    pair.gapless = false;
    pair.run_for(seconds(20));
    pair.net.decide(|_| Fate::Drop);
    pair.send_packet(Side::A);
    pair.run_for(seconds(28));
    pair.host(Side::A)
        .assert_empty("long before the delay is over");
}

#[test]
fn a_dead_peer_is_noticed_in_time_and_its_children_do_as_configured() {
    for action in [DpdAction::Clear, DpdAction::Trap, DpdAction::Restart] {
        let mut pair = Pair::up_with(on_a(|setup| {
            setup.connection.dpd_delay = seconds(10);
            setup.connection.keyingtries = 0;
            setup.children[0].dpd_action = action;
        }));
        pair.gapless = false;
        pair.run_for(seconds(3));
        pair.net.decide(|_| Fate::Drop);
        let before = pair.net.sent();
        pair.run_for(seconds(24));
        assert!(pair.children(Side::A).is_empty(), "{action:?}: not noticed");
        assert_eq!(probes(&pair, Side::A, before), 4);
        assert!(pair.host(Side::A).logged("the peer does not answer"));
        pair.net.heal();
        pair.run_for(seconds(60));
        match action {
            DpdAction::Restart => pair.assert_clean(1),
            DpdAction::Clear | DpdAction::Trap => pair.host(Side::A).assert_empty("A"),
        }
        pair.restart(Side::B);
        pair.run_for(seconds(60));
        pair.finish();
    }
}

#[test]
fn a_child_that_the_peer_deletes_does_as_configured() {
    for action in [CloseAction::None, CloseAction::Trap, CloseAction::Start] {
        let mut pair = Pair::up_with(on_a(|setup| setup.children[0].close_action = action));
        pair.gapless = false;
        let starts = usize::from(action == CloseAction::Start);
        pair.command(Side::B, super::pair::terminate_child());
        pair.run_for(seconds(3));
        pair.assert_clean(starts);
        pair.command(Side::B, super::pair::terminate_ike());
        pair.run_for(seconds(10));
        if starts == 1 {
            pair.assert_clean(1);
        } else {
            pair.assert_nothing_left();
        }
        // What we delete ourselves stays deleted.
        pair.command(Side::A, initiate("lan"));
        pair.settle();
        pair.command(Side::A, super::pair::terminate_child());
        pair.run_for(seconds(10));
        pair.assert_clean(0);
        pair.finish();
    }
}
