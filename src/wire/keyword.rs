//! strongSwan's spelling of proposals: `aes256gcm16-prfsha384-x25519`.

use super::algorithms::{ALIASES, KEYWORDS, aes, esn, group, integrity, plain, prf};
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
    /// One of the other protocol.
    #[error("{keyword:?} is for {only} only{reason}")]
    OtherProtocol {
        /// What was written.
        keyword: String,
        /// The protocol.
        only: &'static str,
        /// Why, where that is not plain.
        reason: &'static str,
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
    let known = KEYWORDS.iter().chain(ALIASES);
    let mut known = known.filter(|(name, _)| name.eq_ignore_ascii_case(keyword));
    match known.next() {
        Some((_, transform)) if is_for(protocol, transform) => return Ok(*transform),
        Some((_, transform)) if protocol != ProtocolId::Ah => {
            return Err(other_protocol(keyword, transform));
        }
        _ => {}
    }
    let allowed = || {
        KEYWORDS
            .iter()
            .filter(|(_, transform)| is_for(protocol, transform))
    };
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
        _ => KEYWORDS.iter().chain(ALIASES).find_map(method)?,
    };
    Some(Transform::AdditionalKeyExchange { number, method })
}

fn other_protocol(keyword: &str, transform: &Transform) -> KeywordError {
    let (only, reason) = match transform {
        Transform::Encryption { id, .. } if id.encrypts() => {
            ("ESP", ", whose sequence number is its IV")
        }
        Transform::Encryption { .. } => ("ESP", ", because it does not encrypt"),
        Transform::SequenceNumbers { .. } => ("ESP", ""),
        _ => ("IKE", ""),
    };
    KeywordError::OtherProtocol {
        keyword: keyword.to_owned(),
        only,
        reason,
    }
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
    let integrity = has(&transforms, |t| matches!(t, Transform::Integrity(_)));
    if aead && protocol == ProtocolId::Ike {
        transforms.retain(|transform| !matches!(transform, Transform::Integrity(_)));
    } else if aead && integrity {
        return Err("an AEAD authenticates by itself, so it takes no integrity algorithm");
    } else if !aead && !integrity {
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
        Transform::Integrity(IntegrityId::HMAC_MD5_96) => PrfId::HMAC_MD5,
        Transform::Integrity(IntegrityId::HMAC_SHA1_96) => PrfId::HMAC_SHA1,
        Transform::Integrity(IntegrityId::AES_XCBC_96) => PrfId::AES128_XCBC,
        Transform::Integrity(IntegrityId::AES_CMAC_96) => PrfId::AES128_CMAC,
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
    proposal
        .transforms
        .iter()
        .map(transform_text)
        .collect::<Vec<_>>()
        .join("-")
}

/// The keyword of a transform, else its IANA name.
pub fn transform_text(transform: &Transform) -> String {
    let known = |transform: &Transform| {
        let mut keywords = KEYWORDS.iter();
        let found = keywords.find(|(_, known)| known == transform);
        found.map(|(name, _)| *name)
    };
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
    let aead = [
        aes(EncryptionId::AES_GCM_16, 256),
        aes(EncryptionId::AES_GCM_16, 128),
        aes(EncryptionId::AES_GCM_16, 192),
        plain(EncryptionId::CHACHA20_POLY1305),
    ];
    let classic = [
        aes(EncryptionId::AES_CBC, 256),
        aes(EncryptionId::AES_CBC, 192),
        aes(EncryptionId::AES_CBC, 128),
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
