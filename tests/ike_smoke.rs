//! Two endpoints back to back: the straight path of each exchange, and a wire that loses, repeats
//! and reorders.

#![allow(
    clippy::indexing_slicing,
    reason = "a test that indexes wrongly has failed"
)]

#[path = "ike_smoke/chaos.rs"]
mod chaos;
#[path = "ike_smoke/edges.rs"]
mod edges;
#[path = "ike_smoke/pair.rs"]
mod pair;

use std::sync::Arc;
use std::time::Duration;

use lockgate::crypto::Secret;
use lockgate::ike::{
    AddressPattern, Command, CommandId, Connection, DpdAction, Event, Input, Pad, SharedSecret,
    StartAction,
};
use lockgate::ipsec::{Reqid, SaEvent};
use lockgate::wire::ip::Flow;
use lockgate::wire::keyword::parse_proposal;
use lockgate::wire::proposal::{KeyExchangeId, ProtocolId};

use pair::{Pair, initiate, pad, rekey, terminate};

#[test]
fn one_child_is_set_up_by_one_command() {
    let mut pair = Pair::new(|_, _, _| {});
    pair.settle();
    pair.command(0, initiate());
    assert_eq!(pair.children(), [1, 1]);
    assert_eq!(pair.take_updates(0), ["policies", "add-in", "switch-out"]);
    assert_eq!(pair.take_updates(1), ["policies", "add-in", "switch-out"]);
    let done = |event: &Event| matches!(event, Event::CommandDone { result: Ok(_), .. });
    assert!(pair.peers[0].events.iter().any(done));
    let sa = pair.peers[0].endpoint.ike_sas().next().expect("one SA");
    assert_eq!(sa.remote.port(), 4500);
    assert!(sa.children[0].suite.esn);
}

#[test]
fn a_child_is_rekeyed_without_a_gap() {
    for side in [0, 1] {
        let mut pair = Pair::up();
        pair.command(side, rekey(true));
        assert_eq!(pair.children(), [1, 1]);
        assert_eq!(
            pair.take_updates(side),
            ["add-in", "switch-out", "remove-out"]
        );
        assert_eq!(
            pair.take_updates(1 - side),
            ["add-in", "switch-out", "remove-out"]
        );
        pair.pass(Duration::from_secs(6));
        assert_eq!(pair.take_updates(side), ["remove-in"]);
        assert_eq!(pair.take_updates(1 - side), ["remove-in"]);
    }
}

#[test]
fn an_ike_sa_is_rekeyed_and_keeps_its_children() {
    for side in [0, 1] {
        let mut pair = Pair::up();
        pair.command(side, rekey(false));
        assert_eq!(pair.children(), [1, 1]);
        assert_eq!(pair.ike_sas(), [1, 1]);
        pair.command(1 - side, rekey(true));
        pair.command(side, rekey(false));
        pair.command(1 - side, rekey(false));
        assert_eq!(pair.children(), [1, 1]);
        assert_eq!(pair.ike_sas(), [1, 1]);
    }
}

#[test]
fn deletes_reach_the_other_side() {
    for side in [0, 1] {
        let mut pair = Pair::up();
        pair.command(side, terminate(true));
        assert_eq!(pair.children(), [0, 0]);
        assert_eq!(pair.ike_sas(), [1, 1]);
        assert_eq!(pair.take_updates(0), ["remove-out", "remove-in"]);
        pair.command(side, initiate());
        assert_eq!(pair.children(), [1, 1]);
        pair.command(side, terminate(false));
        assert_eq!(pair.ike_sas(), [0, 0]);
        pair.pass(Duration::from_secs(60));
        assert_eq!(pair.peers[0].endpoint.next_timeout(), None);
    }
}

#[test]
fn simultaneous_rekeys_leave_one_child_and_one_ike_sa() {
    for child in [true, false] {
        for seed in 0..8 {
            let mut pair = Pair::up();
            // Another number of random bytes drawn gives other nonces.
            for _ in 0..seed {
                pair.command(seed % 2, rekey(true));
            }
            pair.pass(Duration::from_secs(10));
            for side in [0, 1] {
                let id = CommandId(9);
                let command = rekey(child);
                let input = Input::Command { id, command };
                pair.peers[side].endpoint.handle(pair.now, input);
            }
            pair.settle();
            assert_eq!(pair.children(), [1, 1], "child {child} seed {seed}");
            assert_eq!(pair.ike_sas(), [1, 1], "child {child} seed {seed}");
            pair.pass(Duration::from_secs(100));
            assert_eq!(pair.children(), [1, 1], "child {child} seed {seed}");
        }
    }
}

#[test]
fn a_day_passes_with_rekeys_and_one_child() {
    let mut pair = Pair::up();
    pair.pass(Duration::from_secs(86400));
    assert_eq!(pair.children(), [1, 1]);
    assert_eq!(pair.ike_sas(), [1, 1]);
}

#[test]
fn a_dead_peer_is_noticed_and_its_children_restart() {
    let mut pair = Pair::new(|_, connection, child| {
        child.dpd_action = DpdAction::Restart;
        connection.keyingtries = 0;
    });
    pair.settle();
    pair.command(0, initiate());
    assert_eq!(pair.children(), [1, 1]);
    let fresh = Pair::new(|_, _, _| {});
    let [_, restarted] = fresh.peers;
    pair.peers[1] = restarted;
    pair.settle();
    pair.pass(Duration::from_secs(60));
    assert_eq!(pair.children(), [1, 1]);
    assert_eq!(pair.ike_sas(), [1, 1]);
}

#[test]
fn an_unwanted_group_is_exchanged_for_a_wanted_one() {
    let ike = |text| parse_proposal(ProtocolId::Ike, text).expect("a proposal");
    let mut pair = Pair::new(|side, connection, _| {
        connection.proposals = if side == 0 {
            vec![ike("aes256gcm16-prfsha384-x25519-ecp256")]
        } else {
            vec![ike("aes256gcm16-prfsha384-ecp256")]
        };
    });
    pair.settle();
    pair.command(0, initiate());
    assert_eq!(pair.children(), [1, 1]);
    pair.command(1, rekey(false));
    assert_eq!(pair.ike_sas(), [1, 1]);
}

#[test]
fn a_child_that_wants_another_group_than_was_sent_gets_it() {
    let esp = |text| parse_proposal(ProtocolId::Esp, text).expect("a proposal");
    for side in [0, 1] {
        let mut pair = Pair::new(|side, _, child| {
            let text = [
                "aes256gcm16-x25519-ecp256-noesn",
                "aes256gcm16-ecp256-noesn",
            ][side];
            child.esp_proposals = vec![esp(text)];
        });
        pair.settle();
        pair.command(0, initiate());
        pair.command(side, rekey(true));
        assert_eq!(pair.children(), [1, 1]);
        let sa = pair.peers[1].endpoint.ike_sas().next().expect("one SA");
        assert_eq!(
            sa.children[0].suite.key_exchange,
            Some(KeyExchangeId::ECP256)
        );
    }
}

#[test]
fn without_nat_and_force_esp_is_raw() {
    let mut pair = Pair::new(|_, connection, _| connection.encap = false);
    pair.settle();
    pair.command(0, initiate());
    let sa = pair.peers[1].endpoint.ike_sas().next().expect("one SA");
    assert_eq!(sa.remote.port(), 500);
    assert_eq!(sa.children[0].encap, lockgate::ipsec::EspEncap::None);
}

#[test]
fn a_forged_refusal_does_not_end_the_wait() {
    let mut pair = Pair::new(|_, _, _| {});
    pair.settle();
    let input = Input::Command {
        id: CommandId(1),
        command: initiate(),
    };
    pair.peers[0].endpoint.handle(pair.now, input);
    let sent = pair.take_wire();
    let (_, _, request) = &sent[0];
    // The header of the request as a response, with one NO_PROPOSAL_CHOSEN notification.
    let mut forged = request[..28].to_vec();
    forged[16] = 41;
    forged[19] = 0x20;
    forged[24..28].copy_from_slice(&36u32.to_be_bytes());
    forged.extend_from_slice(&[0, 0, 0, 8, 0, 0, 0, 14]);
    pair.inject(0, "192.0.2.2:500", &forged);
    assert_eq!(pair.failed_command(0), None);
    pair.wire.extend(sent);
    pair.settle();
    assert_eq!(pair.children(), [1, 1]);
}

#[test]
fn a_real_refusal_ends_the_wait_after_a_grace() {
    let mut pair = Pair::new(|side, connection, _| {
        let text = ["aes256gcm16-prfsha384-x25519", "aes128-sha256-modp2048"][side];
        connection.proposals = vec![parse_proposal(ProtocolId::Ike, text).expect("a proposal")];
    });
    pair.settle();
    pair.command(0, initiate());
    pair.pass(Duration::from_secs(10));
    let reason = pair.failed_command(0).expect("it failed");
    assert!(
        reason.contains("NO_PROPOSAL_CHOSEN") && reason.contains("x25519"),
        "{reason}"
    );
    assert_eq!(pair.ike_sas(), [0, 0]);
    assert_eq!(pair.peers[1].endpoint.half_open(), 0);
}

#[test]
fn under_load_an_initiator_has_to_return_a_cookie() {
    let mut pair = Pair::with_settings(|_, _, _| {}, |settings| settings.cookie_threshold = 0);
    pair.settle();
    pair.command(0, initiate());
    assert_eq!(pair.children(), [1, 1]);
    let required = lockgate::ike::Discard::CookieRequired.index();
    assert_eq!(pair.peers[1].endpoint.discards()[required], 1);
}

#[test]
fn a_flood_of_strangers_costs_no_state_and_no_more_bytes_than_it_sends() {
    let mut pair = Pair::new(|_, connection, _| connection.remote_addrs.push(AddressPattern::Any));
    pair.settle();
    let input = Input::Command {
        id: CommandId(1),
        command: initiate(),
    };
    pair.peers[0].endpoint.handle(pair.now, input);
    let request = pair.take_wire().remove(0).2;
    let (mut sent, mut answered) = (0, 0);
    for n in 0..2000u32 {
        let mut request = request.clone();
        request[..4].copy_from_slice(&(n + 1).to_be_bytes());
        let from = format!("198.18.{}.{}:500", n >> 8, n & 255);
        sent += request.len();
        pair.inject(1, &from, &request);
        answered += pair
            .take_wire()
            .iter()
            .map(|(_, _, bytes)| bytes.len())
            .sum::<usize>();
    }
    assert!(pair.peers[1].endpoint.half_open() <= 64);
    assert!(answered <= sent, "{answered} bytes for {sent}");
    pair.pass(Duration::from_secs(31));
    assert_eq!(pair.peers[1].endpoint.half_open(), 0);
}

#[test]
fn different_secrets_fail_on_both_sides_without_an_sa() {
    let mut pair = Pair::new(|_, _, _| {});
    let other = pad(1, |_, _| {});
    let secret = SharedSecret {
        name: "other".into(),
        ids: Vec::new(),
        secret: Secret::from(b"another".to_vec()),
    };
    let pad = Pad {
        connections: other.connections.clone(),
        secrets: vec![secret],
    };
    pair.settle();
    pair.command(1, Command::Reload(Arc::new(pad)));
    pair.command(0, initiate());
    assert_eq!(pair.ike_sas(), [0, 0]);
    let reason = pair.failed_command(0).expect("it failed");
    assert!(reason.contains("AUTHENTICATION_FAILED"), "{reason}");
}

#[test]
fn both_sides_at_once_end_with_one_ike_sa() {
    for seed in 0..6 {
        let mut pair = Pair::new(|_, _, _| {});
        pair.settle();
        for _ in 0..seed {
            pair.command(seed % 2, initiate());
            pair.command(seed % 2, terminate(false));
        }
        for side in [0, 1] {
            let input = Input::Command {
                id: CommandId(1),
                command: initiate(),
            };
            pair.peers[side].endpoint.handle(pair.now, input);
        }
        pair.settle();
        pair.pass(Duration::from_secs(10));
        assert_eq!(pair.ike_sas(), [1, 1], "seed {seed}");
        assert_eq!(pair.children(), [1, 1], "seed {seed}");
    }
}

#[test]
fn a_restarted_peer_replaces_its_old_sas_at_once() {
    let mut pair = Pair::up();
    let [_, restarted] = Pair::new(|_, _, _| {}).peers;
    pair.peers[1] = restarted;
    pair.now += Duration::from_secs(1);
    pair.settle();
    pair.command(1, initiate());
    assert_eq!(pair.ike_sas(), [1, 1]);
    assert_eq!(pair.children(), [1, 1]);
    let down = |event: &Event| matches!(event, Event::IkeDown { .. });
    assert!(pair.peers[0].events.iter().any(down));
}

#[test]
fn a_new_authentication_comes_before_the_end_of_the_old_one() {
    for side in [0, 1] {
        let mut pair = Pair::up();
        pair.now += Duration::from_secs(1);
        let reauth = Command::Rekey {
            ike: None,
            child: None,
            ike_id: None,
            child_id: None,
            reauth: true,
        };
        pair.command(side, reauth);
        assert_eq!(pair.ike_sas(), [1, 1]);
        assert_eq!(pair.children(), [1, 1]);
        let updates = pair.take_updates(side);
        let place = |name| updates.iter().position(|update| *update == name);
        assert!(place("switch-out") < place("remove-out"));
    }
}

#[test]
fn a_reload_without_the_child_deletes_it() {
    let mut pair = Pair::up();
    let mut connection = Connection::clone(&pad(0, |_, _| {}).connections[0]);
    connection.children.clear();
    let reloaded = Pad {
        connections: vec![Arc::new(connection)],
        secrets: Vec::new(),
    };
    pair.command(0, Command::Reload(Arc::new(reloaded)));
    assert_eq!(pair.children(), [0, 0]);
    assert_eq!(pair.ike_sas(), [1, 1]);
    pair.command(0, Command::Reload(Arc::new(Pad::default())));
    assert_eq!(pair.ike_sas(), [0, 0]);
}

#[test]
fn a_packet_starts_the_tunnel_that_is_configured_to_wait_for_it() {
    let mut pair = Pair::new(|_, _, child| child.start_action = StartAction::Trap);
    pair.settle();
    let flow = Flow {
        src: "10.1.0.7".parse().expect("an address"),
        dst: "10.2.0.9".parse().expect("an address"),
        protocol: 6,
        ports: Some((1024, 80)),
    };
    for _ in 0..3 {
        let reqid = Reqid(1);
        let input = Input::Sa(SaEvent::Acquire {
            reqid,
            flow,
            worker: None,
        });
        pair.peers[0].endpoint.handle(pair.now, input);
    }
    pair.settle();
    assert_eq!(pair.children(), [1, 1]);
    let sa = pair.peers[1].endpoint.ike_sas().next().expect("one SA");
    assert_eq!(
        sa.children[0].remote_ts.len(),
        1,
        "{:?}",
        sa.children[0].remote_ts
    );
}

#[test]
fn strangers_are_told_of_unknown_spis_seldom_and_answers_never() {
    let mut pair = Pair::new(|_, _, _| {});
    pair.settle();
    let mut stray = vec![7; 28];
    stray[16..20].copy_from_slice(&[0, 0x20, 37, 0x08]);
    stray[24..28].copy_from_slice(&28u32.to_be_bytes());
    for _ in 0..1000 {
        pair.inject(0, "192.0.2.9:500", &stray);
    }
    let answers = pair.take_wire();
    assert!((1..=40).contains(&answers.len()), "{}", answers.len());
    for (_, _, answer) in answers {
        pair.inject(0, "192.0.2.9:500", &answer);
    }
    assert!(pair.take_wire().is_empty());
}

#[test]
fn shutdown_deletes_everything_and_then_says_so() {
    let mut pair = Pair::up();
    pair.command(0, Command::Shutdown);
    assert_eq!(pair.ike_sas(), [0, 0]);
    let done = pair.peers[0]
        .events
        .iter()
        .rev()
        .find_map(|event| match event {
            Event::CommandDone { result, .. } => Some(result.clone()),
            _ => None,
        });
    assert_eq!(
        done.and_then(Result::ok).map(|outcome| outcome.terminated),
        Some(1)
    );
    pair.command(1, initiate());
    assert_eq!(pair.ike_sas(), [0, 1], "a peer that leaves answers nobody");
}
