//! What is measured for how long, so that it fits into the time there is.

use std::time::Duration;

use anyhow::{Result, bail};

use crate::{program::Program, results::Metric, tunnel::Mode};

/// One thing to do with one tunnel; yields one metric or more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Job {
    /// One TCP stream, with the gateways' processor time.
    Tcp1,
    /// Four TCP streams.
    Tcp4,
    /// The highest rate of 1372-byte datagrams with at most 0.1 % lost.
    UdpLarge,
    /// The same with 200 bytes.
    UdpSmall,
    /// The same with 1372 bytes and a sender that hands over super-packets.
    UdpTrains,
    /// Round trips of an idle tunnel.
    RttIdle,
    /// Round trips beside a TCP stream.
    RttLoaded,
}

impl Job {
    pub(crate) const ALL: [Self; 7] = [
        Self::Tcp1,
        Self::Tcp4,
        Self::UdpLarge,
        Self::UdpSmall,
        Self::UdpTrains,
        Self::RttIdle,
        Self::RttLoaded,
    ];

    /// What it is mainly about.
    pub(crate) fn metric(self) -> Metric {
        match self {
            Self::Tcp1 => Metric::Tcp1,
            Self::Tcp4 => Metric::Tcp4,
            Self::UdpLarge => Metric::UdpLarge,
            Self::UdpSmall => Metric::UdpSmall,
            Self::UdpTrains => Metric::UdpTrains,
            Self::RttIdle => Metric::RttIdle,
            Self::RttLoaded => Metric::RttLoaded,
        }
    }

    /// How it shares the time: seconds at full length.
    fn weight(self) -> f64 {
        match self {
            Self::Tcp1 => 6.0,
            Self::Tcp4 => 4.0,
            Self::UdpLarge | Self::UdpSmall | Self::UdpTrains => 10.0,
            Self::RttIdle => 2.0,
            Self::RttLoaded => 5.0,
        }
    }

    /// What it takes beside that: the tunnel is looked at, streams leave slow start, late answers come in.
    fn overhead(self) -> Duration {
        let beside = match self {
            Self::Tcp1 | Self::Tcp4 => 700,
            Self::UdpLarge | Self::UdpSmall | Self::UdpTrains => 100,
            Self::RttIdle => 200,
            Self::RttLoaded => 900,
        };
        SETTLE + Duration::from_millis(beside)
    }

    /// Whether a target rests on it. The best peer of all has always been one of four.
    fn decides(self, mode: Mode, program: Program) -> bool {
        use Program::{
            Boringtun, Forwarder, ForwarderSealed, Gotatun, Lockgate, LockgateEsp, StrongSwan,
            WireguardGo,
        };
        let is_fast_peer = matches!(program, StrongSwan | WireguardGo | Boringtun | Gotatun);
        let is_measure = matches!(program, Forwarder | ForwarderSealed);
        match (mode, self) {
            (Mode::AsIs, Self::Tcp1) => {
                is_measure || matches!(program, Lockgate | LockgateEsp | StrongSwan | WireguardGo)
            }
            (Mode::Wire, Self::Tcp1) => is_measure || matches!(program, Lockgate | WireguardGo),
            (Mode::AsIs, Self::Tcp4) => program == Lockgate,
            (Mode::AsIs, Self::UdpTrains) => matches!(program, Lockgate | ForwarderSealed),
            (Mode::AsIs, Self::UdpLarge | Self::UdpSmall | Self::RttIdle) => {
                is_fast_peer || is_measure || program == Lockgate
            }
            (Mode::AsIs, Self::RttLoaded) => is_fast_peer || program == Lockgate,
            (Mode::Wire, _) => false,
        }
    }

    /// Of the wire mode only what crosses the link in trains is of interest.
    fn runs_in(self, mode: Mode) -> bool {
        mode == Mode::AsIs || matches!(self, Self::Tcp1 | Self::RttLoaded)
    }
}

/// One measurement to make: all programs come to their turn before the next begins.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Step {
    pub(crate) mode: Mode,
    pub(crate) job: Job,
    pub(crate) time: Duration,
}

impl Step {
    /// Whether a program has its turn in this round, the first of which is 1: where a target rests on it in
    /// each, otherwise in every third.
    pub(crate) fn is_due(self, program: Program, round: u32) -> bool {
        round % SELDOM == 1 || self.job.decides(self.mode, program)
    }

    /// How often a program has its turn.
    fn turns(self, program: Program, rounds: u32) -> u32 {
        if self.job.decides(self.mode, program) {
            rounds
        } else {
            rounds.div_ceil(SELDOM)
        }
    }
}

/// The whole run.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) rounds: u32,
    pub(crate) programs: Vec<Program>,
    pub(crate) steps: Vec<Step>,
    scale: f64,
}

impl Plan {
    /// A plan that takes about `minutes`, with more rounds rather than longer ones.
    pub(crate) fn new(
        minutes: f64,
        rounds: Option<u32>,
        programs: Vec<Program>,
        jobs: &[Job],
        modes: &[Mode],
    ) -> Result<Self> {
        let pairs = modes
            .iter()
            .flat_map(|mode| jobs.iter().map(|job| (*mode, *job)))
            .filter(|(mode, job)| job.runs_in(*mode));
        let full = |(mode, job): (Mode, Job)| Step {
            mode,
            job,
            time: Duration::from_secs_f64(job.weight()),
        };
        let mut plan = Self {
            rounds: 1,
            programs,
            steps: pairs.map(full).collect(),
            scale: 1.0,
        };
        if plan.steps.is_empty() || plan.programs.is_empty() {
            bail!("there is nothing to measure");
        }
        // More rounds tell more than longer ones, as long as each is long enough.
        let fits = |rounds: &u32| plan.scale_for(minutes, *rounds) >= COMFORTABLE;
        plan.rounds = rounds
            .unwrap_or_else(|| (1..=9).rev().find(fits).unwrap_or(1))
            .max(1);
        let scale = plan.scale_for(minutes, plan.rounds).min(LONGEST);
        if scale < SHORTEST {
            plan.stretch(SHORTEST);
            bail!(
                "{} rounds of {} programs need at least {:.0} minutes; give more time, or fewer of them",
                plan.rounds,
                plan.programs.len(),
                (plan.duration().as_secs_f64() / 60.0).ceil()
            );
        }
        plan.stretch(scale);
        Ok(plan)
    }

    /// The factor by which times at full length are stretched to fill `minutes` with so many rounds.
    fn scale_for(&self, minutes: f64, rounds: u32) -> f64 {
        let (mut times, mut overhead) = (0.0, START.as_secs_f64() * self.programs.len() as f64);
        for step in &self.steps {
            for program in &self.programs {
                let turns = f64::from(step.turns(*program, rounds));
                times += turns * step.job.weight();
                overhead += turns * step.job.overhead().as_secs_f64();
            }
        }
        (minutes * 60.0 - overhead) / times
    }

    fn stretch(&mut self, scale: f64) {
        self.scale = scale;
        for step in &mut self.steps {
            step.time = Duration::from_secs_f64(step.job.weight() * scale);
        }
    }

    /// One round of the shortest measurements.
    pub(crate) fn quick(programs: Vec<Program>, jobs: &[Job], modes: &[Mode]) -> Result<Self> {
        let mut plan = Self::new(1e4, Some(1), programs, jobs, modes)?;
        plan.stretch(QUICK);
        Ok(plan)
    }

    /// How long it takes if all goes well.
    pub(crate) fn duration(&self) -> Duration {
        let mut whole = START * u32::try_from(self.programs.len()).unwrap_or(u32::MAX);
        for step in &self.steps {
            for program in &self.programs {
                whole += (step.time + step.job.overhead()) * step.turns(*program, self.rounds);
            }
        }
        whole
    }

    /// What is going to happen, in one line.
    pub(crate) fn summary(&self) -> String {
        let time = |job: Job| job.weight() * self.scale;
        format!(
            "{} {} of {} programs, {} measurements each, interleaved, of which those that no target rests on \
             come in every third round; a TCP stream for {:.1} s, a search for the highest UDP rate for about \
             {:.0} s",
            self.rounds,
            if self.rounds == 1 { "round" } else { "rounds" },
            self.programs.len(),
            self.steps.len(),
            time(Job::Tcp1),
            time(Job::UdpLarge),
        )
    }
}

/// Acknowledgements of the measurement before are gone by then.
pub(crate) const SETTLE: Duration = Duration::from_millis(300);
/// Starting one program.
const START: Duration = Duration::from_millis(2500);
/// Rounds of which one has the measurements that no target rests on.
const SELDOM: u32 = 3;
/// Bounds of the factor by which all times are stretched.
const QUICK: f64 = 0.2;
const SHORTEST: f64 = 0.15;
const COMFORTABLE: f64 = 0.9;
const LONGEST: f64 = 5.0;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        machine::Disturbance,
        results::{Results, Sample},
        targets::judge,
    };

    fn plan(minutes: f64, rounds: Option<u32>) -> Result<Plan> {
        let modes = [Mode::AsIs, Mode::Wire];
        Plan::new(minutes, rounds, Program::ALL.to_vec(), &Job::ALL, &modes)
    }

    #[test]
    fn a_plan_takes_the_time_it_was_given() {
        for minutes in [15.0, 20.0, 60.0] {
            let plan = plan(minutes, None).expect("enough time");
            let took = plan.duration().as_secs_f64() / 60.0;
            assert!((took - minutes).abs() < 0.1, "{took} of {minutes}");
        }
    }

    /// What `perf/compare` does by itself.
    #[test]
    fn a_run_of_the_default_length_decides_every_target_by_three_rounds() {
        let mut programs = Program::ALL.to_vec();
        programs.retain(|program| *program != Program::ForwarderPlain);
        let modes = [Mode::AsIs, Mode::Wire];
        let plan = Plan::new(25.0, None, programs, &Job::ALL, &modes).expect("enough time");
        let mut results = Results::default();
        for round in 1..=plan.rounds {
            for step in &plan.steps {
                let due = plan.programs.iter().copied();
                for program in due.filter(|program| step.is_due(*program, round)) {
                    let also = match step.job {
                        Job::Tcp1 => vec![Metric::CpuPerGigabit, Metric::CallsPerPacket],
                        _ => Vec::new(),
                    };
                    for metric in also.into_iter().chain([step.job.metric()]) {
                        // The best peers are those that it counts upon.
                        let is_old = matches!(program, Program::WireguardGo2022 | Program::OpenVpn);
                        let worse = is_old && metric.more_is_better();
                        let value = if worse { 1.0 } else { 2.0 };
                        results.samples.push(Sample {
                            round,
                            mode: step.mode,
                            program,
                            metric,
                            reading: value.into(),
                            disturbance: Disturbance::default(),
                        });
                    }
                }
            }
        }
        for verdict in judge(&results) {
            let of_start = verdict.text.starts_with("memory");
            assert!(verdict.rounds >= 3 || of_start, "{}", verdict.text);
        }
        let search = plan.steps.iter().find(|step| step.job == Job::UdpLarge);
        assert!(search.is_some_and(|step| step.time > Duration::from_secs(9)));
    }

    #[test]
    fn what_no_target_rests_on_is_measured_in_every_third_round() {
        let plan = plan(40.0, Some(7)).expect("enough time");
        let of = |program, job| {
            let step = plan.steps.iter().find(|step| step.job == job);
            let step = *step.expect("every job is planned");
            let due = (1..=7).filter(|round| step.is_due(program, *round)).count();
            assert_eq!(due as u32, step.turns(program, 7));
            due
        };
        assert_eq!(of(Program::Lockgate, Job::Tcp4), 7);
        assert_eq!(of(Program::OpenVpn, Job::Tcp4), 3);
    }

    #[test]
    fn more_time_gives_more_rounds_before_it_gives_longer_ones() {
        let rounds = |minutes| plan(minutes, None).expect("enough time").rounds;
        assert!(rounds(60.0) > rounds(20.0));
        assert!(plan(20.0, Some(5)).is_ok_and(|plan| plan.rounds == 5));
    }

    #[test]
    fn a_time_that_is_too_short_is_refused() {
        let error = plan(2.0, Some(5)).expect_err("too short").to_string();
        assert!(error.contains("need at least"), "{error}");
    }

    #[test]
    fn the_wire_mode_leaves_out_what_it_does_not_change() {
        let plan = plan(20.0, None).expect("enough time");
        let wire = plan.steps.iter().filter(|step| step.mode == Mode::Wire);
        assert_eq!(wire.count(), 2);
    }
}
