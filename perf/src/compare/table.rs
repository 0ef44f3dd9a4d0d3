//! The results as text.

use std::fmt::Write as _;

use lockgate::lab::report::figure;

use crate::{results::Results, targets::judge, tunnel::Mode};

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
