//! Datagrams on their way out, gathered into trains that one message carries (UDP_SEGMENT).

use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU64;

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

/// Flows that datagrams may belong to: never fewer than those that were meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flows(u64);

impl Flows {
    /// Nothing is known.
    pub const ANY: Self = Self(u64::MAX);

    /// The flow with this hash, of which the high bits count.
    pub fn of(hash: u64) -> Self {
        Self(1 << (hash >> 58))
    }

    fn may_share_one_with(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }
}

/// Why [`TransmitBurst::push`] added nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PushError<E> {
    /// The burst is full, or the datagram longer than any can be; send the burst first.
    Full,
    /// The writer of the bytes refused.
    Refused(E),
}

/// Datagrams waiting to be sent together.
///
/// Datagrams of equal length that are sent alike lie one behind the other as a train; one that is
/// shorter ends it. A socket that can sends a train as one message.
///
/// Datagrams of one flow keep their order. So do those to one destination that are sent alike. Others
/// to one destination, which differ in DF, DSCP or ECN, may be overtaken, since a mix of them would make
/// no trains and DF changes with a system call; but by few enough that the ESP sequence numbers among
/// them stay well inside the smallest replay window (RFC 4303 §3.4.3).
#[derive(Debug)]
pub struct TransmitBurst {
    arena: Arena,
    /// As they were begun; each has the slot of its number.
    trains: Vec<Train>,
    /// Trains before this one do not grow: they may have been sent in part.
    open: usize,
    /// Numbers of those trains, as they are sent.
    order: Vec<usize>,
    /// Place in that order, and number of the datagram in the train, of what is sent next.
    next: (usize, u16),
    added: usize,
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
    flows: Flows,
    /// Numbers of its first and last datagram among all that were added to the burst.
    first: usize,
    last: usize,
    /// Datagrams that one message carries at most.
    limit: u16,
    /// Why that many.
    refused: Option<i32>,
}

/// What became of messages that were sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Sent {
    pub(super) datagrams: u32,
    /// Messages that carried more than one.
    pub(super) trains: u32,
    /// A train was refused and its parts were not, so its length is to blame.
    pub(super) blame: Option<Blame>,
}

/// What is known of a train that was refused and whose parts pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Blame {
    pub(super) remote: SocketAddr,
    pub(super) error: i32,
    /// Datagrams in those parts.
    pub(super) limit: u16,
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
            order: Vec::with_capacity(TRAINS),
            next: (0, 0),
            added: 0,
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
        flows: Flows,
        length: usize,
        write: impl FnOnce(&mut [u8]) -> Result<(), E>,
    ) -> Result<(), PushError<E>> {
        if let Some(number) = self.joinable(&transmit, flows, length)
            && let Some(train) = self.trains.get_mut(number)
        {
            let start = number * STRIDE + train.length;
            let buffer = self.arena.get_mut(start..start + length);
            write(buffer.ok_or(PushError::Full)?).map_err(PushError::Refused)?;
            train.length += length;
            train.datagrams += 1;
            train.complete = length < train.segment;
            train.flows.0 |= flows.0;
            train.last = self.added;
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
                flows,
                first: self.added,
                last: self.added,
                limit: TRAIN_DATAGRAMS,
                refused: None,
            });
        }
        self.added += 1;
        self.waiting += 1;
        self.bytes += length;
        Ok(())
    }

    /// The train that a datagram continues: the last one to its destination that is sent alike, unless
    /// it has to stay behind a later one. Only some of the last trains are looked at; starting another
    /// is never wrong.
    fn joinable(&self, transmit: &Transmit, flows: Flows, length: usize) -> Option<usize> {
        let oldest = self.trains.len().saturating_sub(LOOK_BACK).max(self.open);
        let recent = self.trains.iter().enumerate().skip(oldest).rev();
        let mut same = recent.filter(|(_, train)| train.transmit.remote == transmit.remote);
        let stops =
            |train: &Train| train.transmit == *transmit || !train.lets_pass(flows, self.added);
        let (number, train) = same.find(|(_, train)| stops(train))?;
        let joins = train.transmit == *transmit && train.takes(length);
        joins.then_some(number)
    }

    /// Offers what waits to a socket: from here on it does not grow. Trains that differ in DF are put
    /// together as far as they may overtake each other, beginning with those that have DF as the socket
    /// has. Those to where `singly` says so are sent as single datagrams.
    pub(super) fn offer(
        &mut self,
        dont_fragment: Option<bool>,
        mut singly: impl FnMut(&SocketAddr) -> bool,
    ) {
        let fresh = self.open..self.trains.len();
        self.open = fresh.end;
        for train in self.trains.iter_mut().skip(fresh.start) {
            if singly(&train.transmit.remote) {
                train.limit = 1;
            }
        }
        let rule = |train: &Train| train.transmit.dont_fragment;
        let new = self.trains.get(fresh.clone()).unwrap_or_default();
        let first = new.first().map(rule);
        if new.iter().all(|train| Some(rule(train)) == first) {
            self.order.extend(fresh);
            return;
        }
        let mut wanted = dont_fragment.unwrap_or(true);
        let mut left = fresh.fold(0, |left, number| left | 1 << number);
        while left != 0 {
            for number in numbers_in(left) {
                let train = self.trains.get(number);
                let fits = train.is_some_and(|train| rule(train) == wanted);
                if fits && !self.waits(number, left) {
                    self.order.push(number);
                    left &= !(1 << number);
                }
            }
            wanted = !wanted;
        }
    }

    /// Whether a train must not overtake one of those before it that are `left`.
    fn waits(&self, number: usize, left: u64) -> bool {
        let Some(train) = self.trains.get(number) else {
            return false;
        };
        let earlier = left & ((1 << number) - 1);
        let mut earlier = numbers_in(earlier).filter_map(|number| self.trains.get(number));
        earlier.any(|other| {
            let is_alike = other.transmit == train.transmit;
            other.transmit.remote == train.transmit.remote
                && (is_alike || !other.lets_pass(train.flows, train.last))
        })
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

    /// The waiting datagrams: those that were offered to a socket as they are sent, then the others as
    /// they came.
    pub fn iter(&self) -> impl Iterator<Item = (Transmit, &[u8])> {
        let (first, sent) = self.next;
        let offered = self.order.iter().copied();
        let numbers = offered.chain(self.open..self.trains.len()).enumerate();
        numbers.skip(first).flat_map(move |(place, number)| {
            let sent = if place == first { sent } else { 0 };
            let train = self.trains.get(number);
            train.into_iter().flat_map(move |train| {
                (sent..train.datagrams).filter_map(move |datagram| {
                    let bytes = train.place(number, datagram, 1);
                    Some((train.transmit, self.arena.get(bytes)?))
                })
            })
        })
    }

    /// Forgets all datagrams.
    pub fn clear(&mut self) {
        self.trains.clear();
        self.open = 0;
        self.order.clear();
        self.next = (0, 0);
        self.added = 0;
        self.waiting = 0;
        self.bytes = 0;
    }

    /// The message of those offered that is sent next, if one takes up to `most` datagrams.
    pub(super) fn front(&self, most: u16) -> Option<Front> {
        let train = self.front_train()?;
        Some(Front {
            transmit: train.transmit,
            datagrams: train.step(most).min(train.datagrams - self.next.1),
        })
    }

    /// Makes headers for the messages that are sent next and agree on DF. A message carries up to
    /// `most` datagrams.
    pub(super) fn prepare(&mut self, most: u16, with_port: bool) -> &mut [libc::mmsghdr] {
        let rule = self.front_train().map(|train| train.transmit.dont_fragment);
        let Self {
            arena,
            trains,
            order,
            names,
            controls,
            calls,
            next,
            ..
        } = self;
        let (first, mut sent) = *next;
        let mut headers = calls.vectors.iter_mut().zip(calls.headers.iter_mut());
        let mut filled = 0;
        'trains: for &number in order.iter().skip(first) {
            let train = trains.get(number);
            let alike = train.filter(|train| Some(train.transmit.dont_fragment) == rule);
            let (Some(train), Some(name), Some(control)) =
                (alike, names.get_mut(number), controls.get_mut(number))
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
            done.datagrams += u32::from(front.datagrams);
            done.trains += u32::from(front.datagrams > 1);
            let blame = |train: &Train| train.blame(self.next.1);
            done.blame = done.blame.or(self.front_train().and_then(blame));
            self.skip(front.datagrams);
        }
        done
    }

    /// Moves past so many datagrams of the train that is next.
    pub(super) fn skip(&mut self, datagrams: u16) {
        let Some(length) = self.front_train().map(|train| train.datagrams) else {
            return;
        };
        let (place, sent) = &mut self.next;
        *sent = sent.saturating_add(datagrams);
        self.waiting = self.waiting.saturating_sub(usize::from(datagrams));
        if *sent >= length {
            self.next = (*place + 1, 0);
        }
    }

    /// Moves past the datagram that is next and those of its train that are as long. Returns how many
    /// these are.
    pub(super) fn skip_alike(&mut self) -> u16 {
        let sent = self.next.1;
        let alike = self
            .front_train()
            .map_or(0, |train| train.full() - sent.min(train.full()));
        self.skip(alike.max(1));
        alike.max(1)
    }

    /// Lets messages carry fewer datagrams of the train that is next, since it was refused as a whole.
    pub(super) fn shorten(&mut self, limit: u16, error: i32) {
        let number = self.order.get(self.next.0);
        if let Some(train) = number.and_then(|number| self.trains.get_mut(*number)) {
            train.limit = limit;
            train.refused = Some(error);
        }
    }

    /// Lets what is still to be sent to a peer go as single datagrams.
    pub(super) fn send_singly(&mut self, remote: SocketAddr) {
        let trains = self.trains.iter_mut();
        let affected = trains.filter(|train| train.transmit.remote == remote);
        affected.for_each(|train| train.limit = 1);
    }

    fn front_train(&self) -> Option<&Train> {
        self.trains.get(*self.order.get(self.next.0)?)
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

    /// Whether it may be overtaken by a datagram with this number, of these flows, to the same peer.
    fn lets_pass(&self, flows: Flows, number: usize) -> bool {
        number - self.first < OVERTAKING && !self.flows.may_share_one_with(flows)
    }

    /// How many of its datagrams one message carries.
    fn step(&self, most: u16) -> u16 {
        most.min(self.limit).max(1)
    }

    /// How many of its datagrams have the full length: all, or all but the last.
    fn full(&self) -> u16 {
        let last = self.place(0, self.datagrams.saturating_sub(1), 1);
        self.datagrams - u16::from(last.len() < self.segment)
    }

    /// Where in the arena `count` datagrams lie, or as many as there are.
    fn place(&self, number: usize, first: u16, count: u16) -> std::ops::Range<usize> {
        let at = |datagram: usize| number * STRIDE + (datagram * self.segment).min(self.length);
        let (first, count) = (usize::from(first), usize::from(count));
        at(first)..at(first + count)
    }

    /// What to say of a train that was refused, if its part from this datagram on passes. The path
    /// refuses trains too where its MTU has shrunk, and old kernels say EINVAL then: a short tail that
    /// still fits proves nothing.
    fn blame(&self, datagram: u16) -> Option<Blame> {
        let error = self.refused?;
        let is_full = datagram + self.limit.min(self.full()) <= self.full();
        let was_whole = self.limit > 1 || self.transmit.dont_fragment;
        let proves = error == libc::EIO || error == libc::EINVAL && is_full && was_whole;
        proves.then_some(Blame {
            remote: self.transmit.remote,
            error,
            limit: self.limit,
        })
    }
}

/// The numbers of the trains in a set, the lowest first.
fn numbers_in(mut set: u64) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        let number = NonZeroU64::new(set)?.trailing_zeros();
        set &= set - 1;
        usize::try_from(number).ok()
    })
}

/// Trains in a burst at most, so that a `u64` is a set of them.
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
/// Trains that are looked at for one that a datagram continues: so many peers have one open.
const LOOK_BACK: usize = 16;
/// How far behind a datagram one must be that does not overtake it: half of the smallest replay window
/// in use (RFC 4303 §3.4.3), which leaves the other half to the network.
const OVERTAKING: usize = 16;

#[cfg(test)]
mod tests;
