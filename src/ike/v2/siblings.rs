//! Child SAs with the same selectors, one for each worker (RFC 9611).
//!
//! Each belongs to one worker at either end, and none is special: a worker without one of its own
//! hands its packets to a worker that has one, and asks for its own. The one that asks receives and
//! sends on it at once; the one that answers sends on it when the peer has shown that it knows.

use std::time::Duration;

use crate::ike::context::{Context, Wish};
use crate::ike::narrow::is_narrowing;
use crate::ike::negotiate::alike;
use crate::ike::pad::ChildConfig;
use crate::ipsec::{Reqid, Selectors, WorkerId};
use crate::wire::ikev2::{NotifyType, PayloadWriter};
use crate::wire::ip::Flow;

use super::Core;
use super::child::{ChildSa, Phase};
use super::create::ChildRequest;
use super::error::ExchangeError;
use super::established::Established;
use super::message::{Payloads, add_notify};
use super::offer::Offer;
use super::rekey_child::SWITCH_POLL;
use super::tasks::Pending;

/// What is agreed about more Child SAs with the same selectors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Siblings {
    /// One side does not do that.
    Unknown,
    /// Both sides may make more.
    Welcome,
    /// The peer wants no more of them, until this one is replaced.
    Full,
}

/// How a Child SA is related to others with the same selectors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Kin {
    pub(super) siblings: Siblings,
    /// It was made besides another one.
    pub(super) additional: bool,
}

impl Kin {
    /// Of a Child SA that replaces none and is the first of its kind.
    pub(super) const FIRST: Self = Self {
        siblings: Siblings::Unknown,
        additional: false,
    };

    /// What an exchange has changed about it. A rekey need not say again what was agreed before.
    pub(super) fn after(self, config: &ChildConfig, payloads: &Payloads<'_>) -> Self {
        let said = payloads.notify(NotifyType::SA_RESOURCE_INFO).is_some();
        let siblings = match self.siblings {
            _ if !config.per_cpu_sas => Siblings::Unknown,
            _ if said => Siblings::Welcome,
            Siblings::Unknown => Siblings::Unknown,
            Siblings::Welcome | Siblings::Full => Siblings::Welcome,
        };
        Self { siblings, ..self }
    }
}

/// Adds the notification that more Child SAs like this one are welcome, with a number for people.
pub(super) fn add_resource_info(payloads: &mut PayloadWriter, resource: Option<WorkerId>) {
    let number = resource.map(|worker| u32::from(worker.0).to_be_bytes());
    let data = number.as_ref().map_or(&[][..], |number| number);
    add_notify(payloads, NotifyType::SA_RESOURCE_INFO, data);
}

impl Established {
    /// The Child SA beside which this worker may have one of its own, if it has none.
    pub(in crate::ike) fn sibling_for(
        &self,
        reqid: Reqid,
        flow: &Flow,
        worker: WorkerId,
    ) -> Option<&ChildSa> {
        let group = || {
            let children = self.children.iter();
            children.filter(|child| child.config.reqid == reqid && child.admits(flow))
        };
        if group().any(|child| child.owner == worker) {
            return None;
        }
        group().find(|child| child.kin.siblings == Siblings::Welcome)
    }

    /// A Child SA of its own is on its way to this worker.
    pub(in crate::ike) fn creates_for(&self, reqid: Reqid, worker: WorkerId) -> bool {
        self.work.creates_for(reqid, worker)
    }

    pub(super) fn begin_sibling(
        &mut self,
        wish: Wish,
        worker: WorkerId,
        payloads: &mut PayloadWriter,
        cx: &mut Context,
    ) -> Option<Pending> {
        let sibling = self.sibling_for(wish.child.reqid, wish.flow.as_ref()?, worker)?;
        let proposals = alike(&wish.child.esp_proposals, &sibling.suite);
        if proposals.is_empty() {
            return None; // they have changed: to wait for the rekey
        }
        let selectors = Selectors::clone(&sibling.selectors);
        let resource = self.resource(wish.child.reqid, worker);
        let offer = Offer::beside(wish, worker, resource, (selectors, &proposals), cx);
        let request = ChildRequest::new(offer, None, cx)?;
        request.encode(payloads);
        Some(Pending::Child(Box::new(request)))
    }

    /// Whether another Child SA carries the traffic of this one if it goes.
    pub(super) fn is_spared(&self, child: &ChildSa) -> bool {
        let mut others = self.children.iter();
        !child.is_replaced()
            && others.any(|other| {
                other.id != child.id
                    && other.config.reqid == child.config.reqid
                    && other.is_usable()
                    && !other.awaits_peer()
                    && is_same(&other.selectors, &child.selectors)
            })
    }

    /// Sends nothing more for these policies, because another IKE SA has Child SAs for them.
    pub(in crate::ike) fn stop_sending(&mut self, reqids: &[Reqid], cx: &mut Context) {
        for child in &mut self.children {
            if reqids.contains(&child.config.reqid) {
                child.stop_outbound(cx);
            }
        }
    }

    /// The policies that this IKE SA sends for.
    pub(in crate::ike) fn sends_for(&self) -> Vec<Reqid> {
        let children = self.children.iter();
        let sending = children.filter(|child| child.is_usable() && !child.awaits_peer());
        sending.map(|child| child.config.reqid).collect()
    }

    /// Sends on what waits for the peer, unless another IKE SA sends for its policy: then when the peer has
    /// the answer.
    pub(in crate::ike) fn open_unless_carried(&mut self, carried: &[Reqid], cx: &mut Context) {
        for child in self.children.iter_mut().filter(|child| child.awaits_peer()) {
            if carried.contains(&child.config.reqid) {
                child.times.settled_at = Some(cx.now + SETTLED);
                self.switch_at = Some(cx.now + SWITCH_POLL);
            } else {
                child.open_outbound(cx);
            }
        }
    }

    /// Goes on for a Child SA of another IKE SA; gives it back if there is none for its policy.
    pub(in crate::ike) fn relieve(
        &mut self,
        gone: ChildSa,
        lingers: bool,
        cx: &mut Context,
    ) -> Option<ChildSa> {
        let mut children = self.children.iter_mut();
        let same = |child: &&mut ChildSa| child.config.reqid == gone.config.reqid;
        let Some(child) = children.find(|child| same(child) && child.is_usable()) else {
            return Some(gone);
        };
        child.open_outbound(cx);
        match lingers {
            true => gone.linger(&mut self.lingering, cx),
            false => gone.uninstall(cx),
        }
        None
    }

    /// The peer wants no more Child SAs like those that carry this flow.
    pub(super) fn close_group(&mut self, core: &Core, wish: &Wish, cx: &mut Context) {
        let name = &wish.child.name;
        core.log(
            cx,
            "CHD",
            format!("CHILD_SA {name}: peer accepts no more of this kind"),
        );
        for child in &mut self.children {
            let alike = child.config.reqid == wish.child.reqid
                && wish.flow.is_none_or(|flow| child.admits(&flow));
            if alike && child.kin.siblings == Siblings::Welcome {
                child.kin.siblings = Siblings::Full;
            }
        }
    }

    /// How a Child SA that the peer asks for is related to those that are there, and whose it is.
    pub(super) fn place(
        &self,
        config: &ChildConfig,
        selectors: &Selectors,
        payloads: &Payloads<'_>,
        cx: &mut Context,
    ) -> Result<(Kin, WorkerId), ExchangeError> {
        let kin = Kin::FIRST.after(config, payloads);
        let first = cx.next_owner();
        let mut usable = self.children.iter().filter(|child| child.is_usable());
        let has_sibling = usable.any(|child| {
            child.config.reqid == config.reqid && is_same(&child.selectors, selectors)
        });
        if kin.siblings != Siblings::Welcome || !has_sibling {
            self.check_room(kin, config.reqid, false, cx)?;
            return Ok((kin, first));
        }
        let kin = Kin {
            additional: true,
            ..kin
        };
        self.check_room(kin, config.reqid, false, cx)?;
        Ok((kin, self.least_loaded(config.reqid, first, cx)))
    }

    /// Whether one more Child SA of this kind is allowed. A rekey needs room for the old and the new.
    pub(super) fn check_room(
        &self,
        kin: Kin,
        reqid: Reqid,
        rekeys: bool,
        cx: &Context,
    ) -> Result<(), ExchangeError> {
        let alike = self.children.iter().filter(|child| {
            child.kin.additional == kin.additional
                && (!kin.additional || child.config.reqid == reqid)
        });
        let (limit, error) = if kin.additional {
            let limit = cx.settings.additional_per_child;
            (limit, ExchangeError::TooManyAdditional)
        } else {
            let limit = cx.settings.children_per_ike;
            (limit, ExchangeError::TooManyChildren)
        };
        let limit = if rekeys { 2 * limit } else { limit };
        if alike.count() < limit {
            Ok(())
        } else {
            Err(error)
        }
    }

    /// The worker with the fewest Child SAs of a policy, looked for from `first` on.
    fn least_loaded(&self, reqid: Reqid, first: WorkerId, cx: &Context) -> WorkerId {
        let workers = cx.settings.workers.get();
        let load = |worker: WorkerId| {
            let children = self.children.iter().filter(|child| {
                child.config.reqid == reqid
                    && child.owner == worker
                    && child.is_usable()
                    && !child.is_replaced()
                    && child.phase != Phase::Replaced
            });
            children.count() + usize::from(self.work.requests_for(reqid, worker))
        };
        let all = (first.0..workers).chain(0..first.0).map(WorkerId);
        let wanted = |worker| self.creates_for(reqid, worker);
        all.min_by_key(|worker| (load(*worker), !wanted(*worker)))
            .unwrap_or(first)
    }

    /// What the notification says: the worker, as long as that tells this Child SA from the others.
    pub(super) fn resource(&self, reqid: Reqid, worker: WorkerId) -> Option<WorkerId> {
        let mut children = self.children.iter();
        let taken = children.any(|child| child.config.reqid == reqid && child.owner == worker);
        (!taken).then_some(worker)
    }
}

fn is_same(one: &Selectors, other: &Selectors) -> bool {
    is_narrowing(one, other) && is_narrowing(other, one)
}

/// The peer has the answer by then, unless it repeats its request; some first do so after four seconds.
pub(super) const SETTLED: Duration = Duration::from_secs(5);
