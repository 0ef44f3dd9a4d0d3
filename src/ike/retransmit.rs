//! Repeating an unanswered request (RFC 7296 §2.1, §2.4).

use std::time::{Duration, Instant};

use crate::crypto::CryptoRng;

use super::context::Context;
use super::v2::Outgoing;
use super::{Path, RetransmitSettings};

/// One request on its way, repeated byte for byte.
#[derive(Debug)]
pub(super) struct Retransmit {
    message: Outgoing,
    settings: RetransmitSettings,
    wait: Duration,
    due: Instant,
    sent: u32,
    end: Option<Instant>,
}

/// What to do when a wait is over.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Overdue {
    /// Send the request again.
    Again,
    /// The peer does not answer.
    GiveUp,
}

impl Retransmit {
    /// For a request that is being sent for the first time now.
    pub(super) fn new(
        message: Outgoing,
        settings: RetransmitSettings,
        now: Instant,
        rng: &mut dyn CryptoRng,
    ) -> Self {
        Self {
            message,
            settings,
            wait: settings.initial,
            due: now + jittered(settings.initial, settings.jitter_percent, rng),
            sent: 1,
            end: None,
        }
    }

    /// Sends a request for the first time.
    pub(super) fn send(
        message: Outgoing,
        path: Path,
        settings: RetransmitSettings,
        cx: &mut Context,
    ) -> Self {
        cx.send(path, &message);
        let now = cx.now;
        Self::new(message, settings, now, cx.rng())
    }

    /// Sends it again if it is time, and says what is due.
    pub(super) fn repeat(&mut self, path: Path, cx: &mut Context) -> Option<Overdue> {
        let now = cx.now;
        let due = self.poll(now, cx.rng());
        if due == Some(Overdue::Again) {
            cx.send(path, &self.message);
        }
        due
    }

    /// The request, with all its fragments.
    pub(super) fn message(&self) -> &Outgoing {
        &self.message
    }

    /// When the current wait is over.
    pub(super) fn due(&self) -> Instant {
        self.end.map_or(self.due, |end| end.min(self.due))
    }

    /// Transmissions so far.
    pub(super) fn sent(&self) -> u32 {
        self.sent
    }

    /// Begins anew, as if sent for the first time now: the path is another one.
    pub(super) fn start_over(&mut self, now: Instant, rng: &mut dyn CryptoRng) {
        self.sent = 1;
        self.wait = self.settings.initial;
        self.due = now + jittered(self.wait, self.settings.jitter_percent, rng);
    }

    /// When it is given up, if that does not depend on how often it was sent.
    pub(super) fn end(&self) -> Option<Instant> {
        self.end
    }

    /// Gives up no later than this.
    pub(super) fn shorten(&mut self, end: Instant) {
        self.end = Some(self.end.map_or(end, |known| known.min(end)));
    }

    /// Moves on if the wait is over.
    pub(super) fn poll(&mut self, now: Instant, rng: &mut dyn CryptoRng) -> Option<Overdue> {
        if now < self.due() {
            return None;
        }
        if self.sent >= self.settings.tries || self.end.is_some_and(|end| now >= end) {
            return Some(Overdue::GiveUp);
        }
        self.sent += 1;
        self.wait = (self.wait * 2).min(self.settings.longest);
        self.due = now + jittered(self.wait, self.settings.jitter_percent, rng);
        Some(Overdue::Again)
    }
}

/// `time`, plus or minus up to `percent` of it.
pub(super) fn jittered(time: Duration, percent: u32, rng: &mut dyn CryptoRng) -> Duration {
    let spread = time * percent.min(100) / 100;
    time - spread + below(spread * 2, rng)
}

/// A random time that is less than `limit`; zero for a zero limit.
pub(super) fn below(limit: Duration, rng: &mut dyn CryptoRng) -> Duration {
    let micros = u64::try_from(limit.as_micros()).unwrap_or(u64::MAX);
    match rng.next_u64().checked_rem(micros) {
        Some(part) => Duration::from_micros(part),
        None => Duration::ZERO,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand_chacha::ChaCha20Rng;
    use rand_core::SeedableRng;

    #[test]
    fn waits_double_up_to_the_longest_and_then_end() {
        let mut rng = ChaCha20Rng::seed_from_u64(1);
        let settings = RetransmitSettings {
            initial: Duration::from_millis(500),
            longest: Duration::from_secs(2),
            tries: 5,
            jitter_percent: 10,
        };
        let mut now = Instant::now();
        let mut request = Retransmit::new(vec![1].into(), settings, now, &mut rng);
        let mut waits = Vec::new();
        loop {
            let wait = request.due() - now;
            waits.push(wait.as_secs_f64());
            assert_eq!(request.poll(now, &mut rng), None);
            now = request.due();
            match request.poll(now, &mut rng) {
                Some(Overdue::Again) => {}
                Some(Overdue::GiveUp) => break,
                None => panic!("the wait was over"),
            }
        }
        let expected = [0.5, 1.0, 2.0, 2.0, 2.0];
        assert_eq!(waits.len(), expected.len());
        for (wait, expected) in waits.iter().zip(expected) {
            assert!((wait / expected - 1.0).abs() <= 0.1, "{waits:?}");
        }
    }
}
