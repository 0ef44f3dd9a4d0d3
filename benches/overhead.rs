//! What ESP adds to its cipher, and what many SAs add to one: interleaved rounds in one process.
//!
//! Each round runs every row once on a train of 45 packets; a row's figure is the median of its
//! rounds, so that a disturbance meets all rows alike and ratios hold on a busy machine. `cargo bench
//! --bench overhead -- ROUNDS`, 1000 unless told otherwise.

#[path = "../tests/esp/many.rs"]
mod many;

use std::hint::black_box;
use std::net::IpAddr;
use std::time::Instant;

use lockgate::crypto::Associated;
use lockgate::crypto::packet::PacketKey;
use lockgate::ipsec::{Action, Direction, OutboundEntry, Sad, Spd};
use lockgate::wire::ip::Flow;

/// Packets of one super-packet of 64 KiB.
const TRAIN: usize = 45;
const MANY: u32 = 10_000;

fn main() {
    let rounds = std::env::args().find_map(|argument| argument.parse().ok());
    let rounds = rounds.unwrap_or(1000);
    println!(
        "aes256gcm16 with ESN, ns per packet, median [tenth and ninetieth percentile] of {rounds} rounds"
    );
    for size in [64, 200, 576, 1400, 65_535] {
        beside_the_cipher(size, rounds);
    }
    beside_one_sa(1400, rounds);
}

/// The same texts, additional data and nonces through the key alone, in place, and through an SA.
fn beside_the_cipher(size: usize, rounds: usize) {
    let cipher = many::key();
    let (mut sealer, mut opener) = many::halves(0);
    let length = sealer.sealed_len(size);
    let packet = packet(0, size);
    let mut train = vec![0; length * TRAIN];
    let (mut first, mut times) = (1_u64, Times::default());
    for _ in 0..rounds {
        times.take("cipher seal", || {
            for (nonce, packet) in (first..).zip(train.chunks_exact_mut(length)) {
                let (_, body) = packet.split_at_mut(HEADER_LEN);
                cipher.seal(nonce, ASSOCIATED, body).expect("a good layout");
            }
        });
        times.take("cipher open", || {
            for packet in train.chunks_exact_mut(length) {
                let (_, body) = packet.split_at_mut(HEADER_LEN);
                black_box(cipher.open(ASSOCIATED, body).expect("authentic"));
            }
        });
        first += TRAIN as u64;
        times.take("ESP seal", || {
            for out in train.chunks_exact_mut(length) {
                sealer.seal(&[black_box(&packet)], out).expect("sealed");
            }
        });
        times.take("ESP open", || {
            for packet in train.chunks_exact_mut(length) {
                black_box(opener.open(packet, 0).expect("opened"));
            }
        });
    }
    println!("\n{size} bytes");
    times.print("cipher seal", "cipher open");
}

/// Policy, SA and cipher of a packet: with one tunnel, and with many whose packets are all of one
/// tunnel, come in trains, or are each of another tunnel; and the cipher alone with as many keys.
fn beside_one_sa(size: usize, rounds: usize) {
    let (mut one, mut many) = (Databases::new(1), Databases::new(MANY));
    let keys: Vec<_> = (0..MANY).map(|_| many::key()).collect();
    let (mut site, mut times) = (0, Times::default());
    let mut train = vec![0; many::halves(0).0.sealed_len(size) * TRAIN];
    for _ in 0..rounds {
        one.run(
            &[0; TRAIN],
            size,
            &mut train,
            ["seal, 1 tunnel", "open, 1 tunnel"],
            &mut times,
        );
        many.run(
            &[0; TRAIN],
            size,
            &mut train,
            ["seal, one of many", "open, one of many"],
            &mut times,
        );
        site = (site + STEP) % MANY;
        many.run(
            &[site; TRAIN],
            size,
            &mut train,
            ["seal, by train", "open, by train"],
            &mut times,
        );
        let sites = std::array::from_fn(|_| {
            site = (site + STEP) % MANY;
            site
        });
        many.run(
            &sites,
            size,
            &mut train,
            ["seal, by packet", "open, by packet"],
            &mut times,
        );
        for (row, sites) in [("cipher, 1 key", [0; TRAIN]), ("cipher, by packet", sites)] {
            times.take(row, || seal_alone(&keys, &sites, &mut train));
        }
    }
    println!("\n{size} bytes, {MANY} tunnels");
    times.print("seal, 1 tunnel", "open, 1 tunnel");
}

/// Below this no SA can get: its key has to come from memory too.
fn seal_alone(keys: &[PacketKey], sites: &[u32; TRAIN], train: &mut [u8]) {
    let length = train.len() / TRAIN;
    for (site, packet) in sites.iter().zip(train.chunks_exact_mut(length)) {
        let (_, body) = packet.split_at_mut(HEADER_LEN);
        let key = keys.get(*site as usize).expect("a key for each site");
        key.seal(1, ASSOCIATED, body).expect("a good layout");
    }
}

/// Databases whose SAs have all seen their flow.
struct Databases {
    spd: Spd,
    sad: Sad,
}

impl Databases {
    fn new(tunnels: u32) -> Self {
        let mut sad = Sad::with_capacity(tunnels as usize);
        for number in 0..tunnels {
            let (outbound, inbound) = many::halves(number);
            assert!(sad.add_inbound(inbound).is_none());
            assert!(sad.switch_outbound(outbound).is_none());
        }
        let spd = Spd::new(many::policies(0..tunnels, Direction::Out).collect());
        let mut databases = Self { spd, sad };
        let mut train = vec![0; many::halves(0).0.sealed_len(64) * TRAIN];
        for site in 0..tunnels {
            let names = ["first packets, sealed", "first packets, opened"];
            let times = &mut Times::default();
            databases.run(&[site; TRAIN], 64, &mut train, names, times);
        }
        databases
    }

    fn run(
        &mut self,
        sites: &[u32; TRAIN],
        size: usize,
        train: &mut [u8],
        names: [&'static str; 2],
        times: &mut Times,
    ) {
        let length = train.len() / TRAIN;
        let packets = sites.map(|site| (flow(site), packet(site, size)));
        times.take(names[0], || {
            for ((flow, packet), out) in packets.iter().zip(train.chunks_exact_mut(length)) {
                let Some(Action::Protect(template)) = self.spd.outbound_action(flow) else {
                    panic!("a policy covers each flow");
                };
                let OutboundEntry::Owned(sa) = self.sad.outbound(template.reqid, flow) else {
                    panic!("an SA serves each policy");
                };
                sa.seal(&[packet], out).expect("sealed");
            }
        });
        times.take(names[1], || {
            self.sad.look_ahead(train.chunks_exact(length));
            for packet in train.chunks_exact_mut(length) {
                let sa = self
                    .sad
                    .inbound_mut(spi(packet))
                    .expect("each SA has two halves");
                black_box(sa.open(packet, 0).expect("opened"));
            }
        });
    }
}

/// Nanoseconds per packet, by row.
#[derive(Default)]
struct Times(Vec<(&'static str, Vec<f64>)>);

impl Times {
    fn take(&mut self, name: &'static str, train: impl FnOnce()) {
        let start = Instant::now();
        train();
        let each = start.elapsed().as_secs_f64() * 1e9 / TRAIN as f64;
        match self.0.iter_mut().find(|(known, _)| *known == name) {
            Some((_, times)) => times.push(each),
            None => self.0.push((name, vec![each])),
        }
    }

    /// Each row with its ratio to one of the two named rows: to `open` if it opens.
    fn print(&mut self, seal: &str, open: &str) {
        for (_, times) in &mut self.0 {
            times.sort_by(f64::total_cmp);
        }
        for (name, times) in &self.0 {
            let base = if name.contains("open") { open } else { seal };
            let base = self.0.iter().find(|(name, _)| *name == base);
            let base = base.map_or(f64::NAN, |(_, times)| quantile(times, 0.5));
            let [low, median, high] = [0.1, 0.5, 0.9].map(|q| quantile(times, q));
            let ratio = median / base;
            println!("  {name:18} {median:7.0} [{low:.0}-{high:.0}]  x {ratio:.2}");
        }
    }
}

fn quantile(sorted: &[f64], q: f64) -> f64 {
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "an index"
    )]
    let index = (sorted.len() as f64 * q) as usize;
    sorted.get(index).copied().unwrap_or(f64::NAN)
}

fn flow(number: u32) -> Flow {
    Flow {
        src: IpAddr::from(SOURCE),
        dst: IpAddr::V4(many::host(number)),
        protocol: 6,
        ports: Some((0x4242, 0x4242)),
    }
}

/// A TCP packet of that flow.
fn packet(number: u32, size: usize) -> Vec<u8> {
    let [l0, l1] = u16::try_from(size).expect("an IPv4 packet").to_be_bytes();
    let mut packet = vec![0x45, 0, l0, l1, 0, 0, 0, 0, 64, 6, 0, 0];
    packet.extend(SOURCE);
    packet.extend(many::host(number).octets());
    packet.resize(size, 0x42);
    packet
}

fn spi(packet: &[u8]) -> u32 {
    u32::from_be_bytes(*packet.first_chunk().expect("an SPI"))
}

const HEADER_LEN: usize = 8;
/// Of any packet: what the bytes are does not matter to the cipher.
const ASSOCIATED: Associated<'static> = Associated {
    header: &[0x12, 0x34, 0x56, 0x78, 0, 0, 0, 1],
    esn_high: Some(0),
};
/// In [`many::LOCAL`].
const SOURCE: [u8; 4] = [172, 16, 0, 1];
/// Prime to [`MANY`], so that each tunnel has its turn and none is near the one before.
const STEP: u32 = 7919;
