//! From the TUN to the egress (RFC 4301 §5.1).

use std::time::Instant;

use super::fit::{Fit, Inner, fit};
use super::seal::Sealer;
use super::{Finder, Pipeline, Stop, Verdict};
use crate::dataplane::egress::Egress;
use crate::dataplane::hand_off::Origin;
use crate::dataplane::mss;
use crate::ipsec::{Action, DropReason, OutboundEntry, SaEvent};
use crate::wire::ip::{self, Flow, IpPacket};

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

    pub(super) fn outbound_one(
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

    pub(super) fn verdict(&mut self, flow: &Flow) -> Verdict {
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

    pub(super) fn stop_outbound(
        &mut self,
        now: Instant,
        packet: &[u8],
        stop: Stop,
    ) -> Option<&[u8]> {
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
}
