//! A peer with keys that breaks the rules, at a running daemon that has another tunnel (HOSTILE B4, B6, B10 to B12,
//! B15, B16, B20, B22, B23, B27 to B29, B31): each breach raises its own counter and harms nobody else.

use std::collections::{BTreeMap, BTreeSet};

use lockgate::crypto::Secret;
use lockgate::ike::{Discard, Identity};
use lockgate::wire::ikev2::NotifyType;
use lockgate::wire::isakmp::{ExchangeType, Header, PayloadType};

use super::breaches::{self, Answer, Breach, Names, Stage};
use super::hostile::{self, discards, ike_spis};
use super::sender::Sender;
use super::session::{Opened, Session, init_request, split};
use crate::support::{
    eventually,
    lab::{Family, Gateway, Lab, Plan, Side},
    traffic::assert_reaches,
};

pub(crate) fn names() -> Names {
    let id = |side: Side| {
        let identity: Identity = side.identity().parse().unwrap();
        identity.to_payload_body()
    };
    Names {
        secret: Secret::from(b"correct horse battery staple".to_vec()),
        ids: [id(Side::A), id(Side::B)],
        networks: ["10.1.0.0/24", "10.2.0.0/24"],
    }
}

fn plan() -> Plan {
    Plan {
        daemon: "dos_protection = false".to_owned(),
        ..Plan::default()
    }
}

/// An IKE SA with a child, made by hand.
pub(crate) fn connect(sender: &mut Sender, names: &Names) -> Session {
    let mut session = sender.half_open();
    let payloads = breaches::auth(&mut session, names);
    let answer = sender.request(&mut session, ExchangeType::IKE_AUTH, &payloads);
    assert_eq!(answer.error(), None);
    session
}

/// Waits until something is counted, and tells what.
fn counted(b: &Gateway, before: &BTreeMap<String, u64>, name: &str) -> BTreeMap<String, u64> {
    eventually(&format!("{name} is counted"), || {
        let after = discards(b);
        (after != *before).then_some(after)
    })
}

fn outcome(opened: &Opened) -> Answer {
    match (opened.error(), opened.payloads.len()) {
        (None, _) => Answer::Fine,
        (Some(error), 1) => Answer::Refused(error),
        (Some(error), count) => panic!("{error:?} and {count} other payloads"),
    }
}

/// What is wrong with how the daemon takes it.
fn play(sender: &mut Sender, b: &Gateway, names: &Names, breach: &Breach) -> Option<String> {
    let mut session = match breach.stage {
        Stage::HalfOpen => sender.half_open(),
        Stage::Up => connect(sender, names),
    };
    let before = discards(b);
    let message = (breach.make)(&mut session, names);
    let answer = if breach.answer == Answer::Silence {
        sender.send(&message);
        counted(b, &before, &breach.name);
        Answer::Silence
    } else {
        session.next_id += 1;
        outcome(&session.open(&sender.ask(&message)))
    };
    let mut expected = before.clone();
    if let Some(counter) = breach.counter {
        *expected.get_mut(counter.name()).unwrap() += 1;
    }
    let after = discards(b);
    let mut wrong = Vec::new();
    if answer != breach.answer {
        wrong.push(format!("{answer:?} instead of {:?}", breach.answer));
    }
    if after != expected {
        let rose = after
            .iter()
            .filter(|(name, count)| before[*name] != **count);
        let rose: Vec<_> = rose.map(|(name, _)| name).collect();
        wrong.push(format!("{rose:?} instead of {:?}", breach.counter));
    }
    let fatal = matches!(answer, Answer::Refused(NotifyType::INVALID_SYNTAX));
    let refused = breach.stage == Stage::HalfOpen && matches!(answer, Answer::Refused(_));
    if breach.stage == Stage::HalfOpen && answer == Answer::Silence {
        let payloads = breaches::auth(&mut session, names);
        let answer = sender.request(&mut session, ExchangeType::IKE_AUTH, &payloads);
        assert_eq!(
            answer.error(),
            None,
            "{}: may still authenticate",
            breach.name
        );
    }
    if !fatal && !refused {
        assert!(sender.is_alive(&mut session), "{}", breach.name);
        sender.delete(&mut session);
    }
    (!wrong.is_empty()).then(|| format!("{}: {}", breach.name, wrong.join(", ")))
}

#[test]
fn a_peer_with_keys_that_breaks_the_rules_is_counted_and_harms_only_itself() {
    let Some(lab) = Lab::new() else { return };
    let [a, b] = lab.tunnel(&plan());
    let (names, spis) = (names(), ike_spis(&b));
    let child = b.child_sas()[0].get("spi-in").unwrap().to_owned();
    let mut sender = Sender::new(&lab);
    let wrong: Vec<_> = breaches::all()
        .iter()
        .filter_map(|breach| play(&mut sender, &b, &names, breach))
        .collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
    eventually("only A's tunnel is left", || {
        (b.established().len() == 1).then_some(())
    });
    assert_eq!(ike_spis(&b), spis);
    assert_eq!(b.child_sas().len(), 1);
    assert_eq!(b.child_sas()[0].get("spi-in").unwrap(), child);
    assert_eq!(a.child_sas().len(), 1);
    let clean = |line: &str| line.chars().all(|c| !c.is_control() || c == '\t');
    assert!(b.process.output().lines().all(clean));
    assert_reaches(&lab.host_a, &lab.host_b, Side::B.host(Family::V4));
}

/// B4 and B9: nor is it a reason to refuse the request that opens an IKE SA.
#[test]
fn what_is_reserved_or_unknown_is_passed_over_and_covered_by_the_proofs() {
    let Some(lab) = Lab::new() else { return };
    let [_a, b] = lab.tunnel(&plan());
    let sender = Sender::new(&lab);
    let before = discards(&b);
    let changes: [fn(&mut Vec<u8>); 4] = [
        |request| request[19] = 0xdf,
        |request| request[17] = 0x2f,
        |request| *request = with_unknown(request, 30),
        |request| *request = with_unknown(request, 31),
    ];
    for (number, change) in (500..).zip(changes) {
        let mut opening = Sender::opening(number);
        change(&mut opening.request);
        let answer = sender.ask(&opening.request);
        let mut session = opening.answered(&answer);
        let payloads = breaches::auth(&mut session, &names());
        let answer = sender.request(&mut session, ExchangeType::IKE_AUTH, &payloads);
        assert_eq!(answer.error(), None);
        sender.delete(&mut session);
    }
    assert_eq!(discards(&b), before);
    assert_reaches(&lab.host_a, &lab.host_b, Side::B.host(Family::V4));
}

/// The same request with so many payloads besides that are not critical.
fn with_unknown(request: &[u8], count: usize) -> Vec<u8> {
    let (header, rest) = Header::parse(request).unwrap();
    let mut payloads = split(header.next_payload, rest);
    payloads.extend(vec![(PayloadType(200), vec![0xff; 9]); count]);
    init_request(header.initiator_spi, payloads)
}

/// B23: each guess is an IKE SA of its own, and is counted.
#[test]
fn guesses_at_the_secret_are_counted_and_let_nobody_in() {
    let Some(lab) = Lab::new() else { return };
    let [_a, b] = lab.tunnel(&plan());
    let (before, spis) = (discards(&b), ike_spis(&b));
    let mut sender = Sender::new(&lab);
    for guess in 0..100u8 {
        let mut session = sender.half_open();
        let wrong = Names {
            secret: Secret::from(vec![guess; 20]),
            ..names()
        };
        let payloads = breaches::auth(&mut session, &wrong);
        let answer = sender.request(&mut session, ExchangeType::IKE_AUTH, &payloads);
        assert_eq!(answer.notifies(), [NotifyType::AUTHENTICATION_FAILED]);
        assert_eq!(answer.payloads.len(), 1);
        assert!(answer.body(PayloadType::AUTH).is_none());
    }
    let mut expected = before;
    *expected.get_mut("refused-authentication").unwrap() += 100;
    assert_eq!(discards(&b), expected);
    assert_eq!(b.established().len(), 1);
    assert_eq!(ike_spis(&b), spis);
    assert_reaches(&lab.host_a, &lab.host_b, Side::B.host(Family::V4));
}

/// Reasons that these tables do not raise, and the test that raises them.
const ELSEWHERE: [(Discard, &str, &str); 18] = [
    (
        Discard::StaleFragment,
        HISTORY,
        "what_is_repeated_is_counted_and_done_once",
    ),
    (
        Discard::Retransmission,
        HISTORY,
        "what_is_repeated_is_counted_and_done_once",
    ),
    (
        Discard::StaleRequest,
        HISTORY,
        "what_is_repeated_is_counted_and_done_once",
    ),
    (Discard::Unauthenticated, RESPONDER, RIGHT_ANSWER),
    (Discard::NotOffered, RESPONDER, RIGHT_ANSWER),
    (Discard::TooManyRestarts, RESPONDER, RIGHT_ANSWER),
    (Discard::BadRedirect, RESPONDER, RIGHT_ANSWER),
    (
        Discard::CookieRequired,
        LOAD,
        "a_cookie_is_good_only_for_whom_it_was_made",
    ),
    (
        Discard::BadCookie,
        LOAD,
        "a_cookie_is_good_only_for_whom_it_was_made",
    ),
    (
        Discard::HalfOpenLimit,
        LOAD,
        "half_open_ike_sas_in_the_name_of_a_peer_are_bounded_and_lock_it_out_of_nothing",
    ),
    (Discard::BadCrashToken, HISTORY, TOKEN),
    (Discard::RateLimited, HISTORY, TOKEN),
    (
        Discard::BadTicket,
        HISTORY,
        "a_ticket_that_is_none_or_whose_ike_sa_was_deleted_opens_nothing",
    ),
    (
        Discard::StaleTicket,
        HISTORY,
        "a_ticket_that_is_none_or_whose_ike_sa_was_deleted_opens_nothing",
    ),
    (
        Discard::BadMessageIdSync,
        HISTORY,
        "a_synchronization_of_message_ids_that_goes_back_is_counted",
    ),
    (
        Discard::NoConnection,
        HISTORY,
        "a_stranger_is_counted_and_told_so_in_few_bytes",
    ),
    (
        Discard::RefusedAuthentication,
        include_str!("insider.rs"),
        "guesses_at_the_secret_are_counted_and_let_nobody_in",
    ),
    // On the virtual clock: a daemon that ends does so within a moment.
    (
        Discard::ShuttingDown,
        include_str!("../ike/control.rs"),
        "a_shutdown_deletes_everything_and_accepts_nothing_more",
    ),
];

const HISTORY: &str = include_str!("history.rs");
const LOAD: &str = include_str!("load.rs");
const RESPONDER: &str = include_str!("responder.rs");
const RIGHT_ANSWER: &str =
    "answers_that_nobody_should_give_are_counted_and_the_right_one_is_still_taken";
const TOKEN: &str = "a_crash_is_proven_by_the_token_of_the_peer_alone_and_guesses_are_limited";

#[test]
fn every_reason_to_discard_is_raised_by_a_test() {
    let tables = hostile::counters((Default::default(), Default::default()));
    let inside = breaches::all();
    let inside = inside.iter().filter_map(|breach| breach.counter);
    let mut raised: BTreeSet<&str> = inside.map(Discard::name).collect();
    raised.extend(tables);
    let elsewhere: BTreeSet<&str> = ELSEWHERE.iter().map(|(why, ..)| why.name()).collect();
    let known: BTreeSet<&str> = raised.union(&elsewhere).copied().collect();
    let all: BTreeSet<&str> = Discard::ALL.iter().map(|why| why.name()).collect();
    assert_eq!(known, all);
    assert_eq!(raised.intersection(&elsewhere).count(), 0);
    for (why, file, test) in ELSEWHERE {
        assert!(
            file.contains(&format!("fn {test}()")),
            "{test} raises {why:?}"
        );
    }
}
