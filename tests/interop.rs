//! Debian's strongSwan at the other end: each suite in both roles, and every exchange from each
//! side. Lockgate is gateway A, strongSwan is gateway B.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod support;

#[path = "interop/fragments.rs"]
mod fragments;
#[path = "interop/lifecycle.rs"]
mod lifecycle;
#[path = "interop/pair.rs"]
mod pair;
#[path = "interop/suites.rs"]
mod suites;
