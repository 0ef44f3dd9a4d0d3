//! The replay window against the pseudo-code of RFC 4303 §A2.3 and a set of all numbers received.
#![allow(
    clippy::cast_possible_truncation,
    reason = "the low half is what a packet carries"
)]
#![allow(
    clippy::indexing_slicing,
    reason = "an index out of bounds fails the test"
)]

use std::collections::HashSet;

use lockgate::ipsec::{DropReason, ReplayWindow};
use proptest::collection::vec;
use proptest::prelude::*;

/// What a window may do: nothing shifts, wraps or is forgotten.
struct Reference {
    size: u64,
    esn: bool,
    top: u64,
    received: HashSet<u64>,
}

impl Reference {
    fn new(size: u64, esn: bool) -> Self {
        Self {
            size,
            esn,
            top: 0,
            received: HashSet::new(),
        }
    }

    /// RFC 4303 §A2.3, line by line; `None` where Seqh would leave its 32 bits.
    fn infer(&self, low: u32) -> Option<u64> {
        if !self.esn {
            return Some(u64::from(low));
        }
        let (th, tl) = ((self.top >> 32) as u32, self.top as u32);
        let w = u32::try_from(self.size).expect("at most 8192");
        let bottom = tl.wrapping_sub(w).wrapping_add(1);
        let high = if tl >= w - 1 {
            if low >= bottom {
                Some(th)
            } else {
                th.checked_add(1)
            }
        } else if low >= bottom {
            th.checked_sub(1)
        } else {
            Some(th)
        };
        high.map(|high| u64::from(high) << 32 | u64::from(low))
    }

    fn receive(&mut self, low: u32, authentic: bool) -> Result<u64, DropReason> {
        let number = self.infer(low).ok_or(DropReason::IllegalSequence)?;
        if number == 0 {
            return Err(DropReason::IllegalSequence);
        }
        if self
            .top
            .checked_sub(number)
            .is_some_and(|age| age >= self.size)
        {
            return Err(DropReason::TooOld);
        }
        if self.received.contains(&number) {
            return Err(DropReason::Replayed);
        }
        if authentic {
            self.received.insert(number);
            self.top = self.top.max(number);
        }
        Ok(number)
    }
}

fn receive(window: &mut ReplayWindow, low: u32, authentic: bool) -> Result<u64, DropReason> {
    let fresh = window.check(low)?;
    let number = fresh.sequence();
    assert_eq!(u64::from(fresh.high()), number >> 32);
    if authentic {
        window.accept(fresh)?;
    }
    Ok(number)
}

/// How the number of the next packet relates to the window.
#[derive(Clone, Copy, Debug)]
enum Step {
    Next,
    Near(i64),
    Edge(i64),
    Jump(u64),
    Absolute(u32),
    Again(usize),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => Just(Step::Next),
        4 => (-200_i64..200).prop_map(Step::Near),
        3 => (-70_i64..70).prop_map(Step::Edge),
        2 => prop_oneof![1_u64..200, 1_u64..20_000, 1_u64..0x9000_0000].prop_map(Step::Jump),
        1 => prop_oneof![Just(0), Just(1), Just(u32::MAX), any::<u32>()].prop_map(Step::Absolute),
        2 => any::<usize>().prop_map(Step::Again),
    ]
}

fn start() -> impl Strategy<Value = u64> {
    let edges = [0, 1 << 31, 1 << 32, 1 << 33, 0xffff_ffff << 32, u64::MAX];
    (
        proptest::sample::select(edges.to_vec()),
        -20_000_i64..20_000,
    )
        .prop_map(|(edge, offset)| edge.saturating_add_signed(offset))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_window_decides_as_the_set_of_received_numbers_would(
        words in prop_oneof![Just(1_u64), Just(2), 1_u64..=128, Just(128)],
        esn: bool,
        start in start(),
        steps in vec((step(), prop::bool::weighted(0.9)), 1..400),
    ) {
        let size = words * 64;
        let start = if esn { start } else { start.min(u64::from(u32::MAX)) };
        let mut window = ReplayWindow::new(u32::try_from(size).expect("at most 8192"), esn);
        let mut reference = Reference::new(size, esn);
        if start > 0 {
            window.resume_after(start);
            reference.received.extend(start.saturating_sub(size)..=start);
            reference.top = start;
        }

        let mut sent: Vec<u32> = vec![start as u32];
        for (step, authentic) in steps {
            let top = reference.top;
            let low = match step {
                Step::Next => top.wrapping_add(1) as u32,
                Step::Near(offset) => top.wrapping_add_signed(offset) as u32,
                Step::Edge(offset) => top.wrapping_sub(size).wrapping_add_signed(offset) as u32,
                Step::Jump(distance) => top.wrapping_add(distance) as u32,
                Step::Absolute(low) => low,
                Step::Again(which) => sent[which % sent.len()],
            };
            sent.push(low);
            let expected = reference.receive(low, authentic);
            prop_assert_eq!(receive(&mut window, low, authentic), expected, "low {}", low);
            prop_assert_eq!(window.top(), reference.top);
        }
    }
}

#[test]
fn sizes_are_rounded_up_to_words_and_end_at_8192() {
    for (asked, got) in [(0, 0), (1, 64), (32, 64), (64, 64), (65, 128), (4096, 4096)] {
        assert_eq!(ReplayWindow::new(asked, false).size(), got);
    }
    assert_eq!(ReplayWindow::new(8192, false).size(), 8192);
    assert_eq!(ReplayWindow::new(u32::MAX, false).size(), 8192);
}

#[test]
fn the_last_number_inside_is_taken_once_and_the_first_outside_never() {
    for size in [64, 128, 192, 1024, 4096, 8192] {
        let mut window = ReplayWindow::new(size, false);
        assert_eq!(receive(&mut window, 100_000, true), Ok(100_000));
        let inside = 100_000 - size + 1;
        assert_eq!(receive(&mut window, inside, true), Ok(u64::from(inside)));
        assert_eq!(
            receive(&mut window, inside, true),
            Err(DropReason::Replayed)
        );
        assert_eq!(
            receive(&mut window, inside - 1, true),
            Err(DropReason::TooOld)
        );
    }
}

#[test]
fn a_forged_packet_does_not_move_the_window() {
    let mut window = ReplayWindow::new(64, false);
    assert_eq!(receive(&mut window, 10, true), Ok(10));
    assert_eq!(receive(&mut window, 0xffff_0000, false), Ok(0xffff_0000));
    assert_eq!(receive(&mut window, 9, true), Ok(9));
    assert_eq!(window.top(), 10);
}

#[test]
fn a_number_checked_twice_is_accepted_once() {
    let mut window = ReplayWindow::new(64, false);
    let first = window.check(5).expect("fresh");
    let second = window.check(5).expect("still fresh");
    assert_eq!(window.accept(first), Ok(()));
    assert_eq!(window.accept(second), Err(DropReason::Replayed));

    let late = window.check(6).expect("fresh");
    let jump = window.check(1000).expect("fresh");
    assert_eq!(window.accept(jump), Ok(()));
    assert_eq!(window.accept(late), Err(DropReason::TooOld));
}

#[test]
fn number_zero_is_never_legal_but_the_low_half_zero_is() {
    let mut short = ReplayWindow::new(64, false);
    assert_eq!(
        receive(&mut short, 0, true),
        Err(DropReason::IllegalSequence)
    );
    let mut extended = ReplayWindow::new(64, true);
    assert_eq!(
        receive(&mut extended, 0, true),
        Err(DropReason::IllegalSequence)
    );

    extended.resume_after(0xffff_ffff);
    assert_eq!(receive(&mut extended, 0, true), Ok(1 << 32));
}

#[test]
fn without_esn_numbers_do_not_wrap() {
    let mut window = ReplayWindow::new(64, false);
    assert_eq!(
        receive(&mut window, u32::MAX, true),
        Ok(u64::from(u32::MAX))
    );
    assert_eq!(receive(&mut window, 1, true), Err(DropReason::TooOld));
    assert_eq!(
        receive(&mut window, 0, true),
        Err(DropReason::IllegalSequence)
    );
}

#[test]
fn late_packets_from_before_the_wrap_keep_their_high_half() {
    let mut window = ReplayWindow::new(128, true);
    window.resume_after(0xffff_ff00);
    assert_eq!(receive(&mut window, 0xffff_ffff, true), Ok(0xffff_ffff));
    assert_eq!(receive(&mut window, 3, true), Ok(0x1_0000_0003));
    assert_eq!(receive(&mut window, 0xffff_fffe, true), Ok(0xffff_fffe));
    assert_eq!(
        receive(&mut window, 0xffff_fffe, true),
        Err(DropReason::Replayed)
    );
    assert_eq!(
        receive(&mut window, 0xffff_ffff, true),
        Err(DropReason::Replayed)
    );
    // Left of the window, so it is taken for the end of the new subspace: the ICV will not match.
    assert_eq!(receive(&mut window, 0xffff_ff00, false), Ok(0x1_ffff_ff00));
}

#[test]
fn the_last_extended_number_is_the_end() {
    let mut window = ReplayWindow::new(64, true);
    window.resume_after(u64::MAX - 1);
    assert_eq!(receive(&mut window, u32::MAX, true), Ok(u64::MAX));
    assert_eq!(
        receive(&mut window, u32::MAX, true),
        Err(DropReason::Replayed)
    );
    assert_eq!(
        receive(&mut window, 0, true),
        Err(DropReason::IllegalSequence)
    );
}

#[test]
fn switched_off_it_takes_everything_and_still_infers_the_high_half() {
    let mut off = ReplayWindow::new(0, false);
    for low in [5, 5, 0, u32::MAX, 1] {
        assert_eq!(receive(&mut off, low, true), Ok(u64::from(low)));
    }

    let mut extended = ReplayWindow::new(0, true);
    extended.resume_after(0xffff_fff0);
    assert_eq!(receive(&mut extended, 7, true), Ok(0x1_0000_0007));
    assert_eq!(receive(&mut extended, 7, true), Ok(0x1_0000_0007));
    assert_eq!(receive(&mut extended, 0xffff_0000, true), Ok(0xffff_0000));
}
