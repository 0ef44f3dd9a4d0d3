//! The key exchange methods that IKE negotiates (RFC 7296 §3.4, RFC 9370 §2.1): Diffie-Hellman and
//! key encapsulation, in one flow.
//!
//! ```text
//! initiator                                responder
//! KeyExchange::generate
//!     public()          ── KE payload ──►  answer(…)
//!     finish(…)         ◄── KE payload ──      Answer::public
//!     the secret        =                      Answer::shared
//! ```

use std::fmt;

use aws_lc_rs::agreement::{self, UnparsedPublicKey};
use rand_core::CryptoRng;
use zeroize::Zeroizing;

use super::brainpool::BrainpoolKey;
use super::constant_time_eq;
use super::mlkem::{self, MlKemKey};
use super::modp::ModpKey;
use super::secret::Secret;
use crate::wire::proposal::KeyExchangeId;

/// The initiator's half of one exchange: the private value waits here for the responder's public one.
pub struct KeyExchange {
    group: KeyExchangeId,
    public: Vec<u8>,
    private: Private,
}

enum Private {
    Curve(Curve, agreement::PrivateKey),
    Brainpool(BrainpoolKey),
    Modp(ModpKey),
    MlKem(Box<MlKemKey>),
}

impl KeyExchange {
    /// Draws a private value from `rng` and computes the public one. The same random bytes give
    /// the same exchange.
    pub fn generate(
        group: KeyExchangeId,
        rng: &mut dyn CryptoRng,
    ) -> Result<Self, UnsupportedGroup> {
        let (private, public) = if let Some(curve) = Curve::new(group) {
            let (key, public) = curve.generate(rng);
            (Private::Curve(curve, key), public)
        } else if let Some(key) = BrainpoolKey::generate(group, rng) {
            let public = key.public();
            (Private::Brainpool(key), public)
        } else if let Some(key) = MlKemKey::generate(group, rng) {
            let public = key.public();
            (Private::MlKem(Box::new(key)), public)
        } else {
            let key = ModpKey::generate(group, rng).ok_or(UnsupportedGroup(group))?;
            let public = key.public();
            (Private::Modp(key), public)
        };
        Ok(Self {
            group,
            public,
            private,
        })
    }

    /// The group of this exchange.
    pub fn group(&self) -> KeyExchangeId {
        self.group
    }

    /// Our public value as the KE payload carries it: `x ‖ y` for a NIST or Brainpool
    /// curve (RFC 5903 §7),
    /// 32 bytes for X25519 (RFC 8031 §2), a number as long as the prime for MODP, an encapsulation
    /// key for ML-KEM.
    pub fn public(&self) -> &[u8] {
        &self.public
    }

    /// Combines our private value with the peer's public one.
    ///
    /// The peer's value passes all checks of RFC 6989 §2 or is refused: exact length, point on the
    /// curve, `1 < y < p-1`, and for X25519 a result that is not zero (RFC 8031 §2.3). The secret is
    /// x alone for such a curve, and padded to the length of the prime for MODP. A ciphertext of
    /// ML-KEM is checked for its length only: a changed one gives a secret that the peer does not
    /// have.
    pub fn finish(&self, peer: &[u8]) -> Result<Secret, InvalidPublic> {
        match &self.private {
            Private::Curve(curve, key) => curve.agree(key, peer),
            Private::Brainpool(key) => key.agree(peer).ok_or(InvalidPublic),
            Private::Modp(key) => key.agree(peer).ok_or(InvalidPublic),
            Private::MlKem(key) => key.agree(peer).ok_or(InvalidPublic),
        }
    }
}

impl fmt::Debug for KeyExchange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyExchange")
            .field("group", &self.group)
            .finish_non_exhaustive()
    }
}

/// What the responder has after one message: its public value, and already the secret.
#[derive(Debug)]
pub struct Answer {
    /// For the KE payload of the answer.
    pub public: Vec<u8>,
    /// What [`KeyExchange::finish`] gives the initiator.
    pub shared: Secret,
}

/// The responder's part of an exchange that a peer has opened with the public value `peer`, which
/// passes the checks of [`KeyExchange::finish`] or is refused; an encapsulation key of ML-KEM those
/// of FIPS 203 §7.2. The same random bytes give the same answer.
pub fn answer(
    group: KeyExchangeId,
    peer: &[u8],
    rng: &mut dyn CryptoRng,
) -> Result<Answer, AnswerError> {
    if MlKemKey::is_supported(group) {
        let (public, shared) = mlkem::encapsulate(group, peer, rng).ok_or(InvalidPublic)?;
        return Ok(Answer { public, shared });
    }
    let exchange = KeyExchange::generate(group, rng)?;
    let shared = exchange.finish(peer)?;
    let public = exchange.public;
    Ok(Answer { public, shared })
}

/// Whether [`KeyExchange::generate`] and [`answer`] know the method.
pub fn is_supported_group(id: KeyExchangeId) -> bool {
    Curve::new(id).is_some()
        || BrainpoolKey::is_supported(id)
        || ModpKey::is_supported(id)
        || MlKemKey::is_supported(id)
}

/// Why there is no [`Answer`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(transparent)]
pub enum AnswerError {
    /// Our side does not have the method.
    Unsupported(#[from] UnsupportedGroup),
    /// The peer's value is not one of the method.
    Invalid(#[from] InvalidPublic),
}

/// We have no implementation of this group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no implementation of key exchange {0:?}")]
pub struct UnsupportedGroup(pub KeyExchangeId);

/// The peer's public value must not be used (RFC 6989 §2, FIPS 203 §7).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the peer's public key exchange value is not valid")]
pub struct InvalidPublic;

#[derive(Clone, Copy)]
struct Curve {
    algorithm: &'static agreement::Algorithm,
    /// Bytes of a coordinate, which is also the length of a private value.
    field_len: usize,
    /// Keeps a random private value in the range of the group's order.
    top_mask: u8,
    montgomery: bool,
}

impl Curve {
    fn new(group: KeyExchangeId) -> Option<Self> {
        let (algorithm, field_len, top_mask, montgomery) = match group {
            KeyExchangeId::X25519 => (&agreement::X25519, 32, 0xff, true),
            KeyExchangeId::ECP256 => (&agreement::ECDH_P256, 32, 0xff, false),
            KeyExchangeId::ECP384 => (&agreement::ECDH_P384, 48, 0xff, false),
            KeyExchangeId::ECP521 => (&agreement::ECDH_P521, 66, 0x01, false),
            _ => return None,
        };
        Some(Self {
            algorithm,
            field_len,
            top_mask,
            montgomery,
        })
    }

    /// Draws until the bytes are a valid private value: for each curve the first draw nearly always
    /// is, since the order is just below the power of two that the mask leaves.
    fn generate(self, rng: &mut dyn CryptoRng) -> (agreement::PrivateKey, Vec<u8>) {
        let mut bytes = Zeroizing::new(vec![0; self.field_len]);
        loop {
            rng.fill_bytes(&mut bytes);
            if let Some(top) = bytes.first_mut() {
                *top &= self.top_mask;
            }
            let Ok(key) = agreement::PrivateKey::from_private_key(self.algorithm, &bytes) else {
                continue;
            };
            let public = key
                .compute_public_key()
                .expect("a valid private key has a public key");
            let wire = if self.montgomery {
                public.as_ref()
            } else {
                public
                    .as_ref()
                    .strip_prefix(&[UNCOMPRESSED])
                    .expect("SEC1 point is uncompressed")
            };
            return (key, wire.to_vec());
        }
    }

    fn agree(self, key: &agreement::PrivateKey, peer: &[u8]) -> Result<Secret, InvalidPublic> {
        let mut point = Vec::with_capacity(1 + 2 * self.field_len);
        if self.montgomery {
            point.extend_from_slice(peer);
        } else {
            point.push(UNCOMPRESSED);
            point.extend_from_slice(peer);
            if point.len() != 1 + 2 * self.field_len {
                return Err(InvalidPublic);
            }
        }
        let peer = UnparsedPublicKey::new(self.algorithm, &point);
        let shared = agreement::agree(key, peer, InvalidPublic, |shared| {
            Ok(Secret::copy_from(shared))
        })?;
        if self.montgomery && constant_time_eq(shared.as_bytes(), &[0; 32]) {
            return Err(InvalidPublic);
        }
        Ok(shared)
    }
}

/// First byte of a SEC1 point with both coordinates; the KE payload leaves it out.
pub(super) const UNCOMPRESSED: u8 = 4;
