//! Requests of ours: what waits, what is unanswered, and what to do with the answer.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::ike::context::{Context, RETRY_REFUSED, Wish};
use crate::ike::pad::Connection;
use crate::ike::retransmit::{Retransmit, jittered};
use crate::ike::{CommandId, CommandOutcome};
use crate::ipsec::{ChildId, Reqid, Spi, WorkerId};
use crate::wire::ikev2::{Delete, Gateway, PayloadWriter};
use crate::wire::isakmp::{ExchangeType, PayloadType};

use super::Core;
use super::child::{End, Phase};
use super::create::ChildRequest;
use super::error::ExchangeError;
use super::established::{Established, Fate};
use super::message::Payloads;
use super::mobike::RouteCheck;
use super::offer::fail_waiters;
use super::rekey::IkeRekey;
use super::window::Outstanding;

/// Something to request when the window is free.
#[derive(Debug)]
pub(in crate::ike) enum Task {
    CreateChild(Wish),
    RekeyChild(ChildId),
    DeleteChild(ChildId, Vec<CommandId>),
    /// The peer has made a Child SA that we refused; it was to send under this SPI.
    DeleteUnwanted(Spi),
    RekeyIke,
    DeleteIke(End, Vec<CommandId>),
    Liveness,
    /// Tell the peer which addresses we have decided on.
    UpdateAddresses,
    /// Tell the peer which addresses we have.
    AnnounceAddresses,
    /// See whether the peer receives where it says it is.
    CheckRoute,
    /// Give the peer our crash detection token.
    TellCrashToken,
    /// Ask the peer for a ticket.
    RequestTicket,
    /// Send the peer to another gateway.
    Redirect(Gateway),
}

/// Our requests on one IKE SA.
#[derive(Default)]
pub(super) struct Work {
    pub(super) queue: VecDeque<Task>,
    pub(super) outstanding: Option<Outstanding>,
    delayed: Vec<(Instant, Task)>,
}

/// The request that is unanswered.
pub(super) enum Pending {
    Liveness,
    DeleteChild(ChildId, Vec<CommandId>),
    DeleteUnwanted,
    DeleteIke { end: End, waiters: Vec<CommandId> },
    Child(Box<ChildRequest>),
    RekeyIke(Box<IkeRekey>),
    UpdateAddresses(RouteCheck),
    AnnounceAddresses,
    CheckRoute(RouteCheck),
    TellCrashToken,
    RequestTicket,
    Redirect(Gateway),
}

impl Pending {
    /// It takes SAs away, so nothing that the peer does makes it last.
    fn deletes(&self) -> bool {
        matches!(
            self,
            Self::DeleteChild(..) | Self::DeleteUnwanted | Self::DeleteIke { .. }
        )
    }
}

impl Task {
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::CreateChild(_) => "CHILD_CREATE",
            Self::RekeyChild(_) => "CHILD_REKEY",
            Self::DeleteChild(..) | Self::DeleteUnwanted(_) => "CHILD_DELETE",
            Self::RekeyIke => "IKE_REKEY",
            Self::DeleteIke(..) => "IKE_DELETE",
            Self::Liveness => "IKE_DPD",
            Self::UpdateAddresses | Self::AnnounceAddresses | Self::CheckRoute => "IKE_MOBIKE",
            Self::TellCrashToken => "IKE_CRASH_TOKEN",
            Self::RequestTicket => "IKE_TICKET",
            Self::Redirect(_) => "IKE_REDIRECT",
        }
    }

    /// Creates or deletes a Child SA.
    fn touches_child(&self) -> bool {
        matches!(
            self,
            Self::CreateChild(_)
                | Self::RekeyChild(_)
                | Self::DeleteChild(..)
                | Self::DeleteUnwanted(_)
        )
    }

    /// Is still wanted when another IKE SA has taken over.
    fn is_inherited(&self) -> bool {
        self.touches_child()
            || matches!(
                self,
                Self::DeleteIke(..)
                    | Self::UpdateAddresses
                    | Self::AnnounceAddresses
                    | Self::CheckRoute
                    | Self::Redirect(_)
            )
    }
}

impl Pending {
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Liveness => "IKE_DPD",
            Self::DeleteChild(..) | Self::DeleteUnwanted => "CHILD_DELETE",
            Self::DeleteIke { .. } => "IKE_DELETE",
            Self::Child(request) if request.replaces.is_some() => "CHILD_REKEY",
            Self::Child(_) => "CHILD_CREATE",
            Self::RekeyIke(_) => "IKE_REKEY",
            Self::UpdateAddresses(_) | Self::AnnounceAddresses | Self::CheckRoute(_) => {
                "IKE_MOBIKE"
            }
            Self::TellCrashToken => "IKE_CRASH_TOKEN",
            Self::RequestTicket => "IKE_TICKET",
            Self::Redirect(_) => "IKE_REDIRECT",
        }
    }

    pub(super) fn exchange(&self) -> ExchangeType {
        match self {
            Self::Liveness
            | Self::DeleteChild(..)
            | Self::DeleteUnwanted
            | Self::DeleteIke { .. }
            | Self::UpdateAddresses(_)
            | Self::AnnounceAddresses
            | Self::CheckRoute(_)
            | Self::TellCrashToken
            | Self::RequestTicket
            | Self::Redirect(_) => ExchangeType::INFORMATIONAL,
            Self::Child(request) if request.follows_up() => ExchangeType::IKE_FOLLOWUP_KE,
            Self::RekeyIke(rekey) if rekey.follows_up() => ExchangeType::IKE_FOLLOWUP_KE,
            Self::Child(_) | Self::RekeyIke(_) => ExchangeType::CREATE_CHILD_SA,
        }
    }
}

impl Work {
    /// Puts a task back for a while, after the peer asked for patience (RFC 7296 §2.25).
    pub(super) fn delay(&mut self, task: Task, cx: &mut Context) {
        let wait = jittered(PATIENCE, 40, cx.rng());
        self.delayed.push((cx.now + wait, task));
    }

    /// Asks again, after a longer while, for what the peer refused.
    pub(super) fn retry_refused(&mut self, wish: Wish, cx: &mut Context) {
        let wait = jittered(RETRY_REFUSED, 50, cx.rng());
        self.delayed.push((cx.now + wait, Task::CreateChild(wish)));
    }

    /// Follows a changed configuration. Wishes for children that are gone from it are returned.
    pub(super) fn reconfigure(&mut self, connection: &Connection) -> Vec<Wish> {
        let mut gone = Vec::new();
        let mut stays = |task: Task| match task {
            Task::CreateChild(mut wish) => {
                if wish.reconfigure(connection) {
                    return Some(Task::CreateChild(wish));
                }
                gone.push(wish);
                None
            }
            task => Some(task),
        };
        let queue = std::mem::take(&mut self.queue);
        self.queue = queue.into_iter().filter_map(&mut stays).collect();
        let delayed = std::mem::take(&mut self.delayed);
        let delayed = delayed.into_iter();
        self.delayed = delayed
            .filter_map(|(at, task)| Some((at, stays(task)?)))
            .collect();
        gone
    }

    /// Queues what has waited long enough.
    pub(super) fn wake(&mut self, now: Instant) {
        let (due, later) = std::mem::take(&mut self.delayed)
            .into_iter()
            .partition::<Vec<_>, _>(|(at, _)| *at <= now);
        self.delayed = later;
        self.queue.extend(due.into_iter().map(|(_, task)| task));
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        let delayed = self.delayed.iter().map(|(at, _)| *at);
        let outstanding = self.outstanding.iter().map(Outstanding::due);
        delayed.chain(outstanding).min()
    }

    /// The end of the IKE SA is queued or requested.
    pub(super) fn deletes_ike(&self) -> bool {
        let queued = self
            .queue
            .iter()
            .any(|task| matches!(task, Task::DeleteIke(..)));
        queued || self.is_pending(|pending| matches!(pending, Pending::DeleteIke { .. }))
    }

    pub(super) fn is_pending(&self, test: impl Fn(&Pending) -> bool) -> bool {
        let outstanding = self.outstanding.as_ref();
        outstanding.is_some_and(|outstanding| test(&outstanding.pending))
    }

    /// Somebody waits for the end of this Child SA.
    pub(super) fn is_delete_queued(&self, id: ChildId) -> bool {
        self.queue.iter().any(|task| match task {
            Task::DeleteChild(child, waiters) => *child == id && !waiters.is_empty(),
            _ => false,
        })
    }

    /// A Child SA for this policy is queued or requested.
    pub(super) fn creates(&self, reqid: Reqid) -> bool {
        let delayed = self.delayed.iter().map(|(_, task)| task);
        let mut tasks = self.queue.iter().chain(delayed);
        tasks.any(|task| matches!(task, Task::CreateChild(wish) if wish.child.reqid == reqid))
            || self.is_pending(|pending| match pending {
                Pending::Child(request) => {
                    request.replaces.is_none() && request.offer.child().reqid == reqid
                }
                _ => false,
            })
    }

    /// A Child SA for this worker, besides another one, is queued or requested.
    pub(super) fn creates_for(&self, reqid: Reqid, worker: WorkerId) -> bool {
        let wanted = |task: &Task| match task {
            Task::CreateChild(wish) => wish.child.reqid == reqid && wish.worker == Some(worker),
            _ => false,
        };
        let mut delayed = self.delayed.iter().map(|(_, task)| task);
        self.queue.iter().any(wanted) || delayed.any(wanted) || self.requests_for(reqid, worker)
    }

    /// A new Child SA that this worker is to own is requested.
    pub(super) fn requests_for(&self, reqid: Reqid, worker: WorkerId) -> bool {
        self.is_pending(|pending| match pending {
            Pending::Child(request) => {
                let offer = &request.offer;
                request.replaces.is_none() && offer.child().reqid == reqid && offer.owner == worker
            }
            _ => false,
        })
    }

    /// Takes what a successor has to do.
    pub(super) fn take_inheritance(&mut self) -> VecDeque<Task> {
        let delayed = std::mem::take(&mut self.delayed);
        let all = std::mem::take(&mut self.queue);
        let all = all
            .into_iter()
            .chain(delayed.into_iter().map(|(_, task)| task));
        let (inherited, rest) = all.partition::<VecDeque<_>, _>(Task::is_inherited);
        self.queue = rest;
        // The peer may have replaced this IKE SA before it was told, and then does not listen here.
        let unanswered = self.outstanding.as_ref().map(|sent| &sent.pending);
        let redirect = match unanswered {
            Some(Pending::Redirect(gateway)) => Some(Task::Redirect(gateway.clone())),
            _ => None,
        };
        redirect.into_iter().chain(inherited).collect()
    }

    /// Ends everything that waits. A peer that is dead takes nothing with it that was asked for:
    /// such wishes go to `wishes` to be tried again.
    pub(super) fn abandon(self, end: &End, wishes: &mut Vec<Wish>, cx: &mut Context) {
        let reason = end.to_string();
        let delayed = self.delayed.into_iter().map(|(_, task)| task);
        for task in self.queue.into_iter().chain(delayed) {
            match task {
                Task::CreateChild(wish) => retry_or_fail(wish, end, &reason, wishes, cx),
                Task::DeleteChild(_, waiters) | Task::DeleteIke(_, waiters) => {
                    finish_terminated(waiters, cx);
                }
                Task::DeleteUnwanted(_)
                | Task::RekeyChild(_)
                | Task::RekeyIke
                | Task::Liveness
                | Task::UpdateAddresses
                | Task::AnnounceAddresses
                | Task::CheckRoute
                | Task::TellCrashToken
                | Task::RequestTicket
                | Task::Redirect(_) => {}
            }
        }
        match self.outstanding.map(|outstanding| outstanding.pending) {
            Some(Pending::DeleteChild(_, waiters) | Pending::DeleteIke { waiters, .. }) => {
                finish_terminated(waiters, cx);
            }
            Some(Pending::Child(request)) if request.replaces.is_none() => {
                cx.release_spi(request.offer.spi);
                retry_or_fail(request.offer.wish, end, &reason, wishes, cx);
            }
            Some(Pending::Child(request)) => request.offer.abandon(&reason, cx),
            Some(
                Pending::DeleteUnwanted
                | Pending::Liveness
                | Pending::RekeyIke(_)
                | Pending::UpdateAddresses(_)
                | Pending::AnnounceAddresses
                | Pending::CheckRoute(_)
                | Pending::TellCrashToken
                | Pending::RequestTicket
                | Pending::Redirect(_),
            )
            | None => {}
        }
    }
}

fn retry_or_fail(wish: Wish, end: &End, reason: &str, wishes: &mut Vec<Wish>, cx: &mut Context) {
    if matches!(end, End::Terminated) {
        fail_waiters(wish.waiters, reason, cx);
    } else if wish.worker.is_none() {
        wishes.push(wish);
    }
}

/// Commands that wanted something gone have what they wanted.
pub(super) fn finish_terminated(waiters: Vec<CommandId>, cx: &mut Context) {
    for id in waiters {
        let outcome = CommandOutcome {
            matches: 1,
            terminated: 1,
            ..CommandOutcome::default()
        };
        cx.finish_command(id, Ok(outcome));
    }
}

impl Established {
    pub(super) fn queue(&mut self, tasks: impl IntoIterator<Item = Task>) {
        self.work.queue.extend(tasks);
    }

    pub(in crate::ike) fn push(&mut self, task: Task) {
        self.work.queue.push_back(task);
    }

    /// A Child SA for this policy is on its way.
    pub(in crate::ike) fn creates(&self, reqid: Reqid) -> bool {
        self.work.creates(reqid)
    }

    /// Asks for the end of the IKE SA, before anything else that waits.
    pub(in crate::ike) fn queue_delete_ike(&mut self, end: End, waiter: Option<CommandId>) {
        for task in &mut self.work.queue {
            if let Task::DeleteIke(_, waiters) = task {
                waiters.extend(waiter);
                return;
            }
        }
        if let Some(outstanding) = &mut self.work.outstanding
            && let Pending::DeleteIke { waiters, .. } = &mut outstanding.pending
        {
            waiters.extend(waiter);
            return;
        }
        self.stop_clock();
        let waiters = waiter.into_iter().collect();
        self.work.queue.push_front(Task::DeleteIke(end, waiters));
    }

    /// Asks for the end of a Child SA.
    pub(in crate::ike) fn queue_delete_child(&mut self, id: ChildId, waiter: Option<CommandId>) {
        for task in &mut self.work.queue {
            if let Task::DeleteChild(child, waiters) = task
                && *child == id
            {
                waiters.extend(waiter);
                return;
            }
        }
        if let Some(outstanding) = &mut self.work.outstanding
            && let Pending::DeleteChild(child, waiters) = &mut outstanding.pending
            && *child == id
        {
            waiters.extend(waiter);
            return;
        }
        let rekeying = self.work.is_pending(
            |pending| matches!(pending, Pending::Child(request) if request.replaces == Some(id)),
        );
        if let Some(child) = self.child_mut(id)
            && !rekeying
        {
            child.phase = Phase::Deleting;
        }
        let waiters = waiter.into_iter().collect();
        self.push(Task::DeleteChild(id, waiters));
    }

    /// Sends the next request if none is unanswered.
    pub(in crate::ike) fn start_next(&mut self, core: &mut Core, cx: &mut Context) {
        while self.work.outstanding.is_none() {
            let Some(task) = self.work.queue.pop_front() else {
                return;
            };
            let mut payloads = PayloadWriter::new();
            if let Some(pending) = self.begin(task, core, &mut payloads, cx) {
                self.request(core, payloads, pending, cx);
            }
        }
    }

    /// Writes the request of a task; `None` if there is no need for it any more.
    fn begin(
        &mut self,
        task: Task,
        core: &Core,
        payloads: &mut PayloadWriter,
        cx: &mut Context,
    ) -> Option<Pending> {
        if task.touches_child() && self.followups.ike().is_some() {
            self.work.delay(task, cx); // the peer is replacing the IKE SA
            return None;
        }
        match task {
            Task::Liveness => Some(self.begin_liveness(core, payloads, cx)),
            Task::UpdateAddresses => self.begin_update_addresses(core, payloads, cx),
            Task::AnnounceAddresses => self.begin_announce_addresses(core, payloads, cx),
            Task::CheckRoute => self.begin_check_route(core, payloads, cx),
            Task::Redirect(gateway) => Some(Self::begin_redirect(core, &gateway, payloads, cx)),
            Task::TellCrashToken => Some(Self::begin_tell_crash_token(core, payloads, cx)),
            Task::RequestTicket => Some(Self::begin_request_ticket(payloads)),
            Task::DeleteIke(end, waiters) => {
                payloads.add_with(PayloadType::DELETE, Delete::encode_ike);
                core.log(cx, "IKE", format!("deleting IKE_SA: {end}"));
                Some(Pending::DeleteIke { end, waiters })
            }
            Task::DeleteChild(id, waiters) => {
                let child = self.children.iter().find(|child| child.id == id);
                let spared = child.is_some_and(|child| self.is_spared(child));
                let Some(child) = self.child_mut(id) else {
                    finish_terminated(waiters, cx);
                    return None;
                };
                child.phase = Phase::Deleting;
                if spared {
                    child.stop_outbound(cx); // before the peer stops to receive
                }
                let spi = child.spi_in.get();
                payloads.add_with(PayloadType::DELETE, |out| Delete::encode_esp(&[spi], out));
                Some(Pending::DeleteChild(id, waiters))
            }
            Task::DeleteUnwanted(spi) => {
                let spi = spi.get();
                payloads.add_with(PayloadType::DELETE, |out| Delete::encode_esp(&[spi], out));
                Some(Pending::DeleteUnwanted)
            }
            Task::CreateChild(wish) => self.begin_create(wish, core, payloads, cx),
            Task::RekeyChild(id) => self.begin_rekey_child(id, core, payloads, cx),
            Task::RekeyIke => self.begin_rekey_ike(core, payloads, cx),
        }
    }

    /// Sends a request and waits for its answer.
    pub(super) fn request(
        &mut self,
        core: &Core,
        payloads: PayloadWriter,
        pending: Pending,
        cx: &mut Context,
    ) {
        // After 2^32 requests nothing more can be asked; the lifetime ends the SA long before.
        let Some(message_id) = self.window.take_request_id() else {
            return;
        };
        let header = core.header(pending.exchange(), false, message_id);
        let may_move =
            self.message_id_sync.is_agreed() && !matches!(pending, Pending::TellCrashToken);
        let kept = may_move.then(|| payloads.clone());
        let message = self.keys.seal(header, payloads, core.path);
        let settings = match pending {
            Pending::Liveness => self.liveness.patience(&cx.settings),
            Pending::CheckRoute(_) => cx.settings.liveness,
            _ => cx.settings.retransmit,
        };
        let mut request = Retransmit::send(message, core.path, settings, cx);
        if pending.deletes() {
            request.shorten(cx.now + settings.patience());
        }
        self.work.outstanding = Some(Outstanding {
            message_id,
            request,
            payloads: kept,
            pending,
        });
    }

    /// Takes the answer to our request.
    pub(super) fn on_answer(
        &mut self,
        core: &mut Core,
        pending: Pending,
        payloads: Result<Payloads<'_>, ExchangeError>,
        cx: &mut Context,
    ) -> Fate {
        match pending {
            Pending::Liveness => {
                if let Ok(payloads) = &payloads {
                    self.on_liveness_answer(payloads);
                }
                Fate::Stays
            }
            Pending::UpdateAddresses(check) => match payloads {
                Ok(payloads) => self.on_update_answer(core, &check, &payloads, cx),
                Err(error) => Fate::Ends(End::Failed(error.to_string())),
            },
            Pending::CheckRoute(check) => match payloads {
                Ok(payloads) => self.on_route_answer(core, &check, &payloads, cx),
                Err(error) => Fate::Ends(End::Failed(error.to_string())),
            },
            Pending::Redirect(_) => {
                self.redirection.expect_leave(cx.now);
                Fate::Stays
            }
            Pending::RequestTicket => {
                if let Ok(payloads) = &payloads {
                    self.take_ticket(payloads, cx);
                }
                Fate::Stays
            }
            Pending::AnnounceAddresses | Pending::DeleteUnwanted | Pending::TellCrashToken => {
                Fate::Stays
            }
            Pending::DeleteIke { end, waiters } => {
                finish_terminated(waiters, cx);
                Fate::Ends(end)
            }
            Pending::DeleteChild(id, waiters) => {
                self.on_delete_answer(core, id, cx);
                finish_terminated(waiters, cx);
                Fate::Stays
            }
            Pending::Child(request) => self.on_create_answer(core, *request, payloads, cx),
            Pending::RekeyIke(rekey) => self.on_rekey_ike_answer(core, *rekey, payloads, cx),
        }
    }
}

/// How long to wait after TEMPORARY_FAILURE, plus or minus 40 %.
const PATIENCE: Duration = Duration::from_millis(2500);
