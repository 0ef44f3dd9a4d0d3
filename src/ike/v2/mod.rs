//! IKEv2 (RFC 7296): one IKE SA and its states.
//!
//! ```text
//! InitSent ─► (IntermediateSent) ─► AuthSent ─┐
//!                                             ├─► Established ─► Gone
//! ResumeSent ─────────────────────► AuthSent ─┤       │
//! HalfOpen ───────────────────────────────────┘       │
//!     └─► Refused ─► Gone                             └─► (rekey) another Established
//! ```

mod auth;
mod auth_lifetime;
mod auth_methods;
mod auth_request;
mod authentication;
mod certificates;
mod child;
mod children;
mod collision;
mod configuration;
mod crash_token;
mod create;
mod create_request;
mod error;
mod established;
mod first_child;
mod followup;
mod fragment;
mod held;
mod inactivity;
mod informational;
mod init;
mod init_request;
mod initiation;
mod int_auth;
mod intermediate;
mod key_exchanges;
mod lingering;
mod liveness;
mod message;
mod message_id_sync;
mod mobike;
mod offer;
mod ppk;
mod protect;
mod redirect;
mod rekey;
mod rekey_child;
mod resume;
mod resume_request;
mod resumption;
mod siblings;
mod tasks;
mod transport;
mod window;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

use crate::ipsec::Reqid;
use crate::wire::isakmp::{ExchangeType, Flags, Header, IkeSpi, PayloadType};
use crate::wire::proposal::IkeSuite;

use super::context::{Attempt, Context};
use super::pad::Connection;
use super::status::{IkeSaStatus, IkeState, NatStatus};
use super::{Alert, AlertKind, Discard, Event, Identity, Path};

pub(super) use child::{ChildSa, End};
pub(super) use configuration::VirtualIps;
pub(super) use error::ExchangeError;
pub(super) use established::{Established, Inheritance, Peer};
pub(super) use fragment::Outgoing;
pub(super) use init::InitSent;
pub(super) use init_request::{HalfOpen, InitRequest};
pub(super) use message::{Datagram, Payloads, add_notify};
pub(super) use resume::ResumeSent;
pub(super) use tasks::Task;

/// One IKE SA in any state.
pub(super) struct IkeSa {
    pub(super) core: Core,
    state: State,
}

/// What an IKE SA is in every state.
#[derive(Clone, Debug)]
pub(super) struct Core {
    pub(super) id: u64,
    pub(super) initiator_spi: IkeSpi,
    pub(super) responder_spi: IkeSpi,
    /// We sent IKE_SA_INIT, or the request of the rekey that made this SA.
    pub(super) initiator: bool,
    pub(super) path: Path,
    /// The responder learns it from the identities.
    pub(super) connection: Option<Arc<Connection>>,
    /// Where the IKE_SA_INIT that we answered came from.
    pub(super) init_from: Option<SocketAddr>,
    pub(super) virtual_ips: VirtualIps,
}

/// How far an IKE SA is. A step consumes a state and yields the next.
pub(super) enum State {
    InitSent(Box<InitSent>),
    ResumeSent(Box<ResumeSent>),
    IntermediateSent(Box<intermediate::IntermediateSent>),
    AuthSent(Box<auth::AuthSent>),
    HalfOpen(Box<HalfOpen>),
    Refused(Box<auth_request::Refused>),
    Established(Box<Established>),
    Gone,
}

impl Core {
    /// Of an IKE SA that we are about to open.
    fn begin(attempt: &Attempt, path: Path, cx: &mut Context) -> Self {
        Self {
            id: cx.next_id(),
            initiator_spi: cx.ike_spi(),
            responder_spi: IkeSpi::ZERO,
            initiator: true,
            path,
            connection: Some(Arc::clone(&attempt.connection)),
            init_from: None,
            virtual_ips: VirtualIps::default(),
        }
    }

    /// Of an IKE SA that a peer opens with this request.
    fn answer(request: &Datagram<'_>, cx: &mut Context) -> Self {
        Self {
            id: cx.next_id(),
            initiator_spi: request.header.initiator_spi,
            responder_spi: cx.ike_spi(),
            initiator: false,
            path: request.path,
            connection: None,
            init_from: Some(request.remote()),
            virtual_ips: VirtualIps::default(),
        }
    }

    pub(super) fn local_spi(&self) -> IkeSpi {
        if self.initiator {
            self.initiator_spi
        } else {
            self.responder_spi
        }
    }

    pub(super) fn remote_spi(&self) -> IkeSpi {
        if self.initiator {
            self.responder_spi
        } else {
            self.initiator_spi
        }
    }

    pub(super) fn spis(&self) -> (IkeSpi, IkeSpi) {
        (self.initiator_spi, self.responder_spi)
    }

    /// Header of a message of ours; the writer fills in the rest.
    pub(super) fn header(&self, exchange: ExchangeType, response: bool, message_id: u32) -> Header {
        Header {
            initiator_spi: self.initiator_spi,
            responder_spi: self.responder_spi,
            next_payload: PayloadType::NONE,
            version: Header::VERSION_2_0,
            exchange,
            flags: Flags::new(self.initiator, response),
            message_id,
            length: 0,
        }
    }

    pub(super) fn name(&self) -> &str {
        self.connection
            .as_ref()
            .map_or("", |connection| &connection.name)
    }

    /// How a log names this SA.
    pub(super) fn label(&self) -> Option<(String, u64)> {
        Some((self.name().to_owned(), self.id))
    }

    pub(super) fn log(&self, cx: &mut Context, group: &'static str, message: String) {
        cx.log(group, self.label(), message);
    }

    pub(super) fn warn(&self, cx: &mut Context, group: &'static str, message: String) {
        cx.warn(group, self.label(), message);
    }

    /// Tells that something failed.
    fn alert(&self, cx: &mut Context, kind: AlertKind, child: Option<String>, message: String) {
        let alert = self.new_alert(cx, kind, child, message);
        cx.event(Event::Alert(alert));
    }

    /// The same, where a stranger can cause it.
    fn alert_of_stranger(&self, cx: &mut Context, kind: AlertKind, message: String) {
        cx.alert_of_stranger(|cx| self.new_alert(cx, kind, None, message));
    }

    fn new_alert(
        &self,
        cx: &Context,
        kind: AlertKind,
        child: Option<String>,
        message: String,
    ) -> Alert {
        let (local, remote) = (self.path.local.ip(), self.path.remote.ip());
        Alert {
            kind,
            connections: match &self.connection {
                Some(connection) => vec![connection.name.clone()],
                None => Alert::candidates(&cx.pad, local, remote),
            },
            child,
            ike: Some(Box::new(self.status())),
            message,
        }
    }

    fn status(&self) -> IkeSaStatus {
        IkeSaStatus {
            id: self.id,
            name: self.name().to_owned(),
            state: IkeState::Connecting,
            local: self.path.local,
            remote: self.path.remote,
            local_id: None,
            remote_id: None,
            initiator: self.initiator,
            initiator_spi: self.initiator_spi,
            responder_spi: self.responder_spi,
            nat: NatStatus::default(),
            suite: None,
            established: None,
            rekey_at: None,
            reauth_at: None,
            tasks_queued: Vec::new(),
            tasks_active: Vec::new(),
            local_vips: self.virtual_ips.local.clone(),
            remote_vips: self.virtual_ips.remote.clone(),
            dns: self.virtual_ips.dns.clone(),
            subnets: self.virtual_ips.subnets.clone(),
            children: Vec::new(),
        }
    }

    /// Tells that this SA was given up before it was established.
    fn failed_event(&self, reason: &str, cx: &mut Context) {
        let ike = Box::new(self.status());
        let reason = reason.to_owned();
        cx.event(Event::IkeDown { ike, reason });
    }

    /// Our identity towards this peer.
    fn local_identity(&self, connection: &Connection) -> Identity {
        connection.local_identity(self.path.local.ip())
    }
}

impl IkeSa {
    pub(super) fn new(core: Core, state: State) -> Self {
        Self { core, state }
    }

    /// Takes a message whose SPIs are this SA's.
    pub(super) fn on_datagram(&mut self, datagram: &Datagram<'_>, cx: &mut Context) {
        let (core, exchange) = (&mut self.core, datagram.header.exchange);
        let response = datagram.header.flags.response();
        self.state = match std::mem::replace(&mut self.state, State::Gone) {
            State::InitSent(sa) if response && exchange == ExchangeType::IKE_SA_INIT => {
                sa.on_response(core, datagram, cx)
            }
            State::ResumeSent(sa) if response && exchange == ExchangeType::IKE_SESSION_RESUME => {
                sa.on_response(core, datagram, cx)
            }
            State::IntermediateSent(sa)
                if response && exchange == ExchangeType::IKE_INTERMEDIATE =>
            {
                sa.on_response(core, datagram, cx)
            }
            State::AuthSent(sa) if response && exchange == ExchangeType::IKE_AUTH => {
                sa.on_response(core, datagram, cx)
            }
            State::HalfOpen(sa) if !response => sa.on_request(core, datagram, cx),
            State::Refused(sa) if !response => sa.on_request(datagram, cx),
            State::Established(sa) => sa.on_datagram(core, datagram, cx),
            state @ State::Gone => state,
            state => {
                cx.discard(Discard::UnknownExchange);
                state
            }
        };
    }

    /// Looks again at a message that waits, since more is known of revocations.
    pub(super) fn resume_verification(&mut self, cx: &mut Context) {
        let core = &mut self.core;
        self.state = match std::mem::replace(&mut self.state, State::Gone) {
            State::AuthSent(sa) => sa.resume(core, cx),
            State::HalfOpen(sa) => sa.resume(core, cx),
            state => state,
        };
    }

    /// Does what is due.
    pub(super) fn on_timer(&mut self, cx: &mut Context) {
        let core = &mut self.core;
        self.state = match std::mem::replace(&mut self.state, State::Gone) {
            State::InitSent(sa) => sa.on_timer(core, cx),
            State::ResumeSent(sa) => sa.on_timer(core, cx),
            State::IntermediateSent(sa) => sa.on_timer(core, cx),
            State::AuthSent(sa) => sa.on_timer(core, cx),
            State::HalfOpen(sa) => sa.on_timer(core, cx),
            State::Refused(sa) => sa.on_timer(cx),
            State::Established(sa) => sa.on_timer(core, cx),
            State::Gone => State::Gone,
        };
    }

    /// Lets `act` change an established SA, and then sends what it may have queued.
    pub(super) fn with_established(
        &mut self,
        cx: &mut Context,
        act: impl FnOnce(&mut Established, &mut Core, &mut Context),
    ) {
        if let State::Established(sa) = &mut self.state {
            act(sa, &mut self.core, cx);
            sa.start_next(&mut self.core, cx);
        }
    }

    /// Follows a changed configuration.
    pub(super) fn reconfigure(&mut self, connection: &Arc<Connection>, cx: &mut Context) {
        self.core.connection = Some(Arc::clone(connection));
        self.with_established(cx, |established, _, cx| {
            established.reconfigure(connection, cx);
        });
        let Some(attempt) = self.attempt_mut() else {
            return;
        };
        let gone = attempt.reconfigure(connection);
        let ends = !gone.is_empty() && attempt.is_idle();
        cx.cancel(gone);
        if ends && matches!(self.state, State::InitSent(_) | State::ResumeSent(_)) {
            self.destroy(End::Terminated, cx);
        }
    }

    /// Ends it without telling the peer.
    pub(super) fn destroy(&mut self, end: End, cx: &mut Context) {
        match std::mem::replace(&mut self.state, State::Gone) {
            State::InitSent(sa) => sa.initiation.abandon(&self.core, &end, cx),
            State::ResumeSent(sa) => sa.initiation.abandon(&self.core, &end, cx),
            State::IntermediateSent(sa) => sa.initiation.abandon(&self.core, &end, cx),
            State::AuthSent(sa) => sa.abandon(&self.core, end, cx),
            State::Established(sa) => sa.close(&self.core, end, cx),
            State::HalfOpen(_) | State::Refused(_) | State::Gone => {}
        }
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        match &self.state {
            State::InitSent(sa) => Some(sa.initiation.request.due()),
            State::ResumeSent(sa) => Some(sa.initiation.request.due()),
            State::IntermediateSent(sa) => Some(sa.initiation.request.due()),
            State::AuthSent(sa) => Some(sa.deadline()),
            State::HalfOpen(sa) => Some(sa.deadline()),
            State::Refused(sa) => Some(sa.deadline()),
            State::Established(sa) => sa.deadline(),
            State::Gone => None,
        }
    }

    pub(super) fn is_gone(&self) -> bool {
        matches!(self.state, State::Gone)
    }

    /// Set up by the peer and not authenticated.
    pub(super) fn is_half_open(&self) -> bool {
        matches!(self.state, State::HalfOpen(_) | State::Refused(_))
    }

    pub(super) fn established(&self) -> Option<&Established> {
        match &self.state {
            State::Established(sa) => Some(sa),
            _ => None,
        }
    }

    /// Not established, but on its way to be, by our own request.
    pub(super) fn attempt_mut(&mut self) -> Option<&mut Attempt> {
        match &mut self.state {
            State::InitSent(sa) => Some(&mut sa.initiation.attempt),
            State::ResumeSent(sa) => Some(&mut sa.initiation.attempt),
            State::IntermediateSent(sa) => Some(&mut sa.initiation.attempt),
            State::AuthSent(sa) => Some(&mut sa.initiation.attempt),
            _ => None,
        }
    }

    fn attempt(&self) -> Option<&Attempt> {
        match &self.state {
            State::InitSent(sa) => Some(&sa.initiation.attempt),
            State::ResumeSent(sa) => Some(&sa.initiation.attempt),
            State::IntermediateSent(sa) => Some(&sa.initiation.attempt),
            State::AuthSent(sa) => Some(&sa.initiation.attempt),
            _ => None,
        }
    }

    /// The IKE SA that an attempt of ours replaces by a new authentication.
    pub(super) fn replaces(&self) -> Option<u64> {
        self.attempt()?.replaces
    }

    /// Whether the attempt in progress brings a Child SA for this policy.
    pub(super) fn connects_for(&self, reqid: Reqid) -> bool {
        let wanted = self.attempt().is_some_and(|attempt| attempt.wants(reqid));
        wanted || matches!(&self.state, State::AuthSent(sa) if sa.offers(reqid))
    }

    /// Whether an attempt of ours is in progress.
    pub(super) fn is_connecting(&self) -> bool {
        self.attempt().is_some()
    }

    /// Bytes of fragments that a peer which is not authenticated has made us keep.
    pub(super) fn held_half_open(&self) -> usize {
        match &self.state {
            State::HalfOpen(sa) => sa.held(),
            _ => 0,
        }
    }

    /// The request that made this half-open SA, to tell a repetition from a new attempt.
    pub(super) fn init_request(&self) -> Option<&[u8]> {
        match &self.state {
            State::HalfOpen(sa) => Some(sa.init_request()),
            _ => None,
        }
    }

    pub(super) fn status(&self, with_children: bool) -> IkeSaStatus {
        match &self.state {
            State::Established(sa) => sa.status(&self.core, with_children),
            State::IntermediateSent(sa) => sa.status(&self.core),
            State::AuthSent(sa) => sa.status(&self.core),
            State::HalfOpen(sa) => sa.status(&self.core),
            State::InitSent(_) | State::ResumeSent(_) | State::Refused(_) | State::Gone => {
                self.core.status()
            }
        }
    }
}

/// Algorithms, identities and NAT of a state that knows them.
fn fill_status(status: &mut IkeSaStatus, suite: IkeSuite, nat: NatStatus) {
    status.suite = Some(suite);
    status.nat = nat;
}

/// The same address with another port.
fn with_port(addr: SocketAddr, port: u16) -> SocketAddr {
    let ip: IpAddr = addr.ip();
    SocketAddr::new(ip, port)
}
