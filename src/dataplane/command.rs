//! What the control thread tells one worker.

use std::sync::Arc;

use crate::ipsec::{ChildId, Reqid, SaUpdate, Selectors, WorkerId};

/// A command to one worker. All are carried out in order, between two bursts.
#[derive(Debug)]
pub enum WorkerCommand {
    /// A change that this worker is the owner of, or that concerns all.
    Update(SaUpdate),
    /// Another worker carries the newest SA of this reqid.
    NoteElsewhere {
        /// The Child SA.
        child: ChildId,
        /// Its reqid.
        reqid: Reqid,
        /// Who carries it.
        owner: WorkerId,
        /// The traffic it is for.
        selectors: Arc<Selectors>,
        /// The peer lets every worker have an SA of its own (RFC 9611).
        per_worker: bool,
    },
    /// Another worker's SA is gone.
    ForgetElsewhere {
        /// The Child SA.
        child: ChildId,
        /// Its reqid.
        reqid: Reqid,
    },
    /// Everything before this is done once the worker has acknowledged it.
    Barrier(u64),
}
