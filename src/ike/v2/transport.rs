//! Transport mode (RFC 7296 §1.3.1), also through NAT (§2.23.1).
//!
//! Its selectors are the two gateways themselves. Behind a NAT each side sees other addresses: who
//! receives selectors puts those in that it knows, and keeps the others for the checksums.

use std::net::IpAddr;
use std::sync::Arc;

use crate::ike::Path;
use crate::ike::narrow::{Ends, SelectorMismatch, choose_child};
use crate::ike::pad::{ChildConfig, ChildMode};
use crate::ipsec::{Selectors, TransportEnds};
use crate::wire::ikev2::NotifyType;
use crate::wire::selector::TrafficSelector;

use super::message::Payloads;

/// What a responder makes of selectors.
pub(super) struct Choice {
    pub(super) config: Arc<ChildConfig>,
    pub(super) selectors: Selectors,
    /// In transport mode.
    pub(super) transport: Option<TransportEnds>,
}

/// Whether a child's selectors allow to ask for transport mode.
pub(super) fn may_ask(child: &ChildConfig, selectors: &Selectors, path: Path) -> bool {
    child.mode == ChildMode::Transport
        && is_host(&selectors.local, path.local.ip())
        && is_host(&selectors.remote, path.remote.ip())
}

/// Chooses the child that a request means: in transport mode if the peer wants it and a child has it, in
/// tunnel mode otherwise.
pub(super) fn choose(
    children: &[Arc<ChildConfig>],
    ends: &Ends,
    asked: &Selectors,
    payloads: &Payloads<'_>,
) -> Result<Choice, SelectorMismatch> {
    if payloads.notify(NotifyType::USE_TRANSPORT_MODE).is_some()
        && let Some((seen, transport)) =
            seen_from_here(asked, ends.path.local.ip(), ends.path.remote.ip())
    {
        let children = children.iter().cloned();
        let willing = children.filter(|child| child.mode == ChildMode::Transport);
        let willing: Vec<_> = willing.collect();
        if let Ok((config, selectors)) = choose_child(&willing, ends, &seen)
            && may_ask(config, &selectors, ends.path)
        {
            return Ok(Choice {
                config: Arc::clone(config),
                selectors,
                transport: Some(transport),
            });
        }
    }
    let (config, selectors) = choose_child(children, ends, asked)?;
    Ok(Choice {
        config: Arc::clone(config),
        selectors,
        transport: None,
    })
}

/// The peer's selectors with the addresses as they are known here, and what the packets of the peer have
/// in their place; `None` if a side has several addresses, or not all are of one family.
pub(super) fn seen_from_here(
    theirs: &Selectors,
    local: IpAddr,
    remote: IpAddr,
) -> Option<(Selectors, TransportEnds)> {
    let there = [host(&theirs.remote)?, host(&theirs.local)?];
    let ends = TransportEnds::new([remote, local], there)?;
    let with = |list: &[TrafficSelector], address: IpAddr| {
        let moved = list.iter().map(|one| {
            let (first, last) = one.ports();
            TrafficSelector::host(address)
                .with_ports(one.protocol(), first..=last)
                .ok()
        });
        moved.collect::<Option<Vec<_>>>()
    };
    let selectors = Selectors {
        local: with(&theirs.local, local)?,
        remote: with(&theirs.remote, remote)?,
    };
    Some((selectors, ends))
}

/// The only address of a side.
pub(super) fn host(list: &[TrafficSelector]) -> Option<IpAddr> {
    let first = list.first()?.start();
    is_host(list, first).then_some(first)
}

fn is_host(list: &[TrafficSelector], host: IpAddr) -> bool {
    let is_it = |one: &TrafficSelector| (one.start(), one.end()) == (host, host);
    !list.is_empty() && list.iter().all(is_it)
}
