//! The keywords of transforms, as strongSwan spells them. It has none for implicit IVs, whose keywords
//! are those of the explicit ones with `iiv` behind.

use super::proposal::{EncryptionId, IntegrityId, KeyExchangeId, PrfId, Transform};

/// One spelling per algorithm: what errors suggest and proposals are written with.
pub(super) const KEYWORDS: &[(&str, Transform)] = &[
    ("aes256gcm16", aes(EncryptionId::AES_GCM_16, 256)),
    ("aes192gcm16", aes(EncryptionId::AES_GCM_16, 192)),
    ("aes128gcm16", aes(EncryptionId::AES_GCM_16, 128)),
    ("chacha20poly1305", plain(EncryptionId::CHACHA20_POLY1305)),
    ("aes256", aes(EncryptionId::AES_CBC, 256)),
    ("aes192", aes(EncryptionId::AES_CBC, 192)),
    ("aes128", aes(EncryptionId::AES_CBC, 128)),
    ("aes256ctr", aes(EncryptionId::AES_CTR, 256)),
    ("aes192ctr", aes(EncryptionId::AES_CTR, 192)),
    ("aes128ctr", aes(EncryptionId::AES_CTR, 128)),
    ("aes256ccm16", aes(EncryptionId::AES_CCM_16, 256)),
    ("aes192ccm16", aes(EncryptionId::AES_CCM_16, 192)),
    ("aes128ccm16", aes(EncryptionId::AES_CCM_16, 128)),
    ("aes256gcm12", aes(EncryptionId::AES_GCM_12, 256)),
    ("aes192gcm12", aes(EncryptionId::AES_GCM_12, 192)),
    ("aes128gcm12", aes(EncryptionId::AES_GCM_12, 128)),
    ("aes256ccm12", aes(EncryptionId::AES_CCM_12, 256)),
    ("aes192ccm12", aes(EncryptionId::AES_CCM_12, 192)),
    ("aes128ccm12", aes(EncryptionId::AES_CCM_12, 128)),
    ("aes256gcm8", aes(EncryptionId::AES_GCM_8, 256)),
    ("aes192gcm8", aes(EncryptionId::AES_GCM_8, 192)),
    ("aes128gcm8", aes(EncryptionId::AES_GCM_8, 128)),
    ("aes256ccm8", aes(EncryptionId::AES_CCM_8, 256)),
    ("aes192ccm8", aes(EncryptionId::AES_CCM_8, 192)),
    ("aes128ccm8", aes(EncryptionId::AES_CCM_8, 128)),
    ("3des", plain(EncryptionId::TRIPLE_DES)),
    ("aes256gmac", aes(EncryptionId::NULL_AES_GMAC, 256)),
    ("aes192gmac", aes(EncryptionId::NULL_AES_GMAC, 192)),
    ("aes128gmac", aes(EncryptionId::NULL_AES_GMAC, 128)),
    ("null", plain(EncryptionId::NULL)),
    ("aes256gcm16iiv", aes(EncryptionId::AES_GCM_16_IIV, 256)),
    ("aes192gcm16iiv", aes(EncryptionId::AES_GCM_16_IIV, 192)),
    ("aes128gcm16iiv", aes(EncryptionId::AES_GCM_16_IIV, 128)),
    ("aes256ccm8iiv", aes(EncryptionId::AES_CCM_8_IIV, 256)),
    ("aes192ccm8iiv", aes(EncryptionId::AES_CCM_8_IIV, 192)),
    ("aes128ccm8iiv", aes(EncryptionId::AES_CCM_8_IIV, 128)),
    (
        "chacha20poly1305iiv",
        plain(EncryptionId::CHACHA20_POLY1305_IIV),
    ),
    ("sha512", integrity(IntegrityId::HMAC_SHA2_512_256)),
    ("sha384", integrity(IntegrityId::HMAC_SHA2_384_192)),
    ("sha256", integrity(IntegrityId::HMAC_SHA2_256_128)),
    ("sha1", integrity(IntegrityId::HMAC_SHA1_96)),
    ("aescmac", integrity(IntegrityId::AES_CMAC_96)),
    ("aesxcbc", integrity(IntegrityId::AES_XCBC_96)),
    ("md5", integrity(IntegrityId::HMAC_MD5_96)),
    ("prfsha512", prf(PrfId::HMAC_SHA2_512)),
    ("prfsha384", prf(PrfId::HMAC_SHA2_384)),
    ("prfsha256", prf(PrfId::HMAC_SHA2_256)),
    ("prfsha1", prf(PrfId::HMAC_SHA1)),
    ("prfaescmac", prf(PrfId::AES128_CMAC)),
    ("prfaesxcbc", prf(PrfId::AES128_XCBC)),
    ("prfmd5", prf(PrfId::HMAC_MD5)),
    ("x25519", group(KeyExchangeId::X25519)),
    ("ecp256", group(KeyExchangeId::ECP256)),
    ("ecp384", group(KeyExchangeId::ECP384)),
    ("ecp521", group(KeyExchangeId::ECP521)),
    ("ecp256bp", group(KeyExchangeId::ECP256_BP)),
    ("ecp384bp", group(KeyExchangeId::ECP384_BP)),
    ("modp2048", group(KeyExchangeId::MODP2048)),
    ("modp3072", group(KeyExchangeId::MODP3072)),
    ("modp4096", group(KeyExchangeId::MODP4096)),
    ("modp6144", group(KeyExchangeId::MODP6144)),
    ("modp8192", group(KeyExchangeId::MODP8192)),
    ("modp1536", group(KeyExchangeId::MODP1536)),
    ("modp1024", group(KeyExchangeId::MODP1024)),
    ("mlkem512", group(KeyExchangeId::ML_KEM_512)),
    ("mlkem768", group(KeyExchangeId::ML_KEM_768)),
    ("mlkem1024", group(KeyExchangeId::ML_KEM_1024)),
    ("esn", esn(true)),
    ("noesn", esn(false)),
];

/// Other spellings that are read.
pub(super) const ALIASES: &[(&str, Transform)] = &[
    ("aes", aes(EncryptionId::AES_CBC, 128)),
    ("aes128cbc", aes(EncryptionId::AES_CBC, 128)),
    ("aes192cbc", aes(EncryptionId::AES_CBC, 192)),
    ("aes256cbc", aes(EncryptionId::AES_CBC, 256)),
    ("aes128gcm", aes(EncryptionId::AES_GCM_16, 128)),
    ("aes128gcm128", aes(EncryptionId::AES_GCM_16, 128)),
    ("aes128gcm96", aes(EncryptionId::AES_GCM_12, 128)),
    ("aes128gcm64", aes(EncryptionId::AES_GCM_8, 128)),
    ("aes192gcm", aes(EncryptionId::AES_GCM_16, 192)),
    ("aes192gcm128", aes(EncryptionId::AES_GCM_16, 192)),
    ("aes192gcm96", aes(EncryptionId::AES_GCM_12, 192)),
    ("aes192gcm64", aes(EncryptionId::AES_GCM_8, 192)),
    ("aes256gcm", aes(EncryptionId::AES_GCM_16, 256)),
    ("aes256gcm128", aes(EncryptionId::AES_GCM_16, 256)),
    ("aes256gcm96", aes(EncryptionId::AES_GCM_12, 256)),
    ("aes256gcm64", aes(EncryptionId::AES_GCM_8, 256)),
    ("aes128ccm", aes(EncryptionId::AES_CCM_16, 128)),
    ("aes128ccm128", aes(EncryptionId::AES_CCM_16, 128)),
    ("aes128ccm96", aes(EncryptionId::AES_CCM_12, 128)),
    ("aes128ccm64", aes(EncryptionId::AES_CCM_8, 128)),
    ("aes192ccm", aes(EncryptionId::AES_CCM_16, 192)),
    ("aes192ccm128", aes(EncryptionId::AES_CCM_16, 192)),
    ("aes192ccm96", aes(EncryptionId::AES_CCM_12, 192)),
    ("aes192ccm64", aes(EncryptionId::AES_CCM_8, 192)),
    ("aes256ccm", aes(EncryptionId::AES_CCM_16, 256)),
    ("aes256ccm128", aes(EncryptionId::AES_CCM_16, 256)),
    ("aes256ccm96", aes(EncryptionId::AES_CCM_12, 256)),
    ("aes256ccm64", aes(EncryptionId::AES_CCM_8, 256)),
    ("sha", integrity(IntegrityId::HMAC_SHA1_96)),
    ("sha2_256", integrity(IntegrityId::HMAC_SHA2_256_128)),
    ("sha2_384", integrity(IntegrityId::HMAC_SHA2_384_192)),
    ("sha2_512", integrity(IntegrityId::HMAC_SHA2_512_256)),
    ("curve25519", group(KeyExchangeId::X25519)),
];

pub(super) const fn aes(id: EncryptionId, bits: u16) -> Transform {
    Transform::Encryption {
        id,
        key_bits: Some(bits),
    }
}

/// A cipher that is proposed without the length of its key.
pub(super) const fn plain(id: EncryptionId) -> Transform {
    Transform::Encryption { id, key_bits: None }
}

pub(super) const fn integrity(id: IntegrityId) -> Transform {
    Transform::Integrity(id)
}

pub(super) const fn prf(id: PrfId) -> Transform {
    Transform::Prf(id)
}

pub(super) const fn group(id: KeyExchangeId) -> Transform {
    Transform::KeyExchange(id)
}

pub(super) const fn esn(extended: bool) -> Transform {
    Transform::SequenceNumbers { extended }
}
