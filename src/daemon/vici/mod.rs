//! The control socket: a VICI server as strongSwan's tools and libraries know it.
//!
//! Clients cannot hold up the control thread: segments, queues and the number of clients are bounded,
//! nothing blocks, and a client that does not read what it is sent is disconnected. One command of a
//! client is in work at a time, the next one waits in its socket.

mod client;
mod event;
pub mod format;
pub mod pools;
mod request;
mod socket;

use std::{collections::BTreeMap, io, os::unix::net::UnixListener as StdListener, path::Path};

use mio::{Interest, Registry, Token, net::UnixListener};

use client::{Asked, Client, Gone};
pub use event::EventName;
pub use request::{IkeCommand, PolicyKinds, Refusal, Request, SaFilter, Wait};
pub use socket::BindError;
use socket::SocketFile;

use crate::wire::vici::{Message, Packet};

/// A client, never reused for another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ClientId(u64);

/// The server.
#[derive(Debug)]
pub struct Server {
    listener: UnixListener,
    /// Removes the socket file when dropped.
    _file: SocketFile,
    /// Tokens from here on are clients.
    first_token: usize,
    clients: BTreeMap<ClientId, Client>,
    next_id: u64,
}

impl Server {
    /// Binds the socket. One that another process left behind is replaced, one in use is not.
    ///
    /// The caller registers the listener under `token`; clients use the tokens above it.
    pub fn bind(
        path: &Path,
        mode: u32,
        registry: &Registry,
        token: Token,
    ) -> Result<Self, BindError> {
        let (listener, file) = SocketFile::bind(path, mode)?;
        Self::listen(listener, file, registry, token).map_err(|error| BindError::Bind {
            path: path.to_owned(),
            error,
        })
    }

    fn listen(
        listener: StdListener,
        file: SocketFile,
        registry: &Registry,
        token: Token,
    ) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        let mut listener = UnixListener::from_std(listener);
        registry.register(&mut listener, token, Interest::READABLE)?;
        Ok(Self {
            listener,
            _file: file,
            first_token: token.0 + 1,
            clients: BTreeMap::new(),
            next_id: 0,
        })
    }

    /// Takes in waiting clients; those beyond the limit are turned away.
    pub fn accept(&mut self, registry: &Registry) {
        while let Ok((mut socket, _)) = self.listener.accept() {
            if self.clients.len() >= MAX_CLIENTS {
                tracing::warn!(limit = MAX_CLIENTS, "control client turned away, too many");
                continue;
            }
            let id = ClientId(self.next_id);
            let token = self.token(id);
            let interest = Interest::READABLE | Interest::WRITABLE;
            if registry.register(&mut socket, token, interest).is_ok() {
                self.next_id += 1;
                self.clients.insert(id, Client::new(socket));
            }
        }
    }

    /// Notes that a client's socket has become ready for something.
    pub fn ready(&mut self, event: &mio::event::Event) {
        let Some(id) = self.id(event.token()) else {
            return;
        };
        if let Some(client) = self.clients.get_mut(&id) {
            client.set_readable();
            if event.is_error() || (event.is_write_closed() && event.is_read_closed()) {
                self.close(id, &Gone("left"));
            }
        }
    }

    /// Whether clients have sent more than was looked at so far.
    #[must_use]
    pub fn has_input(&self) -> bool {
        self.clients.values().any(Client::has_input)
    }

    /// What clients ask for now, at most one request of each.
    pub fn requests(&mut self) -> Vec<(ClientId, Request)> {
        let mut requests = Vec::new();
        let ids: Vec<ClientId> = self.clients.keys().copied().collect();
        for id in ids {
            let Some(client) = self.clients.get_mut(&id) else {
                continue;
            };
            match client.next() {
                Ok(Some(Asked::Command { name, message })) => match Request::parse(&name, &message)
                {
                    Ok(request) => requests.push((id, request)),
                    Err(Refusal::Unknown) => self.finish(id, &Packet::CmdUnknown),
                    Err(Refusal::Argument(reason)) => self.respond(id, failure(&reason)),
                },
                Ok(Some(Asked::Malformed)) => tracing::debug!("malformed control request"),
                Ok(None) => {}
                Err(gone) => self.close(id, &gone),
            }
        }
        requests
    }

    /// Answers a command. A client that has left in the meantime is no error.
    pub fn respond(&mut self, id: ClientId, message: Message) {
        self.finish(id, &Packet::CmdResponse(message));
    }

    /// Answers a command with a stream of events and an empty response.
    ///
    /// As in strongSwan, the parts go only to a client that has registered for them.
    pub fn respond_with_stream(
        &mut self,
        id: ClientId,
        event: EventName,
        parts: impl Iterator<Item = Message>,
    ) {
        if let Some(client) = self.clients.get_mut(&id).filter(|c| c.wants(event)) {
            client.stream(parts.map(|message| event_packet(event, message)));
        }
        self.respond(id, Message::new());
    }

    /// Sends an event to one client if it wants it and still has a command in work.
    pub fn tell(&mut self, id: ClientId, event: EventName, message: Message) {
        if let Some(client) = self.clients.get_mut(&id)
            && client.is_busy()
            && client.wants(event)
            && let Err(gone) = client.send(&event_packet(event, message))
        {
            self.close(id, &gone);
        }
    }

    /// Sends an event to every client that wants it.
    pub fn broadcast(&mut self, event: EventName, message: impl FnOnce() -> Message) {
        if !self.clients.values().any(|client| client.wants(event)) {
            return;
        }
        let packet = event_packet(event, message());
        let mut gone = Vec::new();
        for (&id, client) in &mut self.clients {
            if client.wants(event)
                && let Err(error) = client.send(&packet)
            {
                gone.push((id, error));
            }
        }
        for (id, error) in gone {
            self.close(id, &error);
        }
    }

    /// Whether a client is still connected.
    #[must_use]
    pub fn is_connected(&self, id: ClientId) -> bool {
        self.clients.contains_key(&id)
    }

    /// Writes what sockets take.
    pub fn flush(&mut self) {
        let mut gone = Vec::new();
        for (&id, client) in &mut self.clients {
            if let Err(error) = client.flush() {
                gone.push((id, error));
            }
        }
        for (id, error) in gone {
            self.close(id, &error);
        }
    }

    fn finish(&mut self, id: ClientId, packet: &Packet) {
        if let Some(client) = self.clients.get_mut(&id)
            && let Err(gone) = client.respond(packet)
        {
            self.close(id, &gone);
        }
    }

    fn close(&mut self, id: ClientId, gone: &Gone) {
        tracing::debug!(
            client = id.0,
            reason = gone.0,
            "control client disconnected"
        );
        // Closing the descriptor takes it out of the poll.
        self.clients.remove(&id);
    }

    fn token(&self, id: ClientId) -> Token {
        Token(self.first_token + usize::try_from(id.0).unwrap_or(usize::MAX))
    }

    fn id(&self, token: Token) -> Option<ClientId> {
        let number = token.0.checked_sub(self.first_token)?;
        u64::try_from(number).ok().map(ClientId)
    }
}

/// The answer of a command that worked.
#[must_use]
pub fn success() -> Message {
    let mut message = Message::new();
    message.set("success", "yes");
    message
}

/// The answer of a command that did not work.
#[must_use]
pub fn failure(reason: &str) -> Message {
    let mut message = Message::new();
    message.set("success", "no").set("errmsg", reason);
    message
}

fn event_packet(event: EventName, message: Message) -> Packet {
    Packet::Event {
        name: event.name().to_owned(),
        message,
    }
}

const MAX_CLIENTS: usize = 32;
