//! TOML with places: every value knows its full key and its line, every problem is collected.

use super::{
    error::Problem,
    keys::{self, Schema, Support},
    value,
};
use std::{cell::RefCell, path::Path, time::Duration};
use toml::{
    Spanned,
    de::{DeArray, DeString, DeTable, DeValue},
};

/// The file being read, and what was found wrong with it so far.
#[derive(Debug)]
pub(super) struct Source<'a> {
    file: &'a Path,
    line_starts: Vec<usize>,
    problems: RefCell<Vec<Problem>>,
    warnings: RefCell<Vec<Problem>>,
}

impl<'a> Source<'a> {
    pub(super) fn new(file: &'a Path, text: &str) -> Self {
        let newlines = text.bytes().enumerate().filter(|&(_, byte)| byte == b'\n');
        Self {
            file,
            line_starts: std::iter::once(0)
                .chain(newlines.map(|(at, _)| at + 1))
                .collect(),
            problems: RefCell::default(),
            warnings: RefCell::default(),
        }
    }

    pub(super) fn file(&self) -> &'a Path {
        self.file
    }

    /// Line that holds byte `offset`, from 1.
    pub(super) fn line(&self, offset: usize) -> usize {
        self.line_starts.partition_point(|&start| start <= offset)
    }

    pub(super) fn fail(&self, line: Option<usize>, key: &str, message: impl Into<String>) {
        self.problems
            .borrow_mut()
            .push(self.problem(line, key, message.into()));
    }

    pub(super) fn warn(&self, line: Option<usize>, key: &str, message: impl Into<String>) {
        self.warnings
            .borrow_mut()
            .push(self.problem(line, key, message.into()));
    }

    /// Problems and warnings, each in the order of their lines.
    pub(super) fn into_findings(self) -> (Vec<Problem>, Vec<Problem>) {
        let (mut problems, mut warnings) = (self.problems.into_inner(), self.warnings.into_inner());
        problems.sort_by_key(|problem| problem.line);
        warnings.sort_by_key(|problem| problem.line);
        (problems, warnings)
    }

    fn problem(&self, line: Option<usize>, key: &str, message: String) -> Problem {
        Problem {
            file: self.file.to_owned(),
            line,
            key: key.to_owned(),
            message,
        }
    }
}

/// One table of the file.
#[derive(Clone, Debug)]
pub(super) struct Section<'a> {
    source: &'a Source<'a>,
    table: &'a DeTable<'a>,
    key: String,
    line: Option<usize>,
}

impl<'a> Section<'a> {
    pub(super) fn root(source: &'a Source<'a>, table: &'a DeTable<'a>) -> Self {
        Self {
            source,
            table,
            key: String::new(),
            line: None,
        }
    }

    /// Reports every key that `schema` does not let through.
    pub(super) fn check_keys(&self, schema: &'static Schema) {
        for (name, entry) in self.entries() {
            match schema.support(&name, entry.is_table()) {
                Some(Support::Yes) => {}
                Some(Support::NotYet) => entry.fail("not supported yet"),
                Some(Support::OnlyOff) => {
                    let text = entry.text().unwrap_or_default();
                    if value::boolean(&text) != Ok(false)
                        && value::duration(&text) != Ok(Duration::ZERO)
                    {
                        entry.fail("not supported yet; allowed: false");
                    }
                }
                Some(Support::Never(reason)) => entry.fail(reason),
                None => entry.fail(format!(
                    "unknown key; {}",
                    keys::allowed(&name, &schema.names())
                )),
            }
        }
    }

    /// The entries in the order of the file.
    pub(super) fn entries(&self) -> Vec<(String, Entry<'a>)> {
        let mut entries: Vec<_> = self.table.iter().collect();
        entries.sort_by_key(|(name, _)| name.span().start);
        let entry = |(name, value): (&Spanned<DeString<'a>>, &'a Spanned<DeValue<'a>>)| {
            let line = self.source.line(name.span().start);
            let name = name.get_ref();
            (name.clone().into_owned(), self.entry(name, line, value))
        };
        entries.into_iter().map(entry).collect()
    }

    pub(super) fn get(&self, name: &str) -> Option<Entry<'a>> {
        let (name, value) = self.table.get_key_value(name)?;
        let line = self.source.line(name.span().start);
        Some(self.entry(name.get_ref(), line, value))
    }

    /// The value of `name` if it is present and `parse` takes its text.
    pub(super) fn read<T>(
        &self,
        name: &str,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<T> {
        self.get(name)?.parse(parse)
    }

    /// The items of list `name` that `parse` takes; `None` where the key is absent or its list empty.
    pub(super) fn read_list<T>(
        &self,
        name: &str,
        mut parse: impl FnMut(&str) -> Result<T, String>,
    ) -> Option<Vec<T>> {
        let entry = self.get(name)?;
        let items: Vec<T> = entry
            .items()
            .iter()
            .filter_map(|item| item.parse(&mut parse))
            .collect();
        (!items.is_empty()).then_some(items)
    }

    /// Subtable `name`, if it is present and a table.
    pub(super) fn section(&self, name: &str) -> Option<Self> {
        self.get(name)?.section()
    }

    pub(super) fn fail(&self, message: impl Into<String>) {
        self.source.fail(self.line, &self.key, message);
    }

    pub(super) fn warn(&self, message: impl Into<String>) {
        self.source.warn(self.line, &self.key, message);
    }

    /// Reports at key `name` where it is written, else at this section.
    pub(super) fn fail_at(&self, name: &str, message: impl Into<String>) {
        match self.get(name) {
            Some(entry) => entry.fail(message),
            None => self.source.fail(self.line, &self.join(name), message),
        }
    }

    /// Like [`Self::fail_at`], for a warning.
    pub(super) fn warn_at(&self, name: &str, message: impl Into<String>) {
        let line = self.get(name).map_or(self.line, |entry| Some(entry.line));
        self.source.warn(line, &self.join(name), message);
    }

    pub(super) fn source(&self) -> &'a Source<'a> {
        self.source
    }

    fn entry(&self, name: &str, line: usize, value: &'a Spanned<DeValue<'a>>) -> Entry<'a> {
        Entry {
            source: self.source,
            key: self.join(name),
            line,
            value: value.get_ref(),
        }
    }

    fn join(&self, name: &str) -> String {
        let bare = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
        let quoted = if !name.is_empty() && name.chars().all(bare) {
            name.to_owned()
        } else {
            format!("{name:?}")
        };
        if self.key.is_empty() {
            quoted
        } else {
            format!("{}.{quoted}", self.key)
        }
    }
}

/// One key with its value.
#[derive(Clone, Debug)]
pub(super) struct Entry<'a> {
    source: &'a Source<'a>,
    key: String,
    line: usize,
    value: &'a DeValue<'a>,
}

impl<'a> Entry<'a> {
    pub(super) fn is_table(&self) -> bool {
        self.value.is_table()
    }

    pub(super) fn section(&self) -> Option<Section<'a>> {
        if let DeValue::Table(table) = self.value {
            let (key, line) = (self.key.clone(), Some(self.line));
            return Some(Section {
                source: self.source,
                table,
                key,
                line,
            });
        }
        self.fail(format!("expected a table, found {}", kind(self.value)));
        None
    }

    /// The text of a string, a number or a boolean, as swanctl.conf would spell it.
    pub(super) fn text(&self) -> Option<String> {
        match self.value {
            DeValue::String(text) => Some(text.clone().into_owned()),
            DeValue::Boolean(true) => Some("yes".to_owned()),
            DeValue::Boolean(false) => Some("no".to_owned()),
            DeValue::Integer(number) => {
                let decimal = i128::from_str_radix(number.as_str(), number.radix());
                Some(decimal.map_or_else(|_| number.as_str().to_owned(), |value| value.to_string()))
            }
            DeValue::Float(_) | DeValue::Datetime(_) | DeValue::Array(_) | DeValue::Table(_) => {
                None
            }
        }
    }

    pub(super) fn parse<T>(&self, parse: impl FnOnce(&str) -> Result<T, String>) -> Option<T> {
        let Some(text) = self.text() else {
            self.fail(format!("expected one value, found {}", kind(self.value)));
            return None;
        };
        parse(text.trim())
            .map_err(|message| self.fail(message))
            .ok()
    }

    /// Like [`Self::parse`], for a string whose every character counts.
    pub(super) fn parse_string<T>(
        &self,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<T> {
        let DeValue::String(text) = self.value else {
            self.fail(format!("expected a string, found {}", kind(self.value)));
            return None;
        };
        parse(text).map_err(|message| self.fail(message)).ok()
    }

    /// The items of an array, or of a comma-separated string.
    pub(super) fn items(&self) -> Vec<Item<'a>> {
        let split = |item: Item<'a>| {
            let parts = item
                .text
                .split(',')
                .map(str::trim)
                .filter(|part| !part.is_empty());
            let (source, key, line) = (item.source, item.key.clone(), item.line);
            let item = |text: &str| Item {
                source,
                key: key.clone(),
                line,
                text: text.to_owned(),
            };
            parts.map(item).collect::<Vec<_>>()
        };
        self.whole_items().into_iter().flat_map(split).collect()
    }

    /// Like [`Self::items`], but a comma belongs to its item, as in a distinguished name.
    pub(super) fn whole_items(&self) -> Vec<Item<'a>> {
        match self.value {
            DeValue::Array(array) => self.array_items(array),
            _ => match self.text() {
                Some(text) => vec![self.item(self.line, text)],
                None => {
                    self.fail(format!("expected a list, found {}", kind(self.value)));
                    Vec::new()
                }
            },
        }
    }

    pub(super) fn fail(&self, message: impl Into<String>) {
        self.source.fail(Some(self.line), &self.key, message);
    }

    fn array_items(&self, array: &'a DeArray<'a>) -> Vec<Item<'a>> {
        let item = |value: &'a Spanned<DeValue<'a>>| {
            let line = self.source.line(value.span().start);
            let entry = Self {
                line,
                value: value.get_ref(),
                key: self.key.clone(),
                ..*self
            };
            let text = entry.text();
            if text.is_none() {
                entry.fail(format!(
                    "expected a list of strings, found {} in it",
                    kind(entry.value)
                ));
            }
            Some(self.item(line, text?))
        };
        array.iter().filter_map(item).collect()
    }

    fn item(&self, line: usize, text: String) -> Item<'a> {
        Item {
            source: self.source,
            key: self.key.clone(),
            line,
            text,
        }
    }
}

/// One item of a list.
#[derive(Clone, Debug)]
pub(super) struct Item<'a> {
    source: &'a Source<'a>,
    key: String,
    line: usize,
    text: String,
}

impl Item<'_> {
    pub(super) fn parse<T>(&self, parse: impl FnOnce(&str) -> Result<T, String>) -> Option<T> {
        let fail = |message| self.source.fail(Some(self.line), &self.key, message);
        parse(self.text.trim()).map_err(fail).ok()
    }
}

fn kind(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "an integer",
        DeValue::Float(_) => "a fraction",
        DeValue::Boolean(_) => "a boolean",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "an array",
        DeValue::Table(_) => "a table",
    }
}
