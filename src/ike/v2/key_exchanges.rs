//! Additional key exchanges (RFC 9370): what is still to be exchanged for one SA, whether it is an IKE
//! SA that is being set up or replaced, or a Child SA.

use std::collections::VecDeque;

use crate::crypto::Secret;
use crate::crypto::kex::{self, KeyExchange};
use crate::ike::context::Context;
use crate::wire::Malformed;
use crate::wire::ikev2::PayloadWriter;
use crate::wire::proposal::{AdditionalExchanges, KeyExchangeId};

use super::error::ExchangeError;
use super::message::{Payloads, add_ke};

/// The exchanges that are not done, in order.
#[derive(Debug)]
pub(super) struct KeyExchanges {
    todo: VecDeque<KeyExchangeId>,
    /// The initiator's half of the first one, while its answer is awaited.
    ours: Option<KeyExchange>,
}

impl KeyExchanges {
    pub(super) fn new(additional: &AdditionalExchanges) -> Self {
        Self {
            todo: additional.iter().map(|(_, method)| method).collect(),
            ours: None,
        }
    }

    pub(super) fn is_done(&self) -> bool {
        self.todo.is_empty()
    }

    pub(super) fn left(&self) -> usize {
        self.todo.len()
    }

    /// As initiator: adds the KE payload of the next one, if there is one.
    pub(super) fn ask(&mut self, request: &mut PayloadWriter, cx: &mut Context) {
        let Some(method) = self.todo.front() else {
            return;
        };
        let exchange = KeyExchange::generate(*method, cx.rng())
            .expect("negotiation accepts only methods we have");
        add_ke(request, exchange.group(), exchange.public());
        self.ours = Some(exchange);
    }

    /// As initiator: takes the answer to [`Self::ask`].
    pub(super) fn finish(&mut self, answer: &Payloads<'_>) -> Result<Secret, ExchangeError> {
        let ke = answer.key_exchange()?;
        let ours = self.ours.take().filter(|ours| ours.group() == ke.group);
        let ours = ours.ok_or(OTHER_METHOD)?;
        self.todo.pop_front();
        let shared = ours.finish(ke.data);
        shared.map_err(|_| ExchangeError::InvalidPublic)
    }

    /// As responder: does the next one and adds the KE payload of the answer.
    pub(super) fn answer(
        &mut self,
        request: &Payloads<'_>,
        response: &mut PayloadWriter,
        cx: &mut Context,
    ) -> Result<Secret, ExchangeError> {
        let ke = request.key_exchange()?;
        let method = self.todo.pop_front().filter(|method| *method == ke.group);
        let method = method.ok_or(OTHER_METHOD)?;
        let kex::Answer { public, shared } = kex::answer(method, ke.data, cx.rng())?;
        add_ke(response, method, &public);
        Ok(shared)
    }
}

/// Not the one whose turn it is.
const OTHER_METHOD: Malformed = Malformed::BadValue("key exchange method");
