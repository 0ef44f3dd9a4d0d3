//! Session resumption (RFC 5723): what is lost comes back by a ticket, or without one.

use lockgate::crypto::Secret;
use lockgate::ike::{Discard, DpdAction, Input};
use lockgate::wire::ikev2::{Notify, NotifyType};
use lockgate::wire::isakmp::{ExchangeType, Header, PayloadType};
use std::sync::Arc;
use std::time::Duration;

use super::actor::split;
use super::config::{Setup, Side, ike_proposals};
use super::host::ticket_keys;
use super::network::{Fate, Sent};
use super::pair::{Pair, initiate, millis, rekey, rekey_ike, seconds, terminate_ike};

/// Both sides resume, B makes tickets, and A brings up again what is lost.
pub(super) fn resuming(side: Side, setup: &mut Setup) {
    setup.connection.resumption = true;
    setup.connection.dpd_delay = seconds(20);
    setup.connection.keyingtries = 0;
    setup.ticket_keys = vec![1];
    if side == Side::A {
        setup.children[0].dpd_action = DpdAction::Restart;
    }
}

/// First requests and their answers since the trace had `since` entries.
pub(super) fn first_messages(pair: &Pair, since: usize) -> Vec<&'static str> {
    let name = |sent: &Sent| match (sent.header.exchange, sent.from) {
        (ExchangeType::IKE_SA_INIT, Side::A) => Some("init"),
        (ExchangeType::IKE_SESSION_RESUME, Side::A) => Some("resume"),
        (ExchangeType::IKE_SA_INIT, Side::B) => Some("init answer"),
        (ExchangeType::IKE_SESSION_RESUME, Side::B) => Some("resume answer"),
        _ => None,
    };
    pair.net.trace[since..].iter().filter_map(name).collect()
}

/// Notifications of a message in clear.
fn notifies(sent: &Sent) -> Vec<NotifyType> {
    let (header, rest) = Header::parse(&sent.transmit.bytes).unwrap();
    let payloads = split(header.next_payload, rest);
    let notifies = payloads
        .iter()
        .filter(|(kind, _)| *kind == PayloadType::NOTIFY);
    notifies
        .map(|(_, body)| Notify::parse(body).unwrap().kind)
        .collect()
}

/// B restarts, and A brings the tunnel up again; the first messages of that.
#[track_caller]
pub(super) fn recover(pair: &mut Pair) -> Vec<&'static str> {
    pair.restart(Side::B);
    let since = pair.net.sent();
    pair.run_for(seconds(90));
    pair.assert_clean(1);
    first_messages(pair, since)
}

pub(super) const RESUMED: [&str; 2] = ["resume", "resume answer"];
pub(super) const REFUSED: [&str; 4] = ["resume", "resume answer", "init", "init answer"];
pub(super) const ANEW: [&str; 2] = ["init", "init answer"];

#[test]
fn a_gateway_that_has_restarted_is_resumed_with_again_and_again() {
    let mut pair = Pair::up_with(resuming);
    for _ in 0..3 {
        assert_eq!(recover(&mut pair), RESUMED);
        let asked = pair.host(Side::B).discarded(Discard::UnknownIkeSpi);
        assert_eq!(pair.host(Side::B).all_discarded(), asked);
    }
    assert!(pair.host(Side::A).logged("resuming IKE_SA"));
    pair.finish();
}

#[test]
fn the_first_answer_of_a_resumption_has_no_key_exchange_and_the_proof_no_certificates() {
    let mut pair = Pair::up_with(resuming);
    let since = pair.net.sent();
    recover(&mut pair);
    let mut trace = pair.net.trace[since..].iter();
    let request = trace.find(|sent| sent.is(ExchangeType::IKE_SESSION_RESUME, false));
    let answer = trace.find(|sent| sent.is(ExchangeType::IKE_SESSION_RESUME, true));
    for (sent, ticket) in [(request.unwrap(), true), (answer.unwrap(), false)] {
        let (header, rest) = Header::parse(&sent.transmit.bytes).unwrap();
        let payloads = split(header.next_payload, rest);
        let kinds: Vec<_> = payloads.iter().map(|(kind, _)| *kind).collect();
        assert_eq!(kinds[0], PayloadType::NONCE);
        assert!(
            kinds[1..].iter().all(|kind| *kind == PayloadType::NOTIFY),
            "{kinds:?}"
        );
        let notifies = notifies(sent);
        assert_eq!(notifies.contains(&NotifyType::TICKET_OPAQUE), ticket);
        assert!(notifies.contains(&NotifyType::NAT_DETECTION_SOURCE_IP));
        assert!(notifies.contains(&NotifyType::IKEV2_FRAGMENTATION_SUPPORTED));
    }
    pair.finish();
}

#[test]
fn an_outage_of_the_network_is_followed_by_a_resumption_that_ends_the_old_ike_sa_silently() {
    let mut pair = Pair::up_with(|side, setup| {
        resuming(side, setup);
        if side == Side::B {
            setup.connection.dpd_delay = Duration::ZERO; // it does not notice
        }
    });
    pair.gapless = false;
    let old = pair.ike_sa(Side::B).id;
    pair.net.decide(|_| Fate::Drop);
    // In the middle of a later attempt: the ticket was not used, and so is presented again.
    pair.run_for(seconds(100));
    while pair.net.trace.last().unwrap().header.exchange != ExchangeType::IKE_SESSION_RESUME {
        pair.run_for(millis(100));
    }
    pair.net.heal();
    let since = pair.net.sent();
    pair.run_for(seconds(10));
    pair.assert_clean(1);
    assert_eq!(first_messages(&pair, since), RESUMED);
    assert_ne!(pair.ike_sa(Side::B).id, old);
    let deletes = pair.net.from(Side::B, since);
    let deletes = deletes
        .iter()
        .filter(|sent| sent.is(ExchangeType::INFORMATIONAL, false));
    assert_eq!(deletes.count(), 0);
    pair.finish();
}

#[test]
fn an_initiator_that_has_restarted_has_no_ticket() {
    let mut pair = Pair::up_with(resuming);
    pair.restart(Side::A);
    let since = pair.net.sent();
    pair.command(Side::A, initiate("lan"));
    pair.run_for(seconds(5));
    pair.assert_clean(1);
    assert_eq!(first_messages(&pair, since), ANEW);
    pair.finish();
}

#[test]
fn keys_of_tickets_are_rotated_and_the_last_ones_still_open() {
    let mut pair = Pair::up_with(resuming);
    pair.setup(Side::B).ticket_keys = vec![2, 1];
    assert_eq!(recover(&mut pair), RESUMED);
    // The ticket that came with that is of the new one.
    pair.setup(Side::B).ticket_keys = vec![3, 2];
    assert_eq!(recover(&mut pair), RESUMED);
    // While it runs, too.
    let keys = ticket_keys(&[4, 3]).unwrap();
    let now = pair.now;
    pair.host(Side::B).handle(now, Input::TicketKeys(keys));
    pair.command(Side::A, rekey_ike());
    pair.run_for(seconds(5));
    pair.setup(Side::B).ticket_keys = vec![5, 4];
    assert_eq!(recover(&mut pair), RESUMED);
    pair.setup(Side::B).ticket_keys = vec![7, 6];
    assert_eq!(recover(&mut pair), REFUSED);
    assert_eq!(pair.host(Side::B).discarded(Discard::BadTicket), 1);
    assert_eq!(recover(&mut pair), RESUMED);
    pair.finish();
}

#[test]
fn a_peer_that_does_not_resume_any_more_is_met_anew() {
    for keeps_keys in [true, false] {
        let mut pair = Pair::up_with(resuming);
        pair.setup(Side::B).connection.resumption = false;
        if !keeps_keys {
            pair.setup(Side::B).ticket_keys.clear();
        }
        assert_eq!(recover(&mut pair), REFUSED);
        let reason = [Discard::BadTicket, Discard::StaleTicket][usize::from(keeps_keys)];
        assert_eq!(pair.host(Side::B).discarded(reason), 1);
        // It gives no ticket, so there is none to be refused.
        assert_eq!(recover(&mut pair), ANEW);
        pair.finish();
    }
}

#[test]
fn whoever_does_not_answer_a_ticket_is_met_anew() {
    let mut pair = Pair::up_with(resuming);
    pair.net.decide(|sent| {
        if sent.is(ExchangeType::IKE_SESSION_RESUME, false) {
            return Fate::Drop;
        }
        Fate::Deliver
    });
    let first = recover(&mut pair);
    assert_eq!(first[..4], ["resume"; 4]);
    assert_eq!(first[4..], ANEW);
    pair.finish();
}

#[test]
fn nobody_asks_for_tickets_or_gives_them_unless_configured() {
    for side in Side::BOTH {
        let mut pair = Pair::up_with(|at, setup| {
            resuming(at, setup);
            setup.connection.resumption = at == side;
        });
        pair.command(Side::A, rekey_ike());
        pair.run_for(seconds(5));
        let since = pair.net.sent();
        assert_eq!(recover(&mut pair), ANEW);
        assert!(pair.net.sent() > since);
        pair.finish();
    }
}

#[test]
fn an_ike_sa_that_a_rekey_has_made_has_a_ticket_of_its_own_whoever_has_rekeyed() {
    for rekeyed_by in Side::BOTH {
        for proposal in [
            "aes256gcm16-prfsha384-x25519",
            "aes256gcm16-prfsha384-x25519-ke1_mlkem768",
            "aes128-sha256-x25519",
        ] {
            let mut pair = Pair::up_with(|side, setup| {
                resuming(side, setup);
                setup.connection.proposals = ike_proposals(&[proposal]);
            });
            pair.command(rekeyed_by, rekey_ike());
            pair.settle();
            pair.assert_clean(1);
            let suite = pair.ike_sa(Side::A).suite;
            assert_eq!(recover(&mut pair), RESUMED, "{rekeyed_by:?} {proposal}");
            for side in Side::BOTH {
                assert_eq!(pair.ike_sa(side).suite, suite, "{side:?}");
            }
            // And what was resumed is rekeyed.
            pair.command(rekeyed_by, rekey_ike());
            pair.settle();
            assert_eq!(recover(&mut pair), RESUMED, "{rekeyed_by:?} {proposal}");
            pair.finish();
        }
    }
}

#[test]
fn an_ike_sa_that_was_ended_in_order_leaves_no_ticket() {
    for ended_by in Side::BOTH {
        let mut pair = Pair::up_with(resuming);
        pair.gapless = false;
        pair.command(ended_by, terminate_ike());
        pair.run_for(seconds(5));
        let since = pair.net.sent();
        pair.command(Side::A, initiate("lan"));
        pair.run_for(seconds(5));
        pair.assert_clean(1);
        assert_eq!(first_messages(&pair, since), ANEW);
        pair.finish();
    }
}

#[test]
fn a_new_authentication_never_comes_by_a_ticket_and_a_ticket_puts_none_off() {
    let times = |side: Side, setup: &mut Setup| {
        resuming(side, setup);
        setup.connection.reauth_time = seconds(3600);
        setup.connection.over_time = seconds(60);
    };
    let mut pair = Pair::up_with(times);
    pair.gapless = false;
    let since = pair.net.sent();
    pair.command(Side::A, rekey(None, true));
    pair.run_for(seconds(6));
    pair.assert_clean(1);
    assert_eq!(first_messages(&pair, since), ANEW);
    let due = pair.ike_sa(Side::A).reauth_at.unwrap();
    for _ in 0..3 {
        pair.run_for(seconds(600));
        assert_eq!(recover(&mut pair), RESUMED);
        let resumed = pair.ike_sa(Side::A).reauth_at.unwrap();
        assert!(resumed <= due);
        assert!(resumed + seconds(400) > due, "nor much earlier");
    }
    let since = pair.net.sent();
    pair.run_for(due - pair.now + seconds(6));
    pair.assert_clean(1);
    assert_eq!(first_messages(&pair, since), ANEW);
    pair.finish();
}

#[test]
fn an_expired_ticket_is_not_presented() {
    // B is away for longer than the IKE SA would have lived.
    let mut pair = Pair::up_with(|side, setup| {
        resuming(side, setup);
        setup.connection.rekey_time = seconds(600);
        setup.connection.over_time = seconds(60);
    });
    pair.gapless = false;
    pair.net.decide(|_| Fate::Drop);
    pair.run_for(seconds(700));
    pair.restart(Side::B);
    pair.net.heal();
    pair.run_for(seconds(1));
    let since = pair.net.sent();
    pair.run_for(seconds(90));
    pair.assert_clean(1);
    assert!(!first_messages(&pair, since).contains(&"resume"));
    pair.finish();
}

#[test]
fn a_changed_secret_ends_tickets_on_either_side() {
    let secret = "another secret";
    // A has heard of it: it does not even try.
    let mut pair = Pair::up_with(resuming);
    for side in Side::BOTH {
        pair.setup(side).secret = secret;
    }
    let (now, pad) = (pair.now, pair.setup(Side::A).pad());
    pair.host(Side::A).reload(now, pad);
    assert_eq!(recover(&mut pair), ANEW);
    pair.finish();
    // A has not: B refuses, and the old secret is of no use.
    let mut pair = Pair::up_with(resuming);
    pair.setup(Side::B).secret = secret;
    pair.restart(Side::B);
    let since = pair.net.sent();
    pair.run_for(seconds(45));
    let first = first_messages(&pair, since);
    assert_eq!(first[..4], REFUSED);
    assert!(pair.ike_sas(Side::B).is_empty());
    assert_eq!(pair.host(Side::B).discarded(Discard::StaleTicket), 1);
    pair.finish();
}

#[test]
fn a_post_quantum_preshared_key_stays_in_what_is_resumed() {
    let mut pair = Pair::up_with(|side, setup| {
        resuming(side, setup);
        setup.ppks = vec![("quantum", "a secret of 32 bytes or of more.")];
        let id = lockgate::ike::PpkId(b"quantum".to_vec());
        setup.connection.ppk_id = Some(id);
        setup.connection.ppk_required = true;
    });
    assert_eq!(recover(&mut pair), RESUMED);
    assert_eq!(recover(&mut pair), RESUMED);
    pair.finish();
    // One that is asked for from now on is not in the ticket.
    let mut pair = Pair::up_with(|side, setup| {
        resuming(side, setup);
        setup.ppks = vec![("quantum", "a secret of 32 bytes or of more.")];
    });
    pair.setup(Side::B).connection.ppk_required = true;
    pair.restart(Side::B);
    let since = pair.net.sent();
    pair.run_for(seconds(45));
    assert_eq!(first_messages(&pair, since)[..4], REFUSED);
    assert!(pair.ike_sas(Side::B).is_empty());
    pair.finish();
}

#[test]
fn a_crash_token_makes_room_for_a_resumption_at_once() {
    let mut pair = Pair::up_with(|side, setup| {
        resuming(side, setup);
        let secret = Secret::from(vec![side as u8 + 1; 32]);
        setup.settings.crash_secret = Some(Arc::new(secret));
    });
    pair.restart(Side::B);
    let since = pair.net.sent();
    pair.run_for(seconds(27));
    pair.assert_clean(1);
    assert_eq!(first_messages(&pair, since), RESUMED);
    assert!(pair.host(Side::A).logged("the peer has lost its state"));
    pair.finish();
}

#[test]
fn under_load_a_ticket_needs_a_cookie_like_a_key_exchange() {
    let mut pair = Pair::up_with(|side, setup| {
        resuming(side, setup);
        setup.settings.cookie_threshold = 0;
    });
    let since = pair.net.sent();
    let first = recover(&mut pair);
    assert_eq!(
        first,
        ["resume", "resume answer", "resume", "resume answer"]
    );
    assert_eq!(pair.host(Side::B).discarded(Discard::CookieRequired), 1);
    let trace = pair.net.trace[since..].iter();
    let mut resumes = trace.filter(|sent| sent.header.exchange == ExchangeType::IKE_SESSION_RESUME);
    resumes.next();
    assert_eq!(notifies(resumes.next().unwrap()), [NotifyType::COOKIE]);
    assert_eq!(notifies(resumes.next().unwrap())[0], NotifyType::COOKIE);
    pair.finish();
}

#[test]
fn every_lost_or_doubled_message_of_a_resumption_is_made_good() {
    let run = |fate: Option<(usize, Fate)>| {
        let mut pair = Pair::up_with(resuming);
        pair.restart(Side::B);
        while pair.net.trace.last().unwrap().header.exchange != ExchangeType::IKE_SESSION_RESUME {
            pair.run_for(millis(5));
        }
        let first = pair.net.sent() - 1;
        if let Some((number, fate)) = fate {
            // The request is on its way; its loss is that of its answer.
            pair.net.spoil(first + number.max(1), fate);
        }
        pair.run_for(seconds(40));
        pair.net.heal();
        pair.assert_clean(1);
        let all = first_messages(&pair, first);
        assert!(!all.contains(&"init"), "{fate:?}: {all:?}");
        // The next ticket is as good.
        assert_eq!(recover(&mut pair), RESUMED, "{fate:?}");
        pair.finish();
    };
    run(None);
    for number in 1..4 {
        for fate in [Fate::Drop, Fate::Twice(seconds(1)), Fate::Late(seconds(2))] {
            run(Some((number, fate)));
        }
    }
}

#[test]
fn a_lost_connection_with_two_children_comes_back_with_both() {
    let mut pair = Pair::with(|side, setup| {
        resuming(side, setup);
        setup.add_second_child(side);
        for child in &mut setup.children {
            child.dpd_action = setup_action(side);
        }
    });
    for child in ["lan", "lab"] {
        pair.command(Side::A, initiate(child));
        pair.settle();
    }
    pair.restart(Side::B);
    let since = pair.net.sent();
    pair.run_for(seconds(90));
    pair.assert_clean(2);
    assert_eq!(first_messages(&pair, since), RESUMED);
    pair.finish();
}

fn setup_action(side: Side) -> DpdAction {
    match side {
        Side::A => DpdAction::Restart,
        Side::B => DpdAction::Clear,
    }
}
