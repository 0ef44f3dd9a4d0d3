//! What is wrong with a configuration file, and where.

use std::{fmt, path::PathBuf};

/// Everything that is wrong with one configuration file, in the order of its lines.
#[derive(Debug, thiserror::Error)]
#[error("{}", lines(problems))]
pub struct ConfigError {
    /// Never empty.
    pub problems: Vec<Problem>,
}

/// One thing that is wrong with a configuration file.
///
/// Displays as `gw.toml:12: connections.site-b.dpd_delya: unknown key; …`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The file as it was named to us.
    pub file: PathBuf,
    /// Line of the key or value, from 1; absent where the file as a whole is meant.
    pub line: Option<usize>,
    /// Full dotted key; empty where the file as a whole is meant.
    pub key: String,
    /// What is wrong and what would be right.
    pub message: String,
}

/// Something that works but is probably not what was meant. Displays like a [`Problem`].
pub type ConfigWarning = Problem;

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.file.display())?;
        if let Some(line) = self.line {
            write!(f, "{line}:")?;
        }
        if !self.key.is_empty() {
            write!(f, " {}:", self.key)?;
        }
        write!(f, " {}", self.message)
    }
}

fn lines(problems: &[Problem]) -> String {
    let lines: Vec<String> = problems.iter().map(Problem::to_string).collect();
    lines.join("\n")
}
