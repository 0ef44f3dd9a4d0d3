//! IKE_FOLLOWUP_KE (RFC 9370 §2.2.4): the additional key exchanges of CREATE_CHILD_SA, after which there is
//! an SA.
//!
//! ```text
//! initiator   CREATE_CHILD_SA {SA, Ni, KE} ─►     ◄─ {SA, Nr, KE, link 1}
//!             IKE_FOLLOWUP_KE {KE, link 1} ─►     ◄─ {KE, link 2}
//!             IKE_FOLLOWUP_KE {KE, link 2} ─►     ◄─ {KE}: both derive the keys
//! ```

use std::time::{Duration, Instant};

use crate::crypto::Secret;
use crate::ike::context::Context;
use crate::ike::retransmit::jittered;
use crate::ipsec::ChildId;
use crate::wire::Malformed;
use crate::wire::ikev2::{NotifyType, PayloadWriter};
use crate::wire::proposal::AdditionalExchanges;

use super::Core;
use super::child::Phase;
use super::collision::LowestNonce;
use super::create_request::Negotiated;
use super::error::ExchangeError;
use super::established::{Established, Fate};
use super::key_exchanges::KeyExchanges;
use super::message::{Datagram, Payloads, add_notify};
use super::rekey::NegotiatedIke;

/// A request of ours that was answered: what was agreed on, and the key exchanges that are left.
pub(super) struct FollowUp<T> {
    pub(super) terms: T,
    /// Results of the exchanges so far.
    pub(super) shared: Vec<Secret>,
    exchanges: KeyExchanges,
    link: Vec<u8>,
}

impl<T> FollowUp<T> {
    /// After the answer to CREATE_CHILD_SA, which has brought the first shared secret, if any.
    pub(super) fn new(
        terms: T,
        additional: &AdditionalExchanges,
        shared: Vec<Secret>,
        answer: &Payloads<'_>,
    ) -> Result<Self, ExchangeError> {
        let mut this = Self {
            terms,
            shared,
            exchanges: KeyExchanges::new(additional),
            link: Vec::new(),
        };
        this.take_link(answer)?;
        Ok(this)
    }

    pub(super) fn is_done(&self) -> bool {
        self.exchanges.is_done()
    }

    /// Writes the next request.
    pub(super) fn ask(&mut self, cx: &mut Context) -> PayloadWriter {
        let mut payloads = PayloadWriter::new();
        self.exchanges.ask(&mut payloads, cx);
        let link = NotifyType::ADDITIONAL_KEY_EXCHANGE;
        add_notify(&mut payloads, link, &self.link);
        payloads
    }

    pub(super) fn finish(&mut self, answer: &Payloads<'_>) -> Result<(), ExchangeError> {
        self.shared.push(self.exchanges.finish(answer)?);
        self.take_link(answer)
    }

    fn take_link(&mut self, answer: &Payloads<'_>) -> Result<(), ExchangeError> {
        if self.is_done() {
            return Ok(());
        }
        self.link = link(answer)?.to_vec();
        Ok(())
    }
}

/// What ties a request to the answer before it.
fn link<'a>(payloads: &Payloads<'a>) -> Result<&'a [u8], ExchangeError> {
    let notify = payloads.notify(NotifyType::ADDITIONAL_KEY_EXCHANGE);
    let notify = notify.ok_or(ExchangeError::Missing("ADDITIONAL_KEY_EXCHANGE"))?;
    if notify.data.len() > LONGEST_LINK {
        return Err(Malformed::BadLength("ADDITIONAL_KEY_EXCHANGE").into());
    }
    Ok(notify.data)
}

/// What the peer asked for and has to follow up, of one IKE SA.
#[derive(Default)]
pub(super) struct Followups(Vec<Awaited>);

struct Awaited {
    link: [u8; 8],
    until: Instant,
    /// We have stopped a rekey of our own for it.
    gave_way: bool,
    pending: Unfinished,
}

/// A request of the peer that was answered, and the key exchanges that are left.
pub(super) struct Unfinished {
    purpose: Purpose,
    exchanges: KeyExchanges,
}

/// What the SA is for.
pub(super) enum Purpose {
    Child(Box<Negotiated>),
    Ike(Box<NegotiatedIke>),
}

impl Purpose {
    fn shared(&mut self) -> &mut Vec<Secret> {
        match self {
            Self::Child(terms) => &mut terms.shared,
            Self::Ike(terms) => &mut terms.shared,
        }
    }

    /// The Child SA that is replaced.
    fn replaces(&self) -> Option<ChildId> {
        match self {
            Self::Child(terms) => terms.replaces,
            Self::Ike(_) => None,
        }
    }

    fn is_ike(&self) -> bool {
        matches!(self, Self::Ike(_))
    }

    /// Gives back what was reserved for it.
    fn release(&self, cx: &mut Context) {
        if let Self::Child(terms) = self {
            cx.release_spi(terms.agreed.spi_in);
        }
    }
}

impl Unfinished {
    pub(super) fn new(purpose: Purpose) -> Self {
        let additional = match &purpose {
            Purpose::Child(terms) => &terms.agreed.suite.additional,
            Purpose::Ike(terms) => &terms.suite.additional,
        };
        let exchanges = KeyExchanges::new(additional);
        Self { purpose, exchanges }
    }
}

impl Followups {
    /// Waits for the next exchange and returns the link to it. Another rekey of the same SA has ended,
    /// and so has the oldest of too many.
    fn add(&mut self, pending: Unfinished, cx: &mut Context) -> [u8; 8] {
        match &pending.purpose {
            Purpose::Ike(_) => self.forget(Purpose::is_ike, cx),
            purpose => {
                if let Some(old) = purpose.replaces() {
                    self.forget_child(old, cx);
                }
            }
        }
        if self.0.len() >= MOST {
            self.0.remove(0).pending.purpose.release(cx);
        }
        let mut link = [0; 8];
        cx.rng().fill_bytes(&mut link);
        self.0.push(Awaited {
            link,
            until: cx.now + WAIT,
            gave_way: false,
            pending,
        });
        link
    }

    fn take(&mut self, link: &[u8]) -> Option<Awaited> {
        let place = self.0.iter().position(|awaited| awaited.link == *link)?;
        Some(self.0.remove(place))
    }

    fn forget(&mut self, test: impl Fn(&Purpose) -> bool, cx: &mut Context) {
        self.0.retain(|awaited| {
            let goes = test(&awaited.pending.purpose);
            if goes {
                awaited.pending.purpose.release(cx);
            }
            !goes
        });
    }

    /// The peer will not go on replacing this Child SA.
    pub(super) fn forget_child(&mut self, old: ChildId, cx: &mut Context) {
        self.forget(|purpose| purpose.replaces() == Some(old), cx);
    }

    /// The peer will not go on replacing the IKE SA.
    pub(super) fn forget_ike(&mut self, cx: &mut Context) {
        self.forget(Purpose::is_ike, cx);
    }

    /// Nothing of it will become an SA.
    pub(super) fn end(&mut self, cx: &mut Context) {
        self.forget(|_| true, cx);
    }

    /// The peer is replacing this Child SA, with nonces of which this is the lowest.
    pub(super) fn child(&self, old: ChildId) -> Option<LowestNonce> {
        let purposes = self.0.iter().map(|awaited| &awaited.pending.purpose);
        purposes
            .filter(|purpose| purpose.replaces() == Some(old))
            .find_map(|purpose| match purpose {
                Purpose::Child(terms) => Some(LowestNonce::of(&terms.ni, &terms.nr)),
                Purpose::Ike(_) => None,
            })
    }

    /// The same for the IKE SA.
    pub(super) fn ike(&self) -> Option<LowestNonce> {
        let mut purposes = self.0.iter().map(|awaited| &awaited.pending.purpose);
        purposes.find_map(|purpose| match purpose {
            Purpose::Ike(terms) => Some(LowestNonce::of(&terms.ni, &terms.nr)),
            Purpose::Child(_) => None,
        })
    }

    /// A rekey of ours has stopped in favour of the peer's.
    pub(super) fn give_way(&mut self, child: Option<ChildId>) {
        for awaited in &mut self.0 {
            let purpose = &awaited.pending.purpose;
            let same = match child {
                Some(old) => purpose.replaces() == Some(old),
                None => purpose.is_ike(),
            };
            awaited.gave_way |= same;
        }
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        self.0.iter().map(|awaited| awaited.until).min()
    }
}

impl Established {
    /// Answers with what is agreed on. There is an SA if that was all, or else when the peer has
    /// followed it up.
    pub(super) fn agree(
        &mut self,
        core: &Core,
        datagram: &Datagram<'_>,
        mut response: PayloadWriter,
        unfinished: Unfinished,
        cx: &mut Context,
    ) -> Result<(), ExchangeError> {
        if unfinished.exchanges.is_done() {
            return match unfinished.purpose {
                Purpose::Child(terms) => self.make_child(core, datagram, response, *terms, cx),
                Purpose::Ike(terms) => self.make_ike(core, datagram, response, *terms, cx),
            };
        }
        let link = self.followups.add(unfinished, cx);
        add_notify(&mut response, NotifyType::ADDITIONAL_KEY_EXCHANGE, &link);
        self.answer(core, datagram, response, cx);
        Ok(())
    }

    pub(super) fn on_followup_request(
        &mut self,
        core: &Core,
        datagram: &Datagram<'_>,
        payloads: &Payloads<'_>,
        cx: &mut Context,
    ) -> Fate {
        match self.follow_up(core, datagram, payloads, cx) {
            Ok(()) => Fate::Stays,
            Err(error) => self.refuse(core, datagram, &error, cx),
        }
    }

    fn follow_up(
        &mut self,
        core: &Core,
        datagram: &Datagram<'_>,
        payloads: &Payloads<'_>,
        cx: &mut Context,
    ) -> Result<(), ExchangeError> {
        let awaited = self.followups.take(link(payloads)?);
        let mut pending = awaited.ok_or(ExchangeError::NoSuchState)?.pending;
        let mut response = PayloadWriter::new();
        let shared = pending.exchanges.answer(payloads, &mut response, cx);
        let shared = shared.inspect_err(|_| pending.purpose.release(cx))?;
        pending.purpose.shared().push(shared);
        self.agree(core, datagram, response, pending, cx)
    }

    /// Gives up what the peer does not follow up. A rekey that gave way to it is tried again.
    pub(super) fn poll_followups(&mut self, core: &Core, cx: &mut Context) {
        while let Some(place) = self.followups.0.iter().position(|one| one.until <= cx.now) {
            let Awaited {
                pending, gave_way, ..
            } = self.followups.0.remove(place);
            let text = "peer has not followed up a key exchange".to_owned();
            core.log(cx, "IKE", text);
            pending.purpose.release(cx);
            if !gave_way {
                continue;
            }
            let at = cx.now + jittered(AGAIN, 50, cx.rng());
            if let Some(old) = pending.purpose.replaces() {
                self.rekey_child_at(old, at);
            } else {
                self.rekey_again_at(at);
            }
        }
    }

    fn rekey_child_at(&mut self, old: ChildId, at: Instant) {
        if let Some(old) = self.child_mut(old)
            && matches!(old.phase, Phase::Live | Phase::Replaced)
            && old.successor.is_none()
        {
            old.phase = Phase::Live;
            old.times.stale_at = None;
            old.times.rekey_at = Some(at);
        }
    }
}

/// How long the peer may take between two exchanges (RFC 9370 §2.2.4 has 5 to 20 s).
const WAIT: Duration = Duration::from_secs(20);
/// Before a rekey that gave way is tried again.
const AGAIN: Duration = Duration::from_secs(3);
/// Requests of one peer that wait; an honest one follows up one after the other.
const MOST: usize = 4;
/// The peer chooses it.
const LONGEST_LINK: usize = 256;
