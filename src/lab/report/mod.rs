//! The report page: one HTML file that needs nothing else, in light and dark, on paper and phones.
//!
//! A [`Page`] is plain data. Whoever measures fills one and writes [`Page::html`]; every plot is drawn
//! as SVG inside the page and carries its figures as a table that can be unfolded.

mod bars;
mod lines;
mod page;
mod scale;

use serde::{Deserialize, Serialize};

/// A whole report.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Page {
    /// The heading.
    pub title: String,
    /// One sentence below it.
    pub subtitle: String,
    /// The figures to remember, shown large.
    pub tiles: Vec<Tile>,
    /// What follows, in order.
    pub sections: Vec<Section>,
}

/// One figure, shown large.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Tile {
    /// What it is.
    pub label: String,
    /// The figure.
    pub value: String,
    /// Its unit.
    pub unit: String,
    /// What it is to be compared with, or how it came about; may be empty.
    pub note: String,
}

/// A heading with what belongs to it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Section {
    /// The heading.
    pub title: String,
    /// A paragraph; may be empty.
    pub text: String,
    /// Plots and tables, in order.
    pub blocks: Vec<Block>,
}

/// Something to look at.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Block {
    /// Curves over a common axis.
    Lines(LineChart),
    /// Bars side by side, with their spread.
    Bars(BarChart),
    /// Bars made of parts.
    Stack(StackChart),
    /// Figures in rows and columns.
    Table(Table),
}

/// Curves over a common axis.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LineChart {
    /// What is shown.
    pub title: String,
    /// The horizontal axis.
    pub x: Axis,
    /// The vertical axis.
    pub y: Axis,
    /// The curves.
    pub series: Vec<Series>,
}

/// An axis.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Axis {
    /// What it measures, with its unit.
    pub label: String,
    /// How values lie on it.
    pub scale: Scale,
    /// Where to put marks; empty leaves that to the plot.
    pub ticks: Vec<f64>,
}

/// How values lie on an axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Scale {
    /// Evenly, from zero.
    Linear,
    /// By their logarithm.
    Log,
    /// Percentiles, 0 to below 100, by the logarithm of what is beyond: 90, 99 and 99.9 lie at equal
    /// distances.
    Percentile,
}

/// One curve.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Series {
    /// What it is of.
    pub name: String,
    /// Points in order of their first coordinate.
    pub points: Vec<(f64, f64)>,
}

/// Bars in groups: one group for each scenario, one bar for each competitor, say.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BarChart {
    /// What is shown.
    pub title: String,
    /// The unit of all values.
    pub unit: String,
    /// Which end is the good one.
    pub better: Better,
    /// The groups, each with its own scale where they have different ones.
    pub groups: Vec<BarGroup>,
}

/// What is good news.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Better {
    /// More is better.
    Higher,
    /// Less is better.
    Lower,
}

/// Bars that are compared with each other.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BarGroup {
    /// What they have in common; may be empty.
    pub label: String,
    /// The bars. The first one is what ratios refer to.
    pub bars: Vec<Bar>,
}

/// One bar.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Bar {
    /// Whose value it is.
    pub name: String,
    /// The value; a median where there were several.
    pub value: f64,
    /// The lowest and the highest value, where there were several.
    pub range: Option<(f64, f64)>,
    /// Whether it stands out as the subject of the page.
    pub ours: bool,
}

/// Bars made of parts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StackChart {
    /// What is shown.
    pub title: String,
    /// The unit of all values.
    pub unit: String,
    /// The names of the parts.
    pub parts: Vec<String>,
    /// Each bar with its label and the values of its parts, in their order.
    pub rows: Vec<(String, Vec<f64>)>,
}

/// Figures in rows and columns.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Table {
    /// What is shown; may be empty.
    pub title: String,
    /// The head of each column.
    pub columns: Vec<String>,
    /// The rows; the first cell names the row.
    pub rows: Vec<Vec<String>>,
}

impl Page {
    /// The page as a file.
    #[must_use]
    pub fn html(&self) -> String {
        page::write(self)
    }
}

/// A figure as people read it: three significant digits, thousands apart.
#[must_use]
pub fn figure(value: f64) -> String {
    if !value.is_finite() {
        return "–".to_owned();
    }
    let size = value.abs();
    let decimals = match size {
        _ if size == 0.0 || size >= 100.0 => 0,
        _ if size >= 10.0 => 1,
        _ if size >= 1.0 => 2,
        _ if size >= 0.01 => 3,
        _ => 5,
    };
    let text = format!("{value:.decimals$}");
    let (whole, fraction) = text.split_once('.').unwrap_or((&text, ""));
    let (sign, digits) = whole.strip_prefix('-').map_or(("", whole), |d| ("-", d));
    let mut grouped = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) && digits.len() > 4 {
            grouped.push('\u{202f}');
        }
        grouped.push(digit);
    }
    let fraction = if fraction.is_empty() {
        String::new()
    } else {
        format!(".{fraction}")
    };
    format!("{sign}{grouped}{fraction}")
}

#[cfg(test)]
mod tests {
    use super::figure;

    #[test]
    fn figures_have_three_digits_and_their_thousands_apart() {
        let shown = [
            0.0,
            0.00123,
            0.0456,
            1.0,
            7.456,
            45.67,
            456.7,
            4567.0,
            4_567_890.0,
        ];
        assert_eq!(
            shown.map(figure),
            [
                "0",
                "0.00123",
                "0.046",
                "1.00",
                "7.46",
                "45.7",
                "457",
                "4567",
                "4\u{202f}567\u{202f}890"
            ]
        );
        assert_eq!(figure(-12_345.0), "-12\u{202f}345");
        assert_eq!(figure(f64::NAN), "–");
    }
}
