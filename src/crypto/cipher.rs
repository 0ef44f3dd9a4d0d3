//! Ciphers that need a MAC beside them: AES-CBC (RFC 3602), AES-CTR (RFC 3686), 3DES (RFC 2451) or
//! none (RFC 2410).

use aes::cipher::{
    Array, Block, BlockCipherDecrypt, BlockCipherEncrypt, BlockModeDecrypt, BlockModeEncrypt,
    BlockSizeUser, InnerIvInit, KeyInit, StreamCipherCore, consts::U16,
};
use aes::{Aes128, Aes192, Aes256};
use ctr::{CtrCore, flavors::Ctr32BE};
use des::TdesEde3;

use crate::wire::proposal::EncryptionId;

/// One direction of an SA. What it encrypts starts with the IV.
pub(super) enum Cipher {
    Null,
    AesCbc(Aes),
    AesCtr(Aes, CtrNonce),
    TripleDesCbc(TdesEde3),
}

/// AES under an expanded key of one of its sizes.
pub(super) enum Aes {
    Aes128(Aes128),
    Aes192(Aes192),
    Aes256(Aes256),
}

/// The unsent first bytes of the counter block, from the key material (RFC 3686 §5.1).
pub(super) type CtrNonce = [u8; 4];

impl Cipher {
    /// `None` if `encryption` is no such cipher or has no key of that length.
    pub(super) fn new(encryption: EncryptionId, key: &[u8]) -> Option<Self> {
        match encryption {
            EncryptionId::NULL => key.is_empty().then_some(Self::Null),
            EncryptionId::AES_CBC => Aes::new(key).map(Self::AesCbc),
            EncryptionId::AES_CTR => {
                let (key, nonce) = key.split_last_chunk()?;
                Some(Self::AesCtr(Aes::new(key)?, *nonce))
            }
            EncryptionId::TRIPLE_DES => {
                let des = TdesEde3::new_from_slice(key).ok()?;
                Some(Self::TripleDesCbc(des))
            }
            _ => None,
        }
    }

    pub(super) fn iv_len(&self) -> usize {
        match self {
            Self::Null => 0,
            Self::AesCbc(_) => 16,
            Self::AesCtr(..) | Self::TripleDesCbc(_) => 8,
        }
    }

    /// What the length of the text must be a multiple of.
    pub(super) fn block_len(&self) -> usize {
        match self {
            Self::Null | Self::AesCtr(..) => 1,
            Self::AesCbc(_) => 16,
            Self::TripleDesCbc(_) => 8,
        }
    }

    /// Writes an IV for `nonce`, which must not repeat, and encrypts what follows it. `None` if the
    /// text is not a multiple of the block.
    pub(super) fn encrypt(&self, nonce: u64, sealed: &mut [u8]) -> Option<()> {
        match self {
            Self::Null => Some(()),
            Self::AesCbc(Aes::Aes128(aes)) => cbc_encrypt(aes, nonce, sealed),
            Self::AesCbc(Aes::Aes192(aes)) => cbc_encrypt(aes, nonce, sealed),
            Self::AesCbc(Aes::Aes256(aes)) => cbc_encrypt(aes, nonce, sealed),
            Self::AesCtr(aes, unsent) => {
                let (iv, text) = sealed.split_first_chunk_mut()?;
                *iv = nonce.to_be_bytes();
                ctr(aes, *unsent, nonce, text)
            }
            Self::TripleDesCbc(des) => cbc_encrypt(des, nonce, sealed),
        }
    }

    /// Decrypts and returns what follows the IV. `None` if it is not a multiple of the block.
    pub(super) fn decrypt<'a>(&self, sealed: &'a mut [u8]) -> Option<&'a mut [u8]> {
        match self {
            Self::Null => Some(sealed),
            Self::AesCbc(Aes::Aes128(aes)) => cbc_decrypt(aes, sealed),
            Self::AesCbc(Aes::Aes192(aes)) => cbc_decrypt(aes, sealed),
            Self::AesCbc(Aes::Aes256(aes)) => cbc_decrypt(aes, sealed),
            Self::AesCtr(aes, unsent) => {
                let (iv, text) = sealed.split_first_chunk_mut()?;
                ctr(aes, *unsent, u64::from_be_bytes(*iv), text)?;
                Some(text)
            }
            Self::TripleDesCbc(des) => cbc_decrypt(des, sealed),
        }
    }
}

impl Aes {
    /// The length of the key tells the size.
    pub(super) fn new(key: &[u8]) -> Option<Self> {
        Some(match key.len() {
            16 => Self::Aes128(Aes128::new_from_slice(key).ok()?),
            24 => Self::Aes192(Aes192::new_from_slice(key).ok()?),
            32 => Self::Aes256(Aes256::new_from_slice(key).ok()?),
            _ => return None,
        })
    }

    pub(super) fn encrypt_block(&self, block: &mut [u8; 16]) {
        match self {
            Self::Aes128(aes) => aes.encrypt_block(block.into()),
            Self::Aes192(aes) => aes.encrypt_block(block.into()),
            Self::Aes256(aes) => aes.encrypt_block(block.into()),
        }
    }
}

/// The IV is the encrypted nonce, which nobody can predict (SP 800-38A appendix C).
fn cbc_encrypt<C: BlockCipherEncrypt>(cipher: &C, nonce: u64, sealed: &mut [u8]) -> Option<()> {
    let (iv, text) = split_block::<C>(sealed)?;
    let (blocks, partial) = Array::slice_as_chunks_mut(text);
    if !partial.is_empty() {
        return None;
    }
    let (zeros, low) = iv.split_last_chunk_mut()?;
    zeros.fill(0);
    *low = nonce.to_be_bytes();
    cipher.encrypt_block(iv);
    cbc::Encryptor::inner_iv_init(cipher, iv).encrypt_blocks(blocks);
    Some(())
}

fn cbc_decrypt<'a, C: BlockCipherDecrypt>(
    cipher: &C,
    sealed: &'a mut [u8],
) -> Option<&'a mut [u8]> {
    let (iv, text) = split_block::<C>(sealed)?;
    let (blocks, partial) = Array::slice_as_chunks_mut(text);
    if !partial.is_empty() {
        return None;
    }
    cbc::Decryptor::inner_iv_init(cipher, iv).decrypt_blocks(blocks);
    Some(text)
}

fn split_block<C: BlockSizeUser>(sealed: &mut [u8]) -> Option<(&mut Block<C>, &mut [u8])> {
    let (iv, text) = sealed.split_at_mut_checked(C::block_size())?;
    Some((iv.try_into().ok()?, text))
}

/// Encrypts or decrypts.
fn ctr(aes: &Aes, unsent: CtrNonce, iv: u64, text: &mut [u8]) -> Option<()> {
    let counter = first_counter(unsent, iv);
    match aes {
        Aes::Aes128(aes) => keystream(aes, &counter, text),
        Aes::Aes192(aes) => keystream(aes, &counter, text),
        Aes::Aes256(aes) => keystream(aes, &counter, text),
    }
}

/// The first counter block of a packet, of AES-CTR (RFC 3686 §4) and of GCM (SP 800-38D §7.1).
pub(super) fn first_counter(unsent: CtrNonce, iv: u64) -> [u8; 16] {
    let unsent = u128::from(u32::from_be_bytes(unsent));
    (unsent << 96 | u128::from(iv) << 32 | 1).to_be_bytes()
}

fn keystream<C>(aes: &C, counter: &[u8; 16], text: &mut [u8]) -> Option<()>
where
    C: BlockCipherEncrypt<BlockSize = U16>,
{
    CtrCore::<&C, Ctr32BE>::inner_iv_init(aes, counter.into())
        .try_apply_keystream_partial(text.into())
        .ok()
}
