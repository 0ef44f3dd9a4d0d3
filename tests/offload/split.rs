//! Taking super-packets apart, rule by rule.

use lockgate::io::offload::TunPacket;
use lockgate::wire::vnet::VnetHeader;

use super::packets::{
    ACK, CWR, ECE, FIN, PSH, Packet, RST, SYN, URG, checksum, field, pattern, put,
};
use super::reference;

fn split(header: &VnetHeader, packet: &[u8]) -> Option<Vec<Vec<u8>>> {
    let mut bytes = packet.to_vec();
    let mut packet = TunPacket::parse(header, &mut bytes).ok()?;
    let mut segments = Vec::new();
    while let Some(segment) = packet.next_segment() {
        segments.push(segment.to_vec());
    }
    Some(segments)
}

/// A super-packet with this much payload, and the packets it stands for as their sender would have
/// built them one by one.
fn expected(first: &Packet, payload: usize, gso_size: usize) -> Vec<Vec<u8>> {
    let payload = pattern(payload);
    let mut packet = first.with(|packet| packet.payload.clear());
    let mut segments = Vec::new();
    for piece in payload.chunks(gso_size) {
        packet = packet.next(0);
        if segments.is_empty() {
            packet.id = first.id;
        }
        packet.payload = piece.to_vec();
        segments.push(packet.build());
    }
    segments
}

#[test]
fn tcp_and_udp_in_both_families_become_the_packets_a_sender_would_have_built() {
    for ipv6 in [false, true] {
        for first in [Packet::tcp(ipv6, 0xffff_fff0, 0), Packet::udp(ipv6, 0)] {
            for (payload, gso_size) in [(4000, 1000), (4001, 1000), (3999, 1000), (1000, 999)] {
                let whole = first.with(|packet| packet.payload = pattern(payload));
                let (header, bytes) = whole.build_super(gso_size);
                let wanted = expected(&first, payload, gso_size.into());
                assert_eq!(split(&header, &bytes).as_ref(), Some(&wanted));
                assert_eq!(reference::split(&header, &bytes), Some(wanted));
            }
        }
    }
}

#[test]
fn ip_options_and_extension_headers_are_in_every_segment() {
    for ipv6 in [false, true] {
        for extra in [8, 16, 40] {
            let first = Packet::tcp(ipv6, 1, 0).with(|packet| packet.extra = extra);
            let whole = first.with(|packet| packet.payload = pattern(3000));
            let (header, bytes) = whole.build_super(1200);
            assert_eq!(split(&header, &bytes), Some(expected(&first, 3000, 1200)));
        }
    }
}

#[test]
fn fin_and_psh_are_in_the_last_segment_only_and_cwr_in_the_first_only() {
    let mut whole = Packet::tcp(false, 1, 3000);
    whole.tcp_mut().flags = ACK | PSH | FIN | CWR | ECE;
    for ecn in [0, VnetHeader::GSO_ECN] {
        let (mut header, bytes) = whole.build_super(1000);
        header.gso_type |= ecn;
        let segments = split(&header, &bytes).unwrap();
        let flags: Vec<u8> = segments.iter().map(|segment| segment[33]).collect();
        assert_eq!(flags, [ACK | ECE | CWR, ACK | ECE, ACK | ECE | PSH | FIN]);
    }
    let (header, bytes) = whole.build_super(3000);
    assert_eq!(
        split(&header, &bytes).unwrap()[0][33],
        ACK | PSH | FIN | CWR | ECE
    );
}

/// RFC 9293 §3.8.5: the pointer counts from the sequence number of its own segment.
#[test]
fn urgent_data_end_at_the_same_byte_of_the_stream_as_before() {
    let mut whole = Packet::tcp(false, 1, 3000);
    whole.tcp_mut().flags = ACK | URG;
    for (pointer, wanted) in [
        (1, [(URG, 1), (0, 0), (0, 0)]),
        (1000, [(URG, 1000), (0, 0), (0, 0)]),
        (1001, [(URG, 1001), (URG, 1), (0, 0)]),
        (3000, [(URG, 3000), (URG, 2000), (URG, 1000)]),
    ] {
        whole.tcp_mut().urgent = pointer;
        let (header, bytes) = whole.build_super(1000);
        let segments = split(&header, &bytes).unwrap();
        let urgent = segments
            .iter()
            .map(|segment| (segment[33] & URG, field(segment, 38)));
        assert_eq!(urgent.collect::<Vec<_>>(), wanted);
    }
}

#[test]
fn the_identification_counts_on_past_its_end_with_and_without_df() {
    for dont_fragment in [false, true] {
        let mut whole = Packet::tcp(false, 1, 3000);
        (whole.id, whole.dont_fragment) = (0xffff, dont_fragment);
        let (header, bytes) = whole.build_super(1000);
        let segments = split(&header, &bytes).unwrap();
        let ids = segments.iter().map(|segment| field(segment, 4));
        assert_eq!(ids.collect::<Vec<_>>(), [0xffff, 0, 1]);
    }
}

#[test]
fn a_udp_checksum_that_comes_to_zero_is_sent_as_all_ones() {
    // The last two bytes are chosen so that everything sums to all ones.
    let mut packet = Packet::udp(false, 1000);
    put(&mut packet.payload, 998, 0);
    let rest = field(&packet.build(), 26);
    put(&mut packet.payload, 998, rest);
    assert_eq!(field(&packet.build(), 26), 0xffff);
    let whole = packet.with(|packet| packet.payload.extend(pattern(500)));
    let (header, bytes) = whole.build_super(1000);
    assert_eq!(split(&header, &bytes).unwrap()[0], packet.build());
}

#[test]
fn a_segment_size_of_one_byte_makes_a_segment_of_every_byte() {
    let first = Packet::tcp(true, 1, 0);
    let whole = first.with(|packet| packet.payload = pattern(3000));
    let (header, bytes) = whole.build_super(1);
    assert_eq!(split(&header, &bytes), Some(expected(&first, 3000, 1)));
}

#[test]
fn a_payload_that_fits_one_segment_is_one_segment() {
    for (payload, gso_size) in [(1000, 1000), (999, 1000), (10, u16::MAX), (0, 1000)] {
        for packet in [Packet::tcp(false, 1, payload), Packet::udp(true, payload)] {
            let (header, mut bytes) = packet.build_super(gso_size);
            assert_eq!(split(&header, &bytes), Some(vec![packet.build()]));
            let view = TunPacket::parse(&header, &mut bytes).unwrap();
            assert!(view.is_super());
            assert_eq!(
                (view.segments(), view.segment_len()),
                (1, packet.build().len())
            );
        }
    }
}

#[test]
fn the_largest_super_packet_is_65535_bytes_long() {
    let mut whole = Packet::tcp(false, 1, 0);
    whole.payload = pattern(65_535 - 52);
    let (header, bytes) = whole.build_super(1448);
    assert_eq!(bytes.len(), 65_535);
    let segments = split(&header, &bytes).unwrap();
    assert_eq!(Some(&segments), reference::split(&header, &bytes).as_ref());
    let payload: usize = segments.iter().map(|segment| segment.len() - 52).sum();
    assert_eq!(payload, whole.payload.len());
}

#[test]
fn a_super_packet_whose_length_field_says_nothing_is_refused() {
    let (header, bytes) = Packet::tcp(false, 1, 3000).build_super(1000);
    for length in [0, 19, 39, 51, 3053, 0xffff] {
        let mut bytes = bytes.clone();
        put(&mut bytes, 2, length);
        assert_eq!(split(&header, &bytes), None, "{length}");
    }
    let (header, mut bytes) = Packet::tcp(true, 1, 3000).build_super(1000);
    put(&mut bytes, 4, 0); // as a jumbogram has it
    assert_eq!(split(&header, &bytes), None);
}

#[test]
fn the_length_of_the_headers_is_not_believed() {
    for packet in [Packet::tcp(false, 1, 3000), Packet::udp(true, 3000)] {
        let (header, bytes) = packet.build_super(1000);
        let wanted = split(&header, &bytes);
        assert!(wanted.is_some());
        for hdr_len in [0, 1, 20, 40, 1400, u16::MAX] {
            assert_eq!(split(&VnetHeader { hdr_len, ..header }, &bytes), wanted);
        }
    }
}

#[test]
fn a_vnet_header_that_contradicts_the_packet_is_refused() {
    let (good, bytes) = Packet::tcp(false, 1, 3000).build_super(1000);
    assert!(split(&good, &bytes).is_some());
    let bad = [
        VnetHeader { flags: 0, ..good },
        VnetHeader {
            gso_size: 0,
            ..good
        },
        VnetHeader {
            gso_type: VnetHeader::GSO_TCPV6,
            ..good
        },
        VnetHeader {
            gso_type: VnetHeader::GSO_UDP_L4,
            ..good
        },
        VnetHeader {
            gso_type: VnetHeader::GSO_UDP,
            ..good
        },
        VnetHeader {
            gso_type: 2,
            ..good
        },
        VnetHeader {
            gso_type: VnetHeader::GSO_ECN,
            ..good
        },
        VnetHeader {
            csum_start: 0,
            ..good
        },
        VnetHeader {
            csum_start: 21,
            ..good
        },
        VnetHeader {
            csum_start: u16::MAX,
            ..good
        },
        VnetHeader {
            csum_offset: 6,
            ..good
        },
        VnetHeader {
            csum_offset: u16::MAX,
            ..good
        },
    ];
    for header in bad {
        assert_eq!(split(&header, &bytes), None, "{header:?}");
    }
    let (udp, bytes) = Packet::udp(false, 3000).build_super(1000);
    let ecn = VnetHeader {
        gso_type: udp.gso_type | VnetHeader::GSO_ECN,
        ..udp
    };
    assert_eq!(split(&ecn, &bytes), None, "only TCP has CWR");
}

#[test]
fn super_packets_of_syn_rst_fragments_or_broken_tcp_headers_are_refused() {
    let whole = Packet::tcp(false, 1, 3000);
    for flags in [SYN, RST, SYN | ACK, RST | ACK] {
        let (header, bytes) = whole
            .with(|packet| packet.tcp_mut().flags = flags)
            .build_super(1000);
        assert_eq!(split(&header, &bytes), None);
    }
    let (header, bytes) = whole.build_super(1000);
    for (at, value) in [(6, 0x20), (7, 1), (32, 0x40), (9, 17), (9, 50)] {
        let mut bytes = bytes.clone();
        bytes[at] = value;
        assert_eq!(split(&header, &bytes), None, "byte {at}");
    }
    let (header, mut bytes) = Packet::tcp(false, 1, 10).build_super(1000);
    bytes[32] = 0xf0; // a header of 60 bytes, of which 42 are there
    assert_eq!(split(&header, &bytes), None);
}

#[test]
fn a_super_packet_cut_anywhere_is_refused_or_short_and_never_a_panic() {
    for ipv6 in [false, true] {
        for packet in [Packet::tcp(ipv6, 1, 200), Packet::udp(ipv6, 200)] {
            let (header, bytes) = packet.build_super(50);
            for length in 0..bytes.len() {
                assert_eq!(split(&header, &bytes[..length]), None);
            }
        }
    }
}

#[test]
fn bytes_behind_a_super_packet_are_not_part_of_its_last_segment() {
    let (header, bytes) = Packet::tcp(false, 1, 2500).build_super(1000);
    let wanted = split(&header, &bytes);
    assert_eq!(split(&header, &[&bytes[..], b"tail"].concat()), wanted);
}

/// The pseudo-header of a source-routed packet has the final destination, which is not in the IP
/// header (RFC 791 §3.1): the sum in the checksum field is what counts.
#[test]
fn the_sum_in_the_checksum_field_is_kept_whatever_the_addresses_say() {
    let whole = Packet::tcp(false, 1, 3000);
    let (header, mut bytes) = whole.build_super(1000);
    bytes[16] ^= 0x55; // the next hop instead of the destination
    let segments = split(&header, &bytes).unwrap();
    for (mut segment, honest) in segments.into_iter().zip(expected(&whole, 3000, 1000)) {
        assert_eq!(field(&segment, 36), field(&honest, 36));
        segment[16] ^= 0x55;
        assert_eq!(segment[12..], honest[12..]);
    }
}

#[test]
fn a_plain_packet_is_passed_on_as_it_is() {
    for bytes in [Packet::tcp(false, 1, 100).build(), vec![], vec![0xff; 3]] {
        let mut copy = bytes.clone();
        let header = VnetHeader {
            flags: VnetHeader::DATA_VALID,
            ..VnetHeader::default()
        };
        let mut packet = TunPacket::parse(&header, &mut copy).unwrap();
        assert!(!packet.is_super());
        assert_eq!((packet.segments(), packet.segment_len()), (1, bytes.len()));
        assert_eq!(packet.bytes(), bytes);
        assert_eq!(
            packet.plain_mut().map(|bytes| bytes.len()),
            Some(bytes.len())
        );
        assert_eq!(packet.next_segment(), Some(&bytes[..]));
        assert_eq!(packet.next_segment(), None);
    }
}

#[test]
fn the_checksum_of_a_plain_packet_is_finished_in_place_and_done_for_whoever_is_next() {
    for ipv6 in [false, true] {
        for extra in [0, 8] {
            for packet in [Packet::tcp(ipv6, 1, 333), Packet::udp(ipv6, 100)] {
                let packet = packet.with(|packet| packet.extra = extra);
                let (header, mut bytes) = packet.build_super(0);
                let header = VnetHeader {
                    gso_type: VnetHeader::GSO_NONE,
                    ..header
                };
                let view = TunPacket::parse(&header, &mut bytes).unwrap();
                assert_eq!(view.bytes(), packet.build());
                assert_eq!(*view.header(), VnetHeader::default());
            }
        }
    }
}

/// What IPsec carries need not be TCP or UDP: an ICMPv6 message, or a checksum deep inside a tunnel.
#[test]
fn a_checksum_of_any_protocol_is_finished_where_the_vnet_header_says() {
    let mut packet = vec![0x60, 0, 0, 0, 0, 24, 58, 64];
    packet.extend([0xfd; 32]);
    packet.extend([128, 0, 0x12, 0x34, 9, 9]);
    packet.extend(pattern(18));
    let header = VnetHeader {
        flags: VnetHeader::NEEDS_CSUM,
        csum_start: 40,
        csum_offset: 2,
        ..VnetHeader::default()
    };
    let segments = split(&header, &packet).unwrap();
    let mut wanted = packet.clone();
    put(&mut wanted, 42, checksum(&packet[40..]));
    assert_eq!(segments, [wanted]);
}

#[test]
fn the_place_of_a_checksum_outside_the_packet_or_inside_the_ip_header_is_refused() {
    for (ipv6, header_len) in [(false, 20), (true, 40)] {
        let (good, bytes) = Packet::udp(ipv6, 10).build_super(0);
        let good = VnetHeader {
            gso_type: VnetHeader::GSO_NONE,
            ..good
        };
        let end = u16::try_from(bytes.len()).unwrap();
        assert!(split(&good, &bytes).is_some());
        for (csum_start, csum_offset) in [
            (0, 10),
            (header_len - 1, 6),
            (end, 0),
            (end - 1, 0),
            (header_len, end - header_len - 1),
            (u16::MAX, u16::MAX),
        ] {
            let header = VnetHeader {
                csum_start,
                csum_offset,
                ..good
            };
            assert_eq!(split(&header, &bytes), None, "{csum_start} + {csum_offset}");
        }
        assert_eq!(split(&good, &[]), None);
        assert_eq!(split(&good, &[0; 60]), None, "no IP version");
        let last = VnetHeader {
            csum_start: end - 2,
            csum_offset: 0,
            ..good
        };
        assert!(split(&last, &bytes).is_some());
    }
}

#[test]
fn a_super_packet_is_whole_until_its_first_segment_is_taken() {
    let (header, bytes) = Packet::udp(false, 2500).build_super(1000);
    let mut copy = bytes.clone();
    let mut packet = TunPacket::parse(&header, &mut copy).unwrap();
    assert_eq!(packet.bytes(), bytes);
    assert_eq!(*packet.header(), header);
    assert_eq!((packet.segments(), packet.segment_len()), (3, 1028));
    assert!(packet.is_super() && packet.plain_mut().is_none());
    assert_eq!(packet.next_segment().map(<[u8]>::len), Some(1028));
}

#[test]
fn taking_segments_can_be_interrupted_anywhere_and_goes_on_with_the_last_one_taken() {
    let whole = Packet::tcp(false, 1, 0).with(|packet| packet.payload = pattern(2500));
    let (header, bytes) = whole.build_super(1000);
    let wanted = split(&header, &bytes).unwrap();
    for taken in 0..=3 {
        let mut copy = bytes.clone();
        let mut packet = TunPacket::parse(&header, &mut copy).unwrap();
        for segment in &wanted[..taken] {
            assert_eq!(packet.next_segment(), Some(&segment[..]));
        }
        let suspended = packet.suspend();
        let mut packet = TunPacket::resume(suspended, &mut copy);
        let rest = &wanted[taken.saturating_sub(1)..];
        assert_eq!(packet.segments_left(), rest.len());
        for segment in rest {
            assert_eq!(packet.next_segment(), Some(&segment[..]));
        }
        assert_eq!(packet.next_segment(), None);
        assert_eq!(packet.segments_left(), 0);

        let other = &mut copy[..100];
        assert_eq!(TunPacket::resume(suspended, other).next_segment(), None);
    }
}
