//! The half of a Child SA that seals.

use std::net::SocketAddr;
use std::sync::Arc;

use super::last_flow::FlowV4;
use super::transport;
use super::{Allowance, EspEncap, EspPath, HeaderRules, Lifetime, Limits, SaUsage, Selectors};
use crate::crypto::packet::{Associated, PacketKey};
use crate::ipsec::esp::{Framing, NEXT_HEADER_IPV4, NEXT_HEADER_IPV6, TRAILER_SPACE};
use crate::ipsec::{ChildId, DropReason, Mode, Reqid, Spi, WorkerId};
use crate::wire::esp::EspHeader;
use crate::wire::ip::Flow;

/// What an [`OutboundSa`] is made of.
#[derive(Debug)]
pub struct OutboundParams {
    /// The SPI that the peer chose.
    pub spi: Spi,
    /// The Child SA this is a half of.
    pub child: ChildId,
    /// The policies it serves.
    pub reqid: Reqid,
    /// The worker that seals.
    pub owner: WorkerId,
    /// Cipher and keys.
    pub key: PacketKey,
    /// Whether sequence numbers have 64 bits.
    pub esn: bool,
    /// Where packets go.
    pub path: EspPath,
    /// What may be sent.
    pub selectors: Arc<Selectors>,
    /// How the outer header is made.
    pub rules: HeaderRules,
    /// How much may be sent.
    pub limits: Limits,
    /// Where packets are counted.
    pub usage: Arc<SaUsage>,
    /// The largest outer packet that the path carries.
    pub path_mtu: u16,
}

/// The half of a Child SA that seals.
///
/// It never sends two packets with one number: a number is taken before the cipher runs, and after
/// the last one nothing is sealed any more (RFC 4303 §3.3.3).
#[derive(Debug)]
#[repr(C)] // the order of the parts
pub struct OutboundSa {
    hot: Hot,
    path: EspPath,
    path_mtu: u16,
    path_epoch: u32,
    child: ChildId,
    reqid: Reqid,
    owner: WorkerId,
    lifetime: Lifetime,
    selectors: Arc<Selectors>,
    per_worker: bool,
}

/// What a packet needs: two cache lines, which no other SA shares.
#[derive(Debug)]
#[repr(align(128))]
struct Hot {
    key: PacketKey,
    usage: Arc<SaUsage>,
    /// The number of the last packet; zero before the first.
    sequence: u64,
    allowance: Allowance,
    last_flow: FlowV4,
    spi: Spi,
    inner_mtu: u16,
    framing: Framing,
    rules: HeaderRules,
    esn: bool,
    mode: Mode,
    /// The path is said to carry less than the minimum.
    below_least: bool,
}

/// A packet that was sealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sealed {
    /// How much of the buffer the ESP packet takes, SPI to ICV.
    pub len: usize,
    /// True once in the life of an SA: time to rekey.
    pub soft_limit_crossed: bool,
}

impl OutboundSa {
    /// An SA that has sent nothing yet.
    #[must_use]
    pub fn new(params: OutboundParams) -> Self {
        let OutboundParams {
            spi,
            child,
            reqid,
            owner,
            key,
            esn,
            ..
        } = params;
        let OutboundParams {
            path,
            selectors,
            rules,
            limits,
            usage,
            path_mtu,
            ..
        } = params;
        let hot = Hot {
            framing: Framing::new(&key),
            key,
            usage,
            sequence: 0,
            allowance: Allowance::default(),
            last_flow: FlowV4::default(),
            spi,
            inner_mtu: 0,
            rules,
            esn,
            mode: Mode::Tunnel,
            below_least: false,
        };
        let mut sa = Self {
            hot,
            path,
            path_mtu,
            path_epoch: 0,
            child,
            reqid,
            owner,
            lifetime: Lifetime::new(limits),
            selectors,
            per_worker: false,
        };
        sa.set_path_mtu(path_mtu);
        sa
    }

    /// Makes it seal only what the packets between the two gateways carry (RFC 4303 §3.1.1).
    pub fn set_transport(&mut self) {
        self.hot.mode = Mode::Transport;
        self.hot.rules = HeaderRules::ONE_HEADER;
        self.set_path_mtu(self.path_mtu);
    }

    /// What it wraps.
    #[must_use]
    pub fn mode(&self) -> Mode {
        self.hot.mode
    }

    /// Whether the selectors cover a flow; for the same flow as the last time without a look at them.
    #[inline]
    pub fn admits(&mut self, flow: &Flow) -> bool {
        let simple = FlowV4::from_flow(flow);
        if simple == Some(self.hot.last_flow) && self.hot.last_flow != FlowV4::default() {
            return true;
        }
        let admitted = self.selectors.admits_outbound(flow);
        if admitted && let Some(simple) = simple {
            self.hot.last_flow = simple;
        }
        admitted
    }

    /// Seals one inner packet, given in pieces, into the front of `out`.
    ///
    /// An AEAD reads a single piece where it lies and writes where it will be sent from; several
    /// pieces are put together there first. The caller has matched the
    /// packet to this SA's selectors. Nothing is counted and no number is taken unless the packet
    /// fits.
    ///
    /// In transport mode the packet is one piece.
    ///
    /// # Errors
    /// [`DropReason::InnerMalformed`] if this is no IP packet, [`DropReason::NotTransportable`],
    /// [`DropReason::LifetimeExpired`], [`DropReason::SequenceExhausted`], [`DropReason::TooBig`] if `out` is too short, and
    /// [`DropReason::SealFailed`].
    pub fn seal(&mut self, inner: &[&[u8]], out: &mut [u8]) -> Result<Sealed, DropReason> {
        if let (Mode::Transport, [packet, ..]) = (self.hot.mode, inner) {
            let (protocol, payload) = transport::payload(packet, self.is_between_ipv6())?;
            return self.seal_payload(protocol, &[payload], out);
        }
        let first = inner.iter().find_map(|part| part.first());
        let next_header = match first.map(|byte| byte >> 4) {
            Some(4) => NEXT_HEADER_IPV4,
            Some(6) => NEXT_HEADER_IPV6,
            _ => return Err(DropReason::InnerMalformed),
        };
        self.seal_payload(next_header, inner, out)
    }

    #[inline]
    fn seal_payload(
        &mut self,
        next_header: u8,
        payload: &[&[u8]],
        out: &mut [u8],
    ) -> Result<Sealed, DropReason> {
        let payload_len = payload.iter().map(|part| part.len()).sum();
        let len = self.hot.framing.sealed_len(payload_len);
        let packet = out.get_mut(..len).ok_or(DropReason::TooBig)?;
        let routine = self.hot.allowance.take(payload_len);
        if !routine {
            self.admit(payload_len)?;
        }
        self.hot.sequence += 1; // below the last one: the allowance ends there too
        let so_far = self.hot.usage.so_far();
        let mut space = [0; TRAILER_SPACE];
        let trailer = self
            .hot
            .framing
            .trailer(payload_len, next_header, &mut space);
        self.hot
            .seal(payload, trailer.ok_or(DropReason::SealFailed)?, packet)?;
        self.hot.usage.record(so_far, payload_len);
        Ok(Sealed {
            len,
            soft_limit_crossed: !routine && self.settle(),
        })
    }

    /// Whether a packet may pass that has exhausted the allowance.
    #[cold]
    fn admit(&mut self, payload_len: usize) -> Result<(), DropReason> {
        if !self.lifetime.admits(&self.hot.usage, payload_len) {
            return Err(DropReason::LifetimeExpired);
        }
        if self.hot.sequence >= last_sequence(self.hot.esn) {
            self.lifetime.reach_hard();
            return Err(DropReason::SequenceExhausted);
        }
        Ok(())
    }

    /// Sees to the limits after a packet, and says how many may pass until the next time.
    #[cold]
    fn settle(&mut self) -> bool {
        let (sequence, last) = (self.hot.sequence, last_sequence(self.hot.esn));
        let rekey_at = last / REKEY_RESERVE * (REKEY_RESERVE - 1);
        let crossed = self
            .lifetime
            .take_soft(&self.hot.usage, sequence > rekey_at);
        let end = if self.lifetime.awaits_soft() {
            rekey_at
        } else {
            last
        };
        let numbers = end.saturating_sub(sequence);
        self.hot.allowance = self.lifetime.allowance(&self.hot.usage, numbers);
        crossed
    }

    /// The length of the ESP packet that carries an inner packet of this length.
    #[must_use]
    pub fn sealed_len(&self, inner_len: usize) -> usize {
        let left_out = self.left_out();
        self.hot
            .framing
            .sealed_len(inner_len.saturating_sub(left_out))
    }

    /// How much of an inner packet is not sealed.
    fn left_out(&self) -> usize {
        match self.hot.mode {
            Mode::Tunnel => 0,
            Mode::Transport => transport::header_len(self.is_between_ipv6()),
        }
    }

    /// In transport mode: of which IP version the hosts are, whatever path their packets take.
    fn is_between_ipv6(&self) -> bool {
        let host = self.selectors.local.first();
        host.is_some_and(|host| host.start().is_ipv6())
    }

    /// The largest inner packet that fits the path without fragmenting the outer one.
    #[must_use]
    pub fn inner_mtu(&self) -> u16 {
        self.hot.inner_mtu
    }

    /// Takes note of the largest outer packet that the path carries, but not of one below the
    /// minimum of its IP version: that is more likely a forged error message than a real link.
    /// Until a better one is known, [`Self::outer_may_have_df`] is false.
    pub fn set_path_mtu(&mut self, path_mtu: u16) {
        let least = match self.path.remote {
            SocketAddr::V4(_) => LEAST_MTU_V4,
            SocketAddr::V6(_) => LEAST_MTU_V6,
        };
        self.path_mtu = path_mtu.max(least);
        self.hot.below_least = path_mtu < least;
        let room = usize::from(self.path_mtu).saturating_sub(outer_header_len(&self.path));
        let inner = self.hot.framing.payload_room(room) + self.left_out();
        self.hot.inner_mtu = u16::try_from(inner).unwrap_or(u16::MAX);
    }

    /// Whether the outer DF bit may be set at all: not on a path that is said to carry less than the
    /// minimum, where whoever believes it would refuse every larger packet with DF.
    #[must_use]
    pub fn outer_may_have_df(&self) -> bool {
        !self.hot.below_least
    }

    /// The largest outer packet that the path carries.
    #[must_use]
    pub fn path_mtu(&self) -> u16 {
        self.path_mtu
    }

    /// Which news about paths it was told last; zero before the first.
    #[inline]
    #[must_use]
    pub fn path_epoch(&self) -> u32 {
        self.path_epoch
    }

    /// It was told news about paths.
    pub fn set_path_epoch(&mut self, epoch: u32) {
        self.path_epoch = epoch;
    }

    /// Where packets go.
    #[must_use]
    pub fn path(&self) -> &EspPath {
        &self.path
    }

    /// Sends packets elsewhere from now on.
    pub fn set_path(&mut self, path: EspPath) {
        self.path = path;
        self.set_path_mtu(self.path_mtu);
    }

    /// The outer TOS or traffic class for an inner one.
    #[must_use]
    pub fn outer_tos(&self, inner_tos: u8) -> u8 {
        self.hot.rules.outer_tos(inner_tos)
    }

    /// The outer DF bit for an inner one. An inner IPv6 packet counts as DF set.
    #[must_use]
    pub fn outer_df(&self, inner_df: bool) -> bool {
        self.hot.rules.outer_df(inner_df)
    }

    /// True once, after a packet was refused for a hard limit or the last sequence number.
    pub fn take_hard_limit(&mut self) -> bool {
        self.lifetime.take_hard()
    }

    /// The number of the last packet; zero before the first.
    #[must_use]
    pub fn sequence(&self) -> u64 {
        self.hot.sequence
    }

    /// Goes on after `sequence`: for an SA that was moved here with its state.
    ///
    /// Never goes back, so no nonce of this key can come twice.
    pub fn resume_after(&mut self, sequence: u64) {
        self.hot.sequence = self.hot.sequence.max(sequence);
        self.hot.allowance = Allowance::default();
    }

    /// The SPI that the peer chose.
    #[must_use]
    pub fn spi(&self) -> Spi {
        self.hot.spi
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

    /// The worker that seals.
    #[must_use]
    pub fn owner(&self) -> WorkerId {
        self.owner
    }

    /// What may be sent.
    #[must_use]
    pub fn selectors(&self) -> &Arc<Selectors> {
        &self.selectors
    }

    /// Whether the peer lets every worker have an SA of its own for this traffic (RFC 9611).
    pub fn is_per_worker(&self) -> bool {
        self.per_worker
    }

    /// Notes what the peer has agreed to; false for a new SA.
    pub fn set_per_worker(&mut self, per_worker: bool) {
        self.per_worker = per_worker;
    }

    /// Where packets are counted.
    #[must_use]
    pub fn usage(&self) -> &Arc<SaUsage> {
        &self.hot.usage
    }
}

impl Hot {
    /// Writes and encrypts the packet that has the current number. `packet` has its exact length.
    #[inline]
    fn seal(&self, payload: &[&[u8]], trailer: &[u8], packet: &mut [u8]) -> Result<(), DropReason> {
        let [high, low] = halves(self.sequence);
        let header = EspHeader {
            spi: self.spi.get(),
            sequence: low,
        }
        .encode();
        let (head, body) = packet
            .split_first_chunk_mut()
            .ok_or(DropReason::SealFailed)?;
        *head = header;
        let associated = Associated {
            header: &header,
            esn_high: self.esn.then_some(high),
        };
        self.key
            .seal_from(self.sequence, associated, payload, trailer, body)
            .map_err(|_| DropReason::SealFailed)
    }
}

/// High and low half of a sequence number.
fn halves(sequence: u64) -> [u32; 2] {
    let half = |bits: u64| u32::try_from(bits & u64::from(u32::MAX)).unwrap_or(0);
    [half(sequence >> 32), half(sequence)]
}

/// What comes before the ESP header, without options.
fn outer_header_len(path: &EspPath) -> usize {
    let ip = match path.remote {
        SocketAddr::V4(_) => 20,
        SocketAddr::V6(_) => 40,
    };
    let udp = match path.encap {
        EspEncap::Udp => 8,
        EspEncap::None => 0,
    };
    ip + udp
}

fn last_sequence(esn: bool) -> u64 {
    if esn { u64::MAX } else { u64::from(u32::MAX) }
}

/// A rekey is asked for when one sixteenth of the numbers is left.
const REKEY_RESERVE: u64 = 16;
/// What every IPv4 host must take (RFC 791).
const LEAST_MTU_V4: u16 = 576;
/// What every IPv6 link must carry (RFC 8200 §5).
const LEAST_MTU_V6: u16 = 1280;

#[cfg(test)]
mod tests {
    use super::*;
    use std::mem::{offset_of, size_of};

    #[test]
    fn what_a_packet_needs_is_in_the_first_two_cache_lines() {
        assert_eq!((offset_of!(OutboundSa, hot), size_of::<Hot>()), (0, 128));
        assert_eq!(align_of::<OutboundSa>(), 128);
    }
}
