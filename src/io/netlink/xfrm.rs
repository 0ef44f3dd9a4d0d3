//! XFRM policies with action block or allow, by netlink. No kernel ESP is involved.

use std::{
    collections::{HashMap, HashSet},
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use ipnet::IpNet;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_xfrm::{
    Mark, Selector, UserPolicyId, UserPolicyInfo, XfrmAttrs, XfrmMessage,
    constants::{
        XFRM_POLICY_ALLOW, XFRM_POLICY_BLOCK, XFRM_POLICY_FWD, XFRM_POLICY_IN, XFRM_POLICY_OUT,
    },
    policy::{DelGetMessage, ModifyMessage},
};
use netlink_sys::protocols::NETLINK_XFRM;

use super::Connection;

/// Indices of our policies start here and stay below `INDEX_BASE + INDEX_SPAN`.
///
/// The kernel lets the owner choose a policy's index and counts up from zero for everybody else,
/// so the range tells ours from those of another IPsec implementation, also after a crash.
pub const INDEX_BASE: u32 = 0x4c00_0000;
/// Size of the range of our indices.
pub const INDEX_SPAN: u32 = 0x0100_0000;

/// Which packets a policy is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Direction {
    /// Delivered to this machine.
    In,
    /// Sent or forwarded by this machine.
    Out,
    /// Forwarded, checked before routing out.
    Forward,
}

/// A port with the bits of it that count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PortMatch {
    /// The bits to compare with.
    pub value: u16,
    /// Which bits are compared; 0 matches every port.
    pub mask: u16,
}

/// A policy that blocks or allows packets in clear.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct XfrmPolicy {
    /// Which packets.
    pub direction: Direction,
    /// Their source.
    pub source: IpNet,
    /// Their destination.
    pub destination: IpNet,
    /// Upper-layer protocol, 0 for any.
    pub protocol: u8,
    /// Source port, or ICMP type.
    pub source_port: PortMatch,
    /// Destination port, or ICMP code.
    pub destination_port: PortMatch,
    /// A bit that the packet's mark has to have.
    pub mark: Option<u32>,
    /// Lower is looked at first.
    pub priority: u32,
    /// Whether the packets pass.
    pub allow: bool,
}

/// A connection to the kernel's policy database.
#[derive(Debug)]
pub struct XfrmPolicies {
    connection: Connection<XfrmMessage>,
}

impl XfrmPolicies {
    /// Opens the connection in the network namespace of the calling thread.
    pub fn open() -> io::Result<Self> {
        Connection::open(NETLINK_XFRM).map(|connection| Self { connection })
    }

    /// Makes `wanted` the set of our policies, and returns how many changed.
    ///
    /// New ones are added before old ones go, so what both sets block is blocked all the time. A
    /// selector that another program holds already is refused (`AlreadyExists`).
    pub fn replace(&mut self, wanted: &[XfrmPolicy]) -> io::Result<usize> {
        let present = self.list()?;
        let have: HashSet<&XfrmPolicy> = present.iter().map(|(_, policy)| policy).collect();
        let indices: HashMap<XfrmPolicy, u32> = present
            .iter()
            .map(|(index, policy)| (unranked(policy), *index))
            .collect();
        let keep: HashSet<XfrmPolicy> = wanted.iter().map(unranked).collect();
        let mut used: HashSet<u32> = present.iter().map(|(index, _)| *index).collect();
        let mut changed = 0;
        let mut slot = 0;
        for policy in wanted.iter().filter(|policy| !have.contains(policy)) {
            // A policy that only changes its priority or action has the selector of the old one.
            let old = indices.get(&unranked(policy));
            let index = match old {
                Some(index) => *index,
                None => free_index(policy.direction, &mut slot, &used)?,
            };
            used.insert(index);
            self.add(policy, index, old.is_some())?;
            changed += 1;
        }
        let is_kept = |policy: &XfrmPolicy| keep.contains(&unranked(policy));
        for (index, policy) in present.iter().filter(|(_, policy)| !is_kept(policy)) {
            self.remove(*index, policy)?;
            changed += 1;
        }
        Ok(changed)
    }

    /// Lists our policies with their indices.
    pub fn list(&mut self) -> io::Result<Vec<(u32, XfrmPolicy)>> {
        let request = XfrmMessage::GetPolicy(DelGetMessage::default());
        let listed = self.connection.dump(request)?;
        Ok(listed.iter().filter_map(own_policy).collect())
    }

    fn add(&mut self, policy: &XfrmPolicy, index: u32, update: bool) -> io::Result<()> {
        let message = ModifyMessage {
            user_policy_info: UserPolicyInfo {
                selector: selector(policy),
                priority: policy.priority,
                index,
                direction: direction_number(policy.direction),
                action: if policy.allow {
                    XFRM_POLICY_ALLOW
                } else {
                    XFRM_POLICY_BLOCK
                },
                ..UserPolicyInfo::default()
            },
            nlas: mark(policy),
        };
        if update {
            return self
                .connection
                .change(XfrmMessage::UpdatePolicy(message), NLM_F_CREATE);
        }
        self.connection
            .change(XfrmMessage::AddPolicy(message), NLM_F_CREATE | NLM_F_EXCL)
    }

    fn remove(&mut self, index: u32, policy: &XfrmPolicy) -> io::Result<()> {
        let message = DelGetMessage {
            user_policy_id: UserPolicyId {
                index,
                direction: direction_number(policy.direction),
                ..UserPolicyId::default()
            },
            nlas: mark(policy),
        };
        self.connection
            .change(XfrmMessage::DeletePolicy(message), 0)
    }
}

/// The selector alone, which the kernel has once.
fn unranked(policy: &XfrmPolicy) -> XfrmPolicy {
    XfrmPolicy {
        priority: 0,
        allow: false,
        ..*policy
    }
}

/// The next index of our range that is not in use. The low three bits are the direction.
fn free_index(direction: Direction, slot: &mut u32, used: &HashSet<u32>) -> io::Result<u32> {
    while *slot < INDEX_SPAN / 8 {
        let index = INDEX_BASE + *slot * 8 + u32::from(direction_number(direction));
        *slot += 1;
        if !used.contains(&index) {
            return Ok(index);
        }
    }
    Err(io::Error::new(
        io::ErrorKind::StorageFull,
        "too many XFRM policies",
    ))
}

fn direction_number(direction: Direction) -> u8 {
    match direction {
        Direction::In => XFRM_POLICY_IN,
        Direction::Out => XFRM_POLICY_OUT,
        Direction::Forward => XFRM_POLICY_FWD,
    }
}

fn mark(policy: &XfrmPolicy) -> Vec<XfrmAttrs> {
    let mark = policy.mark.map(|bit| Mark {
        value: bit,
        mask: bit,
    });
    mark.map(XfrmAttrs::Mark).into_iter().collect()
}

fn selector(policy: &XfrmPolicy) -> Selector {
    let mut selector = Selector {
        proto: policy.protocol,
        sport: policy.source_port.value,
        sport_mask: policy.source_port.mask,
        dport: policy.destination_port.value,
        dport_mask: policy.destination_port.mask,
        ..Selector::default()
    };
    selector.source_prefix(&policy.source.network(), policy.source.prefix_len());
    selector.destination_prefix(
        &policy.destination.network(),
        policy.destination.prefix_len(),
    );
    selector
}

fn own_policy(message: &XfrmMessage) -> Option<(u32, XfrmPolicy)> {
    let XfrmMessage::AddPolicy(message) = message else {
        return None;
    };
    let info = &message.user_policy_info;
    if !(INDEX_BASE..INDEX_BASE + INDEX_SPAN).contains(&info.index) {
        return None;
    }
    let selector = &info.selector;
    let net = |bytes: [u8; 16], length| {
        let address: IpAddr = if i32::from(selector.family) == libc::AF_INET6 {
            Ipv6Addr::from(bytes).into()
        } else {
            let [a, b, c, d, ..] = bytes;
            Ipv4Addr::new(a, b, c, d).into()
        };
        IpNet::new(address, length).ok()
    };
    let mark = message.nlas.iter().find_map(|attribute| match attribute {
        XfrmAttrs::Mark(mark) => Some(mark.value),
        _ => None,
    });
    let policy = XfrmPolicy {
        direction: match info.direction {
            XFRM_POLICY_IN => Direction::In,
            XFRM_POLICY_OUT => Direction::Out,
            XFRM_POLICY_FWD => Direction::Forward,
            _ => return None,
        },
        source: net(selector.saddr.addr, selector.prefixlen_s)?,
        destination: net(selector.daddr.addr, selector.prefixlen_d)?,
        protocol: selector.proto,
        source_port: PortMatch {
            value: selector.sport,
            mask: selector.sport_mask,
        },
        destination_port: PortMatch {
            value: selector.dport,
            mask: selector.dport_mask,
        },
        mark,
        priority: info.priority,
        allow: info.action == XFRM_POLICY_ALLOW,
    };
    Some((info.index, policy))
}
