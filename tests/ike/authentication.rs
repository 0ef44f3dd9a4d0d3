//! Signatures instead of secrets: raw keys of every kind, different methods each way, what peers
//! without RFC 7427 get, and proofs that are none.

use std::sync::Arc;
use std::time::Duration;

use lockgate::crypto::PrivateKey;
use lockgate::crypto::signature::Hash;
use lockgate::ike::{
    Discard, IdentityPattern, KeyClass, LocalKey, LocalMethod, Padding, RemoteMethod, SchemePolicy,
    SendCert, Trust,
};

use crate::config::{Setup, Side};
use crate::network::Fate;
use crate::pair::{Pair, initiate};
use crate::pki::{self, Kind};

fn raw(key: &Arc<PrivateKey>) -> LocalMethod {
    LocalMethod::Signature {
        keys: vec![LocalKey {
            key: Arc::clone(key),
            chain: Vec::new(),
        }],
        schemes: SchemePolicy::default(),
        send_cert: SendCert::IfAsked,
    }
}

fn trust(key: &Arc<PrivateKey>) -> Trust {
    Trust {
        keys: vec![Arc::new(key.public().clone())],
        send_certreq: true,
        ..Trust::default()
    }
}

/// Both sides with raw keys of one kind; `change` adjusts what each trusts.
fn raw_pair(kind: Kind, change: impl Fn(Side, &mut Trust)) -> Pair {
    let keys = [pki::private_key(&kind.key()), pki::private_key(&kind.key())];
    Pair::with(|side, setup| {
        setup.connection.local.method = raw(&keys[side.index()]);
        let mut trust = trust(&keys[side.other().index()]);
        change(side, &mut trust);
        setup.connection.remote.method = RemoteMethod::Signature(Arc::new(trust));
    })
}

fn connect(pair: &mut Pair) -> Result<(), String> {
    let id = pair.command(Side::A, initiate("lan"));
    pair.settle();
    match pair.result(Side::A, id) {
        Some(Ok(_)) => {
            pair.assert_tunnels(1);
            Ok(())
        }
        Some(Err(error)) => Err(error.to_string()),
        None => Err("no end".to_owned()),
    }
}

#[test]
fn raw_public_keys_of_every_kind_set_up_a_tunnel() {
    for (kind, scheme) in [
        (Kind::Rsa, "RSA_EMSA_PSS_SHA2_256"),
        (Kind::P256, "ECDSA_WITH_SHA2_256_DER"),
        (Kind::P384, "ECDSA_WITH_SHA2_384_DER"),
        (Kind::P521, "ECDSA_WITH_SHA2_512_DER"),
        (Kind::Ed25519, "ED25519"),
    ] {
        let mut pair = raw_pair(kind, |_, _| {});
        assert_eq!(connect(&mut pair), Ok(()), "{kind:?}");
        assert!(pair.host(Side::A).logged(scheme), "{kind:?}");
        assert!(pair.host(Side::B).logged("a raw public key"), "{kind:?}");
    }
}

#[test]
fn the_two_sides_may_authenticate_in_different_ways() {
    let key = pki::private_key(&Kind::P256.key());
    let change = |signer: Side| {
        let key = Arc::clone(&key);
        move |side: Side, setup: &mut Setup| {
            if side == signer {
                setup.connection.local.method = raw(&key);
            } else {
                setup.connection.remote.method = RemoteMethod::Signature(Arc::new(trust(&key)));
            }
        }
    };
    for signer in Side::BOTH {
        let mut pair = Pair::with(change(signer));
        assert_eq!(connect(&mut pair), Ok(()), "{signer:?} signs");
        assert!(
            pair.host(signer)
                .logged("authenticated with a shared secret")
        );
        assert!(
            pair.host(signer.other())
                .logged("authenticated with a raw public key")
        );
    }
}

#[test]
fn a_key_that_is_not_configured_is_refused() {
    for liar in Side::BOTH {
        let other = pki::public_key(&Kind::Ed25519.key());
        let mut pair = raw_pair(Kind::Ed25519, |side, trust| {
            if side != liar {
                trust.keys = vec![Arc::clone(&other)];
            }
        });
        connect(&mut pair).expect_err("not trusted");
        let judge = pair.host(liar.other());
        assert!(judge.logged("is not trusted"), "{liar:?}");
        pair.host(Side::A).assert_empty("A");
    }
}

#[test]
fn a_constraint_on_keys_or_hashes_decides_what_is_accepted() {
    let cases = [
        (Kind::Rsa, policy(KeyClass::Ecdsa, 0), false),
        (Kind::Rsa, policy(KeyClass::Rsa, 4096), false),
        (Kind::Rsa, policy(KeyClass::Rsa, 2048), true),
        (Kind::P256, policy(KeyClass::Ecdsa, 384), false),
        (Kind::P384, policy(KeyClass::Ecdsa, 384), true),
        (Kind::Ed25519, policy(KeyClass::Ed25519, 0), true),
    ];
    for (kind, schemes, accepted) in cases {
        let mut pair = raw_pair(kind, |_, trust| trust.schemes = schemes.clone());
        assert_eq!(connect(&mut pair).is_ok(), accepted, "{kind:?} {schemes:?}");
    }
    let pkcs1_only = SchemePolicy {
        padding: Some(Padding::Pkcs1),
        ..SchemePolicy::default()
    };
    let mut pair = raw_pair(Kind::Rsa, |_, trust| trust.schemes = pkcs1_only.clone());
    assert_eq!(
        connect(&mut pair),
        Ok(()),
        "the other side would prefer PSS"
    );
    let weak = SchemePolicy {
        hashes: vec![Hash::Sha1],
        ..SchemePolicy::default()
    };
    let mut pair = raw_pair(Kind::P256, |_, trust| trust.schemes = weak.clone());
    connect(&mut pair).expect_err("no SHA-1 is sent");
}

fn policy(class: KeyClass, least: usize) -> SchemePolicy {
    SchemePolicy {
        keys: vec![(class, least)],
        ..SchemePolicy::default()
    }
}

#[test]
fn a_peer_with_another_method_than_configured_is_refused_by_both_roles() {
    let key = pki::private_key(&Kind::P256.key());
    for odd in Side::BOTH {
        let mut pair = Pair::with(|side, setup| {
            if side == odd {
                setup.connection.local.method = raw(&key);
            }
        });
        connect(&mut pair).expect_err("a secret was wanted");
        let judge = pair.host(odd.other());
        assert!(judge.logged("authentication method 14"), "{odd:?}");
    }
}

#[test]
fn connections_with_the_same_identities_are_told_apart_by_the_method() {
    let key = pki::private_key(&Kind::Ed25519.key());
    let mut pair = Pair::with(|side, setup| {
        if side == Side::A {
            setup.connection.local.method = raw(&key);
        } else {
            setup.connection.remote.id = IdentityPattern::Any;
            let mut second = setup.connection.clone();
            second.name = "signed".into();
            second.remote.method = RemoteMethod::Signature(Arc::new(trust(&key)));
            setup.more = vec![second];
        }
    });
    assert_eq!(connect(&mut pair), Ok(()));
    assert_eq!(pair.host(Side::B).ike_sas()[0].name, "signed");
}

#[test]
fn repeated_requests_of_a_signed_exchange_are_answered_from_the_cache() {
    let mut pair = raw_pair(Kind::P256, |_, _| {});
    pair.net.decide(|_| Fate::Twice(Duration::from_millis(5)));
    assert_eq!(connect(&mut pair), Ok(()));
    assert!(pair.host(Side::B).discarded(Discard::Retransmission) > 0);
}
