//! Transport mode: packets that another implementation has made, and the checksums behind a NAT.

use data_encoding::HEXLOWER;
use lockgate::crypto::packet::PacketKey;
use lockgate::ipsec::{
    DropReason, EspEncap, InboundParams, InboundSa, OutboundParams, OutboundSa, Spi, TransportEnds,
};
use serde::Deserialize;

use crate::support::{gcm, inbound, key, outbound, path, seal, selectors, suite};

/// Client, what a NAT or a translator of prefixes makes of it, server.
const V4: [&str; 3] = ["172.16.0.1", "203.0.113.9", "192.0.2.2"];
const V6: [&str; 3] = ["fd00:7:7::1", "2001:db8:77::9", "2001:db8::2"];

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

    fn addresses(&self) -> [&'static str; 3] {
        if self.inner.starts_with('6') { V6 } else { V4 }
    }

    /// The server's SA, which knows the client by its own address or by the one outside.
    fn server(&self, translated: bool) -> InboundSa {
        let [inside, outside, server] = self.addresses();
        let client = if translated { outside } else { inside };
        self.server_for(client, &[server], &[client])
    }

    fn server_for(&self, client: &str, local: &[&str], remote: &[&str]) -> InboundSa {
        let mut sa = InboundSa::new(InboundParams {
            spi: Spi::new(self.spi).expect("not reserved"),
            selectors: selectors(local, remote),
            ..inbound(self.key())
        });
        let [inside, _, server] = self.addresses();
        sa.set_transport(ends([client, server], [inside, server]));
        sa
    }

    fn client(&self) -> OutboundSa {
        let [client, _, server] = self.addresses();
        let mut sa = OutboundSa::new(OutboundParams {
            spi: Spi::new(self.spi).expect("not reserved"),
            selectors: selectors(&[client], &[server]),
            path: path(EspEncap::Udp, server),
            ..outbound(self.key())
        });
        sa.set_transport();
        sa.resume_after(self.sequence - 1);
        sa
    }
}

fn ends(here: [&str; 2], there: [&str; 2]) -> TransportEnds {
    let parse = |ends: [&str; 2]| ends.map(|address| address.parse().expect("an address"));
    TransportEnds::new(parse(here), parse(there)).expect("one family")
}

/// What comes out of an ESP packet, and how much room it took.
fn open(sa: &mut InboundSa, esp: &mut [u8]) -> Result<(Vec<u8>, usize), DropReason> {
    let mut space = vec![0xee; 2 * esp.len()];
    let all = space.len();
    let mut room = space.as_mut_slice();
    let inner = sa.open_apart(esp, 0, &mut room)?.inner.to_vec();
    Ok((inner, all - room.len()))
}

#[test]
fn our_packets_are_those_of_another_implementation_and_its_packets_open() {
    for vector in Vector::all() {
        let name = format!("{} {}", vector.suite, vector.sequence);
        let inner = hex(&vector.inner);
        let mut esp = hex(&vector.esp);
        assert_eq!(seal(&mut vector.client(), &inner), esp, "{name}");
        let mut server = vector.server(false);
        let (opened, taken) = open(&mut server, &mut esp).expect(&name);
        assert_eq!(opened, inner, "{name}");
        let apart = server.needs_room();
        assert_eq!(apart, vector.addresses() == V6);
        assert_eq!(taken, if apart { inner.len() } else { 0 }, "{name}");
    }
}

#[test]
fn behind_a_nat_checksums_become_those_of_the_addresses_that_the_receiver_knows() {
    for vector in Vector::all() {
        let name = format!("{} {}", vector.suite, vector.sequence);
        let mut server = vector.server(true);
        let (opened, _) = open(&mut server, &mut hex(&vector.esp)).expect(&name);
        assert_eq!(opened, hex(&vector.translated), "{name}");
    }
}

#[test]
fn a_nat_is_no_obstacle_to_a_checksum_behind_destination_options() {
    let vector = &Vector::all()[SIX];
    let inner = hex(&vector.inner);
    for options in [1, 2] {
        let mut headers = [60, 0, 1, 4, 0, 0, 0, 0].repeat(options);
        let last = headers.len() - 8;
        headers[last] = inner[6];
        let (mut sa, packet) = with_headers(60, &headers);
        let mut esp = seal(&mut sa, &packet);
        let (opened, _) = open(&mut vector.server(true), &mut esp).expect("opened");
        assert_eq!(opened[40 + headers.len()..], hex(&vector.translated)[40..]);
    }
}

#[test]
fn a_wrong_checksum_stays_wrong_behind_a_nat() {
    let vector = &Vector::all()[20]; // TCP with 64 bytes
    let mut packet = hex(&vector.inner);
    assert_eq!(packet[9], 6);
    packet[36] ^= 0x40;
    let mut sealed = seal(&mut vector.client(), &packet);
    let mut server = vector.server(true);
    let (opened, _) = open(&mut server, &mut sealed).expect("opened");
    let right = hex(&vector.translated);
    assert_ne!(opened[36..38], right[36..38]);
    assert_eq!(opened[38..], right[38..]);
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

/// An SA between IPv6 addresses, and the packet of a vector for it with other headers behind its own.
fn with_headers(first: u8, headers: &[u8]) -> (OutboundSa, Vec<u8>) {
    let vector = &Vector::all()[SIX];
    let packet = hex(&vector.inner);
    let (header, payload) = packet.split_at(40);
    let mut packet = [header, headers, payload].concat();
    let length = u16::try_from(headers.len() + payload.len()).expect("short");
    packet[4..6].copy_from_slice(&length.to_be_bytes());
    packet[6] = first;
    let mut sa = vector.client();
    sa.resume_after(0);
    (sa, packet)
}

/// Hop-by-hop options, routing and fragment headers stand in front of ESP (RFC 4303 §3.1.1), where the system
/// writes none.
#[test]
fn a_header_that_cannot_stand_behind_esp_is_refused_and_destination_options_are_sealed() {
    let options = |next: u8| [next, 0, 1, 4, 0, 0, 0, 0];
    let vector = &Vector::all()[SIX];
    for first in [0, 43, 44] {
        for (first, headers) in [
            (first, options(6).to_vec()),
            (60, [options(first), options(6)].concat()),
        ] {
            let (mut sa, packet) = with_headers(first, &headers);
            let before = sa.sequence();
            let refused = sa.seal(&[&packet], &mut [0; 2000]);
            assert_eq!(refused, Err(DropReason::NotTransportable), "{headers:?}");
            assert_eq!(sa.sequence(), before);
        }
    }
    let (mut sa, packet) = with_headers(60, &[options(60), options(6)].concat());
    let mut esp = seal(&mut sa, &packet);
    let (opened, _) = open(&mut vector.server(false), &mut esp).expect("opened");
    assert_eq!(opened, packet);
    let (mut sa, packet) = with_headers(60, &[60, 9, 1, 4, 0, 0, 0, 0]);
    let refused = sa.seal(&[&packet[..60]], &mut [0; 2000]);
    assert_eq!(refused, Err(DropReason::InnerMalformed));
}

#[test]
fn a_packet_that_the_peer_would_take_for_a_dummy_is_refused_and_takes_no_number() {
    for (vector, at) in [(0, 9), (SIX, 6)] {
        let vector = &Vector::all()[vector];
        let mut packet = hex(&vector.inner);
        packet[at] = 59; // no next header
        let mut sa = vector.client();
        let before = sa.sequence();
        let refused = sa.seal(&[&packet], &mut [0; 2000]);
        assert_eq!(refused, Err(DropReason::NotTransportable));
        assert_eq!(sa.sequence(), before);
    }
}

/// What is left of the room is never the reason that another packet is lost.
#[test]
fn without_room_an_ipv6_packet_is_dropped_and_the_room_stays() {
    let vector = &Vector::all()[SIX];
    let mut server = vector.server(false);
    let mut space = vec![0; hex(&vector.inner).len() - 1];
    let mut room = space.as_mut_slice();
    let mut esp = hex(&vector.esp);
    let refused = server.open_apart(&mut esp, 0, &mut room).map(|_| ());
    assert_eq!(refused, Err(DropReason::InnerMalformed));
    assert_eq!(room.len(), hex(&vector.inner).len() - 1);
}

#[test]
fn no_ends_are_of_two_families() {
    let address = |text: &str| text.parse().expect("an address");
    let (four, six) = (V4.map(address), V6.map(address));
    let mixed = [
        ([four[0], six[2]], [four[0], four[2]]),
        ([six[0], six[2]], [four[0], four[2]]),
    ];
    for (here, there) in mixed {
        assert_eq!(TransportEnds::new(here, there), None);
    }
}

#[test]
fn a_packet_outside_the_selectors_is_refused_after_it_was_opened() {
    let vector = &Vector::all()[0];
    let mut sa = vector.server_for(V4[0], &["192.0.2.2[udp]"], &["172.16.0.1[udp]"]);
    let opened = sa.open(&mut hex(&vector.esp), 0).map(|_| ());
    assert_eq!(opened, Err(DropReason::SelectorMismatch));
}

#[test]
fn the_largest_packet_that_fits_the_path_is_longer_by_the_header_that_is_not_sealed() {
    for (header, addresses) in [(20, V4), (40, V6)] {
        let [mut transport, tunnel] = [key(gcm()), key(gcm())].map(|key| {
            OutboundSa::new(OutboundParams {
                selectors: selectors(&[addresses[0]], &[addresses[2]]),
                path: path(EspEncap::Udp, addresses[2]),
                ..outbound(key)
            })
        });
        transport.set_transport();
        assert_eq!(transport.inner_mtu(), tunnel.inner_mtu() + header);
        let largest = usize::from(transport.inner_mtu());
        let outer = usize::from(header) + 8;
        assert!(transport.sealed_len(largest) + outer <= 1500);
        assert!(transport.sealed_len(largest + 4) + outer > 1500);
    }
}

fn hex(text: &str) -> Vec<u8> {
    HEXLOWER.decode(text.as_bytes()).expect("hex")
}

/// The first vector between IPv6 addresses.
const SIX: usize = 112;
