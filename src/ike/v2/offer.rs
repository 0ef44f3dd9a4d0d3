//! The child part of IKE_AUTH and CREATE_CHILD_SA, as its initiator: what we ask for, and whether
//! the answer stays inside it (RFC 7296 §1.2, §1.3.1).

use std::sync::Arc;

use crate::ike::AlertKind;
use crate::ike::CommandError;
use crate::ike::CommandId;
use crate::ike::alert::Subject;
use crate::ike::context::{Context, Wish};
use crate::ike::narrow::{Ends, is_narrowing, text, wanted, with_flow};
use crate::ike::negotiate::{check_answer, esp_suite, offer, proposal_texts};
use crate::ike::pad::ChildConfig;
use crate::ipsec::{Selectors, Spi, TransportEnds, WorkerId};
use crate::wire::ikev2::{NotifyType, PayloadWriter};
use crate::wire::isakmp::PayloadType;
use crate::wire::proposal::{EspSuite, KeyExchangeId, SaProposal};

use super::Core;
use super::error::ExchangeError;
use super::message::{Payloads, add_ke, add_notify, add_selectors, notify_name};
use super::siblings::{Kin, add_resource_info};
use super::transport;

/// A Child SA we have asked for. Its SPI is reserved, so it ends in [`Offer::abandon`] or in a
/// Child SA.
#[derive(Debug)]
pub(super) struct Offer {
    pub(super) wish: Wish,
    pub(super) owner: WorkerId,
    pub(super) spi: Spi,
    pub(super) selectors: Selectors,
    pub(super) proposals: Vec<SaProposal>,
    /// How it is related to others, as far as that is known.
    pub(super) kin: Kin,
    /// What tells it from others like it.
    resource: Option<WorkerId>,
    /// Transport mode is asked for.
    transport: bool,
}

/// What a valid answer says.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) suite: EspSuite,
    pub(super) spi: Spi,
    pub(super) selectors: Selectors,
    /// In transport mode.
    pub(super) transport: Option<TransportEnds>,
}

/// Why an answer brings no Child SA.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unanswered {
    /// The peer refused what we offered.
    #[error("peer answered {}; we offered [{proposals}] for {selectors}", notify_name(*.kind))]
    Refused {
        kind: NotifyType,
        proposals: String,
        selectors: String,
    },
    /// The peer has deleted the Child SA before its answer arrived.
    #[error("peer has deleted it already")]
    AlreadyDeleted,
    /// The answer does not parse or lacks something.
    #[error(transparent)]
    Broken(#[from] ExchangeError),
    /// The answer is not a part of what was offered.
    #[error("peer chose a proposal that was not offered")]
    NotOffered,
    /// It has no address for us.
    #[error("peer assigned no virtual IP")]
    NoAddress,
    /// The same for selectors.
    #[error("peer chose selectors {answer} that are not inside {asked}")]
    Widened { answer: String, asked: String },
    /// A Child SA beside another one has to have the same selectors.
    #[error("peer chose selectors {answer} out of {asked}")]
    Narrowed { answer: String, asked: String },
}

impl Unanswered {
    /// What a person is told.
    pub(super) fn alert_kind(&self) -> AlertKind {
        match self {
            Self::Refused { kind, .. } => AlertKind::of_refusal(*kind, Subject::Child),
            Self::AlreadyDeleted => AlertKind::Child,
            Self::Broken(error) => error.alert_kind(Subject::Child),
            Self::NoAddress => AlertKind::Child,
            Self::NotOffered => AlertKind::ChildProposal,
            Self::Widened { .. } | Self::Narrowed { .. } => AlertKind::Selectors,
        }
    }
}

impl Offer {
    /// One that is the first of its kind, or replaces one with this kin.
    pub(super) fn new(
        wish: Wish,
        (owner, kin): (WorkerId, Kin),
        ends: &Ends,
        with_exchange: bool,
        cx: &mut Context,
    ) -> Self {
        let spi = cx.reserve_spi(owner);
        let whole = || wanted(&wish.child, ends, wish.flow.as_ref());
        let selectors = wish.exactly.clone().unwrap_or_else(whole);
        let transport = transport::may_ask(&wish.child, &selectors, ends.path);
        let proposals = offer(&wish.child.esp_proposals, &spi.to_be_bytes(), with_exchange);
        Self {
            wish,
            owner,
            spi,
            selectors,
            proposals,
            kin,
            resource: Some(owner),
            transport,
        }
    }

    /// One beside another one, which has these selectors and proposals (RFC 9611).
    pub(super) fn beside(
        wish: Wish,
        owner: WorkerId,
        resource: Option<WorkerId>,
        (selectors, proposals): (Selectors, &[SaProposal]),
        cx: &mut Context,
    ) -> Self {
        let spi = cx.reserve_spi(owner);
        let selectors = with_flow(selectors, wish.flow.as_ref());
        let kin = Kin {
            additional: true,
            ..Kin::FIRST
        };
        Self {
            wish,
            owner,
            spi,
            selectors,
            proposals: offer(proposals, &spi.to_be_bytes(), true),
            kin,
            resource,
            transport: false,
        }
    }

    /// Adds SA, nonce and KE where there are any, TSi and TSr.
    pub(super) fn encode(
        &self,
        payloads: &mut PayloadWriter,
        nonce: Option<&[u8]>,
        ke: Option<(KeyExchangeId, &[u8])>,
    ) {
        payloads.add_with(PayloadType::SA, |out| {
            SaProposal::encode_list(&self.proposals, out);
        });
        if let Some(nonce) = nonce {
            payloads.add(PayloadType::NONCE, nonce);
        }
        if let Some((group, public)) = ke {
            add_ke(payloads, group, public);
        }
        add_selectors(payloads, &self.selectors.local, &self.selectors.remote);
        if self.transport {
            add_notify(payloads, NotifyType::USE_TRANSPORT_MODE, &[]);
        }
        add_notify(payloads, NotifyType::ESP_TFC_PADDING_NOT_SUPPORTED, &[]);
        if self.wish.child.per_cpu_sas {
            add_resource_info(payloads, self.resource);
        }
    }

    pub(super) fn check(&self, payloads: &Payloads<'_>) -> Result<Answer, Unanswered> {
        if payloads.sa.is_none()
            && let Some(notify) = payloads.error()
        {
            return Err(self.refused(notify.kind));
        }
        let proposals = payloads.proposals()?;
        let chosen = check_answer(&self.proposals, &proposals).ok_or(Unanswered::NotOffered)?;
        let suite = esp_suite(chosen).ok_or(Unanswered::NotOffered)?;
        let spi = esp_spi(chosen).ok_or(Unanswered::NotOffered)?;
        let selectors = Selectors {
            local: payloads.ts_i()?,
            remote: payloads.ts_r()?,
        };
        let (selectors, transport) = self.check_mode(selectors, payloads)?;
        if !is_narrowing(&self.selectors, &selectors) {
            return Err(Unanswered::Widened {
                answer: show(&selectors),
                asked: show(&self.selectors),
            });
        }
        if self.wish.worker.is_some() && !is_narrowing(&selectors, &self.selectors) {
            return Err(Unanswered::Narrowed {
                answer: show(&selectors),
                asked: show(&self.selectors),
            });
        }
        Ok(Answer {
            suite,
            spi,
            selectors,
            transport,
        })
    }

    /// The selectors of an answer as they are seen from here, and the addresses in transport mode.
    fn check_mode(
        &self,
        theirs: Selectors,
        payloads: &Payloads<'_>,
    ) -> Result<(Selectors, Option<TransportEnds>), Unanswered> {
        if payloads.notify(NotifyType::USE_TRANSPORT_MODE).is_none() {
            return Ok((theirs, None));
        }
        let ours = (
            transport::host(&self.selectors.local),
            transport::host(&self.selectors.remote),
        );
        let seen = match ours {
            (Some(local), Some(remote)) if self.transport => {
                transport::seen_from_here(&theirs, local, remote)
            }
            _ => None,
        };
        let (selectors, ends) = seen.ok_or(Unanswered::NotOffered)?;
        Ok((selectors, Some(ends)))
    }

    /// The peer has narrowed, and would protect more with another Child SA (RFC 7296 §2.9). Packets
    /// ask for it where they may.
    pub(super) fn note_more(&self, core: &Core, payloads: &Payloads<'_>, cx: &mut Context) {
        let more = payloads.notify(NotifyType::ADDITIONAL_TS_POSSIBLE);
        if more.is_some() {
            let name = &self.child().name;
            let line = format!("CHILD_SA {name}: peer accepts more selectors in another one");
            core.log(cx, "CHD", line);
        }
    }

    /// The peer's answer is this error.
    pub(super) fn refused(&self, kind: NotifyType) -> Unanswered {
        Unanswered::Refused {
            kind,
            proposals: proposal_texts(&self.proposals),
            selectors: show(&self.selectors),
        }
    }

    /// Gives the SPI back and tells who waits.
    pub(super) fn abandon(self, reason: &str, cx: &mut Context) {
        cx.release_spi(self.spi);
        fail_waiters(self.wish.waiters, reason, cx);
    }

    pub(super) fn child(&self) -> &Arc<ChildConfig> {
        &self.wish.child
    }
}

fn show(selectors: &Selectors) -> String {
    format!("{} === {}", text(&selectors.local), text(&selectors.remote))
}

/// The four bytes of an ESP proposal's SPI, if they are an SPI.
pub(super) fn esp_spi(proposal: &SaProposal) -> Option<Spi> {
    let bytes = <[u8; 4]>::try_from(proposal.spi.as_slice()).ok()?;
    Spi::new(u32::from_be_bytes(bytes))
}

/// Ends commands that wait for something that failed.
pub(super) fn fail_waiters(waiters: Vec<CommandId>, reason: &str, cx: &mut Context) {
    for id in waiters {
        let error = CommandError::Failed(reason.to_owned());
        cx.finish_command(id, Err(error));
    }
}
