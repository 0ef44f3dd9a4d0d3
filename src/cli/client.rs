//! A VICI client: one command in flight, events in between.

use crate::wire::{
    Malformed,
    vici::{FrameReader, Message, Packet},
};
use std::{
    collections::VecDeque,
    io::{self, ErrorKind, Read, Write},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

/// A connection to a daemon's control socket.
#[derive(Debug)]
pub struct Client {
    stream: UnixStream,
    frames: FrameReader,
    /// Events that arrived while an answer was awaited.
    events: VecDeque<(String, Message)>,
}

/// Why the daemon could not be asked. The text says what to do.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nothing listens there.
    #[error(
        "cannot connect to {socket}: {source}\nis `lockgate run` running? another socket is chosen with --socket or LOCKGATE_SOCKET"
    )]
    Unreachable {
        /// The control socket.
        socket: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The socket exists and is not ours to use.
    #[error(
        "not allowed to connect to {socket}\nrun the command as the user of the daemon, or set vici_socket_mode in its configuration"
    )]
    Forbidden {
        /// The control socket.
        socket: PathBuf,
    },
    /// No answer in time.
    #[error("the daemon did not answer `{command}` within {} s", limit.as_secs())]
    Timeout {
        /// What was asked.
        command: String,
        /// How long we waited.
        limit: Duration,
    },
    /// The stream ended.
    #[error("the daemon closed the connection")]
    Closed,
    /// The daemon is of another version.
    #[error("the daemon does not know `{0}`; is it another version of lockgate?")]
    Unknown(String),
    /// What came back is not VICI.
    #[error("the control socket does not speak VICI: {0}")]
    Malformed(#[from] Malformed),
    /// It is VICI, but not an answer.
    #[error("the control socket answered `{0}` with something that is not an answer")]
    Unexpected(String),
    /// The socket failed.
    #[error("control socket: {0}")]
    Io(#[from] io::Error),
}

impl Client {
    /// Connects to the socket at `path`.
    pub fn connect(path: &Path) -> Result<Self, ClientError> {
        let stream = UnixStream::connect(path).map_err(|source| match source.kind() {
            ErrorKind::PermissionDenied => ClientError::Forbidden {
                socket: path.to_owned(),
            },
            _ => ClientError::Unreachable {
                socket: path.to_owned(),
                source,
            },
        })?;
        stream.set_write_timeout(Some(ANSWER_LIMIT))?;
        Ok(Self {
            stream,
            frames: FrameReader::new(),
            events: VecDeque::new(),
        })
    }

    /// Asks for `name` and waits for the answer.
    pub fn command(&mut self, name: &str, arguments: Message) -> Result<Message, ClientError> {
        self.ask(name, arguments, Some(ANSWER_LIMIT), |_, _| Ok(()))
    }

    /// Asks for `name`, hands each `event` that comes before the answer to `on_event`, and returns
    /// the answer. Without a `limit` it waits as long as the daemon takes.
    pub fn stream<E: From<ClientError>>(
        &mut self,
        name: &str,
        arguments: Message,
        event: &str,
        limit: Option<Duration>,
        mut on_event: impl FnMut(&Message) -> Result<(), E>,
    ) -> Result<Message, E> {
        self.subscribe(event)?;
        let answer = self.ask(name, arguments, limit, |name, message| {
            if name == event {
                on_event(message)
            } else {
                Ok(())
            }
        })?;
        self.exchange(&Packet::EventUnregister(event.to_owned()), event)?;
        Ok(answer)
    }

    /// Has the daemon send events of this name from now on.
    pub fn subscribe(&mut self, event: &str) -> Result<(), ClientError> {
        self.exchange(&Packet::EventRegister(event.to_owned()), event)
    }

    /// Waits for the next event, without limit.
    pub fn next_event(&mut self) -> Result<(String, Message), ClientError> {
        loop {
            if let Some(event) = self.events.pop_front() {
                return Ok(event);
            }
            if let Packet::Event { name, message } = self.receive("events", None)? {
                self.events.push_back((name, message));
            }
        }
    }

    fn ask<E: From<ClientError>>(
        &mut self,
        name: &str,
        message: Message,
        limit: Option<Duration>,
        mut on_event: impl FnMut(&str, &Message) -> Result<(), E>,
    ) -> Result<Message, E> {
        self.send(&Packet::CmdRequest {
            name: name.to_owned(),
            message,
        })?;
        let wait = Wait::new(limit);
        loop {
            match self.receive(name, wait)? {
                Packet::Event { name, message } => on_event(&name, &message)?,
                Packet::CmdResponse(answer) => return Ok(answer),
                Packet::CmdUnknown => return Err(ClientError::Unknown(name.to_owned()).into()),
                _ => return Err(ClientError::Unexpected(name.to_owned()).into()),
            }
        }
    }

    fn exchange(&mut self, request: &Packet, event: &str) -> Result<(), ClientError> {
        self.send(request)?;
        let wait = Wait::new(Some(ANSWER_LIMIT));
        loop {
            match self.receive(event, wait)? {
                Packet::Event { name, message } => self.events.push_back((name, message)),
                Packet::EventConfirm => return Ok(()),
                Packet::EventUnknown => return Err(ClientError::Unknown(event.to_owned())),
                _ => return Err(ClientError::Unexpected(event.to_owned())),
            }
        }
    }

    fn send(&mut self, packet: &Packet) -> Result<(), ClientError> {
        self.stream
            .write_all(&packet.encode())
            .map_err(|error| match error.kind() {
                ErrorKind::BrokenPipe | ErrorKind::ConnectionReset => ClientError::Closed,
                _ => ClientError::Io(error),
            })
    }

    fn receive(&mut self, command: &str, wait: Option<Wait>) -> Result<Packet, ClientError> {
        let mut chunk = [0; 16 * 1024];
        loop {
            if let Some(frame) = self.frames.next_frame()? {
                return Ok(Packet::parse(&frame)?);
            }
            let left = wait.map(|wait| wait.left(command)).transpose()?;
            self.stream.set_read_timeout(left)?;
            let length = match self.stream.read(&mut chunk) {
                Ok(0) => return Err(ClientError::Closed),
                Ok(length) => length,
                Err(error) => match error.kind() {
                    ErrorKind::Interrupted | ErrorKind::WouldBlock | ErrorKind::TimedOut => 0,
                    ErrorKind::ConnectionReset => return Err(ClientError::Closed),
                    _ => return Err(error.into()),
                },
            };
            self.frames.push(chunk.get(..length).unwrap_or_default());
        }
    }
}

/// How long an answer is awaited in all, however many events come before it.
#[derive(Clone, Copy, Debug)]
struct Wait {
    limit: Duration,
    since: Instant,
}

impl Wait {
    fn new(limit: Option<Duration>) -> Option<Self> {
        limit.map(|limit| Self {
            limit,
            since: Instant::now(),
        })
    }

    fn left(self, command: &str) -> Result<Duration, ClientError> {
        let left = self.limit.saturating_sub(self.since.elapsed());
        if left.is_zero() {
            return Err(ClientError::Timeout {
                command: command.to_owned(),
                limit: self.limit,
            });
        }
        Ok(left)
    }
}

/// How long the daemon may take for an answer that it has at hand.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);
