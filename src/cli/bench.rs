//! `lockgate bench`: what a packet costs, stage by stage in this process, or end to end in a lab.

mod breakdown;
mod lab;
mod measure;
mod page;
mod scene;
mod stages;
mod table;

use std::{
    fs::File,
    io::{self, IsTerminal, Write},
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Barrier,
    thread,
};

use anyhow::Context;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use serde::Serialize;

use self::{
    measure::{Batch, Cost, repeat, repeat_both, ticks_per_nanosecond},
    scene::{SUITES, Size},
};
use super::FAILED;
use crate::{
    lab::{machine::Machine, report::Page},
    wire::proposal::CipherSuite,
};

/// Arguments of `lockgate bench`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Two gateways in namespaces, with traffic from host to host, in place of the stages in process
    #[arg(long, conflicts_with_all = ["sizes", "suites", "workers"])]
    pub lab: bool,
    /// With --lab: have the link between the gateways take datagrams one by one, as a wire does
    #[arg(long, requires = "lab")]
    pub wire: bool,
    /// Seconds for each figure (default 0.1), or for each trial of the lab (default 2)
    #[arg(long, value_name = "S", value_parser = seconds)]
    pub seconds: Option<f64>,
    /// Lengths of inner packets in bytes, or `imix`: 28 of 64, 16 of 570 and 4 of 1518 bytes
    #[arg(
        long,
        value_name = "N,…",
        value_delimiter = ',',
        default_value = "64,200,576,1400,8192,imix"
    )]
    sizes: Vec<Size>,
    /// Cipher suites, by their names in the configuration
    #[arg(
        long,
        value_name = "NAME,…",
        value_delimiter = ',',
        default_value = "aes128gcm16,aes256gcm16,chacha20poly1305,aes256-sha256"
    )]
    suites: Vec<Named>,
    /// Workers to go up to, each on a core of its own (default: one per core)
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub workers: Option<u16>,
    /// Print the figures as JSON
    #[arg(long)]
    pub json: bool,
    /// Write a page with plots, in one file that needs no network
    #[arg(long, value_name = "FILE.html")]
    pub report: Option<PathBuf>,
}

const EXAMPLES: &str = "\
Examples:
  lockgate bench                                        every stage, a minute
  lockgate bench --suites aes256gcm16 --sizes 1400      one suite, one size
  lockgate bench --seconds 1 --report bench.html        more exact, with plots
  lockgate bench --lab --report lab.html                TCP, UDP and round trips through two gateways
  lockgate bench --lab --wire --json                    the same over a link that behaves like a wire

Needs no privileges; --lab needs root, or a system on which anybody may create user namespaces.
Cycles are those of the time-stamp counter, which runs at one rate whatever the core's clock does.";

/// A suite and what it is called.
#[derive(Clone, Copy, Debug)]
struct Named {
    name: &'static str,
    suite: CipherSuite,
}

impl std::str::FromStr for Named {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = SUITES.into_iter().find(|(name, _)| *name == text);
        let names = SUITES.map(|(name, _)| name).join(", ");
        found
            .map(|(name, suite)| Self { name, suite })
            .ok_or_else(|| format!("the suites are {names}"))
    }
}

fn seconds(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(seconds) if (0.001..=3600.0).contains(&seconds) => Ok(seconds),
        _ => Err("0.001 to 3600 seconds are possible".to_owned()),
    }
}

/// Measures, prints, and writes the page.
pub fn execute(args: &Args) -> ExitCode {
    let report = args.report.as_deref().map(ReportFile::open).transpose();
    let done = report.and_then(|report| {
        if args.lab {
            lab::run(args, report)
        } else {
            in_process(args, report)
        }
    });
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr(), "lockgate bench: {error:#}");
            ExitCode::from(FAILED)
        }
    }
}

/// The file of `--report`, opened before anything is measured, so that a wrong name costs no time. A new
/// one that nothing was written to is removed when this is dropped; it stays, empty, if a signal ends the
/// process.
#[derive(Debug)]
struct ReportFile {
    file: File,
    path: PathBuf,
    unwanted: bool,
}

impl ReportFile {
    fn open(path: &Path) -> anyhow::Result<Self> {
        // A link was there before, wherever it leads.
        let unwanted = path.symlink_metadata().is_err();
        let mut options = File::options();
        let file = options.write(true).create(true).truncate(false).open(path);
        Ok(Self {
            file: file.with_context(|| format!("cannot write {}", path.display()))?,
            path: path.to_owned(),
            unwanted,
        })
    }

    fn write(mut self, page: &Page) -> io::Result<()> {
        // What is not a file, such as a pipe, has no length.
        if self.file.metadata()?.is_file() {
            self.file.set_len(0)?;
        }
        self.file.write_all(page.html().as_bytes())?;
        self.unwanted = false;
        Ok(())
    }
}

impl Drop for ReportFile {
    fn drop(&mut self) {
        if self.unwanted {
            // An empty file that stays does no harm.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// Everything that was measured in this process.
#[derive(Debug, Serialize)]
struct Figures {
    version: &'static str,
    machine: Machine,
    /// Rate of the counter that "cycles" are of.
    tsc_ghz: Option<f64>,
    seconds_per_figure: f64,
    figures: Vec<Figure>,
}

/// What one stage costs for one suite and size.
#[derive(Clone, Debug, Serialize)]
struct Figure {
    stage: Stage,
    /// None where no cipher takes part.
    suite: Option<&'static str>,
    size: String,
    workers: u16,
    ns_per_packet: f64,
    cycles_per_packet: Option<f64>,
    gbit_per_s: f64,
    packets: u64,
}

/// A stage of the packet path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Stage {
    AeadSeal,
    AeadOpen,
    EspSeal,
    EspOpen,
    Outbound,
    Inbound,
    Split,
    Merge,
    Replay,
    /// [`Self::Outbound`] by several workers at once.
    ScalingOutbound,
    /// [`Self::Inbound`] by several workers at once.
    ScalingInbound,
}

impl Stage {
    fn name(self) -> &'static str {
        match self {
            Self::AeadSeal => "cipher, seal",
            Self::AeadOpen => "cipher, open",
            Self::EspSeal => "ESP, seal",
            Self::EspOpen => "ESP, open",
            Self::Outbound => "whole path, outbound",
            Self::Inbound => "whole path, inbound",
            Self::Split => "split",
            Self::Merge => "merge",
            Self::Replay => "replay window",
            Self::ScalingOutbound => "workers at once, outbound",
            Self::ScalingInbound => "workers at once, inbound",
        }
    }
}

fn in_process(args: &Args, report: Option<ReportFile>) -> anyhow::Result<()> {
    let seconds = args.seconds.unwrap_or(0.1);
    let mut bench = Bench {
        seconds,
        ticks: ticks_per_nanosecond(),
        live: io::stderr().is_terminal(),
        figures: Vec::new(),
    };
    bench.without_cipher(&args.sizes);
    for named in &args.suites {
        for size in &args.sizes {
            bench.suite(*named, *size)?;
        }
    }
    let cores = cores()?;
    let workers = args.workers.map_or(cores.len(), usize::from);
    bench.workers(args, &cores, workers)?;
    bench.clear();
    let figures = Figures {
        version: env!("CARGO_PKG_VERSION"),
        machine: Machine::this(),
        tsc_ghz: bench.ticks,
        seconds_per_figure: seconds,
        figures: bench.figures,
    };
    if args.json {
        writeln!(io::stdout(), "{}", serde_json::to_string_pretty(&figures)?)?;
    } else {
        write!(io::stdout(), "{}", table::Text(&figures))?;
    }
    if let Some(report) = report {
        report.write(&page::in_process(&figures))?;
    }
    Ok(())
}

/// The cores that this process may use.
fn cores() -> io::Result<Vec<usize>> {
    let allowed = sched_getaffinity(None)?;
    Ok((0..CpuSet::MAX_CPU)
        .filter(|core| allowed.is_set(*core))
        .collect())
}

#[derive(Debug)]
struct Bench {
    seconds: f64,
    ticks: Option<f64>,
    live: bool,
    figures: Vec<Figure>,
}

impl Bench {
    fn without_cipher(&mut self, sizes: &[Size]) {
        for size in sizes {
            let Size::Bytes(length) = size else { continue };
            self.show(&format!("split and merge, {size} bytes"));
            let [split, merge] = stages::split_and_merge(*length, self.seconds);
            self.add(Stage::Split, None, &size.to_string(), split);
            self.add(Stage::Merge, None, &size.to_string(), merge);
        }
        self.show("replay window");
        self.add(Stage::Replay, None, "any", stages::replay(self.seconds));
    }

    fn suite(&mut self, named: Named, size: Size) -> anyhow::Result<()> {
        let Named { name, suite } = named;
        self.show(&format!("{name}, {size} bytes"));
        let label = size.to_string();
        let mut aead = stages::Aead::new(suite, size);
        let mut esp = stages::Esp::new(suite, size);
        let [bare, whole] = repeat_both(self.seconds, || aead.seal(), || esp.seal());
        self.add(Stage::AeadSeal, Some(name), &label, bare);
        self.add(Stage::EspSeal, Some(name), &label, whole);
        let [bare, whole] = repeat_both(self.seconds, || aead.open(), || esp.open());
        self.add(Stage::AeadOpen, Some(name), &label, bare);
        self.add(Stage::EspOpen, Some(name), &label, whole);
        let mut path = stages::Path::new(suite, size);
        let outbound = repeat(self.seconds, || path.outbound());
        let inbound = repeat(self.seconds, || path.inbound());
        anyhow::ensure!(path.dropped() == 0, "{name}, {label}: packets were dropped");
        self.add(Stage::Outbound, Some(name), &label, outbound);
        self.add(Stage::Inbound, Some(name), &label, inbound);
        Ok(())
    }

    /// The whole path on one core and on more at once, in turn, so that what disturbs one disturbs the
    /// others: the first suite, the largest size up to 1400.
    fn workers(&mut self, args: &Args, cores: &[usize], most: usize) -> anyhow::Result<()> {
        let Some(Named { name, suite }) = args.suites.first().copied() else {
            return Ok(());
        };
        let lengths = args.sizes.iter().filter_map(|size| match size {
            Size::Bytes(length) if *length <= 1400 => Some(*length),
            _ => None,
        });
        let Some(length) = lengths.max() else {
            return Ok(());
        };
        let size = Size::Bytes(length);
        if most < 2 {
            return Ok(());
        }
        let mut rounds = vec![[Vec::new(), Vec::new()]; most];
        for round in 1..=ROUNDS {
            self.show(&format!("1 to {most} workers, round {round} of {ROUNDS}"));
            for (workers, samples) in (1..).zip(&mut rounds) {
                let pinned: Vec<usize> = cores.iter().copied().cycle().take(workers).collect();
                for (inbound, samples) in [false, true].into_iter().zip(samples) {
                    let seconds = self.seconds / f64::from(ROUNDS);
                    samples.push(together(&pinned, suite, size, seconds, inbound)?);
                }
            }
        }
        for (workers, samples) in (1..).zip(rounds) {
            let stages = [Stage::ScalingOutbound, Stage::ScalingInbound];
            for (stage, mut samples) in stages.into_iter().zip(samples) {
                samples.sort_by(|a, b| a.gbit_per_s.total_cmp(&b.gbit_per_s));
                let Some(median) = samples.get(samples.len() / 2) else {
                    continue;
                };
                self.add(stage, Some(name), &size.to_string(), *median);
                if let Some(figure) = self.figures.last_mut() {
                    figure.workers = workers;
                }
            }
        }
        Ok(())
    }

    fn add(&mut self, stage: Stage, suite: Option<&'static str>, size: &str, cost: Cost) {
        self.figures.push(Figure {
            stage,
            suite,
            size: size.to_owned(),
            workers: 1,
            ns_per_packet: cost.ns_per_packet,
            cycles_per_packet: self.ticks.map(|ticks| ticks * cost.ns_per_packet),
            gbit_per_s: cost.gbit_per_s,
            packets: cost.packets,
        });
    }

    fn show(&self, doing: &str) {
        if self.live {
            let _ = write!(io::stderr(), "\r\x1b[K{doing} …");
        }
    }

    fn clear(&self) {
        if self.live {
            let _ = write!(io::stderr(), "\r\x1b[K");
        }
    }
}

/// One pinned worker on each of the cores, all at once. Rates add up; the time per packet is that of
/// the workers together.
fn together(
    cores: &[usize],
    suite: CipherSuite,
    size: Size,
    seconds: f64,
    inbound: bool,
) -> anyhow::Result<Cost> {
    let start = Barrier::new(cores.len());
    let worker = |core: usize| -> io::Result<Cost> {
        let pinned = pin(core);
        let mut path = stages::Path::new(suite, size);
        start.wait();
        pinned?;
        let batch = |path: &mut stages::Path| -> Batch {
            if inbound {
                path.inbound()
            } else {
                path.outbound()
            }
        };
        Ok(repeat(seconds, || batch(&mut path)))
    };
    let costs: Vec<io::Result<Cost>> = thread::scope(|scope| {
        let threads: Vec<_> = cores
            .iter()
            .map(|core| scope.spawn(|| worker(*core)))
            .collect();
        let joined = threads.into_iter().map(thread::ScopedJoinHandle::join);
        joined
            .map(|cost| cost.unwrap_or_else(|_| Err(io::Error::other("a worker panicked"))))
            .collect()
    });
    let mut sum = Cost {
        ns_per_packet: 0.0,
        gbit_per_s: 0.0,
        packets: 0,
    };
    let mut rate = 0.0;
    for cost in costs {
        let cost = cost?;
        rate += 1.0 / cost.ns_per_packet;
        sum.gbit_per_s += cost.gbit_per_s;
        sum.packets += cost.packets;
    }
    sum.ns_per_packet = 1.0 / rate;
    Ok(sum)
}

fn pin(core: usize) -> io::Result<()> {
    let mut set = CpuSet::new();
    set.set(core);
    Ok(sched_setaffinity(None, &set)?)
}

/// How often each number of workers has its turn.
const ROUNDS: u32 = 5;

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink};

    use super::*;

    #[test]
    fn a_report_that_is_not_written_leaves_what_was_there_and_no_new_file() {
        let folder = tempfile::TempDir::new().expect("a place for files");
        let [new, old, link] = ["new", "old", "link"].map(|name| folder.path().join(name));
        fs::write(&old, "what it was").expect("a file");
        symlink("nowhere yet", &link).expect("a link");
        for path in [&new, &old, &link] {
            drop(ReportFile::open(path).expect("it can be written"));
        }
        assert!(!new.exists());
        assert_eq!(fs::read_to_string(&old).expect("a file"), "what it was");
        assert!(link.is_symlink());
    }
}
