//! The run: every program comes to its turn in each step, every step in each round.

use std::{
    collections::BTreeMap,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use lockgate::lab::report::figure;

use crate::{
    machine::{Machine, SocketDefaults, Ticks, load},
    measure::measure,
    plan::{Plan, Step},
    program::{Program, Tools},
    results::{Metric, Results, Sample},
    tunnel::{Mode, SOCKET_BUFFER, Tunnel},
};

/// Carries out a plan. What was measured so far is in `file` after every step; Ctrl-C ends the run
/// after the measurement in progress.
pub(crate) fn run(plan: &Plan, tools: &Tools, revision: &str, file: &Path) -> Result<Results> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        // The second one ends at once; namespaces and processes go with this process.
        signal_hook::flag::register_conditional_shutdown(signal, 130, Arc::clone(&stop))?;
        signal_hook::flag::register(signal, Arc::clone(&stop))?;
    }
    let versions = plan.programs.iter();
    let versions: BTreeMap<_, _> = versions.map(|p| (*p, tools.version(*p))).collect();
    let mut results = Results {
        revision: revision.to_owned(),
        started: utc_now(),
        machine: Machine::this(),
        plan: plan.summary(),
        versions,
        rounds: plan.rounds,
        samples: Vec::new(),
        failures: Vec::new(),
    };
    let limit = plan.duration().mul_f64(PATIENCE) + SLACK;
    println!("{}", results.machine);
    println!("{}", results.plan);
    println!(
        "takes about {:.0} minutes and at most {:.0}; partial results are in {}",
        plan.duration().as_secs_f64() / 60.0,
        limit.as_secs_f64() / 60.0,
        file.display()
    );
    println!("load average {:.2}", load());
    let begin = Instant::now();
    let mut tunnels = start_all(plan, tools, &mut results, &stop)?;
    for round in 1..=plan.rounds {
        for (number, step) in plan.steps.iter().enumerate() {
            let many = tunnels.len();
            for turn in 0..many {
                // Each program is the first of its step once in a while.
                let index = (turn + number + usize::try_from(round)?) % many;
                let slot = tunnels
                    .get_mut(index)
                    .context("an index below the length")?;
                let late = begin.elapsed() > limit;
                if late {
                    fail(
                        &mut results,
                        "what was left when the time was over".to_owned(),
                    );
                }
                if late || stop.load(Ordering::Relaxed) {
                    results.rounds = round;
                    results.save(file)?;
                    return Ok(results);
                }
                one(slot, *step, round, tools, &mut results);
            }
            results.save(file)?;
        }
        println!(
            "round {round} of {} done after {:.1} minutes, load average {:.2}",
            plan.rounds,
            begin.elapsed().as_secs_f64() / 60.0,
            load()
        );
    }
    Ok(results)
}

/// A program, with its tunnel while it works.
struct Slot {
    program: Program,
    tunnel: Option<Tunnel>,
}

fn start_all(
    plan: &Plan,
    tools: &Tools,
    results: &mut Results,
    stop: &AtomicBool,
) -> Result<Vec<Slot>> {
    // What programs ask for is doubled by the kernel; this setting is not.
    let _defaults = SocketDefaults::set(2 * SOCKET_BUFFER).context("cannot set socket buffers")?;
    let mut slots = Vec::new();
    for program in plan.programs.iter().copied() {
        if stop.load(Ordering::Relaxed) {
            bail!("stopped");
        }
        match Tunnel::start(program, tools) {
            Ok(tunnel) => {
                println!("started  {}", program.title());
                slots.push(Slot {
                    program,
                    tunnel: Some(tunnel),
                });
            }
            Err(error) => fail(results, format!("{error:#}")),
        }
    }
    if slots.is_empty() {
        bail!("no program could be started");
    }
    // Caches and threads of the start have settled by now.
    std::thread::sleep(Duration::from_secs(1));
    for slot in &slots {
        let resident = slot.tunnel.as_ref().and_then(Tunnel::resident);
        if let Some(bytes) = resident {
            results.samples.push(Sample {
                round: 0,
                mode: Mode::AsIs,
                program: slot.program,
                metric: Metric::Memory,
                value: bytes as f64 / f64::from(1 << 20),
                stolen: 0.0,
            });
        }
    }
    Ok(slots)
}

/// One measurement. A tunnel that has failed is started anew for the next one.
fn one(slot: &mut Slot, step: Step, round: u32, tools: &Tools, results: &mut Results) {
    let program = slot.program;
    let what = format!("{}, {:?} {}", program.title(), step.job, step.mode.title());
    let tunnel = match &mut slot.tunnel {
        Some(tunnel) => tunnel,
        None => {
            let defaults = SocketDefaults::set(2 * SOCKET_BUFFER);
            let started = Tunnel::start(program, tools);
            drop(defaults);
            match started {
                Ok(tunnel) => slot.tunnel.insert(tunnel),
                Err(error) => return fail(results, format!("{what}: {error:#}")),
            }
        }
    };
    let hint = results.latest(program, step);
    let before = Ticks::now();
    let measured = prepared(tunnel, step).and_then(|()| measure(tunnel, step, hint));
    let stolen = Ticks::now().stolen_since(before);
    match measured {
        Ok(values) => {
            let mut line = format!("  {round}  {what}:");
            for (metric, value) in values {
                line.push_str(&format!(" {} {}", figure(value), metric.unit()));
                results.samples.push(Sample {
                    round,
                    mode: step.mode,
                    program,
                    metric,
                    value,
                    stolen,
                });
            }
            println!("{line}");
        }
        Err(error) => {
            fail(results, format!("{what}: {error:#}"));
            slot.tunnel = None;
        }
    }
}

fn prepared(tunnel: &mut Tunnel, step: Step) -> Result<()> {
    tunnel.set_mode(step.mode)?;
    // It may have been idle for so long that it has to make new keys.
    tunnel.wait_until_it_carries()?;
    std::thread::sleep(SETTLE);
    Ok(())
}

fn fail(results: &mut Results, what: String) {
    eprintln!("{what}");
    results.failures.push(what);
}

/// The time of day, for the report.
fn utc_now() -> String {
    let output = std::process::Command::new("date")
        .args(["-u", "+%Y-%m-%d %H:%M UTC"])
        .output();
    let text = output.map(|output| output.stdout).unwrap_or_default();
    String::from_utf8_lossy(&text).trim().to_owned()
}

/// How much longer than planned a run may take: searches for a rate are not equally long.
const PATIENCE: f64 = 1.2;
const SLACK: Duration = Duration::from_secs(90);
/// Acknowledgements of the measurement before are gone by then.
const SETTLE: Duration = Duration::from_millis(300);
