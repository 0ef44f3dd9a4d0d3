//! The same matrix as in `interop.rs` with the strongSwan of Debian 13 (6.0.1) at the other end, from the
//! folder that `scripts/peers` makes.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

#[path = "interop/exchanges.rs"]
mod exchanges;
#[path = "interop/mod.rs"]
mod matrix;
#[path = "support/pki.rs"]
mod pki;
#[path = "interop/stapling.rs"]
mod stapling;
mod support;
#[path = "interop/three_exchanges.rs"]
mod three_exchanges;

use matrix::pair;
use support::strongswan::Debian;

const DEBIAN: Debian = Debian::Trixie;
