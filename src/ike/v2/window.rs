//! Message IDs and the answer cache (RFC 7296 §2.1 to §2.3), with a window of one.

use std::time::Instant;

use crate::ike::context::Context;
use crate::ike::retransmit::{Overdue, Retransmit};
use crate::ike::{Discard, Path};
use crate::wire::ikev2::PayloadWriter;

use super::fragment::Outgoing;
use super::message::Datagram;
use super::tasks::Pending;

/// Where an IKE SA is in its two sequences of requests.
#[derive(Debug)]
pub(in crate::ike) struct Window {
    next_request: u32,
    expected: u32,
    answered: Option<Answered>,
}

#[derive(Debug)]
struct Answered {
    /// The datagram of the request, or its fragment 1.
    request: Box<[u8]>,
    response: Outgoing,
}

/// How an incoming request relates to the window.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::ike) enum Arrival {
    /// The next one in order.
    Fresh,
    /// A byte for byte repetition of the last one, or of its fragment 1.
    Repeated,
    /// The last one's ID, but other bytes: another fragment of it, or the same message cut in another
    /// way (RFC 7383 §2.6.1).
    Recut,
    /// Anything else.
    Outside,
}

impl Window {
    /// For an SA on which `sent` requests were sent and `received` were answered.
    pub(in crate::ike) fn new(sent: u32, received: u32) -> Self {
        Self {
            next_request: sent,
            expected: received,
            answered: None,
        }
    }

    /// Takes the message ID for a request; `None` when they are used up.
    pub(in crate::ike) fn take_request_id(&mut self) -> Option<u32> {
        let id = self.next_request;
        self.next_request = id.checked_add(1)?;
        Some(id)
    }

    /// Classifies a request by its message ID and bytes.
    pub(in crate::ike) fn classify(&self, datagram: &Datagram<'_>) -> Arrival {
        let id = datagram.header.message_id;
        if id == self.expected {
            return Arrival::Fresh;
        }
        let same = |answered: &Answered| *answered.request == *datagram.bytes;
        match &self.answered {
            Some(answered) if id.checked_add(1) == Some(self.expected) => {
                if same(answered) {
                    Arrival::Repeated
                } else {
                    Arrival::Recut
                }
            }
            _ => Arrival::Outside,
        }
    }

    /// The IDs of our next request and of the next one that is taken.
    pub(super) fn next(&self) -> (u32, u32) {
        (self.next_request, self.expected)
    }

    /// Goes on with these or higher IDs; what was answered before is not repeated any more.
    pub(super) fn raise(&mut self, next_request: u32, expected: u32) {
        self.next_request = self.next_request.max(next_request);
        self.expected = self.expected.max(expected);
        self.answered = None;
    }

    /// Remembers the answer to the request with the expected ID.
    pub(in crate::ike) fn answer(&mut self, request: &[u8], response: Outgoing) {
        self.expected = self.expected.saturating_add(1);
        self.answered = Some(Answered {
            request: request.into(),
            response,
        });
    }

    /// Sends the last answer again.
    pub(in crate::ike) fn repeat(&self, path: Path, cx: &mut Context) {
        cx.discard(Discard::Retransmission);
        if let Some(answered) = &self.answered {
            cx.send(path, &answered.response);
        }
    }
}

/// A request of ours that is unanswered.
pub(super) struct Outstanding {
    pub(super) message_id: u32,
    pub(super) request: Retransmit,
    /// What is in it, if it may have to be sent under another message ID.
    pub(super) payloads: Option<PayloadWriter>,
    /// What the answer is needed for.
    pub(super) pending: Pending,
}

impl Outstanding {
    pub(in crate::ike) fn due(&self) -> Instant {
        self.request.due()
    }

    /// Repeats the request at once, and as often as the first time, on another path.
    pub(in crate::ike) fn start_over(&mut self, path: Path, cx: &mut Context) {
        let now = cx.now;
        self.request.start_over(now, cx.rng());
        cx.send(path, self.request.message());
    }

    /// Repeats the request if it is time. False when the peer is given up.
    pub(in crate::ike) fn poll(&mut self, path: Path, cx: &mut Context) -> bool {
        self.request.repeat(path, cx) != Some(Overdue::GiveUp)
    }
}
