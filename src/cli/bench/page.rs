//! The figures as a page with plots.

use super::{
    Figures, Stage, breakdown,
    lab::LabFigures,
    scene::{IMIX, IMIX_PARTS},
    table::{find, full_size, sizes, suites},
};
use crate::lab::{
    machine::Machine,
    report::{
        Axis, Bar, BarChart, BarGroup, Better, Block, LineChart, Page, Scale, Section, Series,
        StackChart, Table, Tile, figure,
    },
};

/// The page of the stages in this process.
pub(super) fn in_process(all: &Figures) -> Page {
    let names = suites(all);
    let best = names
        .iter()
        .filter_map(|suite| Some((*suite, full_size(all, suite)?)))
        .filter_map(|(suite, size)| {
            Some((suite, size, find(all, Stage::Outbound, Some(suite), size)?))
        })
        .max_by(|a, b| a.2.gbit_per_s.total_cmp(&b.2.gbit_per_s));
    let mut tiles = Vec::new();
    if let Some((suite, size, outbound)) = best {
        let rate = |stage| find(all, stage, Some(suite), size).map_or(f64::NAN, |f| f.gbit_per_s);
        let time =
            |stage| find(all, stage, Some(suite), size).map_or(f64::NAN, |f| f.ns_per_packet);
        let note = format!("{suite}, {size} bytes, one core");
        tiles.push(tile("Outbound", outbound.gbit_per_s, "Gbit/s", &note));
        tiles.push(tile("Inbound", rate(Stage::Inbound), "Gbit/s", &note));
        let seal = time(Stage::EspSeal) / time(Stage::AeadSeal);
        tiles.push(tile("ESP seal", seal, "× the cipher", &note));
        let open = time(Stage::EspOpen) / time(Stage::AeadOpen);
        tiles.push(tile("ESP open", open, "× the cipher", &note));
    }
    let mut throughput = Section {
        title: "The whole packet path".to_owned(),
        text:
            "From what a TUN read gives to sealed datagrams, and from received trains to what is \
               written to the TUN, without the system calls. One core; bulk TCP in super-packets."
                .to_owned(),
        blocks: vec![
            by_size(all, "Outbound", Stage::Outbound),
            by_size(all, "Inbound", Stage::Inbound),
        ],
    };
    throughput.blocks.extend(mixed(all));
    let mut sections = vec![throughput, stages(all), ciphers(all)];
    sections.extend(workers(all));
    sections.push(Section {
        title: "All figures".to_owned(),
        text: String::new(),
        blocks: vec![Block::Table(everything(all))],
    });
    let method = vec![
        (
            "A figure is",
            "the median of slices of a millisecond".to_owned(),
        ),
        (
            "Time for each figure",
            format!("{} s", all.seconds_per_figure),
        ),
        (
            "Cycles are",
            "of the time-stamp counter, which runs at one rate".to_owned(),
        ),
        (
            "Its rate",
            all.tsc_ghz
                .map_or_else(|| "–".to_owned(), |rate| format!("{rate:.3} GHz")),
        ),
    ];
    sections.push(origin(&all.machine, all.version, method));
    Page {
        title: "Lockgate, stage by stage".to_owned(),
        subtitle: "What a packet costs inside the gateway, measured in one process.".to_owned(),
        tiles,
        sections,
    }
}

fn by_size(all: &Figures, title: &str, stage: Stage) -> Block {
    let series = suites(all).into_iter().map(|suite| {
        let points = sizes(all, suite).into_iter().filter_map(|size| {
            let rate = find(all, stage, Some(suite), size)?.gbit_per_s;
            Some((size.parse().ok()?, rate))
        });
        Series {
            name: suite.to_owned(),
            points: points.collect(),
        }
    });
    let series: Vec<Series> = series.collect();
    let ticks = series
        .first()
        .map(|first| first.points.iter().map(|point| point.0).collect());
    Block::Lines(LineChart {
        title: title.to_owned(),
        x: Axis {
            ticks: ticks.unwrap_or_default(),
            ..axis("inner packet, bytes", Scale::Log)
        },
        y: axis("Gbit/s", Scale::Linear),
        series,
    })
}

/// The whole path for the mix of sizes, if that was measured.
fn mixed(all: &Figures) -> Option<Block> {
    let groups = [("outbound", Stage::Outbound), ("inbound", Stage::Inbound)];
    let groups = groups.map(|(label, stage)| {
        let bars = suites(all).into_iter().filter_map(|suite| {
            let value = find(all, stage, Some(suite), IMIX)?.gbit_per_s;
            Some(bar(suite, value, true))
        });
        BarGroup {
            label: label.to_owned(),
            bars: bars.collect(),
        }
    });
    let some = groups.iter().any(|group| !group.bars.is_empty());
    some.then(|| {
        Block::Bars(BarChart {
            title: format!("IMIX: {IMIX_PARTS}, one by one"),
            unit: "Gbit/s".to_owned(),
            better: Better::Higher,
            groups: groups.to_vec(),
        })
    })
}

/// Where the time of a packet goes, for each suite at the size nearest to a full segment.
fn stages(all: &Figures) -> Section {
    let mut blocks = Vec::new();
    for (title, stages, parts) in [
        (
            "Outbound",
            [
                Stage::AeadSeal,
                Stage::EspSeal,
                Stage::Split,
                Stage::Outbound,
            ],
            [
                "cipher",
                "ESP around it",
                "split and checksum",
                "policy, SA, queue",
            ],
        ),
        (
            "Inbound",
            [
                Stage::AeadOpen,
                Stage::EspOpen,
                Stage::Merge,
                Stage::Inbound,
            ],
            [
                "cipher",
                "ESP around it",
                "checksum and merge",
                "SA, selectors, rest",
            ],
        ),
    ] {
        let rows = suites(all).into_iter().filter_map(|suite| {
            let size = full_size(all, suite)?;
            let [cipher, esp, offload, whole] = stages.map(|stage| {
                let suite = (!matches!(stage, Stage::Split | Stage::Merge)).then_some(suite);
                find(all, stage, suite, size).map_or(f64::NAN, |figure| figure.ns_per_packet)
            });
            let around = (esp - cipher).max(0.0);
            let rest = (whole - cipher - around - offload).max(0.0);
            Some((
                format!("{suite}, {size} bytes"),
                vec![cipher, around, offload, rest],
            ))
        });
        blocks.push(Block::Stack(StackChart {
            title: title.to_owned(),
            unit: "ns a packet".to_owned(),
            parts: parts.map(str::to_owned).to_vec(),
            rows: rows.collect(),
        }));
    }
    Section {
        title: "Where the time goes".to_owned(),
        text: "Each part was measured by itself; the last one is what the whole takes beyond them."
            .to_owned(),
        blocks,
    }
}

/// ESP beside the bare cipher.
fn ciphers(all: &Figures) -> Section {
    let mut groups = Vec::new();
    for suite in suites(all) {
        let Some(size) = full_size(all, suite) else {
            continue;
        };
        for (doing, cipher, esp) in [
            ("seal", Stage::AeadSeal, Stage::EspSeal),
            ("open", Stage::AeadOpen, Stage::EspOpen),
        ] {
            let bars = [("cipher", cipher, false), ("ESP", esp, true)];
            let bars = bars.into_iter().filter_map(|(name, stage, ours)| {
                let value = find(all, stage, Some(suite), size)?.ns_per_packet;
                Some(bar(name, value, ours))
            });
            groups.push(BarGroup {
                label: format!("{suite}, {size} bytes, {doing}"),
                bars: bars.collect(),
            });
        }
    }
    Section {
        title: "ESP beside its cipher".to_owned(),
        text: "ESP adds sequence number, padding, replay window and selectors to the cipher, and \
               sealing copies the packet."
            .to_owned(),
        blocks: vec![Block::Bars(BarChart {
            title: "Sealing and opening one packet".to_owned(),
            unit: "ns".to_owned(),
            better: Better::Lower,
            groups,
        })],
    }
}

fn workers(all: &Figures) -> Option<Section> {
    let mut figures = all.figures.iter();
    let scaled = figures.find(|figure| figure.stage == Stage::ScalingOutbound)?;
    let groups = [
        ("outbound", Stage::ScalingOutbound),
        ("inbound", Stage::ScalingInbound),
    ];
    let groups = groups.map(|(label, stage)| BarGroup {
        label: label.to_owned(),
        bars: all
            .figures
            .iter()
            .filter(|figure| figure.stage == stage)
            .map(|figure| {
                let shared = if usize::from(figure.workers) > all.machine.cores {
                    format!(" on {} cores", all.machine.cores)
                } else {
                    String::new()
                };
                let plural = if figure.workers == 1 { "" } else { "s" };
                let name = format!("{} worker{plural}{shared}", figure.workers);
                bar(&name, figure.gbit_per_s, true)
            })
            .collect(),
    });
    let suite = scaled.suite.unwrap_or_default();
    Some(Section {
        title: "More workers".to_owned(),
        text: "Each on a core of its own, nothing shared; medians of rounds in turn.".to_owned(),
        blocks: vec![Block::Bars(BarChart {
            title: format!("{suite}, {} bytes", scaled.size),
            unit: "Gbit/s".to_owned(),
            better: Better::Higher,
            groups: groups.to_vec(),
        })],
    })
}

fn everything(all: &Figures) -> Table {
    let columns = [
        "stage", "suite", "bytes", "workers", "ns", "cycles", "Gbit/s",
    ];
    let row = |one: &super::Figure| {
        let cycles = one.cycles_per_packet.unwrap_or(f64::NAN);
        vec![
            one.stage.name().to_owned(),
            one.suite.unwrap_or("–").to_owned(),
            one.size.clone(),
            one.workers.to_string(),
            figure(one.ns_per_packet),
            figure(cycles),
            figure(one.gbit_per_s),
        ]
    };
    Table {
        title: String::new(),
        columns: columns.map(str::to_owned).to_vec(),
        rows: all.figures.iter().map(row).collect(),
    }
}

/// The page of a lab.
pub(super) fn lab(all: &LabFigures) -> Page {
    let mut tiles = Vec::new();
    for tcp in &all.tcp {
        let label = format!("TCP, {}", streams(tcp.streams));
        let note = format!("{} CPU s per Gbit", figure(tcp.cpu_s_per_gbit));
        tiles.push(tile(&label, tcp.gbit_per_s, "Gbit/s", &note));
    }
    for udp in &all.udp {
        let note = if udp.sender_limited {
            "or more: limit of the generator".to_owned()
        } else {
            format!("{} Gbit/s", figure(udp.gbit_per_s))
        };
        tiles.push(tile(&kind(udp), udp.packets_per_s / 1e3, "kpps", &note));
    }
    for trip in &all.round_trips {
        let label = format!("Round trip {}", trip.load);
        let note = format!("p99 {} µs", figure(trip.p99_us));
        tiles.push(tile(&label, trip.p50_us, "µs", &note));
    }
    let mode = if all.wire {
        "the link between the gateways takes datagrams one by one, as a wire does"
    } else {
        "the link between the gateways hands trains of datagrams over in one piece"
    };
    let method = vec![
        (
            "Lab",
            "host, gateway, gateway, host in four network namespaces of one machine".to_owned(),
        ),
        ("Link", mode.to_owned()),
        ("Inner MTU", all.inner_mtu.to_string()),
        ("Trial", format!("{} s", all.seconds_per_trial)),
        (
            "UDP rate",
            "received at the highest rate with at most 0.1 % loss, by bisection".to_owned(),
        ),
        (
            "Round trips",
            "1000 probes a second on a schedule, each from the time it was due; a lost one is slower than all others"
                .to_owned(),
        ),
        ("CPU", "both gateways, all threads".to_owned()),
    ];
    Page {
        title: "Lockgate, end to end".to_owned(),
        subtitle: format!("Two gateways and two hosts on one machine; {mode}."),
        tiles,
        sections: vec![
            rates(all),
            breakdown::section(all),
            latency(all),
            inside(all),
            origin(&all.machine, all.version, method),
        ],
    }
}

fn rates(all: &LabFigures) -> Section {
    let tcp = |title: &str, unit: &str, better, value: fn(&super::lab::Tcp) -> f64| {
        let bars = all
            .tcp
            .iter()
            .map(|tcp| bar(&streams(tcp.streams), value(tcp), true));
        Block::Bars(BarChart {
            title: title.to_owned(),
            unit: unit.to_owned(),
            better,
            groups: vec![BarGroup {
                label: String::new(),
                bars: bars.collect(),
            }],
        })
    };
    let udp = all.udp.iter().map(|udp| {
        let limit = if udp.sender_limited {
            " (at least: limit of the generator)"
        } else {
            ""
        };
        bar(&(kind(udp) + limit), udp.packets_per_s / 1e3, true)
    });
    Section {
        title: "Throughput".to_owned(),
        text: String::new(),
        blocks: vec![
            tcp("TCP", "Gbit/s", Better::Higher, |tcp| tcp.gbit_per_s),
            tcp(
                "Processor time of both gateways",
                "CPU s per Gbit",
                Better::Lower,
                |tcp| tcp.cpu_s_per_gbit,
            ),
            tcp(
                "System calls of both gateways",
                "a packet",
                Better::Lower,
                |tcp| tcp.system_calls_per_packet,
            ),
            Block::Bars(BarChart {
                title: "UDP without loss".to_owned(),
                unit: "kpps".to_owned(),
                better: Better::Higher,
                groups: vec![BarGroup {
                    label: String::new(),
                    bars: udp.collect(),
                }],
            }),
        ],
    }
}

fn latency(all: &LabFigures) -> Section {
    let series = all.round_trips.iter().map(|trip| Series {
        name: trip.load.to_owned(),
        points: trip.curve.clone(),
    });
    let rows = all.round_trips.iter().map(|trip| {
        let times = [
            trip.p50_us,
            trip.p90_us,
            trip.p99_us,
            trip.p999_us,
            trip.max_us,
        ];
        let mut row = vec![trip.load.to_owned()];
        row.extend(times.map(figure));
        row.extend([trip.answered.to_string(), trip.lost.to_string()]);
        row
    });
    let columns = [
        "load", "p50", "p90", "p99", "p99.9", "max", "answered", "lost",
    ];
    Section {
        title: "Round trips".to_owned(),
        text: "From host to host and back, through both gateways twice.".to_owned(),
        blocks: vec![
            Block::Lines(LineChart {
                title: "By percentile".to_owned(),
                x: axis("percentile", Scale::Percentile),
                y: axis("µs", Scale::Log),
                series: series.collect(),
            }),
            Block::Table(Table {
                title: "Microseconds".to_owned(),
                columns: columns.map(str::to_owned).to_vec(),
                rows: rows.collect(),
            }),
        ],
    }
}

fn inside(all: &LabFigures) -> Section {
    let gateway = &all.gateway;
    let groups = ["p50-ns", "p99-ns"].map(|key| BarGroup {
        label: key.trim_end_matches("-ns").to_owned(),
        bars: [("out", "into the tunnel"), ("in", "out of the tunnel")]
            .into_iter()
            .filter_map(|(direction, name)| {
                let value = *gateway.residence.get(direction)?.get(key)?;
                Some(bar(name, value as f64 / 1e3, true))
            })
            .collect(),
    });
    let pairs = |map: Vec<(String, String)>| map.into_iter().map(|(a, b)| vec![a, b]).collect();
    let offloads = gateway
        .offloads
        .iter()
        .map(|(name, state)| (name.clone(), state.clone()));
    let drops = gateway
        .drops
        .iter()
        .map(|(name, count)| (name.clone(), count.to_string()));
    let mut section = Section {
        title: "Inside gateway A".to_owned(),
        text: "Over the whole run.".to_owned(),
        blocks: vec![
            Block::Bars(BarChart {
                title: "Time of a packet in the gateway".to_owned(),
                unit: "µs".to_owned(),
                better: Better::Lower,
                groups: groups.to_vec(),
            }),
            Block::Table(Table {
                title: "Offloads".to_owned(),
                columns: Vec::new(),
                rows: pairs(offloads.collect()),
            }),
        ],
    };
    if !gateway.drops.is_empty() {
        section.blocks.push(Block::Table(Table {
            title: "Packets dropped; the search overloads on purpose".to_owned(),
            columns: Vec::new(),
            rows: pairs(drops.collect()),
        }));
    }
    section
}

/// Machine and method.
fn origin(machine: &Machine, version: &str, method: Vec<(&str, String)>) -> Section {
    let mut rows = vec![
        ("Lockgate", version.to_owned()),
        ("Processor", machine.processor.clone()),
        ("Cores", machine.cores.to_string()),
        (
            "Virtual machine",
            if machine.virtual_machine { "yes" } else { "no" }.to_owned(),
        ),
        ("Kernel", format!("Linux {}", machine.kernel)),
        ("Memory", format!("{} MiB", machine.memory_mib)),
    ];
    rows.extend(method);
    Section {
        title: "Machine and method".to_owned(),
        text: String::new(),
        blocks: vec![Block::Table(Table {
            title: String::new(),
            columns: Vec::new(),
            rows: rows
                .into_iter()
                .map(|(name, value)| vec![name.to_owned(), value])
                .collect(),
        })],
    }
}

/// How many streams, in words.
pub(super) fn streams(count: usize) -> String {
    match count {
        1 => "1 stream".to_owned(),
        many => format!("{many} streams"),
    }
}

/// What kind of UDP traffic it was.
pub(super) fn kind(udp: &super::lab::Udp) -> String {
    let super_packets = if udp.train > 1 {
        " in super-packets"
    } else {
        ""
    };
    format!("UDP, {} bytes{super_packets}", udp.payload)
}

fn tile(label: &str, value: f64, unit: &str, note: &str) -> Tile {
    Tile {
        label: label.to_owned(),
        value: figure(value),
        unit: unit.to_owned(),
        note: note.to_owned(),
    }
}

fn bar(name: &str, value: f64, ours: bool) -> Bar {
    Bar {
        name: name.to_owned(),
        value,
        range: None,
        ours,
    }
}

fn axis(label: &str, scale: Scale) -> Axis {
    Axis {
        label: label.to_owned(),
        scale,
        ticks: Vec::new(),
    }
}
