//! What a peer that owns its keys puts into payloads, and how it takes them apart.

use lockgate::crypto::kex::KeyExchange;
use lockgate::ike::Identity;
use lockgate::wire::ikev2::{KePayload, Notify, NotifyType};
use lockgate::wire::isakmp::{PayloadChain, PayloadType};
use lockgate::wire::selector::TrafficSelector;

pub(super) type Payloads = Vec<(PayloadType, Vec<u8>)>;

/// Whether a chain holds this identity and this proof.
pub(super) fn says(first: PayloadType, text: &[u8], identity: &[u8], proof: &[u8]) -> bool {
    let chain: Payloads = PayloadChain::new(first, text)
        .map_while(Result::ok)
        .map(|payload| (payload.kind, payload.body.to_vec()))
        .collect();
    let auth = body(&chain, PayloadType::AUTH);
    body(&chain, PayloadType::ID_I) == Some(identity)
        && auth.is_some_and(|auth| auth.get(4..) == Some(proof))
}

pub(super) fn split(first: PayloadType, bytes: &[u8]) -> Payloads {
    PayloadChain::new(first, bytes)
        .map(|payload| payload.expect("what the endpoint sends is well-formed"))
        .map(|payload| (payload.kind, payload.body.to_vec()))
        .collect()
}

pub(super) fn body(payloads: &Payloads, kind: PayloadType) -> Option<&[u8]> {
    let found = payloads.iter().find(|(known, _)| *known == kind);
    found.map(|(_, body)| body.as_slice())
}

pub(super) fn identity(name: &str) -> Vec<u8> {
    let identity: Identity = name.parse().expect("a literal");
    identity.to_payload_body()
}

/// An SA payload with one proposal.
pub(super) fn offer(protocol: u8, spi: &[u8], transforms: &[&[u8]]) -> Vec<u8> {
    let list = transforms.concat();
    let (size, count) = (spi.len() as u8, transforms.len() as u8);
    let length = (8 + spi.len() + list.len()) as u16;
    let [high, low] = length.to_be_bytes();
    let start = [0, 0, high, low, 1, protocol, size, count];
    [&start[..], spi, &list].concat()
}

pub(super) fn ke(exchange: &KeyExchange) -> Vec<u8> {
    let mut body = Vec::new();
    KePayload {
        group: exchange.group(),
        data: exchange.public(),
    }
    .encode(&mut body);
    body
}

pub(super) fn selectors() -> Payloads {
    let list = |text: &str| {
        let mut body = Vec::new();
        TrafficSelector::encode_list(&[text.parse().expect("a literal")], &mut body);
        body
    };
    vec![
        (PayloadType::TS_I, list("10.2.0.0/24")),
        (PayloadType::TS_R, list("10.1.0.0/24")),
    ]
}

pub(super) fn notify_spi(kind: NotifyType, spi: u32) -> (PayloadType, Vec<u8>) {
    let mut body = Vec::new();
    Notify {
        protocol: 3,
        spi: &spi.to_be_bytes(),
        kind,
        data: &[],
    }
    .encode(&mut body);
    (PayloadType::NOTIFY, body)
}

pub(super) fn notify(kind: NotifyType, data: &[u8]) -> (PayloadType, Vec<u8>) {
    let mut body = Vec::new();
    Notify::new(kind, data).encode(&mut body);
    (PayloadType::NOTIFY, body)
}

/// What ties IKE_FOLLOWUP_KE to the answer before it (RFC 9370 §2.2.4).
pub(super) fn link(payloads: &Payloads) -> Option<Vec<u8>> {
    let mut notifies = payloads
        .iter()
        .filter(|(kind, _)| *kind == PayloadType::NOTIFY)
        .filter_map(|(_, body)| Notify::parse(body).ok());
    let link = notifies.find(|notify| notify.kind == NotifyType::ADDITIONAL_KEY_EXCHANGE);
    link.map(|link| link.data.to_vec())
}

pub(super) fn delete(protocol: u8, spi: u32) -> (PayloadType, Vec<u8>) {
    let body = [&[protocol, 4, 0, 1][..], &spi.to_be_bytes()].concat();
    (PayloadType::DELETE, body)
}

/// AES-256-GCM with a tag of 16 bytes, PRF_HMAC_SHA2_384, X25519.
pub(super) const IKE_TRANSFORMS: [&[u8]; 3] = [
    &[3, 0, 0, 12, 1, 0, 0, 20, 0x80, 14, 1, 0],
    &[3, 0, 0, 8, 2, 0, 0, 6],
    &[0, 0, 0, 8, 4, 0, 0, 31],
];

/// AES-256-GCM with a tag of 16 bytes, no extended sequence numbers.
pub(super) const ESP_TRANSFORMS: [&[u8]; 2] = [
    &[3, 0, 0, 12, 1, 0, 0, 20, 0x80, 14, 1, 0],
    &[0, 0, 0, 8, 5, 0, 0, 0],
];

/// What an IKE SA has, and ECP 256 as additional key exchange 1.
pub(super) const IKE_ADDITIONAL: [&[u8]; 4] = [
    IKE_TRANSFORMS[0],
    IKE_TRANSFORMS[1],
    &[3, 0, 0, 8, 4, 0, 0, 31],
    &[0, 0, 0, 8, 6, 0, 0, 19],
];

/// What a Child SA has, with X25519, and with ECP 256 as additional key exchange 1.
pub(super) const ESP_ADDITIONAL: [&[u8]; 4] = [
    ESP_TRANSFORMS[0],
    &[3, 0, 0, 8, 4, 0, 0, 31],
    &[3, 0, 0, 8, 6, 0, 0, 19],
    ESP_TRANSFORMS[1],
];
