//! The Internet checksum (RFC 1071) and its incremental update (RFC 1624).

use std::net::IpAddr;

/// One's complement sum of `initial` and the big-endian 16-bit words of `bytes`, an odd last byte
/// padded with zero. Not complemented yet; at most `0xffff`, so that sums can be chained.
pub fn sum(initial: u32, bytes: &[u8]) -> u32 {
    sum_inline(initial, bytes)
}

/// [`sum`], to be compiled with the vector width of its caller.
#[inline(always)]
pub fn sum_inline(initial: u32, bytes: &[u8]) -> u32 {
    // Bytes are added in the machine's order and swapped once, at the end (RFC 1071 §2 B). Of each
    // word both halves count: `all` adds them in one piece, and what its upper half lost by
    // overflow is known from `high`. Vector units do that in three steps per vector.
    let (words, rest) = bytes.as_chunks::<8>();
    let (mut all, mut high) = (0_u64, 0_u64);
    for word in words {
        let word = u64::from_ne_bytes(*word);
        all = all.wrapping_add(word);
        high += word >> 32;
    }
    let low = all.wrapping_sub(high << 32);
    let mut total = low + high;
    let (words, tail) = rest.as_chunks::<4>();
    for word in words {
        total += u64::from(u32::from_ne_bytes(*word));
    }
    let tail = match *tail {
        [a, b, c] => [a, b, c, 0],
        [a, b] => [a, b, 0, 0],
        [a] => [a, 0, 0, 0],
        _ => [0; 4],
    };
    total += u64::from(u32::from_ne_bytes(tail));
    u32::from(fold(u64::from(initial) + u64::from(fold(total).to_be())))
}

/// Folds and complements a sum into a checksum field.
pub fn finish(sum: u32) -> u16 {
    !fold(sum.into())
}

/// The checksum of `bytes`.
pub fn checksum(bytes: &[u8]) -> u16 {
    finish(sum(0, bytes))
}

/// Sum of the pseudo-header that TCP, UDP and ICMPv6 cover (RFC 9293 §3.1, RFC 8200 §8.1).
pub fn pseudo_header(src: IpAddr, dst: IpAddr, protocol: u8, length: u32) -> u32 {
    let [l0, l1, l2, l3] = length.to_be_bytes();
    let partial = sum(0, &[l0, l1, l2, l3, 0, protocol]);
    [src, dst]
        .iter()
        .fold(partial, |partial, address| match address {
            IpAddr::V4(address) => sum(partial, &address.octets()),
            IpAddr::V6(address) => sum(partial, &address.octets()),
        })
}

/// The checksum after one 16-bit word changed from `old` to `new` (RFC 1624 §3, equation 3).
pub fn update(checksum: u16, old: u16, new: u16) -> u16 {
    !fold(u64::from(!checksum) + u64::from(!old) + u64::from(new))
}

/// Adds the upper half to the lower one, carry included, until 16 bits are left. Only zero becomes
/// zero.
#[inline(always)]
#[allow(
    clippy::cast_possible_truncation,
    reason = "the half that is kept was shifted down"
)]
fn fold(sum: u64) -> u16 {
    let sum = (sum.wrapping_add(sum.rotate_left(32)) >> 32) as u32;
    (sum.wrapping_add(sum.rotate_left(16)) >> 16) as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 1071 §3: the words 0001 f203 f4f5 f6f7 sum to ddf2.
    #[test]
    fn the_worked_example_of_rfc_1071_sums_to_ddf2() {
        let bytes = [0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7];
        assert_eq!(sum(0, &bytes), 0xddf2);
        assert_eq!(checksum(&bytes), !0xddf2);
    }

    /// RFC 1624 §4: 0x5555 to 0x3285 takes 0xdd2f to 0x0000, which equation 2 gets wrong.
    #[test]
    fn the_worked_example_of_rfc_1624_updates_to_zero() {
        assert_eq!(update(0xdd2f, 0x5555, 0x3285), 0x0000);
    }

    #[test]
    fn every_tail_length_sums_as_if_padded_with_zero() {
        let bytes: Vec<u8> = (200..=220).collect();
        for len in 0..bytes.len() {
            let mut padded = bytes[..len].to_vec();
            padded.resize(len.next_multiple_of(2), 0);
            let words = padded
                .chunks(2)
                .map(|word| u32::from(word[0]) << 8 | u32::from(word[1]));
            let total: u32 = words.sum();
            assert_eq!(
                sum(0, &bytes[..len]),
                (total & 0xffff) + (total >> 16),
                "{len} bytes"
            );
        }
    }
}
