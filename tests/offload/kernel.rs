//! What the kernel makes of our super-packets, and we of its: a namespace that forwards from one TUN
//! to another. Where the second TUN has no offloads, the kernel splits; where it has them, we do.

use std::io::IoSlice;

use lockgate::io::netns::Namespace;
use lockgate::io::offload::{MergeKinds, MergeScratch, Merger, Offloads, TunPacket};
use lockgate::io::tun::{Tun, TunBuffer, TunQueue};
use lockgate::wire::vnet::VnetHeader;

use super::packets::{ACK, CWR, ECE, FIN, PSH, Packet, checksum, pattern, put};
use super::support::{eventually, may_build_a_lab, skip};

/// Bytes of one write, with their vnet header.
type Frame = (VnetHeader, Vec<u8>);

/// A router between two TUNs.
struct Router {
    // Before the namespace: its devices go first.
    inward: TunQueue,
    outward: TunQueue,
    offloads: Offloads,
    _namespace: Namespace,
}

impl Router {
    fn new(offloads: Offloads) -> Self {
        let namespace = Namespace::new("router").unwrap();
        for key in ["ipv4/ip_forward", "ipv6/conf/all/forwarding"] {
            namespace.sysctl(key, "1").unwrap();
        }
        let create = |name: &'static str, wanted| {
            let made = namespace.run(move || Tun::create(name, 1, 1500, wanted));
            let (tun, mut queues) = made.unwrap();
            (tun, queues.pop().unwrap())
        };
        let (_, inward) = create("in", Offloads::NONE);
        let (tun, outward) = create("out", offloads);
        for (link, address) in [
            ("in", "10.1.0.254/24"),
            ("in", "fd00:1::fe/64"),
            ("out", "10.2.0.254/24"),
            ("out", "fd00:2::fe/64"),
        ] {
            let address = address.parse().unwrap();
            namespace.add_address(link, address).unwrap();
        }
        Self {
            inward,
            outward,
            offloads: tun.offloads(),
            _namespace: namespace,
        }
    }

    fn send(&mut self, (header, packet): &Frame) {
        let pieces = [IoSlice::new(packet)];
        self.inward.write_vectored(header, &pieces).unwrap();
    }

    /// Forwarded packets, split by us where the kernel did not: as many as asked for, and the number
    /// of reads it took.
    fn receive(&mut self, count: usize) -> (Vec<Vec<u8>>, usize) {
        let (mut buffer, mut packets, mut reads) = (TunBuffer::new(), Vec::new(), 0);
        eventually("everything is forwarded", || {
            while let Ok((header, bytes)) = self.outward.read(&mut buffer) {
                if !is_ours(bytes) {
                    continue; // what IPv6 says when a link comes up
                }
                reads += 1;
                let mut packet = TunPacket::parse(&header, bytes).unwrap();
                while let Some(segment) = packet.next_segment() {
                    packets.push(segment.to_vec());
                }
            }
            (packets.len() >= count).then_some(())
        });
        (packets, reads)
    }
}

fn is_ours(packet: &[u8]) -> bool {
    match packet[0] >> 4 {
        4 => packet[16..19] == [10, 2, 0],
        _ => packet[24..28] == [0xfd, 0, 0, 2],
    }
}

/// The packet behind one router.
fn forwarded(mut packet: Vec<u8>) -> Vec<u8> {
    if packet[0] >> 4 == 6 {
        packet[7] -= 1;
    } else {
        packet[8] -= 1;
        put(&mut packet, 10, 0);
        let header_len = usize::from(packet[0] & 15) * 4;
        let sum = checksum(&packet[..header_len]);
        put(&mut packet, 10, sum);
    }
    packet
}

fn merge(burst: &[Vec<u8>]) -> Vec<Frame> {
    let mut arena = burst.to_vec();
    let mut frames = Vec::new();
    let mut sink = |header: &VnetHeader, pieces: &[IoSlice<'_>]| {
        frames.push((*header, super::packets::joined(pieces)));
    };
    let kinds = MergeKinds {
        tcp: true,
        udp: true,
    };
    let mut scratch = MergeScratch::new();
    let mut merger = Merger::new(kinds, &mut scratch);
    for packet in &mut arena {
        merger.push(packet, &mut sink);
    }
    merger.finish(&mut sink);
    frames
}

/// Runs of packets: TCP and UDP, IPv4 and IPv6, ending in a push or a shorter packet.
fn runs(udp: bool) -> Vec<Vec<Vec<u8>>> {
    let mut runs = Vec::new();
    for ipv6 in [false, true] {
        for (count, payload, tail) in [(2, 1300, 1300), (45, 1400, 1400), (64, 100, 1), (5, 536, 7)]
        {
            let first = match udp {
                true => Packet::udp(ipv6, payload),
                false => Packet::tcp(ipv6, 0xffff_f000, payload),
            };
            let mut packets = vec![first.with(|packet| packet.id = 0xfff0)];
            while packets.len() < count {
                packets.push(packets.last().unwrap().next(payload));
            }
            let last = packets.last_mut().unwrap();
            last.payload.truncate(tail);
            if !udp {
                last.tcp_mut().flags |= PSH;
            }
            runs.push(packets.iter().map(Packet::build).collect());
        }
    }
    runs
}

#[test]
fn the_kernel_splits_what_was_merged_into_the_packets_that_came() {
    if !may_build_a_lab() {
        return;
    }
    let has_uso = Router::new(Offloads::ALL).offloads.tun_uso;
    let mut router = Router::new(Offloads::NONE);
    for udp in [false, true] {
        if udp && !has_uso {
            skip("this kernel has no UDP super-packets on a TUN");
            continue;
        }
        for run in runs(udp) {
            let frames = merge(&run);
            assert_eq!(frames.len(), 1);
            router.send(&frames[0]);
            let wanted: Vec<Vec<u8>> = run.into_iter().map(forwarded).collect();
            assert_eq!(router.receive(wanted.len()), (wanted.clone(), wanted.len()));
        }
    }
}

#[test]
fn what_the_kernel_hands_on_in_one_piece_is_split_into_the_packets_that_came() {
    if !may_build_a_lab() {
        return;
    }
    let mut router = Router::new(Offloads::ALL);
    for udp in [false, true] {
        if !(if udp {
            router.offloads.tun_uso
        } else {
            router.offloads.tun_tso
        }) {
            skip("this kernel has no such super-packets on a TUN");
            continue;
        }
        for run in runs(udp) {
            let frames = merge(&run);
            router.send(&frames[0]);
            let wanted: Vec<Vec<u8>> = run.into_iter().map(forwarded).collect();
            assert_eq!(router.receive(wanted.len()), (wanted, 1));
        }
    }
}

/// Super-packets that a host's own stack may make, but the merger does not.
fn others() -> Vec<(Frame, usize)> {
    let mut others = Vec::new();
    for ipv6 in [false, true] {
        for extra in [0, 8, 24] {
            for (payload, gso_size) in [(4000, 1000), (3001, 1000), (900, 1400), (300, 1)] {
                let segments = usize::div_ceil(payload, gso_size.into());
                let mut tcp = Packet::tcp(ipv6, 0xffff_fff0, 0);
                (tcp.extra, tcp.dont_fragment) = (extra, extra == 8);
                tcp.payload = pattern(payload);
                for (flags, ecn) in [
                    (ACK, 0),
                    (ACK | PSH | FIN, 0),
                    (ACK | ECE | CWR | PSH, 0x80),
                ] {
                    tcp.tcp_mut().flags = flags;
                    let (mut header, bytes) = tcp.build_super(gso_size);
                    header.gso_type |= ecn;
                    others.push(((header, bytes), segments));
                }
            }
        }
    }
    others
}

#[test]
fn our_segments_are_the_kernel_s_for_options_extension_headers_fin_cwr_and_tiny_segments() {
    if !may_build_a_lab() {
        return;
    }
    let mut plain = Router::new(Offloads::NONE);
    let mut whole = Router::new(Offloads::ALL);
    if !whole.offloads.tun_tso {
        return skip("this kernel has no super-packets on a TUN");
    }
    let mut split_by_us = 0;
    for (frame, segments) in others() {
        plain.send(&frame);
        whole.send(&frame);
        let (theirs, _) = plain.receive(segments);
        let (ours, reads) = whole.receive(segments);
        assert_eq!(ours, theirs, "{:?}", frame.0);
        split_by_us += usize::from(reads < segments);
    }
    assert!(split_by_us > 0, "the kernel split everything itself");
}

/// Locally sent packets leave with partial checksums: plain ones are finished by us.
#[test]
fn a_checksum_that_the_kernel_left_to_the_device_is_the_one_it_computes_itself() {
    if !may_build_a_lab() {
        return;
    }
    let mut plain = Router::new(Offloads::NONE);
    let mut whole = Router::new(Offloads::ALL);
    for ipv6 in [false, true] {
        for packet in [Packet::tcp(ipv6, 1, 333), Packet::udp(ipv6, 1)] {
            let (header, bytes) = packet.build_super(0);
            let header = VnetHeader {
                gso_type: VnetHeader::GSO_NONE,
                ..header
            };
            for router in [&mut plain, &mut whole] {
                router.send(&(header, bytes.clone()));
                let wanted = forwarded(packet.build());
                assert_eq!(router.receive(1), (vec![wanted], 1));
            }
        }
    }
}
