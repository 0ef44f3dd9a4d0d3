//! Commands of the caller: what they select, and when they are done.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::ipsec::{ChildId, Reqid};

use super::context::{Attempt, Wish};
use super::directory::Directory;
use super::endpoint::Endpoint;
use super::pad::{ChildConfig, Connection};
use super::v2::{End, Established, IkeSa, Task};
use super::{Command, CommandError, CommandId, CommandOutcome, Event};

/// Commands that are under way.
#[derive(Debug, Default)]
pub(super) struct Commands {
    waiting: HashMap<CommandId, Waiting>,
    /// Acquires of these policies are ignored until then.
    held: HashMap<(Reqid, Acquire), Instant>,
}

/// What packets ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Acquire {
    /// A Child SA where there is none.
    First,
    /// One for a worker that has none of its own.
    Beside,
}

impl Acquire {
    /// How long packets cannot start a negotiation after one has failed or its Child SA has gone.
    fn hold(self) -> Duration {
        Duration::from_secs(match self {
            Self::First => 2,
            Self::Beside => 10,
        })
    }
}

#[derive(Debug)]
struct Waiting {
    left: usize,
    outcome: CommandOutcome,
    error: Option<CommandError>,
}

impl Commands {
    /// A command is done when `parts` ends have been counted.
    fn begin(&mut self, id: CommandId, parts: usize) {
        let waiting = Waiting {
            left: parts,
            outcome: CommandOutcome::default(),
            error: None,
        };
        self.waiting.insert(id, waiting);
    }

    pub(super) fn finish_one(
        &mut self,
        id: CommandId,
        result: Result<CommandOutcome, CommandError>,
    ) -> Option<Result<CommandOutcome, CommandError>> {
        let waiting = self.waiting.get_mut(&id)?;
        match result {
            Ok(part) => {
                waiting.outcome.matches += part.matches;
                waiting.outcome.terminated += part.terminated;
                waiting.outcome.ike = waiting.outcome.ike.or(part.ike);
                waiting.outcome.child = waiting.outcome.child.or(part.child);
            }
            Err(error) => waiting.error = Some(error),
        }
        waiting.left = waiting.left.saturating_sub(1);
        if waiting.left > 0 {
            return None;
        }
        let done = self.waiting.remove(&id)?;
        Some(done.error.map_or(Ok(done.outcome), Err))
    }

    /// Packets of this policy do not start another negotiation at once.
    pub(super) fn hold_acquires(&mut self, reqid: Reqid, kind: Acquire, now: Instant) {
        self.held.retain(|_, until| *until > now);
        self.held.insert((reqid, kind), now + kind.hold());
    }

    pub(super) fn holds(&self, reqid: Reqid, kind: Acquire, now: Instant) -> bool {
        let until = self.held.get(&(reqid, kind));
        until.is_some_and(|until| *until > now)
    }
}

impl Command {
    /// The connection and the child that it names.
    fn names(&self) -> (Option<&str>, Option<&str>) {
        match self {
            Self::Initiate { ike, child }
            | Self::Terminate { ike, child, .. }
            | Self::Rekey { ike, child, .. } => (ike.as_deref(), child.as_deref()),
            _ => (None, None),
        }
    }
}

impl Endpoint {
    /// Name of the connection that a command means, itself or by its child.
    pub fn connection_of<'a>(&'a self, command: &'a Command) -> Option<&'a str> {
        let (ike, child) = command.names();
        ike.or_else(|| {
            let owner = self.cx.directory.with_child(child?).next()?;
            Some(owner.name.as_str())
        })
    }
}

/// Which SAs a command means.
struct Selection {
    ike: Option<String>,
    child: Option<String>,
    ike_id: Option<u64>,
    child_id: Option<u64>,
}

impl Selection {
    fn ike(&self, sa: &IkeSa) -> bool {
        self.ike
            .as_deref()
            .is_none_or(|name| sa.core.name() == name)
            && self.ike_id.is_none_or(|id| sa.core.id == id)
    }

    /// An attempt that is to be tried again is known by its name only.
    fn attempt(&self, attempt: &Attempt) -> bool {
        let name = self.ike.as_deref();
        self.ike_id.is_none() && name.is_none_or(|name| attempt.connection.name == name)
    }

    fn wants_children(&self) -> bool {
        self.child.is_some() || self.child_id.is_some()
    }

    /// Pairs of IKE SA and Child SA.
    fn children(&self, sa: &IkeSa) -> Vec<ChildId> {
        let Some(established) = sa.established().filter(|_| self.ike(sa)) else {
            return Vec::new();
        };
        let children = established.children().iter().filter(|child| {
            self.child
                .as_deref()
                .is_none_or(|name| child.config.name == name)
                && self.child_id.is_none_or(|id| child.id == ChildId(id))
                && child.is_usable()
        });
        children.map(|child| child.id).collect()
    }
}

impl Endpoint {
    pub(super) fn on_command(&mut self, id: CommandId, command: Command) {
        let result = match command {
            Command::Initiate { ike, child } => self.initiate_command(id, ike, child),
            Command::Terminate {
                ike,
                child,
                ike_id,
                child_id,
                force,
            } => {
                let selection = Selection {
                    ike,
                    child,
                    ike_id,
                    child_id,
                };
                self.terminate(id, &selection, force)
            }
            Command::Rekey {
                ike,
                child,
                ike_id,
                child_id,
                reauth,
            } => {
                let selection = Selection {
                    ike,
                    child,
                    ike_id,
                    child_id,
                };
                self.rekey(&selection, reauth).map(Some)
            }
            Command::Redirect { whom, gateway } => self.redirect(&whom, &gateway).map(Some),
            Command::Reload(pad) => {
                self.reload(pad);
                Ok(Some(CommandOutcome::default()))
            }
            Command::Shutdown => self.shutdown(id),
        };
        // `None`: the end will be told when it has come.
        match result {
            Ok(None) => {}
            Ok(Some(outcome)) => self.done(id, Ok(outcome)),
            Err(error) => self.done(id, Err(error)),
        }
    }

    fn done(&mut self, id: CommandId, result: Result<CommandOutcome, CommandError>) {
        self.cx.event(Event::CommandDone { id, result });
    }

    fn initiate_command(
        &mut self,
        id: CommandId,
        ike: Option<String>,
        child: Option<String>,
    ) -> Result<Option<CommandOutcome>, CommandError> {
        if self.closing {
            return Err(CommandError::ShuttingDown);
        }
        let directory = Arc::clone(&self.cx.directory);
        let (connection, child) = find(&directory, ike, child)?;
        self.cx.commands.begin(id, 1);
        let mut attempt = Attempt::new(connection, Vec::new());
        match child {
            Some(child) => attempt.wishes.push(Wish {
                waiters: vec![id],
                ..Wish::new(child)
            }),
            None => attempt.waiters.push(id),
        }
        self.pursue(attempt);
        Ok(None)
    }

    /// Sets up what an attempt wants, on an IKE SA that is there or with a new one.
    pub(super) fn pursue(&mut self, attempt: Attempt) {
        if self.closing {
            return self.give_up(attempt, "shutting down");
        }
        let found = if attempt.replaces.is_some() {
            None
        } else {
            self.table.find_by_name(&attempt.connection.name, |sa| {
                sa.is_connecting() || sa.established().is_some_and(|sa| sa.is_usable())
            })
        };
        let Some(id) = found else {
            return self.connect(attempt);
        };
        self.step(id, |sa, cx| {
            if let Some(pending) = sa.attempt_mut() {
                pending.wishes.extend(attempt.wishes);
                pending.waiters.extend(attempt.waiters);
                return;
            }
            let core = sa.core.id;
            for waiter in attempt.waiters {
                let outcome = CommandOutcome {
                    matches: 1,
                    ike: Some(core),
                    ..CommandOutcome::default()
                };
                cx.finish_command(waiter, Ok(outcome));
            }
            sa.with_established(cx, |established, _, _| {
                for wish in attempt.wishes {
                    established.push(Task::CreateChild(wish));
                }
            });
        });
    }

    fn terminate(
        &mut self,
        id: CommandId,
        selection: &Selection,
        force: bool,
    ) -> Result<Option<CommandOutcome>, CommandError> {
        if selection.wants_children() {
            return self.terminate_children(id, selection, force);
        }
        let ids = self
            .table
            .ids_where(|sa| selection.ike(sa) && !sa.is_half_open());
        let cancelled = self.planned.take(|attempt| selection.attempt(attempt));
        let parts = ids.len() + cancelled.len();
        if parts == 0 {
            return Err(CommandError::NoMatch);
        }
        self.cx.commands.begin(id, parts);
        for (_, attempt) in cancelled {
            self.give_up(attempt, "terminated");
            let outcome = CommandOutcome {
                matches: 1,
                terminated: 1,
                ..CommandOutcome::default()
            };
            self.cx.finish_command(id, Ok(outcome));
        }
        for ike in ids {
            self.end_ike(ike, Some(id), force);
        }
        Ok(None)
    }

    /// Deletes an IKE SA, or gives up on one that is not established.
    pub(super) fn end_ike(&mut self, ike: u64, waiter: Option<CommandId>, force: bool) {
        self.step(ike, |sa, cx| {
            let gentle = sa.established().is_some() && !force;
            if gentle {
                sa.with_established(cx, |established, _, _| {
                    established.queue_delete_ike(End::Terminated, waiter);
                });
                return;
            }
            if force {
                // One DELETE goes out, but nobody waits for the answer.
                sa.with_established(cx, |established, _, _| {
                    established.queue_delete_ike(End::Terminated, None);
                });
            }
            sa.destroy(End::Terminated, cx);
            if let Some(id) = waiter {
                let outcome = CommandOutcome {
                    matches: 1,
                    terminated: 1,
                    ..CommandOutcome::default()
                };
                cx.finish_command(id, Ok(outcome));
            }
        });
    }

    fn terminate_children(
        &mut self,
        id: CommandId,
        selection: &Selection,
        force: bool,
    ) -> Result<Option<CommandOutcome>, CommandError> {
        let selected = self.select_children(selection);
        if selected.is_empty() {
            return Err(CommandError::NoMatch);
        }
        let mut parts = selected.len();
        if force {
            let outcome = CommandOutcome {
                matches: u32::try_from(parts).unwrap_or(u32::MAX),
                terminated: u32::try_from(parts).unwrap_or(u32::MAX),
                ..CommandOutcome::default()
            };
            parts = 0;
            self.done(id, Ok(outcome));
        } else {
            self.cx.commands.begin(id, parts);
        }
        let waiter = (parts > 0).then_some(id);
        for (ike, child) in selected {
            self.step(ike, |sa, cx| {
                sa.with_established(cx, |established, _, _| {
                    established.queue_delete_child(child, waiter);
                });
            });
        }
        Ok(None)
    }

    fn select_children(&self, selection: &Selection) -> Vec<(u64, ChildId)> {
        let all = self.table.iter();
        let pairs = all.flat_map(|sa| {
            let children = selection.children(sa).into_iter();
            children
                .map(|child| (sa.core.id, child))
                .collect::<Vec<_>>()
        });
        pairs.collect()
    }

    fn rekey(
        &mut self,
        selection: &Selection,
        reauth: bool,
    ) -> Result<CommandOutcome, CommandError> {
        let mut matches = 0;
        if selection.wants_children() {
            for (ike, child) in self.select_children(selection) {
                self.step(ike, |sa, cx| {
                    sa.with_established(cx, |established, _, _| {
                        matches += u32::from(established.queue_rekey_child(child));
                    });
                });
            }
        } else {
            let usable = |sa: &IkeSa| sa.established().is_some_and(|sa| sa.is_usable());
            for ike in self.table.ids_where(|sa| selection.ike(sa) && usable(sa)) {
                if reauth {
                    matches += 1;
                    self.reauthenticate(ike);
                    continue;
                }
                self.step(ike, |sa, cx| {
                    sa.with_established(cx, |established, _, _| {
                        matches += u32::from(established.queue_rekey_ike());
                    });
                });
            }
        }
        if matches == 0 {
            return Err(CommandError::NoMatch);
        }
        Ok(CommandOutcome {
            matches,
            ..CommandOutcome::default()
        })
    }

    /// Sets up a second IKE SA with the same children; the first one goes when it is there.
    pub(super) fn reauthenticate(&mut self, ike: u64) {
        if self.is_replacing(ike) {
            return;
        }
        let Some(sa) = self.table.get(ike) else {
            return;
        };
        let (Some(established), Some(connection)) = (sa.established(), &sa.core.connection) else {
            return;
        };
        if self.is_outlived(sa) {
            return; // the peer has just done it
        }
        let attempt = Attempt {
            replaces: Some(ike),
            ..Attempt::new(connection, established.wishes())
        };
        self.pursue(attempt);
    }

    /// An attempt of ours is to take the place of this IKE SA.
    pub(super) fn is_replacing(&self, ike: u64) -> bool {
        let is_it = |attempt: &Attempt| attempt.replaces == Some(ike);
        let under_way = self.table.iter().any(|sa| sa.replaces() == Some(ike));
        under_way || self.planned.iter().any(is_it)
    }

    /// What was to take the place of an IKE SA takes that of the one which a rekey has made.
    pub(super) fn replace_heir(&mut self, old: u64, heir: u64) {
        let name = self.table.get(heir).map(|sa| sa.core.name().to_owned());
        let replaces_old = |sa: &IkeSa| sa.replaces() == Some(old);
        let under_way = name.and_then(|name| self.table.find_by_name(&name, replaces_old));
        if let Some(id) = under_way {
            self.step(id, |sa, _| {
                if let Some(attempt) = sa.attempt_mut() {
                    attempt.replaces = Some(heir);
                }
            });
        }
        let planned = self.planned.iter_mut();
        for attempt in planned.filter(|attempt| attempt.replaces == Some(old)) {
            attempt.replaces = Some(heir);
        }
    }

    /// There is a newer IKE SA between the same two identities.
    fn is_outlived(&self, sa: &IkeSa) -> bool {
        let Some(established) = sa.established() else {
            return false;
        };
        let peer = &established.peer;
        let all = self.cx.peers.between(&peer.local_id, &peer.remote_id);
        let mut others = all.iter().filter_map(|id| self.table.get(*id));
        others.any(|other| {
            established.is_older_than(&other.core)
                && other.established().is_some_and(Established::is_usable)
        })
    }

    fn shutdown(&mut self, id: CommandId) -> Result<Option<CommandOutcome>, CommandError> {
        self.closing = true;
        for (_, attempt) in self.planned.take(|_| true) {
            self.give_up(attempt, "shutting down");
        }
        let ids = self.table.ids_where(|sa| !sa.is_half_open());
        if ids.is_empty() {
            return Ok(Some(CommandOutcome::default()));
        }
        self.cx.commands.begin(id, ids.len());
        for ike in ids {
            self.end_ike(ike, Some(id), false);
        }
        Ok(None)
    }
}

fn find(
    directory: &Directory,
    ike: Option<String>,
    child: Option<String>,
) -> Result<(&Arc<Connection>, Option<&Arc<ChildConfig>>), CommandError> {
    let missing = |what, name| CommandError::NotConfigured { what, name };
    let protects = |found: &&Arc<ChildConfig>| found.mode.protects();
    match (ike, child) {
        (None, None) => Err(CommandError::Missing("ike or child")),
        (Some(ike), None) => match directory.connection(&ike) {
            Some(connection) => Ok((connection, None)),
            None => Err(missing("connection", ike)),
        },
        (Some(ike), Some(child)) => {
            let Some(connection) = directory.connection(&ike) else {
                return Err(missing("connection", ike));
            };
            match connection.child(&child).filter(protects) {
                Some(found) => Ok((connection, Some(found))),
                None => Err(missing("child", child)),
            }
        }
        (None, Some(child)) => {
            let found = directory.with_child(&child).find_map(|connection| {
                let found = connection.child(&child).filter(protects)?;
                Some((connection, Some(found)))
            });
            found.ok_or_else(|| missing("child", child))
        }
    }
}
