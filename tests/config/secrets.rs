//! `[secrets]`.

use std::{fs, os::unix::fs::PermissionsExt};

use lockgate::config::Config;

use super::{SITE_A, parse};

#[test]
fn secrets_are_text_hexadecimal_or_base64_and_text_keeps_its_blanks() {
    let config = parse(
        "[secrets]\nike-a.secret = \" spaced \"\nike-b.secret = \"0x00fFa0\"\n\
         ike-c.secret = \"0sAQID\"\nike-d.secret = \"0sAQ==\"\nike-e.secret = \"0sAQ\"\n",
    );
    let secrets: Vec<&[u8]> = config
        .pad
        .secrets
        .iter()
        .map(|secret| secret.secret.secret().as_bytes())
        .collect();
    let expected: [&[u8]; 5] = [b" spaced ", &[0, 255, 160], &[1, 2, 3], &[1], &[1]];
    assert_eq!(secrets, expected);
}

#[test]
fn secrets_do_not_show_in_debug_output() {
    let shown = format!("{:?}", parse(SITE_A));
    assert!(!shown.contains("change me"), "{shown}");
}

#[test]
fn a_secret_file_is_found_beside_the_configuration_and_loses_its_newline() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("gw.toml");
    let text = SITE_A.replace("secret = \"change me\"", "secret_file = \"psk\"");
    fs::write(&file, text).expect("written");
    let psk = folder.path().join("psk");
    for (content, secret) in [
        ("swordfish\n", "swordfish"),
        (" two\nlines\r\n", " two\nlines"),
    ] {
        fs::write(&psk, content).expect("written");
        fs::set_permissions(&psk, fs::Permissions::from_mode(0o600)).expect("set");
        let config = Config::load(&file).expect("a good configuration");
        assert_eq!(
            config.pad.secrets[0].secret.secret().as_bytes(),
            secret.as_bytes()
        );
        assert!(config.warnings.is_empty(), "{:?}", config.warnings);
    }
}

#[test]
fn secrets_that_everybody_can_read_earn_a_warning() {
    let folder = tempfile::tempdir().expect("a folder");
    let (file, psk) = (folder.path().join("gw.toml"), folder.path().join("psk"));
    fs::write(&psk, "swordfish").expect("written");
    let from_file = SITE_A.replace("secret = \"change me\"", "secret_file = \"psk\"");
    for (text, mode, warning) in [
        (
            SITE_A,
            0o644,
            "secrets.ike-site-b.secret: stands in a file that can be read by everybody; chmod 600 it",
        ),
        (SITE_A, 0o640, ""),
        (
            &from_file,
            0o644,
            "psk can be read by everybody; chmod 600 it",
        ),
    ] {
        fs::write(&file, text).expect("written");
        for path in [&file, &psk] {
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("set");
        }
        let config = Config::load(&file).expect("a good configuration");
        let warnings: Vec<String> = config.warnings.iter().map(ToString::to_string).collect();
        assert_eq!(
            warnings.len(),
            usize::from(!warning.is_empty()),
            "{warnings:?}"
        );
        assert!(
            warnings.iter().all(|text| text.ends_with(warning)),
            "{warnings:?}"
        );
    }
}
