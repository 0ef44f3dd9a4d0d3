//! CREATE_CHILD_SA: new and rekeyed Child SAs (RFC 7296 §1.3.1, §1.3.3).

use std::sync::Arc;

use crate::crypto::Secret;
use crate::crypto::kdf::ChildKeys;
use crate::crypto::kex::{self, KeyExchange};
use crate::ike::context::{Context, Wish};
use crate::ike::narrow::choose_child;
use crate::ike::negotiate::{Choice, choose_esp, exchanges};
use crate::ike::pad::ChildConfig;
use crate::ipsec::{ChildId, Selectors, WorkerId};
use crate::wire::Malformed;
use crate::wire::ikev2::{Notify, NotifyType, PayloadWriter};
use crate::wire::isakmp::PayloadType;
use crate::wire::proposal::{EspSuite, ProtocolId};

use super::Core;
use super::child::{Agreed, ChildSa, End, esp_path};
use super::collision::ChildCollision;
use super::error::ExchangeError;
use super::established::{Established, Fate};
use super::message::{
    Datagram, Payloads, add_ke, add_notify, add_selectors, notify_name, rekeyed_spi, wanted_group,
};
use super::offer::{Answer, Offer, Unanswered, esp_spi};
use super::siblings::{Kin, SETTLED, Siblings, add_resource_info};
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
    restarts: u8,
}

/// What a responder has decided before it looks at the proposals.
pub(super) struct Chosen {
    pub(super) config: Arc<ChildConfig>,
    pub(super) selectors: Selectors,
    pub(super) owner: WorkerId,
    pub(super) kin: Kin,
    /// What tells it from others like it.
    pub(super) resource: Option<WorkerId>,
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
        let offer = Offer::new(wish, owner, core.path, true, cx);
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

    pub(super) fn on_create_request(
        &mut self,
        core: &mut Core,
        datagram: &Datagram<'_>,
        payloads: &Payloads<'_>,
        cx: &mut Context,
    ) -> Fate {
        let proposals = match payloads.proposals() {
            Ok(proposals) => proposals,
            Err(error) => return self.refuse(core, datagram, &error, cx),
        };
        let for_ike = proposals
            .iter()
            .any(|(_, proposal)| proposal.protocol == ProtocolId::Ike);
        let result = if for_ike {
            self.on_rekey_ike_request(core, datagram, payloads, &proposals, cx)
        } else if let Some(notify) = payloads.notify(NotifyType::REKEY_SA) {
            self.on_rekey_child_request(core, datagram, notify, payloads, cx)
        } else {
            self.on_new_child_request(core, datagram, payloads, cx)
        };
        match result {
            Ok(()) => Fate::Stays,
            Err(error) => self.refuse(core, datagram, &error, cx),
        }
    }

    fn on_new_child_request(
        &mut self,
        core: &Core,
        datagram: &Datagram<'_>,
        payloads: &Payloads<'_>,
        cx: &mut Context,
    ) -> Result<(), ExchangeError> {
        self.check_open_for_children()?;
        let connection = core
            .connection
            .as_ref()
            .expect("an authenticated SA has one");
        let asked = asked_selectors(payloads)?;
        let (config, selectors) = choose_child(&connection.children, core.path, &asked)?;
        let config = Arc::clone(config);
        let (kin, owner) = self.place(&config, &selectors, payloads, cx)?;
        let resource = self.resource(config.reqid, owner);
        let chosen = Chosen {
            config,
            selectors,
            owner,
            kin,
            resource,
        };
        let mut response = PayloadWriter::new();
        let created = self.respond_child(core, payloads, chosen, &mut response, cx)?;
        let mut child = created.child;
        if kin.additional {
            // Another one carries the traffic until the peer has the answer.
            child.times.settled_at = Some(cx.now + SETTLED);
            self.watch_children(cx.now);
        } else {
            child.open_outbound(cx); // what the peer sends after our answer may be answered at once
        }
        self.answer(core, datagram, response, cx);
        self.child_up(core, child, Vec::new(), cx);
        Ok(())
    }

    /// No Child SA may be made while this SA is being replaced or deleted (RFC 7296 §2.25.2).
    pub(super) fn check_open_for_children(&self) -> Result<(), ExchangeError> {
        if self.work.deletes_ike() {
            return Err(ExchangeError::Busy("the IKE SA is being deleted"));
        }
        let rekeying = self
            .work
            .is_pending(|pending| matches!(pending, Pending::RekeyIke(_)));
        if rekeying || !self.succession.is_none() {
            return Err(ExchangeError::Busy("the IKE SA is being rekeyed"));
        }
        Ok(())
    }

    /// Negotiates a Child SA as responder, writes the answer and installs the inbound half.
    pub(super) fn respond_child(
        &mut self,
        core: &Core,
        payloads: &Payloads<'_>,
        chosen: Chosen,
        response: &mut PayloadWriter,
        cx: &mut Context,
    ) -> Result<Created, ExchangeError> {
        let Chosen {
            config,
            selectors,
            owner,
            kin,
            resource,
        } = chosen;
        let proposals = payloads.proposals()?;
        let ni = payloads.nonce()?;
        let ke = payloads
            .ke
            .is_some()
            .then(|| payloads.key_exchange())
            .transpose()?;
        let sent = ke.map(|ke| ke.group);
        let choice = choose_esp(&config.esp_proposals, &proposals, sent, true)?;
        let spi_out = esp_spi(&choice.proposal).ok_or(Malformed::BadValue("ESP SPI"))?;
        let (public, shared) = match choice.suite.key_exchange {
            None => (None, None),
            Some(group) => {
                let ke = ke.filter(|ke| ke.group == group);
                let ke = ke.ok_or(ExchangeError::OtherGroup(group))?;
                let answer = kex::answer(group, ke.data, cx.rng())?;
                (Some((group, answer.public)), Some(answer.shared))
            }
        };
        let nr = cx.nonce();
        let spi_in = cx.reserve_spi(owner);
        let keys = self.child_keys(shared.as_ref(), (ni, &nr), &choice.suite);

        let Choice {
            number,
            mut proposal,
            suite,
        } = choice;
        proposal.spi = spi_in.to_be_bytes().to_vec();
        response.add_with(PayloadType::SA, |out| proposal.encode_answer(number, out));
        response.add(PayloadType::NONCE, &nr);
        if let Some((group, public)) = &public {
            add_ke(response, *group, public);
        }
        add_selectors(response, &selectors.remote, &selectors.local);
        add_notify(response, NotifyType::ESP_TFC_PADDING_NOT_SUPPORTED, &[]);
        let kin = kin.after(&config, payloads);
        if payloads.notify(NotifyType::SA_RESOURCE_INFO).is_some() && config.per_cpu_sas {
            add_resource_info(response, resource);
        }
        let agreed = Agreed {
            config,
            owner,
            spi_in,
            spi_out,
            suite,
            selectors,
            keys,
            kin,
            initiator: false,
        };
        let child = ChildSa::install(agreed, esp_path(core.path, self.nat, cx), cx);
        Ok(Created { child, nr })
    }

    fn child_keys(
        &self,
        shared: Option<&Secret>,
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
        if payloads.sa.is_none()
            && let Some(notify) = payloads.notify(NotifyType::INVALID_KE_PAYLOAD)
            && self.restart_request(core, &mut request, notify, cx)
        {
            self.resend(core, request, cx);
            return Fate::Stays;
        }
        match self.finish_request(core, &mut request, &payloads, cx) {
            Ok(created) if request.replaces.is_some() => {
                self.child_replaced(core, request, created, cx);
            }
            Ok(mut created) => {
                created.child.open_outbound(cx);
                let wish = &mut request.offer.wish;
                if wish.worker.is_some() && created.child.kin.siblings != Siblings::Welcome {
                    self.close_group(core, wish, cx); // the peer made an ordinary one of it
                }
                let waiters = std::mem::take(&mut wish.waiters);
                self.child_up(core, created.child, waiters, cx);
            }
            Err(error) => {
                let refused = payloads.error().map(|notify| notify.kind);
                if payloads.sa.is_some() && !matches!(error, Unanswered::AlreadyDeleted) {
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

    fn finish_request(
        &mut self,
        core: &Core,
        request: &mut ChildRequest,
        payloads: &Payloads<'_>,
        cx: &mut Context,
    ) -> Result<Created, Unanswered> {
        let Answer {
            suite,
            spi,
            selectors,
        } = request.offer.check(payloads)?;
        if request.early_deletes.contains(&spi.get()) {
            return Err(Unanswered::AlreadyDeleted);
        }
        let nr = payloads.nonce()?;
        if nr == request.nonce {
            return Err(ExchangeError::from(Malformed::BadValue("nonce")).into());
        }
        let shared = match (request.exchange.take(), suite.key_exchange) {
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
        let keys = self.child_keys(shared.as_ref(), (&request.nonce, nr), &suite);
        let offer = &request.offer;
        let agreed = Agreed {
            config: Arc::clone(offer.child()),
            owner: offer.owner,
            spi_in: offer.spi,
            spi_out: spi,
            suite,
            selectors,
            keys,
            kin: offer.kin.after(offer.child(), payloads),
            initiator: true,
        };
        let child = ChildSa::install(agreed, esp_path(core.path, self.nat, cx), cx);
        let nr = nr.to_vec();
        Ok(Created { child, nr })
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
            restarts: 0,
        })
    }

    pub(super) fn encode(&self, payloads: &mut PayloadWriter) {
        let ke = self.exchange.as_ref().map(|ke| (ke.group(), ke.public()));
        self.offer.encode(payloads, Some(&self.nonce), ke);
    }
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

/// The SPI of the Child SA that a peer wants to replace.
pub(super) fn asked_spi(notify: &Notify<'_>) -> Result<u32, ExchangeError> {
    rekeyed_spi(notify).ok_or(ExchangeError::NoSuchChild(0))
}

/// What a peer asks for, seen from here.
pub(super) fn asked_selectors(payloads: &Payloads<'_>) -> Result<Selectors, ExchangeError> {
    Ok(Selectors {
        local: payloads.ts_r()?,
        remote: payloads.ts_i()?,
    })
}

const MAX_RESTARTS: u8 = 3;
