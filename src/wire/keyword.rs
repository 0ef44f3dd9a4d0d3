//! strongSwan's spelling of proposals: `aes256gcm16-prfsha384-x25519`. It has none for implicit IVs,
//! whose keywords are those of the explicit ones with `iiv` behind.

use super::proposal::{
    AdditionalExchanges, CipherSuite, EncryptionId, EspSuite, IkeSuite, IntegrityId, KeyExchangeId,
    PrfId, ProtocolId, SaProposal, Transform,
};

/// A proposal text that is not understood or not consistent.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeywordError {
    /// Not one of ours.
    #[error("unknown algorithm {keyword:?}; did you mean {nearest}? allowed: {allowed}")]
    Unknown {
        /// What was written.
        keyword: String,
        /// The keyword that differs least.
        nearest: &'static str,
        /// Every keyword of the protocol, comma separated.
        allowed: String,
    },
    /// Known keywords that cannot stand together.
    #[error("proposal {text:?}: {reason}")]
    Inconsistent {
        /// The whole proposal.
        text: String,
        /// What is wrong with it.
        reason: &'static str,
    },
}

/// Parses one proposal.
///
/// An IKE proposal without a PRF keyword derives it from the integrity algorithms, also where an
/// AEAD makes these pointless otherwise. An ESP proposal gets sequence-number transforms only from
/// `esn` and `noesn`; without either the caller decides. The SPI is left empty.
pub fn parse_proposal(protocol: ProtocolId, text: &str) -> Result<SaProposal, KeywordError> {
    let mut transforms = Vec::new();
    for keyword in text.split('-') {
        let transform = find(protocol, keyword.trim())?;
        if !transforms.contains(&transform) {
            transforms.push(transform);
        }
    }
    complete(protocol, transforms)
        .map(|transforms| SaProposal {
            protocol,
            spi: Vec::new(),
            transforms,
        })
        .map_err(|reason| KeywordError::Inconsistent {
            text: text.to_owned(),
            reason,
        })
}

fn find(protocol: ProtocolId, keyword: &str) -> Result<Transform, KeywordError> {
    let allowed = || {
        KEYWORDS
            .iter()
            .filter(|(_, transform)| is_for(protocol, transform))
    };
    let known = allowed().chain(&ALIASES).find(|(name, transform)| {
        name.eq_ignore_ascii_case(keyword) && is_for(protocol, transform)
    });
    if let Some((_, transform)) = known {
        return Ok(*transform);
    }
    if let Some(transform) = find_additional(keyword) {
        return Ok(transform);
    }
    let lower = keyword.to_ascii_lowercase();
    let nearest = allowed()
        .map(|(name, _)| *name)
        .min_by_key(|name| strsim::damerau_levenshtein(&lower, name))
        .unwrap_or_default();
    let allowed = allowed()
        .map(|(name, _)| *name)
        .collect::<Vec<_>>()
        .join(", ");
    let allowed = format!("{allowed}, and key exchanges or none behind ke1_ to ke7_");
    Err(KeywordError::Unknown {
        keyword: keyword.to_owned(),
        nearest,
        allowed,
    })
}

/// `ke1_mlkem768` to `ke7_none`: an additional key exchange (RFC 9370).
fn find_additional(keyword: &str) -> Option<Transform> {
    let lower = keyword.to_ascii_lowercase();
    let (number, name) = lower.strip_prefix("ke")?.split_once('_')?;
    let number = number
        .parse()
        .ok()
        .filter(|number| (1..=AdditionalExchanges::COUNT).contains(&usize::from(*number)))?;
    let method = |(known, transform): &(&str, Transform)| match transform {
        Transform::KeyExchange(method) if *known == name => Some(*method),
        _ => None,
    };
    let method = match name {
        "none" => KeyExchangeId::NONE,
        _ => KEYWORDS.iter().chain(&ALIASES).find_map(method)?,
    };
    Some(Transform::AdditionalKeyExchange { number, method })
}

fn is_for(protocol: ProtocolId, transform: &Transform) -> bool {
    match transform {
        Transform::Prf(_) => protocol == ProtocolId::Ike,
        Transform::SequenceNumbers { .. } => protocol == ProtocolId::Esp,
        Transform::Encryption { id, .. } if id.is_esp_only() => protocol == ProtocolId::Esp,
        Transform::Encryption { .. } => protocol != ProtocolId::Ah,
        _ => true,
    }
}

/// What every proposal of the protocol must have (RFC 7296 §3.3.3), in the order of transform types.
fn complete(
    protocol: ProtocolId,
    mut transforms: Vec<Transform>,
) -> Result<Vec<Transform>, &'static str> {
    if protocol == ProtocolId::Ah {
        return Err("AH is not supported");
    }
    let is_aead = |transform: &Transform| match transform {
        Transform::Encryption { id, .. } => Some(id.is_aead()),
        _ => None,
    };
    let mut ciphers = transforms.iter().filter_map(is_aead);
    let aead = ciphers.next().ok_or("it names no encryption algorithm")?;
    if ciphers.any(|other| other != aead) {
        return Err("AEADs and classic ciphers need a proposal each");
    }
    if protocol == ProtocolId::Ike && !has(&transforms, |t| matches!(t, Transform::Prf(_))) {
        let derived: Vec<_> = transforms.iter().filter_map(prf_of_integrity).collect();
        transforms.extend(derived);
    }
    if aead {
        transforms.retain(|transform| !matches!(transform, Transform::Integrity(_)));
    } else if !has(&transforms, |t| matches!(t, Transform::Integrity(_))) {
        return Err("a cipher that is no AEAD needs an integrity algorithm, such as sha256");
    }
    if protocol == ProtocolId::Ike {
        if !has(&transforms, |t| matches!(t, Transform::Prf(_))) {
            return Err("an AEAD needs a PRF beside it, such as prfsha256");
        }
        if !has(&transforms, |t| matches!(t, Transform::KeyExchange(_))) {
            return Err("it names no key exchange, such as x25519");
        }
    }
    let additional = |t: &Transform| matches!(t, Transform::AdditionalKeyExchange { .. });
    if has(&transforms, additional) && !has(&transforms, |t| matches!(t, Transform::KeyExchange(_)))
    {
        return Err("an additional key exchange follows another one, such as x25519");
    }
    transforms.sort_by_key(place);
    Ok(transforms)
}

fn has(transforms: &[Transform], test: impl Fn(&Transform) -> bool) -> bool {
    transforms.iter().any(test)
}

/// Where a transform stands among the keywords of a proposal.
fn place(transform: &Transform) -> u8 {
    match transform {
        Transform::Encryption { .. } => 1,
        Transform::Integrity(_) => 2,
        Transform::Prf(_) => 3,
        Transform::KeyExchange(_) => 4,
        Transform::AdditionalKeyExchange { number, .. } => number.saturating_add(4),
        Transform::SequenceNumbers { .. } => u8::MAX - 1,
        Transform::Unknown { .. } => u8::MAX,
    }
}

fn prf_of_integrity(transform: &Transform) -> Option<Transform> {
    let prf = match *transform {
        Transform::Integrity(IntegrityId::HMAC_SHA1_96) => PrfId::HMAC_SHA1,
        Transform::Integrity(IntegrityId::HMAC_SHA2_256_128) => PrfId::HMAC_SHA2_256,
        Transform::Integrity(IntegrityId::HMAC_SHA2_384_192) => PrfId::HMAC_SHA2_384,
        Transform::Integrity(IntegrityId::HMAC_SHA2_512_256) => PrfId::HMAC_SHA2_512,
        _ => return None,
    };
    Some(Transform::Prf(prf))
}

/// The keywords of a proposal, as [`parse_proposal`] reads them. Transforms without a keyword are
/// written as IANA names.
pub fn proposal_text(proposal: &SaProposal) -> String {
    let known = |transform: &Transform| {
        let mut keywords = KEYWORDS.iter();
        let found = keywords.find(|(_, known)| known == transform);
        found.map(|(name, _)| *name)
    };
    let name = |transform: &Transform| {
        let keyword = match transform {
            Transform::AdditionalKeyExchange { number, method } => {
                let name = match *method {
                    KeyExchangeId::NONE => Some("none"),
                    method => known(&Transform::KeyExchange(method)),
                };
                name.map(|name| format!("ke{number}_{name}"))
            }
            _ => known(transform).map(str::to_owned),
        };
        keyword.unwrap_or_else(|| transform.to_string())
    };
    proposal
        .transforms
        .iter()
        .map(name)
        .collect::<Vec<_>>()
        .join("-")
}

/// `AES_GCM_16_256/PRF_HMAC_SHA2_384/CURVE_25519/KE1_ML_KEM_768`
pub fn ike_suite_text(suite: &IkeSuite) -> String {
    format!(
        "{}/{}/{}{}",
        cipher_text(&suite.cipher),
        suite.prf,
        suite.key_exchange,
        additional_text(&suite.additional),
    )
}

/// `AES_GCM_16_256/CURVE_25519/ESN`
pub fn esp_suite_text(suite: &EspSuite) -> String {
    let mut text = cipher_text(&suite.cipher);
    if let Some(group) = suite.key_exchange {
        text.push_str(&format!("/{group}{}", additional_text(&suite.additional)));
    }
    if suite.esn {
        text.push_str("/ESN");
    }
    text
}

fn additional_text(exchanges: &AdditionalExchanges) -> String {
    let texts = exchanges
        .iter()
        .map(|(number, method)| format!("/KE{number}_{method}"));
    texts.collect()
}

fn cipher_text(cipher: &CipherSuite) -> String {
    let mut text = cipher.encryption.to_string();
    if cipher.key_bits != 0 {
        text.push_str(&format!("_{}", cipher.key_bits));
    }
    if let Some(integrity) = cipher.integrity {
        text.push_str(&format!("/{integrity}"));
    }
    text
}

/// What `default` stands for in `proposals`: AEADs first, then AES-CBC.
pub fn default_ike_proposals() -> Vec<SaProposal> {
    let common = [
        prf(PrfId::HMAC_SHA2_256),
        prf(PrfId::HMAC_SHA2_384),
        prf(PrfId::HMAC_SHA2_512),
        group(KeyExchangeId::X25519),
        group(KeyExchangeId::ECP256),
        group(KeyExchangeId::ECP384),
        group(KeyExchangeId::ECP521),
        group(KeyExchangeId::MODP3072),
        group(KeyExchangeId::MODP4096),
        group(KeyExchangeId::MODP2048),
    ];
    defaults(ProtocolId::Ike, &common)
}

/// What `default` stands for in `esp_proposals`: AEADs first, then AES-CBC; ESN offered first.
pub fn default_esp_proposals() -> Vec<SaProposal> {
    defaults(ProtocolId::Esp, &[esn(true), esn(false)])
}

fn defaults(protocol: ProtocolId, common: &[Transform]) -> Vec<SaProposal> {
    let aead = [gcm(256), gcm(128), gcm(192), CHACHA20_POLY1305];
    let classic = [
        cbc(256),
        cbc(192),
        cbc(128),
        integrity(IntegrityId::HMAC_SHA2_256_128),
        integrity(IntegrityId::HMAC_SHA2_384_192),
        integrity(IntegrityId::HMAC_SHA2_512_256),
    ];
    [&aead[..], &classic[..]]
        .map(|ciphers| [ciphers, common].concat())
        .map(|transforms| SaProposal {
            protocol,
            spi: Vec::new(),
            transforms,
        })
        .to_vec()
}

const fn gcm(bits: u16) -> Transform {
    Transform::Encryption {
        id: EncryptionId::AES_GCM_16,
        key_bits: Some(bits),
    }
}

const fn cbc(bits: u16) -> Transform {
    Transform::Encryption {
        id: EncryptionId::AES_CBC,
        key_bits: Some(bits),
    }
}

const fn integrity(id: IntegrityId) -> Transform {
    Transform::Integrity(id)
}

const fn prf(id: PrfId) -> Transform {
    Transform::Prf(id)
}

const fn group(id: KeyExchangeId) -> Transform {
    Transform::KeyExchange(id)
}

const fn esn(extended: bool) -> Transform {
    Transform::SequenceNumbers { extended }
}

const CHACHA20_POLY1305: Transform = Transform::Encryption {
    id: EncryptionId::CHACHA20_POLY1305,
    key_bits: None,
};

const fn gcm_implicit_iv(bits: u16) -> Transform {
    Transform::Encryption {
        id: EncryptionId::AES_GCM_16_IIV,
        key_bits: Some(bits),
    }
}

const CHACHA20_POLY1305_IIV: Transform = Transform::Encryption {
    id: EncryptionId::CHACHA20_POLY1305_IIV,
    key_bits: None,
};

const NULL: Transform = Transform::Encryption {
    id: EncryptionId::NULL,
    key_bits: None,
};

/// One spelling per algorithm: what errors suggest and [`proposal_text`] writes.
const KEYWORDS: [(&str, Transform); 32] = [
    ("aes256gcm16", gcm(256)),
    ("aes192gcm16", gcm(192)),
    ("aes128gcm16", gcm(128)),
    ("chacha20poly1305", CHACHA20_POLY1305),
    ("aes256", cbc(256)),
    ("aes192", cbc(192)),
    ("aes128", cbc(128)),
    ("null", NULL),
    ("aes256gcm16iiv", gcm_implicit_iv(256)),
    ("aes192gcm16iiv", gcm_implicit_iv(192)),
    ("aes128gcm16iiv", gcm_implicit_iv(128)),
    ("chacha20poly1305iiv", CHACHA20_POLY1305_IIV),
    ("sha512", integrity(IntegrityId::HMAC_SHA2_512_256)),
    ("sha384", integrity(IntegrityId::HMAC_SHA2_384_192)),
    ("sha256", integrity(IntegrityId::HMAC_SHA2_256_128)),
    ("sha1", integrity(IntegrityId::HMAC_SHA1_96)),
    ("prfsha512", prf(PrfId::HMAC_SHA2_512)),
    ("prfsha384", prf(PrfId::HMAC_SHA2_384)),
    ("prfsha256", prf(PrfId::HMAC_SHA2_256)),
    ("prfsha1", prf(PrfId::HMAC_SHA1)),
    ("x25519", group(KeyExchangeId::X25519)),
    ("ecp256", group(KeyExchangeId::ECP256)),
    ("ecp384", group(KeyExchangeId::ECP384)),
    ("ecp521", group(KeyExchangeId::ECP521)),
    ("modp2048", group(KeyExchangeId::MODP2048)),
    ("modp3072", group(KeyExchangeId::MODP3072)),
    ("modp4096", group(KeyExchangeId::MODP4096)),
    ("mlkem512", group(KeyExchangeId::ML_KEM_512)),
    ("mlkem768", group(KeyExchangeId::ML_KEM_768)),
    ("mlkem1024", group(KeyExchangeId::ML_KEM_1024)),
    ("esn", esn(true)),
    ("noesn", esn(false)),
];

/// Other spellings that are read.
const ALIASES: [(&str, Transform); 15] = [
    ("aes", cbc(128)),
    ("aes128cbc", cbc(128)),
    ("aes192cbc", cbc(192)),
    ("aes256cbc", cbc(256)),
    ("aes128gcm", gcm(128)),
    ("aes128gcm128", gcm(128)),
    ("aes192gcm", gcm(192)),
    ("aes192gcm128", gcm(192)),
    ("aes256gcm", gcm(256)),
    ("aes256gcm128", gcm(256)),
    ("sha", integrity(IntegrityId::HMAC_SHA1_96)),
    ("sha2_256", integrity(IntegrityId::HMAC_SHA2_256_128)),
    ("sha2_384", integrity(IntegrityId::HMAC_SHA2_384_192)),
    ("sha2_512", integrity(IntegrityId::HMAC_SHA2_512_256)),
    ("curve25519", group(KeyExchangeId::X25519)),
];
