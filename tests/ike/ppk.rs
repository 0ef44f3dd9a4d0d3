//! Post-quantum preshared keys (RFC 8784, RFC 9867), with the key schedule computed by hand.

use lockgate::crypto::Secret;
use lockgate::crypto::kdf::psk_auth;
use lockgate::ike::PpkId;
use lockgate::wire::ikev2::{AuthMethod, AuthPayload, Notify, NotifyType};
use lockgate::wire::isakmp::{ExchangeType, PayloadType};

use super::actor::{Actor, Opened, Payloads, identity, notify, proof};
use super::config::{Setup, Side};
use super::faults::command_survives;
use super::half_done::{covered, keys, prf};
use super::pair::{Pair, initiate, rekey_ike, seconds};

const NAME: &str = "quantum-1";
const KEY: &str = "0123456789abcdef0123456789abcdef";
const PPK: (&str, &str) = (NAME, KEY);
const OTHER: (&str, &str) = ("quantum-2", KEY);
const CHANGED: (&str, &str) = (NAME, "another key of the same name");
const PLAIN: &str = "aes256gcm16-prfsha384-x25519";

fn named(text: &str) -> PpkId {
    PpkId(text.as_bytes().to_vec())
}

/// Both sides have the key, and A names it.
fn shared(side: Side, setup: &mut Setup) {
    setup.ppks = vec![PPK];
    setup.connection.ppk_id = (side == Side::A).then(|| named(NAME));
}

fn mixes(pair: &mut Pair) -> bool {
    let sides = Side::BOTH.map(|side| pair.host(side).logged("mixing in the post-quantum"));
    assert_eq!(sides[0], sides[1], "only one side uses a PPK");
    sides[0]
}

#[test]
fn a_key_that_both_sides_have_is_mixed_in_before_the_identities_are_sent() {
    for proposal in [
        PLAIN,
        "aes256gcm16-prfsha384-x25519-ke1_mlkem512-ke2_ecp256",
    ] {
        let mut pair = Pair::up_with(|side, setup| {
            shared(side, setup);
            setup.connection.ppk_required = true;
            setup.connection.proposals = super::config::ike_proposals(&[proposal]);
        });
        assert!(mixes(&mut pair));
        pair.command(Side::B, rekey_ike());
        pair.run_for(seconds(10));
        pair.assert_clean(1);
        pair.finish();
    }
}

#[test]
fn a_handshake_with_a_key_survives_every_fault() {
    command_survives(|| Pair::with(shared), Side::A, || initiate("lan"), 1);
}

/// What one side is configured with: the key it names, those it has, and whether it insists.
type Configured = (
    Option<&'static str>,
    &'static [(&'static str, &'static str)],
    bool,
);

/// Whether there is a tunnel, and one with a key, after A has initiated it.
fn outcome(a: Configured, b: Configured) -> Option<bool> {
    let mut pair = Pair::with(|side, setup| {
        let (id, ppks, required) = [a, b][side.index()];
        setup.connection.ppk_id = id.map(named);
        setup.connection.ppk_required = required;
        setup.ppks = ppks.to_vec();
    });
    pair.command(Side::A, initiate("lan"));
    pair.run_for(seconds(60));
    let up = !pair.ike_sas(Side::A).is_empty();
    let result = up.then(|| mixes(&mut pair));
    if up {
        pair.assert_tunnels(1);
    } else {
        assert!(pair.ike_sas(Side::B).is_empty());
    }
    pair.finish();
    result
}

#[test]
fn a_side_that_insists_on_a_key_gets_it_or_nothing() {
    let (without, with) = (Some(false), Some(true));
    let none: Configured = (None, &[], false);
    for (a, b, expected) in [
        (none, none, without),
        (none, (None, &[PPK][..], false), without),
        (none, (None, &[PPK], true), None),
        ((Some(NAME), &[PPK], false), none, without),
        ((Some(NAME), &[PPK], true), none, None),
        ((Some(NAME), &[PPK], false), (None, &[PPK], true), with),
        (
            (Some(NAME), &[PPK], true),
            (None, &[OTHER, PPK], false),
            with,
        ),
        (
            (Some(NAME), &[PPK], false),
            (None, &[OTHER], false),
            without,
        ),
        ((Some(NAME), &[PPK], true), (None, &[OTHER], false), None),
        ((Some(NAME), &[PPK], false), (None, &[OTHER], true), None),
        (
            (Some(NAME), &[PPK], false),
            (None, &[CHANGED], false),
            without,
        ),
        ((Some(NAME), &[PPK], true), (None, &[CHANGED], false), None),
        ((Some(NAME), &[PPK], false), (None, &[CHANGED], true), None),
    ] {
        assert_eq!(outcome(a, b), expected, "{a:?} {b:?}");
    }
}

#[test]
fn a_connection_that_names_a_key_takes_no_other() {
    let a: Configured = (Some(NAME), &[PPK], false);
    assert_eq!(outcome(a, (Some("quantum-2"), &[PPK, OTHER], false)), None);
    assert_eq!(outcome(a, (Some(NAME), &[PPK, OTHER], true)), Some(true));
}

/// prf+(PPK, key) of RFC 8784 §3 for a PRF whose keys are as long as its output.
fn mix(ppk: &str, key: &Secret) -> Secret {
    prf().mac(ppk.as_bytes(), &[key.as_bytes(), &[1]])
}

fn proof_with(pair: &mut Pair, sk_p: &Secret, side: Side, octets: &[&[u8]]) -> Vec<u8> {
    let id = prf().mac(sk_p.as_bytes(), &[&identity(side)]);
    let secret = Secret::from(pair.setup(Side::A).secret.as_bytes().to_vec());
    let parts = [&octets[..2], &[id.as_bytes()], &octets[2..]].concat();
    psk_auth(prf(), &secret, &parts).as_bytes().to_vec()
}

/// IKE_AUTH with this proof, and with notifications behind it.
fn auth(
    pair: &mut Pair,
    actor: &mut Actor,
    proven: &[u8],
    notifies: Vec<(PayloadType, Vec<u8>)>,
) -> Opened {
    let mut payloads: Payloads = actor.auth();
    let place = payloads
        .iter()
        .position(|(kind, _)| *kind == PayloadType::AUTH);
    payloads[place.unwrap()].1 = proof(AuthMethod::SHARED_KEY_MIC, proven);
    payloads.extend(notifies);
    let answer = actor.request(pair, ExchangeType::IKE_AUTH, &payloads);
    answer.expect("an answer")
}

fn fixed(name: &str) -> Vec<u8> {
    [&[2], name.as_bytes()].concat()
}

fn responder(required: bool) -> Pair {
    Pair::with(move |_, setup| {
        setup.ppks = vec![PPK];
        setup.connection.ppk_required = required;
    })
}

/// The proof of the initiator, with and without the key.
fn proofs(pair: &mut Pair, actor: &Actor) -> [Vec<u8>; 2] {
    let mixed = mix(KEY, &actor.keys.sk_pi);
    let octets = [actor.init.request.as_slice(), &actor.init.nr];
    [&mixed, &actor.keys.sk_pi].map(|sk_p| proof_with(pair, sk_p, Side::A, &octets))
}

#[test]
fn proofs_and_keys_with_ike_auth_are_those_of_rfc_8784() {
    let mut pair = responder(true);
    let mut actor = Actor::half_open_with(&mut pair, 1, PLAIN, &[NotifyType::USE_PPK]);
    let [with, _] = proofs(&mut pair, &actor);
    let named = vec![notify(NotifyType::PPK_IDENTITY, &fixed(NAME))];
    let answer = auth(&mut pair, &mut actor, &with, named);
    assert_eq!(answer.error(), None);
    assert!(answer.notifies().contains(&NotifyType::PPK_IDENTITY));
    let mixed = mix(KEY, &actor.keys.sk_pr);
    let octets = [actor.init.response.clone(), actor.init.ni.clone()];
    let octets = [octets[0].as_slice(), &octets[1]];
    let expected = proof_with(&mut pair, &mixed, Side::B, &octets);
    let proven = AuthPayload::parse(answer.body(PayloadType::AUTH).unwrap()).unwrap();
    assert_eq!(proven.data, expected);
    // The keys of the IKE SA itself are as before.
    let answer = actor.request(&mut pair, ExchangeType::INFORMATIONAL, &vec![]);
    assert_eq!(answer.unwrap().payloads, []);
}

#[test]
fn what_a_responder_makes_of_proofs_with_and_without_a_key() {
    let (id, other) = (Some(fixed(NAME)), Some(fixed("unknown")));
    let opaque = Some([&[1], NAME.as_bytes()].concat());
    // Required, PPK_IDENTITY, whether NO_PPK_AUTH is there; whether it is accepted.
    for (required, named, fallback, accepted) in [
        (false, id.clone(), false, true),
        (true, id.clone(), true, true),
        (false, None, true, false),
        (false, other.clone(), false, false),
        (false, other.clone(), true, true),
        (true, other, true, false),
        (false, opaque, true, true),
        (false, Some(vec![]), true, true),
        (false, Some(vec![2]), false, false),
    ] {
        let mut pair = responder(required);
        let mut actor = Actor::half_open_with(&mut pair, 1, PLAIN, &[NotifyType::USE_PPK]);
        let [with, without] = proofs(&mut pair, &actor);
        let mut notifies = Vec::new();
        if let Some(named) = &named {
            notifies.push(notify(NotifyType::PPK_IDENTITY, named));
        }
        if fallback {
            notifies.push(notify(NotifyType::NO_PPK_AUTH, &without));
        }
        let answer = auth(&mut pair, &mut actor, &with, notifies);
        let refusal = (!accepted).then_some(NotifyType::AUTHENTICATION_FAILED);
        assert_eq!(answer.error(), refusal, "{required} {named:?} {fallback}");
        let told = answer.notifies().contains(&NotifyType::PPK_IDENTITY);
        assert_eq!(told, accepted && named == id);
    }
}

#[test]
fn a_false_fallback_proof_is_refused() {
    let mut pair = responder(false);
    let mut actor = Actor::half_open_with(&mut pair, 1, PLAIN, &[NotifyType::USE_PPK]);
    let [with, without] = proofs(&mut pair, &actor);
    for fallback in [vec![], vec![0; 48], without[..47].to_vec(), with.clone()] {
        let notifies = vec![
            notify(NotifyType::PPK_IDENTITY, &fixed("unknown")),
            notify(NotifyType::NO_PPK_AUTH, &fallback),
        ];
        let answer = auth(&mut pair, &mut actor, &with, notifies);
        assert_eq!(answer.error(), Some(NotifyType::AUTHENTICATION_FAILED));
        pair.restart(Side::B);
        actor = Actor::half_open_with(&mut pair, 1, PLAIN, &[NotifyType::USE_PPK]);
    }
}

const INT: [NotifyType; 2] = [
    NotifyType::INTERMEDIATE_EXCHANGE_SUPPORTED,
    NotifyType::USE_PPK_INT,
];

fn confirmation(actor: &Actor, key: &str) -> Vec<u8> {
    let [one, two] = actor.spis();
    let parts: [&[u8]; 4] = [&actor.init.ni, &actor.init.nr, &one, &two];
    prf().mac(key.as_bytes(), &parts).as_bytes()[..8].to_vec()
}

#[test]
fn keys_and_proofs_with_ike_intermediate_are_those_of_rfc_9867() {
    let mut pair = responder(true);
    let mut actor = Actor::half_open_with(&mut pair, 1, PLAIN, &INT);
    let offers = [
        [fixed("unknown"), vec![0; 8]].concat(),
        [fixed(NAME), vec![0; 8]].concat(), // the name fits, the key does not
        vec![2; 7],
        [fixed(NAME), confirmation(&actor, KEY)].concat(),
    ];
    let offer = |data: &Vec<u8>| notify(NotifyType::PPK_IDENTITY_KEY, data);
    let payloads: Payloads = offers.iter().map(offer).collect();
    let answer = actor.request(&mut pair, ExchangeType::IKE_INTERMEDIATE, &payloads);
    let answer = answer.unwrap();
    let [(PayloadType::NOTIFY, body)] = answer.payloads.as_slice() else {
        panic!("{answer:?}");
    };
    let chosen = Notify::parse(body).unwrap();
    assert_eq!(chosen.kind, NotifyType::PPK_IDENTITY);
    assert_eq!(chosen.data, fixed(NAME));

    let spis = actor.spis();
    let both = [(0x08, &payloads), (0x20, &answer.payloads)];
    let [request, response] = both.map(|(flags, payloads)| covered(spis, flags, 1, payloads));
    let int_i = prf().mac(actor.keys.sk_pi.as_bytes(), &[&request]);
    let int_r = prf().mac(actor.keys.sk_pr.as_bytes(), &[&response]);
    let seed = mix(KEY, &actor.keys.sk_d);
    let (ni, nr) = (actor.init.ni.clone(), actor.init.nr.clone());
    actor.use_keys(keys(seed.as_bytes(), &ni, &nr, spis));

    let int_auth = [int_i.as_bytes(), int_r.as_bytes(), &2u32.to_be_bytes()].concat();
    let octets = [actor.init.request.clone(), nr, int_auth];
    let octets: Vec<&[u8]> = octets.iter().map(Vec::as_slice).collect();
    let sk_pi = Secret::copy_from(actor.keys.sk_pi.as_bytes());
    let proven = proof_with(&mut pair, &sk_pi, Side::A, &octets);
    let answer = auth(&mut pair, &mut actor, &proven, vec![]);
    assert_eq!(answer.error(), None);
    assert_eq!(pair.children(Side::B).len(), 1);
}

#[test]
fn a_key_that_is_offered_twice_or_not_at_all_ends_the_attempt() {
    let mut pair = responder(true);
    // Nothing in IKE_INTERMEDIATE, although that is where it was to be.
    let mut actor = Actor::half_open_with(&mut pair, 1, PLAIN, &INT);
    let answer = actor.request(&mut pair, ExchangeType::IKE_INTERMEDIATE, &vec![]);
    assert_eq!(answer.unwrap().error(), Some(NotifyType::INVALID_SYNTAX));
    // Straight to IKE_AUTH.
    let mut actor = Actor::half_open_with(&mut pair, 2, PLAIN, &INT);
    let proven = actor.proof().to_vec();
    let answer = auth(&mut pair, &mut actor, &proven, vec![]);
    assert_eq!(answer.error(), Some(NotifyType::AUTHENTICATION_FAILED));
    // Once more.
    let mut actor = Actor::half_open_with(&mut pair, 3, PLAIN, &INT);
    for expected in [None, Some(NotifyType::INVALID_SYNTAX)] {
        let unknown = [fixed("unknown"), vec![0; 8]].concat();
        let payloads = vec![notify(NotifyType::PPK_IDENTITY_KEY, &unknown)];
        let answer = actor.request(&mut pair, ExchangeType::IKE_INTERMEDIATE, &payloads);
        assert_eq!(answer.unwrap().error(), expected);
    }
    assert!(pair.ike_sas(Side::B).is_empty());
}
