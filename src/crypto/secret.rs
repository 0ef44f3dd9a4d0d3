//! Bytes that must not be printed, copied by accident or left behind in memory.

use std::fmt;

use zeroize::Zeroizing;

use super::constant_time_eq;

/// A key, a shared secret or anything derived from one.
///
/// Erased when dropped, shown as its length only, compared in constant time, and not `Clone`.
pub struct Secret(Zeroizing<Vec<u8>>);

impl Secret {
    /// Copies `bytes` into a new secret; the caller still has to erase the original.
    pub fn copy_from(bytes: &[u8]) -> Self {
        Self::from(bytes.to_vec())
    }

    /// The bytes themselves. Do not store or print what this returns.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// How many bytes the secret has.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is nothing to keep secret, as with the integrity key of an AEAD suite.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl From<Vec<u8>> for Secret {
    fn from(bytes: Vec<u8>) -> Self {
        Self(Zeroizing::new(bytes))
    }
}

impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        constant_time_eq(&self.0, &other.0)
    }
}

impl Eq for Secret {}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secret({} bytes)", self.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_output_shows_the_length_and_nothing_else() {
        let secret = Secret::copy_from(b"hunter2");
        assert_eq!(format!("{secret:?}"), "Secret(7 bytes)");
    }

    #[test]
    fn equality_needs_the_same_bytes_and_the_same_length() {
        let secret = Secret::copy_from(b"abc");
        assert_eq!(secret, Secret::copy_from(b"abc"));
        assert_ne!(secret, Secret::copy_from(b"abd"));
        assert_ne!(secret, Secret::copy_from(b"abcd"));
    }
}
