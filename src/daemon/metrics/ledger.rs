//! What SAs have carried and how handshakes ended, kept when the SAs are gone.

use std::{collections::HashMap, sync::Arc};

use crate::{
    dataplane::Traffic,
    ike::{ChildConfig, ChildState, ChildStatus, Connection, Event, IkeSaStatus, IkeState, Pad},
    ipsec::{ChildId, SaUsage},
};

/// The traffic of every child over all of its SAs, and how handshakes ended.
#[derive(Debug, Default)]
pub(in crate::daemon) struct Ledger {
    handshakes: Handshakes,
    /// Traffic of SAs that are gone, by connection and child.
    past: HashMap<String, HashMap<String, Carried>>,
    live: HashMap<ChildId, Live>,
    /// Established IKE SAs of each connection, as last seen.
    established: HashMap<String, u64>,
    /// Counts the looks, so that an SA that was not seen in the last one is known to be gone.
    look: u64,
}

/// How handshakes ended so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Handshakes {
    pub(super) initiator: Outcomes,
    pub(super) responder: Outcomes,
    pub(super) ike_rekeys: u64,
    pub(super) children: u64,
    pub(super) child_rekeys: u64,
}

/// Handshakes in one role.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Outcomes {
    pub(super) established: u64,
    pub(super) failed: u64,
}

/// What a child has carried.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Carried {
    pub(super) inbound: Traffic,
    pub(super) outbound: Traffic,
    /// Child SAs installed now.
    pub(super) installed: u64,
}

/// What the ledger says about what is configured, up or down.
#[derive(Debug)]
pub(in crate::daemon) struct Tunnels {
    pub(super) handshakes: Handshakes,
    /// The connections, and how many established IKE SAs each has.
    pub(super) connections: Vec<(Arc<Connection>, u64)>,
    /// The children that protect traffic.
    pub(super) children: Vec<Tunnel>,
}

/// One configured child.
#[derive(Debug)]
pub(super) struct Tunnel {
    pub(super) connection: Arc<Connection>,
    pub(super) child: Arc<ChildConfig>,
    pub(super) carried: Carried,
}

#[derive(Debug)]
struct Live {
    connection: String,
    child: String,
    usage_in: Arc<SaUsage>,
    usage_out: Arc<SaUsage>,
    is_up: bool,
    seen: u64,
}

impl Ledger {
    /// Notes what an event says. An SA that comes and goes between two looks is known from here.
    pub(in crate::daemon) fn note(&mut self, event: &Event) {
        let handshakes = &mut self.handshakes;
        match event {
            Event::IkeUp { ike } => handshakes.of(ike).established += 1,
            Event::IkeDown { ike, .. } if ike.established.is_none() => {
                handshakes.of(ike).failed += 1;
            }
            Event::IkeRekeyed { .. } => handshakes.ike_rekeys += 1,
            Event::ChildUp { ike, child } => {
                handshakes.children += 1;
                self.add(ike, child);
            }
            Event::ChildRekeyed { ike, new, .. } => {
                handshakes.child_rekeys += 1;
                self.add(ike, new);
            }
            _ => {}
        }
    }

    /// Begins a look at all SAs: each is shown once, then [`Self::settle`] ends the look.
    pub(in crate::daemon) fn begin(&mut self) {
        self.look += 1;
        self.established.clear();
    }

    /// Sees one IKE SA and its children.
    pub(in crate::daemon) fn see(&mut self, ike: &IkeSaStatus) {
        if matches!(ike.state, IkeState::Established | IkeState::Rekeying) {
            let count = self.established.entry(ike.name.clone()).or_default();
            *count += 1;
        }
        for child in &ike.children {
            self.add(ike, child);
        }
    }

    /// Ends a look: what was not seen is gone, and its traffic is kept. An inbound SA that still
    /// receives, or was not given back yet, still counts.
    pub(in crate::daemon) fn settle(&mut self) {
        let (look, past) = (self.look, &mut self.past);
        self.live.retain(|_, sa| {
            sa.is_up &= sa.seen == look;
            let in_use = |usage| Arc::strong_count(usage) > 1;
            let stays = sa.seen == look || in_use(&sa.usage_in) || in_use(&sa.usage_out);
            if !stays {
                let children = past.entry(std::mem::take(&mut sa.connection)).or_default();
                let carried = children.entry(std::mem::take(&mut sa.child)).or_default();
                carried.inbound = sum(carried.inbound, traffic(&sa.usage_in));
                carried.outbound = sum(carried.outbound, traffic(&sa.usage_out));
            }
            stays
        });
    }

    /// Forgets the past of what is not configured any more.
    pub(in crate::daemon) fn keep(&mut self, pad: &Pad) {
        self.past.retain(|name, children| {
            let connection = pad.connection(name);
            children.retain(|child, _| connection.is_some_and(|c| c.child(child).is_some()));
            !children.is_empty()
        });
    }

    /// What it says about a configuration.
    pub(in crate::daemon) fn tunnels(&self, pad: &Pad) -> Tunnels {
        let carried = self.carried();
        let protects = |child: &&Arc<ChildConfig>| child.mode.protects();
        let children = pad.connections.iter().flat_map(|connection| {
            let children = connection.children.iter().filter(protects);
            children.map(|child| {
                let carried = carried.get(&(connection.name.as_str(), child.name.as_str()));
                Tunnel {
                    connection: Arc::clone(connection),
                    child: Arc::clone(child),
                    carried: carried.copied().unwrap_or_default(),
                }
            })
        });
        let connections = pad.connections.iter().map(|connection| {
            let established = self.established.get(&connection.name);
            (Arc::clone(connection), established.copied().unwrap_or(0))
        });
        Tunnels {
            handshakes: self.handshakes,
            connections: connections.collect(),
            children: children.collect(),
        }
    }

    /// What every child has carried until now, by connection and child.
    fn carried(&self) -> HashMap<(&str, &str), Carried> {
        let past = self.past.iter().flat_map(|(connection, children)| {
            let children = children.iter();
            children.map(move |(child, carried)| ((connection.as_str(), child.as_str()), *carried))
        });
        let mut all: HashMap<_, _> = past.collect();
        for sa in self.live.values() {
            let carried: &mut Carried = all.entry((&sa.connection, &sa.child)).or_default();
            carried.inbound = sum(carried.inbound, traffic(&sa.usage_in));
            carried.outbound = sum(carried.outbound, traffic(&sa.usage_out));
            carried.installed += u64::from(sa.is_up);
        }
        all
    }

    fn add(&mut self, ike: &IkeSaStatus, child: &ChildStatus) {
        let look = self.look;
        let live = self.live.entry(child.id).or_insert_with(|| Live {
            connection: ike.name.clone(),
            child: child.name.clone(),
            usage_in: Arc::clone(&child.usage_in),
            usage_out: Arc::clone(&child.usage_out),
            is_up: true,
            seen: look,
        });
        live.is_up = !matches!(child.state, ChildState::Deleting | ChildState::Deleted);
        live.seen = look;
    }
}

impl Handshakes {
    fn of(&mut self, ike: &IkeSaStatus) -> &mut Outcomes {
        if ike.initiator {
            &mut self.initiator
        } else {
            &mut self.responder
        }
    }
}

fn traffic(usage: &SaUsage) -> Traffic {
    Traffic {
        packets: usage.packets(),
        bytes: usage.bytes(),
    }
}

fn sum(a: Traffic, b: Traffic) -> Traffic {
    Traffic {
        packets: a.packets.saturating_add(b.packets),
        bytes: a.bytes.saturating_add(b.bytes),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        crypto::PacketKey,
        ipsec::{
            EspEncap, EspPath, HeaderRules, Limits, OutboundParams, OutboundSa, Reqid, Selectors,
            Spi, WorkerId,
        },
        wire::proposal::{CipherSuite, EncryptionId},
    };

    /// An SA as a worker holds it.
    fn sa(usage: &Arc<SaUsage>) -> OutboundSa {
        let cipher = CipherSuite {
            encryption: EncryptionId::AES_GCM_16,
            key_bits: 128,
            integrity: None,
        };
        OutboundSa::new(OutboundParams {
            spi: Spi::new(0x1000).unwrap(),
            child: ChildId(1),
            reqid: Reqid(1),
            owner: WorkerId(0),
            key: PacketKey::new(cipher, &[1; 20], &[]).unwrap(),
            esn: false,
            path: EspPath {
                encap: EspEncap::None,
                local: ([192, 0, 2, 1], 0).into(),
                remote: ([192, 0, 2, 2], 0).into(),
            },
            selectors: Arc::new(Selectors {
                local: Vec::new(),
                remote: Vec::new(),
            }),
            rules: HeaderRules::default(),
            limits: Limits::default(),
            usage: Arc::clone(usage),
            path_mtu: 1500,
        })
    }

    #[test]
    fn what_an_sa_carries_after_its_end_until_a_worker_has_given_it_back_is_counted() {
        let usage = Arc::default();
        let mut sa = sa(&usage);
        let mut ledger = Ledger::default();
        let live = Live {
            connection: "site".to_owned(),
            child: "lan".to_owned(),
            usage_in: Arc::default(),
            usage_out: usage,
            is_up: true,
            seen: 0,
        };
        ledger.live.insert(ChildId(1), live);
        let carried = |ledger: &mut Ledger| {
            ledger.begin();
            ledger.settle();
            ledger.carried()[&("site", "lan")]
        };
        assert_eq!(
            carried(&mut ledger).installed,
            0,
            "nobody tells of it any more"
        );
        sa.seal(&[&[0x45; 40]], &mut [0; 200]).unwrap();
        assert_eq!(carried(&mut ledger).outbound.packets, 1);
        drop(sa);
        assert_eq!(carried(&mut ledger).outbound.packets, 1);
        assert!(ledger.live.is_empty());
    }
}
