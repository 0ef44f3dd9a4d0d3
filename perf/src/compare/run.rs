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
use signal_hook::{
    consts::{SIGHUP, SIGINT, SIGTERM},
    iterator::Signals,
};

use crate::{
    machine::{Disturbance, Machine, Watch, load},
    measure::measure,
    plan::{Plan, SETTLE, Step},
    program::{Program, Tools},
    results::{Metric, Results, Sample},
    settings::{self, SocketDefaults},
    tunnel::{Mode, SOCKET_BUFFER, Tunnel},
};

/// Carries out a plan. What was measured so far is in `file` after every step; Ctrl-C ends the run
/// after the measurement in progress.
pub(crate) fn run(plan: &Plan, tools: &Tools, revision: &str, file: &Path) -> Result<Results> {
    let stop = Arc::new(AtomicBool::new(false));
    end_in_order(&stop)?;
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
            for index in order(tunnels.len(), number, round) {
                let slot = tunnels
                    .get_mut(index)
                    .context("an index below the length")?;
                if !step.is_due(slot.program, round) {
                    continue;
                }
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

/// The first signal ends the run after the measurement in progress, the second one at once: processes and
/// namespaces go with this process, settings are put back. So they are when it panics.
fn end_in_order(stop: &Arc<AtomicBool>) -> Result<()> {
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP])?;
    let stop = Arc::clone(stop);
    std::thread::spawn(move || {
        for _ in signals.forever() {
            if stop.swap(true, Ordering::Relaxed) {
                settings::put_back();
                std::process::exit(130);
            }
            eprintln!("ends after this measurement; another signal ends it at once");
        }
    });
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        settings::put_back();
        report(panic);
    }));
    Ok(())
}

/// In which order programs come to their turn in a step: each step and each pair of rounds begins with
/// another one, and the second round of a pair goes the other way, so that what drifts meets all alike.
fn order(many: usize, step: usize, round: u32) -> Vec<usize> {
    let round = usize::try_from(round).unwrap_or_default();
    let turns = (0..many).map(|turn| (turn + step + round.div_ceil(2)) % many);
    if round.is_multiple_of(2) {
        turns.rev().collect()
    } else {
        turns.collect()
    }
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
                reading: (bytes as f64 / f64::from(1 << 20)).into(),
                disturbance: Disturbance::default(),
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
            let started = defaults
                .context("cannot set socket buffers")
                .and_then(|_defaults| Tunnel::start(program, tools));
            match started {
                Ok(tunnel) => slot.tunnel.insert(tunnel),
                Err(error) => return fail(results, format!("{what}: {error:#}")),
            }
        }
    };
    let hint = results.latest(program, step);
    let watch = Watch::start();
    let measured = prepared(tunnel, step).and_then(|()| measure(tunnel, step, hint));
    let disturbance = watch.read();
    match measured {
        Ok(values) => {
            let mut line = format!("  {round}  {what}:");
            for (metric, reading) in values {
                line.push_str(&format!(" {reading} {}", metric.unit()));
                if reading.lost > 0 {
                    line.push_str(&format!(" ({} probes lost)", reading.lost));
                }
                results.samples.push(Sample {
                    round,
                    mode: step.mode,
                    program,
                    metric,
                    reading,
                    disturbance,
                });
            }
            if disturbance.is_heavy() {
                line.push_str(&format!(", {:.0} % stolen", disturbance.stolen * 100.0));
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

#[cfg(test)]
mod tests {
    use super::order;

    #[test]
    fn two_rounds_bring_every_program_to_its_turn_equally_late() {
        for many in 1..=12 {
            let mut places = vec![0; many];
            for round in 1..=2 {
                let turns = order(many, 3, round);
                for (place, index) in turns.iter().enumerate() {
                    places[*index] += place;
                }
                let mut all = turns.clone();
                all.sort_unstable();
                assert_eq!(all, (0..many).collect::<Vec<_>>());
            }
            assert!(places.iter().all(|sum| *sum == many - 1), "{places:?}");
        }
    }

    #[test]
    fn each_step_and_each_pair_of_rounds_begins_with_another_program() {
        assert_eq!(order(4, 0, 1), [1, 2, 3, 0]);
        assert_eq!(order(4, 0, 2), [0, 3, 2, 1]);
        assert_eq!(order(4, 1, 1), [2, 3, 0, 1]);
        assert_eq!(order(4, 0, 3), [2, 3, 0, 1]);
    }
}
