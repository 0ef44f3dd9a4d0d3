//! Keys that are right one by one and do not fit together.

use super::{
    SITE_A,
    mistakes::{mistakes, warnings},
};
use lockgate::config::Config;
use std::path::Path;

#[test]
fn a_connection_needs_a_secret_that_fits() {
    assert_eq!(
        mistakes(&SITE_A.replace("id = [\"gw-b.example\"]", "id = [\"gw-c.example\"]")),
        [
            "gw.toml:2: connections.site-b: no secret fits; needed: a table secrets.ike… whose id is \
             gw-a.example or gw-b.example, or that has no id"
        ]
    );
    for owner in [
        "id1 = \"gw-a.example\"",
        "id = \"*.example\"",
        "id = []",
        "id = \"%any\"",
    ] {
        let text = SITE_A.replace("id = [\"gw-b.example\"]", owner);
        assert_eq!(warnings(&text), [""; 0], "{owner}");
    }
}

#[test]
fn selectors_of_one_child_share_an_address_family() {
    assert_eq!(
        mistakes(&SITE_A.replace("10.2.0.0/24", "2001:db8::/32")),
        [
            "gw.toml:13: connections.site-b.children.lan.remote_ts: has only IPv6 selectors and local_ts only IPv4 selectors"
        ]
    );
    assert_eq!(
        warnings(&SITE_A.replace("\"10.2.0.0/24\"", "\"10.2.0.0/24\", \"2001:db8::/32\"")),
        [
            "gw.toml:13: connections.site-b.children.lan.remote_ts: has IPv6 selectors and local_ts has none, so they match no traffic"
        ]
    );
}

#[test]
fn a_selector_without_an_address_would_protect_nothing_and_is_refused() {
    let text = SITE_A
        .replace("\"192.0.2.1\"", "\"%any\"")
        .replace("\"10.1.0.0/24\"", "\"dynamic\"");
    assert_eq!(
        mistakes(&text),
        [
            "gw.toml:12: connections.site-b.children.lan.local_ts: dynamic stands for the gateway's address, \
             but local_addrs names no single one of the right family; give the selector as a prefix"
        ]
    );
    let fits = SITE_A.replace("\"10.1.0.0/24\"", "\"dynamic\"");
    assert_eq!(warnings(&fits), [""; 0]);
}

#[test]
fn a_gateway_with_both_families_means_the_one_of_its_peer() {
    let text = SITE_A
        .replace("\"192.0.2.1\"", "\"192.0.2.1\", \"2001:db8::1\"")
        .replace("\"198.51.100.1\"", "\"2001:db8::2\"")
        .replace("\"10.1.0.0/24\"", "\"dynamic\"")
        .replace("\"10.2.0.0/24\"", "\"dynamic\"");
    let config = Config::parse(&text, Path::new("gw.toml")).expect("a configuration");
    let policies = config.pad.policies();
    let policy = policies.policies().first().expect("a policy");
    assert_eq!(policy.local.to_string(), "2001:db8::1/128");
}

#[test]
fn a_side_has_at_most_as_many_selectors_as_a_message_can_carry() {
    let prefixes = |count: u32| {
        let prefixes = (0..count).map(|n| format!("\"10.{}.{}.0/24\"", 128 + n / 256, n % 256));
        prefixes.collect::<Vec<_>>().join(", ")
    };
    let text = |count| SITE_A.replace("\"10.2.0.0/24\"", &prefixes(count));
    assert_eq!(warnings(&text(255)), [""; 0]);
    assert_eq!(
        mistakes(&text(256)),
        [
            "gw.toml:13: connections.site-b.children.lan.remote_ts: has 256 selectors; allowed: at most 255, \
             which is what IKE can carry; spread them over several children"
        ]
    );
}

#[test]
fn who_initiates_needs_somewhere_to_initiate_to() {
    let anywhere = SITE_A.replace("\"198.51.100.1\"", "\"%any\"");
    assert_eq!(
        mistakes(&anywhere),
        [
            "gw.toml:5: connections.site-b.remote_addrs: names no single address, which start_action of child lan needs"
        ]
    );
    assert_eq!(
        warnings(&anywhere.replace("\"start\"", "\"trap\"")),
        [
            "gw.toml:5: connections.site-b.remote_addrs: names no single address, which start_action of child lan needs"
        ]
    );
    assert_eq!(
        warnings(&anywhere.replace("start_action = \"start\"", "dpd_action = \"restart\"")),
        [
            "gw.toml:5: connections.site-b.remote_addrs: names no single address, which dpd_action of child lan needs"
        ]
    );
}

#[test]
fn overlapping_selectors_of_two_connections_earn_a_warning() {
    let (first, secret) = SITE_A.split_once("[secrets").expect("two halves");
    let second = first
        .replace("site-b", "site-c")
        .replace("10.2.0.0/24", "10.2.0.0/16");
    let text = format!("{first}{second}[secrets{secret}");
    assert_eq!(
        warnings(&text),
        [
            "gw.toml:29: connections.site-c.children.lan.remote_ts: 10.1.0.0/24 === 10.2.0.0/16 overlaps \
             10.1.0.0/24 === 10.2.0.0/24 of child lan of connection site-b; the narrower one gets the \
             packets, or the one with the lower priority"
        ]
    );
    assert_eq!(
        warnings(&text.replace("10.2.0.0/16", "10.3.0.0/16")),
        [""; 0]
    );
}

#[test]
fn a_connection_without_children_earns_a_warning() {
    let (connection, rest) = SITE_A
        .split_once("[connections.site-b.children.lan]")
        .expect("two halves");
    let (_, secret) = rest.split_once("[secrets").expect("two halves");
    assert_eq!(
        warnings(&format!("{connection}[secrets{secret}")),
        ["gw.toml:2: connections.site-b: has no children, so it protects no traffic"]
    );
}

#[test]
fn an_mtu_that_ipv6_cannot_use_earns_a_warning() {
    assert_eq!(
        warnings("[daemon]\ntun_mtu = 1200\n"),
        ["gw.toml:2: daemon.tun_mtu: is too small for IPv6, which needs 1280"]
    );
}
