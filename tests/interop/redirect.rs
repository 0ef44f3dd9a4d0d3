//! REDIRECT (RFC 5685) with strongSwan: either one sends the other to its own second address.

use super::pair::{Initiator, Pair};
use crate::support::{
    eventually,
    lab::{Family, OUTER, Plan, Side},
};

/// Both daemons; the gateway that redirects has two addresses, and its daemon answers on both.
fn pair(redirects: Side, connection: &str) -> Option<Pair> {
    let plan = Plan {
        inner: vec![Family::V4],
        roams: (redirects == Side::A).then_some(Side::A),
        connection: connection.to_owned(),
        ..Plan::default()
    };
    let theirs = match redirects {
        Side::A => "",
        Side::B => "local_addrs = %any",
    };
    let pair = Pair::new(plan, theirs)?;
    let second = format!("{}/24", second(redirects));
    let gateway = pair.lab.gateway(redirects);
    gateway.add_address(OUTER, second.parse().unwrap()).unwrap();
    Some(pair)
}

fn second(side: Side) -> &'static str {
    match side {
        Side::A => "192.0.2.11",
        Side::B => "192.0.2.22",
    }
}

/// The tunnel is where it was sent to, and carries traffic there.
#[track_caller]
fn is_redirected(pair: &Pair, by: Side) {
    let key = match by {
        Side::A => "local-host",
        Side::B => "remote-host",
    };
    eventually("the tunnel is at the second address", || {
        let sas = pair.lockgate.established();
        let [sa] = &sas[..] else { return None };
        (sa.get(key) == Some(second(by))).then_some(())
    });
    pair.is_up();
    pair.carries_traffic();
    assert_eq!(pair.lockgate.drops("integrity-failed"), 0);
}

#[test]
fn lockgate_follows_a_redirect_of_an_established_tunnel() {
    let Some(pair) = pair(Side::B, "follow_redirects = true") else {
        return;
    };
    pair.initiate(Initiator::Lockgate);
    let gateway = second(Side::B);
    let arguments = ["--redirect", "--ike", "lab", "--gateway", gateway];
    pair.strongswan.swanctl_ok(&arguments);
    is_redirected(&pair, Side::B);
}

#[test]
fn strongswan_follows_a_redirect_of_an_established_tunnel() {
    let Some(pair) = pair(Side::A, "") else {
        return;
    };
    pair.initiate(Initiator::StrongSwan);
    let gateway = second(Side::A);
    let arguments = [
        "--redirect",
        "--peer-ip",
        "192.0.2.0/24",
        "--gateway",
        gateway,
    ];
    let socket = format!("unix://{}", pair.lockgate.socket().display());
    let answer = pair.strongswan.swanctl_at(&arguments, &socket);
    assert!(
        answer.contains("redirect completed successfully"),
        "{answer}"
    );
    is_redirected(&pair, Side::A);
}

#[test]
fn strongswan_follows_a_redirect_in_the_first_answer() {
    let redirect = format!("redirect = \"{}\"", second(Side::A));
    let Some(pair) = pair(Side::A, &redirect) else {
        return;
    };
    pair.strongswan
        .swanctl_ok(&["--initiate", "--child", "net", "--timeout", "20"]);
    is_redirected(&pair, Side::A);
}
