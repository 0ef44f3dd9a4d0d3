//! What the measuring programs share.

pub mod process;
pub mod strongswan;
