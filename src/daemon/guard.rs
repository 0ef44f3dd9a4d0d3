//! Keeps protected traffic off the physical interfaces, also while this program is not there.
//!
//! For IPv4 the SPD is mirrored as XFRM policies: clear text that a policy protects is blocked on
//! its way out, in and through, and the tunnel device is exempt. The kernel has that exemption for
//! IPv4 only, so the routing of [`super::routes`] adds a second layer: for both families unreachable
//! routes below those to the tunnel device, and for IPv6 rules that drop forwarded clear text from the
//! peer's side. Both layers stay when the process crashes and are taken over by the next start.

use std::{collections::HashSet, io};

use super::reach::{self, Reach, Verdict};
use crate::{
    io::netlink::{
        sysctl,
        xfrm::{Direction, PortMatch, XfrmPolicies, XfrmPolicy},
    },
    ipsec::Spd,
};

/// The installed guard. Dropping it leaves the guard in place: only [`Guard::remove`] takes it away.
#[derive(Debug)]
pub struct Guard {
    policies: XfrmPolicies,
}

/// Why there is no guard.
#[derive(Debug, thiserror::Error)]
pub enum GuardError {
    /// The kernel has no XFRM, or hides it.
    #[error(
        "cannot guard protected traffic with XFRM policies ({0}); set daemon.guard = \"off\" to go without"
    )]
    Policies(#[source] io::Error),
    /// `/proc/sys` is read-only or hidden.
    #[error(
        "cannot guard protected traffic: /proc/sys/net/ipv4/conf is not writable, so the tunnel device \
         cannot be exempt; set daemon.guard = \"off\" to go without"
    )]
    Switches,
    /// Another IPsec implementation holds one of the selectors.
    #[error(
        "cannot guard protected traffic: an XFRM policy for it exists already (another IPsec daemon?); \
         see `ip xfrm policy`"
    )]
    Occupied,
}

impl Guard {
    /// Installs the guard for `spd` and clears what an earlier process left of it.
    pub fn install(spd: &Spd) -> Result<Self, GuardError> {
        let policies = XfrmPolicies::open().map_err(GuardError::Policies)?;
        if !sysctl::can_exempt_from_xfrm() {
            return Err(GuardError::Switches);
        }
        let mut guard = Self { policies };
        guard.update(spd)?;
        Ok(guard)
    }

    /// Follows a change of the SPD.
    pub fn update(&mut self, spd: &Spd) -> Result<(), GuardError> {
        match self.policies.replace(&policies(spd)) {
            Ok(_) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Err(GuardError::Occupied),
            Err(error) => Err(GuardError::Policies(error)),
        }
    }

    /// Exempts the tunnel device.
    pub fn exempt(&self, device: &str) -> Result<(), GuardError> {
        sysctl::exempt_from_xfrm(device).map_err(|_| GuardError::Switches)
    }

    /// Takes the guard away.
    pub fn remove(mut self) -> Result<(), GuardError> {
        self.update(&Spd::default())
    }
}

/// Removes what an earlier process left, where the guard is switched off.
pub fn clear_stale() {
    // Without XFRM in the kernel there is nothing to clear.
    if let Ok(mut policies) = XfrmPolicies::open() {
        let _ = policies.replace(&[]);
    }
}

/// The XFRM policies that mirror the IPv4 part of an SPD.
///
/// A protected selector is blocked without regard to ports: fragments show none, and clear text
/// between the two sides that no policy covers is discarded anyway (RFC 4301 §5.1). What bypasses
/// is allowed exactly, port by port. Traffic that stays on our side of a selector is allowed.
#[must_use]
pub fn policies(spd: &Spd) -> Vec<XfrmPolicy> {
    let reaches: Vec<Reach> = reach::outbound(spd)
        .into_iter()
        .filter(|reach| !reach.is_ipv6())
        .collect();
    let mut draft = Draft::default();
    for reach in &reaches {
        match reach.verdict {
            Verdict::Protect => {
                draft.allow_inside(reach, &reaches);
                draft.everywhere(reach, [PortMatch::default(); 2], false);
            }
            Verdict::Bypass | Verdict::Discard => {
                for ports in port_pairs(reach) {
                    draft.everywhere(reach, ports, reach.verdict == Verdict::Bypass);
                }
            }
        }
    }
    draft.policies
}

/// Policies in order, each selector once.
#[derive(Default)]
struct Draft {
    policies: Vec<XfrmPolicy>,
    seen: HashSet<XfrmPolicy>,
}

impl Draft {
    /// Lets pass what a wide remote selector covers but does not mean.
    fn allow_inside(&mut self, reach: &Reach, all: &[Reach]) {
        for to in reach::on_link_only() {
            if reach::is_inside(&to, &reach.remote) {
                let local_only = Reach {
                    remote: to,
                    protocol: 0,
                    ..*reach
                };
                self.push(&local_only, Direction::Out, Default::default(), true);
            }
        }
        if !reach::is_inside(&reach.local, &reach.remote) {
            return;
        }
        let sides = all.iter().filter(|other| {
            other.verdict == Verdict::Protect
                && other.remote == reach.remote
                && reach::is_inside(&other.local, &other.remote)
        });
        for side in sides {
            let inside = Reach {
                remote: side.local,
                protocol: 0,
                ..*reach
            };
            self.everywhere(&inside, Default::default(), true);
        }
    }

    fn everywhere(&mut self, reach: &Reach, ports: [PortMatch; 2], allow: bool) {
        for direction in [Direction::Out, Direction::In, Direction::Forward] {
            self.push(reach, direction, ports, allow);
        }
    }

    fn push(
        &mut self,
        reach: &Reach,
        direction: Direction,
        [local_port, remote_port]: [PortMatch; 2],
        allow: bool,
    ) {
        let outward = direction == Direction::Out;
        // Type and code of ICMP stay where they are, whichever way the message goes.
        let straight = outward || matches!(reach.protocol, ICMP | ICMPV6);
        let pick = |out, back| if straight { out } else { back };
        let mut policy = XfrmPolicy {
            direction,
            source: if outward { reach.local } else { reach.remote },
            destination: if outward { reach.remote } else { reach.local },
            protocol: reach.protocol,
            source_port: pick(local_port, remote_port),
            destination_port: pick(remote_port, local_port),
            priority: 0,
            allow: false,
        };
        if self.seen.insert(policy) {
            policy.priority = u32::try_from(self.policies.len())
                .map_or(u32::MAX, |place| place.saturating_add(FIRST_PRIORITY));
            policy.allow = allow;
            self.policies.push(policy);
        }
    }
}

/// The ports of a selector as pairs of matches, none where XFRM cannot express them.
fn port_pairs(reach: &Reach) -> Vec<[PortMatch; 2]> {
    let any = vec![PortMatch::default()];
    if matches!(reach.protocol, ICMP | ICMPV6) {
        return icmp_pairs(reach.local_ports.or(reach.remote_ports));
    }
    let side = |ports: Option<(u16, u16)>| ports.map_or_else(|| any.clone(), cover);
    let remote = side(reach.remote_ports);
    side(reach.local_ports)
        .into_iter()
        .flat_map(|local| remote.iter().map(move |&remote| [local, remote]))
        .collect()
}

/// ICMP: the kernel compares the type as source and the code as destination port, in each direction.
fn icmp_pairs(types: Option<(u16, u16)>) -> Vec<[PortMatch; 2]> {
    let exactly = |value: u16| PortMatch {
        value,
        mask: u16::MAX,
    };
    match types {
        None => vec![[PortMatch::default(); 2]],
        Some((first, last)) if first == last => {
            vec![[exactly(first >> 8), exactly(first & 0xff)]]
        }
        Some((first, last)) if first & 0xff == 0 && last & 0xff == 0xff => (first >> 8..=last >> 8)
            .map(|kind| [exactly(kind), PortMatch::default()])
            .collect(),
        Some(_) => Vec::new(),
    }
}

/// The fewest aligned blocks that make up a range of ports; none for the empty range.
fn cover((first, last): (u16, u16)) -> Vec<PortMatch> {
    let (mut next, end) = (u32::from(first), u32::from(last) + 1);
    let mut blocks = Vec::new();
    while next < end {
        let aligned = if next == 0 { 16 } else { next.trailing_zeros() };
        let size = (0..=aligned.min(16))
            .rev()
            .map(|bits| 1_u32 << bits)
            .find(|size| next + size <= end)
            .unwrap_or(1);
        // A block of 2^16 ports has mask 0, every other one the high bits.
        let mask = u16::try_from(0x1_0000 - size).unwrap_or(0);
        blocks.push(PortMatch {
            value: u16::try_from(next).unwrap_or(u16::MAX),
            mask,
        });
        next += size;
    }
    blocks
}

/// Behind what an administrator may have put in front with small numbers.
const FIRST_PRIORITY: u32 = 1000;
const ICMP: u8 = 1;
const ICMPV6: u8 = 58;

#[cfg(test)]
mod tests;
