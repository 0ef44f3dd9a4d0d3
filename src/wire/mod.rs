//! Bytes ⇄ values: IP, ESP, ISAKMP, IKEv1 and IKEv2 formats, proposals, selectors, VICI.
//!
//! Knows no keys, no clock and no state. Parsers never index, never panic and never allocate by the
//! sender's wish.

pub mod esp;
pub mod ikev1;
pub mod ikev2;
pub mod ip;
pub mod isakmp;
pub mod keyword;
pub mod proposal;
pub mod selector;
pub mod vici;
pub mod vnet;

mod algorithms;
mod substructure;

/// Why bytes are not what they claim to be. The text names the field.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Malformed {
    /// The bytes end before the field does.
    #[error("{0} is truncated")]
    Truncated(&'static str),
    /// A length or count contradicts the bytes around it.
    #[error("{0} has a wrong length")]
    BadLength(&'static str),
    /// A value that the format forbids.
    #[error("{0} has a forbidden value")]
    BadValue(&'static str),
}
