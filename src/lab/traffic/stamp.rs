//! What a generated datagram says about itself, and the account that its receiver keeps.

use std::io;

use hdrhistogram::Histogram;
use rustix::time::{ClockId, clock_gettime};

/// The beginning of each payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// Tells the datagrams of one trial from stragglers of the trial before.
    pub trial: u32,
    /// Counts from 0 within the trial.
    pub sequence: u64,
    /// When the schedule wanted it sent, on the clock of `now`. A sender that comes late does not
    /// change this, so that waiting behind a busy sender counts as delay.
    pub intended: u64,
}

impl Stamp {
    /// Bytes at the beginning of a payload.
    pub const LEN: usize = 24;

    /// Writes it; nothing where there is no room.
    pub fn write(&self, payload: &mut [u8]) {
        let Some(head) = payload.first_chunk_mut::<{ Self::LEN }>() else {
            return;
        };
        let (magic, rest) = head.split_at_mut(4);
        magic.copy_from_slice(&MAGIC);
        let (trial, rest) = rest.split_at_mut(4);
        trial.copy_from_slice(&self.trial.to_be_bytes());
        let (sequence, intended) = rest.split_at_mut(8);
        sequence.copy_from_slice(&self.sequence.to_be_bytes());
        intended.copy_from_slice(&self.intended.to_be_bytes());
    }

    /// Reads one, if the payload begins with one.
    #[must_use]
    pub fn read(payload: &[u8]) -> Option<Self> {
        let (magic, rest) = payload.split_first_chunk::<4>()?;
        let (trial, rest) = rest.split_first_chunk::<4>()?;
        let (sequence, rest) = rest.split_first_chunk::<8>()?;
        let intended = rest.first_chunk::<8>()?;
        (*magic == MAGIC).then_some(Self {
            trial: u32::from_be_bytes(*trial),
            sequence: u64::from_be_bytes(*sequence),
            intended: u64::from_be_bytes(*intended),
        })
    }
}

/// Nanoseconds of the monotonic clock, which all namespaces of a machine share.
#[must_use]
pub(super) fn now() -> u64 {
    let time = clock_gettime(ClockId::Monotonic);
    let seconds = u64::try_from(time.tv_sec).unwrap_or_default();
    seconds * 1_000_000_000 + u64::try_from(time.tv_nsec).unwrap_or_default()
}

/// What arrived of one trial.
#[derive(Clone, Debug)]
pub struct Tally {
    trial: u32,
    /// One bit for each sequence number.
    seen: Vec<u64>,
    /// One more than the highest number so far.
    next: u64,
    /// Datagrams that arrived, each counted once.
    pub received: u64,
    /// Further copies of datagrams that had arrived.
    pub duplicates: u64,
    /// Datagrams that came after one with a higher number (RFC 4737 §3), copies not counted.
    pub reordered: u64,
    /// Datagrams of another trial, with an impossible number or without a stamp.
    pub foreign: u64,
    /// Nanoseconds from the intended time of sending to the arrival.
    pub delay: Histogram<u64>,
}

impl Tally {
    /// An account for the numbers below `expected`.
    pub fn new(trial: u32, expected: u64) -> io::Result<Self> {
        let words = usize::try_from(expected.div_ceil(64)).map_err(io::Error::other)?;
        Ok(Self {
            trial,
            seen: vec![0; words],
            next: 0,
            received: 0,
            duplicates: 0,
            reordered: 0,
            foreign: 0,
            delay: histogram()?,
        })
    }

    /// Enters a datagram that arrived at `at`.
    pub fn enter(&mut self, payload: &[u8], at: u64) {
        let stamp = Stamp::read(payload).filter(|stamp| stamp.trial == self.trial);
        let word = stamp.and_then(|stamp| usize::try_from(stamp.sequence / 64).ok());
        let (Some(stamp), Some(word)) = (stamp, word.and_then(|word| self.seen.get_mut(word)))
        else {
            self.foreign += 1;
            return;
        };
        let bit = 1 << (stamp.sequence % 64);
        if *word & bit != 0 {
            self.duplicates += 1;
            return;
        }
        *word |= bit;
        self.received += 1;
        if stamp.sequence < self.next {
            self.reordered += 1;
        } else {
            self.next = stamp.sequence + 1;
        }
        self.delay
            .saturating_record(at.saturating_sub(stamp.intended).max(1));
    }

    /// How many of the first `sent` numbers are missing in the worst stretch of `length` in a row, to half
    /// a stretch.
    #[must_use]
    pub fn lost_together(&self, sent: u64, length: u64) -> u64 {
        let half = (length / 2).max(1);
        let (mut before, mut worst) = (0, 0);
        for start in (0..sent).step_by(usize::try_from(half).unwrap_or(usize::MAX)) {
            let numbers = start..(start + half).min(sent);
            let lost = numbers.filter(|number| !self.has(*number)).count() as u64;
            worst = worst.max(before + lost);
            before = lost;
        }
        worst
    }

    fn has(&self, number: u64) -> bool {
        let word = usize::try_from(number / 64).ok();
        let word = word.and_then(|word| self.seen.get(word));
        word.is_some_and(|word| word >> (number % 64) & 1 == 1)
    }
}

/// Times from a nanosecond to a minute, to three digits.
pub(super) fn histogram() -> io::Result<Histogram<u64>> {
    Histogram::new_with_bounds(1, 60_000_000_000, 3).map_err(io::Error::other)
}

const MAGIC: [u8; 4] = *b"LGLB";

#[cfg(test)]
mod tests {
    use super::*;

    fn entered(numbers: &[u64]) -> Tally {
        let mut tally = Tally::new(7, 1000).expect("a small account");
        for (sequence, at) in numbers.iter().zip(1_u64..) {
            let mut payload = [0; 64];
            let stamp = Stamp {
                trial: 7,
                sequence: *sequence,
                intended: at * 100,
            };
            stamp.write(&mut payload);
            tally.enter(&payload, at * 100 + 5_000);
        }
        tally
    }

    #[test]
    fn a_stamp_is_read_as_it_was_written_and_not_from_less() {
        let stamp = Stamp {
            trial: 1,
            sequence: u64::MAX,
            intended: 3,
        };
        let mut payload = [0; Stamp::LEN];
        stamp.write(&mut payload);
        assert_eq!(Stamp::read(&payload), Some(stamp));
        for length in 0..Stamp::LEN {
            assert_eq!(Stamp::read(&payload[..length]), None);
        }
        assert_eq!(Stamp::read(&[0; 64]), None);
    }

    #[test]
    fn order_copies_and_strangers_are_told_apart() {
        let tally = entered(&[0, 1, 4, 2, 3, 5, 5, 0, 6]);
        assert_eq!(
            (tally.received, tally.duplicates, tally.reordered),
            (7, 2, 2)
        );
        let mut tally = entered(&[0, 1000, 1024]);
        tally.enter(b"not ours", 0);
        assert_eq!((tally.received, tally.foreign), (2, 2));
    }

    /// RFC 4737 §4.4.1, its first example: only the late one is reordered.
    #[test]
    fn one_late_datagram_is_one_reordered_datagram() {
        assert_eq!(entered(&[1, 2, 3, 5, 6, 7, 8, 4, 9, 10]).reordered, 1);
        assert_eq!(entered(&[1, 2, 3, 4, 5]).reordered, 0);
    }

    #[test]
    fn losses_in_one_stretch_are_told_from_those_all_over() {
        let all: Vec<u64> = (0..900).collect();
        let hiccup: Vec<u64> = (0..900).filter(|n| !(405..465).contains(n)).collect();
        let all_over: Vec<u64> = (0..900).filter(|n| n % 10 != 0).collect();
        assert_eq!(entered(&all).lost_together(900, 100), 0);
        assert_eq!(entered(&all).lost_together(1000, 100), 100);
        assert_eq!(entered(&hiccup).lost_together(900, 100), 60);
        assert_eq!(entered(&all_over).lost_together(900, 100), 10);
        assert_eq!(entered(&[]).lost_together(0, 0), 0);
    }

    #[test]
    fn delay_counts_from_the_intended_time() {
        let tally = entered(&[0, 1, 2]);
        assert_eq!(tally.delay.len(), 3);
        assert!((4_990..=5_010).contains(&tally.delay.value_at_quantile(0.5)));
    }
}
