//! Shared secrets of the configuration.

use std::sync::OnceLock;

use super::kdf::padded;
use super::prf::Prf;
use super::secret::Secret;
use crate::wire::proposal::PrfId;

/// A shared secret that authenticates with AUTH. What AUTH takes it as is computed once, as RFC 7296
/// §2.15 means it to be kept.
#[derive(Debug)]
pub struct PresharedKey {
    secret: Secret,
    /// Under the function that was asked for first; peers seldom need a second one.
    padded: OnceLock<(PrfId, Secret)>,
}

impl PresharedKey {
    /// The secret as it was configured.
    pub fn secret(&self) -> &Secret {
        &self.secret
    }

    /// AUTH data: `prf(prf(secret, "Key Pad for IKEv2"), octets)` (RFC 7296 §2.15).
    pub fn auth(&self, prf: Prf, octets: &[u8]) -> Secret {
        let (id, key) = self
            .padded
            .get_or_init(|| (prf.id(), padded(prf, &self.secret)));
        if *id == prf.id() {
            return prf.mac(key.as_bytes(), &[octets]);
        }
        prf.mac(padded(prf, &self.secret).as_bytes(), &[octets])
    }
}

impl From<Secret> for PresharedKey {
    fn from(secret: Secret) -> Self {
        Self {
            secret,
            padded: OnceLock::new(),
        }
    }
}

impl PartialEq for PresharedKey {
    fn eq(&self, other: &Self) -> bool {
        self.secret == other.secret
    }
}

impl Eq for PresharedKey {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::kdf::psk_auth;

    #[test]
    fn whatever_function_comes_first_each_gets_its_own_proof() {
        let secret = || Secret::copy_from(b"a shared secret");
        let key = PresharedKey::from(secret());
        let ids = [PrfId::HMAC_SHA2_256, PrfId::HMAC_SHA2_512];
        for id in ids.into_iter().chain(ids) {
            let prf = Prf::new(id).expect("one of ours");
            let expected = psk_auth(prf, &secret(), &[b"octets"]);
            assert_eq!(key.auth(prf, b"octets"), expected);
        }
    }
}
