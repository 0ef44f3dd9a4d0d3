//! Encryption of IKEv1 messages: CBC whose IV goes from message to message (RFC 2409 appendix B).

use aes::cipher::{
    Array, BlockCipherDecrypt, BlockCipherEncrypt, BlockModeDecrypt, BlockModeEncrypt, InnerIvInit,
    KeyInit,
};
use des::TdesEde3;

use super::cipher::Aes;
use super::digest::hash;
use super::packet::encryption_key_len;
use super::secret::Secret;
use super::skeyid::IsakmpKeys;
use crate::wire::proposal::{CipherSuite, EncryptionId, PrfId};

/// The cipher of an ISAKMP SA, with its key.
pub struct IsakmpCipher(Cbc);

enum Cbc {
    Aes(Box<Aes>),
    TripleDes(Box<TdesEde3>),
}

/// The IV of an exchange: at first derived, then the last block of the message before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Iv(Vec<u8>);

impl IsakmpCipher {
    /// The cipher of `suite` under a key of `keys`; `None` if it is none that IKEv1 has.
    pub fn new(suite: &CipherSuite, keys: &IsakmpKeys) -> Option<Self> {
        let key = keys.encryption_key(encryption_key_len(suite));
        Self::with_key(suite.encryption, &key)
    }

    fn with_key(encryption: EncryptionId, key: &Secret) -> Option<Self> {
        let key = key.as_bytes();
        Some(Self(match encryption {
            EncryptionId::AES_CBC => Cbc::Aes(Box::new(Aes::new(key)?)),
            EncryptionId::TRIPLE_DES => {
                Cbc::TripleDes(Box::new(TdesEde3::new_from_slice(key).ok()?))
            }
            _ => return None,
        }))
    }

    /// What the length of a message behind its header is a multiple of, and the length of an IV.
    pub fn block_len(&self) -> usize {
        match self.0 {
            Cbc::Aes(_) => 16,
            Cbc::TripleDes(_) => 8,
        }
    }

    /// The first IV of phase 1, from both public values.
    pub fn phase_one_iv(&self, prf: PrfId, g_xi: &[u8], g_xr: &[u8]) -> Option<Iv> {
        self.cut(hash(prf, &[g_xi, g_xr])?)
    }

    /// The first IV of another exchange, from the last block of phase 1 and the message id.
    pub fn phase_two_iv(&self, prf: PrfId, last: &Iv, message_id: u32) -> Option<Iv> {
        self.cut(hash(prf, &[&last.0, &message_id.to_be_bytes()])?)
    }

    fn cut(&self, mut hash: Vec<u8>) -> Option<Iv> {
        hash.truncate(self.block_len());
        (hash.len() == self.block_len()).then_some(Iv(hash))
    }

    /// Encrypts whole blocks in place and returns the IV of the next message; `None` if the text is
    /// empty or ends within a block.
    pub fn encrypt(&self, iv: &Iv, text: &mut [u8]) -> Option<Iv> {
        match &self.0 {
            Cbc::Aes(aes) => match aes.as_ref() {
                Aes::Aes128(aes) => cbc_encrypt(aes, iv, text),
                Aes::Aes192(aes) => cbc_encrypt(aes, iv, text),
                Aes::Aes256(aes) => cbc_encrypt(aes, iv, text),
            },
            Cbc::TripleDes(des) => cbc_encrypt(des.as_ref(), iv, text),
        }
    }

    /// Decrypts whole blocks in place and returns the IV of the next message, under the same
    /// conditions.
    pub fn decrypt(&self, iv: &Iv, text: &mut [u8]) -> Option<Iv> {
        match &self.0 {
            Cbc::Aes(aes) => match aes.as_ref() {
                Aes::Aes128(aes) => cbc_decrypt(aes, iv, text),
                Aes::Aes192(aes) => cbc_decrypt(aes, iv, text),
                Aes::Aes256(aes) => cbc_decrypt(aes, iv, text),
            },
            Cbc::TripleDes(des) => cbc_decrypt(des.as_ref(), iv, text),
        }
    }
}

fn cbc_encrypt<C: BlockCipherEncrypt>(cipher: &C, iv: &Iv, text: &mut [u8]) -> Option<Iv> {
    let iv = iv.0.as_slice().try_into().ok()?;
    let (blocks, partial) = Array::slice_as_chunks_mut(text);
    if !partial.is_empty() {
        return None;
    }
    cbc::Encryptor::inner_iv_init(cipher, iv).encrypt_blocks(blocks);
    Some(Iv(blocks.last()?.to_vec()))
}

fn cbc_decrypt<C: BlockCipherDecrypt>(cipher: &C, iv: &Iv, text: &mut [u8]) -> Option<Iv> {
    let iv = iv.0.as_slice().try_into().ok()?;
    let (blocks, partial) = Array::slice_as_chunks_mut(text);
    if !partial.is_empty() {
        return None;
    }
    let next = Iv(blocks.last()?.to_vec());
    cbc::Decryptor::inner_iv_init(cipher, iv).decrypt_blocks(blocks);
    Some(next)
}
