//! Transport mode between Lockgate's own traffic and the kernel's own ESP.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener},
};

use crate::strongswan;
use crate::support::{
    PATIENCE, eventually,
    lab::{Family, Side, ip},
};
use crate::tunnel::{Sa, Tunnel};

/// Echo requests of every length class from either end, and TCP from the guest.
#[track_caller]
fn assert_carried(tunnel: &Tunnel, outer: Family) {
    let [here, there] = [Side::A, Side::B].map(|side| side.outer(outer));
    for length in [0, 1, 2, 3, 700, 1300] {
        let ping = |target| format!("ping -q -c1 -W20 -s{length} {target}");
        tunnel.guest.run(&ping(here));
        let line = ping(there);
        let mut command = std::process::Command::new("ping");
        command.args(line.split(' ').skip(1));
        let output = tunnel.lab.gateway_a.run(move || command.output()).unwrap();
        assert!(output.status.success(), "{line}: {output:?}");
    }
    let gateway = &tunnel.lab.gateway_a;
    let listener = gateway
        .run(move || TcpListener::bind((here, 7000)))
        .unwrap();
    let server = gateway
        .thread(move || {
            let (mut stream, _) = listener.accept().unwrap();
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            let mut hello = [0; 5];
            stream.read_exact(&mut hello).unwrap();
            // Not TLS, so the client ends.
            stream.write_all(&[b'x'; 5000]).unwrap();
            hello
        })
        .unwrap();
    let server_address = SocketAddr::new(here, 7000);
    tunnel.guest.attempt(&format!(
        "openssl s_client -connect {server_address} </dev/null"
    ));
    let hello = server.join().unwrap().unwrap();
    assert_eq!(hello[0], 22, "a TLS handshake message");
    for reason in [
        "integrity-failed",
        "bad-padding",
        "selector-mismatch",
        "not-transportable",
    ] {
        assert_eq!(tunnel.lockgate.drops(reason), 0, "{reason}");
    }
}

fn transport(outer: Family, encap: bool, initiate: impl Fn(&Tunnel)) {
    let (ike, esp) = ("aes256gcm16-prfsha384-x25519", "aes256gcm16-x25519");
    let peer = strongswan::between_gateways(ike, esp, outer);
    let Some(tunnel) = Tunnel::transport(&peer, outer, encap) else {
        return;
    };
    if outer == Family::V6 {
        neighbours_in_clear(&tunnel);
    }
    initiate(&tunnel);
    let is_up = || {
        eventually("both have one pair of SAs in transport mode", || {
            let children = tunnel.lockgate.child_sas();
            let modes: Vec<_> = children.iter().map(|child| child.get("mode")).collect();
            let states = tunnel.guest.run("ip xfrm state");
            let theirs = states.matches("mode transport").count();
            (modes == [Some("TRANSPORT")] && theirs == 2).then_some(())
        });
        assert_carried(&tunnel, outer);
    };
    is_up();
    tunnel.lockgate_rekeys(Sa::Child);
    is_up();
    tunnel.rekeyed(Sa::Child, |tunnel| {
        tunnel.guest.run(strongswan::CHILD);
    });
    is_up();
    // Also when neighbours have to be found again.
    tunnel.guest.run("ip -6 neighbour flush dev vec0");
    ip(&tunnel.lab.gateway_a, "-6 neighbour flush dev outer");
    is_up();
}

/// The kernel would seal neighbour solicitations and advertisements too, which have to come from the link.
fn neighbours_in_clear(tunnel: &Tunnel) {
    for (kind, direction) in [(135, "in"), (135, "out"), (136, "in"), (136, "out")] {
        tunnel.guest.run(&format!(
            "ip xfrm policy add src ::/0 dst ::/0 proto ipv6-icmp type {kind} dir {direction} priority 1"
        ));
    }
}

fn strongswan_initiates(tunnel: &Tunnel) {
    let line = "swanctl --initiate --child net --timeout 20";
    tunnel.guest.run(line);
}

#[test]
fn lockgate_initiates_transport_mode_in_udp_with_the_kernel() {
    transport(Family::V4, true, |tunnel| tunnel.lockgate.initiate("net"));
}

#[test]
fn strongswan_initiates_transport_mode_without_udp_with_the_kernel() {
    transport(Family::V4, false, strongswan_initiates);
}

#[test]
fn lockgate_initiates_transport_mode_in_udp_over_ipv6_with_the_kernel() {
    transport(Family::V6, true, |tunnel| tunnel.lockgate.initiate("net"));
}

#[test]
fn strongswan_initiates_transport_mode_over_ipv6_without_udp_with_the_kernel() {
    transport(Family::V6, false, strongswan_initiates);
}
