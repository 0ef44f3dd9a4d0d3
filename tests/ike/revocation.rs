//! Revocation: lists from files and over HTTP, OCSP, and what is done without an answer.

use std::sync::Arc;
use std::time::Duration;

use lockgate::crypto::x509::Crl;
use lockgate::ike::{Discard, Fetched, Input, Revocation};

use crate::certificates::{Case, authority};
use crate::config::Side;
use crate::pair::{Pair, initiate};
use crate::pki::{self, Kind};

const URI: &str = "http://crl.example/root.crl";

fn case(root: &pki::Identity, revocation: Revocation, uri: Option<&str>) -> Case {
    let params = pki::gateway_params("gw-a.example");
    let params = match uri {
        Some(uri) => pki::with_crl_uri(params, uri),
        None => params,
    };
    let mut case = Case::new(root.sign(Kind::P256, params), &[], root);
    case.revocation = revocation;
    case
}

#[test]
fn a_list_from_a_file_decides_under_every_policy() {
    let root = pki::root(Kind::P256, "root");
    for policy in [Revocation::Relaxed, Revocation::IfUri, Revocation::Strict] {
        let mut case = case(&root, policy, None);
        case.authorities[0].crls = vec![root.list(&[])];
        case.is_accepted();
        case.authorities[0].crls = vec![root.list(&[&case.leaf])];
        case.is_refused("was revoked");
    }
}

#[test]
fn without_any_answer_the_policy_decides() {
    let root = pki::root(Kind::P256, "root");
    case(&root, Revocation::Relaxed, None).is_accepted();
    case(&root, Revocation::IfUri, None).is_accepted();
    case(&root, Revocation::Strict, None).is_refused("is not known");
}

#[test]
fn a_list_that_is_stale_forged_or_of_another_issuer_is_no_answer() {
    let root = pki::root(Kind::P256, "root");
    let other = pki::root(Kind::P256, "root");
    let stranger = pki::root(Kind::P256, "stranger");
    let old = Arc::new(Crl::from_der(&root.list_der(&[], (2024, 2025))).unwrap());
    let early = Arc::new(Crl::from_der(&root.list_der(&[], (2040, 2041))).unwrap());
    for (list, why) in [
        (old, "stale"),
        (early, "not valid yet"),
        (other.list(&[]), "not signed by the issuer"),
        (stranger.list(&[]), "no revocation list"),
    ] {
        let mut case = case(&root, Revocation::Strict, None);
        case.authorities[0].crls = vec![list];
        case.is_refused(why);
    }
}

#[test]
fn what_a_stale_list_has_revoked_stays_revoked() {
    let root = pki::root(Kind::P256, "root");
    let mut case = case(&root, Revocation::Relaxed, None);
    let old = root.list_der(&[&case.leaf], (2024, 2025));
    case.authorities[0].crls = vec![Arc::new(Crl::from_der(&old).unwrap())];
    case.is_refused("was revoked");
}

/// Lets A initiate until B waits for revocation information.
fn waiting(case: &Case) -> Pair {
    let mut pair = case.pair();
    pair.command(Side::A, initiate("lan"));
    pair.run_for(Duration::from_millis(200));
    assert!(pair.ike_sas(Side::B).is_empty());
    pair
}

fn answer(pair: &mut Pair, result: Result<Fetched, String>) {
    let now = pair.now;
    let fetch = pair.host(Side::B).fetches.remove(0);
    let id = fetch.id;
    pair.host(Side::B)
        .handle(now, Input::Fetched { id, result });
    pair.collect();
}

#[test]
fn a_list_is_fetched_from_where_the_certificate_says_and_then_kept() {
    let root = pki::root(Kind::P256, "root");
    let case = case(&root, Revocation::Strict, Some(URI));
    let mut pair = waiting(&case);
    let fetch = pair.host(Side::B).fetches[0].clone();
    assert_eq!(
        (fetch.uri.as_str(), fetch.configured, fetch.question),
        (URI, false, None)
    );
    answer(&mut pair, Ok(Fetched::List(root.list(&[]))));
    pair.settle();
    pair.assert_tunnels(1);
    pair.restart(Side::A);
    pair.command(Side::A, initiate("lan"));
    pair.run_for(Duration::from_secs(1));
    assert!(pair.host(Side::B).fetches.is_empty(), "it is kept");
}

#[test]
fn a_fetched_list_that_revokes_is_refused() {
    let root = pki::root(Kind::P256, "root");
    let case = case(&root, Revocation::Relaxed, Some(URI));
    let mut pair = waiting(&case);
    answer(&mut pair, Ok(Fetched::List(root.list(&[&case.leaf]))));
    pair.settle();
    assert!(pair.host(Side::B).logged("was revoked"));
    pair.run_for(Duration::from_secs(60));
    pair.assert_nothing_left();
}

#[test]
fn requests_repeated_while_the_answer_is_awaited_start_nothing() {
    let root = pki::root(Kind::P256, "root");
    let case = case(&root, Revocation::Strict, Some(URI));
    let mut pair = waiting(&case);
    pair.run_for(Duration::from_secs(3));
    assert!(pair.host(Side::B).discarded(Discard::StaleRequest) > 0);
    assert_eq!(pair.host(Side::B).fetches.len(), 1);
    answer(&mut pair, Ok(Fetched::List(root.list(&[]))));
    pair.settle();
    pair.assert_tunnels(1);
}

#[test]
fn an_answer_that_never_comes_is_given_up_and_the_policy_decides() {
    let root = pki::root(Kind::P256, "root");
    for (policy, accepted) in [
        (Revocation::Relaxed, true),
        (Revocation::IfUri, false),
        (Revocation::Strict, false),
    ] {
        let mut pair = waiting(&case(&root, policy, Some(URI)));
        pair.run_for(Duration::from_secs(12));
        assert_eq!(
            pair.ike_sas(Side::B).len(),
            usize::from(accepted),
            "{policy:?}"
        );
        assert_eq!(
            pair.host(Side::B).fetches.len(),
            1,
            "{policy:?}: asked once"
        );
    }
}

#[test]
fn what_could_not_be_fetched_is_not_asked_for_again_at_once() {
    let root = pki::root(Kind::P256, "root");
    let mut pair = waiting(&case(&root, Revocation::Strict, Some(URI)));
    answer(&mut pair, Err("refused".to_owned()));
    pair.settle();
    assert!(pair.host(Side::B).logged("is not known"));
    pair.command(Side::A, initiate("lan"));
    pair.run_for(Duration::from_secs(1));
    assert!(pair.host(Side::B).fetches.is_empty());
    pair.run_for(Duration::from_secs(60));
    pair.command(Side::A, initiate("lan"));
    pair.run_for(Duration::from_secs(1));
    assert_eq!(pair.host(Side::B).fetches.len(), 1);
}

#[test]
fn an_authority_of_the_configuration_names_places_of_its_own_ocsp_first() {
    let root = pki::root(Kind::P256, "root");
    let mut case = case(&root, Revocation::Strict, Some(URI));
    case.authorities[0].ocsp_uris = vec!["http://127.0.0.1/ocsp".into()];
    case.authorities[0].crl_uris = vec!["http://127.0.0.1/crl".into()];
    let mut pair = waiting(&case);
    for (uri, configured, posts) in [
        ("http://127.0.0.1/ocsp", true, true),
        ("http://127.0.0.1/crl", true, false),
        (URI, false, false),
    ] {
        let fetch = pair.host(Side::B).fetches[0].clone();
        assert_eq!((fetch.uri.as_str(), fetch.configured), (uri, configured));
        assert_eq!(fetch.question.is_some(), posts);
        answer(&mut pair, Err("not there".to_owned()));
    }
    pair.settle();
    assert!(pair.host(Side::B).logged("is not known"));
}

#[test]
fn the_initiator_waits_for_revocation_information_too() {
    let root = pki::root(Kind::P256, "root");
    let case = case(&root, Revocation::Strict, Some(URI));
    let mut pair = case.pair();
    pair.command(Side::B, initiate("lan"));
    pair.run_for(Duration::from_millis(200));
    assert_eq!(pair.host(Side::B).fetches.len(), 1);
    answer(&mut pair, Ok(Fetched::List(root.list(&[]))));
    pair.settle();
    pair.assert_tunnels(1);
    let mut silent = case.pair();
    let id = silent.command(Side::B, initiate("lan"));
    silent.run_for(Duration::from_secs(60));
    silent.failure(Side::B, id);
    silent.host(Side::B).assert_empty("B");
}

#[test]
fn a_configuration_that_is_loaded_again_brings_new_authorities_and_lists() {
    let root = pki::root(Kind::P256, "root");
    let case = case(&root, Revocation::Strict, None);
    let mut pair = case.pair();
    let refused = pair.command(Side::A, initiate("lan"));
    pair.settle();
    pair.failure(Side::A, refused);
    let mut known = authority(&root);
    known.crls = vec![root.list(&[])];
    pair.setup(Side::B).authorities = vec![known];
    let (now, pad) = (pair.now, pair.setup(Side::B).pad());
    pair.host(Side::B).reload(now, pad);
    let id = pair.command(Side::A, initiate("lan"));
    pair.settle();
    assert!(matches!(pair.result(Side::A, id), Some(Ok(_))));
}

#[test]
fn a_list_of_one_part_answers_for_certificates_that_name_its_place() {
    let root = pki::root(Kind::P256, "root");
    for (place, accepted) in [(URI, true), ("http://crl.example/other.crl", false)] {
        let mut case = case(&root, Revocation::Strict, Some(URI));
        case.authorities[0].crls = vec![root.part(place)];
        let mut pair = case.pair();
        pair.command(Side::A, initiate("lan"));
        pair.run_for(Duration::from_millis(200));
        assert_eq!(pair.ike_sas(Side::B).len(), usize::from(accepted));
        let fetches = pair.host(Side::B).fetches.len();
        assert_eq!(fetches, usize::from(!accepted), "{place}");
    }
}

#[test]
fn a_fetched_list_of_another_signer_is_not_kept() {
    let root = pki::root(Kind::P256, "root");
    let other = pki::root(Kind::P256, "root");
    let mut pair = waiting(&case(&root, Revocation::Strict, Some(URI)));
    answer(&mut pair, Ok(Fetched::List(other.list(&[]))));
    pair.settle();
    let host = pair.host(Side::B);
    assert!(host.logged("the list is not signed by the issuer"));
    assert!(host.logged("is not known: no revocation list"));
}

/// The intermediate authority names no place to ask at, so that `strict` refuses it whatever the place
/// that the gateway's certificate names would say.
#[test]
fn nothing_is_asked_for_a_path_that_is_refused_anyway() {
    let root = pki::root(Kind::P256, "root");
    let middle = root.intermediate(Kind::P256, "middle");
    let params = pki::with_crl_uri(pki::gateway_params("gw-a.example"), URI);
    let mut case = Case::new(middle.sign(Kind::P256, params), &[&middle], &root);
    case.revocation = Revocation::Strict;
    let mut pair = case.pair();
    pair.command(Side::A, initiate("lan"));
    pair.settle();
    assert!(pair.host(Side::B).logged("is not known"));
    assert!(pair.host(Side::B).fetches.is_empty());
}
