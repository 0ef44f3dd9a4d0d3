//! What a worker spends on a packet, system calls included: with one tunnel, and with many of which
//! each packet belongs to another one.
//!
//! Two gateways with one worker each in two namespaces; single datagrams come from a program beside
//! the first, and the second writes them to its TUN, where nobody wants them. A figure is the
//! processor time of a worker's thread by its packets, the median of all rounds; rounds of one and of
//! many tunnels alternate. `cargo bench --bench tunnels -- ROUNDS`, 40 unless told otherwise. Ends at
//! once where it may not make namespaces.

#[path = "../tests/esp/many.rs"]
mod many;
#[path = "../tests/dataplane/sites.rs"]
mod sites;
#[path = "../tests/support/mod.rs"]
#[allow(
    clippy::indexing_slicing,
    reason = "shared with the tests, which fail by panicking"
)]
mod support;

use std::fs;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

use lockgate::io::netns::{Namespace, connect};
use lockgate::io::offload::Offloads;
use lockgate::io::udp::SocketOptions;
use lockgate::ipsec::{Direction, EspEncap, EspPath, SaUpdate, Spd};
use sites::{PORT, Setup, Site};

const MANY: u32 = 10_000;
const SIZES: [usize; 2] = [200, 1372];

fn main() {
    if !support::may_build_a_lab() {
        return;
    }
    let rounds = std::env::args().find_map(|argument| argument.parse().ok());
    let rounds = rounds.unwrap_or(40);
    let mut scenes = [Scene::new(1), Scene::new(MANY)];
    for size in SIZES {
        let mut figures: [[Vec<f64>; 2]; 2] = Default::default();
        for _ in 0..rounds {
            for (scene, figures) in scenes.iter_mut().zip(&mut figures) {
                let spent = scene.round(size);
                for (figures, spent) in figures.iter_mut().zip(spent) {
                    figures.push(spent);
                }
            }
        }
        println!(
            "\n{size} bytes of payload, ns of the worker per packet, median of {rounds} rounds"
        );
        let [one, many] = figures.map(|figures| figures.map(median));
        for (name, (one, many)) in ["outbound", "inbound"].iter().zip(one.iter().zip(many)) {
            let ratio = many / one;
            println!("  {name:9} 1 tunnel {one:6.0}   {MANY} by packet {many:6.0}  x {ratio:.2}");
        }
    }
}

/// Two gateways with so many tunnels between them, and who sends through all of them in turn.
struct Scene {
    tunnels: u32,
    next: u32,
    sender: UdpSocket,
    gateways: [Gateway; 2],
}

struct Gateway {
    site: Site,
    thread: String,
}

impl Scene {
    fn new(tunnels: u32) -> Self {
        let spaces = ["sealer", "opener"].map(|name| Namespace::new(name).expect("a namespace"));
        let [a, b] = &spaces;
        connect((a, "wire"), (b, "wire"), 1500).expect("a link");
        for (space, address) in [(a, "192.0.2.1/24"), (b, "192.0.2.2/24")] {
            sites::add_address(space, "wire", address);
        }
        let policies = || Spd::new(many::policies(0..tunnels, Direction::Out).collect());
        let [a, b] = spaces;
        let inner = [
            ["172.16.0.1/32", "10.255.255.1/8"],
            ["172.31.0.1/32", "172.31.0.2/32"],
        ];
        let [inner_a, inner_b] = inner;
        let mut gateways = [
            Gateway::start(a, policies(), inner_a),
            Gateway::start(b, Spd::default(), inner_b),
        ];
        let [sealer, opener] = &mut gateways;
        let end = |last| SocketAddr::new(IpAddr::from([192, 0, 2, last]), PORT);
        for number in 0..tunnels {
            let (mut outbound, inbound) = many::halves(number);
            outbound.set_path(EspPath {
                encap: EspEncap::Udp,
                local: end(1),
                remote: end(2),
            });
            opener.apply(number, SaUpdate::AddInbound(inbound));
            sealer.apply(number, SaUpdate::SwitchOutbound(outbound));
        }
        for gateway in &mut gateways {
            gateway.settle();
        }
        let source = SocketAddr::new(IpAddr::from([172, 16, 0, 1]), 4242);
        let sender = gateways[0].site.space.run(move || UdpSocket::bind(source));
        let mut scene = Self {
            tunnels,
            next: 0,
            sender: sender.expect("bound"),
            gateways,
        };
        scene.send(1, 2 * tunnels); // each SA has seen its flow
        scene
    }

    /// Nanoseconds per packet that both workers took. A round in which the machine let nothing through is
    /// repeated.
    fn round(&mut self, size: usize) -> [f64; 2] {
        support::eventually("packets get through", || {
            let before = self.gateways.each_ref().map(Gateway::spent);
            self.send(size, PACKETS);
            let after = self.gateways.each_ref().map(Gateway::spent);
            let both = [0, 1].map(|end: usize| {
                let (before, after) = (before.get(end)?, after.get(end)?);
                let packets = after
                    .1
                    .checked_sub(before.1)
                    .filter(|packets| *packets > 0)?;
                Some((after.0 - before.0) as f64 / packets as f64)
            });
            let [outbound, inbound] = both;
            Some([outbound?, inbound?])
        })
    }

    /// Sends single datagrams in small bursts, at a rate that both workers can carry.
    fn send(&mut self, size: usize, packets: u32) {
        let payload = vec![0x42; size];
        let mut due = Instant::now();
        for number in 0..packets {
            self.next = (self.next + STEP) % self.tunnels;
            let to = SocketAddr::new(IpAddr::V4(many::host(self.next)), 4242);
            let _ = self.sender.send_to(&payload, to); // a full queue is not the point here
            if number % BURST == BURST - 1 {
                due += PAUSE;
                thread::sleep(due.saturating_duration_since(Instant::now()));
            }
        }
        thread::sleep(Duration::from_millis(20));
    }
}

impl Gateway {
    fn start(space: Namespace, policies: Spd, inner: [&str; 2]) -> Self {
        let before = workers();
        let offloads = Offloads {
            tun_uso: false, // one tunnel would otherwise merge what many do not
            ..Offloads::ALL
        };
        let setup = Setup {
            workers: 1,
            options: SocketOptions {
                offloads,
                ..SocketOptions::default()
            },
            spin: Duration::ZERO,
        };
        let site = Site::start(space, policies, inner, setup);
        let thread = support::eventually("the worker has its name", || {
            workers()
                .into_iter()
                .find(|thread| !before.contains(thread))
        });
        Self { site, thread }
    }

    fn apply(&mut self, number: u32, update: SaUpdate) {
        self.site.handle.apply(update);
        if number % 1000 == 999 {
            self.settle();
        }
    }

    fn settle(&mut self) {
        let epoch = self.site.handle.barrier();
        assert!(self.site.handle.wait_for(epoch, support::PATIENCE));
    }

    /// Processor time of the worker in nanoseconds, and packets that it sealed or opened.
    fn spent(&self) -> (u64, u64) {
        let text = fs::read_to_string(format!("{}/schedstat", self.thread)).expect("a thread");
        let time = text.split(' ').next().and_then(|time| time.parse().ok());
        let total = self.site.handle.stats().total();
        let packets = total.outbound.packets + total.inbound.packets;
        (time.expect("nanoseconds"), packets)
    }
}

/// The folders of this process's workers (proc(5)).
fn workers() -> Vec<String> {
    let tasks = fs::read_dir("/proc/self/task").expect("a mounted /proc");
    let paths = tasks.map(|task| task.expect("an entry").path().display().to_string());
    paths
        .filter(|path| {
            let name = fs::read_to_string(format!("{path}/comm"));
            name.is_ok_and(|name| name.starts_with("worker-"))
        })
        .collect()
}

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures.get(figures.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Packets of a round.
const PACKETS: u32 = 8192;
const BURST: u32 = 32;
/// Between the beginnings of two bursts.
const PAUSE: Duration = Duration::from_micros(640);
/// Prime to [`MANY`], so that each tunnel has its turn and none is near the one before.
const STEP: u32 = 7919;
