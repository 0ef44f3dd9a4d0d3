//! Whether certificates were revoked: what is known, and what has to be asked for.
//!
//! ```text
//! judge ─► known? ─► Clear or Refused
//!             └─ no ─► Output::Fetch … Input::Fetched (or no answer in time) ─► judge again
//! ```
//!
//! Only addresses in certificates whose path was verified are asked for, and every table here is
//! bounded: what a peer can make us fetch and keep is what authorities of the configuration signed.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::crypto::x509::{Certificate, Crl, Path, Status, UnixTime, ocsp};
use crate::crypto::{CryptoRng, PublicKey};

use super::credentials::{Authority, LocalKey, Revocation};

/// Names a wish in [`Input::Fetched`](super::Input::Fetched).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FetchId(pub u64);

/// Revocation information that is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fetch {
    /// Repeated in the answer.
    pub id: FetchId,
    /// An http URI.
    pub uri: String,
    /// The URI stands in the configuration, so that it may lead anywhere; others come from
    /// certificates and may not lead to this machine or this link.
    pub configured: bool,
    /// An OCSP request to post; `None` to get a revocation list.
    pub question: Option<Vec<u8>>,
    /// Nobody waits for it any longer than this.
    pub deadline: Instant,
}

/// What was fetched.
#[derive(Clone, Debug)]
pub enum Fetched {
    /// A revocation list, with or without a good signature.
    List(Arc<Crl>),
    /// An OCSP response, unchecked.
    Answer(Vec<u8>),
}

/// What is known of revocations, and what is being asked for.
#[derive(Debug, Default)]
pub(super) struct Knowledge {
    lists: HashMap<String, Arc<Crl>>,
    answers: HashMap<Subject, Answer>,
    /// OCSP responses about certificates of ours, and until when they count.
    own: HashMap<Subject, (Vec<u8>, UnixTime)>,
    pending: HashMap<FetchId, Pending>,
    /// What was asked for, and when it is worth asking again.
    asked: HashMap<Source, Instant>,
    last: u64,
}

/// One certificate, by its issuer's key and its number.
type Subject = ([u8; 20], Box<[u8]>);

#[derive(Debug)]
struct Answer {
    status: Status,
    until: UnixTime,
}

#[derive(Debug)]
struct Pending {
    source: Source,
    deadline: Instant,
    /// Whom it is about, its issuer, and the nonce of an OCSP request; none for one whose answer is to
    /// be passed on.
    about: (Arc<Certificate>, Arc<Certificate>, Option<Vec<u8>>),
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Source {
    List(String),
    Answer(String, Subject),
}

/// What a verified path is worth.
pub(super) enum Judgement {
    /// Nothing speaks against it.
    Clear,
    /// It cannot be used.
    Refused(String),
    /// These have to be answered first, or those asked earlier.
    Await(Vec<Fetch>),
}

/// An OCSP response about a certificate of ours.
pub(super) enum Own {
    Known(Vec<u8>),
    Ask(Fetch),
}

/// What judging takes besides what is known.
pub(super) struct Question<'a> {
    pub(super) policy: Revocation,
    pub(super) authorities: &'a [Authority],
    /// Revocation lists and OCSP responses that the peer has sent along (RFC 4806).
    pub(super) lists: &'a [Crl],
    pub(super) answers: &'a [&'a [u8]],
    pub(super) now: Instant,
    pub(super) time: UnixTime,
    pub(super) timeout: Duration,
}

impl Knowledge {
    pub(super) fn judge(
        &mut self,
        path: &Path,
        question: &Question<'_>,
        rng: &mut dyn CryptoRng,
    ) -> Judgement {
        let mut open = Vec::new();
        for (certificate, issuer) in path.issued() {
            match self.known(question, certificate, issuer) {
                Status::Good => {}
                Status::Revoked => {
                    let reason = format!("{} was revoked", certificate.subject());
                    return Judgement::Refused(reason);
                }
                Status::Unknown(why) => open.push((certificate, issuer, why)),
            }
        }
        let (mut wanted, mut waiting) = (Vec::new(), false);
        for (certificate, issuer, why) in open {
            let sources = sources(question, certificate, issuer);
            let needed = match question.policy {
                Revocation::Strict => true,
                Revocation::IfUri => !sources.is_empty(),
                Revocation::Relaxed => false,
            };
            match self.next_source(question, sources) {
                Next::Ask(source, configured) => {
                    wanted.push(((certificate, issuer), source, configured));
                }
                Next::Wait => waiting = true,
                Next::NobodyLeft if needed => {
                    let subject = certificate.subject();
                    let reason = format!("whether {subject} was revoked is not known: {why}");
                    return Judgement::Refused(reason);
                }
                Next::NobodyLeft => {}
            }
        }
        // Nothing is asked for a path that is of no use anyway.
        let fetches: Vec<_> = wanted
            .into_iter()
            .filter_map(|(whom, source, configured)| {
                let mut nonce = vec![0; NONCE_LEN];
                rng.fill_bytes(&mut nonce);
                self.ask(question, whom, (source, configured), Some(nonce))
            })
            .collect();
        if waiting || !fetches.is_empty() {
            return Judgement::Await(fetches);
        }
        Judgement::Clear
    }

    /// What can be said without asking anybody. One revocation outweighs everything else.
    fn known(
        &self,
        question: &Question<'_>,
        certificate: &Arc<Certificate>,
        issuer: &Arc<Certificate>,
    ) -> Status {
        let time = question.time;
        let uris = crl_uris(question, certificate, issuer);
        let fetched = uris
            .iter()
            .filter_map(|(uri, _)| self.lists.get(uri).map(Arc::as_ref));
        let from_files = question
            .authorities
            .iter()
            .flat_map(|authority| &authority.crls);
        let lists = fetched
            .chain(from_files.map(Arc::as_ref))
            .chain(question.lists);
        let by_list = lists
            .filter(|list| list.issuer() == certificate.issuer())
            .map(|list| list.status(certificate, issuer, time));
        let sent = question.answers.iter();
        let sent = sent.map(|answer| ocsp::status(answer, certificate, issuer, None, time).0);
        let cached = self.answers.get(&subject(certificate, issuer));
        let cached = cached.filter(|answer| time.as_secs() <= answer.until.as_secs());
        let cached = cached.map(|answer| answer.status);

        let mut best = Status::Unknown("no revocation list and no OCSP response");
        for status in cached.into_iter().chain(sent).chain(by_list) {
            match (status, best) {
                (Status::Revoked, _) => return Status::Revoked,
                (Status::Good, _) | (Status::Unknown(_), Status::Unknown(_)) => best = status,
                _ => {}
            }
        }
        best
    }

    /// The first source that has not been asked in vain. Where too much is being fetched, what comes of
    /// that is waited for.
    fn next_source(&self, question: &Question<'_>, sources: Vec<(Source, bool)>) -> Next {
        for (source, configured) in sources {
            let mut pending = self.pending.values();
            if pending.any(|pending| pending.source == source) {
                return Next::Wait;
            }
            let retry = self.asked.get(&source);
            if retry.is_some_and(|retry| question.now < *retry) {
                continue;
            }
            if self.pending.len() >= MOST_PENDING {
                return Next::Wait;
            }
            return Next::Ask(source, configured);
        }
        Next::NobodyLeft
    }

    fn ask(
        &mut self,
        question: &Question<'_>,
        (certificate, issuer): (&Arc<Certificate>, &Arc<Certificate>),
        (source, configured): (Source, bool),
        nonce: Option<Vec<u8>>,
    ) -> Option<Fetch> {
        let (uri, body) = match &source {
            Source::List(uri) => (uri.clone(), None),
            Source::Answer(uri, _) => {
                let body = ocsp::request(certificate, issuer, nonce.as_deref())?;
                (uri.clone(), Some(body))
            }
        };
        self.last += 1;
        let id = FetchId(self.last);
        let deadline = question.now + question.timeout;
        let about = (Arc::clone(certificate), Arc::clone(issuer), nonce);
        let pending = Pending {
            source,
            deadline,
            about,
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

    /// What a responder has said of our own certificate, or what to ask for it; nothing, if it was
    /// asked already or cannot be.
    pub(super) fn own(&mut self, key: &LocalKey, question: &Question<'_>) -> Option<Own> {
        let certificate = key.certificate()?;
        let known = question.authorities.iter();
        let known = known.map(|authority| &authority.certificate);
        let mut issuers = key.chain.iter().skip(1).chain(known);
        let issuer = issuers.find(|issuer| issuer.subject().der() == certificate.issuer())?;
        let kept = self.own.get(&subject(certificate, issuer));
        let fresh = kept.filter(|(_, until)| question.time.as_secs() <= until.as_secs());
        if let Some((answer, _)) = fresh {
            return Some(Own::Known(answer.clone()));
        }
        let mut sources = sources(question, certificate, issuer);
        sources.retain(|(source, _)| matches!(source, Source::Answer(..)));
        let Next::Ask(source, configured) = self.next_source(question, sources) else {
            return None;
        };
        let fetch = self.ask(question, (certificate, issuer), (source, configured), None)?;
        Some(Own::Ask(fetch))
    }

    /// Takes the end of a wish. What nobody waits for, or comes too late, is forgotten.
    pub(super) fn on_fetched(
        &mut self,
        id: FetchId,
        result: Result<Fetched, String>,
        (now, time): (Instant, UnixTime),
    ) -> Result<(), String> {
        let Some(pending) = self.pending.remove(&id) else {
            return Ok(());
        };
        let (cert, issuer, nonce) = &pending.about;
        let useful = match (result, &pending.source) {
            (Ok(Fetched::List(list)), Source::List(uri)) => {
                self.take_list(uri, list, issuer.key(), time)
            }
            (Ok(Fetched::Answer(answer)), Source::Answer(_, subject)) => {
                match ocsp::status(&answer, cert, issuer, nonce.as_deref(), time) {
                    (Status::Unknown(why), _) => Err(why.to_owned()),
                    (status, until) => {
                        make_room(&mut self.answers, MOST_ANSWERS);
                        let until = until.unwrap_or(time);
                        let passes_on = nonce.is_none() && status == Status::Good;
                        if passes_on && answer.len() <= MOST_OWN_BYTES {
                            make_room(&mut self.own, MOST_OWN);
                            self.own.insert(subject.clone(), (answer, until));
                        }
                        self.answers
                            .insert(subject.clone(), Answer { status, until });
                        Ok(())
                    }
                }
            }
            (Ok(_), ..) => Err("not what was asked for".to_owned()),
            (Err(reason), ..) => Err(reason),
        };
        // A list that does not settle the matter is not asked for again at once, either.
        make_room(&mut self.asked, MOST_ASKED);
        self.asked.insert(pending.source, now + RETRY);
        useful
    }

    /// What was known stays where a list is not of the key that its address stands for, or is older.
    fn take_list(
        &mut self,
        uri: &str,
        list: Arc<Crl>,
        key: &PublicKey,
        time: UnixTime,
    ) -> Result<(), String> {
        if !list.is_signed_by(key) {
            return Err("the list is not signed by the issuer".to_owned());
        }
        let known = self.lists.get(uri);
        if known.is_some_and(|known| !list.replaces(known)) {
            return Err("the list is older than the one before".to_owned());
        }
        if known.is_none() && self.lists.len() >= MOST_LISTS {
            let stale = self.lists.iter().find(|(_, list)| list.is_stale(time));
            let goes = stale.or_else(|| self.lists.iter().next());
            if let Some(goes) = goes.map(|(uri, _)| uri.clone()) {
                self.lists.remove(&goes);
                self.asked.remove(&Source::List(goes));
            }
        }
        let stale = list.is_stale(time);
        self.lists.insert(uri.to_owned(), list);
        if stale {
            return Err("the list is stale".to_owned());
        }
        Ok(())
    }

    /// Gives up what took too long; whether there was any.
    pub(super) fn expire(&mut self, now: Instant) -> bool {
        let before = self.pending.len();
        let late: Vec<_> = self
            .pending
            .iter()
            .filter(|(_, pending)| pending.deadline <= now)
            .map(|(id, _)| *id)
            .collect();
        for id in late {
            if let Some(pending) = self.pending.remove(&id) {
                make_room(&mut self.asked, MOST_ASKED);
                self.asked.insert(pending.source, now + RETRY);
            }
        }
        self.pending.len() < before
    }

    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.pending.values().map(|pending| pending.deadline).min()
    }

    /// Forgets what was fetched.
    pub(super) fn clear(&mut self) {
        self.lists.clear();
        self.answers.clear();
        self.own.clear();
        self.asked.clear();
    }
}

enum Next {
    /// This one; whether the configuration names it.
    Ask(Source, bool),
    /// It is being asked, or it will be its turn.
    Wait,
    NobodyLeft,
}

fn subject(certificate: &Certificate, issuer: &Certificate) -> Subject {
    (issuer.key().id(), certificate.serial().into())
}

/// Who can be asked about a certificate, OCSP first, and whether the configuration names them.
fn sources(
    question: &Question<'_>,
    certificate: &Arc<Certificate>,
    issuer: &Arc<Certificate>,
) -> Vec<(Source, bool)> {
    let configured = authorities(question, issuer).flat_map(|authority| &authority.ocsp_uris);
    let configured = configured.map(|uri| (uri, true));
    let named = certificate.ocsp_uris().iter().map(|uri| (uri, false));
    let responders = configured.chain(named).map(|(uri, configured)| {
        let source = Source::Answer(uri.clone(), subject(certificate, issuer));
        (source, configured)
    });
    let lists = crl_uris(question, certificate, issuer).into_iter();
    let lists = lists.map(|(uri, configured)| (Source::List(uri), configured));
    responders.chain(lists).take(MOST_SOURCES).collect()
}

fn crl_uris(
    question: &Question<'_>,
    certificate: &Arc<Certificate>,
    issuer: &Arc<Certificate>,
) -> Vec<(String, bool)> {
    let configured = authorities(question, issuer).flat_map(|authority| &authority.crl_uris);
    let configured = configured.map(|uri| (uri.clone(), true));
    let named = certificate
        .crl_uris()
        .iter()
        .map(|uri| (uri.clone(), false));
    configured.chain(named).collect()
}

fn authorities<'a>(
    question: &Question<'a>,
    issuer: &Certificate,
) -> impl Iterator<Item = &'a Authority> {
    let key = issuer.key().id();
    let all = question.authorities.iter();
    all.filter(move |authority| authority.certificate.key().id() == key)
}

/// Drops any entry of a full table.
fn make_room<K: Clone + Eq + std::hash::Hash, V>(table: &mut HashMap<K, V>, most: usize) {
    if table.len() >= most
        && let Some(key) = table.keys().next().cloned()
    {
        table.remove(&key);
    }
}

const MOST_LISTS: usize = 32;
const MOST_ANSWERS: usize = 4096;
/// Responses to pass on, and how long one may be: the message with it has to be carried.
const MOST_OWN: usize = 64;
const MOST_OWN_BYTES: usize = 4096;
const MOST_ASKED: usize = 1024;
const MOST_PENDING: usize = 64;
const MOST_SOURCES: usize = 8;
const NONCE_LEN: usize = 16;
/// Pause before a source is asked again about the same thing.
const RETRY: Duration = Duration::from_secs(60);
