//! The packet path, top to bottom.
//!
//! A worker owns its queues, its share of the SAD and a copy of the SPD. Nothing here is shared, so
//! nothing here locks, allocates or logs. Nothing here owns a socket either: bytes go in and come
//! out, so tests, benchmarks and fuzzers drive the same code as the workers.
//!
//! ```text
//! outbound  TUN ─► policy ─► outbound SA ─► MTU, MSS ─► seal ─► egress        RFC 4301 §5.1
//! inbound   socket ─► demux ─► inbound SA ─► open ─► MSS ─► TUN               RFC 4301 §5.2
//! ```
//!
//! A packet moves on, is dropped under a [`DropReason`], is handed to the worker that owns its SA,
//! or is punted to the control thread.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam::queue::ArrayQueue;

use super::egress::Egress;
use super::events::EventSender;
use super::hand_off::{HandOff, Origin};
use super::limits::{Acquires, PathMtus, TokenBucket};
use super::mss;
use super::stats::WorkerStats;
use crate::io::burst::{PushError, Received, SLOT_LEN, Transmit};
use crate::ipsec::{
    Action, DropReason, EspEncap, OutboundEntry, OutboundSa, Reqid, SaEvent, Sad, Spd, Spi,
    WorkerId,
};
use crate::wire::esp::{Demux, EspHeader, NON_ESP_MARKER, demux_udp_encap};
use crate::wire::ip::{self, Flow, IpPacket};

/// What a received packet came in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Carrier {
    /// UDP to this port of ours: ESP, IKE or a keepalive (RFC 3948).
    Udp {
        /// Our port.
        port: u16,
    },
    /// IP protocol 50.
    Raw,
}

/// The packet path of one worker.
#[derive(Debug)]
pub struct Pipeline {
    pub(super) worker: WorkerId,
    pub(super) workers: std::num::NonZeroU16,
    pub(super) sad: Sad,
    pub(super) spd: Arc<Spd>,
    /// What the SPD said about the previous packet; a run of one flow asks it once.
    pub(super) run: Option<(Flow, Verdict)>,
    pub(super) acquires: Acquires,
    pub(super) too_big: TokenBucket,
    pub(super) path_mtus: PathMtus,
    pub(super) stats: Arc<WorkerStats>,
    pub(super) events: EventSender,
    pub(super) hand_off: HandOff,
    pub(super) reply: Box<[u8]>,
    pub(super) fragment: Box<[u8]>,
}

/// What the SPD says about a flow, without borrowing from it.
#[derive(Clone, Copy, Debug)]
pub(super) enum Verdict {
    Protect(Reqid),
    Drop(DropReason),
}

/// Who read an outbound packet and chose the worker for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Finder {
    /// This worker.
    Worker,
    /// Another one, which may not have heard of a rekey yet: any SA of ours will do.
    Other,
}

/// Why a packet does not go on to the next step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stop {
    Drop(DropReason),
    Elsewhere(WorkerId),
    Punt,
    /// Too big; the sender is to be told this MTU.
    Reply(u16),
}

impl From<DropReason> for Stop {
    fn from(reason: DropReason) -> Self {
        Self::Drop(reason)
    }
}

impl Pipeline {
    /// Takes one packet from the TUN to the egress.
    ///
    /// Returns an ICMP error that is to be written back to the TUN, if the packet earned one.
    pub fn outbound(
        &mut self,
        now: Instant,
        packet: &mut [u8],
        egress: &mut Egress,
    ) -> Option<&[u8]> {
        match self.outbound_one(now, packet, egress, Finder::Worker) {
            Ok(()) => None,
            Err(Stop::Elsewhere(owner)) => {
                self.give(owner, packet, Origin::Tun);
                None
            }
            Err(stop) => self.stop_outbound(now, packet, stop),
        }
    }

    /// Takes one received packet to the inner packet that is to be written to the TUN, if there is
    /// one. It lies inside `received`, which was decrypted in place.
    pub fn inbound<'a>(
        &mut self,
        carrier: Carrier,
        received: Received<'a>,
    ) -> Option<&'a mut [u8]> {
        let Received {
            bytes,
            remote,
            local,
            tos,
            ..
        } = received;
        match self.find_inbound(carrier, bytes) {
            Ok(spi) => self.open(spi, carrier, bytes, remote, tos),
            Err(Stop::Elsewhere(owner)) => {
                let origin = Origin::Network {
                    carrier,
                    remote,
                    tos,
                };
                self.give(owner, bytes, origin);
                None
            }
            Err(Stop::Punt) => {
                self.punt(carrier, bytes, remote, local);
                None
            }
            Err(Stop::Drop(reason)) => {
                self.stats.dropped(reason);
                None
            }
            Err(Stop::Reply(_)) => None,
        }
    }

    fn outbound_one(
        &mut self,
        now: Instant,
        packet: &mut [u8],
        egress: &mut Egress,
        finder: Finder,
    ) -> Result<(), Stop> {
        let view = IpPacket::parse(packet).map_err(|_| DropReason::InnerMalformed)?;
        let (flow, verdict, is_quoted) = self.classify(&view);
        let inner = Inner {
            len: view.total_len(),
            tos: view.tos(),
            dont_fragment: view.dont_fragment(),
            ipv6: flow.src.is_ipv6(),
            is_syn: mss::is_syn(&view),
        };
        let reqid = match verdict {
            Verdict::Protect(reqid) => reqid,
            Verdict::Drop(reason) => return Err(reason.into()),
        };
        let entry = match finder {
            Finder::Worker => self.sad.outbound(reqid, &flow),
            Finder::Other => {
                let sa = self.sad.owned_outbound(reqid, &flow);
                sa.map_or(OutboundEntry::None, OutboundEntry::Owned)
            }
        };
        let sa = match entry {
            OutboundEntry::Owned(sa) => sa,
            OutboundEntry::Elsewhere { owner, .. } => return Err(Stop::Elsewhere(owner)),
            OutboundEntry::None => {
                let may_ask = finder == Finder::Worker && !is_quoted;
                if may_ask && self.acquires.is_due(reqid, now) {
                    self.events.send(SaEvent::Acquire {
                        reqid,
                        flow,
                        worker: None,
                    });
                }
                return Err(DropReason::NoOutboundSa.into());
            }
        };
        let packet = packet
            .get_mut(..inner.len)
            .ok_or(DropReason::InnerMalformed)?;
        let mtu = sa.inner_mtu();
        if inner.is_syn {
            ip::clamp_mss(packet, mtu);
        }
        let mut sealer = Sealer {
            sa,
            egress,
            stats: &self.stats,
            events: &mut self.events,
            tos: inner.tos,
        };
        match fit(&inner, mtu, sealer.sa) {
            Fit::Whole { dont_fragment } => Ok(sealer.seal(packet, dont_fragment)?),
            Fit::Fragments => Ok(sealer.seal_fragments(packet, mtu, &mut self.fragment)?),
            Fit::TooBig { report } => Err(Stop::Reply(report)),
        }
    }

    /// The flow that decides about a packet, what the SPD says of it, and whether it is a quoted one.
    ///
    /// An ICMP error that no policy covers travels with the answers to what it quotes, if there is an
    /// SA for them (RFC 4301 §6.2).
    fn classify(&mut self, view: &IpPacket<'_>) -> (Flow, Verdict, bool) {
        let flow = view.flow();
        let verdict = self.verdict(&flow);
        if let Verdict::Drop(DropReason::NoPolicy) = verdict
            && let Some(Ok(quoted)) = ip::quoted_flow(view)
        {
            let answers = quoted.reversed();
            return (answers, self.verdict(&answers), true);
        }
        (flow, verdict, false)
    }

    fn verdict(&mut self, flow: &Flow) -> Verdict {
        if let Some((last, verdict)) = &self.run
            && last == flow
        {
            return *verdict;
        }
        let verdict = match self.spd.outbound(flow).map(|policy| policy.action) {
            Some(Action::Protect(template)) => Verdict::Protect(template.reqid),
            Some(Action::Bypass) => Verdict::Drop(DropReason::PolicyBypass),
            Some(Action::Discard) => Verdict::Drop(DropReason::PolicyDiscard),
            None => Verdict::Drop(DropReason::NoPolicy),
        };
        self.run = Some((*flow, verdict));
        verdict
    }

    fn stop_outbound(&mut self, now: Instant, packet: &[u8], stop: Stop) -> Option<&[u8]> {
        let mtu = match stop {
            Stop::Drop(reason) => {
                self.stats.dropped(reason);
                return None;
            }
            Stop::Reply(mtu) => mtu,
            Stop::Elsewhere(_) | Stop::Punt => return None,
        };
        self.stats.dropped(DropReason::TooBig);
        if !self.too_big.take(now) {
            return None;
        }
        let length = ip::packet_too_big(packet, mtu, &mut self.reply)?;
        self.stats.too_big_replies.add(1);
        self.reply.get(..length)
    }

    /// The SPI of a packet that one of this worker's SAs opens.
    fn find_inbound(&mut self, carrier: Carrier, bytes: &[u8]) -> Result<u32, Stop> {
        if let Carrier::Udp { .. } = carrier {
            match demux_udp_encap(bytes).map_err(|_| DropReason::OuterMalformed)? {
                Demux::Esp => {}
                Demux::Ike => return Err(Stop::Punt),
                Demux::Keepalive => return Err(DropReason::Keepalive.into()),
            }
        }
        let header = EspHeader::parse(bytes).map_err(|_| DropReason::EspMalformed)?;
        if self.sad.inbound_mut(header.spi).is_some() {
            return Ok(header.spi);
        }
        let spi = Spi::new(header.spi).ok_or(DropReason::UnknownSpi)?;
        match spi.worker(self.workers) {
            owner if owner == self.worker => Err(DropReason::UnknownSpi.into()),
            owner => Err(Stop::Elsewhere(owner)),
        }
    }

    fn open<'a>(
        &mut self,
        spi: u32,
        carrier: Carrier,
        bytes: &'a mut [u8],
        remote: SocketAddr,
        tos: u8,
    ) -> Option<&'a mut [u8]> {
        let Some(sa) = self.sad.inbound_mut(spi) else {
            self.stats.dropped(DropReason::UnknownSpi);
            return None;
        };
        let opened = match sa.open(bytes, tos) {
            Ok(opened) => opened,
            Err(reason) => {
                self.stats.dropped(reason);
                if sa.take_hard_limit() {
                    let child = sa.child();
                    self.events.send(SaEvent::HardLifetime { child });
                }
                return None;
            }
        };
        let (child, reqid, peer) = (sa.child(), sa.reqid(), sa.path().remote.ip());
        if opened.soft_limit_crossed {
            self.events.send(SaEvent::SoftLifetime { child });
        }
        let encapsulated = matches!(carrier, Carrier::Udp { .. });
        if encapsulated
            && opened.newest
            && sa.path().encap == EspEncap::Udp
            && self.events.has_room() // what is not told now is news again with the next packet
            && sa.peer_moved(remote)
        {
            let spi = sa.spi();
            self.events.send(SaEvent::PeerMoved { child, spi, remote });
        }
        if let Some(quoted) = opened.foreign_quote
            && !self.is_sent_to(peer, &quoted)
        {
            self.stats.dropped(DropReason::SelectorMismatch);
            return None;
        }
        self.stats.packets_in.add(1);
        self.stats.bytes_in.add_len(opened.inner.len());
        self.clamp_inbound(reqid, opened.inner);
        Some(opened.inner)
    }

    /// Whether we send such packets to this peer. Of another worker's SA only the owner knows the peer.
    fn is_sent_to(&mut self, peer: IpAddr, flow: &Flow) -> bool {
        let Verdict::Protect(reqid) = self.verdict(flow) else {
            return false;
        };
        match self.sad.outbound(reqid, flow) {
            OutboundEntry::Owned(sa) => sa.path().remote.ip() == peer,
            OutboundEntry::Elsewhere { .. } => true,
            OutboundEntry::None => false,
        }
    }

    /// Lowers the MSS of a SYN that came out of the tunnel, so that answers fit into it.
    fn clamp_inbound(&mut self, reqid: Reqid, inner: &mut [u8]) {
        let Some(answer) = mss::answer_to_syn(inner) else {
            return;
        };
        if let OutboundEntry::Owned(sa) = self.sad.outbound(reqid, &answer) {
            ip::clamp_mss(inner, sa.inner_mtu());
        }
    }

    fn give(&mut self, owner: WorkerId, packet: &[u8], origin: Origin) {
        match self.hand_off.give(owner, packet, origin) {
            Ok(()) => self.stats.handed_off.add(1),
            Err(reason) => self.stats.dropped(reason),
        }
    }

    fn punt(&mut self, carrier: Carrier, bytes: &[u8], remote: SocketAddr, local: IpAddr) {
        let Carrier::Udp { port } = carrier else {
            return;
        };
        let message = bytes.get(NON_ESP_MARKER.len()..).unwrap_or_default();
        let punted = self.events.punt(|| SaEvent::Punted {
            local: SocketAddr::new(local, port),
            remote,
            bytes: Box::from(message),
        });
        if !punted {
            self.stats.dropped(DropReason::PuntQueueFull);
        }
    }

    /// Processes one packet that another worker has handed to this one; false if there is none.
    ///
    /// `write` gets what is to be written to the TUN. A packet is handed on at most once: if its SA
    /// is not here either, it is dropped.
    pub fn take_over(
        &mut self,
        now: Instant,
        egress: &mut Egress,
        mut write: impl FnMut(&[u8]),
    ) -> bool {
        let Some(mut stray) = self.hand_off.take() else {
            return false;
        };
        self.stats.taken_over.add(1);
        match stray.origin {
            Origin::Tun => {
                let done = self.outbound_one(now, stray.bytes_mut(), egress, Finder::Other);
                let reply = done
                    .err()
                    .and_then(|stop| self.stop_outbound(now, stray.bytes_mut(), stop));
                if let Some(reply) = reply {
                    write(reply);
                }
            }
            Origin::Network {
                carrier,
                remote,
                tos,
            } => match self.find_inbound(carrier, stray.bytes_mut()) {
                Ok(spi) => {
                    if let Some(inner) = self.open(spi, carrier, stray.bytes_mut(), remote, tos) {
                        write(inner);
                    }
                }
                Err(Stop::Drop(reason)) => self.stats.dropped(reason),
                Err(_) => self.stats.dropped(DropReason::UnknownSpi),
            },
        }
        self.hand_off.recycle(stray);
        true
    }

    /// Ends a burst: wakes whoever was given something.
    pub fn finish(&mut self) {
        self.hand_off.wake_owners();
        self.events.flush();
    }

    /// Whether packets of other workers wait for [`Self::take_over`].
    pub(super) fn has_strays(&self) -> bool {
        self.hand_off.is_waiting()
    }

    /// Whether events wait for which the control thread has no room.
    pub(super) fn is_behind(&self) -> bool {
        self.events.is_behind()
    }

    /// Where events go, for whoever plays the control thread.
    pub fn event_ring(&self) -> Arc<ArrayQueue<SaEvent>> {
        self.events.ring()
    }

    /// Where this pipeline counts.
    pub fn stats(&self) -> &Arc<WorkerStats> {
        &self.stats
    }
}

/// What is to be known of an inner packet while its bytes are being changed.
struct Inner {
    len: usize,
    tos: u8,
    dont_fragment: bool,
    ipv6: bool,
    is_syn: bool,
}

/// How a packet gets through a tunnel (RFC 4301 §8).
enum Fit {
    Whole { dont_fragment: bool },
    Fragments,
    TooBig { report: u16 },
}

fn fit(inner: &Inner, mtu: u16, sa: &OutboundSa) -> Fit {
    let outer_df = sa.outer_df(inner.dont_fragment);
    if inner.len <= usize::from(mtu) {
        return Fit::Whole {
            dont_fragment: outer_df,
        };
    }
    let whole = Fit::Whole {
        dont_fragment: false,
    };
    if inner.dont_fragment {
        // What every IPv6 link must carry cannot be refused, and who clears DF has asked for
        // fragments of the outer packet instead of discovery.
        let must_pass = inner.ipv6 && inner.len <= usize::from(LEAST_MTU_V6);
        if must_pass || !outer_df {
            return whole;
        }
        let least = if inner.ipv6 { LEAST_MTU_V6 } else { 0 };
        return Fit::TooBig {
            report: mtu.max(least),
        };
    }
    // Later fragments show no ports, so selectors with ports would not let them in (RFC 4301 §7).
    let selectors = sa.selectors();
    let mut all = selectors.local.iter().chain(&selectors.remote);
    if all.any(|selector| !selector.any_port()) {
        return whole;
    }
    Fit::Fragments
}

/// The last step of an outbound packet.
struct Sealer<'a> {
    sa: &'a mut OutboundSa,
    egress: &'a mut Egress,
    stats: &'a WorkerStats,
    events: &'a mut EventSender,
    tos: u8,
}

impl Sealer<'_> {
    fn seal(&mut self, packet: &[u8], dont_fragment: bool) -> Result<(), DropReason> {
        let path = *self.sa.path();
        let transmit = Transmit {
            local: path.local.ip(),
            remote: path.remote,
            tos: self.sa.outer_tos(self.tos),
            dont_fragment: dont_fragment && self.sa.outer_may_have_df(),
        };
        let length = self.sa.sealed_len(packet.len());
        let (sa, mut soft) = (&mut *self.sa, false);
        let pushed = self.egress.burst(&path).push(transmit, length, |buffer| {
            let sealed = sa.seal(&[packet], buffer)?;
            soft = sealed.soft_limit_crossed;
            Ok(())
        });
        let child = self.sa.child();
        if soft {
            self.events.send(SaEvent::SoftLifetime { child });
        }
        match pushed {
            Ok(()) => {
                self.stats.packets_out.add(1);
                self.stats.bytes_out.add_len(packet.len());
                Ok(())
            }
            Err(PushError::Full) => Err(DropReason::TransmitQueueFull),
            Err(PushError::Refused(reason)) => {
                if self.sa.take_hard_limit() {
                    self.events.send(SaEvent::HardLifetime { child });
                }
                Err(reason)
            }
        }
    }

    fn seal_fragments(
        &mut self,
        packet: &[u8],
        mtu: u16,
        buffer: &mut [u8],
    ) -> Result<(), DropReason> {
        let mut fragments = ip::fragment_v4(packet, mtu).ok_or(DropReason::TooBig)?;
        let dont_fragment = self.sa.outer_df(false);
        while let Some(length) = fragments.next_into(buffer) {
            let fragment = buffer.get(..length).ok_or(DropReason::TooBig)?;
            self.seal(fragment, dont_fragment)?;
        }
        Ok(())
    }
}

pub(super) fn too_big_limit() -> TokenBucket {
    TokenBucket::new(100, Duration::from_millis(1))
}

pub(super) const REPLY_LEN: usize = ip::MAX_TOO_BIG;
pub(super) const FRAGMENT_LEN: usize = SLOT_LEN;
/// What every IPv6 link must carry (RFC 8200 §5).
const LEAST_MTU_V6: u16 = 1280;
