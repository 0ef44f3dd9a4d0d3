//! Private keys: PKCS#8 (also encrypted), PKCS#1 and SEC1, as PEM or DER.

use std::fmt;

use aws_lc_rs::encoding::{AsDer, PublicKeyX509Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    self as provider, EcdsaKeyPair, EcdsaSigningAlgorithm, Ed25519KeyPair, KeyPair, RsaEncoding,
    RsaKeyPair,
};
use der::asn1::OctetStringRef;
use der::{Decode, Sequence};
use pkcs8::EncryptedPrivateKeyInfoRef;
use x509_cert::spki::AlgorithmIdentifierRef;

use super::pem;
use super::signature::{Hash, KeyKind, PublicKey, Scheme};

/// A private key that signs. Its secret half stays inside the provider, which erases it when
/// dropped.
pub struct PrivateKey {
    pair: Pair,
    public: PublicKey,
}

enum Pair {
    Rsa(RsaKeyPair),
    /// The same key for signatures as DER and as `r ‖ s`.
    Ecdsa(Box<[EcdsaKeyPair; 2]>),
    Ed25519(Ed25519KeyPair),
}

/// Why bytes are not a private key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PrivateKeyError {
    /// Neither PEM nor DER of a supported key.
    #[error(
        "not a private key that is supported (RSA of 2048 bits or more, ECDSA, Ed25519; PKCS#8, PKCS#1 or SEC1)"
    )]
    Unsupported,
    /// The PEM encoding is broken.
    #[error("not valid PEM")]
    Pem,
    /// Encrypted, and no passphrase is given.
    #[error("is encrypted; it needs a passphrase")]
    Encrypted,
    /// Encrypted in the way of PEM headers, or with an algorithm that is not safe.
    #[error("is encrypted in an old way; convert it with: openssl pkcs8 -topk8 -v2 aes-256-cbc")]
    OldEncryption,
    /// It does not open with this passphrase.
    #[error("does not open with this passphrase")]
    WrongPassphrase,
}

impl PrivateKey {
    /// Reads a key from the contents of a file. The passphrase is for encrypted PKCS#8 and is not
    /// used otherwise.
    pub fn load(bytes: &[u8], passphrase: Option<&[u8]>) -> Result<Self, PrivateKeyError> {
        let text = std::str::from_utf8(bytes).unwrap_or_default();
        if text.contains("Proc-Type: 4,ENCRYPTED") {
            return Err(PrivateKeyError::OldEncryption);
        }
        match pem::objects(bytes) {
            None => Self::from_der(bytes, passphrase),
            Some(objects) => {
                let objects = objects.map_err(|_| PrivateKeyError::Pem)?;
                let mut keys = objects
                    .iter()
                    .filter(|object| object.label.ends_with("PRIVATE KEY"));
                let key = keys.next().ok_or(PrivateKeyError::Unsupported)?;
                Self::from_der(&key.der, passphrase)
            }
        }
    }

    fn from_der(der: &[u8], passphrase: Option<&[u8]>) -> Result<Self, PrivateKeyError> {
        let Ok(encrypted) = EncryptedPrivateKeyInfoRef::try_from(der) else {
            if Encrypted::from_der(der).is_ok() {
                return Err(PrivateKeyError::OldEncryption);
            }
            return Self::from_plain(der).ok_or(PrivateKeyError::Unsupported);
        };
        let passphrase = passphrase.ok_or(PrivateKeyError::Encrypted)?;
        let scheme = encrypted.encryption_algorithm.pbes2();
        if scheme.is_none() {
            return Err(PrivateKeyError::OldEncryption);
        }
        let opened = encrypted.decrypt(passphrase);
        let opened = opened.map_err(|_| PrivateKeyError::WrongPassphrase)?;
        Self::from_plain(opened.as_bytes()).ok_or(PrivateKeyError::WrongPassphrase)
    }

    fn from_plain(der: &[u8]) -> Option<Self> {
        let rsa = || {
            let pair = RsaKeyPair::from_pkcs8(der).or_else(|_| RsaKeyPair::from_der(der));
            let pair = pair.ok()?;
            let spki = pair.public_key().as_der().ok()?;
            Some((Pair::Rsa(pair), spki))
        };
        let ecdsa = || CURVES.iter().find_map(|curve| ecdsa(der, *curve));
        let ed25519 = || {
            let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(der).ok()?;
            let spki = pair.public_key().as_der().ok()?;
            Some((Pair::Ed25519(pair), spki))
        };
        let (pair, spki) = rsa().or_else(ecdsa).or_else(ed25519)?;
        let public = PublicKey::from_spki(spki.as_ref()).ok()?;
        Some(Self { pair, public })
    }

    /// The public half.
    pub fn public(&self) -> &PublicKey {
        &self.public
    }

    /// What this key can sign with, best first.
    pub fn schemes(&self) -> Vec<Scheme> {
        match self.public.kind() {
            KeyKind::Rsa => {
                let pss = Hash::SHA2.map(Scheme::RsaPss);
                pss.into_iter()
                    .chain(Hash::SHA2.map(Scheme::RsaPkcs1))
                    .collect()
            }
            KeyKind::P256 => vec![Scheme::Ecdsa(Hash::Sha256), Scheme::EcdsaFixed],
            KeyKind::P384 => vec![Scheme::Ecdsa(Hash::Sha384), Scheme::EcdsaFixed],
            KeyKind::P521 => vec![Scheme::Ecdsa(Hash::Sha512), Scheme::EcdsaFixed],
            KeyKind::Ed25519 => vec![Scheme::Ed25519],
        }
    }

    /// Signs a message with one of [`Self::schemes`]; `None` for any other.
    ///
    /// RSA-PSS salts and ECDSA nonces come from the provider's own generator.
    pub fn sign(&self, scheme: Scheme, message: &[u8]) -> Option<Vec<u8>> {
        if !self.schemes().contains(&scheme) {
            return None;
        }
        match (&self.pair, scheme) {
            (Pair::Rsa(pair), _) => {
                let mut signature = vec![0; pair.public_modulus_len()];
                let encoding = rsa_encoding(scheme)?;
                let signed = pair.sign(encoding, &SystemRandom::new(), message, &mut signature);
                signed.ok().map(|()| signature)
            }
            (Pair::Ecdsa(pairs), _) => {
                let [as_der, fixed] = &**pairs;
                let pair = if scheme == Scheme::EcdsaFixed {
                    fixed
                } else {
                    as_der
                };
                let signature = pair.sign(&SystemRandom::new(), message).ok()?;
                Some(signature.as_ref().to_vec())
            }
            (Pair::Ed25519(pair), _) => Some(pair.sign(message).as_ref().to_vec()),
        }
    }
}

/// An EncryptedPrivateKeyInfo (RFC 5958 §3) of any algorithm, PKCS#12's own among them.
#[derive(Sequence)]
struct Encrypted<'a> {
    _algorithm: AlgorithmIdentifierRef<'a>,
    _data: &'a OctetStringRef,
}

/// Keys are the same if their public halves are.
impl PartialEq for PrivateKey {
    fn eq(&self, other: &Self) -> bool {
        self.public == other.public
    }
}

impl Eq for PrivateKey {}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PrivateKey(of {:?})", self.public)
    }
}

type Curve = [&'static EcdsaSigningAlgorithm; 2];

/// Each with its signatures as DER and as `r ‖ s`.
const CURVES: [Curve; 3] = [
    [
        &provider::ECDSA_P256_SHA256_ASN1_SIGNING,
        &provider::ECDSA_P256_SHA256_FIXED_SIGNING,
    ],
    [
        &provider::ECDSA_P384_SHA384_ASN1_SIGNING,
        &provider::ECDSA_P384_SHA384_FIXED_SIGNING,
    ],
    [
        &provider::ECDSA_P521_SHA512_ASN1_SIGNING,
        &provider::ECDSA_P521_SHA512_FIXED_SIGNING,
    ],
];

fn ecdsa(der: &[u8], curve: Curve) -> Option<(Pair, PublicKeyX509Der<'static>)> {
    let load = |algorithm| {
        let pair = EcdsaKeyPair::from_pkcs8(algorithm, der);
        pair.or_else(|_| EcdsaKeyPair::from_private_key_der(algorithm, der))
            .ok()
    };
    let [as_der, fixed] = curve.map(load);
    let pairs = [as_der?, fixed?];
    let [pair, _] = &pairs;
    let spki = pair.public_key().as_der().ok()?;
    Some((Pair::Ecdsa(Box::new(pairs)), spki))
}

fn rsa_encoding(scheme: Scheme) -> Option<&'static dyn RsaEncoding> {
    Some(match scheme {
        Scheme::RsaPkcs1(Hash::Sha256) => &provider::RSA_PKCS1_SHA256,
        Scheme::RsaPkcs1(Hash::Sha384) => &provider::RSA_PKCS1_SHA384,
        Scheme::RsaPkcs1(Hash::Sha512) => &provider::RSA_PKCS1_SHA512,
        Scheme::RsaPss(Hash::Sha256) => &provider::RSA_PSS_SHA256,
        Scheme::RsaPss(Hash::Sha384) => &provider::RSA_PSS_SHA384,
        Scheme::RsaPss(Hash::Sha512) => &provider::RSA_PSS_SHA512,
        _ => return None,
    })
}
