//! A Child SA: the control record of a pair of ESP SAs (RFC 7296 §1.3).

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::crypto::PacketKey;
use crate::crypto::kdf::{ChildKeys, HalfKeys};
use crate::ike::AlertKind;
use crate::ike::context::Context;
use crate::ike::key_log;
use crate::ike::pad::ChildConfig;
use crate::ike::retransmit::below;
use crate::ike::status::{ChildState, ChildStatus, IkeSaStatus, NatStatus};
use crate::ike::{Event, Path};
use crate::ipsec::{
    ChildId, EspEncap, EspPath, InboundParams, InboundSa, Limits, Mode, OutboundParams, OutboundSa,
    SaUpdate, SaUsage, Selectors, Spi, TransportEnds, WorkerId,
};
use crate::wire::ip::Flow;
use crate::wire::proposal::EspSuite;

use super::inactivity::Inactivity;
use super::lingering::Lingering;
use super::siblings::{Kin, Siblings};
use super::with_port;

/// What a negotiation of a Child SA has led to, without the keys.
pub(super) struct Agreed {
    pub(super) config: Arc<ChildConfig>,
    pub(super) owner: WorkerId,
    pub(super) spi_in: Spi,
    pub(super) spi_out: Spi,
    pub(super) suite: EspSuite,
    pub(super) selectors: Selectors,
    pub(super) kin: Kin,
    /// In transport mode.
    pub(super) transport: Option<TransportEnds>,
    /// We sent the request of the exchange that made it.
    pub(super) initiator: bool,
}

/// One Child SA.
#[derive(Debug)]
pub(in crate::ike) struct ChildSa {
    pub(in crate::ike) id: ChildId,
    pub(in crate::ike) config: Arc<ChildConfig>,
    pub(super) owner: WorkerId,
    pub(super) spi_in: Spi,
    pub(super) spi_out: Spi,
    pub(super) suite: EspSuite,
    pub(super) selectors: Arc<Selectors>,
    pub(super) mode: Mode,
    pub(super) usage_in: Arc<SaUsage>,
    pub(super) usage_out: Arc<SaUsage>,
    pub(super) kin: Kin,
    /// The peer wants no more than this pair of addresses in it.
    pub(super) single_pair: bool,
    pub(super) times: Times,
    pub(super) inactivity: Inactivity,
    pub(super) phase: Phase,
    /// Made by the peer to replace this one; takes over when the peer deletes this one.
    pub(super) successor: Option<ChildId>,
    /// One that we made has taken over.
    pub(super) replaced: bool,
    /// An event has told of its beginning, and none of its end.
    pub(super) told: bool,
    path: EspPath,
    outbound: Outbound,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Times {
    pub(super) installed: Instant,
    pub(super) rekey_at: Option<Instant>,
    pub(super) expires_at: Option<Instant>,
    /// The peer should have deleted it by then.
    pub(super) stale_at: Option<Instant>,
    /// The peer should receive on it by then.
    pub(super) settled_at: Option<Instant>,
}

/// What is under way with a Child SA.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// Nothing.
    Live,
    /// We want to replace it, or our request is unanswered.
    Rekeying,
    /// The peer has replaced it, or will delete it as redundant.
    Replaced,
    /// We want to delete it, or our request is unanswered.
    Deleting,
}

#[derive(Debug)]
enum Outbound {
    /// Keys are here until the peer has shown that it receives.
    Waiting(Box<OutboundSa>),
    Installed,
    /// Never used, since the SA lost a collision.
    Absent,
}

/// Why an SA ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::ike) enum End {
    /// A command, or the configuration, ended it.
    Terminated,
    /// The peer deleted it.
    ByPeer,
    /// The peer does not answer.
    Dead,
    /// The peer has proven that it does not know it any more.
    Crashed,
    /// The peer was sent to another gateway.
    Redirected,
    /// It became too old.
    Expired,
    /// A newer SA of the same peer took its place.
    Superseded(&'static str),
    /// The peer has started anew and has none of it any more.
    Forgotten,
    /// Both sides opened an IKE SA at once, and the other one stays.
    Redundant,
    /// A successor has taken over.
    Replaced,
    /// The peer said or did something that leaves no other choice.
    Failed(String),
}

impl End {
    /// What a person is told, if it is a failure.
    pub(super) fn alert_kind(&self) -> Option<AlertKind> {
        match self {
            Self::Dead => Some(AlertKind::Silence),
            Self::Failed(_) => Some(AlertKind::Ike),
            Self::Terminated
            | Self::ByPeer
            | Self::Crashed
            | Self::Redirected
            | Self::Expired
            | Self::Superseded(_)
            | Self::Forgotten
            | Self::Redundant
            | Self::Replaced => None,
        }
    }
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Terminated => f.write_str("terminated"),
            Self::ByPeer => f.write_str("deleted by the peer"),
            Self::Dead => f.write_str("the peer does not answer"),
            Self::Crashed => f.write_str("the peer has lost its state"),
            Self::Redirected => f.write_str("the peer was sent to another gateway"),
            Self::Expired => f.write_str("lifetime is over"),
            Self::Superseded(why) => f.write_str(why),
            Self::Forgotten => f.write_str("the peer has started anew"),
            Self::Redundant => f.write_str("both sides opened an IKE_SA at once"),
            Self::Replaced => f.write_str("replaced"),
            Self::Failed(reason) => f.write_str(reason),
        }
    }
}

impl ChildSa {
    /// Installs the inbound half; the outbound half waits for [`ChildSa::open_outbound`].
    pub(super) fn install(
        agreed: Agreed,
        keys: ChildKeys,
        path: EspPath,
        cx: &mut Context,
    ) -> Self {
        let (keys_out, keys_in) = if agreed.initiator {
            (keys.initiator, keys.responder)
        } else {
            (keys.responder, keys.initiator)
        };
        for (spi, keys) in [(agreed.spi_in, &keys_in), (agreed.spi_out, &keys_out)] {
            let ipv6 = path.remote.is_ipv6();
            let line = cx.key_line(|| key_log::esp(ipv6, spi, &agreed.suite.cipher, keys));
            cx.log_keys(line);
        }
        let selectors = Arc::new(agreed.selectors.clone());
        let half = Half {
            id: cx.next_child_id(),
            agreed: &agreed,
            selectors: &selectors,
            path,
            limits: limits(&agreed.config, cx),
        };
        let inbound = half.inbound(&keys_in);
        let outbound = half.outbound(&keys_out, cx.settings.path_mtu);
        let (usage_in, usage_out) = (Arc::clone(inbound.usage()), Arc::clone(outbound.usage()));
        let (id, times) = (half.id, Times::new(&agreed.config, cx));
        cx.update(SaUpdate::AddInbound(Box::new(inbound)));
        let Agreed {
            config,
            owner,
            spi_in,
            spi_out,
            suite,
            kin,
            transport,
            ..
        } = agreed;
        Self {
            id,
            owner,
            spi_in,
            spi_out,
            suite,
            selectors,
            mode: transport.map_or(Mode::Tunnel, |_| Mode::Transport),
            usage_in,
            usage_out,
            kin,
            single_pair: false,
            times,
            inactivity: Inactivity::new(config.inactivity, cx.now),
            config,
            phase: Phase::Live,
            successor: None,
            replaced: false,
            told: false,
            path,
            outbound: Outbound::Waiting(Box::new(outbound)),
        }
    }

    /// From now on packets leave through this SA.
    pub(super) fn open_outbound(&mut self, cx: &mut Context) {
        match std::mem::replace(&mut self.outbound, Outbound::Installed) {
            Outbound::Waiting(outbound) => cx.update(SaUpdate::SwitchOutbound(outbound)),
            other => self.outbound = other,
        }
    }

    /// Packets will never leave through this SA.
    pub(super) fn drop_outbound(&mut self) {
        if self.awaits_peer() {
            self.outbound = Outbound::Absent;
        }
    }

    /// Packets do not leave through this SA any more.
    pub(super) fn stop_outbound(&mut self, cx: &mut Context) {
        let outbound = std::mem::replace(&mut self.outbound, Outbound::Absent);
        if matches!(outbound, Outbound::Installed) {
            cx.update(SaUpdate::RemoveOutbound {
                child: self.id,
                reqid: self.config.reqid,
                owner: self.owner,
            });
        }
    }

    /// Packets leave, or will leave, through this SA.
    pub(super) fn has_outbound(&self) -> bool {
        !matches!(self.outbound, Outbound::Absent)
    }

    /// The outbound half waits for the peer.
    pub(super) fn awaits_peer(&self) -> bool {
        matches!(self.outbound, Outbound::Waiting(_))
    }

    /// Follows the peer to another address.
    pub(super) fn move_to(&mut self, path: EspPath, cx: &mut Context) {
        if self.path == path {
            return;
        }
        self.path = path;
        match &mut self.outbound {
            Outbound::Waiting(outbound) => outbound.set_path(path),
            Outbound::Installed => cx.update(SaUpdate::MoveOutbound {
                child: self.id,
                reqid: self.config.reqid,
                owner: self.owner,
                path,
                path_mtu: cx.settings.path_mtu,
            }),
            Outbound::Absent => {}
        }
    }

    /// Takes both halves from the data plane.
    pub(in crate::ike) fn uninstall(mut self, cx: &mut Context) {
        self.stop_outbound(cx);
        cx.remove_inbound(self.spi_in, self.owner);
    }

    /// The same where another one has taken over: what the peer has sent before may still arrive.
    pub(super) fn linger(mut self, lingering: &mut Lingering, cx: &mut Context) {
        self.stop_outbound(cx);
        lingering.add(self.spi_in, self.owner, cx);
    }

    /// Tells of its end, unless nobody has heard of it or a successor has told of it.
    pub(super) fn tell_down(&self, ike: &IkeSaStatus, end: &End, cx: &mut Context) {
        if self.told {
            cx.event(Event::ChildDown {
                ike: Box::new(ike.clone()),
                child: Box::new(self.status()),
                reason: end.to_string(),
            });
        }
    }

    /// Another one has taken over, or will when this one is deleted.
    pub(super) fn is_replaced(&self) -> bool {
        self.replaced || self.successor.is_some()
    }

    /// Whether new traffic of this kind finds its way through this SA.
    pub(in crate::ike) fn admits(&self, flow: &Flow) -> bool {
        self.is_usable() && self.selectors.admits_outbound(flow)
    }

    /// There was no packet for as long as the configuration allows.
    pub(super) fn is_idle(&mut self, now: Instant) -> bool {
        let due = self.inactivity.deadline().is_some_and(|at| at <= now);
        let (packets, timeout) = (self.packets(), self.config.inactivity);
        due && self.phase == Phase::Live && self.inactivity.look(packets, timeout, now)
    }

    /// In both directions.
    pub(super) fn packets(&self) -> u64 {
        self.usage_in.packets() + self.usage_out.packets()
    }

    /// Not on its way out without a successor.
    pub(in crate::ike) fn is_usable(&self) -> bool {
        self.phase != Phase::Deleting && !matches!(self.outbound, Outbound::Absent)
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        let live = self.phase == Phase::Live;
        let rekey_at = self.times.rekey_at.filter(|_| live);
        let idle_at = self.inactivity.deadline().filter(|_| live);
        let Times {
            expires_at,
            stale_at,
            ..
        } = self.times;
        let times = [rekey_at, idle_at, expires_at, stale_at];
        times.into_iter().flatten().min()
    }

    /// How log lines name it.
    pub(super) fn description(&self) -> String {
        self.status().to_string()
    }

    pub(super) fn status(&self) -> ChildStatus {
        let state = match self.phase {
            Phase::Live if self.awaits_peer() => ChildState::InboundOnly,
            Phase::Live => ChildState::Installed,
            Phase::Rekeying => ChildState::Rekeying,
            Phase::Replaced => ChildState::Rekeyed,
            Phase::Deleting => ChildState::Deleting,
        };
        ChildStatus {
            id: self.id,
            name: self.config.name.clone(),
            reqid: self.config.reqid,
            state,
            mode: self.mode,
            encap: self.path.encap,
            spi_in: self.spi_in,
            spi_out: self.spi_out,
            suite: self.suite,
            owner: self.owner,
            per_worker: self.kin.siblings != Siblings::Unknown,
            usage_in: Arc::clone(&self.usage_in),
            usage_out: Arc::clone(&self.usage_out),
            installed: self.times.installed,
            rekey_at: self.times.rekey_at,
            expires_at: self.times.expires_at,
            local_ts: self.selectors.local.clone(),
            remote_ts: self.selectors.remote.clone(),
        }
    }
}

/// What both halves of a Child SA are made from.
struct Half<'a> {
    id: ChildId,
    agreed: &'a Agreed,
    selectors: &'a Arc<Selectors>,
    path: EspPath,
    limits: Limits,
}

impl Half<'_> {
    fn inbound(&self, keys: &HalfKeys) -> InboundSa {
        let Agreed { config, suite, .. } = self.agreed;
        let mut sa = InboundSa::new(InboundParams {
            spi: self.agreed.spi_in,
            child: self.id,
            reqid: config.reqid,
            owner: self.agreed.owner,
            key: packet_key(suite, keys),
            esn: suite.esn,
            replay_window: config.replay_window,
            path: self.path,
            selectors: Arc::clone(self.selectors),
            rules: config.rules,
            limits: self.limits,
            usage: Arc::default(),
        });
        if let Some(ends) = self.agreed.transport {
            sa.set_transport(ends);
        }
        sa
    }

    fn outbound(&self, keys: &HalfKeys, path_mtu: u16) -> OutboundSa {
        let Agreed { config, suite, .. } = self.agreed;
        let mut sa = OutboundSa::new(OutboundParams {
            spi: self.agreed.spi_out,
            child: self.id,
            reqid: config.reqid,
            owner: self.agreed.owner,
            key: packet_key(suite, keys),
            esn: suite.esn,
            path: self.path,
            selectors: Arc::clone(self.selectors),
            rules: config.rules,
            limits: self.limits,
            usage: Arc::default(),
            path_mtu,
        });
        sa.set_per_worker(self.agreed.kin.siblings == Siblings::Welcome);
        if self.agreed.transport.is_some() {
            sa.set_transport();
        }
        sa
    }
}

impl Times {
    fn new(config: &ChildConfig, cx: &mut Context) -> Self {
        Self {
            installed: cx.now,
            rekey_at: early(config.rekey_time, config.rand_time, cx),
            expires_at: (!config.life_time.is_zero()).then(|| cx.now + config.life_time),
            stale_at: None,
            settled_at: None,
        }
    }
}

/// `after` from now, less a random part of `spread`; `None` for a zero time.
pub(super) fn early(after: Duration, spread: Duration, cx: &mut Context) -> Option<Instant> {
    if after.is_zero() {
        return None;
    }
    let now = cx.now;
    let earlier = below(spread, cx.rng());
    Some(now + after.saturating_sub(earlier))
}

/// Where ESP goes, given where IKE goes (RFC 7296 §2.23, RFC 3948).
pub(super) fn esp_path(path: Path, nat: NatStatus, cx: &Context) -> EspPath {
    if !nat.any() {
        return EspPath {
            encap: EspEncap::None,
            local: with_port(path.local, 0),
            remote: with_port(path.remote, 0),
        };
    }
    let port = match path.remote.port() {
        500 => 4500,
        port => port,
    };
    EspPath {
        encap: EspEncap::Udp,
        local: with_port(path.local, cx.settings.port_nat_t),
        remote: with_port(path.remote, port),
    }
}

fn limits(config: &ChildConfig, cx: &mut Context) -> Limits {
    let mut soft = |value: u64, spread: u64| {
        let earlier = cx.rng().next_u64().checked_rem(spread).unwrap_or(0);
        if value == 0 {
            u64::MAX
        } else {
            value.saturating_sub(earlier).max(1)
        }
    };
    let hard = |value: u64| if value == 0 { u64::MAX } else { value };
    Limits {
        soft_bytes: soft(config.rekey_bytes, config.rand_bytes),
        hard_bytes: hard(config.life_bytes),
        soft_packets: soft(config.rekey_packets, config.rand_packets),
        hard_packets: hard(config.life_packets),
    }
}

fn packet_key(suite: &EspSuite, keys: &HalfKeys) -> PacketKey {
    let (encryption, integrity) = (keys.encryption.as_bytes(), keys.integrity.as_bytes());
    PacketKey::new(suite.cipher, encryption, integrity)
        .expect("negotiation accepts only suites we have, and derivation fits the lengths")
}
