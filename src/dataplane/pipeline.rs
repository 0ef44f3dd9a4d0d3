//! The packet path, top to bottom.
//!
//! A worker owns its queues, its share of the SAD and a copy of the SPD. Nothing here is shared, so
//! nothing here locks, allocates or logs. Nothing here owns a socket either: bytes go in and come
//! out, so tests, benchmarks and fuzzers drive the same code as the workers.
//!
//! ```text
//! outbound  TUN ─► policy ─► outbound SA ─► MTU, MSS ─► seal ─► egress        RFC 4301 §5.1
//! inbound   socket ─► demux ─► inbound SA ─► open ─► MSS ─► TUN               RFC 4301 §5.2
//! ```
//!
//! A packet moves on, is dropped under a [`DropReason`], is handed to the worker that owns its SA,
//! or is punted to the control thread.

mod fit;
mod inbound;
mod outbound;
mod seal;

use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam::queue::ArrayQueue;

use inbound::MayGive;
use outbound::Finder;
pub use outbound::{Outbound, Rest};

use super::databases::Settling;
use super::egress::Egress;
use super::events::EventSender;
use super::hand_off::{HandOff, Origin, Stray};
use super::limits::{Acquires, TokenBucket};
use super::path_mtus::PathMtus;
use super::stats::WorkerStats;
use super::waiting::Waiting;
use crate::io::burst::{Received, SLOT_LEN};
use crate::ipsec::{DropReason, Reqid, SaEvent, Sad, Spd, Template, WorkerId};
use crate::wire::ip::{self, Flow};

/// What a received packet came in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Carrier {
    /// UDP to this port of ours: ESP, IKE or a keepalive (RFC 3948).
    Udp {
        /// Our port.
        port: u16,
    },
    /// IP protocol 50.
    Raw,
}

/// The packet path of one worker.
#[derive(Debug)]
pub struct Pipeline {
    pub(super) worker: WorkerId,
    pub(super) workers: std::num::NonZeroU16,
    pub(super) sad: Sad,
    pub(super) spd: Arc<Spd>,
    /// What the SPD said about the previous packet; a run of one flow asks it once.
    pub(super) run: Option<(Flow, Verdict)>,
    pub(super) acquires: Acquires,
    pub(super) too_big: TokenBucket,
    pub(super) path_mtus: PathMtus,
    pub(super) stats: Arc<WorkerStats>,
    pub(super) events: EventSender,
    pub(super) hand_off: HandOff,
    pub(super) waiting: Waiting,
    pub(super) settling: Settling,
    pub(super) reply: Box<[u8]>,
    pub(super) fragment: Box<[u8]>,
}

/// What the SPD says about a flow, without borrowing from it.
#[derive(Clone, Copy, Debug)]
pub(super) enum Verdict {
    Protect(Template),
    Drop(DropReason),
}

/// Why a packet does not go on to the next step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stop {
    Drop(DropReason),
    Elsewhere(WorkerId),
    /// It waits for an SA of this reqid.
    Wait(Reqid),
    Punt,
    /// Too big; the sender is to be told this MTU.
    Reply(u16),
}

impl From<DropReason> for Stop {
    fn from(reason: DropReason) -> Self {
        Self::Drop(reason)
    }
}

impl Pipeline {
    fn give(&mut self, owner: WorkerId, bytes: &[u8], origin: Origin, packets: usize) {
        let packets = u32::try_from(packets).unwrap_or(u32::MAX);
        if let Err(reason) = self.hand_off.give(owner, bytes, origin, packets) {
            self.stats.dropped_many(reason, packets);
        }
    }

    /// What has waited for an SA that is there, or what another worker has handed to this one to seal,
    /// oldest first. It goes through [`Self::outbound_stray`], part by part, and then to [`Self::recycle`].
    pub fn next_outbound_stray(&mut self) -> Option<Box<Stray>> {
        if let Some(released) = self.waiting.take() {
            return Some(released);
        }
        let stray = self.hand_off.take_outbound()?;
        self.stats.taken_over.add(u64::from(stray.packets()));
        Some(stray)
    }

    /// What another worker has handed to this one to open, oldest first. It goes through
    /// [`Self::inbound_stray`] and then to [`Self::recycle`].
    pub fn next_inbound_stray(&mut self) -> Option<Box<Stray>> {
        let stray = self.hand_off.take_inbound()?;
        self.stats.taken_over.add(u64::from(stray.packets()));
        Some(stray)
    }

    /// Takes part number `index` of a stray from a TUN to the egress; `None` if there is no such part.
    ///
    /// A packet is handed on at most once: if its SA is not here either, it is dropped.
    pub fn outbound_stray(
        &mut self,
        now: Instant,
        stray: &mut Stray,
        index: usize,
        egress: &mut Egress,
    ) -> Option<Outbound<'_>> {
        let finder = if stray.has_waited() {
            Finder::Waiting
        } else {
            Finder::Other
        };
        let (header, packet) = stray.outbound_mut(index)?;
        Some(self.outbound_of(finder, now, &header, packet, egress))
    }

    /// Goes on with part number `index` of a stray; see [`Self::resume`].
    pub fn resume_stray(
        &mut self,
        now: Instant,
        rest: Rest,
        (stray, index): (&mut Stray, usize),
        egress: &mut Egress,
    ) -> Outbound<'_> {
        match stray.outbound_mut(index) {
            Some((_, packet)) => self.resume(now, rest, packet, egress),
            None => Outbound::Done,
        }
    }

    /// Takes a stray from the network through the tunnel, like [`Self::inbound_train`].
    ///
    /// A packet is handed on at most once: if its SA is not here either, it is dropped.
    pub fn inbound_stray<'a>(
        &mut self,
        stray: &'a mut Stray,
        room: &mut &'a mut [u8],
        mut deliver: impl FnMut(&'a mut [u8]),
    ) {
        for (origin, bytes) in stray.parts_mut() {
            let Origin::Network {
                carrier,
                remote,
                local,
                tos,
                size,
            } = origin
            else {
                continue;
            };
            let received = Received {
                bytes,
                remote,
                local,
                tos,
                segment_size: u16::try_from(size).ok(),
            };
            self.open_train(carrier, received, room, MayGive::No, &mut deliver);
        }
    }

    /// Takes a stray back whose packets are in the egress, or gone.
    pub fn recycle(&mut self, mut stray: Box<Stray>) {
        if stray.has_waited() {
            stray.clear();
            self.waiting.take_back(stray);
        } else {
            self.hand_off.finish(stray);
        }
    }

    /// To be called when the egress is empty: no packet that another worker gave waits here any more.
    pub fn has_sent(&mut self) {
        self.hand_off.publish();
    }

    /// Ends a burst: gives other workers what is theirs, and wakes whoever was given something.
    pub fn finish(&mut self) {
        let done = self.hand_off.flush();
        self.stats.handed_off.add(u64::from(done.given));
        self.stats.dropped_many(DropReason::HandOffFull, done.lost);
        let signalled = self.events.flush();
        let wakeups = u64::from(done.wakeups) + u64::from(signalled);
        self.stats.calls.add(wakeups);
    }

    /// Whether packets wait for [`Self::next_outbound_stray`].
    pub(super) fn has_outbound_strays(&self) -> bool {
        self.has_released() || self.hand_off.has_outbound()
    }

    /// Whether there is an SA for packets that waited for one, so that nothing is read that could overtake
    /// them.
    pub(super) fn has_released(&self) -> bool {
        self.waiting.is_ready()
    }

    /// Whether packets wait for an SA.
    pub(super) fn has_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Drops what has waited too long for an SA. To be called every turn.
    pub fn expire(&mut self, now: Instant) {
        if self.has_waiting() {
            let lost = self.waiting.expire(now);
            self.stats.dropped_many(DropReason::NoOutboundSa, lost);
        }
    }

    /// Whether packets of other workers wait for [`Self::next_inbound_stray`].
    pub(super) fn has_inbound_strays(&self) -> bool {
        self.hand_off.has_inbound()
    }

    /// Lets the control thread look at the end of the burst, whether or not there are events.
    pub(super) fn signal(&mut self) {
        self.events.signal();
    }

    /// Whether events wait for which the control thread has no room.
    pub(super) fn is_behind(&self) -> bool {
        self.events.is_behind()
    }

    /// Where events go, for whoever plays the control thread.
    pub fn event_ring(&self) -> Arc<ArrayQueue<SaEvent>> {
        self.events.ring()
    }

    /// Where this pipeline counts.
    pub fn stats(&self) -> &Arc<WorkerStats> {
        &self.stats
    }
}

pub(super) fn too_big_limit() -> TokenBucket {
    TokenBucket::new(100, Duration::from_millis(1))
}

pub(super) const REPLY_LEN: usize = ip::MAX_TOO_BIG;
pub(super) const FRAGMENT_LEN: usize = SLOT_LEN;
