//! Answers to IKE_SA_INIT that nobody should give, at a running daemon that waits for one (HOSTILE B15, B16, B18,
//! B19): each is counted, and it waits on for the right one.

use std::net::{SocketAddr, UdpSocket};

use lockgate::ike::Discard;
use lockgate::wire::ikev2::{NotifyType, message_bytes};
use lockgate::wire::isakmp::{ExchangeType, Flags, Header, IkeSpi, PayloadType};
use lockgate::wire::keyword::parse_proposal;
use lockgate::wire::proposal::ProtocolId;

use super::hostile::discards;
use super::session::{IKE, Payloads, join, notify, sa, split};
use crate::support::{
    PATIENCE, eventually,
    lab::{Family, Gateway, Lab, Plan, Side},
    traffic::assert_reaches,
};

/// What gateway A believes to be gateway B.
struct Responder {
    socket: UdpSocket,
    peer: SocketAddr,
    header: Header,
    asked: Payloads,
}

impl Responder {
    /// The request that A sends on its own account.
    fn asked(lab: &Lab) -> Self {
        let socket = bind(lab, 500);
        let (peer, header, asked) = receive(&socket);
        Self {
            socket,
            peer,
            header,
            asked,
        }
    }

    /// A may have given up in the meantime, and asked anew.
    fn keep_up(&mut self) {
        self.socket.set_nonblocking(true).unwrap();
        while self.socket.peek(&mut [0]).is_ok() {
            (self.peer, self.header, self.asked) = receive(&self.socket);
        }
        self.socket.set_nonblocking(false).unwrap();
    }

    fn nonce(&self) -> &[u8] {
        let mut all = self.asked.iter();
        let nonce = all.find(|(kind, _)| *kind == PayloadType::NONCE);
        &nonce.unwrap().1
    }

    /// An answer with these payloads, whatever they are.
    fn answer(&self, payloads: &Payloads) -> Vec<u8> {
        let header = Header {
            responder_spi: IkeSpi([9; 8]),
            flags: Flags::new(false, true),
            ..self.header
        };
        message_bytes(header, join(payloads))
    }

    /// This raises one counter, by one.
    #[track_caller]
    fn is_counted(&self, a: &Gateway, input: &Input, socket: &UdpSocket) {
        let (name, bytes, counter) = input;
        let mut expected = discards(a);
        *expected.get_mut(counter.name()).unwrap() += 1;
        socket.send_to(bytes, self.peer).unwrap();
        let after = eventually(&format!("{name} is counted"), || {
            let after = discards(a);
            (after.values().sum::<u64>() >= expected.values().sum()).then_some(after)
        });
        assert_eq!(after, expected, "{name}");
    }
}

type Input = (&'static str, Vec<u8>, Discard);

fn bind(lab: &Lab, port: u16) -> UdpSocket {
    let local = (Side::B.outer(Family::V4), port);
    let socket = lab.gateway_b.run(move || UdpSocket::bind(local)).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}

fn receive(socket: &UdpSocket) -> (SocketAddr, Header, Payloads) {
    let mut request = [0; 2000];
    let (len, peer) = socket.recv_from(&mut request).unwrap();
    let (header, rest) = Header::parse(&request[..len]).unwrap();
    assert_eq!(header.exchange, ExchangeType::IKE_SA_INIT);
    (peer, header, split(header.next_payload, rest))
}

/// What a correct answer holds; nobody has the private value.
fn correct() -> Payloads {
    let proposal = parse_proposal(ProtocolId::Ike, IKE).unwrap();
    vec![
        (PayloadType::SA, sa(&[proposal])),
        (PayloadType::KE, [&[0, 31, 0, 0], &[9; 32][..]].concat()),
        (PayloadType::NONCE, vec![7; 32]),
    ]
}

/// Answers that cannot be those to the request.
fn odd(responder: &Responder) -> Vec<Input> {
    let good = responder.answer(&correct());
    let byte = |place: usize, value: u8| {
        let mut bytes = good.clone();
        bytes[place] = value;
        bytes
    };
    let with = |place: usize, kind: PayloadType, body: Vec<u8>| {
        let mut payloads = correct();
        payloads[place] = (kind, body);
        responder.answer(&payloads)
    };
    let without = |place: usize| {
        let mut payloads = correct();
        payloads.remove(place);
        responder.answer(&payloads)
    };
    let other = |text: &str| {
        let proposal = parse_proposal(ProtocolId::Ike, text).unwrap();
        with(0, PayloadType::SA, sa(&[proposal]))
    };
    let ke = |group: u8, data: &[u8]| with(1, PayloadType::KE, [&[0, group, 0, 0], data].concat());
    let nonce = |nonce: &[u8]| with(2, PayloadType::NONCE, nonce.to_vec());
    let offered = Discard::NotOffered;
    let (header, payload) = (Discard::BadHeader, Discard::BadPayload);
    let no_spi = [&good[..8], &[0; 8], &good[16..]].concat();
    vec![
        ("no SPI of the responder", no_spi, header),
        ("message ID 1", byte(23, 1), header),
        ("another exchange", byte(18, 36), header),
        ("of the initiator", byte(19, 0x28), Discard::UnknownIkeSpi),
        ("version 3.0", byte(17, 0x30), Discard::WrongVersion),
        ("a payload past the end", byte(31, 255), Discard::Malformed),
        (
            "a weaker cipher",
            other("aes128gcm16-prfsha384-x25519"),
            offered,
        ),
        (
            "another PRF",
            other("aes256gcm16-prfsha256-x25519"),
            offered,
        ),
        (
            "another group",
            other("aes256gcm16-prfsha384-ecp256"),
            offered,
        ),
        ("no SA", without(0), payload),
        ("no KE", without(1), payload),
        ("no nonce", without(2), payload),
        ("a KE of another group", ke(19, &[9; 64]), offered),
        ("the point 0", ke(31, &[0; 32]), Discard::BadPublicValue),
        ("half a point", ke(31, &[9; 16]), Discard::BadPublicValue),
        ("no point", ke(31, &[]), Discard::BadPublicValue),
        ("a nonce of 15 bytes", nonce(&[7; 15]), payload),
        ("our own nonce", nonce(responder.nonce()), payload),
        (
            "half a proposal",
            with(0, PayloadType::SA, vec![0, 0, 0, 36]),
            payload,
        ),
    ]
}

/// Wishes that are not followed.
fn wishes(responder: &Responder) -> Vec<Input> {
    let wish = |kind: NotifyType, data: &[u8]| responder.answer(&vec![notify(kind, data)]);
    let group = |data: &[u8]| wish(NotifyType::INVALID_KE_PAYLOAD, data);
    let cookie = |length: usize| wish(NotifyType::COOKIE, &vec![1; length]);
    let redirect =
        |to: [u8; 4], nonce: &[u8]| wish(NotifyType::REDIRECT, &[&[1, 4], &to[..], nonce].concat());
    let (nonce, payload) = (responder.nonce(), Discard::BadPayload);
    let (b, a) = ([192, 0, 2, 2], [192, 0, 2, 1]);
    vec![
        ("nothing at all", responder.answer(&vec![]), payload),
        ("a group not offered", group(&[0, 14]), Discard::NotOffered),
        (
            "the group that was sent",
            group(&[0, 31]),
            Discard::NotOffered,
        ),
        ("three bytes of a group", group(&[0, 0, 31]), payload),
        ("an empty cookie", cookie(0), payload),
        ("a cookie of 65 bytes", cookie(65), payload),
        (
            "a redirect to itself",
            redirect(b, nonce),
            Discard::BadRedirect,
        ),
        ("a redirect to us", redirect(a, nonce), Discard::BadRedirect),
        (
            "a redirect to everybody",
            redirect([255; 4], nonce),
            Discard::BadRedirect,
        ),
        (
            "a redirect by somebody else",
            redirect(b, &[7; 32]),
            Discard::Unauthenticated,
        ),
        (
            "half a redirect",
            wish(NotifyType::REDIRECT, &[1, 4, 192]),
            payload,
        ),
    ]
}

#[test]
fn answers_that_nobody_should_give_are_counted_and_the_right_one_is_still_taken() {
    let Some(lab) = Lab::new() else { return };
    let plan = Plan {
        connection: "keyingtries = 0\nfollow_redirects = true".to_owned(),
        child: "start_action = \"start\"".to_owned(),
        ..Plan::default()
    };
    let a = lab.start(Side::A, &plan.config(Side::A));
    let mut responder = Responder::asked(&lab);
    for answers in [odd, wishes] {
        for place in 0..answers(&responder).len() {
            responder.keep_up();
            let input = &answers(&responder)[place];
            responder.is_counted(&a, input, &responder.socket);
        }
    }
    responder.keep_up();
    let good = responder.answer(&correct());
    let input = ("from another port", good, Discard::Unauthenticated);
    responder.is_counted(&a, &input, &bind(&lab, 501));

    // Cookies are returned, each once and not for ever.
    let cookie = |number: u8| responder.answer(&vec![notify(NotifyType::COOKIE, &[number; 8])]);
    for number in 0..5 {
        let socket = &responder.socket;
        socket.send_to(&cookie(number), responder.peer).unwrap();
        let wanted = notify(NotifyType::COOKIE, &[number; 8]);
        while receive(socket).2[0] != wanted {}
        let input = ("a cookie again", cookie(number), Discard::StaleRequest);
        responder.is_counted(&a, &input, socket);
    }
    let input = ("one cookie too many", cookie(5), Discard::TooManyRestarts);
    responder.is_counted(&a, &input, &responder.socket);
    for kind in [
        NotifyType::NO_PROPOSAL_CHOSEN,
        NotifyType::AUTHENTICATION_FAILED,
    ] {
        let refusal = responder.answer(&vec![notify(kind, &[])]);
        let input = ("a refusal in clear", refusal, Discard::Unauthenticated);
        responder.is_counted(&a, &input, &responder.socket);
    }
    assert!(a.established().is_empty());

    drop(responder);
    let patient = Plan {
        child: String::new(),
        ..plan
    };
    let _b = lab.start(Side::B, &patient.config(Side::B));
    assert_reaches(&lab.host_a, &lab.host_b, Side::B.host(Family::V4));
    assert_eq!(a.child_sas().len(), 1);
}
