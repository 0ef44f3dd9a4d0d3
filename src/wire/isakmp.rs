//! The ISAKMP header and the chain of payloads behind it (RFC 7296 §3.1, §3.2), which IKEv1
//! has in the same shape (RFC 2408 §3.1).

use std::fmt;

use super::Malformed;

/// One side's half of the name of an IKE SA.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct IkeSpi(pub [u8; 8]);

impl IkeSpi {
    /// The responder's SPI before it has chosen one.
    pub const ZERO: Self = Self([0; 8]);

    /// Not chosen yet.
    pub fn is_zero(self) -> bool {
        self == Self::ZERO
    }
}

impl fmt::Display for IkeSpi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", u64::from_be_bytes(self.0))
    }
}

impl fmt::Debug for IkeSpi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "IkeSpi({self})")
    }
}

/// What a message is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ExchangeType(pub u8);

#[allow(missing_docs, reason = "each constant is the IANA name")]
impl ExchangeType {
    pub const IDENTITY_PROTECTION: Self = Self(2);
    pub const AGGRESSIVE: Self = Self(4);
    /// Informational of IKEv1.
    pub const INFORMATIONAL_V1: Self = Self(5);
    pub const TRANSACTION: Self = Self(6);
    pub const QUICK_MODE: Self = Self(32);
    pub const IKE_SA_INIT: Self = Self(34);
    pub const IKE_AUTH: Self = Self(35);
    pub const CREATE_CHILD_SA: Self = Self(36);
    pub const INFORMATIONAL: Self = Self(37);
    pub const IKE_SESSION_RESUME: Self = Self(38);
    pub const IKE_INTERMEDIATE: Self = Self(43);
    pub const IKE_FOLLOWUP_KE: Self = Self(44);
}

impl fmt::Display for ExchangeType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::IDENTITY_PROTECTION => f.write_str("Identity Protection"),
            Self::AGGRESSIVE => f.write_str("Aggressive"),
            Self::INFORMATIONAL_V1 => f.write_str("Informational"),
            Self::TRANSACTION => f.write_str("Transaction"),
            Self::QUICK_MODE => f.write_str("Quick Mode"),
            Self::IKE_SA_INIT => f.write_str("IKE_SA_INIT"),
            Self::IKE_AUTH => f.write_str("IKE_AUTH"),
            Self::CREATE_CHILD_SA => f.write_str("CREATE_CHILD_SA"),
            Self::INFORMATIONAL => f.write_str("INFORMATIONAL"),
            Self::IKE_SESSION_RESUME => f.write_str("IKE_SESSION_RESUME"),
            Self::IKE_INTERMEDIATE => f.write_str("IKE_INTERMEDIATE"),
            Self::IKE_FOLLOWUP_KE => f.write_str("IKE_FOLLOWUP_KE"),
            Self(number) => write!(f, "EXCHANGE_{number}"),
        }
    }
}

/// What a payload holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct PayloadType(pub u8);

#[allow(missing_docs, reason = "each constant is the IANA notation")]
impl PayloadType {
    /// No payload follows.
    pub const NONE: Self = Self(0);
    pub const SA: Self = Self(33);
    pub const KE: Self = Self(34);
    pub const ID_I: Self = Self(35);
    pub const ID_R: Self = Self(36);
    pub const CERT: Self = Self(37);
    pub const CERTREQ: Self = Self(38);
    pub const AUTH: Self = Self(39);
    pub const NONCE: Self = Self(40);
    pub const NOTIFY: Self = Self(41);
    pub const DELETE: Self = Self(42);
    pub const VENDOR_ID: Self = Self(43);
    pub const TS_I: Self = Self(44);
    pub const TS_R: Self = Self(45);
    pub const SK: Self = Self(46);
    pub const CP: Self = Self(47);
    pub const EAP: Self = Self(48);
    pub const SKF: Self = Self(53);

    /// One that RFC 7296 or RFC 7383 defines; all others are "unknown" to the critical bit.
    pub fn is_known(self) -> bool {
        matches!(self.0, 33..=48 | 53)
    }
}

/// The flags of a message; undefined bits are ignored and sent as zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub struct Flags(pub u8);

impl Flags {
    /// IKEv1: what follows the header is encrypted (RFC 2408 §3.1).
    pub const ENCRYPTION: u8 = 0x01;
    /// IKEv1: the SA is not to be used before a CONNECTED notification (RFC 2408 §3.1).
    pub const COMMIT: u8 = 0x02;
    /// Sent by the original initiator of the IKE SA.
    pub const INITIATOR: u8 = 0x08;
    /// The sender could speak a higher major version.
    pub const VERSION: u8 = 0x10;
    /// Answers a request.
    pub const RESPONSE: u8 = 0x20;

    /// Flags of a message of ours.
    pub fn new(initiator: bool, response: bool) -> Self {
        let initiator = if initiator { Self::INITIATOR } else { 0 };
        let response = if response { Self::RESPONSE } else { 0 };
        Self(initiator | response)
    }

    /// Sent by the original initiator of the IKE SA.
    pub fn initiator(self) -> bool {
        self.0 & Self::INITIATOR != 0
    }

    /// Answers a request.
    pub fn response(self) -> bool {
        self.0 & Self::RESPONSE != 0
    }

    /// The sender could speak a higher major version.
    pub fn version_bit(self) -> bool {
        self.0 & Self::VERSION != 0
    }
}

/// The fixed header of every message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Chosen by the side that opened the IKE SA.
    pub initiator_spi: IkeSpi,
    /// Chosen by the other side; zero in its first request.
    pub responder_spi: IkeSpi,
    /// Kind of the first payload.
    pub next_payload: PayloadType,
    /// Major version in the high four bits, minor in the low.
    pub version: u8,
    /// What the message is about.
    pub exchange: ExchangeType,
    /// Direction and role.
    pub flags: Flags,
    /// Numbers requests; a response repeats it.
    pub message_id: u32,
    /// Header and payloads, in bytes.
    pub length: u32,
}

impl Header {
    /// Bytes on the wire.
    pub const LEN: usize = 28;
    /// ISAKMP and IKEv1.
    pub const VERSION_1_0: u8 = 0x10;
    /// IKEv2.
    pub const VERSION_2_0: u8 = 0x20;

    /// Reads the header and returns the payload bytes behind it. The length field must be the
    /// datagram's length. Version and exchange are left for the caller to judge.
    pub fn parse(datagram: &[u8]) -> Result<(Self, &[u8]), Malformed> {
        let (header, payloads) = datagram
            .split_first_chunk::<{ Self::LEN }>()
            .ok_or(Malformed::Truncated("header"))?;
        let header = Self::from_bytes(*header);
        if usize::try_from(header.length) != Ok(datagram.len()) {
            return Err(Malformed::BadLength("message"));
        }
        Ok((header, payloads))
    }

    #[rustfmt::skip]
    fn from_bytes(bytes: [u8; Self::LEN]) -> Self {
        let [
            i0, i1, i2, i3, i4, i5, i6, i7,
            r0, r1, r2, r3, r4, r5, r6, r7,
            next, version, exchange, flags,
            m0, m1, m2, m3, l0, l1, l2, l3,
        ] = bytes;
        Self {
            initiator_spi: IkeSpi([i0, i1, i2, i3, i4, i5, i6, i7]),
            responder_spi: IkeSpi([r0, r1, r2, r3, r4, r5, r6, r7]),
            next_payload: PayloadType(next),
            version,
            exchange: ExchangeType(exchange),
            flags: Flags(flags),
            message_id: u32::from_be_bytes([m0, m1, m2, m3]),
            length: u32::from_be_bytes([l0, l1, l2, l3]),
        }
    }

    /// The header as bytes.
    #[rustfmt::skip]
    pub fn encode(&self) -> [u8; Self::LEN] {
        let [i0, i1, i2, i3, i4, i5, i6, i7] = self.initiator_spi.0;
        let [r0, r1, r2, r3, r4, r5, r6, r7] = self.responder_spi.0;
        let [m0, m1, m2, m3] = self.message_id.to_be_bytes();
        let [l0, l1, l2, l3] = self.length.to_be_bytes();
        [
            i0, i1, i2, i3, i4, i5, i6, i7,
            r0, r1, r2, r3, r4, r5, r6, r7,
            self.next_payload.0, self.version, self.exchange.0, self.flags.0,
            m0, m1, m2, m3, l0, l1, l2, l3,
        ]
    }

    /// Major version.
    pub fn major_version(&self) -> u8 {
        self.version >> 4
    }
}

/// One payload, borrowed from its message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RawPayload<'a> {
    /// What it holds.
    pub kind: PayloadType,
    /// A receiver that does not know `kind` must refuse the message.
    pub critical: bool,
    /// The Next Payload field; for SK and SKF the first payload inside.
    pub next: PayloadType,
    /// The bytes behind the generic header.
    pub body: &'a [u8],
}

/// Walks the payloads of a message (RFC 7296 §3.2), borrowing each from the datagram.
///
/// Iteration reports the first error and ends; it never panics and never allocates. SK and SKF end
/// the chain and must be last. More than [`PayloadChain::MAX`] payloads are an error.
#[derive(Clone, Debug)]
pub struct PayloadChain<'a> {
    next: PayloadType,
    rest: &'a [u8],
    left: usize,
}

impl<'a> PayloadChain<'a> {
    /// The most payloads that one chain may have.
    pub const MAX: usize = 64;

    /// A chain whose first payload is a `first`.
    pub fn new(first: PayloadType, bytes: &'a [u8]) -> Self {
        Self {
            next: first,
            rest: bytes,
            left: Self::MAX,
        }
    }

    fn take_one(&mut self) -> Result<RawPayload<'a>, Malformed> {
        self.left = self
            .left
            .checked_sub(1)
            .ok_or(Malformed::BadLength("payload chain"))?;
        let (&[next, flags, len_hi, len_lo], _) = self
            .rest
            .split_first_chunk::<4>()
            .ok_or(Malformed::Truncated("payload header"))?;
        let length = usize::from(u16::from_be_bytes([len_hi, len_lo]));
        let (payload, rest) = self
            .rest
            .split_at_checked(length)
            .ok_or(Malformed::Truncated("payload"))?;
        let body = payload.get(4..).ok_or(Malformed::BadLength("payload"))?;
        let (kind, next) = (self.next, PayloadType(next));
        let encrypted = matches!(kind, PayloadType::SK | PayloadType::SKF);
        if !rest.is_empty() && (encrypted || next == PayloadType::NONE) {
            return Err(Malformed::BadLength("payload chain"));
        }

        let following = if encrypted { PayloadType::NONE } else { next };
        (self.next, self.rest) = (following, rest);
        Ok(RawPayload {
            kind,
            critical: flags & CRITICAL != 0,
            next,
            body,
        })
    }
}

impl<'a> Iterator for PayloadChain<'a> {
    type Item = Result<RawPayload<'a>, Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.next == PayloadType::NONE && self.rest.is_empty() {
            return None;
        }
        let payload = match self.next {
            PayloadType::NONE => Err(Malformed::BadLength("payload chain")),
            _ => self.take_one(),
        };
        if payload.is_err() {
            (self.next, self.rest) = (PayloadType::NONE, &[]);
        }
        Some(payload)
    }
}

const CRITICAL: u8 = 0x80;
