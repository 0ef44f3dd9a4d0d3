//! The search for the highest rate that arrives almost whole.

use std::{io, time::Duration};

use super::udp::UdpTrial;

/// What is searched, and how thoroughly.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sweep {
    /// Loss that still passes, 0 to 1. RFC 2544 §26.1 asks for none; a machine shared with others
    /// wants some.
    pub loss: f64,
    /// Where to look, datagrams per second.
    pub lowest: f64,
    /// Where to look, datagrams per second.
    pub highest: f64,
    /// Where to begin.
    pub first: f64,
    /// Ratio of the bounds at which the search ends, for example 1.03.
    pub precision: f64,
    /// Length of a trial.
    pub trial: Duration,
    /// Trials that confirm what was found; most of them have to pass.
    pub confirmations: u32,
}

impl Default for Sweep {
    fn default() -> Self {
        Self {
            loss: 0.001,
            lowest: 1_000.0,
            highest: 4_000_000.0,
            first: 50_000.0,
            precision: 1.04,
            trial: Duration::from_secs(1),
            confirmations: 3,
        }
    }
}

/// What a [`Sweep`] found.
#[derive(Clone, Debug)]
pub struct Found {
    /// Datagrams received per second, the median of the confirming trials; 0 if none passed.
    pub rate: f64,
    /// All trials in their order: rate offered, share lost.
    pub trials: Vec<(f64, f64)>,
    /// Whether the sender, not the path, was what ended the search.
    pub sender_limited: bool,
}

impl Sweep {
    /// Searches with `trial`, which offers a rate for a time: bounds by doubling and halving, then
    /// bisection, then confirmation. A near miss is tried twice, as one hiccup of the machine is
    /// enough to lose more than the limit.
    pub fn search(
        &self,
        trial: impl FnMut(f64, Duration) -> io::Result<UdpTrial>,
    ) -> io::Result<Found> {
        let mut search = Search {
            sweep: *self,
            trial,
            trials: Vec::new(),
            limited: false,
        };
        let (mut low, mut high) = search.bounds()?;
        while high / low > self.precision {
            let middle = (low * high).sqrt();
            if search.passes(middle)? {
                low = middle;
            } else {
                high = middle;
            }
        }
        let rate = loop {
            let (confirmed, rate) = search.confirm(low)?;
            if confirmed || low <= self.lowest {
                break if confirmed { rate } else { 0.0 };
            }
            low = (low / self.precision).max(self.lowest);
        };
        Ok(Found {
            rate,
            sender_limited: search.limited,
            trials: search.trials,
        })
    }
}

#[derive(Debug)]
struct Search<F> {
    sweep: Sweep,
    trial: F,
    trials: Vec<(f64, f64)>,
    limited: bool,
}

impl<F: FnMut(f64, Duration) -> io::Result<UdpTrial>> Search<F> {
    /// A rate that passes, or the lowest, and one that does not, or the highest.
    fn bounds(&mut self) -> io::Result<(f64, f64)> {
        let Sweep {
            lowest,
            highest,
            first,
            ..
        } = self.sweep;
        let mut low = first.clamp(lowest, highest);
        if self.passes(low)? {
            while low < highest {
                let next = (low * STEP).min(highest);
                if !self.passes(next)? {
                    return Ok((low, next));
                }
                low = next;
            }
            return Ok((highest, highest));
        }
        let mut high = low;
        while high > lowest {
            low = (high / STEP).max(lowest);
            if self.passes(low)? {
                return Ok((low, high));
            }
            high = low;
        }
        Ok((lowest, lowest))
    }

    fn passes(&mut self, rate: f64) -> io::Result<bool> {
        let (first, near) = self.run(rate).map(|(trial, passed)| {
            let near = trial.loss() < self.sweep.loss + NEAR && !trial.sender_limited;
            (passed, near)
        })?;
        if first || !near {
            return Ok(first);
        }
        Ok(self.run(rate)?.1)
    }

    /// One trial, and whether it passed.
    fn run(&mut self, rate: f64) -> io::Result<(UdpTrial, bool)> {
        let trial = (self.trial)(rate, self.sweep.trial)?;
        self.trials.push((rate, trial.loss()));
        let arrived = trial.received > 0 && trial.loss() <= self.sweep.loss;
        if arrived && trial.sender_limited {
            self.limited = true;
        }
        let passed = arrived && !trial.sender_limited;
        Ok((trial, passed))
    }

    /// Whether most of the confirming trials pass, and the median rate of those that did.
    fn confirm(&mut self, rate: f64) -> io::Result<(bool, f64)> {
        let mut rates = Vec::new();
        let (mut failed, needed) = (0, self.sweep.confirmations / 2 + 1);
        while (rates.len() as u64) < u64::from(self.sweep.confirmations) {
            let (trial, passed) = self.run(rate)?;
            if passed {
                rates.push(trial.received_rate());
            } else {
                failed += 1;
            }
            if failed >= needed {
                return Ok((false, 0.0));
            }
        }
        rates.sort_by(f64::total_cmp);
        Ok((true, rates.get(rates.len() / 2).copied().unwrap_or(rate)))
    }
}

/// Between the rates tried while the bounds are sought.
const STEP: f64 = 1.6;
/// Loss beyond the limit up to which a trial is repeated.
const NEAR: f64 = 0.02;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::traffic::{stamp::histogram, whole};

    /// A path that carries `capacity` datagrams per second and not one more.
    fn path(capacity: f64, sender: f64) -> impl FnMut(f64, Duration) -> io::Result<UdpTrial> {
        move |rate, time| {
            let sent = rate.min(sender) * time.as_secs_f64();
            Ok(UdpTrial {
                sent: whole(sent),
                received: whole(sent.min(capacity * time.as_secs_f64())),
                duplicates: 0,
                reordered: 0,
                time,
                delay: histogram()?,
                sender_limited: rate > sender,
            })
        }
    }

    #[test]
    fn the_search_ends_just_below_what_the_path_carries() {
        for capacity in [2_000.0, 49_000.0, 51_000.0, 120_000.0, 3_500_000.0] {
            let found = Sweep::default()
                .search(path(capacity, 1e9))
                .unwrap_or_else(|e| panic!("{e}"));
            let ratio = found.rate / capacity;
            assert!(
                (0.95..=1.0015).contains(&ratio),
                "{capacity}: {}",
                found.rate
            );
            assert!(!found.sender_limited);
            assert!(found.trials.len() < 40, "{}", found.trials.len());
        }
    }

    #[test]
    fn a_sender_that_cannot_fill_the_path_is_named_as_the_limit() {
        let found = Sweep::default()
            .search(path(1e9, 80_000.0))
            .unwrap_or_else(|e| panic!("{e}"));
        assert!(found.sender_limited);
        assert!(
            (75_000.0..=80_000.0).contains(&found.rate),
            "{}",
            found.rate
        );
    }

    #[test]
    fn a_dead_path_ends_the_search_with_nothing() {
        let found = Sweep::default()
            .search(path(0.0, 1e9))
            .unwrap_or_else(|e| panic!("{e}"));
        assert!(found.rate.abs() < f64::EPSILON);
    }

    #[test]
    fn one_hiccup_does_not_lower_the_result() {
        let mut steady = path(100_000.0, 1e9);
        let mut trials = 0;
        let hiccup = |rate, time| {
            trials += 1;
            let mut trial = steady(rate, time)?;
            if trials % 4 == 0 {
                trial.received -= trial.sent / 200;
            }
            Ok(trial)
        };
        let found = Sweep::default()
            .search(hiccup)
            .unwrap_or_else(|e| panic!("{e}"));
        assert!(found.rate > 85_000.0, "{}", found.rate);
    }
}
