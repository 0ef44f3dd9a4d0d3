//! The packet path of one worker without sockets, a given number of packets long: what `perf/ab` counts.
//!
//! Prints nanoseconds per inner packet, from the median of all bursts, so that bursts in which another
//! process had the core do not count. Under callgrind the difference of two lengths leaves out the start.
#![allow(
    clippy::indexing_slicing,
    reason = "an index out of bounds ends the program, as it should"
)]

#[path = "../../tests/dataplane/gateway.rs"]
mod gateway;
#[path = "../../tests/dataplane/packets.rs"]
mod packets;

use std::{net::SocketAddr, time::Instant};

use clap::{Parser, ValueEnum};
use gateway::{Gateway, PORT, Tunnel};
use lockgate::{
    dataplane::Carrier,
    io::{
        burst::Received,
        offload::{MergeKinds, MergeScratch, Merger},
    },
    wire::vnet::VnetHeader,
};

#[derive(Clone, Debug, Parser)]
struct Arguments {
    #[arg(long, value_enum)]
    case: Case,
    /// Inner packets, rounded up to whole bursts.
    #[arg(long, default_value_t = 100_000)]
    packets: u64,
}

/// Which part of the path is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Case {
    /// TCP super-packets from the TUN to sealed trains.
    SealTcp,
    /// Single packets of 1400 bytes from the TUN.
    #[value(name = "seal-1400")]
    Seal1400,
    /// Single packets of 64 bytes from the TUN.
    #[value(name = "seal-64")]
    Seal64,
    /// The first, and then the trains on the other side to super-packets for the TUN.
    BothTcp,
    /// The second, and then each datagram on the other side.
    #[value(name = "both-1400")]
    Both1400,
    /// The third, and then each datagram on the other side.
    #[value(name = "both-64")]
    Both64,
}

impl Case {
    fn opens(self) -> bool {
        matches!(self, Self::BothTcp | Self::Both1400 | Self::Both64)
    }
}

fn main() {
    let arguments = Arguments::parse();
    let mut scene = Scene::new(arguments.case);
    let mut done = 0;
    let (mut seal, mut open) = (Vec::new(), Vec::new());
    while done < arguments.packets {
        let before = Instant::now();
        scene.seal();
        let time = before.elapsed();
        let count = scene.collect();
        seal.push(time.as_nanos() as f64 / count as f64);
        done += count;
        if arguments.case.opens() {
            let before = Instant::now();
            scene.open();
            open.push(before.elapsed().as_nanos() as f64 / count as f64);
        }
    }
    assert!(scene.b.drops().is_empty(), "every packet is opened");
    println!(
        "{{\"packets\": {done}, \"seal_ns\": {:.2}, \"open_ns\": {:.2}, \"written\": {}}}",
        median(seal),
        median(open),
        scene.written
    );
}

/// Two gateways, and a packet that goes from one to the other again and again.
struct Scene {
    a: Gateway,
    b: Gateway,
    header: VnetHeader,
    packet: Vec<u8>,
    /// A fresh copy: splitting works in place.
    buffer: Vec<u8>,
    reads: usize,
    /// Sealed datagrams of equal length, one after the other.
    wire: Vec<u8>,
    segment_size: u16,
    from: SocketAddr,
    to: SocketAddr,
    scratch: MergeScratch,
    written: u64,
}

impl Scene {
    fn new(case: Case) -> Self {
        let tunnel = Tunnel {
            replay_window: 4096,
            ..Tunnel::default()
        };
        let (a, b) = tunnel.build();
        let (from, to) = (tunnel.host_a(1, 1), tunnel.host_b(1, 2));
        let (header, packet, reads) = match case {
            Case::SealTcp | Case::BothTcp => {
                let (header, packet) = tcp_super(from, to);
                (header, packet, 1)
            }
            Case::Seal1400 | Case::Both1400 => {
                let packet = packets::udp(from, to, &[0xa5; 1372], true);
                (VnetHeader::default(), packet, 32)
            }
            Case::Seal64 | Case::Both64 => {
                let packet = packets::udp(from, to, &[0xa5; 36], true);
                (VnetHeader::default(), packet, 32)
            }
        };
        Self {
            a,
            b,
            header,
            buffer: packet.clone(),
            packet,
            reads,
            wire: Vec::with_capacity(1 << 18),
            segment_size: 0,
            from: SocketAddr::new(from.ip(), PORT),
            to: SocketAddr::new(to.ip(), PORT),
            scratch: MergeScratch::new(),
            written: 0,
        }
    }

    /// What one turn of a worker does with its TUN.
    fn seal(&mut self) {
        for _ in 0..self.reads {
            self.buffer.copy_from_slice(&self.packet);
            let a = &mut self.a;
            let _ = a.pipelines[0].outbound(a.now, &self.header, &mut self.buffer, &mut a.egress);
        }
        self.a.pipelines[0].finish();
    }

    /// What the network does; returns the number of datagrams.
    fn collect(&mut self) -> u64 {
        self.wire.clear();
        let mut count = 0;
        for (transmit, bytes) in self.a.egress.udp_v4.iter() {
            if count == 0 {
                self.segment_size = u16::try_from(bytes.len()).expect("a datagram");
                self.from = SocketAddr::new(transmit.local, PORT);
                self.to = transmit.remote;
            }
            self.wire.extend_from_slice(bytes);
            count += 1;
        }
        self.a.egress.udp_v4.clear();
        count
    }

    /// What one turn of a worker does with its socket.
    fn open(&mut self) {
        let kinds = MergeKinds {
            tcp: true,
            udp: true,
        };
        let written = &mut self.written;
        let mut write = |_: &VnetHeader, _: &[std::io::IoSlice<'_>]| *written += 1;
        let mut merger = Merger::new(kinds, &mut self.scratch);
        let received = Received {
            bytes: &mut self.wire,
            remote: self.from,
            local: self.to.ip(),
            tos: 0,
            segment_size: Some(self.segment_size),
        };
        let carrier = Carrier::Udp { port: PORT };
        let pipeline = &mut self.b.pipelines[0];
        let room = &mut Default::default();
        pipeline.inbound_train(carrier, received, room, |inner| {
            merger.push(inner, &mut write)
        });
        merger.finish(&mut write);
        pipeline.finish();
    }
}

/// A super-packet of TCP over IPv4 as a TUN delivers it (virtio 1.2 §5.1.6): 40 bytes of headers, then
/// 46 segments of 1360 bytes.
fn tcp_super(from: SocketAddr, to: SocketAddr) -> (VnetHeader, Vec<u8>) {
    let syn = packets::syn(from, to, 1360);
    let payload = 46 * 1360;
    let mut packet = syn[..40].to_vec();
    packet.resize(40 + payload, 0xa5);
    let total = u16::try_from(packet.len()).expect("below 65536");
    packet[2..4].copy_from_slice(&total.to_be_bytes());
    packet[10..12].fill(0);
    let sum = checksum(&packet[..20]);
    packet[10..12].copy_from_slice(&(!sum).to_be_bytes());
    packet[32] = 0x50;
    packet[33] = 0x10; // ACK
    // The checksum field of a partial checksum holds the sum of the pseudo-header (RFC 9293 §3.1).
    let length = total - 20;
    let mut pseudo = packet[12..20].to_vec();
    pseudo.extend([0, 6]);
    pseudo.extend(length.to_be_bytes());
    let sum = checksum(&pseudo);
    packet[36..38].copy_from_slice(&sum.to_be_bytes());
    let header = VnetHeader {
        flags: VnetHeader::NEEDS_CSUM,
        gso_type: VnetHeader::GSO_TCPV4,
        hdr_len: 40,
        gso_size: 1360,
        csum_start: 20,
        csum_offset: 16,
    };
    (header, packet)
}

/// The ones' complement sum (RFC 1071).
fn checksum(bytes: &[u8]) -> u16 {
    let words = bytes.chunks(2).map(|word| match word {
        [high, low] => u32::from(u16::from_be_bytes([*high, *low])),
        _ => 0,
    });
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    u16::try_from(sum).unwrap_or(u16::MAX)
}

/// 0 of nothing.
fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(0.0)
}
