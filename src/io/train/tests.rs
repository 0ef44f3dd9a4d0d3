//! Which datagrams go together, and in which order.

#![allow(
    clippy::indexing_slicing,
    reason = "an index out of bounds fails the test, as it should"
)]

use super::*;

fn to(port: u16) -> Transmit {
    Transmit {
        local: IpAddr::from([127, 0, 0, 1]),
        remote: SocketAddr::from(([127, 0, 0, 1], port)),
        tos: 0,
        dont_fragment: true,
    }
}

/// Pushes datagrams of these lengths, numbered from 0.
fn push(burst: &mut TransmitBurst, transmit: Transmit, lengths: &[usize]) {
    for (number, length) in (0..=u8::MAX).cycle().zip(lengths) {
        let pushed = burst.push::<()>(transmit, Flows::ANY, *length, |buffer| {
            assert_eq!(buffer.len(), *length);
            buffer.fill(number);
            Ok(())
        });
        assert_eq!(pushed, Ok(()));
    }
}

/// Destination port and lengths of each message.
fn messages(burst: &mut TransmitBurst, most: u16) -> Vec<(u16, u16)> {
    let mut all = Vec::new();
    burst.offer(None, |_| false);
    while let Some(front) = burst.front(most) {
        all.push((front.transmit.remote.port(), front.datagrams));
        burst.skip(front.datagrams);
    }
    all
}

#[test]
fn datagrams_of_equal_length_make_a_train_that_a_shorter_one_ends() {
    let mut burst = TransmitBurst::new();
    push(&mut burst, to(1), &[100, 100, 100, 60, 60, 100, 100]);
    let lengths: Vec<_> = burst.iter().map(|(_, bytes)| bytes.len()).collect();
    assert_eq!(lengths, [100, 100, 100, 60, 60, 100, 100]);
    assert_eq!((burst.len(), burst.is_empty()), (7, false));
    assert_eq!(messages(&mut burst, 64), [(1, 4), (1, 1), (1, 2)]);
    assert!(burst.is_empty());
}

#[test]
fn trains_to_several_destinations_are_open_at_once() {
    let mut burst = TransmitBurst::new();
    for _ in 0..3 {
        push(&mut burst, to(1), &[100]);
        push(&mut burst, to(2), &[200]);
    }
    assert_eq!(messages(&mut burst, 64), [(1, 3), (2, 3)]);
}

#[test]
fn what_is_sent_differently_does_not_overtake_what_goes_to_the_same_peer() {
    let mut burst = TransmitBurst::new();
    let other = Transmit { tos: 1, ..to(1) };
    for transmit in [to(1), other, to(1)] {
        push(&mut burst, transmit, &[100]);
    }
    assert_eq!(messages(&mut burst, 64), [(1, 1), (1, 1), (1, 1)]);
}

#[test]
fn a_message_carries_no_more_than_the_socket_takes() {
    let mut burst = TransmitBurst::new();
    push(&mut burst, to(1), &[10; 150]);
    assert_eq!(messages(&mut burst, 64), [(1, 64), (1, 64), (1, 22)]);
    burst.clear();
    push(&mut burst, to(1), &[1400; 48]);
    assert_eq!(messages(&mut burst, 64), [(1, 46), (1, 2)]);
}

#[test]
fn what_was_offered_to_the_socket_does_not_grow() {
    let mut burst = TransmitBurst::new();
    push(&mut burst, to(1), &[100; 3]);
    burst.offer(None, |_| false);
    burst.skip(1);
    push(&mut burst, to(1), &[100; 2]);
    let numbers: Vec<_> = burst.iter().map(|(_, bytes)| bytes.first()).collect();
    assert_eq!(numbers, [Some(&1), Some(&2), Some(&0), Some(&1)]);
    assert_eq!(messages(&mut burst, 64), [(1, 2), (1, 2)]);
}

#[test]
fn a_refused_datagram_leaves_no_trace_in_the_burst() {
    let mut burst = TransmitBurst::new();
    let pushed = burst.push(to(1), Flows::ANY, 9, |_| Err("no"));
    assert_eq!(pushed, Err(PushError::Refused("no")));
    assert!(burst.is_empty());
    push(&mut burst, to(1), &[9]);
    assert!(burst.push(to(1), Flows::ANY, 9, |_| Err("no")).is_err());
    assert_eq!(burst.len(), 1);
}

#[test]
fn a_tail_that_passes_does_not_put_the_blame_on_trains() {
    let mut burst = TransmitBurst::new();
    push(&mut burst, to(1), &[1400, 1400, 300]);
    burst.offer(None, |_| false);
    assert_eq!(burst.front(64).map(|front| front.datagrams), Some(3));
    burst.shorten(1, libc::EINVAL);
    burst.skip(1);
    let blame = Blame {
        remote: to(1).remote,
        error: libc::EINVAL,
        limit: 1,
    };
    assert_eq!(burst.advance(1, 64).blame, Some(blame));
    assert_eq!(burst.advance(1, 64).blame, None);
}

#[test]
fn a_full_burst_refuses_instead_of_growing() {
    let mut burst = TransmitBurst::new();
    while burst
        .push::<()>(to(1), Flows::ANY, SLOT_LEN, |_| Ok(()))
        .is_ok()
    {}
    assert!(!burst.has_room());
    assert_eq!(burst.len(), TRAINS);
    burst.clear();
    assert_eq!(
        burst.push::<()>(to(1), Flows::ANY, SLOT_LEN + 1, |_| Ok(())),
        Err(PushError::Full)
    );
    while burst.push::<()>(to(1), Flows::ANY, 1, |_| Ok(())).is_ok() {}
    assert_eq!(burst.len(), TRAINS * usize::from(TRAIN_DATAGRAMS));
}

#[test]
fn a_burst_with_room_takes_a_super_packet_of_the_smallest_segments() {
    for segment in [48, 100, 500, 1400] {
        let sealed = segment + 200; // inner headers with options, and what ESP adds
        let mut burst = TransmitBurst::new();
        let mut ports = 0..;
        while burst.has_room() {
            let port = ports.next().expect("endless");
            push(&mut burst, to(port), &[sealed; 2]);
        }
        burst.clear();
        // One less than what makes it full.
        for port in 0..ports.start - 1 {
            push(&mut burst, to(port), &[sealed; 2]);
        }
        assert!(burst.has_room());
        push(&mut burst, to(9), &vec![sealed; 65_535 / segment]);
    }
}

/// What is sent, as letters: which of `kinds` each datagram is of.
fn sent(burst: &mut TransmitBurst, kinds: &[(char, Transmit)]) -> String {
    burst.offer(None, |_| false);
    let of = |transmit| kinds.iter().find(|(_, kind)| *kind == transmit);
    let letters = burst.iter().filter_map(|(transmit, _)| of(transmit));
    letters.map(|(letter, _)| *letter).collect()
}

/// Pushes datagrams of 100 bytes, each of the kind that its letter names and of a flow of that kind.
fn push_mix(burst: &mut TransmitBurst, kinds: &[(char, Transmit)], mix: &str) {
    for letter in mix.chars() {
        let place = kinds.iter().position(|(name, _)| *name == letter);
        let place = place.expect("named");
        let (_, transmit) = kinds[place];
        let flows = Flows::of((place as u64) << 58);
        let pushed = burst.push::<()>(transmit, flows, 100, |_| Ok(()));
        assert_eq!(pushed, Ok(()));
    }
}

fn kinds() -> [(char, Transmit); 4] {
    let plain = to(1);
    let fragmentable = Transmit {
        dont_fragment: false,
        ..plain
    };
    let marked = Transmit { tos: 3, ..plain };
    [
        ('a', plain),
        ('f', fragmentable),
        ('m', marked),
        ('o', to(2)),
    ]
}

#[test]
fn flows_that_differ_in_df_or_tos_have_a_train_each() {
    let mut burst = TransmitBurst::new();
    push_mix(&mut burst, &kinds(), "afmafmafm");
    assert_eq!(sent(&mut burst, &kinds()), "aaammmfff");
    assert_eq!(messages(&mut burst, 64), [(1, 3), (1, 3), (1, 3)]);
}

#[test]
fn one_flow_keeps_its_order_whatever_df_and_tos_its_packets_have() {
    let mut burst = TransmitBurst::new();
    for letter in "amafaamf".chars() {
        let kinds = kinds();
        let kind = kinds.iter().find(|(name, _)| *name == letter);
        let (_, transmit) = kind.expect("named");
        let pushed = burst.push::<()>(*transmit, Flows::of(7 << 58), 100, |_| Ok(()));
        assert_eq!(pushed, Ok(()));
    }
    assert_eq!(sent(&mut burst, &kinds()), "amafaamf");
}

#[test]
fn what_is_sent_alike_keeps_its_order_though_one_waits_and_the_other_need_not() {
    let mut burst = TransmitBurst::new();
    let fragmentable = Transmit {
        dont_fragment: false,
        ..to(1)
    };
    let [waiting, free] = [1, 2].map(|flow| Flows::of(flow << 58));
    // The second is of the first one's flow; the third, of another, is too long to join it.
    for (transmit, flows, length) in [
        (fragmentable, waiting, 100),
        (to(1), waiting, 60),
        (to(1), free, 100),
    ] {
        let pushed = burst.push::<()>(transmit, flows, length, |_| Ok(()));
        assert_eq!(pushed, Ok(()));
    }
    burst.offer(Some(true), |_| false);
    let lengths: Vec<_> = burst.iter().map(|(_, bytes)| bytes.len()).collect();
    assert_eq!(lengths, [100, 60, 100]);
    let first = burst.iter().next().map(|(transmit, _)| transmit);
    assert_eq!(first, Some(fragmentable));
}

#[test]
fn no_datagram_is_overtaken_by_more_than_half_of_the_smallest_window() {
    let mut burst = TransmitBurst::new();
    let mut numbers = Vec::new();
    for (number, letter) in "afmaaffmmaf".chars().cycle().take(300).enumerate() {
        let place = kinds().iter().position(|(name, _)| *name == letter);
        let place = place.expect("named");
        let flows = Flows::of((place as u64) << 58);
        let transmit = kinds()[place].1;
        let write = |buffer: &mut [u8]| {
            buffer[..8].copy_from_slice(&number.to_ne_bytes());
            Ok::<(), ()>(())
        };
        burst
            .push(transmit, flows, 100, write)
            .expect("there is room");
    }
    burst.offer(None, |_| false);
    for (_, bytes) in burst.iter() {
        numbers.push(usize::from_ne_bytes(
            bytes[..8].try_into().expect("8 bytes"),
        ));
    }
    assert_eq!(numbers.len(), 300);
    let mut newest = 0;
    for number in &numbers {
        newest = newest.max(*number);
        assert!(newest - number < 16, "{number} comes after {newest}");
    }
    assert!(messages(&mut burst, 64).len() < 70);
}

#[test]
fn peers_do_not_wait_for_each_other_when_df_changes() {
    let mut burst = TransmitBurst::new();
    for port in 0..20 {
        for dont_fragment in [true, false] {
            let transmit = Transmit {
                dont_fragment,
                ..to(port)
            };
            push(&mut burst, transmit, &[100]);
        }
    }
    burst.offer(None, |_| false);
    let runs: Vec<_> = burst
        .iter()
        .map(|(transmit, _)| transmit.dont_fragment)
        .collect();
    assert_eq!(runs.len(), 40);
    // Of one peer nothing is known, so its two keep their order; those of the others do not matter.
    assert_eq!(runs.chunk_by(|one, next| one == next).count(), 2);
}

#[test]
fn datagrams_of_the_length_that_was_refused_are_given_up_together() {
    let mut burst = TransmitBurst::new();
    push(&mut burst, to(1), &[1400, 1400, 1400, 300]);
    burst.offer(None, |_| false);
    burst.shorten(1, libc::EMSGSIZE);
    burst.skip(1);
    assert_eq!(burst.skip_alike(), 2);
    assert_eq!(burst.skip_alike(), 1, "the tail is judged by itself");
    assert!(burst.is_empty());
}

#[test]
fn a_train_that_passes_in_shorter_ones_shows_what_the_system_takes() {
    let mut burst = TransmitBurst::new();
    push(&mut burst, to(1), &[100; 100]);
    burst.offer(None, |_| false);
    burst.shorten(64, libc::EINVAL);
    let blame = burst.advance(1, TRAIN_DATAGRAMS).blame;
    assert_eq!(blame.map(|blame| blame.limit), Some(64));
    assert_eq!(
        burst.advance(1, TRAIN_DATAGRAMS).blame,
        None,
        "the tail says nothing"
    );
}
