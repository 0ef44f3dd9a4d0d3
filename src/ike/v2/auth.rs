//! IKE_AUTH as initiator, and what AUTH covers (RFC 7296 §1.2, §2.15).

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use crate::ike::AlertKind;
use crate::ike::alert::Subject;
use crate::ike::context::{Attempt, Cause, Context, Effect};
use crate::ike::pad::{Childless, Connection, Unique};
use crate::ike::retransmit::{Overdue, Retransmit};
use crate::ike::revocation::Waiter;
use crate::ike::status::{IkeSaStatus, NatStatus};
use crate::ike::{Discard, Identity};
use crate::ipsec::Reqid;
use crate::wire::ikev2::{AuthPayload, Delete, IdPayload, NotifyType, PayloadWriter};
use crate::wire::isakmp::{ExchangeType, PayloadType};

use super::auth_methods;
use super::authentication::{Claim, Octets, OurProof, Verdict, prove};
use super::certificates::{Sent, add_certificates, add_requests};
use super::child::End;
use super::configuration;
use super::crash_token;
use super::error::{AuthenticationError, ExchangeError};
use super::established::{Established, Peer};
use super::held::Held;
use super::init::{InitDone, fail};
use super::initiation::Initiation;
use super::intermediate::Opening;
use super::message::{Datagram, Payloads, add_notify, notify_name, required};
use super::message_id_sync::{self, Synchronization};
use super::mobike::{self, Mobike};
use super::offer::Offer;
use super::ppk::{self, PpkKeys, PpkUse};
use super::protect::{AuthKeys, SaKeys};
use super::redirect;
use super::resume;
use super::resumption;
use super::siblings::Kin;
use super::tasks::Task;
use super::window::Window;
use super::{Core, State, fill_status, with_port};

/// IKE_AUTH is sent and unanswered.
pub(in crate::ike) struct AuthSent {
    pub(super) initiation: Initiation,
    done: InitDone,
    keys: SaKeys,
    auth: AuthKeys,
    /// The same with a PPK, if the peer takes it.
    with_ppk: Option<PpkKeys>,
    /// The keys have a PPK in them.
    has_ppk: bool,
    local_id: Identity,
    nat: NatStatus,
    /// The first Child SA, unless there is to be none.
    offer: Option<Offer>,
    /// The answer, while revocation information is on its way.
    held: Option<Box<Held>>,
}

/// What proves who we are.
struct Proofs {
    proof: OurProof,
    /// The same without the PPK, for a peer that does not have it (RFC 8784 §3).
    plain: Option<OurProof>,
    /// The keys to go on with if the peer takes the PPK.
    with_ppk: Option<PpkKeys>,
}

impl Proofs {
    fn make(
        (done, keys, auth): (&InitDone, &SaKeys, &AuthKeys),
        connection: &Connection,
        (ids, id_body): ((&Identity, Option<&Identity>), &[u8]),
        cx: &Context,
    ) -> Result<Self, AuthenticationError> {
        let prove = |auth: &AuthKeys| {
            let octets = Octets::of_initiator(keys.prf, &done.exchange, auth, id_body);
            match &done.resumed {
                Some(_) => Ok(OurProof::of_session(&octets, &auth.initiator)),
                None => prove(cx, &connection.local.method, ids, &octets, &done.peer),
            }
        };
        let ppk = connection.ppk_id.as_ref().and_then(|id| cx.pad.ppk(id));
        let ppk = ppk.filter(|_| done.ppk == PpkUse::Auth);
        let with_ppk = ppk.map(|ppk| PpkKeys::mix(keys.prf, ppk, &keys.sk_d, auth));
        let without = ppk.is_some() && !connection.ppk_required;
        Ok(Self {
            plain: without.then(|| prove(auth)).transpose()?,
            proof: prove(with_ppk.as_ref().map_or(auth, |mixed| &mixed.auth))?,
            with_ppk,
        })
    }

    /// Names the PPK, and proves who we are to a peer without it.
    fn add_ppk(&self, connection: &Connection, payloads: &mut PayloadWriter) {
        if let (Some(_), Some(id)) = (&self.with_ppk, &connection.ppk_id) {
            add_notify(payloads, NotifyType::PPK_IDENTITY, &id.encode());
        }
        if let Some(plain) = &self.plain {
            add_notify(payloads, NotifyType::NO_PPK_AUTH, plain.data());
        }
    }
}

impl AuthSent {
    pub(super) fn start(
        mut attempt: Attempt,
        mut done: InitDone,
        opening: Opening,
        message_id: u32,
        core: &Core,
        cx: &mut Context,
    ) -> State {
        let nat = done.nat.unwrap_or_default();
        done.exchange.int_auth = opening.int_auth.octets(message_id);
        let Opening {
            mut keys,
            auth,
            ppk: mixed,
            ..
        } = opening;
        let resumed = done.resumed.as_deref();
        let has_ppk = mixed.is_some() || resumed.is_some_and(|session| session.has_ppk);
        let connection = Arc::clone(&attempt.connection);
        let (local_id, expected) = match resumed {
            Some(session) => (session.local_id.clone(), Some(&session.remote_id)),
            None => (
                core.local_identity(&connection),
                connection.remote.id.exact(),
            ),
        };
        let id_body = local_id.to_payload_body();
        let ids = (&local_id, expected);
        let proofs = Proofs::make((&done, &keys, &auth), &connection, (ids, &id_body), cx);
        let mut proofs = match proofs {
            Ok(proofs) => proofs,
            Err(error) => {
                let cause = Cause::Refusal(AlertKind::LocalAuth);
                return fail(core, attempt, error.to_string(), cause, cx);
            }
        };
        proofs.proof.staple(cx);
        let first_contact = connection.unique != Unique::Never
            && attempt.replaces.is_none()
            && !cx.peers.knows(&local_id, &connection.remote.id);
        let asks = resumed.is_none().then_some(&*connection);
        let mut payloads =
            identity_payloads(&id_body, first_contact, expected, asks, &proofs.proof);
        proofs.add_ppk(&connection, &mut payloads);
        let childless = wants_childless(&attempt, &done);
        let offer = (!childless).then(|| {
            let wish = attempt.wishes.remove(0);
            let owner = (cx.next_owner(), Kin::FIRST);
            Offer::new(wish, owner, &core.ends_to_be(&connection), false, cx)
        });
        add_wishes(core, &connection, offer.as_ref(), &mut payloads, cx);
        let header = core.header(ExchangeType::IKE_AUTH, false, message_id);
        let message = keys.seal(header, payloads, core.path);
        let settings = cx.settings.retransmit;
        let request = Retransmit::send(message, core.path, settings, cx);
        log_proof(core, &local_id, &proofs.proof, cx);
        State::AuthSent(Box::new(Self {
            initiation: Initiation {
                attempt,
                message_id,
                request,
            },
            done,
            keys,
            auth,
            with_ppk: proofs.with_ppk,
            has_ppk,
            local_id,
            nat,
            offer,
            held: None,
        }))
    }

    pub(super) fn on_response(
        mut self: Box<Self>,
        core: &mut Core,
        datagram: &Datagram<'_>,
        cx: &mut Context,
    ) -> State {
        if datagram.header.message_id != self.initiation.message_id || self.held.is_some() {
            cx.discard(Discard::UnexpectedResponse);
            return State::AuthSent(self);
        }
        let Some(opened) = self.keys.open(datagram, cx) else {
            return State::AuthSent(self);
        };
        let until = cx.now + cx.settings.fetch_timeout;
        let held = Held::new(opened, datagram, until);
        if let Ok(payloads) = held.opened.payloads()
            && payloads.auth.is_some()
            && let Err(error) = self.settle_ppk(core, &payloads, cx)
        {
            self.reject(core, cx, &error.into());
            return State::Gone;
        }
        self.judge(core, Box::new(held), cx)
    }

    /// Only the holder of the Diffie-Hellman secret could make this, so a refusal is final.
    fn judge(mut self: Box<Self>, core: &mut Core, held: Box<Held>, cx: &mut Context) -> State {
        let payloads = match held.opened.payloads() {
            Ok(payloads) => payloads,
            Err(error) => {
                let kind = error.alert_kind(Subject::Ike);
                return self.give_up(core, kind, error.to_string(), cx);
            }
        };
        if payloads.auth.is_none()
            && let Some(notify) = payloads.error()
        {
            let reason = format!("peer answered {}", notify_name(notify.kind));
            let kind = AlertKind::of_refusal(notify.kind, Subject::Ike);
            return self.give_up(core, kind, reason, cx);
        }
        match self.verify(core, &payloads, held.waiter(core), cx) {
            Ok((remote_id, Verdict::Proven(how))) => {
                let message = format!("{remote_id} authenticated with {how}");
                core.log(cx, "IKE", message);
                match redirect::gateway(&payloads, &[]) {
                    Some(Ok(gateway)) if self.initiation.attempt.connection.follow_redirects => {
                        redirect::leave(core, self.delete(core, cx), &gateway, cx)
                    }
                    _ => self.establish(core, &held.datagram(), remote_id, &payloads, cx),
                }
            }
            Ok((_, Verdict::Await(fetches))) => {
                drop(payloads);
                cx.fetch(fetches);
                self.held = Some(held);
                State::AuthSent(self)
            }
            Err(error) => {
                self.reject(core, cx, &error);
                State::Gone
            }
        }
    }

    /// Goes on with the PPK, or without it, as the peer has chosen (RFC 8784 §3).
    fn settle_ppk(
        &mut self,
        core: &Core,
        answer: &Payloads<'_>,
        cx: &mut Context,
    ) -> Result<(), AuthenticationError> {
        let chosen = answer.notify(NotifyType::PPK_IDENTITY).is_some();
        match self.with_ppk.take().filter(|_| chosen) {
            Some(mixed) => {
                ppk::log_use(core, &mixed.name, cx);
                (self.keys.sk_d, self.auth) = (mixed.sk_d, mixed.auth);
                self.has_ppk = true;
            }
            None if self.initiation.attempt.connection.ppk_required
                && self.done.ppk == PpkUse::Auth =>
            {
                return Err(AuthenticationError::NoPpk);
            }
            None => {}
        }
        Ok(())
    }

    /// Looks again at the answer that was held, since more is known of revocations or will not be.
    pub(super) fn resume(mut self: Box<Self>, core: &mut Core, cx: &mut Context) -> State {
        match self.held.take() {
            Some(held) => self.judge(core, held, cx),
            None => State::AuthSent(self),
        }
    }

    fn verify(
        &self,
        core: &Core,
        payloads: &Payloads<'_>,
        waiter: Waiter,
        cx: &mut Context,
    ) -> Result<(Identity, Verdict), ExchangeError> {
        let body = required(payloads.id_r, "IDr")?;
        let remote_id = Identity::from_payload(&IdPayload::parse(body)?);
        let proof = AuthPayload::parse(required(payloads.auth, "AUTH")?)?;
        let octets = Octets::of_responder(self.keys.prf, &self.done.exchange, &self.auth, body);
        if let Some(session) = &self.done.resumed {
            resume::check(session, core, cx)?;
            let key = &self.auth.responder;
            let verdict = resume::verify(session, &remote_id, &proof, &octets, key)?;
            return Ok((remote_id, verdict));
        }
        let connection = &self.initiation.attempt.connection;
        if !connection.remote.id.matches(&remote_id) {
            return Err(AuthenticationError::OtherIdentity {
                found: remote_id,
                wanted: connection.remote.id.to_string(),
            }
            .into());
        }
        let claim = Claim {
            local: &self.local_id,
            remote: &remote_id,
            proof,
            octets,
            sent: Sent::read(&payloads.certificates),
            waiter,
        };
        let verdict = claim.check(&connection.remote.method, cx)?;
        Ok((remote_id, verdict))
    }

    /// Tells a peer that believes in this SA that we do not (RFC 7296 §2.21.2).
    fn reject(mut self: Box<Self>, core: &Core, cx: &mut Context, error: &ExchangeError) {
        let mut payloads = PayloadWriter::new();
        error.encode(&mut payloads);
        let header = core.header(
            ExchangeType::INFORMATIONAL,
            false,
            self.initiation.next_id(),
        );
        let message = self.keys.seal(header, payloads, core.path);
        cx.send(core.path, &message);
        self.give_up(core, error.alert_kind(Subject::Ike), error.to_string(), cx);
    }

    fn establish(
        self: Box<Self>,
        core: &mut Core,
        datagram: &Datagram<'_>,
        remote_id: Identity,
        payloads: &Payloads<'_>,
        cx: &mut Context,
    ) -> State {
        let window = Window::new(self.initiation.next_id(), 0);
        let Self {
            initiation: Initiation { attempt, .. },
            done,
            keys,
            has_ppk,
            local_id,
            nat,
            offer,
            ..
        } = *self;
        if core.path.local.ip().is_unspecified() {
            core.path.local = with_port(datagram.path.local, core.path.local.port());
        }
        if let Err(error) = configuration::accept(&attempt.connection, payloads, core, cx) {
            core.warn(
                cx,
                "IKE",
                format!("ignoring the peer's configuration: {error}"),
            );
        }
        let peer = Peer {
            local_id,
            remote_id,
        };
        let mut sa = Established::new(core, peer, keys, nat, window, cx);
        sa.set_lowest_nonce(&done.exchange.ni, &done.exchange.nr);
        sa.redirection.detour = attempt.detour.arrived();
        sa.note_proof(&attempt.connection, has_ppk, done.resumed.as_deref(), cx);
        sa.take_extensions(core, &attempt.connection, payloads, cx);
        for id in attempt.waiters {
            cx.finish_command(id, Ok(sa.outcome(core, None)));
        }
        if let Some(offer) = offer {
            sa.finish_first_child(core, offer, &done.exchange, payloads, cx);
        }
        let rest = attempt.wishes.into_iter().map(Task::CreateChild);
        sa.queue(rest.collect::<VecDeque<_>>());
        if let Some(old) = attempt.replaces {
            cx.effects.push(Effect::Delete(old));
        }
        sa.start_next(core, cx);
        State::Established(Box::new(sa))
    }

    fn give_up(
        self: Box<Self>,
        core: &Core,
        kind: AlertKind,
        reason: String,
        cx: &mut Context,
    ) -> State {
        self.end(core, reason, Cause::Refusal(kind), cx)
    }

    fn end(self: Box<Self>, core: &Core, reason: String, cause: Cause, cx: &mut Context) -> State {
        let resumed = self.done.resumed.is_some() && cause != Cause::Cancelled;
        let attempt = self.take_back(cx);
        if resumed {
            return resume::fall_back(core, attempt, &reason, cx);
        }
        fail(core, attempt, reason, cause, cx)
    }

    /// The attempt, with all that it was to bring.
    fn take_back(self, cx: &mut Context) -> Attempt {
        let mut attempt = self.initiation.attempt;
        if let Some(offer) = self.offer {
            cx.release_spi(offer.spi);
            attempt.wishes.insert(0, offer.wish);
        }
        attempt
    }

    /// Tells the peer once that the SA, which it has or may have, is gone.
    fn delete(mut self: Box<Self>, core: &Core, cx: &mut Context) -> Attempt {
        let mut payloads = PayloadWriter::new();
        payloads.add_with(PayloadType::DELETE, Delete::encode_ike);
        let header = core.header(
            ExchangeType::INFORMATIONAL,
            false,
            self.initiation.next_id(),
        );
        let message = self.keys.seal(header, payloads, core.path);
        cx.send(core.path, &message);
        self.take_back(cx)
    }

    pub(super) fn on_timer(mut self: Box<Self>, core: &mut Core, cx: &mut Context) -> State {
        if let Some(held) = &self.held {
            if cx.now < held.until {
                return State::AuthSent(self);
            }
            return self.resume(core, cx);
        }
        let due = self.initiation.request.repeat(core.path, cx);
        if due != Some(Overdue::GiveUp) {
            return State::AuthSent(self);
        }
        let reason = format!("{} does not answer IKE_AUTH", core.path.remote);
        self.end(core, reason, Cause::Silence(AlertKind::Silence), cx)
    }

    /// Gives up. The peer may have established the SA, so it is told.
    pub(super) fn abandon(self: Box<Self>, core: &Core, end: End, cx: &mut Context) {
        let attempt = self.delete(core, cx);
        fail(core, attempt, end.to_string(), Cause::Cancelled, cx);
    }

    pub(super) fn deadline(&self) -> Instant {
        let held = self.held.as_ref().map(|held| held.until);
        held.unwrap_or_else(|| self.initiation.request.due())
    }

    /// Whether its Child SA is one for this policy.
    pub(super) fn offers(&self, reqid: Reqid) -> bool {
        let first = self.offer.as_ref();
        first.is_some_and(|offer| offer.child().reqid == reqid)
    }

    /// The child that is being set up along with the IKE SA.
    pub(super) fn status(&self, core: &Core) -> IkeSaStatus {
        let mut status = core.status();
        fill_status(&mut status, self.done.suite, self.nat);
        status.local_id = Some(self.local_id.clone());
        status.tasks_active = vec!["IKE_AUTH"];
        status
    }
}

impl Established {
    /// The responder has answered: takes up the extensions that it has, and makes the SA known.
    fn take_extensions(
        &mut self,
        core: &Core,
        connection: &Connection,
        payloads: &Payloads<'_>,
        cx: &mut Context,
    ) {
        self.message_id_sync = Synchronization::negotiate(payloads);
        self.mobike = Mobike::negotiate(connection, true, payloads);
        let initial_contact = payloads.notify(NotifyType::INITIAL_CONTACT).is_some();
        self.announce(core, initial_contact, cx);
        self.take_auth_lifetime(core, payloads, cx);
        self.take_crash_token(payloads);
        self.take_ticket(payloads, cx);
        self.ask_for_ticket();
    }
}

/// Whether IKE_AUTH is to bring no Child SA (RFC 6023).
pub(super) fn wants_childless(attempt: &Attempt, done: &InitDone) -> bool {
    attempt.wishes.is_empty()
        || match attempt.connection.childless {
            Childless::Allow | Childless::Never => false,
            Childless::Prefer => done.childless,
            Childless::Force => true,
        }
}

pub(super) fn log_proof(core: &Core, local: &Identity, proof: &OurProof, cx: &mut Context) {
    let message = format!("authenticating as {local} with {}", proof.how);
    core.log(cx, "IKE", message);
}

/// What we offer and want beside the proof of who we are: extensions, addresses, and the first Child SA.
fn add_wishes(
    core: &Core,
    connection: &Connection,
    offer: Option<&Offer>,
    payloads: &mut PayloadWriter,
    cx: &mut Context,
) {
    crash_token::announce(core, payloads, cx);
    message_id_sync::announce(payloads);
    resumption::request(connection, payloads);
    configuration::add_request(connection, payloads, cx);
    if let Some(offer) = offer {
        offer.encode(payloads, None, None);
    }
    if connection.mobike {
        mobike::announce(payloads, connection, core.path.local.ip(), cx);
    }
}

/// IDi, certificates, INITIAL_CONTACT, IDr and AUTH of the request; `asks`: for certificates, too.
fn identity_payloads(
    id_body: &[u8],
    first_contact: bool,
    expected: Option<&Identity>,
    asks: Option<&Connection>,
    proof: &OurProof,
) -> PayloadWriter {
    let mut payloads = PayloadWriter::new();
    payloads.add(PayloadType::ID_I, id_body);
    add_certificates(&mut payloads, &proof.certificates);
    if let Some(connection) = asks {
        add_requests(&mut payloads, [connection]);
        auth_methods::announce(&mut payloads, [connection]);
    }
    if first_contact {
        add_notify(&mut payloads, NotifyType::INITIAL_CONTACT, &[]);
    }
    if let Some(expected) = expected {
        payloads.add(PayloadType::ID_R, &expected.to_payload_body());
    }
    proof.add_auth(&mut payloads);
    payloads
}
