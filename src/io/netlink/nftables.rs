//! Marks on the packets of the tunnel device, by nf_tables.
//!
//! ```text
//! table ip6 lockgate-PID {            owned by its netlink socket (Linux 5.12): it goes when that closes
//!     chain prerouting {              the last in its hook
//!                                    meta mark set meta mark & ~MARK
//!         iif { lo, tunnel device }  meta mark set meta mark | MARK
//!     }
//!     chain forward {                 the first in its hook, behind the policy check
//!         iif tunnel device          meta mark set meta mark & ~MARK
//!     }
//! }
//! ```

use std::io;

use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_NETFILTER};

use super::{HEADER_LEN, next_message, padding};

/// The table, as long as this value lives and no longer, however the process ends.
#[derive(Debug)]
pub struct PacketMarks {
    socket: Socket,
    table: String,
    /// Bits.
    mark: u32,
    sequence: u32,
}

impl PacketMarks {
    /// Makes the table, in the network namespace of the calling thread. Only what comes from this machine
    /// itself is marked so far, with these bits, whatever marks others have set.
    pub fn open(mark: u32) -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_NETFILTER)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        // Answers are there when a request has been sent.
        socket.set_non_blocking(true)?;
        let mut marks = Self {
            socket,
            table: format!("lockgate-{}", std::process::id()),
            mark,
            sequence: 0,
        };
        let mut batch = marks.batch();
        let flags = attribute(TABLE_FLAGS, &TABLE_OWNED.to_be_bytes());
        batch.push(NEW_TABLE, &[text(TABLE_NAME, &marks.table), flags].concat());
        for (chain, hook, priority) in [
            (PREROUTING, HOOK_PREROUTING, i32::MAX),
            (FORWARD, HOOK_FORWARD, i32::MIN),
        ] {
            let hook = [
                attribute(HOOK_NUMBER, &u32::to_be_bytes(hook)),
                attribute(HOOK_PRIORITY, &priority.to_be_bytes()),
            ];
            let chain = [
                text(CHAIN_TABLE, &marks.table),
                text(CHAIN_NAME, chain),
                nested(CHAIN_HOOK, &hook),
                text(CHAIN_TYPE, "filter"),
            ];
            batch.push(NEW_CHAIN, &chain.concat());
        }
        batch.push(NEW_RULE, &marks.rule(PREROUTING, None, false));
        batch.push(NEW_RULE, &marks.rule(PREROUTING, Some(LOOPBACK), true));
        marks.commit(batch)?;
        Ok(marks)
    }

    /// Marks what comes from this device, too. For one device in the life of the table.
    pub fn add_device(&mut self, index: u32) -> io::Result<()> {
        let mut batch = self.batch();
        batch.push(NEW_RULE, &self.rule(PREROUTING, Some(index), true));
        batch.push(NEW_RULE, &self.rule(FORWARD, Some(index), false));
        self.commit(batch)
    }

    fn batch(&self) -> Batch {
        let mut batch = Batch {
            bytes: Vec::new(),
            sequence: self.sequence,
            requests: 0,
        };
        batch.begin();
        batch
    }

    /// `meta iif INDEX`, or any device, and the bits set, or taken away.
    fn rule(&self, chain: &str, index: Option<u32>, set: bool) -> Vec<u8> {
        let register = |kind| attribute(kind, &REGISTER.to_be_bytes());
        let meta = |kind, key: u32| {
            let data = [attribute(META_KEY, &key.to_be_bytes()), register(kind)];
            expression("meta", &data)
        };
        let value = |kind, value: u32| {
            let value = attribute(DATA_VALUE, &value.to_ne_bytes());
            nested(kind, &[value])
        };
        let is_device = |index| {
            let data = [
                register(CMP_REGISTER),
                attribute(CMP_OPERATION, &CMP_EQUAL.to_be_bytes()),
                value(CMP_DATA, index),
            ];
            [meta(META_DESTINATION, META_IIF), expression("cmp", &data)]
        };
        let change = [
            register(BITWISE_SOURCE),
            register(BITWISE_DESTINATION),
            attribute(BITWISE_LENGTH, &4_u32.to_be_bytes()),
            value(BITWISE_MASK, !self.mark),
            value(BITWISE_XOR, if set { self.mark } else { 0 }),
        ];
        let mut expressions: Vec<_> = index.into_iter().flat_map(is_device).collect();
        expressions.extend([
            meta(META_DESTINATION, META_MARK),
            expression("bitwise", &change),
            meta(META_SOURCE, META_MARK),
        ]);
        let rule = [
            text(RULE_TABLE, &self.table),
            text(RULE_CHAIN, chain),
            nested(RULE_EXPRESSIONS, &expressions),
        ];
        rule.concat()
    }

    /// All of a batch, or an error and nothing.
    fn commit(&mut self, mut batch: Batch) -> io::Result<()> {
        batch.end();
        self.sequence = batch.sequence;
        self.socket.send(&batch.bytes, 0)?;
        let mut accepted = 0;
        let mut result = Ok(());
        loop {
            let datagram = match self.socket.recv_from_full() {
                Ok((datagram, _)) => datagram,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            };
            let mut rest = datagram.as_slice();
            while let Some((length, _)) = next_message(rest) {
                match error_code(rest) {
                    Some(0) => accepted += 1,
                    Some(code) if result.is_ok() => {
                        result = Err(io::Error::from_raw_os_error(code.saturating_neg()));
                    }
                    _ => {}
                }
                rest = rest.get(length + padding(length)..).unwrap_or_default();
            }
        }
        if result.is_ok() && accepted < batch.requests {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "nf_tables did not answer",
            ));
        }
        result
    }
}

/// Messages that take effect together.
struct Batch {
    bytes: Vec<u8>,
    sequence: u32,
    /// Messages that are to be acknowledged.
    requests: usize,
}

impl Batch {
    fn begin(&mut self) {
        self.message(BATCH_BEGIN, REQUEST, UNSPECIFIED, SUBSYSTEM, &[]);
    }

    fn push(&mut self, kind: u16, attributes: &[u8]) {
        self.requests += 1;
        let kind = SUBSYSTEM << 8 | kind;
        let flags = REQUEST | ACKNOWLEDGE | CREATE | APPEND;
        self.message(kind, flags, IPV6, 0, attributes);
    }

    fn end(&mut self) {
        self.message(BATCH_END, REQUEST, UNSPECIFIED, SUBSYSTEM, &[]);
    }

    /// `struct nlmsghdr`, `struct nfgenmsg` and attributes.
    fn message(&mut self, kind: u16, flags: u16, family: u8, resource: u16, attributes: &[u8]) {
        self.sequence = self.sequence.wrapping_add(1);
        let length = HEADER_LEN + 4 + attributes.len();
        let length = u32::try_from(length).expect("a message has a few hundred bytes");
        self.bytes.extend(length.to_ne_bytes());
        self.bytes.extend(kind.to_ne_bytes());
        self.bytes.extend(flags.to_ne_bytes());
        self.bytes.extend(self.sequence.to_ne_bytes());
        self.bytes.extend([0; 4]);
        self.bytes.extend([family, 0]);
        self.bytes.extend(resource.to_be_bytes());
        self.bytes.extend(attributes);
    }
}

/// The code of the NLMSG_ERROR at the start of `bytes`: 0 is an acknowledgement.
fn error_code(bytes: &[u8]) -> Option<i32> {
    let (&[_, _, _, _, t0, t1], _) = bytes.split_first_chunk()?;
    let (&code, _) = bytes.get(HEADER_LEN..)?.split_first_chunk()?;
    (u16::from_ne_bytes([t0, t1]) == ERROR).then_some(i32::from_ne_bytes(code))
}

fn expression(name: &str, data: &[Vec<u8>]) -> Vec<u8> {
    nested(
        LIST_ELEMENT,
        &[text(EXPRESSION_NAME, name), nested(EXPRESSION_DATA, data)],
    )
}

fn nested(kind: u16, attributes: &[Vec<u8>]) -> Vec<u8> {
    attribute(kind | NESTED, &attributes.concat())
}

fn text(kind: u16, text: &str) -> Vec<u8> {
    attribute(kind, &[text.as_bytes(), &[0]].concat())
}

/// `struct nlattr`, the value and padding.
fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let length = u16::try_from(4 + value.len()).expect("a message has a few hundred bytes");
    let mut bytes = Vec::with_capacity(value.len() + 8);
    bytes.extend(length.to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

const PREROUTING: &str = "prerouting";
const FORWARD: &str = "forward";
/// The index of `lo` in every network namespace.
const LOOPBACK: u32 = 1;

// linux/netlink.h
const ERROR: u16 = 2;
const REQUEST: u16 = 0x1;
const ACKNOWLEDGE: u16 = 0x4;
const CREATE: u16 = 0x400;
const APPEND: u16 = 0x800;
const NESTED: u16 = 0x8000;

// linux/netfilter/nfnetlink.h
const SUBSYSTEM: u16 = 10;
const BATCH_BEGIN: u16 = 16;
const BATCH_END: u16 = 17;
const UNSPECIFIED: u8 = 0;
const IPV6: u8 = 10;

// linux/netfilter.h
const HOOK_PREROUTING: u32 = 0;
const HOOK_FORWARD: u32 = 2;

// linux/netfilter/nf_tables.h
const NEW_TABLE: u16 = 0;
const NEW_CHAIN: u16 = 3;
const NEW_RULE: u16 = 6;
const TABLE_NAME: u16 = 1;
const TABLE_FLAGS: u16 = 2;
const TABLE_OWNED: u32 = 0x2;
const CHAIN_TABLE: u16 = 1;
const CHAIN_NAME: u16 = 3;
const CHAIN_HOOK: u16 = 4;
const CHAIN_TYPE: u16 = 7;
const HOOK_NUMBER: u16 = 1;
const HOOK_PRIORITY: u16 = 2;
const RULE_TABLE: u16 = 1;
const RULE_CHAIN: u16 = 2;
const RULE_EXPRESSIONS: u16 = 4;
const LIST_ELEMENT: u16 = 1;
const EXPRESSION_NAME: u16 = 1;
const EXPRESSION_DATA: u16 = 2;
const REGISTER: u32 = 1;
const META_DESTINATION: u16 = 1;
const META_KEY: u16 = 2;
const META_SOURCE: u16 = 3;
const META_MARK: u32 = 3;
const META_IIF: u32 = 4;
const CMP_REGISTER: u16 = 1;
const CMP_OPERATION: u16 = 2;
const CMP_DATA: u16 = 3;
const CMP_EQUAL: u32 = 0;
const DATA_VALUE: u16 = 1;
const BITWISE_SOURCE: u16 = 1;
const BITWISE_DESTINATION: u16 = 2;
const BITWISE_LENGTH: u16 = 3;
const BITWISE_MASK: u16 = 4;
const BITWISE_XOR: u16 = 5;
