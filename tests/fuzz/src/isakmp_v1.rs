//! One IKEv1 message in clear: header, payload chain, and every payload body that has a format.

#![allow(clippy::indexing_slicing, reason = "a panic is how a target reports")]

use lockgate::wire::ikev1::vendor_id::VendorId;
use lockgate::wire::ikev1::{
    AttributesPayload, Delete, Fragment, IdPayload, IsakmpTransform, Notification, OriginalAddress,
    Payload, Payloads, ProposalPayload, Protocol, QuickTransform, SaPayload, payload_type,
    write_sa,
};
use lockgate::wire::isakmp::{Flags, Header};

/// What is written from a parsed body must parse to the same again.
pub(crate) fn run(datagram: &[u8]) {
    let Ok((header, bytes)) = Header::parse(datagram) else {
        return;
    };
    let padded = Payloads::parse_padded(header.next_payload, bytes);
    let whole = Payloads::parse(header.next_payload, bytes);
    let Ok(payloads) = padded else {
        return assert!(whole.is_err(), "padding only makes more acceptable");
    };
    assert!(payloads.iter().count() <= Payloads::MAX);
    if header.flags.0 & Flags::ENCRYPTION == 0 && whole.is_ok() {
        assert_eq!(whole, Ok(payloads.clone()));
    }
    if let Some((hash, behind)) = payloads.split_hash() {
        assert!(4 + hash.len() + behind.len() <= bytes.len());
    }
    payloads.iter().for_each(body);
}

fn body(payload: Payload<'_>) {
    let body = payload.body;
    let mut out = Vec::new();
    match payload.kind {
        payload_type::SA => {
            let Ok(sa) = SaPayload::parse(body) else {
                return;
            };
            write_sa(&sa.proposals, &mut out);
            let again = SaPayload::parse(&out).expect("what we write, we read");
            assert_eq!(again.proposals, sa.proposals[..sa.proposals.len().min(255)]);
            sa.proposals.iter().for_each(transforms);
        }
        payload_type::ID => {
            let Ok(id) = IdPayload::parse(body) else {
                return;
            };
            id.write(&mut out);
            assert_eq!(out, body);
            if let Ok(selector) = id.selector() {
                out.clear();
                let written = IdPayload::write_selector(&selector, &mut out);
                written.expect("one port or all is what it came with");
                let again = IdPayload::parse(&out).expect("what we write, we read");
                assert_eq!(again.selector(), Ok(selector));
            }
        }
        payload_type::NOTIFICATION => {
            let Ok(notification) = Notification::parse(body) else {
                return;
            };
            notification.write(&mut out);
            assert_eq!(Notification::parse(&out), Ok(notification));
            let _ = notification.kind.to_string();
        }
        payload_type::DELETE => {
            let Ok(delete) = Delete::parse(body) else {
                return;
            };
            let named = 4 * delete.spis().count() + 16 * delete.cookies().count();
            assert_eq!(named, body.len() - 8);
        }
        payload_type::ATTRIBUTES => {
            let Ok(attributes) = AttributesPayload::parse(body) else {
                return;
            };
            attributes.write(&mut out);
            assert_eq!(AttributesPayload::parse(&out), Ok(attributes));
        }
        payload_type::NAT_OA | payload_type::NAT_OA_DRAFT => {
            let Ok(original) = OriginalAddress::parse(body) else {
                return;
            };
            original.write(&mut out);
            assert_eq!(OriginalAddress::parse(&out), Ok(original));
        }
        payload_type::FRAGMENT => {
            let Ok(fragment) = Fragment::parse(body) else {
                return;
            };
            fragment.write(&mut out);
            assert_eq!(Fragment::parse(&out), Ok(fragment));
        }
        payload_type::VENDOR_ID => {
            let _ = VendorId::recognise(body);
        }
        _ => {}
    }
}

/// What we know of a transform is written so that it reads the same.
fn transforms(proposal: &ProposalPayload<'_>) {
    for transform in &proposal.transforms {
        let mut out = Vec::new();
        if proposal.protocol == Protocol::ISAKMP {
            if let Ok(mut read) = IsakmpTransform::parse(transform.attributes) {
                read.unknown = None;
                limit(&mut read.lifetime.seconds);
                limit(&mut read.lifetime.kilobytes);
                read.write(&mut out);
                assert_eq!(IsakmpTransform::parse(&out), Ok(read));
            }
        } else if let Ok(mut read) = QuickTransform::parse(transform.attributes) {
            read.unknown = None;
            limit(&mut read.lifetime.seconds);
            limit(&mut read.lifetime.kilobytes);
            read.write(&mut out);
            assert_eq!(QuickTransform::parse(&out), Ok(read));
        }
    }
}

/// Durations are written in four bytes.
fn limit(duration: &mut Option<u64>) {
    *duration = duration.map(|duration| duration.min(u64::from(u32::MAX)));
}
