//! Super-packets: taking them apart, putting them together, and what the kernel makes of both.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

#[path = "offload/checksum.rs"]
mod checksum;
#[path = "offload/kernel.rs"]
mod kernel;
#[path = "offload/merge.rs"]
mod merge;
#[path = "fuzz/src/merge.rs"]
mod merge_target;
#[path = "offload/packets.rs"]
mod packets;
#[path = "offload/properties.rs"]
mod properties;
#[path = "offload/reference.rs"]
mod reference;
#[path = "offload/split.rs"]
mod split;
#[path = "fuzz/src/split.rs"]
mod split_target;
mod support;
