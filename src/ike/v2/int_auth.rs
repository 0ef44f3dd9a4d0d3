//! IntAuth (RFC 9242 §3.3.2): what AUTH covers of the IKE_INTERMEDIATE exchanges. It is computed over
//! whole messages in clear, so that it does not matter in how many fragments they travel.

use crate::crypto::prf::Prf;
use crate::wire::ikev2::PayloadWriter;
use crate::wire::isakmp::{Header, PayloadChain, PayloadType};

use super::message::Datagram;
use super::protect::{AuthKeys, Opened};

/// The cumulative values IntAuth_i and IntAuth_r; empty before the first exchange.
#[derive(Debug, Default)]
pub(super) struct IntAuth {
    initiator: Vec<u8>,
    responder: Vec<u8>,
}

impl IntAuth {
    /// Adds one exchange, under the keys that protected it.
    pub(super) fn cover(&mut self, prf: Prf, keys: &AuthKeys, request: &[u8], response: &[u8]) {
        let next = |key: &[u8], before: &[u8], message| {
            let value = prf.mac(key, &[before, message]);
            value.as_bytes().to_vec()
        };
        self.initiator = next(keys.initiator.as_bytes(), &self.initiator, request);
        self.responder = next(keys.responder.as_bytes(), &self.responder, response);
    }

    pub(super) fn is_begun(&self) -> bool {
        !self.initiator.is_empty()
    }

    /// What both sides append to what they sign, given the message ID of IKE_AUTH.
    pub(super) fn octets(&self, message_id: u32) -> Vec<u8> {
        if !self.is_begun() {
            return Vec::new();
        }
        let id = message_id.to_be_bytes();
        [&self.initiator[..], &self.responder, &id].concat()
    }
}

/// A message of ours as IntAuth covers it.
pub(super) fn of_sent(header: Header, payloads: &PayloadWriter) -> Vec<u8> {
    let (first, text) = payloads.clone().finish();
    let header = Header {
        next_payload: PayloadType::SK,
        ..header
    };
    adjusted(&header.encode(), (first, 0), &text)
}

/// A message of the peer as IntAuth covers it; `datagram` is the whole one, or its fragment 1.
pub(super) fn of_received(datagram: &Datagram<'_>, opened: &Opened) -> Vec<u8> {
    let (first, text) = opened.inner();
    let Ok((header, payloads)) = Header::parse(datagram.bytes) else {
        return Vec::new(); // it has been parsed before
    };
    let (mut end, mut named_at) = (Header::LEN, NEXT_PAYLOAD);
    for payload in PayloadChain::new(header.next_payload, payloads).flatten() {
        if matches!(payload.kind, PayloadType::SK | PayloadType::SKF) {
            break;
        }
        named_at = end;
        end += GENERIC_HEADER + payload.body.len();
    }
    let mut clear = datagram.bytes.get(..end).unwrap_or_default().to_vec();
    if let Some(next) = clear.get_mut(named_at) {
        *next = PayloadType::SK.0;
    }
    let flags = datagram.bytes.get(end + 1).copied().unwrap_or_default();
    adjusted(&clear, (first, flags), text)
}

/// A message without IV, padding and ICV, and with lengths that do not count them.
fn adjusted(clear: &[u8], (first, flags): (PayloadType, u8), text: &[u8]) -> Vec<u8> {
    let len = u16::try_from(GENERIC_HEADER + text.len()).unwrap_or(u16::MAX);
    let generic = [&[first.0, flags], &len.to_be_bytes()[..]].concat();
    let mut message = [clear, &generic, text].concat();
    let total = u32::try_from(message.len()).unwrap_or(u32::MAX);
    if let Some(length) = message.get_mut(LENGTH..LENGTH + 4) {
        length.copy_from_slice(&total.to_be_bytes());
    }
    message
}

const GENERIC_HEADER: usize = 4;
/// Places in the IKE header.
const NEXT_PAYLOAD: usize = 16;
const LENGTH: usize = 24;
