//! Virtual addresses, given by each side to the other.

use std::net::IpAddr;

use super::pair::{Initiator, Pair};
use crate::support::{
    lab::{Family, Plan, Side},
    traffic::{assert_reaches, tcp},
};

fn plan(connection: &str, more: &str) -> Plan {
    Plan {
        inner: vec![Family::V4],
        connection: connection.to_owned(),
        more: more.to_owned(),
        ..Plan::default()
    }
}

/// A configuration in which the network of `guest` is `dynamic`.
fn with_guest(config: &str, guest: Side) -> String {
    let network = guest.network(Family::V4).to_string();
    config.replace(&network, "dynamic")
}

#[test]
fn strongswan_gives_lockgate_an_address() {
    let pair = Pair::changed(
        plan("vips = [\"0.0.0.0\"]", ""),
        "pools = guests",
        |whose, config| {
            let config = with_guest(&config, Side::A);
            match whose {
                Initiator::Lockgate => config,
                Initiator::StrongSwan => {
                    config + "pools { guests { addrs = 10.3.0.0/24\n dns = 10.2.0.53 } }\n"
                }
            }
        },
    );
    let Some(pair) = pair else { return };
    pair.initiate(Initiator::Lockgate);
    let sa = &pair.lockgate.established()[0];
    assert_eq!(sa.get_list("local-vips"), Some(vec!["10.3.0.1"]));
    assert_eq!(sa.get_list("dns"), Some(vec!["10.2.0.53"]));
    let given: IpAddr = "10.3.0.1".parse().unwrap();
    let lab = &pair.lab;
    tcp(
        &lab.gateway_a,
        &lab.host_b,
        Side::B.host(Family::V4),
        200_000,
    );
    assert_reaches(&lab.host_b, &lab.gateway_a, given);
    let pools = pair.strongswan.swanctl_ok(&["--list-pools", "--leases"]);
    assert!(
        pools.contains("10.3.0.1") && pools.contains(Side::A.identity()),
        "{pools}"
    );
}

#[test]
fn lockgate_gives_strongswan_an_address() {
    let more = "[pools.guests]\naddrs = \"10.3.0.0/24\"\ndns = [\"10.1.0.53\"]";
    let pair = Pair::changed(
        plan("pools = [\"guests\"]", more),
        "vips = 0.0.0.0",
        |_, config| with_guest(&config, Side::B),
    );
    let Some(pair) = pair else { return };
    pair.initiate(Initiator::StrongSwan);
    let sa = &pair.lockgate.established()[0];
    assert_eq!(sa.get_list("remote-vips"), Some(vec!["10.3.0.1"]));
    let given: IpAddr = "10.3.0.1".parse().unwrap();
    let lab = &pair.lab;
    tcp(
        &lab.gateway_b,
        &lab.host_a,
        Side::A.host(Family::V4),
        200_000,
    );
    assert_reaches(&lab.host_a, &lab.gateway_b, given);

    let uri = format!("unix://{}", pair.lockgate.socket().display());
    let pools = pair
        .strongswan
        .swanctl_at(&["--list-pools", "--leases"], &uri);
    assert!(
        pools.contains("10.3.0.1") && pools.contains(Side::B.identity()),
        "{pools}"
    );
    pair.strongswan.swanctl_ok(&["--terminate", "--ike", "lab"]);
    pair.is_down();
    let pools = pair.strongswan.swanctl_at(&["--list-pools"], &uri);
    assert!(pools.contains("0 / 1 / 254"), "{pools}");
}
