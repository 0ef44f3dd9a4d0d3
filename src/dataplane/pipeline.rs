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

use super::egress::Egress;
use super::events::EventSender;
use super::hand_off::{HandOff, Origin};
use super::limits::{Acquires, PathMtus, TokenBucket};
use super::stats::WorkerStats;
use crate::io::burst::SLOT_LEN;
use crate::ipsec::{DropReason, Reqid, SaEvent, Sad, Spd, WorkerId};
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
    pub(super) reply: Box<[u8]>,
    pub(super) fragment: Box<[u8]>,
}

/// What the SPD says about a flow, without borrowing from it.
#[derive(Clone, Copy, Debug)]
pub(super) enum Verdict {
    Protect(Reqid),
    Drop(DropReason),
}

/// Who read an outbound packet and chose the worker for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Finder {
    /// This worker.
    Worker,
    /// Another one, which may not have heard of a rekey yet: any SA of ours will do.
    Other,
}

/// Why a packet does not go on to the next step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stop {
    Drop(DropReason),
    Elsewhere(WorkerId),
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
    fn give(&mut self, owner: WorkerId, packet: &[u8], origin: Origin) {
        match self.hand_off.give(owner, packet, origin) {
            Ok(()) => self.stats.handed_off.add(1),
            Err(reason) => self.stats.dropped(reason),
        }
    }

    /// Processes one packet that another worker has handed to this one; false if there is none.
    ///
    /// `write` gets what is to be written to the TUN. A packet is handed on at most once: if its SA
    /// is not here either, it is dropped.
    pub fn take_over(
        &mut self,
        now: Instant,
        egress: &mut Egress,
        mut write: impl FnMut(&[u8]),
    ) -> bool {
        let Some(mut stray) = self.hand_off.take() else {
            return false;
        };
        self.stats.taken_over.add(1);
        match stray.origin {
            Origin::Tun => {
                let done = self.outbound_one(now, stray.bytes_mut(), egress, Finder::Other);
                let reply = done
                    .err()
                    .and_then(|stop| self.stop_outbound(now, stray.bytes_mut(), stop));
                if let Some(reply) = reply {
                    write(reply);
                }
            }
            Origin::Network {
                carrier,
                remote,
                tos,
            } => match self.find_inbound(carrier, stray.bytes_mut()) {
                Ok(spi) => {
                    if let Some(inner) = self.open(spi, carrier, stray.bytes_mut(), remote, tos) {
                        write(inner);
                    }
                }
                Err(Stop::Drop(reason)) => self.stats.dropped(reason),
                Err(_) => self.stats.dropped(DropReason::UnknownSpi),
            },
        }
        self.hand_off.recycle(stray);
        true
    }

    /// Ends a burst: wakes whoever was given something.
    pub fn finish(&mut self) {
        self.hand_off.wake_owners();
        self.events.flush();
    }

    /// Whether packets of other workers wait for [`Self::take_over`].
    pub(super) fn has_strays(&self) -> bool {
        self.hand_off.is_waiting()
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
