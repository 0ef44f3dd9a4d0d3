//! Transport mode between Lockgate's own traffic and the kernel's own ESP.

use std::{
    io::{Read, Write},
    net::TcpListener,
};

use crate::strongswan;
use crate::support::{
    PATIENCE, eventually,
    lab::{Family, Side},
};
use crate::tunnel::{Sa, Tunnel};

/// Echo requests of every length class from either end, and TCP from the guest.
#[track_caller]
fn assert_carried(tunnel: &Tunnel) {
    let [here, there] = [Side::A, Side::B].map(|side| side.outer(Family::V4));
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
    tunnel
        .guest
        .attempt(&format!("openssl s_client -connect {here}:7000 </dev/null"));
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

fn transport(encap: bool, initiate: impl Fn(&Tunnel)) {
    let peer = strongswan::between_gateways("aes256gcm16-prfsha384-x25519", "aes256gcm16-x25519");
    let Some(tunnel) = Tunnel::transport(&peer, encap) else {
        return;
    };
    initiate(&tunnel);
    let is_up = || {
        eventually("both have one pair of SAs in transport mode", || {
            let children = tunnel.lockgate.child_sas();
            let modes: Vec<_> = children.iter().map(|child| child.get("mode")).collect();
            let states = tunnel.guest.run("ip xfrm state");
            let theirs = states.matches("mode transport").count();
            (modes == [Some("TRANSPORT")] && theirs == 2).then_some(())
        });
        assert_carried(&tunnel);
    };
    is_up();
    tunnel.lockgate_rekeys(Sa::Child);
    is_up();
    tunnel.rekeyed(Sa::Child, |tunnel| {
        tunnel.guest.run(strongswan::CHILD);
    });
    is_up();
}

#[test]
fn lockgate_initiates_transport_mode_in_udp_with_the_kernel() {
    transport(true, |tunnel| tunnel.lockgate.initiate("net"));
}

#[test]
fn strongswan_initiates_transport_mode_without_udp_with_the_kernel() {
    transport(false, |tunnel| {
        tunnel
            .guest
            .run("swanctl --initiate --child net --timeout 20");
    });
}
