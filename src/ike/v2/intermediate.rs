//! Between IKE_SA_INIT and IKE_AUTH: additional key exchanges (RFC 9370 §2.2.2) and a PPK (RFC 9867) in
//! IKE_INTERMEDIATE (RFC 9242).

use std::sync::Arc;

use crate::crypto::Secret;
use crate::crypto::kdf::{mix_ppk, skeyseed_rekey};
use crate::ike::alert::Subject;
use crate::ike::context::{Attempt, Cause, Context};
use crate::ike::pad::{Connection, Pad, Ppk, PpkId};
use crate::ike::retransmit::{Overdue, Retransmit};
use crate::ike::status::IkeSaStatus;
use crate::ike::{AlertKind, Discard};
use crate::wire::Malformed;
use crate::wire::ikev2::{NotifyType, PayloadWriter};
use crate::wire::isakmp::ExchangeType;
use crate::wire::proposal::AdditionalExchanges;

use super::auth::{AuthSent, wants_childless};
use super::auth_request::refuse;
use super::error::{AuthenticationError, ExchangeError};
use super::init::{InitDone, fail};
use super::init_request::HalfOpen;
use super::initiation::Initiation;
use super::int_auth::{self, IntAuth};
use super::key_exchanges::KeyExchanges;
use super::message::{Datagram, Payloads, add_notify, notify_name};
use super::ppk::{self, PpkUse};
use super::protect::{AuthKeys, Opened, SaKeys};
use super::{Core, State, fill_status, with_port};

/// The keys of an IKE SA that is not authenticated, and how they came about.
pub(super) struct Opening {
    pub(super) keys: SaKeys,
    pub(super) auth: AuthKeys,
    pub(super) int_auth: IntAuth,
    /// To be done before IKE_AUTH.
    pub(super) exchanges: KeyExchanges,
    /// A PPK is still to be settled in IKE_INTERMEDIATE.
    ppk_due: bool,
    /// The one that was mixed in.
    pub(super) ppk: Option<PpkId>,
}

/// What one exchange mixes into the keys, the shared secret first.
#[derive(Default)]
struct Gain<'a> {
    shared: Option<Secret>,
    ppk: Option<(PpkId, &'a Ppk)>,
}

impl Gain<'_> {
    fn log(&self, core: &Core, cx: &mut Context) {
        if let Some((_, ppk)) = &self.ppk {
            ppk::log_use(core, &ppk.name, cx);
        }
    }
}

impl Opening {
    pub(super) fn new(done: &InitDone, core: &Core, cx: &Context) -> Self {
        let (keys, auth) = done.derive(core, cx);
        // What is resumed has done them.
        let additional = match &done.resumed {
            Some(_) => &AdditionalExchanges::NONE,
            None => &done.suite.additional,
        };
        Self {
            keys,
            auth,
            int_auth: IntAuth::default(),
            exchanges: KeyExchanges::new(additional),
            ppk_due: done.ppk == PpkUse::Intermediate,
            ppk: None,
        }
    }

    /// Notes an exchange, and goes on with keys that its results are mixed into.
    fn conclude(
        &mut self,
        (done, core): (&InitDone, &Core),
        (request, response): (&[u8], &[u8]),
        gain: Gain<'_>,
        cx: &Context,
    ) {
        let prf = self.keys.prf;
        self.int_auth.cover(prf, &self.auth, request, response);
        let (ni, nr) = (&done.exchange.ni, &done.exchange.nr);
        if let Some(shared) = gain.shared {
            let seed = skeyseed_rekey(prf, &self.keys.sk_d, &[shared], ni, nr);
            (self.keys, self.auth) = done.keys(&seed, core, cx);
        }
        if let Some((id, ppk)) = gain.ppk {
            let seed = mix_ppk(prf, &ppk.secret, &self.keys.sk_d);
            (self.keys, self.auth) = done.keys(&seed, core, cx);
            self.ppk = Some(id);
        }
    }

    /// What shows that both sides have the same PPK.
    fn confirm(&self, ppk: &Ppk, done: &InitDone, core: &Core) -> Vec<u8> {
        let nonces = (done.exchange.ni.as_slice(), done.exchange.nr.as_slice());
        ppk::confirmation(self.keys.prf, ppk, nonces, core.spis())
    }

    /// As initiator: writes the next request. A PPK goes with the last key exchange.
    fn ask(
        &mut self,
        (done, core): (&InitDone, &Core),
        connection: &Connection,
        request: &mut PayloadWriter,
        cx: &mut Context,
    ) {
        self.exchanges.ask(request, cx);
        if self.ppk_due && self.exchanges.left() <= 1 {
            let id = connection.ppk_id.as_ref();
            if let Some((id, ppk)) = id.and_then(|id| Some((id, cx.pad.ppk(id)?))) {
                let mut data = id.encode();
                data.extend(self.confirm(ppk, done, core));
                add_notify(request, NotifyType::PPK_IDENTITY_KEY, &data);
            }
        }
    }

    /// As initiator: takes the answer to [`Self::ask`].
    fn finish<'a>(
        &mut self,
        answer: &Payloads<'_>,
        connection: &Connection,
        pad: &'a Pad,
    ) -> Result<Gain<'a>, ExchangeError> {
        let last = self.exchanges.left() <= 1;
        let mut gain = Gain::default();
        if !self.exchanges.is_done() {
            gain.shared = Some(self.exchanges.finish(answer)?);
        }
        if last && std::mem::take(&mut self.ppk_due) {
            let named = answer.notify(NotifyType::PPK_IDENTITY);
            let named = named.and_then(|notify| PpkId::parse(notify.data));
            let own = connection.ppk_id.as_ref();
            let common = named.filter(|named| own == Some(named));
            gain.ppk = common.and_then(|id| pad.ppk(&id).map(|ppk| (id, ppk)));
            if gain.ppk.is_none() && connection.ppk_required {
                return Err(AuthenticationError::OtherPpk.into());
            }
        }
        Ok(gain)
    }
}

/// Goes on after IKE_SA_INIT, as initiator.
pub(super) fn start(attempt: Attempt, done: InitDone, core: &mut Core, cx: &mut Context) -> State {
    if wants_childless(&attempt, &done) && !done.childless {
        let reason = "peer does not accept IKE_SAs without a child".to_owned();
        return fail(core, attempt, reason, Cause::Refusal(AlertKind::Child), cx);
    }
    // With MOBIKE another path may have a NAT (RFC 4555 §3.3).
    if done
        .nat
        .is_some_and(|nat| nat.any() || attempt.connection.mobike)
    {
        float(core, cx);
    }
    if attempt.connection.ppk_required && done.ppk == PpkUse::No && done.resumed.is_none() {
        let reason = AuthenticationError::NoPpk.to_string();
        return fail(
            core,
            attempt,
            reason,
            Cause::Refusal(AlertKind::PeerAuth),
            cx,
        );
    }
    let opening = Opening::new(&done, core, cx);
    proceed(attempt, done, opening, FIRST_ID, core, cx)
}

/// Sends the next request, which is IKE_AUTH when all is exchanged.
fn proceed(
    attempt: Attempt,
    done: InitDone,
    mut opening: Opening,
    message_id: u32,
    core: &mut Core,
    cx: &mut Context,
) -> State {
    if opening.exchanges.is_done() && !opening.ppk_due {
        return AuthSent::start(attempt, done, opening, message_id, core, cx);
    }
    let mut payloads = PayloadWriter::new();
    opening.ask((&done, core), &attempt.connection, &mut payloads, cx);
    let header = core.header(ExchangeType::IKE_INTERMEDIATE, false, message_id);
    let covered = int_auth::of_sent(header, &payloads);
    let message = opening.keys.seal(header, payloads, core.path);
    let settings = cx.settings.retransmit;
    State::IntermediateSent(Box::new(IntermediateSent {
        initiation: Initiation {
            attempt,
            message_id,
            request: Retransmit::send(message, core.path, settings, cx),
        },
        done,
        opening,
        covered,
    }))
}

/// IKE_INTERMEDIATE is sent and unanswered.
pub(in crate::ike) struct IntermediateSent {
    pub(super) initiation: Initiation,
    done: InitDone,
    opening: Opening,
    /// What IntAuth covers of the request.
    covered: Vec<u8>,
}

impl IntermediateSent {
    pub(super) fn on_response(
        mut self: Box<Self>,
        core: &mut Core,
        datagram: &Datagram<'_>,
        cx: &mut Context,
    ) -> State {
        if datagram.header.message_id != self.initiation.message_id {
            cx.discard(Discard::UnexpectedResponse);
            return State::IntermediateSent(self);
        }
        let Some(opened) = self.opening.keys.open(datagram, cx) else {
            return State::IntermediateSent(self);
        };
        let answer = int_auth::of_received(&opened.stand_in(datagram), &opened);
        // Only the holder of the first shared secret could make this, so a refusal is final.
        let payloads = match opened.payloads() {
            Ok(payloads) => payloads,
            Err(error) => return self.refuse(core, &error, cx),
        };
        if let Some(notify) = payloads.error() {
            let name = notify_name(notify.kind);
            let reason = format!("peer answered IKE_INTERMEDIATE with {name}");
            let kind = AlertKind::of_refusal(notify.kind, Subject::Ike);
            return self.end(core, reason, Cause::Refusal(kind), cx);
        }
        let (connection, pad) = (&self.initiation.attempt.connection, Arc::clone(&cx.pad));
        match self.opening.finish(&payloads, connection, &pad) {
            Ok(gain) => {
                self.done.peer.learn(&payloads);
                let Self {
                    initiation,
                    done,
                    mut opening,
                    covered,
                } = *self;
                gain.log(core, cx);
                opening.conclude((&done, core), (&covered, &answer), gain, cx);
                let next_id = initiation.next_id();
                proceed(initiation.attempt, done, opening, next_id, core, cx)
            }
            Err(error) => self.refuse(core, &error, cx),
        }
    }

    fn refuse(self: Box<Self>, core: &Core, error: &ExchangeError, cx: &mut Context) -> State {
        let cause = Cause::Refusal(error.alert_kind(Subject::Ike));
        self.end(core, error.to_string(), cause, cx)
    }

    fn end(self: Box<Self>, core: &Core, reason: String, cause: Cause, cx: &mut Context) -> State {
        fail(core, self.initiation.attempt, reason, cause, cx)
    }

    pub(super) fn on_timer(mut self: Box<Self>, core: &Core, cx: &mut Context) -> State {
        self.opening.keys.reassembly.expire(cx.now);
        let due = self.initiation.request.repeat(core.path, cx);
        if due != Some(Overdue::GiveUp) {
            return State::IntermediateSent(self);
        }
        let reason = format!("{} does not answer IKE_INTERMEDIATE", core.path.remote);
        self.end(core, reason, Cause::Silence(AlertKind::Silence), cx)
    }

    pub(super) fn status(&self, core: &Core) -> IkeSaStatus {
        let mut status = core.status();
        let nat = self.done.nat.unwrap_or_default();
        fill_status(&mut status, self.done.suite, nat);
        status.tasks_active = vec!["IKE_INTERMEDIATE"];
        status
    }
}

impl HalfOpen {
    /// Answers the next IKE_INTERMEDIATE request.
    pub(super) fn on_intermediate_request(
        mut self: Box<Self>,
        core: &mut Core,
        datagram: &Datagram<'_>,
        (mut opening, opened): (Opening, Opened),
        cx: &mut Context,
    ) -> State {
        let datagram = &opened.stand_in(datagram);
        let request = int_auth::of_received(datagram, &opened);
        let mut response = PayloadWriter::new();
        let (payloads, pad) = (opened.payloads(), Arc::clone(&cx.pad));
        let result = payloads.and_then(|payloads| {
            let known = (&self.done, &*core);
            opening.answer(known, &payloads, &mut response, &pad, cx)
        });
        let gain = match result {
            Ok(gain) => gain,
            Err(error) => {
                let Opening { keys, .. } = opening;
                return refuse(core, (keys, self.window), datagram, &error, cx);
            }
        };
        let id = datagram.header.message_id;
        let header = core.header(ExchangeType::IKE_INTERMEDIATE, true, id);
        let covered = int_auth::of_sent(header, &response);
        let response = opening.keys.seal(header, response, datagram.path);
        cx.send(datagram.path, &response);
        self.window.answer(datagram.bytes, response);
        gain.log(core, cx);
        opening.conclude((&self.done, core), (&request, &covered), gain, cx);
        self.opening = Some(Box::new(opening));
        State::HalfOpen(self)
    }
}

impl Opening {
    /// Something has been opened with these keys.
    pub(super) fn is_begun(&self) -> bool {
        self.int_auth.is_begun() || self.keys.reassembly.held() > 0
    }

    /// Whether it is time for IKE_AUTH.
    pub(super) fn check_done(&self) -> Result<(), ExchangeError> {
        if self.exchanges.is_done() {
            return Ok(());
        }
        Err(Malformed::BadValue("IKE_AUTH before the last key exchange").into())
    }

    /// As responder: does what a request asks for, which must be something that is still to be done.
    fn answer<'a>(
        &mut self,
        (done, core): (&InitDone, &Core),
        request: &Payloads<'_>,
        response: &mut PayloadWriter,
        pad: &'a Pad,
        cx: &mut Context,
    ) -> Result<Gain<'a>, ExchangeError> {
        let offers_ppk = request.notify(NotifyType::PPK_IDENTITY_KEY).is_some();
        let settles_ppk = offers_ppk && std::mem::take(&mut self.ppk_due);
        let exchanges = !self.exchanges.is_done() && (request.ke.is_some() || !settles_ppk);
        if !exchanges && !settles_ppk {
            return Err(Malformed::BadValue("IKE_INTERMEDIATE exchange too many").into());
        }
        let mut gain = Gain::default();
        if exchanges {
            gain.shared = Some(self.exchanges.answer(request, response, cx)?);
        }
        if settles_ppk {
            let confirm = |ppk: &Ppk| self.confirm(ppk, done, core);
            gain.ppk = ppk::find_common(request, pad, confirm);
            if let Some((id, _)) = &gain.ppk {
                add_notify(response, NotifyType::PPK_IDENTITY, &id.encode());
            }
        }
        Ok(gain)
    }
}

/// Moves to the ports of UDP encapsulation. A peer that was reached on another port than 500 is
/// taken to be there already.
fn float(core: &mut Core, cx: &Context) {
    core.path.local = with_port(core.path.local, cx.settings.port_nat_t);
    if core.path.remote.port() == 500 {
        core.path.remote = with_port(core.path.remote, 4500);
    }
}

/// Of the request that follows IKE_SA_INIT.
pub(super) const FIRST_ID: u32 = 1;
