//! One gateway: its endpoint, its data plane, and a ledger of what it has told.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use lockgate::crypto::Secret;
use lockgate::ike::{
    Command, CommandError, CommandId, CommandOutcome, Discard, Endpoint, Event, Fetch, IkeSaStatus,
    Input, KeyLogLine, Output, Pad, Path, TicketKeys, Transmit,
};
use lockgate::ipsec::{SaEvent, SaUpdate};

use super::config::Setup;
use super::plane::Plane;
use super::random::{Random, Steering};

/// One gateway without its network.
pub(crate) struct Host {
    pub(crate) endpoint: Endpoint,
    pub(crate) plane: Plane,
    pub(crate) events: Vec<Event>,
    pub(crate) keys: Vec<KeyLogLine>,
    pub(crate) keepalives: Vec<Path>,
    /// Outbound SAs that packets could use only after the peer had been sent something.
    pub(crate) opened_late: u32,
    pub(crate) nonces: Steering,
    /// Revocation information that is wanted and was not taken yet.
    pub(crate) fetches: Vec<Fetch>,
    /// The own address that the routing table has towards everybody, if it is to be told.
    pub(crate) route: Option<IpAddr>,
    now: Instant,
    ledger: Ledger,
    last_command: u64,
}

/// Which SAs are up, by the events alone.
#[derive(Debug, Default)]
struct Ledger {
    ikes: BTreeSet<u64>,
    gone_ikes: BTreeSet<u64>,
    children: BTreeSet<u64>,
    gone_children: BTreeSet<u64>,
}

impl Host {
    pub(crate) fn new(setup: &Setup, seed: u64, now: Instant) -> Self {
        let (random, nonces) = Random::new(seed);
        let settings = setup.settings.clone();
        let plane = Plane::new(settings.workers);
        let mut endpoint = Endpoint::new(settings, setup.pad(), Box::new(random), now);
        endpoint.handle(now, Input::TimeOfDay(setup.time_of_day));
        if let Some(keys) = ticket_keys(&setup.ticket_keys) {
            endpoint.handle(now, Input::TicketKeys(keys));
        }
        Self {
            endpoint,
            plane,
            events: Vec::new(),
            keys: Vec::new(),
            keepalives: Vec::new(),
            opened_late: 0,
            nonces,
            fetches: Vec::new(),
            route: None,
            now,
            ledger: Ledger::default(),
            last_command: 0,
        }
    }

    pub(crate) fn handle(&mut self, now: Instant, input: Input<'_>) {
        self.now = now;
        self.endpoint.handle(now, input);
    }

    pub(crate) fn command(&mut self, now: Instant, command: Command) -> CommandId {
        self.last_command += 1;
        let id = CommandId(self.last_command);
        self.handle(now, Input::Command { id, command });
        id
    }

    pub(crate) fn reload(&mut self, now: Instant, pad: Arc<Pad>) {
        self.command(now, Command::Reload(pad));
    }

    pub(crate) fn report(&mut self, now: Instant, event: SaEvent) {
        self.handle(now, Input::Sa(event));
    }

    /// Takes what the endpoint wants done; what it wants sent comes back.
    pub(crate) fn drain(&mut self) -> Vec<Transmit> {
        let mut sent = Vec::new();
        while let Some(output) = self.endpoint.poll() {
            match output {
                Output::Transmit(transmit) => sent.push(transmit),
                Output::Keepalive(path) => self.keepalives.push(path),
                Output::KeyLog(line) => self.keys.push(line),
                Output::Update(update) => {
                    let opens = matches!(update, SaUpdate::SwitchOutbound(_));
                    self.opened_late += u32::from(opens && !sent.is_empty());
                    self.plane.apply(update);
                }
                Output::Event(event) => {
                    self.ledger.enter(&event);
                    self.events.push(event);
                }
                Output::Fetch(fetch) => self.fetches.push(fetch),
                Output::Route(remote) => {
                    if let Some(local) = self.route {
                        let told = Input::SourceAddress { remote, local };
                        self.endpoint.handle(self.now, told);
                    }
                }
            }
        }
        sent
    }

    pub(crate) fn ike_sas(&self) -> Vec<IkeSaStatus> {
        self.endpoint.ike_sas().collect()
    }

    /// How the only end of a command was; `None` before it.
    pub(crate) fn result(&self, id: CommandId) -> Option<Result<CommandOutcome, CommandError>> {
        let ends = self.events.iter().filter_map(|event| match event {
            Event::CommandDone { id: done, result } if *done == id => Some(result.clone()),
            _ => None,
        });
        let ends: Vec<_> = ends.collect();
        assert!(ends.len() <= 1, "command ended twice: {ends:?}");
        ends.into_iter().next()
    }

    pub(crate) fn logged(&self, text: &str) -> bool {
        self.logs().any(|message| message.contains(text))
    }

    pub(crate) fn logs(&self) -> impl Iterator<Item = &str> {
        self.events.iter().filter_map(|event| match event {
            Event::Log { message, .. } => Some(message.as_str()),
            Event::Alert(alert) => Some(alert.message.as_str()),
            _ => None,
        })
    }

    pub(crate) fn discarded(&self, reason: Discard) -> u64 {
        self.endpoint.discards()[reason.index()]
    }

    pub(crate) fn all_discarded(&self) -> u64 {
        self.endpoint.discards().iter().sum()
    }

    /// Asserts that nothing is left of any SA.
    #[track_caller]
    pub(crate) fn assert_empty(&self, name: &str) {
        assert_eq!(self.plane.counts(), (0, 0), "{name}: SAs in the data plane");
        let sas = self.ike_sas();
        assert!(sas.is_empty(), "{name}: {sas:?}");
        assert_eq!(self.endpoint.half_open(), 0, "{name}: half-open SAs");
        let Ledger { ikes, children, .. } = &self.ledger;
        assert!(
            ikes.is_empty(),
            "{name}: no end was told of IKE SAs {ikes:?}"
        );
        assert!(
            children.is_empty(),
            "{name}: no end was told of {children:?}"
        );
        assert!(
            self.endpoint.next_timeout().is_none(),
            "{name}: a timer is left"
        );
    }

    /// IKE SAs and Child SAs that are up, by what was told.
    pub(crate) fn told(&self) -> (usize, usize) {
        (self.ledger.ikes.len(), self.ledger.children.len())
    }
}

/// Keys that are made of these bytes, the current one first.
pub(crate) fn ticket_keys(seeds: &[u8]) -> Option<TicketKeys> {
    let mut keys = seeds.iter().map(|seed| Secret::from(vec![*seed; 32]));
    Some(TicketKeys {
        current: keys.next()?,
        previous: keys.next(),
    })
}

impl Ledger {
    /// Every SA has one beginning and one end.
    fn enter(&mut self, event: &Event) {
        match event {
            Event::IkeUp { ike } => self.ike_up(ike.id),
            Event::IkeDown { ike, .. } => {
                self.ikes.remove(&ike.id); // a failed attempt was never up
                assert!(
                    self.gone_ikes.insert(ike.id),
                    "IKE SA {} ended twice",
                    ike.id
                );
            }
            Event::IkeRekeyed { old, new } => {
                assert!(self.ikes.remove(&old.id), "IKE SA {} is not up", old.id);
                assert!(
                    self.gone_ikes.insert(old.id),
                    "IKE SA {} ended twice",
                    old.id
                );
                self.ike_up(new.id);
            }
            Event::ChildUp { child, .. } => self.child_up(child.id.0),
            Event::ChildDown { child, .. } => self.child_down(child.id.0),
            Event::ChildRekeyed { old, new, .. } => {
                self.child_down(old.id.0);
                self.child_up(new.id.0);
            }
            Event::CommandDone { .. } | Event::Alert(_) | Event::Log { .. } => {}
        }
    }

    fn ike_up(&mut self, id: u64) {
        let fresh = !self.gone_ikes.contains(&id) && self.ikes.insert(id);
        assert!(fresh, "IKE SA {id} is up twice");
    }

    fn child_up(&mut self, id: u64) {
        let fresh = !self.gone_children.contains(&id) && self.children.insert(id);
        assert!(fresh, "Child SA {id} is up twice");
    }

    fn child_down(&mut self, id: u64) {
        assert!(self.children.remove(&id), "Child SA {id} is not up");
        self.gone_children.insert(id);
    }
}
