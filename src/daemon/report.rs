//! Events of the IKE endpoint as log lines and as events for control clients.

use std::{
    collections::HashMap,
    fmt::{self, Display},
    io,
    time::{Duration, Instant},
};

use super::{
    control::{Control, Phase, STOP},
    vici::{EventName, format},
};
use crate::{
    ike::{Alert, ChildStatus, Event, Identity, IkeSaStatus, Path},
    wire::keyword,
};

impl Control {
    /// Tells whoever watches what has happened: one line for each event of an SA.
    pub(super) fn report(&mut self, event: Event, now: Instant) {
        self.ledger.note(&event);
        match event {
            Event::IkeUp { ike } => {
                let label = (ike.name.clone(), ike.id);
                self.log(1, "IKE", Some(&label), &Established(&ike), now);
                log_ike(&ike, "IKE SA established", "");
                let message = || format::ike_updown(&ike, true, now);
                self.vici.broadcast(EventName::IkeUpdown, message);
            }
            Event::IkeDown { ike, reason } => {
                let was_up = ike.established.is_some();
                if was_up {
                    log_ike(&ike, "IKE SA closed", &reason);
                    let message = || format::ike_updown(&ike, false, now);
                    self.vici.broadcast(EventName::IkeUpdown, message);
                } else if self.log_limit.allows("half-open", now) {
                    log_ike(&ike, "IKE SA failed", &reason);
                }
            }
            Event::IkeRekeyed { old, new } => {
                log_ike(&new, "IKE SA rekeyed", "");
                let message = || format::ike_rekey(&old, &new, now);
                self.vici.broadcast(EventName::IkeRekey, message);
            }
            Event::ChildUp { ike, child } => {
                let label = (ike.name.clone(), ike.id);
                let line = format_args!("CHILD_SA {child} established");
                self.log(1, "CHD", Some(&label), &line, now);
                log_child(&ike, &child, "Child SA installed", "");
                let used = self.usage.get(child.id);
                let message = || format::child_updown(&ike, &child, true, used, now);
                self.vici.broadcast(EventName::ChildUpdown, message);
            }
            Event::ChildDown { ike, child, reason } => {
                log_child(&ike, &child, "Child SA removed", &reason);
                let used = self.usage.get(child.id);
                let message = || format::child_updown(&ike, &child, false, used, now);
                self.vici.broadcast(EventName::ChildUpdown, message);
            }
            Event::ChildRekeyed { ike, old, new } => {
                log_child(&ike, &new, "Child SA rekeyed", "");
                let used = self.usage.get(old.id);
                let message = || format::child_rekey(&ike, &old, &new, used, now);
                self.vici.broadcast(EventName::ChildRekey, message);
            }
            Event::CommandDone { id: STOP, .. } => self.phase = Phase::Stopped,
            Event::CommandDone { id, result } => self.command_done(id, &result),
            Event::Alert(alert) => self.alert(&alert, now),
            Event::Log {
                level,
                group,
                ike,
                message,
            } => self.log(level, group, ike.as_ref(), &message, now),
        }
    }

    fn alert(&mut self, alert: &Alert, now: Instant) {
        self.failures.note(alert, now);
        let ike = alert.ike.as_ref().map(|ike| (ike.name.clone(), ike.id));
        let open = ike.as_ref().is_none_or(|(name, _)| name.is_empty());
        let text = if open && !alert.connections.is_empty() {
            let candidates = alert.connections.join(", ");
            format!(
                "{} (connections for these addresses: {candidates})",
                alert.message
            )
        } else {
            alert.message.clone()
        };
        self.log(-1, "IKE", ike.as_ref(), &text, now);
        self.vici
            .broadcast(EventName::Alert, || format::alert(alert, now));
    }

    fn log(
        &mut self,
        level: i8,
        group: &'static str,
        ike: Option<&(String, u64)>,
        text: &dyn Display,
        now: Instant,
    ) {
        self.control_log(level, group, ike, text);
        if level > 1 {
            tracing::trace!(group, "{text}");
            return;
        }
        // Warnings are limited where they arise, so that other lines do not take their place.
        if level >= 0 && !self.log_limit.allows(group, now) {
            return;
        }
        match (level, ike) {
            (..0, Some((name, id))) => tracing::warn!(group, ike = name, id, "{text}"),
            (..0, None) => tracing::warn!(group, "{text}"),
            (0, Some((name, id))) => tracing::info!(group, ike = name, id, "{text}"),
            (0, None) => tracing::info!(group, "{text}"),
            (_, Some((name, id))) => tracing::debug!(group, ike = name, id, "{text}"),
            (_, None) => tracing::debug!(group, "{text}"),
        }
        let message = || format::log(level, group, ike, text);
        self.vici.broadcast(EventName::Log, message);
    }

    pub(super) fn warn_unsent(&mut self, path: Path, error: &io::Error, now: Instant) {
        if self.log_limit.allows("send", now) {
            let Path { local, remote } = path;
            tracing::warn!(%local, %remote, %error, "IKE message not sent");
        }
    }
}

/// The line that tells of a new IKE SA, as strongSwan words it.
struct Established<'a>(&'a IkeSaStatus);

impl Display for Established<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(ike) = self;
        let (local, remote) = (ike.local.ip(), ike.remote.ip());
        let id = |id: &Option<Identity>| id.as_ref().map(ToString::to_string).unwrap_or_default();
        let (local_id, remote_id) = (id(&ike.local_id), id(&ike.remote_id));
        let suite = ike.suite.as_ref().map(keyword::ike_suite_text);
        let suite = suite.unwrap_or_default();
        write!(
            f,
            "IKE_SA established between {local}[{local_id}]...{remote}[{remote_id}] with {suite}"
        )
    }
}

fn log_ike(ike: &IkeSaStatus, what: &str, reason: &str) {
    let IkeSaStatus {
        name,
        id,
        local,
        remote,
        initiator,
        ..
    } = ike;
    let suite = ike.suite.as_ref().map(keyword::ike_suite_text);
    let suite = suite.unwrap_or_default();
    let remote_id = ike.remote_id.as_ref().map(ToString::to_string);
    let remote_id = remote_id.unwrap_or_default();
    if reason.is_empty() {
        tracing::info!(ike = name, id, %local, %remote, remote_id, suite, initiator, "{what}");
    } else {
        tracing::info!(ike = name, id, %local, %remote, remote_id, reason, "{what}");
    }
}

fn log_child(ike: &IkeSaStatus, child: &ChildStatus, what: &str, reason: &str) {
    let suite = keyword::esp_suite_text(&child.suite);
    let (ike, ike_id, id, reqid) = (&ike.name, ike.id, child.id, child.reqid);
    let (spi_in, spi_out, name) = (child.spi_in, child.spi_out, &child.name);
    if reason.is_empty() {
        let side = |selectors: &[_]| {
            let texts: Vec<String> = selectors.iter().map(ToString::to_string).collect();
            texts.join(" ")
        };
        let (local_ts, remote_ts) = (side(&child.local_ts), side(&child.remote_ts));
        tracing::info!(
            ike, ike_id, child = name, %id, %reqid, %spi_in, %spi_out, suite, local_ts, remote_ts, "{what}"
        );
    } else {
        let (packets_in, packets_out) = (child.usage_in.packets(), child.usage_out.packets());
        tracing::info!(
            ike, ike_id, child = name, %id, %reqid, %spi_in, %spi_out, packets_in, packets_out, reason, "{what}"
        );
    }
}

/// Keeps a peer from filling the log: each kind of line has a burst and then a rate.
#[derive(Debug, Default)]
pub(super) struct RateLimit {
    kinds: HashMap<&'static str, Bucket>,
}

#[derive(Debug)]
struct Bucket {
    left: u32,
    refilled: Instant,
    suppressed: u64,
}

impl RateLimit {
    /// Whether one more line of this kind may be written now.
    pub(super) fn allows(&mut self, kind: &'static str, now: Instant) -> bool {
        let bucket = self.kinds.entry(kind).or_insert(Bucket {
            left: LINES_AT_ONCE,
            refilled: now,
            suppressed: 0,
        });
        bucket.refill(now);
        if bucket.left > 0 {
            bucket.left -= 1;
            return true;
        }
        bucket.suppressed += 1;
        false
    }

    /// One line for each kind that has fallen silent, saying how much was left out.
    pub(super) fn summary(&mut self, now: Instant) -> Vec<String> {
        let mut lines = Vec::new();
        for (kind, bucket) in &mut self.kinds {
            bucket.refill(now);
            if bucket.suppressed > 0 && bucket.left == LINES_AT_ONCE {
                lines.push(format!(
                    "{} lines about {kind:?} left out",
                    bucket.suppressed
                ));
                bucket.suppressed = 0;
            }
        }
        lines
    }
}

impl Bucket {
    fn refill(&mut self, now: Instant) {
        let seconds = now.saturating_duration_since(self.refilled).as_secs();
        if seconds > 0 {
            let lines = u32::try_from(seconds).unwrap_or(u32::MAX);
            let lines = lines.saturating_mul(LINES_PER_SECOND);
            self.left = self.left.saturating_add(lines).min(LINES_AT_ONCE);
            self.refilled += Duration::from_secs(seconds);
        }
    }
}

const LINES_AT_ONCE: u32 = 50;
const LINES_PER_SECOND: u32 = 5;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_of_lines_is_cut_to_a_burst_and_a_rate_and_then_summed_up() {
        let start = Instant::now();
        let mut limit = RateLimit::default();
        let passed =
            |limit: &mut RateLimit, at| (0..1000).filter(|_| limit.allows("IKE", at)).count();
        assert_eq!(passed(&mut limit, start), 50);
        assert_eq!(passed(&mut limit, start + Duration::from_secs(1)), 5);
        assert!(limit.allows("NET", start));
        assert!(limit.summary(start + Duration::from_secs(2)).is_empty());
        let quiet = start + Duration::from_secs(20);
        assert_eq!(limit.summary(quiet), ["1945 lines about \"IKE\" left out"]);
        assert!(limit.summary(quiet).is_empty());
    }
}
