//! Whether certificates were revoked: what is known, and what has to be asked for.
//!
//! ```text
//! judge ─► known? ─► Clear or Refused
//!             └─ no ─► Output::Fetch … Input::Fetched (or no answer in time) ─► judge again
//! ```
//!
//! Only addresses in certificates whose path was verified are asked for, and every table here is
//! bounded: what a peer can make us fetch and keep is what authorities of the configuration signed.

mod asking;
mod places;

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::crypto::x509::{Certificate, Crl, Path, Status, UnixTime, ocsp};
use crate::crypto::{CryptoRng, PublicKey};

use super::credentials::{Authority, LocalKey, Revocation};

use asking::{Asked, Next};
use places::{Source, Subject, crl_uris, is_place_named, says_peer, sent_lists, sources, subject};

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
    /// IKE SAs that wait until something more may be asked for.
    crowd: BTreeSet<u64>,
    /// IKE SAs whose turn it is to look again.
    woken: BTreeSet<u64>,
    last: u64,
}

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
    /// IKE SAs that wait for the end of it.
    waiters: BTreeSet<u64>,
}

/// What a verified path is worth.
pub(super) enum Judgement {
    /// Nothing speaks against it.
    Clear,
    /// It cannot be used.
    Refused(String),
    /// These have to be answered first, or those asked earlier. [`Knowledge::wake`] says when to judge
    /// again.
    Await(Vec<Fetch>),
}

/// An IKE SA that may wait for answers, and until when: for all that its handshake needs.
#[derive(Clone, Copy, Debug)]
pub(super) struct Waiter {
    pub(super) ike: u64,
    pub(super) until: Instant,
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
    /// How long all fetches for one certificate may take where nobody waits.
    pub(super) timeout: Duration,
    /// Absent where nobody waits.
    pub(super) waiter: Option<Waiter>,
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
        let (mut wanted, mut awaited) = (Vec::new(), Vec::new());
        for (certificate, issuer, why) in open {
            let sources = sources(question, certificate, issuer);
            let needed = match question.policy {
                Revocation::Strict => true,
                Revocation::IfUri => is_place_named(question, certificate, issuer),
                Revocation::Relaxed => false,
            };
            match self.next_source(question, sources) {
                Next::Ask(next) => wanted.push(((certificate, issuer), next)),
                Next::Wait(what) => awaited.push(what),
                Next::NobodyLeft if needed && !says_peer(question, certificate, issuer) => {
                    let subject = certificate.subject();
                    let reason = format!("whether {subject} was revoked is not known: {why}");
                    return Judgement::Refused(reason);
                }
                Next::NobodyLeft => {}
            }
        }
        if wanted.is_empty() && awaited.is_empty() {
            return Judgement::Clear;
        }
        let waits = !awaited.is_empty();
        for what in awaited {
            let pending = what.and_then(|id| self.pending.get_mut(&id));
            let waiters = pending.map_or(&mut self.crowd, |pending| &mut pending.waiters);
            waiters.extend(question.waiter.map(|waiter| waiter.ike));
        }
        // Nothing is asked for a path that is of no use anyway.
        let asked = wanted.into_iter().filter_map(|(whom, next)| {
            let mut nonce = vec![0; NONCE_LEN];
            rng.fill_bytes(&mut nonce);
            self.ask(question, whom, next, Some(nonce))
        });
        let fetches: Vec<_> = asked.collect();
        if fetches.is_empty() && !waits {
            return self.judge(path, question, rng); // with what is left besides those
        }
        Judgement::Await(fetches)
    }

    /// What can be said without asking anybody. One revocation outweighs everything else.
    ///
    /// A list that the peer has sent along may be the last one before its certificate was revoked: that
    /// one revokes it counts, that it does not is worth less than what we fetch ourselves.
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
        let lists = fetched.chain(from_files.map(Arc::as_ref));
        let by_list = lists
            .filter(|list| list.issuer() == certificate.issuer())
            .map(|list| list.status(certificate, issuer, time));
        let by_peer = sent_lists(question, certificate, issuer);
        let by_peer = by_peer.filter(|status| *status == Status::Revoked);
        let sent = question.answers.iter();
        let sent = sent.map(|answer| ocsp::status(answer, certificate, issuer, None, time).0);
        let cached = self.answers.get(&subject(certificate, issuer));
        let cached = cached.filter(|answer| time.as_secs() <= answer.until.as_secs());
        let cached = cached.map(|answer| answer.status);

        let mut best = Status::Unknown("no revocation list and no OCSP response");
        let all = cached.into_iter().chain(sent).chain(by_peer);
        for status in all.chain(by_list) {
            match (status, best) {
                (Status::Revoked, _) => return Status::Revoked,
                (Status::Good, _) | (Status::Unknown(_), Status::Unknown(_)) => best = status,
                _ => {}
            }
        }
        best
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
        let Next::Ask(next) = self.next_source(question, sources) else {
            return None;
        };
        // The certificate that names it is one of the configuration.
        let next = Asked {
            configured: true,
            ..next
        };
        let fetch = self.ask(question, (certificate, issuer), next, None)?;
        Some(Own::Ask(fetch))
    }

    /// Takes the end of a wish. What nobody waits for, or comes too late, is forgotten.
    pub(super) fn on_fetched(
        &mut self,
        id: FetchId,
        result: Result<Fetched, String>,
        (now, time): (Instant, UnixTime),
    ) -> Result<(), String> {
        let Some(mut pending) = self.pending.remove(&id) else {
            return Ok(());
        };
        self.woken.append(&mut pending.waiters);
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
        self.give_up(pending.source, now);
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

    /// Gives up what took too long.
    pub(super) fn expire(&mut self, now: Instant) {
        let late: Vec<_> = self
            .pending
            .iter()
            .filter(|(_, pending)| pending.deadline <= now)
            .map(|(id, _)| *id)
            .collect();
        for id in late {
            if let Some(mut pending) = self.pending.remove(&id) {
                self.woken.append(&mut pending.waiters);
                self.give_up(pending.source, now);
            }
        }
    }

    /// An IKE SA that should judge again: what it waited for has come to an end, or may be asked for.
    /// To be asked until there is none, each time that something was fetched or given up.
    pub(super) fn wake(&mut self) -> Option<u64> {
        let has_room = self.pending.len() < MOST_PENDING;
        let woken = self.woken.pop_first();
        woken.or_else(|| has_room.then(|| self.crowd.pop_first()).flatten())
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
const NONCE_LEN: usize = 16;
/// Pause before a source is asked again about the same thing.
const RETRY: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;
    use rand_chacha::ChaCha20Rng;
    use rand_core::SeedableRng;
    use rcgen::{BasicConstraints, CertificateParams, CrlDistributionPoint, IsCa, Issuer, KeyPair};

    /// Paths below one authority, whose certificates each name a place.
    struct Site {
        knowledge: Knowledge,
        authority: (CertificateParams, KeyPair),
        root: Arc<Certificate>,
        now: Instant,
        time: UnixTime,
        rng: ChaCha20Rng,
    }

    impl Site {
        fn new() -> Self {
            let key = KeyPair::generate().expect("a key");
            let mut params = CertificateParams::default();
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            params.not_before = rcgen::date_time_ymd(2025, 1, 1);
            let root = params.self_signed(&key).expect("signed");
            Self {
                knowledge: Knowledge::default(),
                authority: (params, key),
                root: Arc::new(Certificate::from_der(root.der()).expect("read")),
                now: Instant::now(),
                time: UnixTime::since_unix_epoch(Duration::from_secs(1_780_000_000)),
                rng: ChaCha20Rng::seed_from_u64(1),
            }
        }

        fn path(&self, uri: &str) -> Path {
            let (key, (params, issuer)) = (KeyPair::generate().expect("a key"), &self.authority);
            let mut leaf = CertificateParams::default();
            leaf.not_before = rcgen::date_time_ymd(2025, 1, 1);
            leaf.crl_distribution_points = vec![CrlDistributionPoint {
                uris: vec![uri.to_owned()],
            }];
            let leaf = leaf.signed_by(&key, &Issuer::from_params(params, issuer));
            let leaf = Certificate::from_der(leaf.expect("signed").der()).expect("read");
            let anchors = [Arc::clone(&self.root)];
            Path::build(&Arc::new(leaf), &[], &anchors, self.time).expect("a path")
        }

        fn judge(&mut self, ike: u64, path: &Path) -> Judgement {
            self.judge_until(ike, path, Duration::from_secs(10))
        }

        fn judge_until(&mut self, ike: u64, path: &Path, left: Duration) -> Judgement {
            let question = Question {
                policy: Revocation::Strict,
                authorities: &[],
                lists: &[],
                answers: &[],
                now: self.now,
                time: self.time,
                timeout: Duration::from_secs(10),
                waiter: Some(Waiter {
                    ike,
                    until: self.now + left,
                }),
            };
            self.knowledge.judge(path, &question, &mut self.rng)
        }

        /// The wish for a list, if there is a new one.
        fn ask(&mut self, ike: u64, path: &Path) -> Option<FetchId> {
            match self.judge(ike, path) {
                Judgement::Await(fetches) => fetches.first().map(|fetch| fetch.id),
                _ => panic!("it waits"),
            }
        }

        fn end(&mut self, id: FetchId) {
            let failed = Err("not there".to_owned());
            let result = self.knowledge.on_fetched(id, failed, (self.now, self.time));
            result.expect_err("not there");
        }

        fn woken(&mut self) -> Vec<u64> {
            std::iter::from_fn(|| self.knowledge.wake()).collect()
        }
    }

    #[test]
    fn an_outcome_wakes_those_who_wait_for_it_and_nobody_else() {
        let mut site = Site::new();
        let (one, two) = (
            site.path("http://one.example"),
            site.path("http://two.example"),
        );
        let first = site.ask(1, &one).expect("nobody has asked");
        let second = site.ask(2, &two).expect("nobody has asked");
        assert_eq!(site.ask(3, &one), None, "it is being asked");
        assert_eq!(site.ask(4, &two), None, "it is being asked");
        assert!(site.woken().is_empty());
        site.end(first);
        assert_eq!(site.woken(), [1, 3]);
        assert!(site.woken().is_empty(), "each once");
        site.knowledge.expire(site.now + Duration::from_secs(10));
        assert_eq!(site.woken(), [2, 4]);
        let late = Err("late".to_owned());
        let late = site
            .knowledge
            .on_fetched(second, late, (site.now, site.time));
        assert_eq!((late, site.woken()), (Ok(()), vec![]));
    }

    #[test]
    fn who_cannot_wait_long_does_not_shorten_the_time_of_a_source() {
        let mut site = Site::new();
        let path = site.path("http://one.example");
        let hurried = site.judge_until(1, &path, Duration::from_millis(10));
        let Judgement::Await(fetches) = hurried else {
            panic!("it waits");
        };
        assert_eq!(fetches[0].deadline, site.now + Duration::from_secs(10));
        site.now += Duration::from_millis(10);
        site.knowledge.expire(site.now);
        assert_eq!(site.ask(2, &path), None, "it is still being asked");
    }

    #[test]
    fn as_many_as_there_is_room_for_are_woken_from_the_crowd() {
        let mut site = Site::new();
        let asked = (0..64).map(|ike| {
            let path = site.path(&format!("http://{ike}.example"));
            site.ask(ike, &path).expect("there is room")
        });
        let asked: Vec<_> = asked.collect();
        let path = site.path("http://last.example");
        for ike in 100..103 {
            assert_eq!(site.ask(ike, &path), None, "there is no room");
        }
        assert!(site.woken().is_empty());
        site.end(asked[7]);
        assert_eq!(site.knowledge.wake(), Some(7));
        assert_eq!(site.knowledge.wake(), Some(100));
        assert!(site.ask(100, &path).is_some(), "there is room");
        assert!(site.woken().is_empty());
        site.end(asked[8]);
        assert_eq!(site.woken(), [8, 101, 102], "nothing takes the room");
    }
}
