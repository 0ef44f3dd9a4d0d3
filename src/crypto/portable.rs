//! AEADs from RustCrypto: several times slower than the fast provider, but with every length of ICV,
//! and CCM.

use aes::{Aes128, Aes192, Aes256};
use aes_gcm::aead::array::{ArraySize, typenum::Unsigned};
use aes_gcm::aead::consts::{U8, U11, U12, U16};
use aes_gcm::aead::{AeadCore, AeadInOut, KeyInit};
use aes_gcm::{AesGcm, TagSize};
use ccm::Ccm;
use chacha20poly1305::ChaCha20Poly1305;

use super::aead::{AeadCipher, Algorithm, IcvLen, Nonce};

/// The same bytes as [`FastCipher`](super::aead::FastCipher) gives, where that knows the algorithm.
pub(super) struct PortableCipher(Box<dyn AnySize>);

/// An AEAD, whatever the sizes of its key, nonce and ICV.
trait AnySize: Send + Sync {
    fn icv_len(&self) -> usize;
    fn seal(&self, nonce: &Nonce, aad: &[u8], text: &mut [u8], icv: &mut [u8]) -> Option<()>;
    fn open(&self, nonce: &Nonce, aad: &[u8], text: &mut [u8], icv: &[u8]) -> Option<()>;
}

impl<A: AeadInOut + Send + Sync> AnySize for A {
    fn icv_len(&self) -> usize {
        A::TagSize::USIZE
    }

    fn seal(&self, nonce: &Nonce, aad: &[u8], text: &mut [u8], icv: &mut [u8]) -> Option<()> {
        let nonce = last::<A>(nonce)?;
        let tag = self.encrypt_inout_detached(nonce, aad, text.into()).ok()?;
        icv.copy_from_slice(&tag);
        Some(())
    }

    fn open(&self, nonce: &Nonce, aad: &[u8], text: &mut [u8], icv: &[u8]) -> Option<()> {
        let nonce = last::<A>(nonce)?;
        let tag = icv.try_into().ok()?;
        self.decrypt_inout_detached(nonce, aad, text.into(), tag)
            .ok()
    }
}

impl AeadCipher for PortableCipher {
    fn new(algorithm: Algorithm, key: &[u8]) -> Option<Self> {
        match algorithm {
            Algorithm::AesGcm(IcvLen::Sixteen) => gcm::<U16>(key),
            Algorithm::AesGcm(IcvLen::Twelve) => gcm::<U12>(key),
            Algorithm::AesGcm(IcvLen::Eight) => gcm::<U8>(key),
            Algorithm::AesCcm(IcvLen::Sixteen) => ccm::<U16>(key),
            Algorithm::AesCcm(IcvLen::Twelve) => ccm::<U12>(key),
            Algorithm::AesCcm(IcvLen::Eight) => ccm::<U8>(key),
            Algorithm::ChaCha20Poly1305 => cipher::<ChaCha20Poly1305>(key),
        }
    }

    fn icv_len(&self) -> usize {
        self.0.icv_len()
    }

    fn seal(&self, nonce: Nonce, aad: &[u8], text: &mut [u8], icv: &mut [u8]) -> Option<()> {
        self.0.seal(&nonce, aad, text, icv)
    }

    fn open(&self, nonce: Nonce, aad: &[u8], text: &mut [u8], icv: &[u8]) -> Option<()> {
        self.0.open(&nonce, aad, text, icv)
    }
}

fn gcm<M: TagSize + Send + Sync>(key: &[u8]) -> Option<PortableCipher> {
    match key.len() {
        16 => cipher::<AesGcm<Aes128, U12, M>>(key),
        24 => cipher::<AesGcm<Aes192, U12, M>>(key),
        32 => cipher::<AesGcm<Aes256, U12, M>>(key),
        _ => None,
    }
}

fn ccm<M: ccm::TagSize + ArraySize + Send + Sync>(key: &[u8]) -> Option<PortableCipher> {
    match key.len() {
        16 => cipher::<Ccm<Aes128, M, U11>>(key),
        24 => cipher::<Ccm<Aes192, M, U11>>(key),
        32 => cipher::<Ccm<Aes256, M, U11>>(key),
        _ => None,
    }
}

fn cipher<A: AnySize + KeyInit + 'static>(key: &[u8]) -> Option<PortableCipher> {
    let cipher = A::new_from_slice(key).ok()?;
    Some(PortableCipher(Box::new(cipher)))
}

/// The nonce of an AEAD: the last bytes of ours, which has room for the longest.
fn last<A: AeadCore>(nonce: &Nonce) -> Option<&aes_gcm::aead::Nonce<A>> {
    let at = nonce.len().checked_sub(A::NonceSize::USIZE)?;
    nonce.get(at..)?.try_into().ok()
}
