//! One packet from the TUN, or out of the tunnel.

#![allow(clippy::indexing_slicing, reason = "a panic is how a target reports")]

use lockgate::wire::ip::{self, IpPacket, checksum::checksum};

pub(crate) fn run(packet: &[u8]) {
    let view = IpPacket::parse(packet);
    edits(packet, view.is_ok());
    for mtu in [0, 40, 68, 576, 1280, 1400, u16::MAX] {
        too_big(packet, mtu);
        fragments(packet, mtu);
    }
    let Ok(view) = view else { return };
    assert!(view.upper_layer_offset() <= view.total_len() && view.total_len() <= packet.len());
    assert_eq!(view.bytes().len(), view.total_len());
    assert_eq!(view.flow().ports, view.ports());
    assert!(view.ports().is_none() || view.fragment_offset() == 0);
    assert!(ip::quoted_flow(&view).is_none() || view.fragment_offset() == 0);
}

/// No edit changes the length of anything, or a header checksum from right to wrong.
fn edits(packet: &[u8], valid: bool) {
    let mut edited = packet.to_vec();
    ip::set_tos(&mut edited, 0xb9);
    ip::clamp_mss(&mut edited, 1280);
    let after = IpPacket::parse(&edited);
    assert_eq!(after.is_ok(), valid);
    let (Ok(before), Ok(after)) = (IpPacket::parse(packet), after) else {
        return;
    };
    assert_eq!((after.tos(), after.ttl()), (0xb9, before.ttl()));
    assert_eq!((after.src(), after.dst()), (before.src(), before.dst()));
    if before.version() == 4 && checksum(&packet[..before.header_len()]) == 0 {
        assert_eq!(checksum(&edited[..after.header_len()]), 0);
    }
}

/// The error is a sound packet to the sender, and earns no error itself.
fn too_big(packet: &[u8], mtu: u16) {
    let mut out = [0; ip::MAX_TOO_BIG];
    let Some(len) = ip::packet_too_big(packet, mtu, &mut out) else {
        return;
    };
    let error = IpPacket::parse(&out[..len]).expect("what we write, we read");
    let original = IpPacket::parse(packet).expect("an error is about a packet");
    assert_eq!((error.src(), error.dst()), (original.dst(), original.src()));
    assert_eq!(
        ip::packet_too_big(&out[..len], mtu, &mut [0; ip::MAX_TOO_BIG]),
        None
    );
}

/// Fragments fit, have sound headers, and put together are the packet's data.
fn fragments(packet: &[u8], mtu: u16) {
    let Some(mut fragments) = ip::fragment_v4(packet, mtu) else {
        return;
    };
    let original = IpPacket::parse(packet).expect("only packets are split");
    let mut out = vec![0; mtu.into()];
    let mut data = Vec::new();
    let mut last = None;
    while let Some(len) = fragments.next_into(&mut out) {
        let piece = IpPacket::parse(&out[..len]).expect("what we write, we read");
        assert_eq!(piece.total_len(), len);
        assert_eq!(checksum(&out[..piece.header_len()]), 0);
        let at = usize::from(original.fragment_offset()) * 8 + data.len();
        assert_eq!(usize::from(piece.fragment_offset()) * 8, at);
        data.extend_from_slice(piece.upper_layer());
        last = Some(piece.more_fragments());
    }
    assert_eq!(data, original.upper_layer());
    assert_eq!(last, Some(original.more_fragments()));
}
