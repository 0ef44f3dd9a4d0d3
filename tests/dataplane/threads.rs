//! Two whole data planes in two network namespaces: threads, TUN, sockets.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket as PlainSocket};
use std::thread;
use std::time::{Duration, Instant};

use lockgate::dataplane::WorkerSnapshot;
use lockgate::io::netns::{Namespace, connect, link_index};
use lockgate::io::offload::Offloads;
use lockgate::io::udp::SocketOptions;
use lockgate::ipsec::{ChildId, DropReason, EspEncap, SaEvent, SaUpdate, WorkerId};

use crate::gateway::{CHILD, REQID, Tunnel};
use crate::sites::{Setup, Site, add_address};
use crate::support::{eventually, may_build_a_lab};

pub(crate) const WORKERS: u16 = 2;

/// A tunnel and its two sites; none where no lab can be built.
fn sites_of_two_workers() -> Option<(Tunnel, Site, Site)> {
    let tunnel = Tunnel {
        workers: WORKERS,
        ..Tunnel::default()
    };
    let (a, b) = may_build_a_lab().then(|| sites(&tunnel))?;
    Some((tunnel, a, b))
}

/// Two sites that reach each other, without SAs and with all offloads.
fn sites(tunnel: &Tunnel) -> (Site, Site) {
    sites_with(
        tunnel,
        SocketOptions {
            offloads: Offloads::ALL,
            ..SocketOptions::default()
        },
    )
}

/// Two sites whose sockets have these options, and whose TUN has the same offloads.
pub(crate) fn sites_with(tunnel: &Tunnel, options: SocketOptions) -> (Site, Site) {
    sites_that_spin(tunnel, options, Duration::ZERO)
}

/// Two sites whose workers look for packets that long before they sleep.
pub(crate) fn sites_that_spin(
    tunnel: &Tunnel,
    options: SocketOptions,
    spin: Duration,
) -> (Site, Site) {
    let (a, b) = ["gw-a", "gw-b"]
        .map(|name| Namespace::new(name).expect("a namespace"))
        .into();
    connect((&a, "wire"), (&b, "wire"), 1500).expect("a link");
    // Each has its own address and a second one that makes the peer's network a neighbour, so
    // packets arrive only if the source address is the one that was asked for.
    let outer = [
        (
            &a,
            [
                "192.0.2.1/24",
                "198.51.100.9/24",
                "2001:db8:1::a/64",
                "2001:db8:2::99/64",
            ],
        ),
        (
            &b,
            [
                "198.51.100.1/24",
                "192.0.2.9/24",
                "2001:db8:2::b/64",
                "2001:db8:1::99/64",
            ],
        ),
    ];
    for (space, addresses) in outer {
        for address in addresses {
            add_address(space, "wire", address);
        }
    }
    let [spd_a, spd_b] = tunnel.policies();
    // 10.0.0.0/14 and 2001:db8:a::/47 are both sites.
    let setup = Setup {
        workers: WORKERS,
        options,
        spin,
    };
    let inner = ["10.1.1.1/14", "2001:db8:a::1:1/47"];
    let a = Site::start(a, spd_a, inner, setup.clone());
    let inner = ["10.2.1.1/14", "2001:db8:b::1:1/47"];
    let b = Site::start(b, spd_b, inner, setup);
    (a, b)
}

pub(crate) fn give_sas(tunnel: &Tunnel, a: &mut Site, b: &mut Site, generation: u32) {
    let [for_a, for_b] = tunnel.updates(generation);
    for (site, updates) in [(b, for_b), (a, for_a)] {
        updates
            .into_iter()
            .for_each(|update| site.handle.apply(update));
        let epoch = site.handle.barrier();
        assert!(
            site.handle.wait_for(epoch, Duration::from_secs(10)),
            "the barrier is passed"
        );
    }
}

#[test]
fn tcp_and_udp_pass_between_two_sites_in_every_mix() {
    if !may_build_a_lab() {
        return;
    }
    for encap in [EspEncap::Udp, EspEncap::None] {
        for (inner_v6, outer_v6) in [(false, false), (false, true), (true, false), (true, true)] {
            let tunnel = Tunnel {
                inner_v6,
                outer_v6,
                encap,
                workers: WORKERS,
                owner: 1,
                ..Tunnel::default()
            };
            let (mut a, mut b) = sites(&tunnel);
            give_sas(&tunnel, &mut a, &mut b, 0);
            echo(&tunnel, &a, &b);
            bulk(&tunnel, &a, &b);
            a.handle.shutdown();
            b.handle.shutdown();
            let (sent, received) = (a.handle.stats().total(), b.handle.stats().total());
            assert_eq!(sent.outbound.packets, received.inbound.packets, "{encap:?}");
            assert_eq!(sent.outbound.bytes, received.inbound.bytes);
            let lost = received.drops.iter().sum::<u64>();
            assert_eq!(lost, 0, "{received:?}");
        }
    }
}

#[test]
fn a_rekey_under_traffic_loses_nothing_and_every_key_comes_back() {
    if !may_build_a_lab() {
        return;
    }
    let tunnel = Tunnel {
        workers: WORKERS,
        owner: 1,
        ..Tunnel::default()
    };
    let (mut a, mut b) = sites(&tunnel);
    give_sas(&tunnel, &mut a, &mut b, 0);
    for generation in 1..6 {
        echo(&tunnel, &a, &b);
        give_sas(&tunnel, &mut a, &mut b, generation);
        echo(&tunnel, &a, &b);
    }
    for site in [&mut a, &mut b] {
        for generation in 0..5 {
            let child = ChildId(CHILD.0 + generation);
            site.handle.apply(SaUpdate::RemoveOutbound {
                child,
                reqid: REQID,
                owner: WorkerId(1),
            });
        }
        let mut retired = 0;
        eventually("all retired SAs are back", || {
            while let Some(event) = site.handle.poll_event() {
                retired += usize::from(matches!(event, SaEvent::RetiredOutbound(_)));
            }
            (retired == 5).then_some(())
        });
    }
    echo(&tunnel, &a, &b);
}

#[test]
fn idle_workers_end_as_soon_as_they_are_told() {
    let Some((_, mut a, _b)) = sites_of_two_workers() else {
        return;
    };
    thread::sleep(Duration::from_millis(100));
    let start = Instant::now();
    a.handle.shutdown();
    // Without a wake-up they would sleep for half a minute.
    assert!(start.elapsed() < Duration::from_secs(5));
    assert!(
        a.space.run(|| link_index("ipsec0")).is_err(),
        "the TUN went with them"
    );
}

#[test]
fn a_tun_that_was_deleted_is_not_read_without_end() {
    let Some((_, mut a, _b)) = sites_of_two_workers() else {
        return;
    };
    let mut command = std::process::Command::new("ip");
    command.args(["link", "delete", "ipsec0"]);
    let Ok(mut deletion) = a.space.spawn(command) else {
        return crate::support::skip("needs ip");
    };
    assert!(deletion.wait().expect("waited for").success());
    eventually("the failure is noticed", || {
        let noticed = |worker: &WorkerSnapshot| worker.read_errors > 0;
        let stats = a.handle.stats();
        stats.workers.iter().all(noticed).then_some(())
    });
    thread::sleep(Duration::from_millis(300));
    let before = a.handle.stats().total();
    thread::sleep(Duration::from_millis(300));
    let after = a.handle.stats().total();
    assert!(after.calls - before.calls < 20, "{before:?} {after:?}");
    assert!(after.read_errors < 100, "{after:?}");
    a.handle.shutdown();
}

#[test]
fn no_update_and_no_retired_sa_is_lost_however_many_there_are() {
    const GENERATIONS: u32 = 3000;
    let Some((tunnel, mut a, _b)) = sites_of_two_workers() else {
        return;
    };
    for generation in 0..GENERATIONS {
        let [updates, _] = tunnel.updates(generation);
        updates
            .into_iter()
            .for_each(|update| a.handle.apply(update));
    }
    for generation in 0..GENERATIONS {
        let owner = WorkerId(tunnel.owner);
        let spi = tunnel.inbound_spi_of_a(generation);
        a.handle.apply(SaUpdate::RemoveInbound { spi, owner });
        a.handle.apply(SaUpdate::RemoveOutbound {
            child: ChildId(CHILD.0 + u64::from(generation)),
            reqid: REQID,
            owner,
        });
    }
    let epoch = a.handle.barrier();
    let (mut inbound, mut outbound) = (0, 0);
    eventually("all retired SAs are back", || {
        while let Some(event) = a.handle.poll_event() {
            inbound += u32::from(matches!(event, SaEvent::RetiredInbound(_)));
            outbound += u32::from(matches!(event, SaEvent::RetiredOutbound(_)));
        }
        (a.handle.has_passed(epoch) && inbound + outbound == 2 * GENERATIONS).then_some(())
    });
    assert_eq!((inbound, outbound), (GENERATIONS, GENERATIONS));
    assert!(a.handle.flush());
}

#[test]
fn a_packet_without_an_sa_asks_for_one() {
    let Some((tunnel, mut a, _b)) = sites_of_two_workers() else {
        return;
    };
    let from = tunnel.host_a(1, 0);
    let to = tunnel.host_b(1, 7);
    let socket = a.space.run(move || PlainSocket::bind(from)).expect("bound");
    socket.send_to(b"anyone?", to).expect("sent");
    let flow = eventually("an acquire comes", || {
        while let Some(event) = a.handle.poll_event() {
            if let SaEvent::Acquire {
                reqid: REQID, flow, ..
            } = event
            {
                return Some(flow);
            }
        }
        None
    });
    assert_eq!(
        (flow.src, flow.dst, flow.protocol),
        (from.ip(), to.ip(), 17)
    );
}

#[test]
fn a_narrow_path_is_discovered_and_the_sender_is_told() {
    if !may_build_a_lab() {
        return;
    }
    let tunnel = Tunnel {
        workers: WORKERS,
        path_mtu: 1500,
        ..Tunnel::default()
    };
    let (mut a, mut b) = sites(&tunnel);
    give_sas(&tunnel, &mut a, &mut b, 0);
    a.space.set_mtu("wire", 1300).expect("set");
    b.space.set_mtu("wire", 1300).expect("set");
    // The SA believes in 1500; the first large segments meet EMSGSIZE and teach it better.
    bulk(&tunnel, &a, &b);
    let stats = a.handle.stats().total();
    assert!(stats.dropped(DropReason::TooBig) > 0, "{stats:?}");
}

/// Ten datagrams there and back, one after the other.
pub(crate) fn echo(tunnel: &Tunnel, a: &Site, b: &Site) {
    let (here, there) = (tunnel.host_a(1, 0), tunnel.host_b(1, 0));
    let near = a.space.run(move || PlainSocket::bind(here)).expect("bound");
    let far = b
        .space
        .run(move || PlainSocket::bind(there))
        .expect("bound");
    for socket in [&near, &far] {
        socket
            .set_read_timeout(Some(Duration::from_secs(10)))
            .expect("set");
    }
    let mut buffer = [0; 2048];
    for number in 0..10 {
        let payload = vec![number; 100 * usize::from(number)];
        near.send_to(&payload, far.local_addr().expect("bound"))
            .expect("sent");
        let (length, from) = far.recv_from(&mut buffer).expect("arrived");
        assert_eq!(buffer[..length], payload);
        far.send_to(&payload, from).expect("sent");
        let (length, _) = near.recv_from(&mut buffer).expect("came back");
        assert_eq!(buffer[..length], payload);
    }
}

/// A megabyte over TCP, checked byte by byte.
pub(crate) fn bulk(tunnel: &Tunnel, a: &Site, b: &Site) {
    let (here, there) = (tunnel.host_a(1, 0), tunnel.host_b(1, 0));
    let listener = b
        .space
        .run(move || TcpListener::bind(there))
        .expect("bound");
    let to = listener.local_addr().expect("bound");
    let data: Vec<u8> = (0..1 << 20).map(|n: u32| n.to_le_bytes()[1]).collect();
    let expected = data.clone();
    let receiver = thread::spawn(move || {
        let (mut stream, from) = listener.accept().expect("a connection");
        let mut got = Vec::new();
        stream.read_to_end(&mut got).expect("read");
        (got == expected, from.ip())
    });
    let sender = a.space.thread(move || {
        let mut stream = TcpStream::connect(to).expect("connected");
        stream.write_all(&data).expect("written");
    });
    sender
        .expect("a thread")
        .join()
        .expect("no panic")
        .expect("in the namespace");
    assert_eq!(receiver.join().expect("no panic"), (true, here.ip()));
}
