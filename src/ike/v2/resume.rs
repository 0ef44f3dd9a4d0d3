//! IKE_SESSION_RESUME as initiator, and the proofs that follow it (RFC 5723 §4.3).

use crate::crypto::Secret;
use crate::ike::context::{Attempt, Context, Effect};
use crate::ike::redirect::Detour;
use crate::ike::retransmit::{Overdue, Retransmit};
use crate::ike::session::Session;
use crate::ike::tickets::Held;
use crate::ike::{Discard, Identity, Path};
use crate::wire::ikev2::{AuthPayload, NotifyType, PayloadWriter, message_bytes};
use crate::wire::isakmp::{ExchangeType, PayloadType};

use super::authentication::{Octets, Verdict};
use super::error::AuthenticationError;
use super::init::{
    Features, InitDone, InitExchange, add_features, asked_cookie, check_first_answer,
};
use super::initiation::Initiation;
use super::intermediate;
use super::message::{Datagram, Payloads, add_notify};
use super::{Core, IkeSa, State};

/// IKE_SESSION_RESUME is sent and unanswered.
pub(in crate::ike) struct ResumeSent {
    pub(super) initiation: Initiation,
    held: Held,
    nonce: Vec<u8>,
    cookie: Option<Vec<u8>>,
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
            initiation: Initiation::first(attempt, request),
            held,
            nonce,
            cookie: None,
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
                let what = (&self.held, &self.initiation.attempt.detour);
                self.initiation.request = send(core, what, &self.nonce, Some(cookie), cx);
                self.cookie = Some(cookie.to_vec());
                State::ResumeSent(self)
            }
            Ok((Answer::Refused, _)) => {
                fall_back(core, self.initiation.attempt, "the peer refuses", cx)
            }
            Ok((Answer::Accepted(nr), payloads)) => match check(&self.held.session, core, cx) {
                Ok(()) => self.proceed(core, datagram, payloads, nr, cx),
                Err(error) => fall_back(core, self.initiation.attempt, &error.to_string(), cx),
            },
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
        let Initiation {
            attempt, request, ..
        } = self.initiation;
        let features = Features::of_answer(core, &attempt.connection, datagram, payloads, cx);
        let request = request.message().datagrams().first();
        let request = request.cloned().unwrap_or_default();
        let nonces = (self.nonce, nr.to_vec());
        let exchange = InitExchange::new(request, datagram.bytes.to_vec(), nonces);
        let done = InitDone::resumed(exchange, self.held.session, features);
        intermediate::start(attempt, done, core, cx)
    }

    pub(super) fn on_timer(mut self: Box<Self>, core: &Core, cx: &mut Context) -> State {
        match self.initiation.request.repeat(core.path, cx) {
            None | Some(Overdue::Again) => State::ResumeSent(self),
            Some(Overdue::GiveUp) => {
                // Nobody has used it, so it is as good when the peer is back (RFC 5723 §4.3.1).
                cx.tickets.hold(self.held, cx.now);
                fall_back(
                    core,
                    self.initiation.attempt,
                    "the peer does not answer",
                    cx,
                )
            }
        }
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

/// Whether the configuration still allows what is being resumed, which a reload may have changed.
pub(super) fn check(
    session: &Session,
    core: &Core,
    cx: &Context,
) -> Result<(), AuthenticationError> {
    let connection = cx.directory.connection(&session.connection);
    let local = core.path.local.ip();
    match connection.is_some_and(|connection| session.fits(connection, local, &cx.directory)) {
        true => Ok(()),
        false => Err(AuthenticationError::Resumption(CHANGED)),
    }
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

pub(super) const CHANGED: &str = "its connection, identities or credentials have changed";

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
    // A peer that is there answers soon, and others are tried without a ticket.
    let settings = cx.settings.liveness;
    Retransmit::send(message, core.path, settings, cx)
}
