//! IKE message fragmentation (RFC 7383): one message as several datagrams.
//!
//! Only what is inside the SK payload is cut, and it is put together before anybody looks at it. So
//! what covers a message as a whole, such as IntAuth (RFC 9242 §3.3.2), is computed over the payloads
//! before [`super::protect::SaKeys::seal`] and after [`super::protect::SaKeys::open`], and is the same
//! for a message that was cut.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use zeroize::Zeroizing;

use crate::ike::pad::Fragmentation;
use crate::ike::{Discard, Path, Settings};
use crate::wire::ikev2::{FragmentHeader, NotifyType, PayloadWriter};
use crate::wire::isakmp::{ExchangeType, Header, PayloadType};

use super::message::{Datagram, Payloads, add_notify};

/// A message as it goes onto the wire: one datagram, or all of its fragments in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::ike) struct Outgoing(Vec<Vec<u8>>);

impl Outgoing {
    pub(super) fn new(datagrams: Vec<Vec<u8>>) -> Self {
        Self(datagrams)
    }

    pub(in crate::ike) fn datagrams(&self) -> &[Vec<u8>] {
        &self.0
    }
}

impl From<Vec<u8>> for Outgoing {
    fn from(datagram: Vec<u8>) -> Self {
        Self(vec![datagram])
    }
}

/// What IKE_SA_INIT has settled about fragments; by default there are none.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::ike) struct FragmentRules {
    /// The peer may send fragments.
    accept: bool,
    /// Ours are IP datagrams of at most so many bytes; zero: we send none.
    size: u16,
}

impl FragmentRules {
    /// Both sides have to announce it (RFC 7383 §2.3).
    pub(super) fn negotiate(
        ours: Fragmentation,
        payloads: &Payloads<'_>,
        settings: &Settings,
    ) -> Self {
        let theirs = payloads.notify(NotifyType::IKEV2_FRAGMENTATION_SUPPORTED);
        let accept = ours != Fragmentation::No && theirs.is_some();
        let sends = accept && ours == Fragmentation::Yes;
        Self {
            accept,
            size: if sends { settings.fragment_size } else { 0 },
        }
    }

    /// Both sides have announced it.
    pub(super) fn is_negotiated(self) -> bool {
        self.accept
    }

    /// The longest IKE message that goes out in one piece on this path.
    pub(super) fn longest(self, path: Path) -> Option<usize> {
        let headers = match path.remote {
            SocketAddr::V4(_) => IPV4_UDP_MARKER,
            SocketAddr::V6(_) => IPV6_UDP_MARKER,
        };
        (self.size > 0).then(|| usize::from(self.size).saturating_sub(headers).max(SHORTEST))
    }
}

/// Announces that we take fragments.
pub(super) fn announce(payloads: &mut PayloadWriter) {
    add_notify(payloads, NotifyType::IKEV2_FRAGMENTATION_SUPPORTED, &[]);
}

/// The fragments of messages that are not complete: at most one request and one response.
#[derive(Debug, Default)]
pub(super) struct Reassembly {
    request: Option<Box<Partial>>,
    response: Option<Box<Partial>>,
}

/// A message that has arrived in part. Every piece has passed its integrity check.
#[derive(Debug)]
struct Partial {
    exchange: ExchangeType,
    message_id: u32,
    total: u16,
    pieces: Vec<Option<Zeroizing<Vec<u8>>>>,
    /// Type of the first payload, once fragment 1 is there.
    first: PayloadType,
    /// Fragment 1 as it was received, which tells a repetition of the message.
    datagram: Box<[u8]>,
    len: usize,
    until: Instant,
}

/// A message whose fragments have all arrived.
pub(super) struct Reassembled {
    pub(super) first: PayloadType,
    pub(super) text: Zeroizing<Vec<u8>>,
    pub(super) datagram: Box<[u8]>,
}

impl Reassembly {
    /// Whether a fragment is worth its integrity check (RFC 7383 §2.6).
    pub(super) fn check(
        &mut self,
        datagram: &Datagram<'_>,
        fragment: FragmentHeader,
        now: Instant,
    ) -> Result<(), Discard> {
        self.expire(now);
        if fragment.total > MOST_FRAGMENTS {
            return Err(Discard::FragmentLimit);
        }
        let Some(partial) = self.slot(datagram).as_deref() else {
            return Ok(());
        };
        let header = &datagram.header;
        let same = partial.message_id == header.message_id && partial.exchange == header.exchange;
        if !same || fragment.total > partial.total {
            return Ok(());
        }
        let piece = partial.pieces.get(usize::from(fragment.number) - 1);
        if fragment.total < partial.total || piece.is_some_and(Option::is_some) {
            return Err(Discard::StaleFragment);
        }
        Ok(())
    }

    /// Keeps an authentic fragment; the whole message if it was the last one that was missing.
    pub(super) fn add(
        &mut self,
        datagram: &Datagram<'_>,
        fragment: FragmentHeader,
        (first, text): (PayloadType, Zeroizing<Vec<u8>>),
        now: Instant,
    ) -> Result<Option<Reassembled>, Discard> {
        let header = &datagram.header;
        let slot = self.slot(datagram);
        // Another message, or the same one cut into smaller pieces, starts over.
        slot.take_if(|partial| {
            partial.message_id != header.message_id
                || partial.exchange != header.exchange
                || partial.total != fragment.total
        });
        let held = self.held();
        if held + text.len() > MOST_HELD {
            return Err(Discard::FragmentLimit);
        }
        let slot = self.slot(datagram);
        let partial = slot.get_or_insert_with(|| Box::new(Partial::new(header, fragment, now)));
        partial.len += text.len();
        if let Some(piece) = partial.pieces.get_mut(usize::from(fragment.number) - 1) {
            *piece = Some(text);
        }
        if fragment.number == 1 {
            partial.first = first;
            partial.datagram = datagram.bytes.into();
        }
        if partial.pieces.iter().any(Option::is_none) {
            return Ok(None);
        }
        Ok(slot.take().map(|partial| partial.complete()))
    }

    /// Bytes of payloads that wait for the rest of their messages.
    pub(super) fn held(&self) -> usize {
        let partials = [&self.request, &self.response].into_iter().flatten();
        partials.map(|partial| partial.len).sum()
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        let partials = [&self.request, &self.response].into_iter().flatten();
        partials.map(|partial| partial.until).min()
    }

    /// Forgets what did not become complete in time.
    pub(super) fn expire(&mut self, now: Instant) {
        for slot in [&mut self.request, &mut self.response] {
            slot.take_if(|partial| partial.until <= now);
        }
    }

    fn slot(&mut self, datagram: &Datagram<'_>) -> &mut Option<Box<Partial>> {
        if datagram.header.flags.response() {
            &mut self.response
        } else {
            &mut self.request
        }
    }
}

impl Partial {
    fn new(header: &Header, fragment: FragmentHeader, now: Instant) -> Self {
        Self {
            exchange: header.exchange,
            message_id: header.message_id,
            total: fragment.total,
            pieces: vec![None; usize::from(fragment.total)],
            first: PayloadType::NONE,
            datagram: Box::default(),
            len: 0,
            until: now + REASSEMBLY_TIME,
        }
    }

    fn complete(self) -> Reassembled {
        let mut text = Zeroizing::new(Vec::with_capacity(self.len));
        for piece in self.pieces.iter().flatten() {
            text.extend_from_slice(piece);
        }
        Reassembled {
            first: self.first,
            text,
            datagram: self.datagram,
        }
    }
}

/// IP and UDP headers without options, and the non-ESP marker.
const IPV4_UDP_MARKER: usize = 20 + 8 + 4;
const IPV6_UDP_MARKER: usize = 40 + 8 + 4;
/// Leaves room for payload in a fragment under every suite.
const SHORTEST: usize = 256;
/// Of one message. An honest one of 64 KiB has as many of the default size.
const MOST_FRAGMENTS: u16 = 64;
/// On one IKE SA.
const MOST_HELD: usize = 64 * 1024;
/// How long the rest of a message may take.
const REASSEMBLY_TIME: Duration = Duration::from_secs(10);
