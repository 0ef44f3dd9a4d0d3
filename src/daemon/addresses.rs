//! Our own addresses, as the endpoint is told of them: when the kernel has news, and little by little
//! each second, since a rule of the routing policy may change without any.

use std::{
    io,
    net::IpAddr,
    os::fd::AsRawFd,
    time::{Duration, Instant},
};

use mio::{Interest, Registry, Token, unix::SourceFd};

use crate::{
    ike::Input,
    io::netlink::{self, monitor::Monitor, routing::Routing},
};

use super::control::Control;

/// Hears of changes, and finds out what there is.
#[derive(Debug)]
pub(super) struct Addresses {
    monitor: Monitor,
    routing: Routing,
    /// When to look: news comes in groups.
    due: Option<Instant>,
    /// Looking takes time where there are many peers, and should not take most of it.
    not_before: Instant,
}

impl Addresses {
    /// Listens from now on; the first look is due at once.
    pub(super) fn open(now: Instant) -> io::Result<Self> {
        Ok(Self {
            monitor: Monitor::open()?,
            routing: Routing::open()?,
            due: Some(now),
            not_before: now,
        })
    }

    pub(super) fn register(&self, registry: &Registry, token: Token) -> io::Result<()> {
        let descriptor = self.monitor.as_raw_fd();
        registry.register(&mut SourceFd(&descriptor), token, Interest::READABLE)
    }

    /// The kernel has news.
    pub(super) fn ready(&mut self, now: Instant) {
        if self.monitor.drain() {
            let due = (now + SETTLE).max(self.not_before);
            self.due.get_or_insert(due);
        }
    }

    /// When to look.
    pub(super) fn due(&self) -> Option<Instant> {
        self.due
    }

    fn own(&mut self) -> io::Result<Vec<IpAddr>> {
        let mut own = self.routing.addresses()?;
        own.retain(|addr| !addr.is_loopback() && !is_link_local(*addr));
        Ok(own)
    }
}

impl Control {
    /// Tells the endpoint which addresses we have, if that may have changed.
    pub(super) fn tell_addresses(&mut self, now: Instant) {
        if self.addresses.due.is_none_or(|due| due > now) {
            return;
        }
        self.addresses.due = None;
        let start = Instant::now();
        // What cannot be read now is read with the next news.
        let Ok(own) = self.addresses.own() else {
            return;
        };
        let mark = self.config.daemon.fwmark;
        let remotes = self.endpoint.remote_addresses().into_iter();
        let source = |remote| Some((remote, netlink::source_address(remote, mark).ok()?));
        let sources: Vec<_> = remotes.filter_map(source).collect();
        let (own, sources) = (own.as_slice(), sources.as_slice());
        self.endpoint.handle(now, Input::Addresses { own, sources });
        self.addresses.not_before = now + start.elapsed() * 10;
    }

    /// Tells the endpoint which of our addresses the routing table would use towards this one, if it has
    /// any.
    pub(super) fn tell_source_address(&mut self, remote: IpAddr, now: Instant) {
        if let Ok(local) = netlink::source_address(remote, self.config.daemon.fwmark) {
            let told = Input::SourceAddress { remote, local };
            self.endpoint.handle(now, told);
        }
    }

    /// Tells the endpoint which of our addresses the routing table would use towards each peer.
    ///
    /// One call asks for so many peers only; the next call goes on from there.
    pub(super) fn tell_source_addresses(&mut self, now: Instant) {
        let pad = self.endpoint.pad().clone();
        let start = self.next_source % pad.connections.len().max(1);
        self.next_source = start + SOURCES_AT_ONCE;
        let (before, after) = pad.connections.split_at(start);
        for connection in after.iter().chain(before).take(SOURCES_AT_ONCE) {
            let Some(remote) = connection.remote_host().map(|host| host.ip()) else {
                continue;
            };
            if connection.local_host(remote).is_some() {
                continue;
            }
            let Ok(local) = netlink::source_address(remote, self.config.daemon.fwmark) else {
                continue;
            };
            if self.sources.insert(remote, local) != Some(local) {
                self.endpoint
                    .handle(now, Input::SourceAddress { remote, local });
            }
        }
    }
}

fn is_link_local(addr: IpAddr) -> bool {
    match addr {
        IpAddr::V4(addr) => addr.is_link_local(),
        IpAddr::V6(addr) => addr.is_unicast_link_local(),
    }
}

/// One change of an address is told as several: the address, its routes.
const SETTLE: Duration = Duration::from_millis(2);
/// Peers whose routes are looked up in one turn.
const SOURCES_AT_ONCE: usize = 256;
