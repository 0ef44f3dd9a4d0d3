//! The last step outbound: the packets of one read, cut, fragmented, sealed and put into the egress.

use super::fit::{Fit, Inner, fit};
use crate::dataplane::egress::Egress;
use crate::dataplane::events::EventSender;
use crate::dataplane::stats::WorkerStats;
use crate::io::burst::{Flows, PushError, Transmit, TransmitBurst};
use crate::io::offload::TunPacket;
use crate::ipsec::{DropReason, OutboundSa, SaEvent};
use crate::wire::ip;

/// Seals what one read from the TUN gave, which goes the same way as a whole.
#[derive(Debug)]
pub(super) struct Sealer<'a> {
    sa: &'a mut OutboundSa,
    burst: &'a mut TransmitBurst,
    stats: &'a WorkerStats,
    events: &'a mut EventSender,
    fragment: &'a mut [u8],
    transmit: Transmit,
    flows: Flows,
    mtu: u16,
    fit: Fit,
    sealed: Sealed,
}

/// What was sealed and is not counted yet.
#[derive(Debug, Default)]
struct Sealed {
    packets: u64,
    bytes: usize,
}

/// Why the packets of a read are not all sealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Halt {
    /// The egress is full. Of the packet that was taken last, this many fragments are sealed.
    Full(Fragments),
    /// They are too big for the tunnel; the sender is to be told this MTU.
    TooBig(u16),
}

/// How far the fragments of a packet are sealed. They have the length that one path MTU gives them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Fragments {
    mtu: u16,
    sealed: usize,
}

/// Why one packet was not sealed.
enum Refusal {
    Full,
    Drop(DropReason),
}

impl<'a> Sealer<'a> {
    pub(super) fn new(
        sa: &'a mut OutboundSa,
        egress: &'a mut Egress,
        stats: &'a WorkerStats,
        events: &'a mut EventSender,
        fragment: &'a mut [u8],
        inner: &Inner,
    ) -> Self {
        let path = *sa.path();
        let mtu = sa.inner_mtu();
        let fit = fit(inner, mtu, sa);
        let dont_fragment = match fit {
            Fit::Whole { dont_fragment } => dont_fragment,
            Fit::Fragments | Fit::TooBig { .. } => sa.outer_df(false),
        };
        let transmit = Transmit {
            local: path.local.ip(),
            remote: path.remote,
            tos: sa.outer_tos(inner.tos),
            dont_fragment: dont_fragment && sa.outer_may_have_df(),
        };
        Self {
            sa,
            burst: egress.burst(&path),
            stats,
            events,
            fragment,
            transmit,
            flows: inner.flows,
            mtu,
            fit,
            sealed: Sealed::default(),
        }
    }

    /// Seals the packets that are left. `begun` says how far the next one is already fragmented.
    ///
    /// A packet that cannot be sealed is dropped and counted; the others go on.
    pub(super) fn seal_all(
        mut self,
        packet: &mut TunPacket<'_>,
        inner: &Inner,
        begun: Fragments,
    ) -> Result<(), Halt> {
        let sealed = self.seal_segments(packet, inner, begun);
        self.stats.packets_out.add(self.sealed.packets);
        self.stats.bytes_out.add_len(self.sealed.bytes);
        sealed
    }

    fn seal_segments(
        &mut self,
        packet: &mut TunPacket<'_>,
        inner: &Inner,
        mut begun: Fragments,
    ) -> Result<(), Halt> {
        if let Fit::TooBig { report } = self.fit {
            return Err(Halt::TooBig(report));
        }
        if inner.is_syn
            && let Some(packet) = packet.plain_mut()
        {
            ip::clamp_mss(packet.get_mut(..inner.len).unwrap_or_default(), self.mtu);
        }
        while let Some(segment) = packet.next_segment() {
            let segment = segment.get(..inner.len).unwrap_or(segment);
            let begun = std::mem::take(&mut begun);
            let sealed = if self.fit == Fit::Fragments && segment.len() > usize::from(self.mtu) {
                self.seal_fragments(segment, begun)
            } else {
                self.seal(segment).map_err(|refusal| (refusal, begun))
            };
            match sealed {
                Ok(()) => {}
                Err((Refusal::Full, begun)) => return Err(Halt::Full(begun)),
                Err((Refusal::Drop(reason), _)) => self.stats.dropped(reason),
            }
        }
        Ok(())
    }

    fn seal(&mut self, packet: &[u8]) -> Result<(), Refusal> {
        let length = self.sa.sealed_len(packet.len());
        let (sa, mut soft) = (&mut *self.sa, false);
        let pushed = self
            .burst
            .push(self.transmit, self.flows, length, |buffer| {
                let sealed = sa.seal(&[packet], buffer)?;
                soft = sealed.soft_limit_crossed;
                Ok(())
            });
        if soft {
            let child = self.sa.child();
            self.events.send(SaEvent::SoftLifetime { child });
        }
        match pushed {
            Ok(()) => {
                self.sealed.packets += 1;
                self.sealed.bytes += packet.len();
                Ok(())
            }
            // What does not fit into an empty burst fits into none.
            Err(PushError::Full) if self.burst.is_empty() => Err(Refusal::Drop(DropReason::TooBig)),
            Err(PushError::Full) => Err(Refusal::Full),
            Err(PushError::Refused(reason)) => {
                if self.sa.take_hard_limit() {
                    let child = self.sa.child();
                    self.events.send(SaEvent::HardLifetime { child });
                }
                Err(Refusal::Drop(reason))
            }
        }
    }

    /// Seals the fragments of a packet, of which the first few may have been sealed before.
    fn seal_fragments(
        &mut self,
        packet: &[u8],
        begun: Fragments,
    ) -> Result<(), (Refusal, Fragments)> {
        let mtu = self.mtu;
        let too_big = (Refusal::Drop(DropReason::TooBig), begun);
        if begun.sealed > 0 && begun.mtu != mtu {
            return Err(too_big); // fragments of two sizes do not make a whole
        }
        let Some(mut fragments) = ip::fragment_v4(packet, mtu) else {
            return Err(too_big);
        };
        let buffer = std::mem::take(&mut self.fragment);
        let mut result = Ok(());
        let mut sealed = 0;
        while let Some(length) = fragments.next_into(buffer) {
            if sealed >= begun.sealed
                && let Err(refusal) = self.seal(buffer.get(..length).unwrap_or_default())
            {
                result = Err((refusal, Fragments { mtu, sealed }));
                break;
            }
            sealed += 1;
        }
        self.fragment = buffer;
        result
    }
}
