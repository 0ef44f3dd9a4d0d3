//! The anti-replay window (RFC 4303 §3.4.3), as a ring that never shifts (RFC 6479).

use super::DropReason;

/// Which sequence numbers of one inbound SA were received.
///
/// A number is first checked, then the packet is opened, then the number is accepted: only an
/// authentic packet may move the window.
///
/// ```text
///        too old │ the window: size numbers, one bit each │ new
///  ──────────────┼────────────────────────────────────────┼──────►
///                top - size                               top
/// ```
///
/// Sizes are rounded up to a multiple of 64 and end at [`Self::MAX`]; zero switches the check off.
#[derive(Clone, Debug)]
pub struct ReplayWindow {
    /// The highest number accepted so far; zero before the first packet.
    top: u64,
    size: u64,
    esn: bool,
    /// One bit for each of the last numbers: more words than the window needs, by at least one,
    /// so that the word of a new top can be cleared whole.
    ring: Box<[u64]>,
}

/// Proof that a number passed [`ReplayWindow::check`], to be given to [`ReplayWindow::accept`].
#[derive(Debug, PartialEq, Eq)]
#[must_use = "a number that is not accepted can be replayed"]
pub struct Fresh(u64);

impl Fresh {
    /// The 64-bit sequence number, its high half inferred from the window (RFC 4303 appendix A).
    #[must_use]
    pub fn sequence(&self) -> u64 {
        self.0
    }

    /// The half that the ICV covers and the packet does not carry.
    #[must_use]
    pub fn high(&self) -> u32 {
        let [a, b, c, d, ..] = self.0.to_be_bytes();
        u32::from_be_bytes([a, b, c, d])
    }
}

impl ReplayWindow {
    /// The largest window, in packets.
    pub const MAX: u32 = 8192;

    /// An empty window. The only allocation that replay protection makes.
    #[must_use]
    pub fn new(size: u32, esn: bool) -> Self {
        let words = u64::from(size.min(Self::MAX)).div_ceil(WORD_BITS);
        let slots = if words == 0 {
            0
        } else {
            (words + 1).next_power_of_two()
        };
        let ring = (0..slots).map(|_| 0).collect();
        Self {
            top: 0,
            size: words * WORD_BITS,
            esn,
            ring,
        }
    }

    /// How many numbers the window holds after rounding; zero when the check is off.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The highest number accepted so far.
    #[must_use]
    pub fn top(&self) -> u64 {
        self.top
    }

    /// Infers the full number and refuses what is old, doubled or impossible. Changes nothing.
    ///
    /// # Errors
    /// [`DropReason::IllegalSequence`], [`DropReason::TooOld`] or [`DropReason::Replayed`].
    pub fn check(&self, low: u32) -> Result<Fresh, DropReason> {
        let sequence = if self.esn {
            self.infer(low)?
        } else {
            u64::from(low)
        };
        self.check_full(sequence)?;
        Ok(Fresh(sequence))
    }

    /// Takes note of a number whose packet was authentic.
    ///
    /// Several packets may be checked before the first is accepted, so the check is repeated.
    ///
    /// # Errors
    /// [`DropReason::TooOld`] or [`DropReason::Replayed`], if another packet came in between.
    pub fn accept(&mut self, fresh: Fresh) -> Result<(), DropReason> {
        let Fresh(sequence) = fresh;
        self.check_full(sequence)?;
        if sequence > self.top {
            self.clear_up_to(sequence);
            self.top = sequence;
        }
        let slot = self.slot(sequence / WORD_BITS);
        if let Some(word) = self.ring.get_mut(slot) {
            *word |= bit(sequence);
        }
        Ok(())
    }

    /// Goes on after `sequence`, which counts as received like everything before it: for an SA that
    /// was moved here with its state. Never goes back.
    pub fn resume_after(&mut self, sequence: u64) {
        if sequence > self.top {
            self.top = sequence;
            self.ring.fill(u64::MAX);
            let slot = self.slot(sequence / WORD_BITS);
            if let Some(word) = self.ring.get_mut(slot) {
                *word = bit(sequence) | (bit(sequence) - 1);
            }
        }
    }

    fn check_full(&self, sequence: u64) -> Result<(), DropReason> {
        if self.size == 0 {
            return Ok(());
        }
        if sequence == 0 {
            return Err(DropReason::IllegalSequence);
        }
        if sequence > self.top {
            return Ok(());
        }
        if self.top - sequence >= self.size {
            return Err(DropReason::TooOld);
        }
        let word = self
            .ring
            .get(self.slot(sequence / WORD_BITS))
            .copied()
            .unwrap_or(0);
        if word & bit(sequence) == 0 {
            Ok(())
        } else {
            Err(DropReason::Replayed)
        }
    }

    /// RFC 4303 §A2.2: the one number with these low bits that lies less than 2^32 above the
    /// lower edge of the window.
    fn infer(&self, low: u32) -> Result<u64, DropReason> {
        // Without a window nothing says how late a packet may be: allow half of the space.
        let span = if self.size == 0 {
            UNCHECKED_SPAN
        } else {
            self.size
        };
        // Modulo 2^64: before the window has filled once, its edge lies below zero.
        let edge_below_zero = self.top < span - 1;
        let edge = self.top.wrapping_sub(span - 1);
        let above = low.wrapping_sub(low_half(edge));
        let (sequence, carried) = edge.overflowing_add(u64::from(above));
        if carried == edge_below_zero {
            Ok(sequence)
        } else {
            Err(DropReason::IllegalSequence)
        }
    }

    /// Clears the words between the old top and the new one, at most once each.
    fn clear_up_to(&mut self, sequence: u64) {
        let (old, new) = (self.top / WORD_BITS, sequence / WORD_BITS);
        if new - old >= self.ring.len() as u64 {
            self.ring.fill(0);
            return;
        }
        for number in old + 1..=new {
            let slot = self.slot(number);
            if let Some(word) = self.ring.get_mut(slot) {
                *word = 0;
            }
        }
    }

    /// Where the ring, a power of two long, keeps a word. Past the end of an empty ring.
    fn slot(&self, word: u64) -> usize {
        let mask = (self.ring.len() as u64).wrapping_sub(1);
        usize::try_from(word & mask).unwrap_or(usize::MAX)
    }
}

fn low_half(sequence: u64) -> u32 {
    let [.., a, b, c, d] = sequence.to_be_bytes();
    u32::from_be_bytes([a, b, c, d])
}

fn bit(sequence: u64) -> u64 {
    1 << (sequence % WORD_BITS)
}

const WORD_BITS: u64 = 64;
const UNCHECKED_SPAN: u64 = 1 << 31;
