//! Answers that ask for something else: what follows from each, in both roles.

use lockgate::ike::{Discard, StartAction};
use lockgate::ipsec::{Reqid, SaEvent};
use lockgate::wire::ikev2::NotifyType;
use lockgate::wire::isakmp::{ExchangeType, PayloadType};
use lockgate::wire::proposal::KeyExchangeId;
use lockgate::wire::selector::TrafficSelector;

use super::actor::{Actor, IKE, Opened, ke, notify, sa, selectors};
use super::config::{Side, child, esp_proposals, ike_proposals};
use super::pair::{Pair, initiate, rekey_child, rekey_ike, seconds};

/// B has been asked by hand to set up a tunnel; the second child is B's to ask for.
fn with_second_child() -> (Pair, Actor) {
    let mut pair = Pair::with(|side, setup| {
        setup.add_second_child(side);
        setup.children[1].start_action = StartAction::Trap;
    });
    let actor = Actor::connect(&mut pair, 1);
    (pair, actor)
}

/// A packet of the second child at B.
fn packet(pair: &mut Pair, host: &str) {
    let mut flow = super::control::flow();
    flow.src = "10.102.0.7".parse().unwrap();
    flow.dst = host.parse().unwrap();
    let reqid = Reqid(2);
    pair.report(
        Side::B,
        SaEvent::Acquire {
            reqid,
            flow,
            worker: None,
        },
    );
}

fn refuse(actor: &mut Actor, pair: &mut Pair, request: &Opened, kind: NotifyType) {
    actor.answer(pair, request, &vec![notify(kind, &[])]);
}

fn asked(request: &Opened, kind: PayloadType) -> Vec<String> {
    let list = TrafficSelector::parse_list(request.body(kind).unwrap()).unwrap();
    list.iter().map(ToString::to_string).collect()
}

/// Accepts a request for a Child SA of which B is the initiator.
fn accept(actor: &mut Actor, pair: &mut Pair, request: &Opened, spi: u8, ts: (&str, &str)) {
    let mut proposals = esp_proposals(&["aes128gcm16-esn"]);
    proposals[0].spi = vec![0x70, 0, 0, spi];
    let mut answer = vec![
        (PayloadType::SA, sa(&proposals)),
        (PayloadType::NONCE, actor.nonce()),
    ];
    answer.extend(selectors(ts.0, ts.1));
    actor.answer(pair, request, &answer);
}

#[test]
fn a_peer_that_wants_single_pairs_of_addresses_is_asked_for_the_packets_own() {
    let (mut pair, mut actor) = with_second_child();
    packet(&mut pair, "10.101.0.9");
    let request = actor.take_request(&pair).unwrap();
    let whole = asked(&request, PayloadType::TS_R);
    assert!(whole.contains(&"10.101.0.0/24".to_owned()), "{whole:?}");
    refuse(
        &mut actor,
        &mut pair,
        &request,
        NotifyType::SINGLE_PAIR_REQUIRED,
    );
    let request = actor.take_request(&pair).unwrap();
    assert_eq!(asked(&request, PayloadType::TS_I), ["10.102.0.7/32"]);
    assert_eq!(asked(&request, PayloadType::TS_R), ["10.101.0.9/32"]);
    accept(
        &mut actor,
        &mut pair,
        &request,
        1,
        ("10.102.0.7", "10.101.0.9"),
    );
    assert_eq!(pair.children(Side::B).len(), 2);

    // A rekey asks for the same pair, and another packet for its own.
    let rekey = super::pair::rekey(Some("lab"), false);
    pair.command(Side::B, rekey);
    let request = actor.take_request(&pair).unwrap();
    assert_eq!(asked(&request, PayloadType::TS_R), ["10.101.0.9/32"]);
    accept(
        &mut actor,
        &mut pair,
        &request,
        2,
        ("10.102.0.7", "10.101.0.9"),
    );
    let delete = actor.take_request(&pair).unwrap();
    actor.answer(&mut pair, &delete, &vec![]);
    packet(&mut pair, "10.101.0.10");
    assert_eq!(
        asked(&actor.take_request(&pair).unwrap(), PayloadType::TS_R)[0],
        "10.101.0.10/32[tcp/443]"
    );
}

#[test]
fn a_peer_that_wants_single_pairs_is_not_asked_again_without_a_packet_to_name_one() {
    let (mut pair, mut actor) = with_second_child();
    let id = pair.command(Side::B, initiate("lab"));
    let request = actor.take_request(&pair).unwrap();
    refuse(
        &mut actor,
        &mut pair,
        &request,
        NotifyType::SINGLE_PAIR_REQUIRED,
    );
    assert!(actor.take_request(&pair).is_none());
    assert!(pair.failure(Side::B, id).contains("SINGLE_PAIR_REQUIRED"));
}

#[test]
fn a_peer_without_additional_sas_gets_a_new_ike_sa_instead_of_a_rekey() {
    for command in [rekey_child, rekey_ike] {
        let mut pair = Pair::new();
        let mut actor = Actor::connect(&mut pair, 1);
        pair.command(Side::B, command());
        let request = actor.take_request(&pair).unwrap();
        let before = pair.net.sent();
        refuse(
            &mut actor,
            &mut pair,
            &request,
            NotifyType::NO_ADDITIONAL_SAS,
        );
        let sent = pair.net.from(Side::B, before);
        let inits = sent
            .iter()
            .filter(|sent| sent.is(ExchangeType::IKE_SA_INIT, false));
        assert_eq!(inits.count(), 1);
        assert_eq!(
            pair.host(Side::B).plane.counts(),
            (1, 1),
            "the old one stays meanwhile"
        );
    }
}

#[test]
fn a_new_child_that_the_peer_has_no_room_for_fails_and_the_others_stay() {
    let (mut pair, mut actor) = with_second_child();
    let id = pair.command(Side::B, initiate("lab"));
    let request = actor.take_request(&pair).unwrap();
    refuse(
        &mut actor,
        &mut pair,
        &request,
        NotifyType::NO_ADDITIONAL_SAS,
    );
    assert!(pair.failure(Side::B, id).contains("NO_ADDITIONAL_SAS"));
    assert_eq!(pair.host(Side::B).plane.counts(), (1, 1));
}

#[test]
fn a_busy_peer_is_asked_again_for_a_new_child_and_for_new_keys() {
    let wishes = [
        (initiate("lab"), "lab"),
        (rekey_child(), "lan"),
        (rekey_ike(), "site"),
    ];
    for (command, what) in wishes {
        let (mut pair, mut actor) = with_second_child();
        pair.command(Side::B, command);
        for _ in 0..3 {
            let request = actor.take_request(&pair).expect(what);
            refuse(
                &mut actor,
                &mut pair,
                &request,
                NotifyType::TEMPORARY_FAILURE,
            );
            assert!(actor.take_request(&pair).is_none(), "{what}: at once");
            pair.run_for(seconds(6));
        }
        assert!(actor.take_request(&pair).is_some(), "{what}");
        assert_eq!(pair.host(Side::B).plane.counts(), (1, 1));
    }
}

#[test]
fn a_responder_says_when_another_child_covers_more_of_what_was_asked_for() {
    let more = NotifyType::ADDITIONAL_TS_POSSIBLE;
    for (asked, told) in [("10.2.0.0/24", false), ("10.2.0.0/24 10.3.0.0/24", true)] {
        let mut pair = Pair::with(|side, setup| {
            if side == Side::B {
                let second = child(
                    "more",
                    2,
                    &["10.3.0.0/24"],
                    &["10.1.0.0/24"],
                    "aes256gcm16-x25519-esn-noesn",
                );
                setup.children.push(second);
            }
        });
        let mut actor = Actor::half_open(&mut pair, 1);
        let mut payloads = actor.auth();
        payloads.truncate(payloads.len() - 2);
        payloads.extend(selectors("10.1.0.0/24", asked));
        let answer = actor.request(&mut pair, ExchangeType::IKE_AUTH, &payloads);
        let answer = answer.unwrap();
        assert_eq!(answer.notifies().contains(&more), told, "{asked}");
        let payloads = actor.create_child("10.1.0.0/24", asked);
        let answer = actor.request(&mut pair, ExchangeType::CREATE_CHILD_SA, &payloads);
        assert_eq!(answer.unwrap().notifies().contains(&more), told, "{asked}");
    }
}

#[test]
fn an_initiator_that_may_have_more_asks_when_packets_need_it() {
    let networks = ["10.2.0.0/24", "10.3.0.0/24"];
    let mut pair = Pair::with(|side, setup| {
        setup.children[0].start_action = StartAction::Trap;
        match side {
            Side::A => {
                setup.children[0].remote_ts = super::config::selectors(&networks);
            }
            Side::B => {
                let second = child(
                    "more",
                    2,
                    &["10.3.0.0/24"],
                    &["10.1.0.0/24"],
                    "aes256gcm16-x25519-esn-noesn",
                );
                setup.children.push(second);
            }
        }
    });
    for (round, host) in ["10.2.0.9", "10.3.0.9"].into_iter().enumerate() {
        let mut flow = super::control::flow();
        flow.dst = host.parse().unwrap();
        let reqid = Reqid(1);
        let event = SaEvent::Acquire {
            reqid,
            flow,
            worker: None,
        };
        pair.report(Side::A, event);
        pair.settle();
        assert_eq!(pair.children(Side::A).len(), round + 1);
    }
    assert!(pair.host(Side::A).logged("accepts more selectors"));
    pair.finish();
}

#[test]
fn both_roles_say_that_they_do_not_take_padding_for_traffic_flow_confidentiality() {
    let tfc = NotifyType::ESP_TFC_PADDING_NOT_SUPPORTED;
    let (mut pair, mut actor) = with_second_child();
    let payloads = actor.create_child(Side::A.network(), Side::B.network());
    let answer = actor.request(&mut pair, ExchangeType::CREATE_CHILD_SA, &payloads);
    assert!(answer.unwrap().notifies().contains(&tfc));
    pair.command(Side::B, initiate("lab"));
    let request = actor.take_request(&pair).unwrap();
    assert!(request.notifies().contains(&tfc));
}

#[test]
fn a_message_id_sync_that_was_not_agreed_on_is_ignored() {
    let (mut pair, mut actor) = with_second_child();
    // IKEV2_MESSAGE_ID_SYNC of RFC 6311: nonce, expected send and receive message IDs.
    let sync = notify(NotifyType(16422), &[1, 2, 3, 4, 0, 0, 0, 9, 0, 0, 0, 9]);
    let answer = actor.request(&mut pair, ExchangeType::INFORMATIONAL, &vec![sync]);
    assert!(answer.unwrap().payloads.is_empty());
    let answer = actor.request(&mut pair, ExchangeType::INFORMATIONAL, &vec![]);
    assert!(answer.is_some(), "the message IDs go on as before");
}

/// Keys would depend on what one side alone has chosen (RFC 7296 §2.10).
#[test]
fn a_rekeyed_ike_sa_with_our_own_nonce_as_the_peers_is_not_taken() {
    for reflects in [true, false] {
        let mut pair = Pair::new();
        let mut actor = Actor::connect(&mut pair, 1);
        let old = pair.ike_sa(Side::B).responder_spi;
        pair.command(Side::B, rekey_ike());
        let request = actor.take_request(&pair).unwrap();
        let own = request.body(PayloadType::NONCE).unwrap().to_vec();
        let nonce = if reflects { own } else { actor.nonce() };
        let mut proposals = ike_proposals(&[IKE]);
        proposals[0].spi = vec![0x77; 8];
        let exchange = actor.key_exchange(KeyExchangeId::X25519);
        let answer = vec![
            (PayloadType::SA, sa(&proposals)),
            (PayloadType::NONCE, nonce),
            (PayloadType::KE, ke(&exchange)),
        ];
        actor.answer(&mut pair, &request, &answer);
        let sas = pair.ike_sas(Side::B);
        let stays = sas.len() == 1 && sas[0].responder_spi == old;
        assert_eq!(stays, reflects);
    }
}

#[test]
fn what_is_answered_with_an_error_is_counted_by_its_kind() {
    let mut pair = Pair::new();
    let mut actor = Actor::connect(&mut pair, 1);
    let exchange = ExchangeType::CREATE_CHILD_SA;
    let (local, remote) = (Side::A.network(), Side::B.network());
    let selectors = actor.create_child("10.9.0.0/24", remote);
    let mut proposal = actor.create_child(local, remote);
    proposal[0].1 = super::session::child_sa("aes128ctr-sha512-noesn", 0x1234_5678);
    let gone = actor.rekey_child(0xdead_beef);
    let syntax = actor.create_child(local, remote)[..2].to_vec();
    for (payloads, counter) in [
        (selectors, Discard::RefusedSelectors),
        (proposal, Discard::RefusedProposal),
        (gone, Discard::RefusedRequest),
        (syntax, Discard::RefusedSyntax),
    ] {
        let before = pair.host(Side::B).all_discarded();
        let answer = actor.request(&mut pair, exchange, &payloads);
        assert!(answer.unwrap().error().is_some(), "{counter:?}");
        assert_eq!(pair.host(Side::B).discarded(counter), 1, "{counter:?}");
        assert_eq!(pair.host(Side::B).all_discarded(), before + 1);
    }
}
