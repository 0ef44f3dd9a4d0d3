//! Control messages (`cmsghdr`) as bytes: what the kernel tells about a received packet and what
//! we ask of it for a sent one.

use std::net::IpAddr;

use super::address::{put, take};

/// What the control messages of one received packet said.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct ReceivedControl {
    pub(super) local: Option<IpAddr>,
    pub(super) tos: u8,
    pub(super) segment_size: Option<u16>,
}

/// The control buffer of one message.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(8))]
pub(super) struct ControlBuffer {
    pub(super) bytes: [u8; CONTROL_LEN],
}

impl Default for ControlBuffer {
    fn default() -> Self {
        Self {
            bytes: [0; CONTROL_LEN],
        }
    }
}

impl ControlBuffer {
    /// Asks for a source address, a traffic class and, for a train of datagrams, a segment size.
    /// Returns the length in use.
    pub(super) fn set(&mut self, local: IpAddr, tos: u8, segment_size: Option<u16>) -> usize {
        let mut used = 0;
        let class = i32::from(tos).to_ne_bytes();
        match local {
            IpAddr::V4(address) => {
                // struct in_pktinfo { int ifindex; struct in_addr spec_dst; struct in_addr addr; }
                let mut info = [0; 12];
                put(&mut info, 4, &address.octets());
                used = self.append(used, libc::IPPROTO_IP, libc::IP_PKTINFO, &info);
                used = self.append(used, libc::IPPROTO_IP, libc::IP_TOS, &class);
            }
            IpAddr::V6(address) => {
                // struct in6_pktinfo { struct in6_addr addr; unsigned int ifindex; }
                let mut info = [0; 20];
                put(&mut info, 0, &address.octets());
                used = self.append(used, libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, &info);
                used = self.append(used, libc::IPPROTO_IPV6, libc::IPV6_TCLASS, &class);
            }
        }
        if let Some(size) = segment_size {
            used = self.append(used, libc::SOL_UDP, libc::UDP_SEGMENT, &size.to_ne_bytes());
        }
        used
    }

    /// Reads what the kernel wrote into the first `length` bytes.
    pub(super) fn get(&self, length: usize) -> ReceivedControl {
        let mut found = ReceivedControl::default();
        let mut rest = self.bytes.get(..length).unwrap_or(&self.bytes);
        while let Some((level, kind, data, after)) = split_first(rest) {
            match (level, kind) {
                (libc::IPPROTO_IP, libc::IP_PKTINFO) => {
                    found.local = take::<4>(data, 8).map(IpAddr::from);
                }
                (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => {
                    found.local = take::<16>(data, 0).map(IpAddr::from);
                }
                (libc::IPPROTO_IP, libc::IP_TOS) => {
                    found.tos = data.first().copied().unwrap_or(0);
                }
                (libc::IPPROTO_IPV6, libc::IPV6_TCLASS) => {
                    let class = take(data, 0).map_or(0, i32::from_ne_bytes);
                    found.tos = u8::try_from(class).unwrap_or(0);
                }
                (libc::SOL_UDP, libc::UDP_GRO) => {
                    let size = take(data, 0).map_or(0, i32::from_ne_bytes);
                    found.segment_size = u16::try_from(size).ok().filter(|size| *size > 0);
                }
                _ => {}
            }
            rest = after;
        }
        found
    }

    fn append(&mut self, used: usize, level: i32, kind: i32, data: &[u8]) -> usize {
        let length = HEADER_LEN + data.len();
        put(&mut self.bytes, used, &length.to_ne_bytes());
        put(&mut self.bytes, used + WORD, &level.to_ne_bytes());
        put(&mut self.bytes, used + WORD + 4, &kind.to_ne_bytes());
        put(&mut self.bytes, used + HEADER_LEN, data);
        used + length.next_multiple_of(WORD)
    }
}

fn split_first(bytes: &[u8]) -> Option<(i32, i32, &[u8], &[u8])> {
    let length = usize::from_ne_bytes(take(bytes, 0)?);
    let level = i32::from_ne_bytes(take(bytes, WORD)?);
    let kind = i32::from_ne_bytes(take(bytes, WORD + 4)?);
    let data = bytes.get(HEADER_LEN..length)?;
    let after = bytes
        .get(length.checked_next_multiple_of(WORD)?..)
        .unwrap_or_default();
    Some((level, kind, data, after))
}

const WORD: usize = size_of::<usize>();
const HEADER_LEN: usize = WORD + 8;
pub(super) const CONTROL_LEN: usize = 128;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requested_values_have_the_layout_of_the_c_library() {
        let mut control = ControlBuffer::default();
        let used = control.set("192.0.2.1".parse().expect("literal"), 0xb8, None);
        // CMSG_SPACE(sizeof(struct in_pktinfo)) + CMSG_SPACE(sizeof(int)) on a 64-bit system.
        assert_eq!(used, 32 + 24);
        assert_eq!(control.bytes.get(..8), Some(&28_usize.to_ne_bytes()[..]));
        assert_eq!(control.bytes.get(20..24), Some(&[192, 0, 2, 1][..]));
    }

    #[test]
    fn a_length_that_lies_ends_the_walk() {
        let mut control = ControlBuffer::default();
        for length in [0_usize, 1, 15, 4096, usize::MAX] {
            put(&mut control.bytes, 0, &length.to_ne_bytes());
            assert!(control.get(CONTROL_LEN).local.is_none());
        }
    }
}
