//! IKE_SA_INIT as responder (RFC 7296 §1.2).

use std::sync::Arc;
use std::time::Instant;

use crate::crypto::kex;
use crate::ike::context::Context;
use crate::ike::nat;
use crate::ike::negotiate::{Choice, choose_ike, single_exchange};
use crate::ike::pad::{Childless, Connection};
use crate::ike::redirect::is_supported;
use crate::ike::status::IkeSaStatus;
use crate::ike::{AlertKind, Discard};
use crate::wire::ikev2::{NotifyType, PayloadWriter, message_bytes};
use crate::wire::isakmp::{ExchangeType, IkeSpi, PayloadType};
use crate::wire::proposal::{IkeSuite, KeyExchangeId, SaProposal};

use super::auth_methods;
use super::auth_request::Waiting;
use super::authentication::{PeerSupport, add_hash_algorithms};
use super::certificates::add_requests;
use super::error::ExchangeError;
use super::fragment::{self, FragmentRules};
use super::init::{Features, InitDone, InitExchange};
use super::intermediate::{self, Opening};
use super::message::{Datagram, Payloads, add_ke, add_notify};
use super::ppk::PpkUse;
use super::protect::Opened;
use super::window::{Arrival, Window};
use super::{Core, IkeSa, State, fill_status};

/// A peer's IKE_SA_INIT or IKE_SESSION_RESUME request that may be answered.
pub(in crate::ike) struct InitRequest<'a> {
    pub(in crate::ike) datagram: Datagram<'a>,
    pub(in crate::ike) payloads: &'a Payloads<'a>,
    /// Connections for its addresses, the best first.
    pub(in crate::ike) connections: Vec<&'a Arc<Connection>>,
}

/// We have answered IKE_SA_INIT or IKE_SESSION_RESUME and wait for IKE_AUTH.
pub(in crate::ike) struct HalfOpen {
    /// The chosen proposal, to find a connection that allows it.
    pub(super) proposal: SaProposal,
    pub(super) done: InitDone,
    /// Both sides do IKE_INTERMEDIATE.
    intermediate: bool,
    /// The initiator goes where it is sent to.
    pub(super) may_redirect: bool,
    pub(super) window: Window,
    /// Kept once it has opened a message, or a fragment of one.
    pub(super) opening: Option<Box<Opening>>,
    /// The request that waits for revocation information.
    pub(super) waiting: Option<Box<Waiting>>,
    pub(super) expires: Instant,
}

impl InitRequest<'_> {
    /// Negotiates, answers and waits for IKE_AUTH.
    pub(in crate::ike) fn answer(self, cx: &mut Context) -> Result<IkeSa, ExchangeError> {
        let path = self.datagram.path;
        let mut proposals = self.payloads.proposals()?;
        let follows = NotifyType::INTERMEDIATE_EXCHANGE_SUPPORTED;
        let intermediate = self.payloads.notify(follows).is_some();
        if !intermediate {
            proposals = single_exchange(&proposals);
        }
        let ke = self.payloads.key_exchange()?;
        let ni = self.payloads.nonce()?;
        let (choice, connection) = self.choose(&proposals, ke.group)?;
        if ke.group != choice.suite.key_exchange {
            return Err(ExchangeError::OtherGroup(choice.suite.key_exchange));
        }
        let kex::Answer { public, shared } = kex::answer(ke.group, ke.data, cx.rng())?;
        let core = Core::answer(&self.datagram, cx);
        let nr = cx.nonce();

        let mut payloads = PayloadWriter::new();
        payloads.add_with(PayloadType::SA, |out| {
            choice.proposal.encode_answer(choice.number, out);
        });
        add_ke(&mut payloads, ke.group, &public);
        payloads.add(PayloadType::NONCE, &nr);
        let features = self.settle_features(&core, connection, &mut payloads, cx);
        if intermediate {
            add_notify(&mut payloads, follows, &[]);
        }
        let ppk = PpkUse::accept(&cx.pad, self.payloads, &mut payloads);
        let peer = PeerSupport::from_init(self.payloads);
        if peer.knows_signature_method() {
            add_hash_algorithms(&mut payloads);
        }
        let connections = || self.connections.iter().map(|connection| &***connection);
        add_requests(&mut payloads, connections());
        auth_methods::announce(&mut payloads, connections());
        let header = core.header(ExchangeType::IKE_SA_INIT, true, 0);
        let response = message_bytes(header, payloads.finish());
        cx.transmit(path, response.clone());

        let request = self.datagram.bytes.to_vec();
        let exchange = InitExchange::new(request, response, (ni.to_vec(), nr));
        let secret = (choice.suite, shared);
        let done = InitDone::exchanged(exchange, secret, features, peer, ppk);
        let half_open = HalfOpen::begin(choice.proposal, done, intermediate, self.payloads, cx);
        Ok(IkeSa::new(core, half_open))
    }

    /// Says what we understand of what the initiator does, as every first answer does.
    pub(super) fn settle_features(
        &self,
        core: &Core,
        connection: &Connection,
        response: &mut PayloadWriter,
        cx: &mut Context,
    ) -> Features {
        let (notifies, path, force) = (&self.payloads.notifies, core.path, connection.encap);
        let asked = (core.initiator_spi, IkeSpi::ZERO);
        let nat = nat::detect(notifies, asked, path, force);
        if nat.is_some() {
            nat::add_notifies(response, core.spis(), path, force, cx.rng());
        }
        let childless = self.accepts_childless();
        if childless {
            add_notify(response, NotifyType::CHILDLESS_IKEV2_SUPPORTED, &[]);
        }
        let ours = connection.fragmentation;
        let fragments = FragmentRules::negotiate(ours, self.payloads, &cx.settings);
        if fragments.is_negotiated() {
            fragment::announce(response);
        }
        Features {
            nat,
            childless,
            fragments,
        }
    }

    /// One of the connections that it may be for accepts an IKE SA without a child (RFC 6023).
    fn accepts_childless(&self) -> bool {
        let mut connections = self.connections.iter();
        connections.any(|connection| connection.childless != Childless::Never)
    }

    /// The first connection, best first, with which the peer has a proposal in common.
    fn choose(
        &self,
        proposals: &[(u8, SaProposal)],
        sent: KeyExchangeId,
    ) -> Result<(Choice<IkeSuite>, &Connection), ExchangeError> {
        let mut refusal = None;
        for connection in &self.connections {
            match choose_ike(&connection.proposals, proposals, Some(sent)) {
                Ok(choice) => return Ok((choice, connection)),
                Err(error) => refusal = refusal.or(Some(error)),
            }
        }
        Err(refusal.map_or(ExchangeError::Busy("no connection"), ExchangeError::from))
    }
}

impl HalfOpen {
    /// After the answer to the first request, which has these payloads.
    pub(super) fn begin(
        proposal: SaProposal,
        done: InitDone,
        intermediate: bool,
        request: &Payloads<'_>,
        cx: &Context,
    ) -> State {
        State::HalfOpen(Box::new(Self {
            proposal,
            done,
            intermediate,
            may_redirect: is_supported(request),
            window: Window::new(0, intermediate::FIRST_ID),
            opening: None,
            waiting: None,
            expires: cx.now + cx.settings.half_open_timeout,
        }))
    }

    pub(super) fn on_request(
        self: Box<Self>,
        core: &mut Core,
        datagram: &Datagram<'_>,
        cx: &mut Context,
    ) -> State {
        let header = &datagram.header;
        match header.exchange {
            ExchangeType::IKE_SA_INIT | ExchangeType::IKE_SESSION_RESUME => {
                cx.discard(Discard::Retransmission);
                cx.transmit(datagram.path, self.done.exchange.response.clone());
                State::HalfOpen(self)
            }
            ExchangeType::IKE_AUTH if self.waiting.is_some() => {
                cx.discard(Discard::StaleRequest);
                State::HalfOpen(self)
            }
            ExchangeType::IKE_AUTH => self.on_next(core, datagram, Self::on_auth_request, cx),
            ExchangeType::IKE_INTERMEDIATE if self.intermediate && self.waiting.is_none() => {
                self.on_next(core, datagram, Self::on_intermediate_request, cx)
            }
            _ => {
                cx.discard(Discard::UnknownExchange);
                State::HalfOpen(self)
            }
        }
    }

    /// Opens a request whose turn has come, and lets `act` take it.
    fn on_next(
        mut self: Box<Self>,
        core: &mut Core,
        datagram: &Datagram<'_>,
        act: impl FnOnce(Box<Self>, &mut Core, &Datagram<'_>, (Opening, Opened), &mut Context) -> State,
        cx: &mut Context,
    ) -> State {
        match self.window.classify(datagram) {
            Arrival::Fresh => {
                let mut opening = self.take_opening(core, cx);
                if let Some(opened) = opening.keys.open(datagram, cx) {
                    // It is fresh and intact: the initiator may have floated to another port.
                    core.path = datagram.path;
                    return act(self, core, datagram, (opening, opened), cx);
                }
                self.keep(opening);
            }
            Arrival::Repeated => self.window.repeat(datagram.path, cx),
            Arrival::Recut | Arrival::Outside => cx.discard(Discard::OutsideWindow),
        }
        State::HalfOpen(self)
    }

    /// The keys so far; what is not put back is derived anew.
    fn take_opening(&mut self, core: &Core, cx: &Context) -> Opening {
        let kept = self.opening.take();
        kept.map_or_else(|| Opening::new(&self.done, core, cx), |opening| *opening)
    }

    /// Puts the keys back after a message that they have not opened. Strangers may guess: only what has
    /// opened something is worth keeping.
    fn keep(&mut self, opening: Opening) {
        if opening.is_begun() {
            self.opening = Some(Box::new(opening));
        }
    }

    pub(super) fn on_timer(self: Box<Self>, core: &mut Core, cx: &mut Context) -> State {
        let waiting = self.waiting.as_ref();
        if waiting.is_some_and(|waiting| waiting.until() <= cx.now) {
            return self.resume(core, cx);
        }
        if cx.now < self.expires {
            return State::HalfOpen(self);
        }
        let remote = core.path.remote;
        let line = format!("{remote} did not authenticate in time");
        core.alert_of_stranger(cx, AlertKind::HalfOpen, line);
        State::Gone
    }

    pub(super) fn deadline(&self) -> Instant {
        let waiting = self.waiting.as_ref();
        waiting.map_or(self.expires, |waiting| waiting.until())
    }

    /// Bytes of fragments that wait for the rest of their message.
    pub(super) fn held(&self) -> usize {
        let opening = self.opening.as_ref();
        opening.map_or(0, |opening| opening.keys.reassembly.held())
    }

    pub(super) fn init_request(&self) -> &[u8] {
        &self.done.exchange.request
    }

    pub(super) fn status(&self, core: &Core) -> IkeSaStatus {
        let mut status = core.status();
        fill_status(
            &mut status,
            self.done.suite,
            self.done.nat.unwrap_or_default(),
        );
        status
    }
}
