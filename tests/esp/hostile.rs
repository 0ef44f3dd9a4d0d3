//! What a sender may try, with and without the key. Each attempt is dropped and disturbs nothing.

use lockgate::ipsec::{DropReason, InboundParams, InboundSa, OutboundSa};
use lockgate::wire::proposal::CipherSuite;

use crate::support::{
    fix_checksum, forge, gcm, inbound, ipv4, key, outbound, pair, path, seal, selectors, suite,
    suites, text, udp_v4, udp_v6,
};
use lockgate::ipsec::EspEncap;

fn sas(suite: CipherSuite) -> (OutboundSa, InboundSa) {
    (
        OutboundSa::new(outbound(key(suite))),
        InboundSa::new(inbound(key(suite))),
    )
}

/// What an unauthentic packet must leave alone.
fn state(sa: &InboundSa) -> (u64, u64, u64) {
    (sa.window().top(), sa.usage().packets(), sa.usage().bytes())
}

#[test]
fn a_packet_cut_anywhere_is_dropped_and_the_whole_one_still_opens() {
    for suite in suites() {
        let (mut sealer, mut opener) = sas(suite);
        let esp = seal(&mut sealer, &udp_v4(30));
        let before = state(&opener);
        for length in 0..esp.len() {
            let mut cut = esp[..length].to_vec();
            let reason = opener.open(&mut cut, 0).expect_err("cut");
            let expected = [DropReason::EspMalformed, DropReason::IntegrityFailed];
            assert!(expected.contains(&reason), "{suite:?} {length}: {reason}");
        }
        let mut longer = [esp.as_slice(), &[0; 16]].concat();
        assert_eq!(
            opener.open(&mut longer, 0),
            Err(DropReason::IntegrityFailed)
        );
        assert_eq!(state(&opener), before);
        assert!(opener.open(&mut esp.clone(), 0).is_ok(), "{suite:?}");
    }
}

#[test]
fn a_bit_flipped_anywhere_is_dropped_and_the_true_packet_still_opens() {
    for suite in suites() {
        let (mut sealer, mut opener) = sas(suite);
        let esp = seal(&mut sealer, &udp_v4(30));
        let before = state(&opener);
        for position in 0..esp.len() {
            let mut forged = esp.clone();
            forged[position] ^= 1 << (position % 8);
            let reason = opener.open(&mut forged, 0).expect_err("forged");
            assert_eq!(
                reason,
                DropReason::IntegrityFailed,
                "{suite:?} byte {position}"
            );
        }
        assert_eq!(state(&opener), before);
        assert!(opener.open(&mut esp.clone(), 0).is_ok(), "{suite:?}");
    }
}

#[test]
fn one_bad_packet_first_in_a_burst_does_not_disturb_the_rest() {
    for suite in suites() {
        let (mut sealer, mut opener) = sas(suite);
        let mut burst: Vec<Vec<u8>> = (0..8).map(|_| seal(&mut sealer, &udp_v6(64))).collect();
        burst.insert(0, vec![0; 9]);
        burst.insert(1, vec![0xff; 200]);
        let mut broken = burst[2].clone();
        broken[20] ^= 0x80;
        burst.insert(2, broken);
        let opened: Vec<bool> = burst
            .iter_mut()
            .map(|esp| opener.open(esp, 0).is_ok())
            .collect();
        assert_eq!(opened[..3], [false; 3], "{suite:?}");
        assert_eq!(opened[3..], [true; 8], "{suite:?}");
    }
}

#[test]
fn a_wrong_guess_of_the_high_half_fails_the_integrity_check() {
    for suite in suites() {
        let mut sealer = OutboundSa::new(lockgate::ipsec::OutboundParams {
            esn: true,
            ..outbound(key(suite))
        });
        sealer.resume_after(0x1_0000_0000);
        let mut opener = InboundSa::new(InboundParams {
            esn: true,
            ..inbound(key(suite))
        });
        let esp = seal(&mut sealer, &udp_v4(30));
        let before = state(&opener);
        assert_eq!(
            opener.open(&mut esp.clone(), 0),
            Err(DropReason::IntegrityFailed)
        );
        assert_eq!(state(&opener), before);
        opener.resume_after(0xffff_ffff);
        assert!(opener.open(&mut esp.clone(), 0).is_ok(), "{suite:?}");
    }
}

#[test]
fn sequence_numbers_are_judged_before_the_cipher_runs() {
    let (mut sealer, mut opener) = pair();
    sealer.resume_after(999);
    let esp = seal(&mut sealer, &udp_v4(30));
    assert!(opener.open(&mut esp.clone(), 0).is_ok());
    for (low, reason) in [
        (0_u32, DropReason::IllegalSequence),
        (1000, DropReason::Replayed),
        (1000 - 128, DropReason::TooOld),
        (1000 - 127, DropReason::IntegrityFailed),
        (1001, DropReason::IntegrityFailed),
        (1000 + (1 << 31), DropReason::IntegrityFailed),
        (u32::MAX, DropReason::IntegrityFailed),
    ] {
        let mut forged = esp.clone();
        forged[4..8].copy_from_slice(&low.to_be_bytes());
        assert_eq!(opener.open(&mut forged, 0), Err(reason), "{low}");
        assert_eq!(opener.window().top(), 1000);
    }
}

/// Opens a packet that a peer with the key has put together from `text`.
fn open_text(text: &[u8]) -> Result<Vec<u8>, DropReason> {
    let mut opener = InboundSa::new(inbound(key(gcm())));
    let mut esp = forge(&key(gcm()), 1, text);
    let result = opener.open(&mut esp, 0).map(|opened| opened.inner.to_vec());
    assert_eq!(
        opener.window().top(),
        1,
        "authentic, so the number is used up"
    );
    assert_eq!(opener.usage().packets(), 1);
    result
}

#[test]
fn padding_other_than_1_2_3_is_refused() {
    let inner = udp_v4(4); // 32 bytes, so two bytes of padding
    assert_eq!(open_text(&text(&inner, 4)), Ok(inner.clone()));
    for trailer in [
        [0, 0, 2, 4],
        [1, 1, 2, 4],
        [2, 1, 2, 4],
        [1, 2, 255, 4],
        [1, 2, 35, 4],
    ] {
        let text = [inner.as_slice(), &trailer].concat();
        assert_eq!(open_text(&text), Err(DropReason::BadPadding), "{trailer:?}");
    }
    assert_eq!(open_text(&[0, 0, 255, 4]), Err(DropReason::BadPadding));
}

#[test]
fn the_longest_padding_is_accepted() {
    let inner = udp_v4(3); // 31 bytes
    let padding: Vec<u8> = (1..=255).collect();
    let text = [inner.as_slice(), &padding, &[255, 4]].concat();
    assert_eq!(text.len() % 4, 0);
    assert_eq!(open_text(&text), Ok(inner));
}

#[test]
fn next_headers_that_a_tunnel_does_not_carry_are_refused() {
    for next_header in (0..=255).filter(|number| ![4, 59].contains(number)) {
        let refused = open_text(&text(&udp_v4(8), next_header));
        assert_eq!(refused, Err(DropReason::BadNextHeader), "{next_header}");
    }
    assert_eq!(
        open_text(&text(&udp_v6(8), 4)),
        Err(DropReason::BadNextHeader)
    );
    assert_eq!(
        open_text(&text(&udp_v6(8), 59)),
        Err(DropReason::DummyPacket)
    );
    assert_eq!(open_text(&text(&[], 59)), Err(DropReason::DummyPacket));
    assert_eq!(open_text(&text(&udp_v6(8), 41)), Ok(udp_v6(8)));
}

#[test]
fn tfc_padding_is_cut_off() {
    for (inner, next_header) in [(udp_v4(5), 4), (udp_v6(5), 41)] {
        let padded = [inner.as_slice(), &[0xaa; 700]].concat();
        assert_eq!(open_text(&text(&padded, next_header)), Ok(inner));
    }
}

#[test]
fn inner_packets_that_contradict_themselves_are_refused() {
    let v4 = udp_v4(20);
    let edit = |at: usize, bytes: &[u8]| {
        let mut packet = v4.clone();
        packet[at..at + bytes.len()].copy_from_slice(bytes);
        packet
    };
    let longer = u16::try_from(v4.len() + 1).expect("short").to_be_bytes();
    for packet in [
        edit(0, &[0x44]),
        edit(0, &[0x4f]),
        edit(2, &[0, 0]),
        edit(2, &[0, 19]),
        edit(2, &longer),
        edit(2, &[0xff, 0xff]),
        v4[..10].to_vec(),
        Vec::new(),
    ] {
        let refused = open_text(&text(&packet, 4));
        assert_eq!(refused, Err(DropReason::InnerMalformed), "{packet:02x?}");
    }
    let mut v6 = udp_v6(20);
    v6[4..6].copy_from_slice(&[0xff, 0xff]);
    assert_eq!(open_text(&text(&v6, 41)), Err(DropReason::InnerMalformed));
    assert_eq!(
        open_text(&text(&v6[..39], 41)),
        Err(DropReason::InnerMalformed)
    );
}

#[test]
fn traffic_outside_the_selectors_does_not_leave_the_tunnel() {
    let udp = &udp_v4(20)[20..];
    let (peer, ours) = ([10, 1, 0, 7], [10, 2, 0, 9]);
    assert!(open_text(&text(&ipv4(peer, ours, 17, udp), 4)).is_ok());
    for (src, dst) in [
        (ours, peer),
        (ours, ours),
        ([10, 3, 0, 7], ours),
        ([127, 0, 0, 1], ours),
        ([10, 1, 1, 0], ours),
        (peer, [10, 2, 1, 0]),
        (peer, [224, 0, 0, 1]),
        (peer, [255, 255, 255, 255]),
        (peer, [127, 0, 0, 1]),
    ] {
        let refused = open_text(&text(&ipv4(src, dst, 17, udp), 4));
        assert_eq!(
            refused,
            Err(DropReason::SelectorMismatch),
            "{src:?} {dst:?}"
        );
    }
}

#[test]
fn protocol_and_ports_are_checked_and_hidden_ports_match_only_any() {
    let narrow = |local: &str, remote: &str, packet: &[u8]| {
        let selectors = selectors(&[local], &[remote]);
        let mut opener = InboundSa::new(InboundParams {
            selectors,
            ..inbound(key(gcm()))
        });
        let mut esp = forge(&key(gcm()), 1, &text(packet, 4));
        opener.open(&mut esp, 0).map(|_| ())
    };
    let udp = udp_v4(20); // port 4000 to port 53
    assert_eq!(
        narrow("10.2.0.0/24[udp/53]", "10.1.0.0/24[udp/4000]", &udp),
        Ok(())
    );
    assert_eq!(narrow("10.2.0.0/24[udp]", "10.1.0.0/24[udp]", &udp), Ok(()));
    for (local, remote) in [
        ("10.2.0.0/24[tcp/53]", "10.1.0.0/24[tcp]"),
        ("10.2.0.0/24[udp/4000]", "10.1.0.0/24[udp/53]"),
        ("10.2.0.0/24[udp/54-100]", "10.1.0.0/24[udp]"),
    ] {
        assert_eq!(
            narrow(local, remote, &udp),
            Err(DropReason::SelectorMismatch),
            "{local}"
        );
    }

    let mut later_fragment = udp.clone();
    later_fragment[6..8].copy_from_slice(&[0, 185]);
    fix_checksum(&mut later_fragment);
    let mismatch = Err(DropReason::SelectorMismatch);
    assert_eq!(
        narrow("10.2.0.0/24[udp/53]", "10.1.0.0/24[udp]", &later_fragment),
        mismatch
    );
    assert_eq!(
        narrow("10.2.0.0/24[udp]", "10.1.0.0/24[udp]", &later_fragment),
        Ok(())
    );

    let echo = ipv4(
        [10, 1, 0, 7],
        [10, 2, 0, 9],
        1,
        &[8, 0, 0xf7, 0xff, 0, 0, 0, 0],
    );
    assert_eq!(
        narrow("10.2.0.0/24[icmp/2048]", "10.1.0.0/24[icmp/2048]", &echo),
        Ok(())
    );
    assert_eq!(
        narrow("10.2.0.0/24[icmp/0]", "10.1.0.0/24[icmp/0]", &echo),
        mismatch
    );
}

#[test]
fn only_the_newest_packet_moves_the_peer() {
    let (mut sealer, mut opener) = pair();
    let [first, mut second, mut third] = [10, 20, 30].map(|size| seal(&mut sealer, &udp_v4(size)));
    assert!(opener.open(&mut third, 0).expect("opened").newest);
    assert!(!opener.open(&mut second, 0).expect("opened").newest);
    let mut forged = first.clone();
    forged[4..8].copy_from_slice(&99_u32.to_be_bytes());
    assert_eq!(
        opener.open(&mut forged, 0),
        Err(DropReason::IntegrityFailed)
    );

    let elsewhere = path(EspEncap::Udp, "203.0.113.9").remote;
    let before = opener.path().remote;
    assert!(!opener.peer_moved(before));
    assert!(opener.peer_moved(elsewhere));
    assert!(!opener.peer_moved(elsewhere), "said once");
    assert!(opener.peer_moved(before));
}

/// The name of a suite must not decide what its packets look like: alignment is checked for all.
#[test]
fn a_text_that_is_not_aligned_is_refused_unopened() {
    for suite in [gcm(), suite("chacha20poly1305"), suite("null-sha1")] {
        let mut opener = InboundSa::new(inbound(key(suite)));
        for extra in 1..4 {
            let text = [udp_v4(0).as_slice(), &vec![0; extra], &[0, 4]].concat();
            let mut esp = forge(&key(suite), 1, &text);
            if text.len() % 4 != 0 {
                assert_eq!(opener.open(&mut esp, 0), Err(DropReason::EspMalformed));
            }
        }
        assert_eq!(opener.window().top(), 0);
    }
}
