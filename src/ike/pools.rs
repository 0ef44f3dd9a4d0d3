//! Addresses that peers get from us (RFC 7296 §2.19), and who has them.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::net::IpAddr;

use ipnet::IpNet;

use crate::wire::ikev2::Family;
use crate::wire::selector::TrafficSelector;

use super::Identity;

/// A range of addresses to give away, and what goes with them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pool {
    /// Name of its section.
    pub name: String,
    /// First address.
    pub first: IpAddr,
    /// Last address, of the same family and not before the first.
    pub last: IpAddr,
    /// Name servers.
    pub dns: Vec<IpAddr>,
    /// Networks that we protect.
    pub subnets: Vec<IpNet>,
}

impl Pool {
    /// That of its addresses.
    pub fn family(&self) -> Family {
        Family::of(self.first)
    }

    /// How many addresses it has, as far as that can be counted.
    pub fn size(&self) -> u64 {
        let size = number(self.last) - number(self.first);
        u64::try_from(size).unwrap_or(u64::MAX).saturating_add(1)
    }

    /// All its addresses.
    pub fn selector(&self) -> TrafficSelector {
        TrafficSelector::new(0, 0..=u16::MAX, self.first, self.last)
            .expect("a pool is a range of one family")
    }

    fn contains(&self, address: IpAddr) -> bool {
        Family::of(address) == self.family() && (self.first..=self.last).contains(&address)
    }
}

/// The leases of every pool, by its name.
#[derive(Debug, Default)]
pub(super) struct Pools {
    pools: HashMap<String, Leases>,
}

/// An address and who has it, or had it last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// The address.
    pub address: IpAddr,
    /// Whose it is.
    pub identity: Identity,
    /// IKE SAs that hold it: none once the peer has gone.
    pub holders: Vec<u64>,
}

#[derive(Debug, Default)]
struct Leases {
    by_address: BTreeMap<IpAddr, Lease>,
    /// Addresses that each identity has or had.
    by_identity: HashMap<Identity, Vec<IpAddr>>,
    /// Addresses without a holder, the longest first.
    idle: VecDeque<IpAddr>,
    /// How many of the first addresses have been given to somebody.
    used: u128,
}

impl Pools {
    /// An address of a pool for `holder`. Who comes back gets its old address; one that somebody has left
    /// is given to somebody else only when there is no other. `None` if all are held.
    pub(super) fn acquire(
        &mut self,
        pool: &Pool,
        identity: &Identity,
        wanted: Option<IpAddr>,
        holder: u64,
    ) -> Option<IpAddr> {
        let leases = self.pools.entry(pool.name.clone()).or_default();
        let own = leases.by_identity.get(identity);
        let own = own.into_iter().flatten().copied();
        // An address that is held is shared by who asks for it and had it before: a new authentication.
        let free = |address: &IpAddr| {
            let held = leases.by_address.get(address);
            Some(*address) == wanted || held.is_some_and(|lease| lease.holders.is_empty())
        };
        let own: Vec<_> = own.filter(|address| pool.contains(*address)).collect();
        let old = own.iter().find(|address| Some(**address) == wanted);
        let old = old.or_else(|| own.iter().find(|address| free(address)));
        let address = old.copied();
        let address = address
            .or_else(|| leases.fresh(pool))
            .or_else(|| leases.abandoned(pool))?;
        leases.hold(address, identity, holder);
        Some(address)
    }

    /// The address that the IKE SA had which `holder` goes on from, unless somebody else has got it since:
    /// no IKE SA holds it but the `old` one.
    pub(super) fn keep(
        &mut self,
        pool: &Pool,
        (identity, old): (&Identity, Option<u64>),
        address: IpAddr,
        holder: u64,
    ) -> Option<IpAddr> {
        let leases = self.pools.entry(pool.name.clone()).or_default();
        let is_theirs = match leases.by_address.get(&address) {
            Some(lease) => lease.holders.iter().all(|holder| Some(*holder) == old),
            None => leases.by_address.len() < MAX_LEASES,
        };
        if !is_theirs || !pool.contains(address) {
            return None;
        }
        leases.hold(address, identity, holder);
        Some(address)
    }

    /// The IKE SA does not need its addresses any more.
    pub(super) fn release(&mut self, addresses: &[IpAddr], holder: u64) {
        for leases in self.pools.values_mut() {
            for address in addresses {
                leases.release(*address, holder);
            }
        }
    }

    /// The leases of a pool in the order of their addresses.
    pub(super) fn leases(&self, pool: &str) -> impl Iterator<Item = &Lease> {
        let leases = self.pools.get(pool).into_iter();
        leases.flat_map(|leases| leases.by_address.values())
    }
}

impl Leases {
    /// An address that nobody has had.
    fn fresh(&mut self, pool: &Pool) -> Option<IpAddr> {
        if self.by_address.len() >= MAX_LEASES {
            return None;
        }
        loop {
            let next = number(pool.first).checked_add(self.used)?;
            if next > number(pool.last) {
                return None;
            }
            self.used += 1;
            let address = address(next, pool.family());
            if !self.by_address.contains_key(&address) {
                return Some(address);
            }
        }
    }

    /// The address that has been without a holder for the longest time.
    fn abandoned(&mut self, pool: &Pool) -> Option<IpAddr> {
        let place = self.idle.iter().position(|idle| pool.contains(*idle))?;
        self.idle.remove(place)
    }

    fn hold(&mut self, address: IpAddr, identity: &Identity, holder: u64) {
        self.idle.retain(|idle| *idle != address);
        let lease = self.by_address.entry(address).or_insert_with(|| Lease {
            address,
            identity: identity.clone(),
            holders: Vec::new(),
        });
        if lease.identity != *identity {
            let before = std::mem::replace(&mut lease.identity, identity.clone());
            if let Some(own) = self.by_identity.get_mut(&before) {
                own.retain(|own| *own != address);
                if own.is_empty() {
                    self.by_identity.remove(&before);
                }
            }
        }
        lease.holders.push(holder);
        let own = self.by_identity.entry(identity.clone()).or_default();
        if !own.contains(&address) {
            own.push(address);
        }
    }

    fn release(&mut self, address: IpAddr, holder: u64) {
        let Some(lease) = self.by_address.get_mut(&address) else {
            return;
        };
        let held = lease.holders.len();
        lease.holders.retain(|known| *known != holder);
        if held > 0 && lease.holders.is_empty() {
            self.idle.push_back(address);
        }
    }
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u128::from(address.to_bits()),
        IpAddr::V6(address) => address.to_bits(),
    }
}

fn address(number: u128, family: Family) -> IpAddr {
    match family {
        Family::V4 => IpAddr::from(u32::try_from(number).unwrap_or(u32::MAX).to_be_bytes()),
        Family::V6 => IpAddr::from(number.to_be_bytes()),
    }
}

/// Identities of one pool that are remembered.
const MAX_LEASES: usize = 65_536;

#[cfg(test)]
mod tests {
    use super::*;

    fn pool(first: &str, last: &str) -> Pool {
        let parse = |text: &str| text.parse().expect("an address");
        Pool {
            name: "pool".to_owned(),
            first: parse(first),
            last: parse(last),
            dns: Vec::new(),
            subnets: Vec::new(),
        }
    }

    fn peer(name: &str) -> Identity {
        format!("{name}.example").parse().expect("an identity")
    }

    fn ip(last: u8) -> Option<IpAddr> {
        Some([10, 3, 0, last].into())
    }

    #[test]
    fn who_comes_back_gets_its_old_address_and_the_longest_left_goes_first() {
        let pool = pool("10.3.0.1", "10.3.0.3");
        let mut pools = Pools::default();
        let mut get = |name: &str, holder| pools.acquire(&pool, &peer(name), None, holder);
        assert_eq!(
            [get("a", 1), get("b", 2), get("c", 3)],
            [ip(1), ip(2), ip(3)]
        );
        assert_eq!(get("d", 4), None);
        let all = [1, 2, 3].map(|last| ip(last).expect("an address"));
        pools.release(&all, 2);
        pools.release(&all, 1);
        assert_eq!(pools.acquire(&pool, &peer("a"), None, 5), ip(1));
        assert_eq!(pools.acquire(&pool, &peer("d"), None, 6), ip(2));
        assert_eq!(pools.acquire(&pool, &peer("b"), None, 7), None);
        let online = pools
            .leases("pool")
            .filter(|lease| !lease.holders.is_empty());
        assert_eq!(online.count(), 3);
    }

    #[test]
    fn a_second_authentication_shares_the_address_that_it_asks_for() {
        let pool = pool("10.3.0.1", "10.3.0.9");
        let mut pools = Pools::default();
        let mut get =
            |name: &str, wanted, holder| pools.acquire(&pool, &peer(name), wanted, holder);
        assert_eq!(get("a", None, 1), ip(1));
        assert_eq!(get("a", ip(1), 2), ip(1));
        assert_eq!(get("a", None, 3), ip(2), "another device of the same name");
        assert_eq!(get("b", ip(1), 4), ip(3), "it is not theirs");
        pools.release(&[[10, 3, 0, 1].into()], 1);
        assert_eq!(pools.acquire(&pool, &peer("a"), None, 5), ip(4));
        pools.release(&[[10, 3, 0, 1].into()], 2);
        assert_eq!(pools.acquire(&pool, &peer("a"), None, 6), ip(1));
    }

    #[test]
    fn who_goes_on_keeps_an_address_unless_somebody_else_has_it() {
        let pool = pool("10.3.0.1", "10.3.0.9");
        let mut pools = Pools::default();
        let mut keep = |name: &str, old, last, holder| {
            pools.keep(&pool, (&peer(name), old), [10, 3, 0, last].into(), holder)
        };
        assert_eq!(
            keep("a", None, 2, 1),
            ip(2),
            "nobody has had it since we started"
        );
        assert_eq!(keep("b", None, 2, 2), None);
        assert_eq!(
            keep("a", None, 2, 2),
            None,
            "another device of the same name"
        );
        assert_eq!(keep("a", Some(1), 2, 3), ip(2), "its own");
        assert_eq!(keep("a", Some(1), 10, 4), None, "not in the pool");
        let mut get = |name: &str, holder| pools.acquire(&pool, &peer(name), None, holder);
        assert_eq!([get("c", 5), get("d", 6)], [ip(1), ip(3)]);
        let two = [[10, 3, 0, 2].into()];
        pools.release(&two, 1);
        assert_eq!(pools.keep(&pool, (&peer("b"), None), two[0], 7), None);
        pools.release(&two, 3);
        assert_eq!(pools.keep(&pool, (&peer("b"), None), two[0], 7), ip(2));
    }

    #[test]
    fn a_large_pool_takes_no_more_memory_than_its_leases() {
        let pool = pool("2001:db8::1", "2001:db8::ffff:ffff:ffff:ffff");
        let mut pools = Pools::default();
        let first = pools.acquire(&pool, &peer("a"), None, 1);
        assert_eq!(first, Some(pool.first));
        assert_eq!(pool.size(), u64::MAX);
    }
}
