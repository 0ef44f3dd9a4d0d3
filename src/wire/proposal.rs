//! Algorithm numbers and SA proposals (RFC 7296 §3.3).

mod additional;

use std::fmt;

use super::Malformed;
use super::substructure::{LAST, MORE_PROPOSALS, MORE_TRANSFORMS, Substructure};

pub use additional::AdditionalExchanges;

/// What an SA protects with (RFC 7296 §3.3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum ProtocolId {
    /// The IKE SA itself.
    Ike = 1,
    /// Authentication Header.
    Ah = 2,
    /// Encapsulating Security Payload.
    Esp = 3,
}

impl ProtocolId {
    /// The protocol of an IANA number.
    pub fn from_u8(number: u8) -> Option<Self> {
        match number {
            1 => Some(Self::Ike),
            2 => Some(Self::Ah),
            3 => Some(Self::Esp),
            _ => None,
        }
    }
}

/// Transform type 1, encryption algorithm.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EncryptionId(pub u16);

#[allow(missing_docs, reason = "each constant is the IANA name")]
impl EncryptionId {
    pub const TRIPLE_DES: Self = Self(3);
    pub const NULL: Self = Self(11);
    pub const AES_CBC: Self = Self(12);
    pub const AES_CTR: Self = Self(13);
    pub const AES_CCM_8: Self = Self(14);
    pub const AES_CCM_12: Self = Self(15);
    pub const AES_CCM_16: Self = Self(16);
    pub const AES_GCM_8: Self = Self(18);
    pub const AES_GCM_12: Self = Self(19);
    pub const AES_GCM_16: Self = Self(20);
    pub const NULL_AES_GMAC: Self = Self(21);
    pub const CHACHA20_POLY1305: Self = Self(28);
    pub const AES_CCM_8_IIV: Self = Self(29);
    pub const AES_GCM_16_IIV: Self = Self(30);
    pub const CHACHA20_POLY1305_IIV: Self = Self(31);

    /// Provides integrity by itself (RFC 5282).
    pub fn is_aead(self) -> bool {
        matches!(self.0, 14..=16 | 18..=21 | 28..=31)
    }

    /// Keeps what it protects secret.
    pub fn encrypts(self) -> bool {
        !matches!(self, Self::NULL | Self::NULL_AES_GMAC)
    }

    /// Not for IKE: it does not encrypt, or its IV is a sequence number (RFC 8750 §7).
    pub fn is_esp_only(self) -> bool {
        matches!(
            self,
            Self::AES_CCM_8_IIV | Self::AES_GCM_16_IIV | Self::CHACHA20_POLY1305_IIV
        ) || !self.encrypts()
    }
}

/// Transform type 2, pseudorandom function.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PrfId(pub u16);

#[allow(missing_docs, reason = "each constant is the IANA name")]
impl PrfId {
    pub const HMAC_MD5: Self = Self(1);
    pub const HMAC_SHA1: Self = Self(2);
    pub const AES128_XCBC: Self = Self(4);
    pub const HMAC_SHA2_256: Self = Self(5);
    pub const HMAC_SHA2_384: Self = Self(6);
    pub const HMAC_SHA2_512: Self = Self(7);
    pub const AES128_CMAC: Self = Self(8);
}

/// Transform type 3, integrity algorithm.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct IntegrityId(pub u16);

#[allow(missing_docs, reason = "each constant is the IANA name")]
impl IntegrityId {
    pub const NONE: Self = Self(0);
    pub const HMAC_MD5_96: Self = Self(1);
    pub const HMAC_SHA1_96: Self = Self(2);
    pub const AES_XCBC_96: Self = Self(5);
    pub const AES_CMAC_96: Self = Self(8);
    pub const HMAC_SHA2_256_128: Self = Self(12);
    pub const HMAC_SHA2_384_192: Self = Self(13);
    pub const HMAC_SHA2_512_256: Self = Self(14);
}

/// Transform type 4, key exchange method.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeyExchangeId(pub u16);

#[allow(missing_docs, reason = "each constant is the IANA name")]
impl KeyExchangeId {
    pub const NONE: Self = Self(0);
    pub const MODP1024: Self = Self(2);
    pub const MODP1536: Self = Self(5);
    pub const MODP2048: Self = Self(14);
    pub const MODP3072: Self = Self(15);
    pub const MODP4096: Self = Self(16);
    pub const MODP6144: Self = Self(17);
    pub const MODP8192: Self = Self(18);
    pub const ECP256: Self = Self(19);
    pub const ECP384: Self = Self(20);
    pub const ECP521: Self = Self(21);
    pub const ECP256_BP: Self = Self(28);
    pub const ECP384_BP: Self = Self(29);
    pub const ECP512_BP: Self = Self(30);
    pub const X25519: Self = Self(31);
    pub const X448: Self = Self(32);
    pub const ML_KEM_512: Self = Self(35);
    pub const ML_KEM_768: Self = Self(36);
    pub const ML_KEM_1024: Self = Self(37);
}

impl fmt::Display for EncryptionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::TRIPLE_DES => f.write_str("3DES_CBC"),
            Self::NULL => f.write_str("NULL"),
            Self::AES_CBC => f.write_str("AES_CBC"),
            Self::AES_CTR => f.write_str("AES_CTR"),
            Self::AES_CCM_8 => f.write_str("AES_CCM_8"),
            Self::AES_CCM_12 => f.write_str("AES_CCM_12"),
            Self::AES_CCM_16 => f.write_str("AES_CCM_16"),
            Self::AES_GCM_8 => f.write_str("AES_GCM_8"),
            Self::AES_GCM_12 => f.write_str("AES_GCM_12"),
            Self::AES_GCM_16 => f.write_str("AES_GCM_16"),
            Self::NULL_AES_GMAC => f.write_str("NULL_AES_GMAC"),
            Self::CHACHA20_POLY1305 => f.write_str("CHACHA20_POLY1305"),
            Self::AES_CCM_8_IIV => f.write_str("AES_CCM_8_IIV"),
            Self::AES_GCM_16_IIV => f.write_str("AES_GCM_16_IIV"),
            Self::CHACHA20_POLY1305_IIV => f.write_str("CHACHA20_POLY1305_IIV"),
            Self(id) => write!(f, "ENCR_{id}"),
        }
    }
}

impl fmt::Display for PrfId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::HMAC_MD5 => f.write_str("PRF_HMAC_MD5"),
            Self::AES128_XCBC => f.write_str("PRF_AES128_XCBC"),
            Self::AES128_CMAC => f.write_str("PRF_AES128_CMAC"),
            Self::HMAC_SHA1 => f.write_str("PRF_HMAC_SHA1"),
            Self::HMAC_SHA2_256 => f.write_str("PRF_HMAC_SHA2_256"),
            Self::HMAC_SHA2_384 => f.write_str("PRF_HMAC_SHA2_384"),
            Self::HMAC_SHA2_512 => f.write_str("PRF_HMAC_SHA2_512"),
            Self(id) => write!(f, "PRF_{id}"),
        }
    }
}

impl fmt::Display for IntegrityId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::NONE => f.write_str("NONE"),
            Self::HMAC_MD5_96 => f.write_str("HMAC_MD5_96"),
            Self::AES_XCBC_96 => f.write_str("AES_XCBC_96"),
            Self::AES_CMAC_96 => f.write_str("AES_CMAC_96"),
            Self::HMAC_SHA1_96 => f.write_str("HMAC_SHA1_96"),
            Self::HMAC_SHA2_256_128 => f.write_str("HMAC_SHA2_256_128"),
            Self::HMAC_SHA2_384_192 => f.write_str("HMAC_SHA2_384_192"),
            Self::HMAC_SHA2_512_256 => f.write_str("HMAC_SHA2_512_256"),
            Self(id) => write!(f, "AUTH_{id}"),
        }
    }
}

impl fmt::Display for KeyExchangeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::NONE => f.write_str("NONE"),
            Self::MODP1024 => f.write_str("MODP_1024"),
            Self::MODP1536 => f.write_str("MODP_1536"),
            Self::MODP2048 => f.write_str("MODP_2048"),
            Self::MODP3072 => f.write_str("MODP_3072"),
            Self::MODP4096 => f.write_str("MODP_4096"),
            Self::MODP6144 => f.write_str("MODP_6144"),
            Self::MODP8192 => f.write_str("MODP_8192"),
            Self::ECP256 => f.write_str("ECP_256"),
            Self::ECP384 => f.write_str("ECP_384"),
            Self::ECP521 => f.write_str("ECP_521"),
            Self::ECP256_BP => f.write_str("ECP_256_BP"),
            Self::ECP384_BP => f.write_str("ECP_384_BP"),
            Self::ECP512_BP => f.write_str("ECP_512_BP"),
            Self::X25519 => f.write_str("CURVE_25519"),
            Self::X448 => f.write_str("CURVE_448"),
            Self::ML_KEM_512 => f.write_str("ML_KEM_512"),
            Self::ML_KEM_768 => f.write_str("ML_KEM_768"),
            Self::ML_KEM_1024 => f.write_str("ML_KEM_1024"),
            Self(id) => write!(f, "KE_{id}"),
        }
    }
}

/// How packets of one SA are encrypted and authenticated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CipherSuite {
    /// The cipher or AEAD.
    pub encryption: EncryptionId,
    /// Key length in bits; 0 where the cipher has only one, or none.
    pub key_bits: u16,
    /// The MAC; `None` for an AEAD.
    pub integrity: Option<IntegrityId>,
}

/// What an IKE SA was negotiated to use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct IkeSuite {
    /// Protection of the SK payload.
    pub cipher: CipherSuite,
    /// Key derivation and authentication.
    pub prf: PrfId,
    /// Key exchange of IKE_SA_INIT.
    pub key_exchange: KeyExchangeId,
    /// Those that follow it.
    pub additional: AdditionalExchanges,
}

/// What a Child SA was negotiated to use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct EspSuite {
    /// Protection of the packets.
    pub cipher: CipherSuite,
    /// Fresh key exchange of CREATE_CHILD_SA.
    pub key_exchange: Option<KeyExchangeId>,
    /// Those that follow it.
    pub additional: AdditionalExchanges,
    /// 64-bit sequence numbers (RFC 4303 §2.2.1).
    pub esn: bool,
}

/// One transform of a proposal (RFC 7296 §3.3.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Transform {
    /// Type 1.
    Encryption {
        /// The algorithm.
        id: EncryptionId,
        /// The Key Length attribute, if present.
        key_bits: Option<u16>,
    },
    /// Type 2.
    Prf(PrfId),
    /// Type 3.
    Integrity(IntegrityId),
    /// Type 4.
    KeyExchange(KeyExchangeId),
    /// Type 5.
    SequenceNumbers {
        /// 64-bit numbers.
        extended: bool,
    },
    /// Types 6 to 12.
    AdditionalKeyExchange {
        /// 1 to 7.
        number: u8,
        /// The method; NONE makes the exchange optional.
        method: KeyExchangeId,
    },
    /// A type, or an attribute, that we do not know; never acceptable. Its attributes are not kept.
    Unknown {
        /// Transform type.
        kind: u8,
        /// Transform ID.
        id: u16,
    },
}

impl Transform {
    /// Broken, or too short to last: what RFC 8247 and RFC 8221 §5 say must not or should not be used,
    /// of the algorithms that we have.
    pub fn is_weak(self) -> bool {
        matches!(
            self,
            Self::Encryption {
                id: EncryptionId::TRIPLE_DES,
                ..
            } | Self::Prf(PrfId::HMAC_MD5)
                | Self::Integrity(IntegrityId::HMAC_MD5_96)
                | Self::KeyExchange(KeyExchangeId::MODP1024 | KeyExchangeId::MODP1536)
                | Self::AdditionalKeyExchange {
                    method: KeyExchangeId::MODP1024 | KeyExchangeId::MODP1536,
                    ..
                }
        )
    }
}

/// VICI names; an encryption algorithm has its key length behind it: `AES_GCM_16_256`.
impl fmt::Display for Transform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Encryption {
                id,
                key_bits: Some(bits),
            } => write!(f, "{id}_{bits}"),
            Self::Encryption { id, key_bits: None } => id.fmt(f),
            Self::Prf(id) => id.fmt(f),
            Self::Integrity(id) => id.fmt(f),
            Self::KeyExchange(id) => id.fmt(f),
            Self::SequenceNumbers { extended: true } => f.write_str("ESN"),
            Self::SequenceNumbers { extended: false } => f.write_str("NO_ESN"),
            Self::AdditionalKeyExchange { number, method } => write!(f, "KE{number}_{method}"),
            Self::Unknown { kind, id } => write!(f, "TRANSFORM_{kind}_{id}"),
        }
    }
}

/// One proposal of an SA payload (RFC 7296 §3.3.1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SaProposal {
    /// The protocol proposed.
    pub protocol: ProtocolId,
    /// The sender's SPI; empty in IKE_SA_INIT.
    pub spi: Vec<u8>,
    /// Alternatives, in the sender's order.
    pub transforms: Vec<Transform>,
}

impl SaProposal {
    /// Parses the body of an SA payload into numbered proposals. Proposals for a protocol that we do
    /// not know are skipped (RFC 7296 §3.3.6); numbers must run from wherever the first stands.
    pub fn parse_list(body: &[u8]) -> Result<Vec<(u8, Self)>, Malformed> {
        let mut list = Vec::new();
        let mut rest = body;
        let mut previous = None;
        loop {
            let piece = Substructure::split(rest, MORE_PROPOSALS, "proposal")?;
            let (number, proposal) = Self::parse_one(piece.body)?;
            if number == 0
                || previous.is_some_and(|previous: u8| previous.checked_add(1) != Some(number))
            {
                return Err(Malformed::BadValue("proposal number"));
            }
            previous = Some(number);
            list.extend(proposal.map(|proposal| (number, proposal)));
            rest = piece.rest;
            if piece.last {
                let done = rest.is_empty();
                return if done {
                    Ok(list)
                } else {
                    Err(Malformed::BadLength("SA payload"))
                };
            }
        }
    }

    fn parse_one(body: &[u8]) -> Result<(u8, Option<Self>), Malformed> {
        let (&[number, protocol, spi_len, count], rest) = body
            .split_first_chunk::<4>()
            .ok_or(Malformed::Truncated("proposal"))?;
        let (spi, mut rest) = rest
            .split_at_checked(usize::from(spi_len))
            .ok_or(Malformed::Truncated("proposal SPI"))?;
        let Some(protocol) = ProtocolId::from_u8(protocol) else {
            return Ok((number, None));
        };
        let lengths: &[u8] = match protocol {
            ProtocolId::Ike => &[0, 8],
            ProtocolId::Ah | ProtocolId::Esp => &[4],
        };
        if !lengths.contains(&spi_len) {
            return Err(Malformed::BadLength("proposal SPI"));
        }
        let mut transforms = Vec::new();
        for index in 1..=count {
            let piece = Substructure::split(rest, MORE_TRANSFORMS, "transform")?;
            if piece.last != (index == count) {
                return Err(Malformed::BadLength("proposal"));
            }
            transforms.push(Transform::parse(piece.body)?);
            rest = piece.rest;
        }
        if !rest.is_empty() {
            return Err(Malformed::BadLength("proposal"));
        }
        Ok((
            number,
            Some(Self {
                protocol,
                spi: spi.to_vec(),
                transforms,
            }),
        ))
    }

    /// Appends the body of an SA payload that numbers the proposals from 1.
    pub fn encode_list(proposals: &[Self], out: &mut Vec<u8>) {
        let last = proposals.len().min(usize::from(u8::MAX));
        for (number, proposal) in (1u8..=u8::MAX).zip(proposals) {
            proposal.encode(number, usize::from(number) == last, out);
        }
    }

    /// Appends the body of an SA payload that answers with one proposal under the offer's number.
    pub fn encode_answer(&self, number: u8, out: &mut Vec<u8>) {
        self.encode(number, true, out);
    }

    fn encode(&self, number: u8, last: bool, out: &mut Vec<u8>) {
        let start = out.len();
        let spi = self.spi.get(..255).unwrap_or(&self.spi);
        let transforms = self.transforms.get(..255).unwrap_or(&self.transforms);
        let length = |len: usize| u8::try_from(len).unwrap_or(u8::MAX);
        let more = if last { LAST } else { MORE_PROPOSALS };
        out.extend_from_slice(&[more, 0, 0, 0, number, self.protocol as u8]);
        out.extend_from_slice(&[length(spi.len()), length(transforms.len())]);
        out.extend_from_slice(spi);
        for (index, transform) in transforms.iter().enumerate() {
            transform.encode(index + 1 == transforms.len(), out);
        }
        // At most 8 + 255 + 255 × 12 bytes.
        let length = u16::try_from(out.len() - start).unwrap_or(u16::MAX);
        if let Some(field) = out.get_mut(start + 2..start + 4) {
            field.copy_from_slice(&length.to_be_bytes());
        }
    }
}

impl Transform {
    /// The transform type.
    pub fn kind(&self) -> u8 {
        match self {
            Self::Encryption { .. } => 1,
            Self::Prf(_) => 2,
            Self::Integrity(_) => 3,
            Self::KeyExchange(_) => 4,
            Self::SequenceNumbers { .. } => 5,
            Self::AdditionalKeyExchange { number, .. } => {
                number.saturating_add(FIRST_ADDITIONAL - 1)
            }
            Self::Unknown { kind, .. } => *kind,
        }
    }

    fn parse(body: &[u8]) -> Result<Self, Malformed> {
        let (&[kind, _, id_hi, id_lo], attributes) = body
            .split_first_chunk::<4>()
            .ok_or(Malformed::BadLength("transform"))?;
        let id = u16::from_be_bytes([id_hi, id_lo]);
        Ok(match (kind, parse_attributes(attributes)?, id) {
            (1, Attributes::None, _) => Self::Encryption {
                id: EncryptionId(id),
                key_bits: None,
            },
            (1, Attributes::KeyLength(bits), _) => Self::Encryption {
                id: EncryptionId(id),
                key_bits: Some(bits),
            },
            (2, Attributes::None, _) => Self::Prf(PrfId(id)),
            (3, Attributes::None, _) => Self::Integrity(IntegrityId(id)),
            (4, Attributes::None, _) => Self::KeyExchange(KeyExchangeId(id)),
            (5, Attributes::None, 0) => Self::SequenceNumbers { extended: false },
            (5, Attributes::None, 1) => Self::SequenceNumbers { extended: true },
            (FIRST_ADDITIONAL..=LAST_ADDITIONAL, Attributes::None, _) => {
                Self::AdditionalKeyExchange {
                    number: kind - FIRST_ADDITIONAL + 1,
                    method: KeyExchangeId(id),
                }
            }
            _ => Self::Unknown { kind, id },
        })
    }

    fn encode(self, last: bool, out: &mut Vec<u8>) {
        let (id, key_bits) = match self {
            Self::Encryption { id, key_bits } => (id.0, key_bits),
            Self::Prf(id) => (id.0, None),
            Self::Integrity(id) => (id.0, None),
            Self::KeyExchange(id) | Self::AdditionalKeyExchange { method: id, .. } => (id.0, None),
            Self::SequenceNumbers { extended } => (u16::from(extended), None),
            Self::Unknown { id, .. } => (id, None),
        };
        let more = if last { LAST } else { MORE_TRANSFORMS };
        let length = if key_bits.is_some() { 12 } else { 8 };
        out.extend_from_slice(&[more, 0, 0, length, self.kind(), 0]);
        out.extend_from_slice(&id.to_be_bytes());
        if let Some(bits) = key_bits {
            out.extend_from_slice(&(ATTRIBUTE_TV | ATTRIBUTE_KEY_LENGTH).to_be_bytes());
            out.extend_from_slice(&bits.to_be_bytes());
        }
    }
}

/// What a transform's attributes amount to; a transform with others is to be refused, not the
/// whole message (RFC 7296 §3.3.6).
enum Attributes {
    None,
    KeyLength(u16),
    Unknown,
}

fn parse_attributes(mut rest: &[u8]) -> Result<Attributes, Malformed> {
    let mut found = Attributes::None;
    while !rest.is_empty() {
        let (&[k0, k1, v0, v1], after) = rest
            .split_first_chunk::<4>()
            .ok_or(Malformed::Truncated("transform attribute"))?;
        let kind = u16::from_be_bytes([k0, k1]);
        let value = u16::from_be_bytes([v0, v1]);
        let long = if kind & ATTRIBUTE_TV == 0 {
            usize::from(value)
        } else {
            0
        };
        found = match found {
            Attributes::None if kind == ATTRIBUTE_TV | ATTRIBUTE_KEY_LENGTH => {
                Attributes::KeyLength(value)
            }
            _ => Attributes::Unknown,
        };
        rest = after
            .get(long..)
            .ok_or(Malformed::Truncated("transform attribute"))?;
    }
    Ok(found)
}

const FIRST_ADDITIONAL: u8 = 6;
const LAST_ADDITIONAL: u8 = 12;

const ATTRIBUTE_TV: u16 = 0x8000;
const ATTRIBUTE_KEY_LENGTH: u16 = 14;
