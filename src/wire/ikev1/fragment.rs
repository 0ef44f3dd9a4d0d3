//! Fragment payload: a piece of a whole IKE message, for peers that send the vendor id
//! "FRAGMENTATION" (as described in \[MS-IKEE\] §2.2.3).

use crate::wire::Malformed;

/// One piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fragment<'a> {
    /// The same in all pieces of one message.
    pub id: u16,
    /// From 1.
    pub number: u8,
    /// No piece has a higher number.
    pub last: bool,
    /// Bytes of the message, its header included.
    pub data: &'a [u8],
}

impl<'a> Fragment<'a> {
    /// Reads the payload.
    pub fn parse(body: &'a [u8]) -> Result<Self, Malformed> {
        let (&[id_hi, id_lo, number, flags], data) = body
            .split_first_chunk::<4>()
            .ok_or(Malformed::Truncated("fragment"))?;
        if number == 0 {
            return Err(Malformed::BadValue("fragment number"));
        }
        Ok(Self {
            id: u16::from_be_bytes([id_hi, id_lo]),
            number,
            last: flags & LAST != 0,
            data,
        })
    }

    /// Appends the payload.
    pub fn write(&self, out: &mut Vec<u8>) {
        let [id_hi, id_lo] = self.id.to_be_bytes();
        out.extend_from_slice(&[id_hi, id_lo, self.number, u8::from(self.last)]);
        out.extend_from_slice(self.data);
    }
}

const LAST: u8 = 1;
