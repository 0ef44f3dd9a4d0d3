//! What can be shown about an SA: copies, so that an event can outlive its SA.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

use ipnet::IpNet;

use crate::ipsec::{ChildId, EspEncap, Mode, Reqid, SaUsage, Spi, WorkerId};
use crate::wire::isakmp::IkeSpi;
use crate::wire::proposal::{EspSuite, IkeSuite};
use crate::wire::selector::TrafficSelector;

use super::Identity;
use super::narrow::text;

/// How far an IKE SA is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum IkeState {
    /// Not authenticated yet.
    Connecting,
    /// In use.
    Established,
    /// Its rekey request is unanswered.
    Rekeying,
    /// Replaced, and waiting for its DELETE.
    Rekeyed,
    /// Its DELETE is unanswered.
    Deleting,
}

impl IkeState {
    /// The name that `list-sas` shows.
    pub fn name(self) -> &'static str {
        match self {
            Self::Connecting => "CONNECTING",
            Self::Established => "ESTABLISHED",
            Self::Rekeying => "REKEYING",
            Self::Rekeyed => "REKEYED",
            Self::Deleting => "DELETING",
        }
    }
}

/// How far a Child SA is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ChildState {
    /// In use, in both directions.
    Installed,
    /// Receives; sending starts when the peer has shown that it is ready.
    InboundOnly,
    /// Its rekey request is unanswered.
    Rekeying,
    /// Replaced, and waiting for its DELETE.
    Rekeyed,
    /// Its DELETE is unanswered.
    Deleting,
    /// Deleted; still receives for a moment.
    Deleted,
}

impl ChildState {
    /// The name that `list-sas` shows.
    pub fn name(self) -> &'static str {
        match self {
            Self::Installed | Self::InboundOnly => "INSTALLED",
            Self::Rekeying => "REKEYING",
            Self::Rekeyed => "REKEYED",
            Self::Deleting => "DELETING",
            Self::Deleted => "DELETED",
        }
    }
}

/// What NAT detection found (RFC 7296 §2.23).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NatStatus {
    /// We are behind a NAT.
    pub local: bool,
    /// The peer is behind a NAT, or says so to force encapsulation.
    pub remote: bool,
    /// We say so to force encapsulation.
    pub fake: bool,
}

impl NatStatus {
    /// ESP goes in UDP.
    pub fn any(self) -> bool {
        self.local || self.remote || self.fake
    }
}

/// One IKE SA.
#[derive(Clone, Debug)]
pub struct IkeSaStatus {
    /// Unique in this process.
    pub id: u64,
    /// Connection name; empty while a responder does not know it yet.
    pub name: String,
    /// How far it is.
    pub state: IkeState,
    /// Our address and port.
    pub local: SocketAddr,
    /// The peer's address and port.
    pub remote: SocketAddr,
    /// Our identity.
    pub local_id: Option<Identity>,
    /// The peer's identity, once it is proven.
    pub remote_id: Option<Identity>,
    /// We sent IKE_SA_INIT.
    pub initiator: bool,
    /// SPI of the initiator.
    pub initiator_spi: IkeSpi,
    /// SPI of the responder; zero before it has chosen one.
    pub responder_spi: IkeSpi,
    /// NAT detection.
    pub nat: NatStatus,
    /// The algorithms, once chosen.
    pub suite: Option<IkeSuite>,
    /// When it was established.
    pub established: Option<Instant>,
    /// When it will be rekeyed by us.
    pub rekey_at: Option<Instant>,
    /// When it will be authenticated anew by us.
    pub reauth_at: Option<Instant>,
    /// Requests that wait.
    pub tasks_queued: Vec<&'static str>,
    /// The request that is unanswered.
    pub tasks_active: Vec<&'static str>,
    /// Addresses that the peer has given us.
    pub local_vips: Vec<IpAddr>,
    /// Addresses that we have given the peer.
    pub remote_vips: Vec<IpAddr>,
    /// Name servers that the peer has told us.
    pub dns: Vec<IpAddr>,
    /// Networks that the peer says it protects.
    pub subnets: Vec<IpNet>,
    /// Its Child SAs.
    pub children: Vec<ChildStatus>,
}

/// One Child SA.
#[derive(Clone, Debug)]
pub struct ChildStatus {
    /// Unique in this process.
    pub id: ChildId,
    /// Name in the configuration.
    pub name: String,
    /// Ties it to its policies.
    pub reqid: Reqid,
    /// How far it is.
    pub state: ChildState,
    /// Tunnel or transport.
    pub mode: Mode,
    /// UDP or raw ESP.
    pub encap: EspEncap,
    /// What we receive under.
    pub spi_in: Spi,
    /// What the peer receives under.
    pub spi_out: Spi,
    /// The algorithms.
    pub suite: EspSuite,
    /// The worker that owns both halves.
    pub owner: WorkerId,
    /// The peer agrees to a Child SA for every worker (RFC 9611).
    pub per_worker: bool,
    /// Traffic received.
    pub usage_in: Arc<SaUsage>,
    /// Traffic sent.
    pub usage_out: Arc<SaUsage>,
    /// When it was installed.
    pub installed: Instant,
    /// When it will be rekeyed by us.
    pub rekey_at: Option<Instant>,
    /// When it ends.
    pub expires_at: Option<Instant>,
    /// Our side of the traffic.
    pub local_ts: Vec<TrafficSelector>,
    /// The peer's side of the traffic.
    pub remote_ts: Vec<TrafficSelector>,
}

/// As log lines name it.
impl fmt::Display for ChildStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            name,
            id,
            spi_in,
            spi_out,
            ..
        } = self;
        let (local, remote) = (text(&self.local_ts), text(&self.remote_ts));
        write!(
            f,
            "{name}{{{id}}} with SPIs {spi_in}_i {spi_out}_o and TS {local} === {remote}"
        )
    }
}
