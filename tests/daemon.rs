//! The daemon as a process: what it leaves behind, what it survives, what it answers.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test that cannot go on fails"
)]

mod support;

#[path = "daemon/exposition.rs"]
mod exposition;
#[path = "daemon/life.rs"]
mod life;
#[path = "daemon/metrics.rs"]
mod metrics;
#[path = "support/pki.rs"]
mod pki;
#[path = "daemon/reload.rs"]
mod reload;
#[path = "daemon/revocation.rs"]
mod revocation;
#[path = "daemon/swanctl.rs"]
mod swanctl;
