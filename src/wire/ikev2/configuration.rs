//! Configuration payload (RFC 7296 §3.15).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use crate::wire::Malformed;

/// What a configuration payload does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ConfigurationType(pub u8);

#[allow(missing_docs, reason = "each constant is the IANA name")]
impl ConfigurationType {
    pub const REQUEST: Self = Self(1);
    pub const REPLY: Self = Self(2);
    pub const SET: Self = Self(3);
    pub const ACK: Self = Self(4);
}

/// What an attribute holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct AttributeType(pub u16);

#[allow(missing_docs, reason = "each constant is the IANA name")]
impl AttributeType {
    pub const INTERNAL_IP4_ADDRESS: Self = Self(1);
    pub const INTERNAL_IP4_DNS: Self = Self(3);
    pub const INTERNAL_IP6_ADDRESS: Self = Self(8);
    pub const INTERNAL_IP6_DNS: Self = Self(10);
    pub const INTERNAL_IP4_SUBNET: Self = Self(13);
    pub const INTERNAL_IP6_SUBNET: Self = Self(15);
}

/// One attribute that we know; a request may leave the value out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attribute {
    /// INTERNAL_IP4_ADDRESS, or INTERNAL_IP6_ADDRESS without its prefix length.
    Address(Family, Option<IpAddr>),
    /// A name server.
    Dns(Family, Option<IpAddr>),
    /// A network that the gateway protects.
    Subnet(Family, Option<IpNet>),
}

/// IPv4 or IPv6.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// That of an address.
    pub fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(_) => Self::V4,
            IpAddr::V6(_) => Self::V6,
        }
    }
}

/// A configuration payload; attributes that we do not know are left out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Configuration {
    /// What it does.
    pub kind: ConfigurationType,
    /// At most [`Self::MAX_ATTRIBUTES`].
    pub attributes: Vec<Attribute>,
}

impl Configuration {
    /// What is behind so many attributes is not looked at.
    pub const MAX_ATTRIBUTES: usize = 64;

    /// Reads the payload.
    pub fn parse(body: &[u8]) -> Result<Self, Malformed> {
        let (&[kind, _, _, _], mut rest) = body
            .split_first_chunk::<4>()
            .ok_or(Malformed::Truncated("configuration payload"))?;
        let mut attributes = Vec::new();
        while attributes.len() < Self::MAX_ATTRIBUTES && !rest.is_empty() {
            let (&[k0, k1, l0, l1], behind) = rest
                .split_first_chunk::<4>()
                .ok_or(Malformed::Truncated("configuration attribute"))?;
            let length = usize::from(u16::from_be_bytes([l0, l1]));
            let (value, behind) = behind
                .split_at_checked(length)
                .ok_or(Malformed::Truncated("configuration attribute"))?;
            let kind = AttributeType(u16::from_be_bytes([k0, k1]) & 0x7fff);
            attributes.extend(Attribute::parse(kind, value)?);
            rest = behind;
        }
        Ok(Self {
            kind: ConfigurationType(kind),
            attributes,
        })
    }

    /// Appends the payload.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&[self.kind.0, 0, 0, 0]);
        for attribute in &self.attributes {
            attribute.encode(out);
        }
    }
}

impl Attribute {
    fn parse(kind: AttributeType, value: &[u8]) -> Result<Option<Self>, Malformed> {
        Ok(Some(match kind {
            AttributeType::INTERNAL_IP4_ADDRESS => Self::Address(Family::V4, v4(value)?),
            AttributeType::INTERNAL_IP4_DNS => Self::Dns(Family::V4, v4(value)?),
            AttributeType::INTERNAL_IP6_DNS => Self::Dns(Family::V6, v6(value)?),
            AttributeType::INTERNAL_IP6_ADDRESS => {
                // Some leave the prefix length out.
                let address = value.get(..16).filter(|_| value.len() <= 17);
                Self::Address(Family::V6, v6(address.unwrap_or(value))?)
            }
            AttributeType::INTERNAL_IP4_SUBNET => Self::Subnet(Family::V4, subnet_v4(value)?),
            AttributeType::INTERNAL_IP6_SUBNET => Self::Subnet(Family::V6, subnet_v6(value)?),
            _ => return Ok(None),
        }))
    }

    fn encode(&self, out: &mut Vec<u8>) {
        let mut value = Vec::new();
        let kind = match *self {
            Self::Address(family, address) => {
                add_address(address, &mut value);
                if let Some(IpAddr::V6(_)) = address {
                    value.push(128);
                }
                match family {
                    Family::V4 => AttributeType::INTERNAL_IP4_ADDRESS,
                    Family::V6 => AttributeType::INTERNAL_IP6_ADDRESS,
                }
            }
            Self::Dns(family, address) => {
                add_address(address, &mut value);
                match family {
                    Family::V4 => AttributeType::INTERNAL_IP4_DNS,
                    Family::V6 => AttributeType::INTERNAL_IP6_DNS,
                }
            }
            Self::Subnet(family, net) => {
                match net {
                    Some(IpNet::V4(net)) => {
                        value.extend_from_slice(&net.network().octets());
                        value.extend_from_slice(&net.netmask().octets());
                    }
                    Some(IpNet::V6(net)) => {
                        value.extend_from_slice(&net.network().octets());
                        value.push(net.prefix_len());
                    }
                    None => {}
                }
                match family {
                    Family::V4 => AttributeType::INTERNAL_IP4_SUBNET,
                    Family::V6 => AttributeType::INTERNAL_IP6_SUBNET,
                }
            }
        };
        out.extend_from_slice(&kind.0.to_be_bytes());
        let length = u16::try_from(value.len()).unwrap_or(u16::MAX);
        out.extend_from_slice(&length.to_be_bytes());
        out.extend_from_slice(&value);
    }
}

fn add_address(address: Option<IpAddr>, value: &mut Vec<u8>) {
    match address {
        Some(IpAddr::V4(address)) => value.extend_from_slice(&address.octets()),
        Some(IpAddr::V6(address)) => value.extend_from_slice(&address.octets()),
        None => {}
    }
}

const LENGTH: Malformed = Malformed::BadLength("configuration attribute");

/// Nothing, or an address. The unspecified one asks for any, as nothing does.
fn v4(value: &[u8]) -> Result<Option<IpAddr>, Malformed> {
    match value {
        [] => Ok(None),
        &[a, b, c, d] => Ok(specified(Ipv4Addr::new(a, b, c, d).into())),
        _ => Err(LENGTH),
    }
}

fn v6(value: &[u8]) -> Result<Option<IpAddr>, Malformed> {
    if value.is_empty() {
        return Ok(None);
    }
    let address = <[u8; 16]>::try_from(value).map_err(|_| LENGTH)?;
    Ok(specified(Ipv6Addr::from(address).into()))
}

fn specified(address: IpAddr) -> Option<IpAddr> {
    (!address.is_unspecified()).then_some(address)
}

fn subnet_v4(value: &[u8]) -> Result<Option<IpNet>, Malformed> {
    let &[a, b, c, d, m0, m1, m2, m3] = value else {
        return if value.is_empty() {
            Ok(None)
        } else {
            Err(LENGTH)
        };
    };
    let mask = Ipv4Addr::new(m0, m1, m2, m3);
    let net = IpNet::with_netmask(Ipv4Addr::new(a, b, c, d).into(), mask.into());
    net.map(|net| Some(net.trunc()))
        .map_err(|_| Malformed::BadValue("configuration subnet"))
}

fn subnet_v6(value: &[u8]) -> Result<Option<IpNet>, Malformed> {
    let Some((&prefix, address)) = value.split_last() else {
        return Ok(None);
    };
    let address = <[u8; 16]>::try_from(address).map_err(|_| LENGTH)?;
    let net = IpNet::new(Ipv6Addr::from(address).into(), prefix);
    net.map(|net| Some(net.trunc()))
        .map_err(|_| Malformed::BadValue("configuration subnet"))
}
