//! Bytes ⇄ values: IP, ESP, ISAKMP and IKEv2 formats, proposals, selectors, VICI.
//!
//! Knows no keys, no clock and no state. Parsers never index, never panic and never allocate by the
//! sender's wish.
