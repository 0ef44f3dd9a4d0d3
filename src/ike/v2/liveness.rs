//! Liveness checks on demand (RFC 7296 §2.4) and NAT keepalives (RFC 3948 §4).

use std::time::{Duration, Instant};

use crate::ike::context::Context;
use crate::ike::status::NatStatus;
use crate::ike::{Output, RetransmitSettings, Settings};

use super::Core;
use super::established::Established;
use super::tasks::Task;

/// When the peer was last known to live, and when to look again.
#[derive(Debug)]
pub(super) struct Liveness {
    /// Zero: never check.
    delay: Duration,
    last_heard: Instant,
    /// The peer has shown that it knows this SA.
    is_known: bool,
    /// Packets that the Child SAs had received when we last looked.
    received: u64,
    /// Packets that they had sent.
    sent: u64,
    /// Since when packets have been sent and nothing has come back.
    unanswered: Option<Instant>,
    check_at: Option<Instant>,
    keepalive_at: Option<Instant>,
}

impl Liveness {
    pub(super) fn new(core: &Core, nat: NatStatus, cx: &Context) -> Self {
        let delay = core
            .connection
            .as_ref()
            .map_or(Duration::ZERO, |conn| conn.dpd_delay);
        Self {
            delay,
            last_heard: cx.now,
            is_known: true,
            received: 0,
            sent: 0,
            unanswered: None,
            // Traffic is only seen when we look: see [`Self::is_silent`].
            check_at: (!delay.is_zero()).then(|| cx.now + (delay / 2).min(ONE_WAY / 2)),
            keepalive_at: nat.local.then(|| cx.now + cx.settings.keepalive),
        }
    }

    pub(super) fn heard(&mut self, now: Instant) {
        self.last_heard = now;
        self.is_known = true;
        self.unanswered = None;
    }

    /// NAT keepalives are sent while we are behind a NAT.
    pub(super) fn set_nat(&mut self, nat: NatStatus, cx: &Context) {
        let next = cx.now + cx.settings.keepalive;
        self.keepalive_at = nat.local.then(|| self.keepalive_at.unwrap_or(next));
    }

    /// Our answer to the request that made this SA may be lost, so that the peer would not know what
    /// a check is about.
    pub(super) fn expect_late_peer(&mut self) {
        self.is_known = false;
    }

    /// How patient a check is: the peer may be slow to learn of a new SA.
    pub(super) fn patience(&self, settings: &Settings) -> RetransmitSettings {
        if self.is_known {
            settings.liveness
        } else {
            settings.retransmit
        }
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        self.check_at.into_iter().chain(self.keepalive_at).min()
    }

    /// Notes traffic; true if the peer has been silent for too long.
    fn is_silent(&mut self, (received, sent): (u64, u64), now: Instant) -> bool {
        if received != self.received {
            self.heard(now);
        } else if sent != self.sent {
            self.unanswered.get_or_insert(now);
        }
        (self.received, self.sent) = (received, sent);
        let one_way = self
            .unanswered
            .is_some_and(|since| now.saturating_duration_since(since) >= ONE_WAY);
        let silent = one_way || now.saturating_duration_since(self.last_heard) >= self.delay;
        // Traffic is only seen when we look, so we look more often than we have to act.
        let next = if silent {
            now + self.delay
        } else {
            self.last_heard + self.delay
        };
        let look = (self.delay / 2).min(ONE_WAY / 2);
        self.check_at = Some(next.min(now + look).max(now + SHORTEST));
        silent
    }
}

impl Established {
    pub(super) fn poll_liveness(&mut self, core: &Core, cx: &mut Context) {
        let now = cx.now;
        if self.liveness.keepalive_at.is_some_and(|at| at <= now) {
            self.liveness.keepalive_at = Some(now + cx.settings.keepalive);
            cx.output(Output::Keepalive(core.path));
        }
        if self.liveness.check_at.is_some_and(|at| at <= now) {
            let children = self.children.iter();
            let packets = children.fold((0, 0), |(received, sent), child| {
                let (inbound, outbound) = (child.usage_in.packets(), child.usage_out.packets());
                (received + inbound, sent + outbound)
            });
            if self.liveness.is_silent(packets, now) {
                self.probe();
            }
        }
    }

    /// Asks the peer for a sign of life, unless a request is on its way anyway.
    pub(in crate::ike) fn probe(&mut self) {
        let busy = self.work.outstanding.is_some()
            || self
                .work
                .queue
                .iter()
                .any(|task| matches!(task, Task::Liveness));
        if !busy {
            self.push(Task::Liveness);
        }
    }
}

/// A peer that is sent to and sends nothing itself for so long is asked. Traffic that goes one way
/// only costs one check each time.
const ONE_WAY: Duration = Duration::from_secs(10);
const SHORTEST: Duration = Duration::from_millis(50);
