//! Two endpoints and the wire between them.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::num::NonZeroU16;
use std::sync::Arc;
use std::time::{Duration, Instant};

use lockgate::crypto::Secret;
use lockgate::ike::{
    AddressPattern, ChildConfig, ChildMode, CloseAction, Command, CommandId, Connection, DpdAction,
    Endpoint, Event, IdentityPattern, Input, LocalAuth, Output, Pad, Path, RemoteAuth,
    SelectorConfig, Settings, SharedSecret, StartAction, Unique,
};
use lockgate::ipsec::{HeaderRules, OutboundSa, Reqid, SaUpdate};
use lockgate::wire::keyword::parse_proposal;
use lockgate::wire::proposal::ProtocolId;
use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng;

pub(crate) struct Peer {
    pub(crate) endpoint: Endpoint,
    pub(crate) addr: SocketAddr,
    pub(crate) events: Vec<Event>,
    pub(crate) updates: Vec<&'static str>,
    pub(crate) outbound: Vec<OutboundSa>,
}

pub(crate) struct Pair {
    pub(crate) now: Instant,
    pub(crate) peers: [Peer; 2],
    pub(crate) wire: VecDeque<(usize, Path, Vec<u8>)>,
}

pub(crate) fn pad(side: usize, change: impl Fn(&mut Connection, &mut ChildConfig)) -> Arc<Pad> {
    let addr = |side: usize| {
        format!("192.0.2.{}/32", side + 1)
            .parse()
            .expect("a prefix")
    };
    let net = |side: usize| {
        let text = format!("10.{}.0.0/24", side + 1);
        SelectorConfig::Fixed(text.parse().expect("a selector"))
    };
    let name = |side: usize| format!("gw-{side}.example");
    let mut child = ChildConfig {
        name: "lan".into(),
        reqid: Reqid(1),
        local_ts: vec![net(side)],
        remote_ts: vec![net(1 - side)],
        esp_proposals: vec![
            parse_proposal(ProtocolId::Esp, "aes256gcm16-x25519-esn-noesn").expect("a proposal"),
        ],
        mode: ChildMode::Tunnel,
        start_action: StartAction::None,
        close_action: CloseAction::None,
        dpd_action: DpdAction::Clear,
        rekey_time: Duration::from_secs(3600),
        life_time: Duration::from_secs(3960),
        rand_time: Duration::from_secs(360),
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
    };
    let mut connection = Connection {
        name: "site".into(),
        local_addrs: vec![AddressPattern::Net(addr(side))],
        remote_addrs: vec![AddressPattern::Net(addr(1 - side))],
        local_port: 500,
        remote_port: 500,
        proposals: vec![
            parse_proposal(ProtocolId::Ike, "aes256gcm16-prfsha384-x25519").expect("a proposal"),
            parse_proposal(ProtocolId::Ike, "aes128-sha256-ecp256").expect("a proposal"),
        ],
        local: LocalAuth {
            id: Some(name(side).parse().expect("an identity")),
        },
        remote: RemoteAuth {
            id: name(1 - side).parse().expect("a pattern"),
        },
        encap: true,
        dpd_delay: Duration::from_secs(30),
        rekey_time: Duration::from_secs(14400),
        over_time: Duration::from_secs(1440),
        rand_time: Duration::from_secs(1440),
        reauth_time: Duration::ZERO,
        keyingtries: 1,
        unique: Unique::No,
        children: Vec::new(),
    };
    change(&mut connection, &mut child);
    connection.children = vec![Arc::new(child)];
    Arc::new(Pad {
        connections: vec![Arc::new(connection)],
        secrets: vec![SharedSecret {
            name: "ike".into(),
            ids: vec![IdentityPattern::Any],
            secret: Secret::from(b"change me".to_vec()),
        }],
    })
}

impl Pair {
    pub(crate) fn new(change: impl Fn(usize, &mut Connection, &mut ChildConfig)) -> Self {
        Self::with_settings(change, |_| {})
    }

    pub(crate) fn with_settings(
        change: impl Fn(usize, &mut Connection, &mut ChildConfig),
        set: impl Fn(&mut Settings),
    ) -> Self {
        let now = Instant::now();
        let peer = |side: usize| {
            let workers = NonZeroU16::new(2).expect("not zero");
            let rng = ChaCha20Rng::seed_from_u64(side as u64 + 1);
            let pad = pad(side, |connection, child| change(side, connection, child));
            let mut settings = Settings::new(workers);
            set(&mut settings);
            Peer {
                endpoint: Endpoint::new(settings, pad, Box::new(rng), now),
                addr: format!("192.0.2.{}:500", side + 1)
                    .parse()
                    .expect("an address"),
                events: Vec::new(),
                updates: Vec::new(),
                outbound: Vec::new(),
            }
        };
        Self {
            now,
            peers: [peer(0), peer(1)],
            wire: VecDeque::new(),
        }
    }

    pub(crate) fn collect(&mut self) {
        for (side, peer) in self.peers.iter_mut().enumerate() {
            while let Some(output) = peer.endpoint.poll() {
                match output {
                    Output::Transmit(sent) => {
                        assert_eq!(sent.path.local.ip(), peer.addr.ip());
                        assert_eq!(sent.marker, sent.path.local.port() == 4500);
                        let path = Path {
                            local: sent.path.remote,
                            remote: sent.path.local,
                        };
                        self.wire.push_back((1 - side, path, sent.bytes));
                    }
                    Output::Keepalive(_) => {}
                    Output::Update(update) => peer.updates.push(match update {
                        SaUpdate::AddInbound(_) => "add-in",
                        SaUpdate::SwitchOutbound(sa) => {
                            peer.outbound.push(*sa);
                            "switch-out"
                        }
                        SaUpdate::RemoveInbound { .. } => "remove-in",
                        SaUpdate::RemoveOutbound { .. } => "remove-out",
                        SaUpdate::MoveOutbound { .. } => "move-out",
                        SaUpdate::SetPolicies(_) => "policies",
                    }),
                    Output::Event(event) => {
                        if let Event::Log { message, .. } = &event {
                            println!("[{side}] {message}");
                        } else {
                            println!("[{side}] {event:?}");
                        }
                        peer.events.push(event);
                    }
                }
            }
        }
    }

    pub(crate) fn settle(&mut self) {
        self.collect();
        while let Some((to, path, bytes)) = self.wire.pop_front() {
            let input = Input::Datagram {
                path,
                bytes: &bytes,
            };
            self.peers[to].endpoint.handle(self.now, input);
            self.collect();
        }
    }

    pub(crate) fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        loop {
            let next = self
                .peers
                .iter()
                .filter_map(|peer| peer.endpoint.next_timeout())
                .min();
            match next.filter(|next| *next <= end) {
                Some(next) => {
                    self.now = self.now.max(next);
                    for peer in &mut self.peers {
                        peer.endpoint.handle(self.now, Input::Timer);
                    }
                    self.settle();
                }
                None => break,
            }
        }
        self.now = end;
    }

    pub(crate) fn command(&mut self, side: usize, command: Command) {
        let id = CommandId(7);
        self.peers[side]
            .endpoint
            .handle(self.now, Input::Command { id, command });
        self.settle();
    }

    pub(crate) fn take_updates(&mut self, side: usize) -> Vec<&'static str> {
        std::mem::take(&mut self.peers[side].updates)
    }

    pub(crate) fn children(&self) -> [usize; 2] {
        [0, 1].map(|side| {
            let sas = self.peers[side].endpoint.ike_sas();
            sas.map(|sa| sa.children.len()).sum()
        })
    }

    pub(crate) fn ike_sas(&self) -> [usize; 2] {
        [0, 1].map(|side| self.peers[side].endpoint.ike_sas().count())
    }

    /// Hands a datagram from `from` to one side.
    pub(crate) fn inject(&mut self, side: usize, from: &str, bytes: &[u8]) {
        let path = Path {
            local: self.peers[side].addr,
            remote: from.parse().expect("an address"),
        };
        let input = Input::Datagram { path, bytes };
        self.peers[side].endpoint.handle(self.now, input);
    }

    /// The messages on the wire, taken off it.
    pub(crate) fn take_wire(&mut self) -> Vec<(usize, Path, Vec<u8>)> {
        self.collect();
        self.wire.drain(..).collect()
    }

    pub(crate) fn failed_command(&self, side: usize) -> Option<String> {
        self.peers[side]
            .events
            .iter()
            .find_map(|event| match event {
                Event::CommandDone {
                    result: Err(error), ..
                } => Some(error.to_string()),
                _ => None,
            })
    }

    pub(crate) fn up() -> Self {
        let mut pair = Self::new(|_, _, _| {});
        pair.settle();
        pair.command(0, initiate());
        pair.take_updates(0);
        pair.take_updates(1);
        pair
    }
}

pub(crate) fn initiate() -> Command {
    Command::Initiate {
        ike: None,
        child: Some("lan".into()),
    }
}

pub(crate) fn rekey(child: bool) -> Command {
    Command::Rekey {
        ike: None,
        child: child.then(|| "lan".to_owned()),
        ike_id: None,
        child_id: None,
        reauth: false,
    }
}

pub(crate) fn terminate(child: bool) -> Command {
    Command::Terminate {
        ike: None,
        child: child.then(|| "lan".to_owned()),
        ike_id: None,
        child_id: None,
        force: false,
    }
}
