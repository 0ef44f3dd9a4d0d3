//! Files that the configuration names: keys, certificates, revocation lists.

use super::{read::Section, secret::is_world_readable};
use crate::crypto::{
    PublicKey, pem,
    x509::{Certificate, Crl},
};
use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};
use zeroize::Zeroizing;

/// Reads a file of at most `most` bytes. A relative path starts at the folder of the configuration;
/// what is not there is looked for in `folder` below it, as swanctl has one for each kind.
pub(super) fn read(
    section: &Section<'_>,
    folder: &str,
    name: &str,
    most: u64,
) -> Result<(PathBuf, Zeroizing<Vec<u8>>), String> {
    let path = find(section, folder, name);
    let fail = |error| format!("cannot read {}: {error}", path.display());
    let metadata = fs::metadata(&path).map_err(fail)?;
    if !metadata.is_file() || metadata.len() > most {
        return Err(format!(
            "{} is not a file of at most {most} bytes",
            path.display()
        ));
    }
    let bytes = Zeroizing::new(fs::read(&path).map_err(fail)?);
    Ok((path, bytes))
}

/// Whether everybody may read a file.
pub(super) fn is_public(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|metadata| is_world_readable(&metadata))
}

fn find(section: &Section<'_>, folder: &str, name: &str) -> PathBuf {
    let base = section.source().file().parent().unwrap_or(Path::new(""));
    let direct = base.join(name);
    if direct.exists() {
        return direct;
    }
    let below = base.join(folder).join(name);
    if below.exists() { below } else { direct }
}

/// The certificates of a file, the first one first.
pub(super) fn certificates(
    section: &Section<'_>,
    folder: &str,
    name: &str,
) -> Result<Vec<Arc<Certificate>>, String> {
    let (path, bytes) = read(section, folder, name, CERTIFICATES_MAX)?;
    let certificates = Certificate::load(&bytes);
    let certificates = certificates.map_err(|error| format!("{}: {error}", path.display()))?;
    Ok(certificates.into_iter().map(Arc::new).collect())
}

/// A raw public key, or that of a certificate.
pub(super) fn public_key(section: &Section<'_>, name: &str) -> Result<Arc<PublicKey>, String> {
    let (path, bytes) = read(section, "pubkey", name, CERTIFICATES_MAX)?;
    let fail = |reason: &dyn std::fmt::Display| format!("{}: {reason}", path.display());
    let objects = pem::objects(&bytes)
        .transpose()
        .map_err(|error| fail(&error))?;
    let object = objects.as_ref().and_then(|objects| objects.first());
    let key = match object {
        Some(object) if object.label == "RSA PUBLIC KEY" => PublicKey::from_pkcs1(&object.der),
        Some(object) => PublicKey::from_spki(&object.der),
        None => PublicKey::from_spki(&bytes).or_else(|_| PublicKey::from_pkcs1(&bytes)),
    };
    Ok(Arc::new(key.map_err(|error| fail(&error))?))
}

/// A revocation list.
pub(super) fn revocation_list(section: &Section<'_>, name: &str) -> Result<Arc<Crl>, String> {
    let most = u64::try_from(Crl::MOST_BYTES).unwrap_or(u64::MAX);
    let (path, bytes) = read(section, "x509crl", name, most)?;
    let list = Crl::load(&bytes).map_err(|error| format!("{}: {error}", path.display()))?;
    Ok(Arc::new(list))
}

const CERTIFICATES_MAX: u64 = 256 * 1024;
