//! Virtual addresses, given by each side to the other.

use std::net::IpAddr;

use super::pair::{Initiator, Pair};
use crate::support::{
    lab::{Family, Plan, Side},
    traffic::{assert_reaches, tcp},
};

fn plan(family: Family, connection: &str, more: &str) -> Plan {
    Plan {
        inner: vec![family],
        connection: connection.to_owned(),
        more: more.to_owned(),
        ..Plan::default()
    }
}

/// A configuration in which the network of `guest` is `dynamic`.
fn with_guest(config: &str, guest: Side, family: Family) -> String {
    let network = guest.network(family).to_string();
    config.replace(&network, "dynamic")
}

#[test]
fn strongswan_gives_lockgate_an_address() {
    let pair = Pair::changed(
        plan(Family::V4, "vips = [\"0.0.0.0\"]", ""),
        "pools = guests",
        |whose, config| {
            let config = with_guest(&config, Side::A, Family::V4);
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
        plan(Family::V4, "pools = [\"guests\"]", more),
        "vips = 0.0.0.0",
        |_, config| with_guest(&config, Side::B, Family::V4),
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

/// The networks behind the gateways are IPv6 ones, the gateways' own addresses IPv4 ones.
#[test]
fn each_gives_the_other_an_ipv6_address() {
    for initiator in Initiator::BOTH {
        let (lockgate, more, strongswan, guest) = match initiator {
            Initiator::Lockgate => ("vips = [\"::\"]", "", "pools = guests", Side::A),
            Initiator::StrongSwan => (
                "pools = [\"guests\"]",
                "[pools.guests]\naddrs = \"fd03::/120\"\ndns = [\"fd01::53\"]\nsubnet = [\"fd01::/64\"]",
                "vips = ::",
                Side::B,
            ),
        };
        let pair = Pair::changed(
            plan(Family::V6, lockgate, more),
            strongswan,
            |whose, config| {
                let config = with_guest(&config, guest, Family::V6);
                match (whose, initiator) {
                    (Initiator::StrongSwan, Initiator::Lockgate) => {
                        config
                            + "pools { guests { addrs = fd03::/120\n dns = fd02::53\n subnet = fd02::/64 } }\n"
                    }
                    _ => config,
                }
            },
        );
        let Some(pair) = pair else { return };
        pair.initiate(initiator);
        let sa = &pair.lockgate.established()[0];
        let (own, vips) = match initiator {
            Initiator::Lockgate => {
                assert_eq!(sa.get_list("dns"), Some(vec!["fd02::53"]));
                assert_eq!(sa.get_list("subnets"), Some(vec!["fd02::/64"]));
                (&pair.lab.gateway_a, "local-vips")
            }
            Initiator::StrongSwan => (&pair.lab.gateway_b, "remote-vips"),
        };
        assert_eq!(sa.get_list(vips), Some(vec!["fd03::1"]), "{initiator:?}");
        let (other, host) = match guest {
            Side::A => (&pair.lab.host_b, Side::B.host(Family::V6)),
            Side::B => (&pair.lab.host_a, Side::A.host(Family::V6)),
        };
        tcp(own, other, host, 200_000);
        assert_reaches(other, own, "fd03::1".parse().unwrap());
    }
}
