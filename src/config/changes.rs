//! The difference between two configurations.

use super::{Config, DaemonConfig};
use crate::ike::Pad;

/// What a reload changes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Keys of `[daemon]` whose values differ.
    pub daemon: Vec<&'static str>,
    /// Connections that are new.
    pub added: Vec<String>,
    /// Connections that are gone.
    pub removed: Vec<String>,
    /// Connections that have the same name and are not the same, so that their SAs end.
    pub changed: Vec<String>,
    /// Connections whose SAs go on with other keys and certificates.
    pub renewed: Vec<String>,
    /// Whether any secret or authority differs.
    pub secrets: bool,
}

impl Changes {
    pub(super) fn between(older: &Config, newer: &Config) -> Self {
        let names = |from: &Pad, pick: &dyn Fn(&str) -> bool| {
            let names = from
                .connections
                .iter()
                .map(|connection| connection.name.clone());
            names.filter(|name| pick(name)).collect()
        };
        let (old, new) = (&older.pad, &newer.pad);
        let pair = |name: &str| Some((old.connection(name)?, new.connection(name)?));
        let goes_on = |name: &str| pair(name).is_some_and(|(was, is)| was.goes_on_as(is));
        let differs = |name: &str| pair(name).is_some_and(|(was, is)| was != is);
        Self {
            daemon: daemon_keys(&older.daemon, &newer.daemon),
            added: names(new, &|name| old.connection(name).is_none()),
            removed: names(old, &|name| new.connection(name).is_none()),
            changed: names(new, &|name| differs(name) && !goes_on(name)),
            renewed: names(new, &|name| differs(name) && goes_on(name)),
            secrets: old.secrets != new.secrets
                || old.ppks != new.ppks
                || old.authorities != new.authorities,
        }
    }

    /// Nothing differs.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

fn daemon_keys(old: &DaemonConfig, new: &DaemonConfig) -> Vec<&'static str> {
    // Destructured, so that a new key cannot be forgotten here.
    let DaemonConfig {
        tun,
        tun_mtu,
        workers,
        pin,
        tun_tso,
        tun_uso,
        tun_gro,
        udp_gso,
        udp_gro,
        spin,
        tun_queue_len,
        socket_buffer,
        metrics,
        vici_socket,
        vici_socket_mode,
        port,
        port_nat_t,
        guard,
        path_mtu,
        fragment_size,
        dos_protection,
        key_log,
        state_dir,
        crash_detection,
        log,
        log_format,
        routing_table,
        fwmark,
    } = new;
    let differs = [
        ("tun", old.tun != *tun),
        ("tun_mtu", old.tun_mtu != *tun_mtu),
        ("workers", old.workers != *workers),
        ("pin", old.pin != *pin),
        ("tun_tso", old.tun_tso != *tun_tso),
        ("tun_uso", old.tun_uso != *tun_uso),
        ("tun_gro", old.tun_gro != *tun_gro),
        ("udp_gso", old.udp_gso != *udp_gso),
        ("udp_gro", old.udp_gro != *udp_gro),
        ("spin", old.spin != *spin),
        ("tun_queue_len", old.tun_queue_len != *tun_queue_len),
        ("socket_buffer", old.socket_buffer != *socket_buffer),
        ("metrics", old.metrics != *metrics),
        ("vici_socket", old.vici_socket != *vici_socket),
        (
            "vici_socket_mode",
            old.vici_socket_mode != *vici_socket_mode,
        ),
        ("port", old.port != *port),
        ("port_nat_t", old.port_nat_t != *port_nat_t),
        ("guard", old.guard != *guard),
        ("path_mtu", old.path_mtu != *path_mtu),
        ("fragment_size", old.fragment_size != *fragment_size),
        ("dos_protection", old.dos_protection != *dos_protection),
        ("key_log", old.key_log != *key_log),
        ("state_dir", old.state_dir != *state_dir),
        ("crash_detection", old.crash_detection != *crash_detection),
        ("log", old.log != *log),
        ("log_format", old.log_format != *log_format),
        ("routing_table", old.routing_table != *routing_table),
        ("fwmark", old.fwmark != *fwmark),
    ];
    differs
        .iter()
        .filter(|(_, differs)| *differs)
        .map(|(key, _)| *key)
        .collect()
}
