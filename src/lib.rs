//! Lockgate: a userspace IPsec gateway.

pub mod cli;
pub mod config;
pub mod crypto;
pub mod daemon;
pub mod dataplane;
pub mod ike;
pub mod io;
pub mod ipsec;
pub mod wire;
