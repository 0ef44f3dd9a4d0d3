//! IKE_SESSION_RESUME as responder (RFC 5723 §4.3).

use std::sync::Arc;

use crate::ike::Identity;
use crate::ike::context::Context;
use crate::ike::negotiate::proposal_of;
use crate::ike::session::Session;
use crate::ike::tickets::TicketError;
use crate::wire::ikev2::{AuthPayload, IdPayload, NotifyType, PayloadWriter, message_bytes};
use crate::wire::isakmp::{ExchangeType, IkeSpi, PayloadType};

use super::auth_request::Authenticated;
use super::authentication::Octets;
use super::error::{AuthenticationError, ExchangeError};
use super::established::Peer;
use super::init::{InitDone, InitExchange};
use super::init_request::{HalfOpen, InitRequest};
use super::intermediate::Opening;
use super::message::{Payloads, required};
use super::resume::{self, CHANGED};
use super::{Core, IkeSa};

impl InitRequest<'_> {
    /// Accepts a ticket, answers and waits for IKE_AUTH. `holder` finds the IKE SA that holds the
    /// addresses of another one, which these SPIs name.
    pub(in crate::ike) fn resume(
        self,
        holder: impl Fn((IkeSpi, IkeSpi)) -> Option<u64>,
        cx: &mut Context,
    ) -> Result<IkeSa, TicketError> {
        let path = self.datagram.path;
        let ni = self.payloads.nonce().map_err(|_| TicketError::Missing)?;
        let ticket = self.payloads.notify(NotifyType::TICKET_OPAQUE);
        let mut session = cx.open_ticket(ticket.ok_or(TicketError::Missing)?.data)?;
        session.holder = holder(session.spis);
        let mut connections = self.connections.iter();
        let fits =
            connections.find(|connection| session.fits(connection, path.local.ip(), &cx.directory));
        let connection = fits.ok_or(TicketError::Stale(CHANGED))?;

        let core = Core::answer(&self.datagram, cx);
        let nr = cx.nonce();
        let mut payloads = PayloadWriter::new();
        payloads.add(PayloadType::NONCE, &nr);
        let features = self.settle_features(&core, connection, &mut payloads, cx);
        let header = core.header(ExchangeType::IKE_SESSION_RESUME, true, 0);
        let response = message_bytes(header, payloads.finish());
        cx.transmit(path, response.clone());
        let request = self.datagram.bytes.to_vec();
        let exchange = InitExchange::new(request, response, (ni.to_vec(), nr));
        let done = InitDone::resumed(exchange, session, features);
        let proposal = proposal_of(&done.suite);
        let half_open = HalfOpen::begin(proposal, done, false, self.payloads, cx);
        Ok(IkeSa::new(core, half_open))
    }
}

impl HalfOpen {
    /// Checks the IKE_AUTH request of a peer that resumes: the identities of the session and no others,
    /// and a configuration that still allows it.
    pub(super) fn authenticate_resumed(
        &self,
        session: &Session,
        core: &Core,
        opening: &Opening,
        payloads: &Payloads<'_>,
        cx: &Context,
    ) -> Result<Authenticated, ExchangeError> {
        let body = required(payloads.id_i, "IDi")?;
        let claimed = Identity::from_payload(&IdPayload::parse(body)?);
        let asked = payloads.id_r.map(IdPayload::parse).transpose()?;
        let asked = asked.as_ref().map(Identity::from_payload);
        let proof = AuthPayload::parse(required(payloads.auth, "AUTH")?)?;
        let (local, remote) = (core.path.local.ip(), core.path.remote.ip());
        let connections = cx.directory.by_addresses(local, remote);
        let mut fitting = connections
            .into_iter()
            .filter(|connection| session.fits(connection, local, &cx.directory));
        let is_us = asked.is_none_or(|asked| asked == session.local_id);
        let connection = fitting.next().filter(|_| is_us);
        let connection = connection.ok_or(AuthenticationError::Resumption(CHANGED))?;
        let (prf, auth) = (opening.keys.prf, &opening.auth);
        let octets = Octets::of_initiator(prf, &self.done.exchange, auth, body);
        let verdict = resume::verify(session, &claimed, &proof, &octets, &auth.initiator)?;
        // Two half-open IKE SAs may have the same ticket.
        if cx.tickets.is_void(session.spis) {
            return Err(AuthenticationError::Resumption("its ticket was used").into());
        }
        Ok(Authenticated {
            connection: Arc::clone(connection),
            with_ppk: None,
            has_ppk: session.has_ppk,
            peer: Peer {
                local_id: session.local_id.clone(),
                remote_id: claimed,
            },
            verdict,
        })
    }
}
