//! Signatures and certificates that prove nothing, from a peer that has the keys of its IKE SA
//! (HOSTILE B24 to B26): each is refused, asks nobody and leaves nothing.

use lockgate::crypto::signature::{Hash, Scheme};
use lockgate::wire::ikev2::NotifyType;
use lockgate::wire::isakmp::ExchangeType;

use super::actor::{Actor, IKE};
use super::certificates::Case;
use super::claims::{self, A, Claim, ECDSA};
use super::config::Side;
use super::pair::{Pair, seconds};
use super::pki::{self, Kind};

/// A gateway's certificate below a root that B trusts.
fn case(kind: Kind) -> Case {
    let root = pki::root(Kind::P256, "root");
    Case::new(root.gateway(kind, A), &[], &root)
}

/// What B answers if someone in A's place claims this.
fn answer(case: &Case, claim: &Claim) -> (Pair, Option<NotifyType>) {
    let mut pair = case.pair();
    let notifies = [NotifyType::SIGNATURE_HASH_ALGORITHMS];
    let mut actor = Actor::half_open_with(&mut pair, 1, IKE, &notifies);
    let payloads = claim.payloads(&actor);
    let answer = actor.request(&mut pair, ExchangeType::IKE_AUTH, &payloads);
    let error = answer.expect(&claim.name).error();
    (pair, error)
}

#[track_caller]
fn are_refused(case: &Case, claims: impl IntoIterator<Item = Claim>) {
    for claim in claims {
        let (mut pair, error) = answer(case, &claim);
        let what = claim.name;
        assert_eq!(error, Some(NotifyType::AUTHENTICATION_FAILED), "{what}");
        assert!(pair.ike_sas(Side::B).is_empty(), "{what}");
        assert!(pair.host(Side::B).fetches.is_empty(), "{what}");
        pair.run_for(seconds(31));
        pair.host(Side::B).assert_empty(&what);
    }
}

#[track_caller]
fn is_accepted(case: &Case, claim: &Claim) {
    let (pair, error) = answer(case, claim);
    assert_eq!(error, None, "{}", claim.name);
    assert_eq!(pair.children(Side::B).len(), 1, "{}", claim.name);
}

#[test]
fn a_signature_made_by_hand_is_accepted_so_that_the_others_are_refused_for_their_own_faults() {
    for (kind, scheme) in [
        (Kind::P256, ECDSA),
        (Kind::Rsa, Scheme::RsaPss(Hash::Sha384)),
        (Kind::Ed25519, Scheme::Ed25519),
    ] {
        let case = case(kind);
        is_accepted(&case, &claims::genuine(&case.leaf, scheme));
    }
}

#[test]
fn an_ecdsa_signature_that_is_not_exactly_right_is_refused() {
    let case = case(Kind::P256);
    are_refused(&case, claims::ecdsa(&case.leaf));
}

#[test]
fn an_rsa_signature_with_odd_parameters_is_refused() {
    let case = case(Kind::Rsa);
    are_refused(&case, claims::rsa(&case.leaf));
}

#[test]
fn an_ed25519_signature_whose_second_half_is_not_reduced_is_refused() {
    let case = case(Kind::Ed25519);
    are_refused(&case, [claims::ed25519(&case.leaf)]);
}

#[test]
fn what_is_no_certificate_is_refused_whatever_its_encoding() {
    let case = case(Kind::P256);
    are_refused(&case, claims::encodings(&case.leaf));
}

#[test]
fn thirty_certificates_are_read_as_far_as_is_sensible() {
    let case = case(Kind::P256);
    let others = (0..30).map(|place| {
        let other = pki::root(Kind::P256, &format!("root {place}"));
        other.certificate.der().to_vec()
    });
    let claim = claims::with_certificates(&case.leaf, "30 more", others.collect());
    is_accepted(&case, &claim);
}

#[test]
fn a_certificate_with_fields_that_nobody_issues_is_refused() {
    let root = pki::root(Kind::P256, "root");
    let case = Case::new(root.gateway(Kind::P256, A), &[], &root);
    are_refused(&case, claims::certificates(&root));
    for claim in claims::unusual(&root) {
        is_accepted(&case, &claim);
    }
}

#[test]
fn an_identity_that_is_not_in_the_certificate_is_refused_however_it_is_written() {
    let mut case = case(Kind::P256);
    case.pattern = Some("%any".into());
    let dn = case.leaf.certificate().subject().der().to_vec();
    for (kind, body) in [(2, &b"GW-a.example"[..]), (9, &dn)] {
        is_accepted(&case, &claims::identified(&case.leaf, kind, body));
    }
    let odd = claims::identities(&case.leaf).into_iter();
    for claim in odd.chain(claims::stunted(&case.leaf)) {
        let (pair, error) = answer(&case, &claim);
        assert!(error.is_some(), "{}", claim.name);
        assert!(pair.ike_sas(Side::B).is_empty(), "{}", claim.name);
    }
}
