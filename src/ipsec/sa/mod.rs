//! The two halves of a Child SA, and what they have in common.

pub mod inbound;
mod last_flow;
pub mod lifetime;
pub mod outbound;
pub mod rules;
pub mod transport;

pub use lifetime::Limits;
pub use rules::HeaderRules;
pub use transport::TransportEnds;

use lifetime::{Allowance, Lifetime};

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::wire::ip::Flow;
use crate::wire::selector::TrafficSelector;

/// What carries ESP between the gateways.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EspEncap {
    /// UDP (RFC 3948).
    Udp,
    /// IP protocol 50.
    None,
}

/// The outer addresses of an SA. Ports are zero without UDP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct EspPath {
    /// What carries the packets.
    pub encap: EspEncap,
    /// Our end.
    pub local: SocketAddr,
    /// The peer's end.
    pub remote: SocketAddr,
}

/// The traffic that an SA was negotiated for: any local selector with any remote one (RFC 7296 §2.9).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Selectors {
    /// Our side's.
    pub local: Vec<TrafficSelector>,
    /// The peer's side's.
    pub remote: Vec<TrafficSelector>,
}

impl Selectors {
    /// Whether a packet to be sealed is covered.
    #[must_use]
    pub fn admits_outbound(&self, flow: &Flow) -> bool {
        let [source, destination] = endpoints(flow);
        source.is_in(&self.local) && destination.is_in(&self.remote)
    }

    /// Whether a packet that was opened is covered (RFC 4301 §5.2 step 4).
    #[must_use]
    pub fn admits_inbound(&self, flow: &Flow) -> bool {
        let [source, destination] = endpoints(flow);
        source.is_in(&self.remote) && destination.is_in(&self.local)
    }
}

/// One end of a flow, as a selector sees it.
#[derive(Clone, Copy, Debug)]
pub(super) struct FlowEnd {
    address: IpAddr,
    protocol: u8,
    port: Option<u16>,
}

impl FlowEnd {
    pub(super) fn address(self) -> IpAddr {
        self.address
    }

    pub(super) fn is_in(self, selectors: &[TrafficSelector]) -> bool {
        selectors.iter().any(|selector| self.matches(selector))
    }

    pub(super) fn matches(self, selector: &TrafficSelector) -> bool {
        selector.contains(self.address, self.protocol, self.port)
    }
}

/// Source and destination of a flow.
///
/// A later fragment shows no ports and so matches only selectors for any port (RFC 4301 §7).
pub(super) fn endpoints(flow: &Flow) -> [FlowEnd; 2] {
    let (source, destination) = flow.ports.unzip();
    let protocol = flow.protocol;
    [
        FlowEnd {
            address: flow.src,
            protocol,
            port: source,
        },
        FlowEnd {
            address: flow.dst,
            protocol,
            port: destination,
        },
    ]
}

/// What an SA has carried: written by its owner alone, read by anyone.
///
/// Bytes are those of inner packets, so both ends of an SA count the same.
#[derive(Debug, Default)]
#[repr(align(128))] // two lines each, as they are prefetched: nobody disturbs the owner
pub struct SaUsage {
    packets: AtomicU64,
    bytes: AtomicU64,
}

impl SaUsage {
    /// Packets so far.
    #[must_use]
    pub fn packets(&self) -> u64 {
        self.packets.load(Ordering::Relaxed)
    }

    /// Inner bytes so far.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// What was carried so far. To be read before the cipher runs: the counters of an SA that was idle
    /// then come from memory together with its key, not after it.
    #[inline]
    fn so_far(&self) -> Carried {
        Carried {
            packets: self.packets(),
            bytes: self.bytes(),
        }
    }

    /// Counts a packet. Only the owner writes, so load and store suffice.
    #[inline]
    fn record(&self, so_far: Carried, bytes: usize) {
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
        let Carried {
            packets,
            bytes: before,
        } = so_far;
        self.packets
            .store(packets.saturating_add(1), Ordering::Relaxed);
        self.bytes
            .store(before.saturating_add(bytes), Ordering::Relaxed);
    }
}

/// What the counters of an SA said before a packet.
#[derive(Clone, Copy, Debug)]
struct Carried {
    packets: u64,
    bytes: u64,
}
