//! One IKE message in clear: header, payload chain, and every payload body that has a format.

#![allow(clippy::indexing_slicing, reason = "a panic is how a target reports")]

use lockgate::wire::ikev2::{
    AuthPayload, Configuration, Delete, FragmentHeader, IdPayload, KePayload, Nonce, Notify,
    PayloadWriter, message_bytes,
};
use lockgate::wire::isakmp::{Header, PayloadChain, PayloadType, RawPayload};
use lockgate::wire::proposal::{SaProposal, Transform};
use lockgate::wire::selector::TrafficSelector;

/// What is written from a parsed body must parse to the same again.
pub(crate) fn run(datagram: &[u8]) {
    let Ok((header, payloads)) = Header::parse(datagram) else {
        return;
    };
    assert_eq!(header.encode(), datagram[..Header::LEN]);

    let chain: Result<Vec<_>, _> = PayloadChain::new(header.next_payload, payloads).collect();
    for payload in PayloadChain::new(header.next_payload, payloads).flatten() {
        body(&payload);
    }
    if let Ok(chain) = chain {
        rewrite(header, &chain);
    }
}

/// A chain that was read can be written, and reads the same.
fn rewrite(header: Header, chain: &[RawPayload<'_>]) {
    assert!(chain.len() <= PayloadChain::MAX);
    let sealed =
        |payload: &RawPayload<'_>| matches!(payload.kind, PayloadType::SK | PayloadType::SKF);
    if chain.iter().any(sealed) {
        return;
    }
    let mut writer = PayloadWriter::new();
    for payload in chain {
        writer.add(payload.kind, payload.body);
    }
    let message = message_bytes(header, writer.finish());
    let (again, payloads) = Header::parse(&message).expect("what we write, we read");
    let bodies: Vec<_> = PayloadChain::new(again.next_payload, payloads)
        .map(|payload| payload.expect("what we write, we read"))
        .map(|payload| (payload.kind, payload.body))
        .collect();
    assert_eq!(
        bodies,
        chain
            .iter()
            .map(|payload| (payload.kind, payload.body))
            .collect::<Vec<_>>()
    );
}

fn body(payload: &RawPayload<'_>) {
    let mut out = Vec::new();
    match payload.kind {
        PayloadType::CP => {
            let Ok(configuration) = Configuration::parse(payload.body) else {
                return;
            };
            configuration.encode(&mut out);
            assert_eq!(Configuration::parse(&out), Ok(configuration));
        }
        PayloadType::SA => {
            let Ok(list) = SaProposal::parse_list(payload.body) else {
                return;
            };
            let Some((first, _)) = list.first() else {
                return;
            };
            // Attributes of an unknown transform are not kept, so it cannot be written back.
            let unknown = |transform: &Transform| matches!(transform, Transform::Unknown { .. });
            if list
                .iter()
                .any(|(_, proposal)| proposal.transforms.iter().any(unknown))
            {
                return;
            }
            let proposals: Vec<_> = list.iter().map(|(_, proposal)| proposal.clone()).collect();
            SaProposal::encode_list(&proposals, &mut out);
            let again = SaProposal::parse_list(&out).expect("what we write, we read");
            assert!(again.iter().map(|(_, proposal)| proposal).eq(&proposals));
            out.clear();
            proposals[0].encode_answer(*first, &mut out);
            assert_eq!(SaProposal::parse_list(&out).as_deref(), Ok(&list[..1]));
        }
        PayloadType::TS_I | PayloadType::TS_R => {
            let Ok(list) = TrafficSelector::parse_list(payload.body) else {
                return;
            };
            list.iter().for_each(selector);
            if !list.is_empty() {
                TrafficSelector::encode_list(&list, &mut out);
                assert_eq!(TrafficSelector::parse_list(&out), Ok(list));
            }
        }
        PayloadType::KE => {
            let Ok(ke) = KePayload::parse(payload.body) else {
                return;
            };
            ke.encode(&mut out);
            assert_eq!(KePayload::parse(&out), Ok(ke));
        }
        PayloadType::ID_I | PayloadType::ID_R => {
            let Ok(id) = IdPayload::parse(payload.body) else {
                return;
            };
            id.encode(&mut out);
            assert_eq!(IdPayload::parse(&out), Ok(id));
        }
        PayloadType::AUTH => {
            let Ok(auth) = AuthPayload::parse(payload.body) else {
                return;
            };
            auth.encode(&mut out);
            assert_eq!(AuthPayload::parse(&out), Ok(auth));
        }
        PayloadType::NONCE => {
            let _ = Nonce::parse(payload.body);
        }
        PayloadType::NOTIFY => {
            let Ok(notify) = Notify::parse(payload.body) else {
                return;
            };
            notify.encode(&mut out);
            assert_eq!(out, payload.body);
            let _ = notify.kind.to_string();
        }
        PayloadType::DELETE => {
            let Ok(delete) = Delete::parse(payload.body) else {
                return;
            };
            assert_eq!(delete.spis().count() * 4, payload.body.len() - 4);
        }
        PayloadType::SKF => {
            let Ok((fragment, _)) = FragmentHeader::parse(payload.body) else {
                return;
            };
            assert!((1..=fragment.total).contains(&fragment.number));
        }
        _ => {}
    }
}

/// Text and prefixes say the same as the selector.
fn selector(selector: &TrafficSelector) {
    assert_eq!(selector.to_string().parse().as_ref(), Ok(selector));
    assert_eq!(selector.intersect(selector), Some(*selector));
    assert!(selector.is_subset_of(selector));
    let nets = selector.to_nets();
    assert_eq!(
        nets.first().map(|net| net.network()),
        Some(selector.start())
    );
    assert_eq!(nets.last().map(|net| net.broadcast()), Some(selector.end()));
    assert!(nets.len() <= 254);
}
