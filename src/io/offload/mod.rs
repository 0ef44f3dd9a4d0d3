//! Super-packets: what the TUN and the UDP sockets can do with many packets in one system call.

mod merge;
mod split;

pub use merge::{MergeKinds, MergeScratch, Merger};
pub use split::TunPacket;
