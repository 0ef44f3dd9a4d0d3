//! How long an authentication is good for (RFC 4478): the responder says it, and deletes the IKE SA
//! some time later; the initiator authenticates anew before.

use std::time::Duration;

use crate::ike::context::Context;
use crate::ike::pad::Connection;
use crate::ike::session::Session;
use crate::wire::ikev2::{NotifyType, PayloadWriter};

use super::Core;
use super::child::early;
use super::established::Established;
use super::message::{Payloads, add_notify};

/// Adds AUTH_LIFETIME in seconds to the last answer of IKE_AUTH, where the configuration has one: what is
/// left of it, if the authentication is older than the IKE SA.
pub(super) fn add_auth_lifetime(
    connection: &Connection,
    resumed: Option<&Session>,
    response: &mut PayloadWriter,
    cx: &Context,
) {
    if connection.reauth_time.is_zero() {
        return;
    }
    let unproven_at = resumed.and_then(|session| session.unproven_at);
    let left = unproven_at.map(|end| {
        let left = end.saturating_duration_since(cx.now);
        left.saturating_sub(connection.over_time)
    });
    let lifetime = left.map_or(connection.reauth_time, |left| {
        left.min(connection.reauth_time)
    });
    let seconds = lifetime.as_secs();
    let seconds = u32::try_from(seconds).unwrap_or(u32::MAX);
    add_notify(response, NotifyType::AUTH_LIFETIME, &seconds.to_be_bytes());
}

impl Established {
    /// Makes sure to authenticate anew before the time that the peer has set.
    pub(super) fn take_auth_lifetime(
        &mut self,
        core: &Core,
        payloads: &Payloads<'_>,
        cx: &mut Context,
    ) {
        let notify = payloads.notify(NotifyType::AUTH_LIFETIME);
        let Some(seconds) = notify.and_then(|notify| <[u8; 4]>::try_from(notify.data).ok()) else {
            return;
        };
        let seconds = u32::from_be_bytes(seconds);
        let lifetime = Duration::from_secs(seconds.into()).max(SHORTEST);
        let line = format!("peer wants a new authentication within {seconds} s");
        core.log(cx, "IKE", line);
        let at = early(lifetime - lifetime / 10, lifetime / 10, cx);
        let clock = &mut self.clock;
        clock.reauth_at = clock.reauth_at.into_iter().chain(at).min();
    }
}

/// A peer does not make us start anew more often than this.
const SHORTEST: Duration = Duration::from_secs(5);
