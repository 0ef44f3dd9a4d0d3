//! From a socket to the TUN (RFC 4301 §5.2).
//!
//! What the kernel received as a train is one run of datagrams of equal length. Each has its own SPI,
//! but neighbours mostly have the same, so an SA is looked up once for such a run.

use std::net::{IpAddr, SocketAddr};

use super::{Carrier, Pipeline, Stop, Verdict};
use crate::dataplane::hand_off::Origin;
use crate::dataplane::mss;
use crate::io::burst::Received;
use crate::ipsec::{DropReason, EspEncap, OutboundEntry, Reqid, SaEvent, Spi, WorkerId};
use crate::wire::esp::{Demux, EspHeader, NON_ESP_MARKER, demux_udp_encap};
use crate::wire::ip::{self, Flow};

/// What the datagrams of a train have in common.
#[derive(Clone, Copy, Debug)]
struct Outer {
    carrier: Carrier,
    remote: SocketAddr,
    local: IpAddr,
    tos: u8,
    /// Length of each datagram but the last.
    size: usize,
}

/// An opened packet that has to be looked at closer, which needs the rest of the pipeline.
struct Special<'a> {
    inner: &'a mut [u8],
    peer: IpAddr,
    reqid: Reqid,
    foreign_quote: Option<Flow>,
}

impl Pipeline {
    /// Takes one received datagram to the inner packet that is to be written to the TUN, if there is
    /// one. It lies inside `received`, which was decrypted in place. Not for transport mode over IPv6.
    pub fn inbound<'a>(
        &mut self,
        carrier: Carrier,
        received: Received<'a>,
    ) -> Option<&'a mut [u8]> {
        let mut opened = None;
        let single = Received {
            segment_size: None,
            ..received
        };
        let mut room: &'a mut [u8] = &mut [];
        self.inbound_train(carrier, single, &mut room, |inner| opened = Some(inner));
        opened
    }

    /// Takes what was received as one train through the tunnel. `deliver` gets each inner packet that
    /// is to be written to the TUN, in order. Those of transport mode over IPv6 take the front of `room`, at
    /// most twice the length of the train.
    pub fn inbound_train<'a>(
        &mut self,
        carrier: Carrier,
        received: Received<'a>,
        room: &mut &'a mut [u8],
        mut deliver: impl FnMut(&'a mut [u8]),
    ) {
        self.open_train(carrier, received, room, MayGive::Yes, &mut deliver);
    }

    pub(super) fn open_train<'a>(
        &mut self,
        carrier: Carrier,
        received: Received<'a>,
        room: &mut &'a mut [u8],
        may_give: MayGive,
        deliver: &mut impl FnMut(&'a mut [u8]),
    ) {
        let Received {
            bytes,
            remote,
            local,
            tos,
            segment_size,
        } = received;
        let outer = Outer {
            carrier,
            remote,
            local,
            tos,
            size: segment_size.map_or(bytes.len(), usize::from).max(1),
        };
        self.sad.look_ahead(bytes.chunks(outer.size).skip(1));
        let mut rest = bytes;
        loop {
            let first = rest.get(..outer.size).unwrap_or(rest);
            rest = match self.find_inbound(carrier, first) {
                Ok(spi) => self.open_run(spi, &outer, rest, room, deliver),
                Err(Stop::Elsewhere(owner)) => self.pass_on(owner, &outer, rest, may_give),
                Err(stop) => {
                    self.stop_inbound(stop, &outer, first);
                    split(rest, outer.size).1
                }
            };
            if rest.is_empty() {
                return;
            }
        }
    }

    /// To be told of datagrams that come next, before the first of them: see [`Sad::look_ahead`].
    ///
    /// [`Sad::look_ahead`]: crate::ipsec::Sad::look_ahead
    pub fn look_ahead<'a>(&self, datagrams: impl Iterator<Item = &'a [u8]>) {
        self.sad.look_ahead(datagrams);
    }

    fn stop_inbound(&mut self, stop: Stop, outer: &Outer, datagram: &[u8]) {
        match stop {
            Stop::Punt => self.punt(outer, datagram),
            Stop::Drop(reason) => self.stats.dropped(reason),
            Stop::Elsewhere(_) | Stop::Wait(_) | Stop::Reply(_) => {}
        }
    }

    /// The SPI of a packet that one of this worker's SAs opens.
    fn find_inbound(&mut self, carrier: Carrier, bytes: &[u8]) -> Result<u32, Stop> {
        if let Carrier::Udp { .. } = carrier {
            match demux_udp_encap(bytes).map_err(|_| DropReason::OuterMalformed)? {
                Demux::Esp => {}
                Demux::Ike => return Err(Stop::Punt),
                Demux::Keepalive => return Err(DropReason::Keepalive.into()),
            }
        }
        let header = EspHeader::parse(bytes).map_err(|_| DropReason::EspMalformed)?;
        if self.sad.inbound_mut(header.spi).is_some() {
            return Ok(header.spi);
        }
        let spi = Spi::new(header.spi).ok_or(DropReason::UnknownSpi)?;
        match spi.worker(self.workers) {
            owner if owner == self.worker => Err(DropReason::UnknownSpi.into()),
            owner => Err(Stop::Elsewhere(owner)),
        }
    }

    /// Opens the datagrams from the first on that have this SPI; returns what follows them.
    fn open_run<'a>(
        &mut self,
        spi: u32,
        outer: &Outer,
        mut rest: &'a mut [u8],
        room: &mut &'a mut [u8],
        deliver: &mut impl FnMut(&'a mut [u8]),
    ) -> &'a mut [u8] {
        loop {
            let special;
            (special, rest) = self.open_plain(spi, outer, rest, room, deliver);
            let Some(special) = special else {
                return rest;
            };
            if let Some(inner) = self.judge(special) {
                self.stats.packets_in.add(1);
                self.stats.bytes_in.add_len(inner.len());
                deliver(inner);
            }
            if !has_spi(rest, spi) {
                return rest;
            }
        }
    }

    /// Opens datagrams up to and including the first special one.
    fn open_plain<'a>(
        &mut self,
        spi: u32,
        outer: &Outer,
        mut rest: &'a mut [u8],
        room: &mut &'a mut [u8],
        deliver: &mut impl FnMut(&'a mut [u8]),
    ) -> (Option<Special<'a>>, &'a mut [u8]) {
        let Some(sa) = self.sad.inbound_mut(spi) else {
            self.stats.dropped(DropReason::UnknownSpi);
            return (None, split(rest, outer.size).1);
        };
        let (child, reqid, peer) = (sa.child(), sa.reqid(), sa.path().remote.ip());
        let encapsulated = matches!(outer.carrier, Carrier::Udp { .. });
        let may_move = encapsulated && sa.path().encap == EspEncap::Udp;
        let needs_room = sa.needs_room();
        let (mut packets, mut bytes) = (0, 0);
        let mut special = None;
        loop {
            let (datagram, behind) = split(rest, outer.size);
            rest = behind;
            let opened = if needs_room {
                sa.open_apart(datagram, outer.tos, room)
            } else {
                sa.open(datagram, outer.tos)
            };
            match opened {
                Ok(opened) => {
                    if opened.soft_limit_crossed {
                        self.events.send(SaEvent::SoftLifetime { child });
                    }
                    if may_move
                        && opened.newest
                        && self.events.has_room() // what is not told now is news again with the next packet
                        && sa.peer_moved(outer.remote)
                    {
                        let (spi, remote) = (sa.spi(), outer.remote);
                        self.events.send(SaEvent::PeerMoved { child, spi, remote });
                    }
                    if opened.foreign_quote.is_some() || mss::may_be_syn(opened.inner) {
                        special = Some(Special {
                            inner: opened.inner,
                            peer,
                            reqid,
                            foreign_quote: opened.foreign_quote,
                        });
                        break;
                    }
                    packets += 1;
                    bytes += opened.inner.len();
                    deliver(opened.inner);
                }
                Err(reason) => {
                    self.stats.dropped(reason);
                    if sa.take_hard_limit() {
                        self.events.send(SaEvent::HardLifetime { child });
                    }
                }
            }
            if !has_spi(rest, spi) {
                break;
            }
        }
        self.stats.packets_in.add(packets);
        self.stats.bytes_in.add_len(bytes);
        (special, rest)
    }

    /// What is to be delivered of a special packet.
    fn judge<'a>(&mut self, special: Special<'a>) -> Option<&'a mut [u8]> {
        let Special {
            inner,
            peer,
            reqid,
            foreign_quote,
        } = special;
        if let Some(quoted) = foreign_quote
            && !self.is_sent_to(peer, &quoted)
        {
            self.stats.dropped(DropReason::SelectorMismatch);
            return None;
        }
        self.clamp_inbound(reqid, inner);
        Some(inner)
    }

    /// Whether we send such packets to this peer. Of another worker's SA only the owner knows the peer.
    fn is_sent_to(&mut self, peer: IpAddr, flow: &Flow) -> bool {
        let Verdict::Protect(template) = self.verdict(flow) else {
            return false;
        };
        match self.sad.outbound(template.reqid, flow) {
            OutboundEntry::Owned(sa) => sa.path().remote.ip() == peer,
            OutboundEntry::Elsewhere { .. } => true,
            OutboundEntry::None => false,
        }
    }

    /// Lowers the MSS of a SYN that came out of the tunnel, so that answers fit into it.
    fn clamp_inbound(&mut self, reqid: Reqid, inner: &mut [u8]) {
        let Some(answer) = mss::answer_to_syn(inner) else {
            return;
        };
        if let OutboundEntry::Owned(sa) = self.sad.outbound(reqid, &answer) {
            self.path_mtus.tell(sa);
            ip::clamp_mss(inner, sa.inner_mtu());
        }
    }

    /// Gives the datagrams from the first on that another worker owns to it, as one train; returns what
    /// follows them.
    fn pass_on<'a>(
        &mut self,
        owner: WorkerId,
        outer: &Outer,
        rest: &'a mut [u8],
        may_give: MayGive,
    ) -> &'a mut [u8] {
        let workers = self.workers;
        let is_same = |datagram: &&[u8]| {
            let spi = EspHeader::parse(datagram)
                .ok()
                .and_then(|header| Spi::new(header.spi));
            spi.is_some_and(|spi| spi.worker(workers) == owner)
        };
        let packets = rest.chunks(outer.size).take_while(is_same).count().max(1);
        let (train, behind) = split(rest, packets.saturating_mul(outer.size));
        match may_give {
            MayGive::Yes => {
                let origin = Origin::Network {
                    carrier: outer.carrier,
                    remote: outer.remote,
                    local: outer.local,
                    tos: outer.tos,
                    size: outer.size,
                };
                self.give(owner, train, origin, packets);
            }
            MayGive::No => {
                let lost = u32::try_from(packets).unwrap_or(u32::MAX);
                self.stats.dropped_many(DropReason::UnknownSpi, lost);
            }
        }
        behind
    }

    fn punt(&mut self, outer: &Outer, bytes: &[u8]) {
        let Carrier::Udp { port } = outer.carrier else {
            return;
        };
        let message = bytes.get(NON_ESP_MARKER.len()..).unwrap_or_default();
        let punted = self.events.punt(|| SaEvent::Punted {
            local: SocketAddr::new(outer.local, port),
            remote: outer.remote,
            bytes: Box::from(message),
        });
        if !punted {
            self.stats.dropped(DropReason::PuntQueueFull);
        }
    }
}

/// Whether a datagram may be given to another worker: not if it was given to this one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum MayGive {
    Yes,
    No,
}

/// The first datagram of a train, and the others.
fn split(train: &mut [u8], size: usize) -> (&mut [u8], &mut [u8]) {
    let end = size.min(train.len());
    train.split_at_mut(end)
}

fn has_spi(datagram: &[u8], spi: u32) -> bool {
    datagram.first_chunk() == Some(&spi.to_be_bytes())
}
