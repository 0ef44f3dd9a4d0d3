//! What no single key can tell: whether connections and secrets fit together.

use super::{read::Section, secret};
use crate::{
    ike::{ChildConfig, Connection, LocalMethod, Pad, RemoteMethod, SelectorConfig},
    wire::selector::TrafficSelector,
};

/// Checks the connections against the secrets and against each other.
pub(super) fn check(connections: &Section<'_>, pad: &Pad) {
    for connection in &pad.connections {
        let Some(section) = connections.section(&connection.name) else {
            continue;
        };
        let (local, remote) = (connection.local.id.as_ref(), &connection.remote.id);
        let needed = connection.local.method == LocalMethod::Psk
            || connection.remote.method == RemoteMethod::Psk;
        if needed && !secret::exists_for(pad, local, remote) {
            let local = local.map_or("our address".to_owned(), ToString::to_string);
            section.fail(format!(
                "no secret fits; needed: a table secrets.ike… whose id is {local} or {remote}, or that has no id"
            ));
        }
    }
    check_ppks(connections, pad);
    check_dynamic(connections, pad);
    warn_of_overlaps(connections, pad);
}

/// A post-quantum preshared key that is named has to be there.
fn check_ppks(connections: &Section<'_>, pad: &Pad) {
    for connection in &pad.connections {
        let Some(section) = connections.section(&connection.name) else {
            continue;
        };
        match &connection.ppk_id {
            Some(id) if pad.ppk(id).is_none() => {
                section.fail_at("ppk_id", "no table secrets.ppk… has this id");
            }
            None if connection.ppk_required && pad.ppks.is_empty() => {
                section.fail_at("ppk_required", "there is no table secrets.ppk…");
            }
            Some(_) | None => {}
        }
    }
}

/// A `dynamic` whose address is not known beforehand makes no policy: its traffic would leave in clear.
fn check_dynamic(connections: &Section<'_>, pad: &Pad) {
    for connection in &pad.connections {
        let children = connections
            .section(&connection.name)
            .and_then(|connection| connection.section("children"));
        let [local, remote] = connection.dynamic(&[]);
        for child in &connection.children {
            let sides = [
                ("local_ts", "local_addrs", &child.local_ts, &local),
                ("remote_ts", "remote_addrs", &child.remote_ts, &remote),
            ];
            let families = sides.map(|(_, _, list, gateway)| {
                let known = list.iter().flat_map(|ts| ts.resolve(gateway));
                known.map(|ts| ts.is_ipv6()).collect::<Vec<_>>()
            });
            let [ours, theirs] = &families;
            let meet = ours.iter().any(|family| theirs.contains(family));
            for (key, addresses, list, gateway) in sides {
                let is_dynamic = |ts: &SelectorConfig| matches!(ts, SelectorConfig::Dynamic { .. });
                let is_lost = gateway.is_empty() || !meet;
                let section = children.as_ref().and_then(|all| all.section(&child.name));
                if let Some(section) = section.filter(|_| is_lost && list.iter().any(is_dynamic)) {
                    section.fail_at(
                        key,
                        format!(
                            "dynamic stands for the gateway's address, but {addresses} names no single one of \
                             the right family; give the selector as a prefix"
                        ),
                    );
                }
            }
        }
    }
}

/// Two children that protect the same packet: one of them never sees it.
fn warn_of_overlaps(connections: &Section<'_>, pad: &Pad) {
    let mut protected: Vec<Protected<'_>> =
        pad.connections.iter().flat_map(Protected::of).collect();
    protected.sort_by_key(|item| (item.remote.is_ipv6(), item.remote.start()));
    let mut warned = 0;
    for (index, first) in protected.iter().enumerate() {
        let later = protected.iter().skip(index + 1);
        let near = later.take_while(|second| second.remote.start() <= first.remote.end());
        for second in near.filter(|second| first.overlaps(second)) {
            first.warn(second, connections);
            warned += 1;
            if warned == OVERLAPS_SHOWN {
                return;
            }
        }
    }
}

/// One pair of selectors, and whose it is.
struct Protected<'a> {
    connection: &'a Connection,
    child: &'a ChildConfig,
    local: TrafficSelector,
    remote: TrafficSelector,
}

impl<'a> Protected<'a> {
    fn of(connection: &'a std::sync::Arc<Connection>) -> impl Iterator<Item = Self> {
        let children = connection
            .children
            .iter()
            .filter(|child| child.mode.protects());
        children.flat_map(move |child| {
            let pairs = fixed(&child.remote_ts)
                .flat_map(|remote| fixed(&child.local_ts).map(move |local| (local, remote)));
            pairs.map(move |(local, remote)| Self {
                connection,
                child,
                local,
                remote,
            })
        })
    }

    fn overlaps(&self, other: &Self) -> bool {
        !std::ptr::eq(self.connection, other.connection)
            && self.remote.intersect(&other.remote).is_some()
            && self.local.intersect(&other.local).is_some()
    }

    fn warn(&self, other: &Self, connections: &Section<'_>) {
        let section = connections
            .section(&other.connection.name)
            .and_then(|connection| connection.section("children"))
            .and_then(|children| children.section(&other.child.name));
        if let Some(section) = section {
            section.warn_at(
                "remote_ts",
                format!(
                    "{} === {} overlaps {} === {} of child {} of connection {}; the narrower one gets the packets, or the one with the lower priority",
                    other.local, other.remote, self.local, self.remote, self.child.name, self.connection.name
                ),
            );
        }
    }
}

fn fixed(selectors: &[SelectorConfig]) -> impl Iterator<Item = TrafficSelector> {
    selectors.iter().filter_map(|selector| match selector {
        SelectorConfig::Fixed(selector) => Some(*selector),
        SelectorConfig::Dynamic { .. } => None,
    })
}

/// A file full of overlaps has one reason, not thousands.
const OVERLAPS_SHOWN: usize = 20;
