//! Quick crash detection (RFC 6290): how a peer that has lost its state proves that.
//!
//! Each end gives the other a token for their IKE SA, under its protection. An end that is asked about
//! an IKE SA which it does not know tells that token in clear, so nobody waits for it in vain.
//!
//! ```text
//! maker   IKE_AUTH {QCD token} ─► taker      CREATE_CHILD_SA, INFORMATIONAL after a rekey
//!         (restarts)
//!         ◄─ any request of that IKE SA
//!         INVALID_IKE_SPI, QCD token ─►      the IKE SA is deleted, and set up anew as configured
//! ```

use std::time::Instant;

use crate::crypto::Secret;
use crate::crypto::prf::Prf;
use crate::wire::ikev2::{Notify, NotifyType, PayloadWriter};
use crate::wire::isakmp::{IkeSpi, PayloadType};
use crate::wire::proposal::{PrfId, ProtocolId};

use super::endpoint::Endpoint;
use super::rate::RateLimit;
use super::sources::Sources;
use super::v2::{Datagram, IkeSa};
use super::{Discard, Settings};

/// The token for an IKE SA that we have set up (`initiator`) or answered. The two ends of an IKE SA
/// have different ones even where they share a secret, and so has whoever takes our place in it.
pub(super) fn make(
    settings: &Settings,
    (initiator_spi, responder_spi): (IkeSpi, IkeSpi),
    initiator: bool,
) -> Option<Secret> {
    let secret = settings.crash_secret.as_ref()?;
    let prf = Prf::new(PrfId::HMAC_SHA2_256).expect("HMAC-SHA2-256 is always there");
    let role = [u8::from(initiator)];
    Some(prf.mac(
        secret.as_bytes(),
        &[&role, &initiator_spi.0, &responder_spi.0],
    ))
}

/// Adds a token.
pub(super) fn add(token: &Secret, payloads: &mut PayloadWriter) {
    let notify = Notify {
        protocol: ProtocolId::Ike as u8,
        ..Notify::new(NotifyType::QUICK_CRASH_DETECTION, token.as_bytes())
    };
    payloads.add_with(PayloadType::NOTIFY, |out| notify.encode(out));
}

/// How many tokens are told and looked at.
#[derive(Debug)]
pub(super) struct TokenLimits {
    told: RateLimit,
    told_to: Sources,
    taken_from: Sources,
}

impl TokenLimits {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            told: RateLimit::new(MOST_TOLD, 2 * MOST_TOLD, now),
            told_to: Sources::default(),
            taken_from: Sources::default(),
        }
    }
}

impl Endpoint {
    /// Our token for the IKE SA that a protected request is about, which nobody has. It is never one that
    /// is still of use (RFC 6290 §9.2), and somebody who tries SPIs does not learn many (§9.3).
    pub(super) fn lost_token(&mut self, datagram: &Datagram<'_>) -> Option<Secret> {
        let header = &datagram.header;
        let spis = (header.initiator_spi, header.responder_spi);
        let is_protected = matches!(header.next_payload, PayloadType::SK | PayloadType::SKF);
        let is_unknown = |spi: IkeSpi| !spi.is_zero() && self.table.by_spi(spi).is_none();
        if header.flags.response() || !is_protected || !is_unknown(spis.0) || !is_unknown(spis.1) {
            return None;
        }
        let token = make(&self.cx.settings, spis, !header.flags.initiator())?;
        let (now, from) = (self.cx.now, datagram.remote().ip());
        let limits = &mut self.admission.tokens;
        let allowed = limits.told_to.allow(from, MOST_FROM_ONE, now) && limits.told.allow(now);
        allowed.then_some(token)
    }

    /// Takes a message in clear with tokens for an IKE SA that is up, from wherever it comes; false if it
    /// is none. Only the peer's own token, which nobody but the peer has, ends the IKE SA.
    pub(super) fn take_crash_tokens(&mut self, datagram: &Datagram<'_>) -> Result<bool, Discard> {
        let header = &datagram.header;
        if header.next_payload != PayloadType::NOTIFY {
            return Ok(false);
        }
        let spis = (header.initiator_spi, header.responder_spi);
        let Some(sa) = self.table.by_spis(spis) else {
            return Ok(false);
        };
        let payloads = datagram.clear_payloads();
        let payloads = payloads.map_err(|_| Discard::Malformed)?;
        let is_token = |notify: &&Notify<'_>| notify.kind == NotifyType::QUICK_CRASH_DETECTION;
        let mut tokens = payloads.notifies.iter().filter(is_token).peekable();
        if tokens.peek().is_none() {
            return Ok(false);
        }
        let (now, from) = (self.cx.now, datagram.remote());
        let limits = &mut self.admission.tokens;
        if !limits.taken_from.allow(from.ip(), MOST_FROM_ONE, now) {
            return Err(Discard::RateLimited);
        }
        let (id, label) = (sa.core.id, sa.core.label());
        let proven = tokens
            .take(MOST_AT_ONCE)
            .any(|token| sa.is_crash_token(token.data));
        if !proven {
            let line =
                format!("ignoring a crash detection token of {from}, which is not the peer's");
            self.cx.warn("IKE", label, line);
            return Err(Discard::BadCrashToken);
        }
        self.step(id, IkeSa::on_peer_crash);
        Ok(true)
    }
}

/// Four generations of secrets (RFC 6290 §4.5).
const MOST_AT_ONCE: usize = 4;
/// Tokens in a second that one address is told, and that it may have looked at; twice as many at once.
const MOST_FROM_ONE: u32 = 10;
/// Tokens in a second that all addresses are told: enough for thousands of peers after a restart.
const MOST_TOLD: u32 = 500;
