//! The installed strongSwan (5.9.8 in Debian 12) at the other end: each suite in both roles, and every
//! exchange from each side. Lockgate is gateway A, strongSwan is gateway B.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

#[path = "interop/mod.rs"]
mod matrix;
#[path = "support/pki.rs"]
mod pki;
mod support;

use support::strongswan::Debian;

const DEBIAN: Debian = Debian::Installed;
