//! More than anybody has a reason to send, at a running daemon with a tunnel (HOSTILE B18, B20, B22, B23, B28, B31): what is
//! too much is counted, and neither memory nor the log grows with it.

use std::net::UdpSocket;
use std::time::Duration;

use lockgate::ike::Discard;
use lockgate::wire::ikev2::{Notify, NotifyType, message_bytes};
use lockgate::wire::isakmp::{ExchangeType, Flags, Header, IkeSpi, PayloadType};

use super::breaches;
use super::hostile::{discards, half_open, ike_spis};
use super::insider::{connect, names};
use super::sender::Sender;
use super::session::{Payloads, delete, init_request, join, notify, split};
use crate::support::{
    PATIENCE, eventually,
    lab::{Family, Gateway, Lab, Plan, Side, ip},
    traffic::assert_reaches,
};

const INFORMATIONAL: ExchangeType = ExchangeType::INFORMATIONAL;

/// Resident memory of a daemon, in KiB.
fn memory(gateway: &Gateway) -> u64 {
    let path = format!("/proc/{}/status", gateway.process.id());
    let status = std::fs::read_to_string(path).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    let mut words = line.unwrap().split_whitespace();
    words.nth(1).unwrap().parse().unwrap()
}

/// Lines of the log that are not about who asks for counters.
fn lines(gateway: &Gateway) -> usize {
    let output = gateway.process.output();
    let lines = output.lines();
    lines
        .filter(|line| !line.contains("control client"))
        .count()
}

/// The cookie that is asked for, if that is the answer.
fn asked_cookie(answer: &[u8]) -> Option<Vec<u8>> {
    let (header, rest) = Header::parse(answer).unwrap();
    match &split(header.next_payload, rest)[..] {
        [(PayloadType::NOTIFY, body)] => {
            let notify = Notify::parse(body).unwrap();
            (notify.kind == NotifyType::COOKIE).then(|| notify.data.to_vec())
        }
        _ => None,
    }
}

/// The same request with a cookie in front.
fn with_cookie(request: &[u8], cookie: &[u8]) -> Vec<u8> {
    let (header, rest) = Header::parse(request).unwrap();
    let mut payloads = split(header.next_payload, rest);
    payloads.insert(0, notify(NotifyType::COOKIE, cookie));
    init_request(header.initiator_spi, payloads)
}

/// B18: an address with an IKE SA that is half open has to return cookies, which are good for nobody else.
#[test]
fn a_cookie_is_good_only_for_whom_it_was_made() {
    let Some(lab) = Lab::new() else { return };
    ip(&lab.gateway_a, "address add 192.0.2.9/24 dev outer");
    let plan = Plan::default();
    let anybody = "remote_addrs = [\"%any\"]";
    let config = plan
        .config(Side::B)
        .replace("remote_addrs = [\"192.0.2.1\"]", anybody);
    let b = lab.start(Side::B, &config);
    let a = lab.start(Side::A, &plan.config(Side::A));
    a.initiate("net");
    let mut sender = Sender::new(&lab);
    let mut other = Sender::at(&lab, [192, 0, 2, 9].into(), 500);
    sender.half_open();
    other.half_open();
    let count = |name: &str| b.discards(name);
    let mut opening = Sender::opening(1000);
    let required = count("cookie-required");
    let cookie = asked_cookie(&sender.ask(&opening.request)).expect("a cookie");
    let cookie = &cookie[..];
    assert!((1..=64).contains(&cookie.len()));
    assert_eq!(count("cookie-required"), required + 1);

    let mut wrong = cookie.to_vec();
    *wrong.last_mut().unwrap() ^= 1;
    // The same SPI with another nonce, and the other way round.
    let (header, rest) = Header::parse(&opening.request).unwrap();
    let mut payloads = split(header.next_payload, rest);
    let another_spi = init_request(IkeSpi([3; 8]), payloads.clone());
    payloads[2].1 = vec![3; 32];
    let another_nonce = init_request(header.initiator_spi, payloads);
    let request = &opening.request;
    let tries: [(&Sender, &[u8], &[u8]); 8] = [
        (&other, request, cookie),
        (&sender, &another_spi, cookie),
        (&sender, &another_nonce, cookie),
        (&sender, request, &wrong),
        (&sender, request, &cookie[1..]),
        (&sender, request, &[]),
        (&sender, request, &[7; 64]),
        (&sender, request, &[7; 65]),
    ];
    for (place, (sender, request, cookie)) in tries.into_iter().enumerate() {
        let mut expected = discards(&b);
        *expected.get_mut("bad-cookie").unwrap() += 1;
        let answer = sender.ask(&with_cookie(request, cookie));
        assert!(asked_cookie(&answer).is_some(), "try {place}");
        assert_eq!(discards(&b), expected, "try {place}");
        assert_eq!(half_open(&b), "2", "try {place}");
    }
    let before = discards(&b);
    let request = with_cookie(&opening.request, cookie);
    let answer = sender.ask(&request);
    opening.request = request;
    let mut session = opening.answered(&answer);
    let payloads = breaches::auth(&mut session, &names());
    let answer = sender.request(&mut session, ExchangeType::IKE_AUTH, &payloads);
    assert_eq!(answer.error(), None);
    assert_eq!(discards(&b), before);
    // Or B would send to its child what is for A.
    sender.delete(&mut session);
    assert_reaches(&lab.host_a, &lab.host_b, Side::B.host(Family::V4));
}

/// B23: an address that returns its cookies has so many half-open IKE SAs, of which the oldest makes room.
#[test]
fn half_open_ike_sas_in_the_name_of_a_peer_are_bounded_and_lock_it_out_of_nothing() {
    let Some(lab) = Lab::new() else { return };
    let [mut a, b] = lab.tunnel(&Plan::default());
    let spis = ike_spis(&b);
    let mut flood = Flood::new(&lab);
    while b.discards("half-open-limit") == 0 {
        flood.burst();
    }
    let (full, before) = (memory(&b), b.discards("half-open-limit"));
    while b.discards("half-open-limit") < before + 100 {
        flood.burst();
    }
    let grown = memory(&b).saturating_sub(full);
    assert!(grown < 1024, "{grown} KiB more");
    let count: u64 = half_open(&b).parse().unwrap();
    assert!(count <= 1024, "{count} half-open IKE SAs");
    assert_eq!(ike_spis(&b), spis);
    assert_reaches(&lab.host_a, &lab.host_b, Side::B.host(Family::V4));

    a.process.kill();
    let again = lab.start(Side::A, &Plan::default().config(Side::A));
    again.initiate("net");
    assert_reaches(&lab.host_a, &lab.host_b, Side::B.host(Family::V4));
}

/// Requests in the name of A, each of an IKE SA of its own.
struct Flood {
    sender: Sender,
    payloads: Payloads,
    sent: u64,
}

impl Flood {
    fn new(lab: &Lab) -> Self {
        let sender = Sender::new(lab);
        let pause = Some(Duration::from_millis(100));
        sender.socket.set_read_timeout(pause).unwrap();
        let request = Sender::opening(1).request;
        let (header, rest) = Header::parse(&request).unwrap();
        Self {
            sender,
            payloads: split(header.next_payload, rest),
            sent: 0,
        }
    }

    /// Some more, with the cookies that are asked for.
    fn burst(&mut self) {
        assert!(self.sent < 100_000, "no limit");
        for _ in 0..16 {
            self.sent += 1;
            let spi = IkeSpi((self.sent << 8).to_be_bytes());
            self.sender.send(&init_request(spi, self.payloads.clone()));
        }
        let mut answer = [0; 2000];
        while let Ok(len) = self.sender.socket.recv(&mut answer) {
            let (header, _) = Header::parse(&answer[..len]).unwrap();
            if let Some(cookie) = asked_cookie(&answer[..len]) {
                let request = init_request(header.initiator_spi, self.payloads.clone());
                self.sender.send(&with_cookie(&request, &cookie));
            }
        }
    }
}

/// B20: INVALID_IKE_SPI and INVALID_SPI from anybody, as requests and as answers.
#[test]
fn claims_in_clear_that_an_sa_is_unknown_are_counted_and_answers_to_answers_never_sent() {
    let Some(lab) = Lab::new() else { return };
    let [a, b] = lab.tunnel(&Plan::default());
    let (one, two) = ike_spis(&b);
    let spi = b.child_sas()[0].get("spi-in").unwrap().to_owned();
    let spi = u32::from_str_radix(&spi, 16).unwrap().to_be_bytes();
    let message = |(one, two): (IkeSpi, IkeSpi), response: bool, initiator: bool| {
        let header = Header {
            initiator_spi: one,
            responder_spi: two,
            next_payload: PayloadType::NONE,
            version: Header::VERSION_2_0,
            exchange: INFORMATIONAL,
            flags: Flags::new(initiator, response),
            message_id: 0,
            length: 0,
        };
        let payloads = vec![
            notify(NotifyType::INVALID_IKE_SPI, &[]),
            notify(NotifyType::INVALID_SPI, &spi),
        ];
        message_bytes(header, join(&payloads))
    };
    let nobody = (IkeSpi([1; 8]), IkeSpi([2; 8]));
    let kinds = [
        message((one, two), true, true),
        message((one, two), false, true),
        message(nobody, true, true),
        message(nobody, false, true),
        message(nobody, true, false),
        message((IkeSpi::ZERO, IkeSpi::ZERO), true, true),
    ];
    let flood = Sender::new(&lab);
    let sum = || discards(&b).values().sum::<u64>();
    let (mut before, lines_before) = (sum(), lines(&b));
    for bytes in &kinds {
        for _ in 0..20 {
            for _ in 0..50 {
                flood.send(bytes);
            }
            before += 50;
            eventually("all are counted", || (sum() == before).then_some(()));
        }
    }
    let answers = drain(&flood.socket);
    assert!(answers.len() < 2000, "{} answers", answers.len());
    let largest = answers.iter().max().copied().unwrap_or(0);
    assert!(largest <= kinds[0].len(), "{largest} bytes");
    let more = lines(&b) - lines_before;
    assert!(more < 1000, "{more} lines");
    for gateway in [&a, &b] {
        assert_eq!(ike_spis(gateway), (one, two));
        assert_eq!(gateway.child_sas().len(), 1);
    }
    assert_reaches(&lab.host_a, &lab.host_b, Side::B.host(Family::V4));

    // To what says that it is an answer, nothing is answered.
    for bytes in [&kinds[0], &kinds[2], &kinds[4], &kinds[5]] {
        let before = sum();
        flood.send(bytes);
        eventually("it is counted", || (sum() == before + 1).then_some(()));
        assert_eq!(drain(&flood.socket), [] as [usize; 0]);
    }
}

/// The lengths of all that has come.
fn drain(socket: &UdpSocket) -> Vec<usize> {
    socket.set_nonblocking(true).unwrap();
    let lengths = std::iter::from_fn(|| socket.recv(&mut [0; 2000]).ok()).collect();
    socket.set_nonblocking(false).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    lengths
}

/// B28 and B31: a peer with keys asks for Child SAs without end, and deletes each of them many times.
#[test]
fn one_ike_sa_gets_so_many_children_and_what_is_deleted_often_is_deleted_once() {
    let Some(lab) = Lab::new() else { return };
    let [_a, b] = lab.tunnel(&Plan::default());
    let mut sender = Sender::new(&lab);
    let (names, mut session) = (names(), connect(&mut sender, &names()));
    let [local, remote] = names.networks;
    let mut spis = vec![0x1000_0001_u32];
    for spi in 0x1000_0002..0x1000_0064 {
        let payloads = session.child_request(spi, local, remote);
        let mut expected = discards(&b);
        let answer = sender.request(&mut session, ExchangeType::CREATE_CHILD_SA, &payloads);
        if let Some(error) = answer.error() {
            assert_eq!(error, NotifyType::NO_ADDITIONAL_SAS);
            *expected.get_mut("refused-request").unwrap() += 1;
        } else {
            spis.push(spi);
        }
        assert_eq!(discards(&b), expected);
    }
    assert_eq!(spis.len(), 64);
    assert_eq!(b.child_sas().len(), 1 + spis.len());
    let before = discards(&b);
    let all: Vec<u8> = spis.iter().flat_map(|spi| spi.to_be_bytes()).collect();
    for repeat in [3, 1] {
        let everything = vec![delete(3, 4, 64 * repeat, &all.repeat(usize::from(repeat)))];
        let answer = sender.request(&mut session, INFORMATIONAL, &everything);
        assert_eq!(answer.error(), None);
        assert_eq!(b.child_sas().len(), 1);
    }
    assert_eq!(discards(&b), before);
    assert!(sender.is_alive(&mut session));
    assert_reaches(&lab.host_a, &lab.host_b, Side::B.host(Family::V4));
}

/// B22: a peer with keys that tells what nobody wants to know.
#[test]
fn notifications_without_end_inside_an_ike_sa_cost_neither_memory_nor_the_log() {
    let Some(lab) = Lab::new() else { return };
    let [_a, b] = lab.tunnel(&Plan::default());
    let mut sender = Sender::new(&lab);
    let mut session = connect(&mut sender, &names());
    let noise = vec![notify(NotifyType(40_000), &[b'\n'; 200]); 60];
    let errors = vec![notify(NotifyType(40), &[b'\x1b'; 200]); 60];
    let says = |session: &mut _| {
        for payloads in [&noise, &errors] {
            let answer = sender.request(session, INFORMATIONAL, payloads);
            assert_eq!(answer.payloads, []);
        }
    };
    for _ in 0..50 {
        says(&mut session);
    }
    let before = (discards(&b), memory(&b), lines(&b));
    for _ in 0..200 {
        says(&mut session);
    }
    assert_eq!(discards(&b), before.0);
    let grown = memory(&b).saturating_sub(before.1);
    assert!(grown < 1024, "{grown} KiB more");
    let more = lines(&b) - before.2;
    assert!(more < 100, "{more} lines");
    let clean = |line: &str| line.chars().all(|c| !c.is_control() || c == '\t');
    assert!(b.process.output().lines().all(clean));
    assert!(sender.is_alive(&mut session));
    assert_eq!(b.discards(Discard::RateLimited.name()), 0);
}
