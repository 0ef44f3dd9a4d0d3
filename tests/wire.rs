//! Wire formats, against bytes that other implementations wrote.

#![allow(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "a panic is how a test fails"
)]

#[path = "wire/configuration.rs"]
mod configuration;
#[path = "wire/ikev1.rs"]
mod ikev1;
#[path = "wire/ip.rs"]
mod ip;
#[path = "wire/messages.rs"]
mod messages;
#[path = "wire/proposals.rs"]
mod proposals;
#[path = "wire/selectors.rs"]
mod selectors;
#[path = "wire/tickets.rs"]
mod tickets;
#[path = "wire/vici.rs"]
mod vici;
