//! What is kept of an IKE SA, so that another one can go on from it (RFC 5723 §5).

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::crypto::Secret;
use crate::crypto::prf::Prf;
use crate::crypto::x509::Certificate;
use crate::wire::ikev2::IdPayload;
use crate::wire::isakmp::IkeSpi;
use crate::wire::proposal::{IkeSuite, PrfId, SaProposal};

use super::Identity;
use super::credentials::{LocalMethod, RemoteMethod};
use super::directory::Directory;
use super::negotiate::{choose_ike, ike_suite, proposal_of};
use super::pad::Connection;

/// An IKE SA that may be resumed, as both of its ends know it.
#[derive(Debug)]
pub(super) struct Session {
    /// Name of the connection.
    pub(super) connection: String,
    /// Initiator's and responder's.
    pub(super) spis: (IkeSpi, IkeSpi),
    pub(super) local_id: Identity,
    pub(super) remote_id: Identity,
    pub(super) suite: IkeSuite,
    pub(super) sk_d: Secret,
    /// A post-quantum preshared key is mixed into `sk_d`.
    pub(super) has_ppk: bool,
    /// [`credential`] at the time of the authentication.
    pub(super) credential: Secret,
    /// The authentication is good until then (RFC 4478).
    pub(super) unproven_at: Option<Instant>,
    /// Addresses of our pools that the peer has.
    pub(super) leased: Vec<IpAddr>,
    /// The IKE SA here that holds them still. Not in a ticket: it is looked up when the ticket comes.
    pub(super) holder: Option<u64>,
    /// When we authenticate anew. Not in a ticket: that is the client's to do.
    pub(super) reauth_at: Option<Instant>,
}

/// An instant, and the time of day at it in seconds since 1970.
#[derive(Clone, Copy, Debug)]
pub(super) struct Date {
    pub(super) now: Instant,
    pub(super) time: u64,
}

impl Session {
    /// Whether the configuration still allows all that this IKE SA was.
    pub(super) fn fits(
        &self,
        connection: &Connection,
        local: IpAddr,
        directory: &Directory,
    ) -> bool {
        let offered = [(1, proposal_of(&self.suite))];
        connection.resumption
            && connection.name == self.connection
            && connection.local_identity(local).is_same(&self.local_id)
            && connection.remote.id.matches(&self.remote_id)
            && (self.has_ppk || !connection.ppk_required)
            && choose_ike(&connection.proposals, &offered, None).is_ok()
            && credential(connection, &self.local_id, &self.remote_id, directory) == self.credential
    }

    /// SKEYSEED of the IKE SA that goes on from this one (RFC 5723 §5.1).
    pub(super) fn skeyseed(&self, prf: Prf, ni: &[u8], nr: &[u8]) -> Secret {
        prf.mac(self.sk_d.as_bytes(), &[b"Resumption", ni, nr])
    }

    /// Appends it as a ticket holds it.
    pub(super) fn encode(&self, date: Date, out: &mut Vec<u8>) {
        let unproven = self.unproven_at.map_or(NEVER, |at| date.of(at));
        out.extend_from_slice(&unproven.to_be_bytes());
        out.push(u8::from(self.has_ppk));
        out.extend_from_slice(&self.spis.0.0);
        out.extend_from_slice(&self.spis.1.0);
        let mut proposal = Vec::new();
        SaProposal::encode_list(&[proposal_of(&self.suite)], &mut proposal);
        let leased: Vec<_> = self.leased.iter().map(IpAddr::to_string).collect();
        for field in [
            self.connection.as_bytes(),
            &self.local_id.to_payload_body(),
            &self.remote_id.to_payload_body(),
            &proposal,
            leased.join(" ").as_bytes(),
            self.credential.as_bytes(),
            self.sk_d.as_bytes(),
        ] {
            // What is longer is cut, and then is no session any more.
            let length = u16::try_from(field.len()).unwrap_or(u16::MAX);
            out.extend_from_slice(&length.to_be_bytes());
            out.extend(field.iter().take(length.into()));
        }
    }

    /// Reads what [`Self::encode`] has written.
    pub(super) fn parse(bytes: &[u8], date: Date) -> Option<Self> {
        let (unproven, rest) = bytes.split_first_chunk::<8>()?;
        let (&[has_ppk], rest) = rest.split_first_chunk::<1>()?;
        let (initiator, rest) = rest.split_first_chunk::<8>()?;
        let (responder, mut rest) = rest.split_first_chunk::<8>()?;
        let mut field = || {
            let (length, tail) = rest.split_first_chunk::<2>()?;
            let (value, tail) = tail.split_at_checked(u16::from_be_bytes(*length).into())?;
            rest = tail;
            Some(value)
        };
        let id = |body| Some(Identity::from_payload(&IdPayload::parse(body).ok()?));
        let unproven = u64::from_be_bytes(*unproven);
        let session = Self {
            unproven_at: (unproven != NEVER).then(|| date.at(unproven)),
            reauth_at: None,
            holder: None,
            has_ppk: has_ppk != 0,
            spis: (IkeSpi(*initiator), IkeSpi(*responder)),
            connection: String::from_utf8(field()?.to_vec()).ok()?,
            local_id: id(field()?)?,
            remote_id: id(field()?)?,
            suite: ike_suite(&SaProposal::parse_list(field()?).ok()?.first()?.1)?,
            leased: addresses(field()?)?,
            credential: Secret::copy_from(field()?),
            sk_d: Secret::copy_from(field()?),
        };
        rest.is_empty().then_some(session)
    }
}

/// Addresses with a space between them.
fn addresses(text: &[u8]) -> Option<Vec<IpAddr>> {
    let words = std::str::from_utf8(text).ok()?.split_terminator(' ');
    words.map(|word| word.parse().ok()).collect()
}

impl Date {
    /// The time of day of another instant.
    fn of(self, at: Instant) -> u64 {
        let until = at.saturating_duration_since(self.now).as_secs();
        self.time.saturating_add(until)
    }

    /// The instant of another time of day: now, if it has passed.
    fn at(self, time: u64) -> Instant {
        let until = Duration::from_secs(time.saturating_sub(self.time));
        self.now.checked_add(until).unwrap_or(self.now)
    }
}

/// What the two ends of a connection prove their identities with, as one value: the shared secret, or
/// the keys of both sides and of the authorities.
pub(super) fn credential(
    connection: &Connection,
    local: &Identity,
    remote: &Identity,
    directory: &Directory,
) -> Secret {
    let prf = Prf::new(PrfId::HMAC_SHA2_256).expect("HMAC-SHA2-256 is always there");
    let shared = || {
        let secret = directory.secret(local, Some(remote));
        secret.map_or(&[][..], |shared| shared.secret.secret().as_bytes())
    };
    let digest = |label: &[u8], secret: &[u8], fields: &[&[u8]]| {
        let lengths: Vec<_> = fields
            .iter()
            .map(|field| field.len().to_be_bytes())
            .collect();
        let fields = lengths
            .iter()
            .map(<[u8; _]>::as_slice)
            .zip(fields.iter().copied());
        let fields = fields.flat_map(|(length, field)| [length, field]);
        let parts: Vec<_> = std::iter::once(label).chain(fields).collect();
        prf.mac(secret, &parts)
    };
    let ours = match &connection.local.method {
        LocalMethod::Psk => digest(b"local secret", shared(), &[]),
        LocalMethod::Signature { keys, .. } => {
            let keys: Vec<_> = keys.iter().map(|key| key.key.public().spki()).collect();
            digest(b"local keys", &[], &keys)
        }
    };
    let theirs = match &connection.remote.method {
        RemoteMethod::Psk => digest(b"remote secret", shared(), &[]),
        RemoteMethod::Signature(trust) => {
            let of = |certificate: &Arc<Certificate>| certificate.key().spki().to_vec();
            let raw = trust.keys.iter().map(|key| key.spki().to_vec());
            let policies = trust
                .policies
                .iter()
                .map(|policy| policy.clone().into_bytes());
            let lists: [(&[u8], Vec<Vec<u8>>); 4] = [
                (b"raw", raw.collect()),
                (b"certificates", trust.certificates.iter().map(of).collect()),
                (b"authorities", trust.authorities.iter().map(of).collect()),
                (b"policies", policies.collect()),
            ];
            let each = lists.map(|(label, list)| {
                let fields: Vec<_> = list.iter().map(Vec::as_slice).collect();
                digest(label, &[], &fields)
            });
            digest(b"remote keys", &[], &each.each_ref().map(Secret::as_bytes))
        }
    };
    prf.mac(ours.as_bytes(), &[theirs.as_bytes()])
}

const NEVER: u64 = u64::MAX;
