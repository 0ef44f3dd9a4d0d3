use std::{net::UdpSocket, process::Command, sync::Arc, time::Duration};

use super::*;
use crate::{
    daemon::reach::tests::{PROTECT, spd},
    io::{
        netlink::link_index,
        netns::{Namespace, connect, for_test},
    },
    ipsec::Action,
};

const BOTH: Mirrored = Mirrored {
    ipv4: true,
    ipv6: true,
};

/// Those that mirror the SPD, without the exemptions before them.
fn policies(spd: &Spd) -> Vec<XfrmPolicy> {
    let mut policies = mirror(&reach::outbound(spd), BOTH);
    policies.retain(|policy| policy.priority > EXEMPT);
    policies
}

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

/// Outwards the mark that exempts the tunnel device would come too late.
#[test]
fn ipv6_is_blocked_inwards_and_through_where_packets_can_be_marked() {
    let spd = spd(&[
        ("10.1.0.0/24", "10.2.0.0/24", PROTECT),
        ("2001:db8:1::/64", "::/0", PROTECT),
    ]);
    let all = mirror(&reach::outbound(&spd), BOTH);
    let shown = shown(&all);
    assert_eq!(
        shown[..10],
        [
            "in 0.0.0.0/0 > 0.0.0.0/0 [1 3 4] allow",
            "in ::/0 > ::/0 allow",
            "fwd ::/0 > ::/0 allow",
            "in ::/0 > ::/0 [58 2 *] allow",
            "in ::/0 > ::/0 [58 133 *] allow",
            "in ::/0 > ::/0 [58 134 *] allow",
            "in ::/0 > ::/0 [58 135 *] allow",
            "in ::/0 > ::/0 [58 136 *] allow",
            "in ::/0 > ::/0 [58 137 *] allow",
            "in ::1/128 > ::1/128 allow",
        ]
    );
    assert_eq!(
        shown[13..],
        [
            "in fe80::/10 > 2001:db8:1::/64 allow",
            "in 2001:db8:1::/64 > 2001:db8:1::/64 allow",
            "fwd 2001:db8:1::/64 > 2001:db8:1::/64 allow",
            "in ::/0 > 2001:db8:1::/64 block",
            "fwd ::/0 > 2001:db8:1::/64 block",
        ]
    );
    let marked: Vec<_> = all.iter().map(|policy| policy.mark).collect();
    assert_eq!(marked[1..3], [Some(TUNNEL_MARK); 2]);
    assert!(marked[3..].iter().all(Option::is_none));

    let ipv4_only = Mirrored {
        ipv6: false,
        ..BOTH
    };
    let ipv4 = mirror(&reach::outbound(&spd), ipv4_only);
    assert_eq!(ipv4[0], all[0]);
    assert_eq!(ipv4[1..], all[10..13]);
}

#[test]
fn multicast_of_the_link_is_let_in_where_our_side_is_everything() {
    let spd = spd(&[("::/0", "::/0", PROTECT)]);
    assert_eq!(
        shown(&policies(&spd)),
        [
            "in fe80::/10 > ::/0 allow",
            "in ::/0 > ff00::/8 allow",
            "in ::/0 > ::/0 block",
            "fwd ::/0 > ::/0 block",
        ]
    );
}

#[test]
fn a_bypass_for_neighbour_discovery_is_one_policy_with_the_exemption() {
    let spd = spd(&[
        ("::/0[ipv6-icmp/34560-34815]", "::/0", Action::Bypass),
        ("fd00:1::/64", "fd00:2::/64", PROTECT),
    ]);
    let shown = shown(&mirror(&reach::outbound(&spd), BOTH));
    let discovery = |line: &&String| line.contains("[58 135 *]");
    let discovery: Vec<_> = shown.iter().filter(discovery).collect();
    assert_eq!(
        discovery,
        [
            "in ::/0 > ::/0 [58 135 *] allow",
            "fwd ::/0 > ::/0 [58 135 *] allow",
        ]
    );
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

/// A gateway with a tunnel device, an uplink and its own network, each a link to somebody else.
struct Gateway {
    own: Namespace,
    tunnel: Namespace,
    outside: Namespace,
    network: Namespace,
}

impl Gateway {
    fn new() -> Option<Self> {
        let own = for_test("guard")?;
        own.sysctl("ipv6/conf/all/forwarding", "1").unwrap();
        own.sysctl("ipv4/ip_forward", "1").unwrap();
        own.sysctl("ipv4/conf/all/rp_filter", "0").unwrap();
        own.sysctl("ipv4/conf/default/rp_filter", "0").unwrap();
        let other = |name: &str| Namespace::new(name).unwrap();
        let gateway = Self {
            own,
            tunnel: other("guard-tunnel"),
            outside: other("guard-outside"),
            network: other("guard-network"),
        };
        // Without an address of its own on a link the kernel finds no neighbours for what it forwards.
        for namespace in [
            &gateway.own,
            &gateway.tunnel,
            &gateway.outside,
            &gateway.network,
        ] {
            for of in ["all", "default"] {
                let detection = format!("ipv6/conf/{of}/accept_dad");
                namespace.sysctl(&detection, "0").unwrap();
            }
        }
        connect((&gateway.own, "lan"), (&gateway.network, "far"), 1500).unwrap();
        for [own, far] in [
            ["10.1.0.1/24", "10.1.0.10/24"],
            ["fd00:1::1/64", "fd00:1::10/64"],
        ] {
            let [own, far]: [IpNet; 2] = [own.parse().unwrap(), far.parse().unwrap()];
            gateway.own.add_address("lan", own).unwrap();
            gateway.network.add_address("far", far).unwrap();
        }
        gateway.plug("wan", &gateway.outside, ["192.0.2", "2001:db8:f"]);
        gateway.plug("ipsec0", &gateway.tunnel, ["198.51.100", "2001:db8:e"]);
        Some(gateway)
    }

    /// A link to somebody who sends as 10.2.0.10 and fd00:2::10.
    fn plug(&self, link: &str, far: &Namespace, [ipv4, ipv6]: [&str; 2]) {
        connect((&self.own, link), (far, "far"), 1500).unwrap();
        for [own, other, sender, everywhere] in [
            [
                format!("{ipv4}.1/24"),
                format!("{ipv4}.2/24"),
                "10.2.0.10/32".into(),
                "10.1.0.0/24".into(),
            ],
            [
                format!("{ipv6}::1/64"),
                format!("{ipv6}::2/64"),
                "fd00:2::10/128".into(),
                "fd00:1::/64".into(),
            ],
        ] {
            let [own, other, sender, everywhere] =
                [own, other, sender, everywhere].map(|net| net.parse::<IpNet>().unwrap());
            self.own.add_address(link, own).unwrap();
            far.add_address("far", other).unwrap();
            far.add_address("far", sender).unwrap();
            far.add_route(everywhere, own.addr()).unwrap();
        }
    }

    /// Asserts that somebody reaches these addresses of the gateway and of its network, and no others.
    #[track_caller]
    fn assert_reached(&self, from: &Namespace, expected: &[&str]) {
        for (to, target, source) in [
            (&self.own, "10.1.0.1", "10.2.0.10"),
            (&self.network, "10.1.0.10", "10.2.0.10"),
            (&self.own, "fd00:1::1", "fd00:2::10"),
            (&self.network, "fd00:1::10", "fd00:2::10"),
        ] {
            let server = to.run(move || UdpSocket::bind((target, 9))).unwrap();
            let client = from.run(move || UdpSocket::bind((source, 0))).unwrap();
            let patience = Some(Duration::from_millis(20));
            server.set_read_timeout(patience).unwrap();
            let is_expected = expected.contains(&target);
            let tries = if is_expected { 1000 } else { 10 };
            let is_reached = (0..tries).any(|_| {
                let _ = client.send_to(b"x", (target, 9));
                server.recv(&mut [0; 8]).is_ok()
            });
            assert_eq!(is_reached, is_expected, "{target}");
        }
    }

    fn ip(&self, arguments: &str) -> String {
        let mut command = Command::new("ip");
        command.args(arguments.split(' '));
        let output = self.own.run(move || command.output()).unwrap();
        assert!(output.status.success(), "ip {arguments}: {output:?}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    fn install(&self, spd: &Arc<Spd>) -> Guard {
        let spd = Arc::clone(spd);
        self.own
            .run(move || Guard::install(&spd, "ipsec0"))
            .unwrap()
    }

    fn exempt(&self, mut guard: Guard) -> Guard {
        self.own.run(move || {
            let index = link_index("ipsec0").unwrap().unwrap();
            guard.exempt("ipsec0", index).unwrap();
            guard
        })
    }
}

/// The tunnel device is a link to somebody here; the kernel treats it as it treats a TUN.
#[test]
fn the_kernel_lets_in_what_comes_by_the_tunnel_device_alone_whichever_that_is() {
    const ALL: [&str; 4] = ["10.1.0.1", "10.1.0.10", "fd00:1::1", "fd00:1::10"];
    let Some(gateway) = Gateway::new() else {
        return;
    };
    let spd = Arc::new(spd(&[
        ("10.1.0.0/24", "10.2.0.0/24", PROTECT),
        ("fd00:1::/64", "fd00:2::/64", PROTECT),
    ]));
    gateway.ip("-6 xfrm policy add src ::/0 dst fd00:99::/64 dir in action allow priority 5");
    let open = gateway.ip("xfrm policy");
    gateway.assert_reached(&gateway.outside, &ALL);
    gateway.assert_reached(&gateway.tunnel, &ALL);

    let guard = gateway.install(&spd);
    assert_eq!(guard.mirrored(), BOTH);
    gateway.assert_reached(&gateway.outside, &[]);
    gateway.assert_reached(&gateway.tunnel, &[]);
    let guard = gateway.exempt(guard);
    gateway.assert_reached(&gateway.outside, &[]);
    gateway.assert_reached(&gateway.tunnel, &ALL);

    // As after a crash: the device is gone, and so is the mark; one of the same name is nobody's yet.
    drop(guard);
    gateway.ip("link del ipsec0");
    gateway.plug("ipsec0", &gateway.tunnel, ["198.51.100", "2001:db8:e"]);
    gateway.assert_reached(&gateway.outside, &[]);
    gateway.assert_reached(&gateway.tunnel, &[]);
    let guard = gateway.install(&spd);
    gateway.assert_reached(&gateway.outside, &[]);
    let guard = gateway.exempt(guard);
    gateway.assert_reached(&gateway.outside, &[]);
    gateway.assert_reached(&gateway.tunnel, &ALL);

    gateway.own.run(|| guard.remove()).unwrap();
    assert_eq!(gateway.ip("xfrm policy"), open);
    gateway.assert_reached(&gateway.outside, &ALL);
}

/// The table of this process is somebody else's here.
#[test]
fn a_system_that_marks_packets_but_not_for_us_fails_the_start_and_nothing_is_left() {
    let Some(namespace) = for_test("guard") else {
        return;
    };
    namespace.run(|| {
        let _taken = PacketMarks::open(TUNNEL_MARK).unwrap();
        let spd = spd(&[
            ("10.1.0.0/24", "10.2.0.0/24", PROTECT),
            ("fd00:1::/64", "fd00:2::/64", PROTECT),
        ]);
        let failure = Guard::install(&spd, "ipsec0").unwrap_err();
        assert!(matches!(failure, GuardError::Marks(_)), "{failure}");
        let mut policies = XfrmPolicies::open().unwrap();
        assert!(policies.list().unwrap().is_empty());
    });
}

#[test]
fn only_what_a_kernel_without_nf_tables_answers_leaves_ipv6_to_the_routing() {
    let is = |code| is_unsupported(&io::Error::from_raw_os_error(code));
    assert!(is(libc::EOPNOTSUPP) && is(libc::EPROTONOSUPPORT) && is(libc::EINVAL));
    assert!(!is(libc::EPERM) && !is(libc::ENOMEM) && !is(libc::EINTR));
    assert!(!is_unsupported(&io::ErrorKind::InvalidData.into()));
}
