//! Keeps protected traffic off the physical interfaces, also while this program is not there.
//!
//! The SPD is mirrored as XFRM policies: clear text that a policy protects is blocked on its way in and
//! through, that of IPv4 also on its way out. The tunnel device is exempt.
//!
//! - For IPv4 the kernel has switches for that ([`sysctl::exempt_from_xfrm`]).
//! - For IPv6 it has none, and the device of a policy's selector is the one that a packet goes to. So packets
//!   from the tunnel device are marked ([`PacketMarks`]), and marked ones allowed before the blocks. Outwards the
//!   mark would come too late: there the routing of [`super::routes`] stands alone.
//!
//! That routing is a second layer for both families: unreachable routes below those to the tunnel device, and
//! rules that drop clear text from the peer's side where there are no policies. Policies and routing stay when
//! the process crashes and are taken over by the next start; the exemptions go with process and device.

use std::{
    collections::HashSet,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use ipnet::IpNet;

use super::reach::{self, Reach, Verdict};
use crate::{
    config::TUNNEL_MARK,
    io::netlink::{
        nftables::PacketMarks,
        sysctl,
        xfrm::{Direction, PortMatch, XfrmPolicies, XfrmPolicy},
    },
    ipsec::Spd,
};

/// The installed guard. Dropping it leaves the guard in place: only [`Guard::remove`] takes it away.
#[derive(Debug)]
pub struct Guard {
    policies: XfrmPolicies,
    /// Name of the tunnel device.
    device: String,
    /// Index of the tunnel device once it is exempt.
    index: Option<u32>,
    marks: Marks,
    mirrored: Mirrored,
}

/// The exemption of the tunnel device for IPv6.
#[derive(Debug)]
enum Marks {
    /// There has been no IPv6 policy yet.
    Unneeded,
    Set(PacketMarks),
    /// The system has no nf_tables, or one without owners.
    Impossible,
}

/// The families whose policies are mirrored in the kernel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mirrored {
    /// Those of IPv4.
    pub ipv4: bool,
    /// Those of IPv6.
    pub ipv6: bool,
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
    /// nf_tables refuses, though the kernel has it.
    #[error("cannot exempt the tunnel device from the guard with nf_tables ({0})")]
    Marks(#[source] io::Error),
    /// Another IPsec implementation holds one of the selectors.
    #[error(
        "cannot guard protected traffic: an XFRM policy for it exists already (another IPsec daemon?); \
         see `ip xfrm policy`"
    )]
    Occupied,
}

impl Guard {
    /// Installs the guard for `spd` and takes over what an earlier process left of it. An error leaves nothing
    /// behind where there was nothing.
    pub fn install(spd: &Spd, device: &str) -> Result<Self, GuardError> {
        let mut policies = XfrmPolicies::open().map_err(GuardError::Policies)?;
        let inherited = policies.list().map_err(GuardError::Policies)?;
        if !sysctl::can_exempt_from_xfrm() {
            return Err(GuardError::Switches);
        }
        let mut guard = Self {
            policies,
            device: device.to_owned(),
            index: None,
            marks: Marks::Unneeded,
            mirrored: Mirrored::default(),
        };
        if let Err(error) = guard.update(spd) {
            if inherited.is_empty() {
                // The error that led here is the one to report.
                let _ = guard.policies.replace(&[]);
            }
            return Err(error);
        }
        Ok(guard)
    }

    /// Follows a change of the SPD.
    pub fn update(&mut self, spd: &Spd) -> Result<(), GuardError> {
        self.mirrored = Mirrored::default();
        let reaches = reach::outbound(spd);
        if matches!(self.marks, Marks::Unneeded) && reaches.iter().any(Reach::is_ipv6) {
            let mut marks = open_marks()?;
            marks.add(self.index)?;
            self.marks = marks;
        }
        let mirrored = Mirrored {
            ipv4: true,
            ipv6: matches!(self.marks, Marks::Set(_)),
        };
        match self.policies.replace(&mirror(&reaches, mirrored)) {
            Ok(_) => {
                self.mirrored = mirrored;
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Err(GuardError::Occupied),
            Err(error) => Err(GuardError::Policies(error)),
        }
    }

    /// Which policies the last update has mirrored.
    #[must_use]
    pub fn mirrored(&self) -> Mirrored {
        self.mirrored
    }

    /// Exempts the tunnel device.
    pub fn exempt(&mut self, device: &str, index: u32) -> Result<(), GuardError> {
        sysctl::exempt_from_xfrm(device).map_err(|_| GuardError::Switches)?;
        self.device = device.to_owned();
        self.index = Some(index);
        self.marks.add(self.index)
    }

    /// Warns of switches of the system with which the kernel passes over the guard's policies.
    pub fn warn_of_switches(&self) {
        for switch in sysctl::void_xfrm(&self.device) {
            tracing::warn!(
                "{switch} is set: the kernel passes over the guard there, and protected traffic may \
                 enter or leave in clear; set it to 0"
            );
        }
    }

    /// Takes the guard away.
    pub fn remove(mut self) -> Result<(), GuardError> {
        self.update(&Spd::default())
    }
}

impl Marks {
    fn add(&mut self, device: Option<u32>) -> Result<(), GuardError> {
        match (self, device) {
            (Self::Set(marks), Some(index)) => marks.add_device(index).map_err(GuardError::Marks),
            _ => Ok(()),
        }
    }
}

fn open_marks() -> Result<Marks, GuardError> {
    match PacketMarks::open(TUNNEL_MARK) {
        Ok(marks) => Ok(Marks::Set(marks)),
        Err(error) if is_unsupported(&error) => {
            tracing::warn!(
                %error,
                "no nf_tables of Linux 5.12 or later: clear text for our own IPv6 addresses is not kept out, \
                 and each IPv6 tunnel costs a routing rule"
            );
            Ok(Marks::Impossible)
        }
        Err(error) => Err(GuardError::Marks(error)),
    }
}

/// Whether this is what a kernel answers that lacks nf_tables, a module of it (ENOENT), or owners of tables.
fn is_unsupported(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(
            libc::EOPNOTSUPP
                | libc::EINVAL
                | libc::EPROTONOSUPPORT
                | libc::EAFNOSUPPORT
                | libc::ENOENT
        )
    )
}

/// Removes what an earlier process left, where the guard is switched off.
pub fn clear_stale() {
    // Without XFRM in the kernel there is nothing to clear.
    if let Ok(mut policies) = XfrmPolicies::open() {
        let _ = policies.replace(&[]);
    }
}

/// The XFRM policies that mirror an SPD, as far as they are to be mirrored.
///
/// A protected selector is blocked without regard to ports: fragments show none, and clear text
/// between the two sides that no policy covers is discarded anyway (RFC 4301 §5.1). What bypasses
/// is allowed exactly, port by port. Traffic that stays on our side of a selector is allowed.
fn mirror(reaches: &[Reach], mirrored: Mirrored) -> Vec<XfrmPolicy> {
    let is_mirrored = |reach: &Reach| {
        if reach.is_ipv6() {
            mirrored.ipv6
        } else {
            mirrored.ipv4
        }
    };
    let reaches: Vec<Reach> = reaches.iter().copied().filter(is_mirrored).collect();
    let mut draft = Draft::default();
    for ipv6 in [false, true] {
        if reaches.iter().any(|reach| reach.is_ipv6() == ipv6) {
            draft.exempt(ipv6);
        }
    }
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

/// Policies in order, each selector once. Those before the order have one priority and leave the others theirs.
#[derive(Default)]
struct Draft {
    policies: Vec<XfrmPolicy>,
    /// The selectors.
    seen: HashSet<XfrmPolicy>,
    /// How many are in order.
    ranked: u32,
}

impl Draft {
    /// Lets pass what no policy means, whatever its selectors cover: what routers say about the way of our own
    /// outer packets, and of IPv6 what comes from inside and that without which neighbours do not find each other.
    fn exempt(&mut self, ipv6: bool) {
        let any = PortMatch::default();
        if !ipv6 {
            let all = IpNet::new(Ipv4Addr::UNSPECIFIED.into(), 0).expect("0 is a prefix length");
            let [kind, code] = FRAGMENTATION_NEEDED.map(exactly);
            self.exempt_between(Direction::In, all, (ICMP, kind, code), None);
            return;
        }
        let all = IpNet::new(Ipv6Addr::UNSPECIFIED.into(), 0).expect("0 is a prefix length");
        for direction in [Direction::In, Direction::Forward] {
            self.exempt_between(direction, all, (0, any, any), Some(TUNNEL_MARK));
        }
        for kind in EXEMPT_ICMPV6.map(exactly) {
            self.exempt_between(Direction::In, all, (ICMPV6, kind, any), None);
        }
        // The mark is gone when the process is.
        let loopback = IpAddr::from(Ipv6Addr::LOCALHOST).into();
        self.exempt_between(Direction::In, loopback, (0, any, any), None);
    }

    fn exempt_between(
        &mut self,
        direction: Direction,
        net: IpNet,
        (protocol, source_port, destination_port): (u8, PortMatch, PortMatch),
        mark: Option<u32>,
    ) {
        let unranked = XfrmPolicy {
            direction,
            source: net,
            destination: net,
            protocol,
            source_port,
            destination_port,
            mark,
            priority: 0,
            allow: false,
        };
        self.seen.insert(unranked);
        self.policies.push(XfrmPolicy {
            priority: EXEMPT,
            allow: true,
            ..unranked
        });
    }

    /// Lets pass what a wide remote selector covers but does not mean.
    fn allow_inside(&mut self, reach: &Reach, all: &[Reach]) {
        for to in reach::on_link_only() {
            if !reach::is_inside(&to, &reach.remote) {
                continue;
            }
            let on_link = Reach {
                protocol: 0,
                ..*reach
            };
            let (on_link, direction) = if !reach.is_ipv6() {
                (
                    Reach {
                        remote: to,
                        ..on_link
                    },
                    Direction::Out,
                )
            } else if !to.addr().is_multicast() {
                (
                    Reach {
                        remote: to,
                        ..on_link
                    },
                    Direction::In,
                )
            } else if reach::is_inside(&to, &reach.local) {
                // Nothing comes from a multicast address.
                (
                    Reach {
                        local: to,
                        ..on_link
                    },
                    Direction::In,
                )
            } else {
                continue;
            };
            self.push(&on_link, direction, Default::default(), true);
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
        let directions = [Direction::Out, Direction::In, Direction::Forward];
        let directions = directions.get(usize::from(reach.is_ipv6())..);
        for &direction in directions.unwrap_or_default() {
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
            mark: None,
            priority: 0,
            allow: false,
        };
        if self.seen.insert(policy) {
            self.ranked = self.ranked.saturating_add(1);
            policy.priority = self.ranked.saturating_add(EXEMPT);
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

fn exactly(value: u16) -> PortMatch {
    PortMatch {
        value,
        mask: u16::MAX,
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
const EXEMPT: u32 = 999;
const ICMP: u8 = 1;
const ICMPV6: u8 = 58;
/// "Packet too big" (RFC 4443 §3.2), which may be about our own outer packets, and neighbour discovery from
/// router solicitation to redirect (RFC 4861 §4), which never leaves its link.
const EXEMPT_ICMPV6: [u16; 6] = [2, 133, 134, 135, 136, 137];
/// Type and code of the ICMP message that tells the MTU of a path (RFC 1191 §4).
const FRAGMENTATION_NEEDED: [u16; 2] = [3, 4];

#[cfg(test)]
mod tests;
