//! The Child SA that IKE_AUTH brings along (RFC 7296 §1.2, §2.17).

use std::sync::Arc;

use crate::crypto::kdf::ChildKeys;
use crate::ike::context::Context;
use crate::ike::narrow::has_more;
use crate::ike::negotiate::choose_esp;
use crate::ike::pad::{Childless, Connection};
use crate::wire::Malformed;
use crate::wire::ikev2::{NotifyType, PayloadWriter};

use super::Core;
use super::auth_request::Leased;
use super::child::{Agreed, ChildSa, esp_path};
use super::configuration;
use super::create_request::{add_choice, add_traffic, asked_selectors};
use super::error::ExchangeError;
use super::established::{Established, Peer};
use super::init::InitExchange;
use super::message::{Payloads, add_notify};
use super::offer::{Offer, Unanswered, esp_spi};
use super::siblings::{Kin, Siblings, add_resource_info};
use super::tasks::Task;
use super::transport;

impl Established {
    /// Installs the Child SA of IKE_AUTH, whose keys come from the nonces of IKE_SA_INIT.
    pub(super) fn finish_first_child(
        &mut self,
        core: &Core,
        offer: Offer,
        exchange: &InitExchange,
        payloads: &Payloads<'_>,
        cx: &mut Context,
    ) {
        let connection = core.connection.as_ref();
        let has_address = connection.is_none_or(|connection| {
            connection.vips.is_empty() || !core.virtual_ips.local.is_empty()
        });
        let answer = offer.check(payloads);
        let answer = match answer
            .and_then(|answer| has_address.then_some(answer).ok_or(Unanswered::NoAddress))
        {
            Ok(answer) => {
                offer.note_more(core, payloads, cx);
                answer
            }
            Err(error) => {
                if payloads.sa.is_some() {
                    self.push(Task::DeleteUnwanted(offer.spi));
                }
                return self.child_failed(core, offer, &error, cx);
            }
        };
        let (ni, nr) = (&exchange.ni, &exchange.nr);
        let cipher = &answer.suite.cipher;
        let keys = ChildKeys::derive(self.keys.prf, &self.keys.sk_d, &[], ni, nr, cipher);
        let agreed = Agreed {
            config: Arc::clone(offer.child()),
            owner: offer.owner,
            spi_in: offer.spi,
            spi_out: answer.spi,
            suite: answer.suite,
            selectors: answer.selectors,
            kin: offer.kin.after(offer.child(), payloads),
            transport: answer.transport,
            initiator: true,
        };
        let mut child = ChildSa::install(agreed, keys, esp_path(core.path, self.nat, cx), cx);
        child.open_outbound(cx);
        self.child_up(core, child, offer.wish.waiters, cx);
    }

    /// Negotiates the Child SA of IKE_AUTH and adds the answer, or the reason against it: the IKE
    /// SA is established without it (RFC 7296 §1.2).
    pub(super) fn first_child(
        &mut self,
        core: &Core,
        exchange: &InitExchange,
        (leased, payloads): (Leased, &Payloads<'_>),
        response: &mut PayloadWriter,
        cx: &mut Context,
    ) -> Result<ChildSa, ExchangeError> {
        let child = leased.and_then(|leased| {
            if let Some(attributes) = leased {
                configuration::add_reply(attributes, response);
            }
            self.negotiate_first_child(core, exchange, payloads, response, cx)
        });
        match child {
            Ok(mut child) => {
                let Peer {
                    local_id,
                    remote_id,
                } = &self.peer;
                if cx.peers.between(local_id, remote_id).is_empty() {
                    child.open_outbound(cx); // what the peer sends after our answer may be answered at once
                }
                Ok(child)
            }
            Err(error) => {
                cx.discard(error.discard());
                error.encode(response);
                Err(error)
            }
        }
    }

    fn negotiate_first_child(
        &mut self,
        core: &Core,
        exchange: &InitExchange,
        payloads: &Payloads<'_>,
        response: &mut PayloadWriter,
        cx: &mut Context,
    ) -> Result<ChildSa, ExchangeError> {
        let proposals = payloads.proposals()?;
        let asked = asked_selectors(payloads)?;
        let connection = check_child_allowed(core)?;
        let ends = core.ends();
        let transport::Choice {
            config,
            selectors,
            transport,
        } = transport::choose(&connection.children, &ends, &asked, payloads)?;
        let granted = (&*config, &selectors);
        let more = has_more(&connection.children, &ends, &asked, granted);
        let choice = choose_esp(&config.esp_proposals, &proposals, None, false)?;
        let peer_spi = Malformed::BadValue("ESP SPI");
        let spi_out = esp_spi(&choice.proposal).ok_or(peer_spi)?;
        let owner = cx.next_owner();
        let spi_in = cx.reserve_spi(owner);
        let (ni, nr) = (&exchange.ni, &exchange.nr);
        let cipher = &choice.suite.cipher;
        let keys = ChildKeys::derive(self.keys.prf, &self.keys.sk_d, &[], ni, nr, cipher);

        let suite = add_choice(choice, spi_in, response);
        add_traffic(&selectors, transport.is_some(), response);
        if more {
            add_notify(response, NotifyType::ADDITIONAL_TS_POSSIBLE, &[]);
        }
        let kin = Kin::FIRST.after(&config, payloads);
        if kin.siblings == Siblings::Welcome {
            add_resource_info(response, Some(owner));
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
        Ok(ChildSa::install(
            agreed,
            keys,
            esp_path(core.path, self.nat, cx),
            cx,
        ))
    }
}

/// The connection, if it accepts a Child SA along with the IKE SA.
fn check_child_allowed(core: &Core) -> Result<&Connection, ExchangeError> {
    let connection = core.connection.as_deref();
    let connection = connection.expect("an authenticated SA has one");
    if connection.childless == Childless::Force {
        return Err(ExchangeError::ChildlessOnly);
    }
    if !connection.pools.is_empty() && core.virtual_ips.remote.is_empty() {
        return Err(ExchangeError::AddressNotAsked);
    }
    Ok(connection)
}
