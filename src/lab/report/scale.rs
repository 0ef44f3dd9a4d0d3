//! Where a value lies on an axis, and which values get a mark.

use super::{Axis, Scale};

/// An axis with the values that it has to show.
#[derive(Clone, Debug)]
pub(super) struct Placed {
    scale: Scale,
    low: f64,
    high: f64,
    /// The values with a mark.
    pub(super) ticks: Vec<f64>,
}

impl Placed {
    /// Fits an axis to values.
    pub(super) fn new(axis: &Axis, values: impl Iterator<Item = f64>) -> Self {
        let scale = axis.scale;
        let usable =
            values.filter(|value| value.is_finite() && (scale != Scale::Log || *value > 0.0));
        let (mut low, mut high) = usable
            .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), v| {
                (low.min(v), high.max(v))
            });
        if low > high {
            (low, high) = (1.0, 10.0);
        }
        let mut ticks = axis.ticks.clone();
        match scale {
            Scale::Linear => {
                low = low.min(0.0);
                if ticks.is_empty() {
                    ticks = even(low, high);
                }
                high = ticks.last().copied().unwrap_or(high).max(high);
            }
            Scale::Log => {
                if ticks.is_empty() {
                    ticks = decades(low, high);
                }
                low = ticks.first().copied().unwrap_or(low).min(low);
                high = ticks.last().copied().unwrap_or(high).max(high);
            }
            Scale::Percentile => {
                low = 0.0;
                high = high.min(99.9999);
                if ticks.is_empty() {
                    ticks = vec![50.0, 90.0, 99.0, 99.9, 99.99];
                }
                ticks.retain(|tick| *tick <= high);
            }
        }
        Self {
            scale,
            low,
            high,
            ticks,
        }
    }

    /// 0 at the low end, 1 at the high one.
    pub(super) fn place(&self, value: f64) -> f64 {
        let at = |value: f64| match self.scale {
            Scale::Linear => value,
            Scale::Log => value.max(f64::MIN_POSITIVE).ln(),
            Scale::Percentile => -(1.0 - value.min(99.9999) / 100.0).ln(),
        };
        let (low, high) = (at(self.low), at(self.high));
        if high <= low {
            return 0.5;
        }
        ((at(value) - low) / (high - low)).clamp(0.0, 1.0)
    }
}

/// About five round steps from `low` to beyond `high`.
fn even(low: f64, high: f64) -> Vec<f64> {
    let span = (high - low).max(f64::MIN_POSITIVE);
    let rough = span / 5.0;
    let power = 10_f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 2.5, 5.0, 10.0]
        .map(|factor| factor * power)
        .into_iter()
        .find(|step| *step >= rough * 0.999)
        .unwrap_or(power * 10.0);
    let count = (span / step).ceil().clamp(1.0, 10.0);
    (0..=10_u8)
        .map(f64::from)
        .filter(|number| *number <= count)
        .map(|number| low + number * step)
        .collect()
}

/// Powers of ten around the values, with 2 and 5 between where those are few.
fn decades(low: f64, high: f64) -> Vec<f64> {
    let (first, last) = (
        low.log10().floor(),
        high.log10().ceil().max(low.log10().floor() + 1.0),
    );
    let between: &[f64] = if last - first <= 2.0 {
        &[1.0, 2.0, 5.0]
    } else {
        &[1.0]
    };
    let mut ticks = Vec::new();
    let mut exponent = first;
    while exponent <= last {
        ticks.extend(between.iter().map(|factor| factor * 10_f64.powf(exponent)));
        exponent += 1.0;
    }
    // The marks next to the values, and those between.
    let from = ticks
        .iter()
        .rposition(|tick| *tick <= low * 1.0001)
        .unwrap_or(0);
    let to = ticks.iter().position(|tick| *tick >= high * 0.9999);
    let to = to.unwrap_or(ticks.len().saturating_sub(1));
    ticks.get(from..=to.max(from)).unwrap_or_default().to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn placed(scale: Scale, values: &[f64]) -> Placed {
        let axis = Axis {
            label: String::new(),
            scale,
            ticks: Vec::new(),
        };
        Placed::new(&axis, values.iter().copied())
    }

    fn close(a: &[f64], b: &[f64]) -> bool {
        a.len() == b.len() && a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-9)
    }

    #[test]
    fn marks_are_round_and_reach_around_the_values() {
        for (scale, values, ticks) in [
            (
                Scale::Linear,
                [3.0, 8.7],
                vec![0.0, 2.0, 4.0, 6.0, 8.0, 10.0],
            ),
            (Scale::Linear, [0.1, 0.4], vec![0.0, 0.1, 0.2, 0.3, 0.4]),
            (
                Scale::Log,
                [30.0, 700.0],
                vec![20.0, 50.0, 100.0, 200.0, 500.0, 1000.0],
            ),
            (
                Scale::Log,
                [1.0, 10_000.0],
                vec![1.0, 10.0, 100.0, 1000.0, 10_000.0],
            ),
            (Scale::Percentile, [0.0, 99.9], vec![50.0, 90.0, 99.0, 99.9]),
        ] {
            let axis = placed(scale, &values);
            assert!(close(&axis.ticks, &ticks), "{:?}", axis.ticks);
        }
    }

    #[test]
    fn every_value_lies_on_its_axis() {
        for scale in [Scale::Linear, Scale::Log, Scale::Percentile] {
            for values in [
                [0.0, 0.0],
                [1.0, 1.0],
                [f64::NAN, 5.0],
                [1e-9, 1e12],
                [-3.0, 4.0],
            ] {
                let axis = placed(scale, &values);
                for value in values {
                    let at = axis.place(value);
                    assert!(
                        value.is_nan() || (0.0..=1.0).contains(&at),
                        "{value} at {at}"
                    );
                }
            }
        }
        let percentiles = placed(Scale::Percentile, &[0.0, 99.99]);
        let [a, b, c] = [90.0, 99.0, 99.9].map(|p| percentiles.place(p));
        assert!((b - a - (c - b)).abs() < 1e-9);
    }
}
