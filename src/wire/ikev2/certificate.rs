//! Certificate and Certificate Request payloads (RFC 7296 §3.6, §3.7).

use crate::wire::Malformed;

/// What a certificate payload holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CertEncoding(pub u8);

impl CertEncoding {
    /// PKCS #7 wrapped X.509 certificate
    pub const PKCS7: Self = Self(1);
    /// X.509 Certificate - Signature
    pub const X509_SIGNATURE: Self = Self(4);
    /// Certificate Revocation List (CRL)
    pub const CRL: Self = Self(7);
    /// Hash and URL of X.509 certificate
    pub const HASH_AND_URL: Self = Self(12);
    /// OCSP Content (RFC 4806)
    pub const OCSP: Self = Self(14);
    /// Raw Public Key (RFC 7670)
    pub const RAW_PUBLIC_KEY: Self = Self(15);
}

/// A certificate, or what helps to judge one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CertPayload<'a> {
    /// How `data` is to be read.
    pub encoding: CertEncoding,
    /// The content, unchecked.
    pub data: &'a [u8],
}

/// A request for certificates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CertRequest<'a> {
    /// Which kind is wanted.
    pub encoding: CertEncoding,
    /// For X.509: SHA-1 hashes of the keys of trusted authorities, one behind the other.
    pub authorities: &'a [u8],
}

impl<'a> CertPayload<'a> {
    /// Reads the payload.
    pub fn parse(body: &'a [u8]) -> Result<Self, Malformed> {
        let (&encoding, data) = body
            .split_first()
            .ok_or(Malformed::Truncated("CERT payload"))?;
        Ok(Self {
            encoding: CertEncoding(encoding),
            data,
        })
    }

    /// Appends the payload.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.push(self.encoding.0);
        out.extend_from_slice(self.data);
    }
}

impl<'a> CertRequest<'a> {
    /// Reads the payload.
    pub fn parse(body: &'a [u8]) -> Result<Self, Malformed> {
        let parts = body
            .split_first()
            .ok_or(Malformed::Truncated("CERTREQ payload"))?;
        let (&encoding, authorities) = parts;
        Ok(Self {
            encoding: CertEncoding(encoding),
            authorities,
        })
    }

    /// The authorities that an X.509 request names; a rest that is no whole hash is not one.
    pub fn hashes(&self) -> impl Iterator<Item = &'a [u8; HASH_LEN]> + use<'a> {
        let (hashes, _) = self.authorities.as_chunks::<HASH_LEN>();
        hashes.iter()
    }

    /// Appends the payload.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.push(self.encoding.0);
        out.extend_from_slice(self.authorities);
    }
}

/// Bytes of a SHA-1 hash, which name one authority.
const HASH_LEN: usize = 20;
