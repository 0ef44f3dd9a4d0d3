//! The flow that an SA has admitted last, as bytes of a packet.

use crate::wire::ip::protocol;

/// Where addresses, protocol and ports of a simple packet are: one without options or extension
/// headers that is whole and holds TCP or UDP. Equal bytes are an equal flow, so what one packet's
/// flow was allowed the next packet's is too.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct FlowV4 {
    /// Source, destination, both ports.
    ends: [u8; 12],
    /// Zero, which no simple packet has, before the first packet.
    protocol: u8,
}

/// The same for IPv6.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FlowV6 {
    ends: [u8; 36],
    protocol: u8,
}

/// What the header of a simple packet says.
pub(super) struct Simple<F> {
    pub(super) flow: F,
    pub(super) total_len: usize,
    pub(super) tos: u8,
}

impl FlowV4 {
    /// `None` for a packet that is not simple, or longer than `bytes`.
    #[inline]
    pub(super) fn of(bytes: &[u8]) -> Option<Simple<Self>> {
        let (&header, _) = bytes.split_first_chunk::<24>()?;
        let [
            0x45,
            tos,
            l0,
            l1,
            _,
            _,
            f0,
            f1,
            _,
            protocol,
            _,
            _,
            ends @ ..,
        ] = header
        else {
            return None;
        };
        let total_len = usize::from(u16::from_be_bytes([l0, l1]));
        let whole = f0 & 0x3f == 0 && f1 == 0;
        let simple = whole && has_ports(protocol) && (24..=bytes.len()).contains(&total_len);
        simple.then_some(Simple {
            flow: Self { ends, protocol },
            total_len,
            tos,
        })
    }
}

impl FlowV6 {
    /// `None` for a packet that is not simple, or longer than `bytes`.
    #[inline]
    pub(super) fn of(bytes: &[u8]) -> Option<Simple<Self>> {
        let (&header, _) = bytes.split_first_chunk::<44>()?;
        let [v0, v1, _, _, l0, l1, protocol, _, ends @ ..] = header;
        let total_len = 40 + usize::from(u16::from_be_bytes([l0, l1]));
        let simple = v0 >> 4 == 6 && has_ports(protocol) && (44..=bytes.len()).contains(&total_len);
        simple.then_some(Simple {
            flow: Self { ends, protocol },
            total_len,
            tos: (v0 << 4) | (v1 >> 4),
        })
    }
}

impl Default for FlowV6 {
    fn default() -> Self {
        Self {
            ends: [0; 36],
            protocol: 0,
        }
    }
}

#[inline]
fn has_ports(protocol: u8) -> bool {
    matches!(protocol, protocol::TCP | protocol::UDP)
}
