//! AEAD suites on the fast provider, and the packet layout that both providers share.

use aws_lc_rs::aead;

use super::packet::{
    AEAD_ICV_LEN, AEAD_IV_LEN, Associated, AuthenticationFailed, SALT_LEN, SealError,
};
use crate::wire::proposal::EncryptionId;

/// AES-GCM with a 16-byte ICV (RFC 4106) or ChaCha20-Poly1305 (RFC 7634).
pub(super) struct Aead {
    key: aead::LessSafeKey,
    salt: [u8; SALT_LEN],
}

impl Aead {
    /// Splits `key_and_salt` and expands the key; its length tells the AES key size.
    pub(super) fn new(encryption: EncryptionId, key_and_salt: &[u8]) -> Option<Self> {
        let (key, &salt) = key_and_salt.split_last_chunk()?;
        let algorithm = match (encryption, key.len()) {
            (EncryptionId::AES_GCM_16, 16) => &aead::AES_128_GCM,
            (EncryptionId::AES_GCM_16, 24) => &aead::AES_192_GCM,
            (EncryptionId::AES_GCM_16, 32) => &aead::AES_256_GCM,
            (EncryptionId::CHACHA20_POLY1305, 32) => &aead::CHACHA20_POLY1305,
            _ => return None,
        };
        let key = aead::UnboundKey::new(algorithm, key).ok()?;
        Some(Self {
            key: aead::LessSafeKey::new(key),
            salt,
        })
    }

    pub(super) fn seal(
        &self,
        nonce: u64,
        associated: Associated<'_>,
        buffer: &mut [u8],
    ) -> Result<(), SealError> {
        let aad = Aad::new(associated).ok_or(SealError::Length)?;
        let (iv, text, icv) = split(buffer).ok_or(SealError::Length)?;
        *iv = nonce.to_be_bytes();
        let nonce = aead::Nonce::assume_unique_for_key(salted(self.salt, *iv));
        let tag = self
            .key
            .seal_in_place_separate_tag(nonce, aead::Aad::from(aad), text)
            .map_err(|_| SealError::Length)?;
        icv.copy_from_slice(tag.as_ref());
        Ok(())
    }

    pub(super) fn open<'a>(
        &self,
        associated: Associated<'_>,
        buffer: &'a mut [u8],
    ) -> Result<&'a mut [u8], AuthenticationFailed> {
        let aad = Aad::new(associated).ok_or(AuthenticationFailed)?;
        let (iv, text, icv) = split(buffer).ok_or(AuthenticationFailed)?;
        let nonce = aead::Nonce::assume_unique_for_key(salted(self.salt, *iv));
        self.key
            .open_in_place_separate_tag(nonce, aead::Aad::from(aad), &*icv, text)
            .map_err(|_| AuthenticationFailed)
    }
}

/// The additional authenticated data: the header, or with an extended sequence number SPI, upper
/// half and lower half (RFC 4106 §5, RFC 7634 §2.1).
pub(super) enum Aad<'a> {
    Header(&'a [u8]),
    Extended([u8; 12]),
}

impl<'a> Aad<'a> {
    /// `None` if an extended sequence number comes with anything but an ESP header.
    pub(super) fn new(associated: Associated<'a>) -> Option<Self> {
        let Some(high) = associated.esn_high else {
            return Some(Self::Header(associated.header));
        };
        let [s0, s1, s2, s3, l0, l1, l2, l3] = <[u8; 8]>::try_from(associated.header).ok()?;
        let [h0, h1, h2, h3] = high.to_be_bytes();
        Some(Self::Extended([
            s0, s1, s2, s3, h0, h1, h2, h3, l0, l1, l2, l3,
        ]))
    }
}

impl AsRef<[u8]> for Aad<'_> {
    fn as_ref(&self) -> &[u8] {
        match self {
            Self::Header(header) => header,
            Self::Extended(bytes) => bytes,
        }
    }
}

/// Cuts a buffer into IV, text and ICV.
pub(super) fn split(
    buffer: &mut [u8],
) -> Option<(&mut [u8; AEAD_IV_LEN], &mut [u8], &mut [u8; AEAD_ICV_LEN])> {
    let (iv, rest) = buffer.split_first_chunk_mut()?;
    let (text, icv) = rest.split_last_chunk_mut()?;
    Some((iv, text, icv))
}

/// The nonce of both AEADs: salt, then IV.
pub(super) fn salted(salt: [u8; SALT_LEN], iv: [u8; AEAD_IV_LEN]) -> [u8; 12] {
    let [s0, s1, s2, s3] = salt;
    let [i0, i1, i2, i3, i4, i5, i6, i7] = iv;
    [s0, s1, s2, s3, i0, i1, i2, i3, i4, i5, i6, i7]
}

impl Drop for Aead {
    fn drop(&mut self) {
        zeroize::Zeroize::zeroize(&mut self.salt);
    }
}
