//! Quick crash detection (RFC 6290): who has lost an IKE SA proves it, and nobody else can.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use lockgate::crypto::Secret;
use lockgate::ike::{Discard, DpdAction, Path};
use lockgate::wire::ikev2::{Notify, NotifyType, message_bytes};
use lockgate::wire::isakmp::{ExchangeType, Flags, Header, IkeSpi, PayloadType};

use super::actor::{Actor, Payloads, join, notify, split};
use super::config::{Setup, Side};
use super::network::{Fate, Sent};
use super::pair::{Pair, initiate, rekey_ike, seconds};

/// Both gateways make tokens, and start again what a dead peer had.
fn token_makers(side: Side, setup: &mut Setup) {
    let secret = Secret::from(vec![side as u8 + 1; 32]);
    setup.settings.crash_secret = Some(Arc::new(secret));
    setup.connection.dpd_delay = seconds(20);
    setup.children[0].dpd_action = DpdAction::Restart;
}

/// The tokens of a message in clear.
fn tokens(message: &Sent) -> Vec<Vec<u8>> {
    let bytes = &message.transmit.bytes;
    let (header, rest) = Header::parse(bytes).unwrap();
    if header.next_payload != PayloadType::NOTIFY {
        return Vec::new();
    }
    let payloads = split(header.next_payload, rest);
    let notifies = payloads
        .iter()
        .filter(|(kind, _)| *kind == PayloadType::NOTIFY);
    let notifies = notifies.map(|(_, body)| Notify::parse(body).unwrap());
    let tokens = notifies.filter(|notify| notify.kind == NotifyType::QUICK_CRASH_DETECTION);
    tokens
        .inspect(|notify| assert_eq!((notify.protocol, notify.spi), (1, &[][..])))
        .map(|notify| notify.data.to_vec())
        .collect()
}

/// Tokens that were told in clear since the trace had `since` entries.
fn told(pair: &Pair, since: usize) -> Vec<Vec<u8>> {
    pair.net.trace[since..].iter().flat_map(tokens).collect()
}

/// How long it takes, after a restart, until the other side asks and the tunnel is up again.
fn recovery(pair: &mut Pair, restarted: Side) -> Duration {
    pair.restart(restarted);
    let start = pair.now;
    let before = pair.ike_sas(restarted.other())[0].id;
    for _ in 0..600 {
        pair.run_for(Duration::from_millis(100));
        let sas = pair.ike_sas(restarted.other());
        if sas.len() == 1 && sas[0].id != before && pair.ike_sas(restarted).len() == 1 {
            break;
        }
    }
    let time = pair.now - start;
    pair.run_for(seconds(5));
    pair.assert_tunnels(1);
    time
}

#[test]
fn a_peer_that_has_restarted_proves_it_with_its_first_answer() {
    for restarted in Side::BOTH {
        let mut pair = Pair::up_with(token_makers);
        let since = pair.net.sent();
        let time = recovery(&mut pair, restarted);
        assert!(time < seconds(27), "{time:?} with a check each 20 to 25 s");
        assert_eq!(told(&pair, since).len(), 1);
        assert!(
            pair.host(restarted.other())
                .logged("the peer has lost its state")
        );
        pair.finish();

        // Without tokens the check has to go unanswered for a while.
        let mut pair = Pair::up_with(|side, setup| {
            token_makers(side, setup);
            setup.settings.crash_secret = None;
        });
        let since = pair.net.sent();
        let slow = recovery(&mut pair, restarted);
        assert!(slow > time + seconds(3), "{slow:?}");
        assert_eq!(told(&pair, since).len(), 0);
        pair.finish();
    }
}

#[test]
fn a_rekeyed_ike_sa_has_a_token_of_each_side_whoever_has_rekeyed() {
    for rekeyed_by in Side::BOTH {
        for restarted in Side::BOTH {
            for proposal in [
                "aes256gcm16-prfsha384-x25519",
                "aes256gcm16-prfsha384-x25519-ke1_mlkem768",
            ] {
                let mut pair = Pair::up_with(|side, setup| {
                    token_makers(side, setup);
                    setup.connection.proposals = super::config::ike_proposals(&[proposal]);
                });
                pair.command(rekeyed_by, rekey_ike());
                pair.settle();
                pair.assert_clean(1);
                let since = pair.net.sent();
                recovery(&mut pair, restarted);
                assert_eq!(told(&pair, since).len(), 1, "{rekeyed_by:?} {restarted:?}");
                pair.finish();
            }
        }
    }
}

#[test]
fn the_token_after_a_rekey_survives_lost_and_doubled_messages() {
    let sent = |fate: Option<(usize, Fate)>| {
        let mut pair = Pair::up_with(token_makers);
        let first = pair.net.sent();
        if let Some((number, fate)) = fate {
            pair.net.spoil(first + number, fate);
        }
        pair.command(Side::A, rekey_ike());
        pair.run_for(seconds(15));
        pair.net.heal();
        let count = pair.net.sent() - first;
        pair.assert_clean(1);
        let since = pair.net.sent();
        recovery(&mut pair, Side::A);
        assert_eq!(told(&pair, since).len(), 1, "{fate:?}");
        pair.finish();
        count
    };
    let count = sent(None);
    assert_eq!(count, 6, "the rekey, the token and the old one's end");
    for number in 0..count {
        for fate in [Fate::Drop, Fate::Twice(seconds(1)), Fate::Late(seconds(2))] {
            sent(Some((number, fate)));
        }
    }
}

/// A message in clear for an IKE SA.
fn clear(
    spis: (IkeSpi, IkeSpi),
    exchange: ExchangeType,
    flags: Flags,
    payloads: &Payloads,
) -> Vec<u8> {
    let header = Header {
        initiator_spi: spis.0,
        responder_spi: spis.1,
        next_payload: PayloadType::NONE,
        version: Header::VERSION_2_0,
        exchange,
        flags,
        message_id: 0,
        length: 0,
    };
    message_bytes(header, join(payloads))
}

/// A request that looks protected and is not.
fn garbage(spis: (IkeSpi, IkeSpi), initiator: bool) -> Vec<u8> {
    let payloads = vec![(PayloadType::SK, vec![7; 40])];
    let flags = Flags::new(initiator, false);
    clear(spis, ExchangeType::INFORMATIONAL, flags, &payloads)
}

/// A peer at A's place that has given B `token`, and the SPIs of its IKE SA.
fn insider(token: &[u8]) -> (Pair, Actor, (IkeSpi, IkeSpi)) {
    let mut pair = Pair::with(token_makers);
    let mut actor = Actor::half_open(&mut pair, 1);
    let mut payloads = actor.auth();
    payloads.push(notify(NotifyType::QUICK_CRASH_DETECTION, token));
    let answer = actor.request(&mut pair, ExchangeType::IKE_AUTH, &payloads);
    assert_eq!(answer.unwrap().error(), None);
    let [one, two] = actor.spis();
    (pair, actor, (IkeSpi(one), IkeSpi(two)))
}

fn crash(spis: (IkeSpi, IkeSpi), tokens: &[&[u8]]) -> Vec<u8> {
    let mut payloads = vec![notify(NotifyType::INVALID_IKE_SPI, &[])];
    let tokens = tokens
        .iter()
        .map(|token| notify(NotifyType::QUICK_CRASH_DETECTION, token));
    payloads.extend(tokens);
    let flags = Flags::new(true, true);
    clear(spis, ExchangeType::INFORMATIONAL, flags, &payloads)
}

#[test]
fn only_the_token_that_the_peer_gave_ends_its_ike_sa() {
    let token = [5; 32];
    let (mut pair, _, spis) = insider(&token);
    let mut near = token;
    near[31] ^= 1;
    let swapped = (spis.1, spis.0);
    let wrong: [Vec<u8>; 7] = [
        crash(spis, &[&near]),
        crash(spis, &[&token[..31]]),
        crash(spis, &[&[]]),
        crash(spis, &[&[5; 33]]),
        crash(spis, &[&[0; 32], &[1; 32], &[2; 32], &[3; 32], &token]),
        crash(swapped, &[&token]),
        crash((spis.0, IkeSpi([9; 8])), &[&token]),
    ];
    for (number, message) in wrong.iter().enumerate() {
        let sent = pair.net.sent();
        pair.inject(Side::B, message);
        assert_eq!(pair.ike_sas(Side::B).len(), 1, "message {number}");
        // What names an IKE SA that is not there is a reason to ask the peer, as ever.
        if number < 5 {
            assert_eq!(pair.net.sent(), sent, "message {number} is not answered");
        }
    }
    assert_eq!(pair.host(Side::B).discarded(Discard::BadCrashToken), 5);
    assert_eq!(pair.host(Side::B).all_discarded(), 7);
    pair.inject(
        Side::B,
        &crash(spis, &[&[0; 32], &[1; 32], &[2; 32], &token]),
    );
    assert!(pair.ike_sas(Side::B).is_empty());
    assert_eq!(pair.host(Side::B).plane.counts(), (0, 0));
    assert_eq!(pair.host(Side::B).all_discarded(), 7);
}

#[test]
fn a_token_is_taken_from_any_address_and_in_any_shape_of_message() {
    for exchange in [ExchangeType::INFORMATIONAL, ExchangeType::CREATE_CHILD_SA] {
        for flags in [(true, true), (false, true), (true, false), (false, false)] {
            let token = [6; 128];
            let (mut pair, _, spis) = insider(&token);
            let payloads = vec![notify(NotifyType::QUICK_CRASH_DETECTION, &token)];
            let flags = Flags::new(flags.0, flags.1);
            let path = Path {
                local: SocketAddr::new(Side::B.addr(), 4500),
                remote: "203.0.113.77:1234".parse().unwrap(),
            };
            let sent = pair.net.sent();
            pair.inject_on(Side::B, path, &clear(spis, exchange, flags, &payloads));
            assert!(pair.ike_sas(Side::B).is_empty(), "{exchange} {flags:?}");
            assert_eq!(pair.net.sent(), sent, "silently");
        }
    }
}

#[test]
fn a_token_may_be_replaced_under_protection_and_bad_lengths_are_none() {
    let (mut pair, mut actor, spis) = insider(&[5; 32]);
    let payloads = vec![notify(NotifyType::QUICK_CRASH_DETECTION, &[8; 16])];
    let answer = actor.request(&mut pair, ExchangeType::INFORMATIONAL, &payloads);
    assert_eq!(answer.unwrap().payloads, []);
    for wrong in [0, 15, 129] {
        let data = vec![9; wrong];
        let payloads = vec![notify(NotifyType::QUICK_CRASH_DETECTION, &data)];
        actor.request(&mut pair, ExchangeType::INFORMATIONAL, &payloads);
        pair.inject(Side::B, &crash(spis, &[&data]));
    }
    pair.inject(Side::B, &crash(spis, &[&[5; 32]]));
    assert_eq!(pair.ike_sas(Side::B).len(), 1);
    pair.inject(Side::B, &crash(spis, &[&[8; 16]]));
    assert!(pair.ike_sas(Side::B).is_empty());
}

/// The token that B has given to `actor`.
fn token_of_b(pair: &mut Pair, actor: &mut Actor) -> Vec<u8> {
    let answer = actor.request(pair, ExchangeType::IKE_AUTH, &actor.auth());
    let answer = answer.unwrap();
    let kinds: Vec<_> = answer.payloads.iter().map(|(kind, _)| *kind).collect();
    let place = |wanted| kinds.iter().position(|kind| *kind == wanted).unwrap();
    assert!(place(PayloadType::AUTH) < place(PayloadType::NOTIFY));
    assert!(place(PayloadType::NOTIFY) < place(PayloadType::SA));
    let notifies = answer
        .payloads
        .iter()
        .filter(|(kind, _)| *kind == PayloadType::NOTIFY);
    let mut notifies = notifies.map(|(_, body)| Notify::parse(body).unwrap());
    let token = notifies.find(|notify| notify.kind == NotifyType::QUICK_CRASH_DETECTION);
    token.unwrap().data.to_vec()
}

#[test]
fn a_token_of_a_living_ike_sa_is_told_to_nobody() {
    let mut pair = Pair::with(token_makers);
    let mut actor = Actor::half_open(&mut pair, 1);
    let token = token_of_b(&mut pair, &mut actor);
    let [one, two] = actor.spis();
    let (one, two, other) = (IkeSpi(one), IkeSpi(two), IkeSpi([9; 8]));
    let since = pair.net.sent();
    for spis in [
        (one, two),
        (two, one),
        (one, one),
        (two, two),
        (one, other),
        (other, two),
        (other, one),
        (two, other),
        (one, IkeSpi::ZERO),
    ] {
        for initiator in [true, false] {
            pair.inject(Side::B, &garbage(spis, initiator));
        }
    }
    assert!(!told(&pair, since).contains(&token));
    pair.restart(Side::B);
    let since = pair.net.sent();
    // As initiator of the same IKE SA, B would have had another one.
    pair.inject(Side::B, &garbage((one, two), false));
    pair.inject(Side::B, &garbage((one, two), true));
    let told = told(&pair, since);
    assert_eq!(told.len(), 2);
    assert_ne!(told[0], token);
    assert_eq!(told[1], token);
}

#[test]
fn tokens_differ_between_gateways_ike_sas_and_ends() {
    let mut all = Vec::new();
    for side in Side::BOTH {
        let mut pair = Pair::with(token_makers);
        for (one, two) in [(1, 2), (2, 1), (1, 3)] {
            for initiator in [true, false] {
                let since = pair.net.sent();
                let spis = (IkeSpi([one; 8]), IkeSpi([two; 8]));
                pair.inject(side, &garbage(spis, initiator));
                let mut told = told(&pair, since);
                assert_eq!(told.len(), 1);
                assert_eq!(told[0].len(), 32);
                all.append(&mut told);
            }
        }
    }
    let count = all.len();
    all.sort();
    all.dedup();
    assert_eq!((count, all.len()), (12, 12));
}

#[test]
fn only_requests_that_look_protected_are_told_a_token_and_seldom() {
    let mut pair = Pair::with(token_makers);
    let spis = (IkeSpi([1; 8]), IkeSpi([2; 8]));
    let since = pair.net.sent();
    let flags = Flags::new(true, false);
    let open = vec![notify(NotifyType::COOKIE2, &[1; 40])];
    let sealed = vec![(PayloadType::SK, vec![7; 40])];
    let exchange = ExchangeType::INFORMATIONAL;
    pair.inject(Side::B, &clear(spis, exchange, flags, &open));
    let answer = Flags::new(true, true);
    pair.inject(Side::B, &clear(spis, exchange, answer, &sealed));
    assert_eq!(told(&pair, since).len(), 0);
    for number in 0..1000u16 {
        let spis = (
            IkeSpi([number.to_be_bytes(); 4].concat().try_into().unwrap()),
            spis.1,
        );
        pair.inject(Side::B, &garbage(spis, true));
    }
    assert!(told(&pair, since).len() <= 20, "from one address");
    // Another address is not affected.
    let path = Path {
        local: SocketAddr::new(Side::B.addr(), 500),
        remote: "203.0.113.77:500".parse().unwrap(),
    };
    let since = pair.net.sent();
    pair.inject_on(Side::B, path, &garbage(spis, true));
    assert_eq!(told(&pair, since).len(), 1);
    for number in 0..2000u16 {
        let [high, low] = number.to_be_bytes();
        let remote = SocketAddr::from(([100, 64, high, low], 500));
        pair.inject_on(Side::B, Path { remote, ..path }, &garbage(spis, true));
    }
    assert!(told(&pair, since).len() <= 1000, "in all");
    assert!(pair.host(Side::B).logs().count() <= 60);
}

#[test]
fn guesses_of_a_token_are_limited_in_rate() {
    let (mut pair, _, spis) = insider(&[5; 32]);
    for number in 0..1000u16 {
        let guess = [&number.to_be_bytes()[..], &[5; 30]].concat();
        pair.inject(Side::B, &crash(spis, &[&guess]));
    }
    assert!(pair.host(Side::B).discarded(Discard::BadCrashToken) <= 20);
    assert!(pair.host(Side::B).discarded(Discard::RateLimited) >= 980);
    assert_eq!(pair.ike_sas(Side::B).len(), 1);
    assert!(pair.host(Side::B).logs().count() <= 60);
}

#[test]
fn what_was_asked_for_on_a_lost_ike_sa_is_set_up_on_the_next_one() {
    let mut pair = Pair::up_with(|side, setup| {
        token_makers(side, setup);
        setup.add_second_child(side);
    });
    pair.restart(Side::B);
    let id = pair.command(Side::A, initiate("lab"));
    pair.run_for(seconds(3));
    assert!(matches!(pair.result(Side::A, id), Some(Ok(_))));
    pair.assert_tunnels(2);
    pair.finish();
}

#[test]
fn an_end_that_the_peer_does_not_hear_of_is_an_end() {
    let mut pair = Pair::up_with(token_makers);
    pair.restart(Side::B);
    let id = pair.command(Side::A, super::pair::terminate_ike());
    pair.run_for(seconds(3));
    assert!(matches!(pair.result(Side::A, id), Some(Ok(_))));
    pair.host(Side::A).assert_empty("A");
    pair.finish();
}
