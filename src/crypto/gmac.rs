//! ENCR_NULL_AUTH_AES_GMAC (RFC 4543): GMAC over the whole ESP packet, nothing encrypted.

use ghash::GHash;
use ghash::universal_hash::UniversalHash;

use super::aead::Salt;
use super::cipher::{Aes, first_counter};
use super::constant_time_eq;
use super::packet::{AEAD_IV_LEN, Associated, AuthenticationFailed, GMAC_ICV_LEN, SealError};

/// One direction of an SA.
pub(super) struct Gmac {
    aes: Aes,
    hash: GHash,
    salt: Salt,
}

impl Gmac {
    /// Splits `key_and_salt` and expands the key.
    pub(super) fn new(key_and_salt: &[u8]) -> Option<Self> {
        let (key, &salt) = key_and_salt.split_last_chunk()?;
        let aes = Aes::new(key)?;
        let mut subkey = zeroize::Zeroizing::new([0; 16]);
        aes.encrypt_block(&mut subkey);
        let hash = GHash::new((&*subkey).into());
        Some(Self { aes, hash, salt })
    }

    pub(super) fn seal(
        &self,
        nonce: u64,
        associated: Associated<'_>,
        buffer: &mut [u8],
    ) -> Result<(), SealError> {
        let (covered, icv) = buffer.split_last_chunk_mut().ok_or(SealError::Length)?;
        let iv = covered.first_chunk_mut().ok_or(SealError::Length)?;
        *iv = nonce.to_be_bytes();
        *icv = self.tag(associated, covered).ok_or(SealError::Length)?;
        Ok(())
    }

    pub(super) fn open<'a>(
        &self,
        associated: Associated<'_>,
        buffer: &'a mut [u8],
    ) -> Result<&'a mut [u8], AuthenticationFailed> {
        let (covered, icv) = buffer
            .split_last_chunk_mut::<GMAC_ICV_LEN>()
            .ok_or(AuthenticationFailed)?;
        let tag = self.tag(associated, covered).ok_or(AuthenticationFailed)?;
        if !constant_time_eq(&tag, icv) {
            return Err(AuthenticationFailed);
        }
        covered.get_mut(AEAD_IV_LEN..).ok_or(AuthenticationFailed)
    }

    /// The ICV over header, extended sequence number, IV and text (RFC 4543 §3.3).
    fn tag(&self, associated: Associated<'_>, covered: &[u8]) -> Option<[u8; GMAC_ICV_LEN]> {
        let iv = u64::from_be_bytes(*covered.first_chunk()?);
        let mut extended = [0; 12];
        self.mac(iv, associated.aad(&mut extended)?, covered)
    }

    /// GMAC (SP 800-38D §6.4, §7.1). The header, with an extended sequence number or without, and the
    /// first bytes of the covered ones fill a block, so all others are hashed where they lie.
    fn mac(&self, iv: u64, header: &[u8], covered: &[u8]) -> Option<[u8; GMAC_ICV_LEN]> {
        let (near, rest) = covered.split_at_checked(16_usize.checked_sub(header.len())?)?;

        let mut first = [0; 16];
        let (front, behind) = first.split_at_mut_checked(header.len())?;
        front.copy_from_slice(header);
        behind.copy_from_slice(near);
        let bits = u128::try_from((first.len() + rest.len()) * 8).ok()?;
        let lengths = (bits << 64).to_be_bytes();

        let mut hash = self.hash.clone();
        hash.update(&[first.into()]);
        hash.update_padded(rest);
        hash.update(&[lengths.into()]);
        let hash = u128::from_be_bytes(hash.finalize().into());

        let mut mask = first_counter(self.salt, iv);
        self.aes.encrypt_block(&mut mask);
        Some((hash ^ u128::from_be_bytes(mask)).to_be_bytes())
    }
}

impl Drop for Gmac {
    fn drop(&mut self) {
        zeroize::Zeroize::zeroize(&mut self.salt);
    }
}

#[cfg(test)]
mod tests {
    use data_encoding::HEXLOWER;

    use super::*;

    /// Key, IV, additional data, tag: NIST's CAVP (gcmtestvectors.zip, CAVS 14.0), the first of each
    /// `[PTlen = 0]` and `[Taglen = 128]`. In ESP what is covered has the IV in it, so that they fit only
    /// here.
    const CAVP: [[&str; 4]; 4] = [
        [
            "77be63708971c4e240d1cb79e8d77feb",
            "e0e00f19fed7ba0136a797f3",
            "7a43ec1d9c0a5a78a0b16533a6213cab",
            "209fcc8d3675ed938e9c7166709dd946",
        ],
        [
            "20b5b6b854e187b058a84d57bc1538b6",
            "94c1935afc061cbf254b936f",
            "ca418e71dbf810038174eaa3719b3fcb80531c7110ad9192d105eeaafa15b819ac005668752b344e\
             d1b22faf77048baf03dbddb3b47d6b00e95c4f005e0cc9b7627ccafd3f21b3312aa8d91d3fa0893f\
             e5bff7d44ca46f23afe0",
            "b37286ebaf4a54e0ffc2a1deafc9f6db",
        ],
        [
            "093ef7551ebbff8eb0c0a8a4a62b198f0c2e838de10eeeee",
            "e656e93930ed5210ba3f0322",
            "3da22dacfd11b21b0a713157f60aec0cd22f1add",
            "1b2d2764573e20ae640bf29d48e5fe05",
        ],
        [
            "f4069bb739d07d0cafdcbc609ca01597f985c43db63bbaaa0debbb04d384e49c",
            "d25ff30fdc3d464fe173e805",
            "3e1449c4837f0892f9d55127c75c4b25d69be334baf5f19394d2d8bb460cbf2120e14736d0f634aa\
             792feca20e455f11",
            "805ec2931c2181e5bfb74fa0a975f0cf",
        ],
    ];

    #[test]
    fn tags_are_those_of_nist_wherever_the_header_ends() {
        for case in CAVP {
            let [key, iv, covered, tag] =
                case.map(|hex| HEXLOWER.decode(hex.as_bytes()).expect("a literal"));
            let (salt, iv) = iv.split_at(4);
            let gmac = Gmac::new(&[&key, salt].concat()).expect("a key of AES");
            let iv = u64::from_be_bytes(iv.try_into().expect("8 bytes"));
            for header in [8, 12] {
                let (header, covered) = covered.split_at(header);
                let own = gmac.mac(iv, header, covered).expect("more than a block");
                assert_eq!(own[..], tag);
            }
        }
    }
}
