//! OCSP responses inside IKE (RFC 4806), which strongSwan sends since 6.0.

use crate::matrix::{
    credentials::{Sides, answer_ocsp, assert_refused, certified},
    pair::Initiator,
};
use crate::pki::{self, Kind};
use crate::support::{eventually, lab::Lab, program};

/// Where only strongSwan's own machine finds the responder.
const URI: &str = "http://127.0.0.1:8081";

#[test]
fn strongswan_sends_the_answer_about_its_own_certificate_along() {
    let Some(openssl) = program("openssl", "openssl") else {
        return;
    };
    for (initiator, revoked) in [
        (Initiator::Lockgate, false),
        (Initiator::StrongSwan, false),
        (Initiator::StrongSwan, true),
    ] {
        let mut responder = None;
        let prepare = |lab: &Lab| {
            let folder = lab.folder.path();
            let [_, b, ..] =
                certified(folder, Kind::P256, |params| pki::with_ocsp_uri(params, URI));
            responder = Some(answer_ocsp(&lab.gateway_b, &openssl, folder, &b, revoked));
        };
        let Some(pair) = Sides::strict("").start(prepare) else {
            return;
        };
        if revoked {
            assert_refused(&pair, "was revoked");
        } else {
            pair.initiate(initiator);
        }
    }
}

#[test]
fn we_send_the_answer_about_our_own_certificate_along_once_we_have_it() {
    // Where only our own machine finds the responder.
    const OURS: &str = "http://10.1.0.1:8081";
    let Some(openssl) = program("openssl", "openssl") else {
        return;
    };
    for initiator in Initiator::BOTH {
        let mut responder = None;
        let prepare = |lab: &Lab| {
            let folder = lab.folder.path();
            let change = |params| pki::with_ocsp_uri(params, OURS);
            let [a, ..] = certified(folder, Kind::P256, change);
            responder = Some(answer_ocsp(&lab.gateway_a, &openssl, folder, &a, false));
        };
        let mut sides = Sides::certified();
        sides.connection = "ocsp = both";
        sides.strongswan[1].push_str("\n revocation = strict");
        let Some(pair) = sides.start(prepare) else {
            return;
        };
        // The first time it is not there yet; strongSwan insists on it.
        let arguments = [("child", "net"), ("timeout", "20000")];
        eventually("strongSwan is content", || {
            let answer = match initiator {
                Initiator::Lockgate => {
                    pair.lockgate.ask("initiate", &arguments).get("success") == Some("yes")
                }
                Initiator::StrongSwan => {
                    let arguments = ["--initiate", "--child", "net", "--timeout", "20"];
                    pair.strongswan.swanctl(&arguments).status.success()
                }
            };
            answer.then_some(())
        });
        pair.is_up();
    }
}
