//! Session resumption (RFC 5723): tickets that we make for peers, and those that peers have given us.
//!
//! A ticket holds all that its maker needs to go on with a peer whose IKE SA it has lost. The maker keeps
//! nothing for it but a list of the IKE SAs that were ended in order.
//!
//! ```text
//! client   IKE_AUTH {TICKET_REQUEST} ─►    ◄─ IKE_AUTH {TICKET_LT_OPAQUE}
//!          (either side loses the IKE SA)
//!          IKE_SESSION_RESUME: TICKET_OPAQUE, Ni ─►    ◄─ Nr, or TICKET_NACK
//!          IKE_AUTH ─►    ◄─ IKE_AUTH
//! ```
//!
//! ```text
//! ┌─────────┬────────┬──────┬────┬─────────────────────┬─────┐
//! │ version │ key ID │ salt │ IV │ expiry, the session │ ICV │
//! └─────────┴────────┴──────┴────┴─────────────────────┴─────┘
//!  1 byte    8        16     8    AES-256-GCM under a key of this ticket alone
//! ```

use std::collections::{HashMap, HashSet, VecDeque};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use zeroize::Zeroizing;

use crate::crypto::prf::Prf;
use crate::crypto::{Associated, CryptoRng, PacketKey, Secret};
use crate::wire::ikev2::{NotifyType, PayloadWriter};
use crate::wire::isakmp::IkeSpi;
use crate::wire::proposal::{CipherSuite, EncryptionId, PrfId};

use super::context::{Attempt, Context};
use super::directory::Directory;
use super::endpoint::Endpoint;
use super::session::{Date, Session};
use super::v2::{Datagram, add_notify};
use super::{Discard, Path};

/// What tickets are sealed with: 32 random bytes each, which nobody else has. They are to be changed
/// every [`TicketKeys::LIFE`].
#[derive(Debug)]
pub struct TicketKeys {
    /// For new tickets.
    pub current: Secret,
    /// For those that were made before.
    pub previous: Option<Secret>,
}

impl TicketKeys {
    /// How long a key seals. No ticket is good for longer, so the key before opens all that are.
    pub const LIFE: Duration = Duration::from_secs(24 * 3600);
}

/// A ticket that a peer has given us, for when its IKE SA is lost.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) opaque: Vec<u8>,
    pub(super) expires: Instant,
    /// Where the peer was.
    pub(super) remote: IpAddr,
    pub(super) session: Session,
}

/// Why a ticket is not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum TicketError {
    #[error("it is not there")]
    Missing,
    #[error("it is none of ours")]
    Foreign,
    #[error("{0}")]
    Stale(&'static str),
}

/// Keys, what is void, and what we hold.
#[derive(Debug, Default)]
pub(super) struct Tickets {
    /// The current one first.
    keys: Vec<TicketKey>,
    /// IKE SAs that nobody may go on from any more.
    void: HashSet<(IkeSpi, IkeSpi)>,
    /// The same in order.
    voided: VecDeque<(IkeSpi, IkeSpi)>,
    /// By connection.
    held: HashMap<String, Held>,
}

#[derive(Debug)]
struct TicketKey {
    id: [u8; KEY_ID_LEN],
    secret: Secret,
}

impl Tickets {
    pub(super) fn set_keys(&mut self, keys: TicketKeys) {
        let keys = [Some(keys.current), keys.previous].into_iter().flatten();
        self.keys = keys.map(TicketKey::new).collect();
    }

    /// Whether we make any.
    pub(super) fn has_keys(&self) -> bool {
        !self.keys.is_empty()
    }

    fn seal(
        &self,
        session: &Session,
        expires: u64,
        date: Date,
        rng: &mut dyn CryptoRng,
    ) -> Option<Vec<u8>> {
        let key = self.keys.first()?;
        let mut salt = [0; SALT_LEN];
        rng.fill_bytes(&mut salt);
        let header = [&[VERSION], &key.id[..], &salt].concat();
        let mut body = Zeroizing::new(Vec::with_capacity(2 * MAX_TICKET));
        body.extend_from_slice(&[0; IV_LEN]);
        body.extend_from_slice(&expires.to_be_bytes());
        session.encode(date, &mut body);
        body.extend_from_slice(&[0; ICV_LEN]);
        let associated = Associated {
            header: &header,
            esn_high: None,
        };
        // The key seals nothing else, so any nonce does.
        key.of(&salt).seal(0, associated, &mut body).ok()?;
        let ticket = [&header, body.as_slice()].concat();
        (ticket.len() <= MAX_TICKET).then_some(ticket)
    }

    fn open(&self, ticket: &[u8], date: Date) -> Result<Session, TicketError> {
        let (expires, session) = self.read(ticket, date).ok_or(TicketError::Foreign)?;
        let left = expires.checked_sub(date.time).filter(|left| *left > 0);
        // One that is good for longer than any was made before the clock was set back.
        if left.is_none_or(|left| left > TicketKeys::LIFE.as_secs()) {
            return Err(TicketError::Stale("it has expired"));
        }
        if self.is_void(session.spis) {
            return Err(TicketError::Stale("its IKE_SA was ended or resumed"));
        }
        Ok(session)
    }

    fn read(&self, ticket: &[u8], date: Date) -> Option<(u64, Session)> {
        if ticket.len() > MAX_TICKET {
            return None;
        }
        let (header, body) = ticket.split_at_checked(1 + KEY_ID_LEN + SALT_LEN)?;
        let (version, rest) = header.split_first()?;
        let (id, salt) = rest.split_first_chunk::<KEY_ID_LEN>()?;
        let key = self.keys.iter().find(|key| key.id == *id)?;
        if *version != VERSION {
            return None;
        }
        let associated = Associated {
            header,
            esn_high: None,
        };
        let mut body = Zeroizing::new(body.to_vec());
        let text = key.of(salt).open(associated, &mut body).ok()?;
        let (expires, text) = text.split_first_chunk::<8>()?;
        Some((u64::from_be_bytes(*expires), Session::parse(text, date)?))
    }

    /// Whether nobody goes on from this IKE SA any more.
    pub(super) fn is_void(&self, spis: (IkeSpi, IkeSpi)) -> bool {
        self.void.contains(&spis)
    }

    /// Nobody goes on from this IKE SA any more.
    pub(super) fn void(&mut self, spis: (IkeSpi, IkeSpi)) {
        if self.void.insert(spis) {
            self.voided.push_back(spis);
        }
        if self.voided.len() > MOST_VOID
            && let Some(oldest) = self.voided.pop_front()
        {
            self.void.remove(&oldest);
        }
    }

    /// Keeps a ticket for when its connection is wanted again, and none whose time is over.
    pub(super) fn hold(&mut self, held: Held, now: Instant) {
        self.held.retain(|_, held| held.expires > now);
        self.held.insert(held.session.connection.clone(), held);
    }

    /// Forgets the ticket of a connection: its IKE SA was ended, or there is another one.
    pub(super) fn forget(&mut self, connection: &str) {
        self.held.remove(connection);
    }

    /// Forgets the tickets of connections that are not resumed any more.
    pub(super) fn reconfigure(&mut self, directory: &Directory) {
        let stays = |name: &str| {
            let connection = directory.connection(name);
            connection.is_some_and(|connection| connection.resumption)
        };
        self.held.retain(|name, _| stays(name));
    }
}

impl TicketKey {
    fn new(secret: Secret) -> Self {
        let name = derive(&secret, &[b"name"], KEY_ID_LEN);
        let id = name.as_bytes().try_into().expect("it has this length");
        Self { id, secret }
    }

    /// The key of one ticket.
    fn of(&self, salt: &[u8]) -> PacketKey {
        let key = derive(&self.secret, &[b"ticket", salt], SEALING_KEY_LEN);
        PacketKey::new(SUITE, key.as_bytes(), &[]).expect("AES-256-GCM takes a key of 36 bytes")
    }
}

fn derive(secret: &Secret, seed: &[&[u8]], len: usize) -> Secret {
    let prf = Prf::new(PrfId::HMAC_SHA2_256).expect("HMAC-SHA2-256 is always there");
    prf.prf_plus(secret.as_bytes(), seed, len)
}

impl TicketError {
    fn discard(self) -> Discard {
        match self {
            Self::Missing => Discard::BadPayload,
            Self::Foreign => Discard::BadTicket,
            Self::Stale(_) => Discard::StaleTicket,
        }
    }
}

impl Context {
    fn date(&self) -> Date {
        Date {
            now: self.now,
            time: self.time_of_day().as_secs(),
        }
    }

    /// A ticket for an IKE SA that is good for `lifetime` seconds, if we make any.
    pub(super) fn seal_ticket(&mut self, session: &Session, lifetime: u32) -> Option<Vec<u8>> {
        let date = self.date();
        let expires = date.time.saturating_add(lifetime.into());
        let (tickets, rng) = self.tickets_and_rng();
        tickets.seal(session, expires, date, rng)
    }

    /// The IKE SA that a ticket of ours is for, if that may be resumed.
    pub(super) fn open_ticket(&self, ticket: &[u8]) -> Result<Session, TicketError> {
        self.tickets.open(ticket, self.date())
    }

    /// Takes the ticket that an attempt can begin with. A new authentication never does (RFC 4478). One
    /// that does not fit stays: our address may be another one at the next attempt.
    pub(super) fn take_ticket(&mut self, attempt: &Attempt, path: Path) -> Option<Held> {
        let connection = &attempt.connection;
        let held = self.tickets.held.get(&connection.name)?;
        let (local, session) = (path.local.ip(), &held.session);
        let fits = attempt.replaces.is_none()
            && attempt.may_resume
            && held.remote == path.remote.ip()
            && held.expires > self.now
            && session.fits(connection, local, &self.directory);
        if !fits {
            return None;
        }
        self.tickets.held.remove(&connection.name)
    }
}

impl Endpoint {
    /// Tells the sender of a ticket that it is not accepted, which is shorter than what it has sent.
    /// `always`: whatever others have been told.
    pub(super) fn refuse_ticket(
        &mut self,
        datagram: &Datagram<'_>,
        error: TicketError,
        always: bool,
    ) -> Discard {
        let line = format!("refused the ticket of {}: {error}", datagram.remote());
        self.cx.warn("IKE", None, line);
        let answers = error != TicketError::Missing;
        if answers && (always || self.admission.allow_reply(self.cx.now)) {
            let mut payloads = PayloadWriter::new();
            add_notify(&mut payloads, NotifyType::TICKET_NACK, &[]);
            self.reply_clear(datagram, payloads);
        }
        error.discard()
    }

    /// The peer goes on from this IKE SA with another one: it is deleted without a word (RFC 5723 §4.3.4).
    pub(super) fn forget_resumed(&mut self, spis: (IkeSpi, IkeSpi)) {
        let old = self.table.by_spis(spis);
        if let Some(id) = old.map(|sa| sa.core.id) {
            self.destroy_forgotten(id);
        }
    }
}

const VERSION: u8 = 1;
const KEY_ID_LEN: usize = 8;
const SALT_LEN: usize = 16;
const IV_LEN: usize = 8;
const ICV_LEN: usize = 16;
/// AES-256 and its salt.
const SEALING_KEY_LEN: usize = 36;
const SUITE: CipherSuite = CipherSuite {
    encryption: EncryptionId::AES_GCM_16,
    key_bits: 256,
    integrity: None,
};
/// A longer one would not fit into a request that is never cut.
pub(super) const MAX_TICKET: usize = 2048;
/// IKE SAs whose tickets are remembered to be void.
const MOST_VOID: usize = 32_768;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::Secret;
    use crate::wire::proposal::{AdditionalExchanges, IkeSuite, KeyExchangeId};
    use rand_chacha::ChaCha20Rng;
    use rand_core::SeedableRng;

    fn session(number: u8) -> Session {
        let mut additional = AdditionalExchanges::NONE;
        additional.set(2, KeyExchangeId::ML_KEM_768);
        Session {
            connection: "site".to_owned(),
            spis: (IkeSpi([number; 8]), IkeSpi([2; 8])),
            local_id: "gw-b.example".parse().expect("an identity"),
            remote_id: "C=CH, O=Example, CN=a".parse().expect("an identity"),
            suite: IkeSuite {
                cipher: SUITE,
                prf: PrfId::HMAC_SHA2_384,
                key_exchange: KeyExchangeId::X25519,
                additional,
            },
            sk_d: Secret::copy_from(&[7; 48]),
            has_ppk: true,
            leased: vec![[10, 3, 0, 1].into(), [0xfd00, 0, 0, 0, 0, 0, 0, 1].into()],
            holder: None,
            credential: Secret::copy_from(&[8; 32]),
            unproven_at: None,
            reauth_at: None,
        }
    }

    fn with_keys(seeds: &[u8]) -> Tickets {
        let mut keys = seeds.iter().map(|seed| Secret::copy_from(&[*seed; 32]));
        let mut tickets = Tickets::default();
        tickets.set_keys(TicketKeys {
            current: keys.next().expect("there is one"),
            previous: keys.next(),
        });
        tickets
    }

    fn date(time: u64) -> Date {
        let now = Instant::now();
        Date { now, time }
    }

    #[test]
    fn a_ticket_says_what_was_sealed_into_it_and_no_two_are_the_same() {
        let mut rng = ChaCha20Rng::seed_from_u64(1);
        let (tickets, date) = (with_keys(&[1]), date(1000));
        let session = Session {
            unproven_at: Some(date.now + Duration::from_secs(50)),
            ..session(1)
        };
        let one = tickets.seal(&session, 1100, date, &mut rng);
        let one = one.expect("there are keys");
        let two = tickets.seal(&session, 1100, date, &mut rng);
        assert_ne!(Some(&one), two.as_ref());
        assert!(one.len() < 400, "{} bytes", one.len());
        for secret in [&[7; 48][..], &[8; 32], b"site", b"gw-b"] {
            assert!(!one.windows(secret.len()).any(|part| part == secret));
        }
        let opened = tickets.open(&one, date).expect("it is good");
        assert_eq!(format!("{opened:?}"), format!("{session:?}"));
        assert_eq!(opened.sk_d, session.sk_d);
        assert_eq!(opened.credential, session.credential);
        // Another clock, as after a restart, gives the same time of day.
        let later = Date {
            now: date.now + Duration::from_secs(7),
            time: date.time + 20,
        };
        let opened = tickets.open(&one, later).expect("it is good");
        let end = later.now + Duration::from_secs(30);
        assert_eq!(opened.unproven_at, Some(end));
    }

    #[test]
    fn a_ticket_is_good_until_it_expires_and_from_no_time_to_come() {
        let mut rng = ChaCha20Rng::seed_from_u64(1);
        let tickets = with_keys(&[1]);
        let expired = Some(TicketError::Stale("it has expired"));
        let day = TicketKeys::LIFE.as_secs();
        let ticket = tickets.seal(&session(1), 2 * day, date(day), &mut rng);
        let ticket = ticket.expect("there are keys");
        let open = |time| tickets.open(&ticket, date(time)).err();
        assert_eq!(open(day), None);
        assert_eq!(open(2 * day - 1), None);
        assert_eq!(open(2 * day), expired);
        assert_eq!(open(u64::MAX), expired);
        assert_eq!(open(day - 1), expired, "the clock was set back");
    }

    #[test]
    fn keys_open_what_the_last_ones_have_sealed_and_nothing_older() {
        let mut rng = ChaCha20Rng::seed_from_u64(1);
        let ticket = with_keys(&[1]).seal(&session(1), 1100, date(1000), &mut rng);
        let ticket = ticket.expect("there are keys");
        let open = |keys: &[u8]| with_keys(keys).open(&ticket, date(1000)).err();
        assert_eq!(open(&[1]), None);
        assert_eq!(open(&[2, 1]), None);
        assert_eq!(open(&[3, 2]), Some(TicketError::Foreign));
        let none = Tickets::default();
        assert_eq!(
            none.open(&ticket, date(1000)).err(),
            Some(TicketError::Foreign)
        );
        assert!(none.seal(&session(1), 1100, date(1000), &mut rng).is_none());
    }

    #[test]
    fn a_session_that_would_not_fit_into_a_request_gets_no_ticket() {
        let mut rng = ChaCha20Rng::seed_from_u64(1);
        for (length, fits) in [(1000, true), (2048, false), (70_000, false)] {
            let session = Session {
                connection: "a".repeat(length),
                ..session(1)
            };
            let ticket = with_keys(&[1]).seal(&session, 1100, date(1000), &mut rng);
            assert_eq!(ticket.is_some(), fits, "{length}");
        }
    }

    #[test]
    fn void_ike_sas_are_remembered_up_to_a_bound_each_once() {
        let mut tickets = Tickets::default();
        let spis = |number: usize| {
            let number = u64::try_from(number).expect("it is small");
            (IkeSpi(number.to_be_bytes()), IkeSpi([1; 8]))
        };
        for number in 0..MOST_VOID + 10 {
            tickets.void(spis(number));
            tickets.void(spis(number));
        }
        assert_eq!(tickets.void.len(), MOST_VOID);
        assert_eq!(tickets.voided.len(), MOST_VOID);
        assert!(!tickets.is_void(spis(9)));
        assert!(tickets.is_void(spis(10)));
    }
}
