//! Two gateways' configurations, to be changed by a test.

use std::net::IpAddr;
use std::num::NonZeroU16;
use std::sync::Arc;
use std::time::Duration;

use lockgate::crypto::Secret;
use lockgate::crypto::x509::UnixTime;
use lockgate::ike::{
    AddressPattern, Authority, ChildConfig, ChildMode, Childless, CloseAction, Connection,
    DpdAction, Fragmentation, IdentityPattern, LocalAuth, LocalMethod, Pad, Ppk, PpkId, RemoteAuth,
    RemoteMethod, SelectorConfig, Settings, SharedSecret, StartAction, Unique,
};
use lockgate::ipsec::{HeaderRules, Reqid};
use lockgate::wire::keyword::parse_proposal;
use lockgate::wire::proposal::{ProtocolId, SaProposal};

/// The time of day when a test begins: in the year 2026.
pub(crate) const NOW: u64 = 1_790_000_000;

/// One of the two gateways.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    A,
    B,
}

impl Side {
    pub(crate) const BOTH: [Self; 2] = [Self::A, Self::B];

    pub(crate) fn other(self) -> Self {
        match self {
            Self::A => Self::B,
            Self::B => Self::A,
        }
    }

    pub(crate) fn index(self) -> usize {
        self as usize
    }

    pub(crate) fn addr(self) -> IpAddr {
        match self {
            Self::A => [192, 0, 2, 1].into(),
            Self::B => [192, 0, 2, 2].into(),
        }
    }

    pub(crate) fn identity(self) -> &'static str {
        match self {
            Self::A => "gw-a.example",
            Self::B => "gw-b.example",
        }
    }

    /// The network behind this gateway.
    pub(crate) fn network(self) -> &'static str {
        match self {
            Self::A => "10.1.0.0/24",
            Self::B => "10.2.0.0/24",
        }
    }
}

/// Everything that an endpoint is made of.
#[derive(Clone)]
pub(crate) struct Setup {
    pub(crate) settings: Settings,
    /// Without its children.
    pub(crate) connection: Connection,
    pub(crate) children: Vec<ChildConfig>,
    pub(crate) secret: &'static str,
    /// Whose it is.
    pub(crate) secret_ids: Vec<IdentityPattern>,
    /// Name and value of post-quantum preshared keys.
    pub(crate) ppks: Vec<(&'static str, &'static str)>,
    /// Further connections, which have the children then.
    pub(crate) more: Vec<Connection>,
    pub(crate) authorities: Vec<Authority>,
    pub(crate) time_of_day: UnixTime,
    /// What tickets are sealed with, the current one first; none are made without.
    pub(crate) ticket_keys: Vec<u8>,
}

impl Setup {
    /// A gateway that does nothing by itself: no rekeys, no liveness checks, nothing started.
    pub(crate) fn new(side: Side) -> Self {
        let child = child(
            "lan",
            1,
            &[side.network()],
            &[side.other().network()],
            "aes256gcm16-x25519-esn-noesn",
        );
        Self {
            settings: Settings::new(NonZeroU16::new(2).unwrap()),
            connection: connection(side),
            children: vec![child],
            secret: "correct horse battery staple",
            secret_ids: vec![IdentityPattern::Any],
            ppks: Vec::new(),
            more: Vec::new(),
            authorities: Vec::new(),
            time_of_day: UnixTime::since_unix_epoch(Duration::from_secs(NOW)),
            ticket_keys: Vec::new(),
        }
    }

    pub(crate) fn pad(&self) -> Arc<Pad> {
        let first = [self.connection.clone()].into_iter();
        let mut connections: Vec<_> = first.chain(self.more.iter().cloned()).collect();
        let last = connections.last_mut().unwrap();
        last.children = self.children.iter().cloned().map(Arc::new).collect();
        let ppks = self.ppks.iter().map(|(id, secret)| Ppk {
            name: format!("ppk-{id}"),
            ids: vec![PpkId(id.as_bytes().to_vec())],
            secret: Secret::from(secret.as_bytes().to_vec()),
        });
        Arc::new(Pad {
            ppks: ppks.collect(),
            connections: connections.into_iter().map(Arc::new).collect(),
            secrets: vec![SharedSecret {
                name: "ike".into(),
                ids: self.secret_ids.clone(),
                secret: Secret::from(self.secret.as_bytes().to_vec()).into(),
            }],
            authorities: self.authorities.clone(),
        })
    }

    /// The time of day when this much time has passed.
    pub(crate) fn later(&self, time: Duration) -> UnixTime {
        UnixTime::since_unix_epoch(Duration::from_secs(self.time_of_day.as_secs()) + time)
    }

    /// Adds a second child, which protects 10.101.0.0/24 === 10.102.0.0/24.
    pub(crate) fn add_second_child(&mut self, side: Side) {
        let networks = ["10.101.0.0/24", "10.102.0.0/24"];
        let second = child(
            "lab",
            2,
            &[networks[side.index()]],
            &[networks[side.other().index()]],
            "aes128gcm16-esn-noesn",
        );
        self.children.push(second);
    }
}

fn connection(side: Side) -> Connection {
    let host = |side: Side| AddressPattern::Net(side.addr().into());
    Connection {
        name: "site".into(),
        local_addrs: vec![host(side)],
        remote_addrs: vec![host(side.other())],
        local_port: 500,
        remote_port: 500,
        proposals: ike_proposals(&["aes256gcm16-prfsha384-x25519"]),
        local: LocalAuth {
            id: Some(side.identity().parse().unwrap()),
            method: LocalMethod::Psk,
        },
        remote: RemoteAuth {
            id: side.other().identity().parse().unwrap(),
            method: RemoteMethod::Psk,
        },
        encap: false,
        fragmentation: Fragmentation::Yes,
        mobike: false,
        follow_redirects: false,
        redirect: None,
        resumption: false,
        dpd_delay: Duration::ZERO,
        rekey_time: Duration::ZERO,
        over_time: Duration::ZERO,
        rand_time: Duration::ZERO,
        reauth_time: Duration::ZERO,
        keyingtries: 1,
        vips: Vec::new(),
        pools: Vec::new(),
        unique: Unique::No,
        ppk_id: None,
        ppk_required: false,
        childless: Childless::Allow,
        children: Vec::new(),
    }
}

pub(crate) fn child(
    name: &str,
    reqid: u32,
    local: &[&str],
    remote: &[&str],
    proposal: &str,
) -> ChildConfig {
    ChildConfig {
        name: name.into(),
        reqid: Reqid(reqid),
        local_ts: selectors(local),
        remote_ts: selectors(remote),
        esp_proposals: esp_proposals(&[proposal]),
        mode: ChildMode::Tunnel,
        start_action: StartAction::None,
        close_action: CloseAction::None,
        dpd_action: DpdAction::Clear,
        rekey_time: Duration::ZERO,
        life_time: Duration::ZERO,
        rand_time: Duration::ZERO,
        inactivity: Duration::ZERO,
        rekey_bytes: 0,
        life_bytes: 0,
        rand_bytes: 0,
        rekey_packets: 0,
        life_packets: 0,
        rand_packets: 0,
        replay_window: 4096,
        rules: HeaderRules::default(),
        per_cpu_sas: true,
        priority: None,
    }
}

pub(crate) fn selectors(texts: &[&str]) -> Vec<SelectorConfig> {
    let parse = |text: &&str| SelectorConfig::Fixed(text.parse().unwrap());
    texts.iter().map(parse).collect()
}

pub(crate) fn ike_proposals(texts: &[&str]) -> Vec<SaProposal> {
    let parse = |text: &&str| parse_proposal(ProtocolId::Ike, text).unwrap();
    texts.iter().map(parse).collect()
}

pub(crate) fn esp_proposals(texts: &[&str]) -> Vec<SaProposal> {
    let parse = |text: &&str| parse_proposal(ProtocolId::Esp, text).unwrap();
    texts.iter().map(parse).collect()
}
