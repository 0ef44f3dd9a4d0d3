//! The only importer of cryptographic providers. Holds keys, but no protocol state.
