//! From a socket to the TUN (RFC 4301 §5.2).

use std::net::{IpAddr, SocketAddr};

use super::{Carrier, Pipeline, Stop, Verdict};
use crate::dataplane::hand_off::Origin;
use crate::dataplane::mss;
use crate::io::burst::Received;
use crate::ipsec::{DropReason, EspEncap, OutboundEntry, Reqid, SaEvent, Spi};
use crate::wire::esp::{Demux, EspHeader, NON_ESP_MARKER, demux_udp_encap};
use crate::wire::ip::{self, Flow};

impl Pipeline {
    /// Takes one received packet to the inner packet that is to be written to the TUN, if there is
    /// one. It lies inside `received`, which was decrypted in place.
    pub fn inbound<'a>(
        &mut self,
        carrier: Carrier,
        received: Received<'a>,
    ) -> Option<&'a mut [u8]> {
        let Received {
            bytes,
            remote,
            local,
            tos,
            ..
        } = received;
        match self.find_inbound(carrier, bytes) {
            Ok(spi) => self.open(spi, carrier, bytes, remote, tos),
            Err(Stop::Elsewhere(owner)) => {
                let origin = Origin::Network {
                    carrier,
                    remote,
                    tos,
                };
                self.give(owner, bytes, origin);
                None
            }
            Err(Stop::Punt) => {
                self.punt(carrier, bytes, remote, local);
                None
            }
            Err(Stop::Drop(reason)) => {
                self.stats.dropped(reason);
                None
            }
            Err(Stop::Reply(_)) => None,
        }
    }

    /// The SPI of a packet that one of this worker's SAs opens.
    pub(super) fn find_inbound(&mut self, carrier: Carrier, bytes: &[u8]) -> Result<u32, Stop> {
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

    pub(super) fn open<'a>(
        &mut self,
        spi: u32,
        carrier: Carrier,
        bytes: &'a mut [u8],
        remote: SocketAddr,
        tos: u8,
    ) -> Option<&'a mut [u8]> {
        let Some(sa) = self.sad.inbound_mut(spi) else {
            self.stats.dropped(DropReason::UnknownSpi);
            return None;
        };
        let opened = match sa.open(bytes, tos) {
            Ok(opened) => opened,
            Err(reason) => {
                self.stats.dropped(reason);
                if sa.take_hard_limit() {
                    let child = sa.child();
                    self.events.send(SaEvent::HardLifetime { child });
                }
                return None;
            }
        };
        let (child, reqid, peer) = (sa.child(), sa.reqid(), sa.path().remote.ip());
        if opened.soft_limit_crossed {
            self.events.send(SaEvent::SoftLifetime { child });
        }
        let encapsulated = matches!(carrier, Carrier::Udp { .. });
        if encapsulated
            && opened.newest
            && sa.path().encap == EspEncap::Udp
            && self.events.has_room() // what is not told now is news again with the next packet
            && sa.peer_moved(remote)
        {
            let spi = sa.spi();
            self.events.send(SaEvent::PeerMoved { child, spi, remote });
        }
        if let Some(quoted) = opened.foreign_quote
            && !self.is_sent_to(peer, &quoted)
        {
            self.stats.dropped(DropReason::SelectorMismatch);
            return None;
        }
        self.stats.packets_in.add(1);
        self.stats.bytes_in.add_len(opened.inner.len());
        self.clamp_inbound(reqid, opened.inner);
        Some(opened.inner)
    }

    /// Whether we send such packets to this peer. Of another worker's SA only the owner knows the peer.
    fn is_sent_to(&mut self, peer: IpAddr, flow: &Flow) -> bool {
        let Verdict::Protect(reqid) = self.verdict(flow) else {
            return false;
        };
        match self.sad.outbound(reqid, flow) {
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
            ip::clamp_mss(inner, sa.inner_mtu());
        }
    }

    fn punt(&mut self, carrier: Carrier, bytes: &[u8], remote: SocketAddr, local: IpAddr) {
        let Carrier::Udp { port } = carrier else {
            return;
        };
        let message = bytes.get(NON_ESP_MARKER.len()..).unwrap_or_default();
        let punted = self.events.punt(|| SaEvent::Punted {
            local: SocketAddr::new(local, port),
            remote,
            bytes: Box::from(message),
        });
        if !punted {
            self.stats.dropped(DropReason::PuntQueueFull);
        }
    }
}
