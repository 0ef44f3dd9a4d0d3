//! How the two sides of a connection prove who they are, as the configuration has it.

use std::sync::Arc;

use crate::crypto::signature::{Hash, KeyKind, Scheme};
use crate::crypto::x509::{AltName, Certificate, Crl, Path};
use crate::crypto::{PrivateKey, PublicKey};

use super::{Connection, Identity};

/// How we prove who we are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum LocalMethod {
    /// A pre-shared key of [`Pad::secrets`](super::Pad::secrets).
    #[default]
    Psk,
    /// A signature with one of these keys; which one is chosen by what the peer asks for.
    Signature {
        /// Never empty.
        keys: Vec<LocalKey>,
        /// What to sign with.
        schemes: SchemePolicy,
        /// When certificates are sent.
        send_cert: SendCert,
    },
}

/// A private key, and what certifies it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalKey {
    /// The key.
    pub key: Arc<PrivateKey>,
    /// Its certificate and those that lead to an authority; empty for a raw key.
    pub chain: Vec<Arc<Certificate>>,
}

/// When certificates are sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SendCert {
    /// If the peer has sent a certificate request.
    #[default]
    IfAsked,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// How the peer must prove who it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum RemoteMethod {
    /// A pre-shared key of [`Pad::secrets`](super::Pad::secrets).
    #[default]
    Psk,
    /// A signature by a key that is trusted.
    Signature(Arc<Trust>),
}

/// Whose signatures are accepted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trust {
    /// Raw public keys of the peer.
    pub keys: Vec<Arc<PublicKey>>,
    /// Certificates of the peer, trusted as they are.
    pub certificates: Vec<Arc<Certificate>>,
    /// Authorities whose certificates are trusted.
    pub authorities: Vec<Arc<Certificate>>,
    /// Which keys and schemes may sign.
    pub schemes: SchemePolicy,
    /// What is needed to know that no certificate was revoked.
    pub revocation: Revocation,
    /// Policies, of which the certificate must have one; any if empty.
    pub policies: Vec<String>,
    /// Whether we ask for certificates.
    pub send_certreq: bool,
}

/// What is needed to know that a certificate was not revoked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Revocation {
    /// Nothing, but one that is known to be revoked is refused.
    #[default]
    Relaxed,
    /// An answer, if the certificate or its authority names who would give it.
    IfUri,
    /// An answer.
    Strict,
}

/// Which keys and schemes a signature may be made with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SchemePolicy {
    /// Kinds of keys with the least strength in bits; any kind if empty.
    pub keys: Vec<(KeyClass, usize)>,
    /// Hashes; SHA-2 if empty.
    pub hashes: Vec<Hash>,
    /// RSA only with this padding.
    pub padding: Option<Padding>,
    /// It binds signatures of IKE and not those of certificates.
    pub only_ike: bool,
}

/// Kinds of keys as swanctl tells them apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyClass {
    /// RSA
    Rsa,
    /// ECDSA
    Ecdsa,
    /// Ed25519
    Ed25519,
}

/// Padding of RSA signatures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Padding {
    /// RSASSA-PSS
    Pss,
    /// RSASSA-PKCS1-v1_5
    Pkcs1,
}

/// A certification authority and where to ask about its certificates.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Authority {
    /// Name of its section.
    pub name: String,
    /// Its certificate.
    pub certificate: Arc<Certificate>,
    /// HTTP addresses of its revocation lists, besides those in certificates.
    pub crl_uris: Vec<String>,
    /// HTTP addresses of its OCSP responders, besides those in certificates.
    pub ocsp_uris: Vec<String>,
    /// Revocation lists from files.
    pub crls: Vec<Arc<Crl>>,
}

impl SchemePolicy {
    /// Whether this key may be used at all.
    pub fn allows_key(&self, key: &PublicKey) -> bool {
        let class = KeyClass::of(key.kind());
        let fits =
            |(allowed, least): &(KeyClass, usize)| *allowed == class && *least <= key.strength();
        self.keys.is_empty() || self.keys.iter().any(fits)
    }

    /// Whether this key may sign with this scheme.
    pub fn allows(&self, key: &PublicKey, scheme: Scheme) -> bool {
        self.allows_key(key) && self.may_allow(key.kind(), scheme)
    }

    /// What is too weak in a path, if these bind certificates: a key of a kind that they name, or a hash.
    pub(super) fn weakness_in(&self, path: &Path) -> Option<String> {
        if self.only_ike {
            return None;
        }
        for certificate in path.certificates() {
            let (key, subject) = (certificate.key(), certificate.subject());
            let class = KeyClass::of(key.kind());
            let named = self.keys.iter().filter(|(named, _)| *named == class);
            let least = named.map(|(_, least)| *least).min().unwrap_or_default();
            if key.strength() < least {
                return Some(format!("the key of {subject} is weaker than {least} bits"));
            }
        }
        for (certificate, issuer) in path.issued() {
            let hash = certificate.hash(issuer.key());
            let fits = |hash| self.hashes.is_empty() || self.hashes.contains(&hash);
            if let Some(hash) = hash.filter(|hash| !fits(*hash)) {
                let subject = certificate.subject();
                return Some(format!(
                    "the hash {hash} of {subject} is not one of those asked for"
                ));
            }
        }
        None
    }

    /// Whether a key of this kind may sign with this scheme, if it is strong enough.
    fn may_allow(&self, kind: KeyKind, scheme: Scheme) -> bool {
        let padding = match scheme {
            Scheme::RsaPss(_) => Some(Padding::Pss),
            Scheme::RsaPkcs1(_) => Some(Padding::Pkcs1),
            Scheme::Ecdsa(_) | Scheme::EcdsaFixed | Scheme::Ed25519 => None,
        };
        let padding_fits = padding.is_none() || self.padding.is_none() || padding == self.padding;
        let allowed = |hash| {
            let hashes = if self.hashes.is_empty() {
                &Hash::SHA2[..]
            } else {
                &self.hashes
            };
            hashes.contains(&hash)
        };
        let class = KeyClass::of(kind);
        let class_fits = self.keys.is_empty() || self.keys.iter().any(|(key, _)| *key == class);
        class_fits && padding_fits && scheme.hash(kind).is_none_or(allowed)
    }
}

impl KeyClass {
    fn of(kind: KeyKind) -> Self {
        match kind {
            KeyKind::Rsa => Self::Rsa,
            KeyKind::P256 | KeyKind::P384 | KeyKind::P521 => Self::Ecdsa,
            KeyKind::Ed25519 => Self::Ed25519,
        }
    }
}

impl Trust {
    /// Whether a key of this kind that signs with this scheme could be one that is trusted.
    pub(super) fn may_accept(&self, kind: KeyKind, scheme: Scheme) -> bool {
        let raw = self.keys.iter().map(|key| key.kind());
        let pinned = self.certificates.iter().map(|pinned| pinned.key().kind());
        let has_kind = !self.authorities.is_empty() || raw.chain(pinned).any(|known| known == kind);
        has_kind && scheme.is_for(kind) && self.schemes.may_allow(kind, scheme)
    }
}

impl LocalKey {
    /// The certificate of the key itself.
    pub fn certificate(&self) -> Option<&Arc<Certificate>> {
        self.chain.first()
    }
}

impl LocalMethod {
    /// The subject of our first certificate, which is our identity where none is configured.
    pub(super) fn default_identity(&self) -> Option<Identity> {
        let Self::Signature { keys, .. } = self else {
            return None;
        };
        let certificate = keys.first()?.certificate()?;
        Some(Identity::Dn(certificate.subject().clone()))
    }
}

impl LocalMethod {
    /// Whether this is `older` with other keys or certificates for the same identity.
    fn renews(&self, older: &Self) -> bool {
        let mut renewed = self.clone();
        if let (Self::Signature { keys, .. }, Self::Signature { keys: old, .. }) =
            (&mut renewed, older)
        {
            keys.clone_from(old);
        }
        renewed == *older && self.default_identity() == older.default_identity()
    }
}

impl RemoteMethod {
    /// Whether this accepts every key that `older` does, and asks for nothing else.
    fn includes(&self, older: &Self) -> bool {
        let (Self::Signature(new), Self::Signature(old)) = (self, older) else {
            return self == older;
        };
        let same = Trust {
            keys: old.keys.clone(),
            certificates: old.certificates.clone(),
            authorities: old.authorities.clone(),
            ..Trust::clone(new)
        };
        let has = |known: &[Arc<Certificate>], key: &PublicKey| {
            known.iter().any(|certificate| certificate.key() == key)
        };
        let keeps = |new: &[Arc<Certificate>], old: &[Arc<Certificate>]| {
            old.iter().all(|certificate| has(new, certificate.key()))
        };
        same == **old
            && old.keys.iter().all(|key| new.keys.contains(key))
            && keeps(&new.certificates, &old.certificates)
            && keeps(&new.authorities, &old.authorities)
    }
}

impl Connection {
    /// Whether its SAs may go on under `newer`: nothing differs but the keys and certificates that
    /// prove our identity, and whose keys are trusted besides those of before.
    pub fn goes_on_as(&self, newer: &Self) -> bool {
        let mut same = newer.clone();
        if newer.local.method.renews(&self.local.method) {
            same.local.method = self.local.method.clone();
        }
        if newer.remote.method.includes(&self.remote.method) {
            same.remote.method = self.remote.method.clone();
        }
        same == *self
    }
}

impl Identity {
    /// Whether a certificate was given to this identity: its subject, or one of its other names
    /// (RFC 4945 §3.1). Key IDs and types that we do not know are in no certificate.
    pub fn is_in(&self, certificate: &Certificate) -> bool {
        let mut names = certificate.alt_names().iter();
        match self {
            // Who has no name has it in common with all others.
            Self::Dn(name) if name.is_empty() => false,
            Self::Dn(name) => {
                let is_same =
                    |alt: &AltName| matches!(alt, AltName::Directory(other) if other == name);
                certificate.subject() == name || names.any(is_same)
            }
            Self::Fqdn(name) => {
                names.any(|alt| matches!(alt, AltName::Dns(dns) if dns.eq_ignore_ascii_case(name)))
            }
            Self::Email(name) => names
                .any(|alt| matches!(alt, AltName::Email(mail) if mail.eq_ignore_ascii_case(name))),
            Self::Ipv4(addr) => names.any(|alt| *alt == AltName::Address((*addr).into())),
            Self::Ipv6(addr) => names.any(|alt| *alt == AltName::Address((*addr).into())),
            Self::KeyId(_) | Self::Other { .. } => false,
        }
    }
}
