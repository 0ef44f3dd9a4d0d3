//! What REDIRECT and REDIRECTED_FROM say (RFC 5685 §9.2, §9.3).

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use crate::wire::Malformed;

/// A gateway that an initiator is sent to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Gateway {
    /// Its address.
    Address(IpAddr),
    /// Its domain name.
    Name(String),
}

impl Gateway {
    /// Reads the data of a notification: the gateway, and the nonce behind it, if there is one.
    pub fn parse(data: &[u8]) -> Result<(Self, &[u8]), Malformed> {
        let (&[kind, length], rest) = data
            .split_first_chunk::<2>()
            .ok_or(Malformed::Truncated("gateway identity"))?;
        let (value, nonce) = rest
            .split_at_checked(length.into())
            .ok_or(Malformed::Truncated("gateway identity"))?;
        let wrong = Malformed::BadValue("gateway identity");
        let gateway = match kind {
            IPV4 => <[u8; 4]>::try_from(value).ok().map(IpAddr::from),
            IPV6 => <[u8; 16]>::try_from(value).ok().map(IpAddr::from),
            FQDN => {
                let name = std::str::from_utf8(value).map_err(|_| wrong)?;
                return Ok((Self::Name(checked(name).ok_or(wrong)?.to_owned()), nonce));
            }
            _ => None,
        };
        Ok((Self::Address(gateway.ok_or(wrong)?), nonce))
    }

    /// Whether one gateway somewhere else may be found there.
    #[must_use]
    pub fn is_unicast(&self) -> bool {
        let Self::Address(addr) = self else {
            return true;
        };
        match addr.to_canonical() {
            IpAddr::V4(addr) => {
                let [first, ..] = addr.octets();
                (1..=223).contains(&first) && !addr.is_loopback() && !addr.is_link_local()
            }
            IpAddr::V6(addr) => {
                let special = addr.is_unspecified() || addr.is_multicast() || addr.is_loopback();
                !special && !addr.is_unicast_link_local()
            }
        }
    }

    /// The data of a notification, with a nonce behind the gateway.
    #[must_use]
    pub fn encode(&self, nonce: &[u8]) -> Vec<u8> {
        let (kind, value) = match self {
            Self::Address(IpAddr::V4(addr)) => (IPV4, addr.octets().to_vec()),
            Self::Address(IpAddr::V6(addr)) => (IPV6, addr.octets().to_vec()),
            Self::Name(name) => (FQDN, name.as_bytes().to_vec()),
        };
        let length = u8::try_from(value.len()).expect("a name is at most 255 bytes long");
        [&[kind, length], &*value, nonce].concat()
    }
}

impl FromStr for Gateway {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(addr) = text.parse() {
            let gateway = Self::Address(addr);
            return match gateway.is_unicast() {
                true => Ok(gateway),
                false => Err(format!("{addr} is no gateway's address")),
            };
        }
        match checked(text) {
            Some(name) => Ok(Self::Name(name.to_owned())),
            None => Err(format!("{text:?} is neither an address nor a domain name")),
        }
    }
}

impl fmt::Display for Gateway {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(addr) => addr.fmt(f),
            Self::Name(name) => f.write_str(name),
        }
    }
}

/// A domain name as it may be sent, and shown to people.
fn checked(name: &str) -> Option<&str> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
    let fits = (1..=255).contains(&name.len()) && name.chars().all(allowed);
    fits.then_some(name)
}

const IPV4: u8 = 1;
const IPV6: u8 = 2;
const FQDN: u8 = 3;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gateways_are_read_as_they_were_written() {
        let nonce = [7; 16];
        for (text, bytes) in [
            ("192.0.2.7", vec![1, 4, 192, 0, 2, 7]),
            ("100::1", [vec![2, 16, 1], vec![0; 14], vec![1]].concat()),
            ("gw.example", [&[3, 10][..], b"gw.example"].concat()),
        ] {
            let gateway: Gateway = text.parse().expect("it is one");
            assert_eq!(gateway.to_string(), text);
            assert_eq!(gateway.encode(&[]), bytes);
            assert_eq!(Gateway::parse(&bytes), Ok((gateway.clone(), &[][..])));
            let with_nonce = gateway.encode(&nonce);
            assert_eq!(Gateway::parse(&with_nonce), Ok((gateway, &nonce[..])));
        }
    }

    #[test]
    fn what_is_no_gateway_is_malformed() {
        for wrong in [
            &[][..],
            &[1],
            &[1, 4, 192, 0, 2],
            &[1, 5, 192, 0, 2, 7, 1],
            &[2, 4, 192, 0, 2, 7],
            &[3, 0],
            &[3, 2, b'a', 10],
            &[3, 1, 0xff],
            &[0, 4, 192, 0, 2, 7],
            &[4, 4, 192, 0, 2, 7],
        ] {
            assert!(Gateway::parse(wrong).is_err(), "{wrong:?}");
        }
        let long = "a".repeat(256);
        let special = [
            "0.0.0.0",
            "127.0.0.1",
            "169.254.1.1",
            "224.0.0.1",
            "240.0.0.1",
        ];
        let special6 = ["::", "::1", "ff02::1", "fe80::1", "::ffff:127.0.0.1"];
        let words = ["", "a b", "ä.example", &long];
        for wrong in [&words[..], &special, &special6].concat() {
            assert!(wrong.parse::<Gateway>().is_err(), "{wrong}");
        }
    }
}
