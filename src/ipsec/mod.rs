//! The databases of RFC 4301 (SPD, SAD) and the ESP processing of RFC 4303.
//!
//! Nothing here knows who negotiated an SA, owns a socket or reads a clock. An SA has one owner: the
//! worker that holds it counts sequence numbers and moves the replay window as plain integers, so
//! nothing here locks either. Sealing and opening neither allocate nor panic, and a packet that is
//! dropped leaves no trace that could disturb the next one.
//!
//! ```text
//! outbound  Spd::outbound ─► Sad::outbound ─► OutboundSa::seal
//! inbound   Sad::inbound_mut ─► InboundSa::open: replay check ─► open ─► replay commit ─► selectors
//! ```
//!
//! A packet that goes no further has a [`DropReason`]. Keys travel to their worker in an
//! [`SaUpdate`] and come back in an [`SaEvent`], so freeing them stays off the packet path.

pub mod drop_reason;
pub mod esp;
mod hash;
pub mod id;
pub mod replay;
pub mod sa;
pub mod sad;
pub mod spd;
pub mod update;

pub use drop_reason::DropReason;
pub use id::{ChildId, PolicyId, Reqid, Spi, WorkerId, allocate_spi};
pub use replay::{Fresh, ReplayWindow};
pub use sa::inbound::{InboundParams, InboundSa, Opened};
pub use sa::outbound::{OutboundParams, OutboundSa, Sealed};
pub use sa::rules::{CopyDscp, DfRule, HeaderRules};
pub use sa::transport::TransportEnds;
pub use sa::{EspEncap, EspPath, Limits, SaUsage, Selectors};
pub use sad::{OutboundEntry, Sad};
pub use spd::{Action, Direction, Mode, Policy, Spd, Template};
pub use update::{SaEvent, SaUpdate};
