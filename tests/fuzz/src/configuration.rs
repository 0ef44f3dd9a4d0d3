//! A configuration file.

use std::path::Path;

use lockgate::config::Config;

pub(crate) fn run(text: &[u8]) {
    let Ok(text) = std::str::from_utf8(text) else {
        return;
    };
    // A target must not read files that its input names.
    if text.contains("secret_file") {
        return;
    }
    match Config::parse(text, Path::new("fuzz.toml")) {
        Ok(config) => {
            let _ = config.pad.policies();
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}
