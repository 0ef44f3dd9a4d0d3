//! Transport mode: packets that another implementation has made, and the checksums behind a NAT.

use std::net::Ipv4Addr;

use data_encoding::HEXLOWER;
use lockgate::crypto::packet::PacketKey;
use lockgate::ipsec::{
    DropReason, InboundParams, InboundSa, OutboundParams, OutboundSa, Spi, TransportEnds,
};
use serde::Deserialize;

use crate::support::{gcm, inbound, key, outbound, seal, selectors, suite};

const CLIENT: Ipv4Addr = Ipv4Addr::new(172, 16, 0, 1);
const OUTSIDE: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 9);
const SERVER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);

/// `data/make_esp_transport_vectors.py` says what is what.
#[derive(Deserialize)]
struct Vector {
    suite: String,
    encryption_key: String,
    integrity_key: String,
    spi: u32,
    sequence: u64,
    inner: String,
    esp: String,
    translated: String,
}

impl Vector {
    fn all() -> Vec<Self> {
        let file = include_str!("../data/esp_transport_vectors.json");
        serde_json::from_str(file).expect("vectors")
    }

    fn key(&self) -> PacketKey {
        let (encryption, integrity) = (hex(&self.encryption_key), hex(&self.integrity_key));
        PacketKey::new(suite(&self.suite), &encryption, &integrity).expect("a key")
    }

    /// The server's SA, which knows the client by this address.
    fn server(&self, client: Ipv4Addr) -> InboundSa {
        let remote = client.to_string();
        let mut sa = InboundSa::new(InboundParams {
            spi: Spi::new(self.spi).expect("not reserved"),
            selectors: selectors(&["192.0.2.2"], &[&remote]),
            ..inbound(self.key())
        });
        sa.set_transport(TransportEnds {
            here: [client, SERVER],
            there: [CLIENT, SERVER],
        });
        sa
    }

    fn client(&self) -> OutboundSa {
        let mut sa = OutboundSa::new(OutboundParams {
            spi: Spi::new(self.spi).expect("not reserved"),
            selectors: selectors(&["172.16.0.1"], &["192.0.2.2"]),
            ..outbound(self.key())
        });
        sa.set_transport();
        sa.resume_after(self.sequence - 1);
        sa
    }
}

#[test]
fn our_packets_are_those_of_another_implementation_and_its_packets_open() {
    for vector in Vector::all() {
        let name = format!("{} {}", vector.suite, vector.sequence);
        let inner = hex(&vector.inner);
        let mut esp = hex(&vector.esp);
        assert_eq!(seal(&mut vector.client(), &inner), esp, "{name}");
        let mut server = vector.server(CLIENT);
        let opened = server.open(&mut esp, 0).expect(&name);
        assert_eq!(opened.inner, inner, "{name}");
    }
}

#[test]
fn behind_a_nat_checksums_become_those_of_the_addresses_that_the_receiver_knows() {
    for vector in Vector::all() {
        let name = format!("{} {}", vector.suite, vector.sequence);
        let mut server = vector.server(OUTSIDE);
        let mut esp = hex(&vector.esp);
        let opened = server.open(&mut esp, 0).expect(&name);
        assert_eq!(opened.inner, hex(&vector.translated), "{name}");
    }
}

#[test]
fn a_wrong_checksum_stays_wrong_behind_a_nat() {
    let vector = &Vector::all()[20]; // TCP with 64 bytes
    let mut packet = hex(&vector.inner);
    assert_eq!(packet[9], 6);
    packet[36] ^= 0x40;
    let mut sealed = seal(&mut vector.client(), &packet);
    let mut server = vector.server(OUTSIDE);
    let opened = server.open(&mut sealed, 0).expect("opened");
    let right = hex(&vector.translated);
    assert_ne!(opened.inner[36..38], right[36..38]);
    assert_eq!(opened.inner[38..], right[38..]);
}

#[test]
fn what_is_not_a_whole_ipv4_packet_without_options_is_refused_and_takes_no_number() {
    let whole = hex(&Vector::all()[0].inner);
    let changed = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut packet = whole.clone();
        change(&mut packet);
        packet
    };
    let mut sa = OutboundSa::new(outbound(key(gcm())));
    sa.set_transport();
    for packet in [
        changed(&|packet| packet[0] = 0x46),
        changed(&|packet| packet[0] = 0x65),
        changed(&|packet| packet[6] = 0x20),
        changed(&|packet| packet[7] = 1),
    ] {
        let mut buffer = [0; 2000];
        let refused = sa.seal(&[&packet], &mut buffer);
        assert_eq!(refused, Err(DropReason::NotTransportable));
    }
    assert_eq!(sa.sequence(), 0);
}

#[test]
fn a_packet_that_the_peer_would_take_for_a_dummy_is_refused_and_takes_no_number() {
    let mut packet = hex(&Vector::all()[0].inner);
    packet[9] = 59; // no next header
    let mut sa = OutboundSa::new(outbound(key(gcm())));
    sa.set_transport();
    let refused = sa.seal(&[&packet], &mut [0; 2000]);
    assert_eq!(refused, Err(DropReason::NotTransportable));
    assert_eq!(sa.sequence(), 0);
}

#[test]
fn a_packet_outside_the_selectors_is_refused_after_it_was_opened() {
    let vector = &Vector::all()[0];
    let mut sa = InboundSa::new(InboundParams {
        spi: Spi::new(vector.spi).expect("not reserved"),
        selectors: selectors(&["192.0.2.2[udp]"], &["172.16.0.1[udp]"]),
        ..inbound(vector.key())
    });
    sa.set_transport(TransportEnds {
        here: [CLIENT, SERVER],
        there: [CLIENT, SERVER],
    });
    let opened = sa.open(&mut hex(&vector.esp), 0).map(|_| ());
    assert_eq!(opened, Err(DropReason::SelectorMismatch));
}

#[test]
fn the_largest_packet_that_fits_the_path_is_longer_by_the_header_that_is_not_sealed() {
    let [mut transport, tunnel] =
        [key(gcm()), key(gcm())].map(|key| OutboundSa::new(outbound(key)));
    transport.set_transport();
    assert_eq!(transport.inner_mtu(), tunnel.inner_mtu() + 20);
    let largest = usize::from(transport.inner_mtu());
    assert!(transport.sealed_len(largest) + 28 <= 1500);
    assert!(transport.sealed_len(largest + 4) + 28 > 1500);
}

fn hex(text: &str) -> Vec<u8> {
    HEXLOWER.decode(text.as_bytes()).expect("hex")
}
