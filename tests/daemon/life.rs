//! Start, stop, crash.

use std::{
    fs,
    os::unix::net::{UnixDatagram, UnixStream},
    process::Command,
    time::{Duration, Instant},
};

use lockgate::io::netns::Namespace;
use rustix::process::Signal;

use crate::support::{
    PATIENCE, eventually,
    lab::{Family, Lab, Plan, Side},
    process::Process,
    traffic::assert_reaches,
};

/// What the kernel of a namespace knows that a daemon may have put there.
fn kernel_state(namespace: &Namespace) -> String {
    let links = ip(namespace, "-o link show");
    let names = links.lines().filter_map(|line| line.split(':').nth(1));
    let mut state: Vec<String> = names.map(str::to_owned).collect();
    for list in [
        "rule show",
        "-6 rule show",
        "route show table all",
        "-6 route show table all",
        "xfrm policy list",
    ] {
        let listed = ip(namespace, list);
        // The kernel gives links such addresses by itself, some time after they came up.
        let lines = listed
            .lines()
            .filter(|line| !line.contains("fe80:") && !line.contains("ff00:"));
        state.extend(lines.map(str::to_owned));
    }
    state.join("\n")
}

fn ip(namespace: &Namespace, arguments: &str) -> String {
    let mut command = Command::new("ip");
    command.args(arguments.split_whitespace());
    let output = namespace.run(move || command.output()).unwrap();
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn a_daemon_that_is_asked_to_stop_leaves_nothing_behind() {
    let Some(lab) = Lab::new() else { return };
    for signal in [Signal::TERM, Signal::INT] {
        let before = kernel_state(&lab.gateway_a);
        let mut gateway = lab.start(Side::A, &Plan::default().config(Side::A));
        let during = kernel_state(&lab.gateway_a);
        for trace in ["ipsec0", "10.2.0.0/24", "fd00:2::/64", "block"] {
            assert!(during.contains(trace), "{trace}: {during}");
        }
        gateway.process.signal(signal);
        let status = eventually("it ends", || gateway.process.status());
        assert!(status.success(), "{}", gateway.process.output());
        assert_eq!(kernel_state(&lab.gateway_a), before);
        assert!(!gateway.socket().exists());
    }
}

#[test]
fn the_peer_is_told_when_a_daemon_stops_and_the_daemon_does_not_linger() {
    let Some(lab) = Lab::new() else { return };
    let [mut a, b] = lab.tunnel(&Plan::default());
    let asked = Instant::now();
    assert!(a.process.terminate().success());
    assert!(asked.elapsed() < Duration::from_secs(1));
    eventually("the peer has closed the tunnel", || {
        b.ike_sas().is_empty().then_some(())
    });
}

#[test]
fn a_daemon_stops_within_a_second_when_its_peer_does_not_answer() {
    let Some(lab) = Lab::new() else { return };
    let [mut a, mut b] = lab.tunnel(&Plan::default());
    b.process.kill();
    let asked = Instant::now();
    assert!(a.process.terminate().success());
    assert!(asked.elapsed() < Duration::from_secs(1));
}

#[test]
fn a_second_signal_ends_the_wait_for_the_peer() {
    let Some(lab) = Lab::new() else { return };
    let [mut a, mut b] = lab.tunnel(&Plan::default());
    b.process.kill();
    a.process.signal(Signal::TERM);
    eventually("it is stopping", || {
        a.process.output().contains("stopping").then_some(())
    });
    a.process.signal(Signal::TERM);
    let status = eventually("it ends", || a.process.status());
    assert!(status.success());
    assert!(a.process.output().contains("stopping at once"));
    assert!(!kernel_state(&lab.gateway_a).contains("block"));
}

#[test]
fn a_killed_daemon_is_followed_by_one_that_works() {
    let Some(lab) = Lab::new() else { return };
    let plan = Plan::default();
    let before = kernel_state(&lab.gateway_a);
    let [mut a, _b] = lab.tunnel(&plan);
    a.process.kill();
    let left = kernel_state(&lab.gateway_a);
    for trace in [
        "unreachable 10.2.0.0/24",
        "unreachable fd00:2::/64",
        "block",
    ] {
        assert!(left.contains(trace), "{trace}: {left}");
    }
    assert!(a.socket().exists());

    let mut successor = lab.start(Side::A, &plan.config(Side::A));
    successor.initiate("net");
    for family in Family::BOTH {
        assert_reaches(&lab.host_a, &lab.host_b, Side::B.host(family));
    }
    assert!(successor.process.terminate().success());
    assert_eq!(kernel_state(&lab.gateway_a), before);
}

#[test]
fn a_daemon_whose_device_is_deleted_says_so_tells_its_peer_and_ends_without_opening_a_hole() {
    let Some(lab) = Lab::new() else { return };
    let plan = Plan::default();
    let [mut a, b] = lab.tunnel(&plan);
    ip(&lab.gateway_a, "link delete ipsec0");
    let status = eventually("it ends", || a.process.status());
    assert_eq!(status.code(), Some(1), "a supervisor starts it again");
    let output = a.process.output();
    assert!(
        output.contains("the tunnel device ipsec0 was deleted"),
        "{output}"
    );
    eventually("the peer has closed the tunnel", || {
        b.ike_sas().is_empty().then_some(())
    });
    let left = kernel_state(&lab.gateway_a);
    for trace in [
        "unreachable 10.2.0.0/24",
        "unreachable fd00:2::/64",
        "block",
    ] {
        assert!(left.contains(trace), "{trace}: {left}");
    }
    let successor = lab.start(Side::A, &plan.config(Side::A));
    successor.initiate("net");
    assert_reaches(&lab.host_a, &lab.host_b, Side::B.host(Family::V4));
}

#[test]
fn a_second_daemon_in_the_namespace_is_refused_and_the_first_works_on() {
    let Some(lab) = Lab::new() else { return };
    let [a, _b] = lab.tunnel(&Plan::default());
    let before = kernel_state(&lab.gateway_a);
    let refused = refused(&lab, &Plan::default().config(Side::A));
    assert!(refused.contains("another lockgate runs"), "{refused}");
    assert_eq!(kernel_state(&lab.gateway_a), before);
    assert_reaches(&lab.host_a, &lab.host_b, Side::B.host(Family::V4));
    drop(a);
}

#[test]
fn a_start_that_fails_says_why_and_leaves_nothing_behind() {
    let Some(lab) = Lab::new() else { return };
    let config = Plan::default().config(Side::A);

    ip(&lab.gateway_a, "link add ipsec0 type veth peer name other");
    let before = kernel_state(&lab.gateway_a);
    let reason = refused(&lab, &config);
    assert!(
        reason.contains("ipsec0") && reason.contains("daemon.tun"),
        "{reason}"
    );
    assert_eq!(kernel_state(&lab.gateway_a), before);
    ip(&lab.gateway_a, "link del ipsec0");

    let before = kernel_state(&lab.gateway_a);
    let port = lab
        .gateway_a
        .run(|| std::net::UdpSocket::bind("0.0.0.0:500"))
        .unwrap();
    let reason = refused(&lab, &config);
    assert!(
        reason.contains("500") && reason.contains("another IKE daemon"),
        "{reason}"
    );
    assert_eq!(kernel_state(&lab.gateway_a), before);
    drop(port);

    let policy = "src 10.1.0.0/24 dst 10.2.0.0/24 dir out";
    ip(
        &lab.gateway_a,
        &format!("xfrm policy add {policy} action block"),
    );
    let before = kernel_state(&lab.gateway_a);
    let reason = refused(&lab, &config);
    assert!(reason.contains("XFRM policy"), "{reason}");
    assert_eq!(kernel_state(&lab.gateway_a), before);
    ip(&lab.gateway_a, &format!("xfrm policy delete {policy}"));

    let socket = lab.folder.path().join("A.vici");
    fs::write(&socket, "no socket").unwrap();
    let reason = refused(&lab, &config);
    assert!(reason.contains("not a socket"), "{reason}");
    fs::remove_file(&socket).unwrap();

    // And now that nothing is in its way, it starts.
    lab.start(Side::A, &config);
}

/// Output of a daemon that does not start.
fn refused(lab: &Lab, config: &str) -> String {
    let file = lab.folder.path().join("refused.toml");
    let socket = lab.folder.path().join("A.vici");
    fs::write(&file, config.replace("SOCKET", &socket.to_string_lossy())).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_lockgate"));
    command.arg("run").arg("--config").arg(&file);
    let output = lab.gateway_a.run(move || command.output()).unwrap();
    assert_eq!(output.status.code(), Some(1));
    String::from_utf8(output.stderr).unwrap()
}

#[test]
fn a_configuration_with_mistakes_starts_nothing_and_exits_with_2() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("gw.toml");
    fs::write(&file, "[daemon]\ntunn = \"ipsec0\"\n").unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_lockgate"))
        .arg("run")
        .arg("--config")
        .arg(&file)
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(told.contains("gw.toml:2: daemon.tunn"), "{told}");
}

#[test]
fn the_service_manager_is_told_when_the_daemon_is_ready_and_when_it_stops() {
    let Some(lab) = Lab::new() else { return };
    let notify = lab.folder.path().join("notify");
    let inbox = UnixDatagram::bind(&notify).unwrap();
    inbox.set_read_timeout(Some(PATIENCE)).unwrap();
    let file = lab.folder.path().join("notified.toml");
    let socket = lab.folder.path().join("A.vici");
    let config = Plan::default().config(Side::A);
    fs::write(&file, config.replace("SOCKET", &socket.to_string_lossy())).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_lockgate"));
    command.arg("run").arg("--config").arg(&file);
    command.env("NOTIFY_SOCKET", &notify);
    let mut process = Process::start(&lab.gateway_a, "notified", command, lab.folder.path());
    let told = || {
        let mut buffer = [0; 512];
        let length = inbox.recv(&mut buffer).unwrap();
        String::from_utf8_lossy(&buffer[..length]).into_owned()
    };
    assert_eq!(told().trim(), "READY=1");
    // Ready means that it can be asked.
    UnixStream::connect(&socket).unwrap();
    process.signal(Signal::HUP);
    assert!(told().contains("RELOADING=1"));
    assert_eq!(told().trim(), "READY=1");
    process.signal(Signal::TERM);
    assert_eq!(told().trim(), "STOPPING=1");
    eventually("it ends", || process.status());
}

#[test]
fn the_running_daemon_keeps_only_the_privileges_it_needs() {
    let Some(lab) = Lab::new() else { return };
    let plan = Plan {
        daemon: "metrics = \"127.0.0.1:9750\"".to_owned(),
        ..Plan::default()
    };
    let gateway = lab.start(Side::A, &plan.config(Side::A));
    let threads = fs::read_dir(format!("/proc/{}/task", gateway.process.id())).unwrap();
    for thread in threads {
        let status = fs::read_to_string(thread.unwrap().path().join("status")).unwrap();
        let field = |name: &str| {
            let line = status.lines().find(|line| line.starts_with(name)).unwrap();
            line[name.len()..].trim().to_owned()
        };
        // NET_BIND_SERVICE and NET_ADMIN.
        assert_eq!(field("CapEff:"), "0000000000001400", "{status}");
        assert_eq!(field("CapPrm:"), "0000000000001400", "{status}");
        assert_eq!(field("NoNewPrivs:"), "1");
    }
    let limits = fs::read_to_string(format!("/proc/{}/limits", gateway.process.id())).unwrap();
    let core = limits
        .lines()
        .find(|line| line.starts_with("Max core"))
        .unwrap();
    assert_eq!(core.split_whitespace().nth(4), Some("0"), "{core}");
}
