//! Packets that are larger than the tunnel carries (RFC 4301 §8).

use std::net::SocketAddr;
use std::time::Duration;

use lockgate::ipsec::{DfRule, DropReason, EspEncap, EspPath, HeaderRules, SaUpdate, WorkerId};

use crate::gateway::{CHILD, REQID, Tunnel};
use crate::packets::{header_checksum_is_right, udp};

/// The largest inner packet through AES-GCM and UDP over IPv4 with an MTU of 1500: 1500 less outer
/// headers 28, ESP 8, IV 8, ICV 16 and trailer 2, with the text padded to four bytes.
const INNER_MTU: u16 = 1438;

#[test]
fn the_largest_packet_that_fits_fills_the_outer_packet_exactly() {
    for encap in [EspEncap::Udp, EspEncap::None] {
        for outer_v6 in [false, true] {
            let tunnel = Tunnel {
                encap,
                outer_v6,
                ..Tunnel::default()
            };
            let (mut a, _) = tunnel.build();
            let outer = if outer_v6 { 40 } else { 20 } + if encap == EspEncap::Udp { 8 } else { 0 };
            let largest = (1400..1500).filter_map(|length| {
                let payload = vec![0; length - 28];
                let packet = udp(tunnel.host_a(1, 1), tunnel.host_b(1, 2), &payload, true);
                let sent = a.send(&packet);
                sent.datagrams
                    .first()
                    .map(|datagram| datagram.bytes.len() + outer)
            });
            assert_eq!(largest.max(), Some(1500));
        }
    }
}

#[test]
fn a_large_packet_with_df_is_answered_with_the_mtu_that_fits() {
    let tunnel = Tunnel::default();
    let (mut a, _) = tunnel.build();
    let packet = udp(tunnel.host_a(1, 1), tunnel.host_b(1, 2), &[0; 1411], true);
    let sent = a.send(&packet);
    assert!(sent.datagrams.is_empty());
    let [reply] = sent.replies.as_slice() else {
        panic!("one reply")
    };
    // RFC 792 and RFC 1191 §4: type 3, code 4, the MTU in the last half of the second word.
    assert_eq!(reply[20..22], [3, 4]);
    assert_eq!(reply[26..28], INNER_MTU.to_be_bytes());
    assert_eq!(reply[16..20], packet[12..16], "to the sender");
    assert_eq!(reply[28..56], packet[..28], "about its packet");
    assert_eq!(a.drops(), [DropReason::TooBig]);
}

#[test]
fn a_large_ipv6_packet_is_answered_with_packet_too_big() {
    let tunnel = Tunnel {
        inner_v6: true,
        ..Tunnel::default()
    };
    let (mut a, _) = tunnel.build();
    let packet = udp(tunnel.host_a(1, 1), tunnel.host_b(1, 2), &[0; 1400], true);
    let sent = a.send(&packet);
    let [reply] = sent.replies.as_slice() else {
        panic!("one reply")
    };
    // RFC 4443 §3.2: type 2, code 0, MTU in the second word.
    assert_eq!(reply[40..42], [2, 0]);
    assert_eq!(reply[44..48], u32::from(INNER_MTU).to_be_bytes());
}

#[test]
fn what_every_ipv6_link_must_carry_passes_a_narrow_path_in_outer_fragments() {
    let tunnel = Tunnel {
        inner_v6: true,
        path_mtu: 1280,
        ..Tunnel::default()
    };
    let (mut a, mut b) = tunnel.build();
    let packet = udp(
        tunnel.host_a(1, 1),
        tunnel.host_b(1, 2),
        &[7; 1280 - 48],
        true,
    );
    let sent = a.send(&packet);
    assert!(!sent.datagrams[0].transmit.dont_fragment);
    assert_eq!(b.receive(&sent.datagrams[0]), Some(packet));

    let packet = udp(
        tunnel.host_a(1, 1),
        tunnel.host_b(1, 2),
        &[7; 1281 - 48],
        true,
    );
    let sent = a.send(&packet);
    assert_eq!(sent.replies[0][44..48], 1280_u32.to_be_bytes());
}

#[test]
fn a_large_packet_without_df_is_fragmented_before_it_is_sealed() {
    let tunnel = Tunnel::default();
    let (mut a, mut b) = tunnel.build();
    let packet = udp(tunnel.host_a(1, 1), tunnel.host_b(1, 2), &[7; 4000], false);
    let sent = a.send(&packet);
    assert_eq!(sent.datagrams.len(), 3);
    let mut payload: Vec<u8> = Vec::new();
    for datagram in &sent.datagrams {
        assert!(datagram.bytes.len() <= 1500 - 28);
        let fragment = b.receive(datagram).expect("opened");
        assert!(header_checksum_is_right(&fragment));
        let offset = u16::from_be_bytes([fragment[6], fragment[7]]) & 0x1fff;
        assert_eq!(usize::from(offset) * 8, payload.len());
        payload.extend(&fragment[20..]);
    }
    assert_eq!(payload, packet[20..]);
}

#[test]
fn selectors_with_ports_make_the_outer_packet_the_fragmented_one() {
    let tunnel = Tunnel {
        protocol_and_port: Some((17, 53)),
        ..Tunnel::default()
    };
    let (mut a, mut b) = tunnel.build();
    let packet = udp(
        tunnel.host_a(1, 53),
        tunnel.host_b(1, 53),
        &[7; 4000],
        false,
    );
    let sent = a.send(&packet);
    let [datagram] = sent.datagrams.as_slice() else {
        panic!("one datagram")
    };
    assert!(!datagram.transmit.dont_fragment);
    assert_eq!(b.receive(datagram), Some(packet));
}

#[test]
fn clearing_df_lets_the_outer_packet_be_fragmented() {
    let rules = HeaderRules {
        copy_df: DfRule::Clear,
        ..HeaderRules::default()
    };
    let tunnel = Tunnel {
        rules,
        ..Tunnel::default()
    };
    let (mut a, mut b) = tunnel.build();
    let packet = udp(tunnel.host_a(1, 1), tunnel.host_b(1, 2), &[7; 1450], true);
    let sent = a.send(&packet);
    assert!(!sent.datagrams[0].transmit.dont_fragment);
    assert_eq!(b.receive(&sent.datagrams[0]), Some(packet));
}

#[test]
fn df_is_copied_to_the_outer_header() {
    let tunnel = Tunnel::default();
    let (mut a, _) = tunnel.build();
    for df in [false, true] {
        let packet = udp(tunnel.host_a(1, 1), tunnel.host_b(1, 2), b"hello", df);
        assert_eq!(a.send(&packet).datagrams[0].transmit.dont_fragment, df);
    }
}

#[test]
fn replies_about_large_packets_are_limited_and_every_packet_is_counted() {
    let tunnel = Tunnel::default();
    let (mut a, _) = tunnel.build();
    let packet = udp(tunnel.host_a(1, 1), tunnel.host_b(1, 2), &[0; 1450], true);
    let replies = (0..1000)
        .map(|_| a.send(&packet).replies.len())
        .sum::<usize>();
    assert_eq!(replies, 100);
    a.now += Duration::from_millis(10);
    let replies = (0..1000)
        .map(|_| a.send(&packet).replies.len())
        .sum::<usize>();
    assert_eq!(replies, 10);
    assert_eq!(a.dropped(DropReason::TooBig), 2000);
    assert_eq!(a.stats(0).too_big_replies, 110);
}

#[test]
fn a_narrower_path_is_respected_at_once_and_after_a_rekey() {
    let tunnel = Tunnel::default();
    let (mut a, mut b) = tunnel.build();
    let packet = udp(tunnel.host_a(1, 1), tunnel.host_b(1, 2), &[0; 1400], true);
    let transmit = a.send(&packet).datagrams[0].transmit;

    assert!(a.pipelines[0].should_ask_path_mtu(transmit.local, transmit.remote, a.now));
    a.pipelines[0].learn_path_mtu(transmit.local, transmit.remote, Some(1400), a.now);
    assert!(!a.pipelines[0].should_ask_path_mtu(transmit.local, transmit.remote, a.now));
    for generation in 1..3 {
        let sent = a.send(&packet);
        assert_eq!(sent.replies[0][26..28], (INNER_MTU - 100).to_be_bytes());
        tunnel.connect(&mut a, &mut b, generation);
    }
}

#[test]
fn all_sas_on_a_path_know_what_was_learnt_about_it_with_their_next_packet() {
    let tunnel = Tunnel::default();
    let (mut a, mut b) = tunnel.build();
    let packet = udp(tunnel.host_a(1, 1), tunnel.host_b(1, 2), &[0; 1400], true);
    let transmit = a.send(&packet).datagrams[0].transmit;
    tunnel.connect(&mut a, &mut b, 1);
    for (answer, passes) in [(1400, 0), (1500, 1), (1300, 0), (9000, 1)] {
        a.pipelines[0].learn_path_mtu(transmit.local, transmit.remote, Some(answer), a.now);
        assert_eq!(a.send(&packet).datagrams.len(), passes, "{answer}");
    }
    // The older SA slept all the while.
    a.update(SaUpdate::RemoveOutbound {
        child: lockgate::ipsec::ChildId(CHILD.0 + 1),
        reqid: REQID,
        owner: WorkerId(0),
    });
    assert_eq!(a.send(&packet).datagrams.len(), 1);
    a.pipelines[0].learn_path_mtu(transmit.local, transmit.remote, Some(1300), a.now);
    assert!(a.send(&packet).datagrams.is_empty());
}

#[test]
fn a_forged_report_of_a_tiny_path_lowers_the_mtu_to_the_minimum_only() {
    let tunnel = Tunnel::default();
    let (mut a, _) = tunnel.build();
    let small = udp(tunnel.host_a(1, 1), tunnel.host_b(1, 2), &[0; 400], true);
    let transmit = a.send(&small).datagrams[0].transmit;
    a.pipelines[0].learn_path_mtu(transmit.local, transmit.remote, Some(68), a.now);
    assert_eq!(a.send(&small).datagrams.len(), 1);
}

/// The system sends nothing with DF that exceeds what it believes, and a forged report makes it
/// believe in less than the minimum (Linux: 552).
#[test]
fn what_fits_the_minimum_passes_a_path_that_is_said_to_be_smaller() {
    let tunnel = Tunnel::default();
    let (mut a, _) = tunnel.build();
    let payload = vec![0; usize::from(INNER_MTU) - (1500 - 576) - 28];
    let full = udp(tunnel.host_a(1, 1), tunnel.host_b(1, 2), &payload, true);
    let transmit = a.send(&full).datagrams[0].transmit;
    for (believed, dont_fragment) in [(552, false), (576, true), (68, false), (1500, true)] {
        a.pipelines[0].learn_path_mtu(transmit.local, transmit.remote, Some(believed), a.now);
        let sent = a.send(&full);
        assert_eq!(
            sent.datagrams[0].transmit.dont_fragment, dont_fragment,
            "{believed}"
        );
    }
}

#[test]
fn an_sa_that_moves_has_the_mtu_of_its_new_path() {
    let tunnel = Tunnel::default();
    let (mut a, _) = tunnel.build();
    let packet = udp(tunnel.host_a(1, 1), tunnel.host_b(1, 2), &[0; 1400], true);
    let transmit = a.send(&packet).datagrams[0].transmit;
    a.pipelines[0].learn_path_mtu(transmit.local, transmit.remote, Some(1400), a.now);
    assert!(a.send(&packet).datagrams.is_empty());

    let remote = "203.0.113.9:4500".parse().expect("literal");
    let path = EspPath {
        encap: EspEncap::Udp,
        local: SocketAddr::new(transmit.local, 4500),
        remote,
    };
    a.update(SaUpdate::MoveOutbound {
        child: CHILD,
        reqid: REQID,
        owner: WorkerId(0),
        path,
        path_mtu: 1500,
    });
    assert_eq!(a.send(&packet).datagrams[0].transmit.remote, remote);
}
