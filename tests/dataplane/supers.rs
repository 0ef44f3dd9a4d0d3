//! Super-packets from the TUN: what becomes of their segments.

use lockgate::dataplane::Outbound;
use lockgate::io::offload::MergeKinds;
use lockgate::ipsec::{DropReason, EspEncap, SaUpdate, WorkerId};
use lockgate::wire::vnet::VnetHeader;

use crate::gateway::{CHILD, Datagram, REQID, Sent, Train, Tunnel};
use crate::offload::packets::{ACK, CWR, ECE, FIN, PSH, Packet, field};
use crate::offload::reference;

/// Through AES-GCM and UDP over IPv4 with an MTU of 1500.
const INNER_MTU: u16 = 1438;

pub(crate) const MERGE_ALL: MergeKinds = MergeKinds {
    tcp: true,
    udp: true,
};

/// A tunnel for the hosts of the splitter's packets.
pub(crate) fn tunnel(inner_v6: bool) -> Tunnel {
    Tunnel {
        inner_v6,
        sites_v6: ["fd00:1::/32", "fd00:2::/32"],
        replay_window: 4096,
        ..Tunnel::default()
    }
}

/// What the packets written to a TUN stand for.
pub(crate) fn flatten(written: &[(VnetHeader, Vec<u8>)]) -> Vec<Vec<u8>> {
    let split = |(header, packet): &(VnetHeader, Vec<u8>)| reference::split(header, packet);
    written
        .iter()
        .flat_map(|one| split(one).expect("well formed"))
        .collect()
}

fn cut(packet: &Packet, gso_size: u16) -> (VnetHeader, Vec<u8>, Vec<Vec<u8>>) {
    let (header, bytes) = packet.build_super(gso_size);
    let segments = reference::split(&header, &bytes).expect("well formed");
    (header, bytes, segments)
}

fn kinds_of_packets(ipv6: bool) -> [Packet; 5] {
    let tcp = Packet::tcp(ipv6, 0xffff_f000, 30_001);
    [
        tcp.with(|packet| packet.tcp_mut().flags = ACK | PSH | FIN),
        tcp.with(|packet| {
            packet.tos = 0x02;
            packet.tcp_mut().flags = ACK | CWR | ECE;
        }),
        tcp.with(|packet| packet.extra = 8),
        Packet::udp(ipv6, 20_000),
        Packet::udp(ipv6, 1200 * 10),
    ]
}

#[test]
fn segments_arrive_byte_for_byte_in_every_combination_of_offloads() {
    for (inner_v6, outer_v6) in [(false, false), (false, true), (true, false), (true, true)] {
        for encap in [EspEncap::Udp, EspEncap::None] {
            let tunnel = Tunnel {
                outer_v6,
                encap,
                ..tunnel(inner_v6)
            };
            for packet in kinds_of_packets(inner_v6) {
                every_combination(&tunnel, &packet);
            }
        }
    }
}

fn every_combination(tunnel: &Tunnel, packet: &Packet) {
    let (header, bytes, segments) = cut(packet, 1200);
    for combination in 0..8 {
        let [tun_tso, udp_gro, tun_gro] = [1, 2, 4].map(|bit| combination & bit != 0);
        let (mut a, mut b) = tunnel.build();
        let datagrams: Vec<Datagram> = if tun_tso {
            a.send_super(0, &header, &bytes).datagrams
        } else {
            let each = segments
                .iter()
                .flat_map(|segment| a.send(segment).datagrams);
            each.collect()
        };
        assert_eq!(datagrams.len(), segments.len());
        let trains = if udp_gro {
            Train::group(&datagrams)
        } else {
            Train::singles(&datagrams)
        };
        let kinds = MergeKinds {
            tcp: tun_gro,
            udp: tun_gro,
        };
        let written = b.receive_burst(0, &trains, kinds);
        assert!(
            flatten(&written) == segments,
            "{combination:b} of {packet:?}"
        );
        assert_eq!(a.stats(0).outbound, b.stats(0).inbound);
        assert_eq!(a.stats(0).super_out, u64::from(tun_tso));
        assert!(a.drops().is_empty() && b.drops().is_empty());
    }
}

#[test]
fn bulk_tcp_is_written_to_the_tun_as_super_packets() {
    let tunnel = tunnel(false);
    let (mut a, mut b) = tunnel.build();
    let (header, bytes, segments) = cut(&Packet::tcp(false, 1, 60_000), 1348);
    let sent = a.send_super(0, &header, &bytes);
    let written = b.receive_burst(0, &Train::group(&sent.datagrams), MERGE_ALL);
    assert_eq!(written.len(), 1);
    assert_eq!(flatten(&written), segments);
}

#[test]
fn a_super_packet_that_does_not_fit_is_answered_once_about_its_first_segment() {
    for inner_v6 in [false, true] {
        let tunnel = tunnel(inner_v6);
        let (mut a, _) = tunnel.build();
        let (header, bytes, segments) = cut(&Packet::tcp(inner_v6, 1, 30_000), 1400);
        let Sent {
            datagrams, replies, ..
        } = a.send_super(0, &header, &bytes);
        assert!(datagrams.is_empty());
        let [reply] = replies.as_slice() else {
            panic!("one reply")
        };
        let (kind, mtu, quote) = if inner_v6 {
            (&reply[40..42], field(reply, 46), &reply[48..])
        } else {
            (&reply[20..22], field(reply, 26), &reply[28..])
        };
        assert_eq!(kind, if inner_v6 { [2, 0] } else { [3, 4] });
        assert_eq!(mtu, INNER_MTU);
        assert_eq!(quote, &segments[0][..quote.len()]);
        let lost = u64::try_from(segments.len()).expect("a few");
        assert_eq!(a.dropped(DropReason::TooBig), lost);
        assert_eq!(a.stats(0).too_big_replies, 1);
    }
}

#[test]
fn without_df_every_segment_is_fragmented_and_the_short_last_one_passes_whole() {
    let (mut a, mut b) = tunnel(false).build();
    let packet = Packet::tcp(false, 1, 5 * 2000 + 100).with(|packet| packet.dont_fragment = false);
    let (header, bytes, segments) = cut(&packet, 2000);
    let sent = a.send_super(0, &header, &bytes);
    assert_eq!(sent.datagrams.len(), 2 * 5 + 1);
    let inner = sent.datagrams.iter().map(|datagram| b.receive(datagram));
    let inner: Vec<Vec<u8>> = inner.map(|inner| inner.expect("opened")).collect();
    for (fragments, segment) in inner[..10].chunks(2).zip(&segments) {
        assert!(fragments.iter().all(|one| one.len() <= INNER_MTU.into()));
        assert_eq!(fragments[0][4..6], segment[4..6], "its identification");
        let data = [&fragments[0][20..], &fragments[1][20..]].concat();
        assert_eq!(data, segment[20..]);
    }
    assert_eq!(inner[10], segments[5]);
}

#[test]
fn a_super_packet_of_tiny_segments_is_sealed_in_several_steps_and_loses_nothing() {
    for inner_v6 in [false, true] {
        let (mut a, mut b) = tunnel(inner_v6).build();
        let mut interruptions = 0;
        for (gso_size, payload) in [(1, 20_000), (8, 65_000), (36, 65_000), (100, 65_000)] {
            let (header, bytes, segments) = cut(&Packet::tcp(inner_v6, 1, payload), gso_size);
            let sent = a.send_super(0, &header, &bytes);
            assert_eq!(sent.datagrams.len(), segments.len());
            interruptions += sent.interruptions;
            let arrived = sent.datagrams.iter().map(|datagram| b.receive(datagram));
            assert!(arrived.eq(segments.into_iter().map(Some)), "{gso_size}");
        }
        assert!(interruptions > 0);
        assert!(a.drops().is_empty());
    }
}

#[test]
fn a_narrower_path_holds_for_the_next_super_packet() {
    let (mut a, mut b) = tunnel(false).build();
    let (header, bytes, segments) = cut(&Packet::tcp(false, 1, 20_000), 1348);
    let sent = a.send_super(0, &header, &bytes);
    assert_eq!(sent.datagrams.len(), segments.len());
    let transmit = sent.datagrams[0].transmit;

    a.pipelines[0].learn_path_mtu(transmit.local, transmit.remote, Some(1400), a.now);
    let sent = a.send_super(0, &header, &bytes);
    assert!(sent.datagrams.is_empty());
    assert_eq!(field(&sent.replies[0], 26), INNER_MTU - 100);

    let (header, bytes, segments) = cut(&Packet::tcp(false, 1, 20_000), 1248);
    let sent = a.send_super(0, &header, &bytes);
    let arrived = sent.datagrams.iter().map(|datagram| b.receive(datagram));
    assert!(arrived.eq(segments.into_iter().map(Some)));
}

/// Fills the egress until a super-packet is interrupted; `between` happens then. Returns the number of
/// segments that were left, and what became of them.
fn interrupted(between: impl FnOnce(&mut crate::gateway::Gateway, &Tunnel)) -> (usize, Sent) {
    let tunnel = tunnel(false);
    let (mut a, _) = tunnel.build();
    let (header, bytes, segments) = cut(&Packet::tcp(false, 1, 60_000), 1348);
    loop {
        let mut packet = bytes.clone();
        let (now, egress) = (a.now, &mut a.egress);
        let before = a.pipelines[0].stats().snapshot().outbound.packets;
        let Outbound::Full(rest) = a.pipelines[0].outbound(now, &header, &mut packet, egress)
        else {
            continue;
        };
        let sealed = a.pipelines[0].stats().snapshot().outbound.packets - before;
        let left = segments.len() - usize::try_from(sealed).expect("a few");
        a.drain();
        between(&mut a, &tunnel);
        let mut sent = Sent::default();
        let (now, egress) = (a.now, &mut a.egress);
        let outbound = a.pipelines[0].resume(now, rest, &mut packet, egress);
        assert!(sent.note(outbound).is_none());
        sent.datagrams = a.drain();
        assert!(left > 0);
        return (left, sent);
    }
}

#[test]
fn an_interrupted_super_packet_goes_on_where_it_stopped() {
    let (left, sent) = interrupted(|_, _| {});
    assert_eq!(sent.datagrams.len(), left);
}

#[test]
fn an_interrupted_super_packet_goes_on_with_the_sa_that_a_rekey_brought() {
    let (left, sent) = interrupted(|a, tunnel| {
        let [for_a, _] = tunnel.updates(1);
        for_a.into_iter().for_each(|update| a.update(update));
    });
    assert_eq!(sent.datagrams.len(), left);
    assert_eq!(sent.datagrams[0].bytes[4..8], [0, 0, 0, 1], "a new counter");
}

#[test]
fn an_interrupted_super_packet_ends_where_the_policy_that_let_it_pass_is_gone() {
    let (_, sent) = interrupted(|a, _| {
        a.update(SaUpdate::SetPolicies(std::sync::Arc::default()));
    });
    assert!(sent.datagrams.is_empty() && sent.replies.is_empty());
}

#[test]
fn a_path_that_became_narrow_during_an_interruption_is_reported_about_the_next_segment() {
    let (left, sent) = interrupted(|a, _| {
        let [local, remote] = ["192.0.2.1:4500", "198.51.100.1:4500"];
        let local = local.parse::<std::net::SocketAddr>().expect("literal");
        let remote = remote.parse().expect("literal");
        a.pipelines[0].learn_path_mtu(local.ip(), remote, Some(1300), a.now);
    });
    assert!(sent.datagrams.is_empty());
    let [reply] = sent.replies.as_slice() else {
        panic!("one reply")
    };
    let (_, _, segments) = cut(&Packet::tcp(false, 1, 60_000), 1348);
    let quote = &reply[28..];
    assert_eq!(quote, &segments[segments.len() - left][..quote.len()]);
}

#[test]
fn what_is_left_of_a_super_packet_without_an_sa_is_dropped_and_counted() {
    let mut dropped = 0;
    let (left, sent) = interrupted(|a, tunnel| {
        let owner = WorkerId(tunnel.owner);
        a.update(SaUpdate::RemoveOutbound {
            child: CHILD,
            reqid: REQID,
            owner,
        });
        dropped = a.dropped(DropReason::NoOutboundSa);
    });
    assert!(sent.datagrams.is_empty() && sent.replies.is_empty());
    assert_eq!((dropped, left > 0), (0, true));
}

#[test]
fn a_vnet_header_that_lies_costs_the_packet_and_nothing_else() {
    let (mut a, mut b) = tunnel(false).build();
    let (good, bytes, segments) = cut(&Packet::tcp(false, 1, 5000), 1348);
    let lies = [
        VnetHeader {
            gso_size: 0,
            ..good
        },
        VnetHeader {
            gso_type: VnetHeader::GSO_TCPV6,
            ..good
        },
        VnetHeader {
            gso_type: VnetHeader::GSO_UDP,
            ..good
        },
        VnetHeader {
            gso_type: 0x7f,
            ..good
        },
        VnetHeader {
            csum_start: 65_000,
            ..good
        },
        VnetHeader {
            csum_offset: 6,
            ..good
        },
        VnetHeader { flags: 0, ..good },
    ];
    for lie in lies {
        let sent = a.send_super(0, &lie, &bytes);
        assert!(
            sent.datagrams.is_empty() && sent.replies.is_empty(),
            "{lie:?}"
        );
    }
    assert_eq!(a.drops(), [DropReason::InnerMalformed; 7]);
    let sent = a.send_super(0, &good, &bytes);
    let arrived = sent.datagrams.iter().map(|datagram| b.receive(datagram));
    assert!(arrived.eq(segments.into_iter().map(Some)));
}

#[test]
fn an_unfinished_checksum_of_a_plain_packet_is_finished() {
    for packet in [Packet::tcp(false, 7, 100), Packet::udp(false, 99)] {
        let (mut a, mut b) = tunnel(false).build();
        let (header, bytes) = packet.build_super(1);
        let header = VnetHeader {
            gso_type: VnetHeader::GSO_NONE,
            gso_size: 0,
            ..header
        };
        let sent = a.send_super(0, &header, &bytes);
        assert_eq!(b.receive(&sent.datagrams[0]), Some(packet.build()));
    }
}
