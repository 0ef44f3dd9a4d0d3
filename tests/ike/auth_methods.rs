//! Announced authentication methods (RFC 9593): who has several keys signs with one that counts.

use std::sync::Arc;

use lockgate::crypto::signature::Hash;
use lockgate::ike::{KeyClass, LocalKey, LocalMethod, RemoteMethod, SchemePolicy, SendCert, Trust};
use lockgate::wire::ikev2::{AuthAnnouncement, AuthMethod, NotifyType};
use lockgate::wire::isakmp::{ExchangeType, PayloadType};

use crate::actor::{Actor, IKE, Payloads, notify};
use crate::config::Side;
use crate::pair::{Pair, initiate};
use crate::pki::{self, Kind};

fn keys(kinds: &[Kind]) -> LocalMethod {
    let key = |kind: &Kind| LocalKey {
        key: pki::private_key(&kind.key()),
        chain: Vec::new(),
    };
    LocalMethod::Signature {
        keys: kinds.iter().map(key).collect(),
        schemes: SchemePolicy::default(),
        send_cert: SendCert::IfAsked,
    }
}

/// Trusts these of the keys.
fn trust(method: &LocalMethod, places: &[usize]) -> Trust {
    let LocalMethod::Signature { keys, .. } = method else {
        unreachable!("made with keys");
    };
    let public = |place: &usize| Arc::new(keys[*place].key.public().clone());
    Trust {
        keys: places.iter().map(public).collect(),
        send_certreq: true,
        ..Trust::default()
    }
}

fn signature(trust: Trust) -> RemoteMethod {
    RemoteMethod::Signature(Arc::new(trust))
}

#[test]
fn of_several_keys_the_one_whose_kind_the_peer_announces_signs_in_both_roles() {
    for signer in Side::BOTH {
        for (place, shown) in ["RSA_EMSA_PSS", "ECDSA_WITH", "ED25519"].iter().enumerate() {
            let local = keys(&[Kind::Rsa, Kind::P384, Kind::Ed25519]);
            let mut pair = Pair::with(|side, setup| {
                if side == signer {
                    setup.connection.local.method = local.clone();
                } else {
                    setup.connection.remote.method = signature(trust(&local, &[place]));
                }
            });
            let id = pair.command(Side::A, initiate("lan"));
            pair.settle();
            assert!(
                matches!(pair.result(Side::A, id), Some(Ok(_))),
                "{signer:?}"
            );
            let how = format!(
                "authenticating as {} with {shown}",
                match signer {
                    Side::A => "gw-a.example",
                    Side::B => "gw-b.example",
                }
            );
            assert!(pair.host(signer).logged(&how), "{signer:?} {how}");
        }
    }
}

#[test]
fn a_constraint_on_padding_and_hash_is_announced_and_kept_to() {
    let local = keys(&[Kind::Rsa]);
    let mut pair = Pair::with(|side, setup| {
        if side == Side::A {
            setup.connection.local.method = local.clone();
        } else {
            let schemes = SchemePolicy {
                keys: vec![(KeyClass::Rsa, 2048)],
                hashes: vec![Hash::Sha512],
                padding: Some(lockgate::ike::Padding::Pkcs1),
                only_ike: false,
            };
            let trust = trust(&local, &[0]);
            setup.connection.remote.method = signature(Trust { schemes, ..trust });
        }
    });
    let id = pair.command(Side::A, initiate("lan"));
    pair.settle();
    assert!(matches!(pair.result(Side::A, id), Some(Ok(_))));
    assert!(pair.host(Side::A).logged("with RSA_EMSA_PKCS1_SHA2_512"));
}

/// What B announces in IKE_SA_INIT.
fn announced(pair: &mut Pair) -> Option<Vec<u8>> {
    let actor = Actor::half_open(pair, 1);
    let NotifyType(number) = NotifyType::SUPPORTED_AUTH_METHODS;
    let start = [&[0, 0][..], &number.to_be_bytes()].concat();
    let mut notifies = actor
        .init
        .answer
        .iter()
        .filter(|(kind, _)| *kind == PayloadType::NOTIFY);
    let found = notifies.find(|(_, body)| body.starts_with(&start))?;
    Some(found.1[4..].to_vec())
}

#[test]
fn the_list_is_that_of_rfc_9593_with_the_identifiers_of_rfc_7427() {
    let local = keys(&[Kind::P256, Kind::Ed25519]);
    let mut pair = Pair::with(|_, setup| {
        setup.connection.remote.method = signature(trust(&local, &[0, 1]));
    });
    // ecdsa-with-SHA256, -SHA384 and -SHA512 (RFC 7427 A.3), Ed25519 (RFC 8420 A).
    let ecdsa = |last| {
        [
            15, 14, 0, 0x30, 10, 6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, last,
        ]
    };
    let ed25519 = [10, 14, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70];
    let ecdsa_256_of_old = [3, 9, 0];
    let expected = [
        &ed25519[..],
        &ecdsa(2),
        &ecdsa(3),
        &ecdsa(4),
        &ecdsa_256_of_old,
    ]
    .concat();
    assert_eq!(announced(&mut pair), Some(expected));
}

#[test]
fn nothing_is_announced_where_only_secrets_count() {
    assert_eq!(announced(&mut Pair::new()), None);
}

#[test]
fn the_initiators_list_decides_what_the_responder_signs_with_however_odd_it_is() {
    let ecdsa = [
        15, 14, 0, 0x30, 10, 6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 2,
    ];
    let of_old = [3, 9, 0];
    let cases: [(Vec<u8>, &str); 7] = [
        (ecdsa.to_vec(), "ECDSA_WITH_SHA2_256_DER"),
        (
            [&[2, 2, 3, 77, 0, 2, 14][..], &ecdsa].concat(),
            "ECDSA_WITH_SHA2_256_DER",
        ),
        (of_old.to_vec(), " with ECDSA"),
        (vec![], "RSA_EMSA_PSS_SHA2_256"),
        (vec![0; 40], "RSA_EMSA_PSS_SHA2_256"),
        (vec![200, 14], "RSA_EMSA_PSS_SHA2_256"),
        // An authority that is none of those in CERTREQ.
        (
            [&ecdsa[..2], &[9], &ecdsa[3..]].concat(),
            "RSA_EMSA_PSS_SHA2_256",
        ),
    ];
    for (list, shown) in cases {
        let local = keys(&[Kind::Rsa, Kind::P256]);
        let mut pair = Pair::with(|side, setup| {
            if side == Side::B {
                setup.connection.local.method = local.clone();
            }
        });
        let notifies = [NotifyType::SIGNATURE_HASH_ALGORITHMS];
        let mut actor = Actor::half_open_with(&mut pair, 1, IKE, &notifies);
        let mut payloads: Payloads = actor.auth();
        payloads.insert(2, notify(NotifyType::SUPPORTED_AUTH_METHODS, &list));
        let answer = actor.request(&mut pair, ExchangeType::IKE_AUTH, &payloads);
        assert_eq!(answer.unwrap().error(), None, "{list:?}");
        let is_shown = |line: &str| line.ends_with(shown);
        assert!(pair.host(Side::B).logs().any(is_shown), "{list:?} {shown}");
    }
}

#[test]
fn a_list_is_read_up_to_what_does_not_fit() {
    let read = |data: &[u8]| AuthAnnouncement::parse_all(data).count();
    for (data, count) in [
        (&[][..], 0),
        (&[0], 0),
        (&[1], 0),
        (&[1, 2], 0),
        (&[2, 2], 1),
        (&[2, 2, 3, 1, 0], 2),
        (&[2, 2, 3, 1], 1),
        (&[2, 2, 0, 2, 2], 1),
    ] {
        assert_eq!(read(data), count, "{data:?}");
    }
    let one = AuthAnnouncement {
        method: AuthMethod::DIGITAL_SIGNATURE,
        cert_link: 7,
        algorithm: &[5, 0],
    };
    let mut bytes = Vec::new();
    one.encode(&mut bytes);
    assert_eq!(bytes, [5, 14, 7, 5, 0]);
    assert_eq!(AuthAnnouncement::parse_all(&bytes).next(), Some(one));
    let long = AuthAnnouncement {
        algorithm: &[0; 253],
        ..one
    };
    long.encode(&mut bytes);
    assert_eq!(bytes.len(), 5, "too long for the format");
}
