//! The list in SUPPORTED_AUTH_METHODS (RFC 9593 §3.2).

use super::AuthMethod;

/// An authentication method that the sender verifies.
///
/// ```text
/// length (1) | method (1) | certificate link (1), if length > 2 | AlgorithmIdentifier, if length > 3
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AuthAnnouncement<'a> {
    /// The method.
    pub method: AuthMethod,
    /// Place of the authority in CERTREQ below which it is accepted, from 1; 0 for all.
    pub cert_link: u8,
    /// The DER of what to sign with; empty for methods that have no choice.
    pub algorithm: &'a [u8],
}

impl<'a> AuthAnnouncement<'a> {
    /// Reads a list; a part that does not fit, and all behind it, is left out.
    pub fn parse_all(mut data: &'a [u8]) -> impl Iterator<Item = Self> {
        std::iter::from_fn(move || {
            let length = usize::from(*data.first()?);
            let (announcement, rest) = data.split_at_checked(length)?;
            let (&[_, method], rest_of_it) = announcement.split_first_chunk()?;
            data = rest;
            let (cert_link, algorithm) = rest_of_it.split_first().unwrap_or((&0, &[]));
            Some(Self {
                method: AuthMethod(method),
                cert_link: *cert_link,
                algorithm,
            })
        })
    }

    /// Appends it. An algorithm that is too long for the format is left out with its method.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let has_link = self.method != AuthMethod::SHARED_KEY_MIC;
        let length = 2 + usize::from(has_link) + self.algorithm.len();
        let Ok(length) = u8::try_from(length) else {
            return;
        };
        out.extend([length, self.method.0]);
        out.extend(has_link.then_some(self.cert_link));
        out.extend_from_slice(self.algorithm);
    }
}
