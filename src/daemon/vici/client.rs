//! One client of the control socket.

use std::{
    collections::{BTreeSet, VecDeque},
    io::{self, Read, Write},
};

use mio::net::UnixStream;

use super::event::EventName;
use crate::wire::vici::{FrameReader, Message, Packet};

/// A client: what it has sent, what it will be sent, and which events it wants.
#[derive(Debug)]
pub(super) struct Client {
    socket: UnixStream,
    frames: FrameReader,
    /// Segments to write, the first one from `written` on.
    output: VecDeque<Vec<u8>>,
    written: usize,
    queued: usize,
    /// The rest of a streaming answer. It is as long as our own state and moves up as `output` drains.
    stream: VecDeque<Vec<u8>>,
    events: BTreeSet<EventName>,
    /// A command is being worked on; the next one waits.
    busy: bool,
    readable: bool,
    /// The client has sent all it wants to send.
    ended: bool,
}

/// Something a client sent that the server has to look at.
#[derive(Debug)]
pub(super) enum Asked {
    Command {
        name: String,
        message: Message,
    },
    /// Not a VICI packet, or one that only a server sends.
    Malformed,
}

/// The client is gone, or has to go.
#[derive(Debug)]
pub(super) struct Gone(pub(super) &'static str);

impl Client {
    pub(super) fn new(socket: UnixStream) -> Self {
        Self {
            socket,
            frames: FrameReader::new(),
            output: VecDeque::new(),
            written: 0,
            queued: 0,
            stream: VecDeque::new(),
            events: BTreeSet::new(),
            busy: false,
            readable: true,
            ended: false,
        }
    }

    pub(super) fn set_readable(&mut self) {
        self.readable = true;
    }

    pub(super) fn is_busy(&self) -> bool {
        self.busy
    }

    pub(super) fn wants(&self, event: EventName) -> bool {
        self.events.contains(&event)
    }

    /// The answer to a command is not ready, or the client has not read enough of it.
    fn is_answering(&self) -> bool {
        self.busy || !self.stream.is_empty()
    }

    /// Whether another call of [`Client::next`] may give something.
    pub(super) fn has_input(&self) -> bool {
        self.readable && !self.is_answering()
    }

    /// The next thing the client asks for. Event registrations are dealt with on the way.
    pub(super) fn next(&mut self) -> Result<Option<Asked>, Gone> {
        // Bounded per call, so that one client cannot hold up the others.
        for _ in 0..PACKETS_PER_TURN {
            if self.is_answering() {
                return Ok(None);
            }
            let Some(frame) = self.next_frame()? else {
                return Ok(None);
            };
            match Packet::parse(&frame) {
                Ok(Packet::CmdRequest { name, message }) => {
                    self.busy = true;
                    return Ok(Some(Asked::Command { name, message }));
                }
                Ok(Packet::EventRegister(name)) => match EventName::parse(&name) {
                    Some(event) => {
                        self.events.insert(event);
                        self.send(&Packet::EventConfirm)?;
                    }
                    None => self.send(&Packet::EventUnknown)?,
                },
                Ok(Packet::EventUnregister(name)) => {
                    let known = EventName::parse(&name);
                    let answer = match known.filter(|event| self.events.remove(event)) {
                        Some(_) => Packet::EventConfirm,
                        None => Packet::EventUnknown,
                    };
                    self.send(&answer)?;
                }
                Ok(_) | Err(_) => return Ok(Some(Asked::Malformed)),
            }
        }
        Ok(None)
    }

    fn next_frame(&mut self) -> Result<Option<Vec<u8>>, Gone> {
        let mut chunk = [0; READ_LEN];
        loop {
            match self.frames.next_frame() {
                Ok(Some(frame)) => return Ok(Some(frame)),
                Ok(None) => {}
                Err(_) => return Err(Gone("sent a segment that is too long")),
            }
            if self.ended {
                self.readable = false;
                let idle = self.output.is_empty() && self.stream.is_empty();
                return if idle { Err(Gone("left")) } else { Ok(None) };
            }
            match self.socket.read(&mut chunk) {
                Ok(0) => self.ended = true,
                Ok(length) => self.frames.push(chunk.get(..length).unwrap_or_default()),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.readable = false;
                    return Ok(None);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return Err(Gone("left")),
            }
        }
    }

    /// Ends the command in work.
    pub(super) fn respond(&mut self, packet: &Packet) -> Result<(), Gone> {
        self.busy = false;
        // What came in the meantime is already read or waits in the socket.
        self.readable = true;
        if self.stream.is_empty() {
            return self.send(packet);
        }
        self.stream.push_back(packet.encode());
        Ok(())
    }

    /// Sends the parts of a streaming answer ahead of the response.
    pub(super) fn stream(&mut self, parts: impl Iterator<Item = Packet>) {
        self.stream.extend(parts.map(|part| part.encode()));
    }

    pub(super) fn send(&mut self, packet: &Packet) -> Result<(), Gone> {
        let bytes = packet.encode();
        self.queued += bytes.len();
        self.output.push_back(bytes);
        if self.queued > OUTPUT_LIMIT {
            return Err(Gone("does not read what it is sent"));
        }
        Ok(())
    }

    /// Writes as much as the socket takes.
    pub(super) fn flush(&mut self) -> Result<(), Gone> {
        loop {
            if self.output.is_empty() {
                match self.stream.pop_front() {
                    Some(part) => {
                        self.queued += part.len();
                        self.output.push_back(part);
                    }
                    None if self.ended && !self.busy && !self.readable => return Err(Gone("left")),
                    None => return Ok(()),
                }
            }
            let Some(first) = self.output.front() else {
                return Ok(());
            };
            match self
                .socket
                .write(first.get(self.written..).unwrap_or_default())
            {
                Ok(length) => {
                    self.written += length;
                    if self.written >= first.len() {
                        self.queued -= first.len();
                        self.written = 0;
                        self.output.pop_front();
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return Err(Gone("left")),
            }
        }
    }
}

/// Bytes that may wait for a client that does not read.
const OUTPUT_LIMIT: usize = 1024 * 1024;
const READ_LEN: usize = 16 * 1024;
const PACKETS_PER_TURN: usize = 16;
