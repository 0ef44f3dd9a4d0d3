//! The Brainpool curves (RFC 6954), from RustCrypto, which has those of 256 and 384 bits.

use bp256::BrainpoolP256r1;
use bp256::elliptic_curve::point::AffineCoordinates;
use bp256::elliptic_curve::sec1::{FromSec1Point, ModulusSize, ToSec1Point};
use bp256::elliptic_curve::{
    AffinePoint, CurveArithmetic, CurveGroup, FieldBytesSize, PublicKey, SecretKey,
};
use bp384::BrainpoolP384r1;
use rand_core::CryptoRng;
use zeroize::Zeroizing;

use super::kex::UNCOMPRESSED;
use super::secret::Secret;
use crate::wire::proposal::KeyExchangeId;

/// A private value.
pub(super) enum BrainpoolKey {
    P256(SecretKey<BrainpoolP256r1>),
    P384(SecretKey<BrainpoolP384r1>),
}

impl BrainpoolKey {
    pub(super) fn is_supported(group: KeyExchangeId) -> bool {
        matches!(group, KeyExchangeId::ECP256_BP | KeyExchangeId::ECP384_BP)
    }

    /// `None` for a group that is none of ours.
    pub(super) fn generate(group: KeyExchangeId, rng: &mut dyn CryptoRng) -> Option<Self> {
        Some(match group {
            KeyExchangeId::ECP256_BP => Self::P256(generate::<_, 32>(rng)),
            KeyExchangeId::ECP384_BP => Self::P384(generate::<_, 48>(rng)),
            _ => return None,
        })
    }

    /// `x ‖ y`
    pub(super) fn public(&self) -> Vec<u8> {
        match self {
            Self::P256(key) => public(key),
            Self::P384(key) => public(key),
        }
    }

    /// x of the shared point; `None` unless `peer` has the right length and is on the curve.
    pub(super) fn agree(&self, peer: &[u8]) -> Option<Secret> {
        match self {
            Self::P256(key) => agree(key, peer),
            Self::P384(key) => agree(key, peer),
        }
    }
}

/// Draws until the bytes are below the order, which is more than half of what `LEN` bytes can hold.
fn generate<C: CurveArithmetic, const LEN: usize>(rng: &mut dyn CryptoRng) -> SecretKey<C> {
    let mut bytes = Zeroizing::new([0; LEN]);
    loop {
        rng.fill_bytes(bytes.as_mut_slice());
        if let Ok(key) = SecretKey::from_slice(bytes.as_slice()) {
            return key;
        }
    }
}

fn public<C>(key: &SecretKey<C>) -> Vec<u8>
where
    C: CurveArithmetic,
    AffinePoint<C>: FromSec1Point<C> + ToSec1Point<C>,
    FieldBytesSize<C>: ModulusSize,
{
    let point = key.public_key().to_sec1_point(false);
    let coordinates = point.as_bytes().strip_prefix(&[UNCOMPRESSED]);
    coordinates.expect("SEC1 point is uncompressed").to_vec()
}

fn agree<C>(key: &SecretKey<C>, peer: &[u8]) -> Option<Secret>
where
    C: CurveArithmetic,
    AffinePoint<C>: FromSec1Point<C> + ToSec1Point<C>,
    FieldBytesSize<C>: ModulusSize,
{
    let peer = [&[UNCOMPRESSED], peer].concat();
    let peer = PublicKey::<C>::from_sec1_bytes(&peer).ok()?;
    let shared = peer.to_projective() * *key.to_nonzero_scalar();
    let shared = Zeroizing::new(shared);
    Some(Secret::copy_from(shared.to_affine().x().as_ref()))
}
