//! Which authentication methods each side verifies (RFC 9593).
//!
//! The responder tells it in IKE_SA_INIT, the initiator in IKE_AUTH. An empty list announces one in
//! IKE_INTERMEDIATE.

use crate::crypto::signature::{Hash, KeyKind, Scheme};
use crate::ike::credentials::{LocalKey, RemoteMethod, Trust};
use crate::ike::pad::{Connection, Pad};
use crate::wire::ikev2::{AuthAnnouncement, AuthMethod, NotifyType, PayloadWriter};

use super::certificates::Requested;
use super::message::{Payloads, add_notify};

/// What a peer has announced.
#[derive(Clone, Debug)]
pub(super) struct Announced(Vec<Accepted>);

#[derive(Clone, Debug)]
struct Accepted {
    method: AuthMethod,
    /// What Digital Signature is to be made with.
    scheme: Option<Scheme>,
    cert_link: u8,
}

impl Announced {
    /// What a message says; `None` if nothing, or that it will come later.
    pub(super) fn from_payloads(payloads: &Payloads<'_>) -> Option<Self> {
        let notify = payloads.notify(NotifyType::SUPPORTED_AUTH_METHODS)?;
        let all = AuthAnnouncement::parse_all(notify.data).take(MOST_METHODS);
        let accepted = all.map(|announced| Accepted {
            method: announced.method,
            scheme: Scheme::from_algorithm_identifier(announced.algorithm),
            cert_link: announced.cert_link,
        });
        let accepted: Vec<_> = accepted.collect();
        (!accepted.is_empty()).then_some(Self(accepted))
    }

    /// Whether the peer verifies this, made with this key.
    pub(super) fn accepts(
        &self,
        (method, scheme): (AuthMethod, Scheme),
        key: &LocalKey,
        (requested, pad): (&Requested, &Pad),
    ) -> bool {
        self.0.iter().any(|accepted| {
            let is_it = accepted.method == method;
            let is_signature = method == AuthMethod::DIGITAL_SIGNATURE;
            let link = usize::from(accepted.cert_link).checked_sub(1);
            is_it
                && (!is_signature || accepted.scheme == Some(scheme))
                && link.is_none_or(|place| requested.links(place, key, &pad.authorities))
        })
    }
}

/// Announces what may prove the peer's identity to any of these connections, unless secrets alone can.
pub(super) fn announce<'a>(
    payloads: &mut PayloadWriter,
    connections: impl IntoIterator<Item = &'a Connection>,
) {
    let mut trusts: Vec<&Trust> = Vec::new();
    let mut has_secret = false;
    for connection in connections {
        match &connection.remote.method {
            RemoteMethod::Psk => has_secret = true,
            RemoteMethod::Signature(trust) => trusts.push(trust),
        }
    }
    if trusts.is_empty() {
        return;
    }
    let mut data = Vec::new();
    let mut add = |method, algorithm: &[u8]| {
        let announcement = AuthAnnouncement {
            method,
            cert_link: 0,
            algorithm,
        };
        announcement.encode(&mut data);
    };
    if has_secret {
        add(AuthMethod::SHARED_KEY_MIC, &[]);
    }
    let accepted = |kind, scheme| trusts.iter().any(|trust| trust.may_accept(kind, scheme));
    for scheme in SCHEMES {
        if KeyKind::ALL.iter().any(|kind| accepted(*kind, scheme))
            && let Some(algorithm) = scheme.to_algorithm_identifier()
        {
            add(AuthMethod::DIGITAL_SIGNATURE, &algorithm);
        }
    }
    for (method, kind, scheme) in OLD_METHODS {
        if accepted(kind, scheme) {
            add(method, &[]);
        }
    }
    add_notify(payloads, NotifyType::SUPPORTED_AUTH_METHODS, &data);
}

/// What we verify as Digital Signature (RFC 7427).
const SCHEMES: [Scheme; 10] = [
    Scheme::Ed25519,
    Scheme::Ecdsa(Hash::Sha256),
    Scheme::Ecdsa(Hash::Sha384),
    Scheme::Ecdsa(Hash::Sha512),
    Scheme::RsaPss(Hash::Sha256),
    Scheme::RsaPss(Hash::Sha384),
    Scheme::RsaPss(Hash::Sha512),
    Scheme::RsaPkcs1(Hash::Sha256),
    Scheme::RsaPkcs1(Hash::Sha384),
    Scheme::RsaPkcs1(Hash::Sha512),
];

/// Methods that stand for a kind of key and a scheme.
pub(super) const OLD_METHODS: [(AuthMethod, KeyKind, Scheme); 4] = [
    (
        AuthMethod::RSA_SIGNATURE,
        KeyKind::Rsa,
        Scheme::RsaPkcs1(Hash::Sha256),
    ),
    (AuthMethod::ECDSA_256, KeyKind::P256, Scheme::EcdsaFixed),
    (AuthMethod::ECDSA_384, KeyKind::P384, Scheme::EcdsaFixed),
    (AuthMethod::ECDSA_521, KeyKind::P521, Scheme::EcdsaFixed),
];

const MOST_METHODS: usize = 64;
