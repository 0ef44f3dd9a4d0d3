//! What control thread and workers tell each other.

use std::net::SocketAddr;
use std::sync::Arc;

use super::{ChildId, EspPath, InboundSa, OutboundSa, Reqid, Spd, Spi, WorkerId};
use crate::wire::ip::Flow;

/// A change to the databases of the workers.
///
/// A rekey that loses no packet comes in this order: the responder of the rekey adds the new inbound
/// SA, the initiator adds its own and switches, the responder switches when it sees the new SA used
/// or the old one deleted; the old inbound SA is removed last.
#[derive(Debug)]
pub enum SaUpdate {
    /// Packets with this SPI may now arrive.
    AddInbound(Box<InboundSa>),
    /// This SA now carries the traffic of its reqid; older ones stay until removed.
    SwitchOutbound(Box<OutboundSa>),
    /// No more packets with this SPI. The SA comes back as [`SaEvent::RetiredInbound`].
    RemoveInbound {
        /// The SPI that we chose.
        spi: Spi,
        /// The worker that the SA was given to.
        owner: WorkerId,
    },
    /// The outbound half is gone. The SA comes back as [`SaEvent::RetiredOutbound`].
    RemoveOutbound {
        /// The Child SA that ends.
        child: ChildId,
        /// Its reqid.
        reqid: Reqid,
        /// The worker that the SA was given to.
        owner: WorkerId,
    },
    /// The peer is reached on another path from now on.
    MoveOutbound {
        /// The Child SA that moves.
        child: ChildId,
        /// Its reqid.
        reqid: Reqid,
        /// The worker that the SA was given to.
        owner: WorkerId,
        /// The new path.
        path: EspPath,
        /// The largest outer packet that the new path carries.
        path_mtu: u16,
    },
    /// A new SPD replaces the old one as a whole.
    SetPolicies(Arc<Spd>),
}

/// What a worker reports to the control thread.
#[derive(Debug)]
pub enum SaEvent {
    /// A protected packet found no SA, or none of this worker's own.
    Acquire {
        /// The reqid of the policy that protects it.
        reqid: Reqid,
        /// The packet's flow, for the first selectors of the negotiation (RFC 7296 §2.9).
        flow: Flow,
        /// The worker that has to hand such packets to another one, and wants an SA of its own
        /// (RFC 9611); `None` if nobody has an SA.
        worker: Option<WorkerId>,
    },
    /// An SA has crossed a soft limit: rekey. Said once per SA.
    SoftLifetime {
        /// The Child SA.
        child: ChildId,
    },
    /// An SA has reached a hard limit or its last sequence number, and carries nothing more. Said once per SA.
    HardLifetime {
        /// The Child SA.
        child: ChildId,
    },
    /// An authentic, not replayed packet came from a new address (RFC 7296 §2.23).
    PeerMoved {
        /// The Child SA.
        child: ChildId,
        /// The inbound SPI of the packet.
        spi: Spi,
        /// Where it came from.
        remote: SocketAddr,
    },
    /// An IKE datagram that arrived on a worker's socket.
    Punted {
        /// Our address.
        local: SocketAddr,
        /// The sender's address.
        remote: SocketAddr,
        /// The datagram without non-ESP marker.
        bytes: Box<[u8]>,
    },
    /// An inbound SA that was removed, to be freed off the packet path.
    RetiredInbound(Box<InboundSa>),
    /// An outbound SA that was removed, to be freed off the packet path.
    RetiredOutbound(Box<OutboundSa>),
}
