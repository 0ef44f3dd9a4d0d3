//! Traffic selectors (RFC 7296 §3.13.1, RFC 4301 §4.4.1.1).

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;
use std::str::FromStr;

use ipnet::{IpNet, Ipv4Subnets, Ipv6Subnets};

use super::Malformed;
use super::ip::protocol;

/// One range of IPv4 or IPv6 addresses, with a protocol and a range of ports.
///
/// For ICMP the ports hold the type in the high and the code in the low byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TrafficSelector {
    start: IpAddr,
    end: IpAddr,
    protocol: u8,
    start_port: u16,
    end_port: u16,
}

impl TrafficSelector {
    /// A selector for `start..=end`; mixed address families and `start > end` are refused.
    /// Ports `65535..=0` are OPAQUE; any other empty range is refused.
    pub fn new(
        protocol: u8,
        ports: RangeInclusive<u16>,
        start: IpAddr,
        end: IpAddr,
    ) -> Result<Self, Malformed> {
        let (start_port, end_port) = ports.into_inner();
        if start_port > end_port && (start_port, end_port) != OPAQUE {
            return Err(Malformed::BadValue("traffic selector port range"));
        }
        if start.is_ipv4() != end.is_ipv4() || start > end {
            return Err(Malformed::BadValue("traffic selector address range"));
        }
        Ok(Self {
            start,
            end,
            protocol,
            start_port,
            end_port,
        })
    }

    /// Every packet to or from `net`.
    pub fn net(net: IpNet) -> Self {
        let (start, end) = (net.network(), net.broadcast());
        Self {
            start,
            end,
            protocol: 0,
            start_port: ANY.0,
            end_port: ANY.1,
        }
    }

    /// Every packet to or from `addr`.
    pub fn host(addr: IpAddr) -> Self {
        Self::net(IpNet::from(addr))
    }

    /// All of IPv4.
    pub fn any_v4() -> Self {
        let (start, end) = (Ipv4Addr::UNSPECIFIED.into(), Ipv4Addr::BROADCAST.into());
        Self {
            start,
            end,
            protocol: 0,
            start_port: ANY.0,
            end_port: ANY.1,
        }
    }

    /// All of IPv6.
    pub fn any_v6() -> Self {
        let (start, end) = (
            Ipv6Addr::UNSPECIFIED.into(),
            Ipv6Addr::from(u128::MAX).into(),
        );
        Self {
            start,
            end,
            protocol: 0,
            start_port: ANY.0,
            end_port: ANY.1,
        }
    }

    /// The same addresses with another protocol and port range.
    pub fn with_ports(self, protocol: u8, ports: RangeInclusive<u16>) -> Result<Self, Malformed> {
        Self::new(protocol, ports, self.start, self.end)
    }

    /// The upper-layer protocol; 0 stands for any.
    pub fn protocol(&self) -> u8 {
        self.protocol
    }

    /// First and last port, `(65535, 0)` for OPAQUE.
    pub fn ports(&self) -> (u16, u16) {
        (self.start_port, self.end_port)
    }

    /// The first address.
    pub fn start(&self) -> IpAddr {
        self.start
    }

    /// The last address.
    pub fn end(&self) -> IpAddr {
        self.end
    }

    /// Matches only packets whose ports are hidden.
    pub fn is_opaque_port(&self) -> bool {
        self.ports() == OPAQUE
    }

    /// Does not look at ports.
    pub fn any_port(&self) -> bool {
        self.ports() == ANY
    }

    /// Holds IPv6 addresses.
    pub fn is_ipv6(&self) -> bool {
        self.start.is_ipv6()
    }

    /// Whether a packet's side `(addr, protocol, port)` is inside. A port that is not visible, as
    /// in a later fragment, is inside any-port and OPAQUE selectors only.
    pub fn contains(&self, addr: IpAddr, protocol: u8, port: Option<u16>) -> bool {
        let address = self.start <= addr && addr <= self.end;
        address
            && (self.protocol == 0 || self.protocol == protocol)
            && match port {
                Some(port) => self.start_port <= port && port <= self.end_port,
                None => self.any_port() || self.is_opaque_port(),
            }
    }

    /// What both selectors contain.
    pub fn intersect(&self, other: &Self) -> Option<Self> {
        if self.is_ipv6() != other.is_ipv6() {
            return None;
        }
        let protocol = match (self.protocol, other.protocol) {
            (0, protocol) | (protocol, 0) => protocol,
            (ours, theirs) if ours == theirs => ours,
            _ => return None,
        };
        let (start_port, end_port) = if self.any_port() {
            other.ports()
        } else if other.any_port() || self.ports() == other.ports() {
            self.ports()
        } else {
            // OPAQUE is an empty range, so it ends here too.
            let start = self.start_port.max(other.start_port);
            let end = self.end_port.min(other.end_port);
            if start > end {
                return None;
            }
            (start, end)
        };
        let (start, end) = (self.start.max(other.start), self.end.min(other.end));
        (start <= end).then_some(Self {
            start,
            end,
            protocol,
            start_port,
            end_port,
        })
    }

    /// Whether `other` contains everything that `self` contains.
    pub fn is_subset_of(&self, other: &Self) -> bool {
        self.intersect(other) == Some(*self)
    }

    /// The address range as the fewest prefixes.
    pub fn to_nets(&self) -> Vec<IpNet> {
        match (self.start, self.end) {
            (IpAddr::V4(start), IpAddr::V4(end)) => {
                Ipv4Subnets::new(start, end, 0).map(IpNet::V4).collect()
            }
            (IpAddr::V6(start), IpAddr::V6(end)) => {
                Ipv6Subnets::new(start, end, 0).map(IpNet::V6).collect()
            }
            // No constructor mixes address families.
            _ => Vec::new(),
        }
    }

    /// Parses the body of a TS payload. Selectors of an unknown type are skipped; the count must
    /// match the bytes and not be zero.
    pub fn parse_list(body: &[u8]) -> Result<Vec<Self>, Malformed> {
        let (&[count, _, _, _], mut rest) = body
            .split_first_chunk::<4>()
            .ok_or(Malformed::Truncated("TS payload"))?;
        if count == 0 {
            return Err(Malformed::BadValue("traffic selector count"));
        }
        let mut list = Vec::new();
        for _ in 0..count {
            let (selector, after) = Self::parse_one(rest)?;
            list.extend(selector);
            rest = after;
        }
        if rest.is_empty() {
            Ok(list)
        } else {
            Err(Malformed::BadLength("TS payload"))
        }
    }

    fn parse_one(bytes: &[u8]) -> Result<(Option<Self>, &[u8]), Malformed> {
        let (&[kind, protocol, len_hi, len_lo], _) = bytes
            .split_first_chunk::<4>()
            .ok_or(Malformed::Truncated("traffic selector"))?;
        let length = usize::from(u16::from_be_bytes([len_hi, len_lo]));
        let (selector, rest) = bytes
            .split_at_checked(length)
            .ok_or(Malformed::Truncated("traffic selector"))?;
        let body = selector
            .get(4..)
            .ok_or(Malformed::BadLength("traffic selector"))?;
        let (&[p0, p1, p2, p3], addresses) = body
            .split_first_chunk::<4>()
            .ok_or(Malformed::BadLength("traffic selector"))?;
        let ports = u16::from_be_bytes([p0, p1])..=u16::from_be_bytes([p2, p3]);
        let (start, end) = match kind {
            TS_IPV4_ADDR_RANGE => two_addresses::<4>(addresses)?,
            TS_IPV6_ADDR_RANGE => two_addresses::<16>(addresses)?,
            _ => return Ok((None, rest)),
        };
        Self::new(protocol, ports, start, end).map(|selector| (Some(selector), rest))
    }

    /// Appends the body of a TS payload, which holds at most 255 selectors.
    pub fn encode_list(list: &[Self], out: &mut Vec<u8>) {
        let list = list.get(..255).unwrap_or(list);
        out.extend_from_slice(&[u8::try_from(list.len()).unwrap_or(u8::MAX), 0, 0, 0]);
        for selector in list {
            let (kind, length) = if selector.is_ipv6() {
                (TS_IPV6_ADDR_RANGE, 40)
            } else {
                (TS_IPV4_ADDR_RANGE, 16)
            };
            out.extend_from_slice(&[kind, selector.protocol, 0, length]);
            out.extend_from_slice(&selector.start_port.to_be_bytes());
            out.extend_from_slice(&selector.end_port.to_be_bytes());
            for address in [selector.start, selector.end] {
                match address {
                    IpAddr::V4(address) => out.extend_from_slice(&address.octets()),
                    IpAddr::V6(address) => out.extend_from_slice(&address.octets()),
                }
            }
        }
    }
}

fn two_addresses<const N: usize>(bytes: &[u8]) -> Result<(IpAddr, IpAddr), Malformed>
where
    [u8; N]: Into<IpAddr>,
{
    match bytes.as_chunks::<N>() {
        (&[start, end], []) => Ok((start.into(), end.into())),
        _ => Err(Malformed::BadLength("traffic selector")),
    }
}

/// A selector that is not in swanctl's syntax.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "traffic selector {text:?}: {reason}; write it like 10.1.0.0/24, 10.0.0.1-10.0.0.9 or 2001:db8::/32[tcp/80]"
)]
pub struct SelectorSyntax {
    text: String,
    reason: &'static str,
}

/// swanctl's syntax: an address, prefix or range, then optionally `[protocol/ports]`. A bare ICMP
/// type stands for all of its codes; `type(code)` names one.
impl FromStr for TrafficSelector {
    type Err = SelectorSyntax;

    fn from_str(text: &str) -> Result<Self, SelectorSyntax> {
        parse_text(text.trim()).map_err(|reason| SelectorSyntax {
            text: text.to_owned(),
            reason,
        })
    }
}

fn parse_text(text: &str) -> Result<TrafficSelector, &'static str> {
    let (addresses, suffix) = match text.split_once('[') {
        None => (text, None),
        Some((addresses, suffix)) => (
            addresses,
            Some(suffix.strip_suffix(']').ok_or("the closing ] is missing")?),
        ),
    };
    let selector = parse_addresses(addresses)?;
    let Some(suffix) = suffix else {
        return Ok(selector);
    };
    let (protocol, ports) = suffix.split_once('/').unwrap_or((suffix, ""));
    let protocol = parse_protocol(protocol)?;
    let ports = parse_ports(protocol, ports)?;
    selector
        .with_ports(protocol, ports)
        .map_err(|_| "the port range is empty")
}

fn parse_addresses(text: &str) -> Result<TrafficSelector, &'static str> {
    if let Some((start, end)) = text.split_once("..").or_else(|| text.split_once('-')) {
        let start = start
            .trim()
            .parse()
            .map_err(|_| "the range does not start with an address")?;
        let end = end
            .trim()
            .parse()
            .map_err(|_| "the range does not end with an address")?;
        return TrafficSelector::new(0, ANY.0..=ANY.1, start, end)
            .map_err(|_| "the range mixes address families or is empty");
    }
    if let Ok(address) = text.parse::<IpAddr>() {
        return Ok(TrafficSelector::host(address));
    }
    text.parse::<IpNet>()
        .map(TrafficSelector::net)
        .map_err(|_| "this is no address or prefix")
}

fn parse_protocol(text: &str) -> Result<u8, &'static str> {
    if text.is_empty() || text == "any" {
        return Ok(0);
    }
    if let Ok(number) = text.parse() {
        return Ok(number);
    }
    PROTOCOLS
        .iter()
        .find(|(_, name)| *name == text)
        .map(|(number, _)| *number)
        .ok_or("the protocol is neither a known name nor a number below 256")
}

fn parse_ports(protocol: u8, text: &str) -> Result<RangeInclusive<u16>, &'static str> {
    match text {
        "" | "any" => return Ok(ANY.0..=ANY.1),
        "opaque" | "OPAQUE" => return Ok(OPAQUE.0..=OPAQUE.1),
        _ => {}
    }
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    if is_icmp(protocol) {
        let (start, _) = parse_icmp(first)?;
        let (_, end) = parse_icmp(last)?;
        return Ok(start..=end);
    }
    let number = |text: &str| text.parse().map_err(|_| "a port is a number below 65536");
    Ok(number(first)?..=number(last)?)
}

/// First and last packed value of `type`, `type(code)` or a value that is packed already.
fn parse_icmp(text: &str) -> Result<(u16, u16), &'static str> {
    const REASON: &str = "ICMP ports are written type, type(code) or type*256+code";
    if let Some((kind, code)) = text.strip_suffix(')').and_then(|text| text.split_once('(')) {
        let kind = kind.parse().map_err(|_| REASON)?;
        let packed = u16::from_be_bytes([kind, code.parse().map_err(|_| REASON)?]);
        return Ok((packed, packed));
    }
    let packed = text.parse::<u16>().map_err(|_| REASON)?;
    match u8::try_from(packed) {
        Ok(kind) => Ok((
            u16::from_be_bytes([kind, 0]),
            u16::from_be_bytes([kind, 0xff]),
        )),
        Err(_) => Ok((packed, packed)),
    }
}

/// As swanctl lists selectors, with numbers for ports: `10.1.0.0/24[tcp/80]`.
impl fmt::Display for TrafficSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.to_nets().as_slice() {
            [net] => write!(f, "{net}")?,
            _ => write!(f, "{}..{}", self.start, self.end)?,
        }
        if self.protocol == 0 && self.any_port() {
            return Ok(());
        }
        match PROTOCOLS
            .iter()
            .find(|(number, _)| *number == self.protocol)
        {
            Some((_, name)) => write!(f, "[{name}")?,
            None => write!(f, "[{}", self.protocol)?,
        }
        if self.is_opaque_port() {
            f.write_str("/OPAQUE")?;
        } else if !self.any_port() {
            f.write_str("/")?;
            self.fmt_ports(f)?;
        }
        f.write_str("]")
    }
}

impl TrafficSelector {
    fn fmt_ports(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (start, end) = self.ports();
        if !is_icmp(self.protocol) {
            return if start == end {
                write!(f, "{start}")
            } else {
                write!(f, "{start}-{end}")
            };
        }
        let ([start_type, start_code], [end_type, end_code]) =
            (start.to_be_bytes(), end.to_be_bytes());
        match (start_code, end_code) {
            (0, 0xff) if start_type == end_type => write!(f, "{start_type}"),
            (0, 0xff) => write!(f, "{start_type}-{end_type}"),
            _ if start == end => write!(f, "{start_type}({start_code})"),
            _ => write!(f, "{start_type}({start_code})-{end_type}({end_code})"),
        }
    }
}

fn is_icmp(number: u8) -> bool {
    matches!(number, protocol::ICMP | protocol::ICMPV6)
}

const ANY: (u16, u16) = (0, u16::MAX);
const OPAQUE: (u16, u16) = (u16::MAX, 0);

const TS_IPV4_ADDR_RANGE: u8 = 7;
const TS_IPV6_ADDR_RANGE: u8 = 8;

/// Names as in Debian's `/etc/protocols`, then aliases.
const PROTOCOLS: [(u8, &str); 15] = [
    (protocol::ICMP, "icmp"),
    (2, "igmp"),
    (protocol::IPV4, "ipencap"),
    (protocol::TCP, "tcp"),
    (protocol::UDP, "udp"),
    (protocol::IPV6, "ipv6"),
    (47, "gre"),
    (protocol::ESP, "esp"),
    (protocol::AH, "ah"),
    (protocol::ICMPV6, "ipv6-icmp"),
    (89, "ospf"),
    (protocol::SCTP, "sctp"),
    (136, "udplite"),
    (protocol::ICMPV6, "icmpv6"),
    (protocol::ICMPV6, "icmp6"),
];
