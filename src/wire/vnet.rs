//! `virtio_net_hdr`, which precedes every packet of a TUN with IFF_VNET_HDR (virtio 1.2 §5.1.6).

/// How the kernel describes a packet's checksum and segmentation. The kernel reads
/// and writes it in the byte order of the machine, unless told otherwise by TUNSETVNETLE.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VnetHeader {
    /// [`VnetHeader::NEEDS_CSUM`], [`VnetHeader::DATA_VALID`].
    pub flags: u8,
    /// Kind of super-packet.
    pub gso_type: u8,
    /// Bytes of headers in front of the segments.
    pub hdr_len: u16,
    /// Bytes of payload in one segment.
    pub gso_size: u16,
    /// Where checksumming starts.
    pub csum_start: u16,
    /// Where, from there, the checksum is stored.
    pub csum_offset: u16,
}

impl VnetHeader {
    /// Bytes on the wire.
    pub const LEN: usize = 10;
    /// The checksum is not computed yet.
    pub const NEEDS_CSUM: u8 = 1;
    /// The checksum was verified.
    pub const DATA_VALID: u8 = 2;
    /// One plain packet.
    pub const GSO_NONE: u8 = 0;
    /// TCP over IPv4.
    pub const GSO_TCPV4: u8 = 1;
    /// UDP fragments.
    pub const GSO_UDP: u8 = 3;
    /// TCP over IPv6.
    pub const GSO_TCPV6: u8 = 4;
    /// UDP segments.
    pub const GSO_UDP_L4: u8 = 5;
    /// Added to a TCP kind: CWR is in the first segment only.
    pub const GSO_ECN: u8 = 0x80;

    /// Reads the header; `None` when the buffer is shorter.
    pub fn parse(buffer: &[u8]) -> Option<(Self, &[u8])> {
        let (&[flags, gso_type, h0, h1, g0, g1, s0, s1, o0, o1], rest) =
            buffer.split_first_chunk::<{ Self::LEN }>()?;
        let header = Self {
            flags,
            gso_type,
            hdr_len: u16::from_ne_bytes([h0, h1]),
            gso_size: u16::from_ne_bytes([g0, g1]),
            csum_start: u16::from_ne_bytes([s0, s1]),
            csum_offset: u16::from_ne_bytes([o0, o1]),
        };
        Some((header, rest))
    }

    /// The header as bytes.
    pub fn encode(&self) -> [u8; Self::LEN] {
        let [h0, h1] = self.hdr_len.to_ne_bytes();
        let [g0, g1] = self.gso_size.to_ne_bytes();
        let [s0, s1] = self.csum_start.to_ne_bytes();
        let [o0, o1] = self.csum_offset.to_ne_bytes();
        [self.flags, self.gso_type, h0, h1, g0, g1, s0, s1, o0, o1]
    }
}
