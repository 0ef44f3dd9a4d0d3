//! Packets that need an SA.

use std::sync::Arc;

use crate::ipsec::{Reqid, WorkerId};
use crate::wire::ip::Flow;

use super::commands::Acquire;
use super::context::{Attempt, Wish};
use super::endpoint::Endpoint;
use super::v2::Task;

impl Endpoint {
    /// A packet needs an SA that is not there.
    pub(super) fn on_acquire(&mut self, reqid: Reqid, flow: Flow) {
        let pad = Arc::clone(&self.cx.pad);
        let Some((connection, child)) = pad.by_reqid(reqid) else {
            return;
        };
        let held = self.cx.commands.holds(reqid, Acquire::First, self.cx.now);
        if self.closing || held || !child.traps() {
            return;
        }
        let on_its_way = self
            .table
            .find_by_name(&connection.name, |sa| match sa.established() {
                Some(sa) => {
                    let mut children = sa.children().iter();
                    sa.creates(reqid)
                        || children.any(|known| known.config.reqid == reqid && known.admits(&flow))
                }
                None => sa.connects_for(reqid),
            });
        let planned = self.planned.iter().any(|attempt| attempt.wants(reqid));
        if on_its_way.is_some() || planned {
            return;
        }
        let wish = Wish {
            flow: Some(flow),
            ..Wish::new(child)
        };
        self.pursue(Attempt::new(connection, vec![wish]));
    }

    /// A worker hands packets to another one, and would not have to with an SA of its own (RFC 9611).
    pub(super) fn on_acquire_beside(&mut self, reqid: Reqid, flow: Flow, worker: WorkerId) {
        let pad = Arc::clone(&self.cx.pad);
        let Some((connection, child)) = pad.by_reqid(reqid) else {
            return;
        };
        let commands = &self.cx.commands;
        let held = commands.holds(reqid, Acquire::Beside, self.cx.now);
        if self.closing || held || !child.per_cpu_sas || worker.0 >= self.cx.settings.workers.get()
        {
            return;
        }
        let lacking = self.table.find_by_name(&connection.name, |sa| {
            sa.established().is_some_and(|sa| {
                sa.is_usable()
                    && !sa.creates_for(reqid, worker)
                    && sa.sibling_for(reqid, &flow, worker).is_some()
            })
        });
        let Some(id) = lacking else {
            return;
        };
        let wish = Wish {
            flow: Some(flow),
            worker: Some(worker),
            ..Wish::new(child)
        };
        self.step(id, |sa, cx| {
            sa.with_established(cx, |established, _, _| {
                established.push(Task::CreateChild(wish));
            });
        });
    }
}
