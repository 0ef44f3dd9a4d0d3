//! The program as a person uses it: arguments in; text and exit code out.

#[path = "cli/check.rs"]
mod check;
#[path = "cli/daemon.rs"]
mod daemon;
#[path = "cli/status.rs"]
mod status;

use daemon::{FakeDaemon, event, message, refusal, success};
use lockgate::{
    cli::client::{Client, ClientError},
    wire::vici::{Message, Packet},
};
use std::{
    io::{BufRead, BufReader},
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
