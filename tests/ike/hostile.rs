//! Strangers, forgers and floods: everything that comes without keys (HOSTILE B1–B6, B8–B20, B31).

use std::net::{IpAddr, SocketAddr};

use data_encoding::HEXLOWER;
use lockgate::crypto::kex::KeyExchange;
use lockgate::ike::{AddressPattern, Discard, Path};
use lockgate::wire::ikev2::NotifyType;
use lockgate::wire::isakmp::{ExchangeType, Flags, Header, IkeSpi, PayloadType};
use lockgate::wire::proposal::KeyExchangeId;
use rand_core::Rng;

use super::actor::{Payloads, init_request, join, ke, notify, sa};
use super::config::{Side, ike_proposals};
use super::network::Fate;
use super::pair::{Pair, initiate, millis, rekey_child, rekey_ike, seconds, terminate_child};
use super::random::Random;

/// What a correct IKE_SA_INIT request holds.
pub(crate) fn init_payloads(seed: u64) -> Payloads {
    let (mut random, _) = Random::new(seed);
    let exchange = KeyExchange::generate(KeyExchangeId::X25519, &mut random).unwrap();
    let mut nonce = vec![0; 32];
    random.fill_bytes(&mut nonce);
    vec![
        (
            PayloadType::SA,
            sa(&ike_proposals(&["aes256gcm16-prfsha384-x25519"])),
        ),
        (PayloadType::KE, ke(&exchange)),
        (PayloadType::NONCE, nonce),
    ]
}

/// A path to B from a stranger.
fn stranger(number: u32) -> Path {
    let remote: IpAddr = (0x0a00_0000_u32 + number).to_be_bytes().into();
    Path {
        local: SocketAddr::new(Side::B.addr(), 500),
        remote: SocketAddr::new(remote, 500),
    }
}

/// Bytes that B has sent since the trace was so long.
fn bytes_out(pair: &Pair, since: usize) -> usize {
    let sent = pair.net.from(Side::B, since);
    sent.iter().map(|sent| sent.transmit.bytes.len()).sum()
}

/// Runs `act` on a tunnel, and injects damaged copies of each message at its receiver just before
/// the message itself arrives.
fn with_damaged_copies(
    act: fn(&mut Pair),
    prepare: fn() -> Pair,
    strict: bool,
    check: fn(&mut Pair),
) {
    let mut clean = prepare();
    let first = clean.net.sent();
    act(&mut clean);
    clean.run_for(seconds(60));
    let last = clean.net.sent();
    for number in first..last {
        let mut pair = prepare();
        pair.net.spoil(number, Fate::Late(millis(1)));
        act(&mut pair);
        let mut waited = 0;
        while pair.net.sent() <= number {
            pair.run_for(millis(1));
            waited += 1;
            assert!(waited < 60_000);
        }
        let sent = pair.net.trace[number].clone();
        let to = sent.from.other();
        let path = Path {
            local: sent.transmit.path.remote,
            remote: sent.transmit.path.local,
        };
        let before = (pair.net.sent(), pair.host(to).all_discarded());
        let mut copies = 0;
        for copy in damaged(&sent.transmit.bytes) {
            pair.inject_on(to, path, &copy);
            copies += 1;
        }
        let discarded = pair.host(to).all_discarded() - before.1;
        if strict {
            assert_eq!(discarded, copies, "message {number}");
            let answers = pair.net.sent() - before.0;
            assert!(answers <= 60, "{answers} answers to damaged messages");
        }
        pair.run_for(seconds(120));
        check(&mut pair);
        pair.finish();
    }
}

/// Every truncation, some of them with the length that they have, and every byte changed in one bit.
fn damaged(message: &[u8]) -> impl Iterator<Item = Vec<u8>> {
    let cut = (0..message.len()).map(|len| message[..len].to_vec());
    let shortened = (HEADER_LEN..message.len()).step_by(5).map(|len| {
        let mut copy = message[..len].to_vec();
        copy[LENGTH].copy_from_slice(&u32::try_from(len).unwrap().to_be_bytes());
        copy
    });
    let flipped = (0..message.len()).map(|place| {
        let mut copy = message.to_vec();
        copy[place] ^= 1 << (place % 8);
        copy
    });
    let longer = [1, 4, 100].map(|more| [message, &vec![0; more]].concat());
    cut.chain(shortened).chain(flipped).chain(longer)
}

#[test]
fn damaged_copies_of_every_protected_message_are_counted_and_change_nothing() {
    with_damaged_copies(
        |pair| {
            for side in Side::BOTH {
                pair.command(side, rekey_child());
                pair.run_for(seconds(1));
                pair.command(side, rekey_ike());
                pair.run_for(seconds(1));
            }
        },
        Pair::up,
        true,
        |pair| pair.assert_clean(1),
    );
    with_damaged_copies(
        |pair| {
            pair.gapless = false;
            pair.command(Side::B, terminate_child());
        },
        Pair::up,
        true,
        |pair| pair.assert_clean(0),
    );
}

#[test]
fn damaged_copies_of_every_message_of_a_handshake_delay_it_at_most() {
    with_damaged_copies(
        |pair| {
            pair.command(Side::A, initiate("lan"));
        },
        || Pair::with(|_, setup| setup.connection.keyingtries = 0),
        false,
        |pair| pair.assert_tunnels(1),
    );
}

#[test]
fn headers_that_cannot_be_right_are_counted_and_not_answered() {
    let mut pair = Pair::up();
    let good = init_request(IkeSpi([7; 8]), init_payloads(1));
    let change = |at: usize, value: u8| {
        let mut bytes = good.clone();
        bytes[at] = value;
        bytes
    };
    let mut cases = vec![
        vec![],
        vec![0xff],
        vec![0; 28],
        good[..27].to_vec(),
        change(17, 0x00),
        change(17, 0x10),
        change(17, 0x1f),
        change(19, 0x28), // a response
        change(19, 0x00), // of the responder
        change(20, 1),    // message ID
        change(23, 1),
        change(8, 1), // a responder's SPI
        [vec![0; 8], good[8..].to_vec()].concat(),
    ];
    for length in [0, 27, 28, u32::MAX] {
        let mut bytes = good.clone();
        bytes[24..28].copy_from_slice(&length.to_be_bytes());
        cases.push(bytes);
    }
    let before = pair.net.sent();
    for (number, bytes) in cases.iter().enumerate() {
        let discarded = pair.host(Side::B).all_discarded();
        pair.inject(Side::B, bytes);
        assert_eq!(
            pair.host(Side::B).all_discarded(),
            discarded + 1,
            "case {number}"
        );
    }
    assert_eq!(pair.net.sent(), before);
    for exchange in [0, 33, 35, 36, 37, 38, 42, 43, 44, 240, 255] {
        pair.inject(Side::B, &change(18, exchange));
    }
    for version in [0x21, 0x2f] {
        // A minor version is not a reason to refuse (RFC 7296 §2.5).
        let answers = pair.net.sent();
        pair.inject(Side::B, &change(17, version));
        assert_eq!(pair.net.sent(), answers + 1);
    }
    assert_eq!(pair.ike_sas(Side::B).len(), 1);
    pair.run_for(seconds(31));
    pair.assert_clean(1);
    pair.finish();
}

#[test]
fn a_later_version_is_told_ours_seldom() {
    let mut pair = Pair::new();
    let mut bytes = init_request(IkeSpi([7; 8]), init_payloads(1));
    bytes[17] = 0x30;
    for number in 0..1000 {
        pair.inject_on(Side::B, stranger(number), &bytes);
    }
    let sent = pair.net.from(Side::B, 0);
    assert!((1..=60).contains(&sent.len()));
    assert!(
        sent.iter()
            .all(|sent| sent.transmit.bytes.len() <= bytes.len())
    );
    assert_eq!(pair.host(Side::B).discarded(Discard::WrongVersion), 1000);
    pair.finish();
}

#[test]
fn ike_sa_init_without_or_with_two_of_its_payloads_is_not_answered() {
    let mut pair = Pair::new();
    for place in 0..3 {
        for double in [false, true] {
            let mut payloads = init_payloads(1);
            if double {
                payloads.insert(place, payloads[place].clone());
            } else {
                payloads.remove(place);
            }
            pair.inject(Side::B, &init_request(IkeSpi([7; 8]), payloads));
        }
    }
    for length in [0, 15, 257] {
        let mut payloads = init_payloads(1);
        payloads[2].1 = vec![3; length];
        pair.inject(Side::B, &init_request(IkeSpi([7; 8]), payloads));
    }
    assert_eq!(pair.net.sent(), 0);
    assert_eq!(pair.host(Side::B).all_discarded(), 9);
    assert_eq!(pair.host(Side::B).endpoint.half_open(), 0);
    pair.finish();
}

#[test]
fn public_values_that_are_not_valid_are_not_answered() {
    let mut pair = Pair::new();
    let x25519 = |data: &[u8]| [&[0, 31, 0, 0], data].concat();
    // All points of small order, as cr.yp.to/ecdh.html lists them.
    let small = |first: u8, rest: u8, last: u8| {
        let mut point = [rest; 32];
        (point[0], point[31]) = (first, last);
        point
    };
    let order_8 = [
        "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
        "5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
    ];
    let order_8 = order_8.map(|text| HEXLOWER.decode(text.as_bytes()).unwrap());
    for body in [
        x25519(&[0; 32]),
        x25519(&small(1, 0, 0)),
        x25519(&small(0xec, 0xff, 0x7f)),
        x25519(&small(0xed, 0xff, 0x7f)),
        x25519(&small(0xee, 0xff, 0x7f)),
        x25519(&order_8[0]),
        x25519(&order_8[1]),
        x25519(&[]),
        x25519(&[9; 31]),
        x25519(&[9; 33]),
        vec![0, 31],
        vec![],
        vec![0, 31, 0, 0],
        [&[0, 31, 0, 0][..], &[9; 4000]].concat(),
    ] {
        let mut payloads = init_payloads(1);
        payloads[1].1 = body.clone();
        let before = pair.net.sent();
        pair.inject(Side::B, &init_request(IkeSpi([7; 8]), payloads));
        assert_eq!(pair.net.sent(), before, "{body:02x?}");
    }
    assert_eq!(pair.host(Side::B).endpoint.half_open(), 0);
    pair.finish();
}

#[test]
fn an_answer_with_an_invalid_public_value_does_not_end_the_wait() {
    let mut pair = Pair::new();
    let id = pair.command(Side::A, initiate("lan"));
    pair.net.spoil(1, Fate::Late(millis(50)));
    pair.run_for(millis(15));
    let mut forged = pair.net.trace[1].transmit.bytes.clone();
    let mut payloads = forged.windows(8);
    let ke = payloads.position(|bytes| bytes[2..] == [0, 40, 0, 31, 0, 0]);
    let value = ke.expect("a KE payload") + 8;
    forged[value..value + 32].fill(0); // of small order (RFC 7748 §6.1)
    pair.inject(Side::A, &forged);
    assert_eq!(pair.result(Side::A, id), None);
    pair.settle();
    pair.assert_clean(1);
    pair.finish();
}

#[test]
fn an_unknown_critical_payload_in_clear_is_refused_by_name() {
    let mut pair = Pair::new();
    let mut payloads = init_payloads(1);
    payloads.insert(0, (PayloadType(200), vec![]));
    let mut bytes = init_request(IkeSpi([7; 8]), payloads);
    bytes[29] = 0x80;
    pair.inject(Side::B, &bytes);
    assert_eq!(pair.host(Side::B).discarded(Discard::RefusedCritical), 1);
    let sent = pair.net.from(Side::B, 0);
    assert_eq!(sent.len(), 1);
    let bytes = &sent[0].transmit.bytes;
    assert_eq!(bytes[Header::LEN + 6..Header::LEN + 8], [0, 1]);
    assert_eq!(bytes[Header::LEN + 8..], [200]);
    assert_eq!(pair.host(Side::B).endpoint.half_open(), 0);
    pair.finish();
}

#[test]
fn a_chain_of_five_hundred_payloads_is_not_followed() {
    let mut pair = Pair::new();
    for count in [62, 500] {
        let mut payloads = init_payloads(1);
        payloads.extend(vec![(PayloadType(200), vec![]); count]);
        pair.inject(Side::B, &init_request(IkeSpi([7; 8]), payloads));
    }
    let large = vec![(PayloadType::VENDOR_ID, vec![0; 60_000])];
    pair.inject(Side::B, &init_request(IkeSpi([7; 8]), large));
    assert_eq!(pair.net.sent(), 0);
    assert_eq!(pair.host(Side::B).discarded(Discard::Malformed), 2);
    assert_eq!(pair.host(Side::B).discarded(Discard::TooLong), 1);
    pair.finish();
}

#[test]
fn a_flood_of_strangers_costs_neither_state_nor_bandwidth_and_a_peer_still_gets_in() {
    let mut pair = Pair::with(|side, setup| {
        if side == Side::B {
            setup.connection.remote_addrs = vec![AddressPattern::Any];
        }
    });
    let mut bytes_in = 0;
    for number in 0..20_000 {
        let mut bytes = init_request(IkeSpi([7; 8]), init_payloads(1));
        bytes[..8].copy_from_slice(&u64::from(number + 1).to_be_bytes());
        bytes_in += bytes.len();
        pair.inject_on(Side::B, stranger(number), &bytes);
        if number % 20 == 0 {
            pair.run_for(millis(1));
        }
        assert!(pair.host(Side::B).endpoint.half_open() <= 200);
    }
    assert!(bytes_out(&pair, 0) <= bytes_in, "amplification");
    assert!(pair.host(Side::B).logs().count() < 100, "log flood");
    let id = pair.command(Side::A, initiate("lan"));
    pair.run_for(seconds(1));
    assert!(matches!(pair.result(Side::A, id), Some(Ok(_))));
    pair.run_for(seconds(31));
    pair.assert_clean(1);
    pair.finish();
}

#[test]
fn a_flood_in_the_name_of_a_peer_does_not_lock_it_out() {
    let mut pair = Pair::new();
    for number in 0..2000u64 {
        let mut bytes = init_request(IkeSpi([7; 8]), init_payloads(1));
        bytes[..8].copy_from_slice(&(number + 1).to_be_bytes());
        pair.inject(Side::B, &bytes);
    }
    assert!(pair.host(Side::B).endpoint.half_open() <= 16);
    let id = pair.command(Side::A, initiate("lan"));
    pair.run_for(seconds(1));
    assert!(matches!(pair.result(Side::A, id), Some(Ok(_))));
    pair.run_for(seconds(31));
    pair.assert_clean(1);
    pair.finish();
}

#[test]
fn a_cookie_is_good_only_for_whom_it_was_made() {
    let mut pair = Pair::with(|side, setup| {
        setup.settings.cookie_threshold = 0;
        if side == Side::B {
            setup.connection.remote_addrs = vec![AddressPattern::Any];
        }
    });
    let ask = |pair: &mut Pair, path: Path, spi: u8, seed: u64, cookie: Option<&[u8]>| {
        let mut payloads = init_payloads(seed);
        if let Some(cookie) = cookie {
            payloads.insert(0, notify(NotifyType::COOKIE, cookie));
        }
        pair.inject_on(Side::B, path, &init_request(IkeSpi([spi; 8]), payloads));
        pair.net.trace.last().unwrap().transmit.bytes[Header::LEN + 8..].to_vec()
    };
    let cookie = ask(&mut pair, stranger(1), 7, 1, None);
    assert!((1..=64).contains(&cookie.len()));
    let mut wrong = cookie.clone();
    *wrong.last_mut().unwrap() ^= 1;
    for (path, spi, seed, cookie) in [
        (stranger(2), 7, 1, &cookie[..]),
        (stranger(1), 8, 1, &cookie),
        (stranger(1), 7, 2, &cookie),
        (stranger(1), 7, 1, &wrong),
        (stranger(1), 7, 1, &cookie[1..]),
        (stranger(1), 7, 1, &[]),
        (stranger(1), 7, 1, &[0; 65]),
    ] {
        ask(&mut pair, path, spi, seed, Some(cookie));
        assert_eq!(pair.host(Side::B).endpoint.half_open(), 0);
    }
    assert_eq!(pair.host(Side::B).discarded(Discard::BadCookie), 7);
    ask(&mut pair, stranger(1), 7, 1, Some(&cookie));
    assert_eq!(pair.host(Side::B).endpoint.half_open(), 1);
    pair.run_for(seconds(300));
    ask(&mut pair, stranger(1), 7, 1, Some(&cookie));
    assert_eq!(pair.host(Side::B).endpoint.half_open(), 0, "an old cookie");
    pair.finish();
}

#[test]
fn half_open_sas_end_by_themselves() {
    let mut pair = Pair::new();
    pair.net.decide(|_| Fate::Drop);
    pair.inject(Side::B, &init_request(IkeSpi([7; 8]), init_payloads(1)));
    assert_eq!(pair.host(Side::B).endpoint.half_open(), 1);
    assert!(pair.ike_sas(Side::B).is_empty());
    pair.run_for(seconds(29));
    assert_eq!(pair.host(Side::B).endpoint.half_open(), 1);
    pair.run_for(seconds(2));
    pair.assert_nothing_left();
}

#[test]
fn strangers_without_a_connection_are_told_seldom_and_cost_nothing() {
    let mut pair = Pair::new();
    let bytes = init_request(IkeSpi([7; 8]), init_payloads(1));
    for number in 0..1000 {
        pair.inject_on(Side::B, stranger(number), &bytes);
    }
    let host = pair.host(Side::B);
    assert_eq!(host.endpoint.half_open(), 0);
    assert!(host.logs().count() <= 60);
    let turned_away = [Discard::NoConnection, Discard::CookieRequired];
    assert_eq!(
        turned_away
            .map(|reason| host.discarded(reason))
            .iter()
            .sum::<u64>(),
        1000
    );
    assert!(bytes_out(&pair, 0) <= 1000 * bytes.len());
    pair.finish();
}

#[test]
fn claims_in_clear_about_lost_sas_delete_nothing_and_are_not_answered() {
    let mut pair = Pair::up();
    let spis = (
        pair.ike_sa(Side::B).initiator_spi,
        pair.ike_sa(Side::B).responder_spi,
    );
    let before = pair.net.sent();
    for number in 0..1000u32 {
        for (kind, response) in [
            (NotifyType::INVALID_IKE_SPI, true),
            (NotifyType::INVALID_SPI, false),
            (NotifyType::AUTHENTICATION_FAILED, true),
            (NotifyType::INVALID_SYNTAX, true),
        ] {
            let header = Header {
                initiator_spi: spis.0,
                responder_spi: spis.1,
                next_payload: PayloadType::NONE,
                version: Header::VERSION_2_0,
                exchange: ExchangeType::INFORMATIONAL,
                flags: Flags::new(true, response),
                message_id: number % 4,
                length: 0,
            };
            let payloads = join(&vec![notify(kind, &number.to_be_bytes())]);
            pair.inject(
                Side::B,
                &lockgate::wire::ikev2::message_bytes(header, payloads),
            );
        }
    }
    pair.settle();
    let probes = pair.net.from(Side::B, before).len();
    assert!(probes <= 60, "{probes} messages for 4000 claims");
    pair.run_for(seconds(60));
    pair.assert_clean(1);
    pair.finish();
}

#[test]
fn messages_for_unknown_sas_are_answered_seldom_and_answers_never() {
    let mut pair = Pair::new();
    let request = |response, number: u32| {
        let header = Header {
            initiator_spi: IkeSpi([9; 8]),
            responder_spi: IkeSpi([8; 8]),
            next_payload: PayloadType::NONE,
            version: Header::VERSION_2_0,
            exchange: ExchangeType::INFORMATIONAL,
            flags: Flags::new(true, response),
            message_id: number,
            length: 0,
        };
        lockgate::wire::ikev2::message_bytes(header, (PayloadType::NONE, vec![]))
    };
    for number in 0..1000 {
        pair.inject(Side::B, &request(true, number));
    }
    assert_eq!(pair.net.sent(), 0, "answers to answers");
    for number in 0..1000 {
        pair.inject(Side::B, &request(false, number));
    }
    let sent = pair.net.from(Side::B, 0);
    assert!((1..=60).contains(&sent.len()), "{}", sent.len());
    assert!(sent.iter().all(|sent| sent.header.flags.response()));
    assert_eq!(pair.host(Side::B).discarded(Discard::UnknownIkeSpi), 2000);
    assert!(pair.host(Side::B).logs().count() <= 60);
    pair.finish();
}

#[test]
fn a_message_that_comes_back_to_its_sender_is_ignored() {
    let mut pair = Pair::new();
    pair.command(Side::A, initiate("lan"));
    for _ in 0..4 {
        let sent = pair.net.trace.last().unwrap().clone();
        let path = Path {
            local: sent.transmit.path.local,
            remote: sent.transmit.path.remote,
        };
        pair.inject_on(sent.from, path, &sent.transmit.bytes);
        pair.run_for(millis(10));
    }
    pair.settle();
    pair.run_for(seconds(31));
    pair.assert_tunnels(1);
    pair.finish();
}

const HEADER_LEN: usize = 28;
/// Where a header has the length of its message.
const LENGTH: std::ops::Range<usize> = 24..28;
