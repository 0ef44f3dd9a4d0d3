//! Key derivation of IKEv2 (RFC 7296 §2.13–2.18), also with several key exchanges (RFC 9370 §2.2.2,
//! §2.2.4) and with a post-quantum preshared key (RFC 8784 §3, RFC 9867).

use super::packet::{encryption_key_len, integrity_key_len};
use super::prf::Prf;
use super::secret::Secret;
use crate::wire::proposal::{CipherSuite, IkeSuite};

/// The keys of one IKE SA (RFC 7296 §2.14). `i` is what the original initiator protects with.
///
/// With an AEAD suite `sk_ai` and `sk_ar` are empty, and the salt is at the end of `sk_ei` and
/// `sk_er` (RFC 5282 §7).
#[derive(Debug)]
pub struct IkeKeys {
    /// From which the keys of Child SAs and of the next IKE SA are derived.
    pub sk_d: Secret,
    /// Integrity of messages from the initiator.
    pub sk_ai: Secret,
    /// Integrity of messages from the responder.
    pub sk_ar: Secret,
    /// Encryption of messages from the initiator.
    pub sk_ei: Secret,
    /// Encryption of messages from the responder.
    pub sk_er: Secret,
    /// Ties the initiator's identity to the exchange.
    pub sk_pi: Secret,
    /// Ties the responder's identity to the exchange.
    pub sk_pr: Secret,
}

impl IkeKeys {
    /// Derives the seven keys from `skeyseed`. The nonces and SPIs are those of the exchange that
    /// makes this SA: initiator's first.
    ///
    /// # Panics
    /// If the suite's PRF is none of ours; negotiation accepts only what [`Prf::new`] knows.
    pub fn derive(
        suite: &IkeSuite,
        skeyseed: &Secret,
        ni: &[u8],
        nr: &[u8],
        spi_i: [u8; 8],
        spi_r: [u8; 8],
    ) -> Self {
        let prf = Prf::new(suite.prf).expect("a negotiated PRF is one of ours");
        let sk_d = prf.preferred_key_len();
        let sk_a = integrity_key_len(&suite.cipher);
        let sk_e = encryption_key_len(&suite.cipher);
        let total = 3 * sk_d + 2 * sk_a + 2 * sk_e;
        let material = prf.prf_plus(skeyseed.as_bytes(), &[ni, nr, &spi_i, &spi_r], total);
        let mut rest = material.as_bytes();
        Self {
            sk_d: take(&mut rest, sk_d),
            sk_ai: take(&mut rest, sk_a),
            sk_ar: take(&mut rest, sk_a),
            sk_ei: take(&mut rest, sk_e),
            sk_er: take(&mut rest, sk_e),
            sk_pi: take(&mut rest, sk_d),
            sk_pr: take(&mut rest, sk_d),
        }
    }
}

/// The keys of a pair of Child SAs (RFC 7296 §2.17).
#[derive(Debug)]
pub struct ChildKeys {
    /// For the SA on which the exchange's initiator sends.
    pub initiator: HalfKeys,
    /// For the SA on which the exchange's responder sends.
    pub responder: HalfKeys,
}

/// The keys of one direction, as [`PacketKey::new`](super::PacketKey::new) takes them.
#[derive(Debug)]
pub struct HalfKeys {
    /// Encryption key; the salt of an AEAD follows it.
    pub encryption: Secret,
    /// Integrity key; empty for an AEAD.
    pub integrity: Secret,
}

impl ChildKeys {
    /// Derives KEYMAT. `shared` are the results of the Child SA's own key exchanges, if it had any, in
    /// order; the nonces are those of the exchange that makes the SA, its initiator's first.
    pub fn derive(
        prf: Prf,
        sk_d: &Secret,
        shared: &[Secret],
        ni: &[u8],
        nr: &[u8],
        suite: &CipherSuite,
    ) -> Self {
        let encryption = encryption_key_len(suite);
        let integrity = integrity_key_len(suite);
        let total = 2 * (encryption + integrity);
        let material = prf.prf_plus(sk_d.as_bytes(), &mixed(shared, ni, nr), total);
        let mut rest = material.as_bytes();
        let mut half = || HalfKeys {
            encryption: take(&mut rest, encryption),
            integrity: take(&mut rest, integrity),
        };
        Self {
            initiator: half(),
            responder: half(),
        }
    }
}

/// SKEYSEED of a new IKE SA: `prf(Ni | Nr, g^ir)` (RFC 7296 §2.14).
pub fn skeyseed(prf: Prf, (ni, nr): (&[u8], &[u8]), shared: &Secret) -> Secret {
    prf.mac(&prf.nonce_key(ni, nr), &[shared.as_bytes()])
}

/// SKEYSEED of an IKE SA that replaces one: `prf(SK_d (old), SK(0) | Ni | Nr | SK(1) | … SK(n))`
/// (RFC 7296 §2.18, RFC 9370 §2.2.4). `prf_old` and `sk_d` belong to the SA that is replaced, `shared`
/// are the results of the key exchanges in order.
///
/// With one result it is also SKEYSEED(n) of an IKE SA that has done the n-th additional key exchange
/// of its set-up (RFC 9370 §2.2.2).
pub fn skeyseed_rekey(
    prf_old: Prf,
    sk_d: &Secret,
    shared: &[Secret],
    ni: &[u8],
    nr: &[u8],
) -> Secret {
    prf_old.mac(sk_d.as_bytes(), &mixed(shared, ni, nr))
}

/// A key into which a post-quantum preshared key is mixed: `prf+(PPK, key)`, as long as the key that
/// the PRF prefers. For SK_d, SK_pi and SK_pr (RFC 8784 §3), or to make an SKEYSEED of SK_d (RFC 9867).
pub fn mix_ppk(prf: Prf, ppk: &Secret, key: &Secret) -> Secret {
    prf.prf_plus(ppk.as_bytes(), &[key.as_bytes()], prf.preferred_key_len())
}

/// SK(0) | Ni | Nr | SK(1) | … SK(n)
fn mixed<'a>(shared: &'a [Secret], ni: &'a [u8], nr: &'a [u8]) -> Vec<&'a [u8]> {
    let mut secrets = shared.iter().map(Secret::as_bytes);
    let first = secrets.next().unwrap_or_default();
    [first, ni, nr].into_iter().chain(secrets).collect()
}

/// AUTH data of a shared secret: `prf(prf(secret, "Key Pad for IKEv2"), octets…)` (RFC 7296 §2.15).
pub fn psk_auth(prf: Prf, secret: &Secret, octets: &[&[u8]]) -> Secret {
    prf.mac(padded(prf, secret).as_bytes(), octets)
}

/// What AUTH takes a shared secret as: `prf(secret, "Key Pad for IKEv2")`.
pub(super) fn padded(prf: Prf, secret: &Secret) -> Secret {
    prf.mac(secret.as_bytes(), &[KEY_PAD])
}

fn take(rest: &mut &[u8], len: usize) -> Secret {
    let (key, after) = rest
        .split_at_checked(len)
        .expect("the sum of the lengths was derived");
    *rest = after;
    Secret::copy_from(key)
}

const KEY_PAD: &[u8] = b"Key Pad for IKEv2";
