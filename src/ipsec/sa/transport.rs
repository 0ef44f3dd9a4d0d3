//! Transport mode (RFC 4303 §3.1.1): what a packet between the two gateways themselves leaves behind when
//! it is sealed, and gets back when it was opened.
//!
//! ```text
//! sealed   | IP header | TCP …  |    ─►  the system's IP header | UDP | ESP | TCP … | trailer | ICV
//! opened   ESP | TCP … | trailer | ICV    ─►   | IP header | TCP … |
//! ```
//!
//! The system writes the outer header, so addresses, DSCP, ECN and DF cross, but no options and no
//! fragments: those belong to the packet as a whole (RFC 4303 §3.3.4). Of IPv6 extension headers only
//! destination options may stand behind ESP, where they are sealed with the rest.
//!
//! An IPv4 header takes the place of what ESP has added. An IPv6 header is longer than that, so its packet
//! is put together in another place.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::ipsec::DropReason;
use crate::ipsec::esp::NEXT_HEADER_DUMMY;
use crate::wire::ip::{checksum, protocol};

/// The addresses of a transport mode SA, as packets of the peer have them. All are of one family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TransportEnds {
    /// Source and destination as we know them.
    here: [IpAddr; 2],
    /// Source and destination as the peer knows them: a NAT in between has changed them, and the
    /// checksums do not know (RFC 3948 §3.1.2).
    there: [IpAddr; 2],
}

/// Protocol and payload of a packet that goes through a transport mode SA.
///
/// # Errors
/// [`DropReason::NotTransportable`] for anything but a whole packet of the SA's IP version without options, and
/// for one whose protocol would make the ESP packet a dummy (RFC 4303 §2.6).
#[inline(never)]
pub(super) fn payload(packet: &[u8], ipv6: bool) -> Result<(u8, &[u8]), DropReason> {
    let (protocol, payload) = match ipv6 {
        false => payload_v4(packet)?,
        true => payload_v6(packet)?,
    };
    if protocol == NEXT_HEADER_DUMMY {
        return Err(DropReason::NotTransportable);
    }
    Ok((protocol, payload))
}

fn payload_v4(packet: &[u8]) -> Result<(u8, &[u8]), DropReason> {
    let (header, payload) = packet
        .split_first_chunk::<HEADER_LEN_V4>()
        .ok_or(DropReason::InnerMalformed)?;
    let [0x45, _, _, _, _, _, f0, f1, _, protocol, ..] = *header else {
        return Err(DropReason::NotTransportable);
    };
    // Neither an offset nor more fragments.
    if u16::from_be_bytes([f0, f1]) & 0x3fff != 0 {
        return Err(DropReason::NotTransportable);
    }
    Ok((protocol, payload))
}

fn payload_v6(packet: &[u8]) -> Result<(u8, &[u8]), DropReason> {
    let (header, payload) = packet
        .split_first_chunk::<HEADER_LEN_V6>()
        .ok_or(DropReason::InnerMalformed)?;
    let [version, _, _, _, _, _, protocol, ..] = *header;
    if version >> 4 != 6 {
        return Err(DropReason::NotTransportable);
    }
    match behind_options(protocol, payload)
        .ok_or(DropReason::InnerMalformed)?
        .0
    {
        // They stand in front of ESP, if anywhere.
        protocol::HOP_BY_HOP | protocol::ROUTING | protocol::FRAGMENT => {
            Err(DropReason::NotTransportable)
        }
        _ => Ok((protocol, payload)),
    }
}

/// What follows the destination options that `payload` may start with, and where; `None` if they do not
/// end in it.
fn behind_options(mut next: u8, payload: &[u8]) -> Option<(u8, usize)> {
    let mut start = 0;
    while next == protocol::DESTINATION_OPTIONS {
        let &[after, length, ..] = payload.get(start..)? else {
            return None;
        };
        next = after;
        start += 8 + usize::from(length) * 8;
        payload.get(start..)?;
    }
    Some((next, start))
}

impl TransportEnds {
    /// Source and destination of the peer's packets, as we know them and as the peer knows them; `None`
    /// unless all are of one family.
    #[must_use]
    pub fn new(here: [IpAddr; 2], there: [IpAddr; 2]) -> Option<Self> {
        let mut all = here.iter().chain(&there).map(IpAddr::is_ipv6);
        let ipv6 = all.next();
        let same = all.all(|other| Some(other) == ipv6);
        same.then_some(Self { here, there })
    }

    pub(super) fn is_ipv6(&self) -> bool {
        matches!(self.here, [IpAddr::V6(_), _])
    }

    /// Puts the IP header in front of an opened payload, which starts at `start` of `esp` and moves to
    /// where the header ends: an IPv6 packet to the front of `room`, which is shorter then. Checksums become
    /// those of our addresses; wrong ones stay wrong.
    pub(super) fn rebuild<'a>(
        &self,
        esp: &'a mut [u8],
        (start, length): (usize, usize),
        (protocol, tos): (u8, u8),
        room: &mut &'a mut [u8],
    ) -> Result<&'a mut [u8], DropReason> {
        let payload = start..start + length;
        let header_len = header_len(self.is_ipv6());
        let packet = if self.is_ipv6() {
            let payload = esp.get(payload).ok_or(DropReason::InnerMalformed)?;
            let packet = room.split_off_mut(..header_len + length);
            let packet = packet.ok_or(DropReason::InnerMalformed)?;
            let (_, behind) = packet.split_at_mut(header_len);
            behind.copy_from_slice(payload);
            packet
        } else {
            let total = header_len + length;
            if payload.end > esp.len() || total > esp.len() {
                return Err(DropReason::InnerMalformed); // no ICV is that short
            }
            esp.copy_within(payload, header_len);
            esp.get_mut(..total).ok_or(DropReason::InnerMalformed)?
        };
        let (header, payload) = packet.split_at_mut(header_len);
        let length = u16::try_from(length).map_err(|_| DropReason::InnerMalformed)?;
        match self.here {
            [IpAddr::V4(source), IpAddr::V4(destination)] => {
                let total = length.checked_add(20).ok_or(DropReason::InnerMalformed)?;
                header.copy_from_slice(&header_v4([source, destination], total, protocol, tos));
            }
            [IpAddr::V6(source), IpAddr::V6(destination)] => {
                header.copy_from_slice(&header_v6([source, destination], length, protocol, tos));
            }
            _ => return Err(DropReason::InnerMalformed), // no such ends are made
        }
        self.fix_checksum(payload, protocol);
        Ok(packet)
    }

    fn fix_checksum(&self, payload: &mut [u8], protocol: u8) {
        if self.here == self.there {
            return;
        }
        let transport = match self.is_ipv6() {
            false => Some((protocol, 0)),
            true => behind_options(protocol, payload),
        };
        let Some((protocol, start)) = transport else {
            return;
        };
        let at = match protocol {
            protocol::TCP => 16,
            protocol::UDP | protocol::UDPLITE => 6,
            protocol::DCCP => 6,
            protocol::ICMPV6 if self.is_ipv6() => 2,
            _ => return, // no other one's checksum covers the addresses
        };
        let field = payload.get_mut(start + at..start + at + 2);
        let Some([c0, c1]) = field else {
            return;
        };
        let old = u16::from_be_bytes([*c0, *c1]);
        if old == 0 && protocol == protocol::UDP {
            return; // none
        }
        let words = |address: IpAddr| match address {
            IpAddr::V4(address) => address.to_ipv6_mapped().segments(),
            IpAddr::V6(address) => address.segments(),
        };
        let pairs = self.there.map(words).into_iter().flatten();
        let pairs = pairs.zip(self.here.map(words).into_iter().flatten());
        let pairs = pairs.filter(|(old, new)| old != new);
        let new = pairs.fold(old, |sum, (old, new)| checksum::update(sum, old, new));
        let new = if new == 0 && protocol == protocol::UDP {
            u16::MAX
        } else {
            new
        };
        [*c0, *c1] = new.to_be_bytes();
    }
}

/// An atomic packet's header (RFC 6864 §4): DF, and no identification.
fn header_v4(ends: [Ipv4Addr; 2], total: u16, protocol: u8, tos: u8) -> [u8; HEADER_LEN_V4] {
    let [l0, l1] = total.to_be_bytes();
    let [[s0, s1, s2, s3], [d0, d1, d2, d3]] = ends.map(|address| address.octets());
    let mut header = [
        0x45, tos, l0, l1, 0, 0, 0x40, 0, HOPS, protocol, 0, 0, s0, s1, s2, s3, d0, d1, d2, d3,
    ];
    let sum = checksum::checksum(&header).to_be_bytes();
    let [_, _, _, _, _, _, _, _, _, _, c0, c1, ..] = &mut header;
    [*c0, *c1] = sum;
    header
}

/// A header without a flow label (RFC 8200 §3).
fn header_v6(ends: [Ipv6Addr; 2], length: u16, protocol: u8, tos: u8) -> [u8; HEADER_LEN_V6] {
    let [l0, l1] = length.to_be_bytes();
    let start = [0x60 | tos >> 4, tos << 4, 0, 0, l0, l1, protocol, HOPS];
    let mut header = [0; HEADER_LEN_V6];
    let (fields, addresses) = header.split_at_mut(start.len());
    fields.copy_from_slice(&start);
    addresses.copy_from_slice(ends.map(|address| address.octets()).as_flattened());
    header
}

/// The length of the header that is not sealed.
pub(super) fn header_len(ipv6: bool) -> usize {
    match ipv6 {
        false => HEADER_LEN_V4,
        true => HEADER_LEN_V6,
    }
}

const HEADER_LEN_V4: usize = 20;
const HEADER_LEN_V6: usize = 40;
/// What hosts send with (RFC 1700); the outer header's is not known here.
const HOPS: u8 = 64;
