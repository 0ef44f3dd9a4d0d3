//! IPv4 fragmentation (RFC 791 §3.2).

use super::checksum::checksum;
use super::packet::IpPacket;

/// Writes the fragments of one packet, first to last.
#[derive(Clone, Debug)]
pub struct Fragments<'a> {
    header: &'a [u8],
    data: &'a [u8],
    mtu: usize,
    /// Of the next fragment, in units of eight bytes.
    offset: u16,
    /// The packet is itself a fragment, and not the last.
    more_follow: bool,
    first: bool,
}

/// Splits an IPv4 packet into pieces of at most `mtu` bytes. `None` when it is no IPv4 packet, has
/// DF set, ends beyond the longest packet, or when `mtu` leaves no room for data.
pub fn fragment_v4(packet: &[u8], mtu: u16) -> Option<Fragments<'_>> {
    let view = IpPacket::parse(packet).ok()?;
    let mtu = usize::from(mtu);
    if view.version() != 4 || view.dont_fragment() || mtu < view.header_len() + 8 {
        return None;
    }
    let (header, data) = view.bytes().split_at_checked(view.header_len())?;
    if usize::from(view.fragment_offset()) * 8 + data.len() > usize::from(u16::MAX) {
        return None;
    }
    Some(Fragments {
        header,
        data,
        mtu,
        offset: view.fragment_offset(),
        more_follow: view.more_fragments(),
        first: true,
    })
}

impl Fragments<'_> {
    /// Writes the next fragment to `out` and returns its length; `None` when all are written, or
    /// `out` is shorter than the fragment.
    pub fn next_into(&mut self, out: &mut [u8]) -> Option<usize> {
        if self.data.is_empty() && !self.first {
            return None;
        }
        let mut header = [0; MAX_HEADER];
        let header_len = self.write_header(&mut header)?;
        let room = self.mtu - header_len;
        let whole = self.data.len() <= room;
        let (data, rest) = if whole {
            (self.data, &[][..])
        } else {
            self.data.split_at_checked(room - room % 8)?
        };
        let total = header_len + data.len();
        let more = !whole || self.more_follow;
        let flags = self.offset | if more { MORE_FRAGMENTS } else { 0 };
        let header = header.get_mut(..header_len)?;
        if let [_, _, t0, t1, _, _, f0, f1, _, _, c0, c1, ..] = header {
            [*t0, *t1] = u16::try_from(total).ok()?.to_be_bytes();
            [*f0, *f1] = flags.to_be_bytes();
            [*c0, *c1] = [0, 0];
        }
        let sum = checksum(header).to_be_bytes();
        header.get_mut(10..12)?.copy_from_slice(&sum);
        out.get_mut(..header_len)?.copy_from_slice(header);
        out.get_mut(header_len..total)?.copy_from_slice(data);

        self.offset = self
            .offset
            .saturating_add(u16::try_from(data.len() / 8).ok()?);
        (self.data, self.first) = (rest, false);
        Some(total)
    }

    /// The first fragment has all options, the others those that ask to be copied.
    fn write_header(&self, header: &mut [u8; MAX_HEADER]) -> Option<usize> {
        if self.first {
            header
                .get_mut(..self.header.len())?
                .copy_from_slice(self.header);
            return Some(self.header.len());
        }
        let (fixed, mut options) = self.header.split_at_checked(20)?;
        header.get_mut(..20)?.copy_from_slice(fixed);
        let mut end = 20;
        while let Some((option, rest)) = split_option(options) {
            if option.first().is_some_and(|kind| kind & COPIED != 0) {
                header
                    .get_mut(end..end + option.len())?
                    .copy_from_slice(option);
                end += option.len();
            }
            options = rest;
        }
        let header_len = end.next_multiple_of(4);
        *header.first_mut()? = 0x40 | u8::try_from(header_len / 4).ok()?;
        Some(header_len)
    }
}

/// The next option and what follows; `None` at the end of the list or where it makes no sense.
fn split_option(options: &[u8]) -> Option<(&[u8], &[u8])> {
    match *options {
        [END_OF_OPTIONS, ..] | [] | [_] => None,
        [NO_OPERATION, ..] => options.split_at_checked(1),
        [_, len, ..] if len >= 2 => options.split_at_checked(usize::from(len)),
        _ => None,
    }
}

const MAX_HEADER: usize = 60;
const MORE_FRAGMENTS: u16 = 0x2000;
const COPIED: u8 = 0x80;
const END_OF_OPTIONS: u8 = 0;
const NO_OPERATION: u8 = 1;
