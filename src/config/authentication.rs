//! `local` and `remote` of a connection: who the two sides are and how they prove it.

use super::{
    connection::allow,
    files,
    keys::{self, Schema},
    read::{Entry, Section},
    value,
};
use crate::{
    crypto::{PrivateKey, PublicKey, signature::Hash},
    ike::{
        Authority, Identity, IdentityPattern, KeyClass, LocalAuth, LocalKey, LocalMethod, Padding,
        RemoteAuth, RemoteMethod, Revocation, SchemePolicy, SendCert, Trust,
    },
};
use std::sync::Arc;

/// What the whole file has for every connection.
pub(super) struct Credentials<'a> {
    pub(super) keys: &'a [Arc<PrivateKey>],
    pub(super) authorities: &'a [Authority],
}

/// The value of `auth`.
enum Method {
    Psk,
    Signature(SchemePolicy),
}

/// Reads how we authenticate.
pub(super) fn read_local(connection: &Section<'_>, credentials: &Credentials<'_>) -> LocalAuth {
    let Some(section) = auth_round(connection, "local", &keys::LOCAL) else {
        return LocalAuth::default();
    };
    let send_cert = connection.read("send_cert", |text| value::choice(text, &SEND_CERT));
    let id = section.get("id");
    let id = id.filter(|entry| entry.text().as_deref() != Some(""));
    let mut id = id.and_then(|entry| {
        entry.parse(|text| text.parse::<Identity>().map_err(|error| error.to_string()))
    });
    let never_weak = |text: &str| Err(format!("{text:?}: SHA-1 is not signed with"));
    let method = match read_method(&section, never_weak) {
        Method::Psk => LocalMethod::Psk,
        Method::Signature(schemes) => {
            let keys = local_keys(&section, credentials);
            id = id.map(|id| certified_identity(&section, id, &keys));
            LocalMethod::Signature {
                keys,
                schemes,
                send_cert: send_cert.unwrap_or_default(),
            }
        }
    };
    LocalAuth { id, method }
}

/// Reads how the peer has to authenticate.
pub(super) fn read_remote(
    connection: &Section<'_>,
    credentials: &Credentials<'_>,
    allow_weak: bool,
) -> RemoteAuth {
    let section = auth_round(connection, "remote", &keys::REMOTE);
    let send = connection
        .read("send_certreq", value::boolean)
        .unwrap_or(true);
    let Some(section) = section else {
        return RemoteAuth {
            id: IdentityPattern::Any,
            method: RemoteMethod::Psk,
        };
    };
    let weak = |text: &str| allow(&section, "auth", text, "sha1", allow_weak);
    let method = match read_method(&section, weak) {
        Method::Psk => RemoteMethod::Psk,
        Method::Signature(schemes) => {
            let trust = read_trust(&section, schemes, send, credentials);
            RemoteMethod::Signature(Arc::new(trust))
        }
    };
    RemoteAuth {
        id: section
            .read("id", identity_pattern)
            .unwrap_or(IdentityPattern::Any),
        method,
    }
}

/// An identity, or what stands for several.
pub(super) fn identity_pattern(text: &str) -> Result<IdentityPattern, String> {
    text.parse::<IdentityPattern>()
        .map_err(|error| error.to_string())
}

/// Our keys: of each certificate, and of each raw public key, the private half.
fn local_keys(section: &Section<'_>, credentials: &Credentials<'_>) -> Vec<LocalKey> {
    let private = |public: &PublicKey| {
        let key = credentials.keys.iter().find(|key| key.public() == public);
        key.cloned()
            .ok_or("no private key of secrets belongs to it".to_owned())
    };
    let certs = section.read_list("certs", |name| {
        let chain = files::certificates(section, "x509", name)?;
        let first = chain.first().ok_or("holds no certificate")?;
        let key = private(first.key()).map_err(|error| format!("{name}: {error}"))?;
        Ok(LocalKey { key, chain })
    });
    let raw = section.read_list("pubkeys", |name| {
        let public = files::public_key(section, name)?;
        let key = private(&public).map_err(|error| format!("{name}: {error}"))?;
        let chain = Vec::new();
        Ok(LocalKey { key, chain })
    });
    if section.get("certs").is_none() && section.get("pubkeys").is_none() {
        section.fail(
            "has neither certs nor pubkeys, one of which pubkey needs; or use auth = \"psk\"",
        );
    }
    certs.into_iter().chain(raw).flatten().collect()
}

/// The identity as the certificates have it; one that none of them has would be refused.
fn certified_identity(section: &Section<'_>, id: Identity, keys: &[LocalKey]) -> Identity {
    let mut certificates = keys.iter().filter_map(LocalKey::certificate).peekable();
    if certificates.peek().is_none() {
        return id;
    }
    match certificates.find(|certificate| id.is_in(certificate)) {
        Some(certificate)
            if matches!(id, Identity::Dn(_))
                && Identity::Dn(certificate.subject().clone()) == id =>
        {
            Identity::Dn(certificate.subject().clone())
        }
        Some(_) => id,
        None => {
            section.fail_at("id", format!("{id} is neither the subject of a certificate in certs nor one of its other names"));
            id
        }
    }
}

fn read_trust(
    section: &Section<'_>,
    schemes: SchemePolicy,
    send_certreq: bool,
    credentials: &Credentials<'_>,
) -> Trust {
    let lists = |key, folder: &str| {
        let lists = section.read_list(key, |name| files::certificates(section, folder, name));
        lists.map(|lists| lists.into_iter().flatten().collect::<Vec<_>>())
    };
    let certificates = lists("certs", "x509").unwrap_or_default();
    let given = lists("cacerts", "x509ca");
    for authority in given.iter().flatten().filter(|cert| !cert.is_authority()) {
        let subject = authority.subject();
        section.fail_at(
            "cacerts",
            format!("the certificate of {subject} is not one of an authority"),
        );
    }
    let keys = section.read_list("pubkeys", |name| files::public_key(section, name));
    let keys = keys.unwrap_or_default();
    let all = credentials
        .authorities
        .iter()
        .map(|authority| &authority.certificate);
    let trust = Trust {
        authorities: match given {
            Some(given) => given,
            None if certificates.is_empty() && keys.is_empty() => all.cloned().collect(),
            None => Vec::new(),
        },
        keys,
        certificates,
        schemes,
        revocation: section
            .read("revocation", |text| value::choice(text, &REVOCATION))
            .unwrap_or_default(),
        policies: section.read_list("cert_policy", policy).unwrap_or_default(),
        send_certreq,
    };
    let named = ["certs", "cacerts", "pubkeys"]
        .iter()
        .any(|key| section.get(key).is_some());
    let nobody =
        trust.authorities.is_empty() && trust.certificates.is_empty() && trust.keys.is_empty();
    if nobody && !named {
        section.fail(
            "nobody is trusted; needed: cacerts, certs or pubkeys here, or a table authorities.…",
        );
    }
    trust
}

fn policy(text: &str) -> Result<String, String> {
    let is_oid = text.contains('.') && text.split('.').all(|part| part.parse::<u32>().is_ok());
    is_oid
        .then(|| text.to_owned())
        .ok_or_else(|| format!("{text:?} is not an object identifier, as in 1.3.6.1.4.1.11129.2"))
}

/// The one authentication round of a side, whatever the suffix of its name.
fn auth_round<'a>(
    connection: &Section<'a>,
    side: &str,
    schema: &'static Schema,
) -> Option<Section<'a>> {
    let is_round = |(name, entry): &(String, Entry<'_>)| name.starts_with(side) && entry.is_table();
    let mut rounds = connection.entries().into_iter().filter(is_round);
    let Some((name, entry)) = rounds.next() else {
        connection.fail_at(
            side,
            "missing; needed: auth = \"psk\", or certificates or public keys",
        );
        return None;
    };
    for (_, entry) in rounds {
        entry.fail(format!(
            "a second authentication round beside {name} is not supported yet"
        ));
    }
    let section = entry.section()?;
    section.check_keys(schema);
    Some(section)
}

/// `auth`, by default public keys of any kind; `weak` says whether it may have SHA-1. A value that was
/// refused asks for nothing more.
fn read_method(section: &Section<'_>, weak: impl Fn(&str) -> Result<(), String>) -> Method {
    let parse = |text: &str| {
        let method = method(text)?;
        match &method {
            Method::Signature(policy) if policy.hashes.contains(&Hash::Sha1) => weak(text)?,
            _ => {}
        }
        Ok(method)
    };
    match section.get("auth") {
        Some(entry) => entry.parse(parse).unwrap_or(Method::Psk),
        None => Method::Signature(SchemePolicy::default()),
    }
}

fn method(text: &str) -> Result<Method, String> {
    let text = text.to_ascii_lowercase();
    if text == "psk" {
        return Ok(Method::Psk);
    }
    let foreign = ["eap", "xauth", "any", "ed448"];
    if foreign.iter().any(|method| text.starts_with(method)) {
        return Err(format!("{text:?} is not supported; {ALLOWED}"));
    }
    let only_ike = text.starts_with("ike:");
    let mut policy = SchemePolicy {
        only_ike,
        ..SchemePolicy::default()
    };
    let constraints = text.strip_prefix("ike:").unwrap_or(&text);
    for word in constraints.split('-') {
        let class = match word {
            "pubkey" => continue,
            "rsa" | "rsa/pss" | "rsa/pkcs1" => Some(KeyClass::Rsa),
            "ecdsa" => Some(KeyClass::Ecdsa),
            "ed25519" => Some(KeyClass::Ed25519),
            _ => None,
        };
        let hash = match word {
            "sha1" => Some(Hash::Sha1),
            "sha256" => Some(Hash::Sha256),
            "sha384" => Some(Hash::Sha384),
            "sha512" => Some(Hash::Sha512),
            _ => None,
        };
        let strength = word.parse::<usize>().ok();
        match (class, hash, strength, policy.keys.last_mut()) {
            (Some(class), ..) => policy.keys.push((class, 0)),
            (_, Some(hash), ..) => policy.hashes.push(hash),
            (_, _, Some(strength), Some((_, least))) => *least = strength,
            _ => {
                let near = keys::allowed(&text, &["psk", "pubkey", "rsa", "ecdsa", "ed25519"]);
                return Err(format!(
                    "{text:?} is not allowed; {near}, with strengths and hashes as in rsa-3072-sha256"
                ));
            }
        }
        match word {
            "rsa/pss" => policy.padding = Some(Padding::Pss),
            "rsa/pkcs1" => policy.padding = Some(Padding::Pkcs1),
            _ => {}
        }
    }
    Ok(Method::Signature(policy))
}

const ALLOWED: &str = "allowed: psk, pubkey, rsa, ecdsa, ed25519";
const SEND_CERT: [(&str, SendCert); 3] = [
    ("ifasked", SendCert::IfAsked),
    ("always", SendCert::Always),
    ("never", SendCert::Never),
];
const REVOCATION: [(&str, Revocation); 3] = [
    ("relaxed", Revocation::Relaxed),
    ("ifuri", Revocation::IfUri),
    ("strict", Revocation::Strict),
];
