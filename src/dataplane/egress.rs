//! Sealed packets on their way out, sorted by the socket that sends them.

use crate::io::burst::TransmitBurst;
use crate::ipsec::{EspEncap, EspPath};

/// One transmit burst for each kind of socket a worker has.
#[derive(Debug, Default)]
pub struct Egress {
    /// UDP over IPv4.
    pub udp_v4: TransmitBurst,
    /// UDP over IPv6.
    pub udp_v6: TransmitBurst,
    /// Raw ESP over IPv4.
    pub raw_v4: TransmitBurst,
    /// Raw ESP over IPv6.
    pub raw_v6: TransmitBurst,
}

impl Egress {
    /// Whether whatever becomes of one more packet surely fits.
    pub fn has_room(&self) -> bool {
        self.bursts().iter().all(|burst| burst.has_room())
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.bursts().iter().all(|burst| burst.is_empty())
    }

    pub(super) fn burst(&mut self, path: &EspPath) -> &mut TransmitBurst {
        match (path.encap, path.remote.is_ipv6()) {
            (EspEncap::Udp, false) => &mut self.udp_v4,
            (EspEncap::Udp, true) => &mut self.udp_v6,
            (EspEncap::None, false) => &mut self.raw_v4,
            (EspEncap::None, true) => &mut self.raw_v6,
        }
    }

    fn bursts(&self) -> [&TransmitBurst; 4] {
        [&self.udp_v4, &self.udp_v6, &self.raw_v4, &self.raw_v6]
    }
}
