//! What the merger sees of one packet.

use super::checksum::sum;
use super::merge::MergeKinds;
use crate::wire::ip::{checksum, protocol};
use crate::wire::vnet::VnetHeader;

/// What may be done with a packet.
#[derive(Debug)]
pub(super) enum Class {
    /// It may be put behind others of its flow, if they fit together.
    Candidate(Candidate),
    /// It goes alone, behind everything of its flow that was kept back.
    Single(FlowKey),
    /// It goes alone, behind everything that may be of its flow.
    Opaque(Opaque),
    /// It goes alone, and nothing of its flow was kept back.
    Unordered,
}

/// The fields of a packet that may be merged. Its checksums are not verified.
#[derive(Debug)]
pub(super) struct Candidate {
    pub(super) key: FlowKey,
    pub(super) likeness: Likeness,
    /// Where the TCP or UDP header starts.
    pub(super) transport_at: usize,
    /// Bytes of all headers.
    pub(super) header_len: usize,
    /// Never zero.
    pub(super) payload_len: usize,
    /// Of TCP; zero for UDP, whose order is that of arrival.
    pub(super) sequence: u32,
    /// Of IPv4; IPv6 has none.
    pub(super) identification: Option<u16>,
    /// PSH of TCP.
    pub(super) push: bool,
}

/// What packets of one flow have in common, and no others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FlowKey {
    ports: [u8; 4],
    transport: Transport,
    addresses: Addresses,
}

/// What merges.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Transport {
    Tcp,
    Udp,
}

/// Source, then destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Addresses {
    V4([u8; 8]),
    V6([u8; 32]),
}

/// What packets of one flow must also have in common to be merged, besides TCP options.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Likeness {
    /// IPv4: TOS, fragment bits, TTL; IPv6: first word, hop limit.
    ip: u64,
    /// TCP: acknowledgment number.
    acknowledgment: u32,
    /// TCP: data offset, reserved bits, flags but PSH, window.
    flags: u32,
    /// TCP: urgent pointer.
    urgent: u16,
}

/// The flows that a packet may be of whose ports are not visible.
#[derive(Debug)]
pub(super) struct Opaque {
    addresses: Addresses,
    /// `None` where extension headers hide it, for any.
    protocol: Option<u8>,
}

/// The IP header of a packet whose TCP or UDP header follows it at once.
struct Ip {
    addresses: Addresses,
    likeness: u64,
    identification: Option<u16>,
    len: usize,
    /// No merging would be undone exactly.
    odd: bool,
}

impl Class {
    pub(super) fn of(packet: &[u8], kinds: MergeKinds) -> Self {
        match packet {
            [version_ihl, ..] if version_ihl >> 4 == 4 => Self::of_v4(packet, kinds),
            [version_ihl, ..] if version_ihl >> 4 == 6 => Self::of_v6(packet, kinds),
            _ => Self::Unordered,
        }
    }

    fn of_v4(packet: &[u8], kinds: MergeKinds) -> Self {
        let Some((&header, rest)) = packet.split_first_chunk::<20>() else {
            return Self::Unordered;
        };
        #[rustfmt::skip]
        let [version_ihl, tos, t0, t1, i0, i1, f0, f1, ttl, protocol, c0, c1, addresses @ ..] = header;
        let Some(transport) = Transport::of(protocol, kinds) else {
            return Self::Unordered;
        };
        let addresses = Addresses::V4(addresses);
        let len = usize::from(u16::from_be_bytes([t0, t1]));
        let fragment = u16::from_be_bytes([f0, f1]);
        let hides_ports = version_ihl != 0x45 || fragment & FRAGMENT != 0;
        if hides_ports || len != packet.len() {
            return Self::Opaque(Opaque {
                addresses,
                protocol: Some(protocol),
            });
        }
        let ip = Ip {
            addresses,
            likeness: u64::from_be_bytes([0, 0, 0, 0, tos, f0, f1, ttl]),
            identification: Some(u16::from_be_bytes([i0, i1])),
            len: header.len(),
            odd: [c0, c1] == NEVER_COMPUTED,
        };
        ip.with(transport, rest)
    }

    fn of_v6(packet: &[u8], kinds: MergeKinds) -> Self {
        let Some((&header, rest)) = packet.split_first_chunk::<40>() else {
            return Self::Unordered;
        };
        let [v0, v1, v2, v3, l0, l1, next, hop_limit, addresses @ ..] = header;
        let addresses = Addresses::V6(addresses);
        let transport = match (next, Transport::of(next, kinds)) {
            (_, Some(transport)) => Some(transport),
            (protocol::TCP | protocol::UDP, None) => return Self::Unordered,
            (_, None) => None,
        };
        let whole = usize::from(u16::from_be_bytes([l0, l1])) == rest.len();
        let Some(transport) = transport.filter(|_| whole) else {
            return Self::Opaque(Opaque {
                addresses,
                protocol: transport.is_some().then_some(next),
            });
        };
        let ip = Ip {
            addresses,
            likeness: u64::from_be_bytes([0, 0, 0, v0, v1, v2, v3, hop_limit]),
            identification: None,
            len: header.len(),
            odd: false,
        };
        ip.with(transport, rest)
    }
}

impl Ip {
    fn with(self, transport: Transport, upper_layer: &[u8]) -> Class {
        match transport {
            Transport::Tcp => self.with_tcp(upper_layer),
            Transport::Udp => self.with_udp(upper_layer),
        }
        .unwrap_or(Class::Opaque(Opaque {
            addresses: self.addresses,
            protocol: Some(transport.protocol()),
        }))
    }

    /// `None` if there is no TCP header.
    fn with_tcp(&self, upper_layer: &[u8]) -> Option<Class> {
        let (&header, _) = upper_layer.split_first_chunk::<20>()?;
        #[rustfmt::skip]
        let [p0, p1, p2, p3, s0, s1, s2, s3, a0, a1, a2, a3, offset, flags, w0, w1, c0, c1, u0, u1] =
            header;
        let key = FlowKey {
            ports: [p0, p1, p2, p3],
            transport: Transport::Tcp,
            addresses: self.addresses,
        };
        let header_len = usize::from(offset >> 4) * 4;
        let payload_len = upper_layer.len().saturating_sub(header_len);
        let merges = flags & !(PSH | ECE) == ACK && payload_len > 0 && header_len >= header.len();
        if !merges || self.odd || [c0, c1] == NEVER_COMPUTED {
            return Some(Class::Single(key));
        }
        Some(Class::Candidate(Candidate {
            key,
            likeness: Likeness {
                ip: self.likeness,
                acknowledgment: u32::from_be_bytes([a0, a1, a2, a3]),
                flags: u32::from_be_bytes([offset, flags & !PSH, w0, w1]),
                urgent: u16::from_be_bytes([u0, u1]),
            },
            transport_at: self.len,
            header_len: self.len + header_len,
            payload_len,
            sequence: u32::from_be_bytes([s0, s1, s2, s3]),
            identification: self.identification,
            push: flags & PSH != 0,
        }))
    }

    /// `None` if there is no UDP header.
    fn with_udp(&self, upper_layer: &[u8]) -> Option<Class> {
        let (&header, payload) = upper_layer.split_first_chunk::<8>()?;
        let [p0, p1, p2, p3, l0, l1, c0, c1] = header;
        let key = FlowKey {
            ports: [p0, p1, p2, p3],
            transport: Transport::Udp,
            addresses: self.addresses,
        };
        let whole = usize::from(u16::from_be_bytes([l0, l1])) == upper_layer.len();
        let has_checksum = [c0, c1] != [0, 0];
        if !whole || !has_checksum || payload.is_empty() || self.odd {
            return Some(Class::Single(key));
        }
        Some(Class::Candidate(Candidate {
            key,
            likeness: Likeness {
                ip: self.likeness,
                acknowledgment: 0,
                flags: 0,
                urgent: 0,
            },
            transport_at: self.len,
            header_len: self.len + header.len(),
            payload_len: payload.len(),
            sequence: 0,
            identification: self.identification,
            push: false,
        }))
    }
}

impl Candidate {
    /// The sequence number of what follows it.
    pub(super) fn next_sequence(&self) -> u32 {
        match u32::try_from(self.payload_len) {
            Ok(advance) if self.key.transport == Transport::Tcp => {
                self.sequence.wrapping_add(advance)
            }
            _ => 0,
        }
    }
}

impl Likeness {
    /// Whether the identification of IPv4 says nothing, because DF is set (RFC 6864 §4.1).
    pub(super) fn is_atomic(&self) -> bool {
        self.ip & DONT_FRAGMENT != 0
    }
}

impl Opaque {
    /// Whether the packet may be of this flow.
    pub(super) fn may_be_of(&self, key: &FlowKey) -> bool {
        let same = |protocol| protocol == key.transport.protocol();
        self.addresses == key.addresses && self.protocol.is_none_or(same)
    }
}

impl FlowKey {
    pub(super) fn transport(&self) -> Transport {
        self.transport
    }

    /// The kind of the flow's super-packets.
    pub(super) fn gso_type(&self) -> u8 {
        match (self.transport, self.addresses) {
            (Transport::Tcp, Addresses::V4(_)) => VnetHeader::GSO_TCPV4,
            (Transport::Tcp, Addresses::V6(_)) => VnetHeader::GSO_TCPV6,
            (Transport::Udp, _) => VnetHeader::GSO_UDP_L4,
        }
    }

    /// Sum of the pseudo-header without its length, which may be added to it.
    pub(super) fn pseudo_header(&self) -> u32 {
        let protocol = u32::from(self.transport.protocol());
        match &self.addresses {
            Addresses::V4(addresses) => checksum::sum_inline(protocol, addresses),
            Addresses::V6(addresses) => checksum::sum_inline(protocol, addresses),
        }
    }
}

/// Whether the checksums of a packet are right, given the sum of its pseudo-header without length.
pub(super) fn verify(packet: &[u8], transport_at: usize, pseudo_header: u32) -> bool {
    let Some((ip, upper_layer)) = packet.split_at_checked(transport_at) else {
        return false;
    };
    // IPv6 has no checksum of its own; of IPv4, only headers without options are asked about.
    let ip_is_right = <&[u8; 20]>::try_from(ip)
        .is_ok_and(|header| checksum::sum_inline(0, header) == ALL_ONES)
        || transport_at == IPV6_HEADER_LEN;
    let Ok(length) = u16::try_from(upper_layer.len()) else {
        return false;
    };
    ip_is_right && sum(pseudo_header + u32::from(length), upper_layer) == ALL_ONES
}

impl Transport {
    fn of(protocol: u8, kinds: MergeKinds) -> Option<Self> {
        match protocol {
            protocol::TCP if kinds.tcp => Some(Self::Tcp),
            protocol::UDP if kinds.udp => Some(Self::Udp),
            _ => None,
        }
    }

    fn protocol(self) -> u8 {
        match self {
            Self::Tcp => protocol::TCP,
            Self::Udp => protocol::UDP,
        }
    }

    /// Its header without options.
    pub(super) fn header_len(self) -> usize {
        match self {
            Self::Tcp => 20,
            Self::Udp => 8,
        }
    }
}

const IPV6_HEADER_LEN: usize = 40;
/// Offset and MF of IPv4.
const FRAGMENT: u16 = 0x3fff;
/// DF of IPv4, in [`Likeness::ip`].
const DONT_FRAGMENT: u64 = 0x0040_0000;
/// A checksum field that verifies but that nobody computes: the complement of a sum is all ones only
/// if everything is zero. Splitting would write zero.
const NEVER_COMPUTED: [u8; 2] = [0xff, 0xff];
/// What words and their checksum sum to.
const ALL_ONES: u32 = 0xffff;

const PSH: u8 = 0x08;
const ACK: u8 = 0x10;
const ECE: u8 = 0x40;
