//! Splitting and merging as one would explain them: a packet at a time, every one copied.
//!
//! The packets that a super-packet stands for are built one by one from its fields. Whether a packet
//! belongs to a train is decided by trying: the super-packet that they would make is split, and must
//! give back what went in.
#![allow(
    dead_code,
    clippy::indexing_slicing,
    reason = "every program that compiles this module uses its part, and fails by panicking"
)]

use lockgate::wire::vnet::VnetHeader;

use super::packets::{ACK, CWR, ECE, FIN, PSH, RST, SYN, URG, checksum, field, put};

/// Where the TCP or UDP header of a packet is, and which.
struct Layout {
    ipv6: bool,
    total_len: usize,
    protocol: u8,
    transport_at: usize,
}

/// The packets that the TUN means; `None` if it means none.
pub(crate) fn split(header: &VnetHeader, packet: &[u8]) -> Option<Vec<Vec<u8>>> {
    if header.gso_type == 0 {
        return plain(header, packet).map(|packet| vec![packet]);
    }
    let layout = layout(packet)?;
    let packet = &packet[..layout.total_len];
    let upper_layer = &packet[layout.transport_at..];
    let (expected, fixed, checksum_at) = match (header.gso_type, layout.ipv6) {
        (1 | 0x81, false) | (4 | 0x84, true) => (6, 20, 16),
        (5, _) => (17, 8, 6),
        _ => return None,
    };
    if layout.protocol != expected || upper_layer.len() < fixed {
        return None;
    }
    let is_tcp = expected == 6;
    let transport_len = if is_tcp {
        usize::from(upper_layer[12] >> 4) * 4
    } else {
        8
    };
    if transport_len < fixed || upper_layer.len() < transport_len {
        return None;
    }
    let start = usize::from(header.csum_start);
    if header.flags & 1 == 0
        || (start, usize::from(header.csum_offset)) != (layout.transport_at, checksum_at)
        || header.gso_size == 0
        || (is_tcp && upper_layer[13] & (SYN | RST) != 0)
    {
        return None;
    }

    let (headers, payload) = packet.split_at(layout.transport_at + transport_len);
    let mut pieces: Vec<&[u8]> = payload.chunks(header.gso_size.into()).collect();
    if pieces.is_empty() {
        pieces.push(&[]);
    }
    let count = pieces.len();
    let segments = pieces.iter().enumerate().map(|(index, piece)| {
        let mut segment = [headers, piece].concat();
        let before = index * usize::from(header.gso_size);
        finish_ip(&mut segment, &layout, index);
        let segment_upper_layer = &mut segment[layout.transport_at..];
        if is_tcp {
            finish_tcp(segment_upper_layer, before, index == 0, index + 1 == count);
        } else {
            let length = u16::try_from(segment_upper_layer.len()).expect("a packet");
            put(segment_upper_layer, 4, length);
        }
        finish_upper_layer(segment_upper_layer, upper_layer, checksum_at);
        segment
    });
    Some(segments.collect())
}

fn plain(header: &VnetHeader, packet: &[u8]) -> Option<Vec<u8>> {
    let mut packet = packet.to_vec();
    if header.flags & 1 == 0 {
        return Some(packet);
    }
    let header_len = match packet.first()? {
        first if first >> 4 == 4 => usize::from(first & 15) * 4,
        first if first >> 4 == 6 => 40,
        _ => return None,
    };
    let start = usize::from(header.csum_start);
    let at = start + usize::from(header.csum_offset);
    if start < header_len || at + 2 > packet.len() {
        return None;
    }
    let sum = match checksum(&packet[start..]) {
        0 => 0xffff,
        sum => sum,
    };
    put(&mut packet, at, sum);
    Some(packet)
}

/// Whole packets that are no fragments.
fn layout(packet: &[u8]) -> Option<Layout> {
    let version = packet.first()? >> 4;
    if version == 4 && packet.len() >= 20 {
        let header_len = usize::from(packet[0] & 15) * 4;
        let total_len = usize::from(field(packet, 2));
        let is_fragment = field(packet, 6) & 0x3fff != 0;
        let fits = header_len >= 20 && header_len <= total_len && total_len <= packet.len();
        return (fits && !is_fragment).then_some(Layout {
            ipv6: false,
            total_len,
            protocol: packet[9],
            transport_at: header_len,
        });
    }
    if version != 6 || packet.len() < 40 {
        return None;
    }
    let total_len = 40 + usize::from(field(packet, 4));
    if total_len > packet.len() {
        return None;
    }
    let (mut next, mut at, mut fragment_headers) = (packet[6], 40, 0);
    for _ in 0..9 {
        let len = match next {
            0 | 43 | 60 => 8 + 8 * usize::from(*packet[..total_len].get(at + 1)?),
            44 => {
                fragment_headers += 1;
                8
            }
            protocol => {
                return Some(Layout {
                    ipv6: true,
                    total_len,
                    protocol,
                    transport_at: at,
                });
            }
        };
        let extension = packet[..total_len].get(at..at + len)?;
        // Offset and M must be zero, and it may come once.
        if next == 44 && (fragment_headers > 1 || field(extension, 2) & 0xfff9 != 0) {
            return None;
        }
        next = extension[0];
        at += len;
    }
    None
}

fn finish_ip(segment: &mut [u8], layout: &Layout, index: usize) {
    let len = segment.len();
    if layout.ipv6 {
        put(segment, 4, u16::try_from(len - 40).expect("a packet"));
        return;
    }
    put(segment, 2, u16::try_from(len).expect("a packet"));
    let id = usize::from(field(segment, 4)) + index;
    put(segment, 4, u16::try_from(id % 0x10000).expect("16 bits"));
    put(segment, 10, 0);
    let sum = checksum(&segment[..layout.transport_at]);
    put(segment, 10, sum);
}

fn finish_tcp(segment: &mut [u8], before: usize, is_first: bool, is_last: bool) {
    let sequence = u32::from_be_bytes([segment[4], segment[5], segment[6], segment[7]]);
    let before = u32::try_from(before).expect("a packet");
    segment[4..8].copy_from_slice(&sequence.wrapping_add(before).to_be_bytes());
    if !is_last {
        segment[13] &= !(FIN | PSH);
    }
    if !is_first {
        segment[13] &= !CWR;
    }
    let urgent = u32::from(field(segment, 18));
    if segment[13] & URG != 0 && !is_first {
        if urgent > before {
            let left = u16::try_from(urgent - before).expect("less than it was");
            put(segment, 18, left);
        } else {
            put(segment, 18, 0);
            segment[13] &= !URG;
        }
    }
}

/// The field of the super-packet has the sum of a pseudo-header with the super-packet's length.
fn finish_upper_layer(segment: &mut [u8], whole: &[u8], checksum_at: usize) {
    let sum_of_pseudo_header = field(whole, checksum_at);
    let length_of_whole = u16::try_from(whole.len()).expect("a packet");
    let length = u16::try_from(segment.len()).expect("a packet");
    put(segment, checksum_at, 0);
    let mut covered = Vec::new();
    covered.extend(sum_of_pseudo_header.to_be_bytes());
    covered.extend((!length_of_whole).to_be_bytes());
    covered.extend(length.to_be_bytes());
    covered.extend_from_slice(segment);
    let sum = match checksum(&covered) {
        0 if checksum_at == 6 => 0xffff,
        sum => sum,
    };
    put(segment, checksum_at, sum);
}

/// What the merger makes of the packets of one flow, each with the number of packets in it.
pub(crate) fn merge(packets: &[Vec<u8>], udp: bool) -> Vec<(VnetHeader, Vec<u8>, usize)> {
    let mut merged = Vec::new();
    let mut train: Vec<&[u8]> = Vec::new();
    for packet in packets {
        train.push(packet);
        if train.len() > 1 && (train.len() > 64 || join(&train, udp).is_none()) {
            train.pop();
            merged.extend(close(&train, udp));
            train = vec![packet];
        }
    }
    merged.extend(close(&train, udp));
    merged
}

fn close(train: &[&[u8]], udp: bool) -> Option<(VnetHeader, Vec<u8>, usize)> {
    match train {
        [] => None,
        [packet] => Some((VnetHeader::default(), packet.to_vec(), 1)),
        train => join(train, udp).map(|(header, packet)| (header, packet, train.len())),
    }
}

/// The super-packet of two packets or more, if there is one.
fn join(train: &[&[u8]], udp: bool) -> Option<(VnetHeader, Vec<u8>)> {
    let (first, last) = (train[0], train[train.len() - 1]);
    let layout = layout(first)?;
    let is_tcp = match layout.protocol {
        6 => true,
        17 if udp => false,
        _ => return None,
    };
    let plain_header_len = if layout.ipv6 { 40 } else { 20 };
    let at = layout.transport_at;
    if at != plain_header_len || first.len() < at + if is_tcp { 20 } else { 8 } {
        return None;
    }
    let header_len = at
        + if is_tcp {
            usize::from(first[at + 12] >> 4) * 4
        } else {
            8
        };
    if train.iter().any(|packet| packet.len() <= header_len) {
        return None;
    }
    let payloads = train.iter().map(|packet| &packet[header_len..]);
    let mut whole = first[..header_len].to_vec();
    payloads.for_each(|payload| whole.extend_from_slice(payload));
    let upper_layer_len = u16::try_from(whole.len() - at).ok()?;
    u16::try_from(whole.len()).ok()?;

    if is_tcp {
        let other_flags = |packet: &&[u8]| packet[at + 13] & !(PSH | ECE) != ACK;
        if train.iter().any(other_flags) {
            return None;
        }
        whole[at + 13] |= last[at + 13] & PSH;
    } else {
        put(&mut whole, at + 4, upper_layer_len);
    }
    let addresses = if layout.ipv6 {
        put(&mut whole, 4, upper_layer_len);
        &first[8..40]
    } else {
        let total_len = u16::try_from(whole.len()).ok()?;
        put(&mut whole, 2, total_len);
        put(&mut whole, 10, 0);
        let sum = checksum(&whole[..20]);
        put(&mut whole, 10, sum);
        &first[12..20]
    };
    let protocol = [0, layout.protocol];
    let pseudo_header = [addresses, &protocol, &upper_layer_len.to_be_bytes()].concat();
    let checksum_at = if is_tcp { 16 } else { 6 };
    put(&mut whole, at + checksum_at, !checksum(&pseudo_header));

    let header = VnetHeader {
        flags: 1,
        gso_type: match (is_tcp, layout.ipv6) {
            (true, false) => 1,
            (true, true) => 4,
            (false, _) => 5,
        },
        hdr_len: u16::try_from(header_len).ok()?,
        gso_size: u16::try_from(first.len() - header_len).ok()?,
        csum_start: u16::try_from(at).ok()?,
        csum_offset: u16::try_from(checksum_at).ok()?,
    };
    let again = split(&header, &whole)?;
    (again == train || again == renumbered(train)).then_some((header, whole))
}

/// The packets as they come out again if all have one identification that says nothing: each with
/// the next one.
pub(crate) fn renumbered(train: &[&[u8]]) -> Vec<Vec<u8>> {
    let mut packets: Vec<Vec<u8>> = train.iter().map(|packet| packet.to_vec()).collect();
    let is_atomic = |packet: &&[u8]| {
        packet[0] == 0x45
            && packet[4..8] == train[0][4..8]
            && packet[6] & 0x40 != 0
            && checksum(&packet[..20]) == 0
            && field(packet, 10) != 0xffff
    };
    if train.iter().all(is_atomic) {
        for (index, packet) in packets.iter_mut().enumerate() {
            let id = usize::from(field(packet, 4)) + index;
            put(packet, 4, u16::try_from(id % 0x10000).expect("16 bits"));
            put(packet, 10, 0);
            let sum = checksum(&packet[..20]);
            put(packet, 10, sum);
        }
    }
    packets
}
