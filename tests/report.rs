//! The report page: every figure that is put in can be read on it, and it needs nothing else.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

#[path = "report/markup.rs"]
mod markup;

use lockgate::lab::report::{
    Axis, Bar, BarChart, BarGroup, Better, Block, LineChart, Page, Scale, Section, Series,
    StackChart, Table, Tile,
};

fn axis(label: &str, scale: Scale) -> Axis {
    Axis {
        label: label.to_owned(),
        scale,
        ticks: Vec::new(),
    }
}

fn bar(name: &str, value: f64, ours: bool) -> Bar {
    Bar {
        name: name.to_owned(),
        value,
        range: Some((value * 0.91, value * 1.06)),
        ours,
    }
}

/// A page with one of everything.
fn sample() -> Page {
    let sizes = [64.0, 200.0, 576.0, 1400.0, 8192.0];
    let throughput = |name: &str, top: f64| Series {
        name: name.to_owned(),
        points: sizes
            .map(|size| (size, top * size / (size + 700.0)))
            .to_vec(),
    };
    let percentiles = |name: &str, scale: f64| Series {
        name: name.to_owned(),
        points: [0.0, 50.0, 75.0, 90.0, 95.0, 99.0, 99.5, 99.9, 99.99]
            .map(|p: f64| (p, scale / (1.0 - p / 100.0).powf(0.45)))
            .to_vec(),
    };
    Page {
        title: "Two gateways <side by side>".to_owned(),
        subtitle: "A \"sample\" of everything & more".to_owned(),
        tiles: vec![
            Tile {
                label: "TCP, one stream".to_owned(),
                value: "6.42".to_owned(),
                unit: "Gbit/s".to_owned(),
                note: "median of 5".to_owned(),
            },
            Tile {
                label: "Round trip, idle".to_owned(),
                value: "142".to_owned(),
                unit: "µs".to_owned(),
                note: "p50".to_owned(),
            },
        ],
        sections: vec![Section {
            title: "Throughput".to_owned(),
            text: "What it is about.".to_owned(),
            blocks: vec![
                Block::Bars(BarChart {
                    title: "TCP, one stream".to_owned(),
                    unit: "Gbit/s".to_owned(),
                    better: Better::Higher,
                    groups: ["as is", "wire mode"]
                        .map(|label| BarGroup {
                            label: label.to_owned(),
                            bars: vec![
                                bar("Lockgate", 6.42, true),
                                bar("wireguard-go 2025", 2.31, false),
                                bar(
                                    "a peer with quite a long name, kernel-libipsec",
                                    0.54,
                                    false,
                                ),
                            ],
                        })
                        .to_vec(),
                }),
                Block::Lines(LineChart {
                    title: "Throughput by packet size".to_owned(),
                    x: Axis {
                        ticks: sizes.to_vec(),
                        ..axis("bytes", Scale::Log)
                    },
                    y: axis("Gbit/s", Scale::Linear),
                    series: vec![
                        throughput("aes256gcm16", 22.0),
                        throughput("chacha20poly1305", 7.0),
                    ],
                }),
                Block::Lines(LineChart {
                    title: "Round trips".to_owned(),
                    x: axis("percentile", Scale::Percentile),
                    y: axis("µs", Scale::Log),
                    series: vec![percentiles("idle", 130.0), percentiles("beside TCP", 900.0)],
                }),
                Block::Stack(StackChart {
                    title: "Where the time goes".to_owned(),
                    unit: "ns a packet".to_owned(),
                    parts: ["split", "seal", "send"].map(str::to_owned).to_vec(),
                    rows: vec![
                        ("outbound".to_owned(), vec![100.0, 340.0, 210.0]),
                        ("inbound".to_owned(), vec![60.0, 330.0, 180.0]),
                    ],
                }),
                Block::Table(Table {
                    title: "Machine".to_owned(),
                    columns: Vec::new(),
                    rows: vec![vec!["processor".to_owned(), "one <&> only".to_owned()]],
                }),
            ],
        }],
    }
}

#[test]
fn the_page_is_well_formed_and_refers_to_nothing_outside() {
    let html = sample().html();
    std::fs::write(concat!(env!("CARGO_TARGET_TMPDIR"), "/report.html"), &html).unwrap();
    assert_eq!(markup::check(&html), Ok(()));
    assert_eq!(markup::check(&Page::default().html()), Ok(()));
    let text = html.as_str();
    assert!(text.contains("Two gateways &lt;side by side&gt;"));
    assert!(text.contains("prefers-color-scheme:dark") && text.contains("width=device-width"));
}

#[test]
fn every_plot_shows_its_figures() {
    let html = sample().html();
    assert_eq!(html.matches("<figure>").count(), 4);
    assert_eq!(html.matches("<polyline").count(), 4);
    // One dot for each point, one bar with its whiskers for each value, one rectangle for each part.
    assert_eq!(html.matches("<circle").count(), 2 * 5 + 2 * 9);
    assert_eq!(html.matches("class=\"spread\"").count(), 3 * 6);
    assert_eq!(
        html.matches("style=\"fill:var(--c2)\"><title>send").count(),
        2
    );
    for figure in [
        "6.42",
        "0.36×",
        "p99.99",
        "chacha20poly1305",
        "1400",
        "340",
        "p50",
    ] {
        assert!(html.contains(figure), "{figure}");
    }
}

#[test]
fn nothing_to_show_and_values_that_are_none_make_a_page_all_the_same() {
    let empty = |points: Vec<(f64, f64)>| {
        Block::Lines(LineChart {
            title: String::new(),
            x: axis("", Scale::Log),
            y: axis("", Scale::Log),
            series: vec![Series {
                name: String::new(),
                points,
            }],
        })
    };
    let bars = |value: f64| {
        Block::Bars(BarChart {
            title: String::new(),
            unit: String::new(),
            better: Better::Lower,
            groups: vec![BarGroup {
                label: String::new(),
                bars: vec![bar("", value, false)],
            }],
        })
    };
    let blocks = vec![
        empty(Vec::new()),
        empty(vec![(f64::NAN, f64::INFINITY), (0.0, -1.0)]),
        bars(0.0),
        bars(f64::NAN),
    ];
    let section = Section {
        blocks,
        ..Section::default()
    };
    let page = Page {
        sections: vec![section],
        ..Page::default()
    };
    let html = page.html();
    assert_eq!(markup::check(&html), Ok(()));
    assert!(!html.contains("NaN") && !html.contains("inf%"));
}

#[test]
fn a_page_is_kept_as_data() {
    let page = sample();
    let text = serde_json::to_string(&page).unwrap();
    let read: Page = serde_json::from_str(&text).unwrap();
    assert_eq!(read.html(), page.html());
}

#[test]
fn markup_that_is_broken_is_found() {
    for broken in [
        "<p>",
        "<p></b>",
        "<p class=\"a></p>",
        "<p>a & b</p>",
        "<p>a > b</p>",
        "<a href=\"x\"></a>",
    ] {
        assert!(
            markup::check(&format!("<!DOCTYPE html>\n{broken}")).is_err(),
            "{broken}"
        );
    }
}
