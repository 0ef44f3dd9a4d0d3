//! OCSP responses inside IKE (RFC 4806), which strongSwan sends since 6.0.

use crate::matrix::{
    credentials::{Sides, answer_ocsp, assert_refused, certified},
    pair::Initiator,
};
use crate::pki::{self, Kind};
use crate::support::{lab::Lab, program};

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
