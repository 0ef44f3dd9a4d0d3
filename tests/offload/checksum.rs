//! The sum over payloads, in the width of the processor, against word-by-word addition.

use lockgate::io::offload::checksum::sum;
use lockgate::wire::ip;

use super::packets::{checksum, pattern};

#[test]
fn every_length_at_every_alignment_sums_as_word_by_word() {
    let bytes = pattern(2000);
    for start in 0..9 {
        for len in (0..300).chain([1399, 1400, 1460, 1990]) {
            let bytes = &bytes[start..start + len];
            let wanted = u32::from(!checksum(bytes));
            assert_eq!(sum(0, bytes), wanted, "{len} bytes from {start}");
            assert_eq!(ip::checksum::sum(0, bytes), wanted);
        }
    }
}

#[test]
fn the_longest_packet_of_the_largest_words_overflows_nothing() {
    for len in [65_534, 65_535] {
        let bytes = vec![0xff; len];
        let wanted = u32::from(!checksum(&bytes));
        assert_eq!(sum(0, &bytes), wanted);
        assert_eq!(ip::checksum::sum(0, &bytes), wanted);
    }
}

/// Zero and all ones are the same number, but only nothing sums to zero.
#[test]
fn a_sum_is_zero_only_if_everything_is() {
    for len in [2, 20, 64, 128, 1400] {
        assert_eq!(sum(0, &vec![0; len]), 0);
        assert_eq!(sum(0xffff, &vec![0; len]), 0xffff);
        assert_eq!(sum(0, &vec![0xff; len]), 0xffff);
        assert_eq!(sum(u32::MAX, &vec![0xff; len]), 0xffff);
    }
}

#[test]
fn sums_of_pieces_of_even_length_are_chained() {
    let bytes = pattern(1400);
    for at in (0..1400).step_by(2) {
        let (one, other) = bytes.split_at(at);
        assert_eq!(sum(sum(0, one), other), sum(0, &bytes));
    }
}
