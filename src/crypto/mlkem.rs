//! ML-KEM (FIPS 203) as a key exchange: the initiator's public value is an encapsulation key, the
//! responder's a ciphertext.
//!
//! From RustCrypto, since `aws-lc-rs` draws the random bytes of its ML-KEM by itself, and everything
//! random in IKE comes from the caller.

use ml_kem::kem::{Decapsulate, Encapsulate, Generate, Kem, KeyExport, TryKeyInit};
use ml_kem::{DecapsulationKey, MlKem512, MlKem768, MlKem1024};
use rand_core::CryptoRng;
use zeroize::Zeroizing;

use super::secret::Secret;
use crate::wire::proposal::KeyExchangeId;

/// The initiator's decapsulation key.
pub(super) enum MlKemKey {
    MlKem512(DecapsulationKey<MlKem512>),
    MlKem768(DecapsulationKey<MlKem768>),
    MlKem1024(DecapsulationKey<MlKem1024>),
}

impl MlKemKey {
    pub(super) fn is_supported(method: KeyExchangeId) -> bool {
        matches!(
            method,
            KeyExchangeId::ML_KEM_512 | KeyExchangeId::ML_KEM_768 | KeyExchangeId::ML_KEM_1024
        )
    }

    /// `None` for a method that is none of ours.
    pub(super) fn generate(method: KeyExchangeId, rng: &mut dyn CryptoRng) -> Option<Self> {
        Some(match method {
            KeyExchangeId::ML_KEM_512 => Self::MlKem512(Generate::generate_from_rng(rng)),
            KeyExchangeId::ML_KEM_768 => Self::MlKem768(Generate::generate_from_rng(rng)),
            KeyExchangeId::ML_KEM_1024 => Self::MlKem1024(Generate::generate_from_rng(rng)),
            _ => return None,
        })
    }

    /// The encapsulation key: 800, 1184 or 1568 bytes.
    pub(super) fn public(&self) -> Vec<u8> {
        match self {
            Self::MlKem512(key) => key.encapsulation_key().to_bytes().to_vec(),
            Self::MlKem768(key) => key.encapsulation_key().to_bytes().to_vec(),
            Self::MlKem1024(key) => key.encapsulation_key().to_bytes().to_vec(),
        }
    }

    /// Decapsulates; `None` unless the ciphertext has the method's length. One that was changed gives
    /// a secret that the peer does not have (FIPS 203 §6.3).
    pub(super) fn agree(&self, ciphertext: &[u8]) -> Option<Secret> {
        match self {
            Self::MlKem512(key) => decapsulate(key, ciphertext),
            Self::MlKem768(key) => decapsulate(key, ciphertext),
            Self::MlKem1024(key) => decapsulate(key, ciphertext),
        }
    }
}

/// The responder's ciphertext and the shared secret; `None` for a method that is none of ours, or
/// for an encapsulation key of the wrong length or with a coefficient that is not below q (FIPS 203
/// §7.2).
pub(super) fn encapsulate(
    method: KeyExchangeId,
    key: &[u8],
    rng: &mut dyn CryptoRng,
) -> Option<(Vec<u8>, Secret)> {
    match method {
        KeyExchangeId::ML_KEM_512 => encapsulate_to::<MlKem512>(key, rng),
        KeyExchangeId::ML_KEM_768 => encapsulate_to::<MlKem768>(key, rng),
        KeyExchangeId::ML_KEM_1024 => encapsulate_to::<MlKem1024>(key, rng),
        _ => None,
    }
}

fn encapsulate_to<K: Kem>(key: &[u8], rng: &mut dyn CryptoRng) -> Option<(Vec<u8>, Secret)> {
    let key = K::EncapsulationKey::new_from_slice(key).ok()?;
    let (ciphertext, shared) = key.encapsulate_with_rng(rng);
    let shared = Zeroizing::new(shared);
    Some((ciphertext.to_vec(), Secret::copy_from(&shared)))
}

fn decapsulate(key: &impl Decapsulate, ciphertext: &[u8]) -> Option<Secret> {
    let shared = Zeroizing::new(key.decapsulate_slice(ciphertext).ok()?);
    Some(Secret::copy_from(&shared))
}
