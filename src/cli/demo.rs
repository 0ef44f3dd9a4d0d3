//! `lockgate demo`: two gateways and two hosts on this machine, a tunnel, traffic, a report.
//!
//! Everything lives in network namespaces without names ([`crate::io::netns`]) and in one temporary
//! folder, so that nothing is left behind however the demo ends.

mod counters;
mod report;
pub mod wiretap;

use std::{
    io::{self, IsTerminal, Write},
    net::{IpAddr, SocketAddr},
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::sleep,
    time::{Duration, Instant},
};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use tempfile::TempDir;

use self::{
    counters::Snapshot,
    report::{Measured, Report},
    wiretap::Wiretap,
};
use super::{
    FAILED,
    client::ClientError,
    gateway::{Gateway, GatewayError},
};
use crate::{
    io::netns::Namespace,
    lab::{
        self, A, B, Lab, LabOptions, OUTER_LINK, Side, Unprepared,
        traffic::{Bulk, Probe, Transfer, gigabits_per_second},
    },
};

/// Arguments of `lockgate demo`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  lockgate demo\n  lockgate demo --seconds 10 --json\n  lockgate demo --keep          explore the lab from another terminal, Ctrl-C ends it\n\nNeeds root, or a system on which anybody may create user namespaces."
)]
pub struct Args {
    /// Seconds of each measurement: round trips, bulk transfer one way, the other way
    #[arg(long, default_value_t = 3, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=3600))]
    pub seconds: u32,
    /// Print the report as JSON
    #[arg(long)]
    pub json: bool,
    /// Leave the lab up until Ctrl-C, and print how to enter it
    #[arg(long)]
    pub keep: bool,
}

/// Builds the lab, runs traffic through it, reports and cleans up.
pub fn execute(args: &Args) -> ExitCode {
    match run(args) {
        Ok(report) if report.passed() => ExitCode::SUCCESS,
        Ok(_) => ExitCode::from(FAILED),
        Err(failure) => {
            let _ = writeln!(io::stderr(), "lockgate demo: {failure}");
            ExitCode::from(FAILED)
        }
    }
}

/// Why there is no report.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Unprepared(#[from] Unprepared),
    #[error(transparent)]
    Gateway(#[from] GatewayError),
    #[error("the gateways could not agree on a tunnel: {reason}\n{words}")]
    Handshake { reason: String, words: String },
    #[error("the tunnel is gone")]
    NoTunnel,
    #[error("interrupted; nothing is left behind")]
    Interrupted,
    #[error("control socket: {0}")]
    Control(#[from] ClientError),
    #[error("{doing}: {source}\n{words}")]
    Traffic {
        doing: &'static str,
        source: io::Error,
        words: String,
    },
    #[error(transparent)]
    Io(#[from] io::Error),
}

fn run(args: &Args) -> Result<Report, Failure> {
    let screen = Screen {
        json: args.json,
        live: io::stderr().is_terminal(),
    };
    let enter = lab::prepare()?;
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        signal_hook::flag::register(signal, Arc::clone(&stop))?;
    }

    let folder = TempDir::with_prefix("lockgate-demo-")?;
    let lab = Lab::build(&LabOptions::default())?;
    screen.line(TOPOLOGY)?;
    let tunnel = Tunnel::start(lab, &folder, &screen)?;
    let report = Report::new(tunnel.measure(args.seconds, &screen, &stop)?);
    if args.json {
        writeln!(
            io::stdout(),
            "{}",
            serde_json::to_string_pretty(&report).map_err(io::Error::from)?
        )?;
    } else {
        write!(io::stdout(), "\n{report}")?;
    }
    if args.keep {
        tunnel.explain(&enter, &screen)?;
        while !stop.load(Ordering::Relaxed) {
            sleep(Duration::from_millis(50));
        }
    }
    Ok(report)
}

/// The lab with its two daemons. Fields drop in order: daemons first, then their namespaces.
#[derive(Debug)]
struct Tunnel {
    a: Gateway,
    b: Gateway,
    lab: Lab,
}

impl Tunnel {
    fn start(lab: Lab, folder: &TempDir, screen: &Screen) -> Result<Self, Failure> {
        let b = Gateway::start(&lab.gateway_b, folder, B, A)?;
        let a = Gateway::start(&lab.gateway_a, folder, A, B)?;
        for gateway in [&a, &b] {
            let file = gateway.config();
            screen.line(&format!("$ lockgate run --config {}", file.display()))?;
            let text = std::fs::read_to_string(file)?;
            screen.line(
                &text
                    .lines()
                    .map(|line| format!("    {line}\n"))
                    .collect::<String>(),
            )?;
        }
        Ok(Self { a, b, lab })
    }

    fn measure(
        &self,
        seconds: u32,
        screen: &Screen,
        stop: &Arc<AtomicBool>,
    ) -> Result<Measured, Failure> {
        let time = Duration::from_secs(seconds.into());
        let wiretap = Wiretap::start(&self.lab.gateway_a, OUTER_LINK, [A.outer, B.outer])?;
        let handshake = self.negotiate()?;
        screen.line(&format!(
            "tunnel up in {:.1} ms",
            handshake.as_secs_f64() * 1e3
        ))?;

        let (host_a, host_b) = (&self.lab.host_a, &self.lab.host_b);
        let echo = at(B, ECHO_PORT);
        let probe = Probe::start(host_a, host_b, echo, Duration::ZERO)?;
        screen.follow("round trips", time, stop, || None)?;
        let idle = probe
            .finish()
            .map_err(|e| self.traffic_failed("round trips", e))?;

        let probe = Probe::start(host_a, host_b, echo, PROBE_PAUSE)?;
        let a_to_b = self.transfer("A to B", (host_a, host_b, B), time, screen, stop)?;
        let b_to_a = self.transfer("B to A", (host_b, host_a, A), time, screen, stop)?;
        let loaded = probe
            .finish()
            .map_err(|e| self.traffic_failed("round trips", e))?;
        let (at_a, at_b) = self.settled()?;
        let wiretap = wiretap.finish()?;
        Ok(Measured {
            handshake,
            idle,
            loaded,
            a_to_b,
            b_to_a,
            at_a,
            at_b,
            wiretap,
        })
    }

    /// Has A bring the tunnel up and returns how long that took.
    fn negotiate(&self) -> Result<Duration, Failure> {
        self.a.initiate("demo", "lan").map_err(|error| match error {
            GatewayError::NoTunnel(reason) => Failure::Handshake {
                reason,
                words: self.last_words(),
            },
            other => other.into(),
        })
    }

    fn transfer(
        &self,
        doing: &'static str,
        (from, to, side): (&Namespace, &Namespace, Side),
        time: Duration,
        screen: &Screen,
        stop: &Arc<AtomicBool>,
    ) -> Result<Transfer, Failure> {
        let bulk = Bulk::start(from, to, at(side, BULK_PORT), time, stop)?;
        let start = Instant::now();
        screen.follow(doing, time, stop, || {
            Some(gigabits_per_second(bulk.received(), start.elapsed()))
        })?;
        bulk.finish()
            .map_err(|error| self.traffic_failed(doing, error))
    }

    /// What both gateways counted, as soon as nothing is on its way any more.
    fn settled(&self) -> Result<(Snapshot, Snapshot), Failure> {
        let (mut control_a, mut control_b) = (self.a.control()?, self.b.control()?);
        let mut before = None;
        loop {
            let at_a = Snapshot::fetch(&mut control_a, &self.lab.gateway_a)?;
            let at_b = Snapshot::fetch(&mut control_b, &self.lab.gateway_b)?;
            let now = (at_a.children.clone(), at_b.children.clone());
            if before.as_ref() == Some(&now) {
                return Ok((at_a, at_b));
            }
            before = Some(now);
            sleep(SETTLE);
        }
    }

    fn explain(&self, enter: &str, screen: &Screen) -> Result<(), Failure> {
        screen.line("\nThe lab stays up until Ctrl-C. To enter it from another terminal:")?;
        for namespace in self.lab.namespaces() {
            let (name, path) = (namespace.name(), namespace.path());
            screen.line(&format!("  {name:<10} {enter} --net={}", path.display()))?;
        }
        for (name, gateway) in [(A.name, &self.a), (B.name, &self.b)] {
            let socket = gateway.config().with_extension("vici");
            let (process, socket) = (gateway.process(), socket.display());
            screen.line(&format!(
                "  {name} is process {process}: lockgate status --socket {socket}"
            ))?;
        }
        Ok(())
    }

    fn traffic_failed(&self, doing: &'static str, source: io::Error) -> Failure {
        Failure::Traffic {
            doing,
            source,
            words: self.last_words(),
        }
    }

    fn last_words(&self) -> String {
        self.a.last_words() + &self.b.last_words()
    }
}

/// Where people read what happens: standard output, or standard error beside `--json`.
#[derive(Debug)]
struct Screen {
    json: bool,
    live: bool,
}

impl Screen {
    fn line(&self, text: &str) -> io::Result<()> {
        if self.json {
            writeln!(io::stderr(), "{text}")
        } else {
            writeln!(io::stdout(), "{text}")
        }
    }

    /// Shows progress for `time`, with a rate where there is one.
    fn follow(
        &self,
        doing: &str,
        time: Duration,
        stop: &AtomicBool,
        rate: impl Fn() -> Option<f64>,
    ) -> Result<(), Failure> {
        let start = Instant::now();
        let shown = |elapsed: Duration| {
            let rate = rate()
                .map(|rate| format!("  {rate:6.2} Gbit/s"))
                .unwrap_or_default();
            format!(
                "{doing:<12} {:5.1} of {} s{rate}",
                elapsed.as_secs_f64(),
                time.as_secs()
            )
        };
        while start.elapsed() < time {
            if stop.load(Ordering::Relaxed) {
                return Err(Failure::Interrupted);
            }
            sleep(TICK.min(time.saturating_sub(start.elapsed())));
            if self.live {
                write!(io::stderr(), "\r{}", shown(start.elapsed()))?;
            }
        }
        if self.live {
            write!(io::stderr(), "\r\x1b[K")?;
        }
        self.line(&shown(start.elapsed()))?;
        Ok(())
    }
}

fn at(side: Side, port: u16) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(side.host), port)
}

const TOPOLOGY: &str = "
  host-a ──────── gateway-a ═══════════════ gateway-b ──────── host-b
  10.1.0.10    10.1.0.1  192.0.2.1    192.0.2.2  10.2.0.1    10.2.0.10
";

const ECHO_PORT: u16 = 7;
const BULK_PORT: u16 = 5001;
/// Between probes under load, so that they measure the load and do not add to it.
const PROBE_PAUSE: Duration = Duration::from_millis(1);
const SETTLE: Duration = Duration::from_millis(100);
const TICK: Duration = Duration::from_millis(200);
