//! Sizes around the limit: what fits goes through whole, what does not earns an ICMP error or is
//! fragmented inside, and nothing disappears.

use std::{
    net::{IpAddr, UdpSocket},
    time::Duration,
};

use lockgate::{io::netns::Namespace, lab::traffic::MARKER};
use rustix::net::sockopt::{
    Ipv4PathMtuDiscovery, Ipv6PathMtuDiscovery, set_ip_mtu_discover, set_ipv6_mtu_discover,
};

use crate::support::{
    eavesdropper::Eavesdropper,
    eventually,
    lab::{Family, Lab, Plan, Side},
    traffic::tcp,
};

#[test]
fn sizes_around_the_limit_pass_an_outer_link_of_1500() {
    sweep(1500, &Plan::default());
}

#[test]
fn sizes_around_the_limit_pass_an_outer_link_of_1400() {
    sweep(1400, &Plan::default());
}

#[test]
fn sizes_around_the_limit_pass_an_outer_ipv4_link_of_1280() {
    // IPv6 inside would need 1280 bytes where there is room for fewer.
    sweep(
        1280,
        &Plan {
            inner: vec![Family::V4],
            ..Plan::default()
        },
    );
}

#[test]
fn sizes_around_the_limit_pass_an_outer_ipv6_link_of_1400_as_raw_esp() {
    sweep(
        1400,
        &Plan {
            outer: Family::V6,
            encap: false,
            ..Plan::default()
        },
    );
}

#[test]
fn sizes_around_the_limit_pass_in_cipher_blocks() {
    let plan = Plan {
        proposal: "aes256-sha256-ecp256".to_owned(),
        esp_proposal: "aes256-sha256".to_owned(),
        ..Plan::default()
    };
    sweep(1400, &plan);
}

/// Finds the largest packet with DF that passes, then tries every size around it.
fn sweep(outer_mtu: u32, plan: &Plan) {
    let Some(lab) = Lab::with_outer_mtu(outer_mtu) else {
        return;
    };
    let eavesdropper = Eavesdropper::on(&lab);
    let daemon = "tun_mtu = 1500".to_owned();
    let _gateways = lab.tunnel(&Plan {
        daemon,
        ..plan.clone()
    });
    let outer_mtu = outer_mtu as usize;
    for family in &plan.inner {
        for (from, to, side) in [
            (&lab.host_a, &lab.host_b, Side::B),
            (&lab.host_b, &lab.host_a, Side::A),
        ] {
            let path = Path::new(from, to, side.host(*family));
            let limit = largest(|size| path.takes_whole(size), 1000, outer_mtu);
            assert!(
                limit + 100 > outer_mtu,
                "only {limit} of {outer_mtu} bytes fit"
            );
            for size in limit - 20..=limit + 20 {
                assert_eq!(
                    path.takes_whole(size),
                    size <= limit,
                    "{size} bytes, limit {limit}"
                );
                path.takes(size);
            }
            path.takes(4000);
            tcp(from, to, side.host(*family), 1_000_000);
        }
    }
    let overheard = eavesdropper.finish();
    overheard.assert_nothing_in_clear();
    assert!(
        overheard.largest_esp <= outer_mtu,
        "{} bytes",
        overheard.largest_esp
    );
    assert!(
        overheard.largest_esp + 16 > outer_mtu,
        "{} bytes",
        overheard.largest_esp
    );
}

/// The largest size that passes, `low` being known to and `high` not being known at all.
fn largest(passes: impl Fn(usize) -> bool, mut low: usize, mut high: usize) -> usize {
    while low < high {
        let middle = low + (high - low).div_ceil(2);
        (low, high) = if passes(middle) {
            (middle, high)
        } else {
            (low, middle - 1)
        };
    }
    low
}

/// One way from host to host for UDP datagrams.
struct Path {
    whole: UdpSocket,
    pieces: UdpSocket,
    sink: UdpSocket,
    headers: usize,
}

impl Path {
    fn new(from: &Namespace, to: &Namespace, address: IpAddr) -> Self {
        let sink = to.run(move || UdpSocket::bind((address, 0))).unwrap();
        sink.set_read_timeout(Some(Duration::from_millis(100)))
            .unwrap();
        let target = sink.local_addr().unwrap();
        let any = if address.is_ipv4() {
            "0.0.0.0:0"
        } else {
            "[::]:0"
        };
        let connected = move |whole: bool| {
            let socket = UdpSocket::bind(any).unwrap();
            match (target.is_ipv4(), whole) {
                (true, true) => set_ip_mtu_discover(&socket, Ipv4PathMtuDiscovery::DO),
                (true, false) => set_ip_mtu_discover(&socket, Ipv4PathMtuDiscovery::DONT),
                (false, true) => set_ipv6_mtu_discover(&socket, Ipv6PathMtuDiscovery::DO),
                // IPv6 has no DF to clear: its hosts fragment once they have been told the limit.
                (false, false) => set_ipv6_mtu_discover(&socket, Ipv6PathMtuDiscovery::WANT),
            }
            .unwrap();
            socket.connect(target).unwrap();
            socket
        };
        Self {
            whole: from.run(move || connected(true)),
            pieces: from.run(move || connected(false)),
            sink,
            headers: if address.is_ipv4() { 28 } else { 48 },
        }
    }

    /// Whether an IP packet of this size that must not be fragmented arrives. If not, the sending
    /// host has been told so (RFC 1191, RFC 8201): it does not just disappear.
    fn takes_whole(&self, packet: usize) -> bool {
        let datagram = MARKER.repeat(100)[..packet - self.headers].to_vec();
        eventually("a packet arrives or is refused", || {
            match self.whole.send(&datagram) {
                Ok(_) => self.arrives(&datagram).then_some(true),
                // The first error may be the late report about an earlier, larger packet.
                Err(error) if error.raw_os_error() == Some(EMSGSIZE) => {
                    self.whole.send(&datagram).is_err().then_some(false)
                }
                Err(error) => panic!("{packet} bytes: {error}"),
            }
        })
    }

    /// Waits until a packet of this size, which may be fragmented, has arrived.
    fn takes(&self, packet: usize) {
        let datagram = MARKER.repeat(250)[..packet - self.headers].to_vec();
        eventually(
            &format!("{packet} bytes arrive, in pieces if need be"),
            || {
                // An error is the report that an earlier one was too big.
                let sent = self.pieces.send(&datagram).is_ok();
                (sent && self.arrives(&datagram)).then_some(())
            },
        );
    }

    fn arrives(&self, datagram: &[u8]) -> bool {
        let mut received = [0; 8192];
        while let Ok(length) = self.sink.recv(&mut received) {
            if received[..length] == *datagram {
                return true;
            }
        }
        false
    }
}

const EMSGSIZE: i32 = 90;
