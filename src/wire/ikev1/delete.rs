//! Delete payload (RFC 2408 §3.15).

use super::sa::{IPSEC_DOI, Protocol};
use crate::wire::Malformed;
use crate::wire::isakmp::IkeSpi;

/// SAs that the sender has deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Delete<'a> {
    /// Which kind of SA.
    pub protocol: Protocol,
    spis: &'a [u8],
}

impl<'a> Delete<'a> {
    /// Reads the payload. ISAKMP SAs are named by both cookies, others by 4-byte SPIs; the count must
    /// match the bytes.
    pub fn parse(body: &'a [u8]) -> Result<Self, Malformed> {
        let (&[d0, d1, d2, d3, protocol, spi_len, count_hi, count_lo], spis) = body
            .split_first_chunk::<8>()
            .ok_or(Malformed::Truncated("delete payload"))?;
        let protocol = Protocol(protocol);
        let count = usize::from(u16::from_be_bytes([count_hi, count_lo]));
        let expected = match protocol {
            Protocol::ISAKMP => COOKIES,
            Protocol::AH | Protocol::ESP => 4,
            _ => return Err(Malformed::BadValue("delete protocol")),
        };
        if u32::from_be_bytes([d0, d1, d2, d3]) > IPSEC_DOI {
            return Err(Malformed::BadValue("DOI"));
        }
        if spi_len != expected || spis.len() != count * usize::from(expected) {
            return Err(Malformed::BadLength("delete payload"));
        }
        Ok(Self { protocol, spis })
    }

    /// The sender's inbound SPIs of AH or ESP SAs.
    pub fn spis(&self) -> impl Iterator<Item = u32> + use<'a> {
        let spis = match self.protocol {
            Protocol::ISAKMP => &[],
            _ => self.spis,
        };
        let (spis, _) = spis.as_chunks::<4>();
        spis.iter().map(|spi| u32::from_be_bytes(*spi))
    }

    /// The cookies of ISAKMP SAs, the initiator's first.
    pub fn cookies(&self) -> impl Iterator<Item = (IkeSpi, IkeSpi)> + use<'a> {
        let cookies = match self.protocol {
            Protocol::ISAKMP => self.spis,
            _ => &[],
        };
        let (halves, _) = cookies.as_chunks::<8>();
        let (pairs, _) = halves.as_chunks::<2>();
        pairs
            .iter()
            .map(|[initiator, responder]| (IkeSpi(*initiator), IkeSpi(*responder)))
    }

    /// Appends a payload that deletes an ISAKMP SA.
    pub fn write_isakmp((initiator, responder): (IkeSpi, IkeSpi), out: &mut Vec<u8>) {
        out.extend_from_slice(&IPSEC_DOI.to_be_bytes());
        out.extend_from_slice(&[Protocol::ISAKMP.0, COOKIES, 0, 1]);
        out.extend_from_slice(&initiator.0);
        out.extend_from_slice(&responder.0);
    }

    /// Appends a payload that deletes ESP SAs by our inbound SPIs; the format counts to 65 535.
    pub fn write_esp(spis: &[u32], out: &mut Vec<u8>) {
        let spis = spis.get(..usize::from(u16::MAX)).unwrap_or(spis);
        let [count_hi, count_lo] = u16::try_from(spis.len()).unwrap_or(u16::MAX).to_be_bytes();
        out.extend_from_slice(&IPSEC_DOI.to_be_bytes());
        out.extend_from_slice(&[Protocol::ESP.0, 4, count_hi, count_lo]);
        out.extend(spis.iter().flat_map(|spi| spi.to_be_bytes()));
    }
}

/// Bytes of both cookies.
const COOKIES: u8 = 16;
