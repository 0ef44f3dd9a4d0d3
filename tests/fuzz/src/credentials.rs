//! Whatever a peer, an authority or a file gives for a key, a certificate, a revocation list or a
//! name.

#![allow(clippy::unwrap_used, reason = "a panic is how a target reports")]

use std::time::Duration;

use lockgate::crypto::signature::Scheme;
use lockgate::crypto::x509::{
    Certificate, Crl, DistinguishedName, DnPattern, Status, UnixTime, ocsp,
};
use lockgate::crypto::{PrivateKey, PublicKey, pem};
use lockgate::ike::{Identity, IdentityPattern};
use lockgate::wire::ikev2::{AuthAnnouncement, CertPayload, CertRequest, IdPayload};

/// Reads the bytes as everything that they might be.
pub(crate) fn run(data: &[u8]) {
    let now = UnixTime::since_unix_epoch(Duration::from_secs(1_790_000_000));
    let certificates = Certificate::load(data).unwrap_or_default();
    for certificate in &certificates {
        assert_eq!(
            certificate.der(),
            Certificate::from_der(certificate.der()).unwrap().der()
        );
        let shown = certificate.subject().to_string();
        assert!(!shown.chars().any(char::is_control), "{shown:?}");
        let status = ocsp::status(data, certificate, certificate, None, now).0;
        assert!(matches!(status, Status::Unknown(_)));
        ocsp::request(certificate, certificate, Some(b"nonce"));
    }
    if let (Ok(list), Some(certificate)) = (Crl::load(data), certificates.first()) {
        assert!(matches!(
            list.status(certificate, certificate, now),
            Status::Unknown(_)
        ));
    }
    if let Ok(key) = PublicKey::from_spki(data) {
        assert_eq!(key.spki(), data);
        key.verify(Scheme::Ed25519, b"", &[0; 64]).unwrap_err();
    }
    let _ = PublicKey::from_pkcs1(data);
    let _ = PrivateKey::load(data, Some(b"passphrase"));
    let _ = pem::objects(data);
    if let Some(scheme) = Scheme::from_algorithm_identifier(data) {
        let der = scheme.to_algorithm_identifier().unwrap();
        assert_eq!(Scheme::from_algorithm_identifier(&der), Some(scheme));
    }
    if let Some(name) = DistinguishedName::from_der(data) {
        assert!(DnPattern::new(name.clone()).rank(&name) > 0);
    }
    if let Ok(text) = std::str::from_utf8(data)
        && let Ok(pattern) = text.parse::<IdentityPattern>()
        && let Ok(identity) = text.parse::<Identity>()
    {
        assert!(pattern.matches(&identity) || identity.is_same(&identity));
    }
    if let Ok(payload) = IdPayload::parse(data) {
        let identity = Identity::from_payload(&payload);
        assert_eq!(identity.to_payload_parts().1, payload.data);
        assert!(!identity.to_string().chars().any(char::is_control));
    }
    if let Ok(request) = CertRequest::parse(data) {
        assert!(request.hashes().count() <= data.len() / 20);
    }
    let _ = CertPayload::parse(data);
    assert!(AuthAnnouncement::parse_all(data).count() <= data.len() / 2);
}
