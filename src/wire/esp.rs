//! ESP header and its UDP encapsulation (RFC 4303 §2, RFC 3948 §2).

use super::Malformed;

/// What precedes an IKE message on port 4500 (RFC 3948 §2.2).
pub const NON_ESP_MARKER: [u8; 4] = [0; 4];

/// What a datagram on port 4500 holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Demux {
    /// An ESP packet.
    Esp,
    /// An IKE message behind the non-ESP marker.
    Ike,
    /// A NAT keepalive.
    Keepalive,
}

/// Tells ESP, IKE and keepalives apart (RFC 3948 §2).
pub fn demux_udp_encap(datagram: &[u8]) -> Result<Demux, Malformed> {
    match datagram {
        [0xff] => Ok(Demux::Keepalive),
        [0, 0, 0, 0, ..] => Ok(Demux::Ike),
        [_, _, _, _, ..] => Ok(Demux::Esp),
        _ => Err(Malformed::Truncated("UDP-encapsulated datagram")),
    }
}

/// The two words in front of every ESP packet (RFC 4303 §2.1, §2.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EspHeader {
    /// Names the receiver's SA.
    pub spi: u32,
    /// Low 32 bits of the sequence number.
    pub sequence: u32,
}

impl EspHeader {
    /// Bytes on the wire.
    pub const LEN: usize = 8;

    /// Reads the header of an ESP packet.
    pub fn parse(packet: &[u8]) -> Result<Self, Malformed> {
        let (&[s0, s1, s2, s3, n0, n1, n2, n3], _) = packet
            .split_first_chunk::<{ Self::LEN }>()
            .ok_or(Malformed::Truncated("ESP header"))?;
        Ok(Self {
            spi: u32::from_be_bytes([s0, s1, s2, s3]),
            sequence: u32::from_be_bytes([n0, n1, n2, n3]),
        })
    }

    /// The header as bytes.
    pub fn encode(&self) -> [u8; Self::LEN] {
        (u64::from(self.spi) << 32 | u64::from(self.sequence)).to_be_bytes()
    }
}
