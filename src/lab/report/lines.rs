//! Curves as SVG. Lengths across are percentages, so that a narrow screen gets a narrow plot and not
//! small letters; heights are pixels.

use std::fmt::Write;

use super::{
    LineChart, figure,
    page::{colour, escape},
    scale::Placed,
};

/// Draws the chart.
pub(super) fn write(out: &mut String, chart: &LineChart) {
    let points = || chart.series.iter().flat_map(|series| &series.points);
    let x = Placed::new(&chart.x, points().map(|point| point.0));
    let y = Placed::new(&chart.y, points().map(|point| point.1));
    legend(out, chart.series.iter().map(|series| series.name.as_str()));
    let _ = write!(
        out,
        "<p class=\"axis\">{}</p><svg class=\"plot\" width=\"100%\" height=\"{HEIGHT}\" role=\"img\" aria-label=\"{}\">",
        escape(&chart.y.label),
        escape(&chart.title),
    );
    for tick in &y.ticks {
        let at = down(y.place(*tick));
        let _ = write!(
            out,
            "<line class=\"grid\" x1=\"0\" x2=\"100%\" y1=\"{at:.1}\" y2=\"{at:.1}\"/><text x=\"0\" y=\"{:.1}\">{}</text>",
            at - 4.0,
            round(*tick),
        );
    }
    for tick in &x.ticks {
        let at = x.place(*tick);
        let _ = write!(
            out,
            "<line class=\"tick\" x1=\"{0}%\" x2=\"{0}%\" y1=\"{BOTTOM}\" y2=\"{1}\"/><text class=\"{2}\" x=\"{0}%\" y=\"{3}\">{4}</text>",
            across(at),
            BOTTOM + 5.0,
            if at > 0.97 {
                "end"
            } else if at < 0.03 {
                ""
            } else {
                "middle"
            },
            BOTTOM + 20.0,
            mark(chart, *tick),
        );
    }
    // The curves are stretched to the width of the page, their strokes are not.
    let _ = write!(
        out,
        "<svg x=\"{LEFT}%\" width=\"{WIDTH}%\" height=\"{HEIGHT}\" viewBox=\"0 0 1000 {HEIGHT}\" preserveAspectRatio=\"none\" overflow=\"visible\">"
    );
    for (series, number) in chart.series.iter().zip(0..) {
        let path: Vec<String> = shown(series)
            .map(|(a, b)| format!("{:.1},{:.1}", x.place(a) * 1000.0, down(y.place(b))))
            .collect();
        let _ = write!(
            out,
            "<polyline class=\"curve\" style=\"stroke:{}\" points=\"{}\"/>",
            colour(number),
            path.join(" ")
        );
    }
    out.push_str("</svg>");
    for (series, number) in chart.series.iter().zip(0..) {
        let dots = if series.points.len() <= FEW { 3.5 } else { 0.0 };
        for (a, b) in shown(series) {
            let _ = write!(
                out,
                "<circle cx=\"{}%\" cy=\"{:.1}\" r=\"{}\" style=\"fill:{}\"><title>{}: {} at {}</title></circle>",
                across(x.place(a)),
                down(y.place(b)),
                dots,
                colour(number),
                escape(&series.name),
                figure(b),
                mark(chart, a),
            );
        }
    }
    let _ = write!(
        out,
        "</svg><p class=\"axis right\">{}</p>",
        escape(&chart.x.label)
    );
}

/// Names and colours.
pub(super) fn legend<'a>(out: &mut String, names: impl Iterator<Item = &'a str>) {
    out.push_str("<ul class=\"legend\">");
    for (name, number) in names.zip(0..) {
        let _ = write!(
            out,
            "<li><i style=\"background:{}\"></i>{}</li>",
            colour(number),
            escape(name)
        );
    }
    out.push_str("</ul>");
}

/// The figures behind the curves.
pub(super) fn table(chart: &LineChart) -> super::Table {
    let mut places: Vec<f64> = Vec::new();
    for (a, _) in chart.series.iter().flat_map(|series| &series.points) {
        if a.is_finite() && !places.iter().any(|known| known == a) {
            places.push(*a);
        }
    }
    places.sort_by(f64::total_cmp);
    let mut columns = vec![chart.x.label.clone()];
    columns.extend(chart.series.iter().map(|series| series.name.clone()));
    let row = |at: f64| {
        let mut row = vec![mark(chart, at)];
        row.extend(chart.series.iter().map(|series| {
            let point = series.points.iter().find(|point| point.0 == at);
            point.map_or_else(|| "–".to_owned(), |point| figure(point.1))
        }));
        row
    };
    super::Table {
        title: String::new(),
        columns,
        rows: places.into_iter().map(row).collect(),
    }
}

fn shown(series: &super::Series) -> impl Iterator<Item = (f64, f64)> {
    let points = series.points.iter().copied();
    points.filter(|(a, b)| a.is_finite() && b.is_finite())
}

/// A value of the horizontal axis as it is written there.
fn mark(chart: &LineChart, value: f64) -> String {
    match chart.x.scale {
        super::Scale::Percentile if value == 0.0 => "min".to_owned(),
        super::Scale::Percentile => format!("p{value}"),
        _ => round(value),
    }
}

/// A figure without the zeros that tell nothing on an axis.
fn round(value: f64) -> String {
    let text = figure(value);
    if text.contains('.') {
        let text = text.trim_end_matches('0');
        return text.trim_end_matches('.').to_owned();
    }
    text
}

fn down(part: f64) -> f64 {
    BOTTOM - part * (BOTTOM - TOP)
}

fn across(part: f64) -> String {
    format!("{:.2}", LEFT + part * WIDTH)
}

const HEIGHT: f64 = 280.0;
const TOP: f64 = 20.0;
const BOTTOM: f64 = 250.0;
/// Of the width, in percent: room for the numbers of the vertical axis.
const LEFT: f64 = 9.0;
const WIDTH: f64 = 90.0;
/// Curves with no more points than this show them.
const FEW: usize = 16;
