//! Transport mode (RFC 4303 §3.1.1): what a packet between the two gateways themselves leaves behind when
//! it is sealed, and gets back when it was opened.
//!
//! ```text
//! sealed   | IPv4 header | TCP …  |    ─►  the system's IPv4 header | UDP | ESP | TCP … | trailer | ICV
//! opened   ESP | TCP … | trailer | ICV    ─►   | IPv4 header | TCP … |   in the same place
//! ```
//!
//! The system writes the outer header, so addresses, DSCP, ECN and DF cross, but no options and no
//! fragments: those belong to the packet as a whole (RFC 4303 §3.3.4).

use std::net::Ipv4Addr;

use crate::ipsec::DropReason;
use crate::ipsec::esp::NEXT_HEADER_DUMMY;
use crate::wire::ip::{checksum, protocol};

/// The addresses of a transport mode SA, as packets of the peer have them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TransportEnds {
    /// Source and destination as we know them.
    pub here: [Ipv4Addr; 2],
    /// Source and destination as the peer knows them: a NAT in between has changed them, and the
    /// checksums do not know (RFC 3948 §3.1.2).
    pub there: [Ipv4Addr; 2],
}

/// Protocol and payload of a packet that goes through a transport mode SA.
///
/// # Errors
/// [`DropReason::NotTransportable`] for anything but a whole IPv4 packet without options, and for one
/// whose protocol would make the ESP packet a dummy (RFC 4303 §2.6).
#[inline(never)]
pub(super) fn payload(packet: &[u8]) -> Result<(u8, &[u8]), DropReason> {
    let (header, payload) = packet
        .split_first_chunk::<HEADER_LEN>()
        .ok_or(DropReason::InnerMalformed)?;
    let [0x45, _, _, _, _, _, f0, f1, _, protocol, ..] = *header else {
        return Err(DropReason::NotTransportable);
    };
    // Neither an offset nor more fragments.
    if u16::from_be_bytes([f0, f1]) & 0x3fff != 0 {
        return Err(DropReason::NotTransportable);
    }
    if protocol == NEXT_HEADER_DUMMY {
        return Err(DropReason::NotTransportable);
    }
    Ok((protocol, payload))
}

impl TransportEnds {
    /// Puts the IPv4 header in front of an opened payload, which starts at `start` of `esp` and moves to
    /// where the header ends. Checksums become those of our addresses; wrong ones stay wrong.
    pub(super) fn rebuild<'a>(
        &self,
        esp: &'a mut [u8],
        (start, length): (usize, usize),
        protocol: u8,
        tos: u8,
    ) -> Result<&'a mut [u8], DropReason> {
        let total = HEADER_LEN + length;
        if start + length > esp.len() || total > esp.len() {
            return Err(DropReason::InnerMalformed); // no ICV is that short
        }
        esp.copy_within(start..start + length, HEADER_LEN);
        let packet = esp.get_mut(..total).ok_or(DropReason::InnerMalformed)?;
        let (header, payload) = packet
            .split_first_chunk_mut::<HEADER_LEN>()
            .ok_or(DropReason::InnerMalformed)?;
        let total = u16::try_from(total).map_err(|_| DropReason::InnerMalformed)?;
        *header = self.header(total, protocol, tos);
        self.fix_checksum(payload, protocol);
        Ok(packet)
    }

    /// An atomic packet's header (RFC 6864 §4): DF, and no identification.
    fn header(&self, total: u16, protocol: u8, tos: u8) -> [u8; HEADER_LEN] {
        let [l0, l1] = total.to_be_bytes();
        let [[s0, s1, s2, s3], [d0, d1, d2, d3]] = self.here.map(|address| address.octets());
        let mut header = [
            0x45, tos, l0, l1, 0, 0, 0x40, 0, TTL, protocol, 0, 0, s0, s1, s2, s3, d0, d1, d2, d3,
        ];
        let sum = checksum::checksum(&header).to_be_bytes();
        let [_, _, _, _, _, _, _, _, _, _, c0, c1, ..] = &mut header;
        [*c0, *c1] = sum;
        header
    }

    fn fix_checksum(&self, payload: &mut [u8], protocol: u8) {
        if self.here == self.there {
            return;
        }
        let at = match protocol {
            protocol::TCP => 16,
            protocol::UDP | protocol::UDPLITE => 6,
            protocol::DCCP => 6,
            _ => return, // no other one's checksum covers the addresses
        };
        let Some([c0, c1]) = payload.get_mut(at..at + 2) else {
            return;
        };
        let old = u16::from_be_bytes([*c0, *c1]);
        if old == 0 && protocol == protocol::UDP {
            return; // none
        }
        let words = |ends: [Ipv4Addr; 2]| {
            ends.map(|address| {
                let [a, b, c, d] = address.octets();
                [u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d])]
            })
        };
        let pairs = words(self.there).into_iter().zip(words(self.here));
        let pairs = pairs.flat_map(|(old, new)| old.into_iter().zip(new));
        let new = pairs.fold(old, |sum, (old, new)| checksum::update(sum, old, new));
        let new = if new == 0 && protocol == protocol::UDP {
            u16::MAX
        } else {
            new
        };
        [*c0, *c1] = new.to_be_bytes();
    }
}

/// An IPv4 header without options.
pub(super) const HEADER_LEN: usize = 20;
/// What hosts send with (RFC 1700); the outer header's is not known here.
const TTL: u8 = 64;
