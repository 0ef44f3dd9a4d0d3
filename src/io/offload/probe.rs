//! A self-test of trains: kernels exist that mangle them, and no error says so.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

use super::Offloads;
use crate::io::burst::{Flows, ReceiveBurst, Transmit, TransmitBurst};
use crate::io::udp::{SocketOptions, UdpSocket};

/// Which of the `wanted` offloads of UDP sockets work: sends trains to itself over the loopback
/// device and compares what arrives. Those that do not work are given up with a warning.
///
/// Where the loopback device is down, nothing can be tested and everything is believed.
pub fn probe(wanted: Offloads) -> Offloads {
    let mut working = wanted;
    for local in [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()] {
        if arrives(local, Offloads::NONE, &[&[CANARY]]) {
            working = probe_on(local, working);
        }
    }
    working
}

fn probe_on(local: IpAddr, wanted: Offloads) -> Offloads {
    let mut working = wanted;
    let sending = Offloads {
        udp_gso: true,
        ..Offloads::NONE
    };
    if wanted.udp_gso && !trains_arrive(local, sending) {
        tracing::warn!(
            ipv6 = local.is_ipv6(),
            "UDP trains are mangled or refused (udp-gso); datagrams are sent one by one"
        );
        working.udp_gso = false;
    }
    let receiving = Offloads {
        udp_gso: working.udp_gso,
        udp_gro: true,
        ..Offloads::NONE
    };
    if wanted.udp_gro && !trains_arrive(local, receiving) {
        tracing::warn!(
            ipv6 = local.is_ipv6(),
            "received UDP trains are mangled or not to be had (udp-gro)"
        );
        working.udp_gro = false;
    }
    working
}

/// Trains with a short tail and without one, since kernels have erred in either.
fn trains_arrive(local: IpAddr, offloads: Offloads) -> bool {
    let equal: &[usize] = &[LENGTH; 4];
    let ragged: &[usize] = &[LENGTH, LENGTH, LENGTH, LENGTH / 3];
    arrives(local, offloads, &[equal, ragged, &[CANARY]])
}

/// Whether trains of datagrams of these lengths arrive as they were sent, over sockets that use these
/// offloads. That there can be no such sockets is a no as well.
fn arrives(local: IpAddr, offloads: Offloads, trains: &[&[usize]]) -> bool {
    trains
        .iter()
        .all(|train| attempt(local, offloads, train).unwrap_or(false))
}

fn attempt(local: IpAddr, offloads: Offloads, lengths: &[usize]) -> io::Result<bool> {
    let options = SocketOptions {
        mark: None,
        receive_buffer: BUFFER,
        send_buffer: BUFFER,
        past_xfrm: true,
        offloads,
    };
    let open = || UdpSocket::bind(SocketAddr::new(local, 0), &options);
    let (Some(mut sender), Some(mut receiver)) = (open()?, open()?) else {
        return Ok(false);
    };
    if receiver.offloads() != offloads {
        return Ok(false);
    }
    let transmit = Transmit {
        local,
        remote: receiver.local_addr(),
        tos: 0,
        dont_fragment: true,
    };
    let mut burst = TransmitBurst::new();
    let mut expected = Vec::new();
    for (number, length) in lengths.iter().enumerate() {
        let bytes: Vec<u8> = (number..).map(pattern).take(*length).collect();
        let pushed = burst.push::<()>(transmit, Flows::ANY, *length, |buffer| {
            buffer.copy_from_slice(&bytes);
            Ok(())
        });
        pushed.map_err(|_| io::ErrorKind::OutOfMemory)?;
        expected.push(bytes);
    }
    let report = sender.send_burst(&mut burst);
    if report.failed() > 0 || sender.offloads() != offloads {
        return Ok(false);
    }
    let arrived = collect(&mut receiver, sender.local_addr(), expected.len());
    Ok(arrived == expected)
}

/// What arrives from a sender: `count` datagrams, or fewer if patience ends before. Anybody on this
/// machine may send to us.
fn collect(receiver: &mut UdpSocket, sender: SocketAddr, count: usize) -> Vec<Vec<u8>> {
    let deadline = Instant::now() + PATIENCE;
    let mut burst = ReceiveBurst::new(8);
    let mut arrived = Vec::new();
    while arrived.len() < count && Instant::now() < deadline {
        if receiver.recv_burst(&mut burst).is_err() {
            std::thread::sleep(Duration::from_millis(1));
            continue;
        }
        let trains = burst.iter_mut().flatten();
        let trains = trains.filter(|train| train.remote == sender);
        arrived.extend(trains.flat_map(|train| train.segments().map(|one| one.bytes.to_vec())));
    }
    arrived
}

/// Bytes that betray what is moved, cut or exchanged.
fn pattern(place: usize) -> u8 {
    u8::try_from(place * 7 % 251).unwrap_or(0)
}

/// Fits the smallest path MTU there is.
const LENGTH: usize = 400;
/// A single datagram.
const CANARY: usize = 32;
const BUFFER: usize = 256 << 10;
/// Loopback delivers at once, but not always before the call returns.
const PATIENCE: Duration = Duration::from_millis(300);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trains_work_on_the_loopback_device_of_this_kernel() {
        assert_eq!(probe(Offloads::ALL), Offloads::ALL);
    }

    #[test]
    fn what_others_send_meanwhile_is_not_taken_for_an_answer() {
        for local in [IpAddr::V4(Ipv4Addr::LOCALHOST), Ipv6Addr::LOCALHOST.into()] {
            let options = SocketOptions {
                mark: None,
                receive_buffer: BUFFER,
                send_buffer: BUFFER,
                past_xfrm: true,
                offloads: Offloads::NONE,
            };
            let address = SocketAddr::new(local, 0);
            let mut receiver = UdpSocket::bind(address, &options).unwrap().unwrap();
            let [stranger, sender] = [(); 2].map(|()| std::net::UdpSocket::bind(address).unwrap());
            for (socket, bytes) in [(&stranger, b"no"), (&sender, b"ok"), (&stranger, b"no")] {
                socket.send_to(bytes, receiver.local_addr()).unwrap();
            }
            let arrived = collect(&mut receiver, sender.local_addr().unwrap(), 1);
            assert_eq!(arrived, [b"ok"], "{local}");
        }
    }

    #[test]
    fn what_is_not_wanted_stays_off() {
        assert_eq!(probe(Offloads::NONE), Offloads::NONE);
    }
}
