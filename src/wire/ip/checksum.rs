//! The Internet checksum (RFC 1071) and its incremental update (RFC 1624).

use std::net::IpAddr;

/// One's complement sum of `initial` and the big-endian 16-bit words of `bytes`, an odd last byte
/// padded with zero. Not complemented yet; at most `0xffff`, so that sums can be chained.
pub fn sum(initial: u32, bytes: &[u8]) -> u32 {
    let (words, tail) = bytes.as_chunks::<4>();
    let mut total = u64::from(initial);
    for word in words {
        total += u64::from(u32::from_be_bytes(*word));
    }
    total += match *tail {
        [a, b, c] => u64::from(u16::from_be_bytes([a, b])) + u64::from(u16::from_be_bytes([c, 0])),
        [a, b] => u64::from(u16::from_be_bytes([a, b])),
        [a] => u64::from(u16::from_be_bytes([a, 0])),
        _ => 0,
    };
    u32::from(fold(total))
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

fn fold(mut sum: u64) -> u16 {
    loop {
        match u16::try_from(sum) {
            Ok(folded) => return folded,
            Err(_) => sum = (sum & 0xffff) + (sum >> 16),
        }
    }
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
