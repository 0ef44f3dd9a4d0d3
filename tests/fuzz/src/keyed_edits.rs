//! What a peer that owns its keys does to its payloads before it seals them.

use lockgate::wire::ikev2::PayloadWriter;
use lockgate::wire::isakmp::PayloadType;

use super::Script;
use super::payloads::Payloads;

/// A payload chain with up to six changes: what is right in most places gets deeper than noise.
pub(super) fn edited(mut payloads: Payloads, script: &mut Script<'_>) -> (PayloadType, Vec<u8>) {
    let edits = script.byte() % 7;
    let mut raw = Vec::new();
    for _ in 0..edits {
        let (what, place, value) = (script.byte(), usize::from(script.byte()), script.byte());
        let place = place.checked_rem(payloads.len()).unwrap_or(0);
        match what % 12 {
            0 => payloads.truncate(place),
            1 if !payloads.is_empty() => drop(payloads.remove(place)),
            2 => payloads.extend(payloads.get(place).cloned()),
            3 => payloads.rotate_left(place),
            4 => {
                let kind = u16::from_be_bytes([script.byte(), value]);
                let (size, data) = (script.byte() % 9, script.byte());
                let mut body = vec![script.byte() % 5, size];
                body.extend_from_slice(&kind.to_be_bytes());
                body.extend_from_slice(script.bytes(u16::from(size) + u16::from(data)));
                payloads.insert(place, (PayloadType::NOTIFY, body));
            }
            5 => payloads.insert(place, (PayloadType(value), script.bytes(16).to_vec())),
            6 => raw.push((script.byte(), value)),
            other => {
                let Some((kind, body)) = payloads.get_mut(place) else {
                    continue;
                };
                let at = usize::from(script.byte());
                match (other, body.get_mut(at)) {
                    (7, _) => *kind = PayloadType(value),
                    (8, _) => body.truncate(at),
                    (9, _) => body.extend_from_slice(script.bytes(value.into())),
                    (10, Some(byte)) => *byte = value,
                    (_, Some(byte)) => *byte = byte.wrapping_add(value),
                    (_, None) => {}
                }
            }
        }
    }
    let mut writer = PayloadWriter::new();
    for (kind, body) in payloads.iter().take(100) {
        writer.add(*kind, body);
    }
    let (first, mut text) = writer.finish();
    for (at, value) in raw {
        if let Some(byte) = text.get_mut(usize::from(at)) {
            *byte = value;
        }
    }
    (first, text)
}
