//! Packets that wait for the SA they have asked for.
//!
//! A policy with a trap asks for an SA with its first packet, which is not to be lost. It and those behind
//! it wait in a ring of fixed size until there is an SA, and then go through it in the order in which they
//! were read. Nobody's packets take the places of others: when the share of a policy or the ring is full,
//! the newest packet is dropped, so that the first one stays. What has waited too long is dropped too.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use super::hand_off::{PARTS, Stray};
use crate::io::burst::SLOT_LEN;
use crate::ipsec::Reqid;
use crate::wire::vnet::VnetHeader;

/// The waiting packets of one worker.
#[derive(Debug)]
pub(super) struct Waiting {
    ring: Box<[u8]>,
    /// In the order in which they were read.
    packets: VecDeque<Packet>,
    shares: HashMap<Reqid, Share>,
    /// Policies that have an SA for their packets, in the order in which they got it.
    released: VecDeque<Reqid>,
    /// Carries released packets to the egress.
    carrier: Option<Box<Stray>>,
}

/// What one read from the TUN gave: a packet or a super-packet.
#[derive(Debug)]
struct Packet {
    reqid: Reqid,
    header: VnetHeader,
    start: usize,
    length: usize,
    /// How many packets it stands for.
    count: u32,
    since: Instant,
    is_gone: bool,
}

/// What one policy has in the ring.
#[derive(Debug, Default)]
struct Share {
    reads: usize,
    bytes: usize,
}

impl Waiting {
    pub(super) fn new() -> Self {
        Self {
            ring: vec![0; RING].into_boxed_slice(),
            packets: VecDeque::with_capacity(READS),
            shares: HashMap::with_capacity(READS),
            released: VecDeque::with_capacity(READS),
            carrier: Some(Box::new(Stray::waited())),
        }
    }

    /// Keeps a copy of what one read from the TUN gave; false if there is no room for it.
    pub(super) fn hold(
        &mut self,
        reqid: Reqid,
        header: VnetHeader,
        bytes: &[u8],
        count: u32,
        now: Instant,
    ) -> bool {
        let share = self.shares.get(&reqid);
        let full =
            share.is_some_and(|share| share.reads >= PARTS || share.bytes + bytes.len() > SLOT_LEN);
        if full || self.packets.len() >= READS {
            return false;
        }
        let Some(start) = self.room(bytes.len()) else {
            return false;
        };
        let Some(room) = self.ring.get_mut(start..start + bytes.len()) else {
            return false;
        };
        room.copy_from_slice(bytes);
        let share = self.shares.entry(reqid).or_default();
        share.reads += 1;
        share.bytes += bytes.len();
        self.packets.push_back(Packet {
            reqid,
            header,
            start,
            length: bytes.len(),
            count,
            since: now,
            is_gone: false,
        });
        true
    }

    /// Where the next `length` bytes go: behind the newest packet, or at the beginning again.
    fn room(&self, length: usize) -> Option<usize> {
        let (Some(oldest), Some(newest)) = (self.packets.front(), self.packets.back()) else {
            return (length <= RING).then_some(0);
        };
        let end = newest.start + newest.length;
        if newest.start < oldest.start {
            return (end + length <= oldest.start).then_some(end);
        }
        if end + length <= RING {
            return Some(end);
        }
        (length <= oldest.start).then_some(0)
    }

    /// Whether nothing waits.
    pub(super) fn is_empty(&self) -> bool {
        self.packets.is_empty()
    }

    /// Whether packets of this policy wait, which later ones must not overtake.
    pub(super) fn holds(&self, reqid: Reqid) -> bool {
        !self.is_empty() && self.shares.contains_key(&reqid)
    }

    /// There is an SA for this policy.
    pub(super) fn release(&mut self, reqid: Reqid) {
        if self.holds(reqid) && !self.released.contains(&reqid) {
            self.released.push_back(reqid);
        }
    }

    /// Whether [`Self::take`] has packets to give.
    pub(super) fn is_ready(&self) -> bool {
        !self.released.is_empty() && self.carrier.is_some()
    }

    /// The packets of the next policy that has an SA.
    pub(super) fn take(&mut self) -> Option<Box<Stray>> {
        if !self.is_ready() {
            return None;
        }
        let reqid = self.released.pop_front()?;
        let mut stray = self.carrier.take()?;
        self.shares.remove(&reqid);
        let waiting = self.packets.iter_mut();
        for packet in waiting.filter(|packet| packet.reqid == reqid && !packet.is_gone) {
            let bytes = self.ring.get(packet.start..packet.start + packet.length);
            // A share is no larger than a stray.
            stray.push_outbound(packet.header, bytes.unwrap_or_default(), packet.count);
            packet.is_gone = true;
        }
        self.drop_gone();
        Some(stray)
    }

    /// Takes the carrier of released packets back.
    pub(super) fn take_back(&mut self, stray: Box<Stray>) {
        self.carrier = Some(stray);
    }

    /// Drops what has waited too long; how many packets that were.
    pub(super) fn expire(&mut self, now: Instant) -> u32 {
        let mut lost: u32 = 0;
        while let Some(oldest) = self.packets.front()
            && now.saturating_duration_since(oldest.since) >= PATIENCE
        {
            let (reqid, length) = (oldest.reqid, oldest.length);
            lost = lost.saturating_add(oldest.count);
            self.packets.pop_front();
            if let Some(share) = self.shares.get_mut(&reqid) {
                share.reads -= 1;
                share.bytes -= length;
                if share.reads == 0 {
                    self.shares.remove(&reqid);
                    self.released.retain(|released| *released != reqid);
                }
            }
            self.drop_gone();
        }
        lost
    }

    /// The oldest packet in the ring is one that waits.
    fn drop_gone(&mut self) {
        while self.packets.front().is_some_and(|packet| packet.is_gone) {
            self.packets.pop_front();
        }
    }
}

/// Bytes that may wait at one worker. Memory that was never needed takes none.
const RING: usize = 8 * SLOT_LEN;
/// Reads from the TUN that may wait at one worker.
const READS: usize = 1024;
/// How long a packet waits: a peer that is there has answered by then, even if the first request was lost.
const PATIENCE: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: VnetHeader = VnetHeader {
        flags: 0,
        gso_type: 0,
        hdr_len: 0,
        gso_size: 0,
        csum_start: 0,
        csum_offset: 0,
    };

    fn hold(waiting: &mut Waiting, reqid: u32, bytes: &[u8], now: Instant) -> bool {
        waiting.hold(Reqid(reqid), PLAIN, bytes, 1, now)
    }

    fn contents(waiting: &mut Waiting) -> Vec<Vec<u8>> {
        let Some(mut stray) = waiting.take() else {
            return Vec::new();
        };
        let parts = std::iter::successors(Some(0), |index| Some(index + 1));
        let parts = parts.map_while(|index| Some(stray.outbound_mut(index)?.1.to_vec()));
        let parts = parts.collect();
        stray.clear();
        waiting.take_back(stray);
        parts
    }

    #[test]
    fn the_packets_of_a_policy_are_released_in_order_and_others_stay() {
        let (mut waiting, now) = (Waiting::new(), Instant::now());
        for (reqid, byte) in [(1, 1), (2, 2), (1, 3), (2, 4)] {
            assert!(hold(&mut waiting, reqid, &[byte], now));
        }
        waiting.release(Reqid(1));
        waiting.release(Reqid(1));
        assert_eq!(contents(&mut waiting), [[1], [3]]);
        assert!(!waiting.is_ready() && !waiting.holds(Reqid(1)));
        assert!(waiting.holds(Reqid(2)));
        waiting.release(Reqid(2));
        assert_eq!(contents(&mut waiting), [[2], [4]]);
        assert!(waiting.is_empty());
    }

    #[test]
    fn a_policy_has_its_share_and_no_more() {
        let (mut waiting, now) = (Waiting::new(), Instant::now());
        let held = (0..1000).filter(|_| hold(&mut waiting, 1, &[0; 100], now));
        assert_eq!(held.count(), PARTS);
        assert!(hold(&mut waiting, 2, &[0; SLOT_LEN], now));
        assert!(!hold(&mut waiting, 2, &[0], now));
        for reqid in 3..9 {
            assert!(hold(&mut waiting, reqid, &[0; SLOT_LEN], now));
        }
        assert!(
            !hold(&mut waiting, 9, &[0; SLOT_LEN], now),
            "the ring is full"
        );
        assert!(
            hold(&mut waiting, 10, &[0; 64], now),
            "but not to the last byte"
        );
    }

    #[test]
    fn the_ring_goes_round_with_every_length() {
        let (mut waiting, now) = (Waiting::new(), Instant::now());
        for round in 0..100_u8 {
            for reqid in 0..5 {
                let bytes = vec![round; 10_000 * (usize::from(round) % 6) + 7];
                assert!(hold(&mut waiting, reqid, &bytes, now));
            }
            for reqid in [3, 0, 4, 1, 2] {
                waiting.release(Reqid(reqid));
                let released = contents(&mut waiting);
                assert!(released.concat().iter().all(|byte| *byte == round));
                assert_eq!(released.len(), 1);
            }
        }
    }

    #[test]
    fn what_has_waited_for_ten_seconds_is_dropped() {
        let (mut waiting, start) = (Waiting::new(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        assert!(hold(&mut waiting, 1, &[1], at(0)));
        assert!(hold(&mut waiting, 2, &[2], at(1)));
        assert!(hold(&mut waiting, 1, &[3], at(2)));
        waiting.release(Reqid(2));
        assert_eq!(contents(&mut waiting), [[2]]);
        assert_eq!(waiting.expire(at(9)), 0);
        assert_eq!(waiting.expire(at(10)), 1);
        waiting.release(Reqid(1));
        assert_eq!(contents(&mut waiting), [[3]]);
        assert!(hold(&mut waiting, 1, &[4], at(20)));
        waiting.release(Reqid(1));
        assert_eq!(waiting.expire(at(30)), 1);
        assert!(!waiting.is_ready(), "an SA without packets releases none");
    }
}
