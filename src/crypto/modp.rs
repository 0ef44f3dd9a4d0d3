//! The MODP groups of RFC 3526, whose generator is 2.

use std::sync::LazyLock;

use crypto_bigint::modular::{FixedMontyForm, FixedMontyParams};
use crypto_bigint::{Odd, U320, U448, U512, U2048, U3072, U4096, Uint};
use rand_core::CryptoRng;
use zeroize::Zeroizing;

use super::secret::Secret;
use crate::wire::proposal::KeyExchangeId;

/// A private exponent. Its length is the larger of RFC 3526 §8's estimates, in whole words: the
/// primes are safe, so a short exponent loses nothing.
pub(super) enum ModpKey {
    Modp2048(Zeroizing<U320>),
    Modp3072(Zeroizing<U448>),
    Modp4096(Zeroizing<U512>),
}

impl ModpKey {
    pub(super) fn is_supported(group: KeyExchangeId) -> bool {
        matches!(
            group,
            KeyExchangeId::MODP2048 | KeyExchangeId::MODP3072 | KeyExchangeId::MODP4096
        )
    }

    /// `None` for a group that is none of ours.
    pub(super) fn generate(group: KeyExchangeId, rng: &mut dyn CryptoRng) -> Option<Self> {
        Some(match group {
            KeyExchangeId::MODP2048 => Self::Modp2048(exponent(rng)),
            KeyExchangeId::MODP3072 => Self::Modp3072(exponent(rng)),
            KeyExchangeId::MODP4096 => Self::Modp4096(exponent(rng)),
            _ => return None,
        })
    }

    /// `2^x mod p`, as long as the prime.
    pub(super) fn public(&self) -> Vec<u8> {
        match self {
            Self::Modp2048(x) => power(&PRIME_2048, &Uint::from(2u8), x),
            Self::Modp3072(x) => power(&PRIME_3072, &Uint::from(2u8), x),
            Self::Modp4096(x) => power(&PRIME_4096, &Uint::from(2u8), x),
        }
    }

    /// `y^x mod p`, as long as the prime; `None` unless `peer` has exactly that length too and
    /// `1 < y < p-1` (RFC 6989 §2.1, RFC 7296 §3.4).
    pub(super) fn agree(&self, peer: &[u8]) -> Option<Secret> {
        let shared = match self {
            Self::Modp2048(x) => power(&PRIME_2048, &valid(&PRIME_2048, peer)?, x),
            Self::Modp3072(x) => power(&PRIME_3072, &valid(&PRIME_3072, peer)?, x),
            Self::Modp4096(x) => power(&PRIME_4096, &valid(&PRIME_4096, peer)?, x),
        };
        Some(Secret::from(shared))
    }
}

fn exponent<const WORDS: usize>(rng: &mut dyn CryptoRng) -> Zeroizing<Uint<WORDS>> {
    let mut bytes = Zeroizing::new(vec![0; Uint::<WORDS>::BYTES]);
    rng.fill_bytes(&mut bytes);
    Zeroizing::new(Uint::from_be_slice(&bytes))
}

fn valid<const WORDS: usize>(prime: &Prime<WORDS>, peer: &[u8]) -> Option<Uint<WORDS>> {
    if peer.len() != Uint::<WORDS>::BYTES {
        return None;
    }
    let y = Uint::from_be_slice(peer);
    let last = prime.modulus().wrapping_sub(&Uint::ONE);
    (y > Uint::ONE && y < last).then_some(y)
}

/// Takes the same time for every exponent of one length.
fn power<const WORDS: usize, const EXPONENT_WORDS: usize>(
    prime: &Prime<WORDS>,
    base: &Uint<WORDS>,
    exponent: &Uint<EXPONENT_WORDS>,
) -> Vec<u8> {
    let power = Zeroizing::new(FixedMontyForm::new(base, prime).pow(exponent));
    let power = Zeroizing::new(power.retrieve());
    Zeroizing::new(power.to_be_bytes()).as_ref().to_vec()
}

type Prime<const WORDS: usize> = LazyLock<FixedMontyParams<WORDS>>;

fn prime<const WORDS: usize>(value: Uint<WORDS>) -> FixedMontyParams<WORDS> {
    FixedMontyParams::new_vartime(Odd::new(value).expect("the prime is odd"))
}

/// Group 14 (RFC 3526 §3).
static PRIME_2048: Prime<{ U2048::LIMBS }> = LazyLock::new(|| {
    prime(U2048::from_be_hex(
        "\
         FFFFFFFFFFFFFFFFC90FDAA22168C234C4C6628B80DC1CD129024E088A67CC74020BBEA63B139B22\
         514A08798E3404DDEF9519B3CD3A431B302B0A6DF25F14374FE1356D6D51C245E485B576625E7EC6\
         F44C42E9A637ED6B0BFF5CB6F406B7EDEE386BFB5A899FA5AE9F24117C4B1FE649286651ECE45B3D\
         C2007CB8A163BF0598DA48361C55D39A69163FA8FD24CF5F83655D23DCA3AD961C62F356208552BB\
         9ED529077096966D670C354E4ABC9804F1746C08CA18217C32905E462E36CE3BE39E772C180E8603\
         9B2783A2EC07A28FB5C55DF06F4C52C9DE2BCBF6955817183995497CEA956AE515D2261898FA0510\
         15728E5A8AACAA68FFFFFFFFFFFFFFFF",
    ))
});

/// Group 15 (RFC 3526 §4).
static PRIME_3072: Prime<{ U3072::LIMBS }> = LazyLock::new(|| {
    prime(U3072::from_be_hex(
        "\
         FFFFFFFFFFFFFFFFC90FDAA22168C234C4C6628B80DC1CD129024E088A67CC74020BBEA63B139B22\
         514A08798E3404DDEF9519B3CD3A431B302B0A6DF25F14374FE1356D6D51C245E485B576625E7EC6\
         F44C42E9A637ED6B0BFF5CB6F406B7EDEE386BFB5A899FA5AE9F24117C4B1FE649286651ECE45B3D\
         C2007CB8A163BF0598DA48361C55D39A69163FA8FD24CF5F83655D23DCA3AD961C62F356208552BB\
         9ED529077096966D670C354E4ABC9804F1746C08CA18217C32905E462E36CE3BE39E772C180E8603\
         9B2783A2EC07A28FB5C55DF06F4C52C9DE2BCBF6955817183995497CEA956AE515D2261898FA0510\
         15728E5A8AAAC42DAD33170D04507A33A85521ABDF1CBA64ECFB850458DBEF0A8AEA71575D060C7D\
         B3970F85A6E1E4C7ABF5AE8CDB0933D71E8C94E04A25619DCEE3D2261AD2EE6BF12FFA06D98A0864\
         D87602733EC86A64521F2B18177B200CBBE117577A615D6C770988C0BAD946E208E24FA074E5AB31\
         43DB5BFCE0FD108E4B82D120A93AD2CAFFFFFFFFFFFFFFFF",
    ))
});

/// Group 16 (RFC 3526 §5).
static PRIME_4096: Prime<{ U4096::LIMBS }> = LazyLock::new(|| {
    prime(U4096::from_be_hex(
        "\
         FFFFFFFFFFFFFFFFC90FDAA22168C234C4C6628B80DC1CD129024E088A67CC74020BBEA63B139B22\
         514A08798E3404DDEF9519B3CD3A431B302B0A6DF25F14374FE1356D6D51C245E485B576625E7EC6\
         F44C42E9A637ED6B0BFF5CB6F406B7EDEE386BFB5A899FA5AE9F24117C4B1FE649286651ECE45B3D\
         C2007CB8A163BF0598DA48361C55D39A69163FA8FD24CF5F83655D23DCA3AD961C62F356208552BB\
         9ED529077096966D670C354E4ABC9804F1746C08CA18217C32905E462E36CE3BE39E772C180E8603\
         9B2783A2EC07A28FB5C55DF06F4C52C9DE2BCBF6955817183995497CEA956AE515D2261898FA0510\
         15728E5A8AAAC42DAD33170D04507A33A85521ABDF1CBA64ECFB850458DBEF0A8AEA71575D060C7D\
         B3970F85A6E1E4C7ABF5AE8CDB0933D71E8C94E04A25619DCEE3D2261AD2EE6BF12FFA06D98A0864\
         D87602733EC86A64521F2B18177B200CBBE117577A615D6C770988C0BAD946E208E24FA074E5AB31\
         43DB5BFCE0FD108E4B82D120A92108011A723C12A787E6D788719A10BDBA5B2699C327186AF4E23C\
         1A946834B6150BDA2583E9CA2AD44CE8DBBBC2DB04DE8EF92E8EFC141FBECAA6287C59474E6BC05D\
         99B2964FA090C3A2233BA186515BE7ED1F612970CEE2D7AFB81BDD762170481CD0069127D5B05AA9\
         93B4EA988D8FDDC186FFB7DC90A6C08F4DF435C934063199FFFFFFFFFFFFFFFF",
    ))
});
