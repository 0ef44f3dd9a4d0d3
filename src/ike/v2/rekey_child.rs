//! Rekeying of Child SAs (RFC 7296 §1.3.3, §2.8), in the order that loses no packet.
//!
//! ```text
//! initiator   request ─► answer: both halves in, outbound switched ─► DELETE old ─► 5 s ─► old inbound out
//! responder   answer: inbound half in ─► DELETE, or a packet on the new SA: outbound switched
//! ```

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::ike::Event;
use crate::ike::commands::Acquire;
use crate::ike::context::{Context, Effect, Wish};
use crate::ike::retransmit::jittered;
use crate::ike::status::ChildStatus;
use crate::ipsec::{ChildId, Selectors};
use crate::wire::ikev2::{Notify, NotifyType, PayloadWriter};

use super::Core;
use super::child::{ChildSa, End, Phase};
use super::children::restart_wish;
use super::collision::{ChildCollision, LowestNonce, PASSIVE_WAIT};
use super::create::{ChildRequest, Created, add_rekey_notify};
use super::create_request::{Chosen, asked_selectors, asked_spi};
use super::error::ExchangeError;
use super::established::Established;
use super::followup::{Purpose, Unfinished};
use super::message::{Datagram, Payloads};
use super::offer::{Offer, Unanswered};
use super::siblings::{SETTLED, Siblings};
use super::tasks::{Pending, Task};
use super::transport;

impl Established {
    /// Asks for a replacement of a Child SA, unless that is under way.
    pub(in crate::ike) fn queue_rekey_child(&mut self, id: ChildId) -> bool {
        match self.child_mut(id) {
            Some(child) if child.phase == Phase::Live => {
                child.phase = Phase::Rekeying;
                child.times.rekey_at = None;
                self.push(Task::RekeyChild(id));
                true
            }
            _ => false,
        }
    }

    pub(super) fn begin_rekey_child(
        &mut self,
        id: ChildId,
        core: &Core,
        payloads: &mut PayloadWriter,
        cx: &mut Context,
    ) -> Option<Pending> {
        let replacing = self.followups.child(id).is_some();
        let old = self.child_mut(id)?;
        if old.phase != Phase::Rekeying {
            return None;
        }
        if replacing || old.awaits_peer() {
            // The peer is about to replace it, or may not have our answer yet and not know this SPI.
            self.work.delay(Task::RekeyChild(id), cx);
            return None;
        }
        add_rekey_notify(payloads, old);
        let selectors = || Selectors::clone(&old.selectors);
        let wish = Wish {
            exactly: old.single_pair.then(selectors),
            ..Wish::new(&current_config(core, old))
        };
        let owner = (old.owner, old.kin);
        let description = old.description();
        core.log(cx, "CHD", format!("rekeying CHILD_SA {description}"));
        let offer = Offer::new(wish, owner, &core.ends(), true, cx);
        let request = ChildRequest::new(offer, Some(id), cx)?;
        request.encode(payloads);
        Some(Pending::Child(Box::new(request)))
    }

    pub(super) fn on_rekey_child_request(
        &mut self,
        core: &Core,
        datagram: &Datagram<'_>,
        notify: &Notify<'_>,
        payloads: &Payloads<'_>,
        cx: &mut Context,
    ) -> Result<(), ExchangeError> {
        let spi = asked_spi(notify)?;
        let old = self.find_rekeyed(spi)?;
        let (old_id, owner, kin) = (old.id, old.owner, old.kin);
        let config = current_config(core, old);
        let asked = asked_selectors(payloads)?;
        let transport::Choice {
            config,
            selectors,
            transport,
        } = transport::choose(&[config], &core.ends(), &asked, payloads)?;
        self.check_room(kin, config.reqid, true, cx)?;
        // It stays with its worker whatever the request says (RFC 9611).
        let chosen = Chosen {
            config,
            selectors,
            owner,
            kin,
            transport,
            resource: Some(owner),
            replaces: Some(old_id),
        };
        let mut response = PayloadWriter::new();
        let terms = self.respond_child(payloads, chosen, &mut response, cx)?;
        let unfinished = Unfinished::new(Purpose::Child(Box::new(terms)));
        self.agree(core, datagram, response, unfinished, cx)
    }

    /// The peer's request to replace a Child SA was answered with a new one.
    pub(super) fn child_replaced_by_peer(
        &mut self,
        core: &Core,
        old: ChildId,
        child: ChildSa,
        lowest: LowestNonce,
        cx: &mut Context,
    ) {
        let (successor, description) = (child.id, child.description());
        self.children.push(child);
        self.watch_children(cx.now);
        core.log(
            cx,
            "CHD",
            format!("peer is rekeying to CHILD_SA {description}"),
        );
        let contested = self.note_collision(old, successor, lowest);
        let stale_at = cx.now + PASSIVE_WAIT;
        let old = self.child_mut(old).expect("nothing has removed it");
        old.successor = Some(successor);
        if !contested {
            old.phase = Phase::Replaced;
            old.times.stale_at = Some(stale_at);
        }
    }

    /// The Child SA that a peer wants to replace, if it may (RFC 7296 §2.25.1).
    fn find_rekeyed(&self, spi: u32) -> Result<&ChildSa, ExchangeError> {
        let mut children = self.children.iter();
        let Some(old) = children.find(|child| child.spi_out.get() == spi) else {
            // It may be the one whose answer has not reached us.
            let creating = |pending: &Pending| matches!(pending, Pending::Child(_));
            return Err(if self.work.is_pending(creating) {
                ExchangeError::Busy("a CHILD_SA is being created")
            } else {
                ExchangeError::NoSuchChild(spi)
            });
        };
        self.check_open_for_children()?;
        let follows_up = |pending: &Pending| match pending {
            Pending::Child(request) => request.replaces == Some(old.id) && request.follows_up(),
            _ => false,
        };
        if self.work.is_pending(follows_up) {
            return Err(ExchangeError::Busy("the CHILD_SA is being replaced"));
        }
        match old.phase {
            Phase::Deleting => Err(ExchangeError::Busy("the CHILD_SA is being deleted")),
            Phase::Live | Phase::Rekeying if old.successor.is_none() => Ok(old),
            Phase::Live | Phase::Rekeying | Phase::Replaced => {
                Err(ExchangeError::Busy("the CHILD_SA is replaced already"))
            }
        }
    }

    /// Records that the peer replaced what our unanswered request is to replace.
    fn note_collision(&mut self, old: ChildId, successor: ChildId, lowest: LowestNonce) -> bool {
        if let Some(outstanding) = &mut self.work.outstanding
            && let Pending::Child(request) = &mut outstanding.pending
            && request.replaces == Some(old)
        {
            request.collision = Some(ChildCollision { successor, lowest });
            return true;
        }
        false
    }

    /// Our rekey request was answered with a new Child SA.
    pub(super) fn child_replaced(
        &mut self,
        core: &Core,
        request: ChildRequest,
        created: Created,
        cx: &mut Context,
    ) {
        let Created { mut child, nr } = created;
        let old = request.replaces.expect("only rekeys come here");
        let lowest = LowestNonce::of(&request.nonce, &nr);
        if self.is_lost(&request, &lowest) {
            core.log(
                cx,
                "CHD",
                "CHILD_SA rekey collision lost, deleting ours".to_owned(),
            );
            child.drop_outbound();
            let redundant = child.id;
            self.children.push(child);
            self.queue_delete_child(redundant, None);
            return self.give_way(&request, Phase::Replaced, cx);
        }
        self.followups.forget_child(old, cx);
        child.open_outbound(cx);
        child.single_pair = request.offer.wish.exactly.is_some();
        let (new, description) = (child.id, child.description());
        self.children.push(child);
        core.log(cx, "CHD", format!("CHILD_SA rekeyed to {description}"));
        let Some(old_child) = self.child_mut(old) else {
            // The peer has deleted the old one already; ours is what is left.
            return self.tell_succession(core, None, new, cx);
        };
        let redundant = old_child.successor.take();
        let (inactivity, packets) = (old_child.inactivity, old_child.packets());
        let old_status = old_child.told.then(|| old_child.status());
        old_child.told = false;
        let stale_at = cx.now + PASSIVE_WAIT;
        if let Some(redundant) = redundant.and_then(|id| self.child_mut(id)) {
            core.log(cx, "CHD", "CHILD_SA rekey collision won".to_owned());
            redundant.drop_outbound();
            redundant.phase = Phase::Replaced;
            redundant.times.stale_at = Some(stale_at);
        }
        if let Some(new) = self.child_mut(new) {
            new.inactivity.continue_from(&inactivity, packets);
        }
        self.tell_succession(core, old_status, new, cx);
        let unwanted = self.work.is_delete_queued(old);
        self.queue_delete_child(old, None);
        if let Some(old) = self.child_mut(old) {
            old.replaced = true;
        }
        if unwanted {
            self.queue_delete_child(new, None); // its predecessor was to be deleted
        }
    }

    /// Whether the peer's rekey of the same Child SA goes before ours.
    pub(super) fn is_lost(&self, request: &ChildRequest, lowest: &LowestNonce) -> bool {
        let made = request.collision.as_ref().map(|made| made.lowest.clone());
        let unfinished = request.replaces.and_then(|old| self.followups.child(old));
        let mut others = made.into_iter().chain(unfinished);
        others.any(|other| lowest.loses_to(&other))
    }

    /// Leaves the Child SA to the peer's rekey; `phase` is what it is until that is done.
    pub(super) fn give_way(&mut self, request: &ChildRequest, phase: Phase, cx: &mut Context) {
        let Some(old) = request.replaces else {
            return;
        };
        self.followups.give_way(Some(old));
        let stale_at = cx.now + PASSIVE_WAIT;
        if let Some(old) = self.child_mut(old) {
            old.phase = phase;
            if let Some(collision) = &request.collision {
                old.phase = Phase::Replaced;
                old.successor = Some(collision.successor);
            }
            if old.phase == Phase::Replaced {
                old.times.stale_at = Some(stale_at);
            }
        }
    }

    /// Our rekey request was refused.
    pub(super) fn rekey_refused(
        &mut self,
        core: &Core,
        request: ChildRequest,
        refused: Option<NotifyType>,
        error: &Unanswered,
        cx: &mut Context,
    ) {
        let old = request.replaces.expect("only rekeys come here");
        core.log(
            cx,
            "IKE",
            format!("rekeying CHILD_SA {old} failed: {error}"),
        );
        request.offer.abandon(&error.to_string(), cx);
        let now = cx.now;
        let Some(child) = self.child_mut(old) else {
            return;
        };
        if child.successor.is_some() {
            child.phase = Phase::Replaced;
            child.times.stale_at = Some(now + PASSIVE_WAIT);
            return;
        }
        if child.phase != Phase::Rekeying {
            return; // a delete was asked for in the meantime
        }
        if refused == Some(NotifyType::CHILD_SA_NOT_FOUND) {
            // The peer has lost it: make a new one, since somebody wanted it to go on.
            let wish = Wish::new(&current_config(core, child));
            self.remove_child(core, old, &End::ByPeer, cx);
            self.push(Task::CreateChild(wish));
            return;
        }
        child.phase = Phase::Live;
        if refused == Some(NotifyType::NO_ADDITIONAL_SAS) {
            // A minimal peer (RFC 7296 §4): new keys come with a new IKE SA only.
            cx.effects.push(Effect::Reauthenticate(core.id));
        }
        let wait = if refused == Some(NotifyType::TEMPORARY_FAILURE) {
            SOON
        } else {
            LATER
        };
        // Both sides may have refused what crossed their own wish: they must not wait equally long.
        child.times.rekey_at = Some(now + jittered(wait, 50, cx.rng()));
    }

    /// The peer has deleted a Child SA that has a successor of the peer's making.
    pub(super) fn succeed(&mut self, core: &Core, old: &ChildSa, new: ChildId, cx: &mut Context) {
        let Some(successor) = self.child_mut(new) else {
            let ike = self.status(core, false);
            return old.tell_down(&ike, &End::Replaced, cx);
        };
        successor.open_outbound(cx);
        successor.times.stale_at = None;
        let packets = old.packets();
        successor.inactivity.continue_from(&old.inactivity, packets);
        let description = successor.description();
        core.log(cx, "CHD", format!("CHILD_SA rekeyed to {description}"));
        self.tell_succession(core, old.told.then(|| old.status()), new, cx);
    }

    /// Tells that a Child SA is in use, and in whose place.
    fn tell_succession(
        &mut self,
        core: &Core,
        old: Option<ChildStatus>,
        new: ChildId,
        cx: &mut Context,
    ) {
        let ike = Box::new(self.status(core, false));
        let id = new;
        let Some(new) = self.child_mut(id) else {
            return;
        };
        new.told = true;
        let new = Box::new(new.status());
        cx.event(match old.map(Box::new) {
            Some(old) => Event::ChildRekeyed { ike, old, new },
            None => Event::ChildUp { ike, child: new },
        });
        self.drop_unconfigured(core, id);
    }

    /// Takes a Child SA away that has no successor.
    pub(super) fn remove_child(&mut self, core: &Core, id: ChildId, end: &End, cx: &mut Context) {
        let Some(place) = self.children.iter().position(|child| child.id == id) else {
            return;
        };
        let child = self.children.remove(place);
        self.miss_successor(id);
        let spared = self.is_spared(&child);
        core.log(
            cx,
            "CHD",
            format!("CHILD_SA {} closed: {end}", child.description()),
        );
        child.tell_down(&self.status(core, false), end, cx);
        if child.kin.siblings != Siblings::Unknown {
            cx.commands
                .hold_acquires(child.config.reqid, Acquire::Beside, cx.now);
        }
        if let Some(wish) = restart_wish(&child, end) {
            self.push(Task::CreateChild(wish));
        }
        if spared {
            child.linger(&mut self.lingering, cx);
        } else {
            child.uninstall(cx);
        }
    }

    /// A successor has gone before the Child SA that it was to replace, which goes on.
    fn miss_successor(&mut self, id: ChildId) {
        for other in &mut self.children {
            if other.successor == Some(id) {
                other.successor = None;
                if other.phase == Phase::Replaced {
                    other.phase = Phase::Live;
                    other.times.stale_at = None;
                }
            }
        }
    }

    /// Our DELETE of a Child SA was answered.
    pub(super) fn on_delete_answer(&mut self, core: &Core, id: ChildId, cx: &mut Context) {
        let Some(place) = self.children.iter().position(|child| child.id == id) else {
            return;
        };
        let replaced = self.children.get(place).is_some_and(ChildSa::is_replaced);
        if !replaced {
            return self.remove_child(core, id, &End::Terminated, cx);
        }
        let child = self.children.remove(place);
        if let Some(successor) = child.successor {
            self.succeed(core, &child, successor, cx);
        }
        child.linger(&mut self.lingering, cx);
    }

    /// Looks again soon whether the peer sends on a new Child SA.
    pub(super) fn watch_children(&mut self, now: Instant) {
        self.switch_at = Some(now + SWITCH_POLL);
    }

    /// The peer has repeated a request, so it did not have our answer.
    pub(super) fn postpone_settling(&mut self, now: Instant) {
        for child in &mut self.children {
            if child.awaits_peer() && child.times.settled_at.is_some() {
                // Its next repetition comes after a longer time.
                let waited = now.saturating_duration_since(child.times.installed);
                child.times.settled_at = Some(now + SETTLED + waited);
            }
        }
    }

    /// What is due on Child SAs.
    pub(super) fn poll_children(&mut self, core: &Core, cx: &mut Context) {
        let now = cx.now;
        let due = |at: Option<Instant>| at.is_some_and(|at| at <= now);
        let mut waiting = false;
        let ids: Vec<ChildId> = self.children.iter().map(|child| child.id).collect();
        for id in ids {
            let Some(child) = self.child_mut(id) else {
                continue;
            };
            if child.awaits_peer() && (child.usage_in.packets() > 0 || due(child.times.settled_at))
            {
                child.open_outbound(cx); // the peer sends on it, so it receives on it
            }
            if child.awaits_peer() {
                waiting = true;
            }
            if due(child.times.stale_at) {
                child.times.stale_at = None;
                self.queue_delete_child(id, None);
            } else if due(child.times.expires_at) {
                self.expire_child(core, id, cx);
            } else if due(child.times.rekey_at) && child.phase == Phase::Live {
                self.queue_rekey_child(id);
            } else if child.is_idle(now) {
                let line = format!("CHILD_SA {}: closed without traffic", child.description());
                core.log(cx, "CHD", line);
                self.queue_delete_child(id, None);
            }
        }
        self.switch_at = waiting.then(|| now + SWITCH_POLL);
    }

    /// A hard lifetime is over: nothing is sent any more, and nothing received when the peer has
    /// answered the DELETE.
    pub(in crate::ike) fn expire_child(&mut self, core: &Core, id: ChildId, cx: &mut Context) {
        let Some(child) = self.child_mut(id) else {
            return;
        };
        child.times.expires_at = None;
        if child.phase == Phase::Deleting {
            return;
        }
        let wish = restart_wish(child, &End::Expired);
        child.stop_outbound(cx);
        let description = child.description();
        core.log(
            cx,
            "CHD",
            format!("CHILD_SA {description}: lifetime is over"),
        );
        self.queue_delete_child(id, None);
        self.work.queue.extend(wish.map(Task::CreateChild));
    }

    pub(super) fn children_deadline(&self) -> Option<Instant> {
        let times = self.children.iter().filter_map(ChildSa::deadline);
        times.chain(self.switch_at).min()
    }
}

/// The child as it is configured now, or as it was when it is not configured any more.
fn current_config(core: &Core, child: &ChildSa) -> Arc<crate::ike::pad::ChildConfig> {
    let connection = core.connection.as_ref();
    let current = connection.and_then(|connection| connection.child(&child.config.name));
    Arc::clone(current.unwrap_or(&child.config))
}

/// After TEMPORARY_FAILURE.
const SOON: Duration = Duration::from_secs(3);
/// After a refusal that may need a change of configuration.
const LATER: Duration = Duration::from_secs(30);
/// How often to look whether the peer sends on a new SA.
pub(super) const SWITCH_POLL: Duration = Duration::from_millis(100);
