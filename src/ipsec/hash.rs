//! A hash for keys that no sender chooses.

use std::hash::{BuildHasherDefault, Hasher};

/// Builds [`KeyHasher`]s.
pub(super) type KeyHash = BuildHasherDefault<KeyHasher>;

/// Folded multiplication, for tables whose entries come from us or from the configuration.
///
/// A sender chooses only what is looked up, never what is stored, so he cannot lengthen a chain.
/// The product is folded because the SPIs of one worker share their low bits.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct KeyHasher(u64);

impl Hasher for KeyHasher {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }

    fn write_u32(&mut self, value: u32) {
        self.write_u64(u64::from(value));
    }

    fn write_u64(&mut self, value: u64) {
        let product = u128::from(self.0 ^ value ^ SALT) * u128::from(MULTIPLIER);
        self.0 = low_half(product) ^ low_half(product >> 64);
    }

    fn write_u128(&mut self, value: u128) {
        self.write_u64(low_half(value));
        self.write_u64(low_half(value >> 64));
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

#[allow(
    clippy::cast_possible_truncation,
    reason = "the low half is what is asked for"
)]
fn low_half(value: u128) -> u64 {
    value as u64
}

/// 2^64 divided by the golden ratio, odd.
const MULTIPLIER: u64 = 0x9e37_79b9_7f4a_7c15;
/// Fraction of pi: keeps a zero key from hashing to zero.
const SALT: u64 = 0x2436_3f84_885a_308d;

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;
    use std::hash::BuildHasher;

    #[test]
    fn spis_of_one_worker_spread_over_tag_and_bucket_bits() {
        for workers in [1_u32, 2, 16, 64, 256] {
            let hashes: Vec<u64> = (1..=4096)
                .map(|n| KeyHash::default().hash_one(n * workers + 1))
                .collect();
            let buckets: HashSet<u64> = hashes.iter().map(|hash| hash % 4096).collect();
            let tags: HashSet<u64> = hashes.iter().map(|hash| hash >> 57).collect();
            assert!(
                buckets.len() > 2000,
                "{workers} workers: {} buckets",
                buckets.len()
            );
            assert_eq!(tags.len(), 128, "{workers} workers");
        }
    }
}
