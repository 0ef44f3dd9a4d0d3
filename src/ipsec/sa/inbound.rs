//! The half of a Child SA that opens.

use std::net::SocketAddr;
use std::sync::Arc;

use super::{EspPath, HeaderRules, Lifetime, Limits, SaUsage, Selectors};
use crate::crypto::packet::{Associated, PacketKey};
use crate::ipsec::esp::{
    Framing, HEADER_LEN, NEXT_HEADER_DUMMY, NEXT_HEADER_IPV4, NEXT_HEADER_IPV6, strip_trailer,
};
use crate::ipsec::{ChildId, DropReason, ReplayWindow, Reqid, Spi, WorkerId};
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
pub struct InboundSa {
    spi: Spi,
    esn: bool,
    rules: HeaderRules,
    framing: Framing,
    window: ReplayWindow,
    key: PacketKey,
    lifetime: Lifetime,
    usage: Arc<SaUsage>,
    selectors: Arc<Selectors>,
    path: EspPath,
    child: ChildId,
    reqid: Reqid,
    owner: WorkerId,
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

impl InboundSa {
    /// An SA that has received nothing yet.
    #[must_use]
    pub fn new(params: InboundParams) -> Self {
        let framing = Framing::new(&params.key);
        Self {
            spi: params.spi,
            esn: params.esn,
            rules: params.rules,
            framing,
            window: ReplayWindow::new(params.replay_window, params.esn),
            key: params.key,
            lifetime: Lifetime::new(params.limits),
            usage: params.usage,
            selectors: params.selectors,
            path: params.path,
            child: params.child,
            reqid: params.reqid,
            owner: params.owner,
        }
    }

    /// Opens one ESP packet, SPI to ICV, in place.
    ///
    /// The window moves and the packet is counted as soon as it is known to be authentic, whatever
    /// is found inside. A packet that is not authentic changes nothing but its own bytes.
    ///
    /// # Errors
    /// Why the packet is dropped. [`DropReason::DummyPacket`] is no fault.
    pub fn open<'a>(&mut self, esp: &'a mut [u8], outer_tos: u8) -> Result<Opened<'a>, DropReason> {
        self.framing.check_len(esp.len())?;
        if !self.lifetime.admits(&self.usage, 0) {
            return Err(DropReason::LifetimeExpired);
        }
        let (header, body) = esp
            .split_first_chunk_mut::<HEADER_LEN>()
            .ok_or(DropReason::EspMalformed)?;
        let [.., a, b, c, d] = *header;
        let fresh = self.window.check(u32::from_be_bytes([a, b, c, d]))?; // cheap, so before the cipher

        let esn_high = self.esn.then_some(fresh.high());
        let associated = Associated {
            header: header.as_slice(),
            esn_high,
        };
        let text = self
            .key
            .open(associated, body)
            .map_err(|_| DropReason::IntegrityFailed)?;
        let newest = fresh.sequence() > self.window.top();
        self.window.accept(fresh)?;

        let text_len = text.len();
        let inner = self.unwrap_tunnel(text, outer_tos);
        self.usage
            .record(inner.as_ref().map_or(text_len, |inner| inner.bytes.len()));
        let soft_limit_crossed = inner.is_ok() && self.lifetime.take_soft(&self.usage, false);
        let inner = inner?;
        Ok(Opened {
            inner: inner.bytes,
            soft_limit_crossed,
            newest,
            foreign_quote: inner.foreign_quote,
        })
    }

    /// From an authentic text to the inner packet (RFC 4303 §3.4.4.1, RFC 4301 §5.2).
    fn unwrap_tunnel<'a>(
        &self,
        text: &'a mut [u8],
        outer_tos: u8,
    ) -> Result<Inner<'a>, DropReason> {
        let (payload, next_header) = strip_trailer(text)?;
        let version = match next_header {
            NEXT_HEADER_IPV4 => 4,
            NEXT_HEADER_IPV6 => 6,
            NEXT_HEADER_DUMMY => return Err(DropReason::DummyPacket),
            _ => return Err(DropReason::BadNextHeader),
        };
        if payload.first().is_some_and(|first| first >> 4 != version) {
            return Err(DropReason::BadNextHeader);
        }

        let packet = IpPacket::parse(payload).map_err(|_| DropReason::InnerMalformed)?;
        let foreign_quote = self.admit(&packet)?;
        let (inner_tos, total_len) = (packet.tos(), packet.total_len());
        let tos = self
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

    /// Checks the selectors. An ICMP error is admitted by the packet that it quotes, whoever reports
    /// it (RFC 4301 §6.2); the flow of a quote that does not fit is returned if the header fits.
    fn admit(&self, packet: &IpPacket<'_>) -> Result<Option<Flow>, DropReason> {
        let header_fits = self.selectors.admits_inbound(&packet.flow());
        match ip::quoted_flow(packet) {
            None if header_fits => Ok(None),
            Some(Ok(quoted)) if self.selectors.admits_outbound(&quoted) => Ok(None),
            Some(Ok(quoted)) if header_fits => Ok(Some(quoted)),
            _ => Err(DropReason::SelectorMismatch),
        }
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
        self.window.resume_after(sequence);
    }

    /// Which numbers were received.
    #[must_use]
    pub fn window(&self) -> &ReplayWindow {
        &self.window
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
        &self.usage
    }
}
