//! What a transform says by its attributes (RFC 2409 appendix A, RFC 2407 §4.5, RFC 4304 §3).

use std::fmt;

use super::attribute::{DataAttribute, attributes, write_basic, write_number};
use crate::wire::Malformed;

/// Attributes of a transform KEY_IKE: one ISAKMP policy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct IsakmpTransform {
    /// Encryption Algorithm.
    pub encryption: Option<u16>,
    /// Key Length in bits.
    pub key_bits: Option<u16>,
    /// Hash Algorithm.
    pub hash: Option<u16>,
    /// Authentication Method.
    pub authentication: Option<AuthenticationMethod>,
    /// Group Description.
    pub group: Option<u16>,
    /// How long it may live.
    pub lifetime: Lifetime,
    /// The first attribute that we do not know, or whose value is none of its kind. Such a transform
    /// is not acceptable (RFC 2408 §4.2).
    pub unknown: Option<u16>,
}

/// Attributes of a transform of Quick Mode.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QuickTransform {
    /// Group Description: the group of PFS.
    pub group: Option<u16>,
    /// Tunnel or transport.
    pub encapsulation: Option<Encapsulation>,
    /// Authentication Algorithm; none beside an AEAD.
    pub authentication: Option<u16>,
    /// Key Length in bits.
    pub key_bits: Option<u16>,
    /// 64-bit sequence numbers.
    pub esn: bool,
    /// How long it may live.
    pub lifetime: Lifetime,
    /// As in [`IsakmpTransform::unknown`].
    pub unknown: Option<u16>,
}

/// Life Type and Life Duration, once for each type.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lifetime {
    /// In seconds.
    pub seconds: Option<u64>,
    /// In units of 1024 bytes.
    pub kilobytes: Option<u64>,
}

/// How peers authenticate in phase 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct AuthenticationMethod(pub u16);

#[allow(missing_docs, reason = "each constant is the IANA or draft name")]
impl AuthenticationMethod {
    pub const PRE_SHARED_KEY: Self = Self(1);
    pub const DSS: Self = Self(2);
    pub const RSA_SIGNATURES: Self = Self(3);
    pub const RSA_ENCRYPTION: Self = Self(4);
    pub const REVISED_RSA_ENCRYPTION: Self = Self(5);
    pub const ECDSA_256: Self = Self(9);
    pub const ECDSA_384: Self = Self(10);
    pub const ECDSA_521: Self = Self(11);
    pub const HYBRID_INIT_RSA: Self = Self(64221);
    pub const HYBRID_RESP_RSA: Self = Self(64222);
    pub const XAUTH_INIT_PRESHARED: Self = Self(65001);
    pub const XAUTH_RESP_PRESHARED: Self = Self(65002);
    pub const XAUTH_INIT_RSA: Self = Self(65005);
    pub const XAUTH_RESP_RSA: Self = Self(65006);
}

impl fmt::Display for AuthenticationMethod {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match *self {
            Self::PRE_SHARED_KEY => "PSK",
            Self::DSS => "DSS",
            Self::RSA_SIGNATURES => "RSA_SIG",
            Self::RSA_ENCRYPTION => "RSA_ENC",
            Self::REVISED_RSA_ENCRYPTION => "REVISED_RSA_ENC",
            Self::ECDSA_256 => "ECDSA_256",
            Self::ECDSA_384 => "ECDSA_384",
            Self::ECDSA_521 => "ECDSA_521",
            Self::HYBRID_INIT_RSA => "HYBRID_INIT_RSA",
            Self::HYBRID_RESP_RSA => "HYBRID_RESP_RSA",
            Self::XAUTH_INIT_PRESHARED => "XAUTH_INIT_PSK",
            Self::XAUTH_RESP_PRESHARED => "XAUTH_RESP_PSK",
            Self::XAUTH_INIT_RSA => "XAUTH_INIT_RSA",
            Self::XAUTH_RESP_RSA => "XAUTH_RESP_RSA",
            Self(number) => return write!(f, "AUTH_METHOD_{number}"),
        })
    }
}

/// Encapsulation Mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Encapsulation(pub u16);

#[allow(missing_docs, reason = "each constant is the IANA or draft name")]
impl Encapsulation {
    pub const TUNNEL: Self = Self(1);
    pub const TRANSPORT: Self = Self(2);
    pub const UDP_TUNNEL: Self = Self(3);
    pub const UDP_TRANSPORT: Self = Self(4);
    pub const UDP_TUNNEL_DRAFT: Self = Self(61443);
    pub const UDP_TRANSPORT_DRAFT: Self = Self(61444);
}

impl IsakmpTransform {
    /// Reads the attributes. An attribute that comes twice is malformed.
    pub fn parse(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut this = Self::default();
        let mut life_type = None;
        for attribute in attributes(bytes) {
            let attribute = attribute?;
            let known = match attribute.kind {
                ENCRYPTION => once(&mut this.encryption, attribute.basic())?,
                HASH => once(&mut this.hash, attribute.basic())?,
                AUTHENTICATION => once(
                    &mut this.authentication,
                    attribute.basic().map(AuthenticationMethod),
                )?,
                GROUP => once(&mut this.group, attribute.basic())?,
                KEY_LENGTH => once(&mut this.key_bits, attribute.basic())?,
                LIFE_TYPE => once(&mut life_type, attribute.basic())?,
                LIFE_DURATION => this.lifetime.take(life_type.take(), &attribute)?,
                _ => false,
            };
            if !known {
                this.unknown = this.unknown.or(Some(attribute.kind));
            }
        }
        Ok(this)
    }

    /// Appends the attributes.
    pub fn write(&self, out: &mut Vec<u8>) {
        let basic = [
            (ENCRYPTION, self.encryption),
            (KEY_LENGTH, self.key_bits),
            (HASH, self.hash),
            (GROUP, self.group),
            (AUTHENTICATION, self.authentication.map(|method| method.0)),
        ];
        write_present(&basic, out);
        self.lifetime.write(LIFE_TYPE, LIFE_DURATION, out);
    }
}

impl QuickTransform {
    /// Reads the attributes. An attribute that comes twice is malformed.
    pub fn parse(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut this = Self::default();
        let (mut life_type, mut esn) = (None, None);
        for attribute in attributes(bytes) {
            let attribute = attribute?;
            let value = attribute.basic();
            let known = match attribute.kind {
                SA_LIFE_TYPE => once(&mut life_type, value)?,
                SA_LIFE_DURATION => this.lifetime.take(life_type.take(), &attribute)?,
                QUICK_GROUP => once(&mut this.group, value)?,
                ENCAPSULATION => once(&mut this.encapsulation, value.map(Encapsulation))?,
                AUTHENTICATION_ALGORITHM => once(&mut this.authentication, value)?,
                QUICK_KEY_LENGTH => once(&mut this.key_bits, value)?,
                SEQUENCE_NUMBERS => once(&mut esn, value.filter(|value| *value == ESN))?,
                _ => false,
            };
            if !known {
                this.unknown = this.unknown.or(Some(attribute.kind));
            }
        }
        this.esn = esn.is_some();
        Ok(this)
    }

    /// Appends the attributes.
    pub fn write(&self, out: &mut Vec<u8>) {
        let basic = [
            (QUICK_GROUP, self.group),
            (ENCAPSULATION, self.encapsulation.map(|mode| mode.0)),
            (AUTHENTICATION_ALGORITHM, self.authentication),
            (QUICK_KEY_LENGTH, self.key_bits),
            (SEQUENCE_NUMBERS, self.esn.then_some(ESN)),
        ];
        write_present(&basic, out);
        self.lifetime.write(SA_LIFE_TYPE, SA_LIFE_DURATION, out);
    }
}

impl Lifetime {
    /// Reads a notification of RESPONDER-LIFETIME (RFC 2407 §4.6.3.1), whose attributes are those of
    /// phase 1 or of Quick Mode, as the protocol of the notification says.
    pub fn parse(bytes: &[u8], isakmp: bool) -> Result<Self, Malformed> {
        Ok(if isakmp {
            IsakmpTransform::parse(bytes)?.lifetime
        } else {
            QuickTransform::parse(bytes)?.lifetime
        })
    }

    /// Appends the attributes of RESPONDER-LIFETIME.
    pub fn write_notification(&self, isakmp: bool, out: &mut Vec<u8>) {
        if isakmp {
            self.write(LIFE_TYPE, LIFE_DURATION, out);
        } else {
            self.write(SA_LIFE_TYPE, SA_LIFE_DURATION, out);
        }
    }

    /// Takes a duration of the type that came before it.
    fn take(
        &mut self,
        life_type: Option<u16>,
        attribute: &DataAttribute<'_>,
    ) -> Result<bool, Malformed> {
        let duration = attribute.number();
        match life_type {
            Some(SECONDS) => once(&mut self.seconds, duration),
            Some(KILOBYTES) => once(&mut self.kilobytes, duration),
            Some(_) => Ok(false),
            None => Err(Malformed::BadValue("life duration")),
        }
    }

    fn write(&self, type_class: u16, duration_class: u16, out: &mut Vec<u8>) {
        for (life_type, duration) in [(SECONDS, self.seconds), (KILOBYTES, self.kilobytes)] {
            if let Some(duration) = duration {
                let duration = u32::try_from(duration).unwrap_or(u32::MAX);
                write_basic(type_class, life_type, out);
                write_number(duration_class, duration, out);
            }
        }
    }
}

fn write_present(attributes: &[(u16, Option<u16>)], out: &mut Vec<u8>) {
    for (class, value) in attributes {
        if let Some(value) = value {
            write_basic(*class, *value, out);
        }
    }
}

/// Keeps a value; false where there is none that the attribute may have.
fn once<T>(slot: &mut Option<T>, value: Option<T>) -> Result<bool, Malformed> {
    if slot.is_some() {
        return Err(Malformed::BadValue("attribute that comes twice"));
    }
    *slot = value;
    Ok(slot.is_some())
}

const ENCRYPTION: u16 = 1;
const HASH: u16 = 2;
const AUTHENTICATION: u16 = 3;
const GROUP: u16 = 4;
const LIFE_TYPE: u16 = 11;
const LIFE_DURATION: u16 = 12;
const KEY_LENGTH: u16 = 14;

const SA_LIFE_TYPE: u16 = 1;
const SA_LIFE_DURATION: u16 = 2;
const QUICK_GROUP: u16 = 3;
const ENCAPSULATION: u16 = 4;
const AUTHENTICATION_ALGORITHM: u16 = 5;
const QUICK_KEY_LENGTH: u16 = 6;
const SEQUENCE_NUMBERS: u16 = 11;

const SECONDS: u16 = 1;
const KILOBYTES: u16 = 2;
const ESN: u16 = 1;
