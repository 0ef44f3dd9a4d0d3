use super::*;
use crate::crypto::Secret;
use crate::wire::proposal::{AdditionalExchanges, IkeSuite, KeyExchangeId};
use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng;

fn session(number: u8) -> Session {
    let mut additional = AdditionalExchanges::NONE;
    additional.set(2, KeyExchangeId::ML_KEM_768);
    Session {
        connection: "site".to_owned(),
        spis: (IkeSpi([number; 8]), IkeSpi([2; 8])),
        local_id: "gw-b.example".parse().expect("an identity"),
        remote_id: "C=CH, O=Example, CN=a".parse().expect("an identity"),
        suite: IkeSuite {
            cipher: SUITE,
            prf: PrfId::HMAC_SHA2_384,
            key_exchange: KeyExchangeId::X25519,
            additional,
        },
        sk_d: Secret::copy_from(&[7; 48]),
        has_ppk: true,
        credential: Secret::copy_from(&[8; 32]),
        unproven_at: None,
        reauth_at: None,
    }
}

fn with_keys(seeds: &[u8]) -> Tickets {
    let mut keys = seeds.iter().map(|seed| Secret::copy_from(&[*seed; 32]));
    let mut tickets = Tickets::default();
    tickets.set_keys(TicketKeys {
        current: keys.next().expect("there is one"),
        previous: keys.next(),
    });
    tickets
}

fn date(time: u64) -> Date {
    let now = Instant::now();
    Date { now, time }
}

#[test]
fn a_ticket_says_what_was_sealed_into_it_and_no_two_are_the_same() {
    let mut rng = ChaCha20Rng::seed_from_u64(1);
    let (tickets, date) = (with_keys(&[1]), date(1000));
    let session = Session {
        unproven_at: Some(date.now + Duration::from_secs(50)),
        ..session(1)
    };
    let one = tickets.seal(&session, 1100, date, &mut rng);
    let one = one.expect("there are keys");
    let two = tickets.seal(&session, 1100, date, &mut rng);
    assert_ne!(Some(&one), two.as_ref());
    assert!(one.len() < 400, "{} bytes", one.len());
    for secret in [&[7; 48][..], &[8; 32], b"site", b"gw-b"] {
        assert!(!one.windows(secret.len()).any(|part| part == secret));
    }
    let opened = tickets.open(&one, date).expect("it is good");
    assert_eq!(format!("{opened:?}"), format!("{session:?}"));
    assert_eq!(opened.sk_d, session.sk_d);
    assert_eq!(opened.credential, session.credential);
    // Another clock, as after a restart, gives the same time of day.
    let later = Date {
        now: date.now + Duration::from_secs(7),
        time: date.time + 20,
    };
    let opened = tickets.open(&one, later).expect("it is good");
    let end = later.now + Duration::from_secs(30);
    assert_eq!(opened.unproven_at, Some(end));
}

#[test]
fn a_ticket_is_good_until_it_expires_and_from_no_time_to_come() {
    let mut rng = ChaCha20Rng::seed_from_u64(1);
    let tickets = with_keys(&[1]);
    let expired = Some(TicketError::Stale("it has expired"));
    let day = TicketKeys::LIFE.as_secs();
    let ticket = tickets.seal(&session(1), 2 * day, date(day), &mut rng);
    let ticket = ticket.expect("there are keys");
    let open = |time| tickets.open(&ticket, date(time)).err();
    assert_eq!(open(day), None);
    assert_eq!(open(2 * day - 1), None);
    assert_eq!(open(2 * day), expired);
    assert_eq!(open(u64::MAX), expired);
    assert_eq!(open(day - 1), expired, "the clock was set back");
}

#[test]
fn keys_open_what_the_last_ones_have_sealed_and_nothing_older() {
    let mut rng = ChaCha20Rng::seed_from_u64(1);
    let ticket = with_keys(&[1]).seal(&session(1), 1100, date(1000), &mut rng);
    let ticket = ticket.expect("there are keys");
    let open = |keys: &[u8]| with_keys(keys).open(&ticket, date(1000)).err();
    assert_eq!(open(&[1]), None);
    assert_eq!(open(&[2, 1]), None);
    assert_eq!(open(&[3, 2]), Some(TicketError::Foreign));
    let none = Tickets::default();
    assert_eq!(
        none.open(&ticket, date(1000)).err(),
        Some(TicketError::Foreign)
    );
    assert!(none.seal(&session(1), 1100, date(1000), &mut rng).is_none());
}

#[test]
fn a_session_that_would_not_fit_into_a_request_gets_no_ticket() {
    let mut rng = ChaCha20Rng::seed_from_u64(1);
    for (length, fits) in [(1000, true), (2048, false), (70_000, false)] {
        let session = Session {
            connection: "a".repeat(length),
            ..session(1)
        };
        let ticket = with_keys(&[1]).seal(&session, 1100, date(1000), &mut rng);
        assert_eq!(ticket.is_some(), fits, "{length}");
    }
}

#[test]
fn void_ike_sas_are_remembered_up_to_a_bound_each_once() {
    let mut tickets = Tickets::default();
    let spis = |number: usize| {
        let number = u64::try_from(number).expect("it is small");
        (IkeSpi(number.to_be_bytes()), IkeSpi([1; 8]))
    };
    for number in 0..MOST_VOID + 10 {
        tickets.void(spis(number));
        tickets.void(spis(number));
    }
    assert_eq!(tickets.void.len(), MOST_VOID);
    assert_eq!(tickets.voided.len(), MOST_VOID);
    assert!(!tickets.is_void(spis(9)));
    assert!(tickets.is_void(spis(10)));
}
