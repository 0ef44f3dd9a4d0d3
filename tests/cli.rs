//! The program as a person uses it: arguments in; text and exit code out.

#[path = "cli/daemon.rs"]
mod daemon;

use daemon::{FakeDaemon, event, message, refusal, section, success};
use lockgate::{
    cli::client::{Client, ClientError},
    wire::vici::{Message, Packet},
};
use std::{
    fs,
    io::{BufRead, BufReader},
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

struct Outcome {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

fn lockgate(arguments: &[&str]) -> Outcome {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lockgate"));
    let output = command
        .args(arguments)
        .env_remove("LOCKGATE_SOCKET")
        .output()
        .expect("it runs");
    let text = |bytes| String::from_utf8(bytes).expect("text");
    Outcome {
        code: output.status.code(),
        stdout: text(output.stdout),
        stderr: text(output.stderr),
    }
}

fn ask(daemon: &FakeDaemon, arguments: &[&str]) -> Outcome {
    let socket = daemon.socket();
    let socket = ["--socket", socket.to_str().expect("a path")];
    lockgate(&[arguments, &socket].concat())
}

fn list_sa() -> Message {
    let mut child = message(&[
        ("name", "lan"),
        ("uniqueid", "3"),
        ("reqid", "77"),
        ("state", "INSTALLED"),
        ("mode", "TUNNEL"),
        ("protocol", "ESP"),
        ("encap", "yes"),
        ("spi-in", "c0a80001"),
        ("spi-out", "c0a80002"),
        ("encr-alg", "AES_GCM_16"),
        ("encr-keysize", "256"),
        ("esn", "1"),
        ("bytes-in", "1572864"),
        ("packets-in", "1204"),
        ("use-in", "2"),
        ("bytes-out", "980"),
        ("packets-out", "7"),
        ("rekey-time", "2700"),
        ("install-time", "720"),
    ]);
    child
        .list("local-ts", ["10.1.0.0/24"])
        .list("remote-ts", ["10.2.0.0/24", "10.3.0.0/24"]);
    let mut sa = message(&[
        ("uniqueid", "1"),
        ("version", "2"),
        ("state", "ESTABLISHED"),
        ("local-host", "192.0.2.1"),
        ("local-port", "4500"),
        ("local-id", "gw-a.example"),
        ("remote-host", "2001:db8::1"),
        ("remote-port", "1024"),
        ("remote-id", "gw-b.example"),
        ("initiator", "yes"),
        ("initiator-spi", "0011223344556677"),
        ("encr-alg", "AES_GCM_16"),
        ("encr-keysize", "256"),
        ("prf-alg", "PRF_HMAC_SHA2_384"),
        ("dh-group", "CURVE_25519"),
        ("established", "725"),
        ("rekey-time", "13260"),
    ]);
    sa.section("child-sas", section("lan-3", child));
    section("site-b", sa)
}

fn offloads() -> Message {
    message(&[
        ("tun-tso", "active"),
        ("tun-uso", "unavailable"),
        ("tun-gro", "active"),
        ("udp-gso", "off"),
        ("udp-gro", "active"),
    ])
}

fn residence() -> Message {
    let times = [
        ("packets", "1204"),
        ("p50-ns", "8231"),
        ("p99-ns", "31049"),
        ("max-ns", "2500000"),
    ];
    let mut residence = section("in", message(&times));
    residence.section("out", message(&[("packets", "0"), ("p50-ns", "0")]));
    residence
}

fn worker() -> Message {
    message(&[
        ("packets-in", "1204"),
        ("packets-out", "980"),
        ("system-calls", "175"),
        ("super-packets-in", "31"),
        ("super-packets-out", "120"),
        ("trains-in", "44"),
        ("trains-out", "118"),
        ("train-packets-in", "1106"),
        ("train-packets-out", "934"),
        ("handed-off", "0"),
    ])
}

/// A daemon with one tunnel up, one down and some drops.
fn busy_daemon() -> FakeDaemon {
    FakeDaemon::start(|command| match command {
        "version" => vec![Packet::CmdResponse(message(&[
            ("daemon", "lockgate"),
            ("version", "0.1.0"),
        ]))],
        "stats" => {
            let mut stats = section("uptime", message(&[("running", "2 hours"), ("since", "x")]));
            stats.section("ikesas", message(&[("total", "1"), ("half-open", "0")]));
            stats.section(
                "drops",
                message(&[("no-policy", "1"), ("replayed", "30"), ("too-old", "0")]),
            );
            stats.section("discards", message(&[("bad-checksum", "0")]));
            stats.section("offloads", offloads());
            stats.section("residence", residence());
            stats.section("dataplane", section("worker-0", worker()));
            vec![Packet::CmdResponse(stats)]
        }
        "list-sas" => vec![
            event("list-sa", list_sa()),
            Packet::CmdResponse(Message::new()),
        ],
        "list-conns" => {
            let connection = |name: &str, remote: &str| {
                let mut connection = Message::new();
                connection.list("remote_addrs", [remote]);
                event("list-conn", section(name, connection))
            };
            vec![
                connection("site-b", "2001:db8::1"),
                connection("site-c", "203.0.113.7"),
                Packet::CmdResponse(Message::new()),
            ]
        }
        _ => vec![],
    })
}

#[test]
fn status_shows_tunnels_traffic_and_drops() {
    let outcome = ask(&busy_daemon(), &["status"]);
    assert_eq!(outcome.stderr, "");
    assert_eq!(
        outcome.stdout,
        "\
lockgate 0.1.0, up 2 hours; 1 IKE SAs, 0 half-open

site-b #1  ESTABLISHED 12m5s ago  initiator
  192.0.2.1[gw-a.example] <-> 2001:db8::1:1024[gw-b.example]
  AES_GCM_16-256/PRF_HMAC_SHA2_384/CURVE_25519  rekey in 3h41m
  lan #3  INSTALLED 12m ago  TUNNEL ESP in UDP  rekey in 45m
    10.1.0.0/24 === 10.2.0.0/24 10.3.0.0/24
    AES_GCM_16-256 ESN
    in  c0a80001         1204 packets    1.5 MiB  last 2s ago
    out c0a80002            7 packets      980 B  never used

site-c  DOWN  to 203.0.113.7

offloads: tun-tso tun-gro udp-gro; off: udp-gso; unavailable: tun-uso

worker   packets in  packets out  calls/packet  super in/out  trains in/out  in a train  handed off
  0            1204          980          0.08        31/120         44/118    25.1/7.9           0

in the gateway       p50        p99        max      packets
  in              8.2 us    31.0 us     2.5 ms         1204

packets dropped: 31
            30  replayed
             1  no-policy

messages discarded: 0
"
    );
    assert_eq!(outcome.code, Some(0));
}

#[test]
fn status_as_json_has_numbers_where_numbers_are_meant() {
    let outcome = ask(&busy_daemon(), &["status", "--json"]);
    let report: serde_json::Value = serde_json::from_str(&outcome.stdout).expect("JSON");
    assert_eq!(report["version"]["version"], "0.1.0");
    assert_eq!(report["stats"]["drops"]["replayed"], 30);
    assert_eq!(report["stats"]["offloads"]["tun-uso"], "unavailable");
    assert_eq!(report["stats"]["residence"]["in"]["p99-ns"], 31_049);
    assert_eq!(report["stats"]["dataplane"]["worker-0"]["trains-out"], 118);
    let sa = &report["sas"][0]["site-b"];
    assert_eq!(sa["remote-port"], 1024);
    assert_eq!(sa["initiator-spi"], "0011223344556677");
    assert_eq!(sa["child-sas"]["lan-3"]["bytes-in"], 1_572_864);
    assert_eq!(sa["child-sas"]["lan-3"]["remote-ts"][1], "10.3.0.0/24");
    assert_eq!(
        report["connections"][1]["site-c"]["remote_addrs"][0],
        "203.0.113.7"
    );
    assert_eq!(outcome.code, Some(0));
}

#[test]
fn initiate_shows_the_log_and_waits_for_the_answer() {
    let daemon = FakeDaemon::start(|command| match command {
        "initiate" => {
            let entry = message(&[
                ("group", "IKE"),
                ("level", "1"),
                ("msg", "initiating IKE_SA"),
            ]);
            [vec![event("control-log", entry)], success(&[])].concat()
        }
        _ => vec![],
    });
    let outcome = ask(
        &daemon,
        &[
            "initiate",
            "--ike",
            "site-b",
            "--child",
            "lan",
            "--timeout",
            "5",
        ],
    );
    assert_eq!(outcome.stderr, "[IKE] initiating IKE_SA\n");
    assert_eq!(outcome.stdout, "child lan of IKE SA site-b is up\n");
    assert_eq!(outcome.code, Some(0));
    let expected = [
        ("ike", "site-b"),
        ("child", "lan"),
        ("timeout", "5000"),
        ("loglevel", "1"),
    ];
    assert_eq!(
        daemon.requests(),
        [("initiate".to_owned(), message(&expected))]
    );
}

#[test]
fn an_operation_that_fails_says_why_and_exits_1() {
    let daemon = FakeDaemon::start(|_| refusal("no such child"));
    for (arguments, stderr) in [
        (
            ["initiate", "--child", "lan"],
            "lockgate: initiate failed: no such child\n",
        ),
        (
            ["terminate", "--ike-id", "7"],
            "lockgate: terminate failed: no such child\n",
        ),
        (
            ["rekey", "--child-id", "7"],
            "lockgate: rekey failed: no such child\n",
        ),
    ] {
        let daemon = FakeDaemon::start(|command| match command.strip_prefix("register") {
            Some(_) => vec![],
            None => refusal("no such child"),
        });
        let outcome = ask(&daemon, &arguments);
        assert_eq!(
            (outcome.stdout.as_str(), outcome.stderr.as_str()),
            ("", stderr)
        );
        assert_eq!(outcome.code, Some(1));
    }
    let outcome = ask(&daemon, &["reload"]);
    assert_eq!(outcome.stderr, "lockgate: reload failed: no such child\n");
    assert_eq!(outcome.code, Some(1));
}

#[test]
fn a_reload_lists_what_it_could_not_do() {
    let daemon = FakeDaemon::start(|_| {
        let mut answer = message(&[("success", "yes")]);
        answer.list("restart-needed", ["tun", "port"]);
        vec![Packet::CmdResponse(answer)]
    });
    let outcome = ask(&daemon, &["reload"]);
    let stdout = "configuration reloaded; needs a restart to take effect: tun, port\n";
    assert_eq!((outcome.stdout.as_str(), outcome.code), (stdout, Some(0)));

    let mistakes = "gw.toml:1: a: unknown key\ngw.toml:2: b: unknown key";
    let daemon = FakeDaemon::start(move |_| refusal(mistakes));
    let outcome = ask(&daemon, &["reload"]);
    assert_eq!(
        outcome.stderr,
        format!("lockgate: reload failed:\n{mistakes}\n")
    );
    assert_eq!(outcome.code, Some(1));
}

#[test]
fn terminate_and_rekey_pass_on_what_was_selected() {
    let daemon = FakeDaemon::start(|command| match command {
        "terminate" => success(&[("matches", "2"), ("terminated", "1")]),
        "rekey" => success(&[("matches", "1")]),
        "reload-settings" => success(&[]),
        _ => vec![],
    });
    let outcome = ask(
        &daemon,
        &["terminate", "--child", "lan", "--force", "--timeout", "0"],
    );
    assert_eq!(
        (outcome.stdout.as_str(), outcome.code),
        ("terminated 1 of 2\n", Some(0))
    );
    let outcome = ask(&daemon, &["rekey", "--ike", "site-b", "--reauth"]);
    assert_eq!(
        (outcome.stdout.as_str(), outcome.code),
        ("rekeying 1\n", Some(0))
    );
    let outcome = ask(&daemon, &["reload"]);
    assert_eq!(
        (outcome.stdout.as_str(), outcome.code),
        ("configuration reloaded\n", Some(0))
    );
    let expected: [(&str, &[(&str, &str)]); 3] = [
        (
            "terminate",
            &[
                ("child", "lan"),
                ("force", "yes"),
                ("timeout", "0"),
                ("loglevel", "1"),
            ],
        ),
        ("rekey", &[("ike", "site-b"), ("reauth", "yes")]),
        ("reload-settings", &[]),
    ];
    let expected: Vec<_> = expected
        .iter()
        .map(|(name, keys)| ((*name).to_owned(), message(keys)))
        .collect();
    assert_eq!(daemon.requests(), expected);
}

/// A daemon that has news for whoever registers for them.
fn newsy_daemon(times: usize) -> FakeDaemon {
    FakeDaemon::start(move |command| match command {
        "register ike-updown" => {
            let sa = [
                ("uniqueid", "1"),
                ("local-host", "192.0.2.1"),
                ("remote-host", "198.51.100.1"),
            ];
            let mut news = message(&[("up", "yes")]);
            news.section("site-b", message(&sa));
            vec![event("ike-updown", news); times]
        }
        "register log" => {
            let entry = message(&[("group", "NET"), ("level", "1"), ("msg", "hello")]);
            vec![event("log", entry)]
        }
        _ => vec![],
    })
}

#[test]
fn monitor_prints_each_event_when_it_happens() {
    let daemon = newsy_daemon(1);
    let mut child = Command::new(env!("CARGO_BIN_EXE_lockgate"))
        .args(["monitor", "--socket"])
        .arg(daemon.socket())
        .stdout(Stdio::piped())
        .spawn()
        .expect("it runs");
    let mut lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
    let mut next = || lines.next().expect("a line").expect("text");
    let (first, second) = (next(), next());
    child.kill().expect("still running");
    child.wait().expect("gone");
    let after_clock = |line: &str| line.split_once(' ').map(|(_, rest)| rest.to_owned());
    assert_eq!(
        after_clock(&first).as_deref(),
        Some("IKE SA up: site-b #1 192.0.2.1 <-> 198.51.100.1")
    );
    assert_eq!(after_clock(&second).as_deref(), Some("[NET] hello"));
}

#[test]
fn a_reader_that_goes_away_is_no_failure() {
    let daemon = newsy_daemon(10_000);
    let mut child = Command::new(env!("CARGO_BIN_EXE_lockgate"))
        .args(["monitor", "--json", "--socket"])
        .arg(daemon.socket())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it runs");
    let mut reader = BufReader::new(child.stdout.take().expect("a pipe"));
    let mut line = String::new();
    reader.read_line(&mut line).expect("text");
    drop(reader);
    let output = child.wait_with_output().expect("it ends");
    let event: serde_json::Value = serde_json::from_str(&line).expect("JSON");
    assert_eq!(event["event"], "ike-updown");
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    assert_eq!(output.status.code(), Some(0));
}

#[test]
fn a_missing_daemon_is_explained() {
    let outcome = lockgate(&["status", "--socket", "/no/such/socket"]);
    assert_eq!(
        outcome.stderr,
        "lockgate: cannot connect to /no/such/socket: No such file or directory (os error 2)\n\
         is `lockgate run` running? another socket is chosen with --socket or LOCKGATE_SOCKET\n"
    );
    assert_eq!(outcome.code, Some(1));
}

#[test]
fn the_environment_names_the_socket_too() {
    let output = Command::new(env!("CARGO_BIN_EXE_lockgate"))
        .arg("reload")
        .env("LOCKGATE_SOCKET", "/from/the/environment")
        .output()
        .expect("it runs");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(
        stderr.contains("cannot connect to /from/the/environment"),
        "{stderr}"
    );
}

#[test]
fn a_daemon_of_another_version_is_explained() {
    let daemon = FakeDaemon::start(|_| vec![Packet::CmdUnknown]);
    let outcome = ask(&daemon, &["reload"]);
    assert_eq!(
        outcome.stderr,
        "lockgate: the daemon does not know `reload-settings`; is it another version of lockgate?\n"
    );
    assert_eq!(outcome.code, Some(1));
}

#[test]
fn a_socket_that_is_not_vici_is_explained() {
    for (bytes, message) in [
        (
            &b"HTTP/1.1 400 Bad Request\r\n"[..],
            "lockgate: the control socket does not speak VICI: ",
        ),
        (b"", "lockgate: the daemon closed the connection\n"),
        (
            b"\0\0\0\x01\x05",
            "lockgate: the control socket answered `reload-settings` with something that is not an answer\n",
        ),
    ] {
        let outcome = ask(&FakeDaemon::babbling(bytes), &["reload"]);
        assert!(outcome.stderr.starts_with(message), "{}", outcome.stderr);
        assert_eq!(outcome.code, Some(1));
    }
}

#[test]
fn a_daemon_that_does_not_answer_is_not_waited_for() {
    let daemon = FakeDaemon::start(|_| vec![]);
    let mut client = Client::connect(&daemon.socket()).expect("a connection");
    let limit = Some(Duration::from_millis(20));
    let answer = client.stream("initiate", Message::new(), "control-log", limit, |_| Ok(()));
    assert!(
        matches!(answer, Err(ClientError::Timeout { .. })),
        "{answer:?}"
    );
}

#[test]
fn an_event_between_a_request_and_its_answer_is_kept() {
    let daemon = FakeDaemon::start(|command| match command {
        "register ike-updown" => vec![event("ike-updown", message(&[("up", "yes")]))],
        "register log" => vec![event("log", message(&[("msg", "x")]))],
        _ => vec![],
    });
    let mut client = Client::connect(&daemon.socket()).expect("a connection");
    for name in ["ike-updown", "log"] {
        client.subscribe(name).expect("confirmed");
    }
    let names = [(); 2].map(|()| client.next_event().expect("an event").0);
    assert_eq!(names, ["ike-updown", "log"]);
    assert!(matches!(
        client.subscribe("unheard-of"),
        Err(ClientError::Unknown(_))
    ));
}

#[test]
fn wrong_arguments_exit_2_and_help_has_examples() {
    for arguments in [
        &["initiate"][..],
        &["rekey", "--reauth"],
        &["bogus"],
        &["status", "--nope"],
        &[],
    ] {
        assert_eq!(lockgate(arguments).code, Some(2), "{arguments:?}");
    }
    for arguments in [
        &["--help"][..],
        &["status", "--help"],
        &["initiate", "--help"],
        &["check", "--help"],
    ] {
        let outcome = lockgate(arguments);
        assert!(outcome.stdout.contains("Examples:"), "{arguments:?}");
        assert_eq!(outcome.code, Some(0));
    }
}

const GOOD: &str = r#"
[connections.site-b]
remote_addrs = ["198.51.100.1"]
local = { auth = "psk", id = "gw-a.example" }
remote = { auth = "psk", id = "gw-b.example" }
[connections.site-b.children.lan]
local_ts = ["10.1.0.0/24"]
remote_ts = ["10.2.0.0/24"]
esp_proposals = ["aes256gcm16-x25519"]
[connections.site-b.children.printer]
mode = "pass"
local_ts = ["10.1.0.9"]
remote_ts = ["10.2.0.9[tcp/631]"]
[secrets.ike]
secret_file = "psk"
"#;

fn check(folder: &Path, text: &str) -> Outcome {
    let file = folder.join("gw.toml");
    fs::write(&file, text).expect("written");
    lockgate(&["check", file.to_str().expect("a path")])
}

#[test]
fn check_sums_a_good_file_up() {
    let folder = tempfile::tempdir().expect("a folder");
    fs::write(folder.path().join("psk"), "swordfish\n").expect("written");
    let outcome = check(folder.path(), GOOD);
    assert_eq!(
        outcome.stdout,
        "\
ok: 1 connection, 2 children, 1 secret
site-b: gw-a.example <-> gw-b.example
  lan: protect 10.1.0.0/24 === 10.2.0.0/24
    aes256gcm16-x25519-esn-noesn
  printer: pass 10.1.0.9/32 === 10.2.0.9/32[tcp/631]
"
    );
    assert_eq!(outcome.code, Some(0));
}

#[test]
fn check_prints_every_mistake_and_exits_2() {
    let folder = tempfile::tempdir().expect("a folder");
    let outcome = check(
        folder.path(),
        &GOOD.replace("mode = \"pass\"", "mode = \"past\""),
    );
    let file = folder.path().join("gw.toml").display().to_string();
    let psk = folder.path().join("psk").display().to_string();
    assert_eq!(outcome.stdout, "");
    assert_eq!(
        outcome.stderr,
        format!(
            "{file}:11: connections.site-b.children.printer.mode: \"past\" is not allowed; did you mean pass? allowed: tunnel, pass, drop\n\
             {file}:15: secrets.ike.secret_file: cannot read {psk}: No such file or directory (os error 2)\n\
             lockgate: {file} does not hold a usable configuration\n"
        )
    );
    assert_eq!(outcome.code, Some(2));
}
