//! Message IDs, windows and remembered answers (RFC 7296 §2.1 to §2.3).

use std::net::SocketAddr;

use lockgate::ike::{Command, Discard, Path};
use lockgate::wire::ikev2::NotifyType;
use lockgate::wire::isakmp::{ExchangeType, PayloadType};

use super::actor::{Actor, join, notify};
use super::config::Side;
use super::pair::{Pair, rekey_child, seconds};

fn insider() -> (Pair, Actor) {
    let mut pair = Pair::new();
    let actor = Actor::connect(&mut pair, 1);
    (pair, actor)
}

/// An empty INFORMATIONAL request with this message ID.
fn request(actor: &mut Actor, id: u32) -> Vec<u8> {
    actor.seal(
        ExchangeType::INFORMATIONAL,
        false,
        id,
        PayloadType::NONE,
        &[],
    )
}

/// What B sends on being given this.
fn answers(pair: &mut Pair, bytes: &[u8]) -> Vec<Vec<u8>> {
    let before = pair.net.sent();
    pair.inject(Side::B, bytes);
    let sent = pair.net.from(Side::B, before).into_iter();
    sent.map(|sent| sent.transmit.bytes.clone()).collect()
}

#[test]
fn a_request_beyond_the_window_waits_for_those_before_it() {
    let (mut pair, mut actor) = insider();
    let next = actor.next_id;
    let early = request(&mut actor, next + 1);
    assert_eq!(answers(&mut pair, &early).len(), 0);
    assert_eq!(pair.host(Side::B).discarded(Discard::OutsideWindow), 1);
    let due = request(&mut actor, next);
    assert_eq!(answers(&mut pair, &due).len(), 1);
    assert_eq!(
        answers(&mut pair, &early).len(),
        1,
        "repeated, it is in order"
    );
}

#[test]
fn the_last_answer_is_remembered_until_the_next_request_and_no_longer() {
    let (mut pair, mut actor) = insider();
    let next = actor.next_id;
    let first = request(&mut actor, next);
    let answer = answers(&mut pair, &first);
    pair.run_for(seconds(3600));
    assert_eq!(answers(&mut pair, &first), answer, "byte for byte");
    let second = request(&mut actor, next + 1);
    assert_eq!(answers(&mut pair, &second).len(), 1);
    assert_eq!(answers(&mut pair, &first).len(), 0);
    assert_eq!(pair.host(Side::B).discarded(Discard::Retransmission), 1);
    assert_eq!(pair.host(Side::B).discarded(Discard::OutsideWindow), 1);
}

#[test]
fn a_repetition_is_answered_where_it_came_from() {
    let (mut pair, mut actor) = insider();
    let next = actor.next_id;
    let bytes = request(&mut actor, next);
    answers(&mut pair, &bytes);
    let elsewhere = Path {
        local: SocketAddr::new(Side::B.addr(), 500),
        remote: "203.0.113.5:1234".parse().unwrap(),
    };
    let before = pair.net.sent();
    pair.inject_on(Side::B, elsewhere, &bytes);
    let sent = pair.net.from(Side::B, before);
    assert_eq!(sent.len(), 1);
    assert_eq!(sent[0].transmit.path, elsewhere);
    assert_eq!(pair.ike_sa(Side::B).remote.ip(), Side::A.addr());
}

#[test]
fn another_request_under_a_used_message_id_does_nothing() {
    let (mut pair, mut actor) = insider();
    let next = actor.next_id;
    let first = request(&mut actor, next);
    answers(&mut pair, &first);
    let (kind, text) = join(&vec![super::actor::delete(1, 0, 0, &[])]);
    let second = actor.seal(ExchangeType::INFORMATIONAL, false, next, kind, &text);
    assert_eq!(answers(&mut pair, &second).len(), 0);
    assert_eq!(pair.children(Side::B).len(), 1, "nothing was deleted");
}

/// We send one request at a time, whatever the peer allows, and take one at a time (RFC 7296 §2.3).
#[test]
fn a_wider_window_of_the_peer_is_not_used() {
    let (mut pair, mut actor) = insider();
    let window = vec![notify(NotifyType::SET_WINDOW_SIZE, &[0, 0, 0, 10])];
    let answer = actor.request(&mut pair, ExchangeType::INFORMATIONAL, &window);
    assert_eq!(answer.unwrap().error(), None);
    let before = pair.net.sent();
    pair.command(Side::B, rekey_child());
    pair.command(
        Side::B,
        Command::Initiate {
            ike: Some("site".to_owned()),
            child: Some("lan".to_owned()),
        },
    );
    pair.run_for(seconds(3));
    let sent = pair.net.from(Side::B, before);
    assert!(
        sent.iter().all(|sent| sent.header.message_id == 0),
        "one ID"
    );
}

#[test]
fn a_message_id_of_all_ones_is_just_outside() {
    let (mut pair, mut actor) = insider();
    for id in [u32::MAX, u32::MAX - 1, 1 << 31, 0] {
        let bytes = request(&mut actor, id);
        assert_eq!(answers(&mut pair, &bytes).len(), 0, "{id}");
    }
    assert_eq!(pair.host(Side::B).discarded(Discard::OutsideWindow), 4);
    let next = actor.next_id;
    let due = request(&mut actor, next);
    assert_eq!(answers(&mut pair, &due).len(), 1);
}
