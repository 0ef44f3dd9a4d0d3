//! REDIRECT (RFC 5685): where initiators go instead, and how gateways send them away.
//!
//! ```text
//! IKE_SA_INIT     ◄─ REDIRECT with our nonce, in clear        the attempt goes on elsewhere
//! IKE_AUTH        ◄─ REDIRECT beside AUTH                     the same, and the IKE SA is deleted
//! INFORMATIONAL   ◄─ REDIRECT                                 a new IKE SA, then the old one is deleted
//! ```

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use crate::wire::ikev2::{Gateway, NotifyType, PayloadWriter};

use super::context::{Attempt, Context};
use super::endpoint::Endpoint;
use super::pad::{AddressPattern, Connection};
use super::v2::{Datagram, IkeSa, Payloads, add_notify};
use super::{CommandError, CommandOutcome, IdentityPattern, Output, Path};

/// Whom a command redirects; what is absent fits all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Redirected {
    /// Connection name.
    pub ike: Option<String>,
    /// One IKE SA.
    pub ike_id: Option<u64>,
    /// Where the peer is.
    pub peer_ip: Option<AddressPattern>,
    /// Who the peer is.
    pub peer_id: Option<IdentityPattern>,
}

/// How an attempt comes to a gateway that is not the configured one.
#[derive(Clone, Debug, Default)]
pub(super) struct Detour {
    to: Option<Leg>,
    /// One has led nowhere, and the configured gateway is asked to serve us itself.
    failed: bool,
    /// When redirects were followed, the last few.
    followed: Vec<Instant>,
}

#[derive(Clone, Copy, Debug)]
struct Leg {
    gateway: IpAddr,
    from: IpAddr,
    /// Our address towards it, once it was told.
    local: Option<IpAddr>,
}

impl Detour {
    /// Follows the gateway at the other end of `path`; otherwise the reason why not.
    pub(super) fn follow(
        &self,
        gateway: &Gateway,
        path: Path,
        cx: &Context,
    ) -> Result<Self, &'static str> {
        if self.failed {
            return Err("the last redirect led nowhere");
        }
        let is_unicast = gateway.is_unicast();
        let Gateway::Address(gateway) = *gateway else {
            return Err("names are not resolved");
        };
        let from = path.remote.ip();
        if gateway == from || gateway == path.local.ip() || cx.addresses.contains(&gateway) {
            return Err("it leads nowhere else");
        }
        if !is_unicast {
            return Err("that is no gateway's address");
        }
        let recent = |at: &Instant| cx.now.saturating_duration_since(*at) < LOOP_DETECT_PERIOD;
        let mut followed: Vec<_> = self.followed.iter().copied().filter(recent).collect();
        if followed.len() >= MAX_REDIRECTS {
            return Err("there were too many redirects");
        }
        followed.push(cx.now);
        Ok(Self {
            to: Some(Leg {
                gateway,
                from,
                local: None,
            }),
            failed: false,
            followed,
        })
    }

    /// The last try has failed, a detour or not; returns which. After a detour the configured gateway is
    /// next, and is to serve us itself; after that one redirects are followed again.
    pub(super) fn fail(&mut self) -> bool {
        self.failed = self.to.take().is_some();
        self.failed
    }

    /// The way to a gateway that serves us.
    pub(super) fn arrived(self) -> Self {
        Self {
            failed: false,
            ..self
        }
    }

    pub(super) fn has_failed(&self) -> bool {
        self.failed
    }

    /// Our address towards the gateway.
    pub(super) fn local(&self) -> Option<IpAddr> {
        self.to.and_then(|leg| leg.local)
    }

    /// Takes our address towards `remote`.
    pub(super) fn start_from(&mut self, local: IpAddr, remote: IpAddr) {
        if let Some(leg) = self.to.as_mut().filter(|leg| leg.gateway == remote) {
            leg.local = Some(local);
        }
    }

    /// The gateway that it goes to, where our address towards that one is not known.
    pub(super) fn lacks_source(&self) -> Option<IpAddr> {
        let leg = self.to.filter(|leg| leg.local.is_none())?;
        Some(leg.gateway)
    }

    /// The gateway that has sent us here.
    pub(super) fn from(&self) -> Option<IpAddr> {
        self.to.map(|leg| leg.from)
    }
}

impl Attempt {
    /// Where it goes, if the configuration or a redirect says so.
    pub(super) fn destination(&self) -> Option<SocketAddr> {
        let port = self.connection.remote_port;
        let elsewhere = self.detour.to.map(|leg| (leg.gateway, port).into());
        elsewhere.or_else(|| self.connection.remote_host())
    }
}

impl Connection {
    /// Where to send an initiator that we have met at `path`, if that is elsewhere.
    pub(super) fn redirect_from(&self, path: Path) -> Option<&Gateway> {
        let here = Gateway::Address(path.local.ip());
        self.redirect.as_ref().filter(|gateway| **gateway != here)
    }
}

/// Whether the initiator goes where it is sent to (RFC 5685 §3).
pub(super) fn is_supported(payloads: &Payloads<'_>) -> bool {
    let said = |kind| payloads.notify(kind).is_some();
    said(NotifyType::REDIRECT_SUPPORTED) || said(NotifyType::REDIRECTED_FROM)
}

impl Endpoint {
    /// Sends an initiator away with the first answer, if every connection that it may be for does so. Who
    /// it is has no say before it has proven that (RFC 5685 §11).
    pub(super) fn redirect_init(
        &mut self,
        datagram: &Datagram<'_>,
        payloads: &Payloads<'_>,
        nonce: &[u8],
        connections: &[&std::sync::Arc<Connection>],
    ) -> bool {
        let mut gateways = connections
            .iter()
            .map(|connection| connection.redirect_from(datagram.path));
        let Some(Some(gateway)) = gateways.next() else {
            return false;
        };
        if !is_supported(payloads) || gateways.any(|other| other != Some(gateway)) {
            return false;
        }
        let mut answer = PayloadWriter::new();
        add_notify(&mut answer, NotifyType::REDIRECT, &gateway.encode(nonce));
        self.reply_clear(datagram, answer);
        let line = format!("redirecting {} to {gateway}", datagram.remote());
        self.cx.warn("IKE", None, line);
        true
    }

    /// Sends peers away that have set up IKE SAs with us and go where they are sent to.
    pub(super) fn redirect(
        &mut self,
        whom: &Redirected,
        gateway: &Gateway,
    ) -> Result<CommandOutcome, CommandError> {
        let mut matches = 0;
        for id in self.table.ids_where(|sa| whom.is(sa)) {
            self.step(id, |sa, cx| {
                sa.with_established(cx, |established, core, _| {
                    matches += u32::from(established.queue_redirect(gateway, core));
                });
            });
        }
        if matches == 0 {
            return Err(CommandError::NoMatch);
        }
        Ok(CommandOutcome {
            matches,
            ..CommandOutcome::default()
        })
    }

    /// Goes on with an attempt in another way.
    pub(super) fn go_on(&mut self, mut attempt: Attempt) {
        if self.closing {
            return self.give_up(attempt, "shutting down");
        }
        if attempt.replaces.is_some_and(|old| self.is_replacing(old)) {
            return; // the wishes are those of the attempt that is under way
        }
        let Some(remote) = attempt.destination().map(|remote| remote.ip()) else {
            return self.connect(attempt);
        };
        let fixed = attempt.connection.local_host(remote);
        if fixed.is_some() || self.cx.sources.contains_key(&remote) {
            return self.connect(attempt);
        }
        attempt.awaits_source = true;
        self.cx.output(Output::Route(remote));
        self.planned.add(self.cx.now + LOOK_UP, attempt);
    }
}

impl Redirected {
    /// Nothing is selected.
    #[must_use]
    pub fn is_everybody(&self) -> bool {
        *self == Self::default()
    }

    fn is(&self, sa: &IkeSa) -> bool {
        let peer = sa.established().map(|established| &established.peer);
        let wanted = |name: &String| *name == sa.core.name();
        let at = |place: &AddressPattern| place.matches(sa.core.path.remote.ip());
        let who = |id: &IdentityPattern| peer.is_some_and(|peer| id.matches(&peer.remote_id));
        self.ike.as_ref().is_none_or(wanted)
            && self.ike_id.is_none_or(|id| id == sa.core.id)
            && self.peer_ip.as_ref().is_none_or(at)
            && self.peer_id.as_ref().is_none_or(who)
    }
}

/// MAX_REDIRECTS within REDIRECT_LOOP_DETECT_PERIOD (RFC 5685 §7).
const MAX_REDIRECTS: usize = 5;
const LOOP_DETECT_PERIOD: Duration = Duration::from_secs(300);
/// In which our address towards a gateway is told if there is a route to it.
const LOOK_UP: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn after_the_configured_gateway_has_failed_as_well_redirects_are_followed_again() {
        let address = |last| IpAddr::from([192, 0, 2, last]);
        let mut detour = Detour {
            to: Some(Leg {
                gateway: address(9),
                from: address(2),
                local: None,
            }),
            ..Detour::default()
        };
        assert!(detour.fail() && detour.has_failed());
        assert!(!detour.clone().arrived().has_failed());
        assert!(!detour.fail() && !detour.has_failed());
    }
}
