//! The matrix, whichever strongSwan is at the other end.

mod addresses;
pub(crate) mod credentials;
mod fragments;
mod identities;
mod lifecycle;
mod mobike;
mod nat;
pub(crate) mod pair;
mod ppk;
mod redirect;
mod rekey;
mod suites;
mod traps;
