//! Whole data planes with each mix of offloads, and sockets that take no more.

use std::net::UdpSocket as PlainSocket;
use std::thread;
use std::time::Duration;

use lockgate::io::offload::Offloads;
use lockgate::io::udp::SocketOptions;

use crate::gateway::Tunnel;
use crate::sites::Site;
use crate::support::{eventually, may_build_a_lab};
use crate::threads::{WORKERS, bulk, echo, give_sas, sites_that_spin, sites_with};

fn options(offloads: Offloads) -> SocketOptions {
    SocketOptions {
        offloads,
        ..SocketOptions::default()
    }
}

fn without(edit: impl FnOnce(&mut Offloads)) -> Offloads {
    let mut offloads = Offloads::ALL;
    edit(&mut offloads);
    offloads
}

#[test]
fn tcp_and_udp_pass_with_all_offloads_and_with_each_of_them_off() {
    if !may_build_a_lab() {
        return;
    }
    let mixes = [
        Offloads::ALL,
        Offloads::NONE,
        without(|offloads| offloads.tun_tso = false),
        without(|offloads| offloads.tun_uso = false),
        without(|offloads| offloads.tun_gro = false),
        without(|offloads| offloads.udp_gso = false),
        without(|offloads| offloads.udp_gro = false),
    ];
    for offloads in mixes {
        for owner in 0..WORKERS {
            let tunnel = Tunnel {
                workers: WORKERS,
                owner,
                replay_window: 4096,
                ..Tunnel::default()
            };
            let (mut a, mut b) = sites_with(&tunnel, options(offloads));
            give_sas(&tunnel, &mut a, &mut b, 0);
            echo(&tunnel, &a, &b);
            bulk(&tunnel, &a, &b);
            a.handle.shutdown();
            b.handle.shutdown();
            judge(offloads, &a, &b);
        }
    }
}

/// Nothing was lost on the way, and only the offloads that are on were used.
fn judge(wanted: Offloads, a: &Site, b: &Site) {
    let (sent, received) = (a.handle.stats().total(), b.handle.stats().total());
    assert_eq!(sent.outbound, received.inbound, "{wanted:?}");
    assert_eq!(received.drops.iter().sum::<u64>(), 0, "{received:?}");
    assert_eq!(received.residence_inbound.count(), received.inbound.packets);
    assert_eq!(sent.residence_outbound.count(), sent.outbound.packets);
    let used = sent.offloads;
    assert_eq!(used, used.and(wanted));
    assert_eq!(sent.super_out > 0, used.tun_tso, "{sent:?}");
    assert_eq!(received.super_in > 0, used.tun_gro, "{received:?}");
    assert_eq!(sent.trains_out > 0, used.udp_gso, "{sent:?}");
    // Trains that were sent arrive whole on such a link.
    assert_eq!(
        received.trains_in > 0,
        used.udp_gro && used.udp_gso,
        "{received:?}"
    );
}

#[test]
fn a_socket_that_takes_no_more_loses_nothing_and_goes_on_in_order() {
    const PACKETS: u16 = 100; // fit the buffer of a plain socket
    if !may_build_a_lab() {
        return;
    }
    for offloads in [Offloads::ALL, Offloads::NONE] {
        let tunnel = Tunnel {
            workers: WORKERS,
            ..Tunnel::default()
        };
        let small = SocketOptions {
            send_buffer: 4 << 10,
            ..options(offloads)
        };
        let (mut a, mut b) = sites_with(&tunnel, small);
        give_sas(&tunnel, &mut a, &mut b, 0);
        // What waits for the neighbour's address stays in the account of the socket.
        b.space
            .sysctl("ipv4/conf/wire/arp_ignore", "8")
            .expect("set");
        let (here, there) = (tunnel.host_a(1, 9), tunnel.host_b(1, 9));
        let near = a.space.run(move || PlainSocket::bind(here)).expect("bound");
        let far = b
            .space
            .run(move || PlainSocket::bind(there))
            .expect("bound");
        far.set_read_timeout(Some(Duration::from_secs(20)))
            .expect("set");
        for number in 0..PACKETS {
            let payload = [number.to_be_bytes(); 250].concat();
            near.send_to(&payload, there).expect("sent");
        }
        eventually("the first packets are sealed", || {
            (a.handle.stats().total().outbound.packets > 0).then_some(())
        });
        thread::sleep(Duration::from_millis(100));
        let epoch = a.handle.barrier();
        let passed = a.handle.wait_for(epoch, Duration::from_millis(100));
        assert!(!passed, "what was sealed before it still waits here");
        let stats = a.handle.stats().total();
        assert!(
            stats.residence_outbound.count() < u64::from(PACKETS),
            "{stats:?}"
        );

        b.space
            .sysctl("ipv4/conf/wire/arp_ignore", "0")
            .expect("set");
        let mut buffer = [0; 2048];
        for number in 0..PACKETS {
            let (length, _) = far.recv_from(&mut buffer).expect("arrived");
            assert_eq!(length, 500);
            assert_eq!(buffer[..2], number.to_be_bytes(), "in order");
        }
        assert!(a.handle.wait_for(epoch, Duration::from_secs(10)));
        let lost = a.handle.stats().total().drops.iter().sum::<u64>();
        assert_eq!(lost, 0);
    }
}

#[test]
fn workers_that_spin_carry_the_same_and_end_when_they_are_told() {
    if !may_build_a_lab() {
        return;
    }
    let tunnel = Tunnel {
        workers: WORKERS,
        ..Tunnel::default()
    };
    let spin = Duration::from_millis(5);
    let (mut a, mut b) = sites_that_spin(&tunnel, options(Offloads::ALL), spin);
    give_sas(&tunnel, &mut a, &mut b, 0);
    echo(&tunnel, &a, &b);
    bulk(&tunnel, &a, &b);
    a.handle.shutdown();
    b.handle.shutdown();
    let (sent, received) = (a.handle.stats().total(), b.handle.stats().total());
    assert_eq!(sent.outbound, received.inbound);
    assert_eq!(received.drops.iter().sum::<u64>(), 0, "{received:?}");
}
