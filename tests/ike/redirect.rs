//! REDIRECT (RFC 5685): gateways that send initiators away, initiators that go, and who may do neither.

use std::net::{IpAddr, SocketAddr};

use lockgate::ike::{AddressPattern, Command, Discard, Path, Redirected};
use lockgate::wire::ikev2::{Gateway, Notify, NotifyType, message_bytes};
use lockgate::wire::isakmp::{ExchangeType, Flags, Header, IkeSpi, PayloadType};

use super::actor::{Actor, Payloads, init_request, join, ke, notify, sa, split};
use super::config::{Setup, Side, ike_proposals};
use super::network::{Fate, Sent};
use super::pair::{Pair, initiate, millis, rekey_ike, seconds};

/// The second address of B.
pub(crate) const ELSEWHERE: &str = "192.0.2.22";

pub(crate) fn addr(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// A name, or any address: also one that no configuration may name.
pub(crate) fn gateway(text: &str) -> Gateway {
    let address = text.parse().map(Gateway::Address);
    address.unwrap_or_else(|_| text.parse().unwrap())
}

/// A follows redirects, B has two addresses.
fn follower(side: Side, setup: &mut Setup) {
    match side {
        Side::A => setup.connection.follow_redirects = true,
        Side::B => setup.connection.local_addrs = vec![AddressPattern::Any],
    }
}

pub(crate) fn pair_with(change: impl Fn(Side, &mut Setup)) -> Pair {
    let mut pair = Pair::with(|side, setup| {
        follower(side, setup);
        change(side, setup);
    });
    pair.net
        .settle_at(Side::B, &[Side::B.addr(), addr(ELSEWHERE)]);
    pair
}

/// B sends everybody to its second address.
pub(crate) fn sending_away(side: Side, setup: &mut Setup) {
    if side == Side::B {
        setup.connection.redirect = Some(gateway(ELSEWHERE));
    }
}

pub(crate) fn up(pair: &mut Pair) {
    let id = pair.command(Side::A, initiate("lan"));
    pair.settle();
    assert!(matches!(pair.result(Side::A, id), Some(Ok(_))));
    pair.assert_tunnels(1);
}

/// Notifications of a message in clear.
pub(crate) fn notifies(sent: &Sent) -> Vec<(NotifyType, Vec<u8>)> {
    let (header, rest) = Header::parse(&sent.transmit.bytes).unwrap();
    let payloads = split(header.next_payload, rest);
    let notifies = payloads
        .iter()
        .filter(|(kind, _)| *kind == PayloadType::NOTIFY);
    let notifies = notifies.map(|(_, body)| Notify::parse(body).unwrap());
    notifies
        .map(|notify| (notify.kind, notify.data.to_vec()))
        .collect()
}

#[track_caller]
pub(crate) fn assert_at(pair: &Pair, place: &str) {
    assert_eq!(pair.ike_sa(Side::A).remote.ip(), addr(place));
    assert_eq!(pair.ike_sa(Side::B).local.ip(), addr(place));
}

#[test]
fn an_initiator_is_sent_elsewhere_with_the_first_answer() {
    let mut pair = pair_with(sending_away);
    up(&mut pair);
    assert_at(&pair, ELSEWHERE);
    let [request, answer, again] = &pair.net.trace[..3] else {
        panic!("three messages");
    };
    let supported = (NotifyType::REDIRECT_SUPPORTED, vec![]);
    assert!(notifies(request).contains(&supported));
    // RFC 5685 §9.2: type, length, address, and the nonce of the request.
    let [(NotifyType::REDIRECT, data)] = &notifies(answer)[..] else {
        panic!("a REDIRECT and nothing else");
    };
    assert_eq!(data[..6], [1, 4, 192, 0, 2, 22]);
    assert_eq!(data[6..], nonce(request));
    let from = (NotifyType::REDIRECTED_FROM, vec![1, 4, 192, 0, 2, 2]);
    assert!(notifies(again).contains(&from));
    assert!(!notifies(again).contains(&supported));
    assert_ne!(nonce(again), nonce(request));
    assert_ne!(again.header.initiator_spi, request.header.initiator_spi);
    assert_eq!(pair.host(Side::B).all_discarded(), 0);
    pair.finish();
}

#[test]
fn an_initiator_that_does_not_go_is_served() {
    let mut pair = pair_with(|side, setup| {
        sending_away(side, setup);
        setup.connection.follow_redirects = false;
    });
    up(&mut pair);
    assert_eq!(pair.ike_sa(Side::A).remote.ip(), Side::B.addr());
    let sent = notifies(&pair.net.trace[0]);
    assert!(
        sent.iter()
            .all(|(kind, _)| *kind != NotifyType::REDIRECT_SUPPORTED)
    );
    pair.finish();
}

#[test]
fn whoever_is_where_it_is_sent_to_is_served() {
    let mut pair = pair_with(|side, setup| {
        sending_away(side, setup);
        if side == Side::A {
            setup.connection.remote_addrs = vec![AddressPattern::Net(addr(ELSEWHERE).into())];
        }
    });
    up(&mut pair);
    let requests = pair.net.from(Side::A, 0);
    let first = requests
        .iter()
        .filter(|sent| sent.is(ExchangeType::IKE_SA_INIT, false));
    assert_eq!(first.count(), 1);
    pair.finish();
}

/// B answers IKE_SA_INIT before it knows that it sends away, as where another connection does not.
pub(crate) fn redirected_in_auth(change: impl Fn(Side, &mut Setup)) -> Pair {
    let mut pair = pair_with(change);
    pair.command(Side::A, initiate("lan"));
    let mut changed = pair.setup(Side::B).clone();
    sending_away(Side::B, &mut changed);
    pair.run_for(millis(15));
    let now = pair.now;
    pair.host(Side::B).reload(now, changed.pad());
    pair.collect();
    pair
}

#[test]
fn an_initiator_that_has_proven_who_it_is_is_sent_elsewhere_without_a_child() {
    let mut pair = redirected_in_auth(|_, _| {});
    pair.settle();
    pair.run_for(seconds(1));
    assert_at(&pair, ELSEWHERE);
    pair.assert_clean(1);
    pair.finish();
}

#[test]
fn every_lost_or_doubled_message_of_a_redirect_is_made_good() {
    for in_auth in [false, true] {
        for number in 0..9 {
            for fate in [
                Fate::Drop,
                Fate::Twice(millis(700)),
                Fate::Late(millis(1500)),
            ] {
                let mut pair = if in_auth {
                    let mut pair = redirected_in_auth(|_, _| {});
                    pair.net.spoil(number, fate);
                    pair
                } else {
                    let mut pair = pair_with(sending_away);
                    pair.net.spoil(number, fate);
                    pair.command(Side::A, initiate("lan"));
                    pair
                };
                pair.run_for(seconds(120));
                assert_at(&pair, ELSEWHERE);
                pair.assert_clean(1);
                pair.finish();
            }
        }
    }
}

pub(crate) fn redirect(to: &str) -> Command {
    Command::Redirect {
        whom: Redirected {
            ike: Some("site".into()),
            ..Redirected::default()
        },
        gateway: gateway(to),
    }
}

#[test]
fn an_established_peer_moves_to_another_gateway_without_a_gap() {
    for rekeyed_by in [None, Some(Side::A), Some(Side::B)] {
        let mut pair = pair_with(|_, _| {});
        up(&mut pair);
        if let Some(side) = rekeyed_by {
            pair.command(side, rekey_ike());
            pair.settle();
        }
        pair.start_traffic(millis(3));
        let id = pair.command(Side::B, redirect(ELSEWHERE));
        assert_eq!(pair.result(Side::B, id).unwrap().unwrap().matches, 1);
        pair.run_for(seconds(8));
        pair.stop_traffic();
        assert_eq!(pair.lost_packets, 0);
        assert_at(&pair, ELSEWHERE);
        pair.assert_clean(1);
        pair.finish();
    }
}

#[test]
fn only_the_gateway_redirects_and_only_who_goes() {
    let mut pair = pair_with(|_, _| {});
    up(&mut pair);
    let since = pair.net.sent();
    for (side, command) in [
        (Side::A, redirect("203.0.113.9")),
        (
            Side::B,
            Command::Redirect {
                whom: Redirected {
                    peer_ip: Some(AddressPattern::Net("203.0.113.0/24".parse().unwrap())),
                    ..Redirected::default()
                },
                gateway: gateway(ELSEWHERE),
            },
        ),
        (
            Side::B,
            Command::Redirect {
                whom: Redirected {
                    peer_id: Some("*.elsewhere.example".parse().unwrap()),
                    ..Redirected::default()
                },
                gateway: gateway(ELSEWHERE),
            },
        ),
    ] {
        let id = pair.command(side, command);
        assert_eq!(pair.failure(side, id), "no matching SA found");
    }
    assert_eq!(pair.net.sent(), since);
    pair.finish();

    let mut pair = pair_with(|_, setup| setup.connection.follow_redirects = false);
    up(&mut pair);
    let id = pair.command(Side::B, redirect(ELSEWHERE));
    assert_eq!(pair.failure(Side::B, id), "no matching SA found");
    pair.finish();
}

#[test]
fn a_peer_that_was_sent_away_and_stays_is_closed_in_time() {
    let mut pair = pair_with(|_, _| {});
    up(&mut pair);
    pair.gapless = false;
    let id = pair.command(Side::B, redirect("203.0.113.9")); // where nobody answers
    assert!(pair.result(Side::B, id).unwrap().is_ok());
    pair.run_for(seconds(29));
    assert!(pair.ike_sas(Side::B).len() == 1);
    pair.run_for(seconds(3));
    assert!(pair.ike_sas(Side::B).is_empty());
    assert!(
        pair.host(Side::B)
            .logged("the peer was sent to another gateway")
    );
    pair.run_for(seconds(120));
    pair.finish();
}

#[test]
fn a_gateway_whose_successor_does_not_answer_is_tried_again() {
    let mut pair = pair_with(|side, setup| {
        if side == Side::B {
            setup.connection.redirect = Some(gateway("203.0.113.9"));
        }
        assert_eq!(setup.connection.keyingtries, 1);
    });
    pair.command(Side::A, initiate("lan"));
    pair.run_for(seconds(20));
    let mut plain = pair.setup(Side::B).clone();
    plain.connection.redirect = None;
    let now = pair.now;
    pair.host(Side::B).reload(now, plain.pad());
    pair.collect();
    pair.run_for(seconds(60));
    assert_eq!(pair.ike_sa(Side::A).remote.ip(), Side::B.addr());
    pair.finish();
}

/// The nonce of an IKE_SA_INIT request.
fn nonce(sent: &Sent) -> Vec<u8> {
    let (header, rest) = Header::parse(&sent.transmit.bytes).unwrap();
    let payloads = split(header.next_payload, rest);
    let mut nonces = payloads
        .into_iter()
        .filter(|(kind, _)| *kind == PayloadType::NONCE);
    nonces.next().unwrap().1
}

/// An answer to A's last IKE_SA_INIT, in the name of whom it asked.
fn answer(pair: &mut Pair, payloads: &Payloads) {
    let request = pair.net.from(Side::A, 0).pop().unwrap().clone();
    assert!(request.is(ExchangeType::IKE_SA_INIT, false));
    let header = Header {
        responder_spi: IkeSpi::ZERO,
        flags: Flags::new(false, true),
        ..request.header
    };
    let path = Path {
        local: SocketAddr::new(Side::A.addr(), 500),
        remote: request.transmit.path.remote,
    };
    pair.inject_on(Side::A, path, &message_bytes(header, join(payloads)));
}

fn asked(pair: &Pair) -> IpAddr {
    let request = pair.net.from(Side::A, 0);
    request.last().unwrap().transmit.path.remote.ip()
}

#[test]
fn a_forged_first_answer_sends_nobody_anywhere() {
    let mut pair = pair_with(|_, _| {});
    pair.net.decide(|_| Fate::Drop);
    pair.command(Side::A, initiate("lan"));
    let real = nonce(&pair.net.trace[0]);
    let to = gateway("203.0.113.9");
    let mut near = real.clone();
    near[0] ^= 1;
    let sent = pair.net.sent();
    for (data, reason) in [
        (to.encode(&near), Discard::Unauthenticated),
        (to.encode(&[]), Discard::Unauthenticated),
        (to.encode(&real[1..]), Discard::Unauthenticated),
        (
            [to.encode(&real), vec![0]].concat(),
            Discard::Unauthenticated,
        ),
        (vec![1, 4, 203], Discard::BadPayload),
        (vec![9, 4, 203, 0, 113, 9], Discard::BadPayload),
        (gateway("gw.example").encode(&real), Discard::BadRedirect),
        (gateway("192.0.2.2").encode(&real), Discard::BadRedirect),
        (gateway("192.0.2.1").encode(&real), Discard::BadRedirect),
        (gateway("0.0.0.0").encode(&real), Discard::BadRedirect),
        (gateway("127.0.0.1").encode(&real), Discard::BadRedirect),
        (
            gateway("255.255.255.255").encode(&real),
            Discard::BadRedirect,
        ),
        (gateway("224.0.0.1").encode(&real), Discard::BadRedirect),
        (gateway("ff02::1").encode(&real), Discard::BadRedirect),
    ] {
        let before = pair.host(Side::A).discarded(reason);
        answer(&mut pair, &vec![notify(NotifyType::REDIRECT, &data)]);
        assert_eq!(pair.host(Side::A).discarded(reason), before + 1, "{data:?}");
    }
    assert_eq!(pair.net.sent(), sent);
    pair.net.heal();
    pair.run_for(seconds(5));
    pair.assert_tunnels(1);
    pair.finish();
}

#[test]
fn redirects_in_a_circle_come_to_an_end() {
    let mut pair = pair_with(|_, _| {});
    pair.net.decide(|_| Fate::Drop);
    pair.command(Side::A, initiate("lan"));
    for number in 1..=5u8 {
        let to = IpAddr::from([203, 0, 113, 1 + number % 2]);
        let nonce = nonce(pair.net.from(Side::A, 0).last().unwrap());
        let data = Gateway::Address(to).encode(&nonce);
        answer(&mut pair, &vec![notify(NotifyType::REDIRECT, &data)]);
        assert_eq!(asked(&pair), to);
    }
    let last = asked(&pair);
    let nonce = nonce(pair.net.from(Side::A, 0).last().unwrap());
    let data = gateway("203.0.113.77").encode(&nonce);
    answer(&mut pair, &vec![notify(NotifyType::REDIRECT, &data)]);
    assert_eq!(asked(&pair), last);
    assert_eq!(pair.host(Side::A).discarded(Discard::BadRedirect), 1);
    assert!(pair.host(Side::A).logged("too many redirects"));
    pair.run_for(seconds(120));
    pair.assert_nothing_left();
}

#[test]
fn who_does_not_follow_redirects_is_not_moved_by_one() {
    let mut pair = Pair::new();
    pair.net.decide(|_| Fate::Drop);
    pair.command(Side::A, initiate("lan"));
    let nonce = nonce(&pair.net.trace[0]);
    let data = gateway("203.0.113.9").encode(&nonce);
    answer(&mut pair, &vec![notify(NotifyType::REDIRECT, &data)]);
    assert_eq!(asked(&pair), Side::B.addr());
    assert_eq!(pair.host(Side::A).all_discarded(), 1);
    pair.net.heal();
    pair.run_for(seconds(5));
    pair.assert_tunnels(1);
    pair.finish();
}

#[test]
fn a_responder_is_sent_nowhere_by_its_peer() {
    let mut pair = pair_with(|_, setup| setup.connection.follow_redirects = true);
    let mut actor = Actor::connect(&mut pair, 1);
    let sent = pair.net.sent();
    for data in [
        gateway("203.0.113.9").encode(&[]),
        gateway("203.0.113.9").encode(&[7; 32]),
        vec![1],
    ] {
        let payloads = vec![notify(NotifyType::REDIRECT, &data)];
        let answer = actor.request(&mut pair, ExchangeType::INFORMATIONAL, &payloads);
        assert_eq!(answer.unwrap().payloads, []);
    }
    assert_eq!(pair.net.sent(), sent + 3, "the answers and nothing else");
    assert_eq!(pair.host(Side::B).all_discarded(), 3);
    assert_eq!(pair.children(Side::B).len(), 1);
}

#[test]
fn strangers_are_redirected_without_state_and_not_at_any_rate() {
    let mut pair = pair_with(|side, setup| {
        sending_away(side, setup);
        setup.connection.remote_addrs = vec![AddressPattern::Any];
    });
    let exchange = {
        let (mut random, _) = super::random::Random::new(77);
        let method = lockgate::wire::proposal::KeyExchangeId::X25519;
        lockgate::crypto::kex::KeyExchange::generate(method, &mut random).unwrap()
    };
    let payloads = vec![
        (
            PayloadType::SA,
            sa(&ike_proposals(&["aes256gcm16-prfsha384-x25519"])),
        ),
        (PayloadType::KE, ke(&exchange)),
        (PayloadType::NONCE, vec![3; 32]),
        notify(NotifyType::REDIRECT_SUPPORTED, &[]),
    ];
    let bytes = init_request(IkeSpi([7; 8]), payloads);
    for number in 0..2000u16 {
        let [high, low] = number.to_be_bytes();
        let path = Path {
            local: SocketAddr::new(Side::B.addr(), 500),
            remote: SocketAddr::from(([100, 64, high, low], 500)),
        };
        pair.inject_on(Side::B, path, &bytes);
    }
    let host = pair.host(Side::B);
    assert_eq!(host.endpoint.half_open(), 0);
    assert!(host.logs().count() <= 60);
    let sent = pair.net.from(Side::B, 0);
    assert!(
        sent.iter()
            .all(|sent| sent.transmit.bytes.len() <= bytes.len())
    );
    let redirected = sent.iter().filter(|sent| {
        notifies(sent)
            .iter()
            .any(|(kind, _)| *kind == NotifyType::REDIRECT)
    });
    let count = redirected.count();
    assert!(
        (1..=400).contains(&count),
        "{count} redirected, the others need a cookie"
    );
}
