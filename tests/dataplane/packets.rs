//! Inner packets, made byte by byte from RFC 791, RFC 8200, RFC 768 and RFC 9293.
#![allow(
    dead_code,
    reason = "every test program compiles this module and uses its part"
)]

use std::net::{IpAddr, SocketAddr};

/// A UDP packet with a correct checksum; IPv4 has DF set as `dont_fragment` says.
pub(crate) fn udp(
    src: SocketAddr,
    dst: SocketAddr,
    payload: &[u8],
    dont_fragment: bool,
) -> Vec<u8> {
    let length = u16::try_from(8 + payload.len()).expect("a short payload");
    let mut segment = Vec::new();
    segment.extend(src.port().to_be_bytes());
    segment.extend(dst.port().to_be_bytes());
    segment.extend(length.to_be_bytes());
    segment.extend([0, 0]);
    segment.extend(payload);
    finish_checksum(src.ip(), dst.ip(), 17, &mut segment, 6);
    ip(src.ip(), dst.ip(), 17, 0, dont_fragment, &segment)
}

/// A TCP SYN that offers an MSS.
pub(crate) fn syn(src: SocketAddr, dst: SocketAddr, mss: u16) -> Vec<u8> {
    let mut segment = Vec::new();
    segment.extend(src.port().to_be_bytes());
    segment.extend(dst.port().to_be_bytes());
    segment.extend([0, 0, 0, 1, 0, 0, 0, 0, 0x60, 0x02, 0xff, 0xff, 0, 0, 0, 0]);
    segment.extend([2, 4]);
    segment.extend(mss.to_be_bytes());
    finish_checksum(src.ip(), dst.ip(), 6, &mut segment, 16);
    ip(src.ip(), dst.ip(), 6, 0, true, &segment)
}

/// The MSS that a SYN made by [`syn`] offers; panics if its checksum is wrong.
pub(crate) fn offered_mss(packet: &[u8]) -> u16 {
    let (src, dst, segment) = match packet[0] >> 4 {
        4 => {
            let src: [u8; 4] = packet[12..16].try_into().expect("4 bytes");
            let dst: [u8; 4] = packet[16..20].try_into().expect("4 bytes");
            (IpAddr::from(src), IpAddr::from(dst), &packet[20..])
        }
        _ => {
            let src: [u8; 16] = packet[8..24].try_into().expect("16 bytes");
            let dst: [u8; 16] = packet[24..40].try_into().expect("16 bytes");
            (IpAddr::from(src), IpAddr::from(dst), &packet[40..])
        }
    };
    let sum = ones_complement_sum(pseudo_header(src, dst, 6, segment.len()), segment);
    assert_eq!(sum, 0xffff, "the TCP checksum is right");
    u16::from_be_bytes([segment[22], segment[23]])
}

/// An ICMP error (RFC 792, RFC 4443 §3.1: host unreachable) that quotes the first 28 or 48 bytes of a
/// packet; its checksum is left at zero.
pub(crate) fn unreachable(src: IpAddr, dst: IpAddr, quoted: &[u8]) -> Vec<u8> {
    let (protocol, kind, quote) = if src.is_ipv4() {
        (1, 3, 28)
    } else {
        (58, 1, 48)
    };
    let mut message = vec![kind, 1, 0, 0, 0, 0, 0, 0];
    message.extend(&quoted[..quote.min(quoted.len())]);
    ip(src, dst, protocol, 0, true, &message)
}

/// An IP packet around `payload`.
pub(crate) fn ip(
    src: IpAddr,
    dst: IpAddr,
    protocol: u8,
    tos: u8,
    dont_fragment: bool,
    payload: &[u8],
) -> Vec<u8> {
    let mut packet = Vec::new();
    match (src, dst) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => {
            let total = u16::try_from(20 + payload.len()).expect("a short payload");
            packet.extend([0x45, tos]);
            packet.extend(total.to_be_bytes());
            packet.extend([0x12, 0x34, if dont_fragment { 0x40 } else { 0 }, 0]);
            packet.extend([64, protocol, 0, 0]);
            packet.extend(src.octets());
            packet.extend(dst.octets());
            let checksum = !ones_complement_sum(0, &packet);
            packet[10..12].copy_from_slice(&checksum.to_be_bytes());
        }
        (IpAddr::V6(src), IpAddr::V6(dst)) => {
            let length = u16::try_from(payload.len()).expect("a short payload");
            packet.extend([0x60 | tos >> 4, tos << 4, 0, 0]);
            packet.extend(length.to_be_bytes());
            packet.extend([protocol, 64]);
            packet.extend(src.octets());
            packet.extend(dst.octets());
        }
        _ => panic!("both ends have one family"),
    }
    packet.extend(payload);
    packet
}

/// Whether the IPv4 header checksum is right.
pub(crate) fn header_checksum_is_right(packet: &[u8]) -> bool {
    ones_complement_sum(0, &packet[..20]) == 0xffff
}

fn finish_checksum(src: IpAddr, dst: IpAddr, protocol: u8, segment: &mut [u8], offset: usize) {
    let sum = ones_complement_sum(pseudo_header(src, dst, protocol, segment.len()), segment);
    segment[offset..offset + 2].copy_from_slice(&(!sum).to_be_bytes());
}

fn pseudo_header(src: IpAddr, dst: IpAddr, protocol: u8, length: usize) -> u32 {
    let mut bytes = Vec::new();
    for address in [src, dst] {
        match address {
            IpAddr::V4(address) => bytes.extend(address.octets()),
            IpAddr::V6(address) => bytes.extend(address.octets()),
        }
    }
    let length = u32::try_from(length).expect("a short segment");
    bytes.extend(length.to_be_bytes());
    bytes.extend([0, 0, 0, protocol]);
    u32::from(ones_complement_sum(0, &bytes))
}

fn ones_complement_sum(initial: u32, bytes: &[u8]) -> u16 {
    let mut sum = initial;
    for pair in bytes.chunks(2) {
        let word = [pair[0], pair.get(1).copied().unwrap_or(0)];
        sum += u32::from(u16::from_be_bytes(word));
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    u16::try_from(sum).expect("folded")
}
