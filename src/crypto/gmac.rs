//! ENCR_NULL_AUTH_AES_GMAC (RFC 4543): GMAC over the whole ESP packet, nothing encrypted.

use ghash::GHash;
use ghash::universal_hash::UniversalHash;

use super::aead::Salt;
use super::cipher::{Aes, first_counter};
use super::constant_time_eq;
use super::packet::{AEAD_IV_LEN, Associated, AuthenticationFailed, GMAC_ICV_LEN, SealError};

/// One direction of an SA.
pub(super) struct Gmac {
    aes: Aes,
    hash: GHash,
    salt: Salt,
}

impl Gmac {
    /// Splits `key_and_salt` and expands the key.
    pub(super) fn new(key_and_salt: &[u8]) -> Option<Self> {
        let (key, &salt) = key_and_salt.split_last_chunk()?;
        let aes = Aes::new(key)?;
        let mut subkey = zeroize::Zeroizing::new([0; 16]);
        aes.encrypt_block(&mut subkey);
        let hash = GHash::new((&*subkey).into());
        Some(Self { aes, hash, salt })
    }

    pub(super) fn seal(
        &self,
        nonce: u64,
        associated: Associated<'_>,
        buffer: &mut [u8],
    ) -> Result<(), SealError> {
        let (covered, icv) = buffer.split_last_chunk_mut().ok_or(SealError::Length)?;
        let iv = covered.first_chunk_mut().ok_or(SealError::Length)?;
        *iv = nonce.to_be_bytes();
        *icv = self.tag(associated, covered).ok_or(SealError::Length)?;
        Ok(())
    }

    pub(super) fn open<'a>(
        &self,
        associated: Associated<'_>,
        buffer: &'a mut [u8],
    ) -> Result<&'a mut [u8], AuthenticationFailed> {
        let (covered, icv) = buffer
            .split_last_chunk_mut::<GMAC_ICV_LEN>()
            .ok_or(AuthenticationFailed)?;
        let tag = self.tag(associated, covered).ok_or(AuthenticationFailed)?;
        if !constant_time_eq(&tag, icv) {
            return Err(AuthenticationFailed);
        }
        covered.get_mut(AEAD_IV_LEN..).ok_or(AuthenticationFailed)
    }

    /// GMAC (SP 800-38D §6.4, §7.1) over header, extended sequence number, IV and text (RFC 4543
    /// §3.3). The header, with an extended sequence number or without, and the first bytes of the
    /// covered ones fill a block, so all others are hashed where they lie.
    fn tag(&self, associated: Associated<'_>, covered: &[u8]) -> Option<[u8; GMAC_ICV_LEN]> {
        let iv = u64::from_be_bytes(*covered.first_chunk()?);
        let mut extended = [0; 12];
        let header = associated.aad(&mut extended)?;
        let (near, rest) = covered.split_at_checked(16_usize.checked_sub(header.len())?)?;

        let mut first = [0; 16];
        let (front, behind) = first.split_at_mut_checked(header.len())?;
        front.copy_from_slice(header);
        behind.copy_from_slice(near);
        let bits = u128::try_from((first.len() + rest.len()) * 8).ok()?;
        let lengths = (bits << 64).to_be_bytes();

        let mut hash = self.hash.clone();
        hash.update(&[first.into()]);
        hash.update_padded(rest);
        hash.update(&[lengths.into()]);
        let hash = u128::from_be_bytes(hash.finalize().into());

        let mut mask = first_counter(self.salt, iv);
        self.aes.encrypt_block(&mut mask);
        Some((hash ^ u128::from_be_bytes(mask)).to_be_bytes())
    }
}

impl Drop for Gmac {
    fn drop(&mut self) {
        zeroize::Zeroize::zeroize(&mut self.salt);
    }
}
