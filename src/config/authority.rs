//! `[authorities.<name>]`: certification authorities, and where to ask about their certificates.

use super::{
    connection::check_name,
    files, keys,
    read::{Entry, Section},
};
use crate::ike::Authority;

/// Reads every authority.
pub(super) fn read_all(section: &Section<'_>) -> Vec<Authority> {
    let entries = section.entries().into_iter();
    let read = |(name, entry): (String, Entry<'_>)| Some(read(&name, &entry.section()?));
    entries.filter_map(read).flatten().collect()
}

/// One for each certificate of the file.
fn read(name: &str, section: &Section<'_>) -> Vec<Authority> {
    section.check_keys(&keys::AUTHORITY);
    check_name(name, section);
    let Some(cacert) = section.get("cacert") else {
        section.fail("has no cacert");
        return Vec::new();
    };
    let load = |path: &str| files::certificates(section, "x509ca", path);
    let certificates = cacert.parse_string(load).unwrap_or_default();
    for certificate in &certificates {
        if !certificate.is_authority() {
            let subject = certificate.subject();
            cacert.fail(format!(
                "the certificate of {subject} is not one of an authority"
            ));
        }
    }
    let is_http = |text: &str| text.starts_with("http://");
    let uris = section.read_list("crl_uris", |text| match text.strip_prefix("file://") {
        Some(path) => files::revocation_list(section, path).map(Err),
        None if is_http(text) => Ok(Ok(text.to_owned())),
        None => Err(format!(
            "{text:?} is not allowed; allowed: http:// and file://"
        )),
    });
    let uris = uris.unwrap_or_default();
    let ocsp_uris = section.read_list("ocsp_uris", |text| {
        let allowed = is_http(text).then(|| text.to_owned());
        allowed.ok_or_else(|| format!("{text:?} is not allowed; allowed: http://"))
    });
    let ocsp_uris = ocsp_uris.unwrap_or_default();
    let crl_uris: Vec<_> = uris.iter().filter_map(|uri| uri.clone().ok()).collect();
    let crls: Vec<_> = uris.into_iter().filter_map(Result::err).collect();
    let authority = |certificate| Authority {
        name: name.to_owned(),
        certificate,
        crl_uris: crl_uris.clone(),
        ocsp_uris: ocsp_uris.clone(),
        crls: crls.clone(),
    };
    certificates.into_iter().map(authority).collect()
}
