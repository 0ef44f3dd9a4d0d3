//! How a worker's databases change between two bursts.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use super::command::WorkerCommand;
use super::pipeline::Pipeline;
use crate::ipsec::{OutboundSa, SaEvent, SaUpdate};

/// Changes that would let another worker, or this one, overtake packets that were handed over. They
/// wait until those are sent, and no packet is taken from the TUN meanwhile.
#[derive(Debug, Default)]
pub(super) struct Settling {
    deferred: VecDeque<WorkerCommand>,
    /// When the wait began, and when it was last looked at.
    wait: Option<(Instant, Instant)>,
    /// After a wait, changes are made at once until then: whoever causes many of them must not keep
    /// everybody's packets waiting.
    rests_until: Option<Instant>,
}

impl Pipeline {
    /// Does what the control thread wants. SAs that leave go back to it.
    pub fn apply(&mut self, command: WorkerCommand) {
        match &command {
            WorkerCommand::Barrier(_) => self.apply_deferred(),
            _ if self.must_wait(&command) => {
                self.settling.deferred.push_back(command);
                return;
            }
            _ => {}
        }
        self.apply_now(command);
    }

    /// Whether a change has to wait for packets that were handed over, or for one that does.
    fn must_wait(&self, command: &WorkerCommand) -> bool {
        let (outbound, moves_flows) = match command {
            WorkerCommand::Update(SaUpdate::SwitchOutbound(sa)) => (true, sa.is_per_worker()),
            WorkerCommand::NoteElsewhere { per_worker, .. } => (true, *per_worker),
            WorkerCommand::ForgetElsewhere { .. } => (true, true),
            WorkerCommand::Update(
                SaUpdate::RemoveOutbound { .. } | SaUpdate::MoveOutbound { .. },
            ) => (true, false),
            WorkerCommand::Update(
                SaUpdate::AddInbound(_) | SaUpdate::RemoveInbound { .. } | SaUpdate::SetPolicies(_),
            )
            | WorkerCommand::Barrier(_) => (false, false),
        };
        let may_begin = moves_flows && self.settling.rests_until.is_none();
        outbound && (self.is_settling() || may_begin && self.hand_off.is_owed())
    }

    /// Whether changes wait, and the TUN has to.
    pub fn is_settling(&self) -> bool {
        !self.settling.deferred.is_empty()
    }

    /// Makes the changes that wait, if what was handed over is sent or takes too long. To be called
    /// every turn.
    pub fn settle(&mut self, now: Instant) {
        self.settling.rests_until.take_if(|until| *until <= now);
        if !self.is_settling() {
            return;
        }
        let since = self.settling.wait.map_or(now, |(since, _)| since);
        self.settling.wait = Some((since, now));
        if now.saturating_duration_since(since) >= PATIENCE || !self.hand_off.is_owed() {
            self.apply_deferred();
        }
    }

    /// Ends the wait, however it comes to its end, and begins its rest.
    fn apply_deferred(&mut self) {
        if let Some((since, seen)) = self.settling.wait.take() {
            let waited = seen.saturating_duration_since(since);
            self.settling.rests_until = (!waited.is_zero()).then(|| seen + waited * REST);
        }
        while let Some(command) = self.settling.deferred.pop_front() {
            self.apply_now(command);
        }
    }

    fn apply_now(&mut self, command: WorkerCommand) {
        match command {
            WorkerCommand::Update(update) => self.update(update),
            WorkerCommand::NoteElsewhere {
                child,
                reqid,
                owner,
                selectors,
                per_worker,
            } => {
                self.acquires.answered(reqid);
                let replaced = self
                    .sad
                    .note_elsewhere(child, reqid, owner, selectors, per_worker);
                self.retire_outbound(replaced);
                self.waiting.release(reqid);
            }
            WorkerCommand::ForgetElsewhere { child, reqid } => {
                let removed = self.sad.remove_outbound(child, reqid);
                self.retire_outbound(removed);
            }
            WorkerCommand::Barrier(_) => {}
        }
    }

    fn update(&mut self, update: SaUpdate) {
        match update {
            SaUpdate::AddInbound(sa) => {
                if let Some(replaced) = self.sad.add_inbound(sa) {
                    self.events.send(SaEvent::RetiredInbound(replaced));
                }
            }
            SaUpdate::SwitchOutbound(mut sa) => {
                let reqid = sa.reqid();
                self.acquires.answered(reqid);
                let path = *sa.path();
                let (local, remote) = (path.local.ip(), path.remote);
                let mtu = self.path_mtus.adopt(local, remote, sa.path_mtu());
                sa.set_path_mtu(mtu);
                let replaced = self.sad.switch_outbound(sa);
                self.retire_outbound(replaced);
                self.waiting.release(reqid);
            }
            SaUpdate::RemoveInbound { spi, .. } => {
                if let Some(removed) = self.sad.remove_inbound(spi) {
                    self.events.send(SaEvent::RetiredInbound(removed));
                }
            }
            SaUpdate::RemoveOutbound { child, reqid, .. } => {
                let removed = self.sad.remove_outbound(child, reqid);
                self.retire_outbound(removed);
            }
            SaUpdate::MoveOutbound {
                child,
                reqid,
                path,
                path_mtu,
                ..
            } => {
                let (local, remote) = (path.local.ip(), path.remote);
                let mtu = self.path_mtus.adopt(local, remote, path_mtu);
                self.sad.move_outbound(child, reqid, path, mtu);
            }
            SaUpdate::SetPolicies(spd) => {
                self.acquires.expect(spd.policies().len());
                self.spd = spd;
                self.run = None;
            }
        }
    }

    fn retire_outbound(&mut self, sa: Option<Box<OutboundSa>>) {
        if let Some(sa) = sa {
            self.events.send(SaEvent::RetiredOutbound(sa));
        }
    }

    /// Whether the system should be asked for the MTU of a path on which a packet was too big.
    pub fn should_ask_path_mtu(&self, local: IpAddr, remote: SocketAddr, now: Instant) -> bool {
        self.path_mtus.should_ask(local, remote, now)
    }

    /// A path whose MTU was learnt long ago.
    pub(super) fn stale_path(&self, now: Instant) -> Option<(IpAddr, SocketAddr)> {
        self.path_mtus.stale(now)
    }

    /// Takes note of what the system says about a path, if it says anything.
    pub fn learn_path_mtu(
        &mut self,
        local: IpAddr,
        remote: SocketAddr,
        answer: Option<u16>,
        now: Instant,
    ) {
        self.path_mtus.learn(local, remote, answer, now);
    }
}

/// A worker that holds packets of others for so long is stuck; then order matters less.
const PATIENCE: Duration = Duration::from_millis(20);
/// A wait is followed by a rest so many times as long: the TUN is read nine tenths of the time at least.
const REST: u32 = 9;
