//! What a step may use and leave behind: time, randomness, outputs, and effects on other IKE SAs.

use std::collections::{HashMap, HashSet, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::crypto::CryptoRng;
use crate::crypto::x509::{Path as Chain, UnixTime};
use crate::ipsec::{ChildId, Reqid, SaUpdate, Selectors, Spd, Spi, WorkerId, allocate_spi};
use crate::wire::ip::Flow;
use crate::wire::isakmp::IkeSpi;
use crate::wire::proposal::CipherSuite;

use super::commands::Commands;
use super::credentials::{LocalKey, Revocation};
use super::directory::Directory;
use super::key_log::Entry;
use super::pad::{ChildConfig, Connection};
use super::peers::Peers;
use super::pools::Pools;
use super::rate::RateLimit;
use super::redirect::Detour;
use super::revocation::{Fetch, Judgement, Knowledge, Own, Question};
use super::tickets::Tickets;
use super::v2::{ChildSa, IkeSa, Inheritance, Outgoing, Peer};
use super::{
    Alert, AlertKind, CommandError, CommandId, CommandOutcome, Discard, Event, KeyTable, Output,
    Pad, Path, Settings, Transmit,
};

/// Everything that is not one IKE SA.
pub(super) struct Context {
    pub(super) now: Instant,
    pub(super) settings: Settings,
    /// Suites that the key log has left out, and said so.
    unnamed: Vec<(KeyTable, CipherSuite)>,
    pub(super) pad: Arc<Pad>,
    pub(super) directory: Arc<Directory>,
    /// Every address of ours, as far as it was told.
    pub(super) addresses: Vec<IpAddr>,
    /// Our address towards a peer, as the routing table has it.
    pub(super) sources: HashMap<IpAddr, IpAddr>,
    pub(super) spis: EspSpis,
    pub(super) effects: Vec<Effect>,
    pub(super) commands: Commands,
    pub(super) peers: Peers,
    pub(super) pools: Pools,
    /// Our addresses from peers, by connection, and the IKE SA that has them.
    virtual_ips: HashMap<String, (u64, Vec<IpAddr>)>,
    pub(super) revocation: Knowledge,
    pub(super) tickets: Tickets,
    /// The time of day at a time.
    clock: (Instant, UnixTime),
    rng: Box<dyn CryptoRng + Send>,
    outputs: VecDeque<Output>,
    discards: [u64; Discard::COUNT],
    warnings: RateLimit,
    last_id: u64,
}

/// What a step of one IKE SA wants done to others.
pub(super) enum Effect {
    /// A rekey made this one.
    Spawn(Box<IkeSa>),
    /// This one was authenticated; older ones of the same peer may have to go.
    Established { id: u64, initial_contact: bool },
    /// A replaced IKE SA leaves its children to this one.
    Inherit {
        from: u64,
        to: u64,
        inheritance: Box<Inheritance>,
    },
    /// The peer uses an SA that was made by a rekey which is still contested.
    Claim { heir: u64 },
    /// This one was to replace another one, which is not contested any more.
    Withdrawn { heir: u64 },
    /// The peer could not be reached or refused.
    Failed(Failure),
    /// There is another way: another gateway that the peer has named, or without a ticket.
    Connect(Attempt),
    /// The peer goes on from the IKE SA with these SPIs.
    Resumed { spis: (IkeSpi, IkeSpi) },
    /// Children were closed and are wanted again, after this pause.
    Restart(Attempt, Duration),
    /// This one is due for a new authentication.
    Reauthenticate(u64),
    /// Child SAs are gone with their IKE SA; another one with this peer may have some for their policies.
    Relieve {
        peer: Peer,
        children: Vec<ChildSa>,
        /// What the peer has sent on them may still arrive.
        lingers: bool,
    },
    /// This one was replaced by a new authentication.
    Delete(u64),
}

/// An IKE SA that could not be set up.
pub(super) struct Failure {
    pub(super) attempt: Attempt,
    pub(super) reason: String,
    pub(super) cause: Cause,
}

/// What made an attempt fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cause {
    /// The peer did not answer, so it is worth another try.
    Silence(AlertKind),
    /// The peer or the configuration refused.
    Refusal(AlertKind),
    /// It is not wanted any more.
    Cancelled,
}

/// What an IKE SA is set up for.
#[derive(Debug)]
pub(super) struct Attempt {
    pub(super) connection: Arc<Connection>,
    pub(super) wishes: Vec<Wish>,
    /// Commands that wait for the IKE SA itself.
    pub(super) waiters: Vec<CommandId>,
    /// Attempts before this one.
    pub(super) tries: u32,
    /// The IKE SA that this one replaces by a new authentication.
    pub(super) replaces: Option<u64>,
    pub(super) detour: Detour,
    /// It does not begin before our address towards its destination is told, and comes to nothing if that is not for too long.
    pub(super) awaits_source: bool,
    /// It may begin with a ticket.
    pub(super) may_resume: bool,
}

impl Attempt {
    pub(super) fn new(connection: &Arc<Connection>, wishes: Vec<Wish>) -> Self {
        Self {
            connection: Arc::clone(connection),
            wishes,
            waiters: Vec::new(),
            tries: 0,
            replaces: None,
            detour: Detour::default(),
            awaits_source: false,
            may_resume: true,
        }
    }

    /// Follows a changed configuration. Wishes for children that are gone from it are returned.
    pub(super) fn reconfigure(&mut self, connection: &Arc<Connection>) -> Vec<Wish> {
        if !connection.follow_redirects || connection.remote_addrs != self.connection.remote_addrs {
            self.detour = Detour::default();
        }
        self.connection = Arc::clone(connection);
        let mut gone = Vec::new();
        for mut wish in std::mem::take(&mut self.wishes) {
            if wish.reconfigure(connection) {
                self.wishes.push(wish);
            } else {
                gone.push(wish);
            }
        }
        gone
    }

    /// Nobody wants it any more.
    pub(super) fn is_idle(&self) -> bool {
        self.wishes.is_empty() && self.waiters.is_empty() && self.replaces.is_none()
    }

    /// Adds a wish for a child, unless there is one already.
    pub(super) fn wish_for(wishes: &mut Vec<Wish>, child: &Arc<ChildConfig>) {
        if !wishes.iter().any(|wish| wish.child.reqid == child.reqid) {
            wishes.push(Wish::new(child));
        }
    }

    /// Whether it brings a Child SA for this policy.
    pub(super) fn wants(&self, reqid: Reqid) -> bool {
        self.wishes.iter().any(|wish| wish.child.reqid == reqid)
    }
}

impl Wish {
    pub(super) fn new(child: &Arc<ChildConfig>) -> Self {
        Self {
            child: Arc::clone(child),
            flow: None,
            exactly: None,
            worker: None,
            waiters: Vec::new(),
            patience: PATIENCE,
        }
    }

    /// Follows a changed configuration; false if the child is gone from it.
    pub(super) fn reconfigure(&mut self, connection: &Connection) -> bool {
        match connection.same_child(&self.child) {
            Some(child) if self.worker.is_none() || child.per_cpu_sas => {
                self.child = Arc::clone(child);
                true
            }
            Some(_) | None => false,
        }
    }
}

/// A Child SA that is wanted.
#[derive(Debug)]
pub(super) struct Wish {
    pub(super) child: Arc<ChildConfig>,
    /// The packet that asked for it.
    pub(super) flow: Option<Flow>,
    /// Ask for these and not for all that is configured.
    pub(super) exactly: Option<Selectors>,
    /// The worker that it is for, besides the Child SA that there is (RFC 9611).
    pub(super) worker: Option<WorkerId>,
    pub(super) waiters: Vec<CommandId>,
    /// How often the peer may still ask us to wait.
    pub(super) patience: u8,
}

/// Inbound ESP SPIs in use or reserved, and whose turn it is.
pub(super) struct EspSpis {
    taken: HashSet<Spi>,
    next_worker: u16,
}

impl Context {
    pub(super) fn new(
        settings: Settings,
        pad: Arc<Pad>,
        rng: Box<dyn CryptoRng + Send>,
        now: Instant,
    ) -> Self {
        Self {
            now,
            settings,
            unnamed: Vec::new(),
            directory: Arc::new(Directory::new(&pad)),
            pad,
            addresses: Vec::new(),
            sources: HashMap::new(),
            spis: EspSpis {
                taken: HashSet::new(),
                next_worker: 0,
            },
            effects: Vec::new(),
            commands: Commands::default(),
            peers: Peers::default(),
            pools: Pools::default(),
            virtual_ips: HashMap::new(),
            revocation: Knowledge::default(),
            tickets: Tickets::default(),
            clock: (now, UnixTime::since_unix_epoch(Duration::ZERO)),
            rng,
            outputs: VecDeque::new(),
            discards: [0; Discard::COUNT],
            warnings: RateLimit::new(10, 40, now),
            last_id: 0,
        }
    }

    /// Takes a new configuration and returns what is needed of the old one.
    pub(super) fn reconfigure(&mut self, pad: Arc<Pad>) -> Arc<Directory> {
        let directory = Arc::new(Directory::new(&pad));
        self.pad = pad;
        std::mem::replace(&mut self.directory, directory)
    }

    /// Installs the policies of the configuration, with our virtual addresses.
    pub(super) fn set_policies(&mut self) {
        let policies = self.policies();
        self.update(SaUpdate::SetPolicies(Arc::new(policies)));
    }

    /// Those policies.
    pub(super) fn policies(&self) -> Spd {
        self.pad.policies_with(&self.virtual_ips)
    }

    /// Our addresses from the peer of a connection.
    pub(super) fn virtual_ips(&self, connection: &str) -> &[IpAddr] {
        let assigned = self.virtual_ips.get(connection);
        assigned.map_or(&[], |(_, assigned)| assigned)
    }

    /// All our addresses from peers.
    pub(super) fn all_virtual_ips(&self) -> impl Iterator<Item = IpAddr> {
        let assigned = self.virtual_ips.values();
        assigned.flat_map(|(_, assigned)| assigned.iter().copied())
    }

    /// The peer of a connection has given us addresses.
    pub(super) fn note_virtual_ips(&mut self, connection: &str, holder: u64, assigned: &[IpAddr]) {
        let entry = (holder, assigned.to_vec());
        self.virtual_ips.insert(connection.to_owned(), entry);
        self.set_policies();
    }

    /// The IKE SA that had brought addresses is gone.
    pub(super) fn forget_virtual_ips(&mut self, connection: &str, holder: u64) {
        let is_it = |(known, _): &(u64, Vec<IpAddr>)| *known == holder;
        if self.virtual_ips.get(connection).is_some_and(is_it) {
            self.virtual_ips.remove(connection);
            self.set_policies();
        }
    }

    pub(super) fn rng(&mut self) -> &mut dyn CryptoRng {
        &mut *self.rng
    }

    /// Tickets, and what to make one with.
    pub(super) fn tickets_and_rng(&mut self) -> (&Tickets, &mut dyn CryptoRng) {
        (&self.tickets, &mut *self.rng)
    }

    /// Takes the time of day.
    pub(super) fn set_clock(&mut self, time: UnixTime) {
        self.clock = (self.now, time);
    }

    /// The time of day.
    pub(super) fn time_of_day(&self) -> UnixTime {
        let (at, time) = self.clock;
        let since = self.now.saturating_duration_since(at);
        UnixTime::since_unix_epoch(Duration::from_secs(time.as_secs()) + since)
    }

    /// Whether a verified path may be used.
    pub(super) fn judge_revocation(&mut self, path: &Chain, question: &Question<'_>) -> Judgement {
        self.revocation.judge(path, question, &mut *self.rng)
    }

    /// What an OCSP responder has said of our own certificate; asks, if that is not known.
    pub(super) fn own_answer(&mut self, key: &LocalKey) -> Option<Vec<u8>> {
        let pad = Arc::clone(&self.pad);
        let question = Question {
            policy: Revocation::Relaxed,
            authorities: &pad.authorities,
            lists: &[],
            answers: &[],
            now: self.now,
            time: self.time_of_day(),
            timeout: self.settings.fetch_timeout,
            waiter: None,
        };
        let own = self.revocation.own(key, &question)?;
        match own {
            Own::Known(answer) => Some(answer),
            Own::Ask(fetch) => {
                self.fetch(vec![fetch]);
                None
            }
        }
    }

    /// Unique among IKE SAs.
    pub(super) fn next_id(&mut self) -> u64 {
        self.last_id += 1;
        self.last_id
    }

    /// Unique among Child SAs, and among IKE SAs too.
    pub(super) fn next_child_id(&mut self) -> ChildId {
        ChildId(self.next_id())
    }

    pub(super) fn ike_spi(&mut self) -> IkeSpi {
        loop {
            let mut bytes = [0; 8];
            self.rng.fill_bytes(&mut bytes);
            let spi = IkeSpi(bytes);
            if !spi.is_zero() {
                return spi;
            }
        }
    }

    /// At least half the key size of any PRF of ours (RFC 7296 §2.10).
    pub(super) fn nonce(&mut self) -> Vec<u8> {
        let mut nonce = vec![0; 32];
        self.rng.fill_bytes(&mut nonce);
        nonce
    }

    pub(super) fn output(&mut self, output: Output) {
        self.outputs.push_back(output);
    }

    pub(super) fn poll(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    pub(super) fn transmit(&mut self, path: Path, bytes: Vec<u8>) {
        self.output(Output::Transmit(Transmit {
            path,
            marker: path.local.port() == self.settings.port_nat_t,
            bytes,
        }));
    }

    /// Sends a message, with all its fragments.
    pub(super) fn send(&mut self, path: Path, message: &Outgoing) {
        for datagram in message.datagrams() {
            self.transmit(path, datagram.clone());
        }
    }

    pub(super) fn fetch(&mut self, fetches: Vec<Fetch>) {
        self.outputs.extend(fetches.into_iter().map(Output::Fetch));
    }

    pub(super) fn update(&mut self, update: SaUpdate) {
        self.output(Output::Update(update));
    }

    pub(super) fn event(&mut self, event: Event) {
        self.output(Output::Event(event));
    }

    /// A line with keys, if somebody has switched that on.
    pub(super) fn key_line(&self, entry: impl FnOnce() -> Entry) -> Option<Entry> {
        self.settings.key_log.then(entry)
    }

    /// Lets keys out, or says once of each suite that it has no line.
    pub(super) fn log_keys(&mut self, entry: Option<Entry>) {
        match entry {
            Some(Entry::Line(line)) => self.output(Output::KeyLog(line)),
            Some(Entry::Unnamed(table, suite)) if !self.unnamed.contains(&(table, suite)) => {
                self.unnamed.push((table, suite));
                let file = table.file_name();
                let integrity = suite.integrity.map(|id| format!("/{id}"));
                let (bits, integrity) = (suite.key_bits, integrity.unwrap_or_default());
                let suite = format!("{}{integrity} with keys of {bits} bits", suite.encryption);
                let line = format!("no line in {file}: Wireshark has no name for {suite}");
                self.log("IKE", None, line);
            }
            Some(Entry::Unnamed(..)) | None => {}
        }
    }

    pub(super) fn discard(&mut self, reason: Discard) {
        if let Some(count) = self.discards.get_mut(reason.index()) {
            *count += 1;
        }
    }

    /// Counts one end of a command, and tells of it when it was the last.
    pub(super) fn finish_command(
        &mut self,
        id: CommandId,
        result: Result<CommandOutcome, CommandError>,
    ) {
        if let Some(result) = self.commands.finish_one(id, result) {
            self.event(Event::CommandDone { id, result });
        }
    }

    /// Ends commands that wait for what is not configured any more.
    pub(super) fn cancel(&mut self, wishes: impl IntoIterator<Item = Wish>) {
        for id in wishes.into_iter().flat_map(|wish| wish.waiters) {
            self.finish_command(id, Err(CommandError::Failed(CANCELLED.to_owned())));
        }
    }

    pub(super) fn discards(&self) -> &[u64; Discard::COUNT] {
        &self.discards
    }

    /// One line for people.
    pub(super) fn log(&mut self, group: &'static str, ike: Option<(String, u64)>, message: String) {
        self.event(Event::Log {
            level: 1,
            group,
            ike,
            message,
        });
    }

    /// One line that a stranger can trigger, and so is limited in rate.
    pub(super) fn warn(
        &mut self,
        group: &'static str,
        ike: Option<(String, u64)>,
        message: String,
    ) {
        if self.warnings.allow(self.now) {
            self.event(Event::Log {
                level: -1,
                group,
                ike,
                message,
            });
        }
    }

    /// A failure that a stranger can bring about, and so is limited in rate.
    pub(super) fn alert_of_stranger(&mut self, alert: impl FnOnce(&Self) -> Alert) {
        if self.warnings.allow(self.now) {
            let alert = alert(self);
            self.event(Event::Alert(alert));
        }
    }

    /// The worker for the next new Child SA.
    pub(super) fn next_owner(&mut self) -> WorkerId {
        let owner = WorkerId(self.spis.next_worker);
        let next = self.spis.next_worker.wrapping_add(1);
        self.spis.next_worker = next.checked_rem(self.settings.workers.get()).unwrap_or(0);
        owner
    }

    /// A fresh inbound SPI that names `owner`; to be given back with [`Context::release_spi`] or
    /// [`Context::remove_inbound`].
    pub(super) fn reserve_spi(&mut self, owner: WorkerId) -> Spi {
        let taken = &self.spis.taken;
        let workers = self.settings.workers;
        let spi = allocate_spi(&mut *self.rng, owner, workers, |spi| taken.contains(&spi));
        self.spis.taken.insert(spi);
        spi
    }

    pub(super) fn release_spi(&mut self, spi: Spi) {
        self.spis.taken.remove(&spi);
    }

    /// Removes an inbound SA, and frees its SPI.
    pub(super) fn remove_inbound(&mut self, spi: Spi, owner: WorkerId) {
        self.update(SaUpdate::RemoveInbound { spi, owner });
        self.release_spi(spi);
    }
}

pub(super) const CANCELLED: &str = "not configured any more";
/// Pause before a peer that refused is tried again.
pub(super) const RETRY_REFUSED: Duration = Duration::from_secs(20);
/// Pause before closed children are started again.
pub(super) const RESTART_WAIT: Duration = Duration::from_millis(500);
/// A peer that is busy for so many waits is not going to do it.
const PATIENCE: u8 = 8;
