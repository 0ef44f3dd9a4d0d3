//! Keys, certificates and authorities in files, and what is said when they do not fit.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use lockgate::config::Config;
use lockgate::ike::{Identity, LocalMethod, Padding, RemoteMethod, Revocation};
use tempfile::TempDir;

use crate::SITE_A;
use crate::mistakes::{connection_with, mistakes};
use crate::pki::{self, Kind};

const SITE: &str = r#"
[connections.b]
remote_addrs = "198.51.100.1"
local = { auth = "rsa/pss-sha256", id = "gw-a.example", certs = "gw.pem" }
remote = { id = "C=CH, O=Example, CN=*", revocation = "strict", cert_policy = "1.2.3" }
children.net = { local_ts = "10.1.0.0/24", remote_ts = "10.2.0.0/24" }

[secrets.private-gw]
file = "gw.key"

[authorities.root]
cacert = "root.pem"
crl_uris = ["http://crl.example/a", "file://root.crl"]
ocsp_uris = "http://ocsp.example"
"#;

/// A folder with a gateway's chain, its key, the root below swanctl's folder, and a list.
fn folder() -> TempDir {
    let folder = TempDir::new().expect("a folder");
    let root = pki::root(Kind::P256, "root");
    let middle = root.intermediate(Kind::P256, "middle");
    let gateway = middle.gateway(Kind::Rsa, "gw-a.example");
    let write = |name: &str, bytes: &[u8]| {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().expect("a parent")).expect("a folder");
        fs::write(&path, bytes).expect("written");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("changed");
    };
    let chain = [gateway.certificate.pem(), middle.certificate.pem()].concat();
    write("gw.pem", chain.as_bytes());
    write("gw.key", gateway.key.serialize_pem().as_bytes());
    write("gw.pub", gateway.key.public_key_pem().as_bytes());
    write("x509ca/root.pem", root.certificate.der());
    write("root.crl", &root.list_der(&[], (2026, 2027)));
    write(
        "other.pem",
        root.gateway(Kind::P256, "gw-a.example")
            .certificate
            .pem()
            .as_bytes(),
    );
    folder
}

fn load(folder: &TempDir, text: &str) -> Result<Config, String> {
    let parsed = Config::parse(text, &folder.path().join("gw.toml"));
    let place = format!("{}/", folder.path().display());
    parsed.map_err(|error| error.to_string().replace(&place, ""))
}

#[test]
fn certificates_keys_and_authorities_are_read_from_files_beside_the_configuration() {
    let config = load(&folder(), SITE).expect("a good configuration");
    let connection = &config.pad.connections[0];
    let LocalMethod::Signature { keys, schemes, .. } = &connection.local.method else {
        panic!("{:?}", connection.local);
    };
    assert_eq!(keys[0].chain.len(), 2);
    assert_eq!(keys[0].key.public(), keys[0].chain[0].key());
    assert_eq!(schemes.padding, Some(Padding::Pss));
    let RemoteMethod::Signature(trust) = &connection.remote.method else {
        panic!("{:?}", connection.remote);
    };
    assert_eq!(trust.revocation, Revocation::Strict);
    assert_eq!(trust.authorities.len(), 1);
    let name: Identity = "CN=gw-z, O=example, C=CH".parse().expect("an identity");
    assert!(connection.remote.id.matches(&name));
    let root = &config.pad.authorities[0];
    assert_eq!(
        (root.crls.len(), root.crl_uris.len(), root.ocsp_uris.len()),
        (1, 1, 1)
    );
}

#[test]
fn raw_keys_need_no_certificates() {
    let text = SITE
        .replace("certs = \"gw.pem\"", "pubkeys = \"gw.pub\"")
        .replace(
            "revocation = \"strict\", cert_policy = \"1.2.3\"",
            "pubkeys = \"gw.pub\"",
        );
    let config = load(&folder(), &text).expect("a good configuration");
    let RemoteMethod::Signature(trust) = &config.pad.connections[0].remote.method else {
        panic!("a signature");
    };
    assert_eq!((trust.keys.len(), trust.authorities.len()), (1, 0));
}

#[test]
fn signatures_with_sha1_need_allow_weak_and_are_only_verified() {
    let asked = SITE.replace("remote = { ", "remote = { auth = \"ike:rsa-sha1\", ");
    let refused = load(&folder(), &asked).expect_err("SHA-1 can be broken");
    let message = "gw.toml:5: connections.b.remote.auth: \"ike:rsa-sha1\": sha1 can be broken; for a peer \
                   that has nothing better, set allow_weak = true in the connection";
    assert!(refused.contains(message), "{refused}");

    let weak = "[connections.b]\nallow_weak = true\n";
    let allowed = asked.replace("[connections.b]\n", weak);
    let config = load(&folder(), &allowed).expect("a good configuration");
    let warnings: Vec<_> = config.warnings.iter().map(ToString::to_string).collect();
    assert!(
        warnings[0].ends_with("remote.auth: \"ike:rsa-sha1\": sha1 can be broken"),
        "{warnings:?}"
    );

    let ours = allowed.replace("rsa/pss-sha256", "rsa-sha1");
    let refused = load(&folder(), &ours).expect_err("nothing signs with it");
    let message = "local.auth: \"rsa-sha1\": SHA-1 is not signed with";
    assert!(refused.contains(message), "{refused}");
}

#[test]
fn what_does_not_fit_is_named() {
    let folder = folder();
    for (from, to, message) in [
        (
            "gw.pem",
            "none.pem",
            "gw.toml:4: connections.b.local.certs: cannot read none.pem",
        ),
        (
            "gw.pem",
            "gw.key",
            "connections.b.local.certs: gw.key: not an X.509 certificate",
        ),
        (
            "gw.pem",
            "other.pem",
            "other.pem: no private key of secrets belongs to it",
        ),
        (
            "gw-a.example",
            "gw-c.example",
            "connections.b.local.id: gw-c.example is neither the subject",
        ),
        (
            "file = \"gw.key\"",
            "file = \"gw.pem\"",
            "secrets.private-gw.file: gw.pem: not a private key",
        ),
        (
            "root.pem",
            "gw.pem",
            "authorities.root.cacert: the certificate of",
        ),
        ("http://crl", "https://crl", "allowed: http:// and file://"),
        (
            "file://root.crl",
            "file://gw.pem",
            "gw.pem: not a certificate revocation list",
        ),
        (
            "\"strict\"",
            "\"strictly\"",
            "did you mean strict? allowed: relaxed, ifuri, strict",
        ),
        ("1.2.3", "one", "is not an object identifier"),
    ] {
        let found = load(&folder, &SITE.replace(from, to)).expect_err(message);
        assert!(found.contains(message), "{found}");
    }
}

#[test]
fn a_key_that_everybody_can_read_earns_a_warning_and_an_encrypted_one_its_passphrase() {
    let folder = folder();
    let key = folder.path().join("gw.key");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).expect("changed");
    let config = load(&folder, SITE).expect("a good configuration");
    assert!(
        config.warnings[0].to_string().contains("chmod 600"),
        "{:?}",
        config.warnings
    );
    let keys = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/keys");
    fs::copy(keys.join("rsa.encrypted.pem"), &key).expect("copied");
    fs::copy(keys.join("rsa.public.pem"), folder.path().join("gw.pub")).expect("copied");
    let raw = SITE.replace("certs = \"gw.pem\"", "pubkeys = \"gw.pub\"");
    let found = load(&folder, &raw).expect_err("no passphrase");
    assert!(
        found.contains("is encrypted; it needs a passphrase"),
        "{found}"
    );
    let opened = raw.replace("\"gw.key\"", "\"gw.key\"\nsecret = \"lockgate\"");
    load(&folder, &opened).expect("a good configuration");
}

/// A configuration whose key is encrypted, with its passphrase in `gw.pass`.
fn encrypted(folder: &TempDir) -> String {
    let keys = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/keys");
    let key = folder.path().join("gw.key");
    fs::copy(keys.join("rsa.encrypted.pem"), &key).expect("copied");
    fs::set_permissions(key, fs::Permissions::from_mode(0o600)).expect("changed");
    fs::copy(keys.join("rsa.public.pem"), folder.path().join("gw.pub")).expect("copied");
    SITE.replace("certs = \"gw.pem\"", "pubkeys = \"gw.pub\"")
        .replace("\"gw.key\"", "\"gw.key\"\nsecret_file = \"gw.pass\"")
}

#[test]
fn an_encrypted_key_opens_with_the_passphrase_in_a_file() {
    let folder = folder();
    let text = encrypted(&folder);
    let file = folder.path().join("gw.pass");
    for passphrase in [
        "lockgate",
        "lockgate\n",
        "lockgate\r\n",
        "0x6c6f636b67617465\n",
    ] {
        fs::write(&file, passphrase).expect("written");
        for (mode, warning) in [
            (0o600, None),
            (
                0o644,
                Some("gw.pass can be read by everybody; chmod 600 it"),
            ),
        ] {
            fs::set_permissions(&file, fs::Permissions::from_mode(mode)).expect("changed");
            let config = load(&folder, &text).expect("a good configuration");
            let LocalMethod::Signature { keys, .. } = &config.pad.connections[0].local.method
            else {
                panic!("a signature");
            };
            assert_eq!(keys.len(), 1);
            let warnings: Vec<_> = config.warnings.iter().map(ToString::to_string).collect();
            assert_eq!(
                warnings.len(),
                usize::from(warning.is_some()),
                "{warnings:?}"
            );
            let expected = warning.unwrap_or_default();
            assert!(
                warnings.iter().all(|text| text.ends_with(expected)),
                "{warnings:?}"
            );
        }
    }
}

#[test]
fn a_passphrase_file_that_does_not_fit_is_named() {
    let folder = folder();
    let text = encrypted(&folder);
    let file = folder.path().join("gw.pass");
    let missing = "secrets.private-gw.secret_file: cannot read gw.pass: No such file";
    let wrong = "secrets.private-gw.file: gw.key: does not open with this passphrase";
    let empty = "secrets.private-gw.secret_file: is empty";
    let long = "secrets.private-gw.secret_file: gw.pass is not a file of at most 65536 bytes";
    let too_long = "a".repeat(65_537);
    for (passphrase, message) in [
        (None, missing),
        (Some("Lockgate\n"), wrong),
        (Some("lockgate \n"), wrong),
        (Some("lockgate\n\n"), wrong),
        (Some("\n"), empty),
        (Some(&too_long), long),
    ] {
        if let Some(passphrase) = passphrase {
            fs::write(&file, passphrase).expect("written");
        }
        let found = load(&folder, &text).expect_err(message);
        assert!(found.contains(message), "{found}");
        // What was not read is not complained of as if it had not been given.
        assert!(!found.contains("needs a passphrase"), "{found}");
    }
    fs::write(&file, "lockgate").expect("written");
    let both = text.replace("secret_file", "secret = \"lockgate\"\nsecret_file");
    let found = load(&folder, &both).expect_err("two passphrases");
    assert!(
        found.contains("secret_file: cannot stand beside secret"),
        "{found}"
    );
}

#[test]
fn a_passphrase_in_a_configuration_that_everybody_can_read_earns_a_warning() {
    let folder = folder();
    let text = encrypted(&folder).replace("secret_file = \"gw.pass\"", "secret = \"lockgate\"");
    let file = folder.path().join("gw.toml");
    fs::write(&file, text).expect("written");
    for (mode, count) in [(0o600, 0), (0o644, 1)] {
        fs::set_permissions(&file, fs::Permissions::from_mode(mode)).expect("changed");
        let config = Config::load(&file).expect("a good configuration");
        let warnings: Vec<_> = config.warnings.iter().map(ToString::to_string).collect();
        assert_eq!(warnings.len(), count, "{warnings:?}");
        let expected = "secrets.private-gw.secret: stands in a file that can be read by everybody; chmod 600 it";
        assert!(
            warnings.iter().all(|text| text.ends_with(expected)),
            "{warnings:?}"
        );
    }
}

#[test]
fn a_reload_tells_that_keys_or_authorities_have_changed() {
    let folder = folder();
    let before = load(&folder, SITE).expect("a good configuration");
    assert!(
        before
            .changes(&load(&folder, SITE).expect("the same"))
            .is_empty()
    );
    let root = pki::root(Kind::P256, "root");
    fs::write(
        folder.path().join("x509ca/root.pem"),
        root.certificate.der(),
    )
    .expect("written");
    let changes = before.changes(&load(&folder, SITE).expect("another authority"));
    assert!(changes.secrets);
    assert_eq!(changes.changed, ["b"]);
}

#[test]
fn a_method_that_we_lack_or_that_lacks_its_keys_says_so() {
    let keys =
        "local: has neither certs nor pubkeys, one of which pubkey needs; or use auth = \"psk\"";
    for (auth, message) in [
        ("auth = \"pubkey\", ", keys),
        ("", keys),
        (
            "auth = \"eap-tls\", ",
            "local.auth: \"eap-tls\" is not supported; allowed: psk, pubkey, rsa, ecdsa, ed25519",
        ),
        (
            "auth = \"psi\", ",
            "local.auth: \"psi\" is not allowed; did you mean psk? allowed: psk, pubkey, rsa, ecdsa, ed25519, \
             with strengths and hashes as in rsa-3072-sha256",
        ),
        (
            "auth = \"rsa-sha3\", ",
            "local.auth: \"rsa-sha3\" is not allowed; allowed: psk, pubkey, rsa, ecdsa, ed25519, \
             with strengths and hashes as in rsa-3072-sha256",
        ),
    ] {
        assert_eq!(
            mistakes(&SITE_A.replace("auth = \"psk\", id = \"gw-a", &format!("{auth}id = \"gw-a"))),
            [format!("gw.toml:8: connections.site-b.{message}")]
        );
    }
    let trust = SITE_A.replace("remote = { auth = \"psk\"", "remote = { auth = \"ecdsa\"");
    assert_eq!(
        mistakes(&trust),
        [
            "gw.toml:9: connections.site-b.remote: nobody is trusted; needed: cacerts, certs or pubkeys here, or a table authorities.…"
        ]
    );
    let text = SITE_A.replace("remote = { auth = \"psk\", id = \"gw-b.example\" }\n", "");
    assert_eq!(
        mistakes(&text),
        [
            "gw.toml:2: connections.site-b.remote: missing; needed: auth = \"psk\", or certificates or public keys"
        ]
    );
    assert_eq!(
        mistakes(&connection_with("local-2 = { auth = \"psk\" }")),
        [
            "gw.toml:9: connections.site-b.local: a second authentication round beside local-2 is not supported yet"
        ]
    );
}
