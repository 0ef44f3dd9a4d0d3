//! A snapshot of the daemon, and its text for Prometheus.

use std::{fmt, sync::Arc, time::Duration};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeLabelSet, NoLabelSet, text},
    metrics::MetricType,
    registry::{Registry, Unit},
};

use super::ledger::{Carried, Handshakes, Outcomes, Tunnel, Tunnels};
use crate::{
    dataplane::{self, WorkerSnapshot},
    ike::Discard,
    ipsec::DropReason,
};

/// The daemon at one moment.
#[derive(Debug)]
pub(in crate::daemon) struct Snapshot {
    pub(in crate::daemon) uptime: Duration,
    pub(in crate::daemon) half_open: u64,
    /// In the order of [`Discard::ALL`].
    pub(in crate::daemon) discards: [u64; Discard::COUNT],
    pub(in crate::daemon) keepalives: u64,
    pub(in crate::daemon) dataplane: dataplane::Snapshot,
    /// Commands that wait for each worker.
    pub(in crate::daemon) backlogs: Vec<u64>,
    pub(in crate::daemon) tunnels: Tunnels,
}

/// The text of a snapshot.
pub(super) fn render(snapshot: Arc<Snapshot>) -> String {
    let mut registry = Registry::with_prefix("lockgate");
    let size = SIZE_ALONE + SIZE_PER_TUNNEL * snapshot.tunnels.children.len();
    registry.register_collector(Box::new(Page(snapshot)));
    let mut text = String::with_capacity(size);
    text::encode(&mut text, &registry).expect("a String takes every write");
    text
}

#[derive(Debug)]
struct Page(Arc<Snapshot>);

impl Collector for Page {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut page = Writer(encoder);
        page.process(&self.0)?;
        page.ike(&self.0)?;
        page.children(&self.0.tunnels.children)?;
        page.workers(&self.0.dataplane.workers)?;
        page.offloads(&self.0.dataplane.workers)?;
        page.residence(&self.0.dataplane.workers)?;
        let backlogs = (0_u16..).zip(&self.0.backlogs);
        let backlogs = backlogs.map(|(number, count)| ([("worker", number)], *count));
        page.gauges(
            "worker_commands_waiting",
            "Changes of SAs not taken in yet",
            backlogs,
        )
    }
}

struct Writer<'a>(DescriptorEncoder<'a>);

impl Writer<'_> {
    fn process(&mut self, snapshot: &Snapshot) -> fmt::Result {
        // A gauge, since the older text format has no type for information.
        let labels = [("version", env!("CARGO_PKG_VERSION"))];
        self.gauges("build_info", "The running program", [(labels, 1)])?;
        let help = "Time since the daemon started";
        let unit = Some(&Unit::Seconds);
        self.0
            .encode_descriptor("uptime", help, unit, MetricType::Gauge)?
            .encode_gauge(&snapshot.uptime.as_secs_f64())
    }

    fn ike(&mut self, snapshot: &Snapshot) -> fmt::Result {
        let established = snapshot
            .tunnels
            .connections
            .iter()
            .map(|(_, count)| count)
            .sum();
        let sas = [
            ("established", established),
            ("half-open", snapshot.half_open),
        ];
        let sas = sas.map(|(state, count)| ([("state", state)], count));
        self.gauges("ike_sas", "IKE SAs now", sas)?;
        let up = snapshot.tunnels.connections.iter();
        let up = up.map(|(c, count)| ([("connection", c.name.as_str())], *count));
        let help = "Established IKE SAs of a configured connection";
        self.gauges("ike_sa_up", help, up)?;

        let Handshakes {
            initiator,
            responder,
            ike_rekeys,
            children,
            child_rekeys,
        } = snapshot.tunnels.handshakes;
        let roles = [("initiator", initiator), ("responder", responder)];
        let ends = roles.into_iter().flat_map(|(role, outcomes)| {
            let Outcomes {
                established,
                failed,
            } = outcomes;
            let ends = [("established", established), ("failed", failed)];
            ends.map(|(outcome, count)| ([("role", role), ("outcome", outcome)], count))
        });
        let help = "IKE SAs that were established or failed before";
        self.counters("ike_handshakes", help, None, ends)?;
        for (name, help, count) in [
            ("ike_rekeys", "IKE SAs that replaced another", ike_rekeys),
            ("child_sas_installed", "Child SAs that are new", children),
            (
                "child_rekeys",
                "Child SAs that replaced another",
                child_rekeys,
            ),
            (
                "nat_keepalives",
                "NAT keepalives received",
                snapshot.keepalives,
            ),
        ] {
            self.counters(name, help, None, [(NO_LABELS, count)])?;
        }
        let discards = Discard::ALL.iter().zip(snapshot.discards);
        let discards = discards.map(|(reason, count)| ([("reason", reason.name())], count));
        self.counters(
            "ike_discards",
            "IKE messages ignored or refused",
            None,
            discards,
        )
    }

    fn children(&mut self, tunnels: &[Tunnel]) -> fmt::Result {
        let names = |tunnel: &'_ Tunnel| {
            let (connection, child) = (&tunnel.connection.name, &tunnel.child.name);
            [("connection", connection.clone()), ("child", child.clone())]
        };
        let up = tunnels
            .iter()
            .map(|tunnel| (names(tunnel), tunnel.carried.installed));
        self.gauges("child_sa_up", "Child SAs of a configured child", up)?;
        let traffic = || {
            tunnels.iter().flat_map(|tunnel| {
                let Carried {
                    inbound, outbound, ..
                } = tunnel.carried;
                directions(inbound, outbound)
                    .map(|(direction, traffic)| ((names(tunnel), direction), traffic))
            })
        };
        let packets = traffic().map(|(labels, traffic)| (labels, traffic.packets));
        let help = "Inner packets of a configured child, over all of its SAs";
        self.counters("child_packets", help, None, packets)?;
        let bytes = traffic().map(|(labels, traffic)| (labels, traffic.bytes));
        let help = "Inner bytes of a configured child, over all of its SAs";
        self.counters("child", help, Some(&Unit::Bytes), bytes)
    }

    fn workers(&mut self, workers: &[WorkerSnapshot]) -> fmt::Result {
        let each = || (0_u16..).zip(workers);
        let traffic = || {
            each().flat_map(|(number, worker)| {
                directions(worker.inbound, worker.outbound)
                    .map(|(direction, traffic)| (([("worker", number)], direction), traffic))
            })
        };
        let packets = traffic().map(|(labels, traffic)| (labels, traffic.packets));
        self.counters("worker_packets", "Inner packets", None, packets)?;
        let bytes = traffic().map(|(labels, traffic)| (labels, traffic.bytes));
        self.counters("worker", "Inner bytes", Some(&Unit::Bytes), bytes)?;

        let drops = each().flat_map(|(number, worker)| {
            let count = move |reason: DropReason| {
                let labels = ([("worker", number)], [("reason", reason.name())]);
                (labels, worker.dropped(reason))
            };
            DropReason::ALL.map(count)
        });
        self.counters("worker_drops", "Packets dropped", None, drops)?;
        self.worker_counts(workers)?;
        self.worker_supers(workers)
    }

    /// What each worker counts without regard to the direction.
    fn worker_counts(&mut self, workers: &[WorkerSnapshot]) -> fmt::Result {
        let plain: [PerWorker; 6] = [
            ("worker_bursts", "Bursts read", |worker| worker.bursts),
            ("worker_system_calls", "System calls made", |worker| {
                worker.calls
            }),
            (
                "worker_read_errors",
                "Reads from the TUN and the sockets that failed",
                |worker| worker.read_errors,
            ),
            (
                "worker_handed_off",
                "Packets given to the worker that owns their SA",
                |worker| worker.handed_off,
            ),
            (
                "worker_taken_over",
                "Packets that another worker gave to this one",
                |worker| worker.taken_over,
            ),
            (
                "worker_too_big_replies",
                "ICMP messages that told a host of the tunnel's MTU",
                |worker| worker.too_big_replies,
            ),
        ];
        for (name, help, count) in plain {
            let counts = (0_u16..).zip(workers);
            let counts = counts.map(|(number, worker)| ([("worker", number)], count(worker)));
            self.counters(name, help, None, counts)?;
        }
        Ok(())
    }

    /// What each worker has moved in super-packets and trains.
    fn worker_supers(&mut self, workers: &[WorkerSnapshot]) -> fmt::Result {
        let directed: [PerDirection; 3] = [
            (
                "worker_super_packets",
                "Super-packets read from and written to the TUN",
                |worker| [worker.super_in, worker.super_out],
            ),
            (
                "worker_trains",
                "Trains of datagrams received and sent as one",
                |worker| [worker.trains_in, worker.trains_out],
            ),
            (
                "worker_train_packets",
                "Datagrams that came and went in trains",
                |worker| [worker.train_packets_in, worker.train_packets_out],
            ),
        ];
        for (name, help, counts) in directed {
            let counts = (0_u16..).zip(workers).flat_map(|(number, worker)| {
                let [inbound, outbound] = counts(worker);
                directions(inbound, outbound)
                    .map(|(direction, count)| (([("worker", number)], direction), count))
            });
            self.counters(name, help, None, counts)?;
        }
        Ok(())
    }

    fn offloads(&mut self, workers: &[WorkerSnapshot]) -> fmt::Result {
        let active = (0_u16..).zip(workers).flat_map(|(number, worker)| {
            let offloads = worker.offloads.iter();
            offloads.map(move |(name, is_active)| {
                let labels = ([("worker", number)], [("offload", name)]);
                (labels, u64::from(is_active))
            })
        });
        self.gauges("offload_active", "Whether an offload is in use", active)
    }

    fn residence(&mut self, workers: &[WorkerSnapshot]) -> fmt::Result {
        let (help, unit) = ("Time that packets spend in the gateway", &Unit::Seconds);
        let kind = MetricType::Histogram;
        let mut metric = self
            .0
            .encode_descriptor("residence", help, Some(unit), kind)?;
        for (number, worker) in (0_u16..).zip(workers) {
            let both = directions(&worker.residence_inbound, &worker.residence_outbound);
            for (direction, times) in both {
                let count = times.count();
                let mut below = 0;
                let finite = BOUNDS.iter().map(|&bound| {
                    let within = times.count_within(Duration::from_secs_f64(bound));
                    let bucket = within - below;
                    below = within;
                    (bound, bucket)
                });
                let mut buckets: Vec<(f64, u64)> = finite.collect();
                buckets.push((f64::INFINITY, count - below));
                metric
                    .encode_family(&([("worker", number)], direction))?
                    .encode_histogram::<NoLabelSet>(
                        times.sum().as_secs_f64(),
                        count,
                        &buckets,
                        None,
                    )?;
            }
        }
        Ok(())
    }

    fn counters<L: EncodeLabelSet>(
        &mut self,
        name: &str,
        help: &str,
        unit: Option<&Unit>,
        series: impl IntoIterator<Item = (L, u64)>,
    ) -> fmt::Result {
        let kind = MetricType::Counter;
        let mut metric = self.0.encode_descriptor(name, help, unit, kind)?;
        for (labels, count) in series {
            metric
                .encode_family(&labels)?
                .encode_counter::<NoLabelSet, _, u64>(&count, None)?;
        }
        Ok(())
    }

    fn gauges<L: EncodeLabelSet>(
        &mut self,
        name: &str,
        help: &str,
        series: impl IntoIterator<Item = (L, u64)>,
    ) -> fmt::Result {
        let kind = MetricType::Gauge;
        let mut metric = self.0.encode_descriptor(name, help, None, kind)?;
        for (labels, count) in series {
            metric.encode_family(&labels)?.encode_gauge(&count)?;
        }
        Ok(())
    }
}

/// Name, help and value of a counter that each worker has once.
type PerWorker = (&'static str, &'static str, fn(&WorkerSnapshot) -> u64);
/// The same for one that each worker has for each direction.
type PerDirection = (&'static str, &'static str, fn(&WorkerSnapshot) -> [u64; 2]);
type Direction = [(&'static str, &'static str); 1];

fn directions<T>(inbound: T, outbound: T) -> [(Direction, T); 2] {
    [
        ([("direction", "in")], inbound),
        ([("direction", "out")], outbound),
    ]
}

/// Upper bounds of the residence times that are told apart, in seconds.
const BOUNDS: [f64; 19] = [
    1e-6, 2e-6, 5e-6, 1e-5, 2e-5, 5e-5, 1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2, 2e-2, 5e-2, 0.1,
    0.2, 0.5, 1.0,
];
const NO_LABELS: [(&str, &str); 0] = [];
/// Enough for most pages, so that the text does not grow step by step.
const SIZE_ALONE: usize = 32 << 10;
const SIZE_PER_TUNNEL: usize = 512;
