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

    /// How it shares the time: seconds in a run of full length.
    fn weight(self) -> f64 {
        match self {
            Self::Tcp1 => 6.0,
            Self::Tcp4 => 4.0,
            Self::UdpLarge | Self::UdpSmall | Self::UdpTrains => 7.0,
            Self::RttIdle => 2.0,
            Self::RttLoaded => 5.0,
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

/// The whole run.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) rounds: u32,
    pub(crate) programs: Vec<Program>,
    pub(crate) steps: Vec<Step>,
    scale: f64,
}

impl Plan {
    /// A plan that takes about `minutes`, with at least half a second for each measurement.
    pub(crate) fn new(
        minutes: f64,
        rounds: Option<u32>,
        programs: Vec<Program>,
        jobs: &[Job],
        modes: &[Mode],
    ) -> Result<Self> {
        let pairs: Vec<(Mode, Job)> = modes
            .iter()
            .flat_map(|mode| jobs.iter().map(|job| (*mode, *job)))
            .filter(|(mode, job)| job.runs_in(*mode))
            .collect();
        if pairs.is_empty() || programs.is_empty() {
            bail!("there is nothing to measure");
        }
        let many = programs.len() as f64;
        let weight: f64 = pairs.iter().map(|(_, job)| job.weight()).sum();
        let pauses = pairs.len() as f64 * PAUSE.as_secs_f64();
        let start = START.as_secs_f64() * many;
        let scale_of = |rounds: u32| {
            let turn = (minutes * 60.0 - start) / (f64::from(rounds) * many);
            (turn - pauses) / weight
        };
        // More rounds tell more than longer ones, as long as each is long enough.
        let fits = |rounds: &u32| scale_of(*rounds) >= COMFORTABLE;
        let rounds = rounds
            .unwrap_or_else(|| (1..=9).rev().find(fits).unwrap_or(1))
            .max(1);
        let scale = scale_of(rounds).min(LONGEST);
        if scale < SHORTEST {
            let needed = f64::from(rounds) * many * (pauses + weight * SHORTEST) + start;
            bail!(
                "{rounds} rounds of {} programs need at least {:.0} minutes; give more time, or fewer of them",
                programs.len(),
                (needed / 60.0).ceil()
            );
        }
        let step = |(mode, job): (Mode, Job)| Step {
            mode,
            job,
            time: Duration::from_secs_f64(job.weight() * scale),
        };
        Ok(Self {
            rounds,
            programs,
            steps: pairs.into_iter().map(step).collect(),
            scale,
        })
    }

    /// One round of the shortest measurements.
    pub(crate) fn quick(programs: Vec<Program>, jobs: &[Job], modes: &[Mode]) -> Result<Self> {
        let mut plan = Self::new(1e4, Some(1), programs, jobs, modes)?;
        for step in &mut plan.steps {
            step.time = step.time.mul_f64(QUICK / plan.scale);
        }
        plan.scale = QUICK;
        Ok(plan)
    }

    /// How long it takes if all goes well.
    pub(crate) fn duration(&self) -> Duration {
        let each: Duration = self.steps.iter().map(|step| step.time + PAUSE).sum();
        let programs = u32::try_from(self.programs.len()).unwrap_or(u32::MAX);
        each * programs * self.rounds + START * programs
    }

    /// What is going to happen, in one line.
    pub(crate) fn summary(&self) -> String {
        let time = |job: Job| job.weight() * self.scale;
        format!(
            "{} {} of {} programs, {} measurements each, interleaved; a TCP stream for {:.1} s, a search \
             for the highest UDP rate for {:.1} s",
            self.rounds,
            if self.rounds == 1 { "round" } else { "rounds" },
            self.programs.len(),
            self.steps.len(),
            time(Job::Tcp1),
            time(Job::UdpLarge),
        )
    }
}

/// Before each measurement: the tunnel is looked at, queues run empty.
const PAUSE: Duration = Duration::from_millis(700);
/// Starting one program.
const START: Duration = Duration::from_millis(2500);
/// Bounds of the factor by which all times are stretched.
const QUICK: f64 = 0.2;
const SHORTEST: f64 = 0.15;
const COMFORTABLE: f64 = 0.5;
const LONGEST: f64 = 5.0;

#[cfg(test)]
mod tests {
    use super::*;

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
