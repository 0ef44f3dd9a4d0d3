//! Revocation lists from a server that makes us wait.

use std::{fs, net::TcpListener};

use crate::pki::{self, Kind};
use crate::support::{
    eventually,
    lab::{Lab, Plan, Side},
};

/// A handshake waits up to ten seconds for the list, so that a machine on which more passes before
/// the daemon has answered proves nothing and tries again.
#[test]
fn a_silent_server_keeps_nobody_waiting_but_the_handshake_that_needs_its_list() {
    for _ in 0..5 {
        let Some(lab) = Lab::new() else { return };
        if answers_while_it_waits(&lab) {
            return;
        }
    }
    panic!("the daemon answers only when the server is given up");
}

fn answers_while_it_waits(lab: &Lab) -> bool {
    let folder = lab.folder.path();
    let write = |name: &str, text: String| fs::write(folder.join(name), text).unwrap();
    let root = pki::root(Kind::P256, "root");
    let gateway = root.gateway(Kind::P256, "gw-a.example");
    write("a.pem", gateway.certificate.pem());
    write("a.key", gateway.key.serialize_pem());
    write("root.pem", root.certificate.pem());
    let listen = || TcpListener::bind("192.0.2.1:8080");
    let server = lab.gateway_a.run(listen).unwrap();

    let secret = "auth = \"psk\", id = \"gw-a.example\"";
    let trusting = "id = \"gw-a.example\", cacerts = \"root.pem\", revocation = \"strict\"";
    let authority =
        "[authorities.root]\ncacert = \"root.pem\"\ncrl_uris = \"http://192.0.2.1:8080\"\n";
    let b = Plan::default().config(Side::B).replace(secret, trusting);
    let b = lab.start(Side::B, &format!("{b}{authority}"));
    let certified = "id = \"gw-a.example\", certs = \"a.pem\"";
    let key = "[secrets.private-a]\nfile = \"a.key\"\n";
    let a = Plan::default().config(Side::A).replace(secret, certified);
    let a = lab.start(Side::A, &format!("{a}{key}"));

    a.command("initiate", &[("child", "net"), ("timeout", "-1")]);
    let (stream, _) = server.accept().unwrap();
    b.ask("stats", &[]);
    assert!(
        b.established().is_empty(),
        "nothing is known of revocations"
    );
    let is_asking = !b.process.output().contains("is not known");

    // Without the server, the policy decides.
    drop((stream, server));
    eventually("the handshake is refused", || {
        let refused = b.process.output().contains("is not known");
        refused.then_some(())
    });
    assert!(b.ike_sas().is_empty() && a.established().is_empty());
    is_asking
}
