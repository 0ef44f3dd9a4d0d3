//! Delete payload (RFC 7296 §3.11).

use crate::wire::Malformed;
use crate::wire::proposal::ProtocolId;

/// SAs that the sender has deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Delete<'a> {
    /// Which kind of SA.
    pub protocol: ProtocolId,
    spis: &'a [u8],
}

impl<'a> Delete<'a> {
    /// Reads the payload. An IKE SA is deleted without SPIs, AH and ESP SAs by 4-byte SPIs whose
    /// count must match the bytes.
    pub fn parse(body: &'a [u8]) -> Result<Self, Malformed> {
        let (&[protocol, spi_len, count_hi, count_lo], spis) = body
            .split_first_chunk::<4>()
            .ok_or(Malformed::Truncated("delete payload"))?;
        let protocol =
            ProtocolId::from_u8(protocol).ok_or(Malformed::BadValue("delete protocol"))?;
        let count = usize::from(u16::from_be_bytes([count_hi, count_lo]));
        let right = match protocol {
            ProtocolId::Ike => spi_len == 0 && count == 0 && spis.is_empty(),
            ProtocolId::Ah | ProtocolId::Esp => spi_len == 4 && spis.len() == 4 * count,
        };
        if right {
            Ok(Self { protocol, spis })
        } else {
            Err(Malformed::BadLength("delete payload"))
        }
    }

    /// The sender's inbound SPIs.
    pub fn spis(&self) -> impl Iterator<Item = u32> + use<'a> {
        let (spis, _) = self.spis.as_chunks::<4>();
        spis.iter().map(|spi| u32::from_be_bytes(*spi))
    }

    /// Appends a payload that deletes the IKE SA.
    pub fn encode_ike(out: &mut Vec<u8>) {
        out.extend_from_slice(&[ProtocolId::Ike as u8, 0, 0, 0]);
    }

    /// Appends a payload that deletes ESP SAs by our inbound SPIs; the format counts to 65 535.
    pub fn encode_esp(spis: &[u32], out: &mut Vec<u8>) {
        let spis = spis.get(..usize::from(u16::MAX)).unwrap_or(spis);
        let [count_hi, count_lo] = u16::try_from(spis.len()).unwrap_or(u16::MAX).to_be_bytes();
        out.extend_from_slice(&[ProtocolId::Esp as u8, 4, count_hi, count_lo]);
        out.extend(spis.iter().flat_map(|spi| spi.to_be_bytes()));
    }
}
