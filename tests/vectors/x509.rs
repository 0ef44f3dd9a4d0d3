//! Certificates, a revocation list and an OCSP response of OpenSSL.

use std::fs;
use std::path::Path;
use std::time::Duration;

use der::asn1::{ObjectIdentifier, OctetString};
use der::{Decode, Encode};
use lockgate::crypto::x509::{AltName, Certificate, Crl, Status, UnixTime, ocsp};
use lockgate::ike::Identity;
use x509_cert::certificate::Rfc5280;
use x509_cert::crl::CertificateList;
use x509_cert::ext::Extension;

/// In December 2026, when all of the files are valid.
const NOW: u64 = 1_797_000_000;

fn file(name: &str) -> Vec<u8> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/x509");
    fs::read(folder.join(name)).expect("a file of the repository")
}

fn certificates() -> (Certificate, Certificate) {
    let read = |name| Certificate::from_der(&file(name)).expect("a certificate");
    (read("certificate"), read("authority"))
}

fn at(seconds: u64) -> UnixTime {
    UnixTime::since_unix_epoch(Duration::from_secs(seconds))
}

#[test]
fn a_certificate_tells_its_names_and_where_to_ask_about_it() {
    let (gateway, authority) = certificates();
    let subject = "C=CH, O=Example, E=a@gw.example, CN=gw";
    assert_eq!(gateway.subject().to_string(), subject);
    assert_eq!(gateway.issuer(), authority.subject().der());
    assert_eq!(gateway.serial(), [0x12, 0x34]);
    assert_eq!(gateway.alt_names().len(), 5);
    assert!(
        gateway
            .alt_names()
            .contains(&AltName::Dns("gw.example".into()))
    );
    assert_eq!(gateway.crl_uris(), ["http://crl.example/ca.crl"]);
    assert_eq!(gateway.ocsp_uris(), ["http://ocsp.example/"]);
    assert!(gateway.may_sign() && !gateway.is_authority() && authority.is_authority());
    assert!(gateway.has_policy("1.3.6.1.4.1.99999.1"));
    for id in [
        "gw.example",
        "a@gw.example",
        "192.0.2.1",
        "2001:db8::1",
        "CN=other",
        subject,
    ] {
        let id: Identity = id.parse().expect("an identity");
        assert!(id.is_in(&gateway), "{id}");
    }
    for id in ["example", "b@gw.example", "192.0.2.2", "CN=gw"] {
        let id: Identity = id.parse().expect("an identity");
        assert!(!id.is_in(&gateway), "{id}");
    }
}

#[test]
fn a_revocation_list_is_taken_while_it_is_valid_and_of_its_issuer() {
    let (gateway, authority) = certificates();
    let list = Crl::load(&file("crl")).expect("a list");
    assert_eq!(list.status(&gateway, &authority, at(NOW)), Status::Revoked);
    assert!(matches!(
        list.status(&authority, &authority, at(NOW)),
        Status::Good
    ));
    assert!(matches!(
        list.status(&gateway, &gateway, at(NOW)),
        Status::Unknown(_)
    ));
    assert!(matches!(
        list.status(&authority, &authority, at(NOW + 90 * 86_400)),
        Status::Unknown(_)
    ));
    assert!(matches!(
        list.status(&gateway, &authority, at(0)),
        Status::Unknown(_)
    ));
}

#[test]
fn an_ocsp_response_is_taken_while_it_is_valid_and_about_this_certificate() {
    let (gateway, authority) = certificates();
    let answer = file("ocsp");
    let ask = |answer: &[u8], nonce: Option<&[u8]>, time| {
        ocsp::status(answer, &gateway, &authority, nonce, at(time)).0
    };
    assert_eq!(ask(&answer, None, NOW), Status::Revoked);
    assert!(matches!(
        ask(&answer, Some(b"another"), NOW),
        Status::Unknown(_)
    ));
    assert!(matches!(ask(&answer, None, 0), Status::Unknown(_)));
    assert!(matches!(
        ask(&answer, None, 4_000_000_000),
        Status::Unknown(_)
    ));
    let other = ocsp::status(&answer, &authority, &authority, None, at(NOW)).0;
    assert!(matches!(other, Status::Unknown(_)));
    for place in (0..answer.len()).step_by(3) {
        let mut changed = answer.clone();
        changed[place] ^= 1;
        let status = ask(&changed, None, NOW);
        assert!(status != Status::Good, "byte {place}");
    }
}

/// A certificate whose number takes a leading zero in DER, and its issuer.
fn high() -> (Certificate, Certificate) {
    let read = |name| Certificate::from_der(&file(name)).expect("a certificate");
    (read("certificate-high"), read("authority-of-high"))
}

#[test]
fn an_ocsp_response_fits_a_number_whose_top_bit_is_set() {
    let (certificate, authority) = high();
    assert_eq!(certificate.serial(), [0, 0x9a, 0x34]);
    let status = ocsp::status(&file("ocsp-high"), &certificate, &authority, None, at(NOW));
    assert_eq!(status.0, Status::Good);
}

#[test]
fn a_revocation_list_signed_with_sha1_proves_nothing() {
    let (certificate, authority) = high();
    let status = |name| {
        let list = Crl::load(&file(name)).expect("a list");
        list.status(&certificate, &authority, at(NOW))
    };
    assert_eq!(status("crl-sha256"), Status::Good);
    assert_eq!(
        status("crl-sha1"),
        Status::Unknown("the list is not signed by the issuer")
    );
}

#[test]
fn a_delta_list_answers_nothing_wherever_it_says_so() {
    let (certificate, authority) = high();
    let list = CertificateList::<Rfc5280>::from_der(&file("crl-sha256")).expect("a list");
    let extension = |number, critical, value: &[u8]| Extension {
        extn_id: ObjectIdentifier::new_unwrap(number),
        critical,
        extn_value: OctetString::new(value).expect("short"),
    };
    let base = &[2, 1, 1];
    let point = extension("2.5.29.28", true, &[0x30, 0]);
    for critical in [true, false] {
        let delta = extension("2.5.29.27", critical, base);
        for both in [[delta.clone(), point.clone()], [point.clone(), delta]] {
            let mut list = list.clone();
            list.tbs_cert_list.crl_extensions = Some(both.to_vec());
            let list = Crl::from_der(&list.to_der().expect("DER")).expect("a list");
            assert_eq!(
                list.status(&certificate, &authority, at(NOW)),
                Status::Unknown("the list is not about this certificate")
            );
        }
    }
}
