//! What several test programs share. Each of them uses a part of it.
#![allow(
    dead_code,
    reason = "every test program compiles this module and uses its part"
)]
#![allow(
    clippy::unwrap_used,
    reason = "in a test, a failure of the scaffolding is a failure of the test"
)]

pub(crate) mod eavesdropper;
pub(crate) mod guest;
pub(crate) mod lab;
pub(crate) mod link;
pub(crate) mod process;
pub(crate) mod root;
mod skip;
pub(crate) mod strongswan;
pub(crate) mod tools;
pub(crate) mod traffic;

use std::{
    fs::File,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use lockgate::io::netns::Namespace;

pub(crate) use skip::skip;

/// Whether this process may make network namespaces and TUN devices; if not, the test is skipped.
pub(crate) fn may_build_a_lab() -> bool {
    if let Err(error) = Namespace::new("probe") {
        skip(&format!("needs root or user namespaces: {error}"));
        return false;
    }
    if let Err(error) = File::options().read(true).write(true).open("/dev/net/tun") {
        skip(&format!("needs /dev/net/tun: {error}"));
        return false;
    }
    true
}

/// The program `name` from the folders where Debian installs such; if absent, the test is skipped.
pub(crate) fn program(name: &str, package: &str) -> Option<PathBuf> {
    let found = ["/usr/sbin", "/usr/bin", "/sbin", "/bin"]
        .map(|folder| Path::new(folder).join(name))
        .into_iter()
        .find(|path| path.is_file());
    if found.is_none() {
        skip(&format!("needs {name} (Debian package {package})"));
    }
    found
}

/// Waits until `condition` gives a value; `what` names it when it never does.
///
/// The limit is far beyond what any machine needs, so that a slow one does not fail.
#[track_caller]
pub(crate) fn eventually<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(Instant::now() < deadline, "gave up waiting until {what}");
        thread::sleep(Duration::from_millis(20));
    }
}

/// How long a test waits for something that has to happen.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);
