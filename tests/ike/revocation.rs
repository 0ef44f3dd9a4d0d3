//! Revocation: lists from files and over HTTP, OCSP, and what is done without an answer.

use std::sync::Arc;
use std::time::Duration;

use lockgate::crypto::signature::{Hash, Scheme};
use lockgate::crypto::x509::Crl;
use lockgate::ike::{Discard, Fetched, Input, Revocation};
use lockgate::wire::ikev2::{AuthMethod, NotifyType};
use lockgate::wire::isakmp::{ExchangeType, PayloadType};

use crate::actor::{Actor, IKE, identity, proof};
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

/// The serial number of a certificate says which it is only together with its issuer, and not once.
#[test]
fn a_serial_number_that_occurs_twice_revokes_every_certificate_of_the_issuer_that_has_it() {
    let [root, other] = ["root", "other"].map(|name| pki::root(Kind::P256, name));
    let params = || pki::gateway_params("gw-a.example");
    let twin = root.sign(Kind::P256, params());
    let mut case = case(&root, Revocation::Strict, None);
    assert_eq!(case.leaf.params.serial_number, twin.params.serial_number);
    case.authorities.push(authority(&other));
    case.authorities[0].crls = vec![root.list(&[&twin, &twin])];
    case.authorities[1].crls = vec![other.list(&[])];
    case.is_refused("was revoked");
    case.leaf = other.sign(Kind::P256, params());
    case.is_accepted();
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

#[test]
fn a_place_that_we_cannot_ask_is_named_all_the_same() {
    let root = pki::root(Kind::P256, "root");
    for uri in ["https://crl.example/root.crl", "ldap://crl.example/cn=root"] {
        let with = |policy| case(&root, policy, Some(uri));
        with(Revocation::IfUri).is_refused("is not known");
        with(Revocation::Relaxed).is_accepted();
    }
    let ocsp = pki::with_ocsp_uri(pki::gateway_params("gw-a.example"), "https://ocsp.example");
    let mut case = Case::new(root.sign(Kind::P256, ocsp), &[], &root);
    case.revocation = Revocation::IfUri;
    case.is_refused("is not known");
}

#[test]
fn a_list_from_a_file_is_a_place_that_is_named() {
    let root = pki::root(Kind::P256, "root");
    let mut case = case(&root, Revocation::IfUri, None);
    let old = Crl::from_der(&root.list_der(&[], (2024, 2025))).unwrap();
    case.authorities[0].crls = vec![Arc::new(old)];
    case.is_refused("stale");
}

#[test]
fn a_silent_responder_leaves_a_fair_share_of_the_time_to_the_list() {
    let root = pki::root(Kind::P256, "root");
    let mut case = case(&root, Revocation::Strict, Some(URI));
    case.authorities[0].ocsp_uris = vec!["http://one.example".to_owned()];
    let mut pair = case.pair();
    pair.command(Side::A, initiate("lan"));
    pair.run_for(Duration::from_secs(6));
    let fetches = &mut pair.host(Side::B).fetches;
    let uris: Vec<_> = fetches.iter().map(|fetch| fetch.uri.as_str()).collect();
    assert_eq!(uris, ["http://one.example", URI]);
    let [responder, list] = [fetches[0].deadline, fetches[1].deadline];
    assert_eq!(list - responder, Duration::from_secs(5));
    fetches.remove(0);
    answer(&mut pair, Ok(Fetched::List(root.list(&[]))));
    pair.settle();
    pair.assert_tunnels(1);
}

#[test]
fn a_handshake_waits_once_however_many_places_are_silent() {
    let root = pki::root(Kind::P256, "root");
    for (policy, accepted) in [(Revocation::Relaxed, true), (Revocation::Strict, false)] {
        for side in Side::BOTH {
            let mut case = case(&root, policy, Some(URI));
            let places = ["http://one.example", "http://two.example"];
            case.authorities[0].ocsp_uris = places.map(str::to_owned).to_vec();
            let mut pair = case.pair();
            pair.command(side, initiate("lan"));
            pair.run_for(Duration::from_secs(9));
            assert!(
                pair.ike_sas(Side::B)
                    .iter()
                    .all(|sa| sa.established.is_none())
            );
            pair.run_for(Duration::from_secs(3));
            let up = pair.ike_sas(Side::B).len();
            assert_eq!(up, usize::from(accepted), "{policy:?} {side:?}");
            assert_eq!(pair.host(Side::B).logged("is not known"), !accepted);
        }
    }
}

/// A peer that proves to be A, with this list behind its certificate; the answer is not awaited.
fn sends_along(case: &Case, list: &[u8]) -> Pair {
    by_hand(case, case.pair(), &[(7, list)]).0
}

/// The same with anything else that is encoded like that.
fn by_hand(case: &Case, mut pair: Pair, more: &[(u8, &[u8])]) -> (Pair, Actor) {
    let announced = [NotifyType::SIGNATURE_HASH_ALGORITHMS];
    let mut actor = Actor::half_open_with(&mut pair, 1, IKE, &announced);
    let scheme = Scheme::Ecdsa(Hash::Sha256);
    let algorithm = scheme.to_algorithm_identifier().unwrap();
    let octets = actor.octets(&identity(Side::A));
    let signature = case.leaf.private_key().sign(scheme, &octets).unwrap();
    let length = u8::try_from(algorithm.len()).unwrap();
    let mut payloads = actor.auth();
    let data = [&[length], &algorithm[..], &signature].concat();
    payloads[2].1 = proof(AuthMethod::DIGITAL_SIGNATURE, &data);
    let leaf: (u8, &[u8]) = (4, case.leaf.certificate.der());
    for (encoding, data) in more.iter().copied().chain([leaf]) {
        payloads.insert(1, (PayloadType::CERT, [&[encoding], data].concat()));
    }
    actor.request(&mut pair, ExchangeType::IKE_AUTH, &payloads);
    (pair, actor)
}

#[test]
fn a_list_that_the_peer_sends_along_does_not_spare_it_a_newer_one() {
    let root = pki::root(Kind::P256, "root");
    let case = case(&root, Revocation::Relaxed, Some(URI));
    let old = root.list_der(&[], (2025, 2027));
    let mut pair = sends_along(&case, &old);
    assert!(pair.ike_sas(Side::B).is_empty());
    assert_eq!(pair.host(Side::B).fetches.len(), 1);
    answer(&mut pair, Ok(Fetched::List(root.list(&[&case.leaf]))));
    assert!(pair.host(Side::B).logged("was revoked"));
    assert!(pair.ike_sas(Side::B).is_empty());
}

#[test]
fn a_list_that_the_peer_sends_along_counts_where_nobody_else_answers() {
    let root = pki::root(Kind::P256, "root");
    let list = root.list_der(&[], (2025, 2027));
    let silent = case(&root, Revocation::Strict, None);
    assert_eq!(sends_along(&silent, &list).ike_sas(Side::B).len(), 1);
    let named = case(&root, Revocation::Strict, Some(URI));
    let mut pair = sends_along(&named, &list);
    answer(&mut pair, Err("not there".to_owned()));
    assert_eq!(pair.ike_sas(Side::B).len(), 1);
    let revoking = root.list_der(&[&named.leaf], (2025, 2027));
    let mut pair = sends_along(&named, &revoking);
    assert!(pair.host(Side::B).logged("was revoked"));
    assert!(pair.host(Side::B).fetches.is_empty());
}

/// Both sides have a second child, and B has to ask for a list.
fn two_children(case: &Case) -> Pair {
    Pair::with(|side, setup| {
        case.set_up(side, setup);
        setup.add_second_child(side);
        setup.children[1].esp_proposals = setup.children[0].esp_proposals.clone();
    })
}

#[test]
fn a_second_child_that_is_wanted_while_ike_auth_waits_comes_once_it_is_through() {
    let root = pki::root(Kind::P256, "root");
    let case = case(&root, Revocation::Strict, Some(URI));
    for initiator in Side::BOTH {
        for wanting in Side::BOTH {
            println!("{initiator:?} initiates, {wanting:?} wants another one");
            let mut pair = two_children(&case);
            let first = pair.command(initiator, initiate("lan"));
            pair.run_for(Duration::from_millis(200));
            let second = pair.command(wanting, initiate("lab"));
            pair.run_for(Duration::from_secs(3));
            assert_eq!(pair.host(Side::B).fetches.len(), 1);
            assert_eq!(pair.host(Side::B).told(), (0, 0));
            answer(&mut pair, Ok(Fetched::List(root.list(&[]))));
            pair.run_for(Duration::from_secs(60));
            for (side, id) in [(initiator, first), (wanting, second)] {
                let result = pair.result(side, id);
                assert!(matches!(result, Some(Ok(_))), "{result:?}");
            }
            pair.assert_clean(2);
            pair.finish();
        }
    }
}

#[test]
fn a_request_for_a_child_that_comes_while_ike_auth_waits_is_ignored_until_it_is_repeated() {
    let root = pki::root(Kind::P256, "root");
    let case = case(&root, Revocation::Strict, Some(URI));
    let (mut pair, mut actor) = by_hand(&case, two_children(&case), &[]);
    assert_eq!(pair.host(Side::B).fetches.len(), 1);
    let wanted = actor.create_child("10.101.0.0/24", "10.102.0.0/24");
    let create = ExchangeType::CREATE_CHILD_SA;
    let id = actor.next_id;
    let discarded = pair.host(Side::B).all_discarded();
    assert!(actor.request(&mut pair, create, &wanted).is_none());
    assert_eq!(pair.host(Side::B).all_discarded(), discarded + 1);
    assert_eq!(pair.host(Side::B).plane.counts(), (0, 0));
    answer(&mut pair, Ok(Fetched::List(root.list(&[]))));
    assert_eq!(pair.children(Side::B).len(), 1);
    actor.next_id = id;
    let answer = actor.request(&mut pair, create, &wanted);
    assert_eq!(answer.unwrap().error(), None);
    assert_eq!(pair.children(Side::B).len(), 2);
    assert_eq!(pair.host(Side::B).told(), (1, 2));
}
