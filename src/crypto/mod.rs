//! The only importer of cryptographic providers. Holds keys, but no protocol state.
//!
//! | for | look in | RFC |
//! |---|---|---|
//! | sealing and opening packets | [`packet`] | 4106, 4309, 4543, 7634, 8750; 3602, 3686, 2451, 2410 with 4868, 2404, 4494, 3566 |
//! | PRF, SKEYSEED, keys of IKE and Child SAs | [`prf`], [`kdf`] | 7296 §2.13–2.18 |
//! | SKEYID, keys and messages of IKEv1 | [`skeyid`], [`isakmp`] | 2409 §5, appendix B |
//! | key exchange | [`kex`] | 3526, 5903, 6954, 8031, 6989; FIPS 203 |
//! | signatures, public and private keys | [`signature`], [`private_key`], [`pem`] | 7427, 4754, 8420, 7468 |
//!
//! The packet path runs on `aws-lc-rs`. RustCrypto has what that lacks, and is the portable second
//! provider ([`packet::Provider::Portable`]) and the oracle of the tests.

pub mod digest;
pub mod isakmp;
pub mod kdf;
pub mod kex;
pub mod packet;
pub mod pem;
pub mod preshared_key;
pub mod prf;
pub mod private_key;
pub mod secret;
pub mod signature;
pub mod skeyid;
pub mod x509;

mod aead;
mod brainpool;
mod cipher;
mod encrypt_then_mac;
mod gmac;
mod mac;
mod mlkem;
mod modp;
mod portable;

pub use packet::{Associated, AuthenticationFailed, KeyError, PacketKey, Provider, SealError};
pub use preshared_key::PresharedKey;
pub use private_key::PrivateKey;
pub use rand_core::CryptoRng;
pub use secret::Secret;
pub use signature::PublicKey;

use subtle::ConstantTimeEq;

/// Compares two byte strings without telling, by its duration, where they differ.
///
/// Their lengths are public: different lengths return at once.
pub fn constant_time_eq(left: &[u8], right: &[u8]) -> bool {
    left.ct_eq(right).into()
}
