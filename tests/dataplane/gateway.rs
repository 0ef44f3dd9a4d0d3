//! Gateways without threads and sockets: packets go in and come out.
#![allow(
    dead_code,
    reason = "every test program compiles this module and uses its part"
)]

use std::io::IoSlice;
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU16;
use std::sync::Arc;
use std::time::Instant;

use lockgate::crypto::packet::{PacketKey, encryption_key_len};
use lockgate::dataplane::{
    Carrier, Egress, Outbound, Pipeline, Rest, WorkerCommand, WorkerSnapshot, detached_pipelines,
};
use lockgate::io::burst::{Received, Transmit, TransmitBurst};
use lockgate::io::offload::{MergeKinds, MergeScratch, Merger};
use lockgate::ipsec::{
    Action, ChildId, Direction, DropReason, EspEncap, EspPath, HeaderRules, InboundParams,
    InboundSa, Limits, Mode, OutboundParams, OutboundSa, Policy, PolicyId, Reqid, SaEvent,
    SaUpdate, SaUsage, Selectors, Spd, Spi, Template, WorkerId,
};
use lockgate::wire::proposal::{CipherSuite, EncryptionId};
use lockgate::wire::selector::TrafficSelector;
use lockgate::wire::vnet::VnetHeader;

pub(crate) const REQID: Reqid = Reqid(7);
pub(crate) const CHILD: ChildId = ChildId(70);
pub(crate) const PORT: u16 = 4500;

/// What a tunnel between two gateways looks like.
#[derive(Clone)]
pub(crate) struct Tunnel {
    pub(crate) inner_v6: bool,
    pub(crate) outer_v6: bool,
    pub(crate) encap: EspEncap,
    pub(crate) rules: HeaderRules,
    pub(crate) limits: Limits,
    pub(crate) path_mtu: u16,
    pub(crate) replay_window: u32,
    pub(crate) workers: u16,
    /// The worker that owns both halves, on both sides.
    pub(crate) owner: u16,
    /// Networks of both sites where the inner packets are IPv6.
    pub(crate) sites_v6: [&'static str; 2],
    /// Whether every worker may have an SA of its own.
    pub(crate) per_worker: bool,
    /// Narrows both selectors.
    pub(crate) protocol_and_port: Option<(u8, u16)>,
}

impl Default for Tunnel {
    fn default() -> Self {
        Self {
            inner_v6: false,
            outer_v6: false,
            encap: EspEncap::Udp,
            rules: HeaderRules::default(),
            limits: Limits::NONE,
            path_mtu: 1500,
            replay_window: 64,
            workers: 1,
            owner: 0,
            sites_v6: ["2001:db8:a::/48", "2001:db8:b::/48"],
            per_worker: false,
            protocol_and_port: None,
        }
    }
}

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

impl Tunnel {
    /// Two gateways with this tunnel between them.
    pub(crate) fn build(&self) -> (Gateway, Gateway) {
        let (mut a, mut b) = self.without_sas();
        self.connect(&mut a, &mut b, 0);
        (a, b)
    }

    /// Two gateways with policies only.
    pub(crate) fn without_sas(&self) -> (Gateway, Gateway) {
        let [spd_a, spd_b] = self.policies();
        (
            Gateway::new(self.workers, spd_a),
            Gateway::new(self.workers, spd_b),
        )
    }

    /// The SPDs of both gateways.
    pub(crate) fn policies(&self) -> [Spd; 2] {
        let [site_a, site_b] = self.sites();
        [spd(site_a, site_b), spd(site_b, site_a)]
    }

    /// Gives both gateways the SAs of a `generation`, as a rekey does.
    pub(crate) fn connect(&self, a: &mut Gateway, b: &mut Gateway, generation: u32) {
        let [for_a, for_b] = self.updates(generation);
        for_a.into_iter().for_each(|update| a.update(update));
        for_b.into_iter().for_each(|update| b.update(update));
    }

    /// What both control threads send to their workers when the SAs of a `generation` are made.
    pub(crate) fn updates(&self, generation: u32) -> [[SaUpdate; 2]; 2] {
        let [site_a, site_b] = self.sites();
        let [outer_a, outer_b] = self.outer();
        let a_to_b = self.spi(0x1000 + generation);
        let b_to_a = self.spi(0x2000 + generation);
        let child = ChildId(CHILD.0 + u64::from(generation));
        [
            (b_to_a, a_to_b, outer_a, outer_b, site_a, site_b),
            (a_to_b, b_to_a, outer_b, outer_a, site_b, site_a),
        ]
        .map(|(inbound, outbound, local, remote, here, there)| {
            let path = EspPath {
                encap: self.encap,
                local,
                remote,
            };
            let selectors = Arc::new(Selectors {
                local: vec![here],
                remote: vec![there],
            });
            let outbound = self.outbound(outbound, child, path, Arc::clone(&selectors));
            let inbound = self.inbound(inbound, child, path, selectors);
            [
                SaUpdate::AddInbound(Box::new(inbound)),
                SaUpdate::SwitchOutbound(Box::new(outbound)),
            ]
        })
    }

    /// The SPI that the first gateway chose for a generation.
    pub(crate) fn inbound_spi_of_a(&self, generation: u32) -> Spi {
        self.spi(0x2000 + generation)
    }

    fn inbound(
        &self,
        spi: Spi,
        child: ChildId,
        path: EspPath,
        selectors: Arc<Selectors>,
    ) -> InboundSa {
        InboundSa::new(InboundParams {
            spi,
            child,
            reqid: REQID,
            owner: WorkerId(self.owner),
            key: key(spi),
            esn: true,
            replay_window: self.replay_window,
            path,
            selectors,
            rules: self.rules,
            limits: self.limits,
            usage: Arc::new(SaUsage::default()),
        })
    }

    fn outbound(
        &self,
        spi: Spi,
        child: ChildId,
        path: EspPath,
        selectors: Arc<Selectors>,
    ) -> OutboundSa {
        let mut sa = OutboundSa::new(OutboundParams {
            spi,
            child,
            reqid: REQID,
            owner: WorkerId(self.owner),
            key: key(spi),
            esn: true,
            path,
            selectors,
            rules: self.rules,
            limits: self.limits,
            usage: Arc::new(SaUsage::default()),
            path_mtu: self.path_mtu,
        });
        sa.set_per_worker(self.per_worker);
        sa
    }

    /// An SPI that is the owner's.
    fn spi(&self, base: u32) -> Spi {
        let workers = u32::from(self.workers);
        Spi::new(base * workers + u32::from(self.owner)).expect("not reserved")
    }

    fn sites(&self) -> [TrafficSelector; 2] {
        let nets = if self.inner_v6 {
            self.sites_v6
        } else {
            ["10.1.0.0/16", "10.2.0.0/16"]
        };
        nets.map(|net| {
            let selector = TrafficSelector::net(net.parse().expect("literal"));
            match self.protocol_and_port {
                Some((protocol, port)) => selector
                    .with_ports(protocol, port..=port)
                    .expect("a single port"),
                None => selector,
            }
        })
    }

    fn outer(&self) -> [SocketAddr; 2] {
        let addresses = if self.outer_v6 {
            ["2001:db8:1::a", "2001:db8:2::b"]
        } else {
            ["192.0.2.1", "198.51.100.1"]
        };
        let port = if self.encap == EspEncap::Udp { PORT } else { 0 };
        addresses.map(|text| SocketAddr::new(text.parse().expect("literal"), port))
    }

    /// Host number `n` at the first site.
    pub(crate) fn host_a(&self, n: u16, port: u16) -> SocketAddr {
        host(
            if self.inner_v6 {
                "2001:db8:a::1:0"
            } else {
                "10.1.1.0"
            },
            n,
            port,
        )
    }

    /// Host number `n` at the second site.
    pub(crate) fn host_b(&self, n: u16, port: u16) -> SocketAddr {
        host(
            if self.inner_v6 {
                "2001:db8:b::1:0"
            } else {
                "10.2.1.0"
            },
            n,
            port,
        )
    }
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
        let Some(mut stray) = pipeline.next_stray() else {
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
            pipeline.inbound_stray(&mut stray, |inner| written.push(inner.to_vec()));
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
        pipeline.inbound_train(train.carrier, received, |inner| {
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
            pipeline.inbound_train(first.carrier, received, |inner| {
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

/// Protects what goes from `local` to `remote`.
pub(crate) fn spd(local: TrafficSelector, remote: TrafficSelector) -> Spd {
    Spd::new(vec![policy(local, remote, protect(), 100)])
}

pub(crate) fn protect() -> Action {
    Action::Protect(Template {
        reqid: REQID,
        mode: Mode::Tunnel,
    })
}

pub(crate) fn policy(
    local: TrafficSelector,
    remote: TrafficSelector,
    action: Action,
    priority: u32,
) -> Policy {
    Policy {
        id: PolicyId(priority),
        name: "test".to_owned(),
        direction: Direction::Out,
        local,
        remote,
        action,
        priority,
    }
}

/// A key of its own for each SPI, the same at both ends.
fn key(spi: Spi) -> PacketKey {
    let suite = CipherSuite {
        encryption: EncryptionId::AES_GCM_16,
        key_bits: 256,
        integrity: None,
    };
    let mut bytes = vec![0x42; encryption_key_len(&suite)];
    bytes[..4].copy_from_slice(&spi.to_be_bytes());
    PacketKey::new(suite, &bytes, &[]).expect("a key of the right length")
}

fn host(net: &str, n: u16, port: u16) -> SocketAddr {
    let address = match net.parse().expect("literal") {
        IpAddr::V4(net) => IpAddr::from((u32::from(net) + u32::from(n)).to_be_bytes()),
        IpAddr::V6(net) => IpAddr::from((u128::from(net) + u128::from(n)).to_be_bytes()),
    };
    SocketAddr::new(address, port)
}
