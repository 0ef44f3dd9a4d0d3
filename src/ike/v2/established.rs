//! An authenticated IKE SA: its exchanges, one at a time in each direction, and its Child SAs.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::crypto::Secret;
use crate::ike::alert::Subject;
use crate::ike::context::{Attempt, Context, Effect, RESTART_WAIT, RETRY_REFUSED};
use crate::ike::status::{IkeSaStatus, IkeState, NatStatus};
use crate::ike::{CommandOutcome, Discard, Event, Identity, Path};
use crate::ipsec::ChildId;
use crate::wire::ikev2::PayloadWriter;
use crate::wire::isakmp::{ExchangeType, PayloadType};

use super::child::{ChildSa, End, early, esp_path};
use super::children::restart_wish;
use super::collision::Succession;
use super::error::ExchangeError;
use super::followup::Followups;
use super::lingering::Lingering;
use super::liveness::Liveness;
use super::message::Datagram;
use super::message_id_sync::Synchronization;
use super::mobike::Mobike;
use super::protect::SaKeys;
use super::redirect::Redirection;
use super::resumption::Resumption;
use super::tasks::{Pending, Task, Work};
use super::window::{Arrival, Window};
use super::{Core, State, fill_status};

/// An authenticated IKE SA.
pub(in crate::ike) struct Established {
    pub(in crate::ike) peer: Peer,
    pub(super) keys: SaKeys,
    pub(super) nat: NatStatus,
    pub(super) window: Window,
    pub(super) message_id_sync: Synchronization,
    pub(super) work: Work,
    pub(super) children: Vec<ChildSa>,
    pub(super) lingering: Lingering,
    pub(super) liveness: Liveness,
    pub(super) followups: Followups,
    /// Proves that the peer has lost this IKE SA, if it gave us one.
    pub(super) crash_token: Option<Secret>,
    /// `None`: the addresses stay, unless a NAT changes them.
    pub(super) mobike: Option<Mobike>,
    pub(super) redirection: Redirection,
    pub(super) resumption: Resumption,
    /// Which IKE SA takes over, if one does.
    pub(super) succession: Succession,
    /// When to look whether the peer sends on a Child SA that it made.
    pub(super) switch_at: Option<Instant>,
    pub(super) clock: Clock,
    /// Ids that were given before it was established are lower.
    serial: u64,
    /// The lower one of the nonces that made this SA: breaks the tie between two SAs that both sides
    /// set up at once. Empty for an SA that replaced another.
    lowest_nonce: Vec<u8>,
}

/// The two proven identities.
#[derive(Clone, Debug)]
pub(in crate::ike) struct Peer {
    pub(in crate::ike) local_id: Identity,
    pub(in crate::ike) remote_id: Identity,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Clock {
    established: Instant,
    rekey_at: Option<Instant>,
    pub(super) reauth_at: Option<Instant>,
    pub(super) expires_at: Option<Instant>,
    /// The authentication is good until then, whatever is rekeyed (RFC 4478).
    pub(super) unproven_at: Option<Instant>,
}

/// What a replaced IKE SA leaves to its successor.
pub(in crate::ike) struct Inheritance {
    pub(super) children: Vec<ChildSa>,
    pub(super) lingering: Lingering,
    /// Addresses, and the path that is in use.
    pub(super) mobike: Option<(Mobike, Path)>,
    pub(super) redirection: Redirection,
    pub(super) queue: VecDeque<Task>,
    pub(super) old: Box<IkeSaStatus>,
}

/// Whether an IKE SA goes on after a step.
#[derive(Debug)]
pub(super) enum Fate {
    Stays,
    Ends(End),
}

impl Established {
    pub(super) fn new(
        core: &Core,
        peer: Peer,
        keys: SaKeys,
        nat: NatStatus,
        window: Window,
        cx: &mut Context,
    ) -> Self {
        Self {
            peer,
            keys,
            nat,
            window,
            message_id_sync: Synchronization::default(),
            work: Work::default(),
            children: Vec::new(),
            lingering: Lingering::default(),
            liveness: Liveness::new(core, nat, cx),
            followups: Followups::default(),
            crash_token: None,
            mobike: None,
            redirection: Redirection::new(core),
            resumption: Resumption::default(),
            succession: Succession::None,
            switch_at: None,
            clock: Clock::new(core, cx),
            serial: cx.next_id(),
            lowest_nonce: Vec::new(),
        }
    }

    /// Makes a new SA known.
    pub(super) fn announce(&mut self, core: &Core, initial_contact: bool, cx: &mut Context) {
        let id = core.id;
        self.register(core, cx);
        cx.tickets.forget(core.name());
        let ike = Box::new(self.status(core, false));
        cx.event(Event::IkeUp { ike });
        cx.effects.push(Effect::Established {
            id,
            initial_contact,
        });
    }

    fn register(&self, core: &Core, cx: &mut Context) {
        let Peer {
            local_id,
            remote_id,
        } = &self.peer;
        let addr = core.path.remote.ip();
        cx.peers.add(core.id, local_id, remote_id, addr);
    }

    pub(super) fn set_lowest_nonce(&mut self, ni: &[u8], nr: &[u8]) {
        self.lowest_nonce = ni.min(nr).to_vec();
    }

    pub(in crate::ike) fn lowest_nonce(&self) -> &[u8] {
        &self.lowest_nonce
    }

    pub(super) fn on_datagram(
        mut self: Box<Self>,
        core: &mut Core,
        datagram: &Datagram<'_>,
        cx: &mut Context,
    ) -> State {
        let fate = if datagram.header.flags.response() {
            self.on_response(core, datagram, cx)
        } else {
            self.on_request(core, datagram, cx)
        };
        self.settle(core, fate, cx)
    }

    /// Goes on, or ends.
    fn settle(mut self: Box<Self>, core: &mut Core, fate: Fate, cx: &mut Context) -> State {
        match fate {
            Fate::Stays => {
                self.start_next(core, cx);
                State::Established(self)
            }
            Fate::Ends(end) => {
                self.close(core, end, cx);
                State::Gone
            }
        }
    }

    fn on_request(&mut self, core: &mut Core, datagram: &Datagram<'_>, cx: &mut Context) -> Fate {
        if self.synchronize(core, datagram, cx) {
            return Fate::Stays;
        }
        match self.window.classify(datagram) {
            Arrival::Fresh => {}
            Arrival::Repeated => {
                self.window.repeat(datagram.path, cx);
                self.postpone_settling(cx.now);
                return Fate::Stays;
            }
            Arrival::Recut if self.keys.is_first_fragment(datagram) => {
                self.window.repeat(datagram.path, cx);
                return Fate::Stays;
            }
            Arrival::Recut if datagram.header.next_payload == PayloadType::SKF => {
                cx.discard(Discard::StaleFragment);
                return Fate::Stays;
            }
            Arrival::Recut | Arrival::Outside => {
                cx.discard(Discard::OutsideWindow);
                return Fate::Stays;
            }
        }
        let exchange = datagram.header.exchange;
        if !matches!(
            exchange,
            ExchangeType::CREATE_CHILD_SA
                | ExchangeType::INFORMATIONAL
                | ExchangeType::IKE_FOLLOWUP_KE
        ) {
            cx.discard(Discard::UnknownExchange);
            return Fate::Stays;
        }
        let Some(opened) = self.keys.open(datagram, cx) else {
            return Fate::Stays;
        };
        let datagram = &opened.stand_in(datagram);
        self.heard(core, datagram, cx);
        // There is nothing to be configured here, but what cannot be read is a mistake (RFC 7296 §2.21.3).
        let payloads = opened.payloads();
        let payloads = payloads.and_then(|all| all.configuration().map(|_| all));
        let payloads = match payloads {
            Ok(payloads) => payloads,
            Err(error) => return self.refuse(core, datagram, &error, cx),
        };
        if self.succession.is_heir() && !payloads.deletes_ike() {
            // The peer uses it, so it has taken over there. Then it does here, and the request will
            // be repeated.
            cx.discard(Discard::StaleRequest);
            cx.effects.push(Effect::Claim { heir: core.id });
            return Fate::Stays;
        }
        match exchange {
            ExchangeType::INFORMATIONAL => self.on_informational(core, datagram, &payloads, cx),
            ExchangeType::IKE_FOLLOWUP_KE => {
                self.on_followup_request(core, datagram, &payloads, cx)
            }
            _ => self.on_create_request(core, datagram, &payloads, cx),
        }
    }

    fn on_response(&mut self, core: &mut Core, datagram: &Datagram<'_>, cx: &mut Context) -> Fate {
        let header = &datagram.header;
        let awaited = self.work.outstanding.as_ref().is_some_and(|outstanding| {
            outstanding.message_id == header.message_id
                && outstanding.pending.exchange() == header.exchange
        });
        if !awaited {
            cx.discard(Discard::UnexpectedResponse);
            return Fate::Stays;
        }
        let Some(opened) = self.keys.open(datagram, cx) else {
            return Fate::Stays;
        };
        self.heard(core, datagram, cx);
        let Some(outstanding) = self.work.outstanding.take() else {
            return Fate::Stays;
        };
        self.on_answer(core, outstanding.pending, opened.payloads(), cx)
    }

    /// Notes that the peer is alive, and follows it to another address if a NAT moved it
    /// (RFC 7296 §2.23). With MOBIKE, IKE messages that do not say so move nothing (RFC 4555 §3.8).
    pub(super) fn heard(&mut self, core: &mut Core, datagram: &Datagram<'_>, cx: &mut Context) {
        self.liveness.heard(cx.now);
        self.forget_tries();
        if datagram.path != core.path && self.mobike.is_none() && self.may_move() {
            self.move_to(core, datagram.path, cx);
        }
    }

    /// Takes another path for IKE and all Child SAs.
    pub(in crate::ike) fn move_to(&mut self, core: &mut Core, path: Path, cx: &mut Context) {
        if path == core.path {
            return;
        }
        let line = format!("peer moved from {} to {}", core.path.remote, path.remote);
        core.warn(cx, "NET", line);
        core.path = path;
        cx.peers.moved(core.id, path.remote.ip());
        let esp = esp_path(path, self.nat, cx);
        for child in &mut self.children {
            child.move_to(esp, cx);
        }
    }

    /// A peer behind a NAT may be followed when ESP shows that it moved.
    pub(in crate::ike) fn may_move(&self) -> bool {
        self.nat.remote && !self.nat.local
    }

    /// Answers a request, and remembers the answer.
    pub(super) fn answer(
        &mut self,
        core: &Core,
        datagram: &Datagram<'_>,
        payloads: PayloadWriter,
        cx: &mut Context,
    ) {
        let request = &datagram.header;
        let header = core.header(request.exchange, true, request.message_id);
        let response = self.keys.seal(header, payloads, datagram.path);
        cx.send(datagram.path, &response);
        self.window.answer(datagram.bytes, response);
    }

    /// Answers a request with the reason against it.
    pub(super) fn refuse(
        &mut self,
        core: &Core,
        datagram: &Datagram<'_>,
        error: &ExchangeError,
        cx: &mut Context,
    ) -> Fate {
        let exchange = datagram.header.exchange;
        let line = format!("refused {exchange} request: {error}");
        core.alert_of_stranger(cx, error.alert_kind(Subject::Child), line);
        cx.discard(error.discard());
        let mut payloads = PayloadWriter::new();
        error.encode(&mut payloads);
        self.answer(core, datagram, payloads, cx);
        if error.is_fatal() {
            return Fate::Ends(End::Failed(error.to_string()));
        }
        Fate::Stays
    }

    pub(super) fn on_timer(mut self: Box<Self>, core: &mut Core, cx: &mut Context) -> State {
        let fate = self.timer(core, cx);
        self.settle(core, fate, cx)
    }

    fn timer(&mut self, core: &mut Core, cx: &mut Context) -> Fate {
        let outstanding = self.work.outstanding.as_mut();
        let silent = outstanding.is_some_and(|outstanding| !outstanding.poll(core.path, cx));
        if silent && !self.try_other_path(core, cx) {
            return Fate::Ends(self.end_without_peer(core, End::Dead, cx));
        }
        let ends = [self.clock.expires_at, self.clock.unproven_at];
        if ends.into_iter().flatten().any(|at| at <= cx.now) {
            (self.clock.expires_at, self.clock.unproven_at) = (None, None);
            core.log(cx, "IKE", "deleting IKE_SA, lifetime is over".to_owned());
            self.queue_delete_ike(End::Expired, None);
        }
        if self.succession.is_overdue(cx.now) {
            self.succession.forget_deadline();
            self.queue_delete_ike(End::Replaced, None);
        }
        if self.clock.rekey_at.is_some_and(|at| at <= cx.now) {
            self.clock.rekey_at = None;
            self.work.queue.push_back(Task::RekeyIke);
        }
        if self.clock.reauth_at.is_some_and(|at| at <= cx.now) {
            self.clock.reauth_at = None;
            cx.effects.push(Effect::Reauthenticate(core.id));
        }
        self.poll_redirection(cx.now);
        self.work.wake(cx.now);
        self.poll_liveness(core, cx);
        self.poll_children(core, cx);
        self.lingering.poll(cx);
        self.poll_followups(core, cx);
        self.keys.reassembly.expire(cx.now);
        Fate::Stays
    }

    /// How an SA ends that the peer does not know, if nothing else has ended it before.
    pub(super) fn end_without_peer(&mut self, core: &Core, end: End, cx: &mut Context) -> End {
        let outstanding = self.work.outstanding.as_ref();
        if let Some(Pending::DeleteIke { end, .. }) = outstanding.map(|sent| &sent.pending) {
            return end.clone();
        }
        if self.succession.is_silent() || self.adopt_contested(core, cx) {
            return End::Replaced;
        }
        end
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        let clock = &self.clock;
        let own = [
            clock.rekey_at,
            clock.reauth_at,
            clock.expires_at,
            clock.unproven_at,
        ];
        let rest = [
            self.work.deadline(),
            self.liveness.deadline(),
            self.succession.deadline(),
            self.redirection.deadline(),
            self.children_deadline(),
            self.lingering.deadline(),
            self.followups.deadline(),
            self.keys.reassembly.deadline(),
        ];
        own.into_iter().chain(rest).flatten().min()
    }

    /// Tries an IKE rekey again later.
    pub(super) fn rekey_again_at(&mut self, at: Instant) {
        if self.succession.is_none() {
            self.clock.rekey_at = Some(at);
        }
    }

    /// This SA is replaced: nothing is due any more but its end.
    pub(super) fn stop_clock(&mut self) {
        self.clock.rekey_at = None;
        self.clock.reauth_at = None;
        self.clock.expires_at = None;
        self.clock.unproven_at = None;
        self.redirection.stop_clock();
    }

    /// A rekey does not prove the identities anew, so the time for that is kept.
    pub(super) fn keep_reauth_time(&mut self, old: &Self) {
        self.clock.reauth_at = old.clock.reauth_at;
        self.clock.unproven_at = old.clock.unproven_at;
    }

    /// A new authentication came to nothing: tries again, while there is time.
    pub(in crate::ike) fn reauthenticate_at(&mut self, at: Instant) {
        if self.is_usable() {
            self.clock.reauth_at = Some(at);
        }
    }

    pub(super) fn outcome(&self, core: &Core, child: Option<ChildId>) -> CommandOutcome {
        CommandOutcome {
            matches: 1,
            terminated: 0,
            ike: Some(core.id),
            child: child.map(|child| child.0),
        }
    }

    /// Ends this SA and everything on it, and starts again what is to be started again.
    pub(super) fn close(mut self: Box<Self>, core: &Core, end: End, cx: &mut Context) {
        cx.peers
            .remove(core.id, &self.peer.local_id, &self.peer.remote_id);
        self.leave_ticket(core, &end, cx);
        let ike = Box::new(self.status(core, false));
        let mut wishes = Vec::new();
        let children = std::mem::take(&mut self.children);
        for child in &children {
            if let Some(wish) = restart_wish(child, &end) {
                Attempt::wish_for(&mut wishes, &wish.child);
            }
            child.tell_down(&ike, &end, cx);
        }
        cx.effects.push(Effect::Relieve {
            peer: self.peer.clone(),
            children,
            lingers: !matches!(end, End::Forgotten | End::Crashed | End::Dead),
        });
        if !self.succession.is_silent() {
            core.release_virtual_ips(cx);
        }
        self.lingering.end(cx);
        self.followups.end(cx);
        self.work.abandon(&end, &mut wishes, cx);
        if self.succession.is_heir() {
            cx.effects.push(Effect::Withdrawn { heir: core.id });
        }
        if !self.succession.is_silent() {
            let line = format!("IKE_SA ended: {end}");
            match end.alert_kind() {
                Some(kind) => core.alert(cx, kind, None, line),
                None => core.log(cx, "IKE", line),
            }
            let reason = end.to_string();
            cx.event(Event::IkeDown { ike, reason });
        }
        if let Some(connection) = &core.connection
            && !wishes.is_empty()
        {
            let wait = match end {
                End::Failed(_) => RETRY_REFUSED, // it would fail again
                End::Redundant => Duration::ZERO,
                _ => RESTART_WAIT,
            };
            cx.effects
                .push(Effect::Restart(Attempt::new(connection, wishes), wait));
        }
    }

    /// Takes over from a replaced SA.
    pub(in crate::ike) fn inherit(
        &mut self,
        core: &mut Core,
        inheritance: Inheritance,
        cx: &mut Context,
    ) {
        let Inheritance {
            children,
            lingering,
            mobike,
            redirection,
            queue,
            old,
        } = inheritance;
        if let Some((mobike, path)) = mobike {
            core.path = path;
            self.inherit_addresses(mobike);
        }
        self.children.extend(children);
        self.lingering.inherit(lingering);
        self.redirection = redirection;
        self.work.queue.extend(queue);
        self.watch_children(cx.now);
        self.succession = Succession::None;
        self.register(core, cx);
        self.tell_crash_token(core, cx);
        self.ask_for_ticket();
        let new = Box::new(self.status(core, true));
        let line = format!("IKE_SA {}[{}] rekeyed to [{}]", core.name(), old.id, new.id);
        core.log(cx, "IKE", line);
        cx.event(Event::IkeRekeyed { old, new });
    }

    pub(in crate::ike) fn children(&self) -> &[ChildSa] {
        &self.children
    }

    pub(super) fn child_mut(&mut self, id: ChildId) -> Option<&mut ChildSa> {
        self.children.iter_mut().find(|child| child.id == id)
    }

    /// Not on its way out.
    pub(in crate::ike) fn is_usable(&self) -> bool {
        self.succession.is_none() && !self.work.deletes_ike()
    }

    /// Whether this SA was there before that one was begun. Numbers tell it better than time.
    pub(in crate::ike) fn is_older_than(&self, other: &Core) -> bool {
        self.serial < other.id
    }

    pub(in crate::ike) fn status(&self, core: &Core, with_children: bool) -> IkeSaStatus {
        let mut status = core.status();
        fill_status(&mut status, self.keys.suite, self.nat);
        status.state = match &self.work.outstanding {
            _ if self.work.deletes_ike() => IkeState::Deleting,
            _ if self.succession.is_silent() => IkeState::Rekeyed,
            Some(outstanding) if matches!(outstanding.pending, Pending::RekeyIke(_)) => {
                IkeState::Rekeying
            }
            _ => IkeState::Established,
        };
        status.local_id = Some(self.peer.local_id.clone());
        status.remote_id = Some(self.peer.remote_id.clone());
        status.established = Some(self.clock.established);
        status.rekey_at = self.clock.rekey_at;
        status.reauth_at = self.clock.reauth_at;
        status.tasks_queued = self.work.queue.iter().map(Task::name).collect();
        let active = self.work.outstanding.as_ref();
        status.tasks_active = active
            .map(|active| active.pending.name())
            .into_iter()
            .collect();
        if with_children {
            status.children = self.children.iter().map(ChildSa::status).collect();
        }
        status
    }
}

impl Clock {
    fn new(core: &Core, cx: &mut Context) -> Self {
        let now = cx.now;
        let mut clock = Self {
            established: now,
            rekey_at: None,
            reauth_at: None,
            expires_at: None,
            unproven_at: None,
        };
        if let Some(connection) = &core.connection {
            let (rekey, reauth) = (connection.rekey_time, connection.reauth_time);
            clock.rekey_at = early(rekey, connection.rand_time, cx);
            if core.initiator {
                clock.reauth_at = early(reauth, connection.rand_time, cx);
            }
            let life = rekey.max(reauth);
            clock.expires_at = (!life.is_zero()).then(|| now + life + connection.over_time);
            clock.unproven_at = (!reauth.is_zero()).then(|| now + reauth + connection.over_time);
        }
        clock
    }
}
