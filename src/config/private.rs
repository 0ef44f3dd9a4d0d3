//! `[secrets.private<suffix>]`, `rsa`, `ecdsa`, `pkcs8`: private keys in files.

use super::{connection::check_name, files, keys, read::Section, secret};
use crate::crypto::{PrivateKey, Secret};
use std::sync::Arc;

/// Reads every private key of `[secrets]`.
pub(super) fn read_all(section: &Section<'_>, world_readable: bool) -> Vec<Arc<PrivateKey>> {
    let keys = KINDS.into_iter().flat_map(|kind| {
        let tables = secret::tables(section, kind, world_readable).into_iter();
        tables.filter_map(move |(name, section)| read(kind, &name, &section))
    });
    keys.collect()
}

fn read(folder: &str, name: &str, section: &Section<'_>) -> Option<Arc<PrivateKey>> {
    section.check_keys(&keys::PRIVATE);
    check_name(name, section);
    let passphrase = secret::read_one(section);
    let is_given = section.get("secret").is_some() || section.get("secret_file").is_some();
    if is_given && passphrase.is_none() {
        return None; // what is wrong with it has been said
    }
    let Some(file) = section.get("file") else {
        section.fail("has no file");
        return None;
    };
    let load = |path: &str| {
        let (path, bytes) = files::read(section, folder, path, KEY_MAX)?;
        if files::is_public(&path) {
            let text = format!("{} can be read by everybody; chmod 600 it", path.display());
            section.warn_at("file", text);
        }
        let passphrase = passphrase.as_ref().map(Secret::as_bytes);
        let key = PrivateKey::load(&bytes, passphrase);
        key.map_err(|error| format!("{}: {error}", path.display()))
    };
    file.parse_string(load).map(Arc::new)
}

/// Names of sections, and the folders of swanctl that go with them.
const KINDS: [&str; 4] = ["private", "rsa", "ecdsa", "pkcs8"];
const KEY_MAX: u64 = 64 * 1024;
