//! The figures as aligned text.

use std::fmt;

use super::{
    Figure, Figures, Stage, breakdown,
    lab::LabFigures,
    page::{kind, streams},
    scene::{IMIX, IMIX_PARTS},
};

/// Prints [`Figures`] for people.
pub(super) struct Text<'a>(pub(super) &'a Figures);

impl fmt::Display for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(all) = self;
        writeln!(f, "{}", heading(all))?;
        for suite in suites(all) {
            writeln!(f, "\n{suite}, one worker")?;
            write_suite(f, all, suite)?;
        }
        if all.figures.iter().any(|figure| figure.size == IMIX) {
            writeln!(f, "\n{IMIX}: {IMIX_PARTS}, per packet")?;
        }
        writeln!(f, "\nwithout cipher, one worker")?;
        write_others(f, all)?;
        write_workers(f, all)
    }
}

/// The suites, each once.
pub(super) fn suites(all: &Figures) -> Vec<&'static str> {
    let mut suites = Vec::new();
    for suite in all.figures.iter().filter_map(|figure| figure.suite) {
        if !suites.contains(&suite) {
            suites.push(suite);
        }
    }
    suites
}

fn heading(all: &Figures) -> String {
    let machine = &all.machine;
    let virtual_machine = if machine.virtual_machine {
        ", virtual machine"
    } else {
        ""
    };
    let counter = all
        .tsc_ghz
        .map(|rate| format!("; cycles are of the time-stamp counter, {rate:.2} GHz"));
    format!(
        "lockgate {} on {}, {} cores{virtual_machine}, Linux {}\nmedian of slices of a millisecond, {} s a figure{}",
        all.version,
        machine.processor,
        machine.cores,
        machine.kernel,
        all.seconds_per_figure,
        counter.unwrap_or_default()
    )
}

fn write_suite(f: &mut fmt::Formatter<'_>, all: &Figures, suite: &str) -> fmt::Result {
    writeln!(
        f,
        "{:>7} │ {:>9} {:>9} {:>6} │ {:>9} {:>9} {:>6} │ {:>9} {:>7} {:>7} │ {:>9} {:>7} {:>7}",
        "bytes", "cipher", "ESP", "", "cipher", "ESP", "", "outbound", "", "", "inbound", "", ""
    )?;
    writeln!(
        f,
        "{:>7} │ {:>9} {:>9} {:>6} │ {:>9} {:>9} {:>6} │ {:>9} {:>7} {:>7} │ {:>9} {:>7} {:>7}",
        "",
        "seal ns",
        "seal ns",
        "ratio",
        "open ns",
        "open ns",
        "ratio",
        "ns",
        "cycles",
        "Gbit/s",
        "ns",
        "cycles",
        "Gbit/s"
    )?;
    for size in sizes(all, suite) {
        let find = |stage| find(all, stage, Some(suite), size);
        let time = |stage| find(stage).map_or(f64::NAN, |figure: &Figure| figure.ns_per_packet);
        let [seal, esp_seal] = [Stage::AeadSeal, Stage::EspSeal].map(time);
        let [open, esp_open] = [Stage::AeadOpen, Stage::EspOpen].map(time);
        write!(
            f,
            "{size:>7} │ {seal:>9.0} {esp_seal:>9.0} {:>6.2} │ {open:>9.0} {esp_open:>9.0} {:>6.2}",
            esp_seal / seal,
            esp_open / open
        )?;
        for stage in [Stage::Outbound, Stage::Inbound] {
            let figure = find(stage);
            let cycles = figure.and_then(|figure| figure.cycles_per_packet);
            let rate = figure.map_or(f64::NAN, |figure| figure.gbit_per_s);
            write!(
                f,
                " │ {:>9.0} {:>7.0} {rate:>7.2}",
                time(stage),
                cycles.unwrap_or(f64::NAN)
            )?;
        }
        writeln!(f)?;
    }
    Ok(())
}

fn write_others(f: &mut fmt::Formatter<'_>, all: &Figures) -> fmt::Result {
    writeln!(
        f,
        "{:>7} │ {:>9} {:>7} {:>8}",
        "bytes", "ns", "cycles", "Gbit/s"
    )?;
    for figure in all.figures.iter().filter(|figure| figure.suite.is_none()) {
        let cycles = figure.cycles_per_packet.unwrap_or(f64::NAN);
        let name = figure.stage.name();
        // A window has no bits to carry.
        let rate = if figure.stage == Stage::Replay {
            String::new()
        } else {
            format!("{:.1}", figure.gbit_per_s)
        };
        writeln!(
            f,
            "{:>7} │ {:>9.1} {cycles:>7.0} {rate:>8}  {name}",
            figure.size, figure.ns_per_packet
        )?;
    }
    Ok(())
}

fn write_workers(f: &mut fmt::Formatter<'_>, all: &Figures) -> fmt::Result {
    let many: Vec<&Figure> = all
        .figures
        .iter()
        .filter(|figure| figure.stage == Stage::ScalingOutbound)
        .collect();
    let Some(first) = many.first() else {
        return Ok(());
    };
    let suite = first.suite.unwrap_or_default();
    writeln!(f, "\n{suite}, {} bytes, by workers, Gbit/s", first.size)?;
    writeln!(
        f,
        "{:>7} │ {:>9} {:>6} │ {:>9} {:>6}",
        "workers", "outbound", "", "inbound", ""
    )?;
    let most = many.iter().map(|figure| figure.workers).max().unwrap_or(1);
    for workers in 1..=most {
        let rate = |stage, workers| {
            let mut figures = all.figures.iter();
            let figure = figures.find(|one| one.stage == stage && one.workers == workers);
            figure.map_or(f64::NAN, |figure| figure.gbit_per_s)
        };
        write!(f, "{workers:>7}")?;
        for stage in [Stage::ScalingOutbound, Stage::ScalingInbound] {
            let (one, these) = (rate(stage, 1), rate(stage, workers));
            write!(f, " │ {these:>9.2} {:>5.2}×", these / one)?;
        }
        if usize::from(workers) > all.machine.cores {
            write!(f, "  they share {} cores", all.machine.cores)?;
        }
        writeln!(f)?;
    }
    Ok(())
}

/// The sizes of a suite, in the order in which they were measured.
pub(super) fn sizes<'a>(all: &'a Figures, suite: &str) -> Vec<&'a str> {
    let figures = all.figures.iter();
    figures
        .filter(|figure| figure.suite == Some(suite) && figure.stage == Stage::EspSeal)
        .map(|figure| figure.size.as_str())
        .collect()
}

/// The size nearest to a full segment.
pub(super) fn full_size<'a>(all: &'a Figures, suite: &str) -> Option<&'a str> {
    let length = |size: &&str| size.parse::<usize>().ok();
    let sizes = sizes(all, suite).into_iter();
    let fitting = sizes.filter(|size| length(size).is_some_and(|length| length <= 1500));
    fitting.max_by_key(length)
}

/// The figure of one worker.
pub(super) fn find<'a>(
    all: &'a Figures,
    stage: Stage,
    suite: Option<&str>,
    size: &str,
) -> Option<&'a Figure> {
    all.figures.iter().find(|figure| {
        figure.stage == stage && figure.suite == suite && figure.size == size && figure.workers == 1
    })
}

/// Prints [`LabFigures`] for people.
pub(super) struct LabText<'a>(pub(super) &'a LabFigures);

impl fmt::Display for LabText<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(all) = self;
        let machine = &all.machine;
        let mode = if all.wire {
            ", the outer link like a wire"
        } else {
            ""
        };
        writeln!(
            f,
            "lockgate {} on {}, {} cores, Linux {}\ninner MTU {}, {} s a trial{mode}\n",
            all.version,
            machine.processor,
            machine.cores,
            machine.kernel,
            all.inner_mtu,
            all.seconds_per_trial
        )?;
        for tcp in &all.tcp {
            writeln!(
                f,
                "TCP  {:<30} {:>8.2} Gbit/s  {:>6.3} CPU s per Gbit  {:>6.3} system calls a packet",
                streams(tcp.streams),
                tcp.gbit_per_s,
                tcp.cpu_s_per_gbit,
                tcp.system_calls_per_packet
            )?;
        }
        let parts = breakdown::PARTS.join(" + ");
        writeln!(f, "     CPU of both gateways, ns a packet = {parts}")?;
        for tcp in &all.tcp {
            let times = all.in_process.beside(tcp);
            let texts = times.map(|time| format!("{time:.0}"));
            writeln!(
                f,
                "     {:<30} {:>8.0} = {}",
                streams(tcp.streams),
                times.iter().sum::<f64>(),
                texts.join(" + ")
            )?;
        }
        for udp in &all.udp {
            let (least, limit) = if udp.sender_limited {
                ("≥ ", "  (limit of the generator)")
            } else {
                ("", "")
            };
            let rate = format!("{least}{:.1}", udp.packets_per_s / 1e3);
            writeln!(
                f,
                "UDP  {:<30} {rate:>8} kpps    {:>6.2} Gbit/s{limit}",
                kind(udp).trim_start_matches("UDP, "),
                udp.gbit_per_s
            )?;
        }
        for trip in &all.round_trips {
            writeln!(
                f,
                "RTT  {:<30} {:>8.0} µs p50  {:>6.0} p99  {:>6.0} p99.9  {:>6.0} max  {} lost of {}",
                trip.load,
                trip.p50_us,
                trip.p99_us,
                trip.p999_us,
                trip.max_us,
                trip.lost,
                trip.answered + trip.lost
            )?;
        }
        for (direction, name) in [("out", "into the tunnel"), ("in", "out of the tunnel")] {
            let times = all.gateway.residence.get(direction);
            let time = |key| {
                let time = times.and_then(|times| times.get(key));
                time.map_or(f64::NAN, |time| *time as f64 / 1e3)
            };
            writeln!(
                f,
                "in gateway A, {name:<20} {:>9.1} µs p50  {:>6.1} p99",
                time("p50-ns"),
                time("p99-ns")
            )?;
        }
        let offloads = all.gateway.offloads.iter();
        let offloads: Vec<String> = offloads
            .map(|(name, state)| format!("{name} {state}"))
            .collect();
        writeln!(f, "offloads: {}", offloads.join(", "))
    }
}
