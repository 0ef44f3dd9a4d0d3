//! The matrix, whichever strongSwan is at the other end.

mod fragments;
mod lifecycle;
mod mobike;
pub(crate) mod pair;
mod ppk;
mod suites;
