//! Our own addresses: which there are, and which of them the routing table uses towards a peer.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::endpoint::Endpoint;

impl Endpoint {
    /// Our addresses or routes have changed.
    pub(super) fn on_addresses(&mut self, own: &[IpAddr], sources: &[(IpAddr, IpAddr)]) {
        self.cx.addresses = own.to_vec();
        self.cx.sources.extend(sources.iter().copied());
        for id in self.table.ids_where(|sa| sa.established().is_some()) {
            self.step(id, |sa, cx| {
                sa.with_established(cx, |established, core, cx| {
                    established.follow_addresses(core, cx);
                });
            });
        }
    }

    /// Our address towards a configured peer, or towards a gateway that we are sent to.
    pub(super) fn on_source(&mut self, remote: IpAddr, local: IpAddr) {
        if self.cx.directory.is_host(remote) {
            self.cx.sources.insert(remote, local);
        }
        let now = self.cx.now;
        for mut attempt in self.planned.take_awaiting(remote) {
            attempt.awaits_source = false;
            attempt.detour.start_from(local, remote);
            self.planned.add(now, attempt);
        }
    }

    /// The peers whose source addresses [`super::Input::Addresses`] should tell: where those that may
    /// be followed are, and where else they say they are.
    pub fn remote_addresses(&self) -> BTreeSet<IpAddr> {
        let peers = self.table.iter().flat_map(|sa| {
            let others = sa.established().and_then(|sa| sa.peer_addresses());
            let current = sa.core.path.remote.ip();
            others
                .into_iter()
                .flat_map(move |others| std::iter::once(current).chain(others.iter().copied()))
        });
        peers.collect()
    }
}
