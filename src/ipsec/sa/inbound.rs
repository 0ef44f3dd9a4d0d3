//! The half of a Child SA that opens.

use std::hint::black_box;
use std::net::SocketAddr;
use std::sync::Arc;

use super::last_flow::{FlowV4, FlowV6, Simple};
use super::{
    Allowance, Carried, EspPath, HeaderRules, Lifetime, Limits, SaUsage, Selectors, TransportEnds,
};
use crate::crypto::packet::{Associated, PacketKey};
use crate::ipsec::esp::{
    Framing, HEADER_LEN, NEXT_HEADER_DUMMY, NEXT_HEADER_IPV4, NEXT_HEADER_IPV6, read_trailer,
};
use crate::ipsec::{ChildId, DropReason, Mode, ReplayWindow, Reqid, Spi, WorkerId};
use crate::wire::ip::{self, Flow, IpPacket};

/// What an [`InboundSa`] is made of.
#[derive(Debug)]
pub struct InboundParams {
    /// The SPI that we chose.
    pub spi: Spi,
    /// The Child SA this is a half of.
    pub child: ChildId,
    /// The policies it serves.
    pub reqid: Reqid,
    /// The worker that opens.
    pub owner: WorkerId,
    /// Cipher and keys.
    pub key: PacketKey,
    /// Whether sequence numbers have 64 bits.
    pub esn: bool,
    /// Packets in the replay window: 0 = off, at most [`ReplayWindow::MAX`].
    pub replay_window: u32,
    /// Where packets are expected from.
    pub path: EspPath,
    /// What may be received.
    pub selectors: Arc<Selectors>,
    /// How the inner header is changed.
    pub rules: HeaderRules,
    /// How much may be received.
    pub limits: Limits,
    /// Where packets are counted.
    pub usage: Arc<SaUsage>,
}

/// The half of a Child SA that opens.
#[derive(Debug)]
#[repr(C)] // the order of the parts
pub struct InboundSa {
    hot: Hot,
    path: EspPath,
    spi: Spi,
    child: ChildId,
    reqid: Reqid,
    owner: WorkerId,
    lifetime: Lifetime,
    selectors: Arc<Selectors>,
    last_v6: FlowV6,
    /// In transport mode.
    ends: Option<TransportEnds>,
}

/// What a packet needs, if it is of the same IPv4 flow as the one before: two cache lines, which no
/// other SA shares.
#[derive(Debug)]
#[repr(align(128))]
struct Hot {
    key: PacketKey,
    window: ReplayWindow,
    usage: Arc<SaUsage>,
    allowance: Allowance,
    last_v4: FlowV4,
    framing: Framing,
    rules: HeaderRules,
    esn: bool,
    mode: Mode,
}

/// A packet that came out of the tunnel.
#[derive(Debug, PartialEq, Eq)]
pub struct Opened<'a> {
    /// The inner packet, exactly as long as its header says.
    pub inner: &'a mut [u8],
    /// True once in the life of an SA: time to rekey.
    pub soft_limit_crossed: bool,
    /// No packet with a higher number has arrived: what its outer header says is the latest news.
    pub newest: bool,
    /// An ICMP error about a flow that this SA does not carry. Whether another SA carries it to the
    /// same peer, which may send the error on this one, is for the caller to judge.
    pub foreign_quote: Option<Flow>,
}

/// An inner packet that the SA may carry.
struct Inner<'a> {
    bytes: &'a mut [u8],
    foreign_quote: Option<Flow>,
}

/// What is known of a packet that the selectors cover.
struct Admitted {
    total_len: usize,
    tos: u8,
    foreign_quote: Option<Flow>,
}

impl<F> From<Simple<F>> for Admitted {
    #[inline]
    fn from(simple: Simple<F>) -> Self {
        Self {
            total_len: simple.total_len,
            tos: simple.tos,
            foreign_quote: None,
        }
    }
}

impl InboundSa {
    /// An SA that has received nothing yet.
    #[must_use]
    pub fn new(params: InboundParams) -> Self {
        let hot = Hot {
            framing: Framing::new(&params.key),
            key: params.key,
            window: ReplayWindow::new(params.replay_window, params.esn),
            usage: params.usage,
            allowance: Allowance::default(),
            last_v4: FlowV4::default(),
            rules: params.rules,
            esn: params.esn,
            mode: Mode::Tunnel,
        };
        Self {
            hot,
            path: params.path,
            spi: params.spi,
            child: params.child,
            reqid: params.reqid,
            owner: params.owner,
            lifetime: Lifetime::new(params.limits),
            selectors: params.selectors,
            last_v6: FlowV6::default(),
            ends: None,
        }
    }

    /// Reads the lines that the next packet needs, but those of the cipher. Done for several SAs in a
    /// row, their lines come from memory at the same time.
    #[inline]
    pub(in crate::ipsec) fn touch(&self) {
        self.hot.window.touch(self.hot.window.top());
        black_box((self.hot.usage.so_far(), self.path.encap, self.child));
    }

    /// Makes it open what packets between the two gateways carry (RFC 4303 §3.1.1).
    pub fn set_transport(&mut self, ends: TransportEnds) {
        self.hot.mode = Mode::Transport;
        self.ends = Some(ends);
    }

    /// Opens one ESP packet, SPI to ICV, in place.
    ///
    /// The window moves and the packet is counted as soon as it is known to be authentic, whatever
    /// is found inside. A packet that is not authentic changes nothing but its own bytes.
    ///
    /// # Errors
    /// Why the packet is dropped. [`DropReason::DummyPacket`] is no fault.
    pub fn open<'a>(&mut self, esp: &'a mut [u8], outer_tos: u8) -> Result<Opened<'a>, DropReason> {
        if self.hot.mode == Mode::Transport {
            return self.open_apart(esp, outer_tos, &mut <&mut [u8]>::default());
        }
        self.check(esp)?;
        let so_far = self.hot.usage.so_far();
        let (text, newest) = self.hot.open(esp)?;
        let trailer = read_trailer(text);
        if let Ok((payload_len, NEXT_HEADER_IPV4)) = trailer
            && let Some(simple) = text.get(..payload_len).and_then(FlowV4::of)
            && simple.flow == self.hot.last_v4
            && let Ok(tos) = self.hot.rules.inner_tos(simple.tos, outer_tos)
        {
            let inner = text.get_mut(..simple.total_len);
            let inner = inner.ok_or(DropReason::InnerMalformed)?;
            if tos != simple.tos {
                ip::set_tos(inner, tos);
            }
            return Ok(Opened {
                soft_limit_crossed: !self.hot.record(so_far, inner.len()) && self.settle(true),
                inner,
                newest,
                foreign_quote: None,
            });
        }
        self.open_other(text, trailer, outer_tos, newest, so_far)
    }

    /// Whether its inner packets do not fit where they arrived: [`Self::open_apart`] is for them.
    #[inline]
    #[must_use]
    pub fn needs_room(&self) -> bool {
        self.hot.mode == Mode::Transport && self.ends.is_some_and(|ends| ends.is_ipv6())
    }

    /// What can be said of a packet before it is opened.
    #[inline]
    fn check(&mut self, esp: &[u8]) -> Result<(), DropReason> {
        self.hot.framing.check_len(esp.len())?;
        if !self.hot.allowance.is_open() && !self.lifetime.admits(&self.hot.usage, 0) {
            return Err(DropReason::LifetimeExpired);
        }
        Ok(())
    }

    /// The rest of [`Self::open`] for a packet that is not like the one before.
    #[inline(never)]
    fn open_other<'a>(
        &mut self,
        text: &'a mut [u8],
        trailer: Result<(usize, u8), DropReason>,
        outer_tos: u8,
        newest: bool,
        so_far: Carried,
    ) -> Result<Opened<'a>, DropReason> {
        let text_len = text.len();
        let inner = trailer.and_then(|(payload_len, next_header)| {
            let payload = text.get_mut(..payload_len).ok_or(DropReason::BadPadding)?;
            self.unwrap_tunnel(payload, next_header, outer_tos)
        });
        let len = inner.as_ref().map_or(text_len, |inner| inner.bytes.len());
        let routine = self.hot.record(so_far, len);
        let soft_limit_crossed = !routine && self.settle(inner.is_ok());
        let inner = inner?;
        Ok(Opened {
            inner: inner.bytes,
            soft_limit_crossed,
            newest,
            foreign_quote: inner.foreign_quote,
        })
    }

    /// [`Self::open`] in transport mode. An inner packet that does not fit where it arrived is taken from
    /// the front of `room`; twice the length of `esp` is always enough.
    ///
    /// # Errors
    /// Those of [`Self::open`]; [`DropReason::InnerMalformed`] if there is too little room.
    #[inline(never)]
    pub fn open_apart<'a>(
        &mut self,
        esp: &'a mut [u8],
        outer_tos: u8,
        room: &mut &'a mut [u8],
    ) -> Result<Opened<'a>, DropReason> {
        self.check(esp)?;
        let (text, newest) = self.hot.open(esp)?;
        let (text_len, trailer) = (text.len(), read_trailer(text));
        let len = trailer.map_or(text_len, |(payload_len, _)| payload_len);
        let routine = self.hot.record(self.hot.usage.so_far(), len);
        let start = self.hot.framing.text_offset();
        let inner = trailer.and_then(|(payload_len, next_header)| {
            if next_header == NEXT_HEADER_DUMMY {
                return Err(DropReason::DummyPacket);
            }
            let ends = self.ends.ok_or(DropReason::BadNextHeader)?;
            let about = (next_header, outer_tos);
            let packet = ends.rebuild(esp, (start, payload_len), about, room)?;
            let foreign_quote = self.admit(packet)?.foreign_quote;
            Ok(Inner {
                bytes: packet,
                foreign_quote,
            })
        });
        let soft_limit_crossed = !routine && self.settle(inner.is_ok());
        let inner = inner?;
        Ok(Opened {
            inner: inner.bytes,
            soft_limit_crossed,
            newest,
            foreign_quote: inner.foreign_quote,
        })
    }

    /// Sees to the limits after a packet, and says how many may pass until the next time.
    #[cold]
    fn settle(&mut self, may_report: bool) -> bool {
        let crossed = may_report && self.lifetime.take_soft(&self.hot.usage, false);
        self.hot.allowance = self.lifetime.allowance(&self.hot.usage, u64::MAX);
        crossed
    }

    /// From an authentic payload to the inner packet (RFC 4303 §3.4.4.1, RFC 4301 §5.2).
    fn unwrap_tunnel<'a>(
        &mut self,
        payload: &'a mut [u8],
        next_header: u8,
        outer_tos: u8,
    ) -> Result<Inner<'a>, DropReason> {
        let version = match next_header {
            NEXT_HEADER_IPV4 => 4,
            NEXT_HEADER_IPV6 => 6,
            NEXT_HEADER_DUMMY => return Err(DropReason::DummyPacket),
            _ => return Err(DropReason::BadNextHeader),
        };
        if payload.first().is_some_and(|first| first >> 4 != version) {
            return Err(DropReason::BadNextHeader);
        }
        let Admitted {
            total_len,
            tos: inner_tos,
            foreign_quote,
        } = self.admit(payload)?;
        let tos = self
            .hot
            .rules
            .inner_tos(inner_tos, outer_tos)
            .map_err(|_| DropReason::EcnIllegal)?;
        let inner = payload
            .get_mut(..total_len)
            .ok_or(DropReason::InnerMalformed)?; // the rest is TFC padding
        if tos != inner_tos {
            ip::set_tos(inner, tos);
        }
        Ok(Inner {
            bytes: inner,
            foreign_quote,
        })
    }

    /// Checks the selectors, unless the packet is of the same flow as the one before.
    fn admit(&mut self, payload: &[u8]) -> Result<Admitted, DropReason> {
        if let Some(simple) = FlowV4::of(payload) {
            if simple.flow != self.hot.last_v4 {
                self.admit_new(payload)?;
                self.hot.last_v4 = simple.flow;
            }
            return Ok(Admitted::from(simple));
        }
        if let Some(simple) = FlowV6::of(payload) {
            if simple.flow != self.last_v6 {
                self.admit_new(payload)?;
                self.last_v6 = simple.flow;
            }
            return Ok(Admitted::from(simple));
        }
        self.admit_new(payload)
    }

    /// Checks the selectors. An ICMP error is admitted by the packet that it quotes, whoever reports
    /// it (RFC 4301 §6.2); the flow of a quote that does not fit is returned if the header fits.
    fn admit_new(&self, payload: &[u8]) -> Result<Admitted, DropReason> {
        let packet = IpPacket::parse(payload).map_err(|_| DropReason::InnerMalformed)?;
        let header_fits = self.selectors.admits_inbound(&packet.flow());
        let foreign_quote = match ip::quoted_flow(&packet) {
            None if header_fits => None,
            Some(Ok(quoted)) if self.selectors.admits_outbound(&quoted) => None,
            Some(Ok(quoted)) if header_fits => Some(quoted),
            _ => return Err(DropReason::SelectorMismatch),
        };
        Ok(Admitted {
            total_len: packet.total_len(),
            tos: packet.tos(),
            foreign_quote,
        })
    }

    /// Whether an opened packet's source is news, and remembers it if so.
    ///
    /// Only for a packet that is [`Opened::newest`]: a late one must not move the peer back
    /// (RFC 7296 §2.23).
    pub fn peer_moved(&mut self, remote: SocketAddr) -> bool {
        let moved = self.path.remote != remote;
        self.path.remote = remote;
        moved
    }

    /// Where packets were last seen to come from.
    #[must_use]
    pub fn path(&self) -> &EspPath {
        &self.path
    }

    /// True once, after a packet was refused for a hard limit.
    pub fn take_hard_limit(&mut self) -> bool {
        self.lifetime.take_hard()
    }

    /// Goes on after `sequence`: for an SA that was moved here with its state.
    pub fn resume_after(&mut self, sequence: u64) {
        self.hot.window.resume_after(sequence);
    }

    /// Which numbers were received.
    #[must_use]
    pub fn window(&self) -> &ReplayWindow {
        &self.hot.window
    }

    /// The SPI that we chose.
    #[must_use]
    pub fn spi(&self) -> Spi {
        self.spi
    }

    /// The Child SA this is a half of.
    #[must_use]
    pub fn child(&self) -> ChildId {
        self.child
    }

    /// The policies it serves.
    #[must_use]
    pub fn reqid(&self) -> Reqid {
        self.reqid
    }

    /// The worker that opens.
    #[must_use]
    pub fn owner(&self) -> WorkerId {
        self.owner
    }

    /// What may be received.
    #[must_use]
    pub fn selectors(&self) -> &Arc<Selectors> {
        &self.selectors
    }

    /// Where packets are counted.
    #[must_use]
    pub fn usage(&self) -> &Arc<SaUsage> {
        &self.hot.usage
    }
}

impl Hot {
    /// Counts a packet; false if a limit has to be looked at.
    #[inline]
    fn record(&mut self, so_far: Carried, len: usize) -> bool {
        self.usage.record(so_far, len);
        self.allowance.take(len)
    }

    /// Checks number and ICV; returns the text, and whether the number is the highest so far.
    #[inline]
    fn open<'a>(&mut self, esp: &'a mut [u8]) -> Result<(&'a mut [u8], bool), DropReason> {
        let (header, body) = esp
            .split_first_chunk_mut::<HEADER_LEN>()
            .ok_or(DropReason::EspMalformed)?;
        let [.., a, b, c, d] = *header;
        let (key, esn) = (&self.key, self.esn);
        self.window
            .receive(u32::from_be_bytes([a, b, c, d]), |fresh| {
                let associated = Associated {
                    header: header.as_slice(),
                    esn_high: esn.then_some(fresh.high()),
                };
                key.open(associated, body)
                    .map_err(|_| DropReason::IntegrityFailed)
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::mem::{offset_of, size_of};

    #[test]
    fn what_a_packet_needs_is_in_the_first_two_cache_lines() {
        assert_eq!((offset_of!(InboundSa, hot), size_of::<Hot>()), (0, 128));
        assert_eq!(align_of::<InboundSa>(), 128);
    }
}
