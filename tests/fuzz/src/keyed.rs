//! A script for up to three peers of one IKE endpoint that own their keys: what they say is edited before it is
//! sealed, whole or in fragments that are edited too, so that it gets past the integrity check.
//!
//! Each step is an opcode byte and its arguments; arguments past the end of the script are zero. Whatever
//! the peers say, only one that has proved its identity gets an SA, state stays bounded, and when they fall
//! silent nothing stays.

#![allow(
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "a panic is how a target reports, and what it makes is short"
)]

use std::collections::HashSet;
use std::num::NonZeroU16;
use std::path::Path as FilePath;
use std::time::{Duration, Instant};

use lockgate::config::Config;
use lockgate::ike::{Command, CommandId, Endpoint, Event, IkeState, Input, Output, Settings};
use lockgate::ipsec::{SaEvent, SaUpdate};
use lockgate::wire::isakmp::IkeSpi;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;

#[path = "keyed_peer.rs"]
mod peer;

use peer::{Peer, Said};

/// Says how many Child SAs came up or were replaced.
pub(crate) fn run(script: &[u8]) -> usize {
    let mut script = Script(script);
    let mut world = World::new();
    for _ in 0..MAX_STEPS {
        let Some(step) = script.0.first() else { break };
        let step = *step;
        script.byte();
        world.step(step, &mut script);
        world.check();
    }
    world.fall_silent();
    world.children
}

pub(crate) struct Script<'a>(&'a [u8]);

impl<'a> Script<'a> {
    fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else {
            return 0;
        };
        self.0 = rest;
        *first
    }

    fn bytes(&mut self, len: u16) -> &'a [u8] {
        let (bytes, rest) = self.0.split_at(self.0.len().min(len.into()));
        self.0 = rest;
        bytes
    }
}

struct World {
    now: Instant,
    endpoint: Endpoint,
    peers: [Peer; 3],
    /// The datagrams of the last message of each peer.
    last: [Vec<Vec<u8>>; 3],
    /// IKE SAs, by the SPI of their initiator, whose peer has proved its identity.
    proved: HashSet<IkeSpi>,
    /// What the data plane has.
    inbound: HashSet<u32>,
    outbound: HashSet<u64>,
    children: usize,
}

impl World {
    fn new() -> Self {
        let now = Instant::now();
        let settings = Settings {
            half_open_limit: HALF_OPEN,
            children_per_ike: CHILDREN,
            ike_sas_per_peer: IKE_SAS,
            ..Settings::new(NonZeroU16::MIN)
        };
        let config = Config::parse(CONFIGURATION, FilePath::new("keyed.toml"));
        let pad = config.expect("the target's own configuration is valid").pad;
        let random = Box::new(ChaCha8Rng::seed_from_u64(1));
        let mut world = Self {
            now,
            endpoint: Endpoint::new(settings, pad, random, now),
            peers: [0, 1, 2].map(Peer::new),
            last: [vec![], vec![], vec![]],
            proved: HashSet::new(),
            inbound: HashSet::new(),
            outbound: HashSet::new(),
            children: 0,
        };
        world.drain();
        world
    }

    /// The low bits say what happens, the high ones to which peer.
    fn step(&mut self, step: u8, script: &mut Script<'_>) {
        let number = usize::from(step >> 4) % 3;
        let peer = &mut self.peers[number];
        match step & 15 {
            0 | 1 => {
                let said = peer.init(step & 15 == 1, script);
                self.say(number, said);
            }
            2..=7 => {
                if let Some(said) = peer.request(script) {
                    self.say(number, said);
                }
            }
            8 | 9 => {
                if let Some(said) = peer.answer(script) {
                    self.say(number, said);
                }
            }
            10 => {
                let datagrams = self.last[number].clone();
                self.say(
                    number,
                    Said {
                        datagrams,
                        proves: None,
                    },
                );
            }
            11 => peer
                .path
                .remote
                .set_port(500 + u16::from(script.byte() & 3)),
            12 => self.pass(Duration::from_millis(u64::from(script.byte()) * 20)),
            13 => self.pass(Duration::from_secs(u64::from(script.byte()) * 4)),
            14 => self.command(script),
            _ => self.event(script),
        }
    }

    fn say(&mut self, number: usize, said: Said) {
        self.proved.extend(said.proves.filter(|_| number < 2));
        let path = self.peers[number].path;
        for bytes in &said.datagrams {
            self.give(Input::Datagram { path, bytes });
        }
        self.last[number] = said.datagrams;
    }

    fn give(&mut self, input: Input<'_>) {
        self.endpoint.handle(self.now, input);
        self.drain();
    }

    fn drain(&mut self) {
        for count in 0.. {
            let Some(output) = self.endpoint.poll() else {
                break;
            };
            assert!(count < MAX_OUTPUTS, "an input makes no endless output");
            match output {
                Output::Transmit(transmit) => {
                    let to = transmit.path.remote.ip();
                    let mut peers = self.peers.iter_mut();
                    if let Some(peer) = peers.find(|peer| peer.path.remote.ip() == to) {
                        peer.take(&transmit.bytes);
                    }
                }
                Output::Event(event) => self.note(event),
                Output::Update(update) => self.install(update),
                Output::Keepalive(_) | Output::KeyLog(_) | Output::Fetch(_) | Output::Route(_) => {}
            }
        }
    }

    /// Nothing comes up for a peer that has not proved its identity.
    fn note(&mut self, event: Event) {
        let ike = match event {
            Event::IkeUp { ike } => ike,
            Event::ChildUp { ike, .. } | Event::ChildRekeyed { ike, .. } => {
                self.children += 1;
                ike
            }
            Event::IkeRekeyed { old, new } => {
                self.proved.insert(new.initiator_spi);
                old
            }
            _ => return,
        };
        assert!(
            self.proved.contains(&ike.initiator_spi),
            "{} has an SA without a proof",
            ike.remote
        );
    }

    fn install(&mut self, update: SaUpdate) {
        match update {
            SaUpdate::AddInbound(sa) => assert!(self.inbound.insert(sa.spi().get())),
            SaUpdate::SwitchOutbound(sa) => assert!(self.outbound.insert(sa.child().0)),
            SaUpdate::RemoveInbound { spi, .. } => assert!(self.inbound.remove(&spi.get())),
            SaUpdate::RemoveOutbound { child, .. } => assert!(self.outbound.remove(&child.0)),
            SaUpdate::MoveOutbound { child, .. } => assert!(self.outbound.contains(&child.0)),
            SaUpdate::SetPolicies(_) => {}
        }
        assert!(self.inbound.len() <= MAX_INBOUND, "{}", self.inbound.len());
    }

    /// Lets time pass, timer by timer.
    fn pass(&mut self, duration: Duration) {
        let end = self.now + duration;
        for _ in 0..MAX_TIMERS {
            let Some(due) = self.endpoint.next_timeout().filter(|due| *due <= end) else {
                break;
            };
            self.now = self.now.max(due);
            self.give(Input::Timer);
        }
        self.now = end;
        self.give(Input::Timer);
    }

    fn command(&mut self, script: &mut Script<'_>) {
        let what = script.byte();
        let ike = Some(if what & 4 == 0 { "one" } else { "two" }.to_owned());
        let child = (what & 8 == 0).then(|| "net".to_owned());
        let (ike_id, child_id) = (None, None);
        let flag = what & 16 != 0;
        let command = match what % 4 {
            0 => Command::Initiate { ike, child },
            1 => Command::Terminate {
                ike,
                child,
                ike_id,
                child_id,
                force: flag,
            },
            _ => Command::Rekey {
                ike,
                child,
                ike_id,
                child_id,
                reauth: flag,
            },
        };
        self.give(Input::Command {
            id: CommandId(0),
            command,
        });
    }

    fn event(&mut self, script: &mut Script<'_>) {
        let what = script.byte();
        let children: Vec<_> = self
            .endpoint
            .ike_sas()
            .flat_map(|ike| ike.children)
            .collect();
        let chosen = usize::from(what >> 1).checked_rem(children.len());
        let Some(child) = chosen.map(|place| children[place].id) else {
            return;
        };
        let event = if what & 1 == 0 {
            SaEvent::SoftLifetime { child }
        } else {
            SaEvent::HardLifetime { child }
        };
        self.give(Input::Sa(event));
    }

    fn check(&self) {
        assert!(self.endpoint.half_open() <= HALF_OPEN);
        let sas: Vec<_> = self.endpoint.ike_sas().collect();
        // Beside those of one peer identity: attempts, and replaced ones that are being deleted.
        assert!(sas.len() <= MAX_STEPS + IKE_SAS, "{} IKE SAs", sas.len());
        for sa in sas {
            let proved = self.proved.contains(&sa.initiator_spi);
            assert!(proved || sa.state == IkeState::Connecting, "{}", sa.remote);
            assert!(proved || sa.children.is_empty(), "{}", sa.remote);
        }
    }

    /// Nobody says anything any more: by liveness checks and timeouts alone all must come to an end.
    fn fall_silent(&mut self) {
        for _ in 0..120 {
            self.pass(Duration::from_secs(10));
        }
        let left = (self.endpoint.ike_sas().count(), self.endpoint.half_open());
        assert_eq!(left, (0, 0));
        assert!(self.inbound.is_empty(), "{} SAs left", self.inbound.len());
        assert!(self.outbound.is_empty(), "{} SAs left", self.outbound.len());
    }
}

const MAX_STEPS: usize = 60;
const MAX_OUTPUTS: usize = 10_000;
const MAX_TIMERS: usize = 1_000;
const HALF_OPEN: usize = 8;
const CHILDREN: usize = 4;
const IKE_SAS: usize = 2;
/// Of two peers: all children of all IKE SAs, each with a successor, and as many that linger.
const MAX_INBOUND: usize = 2 * (IKE_SAS + MAX_STEPS) * CHILDREN * 3;

const CONFIGURATION: &str = r#"
[connections.one]
local_addrs = ["192.0.2.1"]
remote_addrs = ["198.51.100.1"]
proposals = ["aes256gcm16-prfsha384-x25519"]
dpd_delay = "10s"
local = { auth = "psk", id = "gw.example" }
remote = { auth = "psk", id = "one.example" }
children.net = { local_ts = ["10.1.0.0/24"], remote_ts = ["10.2.0.0/24"], esp_proposals = ["aes256gcm16"] }
[connections.two]
local_addrs = ["192.0.2.1"]
remote_addrs = ["%any"]
unique = "replace"
proposals = ["aes256gcm16-prfsha384-x25519", "aes256gcm16-prfsha384-x25519-ke1_ecp256"]
dpd_delay = "20s"
rekey_time = "2m"
local = { auth = "psk", id = "gw.example" }
remote = { auth = "psk", id = "two.example" }
children.net = { local_ts = ["10.1.0.0/24"], remote_ts = ["10.2.0.0/16"], esp_proposals = ["aes256gcm16", "aes256gcm16-x25519", "aes256gcm16-x25519-ke1_ecp256"], rekey_time = "1m" }
[secrets.ike-one]
id = ["one.example"]
secret = "secret one"
[secrets.ike-two]
id = ["two.example"]
secret = "secret two"
"#;
