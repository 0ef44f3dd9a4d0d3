//! Choosing key exchanges, the additional ones too (RFC 9370 §2.2.1).

use crate::crypto::kex::is_supported_group;
use crate::wire::proposal::{
    AdditionalExchanges, KeyExchangeId, ProtocolId, SaProposal, Transform,
};

use super::{KEY_EXCHANGE, has};

/// What two proposals have in common, or how far the comparison came. No method is chosen twice: if
/// need be, a later one of ours has to do.
pub(super) fn choose_exchanges(
    own: &SaProposal,
    offer: &SaProposal,
    sent: Option<KeyExchangeId>,
) -> Result<Vec<Transform>, (u8, &'static str)> {
    let first = choose_first(own, offer, sent);
    if first.is_empty() {
        return Err((4, "key exchange method"));
    }
    let is_single = |p: &SaProposal| !p.transforms.iter().any(is_additional);
    if is_single(own) && is_single(offer) {
        return Ok(first.into_iter().take(1).flatten().collect());
    }
    let chosen = first.into_iter().find_map(|first| {
        let mut chosen: Vec<Transform> = first.into_iter().collect();
        choose_additional(own, offer, 1, &mut chosen).then_some(chosen)
    });
    chosen.ok_or((5, "additional key exchange"))
}

/// The possible key exchanges of transform type 4, best first; `None` stands for agreed on none.
fn choose_first(
    own: &SaProposal,
    offer: &SaProposal,
    sent: Option<KeyExchangeId>,
) -> Vec<Option<Transform>> {
    let none = Transform::KeyExchange(KeyExchangeId::NONE);
    let optional = |p: &SaProposal| !has(p, KEY_EXCHANGE) || p.transforms.contains(&none);
    let ours = own.transforms.iter().copied();
    let common = ours.filter(|t| t.kind() == KEY_EXCHANGE && *t != none);
    let mut common: Vec<_> = common
        .filter(|transform| offer.transforms.contains(transform))
        .map(Some)
        .collect();
    let already = sent.map(Transform::KeyExchange);
    common.sort_by_key(|transform| already.is_none() || *transform != already);
    if optional(own) && optional(offer) && own.protocol == ProtocolId::Esp {
        common.push(offer.transforms.contains(&none).then_some(none));
    }
    common
}

/// Adds the additional exchanges from `number` on; false if that cannot be done.
fn choose_additional(
    own: &SaProposal,
    offer: &SaProposal,
    number: u8,
    chosen: &mut Vec<Transform>,
) -> bool {
    if usize::from(number) > AdditionalExchanges::COUNT {
        return true;
    }
    let (ours, theirs) = (methods(own, number), methods(offer, number));
    // A type that is not offered is as if NONE were offered, and is not answered.
    let answered = is_offered(offer, number);
    for method in ours.into_iter().filter(|method| theirs.contains(method)) {
        let is_none = method == KeyExchangeId::NONE;
        if !is_none && (!follows_another(chosen) || uses(chosen, method)) {
            continue;
        }
        let before = chosen.len();
        if answered {
            chosen.push(Transform::AdditionalKeyExchange { number, method });
        }
        if choose_additional(own, offer, number + 1, chosen) {
            return true;
        }
        chosen.truncate(before);
    }
    false
}

/// The methods for one additional exchange that we have.
fn methods(proposal: &SaProposal, number: u8) -> Vec<KeyExchangeId> {
    let of_number = |transform: &Transform| match transform {
        Transform::AdditionalKeyExchange { number: n, method } if *n == number => Some(*method),
        _ => None,
    };
    if !is_offered(proposal, number) {
        return vec![KeyExchangeId::NONE];
    }
    let all = proposal.transforms.iter().filter_map(of_number);
    all.filter(|method| *method == KeyExchangeId::NONE || is_supported_group(*method))
        .collect()
}

fn is_offered(proposal: &SaProposal, number: u8) -> bool {
    let mut transforms = proposal.transforms.iter();
    transforms
        .any(|t| matches!(t, Transform::AdditionalKeyExchange { number: n, .. } if *n == number))
}

fn follows_another(chosen: &[Transform]) -> bool {
    chosen.iter().any(|transform| {
        matches!(transform, Transform::KeyExchange(method) if *method != KeyExchangeId::NONE)
    })
}

fn uses(chosen: &[Transform], wanted: KeyExchangeId) -> bool {
    chosen.iter().filter_map(method).any(|used| used == wanted)
}

fn method(transform: &Transform) -> Option<KeyExchangeId> {
    match transform {
        Transform::KeyExchange(method) | Transform::AdditionalKeyExchange { method, .. } => {
            Some(*method).filter(|method| *method != KeyExchangeId::NONE)
        }
        _ => None,
    }
}

/// Whether an answer names no method twice.
pub(super) fn are_distinct(answer: &SaProposal) -> bool {
    let used: Vec<_> = answer.transforms.iter().filter_map(method).collect();
    used.iter()
        .all(|one| used.iter().filter(|other| *other == one).count() == 1)
}

/// The additional exchanges of an answer; `None` if we do not have them all, or if they follow none.
pub(super) fn additional(answer: &SaProposal) -> Option<AdditionalExchanges> {
    let mut exchanges = AdditionalExchanges::NONE;
    for transform in &answer.transforms {
        if let Transform::AdditionalKeyExchange { number, method } = *transform {
            exchanges.set(number, method);
        }
    }
    let supported = exchanges
        .iter()
        .all(|(_, method)| is_supported_group(method));
    let follow = exchanges.is_empty() || follows_another(&answer.transforms);
    (supported && follow).then_some(exchanges)
}

pub(super) fn is_additional(transform: &Transform) -> bool {
    matches!(transform, Transform::AdditionalKeyExchange { .. })
}

/// Whether anything may follow the first key exchange of an offer.
pub(in crate::ike) fn has_additional(offer: &[SaProposal]) -> bool {
    let mut transforms = offer.iter().flat_map(|proposal| &proposal.transforms);
    transforms.any(is_additional)
}

/// What is left of an offer where nothing can follow the first key exchange.
pub(in crate::ike) fn single_exchange(offered: &[(u8, SaProposal)]) -> Vec<(u8, SaProposal)> {
    let is_possible = |transform: &Transform| match transform {
        Transform::AdditionalKeyExchange { method, .. } => *method == KeyExchangeId::NONE,
        _ => true,
    };
    let reduced = offered.iter().filter_map(|(number, proposal)| {
        let mut reduced = proposal.clone();
        reduced.transforms.retain(is_possible);
        let all = proposal.transforms.iter();
        let complete = all.map(Transform::kind).all(|kind| has(&reduced, kind));
        complete.then_some((*number, reduced))
    });
    reduced.collect()
}
