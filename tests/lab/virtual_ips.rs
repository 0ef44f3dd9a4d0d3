//! A gateway that has its address in the tunnel from its peer.

use std::net::{IpAddr, UdpSocket};

use lockgate::lab::traffic::MARKER;

use crate::support::{
    PATIENCE,
    eavesdropper::Eavesdropper,
    eventually,
    lab::{Family, Lab, Plan, Side},
    traffic::{assert_reaches, tcp},
};

/// B gives addresses of a pool to whoever wants to reach its network, and A wants one.
fn plans(family: Family) -> [Plan; 2] {
    let (any, pool) = match family {
        Family::V4 => ("0.0.0.0", "addrs = \"10.3.0.0/24\"\ndns = [\"10.2.0.53\"]"),
        Family::V6 => (
            "::",
            "addrs = \"fd03::/120\"\ndns = [\"fd02::53\"]\nsubnet = [\"fd02::/64\"]",
        ),
    };
    let a = Plan {
        inner: vec![family],
        connection: format!("vips = [\"{any}\"]"),
        ..Plan::default()
    };
    let b = Plan {
        connection: "pools = [\"guests\"]".to_owned(),
        more: format!("[pools.guests]\n{pool}"),
        ..a.clone()
    };
    [a, b]
}

/// The selectors of the networks, with that of A's replaced.
fn config(plan: &Plan, side: Side) -> String {
    let [family] = plan.inner[..] else {
        unreachable!("a plan of this file has one family")
    };
    let own = format!("[\"{}\"]", Side::A.network(family));
    plan.config(side).replace(&own, "[\"dynamic\"]")
}

#[test]
fn a_guest_reaches_the_network_behind_its_peer_from_the_address_that_it_was_given() {
    let Some(lab) = Lab::new() else { return };
    let [plan_a, plan_b] = plans(Family::V4);
    let eavesdropper = Eavesdropper::on(&lab);
    let b = lab.start(Side::B, &config(&plan_b, Side::B));
    let a = lab.start(Side::A, &config(&plan_a, Side::A));
    a.initiate("net");
    let sa = &a.established()[0];
    assert_eq!(sa.get_list("local-vips"), Some(vec!["10.3.0.1"]));
    let given: IpAddr = "10.3.0.1".parse().unwrap();

    let host = Side::B.host(Family::V4);
    let server = lab.host_b.run(move || UdpSocket::bind((host, 0))).unwrap();
    server.set_read_timeout(Some(PATIENCE)).unwrap();
    let target = server.local_addr().unwrap();
    let client = lab.gateway_a.run(move || {
        let client = UdpSocket::bind(("0.0.0.0", 0))?;
        client.send_to(MARKER, target).map(|_| client)
    });
    let _client = client.unwrap();
    let (_, source) = server.recv_from(&mut [0; 256]).unwrap();
    assert_eq!(source.ip(), given);
    tcp(&lab.gateway_a, &lab.host_b, host, 500_000);
    assert_reaches(&lab.host_b, &lab.gateway_a, given);

    let pools = b.ask("get-pools", &[("leases", "yes")]);
    let pool = pools.get_section("guests").unwrap();
    assert_eq!(
        (pool.get("online"), pool.get("size")),
        (Some("1"), Some("254"))
    );
    a.command("rekey", &[("ike", "lab"), ("reauth", "yes")]);
    eventually("there is one IKE SA again, with the same address", || {
        let sas = a.established();
        let vips = sas.first()?.get_list("local-vips");
        (sas.len() == 1 && vips == Some(vec!["10.3.0.1"])).then_some(())
    });
    tcp(&lab.gateway_a, &lab.host_b, host, 500_000);
    a.command("terminate", &[("ike", "lab")]);
    eventually("the address is free", || {
        let pools = b.ask("get-pools", &[]);
        let online = pools.get_section("guests")?.get("online") == Some("0");
        online.then_some(())
    });
    let gone = lab.gateway_a.run(move || UdpSocket::bind((given, 0)));
    assert!(gone.is_err(), "the address stayed on the tunnel device");
    eavesdropper.finish().assert_nothing_in_clear();
}

#[test]
fn a_guest_with_an_ipv6_address_of_its_peer_is_reached_and_reaches_and_gives_it_back() {
    let Some(lab) = Lab::new() else { return };
    let [plan_a, plan_b] = plans(Family::V6);
    let b = lab.start(Side::B, &config(&plan_b, Side::B));
    let a = lab.start(Side::A, &config(&plan_a, Side::A));
    a.initiate("net");
    let sa = &a.established()[0];
    for (key, told) in [
        ("local-vips", "fd03::1"),
        ("dns", "fd02::53"),
        ("subnets", "fd02::/64"),
    ] {
        assert_eq!(sa.get_list(key), Some(vec![told]), "{key}");
    }
    let given: IpAddr = "fd03::1".parse().unwrap();
    let host = Side::B.host(Family::V6);
    tcp(&lab.gateway_a, &lab.host_b, host, 500_000);
    assert_reaches(&lab.host_b, &lab.gateway_a, given);
    a.command("terminate", &[("ike", "lab")]);
    eventually("the address is free", || {
        let pools = b.ask("get-pools", &[]);
        let online = pools.get_section("guests")?.get("online") == Some("0");
        online.then_some(())
    });
    let gone = lab.gateway_a.run(move || UdpSocket::bind((given, 0)));
    assert!(gone.is_err(), "the address stayed on the tunnel device");
}
