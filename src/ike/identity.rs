//! Identities and what they are compared with (RFC 7296 §3.5).

use std::borrow::Cow;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;
use std::sync::Arc;

use data_encoding::HEXLOWER_PERMISSIVE;

use crate::crypto::x509::{DistinguishedName, DnPattern};
use crate::wire::ikev2::{IdPayload, IdType};

/// Who a peer is, or claims to be. Copies share the text.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Identity {
    /// An IPv4 address.
    Ipv4(Ipv4Addr),
    /// An IPv6 address.
    Ipv6(Ipv6Addr),
    /// A domain name.
    Fqdn(Arc<str>),
    /// A mail address.
    Email(Arc<str>),
    /// A distinguished name.
    Dn(DistinguishedName),
    /// Opaque bytes.
    KeyId(Arc<[u8]>),
    /// Any other type; equal to nothing but the same bytes.
    Other {
        /// IANA number of the type.
        kind: u8,
        /// The value as it was sent.
        bytes: Arc<[u8]>,
    },
}

/// What a configuration accepts as an identity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IdentityPattern {
    /// `%any`
    Any,
    /// One identity.
    Exact(Identity),
    /// A domain or mail address that starts with `*`; the rest must be the end of the identity.
    Wildcard(Identity),
    /// A distinguished name, some of whose fields are `*`.
    Dn(DnPattern),
}

/// A text that is not an identity.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("bad identity {text:?}: {reason}")]
pub struct IdentitySyntax {
    text: String,
    reason: &'static str,
}

impl Identity {
    /// An address as an identity.
    pub fn from_addr(addr: IpAddr) -> Self {
        match addr {
            IpAddr::V4(addr) => Self::Ipv4(addr),
            IpAddr::V6(addr) => Self::Ipv6(addr),
        }
    }

    /// Reads what a peer sent. A value that does not fit its type becomes [`Identity::Other`],
    /// which no configured identity equals.
    pub fn from_payload(payload: &IdPayload<'_>) -> Self {
        let text = || std::str::from_utf8(payload.data).ok().map(Arc::from);
        let known = match payload.kind {
            IdType::IPV4_ADDR => <[u8; 4]>::try_from(payload.data)
                .ok()
                .map(|octets| Self::Ipv4(octets.into())),
            IdType::IPV6_ADDR => <[u8; 16]>::try_from(payload.data)
                .ok()
                .map(|octets| Self::Ipv6(octets.into())),
            IdType::FQDN => text().map(Self::Fqdn),
            IdType::RFC822_ADDR => text().map(Self::Email),
            IdType::DER_ASN1_DN => DistinguishedName::from_der(payload.data).map(Self::Dn),
            IdType::KEY_ID => Some(Self::KeyId(payload.data.into())),
            _ => None,
        };
        known.unwrap_or_else(|| Self::Other {
            kind: payload.kind.0,
            bytes: payload.data.into(),
        })
    }

    /// Type and value for an ID payload.
    pub fn to_payload_parts(&self) -> (IdType, Cow<'_, [u8]>) {
        match self {
            Self::Ipv4(addr) => (IdType::IPV4_ADDR, addr.octets().to_vec().into()),
            Self::Ipv6(addr) => (IdType::IPV6_ADDR, addr.octets().to_vec().into()),
            Self::Fqdn(name) => (IdType::FQDN, name.as_bytes().into()),
            Self::Email(name) => (IdType::RFC822_ADDR, name.as_bytes().into()),
            Self::Dn(name) => (IdType::DER_ASN1_DN, name.der().into()),
            Self::KeyId(bytes) => (IdType::KEY_ID, (&**bytes).into()),
            Self::Other { kind, bytes } => (IdType(*kind), (&**bytes).into()),
        }
    }

    /// The body of an ID payload, which AUTH covers.
    pub fn to_payload_body(&self) -> Vec<u8> {
        let (kind, data) = self.to_payload_parts();
        let mut body = Vec::with_capacity(4 + data.len());
        IdPayload { kind, data: &data }.encode(&mut body);
        body
    }

    /// Names are compared without regard to case (RFC 4343), everything else byte for byte.
    pub fn is_same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Fqdn(a), Self::Fqdn(b)) | (Self::Email(a), Self::Email(b)) => {
                a.eq_ignore_ascii_case(b)
            }
            _ => self == other,
        }
    }
}

/// swanctl's syntax: an address, `name`, `@name`, `user@host`, `@@user@host`, `@#hex`, or a type
/// prefix (`fqdn:`, `email:`, `keyid:`, `ipv4:`, `ipv6:`, `asn1dn:`); with a `=`, a distinguished
/// name.
impl FromStr for Identity {
    type Err = IdentitySyntax;

    fn from_str(text: &str) -> Result<Self, IdentitySyntax> {
        let fail = |reason| IdentitySyntax {
            text: text.to_owned(),
            reason,
        };
        if text.is_empty() {
            return Err(fail("empty"));
        }
        if let Some((prefix, value)) = text.split_once(':') {
            match prefix {
                "fqdn" | "dns" => return Ok(Self::Fqdn(value.into())),
                "email" | "rfc822" | "userfqdn" => return Ok(Self::Email(value.into())),
                "keyid" => return Ok(Self::KeyId(value.as_bytes().into())),
                "ipv4" => {
                    let addr = value.parse().map_err(|_| fail("not an IPv4 address"))?;
                    return Ok(Self::Ipv4(addr));
                }
                "ipv6" => {
                    let addr = value.parse().map_err(|_| fail("not an IPv6 address"))?;
                    return Ok(Self::Ipv6(addr));
                }
                "asn1dn" => {
                    let name = value.parse().map_err(|_| fail(NOT_A_NAME))?;
                    return Ok(Self::Dn(name));
                }
                "xmppaddr" | "asn1gn" => {
                    return Err(fail("this type of identity is not supported"));
                }
                _ => {}
            }
        }
        if let Some(hex) = text.strip_prefix("@#") {
            let bytes = HEXLOWER_PERMISSIVE
                .decode(hex.as_bytes())
                .map_err(|_| fail("@# takes hex digits"))?;
            return Ok(Self::KeyId(bytes.into()));
        }
        if let Some(email) = text.strip_prefix("@@") {
            return Ok(Self::Email(email.into()));
        }
        if let Some(name) = text.strip_prefix('@') {
            return Ok(Self::Fqdn(name.into()));
        }
        if text.contains('=') {
            return Ok(Self::Dn(text.parse().map_err(|_| fail(NOT_A_NAME))?));
        }
        if text.contains('@') {
            return Ok(Self::Email(text.into()));
        }
        if let Ok(addr) = text.parse::<IpAddr>() {
            return Ok(Self::from_addr(addr));
        }
        if text.contains(':') {
            return Ok(Self::KeyId(text.as_bytes().into()));
        }
        Ok(Self::Fqdn(text.into()))
    }
}

/// As strongSwan prints it. Control characters of a peer's text are escaped, and what is longer than
/// a domain name can be is cut.
impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ipv4(addr) => addr.fmt(f),
            Self::Ipv6(addr) => addr.fmt(f),
            Self::Fqdn(text) | Self::Email(text) => escaped(text.as_bytes(), f),
            Self::Dn(name) => name.fmt(f),
            Self::KeyId(bytes) => escaped(bytes, f),
            Self::Other { kind, bytes } => {
                write!(f, "({kind}):")?;
                let (shown, more) = shortened(bytes);
                shown.iter().try_for_each(|byte| write!(f, "{byte:02x}"))?;
                f.write_str(more)
            }
        }
    }
}

fn escaped(text: &[u8], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let is_plain = |byte: u8| matches!(byte, b' '..=b'~') && byte != b'\\';
    let (shown, more) = shortened(text);
    for run in shown.chunk_by(|one, next| is_plain(*one) && is_plain(*next)) {
        match (run, std::str::from_utf8(run)) {
            ([b'\\'], _) => f.write_str("\\\\")?,
            ([first, ..], Ok(plain)) if is_plain(*first) => f.write_str(plain)?,
            _ => run.iter().try_for_each(|byte| write!(f, "\\x{byte:02x}"))?,
        }
    }
    f.write_str(more)
}

/// What is shown of a text, and what follows it.
fn shortened(bytes: &[u8]) -> (&[u8], &'static str) {
    match bytes.get(..MOST_SHOWN) {
        Some(shown) if bytes.len() > MOST_SHOWN => (shown, "…"),
        _ => (bytes, ""),
    }
}

impl IdentityPattern {
    /// How well an identity fits: 0 not at all, more for a more specific pattern.
    pub fn rank(&self, identity: &Identity) -> usize {
        match self {
            Self::Any => 1,
            Self::Exact(exact) if exact.is_same(identity) => usize::MAX,
            Self::Exact(_) => 0,
            Self::Wildcard(pattern) => match (pattern, identity) {
                (Identity::Fqdn(pattern), Identity::Fqdn(name))
                | (Identity::Email(pattern), Identity::Email(name)) => {
                    let tail = pattern.trim_start_matches('*');
                    let start = name.len().checked_sub(tail.len());
                    let end = start.and_then(|start| name.get(start..));
                    match end {
                        Some(end) if start > Some(0) && end.eq_ignore_ascii_case(tail) => {
                            2 + tail.len()
                        }
                        _ => 0,
                    }
                }
                _ => 0,
            },
            Self::Dn(pattern) => match identity {
                Identity::Dn(name) => pattern.rank(name).saturating_mul(2),
                _ => 0,
            },
        }
    }

    /// Whether an identity fits.
    pub fn matches(&self, identity: &Identity) -> bool {
        self.rank(identity) > 0
    }

    /// The identity, if the pattern allows only one.
    pub fn exact(&self) -> Option<&Identity> {
        match self {
            Self::Exact(identity) => Some(identity),
            Self::Any | Self::Wildcard(_) | Self::Dn(..) => None,
        }
    }
}

/// `%any`, an identity, or a domain or mail address that starts with `*`.
impl FromStr for IdentityPattern {
    type Err = IdentitySyntax;

    fn from_str(text: &str) -> Result<Self, IdentitySyntax> {
        if matches!(text, "%any" | "%any4" | "%any6" | "*" | "0.0.0.0" | "::") {
            return Ok(Self::Any);
        }
        let identity = text.parse()?;
        match &identity {
            Identity::Fqdn(name) | Identity::Email(name) if name.starts_with('*') => {
                Ok(Self::Wildcard(identity))
            }
            Identity::Fqdn(name) | Identity::Email(name) if name.contains('*') => {
                Err(IdentitySyntax {
                    text: text.to_owned(),
                    reason: "a wildcard may only stand at the start",
                })
            }
            Identity::Dn(name) if name.has_wildcard() => Ok(Self::Dn(DnPattern::new(name.clone()))),
            _ => Ok(Self::Exact(identity)),
        }
    }
}

impl fmt::Display for IdentityPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("%any"),
            Self::Exact(identity) | Self::Wildcard(identity) => identity.fmt(f),
            Self::Dn(pattern) => pattern.name().fmt(f),
        }
    }
}

const MOST_SHOWN: usize = 255;
const NOT_A_NAME: &str = "not a distinguished name, which is written as in C=CH, O=Example, CN=gw";

#[cfg(test)]
mod tests {
    use super::*;

    fn id(text: &str) -> Identity {
        text.parse().expect("an identity")
    }

    #[test]
    fn the_type_follows_from_the_text_as_in_swanctl() {
        assert_eq!(id("gw.example"), Identity::Fqdn("gw.example".into()));
        assert_eq!(id("@gw.example"), Identity::Fqdn("gw.example".into()));
        assert_eq!(id("a@b.example"), Identity::Email("a@b.example".into()));
        assert_eq!(id("@@a@b.example"), Identity::Email("a@b.example".into()));
        assert_eq!(id("192.0.2.1"), Identity::Ipv4([192, 0, 2, 1].into()));
        assert_eq!(
            id("2001:db8::1"),
            Identity::Ipv6("2001:db8::1".parse().expect("an address"))
        );
        assert_eq!(id("@#0aFF"), Identity::KeyId([0x0a, 0xff].into()));
        assert_eq!(id("keyid:blue"), Identity::KeyId((*b"blue").into()));
        assert!(matches!(id("C=CH, CN=x"), Identity::Dn(_)));
        assert!("C=CH, CN".parse::<Identity>().is_err());
        assert!("".parse::<Identity>().is_err());
    }

    #[test]
    fn a_peer_s_control_characters_do_not_reach_a_log() {
        let payload = IdPayload {
            kind: IdType::FQDN,
            data: b"gw\n\x1b[31m\\",
        };
        let shown = Identity::from_payload(&payload).to_string();
        assert_eq!(shown, "gw\\x0a\\x1b[31m\\\\");
    }

    #[test]
    fn a_peer_s_identity_does_not_fill_a_log() {
        for kind in [IdType::FQDN, IdType::KEY_ID, IdType(200)] {
            let data = &[1; 10_000];
            let shown = Identity::from_payload(&IdPayload { kind, data }).to_string();
            assert!(shown.len() < 1100 && shown.ends_with('…'), "{shown}");
        }
    }

    #[test]
    fn an_address_of_the_wrong_length_equals_no_address() {
        for data in [&[192, 0, 2][..], &[192, 0, 2, 1, 0], &[]] {
            let kind = IdType::IPV4_ADDR;
            let identity = Identity::from_payload(&IdPayload { kind, data });
            assert!(matches!(identity, Identity::Other { kind: 1, .. }));
        }
    }

    #[test]
    fn a_wildcard_matches_the_end_and_ranks_below_the_exact_name() {
        let wild: IdentityPattern = "*.example".parse().expect("a pattern");
        let exact: IdentityPattern = "gw.example".parse().expect("a pattern");
        let name = id("GW.Example");
        assert!(wild.matches(&name) && exact.matches(&name));
        assert!(exact.rank(&name) > wild.rank(&name));
        assert!(wild.rank(&name) > IdentityPattern::Any.rank(&name));
        assert!(!wild.matches(&id(".example")));
        assert!(!wild.matches(&id("gw.example.org")));
        assert!(!wild.matches(&id("a@gw.example")));
        assert!("gw*.example".parse::<IdentityPattern>().is_err());
    }
}
