//! Header of the Encrypted Fragment payload (RFC 7383 §2.5).

use crate::wire::Malformed;

/// Which piece of a fragmented message this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FragmentHeader {
    /// Starts at 1.
    pub number: u16,
    /// How many pieces there are.
    pub total: u16,
}

impl FragmentHeader {
    /// Reads the header of an SKF body and returns the IV, ciphertext and ICV behind it. Numbers run
    /// from 1 to `total`.
    pub fn parse(body: &[u8]) -> Result<(Self, &[u8]), Malformed> {
        let (&[n0, n1, t0, t1], rest) = body
            .split_first_chunk::<4>()
            .ok_or(Malformed::Truncated("fragment header"))?;
        let header = Self {
            number: u16::from_be_bytes([n0, n1]),
            total: u16::from_be_bytes([t0, t1]),
        };
        if header.number == 0 || header.number > header.total {
            return Err(Malformed::BadValue("fragment number"));
        }
        Ok((header, rest))
    }

    /// The header as bytes.
    pub fn encode(&self) -> [u8; 4] {
        let [n0, n1] = self.number.to_be_bytes();
        let [t0, t1] = self.total.to_be_bytes();
        [n0, n1, t0, t1]
    }
}
