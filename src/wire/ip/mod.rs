//! Inner and outer IP packets: parsing and the few edits that a tunnel makes.

pub mod checksum;
pub mod ecn;
mod edit;
mod fragment;
mod icmp;
mod packet;

pub use edit::{clamp_mss, set_tos};
pub use fragment::{Fragments, fragment_v4};
pub use icmp::{MAX_TOO_BIG, packet_too_big, quoted_flow};
pub use packet::{Flow, IpPacket, protocol};
