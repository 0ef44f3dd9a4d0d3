//! How fast each address may make us compute.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::time::Instant;

use super::rate::RateLimit;

/// One budget for each address that has proven to be the sender's. The addresses of one IPv6 network
/// of 64 bits share one, since one host can have all of them.
#[derive(Debug, Default)]
pub(super) struct Sources {
    budgets: HashMap<IpAddr, RateLimit>,
}

impl Sources {
    /// Takes one from the budget of this address; false if nothing is left of it. Where more
    /// addresses are active than we count, the newest are not limited here.
    pub(super) fn allow(&mut self, addr: IpAddr, per_second: u32, now: Instant) -> bool {
        let source = network(addr);
        if self.budgets.len() >= MOST && !self.budgets.contains_key(&source) {
            self.budgets.retain(|_, budget| !budget.is_full(now));
            if self.budgets.len() >= MOST {
                return true;
            }
        }
        let burst = per_second.saturating_mul(2);
        let fresh = || RateLimit::new(per_second, burst, now);
        let budget = self.budgets.entry(source).or_insert_with(fresh);
        budget.allow(now)
    }
}

fn network(addr: IpAddr) -> IpAddr {
    match addr {
        IpAddr::V4(_) => addr,
        IpAddr::V6(addr) => {
            let prefix = addr.to_bits() & !u128::from(u64::MAX);
            Ipv6Addr::from_bits(prefix).into()
        }
    }
}

/// Less than 1 MiB.
const MOST: usize = 8192;

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn every_source_has_its_own_budget_and_an_ipv6_network_is_one_source() {
        let start = Instant::now();
        let mut sources = Sources::default();
        let mut count = |addr: &str, at| {
            let addr = addr.parse().expect("an address");
            (0..100).filter(|_| sources.allow(addr, 10, at)).count()
        };
        assert_eq!(count("192.0.2.1", start), 20);
        assert_eq!(count("192.0.2.2", start), 20);
        assert_eq!(count("2001:db8::1", start), 20);
        assert_eq!(count("2001:db8::2", start), 0);
        assert_eq!(count("2001:db8:0:1::1", start), 20);
        assert_eq!(count("192.0.2.1", start + Duration::from_secs(1)), 10);
    }

    #[test]
    fn more_sources_than_fit_are_not_limited_and_not_kept() {
        let start = Instant::now();
        let mut sources = Sources::default();
        for number in 0..20_000_u32 {
            let addr = IpAddr::from((0x0a00_0000 + number).to_be_bytes());
            assert!(sources.allow(addr, 10, start));
        }
        assert_eq!(sources.budgets.len(), MOST);
        let later = start + Duration::from_secs(10);
        assert!(sources.allow([192, 0, 2, 1].into(), 10, later));
        assert_eq!(sources.budgets.len(), 1, "those that rest are forgotten");
    }
}
