//! MOBIKE (RFC 4555): an IKE SA and its Child SAs follow a gateway to another address.
//!
//! ```text
//! we decide     address changed ─► IKE and ESP from the new one ─► UPDATE_SA_ADDRESSES ─► NAT known
//! peer decides  UPDATE_SA_ADDRESSES ─► IKE to the new one ─► COOKIE2 ─► answered ─► ESP to the new one
//! ```
//!
//! The side that opened the first IKE SA decides, also after rekeys of the other side. A path that a
//! peer has only claimed carries nothing but the check of it; if nobody answers there, the path
//! before is tried again.

mod addresses;

use std::net::IpAddr;

use crate::crypto::constant_time_eq;
use crate::ike::context::Context;
use crate::ike::nat;
use crate::ike::pad::Connection;
use crate::ike::status::NatStatus;
use crate::ike::{Discard, Path};
use crate::wire::ikev2::{NotifyType, PayloadWriter};

use super::child::{End, esp_path};
use super::established::{Established, Fate};
use super::message::{Datagram, Payloads, add_notify};
use super::tasks::{Pending, Task};
use super::{Core, with_port};

use addresses::{
    add_addresses, additional_addresses, is_address, is_own_or_many, is_translated, local_towards,
    own_addresses,
};

/// What an IKE SA on which MOBIKE is in use knows about addresses.
#[derive(Debug)]
pub(super) struct Mobike {
    /// We choose which addresses are used (RFC 4555 §3.5).
    decides: bool,
    /// Where else the peer says it is.
    peer_addrs: Vec<IpAddr>,
    /// How many of them were tried since the peer was last heard.
    tried: usize,
    /// The peer has claimed the present path and has not shown that it receives there.
    claim: Option<Claim>,
    /// We have decided on the present path and the peer has not answered yet.
    untold: bool,
    /// What the peer last said about the address that it sees us at (RFC 4555 §3.8).
    seen: Option<Vec<u8>>,
}

#[derive(Clone, Copy, Debug)]
struct Claim {
    /// The last path that is known to work.
    from: Path,
    /// What is between the claimed addresses.
    nat: NatStatus,
}

/// A request whose answer shows that the peer receives on a path.
#[derive(Debug)]
pub(super) struct RouteCheck {
    cookie: [u8; COOKIE2_LEN],
    path: Path,
}

impl Mobike {
    /// For an IKE SA in whose IKE_AUTH both sides have sent MOBIKE_SUPPORTED.
    pub(super) fn negotiate(
        connection: &Connection,
        decides: bool,
        payloads: &Payloads<'_>,
    ) -> Option<Self> {
        payloads.notify(NotifyType::MOBIKE_SUPPORTED)?;
        connection.mobike.then(|| Self {
            decides,
            peer_addrs: additional_addresses(payloads),
            tried: 0,
            claim: None,
            untold: false,
            seen: None,
        })
    }
}

/// Adds MOBIKE_SUPPORTED and our other addresses to a message of IKE_AUTH.
pub(super) fn announce(
    payloads: &mut PayloadWriter,
    connection: &Connection,
    current: IpAddr,
    cx: &Context,
) {
    add_notify(payloads, NotifyType::MOBIKE_SUPPORTED, &[]);
    add_addresses(payloads, &own_addresses(connection, current, cx));
}

impl Established {
    /// Takes over from a replaced IKE SA, also what that one had no time for.
    pub(super) fn inherit_addresses(&mut self, mut mobike: Mobike) {
        mobike.seen = None; // it covers the SPIs
        let (claimed, untold) = (mobike.claim.is_some(), mobike.untold);
        self.mobike = Some(mobike);
        if claimed {
            self.push_first(Task::CheckRoute);
        }
        if untold {
            self.push_first(Task::UpdateAddresses);
        }
    }

    /// Where the peer says it is, too; `None` if the addresses stay.
    pub(in crate::ike) fn peer_addresses(&self) -> Option<&[IpAddr]> {
        let mobike = self.mobike.as_ref();
        mobike.map(|mobike| mobike.peer_addrs.as_slice())
    }

    /// Our addresses or routes have changed.
    pub(in crate::ike) fn follow_addresses(&mut self, core: &mut Core, cx: &mut Context) {
        let Some(mobike) = &self.mobike else { return };
        let decides = mobike.decides;
        let Some(path) = self.usable_path(core, cx) else {
            return;
        };
        if path == core.path {
            return;
        }
        if decides {
            self.change_path(core, path, cx);
        } else {
            // Our address is gone, so what the peer decided cannot be kept (RFC 4555 §3.5, §3.6).
            self.take_path(core, path, cx);
            self.move_children(core, cx);
            self.push_first(Task::AnnounceAddresses);
        }
    }

    /// The present path if it still works at our end; otherwise another one.
    fn usable_path(&self, core: &Core, cx: &Context) -> Option<Path> {
        let connection = core.connection.as_ref()?;
        let mobike = self.mobike.as_ref()?;
        let present = cx.addresses.contains(&core.path.local.ip());
        if present && !mobike.decides {
            return Some(core.path);
        }
        let others = mobike.peer_addrs.iter().copied();
        let mut remotes = std::iter::once(core.path.remote.ip()).chain(others);
        remotes.find_map(|remote| {
            let local = local_towards(connection, core.path.local.ip(), remote, cx)?;
            Some(Path {
                local: (local, core.path.local.port()).into(),
                remote: (remote, core.path.remote.port()).into(),
            })
        })
    }

    /// Decides that this path is used from now on, and tells the peer.
    fn change_path(&mut self, core: &mut Core, path: Path, cx: &mut Context) {
        let same_peer = path.remote == core.path.remote;
        if let Some(mobike) = &mut self.mobike {
            mobike.untold = true;
        }
        self.take_path(core, path, cx);
        // The peer receives there already, so what we send need not wait for its answer.
        if same_peer {
            self.move_children(core, cx);
        }
        self.push_first(Task::UpdateAddresses);
    }

    /// Speaks IKE on this path from now on; a request that is unanswered is repeated there at once.
    fn take_path(&mut self, core: &mut Core, path: Path, cx: &mut Context) {
        let line = format!(
            "IKE_SA moves from {}...{} to {}...{}",
            core.path.local, core.path.remote, path.local, path.remote
        );
        core.warn(cx, "NET", line);
        core.path = path;
        if let Some(outstanding) = &mut self.work.outstanding {
            outstanding.start_over(path, cx);
        }
    }

    /// Child SAs follow to the path of the IKE SA.
    fn move_children(&mut self, core: &Core, cx: &mut Context) {
        let esp = esp_path(core.path, self.nat, cx);
        for child in &mut self.children {
            child.move_to(esp, cx);
        }
        self.liveness.set_nat(self.nat, cx);
    }

    /// Queues a task of MOBIKE before all others, unless it is queued.
    fn push_first(&mut self, task: Task) {
        let kind = std::mem::discriminant(&task);
        let mut queued = self.work.queue.iter();
        if !queued.any(|known| std::mem::discriminant(known) == kind) {
            self.work.queue.push_front(task);
        }
    }

    pub(super) fn begin_update_addresses(
        &mut self,
        core: &Core,
        payloads: &mut PayloadWriter,
        cx: &mut Context,
    ) -> Option<Pending> {
        self.mobike.as_ref()?;
        add_notify(payloads, NotifyType::UPDATE_SA_ADDRESSES, &[]);
        self.add_nat_detection(core, core.path, payloads, cx);
        let check = RouteCheck::start(core, payloads, cx);
        Some(Pending::UpdateAddresses(check))
    }

    pub(super) fn begin_check_route(
        &mut self,
        core: &Core,
        payloads: &mut PayloadWriter,
        cx: &mut Context,
    ) -> Option<Pending> {
        self.mobike.as_ref()?.claim?;
        let check = RouteCheck::start(core, payloads, cx);
        Some(Pending::CheckRoute(check))
    }

    pub(super) fn begin_announce_addresses(
        &mut self,
        core: &Core,
        payloads: &mut PayloadWriter,
        cx: &mut Context,
    ) -> Option<Pending> {
        self.mobike.as_ref()?;
        let connection = core.connection.as_ref()?;
        let others = own_addresses(connection, core.path.local.ip(), cx);
        add_addresses(payloads, &others);
        if others.is_empty() {
            add_notify(payloads, NotifyType::NO_ADDITIONAL_ADDRESSES, &[]);
        }
        Some(Pending::AnnounceAddresses)
    }

    /// A check by which we learn whether a NAT has mapped us to another address (RFC 4555 §3.8).
    pub(super) fn begin_liveness(
        &mut self,
        core: &Core,
        payloads: &mut PayloadWriter,
        cx: &mut Context,
    ) -> Pending {
        if self.mobike.as_ref().is_some_and(|mobike| mobike.decides) && self.nat.local {
            self.add_nat_detection(core, core.path, payloads, cx);
        }
        Pending::Liveness
    }

    pub(super) fn on_liveness_answer(&mut self, payloads: &Payloads<'_>) {
        let Some(mobike) = self.mobike.as_mut().filter(|mobike| mobike.decides) else {
            return;
        };
        let Some(seen) = payloads.notify(NotifyType::NAT_DETECTION_DESTINATION_IP) else {
            return;
        };
        let before = mobike.seen.replace(seen.data.to_vec());
        if before.is_some_and(|before| before != seen.data) {
            self.push_first(Task::UpdateAddresses);
        }
    }

    /// The peer has answered UPDATE_SA_ADDRESSES.
    pub(super) fn on_update_answer(
        &mut self,
        core: &Core,
        check: &RouteCheck,
        payloads: &Payloads<'_>,
        cx: &mut Context,
    ) -> Fate {
        if let Err(end) = check.verify(payloads) {
            return Fate::Ends(end);
        }
        if check.path != core.path {
            self.push_first(Task::UpdateAddresses); // sent there before, so it says nothing
            return Fate::Stays;
        }
        if let Some(mobike) = &mut self.mobike {
            mobike.untold = false;
        }
        if let Some(refusal) = payloads.error() {
            let path = core.path;
            let line = format!(
                "peer refuses {}...{}: {}",
                path.local, path.remote, refusal.kind
            );
            core.warn(cx, "NET", line);
            return Fate::Stays;
        }
        let force = core.connection.as_ref().is_some_and(|conn| conn.encap);
        let found = nat::detect(&payloads.notifies, core.spis(), core.path, force);
        self.nat = found.unwrap_or(self.nat);
        self.move_children(core, cx);
        Fate::Stays
    }

    /// The peer has answered the check of a path that it claimed.
    pub(super) fn on_route_answer(
        &mut self,
        core: &Core,
        check: &RouteCheck,
        payloads: &Payloads<'_>,
        cx: &mut Context,
    ) -> Fate {
        if let Err(end) = check.verify(payloads) {
            return Fate::Ends(end);
        }
        let Some(mobike) = &mut self.mobike else {
            return Fate::Stays;
        };
        if check.path != core.path {
            if mobike.claim.is_some() {
                self.push_first(Task::CheckRoute);
            }
            return Fate::Stays;
        }
        if let Some(claim) = mobike.claim.take() {
            self.nat = claim.nat;
            self.move_children(core, cx);
        }
        Fate::Stays
    }

    /// What an INFORMATIONAL request of the peer says about addresses.
    pub(super) fn on_addresses(
        &mut self,
        core: &mut Core,
        datagram: &Datagram<'_>,
        payloads: &Payloads<'_>,
        response: &mut PayloadWriter,
        cx: &mut Context,
    ) {
        let Some(mobike) = &mut self.mobike else {
            return;
        };
        let decides = mobike.decides;
        if let Some(cookie) = payloads.notify(NotifyType::COOKIE2)
            && (8..=64).contains(&cookie.data.len())
        {
            add_notify(response, NotifyType::COOKIE2, cookie.data);
        }
        let updates = payloads.notify(NotifyType::UPDATE_SA_ADDRESSES).is_some();
        let lists = payloads
            .notifies
            .iter()
            .any(|notify| is_address(notify.kind));
        if (updates || lists) && is_translated(datagram.path, payloads) {
            cx.discard(Discard::RefusedRequest);
            add_notify(response, NotifyType::UNEXPECTED_NAT_DETECTED, &[]);
            return;
        }
        if lists {
            mobike.peer_addrs = additional_addresses(payloads);
        }
        let asked = payloads.notify(NotifyType::NAT_DETECTION_SOURCE_IP);
        if asked.is_some() {
            self.add_nat_detection(core, datagram.path, response, cx);
        }
        if updates && !decides {
            if is_own_or_many(datagram.path.remote.ip(), core, cx) {
                cx.discard(Discard::RefusedRequest);
                add_notify(response, NotifyType::UNACCEPTABLE_ADDRESSES, &[]);
                return;
            }
            let force = core.connection.as_ref().is_some_and(|conn| conn.encap);
            let found = nat::detect(&payloads.notifies, core.spis(), datagram.path, force);
            let nat = found.unwrap_or(self.nat);
            self.claim_path(core, datagram.path, nat, cx);
        }
        if lists && decides {
            self.leave_unlisted(core, datagram, cx);
        }
    }

    /// The peer's own address may have changed; if the one in use is not among them, we move.
    fn leave_unlisted(&mut self, core: &mut Core, datagram: &Datagram<'_>, cx: &mut Context) {
        let Some(mobike) = &self.mobike else { return };
        let current = core.path.remote.ip();
        let source = datagram.path.remote;
        let listed = current == source.ip() || mobike.peer_addrs.contains(&current);
        if !listed && !is_own_or_many(source.ip(), core, cx) {
            let path = Path {
                local: with_port(datagram.path.local, core.path.local.port()),
                remote: source,
            };
            self.change_path(core, path, cx);
        }
    }

    /// The peer may have moved to this path, which has yet to be shown (RFC 4555 §3.7).
    pub(in crate::ike) fn claim_path(
        &mut self,
        core: &mut Core,
        path: Path,
        nat: NatStatus,
        cx: &mut Context,
    ) {
        let Some(mobike) = &mut self.mobike else {
            return;
        };
        let from = mobike.claim.map_or(core.path, |claim| claim.from);
        if path == from {
            // It is where it was.
            mobike.claim = None;
            if core.path != path {
                self.take_path(core, path, cx);
            }
            if self.nat != nat {
                self.nat = nat;
                self.move_children(core, cx);
            }
            return;
        }
        mobike.claim = Some(Claim { from, nat });
        if core.path != path {
            self.take_path(core, path, cx);
        }
        self.push_first(Task::CheckRoute);
    }

    /// ESP shows that a NAT has given the peer another address.
    pub(in crate::ike) fn peer_moved(&mut self, core: &mut Core, path: Path, cx: &mut Context) {
        if !self.may_move() {
            return;
        }
        if self.mobike.is_some() {
            let nat = self.nat;
            self.claim_path(core, path, nat, cx);
        } else {
            self.move_to(core, path, cx);
        }
    }

    /// Nobody answers on the present path: goes on with another one, if there is one that may work.
    pub(super) fn try_other_path(&mut self, core: &mut Core, cx: &mut Context) -> bool {
        let Some(mobike) = &mut self.mobike else {
            return false;
        };
        if let Some(claim) = mobike.claim.take() {
            self.take_path(core, claim.from, cx);
            return true;
        }
        if !mobike.decides {
            return false;
        }
        let Some(remote) = mobike.peer_addrs.get(mobike.tried).copied() else {
            return false;
        };
        mobike.tried += 1;
        let before = core.path.remote.ip();
        if !mobike.peer_addrs.contains(&before) {
            mobike.peer_addrs.push(before);
        }
        let connection = core.connection.as_ref();
        let local = connection
            .and_then(|connection| local_towards(connection, core.path.local.ip(), remote, cx));
        let Some(local) = local else { return false };
        let path = Path {
            local: (local, core.path.local.port()).into(),
            remote: (remote, core.path.remote.port()).into(),
        };
        self.change_path(core, path, cx);
        true
    }

    /// The peer has been heard, so its addresses may be tried again.
    pub(super) fn forget_tries(&mut self) {
        if let Some(mobike) = &mut self.mobike {
            mobike.tried = 0;
        }
    }

    fn add_nat_detection(
        &self,
        core: &Core,
        path: Path,
        payloads: &mut PayloadWriter,
        cx: &mut Context,
    ) {
        let force = core.connection.as_ref().is_some_and(|conn| conn.encap);
        nat::add_notifies(payloads, core.spis(), path, force, cx.rng());
    }
}

impl RouteCheck {
    fn start(core: &Core, payloads: &mut PayloadWriter, cx: &mut Context) -> Self {
        let mut cookie = [0; COOKIE2_LEN];
        cx.rng().fill_bytes(&mut cookie);
        add_notify(payloads, NotifyType::COOKIE2, &cookie);
        Self {
            cookie,
            path: core.path,
        }
    }

    /// Another cookie than ours ends the IKE SA (RFC 4555 §3.7).
    fn verify(&self, payloads: &Payloads<'_>) -> Result<(), End> {
        let cookie = payloads.notify(NotifyType::COOKIE2);
        let same = cookie.is_some_and(|cookie| constant_time_eq(cookie.data, &self.cookie));
        if same {
            Ok(())
        } else {
            Err(End::Failed("peer did not return COOKIE2".to_owned()))
        }
    }
}

const COOKIE2_LEN: usize = 16;
