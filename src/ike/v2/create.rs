//! CREATE_CHILD_SA as initiator: new and rekeyed Child SAs (RFC 7296 §1.3.1, §1.3.3).

use std::sync::Arc;

use crate::crypto::Secret;
use crate::crypto::kdf::ChildKeys;
use crate::crypto::kex::KeyExchange;
use crate::ike::commands::Acquire;
use crate::ike::context::{Context, Wish};
use crate::ike::narrow::single_pair;
use crate::ike::negotiate::exchanges;
use crate::ipsec::{ChildId, Selectors};
use crate::wire::Malformed;
use crate::wire::ikev2::{Notify, NotifyType, PayloadWriter};
use crate::wire::isakmp::PayloadType;
use crate::wire::proposal::{EspSuite, ProtocolId};

use super::Core;
use super::child::{Agreed, ChildSa, End, Phase, esp_path};
use super::collision::{ChildCollision, LowestNonce};
use super::error::ExchangeError;
use super::established::{Established, Fate};
use super::followup::FollowUp;
use super::message::{Payloads, notify_name, wanted_group};
use super::offer::{Answer, Offer, Unanswered, fail_waiters};
use super::siblings::{Kin, Siblings};
use super::tasks::{Pending, Task};

/// Our request for a new Child SA, or for one that replaces another, is unanswered.
pub(super) struct ChildRequest {
    pub(super) offer: Offer,
    pub(super) nonce: Vec<u8>,
    pub(super) exchange: Option<KeyExchange>,
    /// The Child SA that it replaces.
    pub(super) replaces: Option<ChildId>,
    /// The peer has replaced the same one in the meantime.
    pub(super) collision: Option<ChildCollision>,
    /// SPIs that the peer has deleted in the meantime and that we did not know.
    pub(super) early_deletes: Vec<u32>,
    /// It was answered, and key exchanges are left.
    pub(super) followup: Option<FollowUp<Terms>>,
    restarts: u8,
}

/// What an answer says.
pub(super) struct Terms {
    agreed: Agreed,
    nr: Vec<u8>,
}

/// What an answer leads to.
enum Step {
    /// Another exchange.
    FollowUp(FollowUp<Terms>),
    /// Nothing, since the peer's rekey goes before ours.
    GiveWay,
    Created(Created),
}

/// A Child SA that an answer has brought.
pub(super) struct Created {
    pub(super) child: ChildSa,
    pub(super) nr: Vec<u8>,
}

impl Established {
    pub(super) fn begin_create(
        &mut self,
        wish: Wish,
        core: &Core,
        payloads: &mut PayloadWriter,
        cx: &mut Context,
    ) -> Option<Pending> {
        if let Some(worker) = wish.worker {
            return self.begin_sibling(wish, worker, payloads, cx);
        }
        if let Some(child) = self.serving(&wish) {
            let outcome = self.outcome(core, Some(child));
            for id in wish.waiters {
                cx.finish_command(id, Ok(outcome));
            }
            return None;
        }
        let owner = (cx.next_owner(), Kin::FIRST);
        let offer = Offer::new(wish, owner, &core.ends(), true, cx);
        let request = ChildRequest::new(offer, None, cx)?;
        request.encode(payloads);
        Some(Pending::Child(Box::new(request)))
    }

    /// A Child SA that already does what is wished for.
    fn serving(&self, wish: &Wish) -> Option<ChildId> {
        let mut children = self.children.iter();
        let found = children.find(|child| {
            child.config.reqid == wish.child.reqid
                && match &wish.flow {
                    Some(flow) => child.admits(flow),
                    None => child.is_usable(),
                }
        });
        found.map(|child| child.id)
    }

    pub(super) fn child_keys(
        &self,
        shared: &[Secret],
        (ni, nr): (&[u8], &[u8]),
        suite: &EspSuite,
    ) -> ChildKeys {
        ChildKeys::derive(
            self.keys.prf,
            &self.keys.sk_d,
            shared,
            ni,
            nr,
            &suite.cipher,
        )
    }

    pub(super) fn on_create_answer(
        &mut self,
        core: &mut Core,
        mut request: ChildRequest,
        payloads: Result<Payloads<'_>, ExchangeError>,
        cx: &mut Context,
    ) -> Fate {
        let payloads = match payloads {
            Ok(payloads) => payloads,
            Err(error) => {
                let end = End::Failed(format!("broken CREATE_CHILD_SA response: {error}"));
                self.create_failed(core, request, &error.into(), cx);
                return Fate::Ends(end);
            }
        };
        if !request.follows_up()
            && payloads.sa.is_none()
            && let Some(notify) = payloads.notify(NotifyType::INVALID_KE_PAYLOAD)
            && self.restart_request(core, &mut request, notify, cx)
        {
            self.resend(core, request, cx);
            return Fate::Stays;
        }
        let makes = is_last(&request, &payloads);
        match self.finish_request(core, &mut request, &payloads, cx) {
            Ok(Step::FollowUp(mut followup)) => {
                let payloads = followup.ask(cx);
                request.followup = Some(followup);
                self.request(core, payloads, Pending::Child(Box::new(request)), cx);
            }
            Ok(Step::GiveWay) => {
                let text = "CHILD_SA rekey collision lost, stopping ours".to_owned();
                core.log(cx, "CHD", text);
                self.give_way(&request, Phase::Live, cx);
                request.offer.abandon("the peer replaces it", cx);
            }
            Ok(Step::Created(created)) if request.replaces.is_some() => {
                self.child_replaced(core, request, created, cx);
            }
            Ok(Step::Created(mut created)) => {
                created.child.open_outbound(cx);
                let wish = &mut request.offer.wish;
                created.child.single_pair = wish.exactly.is_some();
                if wish.worker.is_some() && created.child.kin.siblings != Siblings::Welcome {
                    self.close_group(core, wish, cx); // the peer made an ordinary one of it
                }
                let waiters = std::mem::take(&mut wish.waiters);
                self.child_up(core, created.child, waiters, cx);
            }
            Err(error) => {
                let refused = payloads.error().map(|notify| notify.kind);
                if makes && !matches!(error, Unanswered::AlreadyDeleted) {
                    self.push(Task::DeleteUnwanted(request.offer.spi));
                }
                self.create_refused(core, request, refused, &error, cx);
            }
        }
        Fate::Stays
    }

    /// Follows INVALID_KE_PAYLOAD to a group that we offered; false if that leads nowhere.
    fn restart_request(
        &self,
        core: &Core,
        request: &mut ChildRequest,
        notify: &Notify<'_>,
        cx: &mut Context,
    ) -> bool {
        let Some(group) = wanted_group(notify) else {
            return false;
        };
        let current = request.exchange.as_ref().map(KeyExchange::group);
        let offered = exchanges(&request.offer.proposals).contains(&group);
        if !offered || current == Some(group) || request.restarts >= MAX_RESTARTS {
            return false;
        }
        let Ok(exchange) = KeyExchange::generate(group, cx.rng()) else {
            return false;
        };
        core.log(cx, "IKE", format!("peer wants {group}, asking again"));
        request.exchange = Some(exchange);
        request.restarts += 1;
        true
    }

    fn resend(&mut self, core: &Core, request: ChildRequest, cx: &mut Context) {
        let mut payloads = PayloadWriter::new();
        if let Some(old) = request.replaces {
            let Some(old) = self.child_mut(old) else {
                request.offer.abandon("the CHILD_SA is gone", cx);
                return;
            };
            add_rekey_notify(&mut payloads, old);
        }
        request.encode(&mut payloads);
        self.request(core, payloads, Pending::Child(Box::new(request)), cx);
    }

    /// Takes an answer, and makes the Child SA if that was the last one.
    fn finish_request(
        &mut self,
        core: &Core,
        request: &mut ChildRequest,
        payloads: &Payloads<'_>,
        cx: &mut Context,
    ) -> Result<Step, Unanswered> {
        let followup = match request.followup.take() {
            None => {
                let followup = request.take_answer(payloads)?;
                request.offer.note_more(core, payloads, cx);
                let lowest = LowestNonce::of(&request.nonce, &followup.terms.nr);
                if !followup.is_done() && self.is_lost(request, &lowest) {
                    return Ok(Step::GiveWay);
                }
                followup
            }
            Some(mut followup) => {
                if let Some(notify) = payloads.error() {
                    return Err(request.offer.refused(notify.kind));
                }
                followup.finish(payloads)?;
                followup
            }
        };
        if !followup.is_done() {
            if let Some(old) = request.replaces {
                self.followups.forget_child(old, cx);
            }
            return Ok(Step::FollowUp(followup));
        }
        let FollowUp { terms, shared, .. } = followup;
        let Terms { agreed, nr } = terms;
        if request.early_deletes.contains(&agreed.spi_out.get()) {
            return Err(Unanswered::AlreadyDeleted);
        }
        let keys = self.child_keys(&shared, (&request.nonce, &nr), &agreed.suite);
        let child = ChildSa::install(agreed, keys, esp_path(core.path, self.nat, cx), cx);
        Ok(Step::Created(Created { child, nr }))
    }

    fn create_refused(
        &mut self,
        core: &Core,
        mut request: ChildRequest,
        refused: Option<NotifyType>,
        error: &Unanswered,
        cx: &mut Context,
    ) {
        if request.replaces.is_some() {
            return self.rekey_refused(core, request, refused, error, cx);
        }
        if refused == Some(NotifyType::TEMPORARY_FAILURE) && request.offer.wish.patience > 0 {
            let name = &request.offer.child().name;
            let kind = notify_name(NotifyType::TEMPORARY_FAILURE);
            core.log(cx, "IKE", format!("CHILD_SA {name}: {kind}, trying again"));
            cx.release_spi(request.offer.spi);
            request.offer.wish.patience -= 1;
            self.work.delay(Task::CreateChild(request.offer.wish), cx);
            return;
        }
        self.create_failed(core, request, error, cx);
    }

    fn create_failed(
        &mut self,
        core: &Core,
        request: ChildRequest,
        error: &Unanswered,
        cx: &mut Context,
    ) {
        self.child_failed(core, request.offer, error, cx);
    }
}

impl ChildRequest {
    /// Generates what the request needs; `None` fails the wish.
    pub(super) fn new(offer: Offer, replaces: Option<ChildId>, cx: &mut Context) -> Option<Self> {
        let group = exchanges(&offer.proposals).first().copied();
        let exchange = group.map(|group| KeyExchange::generate(group, cx.rng()));
        let Ok(exchange) = exchange.transpose() else {
            offer.abandon("no supported key exchange method is configured", cx);
            return None;
        };
        Some(Self {
            offer,
            nonce: cx.nonce(),
            exchange,
            replaces,
            collision: None,
            early_deletes: Vec::new(),
            followup: None,
            restarts: 0,
        })
    }

    /// What is unanswered is IKE_FOLLOWUP_KE.
    pub(super) fn follows_up(&self) -> bool {
        self.followup.is_some()
    }

    /// Checks the answer to CREATE_CHILD_SA.
    fn take_answer(&mut self, payloads: &Payloads<'_>) -> Result<FollowUp<Terms>, Unanswered> {
        let Answer {
            suite,
            spi,
            selectors,
            transport,
        } = self.offer.check(payloads)?;
        let nr = payloads.nonce()?;
        if nr == self.nonce {
            return Err(ExchangeError::from(Malformed::BadValue("nonce")).into());
        }
        let shared = match (self.exchange.take(), suite.key_exchange) {
            (_, None) => None,
            (Some(exchange), Some(group)) if exchange.group() == group => {
                let ke = payloads.key_exchange()?;
                if ke.group != group {
                    return Err(Unanswered::NotOffered);
                }
                let shared = exchange.finish(ke.data);
                Some(shared.map_err(|_| ExchangeError::InvalidPublic)?)
            }
            _ => return Err(Unanswered::NotOffered),
        };
        let offer = &self.offer;
        let agreed = Agreed {
            config: Arc::clone(offer.child()),
            owner: offer.owner,
            spi_in: offer.spi,
            spi_out: spi,
            suite,
            selectors,
            kin: offer.kin.after(offer.child(), payloads),
            transport,
            initiator: true,
        };
        let (nr, shared) = (nr.to_vec(), shared.into_iter().collect());
        let terms = Terms { agreed, nr };
        Ok(FollowUp::new(terms, &suite.additional, shared, payloads)?)
    }

    pub(super) fn encode(&self, payloads: &mut PayloadWriter) {
        let ke = self.exchange.as_ref().map(|ke| (ke.group(), ke.public()));
        self.offer.encode(payloads, Some(&self.nonce), ke);
    }
}

/// Whether the peer has made a Child SA when it gave this answer.
fn is_last(request: &ChildRequest, payloads: &Payloads<'_>) -> bool {
    let more = payloads.notify(NotifyType::ADDITIONAL_KEY_EXCHANGE);
    let made = if request.follows_up() {
        payloads.ke
    } else {
        payloads.sa
    };
    made.is_some() && more.is_none()
}

/// Names the Child SA that a request replaces, by the SPI that its sender receives under.
pub(super) fn add_rekey_notify(payloads: &mut PayloadWriter, old: &ChildSa) {
    let spi = old.spi_in.to_be_bytes();
    payloads.add_with(PayloadType::NOTIFY, |out| {
        Notify {
            protocol: ProtocolId::Esp as u8,
            spi: &spi,
            kind: NotifyType::REKEY_SA,
            data: &[],
        }
        .encode(out);
    });
}

const MAX_RESTARTS: u8 = 3;

impl Established {
    /// A child that the peer refused; the IKE SA stays.
    pub(super) fn child_failed(
        &mut self,
        core: &Core,
        offer: Offer,
        error: &Unanswered,
        cx: &mut Context,
    ) {
        if let Some(pair) = wanted_pair(core, &offer, error) {
            cx.release_spi(offer.spi);
            let mut wish = offer.wish;
            wish.exactly = Some(pair);
            return self.push(Task::CreateChild(wish));
        }
        let name = offer.child().name.clone();
        let line = format!("CHILD_SA {name} failed: {error}");
        core.alert(cx, error.alert_kind(), Some(name), line);
        cx.release_spi(offer.spi);
        let mut wish = offer.wish;
        if wish.worker.is_some() {
            return self.close_group(core, &wish, cx);
        }
        cx.commands
            .hold_acquires(wish.child.reqid, Acquire::First, cx.now);
        fail_waiters(std::mem::take(&mut wish.waiters), &error.to_string(), cx);
        let connection = core.connection.as_ref();
        let unlimited = connection.is_some_and(|connection| connection.keyingtries == 0);
        if unlimited && wish.child.start_action.starts() {
            self.work.retry_refused(wish, cx);
        }
    }
}

/// What to ask a peer for that refused because it wants each pair of addresses for itself
/// (RFC 7296 §2.9).
fn wanted_pair(core: &Core, offer: &Offer, error: &Unanswered) -> Option<Selectors> {
    let wish = &offer.wish;
    let asks = matches!(error, Unanswered::Refused { kind, .. } if *kind == NotifyType::SINGLE_PAIR_REQUIRED);
    if !asks || wish.exactly.is_some() || wish.worker.is_some() {
        return None;
    }
    single_pair(&wish.child, &core.ends(), wish.flow.as_ref()?)
}
