//! One certificate: what IKE needs of it.

use std::fmt;
use std::net::IpAddr;

use der::asn1::ObjectIdentifier;
use der::{Decode, Encode};
use rustls_pki_types::{CertificateDer, UnixTime};
use x509_cert::ext::pkix::name::{DistributionPointName, GeneralName};
use x509_cert::ext::pkix::{
    AuthorityInfoAccessSyntax, BasicConstraints, CertificatePolicies, CrlDistributionPoints,
    ExtendedKeyUsage, KeyUsage, SubjectAltName,
};

use super::DistinguishedName;
use crate::crypto::signature::{Hash, Scheme};
use crate::crypto::{PublicKey, pem};

/// A certificate of a key that we can verify with. Reading it checks no signature.
pub struct Certificate {
    der: CertificateDer<'static>,
    subject: DistinguishedName,
    /// The issuer's name as DER.
    issuer: Box<[u8]>,
    /// As DER holds it: without needless zeros.
    serial: Box<[u8]>,
    key: PublicKey,
    not_before: UnixTime,
    not_after: UnixTime,
    alt_names: Vec<AltName>,
    usage: Option<KeyUsage>,
    purposes: Vec<ObjectIdentifier>,
    authority: Option<Authority>,
    crl_uris: Vec<String>,
    ocsp_uris: Vec<String>,
    /// It names places of revocation information, of whatever kind.
    names_places: bool,
    /// How its issuer has signed it, as far as we know that.
    scheme: Option<Scheme>,
    policies: Vec<ObjectIdentifier>,
}

/// What basicConstraints says of an authority.
#[derive(Clone, Copy)]
struct Authority {
    path_len: Option<u8>,
}

/// A name besides the subject.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AltName {
    /// dNSName
    Dns(String),
    /// rfc822Name
    Email(String),
    /// iPAddress
    Address(IpAddr),
    /// directoryName
    Directory(DistinguishedName),
}

/// Why bytes are not a certificate that can be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CertificateError {
    /// Not the DER of a certificate.
    #[error("not an X.509 certificate")]
    Malformed,
    /// Its key is of another kind.
    #[error("the key is not one that is supported (RSA, ECDSA on P-256, P-384 or P-521, Ed25519)")]
    Key,
    /// More than [`Certificate::MOST_BYTES`].
    #[error("longer than {} bytes", Certificate::MOST_BYTES)]
    TooLong,
}

impl Certificate {
    /// No honest certificate is longer.
    pub const MOST_BYTES: usize = 16 * 1024;

    /// Reads DER.
    pub fn from_der(der: &[u8]) -> Result<Self, CertificateError> {
        if der.len() > Self::MOST_BYTES {
            return Err(CertificateError::TooLong);
        }
        let parsed = x509_cert::Certificate::from_der(der).ok();
        Self::from_parsed(&parsed.ok_or(CertificateError::Malformed)?, der)
    }

    /// Reads the certificates of a file: one as DER, or any number as PEM.
    pub fn load(bytes: &[u8]) -> Result<Vec<Self>, CertificateError> {
        let Some(objects) = pem::objects(bytes) else {
            return Ok(vec![Self::from_der(bytes)?]);
        };
        let objects = objects.map_err(|_| CertificateError::Malformed)?;
        let certificates: Vec<_> = objects
            .iter()
            .filter(|object| object.label.ends_with("CERTIFICATE"))
            .map(|object| Self::from_der(&object.der))
            .collect::<Result<_, _>>()?;
        if certificates.is_empty() {
            return Err(CertificateError::Malformed);
        }
        Ok(certificates)
    }

    fn from_parsed(
        certificate: &x509_cert::Certificate,
        der: &[u8],
    ) -> Result<Self, CertificateError> {
        let malformed = |_| CertificateError::Malformed;
        let tbs = certificate.tbs_certificate();
        let spki = tbs.subject_public_key_info().to_der().map_err(malformed)?;
        let subject = tbs.subject().to_der().map_err(malformed)?;
        let alternatives = tbs.get_extension::<SubjectAltName>().map_err(malformed)?;
        let alternatives = alternatives.map_or_else(Vec::new, |(_, names)| names.0);
        let constraints = tbs.get_extension::<BasicConstraints>().map_err(malformed)?;
        let usage = tbs.get_extension::<KeyUsage>().map_err(malformed)?;
        let purposes = tbs.get_extension::<ExtendedKeyUsage>().map_err(malformed)?;
        let policies = tbs
            .get_extension::<CertificatePolicies>()
            .map_err(malformed)?;
        let points = tbs
            .get_extension::<CrlDistributionPoints>()
            .map_err(malformed)?;
        let access = tbs
            .get_extension::<AuthorityInfoAccessSyntax>()
            .map_err(malformed)?;
        let algorithm = tbs.signature().to_der().map_err(malformed)?;
        let validity = tbs.validity();
        let time =
            |time: x509_cert::time::Time| UnixTime::since_unix_epoch(time.to_unix_duration());
        Ok(Self {
            der: CertificateDer::from(der.to_vec()),
            subject: DistinguishedName::from_der(&subject).ok_or(CertificateError::Malformed)?,
            issuer: tbs.issuer().to_der().map_err(malformed)?.into(),
            serial: tbs.serial_number().as_bytes().into(),
            key: PublicKey::from_spki(&spki).map_err(|_| CertificateError::Key)?,
            not_before: time(validity.not_before),
            not_after: time(validity.not_after),
            alt_names: alternatives.iter().filter_map(AltName::read).collect(),
            usage: usage.map(|(_, usage)| usage),
            purposes: purposes.map_or_else(Vec::new, |(_, purposes)| purposes.0),
            authority: constraints.filter(|(_, constraints)| constraints.ca).map(
                |(_, constraints)| Authority {
                    path_len: constraints.path_len_constraint,
                },
            ),
            names_places: points
                .as_ref()
                .is_some_and(|(_, points)| !points.0.is_empty())
                || access
                    .as_ref()
                    .is_some_and(|(_, access)| ocsp(access).next().is_some()),
            crl_uris: points.map_or_else(Vec::new, |(_, points)| crl_uris(&points)),
            ocsp_uris: access.map_or_else(Vec::new, |(_, access)| ocsp_uris(&access)),
            scheme: Scheme::from_algorithm_identifier(&algorithm),
            policies: policies.map_or_else(Vec::new, |(_, policies)| {
                let policies = policies.0.into_iter();
                policies.map(|policy| policy.policy_identifier).collect()
            }),
        })
    }

    /// The certificate as it was read.
    pub fn der(&self) -> &CertificateDer<'static> {
        &self.der
    }

    /// Whom it is for.
    pub fn subject(&self) -> &DistinguishedName {
        &self.subject
    }

    /// The issuer's name as DER.
    pub fn issuer(&self) -> &[u8] {
        &self.issuer
    }

    /// The issuer's number for it.
    pub fn serial(&self) -> &[u8] {
        &self.serial
    }

    /// The key that it certifies.
    pub fn key(&self) -> &PublicKey {
        &self.key
    }

    /// Other names of the subject.
    pub fn alt_names(&self) -> &[AltName] {
        &self.alt_names
    }

    /// HTTP addresses of revocation lists about it.
    pub fn crl_uris(&self) -> &[String] {
        &self.crl_uris
    }

    /// HTTP addresses of who answers whether it was revoked (RFC 6960 §3.1).
    pub fn ocsp_uris(&self) -> &[String] {
        &self.ocsp_uris
    }

    /// Whether it names a place of revocation information, even one that cannot be asked.
    pub fn names_places(&self) -> bool {
        self.names_places
    }

    /// The hash below its signature, which a key of `issuer` has made; absent where the scheme hashes by
    /// itself or is not known.
    pub fn hash(&self, issuer: &PublicKey) -> Option<Hash> {
        self.scheme?.hash(issuer.kind())
    }

    /// Whether it is for an authority.
    pub fn is_authority(&self) -> bool {
        self.authority.is_some()
    }

    /// Intermediate authorities that may follow it in a path.
    pub(super) fn path_len(&self) -> Option<u8> {
        self.authority.and_then(|authority| authority.path_len)
    }

    /// Whether `now` is between its dates.
    pub fn is_valid_at(&self, now: UnixTime) -> bool {
        self.not_before.as_secs() <= now.as_secs() && now.as_secs() <= self.not_after.as_secs()
    }

    /// When it ends.
    pub fn not_after(&self) -> UnixTime {
        self.not_after
    }

    /// Whether its key may sign IKE_AUTH: keyUsage, where present, has digitalSignature or
    /// nonRepudiation (RFC 4945 §5.1.3.2).
    pub fn may_sign(&self) -> bool {
        self.usage
            .is_none_or(|usage| usage.digital_signature() || usage.non_repudiation())
    }

    /// Whether its key may sign certificates: keyUsage, where present, has keyCertSign (RFC 5280 §4.2.1.3).
    pub(super) fn may_sign_certificates(&self) -> bool {
        self.usage.is_none_or(|usage| usage.key_cert_sign())
    }

    /// Whether its key may sign revocation lists (RFC 5280 §6.3.3).
    pub(super) fn may_sign_crls(&self) -> bool {
        self.usage.is_none_or(|usage| usage.crl_sign())
    }

    /// Whether its extendedKeyUsage names this purpose.
    pub(super) fn has_purpose(&self, purpose: ObjectIdentifier) -> bool {
        self.purposes.contains(&purpose)
    }

    /// Whether it was issued under this policy, as dotted numbers.
    pub fn has_policy(&self, policy: &str) -> bool {
        let policy = ObjectIdentifier::new(policy);
        policy.is_ok_and(|policy| self.policies.contains(&policy))
    }

    /// Whether an authority with this certificate may issue under a policy (RFC 5280 §6.1.3).
    pub(super) fn may_issue_under(&self, policy: &str) -> bool {
        self.has_policy(policy) || self.policies.contains(&ANY_POLICY)
    }
}

impl AltName {
    fn read(name: &GeneralName) -> Option<Self> {
        match name {
            GeneralName::DnsName(name) => Some(Self::Dns(name.as_str().to_owned())),
            GeneralName::Rfc822Name(name) => Some(Self::Email(name.as_str().to_owned())),
            GeneralName::IpAddress(octets) => {
                let bytes = octets.as_bytes();
                let v4 = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
                let v6 = <[u8; 16]>::try_from(bytes).map(IpAddr::from);
                v4.or(v6).ok().map(Self::Address)
            }
            GeneralName::DirectoryName(name) => {
                DistinguishedName::from_der(&name.to_der().ok()?).map(Self::Directory)
            }
            _ => None,
        }
    }
}

impl PartialEq for Certificate {
    fn eq(&self, other: &Self) -> bool {
        self.der == other.der
    }
}

impl Eq for Certificate {}

impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Certificate({})", self.subject)
    }
}

fn crl_uris(points: &CrlDistributionPoints) -> Vec<String> {
    let names = points.0.iter().filter_map(|point| {
        // A list of another issuer, or about some reasons only, cannot answer.
        let whole = point.crl_issuer.is_none() && point.reasons.is_none();
        match point.distribution_point.as_ref().filter(|_| whole)? {
            DistributionPointName::FullName(names) => Some(names),
            DistributionPointName::NameRelativeToCRLIssuer(_) => None,
        }
    });
    names
        .flatten()
        .filter_map(http_uri)
        .take(MOST_URIS)
        .collect()
}

fn ocsp_uris(access: &AuthorityInfoAccessSyntax) -> Vec<String> {
    ocsp(access).filter_map(http_uri).take(MOST_URIS).collect()
}

/// Where OCSP responders are.
fn ocsp(access: &AuthorityInfoAccessSyntax) -> impl Iterator<Item = &GeneralName> {
    let responders = access
        .0
        .iter()
        .filter(|access| access.access_method == OCSP);
    responders.map(|access| &access.access_location)
}

pub(super) fn http_uri(name: &GeneralName) -> Option<String> {
    let GeneralName::UniformResourceIdentifier(uri) = name else {
        return None;
    };
    let uri = uri.as_str();
    let is_http = uri
        .get(..7)
        .is_some_and(|scheme| scheme.eq_ignore_ascii_case("http://"));
    let is_plain = uri.len() <= MOST_URI_BYTES && uri.bytes().all(|byte| byte.is_ascii_graphic());
    (is_http && is_plain).then(|| uri.to_owned())
}

const OCSP: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.48.1");
const ANY_POLICY: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.32.0");
const MOST_URIS: usize = 4;
const MOST_URI_BYTES: usize = 512;
