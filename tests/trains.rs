//! Trains of datagrams through real sockets, and super-packets through a real TUN.
#![allow(
    clippy::indexing_slicing,
    reason = "an index out of bounds fails the test, as it should"
)]

#[path = "trains/super_packets.rs"]
mod super_packets;
mod support;

use std::net::{IpAddr, SocketAddr, UdpSocket as PlainSocket};
use std::num::NonZeroU16;

use lockgate::io::burst::{ReceiveBurst, Received, Transmit, TransmitBurst};
use lockgate::io::netns::Namespace;
use lockgate::io::offload::Offloads;
use lockgate::io::raw::RawSocket;
use lockgate::io::udp::{SocketOptions, UdpSocket};
use support::{eventually, link, may_build_a_lab, skip};

const UNPRIVILEGED: SocketOptions = SocketOptions {
    mark: None,
    receive_buffer: 2 << 20,
    send_buffer: 2 << 20,
    past_xfrm: false,
    offloads: Offloads::NONE,
};

fn offloads(udp_gso: bool, udp_gro: bool) -> Offloads {
    Offloads {
        udp_gso,
        udp_gro,
        ..Offloads::NONE
    }
}

#[test]
fn datagrams_arrive_as_they_were_sent_with_every_choice_of_offloads() {
    for loopback in ["127.0.0.1", "::1"] {
        for (gso, gro) in [(false, false), (false, true), (true, false), (true, true)] {
            let options = SocketOptions {
                offloads: offloads(gso, gro),
                ..UNPRIVILEGED
            };
            let local = link::address(loopback);
            let open = || UdpSocket::bind(SocketAddr::new(local, 0), &options).expect("bound");
            let (Some(mut sender), Some(mut one), Some(mut two)) = (open(), open(), open()) else {
                return skip("needs IPv6");
            };
            let to = [one.local_addr(), two.local_addr()];
            // A ragged tail, a new train, single ones; and a second peer in between.
            let lengths = [&[1200; 40][..], &[77, 1200, 1200, 1, 1400, 1400, 9]].concat();
            let mut burst = TransmitBurst::new();
            for (number, length) in lengths.iter().enumerate() {
                for remote in to {
                    push(&mut burst, local, remote, &datagram(number, *length));
                }
            }
            let report = sender.send_burst(&mut burst);
            let count = u32::try_from(lengths.len()).expect("a few");
            assert_eq!((report.sent, report.failed()), (2 * count, 0));
            assert_eq!(report.trains > 0, gso, "{report:?}");
            assert_eq!(report.calls, 2, "one of them sets DF");
            for receiver in [&mut one, &mut two] {
                assert_eq!(receiver.offloads(), offloads(gso, gro));
                let (got, trains) = collect(lengths.len(), |burst| receiver.recv_burst(burst));
                let expected = lengths.iter().enumerate();
                let expected = expected.map(|(number, length)| datagram(number, *length));
                assert!(
                    got == expected.collect::<Vec<_>>(),
                    "{loopback} {gso} {gro}"
                );
                assert_eq!(trains > 0, gso && gro);
            }
        }
    }
}

#[test]
fn more_datagrams_than_a_train_may_have_go_as_several() {
    let options = SocketOptions {
        offloads: offloads(true, true),
        ..UNPRIVILEGED
    };
    let local = link::address("127.0.0.1");
    let open = || UdpSocket::bind(SocketAddr::new(local, 0), &options).expect("bound");
    let (Some(mut sender), Some(mut receiver)) = (open(), open()) else {
        panic!("IPv4 is there");
    };
    let mut burst = TransmitBurst::new();
    for number in 0..300 {
        push(
            &mut burst,
            local,
            receiver.local_addr(),
            &datagram(number, 100),
        );
    }
    let report = sender.send_burst(&mut burst);
    assert_eq!((report.sent, report.failed()), (300, 0));
    assert!((3..=6).contains(&report.trains), "{report:?}");
    assert!(sender.offloads().udp_gso, "nothing was given up");
    let (got, _) = collect(300, |burst| receiver.recv_burst(burst));
    let expected: Vec<_> = (0..300).map(|number| datagram(number, 100)).collect();
    assert!(got == expected);
}

#[test]
fn a_train_above_the_path_mtu_is_judged_datagram_by_datagram() {
    if !may_build_a_lab() {
        return;
    }
    let (here, there) = link::pair();
    let far = there
        .run(|| PlainSocket::bind("192.0.2.2:9"))
        .expect("bound");
    far.set_read_timeout(Some(support::PATIENCE)).expect("set");
    let mut socket = here.run(|| {
        let options = SocketOptions {
            offloads: offloads(true, false),
            ..SocketOptions::default()
        };
        let socket = UdpSocket::bind("0.0.0.0:0".parse().expect("literal"), &options);
        socket.expect("bound").expect("IPv4")
    });
    let (local, remote) = (link::address("192.0.2.1"), far.local_addr().expect("bound"));
    // The last is the tail of the train and fits; those behind are a train of their own.
    let lengths = [1373, 1373, 1373, 800, 1372, 1372];
    let mut burst = TransmitBurst::new();
    let mut send = |dont_fragment| {
        for (number, length) in lengths.into_iter().enumerate() {
            let transmit = Transmit {
                local,
                remote,
                tos: 0,
                dont_fragment,
            };
            link::push(&mut burst, transmit, &datagram(number, length));
        }
        socket.send_burst(&mut burst)
    };
    let report = send(true);
    assert_eq!((report.sent, report.too_big, report.failed()), (3, 3, 3));
    assert_eq!(report.too_big_paths[0], Some((local, remote)));
    let mut buffer = [0; 2000];
    for number in [3, 4, 5] {
        let length = far.recv(&mut buffer).expect("arrived");
        assert!(buffer[..length] == datagram(number, lengths[number]));
    }

    let report = send(false);
    assert_eq!((report.sent, report.failed()), (6, 0));
    for (number, expected) in lengths.into_iter().enumerate() {
        let length = far.recv(&mut buffer).expect("arrived");
        assert!(buffer[..length] == datagram(number, expected));
    }

    here.set_mtu("wire", 1300).expect("set");
    let report = send(true);
    assert_eq!((report.sent, report.too_big, report.failed()), (1, 5, 5));
    assert!(
        socket.offloads().udp_gso,
        "a path MTU is no fault of trains"
    );
}

#[test]
fn what_a_full_socket_does_not_take_stays_and_goes_later_in_order() {
    if !may_build_a_lab() {
        return;
    }
    let (here, there) = link::pair();
    // Nobody answers for this address yet, so what is sent to it waits in the socket's account.
    let remote: SocketAddr = "192.0.2.77:9".parse().expect("literal");
    let local = link::address("192.0.2.1");
    let mut socket = here.run(|| {
        let options = SocketOptions {
            offloads: offloads(true, false),
            send_buffer: 1,
            ..SocketOptions::default()
        };
        let socket = UdpSocket::bind("0.0.0.0:0".parse().expect("literal"), &options);
        socket.expect("bound").expect("IPv4")
    });
    let mut burst = TransmitBurst::new();
    let total = 40;
    for number in 0..total {
        // Lengths differ, so that each goes by itself.
        push(
            &mut burst,
            local,
            remote,
            &datagram(number, 1000 + number % 2),
        );
    }
    let report = socket.send_burst(&mut burst);
    assert!(report.blocked, "{report:?}");
    let sent = usize::try_from(report.sent).expect("a few");
    assert!((1..total).contains(&sent), "{report:?}");
    assert_eq!((burst.len(), report.failed()), (total - sent, 0));
    let again = socket.send_burst(&mut burst);
    assert_eq!((again.sent, again.blocked), (0, true));

    there
        .add_address("wire", "192.0.2.77/24".parse().expect("literal"))
        .expect("an address");
    let far = there
        .run(|| PlainSocket::bind("192.0.2.77:9"))
        .expect("bound");
    far.set_read_timeout(Some(support::PATIENCE)).expect("set");
    eventually("the rest is sent", || {
        let report = socket.send_burst(&mut burst);
        assert_eq!(report.failed(), 0);
        (!report.blocked).then_some(())
    });
    assert!(burst.is_empty());
    let mut buffer = [0; 2000];
    let mut expected: Option<usize> = None;
    // The first ones may have been given up while nobody answered; the rest comes whole.
    loop {
        let length = far.recv(&mut buffer).expect("arrived");
        let number = usize::from(buffer[0]);
        assert!(expected.is_none_or(|expected| number == expected));
        assert!(number <= sent);
        assert!(buffer[..length] == datagram(number, 1000 + number % 2));
        expected = Some(number + 1);
        if number >= sent {
            break;
        }
    }
    for number in sent + 1..total {
        let length = far.recv(&mut buffer).expect("arrived");
        assert!(buffer[..length] == datagram(number, 1000 + number % 2));
    }
}

#[test]
fn raw_esp_goes_in_one_call_for_many_packets() {
    if !may_build_a_lab() {
        return;
    }
    let lab = Namespace::new("raw").expect("a namespace");
    for (ipv6, loopback) in [(false, "127.0.0.1"), (true, "::1")] {
        lab.run(move || {
            let workers = NonZeroU16::MIN;
            let options = SocketOptions::default();
            let open = || RawSocket::open(ipv6, 0, workers, &options).expect("opened");
            let (Some(mut sender), Some(mut receiver)) = (open(), open()) else {
                panic!("both families");
            };
            let local = link::address(loopback);
            let mut burst = TransmitBurst::new();
            for number in 0..200 {
                let esp = [&[1, 0, 0, 0][..], &datagram(number, 600)].concat();
                push(&mut burst, local, SocketAddr::new(local, 4500), &esp);
            }
            let report = sender.send_burst(&mut burst);
            assert_eq!((report.sent, report.trains), (200, 0));
            assert_eq!(report.calls, 2, "one of them sets DF");
            let (got, _) = collect(200, |burst| receiver.recv_burst(burst));
            for (number, got) in got.iter().enumerate() {
                assert!(got[4..] == datagram(number, 600), "{number}");
            }
        });
    }
}

fn push(burst: &mut TransmitBurst, local: IpAddr, remote: SocketAddr, bytes: &[u8]) {
    let transmit = Transmit {
        local,
        remote,
        tos: 0,
        dont_fragment: true,
    };
    link::push(burst, transmit, bytes);
}

/// Receives until `count` datagrams are there; also says how many came in trains.
fn collect(
    count: usize,
    mut recv: impl FnMut(&mut ReceiveBurst) -> std::io::Result<usize>,
) -> (Vec<Vec<u8>>, usize) {
    let mut burst = ReceiveBurst::new(64);
    let (mut all, mut trains) = (Vec::new(), 0);
    eventually("all datagrams are there", || {
        while recv(&mut burst).is_ok() {
            for received in burst.iter_mut() {
                let received = received.expect("whole and addressed");
                let segments = received.segment_size.is_some();
                let before = all.len();
                all.extend(
                    received
                        .segments()
                        .map(|one: Received<'_>| one.bytes.to_vec()),
                );
                trains += usize::from(segments) * (all.len() - before);
            }
        }
        (all.len() >= count).then_some(())
    });
    (all, trains)
}

/// Bytes that betray what was moved, cut or exchanged; the first is the number.
fn datagram(number: usize, length: usize) -> Vec<u8> {
    let byte = |place: usize| u8::try_from((number + place * (place + 1)) % 256).expect("a byte");
    (0..length).map(byte).collect()
}
