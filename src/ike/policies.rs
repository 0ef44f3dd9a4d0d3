//! From the configuration to the SPD (RFC 4301 §4.4.1).

use std::collections::HashMap;
use std::net::IpAddr;

use crate::ipsec::{Action, Direction, Mode, Policy, PolicyId, Spd, Template};
use crate::wire::selector::TrafficSelector;

use super::pad::{AddressPattern, ChildConfig, ChildMode, Connection, Pad, SelectorConfig};

impl Pad {
    /// The policies of every child, whether or not it has an SA: protected traffic that finds no
    /// SA is dropped, so it cannot leave in clear.
    pub fn policies(&self) -> Spd {
        self.policies_with(&HashMap::new())
    }

    /// The same with the virtual addresses that connections have from their peers.
    pub(super) fn policies_with(&self, virtual_ips: &HashMap<String, (u64, Vec<IpAddr>)>) -> Spd {
        let mut policies = Vec::new();
        for connection in &self.connections {
            let assigned = virtual_ips.get(&connection.name);
            let assigned = assigned.map_or(&[][..], |(_, assigned)| assigned);
            let ends = connection.dynamic(assigned);
            for child in &connection.children {
                add_child(connection, child, &ends, &mut policies);
            }
        }
        Spd::new(policies)
    }
}

impl Connection {
    /// The addresses that `dynamic` stands for on our side and on the peer's, where they are known
    /// beforehand.
    pub fn gateways(&self) -> (Option<IpAddr>, Option<IpAddr>) {
        let remote = self.remote_host().map(|host| host.ip());
        let local = match remote {
            Some(remote) => self.local_host(remote),
            None => self.local_addrs.iter().find_map(AddressPattern::host),
        };
        (local, remote)
    }
}

impl Connection {
    /// What `dynamic` stands for on our side and on the peer's: the gateways, where they are known
    /// beforehand; addresses that the peer has or may have from our pools; those `assigned` to us, or any as
    /// long as there are none.
    pub fn dynamic(&self, assigned: &[IpAddr]) -> [Vec<TrafficSelector>; 2] {
        let (local, remote) = self.gateways();
        let host =
            |gateway: Option<IpAddr>| gateway.map(TrafficSelector::host).into_iter().collect();
        let local = match assigned {
            _ if self.vips.is_empty() => host(local),
            [] => self.any_virtual_ip(),
            assigned => assigned
                .iter()
                .copied()
                .map(TrafficSelector::host)
                .collect(),
        };
        let remote = if self.pools.is_empty() {
            host(remote)
        } else {
            self.pools.iter().map(|pool| pool.selector()).collect()
        };
        [local, remote]
    }

    /// What the peer may choose from for us.
    pub(super) fn any_virtual_ip(&self) -> Vec<TrafficSelector> {
        let any = self.vips.iter().map(|vip| match vip {
            IpAddr::V4(_) => TrafficSelector::any_v4(),
            IpAddr::V6(_) => TrafficSelector::any_v6(),
        });
        let mut any: Vec<_> = any.collect();
        any.dedup();
        any
    }
}

impl SelectorConfig {
    /// The selectors, with `dynamic` meaning these.
    pub fn resolve(&self, dynamic: &[TrafficSelector]) -> Vec<TrafficSelector> {
        match *self {
            Self::Fixed(selector) => vec![selector],
            Self::Dynamic { protocol, ports } => {
                let narrowed = dynamic
                    .iter()
                    .map(|one| one.with_ports(protocol, ports.0..=ports.1));
                narrowed.filter_map(Result::ok).collect()
            }
        }
    }
}

fn add_child(
    connection: &Connection,
    child: &ChildConfig,
    [local, remote]: &[Vec<TrafficSelector>; 2],
    policies: &mut Vec<Policy>,
) {
    let action = match child.mode {
        ChildMode::Tunnel | ChildMode::Transport => Action::Protect(Template {
            reqid: child.reqid,
            mode: if child.mode == ChildMode::Transport {
                Mode::Transport
            } else {
                Mode::Tunnel
            },
            trap: child.traps(),
        }),
        ChildMode::Pass => Action::Bypass,
        ChildMode::Drop => Action::Discard,
    };
    let locals = child.local_ts.iter().flat_map(|ts| ts.resolve(local));
    let locals: Vec<_> = locals.collect();
    let remotes = child.remote_ts.iter().flat_map(|ts| ts.resolve(remote));
    for remote in remotes {
        for local in &locals {
            if local.is_ipv6() != remote.is_ipv6() {
                continue;
            }
            let priority = child
                .priority
                .unwrap_or_else(|| priority(child.mode, local, &remote));
            for direction in [Direction::Out, Direction::In, Direction::Forward] {
                let number = u32::try_from(policies.len()).unwrap_or(u32::MAX);
                policies.push(Policy {
                    id: PolicyId(number),
                    name: format!("{}/{}", connection.name, child.name),
                    direction,
                    local: *local,
                    remote,
                    action,
                    priority,
                });
            }
        }
    }
}

/// The more a policy says, the earlier it is asked; exceptions come before what they except.
fn priority(mode: ChildMode, local: &TrafficSelector, remote: &TrafficSelector) -> u32 {
    let base = match mode {
        ChildMode::Tunnel | ChildMode::Transport => PROTECT_BASE,
        ChildMode::Pass | ChildMode::Drop => EXCEPTION_BASE,
    };
    base - specificity(local) - specificity(remote)
}

/// At most 128 · 8 + 7.
fn specificity(selector: &TrafficSelector) -> u32 {
    let width = if selector.is_ipv6() { 128 } else { 32 };
    let range_bits = match (selector.start(), selector.end()) {
        (IpAddr::V4(start), IpAddr::V4(end)) => {
            32 - (u32::from(end) - u32::from(start)).leading_zeros()
        }
        (IpAddr::V6(start), IpAddr::V6(end)) => {
            128 - (u128::from(end) - u128::from(start)).leading_zeros()
        }
        _ => width,
    };
    let detail = u32::from(selector.protocol() != 0) * 3 + u32::from(!selector.any_port()) * 4;
    (width - range_bits) * 8 + detail
}

const EXCEPTION_BASE: u32 = 100_000;
const PROTECT_BASE: u32 = 200_000;
