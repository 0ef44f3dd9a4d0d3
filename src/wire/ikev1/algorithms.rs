//! Algorithm numbers of IKEv1 and of the IPsec DOI, against those of IKEv2 by which everything else
//! here names algorithms (RFC 2409 appendix A, RFC 2407 §4.4.4, §4.5; IANA "ipsec-registry" and
//! "isakmp-registry"). The groups have the same numbers in both.

use crate::wire::proposal::{EncryptionId, IntegrityId, PrfId};

/// ISAKMP's Encryption Algorithm; `None` where it is none that a suite of ours can have.
pub fn isakmp_encryption(number: u16) -> Option<EncryptionId> {
    find(&ISAKMP_ENCRYPTION, |(known, _)| *known == number).map(|(_, id)| *id)
}

/// The number that ISAKMP has for a cipher.
pub fn isakmp_encryption_number(id: EncryptionId) -> Option<u16> {
    find(&ISAKMP_ENCRYPTION, |(_, known)| *known == id).map(|(number, _)| *number)
}

/// ISAKMP's Hash Algorithm as the function that is HMAC with it, and what IKEv2 would call the
/// integrity algorithm of the same hash.
pub fn hash(number: u16) -> Option<(PrfId, IntegrityId)> {
    let known = find(&HASHES, |(known, ..)| *known == number)?;
    Some((known.1, known.2))
}

/// The number of the hash of such a function.
pub fn hash_number(prf: PrfId) -> Option<u16> {
    find(&HASHES, |(_, known, _)| *known == prf).map(|(number, ..)| *number)
}

/// An ESP transform as a cipher or AEAD.
pub fn esp_transform(id: u8) -> Option<EncryptionId> {
    find(&ESP_TRANSFORMS, |(known, _)| *known == id).map(|(_, id)| *id)
}

/// The ESP transform of a cipher or AEAD. The DOI has none for ChaCha20-Poly1305 and for implicit IVs.
pub fn esp_transform_id(id: EncryptionId) -> Option<u8> {
    find(&ESP_TRANSFORMS, |(_, known)| *known == id).map(|(number, _)| *number)
}

/// The Authentication Algorithm of an SA.
pub fn authentication(number: u16) -> Option<IntegrityId> {
    find(&AUTHENTICATION, |(known, _)| *known == number).map(|(_, id)| *id)
}

/// The number that the DOI has for an integrity algorithm.
pub fn authentication_number(id: IntegrityId) -> Option<u16> {
    find(&AUTHENTICATION, |(_, known)| *known == id).map(|(number, _)| *number)
}

fn find<T>(table: &[T], test: impl Fn(&&T) -> bool) -> Option<&T> {
    table.iter().find(test)
}

const ISAKMP_ENCRYPTION: [(u16, EncryptionId); 2] =
    [(5, EncryptionId::TRIPLE_DES), (7, EncryptionId::AES_CBC)];

#[rustfmt::skip]
const HASHES: [(u16, PrfId, IntegrityId); 5] = [
    (1, PrfId::HMAC_MD5, IntegrityId::HMAC_MD5_96),
    (2, PrfId::HMAC_SHA1, IntegrityId::HMAC_SHA1_96),
    (4, PrfId::HMAC_SHA2_256, IntegrityId::HMAC_SHA2_256_128),
    (5, PrfId::HMAC_SHA2_384, IntegrityId::HMAC_SHA2_384_192),
    (6, PrfId::HMAC_SHA2_512, IntegrityId::HMAC_SHA2_512_256),
];

const ESP_TRANSFORMS: [(u8, EncryptionId); 11] = [
    (3, EncryptionId::TRIPLE_DES),
    (11, EncryptionId::NULL),
    (12, EncryptionId::AES_CBC),
    (13, EncryptionId::AES_CTR),
    (14, EncryptionId::AES_CCM_8),
    (15, EncryptionId::AES_CCM_12),
    (16, EncryptionId::AES_CCM_16),
    (18, EncryptionId::AES_GCM_8),
    (19, EncryptionId::AES_GCM_12),
    (20, EncryptionId::AES_GCM_16),
    (23, EncryptionId::NULL_AES_GMAC),
];

const AUTHENTICATION: [(u16, IntegrityId); 6] = [
    (1, IntegrityId::HMAC_MD5_96),
    (2, IntegrityId::HMAC_SHA1_96),
    (5, IntegrityId::HMAC_SHA2_256_128),
    (6, IntegrityId::HMAC_SHA2_384_192),
    (7, IntegrityId::HMAC_SHA2_512_256),
    (9, IntegrityId::AES_XCBC_96),
];
