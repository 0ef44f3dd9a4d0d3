//! Bursts of datagrams: fixed arenas that are filled by one system call and drained by another.
//!
//! Slots hold 64 KiB, so that a receive-offloaded train or a datagram to be segmented fits. Pages
//! that no packet touches cost nothing.

use std::net::{IpAddr, SocketAddr};

use super::address::SocketName;
use super::control_message::{CONTROL_LEN, ControlBuffer};

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
    /// The datagrams of a train one by one; a single datagram yields itself. None of an empty one.
    pub fn segments(self) -> impl Iterator<Item = Self> {
        let Self {
            bytes,
            remote,
            local,
            tos,
            segment_size,
        } = self;
        let size = segment_size.map_or(bytes.len(), usize::from).max(1);
        bytes.chunks_mut(size).map(move |bytes: &'a mut [u8]| Self {
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
    pub(super) arena: Box<[u8]>,
    pub(super) names: Box<[SocketName]>,
    pub(super) controls: Box<[ControlBuffer]>,
    pub(super) calls: CallHeaders,
    pub(super) filled: usize,
    pub(super) framing: Framing,
}

/// What a socket puts in front of the payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Framing {
    Bare,
    Ipv4Header,
}

impl ReceiveBurst {
    /// An arena for `capacity` datagrams, at most [`BURST`].
    pub fn new(capacity: usize) -> Self {
        let capacity = capacity.clamp(1, BURST);
        Self {
            arena: vec![0; capacity * STRIDE].into_boxed_slice(),
            names: vec![SocketName::default(); capacity].into_boxed_slice(),
            controls: vec![ControlBuffer::default(); capacity].into_boxed_slice(),
            calls: CallHeaders::new(capacity),
            filled: 0,
            framing: Framing::Bare,
        }
    }

    /// How many datagrams one call can return.
    pub fn capacity(&self) -> usize {
        self.names.len()
    }

    /// How many datagrams the last call returned, malformed ones included.
    pub fn len(&self) -> usize {
        self.filled
    }

    /// Whether the last call returned all it had room for, so that there may be more.
    pub fn is_full(&self) -> bool {
        self.filled == self.capacity()
    }

    /// Whether the last call returned nothing.
    pub fn is_empty(&self) -> bool {
        self.filled == 0
    }

    /// The datagrams in their order of arrival. `None` stands for one that the kernel cut short or
    /// that came without an address.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = Option<Received<'_>>> {
        let framing = self.framing;
        self.arena
            .chunks_exact_mut(STRIDE)
            .zip(&self.names)
            .zip(&self.controls)
            .zip(self.calls.results())
            .take(self.filled)
            .map(move |(((slot, name), control), result)| {
                if result.flags & libc::MSG_TRUNC != 0 {
                    return None;
                }
                let told = control.get(result.control_length);
                let remote = name.get()?;
                let bytes = slot.get_mut(..result.length)?;
                let (bytes, local, tos) = match framing {
                    Framing::Bare => (bytes, told.local?, told.tos),
                    Framing::Ipv4Header => strip_ipv4_header(bytes)?,
                };
                Some(Received {
                    bytes,
                    remote,
                    local,
                    tos,
                    segment_size: told.segment_size,
                })
            })
    }
}

/// Removes an IPv4 header with its options (RFC 791 §3.1); the kernel has validated it.
fn strip_ipv4_header(packet: &mut [u8]) -> Option<(&mut [u8], IpAddr, u8)> {
    let (header, _) = packet.split_first_chunk::<20>()?;
    let [version_ihl, tos, ..] = *header;
    let [.., a, b, c, d] = *header;
    let length = usize::from(version_ihl & 0x0f) * 4;
    let payload = packet.get_mut(length.max(20)..)?;
    Some((payload, IpAddr::from([a, b, c, d]), tos))
}

/// How one datagram is to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transmit {
    /// The source address, which must be an own one; unspecified lets the kernel choose.
    pub local: IpAddr,
    /// Where to.
    pub remote: SocketAddr,
    /// The outer TOS or traffic class, DSCP and ECN.
    pub tos: u8,
    /// Whether routers must not fragment it.
    pub dont_fragment: bool,
}

/// Why [`TransmitBurst::push`] added nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PushError<E> {
    /// The burst is full, or the datagram longer than any can be; send the burst first.
    Full,
    /// The writer of the bytes refused.
    Refused(E),
}

/// Datagrams waiting to be sent together, in order.
#[derive(Debug)]
pub struct TransmitBurst {
    pub(super) arena: Box<[u8]>,
    used: usize,
    pub(super) messages: Vec<Message>,
    pub(super) names: Box<[SocketName]>,
    pub(super) controls: Box<[ControlBuffer]>,
    pub(super) calls: CallHeaders,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Message {
    pub(super) transmit: Transmit,
    pub(super) start: usize,
    pub(super) length: usize,
}

impl Default for TransmitBurst {
    fn default() -> Self {
        Self::new()
    }
}

impl TransmitBurst {
    /// An empty burst with its arena.
    pub fn new() -> Self {
        Self {
            arena: vec![0; TRANSMIT_ARENA].into_boxed_slice(),
            used: 0,
            messages: Vec::with_capacity(TRANSMIT_MESSAGES),
            names: vec![SocketName::default(); TRANSMIT_MESSAGES].into_boxed_slice(),
            controls: vec![ControlBuffer::default(); TRANSMIT_MESSAGES].into_boxed_slice(),
            calls: CallHeaders::new(TRANSMIT_MESSAGES),
        }
    }

    /// Adds one datagram of `length` bytes, which `write` puts into the buffer it is given.
    pub fn push<E>(
        &mut self,
        transmit: Transmit,
        length: usize,
        write: impl FnOnce(&mut [u8]) -> Result<(), E>,
    ) -> Result<(), PushError<E>> {
        let end = self.used.saturating_add(length);
        if self.messages.len() == TRANSMIT_MESSAGES || length > SLOT_LEN {
            return Err(PushError::Full);
        }
        let buffer = self.arena.get_mut(self.used..end).ok_or(PushError::Full)?;
        write(buffer).map_err(PushError::Refused)?;
        self.messages.push(Message {
            transmit,
            start: self.used,
            length,
        });
        self.used += length.next_multiple_of(LINE);
        Ok(())
    }

    /// Whether the fragments of one more packet of any size surely fit.
    pub fn has_room(&self) -> bool {
        self.arena.len() - self.used >= 3 * SLOT_LEN
            && TRANSMIT_MESSAGES - self.messages.len() >= TRANSMIT_MESSAGES / 2
    }

    /// How many datagrams wait.
    pub fn len(&self) -> usize {
        self.messages.len()
    }

    /// Whether no datagram waits.
    pub fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    /// The waiting datagrams in order.
    pub fn iter(&self) -> impl Iterator<Item = (Transmit, &[u8])> {
        self.messages.iter().filter_map(|message| {
            let bytes = self
                .arena
                .get(message.start..message.start + message.length)?;
            Some((message.transmit, bytes))
        })
    }

    /// Forgets all datagrams.
    pub fn clear(&mut self) {
        self.messages.clear();
        self.used = 0;
    }
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

// SAFETY: the pointers inside are written anew before each system call and read by nothing else,
// so moving the arrays to another thread moves no live reference.
unsafe impl Send for CallHeaders {}

impl CallHeaders {
    fn new(capacity: usize) -> Self {
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
pub(super) const STRIDE: usize = SLOT_LEN + 5 * LINE;
const LINE: usize = 64;
const TRANSMIT_ARENA: usize = 1 << 20;
const TRANSMIT_MESSAGES: usize = 512;

#[cfg(test)]
mod tests {
    use super::*;

    const TRANSMIT: Transmit = Transmit {
        local: IpAddr::V4(std::net::Ipv4Addr::LOCALHOST),
        remote: SocketAddr::new(IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 4500),
        tos: 0,
        dont_fragment: false,
    };

    fn train(bytes: &mut [u8], segment_size: Option<u16>) -> Vec<usize> {
        let received = Received {
            bytes,
            remote: TRANSMIT.remote,
            local: TRANSMIT.local,
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
        assert!(train(&mut [], None).is_empty());
    }

    #[test]
    fn a_refused_datagram_leaves_no_trace_in_the_burst() {
        let mut burst = TransmitBurst::new();
        let pushed = burst.push(TRANSMIT, 9, |_| Err("no"));
        assert_eq!(pushed, Err(PushError::Refused("no")));
        assert!(burst.is_empty());
    }

    #[test]
    fn a_full_burst_refuses_instead_of_growing() {
        let mut burst = TransmitBurst::new();
        while burst.push::<()>(TRANSMIT, SLOT_LEN, |_| Ok(())).is_ok() {}
        assert!(!burst.has_room());
        assert_eq!(burst.len(), TRANSMIT_ARENA / SLOT_LEN);
        burst.clear();
        while burst.push::<()>(TRANSMIT, 1, |_| Ok(())).is_ok() {}
        assert_eq!(burst.len(), TRANSMIT_MESSAGES);
    }

    #[test]
    fn options_are_stripped_with_the_ipv4_header() {
        let mut packet = [0_u8; 28];
        packet[0] = 0x46;
        packet[1] = 0xb9;
        packet[16..20].copy_from_slice(&[198, 51, 100, 2]);
        packet[24..].copy_from_slice(&[1, 2, 3, 4]);
        let (payload, local, tos) = strip_ipv4_header(&mut packet).expect("whole header");
        assert_eq!(
            (&*payload, local.to_string().as_str(), tos),
            (&[1, 2, 3, 4][..], "198.51.100.2", 0xb9)
        );
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
