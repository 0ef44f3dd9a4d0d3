//! INFORMATIONAL requests of the peer (RFC 7296 §1.4, §1.4.1).

use crate::ike::context::Context;
use crate::wire::ikev2::{Delete, NotifyType, PayloadWriter};
use crate::wire::isakmp::PayloadType;
use crate::wire::proposal::ProtocolId;

use super::Core;
use super::child::{ChildSa, End, Phase};
use super::established::{Established, Fate};
use super::message::{Datagram, Payloads};
use super::tasks::Pending;

impl Established {
    pub(super) fn on_informational(
        &mut self,
        core: &mut Core,
        datagram: &Datagram<'_>,
        payloads: &Payloads<'_>,
        cx: &mut Context,
    ) -> Fate {
        let mut response = PayloadWriter::new();
        if payloads.notify(NotifyType::AUTHENTICATION_FAILED).is_some() {
            self.answer(core, datagram, response, cx);
            return Fate::Ends(End::Failed("peer rejected our authentication".to_owned()));
        }
        self.take_auth_lifetime(core, payloads, cx);
        self.take_crash_token(payloads);
        if payloads.deletes_ike() {
            self.answer(core, datagram, response, cx);
            return self.deleted_by_peer(core, cx);
        }
        self.on_redirect(core, payloads, cx);
        self.on_addresses(core, datagram, payloads, &mut response, cx);
        self.grant_ticket(core, payloads, &mut response, cx);

        let esp = payloads
            .deletes
            .iter()
            .filter(|delete| delete.protocol == ProtocolId::Esp);
        let spis: Vec<u32> = esp.flat_map(Delete::spis).take(MAX_DELETES).collect();
        let mut deleted = Vec::new();
        let mut ours = Vec::new();
        for spi in spis {
            let found = self
                .children
                .iter()
                .position(|child| child.spi_out.get() == spi);
            let Some(place) = found else {
                self.note_early_delete(spi);
                continue; // deleted already, or never ours (RFC 7296 §1.4.1)
            };
            let child = self.children.remove(place);
            // If our own DELETE is on its way, it answers for itself.
            let crossing = self.work.is_pending(
                |pending| matches!(pending, Pending::DeleteChild(id, _) if *id == child.id),
            );
            if !crossing {
                ours.push(child.spi_in.get());
            }
            deleted.push(child);
        }
        if !ours.is_empty() {
            response.add_with(PayloadType::DELETE, |out| Delete::encode_esp(&ours, out));
        }
        self.answer(core, datagram, response, cx);
        for child in deleted {
            self.child_deleted_by_peer(core, child, cx);
        }
        Fate::Stays
    }

    /// The peer may delete what its answer, which has not reached us, has just made.
    fn note_early_delete(&mut self, spi: u32) {
        if let Some(outstanding) = &mut self.work.outstanding
            && let Pending::Child(request) = &mut outstanding.pending
            && request.early_deletes.len() < MAX_DELETES
        {
            request.early_deletes.push(spi);
        }
    }

    fn child_deleted_by_peer(&mut self, core: &Core, child: ChildSa, cx: &mut Context) {
        // A redundant one: its twin lives on.
        let redundant = child.awaits_peer() || !child.has_outbound();
        if let Some(successor) = child.successor {
            self.succeed(core, &child, successor, cx);
            child.linger(&mut self.lingering, cx);
        } else if child.replaced || (redundant && child.phase == Phase::Replaced) {
            child.linger(&mut self.lingering, cx);
        } else {
            let id = child.id;
            let end = if child.phase == Phase::Deleting {
                End::Terminated
            } else {
                End::ByPeer
            };
            self.children.push(child);
            self.remove_child(core, id, &end, cx);
        }
    }

    /// The peer has deleted the IKE SA.
    fn deleted_by_peer(&mut self, core: &Core, cx: &mut Context) -> Fate {
        if self.adopt_contested(core, cx) || self.succession.is_silent() {
            return Fate::Ends(End::Replaced);
        }
        if self.redirection.is_leaving() {
            return Fate::Ends(End::Redirected);
        }
        if self.work.deletes_ike() {
            return Fate::Ends(End::Terminated);
        }
        Fate::Ends(End::ByPeer)
    }
}

/// More than we allow Child SAs; bounds the work that one message can cause.
const MAX_DELETES: usize = 256;
