//! What this process may do and what may be seen of it.

use std::io;

use rustix::{
    process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit},
    thread::{CapabilitySet, CapabilitySets, capabilities, set_capabilities, set_no_new_privs},
};

/// Keeps keys out of core dumps, of other processes of the same user, and of the swap.
///
/// Locking memory is best effort: it is done only where the limit for it can be lifted, since later
/// allocations would fail at the limit. The answer says whether it was done.
pub fn protect_memory() -> io::Result<bool> {
    let none = Rlimit {
        current: Some(0),
        maximum: Some(0),
    };
    setrlimit(Resource::Core, none)?;
    set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    let all = Rlimit {
        current: None,
        maximum: None,
    };
    if setrlimit(Resource::Memlock, all).is_err() {
        return Ok(false);
    }
    // SAFETY: mlockall takes flags only and touches no memory of ours.
    let locked =
        unsafe { libc::mlockall(libc::MCL_CURRENT | libc::MCL_FUTURE | libc::MCL_ONFAULT) };
    Ok(locked == 0)
}

/// Gives up every capability of the calling thread but those that routes, the guard and new sockets
/// need, and the way to new ones.
///
/// Threads that exist already keep theirs, threads started later inherit the reduced set.
pub fn drop_capabilities() -> io::Result<()> {
    let wanted = CapabilitySet::NET_ADMIN | CapabilitySet::NET_BIND_SERVICE;
    let held = capabilities(None)?;
    set_capabilities(
        None,
        CapabilitySets {
            effective: held.effective & wanted,
            permitted: held.permitted & wanted,
            inheritable: CapabilitySet::empty(),
        },
    )?;
    set_no_new_privs(true)?;
    Ok(())
}

/// Whether the calling thread holds CAP_NET_ADMIN in its user namespace.
pub fn may_administer_network() -> io::Result<bool> {
    Ok(capabilities(None)?
        .effective
        .contains(CapabilitySet::NET_ADMIN))
}
