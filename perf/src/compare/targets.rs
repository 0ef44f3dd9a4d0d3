//! What Lockgate wants to reach, as ratios within one run.

use crate::{
    program::Program::{
        self, Forwarder, ForwarderSealed, Lockgate, LockgateEsp, StrongSwan, WireguardGo,
    },
    results::{Metric, Ratio, Results, Summary},
    tunnel::Mode::{self, AsIs, Wire},
};

/// A bound for one quantity or ratio.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Bound {
    AtLeast(f64),
    AtMost(f64),
}

impl Bound {
    fn holds(self, value: f64) -> bool {
        match self {
            Self::AtLeast(bound) => value >= bound,
            Self::AtMost(bound) => value <= bound,
        }
    }
}

impl std::fmt::Display for Bound {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::AtLeast(bound) => write!(f, "≥\u{a0}{}", short(*bound)),
            Self::AtMost(bound) => write!(f, "≤\u{a0}{}", short(*bound)),
        }
    }
}

fn short(value: f64) -> String {
    let text = format!("{value:.3}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// One line of the verdict.
#[derive(Clone, Debug)]
pub(crate) struct Verdict {
    pub(crate) text: String,
    pub(crate) bound: Bound,
    value: Option<Value>,
    /// What the cipher and the guard alone leave possible: the same ratio of [`ForwarderSealed`].
    limit: Option<Ratio>,
    /// How many rounds it rests on.
    pub(crate) rounds: usize,
}

#[derive(Clone, Copy, Debug)]
enum Value {
    Ratio(Ratio),
    Alone(Summary),
}

/// What a run says about a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Finding {
    Reached,
    Missed,
    /// The sender was the limit, and the tunnel may carry so much more that it would be the other way round.
    Undecided,
    /// Something that it needs was not measured.
    NotMeasured,
}

impl Verdict {
    fn of_ratio(text: String, bound: Bound, ratio: Option<Ratio>) -> Self {
        Self {
            text,
            bound,
            value: ratio.map(Value::Ratio),
            limit: None,
            rounds: ratio.map_or(0, |ratio| ratio.rounds),
        }
    }

    fn of_one(results: &Results, text: &str, bound: Bound, metric: Metric) -> Self {
        Self {
            text: text.to_owned(),
            bound,
            value: results.summary(Lockgate, AsIs, metric).map(Value::Alone),
            limit: None,
            rounds: results.series(Lockgate, AsIs, metric).len(),
        }
    }

    /// Whether the median is within the bound.
    pub(crate) fn finding(&self) -> Finding {
        let (low, high) = match self.value {
            None => return Finding::NotMeasured,
            Some(Value::Ratio(ratio)) => (ratio.lowest_median, ratio.highest_median),
            Some(Value::Alone(summary)) => (summary.spread.median, summary.spread.median),
        };
        match (self.bound.holds(low), self.bound.holds(high)) {
            (true, true) => Finding::Reached,
            (false, false) => Finding::Missed,
            _ => Finding::Undecided,
        }
    }

    pub(crate) fn word(&self) -> &'static str {
        match self.finding() {
            Finding::Reached => "reached",
            Finding::Missed => "missed",
            Finding::Undecided => "undecided",
            Finding::NotMeasured => "not measured",
        }
    }

    fn limited_by(self, limit: Option<Ratio>) -> Self {
        Self { limit, ..self }
    }

    /// What the cipher and the guard alone leave possible, as [`Self::figures`].
    pub(crate) fn limit(&self, to: &str) -> String {
        let text = |ratio: &Ratio| ratio.text(to);
        self.limit.as_ref().map_or("–".to_owned(), text)
    }

    /// The median (the least and the greatest), or a dash.
    pub(crate) fn figures(&self, to: &str) -> String {
        match self.value {
            Some(Value::Ratio(ratio)) => ratio.text(to),
            Some(Value::Alone(summary)) => summary.text(to),
            None => "–".to_owned(),
        }
    }
}

/// Every target that a run can decide.
pub(crate) fn judge(results: &Results) -> Vec<Verdict> {
    let mut verdicts = throughput(results);
    verdicts.extend(datagrams(results));
    verdicts.extend(latency(results));
    for (text, bound, metric) in [
        (
            "memory of a gateway with its workers idle, MiB",
            40.0,
            Metric::Memory,
        ),
        (
            "system calls per packet in bulk TCP",
            0.1,
            Metric::CallsPerPacket,
        ),
    ] {
        let bound = Bound::AtMost(bound);
        verdicts.push(Verdict::of_one(results, text, bound, metric));
    }
    verdicts
}

fn throughput(results: &Results) -> Vec<Verdict> {
    use Bound::{AtLeast, AtMost};
    use Metric::{CpuPerGigabit, Tcp1, Tcp4};
    let to = |text: &str, mode, metric, peer, bound| {
        against(
            results,
            text,
            (Lockgate, mode, metric),
            (peer, mode, metric),
            bound,
        )
    };
    vec![
        to("TCP 1 stream", AsIs, Tcp1, WireguardGo, AtLeast(3.0)),
        to("TCP 1 stream", AsIs, Tcp1, StrongSwan, AtLeast(10.0)),
        to("TCP 1 stream", AsIs, Tcp1, Forwarder, AtLeast(0.7)),
        to("TCP 1 stream, wire", Wire, Tcp1, WireguardGo, AtLeast(3.0)),
        to("TCP 1 stream, wire", Wire, Tcp1, Forwarder, AtLeast(0.8)),
        Verdict::of_ratio(
            "TCP 4 streams, to 1 stream".to_owned(),
            AtLeast(1.0),
            results.ratio((Lockgate, AsIs, Tcp4), (Lockgate, AsIs, Tcp1)),
        ),
        to(
            "processor time per gigabit",
            AsIs,
            CpuPerGigabit,
            WireguardGo,
            AtMost(1.0 / 3.0),
        ),
        to(
            "processor time per gigabit",
            AsIs,
            CpuPerGigabit,
            StrongSwan,
            AtMost(1.0 / 12.0),
        ),
        against(
            results,
            "raw protocol 50, TCP 1 stream",
            (LockgateEsp, AsIs, Tcp1),
            (StrongSwan, AsIs, Tcp1),
            AtLeast(3.0),
        ),
    ]
}

fn datagrams(results: &Results) -> Vec<Verdict> {
    let mut verdicts = Vec::new();
    for (text, metric) in [
        ("UDP 1372 B", Metric::UdpLarge),
        ("UDP 200 B", Metric::UdpSmall),
    ] {
        verdicts.push(to_best_peer(results, text, metric, Bound::AtLeast(1.4)));
        let ours = (Lockgate, AsIs, metric);
        let ceiling = (Forwarder, AsIs, metric);
        verdicts.push(against(results, text, ours, ceiling, Bound::AtLeast(0.95)));
    }
    let gain = |program| {
        let trains = (program, AsIs, Metric::UdpTrains);
        results.ratio(trains, (program, AsIs, Metric::UdpLarge))
    };
    let text = "UDP as super-packets, to single datagrams".to_owned();
    let verdict = Verdict::of_ratio(text, Bound::AtLeast(3.0), gain(Lockgate));
    verdicts.push(verdict.limited_by(gain(ForwarderSealed)));
    verdicts
}

fn latency(results: &Results) -> Vec<Verdict> {
    let idle = (Lockgate, AsIs, Metric::RttIdle);
    let ceiling = (Forwarder, AsIs, Metric::RttIdle);
    vec![
        to_best_peer(
            results,
            "RTT p50, idle",
            Metric::RttIdle,
            Bound::AtMost(1.0),
        ),
        against(results, "RTT p50, idle", idle, ceiling, Bound::AtMost(1.1)),
        to_best_peer(
            results,
            "RTT p99 beside TCP",
            Metric::RttLoaded,
            Bound::AtMost(0.5),
        ),
    ]
}

fn against(
    results: &Results,
    text: &str,
    ours: (Program, Mode, Metric),
    theirs: (Program, Mode, Metric),
    bound: Bound,
) -> Verdict {
    let text = format!("{text}, to {}", theirs.0.title());
    let verdict = Verdict::of_ratio(text, bound, results.ratio(ours, theirs));
    match ours {
        (Lockgate, mode, metric) => {
            verdict.limited_by(results.ratio((ForwarderSealed, mode, metric), theirs))
        }
        _ => verdict,
    }
}

fn to_best_peer(results: &Results, text: &str, metric: Metric, bound: Bound) -> Verdict {
    match results.best_peer(AsIs, metric) {
        Some(peer) => {
            let text = format!("{text}, to the best peer");
            let (ours, theirs) = ((Lockgate, AsIs, metric), (peer, AsIs, metric));
            let mut verdict = against(results, &text, ours, theirs, bound);
            verdict.text = format!("{text} ({})", peer.title());
            verdict
        }
        None => Verdict::of_ratio(format!("{text}, to the best peer"), bound, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::results::{Reading, Sample};

    fn found(ours: Reading, ceiling: Reading) -> Finding {
        let sample = |program, reading| Sample {
            round: 1,
            mode: AsIs,
            program,
            metric: Metric::UdpLarge,
            reading,
            disturbance: crate::machine::Disturbance::default(),
        };
        let results = Results {
            samples: vec![sample(Lockgate, ours), sample(Forwarder, ceiling)],
            ..Results::default()
        };
        let verdicts = judge(&results);
        let title = format!("UDP 1372 B, to {}", Forwarder.title());
        let verdict = verdicts.iter().find(|verdict| verdict.text == title);
        verdict.expect("a target").finding()
    }

    /// The bound is 0.95 of the forwarder.
    #[test]
    fn a_sender_at_its_limit_decides_no_target() {
        let limited = |value| Reading {
            sender_limited: true,
            ..Reading::from(value)
        };
        let plain = Reading::from;
        assert_eq!(found(plain(100.0), plain(100.0)), Finding::Reached);
        assert_eq!(found(plain(80.0), plain(100.0)), Finding::Missed);
        // More would only be better.
        assert_eq!(found(limited(100.0), plain(100.0)), Finding::Reached);
        assert_eq!(found(limited(80.0), plain(100.0)), Finding::Undecided);
        // A higher ceiling would only be worse.
        assert_eq!(found(plain(100.0), limited(100.0)), Finding::Undecided);
        assert_eq!(found(plain(80.0), limited(100.0)), Finding::Missed);
        assert_eq!(found(limited(100.0), limited(100.0)), Finding::Undecided);
    }
}
