//! Rekeying of the IKE SA (RFC 7296 §1.3.2, §2.18).

use std::sync::Arc;
use std::time::Duration;

use crate::crypto::Secret;
use crate::crypto::kdf::{IkeKeys, skeyseed_rekey};
use crate::crypto::kex::{self, KeyExchange};
use crate::ike::context::{Context, Effect};
use crate::ike::key_log;
use crate::ike::negotiate::{check_answer, choose_ike, exchanges, ike_suite, offer};
use crate::wire::Malformed;
use crate::wire::ikev2::{Notify, NotifyType, PayloadWriter};
use crate::wire::isakmp::{IkeSpi, PayloadType};
use crate::wire::proposal::{IkeSuite, SaProposal};

use super::child::End;
use super::collision::{LowestNonce, Succession};
use super::crash_token;
use super::error::ExchangeError;
use super::established::{Established, Fate, Inheritance};
use super::followup::{FollowUp, Purpose, Unfinished};
use super::message::{Datagram, Payloads, add_ke, notify_name, wanted_group};
use super::protect::SaKeys;
use super::tasks::{Pending, Task};
use super::window::Window;
use super::{Core, IkeSa, State};

/// Our request to replace the IKE SA is unanswered.
pub(super) struct IkeRekey {
    spi: IkeSpi,
    nonce: Vec<u8>,
    exchange: KeyExchange,
    proposals: Vec<SaProposal>,
    /// It was answered, and key exchanges are left.
    followup: Option<FollowUp<Terms>>,
    restarts: u8,
}

/// What an answer says.
struct Terms {
    suite: IkeSuite,
    peer_spi: IkeSpi,
    nr: Vec<u8>,
    /// The peer's crash detection token for the new IKE SA.
    crash_token: Option<Secret>,
}

/// What a responder has agreed to.
pub(super) struct NegotiatedIke {
    pub(super) suite: IkeSuite,
    /// The initiator's and ours.
    spis: (IkeSpi, IkeSpi),
    pub(super) ni: Vec<u8>,
    pub(super) nr: Vec<u8>,
    /// Results of the key exchanges so far.
    pub(super) shared: Vec<Secret>,
}

/// What the keys of the new SA come from.
struct Material<'a> {
    suite: IkeSuite,
    shared: &'a [Secret],
    ni: &'a [u8],
    nr: &'a [u8],
}

impl Established {
    /// Asks for a replacement of this IKE SA, unless that is under way.
    pub(in crate::ike) fn queue_rekey_ike(&mut self) -> bool {
        let queued = self
            .work
            .queue
            .iter()
            .any(|task| matches!(task, Task::RekeyIke));
        let pending = self
            .work
            .is_pending(|pending| matches!(pending, Pending::RekeyIke(_)));
        if queued || pending || !self.is_usable() {
            return false;
        }
        self.push(Task::RekeyIke);
        true
    }

    pub(super) fn begin_rekey_ike(
        &mut self,
        core: &Core,
        payloads: &mut PayloadWriter,
        cx: &mut Context,
    ) -> Option<Pending> {
        if !self.is_usable() {
            return None;
        }
        if self.followups.ike().is_some() {
            self.rekey_again_at(cx.now + SOON); // unless the peer has done it by then
            return None;
        }
        let connection = core.connection.as_ref()?;
        let spi = cx.ike_spi();
        let proposals = offer(&connection.proposals, &spi.0, true);
        let methods = exchanges(&proposals);
        // The method of the current SA is the one the peer is known to accept.
        let current = self.keys.suite.key_exchange;
        let group = if methods.contains(&current) {
            Some(current)
        } else {
            methods.first().copied()
        };
        let exchange = KeyExchange::generate(group?, cx.rng()).ok()?;
        core.log(cx, "IKE", "rekeying IKE_SA".to_owned());
        let rekey = IkeRekey {
            spi,
            nonce: cx.nonce(),
            exchange,
            proposals,
            followup: None,
            restarts: 0,
        };
        rekey.encode(payloads);
        Some(Pending::RekeyIke(Box::new(rekey)))
    }

    pub(super) fn on_rekey_ike_request(
        &mut self,
        core: &mut Core,
        datagram: &Datagram<'_>,
        payloads: &Payloads<'_>,
        proposals: &[(u8, SaProposal)],
        cx: &mut Context,
    ) -> Result<(), ExchangeError> {
        self.check_open_for_rekey()?;
        let connection = core
            .connection
            .as_ref()
            .expect("an authenticated SA has one");
        let ke = payloads.key_exchange()?;
        let ni = payloads.nonce()?;
        let choice = choose_ike(&connection.proposals, proposals, Some(ke.group))?;
        let group = choice.suite.key_exchange;
        if ke.group != group {
            return Err(ExchangeError::OtherGroup(group));
        }
        let peer_spi = ike_spi(&choice.proposal).ok_or(Malformed::BadValue("IKE SPI"))?;
        let kex::Answer { public, shared } = kex::answer(group, ke.data, cx.rng())?;
        let nr = cx.nonce();
        let spi = cx.ike_spi();

        let mut response = PayloadWriter::new();
        let mut proposal = choice.proposal;
        proposal.spi = spi.0.to_vec();
        response.add_with(PayloadType::SA, |out| {
            proposal.encode_answer(choice.number, out)
        });
        response.add(PayloadType::NONCE, &nr);
        add_ke(&mut response, group, &public);
        crash_token::announce_for((peer_spi, spi), false, &mut response, cx);
        self.promise_ticket(payloads, &mut response, cx);

        let terms = NegotiatedIke {
            suite: choice.suite,
            spis: (peer_spi, spi),
            ni: ni.to_vec(),
            nr,
            shared: vec![shared],
        };
        let unfinished = Unfinished::new(Purpose::Ike(Box::new(terms)));
        self.agree(core, datagram, response, unfinished, cx)
    }

    /// No other IKE SA may take over while something else is under way (RFC 7296 §2.25.2).
    fn check_open_for_rekey(&self) -> Result<(), ExchangeError> {
        if self.work.deletes_ike() {
            return Err(ExchangeError::Busy("the IKE SA is being deleted"));
        }
        if !self.succession.is_none() {
            return Err(ExchangeError::Busy("the IKE SA is replaced already"));
        }
        let touches_child = self
            .work
            .is_pending(|pending| matches!(pending, Pending::Child(_) | Pending::DeleteChild(..)));
        if touches_child {
            return Err(ExchangeError::Busy(
                "a CHILD_SA is being created or deleted",
            ));
        }
        let follows_up =
            |pending: &Pending| matches!(pending, Pending::RekeyIke(rekey) if rekey.follows_up());
        if self.work.is_pending(follows_up) {
            return Err(ExchangeError::Busy("the IKE SA is being replaced"));
        }
        Ok(())
    }

    /// Makes the IKE SA that a peer asked for, and answers.
    pub(super) fn make_ike(
        &mut self,
        core: &Core,
        datagram: &Datagram<'_>,
        response: PayloadWriter,
        terms: NegotiatedIke,
        cx: &mut Context,
    ) -> Result<(), ExchangeError> {
        self.check_open_for_rekey()?;
        let successor = self.successor_core(core, terms.spis, false, cx);
        let id = successor.id;
        let lowest = LowestNonce::of(&terms.ni, &terms.nr);
        let material = Material {
            suite: terms.suite,
            shared: &terms.shared,
            ni: &terms.ni,
            nr: &terms.nr,
        };
        let sa = self.succeed_ike(&successor, material, cx);
        self.answer(core, datagram, response, cx);
        let state = State::Established(Box::new(sa));
        cx.effects
            .push(Effect::Spawn(Box::new(IkeSa::new(successor, state))));
        if self
            .work
            .is_pending(|pending| matches!(pending, Pending::RekeyIke(_)))
        {
            self.succession = Succession::Contested {
                successor: id,
                lowest,
            };
        } else {
            self.hand_over(core, id, cx);
        }
        Ok(())
    }

    pub(super) fn on_rekey_ike_answer(
        &mut self,
        core: &mut Core,
        mut rekey: IkeRekey,
        payloads: Result<Payloads<'_>, ExchangeError>,
        cx: &mut Context,
    ) -> Fate {
        let payloads = match payloads {
            Ok(payloads) => payloads,
            Err(error) => {
                let reason = format!("broken CREATE_CHILD_SA response: {error}");
                return Fate::Ends(End::Failed(reason));
            }
        };
        if !rekey.follows_up()
            && payloads.sa.is_none()
            && let Some(notify) = payloads.notify(NotifyType::INVALID_KE_PAYLOAD)
            && rekey.restart(notify, cx)
        {
            let mut payloads = PayloadWriter::new();
            rekey.encode(&mut payloads);
            self.request(core, payloads, Pending::RekeyIke(Box::new(rekey)), cx);
            return Fate::Stays;
        }
        match self.finish_rekey(core, rekey, &payloads, cx) {
            Ok(()) => {}
            Err(reason) => {
                core.log(cx, "IKE", format!("rekeying IKE_SA failed: {reason}"));
                if !self.adopt_contested(core, cx) {
                    let busy = payloads.notify(NotifyType::TEMPORARY_FAILURE).is_some();
                    let wait = if busy { SOON } else { LATER };
                    self.rekey_again_at(cx.now + wait);
                    if payloads.notify(NotifyType::NO_ADDITIONAL_SAS).is_some() {
                        // A minimal peer (RFC 7296 §4): new keys come with a new IKE SA only.
                        cx.effects.push(Effect::Reauthenticate(core.id));
                    }
                }
            }
        }
        Fate::Stays
    }

    /// Takes an answer, and makes the IKE SA if that was the last one.
    fn finish_rekey(
        &mut self,
        core: &mut Core,
        mut rekey: IkeRekey,
        payloads: &Payloads<'_>,
        cx: &mut Context,
    ) -> Result<(), String> {
        let followup = rekey.take_answer(payloads)?;
        let lowest = LowestNonce::of(&rekey.nonce, &followup.terms.nr);
        let (lost, winner) = self.is_rekey_lost(&lowest);
        if lost {
            let text = "IKE_SA rekey collision lost, giving up ours".to_owned();
            core.log(cx, "IKE", text);
            self.followups.give_way(None);
        } else {
            self.followups.forget_ike(cx);
        }
        if followup.is_done() {
            let id = self.make_own_ike(core, &rekey, followup, lost, cx);
            if !lost {
                self.hand_over(core, id, cx);
                self.work.queue.clear();
                self.push(Task::DeleteIke(End::Replaced, Vec::new()));
            }
        } else if !lost {
            let mut followup = followup;
            let payloads = followup.ask(cx);
            rekey.followup = Some(followup);
            self.request(core, payloads, Pending::RekeyIke(Box::new(rekey)), cx);
        }
        if let Some(winner) = winner {
            self.hand_over(core, winner, cx);
        }
        Ok(())
    }

    /// Whether the peer's rekey goes before ours, and the IKE SA that it has made.
    fn is_rekey_lost(&self, lowest: &LowestNonce) -> (bool, Option<u64>) {
        match &self.succession {
            Succession::Contested {
                successor,
                lowest: other,
            } if lowest.loses_to(other) => (true, Some(*successor)),
            // The peer has shown, by using its own, that ours is not wanted.
            Succession::Replaced { .. } => (true, None),
            Succession::Contested { .. } | Succession::None | Succession::Heir { .. } => {
                let unfinished = self.followups.ike();
                (
                    unfinished.is_some_and(|other| lowest.loses_to(&other)),
                    None,
                )
            }
        }
    }

    /// Makes the IKE SA that we asked for; one that has lost is deleted at once.
    fn make_own_ike(
        &mut self,
        core: &Core,
        rekey: &IkeRekey,
        followup: FollowUp<Terms>,
        lost: bool,
        cx: &mut Context,
    ) -> u64 {
        let FollowUp { terms, shared, .. } = followup;
        let successor = self.successor_core(core, (rekey.spi, terms.peer_spi), true, cx);
        let id = successor.id;
        let material = Material {
            suite: terms.suite,
            shared: &shared,
            ni: &rekey.nonce,
            nr: &terms.nr,
        };
        let mut sa = self.succeed_ike(&successor, material, cx);
        sa.crash_token = terms.crash_token;
        if lost {
            sa.stop_clock();
            sa.push(Task::DeleteIke(End::Replaced, Vec::new()));
        }
        let state = State::Established(Box::new(sa));
        cx.effects
            .push(Effect::Spawn(Box::new(IkeSa::new(successor, state))));
        id
    }

    /// The IKE SA that contests the place of this one.
    pub(in crate::ike) fn is_contested_by(&self, id: u64) -> bool {
        matches!(self.succession, Succession::Contested { successor, .. } if successor == id)
    }

    /// The SA that contested the place of this one is gone.
    pub(in crate::ike) fn keep_place(&mut self) {
        self.succession = Succession::None;
    }

    /// Our own rekey came to nothing, but the peer's did not. True if there was one.
    pub(in crate::ike) fn adopt_contested(&mut self, core: &Core, cx: &mut Context) -> bool {
        if let Succession::Contested { successor, .. } = self.succession {
            self.hand_over(core, successor, cx);
            return true;
        }
        false
    }

    /// Gives everything to the successor and waits for the end.
    fn hand_over(&mut self, core: &Core, to: u64, cx: &mut Context) {
        let old = Box::new(self.status(core, false));
        let inheritance = Inheritance {
            children: std::mem::take(&mut self.children),
            lingering: std::mem::take(&mut self.lingering),
            mobike: self.mobike.take().map(|mobike| (mobike, core.path)),
            redirection: self.redirection.clone(),
            queue: self.work.take_inheritance(),
            old,
        };
        cx.effects.push(Effect::Inherit {
            from: core.id,
            to,
            inheritance: Box::new(inheritance),
        });
        self.followups.end(cx);
        cx.peers
            .remove(core.id, &self.peer.local_id, &self.peer.remote_id);
        self.leave_ticket(core, &End::Replaced, cx);
        self.stop_clock();
        self.switch_at = None;
        self.succession = Succession::replaced(cx.now);
    }

    fn successor_core(
        &self,
        core: &Core,
        (initiator_spi, responder_spi): (IkeSpi, IkeSpi),
        initiator: bool,
        cx: &mut Context,
    ) -> Core {
        Core {
            id: cx.next_id(),
            initiator_spi,
            responder_spi,
            initiator,
            path: core.path,
            connection: core.connection.as_ref().map(Arc::clone),
            init_from: None,
            virtual_ips: core.virtual_ips.clone(),
        }
    }

    fn succeed_ike(&self, core: &Core, material: Material<'_>, cx: &mut Context) -> Self {
        let Material {
            suite,
            shared,
            ni,
            nr,
        } = material;
        let seed = skeyseed_rekey(self.keys.prf, &self.keys.sk_d, shared, ni, nr);
        let (spi_i, spi_r) = core.spis();
        let keys = IkeKeys::derive(&suite, &seed, ni, nr, spi_i.0, spi_r.0);
        let line = cx.key_line(|| key_log::ike((spi_i, spi_r), &suite, &keys));
        let (keys, _) = SaKeys::new(suite, keys, core.initiator, self.keys.fragment_rules, line);
        let mut sa = Self::new(
            core,
            self.peer.clone(),
            keys,
            self.nat,
            Window::new(0, 0),
            cx,
        );
        sa.keep_reauth_time(self);
        sa.resumption = self.resumption.of_successor();
        sa.message_id_sync = self.message_id_sync.successor();
        if !core.initiator {
            sa.liveness.expect_late_peer();
        }
        // Neither SA is "up" by itself while it is not known which one stays.
        sa.succession = Succession::heir(cx.now);
        sa
    }
}

impl IkeRekey {
    /// What is unanswered is IKE_FOLLOWUP_KE.
    pub(super) fn follows_up(&self) -> bool {
        self.followup.is_some()
    }

    /// Checks an answer, and takes the shared secret that it brings.
    fn take_answer(&mut self, payloads: &Payloads<'_>) -> Result<FollowUp<Terms>, String> {
        let text = |error: ExchangeError| error.to_string();
        let started = self.followup.is_some();
        if (started || payloads.sa.is_none())
            && let Some(notify) = payloads.error()
        {
            return Err(format!("peer answered {}", notify_name(notify.kind)));
        }
        if let Some(mut followup) = self.followup.take() {
            followup.finish(payloads).map_err(text)?;
            return Ok(followup);
        }
        let proposals = payloads.proposals().map_err(text)?;
        let chosen = check_answer(&self.proposals, &proposals);
        let chosen = chosen.ok_or("peer chose a proposal that was not offered")?;
        let suite = ike_suite(chosen).ok_or("peer chose an incomplete proposal")?;
        let peer_spi = ike_spi(chosen).ok_or("peer's IKE SPI is not one")?;
        let ke = payloads.key_exchange().map_err(text)?;
        if ke.group != suite.key_exchange || ke.group != self.exchange.group() {
            return Err("peer chose another key exchange method".to_owned());
        }
        let nr = payloads.nonce().map_err(text)?.to_vec();
        if nr == self.nonce {
            return Err("the nonce is our own".to_owned());
        }
        let shared = self.exchange.finish(ke.data);
        let shared = vec![shared.map_err(|error| error.to_string())?];
        let terms = Terms {
            suite,
            peer_spi,
            nr,
            crash_token: crash_token::of_peer(payloads),
        };
        FollowUp::new(terms, &suite.additional, shared, payloads).map_err(text)
    }

    fn encode(&self, payloads: &mut PayloadWriter) {
        payloads.add_with(PayloadType::SA, |out| {
            SaProposal::encode_list(&self.proposals, out);
        });
        payloads.add(PayloadType::NONCE, &self.nonce);
        add_ke(payloads, self.exchange.group(), self.exchange.public());
    }

    /// Follows INVALID_KE_PAYLOAD to a group that we offered; false if that leads nowhere.
    fn restart(&mut self, notify: &Notify<'_>, cx: &mut Context) -> bool {
        let Some(group) = wanted_group(notify) else {
            return false;
        };
        let offered = exchanges(&self.proposals).contains(&group);
        if !offered || group == self.exchange.group() || self.restarts >= MAX_RESTARTS {
            return false;
        }
        let Ok(exchange) = KeyExchange::generate(group, cx.rng()) else {
            return false;
        };
        self.exchange = exchange;
        self.restarts += 1;
        true
    }
}

/// The eight bytes of an IKE proposal's SPI, if they are an SPI.
fn ike_spi(proposal: &SaProposal) -> Option<IkeSpi> {
    let bytes = <[u8; 8]>::try_from(proposal.spi.as_slice()).ok()?;
    Some(IkeSpi(bytes)).filter(|spi| !spi.is_zero())
}

const MAX_RESTARTS: u8 = 3;
/// After TEMPORARY_FAILURE.
const SOON: Duration = Duration::from_secs(3);
/// After a refusal that may need a change of configuration.
const LATER: Duration = Duration::from_secs(60);
