//! Putting packets together, rule by rule.

use std::io::IoSlice;

use lockgate::io::offload::{MergeKinds, MergeScratch, Merger};
use lockgate::wire::vnet::VnetHeader;

use super::packets::{
    ACK, CWR, ECE, FIN, PSH, Packet, RST, SYN, URG, checksum, field, joined, pattern, put,
};
use super::reference;

const BOTH: MergeKinds = MergeKinds {
    tcp: true,
    udp: true,
};

type Written = Vec<(VnetHeader, Vec<u8>)>;

fn merge_kinds(kinds: MergeKinds, burst: &[Vec<u8>]) -> Written {
    let mut arena = burst.to_vec();
    let mut written = Vec::new();
    let mut sink = |header: &VnetHeader, pieces: &[IoSlice<'_>]| {
        written.push((*header, joined(pieces)));
    };
    let mut scratch = MergeScratch::new();
    let mut merger = Merger::new(kinds, &mut scratch);
    for packet in &mut arena {
        merger.push(packet, &mut sink);
    }
    merger.finish(&mut sink);
    written
}

fn merge(burst: &[Vec<u8>]) -> Written {
    merge_kinds(BOTH, burst)
}

/// How many packets each written one stands for.
fn sizes(written: &Written) -> Vec<usize> {
    let split = |(header, packet): &(VnetHeader, Vec<u8>)| reference::split(header, packet);
    written
        .iter()
        .map(|one| split(one).unwrap().len())
        .collect()
}

/// A run of packets of one flow.
fn run(first: &Packet, payloads: &[usize]) -> Vec<Packet> {
    let mut packets = vec![first.with(|packet| packet.payload = pattern(payloads[0]))];
    for payload in &payloads[1..] {
        packets.push(packets.last().unwrap().next(*payload));
    }
    packets
}

fn build(packets: &[Packet]) -> Vec<Vec<u8>> {
    packets.iter().map(Packet::build).collect()
}

/// The packets in which `edit` changes what follows the second one.
fn changed(first: &Packet, edit: impl Fn(&mut Packet)) -> Vec<Vec<u8>> {
    let mut packets = run(first, &[100, 100]);
    let third = packets[1].next(100).with(edit);
    packets.push(third);
    packets.push(packets[2].next(100));
    build(&packets)
}

fn firsts() -> Vec<Packet> {
    let both = [false, true];
    let tcp = both.map(|ipv6| Packet::tcp(ipv6, 0xffff_ff00, 0));
    let udp = both.map(|ipv6| Packet::udp(ipv6, 0));
    [tcp, udp].concat()
}

#[test]
fn a_run_of_equal_packets_and_a_shorter_one_become_the_super_packet_that_is_split_into_them() {
    for first in firsts() {
        for payloads in [&[100, 100][..], &[100; 64], &[1400, 1400, 1400, 7]] {
            let packets = run(&first, payloads);
            let written = merge(&build(&packets));
            let whole = first.with(|packet| {
                let payloads = packets.iter().map(|packet| packet.payload.clone());
                packet.payload = payloads.collect::<Vec<_>>().concat();
            });
            let gso_size = u16::try_from(payloads[0]).unwrap();
            assert_eq!(written, [whole.build_super(gso_size)]);
            let (header, bytes) = &written[0];
            assert_eq!(reference::split(header, bytes), Some(build(&packets)));
        }
    }
}

#[test]
fn the_ipv4_header_of_a_super_packet_has_a_right_checksum() {
    let written = merge(&build(&run(&Packet::tcp(false, 1, 0), &[100; 10])));
    let [(_, packet)] = &written[..] else {
        panic!("{} packets", written.len());
    };
    assert_eq!(checksum(&packet[..20]), 0);
    assert_eq!(field(packet, 2), 52 + 1000);
}

#[test]
fn a_lone_packet_is_written_as_it_came() {
    for first in firsts() {
        let bytes = first.with(|packet| packet.payload = pattern(77)).build();
        let alone = merge(std::slice::from_ref(&bytes));
        assert_eq!(alone, [(VnetHeader::default(), bytes)]);
    }
}

#[test]
fn nothing_follows_a_shorter_packet_and_a_longer_one_starts_anew() {
    for first in firsts() {
        let written = merge(&build(&run(&first, &[100, 60, 60, 100, 100, 101, 101])));
        assert_eq!(sizes(&written), [2, 1, 2, 2]);
    }
}

#[test]
fn a_train_ends_after_64_packets_and_before_65536_bytes() {
    for first in firsts() {
        assert_eq!(sizes(&merge(&build(&run(&first, &[10; 130])))), [64, 64, 2]);
        let written = merge(&build(&run(&first, &[1400; 60])));
        assert!(written.iter().all(|(_, packet)| packet.len() <= 65_535));
        assert_eq!(sizes(&written), [46, 14]);
    }
}

#[test]
fn a_pushed_packet_ends_its_train_and_its_psh_is_seen_at_the_head() {
    let mut packets = run(&Packet::tcp(false, 1, 0), &[100; 5]);
    packets[2].tcp_mut().flags |= PSH;
    let written = merge(&build(&packets));
    assert_eq!(sizes(&written), [3, 2]);
    assert_eq!((written[0].1[33], written[1].1[33]), (ACK | PSH, ACK));
    packets[0].tcp_mut().flags |= PSH;
    assert_eq!(sizes(&merge(&build(&packets))), [1, 2, 2]);
}

#[test]
fn packets_with_other_flags_go_alone_and_in_their_place() {
    let first = Packet::tcp(false, 1, 0);
    for flags in [FIN, SYN, RST, URG, CWR, CWR | ECE] {
        let mut packets = run(&first, &[100; 5]);
        packets[2].tcp_mut().flags |= flags;
        let burst = build(&packets);
        let written = merge(&burst);
        assert_eq!(sizes(&written), [2, 1, 2]);
        assert_eq!(written[1], (VnetHeader::default(), burst[2].clone()));
    }
    let mut packets = run(&first, &[100; 3]);
    packets[1].tcp_mut().flags = 0; // no ACK
    assert_eq!(sizes(&merge(&build(&packets))), [1, 1, 1]);
}

#[test]
fn echoed_congestion_merges_with_its_like_only() {
    let mut packets = run(&Packet::tcp(true, 1, 0), &[100; 6]);
    for packet in &mut packets[2..4] {
        packet.tcp_mut().flags |= ECE;
    }
    assert_eq!(sizes(&merge(&build(&packets))), [2, 2, 2]);
}

#[test]
fn packets_whose_ip_headers_differ_do_not_merge() {
    let edits: [&dyn Fn(&mut Packet); 4] = [
        &|packet| packet.ttl -= 1,
        &|packet| packet.tos = 3, // congestion experienced
        &|packet| packet.dont_fragment = !packet.dont_fragment,
        &|packet| packet.flow_label += 1,
    ];
    for first in firsts() {
        for (at, edit) in edits.iter().enumerate() {
            let exists = match at {
                2 => !first.ipv6,
                3 => first.ipv6,
                _ => true,
            };
            let wanted = if exists { vec![2, 2] } else { vec![4] };
            assert_eq!(sizes(&merge(&changed(&first, edit))), wanted);
        }
    }
}

#[test]
fn packets_whose_tcp_headers_differ_do_not_merge() {
    let edits: [&dyn Fn(&mut Packet); 6] = [
        &|packet| packet.tcp_mut().sequence += 1,
        &|packet| packet.tcp_mut().sequence -= 1,
        &|packet| packet.tcp_mut().acknowledgment += 1,
        &|packet| packet.tcp_mut().window += 1,
        &|packet| packet.tcp_mut().urgent = 1,
        &|packet| packet.tcp_mut().options[7] += 1, // a later timestamp
    ];
    for ipv6 in [false, true] {
        for edit in edits {
            let burst = changed(&Packet::tcp(ipv6, 1, 0), edit);
            assert_eq!(sizes(&merge(&burst)), [2, 2]);
        }
    }
    let burst = changed(&Packet::tcp(false, 1, 0), |packet| {
        packet.tcp_mut().options.clear();
    });
    assert_eq!(sizes(&merge(&burst)), [2, 2]);
}

#[test]
fn identifications_count_up_by_one_also_past_their_end() {
    for first in [Packet::tcp(false, 1, 0), Packet::udp(false, 0)] {
        for dont_fragment in [false, true] {
            let first = first.with(|packet| {
                (packet.id, packet.dont_fragment) = (0xfffe, dont_fragment);
            });
            assert_eq!(sizes(&merge(&build(&run(&first, &[100; 4])))), [4]);
            let jump = changed(&first, |packet| packet.id = packet.id.wrapping_add(1));
            assert_eq!(sizes(&merge(&jump)), [2, 2]);
            let back = changed(&first, |packet| packet.id = packet.id.wrapping_sub(2));
            assert_eq!(sizes(&merge(&back)), [2, 2]);
        }
    }
}

/// RFC 6864 §4.1: with DF, the identification of an unfragmented packet means nothing.
#[test]
fn one_identification_for_all_merges_with_df_only_and_never_with_counting_ones() {
    for first in [Packet::tcp(false, 1, 0), Packet::udp(false, 0)] {
        let mut packets = run(&first, &[100; 6]);
        for packet in &mut packets[..3] {
            packet.id = 0;
        }
        packets[3].id = 1;
        packets[4].id = 2;
        packets[5].id = 3;
        assert_eq!(sizes(&merge(&build(&packets))), [3, 3]);
        for packet in &mut packets[..3] {
            packet.dont_fragment = false;
        }
        assert_eq!(sizes(&merge(&build(&packets))), [1, 1, 1, 3]);
    }
}

#[test]
fn a_packet_with_a_wrong_checksum_goes_alone_and_stays_wrong() {
    for first in firsts() {
        for at in 0..4 {
            let mut burst = build(&run(&first, &[100; 4]));
            let last = burst[at].len() - 1;
            burst[at][last] ^= 0x10;
            let written = merge(&burst);
            let wanted = [vec![1, 3], vec![1, 1, 2], vec![2, 1, 1], vec![3, 1]];
            assert_eq!(sizes(&written), wanted[at]);
            let broken = (VnetHeader::default(), burst[at].clone());
            assert!(written.contains(&broken), "its bytes were touched");
        }
    }
}

#[test]
fn a_packet_with_a_wrong_ipv4_header_checksum_goes_alone_and_stays_wrong() {
    let mut burst = build(&run(&Packet::tcp(false, 1, 0), &[100; 3]));
    burst[1][10] ^= 1;
    let written = merge(&burst);
    assert_eq!(sizes(&written), [1, 1, 1]);
    assert_eq!(written[1].1, burst[1]);
}

/// All ones in place of zero verifies as well (RFC 1624 §3), but a splitter would write zero.
#[test]
fn a_tcp_checksum_that_nobody_computes_goes_alone() {
    let mut packets = run(&Packet::tcp(false, 1, 0), &[100; 3]);
    put(&mut packets[1].payload, 98, 0);
    let rest = field(&packets[1].build(), 36);
    put(&mut packets[1].payload, 98, rest);
    let mut burst = build(&packets);
    assert_eq!(field(&burst[1], 36), 0);
    assert_eq!(sizes(&merge(&burst)), [3]);
    put(&mut burst[1], 36, 0xffff);
    assert_eq!(sizes(&merge(&burst)), [1, 1, 1]);
}

#[test]
fn udp_without_a_checksum_goes_alone() {
    for ipv6 in [false, true] {
        let mut burst = build(&run(&Packet::udp(ipv6, 0), &[100; 3]));
        put(&mut burst[1], if ipv6 { 46 } else { 26 }, 0);
        let written = merge(&burst);
        assert_eq!(sizes(&written), [1, 1, 1]);
        assert_eq!(written[1].1, burst[1]);
    }
}

#[test]
fn udp_whose_length_is_not_that_of_the_packet_goes_alone() {
    let mut packets = run(&Packet::udp(false, 0), &[100; 3]);
    let mut odd = packets.remove(1).build();
    put(&mut odd, 24, 100);
    let burst = [packets[0].build(), odd.clone(), packets[1].build()];
    let written = merge(&burst);
    assert_eq!(sizes(&written), [1, 1, 1]);
    assert_eq!(written[1].1, odd);
}

#[test]
fn only_the_kinds_that_were_asked_for_merge() {
    for (kinds, tcp, udp) in [
        (
            MergeKinds {
                tcp: true,
                udp: false,
            },
            1,
            4,
        ),
        (
            MergeKinds {
                tcp: false,
                udp: true,
            },
            4,
            1,
        ),
        (MergeKinds::default(), 4, 4),
    ] {
        for ipv6 in [false, true] {
            let burst = build(&run(&Packet::tcp(ipv6, 1, 0), &[100; 4]));
            assert_eq!(merge_kinds(kinds, &burst).len(), tcp);
            let burst = build(&run(&Packet::udp(ipv6, 0), &[100; 4]));
            assert_eq!(merge_kinds(kinds, &burst).len(), udp);
        }
    }
}

#[test]
fn packets_without_payload_go_alone_and_in_their_place() {
    for first in firsts() {
        let burst = build(&run(&first, &[100, 100, 0, 100, 100]));
        let written = merge(&burst);
        assert_eq!(sizes(&written), [2, 1, 2]);
        assert_eq!(written[1].1, burst[2]);
    }
}

#[test]
fn fragments_options_and_extension_headers_go_alone_and_in_their_place() {
    for first in firsts() {
        let mut burst = build(&run(&first, &[100; 4]));
        let mut odd = vec![first.with(|packet| packet.extra = 8).build()];
        if !first.ipv6 {
            let mut fragment = burst[2].clone();
            fragment[6..8].copy_from_slice(&[0x00, 0x10]); // the middle of a packet, no ports
            put(&mut fragment, 10, 0);
            let sum = checksum(&fragment[..20]);
            put(&mut fragment, 10, sum);
            odd.push(fragment);
        }
        for odd in odd {
            burst.insert(2, odd.clone());
            let written = merge(&burst);
            assert_eq!(sizes_of_known(&written), [2, 0, 2]);
            assert_eq!(written[1], (VnetHeader::default(), odd));
            burst.remove(2);
        }
    }
}

/// As [`sizes`], with 0 for what came as it was.
fn sizes_of_known(written: &Written) -> Vec<usize> {
    let size = |one: &(VnetHeader, Vec<u8>)| match one.0.gso_type {
        VnetHeader::GSO_NONE => 0,
        _ => reference::split(&one.0, &one.1).unwrap().len(),
    };
    written.iter().map(size).collect()
}

#[test]
fn an_answer_to_a_ping_between_the_same_hosts_holds_up_no_train() {
    let mut burst = build(&run(&Packet::tcp(false, 1, 0), &[100; 4]));
    let mut ping = burst[0].clone();
    ping[9] = 1; // ICMP
    burst.insert(2, ping.clone());
    let written = merge(&burst);
    assert_eq!(written[0], (VnetHeader::default(), ping));
    assert_eq!(written.len(), 2);
}

#[test]
fn eight_flows_are_followed_and_a_ninth_makes_the_oldest_give_way() {
    let flows = |count: u16| -> Vec<Vec<Vec<u8>>> {
        let run_of = |port| {
            let first = Packet::tcp(false, 1, 0).with(|packet| packet.source_port = port);
            build(&run(&first, &[100; 4]))
        };
        (0..count).map(run_of).collect()
    };
    let interleaved = |flows: &[Vec<Vec<u8>>]| -> Vec<Vec<u8>> {
        let nth = |at: usize| flows.iter().map(move |flow| flow[at].clone());
        (0..4).flat_map(nth).collect()
    };
    assert_eq!(sizes(&merge(&interleaved(&flows(8)))), [4; 8]);
    let written = merge(&interleaved(&flows(9)));
    assert_eq!(sizes(&written).iter().sum::<usize>(), 36);
}

#[test]
fn the_same_ports_between_other_hosts_or_over_the_other_protocol_are_another_flow() {
    let tcp = run(&Packet::tcp(false, 1, 0), &[100; 3]);
    let other = run(
        &Packet::tcp(false, 1, 0).with(|packet| packet.host = 11),
        &[100; 3],
    );
    let udp = run(&Packet::udp(false, 0), &[100; 3]);
    let v6 = run(&Packet::tcp(true, 1, 0), &[100; 3]);
    let burst: Vec<Vec<u8>> = (0..3)
        .flat_map(|at| [&tcp[at], &other[at], &udp[at], &v6[at]].map(Packet::build))
        .collect();
    assert_eq!(sizes(&merge(&burst)), [3; 4]);
}

#[test]
fn scratch_serves_one_burst_after_another_without_allocating() {
    let mut first = build(&run(&Packet::tcp(false, 1, 0), &[100; 100]));
    first.extend(build(&run(&Packet::udp(true, 0), &[100; 100])));
    let mut scratch = MergeScratch::new();
    for _ in 0..20 {
        let mut arena = first.clone();
        let mut sizes = [0; 4];
        let used = allocation_counter::measure(|| {
            let mut slots = sizes.iter_mut();
            let mut sink = |_: &VnetHeader, pieces: &[IoSlice<'_>]| {
                *slots.next().expect("two trains of each flow") = pieces.len();
            };
            let mut merger = Merger::new(BOTH, &mut scratch);
            for packet in &mut arena {
                merger.push(packet, &mut sink);
            }
            merger.finish(&mut sink);
        });
        assert_eq!(sizes, [64, 64, 36, 36]);
        assert_eq!(used.count_total, 0);
    }
}
