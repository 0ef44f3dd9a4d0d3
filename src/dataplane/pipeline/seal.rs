//! The last step of an outbound packet.

use crate::dataplane::egress::Egress;
use crate::dataplane::events::EventSender;
use crate::dataplane::stats::WorkerStats;
use crate::io::burst::{PushError, Transmit};
use crate::ipsec::{DropReason, OutboundSa, SaEvent};
use crate::wire::ip;

/// The last step of an outbound packet.
pub(super) struct Sealer<'a> {
    pub(super) sa: &'a mut OutboundSa,
    pub(super) egress: &'a mut Egress,
    pub(super) stats: &'a WorkerStats,
    pub(super) events: &'a mut EventSender,
    pub(super) tos: u8,
}

impl Sealer<'_> {
    pub(super) fn seal(&mut self, packet: &[u8], dont_fragment: bool) -> Result<(), DropReason> {
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

    pub(super) fn seal_fragments(
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
