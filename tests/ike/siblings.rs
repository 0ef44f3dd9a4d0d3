//! A Child SA for every worker (RFC 9611).

use std::num::NonZeroU16;

use lockgate::ike::{ChildState, Command, CommandOutcome};
use lockgate::ipsec::{ChildId, Reqid, SaEvent, WorkerId};
use lockgate::wire::ip::Flow;
use lockgate::wire::isakmp::ExchangeType;

use super::config::{Setup, Side, esp_proposals};
use super::network::Fate;
use super::pair::{
    Pair, initiate, millis, rekey, rekey_child, rekey_ike, seconds, terminate_child, terminate_ike,
};

pub(crate) const LAN: Reqid = Reqid(1);

pub(crate) fn workers(a: u16, b: u16) -> impl Fn(Side, &mut Setup) {
    move |side, setup| {
        let count = [a, b][side.index()];
        setup.settings = lockgate::ike::Settings::new(NonZeroU16::new(count).unwrap());
    }
}

/// A worker has to hand packets from behind `side` to another worker.
pub(crate) fn ask(pair: &mut Pair, side: Side, worker: u16) {
    let [src, dst] = match side {
        Side::A => [[10, 1, 0, 7], [10, 2, 0, 8]],
        Side::B => [[10, 2, 0, 8], [10, 1, 0, 7]],
    };
    let flow = Flow {
        src: src.into(),
        dst: dst.into(),
        protocol: 6,
        ports: Some((40_000, 443)),
    };
    let event = SaEvent::Acquire {
        reqid: LAN,
        flow,
        worker: Some(WorkerId(worker)),
    };
    pair.report(side, event);
}

/// Every worker of a side that has no SA of its own asks for one.
pub(crate) fn ask_all(pair: &mut Pair, side: Side) {
    let workers = pair.setup(side).settings.workers.get();
    for worker in 0..workers {
        if pair.host(side).plane.own(LAN, WorkerId(worker)).is_none() {
            ask(pair, side, worker);
        }
    }
}

/// How many Child SAs each worker of a side has, by what `list-sas` says.
pub(crate) fn owners(pair: &Pair, side: Side, workers: u16) -> Vec<usize> {
    let children = pair.children(side);
    let count = |worker| {
        let own = children.iter().filter(|child| child.owner.0 == worker);
        own.count()
    };
    (0..workers).map(count).collect()
}

/// Both sides have the same Child SAs, all in use, and every worker's packets arrive.
#[track_caller]
pub(crate) fn assert_siblings(pair: &mut Pair, count: usize) {
    pair.run_for(seconds(12)); // the lingering of replaced ones is over, and new ones are settled
    let mut pairs = Vec::new();
    for side in Side::BOTH {
        let children = pair.children(side);
        assert_eq!(children.len(), count, "{side:?}: {children:?}");
        for child in &children {
            assert_eq!(child.state, ChildState::Installed, "{side:?}");
        }
        let counts = pair.host(side).plane.counts();
        assert_eq!(counts, (count, count), "{side:?}: SAs in the data plane");
        assert_eq!(pair.host(side).told(), (1, count), "{side:?}: told");
        let spis = children.iter().map(|child| match side {
            Side::A => (child.spi_in, child.spi_out),
            Side::B => (child.spi_out, child.spi_in),
        });
        let mut spis: Vec<_> = spis.collect();
        spis.sort();
        pairs.push(spis);
    }
    assert_eq!(pairs[0], pairs[1], "the SAs are not in pairs");
    let lost = pair.lost_packets;
    for side in Side::BOTH {
        pair.send_packet(side);
    }
    pair.settle();
    assert_eq!(pair.lost_packets, lost);
}

/// Two gateways with workers that have all asked; so many Child SAs have come of it.
fn all_up(a: u16, b: u16, count: usize) -> Pair {
    let mut pair = Pair::up_with(workers(a, b));
    for side in Side::BOTH {
        ask_all(&mut pair, side);
        pair.settle();
        pair.run_for(seconds(2));
    }
    assert_siblings(&mut pair, count);
    pair
}

fn child_command(pair: &Pair, side: Side, place: usize) -> (ChildId, Command) {
    let id = pair.children(side)[place].id;
    let command = Command::Terminate {
        ike: None,
        child: None,
        ike_id: None,
        child_id: Some(id.0),
        force: false,
    };
    (id, command)
}

#[test]
fn every_worker_that_asks_gets_a_child_sa_and_both_sides_spread_them() {
    for (a, b, count) in [
        (2, 4, 4),
        (4, 2, 4),
        (4, 4, 4),
        (1, 3, 3),
        (3, 1, 3),
        (1, 1, 1),
    ] {
        let mut pair = all_up(a, b, count);
        for (side, workers) in [(Side::A, a), (Side::B, b)] {
            let owners = owners(&pair, side, workers);
            let (fewest, most) = (owners.iter().min().unwrap(), owners.iter().max().unwrap());
            assert!(*fewest >= 1, "{a} and {b} workers, {side:?}: {owners:?}");
            assert!(
                most - fewest <= 1,
                "{a} and {b} workers, {side:?}: {owners:?}"
            );
        }
        let sent = pair.net.sent();
        for side in Side::BOTH {
            for worker in 0..8 {
                ask(&mut pair, side, worker);
            }
        }
        assert_eq!(pair.net.sent(), sent, "everybody has one");
        pair.finish();
    }
}

#[test]
fn the_selectors_and_algorithms_of_additional_child_sas_are_those_of_the_first() {
    let mut pair = Pair::up_with(|side, setup| {
        workers(4, 4)(side, setup);
        let proposals = [
            "aes128gcm16-aes256gcm16-x25519-noesn",
            "chacha20poly1305-esn-noesn",
        ];
        setup.children[0].esp_proposals = esp_proposals(&proposals);
    });
    ask_all(&mut pair, Side::A);
    pair.settle();
    assert_siblings(&mut pair, 4);
    for side in Side::BOTH {
        let children = pair.children(side);
        for child in &children {
            assert!(child.per_worker);
            assert_eq!(child.suite.cipher, children[0].suite.cipher);
            assert_eq!(child.suite.esn, children[0].suite.esn);
            assert_eq!(child.local_ts, children[0].local_ts);
            assert_eq!(child.remote_ts, children[0].remote_ts);
            assert_eq!(child.reqid, LAN);
        }
    }
    pair.finish();
}

#[test]
fn a_worker_that_asks_again_while_it_waits_is_not_given_two() {
    let mut pair = Pair::up_with(workers(4, 4));
    pair.net.decide(|_| Fate::Late(millis(300)));
    for _ in 0..5 {
        ask_all(&mut pair, Side::A);
        pair.run_for(millis(100));
    }
    pair.net.heal();
    pair.run_for(seconds(5));
    assert_siblings(&mut pair, 4);
    pair.finish();
}

#[test]
fn a_side_that_does_not_want_them_gets_one_child_sa_and_is_never_asked() {
    for off in Side::BOTH {
        let mut pair = Pair::up_with(|side, setup| {
            workers(4, 4)(side, setup);
            setup.children[0].per_cpu_sas = side != off;
        });
        let sent = pair.net.sent();
        for side in Side::BOTH {
            ask_all(&mut pair, side);
            assert!(!pair.child(side).per_worker);
        }
        assert_eq!(pair.net.sent(), sent);
        pair.command(Side::A, rekey_child());
        pair.settle();
        for side in Side::BOTH {
            ask_all(&mut pair, side);
        }
        assert_siblings(&mut pair, 1);
        pair.finish();
    }
}

#[test]
fn workers_of_both_sides_that_ask_at_once_are_all_served() {
    for (a, b) in [(2, 2), (2, 4), (4, 2), (4, 4)] {
        for seed in 0..4 {
            let mut pair = Pair::up_seeded(seed, workers(a, b));
            pair.start_traffic(millis(1));
            for side in Side::BOTH {
                ask_all(&mut pair, side);
            }
            pair.settle_traffic();
            assert_eq!(pair.lost_packets, 0);
            let count = pair.children(Side::A).len();
            assert!(
                count <= usize::from(a.max(b)) + 1,
                "{count} for {a} and {b}"
            );
            assert_siblings(&mut pair, count);
            for (side, workers) in [(Side::A, a), (Side::B, b)] {
                let owners = owners(&pair, side, workers);
                assert!(owners.iter().all(|own| *own >= 1), "{side:?}: {owners:?}");
            }
            pair.finish();
        }
    }
}

/// What a test does to two gateways whose workers may ask.
type Story = (&'static str, fn(&mut Pair), Option<usize>);

/// Each with the number of Child SAs that are to be left, if that does not depend on the order.
const STORIES: [Story; 6] = [
    ("one side asks", |pair| ask_all(pair, Side::A), Some(3)),
    (
        "the other side asks",
        |pair| ask_all(pair, Side::B),
        Some(3),
    ),
    (
        "both sides ask",
        |pair| Side::BOTH.into_iter().for_each(|side| ask_all(pair, side)),
        None,
    ),
    (
        "a side asks while the other one rekeys the child",
        |pair| {
            pair.command(Side::B, rekey_child());
            ask_all(pair, Side::A);
        },
        Some(3),
    ),
    (
        "a side asks while the other one rekeys the IKE SA",
        |pair| {
            pair.command(Side::B, rekey_ike());
            ask_all(pair, Side::A);
        },
        Some(3),
    ),
    (
        "a side asks and rekeys everything",
        |pair| {
            ask_all(pair, Side::A);
            pair.command(Side::A, rekey_ike());
            pair.command(Side::A, rekey_child());
        },
        Some(3),
    ),
];

#[test]
fn no_lost_repeated_or_late_message_leaves_the_sides_with_different_child_sas() {
    for (name, story, count) in STORIES {
        let mut messages = None;
        let mut fault = 0;
        while messages.is_none_or(|messages| fault < messages) {
            for fate in [Fate::Drop, Fate::Twice(millis(700)), Fate::Late(millis(35))] {
                println!("{name}: message {fault} {fate:?}");
                let mut pair = Pair::up_with(workers(3, 3));
                let before = pair.net.sent();
                pair.net.spoil(before + fault, fate);
                pair.start_traffic(millis(50));
                story(&mut pair);
                pair.run_for(seconds(12));
                pair.stop_traffic();
                messages.get_or_insert(pair.net.sent() - before);
                assert_eq!(pair.lost_packets, 0, "{name}: message {fault} {fate:?}");
                let left = pair.children(Side::A).len();
                assert_eq!(
                    left,
                    count.unwrap_or(left),
                    "{name}: message {fault} {fate:?}"
                );
                assert_siblings(&mut pair, left);
                pair.finish();
            }
            fault += 1;
        }
    }
}

#[test]
fn each_is_rekeyed_for_itself_and_stays_with_its_worker() {
    for side in Side::BOTH {
        let mut pair = all_up(2, 4, 4);
        let before = Side::BOTH.map(|side| owners(&pair, side, 4));
        pair.start_traffic(millis(1));
        pair.command(side, rekey_child());
        pair.settle_traffic();
        assert_eq!(pair.lost_packets, 0);
        assert_siblings(&mut pair, 4);
        assert_eq!(Side::BOTH.map(|side| owners(&pair, side, 4)), before);
        for side in Side::BOTH {
            assert!(pair.children(side).iter().all(|child| child.per_worker));
        }
        pair.finish();
    }
}

#[test]
fn both_sides_may_rekey_all_of_them_at_once() {
    for seed in 0..4 {
        let mut pair = Pair::up_seeded(seed, workers(3, 3));
        ask_all(&mut pair, Side::A);
        pair.run_for(seconds(6));
        pair.start_traffic(millis(20));
        for side in Side::BOTH {
            pair.command(side, rekey_child());
        }
        pair.run_for(seconds(30));
        pair.stop_traffic();
        assert_eq!(pair.lost_packets, 0);
        assert_siblings(&mut pair, 3);
        for side in Side::BOTH {
            assert_eq!(owners(&pair, side, 3), [1, 1, 1], "{side:?}");
        }
        pair.finish();
    }
}

#[test]
fn any_of_them_may_be_deleted_and_the_others_stay() {
    for side in Side::BOTH {
        for place in 0..3 {
            let mut pair = all_up(3, 3, 3);
            pair.start_traffic(millis(1));
            let (gone, command) = child_command(&pair, side, place);
            let owner = pair.children(side)[place].owner;
            let id = pair.command(side, command);
            pair.run_for(millis(100));
            let done = CommandOutcome {
                matches: 1,
                terminated: 1,
                ..CommandOutcome::default()
            };
            assert_eq!(pair.result(side, id), Some(Ok(done)));
            pair.stop_traffic();
            assert_eq!(pair.lost_packets, 0);
            assert!(pair.children(side).iter().all(|child| child.id != gone));
            let sent = pair.net.sent();
            for side in Side::BOTH {
                ask_all(&mut pair, side);
            }
            assert_eq!(pair.net.sent(), sent, "too early to want it back");
            assert_siblings(&mut pair, 2);
            pair.run_for(seconds(4));
            ask(&mut pair, side, owner.0);
            pair.settle();
            assert_siblings(&mut pair, 3);
            pair.finish();
        }
    }
}

#[test]
fn a_child_that_is_terminated_is_gone_as_a_whole() {
    for side in Side::BOTH {
        let mut pair = all_up(3, 3, 3);
        pair.gapless = false; // there is none left to send on
        let id = pair.command(side, terminate_child());
        for _ in 0..100 {
            pair.run_for(millis(5));
            for side in Side::BOTH {
                ask_all(&mut pair, side);
            }
        }
        let outcome = pair.result(side, id).unwrap().unwrap();
        assert_eq!((outcome.matches, outcome.terminated), (3, 3));
        pair.run_for(seconds(6));
        for side in Side::BOTH {
            assert!(pair.children(side).is_empty());
            assert_eq!(pair.host(side).plane.counts(), (0, 0));
        }
        pair.finish();
    }
}

#[test]
fn a_rekeyed_ike_sa_keeps_them_and_goes_on_to_make_more() {
    for side in Side::BOTH {
        let mut pair = Pair::up_with(workers(3, 3));
        ask(&mut pair, Side::A, 0);
        ask(&mut pair, Side::A, 1);
        pair.settle();
        pair.run_for(seconds(2));
        let before = pair.children(Side::A).len();
        pair.command(side, rekey_ike());
        pair.settle();
        pair.run_for(seconds(2));
        assert_siblings(&mut pair, before);
        for side in Side::BOTH {
            ask_all(&mut pair, side);
            pair.run_for(seconds(2));
        }
        assert_siblings(&mut pair, 3);
        pair.finish();
    }
}

#[test]
fn a_new_authentication_begins_with_one_of_them() {
    let mut pair = all_up(3, 3, 3);
    pair.gapless = false; // as with any first Child SA, the responder sends before it is heard
    pair.command(Side::A, rekey(None, true));
    pair.settle();
    assert_siblings(&mut pair, 1);
    pair.run_for(seconds(5));
    ask_all(&mut pair, Side::A);
    pair.settle();
    assert_siblings(&mut pair, 3);
    pair.finish();
}

#[test]
fn a_restarted_peer_gets_them_anew() {
    for side in Side::BOTH {
        let mut pair = all_up(3, 3, 3);
        pair.restart(side);
        pair.run_for(seconds(1));
        pair.command(side, initiate("lan"));
        pair.run_for(seconds(20));
        assert_siblings(&mut pair, 1);
        ask_all(&mut pair, side);
        pair.settle();
        assert_siblings(&mut pair, 3);
        pair.finish();
    }
}

#[test]
fn a_dead_peer_takes_all_of_them_away_and_they_are_not_tried_again_for_their_workers() {
    let mut pair = Pair::up_with(|side, setup| {
        workers(3, 3)(side, setup);
        setup.connection.keyingtries = 0;
    });
    pair.gapless = false;
    pair.net.decide(|_| Fate::Drop);
    ask_all(&mut pair, Side::A);
    pair.run_for(seconds(40));
    pair.host(Side::A).assert_empty("the side that asked");
    pair.net.heal();
    pair.finish();
}

#[test]
fn a_reload_that_switches_them_off_deletes_the_additional_ones() {
    let mut pair = all_up(3, 3, 3);
    pair.gapless = false; // what is not announced is an ordinary one
    pair.setup(Side::B).children[0].per_cpu_sas = false;
    let pad = pair.setup(Side::B).pad();
    let now = pair.now;
    pair.host(Side::B).reload(now, pad);
    pair.collect();
    pair.run_for(seconds(20));
    ask_all(&mut pair, Side::A);
    pair.settle();
    // The first request tells that the peer takes it for an ordinary one.
    assert_siblings(&mut pair, 2);
    for side in Side::BOTH {
        ask_all(&mut pair, side);
    }
    assert_siblings(&mut pair, 2);
    pair.finish();
}

#[test]
fn a_lifetime_that_ends_one_of_them_leaves_the_others() {
    let mut pair = all_up(3, 3, 3);
    let child = pair.children(Side::A)[1].id;
    pair.report(Side::A, SaEvent::HardLifetime { child });
    pair.settle();
    assert_siblings(&mut pair, 2);
    let child = pair.children(Side::A)[0].id;
    pair.report(Side::A, SaEvent::SoftLifetime { child });
    pair.settle();
    assert_siblings(&mut pair, 2);
    pair.finish();
}

#[test]
fn a_responder_sends_on_an_additional_child_sa_only_when_its_peer_has_the_answer() {
    let mut pair = Pair::up_with(workers(2, 2));
    let asking = WorkerId(1 - pair.child(Side::A).owner.0);
    // The answer is lost again and again: B must not send what A cannot open.
    let mut lost = 0;
    pair.net.decide(move |sent| {
        if sent.is(ExchangeType::CREATE_CHILD_SA, true) && lost < 3 {
            lost += 1;
            return Fate::Drop;
        }
        Fate::Deliver
    });
    pair.start_traffic(millis(10));
    ask(&mut pair, Side::A, asking.0);
    pair.run_for(millis(3200));
    assert_eq!(pair.host(Side::B).plane.sealers().len(), 1);
    pair.run_for(seconds(1));
    pair.stop_traffic();
    assert_eq!(pair.lost_packets, 0);
    assert_eq!(pair.host(Side::B).plane.sealers().len(), 2);
    pair.finish();
}

#[test]
fn an_additional_child_sa_is_used_by_the_responder_even_if_the_peer_sends_nothing() {
    let mut pair = Pair::up_with(workers(2, 2));
    let asking = WorkerId(1 - pair.child(Side::A).owner.0);
    ask(&mut pair, Side::A, asking.0);
    pair.settle();
    assert_eq!(pair.host(Side::B).plane.counts(), (2, 1));
    pair.run_for(seconds(6));
    assert_eq!(pair.host(Side::B).plane.counts(), (2, 2));
    pair.finish();
}

#[test]
fn an_ike_sa_that_ends_takes_all_of_them_along() {
    for side in Side::BOTH {
        let mut pair = all_up(2, 4, 4);
        pair.gapless = false;
        pair.command(side, terminate_ike());
        pair.settle();
        for side in Side::BOTH {
            assert!(pair.ike_sas(side).is_empty());
            assert_eq!(pair.host(side).plane.counts(), (0, 0));
        }
        pair.finish();
    }
}
