//! Online certificate status (RFC 6960): questions, and answers that IKE or HTTP brought.
//!
//! The types are declared after RFC 6960 §4.1.1 and §4.2.1; the library reads and writes them.

use aws_lc_rs::digest;
use der::asn1::{
    AnyRef, BitStringRef, GeneralizedTime, Null, ObjectIdentifier, OctetStringRef, UintRef,
};
use der::{Choice, Decode, Encode, Enumerated, Sequence};
use rustls_pki_types::UnixTime;
use x509_cert::spki::{AlgorithmIdentifierRef, SubjectPublicKeyInfoRef};

use super::crl::Signed;
use super::{Certificate, Status};

/// Longer answers are not read.
pub const MOST_BYTES: usize = 64 * 1024;

/// The DER of a question about one certificate. The nonce, if any, comes back in the answer of a
/// responder that supports it (RFC 8954).
pub fn request(
    certificate: &Certificate,
    issuer: &Certificate,
    nonce: Option<&[u8]>,
) -> Option<Vec<u8>> {
    let hash = digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, certificate.issuer());
    let key = issuer_key(issuer)?;
    let key = digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, key);
    let nonce = nonce.map(|nonce| OctetStringRef::new(nonce)?.to_der());
    let nonce = nonce.transpose().ok()?;
    let extension = nonce.as_ref().map(|nonce| {
        Ok::<_, der::Error>(vec![Extension {
            id: NONCE,
            critical: false,
            value: OctetStringRef::new(nonce)?,
        }])
    });
    let request = Request {
        tbs: TbsRequest {
            list: vec![SingleRequest {
                certificate: CertId {
                    hash: AlgorithmIdentifierRef {
                        oid: SHA1,
                        parameters: Some(AnyRef::NULL),
                    },
                    issuer_name: OctetStringRef::new(hash.as_ref()).ok()?,
                    issuer_key: OctetStringRef::new(key.as_ref()).ok()?,
                    serial: UintRef::new(certificate.serial()).ok()?,
                },
            }],
            extensions: extension.transpose().ok()?,
        },
    };
    request.to_der().ok()
}

/// What an answer says about a certificate of this issuer, and until when.
///
/// The answer must be signed by the issuer itself, or by a certificate that the issuer gave to an
/// OCSP responder (RFC 6960 §4.2.2.2). A nonce that is not ours makes it useless; one that is
/// absent does not, since most responders answer from a cache.
pub fn status(
    answer: &[u8],
    certificate: &Certificate,
    issuer: &Certificate,
    nonce: Option<&[u8]>,
    now: UnixTime,
) -> (Status, Option<UnixTime>) {
    match read(answer, certificate, issuer, nonce, now) {
        Ok((status, until)) => (status, until),
        Err(why) => (Status::Unknown(why), None),
    }
}

fn read(
    answer: &[u8],
    certificate: &Certificate,
    issuer: &Certificate,
    nonce: Option<&[u8]>,
    now: UnixTime,
) -> Result<(Status, Option<UnixTime>), &'static str> {
    const MALFORMED: &str = "the OCSP response is malformed";
    if answer.len() > MOST_BYTES {
        return Err("the OCSP response is too long");
    }
    let response = Response::from_der(answer).map_err(|_| MALFORMED)?;
    if response.status != ResponseStatus::Successful {
        return Err("the OCSP responder refused");
    }
    let basic = response
        .bytes
        .filter(|bytes| bytes.kind == BASIC)
        .ok_or(MALFORMED)?;
    let basic = BasicResponse::from_der(basic.response.as_bytes()).map_err(|_| MALFORMED)?;
    let data: ResponseData<'_> = basic.tbs.decode_as().map_err(|_| MALFORMED)?;
    let signed = Signed::new(basic.tbs, basic.algorithm, basic.signature).ok_or(MALFORMED)?;
    let delegates = basic.certificates.unwrap_or_default();
    let delegates = delegates.iter().take(MOST_DELEGATES);
    let by_delegate = |delegate: &AnyRef<'_>| {
        let delegate = delegate.to_der().ok()?;
        let delegate = Certificate::from_der(&delegate).ok()?;
        let trusted = delegate.has_purpose(OCSP_SIGNING)
            && delegate.issuer() == issuer.subject().der()
            && delegate.is_valid_at(now)
            && is_issued_by(&delegate, issuer);
        (trusted && signed.is_by(delegate.key())).then_some(())
    };
    if !signed.is_by(issuer.key()) && !delegates.filter_map(by_delegate).any(|()| true) {
        return Err("the OCSP response is not signed by the issuer");
    }
    let extensions = data.extensions.unwrap_or_default();
    let returned = extensions.iter().find(|extension| extension.id == NONCE);
    if let Some(returned) = returned {
        let value = <&OctetStringRef>::from_der(returned.value.as_bytes());
        let same = nonce.is_some_and(|nonce| value.is_ok_and(|value| value.as_bytes() == nonce));
        if !same && nonce.is_some() {
            return Err("the OCSP response has another nonce");
        }
    }
    let fits = |single: &&SingleResponse<'_>| single.certificate.is_of(certificate, issuer);
    let single = data.responses.iter().find(fits);
    let single = single.ok_or("the OCSP response is about other certificates")?;
    single.judge(now)
}

/// Whether `issuer` signed the certificate of a responder.
fn is_issued_by(certificate: &Certificate, issuer: &Certificate) -> bool {
    let outer = SignedCertificate::from_der(certificate.der());
    let signed = outer
        .ok()
        .and_then(|outer| Signed::new(outer.tbs, outer.algorithm, outer.signature));
    signed.is_some_and(|signed| signed.is_by(issuer.key()))
}

impl SingleResponse<'_> {
    fn judge(&self, now: UnixTime) -> Result<(Status, Option<UnixTime>), &'static str> {
        let start = self.this_update.to_unix_duration().as_secs();
        if start > now.as_secs().saturating_add(SKEW) {
            return Err("the OCSP response is not valid yet");
        }
        let end = match self.next_update {
            Some(next) => next.to_unix_duration(),
            None => self.this_update.to_unix_duration() + std::time::Duration::from_secs(UNDATED),
        };
        if end.as_secs().saturating_add(SKEW) < now.as_secs() {
            return Err("the OCSP response is stale");
        }
        let until = Some(UnixTime::since_unix_epoch(
            end + std::time::Duration::from_secs(SKEW),
        ));
        match self.status {
            CertStatus::Good(_) => Ok((Status::Good, until)),
            CertStatus::Revoked(_) => Ok((Status::Revoked, until)),
            CertStatus::Unknown(_) => Err("the OCSP responder does not know the certificate"),
        }
    }
}

impl CertId<'_> {
    fn is_of(&self, certificate: &Certificate, issuer: &Certificate) -> bool {
        let algorithm = match self.hash.oid {
            SHA1 => &digest::SHA1_FOR_LEGACY_USE_ONLY,
            SHA256 => &digest::SHA256,
            _ => return false,
        };
        let Some(key) = issuer_key(issuer) else {
            return false;
        };
        let name = digest::digest(algorithm, certificate.issuer());
        let key = digest::digest(algorithm, key);
        self.issuer_name.as_bytes() == name.as_ref()
            && self.issuer_key.as_bytes() == key.as_ref()
            && UintRef::new(certificate.serial()).is_ok_and(|serial| serial == self.serial)
    }
}

/// The key's bits alone, which a CertID hashes.
fn issuer_key(issuer: &Certificate) -> Option<&[u8]> {
    let info = SubjectPublicKeyInfoRef::from_der(issuer.key().spki()).ok()?;
    info.subject_public_key.as_bytes()
}

#[derive(Sequence)]
struct Request<'a> {
    tbs: TbsRequest<'a>,
}

#[derive(Sequence)]
struct TbsRequest<'a> {
    list: Vec<SingleRequest<'a>>,
    #[asn1(context_specific = "2", tag_mode = "EXPLICIT", optional = "true")]
    extensions: Option<Vec<Extension<'a>>>,
}

#[derive(Sequence)]
struct SingleRequest<'a> {
    certificate: CertId<'a>,
}

#[derive(Sequence)]
struct CertId<'a> {
    hash: AlgorithmIdentifierRef<'a>,
    issuer_name: &'a OctetStringRef,
    issuer_key: &'a OctetStringRef,
    serial: UintRef<'a>,
}

#[derive(Sequence)]
struct Extension<'a> {
    id: ObjectIdentifier,
    #[asn1(default = "Default::default")]
    critical: bool,
    value: &'a OctetStringRef,
}

#[derive(Sequence)]
struct Response<'a> {
    status: ResponseStatus,
    #[asn1(context_specific = "0", tag_mode = "EXPLICIT", optional = "true")]
    bytes: Option<ResponseBytes<'a>>,
}

#[derive(Clone, Copy, PartialEq, Eq, Enumerated)]
#[repr(u8)]
enum ResponseStatus {
    Successful = 0,
    MalformedRequest = 1,
    InternalError = 2,
    TryLater = 3,
    SigRequired = 5,
    Unauthorized = 6,
}

#[derive(Sequence)]
struct ResponseBytes<'a> {
    kind: ObjectIdentifier,
    response: &'a OctetStringRef,
}

#[derive(Sequence)]
struct BasicResponse<'a> {
    tbs: AnyRef<'a>,
    algorithm: AnyRef<'a>,
    signature: BitStringRef<'a>,
    #[asn1(context_specific = "0", tag_mode = "EXPLICIT", optional = "true")]
    certificates: Option<Vec<AnyRef<'a>>>,
}

#[derive(Sequence)]
struct SignedCertificate<'a> {
    tbs: AnyRef<'a>,
    algorithm: AnyRef<'a>,
    signature: BitStringRef<'a>,
}

#[derive(Sequence)]
struct ResponseData<'a> {
    #[asn1(
        context_specific = "0",
        tag_mode = "EXPLICIT",
        default = "Default::default"
    )]
    version: u8,
    responder: ResponderId<'a>,
    produced_at: GeneralizedTime,
    responses: Vec<SingleResponse<'a>>,
    #[asn1(context_specific = "1", tag_mode = "EXPLICIT", optional = "true")]
    extensions: Option<Vec<Extension<'a>>>,
}

#[derive(Choice)]
enum ResponderId<'a> {
    #[asn1(context_specific = "1", tag_mode = "EXPLICIT", constructed = "true")]
    Name(AnyRef<'a>),
    #[asn1(context_specific = "2", tag_mode = "EXPLICIT", constructed = "true")]
    Key(&'a OctetStringRef),
}

#[derive(Sequence)]
struct SingleResponse<'a> {
    certificate: CertId<'a>,
    status: CertStatus,
    this_update: GeneralizedTime,
    #[asn1(context_specific = "0", tag_mode = "EXPLICIT", optional = "true")]
    next_update: Option<GeneralizedTime>,
    #[asn1(context_specific = "1", tag_mode = "EXPLICIT", optional = "true")]
    extensions: Option<Vec<Extension<'a>>>,
}

#[derive(Choice)]
enum CertStatus {
    #[asn1(context_specific = "0", tag_mode = "IMPLICIT")]
    Good(Null),
    #[asn1(context_specific = "1", tag_mode = "IMPLICIT", constructed = "true")]
    Revoked(RevokedInfo),
    #[asn1(context_specific = "2", tag_mode = "IMPLICIT")]
    Unknown(Null),
}

#[derive(Sequence)]
struct RevokedInfo {
    time: GeneralizedTime,
    #[asn1(context_specific = "0", tag_mode = "EXPLICIT", optional = "true")]
    reason: Option<x509_cert::ext::pkix::CrlReason>,
}

const SHA1: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.14.3.2.26");
const SHA256: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.16.840.1.101.3.4.2.1");
const BASIC: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.48.1.1");
const NONCE: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.48.1.2");
const OCSP_SIGNING: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.3.9");
const MOST_DELEGATES: usize = 4;
/// Seconds that clocks may differ.
const SKEW: u64 = 300;
/// Seconds for which an answer without nextUpdate is taken.
const UNDATED: u64 = 3600;
