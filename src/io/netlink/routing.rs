//! Own addresses, routes and routing rules, by rtnetlink.

use std::{io, net::IpAddr};

use ipnet::IpNet;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::{
    AddressFamily, IpProtocol, RouteNetlinkMessage,
    address::{AddressAttribute, AddressFlags, AddressMessage},
    route::{
        RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope,
        RouteType,
    },
    rule::{RuleAction as Action, RuleAttribute, RuleFlags, RuleMessage, RulePortRange},
};
use netlink_sys::protocols::NETLINK_ROUTE;

use super::{Connection, PROTOCOL, family};

/// A route of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Route {
    /// Which destinations.
    pub to: IpNet,
    /// Routing table.
    pub table: u32,
    /// Lower is preferred among routes to one prefix.
    pub metric: u32,
    /// What happens to the packets.
    pub action: RouteAction,
}

/// What a route does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum RouteAction {
    /// Out of a device, with a hint which of our addresses to send from.
    Device {
        /// Index of the device.
        index: u32,
        /// Source address for packets that do not have one yet.
        source: Option<IpAddr>,
    },
    /// The search leaves this table and goes on with the next rule.
    Throw,
    /// Refused with an ICMP error.
    Unreachable,
}

/// A rule of the routing policy database. Absent fields match everything.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Rule {
    /// Whether the rule is for IPv6.
    pub ipv6: bool,
    /// Place in the order of rules; equal ones keep the order in which they were added.
    pub priority: u32,
    /// Source prefix.
    pub from: Option<IpNet>,
    /// Destination prefix.
    pub to: Option<IpNet>,
    /// Device by which the packet came; `lo` for packets of this machine.
    pub from_device: Option<String>,
    /// Packet mark.
    pub mark: Option<u32>,
    /// The rule applies where the fields above do not match.
    pub invert: bool,
    /// Upper-layer protocol.
    pub protocol: Option<u8>,
    /// Source ports.
    pub source_ports: Option<(u16, u16)>,
    /// Destination ports.
    pub destination_ports: Option<(u16, u16)>,
    /// What the rule does.
    pub action: RuleAction,
}

/// What a routing rule does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RuleAction {
    /// Search this table.
    Table(u32),
    /// Go on with the rule of this priority.
    Goto(u32),
    /// Nothing: a place for [`RuleAction::Goto`] to go to.
    Nop,
    /// Drop without a word.
    Blackhole,
    /// Refuse with an ICMP error.
    Prohibit,
}

impl Rule {
    /// A rule that matches everything.
    #[must_use]
    pub fn new(ipv6: bool, priority: u32, action: RuleAction) -> Self {
        Self {
            ipv6,
            priority,
            from: None,
            to: None,
            from_device: None,
            mark: None,
            invert: false,
            protocol: None,
            source_ports: None,
            destination_ports: None,
            action,
        }
    }
}

/// A connection to the kernel's routing.
#[derive(Debug)]
pub struct Routing {
    connection: Connection<RouteNetlinkMessage>,
}

/// A rule as the kernel listed it; it can be removed exactly.
#[derive(Clone, Debug)]
pub struct ListedRule(RuleMessage);

impl Routing {
    /// Opens the connection in the network namespace of the calling thread.
    pub fn open() -> io::Result<Self> {
        Connection::open(NETLINK_ROUTE).map(|connection| Self { connection })
    }

    /// All addresses of all links.
    pub fn addresses(&mut self) -> io::Result<Vec<IpAddr>> {
        let request = RouteNetlinkMessage::GetAddress(AddressMessage::default());
        let listed = self.connection.dump(request)?;
        Ok(listed.into_iter().filter_map(own_address).collect())
    }

    /// Gives a link an address of its own, which no neighbour shares; one that it has is left alone.
    pub fn add_address(&mut self, link: u32, address: IpAddr) -> io::Result<()> {
        let message = RouteNetlinkMessage::NewAddress(address_message(link, address));
        tolerate(
            self.connection.change(message, NLM_F_CREATE | NLM_F_EXCL),
            libc::EEXIST,
        )
    }

    /// Takes an address from a link; one that is gone already is no error.
    pub fn remove_address(&mut self, link: u32, address: IpAddr) -> io::Result<()> {
        let message = RouteNetlinkMessage::DelAddress(address_message(link, address));
        tolerate(self.connection.change(message, 0), libc::EADDRNOTAVAIL)
    }

    /// Adds a route; one that exists already is left alone.
    pub fn add_route(&mut self, route: &Route) -> io::Result<()> {
        let message = RouteNetlinkMessage::NewRoute(route_message(route));
        tolerate(
            self.connection.change(message, NLM_F_CREATE | NLM_F_EXCL),
            libc::EEXIST,
        )
    }

    /// Removes a route; one that is gone already is no error.
    pub fn remove_route(&mut self, route: &Route) -> io::Result<()> {
        let message = RouteNetlinkMessage::DelRoute(route_message(route));
        tolerate(self.connection.change(message, 0), libc::ESRCH)
    }

    /// Lists the routes of a table that carry our protocol number.
    pub fn routes(&mut self, table: u32) -> io::Result<Vec<Route>> {
        let mut found = Vec::new();
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let mut request = RouteMessage::default();
            request.header.address_family = family;
            let listed = self
                .connection
                .dump(RouteNetlinkMessage::GetRoute(request))?;
            let ours = listed.iter().filter_map(own_route);
            found.extend(ours.filter(|route| route.table == table));
        }
        Ok(found)
    }

    /// Adds a rule behind those of equal priority, whether or not there is an equal one.
    pub fn add_rule(&mut self, rule: &Rule) -> io::Result<()> {
        let message = RouteNetlinkMessage::NewRule(rule_message(rule));
        self.connection.change(message, NLM_F_CREATE)
    }

    /// Removes the first rule that is equal to a listed one.
    pub fn remove_rule(&mut self, rule: ListedRule) -> io::Result<()> {
        let message = RouteNetlinkMessage::DelRule(rule.0);
        tolerate(self.connection.change(message, 0), libc::ENOENT)
    }

    /// Lists the rules that carry our protocol number.
    pub fn rules(&mut self) -> io::Result<Vec<ListedRule>> {
        let mut found = Vec::new();
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let mut request = RuleMessage::default();
            request.header.family = family;
            let listed = self
                .connection
                .dump(RouteNetlinkMessage::GetRule(request))?;
            found.extend(listed.into_iter().filter_map(own_rule));
        }
        Ok(found)
    }
}

fn tolerate(result: io::Result<()>, code: i32) -> io::Result<()> {
    match result {
        Err(error) if error.raw_os_error() == Some(code) => Ok(()),
        other => other,
    }
}

fn address_message(link: u32, address: IpAddr) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.family = family(address);
    message.header.prefix_len = if address.is_ipv4() { 32 } else { 128 };
    message.header.index = link;
    message.attributes = vec![
        AddressAttribute::Local(address),
        AddressAttribute::Address(address),
        AddressAttribute::Flags(AddressFlags::Nodad),
    ];
    message
}

fn own_address(message: RouteNetlinkMessage) -> Option<IpAddr> {
    let RouteNetlinkMessage::NewAddress(message) = message else {
        return None;
    };
    let mut remote = None;
    for attribute in message.attributes {
        match attribute {
            AddressAttribute::Local(address) => return Some(address),
            AddressAttribute::Address(address) => remote = Some(address),
            _ => {}
        }
    }
    remote
}

fn route_message(route: &Route) -> RouteMessage {
    let mut message = RouteMessage::default();
    message.header = RouteHeader {
        address_family: family(route.to.addr()),
        destination_prefix_length: route.to.prefix_len(),
        table: RouteHeader::RT_TABLE_UNSPEC,
        protocol: RouteProtocol::Other(PROTOCOL),
        scope: RouteScope::Universe,
        kind: match route.action {
            RouteAction::Device { .. } => RouteType::Unicast,
            RouteAction::Throw => RouteType::Throw,
            RouteAction::Unreachable => RouteType::Unreachable,
        },
        ..RouteHeader::default()
    };
    message.attributes = vec![
        RouteAttribute::Destination(RouteAddress::from(route.to.network())),
        RouteAttribute::Table(route.table),
        RouteAttribute::Priority(route.metric),
    ];
    if let RouteAction::Device { index, source } = route.action {
        message.attributes.push(RouteAttribute::Oif(index));
        if route.to.addr().is_ipv4() {
            message.header.scope = RouteScope::Link;
        }
        if let Some(source) = source {
            let source = RouteAttribute::PrefSource(RouteAddress::from(source));
            message.attributes.push(source);
        }
    }
    message
}

fn own_route(message: &RouteNetlinkMessage) -> Option<Route> {
    let RouteNetlinkMessage::NewRoute(message) = message else {
        return None;
    };
    if message.header.protocol != RouteProtocol::Other(PROTOCOL) {
        return None;
    }
    let mut address: IpAddr = match message.header.address_family {
        AddressFamily::Inet => std::net::Ipv4Addr::UNSPECIFIED.into(),
        _ => std::net::Ipv6Addr::UNSPECIFIED.into(),
    };
    let (mut device, mut source) = (0, None);
    let (mut table, mut metric) = (u32::from(message.header.table), 0);
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Destination(value) => address = ip_address(value)?,
            RouteAttribute::PrefSource(value) => source = ip_address(value),
            RouteAttribute::Oif(value) => device = *value,
            RouteAttribute::Table(value) => table = *value,
            RouteAttribute::Priority(value) => metric = *value,
            _ => {}
        }
    }
    let action = match message.header.kind {
        RouteType::Unicast => RouteAction::Device {
            index: device,
            source,
        },
        RouteType::Throw => RouteAction::Throw,
        RouteType::Unreachable => RouteAction::Unreachable,
        _ => return None,
    };
    Some(Route {
        to: IpNet::new(address, message.header.destination_prefix_length).ok()?,
        table,
        metric,
        action,
    })
}

fn ip_address(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(address) => Some((*address).into()),
        RouteAddress::Inet6(address) => Some((*address).into()),
        _ => None,
    }
}

fn rule_message(rule: &Rule) -> RuleMessage {
    let mut message = RuleMessage::default();
    message.header.family = if rule.ipv6 {
        AddressFamily::Inet6
    } else {
        AddressFamily::Inet
    };
    message.header.flags.set(RuleFlags::Invert, rule.invert);
    let attributes = &mut message.attributes;
    attributes.push(RuleAttribute::Protocol(RouteProtocol::Other(PROTOCOL)));
    attributes.push(RuleAttribute::Priority(rule.priority));
    if let Some(from) = rule.from.filter(|net| net.prefix_len() > 0) {
        message.header.src_len = from.prefix_len();
        attributes.push(RuleAttribute::Source(from.network()));
    }
    if let Some(to) = rule.to.filter(|net| net.prefix_len() > 0) {
        message.header.dst_len = to.prefix_len();
        attributes.push(RuleAttribute::Destination(to.network()));
    }
    attributes.extend(rule.from_device.clone().map(RuleAttribute::Iifname));
    attributes.extend(rule.mark.map(RuleAttribute::FwMark));
    let protocol = rule
        .protocol
        .map(|number| IpProtocol::from(i32::from(number)));
    attributes.extend(protocol.map(RuleAttribute::IpProtocol));
    let ports = |(start, end)| RulePortRange { start, end };
    attributes.extend(
        rule.source_ports
            .map(ports)
            .map(RuleAttribute::SourcePortRange),
    );
    let destination_ports = rule.destination_ports.map(ports);
    attributes.extend(destination_ports.map(RuleAttribute::DestinationPortRange));
    message.header.action = match rule.action {
        RuleAction::Table(table) => {
            attributes.push(RuleAttribute::Table(table));
            Action::ToTable
        }
        RuleAction::Goto(priority) => {
            attributes.push(RuleAttribute::Goto(priority));
            Action::Goto
        }
        RuleAction::Nop => Action::Nop,
        RuleAction::Blackhole => Action::Blackhole,
        RuleAction::Prohibit => Action::Prohibit,
    };
    message
}

fn own_rule(message: RouteNetlinkMessage) -> Option<ListedRule> {
    let RouteNetlinkMessage::NewRule(message) = message else {
        return None;
    };
    let ours = RuleAttribute::Protocol(RouteProtocol::Other(PROTOCOL));
    message
        .attributes
        .contains(&ours)
        .then_some(ListedRule(message))
}
