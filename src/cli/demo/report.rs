//! What the demo found, for people and for programs.

use std::{collections::BTreeMap, fmt, time::Duration};

use serde::Serialize;

use super::{
    counters::{SaCounters, Snapshot, add_up},
    wiretap::Findings,
};
use crate::lab::{
    A, B,
    traffic::{RoundTrips, Transfer},
};

/// The whole result.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Report {
    ike_suite: String,
    esp_suite: String,
    handshake_ms: f64,
    a_to_b: Throughput,
    b_to_a: Throughput,
    round_trip_idle: Latency,
    round_trip_loaded: Latency,
    gateway_a: Gateway,
    gateway_b: Gateway,
    outer_link: OuterLink,
    checks: Vec<Check>,
    passed: bool,
}

#[derive(Clone, Debug, Serialize)]
struct Throughput {
    gbit_per_s: f64,
    bytes: u64,
}

#[derive(Clone, Debug, Serialize)]
struct Latency {
    p50_us: f64,
    p99_us: f64,
    p999_us: f64,
    answered: u64,
    lost: u64,
}

#[derive(Clone, Debug, Serialize)]
struct Gateway {
    sas: Vec<SaCounters>,
    drops: BTreeMap<String, u64>,
    lost_outside: u64,
    lost_inside: u64,
}

#[derive(Clone, Debug, Serialize)]
struct OuterLink {
    esp_packets_inspected: u64,
    packets_in_clear: u64,
}

/// Something that has to hold, and why it does not.
#[derive(Clone, Debug, Serialize)]
struct Check {
    name: &'static str,
    problem: Option<String>,
}

/// What the demo measured.
#[derive(Debug)]
pub(super) struct Measured {
    pub(super) handshake: Duration,
    pub(super) idle: RoundTrips,
    pub(super) loaded: RoundTrips,
    pub(super) a_to_b: Transfer,
    pub(super) b_to_a: Transfer,
    pub(super) at_a: Snapshot,
    pub(super) at_b: Snapshot,
    pub(super) wiretap: Findings,
}

impl Report {
    /// Judges what was measured.
    pub(super) fn new(measured: Measured) -> Self {
        let checks = checks(&measured);
        let Measured {
            handshake,
            idle,
            loaded,
            a_to_b,
            b_to_a,
            at_a,
            at_b,
            wiretap,
        } = measured;
        Self {
            passed: checks.iter().all(|check| check.problem.is_none()),
            checks,
            ike_suite: at_a.ike_suite.clone(),
            esp_suite: at_a.esp_suite.clone(),
            handshake_ms: handshake.as_secs_f64() * 1e3,
            a_to_b: a_to_b.into(),
            b_to_a: b_to_a.into(),
            round_trip_idle: (&idle).into(),
            round_trip_loaded: (&loaded).into(),
            gateway_a: at_a.into(),
            gateway_b: at_b.into(),
            outer_link: OuterLink {
                esp_packets_inspected: wiretap.esp_sampled,
                packets_in_clear: wiretap.clear,
            },
        }
    }

    /// Whether everything that has to hold does.
    pub(super) fn passed(&self) -> bool {
        self.passed
    }
}

fn checks(measured: &Measured) -> Vec<Check> {
    let Measured {
        a_to_b,
        b_to_a,
        at_a,
        at_b,
        wiretap,
        ..
    } = measured;
    let none_in_clear = match wiretap {
        Findings { clear: 1.., .. } => Err(format!("{} packets in clear", wiretap.clear)),
        Findings { unseen: 1.., .. } => Err(format!("{} frames went by unseen", wiretap.unseen)),
        Findings { esp_sampled: 0, .. } => Err("no ESP packet was seen at all".to_owned()),
        Findings { .. } => Ok(()),
    };
    let carried = |from: &Snapshot, transfer: &Transfer| {
        let counted: u64 = from.children.iter().map(|sa| sa.bytes_out).sum();
        if counted >= transfer.bytes && transfer.bytes > 0 {
            return Ok(());
        }
        let moved = transfer.bytes;
        Err(format!(
            "TCP moved {moved} bytes, the SAs counted {counted}"
        ))
    };
    [
        ("no inner packet in clear on the outer link", none_in_clear),
        (
            "the tunnel carried the transfer from A to B",
            carried(at_a, a_to_b),
        ),
        (
            "the tunnel carried the transfer from B to A",
            carried(at_b, b_to_a),
        ),
        (
            "the gateways' counters add up from A to B",
            add_up(at_a, at_b),
        ),
        (
            "the gateways' counters add up from B to A",
            add_up(at_b, at_a),
        ),
    ]
    .map(|(name, result)| Check {
        name,
        problem: result.err(),
    })
    .into()
}

impl From<Transfer> for Throughput {
    fn from(transfer: Transfer) -> Self {
        Self {
            gbit_per_s: transfer.gigabits_per_second(),
            bytes: transfer.bytes,
        }
    }
}

impl From<&RoundTrips> for Latency {
    fn from(trips: &RoundTrips) -> Self {
        let at = |share| Duration::from_nanos(trips.quantile(share)).as_secs_f64() * 1e6;
        Self {
            p50_us: at(0.5),
            p99_us: at(0.99),
            p999_us: at(0.999),
            answered: trips.histogram.len(),
            lost: trips.lost,
        }
    }
}

impl From<Snapshot> for Gateway {
    fn from(snapshot: Snapshot) -> Self {
        let Snapshot {
            children,
            drops,
            lost_outside,
            lost_inside,
            ..
        } = snapshot;
        Self {
            sas: children,
            drops,
            lost_outside,
            lost_inside,
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "IKE        {}", self.ike_suite)?;
        writeln!(f, "ESP        {}", self.esp_suite)?;
        writeln!(
            f,
            "handshake  {:.1} ms, IKE_SA_INIT and IKE_AUTH",
            self.handshake_ms
        )?;
        for (name, way) in [("A to B", &self.a_to_b), ("B to A", &self.b_to_a)] {
            writeln!(
                f,
                "{name}     {:.2} Gbit/s, {}",
                way.gbit_per_s,
                amount(way.bytes)
            )?;
        }
        let trips = [
            ("RTT idle", &self.round_trip_idle),
            ("RTT loaded", &self.round_trip_loaded),
        ];
        for (
            name,
            Latency {
                p50_us,
                p99_us,
                p999_us,
                answered,
                lost,
            },
        ) in trips
        {
            write!(
                f,
                "{name:<10} p50 {p50_us:.0} µs, p99 {p99_us:.0} µs, p99.9 {p999_us:.0} µs"
            )?;
            writeln!(f, "; {answered} answered, {lost} lost")?;
        }
        writeln!(f)?;
        writeln!(
            f,
            "SA         direction      packets           bytes   counted by"
        )?;
        for (side, gateway) in [(A, &self.gateway_a), (B, &self.gateway_b)] {
            let halves = gateway.sas.iter().flat_map(|sa| {
                [
                    (&sa.spi_out, "out", sa.packets_out, sa.bytes_out),
                    (&sa.spi_in, "in", sa.packets_in, sa.bytes_in),
                ]
            });
            for (spi, way, packets, bytes) in halves {
                writeln!(
                    f,
                    "{spi}   {way:<9} {packets:>12} {bytes:>15}   {}",
                    side.name
                )?;
            }
        }
        writeln!(f)?;
        for (side, gateway) in [(A, &self.gateway_a), (B, &self.gateway_b)] {
            writeln!(f, "drops at {}: {}", side.name, gateway.losses())?;
        }
        writeln!(f)?;
        for Check { name, problem } in &self.checks {
            match problem {
                None => writeln!(f, "ok      {name}")?,
                Some(problem) => writeln!(f, "FAILED  {name}: {problem}")?,
            }
        }
        Ok(())
    }
}

impl Gateway {
    fn losses(&self) -> String {
        let mut parts: Vec<String> = self
            .drops
            .iter()
            .map(|(reason, count)| format!("{reason} {count}"))
            .collect();
        for (place, count) in [
            ("full TUN or inner link", self.lost_inside),
            ("full socket or outer link", self.lost_outside),
        ] {
            if count > 0 {
                parts.push(format!("{place} {count}"));
            }
        }
        if parts.is_empty() {
            "none".to_owned()
        } else {
            parts.join(", ")
        }
    }
}

fn amount(bytes: u64) -> String {
    format!("{:.2} GB", bytes as f64 / 1e9)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use hdrhistogram::Histogram;

    use super::{Findings, Measured, Report, RoundTrips, SaCounters, Snapshot, Transfer};

    fn measured() -> Measured {
        let trips = RoundTrips {
            histogram: Histogram::new(3).unwrap(),
            lost: 0,
        };
        let transfer = Transfer {
            bytes: 1000,
            time: Duration::from_micros(1),
        };
        let child = SaCounters {
            bytes_in: 1500,
            bytes_out: 1500,
            ..SaCounters::default()
        };
        let snapshot = Snapshot {
            children: vec![child],
            ..Snapshot::default()
        };
        Measured {
            handshake: Duration::from_millis(3),
            idle: trips.clone(),
            loaded: trips,
            a_to_b: transfer,
            b_to_a: transfer,
            at_a: snapshot.clone(),
            at_b: snapshot,
            wiretap: Findings {
                esp_sampled: 1,
                clear: 0,
                unseen: 0,
            },
        }
    }

    #[test]
    fn a_report_passes_when_everything_holds() {
        let report = Report::new(measured());
        assert!(report.passed(), "{report}");
        assert!(report.to_string().contains("8.00 Gbit/s"), "{report}");
    }

    #[test]
    fn each_check_can_fail() {
        let spoil: [fn(&mut Measured); 7] = [
            |measured| measured.wiretap.clear = 1,
            |measured| measured.wiretap.unseen = 1,
            |measured| measured.wiretap.esp_sampled = 0,
            |measured| measured.a_to_b.bytes = 2000,
            |measured| measured.b_to_a.bytes = 0,
            |measured| measured.at_a.children[0].packets_in = 1,
            |measured| measured.at_b.children[0].spi_out = "c0ffee01".to_owned(),
        ];
        for (index, spoil) in spoil.into_iter().enumerate() {
            let mut measured = measured();
            spoil(&mut measured);
            let report = Report::new(measured);
            assert!(!report.passed(), "{index}: {report}");
            assert!(report.to_string().contains("FAILED"));
        }
    }
}
