//! Child SAs of different IKE SAs with the same peer and for the same policy: which of them carries the traffic
//! while one IKE SA takes the place of another, as after a new authentication, so that no packet is lost.

use crate::ipsec::Reqid;

use super::endpoint::Endpoint;
use super::v2::{ChildSa, Established, IkeSa, Peer};

impl Endpoint {
    /// An IKE SA is going to be deleted: what another one with the same peer can send, it sends from
    /// now on.
    pub(super) fn stop_sending(&mut self, ike: u64) {
        let reqids = self.carried_beside(ike);
        self.step(ike, |sa, cx| {
            sa.with_established(cx, |established, _, cx| {
                established.stop_sending(&reqids, cx)
            });
        });
    }

    /// A peer that has another Child SA for the policy of its first one receives there until it has our answer.
    pub(super) fn open_first_child(&mut self, ike: u64) {
        let reqids = self.carried_beside(ike);
        self.step(ike, |sa, cx| {
            sa.with_established(cx, |established, _, cx| {
                established.open_unless_carried(&reqids, cx);
            });
        });
    }

    /// These Child SAs are gone with their IKE SA: where another one has their policy, it sends from now on.
    pub(super) fn relieve(&mut self, peer: &Peer, children: Vec<ChildSa>, lingers: bool) {
        let others = self.cx.peers.between(&peer.local_id, &peer.remote_id);
        let others = others.to_vec();
        for child in children {
            let mut gone = Some(child);
            for other in &others {
                self.step(*other, |sa, cx| {
                    sa.with_established(cx, |established, _, cx| {
                        let child = gone.take();
                        gone = child.and_then(|child| established.relieve(child, lingers, cx));
                    });
                });
            }
            if let Some(child) = gone {
                child.uninstall(&mut self.cx);
            }
        }
    }

    /// The policies that other IKE SAs with the same peer send for.
    fn carried_beside(&self, ike: u64) -> Vec<Reqid> {
        let Some(established) = self.table.get(ike).and_then(IkeSa::established) else {
            return Vec::new();
        };
        let peer = &established.peer;
        let all = self.cx.peers.between(&peer.local_id, &peer.remote_id);
        let others = all.iter().filter(|other| **other != ike);
        let others = others.filter_map(|other| self.table.get(*other)?.established());
        others.flat_map(Established::sends_for).collect()
    }
}
