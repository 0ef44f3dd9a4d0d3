//! A cipher and a MAC over what it gives (RFC 4303 §3.2, RFC 7296 §3.14).

use super::cipher::Cipher;
use super::constant_time_eq;
use super::mac::{self, MacKey};
use super::packet::{Associated, AuthenticationFailed, SealError};
use crate::wire::proposal::{EncryptionId, IntegrityId};

pub(super) struct EncryptThenMac {
    cipher: Cipher,
    mac: MacKey,
    icv_len: usize,
}

impl EncryptThenMac {
    /// Expands both keys.
    pub(super) fn new(
        encryption: EncryptionId,
        encryption_key: &[u8],
        integrity: IntegrityId,
        integrity_key: &[u8],
    ) -> Option<Self> {
        let (mac, icv_len) = mac::of_integrity(integrity)?;
        Some(Self {
            cipher: Cipher::new(encryption, encryption_key)?,
            mac: mac.key(integrity_key)?,
            icv_len,
        })
    }

    pub(super) fn iv_len(&self) -> usize {
        self.cipher.iv_len()
    }

    pub(super) fn icv_len(&self) -> usize {
        self.icv_len
    }

    pub(super) fn block_len(&self) -> usize {
        self.cipher.block_len()
    }

    pub(super) fn seal(
        &self,
        nonce: u64,
        associated: Associated<'_>,
        buffer: &mut [u8],
    ) -> Result<(), SealError> {
        let (sealed, icv) = self.split_icv(buffer).ok_or(SealError::Length)?;
        self.cipher
            .encrypt(nonce, sealed)
            .ok_or(SealError::Length)?;
        self.sign(associated, sealed, icv);
        Ok(())
    }

    pub(super) fn open<'a>(
        &self,
        associated: Associated<'_>,
        buffer: &'a mut [u8],
    ) -> Result<&'a mut [u8], AuthenticationFailed> {
        let (sealed, icv) = self.split_icv(buffer).ok_or(AuthenticationFailed)?;
        let mut expected = [0; MAX_ICV_LEN];
        let expected = expected.get_mut(..self.icv_len);
        let expected = expected.ok_or(AuthenticationFailed)?;
        self.sign(associated, sealed, expected);
        if !constant_time_eq(expected, icv) {
            return Err(AuthenticationFailed);
        }
        self.cipher.decrypt(sealed).ok_or(AuthenticationFailed)
    }

    /// Cuts off the ICV, which covers everything before it.
    fn split_icv<'a>(&self, buffer: &'a mut [u8]) -> Option<(&'a mut [u8], &'a mut [u8])> {
        let at = buffer.len().checked_sub(self.icv_len)?;
        buffer.split_at_mut_checked(at)
    }

    /// The MAC over header, IV, ciphertext and the unsent sequence number half (RFC 4303 §2.8 and
    /// §2.2.1), as long as `icv`.
    fn sign(&self, associated: Associated<'_>, sealed: &[u8], icv: &mut [u8]) {
        let high = associated.esn_high.map(u32::to_be_bytes);
        let high = high.as_ref().map_or(&[][..], |high| high);
        self.mac.sign(&[associated.header, sealed, high], icv);
    }
}

/// Of HMAC-SHA2-512-256.
const MAX_ICV_LEN: usize = 32;
