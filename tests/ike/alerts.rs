//! What each side is told when a negotiation fails.

use std::sync::Arc;

use lockgate::ike::{Alert, AlertKind, Command, Event, Identity, Pad};

use super::config::{Setup, Side, esp_proposals, ike_proposals, selectors};
use super::network::Fate;
use super::pair::{Pair, initiate, seconds};

/// Brings nothing up, and returns what both sides were told.
fn failed(change: impl Fn(Side, &mut Setup)) -> [Vec<Alert>; 2] {
    let mut pair = Pair::with(change);
    pair.command(Side::A, initiate("lan"));
    pair.run_for(seconds(40));
    Side::BOTH.map(|side| {
        let events = pair.host(side).events.iter();
        let alerts = events.filter_map(|event| match event {
            Event::Alert(alert) => Some(alert.clone()),
            _ => None,
        });
        alerts.collect()
    })
}

/// The alert of a kind, which names the connection.
fn find(alerts: &[Alert], kind: AlertKind) -> &Alert {
    let found = alerts.iter().find(|alert| alert.kind == kind);
    let alert = found.unwrap_or_else(|| panic!("no {} in {alerts:?}", kind.name()));
    assert_eq!(alert.connections, ["site"], "{}", alert.message);
    alert
}

#[test]
fn different_ike_proposals_are_shown_side_by_side_to_both() {
    let [a, b] = failed(|side, setup| {
        if side == Side::B {
            setup.connection.proposals = ike_proposals(&["aes128-sha256-ecp256"]);
        }
    });
    let asked = find(&a, AlertKind::IkeProposal);
    assert!(asked.message.contains("NO_PROPOSAL_CHOSEN"));
    assert!(asked.message.contains("aes256gcm16-prfsha384-x25519"));
    let answered = find(&b, AlertKind::IkeProposal);
    assert!(answered.message.contains("no common encryption algorithm"));
    assert!(answered.message.contains("aes256gcm16-prfsha384-x25519"));
    assert!(answered.message.contains("aes128-sha256"));
}

#[test]
fn different_esp_proposals_are_told_with_the_child_that_failed() {
    let [a, b] = failed(|side, setup| {
        if side == Side::B {
            setup.children[0].esp_proposals = esp_proposals(&["aes128-sha256"]);
        }
    });
    let asked = find(&a, AlertKind::ChildProposal);
    assert_eq!(asked.child.as_deref(), Some("lan"));
    let answered = find(&b, AlertKind::ChildProposal);
    let said = "no common encryption algorithm: peer sent [aes256gcm16";
    assert!(answered.message.contains(said), "{}", answered.message);
    assert!(
        answered.message.contains("we have [aes128-sha256"),
        "{}",
        answered.message
    );
}

#[test]
fn selectors_without_anything_in_common_are_told_with_both_sides() {
    let [a, b] = failed(|side, setup| {
        if side == Side::B {
            setup.children[0].local_ts = selectors(&["10.7.0.0/24"]);
        }
    });
    let asked = find(&a, AlertKind::Selectors);
    assert!(asked.message.contains("10.2.0.0/24"), "{}", asked.message);
    let answered = find(&b, AlertKind::Selectors);
    assert!(answered.message.contains("10.7.0.0/24"));
    assert!(answered.message.contains("10.2.0.0/24"));
}

#[test]
fn different_secrets_are_the_peer_s_failure_to_one_and_the_own_to_the_other() {
    let [a, b] = failed(|side, setup| {
        if side == Side::B {
            setup.secret = "something else";
        }
    });
    assert!(
        find(&a, AlertKind::LocalAuth)
            .message
            .contains("AUTHENTICATION_FAILED")
    );
    assert!(
        find(&b, AlertKind::PeerAuth)
            .message
            .contains("the secrets differ")
    );
}

#[test]
fn an_unknown_identity_is_told_with_the_connections_that_the_addresses_fit() {
    let [_, b] = failed(|side, setup| {
        if side == Side::A {
            setup.connection.local.id = Some("somebody.example".parse::<Identity>().unwrap());
        }
    });
    let alert = find(&b, AlertKind::PeerAuth);
    assert!(alert.message.contains("somebody.example"));
    assert!(alert.message.contains("gw-a.example"), "what is configured");
}

#[test]
fn a_peer_that_never_answers_is_told_once_for_each_attempt() {
    let mut pair = Pair::new();
    pair.net.decide(|_| Fate::Drop);
    let id = pair.command(Side::A, initiate("lan"));
    pair.run_for(seconds(300));
    assert!(pair.failure(Side::A, id).contains("does not answer"));
    let events = &pair.host(Side::A).events;
    let told = events.iter().filter(|event| {
        matches!(event, Event::Alert(alert) if alert.kind == AlertKind::Unreachable
            && alert.connections == ["site"])
    });
    assert_eq!(told.count(), 1);
}

#[test]
fn a_strangers_mistake_names_a_few_of_many_connections() {
    let mut pair = Pair::with(|side, setup| {
        if side == Side::B {
            setup.connection.proposals = ike_proposals(&["aes128-sha256-ecp256"]);
        }
    });
    let pad = Arc::into_inner(pair.setup(Side::B).pad()).unwrap();
    let many = (0..100).map(|number| {
        let mut connection = (*pad.connections[0]).clone();
        connection.name = format!("site-{number}");
        Arc::new(connection)
    });
    let connections = many.collect();
    let pad = Pad { connections, ..pad };
    pair.command(Side::B, Command::Reload(Arc::new(pad)));
    pair.command(Side::A, initiate("lan"));
    pair.run_for(seconds(1));
    let events = &pair.host(Side::B).events;
    let named: Vec<usize> = events
        .iter()
        .filter_map(|event| match event {
            Event::Alert(alert) => Some(alert.connections.len()),
            _ => None,
        })
        .collect();
    assert_eq!(named, [8, 8], "for the request and its repetition");
}
