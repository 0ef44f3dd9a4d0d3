//! A configuration that changes while something is under way.

use std::sync::Arc;

use lockgate::ike::{AddressPattern, Command, Pad, StartAction};
use lockgate::ipsec::Reqid;

use super::config::{Side, selectors};
use super::network::Fate;
use super::pair::{Pair, initiate, millis, seconds};

/// A configuration of its own, to be changed.
fn pad_of(pair: &mut Pair, side: Side) -> Pad {
    let pad = pair.setup(side).pad();
    Arc::into_inner(pad).expect("nobody else has it yet")
}

#[test]
fn a_command_whose_connection_a_reload_removes_is_told_so() {
    let mut pair = Pair::with(|_, setup| setup.connection.keyingtries = 0);
    pair.net.decide(|_| Fate::Drop);
    let id = pair.command(Side::A, initiate("lan"));
    // The first attempt is over and the next one has not begun.
    while !pair.ike_sas(Side::A).is_empty() {
        pair.run_for(millis(100));
    }
    assert_eq!(pair.result(Side::A, id), None);
    pair.command(Side::A, Command::Reload(Arc::default()));
    pair.failure(Side::A, id);
    pair.finish();
}

#[test]
fn a_reload_reaches_an_attempt_that_is_tried_again() {
    let mut pair = Pair::with(|side, setup| {
        if side == Side::A {
            let elsewhere = "192.0.2.77/32".parse().expect("a prefix");
            setup.connection.remote_addrs = vec![AddressPattern::Net(elsewhere)];
            setup.connection.keyingtries = 0;
            setup.children[0].start_action = StartAction::Start;
        }
    });
    pair.run_for(seconds(40));
    assert!(pair.net.sent() > 0 && pair.children(Side::A).is_empty());
    let setup = pair.setup(Side::A);
    setup.connection.remote_addrs = vec![AddressPattern::Net(Side::B.addr().into())];
    let pad = setup.pad();
    pair.command(Side::A, Command::Reload(pad));
    pair.run_for(seconds(40)); // an attempt that is under way to the old address may end first
    pair.assert_clean(1);
    pair.finish();
}

#[test]
fn a_connection_that_a_reload_removed_authenticates_nobody() {
    let mut pair = Pair::new();
    pair.command(Side::A, initiate("lan"));
    pair.run_for(millis(15));
    assert_eq!(pair.host(Side::B).endpoint.half_open(), 1);
    let mut without = pad_of(&mut pair, Side::B);
    without.connections.clear();
    pair.command(Side::B, Command::Reload(Arc::new(without)));
    pair.run_for(seconds(60));
    pair.assert_nothing_left();
    pair.finish();
}

#[test]
fn a_child_that_a_reload_removes_while_it_is_made_does_not_stay() {
    let mut pair = Pair::new();
    pair.command(Side::A, initiate("lan"));
    let mut without = pair.setup(Side::A).clone();
    without.children.clear();
    pair.command(Side::A, Command::Reload(without.pad()));
    pair.settle();
    for side in Side::BOTH {
        assert!(pair.children(side).is_empty(), "{side:?}");
    }
    pair.finish();
}

#[test]
fn a_responder_finds_the_connection_whose_child_is_meant() {
    let mut pair = Pair::new();
    let mut other = pair.setup(Side::B).clone();
    other.connection.name = "another".into();
    other.children[0].remote_ts = selectors(&["10.77.0.0/24"]);
    other.children[0].reqid = Reqid(2);
    let mut both = pad_of(&mut pair, Side::B);
    both.connections
        .insert(0, Arc::clone(&other.pad().connections[0]));
    pair.command(Side::B, Command::Reload(Arc::new(both)));
    pair.command(Side::A, initiate("lan"));
    pair.settle();
    pair.assert_clean(1);
    pair.finish();
}

#[test]
fn a_secret_shared_with_one_peer_proves_no_other_name() {
    let mut pair = Pair::with(|side, setup| match side {
        Side::A => {
            setup.connection.local.id = Some("gw-evil.example".parse().expect("an identity"))
        }
        Side::B => setup.connection.remote.id = lockgate::ike::IdentityPattern::Any,
    });
    let mut pad = pad_of(&mut pair, Side::B);
    pad.secrets[0].ids = Side::BOTH
        .map(|side| side.identity().parse().expect("a pattern"))
        .to_vec();
    pair.command(Side::B, Command::Reload(Arc::new(pad)));
    pair.command(Side::A, initiate("lan"));
    pair.run_for(seconds(60));
    pair.assert_nothing_left();
    pair.finish();
}
