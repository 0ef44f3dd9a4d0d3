//! Datagrams on their way out, gathered into trains that one message carries (UDP_SEGMENT).

use std::net::{IpAddr, SocketAddr};

use super::address::SocketName;
use super::arena::Arena;
use super::burst::{CallHeaders, SLOT_LEN, STRIDE, point};
use super::control_message::ControlBuffer;

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

/// Datagrams waiting to be sent together. Those to one destination keep their order.
///
/// Datagrams of equal length that are sent alike lie one behind the other as a train; one that is
/// shorter ends it. A socket that can sends a train as one message.
#[derive(Debug)]
pub struct TransmitBurst {
    arena: Arena,
    /// In the order of sending; each has the slot of its number.
    trains: Vec<Train>,
    /// Trains before this one do not grow: they may have been sent in part.
    open: usize,
    /// Number of the train, and of the datagram in it, that is sent next.
    next: (usize, u16),
    waiting: usize,
    bytes: usize,
    names: Box<[SocketName]>,
    controls: Box<[ControlBuffer]>,
    calls: CallHeaders,
}

#[derive(Clone, Copy, Debug)]
struct Train {
    transmit: Transmit,
    /// Length of each datagram but the last.
    segment: usize,
    length: usize,
    datagrams: u16,
    complete: bool,
    /// It was refused as a whole with this error, so its datagrams go one by one.
    refused: Option<i32>,
}

/// What became of messages that were sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Sent {
    pub(super) datagrams: u32,
    /// Messages that carried more than one.
    pub(super) trains: u32,
    /// A train was refused with this error and its datagrams were not, so trains are to blame.
    pub(super) blame: Option<i32>,
}

/// The message that is sent next.
#[derive(Clone, Copy, Debug)]
pub(super) struct Front {
    pub(super) transmit: Transmit,
    pub(super) datagrams: u16,
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
            arena: Arena::new(TRAINS * STRIDE),
            trains: Vec::with_capacity(TRAINS),
            open: 0,
            next: (0, 0),
            waiting: 0,
            bytes: 0,
            names: vec![SocketName::default(); TRAINS].into_boxed_slice(),
            controls: vec![ControlBuffer::default(); TRAINS].into_boxed_slice(),
            calls: CallHeaders::new(MESSAGES),
        }
    }

    /// Adds one datagram of `length` bytes, which `write` puts into the buffer it is given. What was in
    /// that buffer before is undefined.
    pub fn push<E>(
        &mut self,
        transmit: Transmit,
        length: usize,
        write: impl FnOnce(&mut [u8]) -> Result<(), E>,
    ) -> Result<(), PushError<E>> {
        if let Some(number) = self.joinable(&transmit, length)
            && let Some(train) = self.trains.get_mut(number)
        {
            let start = number * STRIDE + train.length;
            let buffer = self.arena.get_mut(start..start + length);
            write(buffer.ok_or(PushError::Full)?).map_err(PushError::Refused)?;
            train.length += length;
            train.datagrams += 1;
            train.complete = length < train.segment;
        } else {
            if self.trains.len() == TRAINS || length > SLOT_LEN {
                return Err(PushError::Full);
            }
            let start = self.trains.len() * STRIDE;
            let buffer = self.arena.get_mut(start..start + length);
            write(buffer.ok_or(PushError::Full)?).map_err(PushError::Refused)?;
            self.trains.push(Train {
                transmit,
                segment: length,
                length,
                datagrams: 1,
                complete: length == 0,
                refused: None,
            });
        }
        self.waiting += 1;
        self.bytes += length;
        Ok(())
    }

    /// The train that a datagram continues: the last one to its destination, if they go together.
    /// Only some of the last trains are looked at; starting another is never wrong.
    fn joinable(&self, transmit: &Transmit, length: usize) -> Option<usize> {
        let oldest = self.trains.len().saturating_sub(LOOK_BACK).max(self.open);
        let recent = self.trains.get(oldest..)?;
        let same = |train: &Train| train.transmit.remote == transmit.remote;
        let place = recent.iter().rposition(same)?;
        let train = recent.get(place)?;
        let joins = train.transmit == *transmit && train.takes(length);
        joins.then_some(oldest + place)
    }

    /// Whether one more packet surely fits, also a super-packet of 64 KiB with the smallest segments and
    /// usual headers.
    pub fn has_room(&self) -> bool {
        TRAINS - self.trains.len() >= TRAINS_OF_ONE_PACKET && self.bytes < ENOUGH
    }

    /// How many datagrams wait.
    pub fn len(&self) -> usize {
        self.waiting
    }

    /// Whether no datagram waits.
    pub fn is_empty(&self) -> bool {
        self.waiting == 0
    }

    /// The waiting datagrams, in the order in which they are sent.
    pub fn iter(&self) -> impl Iterator<Item = (Transmit, &[u8])> {
        let (first, sent) = self.next;
        let trains = self.trains.iter().enumerate().skip(first);
        trains.flat_map(move |(number, train)| {
            let sent = if number == first { sent } else { 0 };
            (sent..train.datagrams).filter_map(move |datagram| {
                let bytes = train.place(number, datagram, 1);
                Some((train.transmit, self.arena.get(bytes)?))
            })
        })
    }

    /// Forgets all datagrams.
    pub fn clear(&mut self) {
        self.trains.clear();
        self.open = 0;
        self.next = (0, 0);
        self.waiting = 0;
        self.bytes = 0;
    }

    /// The message that is sent next, if one takes up to `most` datagrams. From here on, what waits
    /// does not grow.
    pub(super) fn front(&mut self, most: u16) -> Option<Front> {
        self.open = self.trains.len();
        let (number, sent) = self.next;
        let train = self.trains.get(number)?;
        Some(Front {
            transmit: train.transmit,
            datagrams: train.step(most).min(train.datagrams - sent),
        })
    }

    /// Makes headers for the messages that are sent next and agree on DF. A message carries up to
    /// `most` datagrams.
    pub(super) fn prepare(&mut self, most: u16, with_port: bool) -> &mut [libc::mmsghdr] {
        let Self {
            arena,
            trains,
            names,
            controls,
            calls,
            next,
            ..
        } = self;
        let (first, mut sent) = *next;
        let mut headers = calls.vectors.iter_mut().zip(calls.headers.iter_mut());
        let mut filled = 0;
        let waiting = trains.iter().enumerate().skip(first);
        let rule = trains.get(first).map(|train| train.transmit.dont_fragment);
        'trains: for (number, train) in
            waiting.take_while(|(_, train)| Some(train.transmit.dont_fragment) == rule)
        {
            let (Some(name), Some(control)) = (names.get_mut(number), controls.get_mut(number))
            else {
                break;
            };
            let Transmit {
                local,
                mut remote,
                tos,
                ..
            } = train.transmit;
            if !with_port {
                remote.set_port(0);
            }
            let step = train.step(most);
            let segment = u16::try_from(train.segment).ok();
            let segment = segment.filter(|_| step > 1 && train.datagrams - sent > 1);
            let name_length = name.set(remote);
            let control_length = control.set(local, tos, segment);
            while sent < train.datagrams {
                let Some((vector, header)) = headers.next() else {
                    break 'trains;
                };
                let bytes = arena.get(train.place(number, sent, step));
                let bytes = bytes.unwrap_or_default();
                vector.iov_base = bytes.as_ptr().cast_mut().cast(); // only read, and only by the kernel
                vector.iov_len = bytes.len();
                header.msg_len = 0;
                let name = (name.bytes.as_mut_ptr(), name_length);
                let control = (control.bytes.as_mut_ptr(), control_length);
                point(&mut header.msg_hdr, vector, name, control);
                filled += 1;
                sent = sent.saturating_add(step);
            }
            sent = 0;
        }
        calls.headers.get_mut(..filled).unwrap_or_default()
    }

    /// Moves past messages that were sent, each of up to `most` datagrams.
    pub(super) fn advance(&mut self, messages: u32, most: u16) -> Sent {
        let mut done = Sent::default();
        for _ in 0..messages {
            let Some(front) = self.front(most) else {
                break;
            };
            let train = self.trains.get(self.next.0);
            done.datagrams += u32::from(front.datagrams);
            done.trains += u32::from(front.datagrams > 1);
            let blame = |train: &Train| train.blame(self.next.1);
            done.blame = done.blame.or(train.and_then(blame));
            self.skip(front.datagrams);
        }
        done
    }

    /// Moves past so many datagrams of the train that is next.
    pub(super) fn skip(&mut self, datagrams: u16) {
        let (number, sent) = &mut self.next;
        let Some(train) = self.trains.get(*number) else {
            return;
        };
        *sent = sent.saturating_add(datagrams);
        self.waiting = self.waiting.saturating_sub(usize::from(datagrams));
        if *sent >= train.datagrams {
            self.next = (*number + 1, 0);
        }
    }

    /// Lets the datagrams of the train that is next go one by one, since it was refused as a whole.
    pub(super) fn break_up(&mut self, error: Option<i32>) {
        let train = self.trains.get_mut(self.next.0);
        if let Some(train) = train {
            train.refused = Some(error.unwrap_or(0));
        }
    }
}

impl Train {
    fn takes(&self, length: usize) -> bool {
        !self.complete
            && length <= self.segment
            && self.datagrams < TRAIN_DATAGRAMS
            && self.length + length <= TRAIN_LEN
            && length > 0
    }

    /// How many of its datagrams one message carries.
    fn step(&self, most: u16) -> u16 {
        if self.refused.is_some() {
            1
        } else {
            most.max(1)
        }
    }

    /// Where in the arena `count` datagrams lie, or as many as there are.
    fn place(&self, number: usize, first: u16, count: u16) -> std::ops::Range<usize> {
        let at = |datagram: usize| number * STRIDE + (datagram * self.segment).min(self.length);
        let (first, count) = (usize::from(first), usize::from(count));
        at(first)..at(first + count)
    }

    /// What to say of trains, if this datagram of a refused one passes. The path refuses them too where
    /// its MTU has shrunk, and old kernels say EINVAL then: a short tail that still fits proves nothing.
    fn blame(&self, datagram: u16) -> Option<i32> {
        let is_full = self.place(0, datagram, 1).len() == self.segment;
        self.refused.filter(|&error| {
            error == libc::EIO || error == libc::EINVAL && self.transmit.dont_fragment && is_full
        })
    }
}

/// Trains in a burst at most.
const TRAINS: usize = 64;
/// Messages of one system call at most.
const MESSAGES: usize = 256;
/// Datagrams in a train at most: UDP_MAX_SEGMENTS of newer kernels.
pub(super) const TRAIN_DATAGRAMS: u16 = 128;
/// The longest train that an IPv6 header, a UDP header and an Ethernet header with two tags leave
/// under 64 KiB: devices have a longer one cut in software.
const TRAIN_LEN: usize = 65_535 - 40 - 8 - 22;
/// A super-packet of 64 KiB with the least MSS (48) has 1365 segments.
const TRAINS_OF_ONE_PACKET: usize = 16;
/// Bytes after which a burst is sent: what is cheap to gather has been gathered, and all of it is
/// still in the cache.
const ENOUGH: usize = 512 << 10;
/// Trains that are looked at for one that a datagram continues.
const LOOK_BACK: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    fn to(port: u16) -> Transmit {
        Transmit {
            local: IpAddr::from([127, 0, 0, 1]),
            remote: SocketAddr::from(([127, 0, 0, 1], port)),
            tos: 0,
            dont_fragment: true,
        }
    }

    /// Pushes datagrams of these lengths, numbered from 0.
    fn push(burst: &mut TransmitBurst, transmit: Transmit, lengths: &[usize]) {
        for (number, length) in (0..=u8::MAX).cycle().zip(lengths) {
            let pushed = burst.push::<()>(transmit, *length, |buffer| {
                assert_eq!(buffer.len(), *length);
                buffer.fill(number);
                Ok(())
            });
            assert_eq!(pushed, Ok(()));
        }
    }

    /// Destination port and lengths of each message.
    fn messages(burst: &mut TransmitBurst, most: u16) -> Vec<(u16, u16)> {
        let mut all = Vec::new();
        while let Some(front) = burst.front(most) {
            all.push((front.transmit.remote.port(), front.datagrams));
            burst.skip(front.datagrams);
        }
        all
    }

    #[test]
    fn datagrams_of_equal_length_make_a_train_that_a_shorter_one_ends() {
        let mut burst = TransmitBurst::new();
        push(&mut burst, to(1), &[100, 100, 100, 60, 60, 100, 100]);
        let lengths: Vec<_> = burst.iter().map(|(_, bytes)| bytes.len()).collect();
        assert_eq!(lengths, [100, 100, 100, 60, 60, 100, 100]);
        assert_eq!((burst.len(), burst.is_empty()), (7, false));
        assert_eq!(messages(&mut burst, 64), [(1, 4), (1, 1), (1, 2)]);
        assert!(burst.is_empty());
    }

    #[test]
    fn trains_to_several_destinations_are_open_at_once() {
        let mut burst = TransmitBurst::new();
        for _ in 0..3 {
            push(&mut burst, to(1), &[100]);
            push(&mut burst, to(2), &[200]);
        }
        assert_eq!(messages(&mut burst, 64), [(1, 3), (2, 3)]);
    }

    #[test]
    fn what_is_sent_differently_does_not_overtake_what_goes_to_the_same_peer() {
        let mut burst = TransmitBurst::new();
        let other = Transmit { tos: 1, ..to(1) };
        for transmit in [to(1), other, to(1)] {
            push(&mut burst, transmit, &[100]);
        }
        assert_eq!(messages(&mut burst, 64), [(1, 1), (1, 1), (1, 1)]);
    }

    #[test]
    fn a_message_carries_no_more_than_the_socket_takes() {
        let mut burst = TransmitBurst::new();
        push(&mut burst, to(1), &[10; 150]);
        assert_eq!(messages(&mut burst, 64), [(1, 64), (1, 64), (1, 22)]);
        burst.clear();
        push(&mut burst, to(1), &[1400; 48]);
        assert_eq!(messages(&mut burst, 64), [(1, 46), (1, 2)]);
    }

    #[test]
    fn what_was_offered_to_the_socket_does_not_grow() {
        let mut burst = TransmitBurst::new();
        push(&mut burst, to(1), &[100; 3]);
        burst.front(1);
        burst.skip(1);
        push(&mut burst, to(1), &[100; 2]);
        let numbers: Vec<_> = burst.iter().map(|(_, bytes)| bytes.first()).collect();
        assert_eq!(numbers, [Some(&1), Some(&2), Some(&0), Some(&1)]);
        assert_eq!(messages(&mut burst, 64), [(1, 2), (1, 2)]);
    }

    #[test]
    fn a_refused_datagram_leaves_no_trace_in_the_burst() {
        let mut burst = TransmitBurst::new();
        let pushed = burst.push(to(1), 9, |_| Err("no"));
        assert_eq!(pushed, Err(PushError::Refused("no")));
        assert!(burst.is_empty());
        push(&mut burst, to(1), &[9]);
        assert!(burst.push(to(1), 9, |_| Err("no")).is_err());
        assert_eq!(burst.len(), 1);
    }

    #[test]
    fn a_tail_that_passes_does_not_put_the_blame_on_trains() {
        let mut burst = TransmitBurst::new();
        push(&mut burst, to(1), &[1400, 1400, 300]);
        assert_eq!(burst.front(64).map(|front| front.datagrams), Some(3));
        burst.break_up(Some(libc::EINVAL));
        burst.skip(1);
        assert_eq!(burst.advance(1, 64).blame, Some(libc::EINVAL));
        assert_eq!(burst.advance(1, 64).blame, None);
    }

    #[test]
    fn a_full_burst_refuses_instead_of_growing() {
        let mut burst = TransmitBurst::new();
        while burst.push::<()>(to(1), SLOT_LEN, |_| Ok(())).is_ok() {}
        assert!(!burst.has_room());
        assert_eq!(burst.len(), TRAINS);
        burst.clear();
        assert_eq!(
            burst.push::<()>(to(1), SLOT_LEN + 1, |_| Ok(())),
            Err(PushError::Full)
        );
        while burst.push::<()>(to(1), 1, |_| Ok(())).is_ok() {}
        assert_eq!(burst.len(), TRAINS * usize::from(TRAIN_DATAGRAMS));
    }

    #[test]
    fn a_burst_with_room_takes_a_super_packet_of_the_smallest_segments() {
        for segment in [48, 100, 500, 1400] {
            let sealed = segment + 200; // inner headers with options, and what ESP adds
            let mut burst = TransmitBurst::new();
            let mut ports = 0..;
            while burst.has_room() {
                let port = ports.next().expect("endless");
                push(&mut burst, to(port), &[sealed; 2]);
            }
            burst.clear();
            // One less than what makes it full.
            for port in 0..ports.start - 1 {
                push(&mut burst, to(port), &[sealed; 2]);
            }
            assert!(burst.has_room());
            push(&mut burst, to(9), &vec![sealed; 65_535 / segment]);
        }
    }
}
