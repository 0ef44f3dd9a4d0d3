//! The matrix, whichever strongSwan is at the other end.

mod fragments;
mod lifecycle;
mod mobike;
mod pair;
mod suites;
