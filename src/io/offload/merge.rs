//! Runs of packets into super-packets, by the rules of the kernel's GRO.
//!
//! A super-packet that was made here and is split again gives the packets that went in, byte for
//! byte. The one exception is the identification of IPv4 packets that all have the same one and may
//! not be fragmented: it then has no meaning (RFC 6864 §4.1), and the vnet header cannot say it.

use std::fmt;
use std::io::IoSlice;
use std::mem::ManuallyDrop;

use super::flow::{Candidate, Class, FlowKey, Likeness, Transport, verify};
use crate::wire::ip::checksum::{checksum, finish};
use crate::wire::vnet::VnetHeader;

/// What a [`Merger`] allocates, kept from burst to burst.
#[derive(Debug)]
pub struct MergeScratch {
    /// Empty lists with room for a whole train.
    spare: Vec<Vec<IoSlice<'static>>>,
}

impl Default for MergeScratch {
    fn default() -> Self {
        Self::new()
    }
}

impl MergeScratch {
    /// Everything that mergers will ever need.
    #[must_use]
    pub fn new() -> Self {
        let list = || Vec::with_capacity(MAX_SEGMENTS);
        Self {
            spare: std::iter::repeat_with(list).take(TRAINS).collect(),
        }
    }

    fn take(&mut self) -> Vec<IoSlice<'static>> {
        self.spare
            .pop()
            .unwrap_or_else(|| Vec::with_capacity(MAX_SEGMENTS))
    }

    /// Puts a list back, which is the same allocation under another lifetime.
    fn put(&mut self, mut list: Vec<IoSlice<'_>>) {
        list.clear();
        let mut list = ManuallyDrop::new(list);
        let (start, capacity) = (list.as_mut_ptr().cast(), list.capacity());
        // SAFETY: the allocation is that of a `Vec` which is not used any more, its elements differ only
        // in a lifetime, and there are none of them.
        self.spare
            .push(unsafe { Vec::from_raw_parts(start, 0, capacity) });
    }
}

/// Which packets a [`Merger`] may put together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MergeKinds {
    /// TCP over IPv4 and IPv6.
    pub tcp: bool,
    /// UDP over IPv4 and IPv6.
    pub udp: bool,
}

/// Merges the packets of one receive burst.
///
/// `'a` is the burst's arena, whose bytes are not moved: a super-packet is written as pieces of it.
/// `'s` is the worker's scratch, so that a burst allocates nothing.
///
/// The sink gets what is to be written to the TUN: a vnet header and the pieces of one packet. What
/// was not merged comes as one piece under the default header, bytes untouched. Packets of one flow
/// keep their order; after [`finish`](Self::finish) nothing is left behind.
pub struct Merger<'s, 'a> {
    kinds: MergeKinds,
    scratch: &'s mut MergeScratch,
    trains: [Option<Train<'a>>; TRAINS],
    /// How many of them there are.
    open: usize,
    /// The one that was looked at last.
    recent: usize,
    /// The one that makes room for another flow.
    victim: usize,
}

impl<'s, 'a> Merger<'s, 'a> {
    /// A merger for one burst.
    #[must_use]
    pub fn new(kinds: MergeKinds, scratch: &'s mut MergeScratch) -> Self {
        Self {
            kinds,
            scratch,
            trains: std::array::from_fn(|_| None),
            open: 0,
            recent: 0,
            victim: 0,
        }
    }

    /// Takes one complete IP packet. It may be kept back; what can no longer grow is emitted.
    pub fn push(
        &mut self,
        packet: &'a mut [u8],
        sink: &mut impl FnMut(&VnetHeader, &[IoSlice<'_>]),
    ) {
        match Class::of(packet, self.kinds) {
            Class::Candidate(candidate) => return self.board(candidate, packet, sink),
            Class::Single(key) => {
                if let Some(at) = self.find(&key) {
                    self.emit(at, sink);
                }
            }
            Class::Opaque(opaque) => {
                for at in 0..TRAINS {
                    let train = self.trains.get(at).and_then(Option::as_ref);
                    if train.is_some_and(|train| opaque.may_be_of(&train.key)) {
                        self.emit(at, sink);
                    }
                }
            }
            Class::Unordered => {}
        }
        sink(&VnetHeader::default(), &[IoSlice::new(packet)]);
    }

    /// Emits what was kept back.
    pub fn finish(&mut self, sink: &mut impl FnMut(&VnetHeader, &[IoSlice<'_>])) {
        for at in 0..TRAINS {
            if self.open == 0 {
                return;
            }
            self.emit(at, sink);
        }
    }

    /// Puts a packet behind its train, or at the head of a new one.
    fn board(
        &mut self,
        candidate: Candidate,
        packet: &'a mut [u8],
        sink: &mut impl FnMut(&VnetHeader, &[IoSlice<'_>]),
    ) {
        if let Some(at) = self.find(&candidate.key) {
            let scratch = &mut *self.scratch;
            let train = self.trains.get_mut(at).and_then(Option::as_mut);
            if let Some(train) = train
                && train.continues_with(&candidate, packet)
            {
                train.append(&candidate, packet, || scratch.take());
                if train.is_closed() {
                    self.emit(at, sink);
                }
                return;
            }
            self.emit(at, sink);
        }
        let train = Train::new(candidate, packet);
        if train.is_closed() {
            return sink(&VnetHeader::default(), &[IoSlice::new(train.head)]);
        }
        let at = self.vacate(sink);
        if let Some(place) = self.trains.get_mut(at) {
            *place = Some(train);
            self.open += 1;
            self.recent = at;
        }
    }

    fn find(&mut self, key: &FlowKey) -> Option<usize> {
        if self.open == 0 {
            return None;
        }
        let is_it = |train: &Option<Train<'_>>| train.as_ref().is_some_and(|t| t.key == *key);
        if self.trains.get(self.recent).is_some_and(is_it) {
            return Some(self.recent);
        }
        self.recent = self.trains.iter().position(is_it)?;
        Some(self.recent)
    }

    /// A place for a new train.
    fn vacate(&mut self, sink: &mut impl FnMut(&VnetHeader, &[IoSlice<'_>])) -> usize {
        if self.open < TRAINS {
            let free = self.trains.iter().position(Option::is_none);
            return free.unwrap_or_default();
        }
        let at = self.victim;
        self.victim = (at + 1) % TRAINS;
        self.emit(at, sink);
        at
    }

    fn emit(&mut self, at: usize, sink: &mut impl FnMut(&VnetHeader, &[IoSlice<'_>])) {
        let Some(train) = self.trains.get_mut(at).and_then(Option::take) else {
            return;
        };
        self.open -= 1;
        if let Some(list) = train.emit(sink) {
            self.scratch.put(list);
        }
    }
}

/// Packets of one flow that are one super-packet, or one packet that may become one.
struct Train<'a> {
    key: FlowKey,
    likeness: Likeness,
    /// The first packet, whose headers will be those of the super-packet.
    head: &'a mut [u8],
    /// Sum of the pseudo-header without its length; known once the head's checksums are verified.
    pseudo_header: Option<u32>,
    transport_at: usize,
    header_len: usize,
    /// Payload of the first packet.
    payload_len: usize,
    /// All bytes of the super-packet.
    len: usize,
    /// Sequence number of the packet that would come next.
    next_sequence: u32,
    /// Identification of the last packet.
    identification: Option<u16>,
    /// How far each identification is from the one before; unknown with one packet.
    step: Option<u16>,
    /// The last packet has PSH.
    pushed: bool,
    /// The last packet is shorter than the others.
    tapered: bool,
    /// The head's place, then the payloads of the others. Empty with one packet.
    pieces: Vec<IoSlice<'a>>,
}

impl<'a> Train<'a> {
    fn new(candidate: Candidate, head: &'a mut [u8]) -> Self {
        Self {
            len: head.len(),
            head,
            pseudo_header: None,
            transport_at: candidate.transport_at,
            header_len: candidate.header_len,
            payload_len: candidate.payload_len,
            next_sequence: candidate.next_sequence(),
            identification: candidate.identification,
            step: None,
            pushed: candidate.push,
            tapered: false,
            pieces: Vec::new(),
            key: candidate.key,
            likeness: candidate.likeness,
        }
    }

    /// Whether this packet of the same flow is what would come next.
    ///
    /// Checksums are looked at last: the head's once, and only if it finds company.
    fn continues_with(&mut self, candidate: &Candidate, packet: &[u8]) -> bool {
        if self.next_sequence != candidate.sequence
            || self.likeness != candidate.likeness
            || self.header_len != candidate.header_len
            || self.payload_len < candidate.payload_len
            || self.len + candidate.payload_len > MAX_LEN
            || self.options(self.head) != self.options(packet)
            || !self.counts_on(candidate)
        {
            return false;
        }
        let sum = self.pseudo_header.or_else(|| {
            let sum = self.key.pseudo_header();
            verify(self.head, self.transport_at, sum).then_some(sum)
        });
        self.pseudo_header = sum;
        sum.is_some_and(|sum| verify(packet, self.transport_at, sum))
    }

    /// Whether the identification goes on as it did.
    fn counts_on(&self, candidate: &Candidate) -> bool {
        match (self.step, self.step_to(candidate)) {
            (Some(known), step) => known == step,
            (None, 0) => self.identification.is_none() || self.likeness.is_atomic(),
            (None, step) => step == 1,
        }
    }

    fn step_to(&self, candidate: &Candidate) -> u16 {
        let [last, next] = [self.identification, candidate.identification];
        next.unwrap_or(0).wrapping_sub(last.unwrap_or(0))
    }

    /// The TCP options of the head or of a packet with headers of the same length.
    fn options<'b>(&self, packet: &'b [u8]) -> &'b [u8] {
        let fixed = self.transport_at + self.key.transport().header_len();
        packet.get(fixed..self.header_len).unwrap_or_default()
    }

    fn append(
        &mut self,
        candidate: &Candidate,
        packet: &'a [u8],
        list: impl FnOnce() -> Vec<IoSlice<'static>>,
    ) {
        if self.pieces.is_empty() {
            self.pieces = list();
            self.pieces.push(IoSlice::new(&[]));
        }
        let payload = packet.get(self.header_len..).unwrap_or_default();
        self.pieces.push(IoSlice::new(payload));
        self.len += payload.len();
        self.next_sequence = candidate.next_sequence();
        self.step = Some(self.step_to(candidate));
        self.identification = candidate.identification;
        self.pushed = candidate.push;
        self.tapered = payload.len() < self.payload_len;
    }

    /// Whether nothing can be put behind it.
    fn is_closed(&self) -> bool {
        self.pushed || self.tapered || self.pieces.len() == MAX_SEGMENTS || self.len >= MAX_LEN
    }

    /// Hands the packet to `sink`; returns the list of its pieces if there was one.
    fn emit(
        mut self,
        sink: &mut impl FnMut(&VnetHeader, &[IoSlice<'_>]),
    ) -> Option<Vec<IoSlice<'a>>> {
        if self.pieces.is_empty() {
            sink(&VnetHeader::default(), &[IoSlice::new(self.head)]);
            return None;
        }
        let header = self.finish_headers().unwrap_or_default();
        if let Some(first) = self.pieces.first_mut() {
            *first = IoSlice::new(self.head);
        }
        sink(&header, &self.pieces);
        Some(self.pieces)
    }

    /// Makes the head's headers those of the super-packet.
    fn finish_headers(&mut self) -> Option<VnetHeader> {
        let upper_layer_len = u16::try_from(self.len - self.transport_at).ok()?;
        let (ip, upper_layer) = self.head.split_at_mut_checked(self.transport_at)?;
        match ip {
            [0x45, _, t0, t1, _, _, _, _, _, _, c0, c1, ..] => {
                [*t0, *t1] = u16::try_from(self.len).ok()?.to_be_bytes();
                [*c0, *c1] = [0, 0];
                let checksum = checksum(ip).to_be_bytes();
                ip.get_mut(10..12)?.copy_from_slice(&checksum);
            }
            [_, _, _, _, l0, l1, ..] => [*l0, *l1] = upper_layer_len.to_be_bytes(),
            _ => return None,
        }
        // Only the sum of the pseudo-header: whoever splits the packet adds the rest.
        let pseudo_header = self.pseudo_header? + u32::from(upper_layer_len);
        let [p0, p1] = (!finish(pseudo_header)).to_be_bytes();
        let csum_offset = match (self.key.transport(), upper_layer) {
            #[rustfmt::skip]
            (
                Transport::Tcp,
                [_, _, _, _, _, _, _, _, _, _, _, _, _, flags, _, _, c0, c1, ..],
            ) => {
                *flags |= if self.pushed { PSH } else { 0 };
                [*c0, *c1] = [p0, p1];
                16
            }
            (Transport::Udp, [_, _, _, _, l0, l1, c0, c1, ..]) => {
                [*l0, *l1] = upper_layer_len.to_be_bytes();
                [*c0, *c1] = [p0, p1];
                6
            }
            _ => return None,
        };
        Some(VnetHeader {
            flags: VnetHeader::NEEDS_CSUM,
            gso_type: self.key.gso_type(),
            hdr_len: u16::try_from(self.header_len).ok()?,
            gso_size: u16::try_from(self.payload_len).ok()?,
            csum_start: u16::try_from(self.transport_at).ok()?,
            csum_offset,
        })
    }
}

impl fmt::Debug for Merger<'_, '_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Merger")
            .field("kinds", &self.kinds)
            .field("open", &self.open)
            .finish_non_exhaustive()
    }
}

/// Flows that are followed at the same time.
const TRAINS: usize = 8;
/// What every kernel takes in one UDP super-packet.
const MAX_SEGMENTS: usize = 64;
/// What the length field of an IPv4 header can say.
const MAX_LEN: usize = u16::MAX as usize;

const PSH: u8 = 0x08;
