//! IKE_SESSION_RESUME as initiator, and the proofs that follow it (RFC 5723 §4.3).

use std::time::Instant;

use crate::crypto::Secret;
use crate::ike::context::{Attempt, Cause, Context, Effect};
use crate::ike::redirect::Detour;
use crate::ike::retransmit::{Overdue, Retransmit};
use crate::ike::session::Session;
use crate::ike::tickets::Held;
use crate::ike::{Discard, Identity, Path};
use crate::ipsec::Reqid;
use crate::wire::ikev2::{AuthPayload, NotifyType, PayloadWriter, message_bytes};
use crate::wire::isakmp::{ExchangeType, PayloadType};

use super::authentication::{Octets, PeerSupport, Verdict};
use super::child::End;
use super::error::AuthenticationError;
use super::init::{
    Features, InitDone, InitExchange, add_features, asked_cookie, check_first_answer, fail,
};
use super::intermediate;
use super::message::{Datagram, Payloads, add_notify};
use super::ppk::PpkUse;
use super::{Core, IkeSa, State};

/// IKE_SESSION_RESUME is sent and unanswered.
pub(in crate::ike) struct ResumeSent {
    attempt: Attempt,
    held: Held,
    nonce: Vec<u8>,
    cookie: Option<Vec<u8>>,
    request: Retransmit,
    /// How often the peer has asked for another cookie.
    restarts: u8,
}

/// What an answer says.
enum Answer<'a> {
    Cookie(&'a [u8]),
    Refused,
    Accepted(&'a [u8]),
}

impl ResumeSent {
    /// Presents a ticket.
    pub(in crate::ike) fn start(
        attempt: Attempt,
        held: Held,
        path: Path,
        cx: &mut Context,
    ) -> IkeSa {
        let core = Core::begin(&attempt, path, cx);
        core.log(cx, "IKE", format!("resuming IKE_SA with {}", path.remote));
        let nonce = cx.nonce();
        let request = send(&core, (&held, &attempt.detour), &nonce, None, cx);
        let state = State::ResumeSent(Box::new(Self {
            attempt,
            held,
            nonce,
            cookie: None,
            request,
            restarts: 0,
        }));
        IkeSa::new(core, state)
    }

    pub(super) fn on_response(
        mut self: Box<Self>,
        core: &mut Core,
        datagram: &Datagram<'_>,
        cx: &mut Context,
    ) -> State {
        let payloads = datagram.clear_payloads();
        let answer = match &payloads {
            Ok(payloads) => self
                .check(core, datagram, payloads)
                .map(|answer| (answer, payloads)),
            Err(_) => Err(Discard::Malformed),
        };
        match answer {
            Ok((Answer::Cookie(cookie), _)) => {
                self.restarts += 1;
                let what = (&self.held, &self.attempt.detour);
                self.request = send(core, what, &self.nonce, Some(cookie), cx);
                self.cookie = Some(cookie.to_vec());
                State::ResumeSent(self)
            }
            Ok((Answer::Refused, _)) => fall_back(core, self.attempt, "the peer refuses", cx),
            Ok((Answer::Accepted(nr), payloads)) => self.proceed(core, datagram, payloads, nr, cx),
            // Not authenticated yet: a forged answer must not end the wait.
            Err(discard) => {
                cx.discard(discard);
                State::ResumeSent(self)
            }
        }
    }

    fn check<'a>(
        &self,
        core: &Core,
        datagram: &Datagram<'_>,
        payloads: &Payloads<'a>,
    ) -> Result<Answer<'a>, Discard> {
        check_first_answer(core, datagram)?;
        if let Some(cookie) = asked_cookie(payloads, self.cookie.as_deref(), self.restarts)? {
            return Ok(Answer::Cookie(cookie));
        }
        // Whoever forges one of these makes us do what we would have done without a ticket.
        let refuses = |kind| payloads.notify(kind).is_some();
        if refuses(NotifyType::TICKET_NACK)
            || refuses(NotifyType::REDIRECT)
            || payloads.error().is_some()
        {
            return Ok(Answer::Refused);
        }
        if datagram.header.responder_spi.is_zero() {
            return Err(Discard::BadHeader);
        }
        let nonce = payloads.nonce().map_err(|_| Discard::BadPayload)?;
        if nonce == self.nonce {
            return Err(Discard::BadPayload); // our own, reflected
        }
        Ok(Answer::Accepted(nonce))
    }

    fn proceed(
        self: Box<Self>,
        core: &mut Core,
        datagram: &Datagram<'_>,
        payloads: &Payloads<'_>,
        nr: &[u8],
        cx: &mut Context,
    ) -> State {
        let features = Features::of_answer(core, &self.attempt.connection, datagram, payloads, cx);
        let request = self.request.message().datagrams().first();
        let done = InitDone {
            exchange: InitExchange {
                request: request.cloned().unwrap_or_default(),
                response: datagram.bytes.to_vec(),
                ni: self.nonce,
                nr: nr.to_vec(),
                int_auth: Vec::new(),
            },
            suite: self.held.session.suite,
            shared: Secret::from(Vec::new()),
            nat: features.nat,
            childless: features.childless,
            peer: PeerSupport::default(),
            fragments: features.fragments,
            ppk: PpkUse::No,
            resumed: Some(Box::new(self.held.session)),
        };
        intermediate::start(self.attempt, done, core, cx)
    }

    pub(super) fn on_timer(mut self: Box<Self>, core: &Core, cx: &mut Context) -> State {
        match self.request.poll(cx.now, cx.rng()) {
            None => State::ResumeSent(self),
            Some(Overdue::Again) => {
                cx.send(core.path, self.request.message());
                State::ResumeSent(self)
            }
            Some(Overdue::GiveUp) => {
                // Nobody has used it, so it is as good when the peer is back (RFC 5723 §4.3.1).
                cx.tickets.hold(self.held, cx.now);
                fall_back(core, self.attempt, "the peer does not answer", cx)
            }
        }
    }

    pub(super) fn abandon(self: Box<Self>, core: &Core, end: &End, cx: &mut Context) {
        fail(core, self.attempt, end.to_string(), Cause::Cancelled, cx);
    }

    pub(super) fn deadline(&self) -> Instant {
        self.request.due()
    }

    pub(super) fn wants(&self, reqid: Reqid) -> bool {
        self.attempt.wants(reqid)
    }

    pub(super) fn attempt(&self) -> &Attempt {
        &self.attempt
    }

    pub(super) fn attempt_mut(&mut self) -> &mut Attempt {
        &mut self.attempt
    }
}

/// Goes on with IKE_SA_INIT.
pub(super) fn fall_back(core: &Core, attempt: Attempt, why: &str, cx: &mut Context) -> State {
    core.log(cx, "IKE", format!("IKE_SA is not resumed: {why}"));
    cx.effects.push(Effect::Connect(Attempt {
        may_resume: false,
        ..attempt
    }));
    State::Gone
}

/// Whether a peer has proven that it knows the session: identity and AUTH of IKE_AUTH (RFC 5723 §4.3.3).
pub(super) fn verify(
    session: &Session,
    claimed: &Identity,
    proof: &AuthPayload<'_>,
    octets: &Octets,
    sk_p: &Secret,
) -> Result<Verdict, AuthenticationError> {
    if *claimed != session.remote_id {
        return Err(AuthenticationError::OtherIdentity {
            found: claimed.clone(),
            wanted: session.remote_id.to_string(),
        });
    }
    if octets.is_proof_of_session(sk_p, proof) {
        return Ok(Verdict::Proven("the keys of its last IKE_SA".to_owned()));
    }
    let claimed = claimed.clone();
    Err(AuthenticationError::Mismatch { claimed })
}

fn send(
    core: &Core,
    (held, detour): (&Held, &Detour),
    nonce: &[u8],
    cookie: Option<&[u8]>,
    cx: &mut Context,
) -> Retransmit {
    let mut payloads = PayloadWriter::new();
    if let Some(cookie) = cookie {
        add_notify(&mut payloads, NotifyType::COOKIE, cookie);
    }
    payloads.add(PayloadType::NONCE, nonce);
    add_notify(&mut payloads, NotifyType::TICKET_OPAQUE, &held.opaque);
    add_features(core, detour, &mut payloads, cx);
    let header = core.header(ExchangeType::IKE_SESSION_RESUME, false, 0);
    let message = message_bytes(header, payloads.finish()).into();
    cx.send(core.path, &message);
    // A peer that is there answers soon, and others are tried without a ticket.
    let (settings, now) = (cx.settings.liveness, cx.now);
    Retransmit::new(message, settings, now, cx.rng())
}
