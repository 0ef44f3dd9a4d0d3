//! Claims in IKE_AUTH that do not hold (HOSTILE B24 to B26), at a running daemon, from someone who has the keys
//! of the half-open IKE SA: each is refused, asks nobody and leaves nothing.

use std::{fs, io, net::TcpListener};

use lockgate::crypto::signature::{Hash, Scheme};
use lockgate::wire::ikev2::NotifyType;
use lockgate::wire::isakmp::{ExchangeType, PayloadType};

use super::claims::{self, A, Claim, ECDSA};
use super::hostile::{discards, half_open};
use super::pki::{self, Identity, Kind};
use super::sender::Sender;
use super::session::{Opened, Session, join};
use crate::support::{
    eventually,
    lab::{Family, Gateway, Lab, Plan, Side},
    traffic::assert_reaches,
};

impl Sender {
    /// What B answers to a claim.
    fn claim(&mut self, claim: &Claim) -> (Session, Opened) {
        let mut session = self.half_open();
        let payloads = claim.payloads(&session);
        let answer = self.request(&mut session, ExchangeType::IKE_AUTH, &payloads);
        (session, answer)
    }

    /// The claim gets this answer and nothing else, and nothing is left of it.
    #[track_caller]
    fn is_refused(&mut self, b: &Gateway, claim: &Claim, why: NotifyType) {
        let (_, answer) = self.claim(claim);
        assert_eq!(answer.notifies(), [why], "{}", claim.name);
        assert_eq!(answer.payloads.len(), 1, "{}", claim.name);
        assert!(b.established().is_empty(), "{}", claim.name);
    }

    /// The claim sets up a tunnel, which its maker deletes.
    #[track_caller]
    fn is_accepted(&mut self, b: &Gateway, claim: &Claim) {
        let (mut session, answer) = self.claim(claim);
        assert_eq!(answer.error(), None, "{}", claim.name);
        assert!(answer.body(PayloadType::AUTH).is_some(), "{}", claim.name);
        assert_eq!(b.child_sas().len(), 1, "{}", claim.name);
        self.delete(&mut session);
        eventually("it is deleted", || b.ike_sas().is_empty().then_some(()));
    }
}

/// B authenticates with a secret, and A with a certificate of an authority of these.
fn plan(authorities: &[(&str, &str)]) -> Plan {
    let tables = authorities
        .iter()
        .map(|(name, more)| format!("[authorities.{name}]\ncacert = \"{name}.pem\"\n{more}\n"));
    Plan {
        inner: vec![Family::V4],
        daemon: "dos_protection = false".to_owned(),
        more: tables.collect(),
        ..Plan::default()
    }
}

/// The daemon on gateway B, which takes any identity that a certificate proves.
fn start(lab: &Lab, plan: &Plan, revocation: &str) -> Gateway {
    let secret = "auth = \"psk\", id = \"gw-a.example\"";
    let certificate = format!("auth = \"pubkey\", id = \"%any\", revocation = \"{revocation}\"");
    let config = plan.config(Side::B).replace(secret, &certificate);
    lab.start(Side::B, &config)
}

fn write(lab: &Lab, name: &str, bytes: impl AsRef<[u8]>) {
    fs::write(lab.folder.path().join(name), bytes).unwrap();
}

/// Gateway A itself gets its tunnel.
fn let_a_in(lab: &Lab, plan: &Plan, leaf: &Identity) {
    write(lab, "a.pem", leaf.certificate.pem());
    write(lab, "a.key", leaf.key.serialize_pem());
    let mut plan = plan.clone();
    plan.more = "[secrets.private-a]\nfile = \"a.key\"\n".to_owned();
    let secret = "auth = \"psk\", id = \"gw-a.example\"";
    let certificate = "id = \"gw-a.example\", certs = \"a.pem\"";
    let config = plan.config(Side::A).replace(secret, certificate);
    let a = lab.start(Side::A, &config);
    a.initiate("net");
    assert_reaches(&lab.host_a, &lab.host_b, Side::B.host(Family::V4));
}

#[test]
fn a_claim_that_does_not_hold_is_refused_and_changes_nothing() {
    let Some(lab) = Lab::new() else { return };
    let root = pki::root(Kind::P256, "root");
    write(&lab, "root.pem", root.certificate.pem());
    let plan = plan(&[("root", "")]);
    let b = start(&lab, &plan, "relaxed");
    let mut sender = Sender::new(&lab);
    let [p256, rsa, ed25519] =
        [Kind::P256, Kind::Rsa, Kind::Ed25519].map(|kind| root.gateway(kind, A));
    let before = discards(&b);
    for (leaf, scheme) in [
        (&p256, ECDSA),
        (&rsa, Scheme::RsaPss(Hash::Sha384)),
        (&ed25519, Scheme::Ed25519),
    ] {
        sender.is_accepted(&b, &claims::genuine(leaf, scheme));
    }
    for claim in claims::unusual(&root) {
        sender.is_accepted(&b, &claim);
    }
    let refused = [
        claims::identities(&p256),
        claims::ecdsa(&p256),
        claims::rsa(&rsa),
        vec![claims::ed25519(&ed25519)],
        claims::encodings(&p256),
        claims::certificates(&root),
    ];
    let (mut denied, mut stunted) = (0, 0);
    for claim in refused.into_iter().flatten() {
        denied += 1;
        sender.is_refused(&b, &claim, NotifyType::AUTHENTICATION_FAILED);
    }
    for claim in claims::stunted(&p256) {
        stunted += 1;
        sender.is_refused(&b, &claim, NotifyType::INVALID_SYNTAX);
    }
    let mut expected = before;
    *expected.get_mut("refused-authentication").unwrap() += denied;
    *expected.get_mut("refused-syntax").unwrap() += stunted;
    assert_eq!(discards(&b), expected);
    let clean = |line: &str| line.chars().all(|c| !c.is_control() || c == '\t');
    assert!(b.process.output().lines().all(clean));
    let_a_in(&lab, &plan, &p256);
    // Until then a repeated request would be answered again.
    eventually("all of it is forgotten", || {
        (half_open(&b) == "0").then_some(())
    });
}

/// An identity of 17 KiB is in a message that is too long, so nothing of it is read.
#[test]
fn an_identity_that_makes_the_message_too_long_is_counted_and_not_answered() {
    let Some(lab) = Lab::new() else { return };
    let root = pki::root(Kind::P256, "root");
    write(&lab, "root.pem", root.certificate.pem());
    let plan = plan(&[("root", "")]);
    let b = start(&lab, &plan, "relaxed");
    let mut sender = Sender::new(&lab);
    let leaf = root.gateway(Kind::P256, A);
    for length in [17 * 1024, 60 * 1024] {
        let before = discards(&b);
        let mut session = sender.half_open();
        let claim = claims::identified(&leaf, 2, &vec![b'a'; length]);
        let (first, text) = join(&claim.payloads(&session));
        let request = session.seal(ExchangeType::IKE_AUTH, false, 1, first, &text);
        sender.send(&request);
        let after = eventually("it is counted", || {
            let after = discards(&b);
            (after != before).then_some(after)
        });
        let mut expected = before;
        *expected.get_mut("too-long").unwrap() += 1;
        assert_eq!(after, expected);
        // It may still authenticate, in a message that is read.
        let payloads = claims::genuine(&leaf, ECDSA).payloads(&session);
        let answer = sender.request(&mut session, ExchangeType::IKE_AUTH, &payloads);
        assert_eq!(answer.error(), None);
        sender.delete(&mut session);
    }
    eventually("both are deleted", || b.ike_sas().is_empty().then_some(()));
    let_a_in(&lab, &plan, &leaf);
}

/// Lists and OCSP responses that say nothing of the certificate, where only a good answer lets in.
#[test]
fn what_is_no_word_on_revocation_lets_nobody_in_and_asks_nobody_on_this_machine() {
    let Some(lab) = Lab::new() else { return };
    let names = ["good", "stale", "early", "forged", "strange", "silent"];
    let roots = names.map(|name| pki::root(Kind::P256, name));
    let [good, stale, early, forged, strange, silent] = &roots;
    let namesake = pki::root(Kind::P256, "forged");
    for (name, list) in [
        ("good", good.list_der(&[], VALID)),
        ("stale", stale.list_der(&[], (2020, 2021))),
        ("early", early.list_der(&[], (2044, 2045))),
        ("forged", namesake.list_der(&[], VALID)),
        ("strange", good.list_der(&[], VALID)),
    ] {
        write(&lab, &format!("{name}.crl"), list);
    }
    for (name, root) in names.iter().zip(&roots) {
        write(&lab, &format!("{name}.pem"), root.certificate.pem());
    }
    let uris = names.map(|name| format!("crl_uris = [\"file://{name}.crl\"]"));
    let mut authorities: Vec<_> = names
        .iter()
        .zip(&uris)
        .map(|(name, uris)| (*name, uris.as_str()))
        .collect();
    authorities[5].1 = "";
    let plan = plan(&authorities);
    let b = start(&lab, &plan, "strict");
    let listener = lab.gateway_b.run(|| TcpListener::bind(("0.0.0.0", 80)));
    let listener = listener.unwrap();
    listener.set_nonblocking(true).unwrap();

    let mut sender = Sender::new(&lab);
    let accepted = good.gateway(Kind::P256, A);
    sender.is_accepted(&b, &claims::genuine(&accepted, ECDSA));
    let mut refused: Vec<Claim> = [stale, early, forged, strange, silent]
        .iter()
        .zip(&names[1..])
        .map(|(root, name)| claims::genuine(&root.gateway(Kind::P256, A), ECDSA).called(name))
        .collect();
    for place in [
        "http://127.0.0.1/a.crl",
        "http://192.0.2.2/a.crl",
        "file:///etc/passwd",
    ] {
        for with in [pki::with_crl_uri, pki::with_ocsp_uri] {
            let leaf = silent.sign(Kind::P256, with(pki::gateway_params(A), place));
            refused.push(claims::genuine(&leaf, ECDSA).called(place));
        }
    }
    let leaf = silent.gateway(Kind::P256, A);
    for (name, encoding, bytes) in [
        ("another's OCSP response", 14, OCSP.to_vec()),
        ("half an OCSP response", 14, OCSP[..OCSP.len() / 2].to_vec()),
        ("another's list", 7, good.list_der(&[], VALID)),
        (
            "a list of 14 KiB that is none",
            7,
            [&[0x30, 0x82, 0x38, 0][..], &[0x30; 0x3800]].concat(),
        ),
    ] {
        let mut claim = claims::genuine(&leaf, ECDSA).called(name);
        claim.certificates.push((encoding, bytes));
        refused.push(claim);
    }
    for claim in &refused {
        sender.is_refused(&b, claim, NotifyType::AUTHENTICATION_FAILED);
    }
    let asked = listener.accept().map(|_| ()).map_err(|error| error.kind());
    assert_eq!(asked, Err(io::ErrorKind::WouldBlock));
    let_a_in(&lab, &plan, &accepted);
}

const VALID: (i32, i32) = (2020, 2040);
const OCSP: &[u8] = include_bytes!("../data/x509/ocsp");
