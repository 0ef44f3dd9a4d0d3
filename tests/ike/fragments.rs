//! Messages in fragments (RFC 7383): cut, late, lost, doubled, in any order, and hostile (HOSTILE B17).

use lockgate::ike::{Discard, Fragmentation, IkeState};
use lockgate::wire::ikev2::{FragmentHeader, NotifyType};
use lockgate::wire::isakmp::{ExchangeType, IkeSpi, PayloadType};

use super::actor::{Actor, Payloads, init_request, join, notify};
use super::config::{Setup, Side, selectors};
use super::network::{Fate, Sent};
use super::pair::{Pair, initiate, millis, rekey_child, rekey_ike, seconds};

/// So many selectors on each side that every message with selectors has three or four fragments.
fn wide(side: Side, setup: &mut Setup) {
    let list = |side: Side| {
        let nets = (0..30).map(|net| format!("10.{}.{}.0/24", side as u8 + 1, 2 * net));
        nets.collect::<Vec<_>>()
    };
    let (local, remote) = (list(side), list(side.other()));
    let texts = |list: &[String]| {
        let texts: Vec<&str> = list.iter().map(String::as_str).collect();
        selectors(&texts)
    };
    setup.children[0].local_ts = texts(&local);
    setup.children[0].remote_ts = texts(&remote);
    setup.settings.fragment_size = 576;
}

/// The numbers of a fragment; `None` for a whole message.
fn fragment(sent: &Sent) -> Option<FragmentHeader> {
    let is_fragment = sent.header.next_payload == PayloadType::SKF;
    is_fragment.then(|| FragmentHeader::parse(&sent.transmit.bytes[32..]).unwrap().0)
}

/// Fragments of one kind of message that were sent since the trace was so long.
fn fragments(pair: &Pair, exchange: ExchangeType, response: bool, since: usize) -> Vec<u16> {
    let sent = pair.net.trace[since..].iter();
    let sent = sent.filter(|sent| sent.is(exchange, response));
    sent.filter_map(fragment)
        .map(|fragment| fragment.number)
        .collect()
}

/// Every order of `0..count`.
fn orders(count: usize) -> Vec<Vec<usize>> {
    if count == 0 {
        return vec![vec![]];
    }
    let shorter = orders(count - 1).into_iter();
    let longer = shorter.flat_map(|order| {
        (0..count).map(move |place| {
            let mut order = order.clone();
            order.insert(place, count - 1);
            order
        })
    });
    longer.collect()
}

const MESSAGES: [(ExchangeType, bool); 4] = [
    (ExchangeType::IKE_AUTH, false),
    (ExchangeType::IKE_AUTH, true),
    (ExchangeType::CREATE_CHILD_SA, false),
    (ExchangeType::CREATE_CHILD_SA, true),
];

/// Brings the tunnel up and rekeys its child.
fn up_and_rekeyed(pair: &mut Pair) {
    pair.command(Side::A, initiate("lan"));
    pair.run_for(seconds(20));
    pair.command(Side::A, rekey_child());
    pair.run_for(seconds(20));
    pair.assert_clean(1);
}

#[test]
fn long_messages_are_cut_and_put_together() {
    for size in [576, 700, 900] {
        let mut pair = Pair::with(|side, setup| {
            wide(side, setup);
            setup.settings.fragment_size = size;
        });
        up_and_rekeyed(&mut pair);
        for (exchange, response) in MESSAGES {
            let numbers = fragments(&pair, exchange, response, 0);
            let total = u16::try_from(numbers.len()).unwrap();
            assert!(total >= 2, "{exchange} {response}: {numbers:?}");
            assert!(numbers.iter().copied().eq(1..=total), "{numbers:?}");
        }
        for sent in &pair.net.trace {
            let datagram = sent.transmit.bytes.len() + 20 + 8;
            assert!(datagram <= usize::from(size), "{sent}: {datagram} bytes");
        }
        for side in Side::BOTH {
            pair.command(side, rekey_ike());
            pair.settle();
            let before = pair.net.sent();
            pair.command(side, rekey_child());
            pair.run_for(seconds(6));
            let cut = fragments(&pair, ExchangeType::CREATE_CHILD_SA, false, before);
            assert!(cut.len() >= 2, "also on the successor");
        }
        pair.assert_clean(1);
        pair.finish();
    }
}

#[test]
fn a_message_that_fits_is_sent_whole() {
    let mut pair = Pair::up();
    pair.command(Side::A, rekey_child());
    pair.run_for(seconds(6));
    assert!(pair.net.trace.iter().all(|sent| fragment(sent).is_none()));
    pair.finish();
}

#[test]
fn fragments_are_sent_where_both_sides_have_announced_them_and_the_sender_wants_to() {
    let all = [Fragmentation::Yes, Fragmentation::Accept, Fragmentation::No];
    for (a, b) in all.into_iter().flat_map(|a| all.map(|b| (a, b))) {
        let mut pair = Pair::with(|side, setup| {
            wide(side, setup);
            setup.connection.fragmentation = if side == Side::A { a } else { b };
        });
        up_and_rekeyed(&mut pair);
        let negotiated = a != Fragmentation::No && b != Fragmentation::No;
        for (side, own) in [(Side::A, a), (Side::B, b)] {
            let cut = pair
                .net
                .from(side, 0)
                .into_iter()
                .filter_map(fragment)
                .count();
            let expected = negotiated && own == Fragmentation::Yes;
            assert_eq!(cut > 0, expected, "{side:?} with {a:?} and {b:?}");
        }
        pair.finish();
    }
}

#[test]
fn fragments_may_arrive_in_any_order() {
    for (exchange, response) in MESSAGES {
        let mut clean = Pair::with(wide);
        up_and_rekeyed(&mut clean);
        let count = fragments(&clean, exchange, response, 0).len();
        assert!((3..=4).contains(&count), "{count}");
        for order in orders(count) {
            let mut pair = Pair::with(wide);
            let late = order.clone();
            pair.net.decide(move |sent| match fragment(sent) {
                Some(fragment) if sent.is(exchange, response) => {
                    let place = late[usize::from(fragment.number) - 1];
                    Fate::Late(millis(20 * u64::try_from(place).unwrap()))
                }
                _ => Fate::Deliver,
            });
            up_and_rekeyed(&mut pair);
            let sent = fragments(&pair, exchange, response, 0).len();
            assert_eq!(
                sent, count,
                "{exchange} {response} {order:?}: no repetition"
            );
            for side in Side::BOTH {
                assert_eq!(pair.host(side).all_discarded(), 0, "{order:?}");
            }
            pair.finish();
        }
    }
}

#[test]
fn a_lost_doubled_or_late_fragment_is_repaired_by_repeating_the_whole_message() {
    for (exchange, response) in MESSAGES {
        for number in 1..=4 {
            for fate in [
                Fate::Drop,
                Fate::Twice(millis(0)),
                Fate::Twice(millis(3000)),
                Fate::Late(millis(700)),
                Fate::Late(millis(12_000)),
            ] {
                let mut pair = Pair::with(wide);
                let mut spent = false;
                pair.net.decide(move |sent| {
                    let meant = fragment(sent).is_some_and(|fragment| fragment.number == number);
                    if meant && sent.is(exchange, response) && !spent {
                        spent = true;
                        return fate;
                    }
                    Fate::Deliver
                });
                up_and_rekeyed(&mut pair);
                let sent = fragments(&pair, exchange, response, 0);
                let all = usize::from(*sent.iter().max().unwrap());
                let repeated = !matches!(fate, Fate::Twice(_)) && usize::from(number) <= all;
                let times = if repeated { 2 } else { 1 };
                // Fragment 1 of a request that has been answered brings the answer again.
                let more = sent.len().saturating_sub(times * all);
                assert_eq!(
                    sent.len() % all,
                    0,
                    "{exchange} {response} {number} {fate:?}"
                );
                assert!(sent.len() >= times * all && more <= all, "{sent:?}");
                pair.finish();
            }
        }
    }
}

#[test]
fn under_loss_of_a_tenth_fragmented_exchanges_end_well() {
    for seed in 0..20_u64 {
        let mut pair = Pair::seeded(seed, |side, setup| {
            wide(side, setup);
            setup.settings.retransmit.tries = 20;
        });
        let mut state = seed + 1;
        pair.net.decide(move |_| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            match (state >> 33) % 10 {
                0 => Fate::Drop,
                1 => Fate::Twice(millis(40)),
                2 => Fate::Late(millis(30)),
                _ => Fate::Deliver,
            }
        });
        pair.command(Side::A, initiate("lan"));
        pair.run_for(seconds(300));
        pair.command(Side::B, rekey_child());
        pair.run_for(seconds(300));
        pair.net.heal();
        pair.run_for(seconds(60));
        pair.assert_clean(1);
        pair.finish();
    }
}

#[test]
fn only_fragment_one_of_an_answered_request_brings_the_answer_again() {
    let mut pair = Pair::up_with(wide);
    let before = pair.net.sent();
    pair.command(Side::A, rekey_child());
    pair.settle();
    let sent = pair.net.trace[before..].iter();
    let request: Vec<_> = sent
        .filter(|sent| sent.is(ExchangeType::CREATE_CHILD_SA, false))
        .map(|sent| sent.transmit.bytes.clone())
        .collect();
    pair.run_for(seconds(1));
    // The DELETE that followed is the last request, so its own repetition is the one to look at.
    let stale = pair.host(Side::B).all_discarded();
    for bytes in &request {
        let before = pair.net.sent();
        pair.inject(Side::B, bytes);
        assert_eq!(pair.net.sent(), before, "an old request is not answered");
    }
    assert_eq!(
        pair.host(Side::B).all_discarded(),
        stale + request.len() as u64
    );

    let mut pair = Pair::with(wide);
    pair.command(Side::A, initiate("lan"));
    pair.settle();
    let sent = pair.net.trace.iter();
    let request: Vec<_> = sent
        .filter(|sent| sent.is(ExchangeType::IKE_AUTH, false))
        .map(|sent| sent.transmit.bytes.clone())
        .collect();
    let answer = fragments(&pair, ExchangeType::IKE_AUTH, true, 0).len();
    for (place, bytes) in request.iter().enumerate() {
        let before = pair.net.sent();
        pair.inject(Side::B, bytes);
        let expected = if place == 0 { answer } else { 0 };
        assert_eq!(pair.net.sent() - before, expected, "fragment {}", place + 1);
        pair.settle();
    }
    pair.assert_clean(1);
    pair.finish();
}

/// A peer with an IKE SA and what a request for one more child looks like in pieces of 60 bytes.
fn hostile() -> (Pair, Actor, Vec<(PayloadType, Vec<u8>)>) {
    let mut pair = Pair::new();
    pair.run_for(millis(1));
    let mut actor = Actor::connect(&mut pair, 1);
    let payloads = actor.create_child("10.1.0.0/24", "10.2.0.0/24");
    let pieces = cut(&payloads, 60);
    (pair, actor, pieces)
}

fn cut(payloads: &Payloads, size: usize) -> Vec<(PayloadType, Vec<u8>)> {
    let (first, text) = join(payloads);
    let kinds = std::iter::once(first).chain(std::iter::repeat(PayloadType::NONE));
    kinds.zip(text.chunks(size).map(<[u8]>::to_vec)).collect()
}

/// Sends piece `number`, which claims to be one of `total`.
fn send_piece(
    pair: &mut Pair,
    actor: &mut Actor,
    pieces: &[(PayloadType, Vec<u8>)],
    number: usize,
    total: usize,
) {
    let (first, text) = &pieces[number - 1];
    let numbers = (
        u16::try_from(number).unwrap(),
        u16::try_from(total).unwrap(),
    );
    let id = actor.next_id;
    let bytes = actor.fragment(ExchangeType::CREATE_CHILD_SA, id, *first, numbers, text);
    actor.send(pair, &bytes);
}

/// All pieces in order make a Child SA.
#[track_caller]
fn assert_accepts(pair: &mut Pair, actor: &mut Actor, pieces: &[(PayloadType, Vec<u8>)]) {
    let before = pair.children(Side::B).len();
    for number in 1..=pieces.len() {
        send_piece(pair, actor, pieces, number, pieces.len());
    }
    assert_eq!(pair.children(Side::B).len(), before + 1);
}

#[test]
fn impossible_fragment_numbers_are_counted_and_change_nothing() {
    let (mut pair, mut actor, pieces) = hostile();
    let id = actor.next_id;
    let (first, text) = &pieces[0];
    for (numbers, reason) in [
        ((0, 3), Discard::Malformed),
        ((0, 0), Discard::Malformed),
        ((1, 0), Discard::Malformed),
        ((4, 3), Discard::Malformed),
        ((65535, 65535), Discard::FragmentLimit),
        ((1, 65), Discard::FragmentLimit),
    ] {
        let before = (pair.net.sent(), pair.host(Side::B).discarded(reason));
        let bytes = actor.fragment(ExchangeType::CREATE_CHILD_SA, id, *first, numbers, text);
        actor.send(&mut pair, &bytes);
        assert_eq!(
            pair.host(Side::B).discarded(reason),
            before.1 + 1,
            "{numbers:?}"
        );
        assert_eq!(pair.net.sent(), before.0);
    }
    assert_eq!(
        pair.host(Side::B).endpoint.next_timeout(),
        None,
        "nothing is kept"
    );
    assert_accepts(&mut pair, &mut actor, &pieces);
}

#[test]
fn a_finer_cut_starts_over_and_a_coarser_one_is_ignored() {
    let (mut pair, mut actor, coarse) = hostile();
    let text: Vec<u8> = coarse.iter().flat_map(|(_, text)| text.clone()).collect();
    let fine: Vec<_> = text.chunks(40).map(<[u8]>::to_vec).collect();
    let kinds = std::iter::once(coarse[0].0).chain(std::iter::repeat(PayloadType::NONE));
    let fine: Vec<_> = kinds.zip(fine).collect();
    send_piece(&mut pair, &mut actor, &coarse, 1, coarse.len());
    send_piece(&mut pair, &mut actor, &fine, 1, fine.len());
    let stale = pair.host(Side::B).discarded(Discard::StaleFragment);
    for number in 2..=coarse.len() {
        send_piece(&mut pair, &mut actor, &coarse, number, coarse.len());
    }
    let ignored = pair.host(Side::B).discarded(Discard::StaleFragment) - stale;
    assert_eq!(ignored, coarse.len() as u64 - 1);
    for number in 2..=fine.len() {
        assert_eq!(pair.children(Side::B).len(), 1);
        send_piece(&mut pair, &mut actor, &fine, number, fine.len());
    }
    assert_eq!(pair.children(Side::B).len(), 2);
}

#[test]
fn a_second_fragment_of_a_number_is_ignored_whatever_it_holds() {
    let (mut pair, mut actor, pieces) = hostile();
    send_piece(&mut pair, &mut actor, &pieces, 1, pieces.len());
    let mut other = pieces.clone();
    other[0] = (PayloadType::DELETE, vec![0xff; 60]);
    send_piece(&mut pair, &mut actor, &other, 1, pieces.len());
    assert_eq!(pair.host(Side::B).discarded(Discard::StaleFragment), 1);
    for number in 2..=pieces.len() {
        send_piece(&mut pair, &mut actor, &pieces, number, pieces.len());
    }
    assert_eq!(pair.children(Side::B).len(), 2);
}

#[test]
fn a_forged_fragment_takes_no_place() {
    let (mut pair, mut actor, pieces) = hostile();
    let (first, text) = &pieces[0];
    let id = actor.next_id;
    let total = u16::try_from(pieces.len()).unwrap();
    let good = actor.fragment(ExchangeType::CREATE_CHILD_SA, id, *first, (1, total), text);
    for place in 0..good.len() {
        let mut forged = good.clone();
        forged[place] ^= 0x01;
        pair.inject(Side::B, &forged);
    }
    assert_eq!(
        pair.host(Side::B).endpoint.next_timeout(),
        None,
        "nothing is kept"
    );
    assert_accepts(&mut pair, &mut actor, &pieces);
}

#[test]
fn fragments_that_stay_alone_are_forgotten_after_ten_seconds() {
    let (mut pair, mut actor, pieces) = hostile();
    let start = pair.now;
    send_piece(&mut pair, &mut actor, &pieces, 2, pieces.len());
    let due = pair.host(Side::B).endpoint.next_timeout();
    assert_eq!(due, Some(start + seconds(10)));
    pair.run_for(seconds(11));
    assert_eq!(pair.host(Side::B).endpoint.next_timeout(), None);
    assert_accepts(&mut pair, &mut actor, &pieces);
}

#[test]
fn no_more_than_64_kib_wait_for_the_rest_of_a_message() {
    let (mut pair, mut actor, pieces) = hostile();
    let id = actor.next_id;
    let huge = vec![0; 12 * 1024];
    for number in 1..=8 {
        let kind = PayloadType::VENDOR_ID;
        let numbers = (number, 8);
        let bytes = actor.fragment(ExchangeType::CREATE_CHILD_SA, id, kind, numbers, &huge);
        actor.send(&mut pair, &bytes);
        let over = pair.host(Side::B).discarded(Discard::FragmentLimit);
        assert_eq!(
            over,
            u64::from(number).saturating_sub(5),
            "fragment {number}"
        );
    }
    pair.run_for(seconds(11));
    assert_accepts(&mut pair, &mut actor, &pieces);
}

#[test]
fn a_reassembled_message_is_judged_like_a_whole_one() {
    let (mut pair, mut actor, pieces) = hostile();
    let mut wrong = pieces.clone();
    wrong[0].0 = PayloadType::TS_I; // not what the first payload is
    for number in 1..=wrong.len() {
        send_piece(&mut pair, &mut actor, &wrong, number, wrong.len());
    }
    assert_eq!(
        pair.ike_sas(Side::B).len(),
        0,
        "INVALID_SYNTAX ends an IKE SA"
    );
}

#[test]
fn a_fragment_where_none_belongs_is_ignored() {
    // In IKE_SA_INIT.
    let mut pair = Pair::new();
    let body = [0, 1, 0, 1].into_iter().chain([7; 60]).collect();
    let request = init_request(IkeSpi([9; 8]), vec![(PayloadType::SKF, body)]);
    pair.inject(Side::B, &request);
    assert_eq!(pair.host(Side::B).discarded(Discard::BadPayload), 1);
    assert_eq!(pair.host(Side::B).endpoint.half_open(), 0);

    // Where it was not negotiated.
    let mut pair = Pair::with(|_, setup| setup.connection.fragmentation = Fragmentation::No);
    let mut actor = Actor::connect(&mut pair, 1);
    let payloads = actor.create_child("10.1.0.0/24", "10.2.0.0/24");
    let pieces = cut(&payloads, 60);
    for number in 1..=pieces.len() {
        send_piece(&mut pair, &mut actor, &pieces, number, pieces.len());
    }
    let ignored = pair.host(Side::B).discarded(Discard::NotProtected);
    assert_eq!(ignored, pieces.len() as u64);
    assert_eq!(pair.children(Side::B).len(), 1);

    // Together with an SK payload, either way round.
    let (mut pair, mut actor, _) = hostile();
    let before = pair.host(Side::B).all_discarded();
    let id = actor.next_id;
    let (first, text) = join(&vec![notify(NotifyType::COOKIE, &[1])]);
    let mut bytes = actor.fragment(ExchangeType::INFORMATIONAL, id, first, (1, 1), &text);
    bytes.extend_from_slice(&[0, 0, 0, 8, 1, 2, 3, 4]);
    let length = u32::try_from(bytes.len()).unwrap();
    bytes[24..28].copy_from_slice(&length.to_be_bytes());
    pair.inject(Side::B, &bytes);
    assert_eq!(pair.host(Side::B).all_discarded(), before + 1);
    assert_eq!(pair.ike_sa(Side::B).state, IkeState::Established);
}

#[test]
fn a_single_fragment_is_a_message() {
    let (mut pair, mut actor, pieces) = hostile();
    let text: Vec<u8> = pieces.iter().flat_map(|(_, text)| text.clone()).collect();
    let whole = vec![(pieces[0].0, text)];
    assert_accepts(&mut pair, &mut actor, &whole);
}

#[test]
fn strangers_that_send_first_fragments_only_fill_no_memory() {
    let mut pair = Pair::with(|_, setup| {
        setup.settings.cookie_threshold = 10_000;
        setup.settings.cookie_rate = 10_000;
        setup.settings.half_open_per_address = 1000;
    });
    let huge = vec![0; 15 * 1024];
    for seed in 0..320 {
        let mut actor = Actor::half_open(&mut pair, seed);
        let kind = PayloadType::VENDOR_ID;
        let bytes = actor.fragment(ExchangeType::IKE_AUTH, 1, kind, (1, 2), &huge);
        actor.send(&mut pair, &bytes);
    }
    // 4 MiB in all: 273 of them; the oldest made room.
    assert_eq!(
        pair.host(Side::B).discarded(Discard::FragmentLimit),
        320 - 273
    );
    assert_eq!(pair.host(Side::B).endpoint.half_open(), 273);
    pair.run_for(seconds(31));
    pair.host(Side::B).assert_empty("B");
}
