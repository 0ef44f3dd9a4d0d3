//! The results as text.

use std::fmt::Write as _;

use lockgate::lab::report::figure;

use crate::{
    results::{Results, Spread},
    targets::judge,
    tunnel::Mode,
};

/// The same in Markdown, for a document.
pub(crate) fn markdown(results: &Results) -> String {
    let mut text = format!("{}. {}.\n", results.machine, results.plan);
    let cell = |spread: Option<Spread>| {
        spread.map_or("–".to_owned(), |spread| {
            let (min, max) = (figure(spread.min), figure(spread.max));
            format!("{} ({min}–{max})", figure(spread.median))
        })
    };
    for mode in [Mode::AsIs, Mode::Wire] {
        let metrics = results.metrics(mode);
        if metrics.is_empty() {
            continue;
        }
        let _ = write!(text, "\n| {} |", mode.title());
        for metric in &metrics {
            let _ = write!(text, " {} |", metric.short());
        }
        let _ = writeln!(text, "\n|{}", "---|".repeat(metrics.len() + 1));
        for program in results.programs() {
            let _ = write!(text, "| {} |", program.title());
            for metric in &metrics {
                let spread = results.spread(program, mode, *metric);
                let _ = write!(text, " {} |", cell(spread));
            }
            text.push('\n');
        }
    }
    text.push_str("\n| target | bound | median (min–max) of the ratios | |\n|---|---|---|---|\n");
    for verdict in judge(results) {
        let (bound, word) = (verdict.bound, verdict.word());
        let _ = writeln!(
            text,
            "| {} | {bound} | {} | {word} |",
            verdict.text,
            cell(verdict.value)
        );
    }
    text
}

/// Tables of medians with their least and greatest values, then the targets.
pub(crate) fn render(results: &Results) -> String {
    let mut text = String::new();
    for mode in [Mode::AsIs, Mode::Wire] {
        let metrics = results.metrics(mode);
        if metrics.is_empty() {
            continue;
        }
        let _ = writeln!(text, "\n{}: median (min to max)", mode.title());
        for metric in metrics {
            let _ = writeln!(text, "\n  {} [{}]", metric.title(), metric.unit());
            for program in results.programs() {
                if let Some(spread) = results.spread(program, mode, metric) {
                    let _ = writeln!(
                        text,
                        "    {:42} {:>8} ({} to {})",
                        program.title(),
                        figure(spread.median),
                        figure(spread.min),
                        figure(spread.max)
                    );
                }
            }
        }
    }
    text.push_str("\nTargets: median of the rounds' ratios (min to max)\n");
    for verdict in judge(results) {
        let value = verdict.value.map_or("–".to_owned(), |value| {
            format!(
                "{} ({} to {})",
                figure(value.median),
                figure(value.min),
                figure(value.max)
            )
        });
        let _ = writeln!(
            text,
            "  {:12} {:8} {:28} {}",
            verdict.word(),
            verdict.bound.to_string(),
            value,
            verdict.text
        );
    }
    for failure in &results.failures {
        let _ = writeln!(text, "  not measured: {failure}");
    }
    text
}
