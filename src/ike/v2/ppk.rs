//! Post-quantum preshared keys: mixed in with IKE_AUTH (RFC 8784), or before it in IKE_INTERMEDIATE
//! (RFC 9867), which protects the identities too.

use crate::crypto::Secret;
use crate::crypto::constant_time_eq;
use crate::crypto::kdf::mix_ppk;
use crate::crypto::prf::Prf;
use crate::ike::context::Context;
use crate::ike::pad::{Connection, Pad, Ppk, PpkId};
use crate::wire::ikev2::{NotifyType, PayloadWriter};
use crate::wire::isakmp::IkeSpi;

use super::Core;
use super::error::AuthenticationError;
use super::message::{Payloads, add_notify};
use super::protect::AuthKeys;

/// Where a PPK is mixed in, as IKE_SA_INIT has settled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PpkUse {
    /// Nowhere.
    No,
    Auth,
    Intermediate,
}

impl PpkUse {
    /// As initiator: says in IKE_SA_INIT that we have a PPK for this peer.
    pub(super) fn announce(connection: &Connection, request: &mut PayloadWriter) {
        if connection.ppk_id.is_some() {
            add_notify(request, NotifyType::USE_PPK, &[]);
            add_notify(request, NotifyType::USE_PPK_INT, &[]);
        }
    }

    /// As responder: takes up what the peer has announced, if we have any PPK.
    pub(super) fn accept(pad: &Pad, request: &Payloads<'_>, response: &mut PayloadWriter) -> Self {
        let chosen = match Self::announced(request) {
            _ if pad.ppks.is_empty() => Self::No,
            announced => announced,
        };
        match chosen {
            Self::No => {}
            Self::Auth => add_notify(response, NotifyType::USE_PPK, &[]),
            Self::Intermediate => add_notify(response, NotifyType::USE_PPK_INT, &[]),
        }
        chosen
    }

    /// What a message says, the better one of two. Without IKE_INTERMEDIATE there is only one.
    pub(super) fn announced(payloads: &Payloads<'_>) -> Self {
        let says = |kind| payloads.notify(kind).is_some();
        if says(NotifyType::USE_PPK_INT) && says(NotifyType::INTERMEDIATE_EXCHANGE_SUPPORTED) {
            Self::Intermediate
        } else if says(NotifyType::USE_PPK) {
            Self::Auth
        } else {
            Self::No
        }
    }
}

/// SK_d, SK_pi and SK_pr with a PPK mixed in (RFC 8784 §3).
pub(super) struct PpkKeys {
    /// Of the PPK.
    pub(super) name: String,
    pub(super) sk_d: Secret,
    pub(super) auth: AuthKeys,
}

impl PpkKeys {
    pub(super) fn mix(prf: Prf, ppk: &Ppk, sk_d: &Secret, auth: &AuthKeys) -> Self {
        let mix = |key| mix_ppk(prf, &ppk.secret, key);
        Self {
            name: ppk.name.clone(),
            sk_d: mix(sk_d),
            auth: AuthKeys {
                initiator: mix(&auth.initiator),
                responder: mix(&auth.responder),
            },
        }
    }
}

/// Tells which PPK the keys come from.
pub(super) fn log_use(core: &Core, name: &str, cx: &mut Context) {
    core.log(
        cx,
        "IKE",
        format!("mixing in the post-quantum preshared key {name}"),
    );
}

/// How a responder verifies an initiator (RFC 8784 §3, table 1).
pub(super) enum Proof<'a> {
    /// AUTH holds a proof without a PPK, or with one that was mixed in before.
    Plain,
    /// AUTH holds a proof with this PPK.
    With(&'a Ppk),
    /// We do not have the PPK, but the peer has left a proof without it.
    Without(&'a [u8]),
}

/// Chooses among the proofs of an IKE_AUTH request. `mixed` is the PPK of IKE_INTERMEDIATE.
pub(super) fn choose<'a>(
    used: PpkUse,
    mixed: Option<&PpkId>,
    connection: &Connection,
    request: &Payloads<'a>,
    pad: &'a Pad,
) -> Result<Proof<'a>, AuthenticationError> {
    let required = connection.ppk_required;
    if used != PpkUse::Auth {
        let fits = mixed.is_some_and(|id| connection.accepts_ppk(id));
        return match mixed {
            None if required => Err(AuthenticationError::NoPpk),
            Some(_) if !fits => Err(AuthenticationError::OtherPpk),
            _ => Ok(Proof::Plain),
        };
    }
    let named = request.notify(NotifyType::PPK_IDENTITY);
    let named = named.ok_or(AuthenticationError::NoPpk)?;
    let id = PpkId::parse(named.data).filter(|id| connection.accepts_ppk(id));
    if let Some(ppk) = id.and_then(|id| pad.ppk(&id)) {
        return Ok(Proof::With(ppk));
    }
    match request.notify(NotifyType::NO_PPK_AUTH) {
        Some(notify) if !required => Ok(Proof::Without(notify.data)),
        _ => Err(AuthenticationError::OtherPpk),
    }
}

/// What shows that two sides have the same PPK before they use it (RFC 9867).
pub(super) fn confirmation(
    prf: Prf,
    ppk: &Ppk,
    (ni, nr): (&[u8], &[u8]),
    (initiator, responder): (IkeSpi, IkeSpi),
) -> Vec<u8> {
    let parts = [ni, nr, &initiator.0, &responder.0];
    let mac = prf.mac(ppk.secret.as_bytes(), &parts);
    mac.as_bytes()
        .get(..CONFIRMATION)
        .unwrap_or_default()
        .to_vec()
}

/// As responder: the first PPK of a request that both sides have.
pub(super) fn find_common<'a>(
    request: &Payloads<'_>,
    pad: &'a Pad,
    confirm: impl Fn(&Ppk) -> Vec<u8>,
) -> Option<(PpkId, &'a Ppk)> {
    let offered = request.notifies.iter();
    let offered = offered.filter(|notify| notify.kind == NotifyType::PPK_IDENTITY_KEY);
    offered.take(MOST_OFFERED).find_map(|notify| {
        let end = notify.data.len().checked_sub(CONFIRMATION)?;
        let (name, confirmation) = notify.data.split_at_checked(end)?;
        let id = PpkId::parse(name)?;
        let ppk = pad.ppk(&id)?;
        constant_time_eq(&confirm(ppk), confirmation).then_some((id, ppk))
    })
}

const CONFIRMATION: usize = 8;
/// Each costs a PRF.
const MOST_OFFERED: usize = 16;
