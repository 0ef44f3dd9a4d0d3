//! Signatures and certificates that prove nothing, from a peer that has the keys of its IKE SA
//! (HOSTILE B24 to B26): each is refused, asks nobody and leaves nothing.

use lockgate::crypto::signature::{Hash, Scheme};
use lockgate::wire::ikev2::{AuthMethod, NotifyType};
use lockgate::wire::isakmp::{ExchangeType, PayloadType};
use rcgen::{BasicConstraints, CertificateParams, IsCa};

use super::actor::{Actor, IKE, Payloads, identity, proof};
use super::certificates::Case;
use super::config::Side;
use super::pair::{Pair, seconds};
use super::pki::{self, Kind};

const SIGNATURE: AuthMethod = AuthMethod::DIGITAL_SIGNATURE;
const X509: u8 = 4;

type Change<'a> = &'a dyn Fn(&mut CertificateParams);

/// A gateway's certificate below a root that B trusts.
fn case(kind: Kind) -> Case {
    let root = pki::root(Kind::P256, "root");
    Case::new(root.gateway(kind, "gw-a.example"), &[], &root)
}

fn half_open(pair: &mut Pair) -> Actor {
    Actor::half_open_with(pair, 1, IKE, &[NotifyType::SIGNATURE_HASH_ALGORITHMS])
}

/// Lets A's place be taken by someone who sends these certificates and the proof that `make` gives.
fn claim(
    case: &Case,
    certificates: &[(u8, Vec<u8>)],
    make: impl FnOnce(&Actor) -> (AuthMethod, Vec<u8>),
) -> (Pair, NotifyType) {
    let mut pair = case.pair();
    let mut actor = half_open(&mut pair);
    let mut payloads: Payloads = actor.auth();
    let (method, data) = make(&actor);
    payloads[2].1 = proof(method, &data);
    for (encoding, data) in certificates.iter().rev() {
        let body = [&[*encoding], &data[..]].concat();
        payloads.insert(1, (PayloadType::CERT, body));
    }
    let answer = actor.request(&mut pair, ExchangeType::IKE_AUTH, &payloads);
    let error = answer.expect("an answer").error();
    (pair, error.unwrap_or(NotifyType(0)))
}

#[track_caller]
fn is_refused(what: &str, (mut pair, error): (Pair, NotifyType)) {
    assert_eq!(error, NotifyType::AUTHENTICATION_FAILED, "{what}");
    assert!(pair.ike_sas(Side::B).is_empty(), "{what}");
    assert!(pair.host(Side::B).fetches.is_empty(), "{what}");
    pair.run_for(seconds(31));
    pair.host(Side::B).assert_empty(what);
}

fn der(case: &Case) -> Vec<(u8, Vec<u8>)> {
    vec![(X509, case.leaf.certificate.der().to_vec())]
}

/// A signature over what A has to sign.
fn sign(case: &Case, actor: &Actor, scheme: Scheme) -> Vec<u8> {
    let octets = actor.octets(&identity(Side::A));
    case.leaf.private_key().sign(scheme, &octets).unwrap()
}

/// Authentication Data of a Digital Signature.
fn data(algorithm: &[u8], signature: &[u8]) -> Vec<u8> {
    let length = u8::try_from(algorithm.len()).unwrap();
    [&[length], algorithm, signature].concat()
}

#[test]
fn a_signature_made_by_hand_is_accepted_so_that_the_others_are_refused_for_their_own_faults() {
    for (kind, scheme) in [
        (Kind::P256, Scheme::Ecdsa(Hash::Sha256)),
        (Kind::Rsa, Scheme::RsaPss(Hash::Sha384)),
        (Kind::Ed25519, Scheme::Ed25519),
    ] {
        let case = case(kind);
        let (pair, error) = claim(&case, &der(&case), |actor| {
            let algorithm = scheme.to_algorithm_identifier().unwrap();
            (SIGNATURE, data(&algorithm, &sign(&case, actor, scheme)))
        });
        assert_eq!(error, NotifyType(0));
        assert_eq!(pair.children(Side::B).len(), 1);
    }
}

#[test]
fn an_ecdsa_signature_that_is_not_exactly_right_is_refused() {
    let case = case(Kind::P256);
    let good = Scheme::Ecdsa(Hash::Sha256);
    let id = |scheme: Scheme| scheme.to_algorithm_identifier().unwrap();
    // r = s = 0, r = s = n, and one byte of nothing behind.
    let order = "FFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551";
    let order = data_encoding::HEXUPPER.decode(order.as_bytes()).unwrap();
    let integer = [&[2, 33, 0], &order[..]].concat();
    let out_of_range = [&[0x30, 70], &integer[..], &integer].concat();
    let zero = vec![0x30, 6, 2, 1, 0, 2, 1, 0];
    type Make<'a> = Box<dyn Fn(&Actor) -> (AuthMethod, Vec<u8>) + 'a>;
    let signed = |actor: &Actor| sign(&case, actor, good);
    let cases: Vec<(&str, Make<'_>)> = vec![
        ("nothing", Box::new(|_| (SIGNATURE, vec![]))),
        (
            "no algorithm",
            Box::new(|actor| (SIGNATURE, data(&[], &signed(actor)))),
        ),
        (
            "an algorithm past the end",
            Box::new(|_| (SIGNATURE, vec![255, 0x30])),
        ),
        (
            "an algorithm cut short",
            Box::new(|actor| {
                let id = id(good);
                (SIGNATURE, data(&id[..id.len() - 1], &signed(actor)))
            }),
        ),
        (
            "bytes behind the algorithm",
            Box::new(|actor| {
                (
                    SIGNATURE,
                    data(&[id(good), vec![0]].concat(), &signed(actor)),
                )
            }),
        ),
        (
            "another hash than signed",
            Box::new(|actor| {
                (
                    SIGNATURE,
                    data(&id(Scheme::Ecdsa(Hash::Sha384)), &signed(actor)),
                )
            }),
        ),
        (
            "SHA-1",
            Box::new(|actor| {
                (
                    SIGNATURE,
                    data(&id(Scheme::Ecdsa(Hash::Sha1)), &signed(actor)),
                )
            }),
        ),
        (
            "an algorithm of other keys",
            Box::new(|actor| {
                (
                    SIGNATURE,
                    data(&id(Scheme::RsaPkcs1(Hash::Sha256)), &signed(actor)),
                )
            }),
        ),
        (
            "all zero",
            Box::new(|_| (SIGNATURE, data(&id(good), &[0; 72]))),
        ),
        (
            "r and s of zero",
            Box::new(|_| (SIGNATURE, data(&id(good), &zero))),
        ),
        (
            "r and s of the order",
            Box::new(|_| (SIGNATURE, data(&id(good), &out_of_range))),
        ),
        (
            "a byte behind",
            Box::new(|actor| {
                (
                    SIGNATURE,
                    data(&id(good), &[signed(actor), vec![0]].concat()),
                )
            }),
        ),
        (
            "a bit changed",
            Box::new(|actor| {
                let mut signature = signed(actor);
                *signature.last_mut().unwrap() ^= 1;
                (SIGNATURE, data(&id(good), &signature))
            }),
        ),
        (
            "r and s raw",
            Box::new(|actor| {
                let raw = sign(&case, actor, Scheme::EcdsaFixed);
                (SIGNATURE, data(&id(good), &raw))
            }),
        ),
        (
            "DER where raw belongs",
            Box::new(|actor| (AuthMethod::ECDSA_256, signed(actor))),
        ),
        (
            "the method of another curve",
            Box::new(|actor| {
                (
                    AuthMethod::ECDSA_384,
                    sign(&case, actor, Scheme::EcdsaFixed),
                )
            }),
        ),
        (
            "the method of RSA",
            Box::new(|actor| (AuthMethod::RSA_SIGNATURE, signed(actor))),
        ),
        (
            "a secret",
            Box::new(|actor| (AuthMethod::SHARED_KEY_MIC, actor.proof().to_vec())),
        ),
        (
            "an identity of someone else",
            Box::new(|actor| {
                let octets = actor.octets(&identity(Side::B));
                let signature = case.leaf.private_key().sign(good, &octets).unwrap();
                (SIGNATURE, data(&id(good), &signature))
            }),
        ),
        (
            "its own nonce",
            Box::new(|actor| {
                let octets = [&actor.init.request[..], &actor.init.ni].concat();
                let signature = case.leaf.private_key().sign(good, &octets).unwrap();
                (SIGNATURE, data(&id(good), &signature))
            }),
        ),
    ];
    for (what, make) in cases {
        is_refused(what, claim(&case, &der(&case), make));
    }
}

#[test]
fn an_rsa_signature_with_odd_parameters_is_refused() {
    let case = case(Kind::Rsa);
    let pss = Scheme::RsaPss(Hash::Sha256)
        .to_algorithm_identifier()
        .unwrap();
    let change = |from: &[u8], to: &[u8], last: bool| {
        let mut places = pss.windows(from.len());
        let place = if last {
            places.rposition(|w| w == from)
        } else {
            places.position(|w| w == from)
        };
        let mut id = pss.clone();
        id[place.unwrap()..][..to.len()].copy_from_slice(to);
        id
    };
    // SHA-256 is 2.16.840.1.101.3.4.2.1; the salt's length is the last INTEGER.
    let sha256 = [0x86, 0x48, 1, 0x65, 3, 4, 2, 1];
    let sha384 = [0x86, 0x48, 1, 0x65, 3, 4, 2, 2];
    for (what, algorithm) in [
        ("another hash for the mask", change(&sha256, &sha384, true)),
        (
            "another hash for the message",
            change(&sha256, &sha384, false),
        ),
        ("a salt of 20 bytes", change(&[2, 1, 32], &[2, 1, 20], true)),
        (
            "a salt of 127 bytes",
            change(&[2, 1, 32], &[2, 1, 127], true),
        ),
        (
            "no parameters",
            vec![0x30, 11, 6, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 13, 1, 1, 10],
        ),
    ] {
        is_refused(
            what,
            claim(&case, &der(&case), |actor| {
                let signature = sign(&case, actor, Scheme::RsaPss(Hash::Sha256));
                (SIGNATURE, data(&algorithm, &signature))
            }),
        );
    }
    for cut in [0, 1, 128, 255, 257] {
        is_refused(
            "a signature of another length",
            claim(&case, &der(&case), |actor| {
                let mut signature = sign(&case, actor, Scheme::RsaPss(Hash::Sha256));
                signature.resize(cut, 0);
                (SIGNATURE, data(&pss, &signature))
            }),
        );
    }
}

#[test]
fn an_ed25519_signature_whose_second_half_is_not_reduced_is_refused() {
    let case = case(Kind::Ed25519);
    // The order of the group, little-endian (RFC 8032 §5.1).
    let order = "edd3f55c1a631258d69cf7a2def9de1400000000000000000000000000000010";
    let order = data_encoding::HEXLOWER.decode(order.as_bytes()).unwrap();
    is_refused(
        "S + L",
        claim(&case, &der(&case), |actor| {
            let mut signature = sign(&case, actor, Scheme::Ed25519);
            let mut carry = 0;
            for (byte, add) in signature[32..].iter_mut().zip(&order) {
                let sum = u16::from(*byte) + u16::from(*add) + u16::from(carry);
                [carry, *byte] = sum.to_be_bytes();
            }
            (
                SIGNATURE,
                data(
                    &Scheme::Ed25519.to_algorithm_identifier().unwrap(),
                    &signature,
                ),
            )
        }),
    );
}

/// A proof that is as good as the leaf's key.
fn genuine(case: &Case) -> impl Fn(&Actor) -> (AuthMethod, Vec<u8>) {
    |actor| {
        let scheme = Scheme::Ecdsa(Hash::Sha256);
        let algorithm = scheme.to_algorithm_identifier().unwrap();
        (SIGNATURE, data(&algorithm, &sign(case, actor, scheme)))
    }
}

#[test]
fn what_is_no_certificate_is_refused_whatever_its_encoding() {
    let case = case(Kind::P256);
    let leaf = case.leaf.certificate.der().to_vec();
    let nested = (0..64_u8).fold(vec![], |inner, _| {
        let length = u8::try_from(inner.len()).unwrap();
        [&[0x30, length][..], &inner]
            .concat()
            .into_iter()
            .take(120)
            .collect()
    });
    let mut indefinite = leaf.clone();
    indefinite[1] = 0x80;
    let mut longer = vec![0x30, 0x88, 0x80, 0, 0, 0, 0, 0, 0, 0];
    longer.extend(&leaf[4..]);
    let mut wrapped = vec![0x30, 0x80, 6, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 13, 1, 7, 2];
    wrapped.extend(&leaf);
    for (what, encoding, data) in [
        ("nothing", X509, vec![]),
        ("64 nested sequences", X509, nested),
        ("an indefinite length", X509, indefinite),
        ("a length of 2^63", X509, longer),
        ("cut short", X509, leaf[..leaf.len() - 1].to_vec()),
        ("a byte behind", X509, [leaf.clone(), vec![0]].concat()),
        ("15 KiB of nothing", X509, vec![0; 15 * 1024]),
        ("PKCS#7", 1, wrapped),
        (
            "a hash and a URL of this machine",
            12,
            [&[7; 20][..], b"http://127.0.0.1/gw.der"].concat(),
        ),
        (
            "a hash and the URL of a file",
            12,
            [&[7; 20][..], b"file:///etc/passwd"].concat(),
        ),
        (
            "a list of the authority where a certificate belongs",
            7,
            leaf.clone(),
        ),
        ("an OCSP response that is none", 14, leaf.clone()),
        (
            "a raw key that is not known",
            15,
            case.leaf.private_key().public().spki().to_vec(),
        ),
    ] {
        is_refused(what, claim(&case, &[(encoding, data)], genuine(&case)));
    }
    for encoding in (0..=255).filter(|encoding| *encoding != X509) {
        let junk = vec![(encoding, leaf.clone())];
        let (pair, error) = claim(&case, &junk, genuine(&case));
        assert_eq!(
            error,
            NotifyType::AUTHENTICATION_FAILED,
            "encoding {encoding}"
        );
        drop(pair);
    }
}

#[test]
fn thirty_certificates_are_read_as_far_as_is_sensible() {
    let case = case(Kind::P256);
    let mut many = der(&case);
    for place in 0..30 {
        let other = pki::root(Kind::P256, &format!("root {place}"));
        many.push((X509, other.certificate.der().to_vec()));
    }
    let (pair, error) = claim(&case, &many, genuine(&case));
    assert_eq!(
        error,
        NotifyType(0),
        "the leaf is below a root that is known"
    );
    assert_eq!(pair.children(Side::B).len(), 1);
}

#[test]
fn authorities_that_issue_each_other_in_a_circle_end_the_search() {
    let (one, two) = (pki::root(Kind::P256, "one"), pki::root(Kind::P256, "two"));
    let crossed =
        |issuer: &pki::Identity, subject: &pki::Identity| issuer.certify(subject).der().to_vec();
    let leaf = one.gateway(Kind::P256, "gw-a.example");
    let mut case = Case::new(leaf, &[], &pki::root(Kind::P256, "root"));
    case.trust.send_certreq = true;
    let mut sent = der(&case);
    for _ in 0..3 {
        sent.push((X509, crossed(&two, &one)));
        sent.push((X509, crossed(&one, &two)));
    }
    is_refused("a circle", claim(&case, &sent, genuine(&case)));
}

#[test]
fn a_certificate_with_fields_that_nobody_issues_is_refused() {
    let changed = |change: Change<'_>| {
        let root = pki::root(Kind::P256, "root");
        let mut params = pki::gateway_params("gw-a.example");
        change(&mut params);
        Case::new(root.sign(Kind::P256, params), &[], &root)
    };
    let no_names = |params: &mut CertificateParams| params.subject_alt_names.clear();
    let address = |params: &mut CertificateParams| {
        params.subject_alt_names = vec![rcgen::SanType::IpAddress("192.0.2.1".parse().unwrap())];
    };
    let authority = |params: &mut CertificateParams| {
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    };
    let cases: [(&str, Change<'_>); 3] = [
        ("no name", &no_names),
        ("a name of another kind", &address),
        ("an authority as gateway", &authority),
    ];
    for (what, change) in cases {
        let case = changed(change);
        is_refused(what, claim(&case, &der(&case), genuine(&case)));
    }
}

#[test]
fn an_extension_that_is_malformed_or_there_twice_is_refused() {
    let usage =
        |value: &[u8]| rcgen::CustomExtension::from_oid_content(&[2, 5, 29, 37], value.to_vec());
    let ike = [0x30, 10, 6, 8, 0x2b, 6, 1, 5, 5, 7, 3, 17];
    for (what, extensions) in [
        ("malformed", vec![usage(&[5, 0])]),
        ("twice", vec![usage(&ike), usage(&ike)]),
    ] {
        let root = pki::root(Kind::P256, "root");
        let mut params = pki::gateway_params("gw-a.example");
        params.custom_extensions = extensions;
        let odd = root.sign(Kind::P256, params);
        let case = Case::new(root.gateway(Kind::P256, "gw-a.example"), &[], &root);
        let sent = [(X509, odd.certificate.der().to_vec())];
        is_refused(
            what,
            claim(&case, &sent, |actor| {
                let scheme = Scheme::Ecdsa(Hash::Sha256);
                let octets = actor.octets(&identity(Side::A));
                let signature = odd.private_key().sign(scheme, &octets).unwrap();
                (
                    SIGNATURE,
                    data(&scheme.to_algorithm_identifier().unwrap(), &signature),
                )
            }),
        );
    }
}

/// What B answers to an identity of this type that is signed for with A's key.
fn claim_identity(case: &Case, kind: u8, body: &[u8]) -> Option<NotifyType> {
    let mut pair = case.pair();
    let mut actor = half_open(&mut pair);
    let id = [&[kind, 0, 0, 0], body].concat();
    let scheme = Scheme::Ecdsa(Hash::Sha256);
    let signature = case.leaf.private_key();
    let signature = signature.sign(scheme, &actor.octets(&id)).unwrap();
    let algorithm = scheme.to_algorithm_identifier().unwrap();
    let mut payloads: Payloads = actor.auth();
    payloads[0].1 = id;
    payloads[2].1 = proof(SIGNATURE, &data(&algorithm, &signature));
    let cert = [&[X509], &case.leaf.certificate.der()[..]].concat();
    payloads.insert(1, (PayloadType::CERT, cert));
    let answer = actor.request(&mut pair, ExchangeType::IKE_AUTH, &payloads);
    let error = answer.unwrap().error();
    assert_eq!(pair.ike_sas(Side::B).is_empty(), error.is_some());
    error
}

#[test]
fn an_identity_that_is_not_in_the_certificate_is_refused_however_it_is_written() {
    let mut case = case(Kind::P256);
    case.pattern = Some("%any".into());
    let dn = case.leaf.certificate().subject().der().to_vec();
    assert_eq!(claim_identity(&case, 2, b"GW-a.example"), None);
    assert_eq!(claim_identity(&case, 9, &dn), None);
    let bodies: Vec<(u8, Vec<u8>)> = vec![
        (2, b"gw-a.example\0".to_vec()),
        (2, b"gw-a.example\0.evil".to_vec()),
        (2, b"*.example".to_vec()),
        (2, b"".to_vec()),
        (3, b"root@gw-a.example".to_vec()),
        (1, vec![192, 0, 2]),
        (1, vec![192, 0, 2, 1]),
        (5, vec![0; 15]),
        (9, dn[..dn.len() - 1].to_vec()),
        (9, [&dn[..], &[0]].concat()),
        (11, b"gw-a.example".to_vec()),
        (200, b"gw-a.example".to_vec()),
    ];
    for (kind, body) in bodies {
        let error = claim_identity(&case, kind, &body);
        assert!(error.is_some(), "{kind} {body:02x?}");
    }
}
