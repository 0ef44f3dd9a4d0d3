//! `lockgate status`, for a person and for a program.

use lockgate::wire::vici::{Message, Packet};

use crate::ask;
use crate::daemon::{FakeDaemon, event, message, section};

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
                if name == "site-c" {
                    connection
                        .set("last_failure", "no common integrity algorithm")
                        .set("last_failure_age", "61");
                }
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
site-c  failed 1m1s ago: no common integrity algorithm

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
