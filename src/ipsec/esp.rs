//! The shape of an ESP packet (RFC 4303 §2).

use super::DropReason;
use crate::crypto::packet::PacketKey;
use crate::wire::esp::EspHeader;

/// The lengths that an SA's cipher fixes.
///
/// ```text
/// | SPI, sequence | IV     | payload | TFC | padding | pad length, next header | ICV      |
/// | 8             | iv_len | ≥ 0     | ≥ 0 | 0..=255 | 2                       | icv_len  |
///                          └──────── a multiple of `align` ──────────────────┘
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Framing {
    iv_len: u8,
    icv_len: u8,
    /// One less than `align`, which is a power of two.
    mask: u8,
}

impl Framing {
    /// The framing under a key.
    #[must_use]
    pub fn new(key: &PacketKey) -> Self {
        let byte = |length: usize| u8::try_from(length).expect("no cipher has longer ones");
        let align = key.block_len().max(MIN_ALIGN).next_power_of_two();
        Self {
            iv_len: byte(key.iv_len()),
            icv_len: byte(key.icv_len()),
            mask: byte(align - 1),
        }
    }

    /// The length of the ESP packet, SPI to ICV, that carries `payload` bytes without TFC padding.
    #[must_use]
    #[inline]
    pub fn sealed_len(&self, payload: usize) -> usize {
        let text = payload
            .saturating_add(TRAILER_LEN)
            .saturating_add(self.mask());
        (text & !self.mask()).saturating_add(self.overhead())
    }

    /// The longest payload that fits an ESP packet of `sealed` bytes.
    #[must_use]
    pub fn payload_room(&self, sealed: usize) -> usize {
        let text = sealed.saturating_sub(self.overhead());
        (text & !self.mask()).saturating_sub(TRAILER_LEN)
    }

    /// Whether a packet of this length can exist under this key.
    ///
    /// # Errors
    /// [`DropReason::EspMalformed`]
    #[inline]
    pub fn check_len(&self, packet: usize) -> Result<(), DropReason> {
        match packet.checked_sub(self.overhead()) {
            Some(text) if text >= TRAILER_LEN && text & self.mask() == 0 => Ok(()),
            _ => Err(DropReason::EspMalformed),
        }
    }

    /// Where the text of a packet starts.
    pub(super) fn text_offset(&self) -> usize {
        HEADER_LEN + usize::from(self.iv_len)
    }

    fn overhead(&self) -> usize {
        HEADER_LEN + usize::from(self.iv_len) + usize::from(self.icv_len)
    }

    fn mask(&self) -> usize {
        usize::from(self.mask)
    }

    /// What follows a payload in the text of a packet: padding, its length, next header (RFC 4303
    /// §2.4 to §2.6), written to the front of `space`.
    #[inline]
    pub(super) fn trailer<'a>(
        &self,
        payload: usize,
        next_header: u8,
        space: &'a mut [u8; TRAILER_SPACE],
    ) -> Option<&'a [u8]> {
        let pad_len = payload.wrapping_add(TRAILER_LEN).wrapping_neg() & self.mask();
        *space = FULL_PADDING;
        let (trailer, _) = space.split_at_mut_checked(pad_len + TRAILER_LEN)?;
        *trailer.last_chunk_mut()? = [u8::try_from(pad_len).ok()?, next_header];
        Some(trailer)
    }
}

/// How long the payload of an authentic text is, and its next header (RFC 4303 §2.4 to §2.6).
#[inline]
pub(super) fn read_trailer(text: &[u8]) -> Result<(usize, u8), DropReason> {
    let (rest, &[pad_len, next_header]) = text
        .split_last_chunk::<TRAILER_LEN>()
        .ok_or(DropReason::BadPadding)?;
    let payload_len = rest
        .len()
        .checked_sub(usize::from(pad_len))
        .ok_or(DropReason::BadPadding)?;
    let padding = rest.get(payload_len..).ok_or(DropReason::BadPadding)?;
    let fits = match padding {
        // What a stream cipher needs, without a call.
        [] | [1] | [1, 2] | [1, 2, 3] => true,
        short if short.len() < MIN_ALIGN => false,
        longer => PADDING.get(..longer.len()) == Some(longer),
    };
    if fits {
        Ok((payload_len, next_header))
    } else {
        Err(DropReason::BadPadding)
    }
}

/// SPI and sequence number.
pub const HEADER_LEN: usize = EspHeader::LEN;
/// Next header of a tunnelled IPv4 packet.
pub const NEXT_HEADER_IPV4: u8 = 4;
/// Next header of a tunnelled IPv6 packet.
pub const NEXT_HEADER_IPV6: u8 = 41;
/// Next header of a dummy packet (RFC 4303 §2.6).
pub const NEXT_HEADER_DUMMY: u8 = 59;
/// No cipher needs more than 15 bytes of padding.
pub(super) const TRAILER_SPACE: usize = 15 + TRAILER_LEN;
const FULL_PADDING: [u8; TRAILER_SPACE] = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 0, 0];
/// Pad length and next header.
const TRAILER_LEN: usize = 2;
/// RFC 4303 §2.4: the ICV starts on a four-byte boundary.
const MIN_ALIGN: usize = 4;
/// RFC 4303 §2.4: 1, 2, 3, …
const PADDING: [u8; 255] = {
    let mut padding = [1; 255];
    let mut rest: &mut [u8] = &mut padding;
    let mut value = 1;
    while let Some((first, behind)) = rest.split_first_mut() {
        *first = value;
        value = value.saturating_add(1);
        rest = behind;
    }
    padding
};
