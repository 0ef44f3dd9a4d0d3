//! VICI packets and messages: strongSwan's control protocol.

use super::Malformed;

/// What a key of a message holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// `key = value`.
    Text(Vec<u8>),
    /// `key = [items]`.
    List(Vec<Vec<u8>>),
    /// `key { … }`.
    Section(Message),
}

/// An ordered tree of keys and values.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Message {
    entries: Vec<(String, Value)>,
}

impl Message {
    /// An empty message.
    pub fn new() -> Self {
        Self::default()
    }

    /// Reads a message; nesting is bounded by [`MAX_DEPTH`]. Of equal keys in one section,
    /// [`Self::value`] sees the first.
    pub fn parse(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut rest = bytes;
        let message = Self::parse_section(&mut rest, 0)?;
        if rest.is_empty() {
            Ok(message)
        } else {
            Err(Malformed::BadValue("VICI section end"))
        }
    }

    /// Reads up to the end of the section and over it; the outermost section ends with the bytes.
    fn parse_section(rest: &mut &[u8], depth: usize) -> Result<Self, Malformed> {
        let mut message = Self::new();
        loop {
            let Some((&kind, after)) = rest.split_first() else {
                let outermost = depth == 0;
                return if outermost {
                    Ok(message)
                } else {
                    Err(Malformed::Truncated("VICI section"))
                };
            };
            if kind == SECTION_END && depth == 0 {
                return Ok(message);
            }
            *rest = after;
            let entry = match kind {
                SECTION_END => return Ok(message),
                SECTION_START if depth == MAX_DEPTH => {
                    return Err(Malformed::BadLength("VICI section nesting"));
                }
                SECTION_START => (
                    take_name(rest)?,
                    Value::Section(Self::parse_section(rest, depth + 1)?),
                ),
                KEY_VALUE => (take_name(rest)?, Value::Text(take_value(rest)?.to_vec())),
                LIST_START => (take_name(rest)?, Value::List(parse_items(rest)?)),
                _ => return Err(Malformed::BadValue("VICI element")),
            };
            message.entries.push(entry);
        }
    }

    /// Appends the message as bytes. The format ends keys at 255 and values at 65 535 bytes; what is
    /// longer is cut there.
    pub fn encode(&self, out: &mut Vec<u8>) {
        for (key, value) in &self.entries {
            match value {
                Value::Text(text) => {
                    out.push(KEY_VALUE);
                    put_name(key, out);
                    put_value(text, out);
                }
                Value::List(items) => {
                    out.push(LIST_START);
                    put_name(key, out);
                    for item in items {
                        out.push(LIST_ITEM);
                        put_value(item, out);
                    }
                    out.push(LIST_END);
                }
                Value::Section(message) => {
                    out.push(SECTION_START);
                    put_name(key, out);
                    message.encode(out);
                    out.push(SECTION_END);
                }
            }
        }
    }

    /// Sets a text value, in place of an earlier value of the same key.
    pub fn set(&mut self, key: impl Into<String>, value: impl ToString) -> &mut Self {
        self.insert(key, Value::Text(value.to_string().into_bytes()))
    }

    /// Sets a list.
    pub fn list<T: ToString>(
        &mut self,
        key: impl Into<String>,
        items: impl IntoIterator<Item = T>,
    ) -> &mut Self {
        let items = items
            .into_iter()
            .map(|item| item.to_string().into_bytes())
            .collect();
        self.insert(key, Value::List(items))
    }

    /// Sets a section.
    pub fn section(&mut self, key: impl Into<String>, message: Self) -> &mut Self {
        self.insert(key, Value::Section(message))
    }

    /// Sets any value, in place of an earlier value of the same key.
    pub fn insert(&mut self, key: impl Into<String>, value: Value) -> &mut Self {
        let key = key.into();
        match self.entries.iter_mut().find(|(name, _)| *name == key) {
            Some((_, old)) => *old = value,
            None => self.entries.push((key, value)),
        }
        self
    }

    /// The value of a key.
    pub fn value(&self, key: &str) -> Option<&Value> {
        self.entries
            .iter()
            .find(|(name, _)| name == key)
            .map(|(_, value)| value)
    }

    /// The text of a key; `None` where it is absent, no text or no UTF-8.
    pub fn get(&self, key: &str) -> Option<&str> {
        match self.value(key)? {
            Value::Text(text) => std::str::from_utf8(text).ok(),
            Value::List(_) | Value::Section(_) => None,
        }
    }

    /// The list of a key, without items that are no UTF-8.
    pub fn get_list(&self, key: &str) -> Option<Vec<&str>> {
        match self.value(key)? {
            Value::List(items) => Some(
                items
                    .iter()
                    .filter_map(|item| std::str::from_utf8(item).ok())
                    .collect(),
            ),
            Value::Text(_) | Value::Section(_) => None,
        }
    }

    /// The section of a key.
    pub fn get_section(&self, key: &str) -> Option<&Self> {
        match self.value(key)? {
            Value::Section(message) => Some(message),
            Value::Text(_) | Value::List(_) => None,
        }
    }

    /// Keys and values in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.entries
            .iter()
            .map(|(key, value)| (key.as_str(), value))
    }

    /// Has no keys.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

/// What a segment carries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Packet {
    /// A client asks for a command.
    CmdRequest {
        /// Its name.
        name: String,
        /// Its arguments.
        message: Message,
    },
    /// The answer.
    CmdResponse(Message),
    /// There is no such command.
    CmdUnknown,
    /// A client wants an event.
    EventRegister(String),
    /// A client no longer wants an event.
    EventUnregister(String),
    /// Registration or its end took effect.
    EventConfirm,
    /// There is no such event, or it was not registered.
    EventUnknown,
    /// An event.
    Event {
        /// Its name.
        name: String,
        /// What happened.
        message: Message,
    },
}

impl Packet {
    /// Reads the payload of a segment.
    pub fn parse(bytes: &[u8]) -> Result<Self, Malformed> {
        let (&kind, mut rest) = bytes
            .split_first()
            .ok_or(Malformed::Truncated("VICI packet"))?;
        let packet = match kind {
            CMD_REQUEST => {
                let name = take_name(&mut rest)?;
                return Ok(Self::CmdRequest {
                    name,
                    message: Message::parse(rest)?,
                });
            }
            EVENT => {
                let name = take_name(&mut rest)?;
                return Ok(Self::Event {
                    name,
                    message: Message::parse(rest)?,
                });
            }
            CMD_RESPONSE => return Message::parse(rest).map(Self::CmdResponse),
            CMD_UNKNOWN => Self::CmdUnknown,
            EVENT_REGISTER => Self::EventRegister(take_name(&mut rest)?),
            EVENT_UNREGISTER => Self::EventUnregister(take_name(&mut rest)?),
            EVENT_CONFIRM => Self::EventConfirm,
            EVENT_UNKNOWN => Self::EventUnknown,
            _ => return Err(Malformed::BadValue("VICI packet type")),
        };
        if rest.is_empty() {
            Ok(packet)
        } else {
            Err(Malformed::BadLength("VICI packet"))
        }
    }

    /// A whole segment: length and payload. One above [`MAX_SEGMENT`] will be refused by readers.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![0; 4];
        match self {
            Self::CmdRequest { name, message } => {
                out.push(CMD_REQUEST);
                put_name(name, &mut out);
                message.encode(&mut out);
            }
            Self::CmdResponse(message) => {
                out.push(CMD_RESPONSE);
                message.encode(&mut out);
            }
            Self::CmdUnknown => out.push(CMD_UNKNOWN),
            Self::EventRegister(name) => {
                out.push(EVENT_REGISTER);
                put_name(name, &mut out);
            }
            Self::EventUnregister(name) => {
                out.push(EVENT_UNREGISTER);
                put_name(name, &mut out);
            }
            Self::EventConfirm => out.push(EVENT_CONFIRM),
            Self::EventUnknown => out.push(EVENT_UNKNOWN),
            Self::Event { name, message } => {
                out.push(EVENT);
                put_name(name, &mut out);
                message.encode(&mut out);
            }
        }
        let length = u32::try_from(out.len() - 4).unwrap_or(u32::MAX);
        if let Some(field) = out.first_chunk_mut() {
            *field = length.to_be_bytes();
        }
        out
    }
}

/// Cuts a byte stream into segment payloads. Holds what was pushed and not taken yet, so take all
/// frames between pushes.
#[derive(Clone, Debug, Default)]
pub struct FrameReader {
    buffer: Vec<u8>,
    taken: usize,
}

impl FrameReader {
    /// No bytes yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds bytes of the stream.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.drain(..self.taken);
        self.taken = 0;
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole segment's payload, without its length. After an error the stream is lost.
    pub fn next_frame(&mut self) -> Result<Option<Vec<u8>>, Malformed> {
        let Some((length, rest)) = self
            .buffer
            .get(self.taken..)
            .and_then(|rest| rest.split_first_chunk())
        else {
            return Ok(None);
        };
        let length = usize::try_from(u32::from_be_bytes(*length)).unwrap_or(usize::MAX);
        if length > MAX_SEGMENT {
            return Err(Malformed::BadLength("VICI segment"));
        }
        let Some(payload) = rest.get(..length) else {
            return Ok(None);
        };
        let payload = payload.to_vec();
        self.taken += 4 + length;
        Ok(Some(payload))
    }
}

fn parse_items(rest: &mut &[u8]) -> Result<Vec<Vec<u8>>, Malformed> {
    let mut items = Vec::new();
    loop {
        let (&kind, after) = rest
            .split_first()
            .ok_or(Malformed::Truncated("VICI list"))?;
        *rest = after;
        match kind {
            LIST_ITEM => items.push(take_value(rest)?.to_vec()),
            LIST_END => return Ok(items),
            _ => return Err(Malformed::BadValue("VICI list element")),
        }
    }
}

fn take_name(rest: &mut &[u8]) -> Result<String, Malformed> {
    let (&length, after) = rest
        .split_first()
        .ok_or(Malformed::Truncated("VICI name"))?;
    let (name, after) = after
        .split_at_checked(length.into())
        .ok_or(Malformed::Truncated("VICI name"))?;
    *rest = after;
    let name = std::str::from_utf8(name).map_err(|_| Malformed::BadValue("VICI name"))?;
    Ok(name.to_owned())
}

fn take_value<'a>(rest: &mut &'a [u8]) -> Result<&'a [u8], Malformed> {
    let (length, after) = rest
        .split_first_chunk()
        .ok_or(Malformed::Truncated("VICI value"))?;
    let (value, after) = after
        .split_at_checked(u16::from_be_bytes(*length).into())
        .ok_or(Malformed::Truncated("VICI value"))?;
    *rest = after;
    Ok(value)
}

fn put_name(name: &str, out: &mut Vec<u8>) {
    let name = name.as_bytes().get(..255).unwrap_or(name.as_bytes());
    out.push(u8::try_from(name.len()).unwrap_or(u8::MAX));
    out.extend_from_slice(name);
}

fn put_value(value: &[u8], out: &mut Vec<u8>) {
    let value = value.get(..usize::from(u16::MAX)).unwrap_or(value);
    out.extend_from_slice(&u16::try_from(value.len()).unwrap_or(u16::MAX).to_be_bytes());
    out.extend_from_slice(value);
}

/// The longest segment payload.
pub const MAX_SEGMENT: usize = 512 * 1024;
/// How deep sections may nest.
pub const MAX_DEPTH: usize = 16;

const CMD_REQUEST: u8 = 0;
const CMD_RESPONSE: u8 = 1;
const CMD_UNKNOWN: u8 = 2;
const EVENT_REGISTER: u8 = 3;
const EVENT_UNREGISTER: u8 = 4;
const EVENT_CONFIRM: u8 = 5;
const EVENT_UNKNOWN: u8 = 6;
const EVENT: u8 = 7;

const SECTION_START: u8 = 1;
const SECTION_END: u8 = 2;
const KEY_VALUE: u8 = 3;
const LIST_START: u8 = 4;
const LIST_ITEM: u8 = 5;
const LIST_END: u8 = 6;
