//! IP packets, against scapy's; see `tests/data/wire/README.md`.

use std::fs;
use std::net::IpAddr;
use std::path::Path;

use lockgate::wire::Malformed;
use lockgate::wire::esp::{Demux, EspHeader, demux_udp_encap};
use lockgate::wire::ip::checksum::{checksum, finish, pseudo_header, sum};
use lockgate::wire::ip::{self, IpPacket, MAX_TOO_BIG};
use lockgate::wire::vnet::VnetHeader;

fn read(folder: &str, name: &str) -> Vec<u8> {
    fs::read(
        Path::new(env!("CARGO_MANIFEST_DIR"))
            .join(folder)
            .join(name),
    )
    .unwrap()
}

fn seed(name: &str) -> Vec<u8> {
    read("tests/fuzz/seeds/inner_ip", name)
}

/// What scapy makes of a seed after a change.
fn expected(name: &str) -> Vec<u8> {
    read("tests/data/wire", name)
}

#[test]
fn packets_are_classified_by_protocol_and_visible_ports() {
    for (name, protocol, ports, offset) in [
        ("syn-v4", 6, Some((40001, 443)), 20),
        ("syn-v6-extension-headers", 6, Some((40003, 443)), 64),
        ("udp-v4-3008", 17, Some((5000, 5001)), 20),
        ("udp-v4-options", 17, Some((7, 8)), 36),
        ("udp-v4-later-fragment", 17, None, 20),
        ("udp-v6-first-fragment", 17, Some((5000, 5001)), 48),
        ("udp-v6-later-fragment", 17, None, 48),
        ("icmp-v4-echo", 1, Some((0x0800, 0x0800)), 20),
        ("icmp-v4-unreachable", 1, Some((0x0301, 0x0301)), 20),
        ("icmp-v6-echo", 58, Some((0x8000, 0x8000)), 40),
        ("gre-v4", 47, None, 20),
        ("esp-in-v6", 50, None, 40),
    ] {
        let bytes = seed(name);
        let packet = IpPacket::parse(&bytes).unwrap();
        let flow = packet.flow();
        assert_eq!((flow.protocol, flow.ports), (protocol, ports), "{name}");
        assert_eq!(packet.upper_layer_offset(), offset, "{name}");
        assert_eq!(packet.total_len(), bytes.len(), "{name}");
        let (src, dst) = match packet.version() {
            4 => ("10.1.0.7", "10.2.0.9"),
            _ => ("2001:db8:1::7", "2001:db8:2::9"),
        };
        assert_eq!(
            (flow.src.to_string(), flow.dst.to_string()),
            (src.into(), dst.into())
        );
    }
}

#[test]
fn header_fields_read_as_scapy_wrote_them() {
    let bytes = seed("udp-v4-3008");
    let packet = IpPacket::parse(&bytes).unwrap();
    assert_eq!((packet.tos(), packet.dscp(), packet.ecn()), (0x29, 0x0a, 1));
    assert_eq!(
        (packet.ttl(), packet.header_len(), packet.dont_fragment()),
        (33, 20, false)
    );
    let bytes = seed("syn-v6-extension-headers");
    let packet = IpPacket::parse(&bytes).unwrap();
    assert_eq!(
        (packet.tos(), packet.ttl(), packet.dont_fragment()),
        (0xb8, 63, true)
    );
    assert!(!packet.is_fragment());
    let bytes = seed("udp-v4-later-fragment");
    let packet = IpPacket::parse(&bytes).unwrap();
    assert!(packet.is_fragment() && !packet.is_first_fragment() && packet.more_fragments());
    assert_eq!(packet.fragment_offset(), 1376 / 8);
    let bytes = seed("udp-v6-first-fragment");
    assert!(IpPacket::parse(&bytes).unwrap().is_first_fragment());
    let bytes = seed("udp-v6-later-fragment");
    let packet = IpPacket::parse(&bytes).unwrap();
    assert!(packet.is_fragment() && !packet.is_first_fragment() && !packet.more_fragments());
}

#[test]
fn what_follows_the_total_length_is_left_out() {
    for name in ["icmp-v4-echo", "icmp-v6-echo"] {
        let padded = [seed(name), vec![0; 18]].concat();
        assert_eq!(IpPacket::parse(&padded).unwrap().bytes(), seed(name));
    }
}

#[test]
fn headers_that_lie_about_lengths_are_refused() {
    let parse = |bytes: &[u8]| IpPacket::parse(bytes).err();
    assert_eq!(parse(&[]), Some(Malformed::Truncated("IP packet")));
    for version in [0x05, 0x15, 0x55, 0x75, 0xf5] {
        assert_eq!(
            parse(&[version; 60]),
            Some(Malformed::BadValue("IP version"))
        );
    }
    let good = seed("icmp-v4-echo");
    for (at, value) in [
        (0, 0x44),
        (0, 0x40),
        (0, 0x4f),
        (3, 0),
        (3, 19),
        (3, 37),
        (2, 0xff),
    ] {
        let mut bytes = good.clone();
        bytes[at] = value;
        assert!(parse(&bytes).is_some(), "byte {at} = {value}");
    }
    let good = seed("icmp-v6-echo");
    for (at, value) in [(5, 17), (4, 0xff)] {
        let mut bytes = good.clone();
        bytes[at] = value;
        assert_eq!(parse(&bytes), Some(Malformed::Truncated("IPv6 packet")));
    }
    for len in 1..20 {
        assert!(parse(&seed("icmp-v4-echo")[..len]).is_some());
    }
}

/// An IPv6 packet whose payload is `payload`, first header `next`.
fn v6(next: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = seed("icmp-v6-echo")[..40].to_vec();
    bytes[4..6].copy_from_slice(&u16::try_from(payload.len()).unwrap().to_be_bytes());
    bytes[6] = next;
    [bytes, payload.to_vec()].concat()
}

#[test]
fn extension_headers_are_walked_to_the_bound_and_no_further() {
    let options = |count: usize| {
        let mut payload = [60, 0, 1, 4, 0, 0, 0, 0].repeat(count);
        payload[(count - 1) * 8] = 17;
        [payload, vec![0, 9, 0, 10, 0, 8, 0, 0]].concat()
    };
    for count in [1, 2, IpPacket::MAX_EXTENSIONS] {
        let bytes = v6(60, &options(count));
        assert_eq!(IpPacket::parse(&bytes).unwrap().ports(), Some((9, 10)));
    }
    for count in [IpPacket::MAX_EXTENSIONS + 1, 64] {
        let error = IpPacket::parse(&v6(60, &options(count))).err();
        assert_eq!(
            error,
            Some(Malformed::BadLength("IPv6 extension header chain"))
        );
    }
    // Longer than the packet, cut short, a jumbogram, two Fragment headers.
    assert!(IpPacket::parse(&v6(60, &[17, 1, 0, 0, 0, 0, 0, 0])).is_err());
    assert!(IpPacket::parse(&v6(60, &[17])).is_err());
    assert!(IpPacket::parse(&v6(0, &[])).is_err());
    assert!(
        IpPacket::parse(&v6(
            44,
            &[[44, 0, 0, 1, 0, 0, 0, 0], [17, 0, 0, 1, 0, 0, 0, 0]].concat()
        ))
        .is_err()
    );
}

#[test]
fn a_later_ipv6_fragment_is_not_read_as_headers() {
    // Its bytes would be a fine destination options header.
    let bytes = v6(
        44,
        &[[60, 0, 0, 8, 0, 0, 0, 1], [17, 0, 1, 4, 0, 0, 0, 0]].concat(),
    );
    let packet = IpPacket::parse(&bytes).unwrap();
    assert_eq!(
        (
            packet.protocol(),
            packet.ports(),
            packet.upper_layer_offset()
        ),
        (60, None, 48)
    );
}

#[test]
fn tos_changes_as_scapy_changes_it() {
    let mut bytes = seed("udp-v4-3008");
    ip::set_tos(&mut bytes, 0xb8);
    assert_eq!(bytes, expected("udp-v4-3008-tos-b8"));

    let mut bytes = seed("syn-v6-extension-headers");
    let before = bytes.clone();
    ip::set_tos(&mut bytes, 0x2a);
    assert_eq!(IpPacket::parse(&bytes).unwrap().tos(), 0x2a);
    ip::set_tos(&mut bytes, 0xb8);
    assert_eq!(bytes, before);
}

#[test]
fn every_tos_keeps_an_ipv4_header_checksum_right() {
    for tos in 0..=u8::MAX {
        let mut bytes = seed("udp-v4-options");
        ip::set_tos(&mut bytes, tos);
        assert_eq!((bytes[1], checksum(&bytes[..36])), (tos, 0));
    }
}

#[test]
fn the_mss_of_a_syn_is_lowered_as_scapy_would() {
    for (name, after) in [
        ("syn-v4", "syn-v4-mss-1360"),
        ("syn-v4-odd-mss", "syn-v4-odd-mss-1360"),
        (
            "syn-v6-extension-headers",
            "syn-v6-extension-headers-mss-1340",
        ),
    ] {
        let mut bytes = seed(name);
        assert!(ip::clamp_mss(&mut bytes, 1400));
        assert_eq!(bytes, expected(after), "{name}");
        assert!(!ip::clamp_mss(&mut bytes, 1400), "{name}: low enough now");
    }
}

#[test]
fn the_mss_is_left_alone_where_there_is_none_to_lower() {
    let unchanged = |mut bytes: Vec<u8>, mtu| {
        let before = bytes.clone();
        assert!(!ip::clamp_mss(&mut bytes, mtu));
        assert_eq!(bytes, before);
    };
    unchanged(seed("syn-v4"), 1500);
    unchanged(seed("syn-v4"), 39);
    unchanged(seed("udp-v4-3008"), 1400);
    let mut ack = seed("syn-v4");
    ack[33] = 0x10;
    unchanged(ack, 1400);
    for (at, value) in [
        (32, 0x50),
        (32, 0x00),
        (32, 0xf0),
        (40, 0),
        (41, 0),
        (41, 1),
        (41, 3),
    ] {
        let mut bytes = seed("syn-v4");
        bytes[at] = value;
        unchanged(bytes, 1400);
    }
}

#[test]
fn fragments_are_scapys_fragments() {
    let packet = seed("udp-v4-3008");
    let mut fragments = ip::fragment_v4(&packet, 1400).unwrap();
    let mut out = [0; 1400];
    for index in 0..3 {
        let len = fragments.next_into(&mut out).unwrap();
        assert_eq!(
            out[..len],
            expected(&format!("udp-v4-3008-fragment-{index}-of-mtu-1400"))
        );
    }
    assert_eq!(fragments.next_into(&mut out), None);
}

/// RFC 791 §3.1: record route is not copied, router alert is.
#[test]
fn later_fragments_carry_only_the_options_that_ask_for_it() {
    let packet = seed("udp-v4-options");
    let mut fragments = ip::fragment_v4(&packet, 300).unwrap();
    let mut out = [0; 300];
    let len = fragments.next_into(&mut out).unwrap();
    let first = IpPacket::parse(&out[..len]).unwrap();
    assert_eq!(first.header_len(), 36);
    assert_eq!(out[20..36], packet[20..36]);
    let len = fragments.next_into(&mut out).unwrap();
    let second = IpPacket::parse(&out[..len]).unwrap();
    assert_eq!(second.header_len(), 24);
    assert_eq!(out[20..24], [148, 4, 0, 0]);
    assert_eq!(second.fragment_offset() * 8, 264);
}

#[test]
fn what_must_not_be_split_is_not() {
    assert!(ip::fragment_v4(&seed("udp-v4-df-1500"), 1400).is_none());
    assert!(ip::fragment_v4(&seed("udp-v6-1500"), 1400).is_none());
    assert!(ip::fragment_v4(&seed("udp-v4-3008"), 27).is_none());
    assert!(ip::fragment_v4(&[], 1400).is_none());
    let mut beyond = seed("udp-v4-3008");
    beyond[6..8].copy_from_slice(&0x1fffu16.to_be_bytes());
    assert!(ip::fragment_v4(&beyond, 1400).is_none());
    // One that fits is its own only fragment.
    let packet = seed("icmp-v4-echo");
    let mut fragments = ip::fragment_v4(&packet, 1400).unwrap();
    let mut out = [0; 1400];
    assert_eq!(fragments.next_into(&mut out), Some(packet.len()));
    assert_eq!(out[..packet.len()], packet);
    assert_eq!(fragments.next_into(&mut out), None);
    assert_eq!(
        ip::fragment_v4(&packet, 1400)
            .unwrap()
            .next_into(&mut [0; 35]),
        None
    );
}

#[test]
fn a_too_big_error_is_the_one_that_scapy_builds() {
    let mut out = [0; MAX_TOO_BIG];
    for name in ["udp-v4-df-1500", "udp-v6-1500"] {
        let len = ip::packet_too_big(&seed(name), 1400, &mut out).unwrap();
        assert_eq!(
            out[..len],
            expected(&format!("{name}-too-big-1400")),
            "{name}"
        );
        assert_eq!(ip::packet_too_big(&seed(name), 1400, &mut [0; 575]), None);
    }
}

#[test]
fn no_error_is_sent_about_an_error_a_later_fragment_or_many_hosts() {
    let mut out = [0; MAX_TOO_BIG];
    let mut none = |packet: &[u8]| assert_eq!(ip::packet_too_big(packet, 1280, &mut out), None);
    for name in [
        "icmp-v4-unreachable",
        "icmp-v6-time-exceeded",
        "udp-v4-later-fragment",
        "udp-v6-later-fragment",
    ] {
        none(&seed(name));
    }
    for (at, address) in [
        (12, [0, 0, 0, 0]),
        (12, [127, 0, 0, 1]),
        (12, [224, 0, 0, 1]),
        (16, [239, 1, 2, 3]),
        (16, [255, 255, 255, 255]),
    ] {
        let mut packet = seed("udp-v4-df-1500");
        packet[at..at + 4].copy_from_slice(&address);
        none(&packet);
    }
    for (at, first) in [(8, 0xff), (24, 0xff)] {
        let mut packet = seed("udp-v6-1500");
        packet[at] = first;
        none(&packet);
    }
    let mut unspecified = seed("udp-v6-1500");
    unspecified[8..24].fill(0);
    none(&unspecified);
    assert!(ip::packet_too_big(&seed("icmp-v4-echo"), 1280, &mut [0; MAX_TOO_BIG]).is_some());
}

#[test]
fn upper_layer_checksums_of_scapys_packets_verify() {
    for name in [
        "syn-v4",
        "syn-v6-extension-headers",
        "udp-v4-3008",
        "udp-v6-1500",
        "icmp-v6-echo",
    ] {
        let bytes = seed(name);
        let packet = IpPacket::parse(&bytes).unwrap();
        let upper = packet.upper_layer();
        let length = u32::try_from(upper.len()).unwrap();
        let (src, dst): (IpAddr, IpAddr) = (packet.src(), packet.dst());
        let pseudo = pseudo_header(src, dst, packet.protocol(), length);
        assert_eq!(finish(sum(pseudo, upper)), 0, "{name}");
    }
}

/// RFC 3948 §2.
#[test]
fn port_4500_carries_esp_ike_and_keepalives() {
    for (datagram, demux) in [
        (&[0xff][..], Ok(Demux::Keepalive)),
        (&[0, 0, 0, 0], Ok(Demux::Ike)),
        (&[0, 0, 0, 0, 1], Ok(Demux::Ike)),
        (&[0, 0, 0, 1], Ok(Demux::Esp)),
        (&[0xff, 0xff, 0xff, 0xff, 0xff], Ok(Demux::Esp)),
        (&[], Err(Malformed::Truncated("UDP-encapsulated datagram"))),
        (&[0], Err(Malformed::Truncated("UDP-encapsulated datagram"))),
        (
            &[0xff, 0xff],
            Err(Malformed::Truncated("UDP-encapsulated datagram")),
        ),
        (
            &[0, 0, 0],
            Err(Malformed::Truncated("UDP-encapsulated datagram")),
        ),
    ] {
        assert_eq!(demux_udp_encap(datagram), demux, "{datagram:?}");
    }
}

/// The SPI is the one that both strongSwans listed for this Child SA.
#[test]
fn the_header_of_strongswans_first_esp_packet_reads_as_listed() {
    let datagram = read("tests/fuzz/seeds/esp_udp_demux", "strongswan-esp-1");
    assert_eq!(demux_udp_encap(&datagram), Ok(Demux::Esp));
    let header = EspHeader::parse(&datagram).unwrap();
    assert_eq!(
        header,
        EspHeader {
            spi: 0x46df_42c8,
            sequence: 1
        }
    );
    assert_eq!(header.encode(), datagram[..8]);
    assert!(EspHeader::parse(&datagram[..7]).is_err());
}

#[test]
fn a_vnet_header_reads_as_the_kernel_lays_it_out() {
    let header = VnetHeader {
        flags: VnetHeader::NEEDS_CSUM,
        gso_type: VnetHeader::GSO_TCPV4 | VnetHeader::GSO_ECN,
        hdr_len: 54,
        gso_size: 1400,
        csum_start: 20,
        csum_offset: 16,
    };
    let bytes = header.encode();
    assert_eq!(bytes[..2], [1, 0x81]);
    assert_eq!(bytes[4..6], 1400u16.to_ne_bytes());
    assert_eq!(
        VnetHeader::parse(&[&bytes[..], b"rest"].concat()),
        Some((header, &b"rest"[..]))
    );
    assert_eq!(VnetHeader::parse(&bytes[..9]), None);
}
