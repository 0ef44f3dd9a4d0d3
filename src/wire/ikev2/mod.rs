//! IKEv2 payload bodies (RFC 7296 §3.4 to §3.11): views that borrow, and their encoders.

mod auth_methods;
mod certificate;
mod configuration;
mod delete;
mod encrypted;
mod exchange;
mod identity;
mod message_id_sync;
mod notify;
mod redirect;
mod ticket;
mod writer;

pub use auth_methods::AuthAnnouncement;
pub use certificate::{CertEncoding, CertPayload, CertRequest};
pub use configuration::{Attribute, AttributeType, Configuration, ConfigurationType, Family};
pub use delete::Delete;
pub use encrypted::FragmentHeader;
pub use exchange::{KePayload, Nonce};
pub use identity::{AuthMethod, AuthPayload, IdPayload, IdType};
pub use message_id_sync::MessageIdSync;
pub use notify::{Notify, NotifyType};
pub use redirect::Gateway;
pub use ticket::TicketGrant;
pub use writer::{PayloadWriter, message_bytes};
