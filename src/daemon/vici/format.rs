//! Our state in the keys of the VICI protocol, as strongSwan's tools read them.

use std::fmt::Display;
use std::time::{Duration, Instant};

use super::{PolicyKinds, SaFilter};
use crate::{
    daemon::{
        failures::LastFailure,
        usage::{LastUse, UsageTimes},
    },
    ike::{
        AddressPattern, Alert, ChildConfig, ChildMode, ChildStatus, CloseAction, Connection,
        DpdAction, IkeSaStatus, Pad, SelectorConfig, Unique,
    },
    ipsec::{EspEncap, Mode},
    wire::{
        proposal::{AdditionalExchanges, CipherSuite},
        vici::Message,
    },
};

/// One IKE SA with the Child SAs that fit, as the section of its name. `None` if it does not fit.
#[must_use]
pub fn list_sa(
    ike: &IkeSaStatus,
    filter: &SaFilter,
    usage: &UsageTimes,
    now: Instant,
) -> Option<Message> {
    if filter.ike.as_ref().is_some_and(|name| *name != ike.name)
        || filter.ike_id.is_some_and(|id| id != ike.id)
    {
        return None;
    }
    let fits = |child: &&ChildStatus| {
        filter.child.as_ref().is_none_or(|name| *name == child.name)
            && filter.child_id.is_none_or(|id| id == child.id.0)
    };
    let fitting: Vec<&ChildStatus> = ike.children.iter().filter(fits).collect();
    if fitting.is_empty() && (filter.child.is_some() || filter.child_id.is_some()) {
        return None;
    }
    let mut children = Message::new();
    for child in fitting {
        children.section(
            child_section(child),
            child_sa(child, usage.get(child.id), now),
        );
    }
    let mut body = ike_sa(ike, now);
    body.section("child-sas", children);
    Some(named(ike, body))
}

/// The keys of an IKE SA, without Child SAs.
#[must_use]
pub fn ike_sa(ike: &IkeSaStatus, now: Instant) -> Message {
    let mut m = Message::new();
    m.set("uniqueid", ike.id)
        .set("version", 2)
        .set("state", ike.state.name())
        .set("local-host", ike.local.ip())
        .set("local-port", ike.local.port());
    if let Some(id) = &ike.local_id {
        m.set("local-id", id);
    }
    m.set("remote-host", ike.remote.ip())
        .set("remote-port", ike.remote.port());
    if let Some(id) = &ike.remote_id {
        m.set("remote-id", id);
    }
    if ike.initiator {
        m.set("initiator", "yes");
    }
    m.set("initiator-spi", ike.initiator_spi)
        .set("responder-spi", ike.responder_spi);
    let nat = ike.nat;
    for (key, found) in [
        ("nat-local", nat.local),
        ("nat-remote", nat.remote),
        ("nat-fake", nat.fake),
        ("nat-any", nat.any()),
    ] {
        if found {
            m.set(key, "yes");
        }
    }
    if let Some(suite) = &ike.suite {
        cipher(&mut m, &suite.cipher);
        m.set("prf-alg", suite.prf)
            .set("dh-group", suite.key_exchange);
        additional(&mut m, &suite.additional);
    }
    if let Some(established) = ike.established {
        m.set("established", seconds_since(established, now));
    }
    if let Some(at) = ike.rekey_at {
        m.set("rekey-time", seconds_until(at, now));
    }
    if let Some(at) = ike.reauth_at {
        m.set("reauth-time", seconds_until(at, now));
    }
    let vips = [
        ("local-vips", &ike.local_vips),
        ("remote-vips", &ike.remote_vips),
        ("dns", &ike.dns),
    ];
    for (key, addresses) in vips {
        if !addresses.is_empty() {
            m.list(key, addresses);
        }
    }
    if !ike.subnets.is_empty() {
        m.list("subnets", &ike.subnets);
    }
    if !ike.tasks_queued.is_empty() {
        m.list("tasks-queued", &ike.tasks_queued);
    }
    if !ike.tasks_active.is_empty() {
        m.list("tasks-active", &ike.tasks_active);
    }
    m
}

/// The keys of a Child SA.
#[must_use]
pub fn child_sa(child: &ChildStatus, used: LastUse, now: Instant) -> Message {
    let mut m = Message::new();
    let mode = match child.mode {
        Mode::Tunnel => ChildMode::Tunnel,
        Mode::Transport => ChildMode::Transport,
    };
    m.set("name", &child.name)
        .set("uniqueid", child.id)
        .set("reqid", child.reqid)
        .set("state", child.state.name())
        .set("mode", self::mode(mode))
        .set("protocol", "ESP");
    if child.encap == EspEncap::Udp {
        m.set("encap", "yes");
    }
    m.set("spi-in", child.spi_in)
        .set("spi-out", child.spi_out)
        .set("cpu", child.owner.0);
    if child.per_worker {
        m.set("per-cpu-sas", "yes");
    }
    cipher(&mut m, &child.suite.cipher);
    if let Some(group) = child.suite.key_exchange {
        m.set("dh-group", group);
    }
    additional(&mut m, &child.suite.additional);
    if child.suite.esn {
        m.set("esn", 1);
    }
    m.set("bytes-in", child.usage_in.bytes())
        .set("packets-in", child.usage_in.packets());
    if let Some(at) = used.inbound {
        m.set("use-in", seconds_since(at, now));
    }
    m.set("bytes-out", child.usage_out.bytes())
        .set("packets-out", child.usage_out.packets());
    if let Some(at) = used.outbound {
        m.set("use-out", seconds_since(at, now));
    }
    if let Some(at) = child.rekey_at {
        m.set("rekey-time", seconds_until(at, now));
    }
    if let Some(at) = child.expires_at {
        m.set("life-time", seconds_until(at, now));
    }
    m.set("install-time", seconds_since(child.installed, now))
        .list("local-ts", &child.local_ts)
        .list("remote-ts", &child.remote_ts);
    m
}

/// An `ike-updown` event.
#[must_use]
pub fn ike_updown(ike: &IkeSaStatus, up: bool, now: Instant) -> Message {
    updown(ike, up, ike_sa(ike, now))
}

/// An `alert` event.
#[must_use]
pub fn alert(alert: &Alert, now: Instant) -> Message {
    let mut body = Message::new();
    body.set("type", alert.kind.name())
        .list("connections", &alert.connections)
        .set("msg", &alert.message);
    if let Some(child) = &alert.child {
        body.set("child", child);
    }
    if let Some(ike) = &alert.ike {
        body.section("ike-sa", ike_sa(ike, now));
    }
    body
}

/// An `ike-rekey` event.
#[must_use]
pub fn ike_rekey(old: &IkeSaStatus, new: &IkeSaStatus, now: Instant) -> Message {
    let mut body = Message::new();
    body.section("old", ike_sa(old, now))
        .section("new", ike_sa(new, now));
    named(new, body)
}

/// A `child-updown` event.
#[must_use]
pub fn child_updown(
    ike: &IkeSaStatus,
    child: &ChildStatus,
    up: bool,
    used: LastUse,
    now: Instant,
) -> Message {
    let mut children = Message::new();
    children.section(child_section(child), child_sa(child, used, now));
    let mut body = ike_sa(ike, now);
    body.section("child-sas", children);
    updown(ike, up, body)
}

/// A `child-rekey` event.
#[must_use]
pub fn child_rekey(
    ike: &IkeSaStatus,
    old: &ChildStatus,
    new: &ChildStatus,
    used: LastUse,
    now: Instant,
) -> Message {
    let mut pair = Message::new();
    pair.section("old", child_sa(old, used, now))
        .section("new", child_sa(new, LastUse::default(), now));
    let mut children = Message::new();
    children.section(&old.name, pair);
    let mut body = ike_sa(ike, now);
    body.section("child-sas", children);
    named(ike, body)
}

/// One configured connection, as the section of its name.
#[must_use]
pub fn list_conn(connection: &Connection, failure: Option<&LastFailure>, now: Instant) -> Message {
    let mut m = Message::new();
    m.list("local_addrs", connection.local_addrs.iter().map(address))
        .list("remote_addrs", connection.remote_addrs.iter().map(address))
        .set("local_port", connection.local_port)
        .set("remote_port", connection.remote_port)
        .set("version", "IKEv2")
        .set("reauth_time", connection.reauth_time.as_secs())
        .set("rekey_time", connection.rekey_time.as_secs())
        .set("unique", unique(connection.unique));
    if !connection.dpd_delay.is_zero() {
        m.set("dpd_delay", connection.dpd_delay.as_secs());
    }
    if let Some(LastFailure { alert, at }) = failure {
        m.set("last_failure", &alert.message)
            .set("last_failure_type", alert.kind.name())
            .set(
                "last_failure_age",
                now.saturating_duration_since(*at).as_secs(),
            );
    }
    let mut local = Message::new();
    local.set("class", "pre-shared key");
    if let Some(id) = &connection.local.id {
        local.set("id", id);
    }
    let mut remote = Message::new();
    remote
        .set("class", "pre-shared key")
        .set("id", &connection.remote.id);
    m.section("local-1", local).section("remote-1", remote);
    let mut children = Message::new();
    for child in &connection.children {
        children.section(&child.name, child_config(child));
    }
    m.section("children", children);
    let mut message = Message::new();
    message.section(&connection.name, m);
    message
}

fn child_config(child: &ChildConfig) -> Message {
    let mut m = Message::new();
    m.set("mode", mode(child.mode))
        .set("rekey_time", child.rekey_time.as_secs())
        .set("rekey_bytes", child.rekey_bytes)
        .set("rekey_packets", child.rekey_packets)
        .set(
            "dpd_action",
            match child.dpd_action {
                DpdAction::Clear => "none",
                DpdAction::Trap => "trap",
                DpdAction::Restart => "start",
            },
        )
        .set(
            "close_action",
            match child.close_action {
                CloseAction::None => "none",
                CloseAction::Trap => "trap",
                CloseAction::Start => "start",
            },
        )
        .list("local-ts", child.local_ts.iter().map(selector))
        .list("remote-ts", child.remote_ts.iter().map(selector));
    if let Some(priority) = child.priority {
        m.set("priority", priority);
    }
    m
}

/// The policies of the configuration, one message each.
pub fn list_policies<'a>(
    pad: &'a Pad,
    kinds: PolicyKinds,
    ike: Option<&'a str>,
    child: Option<&'a str>,
) -> impl Iterator<Item = Message> + 'a {
    let connections = pad.connections.iter();
    let connections = connections.filter(move |c| ike.is_none_or(|name| c.name == name));
    connections.flat_map(move |connection| {
        let fits = move |config: &&std::sync::Arc<ChildConfig>| {
            child.is_none_or(|name| config.name == name)
                && match config.mode {
                    ChildMode::Tunnel | ChildMode::Transport => kinds.trap,
                    ChildMode::Pass => kinds.pass,
                    ChildMode::Drop => kinds.drop,
                }
        };
        connection.children.iter().filter(fits).map(|config| {
            let mut m = Message::new();
            m.set("child", &config.name)
                .set("ike", &connection.name)
                .set("mode", mode(config.mode))
                .list("local-ts", config.local_ts.iter().map(selector))
                .list("remote-ts", config.remote_ts.iter().map(selector));
            let mut message = Message::new();
            message.section(format!("{}/{}", connection.name, config.name), m);
            message
        })
    })
}

/// A log line, for the events `log` and `control-log`.
#[must_use]
pub fn log(level: i8, group: &str, ike: Option<&(String, u64)>, text: &dyn Display) -> Message {
    let mut m = Message::new();
    m.set("group", group)
        .set("level", level.max(0))
        .set("thread", 1);
    if let Some((name, id)) = ike {
        m.set("ikesa-name", name).set("ikesa-uniqued", id);
    }
    m.set("msg", text);
    m
}

/// A time span as strongSwan prints it: one unit, rounded down.
#[must_use]
pub fn duration(span: Duration) -> String {
    let seconds = span.as_secs();
    let (count, unit) = match seconds {
        0..120 => (seconds, "second"),
        120..7_200 => (seconds / 60, "minute"),
        7_200..172_800 => (seconds / 3_600, "hour"),
        _ => (seconds / 86_400, "day"),
    };
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} {unit}{plural}")
}

/// A moment as strongSwan prints it, in UTC: `Jan 02 03:04:05 2006`.
#[must_use]
pub fn date(since_epoch: Duration) -> String {
    let seconds = since_epoch.as_secs();
    let (days, clock) = (seconds / 86_400, seconds % 86_400);
    // Days from the first of March of a leap cycle, so that the leap day comes last.
    let days = days + 719_468;
    let cycle_day = days % 146_097;
    let cycle_year =
        (cycle_day - cycle_day / 1_460 + cycle_day / 36_524 - cycle_day / 146_096) / 365;
    let year_day = cycle_day - (365 * cycle_year + cycle_year / 4 - cycle_year / 100);
    let march_month = (5 * year_day + 2) / 153;
    let day = year_day - (153 * march_month + 2) / 5 + 1;
    let year = days / 146_097 * 400 + cycle_year + u64::from(march_month >= 10);
    let name = usize::try_from(march_month)
        .ok()
        .and_then(|month| MONTHS_FROM_MARCH.get(month))
        .copied()
        .unwrap_or_default();
    let (hour, minute, second) = (clock / 3_600, clock / 60 % 60, clock % 60);
    format!("{name} {day:02} {hour:02}:{minute:02}:{second:02} {year}")
}

fn updown(ike: &IkeSaStatus, up: bool, body: Message) -> Message {
    let mut message = Message::new();
    if up {
        message.set("up", "yes");
    }
    message.section(section_name(ike), body);
    message
}

fn named(ike: &IkeSaStatus, body: Message) -> Message {
    let mut message = Message::new();
    message.section(section_name(ike), body);
    message
}

/// strongSwan's word for an SA whose connection is not known yet.
fn section_name(ike: &IkeSaStatus) -> &str {
    if ike.name.is_empty() {
        "(unnamed)"
    } else {
        &ike.name
    }
}

fn child_section(child: &ChildStatus) -> String {
    format!("{}-{}", child.name, child.id)
}

fn additional(m: &mut Message, exchanges: &AdditionalExchanges) {
    for (number, method) in exchanges.iter() {
        m.set(format!("ake{number}"), method);
    }
}

fn cipher(m: &mut Message, suite: &CipherSuite) {
    m.set("encr-alg", suite.encryption);
    if suite.key_bits != 0 {
        m.set("encr-keysize", suite.key_bits);
    }
    if let Some(integrity) = suite.integrity {
        m.set("integ-alg", integrity);
    }
}

fn address(pattern: &AddressPattern) -> String {
    match (pattern.host(), pattern) {
        (Some(host), _) => host.to_string(),
        (None, AddressPattern::Net(net)) => net.to_string(),
        (None, AddressPattern::Range(first, last)) => format!("{first}-{last}"),
        (None, AddressPattern::Any) => "%any".to_owned(),
    }
}

fn selector(selector: &SelectorConfig) -> String {
    match selector {
        SelectorConfig::Fixed(selector) => selector.to_string(),
        SelectorConfig::Dynamic { protocol: 0, .. } => "dynamic".to_owned(),
        SelectorConfig::Dynamic {
            protocol,
            ports: (0, u16::MAX),
        } => format!("dynamic[{protocol}]"),
        SelectorConfig::Dynamic {
            protocol,
            ports: (first, last),
        } if first == last => format!("dynamic[{protocol}/{first}]"),
        SelectorConfig::Dynamic {
            protocol,
            ports: (first, last),
        } => format!("dynamic[{protocol}/{first}-{last}]"),
    }
}

fn mode(mode: ChildMode) -> &'static str {
    match mode {
        ChildMode::Tunnel => "TUNNEL",
        ChildMode::Transport => "TRANSPORT",
        ChildMode::Pass => "PASS",
        ChildMode::Drop => "DROP",
    }
}

fn unique(unique: Unique) -> &'static str {
    match unique {
        Unique::No => "UNIQUE_NO",
        Unique::Never => "UNIQUE_NEVER",
        Unique::Keep => "UNIQUE_KEEP",
        Unique::Replace => "UNIQUE_REPLACE",
    }
}

fn seconds_since(then: Instant, now: Instant) -> u64 {
    now.saturating_duration_since(then).as_secs()
}

fn seconds_until(then: Instant, now: Instant) -> u64 {
    then.saturating_duration_since(now).as_secs()
}

const MONTHS_FROM_MARCH: [&str; 12] = [
    "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec", "Jan", "Feb",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_the_calendar() {
        for (seconds, text) in [
            (0, "Jan 01 00:00:00 1970"),
            (951_782_399, "Feb 28 23:59:59 2000"),
            (951_782_400, "Feb 29 00:00:00 2000"),
            (1_136_171_045, "Jan 02 03:04:05 2006"),
            (4_107_542_400, "Mar 01 00:00:00 2100"),
        ] {
            assert_eq!(date(Duration::from_secs(seconds)), text);
        }
    }

    #[test]
    fn durations_have_the_largest_unit_that_counts_at_least_two() {
        for (seconds, text) in [
            (1, "1 second"),
            (119, "119 seconds"),
            (120, "2 minutes"),
            (7_199, "119 minutes"),
            (7_200, "2 hours"),
            (172_800, "2 days"),
        ] {
            assert_eq!(duration(Duration::from_secs(seconds)), text);
        }
    }
}
