//! Key derivation of IKEv1: SKEYID and what comes from it (RFC 2409 §5, §5.5, appendix B).

use zeroize::Zeroizing;

use super::kdf::HalfKeys;
use super::packet::{encryption_key_len, integrity_key_len};
use super::prf::Prf;
use super::secret::Secret;
use crate::wire::proposal::CipherSuite;

/// The keys of one ISAKMP SA.
#[derive(Debug)]
pub struct IsakmpKeys {
    prf: Prf,
    skeyid: Secret,
    skeyid_d: Secret,
    skeyid_a: Secret,
    skeyid_e: Secret,
}

/// What makes the keys of one IPsec SA different from those of all others.
#[derive(Clone, Copy, Debug)]
pub struct QuickSeed<'a> {
    /// g(qm)^xy, with perfect forward secrecy.
    pub shared: Option<&'a Secret>,
    /// Protocol number of the DOI.
    pub protocol: u8,
    /// Of the SA's receiver.
    pub spi: u32,
    /// Nonce of the exchange's initiator.
    pub ni: &'a [u8],
    /// Nonce of its responder.
    pub nr: &'a [u8],
}

/// SKEYID where a preshared key authenticates: `prf(key, Ni_b | Nr_b)`.
pub fn of_preshared_key(prf: Prf, key: &Secret, ni: &[u8], nr: &[u8]) -> Secret {
    prf.mac(key.as_bytes(), &[ni, nr])
}

/// SKEYID where signatures authenticate: `prf(Ni_b | Nr_b, g^xy)`.
pub fn of_signatures(prf: Prf, shared: &Secret, ni: &[u8], nr: &[u8]) -> Secret {
    prf.mac(&[ni, nr].concat(), &[shared.as_bytes()])
}

impl IsakmpKeys {
    /// Derives SKEYID_d, SKEYID_a and SKEYID_e. `shared` is g^xy; the cookies are the initiator's and
    /// the responder's.
    pub fn derive(prf: Prf, skeyid: Secret, shared: &Secret, cookies: [[u8; 8]; 2]) -> Self {
        let [cky_i, cky_r] = &cookies;
        let next = |before: &[u8], number: u8| {
            let parts = [before, shared.as_bytes(), cky_i, cky_r, &[number]];
            prf.mac(skeyid.as_bytes(), &parts)
        };
        let skeyid_d = next(&[], 0);
        let skeyid_a = next(skeyid_d.as_bytes(), 1);
        let skeyid_e = next(skeyid_a.as_bytes(), 2);
        Self {
            prf,
            skeyid,
            skeyid_d,
            skeyid_a,
            skeyid_e,
        }
    }

    /// HASH_I and HASH_R of phase 1: `prf(SKEYID, parts…)`.
    pub fn proof(&self, parts: &[&[u8]]) -> Secret {
        self.prf.mac(self.skeyid.as_bytes(), parts)
    }

    /// The HASH of a message under the ISAKMP SA: `prf(SKEYID_a, parts…)`.
    pub fn hash(&self, parts: &[&[u8]]) -> Secret {
        self.prf.mac(self.skeyid_a.as_bytes(), parts)
    }

    /// The key that encrypts messages, of `len` bytes: SKEYID_e, expanded where that is too short.
    pub fn encryption_key(&self, len: usize) -> Secret {
        if let Some(key) = self.skeyid_e.as_bytes().get(..len) {
            return Secret::copy_from(key);
        }
        expand(self.prf, &self.skeyid_e, &[0], &[], len)
    }

    /// KEYMAT of one IPsec SA, split into its keys.
    pub fn keymat(&self, seed: &QuickSeed<'_>, suite: &CipherSuite) -> HalfKeys {
        let encryption = encryption_key_len(suite);
        let len = encryption + integrity_key_len(suite);
        let parts = Zeroizing::new(
            [
                seed.shared.map(Secret::as_bytes).unwrap_or_default(),
                &[seed.protocol],
                &seed.spi.to_be_bytes(),
                seed.ni,
                seed.nr,
            ]
            .concat(),
        );
        let keymat = expand(self.prf, &self.skeyid_d, &parts, &parts, len);
        let (encryption, integrity) = keymat.as_bytes().split_at(encryption);
        HalfKeys {
            encryption: Secret::copy_from(encryption),
            integrity: Secret::copy_from(integrity),
        }
    }
}

/// `K1 | K2 | …` cut to `len` bytes, with `K1 = prf(key, first)` and `Kn = prf(key, Kn-1 | each)`.
fn expand(prf: Prf, key: &Secret, first: &[u8], each: &[u8], len: usize) -> Secret {
    let mut block = prf.mac(key.as_bytes(), &[first]);
    let mut output = Zeroizing::new(Vec::with_capacity(len.next_multiple_of(block.len())));
    output.extend_from_slice(block.as_bytes());
    while output.len() < len {
        block = prf.mac(key.as_bytes(), &[block.as_bytes(), each]);
        output.extend_from_slice(block.as_bytes());
    }
    Secret::copy_from(output.get(..len).expect("it grew until it was that long"))
}
