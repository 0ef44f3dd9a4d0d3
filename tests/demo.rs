//! The demo as a person runs it.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod support;

use std::{
    collections::BTreeSet,
    fs,
    io::{BufRead, BufReader, Read},
    path::Path,
    process::{Command, Stdio},
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use support::{eventually, may_build_a_lab};
use tempfile::TempDir;

/// The demo with a temporary folder of its own, so that what it leaves there is seen.
fn demo(arguments: &[&str], folder: &TempDir) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lockgate"));
    command
        .arg("demo")
        .args(arguments)
        .env("TMPDIR", folder.path());
    command
}

#[test]
fn the_demo_measures_a_tunnel_and_its_checks_pass() {
    if !may_build_a_lab() {
        return;
    }
    let folder = TempDir::new().unwrap();
    let output = demo(&["--seconds", "1", "--json"], &folder)
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "{}{errors}",
        String::from_utf8_lossy(&output.stdout)
    );
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["passed"], true);
    assert_eq!(
        report["ike_suite"],
        "AES_GCM_16_256/PRF_HMAC_SHA2_384/CURVE_25519"
    );
    assert!(
        report["esp_suite"]
            .as_str()
            .unwrap()
            .starts_with("AES_GCM_16_256")
    );
    assert_eq!(report["outer_link"]["packets_in_clear"], 0);
    for positive in ["/handshake_ms", "/a_to_b/gbit_per_s", "/b_to_a/gbit_per_s"] {
        assert!(
            report.pointer(positive).unwrap().as_f64().unwrap() > 0.0,
            "{positive}"
        );
    }
    for count in [
        "/round_trip_idle/answered",
        "/gateway_a/sas/0/packets_out",
        "/a_to_b/bytes",
    ] {
        assert!(
            report.pointer(count).unwrap().as_u64().unwrap() > 0,
            "{count}"
        );
    }
    assert!(
        errors.contains("[connections.demo]"),
        "the configuration is not shown"
    );
    assert_nothing_left(&folder);
}

#[test]
fn the_demo_prints_a_report_for_people() {
    if !may_build_a_lab() {
        return;
    }
    let folder = TempDir::new().unwrap();
    let output = demo(&["--seconds", "1"], &folder).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success(),
        "{text}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    for part in [
        "gateway-a ═══",
        "handshake",
        "Gbit/s",
        "p99.9",
        "ok      no inner packet in clear",
    ] {
        assert!(text.contains(part), "{part} is not in\n{text}");
    }
}

#[test]
fn a_kept_lab_is_up_until_the_demo_is_told_to_end() {
    if !may_build_a_lab() {
        return;
    }
    let folder = TempDir::new().unwrap();
    let mut command = demo(&["--seconds", "1", "--keep"], &folder);
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap())
        .lines()
        .map(Result::unwrap);
    let entry = lines
        .find(|line| line.contains("nsenter"))
        .expect("it says how to enter");
    let path = entry.split("--net=").nth(1).unwrap();
    assert!(Path::new(path).exists(), "{path}");

    kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
    eventually("the demo ends", || child.try_wait().unwrap());
    assert_nothing_left(&folder);
}

#[test]
fn an_interrupted_demo_leaves_nothing_behind() {
    if !may_build_a_lab() {
        return;
    }
    for signal in [Signal::INT, Signal::TERM] {
        let folder = TempDir::new().unwrap();
        let mut command = demo(&["--seconds", "30"], &folder);
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap())
            .lines()
            .map(Result::unwrap);
        lines
            .find(|line| line.contains("tunnel up"))
            .expect("the tunnel comes up");
        assert!(!daemons(&folder).is_empty());

        kill_process(Pid::from_child(&child), signal).unwrap();
        let status = eventually("the demo ends", || child.try_wait().unwrap());
        assert_eq!(status.code(), Some(1));
        let mut errors = String::new();
        child
            .stderr
            .take()
            .unwrap()
            .read_to_string(&mut errors)
            .unwrap();
        assert!(errors.contains("interrupted"), "{errors}");
        assert_nothing_left(&folder);
    }
}

/// Even a demo that cannot clean up takes its processes with it.
#[test]
fn a_killed_demo_takes_its_daemons_with_it() {
    if !may_build_a_lab() {
        return;
    }
    let folder = TempDir::new().unwrap();
    let mut child = demo(&["--seconds", "30"], &folder)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap())
        .lines()
        .map(Result::unwrap);
    lines
        .find(|line| line.contains("tunnel up"))
        .expect("the tunnel comes up");
    child.kill().unwrap();
    child.wait().unwrap();
    eventually("the daemons are gone", || {
        daemons(&folder).is_empty().then_some(())
    });
}

#[track_caller]
fn assert_nothing_left(folder: &TempDir) {
    let files: Vec<_> = fs::read_dir(folder.path()).unwrap().collect();
    assert!(files.is_empty(), "{files:?}");
    assert!(daemons(folder).is_empty(), "{:?}", daemons(folder));
}

/// Processes whose command line names this folder.
fn daemons(folder: &TempDir) -> BTreeSet<String> {
    let name = folder.path().to_string_lossy().into_owned();
    let processes = fs::read_dir("/proc").unwrap().filter_map(|entry| {
        let command = fs::read(entry.ok()?.path().join("cmdline")).ok()?;
        let command = String::from_utf8_lossy(&command).replace('\0', " ");
        command.contains(&name).then_some(command)
    });
    processes.collect()
}
