//! X.509 certificates (RFC 5280) as IKE uses them (RFC 4945).
//!
//! Reading is the library's; what is here is which parts IKE needs and what it accepts. Time is an
//! argument everywhere: nothing here reads a clock.

mod certificate;
pub mod crl;
mod name;
pub mod ocsp;
mod path;

pub use certificate::{AltName, Certificate, CertificateError};
pub use crl::Crl;
pub use name::{DistinguishedName, DnPattern, DnSyntax};
pub use path::{Path, PathError};
pub use rustls_pki_types::UnixTime;

/// What is known of whether a certificate was revoked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// Its issuer says that it is not.
    Good,
    /// Its issuer has revoked it.
    Revoked,
    /// Nothing valid says anything about it; why.
    Unknown(&'static str),
}
