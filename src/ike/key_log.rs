//! Keys as lines of Wireshark's tables, for those who switch that on.

use data_encoding::HEXLOWER;
use zeroize::Zeroizing;

use crate::crypto::Secret;
use crate::crypto::kdf::{HalfKeys, IkeKeys};
use crate::ipsec::Spi;
use crate::wire::isakmp::IkeSpi;
use crate::wire::proposal::{CipherSuite, EncryptionId, IkeSuite, IntegrityId};

/// One line for one of Wireshark's tables, with the keys of an SA.
#[derive(Debug)]
pub struct KeyLogLine {
    /// Where it belongs.
    pub table: KeyTable,
    /// Text with its line break.
    pub line: Secret,
}

/// Files in Wireshark's configuration folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum KeyTable {
    /// Keys of IKE SAs by their two SPIs.
    Ikev2Decryption,
    /// Keys of ESP SAs, one direction each, by SPI.
    EspSa,
}

impl KeyTable {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Ikev2Decryption, Self::EspSa];

    /// Name of the file.
    #[must_use]
    pub fn file_name(self) -> &'static str {
        match self {
            Self::Ikev2Decryption => "ikev2_decryption_table",
            Self::EspSa => "esp_sa",
        }
    }
}

/// What the key log has of an SA.
#[derive(Debug)]
pub(super) enum Entry {
    Line(KeyLogLine),
    /// Wireshark has no name for this suite, and would take the keys for those of another one.
    Unnamed(KeyTable, CipherSuite),
}

/// The keys of an IKE SA.
pub(super) fn ike(
    (initiator, responder): (IkeSpi, IkeSpi),
    suite: &IkeSuite,
    keys: &IkeKeys,
) -> Entry {
    let table = KeyTable::Ikev2Decryption;
    let Some((encryption, integrity)) = ike_names(&suite.cipher) else {
        return Entry::Unnamed(table, suite.cipher);
    };
    let hex = |secret: &Secret| Zeroizing::new(HEXLOWER.encode(secret.as_bytes()));
    let (ei, er) = (hex(&keys.sk_ei), hex(&keys.sk_er));
    let (ai, ar) = (hex(&keys.sk_ai), hex(&keys.sk_ar));
    let (spi_i, spi_r) = (HEXLOWER.encode(&initiator.0), HEXLOWER.encode(&responder.0));
    let (ei, er, ai, ar) = (ei.as_str(), er.as_str(), ai.as_str(), ar.as_str());
    let line = format!("{spi_i},{spi_r},{ei},{er},\"{encryption}\",{ai},{ar},\"{integrity}\"\n");
    Entry::Line(KeyLogLine {
        table,
        line: Secret::from(line.into_bytes()),
    })
}

/// The keys of one direction of a Child SA, between any two addresses, as these may change.
pub(super) fn esp(outer_ipv6: bool, spi: Spi, suite: &CipherSuite, keys: &HalfKeys) -> Entry {
    let table = KeyTable::EspSa;
    let Some((encryption, integrity)) = esp_names(suite) else {
        return Entry::Unnamed(table, *suite);
    };
    let family = if outer_ipv6 { "IPv6" } else { "IPv4" };
    let hex = |secret: &Secret| Zeroizing::new(HEXLOWER.encode(secret.as_bytes()));
    let (encryption_key, integrity_key) = (hex(&keys.encryption), hex(&keys.integrity));
    let (encryption_key, integrity_key) = (encryption_key.as_str(), integrity_key.as_str());
    let spi = HEXLOWER.encode(&spi.to_be_bytes());
    let line = format!(
        "\"{family}\",\"*\",\"*\",\"0x{spi}\",\"{encryption}\",\"0x{encryption_key}\",\"{integrity}\",\"0x{integrity_key}\"\n"
    );
    Entry::Line(KeyLogLine {
        table,
        line: Secret::from(line.into_bytes()),
    })
}

/// Names of encryption and integrity in the table of IKE SAs.
fn ike_names(suite: &CipherSuite) -> Option<(String, &'static str)> {
    let bits = suite.key_bits;
    let encryption = match suite.encryption {
        EncryptionId::AES_CBC => format!("AES-CBC-{bits} [RFC3602]"),
        EncryptionId::AES_CTR => format!("AES-CTR-{bits} [RFC5930]"),
        EncryptionId::AES_CCM_8 => format!("AES-CCM-{bits} with 8 octet ICV [RFC5282]"),
        EncryptionId::AES_CCM_12 => format!("AES-CCM-{bits} with 12 octet ICV [RFC5282]"),
        EncryptionId::AES_CCM_16 => format!("AES-CCM-{bits} with 16 octet ICV [RFC5282]"),
        EncryptionId::AES_GCM_8 => format!("AES-GCM-{bits} with 8 octet ICV [RFC5282]"),
        EncryptionId::AES_GCM_12 => format!("AES-GCM-{bits} with 12 octet ICV [RFC5282]"),
        EncryptionId::AES_GCM_16 => format!("AES-GCM-{bits} with 16 octet ICV [RFC5282]"),
        _ => return None,
    };
    let integrity = match suite.integrity {
        None => "NONE [RFC4306]",
        Some(IntegrityId::HMAC_SHA1_96) => "HMAC_SHA1_96 [RFC2404]",
        Some(IntegrityId::HMAC_SHA2_256_128) => "HMAC_SHA2_256_128 [RFC4868]",
        Some(IntegrityId::HMAC_SHA2_384_192) => "HMAC_SHA2_384_192 [RFC4868]",
        Some(IntegrityId::HMAC_SHA2_512_256) => "HMAC_SHA2_512_256 [RFC4868]",
        Some(_) => return None,
    };
    Some((encryption, integrity))
}

/// The same in the table of ESP SAs.
fn esp_names(suite: &CipherSuite) -> Option<(&'static str, &'static str)> {
    let encryption = match suite.encryption {
        EncryptionId::NULL => "NULL",
        EncryptionId::AES_CBC => "AES-CBC [RFC3602]",
        EncryptionId::AES_CTR => "AES-CTR [RFC3686]",
        EncryptionId::AES_GCM_8 => "AES-GCM with 8 octet ICV [RFC4106]",
        EncryptionId::AES_GCM_12 => "AES-GCM with 12 octet ICV [RFC4106]",
        EncryptionId::AES_GCM_16 => "AES-GCM with 16 octet ICV [RFC4106]",
        _ => return None,
    };
    let integrity = match suite.integrity {
        None => "NULL",
        Some(IntegrityId::HMAC_SHA1_96) => "HMAC-SHA-1-96 [RFC2404]",
        Some(IntegrityId::HMAC_SHA2_256_128) => "HMAC-SHA-256-128 [RFC4868]",
        Some(IntegrityId::HMAC_SHA2_384_192) => "HMAC-SHA-384-192 [RFC4868]",
        Some(IntegrityId::HMAC_SHA2_512_256) => "HMAC-SHA-512-256 [RFC4868]",
        Some(_) => return None,
    };
    Some((encryption, integrity))
}
