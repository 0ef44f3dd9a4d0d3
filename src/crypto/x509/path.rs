//! Paths from a certificate to an authority that is trusted (RFC 5280 §6, RFC 4945 §5).

use std::sync::Arc;

use aws_lc_rs::signature::UnparsedPublicKey;
use rustls_pki_types::{
    AlgorithmIdentifier, InvalidSignature, SignatureVerificationAlgorithm, TrustAnchor, UnixTime,
    alg_id,
};
use webpki::{EndEntityCert, ExtendedKeyUsageValidator, KeyPurposeId, KeyPurposeIdIter};

use super::Certificate;
use crate::crypto::signature::{Hash, KeyKind, Scheme, verification};

/// A certificate and its issuers, up to one that is trusted. Each was signed by the next one, and
/// all are valid now.
#[derive(Clone, Debug)]
pub struct Path(Vec<Arc<Certificate>>);

/// Why no path was found.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// keyUsage does not allow signatures.
    #[error("its keyUsage allows no signatures")]
    Usage,
    /// What the library found.
    #[error("{}", explain(.0))]
    Invalid(webpki::Error),
    /// The authority's own pathLenConstraint.
    #[error("the path is longer than its authority allows")]
    TooLong,
}

impl Path {
    /// Finds a path from `certificate` to one of `anchors`, over `intermediates` in any order.
    pub fn build(
        certificate: &Arc<Certificate>,
        intermediates: &[Arc<Certificate>],
        anchors: &[Arc<Certificate>],
        now: UnixTime,
    ) -> Result<Self, PathError> {
        if !certificate.may_sign() {
            return Err(PathError::Usage);
        }
        let trusted = |anchor: &&Arc<Certificate>| {
            anchor.is_authority() && anchor.is_valid_at(now) && anchor.may_sign_certificates()
        };
        let (authorities, anchors): (Vec<_>, Vec<_>) = anchors
            .iter()
            .filter(trusted)
            .filter_map(|anchor| {
                let trust = webpki::anchor_from_trusted_cert(anchor.der()).ok()?;
                Some((Arc::clone(anchor), trust))
            })
            .unzip();
        let others: Vec<_> = intermediates
            .iter()
            .filter(|cert| cert.may_sign_certificates())
            .map(|cert| cert.der().clone())
            .collect();
        let end = EndEntityCert::try_from(certificate.der()).map_err(PathError::Invalid)?;
        let algorithms: Vec<&dyn SignatureVerificationAlgorithm> =
            ALGORITHMS.iter().map(|algorithm| algorithm as _).collect();
        let path = end
            .verify_for_usage(&algorithms, &anchors, &others, now, IkePurpose, None, None)
            .map_err(PathError::Invalid)?;

        let mut chain = vec![Arc::clone(certificate)];
        for issuer in path.intermediate_certificates() {
            let same = |cert: &&Arc<Certificate>| *cert.der() == issuer.der();
            chain.extend(intermediates.iter().find(same).cloned());
        }
        let is_anchor = |trust: &TrustAnchor<'_>| std::ptr::eq(trust, path.anchor());
        let place = anchors.iter().position(is_anchor);
        let anchor = place.and_then(|place| authorities.get(place));
        let anchor = anchor.expect("the library chose one of the anchors it was given");
        if anchor
            .path_len()
            .is_some_and(|most| chain.len() > usize::from(most) + 1)
        {
            return Err(PathError::TooLong);
        }
        chain.push(Arc::clone(anchor));
        Ok(Self(chain))
    }

    /// The certificates, each before its issuer.
    pub fn certificates(&self) -> &[Arc<Certificate>] {
        &self.0
    }

    /// Whether the certificate was issued under this policy, as every authority below the one that is
    /// trusted may do (RFC 5280 §6.1). Mapped policies do not count.
    pub fn has_policy(&self, policy: &str) -> bool {
        let [leaf, authorities @ .., _anchor] = &*self.0 else {
            return false;
        };
        let mut authorities = authorities.iter();
        leaf.has_policy(policy) && authorities.all(|authority| authority.may_issue_under(policy))
    }

    /// Each certificate that somebody else issued, with its issuer.
    pub fn issued(&self) -> impl Iterator<Item = (&Arc<Certificate>, &Arc<Certificate>)> {
        self.0.iter().zip(self.0.iter().skip(1))
    }
}

/// Purposes under which a certificate may authenticate IKE: those made for IPsec, and those of TLS,
/// since most gateways are certified with them. One that names no purpose is for any (RFC 4945
/// §5.1.3.12).
struct IkePurpose;

impl ExtendedKeyUsageValidator for IkePurpose {
    fn validate(&self, purposes: KeyPurposeIdIter<'_, '_>) -> Result<(), webpki::Error> {
        let mut none = true;
        for purpose in purposes {
            none = false;
            let purpose = purpose?;
            if PURPOSES
                .iter()
                .any(|accepted| purpose == KeyPurposeId::new(accepted))
            {
                return Ok(());
            }
        }
        if none {
            return Ok(());
        }
        let required = webpki::KeyUsage::required(IPSEC_IKE);
        let context = webpki::RequiredEkuNotFoundContext {
            required,
            present: Vec::new(),
        };
        Err(webpki::Error::RequiredEkuNotFoundContext(context))
    }
}

/// A scheme of ours as the library wants to have it.
#[derive(Debug)]
struct PathAlgorithm {
    key: (KeyKind, AlgorithmIdentifier),
    scheme: (Scheme, AlgorithmIdentifier),
}

impl SignatureVerificationAlgorithm for PathAlgorithm {
    fn public_key_alg_id(&self) -> AlgorithmIdentifier {
        self.key.1
    }

    fn signature_alg_id(&self) -> AlgorithmIdentifier {
        self.scheme.1
    }

    fn verify_signature(
        &self,
        public_key: &[u8],
        message: &[u8],
        signature: &[u8],
    ) -> Result<(), InvalidSignature> {
        let algorithm = verification(self.key.0, self.scheme.0).ok_or(InvalidSignature)?;
        let key = UnparsedPublicKey::new(algorithm, public_key);
        key.verify(message, signature).map_err(|_| InvalidSignature)
    }
}

impl PathAlgorithm {
    const fn new(
        key: (KeyKind, AlgorithmIdentifier),
        scheme: (Scheme, AlgorithmIdentifier),
    ) -> Self {
        Self { key, scheme }
    }
}

/// The library's finding in a few words; nothing in it comes from the peer.
fn explain(error: &webpki::Error) -> String {
    match error {
        webpki::Error::UnknownIssuer => "no path to a trusted authority".to_owned(),
        webpki::Error::CertExpired { .. } => "expired".to_owned(),
        webpki::Error::CertNotValidYet { .. } => "not valid yet".to_owned(),
        webpki::Error::CaUsedAsEndEntity => "the certificate of an authority".to_owned(),
        webpki::Error::RequiredEkuNotFoundContext(_) => {
            "its extendedKeyUsage is not for IKE".to_owned()
        }
        webpki::Error::NameConstraintViolation => {
            "the name constraints of an authority do not allow it".to_owned()
        }
        other => format!("{other:?}").chars().take(120).collect(),
    }
}

/// anyExtendedKeyUsage, ipsecIKE, ipsecEndSystem, ipsecTunnel, ipsecUser, iKEIntermediate,
/// serverAuth, clientAuth: the contents of their OBJECT IDENTIFIERs.
const PURPOSES: [&[u8]; 8] = [
    &[0x55, 0x1d, 0x25, 0x00],
    IPSEC_IKE,
    &[0x2b, 6, 1, 5, 5, 7, 3, 5],
    &[0x2b, 6, 1, 5, 5, 7, 3, 6],
    &[0x2b, 6, 1, 5, 5, 7, 3, 7],
    &[0x2b, 6, 1, 5, 5, 8, 2, 2],
    &[0x2b, 6, 1, 5, 5, 7, 3, 1],
    &[0x2b, 6, 1, 5, 5, 7, 3, 2],
];
const IPSEC_IKE: &[u8] = &[0x2b, 6, 1, 5, 5, 7, 3, 17];

const RSA: (KeyKind, AlgorithmIdentifier) = (KeyKind::Rsa, alg_id::RSA_ENCRYPTION);
const P256: (KeyKind, AlgorithmIdentifier) = (KeyKind::P256, alg_id::ECDSA_P256);
const P384: (KeyKind, AlgorithmIdentifier) = (KeyKind::P384, alg_id::ECDSA_P384);
const P521: (KeyKind, AlgorithmIdentifier) = (KeyKind::P521, alg_id::ECDSA_P521);
const WITH_SHA256: (Scheme, AlgorithmIdentifier) =
    (Scheme::Ecdsa(Hash::Sha256), alg_id::ECDSA_SHA256);
const WITH_SHA384: (Scheme, AlgorithmIdentifier) =
    (Scheme::Ecdsa(Hash::Sha384), alg_id::ECDSA_SHA384);
const WITH_SHA512: (Scheme, AlgorithmIdentifier) =
    (Scheme::Ecdsa(Hash::Sha512), alg_id::ECDSA_SHA512);

/// What certificates may be signed with: SHA-2 and Ed25519.
static ALGORITHMS: [PathAlgorithm; 16] = [
    PathAlgorithm::new(
        RSA,
        (Scheme::RsaPkcs1(Hash::Sha256), alg_id::RSA_PKCS1_SHA256),
    ),
    PathAlgorithm::new(
        RSA,
        (Scheme::RsaPkcs1(Hash::Sha384), alg_id::RSA_PKCS1_SHA384),
    ),
    PathAlgorithm::new(
        RSA,
        (Scheme::RsaPkcs1(Hash::Sha512), alg_id::RSA_PKCS1_SHA512),
    ),
    PathAlgorithm::new(RSA, (Scheme::RsaPss(Hash::Sha256), alg_id::RSA_PSS_SHA256)),
    PathAlgorithm::new(RSA, (Scheme::RsaPss(Hash::Sha384), alg_id::RSA_PSS_SHA384)),
    PathAlgorithm::new(RSA, (Scheme::RsaPss(Hash::Sha512), alg_id::RSA_PSS_SHA512)),
    PathAlgorithm::new(P256, WITH_SHA256),
    PathAlgorithm::new(P256, WITH_SHA384),
    PathAlgorithm::new(P256, WITH_SHA512),
    PathAlgorithm::new(P384, WITH_SHA256),
    PathAlgorithm::new(P384, WITH_SHA384),
    PathAlgorithm::new(P384, WITH_SHA512),
    PathAlgorithm::new(P521, WITH_SHA256),
    PathAlgorithm::new(P521, WITH_SHA384),
    PathAlgorithm::new(P521, WITH_SHA512),
    PathAlgorithm::new(
        (KeyKind::Ed25519, alg_id::ED25519),
        (Scheme::Ed25519, alg_id::ED25519),
    ),
];
