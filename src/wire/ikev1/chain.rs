//! The chain of payloads of a message (RFC 2408 §3.2).

use crate::wire::Malformed;
use crate::wire::isakmp::PayloadType;

/// One payload, borrowed from its message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Payload<'a> {
    /// What it holds.
    pub kind: PayloadType,
    /// The bytes behind the generic header.
    pub body: &'a [u8],
}

/// The payloads of one message, borrowed from its bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Payloads<'a> {
    list: Vec<Payload<'a>>,
    /// All of them with their generic headers, without padding.
    bytes: &'a [u8],
}

impl<'a> Payloads<'a> {
    /// The most payloads that one message may have.
    pub const MAX: usize = 64;

    /// Reads the payloads of a message that is not encrypted; they end where the message does.
    pub fn parse(first: PayloadType, bytes: &'a [u8]) -> Result<Self, Malformed> {
        let payloads = Self::parse_padded(first, bytes)?;
        if payloads.bytes.len() == bytes.len() {
            Ok(payloads)
        } else {
            Err(Malformed::BadLength("payload chain"))
        }
    }

    /// Reads the payloads of a decrypted message: padding may follow them (RFC 2409 appendix B).
    pub fn parse_padded(first: PayloadType, bytes: &'a [u8]) -> Result<Self, Malformed> {
        let mut list = Vec::new();
        let (mut next, mut rest) = (first, bytes);
        while next != PayloadType::NONE {
            if list.len() == Self::MAX {
                return Err(Malformed::BadLength("payload chain"));
            }
            let (&[following, _, len_hi, len_lo], _) = rest
                .split_first_chunk::<4>()
                .ok_or(Malformed::Truncated("payload header"))?;
            let length = usize::from(u16::from_be_bytes([len_hi, len_lo]));
            let (payload, behind) = rest
                .split_at_checked(length)
                .ok_or(Malformed::Truncated("payload"))?;
            let body = payload.get(4..).ok_or(Malformed::BadLength("payload"))?;
            list.push(Payload { kind: next, body });
            (next, rest) = (PayloadType(following), behind);
        }
        let end = bytes.len() - rest.len();
        let bytes = bytes.get(..end).unwrap_or(bytes);
        Ok(Self { list, bytes })
    }

    /// All of them, in order.
    pub fn iter(&self) -> impl Iterator<Item = Payload<'a>> {
        self.list.iter().copied()
    }

    /// The bodies of those of one kind, in order.
    pub fn of(&self, kind: PayloadType) -> impl Iterator<Item = &'a [u8]> {
        let of_kind = self.list.iter().filter(move |payload| payload.kind == kind);
        of_kind.map(|payload| payload.body)
    }

    /// The body of the only one of its kind; `None` where there is none, or more than one.
    pub fn single(&self, kind: PayloadType) -> Option<&'a [u8]> {
        let mut bodies = self.of(kind);
        let only = bodies.next()?;
        bodies.next().is_none().then_some(only)
    }

    /// The body of HASH, if it is the first payload, and the bytes of all that follow it: what
    /// HASH(1) and its kin cover (RFC 2409 §5.5).
    pub fn split_hash(&self) -> Option<(&'a [u8], &'a [u8])> {
        let first = self.list.first()?;
        let behind = self.bytes.get(4 + first.body.len()..)?;
        (first.kind == super::payload_type::HASH).then_some((first.body, behind))
    }
}
