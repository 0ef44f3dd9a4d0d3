//! AEADs from RustCrypto: no C, no assembly of our own choosing, several times slower.

use aes::Aes192;
use aes_gcm::aead::consts::U12;
use aes_gcm::aead::{AeadInOut, KeyInit};
use aes_gcm::{Aes128Gcm, Aes256Gcm, AesGcm};
use chacha20poly1305::ChaCha20Poly1305;

use super::aead::{AeadCipher, Algorithm, Icv, Nonce};
use super::packet::gather;

/// The same bytes as [`FastCipher`](super::aead::FastCipher) gives.
pub(super) enum PortableCipher {
    Aes128Gcm(Aes128Gcm),
    Aes192Gcm(AesGcm<Aes192, U12>),
    Aes256Gcm(Aes256Gcm),
    ChaCha20Poly1305(ChaCha20Poly1305),
}

impl AeadCipher for PortableCipher {
    fn new(algorithm: Algorithm, key: &[u8]) -> Option<Self> {
        Some(match (algorithm, key.len()) {
            (Algorithm::AesGcm, 16) => Self::Aes128Gcm(KeyInit::new_from_slice(key).ok()?),
            (Algorithm::AesGcm, 24) => Self::Aes192Gcm(KeyInit::new_from_slice(key).ok()?),
            (Algorithm::AesGcm, 32) => Self::Aes256Gcm(KeyInit::new_from_slice(key).ok()?),
            (Algorithm::ChaCha20Poly1305, 32) => {
                Self::ChaCha20Poly1305(KeyInit::new_from_slice(key).ok()?)
            }
            _ => return None,
        })
    }

    fn seal(&self, nonce: Nonce, aad: &[u8], text: &mut [u8], icv: &mut Icv) -> Option<()> {
        let (nonce, text) = (nonce.into(), text.into());
        let tag = match self {
            Self::Aes128Gcm(cipher) => cipher.encrypt_inout_detached(&nonce, aad, text),
            Self::Aes192Gcm(cipher) => cipher.encrypt_inout_detached(&nonce, aad, text),
            Self::Aes256Gcm(cipher) => cipher.encrypt_inout_detached(&nonce, aad, text),
            Self::ChaCha20Poly1305(cipher) => cipher.encrypt_inout_detached(&nonce, aad, text),
        };
        *icv = tag.ok()?.into();
        Some(())
    }

    fn seal_from(
        &self,
        nonce: Nonce,
        aad: &[u8],
        head: &[u8],
        tail: &[u8],
        sealed: &mut [u8],
    ) -> Option<()> {
        let (text, icv) = sealed.split_last_chunk_mut()?;
        gather(&[head, tail], text)?;
        self.seal(nonce, aad, text, icv)
    }

    fn open(&self, nonce: Nonce, aad: &[u8], text: &mut [u8], icv: &Icv) -> Option<()> {
        let (nonce, tag, text) = (nonce.into(), (*icv).into(), text.into());
        match self {
            Self::Aes128Gcm(cipher) => cipher.decrypt_inout_detached(&nonce, aad, text, &tag),
            Self::Aes192Gcm(cipher) => cipher.decrypt_inout_detached(&nonce, aad, text, &tag),
            Self::Aes256Gcm(cipher) => cipher.decrypt_inout_detached(&nonce, aad, text, &tag),
            Self::ChaCha20Poly1305(cipher) => {
                cipher.decrypt_inout_detached(&nonce, aad, text, &tag)
            }
        }
        .ok()
    }
}
