//! AEAD packets (RFC 4106, RFC 7634, RFC 8750), and the fast provider of their ciphers.

use aws_lc_rs::aead;

use super::packet::{
    AEAD_ICV_LEN, AEAD_IV_LEN, Associated, AuthenticationFailed, SALT_LEN, SealError,
};
use crate::wire::proposal::EncryptionId;

/// AES-GCM with a 16-byte ICV or ChaCha20-Poly1305 under one expanded key: what a provider gives.
pub(super) trait AeadCipher: Sized {
    /// Expands a key, whose length tells the AES key size.
    fn new(algorithm: Algorithm, key: &[u8]) -> Option<Self>;

    /// Encrypts in place and writes the ICV.
    fn seal(&self, nonce: Nonce, aad: &[u8], text: &mut [u8], icv: &mut Icv) -> Option<()>;

    /// Encrypts `head`, then `tail`, to the front of `sealed`, and writes the ICV behind. The length
    /// of `sealed` is that of all three.
    fn seal_from(
        &self,
        nonce: Nonce,
        aad: &[u8],
        head: &[u8],
        tail: &[u8],
        sealed: &mut [u8],
    ) -> Option<()>;

    /// Decrypts in place. After a failure the bytes of `text` are unspecified.
    fn open(&self, nonce: Nonce, aad: &[u8], text: &mut [u8], icv: &Icv) -> Option<()>;
}

/// The ciphers behind the transforms of ESP and IKE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Algorithm {
    AesGcm,
    ChaCha20Poly1305,
}

pub(super) type Nonce = [u8; 12];
pub(super) type Icv = [u8; AEAD_ICV_LEN];

/// One direction of an SA: nonces, additional data and the place of the IV.
pub(super) struct AeadKey<C> {
    cipher: C,
    salt: [u8; SALT_LEN],
    iv: Iv,
}

/// Where the IV is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Iv {
    /// Before the text.
    Explicit,
    /// Nowhere: it is the sequence number (RFC 8750 §4).
    Implicit,
}

impl<C: AeadCipher> AeadKey<C> {
    /// Splits `key_and_salt` and expands the key.
    pub(super) fn new(encryption: EncryptionId, key_and_salt: &[u8]) -> Option<Self> {
        let (algorithm, iv) = match encryption {
            EncryptionId::AES_GCM_16 => (Algorithm::AesGcm, Iv::Explicit),
            EncryptionId::AES_GCM_16_IIV => (Algorithm::AesGcm, Iv::Implicit),
            EncryptionId::CHACHA20_POLY1305 => (Algorithm::ChaCha20Poly1305, Iv::Explicit),
            EncryptionId::CHACHA20_POLY1305_IIV => (Algorithm::ChaCha20Poly1305, Iv::Implicit),
            _ => return None,
        };
        let (key, &salt) = key_and_salt.split_last_chunk()?;
        let cipher = C::new(algorithm, key)?;
        Some(Self { cipher, salt, iv })
    }

    pub(super) fn iv_len(&self) -> usize {
        match self.iv {
            Iv::Explicit => AEAD_IV_LEN,
            Iv::Implicit => 0,
        }
    }

    #[inline]
    pub(super) fn seal(
        &self,
        nonce: u64,
        associated: Associated<'_>,
        buffer: &mut [u8],
    ) -> Result<(), SealError> {
        let sealed = self.put_iv(nonce, associated, buffer)?;
        let (text, icv) = sealed.split_last_chunk_mut().ok_or(SealError::Length)?;
        let mut extended = [0; EXTENDED_LEN];
        let aad = associated.aad(&mut extended).ok_or(SealError::Length)?;
        self.cipher
            .seal(salted(self.salt, nonce), aad, text, icv)
            .ok_or(SealError::Length)
    }

    #[inline]
    pub(super) fn seal_from(
        &self,
        nonce: u64,
        associated: Associated<'_>,
        head: &[u8],
        tail: &[u8],
        buffer: &mut [u8],
    ) -> Result<(), SealError> {
        let sealed = self.put_iv(nonce, associated, buffer)?;
        let mut extended = [0; EXTENDED_LEN];
        let aad = associated.aad(&mut extended).ok_or(SealError::Length)?;
        self.cipher
            .seal_from(salted(self.salt, nonce), aad, head, tail, sealed)
            .ok_or(SealError::Length)
    }

    /// Writes the IV, if there is one; returns what is behind it.
    #[inline]
    fn put_iv<'a>(
        &self,
        nonce: u64,
        associated: Associated<'_>,
        buffer: &'a mut [u8],
    ) -> Result<&'a mut [u8], SealError> {
        match self.iv {
            Iv::Explicit => {
                let (iv, sealed) = buffer.split_first_chunk_mut().ok_or(SealError::Length)?;
                *iv = nonce.to_be_bytes();
                Ok(sealed)
            }
            Iv::Implicit if associated.implicit_iv() == Some(nonce) => Ok(buffer),
            Iv::Implicit => Err(SealError::Nonce),
        }
    }

    #[inline]
    pub(super) fn open<'a>(
        &self,
        associated: Associated<'_>,
        buffer: &'a mut [u8],
    ) -> Result<&'a mut [u8], AuthenticationFailed> {
        let (nonce, sealed) = match self.iv {
            Iv::Explicit => {
                let (iv, sealed) = buffer.split_first_chunk_mut().ok_or(AuthenticationFailed)?;
                (u64::from_be_bytes(*iv), sealed)
            }
            Iv::Implicit => {
                let nonce = associated.implicit_iv().ok_or(AuthenticationFailed)?;
                (nonce, buffer)
            }
        };
        let (text, icv) = sealed.split_last_chunk_mut().ok_or(AuthenticationFailed)?;
        let mut extended = [0; EXTENDED_LEN];
        let aad = associated.aad(&mut extended).ok_or(AuthenticationFailed)?;
        self.cipher
            .open(salted(self.salt, nonce), aad, text, icv)
            .ok_or(AuthenticationFailed)?;
        Ok(text)
    }
}

impl<C> Drop for AeadKey<C> {
    fn drop(&mut self) {
        zeroize::Zeroize::zeroize(&mut self.salt);
    }
}

impl<'a> Associated<'a> {
    /// The sequence number as an IV; `None` unless the header is ESP's.
    #[inline]
    fn implicit_iv(&self) -> Option<u64> {
        let &[_, low] = self.header.as_chunks().0 else {
            return None;
        };
        let high = u64::from(self.esn_high.unwrap_or(0));
        Some(high << 32 | u64::from(u32::from_be_bytes(low)))
    }

    /// The additional authenticated data: the header, or with an extended sequence number SPI, upper
    /// half and lower half (RFC 4106 §5, RFC 7634 §2.1). `None` if an extended sequence number comes
    /// with anything but an ESP header.
    #[inline]
    fn aad(&self, extended: &'a mut [u8; EXTENDED_LEN]) -> Option<&'a [u8]> {
        let Some(high) = self.esn_high else {
            return Some(self.header);
        };
        let (&[spi, low], []) = self.header.as_chunks() else {
            return None;
        };
        let (words, _) = extended.as_chunks_mut();
        words.copy_from_slice(&[spi, high.to_be_bytes(), low]);
        Some(extended)
    }
}

/// The nonce of both AEADs: salt, then IV.
#[inline]
fn salted(salt: [u8; SALT_LEN], iv: u64) -> Nonce {
    let mut nonce = [0; 12];
    if let Some((head, tail)) = nonce.split_first_chunk_mut() {
        *head = salt;
        tail.copy_from_slice(&iv.to_be_bytes());
    }
    nonce
}

/// SPI and a sequence number of 64 bits.
const EXTENDED_LEN: usize = 12;

/// `aws-lc-rs`.
pub(super) struct FastCipher(aead::LessSafeKey);

impl AeadCipher for FastCipher {
    fn new(algorithm: Algorithm, key: &[u8]) -> Option<Self> {
        let algorithm = match (algorithm, key.len()) {
            (Algorithm::AesGcm, 16) => &aead::AES_128_GCM,
            (Algorithm::AesGcm, 24) => &aead::AES_192_GCM,
            (Algorithm::AesGcm, 32) => &aead::AES_256_GCM,
            (Algorithm::ChaCha20Poly1305, 32) => &aead::CHACHA20_POLY1305,
            _ => return None,
        };
        let key = aead::UnboundKey::new(algorithm, key).ok()?;
        Some(Self(aead::LessSafeKey::new(key)))
    }

    #[inline]
    fn seal(&self, nonce: Nonce, aad: &[u8], text: &mut [u8], icv: &mut Icv) -> Option<()> {
        let nonce = aead::Nonce::assume_unique_for_key(nonce);
        self.0
            .seal_in_place_scatter(nonce, aead::Aad::from(aad), text, &[], icv)
            .ok()
    }

    #[inline]
    fn seal_from(
        &self,
        nonce: Nonce,
        aad: &[u8],
        head: &[u8],
        tail: &[u8],
        sealed: &mut [u8],
    ) -> Option<()> {
        let (text, tail_and_icv) = sealed.split_at_mut_checked(head.len())?;
        let nonce = aead::Nonce::assume_unique_for_key(nonce);
        self.0
            .seal_out_of_place_scatter(nonce, aead::Aad::from(aad), head, text, tail, tail_and_icv)
            .ok()
    }

    #[inline]
    fn open(&self, nonce: Nonce, aad: &[u8], text: &mut [u8], icv: &Icv) -> Option<()> {
        let nonce = aead::Nonce::assume_unique_for_key(nonce);
        self.0
            .open_in_place_separate_tag(nonce, aead::Aad::from(aad), icv, text)
            .ok()
            .map(|_| ())
    }
}
