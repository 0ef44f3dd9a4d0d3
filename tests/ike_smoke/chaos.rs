//! Random commands on both sides over a wire that loses, repeats and reorders.

#![allow(
    clippy::cast_possible_truncation,
    reason = "random numbers are cut to size"
)]

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::{Duration, Instant};

use lockgate::ike::{
    ChildConfig, Command, CommandId, Connection, Endpoint, Event, Input, Output, Path,
};
use lockgate::ipsec::SaUpdate;
use rand_chacha::ChaCha20Rng;
use rand_core::{Rng, SeedableRng};

use crate::pair::{Pair, initiate, rekey, terminate};

/// What a data plane would have installed.
#[derive(Default)]
struct Installed {
    inbound: HashSet<u32>,
    /// Child and the peer's SPI, the newest last.
    outbound: Vec<(u64, u32)>,
    log: Vec<String>,
}

struct Chaos {
    now: Instant,
    ends: [Endpoint; 2],
    installed: [Installed; 2],
    in_flight: BTreeMap<(Instant, u64), (usize, Path, Vec<u8>)>,
    rng: ChaCha20Rng,
    serial: u64,
    loss_percent: u32,
    /// Messages that are also sent in a damaged copy.
    damage_percent: u32,
    /// Packets would be lost: sent under an SPI that the other side does not have.
    holes: HashMap<u32, String>,
}

impl Chaos {
    fn new(seed: u64, loss_percent: u32, dpd_delay: u64) -> Self {
        let quiet = |_, connection: &mut Connection, child: &mut ChildConfig| {
            connection.dpd_delay = Duration::from_secs(dpd_delay);
            connection.rekey_time = Duration::ZERO;
            child.rekey_time = Duration::ZERO;
            child.life_time = Duration::ZERO;
        };
        // So many tries that no exchange fails by loss alone.
        let mut pair = Pair::with_settings(quiet, |settings| {
            settings.retransmit.tries = 12;
            settings.retransmit.longest = Duration::from_secs(2);
        });
        let mut rng = ChaCha20Rng::seed_from_u64(seed);
        // Other random bytes for each seed.
        for side in [0, 1] {
            for _ in 0..rng.next_u32() % 8 {
                pair.command(side, initiate());
                pair.command(side, terminate(false));
            }
        }
        let Pair { now, peers, .. } = pair;
        Self {
            now,
            ends: peers.map(|peer| peer.endpoint),
            installed: Default::default(),
            in_flight: BTreeMap::new(),
            rng,
            serial: 0,
            loss_percent,
            damage_percent: 0,
            holes: HashMap::new(),
        }
    }

    fn chance(&mut self, percent: u32) -> bool {
        self.rng.next_u32() % 100 < percent
    }

    fn collect(&mut self) {
        for side in [0, 1] {
            while let Some(output) = self.ends[side].poll() {
                match output {
                    Output::Transmit(sent) => {
                        let path = Path {
                            local: sent.path.remote,
                            remote: sent.path.local,
                        };
                        if self.chance(self.damage_percent) {
                            let message = (1 - side, path, self.damage(&sent.bytes));
                            self.serial += 1;
                            self.in_flight.insert((self.now, self.serial), message);
                        }
                        let copies = if self.chance(self.loss_percent) {
                            0
                        } else {
                            1 + u32::from(self.chance(10))
                        };
                        for _ in 0..copies {
                            let delay =
                                Duration::from_millis(u64::from(1 + self.rng.next_u32() % 400));
                            self.serial += 1;
                            let message = (1 - side, path, sent.bytes.clone());
                            self.in_flight
                                .insert((self.now + delay, self.serial), message);
                        }
                    }
                    Output::Update(update) => self.update(side, update),
                    Output::Event(Event::Log { message, .. }) => {
                        let line = format!("[{side}] {message}");
                        self.installed[side].log.push(line.clone());
                        println!("{:?} {line}", self.now);
                    }
                    Output::Event(_) | Output::Keepalive(_) => {}
                }
            }
        }
        self.check();
    }

    /// Some bytes changed, cut off or added; the length field may follow.
    fn damage(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut bytes = bytes.to_vec();
        let random = |rng: &mut ChaCha20Rng, limit: usize| rng.next_u32() as usize % limit;
        for _ in 0..1 + random(&mut self.rng, 4) {
            let place = random(&mut self.rng, bytes.len());
            bytes[place] = self.rng.next_u32() as u8;
        }
        if self.chance(30) {
            let len = random(&mut self.rng, bytes.len()).max(1);
            bytes.truncate(len);
        }
        if self.chance(20) {
            bytes.resize(bytes.len() + random(&mut self.rng, 40), 0);
        }
        if self.chance(80) && bytes.len() >= 28 {
            let len = bytes.len() as u32;
            bytes[24..28].copy_from_slice(&len.to_be_bytes());
        }
        bytes
    }

    fn update(&mut self, side: usize, update: SaUpdate) {
        let installed = &mut self.installed[side];
        match update {
            SaUpdate::AddInbound(sa) => assert!(installed.inbound.insert(sa.spi().get())),
            SaUpdate::SwitchOutbound(sa) => {
                installed.outbound.push((sa.child().0, sa.spi().get()));
            }
            SaUpdate::RemoveInbound { spi, .. } => assert!(installed.inbound.remove(&spi.get())),
            SaUpdate::RemoveOutbound { child, .. } => {
                let before = installed.outbound.len();
                installed.outbound.retain(|(known, _)| *known != child.0);
                assert_eq!(installed.outbound.len() + 1, before);
            }
            SaUpdate::MoveOutbound { .. } | SaUpdate::SetPolicies(_) => {}
        }
    }

    /// The newest outbound SA of each side must find its inbound half on the other.
    fn check(&mut self) {
        for side in [0, 1] {
            if let Some((_, spi)) = self.installed[side].outbound.last()
                && !self.installed[1 - side].inbound.contains(spi)
            {
                let line = format!("side {side} sends into {spi:08x} at {:?}", self.now);
                self.holes.entry(*spi).or_insert(line);
            }
        }
    }

    fn run_until(&mut self, end: Instant) {
        loop {
            self.collect();
            let timers = self.ends.iter().filter_map(Endpoint::next_timeout);
            let message = self.in_flight.first_key_value().map(|((at, _), _)| *at);
            let Some(next) = timers.chain(message).min().filter(|next| *next <= end) else {
                break;
            };
            self.now = self.now.max(next);
            while let Some(entry) = self.in_flight.first_entry()
                && entry.key().0 <= self.now
            {
                let (to, path, bytes) = entry.remove();
                let input = Input::Datagram {
                    path,
                    bytes: &bytes,
                };
                self.ends[to].handle(self.now, input);
                self.collect();
            }
            for end in &mut self.ends {
                end.handle(self.now, Input::Timer);
            }
        }
        self.now = end;
    }

    fn command(&mut self, side: usize, command: Command) {
        let id = CommandId(self.serial);
        self.serial += 1;
        self.ends[side].handle(self.now, Input::Command { id, command });
        self.collect();
    }

    fn pause(&mut self, most: u32) {
        let time = Duration::from_millis(u64::from(self.rng.next_u32() % most));
        self.run_until(self.now + time);
    }

    /// After all has settled, both sides must have the same SAs, and the data plane only those.
    fn assert_mirrored(&self, seed: u64) {
        let pairs = |side: usize| {
            let sas = self.ends[side].ike_sas();
            let mut pairs: Vec<(u32, u32)> = sas
                .flat_map(|sa| sa.children)
                .map(|child| (child.spi_in.get(), child.spi_out.get()))
                .collect();
            pairs.sort_unstable();
            pairs
        };
        let mut mirrored: Vec<_> = pairs(1).into_iter().map(|(i, o)| (o, i)).collect();
        mirrored.sort_unstable();
        assert_eq!(pairs(0), mirrored, "seed {seed}");
        let spis = |side: usize| {
            let sas = self.ends[side].ike_sas();
            let mut spis: Vec<_> = sas.map(|sa| (sa.initiator_spi, sa.responder_spi)).collect();
            spis.sort_unstable();
            spis
        };
        assert_eq!(spis(0), spis(1), "seed {seed}");
        for side in [0, 1] {
            let control: HashSet<u32> = pairs(side).into_iter().map(|(spi, _)| spi).collect();
            assert_eq!(self.installed[side].inbound, control, "seed {seed}");
            let control: HashSet<u32> = pairs(side).into_iter().map(|(_, spi)| spi).collect();
            let outbound = self.installed[side].outbound.iter().map(|(_, spi)| *spi);
            assert_eq!(outbound.collect::<HashSet<_>>(), control, "seed {seed}");
        }
    }
}

#[test]
fn rekeys_from_both_sides_on_a_bad_wire_never_leave_a_moment_without_a_pair() {
    for seed in 0..100 {
        let mut chaos = Chaos::new(seed, 15, 0);
        chaos.command(0, initiate());
        chaos.run_until(chaos.now + Duration::from_secs(60));
        chaos.holes.clear(); // the responder of the first one is ready before its initiator
        for _ in 0..12 {
            let side = usize::from(chaos.chance(50));
            let child = chaos.chance(65);
            chaos.command(side, rekey(child));
            chaos.pause(2500);
        }
        chaos.run_until(chaos.now + Duration::from_secs(200));
        chaos.assert_mirrored(seed);
        let children = chaos.ends[0].ike_sas().map(|sa| sa.children.len());
        assert_eq!(children.sum::<usize>(), 1, "seed {seed}");
        assert_eq!(chaos.ends[0].ike_sas().count(), 1, "seed {seed}");
        assert!(chaos.holes.is_empty(), "seed {seed}: {:?}", chaos.holes);
    }
}

#[test]
fn any_commands_on_a_bad_wire_end_with_the_same_sas_on_both_sides() {
    for seed in 1000..1100 {
        let mut chaos = Chaos::new(seed, 20, 20);
        for _ in 0..25 {
            let side = usize::from(chaos.chance(50));
            let command = match chaos.rng.next_u32() % 8 {
                0..=2 => initiate(),
                3 => rekey(false),
                4 | 5 => rekey(true),
                6 => terminate(true),
                _ => terminate(false),
            };
            chaos.command(side, command);
            chaos.pause(2500);
        }
        chaos.loss_percent = 0;
        chaos.run_until(chaos.now + Duration::from_secs(300));
        chaos.assert_mirrored(seed);
    }
}

#[test]
fn damaged_copies_of_messages_change_nothing() {
    for seed in 2000..2060 {
        let mut chaos = Chaos::new(seed, 0, 20);
        chaos.command(0, initiate());
        chaos.run_until(chaos.now + Duration::from_secs(20));
        chaos.damage_percent = 100;
        for _ in 0..15 {
            let side = usize::from(chaos.chance(50));
            let child = chaos.chance(65);
            chaos.command(side, rekey(child));
            chaos.pause(2500);
        }
        chaos.run_until(chaos.now + Duration::from_secs(100));
        chaos.assert_mirrored(seed);
        assert_eq!(chaos.ends[0].ike_sas().count(), 1, "seed {seed}");
        let damaged = chaos
            .ends
            .iter()
            .map(|end| end.discards().iter().sum::<u64>());
        assert!(damaged.sum::<u64>() > 20, "seed {seed}");
    }
}
