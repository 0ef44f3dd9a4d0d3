//! Which addresses may be used, and how messages name them (RFC 4555 §3.4 to §3.6, §3.9).

use std::net::{IpAddr, Ipv4Addr};

use crate::ike::Path;
use crate::ike::context::Context;
use crate::ike::pad::{AddressPattern, Connection};
use crate::ike::v2::Core;
use crate::ike::v2::message::{Payloads, add_notify};
use crate::wire::ikev2::{Notify, NotifyType, PayloadWriter};

/// Our address to use towards a peer's: the present one while we have it, else one of those that the
/// connection names, else the one of the routing table.
pub(super) fn local_towards(
    connection: &Connection,
    current: IpAddr,
    remote: IpAddr,
    cx: &Context,
) -> Option<IpAddr> {
    let fits = |local: &IpAddr| local.is_ipv4() == remote.is_ipv4() && cx.addresses.contains(local);
    let mut named = named_hosts(connection).peekable();
    if named.peek().is_none() {
        let routed = cx.sources.get(&remote).copied();
        return routed.filter(fits).or(Some(current).filter(fits));
    }
    let present = Some(current).filter(fits);
    present.or_else(|| named.find(fits))
}

/// Addresses of ours besides the present one: those that the connection names, or all.
pub(super) fn own_addresses(connection: &Connection, current: IpAddr, cx: &Context) -> Vec<IpAddr> {
    let mut named = named_hosts(connection).peekable();
    let others: Vec<IpAddr> = if named.peek().is_some() {
        named.filter(|addr| cx.addresses.contains(addr)).collect()
    } else {
        let any = connection.local_addrs.iter();
        let allowed = |addr: &IpAddr| any.clone().any(|pattern| pattern.matches(*addr));
        cx.addresses.iter().copied().filter(allowed).collect()
    };
    let others = others.into_iter().filter(|addr| *addr != current);
    others.take(MOST_ADDRESSES).collect()
}

fn named_hosts(connection: &Connection) -> impl Iterator<Item = IpAddr> {
    let hosts = connection
        .local_addrs
        .iter()
        .filter_map(AddressPattern::host);
    hosts.filter(|host| !host.is_unspecified())
}

pub(super) fn add_addresses(payloads: &mut PayloadWriter, addrs: &[IpAddr]) {
    for addr in addrs {
        match addr {
            IpAddr::V4(addr) => {
                let kind = NotifyType::ADDITIONAL_IP4_ADDRESS;
                add_notify(payloads, kind, &addr.octets());
            }
            IpAddr::V6(addr) => {
                let kind = NotifyType::ADDITIONAL_IP6_ADDRESS;
                add_notify(payloads, kind, &addr.octets());
            }
        }
    }
}

pub(super) fn is_address(kind: NotifyType) -> bool {
    matches!(
        kind,
        NotifyType::ADDITIONAL_IP4_ADDRESS
            | NotifyType::ADDITIONAL_IP6_ADDRESS
            | NotifyType::NO_ADDITIONAL_ADDRESSES
    )
}

/// The addresses of a message; those that cannot be a peer's, and more than a few, are left out.
pub(super) fn additional_addresses(payloads: &Payloads<'_>) -> Vec<IpAddr> {
    let address = |notify: &Notify<'_>| match notify.kind {
        NotifyType::ADDITIONAL_IP4_ADDRESS => {
            <[u8; 4]>::try_from(notify.data).ok().map(IpAddr::from)
        }
        NotifyType::ADDITIONAL_IP6_ADDRESS => {
            <[u8; 16]>::try_from(notify.data).ok().map(IpAddr::from)
        }
        _ => None,
    };
    let addrs = payloads.notifies.iter().filter_map(address);
    addrs
        .filter(|addr| !is_many(*addr))
        .take(MOST_ADDRESSES)
        .collect()
}

/// The sender forbids NATs, and there is one (RFC 4555 §3.9): source and destination as it sent them
/// differ from those of the datagram.
pub(super) fn is_translated(path: Path, payloads: &Payloads<'_>) -> bool {
    let Some(notify) = payloads.notify(NotifyType::NO_NATS_ALLOWED) else {
        return false;
    };
    let mut expected = Vec::with_capacity(36);
    for addr in [path.remote, path.local] {
        match addr.ip() {
            IpAddr::V4(ip) => expected.extend_from_slice(&ip.octets()),
            IpAddr::V6(ip) => expected.extend_from_slice(&ip.octets()),
        }
    }
    for addr in [path.remote, path.local] {
        expected.extend_from_slice(&addr.port().to_be_bytes());
    }
    notify.data != expected
}

/// An address that is no single host's.
fn is_many(addr: IpAddr) -> bool {
    addr.is_unspecified()
        || addr.is_multicast()
        || addr.is_loopback()
        || addr == IpAddr::V4(Ipv4Addr::BROADCAST)
}

pub(super) fn is_own_or_many(addr: IpAddr, core: &Core, cx: &Context) -> bool {
    is_many(addr) || addr == core.path.local.ip() || cx.addresses.contains(&addr)
}

/// Of one side, besides the present one.
const MOST_ADDRESSES: usize = 8;
