//! A peer that holds keys and breaks the rules of additional key exchanges (HOSTILE B10, B15, B31), and
//! the key schedule computed by hand.

use lockgate::crypto::Secret;
use lockgate::crypto::kdf::{IkeKeys, psk_auth};
use lockgate::crypto::prf::Prf;
use lockgate::ike::Discard;
use lockgate::wire::ikev2::{AuthMethod, KePayload, Notify, NotifyType};
use lockgate::wire::isakmp::{ExchangeType, PayloadType};
use lockgate::wire::proposal::{KeyExchangeId, PrfId, SaProposal, Transform};

use super::actor::{Actor, Opened, Payloads, identity, join, ke, notify, proof, sa};
use super::config::{Side, esp_proposals, ike_proposals};
use super::pair::{Pair, seconds};

const HYBRID: &str = "aes256gcm16-prfsha384-x25519-ke1_mlkem512";
const TWICE: &str = "aes256gcm16-prfsha384-x25519-ke1_mlkem512-ke2_ecp256";
const ESP: &str = "aes256gcm16-x25519-ke1_mlkem512-esn-noesn";
const INTERMEDIATE: NotifyType = NotifyType::INTERMEDIATE_EXCHANGE_SUPPORTED;
const LINK: NotifyType = NotifyType::ADDITIONAL_KEY_EXCHANGE;

fn pair() -> Pair {
    Pair::with(|_, setup| {
        setup.connection.proposals = ike_proposals(&[TWICE, HYBRID]);
        setup.children[0].esp_proposals = esp_proposals(&[ESP]);
    })
}

pub(crate) fn prf() -> Prf {
    Prf::new(PrfId::HMAC_SHA2_384).unwrap()
}

/// A KE payload of this method with these bytes.
fn raw_ke(method: KeyExchangeId, data: &[u8]) -> (PayloadType, Vec<u8>) {
    let mut body = Vec::new();
    let group = method;
    KePayload { group, data }.encode(&mut body);
    (PayloadType::KE, body)
}

/// A message as IntAuth covers it, made from its parts as RFC 9242 §3.3.2 draws it.
pub(crate) fn covered(spis: [[u8; 8]; 2], flags: u8, id: u32, payloads: &Payloads) -> Vec<u8> {
    let (first, text) = join(payloads);
    let total = u32::try_from(28 + 4 + text.len()).unwrap();
    let inner = u16::try_from(4 + text.len()).unwrap();
    [
        &spis.concat()[..],
        &[46, 0x20, 43, flags],
        &id.to_be_bytes(),
        &total.to_be_bytes(),
        &[first.0, 0],
        &inner.to_be_bytes(),
        &text,
    ]
    .concat()
}

/// The seven keys of AES-256-GCM and HMAC-SHA-384, cut from prf+ by hand.
pub(crate) fn keys(seed: &[u8], ni: &[u8], nr: &[u8], spis: [[u8; 8]; 2]) -> IkeKeys {
    let lens = [48, 0, 0, 36, 36, 48, 48];
    let parts = [ni, nr, &spis[0], &spis[1]];
    let mut output = Vec::new();
    let mut block: Vec<u8> = Vec::new();
    for counter in 1.. {
        if output.len() >= lens.iter().sum() {
            break;
        }
        let message = [&block[..], &parts.concat(), &[counter]].concat();
        block = prf().mac(seed, &[&message]).as_bytes().to_vec();
        output.extend_from_slice(&block);
    }
    let mut rest = output.as_slice();
    let [sk_d, sk_ai, sk_ar, sk_ei, sk_er, sk_pi, sk_pr] = lens.map(|len| {
        let (key, after) = rest.split_at(len);
        rest = after;
        Secret::copy_from(key)
    });
    IkeKeys {
        sk_d,
        sk_ai,
        sk_ar,
        sk_ei,
        sk_er,
        sk_pi,
        sk_pr,
    }
}

/// Does one IKE_INTERMEDIATE exchange, and returns what IntAuth covers of both messages.
fn intermediate(pair: &mut Pair, actor: &mut Actor, method: KeyExchangeId) -> [Vec<u8>; 2] {
    let exchange = actor.key_exchange(method);
    let payloads = vec![(PayloadType::KE, ke(&exchange))];
    let (id, spis) = (actor.next_id, actor.spis());
    let answer = actor.request(pair, ExchangeType::IKE_INTERMEDIATE, &payloads);
    let answer = answer.expect("an answer");
    let both = [
        covered(spis, 0x08, id, &payloads),
        covered(spis, 0x20, id, &answer.payloads),
    ];
    let ke = KePayload::parse(answer.body(PayloadType::KE).unwrap()).unwrap();
    let shared = exchange.finish(ke.data).unwrap();
    let (ni, nr) = (&actor.init.ni, &actor.init.nr);
    let sk_d = actor.keys.sk_d.as_bytes();
    let seed = prf().mac(sk_d, &[shared.as_bytes(), ni, nr]);
    let keys = keys(seed.as_bytes(), ni, nr, spis);
    actor.use_keys(keys);
    both
}

/// IKE_AUTH whose proof covers IntAuth.
fn auth(pair: &mut Pair, actor: &Actor, int_auth: &[u8]) -> Payloads {
    let id = prf().mac(actor.keys.sk_pi.as_bytes(), &[&identity(Side::A)]);
    let secret = Secret::from(pair.setup(Side::A).secret.as_bytes().to_vec());
    let (request, nr) = (&actor.init.request, &actor.init.nr);
    let mac = psk_auth(prf(), &secret, &[request, nr, id.as_bytes(), int_auth]);
    let mut payloads = actor.auth();
    let place = payloads
        .iter()
        .position(|(kind, _)| *kind == PayloadType::AUTH);
    payloads[place.unwrap()].1 = proof(AuthMethod::SHARED_KEY_MIC, mac.as_bytes());
    payloads
}

#[test]
fn keys_and_proofs_after_two_exchanges_are_those_of_the_rfcs() {
    let mut pair = pair();
    let mut actor = Actor::half_open_with(&mut pair, 1, TWICE, &[INTERMEDIATE]);
    let mut int_auth = [Vec::new(), Vec::new()];
    for method in [KeyExchangeId::ML_KEM_512, KeyExchangeId::ECP256] {
        let [sk_pi, sk_pr] =
            [&actor.keys.sk_pi, &actor.keys.sk_pr].map(|key| key.as_bytes().to_vec());
        let both = intermediate(&mut pair, &mut actor, method);
        for ((value, key), message) in int_auth.iter_mut().zip([sk_pi, sk_pr]).zip(both) {
            *value = prf().mac(&key, &[value, &message]).as_bytes().to_vec();
        }
    }
    assert_eq!(actor.next_id, 3);
    let octets = [&int_auth[0][..], &int_auth[1], &3u32.to_be_bytes()].concat();
    let payloads = auth(&mut pair, &actor, &octets);
    let answer = actor.request(&mut pair, ExchangeType::IKE_AUTH, &payloads);
    assert_eq!(answer.unwrap().error(), None);
    assert_eq!(pair.children(Side::B).len(), 1);
}

#[test]
fn a_proof_that_leaves_out_an_intermediate_exchange_is_refused() {
    let mut pair = pair();
    let mut actor = Actor::half_open_with(&mut pair, 1, HYBRID, &[INTERMEDIATE]);
    intermediate(&mut pair, &mut actor, KeyExchangeId::ML_KEM_512);
    let payloads = auth(&mut pair, &actor, &[]);
    let answer = actor.request(&mut pair, ExchangeType::IKE_AUTH, &payloads);
    assert_eq!(
        answer.unwrap().error(),
        Some(NotifyType::AUTHENTICATION_FAILED)
    );
    assert!(pair.ike_sas(Side::B).is_empty());
}

#[test]
fn a_peer_without_intermediate_exchanges_is_not_given_additional_key_exchanges() {
    let mut pair = Pair::with(|_, setup| {
        let optional = format!("{HYBRID}-ke1_none");
        setup.connection.proposals = ike_proposals(&[&optional]);
    });
    let offer = "aes256gcm16-prfsha384-x25519-ke1_mlkem512-ke1_none";
    let actor = Actor::half_open_with(&mut pair, 1, offer, &[]);
    let answered = actor.init.answer.iter();
    let answered = answered.filter(|(kind, _)| *kind == PayloadType::NOTIFY);
    let kinds: Vec<_> = answered
        .map(|(_, body)| Notify::parse(body).unwrap().kind)
        .collect();
    assert!(!kinds.contains(&INTERMEDIATE));
    let chosen = SaProposal::parse_list(&actor.init.answer[0].1).unwrap();
    let none = Transform::AdditionalKeyExchange {
        number: 1,
        method: KeyExchangeId::NONE,
    };
    assert!(chosen[0].1.transforms.contains(&none));
}

/// An exchange in which a rule is broken is refused, and nothing more is accepted.
#[track_caller]
fn assert_refused(pair: &mut Pair, actor: &mut Actor, answer: Option<Opened>) {
    let error = answer.expect("an answer").error();
    assert_eq!(error, Some(NotifyType::INVALID_SYNTAX));
    let payloads = actor.auth();
    assert!(
        actor
            .request(pair, ExchangeType::IKE_AUTH, &payloads)
            .is_none()
    );
    pair.run_for(seconds(31));
    pair.host(Side::B).assert_empty("B");
}

#[test]
fn a_wrong_key_exchange_in_ike_intermediate_ends_the_attempt() {
    let method = KeyExchangeId::ML_KEM_512;
    let wrong = [
        vec![],
        vec![raw_ke(method, &[])],
        vec![raw_ke(method, &[0; 799])],
        vec![raw_ke(method, &[0; 801])],
        vec![raw_ke(method, &[0xff; 800])], // coefficients above q
        vec![raw_ke(KeyExchangeId::ML_KEM_768, &[0; 1184])],
        vec![raw_ke(KeyExchangeId::X25519, &[9; 32])],
        vec![raw_ke(KeyExchangeId(999), &[9; 32])],
        vec![raw_ke(method, &[0; 800]), raw_ke(method, &[0; 800])],
        vec![(PayloadType::KE, vec![0])],
    ];
    let mut pair = pair();
    for (seed, payloads) in (1..).zip(wrong) {
        let mut actor = Actor::half_open_with(&mut pair, seed, HYBRID, &[INTERMEDIATE]);
        let answer = actor.request(&mut pair, ExchangeType::IKE_INTERMEDIATE, &payloads);
        assert_refused(&mut pair, &mut actor, answer);
    }
}

#[test]
fn an_unknown_critical_payload_in_ike_intermediate_ends_the_attempt() {
    let mut pair = pair();
    let mut actor = Actor::half_open_with(&mut pair, 1, HYBRID, &[INTERMEDIATE]);
    let exchange = actor.key_exchange(KeyExchangeId::ML_KEM_512);
    let payloads = vec![
        (PayloadType(200), vec![1]),
        (PayloadType::KE, ke(&exchange)),
    ];
    let (first, mut text) = join(&payloads);
    text[1] = 0x80;
    let answer = actor.request_raw(&mut pair, ExchangeType::IKE_INTERMEDIATE, first, &text);
    let error = answer.unwrap().error();
    assert_eq!(error, Some(NotifyType::UNSUPPORTED_CRITICAL_PAYLOAD));
}

#[test]
fn ike_auth_before_the_last_key_exchange_ends_the_attempt() {
    let mut pair = pair();
    let mut actor = Actor::half_open_with(&mut pair, 1, HYBRID, &[INTERMEDIATE]);
    let payloads = actor.auth();
    let answer = actor.request(&mut pair, ExchangeType::IKE_AUTH, &payloads);
    assert_refused(&mut pair, &mut actor, answer);
}

#[test]
fn one_ike_intermediate_too_many_ends_the_attempt() {
    let mut pair = pair();
    let mut actor = Actor::half_open_with(&mut pair, 1, HYBRID, &[INTERMEDIATE]);
    intermediate(&mut pair, &mut actor, KeyExchangeId::ML_KEM_512);
    let exchange = actor.key_exchange(KeyExchangeId::ML_KEM_512);
    let payloads = vec![(PayloadType::KE, ke(&exchange))];
    let answer = actor.request(&mut pair, ExchangeType::IKE_INTERMEDIATE, &payloads);
    assert_refused(&mut pair, &mut actor, answer);
}

#[test]
fn a_repeated_ike_intermediate_is_answered_with_the_same_bytes_and_another_one_is_ignored() {
    let mut pair = pair();
    let mut actor = Actor::half_open_with(&mut pair, 1, HYBRID, &[INTERMEDIATE]);
    let exchange = actor.key_exchange(KeyExchangeId::ML_KEM_512);
    let (first, text) = join(&vec![(PayloadType::KE, ke(&exchange))]);
    let mut seal = |id| actor.seal(ExchangeType::IKE_INTERMEDIATE, false, id, first, &text);
    let (early, request, other) = (seal(2), seal(1), seal(1));
    let before = pair.net.sent();
    pair.inject(Side::B, &early);
    for _ in 0..3 {
        pair.inject(Side::B, &request);
    }
    pair.inject(Side::B, &other);
    let answers = pair.net.from(Side::B, before);
    let answers: Vec<_> = answers.iter().map(|sent| &sent.transmit.bytes).collect();
    assert_eq!(answers.len(), 3);
    assert!(answers.iter().all(|answer| *answer == answers[0]));
    assert_eq!(pair.host(Side::B).discarded(Discard::Retransmission), 2);
    assert_eq!(pair.host(Side::B).discarded(Discard::OutsideWindow), 2);
}

/// A peer whose IKE SA is up, and the link to what it has asked for and not followed up.
fn asked(pair: &mut Pair, seed: u64) -> (Actor, Vec<u8>) {
    let plain = "aes256gcm16-prfsha384-x25519";
    let mut offers = ike_proposals(&[TWICE, HYBRID, plain]);
    pair.setup(Side::B).connection.proposals = std::mem::take(&mut offers);
    pair.restart(Side::B);
    let mut actor = Actor::connect(pair, seed);
    let link = ask(pair, &mut actor);
    (actor, link)
}

/// CREATE_CHILD_SA, as far as the link.
fn ask(pair: &mut Pair, actor: &mut Actor) -> Vec<u8> {
    let mut payloads = actor.create_child(Side::A.network(), Side::B.network());
    let mut proposals = esp_proposals(&[ESP]);
    proposals[0].spi = actor.child_spi.to_be_bytes().to_vec();
    payloads[0].1 = sa(&proposals);
    let answer = actor.request(pair, ExchangeType::CREATE_CHILD_SA, &payloads);
    let answer = answer.expect("an answer");
    assert_eq!(answer.error(), None);
    let mut notifies = answer.payloads.iter();
    let link = notifies.find_map(|(kind, body)| {
        let notify = (*kind == PayloadType::NOTIFY).then(|| Notify::parse(body).unwrap())?;
        (notify.kind == LINK).then(|| notify.data.to_vec())
    });
    link.expect("a link")
}

fn follow_up(pair: &mut Pair, actor: &mut Actor, link: &[u8]) -> Option<NotifyType> {
    let exchange = actor.key_exchange(KeyExchangeId::ML_KEM_512);
    let payloads = vec![(PayloadType::KE, ke(&exchange)), notify(LINK, link)];
    let answer = actor.request(pair, ExchangeType::IKE_FOLLOWUP_KE, &payloads);
    answer.expect("an answer").error()
}

#[test]
fn a_child_is_there_once_it_is_followed_up_and_not_before() {
    let mut pair = pair();
    let (mut actor, link) = asked(&mut pair, 1);
    assert_eq!(pair.children(Side::B).len(), 1);
    assert_eq!(follow_up(&mut pair, &mut actor, &link), None);
    assert_eq!(pair.children(Side::B).len(), 2);
    // The link is used up.
    let again = follow_up(&mut pair, &mut actor, &link);
    assert_eq!(again, Some(NotifyType::STATE_NOT_FOUND));
    assert_eq!(pair.children(Side::B).len(), 2);
}

#[test]
fn a_link_that_is_unknown_or_too_old_is_told_so() {
    let mut pair = pair();
    let (mut actor, link) = asked(&mut pair, 1);
    for odd in [vec![], vec![0; 8], vec![7; 256], link[..7].to_vec()] {
        let answer = follow_up(&mut pair, &mut actor, &odd);
        assert_eq!(answer, Some(NotifyType::STATE_NOT_FOUND), "{odd:02x?}");
    }
    pair.run_for(seconds(21));
    let late = follow_up(&mut pair, &mut actor, &link);
    assert_eq!(late, Some(NotifyType::STATE_NOT_FOUND));
    assert_eq!(pair.children(Side::B).len(), 1);
}

#[test]
fn requests_that_are_never_followed_up_push_each_other_out() {
    let mut pair = pair();
    let (mut actor, first) = asked(&mut pair, 1);
    let last = (0..100).map(|_| ask(&mut pair, &mut actor)).last();
    let answer = follow_up(&mut pair, &mut actor, &first);
    assert_eq!(answer, Some(NotifyType::STATE_NOT_FOUND));
    assert_eq!(follow_up(&mut pair, &mut actor, &last.unwrap()), None);
    assert_eq!(pair.children(Side::B).len(), 2);
    assert_eq!(pair.host(Side::B).plane.counts(), (2, 2));
}

#[test]
fn a_wrong_key_exchange_in_ike_followup_ke_ends_the_ike_sa() {
    let method = KeyExchangeId::ML_KEM_512;
    let mut pair = pair();
    for (seed, payload) in (1..).zip([
        None,
        Some(raw_ke(method, &[0; 799])),
        Some(raw_ke(method, &[0xff; 800])),
        Some(raw_ke(KeyExchangeId::X25519, &[9; 32])),
    ]) {
        let (mut actor, link) = asked(&mut pair, seed);
        let mut payloads = vec![notify(LINK, &link)];
        payloads.extend(payload);
        let answer = actor.request(&mut pair, ExchangeType::IKE_FOLLOWUP_KE, &payloads);
        let error = answer.unwrap().error();
        assert_eq!(error, Some(NotifyType::INVALID_SYNTAX));
        pair.run_for(seconds(1));
        pair.host(Side::B).assert_empty("B");
    }
}

#[test]
fn a_followup_without_a_link_ends_the_ike_sa() {
    let mut pair = pair();
    let (mut actor, _) = asked(&mut pair, 1);
    let exchange = actor.key_exchange(KeyExchangeId::ML_KEM_512);
    for payloads in [
        vec![(PayloadType::KE, ke(&exchange))],
        vec![(PayloadType::KE, ke(&exchange)), notify(LINK, &[1; 257])],
    ] {
        let answer = actor.request(&mut pair, ExchangeType::IKE_FOLLOWUP_KE, &payloads);
        let error = answer.unwrap().error();
        assert_eq!(error, Some(NotifyType::INVALID_SYNTAX));
        pair.run_for(seconds(1));
        pair.host(Side::B).assert_empty("B");
        (actor, _) = asked(&mut pair, 2);
    }
}
