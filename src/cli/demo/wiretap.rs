//! Someone who listens on the link between the gateways and looks for clear text.

use std::{
    io,
    net::{IpAddr, Ipv4Addr},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use socket2::SockFilter;

use crate::{
    io::{capture::Capture, netns::Namespace},
    lab::traffic::{MARKER, StopOnDrop},
    wire::ip::{IpPacket, protocol},
};

/// What a frame on the outer link turned out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sighting {
    /// IKE or a keepalive between the gateways.
    Ike,
    /// ESP between the gateways, bare or in UDP.
    Esp,
    /// What any link carries: ARP, neighbour discovery, group membership, ICMP among the gateways.
    Housekeeping,
    /// Anything else: a packet that ought to have been inside the tunnel.
    Clear,
}

/// Judges one Ethernet frame, `outer` being the addresses of the gateways (and of a NAT).
#[must_use]
pub fn classify(frame: &[u8], outer: &[IpAddr]) -> Sighting {
    if frame.windows(MARKER.len()).any(|window| window == MARKER) {
        return Sighting::Clear;
    }
    let packet = match frame.split_first_chunk::<14>() {
        Some(([.., 0x08, 0x06], _)) => return Sighting::Housekeeping,
        Some(([.., 0x08, 0x00] | [.., 0x86, 0xdd], packet)) => packet,
        _ => return Sighting::Clear,
    };
    let Ok(packet) = IpPacket::parse(packet) else {
        return Sighting::Clear;
    };
    let between_gateways = outer.contains(&packet.src()) && outer.contains(&packet.dst());
    match packet.protocol() {
        protocol::ESP if between_gateways => Sighting::Esp,
        protocol::UDP if between_gateways => in_udp(&packet),
        protocol::ICMP | protocol::ICMPV6 if between_gateways => Sighting::Housekeeping,
        protocol::ICMPV6 | IGMP if stays_on_link(packet.dst()) || stays_on_link(packet.src()) => {
            Sighting::Housekeeping
        }
        _ => Sighting::Clear,
    }
}

/// RFC 3948 §2: on port 4500 four zero bytes mark IKE, a single 0xff is a keepalive.
fn in_udp(packet: &IpPacket<'_>) -> Sighting {
    if packet.is_fragment() && !packet.is_first_fragment() {
        return Sighting::Esp;
    }
    let payload = packet
        .bytes()
        .get(packet.upper_layer_offset() + 8..)
        .unwrap_or_default();
    match packet.ports() {
        Some((500, _) | (_, 500)) => Sighting::Ike,
        Some((4500, _) | (_, 4500)) if payload.starts_with(&[0; 4]) || payload == [0xff] => {
            Sighting::Ike
        }
        Some((4500, _) | (_, 4500)) => Sighting::Esp,
        _ => Sighting::Clear,
    }
}

fn stays_on_link(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.is_multicast(),
        IpAddr::V6(address) => {
            address.is_multicast() || address.is_unicast_link_local() || address.is_unspecified()
        }
    }
}

/// What a [`Wiretap`] saw.
#[derive(Clone, Copy, Debug, Default)]
pub struct Findings {
    /// Frames of ESP that were looked into: a random sample.
    pub esp_sampled: u64,
    /// Packets in clear. One is too many.
    pub clear: u64,
    /// Frames that went by unseen among those that should all have been seen.
    pub unseen: u64,
}

/// Listens on a link at full speed, in two ways: one socket gets every frame that is neither UDP
/// nor ESP between the gateways, so that it cannot be flooded; the other gets a random sample of
/// everything, to look inside the ESP packets.
#[derive(Debug)]
pub struct Wiretap {
    stop: StopOnDrop,
    threads: Vec<JoinHandle<io::Result<io::Result<Findings>>>>,
}

impl Wiretap {
    /// Listens on `link` of `namespace` to what two IPv4 gateways say to each other.
    pub fn start(namespace: &Namespace, link: &str, gateways: [Ipv4Addr; 2]) -> io::Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let outer = gateways.map(IpAddr::V4);
        let mut threads = Vec::new();
        for filter in [unexpected(gateways), sample()] {
            let (link, stop) = (link.to_owned(), Arc::clone(&stop));
            // Opened before this function returns, so that nothing goes by before the threads run.
            let capture = namespace.run(move || Capture::open(&link, &filter))?;
            threads.push(namespace.thread(move || listen(capture, outer, &stop))?);
        }
        Ok(Self {
            stop: StopOnDrop(stop),
            threads,
        })
    }

    /// Ends it.
    pub fn finish(self) -> io::Result<Findings> {
        drop(self.stop);
        let mut all = Findings::default();
        for (index, thread) in self.threads.into_iter().enumerate() {
            let found = thread
                .join()
                .map_err(|_| io::Error::other("the wiretap panicked"))???;
            all.esp_sampled += found.esp_sampled;
            all.clear += found.clear;
            // Of a sample it does not matter how large a part was seen.
            all.unseen += if index == 0 { found.unseen } else { 0 };
        }
        Ok(all)
    }
}

fn listen(mut capture: Capture, outer: [IpAddr; 2], stop: &AtomicBool) -> io::Result<Findings> {
    let mut findings = Findings::default();
    loop {
        match capture.next(Duration::from_millis(50))? {
            Some(frame) => match classify(frame.bytes, &outer) {
                Sighting::Esp => findings.esp_sampled += 1,
                Sighting::Clear => findings.clear += 1,
                Sighting::Ike | Sighting::Housekeeping => {}
            },
            None if stop.load(Ordering::Relaxed) => break,
            None => {}
        }
    }
    findings.unseen = u64::from(capture.lost()?);
    Ok(findings)
}

/// Keeps all but IPv4 UDP and ESP from one gateway to the other.
fn unexpected(gateways: [Ipv4Addr; 2]) -> Vec<SockFilter> {
    let [a, b] = gateways.map(u32::from);
    vec![
        load(libc::BPF_H, 12),
        // The jump's distances: to the next instruction but `.0` if equal, but `.1` if not.
        equal(0x0800, 0, 9),
        load(libc::BPF_B, 23),
        equal(u32::from(protocol::UDP), 1, 0),
        equal(u32::from(protocol::ESP), 0, 6),
        load(libc::BPF_W, 26),
        equal(a, 1, 0),
        equal(b, 0, 3),
        load(libc::BPF_W, 30),
        equal(a, 2, 0),
        equal(b, 1, 0),
        keep(KEEP_ALL),
        keep(0),
    ]
}

/// Keeps one frame in 64.
fn sample() -> Vec<SockFilter> {
    const RANDOM: u32 = 56;
    const EXTENSION: u32 = 0xffff_f000;
    vec![
        load(libc::BPF_W, EXTENSION + RANDOM),
        instruction(libc::BPF_ALU | libc::BPF_AND | libc::BPF_K, 0, 0, 63),
        equal(0, 0, 1),
        keep(KEEP_ALL),
        keep(0),
    ]
}

fn load(size: u32, offset: u32) -> SockFilter {
    instruction(libc::BPF_LD | libc::BPF_ABS | size, 0, 0, offset)
}

fn equal(value: u32, then: u8, otherwise: u8) -> SockFilter {
    instruction(
        libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K,
        then,
        otherwise,
        value,
    )
}

fn keep(bytes: u32) -> SockFilter {
    instruction(libc::BPF_RET | libc::BPF_K, 0, 0, bytes)
}

fn instruction(code: u32, then: u8, otherwise: u8, value: u32) -> SockFilter {
    let code = u16::try_from(code).expect("the opcodes of classic BPF are below 256");
    SockFilter::new(code, then, otherwise, value)
}

const KEEP_ALL: u32 = u32::MAX;
const IGMP: u8 = 2;

#[cfg(test)]
mod tests {
    use std::{
        net::{IpAddr, UdpSocket},
        time::Duration,
    };

    use super::{Findings, MARKER, Namespace, Sighting, Wiretap, classify};
    use crate::io::netns::{connect, for_test};

    const GATEWAYS: [IpAddr; 2] = [
        IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1)),
        IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 2)),
    ];

    /// An Ethernet frame around an IPv4 packet with a payload of one transport header or more.
    fn ipv4(protocol: u8, src: [u8; 4], dst: [u8; 4], payload: &[u8]) -> Vec<u8> {
        let length = u8::try_from(20 + payload.len()).unwrap();
        let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x08, 0x00];
        frame.extend([0x45, 0, 0, length, 0, 0, 0x40, 0, 64, protocol, 0, 0]);
        frame.extend(src);
        frame.extend(dst);
        frame.extend(payload);
        frame
    }

    fn udp(port: u16, payload: &[u8]) -> Vec<u8> {
        let length = u16::try_from(8 + payload.len()).unwrap();
        let numbers = [port, port, length, 0].map(u16::to_be_bytes).concat();
        ipv4(
            17,
            [192, 0, 2, 1],
            [192, 0, 2, 2],
            &[&numbers, payload].concat(),
        )
    }

    #[test]
    fn what_gateways_say_to_each_other_is_told_from_clear_text() {
        let cases = [
            (udp(500, &[1; 28]), Sighting::Ike),
            (udp(4500, &[0, 0, 0, 0, 1, 2, 3, 4]), Sighting::Ike),
            (udp(4500, &[0xff]), Sighting::Ike),
            (udp(4500, &[0xc0, 0xff, 0xee, 1, 0, 0, 0, 1]), Sighting::Esp),
            (udp(5001, &[1; 28]), Sighting::Clear),
            (udp(4500, MARKER), Sighting::Clear),
            (
                ipv4(50, [192, 0, 2, 1], [192, 0, 2, 2], &[9; 40]),
                Sighting::Esp,
            ),
            (
                ipv4(50, [192, 0, 2, 1], [192, 0, 2, 9], &[9; 40]),
                Sighting::Clear,
            ),
            (
                ipv4(6, [192, 0, 2, 1], [192, 0, 2, 2], &[9; 40]),
                Sighting::Clear,
            ),
            (
                ipv4(
                    17,
                    [10, 1, 0, 10],
                    [10, 2, 0, 10],
                    &[0x11, 0x94, 0x11, 0x94],
                ),
                Sighting::Clear,
            ),
            (
                ipv4(2, [192, 0, 2, 1], [224, 0, 0, 22], &[9; 8]),
                Sighting::Housekeeping,
            ),
            (
                [&[0xff; 12], &[0x08, 0x06][..], &[0; 28]].concat(),
                Sighting::Housekeeping,
            ),
            (vec![0; 10], Sighting::Clear),
        ];
        for (frame, expected) in cases {
            assert_eq!(classify(&frame, &GATEWAYS), expected, "{frame:02x?}");
        }
    }

    /// The socket filters keep clear text whatever it looks like, and a sample of the rest.
    #[test]
    fn the_wiretap_finds_clear_text_between_encrypted_packets() {
        let Some(a) = for_test("a") else { return };
        let b = Namespace::new("b").unwrap();
        connect((&a, "outer"), (&b, "outer"), 1500).unwrap();
        a.add_address("outer", "192.0.2.1/24".parse().unwrap())
            .unwrap();
        a.add_address("outer", "10.1.0.1/24".parse().unwrap())
            .unwrap();
        b.add_address("outer", "192.0.2.2/24".parse().unwrap())
            .unwrap();
        b.add_address("outer", "10.1.0.2/24".parse().unwrap())
            .unwrap();

        let send = |from: &'static str, to: &'static str, text: &'static [u8], times: usize| {
            a.run(move || {
                let socket = UdpSocket::bind(from).unwrap();
                for _ in 0..times {
                    // The other end refuses what no socket waits for.
                    let _ = socket.send_to(text, to);
                }
            });
        };
        let listen = || {
            let gateways = ["192.0.2.1", "192.0.2.2"].map(|address| address.parse().unwrap());
            Wiretap::start(&a, "outer", gateways).unwrap()
        };
        let wiretap = listen();
        send("192.0.2.1:4500", "192.0.2.2:4500", &[0xc0; 64], 2000);
        std::thread::sleep(Duration::from_millis(50));
        let Findings {
            esp_sampled,
            clear,
            unseen,
        } = wiretap.finish().unwrap();
        assert!((1..1000).contains(&esp_sampled), "{esp_sampled}");
        assert_eq!((clear, unseen), (0, 0));

        let wiretap = listen();
        send("10.1.0.1:4500", "10.1.0.2:4500", &[0xc0; 64], 1);
        assert!(wiretap.finish().unwrap().clear >= 1);
    }
}
