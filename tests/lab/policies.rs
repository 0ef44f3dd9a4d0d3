//! Selectors with ports and protocols, and children that bypass or discard.

use std::{
    net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    time::Duration,
};

use lockgate::{io::netns::Namespace, lab::traffic::MARKER};

use crate::support::{
    PATIENCE,
    eavesdropper::Eavesdropper,
    eventually,
    lab::{Family, Lab, Plan, Side},
    traffic::{assert_does_not_reach, assert_reaches},
};

/// Only TCP to port 8080 of B's network is in the tunnel; nothing else is routed anywhere.
#[test]
fn a_selector_with_a_port_admits_that_port_alone() {
    let Some(lab) = Lab::new() else { return };
    let plan = |side: Side| {
        let (own, far) = (side.network(Family::V4), side.other().network(Family::V4));
        let selectors = match side {
            Side::A => (format!("{own}[tcp]"), format!("{far}[tcp/8080]")),
            Side::B => (format!("{own}[tcp/8080]"), format!("{far}[tcp]")),
        };
        let child = format!(
            "[connections.lab.children.web]\nlocal_ts = [\"{}\"]\nremote_ts = [\"{}\"]\n\
             esp_proposals = [\"aes256gcm16\"]",
            selectors.0, selectors.1
        );
        // The other child is for addresses that do not occur here.
        Plan {
            inner: vec![Family::V6],
            more: child,
            ..Plan::default()
        }
        .config(side)
    };
    let _b = lab.start(Side::B, &plan(Side::B));
    let a = lab.start(Side::A, &plan(Side::A));
    a.initiate("web");
    let eavesdropper = Eavesdropper::on(&lab);
    assert!(connects(
        &lab.host_a,
        &lab.host_b,
        (Side::B.host(Family::V4), 8080).into(),
        PATIENCE
    ));
    let short = Duration::from_millis(300);
    assert!(!connects(
        &lab.host_a,
        &lab.host_b,
        (Side::B.host(Family::V4), 8081).into(),
        short
    ));
    assert_does_not_reach(&lab.host_a, &lab.host_b, Side::B.host(Family::V4));
    assert!(a.drops("no-policy") > 0);
    eavesdropper.finish().assert_nothing_in_clear();
}

/// The whole network is protected, but one port of it is passed in clear and one is discarded.
#[test]
fn bypass_and_discard_children_win_over_a_wider_protected_one() {
    let Some(lab) = Lab::new() else { return };
    let plan = |side: Side| {
        let (own, far) = (side.network(Family::V4), side.other().network(Family::V4));
        let mut more = String::new();
        for (name, mode, port) in [("plain", "pass", 9001), ("never", "drop", 9002)] {
            let (local_ts, remote_ts) = match side {
                Side::A => (format!("{own}[udp]"), format!("{far}[udp/{port}]")),
                Side::B => (format!("{own}[udp/{port}]"), format!("{far}[udp]")),
            };
            more += &format!(
                "[connections.lab.children.{name}]\nmode = \"{mode}\"\nstart_action = \"trap\"\n\
                 local_ts = [\"{local_ts}\"]\nremote_ts = [\"{remote_ts}\"]\n"
            );
        }
        Plan {
            inner: vec![Family::V4],
            more,
            ..Plan::default()
        }
        .config(side)
    };
    for side in [Side::A, Side::B] {
        let (to, by) = (
            side.other().network(Family::V4),
            side.other().outer(Family::V4),
        );
        lab.gateway(side).add_route(to, by).unwrap();
    }
    let b = lab.start(Side::B, &plan(Side::B));
    let a = lab.start(Side::A, &plan(Side::A));
    a.initiate("net");

    let host = Side::B.host(Family::V4);
    let eavesdropper = Eavesdropper::on(&lab);
    assert_reaches(&lab.host_a, &lab.host_b, host);
    assert!(!arrives(
        &lab,
        SocketAddr::new(host, 9002),
        Duration::from_millis(300)
    ));
    eavesdropper.finish().assert_nothing_in_clear();

    let eavesdropper = Eavesdropper::on(&lab);
    assert!(arrives(&lab, SocketAddr::new(host, 9001), PATIENCE));
    assert!(
        !eavesdropper.finish().clear.is_empty(),
        "bypassed traffic was not seen in clear"
    );
    for gateway in [&a, &b] {
        eventually("the tunnel is still up", || {
            (gateway.child_sas().len() == 1).then_some(())
        });
    }
}

fn connects(from: &Namespace, to: &Namespace, target: SocketAddr, patience: Duration) -> bool {
    let _listener = to.run(move || TcpListener::bind(target)).unwrap();
    from.run(move || TcpStream::connect_timeout(&target, patience))
        .is_ok()
}

/// Whether a datagram of host A arrives at `target` on host B; it is repeated until then.
fn arrives(lab: &Lab, target: SocketAddr, patience: Duration) -> bool {
    let server = lab.host_b.run(move || UdpSocket::bind(target)).unwrap();
    server
        .set_read_timeout(Some(Duration::from_millis(50)))
        .unwrap();
    let any: IpAddr = "0.0.0.0".parse().unwrap();
    let client = lab.host_a.run(move || UdpSocket::bind((any, 0))).unwrap();
    let start = std::time::Instant::now();
    while start.elapsed() < patience {
        let _ = client.send_to(MARKER, target);
        if server.recv(&mut [0; 256]).is_ok() {
            return true;
        }
    }
    false
}
