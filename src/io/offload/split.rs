//! Super-packets into the packets they stand for.
//!
//! A TUN with offloads delivers up to 64 KiB under one IP and one TCP or UDP header, and says in the
//! vnet header how long the payload of one packet is (virtio 1.2 §5.1.6.2). The payload is not
//! moved: the header of each segment is written over the end of the previous one, which is spent
//! by then.
//!
//! ```text
//! super-packet   [IP][TCP]aaaaaaaaaaaaaabbbbbbbbbbbbbbccccc
//! segment 0      [IP][TCP]aaaaaaaaaaaaaa
//! segment 1                    [IP][TCP]bbbbbbbbbbbbbb
//! segment 2                                  [IP][TCP]ccccc
//! ```

use super::checksum::sum;
use crate::wire::Malformed;
use crate::wire::ip::checksum::finish;
use crate::wire::ip::{IpPacket, protocol};
use crate::wire::vnet::VnetHeader;

/// A packet as the TUN delivered it, its vnet header checked against its bytes.
///
/// It is either plain, which is one segment, or a super-packet. Policy, SA and path MTU are the same
/// for all segments, so they can be looked up once, by [`bytes`](Self::bytes), before the first
/// segment is taken.
#[derive(Debug)]
pub struct TunPacket<'a> {
    bytes: &'a mut [u8],
    header: VnetHeader,
    /// How to cut a super-packet; `None` for a plain one.
    cut: Option<Cut>,
    /// Where the next segment starts; `None` when all were taken.
    next: Option<usize>,
    /// Start and end of the segment taken last.
    taken: Option<(usize, usize)>,
    /// Whether that one comes again.
    again: bool,
}

/// Where the taking of segments was interrupted; see [`TunPacket::suspend`].
#[derive(Clone, Copy, Debug)]
pub struct Suspended {
    header: VnetHeader,
    len: usize,
    cut: Option<Cut>,
    next: Option<usize>,
    taken: Option<(usize, usize)>,
}

/// Where a super-packet is cut, and what differs between its segments.
#[derive(Clone, Copy, Debug)]
struct Cut {
    transport: Transport,
    /// Of IPv4: sum of the header without total length, identification and checksum.
    ip_header: Option<u32>,
    /// Where the TCP or UDP header starts.
    transport_at: usize,
    /// Bytes of all headers, which each segment has.
    header_len: usize,
    /// Bytes of payload in each segment but the last.
    payload_len: usize,
    segments: usize,
    /// Sum of the pseudo-header without its length.
    pseudo_header: u32,
}

/// What the first segment says, and what must be put back into the last one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Transport {
    /// Over TCP, with the flags of the super-packet.
    Tcp { flags: u8 },
    /// Over UDP.
    Udp,
}

impl<'a> TunPacket<'a> {
    /// Checks `header` against `packet`. The partial checksum of a plain packet is finished in place.
    ///
    /// Of a plain packet nothing but the checksum's place is checked. `hdr_len` is not looked at:
    /// the kernel may give any length that includes the headers. Bytes behind the IP packet's own
    /// length do not belong to a super-packet.
    ///
    /// # Errors
    /// [`Malformed`] if the packet is not what the header says, or is of a kind that no offload of
    /// ours asks for: UDP fragments, super-packets above 65 535 bytes, super-packets of SYN or RST.
    pub fn parse(header: &VnetHeader, packet: &'a mut [u8]) -> Result<Self, Malformed> {
        if header.gso_type == VnetHeader::GSO_NONE {
            if header.flags & VnetHeader::NEEDS_CSUM != 0 {
                finish_checksum(header, packet)?;
            }
            return Ok(Self {
                bytes: packet,
                header: VnetHeader::default(),
                cut: None,
                next: Some(0),
                taken: None,
                again: false,
            });
        }
        let (cut, total_len) = Cut::find(header, packet)?;
        Ok(Self {
            bytes: packet.get_mut(..total_len).unwrap_or_default(),
            header: *header,
            cut: Some(cut),
            next: Some(0),
            taken: None,
            again: false,
        })
    }

    /// Interrupts the taking of segments. The segment taken last, if any, will come again.
    #[must_use]
    pub fn suspend(&self) -> Suspended {
        Suspended {
            header: self.header,
            len: self.bytes.len(),
            cut: self.cut,
            next: self.next,
            taken: self.taken,
        }
    }

    /// Goes on where [`suspend`](Self::suspend) interrupted, with the packet as it was left.
    #[must_use]
    pub fn resume(suspended: Suspended, packet: &'a mut [u8]) -> Self {
        let bytes = packet.get_mut(..suspended.len);
        // Of another packet there is nothing to go on with.
        let is_same = bytes.is_some();
        Self {
            bytes: bytes.unwrap_or_default(),
            header: suspended.header,
            cut: suspended.cut,
            next: suspended.next.filter(|_| is_same),
            taken: suspended.taken.filter(|_| is_same),
            again: suspended.taken.is_some() && is_same,
        }
    }

    /// How many packets are still to be taken.
    #[must_use]
    pub fn segments_left(&self) -> usize {
        let untaken = match (self.next, &self.cut) {
            (None, _) => 0,
            (Some(_), None) => 1,
            (Some(start), Some(cut)) => {
                let payload = self.bytes.len().saturating_sub(cut.header_len + start);
                payload.div_ceil(cut.payload_len.max(1)).max(1)
            }
        };
        untaken + usize::from(self.again)
    }

    /// The plain packet, or the whole super-packet. Meaningful until the first segment is taken.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        self.bytes
    }

    /// The plain packet, to be edited before it is taken; `None` for a super-packet.
    #[must_use]
    pub fn plain_mut(&mut self) -> Option<&mut [u8]> {
        self.cut.is_none().then_some(&mut *self.bytes)
    }

    /// The vnet header under which [`bytes`](Self::bytes) can be parsed again, by another worker: a
    /// plain packet has nothing left to do.
    #[must_use]
    pub fn header(&self) -> &VnetHeader {
        &self.header
    }

    /// Whether this is a super-packet, be it of one segment.
    #[must_use]
    pub fn is_super(&self) -> bool {
        self.cut.is_some()
    }

    /// How many packets it stands for.
    #[must_use]
    pub fn segments(&self) -> usize {
        self.cut.map_or(1, |cut| cut.segments)
    }

    /// The length of the longest of these packets, which is the first.
    #[must_use]
    pub fn segment_len(&self) -> usize {
        let longest = |cut: Cut| (cut.header_len + cut.payload_len).min(self.bytes.len());
        self.cut.map_or(self.bytes.len(), longest)
    }

    /// The next packet, complete and with its checksums final; `None` after the last.
    pub fn next_segment(&mut self) -> Option<&[u8]> {
        if std::mem::take(&mut self.again)
            && let Some((start, end)) = self.taken
        {
            return self.bytes.get(start..end);
        }
        let start = self.next?;
        let Some(cut) = &self.cut else {
            self.next = None;
            self.taken = Some((0, self.bytes.len()));
            return Some(self.bytes);
        };
        let end = (start + cut.header_len + cut.payload_len).min(self.bytes.len());
        if start > 0 {
            let previous = start - cut.payload_len;
            self.bytes
                .copy_within(previous..previous + cut.header_len, start);
        }
        let is_last = end == self.bytes.len();
        self.taken = Some((start, end));
        self.next = (!is_last).then_some(start + cut.payload_len);
        let segment = self.bytes.get_mut(start..end)?;
        cut.finish(segment, start == 0, is_last)?;
        Some(segment)
    }
}

impl Cut {
    /// How to cut a super-packet, and its length.
    fn find(header: &VnetHeader, packet: &[u8]) -> Result<(Self, usize), Malformed> {
        let view = IpPacket::parse(packet)?;
        let kind = match header.gso_type {
            VnetHeader::GSO_UDP_L4 => (protocol::UDP, view.version()),
            other => match other & !VnetHeader::GSO_ECN {
                VnetHeader::GSO_TCPV4 => (protocol::TCP, 4),
                VnetHeader::GSO_TCPV6 => (protocol::TCP, 6),
                _ => return Err(Malformed::BadValue("kind of super-packet")),
            },
        };
        if kind != (view.protocol(), view.version()) || view.is_fragment() {
            return Err(Malformed::BadValue("kind of super-packet"));
        }
        let upper_layer = view.upper_layer();
        let (transport, transport_len, checksum_at, partial) = match *upper_layer {
            [_, _, _, _, _, _, c0, c1, ..] if view.protocol() == protocol::UDP => {
                (Transport::Udp, 8, 6, u16::from_be_bytes([c0, c1]))
            }
            #[rustfmt::skip]
            [_, _, _, _, _, _, _, _, _, _, _, _, data_offset, flags, _, _, c0, c1, _, _, ..]
                if view.protocol() == protocol::TCP =>
            {
                let len = usize::from(data_offset >> 4) * 4;
                (Transport::Tcp { flags }, len, 16, u16::from_be_bytes([c0, c1]))
            }
            _ => return Err(Malformed::Truncated("header of a super-packet")),
        };
        if let Transport::Tcp { flags } = transport {
            if transport_len < 20 || transport_len > upper_layer.len() {
                return Err(Malformed::BadLength("TCP header"));
            }
            if flags & (SYN | RST) != 0 {
                return Err(Malformed::BadValue("TCP flags of a super-packet"));
            }
        }
        let checksum = (usize::from(header.csum_start), header.csum_offset);
        if header.flags & VnetHeader::NEEDS_CSUM == 0
            || checksum != (view.upper_layer_offset(), checksum_at)
        {
            return Err(Malformed::BadValue("checksum of a super-packet"));
        }
        if header.gso_size == 0 {
            return Err(Malformed::BadValue("segment size"));
        }
        let upper_layer_len =
            u16::try_from(upper_layer.len()).map_err(|_| Malformed::BadLength("super-packet"))?;
        let payload_len = usize::from(header.gso_size);
        let payload = upper_layer.len() - transport_len;
        let cut = Self {
            transport,
            ip_header: (view.version() == 4).then(|| constant_sum(&view)),
            transport_at: view.upper_layer_offset(),
            header_len: view.upper_layer_offset() + transport_len,
            payload_len,
            segments: payload.div_ceil(payload_len).max(1),
            // The field holds the pseudo-header's sum, with the final destination of a source
            // route, which the addresses alone do not give. Taking the length out is adding its
            // complement.
            pseudo_header: u32::from(partial) + u32::from(!upper_layer_len),
        };
        Ok((cut, view.total_len()))
    }

    /// Makes a copy of the previous segment's headers the headers of this one.
    fn finish(&self, segment: &mut [u8], is_first: bool, is_last: bool) -> Option<()> {
        let length = u16::try_from(segment.len()).ok()?;
        let (ip, upper_layer) = segment.split_at_mut_checked(self.transport_at)?;
        if let Some(constant) = self.ip_header {
            finish_ipv4(ip, constant, length, is_first)?;
        } else if let [_, _, _, _, l0, l1, ..] = ip {
            [*l0, *l1] = length.checked_sub(IPV6_HEADER_LEN)?.to_be_bytes();
        }
        let upper_layer_len = u16::try_from(upper_layer.len()).ok()?;
        let pseudo_header = self.pseudo_header + u32::from(upper_layer_len);
        match self.transport {
            Transport::Tcp { flags } => {
                let advance = if is_first { 0 } else { self.payload_len };
                finish_tcp(upper_layer, flags, advance, is_first, is_last)?;
                put_checksum(upper_layer, 16, pseudo_header, false)
            }
            Transport::Udp => {
                if let [_, _, _, _, l0, l1, ..] = upper_layer {
                    [*l0, *l1] = upper_layer_len.to_be_bytes();
                }
                put_checksum(upper_layer, 6, pseudo_header, true)
            }
        }
    }
}

/// Sum of what all segments have in common of an IPv4 header: all but total length, identification
/// and checksum.
fn constant_sum(view: &IpPacket<'_>) -> u32 {
    let header = view.bytes().get(..view.header_len()).unwrap_or_default();
    let (words, _) = header.as_chunks::<2>();
    let constant = words
        .iter()
        .enumerate()
        .filter(|(at, _)| ![1, 2, 5].contains(at));
    constant.fold(0, |partial, (_, word)| sum(partial, word))
}

/// Each segment has the next identification (RFC 791 §3.1), also those that may not be fragmented.
fn finish_ipv4(header: &mut [u8], constant: u32, length: u16, is_first: bool) -> Option<()> {
    let [_, _, t0, t1, i0, i1, _, _, _, _, c0, c1, ..] = header else {
        return None;
    };
    [*t0, *t1] = length.to_be_bytes();
    let identification = u16::from_be_bytes([*i0, *i1]).wrapping_add((!is_first).into());
    [*i0, *i1] = identification.to_be_bytes();
    let checksum = finish(constant + u32::from(length) + u32::from(identification));
    [*c0, *c1] = checksum.to_be_bytes();
    Some(())
}

/// CWR belongs to the first segment (RFC 3168 §6.1.2), FIN and PSH to the last. Urgent data end
/// where they did: the pointer counts from the sequence number (RFC 9293 §3.8.5).
fn finish_tcp(
    segment: &mut [u8],
    flags: u8,
    advance: usize,
    is_first: bool,
    is_last: bool,
) -> Option<()> {
    #[rustfmt::skip]
    let [_, _, _, _, s0, s1, s2, s3, _, _, _, _, _, own, _, _, _, _, u0, u1, ..] = segment else {
        return None;
    };
    let advance = u16::try_from(advance).ok()?;
    let sequence = u32::from_be_bytes([*s0, *s1, *s2, *s3]).wrapping_add(advance.into());
    [*s0, *s1, *s2, *s3] = sequence.to_be_bytes();
    let mut cleared = 0;
    if !is_first {
        cleared |= CWR;
    }
    if !is_last {
        cleared |= FIN | PSH;
    }
    if flags & URG != 0 {
        let urgent = u16::from_be_bytes([*u0, *u1]).saturating_sub(advance);
        [*u0, *u1] = urgent.to_be_bytes();
        if !is_first && urgent == 0 {
            cleared |= URG;
        }
    }
    *own = flags & !cleared;
    Some(())
}

/// Writes the checksum of `bytes` and of what `initial` sums to. To UDP a zero would mean that there
/// is none (RFC 768).
fn put_checksum(bytes: &mut [u8], at: usize, initial: u32, zero_is_none: bool) -> Option<()> {
    let field = bytes.get_mut(at..at + 2)?;
    field.fill(0);
    let checksum = match finish(sum(initial, bytes)) {
        0 if zero_is_none => u16::MAX,
        checksum => checksum,
    };
    bytes
        .get_mut(at..at + 2)?
        .copy_from_slice(&checksum.to_be_bytes());
    Some(())
}

/// The field holds the pseudo-header's sum, so the checksum of everything from `csum_start` on is
/// complete (virtio 1.2 §5.1.6.2). Any protocol may have it anywhere behind the IP header.
fn finish_checksum(header: &VnetHeader, packet: &mut [u8]) -> Result<(), Malformed> {
    let header_len = match packet.first() {
        Some(first) if first >> 4 == 4 => usize::from(first & 0x0f) * 4,
        Some(first) if first >> 4 == 6 => IPV6_HEADER_LEN.into(),
        _ => return Err(Malformed::BadValue("IP version")),
    };
    let (start, offset) = (header.csum_start.into(), header.csum_offset.into());
    if start < header_len {
        return Err(Malformed::BadValue("start of a checksum"));
    }
    let truncated = Malformed::Truncated("what a checksum covers");
    let covered = packet.get_mut(start..).ok_or(truncated)?;
    // Zero means none to UDP, and the same as its complement to all others.
    let checksum = match finish(sum(0, covered)) {
        0 => u16::MAX,
        checksum => checksum,
    };
    let field = covered
        .get_mut(offset..)
        .and_then(|rest| rest.first_chunk_mut());
    *field.ok_or(truncated)? = checksum.to_be_bytes();
    Ok(())
}

const IPV6_HEADER_LEN: u16 = 40;

const FIN: u8 = 0x01;
const SYN: u8 = 0x02;
const RST: u8 = 0x04;
const PSH: u8 = 0x08;
const URG: u8 = 0x20;
const CWR: u8 = 0x80;
