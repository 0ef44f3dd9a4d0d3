//! Identification payload (RFC 2407 §4.6.2): of a peer in phase 1, of traffic in phase 2.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use crate::wire::Malformed;
use crate::wire::selector::TrafficSelector;

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
    pub const USER_FQDN: Self = Self(3);
    pub const IPV4_ADDR_SUBNET: Self = Self(4);
    pub const IPV6_ADDR: Self = Self(5);
    pub const IPV6_ADDR_SUBNET: Self = Self(6);
    pub const IPV4_ADDR_RANGE: Self = Self(7);
    pub const IPV6_ADDR_RANGE: Self = Self(8);
    pub const DER_ASN1_DN: Self = Self(9);
    pub const DER_ASN1_GN: Self = Self(10);
    pub const KEY_ID: Self = Self(11);
}

/// Who or what. HASH_I, HASH_R and signatures cover this payload's body as it was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IdPayload<'a> {
    /// How `data` is to be read.
    pub kind: IdType,
    /// Upper-layer protocol; 0 for any.
    pub protocol: u8,
    /// Its port; 0 for any.
    pub port: u16,
    /// The identity, unchecked.
    pub data: &'a [u8],
}

impl<'a> IdPayload<'a> {
    /// Reads the payload.
    pub fn parse(body: &'a [u8]) -> Result<Self, Malformed> {
        let (&[kind, protocol, port_hi, port_lo], data) = body
            .split_first_chunk::<4>()
            .ok_or(Malformed::Truncated("ID payload"))?;
        Ok(Self {
            kind: IdType(kind),
            protocol,
            port: u16::from_be_bytes([port_hi, port_lo]),
            data,
        })
    }

    /// Appends the payload.
    pub fn write(&self, out: &mut Vec<u8>) {
        let [port_hi, port_lo] = self.port.to_be_bytes();
        out.extend_from_slice(&[self.kind.0, self.protocol, port_hi, port_lo]);
        out.extend_from_slice(self.data);
    }

    /// The traffic that it names in Quick Mode; an identity that is no set of addresses names none.
    pub fn selector(&self) -> Result<TrafficSelector, Malformed> {
        let (start, end) = self.addresses()?;
        let ports = match self.port {
            0 => 0..=u16::MAX,
            port => port..=port,
        };
        TrafficSelector::new(self.protocol, ports, start, end)
    }

    fn addresses(&self) -> Result<(IpAddr, IpAddr), Malformed> {
        let length = Malformed::BadLength("ID payload");
        match self.kind {
            IdType::IPV4_ADDR | IdType::IPV6_ADDR => {
                let addr = self.address(self.data).ok_or(length)?;
                Ok((addr, addr))
            }
            IdType::IPV4_ADDR_SUBNET | IdType::IPV6_ADDR_SUBNET => {
                let (addr, mask) = self.pair().ok_or(length)?;
                let net = IpNet::with_netmask(addr, mask)
                    .map_err(|_| Malformed::BadValue("subnet mask"))?;
                Ok((net.network(), net.broadcast()))
            }
            IdType::IPV4_ADDR_RANGE | IdType::IPV6_ADDR_RANGE => self.pair().ok_or(length),
            _ => Err(Malformed::BadValue("ID type of traffic")),
        }
    }

    fn pair(&self) -> Option<(IpAddr, IpAddr)> {
        let (first, second) = self.data.split_at_checked(self.data.len() / 2)?;
        Some((self.address(first)?, self.address(second)?))
    }

    /// An address of the family that the type says.
    fn address(&self, bytes: &[u8]) -> Option<IpAddr> {
        let is_v4 = matches!(
            self.kind,
            IdType::IPV4_ADDR | IdType::IPV4_ADDR_SUBNET | IdType::IPV4_ADDR_RANGE
        );
        if is_v4 {
            let bytes = <[u8; 4]>::try_from(bytes).ok()?;
            Some(Ipv4Addr::from(bytes).into())
        } else {
            let bytes = <[u8; 16]>::try_from(bytes).ok()?;
            Some(Ipv6Addr::from(bytes).into())
        }
    }

    /// Appends the payload that names this traffic: an address, a subnet or a range. IKEv1 has one
    /// port or all of them; `None` where the selector has a range of ports.
    pub fn write_selector(selector: &TrafficSelector, out: &mut Vec<u8>) -> Option<()> {
        let port = match selector.ports() {
            (0, u16::MAX) => 0,
            (first, last) if first == last => first,
            _ => return None,
        };
        let (start, end) = (selector.start(), selector.end());
        let nets = selector.to_nets();
        let mut data = octets(start);
        let (v4, v6) = match nets.as_slice() {
            _ if start == end => (IdType::IPV4_ADDR, IdType::IPV6_ADDR),
            [net] => {
                data.extend(octets(net.netmask()));
                (IdType::IPV4_ADDR_SUBNET, IdType::IPV6_ADDR_SUBNET)
            }
            _ => {
                data.extend(octets(end));
                (IdType::IPV4_ADDR_RANGE, IdType::IPV6_ADDR_RANGE)
            }
        };
        let payload = IdPayload {
            kind: if selector.is_ipv6() { v6 } else { v4 },
            protocol: selector.protocol(),
            port,
            data: &data,
        };
        payload.write(out);
        Some(())
    }
}

pub(super) fn octets(addr: IpAddr) -> Vec<u8> {
    match addr {
        IpAddr::V4(addr) => addr.octets().to_vec(),
        IpAddr::V6(addr) => addr.octets().to_vec(),
    }
}
