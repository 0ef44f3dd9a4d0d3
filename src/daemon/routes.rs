//! Routes into the tunnel device, and the rules that lead to them.
//!
//! ```text
//! 4488  our own outer packets (fwmark)          ─► 4501
//! 4489  from the tunnel device                  ─► 4500
//! 4490  from this machine                       ─► 4492
//! 4491  clear text from outside: bypass ─► 4492, discarded or (without policies) protected ─► dropped
//! 4492  bypass ─► 4501, discard ─► refused, in the order of the SPD
//! 4500  not our own outer packets: table 4500   remote_ts to the device, local_ts thrown back
//! 4501  (the rules of everybody else follow)
//! ```
//!
//! The routes to the device vanish with it. Those below them, and the rules, stay after a crash and
//! refuse what would have gone into a tunnel; the next start takes them over.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::IpAddr,
};

use ipnet::IpNet;

use super::{
    guard::Mirrored,
    reach::{self, Reach, Verdict},
};
use crate::{
    io::netlink::routing::{Route, RouteAction, Routing, Rule, RuleAction},
    ipsec::Spd,
};

/// What the routes have to fit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Name of the tunnel device.
    pub device: String,
    /// Index of the tunnel device once it exists.
    pub index: Option<u32>,
    /// Routing table of our own.
    pub table: u32,
    /// Mark of our own outer packets.
    pub mark: u32,
    /// Whether protected traffic is refused while there is no tunnel device.
    pub guard: bool,
    /// Where the guard's policies drop protected clear text from outside. Where they do not, rules have to.
    pub mirrored: Mirrored,
}

/// Routes and rules that belong together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// In no order.
    pub routes: BTreeSet<Route>,
    /// In order of evaluation.
    pub rules: Vec<Rule>,
}

impl Plan {
    /// What an SPD needs. `addresses` are our own; one of them inside `local_ts` becomes the source hint.
    #[must_use]
    pub fn new(spd: &Spd, addresses: &[IpAddr], settings: &Settings) -> Self {
        let reaches = reach::outbound(spd);
        let mut plan = Self::default();
        plan.add_routes(&reaches, addresses, settings);
        for ipv6 in [false, true] {
            let family: Vec<&Reach> = reaches
                .iter()
                .filter(|reach| reach.is_ipv6() == ipv6)
                .collect();
            if !family.is_empty() {
                plan.add_rules(&family, ipv6, settings);
            }
        }
        plan
    }

    fn add_routes(&mut self, reaches: &[Reach], addresses: &[IpAddr], settings: &Settings) {
        let mut remotes: BTreeMap<IpNet, Vec<IpNet>> = BTreeMap::new();
        for reach in reaches {
            if reach.verdict == Verdict::Protect {
                remotes.entry(reach.remote).or_default().push(reach.local);
            }
        }
        let mut add = |to, metric, action| {
            self.routes.insert(Route {
                to,
                table: settings.table,
                metric,
                action,
            });
        };
        for (&remote, locals) in &remotes {
            if settings.guard {
                add(remote, LAST_RESORT, RouteAction::Unreachable);
            }
            if let Some(index) = settings.index {
                let source = addresses
                    .iter()
                    .copied()
                    .find(|address| locals.iter().any(|net| is_own(net, address)));
                add(remote, PREFERRED, RouteAction::Device { index, source });
            }
            let on_link = reach::on_link_only();
            let inside = locals.iter().chain(&on_link);
            let inside = inside.filter(|net| reach::is_inside(net, &remote));
            for &net in inside.filter(|net| !remotes.contains_key(*net)) {
                add(net, PREFERRED, RouteAction::Throw);
            }
        }
    }

    fn add_rules(&mut self, reaches: &[&Reach], ipv6: bool, settings: &Settings) {
        let goto = |priority, target| Rule::new(ipv6, priority, RuleAction::Goto(target));
        let table = Rule::new(ipv6, TABLE, RuleAction::Table(settings.table));
        self.rules.extend([
            Rule {
                mark: Some(settings.mark),
                ..goto(OWN_PACKETS, END)
            },
            Rule {
                from_device: Some(settings.device.clone()),
                ..goto(FROM_TUNNEL, TABLE)
            },
            Rule {
                from_device: Some("lo".to_owned()),
                ..goto(FROM_HERE, OUTBOUND)
            },
        ]);
        let mirrored = if ipv6 {
            settings.mirrored.ipv6
        } else {
            settings.mirrored.ipv4
        };
        for reach in reaches {
            self.add_inbound_rules(reach, settings.guard && !mirrored);
        }
        self.rules.push(Rule::new(ipv6, OUTBOUND, RuleAction::Nop));
        for (place, reach) in reaches.iter().enumerate() {
            let later = reaches.get(place..).unwrap_or_default();
            let action = match reach.verdict {
                Verdict::Bypass => RuleAction::Goto(END),
                Verdict::Discard => RuleAction::Prohibit,
                Verdict::Protect if later.iter().all(|r| r.verdict == Verdict::Protect) => continue,
                Verdict::Protect => RuleAction::Goto(TABLE),
            };
            let rule = Rule::new(ipv6, OUTBOUND, action);
            self.rules.extend(between(rule, reach, true));
        }
        self.rules.extend([
            Rule {
                mark: Some(settings.mark),
                invert: true,
                ..table
            },
            Rule::new(ipv6, END, RuleAction::Nop),
        ]);
    }

    /// Clear text that is forwarded from the peer's side to ours. What is protected meets the guard's
    /// policies, which are looked up, while rules are read one by one for each packet.
    fn add_inbound_rules(&mut self, reach: &Reach, drop: bool) {
        let ipv6 = reach.is_ipv6();
        let action = match reach.verdict {
            Verdict::Bypass => RuleAction::Goto(OUTBOUND),
            Verdict::Discard => RuleAction::Blackhole,
            Verdict::Protect if drop => RuleAction::Blackhole,
            Verdict::Protect => return,
        };
        if reach.verdict == Verdict::Protect && reach::is_inside(&reach.local, &reach.remote) {
            self.rules.push(Rule {
                from: Some(reach.local),
                to: Some(reach.local),
                ..Rule::new(ipv6, FROM_OUTSIDE, RuleAction::Goto(OUTBOUND))
            });
        }
        let portless = Reach {
            local_ports: None,
            remote_ports: None,
            ..*reach
        };
        let reach = if reach.verdict == Verdict::Protect {
            &portless
        } else {
            reach
        };
        let rule = Rule::new(ipv6, FROM_OUTSIDE, action);
        self.rules.extend(between(rule, reach, false));
    }
}

/// Whether packets to the peer should come from this address. Where any may, the kernel chooses.
fn is_own(local: &IpNet, address: &IpAddr) -> bool {
    local.prefix_len() > 0 && local.contains(address)
}

/// `rule` for the packets of `reach` in one direction; `None` where rules cannot tell them apart.
fn between(rule: Rule, reach: &Reach, outward: bool) -> Option<Rule> {
    let has_ports = reach.local_ports.is_some() || reach.remote_ports.is_some();
    if has_ports && !matches!(reach.protocol, TCP | UDP | SCTP) {
        return None;
    }
    let empty = |ports: Option<(u16, u16)>| ports.is_some_and(|(first, last)| first > last);
    if empty(reach.local_ports) || empty(reach.remote_ports) {
        return None;
    }
    let swap = |local, remote| {
        if outward {
            (local, remote)
        } else {
            (remote, local)
        }
    };
    let (from, to) = swap(Some(reach.local), Some(reach.remote));
    let ports = |ports: Option<(u16, u16)>| ports.filter(|&range| range != (0, u16::MAX));
    let (local_ports, remote_ports) = (ports(reach.local_ports), ports(reach.remote_ports));
    let (source_ports, destination_ports) = if outward {
        (local_ports, remote_ports)
    } else {
        (remote_ports, local_ports)
    };
    Some(Rule {
        from,
        to,
        protocol: (reach.protocol != 0).then_some(reach.protocol),
        source_ports,
        destination_ports,
        ..rule
    })
}

/// What a starting process finds of our routes and rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Present {
    /// Nothing.
    Nothing,
    /// What stays when a process ends without cleaning up.
    Stale,
    /// Routes to a tunnel device, which vanish with their process: it is alive.
    InUse,
}

/// Our part of the kernel's routing. Dropping it leaves everything in place.
#[derive(Debug)]
pub struct Routes {
    routing: Routing,
    settings: Settings,
    rules: Vec<Rule>,
    /// Our own addresses at the last update.
    addresses: Vec<IpAddr>,
    /// Those of them that peers have given us.
    virtual_ips: BTreeSet<IpAddr>,
}

impl Routes {
    /// Connects to the kernel and changes nothing.
    pub fn open(settings: Settings) -> io::Result<Self> {
        Ok(Self {
            routing: Routing::open()?,
            settings,
            rules: Vec::new(),
            addresses: Vec::new(),
            virtual_ips: BTreeSet::new(),
        })
    }

    /// What is there of ours already.
    pub fn present(&mut self) -> io::Result<Present> {
        let routes = self.routing.routes(self.settings.table)?;
        let to_device = |route: &Route| matches!(route.action, RouteAction::Device { .. });
        Ok(if routes.iter().any(to_device) {
            Present::InUse
        } else if routes.is_empty() && self.routing.rules()?.is_empty() {
            Present::Nothing
        } else {
            Present::Stale
        })
    }

    /// From now on the routes lead to this device.
    pub fn set_device(&mut self, index: u32) {
        self.settings.index = Some(index);
    }

    /// Where the guard's policies are those of the SPD that [`Self::update`] gets next.
    pub fn set_mirrored(&mut self, mirrored: Mirrored) {
        self.settings.mirrored = mirrored;
    }

    /// Puts the addresses that peers have given us on the tunnel device, and takes those away that are no
    /// longer ours. To be followed by [`Self::update`], since the routes hint at them.
    pub fn set_virtual_ips(&mut self, wanted: BTreeSet<IpAddr>) -> io::Result<()> {
        let Some(link) = self.settings.index else {
            return Ok(());
        };
        for address in wanted.difference(&self.virtual_ips) {
            self.routing.add_address(link, *address)?;
        }
        for address in self.virtual_ips.difference(&wanted) {
            self.routing.remove_address(link, *address)?;
        }
        self.virtual_ips = wanted;
        Ok(())
    }

    /// Makes the kernel's routing fit `spd`, whatever is there of ours, and without a gap.
    pub fn update(&mut self, spd: &Spd) -> io::Result<()> {
        self.addresses = self.routing.addresses()?;
        let plan = Plan::new(spd, &self.addresses, &self.settings);
        self.apply(plan)
    }

    /// Whether our addresses have changed since the last update, and with them perhaps a source hint.
    pub fn are_outdated(&mut self) -> io::Result<bool> {
        Ok(self.routing.addresses()? != self.addresses)
    }

    /// Takes away all routes and rules of ours.
    pub fn remove(&mut self) -> io::Result<()> {
        self.apply(Plan::default())
    }

    fn apply(&mut self, plan: Plan) -> io::Result<()> {
        let present: BTreeSet<Route> = self
            .routing
            .routes(self.settings.table)?
            .into_iter()
            .collect();
        // A route that only changes its source hint has to go before the new one can come.
        let clashes = |old: &&Route| {
            let same = |new: &&Route| (new.to, new.metric) == (old.to, old.metric);
            !plan.routes.contains(old) && plan.routes.iter().any(|new| same(&new))
        };
        let clashing: BTreeSet<Route> = present.iter().filter(clashes).copied().collect();
        for route in &clashing {
            self.routing.remove_route(route)?;
        }
        for route in plan.routes.difference(&present) {
            self.add_route(route)?;
        }
        if self.rules != plan.rules || plan.rules.is_empty() {
            let old = self.routing.rules()?;
            for rule in &plan.rules {
                self.routing.add_rule(rule)?;
            }
            for rule in old {
                self.routing.remove_rule(rule)?;
            }
            self.rules = plan.rules;
        }
        // Without a hint the kernel would take the new route for one that is gone already.
        for route in present.difference(&plan.routes) {
            if !clashing.contains(route) {
                self.routing.remove_route(route)?;
            }
        }
        Ok(())
    }

    fn add_route(&mut self, route: &Route) -> io::Result<()> {
        match (self.routing.add_route(route), route.action) {
            // The hint may name an address that is not usable yet; a route without it is better than none.
            (
                Err(error),
                RouteAction::Device {
                    index,
                    source: Some(_),
                },
            ) if error.kind() == io::ErrorKind::InvalidInput => self.routing.add_route(&Route {
                action: RouteAction::Device {
                    index,
                    source: None,
                },
                ..*route
            }),
            (result, _) => result,
        }
    }
}

const OWN_PACKETS: u32 = 4488;
const FROM_TUNNEL: u32 = 4489;
const FROM_HERE: u32 = 4490;
const FROM_OUTSIDE: u32 = 4491;
const OUTBOUND: u32 = 4492;
const TABLE: u32 = 4500;
const END: u32 = 4501;

/// Metric of the routes that are meant to be used.
const PREFERRED: u32 = 100;
/// Metric of the routes that are left when the tunnel device is gone.
const LAST_RESORT: u32 = u32::MAX;

const TCP: u8 = 6;
const UDP: u8 = 17;
const SCTP: u8 = 132;

#[cfg(test)]
mod tests;
