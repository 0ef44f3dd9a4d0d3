//! Key Exchange and Nonce payloads (RFC 7296 §3.4, §3.9).

use crate::wire::Malformed;
use crate::wire::proposal::KeyExchangeId;

/// One side's public value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KePayload<'a> {
    /// The method that `data` belongs to.
    pub group: KeyExchangeId,
    /// The public value, of whatever length the sender gave it.
    pub data: &'a [u8],
}

impl<'a> KePayload<'a> {
    /// Reads the payload.
    pub fn parse(body: &'a [u8]) -> Result<Self, Malformed> {
        let (&[g0, g1, _, _], data) = body
            .split_first_chunk::<4>()
            .ok_or(Malformed::Truncated("KE payload"))?;
        Ok(Self {
            group: KeyExchangeId(u16::from_be_bytes([g0, g1])),
            data,
        })
    }

    /// Appends the payload.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.group.0.to_be_bytes());
        out.extend_from_slice(&[0, 0]);
        out.extend_from_slice(self.data);
    }
}

/// One side's nonce: 16 to 256 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Nonce<'a>(&'a [u8]);

impl<'a> Nonce<'a> {
    /// Reads the payload.
    pub fn parse(body: &'a [u8]) -> Result<Self, Malformed> {
        match body.len() {
            16..=256 => Ok(Self(body)),
            _ => Err(Malformed::BadLength("nonce")),
        }
    }

    /// The nonce.
    pub fn bytes(&self) -> &'a [u8] {
        self.0
    }
}
