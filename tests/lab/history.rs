//! Messages that are wrong because of what was before: repeated, late, proven by nothing (HOSTILE B6, B17, B18,
//! B30), at a running daemon. Each raises its own counter.

use std::collections::BTreeMap;

use lockgate::ike::Discard;
use lockgate::wire::ikev2::{MessageIdSync, Notify, NotifyType, TicketGrant, message_bytes};
use lockgate::wire::isakmp::{ExchangeType, Flags, Header, IkeSpi, PayloadType};

use super::breaches;
use super::hostile::{discards, half_open, ike_spis};
use super::insider::names;
use super::sender::Sender;
use super::session::{Opened, Session, first_request, join, notify};
use crate::support::{
    eventually,
    lab::{Family, Gateway, Lab, Plan, Side, ip},
    traffic::assert_reaches,
};

const INFORMATIONAL: ExchangeType = ExchangeType::INFORMATIONAL;

fn plan() -> Plan {
    Plan {
        daemon: "dos_protection = false".to_owned(),
        connection: "resumption = true".to_owned(),
        ..Plan::default()
    }
}

/// An IKE SA with a child, after these were said besides.
fn connect(sender: &mut Sender, more: &[(PayloadType, Vec<u8>)]) -> (Session, Opened) {
    let mut session = sender.half_open();
    let mut payloads = breaches::auth(&mut session, &names());
    payloads.extend_from_slice(more);
    let answer = sender.request(&mut session, ExchangeType::IKE_AUTH, &payloads);
    assert_eq!(answer.error(), None);
    (session, answer)
}

/// Nothing but this counter rises, by one.
#[track_caller]
fn is_counted(b: &Gateway, counter: Discard, act: impl FnOnce()) {
    let mut expected = discards(b);
    *expected.get_mut(counter.name()).unwrap() += 1;
    act();
    let sum = |counts: &BTreeMap<String, u64>| counts.values().sum::<u64>();
    let after = eventually(&format!("{} is counted", counter.name()), || {
        let after = discards(b);
        (sum(&after) >= sum(&expected)).then_some(after)
    });
    assert_eq!(after, expected);
}

#[test]
fn what_is_repeated_is_counted_and_done_once() {
    let Some(lab) = Lab::new() else { return };
    let [_a, b] = lab.tunnel(&plan());
    let mut sender = Sender::new(&lab);
    let (mut session, _) = connect(&mut sender, &[]);
    let first = session.init.request.clone();
    is_counted(&b, Discard::StaleRequest, || sender.send(&first));

    let request = session.seal(INFORMATIONAL, false, 2, PayloadType::NONE, &[]);
    let answer = sender.ask(&request);
    is_counted(&b, Discard::Retransmission, || {
        assert_eq!(sender.ask(&request), answer);
    });

    let (kind, text) = join(&vec![notify(NotifyType(40_000), &[7; 40])]);
    let (half, rest) = text.split_at(20);
    let one = session.fragment(INFORMATIONAL, 3, kind, (1, 2), half);
    let two = session.fragment(INFORMATIONAL, 3, PayloadType::NONE, (2, 2), rest);
    sender.send(&one);
    is_counted(&b, Discard::StaleFragment, || sender.send(&one));
    assert_eq!(session.open(&sender.ask(&two)).payloads, []);
    is_counted(&b, Discard::StaleFragment, || sender.send(&two));
    session.next_id = 4;
    assert!(sender.is_alive(&mut session));
}

#[test]
fn a_crash_is_proven_by_the_token_of_the_peer_alone_and_guesses_are_limited() {
    let Some(lab) = Lab::new() else { return };
    let [_a, b] = lab.tunnel(&plan());
    let mut sender = Sender::new(&lab);
    let spis = ike_spis(&b);
    let token = [0x5a; 32];
    let told = notify(NotifyType::QUICK_CRASH_DETECTION, &token);
    let (session, _) = connect(&mut sender, &[told]);
    let [one, two] = session.spis().map(IkeSpi);
    let message = |token: &[u8]| {
        let header = Header {
            initiator_spi: one,
            responder_spi: two,
            next_payload: PayloadType::NONE,
            version: Header::VERSION_2_0,
            exchange: INFORMATIONAL,
            flags: Flags::new(true, true),
            message_id: 2,
            length: 0,
        };
        let payloads = vec![
            notify(NotifyType::INVALID_IKE_SPI, &[]),
            notify(NotifyType::QUICK_CRASH_DETECTION, token),
        ];
        message_bytes(header, join(&payloads))
    };
    is_counted(&b, Discard::BadCrashToken, || {
        sender.send(&message(&[0x5b; 32]))
    });
    let before = discards(&b);
    let mut sent = 0;
    while b.discards("rate-limited") == 0 {
        assert!(sent < 5000, "guesses without limit");
        for guess in 0..50 {
            sender.send(&message(&[guess; 32]));
            sent += 1;
        }
        eventually("all of them are counted", || {
            let new = |name| b.discards(name) - before[name];
            (new("rate-limited") + new("bad-crash-token") == sent).then_some(())
        });
    }
    assert_eq!(b.established().len(), 2);
    eventually("the token itself ends the IKE SA", || {
        sender.send(&message(&token));
        (b.established().len() == 1).then_some(())
    });
    assert_eq!(ike_spis(&b), spis);
    assert_reaches(&lab.host_a, &lab.host_b, Side::B.host(Family::V4));
}

#[test]
fn a_synchronization_of_message_ids_that_goes_back_is_counted() {
    let Some(lab) = Lab::new() else { return };
    let [_a, b] = lab.tunnel(&plan());
    let mut sender = Sender::new(&lab);
    let supported = notify(NotifyType::IKEV2_MESSAGE_ID_SYNC_SUPPORTED, &[]);
    let (mut session, answer) = connect(&mut sender, &[supported]);
    assert!(
        answer
            .notifies()
            .contains(&NotifyType::IKEV2_MESSAGE_ID_SYNC_SUPPORTED)
    );
    let sync = |send, receive| {
        let sync = MessageIdSync {
            nonce: [1; 4],
            send,
            receive,
        };
        sync.encode().to_vec()
    };
    for data in [sync(1, 0), sync(u32::MAX, 0), vec![], vec![0; 11]] {
        let (first, text) = join(&vec![notify(NotifyType::IKEV2_MESSAGE_ID_SYNC, &data)]);
        let message = session.seal(INFORMATIONAL, false, 0, first, &text);
        is_counted(&b, Discard::BadMessageIdSync, || sender.send(&message));
    }
    assert!(sender.is_alive(&mut session));
}

/// IKE_SESSION_RESUME with this ticket.
fn resume(number: u8, ticket: &[u8]) -> Vec<u8> {
    let payloads = vec![
        (PayloadType::NONCE, vec![7; 32]),
        notify(NotifyType::TICKET_OPAQUE, ticket),
    ];
    first_request(
        ExchangeType::IKE_SESSION_RESUME,
        IkeSpi([number; 8]),
        payloads,
    )
}

#[test]
fn a_ticket_that_is_none_or_whose_ike_sa_was_deleted_opens_nothing() {
    let Some(lab) = Lab::new() else { return };
    let [_a, b] = lab.tunnel(&plan());
    let mut sender = Sender::new(&lab);
    let wish = notify(NotifyType::TICKET_REQUEST, &[]);
    let (mut session, answer) = connect(&mut sender, &[wish]);
    let mut notifies = answer
        .payloads
        .iter()
        .filter(|(kind, _)| *kind == PayloadType::NOTIFY)
        .map(|(_, body)| Notify::parse(body).unwrap());
    let grant = notifies.find(|notify| notify.kind == NotifyType::TICKET_LT_OPAQUE);
    let ticket = TicketGrant::parse(grant.unwrap().data).unwrap().ticket;
    sender.delete(&mut session);
    eventually("it is deleted", || {
        (b.established().len() == 1).then_some(())
    });
    let mut changed = ticket.to_vec();
    *changed.last_mut().unwrap() ^= 1;
    for (number, bad, counter) in [
        (1, &[][..], Discard::BadTicket),
        (2, &[0; 300], Discard::BadTicket),
        (3, &ticket[..ticket.len() / 2], Discard::BadTicket),
        (4, &changed, Discard::BadTicket),
        (5, ticket, Discard::StaleTicket),
        (6, ticket, Discard::StaleTicket),
    ] {
        is_counted(&b, counter, || sender.send(&resume(number, bad)));
    }
    assert_eq!(half_open(&b), "0");
    assert_eq!(b.established().len(), 1);
}

#[test]
fn a_stranger_is_counted_and_told_so_in_few_bytes() {
    let Some(lab) = Lab::new() else { return };
    ip(&lab.gateway_a, "address add 192.0.2.77/24 dev outer");
    let [_a, b] = lab.tunnel(&plan());
    let stranger = Sender::at(&lab, [192, 0, 2, 77].into(), 0);
    let request = Sender::opening(1).request;
    is_counted(&b, Discard::NoConnection, || {
        let answer = stranger.ask(&request);
        assert!(answer.len() < request.len());
    });
    assert_eq!(half_open(&b), "0");
}
