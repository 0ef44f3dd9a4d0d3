//! What crosses between inner and outer header, and how large packets become.

use lockgate::ipsec::{
    CopyDscp, DfRule, DropReason, EspEncap, HeaderRules, InboundParams, InboundSa, OutboundParams,
    OutboundSa,
};

use crate::support::{
    fix_checksum, gcm, inbound, key, outbound, pair, path, seal, suites, udp_v4, udp_v6,
};

const NOT_ECT: u8 = 0b00;
const ECT_1: u8 = 0b01;
const ECT_0: u8 = 0b10;
const CE: u8 = 0b11;

/// Seals a packet whose TOS is `inner`, opens it under an outer TOS of `outer`.
fn through(rules: HeaderRules, inner: u8, outer: u8, v6: bool) -> Result<u8, DropReason> {
    let mut packet = if v6 { udp_v6(20) } else { udp_v4(20) };
    set_tos(&mut packet, inner);
    let mut sealer = OutboundSa::new(OutboundParams {
        rules,
        ..outbound(key(gcm()))
    });
    let mut opener = InboundSa::new(InboundParams {
        rules,
        ..inbound(key(gcm()))
    });
    let mut esp = seal(&mut sealer, &packet);
    let opened = opener.open(&mut esp, outer)?;

    let tos = if v6 {
        opened.inner[0] << 4 | opened.inner[1] >> 4
    } else {
        opened.inner[1]
    };
    set_tos(&mut packet, tos);
    assert_eq!(opened.inner, packet, "only the TOS and the checksum change");
    Ok(tos)
}

fn set_tos(packet: &mut [u8], tos: u8) {
    if packet[0] >> 4 == 6 {
        packet[0] = 0x60 | tos >> 4;
        packet[1] = tos << 4;
    } else {
        packet[1] = tos;
        fix_checksum(packet);
    }
}

/// RFC 6040 figure 4.
#[test]
fn congestion_marks_leave_the_tunnel_as_rfc_6040_says() {
    let table = [
        (NOT_ECT, [Some(NOT_ECT), Some(NOT_ECT), Some(NOT_ECT), None]),
        (ECT_0, [Some(ECT_0), Some(ECT_0), Some(ECT_1), Some(CE)]),
        (ECT_1, [Some(ECT_1), Some(ECT_1), Some(ECT_1), Some(CE)]),
        (CE, [Some(CE), Some(CE), Some(CE), Some(CE)]),
    ];
    for (inner, row) in table {
        for (outer, expected) in [NOT_ECT, ECT_0, ECT_1, CE].into_iter().zip(row) {
            for v6 in [false, true] {
                let got = through(HeaderRules::default(), inner, outer, v6);
                assert_eq!(
                    got,
                    expected.ok_or(DropReason::EcnIllegal),
                    "{inner} in {outer}"
                );
            }
        }
    }
}

#[test]
fn congestion_marks_stay_outside_when_told_so() {
    let rules = HeaderRules {
        copy_ecn: false,
        ..HeaderRules::default()
    };
    for inner in [NOT_ECT, ECT_0, ECT_1, CE] {
        assert_eq!(rules.outer_tos(inner), NOT_ECT);
        for outer in [NOT_ECT, ECT_0, ECT_1, CE] {
            assert_eq!(through(rules, inner, outer, false), Ok(inner));
        }
    }
}

#[test]
fn the_dscp_is_copied_in_the_directions_asked_for() {
    let (inner, outer) = (0b1011_1000 | ECT_0, 0b0010_1000 | CE);
    for (copy_dscp, outside, inside) in [
        (CopyDscp::No, 0, inner),
        (CopyDscp::Out, inner, inner),
        (CopyDscp::In, 0, outer),
        (CopyDscp::Yes, inner, outer),
    ] {
        let rules = HeaderRules {
            copy_dscp,
            ..HeaderRules::default()
        };
        let sa = OutboundSa::new(OutboundParams {
            rules,
            ..outbound(key(gcm()))
        });
        assert_eq!(sa.outer_tos(inner), outside & !3 | ECT_0, "{copy_dscp:?}");
        for v6 in [false, true] {
            assert_eq!(
                through(rules, inner, outer, v6),
                Ok(inside & !3 | CE),
                "{copy_dscp:?}"
            );
        }
    }
}

#[test]
fn the_outer_df_bit_follows_its_rule() {
    for (copy_df, of_clear, of_set) in [
        (DfRule::Copy, false, true),
        (DfRule::Clear, false, false),
        (DfRule::Set, true, true),
    ] {
        let rules = HeaderRules {
            copy_df,
            ..HeaderRules::default()
        };
        let sa = OutboundSa::new(OutboundParams {
            rules,
            ..outbound(key(gcm()))
        });
        assert_eq!(
            [sa.outer_df(false), sa.outer_df(true)],
            [of_clear, of_set],
            "{copy_df:?}"
        );
    }
}

#[test]
fn the_inner_mtu_is_the_largest_packet_that_fits() {
    for suite in suites() {
        for (encap, udp) in [(EspEncap::Udp, 8), (EspEncap::None, 0)] {
            for (remote, ip) in [("198.51.100.1", 20), ("2001:db8::1", 40)] {
                for path_mtu in [1280, 1399, 1400, 1500, 9000, u16::MAX] {
                    let path = path(encap, remote);
                    let params = OutboundParams {
                        path,
                        path_mtu,
                        ..outbound(key(suite))
                    };
                    let sa = OutboundSa::new(params);
                    let mtu = usize::from(sa.inner_mtu());
                    let outer = |inner| ip + udp + sa.sealed_len(inner);
                    assert!(outer(mtu) <= usize::from(path_mtu), "{suite:?} {path_mtu}");
                    assert!(
                        outer(mtu + 1) > usize::from(path_mtu),
                        "{suite:?} {path_mtu}"
                    );
                }
            }
        }
    }
}

/// Worked by hand from RFC 4303, RFC 4106 and RFC 3948: 1500 − 20 − 8 − 8 − 8 − 16 = 1440, less the trailer.
#[test]
fn aes_gcm_in_udp_over_ethernet_leaves_1438_bytes() {
    assert_eq!(OutboundSa::new(outbound(key(gcm()))).inner_mtu(), 1438);
}

#[test]
fn a_path_mtu_below_the_minimum_is_not_believed() {
    for (remote, least) in [("198.51.100.1", 576), ("2001:db8::1", 1280)] {
        let path = path(EspEncap::Udp, remote);
        let mut sa = OutboundSa::new(OutboundParams {
            path,
            ..outbound(key(gcm()))
        });
        sa.set_path_mtu(68);
        assert_eq!(sa.path_mtu(), least);
        sa.set_path_mtu(1400);
        assert_eq!(sa.path_mtu(), 1400);
    }
}

#[test]
fn a_packet_in_pieces_is_sealed_as_the_whole_one() {
    let inner = udp_v4(1000);
    let (mut whole, _) = pair();
    let expected = seal(&mut whole, &inner);
    for cuts in [[0, 0], [1, 1], [20, 28], [28, 500], [1028, 1028]] {
        let (mut pieces, _) = pair();
        let parts = [
            &inner[..cuts[0]],
            &inner[cuts[0]..cuts[1]],
            &inner[cuts[1]..],
        ];
        let mut out = vec![0; 2000];
        let sealed = pieces.seal(&parts, &mut out).expect("sealed");
        assert_eq!(&out[..sealed.len], expected, "{cuts:?}");
        assert!(
            out[sealed.len..].iter().all(|byte| *byte == 0),
            "nothing is written behind it"
        );
    }
}

#[test]
fn every_length_survives_the_tunnel_under_every_suite() {
    for suite in suites() {
        let mut sealer = OutboundSa::new(outbound(key(suite)));
        let mut opener = InboundSa::new(inbound(key(suite)));
        for payload in (0..40).chain([1372, 8972, 65_507]) {
            let inner = udp_v4(payload);
            let mut esp = seal(&mut sealer, &inner);
            assert_eq!(esp.len() % 4, 0);
            assert_eq!(
                opener.open(&mut esp, 0).expect("opened").inner,
                inner,
                "{suite:?}"
            );
        }
    }
}
