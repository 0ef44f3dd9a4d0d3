//! Whom to ask next, and until when.

use std::sync::Arc;
use std::time::Instant;

use crate::crypto::x509::{Certificate, ocsp};

use super::places::Source;
use super::{
    Fetch, FetchId, Knowledge, MOST_ASKED, MOST_PENDING, Pending, Question, RETRY, make_room,
};

pub(super) enum Next {
    Ask(Asked),
    /// It is being asked, or it will be its turn when there is room.
    Wait(Option<FetchId>),
    NobodyLeft,
}

/// A source whose turn it is.
pub(super) struct Asked {
    pub(super) source: Source,
    /// The configuration names it.
    pub(super) configured: bool,
    /// For its answer.
    pub(super) deadline: Instant,
}

impl Knowledge {
    /// The first source that has not been asked in vain. Where too much is being fetched, what comes of
    /// that is waited for.
    pub(super) fn next_source(
        &self,
        question: &Question<'_>,
        sources: Vec<(Source, bool)>,
    ) -> Next {
        if question.is_late() {
            return Next::NobodyLeft;
        }
        let asked_in_vain = |source: &Source| {
            let retry = self.asked.get(source);
            retry.is_some_and(|retry| question.now < *retry)
        };
        let count = |number| u32::try_from(number).unwrap_or(u32::MAX);
        let left = sources.iter().filter(|(source, _)| !asked_in_vain(source));
        let (left, all) = (count(left.count()), count(sources.len()));
        for (source, configured) in sources {
            let mut pending = self.pending.iter();
            if let Some((id, _)) = pending.find(|(_, pending)| pending.source == source) {
                return Next::Wait(Some(*id));
            }
            if asked_in_vain(&source) {
                continue;
            }
            if self.pending.len() >= MOST_PENDING {
                return Next::Wait(None);
            }
            return Next::Ask(Asked {
                source,
                configured,
                deadline: question.deadline(left, all),
            });
        }
        Next::NobodyLeft
    }

    /// Turns to a source; one that cannot be asked about this certificate counts as asked in vain.
    pub(super) fn ask(
        &mut self,
        question: &Question<'_>,
        (certificate, issuer): (&Arc<Certificate>, &Arc<Certificate>),
        asked: Asked,
        nonce: Option<Vec<u8>>,
    ) -> Option<Fetch> {
        let Asked {
            source,
            configured,
            deadline,
        } = asked;
        let waiters = question.waiter.iter().map(|waiter| waiter.ike).collect();
        let (uri, body) = match &source {
            Source::List(uri) => (uri.clone(), None),
            Source::Answer(uri, _) => {
                let Some(body) = ocsp::request(certificate, issuer, nonce.as_deref()) else {
                    self.give_up(source, question.now);
                    return None;
                };
                (uri.clone(), Some(body))
            }
        };
        self.last += 1;
        let id = FetchId(self.last);
        let about = (Arc::clone(certificate), Arc::clone(issuer), nonce);
        let pending = Pending {
            source,
            deadline,
            about,
            waiters,
        };
        self.pending.insert(id, pending);
        Some(Fetch {
            id,
            uri,
            configured,
            question: body,
            deadline,
        })
    }

    /// A source is not asked again for a while.
    pub(super) fn give_up(&mut self, source: Source, now: Instant) {
        make_room(&mut self.asked, MOST_ASKED);
        self.asked.insert(source, now + RETRY);
    }
}

impl Question<'_> {
    fn is_late(&self) -> bool {
        self.waiter.is_some_and(|waiter| waiter.until <= self.now)
    }

    /// Until when the first source of those that are `left` may answer, for the others to have their share
    /// of the time. What it says is for everybody: a waiter that came late does not shorten its share.
    fn deadline(&self, left: u32, all: u32) -> Instant {
        let until = self.waiter.map_or(self.now, |waiter| waiter.until);
        let rest = until.saturating_duration_since(self.now);
        self.now + (rest / left.max(1)).max(self.timeout / all.max(1))
    }
}
