//! What ESP adds to its cipher, and what many SAs add to one: interleaved rounds in one process.
//!
//! Each round runs every row once on a train of 45 packets; a row's figure is the median of its
//! rounds, so that a disturbance meets all rows alike and ratios hold on a busy machine. `cargo bench
//! --bench overhead -- ROUNDS`, 1000 unless told otherwise.

use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

use ipnet::{IpNet, Ipv4Net};
use lockgate::crypto::Associated;
use lockgate::crypto::packet::{PacketKey, encryption_key_len};
use lockgate::ipsec::{
    Action, ChildId, Direction, EspEncap, EspPath, HeaderRules, InboundParams, InboundSa, Limits,
    Mode, OutboundEntry, OutboundParams, OutboundSa, Policy, PolicyId, Reqid, SaUsage, Sad,
    Selectors, Spd, Spi, Template, WorkerId,
};
use lockgate::wire::ip::Flow;
use lockgate::wire::proposal::{CipherSuite, EncryptionId};
use lockgate::wire::selector::TrafficSelector;

/// Packets of one super-packet of 64 KiB.
const TRAIN: usize = 45;
const MANY: u32 = 10_000;
const SUITE: CipherSuite = CipherSuite {
    encryption: EncryptionId::AES_GCM_16,
    key_bits: 256,
    integrity: None,
};

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
    let cipher = key();
    let (mut sealer, mut opener) = halves(0);
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
/// tunnel, come in trains, or are each of another tunnel.
fn beside_one_sa(size: usize, rounds: usize) {
    let (mut one, mut many) = (Databases::new(1), Databases::new(MANY));
    let (mut site, mut times) = (0, Times::default());
    let mut train = vec![0; halves(0).0.sealed_len(size) * TRAIN];
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
    }
    println!("\n{size} bytes, {MANY} tunnels");
    times.print("seal, 1 tunnel", "open, 1 tunnel");
}

struct Databases {
    spd: Spd,
    sad: Sad,
}

impl Databases {
    fn new(tunnels: u32) -> Self {
        let mut sad = Sad::with_capacity(tunnels as usize);
        for number in 0..tunnels {
            let (outbound, inbound) = halves(number);
            assert!(sad.add_inbound(Box::new(inbound)).is_none());
            assert!(sad.switch_outbound(Box::new(outbound)).is_none());
        }
        let policy = |number| Policy {
            id: PolicyId(number),
            name: format!("site-{number}"),
            direction: Direction::Out,
            local: net(LOCAL),
            remote: site(number),
            action: Action::Protect(Template {
                reqid: Reqid(number),
                mode: Mode::Tunnel,
            }),
            priority: 100,
        };
        let spd = Spd::new((0..tunnels).map(policy).collect());
        Self { spd, sad }
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
            for packet in train.chunks_exact_mut(length) {
                let spi = u32::from_be_bytes(*packet.first_chunk().expect("an SPI"));
                let sa = self.sad.inbound_mut(spi).expect("each SA has two halves");
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

fn key() -> PacketKey {
    let material = vec![0x5a; encryption_key_len(&SUITE)];
    PacketKey::new(SUITE, &material, &[]).expect("a key of the right length")
}

fn halves(number: u32) -> (OutboundSa, InboundSa) {
    let spi = Spi::new(0x1000 + number).expect("not reserved");
    let (child, reqid, owner) = (ChildId(number.into()), Reqid(number), WorkerId(0));
    let end = SocketAddr::new(IpAddr::from([192, 0, 2, 1]), 4500);
    let path = EspPath {
        encap: EspEncap::Udp,
        local: end,
        remote: end,
    };
    let (rules, limits) = (HeaderRules::default(), Limits::NONE);
    let outbound = OutboundSa::new(OutboundParams {
        spi,
        child,
        reqid,
        owner,
        key: key(),
        esn: true,
        path,
        selectors: selectors(net(LOCAL), site(number)),
        rules,
        limits,
        usage: Arc::<SaUsage>::default(),
        path_mtu: u16::MAX,
    });
    let inbound = InboundSa::new(InboundParams {
        spi,
        child,
        reqid,
        owner,
        key: key(),
        esn: true,
        replay_window: 4096,
        path,
        selectors: selectors(site(number), net(LOCAL)), // the peer's
        rules,
        limits,
        usage: Arc::default(),
    });
    (outbound, inbound)
}

fn selectors(local: TrafficSelector, remote: TrafficSelector) -> Arc<Selectors> {
    Arc::new(Selectors {
        local: vec![local],
        remote: vec![remote],
    })
}

fn net(text: &str) -> TrafficSelector {
    text.parse().expect("a selector")
}

/// One of 65 536 networks in 10.0.0.0/8.
fn site(number: u32) -> TrafficSelector {
    let address = Ipv4Addr::from_bits(0x0a00_0000 | number << 8);
    TrafficSelector::net(IpNet::V4(
        Ipv4Net::new(address, 24).expect("a prefix length"),
    ))
}

fn host(number: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(0x0a00_0007 | number << 8)
}

fn flow(number: u32) -> Flow {
    Flow {
        src: IpAddr::from(SOURCE),
        dst: IpAddr::V4(host(number)),
        protocol: 6,
        ports: Some((0x4242, 0x4242)),
    }
}

/// A TCP packet of that flow.
fn packet(number: u32, size: usize) -> Vec<u8> {
    let [l0, l1] = u16::try_from(size).expect("an IPv4 packet").to_be_bytes();
    let mut packet = vec![0x45, 0, l0, l1, 0, 0, 0, 0, 64, 6, 0, 0];
    packet.extend(SOURCE);
    packet.extend(host(number).octets());
    packet.resize(size, 0x42);
    packet
}

const HEADER_LEN: usize = 8;
/// Of any packet: what the bytes are does not matter to the cipher.
const ASSOCIATED: Associated<'static> = Associated {
    header: &[0x12, 0x34, 0x56, 0x78, 0, 0, 0, 1],
    esn_high: Some(0),
};
const LOCAL: &str = "172.16.0.0/12";
const SOURCE: [u8; 4] = [172, 16, 0, 1];
/// Prime to [`MANY`], so that each tunnel has its turn and none is near the one before.
const STEP: u32 = 7919;
