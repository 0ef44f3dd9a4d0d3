//! AEAD suites from RustCrypto: no C, no assembly of our own choosing, several times slower.

use aes::Aes192;
use aes_gcm::aead::consts::U12;
use aes_gcm::aead::{AeadInOut, KeyInit};
use aes_gcm::{Aes128Gcm, Aes256Gcm, AesGcm};
use chacha20poly1305::ChaCha20Poly1305;
use zeroize::Zeroize;

use super::aead::{Aad, salted, split};
use super::packet::{Associated, AuthenticationFailed, SALT_LEN, SealError};
use crate::wire::proposal::EncryptionId;

/// The same suites and the same bytes as [`Aead`](super::aead::Aead).
pub(super) struct PortableAead {
    cipher: Cipher,
    salt: [u8; SALT_LEN],
}

enum Cipher {
    Aes128Gcm(Aes128Gcm),
    Aes192Gcm(AesGcm<Aes192, U12>),
    Aes256Gcm(Aes256Gcm),
    ChaCha20Poly1305(ChaCha20Poly1305),
}

impl PortableAead {
    pub(super) fn new(encryption: EncryptionId, key_and_salt: &[u8]) -> Option<Self> {
        let (key, &salt) = key_and_salt.split_last_chunk()?;
        let cipher = match (encryption, key.len()) {
            (EncryptionId::AES_GCM_16, 16) => Cipher::Aes128Gcm(KeyInit::new_from_slice(key).ok()?),
            (EncryptionId::AES_GCM_16, 24) => Cipher::Aes192Gcm(KeyInit::new_from_slice(key).ok()?),
            (EncryptionId::AES_GCM_16, 32) => Cipher::Aes256Gcm(KeyInit::new_from_slice(key).ok()?),
            (EncryptionId::CHACHA20_POLY1305, 32) => {
                Cipher::ChaCha20Poly1305(KeyInit::new_from_slice(key).ok()?)
            }
            _ => return None,
        };
        Some(Self { cipher, salt })
    }

    pub(super) fn seal(
        &self,
        nonce: u64,
        associated: Associated<'_>,
        buffer: &mut [u8],
    ) -> Result<(), SealError> {
        let aad = Aad::new(associated).ok_or(SealError::Length)?;
        let aad = aad.as_ref();
        let (iv, text, icv) = split(buffer).ok_or(SealError::Length)?;
        *iv = nonce.to_be_bytes();
        let nonce = salted(self.salt, *iv).into();
        let text = text.into();
        let tag = match &self.cipher {
            Cipher::Aes128Gcm(cipher) => cipher.encrypt_inout_detached(&nonce, aad, text),
            Cipher::Aes192Gcm(cipher) => cipher.encrypt_inout_detached(&nonce, aad, text),
            Cipher::Aes256Gcm(cipher) => cipher.encrypt_inout_detached(&nonce, aad, text),
            Cipher::ChaCha20Poly1305(cipher) => cipher.encrypt_inout_detached(&nonce, aad, text),
        };
        *icv = tag.map_err(|_| SealError::Length)?.into();
        Ok(())
    }

    pub(super) fn open<'a>(
        &self,
        associated: Associated<'_>,
        buffer: &'a mut [u8],
    ) -> Result<&'a mut [u8], AuthenticationFailed> {
        let aad = Aad::new(associated).ok_or(AuthenticationFailed)?;
        let aad = aad.as_ref();
        let (iv, text, icv) = split(buffer).ok_or(AuthenticationFailed)?;
        let nonce = salted(self.salt, *iv).into();
        let tag = (*icv).into();
        let view = (&mut *text).into();
        match &self.cipher {
            Cipher::Aes128Gcm(c) => c.decrypt_inout_detached(&nonce, aad, view, &tag),
            Cipher::Aes192Gcm(c) => c.decrypt_inout_detached(&nonce, aad, view, &tag),
            Cipher::Aes256Gcm(c) => c.decrypt_inout_detached(&nonce, aad, view, &tag),
            Cipher::ChaCha20Poly1305(c) => c.decrypt_inout_detached(&nonce, aad, view, &tag),
        }
        .map_err(|_| AuthenticationFailed)?;
        Ok(text)
    }
}

impl Drop for PortableAead {
    fn drop(&mut self) {
        self.salt.zeroize();
    }
}
