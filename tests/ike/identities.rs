//! Identities of every type, proven with secrets.

use std::time::Duration;

use lockgate::ike::Identity;
use lockgate::wire::ikev2::IdType;

use crate::config::{Setup, Side};
use crate::pair::{Pair, initiate};

/// A's and B's identity of each type, with the type's number (RFC 7296 §3.5) and A's bytes.
const TYPES: [(&str, &str, IdType, &[u8]); 6] = [
    (
        "192.0.2.1",
        "198.51.100.2",
        IdType::IPV4_ADDR,
        &[192, 0, 2, 1],
    ),
    (
        "2001:db8::1",
        "2001:db8::2",
        IdType::IPV6_ADDR,
        &[0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1],
    ),
    ("a.example", "b.example", IdType::FQDN, b"a.example"),
    (
        "a@gw.example",
        "b@gw.example",
        IdType::RFC822_ADDR,
        b"a@gw.example",
    ),
    (
        "C=CH, CN=a",
        "C=CH, CN=b",
        IdType::DER_ASN1_DN,
        b"\x30\x19\x31\x0b\x30\x09\x06\x03\x55\x04\x06\x13\x02CH\x31\x0a\x30\x08\x06\x03\x55\x04\x03\x0c\x01a",
    ),
    ("@#0102", "@#0103", IdType::KEY_ID, &[1, 2]),
];

/// Each side says who it is, expects the other, and has one secret, which belongs to the two.
fn introduce(side: Side, setup: &mut Setup, [local, remote]: [&str; 2]) {
    setup.connection.local.id = Some(local.parse().unwrap());
    setup.connection.remote.id = remote.parse().unwrap();
    let [a, b] = match side {
        Side::A => [local, remote],
        Side::B => [remote, local],
    };
    setup.secret_ids = [a, b].map(|id| id.parse().unwrap()).to_vec();
}

/// A, which is `a` and expects `b_pattern`, sets up a tunnel to B, which is `b` and expects
/// `a_pattern`. Why it failed, if it did.
fn meet([a, b_pattern]: [&str; 2], [b, a_pattern]: [&str; 2]) -> (Pair, Option<String>) {
    let mut pair = Pair::with(|side, setup| match side {
        Side::A => introduce(side, setup, [a, b_pattern]),
        Side::B => introduce(side, setup, [b, a_pattern]),
    });
    let id = pair.command(Side::A, initiate("lan"));
    pair.settle();
    let error = pair.result(Side::A, id).unwrap().err();
    (pair, error.map(|error| error.to_string()))
}

/// Whichever side claims it.
#[track_caller]
fn assert_accepted(claim: &str, expected: &str) {
    for pair in [
        meet([claim, PEER], [PEER, expected]),
        meet([PEER, expected], [claim, PEER]),
    ] {
        let (mut pair, error) = pair;
        assert_eq!(error, None, "{claim} is {expected}");
        pair.assert_tunnels(1);
    }
}

/// Whichever side claims it; nothing is left of the attempt.
#[track_caller]
fn assert_refused(claim: &str, expected: &str) {
    for (judge, pair) in [
        (Side::B, meet([claim, PEER], [PEER, expected])),
        (Side::A, meet([PEER, expected], [claim, PEER])),
    ] {
        let (mut pair, error) = pair;
        let error = error.unwrap_or_else(|| panic!("{claim} was taken for {expected}"));
        // An initiator that expects one identity asks for it, and the responder does not have it.
        let why = match judge {
            Side::A if expected.contains('*') => format!("but {expected} was expected"),
            Side::A | Side::B => "AUTHENTICATION_FAILED".to_owned(),
        };
        assert!(error.contains(&why), "{claim}, {expected}: {error}");
        pair.run_for(Duration::from_secs(60));
        pair.assert_nothing_left();
    }
}

#[test]
fn an_identity_of_every_type_authenticates_either_side() {
    for (a, b, kind, bytes) in TYPES {
        let identity: Identity = a.parse().unwrap();
        assert_eq!(identity.to_payload_parts(), (kind, bytes.into()), "{a}");
        for [a, b] in [[a, b], [b, a]] {
            let (mut pair, error) = meet([a, b], [b, a]);
            assert_eq!(error, None, "{a} and {b}");
            pair.assert_tunnels(1);
            for (side, [local, remote]) in [(Side::A, [a, b]), (Side::B, [b, a])] {
                let sa = pair.ike_sa(side);
                assert_eq!(sa.local_id, Some(local.parse().unwrap()), "{side:?}");
                assert_eq!(sa.remote_id, Some(remote.parse().unwrap()), "{side:?}");
            }
        }
    }
}

#[test]
fn an_identity_is_taken_for_no_other_whichever_side_claims_it() {
    for (expected, other, ..) in TYPES {
        let claims = TYPES.iter().map(|(claim, ..)| *claim);
        for claim in claims.filter(|claim| *claim != expected).chain([other]) {
            assert_refused(claim, expected);
        }
        if expected != "a.example" {
            assert_refused(expected, "*.example");
        }
    }
}

/// Names are compared without regard to case; types matter, whatever the bytes.
#[test]
fn a_key_id_is_equal_to_the_same_bytes_alone() {
    assert_accepted("a.EXAMPLE", "A.example");
    assert_accepted("@@a@GW.example", "A@gw.example");
    assert_accepted("keyid:a.example", "@#612e6578616d706c65");
    for (claim, expected) in [
        ("keyid:a.example", "keyid:A.example"),
        ("keyid:a.example", "fqdn:a.example"),
        ("fqdn:a.example", "keyid:a.example"),
        ("keyid:a.example", "*.example"),
        ("@#c0000201", "192.0.2.1"),
        ("@#01", "@#0102"),
        ("@#010200", "@#0102"),
        ("@#", "@#00"),
    ] {
        assert_refused(claim, expected);
    }
}

#[test]
fn a_secret_is_found_by_a_key_id() {
    for without in [None, Some(Side::A), Some(Side::B)] {
        let mut pair = Pair::with(|side, setup| {
            let ids = match side {
                Side::A => ["@#01", "@#02"],
                Side::B => ["@#02", "@#01"],
            };
            introduce(side, setup, ids);
            let owner = if without == Some(side) {
                "@#03"
            } else {
                "@#01"
            };
            setup.secret_ids = vec![owner.parse().unwrap()];
        });
        let id = pair.command(Side::A, initiate("lan"));
        pair.settle();
        let result = pair.result(Side::A, id).unwrap();
        assert_eq!(result.is_ok(), without.is_none(), "{without:?}: {result:?}");
        if let Some(side) = without {
            assert!(pair.host(side).logged("no secret for"), "{side:?}");
        }
    }
}

const PEER: &str = "peer.example";
