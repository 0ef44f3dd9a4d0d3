//! Super-packets: what the TUN and the UDP sockets can do with many packets in one system call.

pub mod checksum;
mod flow;
mod merge;
pub mod probe;
mod split;

pub use merge::{MergeKinds, MergeScratch, Merger};
pub use split::{Suspended, TunPacket};

/// Which super-packet features are wanted, or in use.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Offloads {
    /// The TUN delivers TCP super-packets, also those with ECN, and unfinished checksums.
    pub tun_tso: bool,
    /// The TUN delivers UDP super-packets. Needs [`Self::tun_tso`].
    pub tun_uso: bool,
    /// Opened packets are merged, and super-packets are written to the TUN.
    pub tun_gro: bool,
    /// Trains of datagrams are sent as one message (UDP_SEGMENT).
    pub udp_gso: bool,
    /// Trains of datagrams are received as one message (UDP_GRO).
    pub udp_gro: bool,
}

impl Offloads {
    /// Every feature.
    pub const ALL: Self = Self {
        tun_tso: true,
        tun_uso: true,
        tun_gro: true,
        udp_gso: true,
        udp_gro: true,
    };

    /// No feature: one packet, one datagram at a time.
    pub const NONE: Self = Self {
        tun_tso: false,
        tun_uso: false,
        tun_gro: false,
        udp_gso: false,
        udp_gro: false,
    };

    /// The features by name, in the order in which they are shown.
    pub fn iter(self) -> impl Iterator<Item = (&'static str, bool)> {
        [
            ("tun-tso", self.tun_tso),
            ("tun-uso", self.tun_uso),
            ("tun-gro", self.tun_gro),
            ("udp-gso", self.udp_gso),
            ("udp-gro", self.udp_gro),
        ]
        .into_iter()
    }

    /// What both have.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self {
            tun_tso: self.tun_tso && other.tun_tso,
            tun_uso: self.tun_uso && other.tun_uso,
            tun_gro: self.tun_gro && other.tun_gro,
            udp_gso: self.udp_gso && other.udp_gso,
            udp_gro: self.udp_gro && other.udp_gro,
        }
    }
}
