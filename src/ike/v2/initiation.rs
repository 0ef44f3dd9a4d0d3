//! What the states of an initiator have in common, from its first request to the established IKE SA.

use crate::ike::context::{Attempt, Cause, Context};
use crate::ike::retransmit::Retransmit;

use super::Core;
use super::child::End;
use super::init::fail;

/// An IKE SA that we set up: what it is for, and our request that is unanswered.
pub(super) struct Initiation {
    pub(super) attempt: Attempt,
    pub(super) message_id: u32,
    pub(super) request: Retransmit,
}

impl Initiation {
    /// Of an attempt whose first request was sent.
    pub(super) fn first(attempt: Attempt, request: Retransmit) -> Self {
        Self {
            attempt,
            message_id: 0,
            request,
        }
    }

    /// Message ID of the request that follows.
    pub(super) fn next_id(&self) -> u32 {
        self.message_id.saturating_add(1)
    }

    /// Gives up. For the peer it is not an SA yet.
    pub(super) fn abandon(self, core: &Core, end: &End, cx: &mut Context) {
        fail(core, self.attempt, end.to_string(), Cause::Cancelled, cx);
    }
}
