//! Finds the first policy that covers a flow without trying each.
//!
//! Policies are grouped by the pair of their prefix lengths. Within a group the flow's addresses,
//! cut to those lengths, name the candidates by one hash look-up. Real databases hold thousands of
//! policies, but only a handful of pairs of lengths ("tuple space search", Srinivasan et al. 1999).
//! Policies that differ in nothing but protocol and ports are candidates together and tried in order.
//!
//! With thousands of policies a look-up costs what it misses in the cache, so a table entry is small
//! and says all, the action too: most policies cover whole prefixes and need not be looked at.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::IpAddr;

use super::{Action, Direction, Ends, Policy};
use crate::ipsec::hash::KeyHash;
use crate::wire::selector::TrafficSelector;

/// The policies of one direction. A rank is a policy's place in the order of evaluation.
#[derive(Debug, Default)]
pub(super) struct Index {
    v4: Vec<Group<u32>>,
    v6: Vec<Group<u128>>,
}

/// Policies whose prefixes have the same lengths.
#[derive(Debug)]
struct Group<A> {
    best_rank: u32,
    local: A,
    remote: A,
    candidates: HashMap<(A, A), Candidates, KeyHash>,
    /// The candidates behind the first, where there are several.
    others: Vec<Vec<Candidate>>,
}

/// The policies of one pair of prefixes.
#[derive(Clone, Copy, Debug)]
struct Candidates {
    first: Candidate,
    /// Where the others are, counted from one; zero if there are none.
    others: u32,
}

/// A policy, by its rank, and what it says.
#[derive(Clone, Copy, Debug)]
pub(super) struct Candidate {
    /// The rank, and in the last bit whether it covers whatever has its prefixes.
    rank_and_certain: u32,
    pub(super) action: Action,
}

/// An address of either family as a number.
trait Address: Copy + Eq + Hash {
    /// The leading bits of `self` that `mask` keeps.
    fn cut(self, mask: Self) -> Self;
}

impl Index {
    pub(super) fn new(policies: &[Policy], direction: Direction) -> Self {
        let mut index = Self::default();
        for (rank, policy) in (0..=Candidate::MAX_RANK).zip(policies) {
            if policy.direction == direction {
                index.insert(rank, policy);
            }
        }
        index
    }

    fn insert(&mut self, rank: u32, policy: &Policy) {
        let (local, remote) = (Prefix::of(&policy.local), Prefix::of(&policy.remote));
        let certain = local.is_whole(&policy.local) && remote.is_whole(&policy.remote);
        let candidate = Candidate::new(rank, certain, policy.action);
        match (policy.local.is_ipv6(), policy.remote.is_ipv6()) {
            (false, false) => insert(&mut self.v4, [local.v4(), remote.v4()], candidate),
            (true, true) => insert(&mut self.v6, [local, remote], candidate),
            _ => {}
        }
    }

    /// The first policy that covers the flow.
    #[inline]
    pub(super) fn first(&self, policies: &[Policy], ends: &Ends) -> Option<Candidate> {
        let covers = |candidate: &Candidate| {
            let policy = candidate.policy(policies);
            policy.is_some_and(|policy| policy.covers(ends))
        };
        match (ends.local.address(), ends.remote.address()) {
            (IpAddr::V4(local), IpAddr::V4(remote)) => {
                first(&self.v4, local.to_bits(), remote.to_bits(), covers)
            }
            (IpAddr::V6(local), IpAddr::V6(remote)) => {
                first(&self.v6, local.to_bits(), remote.to_bits(), covers)
            }
            _ => None,
        }
    }
}

/// Ranks come in rising order, so groups and candidates are sorted by rank as they grow.
fn insert<A: Address>(groups: &mut Vec<Group<A>>, prefixes: [Prefix<A>; 2], candidate: Candidate) {
    let [local, remote] = prefixes;
    let key = (local.start, remote.start);
    let alone = Candidates {
        first: candidate,
        others: 0,
    };
    let Some(group) = groups
        .iter_mut()
        .find(|group| (group.local, group.remote) == (local.mask, remote.mask))
    else {
        groups.push(Group {
            best_rank: candidate.rank(),
            local: local.mask,
            remote: remote.mask,
            candidates: HashMap::from_iter([(key, alone)]),
            others: Vec::new(),
        });
        return;
    };
    let known = group.candidates.entry(key).or_insert(alone);
    if known.first.rank() == candidate.rank() {
        return;
    }
    if known.others == 0 {
        group.others.push(Vec::new());
        known.others = u32::try_from(group.others.len()).unwrap_or(0);
    }
    if let Some(others) = group.others.get_mut(others_index(known.others)) {
        others.push(candidate);
    }
}

#[inline]
fn first<A: Address>(
    groups: &[Group<A>],
    local: A,
    remote: A,
    covers: impl Fn(&Candidate) -> bool,
) -> Option<Candidate> {
    let mut found: Option<Candidate> = None;
    for group in groups {
        let limit = found.map_or(u32::MAX, Candidate::rank);
        if group.best_rank > limit {
            break; // groups are sorted: none behind this one can do better
        }
        let key = (local.cut(group.local), remote.cut(group.remote));
        let Some(candidates) = group.candidates.get(&key) else {
            continue;
        };
        let others = match candidates.others {
            0 => &[][..],
            index => group
                .others
                .get(others_index(index))
                .map_or(&[][..], Vec::as_slice),
        };
        let better = std::iter::once(&candidates.first)
            .chain(others)
            .take_while(|candidate| candidate.rank() < limit)
            .find(|candidate| candidate.is_certain() || covers(candidate));
        found = better.copied().or(found);
    }
    found
}

fn others_index(number: u32) -> usize {
    usize::try_from(number).map_or(usize::MAX, |number| number.wrapping_sub(1))
}

impl Candidate {
    const MAX_RANK: u32 = u32::MAX / 2;

    /// A certain one covers whatever has its prefixes.
    fn new(rank: u32, certain: bool, action: Action) -> Self {
        Self {
            rank_and_certain: rank << 1 | u32::from(certain),
            action,
        }
    }

    /// Its policy, among all.
    #[inline]
    pub(super) fn policy(self, policies: &[Policy]) -> Option<&Policy> {
        policies.get(usize::try_from(self.rank()).ok()?)
    }

    #[inline]
    fn rank(self) -> u32 {
        self.rank_and_certain >> 1
    }

    #[inline]
    fn is_certain(self) -> bool {
        self.rank_and_certain & 1 != 0
    }
}

impl Address for u32 {
    #[inline]
    fn cut(self, mask: Self) -> Self {
        self & mask
    }
}

impl Address for u128 {
    #[inline]
    fn cut(self, mask: Self) -> Self {
        self & mask
    }
}

/// The first address of a prefix, and the leading bits that count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Prefix<A> {
    start: A,
    mask: A,
}

impl Prefix<u128> {
    /// The longest prefix that covers a selector's whole range. IPv4 addresses are the last 32 bits.
    fn of(selector: &TrafficSelector) -> Self {
        let (start, end) = (bits(selector.start()), bits(selector.end()));
        let free = u128::BITS - (start ^ end).leading_zeros();
        let mask = u128::MAX.checked_shl(free).unwrap_or(0);
        Self {
            start: start & mask,
            mask,
        }
    }

    /// Whether a selector covers all of it, whatever the protocol and the ports.
    fn is_whole(&self, selector: &TrafficSelector) -> bool {
        bits(selector.start()) == self.start
            && bits(selector.end()) == self.start | !self.mask
            && selector.protocol() == 0
            && selector.any_port()
    }

    fn v4(self) -> Prefix<u32> {
        let low = |bits: u128| u32::try_from(bits & u128::from(u32::MAX)).unwrap_or(u32::MAX);
        Prefix {
            start: low(self.start),
            mask: low(self.mask),
        }
    }
}

fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u128::from(address.to_bits()),
        IpAddr::V6(address) => address.to_bits(),
    }
}
