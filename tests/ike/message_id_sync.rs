//! IKEV2_MESSAGE_ID_SYNC (RFC 6311): the peer is a cluster, and another member goes on.

use lockgate::ike::Discard;
use lockgate::wire::ikev2::{MessageIdSync, Notify, NotifyType};
use lockgate::wire::isakmp::{ExchangeType, Header, PayloadType};

use super::actor::{Actor, Opened, Payloads, join, notify};
use super::config::Side;
use super::pair::{Pair, rekey_child, seconds};

const SYNC: NotifyType = NotifyType::IKEV2_MESSAGE_ID_SYNC;
const SUPPORTED: NotifyType = NotifyType::IKEV2_MESSAGE_ID_SYNC_SUPPORTED;

/// B has an IKE SA with a cluster.
fn cluster() -> (Pair, Actor) {
    let mut pair = Pair::new();
    let mut actor = Actor::half_open(&mut pair, 1);
    let mut payloads = actor.auth();
    payloads.push(notify(SUPPORTED, &[]));
    let answer = actor.request(&mut pair, ExchangeType::IKE_AUTH, &payloads);
    assert!(answer.unwrap().notifies().contains(&SUPPORTED));
    (pair, actor)
}

fn payload(nonce: u8, send: u32, receive: u32) -> (PayloadType, Vec<u8>) {
    let sync = MessageIdSync {
        nonce: [nonce; 4],
        send,
        receive,
    };
    notify(SYNC, &sync.encode())
}

fn sealed(actor: &mut Actor, id: u32, payloads: &Payloads) -> Vec<u8> {
    let (first, text) = join(payloads);
    actor.seal(ExchangeType::INFORMATIONAL, false, id, first, &text)
}

/// What B sends on being given this.
fn sent(pair: &mut Pair, bytes: &[u8]) -> Vec<Vec<u8>> {
    let before = pair.net.sent();
    pair.inject(Side::B, bytes);
    let sent = pair.net.from(Side::B, before).into_iter();
    sent.map(|sent| sent.transmit.bytes.clone()).collect()
}

/// Nonce, P2 and M2.
fn answered(actor: &Actor, bytes: &[u8]) -> (u8, u32, u32) {
    let (header, _) = Header::parse(bytes).unwrap();
    assert_eq!((header.message_id, header.flags.response()), (0, true));
    let opened: Opened = actor.open(bytes);
    assert_eq!(opened.payloads.len(), 1);
    let notify = Notify::parse(&opened.payloads[0].1).unwrap();
    assert_eq!(notify.kind, SYNC);
    let sync = MessageIdSync::parse(notify.data).unwrap();
    (sync.nonce[0], sync.send, sync.receive)
}

/// Requests with this message ID are taken, and those below are not.
fn assert_expects(pair: &mut Pair, actor: &mut Actor, id: u32) {
    let early = sealed(actor, id - 1, &vec![]);
    assert_eq!(sent(pair, &early).len(), 0);
    let due = sealed(actor, id, &vec![]);
    assert_eq!(sent(pair, &due).len(), 1);
}

#[test]
fn a_responder_announces_synchronization_only_to_who_announced_it() {
    cluster();
    let mut pair = Pair::new();
    let mut actor = Actor::half_open(&mut pair, 1);
    let payloads = actor.auth();
    let answer = actor.request(&mut pair, ExchangeType::IKE_AUTH, &payloads);
    assert!(!answer.unwrap().notifies().contains(&SUPPORTED));
    let request = sealed(&mut actor, 0, &vec![payload(1, 9, 0)]);
    assert_eq!(sent(&mut pair, &request).len(), 0, "not enabled");
    assert_eq!(pair.host(Side::B).discarded(Discard::OutsideWindow), 1);
    assert_expects(&mut pair, &mut actor, 2);
}

#[test]
fn a_responder_takes_the_message_ids_of_a_member_that_took_over() {
    let (mut pair, mut actor) = cluster();
    let request = sealed(&mut actor, 0, &vec![payload(7, 9, 0)]);
    let answers = sent(&mut pair, &request);
    assert_eq!(answered(&actor, &answers[0]), (7, 0, 9));
    assert_expects(&mut pair, &mut actor, 9);
}

#[test]
fn a_raised_receive_id_is_that_of_the_next_request() {
    let (mut pair, mut actor) = cluster();
    let request = sealed(&mut actor, 0, &vec![payload(7, 2, 5)]);
    let answers = sent(&mut pair, &request);
    assert_eq!(answered(&actor, &answers[0]), (7, 5, 2));
    pair.command(Side::B, rekey_child());
    let next = actor.take_request(&pair).unwrap();
    assert_eq!(next.header.message_id, 5);
}

#[test]
fn a_retransmitted_synchronization_gets_the_same_answer_until_the_member_goes_on() {
    let (mut pair, mut actor) = cluster();
    let request = sealed(&mut actor, 0, &vec![payload(7, 9, 3)]);
    let answers = sent(&mut pair, &request);
    pair.run_for(seconds(1));
    assert_eq!(sent(&mut pair, &request), answers);
    assert_eq!(pair.host(Side::B).discarded(Discard::Retransmission), 1);
    assert_expects(&mut pair, &mut actor, 9);
    assert_eq!(sent(&mut pair, &request).len(), 0, "replayed");
    assert_eq!(pair.host(Side::B).discarded(Discard::BadMessageIdSync), 1);
    assert_expects(&mut pair, &mut actor, 10);
}

#[test]
fn a_synchronization_that_is_replayed_too_low_too_high_or_malformed_changes_nothing() {
    let (mut pair, mut actor) = cluster();
    let first = sealed(&mut actor, 0, &vec![payload(7, 9, 3)]);
    assert_eq!(sent(&mut pair, &first).len(), 1);
    let delta = notify(NotifyType(16423), &[0, 0, 1, 0]);
    let bad = [
        vec![payload(7, 9, 30)],
        vec![payload(8, 9, 30)],
        vec![payload(8, 8, 30)],
        vec![payload(8, 0, 30)],
        vec![payload(8, u32::MAX, 30)],
        vec![payload(8, 10, u32::MAX)],
        vec![payload(8, 10, 30), delta],
        vec![payload(8, 10, 30), payload(8, 10, 30)],
        vec![notify(SYNC, &[8; 11])],
        vec![notify(SYNC, &[])],
    ];
    for payloads in &bad {
        let request = sealed(&mut actor, 0, payloads);
        assert_eq!(sent(&mut pair, &request).len(), 0, "{payloads:?}");
    }
    let discarded = pair.host(Side::B).discarded(Discard::BadMessageIdSync);
    assert_eq!(discarded, bad.len() as u64);
    let mut forged = sealed(&mut actor, 0, &vec![payload(8, 20, 30)]);
    *forged.last_mut().unwrap() ^= 1;
    assert_eq!(sent(&mut pair, &forged).len(), 0);
    let request = sealed(&mut actor, 0, &vec![payload(9, 10, 0)]);
    let answers = sent(&mut pair, &request);
    assert_eq!(answered(&actor, &answers[0]), (9, 3, 10));
}

#[test]
fn a_synchronization_under_another_message_id_is_an_ordinary_request() {
    let (mut pair, mut actor) = cluster();
    let payloads = vec![payload(7, 9, 3)];
    let answer = actor.request(&mut pair, ExchangeType::INFORMATIONAL, &payloads);
    assert!(answer.unwrap().payloads.is_empty());
    assert_expects(&mut pair, &mut actor, 3);
}

#[test]
fn a_pending_request_is_asked_anew_under_the_raised_message_id() {
    let (mut pair, mut actor) = cluster();
    pair.command(Side::B, rekey_child());
    let old = actor.take_request(&pair).unwrap();
    let request = sealed(&mut actor, 0, &vec![payload(7, 9, 6)]);
    let answers = sent(&mut pair, &request);
    assert_eq!(answers.len(), 2);
    assert_eq!(answered(&actor, &answers[0]), (7, 6, 9));
    let (header, _) = Header::parse(&answers[1]).unwrap();
    assert_eq!(header.message_id, 6);
    assert_eq!(actor.open(&answers[1]).payloads, old.payloads);
    let refusal = vec![notify(NotifyType::TEMPORARY_FAILURE, &[])];
    actor.answer(&mut pair, &old, &refusal);
    assert_eq!(pair.host(Side::B).discarded(Discard::UnexpectedResponse), 1);
    assert_eq!(pair.ike_sa(Side::B).tasks_active, ["CHILD_REKEY"]);
}
