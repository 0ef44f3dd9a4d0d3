//! What was measured, kept as it came, and what follows from it.

use std::{collections::BTreeMap, fs, path::Path};

use anyhow::{Context, Result};
use lockgate::lab::report::figure;
use serde::{Deserialize, Serialize};

use crate::{
    machine::{Disturbance, HEAVY, Machine},
    plan::Step,
    program::Program,
    tunnel::Mode,
};

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
    #[serde(flatten)]
    pub(crate) reading: Reading,
    /// What disturbed it.
    #[serde(flatten)]
    pub(crate) disturbance: Disturbance,
}

/// What a measurement read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Reading {
    pub(crate) value: f64,
    /// The sender could offer no more, so that the value may be higher.
    #[serde(default)]
    pub(crate) sender_limited: bool,
    /// Probes without an answer, which count as slower than all others.
    #[serde(default)]
    pub(crate) lost: u64,
}

impl From<f64> for Reading {
    fn from(value: f64) -> Self {
        Self {
            value,
            ..Self::default()
        }
    }
}

impl std::fmt::Display for Reading {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let least = if self.sender_limited { AT_LEAST } else { "" };
        write!(f, "{least}{}", figure(self.value))
    }
}

/// Everything about one run.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
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

/// All rounds of one quantity of one program.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Summary {
    pub(crate) spread: Spread,
    /// In a round at least the sender was the limit, so that the median may be higher.
    pub(crate) sender_limited: bool,
    /// Probes without an answer in all rounds.
    pub(crate) lost: u64,
    /// Rounds in which much processor time went to other virtual machines.
    pub(crate) disturbed: usize,
}

impl Summary {
    /// The median, the least and the greatest with `to` between them, and what is to be known of them.
    pub(crate) fn text(&self, to: &str) -> String {
        let Spread { median, min, max } = self.spread;
        let least = if self.sender_limited { AT_LEAST } else { "" };
        let (median, min, max) = (figure(median), figure(min), figure(max));
        let mut text = format!("{least}{median} ({min}{to}{max})");
        if self.lost > 0 {
            text.push_str(&format!(", {} lost", self.lost));
        }
        if self.disturbed > 0 {
            text.push_str(" *");
        }
        text
    }
}

/// A ratio by rounds, where a round may tell only that it is higher or lower than its value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Ratio {
    pub(crate) spread: Spread,
    /// The median if whatever could be lower were as low as can be, and the other way round.
    pub(crate) lowest_median: f64,
    pub(crate) highest_median: f64,
    pub(crate) rounds: usize,
}

impl Ratio {
    /// Of the readings above and below the line, one pair for each round; `None` of no rounds.
    fn of(pairs: &[(Reading, Reading)]) -> Option<Self> {
        let each = |value: fn(f64, &(Reading, Reading)) -> f64| {
            let pairs = pairs.iter();
            Spread::of(pairs.map(|pair| value(pair.0.value / pair.1.value, pair)))
        };
        Some(Self {
            spread: each(|ratio, _| ratio)?,
            lowest_median: each(|ratio, pair| if pair.1.sender_limited { 0.0 } else { ratio })?
                .median,
            highest_median: each(|ratio, pair| {
                if pair.0.sender_limited {
                    f64::MAX
                } else {
                    ratio
                }
            })?
            .median,
            rounds: pairs.len(),
        })
    }

    /// As [`Summary::text`].
    pub(crate) fn text(&self, to: &str) -> String {
        let Spread { median, min, max } = self.spread;
        let sign = match (self.lowest_median < median, median < self.highest_median) {
            (false, false) => "",
            (false, true) => AT_LEAST,
            (true, false) => "≤\u{a0}",
            (true, true) => "≈\u{a0}",
        };
        let (median, min, max) = (figure(median), figure(min), figure(max));
        format!("{sign}{median} ({min}{to}{max})")
    }
}

const AT_LEAST: &str = "≥\u{a0}";

impl Results {
    /// The readings of one program by round.
    pub(crate) fn series(
        &self,
        program: Program,
        mode: Mode,
        metric: Metric,
    ) -> BTreeMap<u32, Reading> {
        let samples = self.samples_of(program, mode, metric);
        samples
            .map(|sample| (sample.round, sample.reading))
            .collect()
    }

    pub(crate) fn summary(&self, program: Program, mode: Mode, metric: Metric) -> Option<Summary> {
        let samples: Vec<&Sample> = self.samples_of(program, mode, metric).collect();
        let readings = || samples.iter().map(|sample| sample.reading);
        let heavy = samples.iter().filter(|one| one.disturbance.is_heavy());
        Some(Summary {
            spread: Spread::of(readings().map(|reading| reading.value))?,
            sender_limited: readings().any(|reading| reading.sender_limited),
            lost: readings().map(|reading| reading.lost).sum(),
            disturbed: heavy.count(),
        })
    }

    fn samples_of(
        &self,
        program: Program,
        mode: Mode,
        metric: Metric,
    ) -> impl Iterator<Item = &Sample> {
        let wanted = (program, mode, metric);
        let samples = self.samples.iter();
        samples.filter(move |sample| (sample.program, sample.mode, sample.metric) == wanted)
    }

    pub(crate) fn median(&self, program: Program, mode: Mode, metric: Metric) -> Option<f64> {
        let summary = self.summary(program, mode, metric);
        summary.map(|summary| summary.spread.median)
    }

    /// What this step gave in the round before.
    pub(crate) fn latest(&self, program: Program, step: Step) -> Option<f64> {
        let series = self.series(program, step.mode, step.job.metric());
        series
            .into_values()
            .next_back()
            .map(|reading| reading.value)
    }

    /// The ratio of two quantities, formed round by round.
    pub(crate) fn ratio(
        &self,
        over: (Program, Mode, Metric),
        under: (Program, Mode, Metric),
    ) -> Option<Ratio> {
        let upper = self.series(over.0, over.1, over.2);
        let lower = self.series(under.0, under.1, under.2);
        let pairs = upper
            .iter()
            .filter_map(|(round, reading)| Some((*reading, *lower.get(round)?)));
        Ratio::of(&pairs.collect::<Vec<_>>())
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
        let stolen = self.samples.iter().map(|sample| sample.disturbance.stolen);
        stolen.fold(0.0, f64::max)
    }

    /// What the signs in the tables mean, as far as these have them.
    pub(crate) fn legend(&self) -> Vec<String> {
        let has = |wanted: fn(&Sample) -> bool| self.samples.iter().any(wanted);
        let mut lines = Vec::new();
        if has(|sample| sample.reading.sender_limited) {
            lines.push(
                "≥: the sender could offer no more, so the tunnel may carry more; a target is reached or missed \
                 only if it would be so whatever that is"
                    .to_owned(),
            );
        }
        if has(|sample| sample.reading.lost > 0) {
            lines.push(
                "lost: probes without an answer, counted as slower than all others".to_owned(),
            );
        }
        if has(|sample| sample.disturbance.is_heavy()) {
            lines.push(format!(
                "*: in a round, more than {:.0} % of the processor time went to other virtual machines",
                HEAVY * 100.0
            ));
        }
        lines
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
        let sample = |&(round, program, value): &(u32, Program, f64)| Sample {
            round,
            mode: Mode::AsIs,
            program,
            metric: Metric::Tcp1,
            reading: value.into(),
            disturbance: Disturbance::default(),
        };
        Results {
            samples: values.iter().map(sample).collect(),
            ..Results::default()
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
        let ratio = ratio.expect("two rounds");
        assert_eq!(
            (ratio.text(" to "), ratio.rounds),
            ("3.50 (3.00 to 4.00)".to_owned(), 2)
        );
        let best = results.best_peer(Mode::AsIs, Metric::Tcp1);
        assert_eq!(best, Some(Program::WireguardGo));
    }

    #[test]
    fn what_the_sender_limited_is_a_bound_and_not_a_value() {
        let limited = |value| Reading {
            sender_limited: true,
            ..Reading::from(value)
        };
        let text = |pairs: &[_]| Ratio::of(pairs).expect("rounds").text("–");
        let (two, six) = (Reading::from(2.0), Reading::from(6.0));
        assert_eq!(text(&[(six, two)]), "3.00 (3.00–3.00)");
        assert_eq!(text(&[(limited(6.0), two)]), "≥\u{a0}3.00 (3.00–3.00)");
        assert_eq!(text(&[(six, limited(2.0))]), "≤\u{a0}3.00 (3.00–3.00)");
        assert_eq!(
            text(&[(limited(6.0), limited(2.0))]),
            "≈\u{a0}3.00 (3.00–3.00)"
        );
        // One round of three does not move the median beyond the others.
        let pairs = [(six, two), (limited(8.0), two), (six, two)];
        assert_eq!(text(&pairs), "3.00 (3.00–4.00)");
    }

    #[test]
    fn lost_probes_and_heavy_steal_are_told_beside_the_figure() {
        let mut results = results(&[(1, Program::Lockgate, 2.0), (2, Program::Lockgate, 4.0)]);
        let text = |results: &Results| {
            let summary = results.summary(Program::Lockgate, Mode::AsIs, Metric::Tcp1);
            summary.expect("two rounds").text("–")
        };
        assert_eq!(text(&results), "3.00 (2.00–4.00)");
        assert!(results.legend().is_empty());
        if let [first, second] = results.samples.as_mut_slice() {
            first.reading.lost = 3;
            second.reading.sender_limited = true;
            second.disturbance.stolen = 0.08;
        }
        assert_eq!(text(&results), "≥\u{a0}3.00 (2.00–4.00), 3 lost *");
        assert_eq!(results.legend().len(), 3);
    }

    #[test]
    fn results_from_before_a_field_was_added_are_read() {
        let text = r#"{"round": 1, "mode": "as-is", "program": "lockgate", "metric": "tcp1", "value": 2.5, "stolen": 0.01}"#;
        let sample: Sample = serde_json::from_str(text).expect("an earlier run");
        assert_eq!(sample.reading, Reading::from(2.5));
        let again = serde_json::to_value(sample).expect("plain values");
        assert_eq!(again["value"], 2.5);
        assert_eq!(again["stolen"], 0.01);
    }
}
