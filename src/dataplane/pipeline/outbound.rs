//! From the TUN to the egress (RFC 4301 §5.1).
//!
//! Whatever one read from the TUN gave, be it a packet or a super-packet, belongs to one flow: policy,
//! SA and path MTU are looked up once for all its segments.

use std::time::Instant;

use super::fit::Inner;
use super::seal::{Fragments, Halt, Sealer};
use super::{Pipeline, Stop, Verdict};
use crate::dataplane::egress::Egress;
use crate::dataplane::hand_off::Origin;
use crate::dataplane::limits::Wanted;
use crate::dataplane::mss;
use crate::io::burst::Flows;
use crate::io::offload::{Suspended, TunPacket};
use crate::ipsec::{Action, DropReason, OutboundEntry, Reqid, SaEvent, WorkerId};
use crate::wire::ip::{self, Flow, IpPacket};
use crate::wire::vnet::VnetHeader;

/// What became of a packet from the TUN.
#[derive(Debug)]
#[must_use]
pub enum Outbound<'a> {
    /// It was sealed, handed to its owner, or dropped.
    Done,
    /// It was dropped, and this ICMP error about it is to be written to the TUN.
    Reply(&'a [u8]),
    /// The egress is full, and this part is left. When the egress has been sent, it is for
    /// [`Pipeline::resume`], together with the packet as it is now.
    Full(Rest),
}

/// The segments of a packet for which the egress had no room.
#[derive(Clone, Copy, Debug)]
pub struct Rest {
    packet: Suspended,
    fragments: Fragments,
    inner: Inner,
    flow: Flow,
}

/// Who read an outbound packet and chose the worker for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Finder {
    /// This worker.
    Worker,
    /// Another one, which may not have heard of a rekey yet: any SA of ours will do.
    Other,
    /// This worker, before there was an SA.
    Waiting,
}

impl Pipeline {
    /// Takes what one read from the TUN gave to the egress.
    pub fn outbound(
        &mut self,
        now: Instant,
        header: &VnetHeader,
        packet: &mut [u8],
        egress: &mut Egress,
    ) -> Outbound<'_> {
        self.outbound_of(Finder::Worker, now, header, packet, egress)
    }

    /// Takes the rest of a packet to the egress. Policy and SA are looked up again: they may have been
    /// replaced, or the path have become narrower.
    pub fn resume(
        &mut self,
        now: Instant,
        rest: Rest,
        packet: &mut [u8],
        egress: &mut Egress,
    ) -> Outbound<'_> {
        let mut packet = TunPacket::resume(rest.packet, packet);
        let done = self.seal_rest(&rest, &mut packet, egress);
        self.conclude(now, done, packet)
    }

    pub(super) fn outbound_of(
        &mut self,
        finder: Finder,
        now: Instant,
        header: &VnetHeader,
        packet: &mut [u8],
        egress: &mut Egress,
    ) -> Outbound<'_> {
        let Ok(mut packet) = TunPacket::parse(header, packet) else {
            self.stats.dropped(DropReason::InnerMalformed);
            return Outbound::Done;
        };
        if packet.is_super() && finder == Finder::Worker {
            self.stats.super_out.add(1);
        }
        let done = self.seal_packet(finder, now, &mut packet, egress);
        self.conclude(now, done, packet)
    }

    fn seal_packet(
        &mut self,
        finder: Finder,
        now: Instant,
        packet: &mut TunPacket<'_>,
        egress: &mut Egress,
    ) -> Result<Option<Rest>, Stop> {
        let view = IpPacket::parse(packet.bytes()).map_err(|_| DropReason::InnerMalformed)?;
        let (flow, verdict, is_quoted) = self.classify(&view);
        let inner = Inner {
            len: packet.segment_len().min(view.total_len()),
            tos: view.tos(),
            dont_fragment: view.dont_fragment(),
            ipv6: flow.src.is_ipv6(),
            is_syn: mss::is_syn(&view),
            flows: Flows::of(flow.digest()),
        };
        let template = match verdict {
            Verdict::Protect(template) => template,
            Verdict::Drop(reason) => return Err(reason.into()),
        };
        let reqid = template.reqid;
        if finder == Finder::Worker && self.waiting.holds(reqid) {
            return Err(Stop::Wait(reqid));
        }
        let entry = match finder {
            Finder::Worker | Finder::Waiting => self.sad.outbound(reqid, &flow),
            Finder::Other => {
                let sa = self.sad.owned_outbound(reqid, &flow);
                sa.map_or(OutboundEntry::None, OutboundEntry::Owned)
            }
        };
        let sa = match entry {
            OutboundEntry::Owned(sa) => sa,
            OutboundEntry::Elsewhere { owner, per_worker } => {
                if per_worker && !is_quoted {
                    let worker = Some(self.worker);
                    self.acquire(now, reqid, flow, worker);
                }
                return Err(Stop::Elsewhere(owner));
            }
            OutboundEntry::None => {
                if finder != Finder::Other && !is_quoted {
                    self.acquire(now, reqid, flow, None);
                    if template.trap {
                        return Err(Stop::Wait(reqid));
                    }
                }
                return Err(DropReason::NoOutboundSa.into());
            }
        };
        self.path_mtus.tell(sa);
        let (stats, fragment) = (&self.stats, &mut self.fragment);
        let sealer = Sealer::new(sa, egress, stats, &mut self.events, fragment, &inner);
        let sealed = sealer.seal_all(packet, &inner, Fragments::default());
        rest_of(packet, sealed, inner, flow)
    }

    /// Asks for an SA, unless that was done a moment ago or the control thread is far behind.
    fn acquire(&mut self, now: Instant, reqid: Reqid, flow: Flow, worker: Option<WorkerId>) {
        let wanted = worker.map_or(Wanted::First, |_| Wanted::Own);
        if self.events.has_room() && self.acquires.is_due(reqid, wanted, now) {
            self.events.send(SaEvent::Acquire {
                reqid,
                flow,
                worker,
            });
        }
    }

    fn seal_rest(
        &mut self,
        rest: &Rest,
        packet: &mut TunPacket<'_>,
        egress: &mut Egress,
    ) -> Result<Option<Rest>, Stop> {
        let Rest { inner, flow, .. } = *rest;
        let reqid = match self.verdict(&flow) {
            Verdict::Protect(template) => template.reqid,
            Verdict::Drop(reason) => return Err(reason.into()),
        };
        let sa = self.sad.owned_outbound(reqid, &flow);
        let sa = sa.ok_or(DropReason::NoOutboundSa)?;
        self.path_mtus.tell(sa);
        let (stats, fragment) = (&self.stats, &mut self.fragment);
        let sealer = Sealer::new(sa, egress, stats, &mut self.events, fragment, &inner);
        let sealed = sealer.seal_all(packet, &inner, rest.fragments);
        rest_of(packet, sealed, inner, flow)
    }

    /// Does what is left to do with a packet that is not sealed as a whole.
    fn conclude(
        &mut self,
        now: Instant,
        done: Result<Option<Rest>, Stop>,
        mut packet: TunPacket<'_>,
    ) -> Outbound<'_> {
        let mtu = match done {
            Ok(None) | Err(Stop::Punt) => return Outbound::Done,
            Ok(Some(rest)) => return Outbound::Full(rest),
            Err(Stop::Elsewhere(owner)) => {
                let header = *packet.header();
                let packets = packet.segments();
                self.give(owner, packet.bytes(), Origin::Tun { header }, packets);
                return Outbound::Done;
            }
            Err(Stop::Wait(reqid)) => {
                self.wait(now, reqid, &packet);
                return Outbound::Done;
            }
            Err(Stop::Drop(reason)) => {
                self.drop_rest(reason, &packet);
                return Outbound::Done;
            }
            Err(Stop::Reply(mtu)) => mtu,
        };
        self.drop_rest(DropReason::TooBig, &packet);
        if !self.too_big.take(now) {
            return Outbound::Done;
        }
        let segment = packet.next_segment().unwrap_or_default();
        let reply = ip::packet_too_big(segment, mtu, &mut self.reply)
            .and_then(|length| self.reply.get(..length));
        let Some(reply) = reply else {
            return Outbound::Done;
        };
        self.stats.too_big_replies.add(1);
        Outbound::Reply(reply)
    }

    /// Keeps a packet until there is an SA for it, if there is room.
    fn wait(&mut self, now: Instant, reqid: Reqid, packet: &TunPacket<'_>) {
        let (header, count) = (*packet.header(), packet.segments());
        let count = u32::try_from(count).unwrap_or(u32::MAX);
        if !self.waiting.hold(reqid, header, packet.bytes(), count, now) {
            self.drop_rest(DropReason::NoOutboundSa, packet);
        }
    }

    fn drop_rest(&self, reason: DropReason, packet: &TunPacket<'_>) {
        let lost = u32::try_from(packet.segments_left()).unwrap_or(u32::MAX);
        self.stats.dropped_many(reason, lost);
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

    pub(super) fn verdict(&mut self, flow: &Flow) -> Verdict {
        if let Some((last, verdict)) = &self.run
            && last == flow
        {
            return *verdict;
        }
        let verdict = match self.spd.outbound_action(flow) {
            Some(Action::Protect(template)) => Verdict::Protect(template),
            Some(Action::Bypass) => Verdict::Drop(DropReason::PolicyBypass),
            Some(Action::Discard) => Verdict::Drop(DropReason::PolicyDiscard),
            None => Verdict::Drop(DropReason::NoPolicy),
        };
        self.run = Some((*flow, verdict));
        verdict
    }
}

fn rest_of(
    packet: &TunPacket<'_>,
    sealed: Result<(), Halt>,
    inner: Inner,
    flow: Flow,
) -> Result<Option<Rest>, Stop> {
    match sealed {
        Ok(()) => Ok(None),
        Err(Halt::TooBig(mtu)) => Err(Stop::Reply(mtu)),
        Err(Halt::Full(fragments)) => Ok(Some(Rest {
            packet: packet.suspend(),
            fragments,
            inner,
            flow,
        })),
    }
}
