//! IKEV2_MESSAGE_ID_SYNC (RFC 6311) with a peer that is a cluster: a member that takes over does not know
//! for sure which message IDs the member before it has used.
//!
//! ```text
//! member   message ID 0: nonce, M1 = my next request, P1 = the next one I take ─►
//! we       ◄─ message ID 0: nonce, P2 = max(P1, our next request), M2 = M1
//! ```

use crate::ike::Discard;
use crate::ike::context::{Context, Effect};
use crate::wire::ikev2::{MessageIdSync, NotifyType, PayloadWriter};
use crate::wire::isakmp::{ExchangeType, PayloadChain, PayloadType};

use super::Core;
use super::established::Established;
use super::fragment::Outgoing;
use super::message::{Datagram, Payloads, add_notify};
use super::protect::Opened;
use super::tasks::{Pending, Task};

/// What an IKE SA knows of the clusters behind its peer.
#[derive(Debug, Default)]
pub(super) struct Synchronization {
    is_agreed: bool,
    last: Option<Synchronized>,
}

/// The last request that was followed.
#[derive(Debug)]
struct Synchronized {
    /// M1.
    send: u32,
    request: Box<[u8]>,
    response: Outgoing,
}

/// Adds IKEV2_MESSAGE_ID_SYNC_SUPPORTED to a message of IKE_AUTH.
pub(super) fn announce(payloads: &mut PayloadWriter) {
    add_notify(payloads, NotifyType::IKEV2_MESSAGE_ID_SYNC_SUPPORTED, &[]);
}

/// Whether the peer has announced it.
pub(super) fn is_announced(payloads: &Payloads<'_>) -> bool {
    let kind = NotifyType::IKEV2_MESSAGE_ID_SYNC_SUPPORTED;
    payloads.notify(kind).is_some()
}

impl Synchronization {
    /// For an IKE SA in whose IKE_AUTH this came from the peer. We have announced it, or do so with it.
    pub(super) fn negotiate(payloads: &Payloads<'_>) -> Self {
        Self {
            is_agreed: is_announced(payloads),
            last: None,
        }
    }

    /// For the IKE SA that replaces this one, which has no IKE_AUTH of its own.
    pub(super) fn successor(&self) -> Self {
        Self {
            is_agreed: self.is_agreed,
            last: None,
        }
    }

    pub(super) fn is_agreed(&self) -> bool {
        self.is_agreed
    }

    /// Whether M1 is higher than all that the peer has used (RFC 6311 §5.1), and neither value leaves us
    /// without message IDs.
    fn allows(&self, asked: MessageIdSync, expected: u32) -> bool {
        let highest = self.last.as_ref().map(|last| last.send);
        asked.send >= expected
            && highest.is_none_or(|highest| asked.send > highest)
            && asked.send <= HIGHEST
            && asked.receive <= HIGHEST
    }
}

impl Established {
    /// Takes a request that synchronizes message IDs. False if the datagram is something else.
    pub(super) fn synchronize(
        &mut self,
        core: &mut Core,
        datagram: &Datagram<'_>,
        cx: &mut Context,
    ) -> bool {
        let header = &datagram.header;
        let may_be = self.message_id_sync.is_agreed
            && header.message_id == 0
            && header.exchange == ExchangeType::INFORMATIONAL
            && header.next_payload == PayloadType::SK;
        if !may_be {
            return false;
        }
        if let Some(response) = self.repeated_answer(datagram) {
            cx.discard(Discard::Retransmission);
            cx.send(datagram.path, response);
            return true;
        }
        let Some(opened) = self.keys.open(datagram, cx) else {
            return true;
        };
        let kind = NotifyType::IKEV2_MESSAGE_ID_SYNC;
        let payloads = opened.payloads();
        let Some(data) = payloads.ok().and_then(|all| Some(all.notify(kind)?.data)) else {
            return false;
        };
        if self.succession.is_heir() {
            cx.discard(Discard::StaleRequest); // as with any other request: it will be repeated
            cx.effects.push(Effect::Claim { heir: core.id });
            return true;
        }
        let (_, expected) = self.window.next();
        let asked = MessageIdSync::parse(data).ok();
        let asked = asked
            .filter(|asked| is_alone(&opened) && self.message_id_sync.allows(*asked, expected));
        match asked {
            Some(asked) => self.follow(core, datagram, asked, cx),
            None => cx.discard(Discard::BadMessageIdSync),
        }
        true
    }

    /// The answer to the last synchronization, as long as the member has not gone on.
    fn repeated_answer(&self, datagram: &Datagram<'_>) -> Option<&Outgoing> {
        let last = self.message_id_sync.last.as_ref()?;
        let (_, expected) = self.window.next();
        let repeated = *last.request == *datagram.bytes && last.send == expected;
        repeated.then_some(&last.response)
    }

    fn follow(
        &mut self,
        core: &mut Core,
        datagram: &Datagram<'_>,
        asked: MessageIdSync,
        cx: &mut Context,
    ) {
        self.heard(core, datagram, cx);
        self.window.raise(asked.receive, asked.send);
        let (send, receive) = self.window.next();
        let line = format!("peer synchronizes message IDs: ours {send}, its own {receive}");
        core.log(cx, "IKE", line);
        let agreed = MessageIdSync {
            nonce: asked.nonce,
            send,
            receive,
        };
        let mut payloads = PayloadWriter::new();
        let kind = NotifyType::IKEV2_MESSAGE_ID_SYNC;
        add_notify(&mut payloads, kind, &agreed.encode());
        let header = core.header(ExchangeType::INFORMATIONAL, true, 0);
        let response = self.keys.seal(header, payloads, datagram.path);
        cx.send(datagram.path, &response);
        self.message_id_sync.last = Some(Synchronized {
            send: asked.send,
            request: datagram.bytes.into(),
            response,
        });
        self.ask_again(core, cx);
    }

    /// Nobody answers a request that the member before it has got (RFC 6311 §9), so it is asked anew.
    fn ask_again(&mut self, core: &mut Core, cx: &mut Context) {
        let Some(sent) = self.work.outstanding.take() else {
            return;
        };
        if matches!(sent.pending, Pending::TellCrashToken) {
            // It is a secret, of which no copy is kept.
            self.work.queue.push_front(Task::TellCrashToken);
            return self.start_next(core, cx);
        }
        let payloads = sent.payloads.unwrap_or_default();
        self.request(core, payloads, sent.pending, cx);
        let anew = self.work.outstanding.as_mut();
        if let (Some(anew), Some(end)) = (anew, sent.request.end()) {
            anew.request.shorten(end);
        }
    }
}

/// There must be no other payload (RFC 6311 §5.1); the one that may be is not agreed on.
fn is_alone(opened: &Opened) -> bool {
    let (first, text) = opened.inner();
    PayloadChain::new(first, text).count() == 1
}

/// Leaves 2^31 requests to either side.
const HIGHEST: u32 = 1 << 31;
