//! One round: two fresh daemons, all tunnels up, what that took.

use std::{
    fmt,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use lockgate::{
    cli::client::Client,
    lab::{Lab, LabOptions, meter::Meter},
    wire::vici::{Message, Value},
};
use lockgate_perf::process::{Process, eventually};
use tempfile::TempDir;

use crate::program::{Program, Role, name, socket};

/// What it took to bring up all tunnels.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Round {
    /// From the first order to open a tunnel until both gateways have all of them, s.
    pub(crate) wall_s: f64,
    /// IKE SAs per second.
    pub(crate) rate: f64,
    /// Processor time of the initiator for a tunnel, ms.
    pub(crate) initiator_ms: f64,
    /// Processor time of the responder for a tunnel, ms.
    pub(crate) responder_ms: f64,
    /// What the resident set of the initiator grew by for a tunnel, KiB.
    pub(crate) initiator_kib: f64,
    /// What the resident set of the responder grew by for a tunnel, KiB.
    pub(crate) responder_kib: f64,
    /// Share of the machine's time that went to other virtual machines.
    pub(crate) stolen: f64,
}

/// One gateway's daemon.
struct Gateway {
    process: Process,
    control: Client,
    resident: u64,
    meter: Meter,
}

impl Round {
    /// Starts the program on both gateways of a lab and has the initiator open all tunnels at once.
    pub(crate) fn run(program: Program, executable: &Path, tunnels: u32) -> Result<Self> {
        let lab = Lab::build(&LabOptions::default()).context("cannot build the lab")?;
        let folder = TempDir::with_prefix("lockgate-handshakes-")?;
        let folder = folder.path();
        let start = |role| Gateway::start(program, executable, role, tunnels, &lab, folder);
        let mut ends = [start(Role::Responder)?, start(Role::Initiator)?];
        for end in &mut ends {
            end.begin()?;
        }
        let begin = Instant::now();
        let [responder, initiator] = &mut ends;
        for number in 0..tunnels {
            initiator.initiate(&name(number))?;
        }
        while initiator.established()? < tunnels || responder.established()? < tunnels {
            if begin.elapsed() > LIMIT {
                let up = [initiator.established()?, responder.established()?];
                bail!(
                    "{}: of {tunnels} tunnels only {up:?} are up",
                    program.title()
                );
            }
            std::thread::sleep(POLL);
        }
        let wall = begin.elapsed().as_secs_f64();
        let each = f64::from(tunnels);
        let [(initiator_ms, initiator_kib), (responder_ms, responder_kib)] =
            [initiator.spent()?, responder.spent()?];
        let usage = initiator.meter.read()?;
        let cores = std::thread::available_parallelism()?.get() as f64;
        Ok(Self {
            wall_s: wall,
            rate: each / wall,
            initiator_ms: initiator_ms / each,
            responder_ms: responder_ms / each,
            initiator_kib: initiator_kib / each,
            responder_kib: responder_kib / each,
            stolen: usage.stolen_s / (usage.wall_s * cores),
        })
    }
}

impl Gateway {
    fn start(
        program: Program,
        executable: &Path,
        role: Role,
        tunnels: u32,
        lab: &Lab,
        folder: &Path,
    ) -> Result<Self> {
        let command = program.command(executable, role, tunnels, folder)?;
        let namespace = match role {
            Role::Initiator => &lab.gateway_a,
            Role::Responder => &lab.gateway_b,
        };
        let log = folder.join(format!("{}.log", role.name()));
        let process = Process::start(namespace, command, log)?;
        let socket = socket(folder, role);
        let mut control = None;
        eventually("the daemon answers", || {
            control = Client::connect(&socket).ok();
            control.is_some()
        })
        .with_context(|| format!("{}{}", program.title(), process.last_words()))?;
        program.load(role, tunnels, folder)?;
        let mut control = control.context("connected")?;
        control.command("stats", Message::new())?;
        Ok(Self {
            resident: 0,
            meter: Meter::start(&[process.id()])?,
            process,
            control,
        })
    }

    /// Counts from here.
    fn begin(&mut self) -> Result<()> {
        self.resident = self.process.resident()?;
        self.meter = Meter::start(&[self.process.id()])?;
        Ok(())
    }

    /// Has a tunnel opened, and does not wait for it.
    fn initiate(&mut self, child: &str) -> Result<()> {
        let mut arguments = Message::new();
        arguments.set("child", child);
        arguments.set("timeout", "-1");
        let answer = self.control.command("initiate", arguments)?;
        if answer.get("success") != Some("yes") {
            bail!("initiate: {}", answer.get("errmsg").unwrap_or("refused"));
        }
        Ok(())
    }

    /// IKE SAs that are up.
    fn established(&mut self) -> Result<u32> {
        let stats = self.control.command("stats", Message::new())?;
        let Some(Value::Section(ikesas)) = stats
            .iter()
            .find_map(|(name, value)| (name == "ikesas").then_some(value))
        else {
            bail!("no IKE SAs among the daemon's figures");
        };
        let number =
            |key| -> Result<u32> { Ok(ikesas.get(key).context("a number of IKE SAs")?.parse()?) };
        Ok(number("total")?.saturating_sub(number("half-open")?))
    }

    /// Processor time in ms and memory in KiB since [`Self::begin`].
    fn spent(&self) -> Result<(f64, f64)> {
        let grown = self.process.resident()?.saturating_sub(self.resident);
        Ok((self.meter.read()?.cpu_s * 1e3, grown as f64 / 1024.0))
    }
}

impl fmt::Display for Round {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:7.0} handshakes/s ({:.2} s)   initiator {:.3} ms, {:.1} KiB   responder {:.3} ms, {:.1} KiB   stolen {:.0} %",
            self.rate,
            self.wall_s,
            self.initiator_ms,
            self.initiator_kib,
            self.responder_ms,
            self.responder_kib,
            self.stolen * 100.0
        )
    }
}

const POLL: Duration = Duration::from_millis(10);
const LIMIT: Duration = Duration::from_secs(120);
