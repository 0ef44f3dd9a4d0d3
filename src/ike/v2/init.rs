//! IKE_SA_INIT as initiator (RFC 7296 §1.2), and what both sides know after it.

use std::time::Duration;

use crate::crypto::Secret;
use crate::crypto::kdf::{IkeKeys, skeyseed};
use crate::crypto::kex::KeyExchange;
use crate::crypto::prf::Prf;
use crate::ike::AlertKind;
use crate::ike::alert::Subject;
use crate::ike::context::{Attempt, Cause, Context, Effect, Failure};
use crate::ike::key_log;
use crate::ike::nat;
use crate::ike::negotiate::{
    check_answer, exchanges, has_additional, ike_suite, offer, proposal_texts,
};
use crate::ike::pad::{Connection, Fragmentation};
use crate::ike::redirect::Detour;
use crate::ike::retransmit::{Overdue, Retransmit};
use crate::ike::session::Session;
use crate::ike::status::NatStatus;
use crate::ike::{Discard, Path};
use crate::wire::ikev2::{Gateway, KePayload, NotifyType, PayloadWriter, message_bytes};
use crate::wire::isakmp::{ExchangeType, PayloadType};
use crate::wire::proposal::{IkeSuite, KeyExchangeId, SaProposal};

use super::authentication::{PeerSupport, add_hash_algorithms};
use super::fragment::{self, FragmentRules};
use super::initiation::Initiation;
use super::intermediate;
use super::message::{Datagram, Payloads, add_ke, add_notify, notify_name, wanted_group};
use super::ppk::PpkUse;
use super::protect::{AuthKeys, SaKeys};
use super::redirect;
use super::{Core, IkeSa, State};

/// The two messages and nonces of IKE_SA_INIT, which AUTH covers, and what it covers besides.
#[derive(Debug)]
pub(super) struct InitExchange {
    pub(super) request: Vec<u8>,
    pub(super) response: Vec<u8>,
    pub(super) ni: Vec<u8>,
    pub(super) nr: Vec<u8>,
    /// IntAuth (RFC 9242 §3.3.2); empty without IKE_INTERMEDIATE.
    pub(super) int_auth: Vec<u8>,
}

/// What both sides know after IKE_SA_INIT.
#[derive(Debug)]
pub(super) struct InitDone {
    pub(super) exchange: InitExchange,
    pub(super) suite: IkeSuite,
    pub(super) shared: Secret,
    /// `None`: the peer does not do NAT traversal.
    pub(super) nat: Option<NatStatus>,
    /// The responder accepts IKE SAs without a child (RFC 6023).
    pub(super) childless: bool,
    /// What the peer has said about authentication.
    pub(super) peer: PeerSupport,
    pub(super) fragments: FragmentRules,
    pub(super) ppk: PpkUse,
    /// What it goes on from, instead of a key exchange.
    pub(super) resumed: Option<Box<Session>>,
}

/// What the first two messages settle besides keys.
pub(super) struct Features {
    pub(super) nat: Option<NatStatus>,
    pub(super) childless: bool,
    pub(super) fragments: FragmentRules,
}

impl Features {
    /// As initiator: takes the answer, and the responder's SPI from it.
    pub(super) fn of_answer(
        core: &mut Core,
        connection: &Connection,
        datagram: &Datagram<'_>,
        payloads: &Payloads<'_>,
        cx: &Context,
    ) -> Self {
        core.responder_spi = datagram.header.responder_spi;
        if core.path.local.ip().is_unspecified() {
            core.path.local = datagram.path.local;
        }
        let force = connection.encap;
        let childless = payloads.notify(NotifyType::CHILDLESS_IKEV2_SUPPORTED);
        let ours = connection.fragmentation;
        Self {
            nat: nat::detect(&payloads.notifies, core.spis(), core.path, force),
            childless: childless.is_some(),
            fragments: FragmentRules::negotiate(ours, payloads, &cx.settings),
        }
    }
}

impl InitExchange {
    pub(super) fn new(request: Vec<u8>, response: Vec<u8>, (ni, nr): (Vec<u8>, Vec<u8>)) -> Self {
        Self {
            request,
            response,
            ni,
            nr,
            int_auth: Vec::new(),
        }
    }
}

impl InitDone {
    /// After a key exchange in IKE_SA_INIT.
    pub(super) fn exchanged(
        exchange: InitExchange,
        (suite, shared): (IkeSuite, Secret),
        features: Features,
        peer: PeerSupport,
        ppk: PpkUse,
    ) -> Self {
        Self {
            exchange,
            suite,
            shared,
            nat: features.nat,
            childless: features.childless,
            peer,
            fragments: features.fragments,
            ppk,
            resumed: None,
        }
    }

    /// After IKE_SESSION_RESUME, which exchanges nonces and no keys.
    pub(super) fn resumed(exchange: InitExchange, session: Session, features: Features) -> Self {
        let nothing = (session.suite, Secret::from(Vec::new()));
        let peer = PeerSupport::default();
        Self {
            resumed: Some(Box::new(session)),
            ..Self::exchanged(exchange, nothing, features, peer, PpkUse::No)
        }
    }

    /// Keys of the IKE SA (RFC 7296 §2.14, RFC 5723 §5.1).
    pub(super) fn derive(&self, core: &Core, cx: &Context) -> (SaKeys, AuthKeys) {
        let prf = Prf::new(self.suite.prf).expect("negotiation accepts only PRFs we have");
        let (ni, nr) = (&self.exchange.ni, &self.exchange.nr);
        let seed = match &self.resumed {
            Some(session) => session.skeyseed(prf, ni, nr),
            None => skeyseed(prf, (ni, nr), &self.shared),
        };
        self.keys(&seed, core, cx)
    }

    /// The same for an SKEYSEED that comes from more than one key exchange.
    pub(super) fn keys(&self, seed: &Secret, core: &Core, cx: &Context) -> (SaKeys, AuthKeys) {
        let (ni, nr) = (&self.exchange.ni, &self.exchange.nr);
        let (spi_i, spi_r) = core.spis();
        let keys = IkeKeys::derive(&self.suite, seed, ni, nr, spi_i.0, spi_r.0);
        let line = cx.key_line(|| key_log::ike((spi_i, spi_r), &self.suite, &keys));
        SaKeys::new(self.suite, keys, core.initiator, self.fragments, line)
    }
}

/// IKE_SA_INIT is sent and unanswered. Holds what this wait needs and nothing else.
pub(in crate::ike) struct InitSent {
    pub(super) initiation: Initiation,
    offer: InitOffer,
    exchange: KeyExchange,
    /// How often we have started over because the answer asked for it.
    restarts: u8,
    /// An error that came unauthenticated and may be forged.
    refusal: Option<NotifyType>,
}

struct InitOffer {
    proposals: Vec<SaProposal>,
    nonce: Vec<u8>,
    cookie: Option<Vec<u8>>,
    detour: Detour,
}

/// A valid answer, or a wish to try again in another way.
enum InitAnswer<'a> {
    Cookie(&'a [u8]),
    OtherGroup(KeyExchangeId),
    Elsewhere(Gateway),
    Refused(NotifyType),
    Chosen(Chosen<'a>),
}

struct Chosen<'a> {
    suite: IkeSuite,
    ke: KePayload<'a>,
    nonce: &'a [u8],
}

impl InitSent {
    /// Sends the first request of an attempt.
    pub(in crate::ike) fn start(attempt: Attempt, path: Path, cx: &mut Context) -> Option<IkeSa> {
        let proposals = offer(&attempt.connection.proposals, &[], true);
        let group = exchanges(&proposals).first().copied();
        let exchange = group.map(|group| KeyExchange::generate(group, cx.rng()));
        let Some(Ok(exchange)) = exchange else {
            cx.effects.push(Effect::Failed(Failure {
                attempt,
                reason: "no supported key exchange method is configured".to_owned(),
                cause: Cause::Refusal(AlertKind::IkeProposal),
            }));
            return None;
        };
        let core = Core::begin(&attempt, path, cx);
        let offer = InitOffer {
            proposals,
            nonce: cx.nonce(),
            cookie: None,
            detour: attempt.detour.clone(),
        };
        core.log(cx, "IKE", format!("initiating IKE_SA to {}", path.remote));
        let request = send(&core, &offer, &exchange, cx);
        let state = State::InitSent(Box::new(Self {
            initiation: Initiation::first(attempt, request),
            offer,
            exchange,
            restarts: 0,
            refusal: None,
        }));
        Some(IkeSa::new(core, state))
    }

    pub(super) fn on_response(
        mut self: Box<Self>,
        core: &mut Core,
        datagram: &Datagram<'_>,
        cx: &mut Context,
    ) -> State {
        let payloads = datagram.clear_payloads();
        let answer = match &payloads {
            Ok(payloads) => self.check(core, datagram, payloads),
            Err(_) => Err(Discard::Malformed),
        };
        let answer = match answer {
            Ok(answer) => answer,
            // Not authenticated yet: a forged answer must not end the wait (RFC 7296 §2.21.1).
            Err(discard) => {
                cx.discard(discard);
                return State::InitSent(self);
            }
        };
        match answer {
            InitAnswer::Cookie(cookie) => {
                self.offer.cookie = Some(cookie.to_vec());
                self.again(core, cx)
            }
            InitAnswer::OtherGroup(group) => self.take_group(group, core, cx),
            InitAnswer::Elsewhere(gateway) => {
                let detour = &self.initiation.attempt.detour;
                match detour.follow(&gateway, core.path, cx) {
                    Ok(detour) => redirect::go(core, self.initiation.attempt, &gateway, detour, cx),
                    Err(why) => {
                        redirect::refuse(core, &gateway, why, cx);
                        State::InitSent(self)
                    }
                }
            }
            InitAnswer::Refused(kind) => {
                cx.discard(Discard::Unauthenticated);
                let name = notify_name(kind);
                core.warn(
                    cx,
                    "IKE",
                    format!("received {name} in clear, still waiting"),
                );
                self.refusal = Some(kind);
                self.initiation.request.shorten(cx.now + REFUSAL_GRACE);
                State::InitSent(self)
            }
            InitAnswer::Chosen(chosen) => {
                let payloads = payloads.as_ref().expect("an answer was found in them");
                self.proceed(core, datagram, payloads, &chosen, cx)
            }
        }
    }

    fn take_group(
        mut self: Box<Self>,
        group: KeyExchangeId,
        core: &mut Core,
        cx: &mut Context,
    ) -> State {
        match KeyExchange::generate(group, cx.rng()) {
            Ok(exchange) => {
                core.log(cx, "IKE", format!("peer wants {group}, starting over"));
                self.exchange = exchange;
                self.again(core, cx)
            }
            Err(_) => {
                cx.discard(Discard::NotOffered);
                State::InitSent(self)
            }
        }
    }

    /// Takes the answer and goes on.
    fn proceed(
        self: Box<Self>,
        core: &mut Core,
        datagram: &Datagram<'_>,
        payloads: &Payloads<'_>,
        chosen: &Chosen<'_>,
        cx: &mut Context,
    ) -> State {
        // It may be forged, and then the genuine one is still to come.
        let Ok(shared) = self.exchange.finish(chosen.ke.data) else {
            cx.discard(Discard::BadPublicValue);
            return State::InitSent(self);
        };
        let features = Features::of_answer(
            core,
            &self.initiation.attempt.connection,
            datagram,
            payloads,
            cx,
        );
        let ppk = self.announced_ppk(payloads);
        let (request, response) = (self.request_bytes().to_vec(), datagram.bytes.to_vec());
        let nonces = (self.offer.nonce, chosen.nonce.to_vec());
        let exchange = InitExchange::new(request, response, nonces);
        let peer = PeerSupport::from_init(payloads);
        let secret = (chosen.suite, shared);
        let done = InitDone::exchanged(exchange, secret, features, peer, ppk);
        intermediate::start(self.initiation.attempt, done, core, cx)
    }

    fn check<'a>(
        &self,
        core: &Core,
        datagram: &Datagram<'_>,
        payloads: &Payloads<'a>,
    ) -> Result<InitAnswer<'a>, Discard> {
        check_first_answer(core, datagram)?;
        if payloads.sa.is_none() {
            return self.check_refusal(payloads);
        }
        if datagram.header.responder_spi.is_zero() {
            return Err(Discard::BadHeader);
        }
        let proposals = payloads.proposals().map_err(|_| Discard::BadPayload)?;
        let chosen = check_answer(&self.offer.proposals, &proposals).and_then(ike_suite);
        let suite = chosen.ok_or(Discard::NotOffered)?;
        let ke = payloads.key_exchange().map_err(|_| Discard::BadPayload)?;
        if ke.group != suite.key_exchange || ke.group != self.exchange.group() {
            return Err(Discard::NotOffered);
        }
        let follows = payloads.notify(NotifyType::INTERMEDIATE_EXCHANGE_SUPPORTED);
        if !suite.additional.is_empty() && follows.is_none() {
            return Err(Discard::NotOffered); // there is no exchange for them
        }
        let nonce = payloads.nonce().map_err(|_| Discard::BadPayload)?;
        if nonce == self.offer.nonce {
            return Err(Discard::BadPayload); // our own, reflected
        }
        Ok(InitAnswer::Chosen(Chosen { suite, ke, nonce }))
    }

    fn check_refusal<'a>(&self, payloads: &Payloads<'a>) -> Result<InitAnswer<'a>, Discard> {
        let sent = self.offer.cookie.as_deref();
        if let Some(cookie) = asked_cookie(payloads, sent, self.restarts)? {
            return Ok(InitAnswer::Cookie(cookie));
        }
        if let Some(notify) = payloads.notify(NotifyType::INVALID_KE_PAYLOAD) {
            let group = wanted_group(notify).ok_or(Discard::BadPayload)?;
            let offered = exchanges(&self.offer.proposals).contains(&group);
            if !offered || group == self.exchange.group() {
                return Err(Discard::NotOffered);
            }
            check_restarts(self.restarts)?;
            return Ok(InitAnswer::OtherGroup(group));
        }
        if self.initiation.attempt.connection.follow_redirects
            && let Some(gateway) = redirect::gateway(payloads, &self.offer.nonce)
        {
            return Ok(InitAnswer::Elsewhere(gateway?));
        }
        match payloads.error() {
            Some(notify) => Ok(InitAnswer::Refused(notify.kind)),
            None => Err(Discard::BadPayload),
        }
    }

    /// Sends the request anew, after the offer has changed.
    fn again(mut self: Box<Self>, core: &Core, cx: &mut Context) -> State {
        self.restarts += 1;
        self.initiation.request = send(core, &self.offer, &self.exchange, cx);
        State::InitSent(self)
    }

    pub(super) fn on_timer(mut self: Box<Self>, core: &Core, cx: &mut Context) -> State {
        match self.initiation.request.repeat(core.path, cx) {
            None => State::InitSent(self),
            Some(Overdue::Again) => {
                let n = self.initiation.request.sent();
                core.log(cx, "IKE", format!("retransmit {} of IKE_SA_INIT", n - 1));
                State::InitSent(self)
            }
            Some(Overdue::GiveUp) => {
                let (kind, reason) = match self.refusal {
                    Some(notify) => {
                        let reason = format!(
                            "peer refused with {} (in clear); we offered [{}]",
                            notify_name(notify),
                            proposal_texts(&self.offer.proposals),
                        );
                        (AlertKind::of_refusal(notify, Subject::Ike), reason)
                    }
                    None => {
                        let reason = format!("{} does not answer", core.path.remote);
                        (AlertKind::Unreachable, reason)
                    }
                };
                fail(
                    core,
                    self.initiation.attempt,
                    reason,
                    Cause::Silence(kind),
                    cx,
                )
            }
        }
    }

    /// What the peer has taken up of what we announced.
    fn announced_ppk(&self, answer: &Payloads<'_>) -> PpkUse {
        match self.initiation.attempt.connection.ppk_id {
            Some(_) => PpkUse::announced(answer),
            None => PpkUse::No,
        }
    }

    /// A request in clear is never cut.
    fn request_bytes(&self) -> &[u8] {
        let datagrams = self.initiation.request.message().datagrams();
        datagrams.first().map_or(&[], Vec::as_slice)
    }
}

/// Ends an attempt before the IKE SA is established.
pub(super) fn fail(
    core: &Core,
    attempt: Attempt,
    reason: String,
    cause: Cause,
    cx: &mut Context,
) -> State {
    let line = format!("establishing IKE_SA failed: {reason}");
    match cause {
        Cause::Silence(kind) | Cause::Refusal(kind) => core.alert(cx, kind, None, line),
        Cause::Cancelled => core.log(cx, "IKE", line),
    }
    core.failed_event(&reason, cx);
    cx.effects.push(Effect::Failed(Failure {
        attempt,
        reason,
        cause,
    }));
    State::Gone
}

/// Whether an answer may be one to our first request.
pub(super) fn check_first_answer(core: &Core, datagram: &Datagram<'_>) -> Result<(), Discard> {
    if datagram.header.message_id != 0 || datagram.header.flags.initiator() {
        return Err(Discard::BadHeader);
    }
    if datagram.remote() != core.path.remote {
        return Err(Discard::Unauthenticated);
    }
    Ok(())
}

/// The cookie that an answer wants back, if it does.
pub(super) fn asked_cookie<'a>(
    payloads: &Payloads<'a>,
    sent: Option<&[u8]>,
    restarts: u8,
) -> Result<Option<&'a [u8]>, Discard> {
    let Some(cookie) = payloads.notify(NotifyType::COOKIE) else {
        return Ok(None);
    };
    if !(1..=64).contains(&cookie.data.len()) {
        return Err(Discard::BadPayload);
    }
    if sent == Some(cookie.data) {
        return Err(Discard::StaleRequest);
    }
    check_restarts(restarts)?;
    Ok(Some(cookie.data))
}

fn check_restarts(restarts: u8) -> Result<(), Discard> {
    if restarts < MAX_RESTARTS {
        return Ok(());
    }
    Err(Discard::TooManyRestarts)
}

/// Says where we are and what we understand, as every first request does.
pub(super) fn add_features(
    core: &Core,
    detour: &Detour,
    payloads: &mut PayloadWriter,
    cx: &mut Context,
) {
    let connection = core.connection.as_ref();
    let force = connection.is_some_and(|conn| conn.encap);
    nat::add_notifies(payloads, core.spis(), core.path, force, cx.rng());
    if connection.is_some_and(|conn| conn.fragmentation != Fragmentation::No) {
        fragment::announce(payloads);
    }
    redirect::announce(core, detour, payloads);
}

fn send(core: &Core, offer: &InitOffer, exchange: &KeyExchange, cx: &mut Context) -> Retransmit {
    let mut payloads = PayloadWriter::new();
    if let Some(cookie) = &offer.cookie {
        add_notify(&mut payloads, NotifyType::COOKIE, cookie);
    }
    payloads.add_with(PayloadType::SA, |out| {
        SaProposal::encode_list(&offer.proposals, out);
    });
    add_ke(&mut payloads, exchange.group(), exchange.public());
    payloads.add(PayloadType::NONCE, &offer.nonce);
    add_features(core, &offer.detour, &mut payloads, cx);
    let connection = core.connection.as_ref();
    let has_ppk = connection.is_some_and(|conn| conn.ppk_id.is_some());
    if has_ppk || has_additional(&offer.proposals) {
        add_notify(
            &mut payloads,
            NotifyType::INTERMEDIATE_EXCHANGE_SUPPORTED,
            &[],
        );
    }
    if let Some(connection) = connection {
        PpkUse::announce(connection, &mut payloads);
    }
    add_hash_algorithms(&mut payloads);
    let header = core.header(ExchangeType::IKE_SA_INIT, false, 0);
    let message = message_bytes(header, payloads.finish()).into();
    let settings = cx.settings.retransmit;
    Retransmit::send(message, core.path, settings, cx)
}

/// COOKIE and INVALID_KE_PAYLOAD may follow each other (RFC 7296 §2.6.1), but not for ever.
const MAX_RESTARTS: u8 = 5;
/// How long a genuine answer may still come after an error in clear.
const REFUSAL_GRACE: Duration = Duration::from_secs(4);
