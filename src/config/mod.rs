//! The configuration file: TOML in, a configuration that is valid by construction out.
//!
//! Keys and values under `connections`, `secrets` and `authorities` are those of swanctl.conf; `docs/configuration.md`
//! has every key. Reading collects all mistakes instead of stopping at the first one:
//!
//! ```text
//! text ─► toml with spans ─► read (places) ─► keys (may it stand here?) ─► value (syntax)
//!      ─► daemon, connection, child, secret ─► check (do they fit together?) ─► Config
//! ```

mod authentication;
mod authority;
mod changes;
mod check;
mod child;
mod connection;
pub mod daemon;
pub mod error;
mod files;
mod keys;
mod pool;
mod private;
mod read;
mod reqid;
mod secret;
mod value;

pub use changes::Changes;
pub use daemon::{DaemonConfig, Guard, LogFormat, TUNNEL_MARK};
pub use error::{ConfigError, ConfigWarning, Problem};
pub use value::address as address_pattern;

use crate::ike::{Connection, Pad, Pool};
use authentication::Credentials;
use read::{Entry, Section, Source};
use std::{fs, path::Path, sync::Arc};
use toml::de::DeTable;
use zeroize::Zeroizing;

/// A configuration that can be run.
#[derive(Clone, Debug)]
pub struct Config {
    /// This process.
    pub daemon: DaemonConfig,
    /// The peers and their secrets.
    pub pad: Arc<Pad>,
    /// What is allowed and probably not meant.
    pub warnings: Vec<ConfigWarning>,
}

impl Config {
    /// Reads the file at `path`, and the files that it names.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let fail = |error: std::io::Error| {
            let message = format!("cannot be read: {error}");
            let (file, key) = (path.to_owned(), String::new());
            ConfigError {
                problems: vec![Problem {
                    file,
                    line: None,
                    key,
                    message,
                }],
            }
        };
        let metadata = fs::metadata(path).map_err(fail)?;
        let text = Zeroizing::new(fs::read_to_string(path).map_err(fail)?);
        read(&text, path, secret::is_world_readable(&metadata))
    }

    /// Reads `text` as if it stood in `file`, which names it in errors and is where relative
    /// paths start.
    pub fn parse(text: &str, file: &Path) -> Result<Self, ConfigError> {
        read(text, file, false)
    }

    /// What a reload from `self` to `newer` changes.
    pub fn changes(&self, newer: &Self) -> Changes {
        Changes::between(self, newer)
    }
}

fn read(text: &str, file: &Path, world_readable: bool) -> Result<Config, ConfigError> {
    let source = Source::new(file, text);
    let (table, errors) = DeTable::parse_recoverable(text);
    for error in errors.iter().take(SYNTAX_ERRORS_SHOWN) {
        let line = error.span().map(|span| source.line(span.start));
        source.fail(line, "", syntax_message(error, text));
    }
    let mut config = (DaemonConfig::default(), Pad::default());
    if errors.is_empty() {
        config = read_root(&Section::root(&source, table.get_ref()), world_readable);
    }
    let (problems, warnings) = source.into_findings();
    let (daemon, pad) = config;
    if problems.is_empty() {
        Ok(Config {
            daemon,
            pad: Arc::new(pad),
            warnings,
        })
    } else {
        Err(ConfigError { problems })
    }
}

/// The parser's message, with the key where it leaves that out.
fn syntax_message(error: &toml::de::Error, text: &str) -> String {
    let message = error.message().replace('\n', "; ");
    match error.span().and_then(|span| text.get(span)) {
        Some(key) if message == "duplicate key" => format!("{message} {key}"),
        _ => message,
    }
}

fn read_root(root: &Section<'_>, world_readable: bool) -> (DaemonConfig, Pad) {
    root.check_keys(&keys::ROOT);
    let daemon = root
        .section("daemon")
        .map(|section| daemon::read(&section))
        .unwrap_or_default();
    let mut pad = Pad::default();
    let mut private_keys = Vec::new();
    if let Some(section) = root.section("secrets") {
        pad.secrets = secret::read_all(&section, world_readable);
        pad.ppks = secret::read_ppks(&section, world_readable);
        private_keys = private::read_all(&section, world_readable);
    }
    if let Some(section) = root.section("authorities") {
        pad.authorities = authority::read_all(&section);
    }
    let pools = root.section("pools");
    let pools = pools
        .map(|pools| pool::read_all(&pools))
        .unwrap_or_default();
    if let Some(section) = root.section("connections") {
        let credentials = Credentials {
            keys: &private_keys,
            authorities: &pad.authorities,
        };
        pad.connections = read_connections(&section, &daemon, &credentials, &pools);
        check::check(&section, &pad);
    }
    (daemon, pad)
}

fn read_connections(
    section: &Section<'_>,
    daemon: &DaemonConfig,
    credentials: &Credentials<'_>,
    pools: &[Arc<Pool>],
) -> Vec<Arc<Connection>> {
    let read = |(name, entry): (String, Entry<'_>)| {
        let section = entry.section()?;
        Some(connection::read(
            &name,
            &section,
            daemon,
            credentials,
            pools,
        ))
    };
    let mut connections: Vec<Connection> = section.entries().into_iter().filter_map(read).collect();
    reqid::assign(&mut connections);
    connections.into_iter().map(Arc::new).collect()
}

/// After some slips a parser only reports its own confusion.
const SYNTAX_ERRORS_SHOWN: usize = 20;
