//! Socket addresses in the form the kernel reads and writes (`sockaddr_in`, `sockaddr_in6`), as
//! plain bytes so that no union has to be trusted.

use std::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6};

/// Room for one IPv4 or IPv6 socket address.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C, align(8))]
pub(super) struct SocketName {
    pub(super) bytes: [u8; NAME_LEN],
}

impl SocketName {
    /// Writes `address` and returns how many bytes of the name are in use.
    pub(super) fn set(&mut self, address: SocketAddr) -> usize {
        let bytes = &mut self.bytes;
        match address {
            SocketAddr::V4(v4) => {
                put(bytes, 0, &FAMILY_V4.to_ne_bytes());
                put(bytes, 2, &v4.port().to_be_bytes());
                put(bytes, 4, &v4.ip().octets());
                put(bytes, 8, &[0; 8]);
                NAME_V4_LEN
            }
            SocketAddr::V6(v6) => {
                put(bytes, 0, &FAMILY_V6.to_ne_bytes());
                put(bytes, 2, &v6.port().to_be_bytes());
                put(bytes, 4, &[0; 4]);
                put(bytes, 8, &v6.ip().octets());
                put(bytes, 24, &v6.scope_id().to_ne_bytes());
                NAME_LEN
            }
        }
    }

    /// Reads the address; `None` for a family other than IPv4 and IPv6.
    pub(super) fn get(&self) -> Option<SocketAddr> {
        let family = u16::from_ne_bytes(take(&self.bytes, 0)?);
        let port = u16::from_be_bytes(take(&self.bytes, 2)?);
        if family == FAMILY_V4 {
            let octets: [u8; 4] = take(&self.bytes, 4)?;
            return Some(SocketAddr::new(IpAddr::from(octets), port));
        }
        if family == FAMILY_V6 {
            let octets: [u8; 16] = take(&self.bytes, 8)?;
            let scope = u32::from_ne_bytes(take(&self.bytes, 24)?);
            let address = Ipv6Addr::from(octets);
            return Some(SocketAddr::V6(SocketAddrV6::new(address, port, 0, scope)));
        }
        None
    }
}

/// Copies `value` into `bytes` at `offset`; a value that does not fit is not written.
pub(super) fn put(bytes: &mut [u8], offset: usize, value: &[u8]) {
    let end = offset.saturating_add(value.len());
    if let Some(field) = bytes.get_mut(offset..end) {
        field.copy_from_slice(value);
    }
}

/// Reads `N` bytes at `offset`.
pub(super) fn take<const N: usize>(bytes: &[u8], offset: usize) -> Option<[u8; N]> {
    bytes.get(offset..)?.first_chunk().copied()
}

const FAMILY_V4: u16 = 2;
const FAMILY_V6: u16 = 10;
const NAME_V4_LEN: usize = 16;
const NAME_LEN: usize = 28;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_was_written_reads_back() {
        for text in ["192.0.2.7:4500", "[2001:db8::7]:500", "[fe80::1%3]:4500"] {
            let address: SocketAddr = text.parse().expect("literal");
            let mut name = SocketName::default();
            name.set(address);
            assert_eq!(name.get(), Some(address), "{text}");
        }
    }

    #[test]
    fn a_name_of_another_family_is_refused() {
        let mut name = SocketName::default();
        put(&mut name.bytes, 0, &17_u16.to_ne_bytes());
        assert_eq!(name.get(), None);
    }
}
