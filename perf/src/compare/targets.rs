//! What Lockgate wants to reach, as ratios within one run.

use crate::{
    program::Program::{self, Forwarder, Lockgate, LockgateEsp, StrongSwan, WireguardGo},
    results::{Metric, Results, Spread},
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
    /// Absent if something it needs was not measured.
    pub(crate) value: Option<Spread>,
}

impl Verdict {
    /// Whether the median is within the bound.
    pub(crate) fn passed(&self) -> Option<bool> {
        self.value.map(|value| self.bound.holds(value.median))
    }

    pub(crate) fn word(&self) -> &'static str {
        match self.passed() {
            Some(true) => "reached",
            Some(false) => "missed",
            None => "not measured",
        }
    }
}

/// Every target that a run can decide.
pub(crate) fn judge(results: &Results) -> Vec<Verdict> {
    let mut verdicts = throughput(results);
    verdicts.extend(datagrams(results));
    verdicts.extend(latency(results));
    let bound = Bound::AtMost(40.0);
    verdicts.push(Verdict {
        text: "memory of a gateway with its workers idle, MiB".to_owned(),
        bound,
        value: results.spread(Lockgate, AsIs, Metric::Memory),
    });
    verdicts.push(Verdict {
        text: "system calls per packet in bulk TCP".to_owned(),
        bound: Bound::AtMost(0.1),
        value: results.spread(Lockgate, AsIs, Metric::CallsPerPacket),
    });
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
        Verdict {
            text: "TCP 4 streams, to 1 stream".to_owned(),
            bound: AtLeast(1.0),
            value: results.ratio((Lockgate, AsIs, Tcp4), (Lockgate, AsIs, Tcp1)),
        },
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
    verdicts.push(Verdict {
        text: "UDP as super-packets, to single datagrams".to_owned(),
        bound: Bound::AtLeast(3.0),
        value: results.ratio(
            (Lockgate, AsIs, Metric::UdpTrains),
            (Lockgate, AsIs, Metric::UdpLarge),
        ),
    });
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
    Verdict {
        text: format!("{text}, to {}", theirs.0.title()),
        bound,
        value: results.ratio(ours, theirs),
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
        None => Verdict {
            text: format!("{text}, to the best peer"),
            bound,
            value: None,
        },
    }
}
