//! Two gateways in namespaces, and traffic from host to host.

use std::{
    collections::BTreeMap,
    io::{self, IsTerminal, Write},
    net::{IpAddr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use serde::Serialize;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use tempfile::TempDir;

use super::{Args, ReportFile, breakdown::InProcess, page, table};
use crate::{
    cli::gateway::Gateway,
    lab::{
        self, A, B, Lab, LabOptions,
        machine::Machine,
        traffic::{Bulk, Cores, Flow, OpenLoop, RoundTrips, Sweep, UdpLoad, udp_trial},
    },
    wire::vici::{Message, Value},
};

/// Everything that was measured in one lab.
#[derive(Debug, Serialize)]
pub(super) struct LabFigures {
    pub(super) version: &'static str,
    pub(super) machine: Machine,
    /// Whether the link between the gateways took datagrams one by one.
    pub(super) wire: bool,
    pub(super) seconds_per_trial: f64,
    pub(super) inner_mtu: u32,
    pub(super) tcp: Vec<Tcp>,
    /// What the stages of the packet path cost by themselves.
    pub(super) in_process: InProcess,
    pub(super) udp: Vec<Udp>,
    pub(super) round_trips: Vec<RoundTrip>,
    /// Gateway A as it was at the end.
    pub(super) gateway: GatewayFigures,
}

#[derive(Debug, Serialize)]
pub(super) struct Tcp {
    pub(super) streams: usize,
    pub(super) gbit_per_s: f64,
    /// Processor seconds of both gateways for each gigabit received.
    pub(super) cpu_s_per_gbit: f64,
    /// The kernel's part of it, 0 to 1.
    pub(super) kernel_share: f64,
    /// Of both gateways, for each packet through the tunnel in either direction.
    pub(super) system_calls_per_packet: f64,
    /// Processor time that the hypervisor gave to others meanwhile.
    pub(super) stolen_s: f64,
}

#[derive(Debug, Serialize)]
pub(super) struct Udp {
    pub(super) payload: usize,
    /// Datagrams that the sending host hands to its stack in one piece.
    pub(super) train: usize,
    /// Received at the highest rate with at most 0.1 % loss.
    pub(super) packets_per_s: f64,
    pub(super) gbit_per_s: f64,
    /// Whether the generator, not the tunnel, was the limit.
    pub(super) sender_limited: bool,
    pub(super) trials: usize,
}

#[derive(Debug, Serialize)]
pub(super) struct RoundTrip {
    pub(super) load: &'static str,
    pub(super) p50_us: f64,
    pub(super) p90_us: f64,
    pub(super) p99_us: f64,
    pub(super) p999_us: f64,
    pub(super) max_us: f64,
    pub(super) answered: u64,
    pub(super) lost: u64,
    /// Percentile and microseconds.
    pub(super) curve: Vec<(f64, f64)>,
}

/// What one gateway told of itself.
#[derive(Debug, Default, Serialize)]
pub(super) struct GatewayFigures {
    /// From reading a packet to writing it: nanoseconds by name, for each direction.
    pub(super) residence: BTreeMap<String, BTreeMap<String, u64>>,
    pub(super) offloads: BTreeMap<String, String>,
    pub(super) drops: BTreeMap<String, u64>,
}

/// Runs the whole programme.
pub(super) fn run(args: &Args, report: Option<ReportFile>) -> anyhow::Result<()> {
    let _ = lab::prepare()?;
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        signal_hook::flag::register(signal, Arc::clone(&stop))?;
    }
    // The folder outlives the gateways, and these outlive nothing but their namespaces.
    let folder = TempDir::with_prefix("lockgate-bench-")?;
    let options = LabOptions {
        inner_mtu: INNER_MTU,
        wire: args.wire,
        ..LabOptions::default()
    };
    let lab = Lab::build(&options)?;
    let scene = Scene {
        b: Gateway::start(&lab.gateway_b, &folder, B, A)?,
        a: Gateway::start(&lab.gateway_a, &folder, A, B)?,
        lab,
        stop,
        seconds: args.seconds.unwrap_or(2.0),
        live: io::stderr().is_terminal(),
    };
    let figures = scene.measure(args.wire).map_err(|error| {
        if scene.stop.load(Ordering::Relaxed) {
            return anyhow::anyhow!("interrupted; nothing is left behind");
        }
        let words = scene.a.last_words() + &scene.b.last_words();
        error.context(words.trim_end().to_owned())
    })?;
    drop(scene);
    if args.json {
        writeln!(io::stdout(), "{}", serde_json::to_string_pretty(&figures)?)?;
    } else {
        write!(io::stdout(), "{}", table::LabText(&figures))?;
    }
    if let Some(report) = report {
        report.write(&page::lab(&figures))?;
    }
    Ok(())
}

/// The lab with its two daemons. Fields drop in order: daemons first, then their namespaces.
#[derive(Debug)]
struct Scene {
    a: Gateway,
    b: Gateway,
    lab: Lab,
    stop: Arc<AtomicBool>,
    seconds: f64,
    live: bool,
}

impl Scene {
    fn measure(&self, wire: bool) -> anyhow::Result<LabFigures> {
        self.a.initiate("demo", "lan")?;
        let mut tcp = Vec::new();
        for streams in [1, 4] {
            tcp.push(self.tcp(streams)?);
        }
        let mut udp = Vec::new();
        for (payload, train) in [(1372, 1), (200, 1), (1372, TRAIN)] {
            udp.push(self.udp(payload, train)?);
        }
        let round_trips = vec![self.idle()?, self.loaded()?];
        Ok(LabFigures {
            version: env!("CARGO_PKG_VERSION"),
            machine: Machine::this(),
            wire,
            seconds_per_trial: self.seconds,
            inner_mtu: INNER_MTU,
            tcp,
            in_process: InProcess::measure(self.seconds / 20.0),
            udp,
            round_trips,
            gateway: self.gateway_figures()?,
        })
    }

    fn tcp(&self, streams: usize) -> anyhow::Result<Tcp> {
        self.show(&format!("TCP, {streams} streams"))?;
        let stop = Arc::new(AtomicBool::new(false));
        let bulk = Bulk::start_streams(&self.flow(BULK_PORT), streams, FOREVER, &stop)?;
        let before = self.counted()?;
        let processes = [self.a.process(), self.b.process()];
        let window = bulk.watch(WARM_UP, self.time(), &processes, &self.stop)?;
        let after = self.counted()?;
        stop.store(true, Ordering::Relaxed);
        self.go_on()?;
        bulk.finish()?;
        let packets = after.packets.saturating_sub(before.packets).max(1);
        Ok(Tcp {
            streams,
            gbit_per_s: window.transfer.gigabits_per_second(),
            cpu_s_per_gbit: window.cpu_seconds_per_gigabit(),
            kernel_share: window.usage.kernel_s / window.usage.cpu_s.max(f64::MIN_POSITIVE),
            system_calls_per_packet: after.calls.saturating_sub(before.calls) as f64
                / packets as f64,
            stolen_s: window.usage.stolen_s,
        })
    }

    fn udp(&self, payload: usize, train: usize) -> anyhow::Result<Udp> {
        let kind = if train > 1 {
            "in super-packets"
        } else {
            "one by one"
        };
        self.show(&format!(
            "UDP, {payload} bytes {kind}: highest rate without loss"
        ))?;
        let sweep = Sweep {
            trial: self.time().min(LONGEST_TRIAL),
            ..Sweep::default()
        };
        let found = sweep.search(|rate, time| {
            if self.stop.load(Ordering::Relaxed) {
                return Err(io::ErrorKind::Interrupted.into());
            }
            let load = UdpLoad {
                payload,
                rate,
                time,
                train,
            };
            udp_trial(&self.flow(UDP_PORT), &load, &self.stop)
        })?;
        Ok(Udp {
            payload,
            train,
            packets_per_s: found.rate,
            gbit_per_s: found.rate * payload as f64 * 8e-9,
            sender_limited: found.sender_limited,
            trials: found.trials.len(),
        })
    }

    fn idle(&self) -> anyhow::Result<RoundTrip> {
        self.show("round trips, idle")?;
        let trips = self.trips()?.finish()?;
        self.go_on()?;
        Ok(summary("idle", &trips))
    }

    fn loaded(&self) -> anyhow::Result<RoundTrip> {
        self.show("round trips beside TCP")?;
        let stop = Arc::new(AtomicBool::new(false));
        let bulk = Bulk::start_streams(&self.flow(BULK_PORT), 1, FOREVER, &stop)?;
        bulk.watch(WARM_UP, Duration::ZERO, &[], &self.stop)?;
        let trips = self.trips().and_then(|trips| Ok(trips.finish()?));
        stop.store(true, Ordering::Relaxed);
        self.go_on()?;
        bulk.finish()?;
        Ok(summary("beside one TCP stream", &trips?))
    }

    fn trips(&self) -> anyhow::Result<OpenLoop> {
        let flow = self.flow(ECHO_PORT);
        let time = self.time().mul_f64(2.0);
        Ok(OpenLoop::start(
            &flow,
            PROBES_PER_SECOND,
            64,
            time,
            &self.stop,
        )?)
    }

    fn flow(&self, port: u16) -> Flow<'_> {
        Flow {
            from: &self.lab.host_a,
            to: &self.lab.host_b,
            address: SocketAddr::new(IpAddr::V4(B.host), port),
            cores: Cores::default(),
        }
    }

    fn time(&self) -> Duration {
        Duration::from_secs_f64(self.seconds)
    }

    /// What the workers of both gateways have counted so far.
    fn counted(&self) -> anyhow::Result<Counted> {
        let mut sum = Counted::default();
        for gateway in [&self.a, &self.b] {
            let stats = gateway.control()?.command("stats", Message::new())?;
            let workers = stats.get_section("dataplane");
            for (_, worker) in workers.into_iter().flat_map(Message::iter) {
                let Value::Section(worker) = worker else {
                    continue;
                };
                let number = |key| worker.get(key).and_then(|text| text.parse::<u64>().ok());
                sum.calls += number("system-calls").unwrap_or_default();
                for key in ["packets-in", "packets-out"] {
                    sum.packets += number(key).unwrap_or_default();
                }
            }
        }
        Ok(sum)
    }

    fn gateway_figures(&self) -> anyhow::Result<GatewayFigures> {
        let stats = self.a.control()?.command("stats", Message::new())?;
        let mut figures = GatewayFigures::default();
        for direction in ["in", "out"] {
            let times = stats.get_section("residence");
            let times = times.and_then(|residence| residence.get_section(direction));
            let times = times.map(numbers).unwrap_or_default();
            figures.residence.insert(direction.to_owned(), times);
        }
        if let Some(drops) = stats.get_section("drops") {
            figures.drops = numbers(drops);
            figures.drops.retain(|_, count| *count > 0);
        }
        if let Some(offloads) = stats.get_section("offloads") {
            let states = offloads.iter().filter_map(|(name, _)| {
                let state = offloads.get(name)?;
                Some((name.to_owned(), state.to_owned()))
            });
            figures.offloads = states.collect();
        }
        Ok(figures)
    }

    /// Ends the programme if that is wanted.
    fn go_on(&self) -> anyhow::Result<()> {
        anyhow::ensure!(!self.stop.load(Ordering::Relaxed), "interrupted");
        Ok(())
    }

    fn show(&self, doing: &str) -> anyhow::Result<()> {
        self.go_on()?;
        if self.live {
            writeln!(io::stderr(), "{doing} …")?;
        }
        Ok(())
    }
}

#[derive(Clone, Copy, Debug, Default)]
struct Counted {
    calls: u64,
    packets: u64,
}

fn numbers(section: &Message) -> BTreeMap<String, u64> {
    let pairs = section.iter().filter_map(|(name, _)| {
        let number = section.get(name)?.parse().ok()?;
        Some((name.to_owned(), number))
    });
    pairs.collect()
}

fn summary(load: &'static str, trips: &RoundTrips) -> RoundTrip {
    let microseconds = |share: f64| trips.quantile(share) as f64 / 1e3;
    let curve = [
        0.0, 25.0, 50.0, 75.0, 90.0, 95.0, 98.0, 99.0, 99.5, 99.8, 99.9, 99.95,
    ];
    RoundTrip {
        load,
        p50_us: microseconds(0.5),
        p90_us: microseconds(0.9),
        p99_us: microseconds(0.99),
        p999_us: microseconds(0.999),
        max_us: microseconds(1.0),
        answered: trips.histogram.len(),
        lost: trips.lost,
        curve: curve
            .map(|percentile| (percentile, microseconds(percentile / 100.0)))
            .to_vec(),
    }
}

/// What the hosts' links carry, so that an outer packet fits into 1500 bytes with any suite.
pub(super) const INNER_MTU: u32 = 1400;
/// As a QUIC sender makes them.
const TRAIN: usize = 32;
const PROBES_PER_SECOND: f64 = 1000.0;
const WARM_UP: Duration = Duration::from_millis(500);
const LONGEST_TRIAL: Duration = Duration::from_secs(5);
/// Until it is stopped.
const FOREVER: Duration = Duration::from_secs(24 * 3600);
const BULK_PORT: u16 = 5001;
const UDP_PORT: u16 = 5002;
const ECHO_PORT: u16 = 7;
