//! CREATE_CHILD_SA as responder: new and rekeyed Child SAs (RFC 7296 §1.3.1, §1.3.3).

use std::sync::Arc;

use crate::crypto::Secret;
use crate::crypto::kex;
use crate::ike::context::Context;
use crate::ike::narrow::has_more;
use crate::ike::negotiate::{Choice, choose_esp};
use crate::ike::pad::ChildConfig;
use crate::ipsec::{ChildId, Selectors, Spi, TransportEnds, WorkerId};
use crate::wire::Malformed;
use crate::wire::ikev2::{Notify, NotifyType, PayloadWriter};
use crate::wire::isakmp::PayloadType;
use crate::wire::proposal::{EspSuite, ProtocolId};

use super::Core;
use super::child::{Agreed, ChildSa, Phase, esp_path};
use super::collision::LowestNonce;
use super::error::ExchangeError;
use super::established::{Established, Fate};
use super::followup::{Purpose, Unfinished};
use super::message::{Datagram, Payloads, add_ke, add_notify, add_selectors, rekeyed_spi};
use super::offer::esp_spi;
use super::siblings::{Kin, SETTLED, add_resource_info};
use super::tasks::Pending;
use super::transport;

/// What a responder has decided before it looks at the proposals.
pub(super) struct Chosen {
    pub(super) config: Arc<ChildConfig>,
    pub(super) selectors: Selectors,
    pub(super) owner: WorkerId,
    pub(super) kin: Kin,
    /// In transport mode.
    pub(super) transport: Option<TransportEnds>,
    /// What tells it from others like it.
    pub(super) resource: Option<WorkerId>,
    pub(super) replaces: Option<ChildId>,
}

/// What a responder has agreed to.
pub(super) struct Negotiated {
    pub(super) agreed: Agreed,
    pub(super) ni: Vec<u8>,
    pub(super) nr: Vec<u8>,
    /// Results of the key exchanges so far.
    pub(super) shared: Vec<Secret>,
    /// The Child SA that it replaces.
    pub(super) replaces: Option<ChildId>,
}

impl Established {
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
        let ends = core.ends();
        let transport::Choice {
            config,
            selectors,
            transport,
        } = transport::choose(&connection.children, &ends, &asked, payloads)?;
        let granted = (&*config, &selectors);
        let more = has_more(&connection.children, &ends, &asked, granted);
        let (kin, owner) = self.place(&config, &selectors, payloads, cx)?;
        let resource = self.resource(config.reqid, owner);
        let chosen = Chosen {
            config,
            selectors,
            owner,
            kin,
            transport,
            resource,
            replaces: None,
        };
        let mut response = PayloadWriter::new();
        let terms = self.respond_child(payloads, chosen, &mut response, cx)?;
        if more {
            add_notify(&mut response, NotifyType::ADDITIONAL_TS_POSSIBLE, &[]);
        }
        let unfinished = Unfinished::new(Purpose::Child(Box::new(terms)));
        self.agree(core, datagram, response, unfinished, cx)
    }

    /// Makes the Child SA that a peer asked for, and answers.
    pub(super) fn make_child(
        &mut self,
        core: &Core,
        datagram: &Datagram<'_>,
        response: PayloadWriter,
        terms: Negotiated,
        cx: &mut Context,
    ) -> Result<(), ExchangeError> {
        let Negotiated {
            agreed,
            ni,
            nr,
            shared,
            replaces,
        } = terms;
        let old = replaces.map(|old| self.child_mut(old).map(|old| old.phase));
        if matches!(old, Some(None | Some(Phase::Deleting))) {
            cx.release_spi(agreed.spi_in);
            return Err(ExchangeError::Busy("the CHILD_SA is being deleted"));
        }
        let (keys, kin) = (
            self.child_keys(&shared, (&ni, &nr), &agreed.suite),
            agreed.kin,
        );
        let mut child = ChildSa::install(agreed, keys, esp_path(core.path, self.nat, cx), cx);
        if let Some(old) = replaces {
            self.answer(core, datagram, response, cx);
            let lowest = LowestNonce::of(&ni, &nr);
            self.child_replaced_by_peer(core, old, child, lowest, cx);
            return Ok(());
        }
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

    /// Negotiates a Child SA as responder, and writes the answer.
    pub(super) fn respond_child(
        &mut self,
        payloads: &Payloads<'_>,
        chosen: Chosen,
        response: &mut PayloadWriter,
        cx: &mut Context,
    ) -> Result<Negotiated, ExchangeError> {
        let Chosen {
            config,
            selectors,
            owner,
            kin,
            transport,
            resource,
            replaces,
        } = chosen;
        let proposals = payloads.proposals()?;
        let ni = payloads.nonce()?;
        let ke = payloads.ke.map(|_| payloads.key_exchange()).transpose()?;
        let sent = ke.map(|ke| ke.group);
        let choice = choose_esp(&config.esp_proposals, &proposals, sent, true)?;
        let spi_out = esp_spi(&choice.proposal).ok_or(Malformed::BadValue("ESP SPI"))?;
        let exchanged = match choice.suite.key_exchange {
            None => None,
            Some(group) => {
                let ke = ke.filter(|ke| ke.group == group);
                let ke = ke.ok_or(ExchangeError::OtherGroup(group))?;
                Some((group, kex::answer(group, ke.data, cx.rng())?))
            }
        };
        let nr = cx.nonce();
        let spi_in = cx.reserve_spi(owner);

        let suite = add_choice(choice, spi_in, response);
        response.add(PayloadType::NONCE, &nr);
        if let Some((group, answer)) = &exchanged {
            add_ke(response, *group, &answer.public);
        }
        add_traffic(&selectors, transport.is_some(), response);
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
            kin,
            transport,
            initiator: false,
        };
        Ok(Negotiated {
            agreed,
            ni: ni.to_vec(),
            nr,
            shared: exchanged
                .map(|(_, answer)| answer.shared)
                .into_iter()
                .collect(),
            replaces,
        })
    }
}

/// Writes the proposal that was chosen, with our SPI.
pub(super) fn add_choice(
    choice: Choice<EspSuite>,
    spi: Spi,
    response: &mut PayloadWriter,
) -> EspSuite {
    let Choice {
        number,
        mut proposal,
        suite,
    } = choice;
    proposal.spi = spi.to_be_bytes().to_vec();
    response.add_with(PayloadType::SA, |out| proposal.encode_answer(number, out));
    suite
}

/// Writes which traffic is agreed upon, and how it is carried.
pub(super) fn add_traffic(selectors: &Selectors, transport: bool, response: &mut PayloadWriter) {
    add_selectors(response, &selectors.remote, &selectors.local);
    if transport {
        add_notify(response, NotifyType::USE_TRANSPORT_MODE, &[]);
    }
    add_notify(response, NotifyType::ESP_TFC_PADDING_NOT_SUPPORTED, &[]);
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
