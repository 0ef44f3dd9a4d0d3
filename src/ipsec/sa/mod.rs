//! The two halves of a Child SA, and what they have in common.

pub mod inbound;
pub mod outbound;
pub mod rules;

pub use rules::HeaderRules;

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

/// How much an SA may carry (RFC 4301 §4.4.2.1). Time is the control thread's business.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Inner bytes after which a rekey is asked for.
    pub soft_bytes: u64,
    /// Inner bytes after which nothing passes.
    pub hard_bytes: u64,
    /// Packets after which a rekey is asked for.
    pub soft_packets: u64,
    /// Packets after which nothing passes.
    pub hard_packets: u64,
}

impl Limits {
    /// No limit but that of the sequence numbers.
    pub const NONE: Self = Self {
        soft_bytes: u64::MAX,
        hard_bytes: u64::MAX,
        soft_packets: u64::MAX,
        hard_packets: u64::MAX,
    };
}

impl Default for Limits {
    fn default() -> Self {
        Self::NONE
    }
}

/// What an SA has carried: written by its owner alone, read by anyone.
///
/// Bytes are those of inner packets, so both ends of an SA count the same.
#[derive(Debug, Default)]
#[repr(align(64))] // one cache line each: readers and neighbours do not disturb the owner
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

    /// Counts a packet. Only the owner writes, so load and store suffice.
    fn record(&self, bytes: usize) {
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
        self.packets
            .store(self.packets().saturating_add(1), Ordering::Relaxed);
        self.bytes
            .store(self.bytes().saturating_add(bytes), Ordering::Relaxed);
    }
}

/// Watches the limits of one half of an SA.
#[derive(Debug)]
struct Lifetime {
    limits: Limits,
    soft_reported: bool,
    hard_reached: bool,
    hard_reported: bool,
}

impl Lifetime {
    fn new(limits: Limits) -> Self {
        Self {
            limits,
            soft_reported: false,
            hard_reached: false,
            hard_reported: false,
        }
    }

    /// Whether one more packet of `bytes` may pass.
    fn admits(&mut self, usage: &SaUsage, bytes: usize) -> bool {
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
        let admitted = usage.packets() < self.limits.hard_packets
            && usage.bytes().saturating_add(bytes) <= self.limits.hard_bytes;
        self.hard_reached |= !admitted;
        admitted
    }

    /// True once, when a soft limit has been crossed or a rekey is due for another reason.
    fn take_soft(&mut self, usage: &SaUsage, due: bool) -> bool {
        let crossed = !self.soft_reported
            && (due
                || usage.packets() >= self.limits.soft_packets
                || usage.bytes() >= self.limits.soft_bytes);
        self.soft_reported |= crossed;
        crossed
    }

    /// True once, when a hard limit has stopped a packet.
    fn take_hard(&mut self) -> bool {
        let due = self.hard_reached && !self.hard_reported;
        self.hard_reported |= due;
        due
    }
}
