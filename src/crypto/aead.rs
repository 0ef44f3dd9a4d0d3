//! AEAD packets (RFC 4106, RFC 4309, RFC 7634, RFC 8750), and the fast provider of their ciphers.

use aws_lc_rs::aead;

use super::packet::{AEAD_IV_LEN, Associated, AuthenticationFailed, SealError, salt_len};
use crate::wire::proposal::EncryptionId;

/// An AEAD under one expanded key: what a provider gives.
pub(super) trait AeadCipher: Sized {
    /// Expands a key, whose length tells the AES key size; `None` where the provider does not have
    /// the algorithm.
    fn new(algorithm: Algorithm, key: &[u8]) -> Option<Self>;

    /// Bytes of an ICV.
    fn icv_len(&self) -> usize;

    /// Encrypts in place and writes the ICV.
    fn seal(&self, nonce: Nonce, aad: &[u8], text: &mut [u8], icv: &mut [u8]) -> Option<()>;

    /// Decrypts in place. After a failure the bytes of `text` are unspecified.
    fn open(&self, nonce: Nonce, aad: &[u8], text: &mut [u8], icv: &[u8]) -> Option<()>;
}

/// The ciphers behind the transforms of ESP and IKE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Algorithm {
    AesGcm(IcvLen),
    AesCcm(IcvLen),
    ChaCha20Poly1305,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum IcvLen {
    Eight,
    Twelve,
    Sixteen,
}

/// Salt, then IV. CCM, whose salt has three bytes, leaves out the first.
pub(super) type Nonce = [u8; 12];

/// One direction of an SA: nonces, additional data and the place of the IV.
pub(super) struct AeadKey<C> {
    cipher: C,
    salt: Salt,
    iv: Iv,
}

impl Algorithm {
    fn of(encryption: EncryptionId) -> Option<(Self, Iv)> {
        Some(match encryption {
            EncryptionId::AES_GCM_8 => (Self::AesGcm(IcvLen::Eight), Iv::Explicit),
            EncryptionId::AES_GCM_12 => (Self::AesGcm(IcvLen::Twelve), Iv::Explicit),
            EncryptionId::AES_GCM_16 => (Self::AesGcm(IcvLen::Sixteen), Iv::Explicit),
            EncryptionId::AES_GCM_16_IIV => (Self::AesGcm(IcvLen::Sixteen), Iv::Implicit),
            EncryptionId::AES_CCM_8 => (Self::AesCcm(IcvLen::Eight), Iv::Explicit),
            EncryptionId::AES_CCM_8_IIV => (Self::AesCcm(IcvLen::Eight), Iv::Implicit),
            EncryptionId::AES_CCM_12 => (Self::AesCcm(IcvLen::Twelve), Iv::Explicit),
            EncryptionId::AES_CCM_16 => (Self::AesCcm(IcvLen::Sixteen), Iv::Explicit),
            EncryptionId::CHACHA20_POLY1305 => (Self::ChaCha20Poly1305, Iv::Explicit),
            EncryptionId::CHACHA20_POLY1305_IIV => (Self::ChaCha20Poly1305, Iv::Implicit),
            _ => return None,
        })
    }
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
        let (algorithm, iv) = Algorithm::of(encryption)?;
        let key_len = key_and_salt.len().checked_sub(salt_len(encryption))?;
        let (key, given) = key_and_salt.split_at_checked(key_len)?;
        let mut salt = Salt::default();
        let unused = salt.len().checked_sub(given.len())?;
        salt.get_mut(unused..)?.copy_from_slice(given);
        let cipher = C::new(algorithm, key)?;
        Some(Self { cipher, salt, iv })
    }

    pub(super) fn iv_len(&self) -> usize {
        match self.iv {
            Iv::Explicit => AEAD_IV_LEN,
            Iv::Implicit => 0,
        }
    }

    pub(super) fn icv_len(&self) -> usize {
        self.cipher.icv_len()
    }

    #[inline]
    pub(super) fn seal(
        &self,
        nonce: u64,
        associated: Associated<'_>,
        buffer: &mut [u8],
    ) -> Result<(), SealError> {
        let sealed = self.put_iv(nonce, associated, buffer)?;
        let (text, icv) = self.split_icv(sealed).ok_or(SealError::Length)?;
        let mut extended = [0; EXTENDED_LEN];
        let aad = associated.aad(&mut extended).ok_or(SealError::Length)?;
        self.cipher
            .seal(salted(self.salt, nonce), aad, text, icv)
            .ok_or(SealError::Length)
    }

    #[inline]
    fn split_icv<'a>(&self, sealed: &'a mut [u8]) -> Option<(&'a mut [u8], &'a mut [u8])> {
        let at = sealed.len().checked_sub(self.cipher.icv_len())?;
        sealed.split_at_mut_checked(at)
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
        let (text, icv) = self.split_icv(sealed).ok_or(AuthenticationFailed)?;
        let mut extended = [0; EXTENDED_LEN];
        let aad = associated.aad(&mut extended).ok_or(AuthenticationFailed)?;
        self.cipher
            .open(salted(self.salt, nonce), aad, text, icv)
            .ok_or(AuthenticationFailed)?;
        Ok(text)
    }
}

impl AeadKey<FastCipher> {
    /// Encrypts `head`, then `tail`, from where they lie to between IV and ICV.
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
        let (text, tail_and_icv) = sealed
            .split_at_mut_checked(head.len())
            .ok_or(SealError::Length)?;
        let nonce = aead::Nonce::assume_unique_for_key(salted(self.salt, nonce));
        let (cipher, aad) = (&self.cipher.0, aead::Aad::from(aad));
        cipher
            .seal_out_of_place_scatter(nonce, aad, head, text, tail, tail_and_icv)
            .map_err(|_| SealError::Length)
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
    pub(super) fn aad(&self, extended: &'a mut [u8; EXTENDED_LEN]) -> Option<&'a [u8]> {
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

#[inline]
fn salted(salt: Salt, iv: u64) -> Nonce {
    let mut nonce = [0; 12];
    if let Some((head, tail)) = nonce.split_first_chunk_mut() {
        *head = salt;
        tail.copy_from_slice(&iv.to_be_bytes());
    }
    nonce
}

/// The unsent part of a nonce, from the key material; at the end of it if it is shorter.
pub(super) type Salt = [u8; 4];

/// SPI and a sequence number of 64 bits.
const EXTENDED_LEN: usize = 12;

/// `aws-lc-rs`.
pub(super) struct FastCipher(aead::LessSafeKey);

impl AeadCipher for FastCipher {
    fn new(algorithm: Algorithm, key: &[u8]) -> Option<Self> {
        let algorithm = match (algorithm, key.len()) {
            (Algorithm::AesGcm(IcvLen::Sixteen), 16) => &aead::AES_128_GCM,
            (Algorithm::AesGcm(IcvLen::Sixteen), 24) => &aead::AES_192_GCM,
            (Algorithm::AesGcm(IcvLen::Sixteen), 32) => &aead::AES_256_GCM,
            (Algorithm::ChaCha20Poly1305, 32) => &aead::CHACHA20_POLY1305,
            _ => return None,
        };
        let key = aead::UnboundKey::new(algorithm, key).ok()?;
        Some(Self(aead::LessSafeKey::new(key)))
    }

    #[inline]
    fn icv_len(&self) -> usize {
        16
    }

    #[inline]
    fn seal(&self, nonce: Nonce, aad: &[u8], text: &mut [u8], icv: &mut [u8]) -> Option<()> {
        let nonce = aead::Nonce::assume_unique_for_key(nonce);
        self.0
            .seal_in_place_scatter(nonce, aead::Aad::from(aad), text, &[], icv)
            .ok()
    }

    #[inline]
    fn open(&self, nonce: Nonce, aad: &[u8], text: &mut [u8], icv: &[u8]) -> Option<()> {
        let nonce = aead::Nonce::assume_unique_for_key(nonce);
        self.0
            .open_in_place_separate_tag(nonce, aead::Aad::from(aad), icv, text)
            .ok()
            .map(|_| ())
    }
}
