//! Pseudo-random functions of IKEv2 (RFC 7296 §2.13, RFC 4868 §2.1.2).

use aws_lc_rs::hmac;
use zeroize::Zeroizing;

use super::Secret;
use crate::wire::proposal::PrfId;

/// A negotiated pseudo-random function. All of ours are HMACs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prf {
    id: PrfId,
    algorithm: hmac::Algorithm,
}

impl Prf {
    /// The function that `id` names, or `None` where we do not have it.
    pub fn new(id: PrfId) -> Option<Self> {
        let algorithm = match id {
            PrfId::HMAC_SHA1 => hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY,
            PrfId::HMAC_SHA2_256 => hmac::HMAC_SHA256,
            PrfId::HMAC_SHA2_384 => hmac::HMAC_SHA384,
            PrfId::HMAC_SHA2_512 => hmac::HMAC_SHA512,
            _ => return None,
        };
        Some(Self { id, algorithm })
    }

    /// The number it was negotiated under.
    pub fn id(self) -> PrfId {
        self.id
    }

    /// Bytes in one output.
    pub fn output_len(self) -> usize {
        self.algorithm.tag_len()
    }

    /// The length of SK_d, SK_pi and SK_pr: for an HMAC, the length of its output.
    pub fn preferred_key_len(self) -> usize {
        self.output_len()
    }

    /// `prf(key, parts…)`, with the parts concatenated. The key may have any length.
    pub fn mac(self, key: &[u8], parts: &[&[u8]]) -> Secret {
        let key = hmac::Key::new(self.algorithm, key);
        let message = Zeroizing::new(parts.concat());
        let mut output = vec![0; self.output_len()];
        sign(&key, &message, &mut output);
        Secret::from(output)
    }

    /// `prf+(key, seed…)` cut to `len` bytes (RFC 7296 §2.13).
    ///
    /// # Panics
    /// If `len` is more than 255 outputs, which the construction cannot give.
    pub fn prf_plus(self, key: &[u8], seed: &[&[u8]], len: usize) -> Secret {
        let key = hmac::Key::new(self.algorithm, key);
        let seed = Zeroizing::new(seed.concat());
        let mut output = Zeroizing::new(vec![0; len.next_multiple_of(self.output_len())]);
        let mut message = Zeroizing::new(Vec::with_capacity(self.output_len() + seed.len() + 1));
        let mut counter = 0u8;
        for block in output.chunks_exact_mut(self.output_len()) {
            counter = counter
                .checked_add(1)
                .expect("prf+ gives at most 255 blocks");
            message.extend_from_slice(&seed);
            message.push(counter);
            sign(&key, &message, block);
            message.clear();
            message.extend_from_slice(block);
        }
        Secret::copy_from(output.get(..len).expect("len was rounded up, never down"))
    }
}

/// Writes the tag straight into `output`, so that no copy of it stays on the stack.
fn sign(key: &hmac::Key, message: &[u8], output: &mut [u8]) {
    hmac::sign_to_buffer(key, message, output).expect("output has the length of one tag");
}
