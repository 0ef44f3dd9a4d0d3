//! The Internet Key Exchange, sans-IO: IKEv2 of RFC 7296, with secrets shared before (PSK and PPK,
//! RFC 8784), raw public keys and certificates.
//!
//! Nothing here reads a clock, a socket or a random device. The caller feeds an [`Endpoint`] with
//! [`Input`]s and the time, drains [`Output`]s until there are none, and sleeps until
//! [`Endpoint::next_timeout`]. The daemon, the tests (two endpoints on a virtual clock), the
//! handshake benchmark and the fuzz targets all drive this one surface.
//!
//! ```text
//!  Datagram  Timer  Command  SaEvent                        Transmit  Keepalive  SaUpdate  Event
//!      │       │       │        │                                ▲        ▲         ▲        ▲
//!      ▼       ▼       ▼        ▼                                │        │         │        │
//!  ┌───────────────────────────────── endpoint ─────────────────────────────────────────────────┐
//!  │ header ─► SPI table ─► one IKE SA ─► step ─► outbox                                         │
//!  │                                                                                            │
//!  │ initiator   InitSent ──────► AuthSent ──────► Established ─┬─► rekeyed by a new Established │
//!  │ responder   (stateless cookie) ─► HalfOpen ─► Established ─┴─► Deleting ─► gone             │
//!  └────────────────────────────────────────────────────────────────────────────────────────────┘
//! ```
//!
//! A state is a struct that holds what this state needs; a step consumes it and is total: every
//! message in every state yields a state. What a peer may ask for is in [`pad`]; what it asks for
//! is compared in `negotiate` and `narrow`, which are pure.
//!
//! Errors come in two kinds: a [`Discard`] is a message that is counted and otherwise ignored, an
//! `ExchangeError` ends the exchange and has exactly one notify.

mod acquire;
mod addresses;
mod admission;
mod alert;
mod commands;
mod context;
mod cookie;
mod crash_token;
pub mod credentials;
mod directory;
pub mod discard;
pub mod endpoint;
mod handover;
pub mod identity;
mod key_log;
mod narrow;
mod nat;
mod negotiate;
pub mod pad;
mod peers;
mod planned;
mod policies;
pub mod pools;
mod rate;
mod redirect;
mod retransmit;
pub mod revocation;
mod session;
mod sources;
pub mod status;
mod strangers;
mod table;
mod tickets;
mod v2;

use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU16;
use std::sync::Arc;
use std::time::Duration;

pub use alert::{Alert, AlertKind};
pub use credentials::{
    Authority, KeyClass, LocalKey, LocalMethod, Padding, RemoteMethod, Revocation, SchemePolicy,
    SendCert, Trust,
};
pub use discard::Discard;
pub use endpoint::Endpoint;
pub use identity::{Identity, IdentityPattern, IdentitySyntax};
pub use key_log::{KeyLogLine, KeyTable};
pub use pad::{
    AddressPattern, ChildConfig, ChildMode, Childless, CloseAction, Connection, DpdAction,
    Fragmentation, LocalAuth, Pad, Ppk, PpkId, RemoteAuth, SelectorConfig, SharedSecret,
    StartAction, Unique,
};
pub use pools::{Lease, Pool};
pub use redirect::Redirected;
pub use revocation::{Fetch, FetchId, Fetched};
pub use status::{ChildState, ChildStatus, IkeSaStatus, IkeState, NatStatus};
pub use tickets::TicketKeys;

use crate::crypto::Secret;
use crate::crypto::x509::UnixTime;
use crate::ipsec::{SaEvent, SaUpdate};
use crate::wire::ikev2::Gateway;

/// The two ends of the datagrams of one IKE SA.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Path {
    /// Our address; unspecified until a datagram or [`Input::SourceAddress`] has told it.
    pub local: SocketAddr,
    /// The peer's address.
    pub remote: SocketAddr,
}

/// Names a command in [`Event::CommandDone`]; chosen by the caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CommandId(pub u64);

/// What the caller tells the endpoint.
#[derive(Debug)]
pub enum Input<'a> {
    /// A UDP datagram that is not ESP and not a keepalive.
    Datagram {
        /// Where it came from and where it arrived.
        path: Path,
        /// The IKE message, without the non-ESP marker.
        bytes: &'a [u8],
    },
    /// [`Endpoint::next_timeout`] has passed.
    Timer,
    /// A person or a program wants something.
    Command {
        /// Repeated in [`Event::CommandDone`].
        id: CommandId,
        /// What is wanted.
        command: Command,
    },
    /// The data plane reports. `Punted` and retired SAs are not for the endpoint and are ignored.
    Sa(SaEvent),
    /// The address that the routing table would use towards `remote`. Told for every host of
    /// [`Pad::remote_hosts`] whose connection does not name a single local address.
    SourceAddress {
        /// The peer.
        remote: IpAddr,
        /// Our address towards it.
        local: IpAddr,
    },
    /// Our addresses or routes have changed, or are told for the first time.
    Addresses {
        /// Every address of ours.
        own: &'a [IpAddr],
        /// For each of [`Endpoint::remote_addresses`], the address that the routing table would use
        /// towards it, if it has one.
        sources: &'a [(IpAddr, IpAddr)],
    },
    /// The time of day, which the validity of certificates is compared with. Goes on with the time
    /// of later inputs; told again whenever the clock may have been set. Before the first one no
    /// certificate is valid.
    TimeOfDay(UnixTime),
    /// What tickets are sealed with from now on (RFC 5723); before that we make none. Those of peers are
    /// taken in any case.
    TicketKeys(TicketKeys),
    /// The end of [`Output::Fetch`].
    Fetched {
        /// Of the wish.
        id: FetchId,
        /// What was found, or why nothing was.
        result: Result<Fetched, String>,
    },
}

/// What a person or a program may want. Names select; an absent selector selects all.
#[derive(Clone, Debug)]
pub enum Command {
    /// Brings up an IKE SA, or a Child SA and the IKE SA it needs. At least one name is given.
    Initiate {
        /// Connection; with no `child`, only its IKE SA is brought up (RFC 6023).
        ike: Option<String>,
        /// Child of the connection, or of the first one that has a child of this name.
        child: Option<String>,
    },
    /// Deletes Child SAs if a child is selected, IKE SAs otherwise.
    Terminate {
        /// Connection name.
        ike: Option<String>,
        /// Child name.
        child: Option<String>,
        /// One IKE SA.
        ike_id: Option<u64>,
        /// One Child SA.
        child_id: Option<u64>,
        /// Do not wait for the peer's answer.
        force: bool,
    },
    /// Replaces the keys of Child SAs if a child is selected, of IKE SAs otherwise.
    Rekey {
        /// Connection name.
        ike: Option<String>,
        /// Child name.
        child: Option<String>,
        /// One IKE SA.
        ike_id: Option<u64>,
        /// One Child SA.
        child_id: Option<u64>,
        /// Authenticate anew instead of rekeying the IKE SA; the new one comes first.
        reauth: bool,
    },
    /// Sends peers that have set up IKE SAs with us to another gateway (RFC 5685 §5). Matches are those
    /// that go where they are sent to.
    Redirect {
        /// Whom.
        whom: Redirected,
        /// Where to.
        gateway: Gateway,
    },
    /// Replaces the configuration. SAs whose connection or child is gone are deleted; the others
    /// live on and use the new values from their next rekey.
    Reload(Arc<Pad>),
    /// Deletes every SA and starts none. Done when the last answer or timeout is in.
    Shutdown,
}

/// What the endpoint wants done.
#[derive(Debug)]
pub enum Output {
    /// Send a datagram.
    Transmit(Transmit),
    /// Send the one-byte NAT keepalive (RFC 3948 §4).
    Keepalive(Path),
    /// Tell the data plane.
    Update(SaUpdate),
    /// Tell whoever watches.
    Event(Event),
    /// Write down keys. Only with [`Settings::key_log`].
    KeyLog(KeyLogLine),
    /// Ask for revocation information, and answer with [`Input::Fetched`]. Without an answer in
    /// [`Settings::fetch_timeout`] there is none.
    Fetch(Fetch),
    /// Find our address towards this one, and tell it with [`Input::SourceAddress`].
    Route(IpAddr),
}

/// One IKE message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transmit {
    /// Where it goes. An unspecified local address leaves the choice to the kernel.
    pub path: Path,
    /// Prepend four zero bytes (RFC 3948 §2.2).
    pub marker: bool,
    /// The message.
    pub bytes: Vec<u8>,
}

/// What happened.
#[derive(Clone, Debug)]
pub enum Event {
    /// An IKE SA was established.
    IkeUp {
        /// The SA, without children.
        ike: Box<IkeSaStatus>,
    },
    /// An IKE SA, and every Child SA it still had, is gone. Also told for one that failed before
    /// it was established.
    IkeDown {
        /// The SA as it last was.
        ike: Box<IkeSaStatus>,
        /// Why.
        reason: String,
    },
    /// An IKE SA was replaced; its children moved along.
    IkeRekeyed {
        /// The replaced SA, without children.
        old: Box<IkeSaStatus>,
        /// Its successor with the children.
        new: Box<IkeSaStatus>,
    },
    /// A Child SA was installed.
    ChildUp {
        /// Its IKE SA, without children.
        ike: Box<IkeSaStatus>,
        /// The Child SA.
        child: Box<ChildStatus>,
    },
    /// A Child SA is gone.
    ChildDown {
        /// Its IKE SA, without children.
        ike: Box<IkeSaStatus>,
        /// The Child SA as it last was.
        child: Box<ChildStatus>,
        /// Why.
        reason: String,
    },
    /// A Child SA was replaced.
    ChildRekeyed {
        /// Its IKE SA, without children.
        ike: Box<IkeSaStatus>,
        /// The replaced SA.
        old: Box<ChildStatus>,
        /// Its successor.
        new: Box<ChildStatus>,
    },
    /// A command has come to its end.
    CommandDone {
        /// The command.
        id: CommandId,
        /// How it ended.
        result: Result<CommandOutcome, CommandError>,
    },
    /// A negotiation failed. What strangers cause is limited in rate.
    Alert(Alert),
    /// One line for people. Text that a peer supplied is escaped.
    Log {
        /// 0 audit, 1 control flow, 2 detail, as strongSwan counts; -1 for warnings.
        level: i8,
        /// `"IKE"`, `"CFG"`, `"NET"`, `"ENC"` or `"CHD"`.
        group: &'static str,
        /// Connection name and unique id of the IKE SA it is about.
        ike: Option<(String, u64)>,
        /// The line.
        message: String,
    },
}

/// How a command ended well.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CommandOutcome {
    /// SAs that the command selected.
    pub matches: u32,
    /// SAs that are gone because of it.
    pub terminated: u32,
    /// The IKE SA that was brought up.
    pub ike: Option<u64>,
    /// The Child SA that was brought up.
    pub child: Option<u64>,
}

/// How a command failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CommandError {
    /// The configuration has no such connection or child.
    #[error("no {what} named {name:?} in the configuration")]
    NotConfigured {
        /// "connection" or "child".
        what: &'static str,
        /// The name asked for.
        name: String,
    },
    /// No SA was selected.
    #[error("no matching SA found")]
    NoMatch,
    /// A required selector is missing.
    #[error("missing {0}")]
    Missing(&'static str),
    /// The negotiation failed.
    #[error("{0}")]
    Failed(String),
    /// The endpoint is shutting down.
    #[error("shutting down")]
    ShuttingDown,
}

/// What does not depend on a peer. [`Settings::new`] has the defaults.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Worker threads of the data plane; inbound SPIs name theirs.
    pub workers: NonZeroU16,
    /// Our port without UDP encapsulation.
    pub port: u16,
    /// Our port for the non-ESP marker and UDP-encapsulated ESP.
    pub port_nat_t: u16,
    /// Path MTU assumed for ESP until something better is known.
    pub path_mtu: u16,
    /// Largest IP datagram that carries a fragment of an IKE message (RFC 7383 §2.5.1).
    pub fragment_size: u16,
    /// When unanswered requests are repeated.
    pub retransmit: RetransmitSettings,
    /// The same for liveness checks.
    pub liveness: RetransmitSettings,
    /// Half-open IKE SAs from which on every new initiator must return a cookie.
    pub cookie_threshold: usize,
    /// IKE_SA_INIT requests in a second from which on the same holds.
    pub cookie_rate: u32,
    /// IKE_SA_INIT requests in a second that one address may have answered once it has returned a
    /// cookie; twice as many at once.
    pub source_rate: u32,
    /// The same for all addresses together that are no configured peer's.
    pub stranger_rate: u32,
    /// Half-open IKE SAs in all; the oldest makes room for a new one, and those of strangers go first.
    pub half_open_limit: usize,
    /// Half-open IKE SAs from one address that is a configured peer's. Any other address gets one.
    pub half_open_per_address: usize,
    /// How long an initiator may take from IKE_SA_INIT to IKE_AUTH.
    pub half_open_timeout: Duration,
    /// Child SAs of one IKE SA, without those that are for single workers.
    pub children_per_ike: usize,
    /// Child SAs for single workers that a peer may add to one child (RFC 9611).
    pub additional_per_child: usize,
    /// IKE SAs of one connection with the same peer identity; the oldest makes room for a new one.
    pub ike_sas_per_peer: usize,
    /// How long a replaced Child SA still receives, if no more than [`Self::children_per_ike`] do.
    pub inbound_linger: Duration,
    /// Interval of NAT keepalives.
    pub keepalive: Duration,
    /// Whether keys come out as [`Output::KeyLog`].
    pub key_log: bool,
    /// How long IKE_AUTH waits for revocation information.
    pub fetch_timeout: Duration,
    /// What our crash detection tokens are made of, the same after each restart and nobody else's
    /// (RFC 6290 §5.1). Without it we make none; those of peers are taken anyway.
    pub crash_secret: Option<Arc<Secret>>,
}

/// Transmissions of one request: after each one a wait, the first `initial` long, each next twice
/// as long as the one before but no longer than `longest`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetransmitSettings {
    /// First wait.
    pub initial: Duration,
    /// Longest wait.
    pub longest: Duration,
    /// Transmissions, the first included.
    pub tries: u32,
    /// Each wait is changed at random by up to this many percent.
    pub jitter_percent: u32,
}

impl RetransmitSettings {
    /// The longest that a request can take from its first transmission until it is given up.
    pub(crate) fn patience(&self) -> Duration {
        let mut wait = self.initial;
        let mut sum = Duration::ZERO;
        for _ in 0..self.tries {
            sum += wait;
            wait = (wait * 2).min(self.longest);
        }
        sum + sum * self.jitter_percent.min(100) / 100
    }
}

impl Settings {
    /// The defaults, for this many workers.
    pub fn new(workers: NonZeroU16) -> Self {
        let retransmit = RetransmitSettings {
            initial: Duration::from_millis(500),
            longest: Duration::from_secs(16),
            tries: 6,
            jitter_percent: 10,
        };
        Self {
            workers,
            port: 500,
            port_nat_t: 4500,
            path_mtu: 1500,
            fragment_size: 1280,
            retransmit,
            liveness: RetransmitSettings {
                tries: 4,
                ..retransmit
            },
            cookie_threshold: 64,
            cookie_rate: 200,
            source_rate: 100,
            stranger_rate: 1000,
            half_open_limit: 10_000,
            half_open_per_address: 16,
            half_open_timeout: Duration::from_secs(30),
            children_per_ike: 64,
            // RFC 9611 recommends at least twice as many as there are CPUs.
            additional_per_child: 2 * usize::from(workers.get()),
            ike_sas_per_peer: 16,
            inbound_linger: Duration::from_secs(5),
            keepalive: Duration::from_secs(20),
            key_log: false,
            fetch_timeout: Duration::from_secs(10),
            crash_secret: None,
        }
    }

    /// The same for a gateway whose peers are all good: every request is answered at once, however many
    /// come and from wherever. What bounds the memory stays.
    #[must_use]
    pub fn without_dos_protection(self) -> Self {
        Self {
            cookie_threshold: usize::MAX,
            cookie_rate: u32::MAX,
            source_rate: u32::MAX,
            stranger_rate: u32::MAX,
            half_open_per_address: usize::MAX,
            ..self
        }
    }
}
