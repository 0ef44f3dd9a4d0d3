//! The configuration file: TOML in, a configuration that is valid by construction out.
