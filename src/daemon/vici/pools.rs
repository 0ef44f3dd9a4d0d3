//! `get-pools`: the pools and who has their addresses.

use crate::{
    ike::{Endpoint, Lease, Pool},
    wire::vici::Message,
};

/// Every pool, or the one named, with its leases if they are asked for.
#[must_use]
pub fn get_pools(endpoint: &Endpoint, name: Option<&str>, leases: bool) -> Message {
    let mut answer = Message::new();
    let mut room = LEASES_SHOWN;
    for pool in pools(endpoint) {
        if name.is_some_and(|name| pool.name != name) {
            continue;
        }
        let online = endpoint.leases(&pool.name).filter(|lease| is_online(lease));
        let online = online.count();
        let offline = endpoint.leases(&pool.name).count() - online;
        let mut m = Message::new();
        m.set("base", pool.first)
            .set("size", pool.size())
            .set("online", online)
            .set("offline", offline);
        if leases {
            let mut list = Message::new();
            for (index, lease) in endpoint.leases(&pool.name).take(room).enumerate() {
                list.section(index.to_string(), show(lease));
            }
            room = room.saturating_sub(online + offline);
            m.section("leases", list);
        }
        answer.section(&pool.name, m);
    }
    answer
}

/// The pools of all connections, each once.
fn pools(endpoint: &Endpoint) -> Vec<&Pool> {
    let connections = endpoint.pad().connections.iter();
    let all = connections.flat_map(|connection| connection.pools.iter());
    let mut pools: Vec<&Pool> = all.map(|pool| &**pool).collect();
    pools.sort_by(|one, other| one.name.cmp(&other.name));
    pools.dedup_by(|one, other| one.name == other.name);
    pools
}

fn is_online(lease: &Lease) -> bool {
    !lease.holders.is_empty()
}

fn show(lease: &Lease) -> Message {
    let status = if is_online(lease) {
        "online"
    } else {
        "offline"
    };
    let mut m = Message::new();
    m.set("address", lease.address)
        .set("identity", &lease.identity)
        .set("status", status);
    m
}

/// So many fit into one message of the protocol, whatever the identities are.
const LEASES_SHOWN: usize = 1500;
