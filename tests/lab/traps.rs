//! Traffic that starts its tunnel.

use std::net::UdpSocket;

use lockgate::lab::traffic::MARKER;

use crate::support::{
    PATIENCE,
    lab::{Family, Lab, Plan, Side},
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
