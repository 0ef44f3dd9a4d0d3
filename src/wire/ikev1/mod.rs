//! ISAKMP and IKEv1 payload bodies (RFC 2408 §3, RFC 2407 §4.6): views that borrow, and their encoders.
//!
//! Header and payload writer are those of [`isakmp`](super::isakmp) and [`ikev2`](super::ikev2):
//! both versions share them.

pub mod algorithms;
pub mod attribute;
pub mod payload_type;
pub mod vendor_id;

mod chain;
mod delete;
mod fragment;
mod identification;
mod nat;
mod notification;
mod sa;
mod transaction;
mod transform;

pub use attribute::DataAttribute;
pub use chain::{Payload, Payloads};
pub use delete::Delete;
pub use fragment::Fragment;
pub use identification::{IdPayload, IdType};
pub use nat::OriginalAddress;
pub use notification::{Notification, NotifyType};
pub use sa::{ProposalPayload, Protocol, SaPayload, TransformPayload, write_sa};
pub use transaction::{AttributeType, AttributesPayload, TransactionType};
pub use transform::{
    AuthenticationMethod, Encapsulation, IsakmpTransform, Lifetime, QuickTransform,
};
