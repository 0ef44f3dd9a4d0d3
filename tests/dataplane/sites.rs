//! A gateway with threads, TUN and sockets in a network namespace of its own.

use std::net::SocketAddr;
use std::num::NonZeroU16;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use lockgate::dataplane::{Dataplane, DataplaneConfig, Handle, WorkerPorts};
use lockgate::io::netns::Namespace;
use lockgate::io::raw::RawSocket;
use lockgate::io::tun::Tun;
use lockgate::io::udp::{SocketOptions, UdpGroup, path_mtu};
use lockgate::ipsec::Spd;
use mio::{Poll, Token, Waker};

use crate::support::eventually;

pub(crate) const PORT: u16 = 4500;

/// A gateway whose own addresses are also the protected hosts.
pub(crate) struct Site {
    pub(crate) handle: Handle,
    /// Keeps the control sockets in their groups.
    _controls: Vec<UdpGroup>,
    _poll: Poll,
    pub(crate) space: Namespace,
}

/// What a gateway is started with.
#[derive(Clone)]
pub(crate) struct Setup {
    pub(crate) workers: u16,
    pub(crate) options: SocketOptions,
    /// How long a worker looks for packets before it sleeps.
    pub(crate) spin: Duration,
}

impl Site {
    /// Starts the workers in a namespace whose links are ready.
    pub(crate) fn start(space: Namespace, spd: Spd, inner: [&str; 2], setup: Setup) -> Self {
        let poll = Poll::new().expect("a poll");
        let control = Arc::new(Waker::new(poll.registry(), Token(0)).expect("a waker"));
        let (handle, controls) = space.run(move || start_workers(spd, control, setup));
        for address in inner {
            add_address(&space, "ipsec0", address);
        }
        Self {
            handle,
            _controls: controls,
            _poll: poll,
            space,
        }
    }
}

/// Adds an address and waits until it is reachable: the kernel adds the route to an own IPv6 address
/// later.
pub(crate) fn add_address(space: &Namespace, link: &str, address: &str) {
    let net: IpNet = address.parse().expect("literal");
    space.add_address(link, net).expect("an address");
    let own = SocketAddr::new(net.addr(), 9);
    eventually("the address is reachable", || {
        let mtu = space.run(move || path_mtu(own.ip(), own, None));
        (mtu.ok() == Some(u16::MAX)).then_some(()) // the loopback device's
    });
}

fn start_workers(spd: Spd, control: Arc<Waker>, setup: Setup) -> (Handle, Vec<UdpGroup>) {
    let Setup {
        workers,
        options,
        spin,
    } = setup;
    let count = NonZeroU16::new(workers).expect("not zero");
    let (device, queues) = Tun::create("ipsec0", workers, 1400, options.offloads).expect("a TUN");
    let mut workers: Vec<_> = queues
        .into_iter()
        .map(|tun| WorkerPorts {
            tun,
            udp: Vec::new(),
            raw: Vec::new(),
        })
        .collect();
    let mut groups = Vec::new();
    for any in ["0.0.0.0", "::"] {
        let local = SocketAddr::new(any.parse().expect("literal"), PORT);
        let group = UdpGroup::bind(local, count, &options).expect("bound");
        let mut group = group.expect("both families");
        for (worker, socket) in workers.iter_mut().zip(group.workers.drain(..)) {
            worker.udp.push(socket);
        }
        groups.push(group);
        for (number, worker) in (0..).zip(&mut workers) {
            let raw = RawSocket::open(local.is_ipv6(), number, count, &options);
            worker.raw.extend(raw.expect("opened"));
        }
    }
    let config = DataplaneConfig {
        workers,
        policies: Arc::new(spd),
        pin: true,
        control,
        offloads: device.offloads(),
        spin,
    };
    (Dataplane::start(config).expect("started"), groups)
}
