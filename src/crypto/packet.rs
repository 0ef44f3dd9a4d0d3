//! One key that seals or opens packets: one direction of an ESP SA, or of IKE's encrypted payload.

use std::fmt;

use super::aead::{AeadKey, FastCipher};
use super::encrypt_then_mac::EncryptThenMac;
use super::gmac::Gmac;
use super::mac;
use super::portable::PortableCipher;
use crate::wire::proposal::{CipherSuite, EncryptionId};

/// The expanded key of one direction of an SA.
///
/// The buffer that [`seal`](Self::seal) fills and [`open`](Self::open) reads is what follows the
/// header on the wire:
///
/// ```text
///    header       iv            text, then ciphertext        icv
/// ┌────────────┬─────────────┬────────────────────────────┬─────────────┐
/// │ Associated │ iv_len()    │ a multiple of block_len()  │ icv_len()   │
/// └────────────┴─────────────┴────────────────────────────┴─────────────┘
///               └────────────────────── buffer ─────────────────────────┘
/// ```
pub struct PacketKey {
    suite: CipherSuite,
    cipher: Cipher,
}

enum Cipher {
    Aead(AeadKey<FastCipher>),
    Portable(AeadKey<PortableCipher>),
    Gmac(Box<Gmac>),
    EncryptThenMac(Box<EncryptThenMac>),
}

/// Who computes an AEAD that both have: then they give the same bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Provider {
    /// `aws-lc-rs`: assembly for the wide vector units. It has AES-GCM with an ICV of 16 bytes and
    /// ChaCha20-Poly1305.
    #[default]
    Fast,
    /// `aes-gcm`, `ccm` and `chacha20poly1305`: Rust only.
    Portable,
}

/// What is authenticated but sent in clear before the buffer.
#[derive(Clone, Copy, Debug)]
pub struct Associated<'a> {
    /// The ESP header, or everything of an IKE message before the IV.
    pub header: &'a [u8],
    /// The upper half of an extended sequence number, which is not sent (RFC 4303 §2.2.1). An AEAD
    /// reads it between the SPI and the lower half; a MAC reads it after the ciphertext.
    pub esn_high: Option<u32>,
}

impl PacketKey {
    /// Expands a key on the fast provider, or the portable one for what that lacks. An AEAD takes its
    /// key with the salt behind it (RFC 4106 §8.1, RFC 4309 §7.1, RFC 7634 §2) and an empty
    /// `integrity_key`; AES-CTR, too, has its nonce behind its key (RFC 3686 §5.1).
    pub fn new(
        suite: CipherSuite,
        encryption_key: &[u8],
        integrity_key: &[u8],
    ) -> Result<Self, KeyError> {
        Self::with_provider(Provider::Fast, suite, encryption_key, integrity_key)
    }

    /// Like [`new`](Self::new) on the given provider, of suites that have two.
    pub fn with_provider(
        provider: Provider,
        suite: CipherSuite,
        encryption_key: &[u8],
        integrity_key: &[u8],
    ) -> Result<Self, KeyError> {
        if !is_supported(&suite) {
            return Err(KeyError::Unsupported(suite));
        }
        check_len("encryption", encryption_key, encryption_key_len(&suite))?;
        check_len("integrity", integrity_key, integrity_key_len(&suite))?;
        let cipher = match (suite.encryption, suite.integrity) {
            (encryption, Some(integrity)) => {
                EncryptThenMac::new(encryption, encryption_key, integrity, integrity_key)
                    .map(|key| Cipher::EncryptThenMac(Box::new(key)))
            }
            (EncryptionId::NULL_AES_GMAC, None) => {
                Gmac::new(encryption_key).map(|key| Cipher::Gmac(Box::new(key)))
            }
            (encryption, None) => Cipher::aead(provider, encryption, encryption_key),
        };
        let cipher = cipher.ok_or(KeyError::Unsupported(suite))?;
        Ok(Self { suite, cipher })
    }

    /// The algorithms that this key is for.
    pub fn suite(&self) -> CipherSuite {
        self.suite
    }

    /// Bytes of the initialization vector that each packet carries; 0 if it is implicit (RFC 8750).
    pub fn iv_len(&self) -> usize {
        match &self.cipher {
            Cipher::Aead(cipher) => cipher.iv_len(),
            Cipher::Portable(cipher) => cipher.iv_len(),
            Cipher::Gmac(_) => AEAD_IV_LEN,
            Cipher::EncryptThenMac(cipher) => cipher.iv_len(),
        }
    }

    /// Bytes of the integrity check value that each packet carries.
    pub fn icv_len(&self) -> usize {
        match &self.cipher {
            Cipher::Aead(cipher) => cipher.icv_len(),
            Cipher::Portable(cipher) => cipher.icv_len(),
            Cipher::Gmac(_) => GMAC_ICV_LEN,
            Cipher::EncryptThenMac(cipher) => cipher.icv_len(),
        }
    }

    /// What the length of the text must be a multiple of, before ESP's own alignment to 4.
    pub fn block_len(&self) -> usize {
        match &self.cipher {
            Cipher::Aead(_) | Cipher::Portable(_) | Cipher::Gmac(_) => 1,
            Cipher::EncryptThenMac(cipher) => cipher.block_len(),
        }
    }

    /// Encrypts the text in the middle of `buffer` in place and writes IV and ICV around it.
    ///
    /// `nonce` must never repeat under this key. It is the IV of an AEAD and of AES-CTR, and must be
    /// the sequence number where that IV is implicit; for CBC it is encrypted to an IV that nobody can
    /// predict (SP 800-38A appendix C).
    #[inline]
    pub fn seal(
        &self,
        nonce: u64,
        associated: Associated<'_>,
        buffer: &mut [u8],
    ) -> Result<(), SealError> {
        match &self.cipher {
            Cipher::Aead(cipher) => cipher.seal(nonce, associated, buffer),
            Cipher::Portable(cipher) => cipher.seal(nonce, associated, buffer),
            Cipher::Gmac(cipher) => cipher.seal(nonce, associated, buffer),
            Cipher::EncryptThenMac(cipher) => cipher.seal(nonce, associated, buffer),
        }
    }

    /// Encrypts `parts`, then `tail`, to the middle of `buffer` and writes IV and ICV around it.
    ///
    /// The same bytes as copying the text there and calling [`seal`](Self::seal), but an AEAD reads
    /// a single part where it lies.
    #[inline]
    pub fn seal_from(
        &self,
        nonce: u64,
        associated: Associated<'_>,
        parts: &[&[u8]],
        tail: &[u8],
        buffer: &mut [u8],
    ) -> Result<(), SealError> {
        if let ([head], Cipher::Aead(cipher)) = (parts, &self.cipher) {
            return cipher.seal_from(nonce, associated, head, tail, buffer);
        }
        let text_end = buffer.len().checked_sub(self.icv_len());
        let text = buffer.get_mut(self.iv_len()..text_end.ok_or(SealError::Length)?);
        let text = text.ok_or(SealError::Length)?;
        let (rest, end) = text
            .len()
            .checked_sub(tail.len())
            .and_then(|at| text.split_at_mut_checked(at))
            .ok_or(SealError::Length)?;
        end.copy_from_slice(tail);
        gather(parts, rest).ok_or(SealError::Length)?;
        self.seal(nonce, associated, buffer)
    }

    /// Checks the ICV and decrypts in place; returns the text in the middle of `buffer`.
    ///
    /// After a failure the bytes of `buffer` are unspecified.
    #[inline]
    pub fn open<'a>(
        &self,
        associated: Associated<'_>,
        buffer: &'a mut [u8],
    ) -> Result<&'a mut [u8], AuthenticationFailed> {
        match &self.cipher {
            Cipher::Aead(cipher) => cipher.open(associated, buffer),
            Cipher::Portable(cipher) => cipher.open(associated, buffer),
            Cipher::Gmac(cipher) => cipher.open(associated, buffer),
            Cipher::EncryptThenMac(cipher) => cipher.open(associated, buffer),
        }
    }
}

impl Cipher {
    fn aead(provider: Provider, encryption: EncryptionId, key: &[u8]) -> Option<Self> {
        let fast = match provider {
            Provider::Fast => AeadKey::new(encryption, key).map(Self::Aead),
            Provider::Portable => None,
        };
        fast.or_else(|| AeadKey::new(encryption, key).map(Self::Portable))
    }
}

impl fmt::Debug for PacketKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PacketKey")
            .field("suite", &self.suite)
            .finish_non_exhaustive()
    }
}

/// Whether packets can be sealed with `suite`. An AEAD must be alone and any other cipher have a MAC,
/// also none. Not every suite of ESP is one of IKE: see [`EncryptionId::is_esp_only`].
pub fn is_supported(suite: &CipherSuite) -> bool {
    let key_bits: &[u16] = match suite.encryption {
        EncryptionId::NULL | EncryptionId::TRIPLE_DES => &[0],
        EncryptionId::CHACHA20_POLY1305 | EncryptionId::CHACHA20_POLY1305_IIV => &[0, 256],
        EncryptionId::AES_CBC
        | EncryptionId::AES_CTR
        | EncryptionId::AES_CCM_8
        | EncryptionId::AES_CCM_12
        | EncryptionId::AES_CCM_16
        | EncryptionId::AES_GCM_8
        | EncryptionId::AES_GCM_12
        | EncryptionId::AES_GCM_16
        | EncryptionId::NULL_AES_GMAC
        | EncryptionId::AES_CCM_8_IIV
        | EncryptionId::AES_GCM_16_IIV => &[128, 192, 256],
        _ => &[],
    };
    let mac = if suite.encryption.is_aead() {
        suite.integrity.is_none()
    } else {
        integrity_key_len(suite) != 0
    };
    mac && key_bits.contains(&suite.key_bits)
}

/// Bytes of the encryption key with the salt behind it, if the cipher has one.
pub fn encryption_key_len(suite: &CipherSuite) -> usize {
    let key_len = match suite.encryption {
        EncryptionId::TRIPLE_DES => 24,
        EncryptionId::CHACHA20_POLY1305 | EncryptionId::CHACHA20_POLY1305_IIV => 32,
        _ => usize::from(suite.key_bits / 8),
    };
    key_len + salt_len(suite.encryption)
}

/// Bytes of the integrity key; 0 for an AEAD.
pub fn integrity_key_len(suite: &CipherSuite) -> usize {
    let mac = suite.integrity.and_then(mac::of_integrity);
    mac.map_or(0, |(mac, _)| mac.output_len())
}

/// Bytes of the salt, or of the nonce of AES-CTR.
pub(super) fn salt_len(encryption: EncryptionId) -> usize {
    match encryption {
        EncryptionId::AES_CTR
        | EncryptionId::AES_GCM_8
        | EncryptionId::AES_GCM_12
        | EncryptionId::AES_GCM_16
        | EncryptionId::NULL_AES_GMAC
        | EncryptionId::CHACHA20_POLY1305
        | EncryptionId::AES_GCM_16_IIV
        | EncryptionId::CHACHA20_POLY1305_IIV => 4,
        EncryptionId::AES_CCM_8
        | EncryptionId::AES_CCM_12
        | EncryptionId::AES_CCM_16
        | EncryptionId::AES_CCM_8_IIV => 3,
        _ => 0,
    }
}

/// Why a key could not be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// The suite is not one of [`is_supported`].
    #[error("no implementation of {0:?}")]
    Unsupported(CipherSuite),
    /// The key material does not fit the suite.
    #[error("{what} key has {have} bytes instead of {need}")]
    Length {
        /// Which of the two keys.
        what: &'static str,
        /// Bytes given.
        have: usize,
        /// Bytes that the suite takes.
        need: usize,
    },
}

/// Why a packet could not be sealed: in each case the caller's layout was wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// The buffer cannot hold IV and ICV, the text is not a multiple of the block, or an AEAD got
    /// an extended sequence number without an 8-byte ESP header.
    #[error("buffer or header has the wrong length for the suite")]
    Length,
    /// The nonce of an implicit IV is not the sequence number of the header.
    #[error("an implicit IV must be the sequence number")]
    Nonce,
}

/// The packet was not made by the holder of this key, or was changed, or is cut short.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("integrity check failed")]
pub struct AuthenticationFailed;

/// Copies `parts` one behind the other; `None` unless they fill `text`.
#[inline]
fn gather(parts: &[&[u8]], text: &mut [u8]) -> Option<()> {
    let mut rest = text;
    for part in parts {
        let (here, behind) = rest.split_at_mut_checked(part.len())?;
        here.copy_from_slice(part);
        rest = behind;
    }
    rest.is_empty().then_some(())
}

fn check_len(what: &'static str, key: &[u8], need: usize) -> Result<(), KeyError> {
    if key.len() == need {
        Ok(())
    } else {
        Err(KeyError::Length {
            what,
            have: key.len(),
            need,
        })
    }
}

pub(super) const AEAD_IV_LEN: usize = 8;
pub(super) const GMAC_ICV_LEN: usize = 16;
