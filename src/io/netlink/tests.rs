use std::{
    io::{self, ErrorKind},
    net::UdpSocket,
    process::Command,
    time::Duration,
};

use ipnet::IpNet;

use super::{
    link_index,
    nftables::PacketMarks,
    routing::{Route, RouteAction, Routing, Rule, RuleAction},
    sysctl,
    xfrm::{Direction, PortMatch, XfrmPolicies, XfrmPolicy},
};
use crate::io::netns::{Namespace, connect, for_test};

fn namespace() -> Option<Namespace> {
    for_test("netlink")
}

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

fn block(direction: Direction, source: &str, destination: &str) -> XfrmPolicy {
    XfrmPolicy {
        direction,
        source: net(source),
        destination: net(destination),
        protocol: 0,
        source_port: PortMatch::default(),
        destination_port: PortMatch::default(),
        mark: None,
        priority: 1000,
        allow: false,
    }
}

#[test]
fn routes_come_back_as_they_were_added_and_go_when_removed() {
    let Some(namespace) = namespace() else { return };
    namespace.run(|| {
        let mut routing = Routing::open().unwrap();
        let index = link_index("lo").unwrap().unwrap();
        let device = |source: &str| RouteAction::Device {
            index,
            source: Some(source.parse().unwrap()),
        };
        let route = |to, metric, action| Route {
            to: net(to),
            table: 4500,
            metric,
            action,
        };
        let mut wanted = vec![
            route("10.2.0.0/24", 100, device("127.0.0.1")),
            route("10.2.0.0/24", u32::MAX, RouteAction::Unreachable),
            route("10.2.0.128/25", 100, RouteAction::Throw),
            route("0.0.0.0/0", u32::MAX, RouteAction::Unreachable),
            route("2001:db8:2::/64", 100, device("::1")),
            route("2001:db8:2::/64", u32::MAX, RouteAction::Unreachable),
            route("2001:db8:2:0:1::/80", 100, RouteAction::Throw),
        ];
        for route in &wanted {
            routing.add_route(route).unwrap();
            routing.add_route(route).unwrap();
        }
        let mut found = routing.routes(4500).unwrap();
        wanted.sort();
        found.sort();
        assert_eq!(found, wanted);
        assert!(routing.routes(4501).unwrap().is_empty());
        for route in &wanted {
            routing.remove_route(route).unwrap();
            routing.remove_route(route).unwrap();
        }
        assert!(routing.routes(4500).unwrap().is_empty());
    });
}

#[test]
fn only_our_own_rules_are_listed_and_removed() {
    let Some(namespace) = namespace() else { return };
    namespace.run(|| {
        let mut routing = Routing::open().unwrap();
        assert!(routing.rules().unwrap().is_empty());
        for ipv6 in [false, true] {
            let mut rule = Rule::new(ipv6, 4500, RuleAction::Table(4500));
            rule.mark = Some(0x4c47);
            rule.invert = true;
            routing.add_rule(&rule).unwrap();
            let mut rule = Rule::new(ipv6, 4490, RuleAction::Goto(4500));
            rule.from_device = Some("ipsec0".to_owned());
            rule.protocol = Some(17);
            rule.destination_ports = Some((53, 53));
            routing.add_rule(&rule).unwrap();
            routing
                .add_rule(&Rule::new(ipv6, 4501, RuleAction::Nop))
                .unwrap();
        }
        let listed = routing.rules().unwrap();
        assert_eq!(listed.len(), 6);
        for rule in listed {
            routing.remove_rule(rule).unwrap();
        }
        assert!(routing.rules().unwrap().is_empty());
        let rules = Command::new("ip").arg("rule").output().unwrap();
        assert_eq!(String::from_utf8_lossy(&rules.stdout).lines().count(), 3);
    });
}

#[test]
fn a_block_policy_stops_clear_text_and_an_allow_policy_before_it_lets_it_pass() {
    let Some(namespace) = namespace() else { return };
    namespace
        .add_address("lo", net("10.1.0.1/24"))
        .expect("lo takes addresses");
    namespace
        .sysctl("ipv4/conf/lo/disable_xfrm", "0")
        .expect("namespaces own their switches");
    namespace.run(|| {
        let mut policies = XfrmPolicies::open().unwrap();
        let blocked = block(Direction::Out, "10.1.0.0/24", "10.1.0.0/24");
        policies.replace(&[blocked]).unwrap();
        let socket = UdpSocket::bind("10.1.0.1:0").unwrap();
        let refused = socket.send_to(b"x", "10.1.0.1:53").unwrap_err();
        assert_eq!(refused.raw_os_error(), Some(libc::EPERM));

        let allowed = XfrmPolicy {
            protocol: 17,
            destination_port: PortMatch {
                value: 53,
                mask: 0xffff,
            },
            priority: 999,
            allow: true,
            ..blocked
        };
        policies.replace(&[blocked, allowed]).unwrap();
        socket.send_to(b"x", "10.1.0.1:53").unwrap();
        assert!(socket.send_to(b"x", "10.1.0.1:54").is_err());
        policies.replace(&[]).unwrap();
        socket.send_to(b"x", "10.1.0.1:54").unwrap();
    });
}

#[test]
fn replacing_policies_touches_only_what_differs_and_never_those_of_others() {
    let Some(namespace) = namespace() else { return };
    namespace.run(|| {
        let foreign = "xfrm policy add src 10.9.0.0/24 dst 10.8.0.0/24 dir out action block";
        ip(foreign).unwrap();
        let mut policies = XfrmPolicies::open().unwrap();
        let a = block(Direction::Out, "10.1.0.0/24", "10.2.0.0/24");
        let b = block(Direction::In, "10.2.0.0/24", "10.1.0.0/24");
        let c = block(Direction::Forward, "2001:db8::/64", "2001:db8:1::/64");
        assert_eq!(policies.replace(&[a, b]).unwrap(), 2);
        assert_eq!(policies.replace(&[b, c]).unwrap(), 2);
        let marked = XfrmPolicy {
            mark: Some(8),
            allow: true,
            ..c
        };
        assert_eq!(policies.replace(&[b, c, marked]).unwrap(), 1);
        assert_eq!(policies.list().unwrap().len(), 3);
        assert_eq!(policies.replace(&[b, c]).unwrap(), 1);
        let reranked = XfrmPolicy { priority: 7, ..b };
        assert_eq!(policies.replace(&[reranked, c]).unwrap(), 1);
        let mut left: Vec<_> = policies.list().unwrap();
        left.sort_by_key(|(_, policy)| policy.direction);
        assert_eq!(
            left.iter().map(|(_, p)| *p).collect::<Vec<_>>(),
            [reranked, c]
        );

        let taken = block(Direction::Out, "10.9.0.0/24", "10.8.0.0/24");
        let refused = policies.replace(&[taken]).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::AlreadyExists);
        policies.replace(&[]).unwrap();
        assert!(ip("xfrm policy").unwrap().contains("10.9.0.0/24"));
    });
}

/// What comes with the mark is what comes by the device, and only as long as the table has an owner.
#[test]
fn packets_of_one_device_are_marked_while_the_table_has_its_owner_whatever_others_mark() {
    let Some(namespace) = namespace() else { return };
    let far = Namespace::new("netlink-far").unwrap();
    connect((&namespace, "tun"), (&far, "tun"), 1500).unwrap();
    for (side, address) in [(&namespace, "fd00::1/64"), (&far, "fd00::2/64")] {
        side.add_address("tun", net(address)).unwrap();
    }
    let assert_hears = |heard: bool| {
        let server = namespace.run(|| UdpSocket::bind("[fd00::1]:9")).unwrap();
        let client = far.run(|| UdpSocket::bind("[::]:0")).unwrap();
        let patience = Some(Duration::from_millis(20));
        server.set_read_timeout(patience).unwrap();
        let tries = if heard { 1000 } else { 10 };
        let hears = (0..tries).any(|_| {
            client.send_to(b"x", "[fd00::1]:9").unwrap();
            server.recv(&mut [0; 8]).is_ok()
        });
        assert_eq!(hears, heard);
    };
    assert_hears(true);
    let (index, mut marks) = namespace.run(|| {
        let mut policies = XfrmPolicies::open().unwrap();
        let blocked = XfrmPolicy {
            protocol: 17,
            ..block(Direction::In, "::/0", "::/0")
        };
        let allowed = XfrmPolicy {
            mark: Some(0x100),
            priority: 999,
            allow: true,
            ..blocked
        };
        policies.replace(&[blocked, allowed]).unwrap();
        let index = link_index("tun").unwrap().unwrap();
        (index, PacketMarks::open(0x100).unwrap())
    });
    assert_hears(false);
    let nft = |commands: &'static str| {
        let run = move || Command::new("nft").arg(commands).status();
        assert!(namespace.run(run).unwrap().success());
    };
    nft(
        "add table ip6 other; add chain ip6 other c { type filter hook prerouting priority 0; }; \
         add rule ip6 other c meta mark set 0x100",
    );
    assert_hears(false);
    nft("delete table ip6 other");
    marks.add_device(index + 1).unwrap();
    assert_hears(false);
    marks.add_device(index).unwrap();
    assert_hears(true);
    drop(marks);
    assert_hears(false);
}

/// For IPv4 the kernel sets them on `lo` by itself, and the guard on the tunnel device.
#[test]
fn switches_that_void_policies_are_found_on_lo_and_on_the_tunnel_device_for_ipv6() {
    let Some(namespace) = namespace() else { return };
    namespace
        .sysctl("ipv4/conf/lo/disable_policy", "1")
        .unwrap();
    let find = || namespace.run(|| sysctl::void_xfrm("lo"));
    assert!(find().is_empty());
    namespace
        .sysctl("ipv6/conf/lo/disable_policy", "1")
        .unwrap();
    assert_eq!(find(), ["net.ipv6.conf.lo.disable_policy"]);
}

fn ip(arguments: &str) -> io::Result<String> {
    let output = Command::new("ip")
        .args(arguments.split_whitespace())
        .output()?;
    assert!(output.status.success(), "{output:?}");
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
