//! Addresses for whoever connects (RFC 7296 §2.19): asked for in IKE_AUTH, and what `dynamic` stands for
//! from then on.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::ike::Identity;
use crate::ike::context::Context;
use crate::ike::narrow::Ends;
use crate::ike::pad::Connection;
use crate::ike::pools::Pool;
use crate::ike::session::Session;
use crate::wire::ikev2::{Attribute, Configuration, ConfigurationType, Family, PayloadWriter};
use crate::wire::isakmp::PayloadType;
use crate::wire::selector::TrafficSelector;

use super::Core;
use super::error::ExchangeError;
use super::message::Payloads;

/// How many name servers, and how many networks, of those that a peer tells are kept.
const MOST_TOLD: usize = 32;

/// The virtual addresses of an IKE SA, which its successors keep.
#[derive(Clone, Debug, Default)]
pub(in crate::ike) struct VirtualIps {
    /// Ours, from the peer.
    pub(in crate::ike) local: Vec<IpAddr>,
    /// The peer's, from our pools.
    pub(in crate::ike) remote: Vec<IpAddr>,
    /// Name servers that the peer has told us.
    pub(in crate::ike) dns: Vec<IpAddr>,
    /// Networks that the peer says it protects. What is carried is for the traffic selectors to say.
    pub(in crate::ike) subnets: Vec<IpNet>,
    /// The IKE SA that was authenticated.
    pub(in crate::ike) holder: u64,
}

impl Core {
    /// What `dynamic` stands for.
    pub(super) fn ends(&self) -> Ends {
        let hosts = |list: &[IpAddr], gateway: IpAddr| match list {
            [] => vec![TrafficSelector::host(gateway)],
            list => list.iter().copied().map(TrafficSelector::host).collect(),
        };
        let VirtualIps { local, remote, .. } = &self.virtual_ips;
        Ends {
            path: self.path,
            local: hosts(local, self.path.local.ip()),
            remote: hosts(remote, self.path.remote.ip()),
        }
    }

    /// The same while addresses are asked for, which may be any.
    pub(super) fn ends_to_be(&self, connection: &Connection) -> Ends {
        let mut ends = self.ends();
        if !connection.vips.is_empty() && self.virtual_ips.local.is_empty() {
            ends.local = connection.any_virtual_ip();
        }
        ends
    }

    /// Gives back what the IKE SA had. Not for one that another one has replaced.
    pub(super) fn release_virtual_ips(&self, cx: &mut Context) {
        let VirtualIps {
            local,
            remote,
            holder,
            ..
        } = &self.virtual_ips;
        if !remote.is_empty() {
            cx.pools.release(remote, *holder);
        }
        if !local.is_empty() {
            cx.forget_virtual_ips(self.name(), *holder);
        }
    }
}

/// Adds the question for addresses and name servers, if the connection wants any. What we have from
/// this peer already is asked for again.
pub(super) fn add_request(connection: &Connection, payloads: &mut PayloadWriter, cx: &Context) {
    if connection.vips.is_empty() {
        return;
    }
    let current = cx.virtual_ips(&connection.name);
    let mut attributes = Vec::new();
    for vip in &connection.vips {
        let family = Family::of(*vip);
        let known = current.iter().find(|known| Family::of(**known) == family);
        let given = Some(*vip).filter(|vip| !vip.is_unspecified());
        attributes.push(Attribute::Address(family, given.or(known.copied())));
        attributes.push(Attribute::Dns(family, None));
    }
    add(payloads, ConfigurationType::REQUEST, attributes);
}

/// Takes the addresses that the peer has chosen for us, no more than we wanted.
pub(super) fn accept(
    connection: &Connection,
    payloads: &Payloads<'_>,
    core: &mut Core,
    cx: &mut Context,
) -> Result<(), ExchangeError> {
    let Some(body) = payloads.cp.filter(|_| !connection.vips.is_empty()) else {
        return Ok(());
    };
    let reply = Configuration::parse(body)?;
    if reply.kind != ConfigurationType::REPLY {
        return Ok(());
    }
    let (mut local, mut dns, mut subnets) = (Vec::new(), Vec::new(), Vec::new());
    for attribute in reply.attributes {
        match attribute {
            Attribute::Address(family, Some(address)) if is_usable(address) => {
                let wanted = connection.vips.iter();
                let wanted = wanted.filter(|vip| Family::of(**vip) == family).count();
                let had = local
                    .iter()
                    .filter(|had| Family::of(**had) == family)
                    .count();
                if had < wanted && !local.contains(&address) {
                    local.push(address);
                }
            }
            Attribute::Dns(_, Some(address)) if is_usable(address) => {
                if dns.len() < MOST_TOLD && !dns.contains(&address) {
                    dns.push(address);
                }
            }
            Attribute::Subnet(_, Some(net)) => {
                if subnets.len() < MOST_TOLD && !subnets.contains(&net) {
                    subnets.push(net);
                }
            }
            Attribute::Address(..) | Attribute::Dns(..) | Attribute::Subnet(..) => {}
        }
    }
    if local.is_empty() {
        return Ok(());
    }
    core.log(cx, "IKE", format!("virtual IP {}", words(&local)));
    if !subnets.is_empty() {
        let line = format!("the peer says it protects {}", words(&subnets));
        core.log(cx, "IKE", line);
    }
    core.virtual_ips = VirtualIps {
        local,
        remote: Vec::new(),
        dns,
        subnets,
        holder: core.id,
    };
    cx.note_virtual_ips(core.name(), core.id, &core.virtual_ips.local);
    Ok(())
}

/// Leases the addresses that a peer asks for, those of the IKE SA that it goes on from if it has them still;
/// the answer to it, if it has asked.
pub(super) fn lease(
    connection: &Connection,
    peer: &Identity,
    resumed: Option<&Session>,
    payloads: &Payloads<'_>,
    core: &mut Core,
    cx: &mut Context,
) -> Result<Option<Vec<Attribute>>, ExchangeError> {
    let (Some(body), false) = (payloads.cp, connection.pools.is_empty()) else {
        return Ok(None);
    };
    let request = Configuration::parse(body)?;
    if request.kind != ConfigurationType::REQUEST {
        return Ok(None);
    }
    let (mut remote, mut answer) = (Vec::new(), Vec::new());
    for family in [Family::V4, Family::V6] {
        let mut asked = request
            .attributes
            .iter()
            .filter_map(|attribute| match attribute {
                Attribute::Address(of, wanted) if *of == family => Some(*wanted),
                _ => None,
            });
        let Some(wanted) = asked.next() else {
            continue;
        };
        let mut pools = connection
            .pools
            .iter()
            .filter(|pool| pool.family() == family);
        let had = resumed.into_iter().flat_map(|session| &session.leased);
        let kept = had.copied().find_map(|address| {
            let mut pools = pools.clone();
            let old = resumed.and_then(|session| session.holder);
            pools.find_map(|pool| cx.pools.keep(pool, (peer, old), address, core.id))
        });
        let leased =
            kept.or_else(|| pools.find_map(|pool| cx.pools.acquire(pool, peer, wanted, core.id)));
        if let Some(address) = leased {
            remote.push(address);
            answer.push(Attribute::Address(family, Some(address)));
        }
    }
    core.virtual_ips = VirtualIps {
        remote,
        holder: core.id,
        ..VirtualIps::default()
    };
    if core.virtual_ips.remote.is_empty() {
        return Err(ExchangeError::NoAddress);
    }
    let extras = connection.pools.iter().flat_map(|pool| extras(pool));
    for extra in extras {
        if !answer.contains(&extra) {
            answer.push(extra);
        }
    }
    Ok(Some(answer))
}

/// Adds the answer to a question for addresses.
pub(super) fn add_reply(attributes: Vec<Attribute>, payloads: &mut PayloadWriter) {
    add(payloads, ConfigurationType::REPLY, attributes);
}

fn add(payloads: &mut PayloadWriter, kind: ConfigurationType, attributes: Vec<Attribute>) {
    let configuration = Configuration { kind, attributes };
    payloads.add_with(PayloadType::CP, |out| configuration.encode(out));
}

fn extras(pool: &Pool) -> impl Iterator<Item = Attribute> {
    let dns = pool.dns.iter();
    let dns = dns.map(|server| Attribute::Dns(Family::of(*server), Some(*server)));
    let subnets = pool.subnets.iter();
    dns.chain(subnets.map(|net| Attribute::Subnet(Family::of(net.addr()), Some(*net))))
}

/// Not one that would take the system's own traffic or everybody's.
fn is_usable(address: IpAddr) -> bool {
    let is_broadcast = matches!(address, IpAddr::V4(address) if address.is_broadcast());
    !(address.is_unspecified() || address.is_loopback() || address.is_multicast() || is_broadcast)
}

fn words<T: ToString>(list: &[T]) -> String {
    let words = list.iter().map(ToString::to_string).collect::<Vec<_>>();
    words.join(" ")
}
