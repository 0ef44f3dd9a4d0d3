//! What was measured, kept as it came, and what follows from it.

use std::{collections::BTreeMap, fs, path::Path};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::{machine::Machine, plan::Step, program::Program, tunnel::Mode};

/// One quantity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Metric {
    Tcp1,
    Tcp4,
    CpuPerGigabit,
    UdpLarge,
    UdpSmall,
    UdpTrains,
    RttIdle,
    RttLoaded,
    Memory,
    CallsPerPacket,
}

impl Metric {
    pub(crate) const ALL: [Self; 10] = [
        Self::Tcp1,
        Self::CpuPerGigabit,
        Self::Tcp4,
        Self::UdpLarge,
        Self::UdpSmall,
        Self::UdpTrains,
        Self::RttIdle,
        Self::RttLoaded,
        Self::Memory,
        Self::CallsPerPacket,
    ];

    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::Tcp1 => "TCP, 1 stream",
            Self::Tcp4 => "TCP, 4 streams",
            Self::CpuPerGigabit => "Gateways' processor time per gigabit, TCP 1 stream",
            Self::UdpLarge => "UDP, 1372 bytes, at most 0.1 % lost",
            Self::UdpSmall => "UDP, 200 bytes, at most 0.1 % lost",
            Self::UdpTrains => "UDP, 1372 bytes in super-packets, at most 0.1 % lost",
            Self::RttIdle => "Round trip, idle, median",
            Self::RttLoaded => "Round trip beside one TCP stream, 99th percentile",
            Self::Memory => "Resident memory of one gateway, idle",
            Self::CallsPerPacket => "System calls per packet, TCP 1 stream",
        }
    }

    /// A column heading.
    pub(crate) fn short(self) -> &'static str {
        match self {
            Self::Tcp1 => "TCP 1 Gbit/s",
            Self::Tcp4 => "TCP 4 Gbit/s",
            Self::CpuPerGigabit => "CPU s/Gbit",
            Self::UdpLarge => "UDP 1372 kpps",
            Self::UdpSmall => "UDP 200 kpps",
            Self::UdpTrains => "UDP GSO kpps",
            Self::RttIdle => "RTT p50 µs",
            Self::RttLoaded => "loaded p99 ms",
            Self::Memory => "RSS MiB",
            Self::CallsPerPacket => "calls/packet",
        }
    }

    pub(crate) fn unit(self) -> &'static str {
        match self {
            Self::Tcp1 | Self::Tcp4 => "Gbit/s",
            Self::CpuPerGigabit => "s/Gbit",
            Self::UdpLarge | Self::UdpSmall | Self::UdpTrains => "kpps",
            Self::RttIdle => "µs",
            Self::RttLoaded => "ms",
            Self::Memory => "MiB",
            Self::CallsPerPacket => "calls",
        }
    }

    /// Whether more of it is better.
    pub(crate) fn more_is_better(self) -> bool {
        matches!(
            self,
            Self::Tcp1 | Self::Tcp4 | Self::UdpLarge | Self::UdpSmall | Self::UdpTrains
        )
    }
}

/// One measurement.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Sample {
    pub(crate) round: u32,
    pub(crate) mode: Mode,
    pub(crate) program: Program,
    pub(crate) metric: Metric,
    pub(crate) value: f64,
    /// Share of the machine's processor time that went to others than this virtual machine meanwhile.
    pub(crate) stolen: f64,
}

/// Everything about one run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Results {
    /// The revision of Lockgate.
    pub(crate) revision: String,
    pub(crate) started: String,
    pub(crate) machine: Machine,
    pub(crate) plan: String,
    /// What each program says about its version.
    pub(crate) versions: BTreeMap<Program, String>,
    pub(crate) rounds: u32,
    pub(crate) samples: Vec<Sample>,
    /// What could not be measured, and why.
    pub(crate) failures: Vec<String>,
}

/// Median, least and greatest of some values.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) min: f64,
    pub(crate) max: f64,
}

impl Spread {
    /// `None` of no values.
    pub(crate) fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut values: Vec<f64> = values.into_iter().filter(|v| v.is_finite()).collect();
        values.sort_by(f64::total_cmp);
        let (min, max) = (*values.first()?, *values.last()?);
        let upper = *values.get(values.len() / 2)?;
        let lower = *values.get((values.len() - 1) / 2)?;
        Some(Self {
            median: f64::midpoint(lower, upper),
            min,
            max,
        })
    }
}

impl Results {
    /// The values of one program by round.
    pub(crate) fn series(
        &self,
        program: Program,
        mode: Mode,
        metric: Metric,
    ) -> BTreeMap<u32, f64> {
        let wanted = (program, mode, metric);
        let samples = self.samples.iter();
        samples
            .filter(|sample| (sample.program, sample.mode, sample.metric) == wanted)
            .map(|sample| (sample.round, sample.value))
            .collect()
    }

    pub(crate) fn spread(&self, program: Program, mode: Mode, metric: Metric) -> Option<Spread> {
        Spread::of(self.series(program, mode, metric).into_values())
    }

    pub(crate) fn median(&self, program: Program, mode: Mode, metric: Metric) -> Option<f64> {
        self.spread(program, mode, metric)
            .map(|spread| spread.median)
    }

    /// What this step gave in the round before.
    pub(crate) fn latest(&self, program: Program, step: Step) -> Option<f64> {
        let metric = step.job.metric();
        let series = self.series(program, step.mode, metric);
        series.into_values().next_back()
    }

    /// The ratio of two quantities, formed round by round.
    pub(crate) fn ratio(
        &self,
        over: (Program, Mode, Metric),
        under: (Program, Mode, Metric),
    ) -> Option<Spread> {
        let upper = self.series(over.0, over.1, over.2);
        let lower = self.series(under.0, under.1, under.2);
        let ratios = upper
            .iter()
            .filter_map(|(round, value)| Some(value / lower.get(round)?));
        Spread::of(ratios)
    }

    /// The peer with the best median.
    pub(crate) fn best_peer(&self, mode: Mode, metric: Metric) -> Option<Program> {
        let medians = Program::PEERS
            .into_iter()
            .filter_map(|peer| Some((peer, self.median(peer, mode, metric)?)));
        let best = if metric.more_is_better() {
            medians.max_by(|a, b| a.1.total_cmp(&b.1))
        } else {
            medians.min_by(|a, b| a.1.total_cmp(&b.1))
        };
        best.map(|(peer, _)| peer)
    }

    /// The programs that were measured, in their usual order.
    pub(crate) fn programs(&self) -> Vec<Program> {
        let measured = |program: &Program| {
            let mut samples = self.samples.iter();
            samples.any(|sample| sample.program == *program)
        };
        Program::ALL.into_iter().filter(measured).collect()
    }

    /// The quantities that were measured in a mode.
    pub(crate) fn metrics(&self, mode: Mode) -> Vec<Metric> {
        let measured = |metric: &Metric| {
            let mut samples = self.samples.iter();
            samples.any(|sample| sample.metric == *metric && sample.mode == mode)
        };
        Metric::ALL.into_iter().filter(measured).collect()
    }

    /// The greatest share of stolen time that any measurement met.
    pub(crate) fn worst_steal(&self) -> f64 {
        let stolen = self.samples.iter().map(|sample| sample.stolen);
        stolen.fold(0.0, f64::max)
    }

    /// Replaces the file at `path` by these results, whole or not at all.
    pub(crate) fn save(&self, path: &Path) -> Result<()> {
        let temporary = path.with_extension("partial");
        fs::write(&temporary, serde_json::to_vec_pretty(self)?)?;
        fs::rename(&temporary, path).with_context(|| format!("cannot write {}", path.display()))
    }

    pub(crate) fn load(path: &Path) -> Result<Self> {
        let text = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
        serde_json::from_slice(&text).with_context(|| format!("{} is not ours", path.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_of_an_even_number_lies_between_the_two_in_the_middle() {
        let spread = Spread::of([4.0, 1.0, 3.0, 2.0]).expect("four values");
        assert_eq!((spread.median, spread.min, spread.max), (2.5, 1.0, 4.0));
        assert_eq!(Spread::of([]), None);
    }

    fn results(values: &[(u32, Program, f64)]) -> Results {
        let sample = |&(round, program, value)| Sample {
            round,
            mode: Mode::AsIs,
            program,
            metric: Metric::Tcp1,
            value,
            stolen: 0.0,
        };
        Results {
            revision: String::new(),
            started: String::new(),
            machine: Machine::default(),
            plan: String::new(),
            versions: BTreeMap::new(),
            rounds: 0,
            samples: values.iter().map(sample).collect(),
            failures: Vec::new(),
        }
    }

    #[test]
    fn a_ratio_compares_only_rounds_that_both_have() {
        let results = results(&[
            (1, Program::Lockgate, 6.0),
            (2, Program::Lockgate, 8.0),
            (3, Program::Lockgate, 100.0),
            (1, Program::WireguardGo, 2.0),
            (2, Program::WireguardGo, 2.0),
            (2, Program::StrongSwan, 0.5),
        ]);
        let of = |program| (program, Mode::AsIs, Metric::Tcp1);
        let ratio = results.ratio(of(Program::Lockgate), of(Program::WireguardGo));
        let expected = Spread {
            median: 3.5,
            min: 3.0,
            max: 4.0,
        };
        assert_eq!(ratio, Some(expected));
        let best = results.best_peer(Mode::AsIs, Metric::Tcp1);
        assert_eq!(best, Some(Program::WireguardGo));
    }
}
