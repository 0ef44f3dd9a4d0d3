//! Packets that reached a worker which does not own their SA.
//!
//! Datagrams come here rarely, since the sockets steer by SPI: where the kernel has put several SAs of one
//! peer into a train, because it compares addresses and ports only (UDP GRO). The owner opens them before
//! what it has just received itself. It can still overtake those that the other worker has not taken out
//! of its socket yet; the replay window lets them in late. Packets from the TUN come often where
//! all flows of a tunnel share one SA: its owner gets super-packets as a whole, and what one burst has
//! for an owner goes into as few buffers as possible. The buffers come from a pool that all workers
//! share, so nothing is allocated; when pool or ring is exhausted, packets are dropped and counted.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crossbeam::queue::ArrayQueue;
use crossbeam::utils::CachePadded;
use mio::Waker;

use super::pipeline::Carrier;
use crate::io::burst::SLOT_LEN;
use crate::ipsec::{DropReason, WorkerId};
use crate::wire::vnet::VnetHeader;

/// Packets on their way to the owner of their SA, all from the TUN or all from the network.
#[derive(Debug)]
pub struct Stray {
    bytes: Box<[u8]>,
    used: usize,
    parts: Vec<Part>,
    packets: u32,
    /// Number of the worker that gave it.
    giver: usize,
    /// Its packets are this worker's own, and have waited for an SA.
    has_waited: bool,
}

/// What one call had read: a packet, a super-packet or a train.
#[derive(Clone, Copy, Debug)]
struct Part {
    origin: Origin,
    start: usize,
    length: usize,
}

/// Where a stray packet came from.
#[derive(Clone, Copy, Debug)]
pub(super) enum Origin {
    /// Read from the TUN, to be sealed.
    Tun { header: VnetHeader },
    /// Received, to be opened.
    Network {
        carrier: Carrier,
        remote: SocketAddr,
        local: IpAddr,
        tos: u8,
        /// Length of each datagram but the last.
        size: usize,
    },
}

impl Stray {
    fn new() -> Self {
        Self {
            bytes: vec![0; SLOT_LEN].into_boxed_slice(),
            used: 0,
            parts: Vec::with_capacity(PARTS),
            packets: 0,
            giver: 0,
            has_waited: false,
        }
    }

    /// One that carries the packets that a worker held back until they had an SA.
    pub(super) fn waited() -> Self {
        Self {
            has_waited: true,
            ..Self::new()
        }
    }

    /// Whether its packets have waited for an SA.
    pub(super) fn has_waited(&self) -> bool {
        self.has_waited
    }

    /// Whether it came from the TUN.
    pub fn is_outbound(&self) -> bool {
        let first = self.parts.first();
        first.is_some_and(|part| matches!(part.origin, Origin::Tun { .. }))
    }

    /// How many packets it stands for.
    pub(super) fn packets(&self) -> u32 {
        self.packets
    }

    /// Part number `index` of what came from the TUN.
    pub(super) fn outbound_mut(&mut self, index: usize) -> Option<(VnetHeader, &mut [u8])> {
        let part = self.parts.get(index)?;
        let Origin::Tun { header } = part.origin else {
            return None;
        };
        let bytes = self.bytes.get_mut(part.start..part.start + part.length)?;
        Some((header, bytes))
    }

    /// The parts in order.
    pub(super) fn parts_mut(&mut self) -> impl Iterator<Item = (Origin, &mut [u8])> {
        let mut rest = &mut *self.bytes;
        self.parts.iter().filter_map(move |part| {
            let (bytes, behind) = std::mem::take(&mut rest).split_at_mut_checked(part.length)?;
            rest = behind;
            Some((part.origin, bytes))
        })
    }

    /// Appends a copy of what one read from the TUN gave; false if there is no room.
    pub(super) fn push_outbound(&mut self, header: VnetHeader, bytes: &[u8], packets: u32) -> bool {
        self.push(bytes, Origin::Tun { header }, packets)
    }

    /// Appends a copy of `bytes`; false if there is no room.
    fn push(&mut self, bytes: &[u8], origin: Origin, packets: u32) -> bool {
        let end = self.used + bytes.len();
        let Some(room) = self.bytes.get_mut(self.used..end) else {
            return false;
        };
        if self.parts.len() == PARTS {
            return false;
        }
        room.copy_from_slice(bytes);
        self.parts.push(Part {
            origin,
            start: self.used,
            length: bytes.len(),
        });
        self.used = end;
        self.packets += packets;
        true
    }

    pub(super) fn clear(&mut self) {
        self.parts.clear();
        (self.used, self.packets) = (0, 0);
    }
}

/// What waits for one worker. Packets to be opened do not wait behind those to be sealed, which need room
/// in a socket.
#[derive(Debug)]
struct Inbox {
    inbound: ArrayQueue<Box<Stray>>,
    outbound: ArrayQueue<Box<Stray>>,
}

/// The rings between workers and the pool that feeds them.
#[derive(Debug)]
pub(super) struct Rings {
    inboxes: Box<[Inbox]>,
    pool: ArrayQueue<Box<Stray>>,
    /// By giver: strays that were processed and sent.
    done: Box<[CachePadded<AtomicU64>]>,
}

impl Rings {
    pub(super) fn new(workers: usize) -> Self {
        let buffers = workers * (INBOUND_RING + OUTBOUND_RING);
        let pool = ArrayQueue::new(buffers.max(1));
        // A single worker has nobody to hand anything to.
        let wanted = if workers > 1 { buffers } else { 0 };
        for _ in 0..wanted {
            pool.push(Box::new(Stray::new()))
                .expect("the pool was made for this many buffers");
        }
        let inbox = |_| Inbox {
            inbound: ArrayQueue::new(INBOUND_RING),
            outbound: ArrayQueue::new(OUTBOUND_RING),
        };
        let inboxes = (0..workers).map(inbox).collect();
        let done = (0..workers).map(|_| CachePadded::default()).collect();
        Self {
            inboxes,
            pool,
            done,
        }
    }
}

/// One worker's access to the rings.
#[derive(Debug)]
pub(super) struct HandOff {
    rings: Arc<Rings>,
    own: usize,
    /// By owner: what this burst has for it so far.
    open: Box<[Option<Box<Stray>>]>,
    /// Owners that got something since the last wake-up.
    touched: Box<[bool]>,
    wakers: Vec<Arc<Waker>>,
    /// Strays that have reached the ring of their owner.
    strays: u64,
    /// By giver: strays that were processed and are not known to be sent.
    processed: Box<[u64]>,
    /// Packets that have reached the ring of their owner, and that found no room there.
    given: u32,
    lost: u32,
}

/// What became of the packets for other workers since the last time, and how many were woken.
#[derive(Clone, Copy, Debug)]
pub(super) struct HandedOff {
    pub(super) given: u32,
    pub(super) lost: u32,
    pub(super) wakeups: u32,
}

impl HandOff {
    /// `wakers` has one entry per worker, or none where workers are not threads.
    pub(super) fn new(rings: Arc<Rings>, own: WorkerId, wakers: Vec<Arc<Waker>>) -> Self {
        let workers = rings.inboxes.len();
        Self {
            rings,
            own: usize::from(own.0),
            open: (0..workers).map(|_| None).collect(),
            touched: vec![false; workers].into_boxed_slice(),
            wakers,
            strays: 0,
            processed: vec![0; workers].into_boxed_slice(),
            given: 0,
            lost: 0,
        }
    }

    /// Copies what one call had read, which stands for some `packets`, into what the owner gets at the
    /// end of the burst.
    pub(super) fn give(
        &mut self,
        owner: WorkerId,
        bytes: &[u8],
        origin: Origin,
        packets: u32,
    ) -> Result<(), DropReason> {
        let owner = usize::from(owner.0);
        let outbound = matches!(origin, Origin::Tun { .. });
        let open = self.open.get_mut(owner).ok_or(DropReason::HandOffFull)?;
        if let Some(stray) = open
            && stray.is_outbound() == outbound
            && stray.push(bytes, origin, packets)
        {
            return Ok(());
        }
        self.close(owner);
        let mut stray = self.rings.pool.pop().ok_or(DropReason::HandOffFull)?;
        stray.giver = self.own;
        if !stray.push(bytes, origin, packets) {
            self.recycle(stray);
            return Err(DropReason::HandOffFull);
        }
        if let Some(open) = self.open.get_mut(owner) {
            *open = Some(stray);
        }
        Ok(())
    }

    /// Puts what is there for an owner into its ring.
    fn close(&mut self, owner: usize) {
        let Some(stray) = self.open.get_mut(owner).and_then(Option::take) else {
            return;
        };
        let packets = stray.packets;
        let inbox = self.rings.inboxes.get(owner);
        let refused = match inbox {
            Some(inbox) if stray.is_outbound() => inbox.outbound.push(stray).err(),
            Some(inbox) => inbox.inbound.push(stray).err(),
            None => Some(stray),
        };
        if let Some(stray) = refused {
            self.recycle(stray);
            self.lost = self.lost.saturating_add(packets);
            return;
        }
        self.strays += 1;
        self.given = self.given.saturating_add(packets);
        if let Some(touched) = self.touched.get_mut(owner) {
            *touched = true;
        }
    }

    /// What another worker has given to this one to open.
    pub(super) fn take_inbound(&mut self) -> Option<Box<Stray>> {
        self.rings.inboxes.get(self.own)?.inbound.pop()
    }

    /// What another worker has given to this one to seal.
    pub(super) fn take_outbound(&mut self) -> Option<Box<Stray>> {
        self.rings.inboxes.get(self.own)?.outbound.pop()
    }

    /// Whether another worker has given something to this one to open.
    pub(super) fn has_inbound(&self) -> bool {
        let inbox = self.rings.inboxes.get(self.own);
        inbox.is_some_and(|inbox| !inbox.inbound.is_empty())
    }

    /// Whether another worker has given something to this one to seal.
    pub(super) fn has_outbound(&self) -> bool {
        let inbox = self.rings.inboxes.get(self.own);
        inbox.is_some_and(|inbox| !inbox.outbound.is_empty())
    }

    /// Puts a buffer back into the pool.
    fn recycle(&self, mut stray: Box<Stray>) {
        stray.clear();
        // There are no more buffers than places, so none is ever refused.
        let _ = self.rings.pool.push(stray);
    }

    /// Takes a stray back whose packets are in the egress, or gone.
    pub(super) fn finish(&mut self, stray: Box<Stray>) {
        if let Some(processed) = self.processed.get_mut(stray.giver) {
            *processed += 1;
        }
        self.recycle(stray);
    }

    /// The egress is empty: what was processed is on its way.
    pub(super) fn publish(&mut self) {
        for (processed, done) in self.processed.iter_mut().zip(&self.rings.done) {
            if *processed > 0 {
                done.fetch_add(std::mem::take(processed), Ordering::Release);
            }
        }
    }

    /// Whether another worker still has something of this one's to send.
    pub(super) fn is_owed(&self) -> bool {
        let done = self.rings.done.get(self.own);
        self.open.iter().any(Option::is_some)
            || done.is_some_and(|done| done.load(Ordering::Acquire) != self.strays)
    }

    /// Gives what the burst has for other workers and wakes them.
    pub(super) fn flush(&mut self) -> HandedOff {
        for owner in 0..self.open.len() {
            self.close(owner);
        }
        let mut wakeups = 0;
        for (touched, waker) in self.touched.iter_mut().zip(&self.wakers) {
            if std::mem::take(touched) {
                // A failed wake-up only means that the owner is awake or gone.
                let _ = waker.wake();
                wakeups += 1;
            }
        }
        HandedOff {
            given: std::mem::take(&mut self.given),
            lost: std::mem::take(&mut self.lost),
            wakeups,
        }
    }
}

/// Strays of 64 KiB waiting for one worker at most: those from the network are rare.
const INBOUND_RING: usize = 16;
const OUTBOUND_RING: usize = 48;
/// Reads that share a stray at most.
pub(super) const PARTS: usize = 64;
