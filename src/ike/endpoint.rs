//! The endpoint: takes inputs, finds the IKE SA they are for, and collects what it wants done.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::crypto::CryptoRng;
use crate::ipsec::{ChildId, SaEvent, Spd};
use crate::wire::isakmp::{ExchangeType, Header};

use super::admission::Admission;
use super::commands::Acquire;
use super::context::{Attempt, CANCELLED, Cause, Context, Effect, Failure, RETRY_REFUSED, Wish};
use super::directory::Directory;
use super::pad::ChildConfig;
use super::planned::Planned;
use super::retransmit::jittered;
use super::revocation::{FetchId, Fetched};
use super::table::Table;
use super::v2::{Datagram, End, Established, IkeSa, InitSent, ResumeSent};
use super::{
    Alert, AlertKind, Discard, Event, IkeSaStatus, Input, Lease, Output, Pad, Path, Settings,
};

/// One IKE speaker, with every SA it has.
///
/// It does nothing by itself: [`Endpoint::handle`] takes an input, [`Endpoint::poll`] says what is
/// to be done, [`Endpoint::next_timeout`] says when to come back.
pub struct Endpoint {
    pub(super) cx: Context,
    pub(super) table: Table,
    pub(super) admission: Admission,
    pub(super) planned: Planned,
    pub(super) closing: bool,
    start: Option<Start>,
}

/// What is to be started at the next timer: not before, so that addresses can be told first.
struct Start {
    at: Instant,
    /// The configuration before; what it had started is not started again.
    old: Option<Arc<Directory>>,
}

impl Endpoint {
    /// An endpoint that installs the policies of `pad`. What `pad` says to start is started by the
    /// first [`Input::Timer`], which is due at once.
    pub fn new(
        settings: Settings,
        pad: Arc<Pad>,
        rng: Box<dyn CryptoRng + Send>,
        now: Instant,
    ) -> Self {
        let mut cx = Context::new(settings, pad, rng, now);
        let admission = Admission::new(now, cx.rng());
        cx.set_policies();
        Self {
            cx,
            table: Table::default(),
            admission,
            planned: Planned::default(),
            closing: false,
            start: Some(Start { at: now, old: None }),
        }
    }

    /// Takes one input. `now` never goes back.
    pub fn handle(&mut self, now: Instant, input: Input<'_>) {
        self.cx.now = now;
        match input {
            Input::Datagram { path, bytes } => self.on_datagram(path, bytes),
            Input::Timer => self.on_timer(),
            Input::Command { id, command } => self.on_command(id, command),
            Input::Sa(event) => self.on_sa_event(event),
            Input::SourceAddress { remote, local } => self.on_source(remote, local),
            Input::Addresses { own, sources } => self.on_addresses(own, sources),
            Input::TimeOfDay(time) => self.cx.set_clock(time),
            Input::TicketKeys(keys) => self.cx.tickets.set_keys(keys),
            Input::Fetched { id, result } => self.on_fetched(id, result),
        }
    }

    fn on_fetched(&mut self, id: FetchId, result: Result<Fetched, String>) {
        let time = (self.cx.now, self.cx.time_of_day());
        if let Err(reason) = self.cx.revocation.on_fetched(id, result, time) {
            let message = format!("revocation information: {reason}");
            self.cx.warn("CFG", None, message);
        }
        self.resume_verification();
    }

    /// Lets the IKE SAs look again whose revocation information is there, or is not to be had.
    fn resume_verification(&mut self) {
        while let Some(id) = self.cx.revocation.wake() {
            self.step(id, |sa, cx| sa.resume_verification(cx));
        }
    }

    /// The next thing to do; to be asked until there is none.
    pub fn poll(&mut self) -> Option<Output> {
        self.cx.poll()
    }

    /// When [`Input::Timer`] is due.
    pub fn next_timeout(&self) -> Option<Instant> {
        let start = self.start.as_ref().map(|start| start.at);
        let all = [
            self.table.next_deadline(),
            self.planned.due(),
            self.cx.revocation.next_deadline(),
            start,
        ];
        all.into_iter().flatten().min()
    }

    /// Every IKE SA with its Child SAs.
    pub fn ike_sas(&self) -> impl Iterator<Item = IkeSaStatus> {
        let sas = self.table.iter().filter(|sa| !sa.is_half_open());
        sas.map(|sa| sa.status(true))
    }

    /// How many messages were ignored, in the order of [`Discard::ALL`].
    pub fn discards(&self) -> &[u64; Discard::COUNT] {
        self.cx.discards()
    }

    /// IKE SAs that are not authenticated yet, as responder.
    pub fn half_open(&self) -> usize {
        self.table.half_open()
    }

    /// The policies in force: those of the configuration, with our virtual addresses.
    pub fn policies(&self) -> Spd {
        self.cx.policies()
    }

    /// Our addresses that peers have given us (RFC 7296 §2.19). They change with
    /// [`crate::ipsec::SaUpdate::SetPolicies`].
    pub fn virtual_ips(&self) -> impl Iterator<Item = IpAddr> {
        self.cx.all_virtual_ips()
    }

    /// Who has addresses of a pool of ours, or had them last.
    pub fn leases(&self, pool: &str) -> impl Iterator<Item = &Lease> {
        self.cx.pools.leases(pool)
    }

    /// The configuration in use.
    pub fn pad(&self) -> &Arc<Pad> {
        &self.cx.pad
    }

    fn on_datagram(&mut self, path: Path, bytes: &[u8]) {
        if let Err(discard) = self.receive(path, bytes) {
            self.cx.discard(discard);
        }
    }

    fn receive(&mut self, path: Path, bytes: &[u8]) -> Result<(), Discard> {
        if bytes.len() > MAX_MESSAGE {
            return Err(Discard::TooLong);
        }
        let (header, payloads) = Header::parse(bytes).map_err(|_| Discard::Malformed)?;
        let datagram = Datagram {
            path,
            header,
            bytes,
            payloads,
        };
        if header.major_version() != 2 {
            self.refuse_version(&datagram);
            return Err(Discard::WrongVersion);
        }
        if header.initiator_spi.is_zero() {
            return Err(Discard::BadHeader);
        }
        let is_first = matches!(
            header.exchange,
            ExchangeType::IKE_SA_INIT | ExchangeType::IKE_SESSION_RESUME
        );
        if is_first && !header.flags.response() {
            return self.on_init_request(&datagram);
        }
        if self.take_crash_tokens(&datagram)? {
            return Ok(());
        }
        // The I flag says who is the original initiator, and so which SPI is ours.
        let local = if header.flags.initiator() {
            header.responder_spi
        } else {
            header.initiator_spi
        };
        let Some(sa) = self.table.by_spi(local) else {
            self.refuse_spi(&datagram);
            return Err(Discard::UnknownIkeSpi);
        };
        let known = sa.core.remote_spi();
        let remote = if header.flags.initiator() {
            header.initiator_spi
        } else {
            header.responder_spi
        };
        let fits = remote == known || (is_first && known.is_zero());
        if sa.core.initiator == header.flags.initiator() || !fits {
            return Err(Discard::BadHeader);
        }
        let id = sa.core.id;
        self.step(id, |sa, cx| sa.on_datagram(&datagram, cx));
        if let Some(oldest) = self.table.holding_too_much() {
            self.table.evict(oldest);
            return Err(Discard::FragmentLimit);
        }
        Ok(())
    }

    /// Changes one IKE SA and does what follows for others.
    pub(super) fn step(&mut self, id: u64, act: impl FnOnce(&mut IkeSa, &mut Context)) {
        if let Some(mut sa) = self.table.take(id) {
            act(&mut sa, &mut self.cx);
            if !sa.is_connecting() {
                self.planned.release(id);
            }
            self.table.put(sa);
        }
        self.settle();
    }

    /// Follows the effects of a step until there are none.
    fn settle(&mut self) {
        for _ in 0..MAX_EFFECTS {
            if self.cx.effects.is_empty() {
                return;
            }
            let effect = self.cx.effects.remove(0);
            self.follow(effect);
        }
    }

    fn follow(&mut self, effect: Effect) {
        match effect {
            Effect::Spawn(sa) => {
                let id = sa.core.id;
                self.table.put(*sa);
                self.step(id, |sa, cx| sa.with_established(cx, |_, _, _| {}));
            }
            Effect::Inherit {
                from,
                to,
                inheritance,
            } => {
                self.step(to, |sa, cx| {
                    sa.with_established(cx, |established, core, cx| {
                        established.inherit(core, *inheritance, cx);
                    });
                });
                self.replace_heir(from, to);
            }
            Effect::Claim { heir } => self.with_contested(heir, |established, core, cx| {
                established.adopt_contested(core, cx);
            }),
            Effect::Withdrawn { heir } => {
                self.with_contested(heir, |established, _, _| established.keep_place());
            }
            Effect::Established {
                id,
                initial_contact,
            } => self.on_established(id, initial_contact),
            Effect::Failed(failure) => self.on_failure(failure),
            Effect::Connect(attempt) => self.go_on(attempt),
            Effect::Resumed { spis } => self.forget_resumed(spis),
            Effect::Restart(attempt, wait) => {
                let wait = jittered(wait, 50, self.cx.rng());
                self.planned.add(self.cx.now + wait, attempt);
            }
            Effect::Reauthenticate(id) => self.reauthenticate(id),
            Effect::Relieve {
                peer,
                children,
                lingers,
            } => self.relieve(&peer, children, lingers),
            Effect::Delete(id) => {
                self.stop_sending(id);
                self.end_ike(id, None, false);
            }
        }
    }

    fn on_timer(&mut self) {
        let now = self.cx.now;
        if let Some(start) = self.start.take() {
            self.start_configured(start.old.as_deref());
        }
        for _ in 0..=self.table.len() {
            let Some(id) = self.table.due(now) else {
                break;
            };
            self.planned.release(id);
            self.step(id, |sa, cx| sa.on_timer(cx));
        }
        self.cx.revocation.expire(now);
        self.resume_verification();
        self.begin_planned();
    }

    /// Begins what is planned, as far as it may.
    fn begin_planned(&mut self) {
        while let Some(mut attempt) = self.planned.pop(self.cx.now) {
            let awaited = std::mem::take(&mut attempt.awaits_source);
            if let Some(gateway) = attempt.detour.lacks_source().filter(|_| awaited) {
                let reason = format!("there is no route to {gateway}");
                self.cx.event(Event::Alert(Alert {
                    kind: AlertKind::Unreachable,
                    connections: vec![attempt.connection.name.clone()],
                    child: None,
                    ike: None,
                    message: format!("establishing IKE_SA failed: {reason}"),
                }));
                let cause = Cause::Silence(AlertKind::Unreachable);
                self.on_failure(Failure {
                    attempt,
                    reason,
                    cause,
                });
                continue;
            }
            let connection = Arc::clone(&attempt.connection);
            self.pursue(attempt);
            let name = &connection.name;
            if let Some(id) = self.table.find_by_name(name, IkeSa::is_connecting) {
                self.planned.begun(id);
            }
        }
    }

    /// Starts a new IKE SA.
    pub(super) fn connect(&mut self, attempt: Attempt) {
        let Some(remote) = attempt.destination() else {
            let name = attempt.connection.name.clone();
            let reason = format!("connection {name} does not name the peer's address");
            return self.give_up(attempt, &reason);
        };
        let connection = &attempt.connection;
        let unspecified = || match remote.ip() {
            IpAddr::V4(_) => IpAddr::from([0u8; 4]),
            IpAddr::V6(_) => IpAddr::from([0u8; 16]),
        };
        let local = connection
            .local_host(remote.ip())
            .or_else(|| attempt.detour.local())
            .or_else(|| self.cx.sources.get(&remote.ip()).copied())
            .unwrap_or_else(unspecified);
        let port = match (connection.remote_port, connection.local_port) {
            (500, local) if local != 500 => local,
            (500, _) => self.cx.settings.port,
            _ => self.cx.settings.port_nat_t,
        };
        let path = Path {
            local: (local, port).into(),
            remote,
        };
        let sa = match self.cx.take_ticket(&attempt, path) {
            Some(held) => Some(ResumeSent::start(attempt, held, path, &mut self.cx)),
            None => InitSent::start(attempt, path, &mut self.cx),
        };
        if let Some(sa) = sa {
            self.table.put(sa);
        }
        self.settle();
    }

    /// An attempt has failed: tries again if the configuration says so.
    fn on_failure(&mut self, failure: Failure) {
        let Failure {
            mut attempt,
            reason,
            cause,
        } = failure;
        let now = self.cx.now;
        for wish in &attempt.wishes {
            self.cx
                .commands
                .hold_acquires(wish.child.reqid, Acquire::First, now);
        }
        // A detour is not a try: anybody's answer may have named it.
        let was_detour = attempt.detour.fail();
        attempt.may_resume = true;
        attempt.tries = attempt.tries.saturating_add(u32::from(!was_detour));
        let limit = attempt.connection.keyingtries;
        let wait = match cause {
            Cause::Silence(_) | Cause::Refusal(_) if was_detour => RETRY_SILENT,
            Cause::Silence(_) if limit == 0 || attempt.tries < limit => RETRY_SILENT,
            Cause::Refusal(_) if limit == 0 => RETRY_REFUSED,
            Cause::Silence(_) | Cause::Refusal(_) | Cause::Cancelled => {
                return self.give_up(attempt, &reason);
            }
        };
        if self.closing {
            return self.give_up(attempt, &reason);
        }
        let wait = jittered(wait, 50, self.cx.rng());
        self.planned.add(now + wait, attempt);
    }

    /// Tells everybody who waits that it came to nothing.
    pub(super) fn give_up(&mut self, attempt: Attempt, reason: &str) {
        if let Some(old) = attempt.replaces {
            let at = self.cx.now + jittered(REAUTH_AGAIN, 50, self.cx.rng());
            self.step(old, |sa, cx| {
                sa.with_established(cx, |established, _, _| established.reauthenticate_at(at));
            });
        }
        let waiters = attempt.wishes.into_iter().flat_map(|wish| wish.waiters);
        for id in attempt.waiters.into_iter().chain(waiters) {
            let error = super::CommandError::Failed(reason.to_owned());
            self.cx.finish_command(id, Err(error));
        }
    }

    fn on_sa_event(&mut self, event: SaEvent) {
        match event {
            SaEvent::Acquire {
                reqid,
                flow,
                worker: None,
            } => self.on_acquire(reqid, flow),
            SaEvent::Acquire {
                reqid,
                flow,
                worker: Some(worker),
            } => self.on_acquire_beside(reqid, flow, worker),
            SaEvent::SoftLifetime { child } => self.with_child(child, |sa, _, _| {
                sa.queue_rekey_child(child);
            }),
            SaEvent::HardLifetime { child } => self.with_child(child, |sa, core, cx| {
                sa.expire_child(core, child, cx);
            }),
            SaEvent::PeerMoved { child, remote, .. } => self.with_child(child, |sa, core, cx| {
                let local = core.path.local;
                sa.peer_moved(core, Path { local, remote }, cx);
            }),
            SaEvent::Punted { .. } | SaEvent::RetiredInbound(_) | SaEvent::RetiredOutbound(_) => {}
        }
    }

    /// The SA whose place this one contests.
    fn with_contested(
        &mut self,
        heir: u64,
        act: impl FnOnce(&mut Established, &mut super::v2::Core, &mut Context),
    ) {
        let contested = self
            .table
            .iter()
            .find(|sa| sa.established().is_some_and(|sa| sa.is_contested_by(heir)));
        if let Some(id) = contested.map(|sa| sa.core.id) {
            self.step(id, |sa, cx| sa.with_established(cx, act));
        }
    }

    fn with_child(
        &mut self,
        child: ChildId,
        act: impl FnOnce(&mut Established, &mut super::v2::Core, &mut Context),
    ) {
        let owner = self.table.iter().find(|sa| {
            let children = sa.established().map_or(&[][..], Established::children);
            children.iter().any(|known| known.id == child)
        });
        if let Some(id) = owner.map(|sa| sa.core.id) {
            self.step(id, |sa, cx| sa.with_established(cx, act));
        }
    }

    /// Ends an IKE SA that the peer does not know any more.
    pub(super) fn destroy_forgotten(&mut self, id: u64) {
        self.step(id, |sa, cx| sa.destroy(End::Forgotten, cx));
    }

    /// An IKE SA of ours was authenticated: applies the unique policy (RFC 7296 §2.4).
    fn on_established(&mut self, id: u64, initial_contact: bool) {
        for (gone, why) in self.superseded_by(id, initial_contact) {
            let end = match why {
                // The peer has forgotten it, so there is nobody to tell.
                Superseded::Forgotten => {
                    self.destroy_forgotten(gone);
                    continue;
                }
                Superseded::Unwanted => End::Superseded("a newer IKE_SA of the same peer"),
                Superseded::Redundant => End::Redundant,
            };
            self.stop_sending(gone);
            self.step(gone, |sa, cx| {
                sa.with_established(cx, |established, _, _| {
                    established.queue_delete_ike(end, None);
                });
            });
        }
        self.open_first_child(id);
    }
}

impl Endpoint {
    /// Takes a new configuration.
    pub(super) fn reload(&mut self, pad: Arc<Pad>) {
        let old = self.cx.reconfigure(pad);
        let directory = Arc::clone(&self.cx.directory);
        self.cx.revocation.clear();
        self.cx.tickets.reconfigure(&directory);
        self.cx.set_policies();
        for (at, mut attempt) in self.planned.take(|_| true) {
            let connection = directory.connection(&attempt.connection.name);
            if let Some(connection) = connection {
                self.cx.cancel(attempt.reconfigure(connection));
            }
            if connection.is_none() || attempt.is_idle() {
                self.give_up(attempt, CANCELLED);
            } else {
                self.planned.add(at, attempt);
            }
        }
        for id in self.table.ids_where(|sa| sa.core.connection.is_some()) {
            let name = self.table.get(id).map(|sa| sa.core.name().to_owned());
            match name.and_then(|name| directory.connection(&name)) {
                Some(connection) => self.step(id, |sa, cx| sa.reconfigure(connection, cx)),
                None => self.end_ike(id, None, false),
            }
        }
        // What a reload before the first timer was to start is still to be started.
        let old = self.start.take().map_or(Some(old), |start| start.old);
        let at = self.cx.now;
        self.start = Some(Start { at, old });
    }

    /// Starts children that are to be started, except those that `old` had started already.
    fn start_configured(&mut self, old: Option<&Directory>) {
        let pad = Arc::clone(&self.cx.pad);
        for connection in &pad.connections {
            let started = |child: &Arc<ChildConfig>| {
                let before =
                    old.and_then(|old| old.connection(&connection.name)?.child(&child.name));
                before.is_some_and(|before| before.start_action.starts())
            };
            let starting = connection.children.iter();
            let starting = starting.filter(|child| child.start_action.starts() && !started(child));
            let wishes: Vec<Wish> = starting.map(Wish::new).collect();
            if !wishes.is_empty() {
                self.planned
                    .add(self.cx.now, Attempt::new(connection, wishes));
            }
        }
    }
}

/// Why an older IKE SA of the same peer goes.
pub(super) enum Superseded {
    /// The peer does not know it any more.
    Forgotten,
    /// It is to make room.
    Unwanted,
    /// It does what another one does.
    Redundant,
}

/// HOSTILE §4: no honest message of ours or a peer's is longer.
const MAX_MESSAGE: usize = 16 * 1024;
/// A step has a handful of effects; more would be a loop.
const MAX_EFFECTS: usize = 1024;
/// Pause before a new authentication that has failed is tried again.
const REAUTH_AGAIN: Duration = Duration::from_secs(60);
/// Pause before a silent peer is tried again.
const RETRY_SILENT: Duration = Duration::from_secs(1);
