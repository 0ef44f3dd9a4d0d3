//! The SPD's index against a scan of all policies in order.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use lockgate::ipsec::{Action, Direction, Mode, Policy, PolicyId, Reqid, Spd, Template};
use lockgate::wire::ip::Flow;
use lockgate::wire::selector::TrafficSelector;
use proptest::collection::vec;
use proptest::prelude::*;

fn policy(id: u32, direction: Direction, local: &str, remote: &str, priority: u32) -> Policy {
    Policy {
        id: PolicyId(id),
        name: format!("policy-{id}"),
        direction,
        local: local.parse().expect("a selector"),
        remote: remote.parse().expect("a selector"),
        action: Action::Protect(Template {
            reqid: Reqid(id),
            mode: Mode::Tunnel,
            trap: false,
        }),
        priority,
    }
}

fn flow(src: &str, dst: &str, protocol: u8, ports: Option<(u16, u16)>) -> Flow {
    let [src, dst] = [src, dst].map(|text| text.parse().expect("an address"));
    Flow {
        src,
        dst,
        protocol,
        ports,
    }
}

fn id(found: Option<&Policy>) -> Option<u32> {
    found.map(|policy| policy.id.0)
}

/// What RFC 4301 §4.4.1 says: the first in order that covers the packet.
fn scan<'a>(spd: &'a Spd, direction: Direction, flow: &Flow) -> Option<&'a Policy> {
    let (source, destination) = flow.ports.unzip();
    let source = (flow.src, source);
    let destination = (flow.dst, destination);
    let (local, remote) = match direction {
        Direction::Out => (source, destination),
        Direction::In | Direction::Forward => (destination, source),
    };
    spd.policies().iter().find(|policy| {
        policy.direction == direction
            && policy.local.contains(local.0, flow.protocol, local.1)
            && policy.remote.contains(remote.0, flow.protocol, remote.1)
    })
}

/// A small world, so that policies overlap and flows hit them.
fn address() -> impl Strategy<Value = IpAddr> {
    let v4 = |bits: u32| IpAddr::V4(Ipv4Addr::from_bits(0x0a00_0000 | bits));
    let v6 = |bits: u32| IpAddr::V6(Ipv6Addr::from_bits(0x2001_0db8 << 96 | u128::from(bits)));
    prop_oneof![(0_u32..64).prop_map(v4), (0_u32..64).prop_map(v6)]
}

fn selector() -> impl Strategy<Value = TrafficSelector> {
    let ports = prop_oneof![
        3 => Just((0, 0, u16::MAX)),
        1 => Just((17, 0, u16::MAX)),
        1 => Just((17, 53, 53)),
        1 => Just((6, 0, 1023)),
        1 => Just((1, 0x0800, 0x0800)),
    ];
    let range = (address(), 0_u32..20).prop_map(|(start, length)| {
        let end = match start {
            IpAddr::V4(start) => IpAddr::V4(Ipv4Addr::from_bits(start.to_bits() + length)),
            IpAddr::V6(start) => {
                IpAddr::V6(Ipv6Addr::from_bits(start.to_bits() + u128::from(length)))
            }
        };
        TrafficSelector::new(0, 0..=u16::MAX, start, end).expect("start is not above end")
    });
    let range = prop_oneof![
        4 => range,
        1 => Just(TrafficSelector::any_v4()),
        1 => Just(TrafficSelector::any_v6()),
    ];
    (range, ports).prop_map(|(range, (protocol, first, last))| {
        range
            .with_ports(protocol, first..=last)
            .expect("a port range")
    })
}

fn any_policy() -> impl Strategy<Value = Policy> {
    let direction = prop_oneof![
        Just(Direction::Out),
        Just(Direction::In),
        Just(Direction::Forward)
    ];
    (direction, selector(), selector(), 0_u32..5).prop_map(
        |(direction, local, remote, priority)| {
            let (id, name) = (PolicyId(0), String::new());
            Policy {
                id,
                name,
                direction,
                local,
                remote,
                action: Action::Bypass,
                priority,
            }
        },
    )
}

fn any_flow() -> impl Strategy<Value = Flow> {
    let upper = prop_oneof![
        Just((17, Some((53, 53)))),
        Just((17, Some((4000, 53)))),
        Just((6, Some((80, 40_000)))),
        Just((1, Some((0x0800, 0x0800)))),
        Just((17, None)),
        Just((47, None)),
    ];
    (address(), address(), upper)
        .prop_filter("one IP version", |(src, dst, _)| {
            src.is_ipv4() == dst.is_ipv4()
        })
        .prop_map(|(src, dst, (protocol, ports))| Flow {
            src,
            dst,
            protocol,
            ports,
        })
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 256,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn the_index_finds_what_a_scan_in_order_finds(
        mut policies in vec(any_policy(), 0..60),
        flows in vec(any_flow(), 1..100),
    ) {
        for (number, policy) in (0..).zip(&mut policies) {
            policy.id = PolicyId(number);
            policy.action = Action::Protect(Template {
                reqid: Reqid(number),
                mode: Mode::Tunnel,
                trap: false,
            });
        }
        let spd = Spd::new(policies);
        for flow in flows {
            let found = [spd.outbound(&flow), spd.inbound(&flow), spd.forward(&flow)];
            let expected = [Direction::Out, Direction::In, Direction::Forward]
                .map(|direction| scan(&spd, direction, &flow));
            prop_assert_eq!(found.map(id), expected.map(id), "{:?}", flow);
            let action = found[0].map(|policy| policy.action);
            prop_assert_eq!(spd.outbound_action(&flow), action, "{:?}", flow);
        }
    }
}

#[test]
fn a_lower_priority_comes_first_whatever_the_prefix_length() {
    let spd = Spd::new(vec![
        policy(1, Direction::Out, "10.1.0.0/24", "10.2.0.5/32", 20),
        policy(2, Direction::Out, "10.0.0.0/8", "10.0.0.0/8", 10),
        policy(3, Direction::Out, "10.1.0.0/16", "10.2.0.0/16", 15),
    ]);
    let packet = flow("10.1.0.1", "10.2.0.5", 6, Some((1, 2)));
    assert_eq!(id(spd.outbound(&packet)), Some(2));
}

#[test]
fn among_equals_the_first_given_decides() {
    let spd = Spd::new(vec![
        policy(7, Direction::Out, "10.0.0.0/8", "10.0.0.0/8", 10),
        policy(3, Direction::Out, "10.1.0.0/16", "10.2.0.0/16", 10),
        policy(5, Direction::Out, "10.1.0.0/16", "10.2.0.0/16", 10),
    ]);
    assert_eq!(
        id(spd.outbound(&flow("10.1.0.1", "10.2.0.5", 6, Some((1, 2))))),
        Some(7)
    );
    let order: Vec<u32> = spd.policies().iter().map(|policy| policy.id.0).collect();
    assert_eq!(order, [7, 3, 5]);
}

#[test]
fn local_is_our_side_in_every_direction() {
    let spd = Spd::new(vec![
        policy(1, Direction::Out, "10.1.0.0/24[udp/53]", "10.2.0.0/24", 10),
        policy(2, Direction::In, "10.1.0.0/24[udp/53]", "10.2.0.0/24", 10),
        policy(
            3,
            Direction::Forward,
            "10.1.0.0/24[udp/53]",
            "10.2.0.0/24",
            10,
        ),
    ]);
    let leaving = flow("10.1.0.1", "10.2.0.1", 17, Some((53, 4000)));
    let arriving = flow("10.2.0.1", "10.1.0.1", 17, Some((4000, 53)));
    assert_eq!(id(spd.outbound(&leaving)), Some(1));
    assert_eq!(id(spd.outbound(&arriving)), None);
    assert_eq!(id(spd.inbound(&arriving)), Some(2));
    assert_eq!(id(spd.inbound(&leaving)), None);
    assert_eq!(id(spd.forward(&arriving)), Some(3));
    assert_eq!(id(spd.forward(&leaving)), None);
}

#[test]
fn a_later_fragment_is_covered_only_by_policies_for_any_port() {
    let spd = Spd::new(vec![
        policy(1, Direction::Out, "10.1.0.0/24", "10.2.0.0/24[udp/53]", 10),
        policy(2, Direction::Out, "10.1.0.0/24", "10.2.0.0/24[udp]", 20),
    ]);
    assert_eq!(
        id(spd.outbound(&flow("10.1.0.1", "10.2.0.1", 17, Some((9, 53))))),
        Some(1)
    );
    assert_eq!(
        id(spd.outbound(&flow("10.1.0.1", "10.2.0.1", 17, None))),
        Some(2)
    );
}

#[test]
fn an_empty_database_covers_nothing() {
    assert_eq!(
        id(Spd::default().outbound(&flow("10.1.0.1", "10.2.0.1", 17, None))),
        None
    );
}
