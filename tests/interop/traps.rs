//! Traffic that starts the tunnel. Only ours does: strongSwan's kernel-libipsec drops what finds no SA, and asks for none.

use std::net::UdpSocket;

use lockgate::lab::traffic::MARKER;

use super::pair::Pair;
use crate::support::{
    PATIENCE,
    lab::{Family, Plan, Side},
};

fn plan(child: &str) -> Plan {
    Plan {
        inner: vec![Family::V4],
        child: child.to_owned(),
        ..Plan::default()
    }
}

/// One datagram, sent once.
#[test]
fn the_packet_that_starts_a_tunnel_with_strongswan_arrives() {
    let Some(pair) = Pair::new(plan("start_action = \"trap\""), "") else {
        return;
    };
    let target = (Side::B.host(Family::V4), 7777);
    let server = pair
        .lab
        .host_b
        .run(move || UdpSocket::bind(target))
        .unwrap();
    server.set_read_timeout(Some(PATIENCE)).unwrap();
    let any = (std::net::Ipv4Addr::UNSPECIFIED, 0);
    let client = pair.lab.host_a.run(move || UdpSocket::bind(any)).unwrap();
    client.send_to(MARKER, target).unwrap();
    assert!(server.recv(&mut [0; 256]).is_ok(), "the datagram was lost");
    pair.is_up();
    pair.carries_traffic();
}
