//! Certificate revocation lists (RFC 5280 §5).

use std::collections::HashSet;
use std::fmt;
use std::sync::OnceLock;

use der::asn1::{AnyRef, BitStringRef, ObjectIdentifier};
use der::{Decode, Encode, Sequence};
use rustls_pki_types::UnixTime;
use x509_cert::crl::CertificateList;
use x509_cert::ext::pkix::CrlReason;
use x509_cert::ext::pkix::crl::IssuingDistributionPoint;
use x509_cert::ext::pkix::name::DistributionPointName;

use super::certificate::http_uri;
use super::{Certificate, Status};
use crate::crypto::PublicKey;
use crate::crypto::pem;
use crate::crypto::signature::{Hash, Scheme};

/// A complete list of one issuer. Reading it checks no signature; [`Crl::status`] does.
pub struct Crl {
    issuer: Box<[u8]>,
    this_update: UnixTime,
    next_update: Option<UnixTime>,
    revoked: HashSet<Box<[u8]>>,
    scope: Scope,
    /// The list is one of several: about certificates that name one of these addresses.
    part: Option<Vec<String>>,
    signed: Signed,
    /// The key that was seen to have signed it.
    signer: OnceLock<PublicKey>,
}

/// Which certificates it speaks of.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Scope {
    All,
    Users,
    Authorities,
    /// Some other part, or in a way we do not know: it answers nothing.
    Unusable,
}

/// Bytes and the signature over them.
pub(super) struct Signed {
    tbs: Box<[u8]>,
    scheme: Option<Scheme>,
    signature: Box<[u8]>,
}

/// The outer form of everything that authorities sign.
#[derive(Sequence)]
struct SignedRef<'a> {
    tbs: AnyRef<'a>,
    algorithm: AnyRef<'a>,
    signature: BitStringRef<'a>,
}

/// Bytes that are not a revocation list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a certificate revocation list")]
pub struct MalformedCrl;

impl Signed {
    pub(super) fn new(
        tbs: AnyRef<'_>,
        algorithm: AnyRef<'_>,
        signature: BitStringRef<'_>,
    ) -> Option<Self> {
        Some(Self {
            tbs: tbs.to_der().ok()?.into(),
            scheme: Scheme::from_algorithm_identifier(&algorithm.to_der().ok()?),
            signature: signature.as_bytes()?.into(),
        })
    }

    /// SHA-1 proves nothing: whoever has one signature may have another text for it.
    pub(super) fn is_by(&self, key: &PublicKey) -> bool {
        let scheme = self.scheme;
        let scheme = scheme.filter(|scheme| scheme.hash(key.kind()) != Some(Hash::Sha1));
        scheme.is_some_and(|scheme| key.verify(scheme, &self.tbs, &self.signature).is_ok())
    }
}

impl Crl {
    /// Longer ones are not read: files and downloads end here.
    pub const MOST_BYTES: usize = 8 * 1024 * 1024;

    /// Reads a list as DER or PEM.
    pub fn load(bytes: &[u8]) -> Result<Self, MalformedCrl> {
        match pem::objects(bytes) {
            None => Self::from_der(bytes),
            Some(objects) => {
                let objects = objects.map_err(|_| MalformedCrl)?;
                let mut lists = objects.iter().filter(|object| object.label == "X509 CRL");
                Self::from_der(&lists.next().ok_or(MalformedCrl)?.der)
            }
        }
    }

    /// Reads DER.
    pub fn from_der(der: &[u8]) -> Result<Self, MalformedCrl> {
        if der.len() > Self::MOST_BYTES {
            return Err(MalformedCrl);
        }
        let outer = SignedRef::from_der(der).map_err(|_| MalformedCrl)?;
        let list = CertificateList::<x509_cert::certificate::Rfc5280>::from_der(der);
        let list = list.map_err(|_| MalformedCrl)?.tbs_cert_list;
        let time =
            |time: x509_cert::time::Time| UnixTime::since_unix_epoch(time.to_unix_duration());
        let (mut scope, mut part) = (Scope::All, None);
        let mut usable = true;
        for extension in list.crl_extensions.iter().flatten() {
            match extension.extn_id {
                DISTRIBUTION_POINT => {
                    (scope, part) = scope_of(extension.extn_value.as_bytes());
                }
                DELTA => usable = false,
                _ => usable &= !extension.critical,
            }
        }
        let mut revoked = HashSet::new();
        for entry in list.revoked_certificates.unwrap_or_default() {
            let extensions = entry.crl_entry_extensions.as_deref().unwrap_or_default();
            usable &= !extensions.iter().any(|extension| extension.critical);
            let removed = extensions.iter().any(|extension| {
                extension.extn_id == REASON
                    && CrlReason::from_der(extension.extn_value.as_bytes())
                        .is_ok_and(|reason| reason == CrlReason::RemoveFromCRL)
            });
            if !removed {
                revoked.insert(entry.serial_number.as_bytes().into());
            }
        }
        Ok(Self {
            issuer: list.issuer.to_der().map_err(|_| MalformedCrl)?.into(),
            this_update: time(list.this_update),
            next_update: list.next_update.map(time),
            revoked,
            scope: if usable { scope } else { Scope::Unusable },
            part,
            signed: Signed::new(outer.tbs, outer.algorithm, outer.signature).ok_or(MalformedCrl)?,
            signer: OnceLock::new(),
        })
    }

    /// The issuer's name as DER.
    pub fn issuer(&self) -> &[u8] {
        &self.issuer
    }

    /// Whether a newer one is to be had.
    pub fn is_stale(&self, now: UnixTime) -> bool {
        self.next_update
            .is_none_or(|next| next.as_secs() < now.as_secs())
    }

    /// What it says of a certificate of this issuer.
    pub fn status(&self, certificate: &Certificate, issuer: &Certificate, now: UnixTime) -> Status {
        if *self.issuer != *certificate.issuer() || *self.issuer != *issuer.subject().der() {
            return Status::Unknown("the list is of another issuer");
        }
        match self.scope {
            Scope::All => {}
            Scope::Users if !certificate.is_authority() => {}
            Scope::Authorities if certificate.is_authority() => {}
            _ => return Status::Unknown("the list is not about this certificate"),
        }
        let is_of_part = |part: &Vec<String>| {
            let mut named = certificate.crl_uris().iter();
            named.any(|uri| part.contains(uri))
        };
        if !self.part.as_ref().is_none_or(is_of_part) {
            return Status::Unknown("the list is about other certificates of the issuer");
        }
        if !issuer.may_sign_crls() || !self.is_signed_by(issuer.key()) {
            return Status::Unknown("the list is not signed by the issuer");
        }
        if self.this_update.as_secs() > now.as_secs() {
            return Status::Unknown("the list is not valid yet");
        }
        // What was revoked once stays so, however old the list is.
        if self.revoked.contains(certificate.serial()) {
            return Status::Revoked;
        }
        if self.is_stale(now) {
            return Status::Unknown("the list is stale");
        }
        Status::Good
    }

    /// Whether it can stand for an older one of this issuer.
    pub fn replaces(&self, older: &Self) -> bool {
        self.issuer == older.issuer && self.this_update.as_secs() >= older.this_update.as_secs()
    }

    /// Whether this key has signed it.
    pub fn is_signed_by(&self, key: &PublicKey) -> bool {
        if let Some(signer) = self.signer.get() {
            return signer == key;
        }
        let signed = self.signed.is_by(key);
        if signed {
            _ = self.signer.set(key.clone());
        }
        signed
    }
}

/// What an issuing distribution point (RFC 5280 §5.2.5) leaves of a list.
fn scope_of(extension: &[u8]) -> (Scope, Option<Vec<String>>) {
    let Ok(point) = IssuingDistributionPoint::from_der(extension) else {
        return (Scope::Unusable, None);
    };
    let part = match &point.distribution_point {
        None => None,
        Some(DistributionPointName::FullName(names)) => {
            Some(names.iter().filter_map(http_uri).collect())
        }
        Some(DistributionPointName::NameRelativeToCRLIssuer(_)) => return (Scope::Unusable, None),
    };
    let partial = point.only_some_reasons.is_some()
        || point.indirect_crl
        || point.only_contains_attribute_certs;
    let scope = match (point.only_contains_user_certs, point.only_contains_ca_certs) {
        _ if partial => Scope::Unusable,
        (false, false) => Scope::All,
        (true, false) => Scope::Users,
        (false, true) => Scope::Authorities,
        (true, true) => Scope::Unusable,
    };
    (scope, part)
}

impl fmt::Debug for Crl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Crl({} revoked)", self.revoked.len())
    }
}

impl PartialEq for Crl {
    fn eq(&self, other: &Self) -> bool {
        self.signed.tbs == other.signed.tbs && self.signed.signature == other.signed.signature
    }
}

impl Eq for Crl {}

const DISTRIBUTION_POINT: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.28");
const DELTA: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.27");
const REASON: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.21");
