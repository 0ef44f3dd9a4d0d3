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
        let aad = Aad::new(associated).ok_or(SealError::Length)?;
        let (iv, text, icv) = self.split(buffer).ok_or(SealError::Length)?;
        let nonce = nonce.to_be_bytes();
        match iv {
            Some(iv) => *iv = nonce,
            None if associated.implicit_iv() == Some(nonce) => {}
            None => return Err(SealError::Nonce),
        }
        self.cipher
            .seal(salted(self.salt, nonce), aad.as_ref(), text, icv)
            .ok_or(SealError::Length)
    }

    #[inline]
    pub(super) fn open<'a>(
        &self,
        associated: Associated<'_>,
        buffer: &'a mut [u8],
    ) -> Result<&'a mut [u8], AuthenticationFailed> {
        let aad = Aad::new(associated).ok_or(AuthenticationFailed)?;
        let (iv, text, icv) = self.split(buffer).ok_or(AuthenticationFailed)?;
        let iv = match iv {
            Some(iv) => *iv,
            None => associated.implicit_iv().ok_or(AuthenticationFailed)?,
        };
        self.cipher
            .open(salted(self.salt, iv), aad.as_ref(), text, icv)
            .ok_or(AuthenticationFailed)?;
        Ok(text)
    }

    /// Cuts a buffer into IV, text and ICV.
    #[inline]
    fn split<'a>(&self, buffer: &'a mut [u8]) -> Option<Parts<'a>> {
        let (iv, rest) = match self.iv {
            Iv::Explicit => {
                let (iv, rest) = buffer.split_first_chunk_mut()?;
                (Some(iv), rest)
            }
            Iv::Implicit => (None, buffer),
        };
        let (text, icv) = rest.split_last_chunk_mut()?;
        Some((iv, text, icv))
    }
}

type Parts<'a> = (Option<&'a mut [u8; AEAD_IV_LEN]>, &'a mut [u8], &'a mut Icv);

impl<C> Drop for AeadKey<C> {
    fn drop(&mut self) {
        zeroize::Zeroize::zeroize(&mut self.salt);
    }
}

impl Associated<'_> {
    /// The sequence number as an IV; `None` unless the header is ESP's.
    #[inline]
    fn implicit_iv(&self) -> Option<[u8; AEAD_IV_LEN]> {
        let [.., l0, l1, l2, l3] = <[u8; 8]>::try_from(self.header).ok()?;
        let [h0, h1, h2, h3] = self.esn_high.unwrap_or(0).to_be_bytes();
        Some([h0, h1, h2, h3, l0, l1, l2, l3])
    }
}

/// The additional authenticated data: the header, or with an extended sequence number SPI, upper
/// half and lower half (RFC 4106 §5, RFC 7634 §2.1).
enum Aad<'a> {
    Header(&'a [u8]),
    Extended([u8; 12]),
}

impl<'a> Aad<'a> {
    /// `None` if an extended sequence number comes with anything but an ESP header.
    #[inline]
    fn new(associated: Associated<'a>) -> Option<Self> {
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
    #[inline]
    fn as_ref(&self) -> &[u8] {
        match self {
            Self::Header(header) => header,
            Self::Extended(bytes) => bytes,
        }
    }
}

/// The nonce of both AEADs: salt, then IV.
#[inline]
fn salted(salt: [u8; SALT_LEN], iv: [u8; AEAD_IV_LEN]) -> Nonce {
    let [s0, s1, s2, s3] = salt;
    let [i0, i1, i2, i3, i4, i5, i6, i7] = iv;
    [s0, s1, s2, s3, i0, i1, i2, i3, i4, i5, i6, i7]
}

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
    fn open(&self, nonce: Nonce, aad: &[u8], text: &mut [u8], icv: &Icv) -> Option<()> {
        let nonce = aead::Nonce::assume_unique_for_key(nonce);
        self.0
            .open_in_place_separate_tag(nonce, aead::Aad::from(aad), icv, text)
            .ok()
            .map(|_| ())
    }
}
