//! Stateless cookies (RFC 7296 §2.6).

use std::net::IpAddr;
use std::time::{Duration, Instant};

use crate::crypto::prf::Prf;
use crate::crypto::{CryptoRng, Secret, constant_time_eq};
use crate::wire::isakmp::IkeSpi;
use crate::wire::proposal::PrfId;

/// Makes and checks cookies. A secret makes them for one minute and checks them for another.
#[derive(Debug)]
pub(super) struct CookieJar {
    prf: Prf,
    current: Secret,
    previous: Option<Secret>,
    generation: u8,
    rotated: Instant,
}

impl CookieJar {
    pub(super) fn new(now: Instant, rng: &mut dyn CryptoRng) -> Self {
        Self {
            prf: Prf::new(PrfId::HMAC_SHA2_256).expect("HMAC-SHA2-256 is always there"),
            current: draw(rng),
            previous: None,
            generation: 0,
            rotated: now,
        }
    }

    /// The cookie that this initiator has to return.
    pub(super) fn make(
        &mut self,
        (addr, spi, nonce): (IpAddr, IkeSpi, &[u8]),
        now: Instant,
        rng: &mut dyn CryptoRng,
    ) -> Vec<u8> {
        self.rotate(now, rng);
        let mut cookie = vec![self.generation];
        cookie.extend_from_slice(self.mac(&self.current, addr, spi, nonce).as_bytes());
        cookie
    }

    /// Whether we made this cookie for this initiator, and not too long ago.
    pub(super) fn check(
        &mut self,
        cookie: &[u8],
        (addr, spi, nonce): (IpAddr, IkeSpi, &[u8]),
        now: Instant,
        rng: &mut dyn CryptoRng,
    ) -> bool {
        self.rotate(now, rng);
        let Some((generation, mac)) = cookie.split_first() else {
            return false;
        };
        let secret = match self.generation.wrapping_sub(*generation) {
            0 => Some(&self.current),
            1 => self.previous.as_ref(),
            _ => None,
        };
        secret.is_some_and(|secret| {
            constant_time_eq(self.mac(secret, addr, spi, nonce).as_bytes(), mac)
        })
    }

    fn mac(&self, secret: &Secret, addr: IpAddr, spi: IkeSpi, nonce: &[u8]) -> Secret {
        let octets = match addr {
            IpAddr::V4(addr) => addr.to_ipv6_mapped().octets(),
            IpAddr::V6(addr) => addr.octets(),
        };
        self.prf.mac(secret.as_bytes(), &[&octets, &spi.0, nonce])
    }

    fn rotate(&mut self, now: Instant, rng: &mut dyn CryptoRng) {
        let age = now.saturating_duration_since(self.rotated);
        if age < ROTATION {
            return;
        }
        let old = std::mem::replace(&mut self.current, draw(rng));
        self.previous = (age < ROTATION * 2).then_some(old);
        self.generation = self.generation.wrapping_add(1);
        self.rotated = now;
    }
}

fn draw(rng: &mut dyn CryptoRng) -> Secret {
    let mut bytes = vec![0; 32];
    rng.fill_bytes(&mut bytes);
    Secret::from(bytes)
}

const ROTATION: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;
    use rand_chacha::ChaCha20Rng;
    use rand_core::SeedableRng;

    #[test]
    fn a_cookie_is_good_for_its_initiator_and_its_time_only() {
        let mut rng = ChaCha20Rng::seed_from_u64(5);
        let start = Instant::now();
        let mut jar = CookieJar::new(start, &mut rng);
        let addr: IpAddr = "192.0.2.1".parse().expect("an address");
        let other: IpAddr = "192.0.2.2".parse().expect("an address");
        let spi = IkeSpi([7; 8]);
        let nonce = [9; 32];
        let cookie = jar.make((addr, spi, &nonce), start, &mut rng);
        assert!((1..=64).contains(&cookie.len()));

        let mut check = |cookie: &[u8], who, after| {
            jar.check(cookie, who, start + Duration::from_secs(after), &mut rng)
        };
        assert!(check(&cookie, (addr, spi, &nonce), 1));
        assert!(!check(&cookie, (other, spi, &nonce), 1));
        assert!(!check(&cookie, (addr, IkeSpi([8; 8]), &nonce), 1));
        assert!(!check(&cookie, (addr, spi, &nonce[..16]), 1));
        assert!(!check(&[], (addr, spi, &nonce), 1));
        assert!(!check(&[0; 65], (addr, spi, &nonce), 1));
        assert!(check(&cookie, (addr, spi, &nonce), 70));
        assert!(!check(&cookie, (addr, spi, &nonce), 140));
    }
}
