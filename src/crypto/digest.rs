//! Plain hashes that the protocols ask for by name.

use aws_lc_rs::digest;

/// SHA-1 over the concatenation of `parts`, as NAT detection hashes addresses (RFC 7296 §2.23).
pub fn sha1(parts: &[&[u8]]) -> [u8; 20] {
    let mut context = digest::Context::new(&digest::SHA1_FOR_LEGACY_USE_ONLY);
    for part in parts {
        context.update(part);
    }
    let mut output = [0; 20];
    output.copy_from_slice(context.finish().as_ref());
    output
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
