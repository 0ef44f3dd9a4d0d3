//! Known answers of the cryptography: RFC and NIST vectors, Wycheproof, and one provider against the
//! other.

#[path = "vectors/cases.rs"]
mod cases;
#[path = "vectors/kex.rs"]
mod kex;
#[path = "vectors/mlkem.rs"]
mod mlkem;
#[path = "vectors/packet.rs"]
mod packet;
#[path = "vectors/prf.rs"]
mod prf;
#[path = "vectors/providers.rs"]
mod providers;
#[path = "vectors/signature.rs"]
mod signature;
#[path = "vectors/skeyid.rs"]
mod skeyid;
#[path = "vectors/wycheproof.rs"]
mod wycheproof;
#[path = "vectors/x509.rs"]
mod x509;
