//! The report: one page that needs nothing else.

use lockgate::lab::report::{
    Bar, BarChart, BarGroup, Better, Block, Page, Section, Table, Tile, figure,
};

use crate::{
    program::Program,
    results::{Metric, Results},
    targets::{Finding, Verdict, judge},
    tunnel::Mode,
};

/// The page.
pub(crate) fn render(results: &Results) -> String {
    let verdicts = judge(results);
    let mut sections = vec![targets(&verdicts)];
    for mode in [Mode::AsIs, Mode::Wire] {
        sections.extend(charts(results, mode));
    }
    for mode in [Mode::AsIs, Mode::Wire] {
        sections.extend(figures(results, mode));
    }
    sections.push(method(results));
    let page = Page {
        title: "Lockgate beside others".to_owned(),
        subtitle: format!(
            "Host, gateway, gateway, host in four network namespaces of one machine, with the same inner MTU, \
             socket buffers and traffic for every program and all measurements interleaved. Medians of up to {} \
             rounds with the least and the greatest.",
            results.rounds
        ),
        tiles: tiles(results),
        sections,
    };
    page.html()
}

fn tiles(results: &Results) -> Vec<Tile> {
    let mut tiles = Vec::new();
    for (label, mode, metric) in [
        ("TCP, 1 stream", Mode::AsIs, Metric::Tcp1),
        ("TCP, 1 stream, wire", Mode::Wire, Metric::Tcp1),
        ("UDP, 1372 bytes", Mode::AsIs, Metric::UdpLarge),
        ("Round trip beside TCP, p99", Mode::AsIs, Metric::RttLoaded),
    ] {
        let Some(own) = results.summary(Program::Lockgate, mode, metric) else {
            continue;
        };
        let note = results.best_peer(mode, metric).and_then(|peer| {
            let (ours, theirs) = ((Program::Lockgate, mode, metric), (peer, mode, metric));
            let ratio = results.ratio(ours, theirs)?.spread.median;
            Some(format!(
                "{} × {}, the best peer",
                figure(ratio),
                peer.title()
            ))
        });
        tiles.push(Tile {
            label: label.to_owned(),
            value: if own.sender_limited { "≥\u{a0}" } else { "" }.to_owned()
                + &figure(own.spread.median),
            unit: metric.unit().to_owned(),
            note: note.unwrap_or_default(),
        });
    }
    tiles
}

fn targets(verdicts: &[Verdict]) -> Section {
    let count = |wanted| {
        let verdicts = verdicts.iter();
        verdicts
            .filter(|verdict| verdict.finding() == wanted)
            .count()
    };
    let row = |verdict: &Verdict| {
        vec![
            verdict.text.clone(),
            verdict.bound.to_string(),
            verdict.figures(" to "),
            verdict.limit(" to "),
            verdict.rounds.to_string(),
            verdict.word().to_owned(),
        ]
    };
    let columns = [
        "target",
        "bound",
        "median (min to max)",
        "with cipher and guard alone",
        "rounds",
        "verdict",
    ];
    Section {
        title: "Targets".to_owned(),
        text: format!(
            "{} reached, {} missed, {} undecided because the sender was the limit, {} not measured. A ratio is \
             formed within each round.",
            count(Finding::Reached),
            count(Finding::Missed),
            count(Finding::Undecided),
            count(Finding::NotMeasured)
        ),
        blocks: vec![Block::Table(Table {
            title: String::new(),
            columns: columns.map(str::to_owned).to_vec(),
            rows: verdicts.iter().map(row).collect(),
        })],
    }
}

fn charts(results: &Results, mode: Mode) -> Option<Section> {
    let (title, text) = match mode {
        Mode::AsIs => (
            "As is",
            "The link between the gateways carries a train of datagrams in one piece, which flatters every \
             program that sends trains.",
        ),
        Mode::Wire => (
            "Wire mode",
            "Segmentation offload is off on the link between the gateways, so datagrams cross it one by one, \
             as on a wire.",
        ),
    };
    let metrics = results.metrics(mode);
    let blocks = metrics
        .into_iter()
        .map(|metric| chart(results, mode, metric));
    let blocks: Vec<Block> = blocks.collect();
    (!blocks.is_empty()).then(|| Section {
        title: title.to_owned(),
        text: text.to_owned(),
        blocks,
    })
}

fn chart(results: &Results, mode: Mode, metric: Metric) -> Block {
    let bars = results.programs().into_iter().filter_map(|program| {
        let summary = results.summary(program, mode, metric)?;
        let spread = summary.spread;
        let mut name = program.title().to_owned();
        if summary.sender_limited {
            name.push_str(" (at least: limit of the sender)");
        }
        if summary.lost > 0 {
            name.push_str(&format!(" ({} probes lost)", summary.lost));
        }
        if summary.disturbed > 0 {
            name.push_str(" *");
        }
        Some(Bar {
            name,
            value: spread.median,
            range: Some((spread.min, spread.max)),
            ours: program.is_ours(),
        })
    });
    Block::Bars(BarChart {
        title: metric.title().to_owned(),
        unit: metric.unit().to_owned(),
        better: if metric.more_is_better() {
            Better::Higher
        } else {
            Better::Lower
        },
        groups: vec![BarGroup {
            label: String::new(),
            bars: bars.collect(),
        }],
    })
}

fn figures(results: &Results, mode: Mode) -> Option<Section> {
    let metrics = results.metrics(mode);
    if metrics.is_empty() {
        return None;
    }
    let mut columns = vec![String::new()];
    columns.extend(metrics.iter().map(|metric| metric.short().to_owned()));
    let row = |program: Program| {
        let mut cells = vec![program.title().to_owned()];
        cells.extend(metrics.iter().map(|metric| {
            let summary = results.summary(program, mode, *metric);
            summary.map_or("–".to_owned(), |summary| summary.text(" to "))
        }));
        cells
    };
    Some(Section {
        title: format!("All figures, {}", mode.title()),
        text: results.legend().join(". "),
        blocks: vec![Block::Table(Table {
            title: String::new(),
            columns,
            rows: results.programs().into_iter().map(row).collect(),
        })],
    })
}

fn method(results: &Results) -> Section {
    let mut rows = vec![
        ("machine", results.machine.to_string()),
        ("Lockgate", results.revision.clone()),
        ("measured", results.started.clone()),
        ("plan", results.plan.clone()),
        (
            "disturbance",
            format!(
                "at most {:.1} % of the processor time went to other virtual machines during a measurement",
                results.worst_steal() * 100.0
            ),
        ),
    ];
    for (program, version) in &results.versions {
        if program.is_peer() {
            rows.push((program.title(), version.clone()));
        }
    }
    for failure in &results.failures {
        rows.push(("not measured", failure.clone()));
    }
    let rows = rows.into_iter();
    Section {
        title: "Method and machine".to_owned(),
        text: "All processes share the cores, the hosts' included, so a figure tells what is left for the \
               gateways. Compare figures of one page with each other, not with those of another machine."
            .to_owned(),
        blocks: vec![Block::Table(Table {
            title: String::new(),
            columns: vec!["what".to_owned(), String::new()],
            rows: rows.map(|(name, text)| vec![name.to_owned(), text]).collect(),
        })],
    }
}
