//! The report: one page that needs nothing else.

use std::fmt::Write as _;

use crate::{
    program::Program,
    results::{Metric, Results, Spread},
    targets::{Verdict, judge},
    tunnel::Mode,
};

/// The page.
pub(crate) fn render(results: &Results) -> String {
    let verdicts = judge(results);
    let mut page = String::with_capacity(64 << 10);
    page.push_str("<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n");
    page.push_str("<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n");
    page.push_str("<title>Lockgate beside others</title>\n");
    let _ = writeln!(page, "<style>{STYLE}</style>\n<main>");
    page.push_str("<h1>Lockgate beside others</h1>\n");
    let _ = writeln!(
        page,
        "<p class=\"lead\">Host, gateway, gateway, host in four network namespaces of one machine; the same \
         inner MTU, socket buffers and traffic for every program, and their measurements interleaved. \
         Bars are medians over {} rounds, whiskers the least and the greatest.</p>",
        results.rounds
    );
    targets(&mut page, &verdicts);
    for mode in [Mode::AsIs, Mode::Wire] {
        charts(&mut page, results, mode);
    }
    for mode in [Mode::AsIs, Mode::Wire] {
        table(&mut page, results, mode);
    }
    method(&mut page, results);
    page.push_str("</main>\n</html>\n");
    page
}

fn targets(page: &mut String, verdicts: &[Verdict]) {
    let count = |wanted| {
        verdicts
            .iter()
            .filter(|v| v.passed() == Some(wanted))
            .count()
    };
    let (reached, missed) = (count(true), count(false));
    let _ = writeln!(
        page,
        "<h2>Targets</h2>\n<p>{reached} reached, {missed} missed, {} not measured. \
         A ratio is formed within each round.</p>",
        verdicts.len() - reached - missed
    );
    page.push_str(
        "<div class=\"scroll\"><table>\n<tr><th>target<th>bound<th>median<th>min to max<th></tr>\n",
    );
    for verdict in verdicts {
        let (median, range) = verdict
            .value
            .map_or(("–".to_owned(), "–".to_owned()), |value| {
                let range = format!("{} to {}", figure(value.min), figure(value.max));
                (figure(value.median), range)
            });
        let class = match verdict.passed() {
            Some(true) => "good",
            Some(false) => "bad",
            None => "none",
        };
        let _ = writeln!(
            page,
            "<tr><td>{}<td class=\"n\">{}<td class=\"n\"><b>{median}</b><td class=\"n\">{range}\
             <td><span class=\"mark {class}\">{}</span></tr>",
            escaped(&verdict.text),
            verdict.bound,
            verdict.word()
        );
    }
    page.push_str("</table></div>\n");
}

fn charts(page: &mut String, results: &Results, mode: Mode) {
    let metrics = results.metrics(mode);
    if metrics.is_empty() {
        return;
    }
    let heading = match mode {
        Mode::AsIs => "As is",
        Mode::Wire => "Wire mode: datagrams cross the outer link one by one",
    };
    let _ = writeln!(page, "<h2>{heading}</h2>\n<div class=\"charts\">");
    for metric in metrics {
        chart(page, results, mode, metric);
    }
    page.push_str("</div>\n");
}

fn chart(page: &mut String, results: &Results, mode: Mode, metric: Metric) {
    let mut rows: Vec<(Program, Spread)> = results
        .programs()
        .into_iter()
        .filter_map(|program| Some((program, results.spread(program, mode, metric)?)))
        .collect();
    rows.sort_by(|a, b| b.1.median.total_cmp(&a.1.median));
    if !metric.more_is_better() {
        rows.reverse();
    }
    let longest = rows
        .iter()
        .map(|(_, spread)| spread.max)
        .fold(0.0, f64::max);
    if longest <= 0.0 {
        return;
    }
    let better = if metric.more_is_better() {
        "more is better"
    } else {
        "less is better"
    };
    let height = rows.len() * ROW + 8;
    let _ = writeln!(
        page,
        "<figure><figcaption><b>{}</b> <span>{}, {better}</span></figcaption>\
         <svg viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" aria-label=\"{}\">",
        metric.title(),
        metric.unit(),
        metric.title()
    );
    for (number, (program, spread)) in rows.iter().enumerate() {
        bar(page, number * ROW, *program, *spread, longest);
    }
    page.push_str("</svg></figure>\n");
}

fn bar(page: &mut String, top: usize, program: Program, spread: Spread, longest: f64) {
    let room = (WIDTH - LABEL - FIGURE) as f64;
    let x = |value: f64| LABEL as f64 + value / longest * room;
    let class = match program {
        Program::Lockgate | Program::LockgateChacha | Program::LockgateEsp => "own",
        Program::Forwarder | Program::ForwarderEsp | Program::ForwarderPlain | Program::Direct => {
            "limit"
        }
        _ => "peer",
    };
    let middle = top + ROW / 2;
    let _ = writeln!(
        page,
        "<text class=\"label\" x=\"{}\" y=\"{}\">{}</text>\
         <rect class=\"{class}\" x=\"{LABEL}\" y=\"{}\" width=\"{:.1}\" height=\"{}\" rx=\"2\"/>\
         <path class=\"whisker\" d=\"M{:.1} {middle}H{:.1}M{:.1} {}v8M{:.1} {}v8\"/>\
         <text class=\"figure\" x=\"{:.1}\" y=\"{}\">{}</text>",
        LABEL - 8,
        middle + 4,
        escaped(program.title()),
        top + 4,
        (x(spread.median) - LABEL as f64).max(1.0),
        ROW - 8,
        x(spread.min),
        x(spread.max),
        x(spread.min),
        middle - 4,
        x(spread.max),
        middle - 4,
        x(spread.max) + 7.0,
        middle + 4,
        figure(spread.median),
    );
}

fn table(page: &mut String, results: &Results, mode: Mode) {
    let metrics = results.metrics(mode);
    if metrics.is_empty() {
        return;
    }
    let _ = writeln!(
        page,
        "<h2>Figures, {}</h2>\n<div class=\"scroll\"><table>\n<tr><th>",
        mode.title()
    );
    for metric in &metrics {
        let _ = write!(page, "<th>{}", metric.short());
    }
    page.push_str("</tr>\n");
    for program in results.programs() {
        let _ = write!(page, "<tr><td>{}", escaped(program.title()));
        for metric in &metrics {
            match results.spread(program, mode, *metric) {
                Some(spread) => {
                    let _ = write!(
                        page,
                        "<td class=\"n\"><b>{}</b><small>{} to {}</small>",
                        figure(spread.median),
                        figure(spread.min),
                        figure(spread.max)
                    );
                }
                None => page.push_str("<td class=\"n\">–"),
            }
        }
        page.push_str("</tr>\n");
    }
    page.push_str("</table></div>\n");
}

fn method(page: &mut String, results: &Results) {
    page.push_str("<h2>Method and machine</h2>\n<ul>\n");
    let mut line = |text: &str| {
        let _ = writeln!(page, "<li>{}", escaped(text));
    };
    line(&format!("{}.", results.machine));
    line(&format!(
        "Lockgate {}, measured {}.",
        results.revision, results.started
    ));
    line(&format!("{}.", results.plan));
    line(&format!(
        "At most {:.1} % of the processor time went to other virtual machines during a measurement.",
        results.worst_steal() * 100.0
    ));
    line(
        "All processes share the cores, the hosts' included, so a figure tells what is left for the \
         gateways; compare figures of one page with each other, not with those of another machine.",
    );
    for (program, version) in &results.versions {
        if program.is_peer() {
            line(&format!("{}: {version}", program.title()));
        }
    }
    for failure in &results.failures {
        line(&format!("Not measured: {failure}"));
    }
    page.push_str("</ul>\n");
}

/// A number with three significant digits.
pub(crate) fn figure(value: f64) -> String {
    let magnitude = value.abs();
    if magnitude >= 100.0 {
        format!("{value:.0}")
    } else if magnitude >= 10.0 {
        format!("{value:.1}")
    } else if magnitude >= 1.0 || magnitude == 0.0 {
        format!("{value:.2}")
    } else {
        format!("{value:.3}")
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

const WIDTH: usize = 720;
const LABEL: usize = 270;
const FIGURE: usize = 60;
const ROW: usize = 26;

const STYLE: &str = "
:root{--ink:#1d2430;--dim:#5c6675;--line:#dfe3e8;--back:#fff;--own:#0b7a75;--peer:#9aa7b8;--limit:#d9c48f;--good:#0b7a4b;--bad:#b3352b}
@media(prefers-color-scheme:dark){:root{--ink:#e6eaf0;--dim:#98a3b3;--line:#2f3844;--back:#14181e;--own:#35b8b0;--peer:#5f6d80;--limit:#8a7640;--good:#4cc38a;--bad:#f0766b}}
body{margin:0;background:var(--back);color:var(--ink);font:15px/1.5 system-ui,sans-serif}
main{max-width:1120px;margin:0 auto;padding:2rem 1.25rem 4rem}
h1{font-size:1.9rem;margin:0 0 .4rem}h2{font-size:1.2rem;margin:2.4rem 0 .6rem}
.lead{color:var(--dim);max-width:46rem;margin:0}
.scroll{overflow-x:auto}table{border-collapse:collapse;font-variant-numeric:tabular-nums;width:100%}
th,td{text-align:left;padding:.35rem .7rem .35rem 0;border-bottom:1px solid var(--line);vertical-align:top}
th{font-weight:600;color:var(--dim);font-size:.85rem}.n{white-space:nowrap}
td small{display:block;color:var(--dim);font-size:.78rem}
.mark{padding:.1rem .5rem;border-radius:1rem;font-size:.82rem;border:1px solid currentColor;white-space:nowrap}
.good{color:var(--good)}.bad{color:var(--bad)}.none{color:var(--dim)}
.charts{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,520px),1fr));gap:1.6rem 2rem}
figure{margin:0}figcaption{margin-bottom:.3rem}figcaption span{color:var(--dim);font-size:.85rem}
svg{width:100%;height:auto;display:block}svg text{font:13px system-ui,sans-serif;fill:var(--ink)}
.label{text-anchor:end}svg .figure{font-weight:600}
.own{fill:var(--own)}.peer{fill:var(--peer)}.limit{fill:var(--limit)}
.whisker{stroke:var(--ink);stroke-width:1.2;fill:none;opacity:.75}
li{margin:.25rem 0;max-width:56rem}
";
