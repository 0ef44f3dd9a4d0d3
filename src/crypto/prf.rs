//! Pseudo-random functions of IKEv2 (RFC 7296 §2.13, RFC 4868 §2.1.2, RFC 4434, RFC 4615).

use zeroize::Zeroizing;

use super::Secret;
use super::mac::{self, Mac, MacKey};
use crate::wire::proposal::PrfId;

/// A negotiated pseudo-random function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prf {
    id: PrfId,
    mac: Mac,
}

impl Prf {
    /// The function that `id` names, or `None` where we do not have it.
    pub fn new(id: PrfId) -> Option<Self> {
        let mac = mac::of_prf(id)?;
        Some(Self { id, mac })
    }

    /// The number it was negotiated under.
    pub fn id(self) -> PrfId {
        self.id
    }

    /// Bytes in one output.
    pub fn output_len(self) -> usize {
        self.mac.output_len()
    }

    /// The length of SK_d, SK_pi and SK_pr: for all of ours, the length of an output.
    pub fn preferred_key_len(self) -> usize {
        self.output_len()
    }

    /// What SKEYSEED takes as its key: the nonces, or the first 8 bytes of each where the function is
    /// AES (RFC 7296 §2.14).
    pub(super) fn nonce_key<'a>(self, ni: &'a [u8], nr: &'a [u8]) -> Vec<u8> {
        let len = match self.mac {
            Mac::AesCmac | Mac::AesXcbc => AES_KEY_LEN / 2,
            Mac::Hmac(_) | Mac::ShortHmacSha256 | Mac::HmacMd5 => usize::MAX,
        };
        let start = |nonce: &'a [u8]| nonce.get(..len).unwrap_or(nonce);
        [start(ni), start(nr)].concat()
    }

    /// `prf(key, parts…)`, with the parts concatenated. The key may have any length.
    pub fn mac(self, key: &[u8], parts: &[&[u8]]) -> Secret {
        let mut output = Zeroizing::new([0; MAX_OUTPUT_LEN]);
        let output = output.get_mut(..self.output_len()).expect(LONG_ENOUGH);
        self.key(key).sign(parts, output);
        Secret::copy_from(output)
    }

    /// `prf+(key, seed…)` cut to `len` bytes (RFC 7296 §2.13).
    ///
    /// # Panics
    /// If `len` is more than 255 outputs, which the construction cannot give.
    pub fn prf_plus(self, key: &[u8], seed: &[&[u8]], len: usize) -> Secret {
        let key = self.key(key);
        let block_len = self.output_len();
        let mut output = Zeroizing::new(Vec::with_capacity(len.next_multiple_of(block_len)));
        // The block before, the seed, the number of the block; the first block has none before it.
        let seed_len: usize = seed.iter().map(|part| part.len()).sum();
        let mut message = Zeroizing::new(Vec::with_capacity(block_len + seed_len + 1));
        message.resize(block_len, 0);
        seed.iter().for_each(|part| message.extend_from_slice(part));
        message.push(0);
        while output.len() < len {
            let counter = message.last_mut().expect("it ends in the number");
            *counter = counter
                .checked_add(1)
                .expect("prf+ gives at most 255 blocks");
            let covered = if output.is_empty() { block_len } else { 0 };
            let covered = message.get(covered..).expect("a block is in front");
            let mut block = Zeroizing::new([0; MAX_OUTPUT_LEN]);
            let block = block.get_mut(..block_len).expect(LONG_ENOUGH);
            key.sign(&[covered], block);
            output.extend_from_slice(block);
            let before = message.get_mut(..block_len).expect("a block is in front");
            before.copy_from_slice(block);
        }
        output.truncate(len);
        Secret::from(std::mem::take(&mut *output))
    }

    /// Expands a key of any length. AES takes 16 bytes, to which RFC 4434 §2 and RFC 4615 §3 bring
    /// others.
    fn key(self, key: &[u8]) -> MacKey {
        let hashed = |key: &[u8]| {
            let mut fit = Zeroizing::new([0; AES_KEY_LEN]);
            let zero = self.mac.key(&[0; AES_KEY_LEN]);
            zero.expect(FITS).sign(&[key], fit.as_mut_slice());
            fit
        };
        let fit = match self.mac {
            Mac::Hmac(_) | Mac::ShortHmacSha256 | Mac::HmacMd5 => {
                return self.mac.key(key).expect(FITS);
            }
            _ if key.len() == AES_KEY_LEN => return self.mac.key(key).expect(FITS),
            Mac::AesXcbc if key.len() < AES_KEY_LEN => {
                let mut fit = Zeroizing::new([0; AES_KEY_LEN]);
                fit.iter_mut().zip(key).for_each(|(to, from)| *to = *from);
                fit
            }
            Mac::AesXcbc | Mac::AesCmac => hashed(key),
        };
        self.mac.key(fit.as_slice()).expect(FITS)
    }
}

const AES_KEY_LEN: usize = 16;
/// Of HMAC-SHA2-512.
const MAX_OUTPUT_LEN: usize = 64;
const LONG_ENOUGH: &str = "no output is longer than that of SHA2-512";
const FITS: &str = "an HMAC takes every key, AES one of 16 bytes";
