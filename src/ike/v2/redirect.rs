//! REDIRECT on one IKE SA (RFC 5685): ours to the peer, and the peer's to us.

use std::time::{Duration, Instant};

use crate::ike::context::{Attempt, Cause, Context, Effect};
use crate::ike::redirect::Detour;
use crate::ike::{AlertKind, Discard};
use crate::wire::ikev2::{Gateway, NotifyType, PayloadWriter};

use super::child::End;
use super::established::Established;
use super::init::fail;
use super::message::{Payloads, add_notify};
use super::tasks::{Pending, Task};
use super::{Core, State};

/// Who may send whom away, and how far that is.
#[derive(Clone, Debug)]
pub(super) struct Redirection {
    /// We began the IKE SA, whoever has rekeyed it: only the other side may redirect (RFC 5685 §10).
    began: bool,
    /// The peer goes where it is sent to.
    pub(super) is_supported: bool,
    /// How we came to this peer.
    pub(super) detour: Detour,
    /// The peer was sent away and should be gone by then.
    leave_at: Option<Instant>,
}

impl Redirection {
    pub(super) fn new(core: &Core) -> Self {
        Self {
            began: core.initiator,
            is_supported: false,
            detour: Detour::default(),
            leave_at: None,
        }
    }

    /// Whether we set up the IKE SA, or the one that a rekey has made it of.
    pub(super) fn we_began(&self) -> bool {
        self.began
    }

    /// The peer has been told where to go, and has some time for it.
    pub(super) fn expect_leave(&mut self, now: Instant) {
        self.leave_at = Some(now + TIME_TO_LEAVE);
    }

    pub(super) fn is_leaving(&self) -> bool {
        self.leave_at.is_some()
    }

    pub(super) fn stop_clock(&mut self) {
        self.leave_at = None;
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        self.leave_at
    }
}

/// Says in IKE_SA_INIT that we go where we are sent to, or where we come from. Whom a redirect has led
/// nowhere says nothing, for the configured gateway to serve it.
pub(super) fn announce(core: &Core, detour: &Detour, payloads: &mut PayloadWriter) {
    let connection = core.connection.as_ref();
    if !connection.is_some_and(|connection| connection.follow_redirects) {
        return;
    }
    match detour.from() {
        Some(from) => {
            let from = Gateway::Address(from).encode(&[]);
            add_notify(payloads, NotifyType::REDIRECTED_FROM, &from);
        }
        None if detour.has_failed() => {}
        None => add_notify(payloads, NotifyType::REDIRECT_SUPPORTED, &[]),
    }
}

/// The gateway of a REDIRECT, if it is well-formed and has this nonce behind it.
pub(super) fn gateway(payloads: &Payloads<'_>, nonce: &[u8]) -> Option<Result<Gateway, Discard>> {
    let notify = payloads.notify(NotifyType::REDIRECT)?;
    Some(match Gateway::parse(notify.data) {
        Ok((gateway, found)) if found == nonce => Ok(gateway),
        Ok(_) => Err(Discard::Unauthenticated),
        Err(_) => Err(Discard::BadPayload),
    })
}

/// Adds a REDIRECT that is protected.
pub(super) fn add(gateway: &Gateway, payloads: &mut PayloadWriter) {
    add_notify(payloads, NotifyType::REDIRECT, &gateway.encode(&[]));
}

/// Goes on with an attempt elsewhere.
pub(super) fn go(
    core: &Core,
    attempt: Attempt,
    gateway: &Gateway,
    detour: Detour,
    cx: &mut Context,
) -> State {
    log_follow(core, gateway, cx);
    cx.effects
        .push(Effect::Connect(Attempt { detour, ..attempt }));
    State::Gone
}

/// What the peer has proven to say in IKE_AUTH: there will be no IKE SA here.
pub(super) fn leave(core: &Core, attempt: Attempt, gateway: &Gateway, cx: &mut Context) -> State {
    match attempt.detour.follow(gateway, core.path, cx) {
        Ok(detour) => go(core, attempt, gateway, detour, cx),
        Err(why) => {
            let reason = format!("redirected to {gateway}: {why}");
            fail(core, attempt, reason, Cause::Refusal(AlertKind::Ike), cx)
        }
    }
}

fn log_follow(core: &Core, gateway: &Gateway, cx: &mut Context) {
    let line = format!("{} redirects us to {gateway}", core.path.remote);
    core.log(cx, "IKE", line);
}

pub(super) fn refuse(core: &Core, gateway: &Gateway, why: &str, cx: &mut Context) {
    cx.discard(Discard::BadRedirect);
    let line = format!("not redirected to {gateway}: {why}");
    core.warn(cx, "IKE", line);
}

impl Established {
    /// Asks the peer to go to another gateway; false if it cannot be asked.
    pub(in crate::ike) fn queue_redirect(&mut self, gateway: &Gateway, core: &Core) -> bool {
        let redirection = &self.redirection;
        let is_here = *gateway == Gateway::Address(core.path.local.ip());
        if is_here || redirection.began || !redirection.is_supported || !self.is_usable() {
            return false;
        }
        self.push(Task::Redirect(gateway.clone()));
        true
    }

    /// Sends an initiator away that has proven who it is; there is no child then (RFC 5685 §6).
    pub(super) fn redirect_at_once(
        &mut self,
        core: &Core,
        gateway: &Gateway,
        response: &mut PayloadWriter,
        cx: &mut Context,
    ) {
        core.log(cx, "IKE", format!("redirecting the peer to {gateway}"));
        add(gateway, response);
        self.redirection.expect_leave(cx.now);
    }

    /// Whether it is there for nothing but to send the peer away.
    pub(in crate::ike) fn only_redirects(&self) -> bool {
        self.redirection.is_leaving() && self.children().is_empty()
    }

    pub(super) fn begin_redirect(
        core: &Core,
        gateway: &Gateway,
        payloads: &mut PayloadWriter,
        cx: &mut Context,
    ) -> Pending {
        core.log(cx, "IKE", format!("redirecting the peer to {gateway}"));
        add(gateway, payloads);
        Pending::Redirect(gateway.clone())
    }

    /// The peer of an established IKE SA sends us to another gateway: sets up a new one there, which takes
    /// the place of this one (RFC 5685 §5).
    pub(super) fn on_redirect(&mut self, core: &Core, payloads: &Payloads<'_>, cx: &mut Context) {
        let Some(gateway) = gateway(payloads, &[]) else {
            return;
        };
        let Some(connection) = &core.connection else {
            return;
        };
        let allowed = connection.follow_redirects && self.redirection.began && self.is_usable();
        let gateway = match gateway {
            Ok(gateway) if allowed => gateway,
            Ok(_) => return cx.discard(Discard::BadRedirect),
            Err(discard) => return cx.discard(discard),
        };
        let detour = match self.redirection.detour.follow(&gateway, core.path, cx) {
            Ok(detour) => detour,
            Err(why) => return refuse(core, &gateway, why, cx),
        };
        log_follow(core, &gateway, cx);
        self.redirection.detour = detour.clone();
        cx.effects.push(Effect::Connect(Attempt {
            replaces: Some(core.id),
            detour,
            ..Attempt::new(connection, self.wishes())
        }));
    }

    /// Closes an IKE SA whose peer was sent away and stays.
    pub(super) fn poll_redirection(&mut self, now: Instant) {
        if self.redirection.leave_at.is_some_and(|at| at <= now) {
            self.redirection.leave_at = None;
            self.queue_delete_ike(End::Redirected, None);
        }
    }
}

/// How long a peer that was sent away may need the IKE SA until it has another one.
const TIME_TO_LEAVE: Duration = Duration::from_secs(30);
