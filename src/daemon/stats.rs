//! The answer to `stats`: what strongSwan tells, and below it what only we have.

use std::time::{Duration, Instant, SystemTime};

use super::{control::Control, metrics::Metrics, sockets, vici::format};
use crate::{
    dataplane::{LatencySnapshot, WorkerSnapshot},
    ike::Discard,
    io::offload::Offloads,
    ipsec::DropReason,
    wire::vici::Message,
};

impl Control {
    pub(super) fn stats(&self, now: Instant) -> Message {
        let snapshot = self.dataplane.stats();
        let total = snapshot.total();
        let mut drops = Message::new();
        for reason in DropReason::ALL {
            let elsewhere = match reason {
                DropReason::Keepalive => self.sockets.keepalives(),
                _ => 0,
            };
            drops.set(reason.name(), total.dropped(reason) + elsewhere);
        }
        let mut discards = Message::new();
        for (reason, count) in Discard::ALL.iter().zip(self.endpoint.discards()) {
            discards.set(reason.name(), count);
        }
        let mut dataplane = Message::new();
        for (number, each) in snapshot.workers.iter().enumerate() {
            dataplane.section(format!("worker-{number}"), worker(each));
        }
        let mut residence = Message::new();
        residence
            .section("in", times(&total.residence_inbound))
            .section("out", times(&total.residence_outbound));
        let wanted = sockets::wanted_offloads(&self.config.daemon);

        let mut stats = self.daemon_stats(snapshot.workers.len(), now);
        stats
            .section("drops", drops)
            .section("discards", discards)
            .section("offloads", offloads(wanted, total.offloads))
            .section("residence", residence)
            .section("dataplane", dataplane);
        if let Some((address, error)) = self.metrics.as_ref().map(Metrics::status) {
            let mut metrics = Message::new();
            metrics.set("address", address);
            if let Some(error) = error {
                metrics.set("error", error);
            }
            stats.section("metrics", metrics);
        }
        stats
    }

    /// One line that says what the packet path can do with many packets at once.
    pub(super) fn log_offloads(&self) {
        let wanted = sockets::wanted_offloads(&self.config.daemon);
        let active = self.dataplane.stats().total().offloads;
        let in_state = |is_wanted: bool, is_active: bool| {
            let both = wanted.iter().zip(active.iter());
            let found = both.filter(|((_, w), (_, a))| (*w, *a) == (is_wanted, is_active));
            let names: Vec<&str> = found.map(|((name, _), _)| name).collect();
            names.join(" ")
        };
        tracing::info!(
            active = in_state(true, true),
            off = in_state(false, false),
            unavailable = in_state(true, false),
            "offloads"
        );
    }

    fn daemon_stats(&self, worker_count: usize, now: Instant) -> Message {
        let (started, date) = self.started;
        let mut uptime = Message::new();
        let since_epoch = date
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default();
        uptime
            .set(
                "running",
                format::duration(now.saturating_duration_since(started)),
            )
            .set("since", format::date(since_epoch));

        // strongSwan's thread pool; here every worker has its own work and none is waited for.
        let mut priorities = Message::new();
        for name in ["critical", "high", "medium", "low"] {
            priorities.set(name, 0);
        }
        let mut workers = Message::new();
        workers
            .set("total", worker_count)
            .set("idle", worker_count)
            .section("active", priorities.clone());

        let mut ikesas = Message::new();
        ikesas
            .set("total", self.endpoint.ike_sas().count())
            .set("half-open", self.endpoint.half_open());

        let mut stats = Message::new();
        stats
            .section("uptime", uptime)
            .section("workers", workers)
            .section("queues", priorities)
            .set(
                "scheduled",
                u8::from(self.endpoint.next_timeout().is_some()),
            )
            .section("ikesas", ikesas)
            .list("plugins", ["lockgate"]);
        stats
    }
}

fn worker(worker: &WorkerSnapshot) -> Message {
    let mut section = Message::new();
    section
        .set("packets-in", worker.inbound.packets)
        .set("bytes-in", worker.inbound.bytes)
        .set("packets-out", worker.outbound.packets)
        .set("bytes-out", worker.outbound.bytes)
        .set("bursts", worker.bursts)
        .set("system-calls", worker.calls)
        .set("read-errors", worker.read_errors)
        .set("super-packets-in", worker.super_in)
        .set("super-packets-out", worker.super_out)
        .set("trains-in", worker.trains_in)
        .set("trains-out", worker.trains_out)
        .set("train-packets-in", worker.train_packets_in)
        .set("train-packets-out", worker.train_packets_out)
        .set("handed-off", worker.handed_off)
        .set("taken-over", worker.taken_over)
        .set("too-big-replies", worker.too_big_replies);
    section
}

/// Residence times, in nanoseconds.
fn times(times: &LatencySnapshot) -> Message {
    let nanos = |time: Duration| time.as_nanos().to_string();
    let mut section = Message::new();
    section
        .set("packets", times.count())
        .set("p50-ns", nanos(times.quantile(0.5)))
        .set("p99-ns", nanos(times.quantile(0.99)))
        .set("max-ns", nanos(times.quantile(1.0)));
    section
}

/// Each offload: `active` for all workers, `off` by configuration, or `unavailable` although wanted.
fn offloads(wanted: Offloads, active: Offloads) -> Message {
    let mut section = Message::new();
    for ((name, is_wanted), (_, is_active)) in wanted.iter().zip(active.iter()) {
        let state = match (is_wanted, is_active) {
            (_, true) => "active",
            (true, false) => "unavailable",
            (false, false) => "off",
        };
        section.set(name, state);
    }
    section
}
