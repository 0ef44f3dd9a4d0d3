//! The processor's time-stamp counter, which runs at one rate whatever the clock of the core does.

/// Its value, where there is one.
#[cfg(target_arch = "x86_64")]
#[must_use]
pub fn timestamp() -> Option<u64> {
    // SAFETY: the instruction exists on every x86-64 processor and reads a counter.
    Some(unsafe { std::arch::x86_64::_rdtsc() })
}

/// Its value, where there is one.
#[cfg(not(target_arch = "x86_64"))]
#[must_use]
pub fn timestamp() -> Option<u64> {
    None
}
