//! The Linux kernel's own ESP at the other end, and the daemons that use it: strongSwan, libreswan and
//! OpenIKED, each in a kernel in user mode. Lockgate is gateway A, the guest is gateway B.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

#[path = "kernel/libreswan.rs"]
mod libreswan;
#[path = "kernel/openiked.rs"]
mod openiked;
#[path = "kernel/strongswan.rs"]
mod strongswan;
mod support;
#[path = "kernel/transport.rs"]
mod transport;
#[path = "kernel/tunnel.rs"]
mod tunnel;
