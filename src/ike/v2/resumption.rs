//! Tickets on an IKE SA that is up (RFC 5723 §4.1, §6.2): ours for the peer, or the peer's for us.

use std::time::{Duration, Instant};

use crate::crypto::Secret;
use crate::ike::Discard;
use crate::ike::context::Context;
use crate::ike::pad::Connection;
use crate::ike::session::{Session, credential};
use crate::ike::tickets::{Held, MAX_TICKET, TicketKeys};
use crate::wire::ikev2::{NotifyType, PayloadWriter, TicketGrant};

use super::Core;
use super::child::End;
use super::established::Established;
use super::message::{Payloads, add_notify};
use super::tasks::{Pending, Task};

/// Who may go on from this IKE SA when it is lost.
#[derive(Debug, Default)]
pub(super) struct Resumption {
    /// What the identities were proven with; absent where nobody goes on.
    credential: Option<Secret>,
    has_ppk: bool,
    /// The peer's ticket, and until when it is good.
    ticket: Option<(Vec<u8>, Instant)>,
    /// The peer makes tickets.
    makes: bool,
    /// The peer has one of ours.
    granted: bool,
}

impl Resumption {
    /// For the IKE SA that a rekey makes, which has another ticket.
    pub(super) fn of_successor(&self) -> Self {
        let credential = self.credential.as_ref();
        Self {
            credential: credential.map(|known| Secret::copy_from(known.as_bytes())),
            has_ppk: self.has_ppk,
            ticket: None,
            makes: self.makes,
            granted: false,
        }
    }
}

/// Asks for a ticket, where the configuration says so.
pub(super) fn request(connection: &Connection, payloads: &mut PayloadWriter) {
    if connection.resumption {
        add_notify(payloads, NotifyType::TICKET_REQUEST, &[]);
    }
}

impl Established {
    /// Notes how the identities were proven: just now, or for the IKE SA that this one goes on from, and
    /// then no longer than that was good for.
    pub(super) fn note_proof(
        &mut self,
        connection: &Connection,
        has_ppk: bool,
        resumed: Option<&Session>,
        cx: &Context,
    ) {
        if connection.resumption {
            let (local, remote) = (&self.peer.local_id, &self.peer.remote_id);
            let proven = credential(connection, local, remote, &cx.directory);
            self.resumption.credential = Some(proven);
            self.resumption.has_ppk = has_ppk;
        }
        if let Some(session) = resumed {
            let both = [self.clock.unproven_at, session.unproven_at];
            self.clock.unproven_at = both.into_iter().flatten().min();
            let both = [self.clock.reauth_at, session.reauth_at];
            self.clock.reauth_at = both.into_iter().flatten().min();
        }
    }

    fn session(&self, core: &Core) -> Option<Session> {
        let Resumption {
            credential,
            has_ppk,
            ..
        } = &self.resumption;
        Some(Session {
            connection: core.name().to_owned(),
            spis: core.spis(),
            local_id: self.peer.local_id.clone(),
            remote_id: self.peer.remote_id.clone(),
            suite: self.keys.suite,
            sk_d: Secret::copy_from(self.keys.sk_d.as_bytes()),
            has_ppk: *has_ppk,
            credential: Secret::copy_from(credential.as_ref()?.as_bytes()),
            leased: core.virtual_ips.remote.clone(),
            holder: None,
            unproven_at: self.clock.unproven_at,
            reauth_at: self.clock.reauth_at,
        })
    }

    /// Gives the peer a ticket if it asks for one, or says that it gets none.
    pub(super) fn grant_ticket(
        &mut self,
        core: &Core,
        request: &Payloads<'_>,
        response: &mut PayloadWriter,
        cx: &mut Context,
    ) {
        if request.notify(NotifyType::TICKET_REQUEST).is_none() {
            return;
        }
        let Some(granted) = self.make_ticket(core, cx) else {
            return add_notify(response, NotifyType::TICKET_NACK, &[]);
        };
        self.resumption.granted = true;
        add_notify(response, NotifyType::TICKET_LT_OPAQUE, &granted);
    }

    fn make_ticket(&self, core: &Core, cx: &mut Context) -> Option<Vec<u8>> {
        if self.redirection.we_began() || !self.is_usable() {
            return None;
        }
        let session = self.session(core)?;
        // No longer than the IKE SA itself would have lived (RFC 5723 §6.2).
        let ends = [self.clock.expires_at, self.clock.unproven_at];
        let ends = ends.into_iter().flatten();
        let lives = ends.map(|end| end.saturating_duration_since(cx.now));
        let life = lives.fold(TicketKeys::LIFE, Duration::min);
        let lifetime = u32::try_from(life.as_secs()).ok().filter(|life| *life > 0);
        let ticket = cx.seal_ticket(&session, lifetime?)?;
        let grant = TicketGrant {
            lifetime: lifetime?,
            ticket: &ticket,
        };
        Some(grant.encode())
    }

    /// A peer that asks for a ticket while it replaces the IKE SA may ask again on the new one.
    pub(super) fn promise_ticket(
        &self,
        request: &Payloads<'_>,
        response: &mut PayloadWriter,
        cx: &Context,
    ) {
        if request.notify(NotifyType::TICKET_REQUEST).is_some() {
            let may = self.resumption.credential.is_some() && !self.redirection.we_began();
            let kind = if may && cx.tickets.has_keys() {
                NotifyType::TICKET_ACK
            } else {
                NotifyType::TICKET_NACK
            };
            add_notify(response, kind, &[]);
        }
    }

    /// Keeps a ticket that we have asked for, in place of an older one.
    pub(super) fn take_ticket(&mut self, answer: &Payloads<'_>, cx: &mut Context) {
        let granted = answer.notify(NotifyType::TICKET_LT_OPAQUE);
        let promised = answer.notify(NotifyType::TICKET_ACK).is_some();
        let resumption = &mut self.resumption;
        if resumption.credential.is_none() || !self.redirection.we_began() {
            return;
        }
        resumption.makes = granted.is_some() || promised;
        let Some(granted) = granted else {
            return;
        };
        match TicketGrant::parse(granted.data) {
            Ok(grant) if grant.ticket.len() <= MAX_TICKET => {
                let life = Duration::from_secs(grant.lifetime.into());
                let expires = cx.now + life.min(TicketKeys::LIFE);
                resumption.ticket = Some((grant.ticket.to_vec(), expires));
            }
            _ => cx.discard(Discard::BadTicket),
        }
    }

    /// Asks for a ticket that IKE_AUTH has not brought, or for that of an IKE SA which a rekey has made.
    pub(super) fn ask_for_ticket(&mut self) {
        if self.resumption.makes && self.resumption.ticket.is_none() {
            self.push(Task::RequestTicket);
        }
    }

    pub(super) fn begin_request_ticket(payloads: &mut PayloadWriter) -> Pending {
        add_notify(payloads, NotifyType::TICKET_REQUEST, &[]);
        Pending::RequestTicket
    }

    /// This IKE SA ends, or a rekey has replaced it. Its tickets end with it, unless it was lost.
    pub(super) fn leave_ticket(&mut self, core: &Core, end: &End, cx: &mut Context) {
        let ticket = self.resumption.ticket.take();
        if !matches!(end, End::Dead | End::Crashed) {
            if std::mem::take(&mut self.resumption.granted) {
                cx.tickets.void(core.spis());
            }
            return;
        }
        if let (Some((opaque, expires)), Some(session)) = (ticket, self.session(core)) {
            let remote = core.path.remote.ip();
            let held = Held {
                opaque,
                expires,
                remote,
                session,
            };
            cx.tickets.hold(held, cx.now);
        }
    }
}
