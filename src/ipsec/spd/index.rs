//! Finds the first policy that covers a flow without trying each.
//!
//! Policies are grouped by the pair of their prefix lengths. Within a group the flow's addresses,
//! cut to those lengths, name the candidates by one hash look-up. Real databases hold thousands of
//! policies, but only a handful of pairs of lengths ("tuple space search", Srinivasan et al. 1999).
//! Policies that differ in nothing but protocol and ports are candidates together and tried in order.

use std::collections::HashMap;
use std::net::IpAddr;

use super::{Direction, Ends, Policy};
use crate::ipsec::hash::KeyHash;
use crate::wire::selector::TrafficSelector;

/// The policies of one direction. A rank is a policy's place in the order of evaluation.
#[derive(Debug, Default)]
pub(super) struct Index {
    v4: Vec<Group>,
    v6: Vec<Group>,
}

/// Policies whose prefixes have the same lengths.
#[derive(Debug)]
struct Group {
    best_rank: usize,
    local: Mask,
    remote: Mask,
    candidates: HashMap<Prefixes, Vec<usize>, KeyHash>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Prefixes {
    local: u128,
    remote: u128,
}

/// The leading bits of an address that count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Mask(u128);

impl Index {
    pub(super) fn new(policies: &[Policy], direction: Direction) -> Self {
        let mut index = Self::default();
        for (rank, policy) in policies.iter().enumerate() {
            let same_family = policy.local.is_ipv6() == policy.remote.is_ipv6();
            if policy.direction == direction && same_family {
                index.insert(rank, policy);
            }
        }
        index
    }

    /// Ranks come in rising order, so groups and candidates are sorted by rank as they grow.
    fn insert(&mut self, rank: usize, policy: &Policy) {
        let groups = if policy.local.is_ipv6() {
            &mut self.v6
        } else {
            &mut self.v4
        };
        let (local, remote) = (
            Mask::covering(&policy.local),
            Mask::covering(&policy.remote),
        );
        let prefixes = Prefixes {
            local: local.of(policy.local.start()),
            remote: remote.of(policy.remote.start()),
        };
        match groups
            .iter_mut()
            .find(|group| group.local == local && group.remote == remote)
        {
            Some(group) => group.candidates.entry(prefixes).or_default().push(rank),
            None => {
                let candidates = HashMap::from_iter([(prefixes, vec![rank])]);
                groups.push(Group {
                    best_rank: rank,
                    local,
                    remote,
                    candidates,
                });
            }
        }
    }

    /// The policy of lowest rank that covers the flow.
    pub(super) fn first<'a>(&self, policies: &'a [Policy], ends: &Ends) -> Option<&'a Policy> {
        let groups = match ends.local.address() {
            IpAddr::V4(_) => &self.v4,
            IpAddr::V6(_) => &self.v6,
        };
        let mut found: Option<(usize, &Policy)> = None;
        for group in groups {
            let limit = found.map_or(usize::MAX, |(rank, _)| rank);
            if group.best_rank > limit {
                break; // groups are sorted: none behind this one can do better
            }
            let prefixes = Prefixes {
                local: group.local.of(ends.local.address()),
                remote: group.remote.of(ends.remote.address()),
            };
            let candidates = group.candidates.get(&prefixes).into_iter().flatten();
            let better = candidates
                .take_while(|rank| **rank < limit)
                .find_map(|rank| {
                    policies
                        .get(*rank)
                        .filter(|p| p.covers(ends))
                        .map(|p| (*rank, p))
                });
            found = better.or(found);
        }
        found.map(|(_, policy)| policy)
    }
}

impl Mask {
    /// The longest prefix that covers a selector's whole range.
    fn covering(selector: &TrafficSelector) -> Self {
        let differing = bits(selector.start()) ^ bits(selector.end());
        let free = u128::BITS - differing.leading_zeros();
        Self(u128::MAX.checked_shl(free).unwrap_or(0))
    }

    fn of(self, address: IpAddr) -> u128 {
        bits(address) & self.0
    }
}

fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u128::from(address.to_bits()),
        IpAddr::V6(address) => address.to_bits(),
    }
}
