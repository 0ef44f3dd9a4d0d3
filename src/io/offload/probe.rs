//! A self-test of trains: kernels exist that mangle them, and no error says so.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use super::Offloads;
use crate::io::burst::{ReceiveBurst, Transmit, TransmitBurst};
use crate::io::udp::{SocketOptions, UdpSocket};

/// Which of the `wanted` offloads of UDP sockets work: sends trains to itself over the loopback
/// device and compares what arrives. Those that do not work are given up with a warning.
///
/// Where the loopback device is down, nothing can be tested and everything is believed.
pub fn probe(wanted: Offloads) -> Offloads {
    let mut working = wanted;
    if !arrives(Offloads::NONE, &[&[CANARY]]) {
        return working;
    }
    let sending = Offloads {
        udp_gso: true,
        ..Offloads::NONE
    };
    if wanted.udp_gso && !trains_arrive(sending) {
        tracing::warn!(
            "UDP trains are mangled or refused (udp-gso); datagrams are sent one by one"
        );
        working.udp_gso = false;
    }
    let receiving = Offloads {
        udp_gso: working.udp_gso,
        udp_gro: true,
        ..Offloads::NONE
    };
    if wanted.udp_gro && !trains_arrive(receiving) {
        tracing::warn!("received UDP trains are mangled or not to be had (udp-gro)");
        working.udp_gro = false;
    }
    working
}

/// Trains with a short tail and without one, since kernels have erred in either.
fn trains_arrive(offloads: Offloads) -> bool {
    let equal: &[usize] = &[LENGTH; 4];
    let ragged: &[usize] = &[LENGTH, LENGTH, LENGTH, LENGTH / 3];
    arrives(offloads, &[equal, ragged, &[CANARY]])
}

/// Whether trains of datagrams of these lengths arrive as they were sent, over sockets that use these
/// offloads. That there can be no such sockets is a no as well.
fn arrives(offloads: Offloads, trains: &[&[usize]]) -> bool {
    trains
        .iter()
        .all(|train| attempt(offloads, train).unwrap_or(false))
}

fn attempt(offloads: Offloads, lengths: &[usize]) -> io::Result<bool> {
    let options = SocketOptions {
        mark: None,
        receive_buffer: BUFFER,
        send_buffer: BUFFER,
        past_xfrm: true,
        offloads,
    };
    let local = IpAddr::V4(Ipv4Addr::LOCALHOST);
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
        let pushed = burst.push::<()>(transmit, *length, |buffer| {
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
    Ok(collect(&mut receiver, expected.len()) == expected)
}

/// What arrives from then on: `count` datagrams, or fewer if patience ends before.
fn collect(receiver: &mut UdpSocket, count: usize) -> Vec<Vec<u8>> {
    let deadline = Instant::now() + PATIENCE;
    let mut burst = ReceiveBurst::new(8);
    let mut arrived = Vec::new();
    while arrived.len() < count && Instant::now() < deadline {
        if receiver.recv_burst(&mut burst).is_err() {
            std::thread::sleep(Duration::from_millis(1));
            continue;
        }
        let trains = burst.iter_mut().flatten();
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
    fn what_is_not_wanted_stays_off() {
        assert_eq!(probe(Offloads::NONE), Offloads::NONE);
    }
}
