//! IKE SAs without a first child (RFC 6023), and children without traffic.

use lockgate::ike::{Childless, Command, StartAction};
use lockgate::ipsec::{Reqid, SaEvent};
use lockgate::wire::isakmp::ExchangeType;

use super::config::Side;
use super::pair::{Pair, initiate, seconds};

/// The exchange that brings the first child; `None` if the attempt fails.
fn first_exchange(ours: Childless, theirs: Childless) -> Option<ExchangeType> {
    let mut pair = Pair::with(|side, setup| {
        setup.connection.childless = if side == Side::A { ours } else { theirs };
    });
    let id = pair.command(Side::A, initiate("lan"));
    pair.run_for(seconds(60));
    if !matches!(pair.result(Side::A, id), Some(Ok(_))) {
        assert!(pair.children(Side::A).is_empty());
        pair.finish();
        return None;
    }
    let create = ExchangeType::CREATE_CHILD_SA;
    let created = pair.net.trace.iter().any(|sent| sent.is(create, false));
    pair.assert_clean(1);
    pair.finish();
    Some(if created {
        create
    } else {
        ExchangeType::IKE_AUTH
    })
}

#[test]
fn both_sides_decide_whether_the_first_child_gets_an_exchange_of_its_own() {
    use Childless::{Allow, Force, Never, Prefer};
    let (in_auth, own) = (
        Some(ExchangeType::IKE_AUTH),
        Some(ExchangeType::CREATE_CHILD_SA),
    );
    for (ours, theirs, expected) in [
        (Allow, Allow, in_auth),
        (Allow, Prefer, in_auth),
        (Allow, Never, in_auth),
        (Allow, Force, None),
        (Never, Allow, in_auth),
        (Never, Never, in_auth),
        (Never, Force, None),
        (Prefer, Allow, own),
        (Prefer, Prefer, own),
        (Prefer, Force, own),
        (Prefer, Never, in_auth),
        (Force, Allow, own),
        (Force, Force, own),
        (Force, Never, None),
    ] {
        assert_eq!(
            first_exchange(ours, theirs),
            expected,
            "{ours:?} {theirs:?}"
        );
    }
}

#[test]
fn an_ike_sa_without_a_child_is_set_up_where_the_responder_accepts_it() {
    for (policy, accepted) in [
        (Childless::Allow, true),
        (Childless::Prefer, true),
        (Childless::Force, true),
        (Childless::Never, false),
    ] {
        let mut pair = Pair::with(|side, setup| {
            if side == Side::B {
                setup.connection.childless = policy;
            }
        });
        let command = Command::Initiate {
            ike: Some("site".to_owned()),
            child: None,
        };
        let id = pair.command(Side::A, command);
        pair.settle();
        assert_eq!(matches!(pair.result(Side::A, id), Some(Ok(_))), accepted);
        assert_eq!(pair.ike_sas(Side::A).len(), usize::from(accepted));
        if accepted {
            pair.command(Side::A, initiate("lan"));
            pair.settle();
            pair.assert_clean(1);
        }
        pair.run_for(seconds(31));
        pair.finish();
    }
}

#[test]
fn a_child_without_traffic_is_closed_after_its_time_and_packets_bring_it_back() {
    let mut pair = Pair::up_with(|side, setup| {
        setup.children[0].start_action = StartAction::Trap;
        if side == Side::A {
            setup.children[0].inactivity = seconds(40);
        }
    });
    pair.start_traffic(seconds(3));
    pair.run_for(seconds(200));
    assert_eq!(pair.lost_packets, 0);
    pair.stop_traffic();
    pair.run_for(seconds(36));
    pair.assert_clean(1); // which is traffic
    pair.gapless = false;
    pair.run_for(seconds(39));
    assert_eq!(pair.children(Side::A).len(), 1);
    pair.run_for(seconds(15));
    pair.assert_clean(0);
    let flow = super::control::flow();
    let reqid = Reqid(1);
    let packet = SaEvent::Acquire {
        reqid,
        flow,
        worker: None,
    };
    pair.report(Side::A, packet);
    pair.settle();
    pair.assert_clean(1);
    pair.finish();
}
