//! Whole packets that others have made.

use data_encoding::HEXLOWER;
use lockgate::crypto::packet::{Associated, PacketKey, Provider};
use lockgate::ipsec::{DropReason, InboundParams, InboundSa, OutboundParams, OutboundSa, Spi};
use lockgate::wire::esp::{Demux, demux_udp_encap};
use lockgate::wire::ip::IpPacket;
use serde::Deserialize;

use crate::support::{inbound, key, outbound, seal, selectors, suite, suites, udp_v4, udp_v6};

/// One packet of `data/esp_vectors.json` or its siblings; `data/make_esp_vectors.py` says what is what.
#[derive(Deserialize)]
struct Vector {
    suite: String,
    encryption_key: String,
    integrity_key: String,
    spi: u32,
    sequence: String,
    esn: bool,
    kind: Kind,
    udp: bool,
    inner: String,
    outer: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Kind {
    Plain,
    Tfc,
    Dummy,
}

impl Vector {
    fn all() -> Vec<Self> {
        let files = [
            include_str!("../data/esp_vectors.json"),
            include_str!("../data/esp_iiv_vectors.json"),
            include_str!("../data/esp_other_vectors.json"),
        ];
        files
            .into_iter()
            .flat_map(|file| serde_json::from_str::<Vec<Self>>(file).expect("vectors"))
            .collect()
    }

    fn key(&self) -> PacketKey {
        let (encryption, integrity) = (hex(&self.encryption_key), hex(&self.integrity_key));
        PacketKey::new(suite(&self.suite), &encryption, &integrity).expect("a key")
    }

    fn spi(&self) -> Spi {
        Spi::new(self.spi).expect("not reserved")
    }

    fn sequence(&self) -> u64 {
        u64::from_str_radix(&self.sequence, 16).expect("a number")
    }

    fn inner(&self) -> Vec<u8> {
        hex(&self.inner)
    }

    /// The ESP packet, without what carries it.
    fn esp(&self) -> Vec<u8> {
        let outer = hex(&self.outer);
        let packet = IpPacket::parse(&outer).expect("an outer packet");
        let datagram = &packet.bytes()[packet.upper_layer_offset()..];
        if !self.udp {
            assert_eq!(packet.protocol(), 50);
            return datagram.to_vec();
        }
        assert_eq!(packet.protocol(), 17);
        assert_eq!(demux_udp_encap(&datagram[8..]), Ok(Demux::Esp));
        datagram[8..].to_vec()
    }

    fn inbound(&self) -> InboundSa {
        let mut sa = InboundSa::new(InboundParams {
            spi: self.spi(),
            esn: self.esn,
            ..inbound(self.key())
        });
        sa.resume_after(self.sequence() - 1);
        sa
    }

    fn outbound(&self) -> OutboundSa {
        let mut sa = OutboundSa::new(OutboundParams {
            spi: self.spi(),
            esn: self.esn,
            ..outbound(self.key())
        });
        sa.resume_after(self.sequence() - 1);
        sa
    }
}

#[test]
fn packets_of_another_implementation_open() {
    for vector in Vector::all() {
        let mut sa = vector.inbound();
        let mut esp = vector.esp();
        assert_eq!(&esp[..4], vector.spi().to_be_bytes());
        let opened = sa.open(&mut esp, 0);
        let name = format!("{} {:?} {}", vector.suite, vector.kind, vector.sequence);
        match vector.kind {
            Kind::Plain | Kind::Tfc => {
                assert_eq!(opened.expect(&name).inner, vector.inner(), "{name}");
            }
            Kind::Dummy => assert_eq!(opened, Err(DropReason::DummyPacket), "{name}"),
        }
        assert_eq!(sa.window().top(), vector.sequence(), "{name}");
        assert_eq!(sa.usage().packets(), 1, "{name}");
        assert_eq!(
            sa.open(&mut vector.esp(), 0),
            Err(DropReason::Replayed),
            "{name}"
        );
    }
}

#[test]
fn our_packets_are_those_of_another_implementation_byte_for_byte() {
    for vector in Vector::all()
        .iter()
        .filter(|vector| vector.kind == Kind::Plain)
    {
        let sealed = seal(&mut vector.outbound(), &vector.inner());
        assert_eq!(sealed, vector.esp(), "{} {}", vector.suite, vector.sequence);
    }
}

#[test]
fn vectors_cover_every_suite_with_and_without_esn_and_udp() {
    let vectors = Vector::all();
    for wanted in suites() {
        let here: Vec<_> = vectors
            .iter()
            .filter(|v| suite(&v.suite) == wanted)
            .collect();
        for kind in [Kind::Plain, Kind::Tfc, Kind::Dummy] {
            assert!(here.iter().any(|v| v.kind == kind), "{wanted:?} {kind:?}");
        }
        for esn in [false, true] {
            assert!(here.iter().any(|v| v.esn == esn), "{wanted:?} ESN {esn}");
        }
    }
    for (outer, inner, udp) in [("4", "4"), ("4", "6"), ("6", "4"), ("6", "6")]
        .into_iter()
        .flat_map(|(outer, inner)| [(outer, inner, false), (outer, inner, true)])
    {
        let fits = |v: &&Vector| v.outer.starts_with(outer) && v.inner.starts_with(inner);
        assert!(
            vectors.iter().filter(fits).any(|v| v.udp == udp),
            "{inner} in {outer} UDP {udp}"
        );
    }
}

/// RFC 7634 appendix A. The IV is not one that we would choose, so the packet can only be opened.
#[test]
fn the_example_of_rfc_7634_opens() {
    let encryption: Vec<u8> = (0x80..=0xa3).collect();
    let key = PacketKey::new(suite("chacha20poly1305"), &encryption, &[]).expect("a key");
    let mut sa = InboundSa::new(InboundParams {
        spi: Spi::new(0x0102_0304).expect("not reserved"),
        selectors: selectors(&["192.0.2.5[icmp]"], &["198.51.100.5[icmp]"]),
        ..inbound(key)
    });
    let mut esp = hex(concat!(
        "01020304000000051011121314151617",
        "24039428b97f417e3c13753a4f05087b67c352e6a7fab1b982d466ef407ae5c6",
        "14ee8099d52844eb61aa95dfab4c02f72aa71e7c4c4f64c9befe2facc638e8f3",
        "cbec163fac469b502773f6fb94e664da9165b82829f641e0",
        "76aaa8266b7fb0f7b11b369907e1ad43",
    ));
    let source = hex(concat!(
        "45000054a6f200004001e778c6336405c000020508005b7a3a080000553bec10",
        "0007362708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f20212223",
        "2425262728292a2b2c2d2e2f3031323334353637",
    ));
    assert_eq!(sa.open(&mut esp, 0).expect("opened").inner, source);
    assert_eq!(sa.window().top(), 5);
}

#[test]
fn both_providers_seal_the_same_packet() {
    for suite in suites().filter(|suite| suite.integrity.is_none()) {
        for inner in [udp_v4(0), udp_v4(1372), udp_v6(1), udp_v6(9000)] {
            let length = lockgate::crypto::packet::encryption_key_len(&suite);
            let portable =
                PacketKey::with_provider(Provider::Portable, suite, &vec![0x5a; length], &[])
                    .expect("a key");
            let [mut ours, mut oracle] =
                [key(suite), portable].map(|key| OutboundSa::new(outbound(key)));
            assert_eq!(
                seal(&mut ours, &inner),
                seal(&mut oracle, &inner),
                "{suite:?}"
            );
        }
    }
}

/// RFC 8750 §4: the nonce, and so the ciphertext, is what it would be with the IV in the packet.
#[test]
fn an_implicit_iv_takes_eight_bytes_off_the_packet_and_changes_nothing_else() {
    for (implicit, explicit) in [
        ("aes128gcm16iiv", "aes128gcm16"),
        ("aes192gcm16iiv", "aes192gcm16"),
        ("aes256gcm16iiv", "aes256gcm16"),
        ("chacha20poly1305iiv", "chacha20poly1305"),
        ("aes128ccm8iiv", "aes128ccm8"),
        ("aes192ccm8iiv", "aes192ccm8"),
        ("aes256ccm8iiv", "aes256ccm8"),
    ] {
        for (esn, sequence) in [(false, 7), (true, 7), (true, 0x1_0000_0006)] {
            let [short, long] = [implicit, explicit].map(|keyword| {
                let mut sa = OutboundSa::new(OutboundParams {
                    esn,
                    ..outbound(key(suite(keyword)))
                });
                sa.resume_after(sequence - 1);
                seal(&mut sa, &udp_v4(100))
            });
            assert_eq!(short.len() + 8, long.len(), "{implicit}");
            assert_eq!(long[8..16], sequence.to_be_bytes(), "{explicit}");
            assert_eq!(
                [&short[..8], &short[8..]].concat(),
                [&long[..8], &long[16..]].concat()
            );
        }
    }
}

/// Nobody but the holder of the whole sequence number can know the IV.
#[test]
fn an_implicit_iv_refuses_a_nonce_that_is_not_the_sequence_number() {
    let key = key(suite("aes256gcm16iiv"));
    let mut buffer = [0; 40];
    for (header, esn_high, nonce, good) in [
        (&[1, 2, 3, 4, 0, 0, 0, 9][..], None, 9, true),
        (&[1, 2, 3, 4, 0, 0, 0, 9], Some(2), 0x2_0000_0009, true),
        (&[1, 2, 3, 4, 0, 0, 0, 9], Some(2), 9, false),
        (&[1, 2, 3, 4, 0, 0, 0, 9], None, 10, false),
        (&[1, 2, 3, 4, 0, 0, 0], None, 0, false),
    ] {
        let associated = Associated { header, esn_high };
        let sealed = key.seal(nonce, associated, &mut buffer);
        assert_eq!(sealed.is_ok(), good, "{nonce}");
    }
}

fn hex(text: &str) -> Vec<u8> {
    HEXLOWER.decode(text.as_bytes()).expect("hexadecimal")
}
