//! Signatures of IKE_AUTH (RFC 7427, RFC 4754, RFC 8420) and of certificates, and the public keys
//! that verify them.

use std::fmt;

use aws_lc_rs::signature::{self as provider, UnparsedPublicKey, VerificationAlgorithm};
use der::asn1::{Any, AnyRef, ObjectIdentifier};
use der::{Decode, Encode, Sequence};
use pkcs1::{RsaPssParams, TrailerField};
use x509_cert::spki::{AlgorithmIdentifier, AlgorithmIdentifierRef, SubjectPublicKeyInfoRef};

use super::digest;

/// A hash function below a signature.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Hash {
    /// SHA-1: verified where a configuration asks for it, never used to sign.
    Sha1,
    /// SHA-256
    Sha256,
    /// SHA-384
    Sha384,
    /// SHA-512
    Sha512,
}

/// How a signature is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scheme {
    /// RSASSA-PKCS1-v1_5
    RsaPkcs1(Hash),
    /// RSASSA-PSS with MGF1 of the same hash and a salt as long as the hash.
    RsaPss(Hash),
    /// ECDSA as DER (RFC 7427, X.509).
    Ecdsa(Hash),
    /// ECDSA as `r ‖ s`, with the hash that belongs to the curve (RFC 4754).
    EcdsaFixed,
    /// Ed25519 (RFC 8420); it hashes by itself.
    Ed25519,
}

/// What a public key can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum KeyKind {
    /// RSA
    Rsa,
    /// ECDSA on P-256
    P256,
    /// ECDSA on P-384
    P384,
    /// ECDSA on P-521
    P521,
    /// Ed25519
    Ed25519,
}

/// A public key of a kind that we verify with.
#[derive(Clone)]
pub struct PublicKey {
    kind: KeyKind,
    /// RSAPublicKey, a SEC1 point, or 32 bytes.
    bits: Box<[u8]>,
    spki: Box<[u8]>,
}

/// The signature is not one of this key over this message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the signature is not valid")]
pub struct InvalidSignature;

/// Bytes that are not a public key, or one of an unsupported kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a public key that is supported (RSA, ECDSA on P-256, P-384 or P-521, Ed25519)")]
pub struct InvalidPublicKey;

impl Hash {
    /// SHA-2, best known first: what we sign with and announce (RFC 7427 §4).
    pub const SHA2: [Self; 3] = [Self::Sha256, Self::Sha384, Self::Sha512];

    /// IANA number in SIGNATURE_HASH_ALGORITHMS.
    pub fn number(self) -> u16 {
        match self {
            Self::Sha1 => 1,
            Self::Sha256 => 2,
            Self::Sha384 => 3,
            Self::Sha512 => 4,
        }
    }

    fn output_len(self) -> u8 {
        match self {
            Self::Sha1 => 20,
            Self::Sha256 => 32,
            Self::Sha384 => 48,
            Self::Sha512 => 64,
        }
    }

    fn oid(self) -> ObjectIdentifier {
        match self {
            Self::Sha1 => SHA1,
            Self::Sha256 => SHA256,
            Self::Sha384 => SHA384,
            Self::Sha512 => SHA512,
        }
    }

    fn from_oid(oid: ObjectIdentifier) -> Option<Self> {
        let all = [Self::Sha1, Self::Sha256, Self::Sha384, Self::Sha512];
        all.into_iter().find(|hash| hash.oid() == oid)
    }

    /// The hash that the strength of a key asks for.
    fn for_key(kind: KeyKind) -> Self {
        match kind {
            KeyKind::Rsa | KeyKind::P256 | KeyKind::Ed25519 => Self::Sha256,
            KeyKind::P384 => Self::Sha384,
            KeyKind::P521 => Self::Sha512,
        }
    }
}

/// IANA number of the hash "Identity", which Ed25519 needs (RFC 8420 §2).
pub const HASH_IDENTITY: u16 = 5;

impl KeyKind {
    /// All kinds.
    pub const ALL: [Self; 5] = [Self::Rsa, Self::P256, Self::P384, Self::P521, Self::Ed25519];
}

impl Scheme {
    /// Whether keys of this kind sign with it.
    pub fn is_for(self, kind: KeyKind) -> bool {
        verification(kind, self).is_some()
    }

    /// The hash below it; `None` for one that hashes by itself.
    pub fn hash(self, key: KeyKind) -> Option<Hash> {
        match self {
            Self::RsaPkcs1(hash) | Self::RsaPss(hash) | Self::Ecdsa(hash) => Some(hash),
            Self::EcdsaFixed => Some(Hash::for_key(key)),
            Self::Ed25519 => None,
        }
    }

    /// The AlgorithmIdentifier as DER (RFC 7427 Appendix A); `None` for a scheme that has none.
    pub fn to_algorithm_identifier(self) -> Option<Vec<u8>> {
        let (oid, parameters) = match self {
            Self::RsaPkcs1(hash) => (pkcs1_oid(hash), Some(AnyRef::NULL)),
            Self::Ecdsa(hash) => (ecdsa_oid(hash), None),
            Self::Ed25519 => (ED25519, None),
            Self::RsaPss(hash) => return pss_identifier(hash).to_der().ok(),
            Self::EcdsaFixed => return None,
        };
        AlgorithmIdentifierRef { oid, parameters }.to_der().ok()
    }

    /// Reads an AlgorithmIdentifier. Parameters are those that the scheme prescribes, nothing else.
    pub fn from_algorithm_identifier(der: &[u8]) -> Option<Self> {
        let identifier = AlgorithmIdentifierRef::from_der(der).ok()?;
        let hashes = [Hash::Sha1, Hash::Sha256, Hash::Sha384, Hash::Sha512];
        let (oid, parameters) = (identifier.oid, identifier.parameters);
        if oid == RSA_PSS {
            let parameters = parameters?.to_der().ok()?;
            return pss_hash(&parameters).map(Self::RsaPss);
        }
        if let Some(hash) = hashes.into_iter().find(|hash| pkcs1_oid(*hash) == oid) {
            let fits = parameters.is_none_or(|parameters| parameters.is_null());
            return fits.then_some(Self::RsaPkcs1(hash));
        }
        if parameters.is_some() {
            return None;
        }
        if oid == ED25519 {
            return Some(Self::Ed25519);
        }
        let hash = hashes.into_iter().find(|hash| ecdsa_oid(*hash) == oid);
        hash.map(Self::Ecdsa)
    }
}

type PssIdentifier<'a> = AlgorithmIdentifier<RsaPssParams<AnyRef<'a>>>;

fn pss_identifier(hash: Hash) -> PssIdentifier<'static> {
    let hash_identifier = AlgorithmIdentifierRef {
        oid: hash.oid(),
        parameters: Some(AnyRef::NULL),
    };
    AlgorithmIdentifier {
        oid: RSA_PSS,
        parameters: Some(RsaPssParams {
            hash: hash_identifier,
            mask_gen: AlgorithmIdentifier {
                oid: MGF1,
                parameters: Some(hash_identifier),
            },
            salt_len: hash.output_len(),
            trailer_field: TrailerField::BC,
        }),
    }
}

/// The one hash of PSS parameters that name no two, with a salt of its length.
fn pss_hash(parameters: &[u8]) -> Option<Hash> {
    let params = RsaPssParams::<Any>::try_from(parameters).ok()?;
    let hash = Hash::from_oid(params.hash.oid)?;
    let mask_hash = params.mask_gen.parameters.map(|hash| hash.oid);
    let fits = params.mask_gen.oid == MGF1
        && mask_hash == Some(params.hash.oid)
        && params.salt_len == hash.output_len();
    fits.then_some(hash)
}

fn pkcs1_oid(hash: Hash) -> ObjectIdentifier {
    match hash {
        Hash::Sha1 => ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.5"),
        Hash::Sha256 => ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.11"),
        Hash::Sha384 => ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.12"),
        Hash::Sha512 => ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.13"),
    }
}

fn ecdsa_oid(hash: Hash) -> ObjectIdentifier {
    match hash {
        Hash::Sha1 => ObjectIdentifier::new_unwrap("1.2.840.10045.4.1"),
        Hash::Sha256 => ObjectIdentifier::new_unwrap("1.2.840.10045.4.3.2"),
        Hash::Sha384 => ObjectIdentifier::new_unwrap("1.2.840.10045.4.3.3"),
        Hash::Sha512 => ObjectIdentifier::new_unwrap("1.2.840.10045.4.3.4"),
    }
}

/// As strongSwan prints it.
impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Sha1 => "SHA1",
            Self::Sha256 => "SHA2_256",
            Self::Sha384 => "SHA2_384",
            Self::Sha512 => "SHA2_512",
        })
    }
}

impl fmt::Display for Scheme {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::RsaPkcs1(hash) => write!(f, "RSA_EMSA_PKCS1_{hash}"),
            Self::RsaPss(hash) => write!(f, "RSA_EMSA_PSS_{hash}"),
            Self::Ecdsa(hash) => write!(f, "ECDSA_WITH_{hash}_DER"),
            Self::EcdsaFixed => f.write_str("ECDSA"),
            Self::Ed25519 => f.write_str("ED25519"),
        }
    }
}

impl PublicKey {
    /// Reads a SubjectPublicKeyInfo (RFC 5280 §4.1.2.7), as in certificates and raw keys.
    pub fn from_spki(der: &[u8]) -> Result<Self, InvalidPublicKey> {
        let info = SubjectPublicKeyInfoRef::from_der(der).map_err(|_| InvalidPublicKey)?;
        let kind = key_kind(&info.algorithm).ok_or(InvalidPublicKey)?;
        let bits = info.subject_public_key.as_bytes().ok_or(InvalidPublicKey)?;
        Self::checked(kind, bits, der)
    }

    /// Reads an RSAPublicKey (RFC 8017 Appendix A.1.1).
    pub fn from_pkcs1(der: &[u8]) -> Result<Self, InvalidPublicKey> {
        let key = der::asn1::BitStringRef::from_bytes(der).map_err(|_| InvalidPublicKey)?;
        let algorithm = AlgorithmIdentifierRef {
            oid: RSA,
            parameters: Some(AnyRef::NULL),
        };
        let info = SubjectPublicKeyInfoRef {
            algorithm,
            subject_public_key: key,
        };
        let spki = info.to_der().map_err(|_| InvalidPublicKey)?;
        Self::checked(KeyKind::Rsa, der, &spki)
    }

    fn checked(kind: KeyKind, bits: &[u8], spki: &[u8]) -> Result<Self, InvalidPublicKey> {
        let scheme = match kind {
            KeyKind::Rsa => Scheme::RsaPkcs1(Hash::Sha256),
            KeyKind::P256 | KeyKind::P384 | KeyKind::P521 => Scheme::Ecdsa(Hash::Sha512),
            KeyKind::Ed25519 => Scheme::Ed25519,
        };
        let algorithm = verification(kind, scheme).ok_or(InvalidPublicKey)?;
        let parsed = UnparsedPublicKey::new(algorithm, bits).parse();
        parsed.map_err(|_| InvalidPublicKey)?;
        Ok(Self {
            kind,
            bits: bits.into(),
            spki: spki.into(),
        })
    }

    /// What the key can do.
    pub fn kind(&self) -> KeyKind {
        self.kind
    }

    /// The SubjectPublicKeyInfo.
    pub fn spki(&self) -> &[u8] {
        &self.spki
    }

    /// SHA-1 over the SubjectPublicKeyInfo, which CERTREQ names authorities by (RFC 7296 §3.7).
    pub fn id(&self) -> [u8; 20] {
        digest::sha1(&[&self.spki])
    }

    /// Modulus or curve in bits, for policies and logs.
    pub fn strength(&self) -> usize {
        match self.kind {
            KeyKind::Rsa => RsaModulus::from_der(&self.bits)
                .map_or(0, |key| key.modulus.as_bytes().len().saturating_mul(8)),
            KeyKind::P256 | KeyKind::Ed25519 => 256,
            KeyKind::P384 => 384,
            KeyKind::P521 => 521,
        }
    }

    /// Checks a signature. A scheme that is not one for this kind of key is an invalid signature.
    pub fn verify(
        &self,
        scheme: Scheme,
        message: &[u8],
        signature: &[u8],
    ) -> Result<(), InvalidSignature> {
        let algorithm = verification(self.kind, scheme).ok_or(InvalidSignature)?;
        let key = UnparsedPublicKey::new(algorithm, &self.bits);
        key.verify(message, signature).map_err(|_| InvalidSignature)
    }
}

/// Enough of an RSAPublicKey to tell its length.
#[derive(Sequence)]
struct RsaModulus<'a> {
    modulus: der::asn1::UintRef<'a>,
    _exponent: der::asn1::UintRef<'a>,
}

impl PartialEq for PublicKey {
    fn eq(&self, other: &Self) -> bool {
        (self.kind, &self.bits) == (other.kind, &other.bits)
    }
}

impl Eq for PublicKey {}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({:?}, {} bits)", self.kind, self.strength())
    }
}

fn key_kind(algorithm: &AlgorithmIdentifierRef<'_>) -> Option<KeyKind> {
    match (algorithm.oid, algorithm.parameters) {
        (RSA, _) => Some(KeyKind::Rsa),
        (ED25519, None) => Some(KeyKind::Ed25519),
        (EC, Some(curve)) => match curve.decode_as::<ObjectIdentifier>().ok()? {
            P256 => Some(KeyKind::P256),
            P384 => Some(KeyKind::P384),
            P521 => Some(KeyKind::P521),
            _ => None,
        },
        _ => None,
    }
}

pub(super) fn verification(
    kind: KeyKind,
    scheme: Scheme,
) -> Option<&'static dyn VerificationAlgorithm> {
    Some(match (kind, scheme) {
        (KeyKind::Rsa, Scheme::RsaPkcs1(hash)) => match hash {
            Hash::Sha1 => &provider::RSA_PKCS1_2048_8192_SHA1_FOR_LEGACY_USE_ONLY,
            Hash::Sha256 => &provider::RSA_PKCS1_2048_8192_SHA256,
            Hash::Sha384 => &provider::RSA_PKCS1_2048_8192_SHA384,
            Hash::Sha512 => &provider::RSA_PKCS1_2048_8192_SHA512,
        },
        (KeyKind::Rsa, Scheme::RsaPss(hash)) => match hash {
            Hash::Sha1 => return None,
            Hash::Sha256 => &provider::RSA_PSS_2048_8192_SHA256,
            Hash::Sha384 => &provider::RSA_PSS_2048_8192_SHA384,
            Hash::Sha512 => &provider::RSA_PSS_2048_8192_SHA512,
        },
        (_, Scheme::Ecdsa(hash)) => return ecdsa_verification(kind, hash),
        (KeyKind::P256, Scheme::EcdsaFixed) => &provider::ECDSA_P256_SHA256_FIXED,
        (KeyKind::P384, Scheme::EcdsaFixed) => &provider::ECDSA_P384_SHA384_FIXED,
        (KeyKind::P521, Scheme::EcdsaFixed) => &provider::ECDSA_P521_SHA512_FIXED,
        (KeyKind::Ed25519, Scheme::Ed25519) => &provider::ED25519,
        _ => return None,
    })
}

fn ecdsa_verification(kind: KeyKind, hash: Hash) -> Option<&'static dyn VerificationAlgorithm> {
    Some(match (kind, hash) {
        (KeyKind::P256, Hash::Sha256) => &provider::ECDSA_P256_SHA256_ASN1,
        (KeyKind::P256, Hash::Sha384) => &provider::ECDSA_P256_SHA384_ASN1,
        (KeyKind::P256, Hash::Sha512) => &provider::ECDSA_P256_SHA512_ASN1,
        (KeyKind::P384, Hash::Sha256) => &provider::ECDSA_P384_SHA256_ASN1,
        (KeyKind::P384, Hash::Sha384) => &provider::ECDSA_P384_SHA384_ASN1,
        (KeyKind::P384, Hash::Sha512) => &provider::ECDSA_P384_SHA512_ASN1,
        (KeyKind::P521, Hash::Sha256) => &provider::ECDSA_P521_SHA256_ASN1,
        (KeyKind::P521, Hash::Sha384) => &provider::ECDSA_P521_SHA384_ASN1,
        (KeyKind::P521, Hash::Sha512) => &provider::ECDSA_P521_SHA512_ASN1,
        _ => return None,
    })
}

const RSA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");
const MGF1: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.8");
const RSA_PSS: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.10");
const EC: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
const P256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.3.1.7");
const P384: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.132.0.34");
const P521: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.132.0.35");
const ED25519: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.101.112");
const SHA1: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.14.3.2.26");
const SHA256: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.16.840.1.101.3.4.2.1");
const SHA384: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.16.840.1.101.3.4.2.2");
const SHA512: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.16.840.1.101.3.4.2.3");
