//! `lockgate bench` with durations so short that its figures mean nothing but their presence.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

#[path = "report/markup.rs"]
mod markup;
mod support;

use std::{
    fs,
    io::{BufRead, BufReader},
    process::{Command, Output, Stdio},
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use support::{eventually, may_build_a_lab};
use tempfile::TempDir;

fn bench(arguments: &[&str], folder: &TempDir) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lockgate"));
    command
        .arg("bench")
        .args(arguments)
        .env("TMPDIR", folder.path());
    command
}

fn run(arguments: &[&str], folder: &TempDir) -> Output {
    let output = bench(arguments, folder).output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    output
}

fn number(value: &Value, pointer: &str) -> f64 {
    let found = value.pointer(pointer);
    let found = found.unwrap_or_else(|| panic!("{pointer} is not in {value}"));
    found
        .as_f64()
        .unwrap_or_else(|| panic!("{pointer} is {found}"))
}

const SHORT: [&str; 8] = [
    "--seconds",
    "0.005",
    "--sizes",
    "64,1400,imix",
    "--suites",
    "aes256gcm16,aes256-sha256",
    "--workers",
    "2",
];

#[test]
fn every_stage_is_measured_for_every_suite_and_size() {
    let folder = TempDir::new().unwrap();
    let output = run(&[&SHORT[..], &["--json"]].concat(), &folder);
    let result: Value = serde_json::from_slice(&output.stdout).unwrap();
    let figures = result["figures"].as_array().unwrap();
    let find = |stage: &str, suite: Value, size: &str, workers: u64| {
        let wanted = |figure: &&Value| {
            figure["stage"] == stage
                && figure["suite"] == suite
                && figure["size"] == size
                && figure["workers"] == workers
        };
        let found: Vec<&Value> = figures.iter().filter(wanted).collect();
        assert_eq!(found.len(), 1, "{stage} {suite} {size} {workers}");
        found[0].clone()
    };
    for suite in ["aes256gcm16", "aes256-sha256"] {
        for size in ["64", "1400", "imix"] {
            for stage in [
                "aead-seal",
                "aead-open",
                "esp-seal",
                "esp-open",
                "outbound",
                "inbound",
            ] {
                let figure = find(stage, suite.into(), size, 1);
                assert!(number(&figure, "/ns_per_packet") > 0.0);
                assert!(number(&figure, "/packets") >= 1.0);
            }
        }
    }
    for size in ["64", "1400"] {
        find("split", Value::Null, size, 1);
        find("merge", Value::Null, size, 1);
    }
    find("replay", Value::Null, "any", 1);
    for stage in ["scaling-outbound", "scaling-inbound"] {
        for workers in [1, 2] {
            let figure = find(stage, "aes256gcm16".into(), "1400", workers);
            assert!(number(&figure, "/gbit_per_s") > 0.0);
        }
    }
    // Rate and time are two views of one thing.
    let seal = find("esp-seal", "aes256gcm16".into(), "1400", 1);
    let rate = 1400.0 * 8.0 / number(&seal, "/ns_per_packet");
    assert!((number(&seal, "/gbit_per_s") / rate - 1.0).abs() < 0.01);
    if let Some(ghz) = result["tsc_ghz"].as_f64() {
        let cycles = number(&seal, "/cycles_per_packet") / number(&seal, "/ns_per_packet");
        assert!((cycles / ghz - 1.0).abs() < 0.01);
    }
    assert!(number(&result, "/machine/cores") >= 1.0);
}

#[test]
fn the_table_and_the_page_show_the_same_measurement() {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("bench.html");
    let output = run(
        &[&SHORT[..], &["--report", file.to_str().unwrap()]].concat(),
        &folder,
    );
    let text = String::from_utf8(output.stdout).unwrap();
    for part in [
        "aes256gcm16, one worker",
        "imix",
        "outbound",
        "replay window",
        "split",
        "by workers",
    ] {
        assert!(text.contains(part), "{part} is not in\n{text}");
    }
    let page = fs::read_to_string(&file).unwrap();
    assert_eq!(markup::check(&page), Ok(()));
    for part in [
        "Outbound",
        "aes256-sha256",
        "ESP beside its cipher",
        "Machine and method",
        "time-stamp counter",
        "IMIX: 28 packets of 64",
        "whole path, outbound",
    ] {
        assert!(page.contains(part), "{part}");
    }
    // Two plots of throughput with both suites, each with its two sizes.
    assert_eq!(page.matches("<polyline").count(), 4);
    assert_eq!(page.matches("<circle").count(), 8);
    assert!(!page.contains("NaN"));
}

#[test]
fn what_cannot_be_measured_is_refused_with_what_can() {
    let folder = TempDir::new().unwrap();
    for (arguments, hint) in [
        (["--suites", "rot13"], "chacha20poly1305"),
        (["--sizes", "9"], "imix"),
        (["--seconds", "0"], "0.001"),
        (["--wire", "--json"], "--lab"),
        (["--lab", "--sizes=64"], "--sizes"),
        (["--lab", "--suites=aes256gcm16"], "--suites"),
        (["--lab", "--workers=1"], "--workers"),
    ] {
        let output = bench(&arguments, &folder).output().unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{errors}");
        assert!(errors.contains(hint), "{errors}");
    }
}

#[test]
fn a_report_that_cannot_be_written_is_noticed_before_anything_is_measured() {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("no such folder").join("bench.html");
    let arguments = ["--seconds", "3600", "--report", file.to_str().unwrap()];
    let output = bench(&arguments, &folder).output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{errors}");
    assert!(errors.contains("cannot write"), "{errors}");
    assert!(errors.contains("no such folder"), "{errors}");
}

#[test]
fn more_workers_than_cores_are_marked() {
    let folder = TempDir::new().unwrap();
    let cores = std::thread::available_parallelism().unwrap().get();
    let (more, file) = ((cores + 1).to_string(), folder.path().join("bench.html"));
    let arguments = [
        "--seconds",
        "0.005",
        "--sizes",
        "64",
        "--suites",
        "aes256gcm16",
        "--workers",
        &more,
        "--report",
        file.to_str().unwrap(),
    ];
    let text = String::from_utf8(run(&arguments, &folder).stdout).unwrap();
    let marks = text.matches(&format!("they share {cores} cores")).count();
    assert_eq!(marks, 1, "{text}");
    let page = fs::read_to_string(&file).unwrap();
    assert!(page.contains(&format!("{more} workers on {cores} cores")));
}

#[test]
fn the_lab_measures_tcp_udp_and_round_trips_end_to_end() {
    if !may_build_a_lab() {
        return;
    }
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("lab.html");
    let arguments = ["--lab", "--wire", "--seconds", "0.1", "--json", "--report"];
    let output = run(
        &[&arguments[..], &[file.to_str().unwrap()]].concat(),
        &folder,
    );
    let result: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(result["wire"], true);
    for positive in [
        "/tcp/0/gbit_per_s",
        "/tcp/1/gbit_per_s",
        "/tcp/0/system_calls_per_packet",
        "/in_process/cipher_ns",
        "/round_trips/0/p50_us",
        "/round_trips/1/p50_us",
        "/round_trips/0/answered",
        "/gateway/residence/in/p50-ns",
        "/gateway/residence/out/p99-ns",
    ] {
        assert!(number(&result, positive) > 0.0, "{positive}: {result}");
    }
    // The kernel counts in ticks, of which a short trial may have none.
    for share in ["/tcp/0/kernel_share", "/tcp/1/kernel_share"] {
        let share = number(&result, share);
        assert!((0.0..=1.0).contains(&share), "{share}: {result}");
    }
    let streams: Vec<f64> = [0, 1]
        .map(|n| number(&result, &format!("/tcp/{n}/streams")))
        .to_vec();
    assert_eq!(streams, [1.0, 4.0]);
    for trip in ["/round_trips/0", "/round_trips/1"] {
        let time = |name: &str| number(&result, &format!("{trip}/{name}"));
        assert!(time("p50_us") <= time("p99_us") && time("p99_us") <= time("max_us"));
    }
    assert_eq!(result["udp"].as_array().unwrap().len(), 3);
    assert!(result["gateway"]["offloads"]["udp-gso"].is_string());

    let page = fs::read_to_string(&file).unwrap();
    assert_eq!(markup::check(&page), Ok(()));
    for part in [
        "TCP, 4 streams",
        "super-packets",
        "beside one TCP stream",
        "CPU s per Gbit",
        "Where the processor time goes",
    ] {
        assert!(page.contains(part), "{part}");
    }
    fs::remove_file(file).unwrap();
    assert_nothing_left(&folder);
}

#[test]
fn an_interrupted_lab_leaves_nothing_behind() {
    if !may_build_a_lab() {
        return;
    }
    let folder = TempDir::new().unwrap();
    let mut child = bench(&["--lab", "--seconds", "60"], &folder)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    eventually("the gateways run", || {
        (fs::read_dir(folder.path()).unwrap().count() > 0).then_some(())
    });
    // Wherever it is by then.
    std::thread::sleep(std::time::Duration::from_secs(1));
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    let status = eventually("the bench ends", || child.try_wait().unwrap());
    assert_eq!(status.code(), Some(1));
    let errors = BufReader::new(child.stderr.take().unwrap());
    let errors: Vec<String> = errors.lines().map(Result::unwrap).collect();
    assert!(errors.concat().contains("interrupted"), "{errors:?}");
    assert_nothing_left(&folder);
}

#[track_caller]
fn assert_nothing_left(folder: &TempDir) {
    let files: Vec<_> = fs::read_dir(folder.path()).unwrap().collect();
    assert!(files.is_empty(), "{files:?}");
}
