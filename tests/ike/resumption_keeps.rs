//! What a resumed IKE SA keeps of the one before (RFC 5723 §5): the identities that certificates have proven and
//! for how long, virtual addresses, and a configuration that allows it until the end.

use std::time::Duration;

use lockgate::ike::{Discard, Identity};
use lockgate::wire::isakmp::ExchangeType;

use super::addresses::guest;
use super::certificates::{Case, authority};
use super::config::Side;
use super::network::Fate;
use super::pair::{Pair, millis, seconds};
use super::pki::{self, Kind};
use super::resumption::{ANEW, REFUSED, RESUMED, first_messages, recover, resuming};

fn certified() -> Case {
    let root = pki::root(Kind::P256, "root");
    Case::new(root.gateway(Kind::P256, "gw-a.example"), &[], &root)
}

/// The size of A's largest IKE_AUTH request since the trace had so many entries.
fn largest_proof(pair: &Pair, since: usize) -> usize {
    let sent = pair.net.trace[since..].iter();
    let proofs = sent.filter(|sent| sent.from == Side::A && sent.is(ExchangeType::IKE_AUTH, false));
    proofs
        .map(|sent| sent.transmit.bytes.len())
        .max()
        .expect("an IKE_AUTH request")
}

#[test]
fn an_identity_that_a_certificate_has_proven_is_kept_and_no_certificate_sent_again() {
    let case = certified();
    let mut pair = Pair::up_with(|side, setup| {
        case.set_up(side, setup);
        resuming(side, setup);
    });
    let certificate = case.leaf.certificate.der().len();
    assert!(largest_proof(&pair, 0) > certificate);
    let name: Identity = "gw-a.example".parse().unwrap();
    for _ in 0..2 {
        let since = pair.net.sent();
        assert_eq!(recover(&mut pair), RESUMED);
        assert_eq!(pair.ike_sa(Side::B).remote_id.as_ref(), Some(&name));
        assert!(largest_proof(&pair, since) < certificate);
        let how = "gw-a.example authenticated with the keys of its last IKE_SA";
        assert!(pair.host(Side::B).logged(how));
    }
    pair.finish();
}

#[test]
fn a_certificate_is_shown_again_when_the_authentication_that_it_gave_is_over() {
    let case = certified();
    let mut pair = Pair::up_with(|side, setup| {
        case.set_up(side, setup);
        resuming(side, setup);
        setup.connection.rekey_time = Duration::ZERO;
        if side == Side::B {
            setup.connection.reauth_time = seconds(3600);
            setup.connection.over_time = seconds(60);
        }
    });
    pair.gapless = false;
    let certificate = case.leaf.certificate.der().len();
    let proven = pair.now;
    for _ in 0..3 {
        pair.run_for(seconds(600));
        assert_eq!(recover(&mut pair), RESUMED);
    }
    // The responder says what is left of it (RFC 4478), and the initiator comes in time.
    let since = pair.net.sent();
    pair.run_for(proven + seconds(3660) - pair.now);
    pair.assert_clean(1);
    assert_eq!(first_messages(&pair, since), ANEW);
    assert!(largest_proof(&pair, since) > certificate);
    pair.finish();
}

#[test]
fn a_ticket_ends_when_the_authority_of_the_certificate_is_trusted_no_longer() {
    let case = certified();
    let mut pair = Pair::up_with(|side, setup| {
        case.set_up(side, setup);
        resuming(side, setup);
    });
    let mut other = certified();
    other.authorities = vec![authority(&pki::root(Kind::P256, "other"))];
    other.set_up(Side::B, pair.setup(Side::B));
    pair.restart(Side::B);
    let since = pair.net.sent();
    pair.run_for(seconds(45));
    assert_eq!(first_messages(&pair, since)[..4], REFUSED);
    assert_eq!(pair.host(Side::B).discarded(Discard::StaleTicket), 1);
    assert!(pair.ike_sas(Side::B).is_empty());
    pair.finish();
}

#[test]
fn a_guest_keeps_its_address_although_the_ike_sa_that_it_has_lost_still_holds_it() {
    let mut pair = Pair::up_with(|side, setup| {
        guest(side, setup, 9);
        resuming(side, setup);
        if side == Side::B {
            setup.connection.dpd_delay = Duration::ZERO; // it does not notice
        }
    });
    pair.gapless = false;
    let old = pair.ike_sa(Side::B);
    pair.net.decide(|_| Fate::Drop);
    while pair.net.trace.last().unwrap().header.exchange != ExchangeType::IKE_SESSION_RESUME {
        pair.run_for(millis(100));
    }
    pair.net.heal();
    let since = pair.net.sent();
    pair.run_for(seconds(60));
    assert_eq!(first_messages(&pair, since)[..2], RESUMED);
    let resumed = pair.ike_sa(Side::B);
    assert_ne!(resumed.id, old.id);
    assert_eq!(resumed.remote_vips, old.remote_vips);
    assert_eq!(pair.ike_sa(Side::A).local_vips, old.remote_vips);
    let leases = pair.host(Side::B).endpoint.leases("guests");
    let holders: Vec<_> = leases.map(|lease| lease.holders.len()).collect();
    assert_eq!(holders, [1], "and no other lease was made");
    pair.assert_clean(1);
    pair.finish();
}

/// What A is in the middle of when it hears that it may not resume any more: B has not answered yet.
#[test]
fn a_configuration_that_forbids_it_in_the_meantime_ends_a_resumption_of_the_initiator() {
    for (reached, expected) in [
        (ExchangeType::IKE_SESSION_RESUME, true),
        (ExchangeType::IKE_AUTH, true),
        (ExchangeType::INFORMATIONAL, false),
    ] {
        let mut pair = Pair::up_with(resuming);
        pair.restart(Side::B);
        let since = pair.net.sent();
        while !first_messages(&pair, since).contains(&"resume") {
            pair.run_for(millis(1));
        }
        while pair.net.trace.last().unwrap().header.exchange != reached {
            pair.run_for(millis(1));
        }
        pair.setup(Side::A).connection.resumption = false;
        let (now, pad) = (pair.now, pair.setup(Side::A).pad());
        pair.host(Side::A).reload(now, pad);
        pair.run_for(seconds(90));
        pair.assert_clean(1);
        let anew = first_messages(&pair, since)[2..].contains(&"init");
        assert_eq!(anew, expected, "{reached:?}");
        pair.finish();
    }
}
