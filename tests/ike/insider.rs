//! A peer that has keys and breaks the rules inside the SK payload (HOSTILE B10, B11, B25–B28, B31).

use lockgate::ike::{Discard, Event};
use lockgate::wire::ikev2::{AuthMethod, Notify, NotifyType};
use lockgate::wire::isakmp::{ExchangeType, PayloadType};

use super::actor::{
    Actor, Payloads, delete, delete_esp, identity, join, notify, proof, rekey_notify, selectors,
};
use super::config::Side;
use super::pair::{Pair, rekey_child, seconds};

const EXCHANGES: [ExchangeType; 2] = [ExchangeType::CREATE_CHILD_SA, ExchangeType::INFORMATIONAL];
const UNKNOWN: PayloadType = PayloadType(200);
const CRITICAL: u8 = 0x80;

/// The peer can still do everything, and B has the SAs it should have.
#[track_caller]
fn assert_unharmed(pair: &mut Pair, actor: &mut Actor) {
    let answer = actor.request(pair, ExchangeType::INFORMATIONAL, &vec![]);
    assert_eq!(answer.expect("an answer to a liveness check").payloads, []);
    assert_eq!(pair.children(Side::B).len(), 1);
}

#[test]
fn a_peer_made_by_hand_gets_a_tunnel() {
    let mut pair = Pair::new();
    let mut actor = Actor::connect(&mut pair, 1);
    assert_unharmed(&mut pair, &mut actor);
    actor.replace_child(&mut pair);
    assert_unharmed(&mut pair, &mut actor);
    let payloads = actor.rekey_ike();
    let answer = actor.request(&mut pair, ExchangeType::CREATE_CHILD_SA, &payloads);
    assert_eq!(answer.unwrap().error(), None);
}

#[test]
fn an_unknown_critical_payload_refuses_the_request_and_names_its_type() {
    for exchange in EXCHANGES {
        let mut pair = Pair::new();
        let mut actor = Actor::connect(&mut pair, 1);
        let mut payloads = actor.create_child(Side::A.network(), Side::B.network());
        payloads.insert(0, (UNKNOWN, vec![1, 2, 3]));
        let (first, mut text) = join(&payloads);
        text[1] = CRITICAL;
        let answer = actor
            .request_raw(&mut pair, exchange, first, &text)
            .unwrap();
        assert_eq!(
            answer.notifies(),
            [NotifyType::UNSUPPORTED_CRITICAL_PAYLOAD]
        );
        let body = answer.body(PayloadType::NOTIFY).unwrap();
        assert_eq!(body[4..], [UNKNOWN.0]);
        assert_unharmed(&mut pair, &mut actor);
    }
}

#[test]
fn an_unknown_critical_payload_in_ike_auth_ends_the_attempt() {
    let mut pair = Pair::new();
    let mut actor = Actor::half_open(&mut pair, 1);
    let mut payloads = actor.auth();
    payloads.insert(0, (UNKNOWN, vec![]));
    let (first, mut text) = join(&payloads);
    text[1] = CRITICAL;
    let answer = actor.request_raw(&mut pair, ExchangeType::IKE_AUTH, first, &text);
    let refused = NotifyType::UNSUPPORTED_CRITICAL_PAYLOAD;
    assert_eq!(answer.unwrap().notifies(), [refused]);
    assert!(pair.ike_sas(Side::B).is_empty());
    pair.run_for(seconds(31));
    assert_eq!(pair.host(Side::B).endpoint.half_open(), 0);
}

#[test]
fn payloads_that_are_unknown_and_not_critical_are_skipped() {
    let mut pair = Pair::new();
    let mut actor = Actor::half_open(&mut pair, 1);
    let mut payloads = actor.auth();
    payloads.insert(2, (UNKNOWN, vec![7; 9]));
    payloads.push((PayloadType::VENDOR_ID, vec![0xff, 0x1b, b'[', b'2', b'J']));
    let answer = actor.request(&mut pair, ExchangeType::IKE_AUTH, &payloads);
    assert_eq!(answer.unwrap().error(), None);
    assert_unharmed(&mut pair, &mut actor);
}

#[test]
fn ike_auth_without_one_of_its_payloads_or_with_two_of_one_sets_up_no_tunnel() {
    let required = [PayloadType::ID_I, PayloadType::AUTH];
    for place in 0..6 {
        for double in [false, true] {
            let mut pair = Pair::new();
            let mut actor = Actor::half_open(&mut pair, 1);
            let mut payloads = actor.auth();
            let kind = payloads[place].0;
            if double {
                payloads.insert(place, payloads[place].clone());
            } else {
                payloads.remove(place);
            }
            let answer = actor
                .request(&mut pair, ExchangeType::IKE_AUTH, &payloads)
                .unwrap();
            let fatal = double || required.contains(&kind);
            assert_eq!(pair.ike_sas(Side::B).is_empty(), fatal, "{kind:?} {double}");
            let optional = kind == PayloadType::ID_R && !double;
            assert_eq!(answer.error().is_none(), optional, "{kind:?} {double}");
            assert_eq!(pair.children(Side::B).len(), usize::from(optional));
        }
    }
}

#[test]
fn a_proof_that_is_not_exactly_right_is_refused() {
    let genuine = {
        let mut pair = Pair::new();
        Actor::half_open(&mut pair, 1).proof().to_vec()
    };
    let mut changed = genuine.clone();
    changed[47] ^= 1;
    let mic = AuthMethod::SHARED_KEY_MIC;
    let proofs = [
        (mic, vec![]),
        (mic, vec![0; 48]),
        (mic, genuine[..47].to_vec()),
        (mic, [genuine.clone(), vec![0]].concat()),
        (mic, changed),
        (AuthMethod(0), genuine.clone()),
        (AuthMethod::RSA_SIGNATURE, genuine.clone()),
        (AuthMethod::DIGITAL_SIGNATURE, genuine.clone()),
        (AuthMethod(13), genuine.clone()),
    ];
    for (method, data) in proofs {
        let mut pair = Pair::new();
        let mut actor = Actor::half_open(&mut pair, 1);
        let mut payloads = actor.auth();
        payloads.insert(2, notify(NotifyType::INITIAL_CONTACT, &[]));
        payloads[3].1 = proof(method, &data);
        let answer = actor
            .request(&mut pair, ExchangeType::IKE_AUTH, &payloads)
            .unwrap();
        assert_eq!(
            answer.notifies(),
            [NotifyType::AUTHENTICATION_FAILED],
            "{method:?}"
        );
        assert_eq!(answer.payloads.len(), 1, "nothing else is told");
        let up = |event: &Event| matches!(event, Event::IkeUp { .. } | Event::ChildUp { .. });
        assert!(!pair.host(Side::B).events.iter().any(up));
        assert_eq!(pair.host(Side::B).plane.counts(), (0, 0));
        // The same IKE SA gets no second chance.
        let answer = actor.request(&mut pair, ExchangeType::IKE_AUTH, &actor.auth());
        assert!(answer.is_none());
        pair.run_for(seconds(31));
        pair.host(Side::B).assert_empty("B");
    }
}

#[test]
fn identities_that_are_not_configured_are_refused_whatever_they_look_like() {
    let mut odd: Vec<Vec<u8>> = vec![
        vec![],
        vec![2],
        vec![2, 0, 0, 0],
        [&[2, 0, 0, 0], b"gw-a.example\0.evil".as_slice()].concat(),
        [&[2, 0, 0, 0], b"\x1b[2Jgw-a.example\n".as_slice()].concat(),
        [vec![2, 0, 0, 0], vec![b'a'; 8000]].concat(),
        vec![1, 0, 0, 0, 192, 0, 2],
        vec![1, 0, 0, 0, 192, 0, 2, 1, 5],
        vec![5, 0, 0, 0, 1],
        vec![9, 0, 0, 0, 0x30, 0x82],
        identity(Side::B),
    ];
    odd.extend((0..=255).map(|kind| vec![kind, 0, 0, 0, b'x']));
    let mut pair = Pair::new();
    for (seed, body) in (1..).zip(odd) {
        let mut actor = Actor::half_open(&mut pair, seed);
        let mut payloads = actor.auth();
        payloads[0].1 = body.clone();
        let answer = actor.request(&mut pair, ExchangeType::IKE_AUTH, &payloads);
        assert!(answer.unwrap().error().is_some(), "{body:02x?}");
        assert!(pair.ike_sas(Side::B).is_empty());
        pair.run_for(seconds(31));
    }
    let clean = |text: &str| text.chars().all(|c| !c.is_control() && c != '\u{7f}');
    assert!(
        pair.host(Side::B).logs().all(clean),
        "a peer can write control characters to the log"
    );
}

#[test]
fn an_initial_contact_that_is_not_authenticated_deletes_nothing() {
    let mut pair = Pair::up();
    pair.gapless = false;
    let child = pair.child(Side::B).id;
    let mut actor = Actor::half_open(&mut pair, 1);
    let mut payloads = actor.auth();
    payloads.insert(2, notify(NotifyType::INITIAL_CONTACT, &[]));
    payloads[3].1 = proof(AuthMethod::SHARED_KEY_MIC, &[3; 48]);
    actor.request(&mut pair, ExchangeType::IKE_AUTH, &payloads);
    pair.net.heal();
    assert_eq!(pair.child(Side::B).id, child);
    pair.run_for(seconds(31));
    pair.assert_clean(1);
    pair.finish();
}

#[test]
fn nothing_but_ike_auth_is_accepted_before_authentication() {
    for exchange in [
        ExchangeType::CREATE_CHILD_SA,
        ExchangeType::INFORMATIONAL,
        ExchangeType::IKE_INTERMEDIATE,
        ExchangeType(240),
    ] {
        let mut pair = Pair::new();
        let mut actor = Actor::half_open(&mut pair, 1);
        let payloads = actor.create_child(Side::A.network(), Side::B.network());
        assert!(actor.request(&mut pair, exchange, &payloads).is_none());
        assert_eq!(pair.host(Side::B).plane.counts(), (0, 0));
        // It may still authenticate.
        actor.next_id = 1;
        let answer = actor.request(&mut pair, ExchangeType::IKE_AUTH, &actor.auth());
        assert_eq!(answer.unwrap().error(), None);
    }
}

#[test]
fn a_second_ike_auth_or_an_exchange_that_was_not_agreed_on_is_ignored() {
    let mut pair = Pair::new();
    let mut actor = Actor::connect(&mut pair, 1);
    for exchange in [
        ExchangeType::IKE_AUTH,
        ExchangeType::IKE_INTERMEDIATE,
        ExchangeType(40),
    ] {
        let payloads = actor.auth();
        assert!(actor.request(&mut pair, exchange, &payloads).is_none());
        actor.next_id -= 1;
    }
    assert_eq!(pair.host(Side::B).discarded(Discard::UnknownExchange), 3);
    assert_unharmed(&mut pair, &mut actor);
}

#[test]
fn requests_outside_the_window_are_ignored() {
    let mut pair = Pair::new();
    let mut actor = Actor::connect(&mut pair, 1);
    for id in [0, 1, 3, 4, 100, u32::MAX] {
        actor.next_id = id.wrapping_sub(1);
        let bytes = actor.seal(
            ExchangeType::INFORMATIONAL,
            false,
            id,
            PayloadType::NONE,
            &[],
        );
        let before = pair.net.sent();
        actor.send(&mut pair, &bytes);
        assert_eq!(pair.net.sent(), before, "message ID {id}");
    }
    assert_eq!(pair.host(Side::B).discarded(Discard::OutsideWindow), 6);
    actor.next_id = 2;
    assert_unharmed(&mut pair, &mut actor);
    // The same ID with other content is not a repetition.
    let bytes = actor.seal(
        ExchangeType::INFORMATIONAL,
        false,
        2,
        PayloadType::NONE,
        &[],
    );
    let before = pair.net.sent();
    actor.send(&mut pair, &bytes);
    assert_eq!(pair.net.sent(), before);
    assert_unharmed(&mut pair, &mut actor);
}

#[test]
fn a_repeated_request_is_answered_with_the_same_bytes_and_done_once() {
    let mut pair = Pair::new();
    let mut actor = Actor::connect(&mut pair, 1);
    let payloads = actor.create_child(Side::A.network(), Side::B.network());
    let (first, text) = join(&payloads);
    let bytes = actor.seal(ExchangeType::CREATE_CHILD_SA, false, 2, first, &text);
    let before = pair.net.sent();
    for _ in 0..3 {
        actor.send(&mut pair, &bytes);
    }
    let answers: Vec<_> = pair
        .net
        .from(Side::B, before)
        .iter()
        .map(|sent| &sent.transmit)
        .collect();
    assert_eq!(answers.len(), 3);
    assert!(answers.iter().all(|answer| *answer == answers[0]));
    assert_eq!(pair.children(Side::B).len(), 2);
    assert_eq!(pair.host(Side::B).discarded(Discard::Retransmission), 2);
}

#[test]
fn deletes_of_what_is_not_there_are_answered_and_change_nothing() {
    let mut pair = Pair::new();
    let mut actor = Actor::connect(&mut pair, 1);
    let theirs = pair.child(Side::B).spi_in.get();
    let deletes = [
        vec![delete_esp(0xdead_beef)],
        vec![delete_esp(0)],
        vec![delete_esp(theirs)], // the SPI is the sender's own to name
        vec![delete(3, 4, 0, &[])],
        vec![delete(2, 4, 1, &actor.child_spi.to_be_bytes())],
        vec![delete(3, 4, 500, &[0x11; 2000])],
    ];
    for payloads in deletes {
        let answer = actor.request(&mut pair, ExchangeType::INFORMATIONAL, &payloads);
        assert_eq!(answer.unwrap().payloads, [], "{payloads:02x?}");
        assert_unharmed(&mut pair, &mut actor);
    }
}

#[test]
fn deletes_that_contradict_themselves_delete_no_child() {
    let mut pair = Pair::new();
    for (seed, payload) in (1..).zip([
        delete(3, 4, 2, &[0x10, 0, 0, 1]),
        delete(3, 8, 1, &[0; 8]),
        delete(3, 4, 1, &[0x10, 0, 0]),
        delete(1, 4, 1, &[0; 4]),
        delete(9, 4, 1, &[0x10, 0, 0, 1]),
        (PayloadType::DELETE, vec![]),
        (PayloadType::DELETE, vec![3]),
    ]) {
        let mut actor = Actor::connect(&mut pair, seed);
        let payloads = vec![payload.clone()];
        let answer = actor.request(&mut pair, ExchangeType::INFORMATIONAL, &payloads);
        let error = answer.unwrap().error();
        assert_eq!(error, Some(NotifyType::INVALID_SYNTAX), "{payload:02x?}");
        // Who speaks like that loses the IKE SA (RFC 7296 §2.21.3), and with it everything.
        pair.run_for(seconds(1));
        pair.host(Side::B).assert_empty("B");
    }
}

#[test]
fn a_delete_of_everything_in_one_message_deletes_everything_once() {
    let mut pair = Pair::new();
    let mut actor = Actor::connect(&mut pair, 1);
    let spi = actor.child_spi;
    let twice = [spi.to_be_bytes(), spi.to_be_bytes()].concat();
    let payloads = vec![
        delete(3, 4, 2, &twice),
        delete_esp(spi),
        delete(1, 0, 0, &[]),
    ];
    let answer = actor.request(&mut pair, ExchangeType::INFORMATIONAL, &payloads);
    assert!(answer.is_some());
    pair.run_for(seconds(10));
    pair.host(Side::B).assert_empty("B");
}

#[test]
fn a_rekey_of_what_is_not_there_is_told_so() {
    let mut pair = Pair::new();
    let mut actor = Actor::connect(&mut pair, 1);
    let spi = actor.child_spi.to_be_bytes();
    for (protocol, named) in [
        (3, [0xde, 0xad, 0xbe, 0xef].as_slice()),
        (0, &spi),
        (1, &spi),
        (2, &spi),
        (3, &[]),
        (3, &spi[..3]),
        (3, &[0; 8]),
    ] {
        let mut payloads = actor.rekey_child(0);
        payloads[0].1 = rekey_notify(protocol, named);
        let answer = actor.request(&mut pair, ExchangeType::CREATE_CHILD_SA, &payloads);
        let answer = answer.unwrap();
        let refusal = Notify::parse(answer.body(PayloadType::NOTIFY).unwrap()).unwrap();
        assert_eq!(
            refusal.kind,
            NotifyType::CHILD_SA_NOT_FOUND,
            "{protocol} {named:02x?}"
        );
        if protocol == 3 && named.len() == 4 {
            assert_eq!(
                (refusal.protocol, refusal.spi),
                (3, named),
                "RFC 7296 §2.25"
            );
        }
        assert_unharmed(&mut pair, &mut actor);
    }
}

#[test]
fn one_child_is_rekeyed_once_at_a_time() {
    let mut pair = Pair::new();
    let mut actor = Actor::connect(&mut pair, 1);
    let old = actor.child_spi;
    let first = actor.rekey_child(old);
    let answer = actor.request(&mut pair, ExchangeType::CREATE_CHILD_SA, &first);
    assert_eq!(answer.unwrap().error(), None);
    let second = actor.rekey_child(old);
    let answer = actor.request(&mut pair, ExchangeType::CREATE_CHILD_SA, &second);
    assert_eq!(answer.unwrap().error(), Some(NotifyType::TEMPORARY_FAILURE));
}

#[test]
fn selectors_outside_the_policy_are_refused_in_every_exchange() {
    let outside = || selectors("10.9.0.0/24", Side::B.network());
    let mut pair = Pair::new();
    let mut actor = Actor::half_open(&mut pair, 1);
    let mut payloads = actor.auth();
    payloads.splice(4..6, outside());
    let answer = actor.request(&mut pair, ExchangeType::IKE_AUTH, &payloads);
    assert_eq!(answer.unwrap().error(), Some(NotifyType::TS_UNACCEPTABLE));
    assert!(pair.children(Side::B).is_empty());
    assert_eq!(
        pair.ike_sas(Side::B).len(),
        1,
        "the IKE SA lives without a child"
    );

    let mut payloads = actor.create_child(Side::A.network(), Side::B.network());
    let answer = actor.request(&mut pair, ExchangeType::CREATE_CHILD_SA, &payloads);
    assert_eq!(answer.unwrap().error(), None);
    payloads = actor.rekey_child(actor.child_spi);
    payloads.splice(4..6, outside());
    let answer = actor.request(&mut pair, ExchangeType::CREATE_CHILD_SA, &payloads);
    assert_eq!(answer.unwrap().error(), Some(NotifyType::TS_UNACCEPTABLE));
    assert_unharmed(&mut pair, &mut actor);
}

#[test]
fn selector_payloads_that_lie_about_themselves_are_refused() {
    let good = selectors(Side::A.network(), Side::B.network())[0].1.clone();
    let change = |at: usize, value: u8| {
        let mut body = good.clone();
        body[at] = value;
        body
    };
    let mut pair = Pair::new();
    for (seed, body) in (1..).zip([
        vec![],
        vec![0, 0, 0, 0],
        change(0, 0),
        change(0, 2),
        change(0, 255),
        change(7, 15),
        change(7, 17),
        change(6, 255),
        change(12, 200), // start > end
        good[..12].to_vec(),
        [good.clone(), vec![0; 4]].concat(),
    ]) {
        let mut actor = Actor::half_open(&mut pair, seed);
        let mut payloads = actor.auth();
        payloads[4].1 = body.clone();
        let answer = actor.request(&mut pair, ExchangeType::IKE_AUTH, &payloads);
        assert!(answer.unwrap().error().is_some(), "{body:02x?}");
        assert!(pair.children(Side::B).is_empty(), "{body:02x?}");
        pair.restart(Side::B);
    }
}

#[test]
fn one_peer_gets_only_so_many_children() {
    let mut pair = Pair::with(|_, setup| setup.settings.children_per_ike = 8);
    let mut actor = Actor::connect(&mut pair, 1);
    for count in 1..100 {
        let payloads = actor.create_child(Side::A.network(), Side::B.network());
        let answer = actor.request(&mut pair, ExchangeType::CREATE_CHILD_SA, &payloads);
        let wanted = (count >= 8).then_some(NotifyType::NO_ADDITIONAL_SAS);
        assert_eq!(answer.unwrap().error(), wanted, "child {count}");
    }
    assert_eq!(pair.children(Side::B).len(), 8);
}

#[test]
fn every_byte_inside_a_message_may_be_wrong() {
    type Make = fn(&mut Actor) -> Payloads;
    let messages: [(ExchangeType, Make); 5] = [
        (ExchangeType::IKE_AUTH, |actor| actor.auth()),
        (ExchangeType::CREATE_CHILD_SA, |actor| {
            actor.create_child(Side::A.network(), Side::B.network())
        }),
        (ExchangeType::CREATE_CHILD_SA, |actor| {
            actor.rekey_child(actor.child_spi)
        }),
        (ExchangeType::CREATE_CHILD_SA, Actor::rekey_ike),
        (ExchangeType::INFORMATIONAL, |actor| {
            vec![delete_esp(actor.child_spi)]
        }),
    ];
    let mut pair = Pair::new();
    for (exchange, make) in messages {
        for place in 0.. {
            // A new peer each time: the one before may have lost its SA.
            pair.restart(Side::B);
            let mut actor = match exchange {
                ExchangeType::IKE_AUTH => Actor::half_open(&mut pair, 1),
                _ => Actor::connect(&mut pair, 1),
            };
            let (first, mut text) = join(&make(&mut actor));
            if place >= text.len() {
                break;
            }
            text[place] ^= [0x01, 0xff, 0x80][place % 3];
            let answer = actor.request_raw(&mut pair, exchange, first, &text);
            assert!(answer.is_some(), "byte {place} of {exchange}: no answer");
        }
    }
}

#[test]
fn every_length_of_a_plaintext_is_answered() {
    let mut pair = Pair::new();
    let full = {
        let mut actor = Actor::connect(&mut pair, 1);
        join(&actor.rekey_child(0x1000_0001))
    };
    for (seed, len) in (2..).zip(0..full.1.len()) {
        pair.restart(Side::B);
        let mut actor = Actor::connect(&mut pair, seed);
        let exchange = ExchangeType::CREATE_CHILD_SA;
        let answer = actor.request_raw(&mut pair, exchange, full.0, &full.1[..len]);
        assert!(answer.unwrap().error().is_some(), "{len} bytes");
    }
}

#[test]
fn a_refused_rekey_leaves_the_old_child_and_is_tried_again() {
    for refusal in [
        NotifyType::TS_UNACCEPTABLE,
        NotifyType::NO_PROPOSAL_CHOSEN,
        NotifyType::NO_ADDITIONAL_SAS,
        NotifyType::TEMPORARY_FAILURE,
    ] {
        let mut pair = Pair::new();
        let mut actor = Actor::connect(&mut pair, 1);
        pair.command(Side::B, rekey_child());
        let request = actor.take_request(&pair).unwrap();
        let payloads = vec![notify(refusal, &[])];
        actor.answer(&mut pair, &request, &payloads);
        assert_eq!(pair.children(Side::B).len(), 1);
        assert_eq!(pair.host(Side::B).plane.counts(), (1, 1));
        pair.run_for(seconds(60));
        let again = actor.take_request(&pair);
        assert!(again.is_some(), "{refusal:?}: not tried again");
    }
}

#[test]
fn a_child_that_the_peer_has_lost_is_made_anew() {
    let mut pair = Pair::new();
    let mut actor = Actor::connect(&mut pair, 1);
    pair.command(Side::B, rekey_child());
    let request = actor.take_request(&pair).unwrap();
    let payloads = vec![notify(NotifyType::CHILD_SA_NOT_FOUND, &[])];
    actor.answer(&mut pair, &request, &payloads);
    assert_eq!(pair.host(Side::B).plane.counts(), (0, 0));
    let request = actor.take_request(&pair).unwrap();
    assert_eq!(request.header.exchange, ExchangeType::CREATE_CHILD_SA);
    assert!(!request.notifies().contains(&NotifyType::REKEY_SA));
}

#[test]
fn a_peer_that_bounces_a_rekey_between_groups_is_not_followed_for_ever() {
    let groups: [u16; 2] = [19, 31];
    let mut pair = Pair::with(|_, setup| {
        setup.children[0].esp_proposals =
            super::config::esp_proposals(&["aes256gcm16-x25519-ecp256-esn-noesn"]);
        setup.connection.proposals =
            super::config::ike_proposals(&["aes256gcm16-prfsha384-x25519-ecp256"]);
    });
    for command in [rekey_child, super::pair::rekey_ike] {
        let mut actor = Actor::connect(&mut pair, 1);
        pair.command(Side::B, command());
        let mut asked = 0;
        while let Some(request) = actor.take_request(&pair) {
            let group = groups[asked % 2].to_be_bytes();
            let payloads = vec![notify(NotifyType::INVALID_KE_PAYLOAD, &group)];
            actor.answer(&mut pair, &request, &payloads);
            asked += 1;
            assert!(asked < 10, "bounced without end");
        }
        assert!(asked > 1, "the wish of the peer was not followed");
        assert_eq!(pair.host(Side::B).plane.counts(), (1, 1));
        pair.restart(Side::B);
    }
}
