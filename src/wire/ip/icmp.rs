//! ICMP errors: what they quote, and "too big" (RFC 1191 §4, RFC 4443 §3.2).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::checksum::{checksum, finish, pseudo_header, sum};
use super::packet::{Flow, IpPacket, protocol};
use crate::wire::Malformed;

/// The flow of the packet that an ICMP error quotes; `None` if `packet` is no ICMP error.
pub fn quoted_flow(packet: &IpPacket<'_>) -> Option<Result<Flow, Malformed>> {
    if packet.fragment_offset() != 0 || !is_icmp_error(packet) {
        return None;
    }
    let quote = packet.upper_layer().get(ERROR_HEADER_LEN..);
    let quote = quote.ok_or(Malformed::Truncated("ICMP error"));
    Some(
        quote
            .and_then(IpPacket::parse_beginning)
            .map(|packet| packet.flow()),
    )
}

/// Writes the error that tells the sender of `original` about `mtu`, as if from its destination,
/// and returns its length.
///
/// `None` where RFC 1122 §3.2.2 or RFC 4443 §2.4 forbid an error: about an ICMP error, about a later
/// fragment, to or from anything but one host. Also when `out` is shorter than the error, which has
/// at most [`MAX_TOO_BIG`] bytes.
pub fn packet_too_big(original: &[u8], mtu: u16, out: &mut [u8]) -> Option<usize> {
    let packet = IpPacket::parse(original).ok()?;
    if packet.is_fragment() && !packet.is_first_fragment() || is_icmp_error(&packet) {
        return None;
    }
    match (packet.src(), packet.dst()) {
        (IpAddr::V4(src), IpAddr::V4(dst)) if is_host_v4(src) && is_host_v4(dst) => {
            write_v4(&packet, src, dst, mtu, out)
        }
        (IpAddr::V6(src), IpAddr::V6(dst)) if is_host_v6(src) && is_host_v6(dst) => {
            write_v6(&packet, src, dst, mtu, out)
        }
        _ => None,
    }
}

fn write_v4(
    packet: &IpPacket<'_>,
    src: Ipv4Addr,
    dst: Ipv4Addr,
    mtu: u16,
    out: &mut [u8],
) -> Option<usize> {
    let quoted = quote(packet, MAX_V4 - 28);
    let total = 28 + quoted.len();
    let [t0, t1] = u16::try_from(total).ok()?.to_be_bytes();
    let [m0, m1] = mtu.to_be_bytes();
    let (ip, icmp) = out.get_mut(..total)?.split_at_mut_checked(20)?;
    // Internetwork control; never fragmented, so the identification may stay zero (RFC 6864 §4.1).
    ip.copy_from_slice(&[
        0x45,
        0xc0,
        t0,
        t1,
        0,
        0,
        0x40,
        0,
        TTL,
        protocol::ICMP,
        0,
        0, //
        0,
        0,
        0,
        0,
        0,
        0,
        0,
        0,
    ]);
    ip.get_mut(12..16)?.copy_from_slice(&dst.octets());
    ip.get_mut(16..20)?.copy_from_slice(&src.octets());
    let header_sum = checksum(ip).to_be_bytes();
    ip.get_mut(10..12)?.copy_from_slice(&header_sum);

    icmp.get_mut(..8)?
        .copy_from_slice(&[3, 4, 0, 0, 0, 0, m0, m1]);
    icmp.get_mut(8..)?.copy_from_slice(quoted);
    let icmp_sum = checksum(icmp).to_be_bytes();
    icmp.get_mut(2..4)?.copy_from_slice(&icmp_sum);
    Some(total)
}

fn write_v6(
    packet: &IpPacket<'_>,
    src: Ipv6Addr,
    dst: Ipv6Addr,
    mtu: u16,
    out: &mut [u8],
) -> Option<usize> {
    let quoted = quote(packet, MAX_TOO_BIG - 48);
    let payload_len = u16::try_from(8 + quoted.len()).ok()?;
    let total = 40 + usize::from(payload_len);
    let [l0, l1] = payload_len.to_be_bytes();
    let [m0, m1] = mtu.to_be_bytes();
    let (ip, icmp) = out.get_mut(..total)?.split_at_mut_checked(40)?;
    ip.get_mut(..8)?
        .copy_from_slice(&[0x60, 0, 0, 0, l0, l1, protocol::ICMPV6, TTL]);
    ip.get_mut(8..24)?.copy_from_slice(&dst.octets());
    ip.get_mut(24..40)?.copy_from_slice(&src.octets());

    icmp.get_mut(..8)?
        .copy_from_slice(&[2, 0, 0, 0, 0, 0, m0, m1]);
    icmp.get_mut(8..)?.copy_from_slice(quoted);
    let pseudo = pseudo_header(dst.into(), src.into(), protocol::ICMPV6, payload_len.into());
    let icmp_sum = finish(sum(pseudo, icmp)).to_be_bytes();
    icmp.get_mut(2..4)?.copy_from_slice(&icmp_sum);
    Some(total)
}

fn quote<'a>(packet: &IpPacket<'a>, most: usize) -> &'a [u8] {
    packet.bytes().get(..most).unwrap_or(packet.bytes())
}

/// Errors about errors would echo for ever. ICMP too short to tell counts as one.
fn is_icmp_error(packet: &IpPacket<'_>) -> bool {
    match (packet.protocol(), packet.upper_layer().first()) {
        (protocol::ICMP, kind) => kind.is_none_or(|kind| matches!(kind, 3..=5 | 11 | 12)),
        (protocol::ICMPV6, kind) => kind.is_none_or(|kind| *kind < 128 || *kind == 137),
        _ => false,
    }
}

fn is_host_v4(address: Ipv4Addr) -> bool {
    let [first, ..] = address.octets();
    !matches!(first, 0 | 127 | 224..)
}

fn is_host_v6(address: Ipv6Addr) -> bool {
    !(address.is_unspecified() || address.is_loopback() || address.is_multicast())
}

/// The longest error that [`packet_too_big`] writes: the minimum MTU of IPv6.
pub const MAX_TOO_BIG: usize = 1280;
/// Every ICMP error has two words before what it quotes (RFC 792, RFC 4443 §2.1).
const ERROR_HEADER_LEN: usize = 8;
/// RFC 1812 §4.3.2.3.
const MAX_V4: usize = 576;
const TTL: u8 = 64;
