//! Names of SAs, policies and workers.

use std::fmt;
use std::num::{NonZeroU16, NonZeroU32};

use crate::crypto::CryptoRng;

/// The SPI of an ESP SA (RFC 4303 §2.1). Never one of 0 to 255, which are reserved.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Spi(NonZeroU32);

impl Spi {
    /// Refuses the reserved values 0 to 255.
    #[must_use]
    pub fn new(value: u32) -> Option<Self> {
        if value <= LAST_RESERVED {
            return None;
        }
        NonZeroU32::new(value).map(Self)
    }

    /// The number.
    #[must_use]
    pub fn get(self) -> u32 {
        self.0.get()
    }

    /// The four bytes on the wire.
    #[must_use]
    pub fn to_be_bytes(self) -> [u8; 4] {
        self.get().to_be_bytes()
    }

    /// The worker that a packet with this SPI is steered to.
    ///
    /// The filters of the sockets compute the same remainder, so an inbound SPI names its owner.
    #[must_use]
    pub fn worker(self, workers: NonZeroU16) -> WorkerId {
        let remainder = self.get() % u32::from(workers.get());
        WorkerId(u16::try_from(remainder).expect("a remainder of a 16-bit division fits"))
    }
}

impl fmt::Display for Spi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}", self.get())
    }
}

/// Chooses a random inbound SPI that belongs to `owner` and is not `taken`.
///
/// `owner` counts from zero and is below `workers`. Values are drawn until one is free, so `taken`
/// must not cover an owner's whole share (at least 65 000 values).
pub fn allocate_spi(
    rng: &mut dyn CryptoRng,
    owner: WorkerId,
    workers: NonZeroU16,
    taken: impl Fn(Spi) -> bool,
) -> Spi {
    let workers = u32::from(workers.get());
    let owner = u32::from(owner.0) % workers;
    loop {
        let drawn = rng.next_u32();
        let candidate = (drawn - drawn % workers)
            .checked_add(owner)
            .and_then(Spi::new);
        if let Some(spi) = candidate.filter(|spi| !taken(*spi)) {
            return spi;
        }
    }
}

/// A worker thread, counted from zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WorkerId(pub u16);

/// A Child SA: the pair of an inbound and an outbound SA that were negotiated together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChildId(pub u64);

impl fmt::Display for ChildId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Ties a policy to the SAs that may serve it. Rekeying keeps it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Reqid(pub u32);

impl fmt::Display for Reqid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A policy of the SPD.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PolicyId(pub u32);

/// RFC 4303 §2.1: zero is for local use, 1 to 255 are reserved by IANA.
const LAST_RESERVED: u32 = 255;

#[cfg(test)]
mod tests {
    use super::*;
    use rand_chacha::ChaCha20Rng;
    use rand_core::SeedableRng;

    #[test]
    fn reserved_values_are_no_spi() {
        assert!((0..=255).all(|value| Spi::new(value).is_none()));
        assert_eq!(Spi::new(256).map(Spi::get), Some(256));
        assert_eq!(
            Spi::new(0xabcd).expect("not reserved").to_string(),
            "0000abcd"
        );
    }

    #[test]
    fn an_allocated_spi_belongs_to_its_owner_and_is_free() {
        let mut rng = ChaCha20Rng::seed_from_u64(7);
        for workers in [1, 2, 3, 7, 64, u16::MAX] {
            let workers = NonZeroU16::new(workers).expect("not zero");
            for owner in [0, workers.get() / 2, workers.get() - 1].map(WorkerId) {
                let first = allocate_spi(&mut rng, owner, workers, |_| false);
                let second = allocate_spi(&mut rng, owner, workers, |spi| spi == first);
                assert_eq!(first.worker(workers), owner);
                assert_eq!(second.worker(workers), owner);
                assert_ne!(first, second);
            }
        }
    }
}
