//! Proposals for a Child SA that are too many, of no use, or against the format (HOSTILE B13, B14).

use super::{Breach, CREATE, FINE, Outcome, PROPOSAL, SYNTAX, Stage, changed, create, ignored};
use lockgate::ike::Discard;

/// A transform: type, identifier and attributes.
type Transform = (u8, u16, Vec<u8>);

/// ENCR_AES_GCM_16 with this attribute, and the rest of a proposal that B takes.
fn sealed_with(attribute: &[u8]) -> Vec<Transform> {
    let mut all = good();
    all[0].2 = attribute.to_vec();
    all
}

/// ENCR_AES_GCM_16 of 256 bits, X25519, extended sequence numbers or not.
fn good() -> Vec<Transform> {
    let bare = |kind, id| (kind, id, vec![]);
    vec![
        (1, 20, KEY_256.to_vec()),
        bare(4, 31),
        bare(5, 1),
        bare(5, 0),
    ]
}

const KEY_256: [u8; 4] = [0x80, 14, 1, 0];

/// The body of an SA payload with these proposals for ESP.
fn body(proposals: &[Vec<Transform>]) -> Vec<u8> {
    let mut body = Vec::new();
    for (place, transforms) in proposals.iter().enumerate() {
        let mut inner = Vec::new();
        for (place, (kind, id, attributes)) in transforms.iter().enumerate() {
            let more = if place + 1 < transforms.len() { 3 } else { 0 };
            let [high, low] = id.to_be_bytes();
            let length = u8::try_from(8 + attributes.len()).unwrap();
            inner.extend([more, 0, 0, length, *kind, 0, high, low]);
            inner.extend(attributes);
        }
        let more = if place + 1 < proposals.len() { 2 } else { 0 };
        let [high, low] = u16::try_from(12 + inner.len()).unwrap().to_be_bytes();
        let number = u8::try_from(place % 255 + 1).unwrap();
        let count = u8::try_from(transforms.len()).unwrap();
        body.extend([more, 0, high, low, number, 3, 4, count, 0x10, 0, 0, 2]);
        body.extend(inner);
    }
    body
}

fn breach(name: &str, outcome: Outcome, proposals: &[Vec<Transform>]) -> Breach {
    let body = body(proposals);
    let make = changed(create, CREATE, move |payloads| {
        payloads[0].1.clone_from(&body);
    });
    Breach::new(name, Stage::Up, outcome, make)
}

/// `count` ciphers that nobody knows.
fn unknown(count: u16) -> Vec<Transform> {
    (0..count).map(|id| (1, 1024 + id, vec![])).collect()
}

pub(super) fn all() -> Vec<Breach> {
    let mut all = many();
    for (name, attribute) in [
        ("no key length", &[][..]),
        ("a key of 0 bits", &[0x80, 14, 0, 0]),
        ("a key of 7 bits", &[0x80, 14, 0, 7]),
        ("a key of 257 bits", &[0x80, 14, 1, 1]),
        ("a key of 65535 bits", &[0x80, 14, 255, 255]),
        ("another attribute instead", &[0x80, 99, 1, 0]),
        ("a key length in the long form", &[0, 14, 0, 2, 1, 0]),
        ("two key lengths", &[0x80, 14, 1, 0, 0x80, 14, 0, 128]),
    ] {
        all.push(breach(name, PROPOSAL, &[sealed_with(attribute)]));
    }
    for (name, attribute) in [
        ("an attribute past the end", &[0, 14, 0, 9, 1, 0][..]),
        ("half an attribute", &[0x80, 14]),
    ] {
        all.push(breach(name, SYNTAX, &[sealed_with(attribute)]));
    }
    let with = |more: &[(u8, u16)]| {
        let mut transforms = good();
        transforms.extend(more.iter().map(|(kind, id)| (*kind, *id, vec![])));
        vec![transforms]
    };
    let without = |kind: u8| {
        let mut transforms = good();
        transforms.retain(|(known, ..)| *known != kind);
        vec![transforms]
    };
    let cipher = |id: u16, more: &[(u8, u16)]| {
        let mut proposals = with(more);
        proposals[0][0].1 = id;
        proposals
    };
    let cases = [
        ("GMAC alone", PROPOSAL, cipher(21, &[])),
        ("GMAC with encryption", PROPOSAL, cipher(21, &[(1, 12)])),
        ("GMAC with integrity", PROPOSAL, cipher(21, &[(3, 12)])),
        ("encryption without integrity", PROPOSAL, cipher(12, &[])),
        ("NULL with integrity", PROPOSAL, cipher(11, &[(3, 12)])),
        ("an AEAD with integrity", PROPOSAL, with(&[(3, 12)])),
        ("an AEAD with integrity NONE", FINE, with(&[(3, 0)])),
        ("a private cipher besides", FINE, with(&[(1, 1025)])),
        ("a private type besides", PROPOSAL, with(&[(241, 1)])),
        ("no cipher", PROPOSAL, without(1)),
        // Old peers leave it out, and mean 32 bits.
        ("no word on sequence numbers", FINE, without(5)),
    ];
    let cases = cases.map(|(name, outcome, proposals)| breach(name, outcome, &proposals));
    all.extend(cases);
    all
}

/// B13: as many proposals and transforms as there can be.
fn many() -> Vec<Breach> {
    let last = |mut proposals: Vec<Vec<Transform>>| {
        proposals.push(good());
        proposals
    };
    vec![
        breach("255 proposals of no use", PROPOSAL, &vec![unknown(4); 255]),
        breach("255 ciphers of no use", PROPOSAL, &[unknown(255)]),
        breach(
            "7 x 255 ciphers of no use",
            PROPOSAL,
            &vec![unknown(255); 7],
        ),
        breach("a good one after 254", FINE, &last(vec![unknown(4); 254])),
        breach(
            "31 x 255 ciphers",
            ignored(Discard::TooLong),
            &vec![unknown(255); 31],
        ),
    ]
}
