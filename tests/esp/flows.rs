//! What an SA remembers of one packet must not let another one in, or keep it out.

use lockgate::ipsec::{DropReason, InboundParams, InboundSa, OutboundParams, OutboundSa};
use lockgate::wire::ip::Flow;
use proptest::prelude::*;

use crate::support::{forge, gcm, inbound, key, outbound, selectors, text, udp_v4, udp_v6};

/// A few values for each byte that decides: version and header length, lengths, fragments, protocol,
/// addresses, ports. Most packets are whole and of one flow.
fn v4_packet() -> impl Strategy<Value = Vec<u8>> {
    let changes = [
        (0, vec![0x45, 0x46, 0x44, 0x65]),
        (1, vec![0, 2, 0xb8]),
        (3, vec![40, 23, 24, 39, 41]),
        (6, vec![0x40, 0x20, 0x1f, 0]),
        (7, vec![0, 1]),
        (9, vec![17, 6, 1, 47]),
        (15, vec![7, 8]),
        (14, vec![0, 1]),
        (18, vec![0, 1]),
        (20, vec![0x0f, 3]),
        (23, vec![53, 54]),
    ];
    changed(udp_v4(12), &changes)
}

fn v6_packet() -> impl Strategy<Value = Vec<u8>> {
    let changes = [
        (0, vec![0x60, 0x61, 0x45]),
        (1, vec![0, 0x20, 0x80]),
        (5, vec![20, 3, 4, 19, 21]),
        (6, vec![17, 6, 0, 44, 58]),
        (23, vec![7, 8]),
        (14, vec![0, 1]),
        (30, vec![0, 1]),
        (40, vec![0x0f, 1, 0]),
        (43, vec![53, 54]),
    ];
    changed(udp_v6(12), &changes)
}

fn changed(
    packet: Vec<u8>,
    changes: &[(usize, Vec<u8>)],
) -> impl Strategy<Value = Vec<u8>> + use<> {
    let values: Vec<_> = changes
        .iter()
        .map(|(_, values)| {
            let (usual, others) = (values[0], values[1..].to_vec());
            prop_oneof![8 => Just(usual), 1 => prop::sample::select(others)]
        })
        .collect();
    let places: Vec<usize> = changes.iter().map(|(place, _)| *place).collect();
    values.prop_map(move |values| {
        let mut packet = packet.clone();
        for (place, value) in places.iter().zip(values) {
            packet[*place] = value;
        }
        packet
    })
}

fn opener() -> InboundSa {
    InboundSa::new(InboundParams {
        selectors: selectors(
            &[
                "10.2.0.0/24[udp/53]",
                "10.2.0.0/24[tcp]",
                "2001:db8:b::/64[udp/53]",
            ],
            &["10.1.0.0/24", "2001:db8:a::/64"],
        ),
        ..inbound(key(gcm()))
    })
}

/// What came of a packet.
fn verdict(sa: &mut InboundSa, esp: &[u8], tos: u8) -> Result<(Vec<u8>, bool), DropReason> {
    let mut esp = esp.to_vec();
    sa.open(&mut esp, tos)
        .map(|opened| (opened.inner.to_vec(), opened.foreign_quote.is_some()))
}

fn flow() -> impl Strategy<Value = Flow> {
    let hosts = prop::sample::select(vec![
        ["10.1.0.7", "10.2.0.9"],
        ["10.1.0.8", "10.2.0.9"],
        ["10.1.0.7", "10.3.0.9"],
        ["2001:db8:a::7", "2001:db8:b::9"],
        ["2001:db8:c::7", "2001:db8:b::9"],
        ["0.0.0.0", "0.0.0.0"],
    ]);
    let upper = prop::sample::select(vec![
        (17, Some((4000, 53))),
        (17, Some((4000, 54))),
        (6, Some((4000, 53))),
        (17, None),
        (0, Some((0, 0))),
    ]);
    (hosts, upper).prop_map(|(hosts, (protocol, ports))| {
        let [src, dst] = hosts.map(|host| host.parse().expect("an address"));
        Flow {
            src,
            dst,
            protocol,
            ports,
        }
    })
}

proptest! {
    #![proptest_config(ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn an_sa_admits_a_flow_as_its_selectors_do_whatever_came_before(
        flows in prop::collection::vec(flow(), 1..60),
    ) {
        let mut sa = OutboundSa::new(OutboundParams {
            selectors: selectors(
                &["10.1.0.0/29", "2001:db8:a::/64"],
                &["10.2.0.0/24[udp/53]", "2001:db8:b::/64[udp]"],
            ),
            ..outbound(key(gcm()))
        });
        for flow in flows {
            let expected = sa.selectors().admits_outbound(&flow);
            prop_assert_eq!(sa.admits(&flow), expected, "{:?}", flow);
        }
    }

    #[test]
    fn an_sa_judges_a_packet_as_if_it_were_its_first(
        packets in prop::collection::vec((prop_oneof![v4_packet(), v6_packet()], 0_u8..4), 1..60),
    ) {
        let key = key(gcm());
        let mut old = opener();
        for (number, (packet, tos)) in (1..).zip(packets) {
            let next_header = if packet[0] >> 4 == 4 { 4 } else { 41 };
            let esp = forge(&key, number, &text(&packet, next_header));
            let expected = verdict(&mut opener(), &esp, tos);
            prop_assert_eq!(verdict(&mut old, &esp, tos), expected, "{:02x?}", packet);
        }
    }
}

#[test]
fn a_flow_that_was_admitted_admits_no_other() {
    let key = key(gcm());
    let mut sa = opener();
    let mut open = |number, packet: &[u8]| {
        let next_header = if packet[0] >> 4 == 4 { 4 } else { 41 };
        let esp = forge(&key, number, &text(packet, next_header));
        verdict(&mut sa, &esp, 0).map(|_| ())
    };
    for (number, good, port_byte) in [(1, udp_v4(40), 23), (11, udp_v6(40), 43)] {
        let [mut other_network, mut other_port] = [good.clone(), good.clone()];
        other_network[14] ^= 0x40; // of the source, in either version
        other_port[port_byte] = 54;
        assert_eq!(open(number, &good), Ok(()));
        assert_eq!(open(number + 1, &good), Ok(()));
        for (offset, packet) in [(2, &other_network), (3, &other_port)] {
            let refused = open(number + offset, packet);
            assert_eq!(refused, Err(DropReason::SelectorMismatch));
        }
        assert_eq!(open(number + 4, &good), Ok(()));
    }
}
