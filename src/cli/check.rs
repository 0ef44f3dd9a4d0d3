//! `lockgate check`: validates a configuration file.

use super::{
    USAGE,
    output::{self, Failure},
};
use crate::{
    config::{Config, Problem},
    ike::{ChildMode, Connection, SelectorConfig},
    wire::keyword,
};
use std::{fmt::Write, path::PathBuf, process::ExitCode};

/// Arguments of `lockgate check`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  lockgate check gw.toml\n  lockgate check gw.toml && lockgate reload\n\nPrints every mistake with file, line and key, and exits 2; or warnings and a summary, and exits 0."
)]
pub struct Args {
    /// Configuration file
    pub file: PathBuf,
}

/// Prints every problem of the file, or its warnings and a summary.
pub fn execute(args: &Args) -> ExitCode {
    match Config::load(&args.file) {
        Ok(config) => {
            config.warnings.iter().for_each(warn);
            output::finish(summary(&config))
        }
        Err(error) => {
            output::note(&error.to_string());
            output::complain(&format!(
                "{} does not hold a usable configuration",
                args.file.display()
            ));
            ExitCode::from(USAGE)
        }
    }
}

/// Prints a warning where a person sees it.
pub(super) fn warn(warning: &Problem) {
    output::note(&format!("warning: {warning}"));
}

fn summary(config: &Config) -> Result<(), Failure> {
    let (connections, secrets) = (&config.pad.connections, &config.pad.secrets);
    let children: usize = connections
        .iter()
        .map(|connection| connection.children.len())
        .sum();
    let mut text = format!(
        "ok: {}, {}, {}\n",
        counted(connections.len(), "connection", "connections"),
        counted(children, "child", "children"),
        counted(secrets.len(), "secret", "secrets"),
    );
    for connection in connections {
        describe(&mut text, connection);
    }
    output::print(&text)
}

fn describe(text: &mut String, connection: &Connection) {
    let local = connection
        .local
        .id
        .as_ref()
        .map_or("our address".to_owned(), ToString::to_string);
    let _ = writeln!(
        text,
        "{}: {local} <-> {}",
        connection.name, connection.remote.id
    );
    for child in &connection.children {
        let mode = match child.mode {
            ChildMode::Tunnel => "protect",
            ChildMode::Transport => "transport",
            ChildMode::Pass => "pass",
            ChildMode::Drop => "drop",
        };
        let (local, remote) = (selectors(&child.local_ts), selectors(&child.remote_ts));
        let _ = writeln!(text, "  {}: {mode} {local} === {remote}", child.name);
        if child.mode.protects() {
            let suites: Vec<String> = child
                .esp_proposals
                .iter()
                .map(keyword::proposal_text)
                .collect();
            let _ = writeln!(text, "    {}", suites.join(", "));
        }
    }
}

fn selectors(list: &[SelectorConfig]) -> String {
    let text = |selector: &SelectorConfig| match selector {
        SelectorConfig::Dynamic { .. } => "dynamic".to_owned(),
        SelectorConfig::Fixed(selector) => selector.to_string(),
    };
    list.iter().map(text).collect::<Vec<String>>().join(" ")
}

fn counted(count: usize, one: &str, many: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { many })
}
