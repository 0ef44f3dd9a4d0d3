//! TCP and UDP packets from their fields, byte by byte from RFC 791, RFC 8200, RFC 9293 and RFC 768,
//! and super-packets as the kernel makes them.
#![allow(
    dead_code,
    clippy::indexing_slicing,
    reason = "every program that compiles this module uses its part, and fails by panicking"
)]

use lockgate::wire::vnet::VnetHeader;

/// The fields of one packet between 10.1.0.`host` and 10.2.0.1, or their like in IPv6.
#[derive(Clone, Debug)]
pub(crate) struct Packet {
    pub(crate) ipv6: bool,
    pub(crate) host: u8,
    pub(crate) tos: u8,
    pub(crate) ttl: u8,
    pub(crate) id: u16,
    pub(crate) dont_fragment: bool,
    pub(crate) flow_label: u16,
    /// IPv4 options, or IPv6 extension headers: destination options of this many bytes.
    pub(crate) extra: usize,
    pub(crate) source_port: u16,
    pub(crate) transport: Transport,
    pub(crate) payload: Vec<u8>,
}

#[derive(Clone, Debug)]
pub(crate) enum Transport {
    Tcp(Tcp),
    Udp,
}

#[derive(Clone, Debug)]
pub(crate) struct Tcp {
    pub(crate) sequence: u32,
    pub(crate) acknowledgment: u32,
    pub(crate) flags: u8,
    pub(crate) window: u16,
    pub(crate) urgent: u16,
    pub(crate) options: Vec<u8>,
}

pub(crate) const FIN: u8 = 0x01;
pub(crate) const SYN: u8 = 0x02;
pub(crate) const RST: u8 = 0x04;
pub(crate) const PSH: u8 = 0x08;
pub(crate) const ACK: u8 = 0x10;
pub(crate) const URG: u8 = 0x20;
pub(crate) const ECE: u8 = 0x40;
pub(crate) const CWR: u8 = 0x80;

/// NOP, NOP, timestamps.
pub(crate) const TIMESTAMPS: [u8; 12] = [1, 1, 8, 10, 0, 1, 2, 3, 0, 4, 5, 6];

impl Packet {
    /// A TCP packet with timestamps, DF and these bytes of payload.
    pub(crate) fn tcp(ipv6: bool, sequence: u32, payload: usize) -> Self {
        let tcp = Tcp {
            sequence,
            acknowledgment: 0x0102_0304,
            flags: ACK,
            window: 502,
            urgent: 0,
            options: TIMESTAMPS.to_vec(),
        };
        Self::new(ipv6, Transport::Tcp(tcp), payload)
    }

    /// A UDP packet with DF and these bytes of payload.
    pub(crate) fn udp(ipv6: bool, payload: usize) -> Self {
        Self::new(ipv6, Transport::Udp, payload)
    }

    fn new(ipv6: bool, transport: Transport, payload: usize) -> Self {
        Self {
            ipv6,
            host: 10,
            tos: 0,
            ttl: 64,
            id: 0x1111,
            dont_fragment: true,
            flow_label: 0x4321,
            extra: 0,
            source_port: 40_000,
            transport,
            payload: pattern(payload),
        }
    }

    pub(crate) fn tcp_mut(&mut self) -> &mut Tcp {
        match &mut self.transport {
            Transport::Tcp(tcp) => tcp,
            Transport::Udp => panic!("UDP has no such field"),
        }
    }

    /// This packet with `edit` done to it.
    pub(crate) fn with(&self, edit: impl FnOnce(&mut Self)) -> Self {
        let mut packet = self.clone();
        edit(&mut packet);
        packet
    }

    /// The packet that follows in the flow, with this many bytes of other payload.
    pub(crate) fn next(&self, payload: usize) -> Self {
        let mut packet = self.clone();
        packet.id = packet.id.wrapping_add(1);
        if let Transport::Tcp(tcp) = &mut packet.transport {
            let advance = u32::try_from(self.payload.len()).expect("a short payload");
            tcp.sequence = tcp.sequence.wrapping_add(advance);
        }
        packet.payload = pattern(payload + 1);
        packet.payload.remove(0);
        packet
    }

    /// The bytes, with both checksums right.
    pub(crate) fn build(&self) -> Vec<u8> {
        let mut packet = self.headers(self.payload.len());
        let transport_at = self.transport_at();
        packet.extend(&self.payload);
        let mut covered = self.pseudo_header(packet.len() - transport_at);
        covered.extend(&packet[transport_at..]);
        let mut checksum = checksum(&covered);
        if matches!(self.transport, Transport::Udp) && checksum == 0 {
            checksum = 0xffff;
        }
        put(&mut packet, transport_at + self.checksum_at(), checksum);
        packet
    }

    /// A super-packet of this payload, its checksum left to whoever cuts it.
    pub(crate) fn build_super(&self, gso_size: u16) -> (VnetHeader, Vec<u8>) {
        let mut packet = self.headers(self.payload.len());
        let header_len = packet.len();
        let transport_at = self.transport_at();
        packet.extend(&self.payload);
        let partial = !checksum(&self.pseudo_header(packet.len() - transport_at));
        put(&mut packet, transport_at + self.checksum_at(), partial);
        let header = VnetHeader {
            flags: VnetHeader::NEEDS_CSUM,
            gso_type: match (&self.transport, self.ipv6) {
                (Transport::Udp, _) => VnetHeader::GSO_UDP_L4,
                (Transport::Tcp(_), false) => VnetHeader::GSO_TCPV4,
                (Transport::Tcp(_), true) => VnetHeader::GSO_TCPV6,
            },
            hdr_len: u16::try_from(header_len).expect("short headers"),
            gso_size,
            csum_start: u16::try_from(transport_at).expect("short headers"),
            csum_offset: u16::try_from(self.checksum_at()).expect("16 or 6"),
        };
        (header, packet)
    }

    /// Where the TCP or UDP header starts.
    pub(crate) fn transport_at(&self) -> usize {
        self.extra + if self.ipv6 { 40 } else { 20 }
    }

    /// Where the payload starts.
    pub(crate) fn payload_at(&self) -> usize {
        let transport = match &self.transport {
            Transport::Tcp(tcp) => 20 + tcp.options.len(),
            Transport::Udp => 8,
        };
        self.transport_at() + transport
    }

    fn checksum_at(&self) -> usize {
        match self.transport {
            Transport::Tcp(_) => 16,
            Transport::Udp => 6,
        }
    }

    fn protocol(&self) -> u8 {
        match self.transport {
            Transport::Tcp(_) => 6,
            Transport::Udp => 17,
        }
    }

    fn addresses(&self) -> Vec<u8> {
        let (network_a, network_b): (&[u8], &[u8]) = if self.ipv6 {
            (
                &[0xfd, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
                &[0xfd, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
            )
        } else {
            (&[10, 1, 0], &[10, 2, 0])
        };
        [network_a, &[self.host], network_b, &[1]].concat()
    }

    fn pseudo_header(&self, length: usize) -> Vec<u8> {
        let length = u32::try_from(length).expect("a packet").to_be_bytes();
        [&self.addresses()[..], &length, &[0, 0, 0, self.protocol()]].concat()
    }

    fn headers(&self, payload: usize) -> Vec<u8> {
        let transport = self.transport_header(payload);
        let upper_layer = u16::try_from(transport.len() + payload + self.extra).expect("a packet");
        let mut packet = Vec::new();
        if self.ipv6 {
            let [label0, label1] = self.flow_label.to_be_bytes();
            packet.extend([0x60 | self.tos >> 4, self.tos << 4, label0, label1]);
            packet.extend(upper_layer.to_be_bytes());
            let next = if self.extra > 0 { 60 } else { self.protocol() };
            packet.extend([next, self.ttl]);
            packet.extend(self.addresses());
            if self.extra > 0 {
                let units = u8::try_from(self.extra / 8 - 1).expect("few options");
                let padding = u8::try_from(self.extra - 4).expect("few options");
                packet.extend([self.protocol(), units, 1, padding]); // PadN
                packet.resize(40 + self.extra, 0);
            }
        } else {
            let words = u8::try_from(5 + self.extra / 4).expect("few options");
            packet.extend([0x40 | words, self.tos]);
            packet.extend((20 + upper_layer).to_be_bytes());
            packet.extend(self.id.to_be_bytes());
            packet.extend([if self.dont_fragment { 0x40 } else { 0 }, 0]);
            packet.extend([self.ttl, self.protocol(), 0, 0]);
            packet.extend(self.addresses());
            packet.resize(20 + self.extra, 1); // NOP
            let checksum = checksum(&packet);
            put(&mut packet, 10, checksum);
        }
        packet.extend(transport);
        packet
    }

    fn transport_header(&self, payload: usize) -> Vec<u8> {
        let mut header = Vec::new();
        header.extend(self.source_port.to_be_bytes());
        header.extend(5201_u16.to_be_bytes());
        match &self.transport {
            Transport::Udp => {
                let length = u16::try_from(8 + payload).expect("a packet");
                header.extend(length.to_be_bytes());
                header.extend([0, 0]);
            }
            Transport::Tcp(tcp) => {
                header.extend(tcp.sequence.to_be_bytes());
                header.extend(tcp.acknowledgment.to_be_bytes());
                let words = u8::try_from(5 + tcp.options.len() / 4).expect("few options");
                header.extend([words << 4, tcp.flags]);
                header.extend(tcp.window.to_be_bytes());
                header.extend([0, 0]);
                header.extend(tcp.urgent.to_be_bytes());
                header.extend(&tcp.options);
            }
        }
        header
    }
}

/// Payload in which no piece looks like another.
pub(crate) fn pattern(len: usize) -> Vec<u8> {
    let words = (0_u32..).map(|at| at.wrapping_mul(0x9e37_79b1) ^ 0x5555);
    words.flat_map(u32::to_le_bytes).take(len).collect()
}

/// The Internet checksum, word by word (RFC 1071 §1).
pub(crate) fn checksum(bytes: &[u8]) -> u16 {
    let mut sum = 0_u32;
    for word in bytes.chunks(2) {
        let low = word.get(1).copied().unwrap_or(0);
        sum += u32::from(u16::from_be_bytes([word[0], low]));
        if sum > 0xffff {
            sum -= 0xffff;
        }
    }
    !u16::try_from(sum).expect("carried around")
}

/// Writes a field.
pub(crate) fn put(packet: &mut [u8], at: usize, field: u16) {
    packet[at..at + 2].copy_from_slice(&field.to_be_bytes());
}

/// Reads a field.
pub(crate) fn field(packet: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([packet[at], packet[at + 1]])
}

/// The pieces of one packet in one.
pub(crate) fn joined(pieces: &[std::io::IoSlice<'_>]) -> Vec<u8> {
    pieces.iter().flat_map(|piece| piece.to_vec()).collect()
}
