//! AUTH: our proof and the peer's, by shared secret or signature (RFC 7296 §2.15, RFC 7427,
//! RFC 4754, RFC 7670).

use std::sync::Arc;

use crate::crypto::prf::Prf;
use crate::crypto::signature::{HASH_IDENTITY, Hash, KeyKind, Scheme};
use crate::crypto::x509::{Certificate, Path};
use crate::crypto::{PresharedKey, PublicKey, Secret, constant_time_eq};
use crate::ike::Identity;
use crate::ike::context::Context;
use crate::ike::credentials::{LocalKey, LocalMethod, RemoteMethod, Revocation, Trust};
use crate::ike::pad::Pad;
use crate::ike::revocation::{Fetch, Judgement, Question, Waiter};
use crate::wire::ikev2::{AuthMethod, AuthPayload, NotifyType, PayloadWriter};
use crate::wire::isakmp::PayloadType;

use super::auth_methods::{Announced, OLD_METHODS};
use super::certificates::{Chosen, Requested, Sent};
use super::error::AuthenticationError;
use super::init::InitExchange;
use super::message::{Payloads, add_notify};
use super::protect::AuthKeys;

/// What AUTH of one side covers: its IKE_SA_INIT message, the other's nonce, its identity, IntAuth.
pub(super) struct Octets {
    prf: Prf,
    bytes: Secret,
}

impl Octets {
    /// What the initiator's AUTH covers.
    pub(super) fn of_initiator(
        prf: Prf,
        exchange: &InitExchange,
        auth: &AuthKeys,
        id_body: &[u8],
    ) -> Self {
        let message = (&*exchange.request, &*exchange.nr);
        Self::new(prf, message, (&auth.initiator, id_body), &exchange.int_auth)
    }

    /// What the responder's AUTH covers.
    pub(super) fn of_responder(
        prf: Prf,
        exchange: &InitExchange,
        auth: &AuthKeys,
        id_body: &[u8],
    ) -> Self {
        let message = (&*exchange.response, &*exchange.ni);
        Self::new(prf, message, (&auth.responder, id_body), &exchange.int_auth)
    }

    fn new(
        prf: Prf,
        (message, nonce): (&[u8], &[u8]),
        (key, id_body): (&Secret, &[u8]),
        int_auth: &[u8],
    ) -> Self {
        let id = prf.mac(key.as_bytes(), &[id_body]);
        let bytes = Secret::from([message, nonce, id.as_bytes(), int_auth].concat());
        Self { prf, bytes }
    }

    fn mac(&self, key: &PresharedKey) -> Secret {
        key.auth(self.prf, self.bytes.as_bytes())
    }

    /// AUTH of one side of a resumed IKE SA: by its own SK_p, and without a key pad (RFC 5723 §4.3.3).
    fn session_mac(&self, sk_p: &Secret) -> Secret {
        self.prf.mac(sk_p.as_bytes(), &[self.bytes.as_bytes()])
    }

    /// Whether AUTH proves that its sender knows the IKE SA that is resumed.
    pub(super) fn is_proof_of_session(&self, sk_p: &Secret, proof: &AuthPayload<'_>) -> bool {
        let expected = self.session_mac(sk_p);
        proof.method == AuthMethod::SHARED_KEY_MIC
            && constant_time_eq(expected.as_bytes(), proof.data)
    }
}

/// What the peer has said about authentication before AUTH.
#[derive(Clone, Debug, Default)]
pub(super) struct PeerSupport {
    /// Numbers of SIGNATURE_HASH_ALGORITHMS; `None`: it does not know RFC 7427.
    hashes: Option<Vec<u16>>,
    /// What it verifies, if it has said so.
    announced: Option<Announced>,
    /// What it asks for.
    requested: Requested,
}

impl PeerSupport {
    /// What the peer's IKE_SA_INIT message says.
    pub(super) fn from_init(payloads: &Payloads<'_>) -> Self {
        let hashes = payloads.notify(NotifyType::SIGNATURE_HASH_ALGORITHMS);
        let hashes = hashes.map(|notify| {
            let (numbers, _) = notify.data.as_chunks::<2>();
            let numbers = numbers.iter().take(MOST_HASHES);
            numbers.map(|number| u16::from_be_bytes(*number)).collect()
        });
        Self {
            hashes,
            announced: Announced::from_payloads(payloads),
            requested: Requested::from_payloads(payloads),
        }
    }

    /// Takes what a later message says besides.
    pub(super) fn learn(&mut self, payloads: &Payloads<'_>) {
        let announced = Announced::from_payloads(payloads);
        self.announced = announced.or_else(|| self.announced.take());
        if !payloads.certificate_requests.is_empty() {
            self.requested = Requested::from_payloads(payloads);
        }
    }

    /// Whether the peer knows RFC 7427.
    pub(super) fn knows_signature_method(&self) -> bool {
        self.hashes.is_some()
    }

    /// The method and the scheme that a key of ours signs with, if the peer can verify any, and
    /// whether it has announced that it does.
    fn choose(
        &self,
        local: &LocalKey,
        method: &LocalMethod,
        pad: &Pad,
    ) -> Option<(bool, AuthMethod, Scheme)> {
        let LocalMethod::Signature { schemes, .. } = method else {
            return None;
        };
        let public = local.key.public();
        let allowed = local.key.schemes();
        let allowed = || {
            allowed
                .iter()
                .filter(|scheme| schemes.allows(public, **scheme))
        };
        let as_signature = allowed().filter(|scheme| self.knows(**scheme, public.kind()));
        let as_signature = as_signature.map(|scheme| (AuthMethod::DIGITAL_SIGNATURE, *scheme));
        let as_of_old =
            allowed().filter_map(|scheme| Some((old_method(public, *scheme)?, *scheme)));
        if let Some(announced) = &self.announced {
            let known = (&self.requested, pad);
            let mut all = as_signature.clone().chain(as_of_old.clone());
            if let Some((method, scheme)) = all.find(|how| announced.accepts(*how, local, known)) {
                return Some((true, method, scheme));
            }
        }
        let (method, scheme) = if self.knows_signature_method() {
            { as_signature }.next()?
        } else {
            { as_of_old }.next()?
        };
        Some((false, method, scheme))
    }

    /// Whether the peer verifies Digital Signatures of this scheme.
    fn knows(&self, scheme: Scheme, kind: KeyKind) -> bool {
        let number = scheme.hash(kind).map_or(HASH_IDENTITY, Hash::number);
        let hashes = self.hashes.as_ref();
        scheme != Scheme::EcdsaFixed && hashes.is_some_and(|hashes| hashes.contains(&number))
    }
}

/// Tells which hashes we verify signatures with (RFC 7427 §4).
pub(super) fn add_hash_algorithms(payloads: &mut PayloadWriter) {
    let numbers = Hash::SHA2
        .map(Hash::number)
        .into_iter()
        .chain([HASH_IDENTITY]);
    let data: Vec<u8> = numbers.flat_map(u16::to_be_bytes).collect();
    add_notify(payloads, NotifyType::SIGNATURE_HASH_ALGORITHMS, &data);
}

/// The method of a scheme for peers without RFC 7427.
fn old_method(key: &PublicKey, scheme: Scheme) -> Option<AuthMethod> {
    let is_it =
        |(_, kind, old): &&(AuthMethod, KeyKind, Scheme)| (*kind, *old) == (key.kind(), scheme);
    let found = OLD_METHODS.iter().find(is_it);
    found.map(|(method, ..)| *method)
}

/// Our AUTH, and the certificates that go with it.
pub(super) struct OurProof {
    method: AuthMethod,
    data: Secret,
    pub(super) certificates: Vec<Chosen>,
    /// The key, if the peer wants to know whether its certificate was revoked.
    questioned: Option<LocalKey>,
    /// For logs.
    pub(super) how: String,
}

impl OurProof {
    /// That we know the IKE SA that is resumed.
    pub(super) fn of_session(octets: &Octets, sk_p: &Secret) -> Self {
        Self {
            method: AuthMethod::SHARED_KEY_MIC,
            data: octets.session_mac(sk_p),
            certificates: Vec::new(),
            questioned: None,
            how: "the keys of the last IKE_SA".to_owned(),
        }
    }

    /// The Authentication Data.
    pub(super) fn data(&self) -> &[u8] {
        self.data.as_bytes()
    }

    /// Adds what an OCSP responder has said of our certificate, if the peer asks for it (RFC 4806). What
    /// is not known yet is asked for, and goes along with a later proof.
    pub(super) fn staple(&mut self, cx: &mut Context) {
        if let Some(key) = self.questioned.take()
            && let Some(answer) = cx.own_answer(&key)
        {
            self.certificates.push(Chosen::answer(answer));
        }
    }

    pub(super) fn add_auth(&self, payloads: &mut PayloadWriter) {
        payloads.add_with(PayloadType::AUTH, |out| {
            AuthPayload {
                method: self.method,
                data: self.data.as_bytes(),
            }
            .encode(out);
        });
    }
}

/// Proves that we are `local`.
pub(super) fn prove(
    cx: &Context,
    method: &LocalMethod,
    (local, remote): (&Identity, Option<&Identity>),
    octets: &Octets,
    peer: &PeerSupport,
) -> Result<OurProof, AuthenticationError> {
    let LocalMethod::Signature {
        keys, send_cert, ..
    } = method
    else {
        let secret = cx.directory.secret(local, remote);
        let secret = secret.ok_or_else(|| AuthenticationError::NoSecret {
            remote: remote.map_or_else(|| "%any".to_owned(), ToString::to_string),
            local: local.clone(),
        })?;
        return Ok(OurProof {
            method: AuthMethod::SHARED_KEY_MIC,
            data: octets.mac(&secret.secret),
            certificates: Vec::new(),
            questioned: None,
            how: "a shared secret".to_owned(),
        });
    };
    let usable = keys.iter().filter_map(|key| {
        let (announced, method, scheme) = peer.choose(key, method, &cx.pad)?;
        let certificate = key.certificate();
        let is_named = certificate.is_none_or(|certificate| local.is_in(certificate));
        let fits = peer.requested.names_issuer(key, &cx.pad.authorities);
        Some(((is_named, announced, fits), key, method, scheme))
    });
    let chosen = usable.reduce(|best, next| if next.0 > best.0 { next } else { best });
    let no_scheme = || AuthenticationError::NoScheme(local.clone());
    let (_, key, method, scheme) = chosen.ok_or_else(no_scheme)?;
    let signature = key.key.sign(scheme, octets.bytes.as_bytes());
    let signature = signature.ok_or_else(no_scheme)?;
    let data = match scheme.to_algorithm_identifier() {
        Some(identifier) if method == AuthMethod::DIGITAL_SIGNATURE => {
            let length = u8::try_from(identifier.len()).map_err(|_| no_scheme())?;
            [&[length], &identifier[..], &signature].concat()
        }
        _ => signature,
    };
    let certificates = peer.requested.choose(key, *send_cert);
    let questioned = peer.requested.ocsp && !certificates.is_empty();
    Ok(OurProof {
        method,
        data: Secret::from(data),
        certificates,
        questioned: questioned.then(|| key.clone()),
        how: scheme.to_string(),
    })
}

/// What a peer has sent to prove who it is.
pub(super) struct Claim<'a> {
    pub(super) local: &'a Identity,
    pub(super) remote: &'a Identity,
    pub(super) proof: AuthPayload<'a>,
    pub(super) octets: Octets,
    pub(super) sent: Sent<'a>,
    pub(super) waiter: Waiter,
}

/// What a proof is worth.
pub(super) enum Verdict {
    /// The peer is who it claims to be; how it was proven, for logs.
    Proven(String),
    /// It will be, unless one of these says otherwise, or one asked for earlier.
    Await(Vec<Fetch>),
}

/// Whether a method could prove what a connection wants.
pub(super) fn is_method_of(method: &RemoteMethod, given: AuthMethod) -> bool {
    (given == AuthMethod::SHARED_KEY_MIC) == (*method == RemoteMethod::Psk)
}

impl Claim<'_> {
    /// Checks the proof by what the configuration accepts.
    pub(super) fn check(
        &self,
        method: &RemoteMethod,
        cx: &mut Context,
    ) -> Result<Verdict, AuthenticationError> {
        if !is_method_of(method, self.proof.method) {
            return Err(AuthenticationError::Method(self.proof.method.0));
        }
        match method {
            RemoteMethod::Psk => self.check_secret(cx),
            RemoteMethod::Signature(trust) => self.check_signature(trust, cx),
        }
    }

    fn check_secret(&self, cx: &Context) -> Result<Verdict, AuthenticationError> {
        let secret = cx.directory.secret(self.local, Some(self.remote));
        let secret = secret.ok_or_else(|| AuthenticationError::NoSecret {
            local: self.local.clone(),
            remote: self.remote.to_string(),
        })?;
        let expected = self.octets.mac(&secret.secret);
        if constant_time_eq(expected.as_bytes(), self.proof.data) {
            return Ok(Verdict::Proven("a shared secret".to_owned()));
        }
        let claimed = self.remote.clone();
        Err(AuthenticationError::Mismatch { claimed })
    }

    fn check_signature(
        &self,
        trust: &Trust,
        cx: &mut Context,
    ) -> Result<Verdict, AuthenticationError> {
        let time = cx.time_of_day();
        let (schemes, signature) = self.schemes(trust)?;
        let verifies = |key: &PublicKey| {
            let mut fitting = schemes
                .iter()
                .filter(|scheme| trust.schemes.allows(key, **scheme));
            fitting.any(|scheme| {
                let octets = self.octets.bytes.as_bytes();
                self.is_of_method(key) && key.verify(*scheme, octets, signature).is_ok()
            })
        };
        let claimed = self.remote.clone();
        let leaf = self.sent.leaf.as_ref();
        let raw = trust.keys.iter().filter(|_| leaf.is_none());
        let mut raw = raw.filter(|key| self.sent.key.as_ref().is_none_or(|sent| *sent == ***key));
        if raw.any(|key| verifies(key)) {
            return Ok(Verdict::Proven("a raw public key".to_owned()));
        }
        let pinned = trust.certificates.iter().filter(|known| {
            leaf.is_none_or(|leaf| leaf == *known)
                && claimed.is_in(known)
                && known.is_valid_at(time)
        });
        if let Some(pinned) = pinned.into_iter().find(|known| verifies(known.key())) {
            return self.check_pinned(pinned, trust, cx);
        }
        let Some(leaf) = leaf else {
            let reason = self.sent.why_no_leaf().to_owned();
            return Err(AuthenticationError::NotTrusted { claimed, reason });
        };
        if !claimed.is_in(leaf) {
            let reason = format!("the certificate of {} does not name it", leaf.subject());
            return Err(AuthenticationError::NotTrusted { claimed, reason });
        }
        if !verifies(leaf.key()) {
            return Err(AuthenticationError::BadSignature { claimed });
        }
        let path = self.find_path(leaf, trust, cx);
        let path = path.map_err(|reason| {
            let (claimed, subject) = (claimed.clone(), leaf.subject());
            let reason = format!("the certificate of {subject}: {reason}");
            AuthenticationError::NotTrusted { claimed, reason }
        })?;
        let how = format!("the certificate of {}", leaf.subject());
        self.check_revocation(&path, how, trust, cx)
    }

    /// A certificate that is trusted itself needs no issuer. One that is known may have revoked it.
    fn check_pinned(
        &self,
        pinned: &Arc<Certificate>,
        trust: &Trust,
        cx: &mut Context,
    ) -> Result<Verdict, AuthenticationError> {
        let refused = |reason: String| {
            let claimed = self.remote.clone();
            Err(AuthenticationError::NotTrusted { claimed, reason })
        };
        if !has_policy(trust, |policy| pinned.has_policy(policy)) {
            return refused(NO_POLICY.to_owned());
        }
        let how = "a certificate that is trusted itself".to_owned();
        let (others, configured) = self.issuers(cx);
        let anchors = [&trust.authorities[..], &configured].concat();
        if let Ok(path) = Path::build(pinned, &others, &anchors, cx.time_of_day()) {
            return self.check_revocation(&path, how, trust, cx);
        }
        let needed = match trust.revocation {
            Revocation::Strict => true,
            Revocation::IfUri => pinned.names_places(),
            Revocation::Relaxed => false,
        };
        if needed {
            let subject = pinned.subject();
            return refused(format!(
                "whether {subject} was revoked is not known: its issuer is not known"
            ));
        }
        Ok(Verdict::Proven(how))
    }

    /// Certificates that may lead to an authority, and those of configured authorities.
    fn issuers(&self, cx: &Context) -> (Vec<Arc<Certificate>>, Vec<Arc<Certificate>>) {
        let configured = cx.pad.authorities.iter();
        let configured = configured.map(|authority| Arc::clone(&authority.certificate));
        let configured: Vec<_> = configured.collect();
        ([&self.sent.others[..], &configured].concat(), configured)
    }

    fn find_path(
        &self,
        leaf: &Arc<Certificate>,
        trust: &Trust,
        cx: &Context,
    ) -> Result<Path, String> {
        let (others, _) = self.issuers(cx);
        let path = Path::build(leaf, &others, &trust.authorities, cx.time_of_day());
        let path = path.map_err(|error| error.to_string())?;
        if !has_policy(trust, |policy| path.has_policy(policy)) {
            return Err(NO_POLICY.to_owned());
        }
        match trust.schemes.weakness_in(&path) {
            Some(weakness) => Err(weakness),
            None => Ok(path),
        }
    }

    fn check_revocation(
        &self,
        path: &Path,
        how: String,
        trust: &Trust,
        cx: &mut Context,
    ) -> Result<Verdict, AuthenticationError> {
        let pad = Arc::clone(&cx.pad);
        let question = Question {
            policy: trust.revocation,
            authorities: &pad.authorities,
            lists: &self.sent.lists,
            answers: &self.sent.answers,
            now: cx.now,
            time: cx.time_of_day(),
            timeout: cx.settings.fetch_timeout,
            waiter: Some(self.waiter),
        };
        match cx.judge_revocation(path, &question) {
            Judgement::Clear => Ok(Verdict::Proven(how)),
            Judgement::Await(fetches) => Ok(Verdict::Await(fetches)),
            Judgement::Refused(reason) => {
                let claimed = self.remote.clone();
                Err(AuthenticationError::NotTrusted { claimed, reason })
            }
        }
    }

    /// The schemes that AUTH may have been made with, and the signature in it.
    fn schemes(&self, trust: &Trust) -> Result<(Vec<Scheme>, &[u8]), AuthenticationError> {
        let data = self.proof.data;
        match self.proof.method {
            AuthMethod::DIGITAL_SIGNATURE => {
                let scheme = split_digital_signature(data);
                let (scheme, signature) = scheme.ok_or(AuthenticationError::Scheme)?;
                Ok((vec![scheme], signature))
            }
            // The hash is inside the signature, and SHA-1 only taken where it is asked for.
            AuthMethod::RSA_SIGNATURE => {
                let hashes = if trust.schemes.hashes.is_empty() {
                    Hash::SHA2.to_vec()
                } else {
                    trust.schemes.hashes.clone()
                };
                Ok((hashes.into_iter().map(Scheme::RsaPkcs1).collect(), data))
            }
            AuthMethod::ECDSA_256 | AuthMethod::ECDSA_384 | AuthMethod::ECDSA_521 => {
                Ok((vec![Scheme::EcdsaFixed], data))
            }
            AuthMethod(other) => Err(AuthenticationError::Method(other)),
        }
    }

    /// Whether the authentication method is one for this kind of key.
    fn is_of_method(&self, key: &PublicKey) -> bool {
        match self.proof.method {
            AuthMethod::ECDSA_256 => key.kind() == KeyKind::P256,
            AuthMethod::ECDSA_384 => key.kind() == KeyKind::P384,
            AuthMethod::ECDSA_521 => key.kind() == KeyKind::P521,
            _ => true,
        }
    }
}

/// Length, AlgorithmIdentifier and signature (RFC 7427 §3).
fn split_digital_signature(data: &[u8]) -> Option<(Scheme, &[u8])> {
    let (&length, rest) = data.split_first()?;
    let (identifier, signature) = rest.split_at_checked(usize::from(length))?;
    Some((Scheme::from_algorithm_identifier(identifier)?, signature))
}

/// Whether one of the policies asked for, if any, is there.
fn has_policy(trust: &Trust, is_there: impl Fn(&str) -> bool) -> bool {
    trust.policies.is_empty() || trust.policies.iter().any(|policy| is_there(policy))
}

const NO_POLICY: &str = "it has none of the policies asked for";
const MOST_HASHES: usize = 16;
