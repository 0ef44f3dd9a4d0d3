//! Randomness that repeats, and nonces that a test chooses.
#![allow(dead_code, reason = "each test program uses its own part")]

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

use rand_chacha::ChaCha20Rng;
use rand_core::{Rng, SeedableRng, TryCryptoRng, TryRng};

/// A seeded generator whose 32-byte draws, nonces among them, can be given a first byte.
pub(crate) struct Random {
    inner: ChaCha20Rng,
    first: Steering,
}

/// Chooses the first byte of the draws of one [`Random`].
#[derive(Clone)]
pub(crate) struct Steering(Arc<AtomicU16>);

impl Random {
    pub(crate) fn new(seed: u64) -> (Self, Steering) {
        let first = Steering(Arc::new(AtomicU16::new(FREE)));
        let random = Self {
            inner: ChaCha20Rng::seed_from_u64(seed),
            first: first.clone(),
        };
        (random, first)
    }
}

impl Steering {
    /// From now on, nonces begin with this byte; with `None`, they are random again.
    pub(crate) fn set(&self, first: Option<u8>) {
        self.0
            .store(first.map_or(FREE, u16::from), Ordering::Relaxed);
    }
}

impl TryRng for Random {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        Ok(self.inner.next_u32())
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        Ok(self.inner.next_u64())
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Infallible> {
        self.inner.fill_bytes(bytes);
        if bytes.len() == NONCE
            && let Ok(first) = u8::try_from(self.first.0.load(Ordering::Relaxed))
        {
            bytes[0] = first;
        }
        Ok(())
    }
}

impl TryCryptoRng for Random {}

const FREE: u16 = u16::MAX;
const NONCE: usize = 32;
