//! A script for two IKE endpoints on a lossy wire: deliveries, faults, commands, time, restarts, strangers.
//!
//! Each step is an opcode byte and its arguments; arguments past the end of the script are zero.
//! Whatever the script does, the endpoints stay bounded, no stranger becomes a peer, and a shutdown
//! leaves nothing behind.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::num::NonZeroU16;
use std::path::Path as FilePath;
use std::sync::Arc;
use std::time::{Duration, Instant};

use lockgate::config::Config;
use lockgate::crypto::Secret;
use lockgate::crypto::x509::UnixTime;
use lockgate::ike::{Command, CommandId, Endpoint, Input, Output, Pad, Path, Settings, TicketKeys};
use lockgate::ipsec::{ChildId, Reqid, SaEvent, WorkerId};
use lockgate::wire::ip::Flow;
use lockgate::wire::isakmp::{ExchangeType, Header};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;

/// Says how often a ticket was accepted (RFC 5723) and how often refused.
pub(crate) fn run(script: &[u8]) -> (usize, usize) {
    let mut pair = Pair::new();
    let mut script = Script(script);
    for _ in 0..MAX_STEPS {
        let Some(step) = script.0.first() else { break };
        let step = *step;
        script.byte();
        pair.step(step, &mut script);
        pair.check();
    }
    pair.shut_down();
    (pair.resumed, pair.refused)
}

struct Script<'a>(&'a [u8]);

impl<'a> Script<'a> {
    fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else {
            return 0;
        };
        self.0 = rest;
        *first
    }

    fn word(&mut self) -> u16 {
        u16::from_be_bytes([self.byte(), self.byte()])
    }

    fn bytes(&mut self, len: u16) -> &'a [u8] {
        let (bytes, rest) = self.0.split_at(self.0.len().min(len.into()));
        self.0 = rest;
        bytes
    }
}

/// A datagram on its way; its path is the receiver's.
#[derive(Clone)]
struct InFlight {
    to: usize,
    path: Path,
    bytes: Vec<u8>,
}

struct Pair {
    now: Instant,
    endpoints: [Endpoint; 2],
    wire: VecDeque<InFlight>,
    /// Answers to tickets.
    resumed: usize,
    refused: usize,
}

impl Pair {
    fn new() -> Self {
        let now = Instant::now();
        let endpoints = [0, 1].map(|side| endpoint(side, 0, now));
        let mut pair = Self {
            now,
            endpoints,
            wire: VecDeque::new(),
            resumed: 0,
            refused: 0,
        };
        pair.drain();
        pair
    }

    fn step(&mut self, step: u8, script: &mut Script<'_>) {
        match step % 16 {
            0 => self.deliver_next(),
            1 => drop(self.wire.pop_front()),
            2 => self.wire.extend(self.wire.front().cloned()),
            3 => self.wire.rotate_left(self.wire.len().min(1)),
            4 => self.deliver_changed(|datagram| {
                let (at, value) = (usize::from(script.word()), script.byte());
                if let Some(byte) = datagram.bytes.get_mut(at) {
                    *byte ^= value;
                }
            }),
            5 => self.deliver_changed(|datagram| {
                datagram.bytes.truncate(script.word().into());
            }),
            6 => self.deliver_changed(|datagram| {
                let port = script.word();
                datagram.path.remote.set_port(port);
            }),
            7 => self.pass(Duration::from_millis(u64::from(script.word()) * 10)),
            8 => self.pass(Duration::from_secs(script.word().into())),
            9 => self.command(script),
            10 => self.event(script),
            11 => self.stranger(script),
            12 => self.reload(script),
            13 => self.live(Duration::from_secs(script.word().into())),
            14 => self.restart(script.byte()),
            _ => (0..MAX_WIRE).for_each(|_| self.deliver_next()),
        }
    }

    fn give(&mut self, to: usize, input: Input<'_>) {
        if let Some(endpoint) = self.endpoints.get_mut(to) {
            endpoint.handle(self.now, input);
        }
        self.drain();
    }

    /// Takes what the endpoints want sent. A full wire loses the newest, as a real one does.
    fn drain(&mut self) {
        for (from, endpoint) in self.endpoints.iter_mut().enumerate() {
            let outputs = std::iter::from_fn(|| endpoint.poll()).take(MAX_OUTPUTS);
            let mut count = 0;
            for output in outputs {
                count += 1;
                let Output::Transmit(transmit) = output else {
                    continue;
                };
                match answer_to_a_ticket(&transmit.bytes) {
                    Some(true) => self.resumed += 1,
                    Some(false) => self.refused += 1,
                    None => {}
                }
                let Path { local, remote } = transmit.path;
                if self.wire.len() < MAX_WIRE {
                    let path = Path {
                        local: remote,
                        remote: local,
                    };
                    self.wire.push_back(InFlight {
                        to: 1 - from,
                        path,
                        bytes: transmit.bytes,
                    });
                }
            }
            assert!(count < MAX_OUTPUTS, "an input makes no endless output");
        }
    }

    fn deliver(&mut self, datagram: &InFlight) {
        let (path, bytes) = (datagram.path, &datagram.bytes);
        self.give(datagram.to, Input::Datagram { path, bytes });
    }

    fn deliver_next(&mut self) {
        if let Some(datagram) = self.wire.pop_front() {
            self.deliver(&datagram);
        }
    }

    /// The original stays on the wire.
    fn deliver_changed(&mut self, change: impl FnOnce(&mut InFlight)) {
        if let Some(mut datagram) = self.wire.front().cloned() {
            change(&mut datagram);
            self.deliver(&datagram);
        }
    }

    /// Lets time pass, timer by timer.
    fn pass(&mut self, duration: Duration) {
        let end = self.now + duration;
        for _ in 0..MAX_TIMERS {
            let due = self
                .endpoints
                .iter()
                .filter_map(Endpoint::next_timeout)
                .min();
            let Some(due) = due.filter(|due| *due <= end) else {
                break;
            };
            self.now = self.now.max(due);
            for side in [0, 1] {
                self.give(side, Input::Timer);
            }
        }
        self.now = end;
        for side in [0, 1] {
            self.give(side, Input::Timer);
        }
    }

    /// Lets time pass on a wire that works.
    fn live(&mut self, duration: Duration) {
        let end = self.now + duration;
        for _ in 0..MAX_TIMERS {
            (0..MAX_WIRE).for_each(|_| self.deliver_next());
            let due = self
                .endpoints
                .iter()
                .filter_map(Endpoint::next_timeout)
                .min();
            let Some(due) = due.filter(|due| *due <= end) else {
                break;
            };
            self.pass(due.saturating_duration_since(self.now));
        }
        self.pass(end.saturating_duration_since(self.now));
    }

    fn command(&mut self, script: &mut Script<'_>) {
        let (to, what) = (usize::from(script.byte() & 1), script.byte());
        let ike = (what & 0x10 == 0).then(|| "site".to_owned());
        let child = match what & 0x60 {
            0x00 => Some("lan".to_owned()),
            0x20 => Some("port".to_owned()),
            _ => None,
        };
        let (ike_id, child_id) = (None, None);
        let flag = what & 0x80 != 0;
        let command = match what % 4 {
            0 | 1 => Command::Initiate { ike, child },
            2 => Command::Terminate {
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
        self.give(
            to,
            Input::Command {
                id: CommandId(0),
                command,
            },
        );
    }

    fn event(&mut self, script: &mut Script<'_>) {
        let (to, what) = (usize::from(script.byte() & 1), script.byte());
        let children = self
            .endpoints
            .get(to)
            .into_iter()
            .flat_map(Endpoint::ike_sas);
        let children: Vec<_> = children.flat_map(|ike| ike.children).collect();
        let chosen = children.get(usize::from(what >> 3)).or(children.first());
        let child = chosen.map_or(ChildId(u64::MAX), |child| child.id);
        let event = match (what % 4, chosen) {
            (0, _) => SaEvent::SoftLifetime { child },
            (1, _) => SaEvent::HardLifetime { child },
            (2, Some(chosen)) => {
                let remote = SocketAddr::from(([198, 51, 100, 9], script.word()));
                SaEvent::PeerMoved {
                    child,
                    spi: chosen.spi_in,
                    remote,
                }
            }
            _ => SaEvent::Acquire {
                reqid: self.reqid(to, usize::from(what >> 3)),
                flow: flow(to),
                worker: (what & 4 != 0).then(|| WorkerId(script.word() % 4)),
            },
        };
        self.give(to, Input::Sa(event));
    }

    /// That of a configured child, or one that no child has.
    fn reqid(&self, of: usize, index: usize) -> Reqid {
        let connections = self
            .endpoints
            .get(of)
            .map(|endpoint| endpoint.pad().connections.iter());
        let mut children = connections
            .into_iter()
            .flatten()
            .flat_map(|site| &site.children);
        children.nth(index).map_or(Reqid(0), |child| child.reqid)
    }

    /// Bytes from someone who has no key.
    fn stranger(&mut self, script: &mut Script<'_>) {
        let (to, host, len) = (usize::from(script.byte() & 1), script.byte(), script.word());
        let bytes = script.bytes(len);
        let local = SocketAddr::from(([192, 0, 2, if to == 0 { 1 } else { 2 }], 500));
        let remote = SocketAddr::from(([203, 0, 113, host & 3], 500));
        self.give(
            to,
            Input::Datagram {
                path: Path { local, remote },
                bytes,
            },
        );
    }

    fn reload(&mut self, script: &mut Script<'_>) {
        let (to, which) = (usize::from(script.byte() & 1), script.byte());
        let text = if which & 1 == 0 {
            configuration(to)
        } else {
            ""
        };
        let command = Command::Reload(pad(text));
        self.give(
            to,
            Input::Command {
                id: CommandId(1),
                command,
            },
        );
    }

    /// One of them loses everything but its configuration and the keys of its tickets, or those too.
    fn restart(&mut self, how: u8) {
        let side = usize::from(how & 1);
        if let Some(lost) = self.endpoints.get_mut(side) {
            *lost = endpoint(side, how >> 1, self.now);
        }
        self.drain();
    }

    fn check(&self) {
        for endpoint in &self.endpoints {
            assert!(endpoint.half_open() <= HALF_OPEN);
            let sas: Vec<_> = endpoint.ike_sas().collect();
            // Beside those of one peer identity: attempts, and replaced ones that are being deleted.
            assert!(sas.len() <= MAX_STEPS + IKE_SAS, "{} IKE SAs", sas.len());
            for sa in sas {
                let remote = sa.remote.ip().to_string();
                assert!(
                    !remote.starts_with("203.0."),
                    "a stranger at {remote} is a peer"
                );
            }
        }
    }

    /// Nobody answers any more; all must come to an end by itself.
    fn shut_down(&mut self) {
        for side in [0, 1] {
            self.give(
                side,
                Input::Command {
                    id: CommandId(2),
                    command: Command::Shutdown,
                },
            );
        }
        self.wire.clear();
        for _ in 0..60 {
            self.pass(Duration::from_secs(10));
        }
        for endpoint in &self.endpoints {
            assert_eq!((endpoint.ike_sas().count(), endpoint.half_open()), (0, 0));
        }
    }
}

/// The same keys of tickets are made of the same number.
fn endpoint(side: usize, keys: u8, now: Instant) -> Endpoint {
    let settings = Settings {
        half_open_limit: HALF_OPEN,
        cookie_threshold: 4,
        children_per_ike: CHILDREN,
        ike_sas_per_peer: IKE_SAS,
        ..Settings::new(NonZeroU16::MIN)
    };
    let seed = if side == 0 { 0 } else { 1 };
    let rng = Box::new(ChaCha8Rng::seed_from_u64(seed + 2 * u64::from(keys)));
    let mut endpoint = Endpoint::new(settings, pad(configuration(side)), rng, now);
    let day = UnixTime::since_unix_epoch(Duration::from_secs(1_800_000_000));
    endpoint.handle(now, Input::TimeOfDay(day));
    let keys = TicketKeys {
        current: Secret::from(vec![keys; 32]),
        previous: None,
    };
    endpoint.handle(now, Input::TicketKeys(keys));
    endpoint
}

/// Whether this is an answer to IKE_SESSION_RESUME, and if so, whether it accepts the ticket.
fn answer_to_a_ticket(bytes: &[u8]) -> Option<bool> {
    let (header, _) = Header::parse(bytes).ok()?;
    let answers = header.exchange == ExchangeType::IKE_SESSION_RESUME && header.flags.response();
    answers.then(|| !header.responder_spi.is_zero())
}

fn flow(from: usize) -> Flow {
    let host = |side: usize| [10, if side == 0 { 1 } else { 2 }, 0, 7].into();
    Flow {
        src: host(from),
        dst: host(1 - from),
        protocol: 6,
        ports: Some((40_000, 80)),
    }
}

fn configuration(side: usize) -> &'static str {
    let [first, second] = CONFIGURATIONS;
    if side == 0 { first } else { second }
}

fn pad(text: &str) -> Arc<Pad> {
    let config = Config::parse(text, FilePath::new("endpoint.toml"));
    config
        .expect("the target's own configurations are valid")
        .pad
}

const MAX_STEPS: usize = 60;
const MAX_WIRE: usize = 64;
const MAX_OUTPUTS: usize = 10_000;
const MAX_TIMERS: usize = 1_000;
const HALF_OPEN: usize = 8;
const CHILDREN: usize = 4;
const IKE_SAS: usize = 3;

const CONFIGURATIONS: [&str; 2] = [
    r#"
[connections.site]
local_addrs = ["192.0.2.1"]
remote_addrs = ["192.0.2.2"]
proposals = ["aes256gcm16-prfsha384-x25519", "aes128-sha256-ecp256"]
dpd_delay = "10s"
rekey_time = "20m"
resumption = true
local = { auth = "psk", id = "gw-a.example" }
remote = { auth = "psk", id = "gw-b.example" }
children.lan = { local_ts = ["10.1.0.0/24"], remote_ts = ["10.2.0.0/24"], esp_proposals = ["aes256gcm16-x25519"], start_action = "trap", rekey_time = "5m" }
children.port = { local_ts = ["10.1.0.0/24[tcp]"], remote_ts = ["10.3.0.0/24[tcp/80]"], esp_proposals = ["aes128-sha256"] }
[secrets.ike]
secret = "fuzz"
"#,
    r#"
[connections.site]
local_addrs = ["192.0.2.2"]
remote_addrs = ["192.0.2.1", "%any"]
unique = "replace"
resumption = true
proposals = ["aes128-sha256-ecp256", "aes256gcm16-prfsha384-x25519"]
local = { auth = "psk", id = "gw-b.example" }
remote = { auth = "psk", id = "gw-a.example" }
children.lan = { local_ts = ["10.2.0.0/16"], remote_ts = ["10.1.0.0/24"], esp_proposals = ["aes256gcm16-x25519"], rekey_time = "3m" }
children.port = { local_ts = ["10.3.0.0/24"], remote_ts = ["10.1.0.0/24"], esp_proposals = ["aes128-sha256"] }
[secrets.ike]
secret = "fuzz"
"#,
];
