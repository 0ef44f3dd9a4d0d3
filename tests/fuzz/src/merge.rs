//! A burst of packets out of the tunnel, given as a script of flows and of what changes in them.
//!
//! The first byte says which kinds are merged. Then each packet takes four bytes: its flow, its
//! length, what is changed, and a value for the change.

#![allow(clippy::indexing_slicing, reason = "a panic is how a target reports")]

use std::collections::{HashMap, VecDeque};

use super::packets::{ACK, CWR, ECE, FIN, PSH, Packet, URG, checksum, field, joined, put};
use super::{packets, reference};
use lockgate::io::offload::{MergeKinds, MergeScratch, Merger, TunPacket};
use lockgate::wire::vnet::VnetHeader;

pub(crate) fn run(script: &[u8]) {
    let Some((&kinds, script)) = script.split_first() else {
        return;
    };
    let kinds = MergeKinds {
        tcp: kinds & 1 == 0,
        udp: kinds & 2 == 0,
    };
    let burst = burst(script);
    let merged = merge(kinds, &burst);
    let resplit: Vec<(bool, Vec<Vec<u8>>)> = merged.iter().map(split).collect();
    let origins = origins(&burst, &resplit);
    check_order(&burst, &origins);
    if kinds.tcp {
        check_reach(&burst, &merged, kinds.udp);
    }
}

/// What comes out, each packet with its vnet header.
fn merge(kinds: MergeKinds, burst: &[Vec<u8>]) -> Vec<(VnetHeader, Vec<u8>)> {
    let mut arena = burst.to_vec();
    let mut merged = Vec::new();
    let mut sink = |header: &VnetHeader, pieces: &[std::io::IoSlice<'_>]| {
        assert!(pieces.len() <= 64);
        merged.push((*header, joined(pieces)));
    };
    let mut scratch = MergeScratch::new();
    let mut merger = Merger::new(kinds, &mut scratch);
    for packet in &mut arena {
        merger.push(packet, &mut sink);
    }
    merger.finish(&mut sink);
    merged
}

fn split((header, packet): &(VnetHeader, Vec<u8>)) -> (bool, Vec<Vec<u8>>) {
    let mut bytes = packet.clone();
    let mut view = TunPacket::parse(header, &mut bytes).expect("what we write, we read");
    let (is_super, mut segments) = (view.is_super(), Vec::new());
    while let Some(segment) = view.next_segment() {
        segments.push(segment.to_vec());
    }
    assert_eq!(Some(&segments), reference::split(header, packet).as_ref());
    assert_eq!(is_super, segments.len() > 1, "one packet is left as it is");
    (is_super, segments)
}

/// The place in the burst of each packet that came out, all bytes compared. Packets of one flow come
/// in order, and those of no visible flow as well.
fn origins(burst: &[Vec<u8>], merged: &[(bool, Vec<Vec<u8>>)]) -> Vec<usize> {
    let mut flows: HashMap<Option<Flow>, VecDeque<usize>> = HashMap::new();
    for (place, packet) in burst.iter().enumerate() {
        flows.entry(flow_of(packet)).or_default().push_back(place);
    }
    let mut origins = Vec::new();
    for (is_super, packets) in merged {
        let own: Vec<usize> = packets
            .iter()
            .map(|packet| flow_of(packet))
            .map(|flow| flows.get_mut(&flow).and_then(VecDeque::pop_front))
            .map(|origin| origin.expect("nothing is written twice or invented"))
            .collect();
        let came: Vec<&[u8]> = own.iter().map(|at| burst[*at].as_slice()).collect();
        let is_same = came == *packets;
        assert!(is_same || (*is_super && reference::renumbered(&came) == *packets));
        origins.extend(own);
    }
    assert_eq!(origins.len(), burst.len(), "nothing is lost");
    origins
}

/// A packet whose flow is not visible stays between those that may be of its flow.
fn check_order(burst: &[Vec<u8>], origins: &[usize]) {
    let hidden: Vec<bool> = burst
        .iter()
        .map(|packet| flow_of(packet).is_none())
        .collect();
    if !hidden.contains(&true) {
        return;
    }
    for (position, origin) in origins.iter().enumerate() {
        for later in origins.iter().skip(position + 1) {
            if origin > later && (hidden[*origin] || hidden[*later]) {
                assert!(!may_be_one_flow(&burst[*origin], &burst[*later]));
            }
        }
    }
}

/// As much is merged as the rules allow, where flows cannot disturb each other.
fn check_reach(burst: &[Vec<u8>], merged: &[(VnetHeader, Vec<u8>)], udp: bool) {
    let mut flows: Vec<Option<Flow>> = burst.iter().map(|packet| flow_of(packet)).collect();
    flows.sort_unstable();
    flows.dedup();
    if flows.len() > 8 || flows.contains(&None) {
        return;
    }
    for flow in flows {
        let own = burst.iter().filter(|packet| flow_of(packet) == flow);
        let own: Vec<Vec<u8>> = own.cloned().collect();
        let expected: Vec<_> = reference::merge(&own, udp)
            .into_iter()
            .map(|(header, packet, _)| (header, packet))
            .collect();
        let came = merged.iter().filter(|(_, packet)| flow_of(packet) == flow);
        let came: Vec<_> = came.cloned().collect();
        assert_eq!(came, expected);
    }
}

/// Protocol, ports and addresses.
type Flow = (u8, Vec<u8>, Vec<u8>);

/// `None` where the ports are not visible.
fn flow_of(packet: &[u8]) -> Option<Flow> {
    let (protocol, addresses, upper_layer) = match packet.first()? >> 4 {
        4 if packet.len() >= 20 && packet[0] == 0x45 && field(packet, 6) & 0x3fff == 0 => {
            (packet[9], &packet[12..20], &packet[20..])
        }
        6 if packet.len() >= 40 => (packet[6], &packet[8..40], &packet[40..]),
        _ => return None,
    };
    let total_len = match addresses.len() {
        8 => usize::from(field(packet, 2)),
        _ => 40 + usize::from(field(packet, 4)),
    };
    let shortest = if protocol == 6 { 20 } else { 8 };
    let is_whole = total_len == packet.len() && upper_layer.len() >= shortest;
    let ports = upper_layer.get(..4).filter(|_| is_whole)?;
    [6, 17]
        .contains(&protocol)
        .then(|| (protocol, ports.to_vec(), addresses.to_vec()))
}

fn may_be_one_flow(one: &[u8], other: &[u8]) -> bool {
    // Behind IPv6 extension headers there may be any protocol.
    let mark = |packet: &[u8]| match packet.first().map(|first| first >> 4) {
        Some(4) if packet.len() >= 20 => Some((Some(packet[9]), packet[12..20].to_vec())),
        Some(6) if packet.len() >= 40 => {
            let visible = Some(packet[6]).filter(|next| [6, 17].contains(next));
            Some((visible, packet[8..40].to_vec()))
        }
        _ => None,
    };
    let has_ports = |protocol: Option<u8>| protocol.is_none_or(|number| [6, 17].contains(&number));
    match (mark(one), mark(other)) {
        (Some((one, from)), Some((other, to))) if from == to => {
            let may_be_same = one.is_none() || other.is_none() || one == other;
            may_be_same && has_ports(one) && has_ports(other)
        }
        _ => false,
    }
}

fn burst(mut script: &[u8]) -> Vec<Vec<u8>> {
    let mut flows: HashMap<u8, Packet> = HashMap::new();
    let mut burst = Vec::new();
    while let (Some((&[flow, length, change, value], rest)), true) =
        (script.split_first_chunk::<4>(), burst.len() < 200)
    {
        script = rest;
        let flow = flow % 24;
        let payload = LENGTHS[usize::from(length) % LENGTHS.len()];
        let last = flows.get(&flow);
        let mut packet = last.map_or_else(|| first(flow, payload), |last| last.next(payload));
        if change == RAW {
            let (raw, rest) = script.split_at(usize::from(value).min(script.len()));
            script = rest;
            burst.push(raw.to_vec());
            continue;
        }
        let once = alter(&mut packet, change, value);
        let mut bytes = once.as_ref().unwrap_or(&packet).build();
        damage(&mut bytes, change, value);
        burst.push(bytes);
        flows.insert(flow, packet);
    }
    burst
}

fn first(flow: u8, payload: usize) -> Packet {
    let ipv6 = flow & 1 == 1;
    let mut packet = match flow & 2 {
        0 => Packet::tcp(ipv6, 0xffff_ff00, payload),
        _ => Packet::udp(ipv6, payload),
    };
    packet.host = flow / 8;
    packet.source_port = 1000 + u16::from(flow & 4);
    packet.id = 0xfffe;
    packet
}

/// Changes the flow from here on, or gives a packet that alone differs.
fn alter(packet: &mut Packet, change: u8, value: u8) -> Option<Packet> {
    let wide = u16::from(value);
    match change % 32 {
        1 => return Some(packet.with(|packet| with_flags(packet, PSH | ACK))),
        2 => return Some(packet.with(|packet| with_flags(packet, value))),
        3 => return Some(packet.with(|packet| with_flags(packet, FIN | ACK))),
        4 => with_flags(packet, ECE | ACK),
        5 => return Some(packet.with(|packet| with_flags(packet, CWR | ACK))),
        6 => with_flags(packet, URG | ACK),
        7 => packet.dont_fragment = !packet.dont_fragment,
        8 => packet.ttl = value,
        9 => packet.tos = value,
        10 => packet.id = packet.id.wrapping_add(wide),
        11 => packet.id = packet.id.wrapping_sub(1),
        12 => packet.flow_label = packet.flow_label.wrapping_add(wide),
        13 => return Some(packet.with(|packet| packet.extra = 8)),
        14 => packet.payload.clear(),
        15..=19 => alter_tcp(packet, change % 32, wide),
        _ => {}
    }
    None
}

fn alter_tcp(packet: &mut Packet, change: u8, value: u16) {
    let packets::Transport::Tcp(tcp) = &mut packet.transport else {
        return;
    };
    match change {
        15 => tcp.acknowledgment = tcp.acknowledgment.wrapping_add(value.into()),
        16 => tcp.window = tcp.window.wrapping_add(value),
        17 => tcp.sequence = tcp.sequence.wrapping_sub(value.into()),
        18 => tcp.urgent = value,
        _ => tcp.options.truncate(usize::from(value) % 4 * 4),
    }
}

fn with_flags(packet: &mut Packet, flags: u8) {
    if let packets::Transport::Tcp(tcp) = &mut packet.transport {
        tcp.flags = flags;
    }
}

/// Changes bytes of a finished packet, checksums or not.
fn damage(bytes: &mut Vec<u8>, change: u8, value: u8) {
    let ipv4 = bytes[0] >> 4 == 4;
    let checksum_at = match (bytes[0], bytes[9], bytes[6]) {
        (0x45, 6, _) => 36,
        (0x45, _, _) => 26,
        (_, _, 6) => 56,
        _ => 46,
    };
    match change % 32 {
        24 => {
            let at = usize::from(value) % bytes.len();
            bytes[at] ^= 1 << (value & 7);
        }
        25 => put(bytes, checksum_at, 0),
        26 if field(bytes, checksum_at) == 0 => put(bytes, checksum_at, 0xffff),
        27 => bytes.push(value),
        28 => bytes.truncate(usize::from(value)),
        29 if ipv4 => {
            bytes[6] |= 0x20; // MF
            put(bytes, 10, 0);
            let sum = checksum(&bytes[..20]);
            put(bytes, 10, sum);
        }
        _ => {}
    }
}

const LENGTHS: [usize; 10] = [100, 100, 100, 100, 100, 99, 60, 1, 101, 1448];
const RAW: u8 = 255;
