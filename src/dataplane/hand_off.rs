//! Packets that reached a worker which does not own their SA.
//!
//! Rare by construction: the sockets steer by SPI. Buffers come from a pool that all workers share,
//! so nothing is allocated; when pool or ring is exhausted, the packet is dropped and counted.

use std::net::SocketAddr;
use std::sync::Arc;

use crossbeam::queue::ArrayQueue;
use mio::Waker;

use super::pipeline::Carrier;
use crate::io::burst::SLOT_LEN;
use crate::ipsec::{DropReason, WorkerId};

/// A packet on its way to the owner of its SA.
#[derive(Debug)]
pub(super) struct Stray {
    bytes: Box<[u8]>,
    length: usize,
    pub(super) origin: Origin,
}

/// Where a stray packet came from.
#[derive(Clone, Copy, Debug)]
pub(super) enum Origin {
    /// Read from the TUN, to be sealed.
    Tun,
    /// Received, to be opened.
    Network {
        carrier: Carrier,
        remote: SocketAddr,
        tos: u8,
    },
}

impl Stray {
    pub(super) fn bytes_mut(&mut self) -> &mut [u8] {
        self.bytes.get_mut(..self.length).unwrap_or_default()
    }
}

/// The rings between workers and the pool that feeds them.
#[derive(Debug)]
pub(super) struct Rings {
    inboxes: Box<[ArrayQueue<Box<Stray>>]>,
    pool: ArrayQueue<Box<Stray>>,
}

impl Rings {
    pub(super) fn new(workers: usize) -> Self {
        let buffers = workers * RING_LEN;
        let pool = ArrayQueue::new(buffers.max(1));
        // A single worker has nobody to hand anything to.
        let wanted = if workers > 1 { buffers } else { 0 };
        for _ in 0..wanted {
            let stray = Box::new(Stray {
                bytes: vec![0; SLOT_LEN].into_boxed_slice(),
                length: 0,
                origin: Origin::Tun,
            });
            pool.push(stray)
                .expect("the pool was made for this many buffers");
        }
        let inboxes = (0..workers).map(|_| ArrayQueue::new(RING_LEN)).collect();
        Self { inboxes, pool }
    }
}

/// One worker's access to the rings.
#[derive(Debug)]
pub(super) struct HandOff {
    rings: Arc<Rings>,
    own: usize,
    /// Owners that got something since the last wake-up.
    touched: Box<[bool]>,
    wakers: Vec<Arc<Waker>>,
}

impl HandOff {
    /// `wakers` has one entry per worker, or none where workers are not threads.
    pub(super) fn new(rings: Arc<Rings>, own: WorkerId, wakers: Vec<Arc<Waker>>) -> Self {
        let touched = vec![false; rings.inboxes.len()].into_boxed_slice();
        Self {
            rings,
            own: usize::from(own.0),
            touched,
            wakers,
        }
    }

    /// Copies a packet into the ring of its owner.
    pub(super) fn give(
        &mut self,
        owner: WorkerId,
        packet: &[u8],
        origin: Origin,
    ) -> Result<(), DropReason> {
        let owner = usize::from(owner.0);
        let inbox = self.rings.inboxes.get(owner);
        let inbox = inbox.ok_or(DropReason::HandOffFull)?;
        let mut stray = self.rings.pool.pop().ok_or(DropReason::HandOffFull)?;
        stray.origin = origin;
        stray.length = packet.len();
        let given = match stray.bytes.get_mut(..packet.len()) {
            Some(bytes) => {
                bytes.copy_from_slice(packet);
                inbox.push(stray)
            }
            None => Err(stray),
        };
        if let Err(stray) = given {
            self.recycle(stray);
            return Err(DropReason::HandOffFull);
        }
        if let Some(touched) = self.touched.get_mut(owner) {
            *touched = true;
        }
        Ok(())
    }

    /// The next packet that another worker has given to this one.
    pub(super) fn take(&mut self) -> Option<Box<Stray>> {
        self.rings.inboxes.get(self.own)?.pop()
    }

    /// Whether another worker has given something to this one.
    pub(super) fn is_waiting(&self) -> bool {
        let inbox = self.rings.inboxes.get(self.own);
        inbox.is_some_and(|inbox| !inbox.is_empty())
    }

    /// Puts a buffer back into the pool.
    pub(super) fn recycle(&self, stray: Box<Stray>) {
        // There are no more buffers than places, so none is ever refused.
        let _ = self.rings.pool.push(stray);
    }

    /// Wakes the owners of what was given away, once per burst.
    pub(super) fn wake_owners(&mut self) {
        for (touched, waker) in self.touched.iter_mut().zip(&self.wakers) {
            if std::mem::take(touched) {
                // A failed wake-up only means that the owner is awake or gone.
                let _ = waker.wake();
            }
        }
    }
}

/// Strays waiting for one worker at most.
const RING_LEN: usize = 128;
