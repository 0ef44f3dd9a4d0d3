//! `[connections.<name>.children.<name>]`: selectors, and the Child SA that protects them.

use super::{
    connection::{check_name, proposals},
    keys,
    read::Section,
    value,
};
use crate::{
    ike::{ChildConfig, ChildMode, CloseAction, DpdAction, SelectorConfig, StartAction},
    ipsec::{CopyDscp, DfRule, HeaderRules, Reqid},
    wire::{
        keyword,
        proposal::{ProtocolId, SaProposal, Transform},
        selector::TrafficSelector,
    },
};
use std::time::Duration;

/// Reads a child of a connection that allows weak algorithms or not. Wrong keys are reported and leave their defaults behind;
/// [`super::reqid`] numbers the child.
pub(super) fn read(name: &str, section: &Section<'_>, allow_weak: bool) -> ChildConfig {
    section.check_keys(&keys::CHILD);
    check_name(name, section);
    let time = Lifetime::read(section, "time", 3600, |text| {
        value::duration(text).map(|time| time.as_secs())
    });
    let bytes = Lifetime::read(section, "bytes", 0, value::volume);
    let packets = Lifetime::read(section, "packets", 0, |text| {
        value::integer(text, 0..=u64::MAX)
    });
    let dynamic = || {
        vec![SelectorConfig::Dynamic {
            protocol: 0,
            ports: (0, u16::MAX),
        }]
    };
    let mode = section.read("mode", mode).unwrap_or_default();
    let child = ChildConfig {
        name: name.to_owned(),
        reqid: Reqid(0),
        local_ts: section
            .read_list("local_ts", selector)
            .unwrap_or_else(dynamic),
        remote_ts: section
            .read_list("remote_ts", selector)
            .unwrap_or_else(dynamic),
        esp_proposals: esp_proposals(section, allow_weak),
        mode,
        start_action: choice(section, "start_action", &START_ACTION).unwrap_or_default(),
        close_action: choice(section, "close_action", &CLOSE_ACTION).unwrap_or_default(),
        dpd_action: choice(section, "dpd_action", &DPD_ACTION).unwrap_or_default(),
        rekey_time: Duration::from_secs(time.rekey),
        life_time: Duration::from_secs(time.life),
        rand_time: Duration::from_secs(time.rand),
        inactivity: section
            .read("inactivity", value::duration)
            .unwrap_or_default(),
        rekey_bytes: bytes.rekey,
        life_bytes: bytes.life,
        rand_bytes: bytes.rand,
        rekey_packets: packets.rekey,
        life_packets: packets.life,
        rand_packets: packets.rand,
        replay_window: section
            .read("replay_window", window)
            .unwrap_or(REPLAY_WINDOW),
        rules: rules(section),
        per_cpu_sas: section
            .read("per_cpu_sas", per_cpu_sas)
            .unwrap_or(mode != ChildMode::Transport),
        priority: section
            .read("priority", priority)
            .filter(|priority| *priority != 0),
    };
    for (key, list) in [
        ("local_ts", &child.local_ts),
        ("remote_ts", &child.remote_ts),
    ] {
        check_count(section, key, list);
    }
    check_families(section, &child);
    check_transport(section, &child);
    child
}

/// When keys are replaced, when they must be gone, and how much of that is left to chance.
struct Lifetime {
    rekey: u64,
    life: u64,
    rand: u64,
}

impl Lifetime {
    /// swanctl's defaults: a tenth more to live than to rekey, and the difference at random.
    fn read(
        section: &Section<'_>,
        unit: &str,
        rekey: u64,
        parse: impl Fn(&str) -> Result<u64, String>,
    ) -> Self {
        let names = ["rekey", "life", "rand"].map(|name| format!("{name}_{unit}"));
        let [rekey_key, life_key, rand_key] = names.each_ref().map(String::as_str);
        let rekey = section.read(rekey_key, &parse).unwrap_or(rekey);
        let life = section
            .read(life_key, &parse)
            .unwrap_or(rekey.saturating_add(rekey / 10));
        if life != 0 && rekey >= life {
            section.fail_at(
                life_key,
                format!("must be more than {rekey_key}, which is {rekey}"),
            );
        }
        let given = section.read(rand_key, &parse);
        if rekey != 0 && given.is_some_and(|rand| rand > rekey) {
            section.fail_at(
                rand_key,
                format!("must be at most {rekey_key}, which is {rekey}"),
            );
        }
        // Otherwise a long life would let chance rekey at once.
        let rand = given.unwrap_or_else(|| life.saturating_sub(rekey).min(rekey / 2));
        Self { rekey, life, rand }
    }
}

/// A selector of swanctl, with `dynamic` in place of the address where that is meant.
fn selector(text: &str) -> Result<SelectorConfig, String> {
    let parse = |text: &str| {
        text.parse::<TrafficSelector>()
            .map_err(|error| error.to_string())
    };
    let Some(rest) = text.strip_prefix("dynamic") else {
        return parse(text).map(SelectorConfig::Fixed);
    };
    let selector = parse(&format!("0.0.0.0/0{rest}"))?;
    Ok(SelectorConfig::Dynamic {
        protocol: selector.protocol(),
        ports: selector.ports(),
    })
}

/// ESP proposals; one that says nothing about sequence numbers offers both, extended first.
fn esp_proposals(section: &Section<'_>, allow_weak: bool) -> Vec<SaProposal> {
    let given = proposals(section, "esp_proposals", ProtocolId::Esp, allow_weak);
    let mut proposals = given.unwrap_or_else(keyword::default_esp_proposals);
    for proposal in &mut proposals {
        let is_esn = |transform: &Transform| matches!(transform, Transform::SequenceNumbers { .. });
        if !proposal.transforms.iter().any(is_esn) {
            let both = [true, false].map(|extended| Transform::SequenceNumbers { extended });
            proposal.transforms.extend(both);
        }
    }
    proposals
}

fn mode(text: &str) -> Result<ChildMode, String> {
    match text.to_ascii_lowercase().as_str() {
        "transport_proxy" | "beet" | "iptfs" => Err(format!(
            "{text:?} is not supported yet; allowed: tunnel, transport, pass, drop"
        )),
        _ => value::choice(text, &MODE),
    }
}

/// `encap` gives each SA a source port of its own, which raw ESP has not and our steering by SPI
/// does not need.
fn per_cpu_sas(text: &str) -> Result<bool, String> {
    match text.to_ascii_lowercase().as_str() {
        "encap" => Err(format!("{text:?} is not supported yet; allowed: yes, no")),
        _ => value::boolean(text).map_err(|_| format!("{text:?} is not allowed; allowed: yes, no")),
    }
}

fn choice<T: Copy + PartialEq>(section: &Section<'_>, key: &str, words: &[(&str, T)]) -> Option<T> {
    section.read(key, |text| value::choice(text, words))
}

fn window(text: &str) -> Result<u32, String> {
    value::integer(text, 0..=REPLAY_WINDOW_MAX)
}

fn priority(text: &str) -> Result<u32, String> {
    value::integer(text, 0..=u32::MAX)
}

fn rules(section: &Section<'_>) -> HeaderRules {
    let copied = |copy| if copy { DfRule::Copy } else { DfRule::Clear };
    HeaderRules {
        copy_df: section
            .read("copy_df", value::boolean)
            .map_or(DfRule::Copy, copied),
        copy_ecn: section.read("copy_ecn", value::boolean).unwrap_or(true),
        copy_dscp: choice(section, "copy_dscp", &COPY_DSCP).unwrap_or(CopyDscp::Out),
    }
}

fn check_count(section: &Section<'_>, key: &str, list: &[SelectorConfig]) {
    if list.len() > SELECTORS_MAX {
        section.fail_at(
            key,
            format!(
                "has {} selectors; allowed: at most {SELECTORS_MAX}, which is what IKE can carry; \
                 spread them over several children",
                list.len()
            ),
        );
    }
}

/// In transport mode there is one Child SA between two hosts.
fn check_transport(section: &Section<'_>, child: &ChildConfig) {
    if child.mode != ChildMode::Transport {
        return;
    }
    if child.per_cpu_sas {
        section.fail_at(
            "per_cpu_sas",
            "is not supported yet in transport mode; allowed: no",
        );
    }
    let is_network = |selector: &SelectorConfig| match selector {
        SelectorConfig::Dynamic { .. } => false,
        SelectorConfig::Fixed(selector) => selector.start() != selector.end(),
    };
    for (key, list) in [
        ("local_ts", &child.local_ts),
        ("remote_ts", &child.remote_ts),
    ] {
        if list.iter().any(is_network) {
            section.warn_at(
                key,
                "names a network, so mode transport becomes mode tunnel",
            );
        }
    }
}

/// Traffic has one address family: a selector without a counterpart protects nothing.
fn check_families(section: &Section<'_>, child: &ChildConfig) {
    let has = |list: &[SelectorConfig], ipv6: bool| {
        list.iter().any(|selector| match selector {
            SelectorConfig::Dynamic { .. } => true,
            SelectorConfig::Fixed(selector) => selector.is_ipv6() == ipv6,
        })
    };
    let families = |list: &[SelectorConfig]| [has(list, false), has(list, true)];
    match (families(&child.local_ts), families(&child.remote_ts)) {
        ([true, false], [false, true]) => section.fail_at(
            "remote_ts",
            "has only IPv6 selectors and local_ts only IPv4 selectors",
        ),
        ([false, true], [true, false]) => section.fail_at(
            "remote_ts",
            "has only IPv4 selectors and local_ts only IPv6 selectors",
        ),
        (local, remote) => {
            let fixed = |list: &[SelectorConfig], ipv6: bool| {
                list.iter().any(|selector| match selector {
                    SelectorConfig::Dynamic { .. } => false,
                    SelectorConfig::Fixed(selector) => selector.is_ipv6() == ipv6,
                })
            };
            for (ipv6, family) in [(0, "IPv4"), (1, "IPv6")] {
                let (local, remote) = (local.get(ipv6), remote.get(ipv6));
                if local != remote {
                    let (key, other, list) = if local == Some(&true) {
                        ("local_ts", "remote_ts", &child.local_ts)
                    } else {
                        ("remote_ts", "local_ts", &child.remote_ts)
                    };
                    if !fixed(list, ipv6 == 1) {
                        continue;
                    }
                    section.warn_at(
                        key,
                        format!(
                            "has {family} selectors and {other} has none, so they match no traffic"
                        ),
                    );
                }
            }
        }
    }
}

const MODE: [(&str, ChildMode); 4] = [
    ("tunnel", ChildMode::Tunnel),
    ("transport", ChildMode::Transport),
    ("pass", ChildMode::Pass),
    ("drop", ChildMode::Drop),
];
/// Each action also by the words that swanctl takes for it.
const START_ACTION: [(&str, StartAction); 9] = [
    ("none", StartAction::None),
    ("trap", StartAction::Trap),
    ("start", StartAction::Start),
    ("trap|start", StartAction::TrapStart),
    ("start|trap", StartAction::TrapStart),
    ("clear", StartAction::None),
    ("no", StartAction::None),
    ("route", StartAction::Trap),
    ("restart", StartAction::Start),
];
const CLOSE_ACTION: [(&str, CloseAction); 7] = [
    ("none", CloseAction::None),
    ("trap", CloseAction::Trap),
    ("start", CloseAction::Start),
    ("clear", CloseAction::None),
    ("no", CloseAction::None),
    ("route", CloseAction::Trap),
    ("restart", CloseAction::Start),
];
const DPD_ACTION: [(&str, DpdAction); 7] = [
    ("clear", DpdAction::Clear),
    ("trap", DpdAction::Trap),
    ("restart", DpdAction::Restart),
    ("none", DpdAction::Clear),
    ("no", DpdAction::Clear),
    ("route", DpdAction::Trap),
    ("start", DpdAction::Restart),
];
const COPY_DSCP: [(&str, CopyDscp); 4] = [
    ("out", CopyDscp::Out),
    ("in", CopyDscp::In),
    ("yes", CopyDscp::Yes),
    ("no", CopyDscp::No),
];
/// The count of a traffic selector payload is one byte.
const SELECTORS_MAX: usize = 255;
const REPLAY_WINDOW: u32 = 4096;
const REPLAY_WINDOW_MAX: u32 = 8192;
