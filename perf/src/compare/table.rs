//! The results as text.

use std::fmt::Write as _;

use crate::{results::Results, targets::judge, tunnel::Mode};

/// The same in Markdown, for a document.
pub(crate) fn markdown(results: &Results) -> String {
    let mut text = format!("{}. {}.\n", results.machine, results.plan);
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
                let summary = results.summary(program, mode, *metric);
                let cell = summary.map_or("–".to_owned(), |summary| summary.text("–"));
                let _ = write!(text, " {} |", cell.replace('*', "\\*"));
            }
            text.push('\n');
        }
    }
    text.push_str(
        "\n| target | bound | median (min–max) of the ratios | with cipher and guard alone | rounds | |\n\
         |---|---|---|---|---|---|\n",
    );
    for verdict in judge(results) {
        let _ = writeln!(
            text,
            "| {} | {} | {} | {} | {} | {} |",
            verdict.text,
            verdict.bound,
            verdict.figures("–").replace('*', "\\*"),
            verdict.limit("–"),
            verdict.rounds,
            verdict.word()
        );
    }
    for line in results.legend() {
        let _ = writeln!(text, "\n{}", line.replace('*', "\\*"));
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
                if let Some(summary) = results.summary(program, mode, metric) {
                    let _ = writeln!(text, "    {:42} {}", program.title(), summary.text(" to "));
                }
            }
        }
    }
    text.push_str("\nTargets: median of the rounds' ratios (min to max)\n");
    for verdict in judge(results) {
        let _ = writeln!(
            text,
            "  {:12} {:8} {:28} {} [rounds: {}; with cipher and guard alone: {}]",
            verdict.word(),
            verdict.bound.to_string(),
            verdict.figures(" to "),
            verdict.text,
            verdict.rounds,
            verdict.limit(" to ")
        );
    }
    for line in results.legend() {
        let _ = writeln!(text, "  {line}");
    }
    for failure in &results.failures {
        let _ = writeln!(text, "  not measured: {failure}");
    }
    text
}
