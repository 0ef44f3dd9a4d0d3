//! `[secrets.ike<suffix>]`: pre-shared keys.

use super::{
    connection::{check_name, identity_pattern},
    keys,
    read::{Entry, Section},
};
use crate::{
    crypto::Secret,
    ike::{Identity, IdentityPattern, Pad, SharedSecret},
};
use data_encoding::{BASE64, BASE64_NOPAD, HEXLOWER_PERMISSIVE};
use std::{fs, os::unix::fs::PermissionsExt, path::Path};
use zeroize::Zeroizing;

/// Reads every secret of `[secrets]`.
pub(super) fn read_all(section: &Section<'_>, world_readable: bool) -> Vec<SharedSecret> {
    section.check_keys(&keys::SECRETS);
    let is_ike = |(name, entry): &(String, Entry<'_>)| name.starts_with("ike") && entry.is_table();
    let ike = section.entries().into_iter().filter(is_ike);
    let ike: Vec<_> = ike
        .filter_map(|(name, entry)| Some((name, entry.section()?)))
        .collect();
    let inline = ike
        .iter()
        .find(|(_, section)| section.get("secret").is_some());
    if let Some((_, section)) = inline.filter(|_| world_readable) {
        section.warn_at(
            "secret",
            "stands in a file that can be read by everybody; chmod 600 it",
        );
    }
    ike.into_iter()
        .map(|(name, section)| read(name, &section))
        .collect()
}

fn read(name: String, section: &Section<'_>) -> SharedSecret {
    section.check_keys(&keys::SECRET);
    check_name(&name, section);
    let is_id = |(name, _): &(String, Entry<'_>)| name.starts_with("id");
    let owners = section
        .entries()
        .into_iter()
        .filter(is_id)
        .flat_map(|(_, entry)| entry.whole_items());
    let ids: Vec<IdentityPattern> = owners
        .filter_map(|owner| owner.parse(identity_pattern))
        .collect();
    let secret = match (section.get("secret"), section.get("secret_file")) {
        (Some(_), Some(file)) => {
            file.fail("cannot stand beside secret; use one of them");
            None
        }
        (Some(entry), None) => entry.parse_string(|text| decode(text.as_bytes())),
        (None, Some(entry)) => entry.parse_string(|path| read_file(path, section)),
        (None, None) => {
            section.fail("has neither secret nor secret_file");
            None
        }
    };
    // A secret that was refused still stands for itself, so that no connection misses it, too.
    let secret = secret.unwrap_or_else(|| Secret::from(Vec::new()));
    SharedSecret { name, ids, secret }
}

/// Hexadecimal behind `0x`, base64 behind `0s`, otherwise the bytes themselves.
fn decode(text: &[u8]) -> Result<Secret, String> {
    let bytes = if let Some(hex) = text.strip_prefix(b"0x") {
        HEXLOWER_PERMISSIVE
            .decode(hex)
            .map_err(|_| "0x must be followed by pairs of hexadecimal digits".to_owned())?
    } else if let Some(base64) = text.strip_prefix(b"0s") {
        let decoded = BASE64
            .decode(base64)
            .or_else(|_| BASE64_NOPAD.decode(base64));
        decoded.map_err(|_| "0s must be followed by base64".to_owned())?
    } else {
        text.to_vec()
    };
    if bytes.is_empty() {
        Err("is empty".to_owned())
    } else {
        Ok(Secret::from(bytes))
    }
}

/// The secret in a file beside the configuration; its last newline is not part of it.
fn read_file(path: &str, section: &Section<'_>) -> Result<Secret, String> {
    let directory = section.source().file().parent().unwrap_or(Path::new(""));
    let path = directory.join(path);
    let fail = |error| format!("cannot read {}: {error}", path.display());
    let metadata = fs::metadata(&path).map_err(fail)?;
    if !metadata.is_file() || metadata.len() > SECRET_MAX {
        return Err(format!(
            "{} is not a file of at most {SECRET_MAX} bytes",
            path.display()
        ));
    }
    if is_world_readable(&metadata) {
        section.warn_at(
            "secret_file",
            format!("{} can be read by everybody; chmod 600 it", path.display()),
        );
    }
    let bytes = Zeroizing::new(fs::read(&path).map_err(fail)?);
    let line = bytes.strip_suffix(b"\n").unwrap_or(&bytes);
    decode(line.strip_suffix(b"\r").unwrap_or(line))
}

pub(super) fn is_world_readable(metadata: &fs::Metadata) -> bool {
    metadata.permissions().mode() & 0o004 != 0
}

/// Whether some secret could be the one of this connection, as far as that is known beforehand.
pub(super) fn exists_for(pad: &Pad, local: Option<&Identity>, remote: &IdentityPattern) -> bool {
    pad.secrets.iter().any(|secret| {
        // Without an identity of our own we use our address, which is not known yet.
        let of_local = |owner: &IdentityPattern| match (local, owner.exact()) {
            (Some(local), _) => owner.matches(local),
            (None, Some(Identity::Ipv4(_) | Identity::Ipv6(_)) | None) => true,
            (None, Some(_)) => false,
        };
        let of_remote = |owner| {
            remote
                .exact()
                .is_none_or(|remote| IdentityPattern::matches(owner, remote))
        };
        secret.ids.iter().all(of_local) || secret.ids.iter().any(of_remote)
    })
}

const SECRET_MAX: u64 = 64 * 1024;
