use std::process::Command;

use super::*;
use crate::{
    daemon::reach::tests::{PROTECT, spd},
    io::{netlink::link_index, netns::for_test},
    ipsec::Action,
};

fn settings(index: Option<u32>) -> Settings {
    Settings {
        device: "ipsec0".to_owned(),
        index,
        table: 4500,
        mark: 0x4c47,
        guard: true,
        mirrored: Mirrored {
            ipv4: true,
            ipv6: true,
        },
    }
}

/// Routes of a plan as `prefix action`.
fn routes(plan: &Plan) -> Vec<String> {
    let routes = plan.routes.iter().map(|route| match route.action {
        RouteAction::Device {
            index,
            source: None,
        } => format!("{} dev {index}", route.to),
        RouteAction::Device {
            index,
            source: Some(source),
        } => {
            format!("{} dev {index} src {source}", route.to)
        }
        RouteAction::Throw => format!("{} throw", route.to),
        RouteAction::Unreachable => format!("{} unreachable", route.to),
    });
    let mut routes: Vec<String> = routes.collect();
    routes.sort();
    routes
}

#[test]
fn remote_prefixes_lead_to_the_device_with_an_own_address_as_source() {
    let spd = spd(&[("10.1.0.0/24", "10.2.0.0/24", PROTECT)]);
    let addresses = ["127.0.0.1", "192.0.2.1", "10.1.0.1"].map(|a| a.parse().unwrap());
    assert_eq!(
        routes(&Plan::new(&spd, &addresses, &settings(Some(7)))),
        ["10.2.0.0/24 dev 7 src 10.1.0.1", "10.2.0.0/24 unreachable"]
    );
}

#[test]
fn without_a_device_what_would_go_into_the_tunnel_is_unreachable() {
    let spd = spd(&[("2001:db8:1::/64", "2001:db8:2::/64", PROTECT)]);
    assert_eq!(
        routes(&Plan::new(&spd, &[], &settings(None))),
        ["2001:db8:2::/64 unreachable"]
    );
}

#[test]
fn our_own_side_is_thrown_back_where_the_remote_side_covers_it() {
    let spd = spd(&[
        ("10.1.0.0/24", "0.0.0.0/0", PROTECT),
        ("10.0.0.0/8", "10.9.0.0/16", PROTECT),
    ]);
    let plan = routes(&Plan::new(&spd, &[], &settings(Some(7))));
    assert_eq!(
        plan,
        [
            "0.0.0.0/0 dev 7",
            "0.0.0.0/0 unreachable",
            "10.1.0.0/24 throw",
            "10.9.0.0/16 dev 7",
            "10.9.0.0/16 unreachable",
            "224.0.0.0/4 throw",
            "255.255.255.255/32 throw",
        ]
    );
}

#[test]
fn exceptions_get_no_route_and_a_rule_before_the_table() {
    let spd = spd(&[
        ("10.1.0.0/24", "10.2.0.9[udp/53]", Action::Bypass),
        ("10.1.0.0/24", "10.3.0.0/24", Action::Discard),
    ]);
    let plan = Plan::new(&spd, &[], &settings(Some(7)));
    assert!(plan.routes.is_empty());
    let outward: Vec<&Rule> = plan
        .rules
        .iter()
        .filter(|rule| rule.priority == OUTBOUND && rule.to.is_some())
        .collect();
    let [bypass, discard] = outward[..] else {
        panic!("{outward:?}")
    };
    assert_eq!(bypass.action, RuleAction::Goto(END));
    assert_eq!(bypass.destination_ports, Some((53, 53)));
    assert_eq!(discard.action, RuleAction::Prohibit);
    assert!(plan.rules.is_sorted_by_key(|rule| rule.priority));
}

#[test]
fn rules_do_not_grow_with_mirrored_tunnels_and_drop_clear_text_of_others() {
    let nets = [
        ["10.1.0.0/24", "10.2.0.0/24", "10.3.0.0/24"],
        ["2001:db8:1::/64", "2001:db8:2::/64", "2001:db8:3::/64"],
    ];
    for [local, remote, other] in nets {
        let one = spd(&[(local, remote, PROTECT)]);
        let two = spd(&[(local, remote, PROTECT), (local, other, PROTECT)]);
        let mirrored = settings(Some(7));
        let rules = |spd: &Spd, settings: &Settings| Plan::new(spd, &[], settings).rules;
        assert_eq!(rules(&one, &mirrored), rules(&two, &mirrored));
        let alone = Settings {
            mirrored: Mirrored::default(),
            ..settings(Some(7))
        };
        let rules = rules(&one, &alone);
        let dropping = rules.iter().find(|rule| rule.priority == FROM_OUTSIDE);
        let dropping = dropping.expect("a rule");
        assert_eq!(dropping.action, RuleAction::Blackhole);
        assert_eq!(dropping.from, Some(remote.parse().unwrap()));
        assert_eq!(dropping.to, Some(local.parse().unwrap()));
    }
}

/// The kernel is asked where it would send packets, from within a namespace with two links.
#[test]
fn the_kernel_routes_as_planned_and_refuses_once_the_device_is_gone() {
    let Some(namespace) = for_test("routes") else {
        return;
    };
    namespace.run(|| {
        for command in [
            "link add lan type veth peer name lan-far",
            "link add wan type veth peer name wan-far",
            "link add ipsec0 type veth peer name ipsec0-far",
            "addr add 10.1.0.1/24 dev lan",
            "addr add 192.0.2.1/24 dev wan",
            "link set lan up",
            "link set wan up",
            "link set ipsec0 up",
            "link set lan-far up",
            "link set wan-far up",
            "link set ipsec0-far up",
            "route add default via 192.0.2.254",
        ] {
            ip(command).unwrap_or_else(|error| panic!("{command}: {error}"));
        }
        let spd = spd(&[
            ("10.1.0.0/24", "10.9.0.0/24", Action::Bypass),
            ("10.1.0.0/24", "10.0.0.0/8", PROTECT),
        ]);
        let mut routes = Routes::open(settings(None)).unwrap();
        assert_eq!(routes.present().unwrap(), Present::Nothing);
        routes.update(&spd).unwrap();
        assert!(
            ip("route get 10.2.0.1")
                .unwrap_err()
                .contains("No route to host")
        );

        routes.set_device(link_index("ipsec0").unwrap().unwrap());
        for _ in 0..2 {
            routes.update(&spd).unwrap();
            let tunnel = ip("route get 10.2.0.1").unwrap();
            assert!(
                tunnel.contains("dev ipsec0") && tunnel.contains("src 10.1.0.1"),
                "{tunnel}"
            );
        }
        assert_eq!(routes.present().unwrap(), Present::InUse);
        ip("addr del 10.1.0.1/24 dev lan").unwrap();
        ip("addr add 10.1.0.2/24 dev lan").unwrap();
        assert!(routes.are_outdated().unwrap());
        routes.update(&spd).unwrap();
        let tunnel = ip("route get 10.2.0.1").unwrap();
        assert!(tunnel.contains("src 10.1.0.2"), "{tunnel}");
        ip("addr del 10.1.0.2/24 dev lan").unwrap();
        ip("addr add 10.1.0.1/24 dev lan").unwrap();
        routes.update(&spd).unwrap();
        let own = ip("route get 10.2.0.1 mark 0x4c47").unwrap();
        assert!(own.contains("dev wan"), "{own}");
        let neighbour = ip("route get 10.1.0.7").unwrap();
        assert!(neighbour.contains("dev lan"), "{neighbour}");
        let bypass = ip("route get 10.9.0.7 from 10.1.0.1").unwrap();
        assert!(bypass.contains("dev wan"), "{bypass}");

        std::fs::write("/proc/sys/net/ipv4/ip_forward", "1").unwrap();
        let through = "route get 10.1.0.7 from 10.2.0.1 iif";
        std::fs::write("/proc/sys/net/ipv4/conf/ipsec0/rp_filter", "0").unwrap();
        let inward = ip(&format!("{through} ipsec0")).unwrap();
        assert!(inward.contains("dev lan"), "{inward}");

        // As after a crash: the device is gone, the rest is still there and is taken over.
        ip("link del ipsec0").unwrap();
        assert!(
            ip("route get 10.2.0.1")
                .unwrap_err()
                .contains("No route to host")
        );
        let mut successor = Routes::open(settings(None)).unwrap();
        assert_eq!(successor.present().unwrap(), Present::Stale);
        successor.update(&spd).unwrap();
        assert!(
            ip("route get 10.2.0.1")
                .unwrap_err()
                .contains("No route to host")
        );
        successor.remove().unwrap();
        assert_eq!(successor.present().unwrap(), Present::Nothing);
        assert!(ip("route get 10.2.0.1").unwrap().contains("dev wan"));
        assert_eq!(ip("rule").unwrap().lines().count(), 3);
    });
}

fn ip(arguments: &str) -> Result<String, String> {
    let output = Command::new("ip")
        .args(arguments.split_whitespace())
        .output()
        .unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if output.status.success() {
        Ok(text(&output.stdout))
    } else {
        Err(text(&output.stderr))
    }
}
