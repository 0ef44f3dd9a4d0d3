//! The Child SAs of an IKE SA: how they come into use, and what a changed configuration does to them.

use std::sync::Arc;

use crate::ike::context::{Attempt, Context, Wish};
use crate::ike::pad::{ChildConfig, CloseAction, Connection, DpdAction};
use crate::ike::{CommandId, Event};
use crate::ipsec::ChildId;

use super::Core;
use super::child::{ChildSa, End, Phase};
use super::established::Established;
use super::siblings::Kin;

impl Established {
    /// A Child SA has come into use.
    pub(super) fn child_up(
        &mut self,
        core: &Core,
        mut child: ChildSa,
        waiters: Vec<CommandId>,
        cx: &mut Context,
    ) {
        let event = Event::ChildUp {
            ike: Box::new(self.status(core, false)),
            child: Box::new(child.status()),
        };
        cx.event(event);
        child.told = true;
        let id = child.id;
        for waiter in waiters {
            cx.finish_command(waiter, Ok(self.outcome(core, Some(id))));
        }
        if self.children.is_empty() {
            self.children.reserve_exact(1); // most IKE SAs have no more
        }
        self.children.push(child);
        self.drop_unconfigured(core, id);
    }

    /// A reload may have taken a child out of the configuration while it was being made.
    pub(super) fn drop_unconfigured(&mut self, core: &Core, id: ChildId) {
        let Some(child) = self.child_mut(id) else {
            return;
        };
        let connection = core.connection.as_ref();
        if connection.is_some_and(|connection| connection.same_child(&child.config).is_none()) {
            self.queue_delete_child(id, None);
        }
    }

    /// What a new IKE SA in the place of this one has to bring.
    pub(in crate::ike) fn wishes(&self) -> Vec<Wish> {
        let mut wishes = Vec::new();
        for child in self.children.iter().filter(|child| child.is_usable()) {
            Attempt::wish_for(&mut wishes, &child.config);
        }
        wishes
    }

    /// Follows a changed configuration: children that are gone from it are deleted.
    pub(super) fn reconfigure(&mut self, connection: &Connection, cx: &mut Context) {
        let mut gone = Vec::new();
        for child in &mut self.children {
            match connection.same_child(&child.config) {
                Some(config) if config.per_cpu_sas || !child.kin.additional => {
                    child.config = Arc::clone(config);
                    if !config.per_cpu_sas {
                        child.kin = Kin::FIRST;
                    }
                }
                Some(_) | None => gone.push(child.id),
            }
        }
        cx.cancel(self.work.reconfigure(connection));
        for id in gone {
            self.queue_delete_child(id, None);
        }
    }
}

/// The child to start again after its end, as the configuration says.
pub(super) fn restart_wish(child: &ChildSa, end: &End) -> Option<Wish> {
    let config: &Arc<ChildConfig> = &child.config;
    let again = match end {
        End::ByPeer => config.close_action == CloseAction::Start,
        End::Dead | End::Crashed => config.dpd_action == DpdAction::Restart,
        End::Expired | End::Failed(_) => config.start_action.starts(),
        End::Redundant => true, // the other IKE SA may have other ones
        End::Terminated | End::Superseded(_) | End::Forgotten | End::Replaced | End::Redirected => {
            false
        }
    };
    let wanted = again && matches!(child.phase, Phase::Live | Phase::Rekeying);
    wanted.then(|| Wish::new(config))
}
