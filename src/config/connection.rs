//! `[connections.<name>]`: a peer and how to authenticate with it.

use super::{
    DaemonConfig,
    authentication::{Credentials, read_local, read_remote},
    child, keys,
    read::{Entry, Section},
    secret, value,
};
use crate::{
    ike::{
        AddressPattern, ChildConfig, Childless, Connection, DpdAction, Fragmentation, Pool,
        StartAction, Unique,
    },
    wire::{
        ikev2::Gateway,
        keyword,
        proposal::{ProtocolId, SaProposal},
    },
};
use std::{net::IpAddr, sync::Arc, time::Duration};

/// Reads a connection. Wrong keys are reported and leave their defaults behind; reqids come later.
pub(super) fn read(
    name: &str,
    section: &Section<'_>,
    daemon: &DaemonConfig,
    credentials: &Credentials<'_>,
    pools: &[Arc<Pool>],
) -> Connection {
    section.check_keys(&keys::CONNECTION);
    check_name(name, section);
    check_version(section);
    let local = read_local(section, credentials);
    let weak = section.read("allow_weak", value::boolean).unwrap_or(false);
    let remote = read_remote(section, credentials, weak);
    let times = read_times(section);
    let any = || vec![AddressPattern::Any];
    let connection = Connection {
        name: name.to_owned(),
        local_addrs: section
            .read_list("local_addrs", value::address)
            .unwrap_or_else(any),
        remote_addrs: section
            .read_list("remote_addrs", value::address)
            .unwrap_or_else(any),
        local_port: read_local_port(section, daemon),
        remote_port: section.read("remote_port", port).unwrap_or(500),
        proposals: proposals(section, "proposals", ProtocolId::Ike, weak)
            .unwrap_or_else(keyword::default_ike_proposals),
        local,
        remote,
        encap: section.read("encap", value::boolean).unwrap_or(true),
        fragmentation: section
            .read("fragmentation", |text| value::choice(text, &FRAGMENTATION))
            .unwrap_or_default(),
        mobike: section.read("mobike", value::boolean).unwrap_or(true),
        follow_redirects: section
            .read("follow_redirects", value::boolean)
            .unwrap_or(false),
        redirect: section.read("redirect", gateway),
        resumption: section.read("resumption", value::boolean).unwrap_or(false),
        dpd_delay: section
            .read("dpd_delay", value::duration)
            .unwrap_or(DPD_DELAY),
        rekey_time: times.rekey,
        over_time: times.over,
        rand_time: times.rand,
        reauth_time: times.reauth,
        keyingtries: section.read("keyingtries", keyingtries).unwrap_or(1),
        vips: section.read_list("vips", vip).unwrap_or_default(),
        pools: read_pools(section, pools),
        unique: section
            .read("unique", |text| value::choice(text, &UNIQUE))
            .unwrap_or_default(),
        ppk_id: section.read("ppk_id", secret::ppk_id),
        ppk_required: section
            .read("ppk_required", value::boolean)
            .unwrap_or(false),
        childless: section
            .read("childless", |text| value::choice(text, &CHILDLESS))
            .unwrap_or_default(),
        children: read_children(section, weak),
    };
    check_reachable(section, &connection);
    connection
}

/// Names go into VICI messages, logs and terminals.
pub(super) fn check_name(name: &str, section: &Section<'_>) {
    if name.is_empty() || name.len() > NAME_MAX || name.chars().any(char::is_control) {
        section.fail(format!(
            "bad name {name:?}; allowed: 1 to {NAME_MAX} bytes without control characters"
        ));
    }
}

/// The proposals of list `key`, where it is present; `default` stands for ours. Weak algorithms are
/// refused, or a warning where they are allowed.
pub(super) fn proposals(
    section: &Section<'_>,
    key: &str,
    protocol: ProtocolId,
    allow_weak: bool,
) -> Option<Vec<SaProposal>> {
    let parse = |text: &str| match (text, protocol) {
        ("default", ProtocolId::Ike) => Ok(keyword::default_ike_proposals()),
        ("default", _) => Ok(keyword::default_esp_proposals()),
        _ => {
            let proposal = keyword::parse_proposal(protocol, text);
            let proposal = proposal.map_err(|error| error.to_string())?;
            if let Some(weak) = weak_algorithms(&proposal) {
                allow(section, key, text, &weak, allow_weak)?;
            }
            Ok(vec![proposal])
        }
    };
    Some(
        section
            .read_list(key, parse)?
            .into_iter()
            .flatten()
            .collect(),
    )
}

/// What names `weak` algorithms is refused, or a warning where they are allowed.
pub(super) fn allow(
    section: &Section<'_>,
    key: &str,
    text: &str,
    weak: &str,
    allow_weak: bool,
) -> Result<(), String> {
    let message = format!("{text:?}: {weak} can be broken");
    if allow_weak {
        section.warn_at(key, message);
        return Ok(());
    }
    Err(format!(
        "{message}; for a peer that has nothing better, set allow_weak = true in the connection"
    ))
}

/// "3des and modp1024", if there are any.
fn weak_algorithms(proposal: &SaProposal) -> Option<String> {
    let weak = proposal.transforms.iter().filter(|t| t.is_weak());
    let names: Vec<String> = weak.map(keyword::transform_text).collect();
    (!names.is_empty()).then(|| names.join(" and "))
}

fn check_version(section: &Section<'_>) {
    let version = section.read("version", |text| value::integer(text, 0..=2_u8));
    if matches!(version, Some(0 | 1)) {
        section.fail_at("version", "IKEv1 is not supported yet; allowed: 2");
    }
}

fn read_local_port(section: &Section<'_>, daemon: &DaemonConfig) -> u16 {
    let ports = [daemon.port, daemon.port_nat_t];
    let own = |text: &str| match value::integer(text, 1..=u16::MAX) {
        Ok(port) if ports.contains(&port) => Ok(port),
        _ => Err(format!(
            "{text:?} is not a port of this daemon; allowed: {} and {} (daemon.port and daemon.port_nat_t)",
            daemon.port, daemon.port_nat_t
        )),
    };
    section.read("local_port", own).unwrap_or(daemon.port)
}

fn port(text: &str) -> Result<u16, String> {
    value::integer(text, 1..=u16::MAX)
}

fn gateway(text: &str) -> Result<Gateway, String> {
    text.parse()
}

/// An address, the unspecified one to leave the choice to the peer.
fn vip(text: &str) -> Result<IpAddr, String> {
    let wrong =
        |_| format!("{text:?} is not an address; allowed: 0.0.0.0 and :: for any, or addresses");
    text.parse().map_err(wrong)
}

fn read_pools(section: &Section<'_>, pools: &[Arc<Pool>]) -> Vec<Arc<Pool>> {
    let named = |text: &str| {
        let pool = pools.iter().find(|pool| pool.name == text);
        pool.map(Arc::clone).ok_or_else(|| {
            let names: Vec<_> = pools.iter().map(|pool| pool.name.as_str()).collect();
            format!("{text:?} is no pool; {}", keys::allowed(text, &names))
        })
    };
    section.read_list("pools", named).unwrap_or_default()
}

fn keyingtries(text: &str) -> Result<u32, String> {
    if text == "%forever" {
        Ok(0)
    } else {
        value::integer(text, 0..=u32::MAX)
    }
}

struct Times {
    rekey: Duration,
    reauth: Duration,
    over: Duration,
    rand: Duration,
}

/// swanctl's defaults: rekeying only where nothing else is scheduled, a tenth on top, and the
/// same range at random.
fn read_times(section: &Section<'_>) -> Times {
    let time = |key: &str| section.read(key, value::duration);
    let reauth = time("reauth_time").unwrap_or(Duration::ZERO);
    let rekey_default = if reauth.is_zero() {
        REKEY_TIME
    } else {
        Duration::ZERO
    };
    let rekey = time("rekey_time").unwrap_or(rekey_default);
    let over = time("over_time").unwrap_or(rekey.max(reauth) / 10);
    let given = time("rand_time");
    for (name, value) in [("rekey_time", rekey), ("reauth_time", reauth)] {
        if !value.is_zero() && given.is_some_and(|rand| rand > value) {
            section.fail_at(
                "rand_time",
                format!("is longer than {name}, {} s", value.as_secs()),
            );
        }
    }
    let shortest = [rekey, reauth]
        .into_iter()
        .filter(|time| !time.is_zero())
        .min();
    let rand = given.unwrap_or_else(|| over.min(shortest.unwrap_or(over) / 2));
    Times {
        rekey,
        reauth,
        over,
        rand,
    }
}

fn read_children(section: &Section<'_>, allow_weak: bool) -> Vec<Arc<ChildConfig>> {
    let children = section
        .section("children")
        .map(|children| children.entries())
        .unwrap_or_default();
    let child = |(name, entry): (String, Entry<'_>)| {
        let child = child::read(&name, &entry.section()?, allow_weak);
        Some(Arc::new(child))
    };
    children.into_iter().filter_map(child).collect()
}

/// A peer without a specific address can only come to us.
fn check_reachable(section: &Section<'_>, connection: &Connection) {
    if connection.children.is_empty() {
        section.warn("has no children, so it protects no traffic");
    }
    if connection
        .remote_addrs
        .iter()
        .any(|address| address.host().is_some())
    {
        return;
    }
    let child_with =
        |wish: &dyn Fn(&ChildConfig) -> bool| connection.children.iter().find(|child| wish(child));
    let needs = |child: &ChildConfig, key: &str| {
        format!(
            "names no single address, which {key} of child {} needs",
            child.name
        )
    };
    if let Some(child) = child_with(&|child| child.start_action.starts()) {
        section.fail_at("remote_addrs", needs(child, "start_action"));
    } else if let Some(child) = child_with(&|child| child.start_action == StartAction::Trap) {
        section.warn_at("remote_addrs", needs(child, "start_action"));
    } else if let Some(child) = child_with(&|child| child.dpd_action == DpdAction::Restart) {
        section.warn_at("remote_addrs", needs(child, "dpd_action"));
    }
}

const UNIQUE: [(&str, Unique); 4] = [
    ("no", Unique::No),
    ("never", Unique::Never),
    ("keep", Unique::Keep),
    ("replace", Unique::Replace),
];
/// `force` differs from `yes` in IKEv1 only.
const FRAGMENTATION: [(&str, Fragmentation); 6] = [
    ("yes", Fragmentation::Yes),
    ("accept", Fragmentation::Accept),
    ("force", Fragmentation::Yes),
    ("no", Fragmentation::No),
    ("true", Fragmentation::Yes),
    ("false", Fragmentation::No),
];
const CHILDLESS: [(&str, Childless); 4] = [
    ("allow", Childless::Allow),
    ("prefer", Childless::Prefer),
    ("force", Childless::Force),
    ("never", Childless::Never),
];
const DPD_DELAY: Duration = Duration::from_secs(30);
const REKEY_TIME: Duration = Duration::from_secs(4 * 3600);
/// Leaves room in VICI's one-byte lengths for a number behind the name.
const NAME_MAX: usize = 128;
