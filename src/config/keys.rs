//! The keys of the file: those we act on, and those of swanctl.conf that we do not support yet.

/// What a key gets from us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Support {
    /// It is read.
    Yes,
    /// swanctl knows it, we do not act on it yet.
    NotYet,
    /// Like `NotYet`, but switching it off asks for what we do anyway.
    OnlyOff,
    /// It can have no effect, for this reason.
    Never(&'static str),
}

/// The keys of one kind of table.
#[derive(Debug)]
pub(super) struct Schema {
    /// Keys that match as a whole.
    keys: &'static [(&'static str, Support)],
    /// Prefixes that take a suffix of the user's choice.
    prefixes: &'static [(&'static str, Support)],
    /// Whether a name with such a prefix must be a table: then `local` may be a prefix although
    /// `local_adrs` is a slip.
    prefixed_tables: bool,
}

impl Schema {
    pub(super) fn support(&self, name: &str, is_table: bool) -> Option<Support> {
        let whole = self.keys.iter().find(|(key, _)| *key == name);
        let prefixes = self
            .prefixes
            .iter()
            .filter(|_| is_table || !self.prefixed_tables);
        let prefix = || {
            prefixes
                .into_iter()
                .find(|(prefix, _)| name.starts_with(prefix))
        };
        whole.or_else(prefix).map(|&(_, support)| support)
    }

    /// What a user may write.
    pub(super) fn names(&self) -> Vec<&'static str> {
        let supported = |list: &'static [(&'static str, Support)]| {
            list.iter()
                .filter(|(_, support)| *support == Yes)
                .map(|&(name, _)| name)
        };
        supported(self.keys)
            .chain(supported(self.prefixes))
            .collect()
    }
}

/// "did you mean x? allowed: x, y, z", without the question where nothing is near.
pub(super) fn allowed(given: &str, names: &[&str]) -> String {
    let given = given.to_ascii_lowercase();
    let near = names
        .iter()
        .map(|name| (strsim::damerau_levenshtein(&given, name), name))
        .min();
    let list = names.join(", ");
    match near {
        Some((distance, name)) if distance <= 1 + name.len() / 4 => {
            format!("did you mean {name}? allowed: {list}")
        }
        _ => format!("allowed: {list}"),
    }
}

use Support::{Never, NotYet, OnlyOff, Yes};

pub(super) static ROOT: Schema = Schema {
    keys: &[
        ("daemon", Yes),
        ("connections", Yes),
        ("secrets", Yes),
        ("pools", Yes),
        ("authorities", Yes),
        ("include", NotYet),
    ],
    prefixes: &[],
    prefixed_tables: false,
};

pub(super) static DAEMON: Schema = Schema {
    keys: &[
        ("tun", Yes),
        ("tun_mtu", Yes),
        ("workers", Yes),
        ("pin", Yes),
        ("tun_tso", Yes),
        ("tun_uso", Yes),
        ("tun_gro", Yes),
        ("udp_gso", Yes),
        ("udp_gro", Yes),
        ("spin", Yes),
        ("tun_queue_len", Yes),
        ("socket_buffer", Yes),
        ("metrics", Yes),
        ("vici_socket", Yes),
        ("vici_socket_mode", Yes),
        ("port", Yes),
        ("port_nat_t", Yes),
        ("guard", Yes),
        ("path_mtu", Yes),
        ("fragment_size", Yes),
        ("dos_protection", Yes),
        ("key_log", Yes),
        ("state_dir", Yes),
        ("crash_detection", Yes),
        ("log", Yes),
        ("log_format", Yes),
        ("routing_table", Yes),
        ("fwmark", Yes),
    ],
    prefixes: &[],
    prefixed_tables: false,
};

pub(super) static CONNECTION: Schema = Schema {
    keys: &[
        ("version", Yes),
        ("local_addrs", Yes),
        ("remote_addrs", Yes),
        ("local_port", Yes),
        ("remote_port", Yes),
        ("proposals", Yes),
        ("allow_weak", Yes),
        ("encap", Yes),
        ("fragmentation", Yes),
        ("mobike", Yes),
        ("follow_redirects", Yes),
        ("redirect", Yes),
        ("resumption", Yes),
        ("dpd_delay", Yes),
        ("keyingtries", Yes),
        ("unique", Yes),
        ("ppk_id", Yes),
        ("ppk_required", Yes),
        ("childless", Yes),
        ("rekey_time", Yes),
        ("reauth_time", Yes),
        ("over_time", Yes),
        ("rand_time", Yes),
        ("children", Yes),
        (
            "dpd_timeout",
            Never("has no effect with IKEv2, where retransmission decides; remove it"),
        ),
        ("aggressive", OnlyOff),
        ("mediation", OnlyOff),
        ("vips", Yes),
        ("pull", NotYet),
        ("dscp", NotYet),
        ("send_certreq", Yes),
        ("send_cert", Yes),
        ("ocsp", NotYet),
        ("pools", Yes),
        ("if_id_in", NotYet),
        ("if_id_out", NotYet),
        ("mediated_by", NotYet),
        ("mediation_peer", NotYet),
    ],
    prefixes: &[("local", Yes), ("remote", Yes)],
    prefixed_tables: true,
};

pub(super) static POOL: Schema = Schema {
    keys: &[
        ("addrs", Yes),
        ("dns", Yes),
        ("subnet", Yes),
        ("nbns", NotYet),
        ("dhcp", NotYet),
        ("netmask", NotYet),
        ("server", NotYet),
        ("split_include", Never("is of IKEv1 only; IKEv2 has subnet")),
        ("split_exclude", Never("is of IKEv1 only")),
    ],
    prefixes: &[],
    prefixed_tables: false,
};

pub(super) static LOCAL: Schema = Schema {
    keys: &[
        ("auth", Yes),
        ("id", Yes),
        ("round", NotYet),
        ("certs", Yes),
        ("pubkeys", Yes),
        ("eap_id", NotYet),
        ("aaa_id", NotYet),
        ("xauth_id", NotYet),
    ],
    prefixes: &[("cert", NotYet)],
    prefixed_tables: true,
};

pub(super) static REMOTE: Schema = Schema {
    keys: &[
        ("auth", Yes),
        ("id", Yes),
        ("round", NotYet),
        ("certs", Yes),
        ("cacerts", Yes),
        ("cert_policy", Yes),
        ("pubkeys", Yes),
        ("eap_id", NotYet),
        ("groups", NotYet),
        ("revocation", Yes),
        ("ca_id", NotYet),
    ],
    prefixes: &[("cert", NotYet), ("cacert", NotYet)],
    prefixed_tables: true,
};

pub(super) static CHILD: Schema = Schema {
    keys: &[
        ("local_ts", Yes),
        ("remote_ts", Yes),
        ("esp_proposals", Yes),
        ("mode", Yes),
        ("start_action", Yes),
        ("close_action", Yes),
        ("dpd_action", Yes),
        ("rekey_time", Yes),
        ("life_time", Yes),
        ("rand_time", Yes),
        ("inactivity", Yes),
        ("rekey_bytes", Yes),
        ("life_bytes", Yes),
        ("rand_bytes", Yes),
        ("rekey_packets", Yes),
        ("life_packets", Yes),
        ("rand_packets", Yes),
        ("replay_window", Yes),
        ("copy_df", Yes),
        ("copy_ecn", Yes),
        ("copy_dscp", Yes),
        ("per_cpu_sas", Yes),
        ("priority", Yes),
        ("sha256_96", OnlyOff),
        ("hostaccess", OnlyOff),
        ("policies_fwd_out", OnlyOff),
        ("ipcomp", OnlyOff),
        ("hw_offload", OnlyOff),
        ("tfc_padding", OnlyOff),
        ("ah_proposals", NotYet),
        ("updown", NotYet),
        ("policies", NotYet),
        ("reqid", NotYet),
        ("interface", NotYet),
        ("mark_in", NotYet),
        ("mark_in_sa", NotYet),
        ("mark_out", NotYet),
        ("set_mark_in", NotYet),
        ("set_mark_out", NotYet),
        ("if_id_in", NotYet),
        ("if_id_out", NotYet),
        ("label", NotYet),
        ("label_mode", NotYet),
    ],
    prefixes: &[],
    prefixed_tables: false,
};

pub(super) static SECRETS: Schema = Schema {
    keys: &[],
    prefixes: &[
        ("ike", Yes),
        ("ppk", Yes),
        ("eap", NotYet),
        ("xauth", NotYet),
        ("ntlm", NotYet),
        ("private", Yes),
        ("rsa", Yes),
        ("ecdsa", Yes),
        ("pkcs8", Yes),
        ("pkcs12", NotYet),
        ("token", NotYet),
    ],
    prefixed_tables: true,
};

pub(super) static SECRET: Schema = Schema {
    keys: &[("secret", Yes), ("secret_file", Yes)],
    prefixes: &[("id", Yes)],
    prefixed_tables: false,
};

pub(super) static PRIVATE: Schema = Schema {
    keys: &[("file", Yes), ("secret", Yes), ("secret_file", Yes)],
    prefixes: &[],
    prefixed_tables: false,
};

pub(super) static AUTHORITY: Schema = Schema {
    keys: &[
        ("cacert", Yes),
        ("crl_uris", Yes),
        ("ocsp_uris", Yes),
        ("cert_uri_base", NotYet),
        ("handle", NotYet),
        ("slot", NotYet),
        ("module", NotYet),
        ("file", NotYet),
    ],
    prefixes: &[],
    prefixed_tables: false,
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_is_documented() {
        let text = include_str!("../../docs/configuration.md");
        let schemas = [
            &DAEMON,
            &CONNECTION,
            &LOCAL,
            &REMOTE,
            &CHILD,
            &SECRET,
            &PRIVATE,
            &AUTHORITY,
        ];
        for schema in schemas {
            let off = schema
                .keys
                .iter()
                .filter(|(_, support)| *support == OnlyOff);
            for name in schema.names().into_iter().chain(off.map(|&(name, _)| name)) {
                let documented = text.contains(&format!("`{name}`"))
                    || text.contains(&format!("`{name}<suffix>`"));
                assert!(documented, "{name} is missing in docs/configuration.md");
            }
        }
    }
}
