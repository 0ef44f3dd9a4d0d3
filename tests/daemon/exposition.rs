//! A strict reader of the OpenMetrics 1.0 text format.

use std::collections::{BTreeMap, BTreeSet};

/// Every series with its value; see [`Exposition::parse`].
pub(crate) struct Exposition {
    series: BTreeMap<(String, Labels), f64>,
}

type Labels = BTreeMap<String, String>;

/// A metric family while its lines are read.
#[derive(Default)]
struct Family {
    name: String,
    kind: String,
    has_help: bool,
    /// The last bucket of each histogram: its bound and its count.
    buckets: BTreeMap<Labels, (f64, f64)>,
}

impl Exposition {
    /// Reads a text and panics at the first line that breaks a rule of the format.
    #[track_caller]
    pub(crate) fn parse(text: &str) -> Self {
        let body = text.strip_suffix("# EOF\n").expect("it ends with # EOF");
        let mut series = BTreeMap::new();
        let (mut families, mut family) = (BTreeSet::new(), Family::default());
        for line in body.lines() {
            if let Some(rest) = line.strip_prefix("# ") {
                let mut words = rest.splitn(3, ' ');
                let [word, name, value] = [(); 3].map(|()| words.next().expect(line));
                if name != family.name {
                    assert!(families.insert(name.to_owned()), "in two places: {line}");
                    family = Family {
                        name: name.to_owned(),
                        ..Family::default()
                    };
                }
                match word {
                    "HELP" => {
                        assert!(!value.is_empty() && !family.has_help, "{line}");
                        family.has_help = true;
                    }
                    "TYPE" => family.kind = value.to_owned(),
                    "UNIT" => assert!(name.ends_with(&format!("_{value}")), "{line}"),
                    _ => panic!("unknown: {line}"),
                }
            } else {
                let (name, labels, value) = sample(line);
                family.check(&name, &labels, value, line);
                let old = series.insert((name, labels), value);
                assert!(old.is_none(), "twice: {line}");
            }
        }
        Self { series }
    }

    /// The value of a series, named with all of its labels.
    pub(crate) fn get(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let labels = labels
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let key = (name.to_owned(), labels.collect());
        self.series.get(&key).copied()
    }

    /// The sum over all series of this name.
    pub(crate) fn sum(&self, name: &str) -> f64 {
        let named = self.series.iter().filter(|((of, _), _)| of == name);
        named.map(|(_, value)| value).sum()
    }

    pub(crate) fn names(&self) -> BTreeSet<&str> {
        self.series.keys().map(|(name, _)| name.as_str()).collect()
    }

    pub(crate) fn len(&self) -> usize {
        self.series.len()
    }
}

impl Family {
    fn check(&mut self, name: &str, labels: &Labels, value: f64, line: &str) {
        assert!(self.has_help, "no help: {line}");
        let suffix = name.strip_prefix(&self.name).expect(line);
        match (self.kind.as_str(), suffix) {
            ("gauge", "") => {}
            ("info", "_info") => assert!(value == 1.0, "{line}"),
            ("counter", "_total") | ("histogram", "_sum" | "_count") => {
                assert!(value >= 0.0 && value.is_finite(), "{line}");
            }
            ("histogram", "_bucket") => {
                let mut rest = labels.clone();
                let bound = number(&rest.remove("le").expect(line));
                let last = self.buckets.insert(rest, (bound, value));
                let (last_bound, last_count) = last.unwrap_or((f64::NEG_INFINITY, 0.0));
                assert!(bound > last_bound && value >= last_count, "{line}");
            }
            _ => panic!("{} has no {suffix:?}: {line}", self.kind),
        }
    }
}

fn sample(line: &str) -> (String, Labels, f64) {
    let end = line.find(['{', ' ']).expect(line);
    let (name, mut rest) = line.split_at(end);
    assert!(is_name(name), "{line}");
    let mut labels = Labels::new();
    if let Some(inside) = rest.strip_prefix('{') {
        rest = inside;
        while !rest.starts_with('}') {
            let (label, after) = rest.split_once("=\"").expect(line);
            assert!(is_name(label) && !label.contains(':'), "{line}");
            let (value, after) = label_value(after, line);
            let old = labels.insert(label.to_owned(), value);
            assert!(old.is_none(), "{line}");
            rest = after.strip_prefix(',').unwrap_or(after);
            assert!(rest != after || after.starts_with('}'), "{line}");
        }
        rest = &rest[1..];
    }
    let value = rest.strip_prefix(' ').expect(line);
    (name.to_owned(), labels, number(value))
}

/// A label value without its escapes, and what follows its closing quote.
fn label_value<'a>(text: &'a str, line: &str) -> (String, &'a str) {
    let mut value = String::new();
    let mut characters = text.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return (value, &text[at + 1..]),
            '\\' => value.push(match characters.next().expect(line).1 {
                'n' => '\n',
                escaped @ ('"' | '\\') => escaped,
                _ => panic!("an escape that does not exist: {line}"),
            }),
            other => value.push(other),
        }
    }
    panic!("an open quote: {line}");
}

fn number(text: &str) -> f64 {
    assert!(!text.contains(' '), "{text}");
    text.parse().expect(text)
}

fn is_name(text: &str) -> bool {
    let inside = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | ':');
    !text.is_empty() && !text.starts_with(|c: char| c.is_ascii_digit()) && text.chars().all(inside)
}
