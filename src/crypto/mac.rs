//! MACs, for integrity and as the core of a PRF: HMAC (RFC 2104), AES-CMAC (RFC 4493) and
//! AES-XCBC (RFC 3566).

use aes::Aes128;
use aws_lc_rs::hmac;
use cbc_mac::CbcMac;
use cmac::Cmac;
use cmac::digest::{FixedOutput, KeyInit, Update};
use md5::Md5;
use sha2::Sha256;
use zeroize::{Zeroize, Zeroizing};

use super::cipher::Aes;
use crate::wire::proposal::{IntegrityId, PrfId};

/// The function, without a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mac {
    Hmac(hmac::Algorithm),
    /// Of inputs as short as those of a PRF, where it takes half the time of the other one.
    ShortHmacSha256,
    HmacMd5,
    AesCmac,
    AesXcbc,
}

/// An expanded key. Those of `hmac` are erased, but not the two padded blocks that their expansion has had
/// on the stack.
#[allow(
    clippy::large_enum_variant,
    reason = "a PRF needs it for a moment, on the stack; a packet key is in a box of its own"
)]
pub(super) enum MacKey {
    Hmac(hmac::Key),
    ShortHmacSha256(::hmac::Hmac<Sha256>),
    HmacMd5(::hmac::Hmac<Md5>),
    AesCmac(Cmac<Aes128>),
    AesXcbc(Xcbc),
}

/// The MAC of an integrity algorithm, and the bytes of its ICV. Its key is as long as an output that
/// is not truncated.
pub(super) fn of_integrity(id: IntegrityId) -> Option<(Mac, usize)> {
    Some(match id {
        IntegrityId::HMAC_MD5_96 => (Mac::HmacMd5, 12),
        IntegrityId::HMAC_SHA1_96 => (Mac::Hmac(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY), 12),
        IntegrityId::AES_XCBC_96 => (Mac::AesXcbc, 12),
        IntegrityId::AES_CMAC_96 => (Mac::AesCmac, 12),
        IntegrityId::HMAC_SHA2_256_128 => (Mac::Hmac(hmac::HMAC_SHA256), 16),
        IntegrityId::HMAC_SHA2_384_192 => (Mac::Hmac(hmac::HMAC_SHA384), 24),
        IntegrityId::HMAC_SHA2_512_256 => (Mac::Hmac(hmac::HMAC_SHA512), 32),
        _ => return None,
    })
}

/// The MAC that a PRF is.
pub(super) fn of_prf(id: PrfId) -> Option<Mac> {
    Some(match id {
        PrfId::HMAC_MD5 => Mac::HmacMd5,
        PrfId::HMAC_SHA1 => Mac::Hmac(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY),
        PrfId::AES128_XCBC => Mac::AesXcbc,
        PrfId::AES128_CMAC => Mac::AesCmac,
        PrfId::HMAC_SHA2_256 => Mac::ShortHmacSha256,
        PrfId::HMAC_SHA2_384 => Mac::Hmac(hmac::HMAC_SHA384),
        PrfId::HMAC_SHA2_512 => Mac::Hmac(hmac::HMAC_SHA512),
        _ => return None,
    })
}

impl Mac {
    /// Bytes of an output that is not truncated.
    pub(super) fn output_len(self) -> usize {
        match self {
            Self::Hmac(algorithm) => algorithm.tag_len(),
            Self::ShortHmacSha256 => 32,
            Self::HmacMd5 | Self::AesCmac | Self::AesXcbc => 16,
        }
    }

    /// `None` if AES is given other than 16 bytes. An HMAC takes any length.
    pub(super) fn key(self, key: &[u8]) -> Option<MacKey> {
        Some(match self {
            Self::Hmac(algorithm) => MacKey::Hmac(hmac::Key::new(algorithm, key)),
            Self::ShortHmacSha256 => MacKey::ShortHmacSha256(KeyInit::new_from_slice(key).ok()?),
            Self::HmacMd5 => MacKey::HmacMd5(KeyInit::new_from_slice(key).ok()?),
            Self::AesCmac => MacKey::AesCmac(KeyInit::new_from_slice(key).ok()?),
            Self::AesXcbc => MacKey::AesXcbc(Xcbc::new(key)?),
        })
    }
}

impl MacKey {
    /// Computes the MAC over the concatenation of `parts` and fills `output` with its first bytes. A
    /// whole one is a secret to the caller, of which no copy stays behind.
    ///
    /// # Panics
    /// If `output` is longer than the MAC.
    pub(super) fn sign(&self, parts: &[&[u8]], output: &mut [u8]) {
        match self {
            Self::Hmac(key) if output.len() == key.algorithm().tag_len() => {
                let joined;
                let message = if let [message] = parts {
                    message
                } else {
                    joined = Zeroizing::new(parts.concat());
                    &**joined
                };
                hmac::sign_to_buffer(key, message, output).expect("output has that length");
            }
            Self::Hmac(key) => {
                let mut context = hmac::Context::with_key(key);
                for part in parts {
                    context.update(part);
                }
                truncate(context.sign().as_ref(), output);
            }
            Self::ShortHmacSha256(key) => sign(key.clone(), parts, output),
            Self::HmacMd5(key) => sign(key.clone(), parts, output),
            Self::AesCmac(key) => sign(key.clone(), parts, output),
            Self::AesXcbc(key) => key.sign(parts, output),
        }
    }
}

fn sign(mut mac: impl FixedOutput, parts: &[&[u8]], output: &mut [u8]) {
    for part in parts {
        mac.update(part);
    }
    let mut tag = mac.finalize_fixed();
    truncate(&tag, output);
    tag.as_mut_slice().zeroize();
}

fn truncate(tag: &[u8], output: &mut [u8]) {
    let head = tag.get(..output.len());
    output.copy_from_slice(head.expect("nobody asks for more than a MAC has"));
}

/// AES-XCBC-MAC (RFC 3566 §4): CBC-MAC whose last block is masked, so that no message is the start of
/// another.
pub(super) struct Xcbc {
    mac: CbcMac<Aes128>,
    /// Masks a last block of 16 bytes: K2.
    whole: Zeroizing<[u8; 16]>,
    /// Masks a last block that was padded: K3.
    padded: Zeroizing<[u8; 16]>,
}

impl Xcbc {
    fn new(key: &[u8]) -> Option<Self> {
        let aes = (key.len() == 16).then(|| Aes::new(key))??;
        let [k1, whole, padded] = [1, 2, 3].map(|byte| {
            let mut block = Zeroizing::new([byte; 16]);
            aes.encrypt_block(&mut block);
            block
        });
        let mac = KeyInit::new_from_slice(k1.as_slice()).ok()?;
        Some(Self { mac, whole, padded })
    }

    fn sign(&self, parts: &[&[u8]], output: &mut [u8]) {
        let total: usize = parts.iter().map(|part| part.len()).sum();
        let mut in_front = total.saturating_sub(1) / BLOCK_LEN * BLOCK_LEN;
        let mut mac = self.mac.clone();
        let mut last = [0; BLOCK_LEN];
        let mut free = last.as_mut_slice();
        for part in parts {
            let (front, behind) = part.split_at(part.len().min(in_front));
            in_front -= front.len();
            mac.update(front);
            free = fill(free, behind);
        }
        let mask = match free {
            [] => &self.whole,
            [first, ..] => {
                *first = 0x80;
                &self.padded
            }
        };
        for (byte, mask) in last.iter_mut().zip(mask.iter()) {
            *byte ^= mask;
        }
        sign(mac, &[&last], output);
    }
}

/// Copies `bytes` to the front of `free` and returns what is left of it.
fn fill<'a>(free: &'a mut [u8], bytes: &[u8]) -> &'a mut [u8] {
    let (here, behind) = free
        .split_at_mut_checked(bytes.len())
        .expect("at most a block is held back");
    here.copy_from_slice(bytes);
    behind
}

const BLOCK_LEN: usize = 16;
