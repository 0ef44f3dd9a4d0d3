//! Finding TCP SYNs, whose MSS option is lowered to what the tunnel carries.

use crate::wire::ip::{Flow, IpPacket, protocol};

/// Whether this packet opens a TCP connection, or answers to that.
pub(super) fn is_syn(packet: &IpPacket<'_>) -> bool {
    if packet.protocol() != protocol::TCP {
        return false;
    }
    let flags = packet.bytes().get(packet.upper_layer_offset() + FLAGS);
    packet.ports().is_some() && flags.is_some_and(|flags| flags & SYN != 0)
}

/// For a SYN, the flow of what answers it.
///
/// Looks at the two bytes that tell before it looks closer, since every packet comes through here.
pub(super) fn answer_to_syn(packet: &[u8]) -> Option<Flow> {
    let first = *packet.first()?;
    let (next, flags) = match first >> 4 {
        4 => (packet.get(9)?, usize::from(first & 0x0f) * 4 + FLAGS),
        _ => (packet.get(6)?, 40 + FLAGS),
    };
    if *next != protocol::TCP || packet.get(flags)? & SYN == 0 {
        return None;
    }
    let view = IpPacket::parse(packet).ok().filter(is_syn)?;
    Some(view.flow().reversed())
}

const FLAGS: usize = 13;
const SYN: u8 = 0x02;
