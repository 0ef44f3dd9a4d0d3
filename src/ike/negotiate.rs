//! Choosing among proposals (RFC 7296 §2.7, §3.3), as pure functions.

use crate::crypto::kex::is_supported_group;
use crate::crypto::packet::is_supported;
use crate::crypto::prf::Prf;
use crate::wire::keyword::proposal_text;
use crate::wire::proposal::{
    CipherSuite, EspSuite, IkeSuite, IntegrityId, KeyExchangeId, ProtocolId, SaProposal, Transform,
};

/// What a responder answers an offer with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Choice<S> {
    /// Number of the proposal in the offer.
    pub(super) number: u8,
    /// The proposal, reduced to one transform of each type; its SPI is the offerer's.
    pub(super) proposal: SaProposal,
    /// The same as a value.
    pub(super) suite: S,
}

/// No proposal is acceptable. Shows both sides of the comparison.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no common {missing}: peer sent [{remote}], we have [{local}]")]
pub(super) struct ProposalMismatch {
    missing: &'static str,
    remote: String,
    local: String,
}

/// Chooses the suite of an IKE SA: our order decides, except that `sent`, the method of the KE
/// payload that is already here, is preferred to another round trip.
pub(super) fn choose_ike(
    configured: &[SaProposal],
    offered: &[(u8, SaProposal)],
    sent: Option<KeyExchangeId>,
) -> Result<Choice<IkeSuite>, ProposalMismatch> {
    let chosen = choose(ProtocolId::Ike, configured, offered, sent, true)?;
    let suite = ike_suite(&chosen.1)
        .ok_or_else(|| ProposalMismatch::new("complete suite", configured, offered))?;
    Ok(Choice {
        number: chosen.0,
        proposal: chosen.1,
        suite,
    })
}

/// Chooses the suite of a Child SA. In IKE_AUTH there is no key exchange (`with_exchange` is
/// false), so its transforms are ignored on both sides (RFC 7296 §1.2).
pub(super) fn choose_esp(
    configured: &[SaProposal],
    offered: &[(u8, SaProposal)],
    sent: Option<KeyExchangeId>,
    with_exchange: bool,
) -> Result<Choice<EspSuite>, ProposalMismatch> {
    let chosen = choose(ProtocolId::Esp, configured, offered, sent, with_exchange)?;
    let suite = esp_suite(&chosen.1)
        .ok_or_else(|| ProposalMismatch::new("complete suite", configured, offered))?;
    Ok(Choice {
        number: chosen.0,
        proposal: chosen.1,
        suite,
    })
}

/// Checks a responder's answer: one proposal, each of its transforms was offered under its number.
pub(super) fn check_answer<'a>(
    offered: &[SaProposal],
    answer: &'a [(u8, SaProposal)],
) -> Option<&'a SaProposal> {
    let [(number, answer)] = answer else {
        return None;
    };
    let offer = offered.get(usize::from(*number).checked_sub(1)?)?;
    let from_offer = answer.protocol == offer.protocol
        && answer
            .transforms
            .iter()
            .all(|transform| offer.transforms.contains(transform) || is_absence(*transform));
    let kinds: Vec<u8> = answer.transforms.iter().map(kind).collect();
    let once = kinds
        .iter()
        .all(|one| kinds.iter().filter(|k| *k == one).count() == 1);
    (from_offer && once).then_some(answer)
}

/// The suite of a proposal with one transform of each type, if it is complete and we have it all.
pub(super) fn ike_suite(proposal: &SaProposal) -> Option<IkeSuite> {
    let suite = IkeSuite {
        cipher: cipher(proposal)?,
        prf: proposal
            .transforms
            .iter()
            .find_map(|transform| match transform {
                Transform::Prf(id) => Some(*id),
                _ => None,
            })?,
        key_exchange: exchange(proposal)?,
    };
    Prf::new(suite.prf)?;
    let usable = !suite.cipher.encryption.is_esp_only();
    (usable && is_supported(&suite.cipher) && is_supported_group(suite.key_exchange))
        .then_some(suite)
}

/// The same for ESP.
pub(super) fn esp_suite(proposal: &SaProposal) -> Option<EspSuite> {
    let suite = EspSuite {
        cipher: cipher(proposal)?,
        key_exchange: exchange(proposal),
        esn: proposal
            .transforms
            .contains(&Transform::SequenceNumbers { extended: true }),
    };
    let group = suite.key_exchange.is_none_or(is_supported_group);
    (group && is_supported(&suite.cipher)).then_some(suite)
}

/// The methods that proposals offer, in order, each once.
pub(super) fn exchanges(proposals: &[SaProposal]) -> Vec<KeyExchangeId> {
    let mut methods = Vec::new();
    for transform in proposals.iter().flat_map(|proposal| &proposal.transforms) {
        if let Transform::KeyExchange(id) = transform
            && *id != KeyExchangeId::NONE
            && is_supported_group(*id)
            && !methods.contains(id)
        {
            methods.push(*id);
        }
    }
    methods
}

/// Proposals as they are sent: with our SPI, and in IKE_AUTH without key exchange.
pub(super) fn offer(proposals: &[SaProposal], spi: &[u8], with_exchange: bool) -> Vec<SaProposal> {
    let mut offer: Vec<SaProposal> = Vec::with_capacity(proposals.len());
    for proposal in proposals {
        let mut proposal = proposal.clone();
        proposal.spi = spi.to_vec();
        if !with_exchange {
            proposal
                .transforms
                .retain(|transform| kind(transform) != KEY_EXCHANGE);
        }
        if proposal.protocol == ProtocolId::Esp && !has(&proposal, SEQUENCE_NUMBERS) {
            proposal
                .transforms
                .push(Transform::SequenceNumbers { extended: false });
        }
        if !offer.contains(&proposal) {
            offer.push(proposal);
        }
    }
    offer
}

/// What is left of proposals if the cipher and the kind of sequence numbers are to be those of a
/// suite.
pub(super) fn alike(proposals: &[SaProposal], suite: &EspSuite) -> Vec<SaProposal> {
    let fits = |transform: &Transform| match transform {
        Transform::Encryption { id, key_bits } => {
            *id == suite.cipher.encryption && key_bits.unwrap_or(0) == suite.cipher.key_bits
        }
        Transform::Integrity(id) => suite.cipher.integrity.unwrap_or(IntegrityId::NONE) == *id,
        Transform::SequenceNumbers { extended } => *extended == suite.esn,
        _ => true,
    };
    let mut left = Vec::new();
    for proposal in proposals {
        let mut reduced = proposal.clone();
        reduced.transforms.retain(fits);
        let same_numbers =
            has(&reduced, SEQUENCE_NUMBERS) || (!suite.esn && !has(proposal, SEQUENCE_NUMBERS));
        if cipher(&reduced) == Some(suite.cipher) && same_numbers && !left.contains(&reduced) {
            left.push(reduced);
        }
    }
    left
}

fn choose(
    protocol: ProtocolId,
    configured: &[SaProposal],
    offered: &[(u8, SaProposal)],
    sent: Option<KeyExchangeId>,
    with_exchange: bool,
) -> Result<(u8, SaProposal), ProposalMismatch> {
    let mut furthest = 0;
    let mut missing = "protocol";
    let ours = configured.iter().filter(|own| own.protocol == protocol);
    for own in ours {
        let theirs = offered
            .iter()
            .filter(|(_, offer)| offer.protocol == protocol);
        for (number, offer) in theirs {
            // A transform type that we do not know would change what the SA is (RFC 7296 §3.3.6).
            let strange =
                |transform: &Transform| !(ENCRYPTION..=SEQUENCE_NUMBERS).contains(&kind(transform));
            if offer.transforms.iter().any(strange) {
                continue;
            }
            match choose_one(own, offer, sent, with_exchange) {
                Ok(proposal) => return Ok((*number, proposal)),
                Err((progress, name)) if progress > furthest => {
                    (furthest, missing) = (progress, name)
                }
                Err(_) => {}
            }
        }
    }
    Err(ProposalMismatch::new(missing, configured, offered))
}

/// The intersection of two proposals, or how far the comparison came.
fn choose_one(
    own: &SaProposal,
    offer: &SaProposal,
    sent: Option<KeyExchangeId>,
    with_exchange: bool,
) -> Result<SaProposal, (u8, &'static str)> {
    let common = |wanted: u8| {
        let ours = own
            .transforms
            .iter()
            .copied()
            .filter(move |t| kind(t) == wanted);
        ours.filter(|transform| offer.transforms.contains(transform))
    };
    let encryption = common(ENCRYPTION)
        .next()
        .ok_or((1, "encryption algorithm"))?;
    let mut transforms = vec![encryption];
    let aead = matches!(encryption, Transform::Encryption { id, .. } if id.is_aead());
    if own.protocol == ProtocolId::Ike {
        transforms.push(common(PRF).next().ok_or((2, "pseudorandom function"))?);
    }
    if !aead {
        let real = |t: &Transform| *t != Transform::Integrity(IntegrityId::NONE);
        let integrity = common(INTEGRITY)
            .find(real)
            .ok_or((3, "integrity algorithm"))?;
        transforms.push(integrity);
    } else if has(offer, INTEGRITY)
        && !offer
            .transforms
            .contains(&Transform::Integrity(IntegrityId::NONE))
    {
        return Err((3, "integrity algorithm"));
    }
    if with_exchange {
        transforms.extend(choose_exchange(own, offer, sent).ok_or((4, "key exchange method"))?);
    }
    if own.protocol == ProtocolId::Esp {
        let plain = Transform::SequenceNumbers { extended: false };
        let chosen = match (has(own, SEQUENCE_NUMBERS), has(offer, SEQUENCE_NUMBERS)) {
            (true, true) => common(SEQUENCE_NUMBERS).next(),
            (true, false) => own.transforms.contains(&plain).then_some(plain),
            (false, true) => offer.transforms.contains(&plain).then_some(plain),
            (false, false) => Some(plain),
        };
        let chosen = chosen.ok_or((5, "kind of sequence numbers"))?;
        if has(offer, SEQUENCE_NUMBERS) {
            transforms.push(chosen);
        }
    }
    Ok(SaProposal {
        protocol: own.protocol,
        spi: offer.spi.clone(),
        transforms,
    })
}

/// `Some(None)`: agreed on none.
fn choose_exchange(
    own: &SaProposal,
    offer: &SaProposal,
    sent: Option<KeyExchangeId>,
) -> Option<Option<Transform>> {
    let none = Transform::KeyExchange(KeyExchangeId::NONE);
    let optional = |p: &SaProposal| !has(p, KEY_EXCHANGE) || p.transforms.contains(&none);
    let ours = || {
        own.transforms
            .iter()
            .copied()
            .filter(|t| kind(t) == KEY_EXCHANGE && *t != none)
    };
    let mut common = ours().filter(|transform| offer.transforms.contains(transform));
    let already = sent.map(Transform::KeyExchange);
    if let Some(already) = already
        .filter(|already| ours().any(|t| t == *already) && offer.transforms.contains(already))
    {
        return Some(Some(already));
    }
    if let Some(first) = common.next() {
        return Some(Some(first));
    }
    let both_optional = optional(own) && optional(offer) && own.protocol == ProtocolId::Esp;
    both_optional.then(|| offer.transforms.contains(&none).then_some(none))
}

fn cipher(proposal: &SaProposal) -> Option<CipherSuite> {
    let (encryption, key_bits) =
        proposal
            .transforms
            .iter()
            .find_map(|transform| match transform {
                Transform::Encryption { id, key_bits } => Some((*id, key_bits.unwrap_or(0))),
                _ => None,
            })?;
    let integrity = proposal
        .transforms
        .iter()
        .find_map(|transform| match transform {
            Transform::Integrity(id) if *id != IntegrityId::NONE => Some(*id),
            _ => None,
        });
    Some(CipherSuite {
        encryption,
        key_bits,
        integrity,
    })
}

fn exchange(proposal: &SaProposal) -> Option<KeyExchangeId> {
    proposal
        .transforms
        .iter()
        .find_map(|transform| match transform {
            Transform::KeyExchange(id) if *id != KeyExchangeId::NONE => Some(*id),
            _ => None,
        })
}

fn has(proposal: &SaProposal, wanted: u8) -> bool {
    proposal
        .transforms
        .iter()
        .any(|transform| kind(transform) == wanted)
}

/// Says the same as leaving the transform out.
fn is_absence(transform: Transform) -> bool {
    matches!(
        transform,
        Transform::Integrity(IntegrityId::NONE)
            | Transform::KeyExchange(KeyExchangeId::NONE)
            | Transform::SequenceNumbers { extended: false }
    )
}

fn kind(transform: &Transform) -> u8 {
    match transform {
        Transform::Encryption { .. } => ENCRYPTION,
        Transform::Prf(_) => PRF,
        Transform::Integrity(_) => INTEGRITY,
        Transform::KeyExchange(_) => KEY_EXCHANGE,
        Transform::SequenceNumbers { .. } => SEQUENCE_NUMBERS,
        Transform::Unknown { kind, .. } => *kind,
    }
}

impl ProposalMismatch {
    fn new(missing: &'static str, local: &[SaProposal], remote: &[(u8, SaProposal)]) -> Self {
        let remote = remote.iter().map(|(_, proposal)| proposal);
        Self {
            missing,
            remote: proposal_texts(remote),
            local: proposal_texts(local),
        }
    }
}

/// Proposals for a log, which a hostile offer must not fill.
pub(super) fn proposal_texts<'a>(proposals: impl IntoIterator<Item = &'a SaProposal>) -> String {
    let texts: Vec<String> = proposals.into_iter().take(8).map(proposal_text).collect();
    let mut text = texts.join(", ");
    if let Some((cut, _)) = text.char_indices().nth(400) {
        text.truncate(cut);
        text.push('…');
    }
    text
}

const ENCRYPTION: u8 = 1;
const PRF: u8 = 2;
const INTEGRITY: u8 = 3;
const KEY_EXCHANGE: u8 = 4;
const SEQUENCE_NUMBERS: u8 = 5;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::keyword::parse_proposal;
    use crate::wire::proposal::{EncryptionId, PrfId};

    fn ike(text: &str) -> SaProposal {
        parse_proposal(ProtocolId::Ike, text).expect("a proposal")
    }

    fn esp(text: &str) -> SaProposal {
        parse_proposal(ProtocolId::Esp, text).expect("a proposal")
    }

    fn numbered(proposals: &[SaProposal]) -> Vec<(u8, SaProposal)> {
        (1..).zip(proposals.iter().cloned()).collect()
    }

    #[test]
    fn our_order_decides_between_common_suites() {
        let ours = [
            ike("aes256gcm16-prfsha384-x25519"),
            ike("aes128-sha256-modp2048"),
        ];
        let theirs = [
            ike("aes128-sha256-modp2048"),
            ike("aes128gcm16-aes256gcm16-prfsha256-prfsha384-ecp256-x25519"),
        ];
        let choice = choose_ike(&ours, &numbered(&theirs), None).expect("a choice");
        assert_eq!(choice.number, 2);
        assert_eq!(choice.suite.cipher.key_bits, 256);
        assert_eq!(choice.suite.prf, PrfId::HMAC_SHA2_384);
        assert_eq!(choice.suite.key_exchange, KeyExchangeId::X25519);
        assert_eq!(
            check_answer(&theirs, &[(2, choice.proposal.clone())]),
            Some(&choice.proposal)
        );
        assert_eq!(check_answer(&theirs, &[(1, choice.proposal)]), None);
    }

    #[test]
    fn an_acceptable_method_that_was_sent_saves_a_round_trip() {
        let ours = [ike("aes256gcm16-prfsha384-x25519-ecp256")];
        let theirs = numbered(&ours);
        let choice = choose_ike(&ours, &theirs, Some(KeyExchangeId::ECP256)).expect("a choice");
        assert_eq!(choice.suite.key_exchange, KeyExchangeId::ECP256);
        let choice = choose_ike(&ours, &theirs, Some(KeyExchangeId::MODP2048)).expect("a choice");
        assert_eq!(choice.suite.key_exchange, KeyExchangeId::X25519);
    }

    #[test]
    fn a_mismatch_names_the_transform_and_both_sides() {
        let ours = [ike("aes256gcm16-prfsha384-x25519")];
        let theirs = numbered(&[ike("aes256gcm16-prfsha384-modp2048")]);
        let error = choose_ike(&ours, &theirs, None).expect_err("no common method");
        let text = error.to_string();
        assert!(text.contains("no common key exchange method"), "{text}");
        assert!(
            text.contains("modp2048") && text.contains("x25519"),
            "{text}"
        );
    }

    #[test]
    fn ike_auth_negotiates_esp_without_key_exchange() {
        let ours = [esp("aes256gcm16-x25519-esn-noesn")];
        let theirs = numbered(&offer(
            &[esp("aes256gcm16-modp2048-noesn")],
            &[1, 2, 3, 4],
            false,
        ));
        let choice = choose_esp(&ours, &theirs, None, false).expect("a choice");
        assert_eq!(choice.suite.key_exchange, None);
        assert!(!choice.suite.esn);
        assert_eq!(choice.proposal.spi, [1, 2, 3, 4]);
        assert!(choose_esp(&ours, &theirs, None, true).is_err());
    }

    #[test]
    fn sequence_numbers_are_short_unless_both_want_long_ones() {
        for (ours, theirs, esn) in [
            ("aes256gcm16-esn-noesn", "aes256gcm16-esn-noesn", Some(true)),
            ("aes256gcm16-esn", "aes256gcm16-noesn", None),
            ("aes256gcm16-noesn", "aes256gcm16-esn-noesn", Some(false)),
        ] {
            let choice = choose_esp(&[esp(ours)], &numbered(&[esp(theirs)]), None, false);
            assert_eq!(
                choice.ok().map(|choice| choice.suite.esn),
                esn,
                "{ours} {theirs}"
            );
        }
    }

    #[test]
    fn an_unknown_transform_type_refuses_the_proposal_but_an_unknown_id_does_not() {
        let ours = [ike("aes256gcm16-prfsha384-x25519")];
        let mut theirs = ours[0].clone();
        theirs
            .transforms
            .push(Transform::Unknown { kind: 4, id: 999 });
        assert!(choose_ike(&ours, &[(1, theirs.clone())], None).is_ok());
        theirs
            .transforms
            .push(Transform::Unknown { kind: 6, id: 1 });
        assert!(choose_ike(&ours, &[(1, theirs)], None).is_err());
    }

    #[test]
    fn an_implicit_iv_is_not_the_explicit_one_and_not_for_ike() {
        let both = numbered(&[esp("aes256gcm16iiv-aes256gcm16-noesn")]);
        let choice =
            |own: &str| choose_esp(&[esp(own)], &both, None, false).map(|choice| choice.suite);
        let [implicit, explicit] = ["aes256gcm16iiv-noesn", "aes256gcm16-noesn"]
            .map(|own| choice(own).expect("one of theirs").cipher.encryption);
        assert_eq!(implicit, EncryptionId::AES_GCM_16_IIV);
        assert_eq!(explicit, EncryptionId::AES_GCM_16);

        let only_implicit = numbered(&[esp("aes256gcm16iiv-noesn")]);
        assert!(choose_esp(&[esp("aes256gcm16-noesn")], &only_implicit, None, false).is_err());

        // Whatever a peer picks, there is no IKE suite with it.
        let mut proposal = ike("aes256gcm16-prfsha256-x25519");
        assert!(ike_suite(&proposal).is_some());
        for transform in &mut proposal.transforms {
            if let Transform::Encryption { id, .. } = transform {
                *id = EncryptionId::AES_GCM_16_IIV;
            }
        }
        assert_eq!(ike_suite(&proposal), None);
    }

    #[test]
    fn an_answer_may_not_repeat_or_invent_transforms() {
        let offer = [ike("aes256gcm16-prfsha384-x25519-ecp256")];
        let answer = ike("aes256gcm16-prfsha384-x25519-ecp256");
        assert_eq!(check_answer(&offer, &[(1, answer)]), None);
        let answer = ike("aes128gcm16-prfsha384-x25519");
        assert_eq!(check_answer(&offer, &[(1, answer)]), None);
        assert_eq!(check_answer(&offer, &[]), None);
    }
}
