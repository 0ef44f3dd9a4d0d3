//! `lockgate check`.

use std::{fs, path::Path};

use crate::{Outcome, lockgate};

const GOOD: &str = r#"
[connections.site-b]
remote_addrs = ["198.51.100.1"]
local = { auth = "psk", id = "gw-a.example" }
remote = { auth = "psk", id = "gw-b.example" }
[connections.site-b.children.lan]
local_ts = ["10.1.0.0/24"]
remote_ts = ["10.2.0.0/24"]
esp_proposals = ["aes256gcm16-x25519"]
[connections.site-b.children.printer]
mode = "pass"
local_ts = ["10.1.0.9"]
remote_ts = ["10.2.0.9[tcp/631]"]
[secrets.ike]
secret_file = "psk"
"#;

fn check(folder: &Path, text: &str) -> Outcome {
    let file = folder.join("gw.toml");
    fs::write(&file, text).expect("written");
    lockgate(&["check", file.to_str().expect("a path")])
}

#[test]
fn check_sums_a_good_file_up() {
    let folder = tempfile::tempdir().expect("a folder");
    fs::write(folder.path().join("psk"), "swordfish\n").expect("written");
    let outcome = check(folder.path(), GOOD);
    assert_eq!(
        outcome.stdout,
        "\
ok: 1 connection, 2 children, 1 secret
site-b: gw-a.example <-> gw-b.example
  lan: protect 10.1.0.0/24 === 10.2.0.0/24
    aes256gcm16-x25519-esn-noesn
  printer: pass 10.1.0.9/32 === 10.2.0.9/32[tcp/631]
"
    );
    assert_eq!(outcome.code, Some(0));
}

#[test]
fn check_prints_every_mistake_and_exits_2() {
    let folder = tempfile::tempdir().expect("a folder");
    let outcome = check(
        folder.path(),
        &GOOD.replace("mode = \"pass\"", "mode = \"past\""),
    );
    let file = folder.path().join("gw.toml").display().to_string();
    let psk = folder.path().join("psk").display().to_string();
    assert_eq!(outcome.stdout, "");
    assert_eq!(
        outcome.stderr,
        format!(
            "{file}:11: connections.site-b.children.printer.mode: \"past\" is not allowed; did you mean pass? allowed: tunnel, transport, pass, drop\n\
             {file}:15: secrets.ike.secret_file: cannot read {psk}: No such file or directory (os error 2)\n\
             lockgate: {file} does not hold a usable configuration\n"
        )
    );
    assert_eq!(outcome.code, Some(2));
}
