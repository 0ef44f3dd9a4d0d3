//! MOBIKE (RFC 4555): gateways whose addresses change, and peers that only say so (HOSTILE B30).

use std::net::{IpAddr, SocketAddr};

use lockgate::ike::{Command, Discard, Path};
use lockgate::ipsec::SaEvent;
use lockgate::wire::ikev2::NotifyType;
use lockgate::wire::isakmp::ExchangeType;

use super::actor::{Actor, notify};
use super::config::{Setup, Side};
use super::network::{Fate, Nat};
use super::pair::{Pair, initiate, millis, rekey_child, rekey_ike, seconds};
use super::plane::Change;

fn roaming(_: Side, setup: &mut Setup) {
    setup.connection.mobike = true;
    setup.connection.local_addrs = vec![lockgate::ike::AddressPattern::Any];
}

fn addr(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// A tunnel between gateways that may roam, which `initiator` has set up.
fn up(initiator: Side) -> Pair {
    let mut pair = Pair::with(roaming);
    for side in Side::BOTH {
        pair.move_to(side, &[side.addr()]);
    }
    pair.command(initiator, initiate("lan"));
    pair.settle();
    pair.assert_tunnels(1);
    for side in Side::BOTH {
        pair.host(side).plane.take_history();
    }
    pair
}

fn spis(pair: &Pair) -> (u32, u32) {
    let child = pair.child(Side::A);
    (child.spi_in.get(), child.spi_out.get())
}

#[track_caller]
fn assert_moved(pair: &mut Pair, side: Side, to: IpAddr) {
    assert_eq!(pair.ike_sa(side).local.ip(), to, "{side:?}");
    assert_eq!(pair.ike_sa(side.other()).remote.ip(), to, "{side:?}'s peer");
    pair.assert_clean(1);
}

const ELSEWHERE: &str = "198.51.100.7";

#[test]
fn a_gateway_that_moves_takes_its_tunnel_along_without_a_rekey() {
    for initiator in Side::BOTH {
        for side in Side::BOTH {
            let mut pair = up(initiator);
            let before = spis(&pair);
            let sent = pair.net.sent();
            pair.move_to(side, &[addr(ELSEWHERE)]);
            // Our own half goes on at once.
            assert_eq!(pair.host(side).plane.take_history(), [Change::MoveOutbound]);
            pair.settle();
            let other = side.other();
            assert_eq!(
                pair.host(other).plane.take_history(),
                [Change::MoveOutbound]
            );
            assert_eq!(spis(&pair), before, "no new keys");
            assert_moved(&mut pair, side, addr(ELSEWHERE));
            let exchanges = pair.net.trace[sent..].iter();
            let mut exchanges = exchanges.map(|sent| sent.header.exchange);
            assert!(exchanges.all(|exchange| exchange == ExchangeType::INFORMATIONAL));
            pair.finish();
        }
    }
}

#[test]
fn data_follows_one_round_trip_after_the_peer_has_heard() {
    let mut pair = up(Side::A);
    let latency = pair.net.latency;
    pair.move_to(Side::A, &[addr(ELSEWHERE)]);
    pair.run_for(latency * 3);
    let history = pair.host(Side::B).plane.take_history();
    assert_eq!(history, [Change::MoveOutbound]);
    pair.finish();
}

#[test]
fn every_lost_doubled_or_late_message_of_a_move_is_made_good() {
    for side in Side::BOTH {
        let mut clean = up(Side::A);
        let first = clean.net.sent();
        clean.move_to(side, &[addr(ELSEWHERE)]);
        clean.run_for(seconds(30));
        let last = clean.net.sent();
        assert!(last - first >= 4, "{} messages", last - first);
        for number in first..last {
            for fate in [
                Fate::Drop,
                Fate::Twice(millis(0)),
                Fate::Twice(millis(900)),
                Fate::Late(millis(300)),
                Fate::Late(millis(3000)),
            ] {
                let mut pair = up(Side::A);
                pair.net.spoil(number, fate);
                pair.move_to(side, &[addr(ELSEWHERE)]);
                pair.run_for(seconds(60));
                assert_moved(&mut pair, side, addr(ELSEWHERE));
                pair.finish();
            }
        }
    }
}

#[test]
fn a_gateway_may_move_again_before_it_has_arrived() {
    for wait in [0, 5, 15, 25, 35, 45] {
        let mut pair = up(Side::A);
        pair.move_to(Side::A, &[addr(ELSEWHERE)]);
        pair.run_for(millis(wait));
        pair.move_to(Side::A, &[addr("203.0.113.9")]);
        pair.run_for(seconds(60));
        assert_moved(&mut pair, Side::A, addr("203.0.113.9"));
        pair.finish();
    }
}

#[test]
fn a_move_goes_together_with_every_exchange_of_either_side() {
    let commands: [fn() -> Command; 2] = [rekey_child, rekey_ike];
    for (side, command) in Side::BOTH
        .into_iter()
        .flat_map(|side| commands.map(|c| (side, c)))
    {
        for mover in Side::BOTH {
            for wait in [0, 5, 15, 25, 35] {
                let mut pair = up(Side::A);
                pair.command(side, command());
                pair.run_for(millis(wait));
                pair.move_to(mover, &[addr(ELSEWHERE)]);
                pair.run_for(seconds(120));
                assert_moved(&mut pair, mover, addr(ELSEWHERE));
                pair.finish();
            }
        }
    }
}

#[test]
fn an_address_that_comes_back_changes_nothing() {
    let mut pair = up(Side::A);
    let sent = pair.net.sent();
    for side in Side::BOTH {
        pair.move_to(side, &[side.addr(), addr("203.0.113.50")]);
    }
    pair.settle();
    assert_eq!(pair.net.sent(), sent);
    assert_eq!(pair.host(Side::A).plane.take_history(), []);
    pair.assert_clean(1);
    pair.finish();
}

#[test]
fn a_tunnel_of_which_one_side_does_not_roam_stays_where_it_is() {
    for fixed in Side::BOTH {
        let mut pair = Pair::with(|side, setup| {
            roaming(side, setup);
            setup.connection.mobike = side != fixed;
        });
        for side in Side::BOTH {
            pair.move_to(side, &[side.addr()]);
        }
        pair.command(Side::A, initiate("lan"));
        pair.settle();
        let sent = pair.net.sent();
        let own = [addr(ELSEWHERE), Side::A.addr()];
        pair.move_to(Side::A, &own);
        pair.settle();
        assert_eq!(pair.net.sent(), sent);
        pair.assert_clean(1);
        pair.finish();
    }
}

#[test]
fn a_peer_that_is_silent_at_one_address_is_tried_at_its_other_one() {
    let mut pair = Pair::with(|side, setup| {
        roaming(side, setup);
        if side == Side::A {
            setup.connection.dpd_delay = seconds(5);
        }
    });
    let other = addr("192.0.2.22");
    pair.move_to(Side::A, &[Side::A.addr()]);
    pair.move_to(Side::B, &[Side::B.addr(), other]);
    pair.command(Side::A, initiate("lan"));
    pair.settle();
    // The link with the first address fails, which B does not notice.
    pair.net.addresses[Side::B.index()] = vec![other];
    pair.run_for(seconds(60));
    assert_eq!(pair.ike_sa(Side::A).remote.ip(), other);
    pair.assert_packets_pass(1);
}

/// An authentic peer at A's place, with MOBIKE and the IKE SA from `Actor`.
fn insider() -> (Pair, Actor) {
    let mut pair = Pair::with(roaming);
    pair.run_for(millis(1));
    pair.move_to(Side::B, &[Side::B.addr()]);
    let mut actor = Actor::half_open(&mut pair, 1);
    let mut payloads = actor.auth();
    payloads.push(notify(NotifyType::MOBIKE_SUPPORTED, &[]));
    let answer = actor.request(&mut pair, ExchangeType::IKE_AUTH, &payloads);
    let answer = answer.unwrap();
    assert!(answer.notifies().contains(&NotifyType::MOBIKE_SUPPORTED));
    pair.host(Side::B).plane.take_history();
    (pair, actor)
}

/// UPDATE_SA_ADDRESSES from this address.
fn update_from(pair: &mut Pair, actor: &mut Actor, source: &str) -> Vec<NotifyType> {
    let path = Path {
        local: SocketAddr::new(Side::B.addr(), 500),
        remote: SocketAddr::new(addr(source), 500),
    };
    let payloads = vec![notify(NotifyType::UPDATE_SA_ADDRESSES, &[])];
    let answer = actor.request_on(pair, path, ExchangeType::INFORMATIONAL, &payloads);
    answer.unwrap().notifies()
}

#[test]
fn an_update_to_an_address_that_is_no_peers_is_refused() {
    for source in [
        "192.0.2.2",
        "255.255.255.255",
        "224.0.0.1",
        "0.0.0.0",
        "127.0.0.1",
    ] {
        let (mut pair, mut actor) = insider();
        let answer = update_from(&mut pair, &mut actor, source);
        assert!(
            answer.contains(&NotifyType::UNACCEPTABLE_ADDRESSES),
            "{source}"
        );
        assert_eq!(pair.ike_sa(Side::B).remote.ip(), Side::A.addr());
        assert!(actor.take_request(&pair).is_none(), "nothing to check");
        assert_eq!(pair.host(Side::B).plane.take_history(), []);
    }
}

#[test]
fn an_update_to_anothers_address_moves_nothing_until_cookie2_comes_back() {
    let (mut pair, mut actor) = insider();
    let before = pair.net.sent();
    update_from(&mut pair, &mut actor, "203.0.113.66");
    pair.run_for(seconds(5));
    // The victim gets the answer and some repetitions of the check, all of them short.
    let to_victim = pair.net.from(Side::B, before);
    assert!(to_victim.len() <= 6, "{} messages", to_victim.len());
    assert_eq!(pair.host(Side::B).plane.take_history(), []);
    pair.run_for(seconds(120));
    let history = pair.host(Side::B).plane.take_history();
    assert!(!history.contains(&Change::MoveOutbound), "{history:?}");
}

#[test]
fn where_nobody_answers_the_peer_is_asked_at_its_old_address() {
    let (mut pair, mut actor) = insider();
    update_from(&mut pair, &mut actor, "203.0.113.66");
    let check = actor.take_request(&pair).unwrap();
    pair.run_for(seconds(9));
    assert_eq!(pair.ike_sa(Side::B).remote.ip(), Side::A.addr());
    let cookie = check
        .body(lockgate::wire::isakmp::PayloadType::NOTIFY)
        .unwrap()
        .to_vec();
    let echo = vec![(lockgate::wire::isakmp::PayloadType::NOTIFY, cookie)];
    actor.answer(&mut pair, &check, &echo);
    pair.run_for(seconds(60));
    assert_eq!(pair.ike_sa(Side::B).remote.ip(), Side::A.addr());
    assert_eq!(pair.host(Side::B).plane.take_history(), []);
    assert_eq!(pair.children(Side::B).len(), 1, "it lives on");
}

#[test]
fn another_cookie2_ends_the_ike_sa() {
    for echo in [vec![], vec![notify(NotifyType::COOKIE2, &[7; 16])]] {
        let (mut pair, mut actor) = insider();
        update_from(&mut pair, &mut actor, "203.0.113.66");
        let check = actor.take_request(&pair).unwrap();
        actor.answer(&mut pair, &check, &echo);
        assert_eq!(pair.ike_sas(Side::B).len(), 0);
        let history = pair.host(Side::B).plane.take_history();
        assert!(!history.contains(&Change::MoveOutbound));
    }
}

#[test]
fn cookie2_and_nat_detection_of_the_peer_are_answered() {
    let (mut pair, mut actor) = insider();
    let payloads = vec![
        notify(NotifyType::COOKIE2, &[9; 64]),
        notify(NotifyType::NAT_DETECTION_SOURCE_IP, &[1; 20]),
        notify(NotifyType::NAT_DETECTION_DESTINATION_IP, &[1; 20]),
    ];
    let answer = actor.request(&mut pair, ExchangeType::INFORMATIONAL, &payloads);
    let kinds = answer.unwrap().notifies();
    for kind in [
        NotifyType::COOKIE2,
        NotifyType::NAT_DETECTION_SOURCE_IP,
        NotifyType::NAT_DETECTION_DESTINATION_IP,
    ] {
        assert!(kinds.contains(&kind), "{kinds:?}");
    }
    assert_eq!(
        pair.host(Side::B).plane.take_history(),
        [],
        "no other action"
    );
    for wrong in [&[9; 7][..], &[9; 65]] {
        let payloads = vec![notify(NotifyType::COOKIE2, wrong)];
        let answer = actor.request(&mut pair, ExchangeType::INFORMATIONAL, &payloads);
        assert_eq!(answer.unwrap().notifies(), []);
    }
}

#[test]
fn a_message_that_forbids_nats_and_met_one_is_told_so() {
    let (mut pair, mut actor) = insider();
    let mut honest = vec![192, 0, 2, 1, 192, 0, 2, 2, 500u16.to_be_bytes()[0], 244];
    honest.extend([500u16.to_be_bytes()[0], 244]);
    for (data, refused) in [
        (honest.clone(), false),
        (vec![0; 12], true),
        (vec![1], true),
    ] {
        let payloads = vec![
            notify(NotifyType::NO_ADDITIONAL_ADDRESSES, &[]),
            notify(NotifyType::NO_NATS_ALLOWED, &data),
        ];
        let answer = actor.request(&mut pair, ExchangeType::INFORMATIONAL, &payloads);
        let kinds = answer.unwrap().notifies();
        let told = kinds.contains(&NotifyType::UNEXPECTED_NAT_DETECTED);
        assert_eq!(told, refused, "{data:?}");
    }
}

#[test]
fn a_thousand_additional_addresses_are_not_kept() {
    let (mut pair, mut actor) = insider();
    let list: Vec<_> = (0..60u8)
        .map(|last| notify(NotifyType::ADDITIONAL_IP4_ADDRESS, &[203, 0, 113, last]))
        .collect();
    for _ in 0..17 {
        actor.request(&mut pair, ExchangeType::INFORMATIONAL, &list);
    }
    assert!(pair.host(Side::B).endpoint.remote_addresses().len() <= 9);
}

/// The NAT gives A another mapping; ESP shows it, and COOKIE2 confirms it.
#[test]
fn a_new_mapping_is_checked_before_data_goes_there() {
    let mut pair = Pair::with(roaming);
    pair.net.nat = Some(Nat {
        outside: addr("203.0.113.9"),
        shift: 20_000,
    });
    pair.setup(Side::B).connection.remote_addrs = vec![lockgate::ike::AddressPattern::Any];
    pair.restart(Side::B);
    for side in Side::BOTH {
        pair.move_to(side, &[side.addr()]);
    }
    pair.command(Side::A, initiate("lan"));
    pair.settle();
    pair.host(Side::B).plane.take_history();
    pair.net.nat.as_mut().unwrap().shift = 30_000;
    pair.send_packet(Side::A);
    pair.run_for(pair.net.latency);
    assert_eq!(pair.host(Side::B).plane.take_history(), [], "not yet");
    pair.settle();
    assert_eq!(
        pair.host(Side::B).plane.take_history(),
        [Change::MoveOutbound]
    );
    assert_eq!(pair.ike_sa(Side::B).remote.port(), 34_500);
    pair.assert_packets_pass(1);

    // Nobody answers where a replayed packet would have it go.
    let child = pair.child(Side::B);
    let event = SaEvent::PeerMoved {
        child: child.id,
        spi: child.spi_in,
        remote: "198.51.100.66:4500".parse().unwrap(),
    };
    pair.report(Side::B, event);
    pair.run_for(seconds(30));
    assert_eq!(pair.host(Side::B).plane.take_history(), []);
    assert_eq!(pair.ike_sa(Side::B).remote.port(), 34_500);
    pair.assert_packets_pass(1);
    assert_eq!(pair.host(Side::B).discarded(Discard::IntegrityFailed), 0);
}
