//! The SAs of one worker (RFC 4301 §4.4.2).

use std::collections::HashMap;
use std::sync::Arc;

use smallvec::SmallVec;

use super::hash::KeyHash;
use super::{ChildId, EspPath, InboundSa, OutboundSa, Reqid, Selectors, Spi, WorkerId};
use crate::wire::ip::Flow;

/// The SAs of one worker, and where the others' outbound SAs are.
///
/// Look-ups neither allocate nor free. An SA that leaves is given back, so that its keys are freed
/// and zeroized elsewhere.
#[derive(Debug, Default)]
pub struct Sad {
    inbound: HashMap<u32, Box<InboundSa>, KeyHash>,
    /// The SAs of a reqid, newest first. Mostly there is one, and the table itself says where it is.
    outbound: HashMap<u32, SmallVec<[Slot; 1]>, KeyHash>,
}

#[derive(Debug)]
enum Slot {
    Owned(Box<OutboundSa>),
    Elsewhere {
        child: ChildId,
        owner: WorkerId,
        selectors: Arc<Selectors>,
        per_worker: bool,
    },
}

/// Who carries a flow.
#[derive(Debug)]
pub enum OutboundEntry<'a> {
    /// This worker.
    Owned(&'a mut OutboundSa),
    /// Another worker.
    Elsewhere {
        /// Who that is.
        owner: WorkerId,
        /// The peer lets every worker have an SA of its own (RFC 9611), so this one may ask for it.
        per_worker: bool,
    },
    /// Nobody yet.
    None,
}

impl Sad {
    /// An empty database with room for `children` Child SAs before it has to grow.
    #[must_use]
    pub fn with_capacity(children: usize) -> Self {
        Self {
            inbound: HashMap::with_capacity_and_hasher(children, KeyHash::default()),
            outbound: HashMap::with_capacity_and_hasher(children, KeyHash::default()),
        }
    }

    /// Adds an inbound SA. Gives back one that had the same SPI.
    #[must_use = "freeing an SA does not belong on the packet path"]
    pub fn add_inbound(&mut self, sa: Box<InboundSa>) -> Option<Box<InboundSa>> {
        self.inbound.insert(sa.spi().get(), sa)
    }

    /// The SA that opens packets with this SPI.
    pub fn inbound_mut(&mut self, spi: u32) -> Option<&mut InboundSa> {
        self.inbound.get_mut(&spi).map(Box::as_mut)
    }

    /// Reads from the SAs of ESP packets that are about to be opened. Where each has another SA, these
    /// then come from memory together, rather than one after the other while everything waits.
    pub fn look_ahead<'a>(&self, packets: impl Iterator<Item = &'a [u8]>) {
        let mut last = None;
        for packet in packets {
            let spi = packet.first_chunk();
            if spi != last
                && let Some(spi) = spi
                && let Some(sa) = self.inbound.get(&u32::from_be_bytes(*spi))
            {
                sa.touch();
            }
            last = spi;
        }
    }

    /// Takes an inbound SA out.
    #[must_use = "freeing an SA does not belong on the packet path"]
    pub fn remove_inbound(&mut self, spi: Spi) -> Option<Box<InboundSa>> {
        self.inbound.remove(&spi.get())
    }

    /// Makes this the first choice of its reqid. Gives back an older half of the same Child SA.
    #[must_use = "freeing an SA does not belong on the packet path"]
    pub fn switch_outbound(&mut self, sa: Box<OutboundSa>) -> Option<Box<OutboundSa>> {
        let (child, reqid) = (sa.child(), sa.reqid());
        let replaced = self.remove_outbound(child, reqid);
        self.outbound
            .entry(reqid.0)
            .or_default()
            .insert(0, Slot::Owned(sa));
        replaced
    }

    /// Takes note that another worker has the new first choice of a reqid. Gives back this worker's
    /// own half of the same Child SA.
    #[must_use = "freeing an SA does not belong on the packet path"]
    pub fn note_elsewhere(
        &mut self,
        child: ChildId,
        reqid: Reqid,
        owner: WorkerId,
        selectors: Arc<Selectors>,
        per_worker: bool,
    ) -> Option<Box<OutboundSa>> {
        let replaced = self.remove_outbound(child, reqid);
        let slots = self.outbound.entry(reqid.0).or_default();
        slots.insert(
            0,
            Slot::Elsewhere {
                child,
                owner,
                selectors,
                per_worker,
            },
        );
        replaced
    }

    /// Takes an outbound SA out, or forgets who has it.
    #[must_use = "freeing an SA does not belong on the packet path"]
    pub fn remove_outbound(&mut self, child: ChildId, reqid: Reqid) -> Option<Box<OutboundSa>> {
        let slots = self.outbound.get_mut(&reqid.0)?;
        let position = slots.iter().position(|slot| slot.child() == child)?;
        let slot = slots.remove(position);
        slots.shrink_to_fit();
        if slots.is_empty() {
            self.outbound.remove(&reqid.0);
        }
        match slot {
            Slot::Owned(sa) => Some(sa),
            Slot::Elsewhere { .. } => None,
        }
    }

    /// Sends an SA's packets on another path. False if this worker does not have it.
    pub fn move_outbound(
        &mut self,
        child: ChildId,
        reqid: Reqid,
        path: EspPath,
        path_mtu: u16,
    ) -> bool {
        let Some(sa) = self.owned_mut(reqid).find(|sa| sa.child() == child) else {
            return false;
        };
        sa.set_path(path);
        sa.set_path_mtu(path_mtu);
        true
    }

    /// The newest SA of a reqid whose selectors cover the flow. Where the peer lets every worker have
    /// one of its own, the newest of this worker's own comes before newer ones of others.
    pub fn outbound(&mut self, reqid: Reqid, flow: &Flow) -> OutboundEntry<'_> {
        let mut elsewhere = None;
        for slot in self.outbound.get_mut(&reqid.0).into_iter().flatten() {
            match slot {
                Slot::Owned(sa) => {
                    if sa.admits(flow) {
                        match elsewhere {
                            Some((_, false)) => break,
                            Some((_, true)) if !sa.is_per_worker() => break,
                            Some((_, true)) | None => return OutboundEntry::Owned(sa),
                        }
                    }
                }
                Slot::Elsewhere {
                    owner,
                    selectors,
                    per_worker,
                    ..
                } if elsewhere.is_none() && selectors.admits_outbound(flow) => {
                    elsewhere = Some((*owner, *per_worker));
                }
                Slot::Elsewhere { .. } => {}
            }
        }
        elsewhere.map_or(OutboundEntry::None, |(owner, per_worker)| {
            OutboundEntry::Elsewhere { owner, per_worker }
        })
    }

    /// The newest of this worker's own SAs of a reqid whose selectors cover the flow.
    pub fn owned_outbound(&mut self, reqid: Reqid, flow: &Flow) -> Option<&mut OutboundSa> {
        self.owned_mut(reqid)
            .find_map(|sa| sa.admits(flow).then_some(sa))
    }

    fn owned_mut(&mut self, reqid: Reqid) -> impl Iterator<Item = &mut OutboundSa> {
        let slots = self.outbound.get_mut(&reqid.0).into_iter().flatten();
        slots.filter_map(Slot::owned_mut)
    }
}

impl Slot {
    fn child(&self) -> ChildId {
        match self {
            Self::Owned(sa) => sa.child(),
            Self::Elsewhere { child, .. } => *child,
        }
    }

    fn owned_mut(&mut self) -> Option<&mut OutboundSa> {
        match self {
            Self::Owned(sa) => Some(sa),
            Self::Elsewhere { .. } => None,
        }
    }
}
