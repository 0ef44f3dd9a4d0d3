//! What nobody should send, at a running daemon with a tunnel: each datagram raises its own counter by one, and
//! nothing else changes.

use std::{collections::BTreeMap, net::SocketAddr, net::UdpSocket};

use lockgate::wire::{
    ikev2::{Notify, NotifyType, PayloadWriter, message_bytes},
    isakmp::{ExchangeType, Flags, Header, IkeSpi, PayloadChain, PayloadType},
    vici::Value,
};

use crate::support::{
    PATIENCE, eventually,
    lab::{Family, Gateway, Lab, Plan, Side},
    traffic::assert_reaches,
};

type Payloads = Vec<(PayloadType, Vec<u8>)>;

/// What is sent, and the counter of discarded messages that it raises.
struct Input {
    name: String,
    port: u16,
    bytes: Vec<u8>,
    counter: &'static str,
}

#[test]
fn every_hostile_message_raises_its_own_counter_and_changes_nothing() {
    let Some(lab) = Lab::new() else { return };
    let [a, b] = lab.tunnel(&Plan::default());
    let spis = ike_spis(&b);
    let sender = lab
        .gateway_a
        .run(|| UdpSocket::bind((Side::A.outer(Family::V4), 0)))
        .unwrap();
    for input in inputs(spis) {
        let before = discards(&b);
        let target = SocketAddr::new(Side::B.outer(Family::V4), input.port);
        sender.send_to(&input.bytes, target).unwrap();
        let after = eventually(&format!("{} is counted", input.name), || {
            let after = discards(&b);
            (after != before).then_some(after)
        });
        let mut expected = before;
        *expected.get_mut(input.counter).unwrap() += 1;
        assert_eq!(after, expected, "{}", input.name);
    }
    assert_eq!(ike_spis(&b), spis);
    for gateway in [&a, &b] {
        assert_eq!(gateway.ike_sas().len(), 1);
        assert_eq!(gateway.child_sas().len(), 1);
    }
    assert_eq!(half_open(&b), "0");
    assert_reaches(&lab.host_a, &lab.host_b, Side::B.host(Family::V4));
}

/// B7, and what is as short on port 500.
#[test]
fn what_is_too_short_for_a_marker_is_counted_and_a_keepalive_is_no_message() {
    let Some(lab) = Lab::new() else { return };
    let [_a, b] = lab.tunnel(&Plan::default());
    let sender = lab
        .gateway_a
        .run(|| UdpSocket::bind((Side::A.outer(Family::V4), 0)))
        .unwrap();
    let send = |port: u16, bytes: &[u8]| {
        let target = SocketAddr::new(Side::B.outer(Family::V4), port);
        sender.send_to(bytes, target).unwrap();
    };
    let mut expected = discards(&b);
    let short: [&[u8]; 9] = [
        &[],
        &[0],
        &[1],
        &[0, 0],
        &[0xff; 2],
        &[0; 3],
        &[1, 2, 3],
        &[0xff; 3],
        &[0; 4],
    ];
    for (port, bytes) in short.map(|bytes| (4500, bytes)).into_iter().chain([
        (500, &[][..]),
        (500, &[0xff]),
        (500, &[0; 4]),
    ]) {
        send(port, bytes);
        *expected.get_mut("malformed").unwrap() += 1;
        let name = format!("{bytes:02x?} on port {port} is counted");
        eventually(&name, || (discards(&b) == expected).then_some(()));
    }
    let before = b.drops("keepalive");
    send(4500, &[0xff]);
    eventually("a keepalive is counted", || {
        (b.drops("keepalive") == before + 1).then_some(())
    });
    assert_eq!(discards(&b), expected);
}

type Spis = (IkeSpi, IkeSpi);

/// All of them; `spis` are those of the tunnel that is up.
fn inputs(spis: Spis) -> impl Iterator<Item = Input> {
    let inputs = [
        headers(),
        chains(),
        proposals(),
        handshakes(),
        claims(spis),
        fragments(spis),
    ];
    inputs.into_iter().flatten()
}

/// The counters that they raise.
pub(crate) fn counters(spis: Spis) -> impl Iterator<Item = &'static str> {
    inputs(spis).map(|input| input.counter)
}

/// B14: what lacks an algorithm, or has one too many, is refused with a word, and nothing is kept of it.
#[test]
fn offers_that_make_no_suite_are_refused_and_leave_nothing() {
    let Some(lab) = Lab::new() else { return };
    let [_, b] = lab.tunnel(&Plan::default());
    let sender = lab
        .gateway_a
        .run(|| UdpSocket::bind((Side::A.outer(Family::V4), 0)))
        .unwrap();
    sender.set_read_timeout(Some(PATIENCE)).unwrap();
    // AES-256-GCM with a tag of 16 bytes, PRF_HMAC_SHA2_384, AUTH_HMAC_SHA2_256_128, X25519.
    let (gcm, prf): ((u8, u16), (u8, u16)) = ((1, 20), (2, 6));
    let (integrity, x25519, no_exchange) = ((3, 12), (4, 31), (4, 0));
    let offers: [(&str, &[(u8, u16)]); 7] = [
        ("no key exchange", &[gcm, prf]),
        ("the key exchange NONE", &[gcm, prf, no_exchange]),
        ("no PRF", &[gcm, x25519]),
        ("no cipher", &[prf, x25519]),
        ("an AEAD with integrity", &[gcm, prf, integrity, x25519]),
        ("an unknown PRF", &[gcm, (2, 900), x25519]),
        ("a private type", &[gcm, prf, x25519, (241, 1)]),
    ];
    for (name, transforms) in offers {
        let mut payloads = handshake();
        payloads[0].1 = proposal(transforms);
        let target = SocketAddr::new(Side::B.outer(Family::V4), 500);
        let refused = b.discards("refused-proposal");
        sender.send_to(&init(&payloads), target).unwrap();
        let mut answer = [0; 1500];
        let len = sender.recv(&mut answer).expect(name);
        let (header, chain) = Header::parse(&answer[..len]).unwrap();
        assert!(header.flags.response(), "{name}");
        let kinds = PayloadChain::new(header.next_payload, chain).map(|payload| {
            let payload = payload.unwrap();
            assert_eq!(payload.kind, PayloadType::NOTIFY, "{name}");
            Notify::parse(payload.body).unwrap().kind
        });
        let kinds: Vec<_> = kinds.collect();
        assert_eq!(kinds, [NotifyType::NO_PROPOSAL_CHOSEN], "{name}");
        assert_eq!(b.discards("refused-proposal"), refused + 1, "{name}");
    }
    assert_eq!(half_open(&b), "0");
    assert_eq!(b.ike_sas().len(), 1);
}

/// The body of an SA payload with one proposal of these types and identifiers; ciphers get 256 bits.
fn proposal(transforms: &[(u8, u16)]) -> Vec<u8> {
    let count = transforms.len();
    let mut body = vec![0, 0, 0, 0, 1, 1, 0, u8::try_from(count).unwrap()];
    for (place, (kind, id)) in transforms.iter().enumerate() {
        let key: &[u8] = if *kind == 1 { &[0x80, 14, 1, 0] } else { &[] };
        let more = if place + 1 < count { 3 } else { 0 };
        let [high, low] = id.to_be_bytes();
        body.extend([more, 0, 0, u8::try_from(8 + key.len()).unwrap()]);
        body.extend([*kind, 0, high, low]);
        body.extend(key);
    }
    body[3] = u8::try_from(body.len()).unwrap();
    body
}

pub(crate) fn half_open(gateway: &Gateway) -> String {
    let stats = gateway.ask("stats", &[]);
    let ikesas = stats.get_section("ikesas").unwrap();
    ikesas.get("half-open").unwrap().to_owned()
}

/// B1 to B6 of a header: too short, lengths, versions, SPIs, flags, exchanges and message IDs.
fn headers() -> Vec<Input> {
    let good = init(&handshake());
    let change = |at: usize, value: u8| {
        let mut bytes = good.clone();
        bytes[at] = value;
        bytes
    };
    let mut inputs = vec![
        input("one byte", vec![0], "malformed"),
        input("27 bytes", good[..27].to_vec(), "malformed"),
        input("28 zeros", vec![0; 28], "malformed"),
        input("no SPI", [&[0; 8], &good[8..]].concat(), "bad-header"),
        input("an SPI of ours", change(8, 1), "bad-header"),
        input("not of an initiator", change(19, 0x00), "bad-header"),
        input("an answer", change(19, 0x28), "unknown-ike-spi"),
        input("an answer to us", change(19, 0x20), "unknown-ike-spi"),
        input("message ID 1", change(23, 1), "bad-header"),
        input("message ID 2^24", change(20, 1), "bad-header"),
        input(
            "a resumption without a ticket",
            change(18, 38),
            "bad-payload",
        ),
        input("20 000 bytes", long(20_000), "too-long"),
        Input {
            port: 4500,
            ..input("a marker and one byte", vec![0; 5], "malformed")
        },
        Input {
            port: 4500,
            ..input("a marker only", vec![0; 4], "malformed")
        },
        input(
            "a marker on port 500",
            [&[0; 4], &good[..]].concat(),
            "malformed",
        ),
    ];
    for length in [0, 27, 28, u32::MAX] {
        let mut bytes = good.clone();
        bytes[24..28].copy_from_slice(&length.to_be_bytes());
        inputs.push(input(&format!("length {length}"), bytes, "malformed"));
    }
    let longer = [&good[..], &[0]].concat();
    inputs.push(input("a byte too many", longer, "malformed"));
    for version in [0x00, 0x10, 0x1f, 0x30, 0xff] {
        let bytes = change(17, version);
        inputs.push(input(
            &format!("version {version:#x}"),
            bytes,
            "wrong-version",
        ));
    }
    for exchange in [0, 33, 35, 36, 37, 39, 40, 41, 42, 43, 44, 240, 255] {
        let bytes = change(18, exchange);
        inputs.push(input(
            &format!("exchange {exchange}"),
            bytes,
            "unknown-ike-spi",
        ));
    }
    inputs
}

/// B8 to B10: payloads whose lengths and types do not fit, in a handshake.
fn chains() -> Vec<Input> {
    let good = init(&handshake());
    let mut inputs = Vec::new();
    for length in [0u16, 1, 2, 3, 9000] {
        let mut bytes = good.clone();
        bytes[30..32].copy_from_slice(&length.to_be_bytes());
        inputs.push(input(
            &format!("payload length {length}"),
            bytes,
            "malformed",
        ));
    }
    let mut bytes = good;
    bytes[16] = 0;
    inputs.push(input("payloads after the last", bytes, "malformed"));
    let mut many = handshake();
    many.extend(vec![(PayloadType(200), vec![]); 500]);
    inputs.push(input("500 payloads", init(&many), "malformed"));
    let mut critical = handshake();
    critical.insert(0, (PayloadType(200), vec![]));
    let mut bytes = init(&critical);
    bytes[29] = 0x80;
    inputs.push(input(
        "an unknown critical payload",
        bytes,
        "refused-critical",
    ));
    inputs
}

/// B13: proposals that cannot be read.
fn proposals() -> Vec<Input> {
    let [(_, good), ..] = &handshake()[..] else {
        unreachable!("an SA payload comes first")
    };
    let change = |at: usize, value: u8| {
        let mut body = good.clone();
        body[at] = value;
        body
    };
    let bodies = [
        ("no proposal at all", Vec::new()),
        ("half a proposal", good[..20].to_vec()),
        ("more proposals announced", change(0, 2)),
        ("an unknown flag at a proposal", change(0, 7)),
        ("a proposal of 0 bytes", change(3, 0)),
        ("a proposal of 255 bytes", change(3, 255)),
        ("proposal number 0", change(4, 0)),
        ("an SPI of 3 bytes", change(6, 3)),
        ("an SPI of 8 bytes", change(6, 8)),
        ("an SPI of 255 bytes", change(6, 255)),
        ("no transform", change(7, 0)),
        ("two transforms of three", change(7, 2)),
        ("four transforms of three", change(7, 4)),
        ("255 transforms of three", change(7, 255)),
        ("the last transform in the middle", change(8, 0)),
        ("a transform of 7 bytes", change(11, 7)),
        ("a transform of 255 bytes", change(11, 255)),
        ("an attribute of 256 bytes", change(16, 0)),
    ];
    let inputs = bodies.into_iter().map(|(name, body)| {
        let mut payloads = handshake();
        payloads[0].1 = body;
        input(name, init(&payloads), "bad-payload")
    });
    inputs.collect()
}

/// B17: fragments of the tunnel that is up, by someone without its keys.
fn fragments((initiator, responder): (IkeSpi, IkeSpi)) -> Vec<Input> {
    let header = Header {
        initiator_spi: initiator,
        responder_spi: responder,
        next_payload: PayloadType::NONE,
        version: Header::VERSION_2_0,
        exchange: ExchangeType::INFORMATIONAL,
        flags: Flags::new(true, false),
        message_id: 2,
        length: 0,
    };
    let numbers = [
        ("fragment 0 of 2", [0, 2], "malformed"),
        ("fragment 3 of 2", [3, 2], "malformed"),
        ("fragment 0 of 0", [0, 0], "malformed"),
        ("fragment 1 of 0", [1, 0], "malformed"),
        ("fragment 65535 of 65535", [65535, 65535], "fragment-limit"),
        ("fragment 1 of 2, forged", [1, 2], "integrity-failed"),
    ];
    let fragment = |(name, [number, total], counter): (&str, [u16; 2], _)| {
        let body = [&number.to_be_bytes(), &total.to_be_bytes(), &[0x5a; 60][..]].concat();
        let mut writer = PayloadWriter::new();
        writer.add(PayloadType::SKF, &body);
        input(name, message_bytes(header, writer.finish()), counter)
    };
    let mut first = handshake();
    first.insert(
        0,
        (PayloadType::SKF, [&[0, 1, 0, 2], &[0x5a; 60][..]].concat()),
    );
    let in_clear = input("a fragment in IKE_SA_INIT", init(&first), "malformed");
    let numbers = numbers.into_iter().map(fragment);
    numbers.chain([in_clear]).collect()
}

/// B11, B15 and B16: a handshake with a payload missing, or with one of no use.
fn handshakes() -> Vec<Input> {
    let mut inputs = Vec::new();
    for (place, name) in [(0, "no SA"), (1, "no KE"), (2, "no nonce")] {
        let mut payloads = handshake();
        payloads.remove(place);
        inputs.push(input(name, init(&payloads), "bad-payload"));
    }
    for length in [0, 15, 257] {
        let mut payloads = handshake();
        payloads[2].1 = vec![3; length];
        let name = format!("a nonce of {length} bytes");
        inputs.push(input(&name, init(&payloads), "bad-payload"));
    }
    // Points of small order (RFC 7748 §6.1).
    for first in [0, 1] {
        let mut payloads = handshake();
        payloads[1].1 = [&[0, 31, 0, 0, first], &[0; 31][..]].concat();
        let name = format!("the public value {first}");
        inputs.push(input(&name, init(&payloads), "bad-public-value"));
    }
    inputs
}

/// B12, B19 and B31: in the name of the tunnel that is up, by someone without its keys.
fn claims((initiator, responder): (IkeSpi, IkeSpi)) -> Vec<Input> {
    let message = |exchange, spis: (IkeSpi, IkeSpi), payloads: (PayloadType, Vec<u8>)| {
        let header = Header {
            initiator_spi: spis.0,
            responder_spi: spis.1,
            next_payload: PayloadType::NONE,
            version: Header::VERSION_2_0,
            exchange,
            flags: Flags::new(true, false),
            message_id: 2,
            length: 0,
        };
        message_bytes(header, payloads)
    };
    let one = |kind: PayloadType, body: &[u8]| {
        let mut writer = PayloadWriter::new();
        writer.add(kind, body);
        writer.finish()
    };
    let ours = (initiator, responder);
    let theirs = (IkeSpi([5; 8]), responder);
    let delete = one(PayloadType::DELETE, &[1, 0, 0, 0]);
    let NotifyType(failed) = NotifyType::AUTHENTICATION_FAILED;
    let [high, low] = failed.to_be_bytes();
    let failed = one(PayloadType::NOTIFY, &[0, 0, high, low]);
    let sealed = |length| one(PayloadType::SK, &vec![0x5a; length]);
    let inputs = [
        ("a DELETE in clear", ours, delete, "not-protected"),
        ("a failure in clear", ours, failed, "not-protected"),
        ("an SK payload of 3 bytes", ours, sealed(3), "not-protected"),
        ("another initiator", theirs, sealed(60), "bad-header"),
        ("a forged SK payload", ours, sealed(60), "integrity-failed"),
    ];
    let exchange = ExchangeType::INFORMATIONAL;
    let informational = inputs
        .into_iter()
        .map(|(name, spis, text, counter)| input(name, message(exchange, spis, text), counter));
    informational.collect()
}

fn input(name: &str, bytes: Vec<u8>, counter: &'static str) -> Input {
    Input {
        name: name.to_owned(),
        port: 500,
        bytes,
        counter,
    }
}

/// What a correct IKE_SA_INIT request for the lab's tunnel holds.
fn handshake() -> Payloads {
    // AES-256-GCM with a tag of 16 bytes, PRF_HMAC_SHA2_384, X25519.
    let proposal = proposal(&[(1, 20), (2, 6), (4, 31)]);
    vec![
        (PayloadType::SA, proposal),
        (PayloadType::KE, [&[0, 31, 0, 0], &[9; 32][..]].concat()),
        (PayloadType::NONCE, vec![7; 32]),
    ]
}

fn init(payloads: &Payloads) -> Vec<u8> {
    let mut writer = PayloadWriter::new();
    for (kind, body) in payloads {
        writer.add(*kind, body);
    }
    let header = Header {
        initiator_spi: IkeSpi([7; 8]),
        responder_spi: IkeSpi::ZERO,
        next_payload: PayloadType::NONE,
        version: Header::VERSION_2_0,
        exchange: ExchangeType::IKE_SA_INIT,
        flags: Flags::new(true, false),
        message_id: 0,
        length: 0,
    };
    message_bytes(header, writer.finish())
}

fn long(length: usize) -> Vec<u8> {
    init(&vec![(PayloadType::VENDOR_ID, vec![0; length])])
}

pub(crate) fn ike_spis(gateway: &Gateway) -> Spis {
    let sas = gateway.established();
    let spi = |key: &str| {
        let text = sas.first().and_then(|sa| sa.get(key)).unwrap();
        IkeSpi(u64::from_str_radix(text, 16).unwrap().to_be_bytes())
    };
    (spi("initiator-spi"), spi("responder-spi"))
}

/// All counters of messages discarded.
pub(crate) fn discards(gateway: &Gateway) -> BTreeMap<String, u64> {
    let stats = gateway.ask("stats", &[]);
    let discards = stats.get_section("discards").unwrap();
    let counts = discards.iter().filter_map(|(name, value)| match value {
        Value::Text(text) => {
            let text = String::from_utf8_lossy(text);
            Some((name.to_owned(), text.parse().unwrap()))
        }
        _ => None,
    });
    counts.collect()
}
