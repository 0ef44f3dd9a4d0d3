//! Two daemons in a lab of network namespaces: real TUN devices, real sockets, real traffic.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod support;

#[path = "lab/arithmetic.rs"]
mod arithmetic;
#[path = "ike/breaches.rs"]
mod breaches;
#[path = "ike/claims.rs"]
mod claims;
#[path = "lab/closed.rs"]
mod closed;
#[path = "lab/families.rs"]
mod families;
#[path = "lab/forged.rs"]
mod forged;
#[path = "lab/history.rs"]
mod history;
#[path = "lab/hostile.rs"]
mod hostile;
#[path = "lab/insider.rs"]
mod insider;
#[path = "lab/key_log.rs"]
mod key_log;
#[path = "lab/load.rs"]
mod load;
#[path = "lab/mobike.rs"]
mod mobike;
#[path = "lab/mtu.rs"]
mod mtu;
#[path = "lab/nat.rs"]
mod nat;
#[path = "lab/neighbours.rs"]
mod neighbours;
#[path = "support/pki.rs"]
mod pki;
#[path = "lab/policies.rs"]
mod policies;
#[path = "ike/random.rs"]
mod random;
#[path = "lab/recovery.rs"]
mod recovery;
#[path = "lab/rekey.rs"]
mod rekey;
#[path = "lab/responder.rs"]
mod responder;
#[path = "lab/sender.rs"]
mod sender;
#[path = "ike/session.rs"]
mod session;
#[path = "lab/transport.rs"]
mod transport;
#[path = "lab/traps.rs"]
mod traps;
#[path = "lab/virtual_ips.rs"]
mod virtual_ips;
