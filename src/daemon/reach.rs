//! The outbound policies as prefixes, which is what routes and kernel policies are made of.

use ipnet::IpNet;

use crate::ipsec::{Action, Direction, Spd};

/// One outbound policy between one prefix on each side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Reach {
    /// Our side.
    pub local: IpNet,
    /// The peer's side.
    pub remote: IpNet,
    /// Upper-layer protocol, 0 for any.
    pub protocol: u8,
    /// Ports on our side, `None` for any.
    pub local_ports: Option<(u16, u16)>,
    /// Ports on the peer's side, `None` for any.
    pub remote_ports: Option<(u16, u16)>,
    /// What is done with the packets.
    pub verdict: Verdict,
}

/// What a policy does, without the SAs that do it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Only inside an SA.
    Protect,
    /// In clear.
    Bypass,
    /// Not at all.
    Discard,
}

impl Reach {
    pub(super) fn is_ipv6(&self) -> bool {
        self.local.addr().is_ipv6()
    }
}

/// The outbound policies in order of evaluation. Inbound and forward ones are their mirror image.
pub(super) fn outbound(spd: &Spd) -> Vec<Reach> {
    let mut found = Vec::new();
    let policies = spd.policies().iter();
    for policy in policies.filter(|policy| policy.direction == Direction::Out) {
        let verdict = match policy.action {
            Action::Protect(_) => Verdict::Protect,
            Action::Bypass => Verdict::Bypass,
            Action::Discard => Verdict::Discard,
        };
        let remotes = policy.remote.to_nets();
        for local in policy.local.to_nets() {
            let same_family = |net: &&IpNet| net.addr().is_ipv6() == local.addr().is_ipv6();
            found.extend(remotes.iter().filter(same_family).map(|&remote| Reach {
                local,
                remote,
                protocol: policy.local.protocol().max(policy.remote.protocol()),
                local_ports: (!policy.local.any_port()).then(|| policy.local.ports()),
                remote_ports: (!policy.remote.any_port()).then(|| policy.remote.ports()),
                verdict,
            }));
        }
    }
    found
}

/// Whether `net` lies inside `outer` and is smaller.
pub(super) fn is_inside(net: &IpNet, outer: &IpNet) -> bool {
    outer.contains(net) && outer != net
}

/// Destinations that stay on the link, and so are never meant by a wider selector.
pub(super) fn on_link_only() -> [IpNet; 4] {
    let net = |address: std::net::IpAddr, length| {
        IpNet::new(address, length).expect("the prefix lengths below fit their families")
    };
    [
        net([224, 0, 0, 0].into(), 4),
        net([255, 255, 255, 255].into(), 32),
        net([0xfe80, 0, 0, 0, 0, 0, 0, 0].into(), 10),
        net([0xff00, 0, 0, 0, 0, 0, 0, 0].into(), 8),
    ]
}

#[cfg(test)]
pub(super) mod tests {
    use crate::{
        ipsec::{Action, Direction, Mode, Policy, PolicyId, Reqid, Spd, Template},
        wire::selector::TrafficSelector,
    };

    pub(in crate::daemon) const PROTECT: Action = Action::Protect(Template {
        reqid: Reqid(1),
        mode: Mode::Tunnel,
        trap: false,
    });

    /// An SPD of outbound policies, in order of evaluation.
    pub(in crate::daemon) fn spd(policies: &[(&str, &str, Action)]) -> Spd {
        let selector = |text: &str| text.parse::<TrafficSelector>().unwrap();
        let policies = (0..).zip(policies);
        let policies = policies.map(|(number, &(local, remote, action))| Policy {
            id: PolicyId(number),
            name: format!("policy {number}"),
            direction: Direction::Out,
            local: selector(local),
            remote: selector(remote),
            action,
            priority: number,
        });
        Spd::new(policies.collect())
    }
}
