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

    fn overhead(&self) -> usize {
        HEADER_LEN + usize::from(self.iv_len) + usize::from(self.icv_len)
    }

    fn mask(&self) -> usize {
        usize::from(self.mask)
    }

    /// Writes header, payload and trailer of a packet, and leaves IV and ICV to the cipher.
    ///
    /// `packet` must be exactly as long as the packet becomes.
    #[inline]
    pub(super) fn write(
        &self,
        header: [u8; HEADER_LEN],
        next_header: u8,
        payload: &[&[u8]],
        packet: &mut [u8],
    ) -> Option<()> {
        let (head, body) = packet.split_first_chunk_mut::<HEADER_LEN>()?;
        *head = header;
        let text_end = body.len().checked_sub(usize::from(self.icv_len))?;
        let mut rest = body.get_mut(usize::from(self.iv_len)..text_end)?;
        for part in payload {
            let (here, behind) = rest.split_at_mut_checked(part.len())?;
            here.copy_from_slice(part);
            rest = behind;
        }
        let (padding, trailer) = rest.split_last_chunk_mut::<TRAILER_LEN>()?;
        match &mut *padding {
            // What a stream cipher needs, without a call.
            [] => {}
            [first] => *first = 1,
            [first, second] => [*first, *second] = [1, 2],
            [first, second, third] => [*first, *second, *third] = [1, 2, 3],
            longer => longer.copy_from_slice(PADDING.get(..longer.len())?),
        }
        *trailer = [u8::try_from(padding.len()).ok()?, next_header];
        Some(())
    }
}

/// Takes the trailer off an authentic text: what remains, and the next header (RFC 4303 §2.4 to §2.6).
#[inline]
pub(super) fn strip_trailer(text: &mut [u8]) -> Result<(&mut [u8], u8), DropReason> {
    let (rest, &mut [pad_len, next_header]) = text
        .split_last_chunk_mut::<TRAILER_LEN>()
        .ok_or(DropReason::BadPadding)?;
    let payload_len = rest
        .len()
        .checked_sub(usize::from(pad_len))
        .ok_or(DropReason::BadPadding)?;
    let (payload, padding) = rest
        .split_at_mut_checked(payload_len)
        .ok_or(DropReason::BadPadding)?;
    let fits = match &*padding {
        [] | [1] | [1, 2] | [1, 2, 3] => true,
        short if short.len() < MIN_ALIGN => false,
        longer => PADDING.get(..longer.len()) == Some(longer),
    };
    if fits {
        Ok((payload, next_header))
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
