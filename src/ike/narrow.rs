//! Narrowing of traffic selectors (RFC 7296 §2.9), as pure functions.

use std::fmt::Write as _;
use std::sync::Arc;

use crate::ipsec::Selectors;
use crate::wire::ip::Flow;
use crate::wire::selector::TrafficSelector;

use super::Path;
use super::pad::{ChildConfig, SelectorConfig};

/// No configured child covers anything of what the peer asked for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no child has selectors in common with {local} === {remote}; we have {configured}")]
pub(super) struct SelectorMismatch {
    local: String,
    remote: String,
    configured: String,
}

/// Where an IKE SA goes, and what `dynamic` stands for on either side of it.
#[derive(Clone, Debug)]
pub(super) struct Ends {
    pub(super) path: Path,
    pub(super) local: Vec<TrafficSelector>,
    pub(super) remote: Vec<TrafficSelector>,
}

/// A child's selectors with `dynamic` resolved.
pub(super) fn configured(child: &ChildConfig, ends: &Ends) -> Selectors {
    let resolve = |list: &[SelectorConfig], dynamic: &[TrafficSelector]| {
        let resolved = list.iter().flat_map(|ts| ts.resolve(dynamic));
        resolved.collect::<Vec<_>>()
    };
    Selectors {
        local: resolve(&child.local_ts, &ends.local),
        remote: resolve(&child.remote_ts, &ends.remote),
    }
}

/// What an initiator asks for: the packet that started it first, then all that is configured.
pub(super) fn wanted(child: &ChildConfig, ends: &Ends, flow: Option<&Flow>) -> Selectors {
    with_flow(configured(child, ends), flow)
}

/// Selectors with a packet that they cover in front.
pub(super) fn with_flow(mut selectors: Selectors, flow: Option<&Flow>) -> Selectors {
    if let Some((local, remote)) = flow.and_then(flow_selectors)
        && covers(&selectors.local, &local)
        && covers(&selectors.remote, &remote)
    {
        selectors.local.insert(0, local);
        selectors.remote.insert(0, remote);
    }
    selectors
}

/// The addresses of a packet, as far as the child covers them, for a peer that wants each pair of
/// addresses in a Child SA of its own (SINGLE_PAIR_REQUIRED, RFC 7296 §2.9).
pub(super) fn single_pair(child: &ChildConfig, ends: &Ends, flow: &Flow) -> Option<Selectors> {
    let own = configured(child, ends);
    let pair = Selectors {
        local: intersect(&own.local, &[TrafficSelector::host(flow.src)]),
        remote: intersect(&own.remote, &[TrafficSelector::host(flow.dst)]),
    };
    is_usable(&pair).then_some(pair)
}

/// Whether other children than the chosen one cover something of what was asked for too
/// (ADDITIONAL_TS_POSSIBLE, RFC 7296 §2.9).
pub(super) fn has_more(
    children: &[Arc<ChildConfig>],
    ends: &Ends,
    asked: &Selectors,
    (chosen, granted): (&ChildConfig, &Selectors),
) -> bool {
    let mut others = children
        .iter()
        .filter(|child| child.mode.protects() && child.reqid != chosen.reqid);
    others.any(|child| {
        let own = configured(child, ends);
        let common = Selectors {
            local: intersect(&own.local, &asked.local),
            remote: intersect(&own.remote, &asked.remote),
        };
        is_usable(&common) && !is_narrowing(granted, &common)
    })
}

/// Chooses the child that a peer's selectors mean, and narrows them to it. `asked` is seen from
/// here: its `local` is our side.
///
/// A child that covers the first, specific pair (RFC 7296 §2.9) is better than one that does not,
/// one that covers everything asked for better than one that narrows, and an earlier one better
/// than a later one.
pub(super) fn choose_child<'a>(
    children: &'a [Arc<ChildConfig>],
    ends: &Ends,
    asked: &Selectors,
) -> Result<(&'a Arc<ChildConfig>, Selectors), SelectorMismatch> {
    let mut best: Option<((bool, bool), &Arc<ChildConfig>, Selectors)> = None;
    for child in children.iter().filter(|child| child.mode.protects()) {
        let own = configured(child, ends);
        let narrowed = Selectors {
            local: intersect(&own.local, &asked.local),
            remote: intersect(&own.remote, &asked.remote),
        };
        if !is_usable(&narrowed) {
            continue;
        }
        let first = |asked: &[TrafficSelector], own: &[TrafficSelector]| {
            asked.first().is_some_and(|first| covers(own, first))
        };
        let rank = (
            first(&asked.local, &own.local) && first(&asked.remote, &own.remote),
            within(&asked.local, &own.local) && within(&asked.remote, &own.remote),
        );
        if best.as_ref().is_none_or(|(known, ..)| rank > *known) {
            best = Some((rank, child, narrowed));
        }
    }
    let (_, child, narrowed) = best.ok_or_else(|| mismatch(children, ends, asked))?;
    Ok((child, narrowed))
}

/// Whether a responder only narrowed what it was asked, and left something.
pub(super) fn is_narrowing(asked: &Selectors, answer: &Selectors) -> bool {
    is_usable(answer)
        && within(&answer.local, &asked.local)
        && within(&answer.remote, &asked.remote)
}

/// `10.1.0.0/24 10.2.0.0/24`
pub(super) fn text(list: &[TrafficSelector]) -> String {
    let mut text = String::new();
    for (number, selector) in list.iter().take(16).enumerate() {
        let between = if number > 0 { " " } else { "" };
        write!(text, "{between}{selector}").expect("a String takes everything");
    }
    if list.len() > 16 {
        text.push_str(" …");
    }
    text
}

/// There is a packet that fits both sides: of one address family and one protocol.
fn is_usable(selectors: &Selectors) -> bool {
    selectors.local.iter().any(|local| {
        let mut remotes = selectors.remote.iter();
        remotes.any(|remote| {
            let any = local.protocol() == 0 || remote.protocol() == 0;
            remote.is_ipv6() == local.is_ipv6() && (any || local.protocol() == remote.protocol())
        })
    })
}

fn intersect(own: &[TrafficSelector], asked: &[TrafficSelector]) -> Vec<TrafficSelector> {
    let mut result: Vec<TrafficSelector> = Vec::new();
    for one in asked.iter().take(MAX_SELECTORS) {
        for common in own.iter().filter_map(|own| own.intersect(one)) {
            if covers(&result, &common) || result.len() >= MAX_SELECTORS {
                continue;
            }
            result.retain(|known| !known.is_subset_of(&common));
            result.push(common);
        }
    }
    result
}

fn within(inner: &[TrafficSelector], outer: &[TrafficSelector]) -> bool {
    inner.iter().all(|one| covers(outer, one))
}

fn covers(list: &[TrafficSelector], one: &TrafficSelector) -> bool {
    list.iter().any(|known| one.is_subset_of(known))
}

/// The packet as a pair of selectors; ports only where they were visible.
fn flow_selectors(flow: &Flow) -> Option<(TrafficSelector, TrafficSelector)> {
    let is_icmp = matches!(flow.protocol, 1 | 58);
    let (local, remote) = match flow.ports {
        // Type and code of an ICMP message belong to both sides (RFC 7296 §3.13.1).
        Some((icmp, _)) if is_icmp => (icmp..=icmp, icmp..=icmp),
        Some((source, destination)) => (source..=source, destination..=destination),
        None => (0..=u16::MAX, 0..=u16::MAX),
    };
    let source = TrafficSelector::host(flow.src).with_ports(flow.protocol, local);
    let destination = TrafficSelector::host(flow.dst).with_ports(flow.protocol, remote);
    Some((source.ok()?, destination.ok()?))
}

fn mismatch(children: &[Arc<ChildConfig>], ends: &Ends, asked: &Selectors) -> SelectorMismatch {
    let ours = children.iter().map(|child| {
        let own = configured(child, ends);
        format!(
            "{} {} === {}",
            child.name,
            text(&own.local),
            text(&own.remote)
        )
    });
    let ours: Vec<String> = ours.take(16).collect();
    SelectorMismatch {
        local: text(&asked.local),
        remote: text(&asked.remote),
        configured: ours.join(", "),
    }
}

/// As many as a payload can carry.
const MAX_SELECTORS: usize = 255;

#[cfg(test)]
mod tests {
    use super::*;

    fn list(texts: &[&str]) -> Vec<TrafficSelector> {
        let parse = |text: &&str| text.parse().expect("a selector");
        texts.iter().map(parse).collect()
    }

    #[test]
    fn narrowing_keeps_every_common_part_once() {
        let own = list(&["10.1.0.0/16", "2001:db8::/32"]);
        let asked = list(&[
            "10.1.2.3[tcp/80]",
            "10.1.2.0/24",
            "10.0.0.0/8",
            "2001:db8:1::/48",
        ]);
        assert_eq!(
            intersect(&own, &asked),
            list(&["10.1.0.0/16", "2001:db8:1::/48"])
        );
        assert_eq!(intersect(&own, &list(&["10.2.0.0/16"])), []);
        let ports = intersect(
            &list(&["10.1.0.0/16[tcp/1-100]"]),
            &list(&["10.1.2.0/24[/80]"]),
        );
        assert_eq!(ports, list(&["10.1.2.0/24[tcp/80]"]));
    }

    #[test]
    fn an_answer_may_only_shrink_the_question() {
        let asked = Selectors {
            local: list(&["10.1.0.0/24"]),
            remote: list(&["10.2.0.0/24", "10.3.0.0/24"]),
        };
        let answer = |local: &[&str], remote: &[&str]| Selectors {
            local: list(local),
            remote: list(remote),
        };
        assert!(is_narrowing(
            &asked,
            &answer(&["10.1.0.7"], &["10.3.0.0/25"])
        ));
        assert!(!is_narrowing(
            &asked,
            &answer(&["10.1.0.0/24"], &["10.2.0.0/16"])
        ));
        assert!(!is_narrowing(&asked, &answer(&["10.1.0.0/24"], &[])));
    }

    #[test]
    fn families_must_meet_on_both_sides() {
        let mixed = Selectors {
            local: list(&["10.1.0.0/24"]),
            remote: list(&["2001:db8::/32"]),
        };
        assert!(!is_usable(&mixed));
    }
}
