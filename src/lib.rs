//! Lockgate: a userspace IPsec gateway.
//!
//! One binary does what usually takes an IKE daemon and the kernel: a control thread negotiates
//! security associations and hands them to worker threads, and the workers do ESP (RFC 4303)
//! between a TUN device and UDP or raw sockets.
//!
//! ```text
//!               VICI socket          UDP 500, and 4500 with the non-ESP marker
//!                        \          /
//!                  ┌───────────────────────────┐
//!                  │ control thread            │  IKE endpoint (sans-IO), timers, PAD, SPD, routes
//!                  └──┬─────────────────────▲──┘
//!         SaUpdate    │  bounded lock-free  │   SaEvent
//!         (keys move) ▼  rings, one pair    │
//!                  ┌──────────────── per worker ───┐
//!  TUN queue i ──► │ worker i, a thread per core   │ ──► UDP 4500 or raw socket i   outbound
//!  TUN queue i ◄── │ run to completion, owns all   │ ◄── UDP 4500 or raw socket i   inbound
//!                  └───────────────────────────────┘
//! ```
//!
//! # Rooms
//!
//! Modules are named after the RFCs, so the standard is the index. Imports point only downwards;
//! `tests/layers.rs` keeps it so.
//!
//! | module | holds | may import |
//! |---|---|---|
//! | [`wire`] | bytes ⇄ values: IP, ESP, ISAKMP, IKEv2 payloads, proposals, selectors, VICI | nothing |
//! | [`crypto`] | keys, and the providers behind them | `wire` |
//! | [`ipsec`] | SPD, SAD, replay window, seal and open, [`ipsec::SaUpdate`] | `wire`, `crypto` |
//! | [`ike`] | the sans-IO IKE endpoint, the PAD | `wire`, `crypto`, `ipsec` |
//! | [`io`] | Linux system calls; the only unsafe code | `wire` (IP and vnet formats) |
//! | [`dataplane`] | workers and the packet path | `wire`, `ipsec`, `io` |
//! | [`config`] | TOML → a configuration that is valid by construction | plain types of the above |
//! | [`lab`] | hosts and gateways in namespaces, and the traffic between them, for `demo` and `bench` | `wire`, `io` |
//! | [`daemon`], [`cli`] | control thread, VICI server; subcommands | everything |
//!
//! # Invariants
//!
//! - **One SA, one owner.** Sequence number and replay window are plain integers of one worker; an
//!   outbound SA is never sent out of order. The SPIs we allocate name the worker that owns them.
//! - **Keys move, never clone**: derived in [`ike`], moved in an [`ipsec::SaUpdate`], returned in an
//!   [`ipsec::SaEvent`], so that freeing and zeroizing stay off the packet path.
//! - **No allocation, no lock, no log line per packet.** Every drop has an [`ipsec::DropReason`].
//! - **Fails closed.** Traffic that a policy protects never leaves in clear, also while its SA is
//!   absent, during start and stop, and after a crash.
//! - **Time and randomness come from the caller** in everything below [`dataplane`] and [`daemon`],
//!   so tests run on a virtual clock with fixed seeds.

pub mod cli;
pub mod config;
pub mod crypto;
pub mod daemon;
pub mod dataplane;
pub mod ike;
pub mod io;
pub mod ipsec;
pub mod lab;
pub mod wire;
