//! The control thread: one loop around the IKE endpoint.
//!
//! Everything that happens becomes an input of the endpoint, and everything that the endpoint wants
//! done is done before the loop sleeps again. Nothing in the loop waits for anybody.

use std::{
    collections::HashMap,
    io,
    net::IpAddr,
    path::PathBuf,
    time::{Duration, Instant, SystemTime},
};

use mio::{Events, Poll, Token};
use sd_notify::NotifyState;

use super::{
    addresses::Addresses,
    commands::Commands,
    failures::Failures,
    guard::Guard,
    key_log::KeyLog,
    logging::LogLevel,
    metrics::{Ledger, Metrics, Snapshot},
    report::RateLimit,
    revocation::Fetcher,
    routes::Routes,
    signals::Signals,
    sockets::Sockets,
    start::DaemonError,
    state::State,
    usage::UsageTimes,
    vici::{self, Server},
};
use crate::{
    config::Config,
    crypto::x509::UnixTime,
    dataplane::Handle,
    ike::{Command, CommandId, Endpoint, Input, Output, Pad, Path},
    io::{netlink, tun::Tun, udp},
    ipsec::{EspPath, SaEvent, SaUpdate},
};

/// The daemon in operation.
pub(super) struct Control {
    pub(super) poll: Poll,
    pub(super) config: Config,
    pub(super) config_file: PathBuf,
    pub(super) log_level: LogLevel,
    pub(super) endpoint: Endpoint,
    pub(super) device: Tun,
    pub(super) dataplane: Handle,
    pub(super) sockets: Sockets,
    pub(super) vici: Server,
    pub(super) signals: Signals,
    pub(super) routes: Routes,
    pub(super) guard: Option<Guard>,
    pub(super) commands: Commands,
    pub(super) usage: UsageTimes,
    pub(super) ledger: Ledger,
    pub(super) failures: Failures,
    pub(super) key_log: Option<KeyLog>,
    /// Held, so that nobody else uses it.
    pub(super) state: State,
    /// Absent where nobody may ask for them.
    pub(super) metrics: Option<Metrics>,
    pub(super) fetcher: Fetcher,
    pub(super) log_limit: RateLimit,
    pub(super) started: (Instant, SystemTime),
    pub(super) addresses: Addresses,
    /// Our address towards each peer, as the endpoint was told.
    pub(super) sources: HashMap<IpAddr, IpAddr>,
    /// The connection whose peer is asked for next.
    pub(super) next_source: usize,
    /// The data plane may have more events than were looked at.
    pub(super) has_events: bool,
    /// A worker has no room for what the endpoint may still want done.
    pub(super) is_behind: bool,
    pub(super) next_housekeeping: Instant,
    pub(super) phase: Phase,
    /// The tunnel device was deleted: the reason of the end.
    pub(super) is_device_gone: bool,
}

/// How far the daemon is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Running,
    /// DELETEs are out; the answers are awaited until then.
    Stopping {
        until: Instant,
    },
    Stopped,
}

impl Control {
    /// Runs until a signal ends it, and takes everything away again.
    ///
    /// What it cannot go on without ends it too, with an error, for a supervisor to start it again.
    /// What keeps traffic from leaving in clear then stays, as after a crash.
    pub(super) fn run(mut self) -> Result<(), DaemonError> {
        let mut events = Events::with_capacity(EVENTS);
        while self.phase != Phase::Stopped {
            self.wait(&mut events)
                .map_err(|error| DaemonError::System {
                    what: "cannot poll",
                    error,
                })?;
            self.turn(Instant::now());
        }
        self.tell_the_rest(Instant::now());
        if self.is_device_gone {
            let name = self.device.name().to_owned();
            return Err(DaemonError::DeviceGone { name });
        }
        self.take_down();
        Ok(())
    }

    fn wait(&mut self, events: &mut Events) -> io::Result<()> {
        let timeout = self.time_to_sleep(Instant::now());
        match self.poll.poll(events, Some(timeout)) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(()),
            other => other?,
        }
        for event in &*events {
            match event.token() {
                SIGNALS | DATAPLANE => {} // looked at in every turn
                ADDRESSES => self.addresses.ready(Instant::now()),
                VICI => self.vici.accept(self.poll.registry()),
                Token(socket) if (SOCKETS.0..VICI.0).contains(&socket) => {
                    self.sockets.ready(socket - SOCKETS.0);
                }
                _ => self.vici.ready(event),
            }
        }
        Ok(())
    }

    fn time_to_sleep(&self, now: Instant) -> Duration {
        let may_receive = self.sockets.has_input() && !self.is_behind;
        if may_receive || self.vici.has_input() || self.has_events {
            return Duration::ZERO;
        }
        let until = |at: Instant| at.saturating_duration_since(now);
        let mut sleep = until(self.next_housekeeping);
        let due = [
            self.endpoint.next_timeout(),
            self.commands.next_timeout(),
            self.addresses.due(),
        ];
        for at in due.into_iter().flatten() {
            sleep = sleep.min(until(at));
        }
        if let Phase::Stopping { until: at } = self.phase {
            sleep = sleep.min(until(at));
        }
        if self.is_behind {
            sleep = sleep.min(FULL_RING);
        }
        sleep
    }

    /// One round: all that is there to take in, then all that is to be done about it.
    fn turn(&mut self, now: Instant) {
        self.take_signals(now);
        self.tell_time(now);
        while let Some((id, result)) = self.fetcher.poll() {
            self.endpoint.handle(now, Input::Fetched { id, result });
        }
        self.tell_addresses(now);
        self.receive(now);
        self.take_dataplane_events(now);
        if self.endpoint.next_timeout().is_some_and(|at| at <= now) {
            self.endpoint.handle(now, Input::Timer);
        }
        for (client, request) in self.vici.requests() {
            // What came before is shown in the answer.
            self.drain(now);
            self.request(client, request, now);
        }
        self.drain(now);
        self.expire_commands(now);
        if now >= self.next_housekeeping {
            self.housekeeping(now);
            self.drain(now);
        }
        self.answer_metrics(now);
        self.vici.flush();
        if matches!(self.phase, Phase::Stopping { until } if until <= now) {
            self.phase = Phase::Stopped;
        }
    }

    /// Nothing is received while a worker is behind, or answers without bound would wait for it: the
    /// sockets' buffers are the bound.
    fn receive(&mut self, now: Instant) {
        if self.is_behind {
            return;
        }
        let endpoint = &mut self.endpoint;
        self.sockets.receive(|path, bytes| {
            endpoint.handle(now, Input::Datagram { path, bytes });
        });
    }

    /// The clock may be set at any time, so the endpoint is told in every turn.
    pub(super) fn tell_time(&mut self, now: Instant) {
        let time = time_of_day();
        self.endpoint.handle(now, Input::TimeOfDay(time));
    }

    /// Keys of tickets are made and changed only where somebody is to get tickets.
    pub(super) fn tell_ticket_keys(&mut self, now: Instant) {
        let mut connections = self.config.pad.connections.iter();
        if connections.any(|connection| connection.resumption)
            && let folder = &self.config.daemon.state_dir
            && let Some(keys) = self.state.ticket_keys(folder, time_of_day().as_secs())
        {
            self.endpoint.handle(now, Input::TicketKeys(keys));
        }
    }

    fn take_signals(&mut self, now: Instant) {
        let asked = self.signals.take();
        if asked.terminate > 0 {
            match self.phase {
                Phase::Running if asked.terminate == 1 => self.begin_stop(now),
                _ => {
                    tracing::info!("stopping at once");
                    self.phase = Phase::Stopped;
                }
            }
        }
        if asked.reload && self.phase == Phase::Running {
            // The outcome is logged.
            let _ = self.reload(now);
        }
    }

    fn begin_stop(&mut self, now: Instant) {
        tracing::info!("stopping");
        let _ = sd_notify::notify(&[NotifyState::Stopping]);
        self.phase = Phase::Stopping {
            until: now + FAREWELL,
        };
        let (id, command) = (STOP, Command::Shutdown);
        self.endpoint.handle(now, Input::Command { id, command });
    }

    fn take_dataplane_events(&mut self, now: Instant) {
        self.has_events = false;
        for _ in 0..EVENTS_PER_TURN {
            match self.dataplane.poll_event() {
                None => return,
                Some(SaEvent::Punted {
                    local,
                    remote,
                    bytes,
                }) => {
                    let (path, bytes) = (Path { local, remote }, &*bytes);
                    self.endpoint.handle(now, Input::Datagram { path, bytes });
                }
                // Freed here, off the packet path.
                Some(SaEvent::RetiredInbound(_) | SaEvent::RetiredOutbound(_)) => {}
                Some(event) => self.endpoint.handle(now, Input::Sa(event)),
            }
        }
        // There may be more, and the waker has been used up.
        self.has_events = true;
    }

    /// Does what the endpoint wants done, as long as the workers have room for changes: a peer must not
    /// be told of an SA before the worker that opens its packets is.
    pub(super) fn drain(&mut self, now: Instant) {
        self.is_behind = true;
        while self.dataplane.flush() {
            let Some(output) = self.endpoint.poll() else {
                self.is_behind = false;
                return;
            };
            self.carry_out(output, now);
        }
    }

    /// The workers end, so what the peers have not been told by then, such as our DELETEs, does not
    /// wait for them.
    fn tell_the_rest(&mut self, now: Instant) {
        while let Some(output) = self.endpoint.poll() {
            self.carry_out(output, now);
        }
    }

    fn carry_out(&mut self, output: Output, now: Instant) {
        match output {
            Output::Transmit(transmit) => {
                if let Err(error) = self.sockets.send(&transmit) {
                    self.warn_unsent(transmit.path, &error, now);
                }
            }
            Output::Keepalive(path) => {
                if let Err(error) = self.sockets.keepalive(path) {
                    self.warn_unsent(path, &error, now);
                }
            }
            Output::Update(update) => self.update(update),
            Output::Event(event) => self.report(event, now),
            Output::KeyLog(line) => {
                if let Some(log) = &mut self.key_log {
                    log.write(&line);
                }
            }
            Output::Fetch(fetch) => {
                if let Some((id, result)) = self.fetcher.ask(fetch) {
                    self.endpoint.handle(now, Input::Fetched { id, result });
                }
            }
            Output::Route(remote) => self.tell_source_address(remote, now),
        }
    }

    fn update(&mut self, mut update: SaUpdate) {
        match &mut update {
            SaUpdate::SwitchOutbound(sa) => {
                if let Some(mtu) = self.path_mtu(sa.path()) {
                    sa.set_path_mtu(mtu);
                }
            }
            SaUpdate::MoveOutbound { path, path_mtu, .. } => {
                *path_mtu = self.path_mtu(path).unwrap_or(*path_mtu);
            }
            SaUpdate::SetPolicies(spd) => {
                if let Some(guard) = &mut self.guard {
                    if let Err(error) = guard.update(spd) {
                        tracing::error!(%error, "the guard does not follow the policies");
                    }
                    self.routes.set_mirrored(guard.mirrored());
                }
                let virtual_ips = self.endpoint.virtual_ips().collect();
                if let Err(error) = self.routes.set_virtual_ips(virtual_ips) {
                    tracing::error!(%error, "the tunnel device does not follow our virtual addresses");
                }
                if let Err(error) = self.routes.update(spd) {
                    tracing::error!(%error, "the routes do not follow the policies");
                }
            }
            _ => {}
        }
        self.dataplane.apply(update);
    }

    /// The configured MTU of all paths, or what the system knows of this one.
    fn path_mtu(&self, path: &EspPath) -> Option<u16> {
        let daemon = &self.config.daemon;
        let known = || udp::path_mtu(path.local.ip(), path.remote, Some(daemon.fwmark)).ok();
        daemon.path_mtu.or_else(known)
    }

    fn housekeeping(&mut self, now: Instant) {
        self.next_housekeeping = now + SECOND;
        self.check_device(now);
        self.sample(now);
        self.tell_source_addresses(now);
        self.refresh_routes();
        self.tell_ticket_keys(now);
        if let Some(metrics) = &mut self.metrics {
            metrics.retry();
        }
        for line in self.log_limit.summary(now) {
            tracing::warn!("{line}");
        }
    }

    /// Without its device the gateway would go on negotiating for traffic that cannot come.
    fn check_device(&mut self, now: Instant) {
        // What cannot be asked now is asked again in a second.
        let exists = netlink::link_exists(self.device.index()).unwrap_or(true);
        if !exists && self.phase == Phase::Running {
            tracing::error!(device = self.device.name(), "the tunnel device was deleted");
            self.is_device_gone = true;
            self.begin_stop(now);
        }
    }

    /// Looks at all SAs: when they were last used, and what they have carried.
    pub(super) fn sample(&mut self, now: Instant) {
        let ledger = &mut self.ledger;
        ledger.begin();
        let sas = self.endpoint.ike_sas().inspect(|sa| ledger.see(sa));
        self.usage.sample(sas, now);
        self.ledger.settle();
    }

    fn answer_metrics(&mut self, now: Instant) {
        if self.metrics.as_ref().is_some_and(Metrics::is_asked) {
            self.sample(now);
            let snapshot = self.snapshot(now);
            if let Some(metrics) = &self.metrics {
                metrics.answer(snapshot);
            }
        }
    }

    fn snapshot(&self, now: Instant) -> Snapshot {
        Snapshot {
            uptime: now.saturating_duration_since(self.started.0),
            half_open: count(self.endpoint.half_open()),
            discards: *self.endpoint.discards(),
            keepalives: self.sockets.keepalives(),
            dataplane: self.dataplane.stats(),
            backlogs: self.dataplane.backlogs().map(count).collect(),
            tunnels: self.ledger.tunnels(&self.config.pad),
        }
    }

    /// An address inside `local_ts` may come and go; the routes hint at it.
    fn refresh_routes(&mut self) {
        // What cannot be read now is read again in a second.
        if !self.routes.are_outdated().unwrap_or(false) {
            return;
        }
        let spd = self.endpoint.policies();
        if let Err(error) = self.routes.update(&spd) {
            tracing::warn!(%error, "the routes do not follow our addresses");
        }
    }

    /// Undoes the start, in the opposite order. The guard goes last.
    fn take_down(self) {
        let Self {
            mut dataplane,
            mut routes,
            guard,
            vici,
            metrics,
            ..
        } = self;
        drop(vici);
        drop(metrics);
        dataplane.shutdown();
        drop(dataplane);
        if let Err(error) = routes.remove() {
            tracing::error!(%error, "routes were not removed");
        }
        if let Some(Err(error)) = guard.map(Guard::remove) {
            tracing::error!(%error, "the guard was not removed");
        }
        tracing::info!("stopped");
    }

    /// Reads the configuration again. A failure changes nothing; success may name what needs a restart.
    pub(super) fn reload(&mut self, now: Instant) -> Result<Vec<&'static str>, String> {
        let usec = NotifyState::monotonic_usec_now();
        let mut states = vec![NotifyState::Reloading];
        states.extend(usec);
        let _ = sd_notify::notify(&states);
        let result = self.try_reload(now);
        match &result {
            Ok(restart) if restart.is_empty() => tracing::info!("configuration reloaded"),
            Ok(restart) => tracing::warn!(
                keys = restart.join(", "),
                "configuration reloaded; these keys of [daemon] need a restart"
            ),
            Err(error) => tracing::error!("configuration not reloaded, nothing changed: {error}"),
        }
        let _ = sd_notify::notify(&[NotifyState::Ready]);
        result
    }

    fn try_reload(&mut self, now: Instant) -> Result<Vec<&'static str>, String> {
        let newer = Config::load(&self.config_file).map_err(|error| error.to_string())?;
        for warning in &newer.warnings {
            tracing::warn!("{warning}");
        }
        let changes = self.config.changes(&newer);
        let spd = newer.pad.policies();
        if let Some(guard) = &mut self.guard
            && let Err(error) = guard.update(&spd)
        {
            if let Err(error) = guard.update(&self.endpoint.policies()) {
                tracing::error!(%error, "the guard was not restored");
            }
            return Err(error.to_string());
        }
        if let Some(guard) = &self.guard {
            guard.warn_of_switches();
        }
        // The endpoint keeps SAs whose connection it still finds; those of a changed one end first.
        for ike in &changes.changed {
            self.command(
                Command::Terminate {
                    ike: Some(ike.clone()),
                    child: None,
                    ike_id: None,
                    child_id: None,
                    force: false,
                },
                now,
            );
        }
        self.ledger.keep(&newer.pad);
        self.failures.keep(&newer.pad);
        self.log_level.set(newer.daemon.log);
        self.command(Command::Reload(newer.pad.clone()), now);
        let older = std::mem::replace(&mut self.config.pad, newer.pad);
        self.config.daemon.log = newer.daemon.log;
        self.tell_source_addresses(now);
        self.start_again(&older, &changes.changed, now);
        self.drain(now);
        let restart = changes.daemon.into_iter().filter(|key| *key != "log");
        Ok(restart.collect())
    }

    /// Brings up what the older configuration had started and the newer one still wants, in
    /// connections whose SAs were ended. What is only now to be started, the endpoint starts.
    fn start_again(&mut self, older: &Pad, changed: &[String], now: Instant) {
        let newer = self.config.pad.clone();
        for name in changed {
            let (Some(was), Some(is)) = (older.connection(name), newer.connection(name)) else {
                continue;
            };
            let started = |child: &str| was.child(child).is_some_and(|c| c.start_action.starts());
            let starting = is.children.iter().filter(|c| c.start_action.starts());
            for child in starting.filter(|child| started(&child.name)) {
                let command = Command::Initiate {
                    ike: Some(name.clone()),
                    child: Some(child.name.clone()),
                };
                self.command(command, now);
            }
        }
    }

    /// A command that no client waits for.
    fn command(&mut self, command: Command, now: Instant) {
        let id = self.commands.next_id();
        self.endpoint.handle(now, Input::Command { id, command });
    }

    /// Answers a reload that a client asked for.
    pub(super) fn reload_for(&mut self, client: vici::ClientId, now: Instant) {
        let answer = match self.reload(now) {
            Ok(restart) => {
                let mut answer = vici::success();
                if !restart.is_empty() {
                    answer.list("restart-needed", &restart);
                }
                answer
            }
            Err(error) => vici::failure(&error),
        };
        self.vici.respond(client, answer);
    }
}

fn time_of_day() -> UnixTime {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    UnixTime::since_unix_epoch(since.unwrap_or_default())
}

fn count(number: usize) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}

/// The command that ends the program when it is done.
pub(super) const STOP: CommandId = CommandId(0);

pub(super) const SIGNALS: Token = Token(0);
pub(super) const DATAPLANE: Token = Token(1);
pub(super) const ADDRESSES: Token = Token(2);
pub(super) const SOCKETS: Token = Token(3);
/// The listener; its clients follow.
pub(super) const VICI: Token = Token(SOCKETS.0 + Sockets::TOKENS);

const EVENTS: usize = 64;
/// Data-plane events that are looked at before anything else gets its turn.
const EVENTS_PER_TURN: usize = 256;
const SECOND: Duration = Duration::from_secs(1);
/// How long to wait for room in a worker's ring.
const FULL_RING: Duration = Duration::from_millis(1);
/// How long the peers have to answer our DELETEs when the daemon stops.
const FAREWELL: Duration = Duration::from_millis(400);
