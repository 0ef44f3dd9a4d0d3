//! IKE_AUTH as responder (RFC 7296 §1.2).

use std::sync::Arc;
use std::time::Instant;

use crate::ike::alert::Subject;
use crate::ike::context::{Context, Effect};
use crate::ike::directory::Directory;
use crate::ike::narrow::choose_child;
use crate::ike::negotiate::choose_ike;
use crate::ike::pad::{Childless, Connection, Unique};
use crate::ike::revocation::Waiter;
use crate::ike::session::Session;
use crate::ike::{Discard, Identity};
use crate::ipsec::Selectors;
use crate::wire::ikev2::{
    Attribute, AuthMethod, AuthPayload, IdPayload, NotifyType, PayloadWriter,
};
use crate::wire::isakmp::PayloadType;

use super::auth::log_proof;
use super::auth_lifetime::add_auth_lifetime;
use super::authentication::{Claim, Octets, OurProof, Verdict, is_method_of, prove};
use super::certificates::{Sent, add_certificates};
use super::child::ChildSa;
use super::configuration;
use super::crash_token;
use super::create_request::asked_selectors;
use super::error::{AuthenticationError, ExchangeError};
use super::established::{Established, Peer};
use super::held::Held;
use super::init_request::HalfOpen;
use super::intermediate::Opening;
use super::message::{Datagram, Payloads, add_notify, required};
use super::message_id_sync::{self, Synchronization};
use super::mobike::{self, Mobike};
use super::ppk::{self, PpkKeys, Proof};
use super::protect::{AuthKeys, Opened, SaKeys};
use super::window::{Arrival, Window};
use super::{Core, State};

/// IKE_AUTH or IKE_INTERMEDIATE was refused; the refusal can be repeated for a while.
pub(in crate::ike) struct Refused {
    window: Window,
    expires: Instant,
}

/// What a peer that asks for addresses is answered.
pub(super) type Leased = Result<Option<Vec<Attribute>>, ExchangeError>;

/// A peer that has proven its identity, as far as is known.
pub(super) struct Authenticated {
    pub(super) connection: Arc<Connection>,
    pub(super) peer: Peer,
    /// The keys to go on with.
    pub(super) with_ppk: Option<PpkKeys>,
    /// Those have a post-quantum preshared key in them.
    pub(super) has_ppk: bool,
    pub(super) verdict: Verdict,
}

/// A request whose check needs revocation information.
pub(super) struct Waiting {
    opening: Opening,
    held: Held,
}

impl Waiting {
    /// When waiting ends.
    pub(super) fn until(&self) -> Instant {
        self.held.until
    }
}

impl HalfOpen {
    pub(super) fn on_auth_request(
        mut self: Box<Self>,
        core: &mut Core,
        datagram: &Datagram<'_>,
        (opening, opened): (Opening, Opened),
        cx: &mut Context,
    ) -> State {
        self.done.exchange.int_auth = opening.int_auth.octets(datagram.header.message_id);
        let until = cx.now + cx.settings.fetch_timeout;
        let held = Held::new(opened, datagram, until);
        self.judge(core, Waiting { opening, held }, cx)
    }

    /// Looks again at the request that was held, since more is known of revocations or will not be.
    pub(super) fn resume(mut self: Box<Self>, core: &mut Core, cx: &mut Context) -> State {
        match self.waiting.take() {
            Some(waiting) => self.judge(core, *waiting, cx),
            None => State::HalfOpen(self),
        }
    }

    fn judge(mut self: Box<Self>, core: &mut Core, request: Waiting, cx: &mut Context) -> State {
        let Waiting { opening, held } = request;
        let payloads = held.opened.payloads();
        let checked = payloads.and_then(|payloads| {
            opening.check_done()?;
            let authenticated = match self.done.resumed.as_deref() {
                Some(session) => self.authenticate_resumed(session, core, &opening, &payloads, cx),
                None => {
                    let known = (&opening, held.waiter(core));
                    self.authenticate(core, known, &payloads, cx)
                }
            }?;
            let resumes = self.done.resumed.is_some();
            check_policy(core, (&authenticated, resumes), &payloads, cx)?;
            Ok((authenticated, payloads))
        });
        let (authenticated, payloads) = match checked {
            Ok(checked) => checked,
            Err(error) => {
                let sealing = (opening.keys, self.window);
                return refuse(core, sealing, &held.datagram(), &error, cx);
            }
        };
        if let Verdict::Await(fetches) = authenticated.verdict {
            drop(payloads);
            cx.fetch(fetches);
            self.waiting = Some(Box::new(Waiting { opening, held }));
            return State::HalfOpen(self);
        }
        let Opening { keys, auth, .. } = opening;
        let datagram = held.datagram();
        self.accept(core, &datagram, (keys, auth), authenticated, &payloads, cx)
    }

    fn authenticate(
        &self,
        core: &Core,
        (opening, waiter): (&Opening, Waiter),
        payloads: &Payloads<'_>,
        cx: &mut Context,
    ) -> Result<Authenticated, ExchangeError> {
        let Opening { keys, auth, .. } = opening;
        let body = required(payloads.id_i, "IDi")?;
        let remote_id = Identity::from_payload(&IdPayload::parse(body)?);
        let asked = payloads.id_r.map(IdPayload::parse).transpose()?;
        let asked = asked.as_ref().map(Identity::from_payload);
        let mut proof = AuthPayload::parse(required(payloads.auth, "AUTH")?)?;
        let selectors = asked_selectors(payloads).ok();
        let ids = (&remote_id, asked.as_ref());
        let wanted = (selectors.as_ref(), proof.method);
        let pad = Arc::clone(&cx.pad);
        let connection = self.find_connection(core, ids, wanted, &cx.directory)?;
        let local_id = core.local_identity(&connection);
        let mixed = opening.ppk.as_ref();
        let with_ppk = match ppk::choose(self.done.ppk, mixed, &connection, payloads, &pad)? {
            Proof::Plain => None,
            Proof::With(ppk) => Some(PpkKeys::mix(keys.prf, ppk, &keys.sk_d, auth)),
            Proof::Without(data) => {
                proof.data = data; // the method is still that of AUTH
                None
            }
        };
        let auth = with_ppk.as_ref().map_or(auth, |mixed| &mixed.auth);
        let claim = Claim {
            local: &local_id,
            remote: &remote_id,
            proof,
            octets: Octets::of_initiator(keys.prf, &self.done.exchange, auth, body),
            sent: Sent::read(&payloads.certificates),
            waiter,
        };
        let verdict = claim.check(&connection.remote.method, cx)?;
        Ok(Authenticated {
            connection,
            has_ppk: with_ppk.is_some() || mixed.is_some(),
            with_ppk,
            peer: Peer {
                local_id,
                remote_id,
            },
            verdict,
        })
    }

    /// The connection that fits addresses and identities, and would have allowed the chosen suite.
    /// Of several that fit equally well, the one that wants this authentication method, then the one
    /// that has a child for what is asked.
    fn find_connection(
        &self,
        core: &Core,
        (remote, asked): (&Identity, Option<&Identity>),
        (selectors, method): (Option<&Selectors>, AuthMethod),
        directory: &Directory,
    ) -> Result<Arc<Connection>, AuthenticationError> {
        let offered = [(1, self.proposal.clone())];
        let connections = directory.by_addresses(core.path.local.ip(), core.path.remote.ip());
        let fitting = connections.iter().filter(|connection| {
            asked.is_none_or(|asked| is_our_identity(core, connection, asked))
                && choose_ike(&connection.proposals, &offered, None).is_ok()
        });
        let ends = core.ends();
        let has_child = |connection: &Connection| {
            selectors.is_some_and(|asked| choose_child(&connection.children, &ends, asked).is_ok())
        };
        let ranked = fitting.map(|connection| {
            let rank = connection.remote.id.rank(remote);
            let fits = is_method_of(&connection.remote.method, method);
            ((rank, fits, rank > 0 && has_child(connection)), connection)
        });
        let best = ranked.filter(|((rank, ..), _)| *rank > 0);
        let best = best.reduce(|best, next| if next.0 > best.0 { next } else { best });
        let (_, connection) = best.ok_or_else(|| {
            let configured = connections.iter().map(|connection| {
                let local = core.local_identity(connection);
                format!("{} ({local}...{})", connection.name, connection.remote.id)
            });
            AuthenticationError::NoConnection {
                remote: remote.clone(),
                local: asked.map_or_else(|| "%any".to_owned(), ToString::to_string),
                configured: configured.take(16).collect::<Vec<_>>().join(", "),
            }
        })?;
        Ok(Arc::clone(connection))
    }

    fn accept(
        self: Box<Self>,
        core: &mut Core,
        datagram: &Datagram<'_>,
        (mut keys, mut auth): (SaKeys, AuthKeys),
        authenticated: Authenticated,
        payloads: &Payloads<'_>,
        cx: &mut Context,
    ) -> State {
        let Authenticated {
            connection,
            peer,
            with_ppk,
            has_ppk,
            verdict,
        } = authenticated;
        let uses_ppk = with_ppk.is_some();
        if let Some(mixed) = with_ppk {
            ppk::log_use(core, &mixed.name, cx);
            (keys.sk_d, auth) = (mixed.sk_d, mixed.auth);
        }
        let proof = match self.prove((&keys, &auth), &connection, &peer, payloads, cx) {
            Ok(proof) => proof,
            Err(error) => {
                let sealing = (keys, self.window);
                return refuse(core, sealing, datagram, &error.into(), cx);
            }
        };
        let resumed = self.done.resumed.as_deref();
        let elsewhere = connection.redirect_from(core.path);
        let elsewhere = elsewhere.filter(|_| self.may_redirect);
        let leased = match elsewhere {
            Some(_) => Ok(None),
            None => {
                let peer = &peer.remote_id;
                configuration::lease(&connection, peer, resumed, payloads, core, cx)
            }
        };
        core.connection = Some(Arc::clone(&connection));
        if let Verdict::Proven(how) = verdict {
            let message = format!("{} authenticated with {how}", peer.remote_id);
            core.log(cx, "IKE", message);
        }
        log_proof(core, &peer.local_id, &proof, cx);
        let mut response = PayloadWriter::new();
        response.add(PayloadType::ID_R, &peer.local_id.to_payload_body());
        add_certificates(&mut response, &proof.certificates);
        proof.add_auth(&mut response);
        if uses_ppk {
            add_notify(&mut response, NotifyType::PPK_IDENTITY, &[]);
        }
        add_auth_lifetime(&connection, resumed, &mut response, cx);

        let exchange = &self.done.exchange;
        let nat = self.done.nat.unwrap_or_default();
        let mut sa = Established::new(core, peer, keys, nat, self.window, cx);
        sa.set_lowest_nonce(&exchange.ni, &exchange.nr);
        sa.note_proof(&connection, has_ppk, resumed, cx);
        sa.answer_extensions(core, &connection, payloads, &mut response, cx);
        sa.redirection.is_supported = self.may_redirect;
        if let Some(gateway) = elsewhere {
            sa.redirect_at_once(core, gateway, &mut response, cx);
        }
        sa.grant_ticket(core, payloads, &mut response, cx);
        let asks_child = payloads.sa.is_some() || payloads.ts_i.is_some();
        let wants_child = elsewhere.is_none() && asks_child;
        let child = wants_child
            .then(|| sa.first_child(core, exchange, (leased, payloads), &mut response, cx));
        sa.answer(core, datagram, response, cx);
        sa.let_in(core, (resumed, child), payloads, cx);
        State::Established(Box::new(sa))
    }

    /// Proves who we are, in the way of the connection and as far as the peer can check it.
    fn prove(
        &self,
        (keys, auth): (&SaKeys, &AuthKeys),
        connection: &Connection,
        peer: &Peer,
        payloads: &Payloads<'_>,
        cx: &mut Context,
    ) -> Result<OurProof, AuthenticationError> {
        let id_body = peer.local_id.to_payload_body();
        let octets = Octets::of_responder(keys.prf, &self.done.exchange, auth, &id_body);
        if self.done.resumed.is_some() {
            return Ok(OurProof::of_session(&octets, &auth.responder));
        }
        let mut support = self.done.peer.clone();
        support.learn(payloads);
        let ids = (&peer.local_id, Some(&peer.remote_id));
        let mut proof = prove(cx, &connection.local.method, ids, &octets, &support)?;
        proof.staple(cx);
        Ok(proof)
    }
}

impl Established {
    /// Takes up the extensions that the initiator has announced, and announces those that are ours.
    fn answer_extensions(
        &mut self,
        core: &Core,
        connection: &Connection,
        payloads: &Payloads<'_>,
        response: &mut PayloadWriter,
        cx: &mut Context,
    ) {
        crash_token::announce(core, response, cx);
        self.take_crash_token(payloads);
        if message_id_sync::is_announced(payloads) {
            message_id_sync::announce(response);
        }
        self.message_id_sync = Synchronization::negotiate(payloads);
        self.mobike = Mobike::negotiate(connection, false, payloads);
        if self.mobike.is_some() {
            mobike::announce(response, connection, core.path.local.ip(), cx);
        }
    }

    /// The peer has proven itself and has been answered: makes the SA known, with the Child SA it has asked for.
    fn let_in(
        &mut self,
        core: &mut Core,
        (resumed, child): (Option<&Session>, Option<Result<ChildSa, ExchangeError>>),
        payloads: &Payloads<'_>,
        cx: &mut Context,
    ) {
        if let Some(Session { spis, .. }) = resumed {
            cx.tickets.void(*spis);
            cx.effects.push(Effect::Resumed { spis: *spis });
        }
        let initial_contact = payloads.notify(NotifyType::INITIAL_CONTACT).is_some();
        self.announce(core, initial_contact, cx);
        match child {
            Some(Ok(child)) => self.child_up(core, child, Vec::new(), cx),
            Some(Err(error)) => {
                let line = format!("refused CHILD_SA: {error}");
                core.alert_of_stranger(cx, error.alert_kind(Subject::Child), line);
            }
            None => {}
        }
        self.start_next(core, cx);
    }
}

/// Whether a connection's identity is `asked`, which a peer named in IDr.
fn is_our_identity(core: &Core, connection: &Connection, asked: &Identity) -> bool {
    core.local_identity(connection).is_same(asked)
}

/// What a connection asks of a peer that is known.
fn check_policy(
    core: &Core,
    (authenticated, resumes): (&Authenticated, bool),
    payloads: &Payloads<'_>,
    cx: &Context,
) -> Result<(), ExchangeError> {
    let Authenticated {
        connection, peer, ..
    } = authenticated;
    payloads.configuration()?;
    let is_childless = payloads.sa.is_none() && payloads.ts_i.is_none();
    if is_childless && connection.childless == Childless::Never {
        return Err(ExchangeError::Missing("SA"));
    }
    // A new authentication comes from where the old one was, a peer that has restarted says so, and what is
    // resumed goes.
    let addr = core.path.remote.ip();
    if connection.unique == Unique::Keep
        && !resumes
        && payloads.notify(NotifyType::INITIAL_CONTACT).is_none()
        && cx
            .peers
            .has_elsewhere(&peer.local_id, &peer.remote_id, addr)
    {
        return Err(AuthenticationError::NotUnique(peer.remote_id.clone()).into());
    }
    Ok(())
}

/// Answers with the reason and keeps nothing but the answer.
pub(super) fn refuse(
    core: &Core,
    (mut keys, mut window): (SaKeys, Window),
    datagram: &Datagram<'_>,
    error: &ExchangeError,
    cx: &mut Context,
) -> State {
    let (remote, request) = (core.path.remote, &datagram.header);
    let exchange = request.exchange;
    let line = format!("refused {exchange} of {remote}: {error}");
    core.alert_of_stranger(cx, error.alert_kind(Subject::Ike), line);
    cx.discard(error.discard());
    let mut payloads = PayloadWriter::new();
    error.encode(&mut payloads);
    let header = core.header(exchange, true, request.message_id);
    let response = keys.seal(header, payloads, datagram.path);
    cx.send(datagram.path, &response);
    window.answer(datagram.bytes, response);
    State::Refused(Box::new(Refused {
        window,
        expires: cx.now + cx.settings.half_open_timeout,
    }))
}

impl Refused {
    pub(super) fn on_request(self: Box<Self>, datagram: &Datagram<'_>, cx: &mut Context) -> State {
        match self.window.classify(datagram) {
            Arrival::Repeated => self.window.repeat(datagram.path, cx),
            Arrival::Fresh | Arrival::Recut | Arrival::Outside => cx.discard(Discard::StaleRequest),
        }
        State::Refused(self)
    }

    pub(super) fn on_timer(self: Box<Self>, cx: &Context) -> State {
        if cx.now < self.expires {
            return State::Refused(self);
        }
        State::Gone
    }

    pub(super) fn deadline(&self) -> Instant {
        self.expires
    }
}
