//! Packets that must be dropped, each under its reason and without a trace (HOSTILE list B33–B39).

use std::net::{IpAddr, SocketAddr};

use lockgate::dataplane::Carrier;
use lockgate::ipsec::{DropReason, SaEvent};

use crate::gateway::{Datagram, Gateway, Tunnel};
use crate::packets::{ip, udp, unreachable};

/// A gateway and a good datagram for it.
fn victim() -> (Tunnel, Gateway, Gateway, Datagram) {
    let tunnel = Tunnel::default();
    let (mut a, b) = tunnel.build();
    let packet = udp(tunnel.host_a(1, 1), tunnel.host_b(1, 2), b"hello", true);
    let datagram = a.send(&packet).datagrams.remove(0);
    (tunnel, a, b, datagram)
}

#[test]
fn every_length_up_to_a_whole_packet_is_dropped_and_counted() {
    let (_, _, mut b, datagram) = victim();
    for length in 0..datagram.bytes.len() {
        let mut cut = datagram.clone();
        cut.bytes.truncate(length);
        for carrier in [Carrier::Udp { port: 4500 }, Carrier::Raw] {
            cut.carrier = carrier;
            assert!(b.receive(&cut).is_none(), "{length}");
        }
    }
    assert_eq!(b.drops().len(), 2 * datagram.bytes.len());
    assert!(b.receive(&datagram).is_some(), "and nothing has changed");
    assert!(b.events().is_empty());
}

#[test]
fn a_flipped_bit_anywhere_moves_neither_window_nor_counters_nor_peer() {
    let (_, _, mut b, datagram) = victim();
    for byte in 0..datagram.bytes.len() {
        let mut forged = datagram.clone();
        forged.bytes[byte] ^= 1;
        forged.transmit.local = "203.0.113.9".parse().expect("literal");
        assert!(b.receive(&forged).is_none(), "{byte}");
    }
    assert_eq!(b.stats(0).inbound.packets, 0);
    assert!(b.events().is_empty());
    assert!(b.receive(&datagram).is_some());
    assert!(b.receive(&datagram).is_none());
    assert_eq!(b.dropped(DropReason::Replayed), 1);
}

#[test]
fn looking_ahead_at_whatever_may_arrive_changes_nothing() {
    let (_, _, mut b, datagram) = victim();
    let whole = datagram.bytes.as_slice();
    let unknown = [0xff; 100];
    let cut = (0..whole.len()).map(|length| &whole[..length]);
    b.pipelines[0].look_ahead(cut.chain([&unknown[..], whole, whole]));
    assert_eq!(b.drops(), []);
    assert!(b.events().is_empty());
    assert_eq!(b.stats(0).inbound.packets, 0);
    assert!(b.receive(&datagram).is_some(), "it counts as received once");
}

#[test]
fn good_packets_between_bad_ones_of_one_burst_arrive() {
    let (tunnel, mut a, mut b, first) = victim();
    let mut burst = vec![first.clone(), first];
    for number in 0..30 {
        let packet = udp(tunnel.host_a(1, 1), tunnel.host_b(1, 2), &[number; 9], true);
        let good = a.send(&packet).datagrams.remove(0);
        let mut broken = good.clone();
        broken.bytes[20] ^= 0x80;
        let mut unknown = good.clone();
        unknown.bytes[..4].copy_from_slice(&0xdead_0000_u32.to_be_bytes());
        let mut reserved = good.clone();
        reserved.bytes[..4].copy_from_slice(&[0, 0, 0, 9]);
        burst.extend([broken, unknown, good.clone(), reserved, good]);
    }
    let delivered = burst
        .iter()
        .filter(|datagram| b.receive(datagram).is_some())
        .count();
    assert_eq!(delivered, 31);
    assert_eq!(b.dropped(DropReason::Replayed), 31);
    assert_eq!(b.dropped(DropReason::IntegrityFailed), 30);
    assert_eq!(b.dropped(DropReason::UnknownSpi), 60);
}

#[test]
fn a_keepalive_is_taken_and_an_ike_message_is_punted_without_its_marker() {
    let (_, _, mut b, mut datagram) = victim();
    datagram.bytes = vec![0xff];
    assert!(b.receive(&datagram).is_none());
    assert_eq!(b.drops(), [DropReason::Keepalive]);
    datagram.bytes = vec![0, 0, 0, 0, 1, 2, 3];
    assert!(b.receive(&datagram).is_none());
    let events = b.events();
    assert!(
        matches!(events.as_slice(), [SaEvent::Punted { local, remote, bytes }]
            if local.to_string() == "198.51.100.1:4500"
                && remote.to_string() == "192.0.2.1:4500"
                && **bytes == [1, 2, 3]),
        "{events:?}"
    );
}

#[test]
fn punted_messages_are_dropped_when_nobody_reads_them_and_other_events_are_kept() {
    let (tunnel, mut a, mut b, datagram) = victim();
    let mut flood = datagram.clone();
    flood.bytes = vec![0; 100];
    for _ in 0..5000 {
        b.receive(&flood);
    }
    let lost = b.dropped(DropReason::PuntQueueFull);
    assert!(lost > 0 && lost < 5000);

    let packet = udp(tunnel.host_a(1, 1), tunnel.host_b(1, 2), b"hello", true);
    let mut moved = a.send(&packet).datagrams.remove(0);
    moved.transmit.local = "203.0.113.9".parse().expect("literal");
    assert!(b.receive(&moved).is_some());
    assert_eq!(
        b.events().len(),
        usize::try_from(5000 - lost).expect("a few")
    );
    b.pipelines[0].finish();
    assert!(matches!(b.events().as_slice(), [SaEvent::PeerMoved { .. }]));
}

#[test]
fn an_inner_packet_that_the_sa_was_not_negotiated_for_is_dropped() {
    let tunnel = Tunnel::default();
    // The peer's policy is wider than ours: it seals what we must not accept.
    let (mut a, _) = tunnel.build();
    let (_, mut b) = Tunnel {
        protocol_and_port: Some((17, 53)),
        ..tunnel.clone()
    }
    .build();
    for (port, drops) in [(53, 0), (54, 1)] {
        let packet = udp(
            tunnel.host_a(1, port),
            tunnel.host_b(1, port),
            b"query",
            true,
        );
        let datagram = a.send(&packet).datagrams.remove(0);
        assert_eq!(b.receive(&datagram).is_none(), drops > 0);
        assert_eq!(b.dropped(DropReason::SelectorMismatch), drops);
    }
}

#[test]
fn an_icmp_error_is_judged_by_the_packet_that_it_quotes() {
    for inner_v6 in [false, true] {
        let tunnel = Tunnel {
            inner_v6,
            ..Tunnel::default()
        };
        let (mut a, mut b) = tunnel.build();
        let [host, peer] = [tunnel.host_a(1, 1), tunnel.host_b(1, 2)];
        let [router, stranger] = if inner_v6 {
            ["2001:db8:f::1", "2001:db8:e::1"]
        } else {
            ["192.168.0.1", "203.0.113.9"]
        }
        .map(|text| SocketAddr::new(text.parse().expect("literal"), 7));
        let ours = udp(host, peer, &[0; 100], true);

        // RFC 4301 §6.2: a router that no selector covers may complain about what the SA carries.
        let honest = unreachable(router.ip(), host.ip(), &ours);
        let sent = b.send(&honest);
        assert_eq!(a.receive(&sent.datagrams[0]).as_ref(), Some(&honest));

        let elsewhere = udp(host, stranger, &[0; 100], true);
        let backwards = udp(peer, host, &[0; 100], true);
        let quotes = [&elsewhere[..], &backwards, &ours[..19], &[0; 28], &[]];
        for quote in quotes {
            let forged = unreachable(peer.ip(), host.ip(), quote);
            let sent = b.send(&forged);
            assert_eq!(a.receive(&sent.datagrams[0]), None, "{quote:?}");
            // Nor does the SA carry what neither header nor quote fits.
            let forged = unreachable(router.ip(), host.ip(), quote);
            assert!(b.send(&forged).datagrams.is_empty(), "{quote:?}");
        }
        assert_eq!(a.drops(), [DropReason::SelectorMismatch; 5]);
        assert_eq!(b.drops(), [DropReason::NoPolicy; 5]);
    }
}

#[test]
fn a_peer_that_moves_with_every_packet_does_not_fill_the_memory() {
    let (tunnel, mut a, mut b, _) = victim();
    let packet = udp(tunnel.host_a(1, 1), tunnel.host_b(1, 2), b"hello", true);
    let mut next = || a.send(&packet).datagrams.remove(0);
    for number in 0..5000_u32 {
        let mut moved = next();
        moved.transmit.local = IpAddr::from((0xcb00_0000 + number).to_be_bytes());
        assert!(b.receive(&moved).is_some());
    }
    let mut reported = 0;
    loop {
        let events = b.events().len();
        b.pipelines[0].finish();
        reported += events;
        if events == 0 {
            break;
        }
    }
    assert!((1..3000).contains(&reported), "{reported}");

    let back = next();
    assert!(b.receive(&back).is_some());
    let expected = SocketAddr::new(back.transmit.local, 4500);
    assert!(
        matches!(b.events().as_slice(), [SaEvent::PeerMoved { remote, .. }] if *remote == expected)
    );
}

#[test]
fn what_the_tun_gives_is_not_trusted() {
    let tunnel = Tunnel::default();
    let (mut a, _) = tunnel.build();
    let good = udp(tunnel.host_a(1, 1), tunnel.host_b(1, 2), b"hello", true);
    let mut packets = vec![
        Vec::new(),
        vec![0],
        vec![0x45],
        vec![0xf0; 60],
        vec![0x45; 65_535],
    ];
    for length in 1..good.len() {
        packets.push(good[..length].to_vec());
    }
    for ihl in 0..5 {
        let mut packet = good.clone();
        packet[0] = 0x40 | ihl;
        packets.push(packet);
    }
    let expected = packets.len();
    for packet in packets {
        let sent = a.send(&packet);
        assert!(
            sent.datagrams.is_empty() && sent.replies.is_empty(),
            "{packet:?}"
        );
    }
    assert_eq!(a.drops().len(), expected);
    assert_eq!(a.send(&good).datagrams.len(), 1);
}

#[test]
fn the_largest_packet_is_never_sealed_beyond_the_largest_datagram() {
    let tunnel = Tunnel {
        path_mtu: u16::MAX,
        ..Tunnel::default()
    };
    let (mut a, _) = tunnel.build();
    let [src, dst] = [tunnel.host_a(1, 1).ip(), tunnel.host_b(1, 1).ip()];
    for (length, fits) in [(65_515, false), (65_000, true)] {
        let packet = ip(src, dst, 17, 0, true, &vec![0; length]);
        let sent = a.send(&packet);
        assert_eq!(sent.datagrams.len(), usize::from(fits), "{length}");
        assert_eq!(sent.replies.len(), usize::from(!fits), "{length}");
    }
}
