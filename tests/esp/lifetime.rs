//! The end of an SA: sequence numbers, limits, usage.

use lockgate::ipsec::{DropReason, InboundParams, InboundSa, Limits, OutboundParams, OutboundSa};

use crate::support::{gcm, inbound, key, outbound, pair, seal, udp_v4, udp_v6};

#[test]
fn the_first_packet_has_number_one_and_each_next_one_more() {
    let (mut sealer, _) = pair();
    for number in 1_u32..=3 {
        let esp = seal(&mut sealer, &udp_v4(10));
        assert_eq!(esp[4..8], number.to_be_bytes());
        assert_eq!(
            esp[8..16],
            u64::from(number).to_be_bytes(),
            "the IV of an AEAD"
        );
    }
}

#[test]
fn sequence_numbers_never_wrap() {
    for (esn, last) in [(false, u64::from(u32::MAX)), (true, u64::MAX)] {
        let mut sa = OutboundSa::new(OutboundParams {
            esn,
            ..outbound(key(gcm()))
        });
        sa.resume_after(last - 1);
        let esp = seal(&mut sa, &udp_v4(10));
        assert_eq!(esp[4..8], u32::MAX.to_be_bytes());
        assert!(!sa.take_hard_limit());

        let mut out = [0; 200];
        for _ in 0..3 {
            let refused = sa.seal(&[&udp_v4(10)], &mut out);
            assert_eq!(refused, Err(DropReason::SequenceExhausted));
        }
        assert!(sa.take_hard_limit());
        assert!(!sa.take_hard_limit(), "said once");
        assert_eq!((sa.sequence(), sa.usage().packets()), (last, 1));
        assert_eq!(out, [0; 200]);
    }
}

#[test]
fn a_resumed_sa_never_goes_back() {
    let (mut sealer, _) = pair();
    sealer.resume_after(1000);
    sealer.resume_after(10);
    assert_eq!(seal(&mut sealer, &udp_v4(10))[4..8], 1001_u32.to_be_bytes());
}

#[test]
fn soft_limits_are_reported_once_and_hard_limits_stop() {
    let packet = udp_v4(72); // 100 bytes
    let by_packets = Limits {
        soft_packets: 2,
        hard_packets: 4,
        ..Limits::NONE
    };
    let by_bytes = Limits {
        soft_bytes: 150,
        hard_bytes: 450,
        ..Limits::NONE
    };
    for limits in [by_packets, by_bytes] {
        let mut sealer = OutboundSa::new(OutboundParams {
            limits,
            ..outbound(key(gcm()))
        });
        let mut opener = InboundSa::new(InboundParams {
            limits,
            ..inbound(key(gcm()))
        });
        let mut out = [0; 200];
        for soft in [false, true, false, false] {
            let sealed = sealer.seal(&[&packet], &mut out).expect("below the limit");
            assert_eq!(sealed.soft_limit_crossed, soft);
            let opened = opener
                .open(&mut out[..sealed.len], 0)
                .expect("below the limit");
            assert_eq!(opened.soft_limit_crossed, soft);
        }
        assert_eq!(
            sealer.seal(&[&packet], &mut out),
            Err(DropReason::LifetimeExpired)
        );
        assert_eq!(
            [sealer.take_hard_limit(), sealer.take_hard_limit()],
            [true, false]
        );
        assert_eq!((sealer.sequence(), sealer.usage().bytes()), (4, 400));
    }
}

#[test]
fn a_receiver_past_its_hard_limit_opens_nothing() {
    let limits = Limits {
        hard_packets: 1,
        ..Limits::NONE
    };
    let mut sealer = OutboundSa::new(outbound(key(gcm())));
    let mut opener = InboundSa::new(InboundParams {
        limits,
        ..inbound(key(gcm()))
    });
    assert!(opener.open(&mut seal(&mut sealer, &udp_v4(10)), 0).is_ok());
    let mut second = seal(&mut sealer, &udp_v4(10));
    let before = second.clone();
    assert_eq!(
        opener.open(&mut second, 0),
        Err(DropReason::LifetimeExpired)
    );
    assert_eq!(second, before);
    assert_eq!(
        [opener.take_hard_limit(), opener.take_hard_limit()],
        [true, false]
    );
    assert_eq!((opener.window().top(), opener.usage().packets()), (1, 1));
}

#[test]
fn a_rekey_is_asked_for_before_short_sequence_numbers_end() {
    let (mut sealer, _) = pair();
    sealer.resume_after(u64::from(u32::MAX) / 16 * 15 - 2);
    let mut out = [0; 200];
    let mut crossed = 0;
    for _ in 0..4 {
        let sealed = sealer
            .seal(&[&udp_v4(10)], &mut out)
            .expect("numbers are left");
        crossed += u32::from(sealed.soft_limit_crossed);
    }
    assert_eq!(crossed, 1);
}

#[test]
fn both_ends_count_the_same_packets_and_bytes() {
    let (mut sealer, mut opener) = pair();
    for packet in [udp_v4(0), udp_v6(33), udp_v4(1400)] {
        assert!(opener.open(&mut seal(&mut sealer, &packet), 0).is_ok());
    }
    let bytes = udp_v4(0).len() + udp_v6(33).len() + udp_v4(1400).len();
    for usage in [sealer.usage(), opener.usage()] {
        assert_eq!((usage.packets(), usage.bytes()), (3, bytes as u64));
    }
}

#[test]
fn what_cannot_be_sent_takes_no_number_and_is_not_counted() {
    let (mut sealer, _) = pair();
    let packet = udp_v4(100);
    let mut short = vec![0; sealer.sealed_len(packet.len()) - 1];
    assert_eq!(sealer.seal(&[&packet], &mut short), Err(DropReason::TooBig));
    for no_packet in [&[][..], &[0x50, 0], &[0xff; 60]] {
        assert_eq!(
            sealer.seal(&[no_packet], &mut short),
            Err(DropReason::InnerMalformed)
        );
    }
    assert_eq!((sealer.sequence(), sealer.usage().packets()), (0, 0));
}

#[test]
fn sealing_and_opening_never_allocate() {
    for suite in crate::support::suites() {
        let mut sealer = OutboundSa::new(outbound(key(suite)));
        let mut opener = InboundSa::new(inbound(key(suite)));
        let inner = udp_v4(1372);
        let mut out = vec![0; 2000];
        let allocations = allocation_counter::measure(|| {
            for _ in 0..10 {
                let (header, payload) = inner.split_at(28);
                let sealed = sealer.seal(&[header, payload], &mut out).expect("sealed");
                out[sealed.len - 1] ^= 1;
                assert!(opener.open(&mut out[..sealed.len], 0).is_err());
                let sealed = sealer.seal(&[&inner], &mut out).expect("sealed");
                assert!(opener.open(&mut out[..sealed.len], 0).is_ok());
            }
        });
        assert_eq!(allocations.count_total, 0, "{suite:?}");
    }
}
