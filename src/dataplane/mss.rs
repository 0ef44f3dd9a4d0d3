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

/// Whether a packet may be a SYN. Looks only at the two bytes that tell, since every packet that
/// comes out of a tunnel is asked.
pub(super) fn may_be_syn(packet: &[u8]) -> bool {
    let Some(first) = packet.first() else {
        return false;
    };
    let (next, flags) = match first >> 4 {
        4 => (packet.get(9), usize::from(first & 0x0f) * 4 + FLAGS),
        _ => (packet.get(6), 40 + FLAGS),
    };
    let flags = packet.get(flags);
    next == Some(&protocol::TCP) && flags.is_some_and(|flags| flags & SYN != 0)
}

/// For a SYN, the flow of what answers it.
pub(super) fn answer_to_syn(packet: &[u8]) -> Option<Flow> {
    let view = may_be_syn(packet).then(|| IpPacket::parse(packet).ok())?;
    Some(view.filter(is_syn)?.flow().reversed())
}

const FLAGS: usize = 13;
const SYN: u8 = 0x02;
