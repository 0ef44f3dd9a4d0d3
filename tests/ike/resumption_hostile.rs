//! Tickets that are no good, and who presents them (RFC 5723 §9).

use lockgate::crypto::PacketKey;
use lockgate::ike::{AddressPattern, Discard, KeyTable, Path};
use lockgate::wire::ikev2::{AuthMethod, AuthPayload, Notify, NotifyType, TicketGrant};
use lockgate::wire::isakmp::{ExchangeType, Header, IkeSpi, PayloadType};
use std::net::SocketAddr;
use std::time::Duration;

use super::actor::{Actor, Opened, first_request, identity, join, notify, proof, split};
use super::config::{Setup, Side};
use super::network::{Fate, Sent};
use super::pair::{Pair, initiate, millis, seconds, terminate_ike};
use super::resumption::{first_messages, resuming};
use super::session::{SUITE, open_with, seal_with};

fn ticket_of(answer: &Opened) -> Option<(u32, Vec<u8>)> {
    let notifies = answer
        .payloads
        .iter()
        .filter(|(kind, _)| *kind == PayloadType::NOTIFY);
    let mut notifies = notifies.map(|(_, body)| Notify::parse(body).unwrap());
    let grant = notifies.find(|notify| notify.kind == NotifyType::TICKET_LT_OPAQUE)?;
    let grant = TicketGrant::parse(grant.data).unwrap();
    Some((grant.lifetime, grant.ticket.to_vec()))
}

/// A peer at A's place that has an IKE SA with B and a ticket for it.
fn insider_with(change: impl Fn(Side, &mut Setup)) -> (Pair, Actor, Vec<u8>) {
    let mut pair = Pair::with(|side, setup| {
        resuming(side, setup);
        setup.connection.dpd_delay = Duration::ZERO;
        change(side, setup);
    });
    let mut actor = Actor::half_open(&mut pair, 1);
    let mut payloads = actor.auth();
    payloads.push(notify(NotifyType::TICKET_REQUEST, &[]));
    let answer = actor.request(&mut pair, ExchangeType::IKE_AUTH, &payloads);
    let (_, ticket) = ticket_of(&answer.unwrap()).unwrap();
    (pair, actor, ticket)
}

fn insider() -> (Pair, Actor, Vec<u8>) {
    insider_with(|_, _| {})
}

/// A request that presents a ticket, as the number'th stranger.
fn request(number: u16, ticket: &[u8]) -> Vec<u8> {
    let spi = IkeSpi([number.to_be_bytes(); 4].concat().try_into().unwrap());
    let payloads = vec![
        (PayloadType::NONCE, vec![7; 32]),
        notify(NotifyType::TICKET_OPAQUE, ticket),
    ];
    first_request(ExchangeType::IKE_SESSION_RESUME, spi, payloads)
}

/// Presents a ticket that is no good: it is told so in fewer bytes, counted, and nothing else.
#[track_caller]
fn assert_refused(pair: &mut Pair, message: &[u8], reason: Discard) {
    let before = (
        pair.net.sent(),
        pair.host(Side::B).all_discarded(),
        pair.host(Side::B).discarded(reason),
        pair.ike_sas(Side::B).len(),
        pair.host(Side::B).endpoint.half_open(),
    );
    pair.inject(Side::B, message);
    let after = (
        pair.net.sent() - 1,
        pair.host(Side::B).all_discarded() - 1,
        pair.host(Side::B).discarded(reason) - 1,
        pair.ike_sas(Side::B).len(),
        pair.host(Side::B).endpoint.half_open(),
    );
    assert_eq!(before, after);
    let answer = &pair.net.trace.last().unwrap().transmit.bytes;
    assert!(answer.len() < message.len());
    let (header, rest) = Header::parse(answer).unwrap();
    assert!(header.responder_spi.is_zero());
    let nack = notify(NotifyType::TICKET_NACK, &[]);
    assert_eq!(split(header.next_payload, rest), [nack]);
}

#[test]
fn a_peer_made_by_the_formulas_of_the_rfc_resumes_and_its_old_ike_sa_is_gone() {
    let (mut pair, actor, ticket) = insider();
    let old = pair.ike_sa(Side::B).id;
    let mut next = actor.resume(&mut pair, 2, &ticket);
    assert_eq!(pair.ike_sas(Side::B).len(), 1, "the old one");
    let mut payloads = next.auth();
    payloads.push(notify(NotifyType::TICKET_REQUEST, &[]));
    let answer = next.request(&mut pair, ExchangeType::IKE_AUTH, &payloads);
    let answer = answer.unwrap();
    assert_eq!(answer.error(), None);
    assert_eq!(answer.body(PayloadType::ID_R), Some(&identity(Side::B)[..]));
    assert_eq!(answer.body(PayloadType::CERT), None);
    let proof = AuthPayload::parse(answer.body(PayloadType::AUTH).unwrap()).unwrap();
    assert_eq!(proof.method, AuthMethod::SHARED_KEY_MIC);
    assert_eq!(proof.data, next.proof_of_b());
    assert_ne!(pair.ike_sa(Side::B).id, old);
    assert_eq!(pair.children(Side::B).len(), 1);
    assert_eq!(pair.host(Side::B).plane.counts(), (1, 1));
    assert!(next.take_request(&pair).is_none(), "no DELETE");
    // The ticket that came with it is as good as the first one was.
    let (_, ticket) = ticket_of(&answer).unwrap();
    let mut third = next.resume(&mut pair, 3, &ticket);
    let auth = third.auth();
    let answer = third.request(&mut pair, ExchangeType::IKE_AUTH, &auth);
    assert_eq!(answer.unwrap().error(), None);
    assert_eq!(pair.host(Side::B).all_discarded(), 0);
}

#[test]
fn forged_and_cut_tickets_are_refused_and_counted() {
    let (mut pair, _, ticket) = insider();
    let (mut number, mut forged) = (0, vec![vec![], vec![0; 300], vec![1; 2049]]);
    for place in 0..ticket.len() {
        let mut changed = ticket.clone();
        changed[place] ^= 1 << (place % 8);
        forged.push(changed);
    }
    forged.extend(
        (0..ticket.len())
            .step_by(7)
            .map(|len| ticket[..len].to_vec()),
    );
    forged.push([&ticket[..], &[0]].concat());
    for ticket in forged {
        number += 1;
        pair.run_for(millis(100));
        assert_refused(&mut pair, &request(number, &ticket), Discard::BadTicket);
    }
    // Where there is none, there is nothing to answer.
    let payloads = vec![(PayloadType::NONCE, vec![7; 32])];
    let exchange = ExchangeType::IKE_SESSION_RESUME;
    let sent = pair.net.sent();
    pair.inject(Side::B, &first_request(exchange, IkeSpi([9; 8]), payloads));
    let payloads = vec![notify(NotifyType::TICKET_OPAQUE, &ticket)];
    pair.inject(Side::B, &first_request(exchange, IkeSpi([8; 8]), payloads));
    assert_eq!(pair.host(Side::B).discarded(Discard::BadPayload), 2);
    assert_eq!(pair.net.sent(), sent);
    assert_eq!(pair.host(Side::B).endpoint.half_open(), 0);
    assert_eq!(pair.ike_sas(Side::B).len(), 1);
}

#[test]
fn a_ticket_is_good_once_and_not_when_it_was_used_in_the_meantime() {
    let (mut pair, actor, ticket) = insider();
    let mut one = actor.resume(&mut pair, 2, &ticket);
    let mut two = actor.resume(&mut pair, 3, &ticket);
    assert_eq!(pair.host(Side::B).endpoint.half_open(), 2);
    let auth = one.auth();
    let answer = one.request(&mut pair, ExchangeType::IKE_AUTH, &auth);
    assert_eq!(answer.unwrap().error(), None);
    let auth = two.auth();
    let answer = two.request(&mut pair, ExchangeType::IKE_AUTH, &auth);
    let failed = NotifyType::AUTHENTICATION_FAILED;
    assert_eq!(answer.unwrap().error(), Some(failed));
    assert_eq!(pair.ike_sas(Side::B).len(), 1);
    assert_refused(&mut pair, &request(1, &ticket), Discard::StaleTicket);
}

#[test]
fn a_stolen_ticket_opens_nothing_and_ends_nothing() {
    let (mut pair, actor, ticket) = insider();
    let old = pair.ike_sa(Side::B).id;
    // Whoever has seen it can present it, but has no keys.
    let mut thief = actor.resume(&mut pair, 2, &ticket);
    let mut payloads = thief.auth();
    payloads[2] = (
        PayloadType::AUTH,
        proof(AuthMethod::SHARED_KEY_MIC, &[7; 48]),
    );
    let answer = thief.request(&mut pair, ExchangeType::IKE_AUTH, &payloads);
    let failed = NotifyType::AUTHENTICATION_FAILED;
    assert_eq!(answer.unwrap().error(), Some(failed));
    assert_eq!(pair.ike_sa(Side::B).id, old);
    // Nobody becomes another one by it.
    for (place, id) in [(0, "someone.example"), (1, "elsewhere.example")] {
        let mut other = actor.resume(&mut pair, 3 + place as u64, &ticket);
        let mut payloads = other.auth();
        let id: lockgate::ike::Identity = id.parse().unwrap();
        payloads[place].1 = id.to_payload_body();
        let answer = other.request(&mut pair, ExchangeType::IKE_AUTH, &payloads);
        assert_eq!(answer.unwrap().error(), Some(failed));
    }
    assert_eq!(pair.ike_sa(Side::B).id, old);
    // After all that it is still good for its owner.
    let mut owner = actor.resume(&mut pair, 9, &ticket);
    let auth = owner.auth();
    let answer = owner.request(&mut pair, ExchangeType::IKE_AUTH, &auth);
    assert_eq!(answer.unwrap().error(), None);
}

#[test]
fn an_expired_ticket_is_refused() {
    let (mut pair, actor, ticket) = insider_with(|_, setup| {
        setup.connection.rekey_time = seconds(600);
        setup.connection.over_time = seconds(60);
    });
    drop(actor);
    pair.restart(Side::B);
    pair.run_for(seconds(650));
    pair.restart(Side::B);
    let kept = request(1, &ticket);
    pair.inject(Side::B, &kept);
    assert_eq!(pair.host(Side::B).all_discarded(), 0, "still good");
    pair.run_for(seconds(20));
    pair.restart(Side::B);
    assert_refused(&mut pair, &request(2, &ticket), Discard::StaleTicket);
}

#[test]
fn a_ticket_lives_no_longer_than_its_ike_sa_its_authentication_and_a_day() {
    let day = 24 * 3600;
    for (rekey, reauth, life) in [
        (0, 0, day),
        (2 * day, 0, day),
        (600, 0, 660),
        (0, 700, 760),
        (600, 7000, 7060),
    ] {
        let (mut pair, mut actor, _) = insider_with(|_, setup| {
            setup.connection.rekey_time = seconds(rekey);
            setup.connection.reauth_time = seconds(reauth);
            setup.connection.over_time = seconds(60);
        });
        pair.run_for(seconds(100));
        let payloads = vec![notify(NotifyType::TICKET_REQUEST, &[])];
        let answer = actor.request(&mut pair, ExchangeType::INFORMATIONAL, &payloads);
        let (lifetime, _) = ticket_of(&answer.unwrap()).unwrap();
        let life = if life == day { life } else { life - 100 };
        assert!(u64::from(lifetime).abs_diff(life) <= 1, "{lifetime} {life}");
    }
}

#[test]
fn a_ticket_ends_with_an_ike_sa_that_is_deleted_by_whichever_side() {
    let (mut pair, mut actor, ticket) = insider();
    let delete = vec![(PayloadType::DELETE, vec![1, 0, 0, 0])];
    let answer = actor.request(&mut pair, ExchangeType::INFORMATIONAL, &delete);
    assert_eq!(answer.unwrap().error(), None);
    assert!(pair.ike_sas(Side::B).is_empty());
    assert_refused(&mut pair, &request(1, &ticket), Discard::StaleTicket);

    let (mut pair, _, ticket) = insider();
    pair.command(Side::B, terminate_ike());
    pair.run_for(Duration::from_secs(300));
    assert!(pair.ike_sas(Side::B).is_empty());
    pair.inject(Side::B, &request(1, &ticket));
    assert_eq!(pair.host(Side::B).discarded(Discard::StaleTicket), 1);
}

#[test]
fn a_lifetime_of_authentications_that_was_set_later_binds_what_is_resumed() {
    let (mut pair, actor, ticket) = insider();
    let connection = &mut pair.setup(Side::B).connection;
    connection.rekey_time = Duration::from_secs(7200);
    connection.reauth_time = Duration::from_secs(600);
    connection.over_time = Duration::from_secs(60);
    pair.restart(Side::B);
    let mut resumed = actor.resume(&mut pair, 2, &ticket);
    let auth = resumed.auth();
    let answer = resumed.request(&mut pair, ExchangeType::IKE_AUTH, &auth);
    assert_eq!(answer.unwrap().error(), None);
    pair.run_for(Duration::from_secs(650));
    assert_eq!(pair.ike_sas(Side::B).len(), 1);
    pair.run_for(Duration::from_secs(300)); // the peer does not answer the DELETE
    assert!(pair.ike_sas(Side::B).is_empty(), "it was not proven anew");
}

#[test]
fn a_ticket_ends_when_the_connection_or_the_secret_is_another_one() {
    let changes: [fn(&mut Setup); 5] = [
        |setup| setup.secret = "another secret",
        |setup| setup.connection.resumption = false,
        |setup| setup.connection.name = "other".into(),
        |setup| setup.connection.remote.id = "gw-c.example".parse().unwrap(),
        |setup| {
            setup.connection.proposals =
                super::config::ike_proposals(&["aes128gcm16-prfsha256-x25519"]);
        },
    ];
    for (number, change) in changes.into_iter().enumerate() {
        let (mut pair, _, ticket) = insider();
        change(pair.setup(Side::B));
        pair.restart(Side::B);
        println!("change {number}");
        assert_refused(&mut pair, &request(1, &ticket), Discard::StaleTicket);
    }
}

#[test]
fn only_the_initiator_gets_tickets_and_only_where_they_are_made() {
    let (mut pair, mut actor, _) = insider();
    let payloads = vec![notify(NotifyType::TICKET_REQUEST, &[])];
    let answer = actor.request(&mut pair, ExchangeType::INFORMATIONAL, &payloads);
    assert!(ticket_of(&answer.unwrap()).is_some());
    // With a rekey, the next IKE SA is the one to ask on.
    let mut rekey = actor.rekey_ike();
    rekey.push(notify(NotifyType::TICKET_REQUEST, &[]));
    let answer = actor.request(&mut pair, ExchangeType::CREATE_CHILD_SA, &rekey);
    assert!(answer.unwrap().notifies().contains(&NotifyType::TICKET_ACK));
    for without in ["resumption", "keys"] {
        let mut pair = Pair::with(|side, setup| {
            resuming(side, setup);
            if without == "keys" {
                setup.ticket_keys.clear();
            } else {
                setup.connection.resumption = false;
            }
        });
        let mut actor = Actor::half_open(&mut pair, 1);
        let mut payloads = actor.auth();
        payloads.push(notify(NotifyType::TICKET_REQUEST, &[]));
        let answer = actor.request(&mut pair, ExchangeType::IKE_AUTH, &payloads);
        let answer = answer.unwrap();
        assert_eq!(answer.error(), None);
        assert!(answer.notifies().contains(&NotifyType::TICKET_NACK));
        assert!(ticket_of(&answer).is_none());
    }
}

#[test]
fn bad_tickets_are_answered_seldom_and_half_open_ike_sas_stay_few() {
    let (mut pair, _, ticket) = insider_with(|side, setup| {
        if side == Side::B {
            setup.connection.remote_addrs = vec![AddressPattern::Any];
        }
    });
    let stranger = |number: u16| {
        let [high, low] = number.to_be_bytes();
        Path {
            local: SocketAddr::new(Side::B.addr(), 500),
            remote: SocketAddr::from(([100, 64, high, low], 500)),
        }
    };
    let sent = pair.net.sent();
    for number in 0..1000u16 {
        let message = request(number, &[5; 300]);
        pair.inject_on(Side::B, stranger(number), &message);
    }
    let is_nack = |sent: &&Sent| sent.transmit.bytes.len() == Header::LEN + 8;
    let nacks = pair.net.trace[sent..].iter().filter(is_nack).count();
    assert!(
        (20..=50).contains(&nacks),
        "{nacks}; the others are cookies"
    );
    let sent = pair.net.sent();
    for number in 0..1000u16 {
        pair.inject(Side::B, &request(number, &ticket));
    }
    let budget = pair.setup(Side::B).settings.half_open_per_address;
    assert!(pair.host(Side::B).endpoint.half_open() <= budget);
    assert!(pair.host(Side::B).logs().count() <= 100);
    let answers = pair.net.trace[sent..].iter();
    let bytes: usize = answers.map(|sent| sent.transmit.bytes.len()).sum();
    assert!(bytes < 1000 * request(0, &ticket).len());
    pair.run_for(seconds(40));
    assert_eq!(pair.host(Side::B).endpoint.half_open(), 0);
}

#[test]
fn a_repeated_request_gets_the_same_answer_and_half_open_ike_sas_are_not_mixed_up() {
    let (mut pair, _, ticket) = insider();
    let message = request(1, &ticket);
    pair.inject(Side::B, &message);
    let first = pair.net.trace.last().unwrap().transmit.bytes.clone();
    pair.inject(Side::B, &message);
    let again = pair.net.trace.last().unwrap().transmit.bytes.clone();
    assert_eq!(first, again);
    assert_eq!(pair.host(Side::B).discarded(Discard::Retransmission), 1);
    assert_eq!(pair.host(Side::B).endpoint.half_open(), 1);
}

#[test]
fn forged_answers_to_a_ticket_lead_to_an_ordinary_ike_sa_at_worst() {
    type Forge = fn(&Header) -> Vec<u8>;
    let nack: Forge = |header| answer_with(header, &[notify(NotifyType::TICKET_NACK, &[])]);
    let error: Forge = |header| answer_with(header, &[notify(NotifyType::INVALID_SYNTAX, &[])]);
    let other: Forge = |header| {
        let mut header = *header;
        header.responder_spi = IkeSpi([5; 8]);
        answer_with(&header, &[(PayloadType::NONCE, vec![3; 32])])
    };
    let garbage: Forge = |header| answer_with(header, &[(PayloadType::NONCE, vec![3; 5])]);
    for (number, forge) in [nack, error, other, garbage].into_iter().enumerate() {
        let mut pair = Pair::up_with(resuming);
        pair.restart(Side::B);
        while pair.net.trace.last().unwrap().header.exchange != ExchangeType::IKE_SESSION_RESUME {
            pair.run_for(millis(5));
        }
        let header = pair.net.trace.last().unwrap().header;
        pair.inject(Side::A, &forge(&header));
        pair.run_for(seconds(120));
        println!("forgery {number}");
        pair.assert_clean(1);
        pair.finish();
    }
}

fn answer_with(request: &Header, payloads: &[(PayloadType, Vec<u8>)]) -> Vec<u8> {
    let header = Header {
        flags: lockgate::wire::isakmp::Flags::new(false, true),
        ..*request
    };
    lockgate::wire::ikev2::message_bytes(header, join(&payloads.to_vec()))
}

#[test]
fn a_responder_takes_no_ticket() {
    let (mut pair, mut actor, _) = insider();
    let grant = TicketGrant {
        lifetime: 600,
        ticket: &[1; 100],
    };
    let payloads = vec![notify(NotifyType::TICKET_LT_OPAQUE, &grant.encode())];
    let answer = actor.request(&mut pair, ExchangeType::INFORMATIONAL, &payloads);
    assert_eq!(answer.unwrap().payloads, []);
    pair.net.decide(|_| Fate::Drop);
    pair.run_for(seconds(1));
    assert!(
        pair.net
            .from(Side::B, 0)
            .iter()
            .all(|sent| !sent.is(ExchangeType::IKE_SESSION_RESUME, false))
    );
}

/// What B says instead of its ticket.
type Instead = fn(&[u8]) -> (NotifyType, Vec<u8>);

/// B's answer with something else in place of its ticket, by the keys that B has written down.
fn with_ticket_changed(pair: &mut Pair, answer: &[u8], instead: Instead) -> Vec<u8> {
    let lines = pair.host(Side::B).keys.iter();
    let mut lines = lines.filter(|line| line.table == KeyTable::Ikev2Decryption);
    let line = lines.next_back().unwrap().line.as_bytes().to_vec();
    let sk_er = line.split(|byte| *byte == b',').nth(3).unwrap();
    let sk_er = data_encoding::HEXLOWER.decode(sk_er).unwrap();
    let key = PacketKey::new(SUITE.cipher, &sk_er, &[]).unwrap();
    let (first, text) = open_with(&key, answer);
    let mut payloads = split(first, &text);
    let is_ticket = |(kind, body): &(PayloadType, Vec<u8>)| {
        *kind == PayloadType::NOTIFY
            && Notify::parse(body).unwrap().kind == NotifyType::TICKET_LT_OPAQUE
    };
    let granted = payloads.iter().position(is_ticket);
    let granted = granted.map(|place| payloads.remove(place).1);
    let (header, _) = Header::parse(answer).unwrap();
    if granted.is_some() || header.exchange == ExchangeType::IKE_AUTH {
        let data = granted.map_or(Vec::new(), |body| body[4..].to_vec());
        let (kind, data) = instead(&data);
        payloads.push(notify(kind, &data));
    }
    let (first, text) = join(&payloads);
    seal_with(&key, header, 1 << 40, first, &text)
}

#[test]
fn tickets_that_a_peer_gives_badly_or_unasked_are_not_kept() {
    const GIVEN: NotifyType = NotifyType::TICKET_LT_OPAQUE;
    // Whether it was asked for, is kept, is counted.
    let cases: [(&str, Instead, [bool; 3]); 9] = [
        (
            "as it came",
            |data| (GIVEN, data.to_vec()),
            [true, true, false],
        ),
        (
            "the longest",
            |_| (GIVEN, [&[0, 0, 2, 88][..], &[1; 2048]].concat()),
            [true, true, false],
        ),
        (
            "too long",
            |_| (GIVEN, [&[0, 0, 2, 88][..], &[1; 2049]].concat()),
            [true, false, true],
        ),
        (
            "half a lifetime",
            |_| (GIVEN, vec![0, 0]),
            [true, false, true],
        ),
        (
            "no ticket",
            |_| (GIVEN, vec![0, 0, 2, 88]),
            [true, false, true],
        ),
        (
            "no time to live",
            |data| (GIVEN, [&[0; 4], &data[4..]].concat()),
            [true, false, false],
        ),
        (
            "as it is presented",
            |data| (NotifyType::TICKET_OPAQUE, data[4..].to_vec()),
            [true, false, false],
        ),
        (
            "refused",
            |_| (NotifyType::TICKET_NACK, vec![]),
            [true, false, false],
        ),
        (
            "unasked",
            |_| (GIVEN, [&[0, 0, 2, 88][..], &[1; 300]].concat()),
            [false, false, false],
        ),
    ];
    for (name, instead, [asked, kept, counted]) in cases {
        let mut pair = Pair::with(|side, setup| {
            resuming(side, setup);
            setup.settings.key_log = true;
            setup.connection.resumption = asked || side == Side::B;
        });
        pair.net.decide(|sent| {
            let changed = sent.from == Side::B && sent.header.exchange != ExchangeType::IKE_SA_INIT;
            if changed { Fate::Drop } else { Fate::Deliver }
        });
        pair.command(Side::A, initiate("lan"));
        let mut seen = 0;
        for _ in 0..500 {
            pair.run_for(millis(1));
            let sent = pair.net.from(Side::B, seen);
            let sealed = sent.iter().filter(|sent| {
                sent.header.exchange != ExchangeType::IKE_SA_INIT && sent.header.flags.response()
            });
            let answers: Vec<_> = sealed.map(|sent| sent.transmit.bytes.clone()).collect();
            seen = pair.net.sent();
            for answer in answers {
                let changed = with_ticket_changed(&mut pair, &answer, instead);
                pair.inject(Side::A, &changed);
            }
        }
        assert_eq!(pair.children(Side::A).len(), 1, "{name}");
        let bad = pair.host(Side::A).discarded(Discard::BadTicket);
        assert_eq!(bad > 0, counted, "{name}");
        pair.net.heal();
        pair.restart(Side::B);
        let since = pair.net.sent();
        pair.run_for(seconds(90));
        pair.assert_clean(1);
        let first = first_messages(&pair, since);
        assert_eq!(first.contains(&"resume"), kept, "{name}: {first:?}");
    }
}
