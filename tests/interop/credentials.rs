//! Certificates, raw public keys and revocation, with either side as initiator.

use std::{
    fs,
    io::{Read, Write},
    net::TcpListener,
    path::Path,
    process::Command,
    thread,
};

use lockgate::io::netns::Namespace;
use rcgen::CertificateParams;

use super::pair::{Initiator, Pair};
use crate::pki::{self, Identity, Kind};
use crate::support::{
    lab::{Family, Lab, Plan, Side},
    process::Process,
    program,
};

/// What each gateway says of itself and of the other, in its own notation.
pub(crate) struct Sides {
    pub(crate) lockgate: [String; 2],
    pub(crate) strongswan: [String; 2],
    /// Further tables of Lockgate's file.
    pub(crate) more: String,
    /// More lines for strongSwan's connection.
    pub(crate) connection: &'static str,
    /// The same for Lockgate's.
    pub(crate) own: &'static str,
}

impl Sides {
    /// Certificates of both, below the authorities that [`certified`] makes.
    pub(crate) fn certified() -> Self {
        Self {
            lockgate: [
                "id = \"gw-a.example\", certs = \"a.pem\"".to_owned(),
                "id = \"gw-b.example\"".to_owned(),
            ],
            strongswan: [
                "auth = pubkey\n certs = b.pem\n id = gw-b.example".to_owned(),
                "auth = pubkey\n id = gw-a.example".to_owned(),
            ],
            more: format!("{KEY}{ROOT}"),
            connection: "",
            own: "",
        }
    }

    /// The same, with a certificate of strongSwan that must be known not to be revoked. The root's
    /// own list is a file.
    pub(crate) fn strict(more: &str) -> Self {
        let mut sides = Self::certified();
        sides.lockgate[1].push_str(", revocation = \"strict\", cacerts = \"root.pem\"");
        let list = "crl_uris = \"file://root.crl\"\n";
        sides.more = format!("{KEY}{ROOT}{list}{more}");
        sides
    }

    pub(crate) fn start(&self, prepare: impl FnOnce(&Lab)) -> Option<Pair> {
        let plan = Plan {
            inner: vec![Family::V4],
            more: self.more.clone(),
            connection: self.own.to_owned(),
            ..Plan::default()
        };
        Pair::prepared(plan, self.connection, prepare, |of, config| match of {
            Initiator::Lockgate => {
                let [local, remote] = &self.lockgate;
                config
                    .replace("auth = \"psk\", id = \"gw-a.example\"", local)
                    .replace("auth = \"psk\", id = \"gw-b.example\"", remote)
            }
            Initiator::StrongSwan => {
                let [local, remote] = &self.strongswan;
                let secret = |id| format!("auth = psk\n            id = {id}\n");
                config
                    .replacen(&secret("gw-b.example"), &format!("{local}\n"), 1)
                    .replacen(&secret("gw-a.example"), &format!("{remote}\n"), 1)
            }
        })
    }

    /// The tunnel comes up from each side and carries traffic; `shown` is in Lockgate's log.
    #[track_caller]
    fn work(&self, prepare: impl Fn(&Lab), shown: &[&str]) {
        for initiator in Initiator::BOTH {
            let Some(pair) = self.start(&prepare) else {
                return;
            };
            pair.initiate(initiator);
            let log = pair.lockgate.process.output();
            for text in shown {
                assert!(log.contains(text), "{initiator:?}: {text}\n{log}");
            }
            pair.carries_traffic();
        }
    }
}

/// The tunnel does not come up from either side, and Lockgate's log has `why`.
#[track_caller]
pub(crate) fn assert_refused(pair: &Pair, why: &str) {
    let refused = ["--initiate", "--child", "net", "--timeout", "30"];
    assert!(!pair.strongswan.swanctl(&refused).status.success());
    let answer = pair
        .lockgate
        .ask("initiate", &[("child", "net"), ("timeout", "20000")]);
    assert_eq!(answer.get("success"), Some("no"));
    let log = pair.lockgate.process.output();
    assert!(log.matches(why).count() >= 2, "{why}\n{log}");
    assert!(pair.lockgate.child_sas().is_empty());
}

/// Keys and certificates of both gateways below one intermediate authority, where both programs
/// look for them: those of gateways A and B, of the intermediate authority and of the root.
pub(crate) fn certified(
    folder: &Path,
    kind: Kind,
    change: impl Fn(CertificateParams) -> CertificateParams,
) -> [Identity; 4] {
    let root = pki::root(kind, "root");
    let middle = root.sign(kind, pki::authority_params("middle", None));
    let gateway = |side: Side| middle.sign(kind, change(pki::gateway_params(side.identity())));
    let (a, b) = (gateway(Side::A), gateway(Side::B));
    let chain = [a.certificate.pem(), middle.certificate.pem()].concat();
    write(folder, "a.pem", chain);
    write(folder, "a.key", a.key.serialize_pem());
    write(folder, "root.pem", root.certificate.pem());
    write(folder, "root.crl", root.list_der(&[], YEARS));
    write(
        folder,
        "swanctl/x509crl/root.crl",
        root.list_der(&[], YEARS),
    );
    write(folder, "middle.pem", middle.certificate.pem());
    write(folder, "middle.key", middle.key.serialize_pem());
    write(folder, "swanctl/x509/b.pem", b.certificate.pem());
    write(
        folder,
        "swanctl/x509ca/middle.pem",
        middle.certificate.pem(),
    );
    write(folder, "swanctl/x509ca/root.pem", root.certificate.pem());
    write(folder, "swanctl/private/b.key", b.key.serialize_pem());
    [a, b, middle, root]
}

pub(crate) fn write(folder: &Path, name: &str, bytes: impl AsRef<[u8]>) {
    let path = folder.join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, bytes).unwrap();
}

fn plain(kind: Kind) -> impl Fn(&Lab) {
    move |lab| {
        certified(lab.folder.path(), kind, |params| params);
    }
}

#[test]
fn rsa_certificates_below_an_intermediate_authority() {
    // Each signs with what it prefers.
    let shown = [
        "with RSA_EMSA_PSS_SHA2_256",
        "with the certificate of C=CH, O=Example, CN=gw-b.example",
    ];
    Sides::certified().work(plain(Kind::Rsa), &shown);
}

#[test]
fn rsa_with_the_padding_and_hash_that_are_asked_for() {
    for (padding, theirs) in [("pss", "ike:rsa/pss"), ("pkcs1", "ike:rsa")] {
        let mut sides = Sides::certified();
        for side in &mut sides.lockgate {
            side.push_str(&format!(", auth = \"ike:rsa/{padding}-sha384\""));
        }
        for side in &mut sides.strongswan {
            *side = side.replace("pubkey", &format!("{theirs}-sha384"));
        }
        let shown = format!("with RSA_EMSA_{}_SHA2_384", padding.to_uppercase());
        sides.work(plain(Kind::Rsa), &[&shown]);
    }
}

#[test]
fn ecdsa_certificates_on_each_curve() {
    for (kind, bits) in [(Kind::P256, 256), (Kind::P384, 384), (Kind::P521, 512)] {
        let shown = format!("with ECDSA_WITH_SHA2_{bits}_DER");
        Sides::certified().work(plain(kind), &[&shown]);
    }
}

#[test]
fn ed25519_certificates_below_an_intermediate_authority() {
    Sides::certified().work(plain(Kind::Ed25519), &["with ED25519"]);
}

#[test]
fn a_peer_that_does_not_know_digital_signatures_gets_and_sends_the_methods_of_old() {
    for kind in [Kind::Rsa, Kind::P256, Kind::P521] {
        let mut sides = Sides::certified();
        // Both strongSwans hash with SHA-1 there, and take nothing else.
        if kind == Kind::Rsa {
            sides.lockgate = [
                "auth = \"psk\", id = \"gw-a.example\"".to_owned(),
                "auth = \"ike:rsa-sha1\", id = \"gw-b.example\"".to_owned(),
            ];
            sides.strongswan[1] = "auth = psk\n id = gw-a.example".to_owned();
            sides.own = "allow_weak = true";
        }
        let prepare = |lab: &Lab| {
            certified(lab.folder.path(), kind, |params| params);
            let settings = "charon-systemd { signature_authentication = no }";
            write(lab.folder.path(), "more.conf", settings);
        };
        let shown = if kind == Kind::Rsa {
            "with a shared"
        } else {
            "with ECDSA "
        };
        sides.work(prepare, &[shown, "authenticated with the certificate"]);
    }
}

#[test]
fn a_secret_one_way_and_a_certificate_the_other() {
    for signer in [Side::A, Side::B] {
        let mut sides = Sides::certified();
        let (ours, theirs) = if signer == Side::A { (1, 0) } else { (0, 1) };
        let id = signer.other().identity();
        sides.lockgate[ours] = format!("auth = \"psk\", id = \"{id}\"");
        sides.strongswan[theirs] = format!("auth = psk\n id = {id}");
        sides.work(
            plain(Kind::P256),
            &["a shared secret", "ECDSA"][..usize::from(signer == Side::A) + 1],
        );
    }
}

#[test]
fn raw_public_keys() {
    for kind in [Kind::Rsa, Kind::P256, Kind::Ed25519] {
        let prepare = |lab: &Lab| {
            let folder = lab.folder.path();
            let [a, b, ..] = certified(folder, kind, |params| params);
            for (name, identity) in [("a", &a), ("b", &b)] {
                let pem = identity.key.public_key_pem();
                write(folder, &format!("{name}.pub"), &pem);
                write(folder, &format!("swanctl/pubkey/{name}.pub"), &pem);
            }
        };
        let sides = Sides {
            lockgate: [
                "id = \"gw-a.example\", pubkeys = \"a.pub\"".to_owned(),
                "id = \"gw-b.example\", pubkeys = \"b.pub\"".to_owned(),
            ],
            strongswan: [
                "auth = pubkey\n pubkeys = b.pub\n id = gw-b.example".to_owned(),
                "auth = pubkey\n pubkeys = a.pub\n id = gw-a.example".to_owned(),
            ],
            more: KEY.to_owned(),
            connection: "",
            own: "",
        };
        sides.work(prepare, &["with a raw public key"]);
    }
}

#[test]
fn distinguished_names_with_wildcards() {
    let mut sides = Sides::certified();
    sides.lockgate = [
        "certs = \"a.pem\"".to_owned(),
        "id = \"CN=*, O=Example, C=CH\"".to_owned(),
    ];
    sides.strongswan = [
        "auth = pubkey\n certs = b.pem".to_owned(),
        "auth = pubkey\n id = \"C=CH, O=Example, CN=*\"".to_owned(),
    ];
    sides.work(
        plain(Kind::P256),
        &["C=CH, O=Example, CN=gw-b.example authenticated"],
    );
}

#[test]
fn a_revocation_list_over_http_good_and_revoked() {
    const URI: &str = "http://192.0.2.2:8080/middle.crl";
    for revoked in [false, true] {
        let prepare = |lab: &Lab| {
            let folder = lab.folder.path();
            let [_, b, middle, _] =
                certified(folder, Kind::P256, |params| pki::with_crl_uri(params, URI));
            let revoked = if revoked { vec![&b] } else { vec![] };
            let list = middle.list_der(&revoked, YEARS);
            serve(&lab.gateway_b, "192.0.2.2:8080", list);
        };
        let sides = Sides::strict("");
        if !revoked {
            sides.work(prepare, &["the certificate of"]);
        } else if let Some(pair) = sides.start(prepare) {
            assert_refused(&pair, "was revoked");
        }
    }
}

#[test]
fn an_ocsp_responder_says_good_and_revoked() {
    let Some(openssl) = program("openssl", "openssl") else {
        return;
    };
    for revoked in [false, true] {
        let mut responder = None;
        let prepare = |lab: &Lab| {
            let folder = lab.folder.path();
            let [_, b, ..] = certified(folder, Kind::P256, |params| params);
            responder = Some(answer_ocsp(&lab.gateway_b, &openssl, folder, &b, revoked));
        };
        let middle = "[authorities.middle]\ncacert = \"middle.pem\"\nocsp_uris = \"http://192.0.2.2:8081\"\n";
        let Some(pair) = Sides::strict(middle).start(prepare) else {
            return;
        };
        if revoked {
            assert_refused(&pair, "was revoked");
        } else {
            pair.initiate(Initiator::StrongSwan);
            pair.carries_traffic();
        }
    }
}

/// Answers whether the certificate of an identity below `middle.pem` was revoked, on port 8081 of
/// every address of the namespace.
pub(crate) fn answer_ocsp(
    namespace: &Namespace,
    openssl: &Path,
    folder: &Path,
    identity: &Identity,
    revoked: bool,
) -> Process {
    let serial = identity.params.serial_number.as_ref().unwrap().to_bytes();
    let serial = data_encoding::HEXUPPER.encode(&serial);
    let state = if revoked {
        "R\t460101000000Z\t260101000000Z"
    } else {
        "V\t460101000000Z\t"
    };
    write(
        folder,
        "index.txt",
        format!("{state}\t{serial}\tunknown\t/CN=gateway\n"),
    );
    let mut command = Command::new(openssl);
    command.current_dir(folder).args([
        "ocsp",
        "-port",
        "8081",
        "-index",
        "index.txt",
        "-CA",
        "middle.pem",
        "-rsigner",
        "middle.pem",
        "-rkey",
        "middle.key",
        "-ndays",
        "1",
    ]);
    Process::start(namespace, "responder", command, folder)
}

/// Serves one file to everybody who asks, from inside a namespace, as long as the tests run.
fn serve(namespace: &Namespace, address: &str, file: Vec<u8>) {
    let address = address.to_owned();
    let listener = namespace.run(move || TcpListener::bind(address)).unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let mut request = [0; 2048];
            let _ = stream.read(&mut request);
            let length = file.len();
            let head =
                format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n");
            let _ = stream
                .write_all(head.as_bytes())
                .and_then(|()| stream.write_all(&file));
        }
    });
}

const KEY: &str = "[secrets.private-a]\nfile = \"a.key\"\n";
const ROOT: &str = "[authorities.root]\ncacert = \"root.pem\"\n";
const YEARS: (i32, i32) = (2020, 2040);
