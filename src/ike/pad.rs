//! The peer authorization database (RFC 4301 §4.4.3): who may connect, and for which traffic.
//!
//! The configuration builds it, valid by construction; the endpoint only reads it.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;

use crate::crypto::{PresharedKey, Secret};
use crate::ipsec::{HeaderRules, Reqid};
use crate::wire::ikev2::Gateway;
use crate::wire::proposal::SaProposal;
use crate::wire::selector::TrafficSelector;

use super::credentials::{Authority, LocalMethod, RemoteMethod};
use super::pools::Pool;
use super::{Identity, IdentityPattern};

/// Every connection and every secret.
#[derive(Debug, Default)]
pub struct Pad {
    /// In the order of the configuration.
    pub connections: Vec<Arc<Connection>>,
    /// Shared secrets and whose they are.
    pub secrets: Vec<SharedSecret>,
    /// Post-quantum preshared keys.
    pub ppks: Vec<Ppk>,
    /// Certification authorities and their revocation lists.
    pub authorities: Vec<Authority>,
}

/// A post-quantum preshared key (RFC 8784), which is mixed into keys and authenticates nobody.
#[derive(Debug, PartialEq, Eq)]
pub struct Ppk {
    /// Name of its section.
    pub name: String,
    /// What it is called.
    pub ids: Vec<PpkId>,
    /// The key.
    pub secret: Secret,
}

/// What a PPK is called, without the octet that says how to read it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PpkId(pub Vec<u8>);

impl PpkId {
    /// Reads what a peer sent: a fixed identifier (RFC 8784 §5.1).
    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        let (kind, id) = bytes.split_first()?;
        (*kind == FIXED).then(|| Self(id.to_vec()))
    }

    /// The identifier as it is sent.
    pub(super) fn encode(&self) -> Vec<u8> {
        [&[FIXED], self.0.as_slice()].concat()
    }
}

/// PPK_ID_FIXED
const FIXED: u8 = 2;

/// A pre-shared key.
#[derive(Debug, PartialEq, Eq)]
pub struct SharedSecret {
    /// Name of its section.
    pub name: String,
    /// Whose it is; empty means anybody's.
    pub ids: Vec<IdentityPattern>,
    /// The key.
    pub secret: PresharedKey,
}

/// Addresses a connection accepts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AddressPattern {
    /// `%any`
    Any,
    /// A prefix; a single address is a full-length one.
    Net(IpNet),
    /// First and last address, of one family.
    Range(IpAddr, IpAddr),
}

/// One connection: a peer, or a group of peers, and its children.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Connection {
    /// Name of its section.
    pub name: String,
    /// Our addresses; the first single one is what we initiate from.
    pub local_addrs: Vec<AddressPattern>,
    /// The peer's addresses; the first single one is what we initiate to.
    pub remote_addrs: Vec<AddressPattern>,
    /// Port to initiate from.
    pub local_port: u16,
    /// Port to initiate to. One that is not 500 is taken to expect the non-ESP marker.
    pub remote_port: u16,
    /// IKE proposals, best first.
    pub proposals: Vec<SaProposal>,
    /// How we authenticate.
    pub local: LocalAuth,
    /// How the peer authenticates.
    pub remote: RemoteAuth,
    /// Force UDP encapsulation.
    pub encap: bool,
    /// Whether long messages are cut (RFC 7383).
    pub fragmentation: Fragmentation,
    /// Follow changes of addresses (RFC 4555).
    pub mobike: bool,
    /// Go to another gateway where the peer says so (RFC 5685).
    pub follow_redirects: bool,
    /// Send the peer to another gateway.
    pub redirect: Option<Gateway>,
    /// Ask for tickets and give them, to resume a lost IKE SA with (RFC 5723).
    pub resumption: bool,
    /// Check a silent peer after this time; zero for never.
    pub dpd_delay: Duration,
    /// Rekey the IKE SA after this time; zero for never.
    pub rekey_time: Duration,
    /// Delete it when it is this much older than its rekey or reauthentication time.
    pub over_time: Duration,
    /// Up to this much is subtracted from `rekey_time` and `reauth_time` at random.
    pub rand_time: Duration,
    /// Authenticate anew after this time; zero for never.
    pub reauth_time: Duration,
    /// Attempts to reach the peer; zero for unlimited.
    pub keyingtries: u32,
    /// Addresses that we want from the peer; unspecified ones leave the choice to it.
    pub vips: Vec<IpAddr>,
    /// Pools that the peer gets addresses from, the first one with a free address of each family.
    pub pools: Vec<Arc<Pool>>,
    /// What happens to older IKE SAs of the same peer.
    pub unique: Unique,
    /// The post-quantum preshared key for this peer. Without it we announce none, and accept any that
    /// we have.
    pub ppk_id: Option<PpkId>,
    /// No IKE SA without one.
    pub ppk_required: bool,
    /// Whether IKE SAs are set up without their first child (RFC 6023).
    pub childless: Childless,
    /// Its children.
    pub children: Vec<Arc<ChildConfig>>,
}

/// How we authenticate.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LocalAuth {
    /// Our identity; by default the subject of our certificate, or our address.
    pub id: Option<Identity>,
    /// How we prove it.
    pub method: LocalMethod,
}

/// How the peer authenticates.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemoteAuth {
    /// Whom we accept.
    pub id: IdentityPattern,
    /// How it proves who it is.
    pub method: RemoteMethod,
}

/// Uniqueness of IKE SAs between two identities.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Unique {
    /// Older ones go only if the peer sends INITIAL_CONTACT.
    #[default]
    No,
    /// Not even then.
    Never,
    /// A new one is refused while an older one is up.
    Keep,
    /// Older ones go.
    Replace,
}

/// Whether IKE messages may be fragments.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Fragmentation {
    /// Both sides' may.
    #[default]
    Yes,
    /// Only the peer's.
    Accept,
    /// Neither's.
    No,
}

/// Whether IKE SAs are set up without a child, which then gets an exchange of its own (RFC 6023).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Childless {
    /// As initiator only where no child is wanted; accepted as responder.
    #[default]
    Allow,
    /// As initiator wherever the peer accepts it; accepted as responder.
    Prefer,
    /// In both roles nothing else.
    Force,
    /// Refused as responder.
    Never,
}

/// One set of selectors and the Child SA that protects it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChildConfig {
    /// Name of its section.
    pub name: String,
    /// Unique to this child, and stable as long as connection and child keep their names.
    pub reqid: Reqid,
    /// Our side of the traffic.
    pub local_ts: Vec<SelectorConfig>,
    /// The peer's side of the traffic.
    pub remote_ts: Vec<SelectorConfig>,
    /// ESP proposals, best first.
    pub esp_proposals: Vec<SaProposal>,
    /// Protect, or an exception from protection.
    pub mode: ChildMode,
    /// What to do when the configuration is loaded.
    pub start_action: StartAction,
    /// What to do when the peer deletes the Child SA.
    pub close_action: CloseAction,
    /// What to do when the peer is dead.
    pub dpd_action: DpdAction,
    /// Rekey after this time; zero for never.
    pub rekey_time: Duration,
    /// Delete after this time; zero for never.
    pub life_time: Duration,
    /// Up to this much is subtracted from `rekey_time` at random.
    pub rand_time: Duration,
    /// Delete when there was no packet in either direction for this long; zero for never.
    pub inactivity: Duration,
    /// Rekey after so many bytes in one direction; zero for never.
    pub rekey_bytes: u64,
    /// Delete after so many bytes in one direction; zero for never.
    pub life_bytes: u64,
    /// Up to this much is subtracted from `rekey_bytes` at random.
    pub rand_bytes: u64,
    /// Rekey after so many packets in one direction; zero for never.
    pub rekey_packets: u64,
    /// Delete after so many packets in one direction; zero for never.
    pub life_packets: u64,
    /// Up to this much is subtracted from `rekey_packets` at random.
    pub rand_packets: u64,
    /// Anti-replay window in packets; zero turns the check off.
    pub replay_window: u32,
    /// Treatment of DSCP, ECN and DF.
    pub rules: HeaderRules,
    /// Announce, accept and make a Child SA for every worker (RFC 9611).
    pub per_cpu_sas: bool,
    /// Priority of its policies, lower first; computed from the selectors if absent.
    pub priority: Option<u32>,
}

/// One side's selector as configured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SelectorConfig {
    /// `dynamic`: the address of that side's gateway.
    Dynamic {
        /// Upper-layer protocol; 0 for any.
        protocol: u8,
        /// First and last port.
        ports: (u16, u16),
    },
    /// A given selector.
    Fixed(TrafficSelector),
}

/// What happens to traffic inside a child's selectors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum ChildMode {
    /// Protected in tunnel mode.
    #[default]
    Tunnel,
    /// Protected in transport mode if the peer agrees, in tunnel mode otherwise.
    Transport,
    /// Leaves and arrives in clear.
    Pass,
    /// Is dropped.
    Drop,
}

/// What to do when the configuration is loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum StartAction {
    /// Wait for the peer, or for a command.
    #[default]
    None,
    /// Initiate when traffic asks for it.
    Trap,
    /// Initiate.
    Start,
    /// Initiate, and again when traffic asks for it.
    TrapStart,
}

/// What to do when the peer deletes a Child SA.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum CloseAction {
    /// Nothing.
    #[default]
    None,
    /// Initiate when traffic asks for it.
    Trap,
    /// Initiate again.
    Start,
}

/// What to do with the children of a dead peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum DpdAction {
    /// Nothing more.
    #[default]
    Clear,
    /// Initiate when traffic asks for it.
    Trap,
    /// Initiate again.
    Restart,
}

impl ChildMode {
    /// Traffic is protected by a Child SA.
    pub fn protects(self) -> bool {
        matches!(self, Self::Tunnel | Self::Transport)
    }
}

impl StartAction {
    /// Traffic may initiate.
    pub fn traps(self) -> bool {
        matches!(self, Self::Trap | Self::TrapStart)
    }

    /// Loading the configuration initiates.
    pub fn starts(self) -> bool {
        matches!(self, Self::Start | Self::TrapStart)
    }
}

impl ChildConfig {
    /// A packet may initiate: at once, or after an end for which the configuration says so.
    pub fn traps(&self) -> bool {
        self.start_action.traps()
            || self.close_action == CloseAction::Trap
            || self.dpd_action == DpdAction::Trap
    }
}

impl AddressPattern {
    /// Whether an address is accepted.
    pub fn matches(&self, addr: IpAddr) -> bool {
        match self {
            Self::Any => true,
            Self::Net(net) => net.contains(&addr),
            Self::Range(first, last) => {
                first.is_ipv4() == addr.is_ipv4() && (*first..=*last).contains(&addr)
            }
        }
    }

    /// The address, if only one is accepted.
    pub fn host(&self) -> Option<IpAddr> {
        match self {
            Self::Net(net) if net.prefix_len() == net.max_prefix_len() => Some(net.addr()),
            Self::Range(first, last) if first == last => Some(*first),
            _ => None,
        }
    }

    /// 0 for no match; more for a more specific pattern.
    fn rank(&self, addr: IpAddr) -> u8 {
        match self {
            _ if !self.matches(addr) => 0,
            Self::Any => 1,
            Self::Range(..) if self.host().is_none() => 2,
            Self::Range(..) => u8::MAX,
            Self::Net(net) if net.prefix_len() == net.max_prefix_len() => u8::MAX,
            Self::Net(net) => net.prefix_len().saturating_add(3),
        }
    }
}

impl Connection {
    /// How well a pair of addresses fits; `None` if it does not.
    pub fn address_rank(&self, local: IpAddr, remote: IpAddr) -> Option<(u8, u8)> {
        let best = |patterns: &[AddressPattern], addr| {
            let rank = patterns.iter().map(|pattern| pattern.rank(addr)).max();
            rank.filter(|rank| *rank > 0)
        };
        let remote = best(&self.remote_addrs, remote)?;
        let local = best(&self.local_addrs, local)?;
        Some((remote, local))
    }

    /// Where to initiate to, if the configuration names a single host.
    pub fn remote_host(&self) -> Option<SocketAddr> {
        let addr = self.remote_addrs.iter().find_map(AddressPattern::host)?;
        Some(SocketAddr::new(addr, self.remote_port))
    }

    /// Where to initiate from, towards an address of this family, if the configuration says so.
    pub fn local_host(&self, towards: IpAddr) -> Option<IpAddr> {
        let hosts = self.local_addrs.iter().filter_map(AddressPattern::host);
        hosts
            .filter(|host| host.is_ipv4() == towards.is_ipv4())
            .find(|host| !host.is_unspecified())
    }

    /// Our identity: as configured, or as our certificate has it, or our address.
    pub(super) fn local_identity(&self, addr: IpAddr) -> Identity {
        let certified = || self.local.method.default_identity();
        let configured = self.local.id.clone();
        configured
            .or_else(certified)
            .unwrap_or_else(|| Identity::from_addr(addr))
    }

    /// Whether the peer may use this PPK.
    pub(super) fn accepts_ppk(&self, id: &PpkId) -> bool {
        self.ppk_id.as_ref().is_none_or(|own| own == id)
    }

    /// A child by name.
    pub fn child(&self, name: &str) -> Option<&Arc<ChildConfig>> {
        self.children.iter().find(|child| child.name == name)
    }

    /// The child that an earlier configuration called the same.
    pub(super) fn same_child(&self, earlier: &ChildConfig) -> Option<&Arc<ChildConfig>> {
        self.child(&earlier.name)
            .filter(|child| child.reqid == earlier.reqid)
    }
}

impl Pad {
    /// A post-quantum preshared key by one of its identifiers.
    pub fn ppk(&self, id: &PpkId) -> Option<&Ppk> {
        self.ppks.iter().find(|ppk| ppk.ids.contains(id))
    }

    /// A connection by name.
    pub fn connection(&self, name: &str) -> Option<&Arc<Connection>> {
        self.connections.iter().find(|conn| conn.name == name)
    }

    /// Connections for a pair of addresses, the best first.
    pub fn by_addresses(&self, local: IpAddr, remote: IpAddr) -> Vec<&Arc<Connection>> {
        Self::best_by_addresses(self.connections.iter(), local, remote)
    }

    pub(super) fn best_by_addresses<'a>(
        connections: impl Iterator<Item = &'a Arc<Connection>>,
        local: IpAddr,
        remote: IpAddr,
    ) -> Vec<&'a Arc<Connection>> {
        let ranked = connections
            .filter_map(|connection| Some((connection.address_rank(local, remote)?, connection)));
        let mut ranked: Vec<_> = ranked.collect();
        ranked.sort_by_key(|(rank, _)| std::cmp::Reverse(*rank));
        ranked
            .into_iter()
            .map(|(_, connection)| connection)
            .collect()
    }

    /// Hosts that a connection would initiate to.
    pub fn remote_hosts(&self) -> impl Iterator<Item = IpAddr> {
        let hosts = self
            .connections
            .iter()
            .filter_map(|conn| conn.remote_host());
        hosts.map(|host| host.ip())
    }

    /// The child that a policy's reqid belongs to, and its connection.
    pub fn by_reqid(&self, reqid: Reqid) -> Option<(&Arc<Connection>, &Arc<ChildConfig>)> {
        self.connections.iter().find_map(|connection| {
            let mut children = connection.children.iter();
            let child = children.find(|child| child.reqid == reqid)?;
            Some((connection, child))
        })
    }

    /// The secret that is most specific to the peer, then to us. One that names nobody is everybody's;
    /// one that names only us is for any peer. One that names another peer is not used: who shares it
    /// could take any name.
    pub fn secret(&self, local: &Identity, remote: Option<&Identity>) -> Option<&SharedSecret> {
        Self::best_secret(self.secrets.iter(), local, remote)
    }

    pub(super) fn best_secret<'a>(
        secrets: impl Iterator<Item = &'a SharedSecret>,
        local: &Identity,
        remote: Option<&Identity>,
    ) -> Option<&'a SharedSecret> {
        let rank = |secret: &SharedSecret, identity: &Identity| {
            if secret.ids.is_empty() {
                return 1;
            }
            let ranks = secret.ids.iter().map(|pattern| pattern.rank(identity));
            ranks.max().unwrap_or(0)
        };
        let ranked = secrets.map(|secret| {
            let other = remote.map_or(0, |remote| rank(secret, remote));
            ((other, rank(secret, local)), secret)
        });
        let is_ours = |secret: &SharedSecret| secret.ids.iter().all(|id| id.matches(local));
        let fitting = ranked.filter(|((other, own), secret)| {
            *other > 0 || (*own > 0 && (remote.is_none() || is_ours(secret)))
        });
        // On a tie the first one wins, so the order of the file is the order of preference.
        let best = fitting.reduce(|best, next| if next.0 > best.0 { next } else { best })?;
        Some(best.1)
    }
}
