//! Inbound ESP SAs that outlive their Child SA for a moment.

use std::collections::VecDeque;
use std::time::Instant;

use crate::ike::context::Context;
use crate::ipsec::{Spi, WorkerId};

/// Replaced inbound SAs of one IKE SA, in order of their end: what the peer has sent on them before may
/// still arrive.
#[derive(Default)]
pub(super) struct Lingering(VecDeque<Inbound>);

struct Inbound {
    until: Instant,
    spi: Spi,
    owner: WorkerId,
}

impl Lingering {
    /// Removes an inbound SA after its successor has long taken over. Only so many linger, and the
    /// oldest goes first, or a peer that replaces them in a loop would fill the memory.
    pub(super) fn add(&mut self, spi: Spi, owner: WorkerId, cx: &mut Context) {
        if self.0.len() >= cx.settings.children_per_ike
            && let Some(oldest) = self.0.pop_front()
        {
            cx.remove_inbound(oldest.spi, oldest.owner);
        }
        let until = cx.now + cx.settings.inbound_linger;
        self.0.push_back(Inbound { until, spi, owner });
    }

    /// Ends what is over.
    pub(super) fn poll(&mut self, cx: &mut Context) {
        while self.deadline().is_some_and(|until| until <= cx.now)
            && let Some(first) = self.0.pop_front()
        {
            cx.remove_inbound(first.spi, first.owner);
        }
    }

    /// Ends all of them.
    pub(super) fn end(self, cx: &mut Context) {
        for Inbound { spi, owner, .. } in self.0 {
            cx.remove_inbound(spi, owner);
        }
    }

    /// What lingers of a replaced IKE SA is its successor's.
    pub(super) fn inherit(&mut self, older: Self) {
        let newer = std::mem::replace(self, older);
        self.0.extend(newer.0);
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        self.0.front().map(|first| first.until)
    }
}
