//! No text whatsoever makes the reader panic.

use super::{
    SITE_A,
    mistakes::{child_with, connection_with},
};
use lockgate::config::Config;
use proptest::prelude::*;
use std::path::Path;

/// Pieces from which most wrong files can be put together.
fn fragment() -> impl Strategy<Value = String> {
    let keys = prop::sample::select(vec![
        "version",
        "local_addrs",
        "remote_addrs",
        "local_port",
        "proposals",
        "encap",
        "dpd_delay",
        "rekey_time",
        "rand_time",
        "over_time",
        "local",
        "remote",
        "children",
        "local_ts",
        "esp_proposals",
        "mode",
        "start_action",
        "rekey_bytes",
        "replay_window",
        "priority",
        "secret",
        "id",
        "tun",
        "workers",
        "fwmark",
        "vici_socket_mode",
        "mobike",
        "bogus",
    ]);
    let values = prop::sample::select(vec![
        "true",
        "-1",
        "0",
        "18446744073709551616",
        "9223372036854775807",
        "1.5",
        "\"\"",
        "\"4h\"",
        "\"18446744073709551615d\"",
        "\"é\"",
        "\"0x\"",
        "\"dynamic[\"",
        "\"10.0.0.0/8[tcp/1-]\"",
        "\"aes256gcm16-x25519\"",
        "\"-\"",
        "[]",
        "[[]]",
        "[\"a,b\", 1]",
        "{}",
        "{ auth = \"psk\" }",
        "{ auth = \"psk\", id = \"*@#\" }",
        "1979-05-27",
        "\"a-b\"",
        "\"1-\"",
        "\"%any\"",
        "nan",
    ]);
    let tables = prop::sample::select(vec![
        "[daemon]",
        "[connections.a]",
        "[connections.a.children.b]",
        "[secrets.ike]",
        "[connections]",
        "[connections.é]",
        "[connections.a.local]",
        "[[connections.a.children]]",
        "[secrets]",
    ]);
    let line = (keys, values).prop_map(|(key, value)| format!("{key} = {value}\n"));
    prop_oneof![4 => line, 2 => tables.prop_map(|table| format!("{table}\n")), 1 => ".{0,12}"]
}

proptest! {
    #[test]
    fn no_file_made_of_likely_pieces_panics(pieces in prop::collection::vec(fragment(), 0..40)) {
        let _ = Config::parse(&pieces.concat(), Path::new("gw.toml"));
    }

    #[test]
    fn no_text_panics(text in "\\PC{0,200}") {
        let _ = Config::parse(&text, Path::new("gw.toml"));
    }

    #[test]
    fn any_value_of_a_key_is_accepted_or_refused(value in "[ -~é]{0,24}") {
        let value = format!("{value:?}");
        for key in ["remote_addrs", "proposals", "rekey_time", "unique", "local_port", "encap"] {
            let _ = Config::parse(&connection_with(&format!("{key} = {value}")), Path::new("gw.toml"));
        }
        for key in ["esp_proposals", "rekey_bytes", "start_action", "mode", "rand_time"] {
            let _ = Config::parse(&child_with(&format!("{key} = {value}")), Path::new("gw.toml"));
        }
        let _ = Config::parse(&SITE_A.replace("[\"10.2.0.0/24\"]", &value), Path::new("gw.toml"));
        let _ = Config::parse(&SITE_A.replace("\"gw-a.example\"", &value), Path::new("gw.toml"));
    }
}
