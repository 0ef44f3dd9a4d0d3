//! The import rules of the crate: which room may use which, and where `unsafe`, the clock and the
//! crypto providers may appear.
//!
//! ```text
//! wire ◄─ crypto ◄─ ipsec ◄─ ike ◄─ config        wire::ip ◄─ io ◄─ lab        everything ◄─ daemon, cli
//!    ▲────────────────┴──── dataplane ──► io
//! ```
//!
//! The checker reads the sources as tokens, so comments and strings do not count. Each rule has a
//! test below that shows it can fail.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

#[path = "layers/paths.rs"]
mod paths;

use std::{
    fmt, fs,
    path::{Path, PathBuf},
};

use paths::{Reference, Source};

#[test]
fn every_source_file_keeps_to_the_import_rules() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    collect(&root, &mut files);
    for (room, _) in ROOMS {
        assert!(
            files.iter().any(|file| file.starts_with(root.join(room))),
            "no files of {room}"
        );
    }
    let violations: Vec<String> = files
        .iter()
        .flat_map(|file| {
            let name = file.strip_prefix(&root).expect("collected below the root");
            let text = fs::read_to_string(file).expect("a source file is UTF-8");
            check(&name.to_string_lossy(), &text)
        })
        .map(|violation| violation.to_string())
        .collect();
    assert!(violations.is_empty(), "\n{}\n", violations.join("\n"));
}

#[test]
fn no_test_benchmark_or_measuring_program_is_longer_than_a_source_file_may_be() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    for folder in ["tests", "benches", "perf/src"] {
        let before = files.len();
        collect(&root.join(folder), &mut files);
        assert!(files.len() > before, "no files in {folder}");
    }
    let too_long = files.iter().filter_map(|file| {
        let text = fs::read_to_string(file).expect("a source file is UTF-8");
        let lines = text.lines().count();
        (lines > MAX_LINES).then(|| format!("{}: {lines} lines", file.display()))
    });
    let too_long: Vec<_> = too_long.collect();
    assert!(too_long.is_empty(), "\n{}\n", too_long.join("\n"));
}

/// The rooms of the crate, with what each may use of the others. Only `cli` may use all.
const ROOMS: [(&str, &[&str]); 10] = [
    ("wire", &["wire"]),
    ("crypto", &["crypto", "wire::proposal"]),
    ("ipsec", &["ipsec", "wire", "crypto"]),
    ("ike", &["ike", "wire", "crypto", "ipsec"]),
    ("io", &["io", "wire::ip", "wire::vnet", "wire::Malformed"]),
    ("dataplane", &["dataplane", "wire", "ipsec", "io"]),
    ("lab", &["lab", "wire", "io"]),
    ("config", &["config", "wire", "crypto", "ipsec", "ike"]),
    (
        "daemon",
        &[
            "wire",
            "crypto",
            "ipsec",
            "ike",
            "io",
            "dataplane",
            "config",
            "daemon",
        ],
    ),
    (
        "cli",
        &[
            "wire",
            "crypto",
            "ipsec",
            "ike",
            "io",
            "dataplane",
            "config",
            "daemon",
            "lab",
            "cli",
        ],
    ),
];

/// Rooms whose behaviour is a function of their arguments: no clock, socket, thread or file.
const PURE: [&str; 4] = ["wire", "crypto", "ipsec", "ike"];

/// What no pure room may name. A `*` stands for any path before the rest.
const IMPURE: [&str; 15] = [
    "std::thread",
    "std::fs",
    "std::env",
    "std::process",
    "std::net::UdpSocket",
    "std::net::TcpStream",
    "std::net::TcpListener",
    "std::os",
    "*Instant::now",
    "*SystemTime",
    "libc",
    "rustix",
    "mio",
    "socket2",
    "tracing",
];

/// Crates that only `crypto` names.
const PROVIDERS: [&str; 12] = [
    "aws_lc_rs",
    "der",
    "pkcs1",
    "pkcs8",
    "rustls_pki_types",
    "webpki",
    "x509_cert",
    "aes",
    "aes_gcm",
    "cbc",
    "chacha20poly1305",
    "crypto_bigint",
];

/// All that `wire` may use from outside the crate.
const WIRE_OUTSIDE: [&str; 5] = ["std", "core", "alloc", "ipnet", "thiserror"];

const MAX_LINES: usize = 600;

/// A rule that a line of a file breaks.
#[derive(Debug, PartialEq)]
struct Violation {
    file: String,
    line: usize,
    rule: Rule,
}

#[derive(Debug, PartialEq)]
enum Rule {
    Imports { room: String, path: String },
    Impure { room: String, path: String },
    Provider(String),
    OutsideWire(String),
    Unsafe,
    Macro,
    Anyhow,
    TooLong(usize),
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "src/{}:{}: ", self.file, self.line)?;
        match &self.rule {
            Rule::Imports { room, path } => write!(f, "`{room}` may not use `crate::{path}`"),
            Rule::Impure { room, path } => {
                write!(
                    f,
                    "`{room}` is a function of its arguments and may not use `{path}`"
                )
            }
            Rule::Provider(path) => write!(f, "`{path}` belongs to `crypto` alone"),
            Rule::OutsideWire(path) => write!(f, "`wire` may not use `{path}`"),
            Rule::Unsafe => write!(f, "`unsafe` belongs to `io` alone"),
            Rule::Macro => write!(f, "no macros of our own"),
            Rule::Anyhow => write!(f, "`anyhow` belongs to `main` and `cli` alone"),
            Rule::TooLong(lines) => write!(f, "{lines} lines, more than {MAX_LINES}"),
        }
    }
}

/// Checks one file, named by its path below `src`.
fn check(file: &str, text: &str) -> Vec<Violation> {
    let source = Source::read(text);
    let module = module_of(file);
    let room = module.first().cloned().unwrap_or_default();
    let violation = |line, rule| Violation {
        file: file.to_owned(),
        line,
        rule,
    };

    let mut found = Vec::new();
    if text.lines().count() > MAX_LINES {
        found.push(violation(
            MAX_LINES + 1,
            Rule::TooLong(text.lines().count()),
        ));
    }
    if room != "io" {
        found.extend(
            source
                .lines_of("unsafe")
                .map(|line| violation(line, Rule::Unsafe)),
        );
    }
    found.extend(
        source
            .lines_of("macro_rules")
            .map(|line| violation(line, Rule::Macro)),
    );
    let children = source.children();
    let leads_out = |reference: &Reference| {
        !children.contains(&reference.path.split("::").next().unwrap_or_default())
    };
    for reference in source.references(&module).into_iter().filter(leads_out) {
        found.extend(judge(&room, &reference).map(|rule| violation(reference.line, rule)));
    }
    found
}

/// The rule that a path named in `room` breaks, if it breaks one.
fn judge(room: &str, reference: &Reference) -> Option<Rule> {
    let (room_name, path) = (room.to_owned(), reference.path.clone());
    if let Some(inner) = path.strip_prefix("crate::") {
        let (_, allowed) = ROOMS.iter().find(|(name, _)| *name == room)?;
        let names_a_room = ROOMS.iter().any(|(name, _)| begins(inner, name));
        let permitted = allowed.iter().any(|prefix| begins(inner, prefix));
        let inner = inner.to_owned();
        return (names_a_room && !permitted).then_some(Rule::Imports {
            room: room_name,
            path: inner,
        });
    }
    let leads_to = |name: &&str| begins(&path, name) && (reference.imported || path != *name);
    if room != "crypto" && PROVIDERS.iter().any(&leads_to) {
        return Some(Rule::Provider(path));
    }
    if !["main", "cli"].contains(&room) && leads_to(&"anyhow") {
        return Some(Rule::Anyhow);
    }
    if PURE.contains(&room) {
        let impure = IMPURE
            .iter()
            .any(|pattern| match pattern.strip_prefix('*') {
                Some(part) => format!("::{path}::").contains(&format!("::{part}::")),
                None => leads_to(pattern),
            });
        if impure {
            return Some(Rule::Impure {
                room: room_name,
                path,
            });
        }
    }
    let known = ["crate", "self", "super"]
        .iter()
        .chain(&WIRE_OUTSIDE)
        .any(|name| begins(&path, name));
    (room == "wire" && reference.imported && !known).then_some(Rule::OutsideWire(path))
}

/// Whether `path` is `prefix` or goes on below it.
fn begins(path: &str, prefix: &str) -> bool {
    path.strip_prefix(prefix)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

/// `ike/v2/init.rs` is the module `ike`, `v2`, `init`.
fn module_of(file: &str) -> Vec<String> {
    let stem = file.strip_suffix(".rs").unwrap_or(file);
    let stem = stem.strip_suffix("/mod").unwrap_or(stem);
    stem.split('/')
        .filter(|name| *name != "lib")
        .map(str::to_owned)
        .collect()
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    let mut entries: Vec<PathBuf> = fs::read_dir(folder)
        .expect("the source folder is readable")
        .map(|entry| entry.expect("a folder entry is readable").path())
        .collect();
    entries.sort();
    for path in entries {
        if path.is_dir() {
            collect(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

/// Checks that a sample breaks exactly the rules given, by their messages' parts.
fn assert_finds(file: &str, text: &str, expected: &[&str]) {
    let found: Vec<String> = check(file, text).iter().map(ToString::to_string).collect();
    assert_eq!(found.len(), expected.len(), "{found:?}");
    for (message, part) in found.iter().zip(expected) {
        assert!(message.contains(part), "{message} lacks {part}");
    }
}

#[test]
fn an_import_from_a_forbidden_room_is_found_in_every_spelling() {
    assert_finds(
        "wire/esp.rs",
        "use crate::ike::Pad;",
        &["src/wire/esp.rs:1: `wire` may not use"],
    );
    assert_finds(
        "ipsec/sad.rs",
        "fn f() {}\nuse crate::{wire::esp, io::tun};",
        &[":2:"],
    );
    assert_finds(
        "ike/v2/init.rs",
        "type T = crate::daemon::Control;",
        &["`crate::daemon::Control`"],
    );
    assert_finds(
        "io/tun.rs",
        "use super::super::ipsec::Spi;",
        &["`crate::ipsec::Spi`"],
    );
    assert_finds(
        "io/netlink/mod.rs",
        "use super::super::ipsec::Spi;",
        &["`crate::ipsec::Spi`"],
    );
    assert_finds(
        "io/tun.rs",
        "mod inner { use super::super::super::ipsec::Spi; }",
        &["ipsec"],
    );
    assert_finds(
        "dataplane/mod.rs",
        "use crate::{ipsec::{Spi, Sad}, ike::{self, Pad}};",
        &["ike", "ike"],
    );
    assert_finds(
        "crypto/prf.rs",
        "use crate::wire::esp::EspHeader;",
        &["wire::esp"],
    );
    assert_finds("config/mod.rs", "pub use crate::daemon as d;", &["daemon"]);
    assert_finds("daemon/mod.rs", "use crate::lab::Lab;", &["lab::Lab"]);
    assert_finds(
        "lab/mod.rs",
        "use crate::dataplane::Handle;",
        &["dataplane"],
    );
}

#[test]
fn permitted_imports_comments_strings_and_tests_are_not_found() {
    let text = r##"
        //! use crate::ike::Pad;
        use crate::{ipsec::Spi, wire::ip::{self, Flow}};
        /* unsafe /* crate::ike::Pad */ unsafe */
        fn f<'unsafe_>(x: &'unsafe_ str) -> char { r#"unsafe "crate::ike" "#; "\"crate::ike::X"; '"' }
        #[cfg(test)]
        mod tests { use crate::ike::Pad; fn g() { std::thread::yield_now(); } }
    "##;
    assert_finds("dataplane/worker.rs", text, &[]);
    assert_finds(
        "ipsec/mod.rs",
        "mod spi; pub use self::spi::Spi; use std::time::Instant;",
        &[],
    );
    assert_finds(
        "ike/mod.rs",
        "fn f(now: Instant, aes: u8, thread: u8) { aes + thread; }",
        &[],
    );
}

#[test]
fn code_after_a_test_module_is_checked_again() {
    let text = "#[cfg(test)] mod tests { mod deep {} }\nuse crate::ike::Pad;";
    assert_finds("wire/ip.rs", text, &[":2:"]);
}

#[test]
fn unsafe_code_outside_io_is_found_even_in_tests() {
    assert_finds("io/udp.rs", "fn f() { unsafe { g() } }", &[]);
    assert_finds(
        "dataplane/mod.rs",
        "fn f() { unsafe { g() } }",
        &["`unsafe`"],
    );
    assert_finds(
        "wire/ip.rs",
        "#[cfg(test)] mod tests { unsafe fn f() {} }",
        &["`unsafe`"],
    );
}

#[test]
fn clocks_sockets_threads_and_files_in_a_pure_room_are_found() {
    assert_finds(
        "ike/endpoint.rs",
        "let now = Instant::now();",
        &["Instant::now"],
    );
    assert_finds(
        "ike/endpoint.rs",
        "let now = std::time::Instant::now();",
        &["Instant::now"],
    );
    assert_finds(
        "wire/ip.rs",
        "use std::time::{Duration, SystemTime};",
        &["SystemTime"],
    );
    assert_finds(
        "crypto/mod.rs",
        "use std::{fs, thread::spawn};",
        &["std::fs", "std::thread"],
    );
    assert_finds(
        "ipsec/sad.rs",
        "std::net::UdpSocket::bind(a);",
        &["UdpSocket"],
    );
    assert_finds(
        "ike/mod.rs",
        "tracing::info!(1); libc::getpid();",
        &["tracing", "libc"],
    );
    assert_finds(
        "daemon/mod.rs",
        "use std::{fs, thread}; let now = Instant::now();",
        &[],
    );
}

#[test]
fn a_crypto_provider_outside_crypto_is_found() {
    assert_finds(
        "ike/auth.rs",
        "use aws_lc_rs::hmac;",
        &["`aws_lc_rs::hmac`"],
    );
    assert_finds(
        "daemon/mod.rs",
        "let k = aes_gcm::Aes256Gcm::new(k);",
        &["aes_gcm"],
    );
    assert_finds(
        "crypto/packet.rs",
        "use aws_lc_rs::aead; use aes::Aes128;",
        &[],
    );
}

#[test]
fn wire_imports_nothing_but_std_and_addresses() {
    assert_finds(
        "wire/ip.rs",
        "use ipnet::IpNet; use thiserror::Error; use std::fmt;",
        &[],
    );
    assert_finds(
        "wire/ip.rs",
        "use serde::Deserialize;",
        &["serde::Deserialize"],
    );
}

#[test]
fn long_files_macros_and_anyhow_in_libraries_are_found() {
    assert_finds("wire/ip.rs", &"\n".repeat(601), &["601 lines"]);
    assert_finds("wire/ip.rs", "macro_rules! m { () => {} }", &["macros"]);
    assert_finds(
        "daemon/mod.rs",
        "fn f() -> anyhow::Result<()> {}",
        &["anyhow"],
    );
    assert_finds("cli/run.rs", "fn f() -> anyhow::Result<()> {}", &[]);
}
