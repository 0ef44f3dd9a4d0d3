//! The search for the highest rate that arrives almost whole.

use std::{io, time::Duration};

use super::udp::UdpTrial;

/// What is searched, and how thoroughly.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sweep {
    /// Loss that still passes, 0 to 1, over a whole trial. RFC 2544 §26.1 asks for none; a machine shared
    /// with others wants some.
    pub loss: f64,
    /// Where to look, datagrams per second.
    pub lowest: f64,
    /// Where to look, datagrams per second.
    pub highest: f64,
    /// Where to begin.
    pub first: f64,
    /// Ratio of the rates tried while the bounds are sought.
    pub step: f64,
    /// Ratio of neighbouring rates that are told apart, for example 1.03.
    pub precision: f64,
    /// Length of a trial.
    pub trial: Duration,
    /// Trials of a rate of which most have to pass.
    pub confirmations: u32,
}

impl Default for Sweep {
    fn default() -> Self {
        Self {
            loss: 0.001,
            lowest: 1_000.0,
            highest: 4_000_000.0,
            first: 50_000.0,
            step: 1.6,
            precision: 1.04,
            trial: Duration::from_secs(1),
            confirmations: 3,
        }
    }
}

/// What a [`Sweep`] found.
#[derive(Clone, Debug)]
pub struct Found {
    /// Datagrams received per second, the median of the confirming trials that passed; 0 if no rate was
    /// confirmed.
    pub rate: f64,
    /// All trials in their order: rate offered, share lost.
    pub trials: Vec<(f64, f64)>,
    /// Whether no higher rate could be offered, so that the path may carry more.
    pub sender_limited: bool,
}

impl Sweep {
    /// Searches with `trial`, which offers a rate for a time: bounds, bisection, and a walk to the highest
    /// rate that most of its trials pass while most of the next one's do not.
    ///
    /// One hiccup of the machine loses more than the limit. So a trial counts for nothing that would have
    /// passed without its worst 100 ms, `EXCUSED` times for each rate; what passes has kept the limit
    /// over its whole length.
    pub fn search(
        &self,
        trial: impl FnMut(f64, Duration) -> io::Result<UdpTrial>,
    ) -> io::Result<Found> {
        let mut search = Search {
            sweep: *self,
            trial,
            outcomes: Vec::new(),
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
        let settled = search.settle(low)?;
        let outcomes = search.outcomes.iter();
        Ok(Found {
            rate: settled.map_or(0.0, |(_, received)| received),
            sender_limited: settled.is_some_and(|(offered, _)| search.sender_ends_above(offered)),
            trials: outcomes.map(|one| (one.rate, one.loss)).collect(),
        })
    }
}

#[derive(Debug)]
struct Search<F> {
    sweep: Sweep,
    trial: F,
    outcomes: Vec<Outcome>,
}

/// One trial as the search sees it.
#[derive(Clone, Copy, Debug)]
struct Outcome {
    rate: f64,
    loss: f64,
    received: f64,
    verdict: Verdict,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Passed,
    /// It would have passed without its worst 100 ms.
    Hiccup,
    /// Everything arrived, but the sender fell behind.
    Limited,
    /// It lost a little too much.
    Near,
    Failed,
}

impl<F: FnMut(f64, Duration) -> io::Result<UdpTrial>> Search<F> {
    /// A rate that passes, or the lowest, and one that does not, or the highest.
    fn bounds(&mut self) -> io::Result<(f64, f64)> {
        let Sweep {
            lowest,
            highest,
            first,
            step,
            ..
        } = self.sweep;
        let mut low = first.clamp(lowest, highest);
        if self.passes(low)? {
            while low < highest {
                let next = (low * step).min(highest);
                if !self.passes(next)? {
                    return Ok((low, next));
                }
                low = next;
            }
            return Ok((highest, highest));
        }
        let mut high = low;
        while high > lowest {
            low = (high / step).max(lowest);
            if self.passes(low)? {
                return Ok((low, high));
            }
            high = low;
        }
        Ok((lowest, lowest))
    }

    /// Whether a trial passes; where that is in doubt, a second one tells.
    fn passes(&mut self, rate: f64) -> io::Result<bool> {
        match self.run(rate)?.verdict {
            Verdict::Passed => Ok(true),
            Verdict::Failed => Ok(false),
            _ => Ok(self.run(rate)?.verdict == Verdict::Passed),
        }
    }

    /// Walks from `rate` in steps of the precision, down until one is confirmed or up until one is not.
    /// Returns the highest confirmed rate, offered and received.
    fn settle(&mut self, mut rate: f64) -> io::Result<Option<(f64, f64)>> {
        let Sweep {
            lowest,
            highest,
            precision,
            ..
        } = self.sweep;
        let (mut found, mut refused) = (None, false);
        loop {
            match self.confirm(rate)? {
                Some(received) => {
                    found = Some((rate, received));
                    if refused || rate >= highest {
                        return Ok(found);
                    }
                    rate = (rate * precision).min(highest);
                }
                None if found.is_some() || rate <= lowest => return Ok(found),
                None => {
                    refused = true;
                    rate = (rate / precision).max(lowest);
                }
            }
        }
    }

    /// The median rate received, if most of the confirming trials pass.
    fn confirm(&mut self, rate: f64) -> io::Result<Option<f64>> {
        let needed = usize::try_from(self.sweep.confirmations / 2 + 1).unwrap_or(usize::MAX);
        let (mut rates, mut failed, mut excused) = (Vec::new(), 0, 0);
        while rates.len() < needed {
            let outcome = self.run(rate)?;
            match outcome.verdict {
                Verdict::Passed => rates.push(outcome.received),
                Verdict::Hiccup if excused < EXCUSED => excused += 1,
                _ => failed += 1,
            }
            if failed >= needed {
                return Ok(None);
            }
        }
        rates.sort_by(f64::total_cmp);
        Ok(rates.get(rates.len() / 2).copied())
    }

    /// Whether the next higher rate that was tried failed for the sender alone, or none is higher.
    fn sender_ends_above(&self, rate: f64) -> bool {
        let higher = self.outcomes.iter().filter(|one| one.rate > rate);
        let next = higher.map(|one| one.rate).min_by(f64::total_cmp);
        let Some(next) = next else { return true };
        let tried = self.outcomes.iter();
        let tried = tried.filter(|one| one.rate > rate && one.rate <= next);
        let verdicts: Vec<Verdict> = tried.map(|one| one.verdict).collect();
        verdicts.contains(&Verdict::Limited)
            && !verdicts.contains(&Verdict::Near)
            && !verdicts.contains(&Verdict::Failed)
    }

    fn run(&mut self, rate: f64) -> io::Result<Outcome> {
        let trial = (self.trial)(rate, self.sweep.trial)?;
        let limit = self.sweep.loss;
        let outside = trial.lost().saturating_sub(trial.lost_together);
        let verdict = if trial.received > 0 && trial.loss() <= limit {
            if trial.sender_limited {
                Verdict::Limited
            } else {
                Verdict::Passed
            }
        } else if outside as f64 <= limit * trial.sent as f64 && trial.received > 0 {
            Verdict::Hiccup
        } else if trial.loss() < limit + NEAR {
            Verdict::Near
        } else {
            Verdict::Failed
        };
        let outcome = Outcome {
            rate,
            loss: trial.loss(),
            received: trial.received_rate(),
            verdict,
        };
        self.outcomes.push(outcome);
        Ok(outcome)
    }
}

/// Loss beyond the limit up to which a trial of the search is repeated.
const NEAR: f64 = 0.02;
/// Trials with a hiccup that are repeated while a rate is confirmed.
const EXCUSED: u32 = 2;

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
                lost_together: 0,
                time,
                delay: histogram()?,
                sender_limited: rate > sender,
            })
        }
    }

    /// A path whose machine stalls for a moment in every fourth second, and which begins to lose single
    /// datagrams before it is full: the worst that a row of numbers without rhyme makes of it.
    fn shared(capacity: f64, seed: u64) -> impl FnMut(f64, Duration) -> io::Result<UdpTrial> {
        let mut steady = path(capacity, 1e9);
        let mut state = seed;
        let mut chance = move || {
            state = state.wrapping_mul(6_364_136_223_846_793_005);
            state = state.wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) as f64 / f64::from(1_u32 << 31)
        };
        move |rate, time| {
            let mut trial = steady(rate, time)?;
            // Within the last tenth before the capacity some trials lose a little all over.
            let full = ((rate / capacity - 0.9) * 10.0).clamp(0.0, 1.0);
            if chance() < full {
                trial.received = trial.received.saturating_sub(trial.sent / 500);
            }
            if chance() < time.as_secs_f64() / 4.0 {
                trial.lost_together = (trial.sent / 100).min(trial.received);
                trial.received -= trial.lost_together;
            }
            Ok(trial)
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
    fn a_search_that_the_sender_slowed_down_on_its_way_is_not_limited_by_it() {
        let mut steady = path(100_000.0, 1e9);
        let mut trials = 0;
        let found = Sweep::default()
            .search(|rate, time| {
                trials += 1;
                let mut trial = steady(rate, time)?;
                trial.sender_limited = trials == 1;
                Ok(trial)
            })
            .unwrap_or_else(|e| panic!("{e}"));
        assert!(!found.sender_limited);
        assert!(found.rate > 95_000.0, "{}", found.rate);
    }

    #[test]
    fn searches_on_a_shared_machine_agree() {
        let sweep = Sweep {
            trial: Duration::from_millis(500),
            precision: 1.05,
            ..Sweep::default()
        };
        let (mut rates, mut trials) = (Vec::new(), 0);
        for seed in 1..=200 {
            let found = sweep
                .search(shared(100_000.0, seed))
                .unwrap_or_else(|e| panic!("{e}"));
            trials += found.trials.len();
            rates.push(found.rate);
        }
        rates.sort_by(f64::total_cmp);
        let (least, most) = (rates[4], rates[195]);
        assert!(most / least < 1.15, "{least} to {most}");
        assert!(least > 88_000.0, "{least}");
        assert!(trials / 200 <= 16, "{}", trials / 200);
    }

    #[test]
    fn what_is_lost_all_over_is_never_excused() {
        let mut steady = path(1e9, 1e9);
        let found = Sweep::default()
            .search(|rate, time| {
                let mut trial = steady(rate, time)?;
                // A tenth of a second of ten, and three times the limit in the others.
                trial.lost_together = trial.sent / 3_000;
                trial.received -= trial.sent / 300;
                Ok(trial)
            })
            .unwrap_or_else(|e| panic!("{e}"));
        assert!(found.rate.abs() < f64::EPSILON, "{}", found.rate);
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
