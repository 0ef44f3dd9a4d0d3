//! Why a packet went no further.

/// The reason under which a packet is counted when it is dropped.
///
/// A closed list: it indexes the counters of a worker, it is not an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum DropReason {
    /// Not an IP packet, or its header contradicts its length (inside the tunnel).
    InnerMalformed,
    /// No policy of the SPD covers the packet.
    NoPolicy,
    /// A policy says discard.
    PolicyDiscard,
    /// A policy says bypass, but the packet was routed into the TUN, from where nothing leaves in clear.
    PolicyBypass,
    /// A policy protects the packet, but no SA carries it, or none came in time for a packet that waited.
    NoOutboundSa,
    /// A transport mode SA protects the packet, but it is a fragment, has IP options or no next header (59),
    /// or is of the other IP version.
    NotTransportable,
    /// Larger than the tunnel can carry and not to be fragmented; the sender was told if that is allowed.
    TooBig,
    /// The outbound SA has used its last sequence number (RFC 4303 §3.3.3).
    SequenceExhausted,
    /// The SA has reached a hard limit of packets or bytes.
    LifetimeExpired,
    /// The cipher refused to seal.
    SealFailed,
    /// The transmit burst was full.
    TransmitQueueFull,
    /// The kernel refused the outer packet.
    SendFailed,
    /// The ring to the worker that owns the SA was full.
    HandOffFull,

    /// Too short for its carrier, or not addressed as an ESP or IKE packet can be.
    OuterMalformed,
    /// A NAT keepalive (RFC 3948 §2.3): received, and nothing to do.
    Keepalive,
    /// No inbound SA has this SPI.
    UnknownSpi,
    /// The length cannot be that of an ESP packet under this SA.
    EspMalformed,
    /// A sequence number that no packet can have: zero, or one outside the 64-bit space.
    IllegalSequence,
    /// The sequence number was accepted before (RFC 4303 §3.4.3).
    Replayed,
    /// The sequence number lies left of the replay window.
    TooOld,
    /// The ICV does not match.
    IntegrityFailed,
    /// Authentic, but the padding is not 1, 2, 3, … or longer than the payload.
    BadPadding,
    /// Authentic, but the next header is not one a tunnel carries.
    BadNextHeader,
    /// An authentic dummy packet (RFC 4303 §2.6): received, and nothing to do.
    DummyPacket,
    /// Authentic, but the inner packet is not one the SA was negotiated for (RFC 4301 §5.2).
    SelectorMismatch,
    /// Authentic, but inner and outer ECN contradict each other (RFC 6040 §4.2).
    EcnIllegal,
    /// The ring to the control thread was full.
    PuntQueueFull,
    /// The TUN refused the packet.
    TunWriteFailed,
}

impl DropReason {
    /// How many reasons there are.
    pub const COUNT: usize = Self::ALL.len();

    /// Every reason, in the order of [`Self::index`].
    pub const ALL: [Self; 28] = [
        Self::InnerMalformed,
        Self::NoPolicy,
        Self::PolicyDiscard,
        Self::PolicyBypass,
        Self::NoOutboundSa,
        Self::NotTransportable,
        Self::TooBig,
        Self::SequenceExhausted,
        Self::LifetimeExpired,
        Self::SealFailed,
        Self::TransmitQueueFull,
        Self::SendFailed,
        Self::HandOffFull,
        Self::OuterMalformed,
        Self::Keepalive,
        Self::UnknownSpi,
        Self::EspMalformed,
        Self::IllegalSequence,
        Self::Replayed,
        Self::TooOld,
        Self::IntegrityFailed,
        Self::BadPadding,
        Self::BadNextHeader,
        Self::DummyPacket,
        Self::SelectorMismatch,
        Self::EcnIllegal,
        Self::PuntQueueFull,
        Self::TunWriteFailed,
    ];

    /// The place of this reason's counter, below [`Self::COUNT`].
    #[must_use]
    pub fn index(self) -> usize {
        usize::from(self as u8)
    }

    /// The name that users see, as in `replayed` or `no-outbound-sa`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::InnerMalformed => "inner-malformed",
            Self::NoPolicy => "no-policy",
            Self::PolicyDiscard => "policy-discard",
            Self::PolicyBypass => "policy-bypass",
            Self::NoOutboundSa => "no-outbound-sa",
            Self::NotTransportable => "not-transportable",
            Self::TooBig => "too-big",
            Self::SequenceExhausted => "sequence-exhausted",
            Self::LifetimeExpired => "lifetime-expired",
            Self::SealFailed => "seal-failed",
            Self::TransmitQueueFull => "transmit-queue-full",
            Self::SendFailed => "send-failed",
            Self::HandOffFull => "hand-off-full",
            Self::OuterMalformed => "outer-malformed",
            Self::Keepalive => "keepalive",
            Self::UnknownSpi => "unknown-spi",
            Self::EspMalformed => "esp-malformed",
            Self::IllegalSequence => "illegal-sequence",
            Self::Replayed => "replayed",
            Self::TooOld => "too-old",
            Self::IntegrityFailed => "integrity-failed",
            Self::BadPadding => "bad-padding",
            Self::BadNextHeader => "bad-next-header",
            Self::DummyPacket => "dummy-packet",
            Self::SelectorMismatch => "selector-mismatch",
            Self::EcnIllegal => "ecn-illegal",
            Self::PuntQueueFull => "punt-queue-full",
            Self::TunWriteFailed => "tun-write-failed",
        }
    }
}

impl std::fmt::Display for DropReason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn every_reason_has_its_own_counter_and_name() {
        for (index, reason) in DropReason::ALL.into_iter().enumerate() {
            assert_eq!(reason.index(), index);
        }
        let names: HashSet<_> = DropReason::ALL.iter().map(|reason| reason.name()).collect();
        assert_eq!(names.len(), DropReason::COUNT);
    }
}
