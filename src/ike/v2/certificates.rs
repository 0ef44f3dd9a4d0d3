//! CERT and CERTREQ payloads (RFC 7296 §3.6, §3.7, RFC 4806, RFC 7670).

use std::sync::Arc;

use crate::crypto::PublicKey;
use crate::crypto::x509::{Certificate, Crl};
use crate::ike::credentials::{Authority, LocalKey, RemoteMethod, SendCert};
use crate::ike::pad::Connection;
use crate::wire::ikev2::{CertEncoding, CertPayload, CertRequest, PayloadWriter};
use crate::wire::isakmp::PayloadType;

use super::message::Payloads;

/// What the peer asks for.
#[derive(Clone, Debug, Default)]
pub(super) struct Requested {
    x509: bool,
    raw: bool,
    /// OCSP responses about our certificate (RFC 4806).
    pub(super) ocsp: bool,
    authorities: Vec<[u8; 20]>,
}

/// A payload of ours.
pub(super) struct Chosen {
    encoding: CertEncoding,
    data: Vec<u8>,
}

impl Chosen {
    /// An OCSP response (RFC 4806).
    pub(super) fn answer(data: Vec<u8>) -> Self {
        let encoding = CertEncoding::OCSP;
        Self { encoding, data }
    }
}

impl Requested {
    pub(super) fn from_payloads(payloads: &Payloads<'_>) -> Self {
        let mut requested = Self::default();
        for request in &payloads.certificate_requests {
            match request.encoding {
                CertEncoding::X509_SIGNATURE => {
                    requested.x509 = true;
                    let room = MOST_AUTHORITIES.saturating_sub(requested.authorities.len());
                    requested.authorities.extend(request.hashes().take(room));
                }
                CertEncoding::RAW_PUBLIC_KEY => requested.raw = true,
                CertEncoding::OCSP => requested.ocsp = true,
                _ => {}
            }
        }
        requested
    }

    /// Whether an authority that the peer trusts stands above the certificate of this key.
    pub(super) fn names_issuer(&self, key: &LocalKey, known: &[Authority]) -> bool {
        let mut named = self.authorities.iter();
        named.any(|authority| is_below(key, authority, known))
    }

    /// Whether the authority at this place stands above the certificate of this key.
    pub(super) fn links(&self, place: usize, key: &LocalKey, known: &[Authority]) -> bool {
        let named = self.authorities.get(place);
        named.is_some_and(|authority| is_below(key, authority, known))
    }

    /// What we send along with a signature of this key.
    pub(super) fn choose(&self, key: &LocalKey, send: SendCert) -> Vec<Chosen> {
        let asked = match (send, key.chain.is_empty()) {
            (SendCert::Never, _) => false,
            (SendCert::Always, _) => true,
            (SendCert::IfAsked, true) => self.raw,
            (SendCert::IfAsked, false) => self.x509,
        };
        if !asked {
            return Vec::new();
        }
        if key.chain.is_empty() {
            return vec![Chosen {
                encoding: CertEncoding::RAW_PUBLIC_KEY,
                data: key.key.public().spki().to_vec(),
            }];
        }
        let chain = key.chain.iter().map(|certificate| Chosen {
            encoding: CertEncoding::X509_SIGNATURE,
            data: certificate.der().to_vec(),
        });
        chain.collect()
    }
}

/// Whether an authority, by the hash of its key, stands above the certificate of a key.
fn is_below(key: &LocalKey, authority: &[u8; 20], known: &[Authority]) -> bool {
    let named = |certificate: &Certificate| certificate.key().id() == *authority;
    let above = |authority: &&Authority| {
        let subject = authority.certificate.subject().der();
        let mut chain = key.chain.iter();
        chain.any(|certificate| certificate.issuer() == subject)
    };
    let mut known = known.iter().filter(above);
    key.chain.iter().any(|certificate| named(certificate))
        || known.any(|authority| named(&authority.certificate))
}

pub(super) fn add_certificates(payloads: &mut PayloadWriter, chosen: &[Chosen]) {
    for Chosen { encoding, data } in chosen {
        let certificate = CertPayload {
            encoding: *encoding,
            data,
        };
        payloads.add_with(PayloadType::CERT, |out| certificate.encode(out));
    }
}

/// Asks for what would prove the peer's identity to any of these connections. OCSP responses are
/// welcome along with certificates (RFC 4806 §3.1).
pub(super) fn add_requests<'a>(
    payloads: &mut PayloadWriter,
    connections: impl IntoIterator<Item = &'a Connection>,
) {
    let mut authorities: Vec<[u8; 20]> = Vec::new();
    let (mut x509, mut raw) = (false, false);
    for connection in connections {
        let RemoteMethod::Signature(trust) = &connection.remote.method else {
            continue;
        };
        if !trust.send_certreq {
            continue;
        }
        raw |= !trust.keys.is_empty();
        x509 |= !trust.authorities.is_empty() || !trust.certificates.is_empty();
        for authority in &trust.authorities {
            let id = authority.key().id();
            if !authorities.contains(&id) && authorities.len() < MOST_AUTHORITIES {
                authorities.push(id);
            }
        }
    }
    let mut add = |encoding, authorities: &[u8]| {
        let request = CertRequest {
            encoding,
            authorities,
        };
        payloads.add_with(PayloadType::CERTREQ, |out| request.encode(out));
    };
    if x509 {
        add(CertEncoding::X509_SIGNATURE, &authorities.concat());
        add(CertEncoding::OCSP, &[]);
    }
    if raw {
        add(CertEncoding::RAW_PUBLIC_KEY, &[]);
    }
}

/// What the peer has sent, read. At most [`MOST_SENT`] of each kind count.
#[derive(Default)]
pub(super) struct Sent<'a> {
    /// The first certificate, which holds the key of AUTH.
    pub(super) leaf: Option<Arc<Certificate>>,
    /// Certificates that may lead to an authority.
    pub(super) others: Vec<Arc<Certificate>>,
    /// A raw public key.
    pub(super) key: Option<PublicKey>,
    pub(super) lists: Vec<Crl>,
    /// OCSP responses (RFC 4806).
    pub(super) answers: Vec<&'a [u8]>,
    unreadable: bool,
}

impl<'a> Sent<'a> {
    pub(super) fn read(payloads: &[CertPayload<'a>]) -> Self {
        let mut sent = Self::default();
        for payload in payloads {
            match payload.encoding {
                CertEncoding::X509_SIGNATURE => sent.add_certificate(payload.data),
                CertEncoding::RAW_PUBLIC_KEY => match PublicKey::from_spki(payload.data) {
                    Ok(key) => sent.key = sent.key.or(Some(key)),
                    Err(_) => sent.unreadable = true,
                },
                CertEncoding::CRL if sent.lists.len() < MOST_SENT => {
                    sent.lists.extend(Crl::from_der(payload.data));
                }
                CertEncoding::OCSP if sent.answers.len() < MOST_SENT => {
                    sent.answers.push(payload.data);
                }
                // Fetching by hash and URL would be by the peer's wish, so we never offer it.
                _ => {}
            }
        }
        sent
    }

    fn add_certificate(&mut self, der: &[u8]) {
        let first = self.leaf.is_none() && !self.unreadable;
        match Certificate::from_der(der) {
            Ok(certificate) if first => self.leaf = Some(Arc::new(certificate)),
            Ok(certificate) if self.others.len() < MOST_SENT => {
                self.others.push(Arc::new(certificate));
            }
            Ok(_) => {}
            Err(_) => self.unreadable |= first,
        }
    }

    pub(super) fn why_no_leaf(&self) -> &'static str {
        if self.unreadable {
            "its certificate cannot be read"
        } else if self.key.is_some() {
            "its public key is not one that is configured"
        } else {
            "it sent no certificate, and no key that is configured made the signature"
        }
    }
}

const MOST_AUTHORITIES: usize = 64;
const MOST_SENT: usize = 8;
