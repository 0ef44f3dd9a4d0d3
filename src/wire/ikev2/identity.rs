//! Identification and Authentication payloads (RFC 7296 §3.5, §3.8).

use crate::wire::Malformed;

/// How an identity is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct IdType(pub u8);

#[allow(
    missing_docs,
    reason = "each constant is the IANA name without its ID_"
)]
impl IdType {
    pub const IPV4_ADDR: Self = Self(1);
    pub const FQDN: Self = Self(2);
    pub const RFC822_ADDR: Self = Self(3);
    pub const IPV6_ADDR: Self = Self(5);
    pub const DER_ASN1_DN: Self = Self(9);
    pub const DER_ASN1_GN: Self = Self(10);
    pub const KEY_ID: Self = Self(11);
}

/// Who the sender claims to be. AUTH covers this payload's body as it was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IdPayload<'a> {
    /// How `data` is to be read.
    pub kind: IdType,
    /// The identity, unchecked.
    pub data: &'a [u8],
}

impl<'a> IdPayload<'a> {
    /// Reads the payload.
    pub fn parse(body: &'a [u8]) -> Result<Self, Malformed> {
        let (&[kind, _, _, _], data) = body
            .split_first_chunk::<4>()
            .ok_or(Malformed::Truncated("ID payload"))?;
        Ok(Self {
            kind: IdType(kind),
            data,
        })
    }

    /// Appends the payload.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&[self.kind.0, 0, 0, 0]);
        out.extend_from_slice(self.data);
    }
}

/// How the sender proves its identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct AuthMethod(pub u8);

#[allow(missing_docs, reason = "each constant is the IANA name")]
impl AuthMethod {
    pub const RSA_SIGNATURE: Self = Self(1);
    pub const SHARED_KEY_MIC: Self = Self(2);
    pub const ECDSA_256: Self = Self(9);
    pub const ECDSA_384: Self = Self(10);
    pub const ECDSA_521: Self = Self(11);
    pub const DIGITAL_SIGNATURE: Self = Self(14);
}

/// The proof.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AuthPayload<'a> {
    /// How `data` was computed.
    pub method: AuthMethod,
    /// MAC or signature.
    pub data: &'a [u8],
}

impl<'a> AuthPayload<'a> {
    /// Reads the payload.
    pub fn parse(body: &'a [u8]) -> Result<Self, Malformed> {
        let (&[method, _, _, _], data) = body
            .split_first_chunk::<4>()
            .ok_or(Malformed::Truncated("AUTH payload"))?;
        Ok(Self {
            method: AuthMethod(method),
            data,
        })
    }

    /// Appends the payload.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&[self.method.0, 0, 0, 0]);
        out.extend_from_slice(self.data);
    }
}
