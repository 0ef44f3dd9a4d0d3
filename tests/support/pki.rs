//! Certification authorities for tests: keys, certificates and revocation lists of any kind.
#![allow(dead_code, reason = "each test program uses its own part")]
#![allow(
    clippy::unwrap_used,
    reason = "in a test, a failure of the scaffolding is a failure of the test"
)]

use lockgate::crypto::x509::{Certificate, Crl};
use lockgate::crypto::{PrivateKey, PublicKey};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CrlDistributionPoint,
    CrlIssuingDistributionPoint, DnType, IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose,
    PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_ECDSA_P521_SHA512, PKCS_ED25519,
    PKCS_RSA_SHA256, PublicKeyData, RevocationReason, RevokedCertParams, SanType, SerialNumber,
    SignatureAlgorithm,
};
use std::sync::Arc;

/// What keys are made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Rsa,
    P256,
    P384,
    P521,
    Ed25519,
}

impl Kind {
    pub(crate) const ALL: [Self; 5] =
        [Self::Rsa, Self::P256, Self::P384, Self::P521, Self::Ed25519];

    fn algorithm(self) -> &'static SignatureAlgorithm {
        match self {
            Self::Rsa => &PKCS_RSA_SHA256,
            Self::P256 => &PKCS_ECDSA_P256_SHA256,
            Self::P384 => &PKCS_ECDSA_P384_SHA384,
            Self::P521 => &PKCS_ECDSA_P521_SHA512,
            Self::Ed25519 => &PKCS_ED25519,
        }
    }

    pub(crate) fn key(self) -> KeyPair {
        KeyPair::generate_for(self.algorithm()).unwrap()
    }
}

/// A certificate with its private key.
pub(crate) struct Identity {
    pub(crate) key: KeyPair,
    pub(crate) params: CertificateParams,
    pub(crate) certificate: rcgen::Certificate,
}

impl Identity {
    pub(crate) fn certificate(&self) -> Arc<Certificate> {
        Arc::new(Certificate::from_der(self.certificate.der()).unwrap())
    }

    pub(crate) fn private_key(&self) -> Arc<PrivateKey> {
        private_key(&self.key)
    }

    fn issuer(&self) -> Issuer<'_, &KeyPair> {
        Issuer::from_params(&self.params, &self.key)
    }

    /// A certificate that this authority signs.
    pub(crate) fn sign(&self, kind: Kind, params: CertificateParams) -> Self {
        let key = kind.key();
        let certificate = params.signed_by(&key, &self.issuer()).unwrap();
        Self {
            key,
            params,
            certificate,
        }
    }

    /// Another certificate, by this authority, for an identity that has one.
    pub(crate) fn certify(&self, other: &Self) -> rcgen::Certificate {
        let params = other.params.clone();
        params.signed_by(&other.key, &self.issuer()).unwrap()
    }

    /// A certificate for this public key of RSA, whatever its numbers are, big-endian.
    pub(crate) fn certify_rsa(
        &self,
        params: CertificateParams,
        modulus: &[u8],
        exponent: &[u8],
    ) -> rcgen::Certificate {
        let key = RsaNumbers(piece(0x30, &[integer(modulus), integer(exponent)].concat()));
        params.signed_by(&key, &self.issuer()).unwrap()
    }

    /// An authority below this one.
    pub(crate) fn intermediate(&self, kind: Kind, name: &str) -> Self {
        self.sign(kind, authority_params(name, None))
    }

    /// A gateway's certificate with this name as its domain name and CN.
    pub(crate) fn gateway(&self, kind: Kind, name: &str) -> Self {
        self.sign(kind, gateway_params(name))
    }

    /// A revocation list of this authority, valid in the year 2026.
    pub(crate) fn list(&self, revoked: &[&Self]) -> Arc<Crl> {
        Arc::new(Crl::from_der(&self.list_der(revoked, (2026, 2027))).unwrap())
    }

    /// A list without entries that says that it is about the certificates that name this place.
    pub(crate) fn part(&self, uri: &str) -> Arc<Crl> {
        let point = CrlIssuingDistributionPoint {
            distribution_point: CrlDistributionPoint {
                uris: vec![uri.to_owned()],
            },
            scope: None,
        };
        let params = CertificateRevocationListParams {
            issuing_distribution_point: Some(point),
            ..list_params((2026, 2027))
        };
        let list = params.signed_by(&self.issuer()).unwrap();
        Arc::new(Crl::from_der(list.der()).unwrap())
    }

    /// The same as DER, valid from and until the first days of these years.
    pub(crate) fn list_der(&self, revoked: &[&Self], years: (i32, i32)) -> Vec<u8> {
        let entry = |identity: &&Self| RevokedCertParams {
            serial_number: identity.params.serial_number.clone().unwrap(),
            revocation_time: rcgen::date_time_ymd(2026, 1, 2),
            reason_code: Some(RevocationReason::KeyCompromise),
            invalidity_date: None,
        };
        let params = CertificateRevocationListParams {
            revoked_certs: revoked.iter().map(entry).collect(),
            ..list_params(years)
        };
        params.signed_by(&self.issuer()).unwrap().der().to_vec()
    }
}

fn list_params((from, until): (i32, i32)) -> CertificateRevocationListParams {
    CertificateRevocationListParams {
        this_update: rcgen::date_time_ymd(from, 1, 1),
        next_update: rcgen::date_time_ymd(until, 1, 1),
        crl_number: SerialNumber::from(1_u64),
        issuing_distribution_point: None,
        revoked_certs: Vec::new(),
        key_identifier_method: KeyIdMethod::Sha256,
    }
}

/// A root authority.
pub(crate) fn root(kind: Kind, name: &str) -> Identity {
    let (key, params) = (kind.key(), authority_params(name, None));
    let certificate = params.self_signed(&key).unwrap();
    Identity {
        key,
        params,
        certificate,
    }
}

pub(crate) fn authority_params(name: &str, path_len: Option<u8>) -> CertificateParams {
    let mut params = named(name);
    let constraints = path_len.map_or(
        BasicConstraints::Unconstrained,
        BasicConstraints::Constrained,
    );
    params.is_ca = IsCa::Ca(constraints);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

pub(crate) fn gateway_params(name: &str) -> CertificateParams {
    let mut params = named(name);
    params.subject_alt_names = vec![SanType::DnsName(name.try_into().unwrap())];
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.is_ca = IsCa::ExplicitNoCa;
    params
}

fn named(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.not_before = rcgen::date_time_ymd(2025, 1, 1);
    params.not_after = rcgen::date_time_ymd(2046, 1, 1);
    let mut subject = rcgen::DistinguishedName::new();
    subject.push(DnType::CountryName, "CH");
    subject.push(DnType::OrganizationName, "Example");
    subject.push(DnType::CommonName, name);
    params.distinguished_name = subject;
    params.use_authority_key_identifier_extension = true;
    let serial: u64 = name
        .bytes()
        .fold(7, |sum, byte| sum * 31 % 1_000_000_007 + u64::from(byte));
    params.serial_number = Some(SerialNumber::from(serial));
    params
}

/// Names a place of revocation lists in a certificate.
pub(crate) fn with_crl_uri(mut params: CertificateParams, uri: &str) -> CertificateParams {
    let uris = vec![uri.to_owned()];
    params.crl_distribution_points = vec![CrlDistributionPoint { uris }];
    params
}

/// An RSAPublicKey (RFC 8017 A.1.1).
struct RsaNumbers(Vec<u8>);

impl PublicKeyData for RsaNumbers {
    fn der_bytes(&self) -> &[u8] {
        &self.0
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        &PKCS_RSA_SHA256
    }
}

/// An element of DER.
fn piece(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = u16::try_from(content.len()).unwrap().to_be_bytes();
    let head = match length {
        [0, length @ ..0x80] => vec![tag, length],
        [0, length] => vec![tag, 0x81, length],
        [high, low] => vec![tag, 0x82, high, low],
    };
    [&head, content].concat()
}

/// A number that is not negative.
fn integer(digits: &[u8]) -> Vec<u8> {
    let is_signed = digits.first().is_some_and(|first| *first >= 0x80);
    let sign: &[u8] = if is_signed { &[0] } else { &[] };
    piece(2, &[sign, digits].concat())
}

/// Names an OCSP responder in a certificate (RFC 5280 §4.2.2.1).
pub(crate) fn with_ocsp_uri(mut params: CertificateParams, uri: &str) -> CertificateParams {
    let method = [6, 8, 0x2b, 6, 1, 5, 5, 7, 0x30, 1]; // id-ad-ocsp
    let description = piece(0x30, &[&method, &piece(0x86, uri.as_bytes())[..]].concat());
    let extension = rcgen::CustomExtension::from_oid_content(
        &[1, 3, 6, 1, 5, 5, 7, 1, 1],
        piece(0x30, &description),
    );
    params.custom_extensions.push(extension);
    params
}

pub(crate) fn private_key(key: &KeyPair) -> Arc<PrivateKey> {
    Arc::new(PrivateKey::load(key.serialize_pem().as_bytes(), None).unwrap())
}

pub(crate) fn public_key(key: &KeyPair) -> Arc<PublicKey> {
    Arc::new(private_key(key).public().clone())
}
