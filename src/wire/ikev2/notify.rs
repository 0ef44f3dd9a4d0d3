//! Notify payload (RFC 7296 §3.10).

use std::fmt;

use crate::wire::Malformed;

/// What is notified.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct NotifyType(pub u16);

#[allow(missing_docs, reason = "each constant is the IANA name")]
impl NotifyType {
    pub const UNSUPPORTED_CRITICAL_PAYLOAD: Self = Self(1);
    pub const INVALID_IKE_SPI: Self = Self(4);
    pub const INVALID_MAJOR_VERSION: Self = Self(5);
    pub const INVALID_SYNTAX: Self = Self(7);
    pub const INVALID_MESSAGE_ID: Self = Self(9);
    pub const INVALID_SPI: Self = Self(11);
    pub const NO_PROPOSAL_CHOSEN: Self = Self(14);
    pub const INVALID_KE_PAYLOAD: Self = Self(17);
    pub const AUTHENTICATION_FAILED: Self = Self(24);
    pub const SINGLE_PAIR_REQUIRED: Self = Self(34);
    pub const NO_ADDITIONAL_SAS: Self = Self(35);
    pub const INTERNAL_ADDRESS_FAILURE: Self = Self(36);
    pub const FAILED_CP_REQUIRED: Self = Self(37);
    pub const TS_UNACCEPTABLE: Self = Self(38);
    pub const INVALID_SELECTORS: Self = Self(39);
    pub const UNACCEPTABLE_ADDRESSES: Self = Self(40);
    pub const UNEXPECTED_NAT_DETECTED: Self = Self(41);
    pub const TEMPORARY_FAILURE: Self = Self(43);
    pub const CHILD_SA_NOT_FOUND: Self = Self(44);
    pub const STATE_NOT_FOUND: Self = Self(47);
    pub const TS_MAX_QUEUE: Self = Self(48);
    pub const INITIAL_CONTACT: Self = Self(16384);
    pub const SET_WINDOW_SIZE: Self = Self(16385);
    pub const ADDITIONAL_TS_POSSIBLE: Self = Self(16386);
    pub const IPCOMP_SUPPORTED: Self = Self(16387);
    pub const NAT_DETECTION_SOURCE_IP: Self = Self(16388);
    pub const NAT_DETECTION_DESTINATION_IP: Self = Self(16389);
    pub const COOKIE: Self = Self(16390);
    pub const USE_TRANSPORT_MODE: Self = Self(16391);
    pub const HTTP_CERT_LOOKUP_SUPPORTED: Self = Self(16392);
    pub const REKEY_SA: Self = Self(16393);
    pub const ESP_TFC_PADDING_NOT_SUPPORTED: Self = Self(16394);
    pub const NON_FIRST_FRAGMENTS_ALSO: Self = Self(16395);
    pub const MOBIKE_SUPPORTED: Self = Self(16396);
    pub const ADDITIONAL_IP4_ADDRESS: Self = Self(16397);
    pub const ADDITIONAL_IP6_ADDRESS: Self = Self(16398);
    pub const NO_ADDITIONAL_ADDRESSES: Self = Self(16399);
    pub const UPDATE_SA_ADDRESSES: Self = Self(16400);
    pub const COOKIE2: Self = Self(16401);
    pub const NO_NATS_ALLOWED: Self = Self(16402);
    pub const AUTH_LIFETIME: Self = Self(16403);
    pub const MULTIPLE_AUTH_SUPPORTED: Self = Self(16404);
    pub const REDIRECT_SUPPORTED: Self = Self(16406);
    pub const REDIRECT: Self = Self(16407);
    pub const REDIRECTED_FROM: Self = Self(16408);
    pub const TICKET_LT_OPAQUE: Self = Self(16409);
    pub const TICKET_REQUEST: Self = Self(16410);
    pub const TICKET_ACK: Self = Self(16411);
    pub const TICKET_NACK: Self = Self(16412);
    pub const TICKET_OPAQUE: Self = Self(16413);
    pub const EAP_ONLY_AUTHENTICATION: Self = Self(16417);
    pub const CHILDLESS_IKEV2_SUPPORTED: Self = Self(16418);
    pub const QUICK_CRASH_DETECTION: Self = Self(16419);
    pub const IKEV2_MESSAGE_ID_SYNC_SUPPORTED: Self = Self(16420);
    pub const IKEV2_MESSAGE_ID_SYNC: Self = Self(16422);
    pub const IKEV2_FRAGMENTATION_SUPPORTED: Self = Self(16430);
    pub const SIGNATURE_HASH_ALGORITHMS: Self = Self(16431);
    pub const USE_PPK: Self = Self(16435);
    pub const PPK_IDENTITY: Self = Self(16436);
    pub const NO_PPK_AUTH: Self = Self(16437);
    pub const INTERMEDIATE_EXCHANGE_SUPPORTED: Self = Self(16438);
    pub const ADDITIONAL_KEY_EXCHANGE: Self = Self(16441);
    pub const SUPPORTED_AUTH_METHODS: Self = Self(16443);
    pub const SA_RESOURCE_INFO: Self = Self(16444);
    pub const USE_PPK_INT: Self = Self(16445);
    pub const PPK_IDENTITY_KEY: Self = Self(16446);

    /// Below 16384: the request failed. An unknown error must be taken for a failure, an unknown
    /// status ignored.
    pub fn is_error(self) -> bool {
        self.0 < 16384
    }
}

impl fmt::Display for NotifyType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match *self {
            Self::UNSUPPORTED_CRITICAL_PAYLOAD => "UNSUPPORTED_CRITICAL_PAYLOAD",
            Self::INVALID_IKE_SPI => "INVALID_IKE_SPI",
            Self::INVALID_MAJOR_VERSION => "INVALID_MAJOR_VERSION",
            Self::INVALID_SYNTAX => "INVALID_SYNTAX",
            Self::INVALID_MESSAGE_ID => "INVALID_MESSAGE_ID",
            Self::INVALID_SPI => "INVALID_SPI",
            Self::NO_PROPOSAL_CHOSEN => "NO_PROPOSAL_CHOSEN",
            Self::INVALID_KE_PAYLOAD => "INVALID_KE_PAYLOAD",
            Self::AUTHENTICATION_FAILED => "AUTHENTICATION_FAILED",
            Self::SINGLE_PAIR_REQUIRED => "SINGLE_PAIR_REQUIRED",
            Self::NO_ADDITIONAL_SAS => "NO_ADDITIONAL_SAS",
            Self::INTERNAL_ADDRESS_FAILURE => "INTERNAL_ADDRESS_FAILURE",
            Self::FAILED_CP_REQUIRED => "FAILED_CP_REQUIRED",
            Self::TS_UNACCEPTABLE => "TS_UNACCEPTABLE",
            Self::INVALID_SELECTORS => "INVALID_SELECTORS",
            Self::UNACCEPTABLE_ADDRESSES => "UNACCEPTABLE_ADDRESSES",
            Self::UNEXPECTED_NAT_DETECTED => "UNEXPECTED_NAT_DETECTED",
            Self::TEMPORARY_FAILURE => "TEMPORARY_FAILURE",
            Self::CHILD_SA_NOT_FOUND => "CHILD_SA_NOT_FOUND",
            Self::STATE_NOT_FOUND => "STATE_NOT_FOUND",
            Self::TS_MAX_QUEUE => "TS_MAX_QUEUE",
            Self::INITIAL_CONTACT => "INITIAL_CONTACT",
            Self::SET_WINDOW_SIZE => "SET_WINDOW_SIZE",
            Self::ADDITIONAL_TS_POSSIBLE => "ADDITIONAL_TS_POSSIBLE",
            Self::IPCOMP_SUPPORTED => "IPCOMP_SUPPORTED",
            Self::NAT_DETECTION_SOURCE_IP => "NAT_DETECTION_SOURCE_IP",
            Self::NAT_DETECTION_DESTINATION_IP => "NAT_DETECTION_DESTINATION_IP",
            Self::COOKIE => "COOKIE",
            Self::USE_TRANSPORT_MODE => "USE_TRANSPORT_MODE",
            Self::HTTP_CERT_LOOKUP_SUPPORTED => "HTTP_CERT_LOOKUP_SUPPORTED",
            Self::REKEY_SA => "REKEY_SA",
            Self::ESP_TFC_PADDING_NOT_SUPPORTED => "ESP_TFC_PADDING_NOT_SUPPORTED",
            Self::NON_FIRST_FRAGMENTS_ALSO => "NON_FIRST_FRAGMENTS_ALSO",
            Self::MOBIKE_SUPPORTED => "MOBIKE_SUPPORTED",
            Self::ADDITIONAL_IP4_ADDRESS => "ADDITIONAL_IP4_ADDRESS",
            Self::ADDITIONAL_IP6_ADDRESS => "ADDITIONAL_IP6_ADDRESS",
            Self::NO_ADDITIONAL_ADDRESSES => "NO_ADDITIONAL_ADDRESSES",
            Self::UPDATE_SA_ADDRESSES => "UPDATE_SA_ADDRESSES",
            Self::COOKIE2 => "COOKIE2",
            Self::NO_NATS_ALLOWED => "NO_NATS_ALLOWED",
            Self::AUTH_LIFETIME => "AUTH_LIFETIME",
            Self::MULTIPLE_AUTH_SUPPORTED => "MULTIPLE_AUTH_SUPPORTED",
            Self::REDIRECT_SUPPORTED => "REDIRECT_SUPPORTED",
            Self::REDIRECT => "REDIRECT",
            Self::REDIRECTED_FROM => "REDIRECTED_FROM",
            Self::TICKET_LT_OPAQUE => "TICKET_LT_OPAQUE",
            Self::TICKET_REQUEST => "TICKET_REQUEST",
            Self::TICKET_ACK => "TICKET_ACK",
            Self::TICKET_NACK => "TICKET_NACK",
            Self::TICKET_OPAQUE => "TICKET_OPAQUE",
            Self::EAP_ONLY_AUTHENTICATION => "EAP_ONLY_AUTHENTICATION",
            Self::CHILDLESS_IKEV2_SUPPORTED => "CHILDLESS_IKEV2_SUPPORTED",
            Self::QUICK_CRASH_DETECTION => "QUICK_CRASH_DETECTION",
            Self::IKEV2_MESSAGE_ID_SYNC_SUPPORTED => "IKEV2_MESSAGE_ID_SYNC_SUPPORTED",
            Self::IKEV2_MESSAGE_ID_SYNC => "IKEV2_MESSAGE_ID_SYNC",
            Self::IKEV2_FRAGMENTATION_SUPPORTED => "IKEV2_FRAGMENTATION_SUPPORTED",
            Self::SIGNATURE_HASH_ALGORITHMS => "SIGNATURE_HASH_ALGORITHMS",
            Self::USE_PPK => "USE_PPK",
            Self::PPK_IDENTITY => "PPK_IDENTITY",
            Self::NO_PPK_AUTH => "NO_PPK_AUTH",
            Self::ADDITIONAL_KEY_EXCHANGE => "ADDITIONAL_KEY_EXCHANGE",
            Self::USE_PPK_INT => "USE_PPK_INT",
            Self::PPK_IDENTITY_KEY => "PPK_IDENTITY_KEY",
            Self::INTERMEDIATE_EXCHANGE_SUPPORTED => "INTERMEDIATE_EXCHANGE_SUPPORTED",
            Self::SUPPORTED_AUTH_METHODS => "SUPPORTED_AUTH_METHODS",
            Self::SA_RESOURCE_INFO => "SA_RESOURCE_INFO",
            Self(number) => return write!(f, "NOTIFY_{number}"),
        };
        f.write_str(name)
    }
}

/// One notification.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Notify<'a> {
    /// Protocol of `spi`; 0 where there is none.
    pub protocol: u8,
    /// The SA it is about; empty for the IKE SA.
    pub spi: &'a [u8],
    /// What is notified.
    pub kind: NotifyType,
    /// Detail, whose format `kind` decides.
    pub data: &'a [u8],
}

impl<'a> Notify<'a> {
    /// A notification about no particular Child SA.
    pub fn new(kind: NotifyType, data: &'a [u8]) -> Self {
        Self {
            protocol: 0,
            spi: &[],
            kind,
            data,
        }
    }

    /// Reads the payload.
    pub fn parse(body: &'a [u8]) -> Result<Self, Malformed> {
        let (&[protocol, spi_len, k0, k1], rest) = body
            .split_first_chunk::<4>()
            .ok_or(Malformed::Truncated("notify payload"))?;
        let (spi, data) = rest
            .split_at_checked(usize::from(spi_len))
            .ok_or(Malformed::Truncated("notify SPI"))?;
        Ok(Self {
            protocol,
            spi,
            kind: NotifyType(u16::from_be_bytes([k0, k1])),
            data,
        })
    }

    /// Appends the payload; its SPI is at most 255 bytes long.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let spi = self.spi.get(..255).unwrap_or(self.spi);
        let spi_len = u8::try_from(spi.len()).unwrap_or(u8::MAX);
        let [k0, k1] = self.kind.0.to_be_bytes();
        out.extend_from_slice(&[self.protocol, spi_len, k0, k1]);
        out.extend_from_slice(spi);
        out.extend_from_slice(self.data);
    }
}
