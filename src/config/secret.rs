//! `[secrets.ike<suffix>]`: pre-shared keys; `[secrets.ppk<suffix>]`: post-quantum ones.

use super::{
    authentication::identity_pattern,
    connection::check_name,
    keys,
    read::{Entry, Section},
};
use crate::{
    crypto::Secret,
    ike::{Identity, IdentityPattern, IdentitySyntax, Pad, Ppk, PpkId, SharedSecret},
};
use data_encoding::{BASE64, BASE64_NOPAD, HEXLOWER_PERMISSIVE};
use std::{fs, os::unix::fs::PermissionsExt, path::Path};
use zeroize::Zeroizing;

/// Reads every secret of `[secrets]`.
pub(super) fn read_all(section: &Section<'_>, world_readable: bool) -> Vec<SharedSecret> {
    section.check_keys(&keys::SECRETS);
    let ike = tables(section, "ike", world_readable).into_iter();
    ike.map(|(name, section)| SharedSecret {
        ids: read_ids(&section, identity_pattern),
        secret: read_secret(&name, &section).into(),
        name,
    })
    .collect()
}

/// Reads every post-quantum preshared key of `[secrets]`.
pub(super) fn read_ppks(section: &Section<'_>, world_readable: bool) -> Vec<Ppk> {
    let ppks = tables(section, "ppk", world_readable).into_iter();
    let read = |(name, section): (String, Section<'_>)| {
        let ids = read_ids(&section, ppk_id);
        if ids.is_empty() {
            section.fail("has no id, by which a connection or a peer could name it");
        }
        Ppk {
            ids,
            secret: read_secret(&name, &section),
            name,
        }
    };
    ppks.map(read).collect()
}

/// What a PPK is called: the value of an identity, whatever its type.
pub(super) fn ppk_id(text: &str) -> Result<PpkId, String> {
    let identity: Identity = text
        .parse()
        .map_err(|error: IdentitySyntax| error.to_string())?;
    Ok(PpkId(identity.to_payload_parts().1.into_owned()))
}

/// The tables whose name begins so. A secret that stands in one of them needs a file that not everybody
/// can read.
pub(super) fn tables<'a>(
    section: &Section<'a>,
    prefix: &str,
    world_readable: bool,
) -> Vec<(String, Section<'a>)> {
    let fits = |(name, entry): &(String, Entry<'_>)| name.starts_with(prefix) && entry.is_table();
    let entries = section.entries().into_iter().filter(fits);
    let tables: Vec<_> = entries
        .filter_map(|(name, entry)| Some((name, entry.section()?)))
        .collect();
    let inline = tables
        .iter()
        .find(|(_, section)| section.get("secret").is_some());
    if let Some((_, section)) = inline.filter(|_| world_readable) {
        section.warn_at(
            "secret",
            "stands in a file that can be read by everybody; chmod 600 it",
        );
    }
    tables
}

fn read_ids<T>(section: &Section<'_>, parse: fn(&str) -> Result<T, String>) -> Vec<T> {
    let is_id = |(name, _): &(String, Entry<'_>)| name.starts_with("id");
    let owners = section
        .entries()
        .into_iter()
        .filter(is_id)
        .flat_map(|(_, entry)| entry.whole_items());
    owners.filter_map(|owner| owner.parse(parse)).collect()
}

fn read_secret(name: &str, section: &Section<'_>) -> Secret {
    section.check_keys(&keys::SECRET);
    check_name(name, section);
    if section.get("secret").is_none() && section.get("secret_file").is_none() {
        section.fail("has neither secret nor secret_file");
    }
    let secret = read_one(section);
    // A secret that was refused still stands for itself, so that no connection misses it, too.
    secret.unwrap_or_else(|| Secret::from(Vec::new()))
}

/// The value of `secret` or the contents of `secret_file`, where one is present and good.
pub(super) fn read_one(section: &Section<'_>) -> Option<Secret> {
    match (section.get("secret"), section.get("secret_file")) {
        (Some(_), Some(file)) => {
            file.fail("cannot stand beside secret; use one of them");
            None
        }
        (Some(entry), None) => entry.parse_string(|text| decode(text.as_bytes())),
        (None, Some(entry)) => entry.parse_string(|path| read_file(path, section)),
        (None, None) => None,
    }
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
