//! What control clients ask for, and the answers.

use std::{
    collections::BTreeMap,
    fmt::Display,
    time::{Duration, Instant},
};

use super::{
    control::{Control, STOP},
    vici::{self, ClientId, EventName, IkeCommand, Request, Wait, format, pools},
};
use crate::{
    ike::{Command, CommandError, CommandId, CommandOutcome, Input},
    wire::vici::Message,
};

/// Commands that the IKE endpoint has not finished, and who waits for them.
#[derive(Debug)]
pub(super) struct Commands {
    pending: BTreeMap<CommandId, Pending>,
    next: u64,
}

#[derive(Debug)]
struct Pending {
    client: ClientId,
    kind: IkeCommand,
    deadline: Option<(Instant, Duration)>,
    log_level: i8,
    /// Only lines about this connection are streamed, where one is known.
    connection: Option<String>,
}

impl Default for Commands {
    fn default() -> Self {
        Self {
            pending: BTreeMap::new(),
            next: STOP.0 + 1,
        }
    }
}

impl Commands {
    pub(super) fn next_timeout(&self) -> Option<Instant> {
        let deadlines = self.pending.values().filter_map(|p| p.deadline);
        deadlines.map(|(at, _)| at).min()
    }

    /// A number that no other command has.
    pub(super) fn next_id(&mut self) -> CommandId {
        let id = CommandId(self.next);
        self.next += 1;
        id
    }

    fn start(&mut self, pending: Pending) -> CommandId {
        let id = self.next_id();
        self.pending.insert(id, pending);
        id
    }
}

impl Control {
    /// Carries out a request, or starts to.
    pub(super) fn request(&mut self, client: ClientId, request: Request, now: Instant) {
        match request {
            Request::Version => self.vici.respond(client, version()),
            Request::Stats => {
                let stats = self.stats(now);
                self.vici.respond(client, stats);
            }
            Request::Ike {
                kind,
                command,
                wait,
                log_level,
            } => self.start_command(client, kind, command, (wait, log_level), now),
            Request::ListSas(filter) => {
                self.sample(now);
                let usage = &self.usage;
                let sas = self.endpoint.ike_sas();
                let parts = sas.filter_map(|ike| format::list_sa(&ike, &filter, usage, now));
                self.vici
                    .respond_with_stream(client, EventName::ListSa, parts);
            }
            Request::ListConns { ike } => {
                let connections = self.endpoint.pad().connections.iter();
                let parts = connections
                    .filter(|connection| ike.as_ref().is_none_or(|ike| *ike == connection.name))
                    .map(|connection| {
                        format::list_conn(connection, self.failures.of(&connection.name), now)
                    });
                self.vici
                    .respond_with_stream(client, EventName::ListConn, parts);
            }
            Request::ListPolicies { kinds, ike, child } => {
                let pad = self.endpoint.pad();
                let parts = format::list_policies(pad, kinds, ike.as_deref(), child.as_deref());
                self.vici
                    .respond_with_stream(client, EventName::ListPolicy, parts);
            }
            Request::GetConns => {
                let connections = &self.endpoint.pad().connections;
                let mut answer = Message::new();
                answer.list("conns", connections.iter().map(|c| &c.name));
                self.vici.respond(client, answer);
            }
            Request::GetPools { name, leases } => {
                let answer = pools::get_pools(&self.endpoint, name.as_deref(), leases);
                self.vici.respond(client, answer);
            }
            Request::Reload => self.reload_for(client, now),
        }
    }

    fn start_command(
        &mut self,
        client: ClientId,
        kind: IkeCommand,
        command: Command,
        (wait, log_level): (Wait, i8),
        now: Instant,
    ) {
        let pending = Pending {
            client,
            kind,
            deadline: match wait {
                Wait::AtMost(limit) => Some((now + limit.min(LONGEST_WAIT), limit)),
                Wait::Forever | Wait::No => None,
            },
            log_level,
            connection: self.endpoint.connection_of(&command).map(str::to_owned),
        };
        let id = self.commands.start(pending);
        if wait == Wait::No {
            self.commands.pending.remove(&id);
            self.vici.respond(client, vici::success());
        }
        self.endpoint.handle(now, Input::Command { id, command });
    }

    /// The endpoint is done with a command.
    pub(super) fn command_done(
        &mut self,
        id: CommandId,
        result: &Result<CommandOutcome, CommandError>,
    ) {
        let Some(pending) = self.commands.pending.remove(&id) else {
            return;
        };
        let answer = match result {
            Ok(outcome) => {
                let mut answer = vici::success();
                if pending.kind != IkeCommand::Initiate {
                    answer.set("matches", outcome.matches);
                }
                if pending.kind == IkeCommand::Terminate {
                    answer.set("terminated", outcome.terminated);
                }
                answer
            }
            Err(error) => {
                let mut answer = vici::failure(&error.to_string());
                if pending.kind != IkeCommand::Initiate {
                    answer.set("matches", 0);
                }
                if pending.kind == IkeCommand::Terminate {
                    answer.set("terminated", 0);
                }
                answer
            }
        };
        self.vici.respond(pending.client, answer);
    }

    /// Answers commands whose clients have waited long enough, and forgets those whose clients left.
    pub(super) fn expire_commands(&mut self, now: Instant) {
        let vici = &mut self.vici;
        self.commands
            .pending
            .retain(|_, pending| match pending.deadline {
                Some((at, limit)) if at <= now => {
                    let what = match pending.kind {
                        IkeCommand::Initiate => "not established",
                        IkeCommand::Terminate => "not terminated",
                        IkeCommand::Rekey => "not rekeyed",
                        IkeCommand::Redirect => "not redirected",
                    };
                    let reason = format!("{what} after {} ms", limit.as_millis());
                    vici.respond(pending.client, vici::failure(&reason));
                    false
                }
                _ => vici.is_connected(pending.client),
            });
    }

    /// Streams a log line to the clients whose commands it may be about.
    pub(super) fn control_log(
        &mut self,
        level: i8,
        group: &str,
        ike: Option<&(String, u64)>,
        text: &dyn Display,
    ) {
        for pending in self.commands.pending.values() {
            let about = match (&pending.connection, ike) {
                (Some(wanted), Some((name, _))) => wanted == name,
                _ => true,
            };
            if level <= pending.log_level && about {
                let line = format::log(level, group, ike, text);
                self.vici.tell(pending.client, EventName::ControlLog, line);
            }
        }
    }
}

fn version() -> Message {
    let system = rustix::system::uname();
    let text = |value: &std::ffi::CStr| value.to_string_lossy().into_owned();
    let mut version = Message::new();
    version
        .set("daemon", "lockgate")
        .set("version", env!("CARGO_PKG_VERSION"))
        .set("sysname", text(system.sysname()))
        .set("release", text(system.release()))
        .set("machine", text(system.machine()));
    version
}

/// An `Instant` has no room for every number of milliseconds that a client may name.
const LONGEST_WAIT: Duration = Duration::from_secs(30 * 24 * 3600);
