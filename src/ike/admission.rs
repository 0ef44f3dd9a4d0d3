//! Who may open an IKE SA (RFC 7296 §2.6): cookies, limits, and the unique policy.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use super::alert::{Alert, AlertKind, Subject};
use crate::crypto::CryptoRng;
use crate::wire::ikev2::{NotifyType, PayloadWriter};
use crate::wire::isakmp::ExchangeType;

use super::cookie::CookieJar;
use super::crash_token::TokenLimits;
use super::endpoint::{Endpoint, Superseded};
use super::pad::Unique;
use super::rate::RateLimit;
use super::sources::Sources;
use super::v2::{Datagram, Established, ExchangeError, IkeSa, InitRequest, Payloads, add_notify};
use super::{Discard, Settings};

/// What strangers share.
pub(super) struct Admission {
    cookies: CookieJar,
    /// Requests that need no cookie; made for [`Settings::cookie_rate`] at the first request.
    requests: Option<RateLimit>,
    /// Requests of all strangers; made for [`Settings::stranger_rate`] likewise.
    strangers: Option<RateLimit>,
    /// Requests of each address.
    sources: Sources,
    /// Answers outside any IKE SA.
    replies: RateLimit,
    pub(super) tokens: TokenLimits,
    /// IKE SAs that strangers have opened, oldest first; many are not half-open any more.
    opened_by_strangers: VecDeque<u64>,
}

/// What is known about the sender of a request.
#[derive(Clone, Copy, Debug)]
struct Sender {
    /// Its address is that of a single configured peer.
    configured: bool,
    /// It receives what is sent to its address.
    proven: bool,
}

impl Admission {
    pub(super) fn new(now: Instant, rng: &mut dyn CryptoRng) -> Self {
        Self {
            cookies: CookieJar::new(now, rng),
            requests: None,
            strangers: None,
            sources: Sources::default(),
            replies: RateLimit::new(20, 40, now),
            tokens: TokenLimits::new(now),
            opened_by_strangers: VecDeque::new(),
        }
    }

    /// Whether a stranger may be answered.
    pub(super) fn allow_reply(&mut self, now: Instant) -> bool {
        self.replies.allow(now)
    }

    /// Whether there is time for a sender. One that has not proven its address is limited by
    /// [`Settings::cookie_rate`] and by the half-open IKE SAs that its address may have.
    fn allow_work(
        &mut self,
        addr: IpAddr,
        sender: Sender,
        settings: &Settings,
        now: Instant,
    ) -> bool {
        if sender.proven && !self.sources.allow(addr, settings.source_rate, now) {
            return false;
        }
        let rate = settings.stranger_rate;
        let strangers = self
            .strangers
            .get_or_insert_with(|| RateLimit::new(rate, rate, now));
        sender.configured || strangers.allow(now)
    }

    fn allow_request(&mut self, settings: &Settings, now: Instant) -> bool {
        let rate = settings.cookie_rate;
        let limit = self
            .requests
            .get_or_insert_with(|| RateLimit::new(rate, rate, now));
        limit.allow(now)
    }
}

impl Endpoint {
    /// A peer wants to open an IKE SA.
    pub(super) fn on_init_request(&mut self, datagram: &Datagram<'_>) -> Result<(), Discard> {
        if self.is_repeated(datagram)? {
            return Ok(());
        }
        let payloads = match datagram.clear_payloads() {
            Ok(payloads) => payloads,
            Err(error @ ExchangeError::UnsupportedCritical(_)) => {
                return Err(self.refuse_init(datagram, &error, false));
            }
            Err(_) => return Err(Discard::Malformed),
        };
        let nonce = payloads.nonce().map_err(|_| Discard::BadPayload)?;
        let sender = self.check_cookie(datagram, nonce, &payloads)?;
        let (now, addr) = (self.cx.now, datagram.remote().ip());
        if !self
            .admission
            .allow_work(addr, sender, &self.cx.settings, now)
        {
            return Err(Discard::RateLimited);
        }

        let (local, remote) = (datagram.path.local.ip(), datagram.remote().ip());
        let directory = Arc::clone(&self.cx.directory);
        let connections = directory.by_addresses(local, remote);
        if connections.is_empty() {
            let line = format!("no connection is configured for {local}...{remote}");
            self.alert_of_init(datagram, AlertKind::PeerAddress, line);
            self.notify_stranger(datagram, NotifyType::NO_PROPOSAL_CHOSEN, &[]);
            return Err(Discard::NoConnection);
        }
        if self.redirect_init(datagram, &payloads, nonce, &connections) {
            return Ok(());
        }
        let request = InitRequest {
            datagram: *datagram,
            payloads: &payloads,
            connections,
        };
        if datagram.header.exchange == ExchangeType::IKE_SESSION_RESUME {
            let always = sender.proven || sender.configured;
            let table = &self.table;
            let holder = |spis| Some(table.by_spis(spis)?.core.virtual_ips.holder);
            let resumed = request.resume(holder, &mut self.cx);
            let sa = resumed.map_err(|error| self.refuse_ticket(datagram, error, always))?;
            self.admit(datagram, sender, sa);
            return Ok(());
        }
        match request.answer(&mut self.cx) {
            Ok(sa) => {
                self.admit(datagram, sender, sa);
                Ok(())
            }
            Err(ExchangeError::InvalidPublic) => Err(Discard::BadPublicValue),
            // A guess that was wrong is no mistake: whoever may come in is told, as with a cookie.
            Err(error @ ExchangeError::OtherGroup(_)) => {
                Err(self.refuse_init(datagram, &error, true))
            }
            Err(error @ ExchangeError::Proposals(_)) => {
                Err(self.refuse_init(datagram, &error, sender.proven))
            }
            Err(_) => Err(Discard::BadPayload),
        }
    }

    /// Whether an IKE SA that this request has opened before has taken it; the check of what needs no
    /// payload.
    fn is_repeated(&mut self, datagram: &Datagram<'_>) -> Result<bool, Discard> {
        let header = &datagram.header;
        let fresh =
            header.message_id == 0 && header.flags.initiator() && header.responder_spi.is_zero();
        if !fresh {
            return Err(Discard::BadHeader);
        }
        if self.closing {
            return Err(Discard::ShuttingDown);
        }
        if datagram.bytes.len() > MAX_INIT {
            return Err(Discard::TooLong);
        }
        let known = self.table.by_init(datagram.remote(), header.initiator_spi);
        let Some(sa) = known else {
            return Ok(false);
        };
        match sa.init_request() {
            Some(request) if request == datagram.bytes => {
                let id = sa.core.id;
                self.step(id, |sa, cx| sa.on_datagram(datagram, cx));
                Ok(true)
            }
            // The same SPI with another group or a cookie: the answer did not arrive or was no use.
            Some(_) => Ok(false),
            None => Err(Discard::StaleRequest),
        }
    }

    /// Keeps a half-open IKE SA.
    fn admit(&mut self, datagram: &Datagram<'_>, sender: Sender, sa: IkeSa) {
        self.make_room(datagram);
        if !sender.configured {
            self.admission.opened_by_strangers.push_back(sa.core.id);
        }
        self.table.put(sa);
    }

    /// Tells a stranger why not, and keeps nothing. `always`: whatever others have been told.
    fn refuse_init(
        &mut self,
        datagram: &Datagram<'_>,
        error: &ExchangeError,
        always: bool,
    ) -> Discard {
        let remote = datagram.remote();
        let exchange = datagram.header.exchange;
        let line = format!("refused {exchange} of {remote}: {error}");
        self.alert_of_init(datagram, error.alert_kind(Subject::Ike), line);
        if always || self.admission.allow_reply(self.cx.now) {
            let mut payloads = PayloadWriter::new();
            error.encode(&mut payloads);
            self.reply_clear(datagram, payloads);
        }
        error.discard()
    }

    fn alert_of_init(&mut self, datagram: &Datagram<'_>, kind: AlertKind, message: String) {
        let (local, remote) = (datagram.path.local.ip(), datagram.remote().ip());
        self.cx.alert_of_stranger(|cx| Alert {
            kind,
            connections: Alert::candidates(&cx.pad, local, remote),
            child: None,
            ike: None,
            message,
        });
    }

    /// Under load, only who returns a cookie may cost us anything.
    fn check_cookie(
        &mut self,
        datagram: &Datagram<'_>,
        nonce: &[u8],
        payloads: &Payloads<'_>,
    ) -> Result<Sender, Discard> {
        let now = self.cx.now;
        let addr = datagram.remote().ip();
        let who = (addr, datagram.header.initiator_spi, nonce);
        let busy = self.table.half_open() >= self.cx.settings.cookie_threshold;
        let fast = !self.admission.allow_request(&self.cx.settings, now);
        let configured = self.cx.directory.is_host(addr);
        let sender = |proven| Sender { configured, proven };
        let budget = if configured {
            self.cx.settings.half_open_per_address
        } else {
            1
        };
        let crowded = self.table.half_open_from(addr) >= budget;
        if !(busy || fast || crowded) {
            return Ok(sender(false));
        }
        let rng = self.cx.rng();
        let reason = match payloads.notify(NotifyType::COOKIE) {
            Some(cookie) if self.admission.cookies.check(cookie.data, who, now, rng) => {
                return Ok(sender(true));
            }
            Some(_) => Discard::BadCookie,
            None => Discard::CookieRequired,
        };
        let rng = self.cx.rng();
        let cookie = self.admission.cookies.make(who, now, rng);
        let mut answer = PayloadWriter::new();
        add_notify(&mut answer, NotifyType::COOKIE, &cookie);
        self.reply_clear(datagram, answer);
        Err(reason)
    }

    /// Forgets the oldest half-open IKE SA where there are too many.
    fn make_room(&mut self, datagram: &Datagram<'_>) {
        let addr = datagram.remote().ip();
        let of_address = MOST_FROM_ONE_ADDRESS.max(self.cx.settings.half_open_per_address);
        let oldest = if self.table.half_open_from(addr) >= of_address {
            self.table.oldest_half_open(Some(addr))
        } else if self.table.half_open() >= self.cx.settings.half_open_limit {
            let stranger = self.oldest_stranger();
            stranger.or_else(|| self.table.oldest_half_open(None))
        } else {
            None
        };
        if let Some(id) = oldest {
            self.cx.discard(Discard::HalfOpenLimit);
            self.table.evict(id);
        }
        let opened = &mut self.admission.opened_by_strangers;
        if opened.len() > 2 * self.cx.settings.half_open_limit {
            let table = &self.table;
            opened.retain(|id| table.get(*id).is_some_and(IkeSa::is_half_open));
        }
    }

    /// The oldest half-open IKE SA that is not with a configured peer's address.
    fn oldest_stranger(&mut self) -> Option<u64> {
        loop {
            let id = self.admission.opened_by_strangers.pop_front()?;
            if self.table.get(id).is_some_and(IkeSa::is_half_open) {
                return Some(id);
            }
        }
    }

    /// The IKE SAs that have to go because this one was established.
    pub(super) fn superseded_by(&self, id: u64, initial_contact: bool) -> Vec<(u64, Superseded)> {
        let Some(new) = self.table.get(id) else {
            return Vec::new();
        };
        let (Some(established), Some(connection)) = (new.established(), &new.core.connection)
        else {
            return Vec::new();
        };
        let peer = &established.peer;
        let all = self.cx.peers.between(&peer.local_id, &peer.remote_id);
        let others = all.iter().filter(|other| **other != id);
        let others = others.filter_map(|other| self.table.get(*other));
        let only_redirects = established.only_redirects();
        let mut superseded = Vec::new();
        for old in others.filter(|old| old.established().is_some_and(Established::is_usable)) {
            // Two SAs that were set up at the same time do not replace each other.
            let before = old
                .established()
                .is_some_and(|sa| sa.is_older_than(&new.core));
            // What is only there to redirect is needed by nobody who has opened another one.
            let has_gone = (before || only_redirects)
                && old.established().is_some_and(Established::only_redirects);
            let verdict = match connection.unique {
                _ if has_gone => Some((old.core.id, Superseded::Forgotten)),
                Unique::Never => None,
                _ if before && initial_contact => Some((old.core.id, Superseded::Forgotten)),
                // It replaces nothing that the peer still has.
                _ if only_redirects => None,
                Unique::Replace if before => Some((old.core.id, Superseded::Unwanted)),
                _ if before => None,
                _ => tie_loser(old, new).map(|loser| (loser, Superseded::Redundant)),
            };
            superseded.extend(verdict);
        }
        let kept = all.len().saturating_sub(superseded.len());
        if !only_redirects
            && kept > self.cx.settings.ike_sas_per_peer
            && let Some(oldest) = all.first().filter(|oldest| **oldest != id)
            && superseded.iter().all(|(gone, _)| gone != oldest)
        {
            superseded.push((*oldest, Superseded::Unwanted));
        }
        superseded
    }
}

/// Both sides opened an IKE SA at the same time. The one with the lowest nonce goes; its creator,
/// which may be us, deletes it.
fn tie_loser(old: &IkeSa, new: &IkeSa) -> Option<u64> {
    let (one, two) = (
        old.established()?.lowest_nonce(),
        new.established()?.lowest_nonce(),
    );
    if old.core.initiator == new.core.initiator || one.is_empty() || two.is_empty() {
        return None;
    }
    let loser = if one < two { old } else { new };
    loser.core.initiator.then_some(loser.core.id)
}

/// A half-open IKE SA keeps the request, so a stranger decides how much memory that takes.
const MAX_INIT: usize = 4 * 1024;
/// So many gateways may hide behind one address and start at once.
const MOST_FROM_ONE_ADDRESS: usize = 1024;
