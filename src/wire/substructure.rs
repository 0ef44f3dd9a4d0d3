//! Proposals and transforms inside an SA payload, of either version (RFC 2408 §3.5, RFC 7296 §3.3).

use super::Malformed;

/// One proposal or transform behind its generic header.
pub(super) struct Substructure<'a> {
    /// No other one follows.
    pub(super) last: bool,
    pub(super) body: &'a [u8],
    pub(super) rest: &'a [u8],
}

impl<'a> Substructure<'a> {
    /// Takes one off `bytes`; `more` is the mark of one that another follows.
    pub(super) fn split(bytes: &'a [u8], more: u8, what: &'static str) -> Result<Self, Malformed> {
        let (&[marker, _, len_hi, len_lo], _) = bytes
            .split_first_chunk::<4>()
            .ok_or(Malformed::Truncated(what))?;
        let length = usize::from(u16::from_be_bytes([len_hi, len_lo]));
        let (piece, rest) = bytes
            .split_at_checked(length)
            .ok_or(Malformed::Truncated(what))?;
        let body = piece.get(4..).ok_or(Malformed::BadLength(what))?;
        let last = match marker {
            LAST => true,
            marker if marker == more => false,
            _ => return Err(Malformed::BadValue(what)),
        };
        Ok(Self { last, body, rest })
    }
}

pub(super) const LAST: u8 = 0;
pub(super) const MORE_PROPOSALS: u8 = 2;
pub(super) const MORE_TRANSFORMS: u8 = 3;
