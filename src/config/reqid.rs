//! Reqids that do not depend on the rest of the file.

use crate::{ike::Connection, ipsec::Reqid};
use std::{
    collections::{BTreeMap, HashSet},
    hash::{DefaultHasher, Hash, Hasher},
    sync::Arc,
};

/// Gives every child its reqid.
///
/// It follows from the names of connection and child, so that a reload moves no child to another
/// one, wherever it stands in the file. Only names whose hashes collide depend on each other.
pub(super) fn assign(connections: &mut [Connection]) {
    let children = connections.iter_mut().flat_map(|connection| {
        let name = &connection.name;
        connection
            .children
            .iter_mut()
            .map(move |child| ((name.clone(), child.name.clone()), child))
    });
    // Collisions are resolved in the order of the names, not in that of the file.
    let by_name: BTreeMap<_, _> = children.collect();
    let mut taken = HashSet::new();
    for (names, child) in by_name {
        let mut hasher = DefaultHasher::new();
        names.hash(&mut hasher);
        let mut number = u32::try_from(hasher.finish() % SPACE).unwrap_or_default();
        while number == 0 || !taken.insert(number) {
            number = number.wrapping_add(1);
        }
        Arc::make_mut(child).reqid = Reqid(number);
    }
}

/// Small enough to be read aloud.
const SPACE: u64 = 1 << 24;
