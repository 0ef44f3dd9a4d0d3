//! Debian's swanctl as a client of our control socket.

use std::{path::PathBuf, process::Command};

use lockgate::wire::vici::Message;

use crate::support::{
    eventually,
    lab::{Family, Gateway, Lab, Plan, Side},
    program,
    traffic::assert_reaches,
};

/// Runs swanctl and returns whether it was content, and what it printed.
struct Swanctl(PathBuf);

impl Swanctl {
    fn find() -> Option<Self> {
        program("swanctl", "strongswan-swanctl").map(Self)
    }

    fn run(&self, gateway: &Gateway, arguments: &[&str]) -> (bool, String) {
        let uri = format!("unix://{}", gateway.socket().display());
        let output = Command::new(&self.0)
            .args(arguments)
            .args(["--uri", &uri])
            .output()
            .unwrap();
        let mut text = String::from_utf8(output.stdout).unwrap();
        text.push_str(&String::from_utf8_lossy(&output.stderr));
        (output.status.success(), text)
    }

    /// Runs swanctl and checks that it prints each of `expected`, in this order.
    #[track_caller]
    fn shows(&self, gateway: &Gateway, arguments: &[&str], expected: &[&str]) -> String {
        let (success, text) = self.run(gateway, arguments);
        assert!(success, "{arguments:?}: {text}");
        let mut rest = text.as_str();
        for part in expected {
            let Some(at) = rest.find(part) else {
                panic!("{arguments:?} does not show {part:?} there:\n{text}");
            };
            rest = &rest[at + part.len()..];
        }
        text
    }
}

#[test]
fn swanctl_shows_the_configuration_and_the_daemon() {
    let (Some(swanctl), Some(lab)) = (Swanctl::find(), Lab::new()) else {
        return;
    };
    let plan = Plan {
        more: "[connections.lab.children.aside]\nmode = \"pass\"\nlocal_ts = [\"10.1.0.0/24\"]\n\
               remote_ts = [\"10.3.0.0/24[tcp/80]\"]"
            .to_owned(),
        ..Plan::default()
    };
    let a = lab.start(Side::A, &plan.config(Side::A));
    swanctl.shows(
        &a,
        &["--list-conns"],
        &[
            "lab: IKEv2, no reauthentication, rekeying every 14400s, dpd delay 30s",
            "local:  192.0.2.1",
            "remote: 192.0.2.2",
            "local pre-shared key authentication:",
            "id: gw-a.example",
            "remote pre-shared key authentication:",
            "id: gw-b.example",
            "net: TUNNEL, rekeying every 3600s",
            "local:  10.1.0.0/24 fd00:1::/64",
            "remote: 10.2.0.0/24 fd00:2::/64",
            "aside: PASS",
        ],
    );
    swanctl.shows(
        &a,
        &["--list-pols"],
        &[
            "lab/net, TUNNEL",
            "local:  10.1.0.0/24 fd00:1::/64",
            "remote: 10.2.0.0/24 fd00:2::/64",
            "lab/aside, PASS",
            "remote: 10.3.0.0/24[tcp/80]",
        ],
    );
    let traps = swanctl.shows(&a, &["--list-pols", "--trap"], &["lab/net"]);
    assert!(!traps.contains("aside"), "{traps}");
    swanctl.shows(
        &a,
        &["--stats"],
        &[
            "uptime: ",
            "worker threads: 1 total",
            "IKE_SAs: 0 total, 0 half-open",
        ],
    );
    let version = format!("strongSwan {} lockgate (Linux, ", env!("CARGO_PKG_VERSION"));
    swanctl.shows(&a, &["--version", "--daemon"], &[&version]);
    swanctl.shows(&a, &["--reload-settings"], &[]);
    let (success, text) = swanctl.run(&a, &["--list-certs"]);
    assert!(!success, "{text}");
}

#[test]
fn swanctl_brings_a_tunnel_up_shows_it_gives_it_new_keys_and_closes_it() {
    let (Some(swanctl), Some(lab)) = (Swanctl::find(), Lab::new()) else {
        return;
    };
    let plan = Plan::default();
    let b = lab.start(Side::B, &plan.config(Side::B));
    let a = lab.start(Side::A, &plan.config(Side::A));
    swanctl.shows(&a, &["--list-sas"], &[]);
    swanctl.shows(
        &a,
        &["--initiate", "--child", "net"],
        &["[IKE]", "initiate completed successfully"],
    );
    assert_reaches(&lab.host_a, &lab.host_b, Side::B.host(Family::V4));
    let sas = swanctl.shows(
        &a,
        &["--list-sas"],
        &[
            "lab: #1, ESTABLISHED, IKEv2, ",
            "_i* ",
            "_r\n",
            "local  'gw-a.example' @ 192.0.2.1[4500]\n",
            "remote 'gw-b.example' @ 192.0.2.2[4500]\n",
            "AES_GCM_16-256/PRF_HMAC_SHA2_384/CURVE_25519\n",
            "established ",
            "s ago, rekeying in ",
            "net: #",
            ", reqid ",
            ", INSTALLED, TUNNEL-in-UDP, ESP:AES_GCM_16-256/ESN\n",
            "installed ",
            "s ago, rekeying in ",
            ", expires in ",
            "    in  ",
            " bytes, ",
            " packets, ",
            "s ago\n",
            "    out ",
            " bytes, ",
            " packets, ",
            "s ago\n",
            "local  10.1.0.0/24 fd00:1::/64\n",
            "remote 10.2.0.0/24 fd00:2::/64\n",
        ],
    );
    assert!(!sas.contains(" 0 packets"), "{sas}");
    swanctl.shows(&b, &["--list-sas"], &["ESTABLISHED", "_i ", "_r*\n"]);
    swanctl.shows(&a, &["--stats"], &["IKE_SAs: 1 total, 0 half-open"]);

    let only = |sas: Vec<Message>| match &sas[..] {
        [sa] => sa.get("uniqueid").map(str::to_owned),
        _ => None,
    };
    let (ike, child) = (only(a.established()), only(a.child_sas()));
    let done = ["rekey completed successfully"];
    swanctl.shows(&a, &["--rekey", "--child", "net"], &done);
    eventually("the child has a successor", || {
        only(a.child_sas()).filter(|id| Some(id) != child.as_ref())
    });
    swanctl.shows(&a, &["--rekey", "--ike", "lab"], &done);
    eventually("the IKE SA has a successor", || {
        only(a.established()).filter(|id| Some(id) != ike.as_ref())
    });
    assert_reaches(&lab.host_a, &lab.host_b, Side::B.host(Family::V6));

    swanctl.shows(
        &b,
        &["--terminate", "--ike", "lab"],
        &["terminate completed successfully"],
    );
    for gateway in [&a, &b] {
        eventually("the tunnel is gone", || {
            gateway.ike_sas().is_empty().then_some(())
        });
    }
    let (success, text) = swanctl.run(&a, &["--terminate", "--ike", "lab"]);
    assert!(!success && text.contains("no matching SA"), "{text}");
}

#[test]
fn swanctl_is_told_why_a_tunnel_does_not_come_up() {
    let (Some(swanctl), Some(lab)) = (Swanctl::find(), Lab::new()) else {
        return;
    };
    let plan = Plan::default();
    let a = lab.start(Side::A, &plan.config(Side::A));
    let (success, text) = swanctl.run(&a, &["--initiate", "--child", "nett"]);
    assert!(!success && text.contains("\"nett\""), "{text}");

    // Nobody answers.
    let (success, text) = swanctl.run(&a, &["--initiate", "--child", "net", "--timeout", "1"]);
    assert!(
        !success && text.contains("not established after 1000 ms"),
        "{text}"
    );

    // The peer knows another secret.
    let other = plan.config(Side::B).replace("correct horse", "wrong horse");
    let b = lab.start(Side::B, &other);
    a.command("terminate", &[("ike", "lab"), ("force", "yes")]);
    let (success, text) = swanctl.run(&a, &["--initiate", "--child", "net", "--timeout", "20"]);
    assert!(!success && text.contains("AUTHENTICATION_FAILED"), "{text}");

    // Both daemons remember why, and swanctl takes no offence at what it does not know.
    let failure = |gateway: &Gateway| {
        let (_, connection) = gateway.list("list-conns", "list-conn").remove(0);
        let get = |key| connection.get(key).unwrap_or_default().to_owned();
        [get("last_failure_type"), get("last_failure")]
    };
    let [kind, why] = failure(&a);
    assert_eq!(kind, "local-auth-failed");
    assert!(why.contains("AUTHENTICATION_FAILED"), "{why}");
    let [kind, why] = failure(&b);
    assert_eq!(kind, "peer-auth-failed");
    assert!(why.contains("the secrets differ"), "{why}");
    let (success, text) = swanctl.run(&b, &["--list-conns"]);
    assert!(success && text.contains("lab:"), "{text}");
}
