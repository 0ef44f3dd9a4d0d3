//! Super-packets in both directions of a TUN.

use std::io::{IoSlice, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket as PlainSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use lockgate::io::burst::TransmitBurst;
use lockgate::io::netns::Namespace;
use lockgate::io::offload::Offloads;
use lockgate::io::tun::{Tun, TunBuffer, TunQueue};
use lockgate::io::udp::{SocketOptions, UdpSocket};
use lockgate::wire::vnet::VnetHeader;

use crate::support::link::address;
use crate::support::{PATIENCE, eventually, may_build_a_lab, skip};
use crate::{UNPRIVILEGED, datagram, offloads, push};

/// A TUN whose network is 10.0.0.0/8 and, with IPv6, fd00::/8.
fn tun(wanted: Offloads) -> (Namespace, Tun, TunQueue) {
    let lab = Namespace::new("tun").expect("a namespace");
    let (tun, mut queues) = lab
        .run(move || Tun::create("tun%d", 1, 1400, wanted))
        .expect("a TUN");
    for own in ["10.1.0.1/8", "fd00::1/8"] {
        lab.add_address("tun0", own.parse().expect("literal"))
            .expect("an address");
    }
    (lab, tun, queues.remove(0))
}

/// Exchanges source and destination address. Sums stay right, finished or not.
fn turn_round(packet: &mut [u8]) {
    let (start, length) = match packet[0] >> 4 {
        4 => (12, 4),
        _ => (8, 16),
    };
    let (_, addresses) = packet.split_at_mut(start);
    let (source, rest) = addresses.split_at_mut(length);
    source.swap_with_slice(&mut rest[..length]);
}

#[test]
fn a_tun_gives_and_takes_udp_super_packets() {
    if !may_build_a_lab() {
        return;
    }
    for wanted in [
        Offloads::ALL,
        Offloads {
            tun_uso: false,
            ..Offloads::ALL
        },
        Offloads::NONE,
    ] {
        let (lab, tun, mut queue) = tun(wanted);
        assert!(!tun.offloads().udp_gso && !tun.offloads().udp_gro);
        assert_eq!(tun.offloads().tun_tso, wanted.tun_tso);
        if wanted.tun_uso && !tun.offloads().tun_uso {
            return skip("needs a kernel with USO");
        }
        let options = SocketOptions {
            offloads: offloads(true, false),
            ..UNPRIVILEGED
        };
        let socket = lab.run(move || UdpSocket::bind("10.1.0.1:5000".parse().unwrap(), &options));
        let mut socket = socket.expect("bound").expect("IPv4");
        let near = lab
            .run(|| PlainSocket::bind("10.1.0.1:6000"))
            .expect("bound");
        near.set_read_timeout(Some(PATIENCE)).expect("set");

        let far: SocketAddr = "10.2.0.2:6000".parse().expect("literal");
        let mut burst = TransmitBurst::new();
        let lengths = [500, 500, 500, 77];
        for (number, length) in lengths.into_iter().enumerate() {
            push(
                &mut burst,
                address("10.1.0.1"),
                far,
                &datagram(number, length),
            );
        }
        assert_eq!(socket.send_burst(&mut burst).sent, 4);

        let mut buffer = TunBuffer::new();
        let mut arrived = Vec::new();
        eventually("all of it is read", || {
            while let Ok((header, packet)) = queue.read(&mut buffer) {
                if packet.get(9) != Some(&17) {
                    continue;
                }
                turn_round(packet);
                let (head, payload) = packet.split_at(28);
                arrived.push((header, payload.len()));
                let (first, second) = payload.split_at(payload.len() / 3);
                let pieces = [head, first, second].map(IoSlice::new);
                queue.write_vectored(&header, &pieces).expect("written");
            }
            let total: usize = arrived.iter().map(|(_, length)| *length).sum();
            (total == 1577).then_some(())
        });
        if wanted.tun_uso {
            let (header, _) = arrived[0];
            assert_eq!(header.gso_type, VnetHeader::GSO_UDP_L4);
            assert_eq!((header.gso_size, header.csum_start), (500, 20));
            assert_eq!(
                header.flags & VnetHeader::NEEDS_CSUM,
                VnetHeader::NEEDS_CSUM
            );
            assert_eq!(arrived.len(), 1);
        } else {
            assert_eq!(arrived.len(), 4);
        }
        let mut bytes = [0; 2000];
        for (number, length) in lengths.into_iter().enumerate() {
            let (got, from) = near.recv_from(&mut bytes).expect("arrived");
            assert!(bytes[..got] == datagram(number, length), "{number}");
            assert_eq!(from, "10.2.0.2:5000".parse().expect("literal"));
        }
    }
}

#[test]
fn tcp_super_packets_that_a_tun_gave_can_be_given_back() {
    if !may_build_a_lab() {
        return;
    }
    for (wanted, own, far) in [
        (Offloads::ALL, "10.1.0.1:7000", "10.2.0.2:7000"),
        (Offloads::ALL, "[fd00::1]:7000", "[fd00::2]:7000"),
        (Offloads::NONE, "10.1.0.1:7000", "10.2.0.2:7000"),
    ] {
        let (lab, _tun, mut queue) = tun(wanted);
        let stop = AtomicBool::new(false);
        let supers = thread::scope(|scope| {
            // Whatever goes to the far address comes back from there: a connection to ourselves.
            let mirror = scope.spawn(|| {
                let mut buffer = TunBuffer::new();
                let mut supers = 0;
                while !stop.load(Ordering::Relaxed) {
                    let Ok((header, packet)) = queue.read(&mut buffer) else {
                        thread::yield_now();
                        continue;
                    };
                    let protocol = packet[if packet[0] >> 4 == 4 { 9 } else { 6 }];
                    if protocol != 6 {
                        continue;
                    }
                    supers += usize::from(header.gso_type != VnetHeader::GSO_NONE);
                    turn_round(packet);
                    queue
                        .write_vectored(&header, &[IoSlice::new(packet)])
                        .expect("written");
                }
                supers
            });
            transfer(&lab, own, far);
            stop.store(true, Ordering::Relaxed);
            mirror.join().expect("no panic")
        });
        assert_eq!(supers > 0, wanted.tun_tso, "{own}: {supers} super-packets");
    }
}

/// Sends a few megabytes from one's own address to the far one and compares what arrives.
fn transfer(lab: &Namespace, own: &str, far: &str) {
    let own: SocketAddr = own.parse().expect("literal");
    let far: SocketAddr = far.parse().expect("literal");
    let listener = lab.run(move || TcpListener::bind(own)).expect("bound");
    let data: Vec<u8> = (0..3_000_000_usize)
        .map(|place| u8::try_from(place * place / 7 % 251).expect("a byte"))
        .collect();
    let mut client = lab
        .run(move || TcpStream::connect(far))
        .expect("connected by way of the TUN");
    let (mut server, _) = listener.accept().expect("accepted");
    thread::scope(|scope| {
        scope.spawn(|| {
            client.write_all(&data).expect("sent");
            drop(client);
        });
        let mut got = Vec::new();
        server.read_to_end(&mut got).expect("received");
        assert!(got == data);
    });
}

#[test]
fn the_queue_of_a_tun_can_be_made_shorter() {
    if !may_build_a_lab() {
        return;
    }
    let (lab, tun, mut queue) = tun(Offloads::NONE);
    let tun = lab.run(move || tun.set_queue_length(10).map(|()| tun));
    assert_eq!(tun.expect("set").name(), "tun0");
    let socket = lab
        .run(|| PlainSocket::bind("10.1.0.1:5000"))
        .expect("bound");
    for _ in 0..50 {
        let _ = socket.send_to(b"more than fits", "10.2.0.2:6000");
    }
    let mut buffer = TunBuffer::new();
    let mut waiting = 0;
    while queue.read(&mut buffer).is_ok() {
        waiting += 1;
    }
    assert!(waiting <= 10, "{waiting}");
}
