//! AES-CBC (RFC 3602) or no encryption (RFC 2410), authenticated by a truncated HMAC
//! (RFC 2404, RFC 4868).

use aes::cipher::{
    Array, BlockCipherEncrypt, BlockModeDecrypt, BlockModeEncrypt, InnerIvInit, KeyInit,
};
use aes::{Aes128, Aes192, Aes256};
use aws_lc_rs::hmac;

use super::constant_time_eq;
use super::packet::{Associated, AuthenticationFailed, SealError};
use crate::wire::proposal::IntegrityId;

pub(super) struct EncryptThenMac {
    cipher: Cipher,
    mac: hmac::Key,
    icv_len: usize,
}

enum Cipher {
    Null,
    Aes128(Aes128),
    Aes192(Aes192),
    Aes256(Aes256),
}

impl EncryptThenMac {
    /// Expands both keys. The length of the encryption key tells the cipher: none is NULL.
    pub(super) fn new(
        encryption_key: &[u8],
        integrity: IntegrityId,
        integrity_key: &[u8],
    ) -> Option<Self> {
        let cipher = match encryption_key.len() {
            0 => Cipher::Null,
            16 => Cipher::Aes128(Aes128::new_from_slice(encryption_key).ok()?),
            24 => Cipher::Aes192(Aes192::new_from_slice(encryption_key).ok()?),
            32 => Cipher::Aes256(Aes256::new_from_slice(encryption_key).ok()?),
            _ => return None,
        };
        let (algorithm, icv_len) = match integrity {
            IntegrityId::HMAC_SHA1_96 => (hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, 12),
            IntegrityId::HMAC_SHA2_256_128 => (hmac::HMAC_SHA256, 16),
            IntegrityId::HMAC_SHA2_384_192 => (hmac::HMAC_SHA384, 24),
            IntegrityId::HMAC_SHA2_512_256 => (hmac::HMAC_SHA512, 32),
            _ => return None,
        };
        Some(Self {
            cipher,
            mac: hmac::Key::new(algorithm, integrity_key),
            icv_len,
        })
    }

    pub(super) fn iv_len(&self) -> usize {
        match self.cipher {
            Cipher::Null => 0,
            _ => BLOCK_LEN,
        }
    }

    pub(super) fn icv_len(&self) -> usize {
        self.icv_len
    }

    pub(super) fn block_len(&self) -> usize {
        match self.cipher {
            Cipher::Null => 1,
            _ => BLOCK_LEN,
        }
    }

    pub(super) fn seal(
        &self,
        nonce: u64,
        associated: Associated<'_>,
        buffer: &mut [u8],
    ) -> Result<(), SealError> {
        let (sealed, icv) = self.split_icv(buffer).ok_or(SealError::Length)?;
        match &self.cipher {
            Cipher::Null => {}
            Cipher::Aes128(aes) => encrypt(aes, nonce, sealed)?,
            Cipher::Aes192(aes) => encrypt(aes, nonce, sealed)?,
            Cipher::Aes256(aes) => encrypt(aes, nonce, sealed)?,
        }
        let tag = self.tag(associated, sealed);
        let tag = tag.as_ref().get(..self.icv_len).ok_or(SealError::Length)?;
        icv.copy_from_slice(tag);
        Ok(())
    }

    pub(super) fn open<'a>(
        &self,
        associated: Associated<'_>,
        buffer: &'a mut [u8],
    ) -> Result<&'a mut [u8], AuthenticationFailed> {
        let (sealed, icv) = self.split_icv(buffer).ok_or(AuthenticationFailed)?;
        let tag = self.tag(associated, sealed);
        let tag = tag
            .as_ref()
            .get(..self.icv_len)
            .ok_or(AuthenticationFailed)?;
        if !constant_time_eq(tag, icv) {
            return Err(AuthenticationFailed);
        }
        match &self.cipher {
            Cipher::Null => Ok(sealed),
            Cipher::Aes128(aes) => decrypt(aes, sealed),
            Cipher::Aes192(aes) => decrypt(aes, sealed),
            Cipher::Aes256(aes) => decrypt(aes, sealed),
        }
    }

    /// Cuts off the ICV, which covers everything before it.
    fn split_icv<'a>(&self, buffer: &'a mut [u8]) -> Option<(&'a mut [u8], &'a mut [u8])> {
        let at = buffer.len().checked_sub(self.icv_len)?;
        buffer.split_at_mut_checked(at)
    }

    /// The whole MAC over header, IV, ciphertext and the unsent sequence number half (RFC 4303
    /// §2.8 and §2.2.1).
    fn tag(&self, associated: Associated<'_>, sealed: &[u8]) -> hmac::Tag {
        let mut context = hmac::Context::with_key(&self.mac);
        context.update(associated.header);
        context.update(sealed);
        if let Some(high) = associated.esn_high {
            context.update(&high.to_be_bytes());
        }
        context.sign()
    }
}

fn encrypt<C>(aes: &C, nonce: u64, sealed: &mut [u8]) -> Result<(), SealError>
where
    C: BlockCipherEncrypt<BlockSize = aes::cipher::consts::U16>,
{
    let (iv, text) = sealed
        .split_first_chunk_mut::<BLOCK_LEN>()
        .ok_or(SealError::Length)?;
    let (blocks, partial) = Array::slice_as_chunks_mut(text);
    if !partial.is_empty() {
        return Err(SealError::Length);
    }
    *iv = u128::from(nonce).to_be_bytes();
    aes.encrypt_block(iv.into());
    cbc::Encryptor::inner_iv_init(aes, (&*iv).into()).encrypt_blocks(blocks);
    Ok(())
}

fn decrypt<'a, C>(aes: &C, sealed: &'a mut [u8]) -> Result<&'a mut [u8], AuthenticationFailed>
where
    C: aes::cipher::BlockCipherDecrypt<BlockSize = aes::cipher::consts::U16>,
{
    let (iv, text) = sealed
        .split_first_chunk_mut::<BLOCK_LEN>()
        .ok_or(AuthenticationFailed)?;
    let (blocks, partial) = Array::slice_as_chunks_mut(text);
    if !partial.is_empty() {
        return Err(AuthenticationFailed);
    }
    cbc::Decryptor::inner_iv_init(aes, (&*iv).into()).decrypt_blocks(blocks);
    Ok(text)
}

const BLOCK_LEN: usize = 16;
