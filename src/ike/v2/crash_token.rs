//! Crash detection tokens on an IKE SA (RFC 6290 §4): ours for the peer, and the peer's for us.

use crate::crypto::{Secret, constant_time_eq};
use crate::ike::context::Context;
use crate::ike::crash_token;
use crate::wire::ikev2::{NotifyType, PayloadWriter};
use crate::wire::isakmp::IkeSpi;

use super::child::End;
use super::established::Established;
use super::message::Payloads;
use super::tasks::{Pending, Task};
use super::{Core, IkeSa, State};

/// Adds our token for this IKE SA, if we make any.
pub(super) fn announce(core: &Core, payloads: &mut PayloadWriter, cx: &Context) {
    announce_for(core.spis(), core.initiator, payloads, cx);
}

/// The same for an IKE SA that is being made by a rekey.
pub(super) fn announce_for(
    spis: (IkeSpi, IkeSpi),
    initiator: bool,
    payloads: &mut PayloadWriter,
    cx: &Context,
) {
    if let Some(token) = crash_token::make(&cx.settings, spis, initiator) {
        crash_token::add(&token, payloads);
    }
}

/// The peer's token in a protected message.
pub(super) fn of_peer(payloads: &Payloads<'_>) -> Option<Secret> {
    let notify = payloads.notify(NotifyType::QUICK_CRASH_DETECTION)?;
    let fits = LENGTHS.contains(&notify.data.len());
    fits.then(|| Secret::copy_from(notify.data))
}

impl Established {
    /// Keeps the peer's token, in place of an older one (RFC 6290 §4.4).
    pub(super) fn take_crash_token(&mut self, payloads: &Payloads<'_>) {
        self.crash_token = of_peer(payloads).or(self.crash_token.take());
    }

    /// Tells the peer our token for an IKE SA that we have made by a rekey (RFC 6290 §4.3). As responder
    /// we have told it in the answer.
    pub(super) fn tell_crash_token(&mut self, core: &Core, cx: &Context) {
        if core.initiator && cx.settings.crash_secret.is_some() {
            self.push(Task::TellCrashToken);
        }
    }

    pub(super) fn begin_tell_crash_token(
        core: &Core,
        payloads: &mut PayloadWriter,
        cx: &Context,
    ) -> Pending {
        announce(core, payloads, cx);
        Pending::TellCrashToken
    }
}

impl IkeSa {
    /// Whether this is the token that the peer has given us.
    pub(in crate::ike) fn is_crash_token(&self, token: &[u8]) -> bool {
        let kept = self.established().and_then(|sa| sa.crash_token.as_ref());
        kept.is_some_and(|kept| constant_time_eq(kept.as_bytes(), token))
    }

    /// The peer has proven that it has lost this IKE SA: ends it without a word (RFC 6290 §4.5).
    pub(in crate::ike) fn on_peer_crash(&mut self, cx: &mut Context) {
        match std::mem::replace(&mut self.state, State::Gone) {
            State::Established(mut sa) => {
                let end = sa.end_without_peer(&self.core, End::Crashed, cx);
                sa.close(&self.core, end, cx);
            }
            state => self.state = state,
        }
    }
}

/// RFC 6290 §5.
const LENGTHS: std::ops::RangeInclusive<usize> = 16..=128;
