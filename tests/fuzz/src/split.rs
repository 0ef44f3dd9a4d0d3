//! A vnet header and a packet, as the TUN delivers them.

#![allow(clippy::indexing_slicing, reason = "a panic is how a target reports")]

use super::{packets, reference};
use lockgate::io::offload::{MergeKinds, MergeScratch, Merger, TunPacket};
use lockgate::wire::vnet::VnetHeader;

pub(crate) fn run(data: &[u8]) {
    let Some((header, packet)) = VnetHeader::parse(data) else {
        return;
    };
    let mut bytes = packet.to_vec();
    let segments = split(&header, &mut bytes);
    assert_eq!(segments, reference::split(&header, packet));
    let Some(segments) = segments.filter(|segments| segments.len() > 1) else {
        return;
    };
    // What the merger makes of them, and whether anything was lost in between.
    let mut arena = segments.clone();
    let mut again = Vec::new();
    let mut scratch = MergeScratch::new();
    let kinds = MergeKinds {
        tcp: true,
        udp: true,
    };
    let mut sink = |header: &VnetHeader, pieces: &[std::io::IoSlice<'_>]| {
        let mut packet = packets::joined(pieces);
        again.extend(split(header, &mut packet).expect("what we write, we read"));
    };
    let mut merger = Merger::new(kinds, &mut scratch);
    for segment in &mut arena {
        merger.push(segment, &mut sink);
    }
    merger.finish(&mut sink);
    assert_eq!(again, segments);
}

fn split(header: &VnetHeader, packet: &mut [u8]) -> Option<Vec<Vec<u8>>> {
    let mut packet = TunPacket::parse(header, packet).ok()?;
    let (expected, longest) = (packet.segments(), packet.segment_len());
    let mut segments = Vec::new();
    while let Some(segment) = packet.next_segment() {
        segments.push(segment.to_vec());
    }
    assert!(packet.next_segment().is_none());
    assert_eq!(segments.len(), expected);
    assert_eq!(segments[0].len(), longest);
    Some(segments)
}
