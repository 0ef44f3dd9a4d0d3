//! Writes chains of payloads (RFC 7296 §3.2).

use std::fmt;

use crate::wire::isakmp::{Header, PayloadType};

/// Builds the payloads of one message, or of one SK payload.
#[derive(Clone, Default)]
pub struct PayloadWriter {
    first: PayloadType,
    bytes: Vec<u8>,
    /// Where the last payload's Next Payload field is.
    last: Option<usize>,
}

impl PayloadWriter {
    /// An empty chain.
    pub fn new() -> Self {
        Self {
            bytes: Vec::with_capacity(USUAL_LEN),
            ..Self::default()
        }
    }

    /// Appends a payload with this body.
    pub fn add(&mut self, kind: PayloadType, body: &[u8]) -> &mut Self {
        self.add_with(kind, |out| out.extend_from_slice(body))
    }

    /// Appends a payload whose body `write` appends. The format ends a body at 65 531 bytes, and
    /// what is longer is cut there.
    pub fn add_with(&mut self, kind: PayloadType, write: impl FnOnce(&mut Vec<u8>)) -> &mut Self {
        match self.last.and_then(|last| self.bytes.get_mut(last)) {
            Some(next) => *next = kind.0,
            None => self.first = kind,
        }
        let start = self.bytes.len();
        self.bytes
            .extend_from_slice(&[PayloadType::NONE.0, 0, 0, 0]);
        write(&mut self.bytes);

        self.bytes.truncate(start + usize::from(u16::MAX));
        let length = u16::try_from(self.bytes.len() - start).unwrap_or(u16::MAX);
        if let Some(field) = self.bytes.get_mut(start + 2..start + 4) {
            field.copy_from_slice(&length.to_be_bytes());
        }
        self.last = Some(start);
        self
    }

    /// Kind of the first payload, and all payloads.
    pub fn finish(self) -> (PayloadType, Vec<u8>) {
        (self.first, self.bytes)
    }
}

/// Without the bytes, which may be secret.
impl fmt::Debug for PayloadWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PayloadWriter({} bytes)", self.bytes.len())
    }
}

/// A whole message in clear; first payload and length of `header` are filled in here.
pub fn message_bytes(header: Header, payloads: (PayloadType, Vec<u8>)) -> Vec<u8> {
    let (next_payload, payloads) = payloads;
    let length = u32::try_from(Header::LEN + payloads.len()).unwrap_or(u32::MAX);
    let header = Header {
        next_payload,
        length,
        ..header
    };
    [&header.encode(), payloads.as_slice()].concat()
}

/// Most messages fit.
const USUAL_LEN: usize = 512;
