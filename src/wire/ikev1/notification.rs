//! Notification payload (RFC 2408 §3.14, RFC 2407 §4.6.3, RFC 3706 §5.2).

use std::fmt;

use super::sa::{IPSEC_DOI, Protocol};
use crate::wire::Malformed;

/// What a notification says: an error below 16384, else a status.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct NotifyType(pub u16);

#[allow(missing_docs, reason = "each constant is the IANA name")]
impl NotifyType {
    pub const INVALID_PAYLOAD_TYPE: Self = Self(1);
    pub const DOI_NOT_SUPPORTED: Self = Self(2);
    pub const SITUATION_NOT_SUPPORTED: Self = Self(3);
    pub const INVALID_COOKIE: Self = Self(4);
    pub const INVALID_EXCHANGE_TYPE: Self = Self(7);
    pub const INVALID_MESSAGE_ID: Self = Self(9);
    pub const INVALID_PROTOCOL_ID: Self = Self(10);
    pub const INVALID_SPI: Self = Self(11);
    pub const INVALID_TRANSFORM_ID: Self = Self(12);
    pub const ATTRIBUTES_NOT_SUPPORTED: Self = Self(13);
    pub const NO_PROPOSAL_CHOSEN: Self = Self(14);
    pub const BAD_PROPOSAL_SYNTAX: Self = Self(15);
    pub const PAYLOAD_MALFORMED: Self = Self(16);
    pub const INVALID_KEY_INFORMATION: Self = Self(17);
    pub const INVALID_ID_INFORMATION: Self = Self(18);
    pub const INVALID_CERTIFICATE: Self = Self(20);
    pub const INVALID_HASH_INFORMATION: Self = Self(23);
    pub const AUTHENTICATION_FAILED: Self = Self(24);
    pub const INVALID_SIGNATURE: Self = Self(25);
    pub const UNEQUAL_PAYLOAD_LENGTHS: Self = Self(30);
    pub const CONNECTED: Self = Self(16384);
    pub const RESPONDER_LIFETIME: Self = Self(24576);
    pub const REPLAY_STATUS: Self = Self(24577);
    pub const INITIAL_CONTACT: Self = Self(24578);
    pub const R_U_THERE: Self = Self(36136);
    pub const R_U_THERE_ACK: Self = Self(36137);

    /// Tells of an error.
    pub fn is_error(self) -> bool {
        self.0 < Self::CONNECTED.0
    }
}

impl fmt::Display for NotifyType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match *self {
            Self::INVALID_PAYLOAD_TYPE => "INVALID-PAYLOAD-TYPE",
            Self::DOI_NOT_SUPPORTED => "DOI-NOT-SUPPORTED",
            Self::SITUATION_NOT_SUPPORTED => "SITUATION-NOT-SUPPORTED",
            Self::INVALID_COOKIE => "INVALID-COOKIE",
            Self::INVALID_EXCHANGE_TYPE => "INVALID-EXCHANGE-TYPE",
            Self::INVALID_MESSAGE_ID => "INVALID-MESSAGE-ID",
            Self::INVALID_PROTOCOL_ID => "INVALID-PROTOCOL-ID",
            Self::INVALID_SPI => "INVALID-SPI",
            Self::INVALID_TRANSFORM_ID => "INVALID-TRANSFORM-ID",
            Self::ATTRIBUTES_NOT_SUPPORTED => "ATTRIBUTES-NOT-SUPPORTED",
            Self::NO_PROPOSAL_CHOSEN => "NO-PROPOSAL-CHOSEN",
            Self::BAD_PROPOSAL_SYNTAX => "BAD-PROPOSAL-SYNTAX",
            Self::PAYLOAD_MALFORMED => "PAYLOAD-MALFORMED",
            Self::INVALID_KEY_INFORMATION => "INVALID-KEY-INFORMATION",
            Self::INVALID_ID_INFORMATION => "INVALID-ID-INFORMATION",
            Self::INVALID_CERTIFICATE => "INVALID-CERTIFICATE",
            Self::INVALID_HASH_INFORMATION => "INVALID-HASH-INFORMATION",
            Self::AUTHENTICATION_FAILED => "AUTHENTICATION-FAILED",
            Self::INVALID_SIGNATURE => "INVALID-SIGNATURE",
            Self::UNEQUAL_PAYLOAD_LENGTHS => "UNEQUAL-PAYLOAD-LENGTHS",
            Self::CONNECTED => "CONNECTED",
            Self::RESPONDER_LIFETIME => "RESPONDER-LIFETIME",
            Self::REPLAY_STATUS => "REPLAY-STATUS",
            Self::INITIAL_CONTACT => "INITIAL-CONTACT",
            Self::R_U_THERE => "R-U-THERE",
            Self::R_U_THERE_ACK => "R-U-THERE-ACK",
            Self(number) => return write!(f, "NOTIFY-{number}"),
        })
    }
}

/// A notification.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Notification<'a> {
    /// Which kind of SA it is about.
    pub protocol: Protocol,
    /// The SA; both cookies, or the SPI of an AH or ESP SA. May be empty.
    pub spi: &'a [u8],
    /// What it says.
    pub kind: NotifyType,
    /// What belongs to it.
    pub data: &'a [u8],
}

impl<'a> Notification<'a> {
    /// Reads the payload.
    pub fn parse(body: &'a [u8]) -> Result<Self, Malformed> {
        let (&[d0, d1, d2, d3, protocol, spi_len, kind_hi, kind_lo], rest) = body
            .split_first_chunk::<8>()
            .ok_or(Malformed::Truncated("notification"))?;
        if u32::from_be_bytes([d0, d1, d2, d3]) > IPSEC_DOI {
            return Err(Malformed::BadValue("DOI"));
        }
        let (spi, data) = rest
            .split_at_checked(usize::from(spi_len))
            .ok_or(Malformed::Truncated("notification SPI"))?;
        Ok(Self {
            protocol: Protocol(protocol),
            spi,
            kind: NotifyType(u16::from_be_bytes([kind_hi, kind_lo])),
            data,
        })
    }

    /// Appends the payload. The format ends an SPI at 255 bytes; what is longer is cut.
    pub fn write(&self, out: &mut Vec<u8>) {
        let spi = self.spi.get(..usize::from(u8::MAX)).unwrap_or(self.spi);
        let spi_len = u8::try_from(spi.len()).unwrap_or(u8::MAX);
        out.extend_from_slice(&IPSEC_DOI.to_be_bytes());
        out.extend_from_slice(&[self.protocol.0, spi_len]);
        out.extend_from_slice(&self.kind.0.to_be_bytes());
        out.extend_from_slice(spi);
        out.extend_from_slice(self.data);
    }
}
