//! NAT-OA payload: an address as its owner sees it (RFC 3947 §5.2).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::identification::{IdType, octets};
use crate::wire::Malformed;

/// An original address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OriginalAddress(pub IpAddr);

impl OriginalAddress {
    /// Reads the payload.
    pub fn parse(body: &[u8]) -> Result<Self, Malformed> {
        let (&[kind, _, _, _], data) = body
            .split_first_chunk::<4>()
            .ok_or(Malformed::Truncated("NAT-OA payload"))?;
        let length = Malformed::BadLength("NAT-OA payload");
        let addr = match IdType(kind) {
            IdType::IPV4_ADDR => {
                Ipv4Addr::from(<[u8; 4]>::try_from(data).map_err(|_| length)?).into()
            }
            IdType::IPV6_ADDR => {
                Ipv6Addr::from(<[u8; 16]>::try_from(data).map_err(|_| length)?).into()
            }
            _ => return Err(Malformed::BadValue("NAT-OA payload")),
        };
        Ok(Self(addr))
    }

    /// Appends the payload.
    pub fn write(&self, out: &mut Vec<u8>) {
        let kind = match self.0 {
            IpAddr::V4(_) => IdType::IPV4_ADDR,
            IpAddr::V6(_) => IdType::IPV6_ADDR,
        };
        out.extend_from_slice(&[kind.0, 0, 0, 0]);
        out.extend(octets(self.0));
    }
}
