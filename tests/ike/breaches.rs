//! What a peer with keys says against the rules, inside SK or around it (HOSTILE B4, B6, B10 to B16, B22,
//! B27 to B29, B31), what it is told, and which counter rises.

#[path = "breaches/offers.rs"]
mod offers;

use lockgate::crypto::Secret;
use lockgate::ike::Discard;
use lockgate::wire::ikev2::{AuthMethod, NotifyType};
use lockgate::wire::isakmp::{ExchangeType, Flags, Header, PayloadType};

use super::session::{
    Payloads, Session, child_sa, delete, delete_esp, join, notify, proof, rekey_notify, selectors,
};

/// How far the IKE SA has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// IKE_SA_INIT has been answered.
    HalfOpen,
    /// It has a child; the next message ID is 2.
    Up,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    Silence,
    /// One without an error.
    Fine,
    /// Nothing but this.
    Refused(NotifyType),
}

/// Who the peers are to each other, the initiator first.
pub(crate) struct Names {
    pub(crate) secret: Secret,
    pub(crate) ids: [Vec<u8>; 2],
    pub(crate) networks: [&'static str; 2],
}

type Make = Box<dyn Fn(&mut Session, &Names) -> Vec<u8>>;

pub(crate) struct Breach {
    pub(crate) name: String,
    pub(crate) stage: Stage,
    pub(crate) answer: Answer,
    pub(crate) counter: Option<Discard>,
    /// The message, with the session's next message ID unless that is what is wrong.
    pub(crate) make: Make,
}

impl Breach {
    fn new(name: &str, stage: Stage, (answer, counter): Outcome, make: Make) -> Self {
        let name = name.to_owned();
        Self {
            name,
            stage,
            answer,
            counter,
            make,
        }
    }
}

type Outcome = (Answer, Option<Discard>);

const FINE: Outcome = (Answer::Fine, None);
const SYNTAX: Outcome = (
    Answer::Refused(NotifyType::INVALID_SYNTAX),
    Some(Discard::RefusedSyntax),
);
const CRITICAL: Outcome = (
    Answer::Refused(NotifyType::UNSUPPORTED_CRITICAL_PAYLOAD),
    Some(Discard::RefusedCritical),
);
const PROPOSAL: Outcome = (
    Answer::Refused(NotifyType::NO_PROPOSAL_CHOSEN),
    Some(Discard::RefusedProposal),
);
const GROUP: Outcome = (
    Answer::Refused(NotifyType::INVALID_KE_PAYLOAD),
    Some(Discard::RefusedProposal),
);
const SELECTORS: Outcome = (
    Answer::Refused(NotifyType::TS_UNACCEPTABLE),
    Some(Discard::RefusedSelectors),
);
const NO_CHILD: Outcome = (
    Answer::Refused(NotifyType::CHILD_SA_NOT_FOUND),
    Some(Discard::RefusedRequest),
);

const fn ignored(counter: Discard) -> Outcome {
    (Answer::Silence, Some(counter))
}

const UNKNOWN: PayloadType = PayloadType(200);
const CREATE: ExchangeType = ExchangeType::CREATE_CHILD_SA;
const INFORMATIONAL: ExchangeType = ExchangeType::INFORMATIONAL;
const AUTH: ExchangeType = ExchangeType::IKE_AUTH;

/// What a correct IKE_AUTH request holds.
pub(crate) fn auth(session: &mut Session, names: &Names) -> Payloads {
    let [idi, idr] = &names.ids;
    let data = session.secret_proof(&names.secret, idi);
    let mut payloads = vec![
        (PayloadType::ID_I, idi.clone()),
        (PayloadType::ID_R, idr.clone()),
        (PayloadType::AUTH, proof(AuthMethod::SHARED_KEY_MIC, &data)),
        (
            PayloadType::SA,
            child_sa("aes256gcm16-esn-noesn", 0x1000_0001),
        ),
    ];
    payloads.extend(selectors(names.networks[0], names.networks[1]));
    payloads
}

fn create(session: &mut Session, names: &Names) -> Payloads {
    session.child_request(0x1000_0002, names.networks[0], names.networks[1])
}

fn empty(_: &mut Session, _: &Names) -> Payloads {
    Vec::new()
}

type Base = fn(&mut Session, &Names) -> Payloads;

/// A request of which the payloads are not what they should be.
fn changed(base: Base, exchange: ExchangeType, change: impl Fn(&mut Payloads) + 'static) -> Make {
    Box::new(move |session, names| {
        let mut payloads = base(session, names);
        change(&mut payloads);
        let (first, text) = join(&payloads);
        session.seal(exchange, false, session.next_id, first, &text)
    })
}

/// The same with a critical payload of this type in front.
fn critical(base: Base, exchange: ExchangeType, kind: PayloadType) -> Make {
    Box::new(move |session, names| {
        let mut payloads = base(session, names);
        payloads.insert(0, (kind, vec![1, 2, 3]));
        let (first, mut text) = join(&payloads);
        text[1] = 0x80;
        session.seal(exchange, false, session.next_id, first, &text)
    })
}

/// An empty INFORMATIONAL request that is changed as it is on the wire.
fn on_the_wire(change: impl Fn(&mut Vec<u8>) + 'static) -> Make {
    Box::new(move |session, _| {
        let id = session.next_id;
        let mut bytes = session.seal(INFORMATIONAL, false, id, PayloadType::NONE, &[]);
        change(&mut bytes);
        let length = u32::try_from(bytes.len()).unwrap();
        bytes[24..28].copy_from_slice(&length.to_be_bytes());
        bytes
    })
}

fn plain(exchange: ExchangeType) -> Make {
    changed(empty, exchange, |_| {})
}

pub(crate) fn all() -> Vec<Breach> {
    let tables = [
        headers(),
        protection(),
        unknown_payloads(),
        authentications(),
        requests(),
        offers::all(),
        selector_payloads(),
        deletes(),
        rekeys(),
        configurations(),
        notifications(),
    ];
    tables.into_iter().flatten().collect()
}

/// B4, B6 and B31: exchanges, flags and message IDs that are out of place.
fn headers() -> Vec<Breach> {
    let (half, up) = (Stage::HalfOpen, Stage::Up);
    let unknown = || ignored(Discard::UnknownExchange);
    let early = [
        CREATE,
        INFORMATIONAL,
        ExchangeType::IKE_INTERMEDIATE,
        ExchangeType::IKE_FOLLOWUP_KE,
        ExchangeType(240),
    ];
    let late = [
        AUTH,
        ExchangeType::IKE_INTERMEDIATE,
        ExchangeType(40),
        ExchangeType(255),
    ];
    let mut all = Vec::new();
    for exchange in early {
        let name = format!("{exchange} before IKE_AUTH");
        all.push(Breach::new(&name, half, unknown(), plain(exchange)));
    }
    for exchange in late {
        let name = format!("{exchange} after IKE_AUTH");
        all.push(Breach::new(&name, up, unknown(), plain(exchange)));
    }
    for id in [0, 1, 3, 100, u32::MAX] {
        let make: Make = Box::new(move |session, _| {
            session.seal(INFORMATIONAL, false, id, PayloadType::NONE, &[])
        });
        let name = format!("message ID {id} instead of 2");
        all.push(Breach::new(
            &name,
            up,
            ignored(Discard::OutsideWindow),
            make,
        ));
    }
    // What is reserved is not looked at (RFC 7296 §3.1).
    for (name, flags, version) in [
        ("reserved flags", 0xdf, Header::VERSION_2_0),
        ("version 2.15", 0x08, 0x2f),
    ] {
        let make: Make = Box::new(move |session, _| {
            let header = Header {
                flags: Flags(flags),
                version,
                ..session.header(INFORMATIONAL, false, session.next_id)
            };
            session.seal_header(header, PayloadType::NONE, (&[], 0))
        });
        all.push(Breach::new(name, up, FINE, make));
    }
    for (name, flags, counter) in [
        ("not of the initiator", 0x00, Discard::UnknownIkeSpi),
        ("an answer to nothing", 0x28, Discard::UnexpectedResponse),
        // What is reserved is covered by the integrity check like all else.
        (
            "reserved flags, changed on the way",
            0xcf,
            Discard::IntegrityFailed,
        ),
    ] {
        let make = on_the_wire(move |bytes| bytes[19] = flags);
        all.push(Breach::new(name, up, ignored(counter), make));
    }
    all
}

/// B12: SK payloads that are none.
fn protection() -> Vec<Breach> {
    let in_clear = |kind: PayloadType| {
        on_the_wire(move |bytes| {
            let body = bytes[32..].to_vec();
            bytes[16] = kind.0;
            bytes.truncate(28);
            bytes.extend([0, 0]);
            bytes.extend(u16::try_from(body.len() + 4).unwrap().to_be_bytes());
            bytes.extend(body);
        })
    };
    let short = |length: u8| {
        on_the_wire(move |bytes| {
            bytes.truncate(32 + usize::from(length));
            bytes[30..32].copy_from_slice(&[0, 4 + length]);
        })
    };
    let behind = |kind: PayloadType| {
        on_the_wire(move |bytes| {
            let payload = bytes[28..].to_vec();
            bytes[28] = kind.0;
            bytes.extend(payload);
        })
    };
    let too_much_padding: Make = Box::new(|session, _| {
        let id = session.next_id;
        session.seal_padded(INFORMATIONAL, false, id, PayloadType::NONE, (&[], 7))
    });
    let padding_of_255: Make = Box::new(|session, _| {
        let id = session.next_id;
        session.seal_padded(
            INFORMATIONAL,
            false,
            id,
            PayloadType::NONE,
            (&[0; 254], 255),
        )
    });
    let cases = [
        ("no SK", Discard::NotProtected, in_clear(PayloadType::NONCE)),
        ("SK of 0 bytes", Discard::NotProtected, short(0)),
        ("SK of an IV only", Discard::NotProtected, short(8)),
        (
            "SK without a byte of text",
            Discard::NotProtected,
            short(24),
        ),
        (
            "SK with half a check value",
            Discard::NotProtected,
            short(16),
        ),
        ("two SK", Discard::Malformed, behind(PayloadType::SK)),
        ("SK, then SKF", Discard::Malformed, behind(PayloadType::SKF)),
        (
            "SK, then a notify",
            Discard::Malformed,
            behind(PayloadType::NOTIFY),
        ),
        (
            "more padding than text",
            Discard::Malformed,
            too_much_padding,
        ),
        (
            "padding of 255 bytes of 254",
            Discard::Malformed,
            padding_of_255,
        ),
    ];
    let breach = |(name, counter, make)| Breach::new(name, Stage::Up, ignored(counter), make);
    cases.into_iter().map(breach).collect()
}

/// B10, and payloads of IKEv1 (B11).
fn unknown_payloads() -> Vec<Breach> {
    let stages: [(Stage, ExchangeType, Base); 3] = [
        (Stage::HalfOpen, AUTH, auth),
        (Stage::Up, CREATE, create),
        (Stage::Up, INFORMATIONAL, empty),
    ];
    let mut all = Vec::new();
    for (stage, exchange, base) in stages {
        // IKEv1's SA, KE, HASH and Notification (RFC 2408 §3.1).
        for kind in [
            UNKNOWN,
            PayloadType(1),
            PayloadType(4),
            PayloadType(8),
            PayloadType(11),
        ] {
            let name = format!("a critical payload {kind:?} in {exchange}");
            let make = critical(base, exchange, kind);
            all.push(Breach::new(&name, stage, CRITICAL, make));
            let name = format!("a payload {kind:?} in {exchange} that is not critical");
            let make = changed(base, exchange, move |payloads| {
                payloads.insert(0, (kind, vec![7; 9]));
            });
            all.push(Breach::new(&name, stage, FINE, make));
        }
    }
    all
}

/// B11: IKE_AUTH without one of its payloads, or with two.
fn authentications() -> Vec<Breach> {
    let mut all = Vec::new();
    let mut add = |name: String, make| {
        all.push(Breach::new(&name, Stage::HalfOpen, SYNTAX, make));
    };
    for place in [0, 2] {
        add(
            format!("payload {place} of IKE_AUTH is missing"),
            changed(auth, AUTH, move |payloads| drop(payloads.remove(place))),
        );
        add(
            format!("payload {place} of IKE_AUTH is empty"),
            changed(auth, AUTH, move |payloads| payloads[place].1.clear()),
        );
    }
    for place in 0..6 {
        add(
            format!("payload {place} of IKE_AUTH is there twice"),
            changed(auth, AUTH, move |payloads| {
                payloads.insert(place, payloads[place].clone());
            }),
        );
    }
    all
}

/// B11, B15 and B16: CREATE_CHILD_SA whose payloads are missing, doubled, empty or of no use.
fn requests() -> Vec<Breach> {
    let mut all = Vec::new();
    let mut add = |name: &str, outcome, make| {
        all.push(Breach::new(name, Stage::Up, outcome, make));
    };
    for place in 0..5 {
        let missing = changed(create, CREATE, move |payloads| drop(payloads.remove(place)));
        // Without a KE payload, the answer names the method that one is wanted for.
        let outcome = if place == 2 { GROUP } else { SYNTAX };
        add(&format!("payload {place} is missing"), outcome, missing);
        let empty = changed(create, CREATE, move |payloads| payloads[place].1.clear());
        add(&format!("payload {place} is empty"), SYNTAX, empty);
        let twice = changed(create, CREATE, move |payloads| {
            payloads.insert(place, payloads[place].clone());
        });
        add(&format!("payload {place} is there twice"), SYNTAX, twice);
    }
    for (length, outcome) in [
        (0, SYNTAX),
        (15, SYNTAX),
        (16, FINE),
        (256, FINE),
        (257, SYNTAX),
    ] {
        let make = changed(create, CREATE, move |payloads| {
            payloads[1].1 = vec![3; length]
        });
        add(&format!("a nonce of {length} bytes"), outcome, make);
    }
    for (name, data) in [
        ("the point 0", vec![0; 32]),
        ("no point", vec![]),
        ("31 bytes of a point", vec![9; 31]),
        ("33 bytes of a point", vec![9; 33]),
    ] {
        let make = changed(create, CREATE, move |payloads| {
            payloads[2].1 = [&[0, 31, 0, 0][..], &data].concat();
        });
        add(name, SYNTAX, make);
    }
    let make = changed(create, CREATE, |payloads| {
        payloads[0].1 = child_sa("aes128ctr-sha512-noesn", 0x1000_0002);
    });
    add("a proposal that is not allowed", PROPOSAL, make);
    let make = changed(create, CREATE, |payloads| {
        payloads.insert(0, (PayloadType::ID_I, vec![2, 0, 0, 0, b'x']));
    });
    add("an identity in CREATE_CHILD_SA", FINE, make);
    all
}

/// B27: traffic selectors that lie about themselves or ask for what is not the peer's.
fn selector_payloads() -> Vec<Breach> {
    let mut all = Vec::new();
    for (name, network) in [
        ("a network outside", "10.9.0.0/24"),
        ("an address beside the network", "10.1.1.0/32"),
        ("IPv6 where the other side is IPv4", "fd00:1::/64"),
    ] {
        let make = changed(create, CREATE, move |payloads| {
            payloads[3].1 = selectors(network, network)[0].1.clone();
        });
        all.push(Breach::new(name, Stage::Up, SELECTORS, make));
    }
    let everything = changed(create, CREATE, |payloads| {
        payloads.splice(3..5, selectors("0.0.0.0/0", "0.0.0.0/0"));
    });
    all.push(Breach::new("everything", Stage::Up, FINE, everything));
    for (at, value) in [
        (0, 0),
        (0, 2),
        (0, 255),
        (7, 15),
        (7, 17),
        (6, 255),
        (12, 200),
    ] {
        let make = changed(create, CREATE, move |payloads| payloads[3].1[at] = value);
        let name = format!("byte {at} of TSi is {value}");
        all.push(Breach::new(&name, Stage::Up, SYNTAX, make));
    }
    for (name, length) in [("half a selector", 12), ("no selector", 4)] {
        let make = changed(create, CREATE, move |payloads| {
            payloads[3].1.truncate(length)
        });
        all.push(Breach::new(name, Stage::Up, SYNTAX, make));
    }
    let make = changed(create, CREATE, |payloads| payloads[3].1.extend([0; 4]));
    all.push(Breach::new(
        "bytes behind the selectors",
        Stage::Up,
        SYNTAX,
        make,
    ));
    all
}

/// B28: deletes of what is not there, and such as contradict themselves.
fn deletes() -> Vec<Breach> {
    let cases = [
        (FINE, delete_esp(0xdead_beef)),
        (FINE, delete_esp(0)),
        (FINE, delete(3, 4, 0, &[])),
        (FINE, delete(2, 4, 1, &[0x10, 0, 0, 1])),
        (FINE, delete(3, 4, 500, &[0x11; 2000])),
        (SYNTAX, delete(3, 4, 2, &[0x10, 0, 0, 1])),
        (SYNTAX, delete(3, 8, 1, &[0; 8])),
        (SYNTAX, delete(3, 4, 1, &[0x10, 0, 0])),
        (SYNTAX, delete(1, 4, 1, &[0; 4])),
        (SYNTAX, delete(9, 4, 1, &[0x10, 0, 0, 1])),
        (SYNTAX, (PayloadType::DELETE, vec![])),
        (SYNTAX, (PayloadType::DELETE, vec![3])),
    ];
    let breach = |(place, (outcome, payload)): (usize, (Outcome, (PayloadType, Vec<u8>)))| {
        let make = changed(empty, INFORMATIONAL, move |payloads| {
            payloads.push(payload.clone());
        });
        Breach::new(&format!("delete {place}"), Stage::Up, outcome, make)
    };
    cases.into_iter().enumerate().map(breach).collect()
}

/// B28: rekeys of what is not there.
fn rekeys() -> Vec<Breach> {
    let own = [0x10, 0, 0, 1];
    let cases = [
        (3, vec![0xde, 0xad, 0xbe, 0xef]),
        (0, own.to_vec()),
        (1, own.to_vec()),
        (2, own.to_vec()),
        (3, vec![]),
        (3, own[..3].to_vec()),
        (3, vec![0; 8]),
    ];
    let breach = |(protocol, spi): (u8, Vec<u8>)| {
        let name = format!("REKEY_SA with protocol {protocol} and SPI {spi:02x?}");
        let make = changed(create, CREATE, move |payloads| {
            payloads.insert(0, (PayloadType::NOTIFY, rekey_notify(protocol, &spi)));
        });
        Breach::new(&name, Stage::Up, NO_CHILD, make)
    };
    cases.into_iter().map(breach).collect()
}

/// B29: configuration payloads.
fn configurations() -> Vec<Breach> {
    let attribute = |kind: u16, length: u16| [kind.to_be_bytes(), length.to_be_bytes()].concat();
    let cp = |kind: u8, attributes: &[u8]| [&[kind, 0, 0, 0], attributes].concat();
    let cases = [
        (
            "1000 attributes",
            FINE,
            cp(1, &attribute(1, 0).repeat(1000)),
        ),
        (
            "an attribute of 65535 bytes",
            SYNTAX,
            cp(1, &attribute(1, 65535)),
        ),
        ("half an attribute", SYNTAX, cp(1, &[0, 1])),
        (
            "an address of 3 bytes",
            SYNTAX,
            cp(1, &[0, 1, 0, 3, 1, 2, 3]),
        ),
        ("an unknown attribute", FINE, cp(1, &attribute(0x7fff, 0))),
        ("an empty configuration", SYNTAX, vec![]),
        ("a reply to nothing", FINE, cp(2, &attribute(1, 0))),
        ("configuration type 255", FINE, cp(255, &attribute(1, 0))),
    ];
    let stages: [(Stage, ExchangeType, Base); 3] = [
        (Stage::HalfOpen, AUTH, auth),
        (Stage::Up, CREATE, create),
        (Stage::Up, INFORMATIONAL, empty),
    ];
    let mut all = Vec::new();
    for (name, outcome, body) in cases {
        for (stage, exchange, base) in stages {
            let body = body.clone();
            let make = changed(base, exchange, move |payloads| {
                payloads.push((PayloadType::CP, body.clone()));
            });
            all.push(Breach::new(
                &format!("{name} in {exchange}"),
                stage,
                outcome,
                make,
            ));
        }
    }
    all
}

/// B22: notifications, many, long and with control characters.
fn notifications() -> Vec<Breach> {
    let many = |count: usize| {
        changed(empty, INFORMATIONAL, move |payloads| {
            payloads.extend(vec![notify(NotifyType(40_000), b"\x1b[2J\r\n"); count]);
        })
    };
    let long = |length: usize| {
        changed(empty, INFORMATIONAL, move |payloads| {
            payloads.push(notify(NotifyType(40_000), &vec![b'\n'; length]));
        })
    };
    let (up, too_long) = (Stage::Up, ignored(Discard::TooLong));
    vec![
        Breach::new("60 notifications", up, FINE, many(60)),
        Breach::new("500 notifications", up, SYNTAX, many(500)),
        Breach::new("a notification of 15 000 bytes", up, FINE, long(15_000)),
        Breach::new("a notification of 60 000 bytes", up, too_long, long(60_000)),
    ]
}
