//! Each kind of mistake and its exact message.

use super::SITE_A;
use lockgate::config::Config;
use std::path::Path;

pub(crate) fn mistakes(text: &str) -> Vec<String> {
    match Config::parse(text, Path::new("gw.toml")) {
        Ok(config) => panic!("accepted: {config:?}"),
        Err(error) => error.to_string().lines().map(str::to_owned).collect(),
    }
}

pub(crate) fn warnings(text: &str) -> Vec<String> {
    let config = Config::parse(text, Path::new("gw.toml")).expect("a good configuration");
    config.warnings.iter().map(ToString::to_string).collect()
}

/// The design's example with one line more in its connection, which is line 4 then.
pub(crate) fn connection_with(line: &str) -> String {
    SITE_A.replacen("version = 2", &format!("version = 2\n{line}"), 1)
}

/// The design's example with one line more in its child, which is line 12 then.
pub(crate) fn child_with(line: &str) -> String {
    SITE_A.replacen("local_ts =", &format!("{line}\nlocal_ts ="), 1)
}

#[test]
fn an_unknown_key_names_its_nearest_neighbour_and_what_is_allowed() {
    let found = mistakes(&connection_with("dpd_delya = 3"));
    assert_eq!(found.len(), 1, "{found:?}");
    let start = "gw.toml:4: connections.site-b.dpd_delya: unknown key; did you mean dpd_delay? \
                 allowed: version, local_addrs, remote_addrs, ";
    assert!(found[0].starts_with(start), "{found:?}");
    assert!(found[0].ends_with(", local, remote"), "{found:?}");
    assert_eq!(
        mistakes("[deamon]\n"),
        [
            "gw.toml:1: deamon: unknown key; did you mean daemon? allowed: daemon, connections, secrets, pools, authorities"
        ]
    );
    assert_eq!(
        mistakes("[secrets.ike]\nsecret = \"x\"\npassword = \"y\"\n"),
        ["gw.toml:3: secrets.ike.password: unknown key; allowed: secret, secret_file, id"]
    );
    assert_eq!(
        mistakes(
            "[connections.\"a b\"]\nlocal = { auth = \"psk\", \"i d\" = 1 }\nremote.auth = \"psk\"\n[secrets.ike]\nsecret = \"x\"\n"
        ),
        [
            "gw.toml:2: connections.\"a b\".local.\"i d\": unknown key; did you mean id? allowed: auth, id, certs, pubkeys"
        ]
    );
}

#[test]
fn a_slip_in_a_key_that_starts_like_a_section_is_still_a_slip() {
    let text = mistakes(&connection_with("local_adrs = \"192.0.2.1\""));
    assert_eq!(text.len(), 1);
    assert!(text[0].starts_with(
        "gw.toml:4: connections.site-b.local_adrs: unknown key; did you mean local_addrs?"
    ));
}

#[test]
fn a_key_of_swanctl_that_is_not_supported_says_so() {
    for (text, message) in [
        (
            connection_with("pull = false"),
            "gw.toml:4: connections.site-b.pull: not supported yet",
        ),
        (
            child_with("mark_in = 3"),
            "gw.toml:12: connections.site-b.children.lan.mark_in: not supported yet",
        ),
        (
            "[pools.p]\naddrs = \"10.0.0.0/24\"\nnbns = \"10.0.0.1\"\n".to_owned(),
            "gw.toml:3: pools.p.nbns: not supported yet",
        ),
        (
            "[secrets.eap-x]\nsecret = \"y\"\n".to_owned(),
            "gw.toml:1: secrets.eap-x: not supported yet",
        ),
        (
            SITE_A.replace(
                "id = \"gw-a.example\" }",
                "id = \"gw-a.example\", eap_id = \"a\" }",
            ),
            "gw.toml:8: connections.site-b.local.eap_id: not supported yet",
        ),
    ] {
        assert_eq!(mistakes(&text), [message]);
    }
}

#[test]
fn a_feature_that_we_lack_may_be_switched_off_and_not_on() {
    for line in ["mediation = false", "mediation = \"no\"", "aggressive = 0"] {
        assert_eq!(warnings(&connection_with(line)), [""; 0]);
    }
    for line in ["ipcomp = false", "tfc_padding = 0"] {
        assert_eq!(warnings(&child_with(line)), [""; 0]);
    }
    for line in [
        "mediation = true",
        "mediation = \"yes\"",
        "mediation = []",
        "mediation = \"maybe\"",
    ] {
        assert_eq!(
            mistakes(&connection_with(line)),
            ["gw.toml:4: connections.site-b.mediation: not supported yet; allowed: false"]
        );
    }
    assert_eq!(
        mistakes(&connection_with("dpd_timeout = \"30s\"")),
        [
            "gw.toml:4: connections.site-b.dpd_timeout: has no effect with IKEv2, where retransmission decides; remove it"
        ]
    );
}

#[test]
fn a_wrong_value_says_what_is_allowed() {
    for (line, message) in [
        (
            "encap = \"maybe\"",
            "encap: \"maybe\" is not a boolean; allowed: true, false, \"yes\", \"no\"",
        ),
        (
            "rekey_time = \"4x\"",
            "rekey_time: \"4x\" is not a duration; allowed: seconds, or a number with s, m, h or d, as in \"90s\" or \"4h\"",
        ),
        (
            "rekey_time = -1",
            "rekey_time: \"-1\" is not a duration; allowed: seconds, or a number with s, m, h or d, as in \"90s\" or \"4h\"",
        ),
        (
            "unique = \"keeep\"",
            "unique: \"keeep\" is not allowed; did you mean keep? allowed: no, never, keep, replace",
        ),
        (
            "remote_port = 65536",
            "remote_port: \"65536\" is not allowed; allowed: 1 to 65535",
        ),
        (
            "local_port = 501",
            "local_port: \"501\" is not a port of this daemon; allowed: 500 and 4500 (daemon.port and daemon.port_nat_t)",
        ),
        (
            "keyingtries = \"often\"",
            "keyingtries: \"often\" is not allowed; allowed: 0 to 4294967295",
        ),
        (
            "rand_time = \"5h\"",
            "rand_time: is longer than rekey_time, 14400 s",
        ),
        (
            "encap = [true]",
            "encap: expected one value, found an array",
        ),
        (
            "over_time = 1.5",
            "over_time: expected one value, found a fraction",
        ),
    ] {
        assert_eq!(
            mistakes(&connection_with(line)),
            [format!("gw.toml:4: connections.site-b.{message}")]
        );
    }
}

#[test]
fn what_must_be_a_table_is_a_table() {
    for (text, message) in [
        ("daemon = 3\n", "daemon: expected a table, found an integer"),
        (
            "connections = [1]\n",
            "connections: expected a table, found an array",
        ),
        (
            "connections.b = true\n",
            "connections.b: expected a table, found a boolean",
        ),
    ] {
        assert_eq!(mistakes(text), [format!("gw.toml:1: {message}")]);
    }
}

#[test]
fn a_wrong_value_of_a_child_says_what_is_allowed() {
    for (line, message) in [
        (
            "mode = \"beet\"",
            "mode: \"beet\" is not supported yet; allowed: tunnel, transport, pass, drop",
        ),
        (
            "mode = \"tunel\"",
            "mode: \"tunel\" is not allowed; did you mean tunnel? allowed: tunnel, transport, pass, drop",
        ),
        (
            "dpd_action = \"reboot\"",
            "dpd_action: \"reboot\" is not allowed; allowed: clear, trap, restart",
        ),
        (
            "close_action = \"strat\"",
            "close_action: \"strat\" is not allowed; did you mean start? allowed: none, trap, start",
        ),
        (
            "replay_window = 8193",
            "replay_window: \"8193\" is not allowed; allowed: 0 to 8192",
        ),
        (
            "life_bytes = \"1T\"",
            "life_bytes: \"1T\" is not a number of bytes; allowed: bytes, or a number with K, M or G, as in \"500M\"",
        ),
        (
            "life_time = \"1h\"",
            "life_time: must be more than rekey_time, which is 3600",
        ),
        (
            "rand_time = \"2h\"",
            "rand_time: must be at most rekey_time, which is 3600",
        ),
        (
            "copy_dscp = \"both\"",
            "copy_dscp: \"both\" is not allowed; allowed: out, in, yes, no",
        ),
        (
            "per_cpu_sas = \"encap\"",
            "per_cpu_sas: \"encap\" is not supported yet; allowed: yes, no",
        ),
        (
            "per_cpu_sas = 4",
            "per_cpu_sas: \"4\" is not allowed; allowed: yes, no",
        ),
        (
            "copy_df = \"set\"",
            "copy_df: \"set\" is not a boolean; allowed: true, false, \"yes\", \"no\"",
        ),
    ] {
        assert_eq!(
            mistakes(&child_with(line)),
            [format!(
                "gw.toml:12: connections.site-b.children.lan.{message}"
            )]
        );
    }
}

#[test]
fn a_wrong_value_of_the_daemon_says_what_is_allowed() {
    for (line, message) in [
        (
            "tun = \"much too long a name\"",
            "tun: \"much too long a name\" is not a device name; allowed: 1 to 15 characters without blanks, / and :",
        ),
        (
            "tun_mtu = 100",
            "tun_mtu: \"100\" is not allowed; allowed: 576 to 65535",
        ),
        (
            "workers = 0",
            "workers: \"0\" is not allowed; allowed: 1 to 256",
        ),
        (
            "vici_socket = \"\"",
            "vici_socket: is not a path for a socket; allowed: 1 to 107 bytes",
        ),
        (
            "vici_socket_mode = \"888\"",
            "vici_socket_mode: \"888\" is not a mode; allowed: octal as for chmod, from \"600\" to \"777\"",
        ),
        (
            "vici_socket_mode = 0o660",
            "vici_socket_mode: expected a string, found an integer",
        ),
        (
            "port = 0",
            "port: \"0\" is not allowed; allowed: 1 to 65535",
        ),
        (
            "port_nat_t = 500",
            "port_nat_t: must differ from port, which is 500",
        ),
        (
            "guard = \"nft\"",
            "guard: \"nft\" is not allowed; allowed: xfrm, off",
        ),
        (
            "log = \"verbose\"",
            "log: \"verbose\" is not allowed; allowed: off, error, warn, info, debug, trace",
        ),
        (
            "log_format = \"jsn\"",
            "log_format: \"jsn\" is not allowed; did you mean json? allowed: text, json",
        ),
        (
            "routing_table = 254",
            "routing_table: 254 is a table of the kernel; allowed: any other number",
        ),
        (
            "fwmark = 0",
            "fwmark: \"0\" is not allowed; allowed: 1 to 4294967295",
        ),
        (
            "fwmark = 0x2000001",
            "fwmark: bit 0x2000000 is for packets from the tunnel device; allowed: a mark without it",
        ),
        (
            "udp_gso = \"maybe\"",
            "udp_gso: \"maybe\" is not a boolean; allowed: true, false, \"yes\", \"no\"",
        ),
        (
            "spin = 5",
            "spin: \"5\" is not allowed; allowed: 0, or up to 1 ms as in \"50us\" or \"1ms\"",
        ),
        (
            "spin = \"2ms\"",
            "spin: \"2ms\" is not allowed; allowed: 0, or up to 1 ms as in \"50us\" or \"1ms\"",
        ),
        (
            "tun_queue_len = 0",
            "tun_queue_len: \"0\" is not allowed; allowed: 1 to 65536",
        ),
        (
            "socket_buffer = \"4K\"",
            "socket_buffer: \"4K\" is not allowed; allowed: \"64K\" to \"1G\"",
        ),
        (
            "socket_buffer = \"8G\"",
            "socket_buffer: \"8G\" is not allowed; allowed: \"64K\" to \"1G\"",
        ),
        (
            "metrics = 9750",
            "metrics: \"9750\" is not an address with a port; allowed: as in \"127.0.0.1:9750\" or \"[::1]:9750\"",
        ),
        (
            "metrics = \"127.0.0.1:0\"",
            "metrics: \"127.0.0.1:0\" is not an address with a port; allowed: as in \"127.0.0.1:9750\" or \"[::1]:9750\"",
        ),
    ] {
        assert_eq!(
            mistakes(&format!("[daemon]\n{line}\n")),
            [format!("gw.toml:2: daemon.{message}")]
        );
    }
}

#[test]
fn addresses_are_addresses() {
    let with = |value: &str| SITE_A.replace("\"198.51.100.1\"", value);
    for (value, message) in [
        (
            "\"gw.example\"",
            "\"gw.example\" is a host name; names are not supported yet, give its addresses",
        ),
        (
            "\"198.51.100\"",
            "\"198.51.100\" is not an address; allowed: addresses, prefixes (192.0.2.0/24), ranges (192.0.2.1-192.0.2.9), %any",
        ),
        (
            "\"192.0.2.9-192.0.2.1\"",
            "\"192.0.2.9-192.0.2.1\" is not an address; allowed: addresses, prefixes (192.0.2.0/24), ranges (192.0.2.1-192.0.2.9), %any",
        ),
    ] {
        assert_eq!(
            mistakes(&with(value)).first().map(String::as_str),
            Some(format!("gw.toml:5: connections.site-b.remote_addrs: {message}").as_str())
        );
    }
}

#[test]
fn a_wrong_item_of_a_list_is_found_on_its_own_line() {
    let text = SITE_A.replace(
        "[\"10.2.0.0/24\"]",
        "[\n  \"10.2.0.0/24\",\n  \"10.2.0.0/33\",\n  7.5,\n]",
    );
    let found = mistakes(&text);
    assert_eq!(found.len(), 2, "{found:?}");
    assert!(
        found[0].starts_with("gw.toml:15: connections.site-b.children.lan.remote_ts: "),
        "{found:?}"
    );
    assert_eq!(
        found[1],
        "gw.toml:16: connections.site-b.children.lan.remote_ts: expected a list of strings, found a fraction in it"
    );
}

#[test]
fn other_versions_of_ike_are_refused() {
    for version in ["0", "1"] {
        assert_eq!(
            mistakes(&SITE_A.replace("version = 2", &format!("version = {version}"))),
            ["gw.toml:3: connections.site-b.version: IKEv1 is not supported yet; allowed: 2"]
        );
    }
    assert_eq!(
        mistakes(&SITE_A.replace("version = 2", "version = 3")),
        ["gw.toml:3: connections.site-b.version: \"3\" is not allowed; allowed: 0 to 2"]
    );
}

#[test]
fn identities_that_we_cannot_read_are_refused() {
    let text = SITE_A.replace("id = \"gw-a.example\"", "id = \"C=CH, CN\"");
    assert_eq!(
        mistakes(&text),
        [
            "gw.toml:8: connections.site-b.local.id: bad identity \"C=CH, CN\": not a distinguished name, which is written as in C=CH, O=Example, CN=gw"
        ]
    );
}

#[test]
fn a_secret_is_one_string_that_decodes_to_something() {
    for (line, message) in [
        ("secret = \"\"", "ike.secret: is empty"),
        (
            "secret = \"0xabc\"",
            "ike.secret: 0x must be followed by pairs of hexadecimal digits",
        ),
        (
            "secret = \"0s!\"",
            "ike.secret: 0s must be followed by base64",
        ),
        (
            "secret = 7",
            "ike.secret: expected a string, found an integer",
        ),
        (
            "secret_file = \"no/such/file\"",
            "ike.secret_file: cannot read no/such/file: No such file or directory (os error 2)",
        ),
        (
            "secret_file = \"/dev/zero\"",
            "ike.secret_file: /dev/zero is not a file of at most 65536 bytes",
        ),
    ] {
        assert_eq!(
            mistakes(&format!("[secrets.ike]\n{line}\n")),
            [format!("gw.toml:2: secrets.{message}")]
        );
    }
    assert_eq!(
        mistakes("[secrets.ike]\nid = \"x\"\n"),
        ["gw.toml:1: secrets.ike: has neither secret nor secret_file"]
    );
    assert_eq!(
        mistakes("[secrets.ike]\nsecret = \"x\"\nsecret_file = \"y\"\n"),
        ["gw.toml:3: secrets.ike.secret_file: cannot stand beside secret; use one of them"]
    );
}

#[test]
fn names_have_no_control_characters() {
    assert_eq!(
        mistakes("[secrets.\"ike\\u001b[31m\"]\nsecret = \"x\"\n"),
        [
            "gw.toml:1: secrets.\"ike\\u{1b}[31m\": bad name \"ike\\u{1b}[31m\"; allowed: 1 to 128 bytes without control characters"
        ]
    );
}

#[test]
fn every_mistake_is_reported_in_the_order_of_the_file() {
    let found =
        mistakes("[secrets.ike]\nsecret = \"\"\n[daemon]\nworkers = 0\nprot = 1\n[connection]\n");
    let places: Vec<&str> = found
        .iter()
        .filter_map(|line| line.split(": ").nth(1))
        .collect();
    assert_eq!(
        places,
        [
            "secrets.ike.secret",
            "daemon.workers",
            "daemon.prot",
            "connection"
        ]
    );
}

#[test]
fn what_is_not_toml_is_reported_with_its_line() {
    assert_eq!(
        mistakes("[daemon]\ntun = \n"),
        ["gw.toml:2: string values must be quoted, expected literal string"]
    );
    assert_eq!(
        mistakes("[daemon]\ntun = \"a\"\ntun = \"b\"\n"),
        ["gw.toml:3: duplicate key tun"]
    );
    let children = "[connections.b.children.lan]\n[connections.b.children.lan]\n";
    assert_eq!(mistakes(children), ["gw.toml:2: duplicate key lan"]);
}

#[test]
fn a_file_that_cannot_be_read_is_named() {
    let error = Config::load(Path::new("/no/such/gw.toml")).expect_err("there is no such file");
    assert_eq!(
        error.to_string(),
        "/no/such/gw.toml: cannot be read: No such file or directory (os error 2)"
    );
}

#[test]
fn metrics_for_everybody_earn_a_warning_and_metrics_for_this_machine_do_not() {
    for address in ["127.0.0.1:9750", "[::1]:9750", "127.9.9.9:80"] {
        let text = format!("[daemon]\nmetrics = \"{address}\"\n");
        assert_eq!(warnings(&text), [""; 0]);
    }
    for address in ["0.0.0.0:9750", "192.0.2.1:9750", "[::]:9750"] {
        let text = warnings(&format!("[daemon]\nmetrics = \"{address}\"\n"));
        assert_eq!(text.len(), 1);
        assert!(
            text[0].starts_with(&format!(
                "gw.toml:2: daemon.metrics: {address} is not a loopback"
            )),
            "{text:?}"
        );
    }
}

#[test]
fn an_offload_that_needs_another_one_earns_a_warning_without_it() {
    let text = "[daemon]\ntun_tso = false\ntun_uso = true\n";
    assert_eq!(
        warnings(text),
        ["gw.toml:3: daemon.tun_uso: has no effect without tun_tso"]
    );
}

#[test]
fn a_pool_that_is_not_there_or_has_no_addresses_is_a_mistake() {
    for (pools, message) in [
        (
            "[pools.b]\naddrs = \"10.3.0.0/24\"\n",
            "gw.toml:4: connections.site-b.pools: \"a\" is no pool; did you mean b? allowed: b",
        ),
        (
            "[pools.a]\naddrs = \"10.3.0.9-10.3.0.1\"\n",
            "gw.toml:22: pools.a.addrs: \"10.3.0.9-10.3.0.1\" is neither a prefix (10.3.0.0/24) nor a \
             range (10.3.0.10-10.3.0.99)",
        ),
        (
            "[pools.a]\n",
            "gw.toml:21: pools.a.addrs: missing; needed: a prefix or a range of addresses",
        ),
    ] {
        let text = format!("{}{pools}", connection_with("pools = [\"a\"]"));
        let found = mistakes(&text);
        assert!(found.contains(&message.to_owned()), "{found:?}");
    }
}
