//! A model of the data plane: which SAs are installed, and whether two of them fit.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU16;
use std::sync::Arc;

use lockgate::ipsec::{ChildId, InboundSa, OutboundSa, Reqid, SaEvent, SaUpdate, Spd, WorkerId};

/// The SAs of one gateway.
pub(crate) struct Plane {
    workers: NonZeroU16,
    inbound: HashMap<u32, Box<InboundSa>>,
    /// The newest first.
    outbound: Vec<OutboundSa>,
    /// What was installed and removed, in order.
    pub(crate) history: Vec<Change>,
    pub(crate) policies: Option<Arc<Spd>>,
    /// Inbound SAs in the order of their installation, gone ones too.
    pub(crate) added: Vec<u32>,
    /// Those that have gone since somebody looked.
    pub(crate) removed: Vec<u32>,
    first_packets: HashSet<Vec<u8>>,
}

/// An update without its keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    AddInbound,
    SwitchOutbound,
    RemoveInbound,
    RemoveOutbound,
    MoveOutbound,
    SetPolicies,
}

impl Plane {
    pub(crate) fn new(workers: NonZeroU16) -> Self {
        Self {
            workers,
            inbound: HashMap::new(),
            outbound: Vec::new(),
            history: Vec::new(),
            policies: None,
            added: Vec::new(),
            removed: Vec::new(),
            first_packets: HashSet::new(),
        }
    }

    /// Applies an update, which has to make sense.
    pub(crate) fn apply(&mut self, update: SaUpdate) {
        let change = match update {
            SaUpdate::AddInbound(sa) => {
                let spi = sa.spi();
                assert_eq!(
                    spi.worker(self.workers),
                    sa.owner(),
                    "SPI of another worker"
                );
                self.added.push(spi.get());
                let before = self.inbound.insert(spi.get(), sa);
                assert!(before.is_none(), "inbound SPI {spi} is in use");
                Change::AddInbound
            }
            SaUpdate::SwitchOutbound(mut sa) => {
                let known = self
                    .outbound
                    .iter()
                    .any(|known| known.child() == sa.child());
                assert!(!known, "outbound SA of child {} twice", sa.child());
                let fresh = self.first_packets.insert(key_stream(&mut sa));
                assert!(fresh, "a key was used before");
                self.outbound.insert(0, *sa);
                Change::SwitchOutbound
            }
            SaUpdate::RemoveInbound { spi, owner } => {
                let gone = self.inbound.remove(&spi.get());
                let gone = gone.unwrap_or_else(|| panic!("no inbound SA {spi} to remove"));
                assert_eq!(gone.owner(), owner, "removed from another worker");
                self.removed.push(spi.get());
                Change::RemoveInbound
            }
            SaUpdate::RemoveOutbound {
                child,
                reqid,
                owner,
            } => {
                let place = self.place(child, reqid, owner);
                self.outbound.remove(place);
                Change::RemoveOutbound
            }
            SaUpdate::MoveOutbound {
                child,
                reqid,
                owner,
                path,
                ..
            } => {
                let place = self.place(child, reqid, owner);
                self.outbound[place].set_path(path);
                Change::MoveOutbound
            }
            SaUpdate::SetPolicies(policies) => {
                self.policies = Some(policies);
                Change::SetPolicies
            }
        };
        self.history.push(change);
    }

    fn place(&self, child: ChildId, reqid: Reqid, owner: WorkerId) -> usize {
        let mut all = self.outbound.iter();
        let place = all.position(|sa| sa.child() == child);
        let place = place.unwrap_or_else(|| panic!("child {child} has no outbound SA"));
        let sa = &self.outbound[place];
        assert_eq!((sa.reqid(), sa.owner()), (reqid, owner));
        place
    }

    pub(crate) fn take_history(&mut self) -> Vec<Change> {
        std::mem::take(&mut self.history)
    }

    pub(crate) fn counts(&self) -> (usize, usize) {
        (self.inbound.len(), self.outbound.len())
    }

    /// SPIs of inbound and of outbound SAs.
    pub(crate) fn spis(&self) -> [BTreeSet<u32>; 2] {
        let outbound = self.outbound.iter().map(|sa| sa.spi().get());
        [self.inbound.keys().copied().collect(), outbound.collect()]
    }

    /// The SA that sends for a policy.
    pub(crate) fn newest(&mut self, reqid: Reqid) -> Option<&mut OutboundSa> {
        let mut all = self.outbound.iter_mut();
        all.find(|sa| sa.reqid() == reqid)
    }

    /// The SA that a worker seals with, if that is one of its own.
    pub(crate) fn own(&mut self, reqid: Reqid, worker: WorkerId) -> Option<&mut OutboundSa> {
        let newest = self.newest(reqid)?;
        let (owner, agreed) = (newest.owner(), newest.is_per_worker());
        let mut all = self.outbound.iter_mut();
        let own = all.find(|sa| (sa.reqid(), sa.owner()) == (reqid, worker))?;
        (owner == worker || (agreed && own.is_per_worker())).then_some(own)
    }

    /// The policies and workers that can seal.
    pub(crate) fn sealers(&mut self) -> Vec<(Reqid, WorkerId)> {
        let all = self.outbound.iter().map(|sa| (sa.reqid(), sa.owner()));
        let mut all: Vec<_> = all.collect();
        all.sort();
        all.dedup();
        all.retain(|(reqid, worker)| self.own(*reqid, *worker).is_some());
        all
    }

    pub(crate) fn receives(&self, spi: u32) -> bool {
        self.inbound.contains_key(&spi)
    }

    /// A packet of a child, sealed by a worker; `None` if it does not send for it. Crossed lifetimes
    /// go to `events`.
    pub(crate) fn seal(
        &mut self,
        (reqid, worker): (Reqid, WorkerId),
        events: &mut Vec<SaEvent>,
    ) -> Option<Vec<u8>> {
        let sa = self.own(reqid, worker)?;
        let child = sa.child();
        let sealed = seal(sa);
        if sa.take_hard_limit() {
            events.push(SaEvent::HardLifetime { child });
        }
        let (packet, soft) = sealed?;
        if soft {
            events.push(SaEvent::SoftLifetime { child });
        }
        Some(packet)
    }

    /// Opens a packet; false if it is lost here. What the packet shows goes to `events`.
    pub(crate) fn open(
        &mut self,
        mut packet: Vec<u8>,
        remote: SocketAddr,
        events: &mut Vec<SaEvent>,
    ) -> bool {
        let Some(spi) = packet.first_chunk().map(|spi| u32::from_be_bytes(*spi)) else {
            return false;
        };
        let Some(sa) = self.inbound.get_mut(&spi) else {
            return false;
        };
        let child = sa.child();
        let opened = sa.open(&mut packet, 0).map(|opened| {
            if opened.soft_limit_crossed {
                events.push(SaEvent::SoftLifetime { child });
            }
            opened.newest
        });
        if opened == Ok(true) && sa.peer_moved(remote) {
            let spi = sa.spi();
            events.push(SaEvent::PeerMoved { child, spi, remote });
        }
        if sa.take_hard_limit() {
            events.push(SaEvent::HardLifetime { child });
        }
        opened.is_ok()
    }
}

/// A packet from the first local to the first remote selector.
fn seal(sa: &mut OutboundSa) -> Option<(Vec<u8>, bool)> {
    let selectors = Arc::clone(sa.selectors());
    let (local, remote) = selectors.local.iter().find_map(|local| {
        let mut remotes = selectors.remote.iter();
        let remote = remotes.find(|remote| remote.is_ipv6() == local.is_ipv6())?;
        Some((local, remote))
    })?;
    let protocol = match (local.protocol(), remote.protocol()) {
        (0, 0) => 17,
        (0, protocol) | (protocol, _) => protocol,
    };
    let inner = inner_packet(
        (local.start(), local.ports().0),
        (remote.start(), remote.ports().0),
        protocol,
    );
    let mut out = vec![0; sa.sealed_len(inner.len())];
    let sealed = sa.seal(&[&inner], &mut out).ok()?;
    out.truncate(sealed.len);
    Some((out, sealed.soft_limit_crossed))
}

/// What an SA makes of its first packet, without the header: the same only under the same key.
fn key_stream(sa: &mut OutboundSa) -> Vec<u8> {
    let (packet, _) = seal(sa).expect("a new SA seals");
    let is_clear = packet[8] == 0x45 || packet[16] == 0x45; // behind an IV of GMAC
    let end = if is_clear {
        packet.len()
    } else {
        packet.len() - 16
    };
    packet[8..end].to_vec()
}

fn inner_packet((src, from): (IpAddr, u16), (dst, to): (IpAddr, u16), protocol: u8) -> Vec<u8> {
    let mut payload = vec![0; 24];
    payload[..2].copy_from_slice(&from.to_be_bytes());
    payload[2..4].copy_from_slice(&to.to_be_bytes());
    match (src, dst) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => {
            let mut packet = vec![0x45, 0, 0, 44, 0, 0, 0, 0, 64, protocol, 0, 0];
            packet.extend(src.octets());
            packet.extend(dst.octets());
            packet.extend(payload);
            packet
        }
        (IpAddr::V6(src), IpAddr::V6(dst)) => {
            let mut packet = vec![0x60, 0, 0, 0, 0, 24, protocol, 64];
            packet.extend(src.octets());
            packet.extend(dst.octets());
            packet.extend(payload);
            packet
        }
        _ => panic!("selectors of two families"),
    }
}
