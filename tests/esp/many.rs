//! Tunnels by number, each to a site of its own.

#[allow(
    dead_code,
    clippy::indexing_slicing,
    reason = "shared with tests/esp.rs, which uses the rest"
)]
mod support;

use std::net::Ipv4Addr;
use std::ops::Range;
use std::sync::Arc;

use ipnet::{IpNet, Ipv4Net};
use lockgate::crypto::packet::PacketKey;
use lockgate::ipsec::{
    Action, ChildId, Direction, InboundParams, InboundSa, Mode, OutboundParams, OutboundSa, Policy,
    PolicyId, Reqid, Selectors, Spi, Template,
};
use lockgate::wire::selector::TrafficSelector;

/// Where all of them come from.
pub(crate) const LOCAL: &str = "172.16.0.0/12";

pub(crate) fn reqid(number: u32) -> Reqid {
    Reqid(number + 1)
}

pub(crate) fn key() -> PacketKey {
    support::key(support::suite("aes256gcm16"))
}

pub(crate) fn outbound(number: u32, selectors: &Arc<Selectors>) -> Box<OutboundSa> {
    Box::new(OutboundSa::new(OutboundParams {
        spi: spi(number),
        child: ChildId(number.into()),
        reqid: reqid(number),
        esn: true,
        selectors: Arc::clone(selectors),
        path_mtu: u16::MAX,
        ..support::outbound(key())
    }))
}

pub(crate) fn inbound(number: u32, selectors: &Arc<Selectors>) -> Box<InboundSa> {
    Box::new(InboundSa::new(InboundParams {
        spi: spi(number),
        child: ChildId(number.into()),
        reqid: reqid(number),
        esn: true,
        replay_window: 4096,
        selectors: Arc::clone(selectors),
        ..support::inbound(key())
    }))
}

/// Two ends of a tunnel: what the first seals the second opens.
pub(crate) fn halves(number: u32) -> (Box<OutboundSa>, Box<InboundSa>) {
    let ours = selectors(number);
    let theirs = Arc::new(Selectors {
        local: ours.remote.clone(),
        remote: ours.local.clone(),
    });
    (outbound(number, &ours), inbound(number, &theirs))
}

pub(crate) fn selectors(number: u32) -> Arc<Selectors> {
    Arc::new(Selectors {
        local: vec![local()],
        remote: vec![site(number)],
    })
}

pub(crate) fn policies(numbers: Range<u32>, direction: Direction) -> impl Iterator<Item = Policy> {
    numbers.map(move |number| Policy {
        id: PolicyId(number),
        name: format!("site-{number}"),
        direction,
        local: local(),
        remote: site(number),
        action: Action::Protect(Template {
            reqid: reqid(number),
            mode: Mode::Tunnel,
            trap: false,
        }),
        priority: 100,
    })
}

/// A host of the site.
pub(crate) fn host(number: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(0x0a00_0007 | number << 8)
}

fn spi(number: u32) -> Spi {
    Spi::new(0x1000 + number).expect("not reserved")
}

fn local() -> TrafficSelector {
    LOCAL.parse().expect("a selector")
}

/// One of 65 536 networks in 10.0.0.0/8.
fn site(number: u32) -> TrafficSelector {
    let net = Ipv4Net::new(host(number), 24).expect("a prefix length");
    TrafficSelector::net(IpNet::V4(net.trunc()))
}
