//! Where to ask whether a certificate was revoked.

use std::sync::Arc;

use crate::crypto::x509::{Certificate, Status};
use crate::ike::credentials::Authority;

use super::Question;

/// One certificate, by its issuer's key and its number.
pub(super) type Subject = ([u8; 20], Box<[u8]>);

/// Whom to ask for what.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Source {
    List(String),
    Answer(String, Subject),
}

pub(super) fn subject(certificate: &Certificate, issuer: &Certificate) -> Subject {
    (issuer.key().id(), certificate.serial().into())
}

/// Whether the certificate or the configuration names a place of revocation information, even one that
/// cannot be asked.
pub(super) fn is_place_named(
    question: &Question<'_>,
    certificate: &Certificate,
    issuer: &Certificate,
) -> bool {
    let has_place = |authority: &Authority| {
        let Authority {
            crl_uris,
            ocsp_uris,
            crls,
            ..
        } = authority;
        !(crl_uris.is_empty() && ocsp_uris.is_empty() && crls.is_empty())
    };
    certificate.names_places() || authorities(question, issuer).any(has_place)
}

/// What the lists that the peer has sent along say.
pub(super) fn sent_lists(
    question: &Question<'_>,
    certificate: &Certificate,
    issuer: &Certificate,
) -> impl Iterator<Item = Status> {
    let lists = question.lists.iter();
    lists.map(|list| list.status(certificate, issuer, question.time))
}

/// Whether one of them is good for the certificate.
pub(super) fn says_peer(
    question: &Question<'_>,
    certificate: &Certificate,
    issuer: &Certificate,
) -> bool {
    sent_lists(question, certificate, issuer).any(|status| status == Status::Good)
}

/// Who can be asked about a certificate, OCSP first, and whether the configuration names them.
pub(super) fn sources(
    question: &Question<'_>,
    certificate: &Arc<Certificate>,
    issuer: &Arc<Certificate>,
) -> Vec<(Source, bool)> {
    let configured = authorities(question, issuer).flat_map(|authority| &authority.ocsp_uris);
    let configured = configured.map(|uri| (uri, true));
    let named = certificate.ocsp_uris().iter().map(|uri| (uri, false));
    let responders = configured.chain(named).map(|(uri, configured)| {
        let source = Source::Answer(uri.clone(), subject(certificate, issuer));
        (source, configured)
    });
    let lists = crl_uris(question, certificate, issuer).into_iter();
    let lists = lists.map(|(uri, configured)| (Source::List(uri), configured));
    responders.chain(lists).take(MOST_SOURCES).collect()
}

pub(super) fn crl_uris(
    question: &Question<'_>,
    certificate: &Arc<Certificate>,
    issuer: &Arc<Certificate>,
) -> Vec<(String, bool)> {
    let configured = authorities(question, issuer).flat_map(|authority| &authority.crl_uris);
    let configured = configured.map(|uri| (uri.clone(), true));
    let named = certificate
        .crl_uris()
        .iter()
        .map(|uri| (uri.clone(), false));
    configured.chain(named).collect()
}

fn authorities<'a>(
    question: &Question<'a>,
    issuer: &Certificate,
) -> impl Iterator<Item = &'a Authority> {
    let key = issuer.key().id();
    let all = question.authorities.iter();
    all.filter(move |authority| authority.certificate.key().id() == key)
}

const MOST_SOURCES: usize = 8;
