//! Bursts of datagrams: fixed arenas that are filled by one system call and drained by another.
//!
//! Slots hold 64 KiB, so that a train of datagrams fits. Pages that no packet touches cost nothing.

use std::iter;
use std::net::{IpAddr, SocketAddr};

use super::address::SocketName;
use super::arena::Arena;
use super::control_message::{CONTROL_LEN, ControlBuffer};
pub use super::train::{Flows, PushError, Transmit, TransmitBurst};

/// Datagrams that one receive call takes at most.
pub const BURST: usize = 64;
/// The largest datagram.
pub const SLOT_LEN: usize = 65_536;

/// One received datagram, in place in its burst.
#[derive(Debug)]
pub struct Received<'a> {
    /// The payload: what follows the UDP header, or the IP header on a raw socket.
    pub bytes: &'a mut [u8],
    /// Who sent it; port 0 on a raw socket.
    pub remote: SocketAddr,
    /// The own address it was sent to.
    pub local: IpAddr,
    /// The outer TOS or traffic class, DSCP and ECN.
    pub tos: u8,
    /// Length of each datagram but the last, if the kernel merged a train of them (UDP_GRO).
    pub segment_size: Option<u16>,
}

impl<'a> Received<'a> {
    /// The datagrams of a train one by one; a single datagram, which may be empty, yields itself.
    pub fn segments(self) -> impl Iterator<Item = Self> {
        let Self {
            bytes,
            remote,
            local,
            tos,
            segment_size,
        } = self;
        let size = segment_size.map_or(bytes.len(), usize::from).max(1);
        let (first, others) = bytes.split_at_mut(size.min(bytes.len()));
        let all = iter::once(first).chain(others.chunks_mut(size));
        all.map(move |bytes: &'a mut [u8]| Self {
            bytes,
            remote,
            local,
            tos,
            segment_size: None,
        })
    }
}

/// The arena that a socket receives into.
#[derive(Debug)]
pub struct ReceiveBurst {
    arena: Arena,
    room: Arena,
    names: Box<[SocketName]>,
    controls: Box<[ControlBuffer]>,
    calls: CallHeaders,
    /// Headers that the kernel may have written to since they were prepared.
    used: usize,
    /// The same two for the other framing, so that sockets of both can take turns.
    resting: (CallHeaders, usize),
    asked: usize,
    filled: usize,
    framing: Framing,
}

/// What a socket puts in front of the payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Framing {
    /// Nothing: addresses and traffic class come beside it.
    Bare,
    /// The IPv4 header, in which they are.
    Ipv4Header,
}

impl ReceiveBurst {
    /// An arena for `capacity` datagrams, at most [`BURST`].
    pub fn new(capacity: usize) -> Self {
        let capacity = capacity.clamp(1, BURST);
        Self {
            arena: Arena::new(capacity * STRIDE),
            room: Arena::new(capacity * SLOT_LEN * 2),
            names: vec![SocketName::default(); capacity].into_boxed_slice(),
            controls: vec![ControlBuffer::default(); capacity].into_boxed_slice(),
            calls: CallHeaders::new(capacity),
            used: capacity,
            resting: (CallHeaders::new(capacity), capacity),
            asked: 0,
            filled: 0,
            framing: Framing::Bare,
        }
    }

    /// How many datagrams, or trains of them, one call can return at most.
    pub fn capacity(&self) -> usize {
        self.names.len()
    }

    /// How many datagrams, or trains of them, the last call returned, malformed ones included.
    pub fn len(&self) -> usize {
        self.filled
    }

    /// Whether the last call returned all it had room for, so that there may be more.
    pub fn is_full(&self) -> bool {
        self.filled > 0 && self.filled == self.asked
    }

    /// Whether the last call returned nothing.
    pub fn is_empty(&self) -> bool {
        self.filled == 0
    }

    /// Makes the headers for up to `asked` datagrams ready for the kernel. Those that it has not
    /// touched since the last time are ready already.
    pub(super) fn prepare(&mut self, asked: usize, framing: Framing) -> &mut [libc::mmsghdr] {
        if framing != self.framing {
            let (calls, used) = &mut self.resting;
            std::mem::swap(&mut self.calls, calls);
            std::mem::swap(&mut self.used, used);
        }
        let Self {
            arena,
            names,
            controls,
            calls,
            ..
        } = self;
        let slots = arena.chunks_exact_mut(STRIDE);
        let slots = slots.zip(names.iter_mut().zip(controls.iter_mut()));
        let headers = calls.vectors.iter_mut().zip(calls.headers.iter_mut());
        for ((slot, (name, control)), (vector, header)) in slots.zip(headers).take(self.used) {
            vector.iov_base = slot.as_mut_ptr().cast();
            vector.iov_len = SLOT_LEN;
            header.msg_len = 0;
            let nowhere = (std::ptr::null_mut(), 0);
            let (name, control) = match framing {
                Framing::Bare => (
                    (name.bytes.as_mut_ptr(), size_of::<SocketName>()),
                    (control.bytes.as_mut_ptr(), CONTROL_LEN),
                ),
                Framing::Ipv4Header => (nowhere, nowhere),
            };
            point(&mut header.msg_hdr, vector, name, control);
        }
        self.used = 0;
        self.filled = 0;
        self.framing = framing;
        self.asked = asked.clamp(1, calls.headers.len());
        calls.headers.get_mut(..self.asked).unwrap_or_default()
    }

    /// Takes note that the kernel filled the first `filled` headers, and returns the bytes in them.
    pub(super) fn fill(&mut self, filled: usize) -> usize {
        self.filled = filled.min(self.asked);
        // A call that failed may have written to the first.
        self.used = self.filled.max(1);
        let results = self.calls.results().take(self.filled);
        results.map(|result| result.length).sum()
    }

    /// The datagrams in their order of arrival. `None` stands for one that the kernel cut short or
    /// that came without an address.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = Option<Received<'_>>> {
        self.parts_mut().0
    }

    /// Twice as much room as datagrams can fill, for what does not fit where it arrived.
    pub fn room_mut(&mut self) -> &mut [u8] {
        &mut self.room
    }

    /// [`Self::iter_mut`] and [`Self::room_mut`].
    pub fn parts_mut(&mut self) -> (impl Iterator<Item = Option<Received<'_>>>, &mut [u8]) {
        let framing = self.framing;
        let datagrams = self
            .arena
            .chunks_exact_mut(STRIDE)
            .zip(&self.names)
            .zip(&self.controls)
            .zip(self.calls.results())
            .take(self.filled)
            .map(move |(((slot, name), control), result)| {
                if result.flags & libc::MSG_TRUNC != 0 {
                    return None;
                }
                let bytes = slot.get_mut(..result.length)?;
                match framing {
                    Framing::Bare => {
                        let told = control.get(result.control_length);
                        Some(Received {
                            bytes,
                            remote: name.get()?,
                            local: told.local?,
                            tos: told.tos,
                            segment_size: told.segment_size,
                        })
                    }
                    Framing::Ipv4Header => strip_ipv4_header(bytes),
                }
            });
        (datagrams, &mut self.room)
    }
}

/// Removes an IPv4 header with its options (RFC 791 §3.1); the kernel has validated it.
fn strip_ipv4_header(packet: &mut [u8]) -> Option<Received<'_>> {
    let (&header, _) = packet.split_first_chunk::<20>()?;
    let [version_ihl, tos, .., s0, s1, s2, s3, d0, d1, d2, d3] = header;
    let length = usize::from(version_ihl & 0x0f) * 4;
    Some(Received {
        bytes: packet.get_mut(length.max(header.len())..)?,
        remote: SocketAddr::from(([s0, s1, s2, s3], 0)),
        local: IpAddr::from([d0, d1, d2, d3]),
        tos,
        segment_size: None,
    })
}

/// Points a message header at its parts: the address and length of name and control buffer.
pub(super) fn point(
    header: &mut libc::msghdr,
    vector: &mut libc::iovec,
    name: (*mut u8, usize),
    control: (*mut u8, usize),
) {
    header.msg_name = name.0.cast();
    header.msg_namelen = libc::socklen_t::try_from(name.1).unwrap_or(0);
    header.msg_iov = vector;
    header.msg_iovlen = 1;
    header.msg_control = control.0.cast();
    header.msg_controllen = control.1;
    header.msg_flags = 0;
}

/// The argument arrays of `recvmmsg` and `sendmmsg`, allocated once.
pub(super) struct CallHeaders {
    pub(super) vectors: Box<[libc::iovec]>,
    pub(super) headers: Box<[libc::mmsghdr]>,
}

/// What the kernel wrote into one header.
pub(super) struct CallResult {
    pub(super) length: usize,
    pub(super) control_length: usize,
    pub(super) flags: i32,
}

impl std::fmt::Debug for CallHeaders {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CallHeaders")
            .field("capacity", &self.headers.len())
            .finish()
    }
}

// SAFETY: the pointers inside lead to memory that the owner of the arrays owns too and that stays
// where it is, and only the kernel follows them, so they may move to another thread together.
unsafe impl Send for CallHeaders {}

impl CallHeaders {
    pub(super) fn new(capacity: usize) -> Self {
        let vector = libc::iovec {
            iov_base: std::ptr::null_mut(),
            iov_len: 0,
        };
        // SAFETY: `mmsghdr` is a C structure of integers and pointers, for which all-zero is valid.
        let header: libc::mmsghdr = unsafe { std::mem::zeroed() };
        Self {
            vectors: vec![vector; capacity].into_boxed_slice(),
            headers: vec![header; capacity].into_boxed_slice(),
        }
    }

    fn results(&self) -> impl Iterator<Item = CallResult> {
        self.headers.iter().map(|header| CallResult {
            length: usize::try_from(header.msg_len).unwrap_or(usize::MAX),
            control_length: header.msg_hdr.msg_controllen.min(CONTROL_LEN),
            flags: header.msg_hdr.msg_flags,
        })
    }
}

/// A slot and a few lines more, so that the headers of a burst do not all fall into one cache set.
pub(super) const STRIDE: usize = SLOT_LEN + 5 * 64;

#[cfg(test)]
mod tests {
    use super::*;

    fn train(bytes: &mut [u8], segment_size: Option<u16>) -> Vec<usize> {
        let received = Received {
            bytes,
            remote: SocketAddr::from(([127, 0, 0, 1], 4500)),
            local: IpAddr::from([127, 0, 0, 1]),
            tos: 0,
            segment_size,
        };
        received.segments().map(|one| one.bytes.len()).collect()
    }

    #[test]
    fn a_train_is_cut_at_its_segment_size_with_a_shorter_rest() {
        assert_eq!(train(&mut [0; 25], Some(10)), [10, 10, 5]);
        assert_eq!(train(&mut [0; 20], Some(10)), [10, 10]);
        assert_eq!(train(&mut [0; 5], Some(10)), [5]);
        assert_eq!(train(&mut [0; 25], None), [25]);
        assert_eq!(train(&mut [], None), [0], "an empty datagram is one, too");
    }

    /// Sockets of both framings take turns in one arena.
    #[test]
    fn headers_that_the_kernel_left_alone_stay_ready_for_their_framing() {
        let mut burst = ReceiveBurst::new(8);
        let framings = [Framing::Bare, Framing::Ipv4Header];
        for framing in framings {
            for header in burst.prepare(8, framing) {
                header.msg_hdr.msg_flags = MARK;
            }
            burst.fill(3);
        }
        for framing in framings {
            let headers = burst.prepare(8, framing);
            let flags: Vec<i32> = headers.iter().map(|one| one.msg_hdr.msg_flags).collect();
            assert_eq!(flags, [[0; 3].as_slice(), &[MARK; 5]].concat());
            let named = headers.iter().all(|one| !one.msg_hdr.msg_name.is_null());
            assert_eq!(named, framing == Framing::Bare);
            burst.fill(3);
        }
    }

    /// A flag that nobody sets.
    const MARK: i32 = 1 << 30;

    #[test]
    fn options_are_stripped_with_the_ipv4_header() {
        let mut packet = [0_u8; 28];
        packet[0] = 0x46;
        packet[1] = 0xb9;
        packet[12..16].copy_from_slice(&[192, 0, 2, 1]);
        packet[16..20].copy_from_slice(&[198, 51, 100, 2]);
        packet[24..].copy_from_slice(&[1, 2, 3, 4]);
        let received = strip_ipv4_header(&mut packet).expect("whole header");
        assert_eq!((&*received.bytes, received.tos), (&[1, 2, 3, 4][..], 0xb9));
        assert_eq!(received.local.to_string(), "198.51.100.2");
        assert_eq!(received.remote.to_string(), "192.0.2.1:0");
    }

    #[test]
    fn a_cut_ipv4_header_is_refused() {
        for length in 0..24 {
            let mut packet = [0x46_u8; 24];
            assert!(
                strip_ipv4_header(&mut packet[..length]).is_none(),
                "{length}"
            );
        }
    }
}
