//! Traffic that starts its tunnel.

use std::{
    net::UdpSocket,
    time::{Duration, Instant},
};

use lockgate::{lab::traffic::MARKER, wire::vici::Message};

use crate::support::{
    PATIENCE, eventually,
    lab::{Family, Lab, Plan, Side},
    traffic::{Stream, assert_reaches},
};

/// One datagram each, sent once: if the gateway lost it, nothing would come.
#[test]
fn the_first_packet_starts_the_tunnel_and_arrives() {
    for workers in [1, 2] {
        let Some(lab) = Lab::new() else { return };
        let plan = Plan {
            workers,
            child: "start_action = \"trap\"".to_owned(),
            ..Plan::default()
        };
        let b = lab.start(Side::B, &plan.config(Side::B));
        let a = lab.start(Side::A, &plan.config(Side::A));
        assert!(a.ike_sas().is_empty() && b.ike_sas().is_empty());
        let target = (Side::B.host(Family::V4), 7777);
        let server = lab.host_b.run(move || UdpSocket::bind(target)).unwrap();
        server.set_read_timeout(Some(PATIENCE)).unwrap();
        let any = (std::net::Ipv4Addr::UNSPECIFIED, 0);
        let client = lab.host_a.run(move || UdpSocket::bind(any)).unwrap();
        for number in 0..3_u8 {
            client
                .send_to(&[MARKER, &[number]].concat(), target)
                .unwrap();
        }
        for number in 0..3_u8 {
            let mut datagram = [0; 256];
            let length = server.recv(&mut datagram).expect("the datagram arrives");
            assert_eq!(datagram[..length].last(), Some(&number));
        }
        assert!(!a.child_sas().is_empty()); // each worker may have one
        assert_eq!(a.drops("no-outbound-sa"), 0);
    }
}

#[test]
fn a_child_without_traffic_is_closed_and_the_next_packet_brings_it_back() {
    let Some(lab) = Lab::new() else { return };
    let plan = Plan {
        child: "start_action = \"trap\"\ninactivity = \"2s\"".to_owned(),
        ..Plan::default()
    };
    let b = lab.start(Side::B, &plan.config(Side::B));
    let a = lab.start(Side::A, &plan.config(Side::A));
    let host = Side::B.host(Family::V4);
    for _ in 0..2 {
        assert_reaches(&lab.host_a, &lab.host_b, host);
        eventually("the child is closed at both ends", || {
            (a.child_sas().is_empty() && b.child_sas().is_empty()).then_some(())
        });
        assert_eq!(a.ike_sas().len(), 1, "the IKE SA stays");
    }
    let stream = Stream::start(&lab.host_a, &lab.host_b, host);
    let child = a.child_sas().remove(0);
    let opened = Instant::now();
    while opened.elapsed() < 2 * INACTIVITY {
        stream.wait_for(10);
    }
    let id = |sa: &Message| sa.get("uniqueid").unwrap().to_owned();
    assert_eq!(id(&a.child_sas()[0]), id(&child), "one in use stays");
    let outcome = stream.finish();
    assert_eq!((outcome.lost, outcome.echoes_lost), (0, 0), "{outcome:?}");
}

const INACTIVITY: Duration = Duration::from_secs(2);
