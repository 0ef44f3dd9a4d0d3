//! How a test says that it cannot run here. The crate's own unit tests use this file, too.

use std::{fs::OpenOptions, io::Write, thread};

/// Reports that the running test cannot run here. The caller then returns.
///
/// The summary of `scripts/test` reads the report; on CI a skip is a failure.
pub(crate) fn skip(reason: &str) {
    let test = thread::current().name().unwrap_or("a test").to_owned();
    let line = format!("skipped: {test}: {reason}");
    assert!(
        std::env::var_os("CI").is_none_or(|value| value != "true"),
        "{line}"
    );
    println!("{line}");
    if let Some(list) = std::env::var_os("LOCKGATE_SKIPS") {
        let mut list = OpenOptions::new()
            .append(true)
            .create(true)
            .open(list)
            .unwrap();
        writeln!(list, "{test}: {reason}").unwrap();
    }
}
