//! The Internet checksum over whole payloads, as wide as the processor adds.

use crate::wire::ip::checksum;

/// One's complement sum of `initial` and the big-endian 16-bit words of `bytes`, as
/// [`checksum::sum`] gives it.
#[must_use]
pub fn sum(initial: u32, bytes: &[u8]) -> u32 {
    #[cfg(target_arch = "x86_64")]
    if bytes.len() >= WORTH_ASKING && std::arch::is_x86_feature_detected!("avx2") {
        // SAFETY: the processor has AVX2, as was asked in the line above.
        return unsafe { sum_avx2(initial, bytes) };
    }
    checksum::sum(initial, bytes)
}

/// The same code, compiled for vectors of 32 bytes.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn sum_avx2(initial: u32, bytes: &[u8]) -> u32 {
    checksum::sum_inline(initial, bytes)
}

/// Below, wide vectors gain less than the question costs.
#[cfg(target_arch = "x86_64")]
const WORTH_ASKING: usize = 128;
