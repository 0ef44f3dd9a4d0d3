//! Which IKE SAs are established between which identities.

use std::collections::HashMap;
use std::net::IpAddr;

use super::{Identity, IdentityPattern};

/// Established IKE SAs by their two identities, oldest first.
#[derive(Debug, Default)]
pub(super) struct Peers {
    by_identities: HashMap<(Identity, Identity), Vec<u64>>,
    /// Where the peer of each is.
    addresses: HashMap<u64, IpAddr>,
}

impl Peers {
    pub(super) fn add(&mut self, id: u64, local: &Identity, remote: &Identity, addr: IpAddr) {
        self.addresses.insert(id, addr);
        let key = (local.clone(), remote.clone());
        let ids = self.by_identities.entry(key).or_default();
        if !ids.contains(&id) {
            ids.push(id);
        }
    }

    /// The peer of an IKE SA has another address.
    pub(super) fn moved(&mut self, id: u64, addr: IpAddr) {
        if let Some(known) = self.addresses.get_mut(&id) {
            *known = addr;
        }
    }

    pub(super) fn remove(&mut self, id: u64, local: &Identity, remote: &Identity) {
        self.addresses.remove(&id);
        let key = (local.clone(), remote.clone());
        if let Some(ids) = self.by_identities.get_mut(&key) {
            ids.retain(|known| *known != id);
            if ids.is_empty() {
                self.by_identities.remove(&key);
            }
        }
    }

    /// IKE SAs between these two.
    pub(super) fn between(&self, local: &Identity, remote: &Identity) -> &[u64] {
        let key = (local.clone(), remote.clone());
        self.by_identities.get(&key).map_or(&[], Vec::as_slice)
    }

    pub(super) fn has(&self, local: &Identity, remote: &Identity) -> bool {
        !self.between(local, remote).is_empty()
    }

    /// Whether the peer has an IKE SA from another address.
    pub(super) fn has_elsewhere(&self, local: &Identity, remote: &Identity, addr: IpAddr) -> bool {
        let ids = self.between(local, remote).iter();
        let mut known = ids.filter_map(|id| self.addresses.get(id));
        known.any(|known| *known != addr)
    }

    /// Whether there is an IKE SA with a peer that fits.
    pub(super) fn knows(&self, local: &Identity, remote: &IdentityPattern) -> bool {
        match remote.exact() {
            Some(remote) => self.has(local, remote),
            None => {
                let mut known = self.by_identities.keys();
                known.any(|(own, peer)| own == local && remote.matches(peer))
            }
        }
    }
}
