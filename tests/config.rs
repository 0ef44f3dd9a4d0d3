//! The configuration file: what it means, and what is said about each kind of mistake.

#[path = "config/algorithms.rs"]
mod algorithms;
#[path = "config/credentials.rs"]
mod credentials;
#[path = "config/fit.rs"]
mod fit;
#[path = "config/mistakes.rs"]
mod mistakes;
#[path = "support/pki.rs"]
mod pki;
#[path = "config/properties.rs"]
mod properties;
#[path = "config/secrets.rs"]
mod secrets;

use lockgate::{
    config::{Config, Guard, LogFormat},
    ike::{
        AddressPattern, ChildMode, Childless, CloseAction, Connection, DpdAction, Fragmentation,
        Identity, IdentityPattern, SelectorConfig, StartAction, Unique,
    },
    ipsec::{CopyDscp, DfRule},
    wire::{keyword::proposal_text, proposal::Transform},
};
use std::{path::Path, time::Duration};

/// The example of the design: every line a default for what it leaves out.
const SITE_A: &str = r#"
[connections.site-b]
version = 2
local_addrs = ["192.0.2.1"]
remote_addrs = ["198.51.100.1"]
proposals = ["aes256gcm16-prfsha384-x25519"]
dpd_delay = "10s"
local = { auth = "psk", id = "gw-a.example" }
remote = { auth = "psk", id = "gw-b.example" }

[connections.site-b.children.lan]
local_ts = ["10.1.0.0/24"]
remote_ts = ["10.2.0.0/24"]
esp_proposals = ["aes256gcm16-x25519"]
start_action = "start"

[secrets.ike-site-b]
id = ["gw-b.example"]
secret = "change me"
"#;

fn parse(text: &str) -> Config {
    Config::parse(text, Path::new("gw.toml")).expect("a good configuration")
}

fn only(config: &Config) -> &Connection {
    config.pad.connections.first().expect("a connection")
}

fn hours(hours: u64) -> Duration {
    Duration::from_secs(hours * 3600)
}

#[test]
fn the_shortest_file_has_the_documented_defaults() {
    let config = parse(
        "[connections.b]\n\
         remote_addrs = \"198.51.100.1\"\n\
         local.auth = \"psk\"\n\
         remote.auth = \"psk\"\n\
         children.net.local_ts = \"10.1.0.0/24\"\n\
         children.net.remote_ts = \"10.2.0.0/24\"\n\
         [secrets.ike]\n\
         secret = \"x\"\n",
    );
    let connection = only(&config);
    assert_eq!(connection.local_addrs, [AddressPattern::Any]);
    assert_eq!((connection.local_port, connection.remote_port), (500, 500));
    assert_eq!(connection.local.id, None);
    assert_eq!(connection.remote.id, IdentityPattern::Any);
    assert!(connection.encap);
    assert_eq!(connection.dpd_delay, Duration::from_secs(30));
    assert_eq!(connection.rekey_time, hours(4));
    assert_eq!(connection.over_time, Duration::from_secs(1440));
    assert_eq!(connection.rand_time, Duration::from_secs(1440));
    assert_eq!(connection.reauth_time, Duration::ZERO);
    assert_eq!(connection.keyingtries, 1);
    assert_eq!(connection.unique, Unique::No);
    assert_eq!(connection.childless, Childless::Allow);

    let addressed = parse(
        "[connections.a]\n\
         local_addrs = \"192.0.2.1\"\n\
         remote_addrs = \"192.0.2.2\"\n\
         local.auth = \"psk\"\n\
         remote.auth = \"psk\"\n\
         children.net = {}\n\
         [secrets.ike]\n\
         secret = \"x\"\n",
    );
    let child = only(&addressed).child("net").expect("a child");
    let dynamic = [SelectorConfig::Dynamic {
        protocol: 0,
        ports: (0, 65535),
    }];
    assert_eq!(
        (&child.local_ts[..], &child.remote_ts[..]),
        (&dynamic[..], &dynamic[..])
    );
    assert_eq!(child.mode, ChildMode::Tunnel);
    assert_eq!(child.start_action, StartAction::None);
    assert_eq!(child.close_action, CloseAction::None);
    assert_eq!(child.dpd_action, DpdAction::Clear);
    assert_eq!(child.rekey_time, hours(1));
    assert_eq!(child.life_time, Duration::from_secs(3960));
    assert_eq!(child.rand_time, Duration::from_secs(360));
    assert_eq!(
        (child.rekey_bytes, child.life_bytes, child.rand_bytes),
        (0, 0, 0)
    );
    assert_eq!(
        (child.rekey_packets, child.life_packets, child.rand_packets),
        (0, 0, 0)
    );
    assert_eq!(child.replay_window, 4096);
    assert_eq!(child.rules.copy_df, DfRule::Copy);
    assert!(child.rules.copy_ecn);
    assert_eq!(child.rules.copy_dscp, CopyDscp::Out);
    assert!(child.per_cpu_sas);
    assert_eq!(child.priority, None);
    assert!(config.warnings.is_empty(), "{:?}", config.warnings);
}

#[test]
fn the_daemon_has_the_documented_defaults() {
    let daemon = parse("").daemon;
    assert_eq!(daemon.tun, "ipsec0");
    assert_eq!(daemon.tun_mtu, 1500);
    assert_eq!(daemon.workers, None);
    assert_eq!(daemon.pin, None);
    assert!(daemon.tun_tso && daemon.tun_uso && daemon.tun_gro);
    assert!(daemon.udp_gso && daemon.udp_gro);
    assert_eq!(daemon.spin, Duration::ZERO);
    assert_eq!(daemon.tun_queue_len.get(), 2000);
    assert_eq!(daemon.socket_buffer, 4 << 20);
    assert_eq!(daemon.metrics, None);
    assert_eq!(daemon.vici_socket, Path::new("/run/lockgate/lockgate.vici"));
    assert_eq!(daemon.vici_socket_mode, 0o600);
    assert_eq!((daemon.port, daemon.port_nat_t), (500, 4500));
    assert_eq!(daemon.guard, Guard::Xfrm);
    assert_eq!((daemon.path_mtu, daemon.fragment_size), (None, 1280));
    assert!(daemon.dos_protection);
    assert_eq!(daemon.state_dir, Path::new("/var/lib/lockgate"));
    assert!(daemon.crash_detection);
    assert_eq!(daemon.log.to_string(), "info");
    assert_eq!(daemon.log_format, LogFormat::Text);
    assert_eq!((daemon.routing_table, daemon.fwmark), (4500, 0x4c47));
}

#[test]
fn every_key_of_the_daemon_is_read() {
    let daemon = parse(
        "[daemon]\ntun = \"tun7\"\ntun_mtu = 1300\nworkers = 3\npin = \"no\"\n\
         vici_socket = \"/tmp/x.vici\"\nvici_socket_mode = \"660\"\nport = 5500\n\
         port_nat_t = 5501\nguard = \"off\"\npath_mtu = 1400\nfragment_size = 576\nlog = \"debug\"\n\
         log_format = \"json\"\nrouting_table = 77\nfwmark = 0x10\nspin = \"50us\"\n\
         dos_protection = \"no\"\ntun_queue_len = 1000\nsocket_buffer = \"1M\"\nmetrics = \"[::1]:9750\"\n\
         state_dir = \"/srv/lockgate\"\ncrash_detection = false\n",
    )
    .daemon;
    assert_eq!((daemon.tun.as_str(), daemon.tun_mtu), ("tun7", 1300));
    assert_eq!(daemon.workers.map(u16::from), Some(3));
    assert_eq!(daemon.pin, Some(false));
    assert_eq!(daemon.vici_socket, Path::new("/tmp/x.vici"));
    assert_eq!(daemon.vici_socket_mode, 0o660);
    assert_eq!((daemon.port, daemon.port_nat_t), (5500, 5501));
    assert_eq!((daemon.guard, daemon.path_mtu), (Guard::Off, Some(1400)));
    assert_eq!(daemon.fragment_size, 576);
    assert!(!daemon.dos_protection);
    assert_eq!(daemon.state_dir, Path::new("/srv/lockgate"));
    assert!(!daemon.crash_detection);
    assert_eq!(daemon.log.to_string(), "debug");
    assert_eq!(daemon.log_format, LogFormat::Json);
    assert_eq!((daemon.routing_table, daemon.fwmark), (77, 16));
    assert_eq!(daemon.spin, Duration::from_micros(50));
    assert_eq!(daemon.tun_queue_len.get(), 1000);
    assert_eq!(daemon.socket_buffer, 1 << 20);
    assert_eq!(
        daemon.metrics,
        Some("[::1]:9750".parse().expect("an address"))
    );
}

#[test]
fn each_offload_has_a_switch_of_its_own() {
    let switches = |config: &Config| {
        let daemon = &config.daemon;
        [
            ("tun_tso", daemon.tun_tso),
            ("tun_uso", daemon.tun_uso),
            ("tun_gro", daemon.tun_gro),
            ("udp_gso", daemon.udp_gso),
            ("udp_gro", daemon.udp_gro),
        ]
    };
    for (key, _) in switches(&parse("")) {
        let config = parse(&format!("[daemon]\n{key} = false\n"));
        for (name, is_on) in switches(&config) {
            assert_eq!(is_on, name != key, "{name} with {key} = false");
        }
        assert!(config.warnings.is_empty(), "{:?}", config.warnings);
    }
}

#[test]
fn the_time_to_spin_has_units_of_its_own_and_zero_is_off() {
    for (text, micros) in [
        ("0", 0),
        ("\"0s\"", 0),
        ("\"0us\"", 0),
        ("\"20us\"", 20),
        ("\"1000 us\"", 1000),
        ("\"1ms\"", 1000),
    ] {
        let daemon = parse(&format!("[daemon]\nspin = {text}\n")).daemon;
        assert_eq!(daemon.spin, Duration::from_micros(micros), "{text}");
    }
}

#[test]
fn every_key_of_a_connection_is_read() {
    let config = parse(
        r#"
        [connections.b]
        version = "2"
        local_addrs = "192.0.2.1, 192.0.2.8/29"
        remote_addrs = ["198.51.100.1", "2001:db8::1-2001:db8::9", "%any"]
        local_port = 4500
        remote_port = "4500"
        proposals = ["aes128-sha256-modp2048", "default"]
        encap = "no"
        mobike = false
        fragmentation = "no"
        dpd_delay = 5
        unique = "replace"
        childless = "prefer"
        follow_redirects = true
        resumption = true
        redirect = "gw.example"
        keyingtries = 0
        rekey_time = "2h"
        reauth_time = "1d"
        over_time = "10m"
        rand_time = "5 m"
        local-1 = { auth = "psk", id = "a@b.example" }
        remote-1 = { auth = "psk", id = "*.example" }
        children.lan = { start_action = "trap" }
        [secrets.ike]
        secret = "x"
        "#,
    );
    let connection = only(&config);
    let net = |text: &str| AddressPattern::Net(text.parse().expect("a prefix"));
    assert_eq!(
        connection.local_addrs,
        [net("192.0.2.1/32"), net("192.0.2.8/29")]
    );
    let range = ["2001:db8::1", "2001:db8::9"].map(|addr| addr.parse().expect("an address"));
    assert_eq!(
        connection.remote_addrs,
        [
            net("198.51.100.1/32"),
            AddressPattern::Range(range[0], range[1]),
            AddressPattern::Any
        ]
    );
    assert_eq!(connection.fragmentation, Fragmentation::No);
    assert!(!connection.mobike);
    assert_eq!(
        (connection.local_port, connection.remote_port),
        (4500, 4500)
    );
    assert_eq!(
        proposal_text(&connection.proposals[0]),
        "aes128-sha256-prfsha256-modp2048"
    );
    assert!(connection.proposals.len() > 1);
    assert!(!connection.encap);
    assert_eq!(connection.dpd_delay, Duration::from_secs(5));
    assert_eq!(connection.unique, Unique::Replace);
    assert_eq!(connection.childless, Childless::Prefer);
    assert!(connection.follow_redirects);
    assert!(connection.resumption);
    assert_eq!(connection.redirect, "gw.example".parse().ok());
    assert_eq!(connection.keyingtries, 0);
    assert_eq!(
        (connection.rekey_time, connection.reauth_time),
        (hours(2), hours(24))
    );
    assert_eq!(connection.over_time, Duration::from_secs(600));
    assert_eq!(connection.rand_time, Duration::from_secs(300));
    assert_eq!(
        connection.local.id,
        Some(Identity::Email("a@b.example".into()))
    );
    assert_eq!(
        connection.remote.id,
        "*.example".parse().expect("a pattern")
    );
}

#[test]
fn every_key_of_a_child_is_read() {
    let config = parse(
        r#"
        [connections.b]
        remote_addrs = "198.51.100.1"
        local.auth = "psk"
        remote.auth = "psk"
        [connections.b.children.web]
        local_ts = "10.1.0.0/24[tcp/80], 10.1.1.0/24"
        remote_ts = ["10.2.0.1-10.2.0.9", "dynamic[udp/53]"]
        esp_proposals = ["aes128gcm16-noesn", "aes128-sha256"]
        mode = "tunnel"
        start_action = "trap|start"
        close_action = "restart"
        inactivity = "10m"
        dpd_action = "restart"
        rekey_time = "30m"
        life_time = "1h"
        rand_time = 60
        rekey_bytes = "500M"
        life_bytes = "1G"
        rand_bytes = "10k"
        rekey_packets = 1000
        life_packets = "2000"
        rand_packets = 10
        replay_window = 8192
        copy_df = false
        copy_ecn = "no"
        copy_dscp = true
        per_cpu_sas = "no"
        priority = 7
        ipcomp = "no"
        [secrets.ike]
        secret = "x"
        "#,
    );
    let child = only(&config).child("web").expect("a child").clone();
    let shown: Vec<String> = child.local_ts.iter().map(shown).collect();
    assert_eq!(shown, ["10.1.0.0/24[tcp/80]", "10.1.1.0/24"]);
    assert_eq!(child.remote_ts.len(), 2);
    assert_eq!(
        child.remote_ts[1],
        SelectorConfig::Dynamic {
            protocol: 17,
            ports: (53, 53)
        }
    );
    let esn = |index: usize| -> Vec<bool> {
        let transforms = child.esp_proposals[index].transforms.iter();
        transforms
            .filter_map(|transform| match transform {
                Transform::SequenceNumbers { extended } => Some(*extended),
                _ => None,
            })
            .collect()
    };
    assert_eq!((esn(0), esn(1)), (vec![false], vec![true, false]));
    assert_eq!(child.start_action, StartAction::TrapStart);
    assert_eq!(
        (child.close_action, child.dpd_action),
        (CloseAction::Start, DpdAction::Restart)
    );
    assert_eq!(child.inactivity, Duration::from_secs(600));
    assert_eq!(child.rekey_time, Duration::from_secs(1800));
    assert_eq!(
        (child.life_time, child.rand_time),
        (hours(1), Duration::from_secs(60))
    );
    assert_eq!((child.rekey_bytes, child.life_bytes), (500 << 20, 1 << 30));
    assert_eq!(child.rand_bytes, 10 << 10);
    assert_eq!(
        (child.rekey_packets, child.life_packets, child.rand_packets),
        (1000, 2000, 10)
    );
    assert_eq!(child.replay_window, 8192);
    assert_eq!(child.rules.copy_df, DfRule::Clear);
    assert!(!child.rules.copy_ecn);
    assert_eq!(child.rules.copy_dscp, CopyDscp::Yes);
    assert!(!child.per_cpu_sas);
    assert_eq!(child.priority, Some(7));
}

fn shown(selector: &SelectorConfig) -> String {
    match selector {
        SelectorConfig::Fixed(selector) => selector.to_string(),
        SelectorConfig::Dynamic { .. } => "dynamic".to_owned(),
    }
}

#[test]
fn the_example_of_the_design_is_good() {
    let config = parse(SITE_A);
    let connection = only(&config);
    assert_eq!(connection.remote_host(), "198.51.100.1:500".parse().ok());
    assert_eq!(
        proposal_text(&connection.proposals[0]),
        "aes256gcm16-prfsha384-x25519"
    );
    let local = connection.local.id.as_ref().expect("an identity");
    let remote = connection.remote.id.exact();
    let secret = config.pad.secret(local, remote).expect("a secret");
    assert_eq!(secret.secret.secret().as_bytes(), b"change me");
    assert!(config.warnings.is_empty(), "{:?}", config.warnings);
}

#[test]
fn a_post_quantum_preshared_key_is_found_by_what_it_is_called() {
    let ppk = "[secrets.ppk-b]\nid = [\"quantum.example\", \"@#0aff\"]\nsecret = \"0x0102\"\n";
    let named = |id: &str| {
        let text = format!("version = 2\nppk_id = \"{id}\"\nppk_required = true");
        format!("{}\n{ppk}", SITE_A.replacen("version = 2", &text, 1))
    };
    for (id, bytes) in [
        ("quantum.example", b"quantum.example".as_slice()),
        ("@#0aff", &[10, 255]),
    ] {
        let config = Config::parse(&named(id), Path::new("gw.toml")).expect("a good configuration");
        let connection = &config.pad.connections[0];
        assert!(connection.ppk_required);
        let id = connection.ppk_id.as_ref().expect("it is named");
        assert_eq!(id.0, bytes);
        assert_eq!(
            config.pad.ppk(id).expect("it is there").secret.as_bytes(),
            [1, 2]
        );
    }
    let unknown = Config::parse(&named("other"), Path::new("gw.toml")).unwrap_err();
    assert!(
        unknown
            .to_string()
            .contains("site-b.ppk_id: no table secrets.ppk"),
        "{unknown}"
    );
    let nameless = ppk.replace("id = [\"quantum.example\", \"@#0aff\"]\n", "");
    let nameless = Config::parse(&nameless, Path::new("gw.toml")).unwrap_err();
    assert!(
        nameless.to_string().contains("secrets.ppk-b: has no id"),
        "{nameless}"
    );
}

#[test]
fn reqids_are_unique_and_follow_from_the_names_alone() {
    let connection = |name: &str| {
        format!(
            "[connections.{name}]\nlocal_addrs = \"192.0.2.1\"\nremote_addrs = \"192.0.2.2\"\n\
             local.auth = \"psk\"\nremote.auth = \"psk\"\n\
             children.one = {{}}\nchildren.two = {{}}\n"
        )
    };
    let secret = "[secrets.ike]\nsecret = \"x\"\n";
    let alone = parse(&format!("{}{secret}", connection("b")));
    let among = parse(&format!(
        "{}{}{}{secret}",
        connection("a"),
        connection("b"),
        connection("c")
    ));
    let reqid = |config: &Config, name: &str, child: &str| {
        let connection = config.pad.connection(name).expect("a connection");
        connection.child(child).expect("a child").reqid
    };
    for child in ["one", "two"] {
        assert_eq!(reqid(&alone, "b", child), reqid(&among, "b", child));
    }
    let all: std::collections::HashSet<u32> = ["a", "b", "c"]
        .iter()
        .flat_map(|name| ["one", "two"].map(|child| reqid(&among, name, child).0))
        .collect();
    assert_eq!(all.len(), 6);
    assert!(!all.contains(&0));
}

#[test]
fn a_reload_knows_what_it_changes() {
    let old = parse(SITE_A);
    assert!(old.changes(&parse(SITE_A)).is_empty());

    let changed = SITE_A
        .replace("10.2.0.0/24", "10.3.0.0/24")
        .replace("change me", "changed");
    let changes = old.changes(&parse(&format!("[daemon]\nlog = \"debug\"\n{changed}")));
    assert_eq!(changes.daemon, ["log"]);
    assert_eq!(changes.changed, ["site-b"]);
    assert!(changes.added.is_empty() && changes.removed.is_empty() && changes.secrets);

    let renamed = old.changes(&parse(
        &SITE_A.replace("connections.site-b", "connections.site-c"),
    ));
    assert_eq!(
        (renamed.added, renamed.removed),
        (vec!["site-c".to_owned()], vec!["site-b".to_owned()])
    );
    assert!(renamed.changed.is_empty() && !renamed.secrets);
}

#[test]
fn connections_keep_the_order_of_the_file() {
    let connection = |name: &str| {
        format!(
            "[connections.{name}]\nlocal_addrs = \"192.0.2.1\"\nremote_addrs = \"192.0.2.2\"\n\
             local.auth = \"psk\"\nremote.auth = \"psk\"\nchildren.x = {{}}\n"
        )
    };
    let text: String = ["z", "a", "m"]
        .iter()
        .map(|name| connection(name))
        .collect();
    let config = parse(&format!("{text}[secrets.ike]\nsecret = \"x\"\n"));
    let names: Vec<&str> = config
        .pad
        .connections
        .iter()
        .map(|it| it.name.as_str())
        .collect();
    assert_eq!(names, ["z", "a", "m"]);
}

/// The TOML blocks of a Markdown text.
fn examples(text: &str) -> impl Iterator<Item = &str> {
    let blocks = text.split("```toml\n").skip(1);
    blocks.filter_map(|block| block.split("```").next())
}

#[test]
fn the_examples_of_the_documentation_are_good() {
    let texts = [
        include_str!("../README.md"),
        include_str!("../docs/configuration.md"),
    ];
    let examples: Vec<&str> = texts.iter().flat_map(|text| examples(text)).collect();
    assert_eq!(examples.len(), 4);
    for example in examples {
        let config = parse(&example.replace("secret_file = \"site-b.psk\"", "secret = \"x\""));
        assert!(config.warnings.is_empty(), "{:?}", config.warnings);
    }
}

#[test]
fn a_connection_has_the_pools_and_the_addresses_that_it_names() {
    let text = SITE_A.replacen(
        "version = 2",
        "vips = [\"0.0.0.0\", \"::\"]\npools = [\"b\"]",
        1,
    );
    let pools = "[pools.a]\naddrs = \"10.4.0.10-10.4.0.19\"\n\
                 [pools.b]\naddrs = \"10.3.0.0/24\"\ndns = \"10.1.0.53\"\nsubnet = \"10.1.0.0/16\"\n";
    let config = parse(&format!("{text}{pools}"));
    let connection = only(&config);
    let pools: Vec<_> = connection.pools.iter().collect();
    assert_eq!(pools.len(), 1);
    let (first, last) = (pools[0].first.to_string(), pools[0].last.to_string());
    assert_eq!((&*first, &*last), ("10.3.0.1", "10.3.0.254"));
    assert_eq!(
        (pools[0].size(), pools[0].dns.len(), pools[0].subnets.len()),
        (254, 1, 1)
    );
    assert_eq!(connection.vips.len(), 2);
}
