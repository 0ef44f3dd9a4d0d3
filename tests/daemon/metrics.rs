//! Metrics as a scraper gets them, and clients that are up to no good.

use std::{
    io::{ErrorKind, Read, Write},
    net::{Shutdown, SocketAddr, TcpStream},
};

use lockgate::io::netns::Namespace;

use super::exposition::Exposition;
use crate::support::{
    PATIENCE, eventually,
    lab::{Family, Gateway, Lab, Plan, Side},
    traffic::assert_reaches,
};

const ADDRESS: &str = "127.0.0.1:9750";
const SPARE: &str = "[connections.spare]\nremote_addrs = [\"192.0.2.77\"]\n\
    local = { auth = \"psk\", id = \"gw-a.example\" }\nremote = { auth = \"psk\", id = \"gw-b.example\" }\n\
    [connections.spare.children.\"a \\\"name\\\" \\\\ with \u{e9}\"]\nlocal_ts = [\"10.1.0.0/24\"]\nremote_ts = [\"10.7.0.0/24\"]\n";

fn plan() -> Plan {
    Plan {
        daemon: format!("metrics = \"{ADDRESS}\""),
        workers: 2,
        more: SPARE.to_owned(),
        ..Plan::default()
    }
}

fn connect(namespace: &Namespace) -> TcpStream {
    let address: SocketAddr = ADDRESS.parse().unwrap();
    let stream = namespace.run(move || TcpStream::connect(address)).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// Sends bytes, and reads what comes until the server is done.
fn talk(namespace: &Namespace, bytes: &[u8]) -> String {
    let mut stream = connect(namespace);
    // A server that has heard enough may hang up before it has read all.
    let _ = stream.write_all(bytes);
    let mut answer = Vec::new();
    match stream.read_to_end(&mut answer) {
        Err(error) if error.kind() != ErrorKind::ConnectionReset => panic!("{error}"),
        _ => String::from_utf8(answer).unwrap(),
    }
}

fn scrape(namespace: &Namespace) -> Exposition {
    let request = b"GET /metrics HTTP/1.1\r\nHost: gw\r\nAccept: application/openmetrics-text;version=1.0.0\r\n\r\n";
    let answer = talk(namespace, request);
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
    let kind = "Content-Type: application/openmetrics-text; version=1.0.0; charset=utf-8\r\n";
    assert!(head.contains(kind), "{head}");
    let length = format!("Content-Length: {}\r\n", body.len());
    assert!(head.contains(&length), "{head}");
    Exposition::parse(body)
}

#[test]
fn a_child_has_its_traffic_in_the_metrics_and_keeps_it_when_its_sas_are_replaced_or_gone() {
    let Some(lab) = Lab::new() else { return };
    let [a, _b] = lab.tunnel(&plan());
    let net = [("connection", "lab"), ("child", "net")];
    let inward = [net[0], net[1], ("direction", "in")];
    let outward = [net[0], net[1], ("direction", "out")];
    let carried = |page: &Exposition| {
        [inward, outward].map(|labels| page.get("lockgate_child_packets_total", &labels).unwrap())
    };
    let page = scrape(&lab.gateway_a);
    // Workers that want an SA of their own may have one by now.
    assert!(page.get("lockgate_child_sa_up", &net) >= Some(1.0));
    assert_eq!(page.get("lockgate_ike_sa_up", &net[..1]), Some(1.0));
    let [before_in, before_out] = carried(&page);

    assert_reaches(&lab.host_a, &lab.host_b, Side::B.host(Family::V4));
    let [first_in, first_out] = eventually("the traffic is counted", || {
        let [inbound, outbound] = carried(&scrape(&lab.gateway_a));
        (inbound > before_in && outbound > before_out).then_some([inbound, outbound])
    });

    a.command("rekey", &[("child", "net")]);
    eventually("the rekeying is counted", || {
        let page = scrape(&lab.gateway_a);
        (page.get("lockgate_child_rekeys_total", &[]) >= Some(1.0)).then_some(())
    });
    assert_reaches(&lab.host_a, &lab.host_b, Side::B.host(Family::V6));
    a.command("terminate", &[("ike", "lab")]);
    let page = eventually("the tunnel is down", || {
        let page = scrape(&lab.gateway_a);
        (page.get("lockgate_child_sa_up", &net) == Some(0.0)).then_some(page)
    });
    assert_eq!(page.get("lockgate_ike_sa_up", &net[..1]), Some(0.0));
    let [last_in, last_out] = carried(&page);
    assert!(last_in > first_in && last_out > first_out);
    // What the workers count and what the SAs count is the same traffic.
    let workers = page.sum("lockgate_worker_packets_total");
    assert_eq!(workers, page.sum("lockgate_child_packets_total"));
    let bytes = page.sum("lockgate_worker_bytes_total");
    assert_eq!(bytes, page.sum("lockgate_child_bytes_total"));
    let established = [("role", "initiator"), ("outcome", "established")];
    let handshakes = page.get("lockgate_ike_handshakes_total", &established);
    assert_eq!(handshakes, Some(1.0));
}

#[test]
fn a_tunnel_that_is_down_is_zero_and_not_absent() {
    let Some(lab) = Lab::new() else { return };
    let _a = lab.start(Side::A, &plan().config(Side::A));
    let page = scrape(&lab.gateway_a);
    for (connection, child) in [("lab", "net"), ("spare", "a \"name\" \\ with \u{e9}")] {
        let names = [("connection", connection), ("child", child)];
        assert_eq!(page.get("lockgate_ike_sa_up", &names[..1]), Some(0.0));
        assert_eq!(page.get("lockgate_child_sa_up", &names), Some(0.0));
        for direction in ["in", "out"] {
            let labels = [names[0], names[1], ("direction", direction)];
            for name in ["lockgate_child_packets_total", "lockgate_child_bytes_total"] {
                assert_eq!(page.get(name, &labels), Some(0.0), "{name}");
            }
        }
    }
    let version = [("version", env!("CARGO_PKG_VERSION"))];
    assert_eq!(page.get("lockgate_build_info", &version), Some(1.0));
    let drops = [("worker", "1"), ("reason", "replayed")];
    assert_eq!(page.get("lockgate_worker_drops_total", &drops), Some(0.0));
    let discards = [("reason", "malformed")];
    assert_eq!(
        page.get("lockgate_ike_discards_total", &discards),
        Some(0.0)
    );
}

#[test]
fn the_metrics_are_the_documented_ones() {
    let Some(lab) = Lab::new() else { return };
    let _a = lab.start(Side::A, &plan().config(Side::A));
    let page = scrape(&lab.gateway_a);
    let text = include_str!("../../docs/configuration.md");
    let (_, text) = text.split_once("## Metrics").expect("a chapter");
    let rows = text.lines().filter_map(|line| line.strip_prefix("| `"));
    let cells = rows.filter_map(|row| row.split(" |").next());
    let names = cells.flat_map(|cell| cell.split(", "));
    let documented: Vec<String> = names
        .map(|name| format!("lockgate_{}", name.trim_matches('`')))
        .collect();
    let plain = |name: &str| {
        let ends = ["_bucket", "_sum", "_count"];
        let base = ends.iter().find_map(|end| name.strip_suffix(end));
        base.unwrap_or(name).to_owned()
    };
    let mut told: Vec<String> = page.names().into_iter().map(plain).collect();
    told.dedup();
    for name in &told {
        assert!(documented.contains(name), "{name} is not documented");
    }
    for name in &documented {
        assert!(told.contains(name), "{name} is documented and not told");
    }
}

#[test]
fn a_client_that_knows_no_openmetrics_gets_the_older_format() {
    let Some(lab) = Lab::new() else { return };
    let _a = lab.start(Side::A, &plan().config(Side::A));
    let answer = talk(&lab.gateway_a, b"GET /metrics HTTP/1.0\r\n\r\n");
    let kind = "Content-Type: text/plain; version=0.0.4; charset=utf-8\r\n";
    assert!(answer.contains(kind), "{answer}");
    let types = answer.lines().filter(|line| line.starts_with("# TYPE "));
    let types: Vec<_> = types.filter_map(|line| line.rsplit(' ').next()).collect();
    let known = ["counter", "gauge", "histogram", "summary", "untyped"];
    assert!(types.len() > 10, "{answer}");
    assert!(types.iter().all(|kind| known.contains(kind)), "{types:?}");
    let head = talk(&lab.gateway_a, b"HEAD http://gw/metrics HTTP/1.1\r\n\r\n");
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n") && head.ends_with("\r\n\r\n"));
    assert!(head.contains(kind) && !head.contains("Content-Length: 0\r\n"));
    let answer = talk(&lab.gateway_a, b"GET / HTTP/1.1\r\nHost: gw\r\n\r\n");
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.contains("href=\"/metrics\""));
}

#[test]
fn what_is_no_request_for_metrics_is_refused_with_the_status_that_says_why() {
    let Some(lab) = Lab::new() else { return };
    let _a = lab.start(Side::A, &plan().config(Side::A));
    let long = format!("GET /metrics HTTP/1.1\r\nX: {}", "x".repeat(100_000));
    let many = format!("GET /metrics HTTP/1.1\r\n{}\r\n", "A: b\r\n".repeat(1000));
    let body = format!("POST /metrics HTTP/1.1\r\n\r\n{}", "x".repeat(10_000));
    for (request, status) in [
        ("GET /config HTTP/1.1\r\n\r\n", "404 Not Found"),
        ("GET /../metrics HTTP/1.1\r\n\r\n", "404 Not Found"),
        (&body, "405 Method Not Allowed"),
        ("DELETE / HTTP/1.1\r\n\r\n", "405 Method Not Allowed"),
        ("EHLO gw\r\n", "400 Bad Request"),
        (
            "\x16\x03\x01\x02\0\x01\0\x01\u{fc}\x03\x03",
            "400 Bad Request",
        ),
        (&long, "431 Request Header Fields Too Large"),
        (&many, "431 Request Header Fields Too Large"),
    ] {
        let answer = talk(&lab.gateway_a, request.as_bytes());
        let start = format!("HTTP/1.1 {status}\r\n");
        assert!(answer.starts_with(&start), "{status}: {answer}");
        let allows = answer.contains("\r\nAllow: GET, HEAD\r\n");
        assert_eq!(allows, status.starts_with("405"), "{answer}");
    }
}

#[test]
fn clients_that_never_finish_a_request_keep_nobody_else_from_the_metrics() {
    let Some(lab) = Lab::new() else { return };
    let [a, _b] = lab.tunnel(&plan());
    let mut idle: Vec<TcpStream> = Vec::new();
    for number in 0..300 {
        let mut stream = connect(&lab.gateway_a);
        let part = "GET /metrics HTTP/1.1\r\nX: y\r\n";
        let _ = stream.write_all(&part.as_bytes()[..number % part.len()]);
        idle.push(stream);
        if number % 50 == 0 {
            scrape(&lab.gateway_a);
        }
    }
    let threads = std::fs::read_dir(format!("/proc/{}/task", a.process.id())).unwrap();
    assert_eq!(threads.count(), 4, "control, two workers, metrics");
    let descriptors = std::fs::read_dir(format!("/proc/{}/fd", a.process.id())).unwrap();
    assert!(descriptors.count() < 200, "connections are bounded");
    scrape(&lab.gateway_a);
    a.command("rekey", &[("child", "net")]);
    assert_reaches(&lab.host_a, &lab.host_b, Side::B.host(Family::V4));

    // The first ones had to give way, the last one is told in time.
    let mut last = idle.pop().unwrap();
    let mut answer = String::new();
    last.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
}

#[test]
fn clients_that_leave_without_reading_do_no_harm() {
    let Some(lab) = Lab::new() else { return };
    let _a = lab.start(Side::A, &plan().config(Side::A));
    for number in 0..200 {
        let mut stream = connect(&lab.gateway_a);
        let _ = stream.write_all(b"GET /metrics HTTP/1.1\r\n\r\n");
        if number % 2 == 0 {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
    assert!(scrape(&lab.gateway_a).len() > 50);
}

#[test]
fn every_tunnel_of_a_large_configuration_is_on_the_page_once() {
    let Some(lab) = Lab::new() else { return };
    let mut plan = plan();
    for number in 0..1000 {
        let (high, low) = (number / 250, number % 250);
        plan.more.push_str(&format!(
            "[connections.c{number}]\nremote_addrs = [\"203.0.113.{low}\"]\n\
             local = {{ auth = \"psk\", id = \"gw-a.example\" }}\n\
             remote = {{ auth = \"psk\", id = \"gw-b.example\" }}\n\
             [connections.c{number}.children.n]\nlocal_ts = [\"10.1.0.0/24\"]\n\
             remote_ts = [\"10.{}.{low}.0/24\"]\n",
            high + 20
        ));
    }
    let _a = lab.start(Side::A, &plan.config(Side::A));
    let page = scrape(&lab.gateway_a);
    for number in 0..1000 {
        let connection = format!("c{number}");
        let labels = [("connection", connection.as_str()), ("child", "n")];
        assert_eq!(page.get("lockgate_child_sa_up", &labels), Some(0.0));
    }
}

#[test]
fn a_port_that_is_taken_stops_no_tunnel_and_is_served_once_it_is_free() {
    let Some(lab) = Lab::new() else { return };
    let taken = lab
        .gateway_a
        .run(|| std::net::TcpListener::bind(ADDRESS))
        .unwrap();
    let [a, _b] = lab.tunnel(&plan());
    assert_reaches(&lab.host_a, &lab.host_b, Side::B.host(Family::V4));
    let output = a.process.output();
    let warning = format!("daemon.metrics: cannot serve metrics on {ADDRESS}, will try again");
    assert_eq!(output.matches(&warning).count(), 1, "{output}");
    let error = |a: &Gateway| {
        let stats = a.ask("stats", &[]);
        let metrics = stats.get_section("metrics").expect("metrics");
        assert_eq!(metrics.get("address"), Some(ADDRESS));
        metrics.get("error").map(str::to_owned)
    };
    let reason = error(&a).expect("an error");
    assert!(reason.contains("in use"), "{reason}");

    drop(taken);
    eventually("they are served", || error(&a).is_none().then_some(()));
    assert!(scrape(&lab.gateway_a).len() > 50);
}

#[test]
fn an_offload_that_is_switched_off_is_off_in_status_and_metrics() {
    let Some(lab) = Lab::new() else { return };
    let mut plan = plan();
    plan.daemon.push_str("\ntun_uso = false\nudp_gso = false");
    let a = lab.start(Side::A, &plan.config(Side::A));
    let stats = a.ask("stats", &[]);
    let states = stats.get_section("offloads").expect("offloads");
    let page = scrape(&lab.gateway_a);
    for name in ["tun-tso", "tun-uso", "tun-gro", "udp-gso", "udp-gro"] {
        let state = states.get(name).expect(name);
        let is_off = matches!(name, "tun-uso" | "udp-gso");
        assert_eq!(state == "off", is_off, "{name} is {state}");
        for worker in ["0", "1"] {
            let labels = [("worker", worker), ("offload", name)];
            let active = f64::from(u8::from(state == "active"));
            assert_eq!(page.get("lockgate_offload_active", &labels), Some(active));
        }
    }
}

#[test]
fn packets_have_their_residence_time_in_status_and_metrics() {
    let Some(lab) = Lab::new() else { return };
    let [a, _b] = lab.tunnel(&plan());
    assert_reaches(&lab.host_a, &lab.host_b, Side::B.host(Family::V4));
    for direction in ["in", "out"] {
        let page = eventually("both directions are counted", || {
            let page = scrape(&lab.gateway_a);
            let counts = ["0", "1"].map(|worker| {
                let labels = [("worker", worker), ("direction", direction)];
                page.get("lockgate_residence_seconds_count", &labels)
                    .unwrap()
            });
            (counts.iter().sum::<f64>() > 0.0).then_some(page)
        });
        assert!(page.sum("lockgate_residence_seconds_sum") > 0.0);
        let stats = a.ask("stats", &[]);
        let times = stats.get_section("residence").unwrap();
        let times = times.get_section(direction).unwrap();
        let [packets, p50, p99, max] = ["packets", "p50-ns", "p99-ns", "max-ns"]
            .map(|key| times.get(key).unwrap().parse::<u64>().unwrap());
        assert!(packets > 0 && p50 > 0 && p50 <= p99 && p99 <= max);
    }
    assert!(scrape(&lab.gateway_a).sum("lockgate_worker_system_calls_total") > 0.0);
}
