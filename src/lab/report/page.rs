//! The frame around plots and tables.

use std::fmt::Write;

use super::{Block, Page, Section, Table, bars, lines};

/// The whole file. Every element is closed, so that it reads as XML too.
pub(super) fn write(page: &Page) -> String {
    let mut out = String::with_capacity(64 << 10);
    let _ = write!(
        out,
        "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"/>\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"/>\
         <meta name=\"color-scheme\" content=\"light dark\"/>\
         <title>{0}</title><style>{STYLE}</style></head><body><main>\
         <header><h1>{0}</h1><p>{1}</p></header>\n",
        escape(&page.title),
        escape(&page.subtitle),
    );
    if !page.tiles.is_empty() {
        out.push_str("<ul class=\"tiles\">");
        for tile in &page.tiles {
            let _ = write!(
                out,
                "<li><span>{}</span><b>{}<small> {}</small></b><em>{}</em></li>",
                escape(&tile.label),
                escape(&tile.value),
                escape(&tile.unit),
                escape(&tile.note),
            );
        }
        out.push_str("</ul>\n");
    }
    for section in &page.sections {
        write_section(&mut out, section);
    }
    out.push_str("</main></body></html>\n");
    out
}

fn write_section(out: &mut String, section: &Section) {
    let _ = write!(out, "<section><h2>{}</h2>", escape(&section.title));
    if !section.text.is_empty() {
        let _ = write!(out, "<p>{}</p>", escape(&section.text));
    }
    for block in &section.blocks {
        match block {
            Block::Lines(chart) => figure(out, &chart.title, &lines::table(chart), |out| {
                lines::write(out, chart);
            }),
            Block::Bars(chart) => figure(out, &chart.title, &bars::table(chart), |out| {
                bars::write(out, chart);
            }),
            Block::Stack(chart) => figure(out, &chart.title, &bars::stack_table(chart), |out| {
                bars::write_stack(out, chart);
            }),
            Block::Table(table) => write_table(out, table),
        }
    }
    out.push_str("</section>\n");
}

/// A plot with its title above and its figures below, folded away.
fn figure(out: &mut String, title: &str, table: &Table, draw: impl FnOnce(&mut String)) {
    let _ = write!(out, "<figure><h3>{}</h3>", escape(title));
    draw(out);
    out.push_str("<details><summary>figures</summary>");
    write_table(out, table);
    out.push_str("</details></figure>\n");
}

fn write_table(out: &mut String, table: &Table) {
    if !table.title.is_empty() {
        let _ = write!(out, "<h3>{}</h3>", escape(&table.title));
    }
    out.push_str("<div class=\"wide\"><table>");
    if table.columns.iter().any(|column| !column.is_empty()) {
        out.push_str("<thead><tr>");
        for column in &table.columns {
            let _ = write!(out, "<th>{}</th>", escape(column));
        }
        out.push_str("</tr></thead>");
    }
    out.push_str("<tbody>");
    for row in &table.rows {
        out.push_str("<tr>");
        for cell in row {
            let class = if is_number(cell) {
                " class=\"number\""
            } else {
                ""
            };
            let _ = write!(out, "<td{class}>{}</td>", escape(cell));
        }
        out.push_str("</tr>");
    }
    out.push_str("</tbody></table></div>");
}

fn is_number(cell: &str) -> bool {
    cell.starts_with(|first: char| first.is_ascii_digit() || "-–≥≤≈".contains(first))
}

/// The colour of a series, in either theme.
pub(super) fn colour(number: usize) -> String {
    format!("var(--c{})", number % COLOURS)
}

/// Text for between tags and inside quotes.
pub(super) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\0'..='\x08' | '\x0b'..='\x1f' => out.push('\u{fffd}'),
            other => out.push(other),
        }
    }
    out
}

/// As many as [`STYLE`] has.
const COLOURS: usize = 8;
const STYLE: &str = include_str!("style.css");
