//! Edits in place that keep checksums right. Each leaves a packet that it does not understand alone.

use super::checksum::update;
use super::packet::{IpPacket, protocol};

/// Replaces TOS or traffic class.
pub fn set_tos(packet: &mut [u8], tos: u8) {
    match packet {
        [version_ihl, old_tos, _, _, _, _, _, _, _, _, c0, c1, ..] if *version_ihl >> 4 == 4 => {
            let (old, new) = ([*version_ihl, *old_tos], [*version_ihl, tos]);
            *old_tos = tos;
            replace_checksum([c0, c1], old, new);
        }
        [v0, v1, ..] if *v0 >> 4 == 6 => {
            *v0 = 0x60 | (tos >> 4);
            *v1 = (*v1 & 0x0f) | (tos << 4);
        }
        _ => {}
    }
}

/// Lowers the MSS option of a TCP SYN so that segments fit `mtu` (RFC 9293 §3.7.1: without the
/// fixed IP and TCP headers); true when it changed. The TCP checksum must be complete, not left to
/// an offload.
pub fn clamp_mss(packet: &mut [u8], mtu: u16) -> bool {
    let Ok(view) = IpPacket::parse(packet) else {
        return false;
    };
    if view.protocol() != protocol::TCP || view.ports().is_none() {
        return false;
    }
    let headers = if view.version() == 4 { 40 } else { 60 };
    let Some(mss) = mtu.checked_sub(headers) else {
        return false;
    };
    let (start, end) = (view.upper_layer_offset(), view.total_len());
    packet
        .get_mut(start..end)
        .is_some_and(|segment| clamp_option(segment, mss).is_some())
}

/// `Some` when the option was there and too large.
fn clamp_option(segment: &mut [u8], mss: u16) -> Option<()> {
    let (&mut header, options) = segment.split_first_chunk_mut::<20>()?;
    let [_, _, _, _, _, _, _, _, _, _, _, _, data_offset, flags, ..] = header;
    if flags & SYN == 0 {
        return None;
    }
    let options = options.get_mut(..(usize::from(data_offset >> 4) * 4).checked_sub(20)?)?;
    let at = find_mss(options)?;
    let (old, new) = match options.get_mut(at..at + 2)? {
        [high, low] => {
            let old = u16::from_be_bytes([*high, *low]);
            if old <= mss {
                return None;
            }
            [*high, *low] = mss.to_be_bytes();
            (old, mss)
        }
        _ => return None,
    };
    // Behind an odd number of NOPs the value straddles two words of the checksum; a one's
    // complement sum does not mind its words' bytes being swapped, if all are.
    let order = if at % 2 == 0 {
        u16::to_be_bytes
    } else {
        u16::to_le_bytes
    };
    let [.., c0, c1, _, _] = segment.first_chunk_mut::<20>()?;
    replace_checksum([c0, c1], order(old), order(new));
    Some(())
}

/// Where the MSS value is (RFC 9293 §3.2).
fn find_mss(options: &[u8]) -> Option<usize> {
    let mut at = 0;
    loop {
        match options.get(at..)? {
            [END_OF_OPTIONS, ..] | [] => return None,
            [NO_OPERATION, ..] => at += 1,
            [MAXIMUM_SEGMENT_SIZE, 4, _, _, ..] => return Some(at + 2),
            [_, len, ..] if *len >= 2 => at += usize::from(*len),
            _ => return None,
        }
    }
}

fn replace_checksum(field: [&mut u8; 2], old: [u8; 2], new: [u8; 2]) {
    let [high, low] = field;
    let checksum = u16::from_be_bytes([*high, *low]);
    [*high, *low] =
        update(checksum, u16::from_be_bytes(old), u16::from_be_bytes(new)).to_be_bytes();
}

const SYN: u8 = 0x02;

const END_OF_OPTIONS: u8 = 0;
const NO_OPERATION: u8 = 1;
const MAXIMUM_SEGMENT_SIZE: u8 = 2;
