//! Gateways without threads and sockets: packets go in and come out.
#![allow(
    dead_code,
    unused_imports,
    reason = "every test program compiles this module and uses its part"
)]

mod tunnel;

use std::io::IoSlice;
use std::net::SocketAddr;
use std::num::NonZeroU16;
use std::sync::Arc;
use std::time::Instant;

use lockgate::dataplane::{
    Carrier, Egress, Outbound, Pipeline, Rest, WorkerCommand, WorkerSnapshot, detached_pipelines,
};
use lockgate::io::burst::{Received, SLOT_LEN, Transmit, TransmitBurst};
use lockgate::io::offload::{MergeKinds, MergeScratch, Merger};
use lockgate::ipsec::{DropReason, SaEvent, SaUpdate, Spd, WorkerId};
use lockgate::wire::vnet::VnetHeader;

pub(crate) use tunnel::{CHILD, PORT, REQID, Tunnel, policy, protect, spd};

/// A datagram on the wire between two gateways.
#[derive(Clone, Debug)]
pub(crate) struct Datagram {
    pub(crate) transmit: Transmit,
    pub(crate) bytes: Vec<u8>,
    pub(crate) carrier: Carrier,
}

/// What became of packets that were given to a gateway's TUN.
#[derive(Debug, Default)]
pub(crate) struct Sent {
    pub(crate) datagrams: Vec<Datagram>,
    pub(crate) replies: Vec<Vec<u8>>,
    /// How often the egress was full.
    pub(crate) interruptions: usize,
}

pub(crate) struct Gateway {
    pub(crate) pipelines: Vec<Pipeline>,
    pub(crate) egress: Egress,
    pub(crate) now: Instant,
}

impl Gateway {
    pub(crate) fn new(workers: u16, spd: Spd) -> Self {
        let workers = NonZeroU16::new(workers).expect("not zero");
        Self {
            pipelines: detached_pipelines(workers, &Arc::new(spd)),
            egress: Egress::default(),
            now: Instant::now(),
        }
    }

    /// What the control thread's handle does with an update.
    pub(crate) fn update(&mut self, update: SaUpdate) {
        let owner = match &update {
            SaUpdate::AddInbound(sa) => sa.owner(),
            SaUpdate::SwitchOutbound(sa) => {
                let (child, reqid, owner) = (sa.child(), sa.reqid(), sa.owner());
                let (selectors, per_worker) = (Arc::clone(sa.selectors()), sa.is_per_worker());
                for (number, pipeline) in self.pipelines.iter_mut().enumerate() {
                    if number != usize::from(owner.0) {
                        let selectors = Arc::clone(&selectors);
                        pipeline.apply(WorkerCommand::NoteElsewhere {
                            child,
                            reqid,
                            owner,
                            selectors,
                            per_worker,
                        });
                    }
                }
                owner
            }
            SaUpdate::RemoveInbound { owner, .. }
            | SaUpdate::RemoveOutbound { owner, .. }
            | SaUpdate::MoveOutbound { owner, .. } => *owner,
            SaUpdate::SetPolicies(_) => WorkerId(0),
        };
        self.pipelines[usize::from(owner.0)].apply(WorkerCommand::Update(update));
    }

    /// Gives one packet to the TUN of worker 0.
    pub(crate) fn send(&mut self, packet: &[u8]) -> Sent {
        self.send_at(0, packet)
    }

    /// Gives one packet to the TUN of a worker.
    pub(crate) fn send_at(&mut self, worker: usize, packet: &[u8]) -> Sent {
        self.send_super(worker, &VnetHeader::default(), packet)
    }

    /// Gives a worker what one read from its TUN gave.
    pub(crate) fn send_super(&mut self, worker: usize, header: &VnetHeader, packet: &[u8]) -> Sent {
        let mut packet = packet.to_vec();
        let mut sent = Sent::default();
        let pipeline = &mut self.pipelines[worker];
        let outbound = pipeline.outbound(self.now, header, &mut packet, &mut self.egress);
        let mut rest = sent.note(outbound);
        while let Some(left) = rest {
            sent.datagrams.extend(drain_all(&mut self.egress));
            let outbound = pipeline.resume(self.now, left, &mut packet, &mut self.egress);
            rest = sent.note(outbound);
            sent.interruptions += 1;
        }
        pipeline.finish();
        sent.datagrams.extend(drain_all(&mut self.egress));
        sent
    }

    /// Lets a worker process one stray that was handed to it; what came out of the tunnel with it.
    pub(crate) fn take_over(&mut self, worker: usize) -> (Sent, Vec<Vec<u8>>) {
        let (mut sent, mut written) = (Sent::default(), Vec::new());
        let pipeline = &mut self.pipelines[worker];
        let stray = pipeline.next_inbound_stray();
        let stray = stray.or_else(|| pipeline.next_outbound_stray());
        let Some(mut stray) = stray else {
            return (sent, written);
        };
        if stray.is_outbound() {
            let mut index = 0;
            while let Some(outbound) =
                pipeline.outbound_stray(self.now, &mut stray, index, &mut self.egress)
            {
                let mut rest = sent.note(outbound);
                while let Some(left) = rest {
                    sent.datagrams.extend(drain_all(&mut self.egress));
                    let part = (&mut *stray, index);
                    let outbound = pipeline.resume_stray(self.now, left, part, &mut self.egress);
                    rest = sent.note(outbound);
                }
                index += 1;
            }
        } else {
            let mut space = vec![0; 2 * SLOT_LEN];
            let mut room = space.as_mut_slice();
            pipeline.inbound_stray(&mut stray, &mut room, |inner| {
                written.push(inner.to_vec());
            });
        }
        pipeline.recycle(stray);
        pipeline.finish();
        sent.datagrams.extend(drain_all(&mut self.egress));
        pipeline.has_sent();
        (sent, written)
    }

    /// A datagram arrives at worker 0; returns what is written to the TUN.
    pub(crate) fn receive(&mut self, datagram: &Datagram) -> Option<Vec<u8>> {
        self.receive_at(0, datagram)
    }

    /// A datagram arrives at a worker; returns what is written to the TUN.
    pub(crate) fn receive_at(&mut self, worker: usize, datagram: &Datagram) -> Option<Vec<u8>> {
        let mut inner = self.receive_train(worker, datagram, None);
        assert!(inner.len() <= 1, "one datagram holds one packet");
        inner.pop()
    }

    /// Datagrams arrive at a worker as one train, given as the first of them with the bytes of all.
    pub(crate) fn receive_train(
        &mut self,
        worker: usize,
        train: &Datagram,
        segment_size: Option<u16>,
    ) -> Vec<Vec<u8>> {
        let mut bytes = train.bytes.clone();
        let received = Received {
            bytes: &mut bytes,
            remote: SocketAddr::new(train.transmit.local, train.source_port()),
            local: train.transmit.remote.ip(),
            tos: train.transmit.tos,
            segment_size,
        };
        let pipeline = &mut self.pipelines[worker];
        let mut delivered = Vec::new();
        let mut space = vec![0; 2 * train.bytes.len()];
        let mut room = space.as_mut_slice();
        pipeline.inbound_train(train.carrier, received, &mut room, |inner| {
            delivered.push(inner.to_vec());
        });
        pipeline.finish();
        delivered
    }

    /// A burst of trains arrives at a worker, which merges what came out of them; returns what is
    /// written to the TUN.
    pub(crate) fn receive_burst(
        &mut self,
        worker: usize,
        trains: &[Train],
        kinds: MergeKinds,
    ) -> Vec<(VnetHeader, Vec<u8>)> {
        let mut arenas: Vec<_> = trains.iter().map(|train| train.bytes()).collect();
        let mut written = Vec::new();
        let mut sink = |header: &VnetHeader, pieces: &[IoSlice<'_>]| {
            let bytes: Vec<u8> = pieces.iter().flat_map(|piece| piece.to_vec()).collect();
            written.push((*header, bytes));
        };
        let mut space = vec![0; 2 * arenas.iter().map(Vec::len).sum::<usize>()];
        let mut room = space.as_mut_slice();
        let mut scratch = MergeScratch::new();
        let mut merger = Merger::new(kinds, &mut scratch);
        let pipeline = &mut self.pipelines[worker];
        for (train, bytes) in trains.iter().zip(&mut arenas) {
            let first = &train.datagrams[0];
            let received = Received {
                bytes,
                remote: SocketAddr::new(first.transmit.local, first.source_port()),
                local: first.transmit.remote.ip(),
                tos: first.transmit.tos,
                segment_size: train.segment_size(),
            };
            pipeline.inbound_train(first.carrier, received, &mut room, |inner| {
                merger.push(inner, &mut sink);
            });
        }
        merger.finish(&mut sink);
        pipeline.finish();
        written
    }

    /// The events of all workers so far.
    pub(crate) fn events(&self) -> Vec<SaEvent> {
        let rings = self.pipelines.iter().map(Pipeline::event_ring);
        rings
            .flat_map(|ring| std::iter::from_fn(move || ring.pop()))
            .collect()
    }

    pub(crate) fn stats(&self, worker: usize) -> WorkerSnapshot {
        self.pipelines[worker].stats().snapshot()
    }

    /// What waits in the egress, which is empty then.
    pub(crate) fn drain(&mut self) -> Vec<Datagram> {
        drain_all(&mut self.egress)
    }

    /// How many packets all workers dropped for a reason.
    pub(crate) fn dropped(&self, reason: DropReason) -> u64 {
        self.pipelines
            .iter()
            .map(|pipeline| pipeline.stats().snapshot().dropped(reason))
            .sum()
    }

    /// The reasons for which packets were dropped, each as often as it happened.
    pub(crate) fn drops(&self) -> Vec<DropReason> {
        let times = |reason| usize::try_from(self.dropped(reason)).expect("a few");
        DropReason::ALL
            .into_iter()
            .flat_map(|reason| std::iter::repeat_n(reason, times(reason)))
            .collect()
    }
}

impl Sent {
    pub(crate) fn note(&mut self, outbound: Outbound<'_>) -> Option<Rest> {
        match outbound {
            Outbound::Done => None,
            Outbound::Reply(reply) => {
                self.replies.push(reply.to_vec());
                None
            }
            Outbound::Full(rest) => Some(rest),
        }
    }
}

fn drain_all(egress: &mut Egress) -> Vec<Datagram> {
    let udp = Carrier::Udp { port: PORT };
    let mut datagrams = Vec::new();
    for (burst, carrier) in [
        (&mut egress.udp_v4, udp),
        (&mut egress.udp_v6, udp),
        (&mut egress.raw_v4, Carrier::Raw),
        (&mut egress.raw_v6, Carrier::Raw),
    ] {
        datagrams.extend(drain(burst, carrier));
    }
    datagrams
}

/// Datagrams that one receive call returned as one.
#[derive(Clone, Debug)]
pub(crate) struct Train {
    pub(crate) datagrams: Vec<Datagram>,
}

impl Train {
    /// Each datagram alone.
    pub(crate) fn singles(datagrams: &[Datagram]) -> Vec<Self> {
        let single = |datagram: &Datagram| Self {
            datagrams: vec![datagram.clone()],
        };
        datagrams.iter().map(single).collect()
    }

    /// What the kernel's GRO makes of datagrams: neighbours of one length, the last may be shorter.
    pub(crate) fn group(datagrams: &[Datagram]) -> Vec<Self> {
        let mut trains: Vec<Self> = Vec::new();
        for datagram in datagrams {
            match trains.last_mut() {
                Some(train) if train.takes(datagram) => train.datagrams.push(datagram.clone()),
                _ => trains.extend(Self::singles(std::slice::from_ref(datagram))),
            }
        }
        trains
    }

    fn takes(&self, next: &Datagram) -> bool {
        let (first, last) = (
            &self.datagrams[0],
            &self.datagrams[self.datagrams.len() - 1],
        );
        next.carrier != Carrier::Raw
            && first.transmit == next.transmit
            && first.bytes.len() == last.bytes.len()
            && next.bytes.len() <= first.bytes.len()
            && self.datagrams.len() < 64
            && self.bytes().len() + next.bytes.len() < 65_507
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        let bytes = self.datagrams.iter().map(|datagram| &datagram.bytes[..]);
        bytes.collect::<Vec<_>>().concat()
    }

    pub(crate) fn segment_size(&self) -> Option<u16> {
        let size = u16::try_from(self.datagrams[0].bytes.len()).expect("a datagram");
        (self.datagrams.len() > 1).then_some(size)
    }
}

impl Datagram {
    fn source_port(&self) -> u16 {
        match self.carrier {
            Carrier::Udp { port } => port,
            Carrier::Raw => 0,
        }
    }
}

fn drain(burst: &mut TransmitBurst, carrier: Carrier) -> Vec<Datagram> {
    let datagrams = burst
        .iter()
        .map(|(transmit, bytes)| Datagram {
            transmit,
            bytes: bytes.to_vec(),
            carrier,
        })
        .collect();
    burst.clear();
    datagrams
}
