//! Runs of packets into super-packets, by the rules of the kernel's GRO.

use std::fmt;
use std::io::IoSlice;

use crate::wire::vnet::VnetHeader;

/// What a [`Merger`] allocates, kept from burst to burst.
#[derive(Debug, Default)]
pub struct MergeScratch {
    _private: (),
}

impl MergeScratch {
    /// Everything that mergers will ever need.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
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
    burst: std::marker::PhantomData<&'a mut [u8]>,
}

impl<'s, 'a> Merger<'s, 'a> {
    /// A merger for one burst.
    #[must_use]
    pub fn new(kinds: MergeKinds, scratch: &'s mut MergeScratch) -> Self {
        Self {
            kinds,
            scratch,
            burst: std::marker::PhantomData,
        }
    }

    /// Takes one complete IP packet. It may be kept back; what can no longer grow is emitted.
    pub fn push(
        &mut self,
        packet: &'a mut [u8],
        sink: &mut impl FnMut(&VnetHeader, &[IoSlice<'_>]),
    ) {
        sink(&VnetHeader::default(), &[IoSlice::new(packet)]);
    }

    /// Emits what was kept back.
    pub fn finish(self, sink: &mut impl FnMut(&VnetHeader, &[IoSlice<'_>])) {
        let _ = sink;
    }
}

impl fmt::Debug for Merger<'_, '_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Merger")
            .field("kinds", &self.kinds)
            .field("scratch", &self.scratch)
            .finish_non_exhaustive()
    }
}
