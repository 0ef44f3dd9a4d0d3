//! The sockets and the TUN, each for itself.

use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, UdpSocket as PlainSocket};
use std::num::NonZeroU16;
use std::time::Duration;

use lockgate::io::burst::{ReceiveBurst, Transmit, TransmitBurst};
use lockgate::io::netlink::routing::{Routing, Rule, RuleAction};
use lockgate::io::netlink::xfrm::{Direction, PortMatch, XfrmPolicies, XfrmPolicy};
use lockgate::io::netns::Namespace;
use lockgate::io::offload::Offloads;
use lockgate::io::raw::RawSocket;
use lockgate::io::tun::{Tun, TunBuffer};
use lockgate::io::udp::{SendReport, SocketOptions, UdpGroup, UdpSocket, path_mtu};

use crate::packets;
use crate::support::{eventually, link, may_build_a_lab, skip};

/// A datagram as it was received.
#[derive(Debug, PartialEq, Eq)]
struct Got {
    bytes: Vec<u8>,
    remote: SocketAddr,
    local: IpAddr,
    tos: u8,
}

const UNPRIVILEGED: SocketOptions = SocketOptions {
    mark: None,
    receive_buffer: 1 << 20,
    send_buffer: 1 << 20,
    past_xfrm: false,
    offloads: Offloads::NONE,
};

#[test]
fn ike_goes_to_the_control_socket_and_esp_to_the_worker_of_its_spi() {
    for any in ["127.0.0.1:0", "[::1]:0"] {
        let workers = NonZeroU16::new(3).expect("not zero");
        let local = any.parse().expect("literal");
        let Some(group) = UdpGroup::bind(local, workers, &UNPRIVILEGED).expect("bound") else {
            return skip("needs IPv6");
        };
        let to = group.control.local_addr();
        let sender = PlainSocket::bind(local).expect("bound");
        let mut members = vec![group.control];
        members.extend(group.workers);
        for (payload, member) in [
            (vec![0, 0, 0, 0, 1, 2, 3, 4], 0),
            (vec![0xff], 0),
            (vec![1, 2, 3], 0),
            (vec![], 0),
            (3000_u32.to_be_bytes().to_vec(), 1),
            (3001_u32.to_be_bytes().to_vec(), 2),
            ([&3002_u32.to_be_bytes()[..], &[0; 1400]].concat(), 3),
            (u32::MAX.to_be_bytes().to_vec(), 1),
        ] {
            sender.send_to(&payload, to).expect("sent");
            let got = eventually("a member has it", || {
                let found = members.iter_mut().enumerate().find_map(|(number, member)| {
                    Some((number, receive(|burst| member.recv_burst(burst)).pop()?))
                });
                found.map(|(number, got)| (number, got.bytes))
            });
            assert_eq!(got, (member, payload));
        }
    }
}

#[test]
fn a_port_that_another_group_has_is_refused() {
    let workers = NonZeroU16::new(2).expect("not zero");
    let any = "127.0.0.1:0".parse().expect("literal");
    let first = UdpGroup::bind(any, workers, &UNPRIVILEGED)
        .expect("bound")
        .expect("IPv4");
    let taken = first.control.local_addr();
    let error = UdpGroup::bind(taken, workers, &UNPRIVILEGED).expect_err("refused");
    assert_eq!(error.kind(), ErrorKind::AddrInUse);
    drop(first);
    assert!(UdpGroup::bind(taken, workers, &UNPRIVILEGED).is_ok());
}

#[test]
fn a_system_without_ipv6_addresses_is_served_over_ipv4() {
    if !may_build_a_lab() {
        return;
    }
    let lab = Namespace::new("v4").expect("a namespace");
    if let Err(error) = lab.sysctl("ipv6/conf/all/disable_ipv6", "1") {
        return skip(&format!("needs a writable /proc/sys/net: {error}"));
    }
    lab.run(|| {
        let workers = NonZeroU16::new(2).expect("not zero");
        let options = SocketOptions::default();
        for (text, present) in [
            ("0.0.0.0:4500", Some(true)),
            ("[::]:4500", None),
            ("[::1]:4500", Some(false)),
        ] {
            let group = UdpGroup::bind(text.parse().expect("literal"), workers, &options);
            let group = group.expect("no error");
            assert!(
                present.is_none_or(|present| group.is_some() == present),
                "{text}"
            );
        }
        for ipv6 in [false, true] {
            RawSocket::open(ipv6, 0, workers, &options).expect("no error");
        }
    });
}

#[test]
fn a_datagram_leaves_from_the_address_and_with_the_class_it_was_given() {
    let cases = [
        ("0.0.0.0:0", "127.0.0.5", "127.0.0.9"),
        ("[::]:0", "::1", "::1"),
    ];
    for (any, from, to) in cases {
        let any = any.parse().expect("literal");
        let sender = UdpSocket::bind(any, &UNPRIVILEGED).expect("bound");
        let receiver = UdpSocket::bind(any, &UNPRIVILEGED).expect("bound");
        let (Some(mut sender), Some(mut receiver)) = (sender, receiver) else {
            return skip("needs IPv6");
        };
        let from: IpAddr = from.parse().expect("literal");
        let to: IpAddr = to.parse().expect("literal");
        let remote = SocketAddr::new(to, receiver.local_addr().port());
        let mut burst = TransmitBurst::new();
        for (tos, df) in [(0xb9, true), (0x02, false), (0x00, true)] {
            push(&mut burst, from, remote, tos, df, &[tos; 9]);
        }
        let report = sender.send_burst(&mut burst);
        assert_eq!((report.sent, report.failed()), (3, 0));
        assert!(burst.is_empty());
        let got = collect(3, || receive(|burst| receiver.recv_burst(burst)));
        for (got, tos) in got.iter().zip([0xb9, 0x02, 0x00]) {
            let expected = Got {
                bytes: vec![tos; 9],
                remote: SocketAddr::new(from, sender.local_addr().port()),
                local: to,
                tos,
            };
            assert_eq!(*got, expected);
        }
        let nothing = receiver.recv_burst(&mut ReceiveBurst::new(1));
        assert_eq!(nothing.expect_err("empty").kind(), ErrorKind::WouldBlock);
    }
}

#[test]
fn the_path_mtu_is_that_of_packets_with_the_same_mark() {
    if !may_build_a_lab() {
        return;
    }
    let (here, _there) = link::pair();
    here.run(|| {
        let mut rule = Rule::new(false, 100, RuleAction::Prohibit);
        rule.mark = Some(0x77);
        let mut routing = Routing::open().expect("netlink");
        routing.add_rule(&rule).expect("added");
        let peer = SocketAddr::new(link::address("192.0.2.2"), 4500);
        let known = |mark| path_mtu(link::address("192.0.2.1"), peer, Some(mark)).ok();
        assert!(known(0x78).is_some());
        assert_eq!(known(0x77), None);
    });
}

#[test]
fn a_datagram_that_cannot_be_sent_is_counted_and_does_not_stop_the_burst() {
    if !may_build_a_lab() {
        return;
    }
    let (here, there) = link::pair();
    let (report, report_df_off, mtu) = here.run(|| {
        let any = "0.0.0.0:0".parse().expect("literal");
        let socket = UdpSocket::bind(any, &SocketOptions::default()).expect("bound");
        let mut socket = socket.expect("IPv4");
        let local = link::address("192.0.2.1");
        let peer = SocketAddr::new(link::address("192.0.2.2"), 9);
        let nowhere = SocketAddr::new(link::address("203.0.113.1"), 9);
        let mut burst = TransmitBurst::new();
        push(&mut burst, local, peer, 0, true, &[1; 100]);
        push(&mut burst, local, peer, 0, true, &[2; 1300]);
        push(&mut burst, local, nowhere, 0, true, &[3; 100]);
        push(
            &mut burst,
            link::address("203.0.113.9"),
            peer,
            0,
            true,
            &[4; 100],
        );
        push(&mut burst, local, peer, 0, true, &[5; 1372]);
        push(&mut burst, local, peer, 0, true, &[6; 1373]);
        push(&mut burst, local, peer, 0, true, &[7; 100]);
        let report = socket.send_burst(&mut burst);
        push(&mut burst, local, peer, 0, false, &[8; 1373]);
        push(&mut burst, local, peer, 0, false, &[9; 9000]);
        let report_df_off = socket.send_burst(&mut burst);
        (
            report,
            report_df_off,
            path_mtu(local, peer, None).expect("a route"),
        )
    });
    let path = (
        link::address("192.0.2.1"),
        SocketAddr::new(link::address("192.0.2.2"), 9),
    );
    let expected = SendReport {
        sent: 4,
        too_big: 1,
        unreachable: 2,
        too_big_paths: [Some(path), None, None, None],
        calls: report.calls,
        ..SendReport::default()
    };
    assert_eq!(report, expected);
    assert_eq!((report_df_off.sent, report_df_off.failed()), (2, 0));
    assert_eq!(mtu, 1400);
    drop(there);
}

#[test]
fn raw_esp_reaches_the_worker_of_its_spi_without_its_ip_header() {
    if !may_build_a_lab() {
        return;
    }
    let lab = Namespace::new("raw").expect("a namespace");
    for (ipv6, loopback) in [(false, "127.0.0.1"), (true, "::1")] {
        lab.run(move || {
            let workers = NonZeroU16::new(2).expect("not zero");
            let open = |worker| RawSocket::open(ipv6, worker, workers, &SocketOptions::default());
            let mut sockets = Vec::new();
            for worker in 0..2 {
                sockets.push(open(worker).expect("opened").expect("both families"));
            }
            let local = link::address(loopback);
            let mut burst = TransmitBurst::new();
            for spi in [0x0100_0000_u32, 0x0100_0001, 0x0100_0003] {
                let esp = [&spi.to_be_bytes()[..], &[0x5a; 60]].concat();
                push(
                    &mut burst,
                    local,
                    SocketAddr::new(local, 0),
                    0x2e,
                    true,
                    &esp,
                );
            }
            let [even, odd] = sockets.as_mut_slice() else {
                panic!("two sockets");
            };
            assert_eq!(odd.send_burst(&mut burst).sent, 3);
            let first = collect(1, || receive(|burst| even.recv_burst(burst)));
            let second = collect(2, || receive(|burst| odd.recv_burst(burst)));
            let heads = |got: &[Got]| got.iter().map(|got| got.bytes[3]).collect::<Vec<_>>();
            assert_eq!((heads(&first), heads(&second)), (vec![0], vec![1, 3]));
            for got in first.iter().chain(&second) {
                assert_eq!((got.bytes.len(), got.tos), (64, 0x2e));
                assert_eq!((got.local, got.remote), (local, SocketAddr::new(local, 0)));
            }
        });
    }
}

#[test]
fn our_own_packets_pass_the_guard_that_blocks_everything_else() {
    if !may_build_a_lab() {
        return;
    }
    let (here, there) = link::pair();
    let far = there
        .run(|| PlainSocket::bind("192.0.2.2:9"))
        .expect("bound");
    let blocked = here.run(|| XfrmPolicies::open()?.replace(&guard()));
    if let Err(error) = blocked {
        return skip(&format!("needs XFRM policies: {error}"));
    }
    let (mut socket, plain) = here.run(|| {
        let any = "0.0.0.0:0".parse().expect("literal");
        let socket = UdpSocket::bind(any, &SocketOptions::default()).expect("bound");
        (
            socket.expect("IPv4"),
            PlainSocket::bind("192.0.2.1:0").expect("bound"),
        )
    });
    let to = far.local_addr().expect("bound");
    assert!(plain.send_to(b"in clear", to).is_err());

    let mut burst = TransmitBurst::new();
    push(
        &mut burst,
        link::address("192.0.2.1"),
        to,
        0,
        true,
        b"sealed",
    );
    assert_eq!(socket.send_burst(&mut burst).sent, 1);
    let mut buffer = [0; 64];
    far.set_read_timeout(Some(Duration::from_secs(10)))
        .expect("set");
    let (length, from) = far.recv_from(&mut buffer).expect("arrived");
    assert_eq!(&buffer[..length], b"sealed");

    let plain_address = plain.local_addr().expect("bound");
    far.send_to(b"in clear", plain_address).expect("sent");
    far.send_to(b"sealed", from).expect("sent");
    let got = collect(1, || receive(|burst| socket.recv_burst(burst)));
    assert_eq!(got[0].bytes, b"sealed");
    plain.set_nonblocking(true).expect("set");
    assert!(plain.recv_from(&mut buffer).is_err(), "blocked on arrival");
}

/// Blocks all that the two ends of the link send to each other.
fn guard() -> [XfrmPolicy; 2] {
    let net = |text: &str| text.parse().expect("literal");
    [
        (Direction::Out, "192.0.2.1/32", "192.0.2.2/32"),
        (Direction::In, "192.0.2.2/32", "192.0.2.1/32"),
    ]
    .map(|(direction, source, destination)| XfrmPolicy {
        direction,
        source: net(source),
        destination: net(destination),
        protocol: 0,
        source_port: PortMatch::default(),
        destination_port: PortMatch::default(),
        mark: None,
        priority: 100,
        allow: false,
    })
}

#[test]
fn a_tun_reads_what_is_routed_into_it_and_delivers_what_is_written() {
    if !may_build_a_lab() {
        return;
    }
    let lab = Namespace::new("tun").expect("a namespace");
    let (tun, mut queues) = lab
        .run(|| Tun::create("tun%d", 2, 1400, Offloads::NONE))
        .expect("a TUN");
    assert_eq!((tun.name(), queues.len()), ("tun0", 2));
    lab.add_address("tun0", "10.1.0.1/8".parse().expect("literal"))
        .expect("an address");
    let socket = lab
        .run(|| PlainSocket::bind("10.1.0.1:5000"))
        .expect("bound");

    let far: SocketAddr = "10.2.0.2:6000".parse().expect("literal");
    socket.send_to(b"ping", far).expect("sent");
    let mut buffer = TunBuffer::new();
    let packet = eventually("the packet is read", || {
        queues.iter_mut().find_map(|queue| {
            let (header, packet) = queue.read(&mut buffer).ok()?;
            let is_udp = packet.get(9) == Some(&17);
            is_udp.then(|| (header, packet.to_vec()))
        })
    });
    let near = "10.1.0.1:5000".parse().expect("literal");
    let expected = packets::udp(near, far, b"ping", true);
    assert_eq!(packet.0, lockgate::wire::vnet::VnetHeader::default());
    assert_eq!(packet.1[12..], expected[12..], "checksums are complete");

    let answer = packets::udp(far, near, b"pong", false);
    queues[1].write(&answer).expect("written");
    socket
        .set_read_timeout(Some(Duration::from_secs(10)))
        .expect("set");
    let mut buffer = [0; 16];
    let (length, from) = socket.recv_from(&mut buffer).expect("an answer");
    assert_eq!((&buffer[..length], from), (&b"pong"[..], far));
    assert!(queues[0].write(&[0xf0; 40]).is_err(), "not IP");
}

#[test]
fn a_name_that_no_link_can_have_is_refused() {
    for name in ["", "a-name-of-16-byte", "a/b", "nul\0"] {
        let error = Tun::create(name, 1, 1400, Offloads::NONE).expect_err("refused");
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{name:?}");
    }
}

fn push(
    burst: &mut TransmitBurst,
    local: IpAddr,
    remote: SocketAddr,
    tos: u8,
    dont_fragment: bool,
    bytes: &[u8],
) {
    let transmit = Transmit {
        local,
        remote,
        tos,
        dont_fragment,
    };
    link::push(burst, transmit, bytes);
}

fn receive(recv: impl FnOnce(&mut ReceiveBurst) -> std::io::Result<usize>) -> Vec<Got> {
    let mut burst = ReceiveBurst::new(8);
    if recv(&mut burst).is_err() {
        return Vec::new();
    }
    burst
        .iter_mut()
        .map(|received| received.expect("whole and addressed"))
        .map(|received| Got {
            bytes: received.bytes.to_vec(),
            remote: received.remote,
            local: received.local,
            tos: received.tos,
        })
        .collect()
}

fn collect(count: usize, mut receive: impl FnMut() -> Vec<Got>) -> Vec<Got> {
    let mut all = Vec::new();
    eventually("all datagrams are there", || {
        all.extend(receive());
        (all.len() >= count).then_some(())
    });
    all
}
