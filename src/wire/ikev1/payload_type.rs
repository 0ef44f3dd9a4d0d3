//! Payload types of IKEv1 (RFC 2408 §3.1, RFC 3947 §3.2). IKEv2 begins its own at 33, so that the two
//! cannot be mistaken for each other.
#![allow(
    missing_docs,
    reason = "each constant is the notation of RFC 2408 §3.1"
)]

use crate::wire::isakmp::PayloadType;

pub const SA: PayloadType = PayloadType(1);
pub const PROPOSAL: PayloadType = PayloadType(2);
pub const TRANSFORM: PayloadType = PayloadType(3);
pub const KE: PayloadType = PayloadType(4);
pub const ID: PayloadType = PayloadType(5);
pub const CERT: PayloadType = PayloadType(6);
pub const CERTREQ: PayloadType = PayloadType(7);
pub const HASH: PayloadType = PayloadType(8);
pub const SIG: PayloadType = PayloadType(9);
pub const NONCE: PayloadType = PayloadType(10);
pub const NOTIFICATION: PayloadType = PayloadType(11);
pub const DELETE: PayloadType = PayloadType(12);
pub const VENDOR_ID: PayloadType = PayloadType(13);
/// Attributes of a transaction exchange (draft-ietf-ipsec-isakmp-mode-cfg).
pub const ATTRIBUTES: PayloadType = PayloadType(14);
pub const NAT_D: PayloadType = PayloadType(20);
pub const NAT_OA: PayloadType = PayloadType(21);
/// NAT-D of draft-ietf-ipsec-nat-t-ike-02 and -03.
pub const NAT_D_DRAFT: PayloadType = PayloadType(130);
/// NAT-OA of the same drafts.
pub const NAT_OA_DRAFT: PayloadType = PayloadType(131);
/// A piece of a message, as the vendor id "FRAGMENTATION" allows it.
pub const FRAGMENT: PayloadType = PayloadType(132);
