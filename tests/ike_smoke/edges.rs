//! What comes between two steps: reloads, forged answers, deletes that overtake a rekey.

use std::sync::Arc;
use std::time::Duration;

use lockgate::ike::{
    AddressPattern, ChildConfig, Command, CommandId, Connection, Event, Input, Pad, SelectorConfig,
    StartAction,
};
use lockgate::wire::isakmp::{ExchangeType, Header};

use super::pair::{Pair, initiate, pad, rekey, terminate};

fn send(pair: &mut Pair, side: usize, id: u64, command: Command) {
    let id = CommandId(id);
    let input = Input::Command { id, command };
    pair.peers[side].endpoint.handle(pair.now, input);
}

fn is_done(pair: &Pair, side: usize, wanted: u64) -> bool {
    let mut events = pair.peers[side].events.iter();
    events.any(|event| matches!(event, Event::CommandDone { id, .. } if id.0 == wanted))
}

/// Lets time pass for one side while nothing reaches anybody.
fn pass_alone(pair: &mut Pair, side: usize, time: Duration) {
    let end = pair.now + time;
    while let Some(next) = pair.peers[side].endpoint.next_timeout() {
        if next > end {
            break;
        }
        pair.now = pair.now.max(next);
        pair.peers[side].endpoint.handle(pair.now, Input::Timer);
        pair.take_wire();
    }
    pair.now = end;
}

#[test]
fn a_command_whose_connection_a_reload_removes_is_told_so() {
    let mut pair = Pair::new(|_, connection, _| connection.keyingtries = 0);
    pair.settle();
    send(&mut pair, 0, 1, initiate());
    pair.take_wire();
    // The first attempt is over and the next one has not begun.
    while pair.ike_sas()[0] > 0 {
        pass_alone(&mut pair, 0, Duration::from_millis(100));
    }
    assert!(!is_done(&pair, 0, 1));
    send(&mut pair, 0, 2, Command::Reload(Arc::new(Pad::default())));
    pair.take_wire();
    assert!(is_done(&pair, 0, 1));
}

#[test]
fn a_reload_reaches_an_attempt_that_is_tried_again() {
    let start = |connection: &mut Connection, child: &mut ChildConfig| {
        connection.keyingtries = 0;
        child.start_action = StartAction::Start;
    };
    let elsewhere = "192.0.2.77/32".parse().expect("a prefix");
    let mut pair = Pair::new(|side, connection, child| {
        start(connection, child);
        if side == 0 {
            connection.remote_addrs = vec![AddressPattern::Net(elsewhere)];
        } else {
            child.start_action = StartAction::None;
        }
    });
    pair.collect();
    for _ in 0..400 {
        pass_alone(&mut pair, 0, Duration::from_millis(100));
    }
    send(&mut pair, 0, 2, Command::Reload(pad(0, start)));
    // An attempt that is under way to the old address may end first.
    for _ in 0..400 {
        pass_alone_to_old(&mut pair);
    }
    assert_eq!(pair.children(), [1, 1]);
}

/// Delivers what goes to one of the two, and loses the rest.
fn pass_alone_to_old(pair: &mut Pair) {
    pair.collect();
    pair.wire
        .retain(|(_, path, _)| path.local.ip().to_string() != "192.0.2.77");
    pair.settle();
    let end = pair.now + Duration::from_millis(100);
    for peer in &mut pair.peers {
        if peer.endpoint.next_timeout().is_some_and(|at| at <= end) {
            peer.endpoint.handle(end, Input::Timer);
        }
    }
    pair.now = end;
    pair.collect();
    pair.wire
        .retain(|(_, path, _)| path.local.ip().to_string() != "192.0.2.77");
    pair.settle();
}

#[test]
fn a_connection_that_a_reload_removed_authenticates_nobody() {
    let mut pair = Pair::new(|_, _, _| {});
    pair.settle();
    send(&mut pair, 0, 1, initiate());
    let init = pair.take_wire();
    pair.inject(1, "192.0.2.1:500", &init[0].2);
    assert_eq!(pair.peers[1].endpoint.half_open(), 1);
    let secrets = pad(1, |_, _| {}).secrets.iter().map(clone_secret).collect();
    let connections = Vec::new();
    let without = Pad {
        connections,
        secrets,
    };
    let command = Command::Reload(Arc::new(without));
    let id = CommandId(2);
    pair.peers[1]
        .endpoint
        .handle(pair.now, Input::Command { id, command });
    pair.settle();
    pair.pass(Duration::from_secs(60));
    assert_eq!(pair.ike_sas(), [0, 0]);
    assert_eq!(pair.children(), [0, 0]);
}

fn clone_secret(secret: &lockgate::ike::SharedSecret) -> lockgate::ike::SharedSecret {
    lockgate::ike::SharedSecret {
        name: secret.name.clone(),
        ids: secret.ids.clone(),
        secret: lockgate::crypto::Secret::from(secret.secret.as_bytes().to_vec()),
    }
}

#[test]
fn a_child_that_a_reload_removes_while_it_is_made_does_not_stay() {
    let mut pair = Pair::new(|_, _, _| {});
    pair.settle();
    send(&mut pair, 0, 1, initiate());
    let init = pair.take_wire();
    let mut connection = Connection::clone(&pad(0, |_, _| {}).connections[0]);
    connection.children.clear();
    let secrets = pad(0, |_, _| {}).secrets.iter().map(clone_secret).collect();
    let without = Pad {
        connections: vec![Arc::new(connection)],
        secrets,
    };
    send(&mut pair, 0, 2, Command::Reload(Arc::new(without)));
    pair.wire.extend(init);
    pair.settle();
    assert_eq!(pair.children(), [0, 0]);
}

#[test]
fn an_answer_with_an_invalid_public_value_does_not_end_the_wait() {
    let mut pair = Pair::new(|_, _, _| {});
    pair.settle();
    send(&mut pair, 0, 1, initiate());
    let request = pair.take_wire();
    pair.inject(1, "192.0.2.1:500", &request[0].2);
    let answer = pair.take_wire();
    let genuine = &answer[0].2;
    // X25519 with a value of small order gives zero (RFC 7748 §6.1).
    let mut forged = genuine.clone();
    let ke = forged
        .windows(8)
        .position(|bytes| bytes[2..] == [0, 40, 0, 31, 0, 0])
        .expect("a KE payload");
    forged[ke + 8..ke + 40].fill(0);
    pair.inject(0, "192.0.2.2:500", &forged);
    assert!(!is_done(&pair, 0, 1));
    pair.inject(0, "192.0.2.2:500", genuine);
    pair.settle();
    assert_eq!(pair.children(), [1, 1]);
}

#[test]
fn an_heir_that_is_deleted_takes_no_child_with_it_unseen() {
    let mut pair = Pair::up();
    send(&mut pair, 0, 1, rekey(false));
    pair.take_wire(); // ours is lost
    send(&mut pair, 1, 2, rekey(false));
    let request = pair.take_wire();
    pair.inject(0, "192.0.2.2:4500", &request[0].2);
    let answer = pair.take_wire();
    pair.inject(1, "192.0.2.1:4500", &answer[0].2);
    pair.take_wire(); // so is the DELETE of the old one
    send(&mut pair, 1, 3, terminate(false));
    for (to, path, bytes) in pair.take_wire() {
        let header = Header::parse(&bytes).expect("a header").0;
        // Only the new SA starts again with message 0.
        if to == 0 && header.exchange == ExchangeType::INFORMATIONAL && header.message_id == 0 {
            pair.inject(0, &path.remote.to_string(), &bytes);
        }
    }
    pair.take_wire();
    pass_alone(&mut pair, 0, Duration::from_secs(120));
    assert_eq!(pair.ike_sas()[0], 0);
    let updates = pair.take_updates(0);
    assert!(updates.contains(&"remove-in"), "{updates:?}");
    assert!(updates.contains(&"remove-out"), "{updates:?}");
    let down = |event: &Event| matches!(event, Event::ChildDown { .. });
    assert!(pair.peers[0].events.iter().any(down));
}

#[test]
fn what_is_to_be_started_is_not_started_by_an_endpoint_that_ends() {
    let mut pair = Pair::new(|_, _, child| child.start_action = StartAction::Start);
    send(&mut pair, 0, 1, Command::Shutdown);
    pair.peers[0].endpoint.handle(pair.now, Input::Timer);
    assert!(pair.take_wire().is_empty());
    assert_eq!(pair.ike_sas()[0], 0);
}

#[test]
fn nothing_is_sent_through_a_child_after_its_lifetime() {
    let mut pair = Pair::new(|_, _, child| {
        child.rekey_time = Duration::ZERO;
        child.life_time = Duration::from_secs(10);
    });
    pair.settle();
    pair.command(0, initiate());
    pair.take_updates(0);
    // The DELETE is never answered.
    pass_alone(&mut pair, 0, Duration::from_secs(11));
    assert_eq!(pair.take_updates(0), ["remove-out"]);
}

#[test]
fn a_refused_child_is_asked_for_again_where_the_attempts_have_no_limit() {
    let other = SelectorConfig::Fixed("10.9.0.0/24".parse().expect("a selector"));
    let mut pair = Pair::new(|side, connection, child| {
        connection.keyingtries = 0;
        if side == 0 {
            child.start_action = StartAction::Start;
        } else {
            child.local_ts = vec![other];
        }
    });
    pair.pass(Duration::from_secs(5));
    assert_eq!((pair.ike_sas(), pair.children()), ([1, 1], [0, 0]));
    let command = Command::Reload(pad(1, |_, _| {}));
    pair.command(1, command);
    pair.pass(Duration::from_secs(40));
    assert_eq!(pair.children(), [1, 1]);
}

#[test]
fn a_responder_finds_the_connection_whose_child_is_meant() {
    let mut pair = Pair::new(|_, _, _| {});
    pair.settle();
    let mut other = Connection::clone(&pad(1, |_, _| {}).connections[0]);
    other.name = "another".into();
    let mut child = ChildConfig::clone(&other.children[0]);
    child.remote_ts = vec![SelectorConfig::Fixed(
        "10.77.0.0/24".parse().expect("a selector"),
    )];
    child.reqid = lockgate::ipsec::Reqid(2);
    other.children = vec![Arc::new(child)];
    let configured = pad(1, |_, _| {});
    let both = Pad {
        connections: vec![Arc::new(other), Arc::clone(&configured.connections[0])],
        secrets: configured.secrets.iter().map(clone_secret).collect(),
    };
    pair.command(1, Command::Reload(Arc::new(both)));
    pair.command(0, initiate());
    assert_eq!(pair.children(), [1, 1]);
}

#[test]
fn a_peer_that_is_sent_to_and_says_nothing_is_found_dead_soon() {
    let mut pair = Pair::new(|_, connection, _| connection.dpd_delay = Duration::from_secs(60));
    pair.settle();
    pair.command(0, initiate());
    pair.pass(Duration::from_secs(20));
    assert!(pair.take_wire().is_empty());
    let sa = pair.peers[0].outbound.last_mut().expect("an SA");
    let mut packet = [0; 20];
    packet[0] = 0x45;
    packet[3] = 20;
    packet[12..16].copy_from_slice(&[10, 1, 0, 1]);
    packet[16..20].copy_from_slice(&[10, 2, 0, 1]);
    sa.seal(&[&packet], &mut [0; 200]).expect("it is sealed");
    pass_alone(&mut pair, 0, Duration::from_secs(28));
    assert_eq!(pair.ike_sas()[0], 0, "long before dpd_delay is over");
}

#[test]
fn a_wide_policy_is_narrowed_without_loss() {
    let many = |side: u8| {
        let nets = (0..200).map(move |n| format!("10.{side}.{n}.0/24"));
        let nets = nets.map(|net| SelectorConfig::Fixed(net.parse().expect("a selector")));
        nets.collect::<Vec<_>>()
    };
    let mut pair = Pair::new(|side, _, child| {
        let sides = [(1, 2), (2, 1)];
        child.local_ts = many(sides[side].0);
        child.remote_ts = many(sides[side].1);
    });
    pair.settle();
    pair.command(0, initiate());
    for side in [0, 1] {
        let sa = pair.peers[side].endpoint.ike_sas().next().expect("an SA");
        assert_eq!(sa.children[0].local_ts.len(), 200);
    }
}

#[test]
fn a_secret_shared_with_one_peer_proves_no_other_name() {
    let mut pair = Pair::new(|side, connection, _| {
        if side == 0 {
            connection.local.id = Some("gw-evil.example".parse().expect("an identity"));
        } else {
            connection.remote.id = lockgate::ike::IdentityPattern::Any;
        }
    });
    pair.settle();
    let configured = pad(1, |connection, _| {
        connection.remote.id = lockgate::ike::IdentityPattern::Any;
    });
    let mut secret = clone_secret(&configured.secrets[0]);
    secret.ids = ["gw-0.example", "gw-1.example"]
        .map(|id| id.parse().expect("a pattern"))
        .to_vec();
    let reloaded = Pad {
        connections: configured.connections.clone(),
        secrets: vec![secret],
    };
    pair.command(1, Command::Reload(Arc::new(reloaded)));
    pair.command(0, initiate());
    assert_eq!(pair.ike_sas(), [0, 0]);
}
