//! Bars as SVG, each below its name, so that names of any length and narrow screens go together.

use std::fmt::Write;

use super::{
    Bar, BarChart, BarGroup, Better, StackChart, Table, figure,
    lines::legend,
    page::{colour, escape},
};

/// Draws groups of bars, each group on a scale of its own.
pub(super) fn write(out: &mut String, chart: &BarChart) {
    let better = match chart.better {
        Better::Higher => "more is better",
        Better::Lower => "less is better",
    };
    let _ = write!(
        out,
        "<p class=\"axis\">{}, {better}</p>",
        escape(&chart.unit)
    );
    for group in &chart.groups {
        if !group.label.is_empty() {
            let _ = write!(out, "<h4>{}</h4>", escape(&group.label));
        }
        write_group(out, chart, group);
    }
}

fn write_group(out: &mut String, chart: &BarChart, group: &BarGroup) {
    let longest = group
        .bars
        .iter()
        .flat_map(|bar| [bar.value, bar.range.map_or(bar.value, |r| r.1)]);
    let longest = longest
        .filter(|value| value.is_finite())
        .fold(f64::MIN_POSITIVE, f64::max);
    let share = |value: f64| {
        let share = value / longest * WIDTH;
        if share.is_finite() {
            share.clamp(0.0, WIDTH)
        } else {
            0.0
        }
    };
    let height = group.bars.len() * ROW;
    let _ = write!(
        out,
        "<svg class=\"plot\" width=\"100%\" height=\"{height}\" role=\"img\" aria-label=\"{} {}\">",
        escape(&chart.title),
        escape(&group.label)
    );
    for (bar, number) in group.bars.iter().zip(0..) {
        let top = number * ROW;
        let class = if bar.ours { "ours" } else { "bar" };
        let _ = write!(
            out,
            "<text class=\"{}\" x=\"0\" y=\"{}\">{}</text><text class=\"end\" x=\"100%\" y=\"{}\">{}</text>\
             <rect class=\"rail\" x=\"0\" y=\"{}\" width=\"100%\" height=\"{BAR}\" rx=\"3\"/>\
             <rect class=\"{class}\" x=\"0\" y=\"{}\" width=\"{:.2}%\" height=\"{BAR}\" rx=\"3\"><title>{}</title></rect>",
            if bar.ours { "name strong" } else { "name" },
            top + 14,
            escape(&bar.name),
            top + 14,
            value(chart, group, bar),
            top + 20,
            top + 20,
            share(bar.value),
            escape(&spread(chart, bar)),
        );
        if let Some((low, high)) = bar.range {
            let middle = top + 20 + BAR / 2;
            let (low, high) = (share(low), share(high));
            let _ = write!(
                out,
                "<line class=\"spread\" x1=\"{low:.2}%\" x2=\"{high:.2}%\" y1=\"{middle}\" y2=\"{middle}\"/>"
            );
            for end in [low, high] {
                let _ = write!(
                    out,
                    "<line class=\"spread\" x1=\"{end:.2}%\" x2=\"{end:.2}%\" y1=\"{}\" y2=\"{}\"/>",
                    middle - 4,
                    middle + 4
                );
            }
        }
    }
    out.push_str("</svg>");
}

/// The figure at the end of a bar, and how it compares with the first of its group.
fn value(chart: &BarChart, group: &BarGroup, bar: &Bar) -> String {
    let first = group.bars.first();
    let first = first.filter(|first| first.value > 0.0 && !std::ptr::eq(*first, bar));
    match first {
        Some(first) => format!(
            "{} · {}×",
            figure(bar.value),
            ratio(bar.value / first.value)
        ),
        None => format!("{} {}", figure(bar.value), escape(&chart.unit)),
    }
}

/// Two digits of what is below 1 are enough for a comparison.
fn ratio(value: f64) -> String {
    if value.is_finite() && (0.0..1.0).contains(&value) {
        return format!("{value:.2}");
    }
    figure(value)
}

fn spread(chart: &BarChart, bar: &Bar) -> String {
    let range = bar
        .range
        .map(|(low, high)| format!(", {} to {}", figure(low), figure(high)));
    format!(
        "{}: {} {}{}",
        bar.name,
        figure(bar.value),
        chart.unit,
        range.unwrap_or_default()
    )
}

/// The figures behind the bars.
pub(super) fn table(chart: &BarChart) -> Table {
    let columns = ["", "", "value", "lowest", "highest", "to the first"];
    let mut rows = Vec::new();
    for group in &chart.groups {
        for bar in &group.bars {
            let first = group.bars.first().map_or(f64::NAN, |first| first.value);
            let (low, high) = bar.range.unwrap_or((f64::NAN, f64::NAN));
            let numbers = [bar.value, low, high, bar.value / first].map(figure);
            let mut row = vec![bar.name.clone(), group.label.clone()];
            row.extend(numbers);
            rows.push(row);
        }
    }
    Table {
        title: String::new(),
        columns: columns.map(str::to_owned).to_vec(),
        rows,
    }
}

/// Draws bars made of parts, all on one scale.
pub(super) fn write_stack(out: &mut String, chart: &StackChart) {
    legend(out, chart.parts.iter().map(String::as_str));
    let _ = write!(out, "<p class=\"axis\">{}</p>", escape(&chart.unit));
    let sums = chart
        .rows
        .iter()
        .map(|(_, parts)| parts.iter().sum::<f64>());
    let longest = sums.fold(f64::MIN_POSITIVE, f64::max);
    let _ = write!(
        out,
        "<svg class=\"plot\" width=\"100%\" height=\"{}\" role=\"img\" aria-label=\"{}\">",
        chart.rows.len() * ROW,
        escape(&chart.title)
    );
    for ((label, parts), number) in chart.rows.iter().zip(0..) {
        let top = number * ROW;
        let _ = write!(
            out,
            "<text class=\"name\" x=\"0\" y=\"{0}\">{1}</text><text class=\"end\" x=\"100%\" y=\"{0}\">{2} {3}</text>",
            top + 14,
            escape(label),
            figure(parts.iter().sum()),
            escape(&chart.unit),
        );
        let mut left = 0.0;
        for ((part, name), which) in parts.iter().zip(&chart.parts).zip(0..) {
            let width = part / longest * WIDTH;
            let _ = write!(
                out,
                "<rect x=\"{left:.2}%\" y=\"{}\" width=\"{width:.2}%\" height=\"{BAR}\" style=\"fill:{}\"><title>{}: {} {}</title></rect>",
                top + 20,
                colour(which),
                escape(name),
                figure(*part),
                escape(&chart.unit),
            );
            left += width;
        }
    }
    out.push_str("</svg>");
}

/// The figures behind the stacked bars.
pub(super) fn stack_table(chart: &StackChart) -> Table {
    let mut columns = vec![String::new()];
    columns.extend(chart.parts.iter().cloned());
    let row = |(label, parts): &(String, Vec<f64>)| {
        let mut row = vec![label.clone()];
        row.extend(parts.iter().map(|part| figure(*part)));
        row
    };
    Table {
        title: String::new(),
        columns,
        rows: chart.rows.iter().map(row).collect(),
    }
}

/// Height of a bar with its name, and of the bar itself.
const ROW: usize = 46;
const BAR: usize = 14;
/// The longest bar, in percent.
const WIDTH: f64 = 100.0;
