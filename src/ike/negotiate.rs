//! Choosing among proposals (RFC 7296 §2.7, §3.3), as pure functions.

mod exchanges;

use crate::crypto::kex::is_supported_group;
use crate::crypto::packet::is_supported;
use crate::crypto::prf::Prf;
use crate::wire::keyword::proposal_text;
use crate::wire::proposal::{
    CipherSuite, EspSuite, IkeSuite, IntegrityId, KeyExchangeId, ProtocolId, SaProposal, Transform,
};

use exchanges::{additional, are_distinct, choose_exchanges, is_additional};
pub(super) use exchanges::{has_additional, single_exchange};

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

/// Checks a responder's answer: one proposal, each of its transforms was offered under its number,
/// and each additional key exchange that we insist on is there.
pub(super) fn check_answer<'a>(
    offered: &[SaProposal],
    answer: &'a [(u8, SaProposal)],
) -> Option<&'a SaProposal> {
    let [(number, answer)] = answer else {
        return None;
    };
    let offer = offered.get(usize::from(*number).checked_sub(1)?)?;
    // An additional key exchange is left out only where that was offered.
    let may_be_left_out = |t: &Transform| is_absence(*t) && !is_additional(t);
    let from_offer = answer.protocol == offer.protocol
        && answer
            .transforms
            .iter()
            .all(|transform| offer.transforms.contains(transform) || may_be_left_out(transform));
    let kinds: Vec<u8> = answer.transforms.iter().map(Transform::kind).collect();
    let once = kinds
        .iter()
        .all(|one| kinds.iter().filter(|k| *k == one).count() == 1);
    let complete = offer.transforms.iter().all(|transform| {
        let kind = transform.kind();
        !is_additional(transform)
            || kinds.contains(&kind)
            || offer
                .transforms
                .iter()
                .any(|t| t.kind() == kind && is_absence(*t))
    });
    (from_offer && once && complete && are_distinct(answer)).then_some(answer)
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
        additional: additional(proposal)?,
    };
    Prf::new(suite.prf)?;
    let usable = !suite.cipher.encryption.is_esp_only();
    (usable && is_supported(&suite.cipher) && is_supported_group(suite.key_exchange))
        .then_some(suite)
}

/// A proposal of which [`ike_suite`] makes this suite.
pub(super) fn proposal_of(suite: &IkeSuite) -> SaProposal {
    let CipherSuite {
        encryption: id,
        key_bits,
        integrity,
    } = suite.cipher;
    let key_bits = Some(key_bits).filter(|bits| *bits > 0);
    let cipher = [Transform::Encryption { id, key_bits }];
    let rest = [
        Transform::Prf(suite.prf),
        Transform::KeyExchange(suite.key_exchange),
    ];
    let additional = suite.additional.iter();
    let additional =
        additional.map(|(number, method)| Transform::AdditionalKeyExchange { number, method });
    let transforms = cipher
        .into_iter()
        .chain(integrity.map(Transform::Integrity));
    SaProposal {
        protocol: ProtocolId::Ike,
        spi: Vec::new(),
        transforms: transforms.chain(rest).chain(additional).collect(),
    }
}

/// The same for ESP.
pub(super) fn esp_suite(proposal: &SaProposal) -> Option<EspSuite> {
    let suite = EspSuite {
        cipher: cipher(proposal)?,
        key_exchange: exchange(proposal),
        additional: additional(proposal)?,
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
                .retain(|transform| transform.kind() != KEY_EXCHANGE && !is_additional(transform));
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
                |transform: &Transform| !(ENCRYPTION..=LAST_KNOWN).contains(&transform.kind());
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
            .filter(move |t| t.kind() == wanted);
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
        transforms.extend(choose_exchanges(own, offer, sent)?);
    }
    if own.protocol == ProtocolId::Esp {
        let plain = Transform::SequenceNumbers { extended: false };
        let chosen = match (has(own, SEQUENCE_NUMBERS), has(offer, SEQUENCE_NUMBERS)) {
            (true, true) => common(SEQUENCE_NUMBERS).next(),
            (true, false) => own.transforms.contains(&plain).then_some(plain),
            (false, true) => offer.transforms.contains(&plain).then_some(plain),
            (false, false) => Some(plain),
        };
        let chosen = chosen.ok_or((6, "kind of sequence numbers"))?;
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
        .any(|transform| transform.kind() == wanted)
}

/// Says the same as leaving the transform out.
fn is_absence(transform: Transform) -> bool {
    matches!(
        transform,
        Transform::Integrity(IntegrityId::NONE)
            | Transform::KeyExchange(KeyExchangeId::NONE)
            | Transform::AdditionalKeyExchange {
                method: KeyExchangeId::NONE,
                ..
            }
            | Transform::SequenceNumbers { extended: false }
    )
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
const LAST_KNOWN: u8 = 12;

#[cfg(test)]
mod tests;
