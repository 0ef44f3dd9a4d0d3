//! The flow that an SA has admitted last, as bytes of a packet.

use std::net::IpAddr;

use crate::wire::ip::{Flow, protocol};

/// Where addresses, protocol and ports of a simple packet are: one without options or extension
/// headers that is whole and holds TCP or UDP. Equal bytes are an equal flow, so what one packet's
/// flow was allowed the next packet's is too.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct FlowV4 {
    /// Source and destination.
    addresses: u64,
    ports: u32,
    /// Zero, which no simple packet has, before the first packet.
    protocol: u8,
}

/// The same for IPv6.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct FlowV6 {
    addresses: [u128; 2],
    ports: u32,
    protocol: u8,
}

/// What the header of a simple packet says.
pub(super) struct Simple<F> {
    pub(super) flow: F,
    pub(super) total_len: usize,
    pub(super) tos: u8,
}

impl FlowV4 {
    /// All that selectors look at, of a flow between IPv4 addresses with visible ports.
    #[inline]
    pub(super) fn from_flow(flow: &Flow) -> Option<Self> {
        match (flow.src, flow.dst, flow.ports) {
            (IpAddr::V4(source), IpAddr::V4(destination), Some((from, to))) => Some(Self {
                addresses: u64::from(source.to_bits()) << 32 | u64::from(destination.to_bits()),
                ports: u32::from(from) << 16 | u32::from(to),
                protocol: flow.protocol,
            }),
            _ => None,
        }
    }

    /// `None` for a packet that is not simple, or longer than `bytes`.
    #[inline]
    pub(super) fn of(bytes: &[u8]) -> Option<Simple<Self>> {
        let [word0, word1, word2, addresses @ .., ports] =
            bytes.as_chunks::<4>().0.first_chunk::<6>()?;
        let [0x45, tos, length @ ..] = word0 else {
            return None;
        };
        let [_, protocol, _, _] = word2;
        let total_len = usize::from(u16::from_be_bytes(*length));
        // Neither an offset nor more fragments.
        let whole = u32::from_be_bytes(*word1) & 0x3fff == 0;
        let simple = whole && has_ports(*protocol) && (24..=bytes.len()).contains(&total_len);
        let [source, destination] = addresses.map(u32::from_ne_bytes);
        simple.then_some(Simple {
            flow: Self {
                addresses: u64::from(source) << 32 | u64::from(destination),
                ports: u32::from_ne_bytes(*ports),
                protocol: *protocol,
            },
            total_len,
            tos: *tos,
        })
    }
}

impl FlowV6 {
    /// `None` for a packet that is not simple, or longer than `bytes`.
    #[inline]
    pub(super) fn of(bytes: &[u8]) -> Option<Simple<Self>> {
        let (&[v0, v1, _, _, l0, l1, protocol, _], behind) = bytes.split_first_chunk::<8>()?;
        let (source, behind) = behind.split_first_chunk::<16>()?;
        let (destination, behind) = behind.split_first_chunk::<16>()?;
        let (ports, _) = behind.split_first_chunk::<4>()?;
        let total_len = 40 + usize::from(u16::from_be_bytes([l0, l1]));
        let simple = v0 >> 4 == 6 && has_ports(protocol) && (44..=bytes.len()).contains(&total_len);
        simple.then_some(Simple {
            flow: Self {
                addresses: [source, destination].map(|address| u128::from_ne_bytes(*address)),
                ports: u32::from_ne_bytes(*ports),
                protocol,
            },
            total_len,
            tos: (v0 << 4) | (v1 >> 4),
        })
    }
}

#[inline]
fn has_ports(protocol: u8) -> bool {
    matches!(protocol, protocol::TCP | protocol::UDP)
}
