//! Finds the connections of an address or a name and the secrets of an identity among thousands.
//!
//! What the [`Pad`] says decides; here is only which entries it has to look at.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use super::Identity;
use super::pad::{AddressPattern, Connection, Pad, SharedSecret};

/// Indexes of one [`Pad`].
#[derive(Debug)]
pub(super) struct Directory {
    pad: Arc<Pad>,
    /// Connections, by each single address that they name.
    by_host: HashMap<IpAddr, Vec<usize>>,
    /// Connections that name other addresses, too.
    by_pattern: Vec<usize>,
    by_name: HashMap<String, Vec<usize>>,
    /// Connections, by the names of their children.
    by_child: HashMap<String, Vec<usize>>,
    /// Secrets, by each identity that they name.
    secrets: HashMap<Identity, Vec<usize>>,
    /// Secrets that somebody else may have as well.
    shared: Vec<usize>,
}

impl Directory {
    pub(super) fn new(pad: &Arc<Pad>) -> Self {
        let mut directory = Self {
            pad: Arc::clone(pad),
            by_host: HashMap::new(),
            by_pattern: Vec::new(),
            by_name: HashMap::new(),
            by_child: HashMap::new(),
            secrets: HashMap::new(),
            shared: Vec::new(),
        };
        for (number, connection) in pad.connections.iter().enumerate() {
            let hosts = connection.remote_addrs.iter().map(AddressPattern::host);
            let hosts: Vec<_> = hosts.collect();
            if hosts.contains(&None) {
                directory.by_pattern.push(number);
            }
            add(&mut directory.by_host, hosts.into_iter().flatten(), number);
            add(
                &mut directory.by_name,
                [connection.name.clone()].into_iter(),
                number,
            );
            let children = connection.children.iter().map(|child| child.name.clone());
            add(&mut directory.by_child, children, number);
        }
        for (number, secret) in pad.secrets.iter().enumerate() {
            let names = secret.ids.iter().map(|id| id.exact().and_then(key));
            match names.collect::<Option<Vec<_>>>() {
                Some(names) if !names.is_empty() => {
                    add(&mut directory.secrets, names.into_iter(), number);
                }
                _ => directory.shared.push(number),
            }
        }
        directory
    }

    /// Whether this is the address of a single configured peer.
    pub(super) fn is_host(&self, addr: IpAddr) -> bool {
        self.by_host.contains_key(&addr)
    }

    /// The connection of this name.
    pub(super) fn connection(&self, name: &str) -> Option<&Arc<Connection>> {
        at(&self.pad.connections, in_order([self.by_name.get(name)])).next()
    }

    /// The connections that have a child of this name, in the order of the configuration.
    pub(super) fn with_child(&self, name: &str) -> impl Iterator<Item = &Arc<Connection>> {
        at(&self.pad.connections, in_order([self.by_child.get(name)]))
    }

    /// [`Pad::by_addresses`]
    pub(super) fn by_addresses(&self, local: IpAddr, remote: IpAddr) -> Vec<&Arc<Connection>> {
        let hosts = self.by_host.get(&remote);
        let numbers = in_order([hosts, Some(&self.by_pattern)]);
        Pad::best_by_addresses(at(&self.pad.connections, numbers), local, remote)
    }

    /// [`Pad::secret`]
    pub(super) fn secret(
        &self,
        local: &Identity,
        remote: Option<&Identity>,
    ) -> Option<&SharedSecret> {
        let of = |identity: &Identity| self.secrets.get(&key(identity)?);
        let numbers = in_order([of(local), remote.and_then(of), Some(&self.shared)]);
        Pad::best_secret(at(&self.pad.secrets, numbers), local, remote)
    }
}

/// What all identities that are the same have in common; absent where that is not known.
fn key(identity: &Identity) -> Option<Identity> {
    let lowercase = |name: &Arc<str>| match name.bytes().any(|byte| byte.is_ascii_uppercase()) {
        true => name.to_ascii_lowercase().into(),
        false => Arc::clone(name),
    };
    match identity {
        Identity::Fqdn(name) => Some(Identity::Fqdn(lowercase(name))),
        Identity::Email(name) => Some(Identity::Email(lowercase(name))),
        Identity::Dn(_) => None,
        _ => Some(identity.clone()),
    }
}

fn add<K: std::hash::Hash + Eq>(
    index: &mut HashMap<K, Vec<usize>>,
    keys: impl Iterator<Item = K>,
    number: usize,
) {
    for key in keys {
        let numbers = index.entry(key).or_default();
        if numbers.last() != Some(&number) {
            numbers.push(number);
        }
    }
}

/// In the order of the configuration, each once.
fn in_order<const N: usize>(lists: [Option<&Vec<usize>>; N]) -> Vec<usize> {
    let mut numbers: Vec<_> = lists.into_iter().flatten().flatten().copied().collect();
    numbers.sort_unstable();
    numbers.dedup();
    numbers
}

fn at<T>(all: &[T], numbers: Vec<usize>) -> impl Iterator<Item = &T> {
    numbers.into_iter().filter_map(|number| all.get(number))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::Secret;

    #[test]
    fn the_directory_finds_the_secret_that_the_whole_list_gives() {
        let owners: [&[&str]; 8] = [
            &["a.example"],
            &["B.example", "gw.example"],
            &["a.example", "b.example"],
            &["*.example"],
            &[],
            &["192.0.2.1"],
            &["C=CH, O=Example, CN=a"],
            &["gw.example", "*@example.com"],
        ];
        let names = [
            "a.example",
            "A.EXAMPLE",
            "b.example",
            "gw.example",
            "c.example",
            "example",
            "192.0.2.1",
            "192.0.2.2",
            "C=CH, O=Example, CN=a",
            "x@example.com",
        ];
        let names = names.map(|name| name.parse::<Identity>().expect("an identity"));
        // All without one, and all.
        for left_out in 0..=owners.len() {
            let kept = owners.iter().enumerate().filter(|(n, _)| *n != left_out);
            let secrets = kept.map(|(number, ids)| SharedSecret {
                name: number.to_string(),
                ids: ids
                    .iter()
                    .map(|id| id.parse().expect("a pattern"))
                    .collect(),
                secret: Secret::copy_from(b"secret").into(),
            });
            let pad = Arc::new(Pad {
                secrets: secrets.collect(),
                ..Pad::default()
            });
            let directory = Directory::new(&pad);
            for local in &names {
                for remote in names.iter().map(Some).chain([None]) {
                    let name = |secret: Option<&SharedSecret>| Some(secret?.name.clone());
                    assert_eq!(
                        name(directory.secret(local, remote)),
                        name(pad.secret(local, remote)),
                        "{local} and {remote:?} without {left_out}"
                    );
                }
            }
        }
    }
}
