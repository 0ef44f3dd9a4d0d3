use super::*;
use crate::{
    daemon::reach::tests::{PROTECT, spd},
    ipsec::Action,
};

/// Policies in order, as `direction source > destination [protocol source-port destination-port] verdict`.
fn shown(policies: &[XfrmPolicy]) -> Vec<String> {
    let shown = policies.iter().map(|p| {
        let direction = match p.direction {
            Direction::In => "in",
            Direction::Out => "out",
            Direction::Forward => "fwd",
        };
        let port = |port: PortMatch| match port.mask {
            0 => "*".to_owned(),
            u16::MAX => port.value.to_string(),
            mask => format!("{}/{mask:x}", port.value),
        };
        let (source_port, destination_port) = (port(p.source_port), port(p.destination_port));
        let ports = format!("[{} {source_port} {destination_port}]", p.protocol);
        let ports = if ports == "[0 * *]" {
            String::new()
        } else {
            format!(" {ports}")
        };
        let verdict = if p.allow { "allow" } else { "block" };
        format!(
            "{direction} {} > {}{ports} {verdict}",
            p.source, p.destination
        )
    });
    shown.collect()
}

#[test]
fn a_protected_selector_is_blocked_outwards_inwards_and_through() {
    let spd = spd(&[("10.1.0.0/24", "10.2.0.0/24", PROTECT)]);
    assert_eq!(
        shown(&policies(&spd)),
        [
            "out 10.1.0.0/24 > 10.2.0.0/24 block",
            "in 10.2.0.0/24 > 10.1.0.0/24 block",
            "fwd 10.2.0.0/24 > 10.1.0.0/24 block",
        ]
    );
}

#[test]
fn an_exception_keeps_its_place_before_what_it_excepts_and_its_ports() {
    let spd = spd(&[
        ("10.1.0.0/24", "10.2.0.1/32[tcp/22]", Action::Bypass),
        ("10.1.0.0/24", "10.2.0.0/24", PROTECT),
    ]);
    let policies = policies(&spd);
    assert_eq!(
        shown(&policies[..3]),
        [
            "out 10.1.0.0/24 > 10.2.0.1/32 [6 * 22] allow",
            "in 10.2.0.1/32 > 10.1.0.0/24 [6 22 *] allow",
            "fwd 10.2.0.1/32 > 10.1.0.0/24 [6 22 *] allow",
        ]
    );
    assert!(policies.is_sorted_by_key(|policy| policy.priority));
    assert_eq!(policies.len(), 6);
}

/// Fragments have no ports, so a block that looks at ports would let them out.
#[test]
fn a_protected_port_is_blocked_with_all_ports_of_its_protocol() {
    let spd = spd(&[("10.1.0.0/24", "10.2.0.0/24[udp/5000]", PROTECT)]);
    assert_eq!(
        shown(&policies(&spd))[0],
        "out 10.1.0.0/24 > 10.2.0.0/24 [17 * *] block"
    );
}

#[test]
fn our_own_side_of_a_wide_selector_and_multicast_stay_usable() {
    let spd = spd(&[("10.1.0.0/24", "0.0.0.0/0", PROTECT)]);
    assert_eq!(
        shown(&policies(&spd)),
        [
            "out 10.1.0.0/24 > 224.0.0.0/4 allow",
            "out 10.1.0.0/24 > 255.255.255.255/32 allow",
            "out 10.1.0.0/24 > 10.1.0.0/24 allow",
            "in 10.1.0.0/24 > 10.1.0.0/24 allow",
            "fwd 10.1.0.0/24 > 10.1.0.0/24 allow",
            "out 10.1.0.0/24 > 0.0.0.0/0 block",
            "in 0.0.0.0/0 > 10.1.0.0/24 block",
            "fwd 0.0.0.0/0 > 10.1.0.0/24 block",
        ]
    );
}

#[test]
fn a_range_of_addresses_is_blocked_prefix_by_prefix() {
    let spd = spd(&[("10.1.0.0/24", "10.2.0.1-10.2.0.3", PROTECT)]);
    let shown = shown(&policies(&spd));
    let outward: Vec<_> = shown
        .iter()
        .filter(|line| line.starts_with("out"))
        .collect();
    assert_eq!(
        outward,
        [
            "out 10.1.0.0/24 > 10.2.0.1/32 block",
            "out 10.1.0.0/24 > 10.2.0.2/31 block",
        ]
    );
}

#[test]
fn one_selector_gives_one_policy_and_the_first_decides() {
    let spd = spd(&[
        ("10.1.0.0/24", "10.2.0.0/24", Action::Bypass),
        ("10.1.0.0/24", "10.2.0.0/24", PROTECT),
    ]);
    let policies = policies(&spd);
    assert_eq!(policies.len(), 3);
    assert!(policies.iter().all(|policy| policy.allow));
}

/// The kernel cannot exempt the tunnel device for IPv6, so blocks there would cut off the tunnel.
#[test]
fn ipv6_is_left_to_the_routes() {
    assert!(policies(&spd(&[("2001:db8:1::/64", "2001:db8:2::/64", PROTECT)])).is_empty());
}

#[test]
fn port_ranges_are_covered_exactly_by_masked_ports() {
    for range in [
        (0, 65535),
        (0, 0),
        (1, 1),
        (80, 90),
        (1, 65534),
        (1024, 65535),
        (65535, 65535),
    ] {
        let blocks = cover(range);
        assert!(blocks.len() <= 30);
        for port in 0..=u16::MAX {
            let matching = blocks
                .iter()
                .filter(|block| port & block.mask == block.value);
            let expected = usize::from((range.0..=range.1).contains(&port));
            assert_eq!(matching.count(), expected, "{port} in {range:?}");
        }
    }
    assert!(cover((65535, 0)).is_empty());
}

#[test]
fn an_icmp_exception_names_type_and_code_in_each_direction() {
    let spd = spd(&[("10.1.0.1", "10.2.0.1[icmp/2048]", Action::Bypass)]);
    assert_eq!(
        shown(&policies(&spd)),
        [
            "out 10.1.0.1/32 > 10.2.0.1/32 [1 8 0] allow",
            "in 10.2.0.1/32 > 10.1.0.1/32 [1 8 0] allow",
            "fwd 10.2.0.1/32 > 10.1.0.1/32 [1 8 0] allow",
        ]
    );
}
