//! ML-KEM with the strongSwan of Debian forky (6.1.0) at the other end, from the folder that `scripts/peers`
//! makes.
#![allow(dead_code, reason = "the pair has more than these tests need of it")]
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

#[path = "interop/exchanges.rs"]
mod exchanges;
#[path = "interop/mlkem.rs"]
mod mlkem;
#[path = "interop/pair.rs"]
mod pair;
mod support;

use support::strongswan::Debian;

const DEBIAN: Debian = Debian::Forky;
