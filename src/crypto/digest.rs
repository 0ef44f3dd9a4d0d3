//! Plain hashes that the protocols ask for by name.

use aws_lc_rs::digest;
use md5::{Digest, Md5};

use crate::wire::proposal::PrfId;

/// SHA-1 over the concatenation of `parts`, as NAT detection hashes addresses (RFC 7296 §2.23).
pub fn sha1(parts: &[&[u8]]) -> [u8; 20] {
    let digest = digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, &parts.concat());
    let mut output = [0; 20];
    output.copy_from_slice(digest.as_ref());
    output
}

/// The hash that a function is HMAC with, over the concatenation of `parts`: what IKEv1 negotiates
/// (RFC 2409 appendix A). `None` for a function that is no HMAC of ours.
pub fn hash(prf: PrfId, parts: &[&[u8]]) -> Option<Vec<u8>> {
    let algorithm = match prf {
        PrfId::HMAC_MD5 => return Some(Md5::digest(parts.concat()).to_vec()),
        PrfId::HMAC_SHA1 => return Some(sha1(parts).to_vec()),
        PrfId::HMAC_SHA2_256 => &digest::SHA256,
        PrfId::HMAC_SHA2_384 => &digest::SHA384,
        PrfId::HMAC_SHA2_512 => &digest::SHA512,
        _ => return None,
    };
    let mut context = digest::Context::new(algorithm);
    for part in parts {
        context.update(part);
    }
    Some(context.finish().as_ref().to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sha1_of_two_parts_is_the_fips_180_example() {
        let expected = [
            0xa9, 0x99, 0x3e, 0x36, 0x47, 0x06, 0x81, 0x6a, 0xba, 0x3e, 0x25, 0x71, 0x78, 0x50,
            0xc2, 0x6c, 0x9c, 0xd0, 0xd8, 0x9d,
        ];
        assert_eq!(sha1(&[b"a", b"bc"]), expected);
    }
}
