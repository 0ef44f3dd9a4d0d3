//! Attributes payload of a transaction exchange: Mode Config and XAUTH
//! (draft-ietf-ipsec-isakmp-mode-cfg-05, draft-beaulieu-ike-xauth-02), with those of Cisco Unity.

use super::attribute::{DataAttribute, attributes, write_basic, write_variable};
use crate::wire::Malformed;

/// What the payload does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TransactionType(pub u8);

#[allow(missing_docs, reason = "each constant is the name of the draft")]
impl TransactionType {
    pub const REQUEST: Self = Self(1);
    pub const REPLY: Self = Self(2);
    pub const SET: Self = Self(3);
    pub const ACK: Self = Self(4);
}

/// What an attribute holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct AttributeType(pub u16);

#[allow(missing_docs, reason = "each constant is the name of its draft")]
impl AttributeType {
    pub const INTERNAL_IP4_ADDRESS: Self = Self(1);
    pub const INTERNAL_IP4_NETMASK: Self = Self(2);
    pub const INTERNAL_IP4_DNS: Self = Self(3);
    pub const INTERNAL_IP4_NBNS: Self = Self(4);
    pub const INTERNAL_ADDRESS_EXPIRY: Self = Self(5);
    pub const APPLICATION_VERSION: Self = Self(7);
    pub const INTERNAL_IP6_ADDRESS: Self = Self(8);
    pub const INTERNAL_IP6_DNS: Self = Self(10);
    pub const INTERNAL_IP4_SUBNET: Self = Self(13);
    pub const INTERNAL_IP6_SUBNET: Self = Self(15);
    pub const XAUTH_TYPE: Self = Self(16520);
    pub const XAUTH_USER_NAME: Self = Self(16521);
    pub const XAUTH_USER_PASSWORD: Self = Self(16522);
    pub const XAUTH_PASSCODE: Self = Self(16523);
    pub const XAUTH_MESSAGE: Self = Self(16524);
    pub const XAUTH_CHALLENGE: Self = Self(16525);
    pub const XAUTH_DOMAIN: Self = Self(16526);
    pub const XAUTH_STATUS: Self = Self(16527);
    pub const UNITY_BANNER: Self = Self(28672);
    pub const UNITY_DEF_DOMAIN: Self = Self(28674);
    pub const UNITY_SPLITDNS_NAME: Self = Self(28675);
    pub const UNITY_SPLIT_INCLUDE: Self = Self(28676);
    pub const UNITY_LOCAL_LAN: Self = Self(28678);
}

/// An attributes payload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AttributesPayload<'a> {
    /// What it does.
    pub kind: TransactionType,
    /// An answer repeats it.
    pub identifier: u16,
    /// In the sender's order, at most [`Self::MAX_ATTRIBUTES`].
    pub attributes: Vec<(AttributeType, &'a [u8])>,
}

impl<'a> AttributesPayload<'a> {
    /// What is behind so many attributes is not looked at.
    pub const MAX_ATTRIBUTES: usize = 64;

    /// Reads the payload.
    pub fn parse(body: &'a [u8]) -> Result<Self, Malformed> {
        let (&[kind, _, id_hi, id_lo], rest) = body
            .split_first_chunk::<4>()
            .ok_or(Malformed::Truncated("attributes payload"))?;
        let named = |attribute: DataAttribute<'a>| (AttributeType(attribute.kind), attribute.value);
        let attributes = attributes(rest)
            .take(Self::MAX_ATTRIBUTES)
            .map(|attribute| attribute.map(named))
            .collect::<Result<_, _>>()?;
        Ok(Self {
            kind: TransactionType(kind),
            identifier: u16::from_be_bytes([id_hi, id_lo]),
            attributes,
        })
    }

    /// The value of the first attribute of this type.
    pub fn get(&self, kind: AttributeType) -> Option<&'a [u8]> {
        let mut attributes = self.attributes.iter();
        let found = attributes.find(|(known, _)| *known == kind);
        found.map(|(_, value)| *value)
    }

    /// Appends the payload. XAUTH_TYPE and XAUTH_STATUS are numbers in the short format, whose value
    /// must have two bytes; all others are written in the long one.
    pub fn write(&self, out: &mut Vec<u8>) {
        let [id_hi, id_lo] = self.identifier.to_be_bytes();
        out.extend_from_slice(&[self.kind.0, 0, id_hi, id_lo]);
        for (kind, value) in &self.attributes {
            match (*kind, *value) {
                (AttributeType::XAUTH_TYPE | AttributeType::XAUTH_STATUS, &[high, low]) => {
                    write_basic(kind.0, u16::from_be_bytes([high, low]), out);
                }
                (_, value) => write_variable(kind.0, value, out),
            }
        }
    }
}
