//! A checked view of an IPv4 (RFC 791) or IPv6 (RFC 8200) packet.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::wire::Malformed;

/// Numbers of upper-layer protocols and of IPv6 extension headers.
#[allow(missing_docs, reason = "each constant is the IANA keyword")]
pub mod protocol {
    pub const HOP_BY_HOP: u8 = 0;
    pub const ICMP: u8 = 1;
    pub const IPV4: u8 = 4;
    pub const TCP: u8 = 6;
    pub const UDP: u8 = 17;
    pub const DCCP: u8 = 33;
    pub const IPV6: u8 = 41;
    pub const ROUTING: u8 = 43;
    pub const FRAGMENT: u8 = 44;
    pub const ESP: u8 = 50;
    pub const AH: u8 = 51;
    pub const ICMPV6: u8 = 58;
    pub const NO_NEXT_HEADER: u8 = 59;
    pub const DESTINATION_OPTIONS: u8 = 60;
    pub const SCTP: u8 = 132;
    pub const UDPLITE: u8 = 136;
}

/// What policies look at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Flow {
    /// Source address.
    pub src: IpAddr,
    /// Destination address.
    pub dst: IpAddr,
    /// Upper-layer protocol.
    pub protocol: u8,
    /// Source and destination port; ICMP: type and code packed as in RFC 4301 §4.4.1.1, in both, so
    /// that either side's selector may name them. `None` where they are not visible.
    pub ports: Option<(u16, u16)>,
}

impl Flow {
    /// The flow of the answers.
    pub fn reversed(self) -> Self {
        Self {
            src: self.dst,
            dst: self.src,
            protocol: self.protocol,
            ports: self
                .ports
                .map(|(source, destination)| (destination, source)),
        }
    }

    /// A hash, of which the high bits are the best. Flows that differ may have the same.
    pub fn digest(&self) -> u64 {
        let address = |address: IpAddr| match address {
            IpAddr::V4(address) => u64::from(address.to_bits()),
            IpAddr::V6(address) => {
                let [a, b, c, d, e, f, g, h] = address.segments().map(u64::from);
                (a << 48 | b << 32 | c << 16 | d) ^ (e << 48 | f << 32 | g << 16 | h)
            }
        };
        let (source, destination) = self.ports.unwrap_or_default();
        let ports = u64::from(source) << 16 | u64::from(destination);
        let start = address(self.src).wrapping_mul(ODD) ^ address(self.dst);
        let middle = start.wrapping_mul(ODD) ^ ports << 8 ^ u64::from(self.protocol);
        middle.wrapping_mul(ODD)
    }
}

/// One packet: header and everything up to its total length.
///
/// Lengths are checked and the upper-layer header is found; checksums are not looked at.
#[derive(Clone, Copy, Debug)]
pub struct IpPacket<'a> {
    bytes: &'a [u8],
    src: IpAddr,
    dst: IpAddr,
    tos: u8,
    ttl: u8,
    protocol: u8,
    header_len: usize,
    upper_layer_offset: usize,
    /// In units of eight bytes.
    fragment_offset: u16,
    more_fragments: bool,
    dont_fragment: bool,
}

impl<'a> IpPacket<'a> {
    /// The most IPv6 extension headers that are walked.
    pub const MAX_EXTENSIONS: usize = 8;

    /// Reads a packet. Its total length may be below the buffer's, never above; jumbograms and
    /// packets with more than [`Self::MAX_EXTENSIONS`] extension headers are refused.
    pub fn parse(buffer: &'a [u8]) -> Result<Self, Malformed> {
        Self::parse_as(buffer, Extent::Whole)
    }

    /// Reads what an ICMP error quotes: a packet that may end early, but not within its headers.
    pub(super) fn parse_beginning(buffer: &'a [u8]) -> Result<Self, Malformed> {
        Self::parse_as(buffer, Extent::Beginning)
    }

    fn parse_as(buffer: &'a [u8], extent: Extent) -> Result<Self, Malformed> {
        match buffer.first().map(|byte| byte >> 4) {
            Some(4) => Self::parse_v4(buffer, extent),
            Some(6) => Self::parse_v6(buffer, extent),
            Some(_) => Err(Malformed::BadValue("IP version")),
            None => Err(Malformed::Truncated("IP packet")),
        }
    }

    fn parse_v4(buffer: &'a [u8], extent: Extent) -> Result<Self, Malformed> {
        let (&header, _) = buffer
            .split_first_chunk::<20>()
            .ok_or(Malformed::Truncated("IPv4 header"))?;
        let [
            version_ihl,
            tos,
            t0,
            t1,
            _,
            _,
            f0,
            f1,
            ttl,
            protocol,
            _,
            _,
            addresses @ ..,
        ] = header;
        let [s0, s1, s2, s3, d0, d1, d2, d3] = addresses;
        let header_len = usize::from(version_ihl & 0x0f) * 4;
        let total_len = usize::from(u16::from_be_bytes([t0, t1]));
        if header_len < 20 || total_len < header_len {
            return Err(Malformed::BadLength("IPv4 header"));
        }
        let flags = u16::from_be_bytes([f0, f1]);
        Ok(Self {
            bytes: extent
                .cut(buffer, total_len)
                .filter(|bytes| bytes.len() >= header_len)
                .ok_or(Malformed::Truncated("IPv4 packet"))?,
            src: Ipv4Addr::new(s0, s1, s2, s3).into(),
            dst: Ipv4Addr::new(d0, d1, d2, d3).into(),
            tos,
            ttl,
            protocol,
            header_len,
            upper_layer_offset: header_len,
            fragment_offset: flags & 0x1fff,
            more_fragments: flags & 0x2000 != 0,
            dont_fragment: flags & 0x4000 != 0,
        })
    }

    fn parse_v6(buffer: &'a [u8], extent: Extent) -> Result<Self, Malformed> {
        let (&header, rest) = buffer
            .split_first_chunk::<40>()
            .ok_or(Malformed::Truncated("IPv6 header"))?;
        let [v0, v1, _, _, l0, l1, next, ttl, addresses @ ..] = header;
        let payload_len = usize::from(u16::from_be_bytes([l0, l1]));
        let payload = extent
            .cut(rest, payload_len)
            .ok_or(Malformed::Truncated("IPv6 packet"))?;
        let (&[src, dst], _) = addresses.as_chunks::<16>() else {
            return Err(Malformed::Truncated("IPv6 header"));
        };
        let upper = UpperLayer::find(next, payload)?;
        Ok(Self {
            bytes: buffer
                .get(..40 + payload.len())
                .ok_or(Malformed::Truncated("IPv6 packet"))?,
            src: Ipv6Addr::from(src).into(),
            dst: Ipv6Addr::from(dst).into(),
            tos: (v0 << 4) | (v1 >> 4),
            ttl,
            protocol: upper.protocol,
            header_len: 40,
            upper_layer_offset: 40 + payload.len() - upper.rest.len(),
            fragment_offset: upper.fragment >> 3,
            more_fragments: upper.fragment & 1 != 0,
            dont_fragment: true,
        })
    }

    /// The packet without what follows it in the buffer.
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// From the upper-layer header on.
    pub fn upper_layer(&self) -> &'a [u8] {
        self.bytes
            .get(self.upper_layer_offset..)
            .unwrap_or_default()
    }

    /// 4 or 6.
    pub fn version(&self) -> u8 {
        if self.src.is_ipv4() { 4 } else { 6 }
    }

    /// Source address.
    pub fn src(&self) -> IpAddr {
        self.src
    }

    /// Destination address.
    pub fn dst(&self) -> IpAddr {
        self.dst
    }

    /// Upper-layer protocol, behind all extension headers. AH and ESP are upper layers here.
    pub fn protocol(&self) -> u8 {
        self.protocol
    }

    /// Source and destination port; see [`Flow::ports`].
    pub fn ports(&self) -> Option<(u16, u16)> {
        if self.fragment_offset != 0 {
            return None;
        }
        match (self.protocol, self.upper_layer()) {
            (
                protocol::TCP | protocol::UDP | protocol::DCCP | protocol::SCTP | protocol::UDPLITE,
                &[s0, s1, d0, d1, ..],
            ) => Some((u16::from_be_bytes([s0, s1]), u16::from_be_bytes([d0, d1]))),
            (protocol::ICMP | protocol::ICMPV6, &[kind, code, ..]) => {
                let packed = u16::from_be_bytes([kind, code]);
                Some((packed, packed))
            }
            _ => None,
        }
    }

    /// What policies look at.
    pub fn flow(&self) -> Flow {
        Flow {
            src: self.src,
            dst: self.dst,
            protocol: self.protocol,
            ports: self.ports(),
        }
    }

    /// TOS or traffic class.
    pub fn tos(&self) -> u8 {
        self.tos
    }

    /// Low two bits of [`Self::tos`].
    pub fn ecn(&self) -> u8 {
        self.tos & 3
    }

    /// High six bits of [`Self::tos`].
    pub fn dscp(&self) -> u8 {
        self.tos >> 2
    }

    /// DF; always true for IPv6, whose routers do not fragment.
    pub fn dont_fragment(&self) -> bool {
        self.dont_fragment
    }

    /// A piece of a larger packet.
    pub fn is_fragment(&self) -> bool {
        self.fragment_offset != 0 || self.more_fragments
    }

    /// The piece that holds the upper-layer header.
    pub fn is_first_fragment(&self) -> bool {
        self.fragment_offset == 0 && self.more_fragments
    }

    /// Where this piece belongs, in units of eight bytes.
    pub fn fragment_offset(&self) -> u16 {
        self.fragment_offset
    }

    /// Other pieces follow this one.
    pub fn more_fragments(&self) -> bool {
        self.more_fragments
    }

    /// TTL or hop limit.
    pub fn ttl(&self) -> u8 {
        self.ttl
    }

    /// IPv4: header with options; IPv6: 40.
    pub fn header_len(&self) -> usize {
        self.header_len
    }

    /// Header and payload.
    pub fn total_len(&self) -> usize {
        self.bytes.len()
    }

    /// Where the upper-layer header starts.
    pub fn upper_layer_offset(&self) -> usize {
        self.upper_layer_offset
    }
}

/// How much of a packet must be there.
#[derive(Clone, Copy)]
enum Extent {
    Whole,
    Beginning,
}

impl Extent {
    fn cut(self, bytes: &[u8], length: usize) -> Option<&[u8]> {
        match self {
            Self::Whole => bytes.get(..length),
            Self::Beginning => Some(bytes.get(..length).unwrap_or(bytes)),
        }
    }
}

/// What stands behind the extension headers of an IPv6 packet (RFC 8200 §4).
struct UpperLayer<'a> {
    protocol: u8,
    rest: &'a [u8],
    /// Offset and M flag of the Fragment header; 0 without one.
    fragment: u16,
}

impl<'a> UpperLayer<'a> {
    fn find(mut next: u8, mut rest: &'a [u8]) -> Result<Self, Malformed> {
        let mut fragment = None;
        for _ in 0..=IpPacket::MAX_EXTENSIONS {
            let len = match next {
                protocol::HOP_BY_HOP | protocol::ROUTING | protocol::DESTINATION_OPTIONS => {
                    let (&[_, len], _) = rest
                        .split_first_chunk::<2>()
                        .ok_or(Malformed::Truncated("IPv6 extension header"))?;
                    8 + usize::from(len) * 8
                }
                protocol::FRAGMENT if fragment.is_none() => {
                    let (&[_, _, f0, f1], _) = rest
                        .split_first_chunk::<4>()
                        .ok_or(Malformed::Truncated("IPv6 fragment header"))?;
                    fragment = Some(u16::from_be_bytes([f0, f1]));
                    8
                }
                protocol::FRAGMENT => return Err(Malformed::BadValue("IPv6 fragment header")),
                protocol => {
                    return Ok(Self {
                        protocol,
                        rest,
                        fragment: fragment.unwrap_or(0),
                    });
                }
            };
            let (header, after) = rest
                .split_at_checked(len)
                .ok_or(Malformed::Truncated("IPv6 extension header"))?;
            let was_fragment = next == protocol::FRAGMENT;
            next = header.first().copied().unwrap_or(protocol::NO_NEXT_HEADER);
            rest = after;
            if was_fragment && fragment.is_some_and(|fragment| fragment >> 3 != 0) {
                // What follows is the middle of a packet, whatever `next` says of its beginning.
                return Ok(Self {
                    protocol: next,
                    rest,
                    fragment: fragment.unwrap_or(0),
                });
            }
        }
        Err(Malformed::BadLength("IPv6 extension header chain"))
    }
}

/// 2^64 divided by the golden ratio.
const ODD: u64 = 0x9e37_79b9_7f4a_7c15;
