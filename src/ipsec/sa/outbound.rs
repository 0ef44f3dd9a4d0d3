//! The half of a Child SA that seals.

use std::net::SocketAddr;
use std::sync::Arc;

use super::{EspEncap, EspPath, HeaderRules, Lifetime, Limits, SaUsage, Selectors};
use crate::crypto::packet::{Associated, PacketKey};
use crate::ipsec::esp::{Framing, HEADER_LEN, NEXT_HEADER_IPV4, NEXT_HEADER_IPV6};
use crate::ipsec::{ChildId, DropReason, Reqid, Spi, WorkerId};
use crate::wire::esp::EspHeader;

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
pub struct OutboundSa {
    spi: Spi,
    esn: bool,
    rules: HeaderRules,
    framing: Framing,
    /// The number of the last packet; zero before the first.
    sequence: u64,
    key: PacketKey,
    lifetime: Lifetime,
    usage: Arc<SaUsage>,
    path: EspPath,
    path_mtu: u16,
    /// The path is said to carry less than the minimum.
    below_least: bool,
    child: ChildId,
    reqid: Reqid,
    owner: WorkerId,
    selectors: Arc<Selectors>,
    per_worker: bool,
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
        let framing = Framing::new(&key);
        let lifetime = Lifetime::new(limits);
        let mut sa = Self {
            spi,
            esn,
            rules,
            framing,
            sequence: 0,
            key,
            lifetime,
            usage,
            path,
            path_mtu,
            below_least: false,
            child,
            reqid,
            owner,
            selectors,
            per_worker: false,
        };
        sa.set_path_mtu(path_mtu);
        sa
    }

    /// Seals one inner packet, given in pieces, into the front of `out`.
    ///
    /// The pieces are copied once and encrypted where they will be sent from, so a super-packet is
    /// cut by giving each segment's header and its slice of the payload. The caller has matched the
    /// packet to this SA's selectors. Nothing is counted and no number is taken unless the packet
    /// fits.
    ///
    /// # Errors
    /// [`DropReason::InnerMalformed`] if this is no IP packet, [`DropReason::LifetimeExpired`],
    /// [`DropReason::SequenceExhausted`], [`DropReason::TooBig`] if `out` is too short, and
    /// [`DropReason::SealFailed`].
    pub fn seal(&mut self, inner: &[&[u8]], out: &mut [u8]) -> Result<Sealed, DropReason> {
        let first = inner.iter().find_map(|part| part.first());
        let next_header = match first.map(|byte| byte >> 4) {
            Some(4) => NEXT_HEADER_IPV4,
            Some(6) => NEXT_HEADER_IPV6,
            _ => return Err(DropReason::InnerMalformed),
        };
        self.seal_payload(next_header, inner, out)
    }

    fn seal_payload(
        &mut self,
        next_header: u8,
        payload: &[&[u8]],
        out: &mut [u8],
    ) -> Result<Sealed, DropReason> {
        let payload_len = payload.iter().map(|part| part.len()).sum();
        let len = self.framing.sealed_len(payload_len);
        let packet = out.get_mut(..len).ok_or(DropReason::TooBig)?;
        if !self.lifetime.admits(&self.usage, payload_len) {
            return Err(DropReason::LifetimeExpired);
        }
        let sequence = self.next_sequence()?;

        let [high, low] = halves(sequence);
        let header = EspHeader {
            spi: self.spi.get(),
            sequence: low,
        }
        .encode();
        self.framing
            .write(header, next_header, payload, packet)
            .ok_or(DropReason::SealFailed)?;
        let body = packet.get_mut(HEADER_LEN..).ok_or(DropReason::SealFailed)?;
        let associated = Associated {
            header: &header,
            esn_high: self.esn.then_some(high),
        };
        self.key
            .seal(sequence, associated, body)
            .map_err(|_| DropReason::SealFailed)?;

        self.usage.record(payload_len);
        let numbers_run_out =
            sequence > last_sequence(self.esn) / REKEY_RESERVE * (REKEY_RESERVE - 1);
        let soft_limit_crossed = self.lifetime.take_soft(&self.usage, numbers_run_out);
        Ok(Sealed {
            len,
            soft_limit_crossed,
        })
    }

    fn next_sequence(&mut self) -> Result<u64, DropReason> {
        if self.sequence >= last_sequence(self.esn) {
            self.lifetime.hard_reached = true;
            return Err(DropReason::SequenceExhausted);
        }
        self.sequence += 1;
        Ok(self.sequence)
    }

    /// The length of the ESP packet that carries an inner packet of this length.
    #[must_use]
    pub fn sealed_len(&self, inner_len: usize) -> usize {
        self.framing.sealed_len(inner_len)
    }

    /// The largest inner packet that fits the path without fragmenting the outer one.
    #[must_use]
    pub fn inner_mtu(&self) -> u16 {
        let outer = outer_header_len(&self.path);
        let room = usize::from(self.path_mtu).saturating_sub(outer);
        u16::try_from(self.framing.payload_room(room)).unwrap_or(u16::MAX)
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
        self.below_least = path_mtu < least;
    }

    /// Whether the outer DF bit may be set at all: not on a path that is said to carry less than the
    /// minimum, where whoever believes it would refuse every larger packet with DF.
    #[must_use]
    pub fn outer_may_have_df(&self) -> bool {
        !self.below_least
    }

    /// The largest outer packet that the path carries.
    #[must_use]
    pub fn path_mtu(&self) -> u16 {
        self.path_mtu
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
        self.rules.outer_tos(inner_tos)
    }

    /// The outer DF bit for an inner one. An inner IPv6 packet counts as DF set.
    #[must_use]
    pub fn outer_df(&self, inner_df: bool) -> bool {
        self.rules.outer_df(inner_df)
    }

    /// True once, after a packet was refused for a hard limit or the last sequence number.
    pub fn take_hard_limit(&mut self) -> bool {
        self.lifetime.take_hard()
    }

    /// The number of the last packet; zero before the first.
    #[must_use]
    pub fn sequence(&self) -> u64 {
        self.sequence
    }

    /// Goes on after `sequence`: for an SA that was moved here with its state.
    ///
    /// Never goes back, so no nonce of this key can come twice.
    pub fn resume_after(&mut self, sequence: u64) {
        self.sequence = self.sequence.max(sequence);
    }

    /// The SPI that the peer chose.
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
        &self.usage
    }
}

/// High and low half of a sequence number.
fn halves(sequence: u64) -> [u32; 2] {
    let [a, b, c, d, e, f, g, h] = sequence.to_be_bytes();
    [
        u32::from_be_bytes([a, b, c, d]),
        u32::from_be_bytes([e, f, g, h]),
    ]
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
