//! IKEV2_MESSAGE_ID_SYNC (RFC 6311): the peer is a cluster, and another member goes on.

use data_encoding::HEXLOWER;
use lockgate::crypto::PacketKey;
use lockgate::ike::{Command, Discard, KeyTable};
use lockgate::wire::ikev2::{MessageIdSync, Notify, NotifyType};
use lockgate::wire::isakmp::{ExchangeType, Flags, Header, IkeSpi, PayloadType};

use super::actor::{Actor, Payloads, join, notify, split};
use super::config::Side;
use super::network::Fate;
use super::pair::{
    Pair, initiate, rekey_child, rekey_ike, seconds, terminate_child, terminate_ike,
};
use super::session::{SUITE, open_with, seal_with};

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
    sent_by(Side::B, pair, bytes)
}

fn sent_by(side: Side, pair: &mut Pair, bytes: &[u8]) -> Vec<Vec<u8>> {
    let before = pair.net.sent();
    pair.inject(side, bytes);
    let sent = pair.net.from(side, before).into_iter();
    sent.map(|sent| sent.transmit.bytes.clone()).collect()
}

/// Nonce, P2 and M2.
fn answered(actor: &Actor, bytes: &[u8]) -> (u8, u32, u32) {
    synchronized(bytes, &actor.open(bytes).payloads)
}

fn synchronized(bytes: &[u8], payloads: &Payloads) -> (u8, u32, u32) {
    let (header, _) = Header::parse(bytes).unwrap();
    assert_eq!((header.message_id, header.flags.response()), (0, true));
    assert_eq!(payloads.len(), 1);
    let notify = Notify::parse(&payloads[0].1).unwrap();
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
fn a_synchronization_that_is_replayed_changes_nothing() {
    let first = payload(7, 9, 3);
    are_ignored(&[vec![first.clone()], vec![payload(8, 9, 30)]]);
    // Nor does the very message, once there was another one.
    let (mut pair, mut actor) = cluster();
    let first = sealed(&mut actor, 0, &vec![first]);
    assert_eq!(sent(&mut pair, &first).len(), 1);
    let second = sealed(&mut actor, 0, &vec![payload(8, 10, 3)]);
    assert_eq!(sent(&mut pair, &second).len(), 1);
    assert_eq!(sent(&mut pair, &first).len(), 0);
    assert_eq!(pair.host(Side::B).discarded(Discard::BadMessageIdSync), 1);
    assert_expects(&mut pair, &mut actor, 10);
}

#[test]
fn a_synchronization_whose_send_id_is_too_low_changes_nothing() {
    are_ignored(&[vec![payload(8, 8, 30)], vec![payload(8, 0, 30)]]);
    // Nor without one before it: B has taken requests 0 and 1.
    let (mut pair, mut actor) = cluster();
    for send in [0, 1] {
        let request = sealed(&mut actor, 0, &vec![payload(7, send, 30)]);
        assert_eq!(sent(&mut pair, &request).len(), 0);
    }
    assert_expects(&mut pair, &mut actor, 2);
}

#[test]
fn a_synchronization_that_is_too_high_or_malformed_changes_nothing() {
    let delta = notify(NotifyType(16423), &[0, 0, 1, 0]);
    are_ignored(&[
        vec![payload(8, u32::MAX, 30)],
        vec![payload(8, 10, u32::MAX)],
        vec![payload(8, 10, 30), delta],
        vec![payload(8, 10, 30), payload(8, 10, 30)],
        vec![notify(SYNC, &[8; 11])],
        vec![notify(SYNC, &[])],
    ]);
}

/// After a synchronization that goes on with 9 and 3, each of these is discarded.
#[track_caller]
fn are_ignored(bad: &[Payloads]) {
    let (mut pair, mut actor) = cluster();
    let first = sealed(&mut actor, 0, &vec![payload(7, 9, 3)]);
    assert_eq!(sent(&mut pair, &first).len(), 1);
    for payloads in bad {
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

/// Stands in for a side of two Lockgates, as the member of its cluster that goes on.
struct Member {
    side: Side,
    is_initiator: bool,
    spis: [IkeSpi; 2],
    outbound: PacketKey,
    inbound: PacketKey,
    sealed: u64,
}

impl Member {
    /// The member before it is dead.
    fn of(pair: &mut Pair, side: Side) -> Self {
        pair.net.decide(|_| Fate::Drop);
        pair.gapless = false;
        let sa = pair.ike_sa(side);
        let mut lines = pair.host(side).keys.iter().rev();
        let line = lines.find(|line| line.table == KeyTable::Ikev2Decryption);
        let fields = line.unwrap().line.as_bytes().split(|byte| *byte == b',');
        let fields = fields.take(4).map(|text| HEXLOWER.decode(text).unwrap());
        let fields: Vec<_> = fields.collect();
        assert_eq!(fields[0], sa.initiator_spi.0, "keys of the IKE SA in use");
        let key = |place: usize| PacketKey::new(SUITE.cipher, &fields[place], &[]).unwrap();
        let (outbound, inbound) = match sa.initiator {
            true => (key(2), key(3)),
            false => (key(3), key(2)),
        };
        Self {
            side,
            is_initiator: sa.initiator,
            spis: [sa.initiator_spi, sa.responder_spi],
            outbound,
            inbound,
            sealed: 1 << 32,
        }
    }

    /// What the peer sends on being given this message.
    fn says(
        &mut self,
        pair: &mut Pair,
        exchange: ExchangeType,
        (id, response): (u32, bool),
        payloads: &Payloads,
    ) -> Vec<Vec<u8>> {
        let (first, text) = join(payloads);
        let header = Header {
            initiator_spi: self.spis[0],
            responder_spi: self.spis[1],
            next_payload: PayloadType::SK,
            version: Header::VERSION_2_0,
            exchange,
            flags: Flags::new(self.is_initiator, response),
            message_id: id,
            length: 0,
        };
        self.sealed += 1;
        let bytes = seal_with(&self.outbound, header, self.sealed, first, &text);
        sent_by(self.side.other(), pair, &bytes)
    }

    /// Asks for a synchronization that is answered, with P2 and M2; what the peer sends besides.
    #[track_caller]
    fn synchronizes(
        &mut self,
        pair: &mut Pair,
        (send, receive): (u32, u32),
        expected: (u32, u32),
    ) -> Vec<Vec<u8>> {
        let asked = vec![payload(7, send, receive)];
        let mut sent = self.says(pair, ExchangeType::INFORMATIONAL, (0, false), &asked);
        let answer = sent.remove(0);
        let (nonce, p2, m2) = synchronized(&answer, &self.open(&answer));
        assert_eq!((nonce, p2, m2), (7, expected.0, expected.1));
        sent
    }

    /// Whether an empty request with this message ID is answered.
    fn is_answered(&mut self, pair: &mut Pair, id: u32) -> bool {
        let sent = self.says(pair, ExchangeType::INFORMATIONAL, (id, false), &vec![]);
        !sent.is_empty()
    }

    fn open(&self, bytes: &[u8]) -> Payloads {
        let (first, text) = open_with(&self.inbound, bytes);
        split(first, &text)
    }
}

/// A has set up the IKE SA.
fn two_clusters() -> Pair {
    Pair::up_with(|side, setup| {
        setup.settings.key_log = true;
        setup.add_second_child(side);
    })
}

#[test]
fn either_role_takes_the_message_ids_of_a_member_that_took_over() {
    // A has sent requests 0 and 1, and B none.
    for (dead, answer) in [(Side::A, (1, 9)), (Side::B, (2, 9))] {
        let mut pair = two_clusters();
        let mut member = Member::of(&mut pair, dead);
        member.synchronizes(&mut pair, (9, 1), answer);
        for id in [0, 1, 2, 8] {
            assert!(!member.is_answered(&mut pair, id), "{dead:?} {id}");
        }
        assert!(member.is_answered(&mut pair, 9));
    }
}

#[test]
fn the_first_request_of_a_responder_is_no_synchronization() {
    let mut pair = two_clusters();
    let mut member = Member::of(&mut pair, Side::B);
    assert!(member.is_answered(&mut pair, 0));
    assert!(!member.is_answered(&mut pair, 0), "another one");
    assert!(member.is_answered(&mut pair, 1));
    let asked = vec![payload(7, 1, 2)];
    let sent = member.says(&mut pair, ExchangeType::INFORMATIONAL, (0, false), &asked);
    assert!(sent.is_empty(), "too low");
    member.synchronizes(&mut pair, (2, 2), (2, 2));
}

#[test]
fn a_responder_that_has_asked_nothing_yet_may_say_so() {
    let mut pair = two_clusters();
    let mut member = Member::of(&mut pair, Side::B);
    member.synchronizes(&mut pair, (0, 2), (2, 0));
    assert!(member.is_answered(&mut pair, 0));
    let asked = vec![payload(7, 0, 2)];
    let sent = member.says(&mut pair, ExchangeType::INFORMATIONAL, (0, false), &asked);
    assert!(sent.is_empty(), "request 0 was used");
    assert!(member.is_answered(&mut pair, 1));
}

#[test]
fn the_ike_sa_that_replaces_another_takes_synchronizations_too() {
    for rekeying in Side::BOTH {
        for dead in Side::BOTH {
            let mut pair = two_clusters();
            pair.command(rekeying, rekey_ike());
            pair.run_for(seconds(6));
            pair.command(rekeying, rekey_child());
            pair.run_for(seconds(6));
            let mut member = Member::of(&mut pair, dead);
            member.synchronizes(&mut pair, (9, 5), (5, 9));
            assert!(!member.is_answered(&mut pair, 8), "{rekeying:?} {dead:?}");
            assert!(member.is_answered(&mut pair, 9), "{rekeying:?} {dead:?}");
        }
    }
}

#[test]
fn whatever_is_pending_is_asked_anew_and_only_the_new_request_can_be_answered() {
    let lab = || initiate("lab");
    let commands: [fn() -> Command; 5] =
        [rekey_child, rekey_ike, terminate_child, terminate_ike, lab];
    for (number, command) in commands.into_iter().enumerate() {
        for dead in Side::BOTH {
            println!("{number} {dead:?}");
            let mut pair = two_clusters();
            let mut member = Member::of(&mut pair, dead);
            let other = dead.other();
            pair.command(other, command());
            pair.command(other, terminate_ike());
            let old = pair.net.trace.last().unwrap().clone();
            let sent = member.synchronizes(&mut pair, (9, 20), (20, 9));
            assert_eq!(sent.len(), 1, "one request at a time");
            let (header, _) = Header::parse(&sent[0]).unwrap();
            assert_eq!(
                (header.message_id, header.exchange),
                (20, old.header.exchange)
            );
            assert_eq!(member.open(&sent[0]), member.open(&old.transmit.bytes));
            let before = pair.net.sent();
            pair.run_for(seconds(4));
            let repeated = pair.net.from(other, before).into_iter();
            let repeated: Vec<_> = repeated.map(|sent| sent.transmit.bytes.clone()).collect();
            assert!(!repeated.is_empty() && repeated.iter().all(|bytes| *bytes == sent[0]));
            let refusal = vec![notify(NotifyType::TEMPORARY_FAILURE, &[])];
            let id = old.header.message_id;
            let next = member.says(&mut pair, header.exchange, (id, true), &refusal);
            assert!(next.is_empty());
            assert_eq!(pair.host(other).discarded(Discard::UnexpectedResponse), 1);
            let next = member.says(&mut pair, header.exchange, (20, true), &refusal);
            if pair.ike_sas(other).is_empty() {
                continue; // that was its DELETE
            }
            let (header, _) = Header::parse(&next[0]).unwrap();
            assert_eq!(header.message_id, 21, "what was queued goes on from there");
        }
    }
}

/// RFC 6311 asks a request anew, but the peer does not decide how long an SA stays that we delete.
#[test]
fn a_synchronization_does_not_prolong_a_delete() {
    for command in [terminate_ike, terminate_child] {
        let (mut pair, mut actor) = cluster();
        pair.command(Side::B, command());
        let mut asked = 0;
        for number in 1..100 {
            let id = 10 * number;
            let request = sealed(&mut actor, 0, &vec![payload(7, id, 0)]);
            asked += sent(&mut pair, &request).len().saturating_sub(1);
            pair.run_for(seconds(3));
        }
        assert!(asked > 10, "{asked}");
        pair.host(Side::B).assert_empty("B");
    }
}
