//! Traffic selectors: strongSwan's bytes, swanctl's text, and the algebra that narrowing needs.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use lockgate::wire::Malformed;
use lockgate::wire::isakmp::PayloadType;
use lockgate::wire::selector::TrafficSelector;

use proptest::prelude::*;

use crate::messages::body;

const AUTH_REQUEST: &[u8] = include_bytes!("../fuzz/seeds/isakmp_v2/auth-request-inner");

fn ts(text: &str) -> TrafficSelector {
    text.parse().unwrap()
}

fn v4(a: u8, b: u8, c: u8, d: u8) -> IpAddr {
    Ipv4Addr::new(a, b, c, d).into()
}

#[test]
fn selectors_that_strongswan_sent_print_as_swanctl_lists_them() {
    let texts = |kind| {
        let list = TrafficSelector::parse_list(body(AUTH_REQUEST, kind)).unwrap();
        list.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    assert_eq!(texts(PayloadType::TS_I), ["10.1.0.0/24", "2001:db8:1::/64"]);
    let expected = [
        "10.2.0.0/24[tcp/80]",
        "10.3.0.5..10.3.0.9",
        "2001:db8:2::/64",
    ];
    assert_eq!(texts(PayloadType::TS_R), expected);
}

#[test]
fn every_form_of_swanctls_syntax_is_read_and_printed() {
    for (text, printed) in [
        ("10.1.0.0/24", "10.1.0.0/24"),
        ("10.1.0.77/24", "10.1.0.0/24"),
        ("10.0.0.1", "10.0.0.1/32"),
        (" 2001:db8::1 ", "2001:db8::1/128"),
        ("0.0.0.0/0", "0.0.0.0/0"),
        ("::/0", "::/0"),
        ("10.0.0.1-10.0.0.9", "10.0.0.1..10.0.0.9"),
        ("10.0.0.0-10.0.0.255", "10.0.0.0/24"),
        ("2001:db8::5..2001:db8::9", "2001:db8::5..2001:db8::9"),
        ("10.1.0.0/24[tcp/80]", "10.1.0.0/24[tcp/80]"),
        ("10.1.0.0/24[17]", "10.1.0.0/24[udp]"),
        ("10.1.0.0/24[253/any]", "10.1.0.0/24[253]"),
        ("10.1.0.0/24[udp/1000-2000]", "10.1.0.0/24[udp/1000-2000]"),
        ("10.1.0.0/24[/53]", "10.1.0.0/24[0/53]"),
        ("10.1.0.0/24[any/any]", "10.1.0.0/24"),
        ("10.1.0.0/24[tcp/opaque]", "10.1.0.0/24[tcp/OPAQUE]"),
        ("10.1.0.0/24[icmp]", "10.1.0.0/24[icmp]"),
        ("10.1.0.0/24[icmp/8]", "10.1.0.0/24[icmp/8]"),
        ("10.1.0.0/24[1/3(4)]", "10.1.0.0/24[icmp/3(4)]"),
        ("10.1.0.0/24[icmp/772]", "10.1.0.0/24[icmp/3(4)]"),
        ("10.1.0.0/24[icmp/3(1)-3(4)]", "10.1.0.0/24[icmp/3(1)-3(4)]"),
        (
            "2001:db8::/32[icmpv6/128-129]",
            "2001:db8::/32[ipv6-icmp/128-129]",
        ),
    ] {
        let selector = ts(text);
        assert_eq!(selector.to_string(), printed);
        assert_eq!(ts(printed), selector);
    }
}

#[test]
fn text_that_is_no_selector_is_refused_with_the_reason() {
    for (text, reason) in [
        ("", "no address"),
        ("dynamic", "no address"),
        ("10.1.0.0/33", "no address"),
        ("10.1.0.0/24[tcp/80", "closing ]"),
        ("10.1.0.0/24[tcpp/80]", "protocol"),
        ("10.1.0.0/24[256]", "protocol"),
        ("10.1.0.0/24[tcp/http]", "port"),
        ("10.1.0.0/24[tcp/65536]", "port"),
        ("10.1.0.0/24[tcp/90-80]", "port range is empty"),
        ("10.1.0.0/24[icmp/8(256)]", "ICMP"),
        ("10.0.0.9-10.0.0.1", "empty"),
        ("10.0.0.9-2001:db8::1", "mixes"),
        ("10.0.0.9-", "end"),
        ("x-10.0.0.9", "start"),
    ] {
        let error = text.parse::<TrafficSelector>().unwrap_err().to_string();
        assert!(error.contains(reason), "{error}");
    }
}

#[test]
fn narrowing_takes_what_both_sides_contain() {
    for (ours, theirs, both) in [
        ("10.0.0.0/8", "10.1.0.0/16", Some("10.1.0.0/16")),
        ("10.0.0.0/24", "10.0.1.0/24", None),
        (
            "10.0.0.5-10.0.0.20",
            "10.0.0.10-10.0.0.30",
            Some("10.0.0.10-10.0.0.20"),
        ),
        ("10.0.0.0/8", "2001:db8::/32", None),
        (
            "10.0.0.0/8[tcp]",
            "10.1.0.0/16[tcp/80]",
            Some("10.1.0.0/16[tcp/80]"),
        ),
        ("10.0.0.0/8[tcp]", "10.1.0.0/16[udp]", None),
        (
            "10.0.0.0/8[/53]",
            "10.0.0.0/8[udp]",
            Some("10.0.0.0/8[udp/53]"),
        ),
        (
            "10.0.0.0/8[tcp/80-90]",
            "10.0.0.0/8[tcp/85-99]",
            Some("10.0.0.0/8[tcp/85-90]"),
        ),
        ("10.0.0.0/8[tcp/80]", "10.0.0.0/8[tcp/81]", None),
        (
            "10.0.0.0/8[tcp/opaque]",
            "10.0.0.0/8[tcp]",
            Some("10.0.0.0/8[tcp/opaque]"),
        ),
        (
            "10.0.0.0/8[tcp/opaque]",
            "10.0.0.0/8[tcp/opaque]",
            Some("10.0.0.0/8[tcp/opaque]"),
        ),
        ("10.0.0.0/8[tcp/opaque]", "10.0.0.0/8[tcp/80]", None),
        (
            "10.0.0.0/8[icmp/8]",
            "10.0.0.0/8[icmp/8(0)]",
            Some("10.0.0.0/8[icmp/8(0)]"),
        ),
        ("::/0", "2001:db8::/32", Some("2001:db8::/32")),
    ] {
        let (ours, theirs) = (ts(ours), ts(theirs));
        assert_eq!(ours.intersect(&theirs), both.map(ts), "{ours} and {theirs}");
        assert_eq!(theirs.intersect(&ours), both.map(ts), "{theirs} and {ours}");
        if let Some(both) = both.map(ts) {
            assert!(both.is_subset_of(&ours) && both.is_subset_of(&theirs));
            assert_eq!(ours.is_subset_of(&theirs), ours == both);
        }
    }
}

#[test]
fn a_packet_is_inside_by_address_protocol_and_visible_port() {
    let inside = |text, protocol, port| ts(text).contains(v4(10, 1, 0, 7), protocol, port);
    assert!(inside("10.1.0.0/24", 6, Some(80)) && inside("10.1.0.0/24", 47, None));
    assert!(!inside("10.1.1.0/24", 6, Some(80)) && !inside("::/0", 6, Some(80)));
    assert!(inside("10.1.0.7[tcp/80]", 6, Some(80)) && !inside("10.1.0.7[tcp/80]", 6, Some(81)));
    assert!(!inside("10.1.0.7[tcp/80]", 17, Some(80)));
    assert!(inside("10.1.0.7[/53]", 17, Some(53)) && inside("10.1.0.7[/53]", 6, Some(53)));
    // A later fragment shows no port.
    assert!(!inside("10.1.0.7[tcp/80]", 6, None) && inside("10.1.0.7[tcp]", 6, None));
    assert!(inside("10.1.0.7[tcp/opaque]", 6, None));
    assert!(!inside("10.1.0.7[tcp/opaque]", 6, Some(80)));
    assert!(inside("10.1.0.7[icmp/8]", 1, Some(0x0800)) && !inside("10.1.0.7[icmp/8]", 1, Some(0)));
}

#[test]
fn ranges_become_the_fewest_prefixes() {
    let nets = |text| {
        ts(text)
            .to_nets()
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
    };
    assert_eq!(nets("10.1.0.0/24"), ["10.1.0.0/24"]);
    assert_eq!(
        nets("10.3.0.5-10.3.0.9"),
        ["10.3.0.5/32", "10.3.0.6/31", "10.3.0.8/31"]
    );
    assert_eq!(nets("0.0.0.0-255.255.255.255"), ["0.0.0.0/0"]);
    assert_eq!(TrafficSelector::any_v6().to_nets().len(), 1);
    assert_eq!(ts("0.0.0.1-255.255.255.254").to_nets().len(), 62);
    let last = Ipv6Addr::from(u128::MAX - 1);
    assert_eq!(ts(&format!("::1-{last}")).to_nets().len(), 254);
}

#[test]
fn empty_and_mixed_ranges_cannot_be_made() {
    let new = |ports: (u16, u16), start, end| {
        TrafficSelector::new(6, ports.0..=ports.1, start, end).map(|selector| selector.ports())
    };
    let (low, high) = (v4(10, 0, 0, 1), v4(10, 0, 0, 2));
    assert_eq!(new((1, 2), low, high), Ok((1, 2)));
    assert_eq!(new((65535, 0), low, high), Ok((65535, 0)));
    let ports = Err(Malformed::BadValue("traffic selector port range"));
    assert_eq!(new((2, 1), low, high), ports);
    assert_eq!(new((65535, 1), low, high), ports);
    let addresses = Err(Malformed::BadValue("traffic selector address range"));
    assert_eq!(new((0, 1), high, low), addresses);
    assert_eq!(new((0, 1), low, Ipv6Addr::LOCALHOST.into()), addresses);
}

/// A payload of `count` that holds one IPv4 selector.
fn payload(count: u8) -> Vec<u8> {
    let mut out = Vec::new();
    TrafficSelector::encode_list(&[ts("10.1.0.0/24[tcp/80]")], &mut out);
    out[0] = count;
    out
}

#[test]
fn a_ts_payload_whose_count_and_bytes_differ_is_refused() {
    assert!(TrafficSelector::parse_list(&payload(1)).is_ok());
    let zero = Err(Malformed::BadValue("traffic selector count"));
    assert_eq!(TrafficSelector::parse_list(&payload(0)), zero);
    let truncated = Err(Malformed::Truncated("traffic selector"));
    assert_eq!(TrafficSelector::parse_list(&payload(2)), truncated);
    assert_eq!(TrafficSelector::parse_list(&payload(255)), truncated);
    let trailing = [&payload(1)[..], &[0]].concat();
    let trailing = TrafficSelector::parse_list(&trailing);
    assert_eq!(trailing, Err(Malformed::BadLength("TS payload")));
}

#[test]
fn a_selector_with_a_wrong_length_family_or_order_is_refused() {
    let changed = |at: usize, value: u8| {
        let mut bytes = payload(1);
        bytes[at] = value;
        TrafficSelector::parse_list(&bytes)
    };
    for length in [0, 3, 4, 8, 15, 17, 40, 255] {
        assert!(changed(7, length).is_err(), "length {length}");
    }
    assert_eq!(changed(4, 8), Err(Malformed::BadLength("traffic selector")));
    assert_eq!(
        changed(12, 11),
        Err(Malformed::BadValue("traffic selector address range"))
    );
    assert_eq!(
        changed(9, 81),
        Err(Malformed::BadValue("traffic selector port range"))
    );
}

#[test]
fn selectors_of_an_unknown_type_are_skipped() {
    let mut bytes = payload(2);
    bytes.extend_from_slice(&[9, 0, 0, 12, 0, 0, 0, 0, 1, 2, 3, 4]);
    assert_eq!(
        TrafficSelector::parse_list(&bytes),
        Ok(vec![ts("10.1.0.0/24[tcp/80]")])
    );
}

#[test]
fn a_list_is_written_up_to_the_255_that_the_format_counts() {
    let mut out = Vec::new();
    TrafficSelector::encode_list(&[ts("10.0.0.1"); 300], &mut out);
    assert_eq!(TrafficSelector::parse_list(&out).unwrap().len(), 255);
}

fn selectors() -> impl Strategy<Value = TrafficSelector> {
    let protocol = prop_oneof![Just(0), Just(1), Just(6)];
    let ports = prop_oneof![
        Just((0, u16::MAX)),
        Just((u16::MAX, 0)),
        (0..6u16, 0..6u16).prop_map(|(a, b)| (a.min(b), a.max(b))),
    ];
    (any::<bool>(), protocol, ports, 0..8u8, 0..8u8).prop_map(|(v6, protocol, ports, a, b)| {
        let (start, end) = (address(v6, a.min(b)), address(v6, a.max(b)));
        TrafficSelector::new(protocol, ports.0..=ports.1, start, end).unwrap()
    })
}

fn address(v6: bool, last: u8) -> IpAddr {
    match v6 {
        true => Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, last.into()).into(),
        false => v4(10, 0, 0, last),
    }
}

proptest! {
    #[test]
    fn an_intersection_contains_what_both_contain(a in selectors(), b in selectors()) {
        let both = a.intersect(&b);
        for (v6, last) in [false, true].into_iter().flat_map(|v6| (0..8).map(move |n| (v6, n))) {
            let addr = address(v6, last);
            for protocol in [1, 6, 17] {
                for port in [None, Some(0), Some(2), Some(5), Some(9), Some(u16::MAX)] {
                    let inside = |ts: &TrafficSelector| ts.contains(addr, protocol, port);
                    prop_assert_eq!(both.is_some_and(|ts| inside(&ts)), inside(&a) && inside(&b));
                    if a.is_subset_of(&b) {
                        prop_assert!(!inside(&a) || inside(&b));
                    }
                }
            }
        }
    }

    #[test]
    fn text_and_bytes_give_the_selector_back(selector in selectors()) {
        prop_assert_eq!(selector.to_string().parse(), Ok(selector));
        let mut out = Vec::new();
        TrafficSelector::encode_list(&[selector], &mut out);
        prop_assert_eq!(TrafficSelector::parse_list(&out), Ok(vec![selector]));
    }
}
