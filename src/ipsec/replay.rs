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
    /// One bit for each of the last numbers: more words than the window needs, by at least one,
    /// so that the word of a new top can be cleared whole.
    ring: Box<[Line]>,
    size: u16,
    esn: bool,
}

/// A cache line of the ring, so that two windows never share one.
#[derive(Clone, Copy, Debug)]
#[repr(align(64))]
struct Line([u64; WORDS_PER_LINE]);

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
        let size = u16::try_from(size.min(Self::MAX).next_multiple_of(64))
            .expect("the largest window has 13 bits");
        let lines = match usize::from(size) / 64 {
            0 => 0,
            words => (words + 1).div_ceil(WORDS_PER_LINE).next_power_of_two(),
        };
        Self {
            top: 0,
            ring: vec![EMPTY; lines].into_boxed_slice(),
            size,
            esn,
        }
    }

    /// How many numbers the window holds after rounding; zero when the check is off.
    #[must_use]
    pub fn size(&self) -> u64 {
        u64::from(self.size)
    }

    /// The highest number accepted so far.
    #[must_use]
    pub fn top(&self) -> u64 {
        self.top
    }

    /// Checks a number, lets `open` find out whether its packet is authentic, and takes note of it if
    /// so: [`Self::check`] and [`Self::accept`] with nothing in between. Also tells whether it is the
    /// highest number so far.
    ///
    /// # Errors
    /// Those of [`Self::check`], and what `open` returns.
    #[inline]
    pub fn receive<T>(
        &mut self,
        low: u32,
        open: impl FnOnce(&Fresh) -> Result<T, DropReason>,
    ) -> Result<(T, bool), DropReason> {
        let fresh = self.check(low)?;
        self.touch(fresh.0); // of an SA that was idle, the word comes from memory together with the key
        let opened = open(&fresh)?;
        let newest = fresh.0 > self.top;
        self.mark(fresh.0);
        Ok((opened, newest))
    }

    /// Reads where a number has its bit, so that it need not come from memory later.
    #[inline]
    pub(super) fn touch(&self, sequence: u64) {
        std::hint::black_box(self.word(sequence / WORD_BITS));
    }

    /// Infers the full number and refuses what is old, doubled or impossible. Changes nothing.
    ///
    /// # Errors
    /// [`DropReason::IllegalSequence`], [`DropReason::TooOld`] or [`DropReason::Replayed`].
    #[inline]
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
        self.mark(sequence);
        Ok(())
    }

    /// Takes note of a number that passed the check.
    #[inline]
    fn mark(&mut self, sequence: u64) {
        if sequence > self.top {
            self.clear_up_to(sequence);
            self.top = sequence;
        }
        if let Some(word) = self.word_mut(sequence / WORD_BITS) {
            *word |= bit(sequence);
        }
    }

    /// Goes on after `sequence`, which counts as received like everything before it: for an SA that
    /// was moved here with its state. Never goes back.
    pub fn resume_after(&mut self, sequence: u64) {
        if sequence > self.top {
            self.top = sequence;
            self.ring.fill(Line([u64::MAX; WORDS_PER_LINE]));
            if let Some(word) = self.word_mut(sequence / WORD_BITS) {
                *word = bit(sequence) | (bit(sequence) - 1);
            }
        }
    }

    #[inline]
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
        if self.top - sequence >= self.size() {
            return Err(DropReason::TooOld);
        }
        let word = self.word(sequence / WORD_BITS).unwrap_or(0);
        if word & bit(sequence) == 0 {
            Ok(())
        } else {
            Err(DropReason::Replayed)
        }
    }

    /// RFC 4303 §A2.2: the one number with these low bits that lies less than 2^32 above the
    /// lower edge of the window.
    #[inline]
    fn infer(&self, low: u32) -> Result<u64, DropReason> {
        // Without a window nothing says how late a packet may be: allow half of the space.
        let span = if self.size == 0 {
            UNCHECKED_SPAN
        } else {
            self.size()
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
    #[inline]
    fn clear_up_to(&mut self, sequence: u64) {
        let (old, new) = (self.top / WORD_BITS, sequence / WORD_BITS);
        if new - old >= (self.ring.len() * WORDS_PER_LINE) as u64 {
            self.ring.fill(EMPTY);
            return;
        }
        for number in old + 1..=new {
            if let Some(word) = self.word_mut(number) {
                *word = 0;
            }
        }
    }

    /// A word of the ring; none if the check is off.
    #[inline]
    fn word(&self, number: u64) -> Option<u64> {
        let (line, word) = self.place(number);
        self.ring.get(line)?.0.get(word).copied()
    }

    #[inline]
    fn word_mut(&mut self, number: u64) -> Option<&mut u64> {
        let (line, word) = self.place(number);
        self.ring.get_mut(line)?.0.get_mut(word)
    }

    /// Where the ring, a power of two long, keeps a word. Past the end of an empty ring.
    #[inline]
    fn place(&self, number: u64) -> (usize, usize) {
        let mask = (self.ring.len() as u64).wrapping_sub(1);
        let line = (number / WORDS_PER_LINE as u64) & mask;
        let word = number % WORDS_PER_LINE as u64;
        let index = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
        (index(line), index(word))
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
const WORDS_PER_LINE: usize = 8;
const EMPTY: Line = Line([0; WORDS_PER_LINE]);
const UNCHECKED_SPAN: u64 = 1 << 31;
