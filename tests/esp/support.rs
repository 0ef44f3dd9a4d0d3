//! SAs with fixed keys, and inner packets.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use lockgate::crypto::packet::{Associated, PacketKey, encryption_key_len, integrity_key_len};
use lockgate::ipsec::{
    ChildId, EspEncap, EspPath, HeaderRules, InboundParams, InboundSa, Limits, OutboundParams,
    OutboundSa, Reqid, SaUsage, Selectors, Spi, WorkerId,
};
use lockgate::wire::keyword::parse_proposal;
use lockgate::wire::proposal::{CipherSuite, ProtocolId, Transform};
use lockgate::wire::selector::TrafficSelector;

pub(crate) const SPI: u32 = 0x1234_5678;

/// Suites of one algorithm.
const AEADS: [&str; 29] = [
    "aes128gcm16",
    "aes192gcm16",
    "aes256gcm16",
    "chacha20poly1305",
    "aes128gcm16iiv",
    "aes192gcm16iiv",
    "aes256gcm16iiv",
    "chacha20poly1305iiv",
    "aes128gcm12",
    "aes192gcm12",
    "aes256gcm12",
    "aes128gcm8",
    "aes192gcm8",
    "aes256gcm8",
    "aes128ccm16",
    "aes192ccm16",
    "aes256ccm16",
    "aes128ccm12",
    "aes192ccm12",
    "aes256ccm12",
    "aes128ccm8",
    "aes192ccm8",
    "aes256ccm8",
    "aes128ccm8iiv",
    "aes192ccm8iiv",
    "aes256ccm8iiv",
    "aes128gmac",
    "aes192gmac",
    "aes256gmac",
];

/// Further ciphers with a MAC beside them.
const CLASSIC: [&str; 12] = [
    "aes128ctr-sha256",
    "aes192ctr-sha256",
    "aes256ctr-sha256",
    "aes128ctr-aescmac",
    "3des-md5",
    "3des-sha1",
    "aes128-md5",
    "aes128-aescmac",
    "aes128-aesxcbc",
    "null-md5",
    "null-aescmac",
    "null-aesxcbc",
];

/// A suite in strongSwan's spelling.
pub(crate) fn suite(keywords: &str) -> CipherSuite {
    let proposal = parse_proposal(ProtocolId::Esp, keywords).expect("keywords of ESP");
    let [Transform::Encryption { id, key_bits }, rest @ ..] = &proposal.transforms[..] else {
        panic!("{keywords} has no cipher in front");
    };
    CipherSuite {
        encryption: *id,
        key_bits: key_bits.unwrap_or(0),
        integrity: rest.iter().find_map(|transform| match transform {
            Transform::Integrity(id) => Some(*id),
            _ => None,
        }),
    }
}

/// Every cipher and every MAC that ESP can use, and of their combinations the common ones.
pub(crate) fn suites() -> impl Iterator<Item = CipherSuite> {
    let common = ["aes128", "aes192", "aes256", "null"]
        .into_iter()
        .flat_map(|cipher| {
            ["sha1", "sha256", "sha384", "sha512"].map(|mac| suite(&format!("{cipher}-{mac}")))
        });
    AEADS.into_iter().chain(CLASSIC).map(suite).chain(common)
}

pub(crate) fn key(suite: CipherSuite) -> PacketKey {
    let encryption = vec![0x5a; encryption_key_len(&suite)];
    let integrity = vec![0xa5; integrity_key_len(&suite)];
    PacketKey::new(suite, &encryption, &integrity).expect("keys of the right length")
}

pub(crate) fn gcm() -> CipherSuite {
    suite("aes128gcm16")
}

pub(crate) fn path(encap: EspEncap, remote: &str) -> EspPath {
    let remote = SocketAddr::new(remote.parse::<IpAddr>().expect("an address"), 4500);
    EspPath {
        encap,
        local: remote,
        remote,
    }
}

pub(crate) fn selectors(local: &[&str], remote: &[&str]) -> Arc<Selectors> {
    let parse = |list: &[&str]| -> Vec<TrafficSelector> {
        list.iter()
            .map(|text| text.parse().expect("a selector"))
            .collect()
    };
    Arc::new(Selectors {
        local: parse(local),
        remote: parse(remote),
    })
}

/// The side that 10.1.0.0/24 and 2001:db8:a::/64 are behind.
pub(crate) fn outbound(key: PacketKey) -> OutboundParams {
    OutboundParams {
        spi: Spi::new(SPI).expect("not reserved"),
        child: ChildId(1),
        reqid: Reqid(1),
        owner: WorkerId(0),
        key,
        esn: false,
        path: path(EspEncap::Udp, "198.51.100.1"),
        selectors: selectors(
            &["10.1.0.0/24", "2001:db8:a::/64"],
            &["10.2.0.0/24", "2001:db8:b::/64"],
        ),
        rules: HeaderRules::default(),
        limits: Limits::NONE,
        usage: Arc::new(SaUsage::default()),
        path_mtu: 1500,
    }
}

/// The side that 10.2.0.0/24 and 2001:db8:b::/64 are behind.
pub(crate) fn inbound(key: PacketKey) -> InboundParams {
    InboundParams {
        spi: Spi::new(SPI).expect("not reserved"),
        child: ChildId(2),
        reqid: Reqid(1),
        owner: WorkerId(0),
        key,
        esn: false,
        replay_window: 128,
        path: path(EspEncap::Udp, "192.0.2.1"),
        selectors: selectors(
            &["10.2.0.0/24", "2001:db8:b::/64"],
            &["10.1.0.0/24", "2001:db8:a::/64"],
        ),
        rules: HeaderRules::default(),
        limits: Limits::NONE,
        usage: Arc::new(SaUsage::default()),
    }
}

pub(crate) fn pair() -> (OutboundSa, InboundSa) {
    (
        OutboundSa::new(outbound(key(gcm()))),
        InboundSa::new(inbound(key(gcm()))),
    )
}

pub(crate) fn seal(sa: &mut OutboundSa, inner: &[u8]) -> Vec<u8> {
    let mut out = vec![0xee; sa.sealed_len(inner.len())];
    let sealed = sa.seal(&[inner], &mut out).expect("sealed");
    assert_eq!(sealed.len, out.len());
    out
}

/// An ESP packet that holds exactly `text`, trailer included: what a peer with the key can make.
pub(crate) fn forge(key: &PacketKey, sequence: u32, text: &[u8]) -> Vec<u8> {
    let header = [SPI.to_be_bytes(), sequence.to_be_bytes()].concat();
    let mut body = vec![0; key.iv_len()];
    body.extend(text);
    body.extend(vec![0; key.icv_len()]);
    let associated = Associated {
        header: &header,
        esn_high: None,
    };
    key.seal(u64::from(sequence), associated, &mut body)
        .expect("a text of whole blocks");
    [header, body].concat()
}

/// `payload` with padding and trailer as RFC 4303 wants them.
pub(crate) fn text(payload: &[u8], next_header: u8) -> Vec<u8> {
    let pad_len = (4 - (payload.len() + 2) % 4) % 4;
    let padding = (1..).take(pad_len);
    let trailer = [u8::try_from(pad_len).expect("below 4"), next_header];
    payload
        .iter()
        .copied()
        .chain(padding)
        .chain(trailer)
        .collect()
}

/// A UDP packet from 10.1.0.7 port 4000 to 10.2.0.9 port 53.
pub(crate) fn udp_v4(payload: usize) -> Vec<u8> {
    ipv4([10, 1, 0, 7], [10, 2, 0, 9], 17, &udp(payload))
}

/// The same between 2001:db8:a::7 and 2001:db8:b::9.
pub(crate) fn udp_v6(payload: usize) -> Vec<u8> {
    let body = udp(payload);
    let mut packet = vec![0x60, 0, 0, 0];
    packet.extend(u16::try_from(body.len()).expect("short").to_be_bytes());
    packet.extend([17, 64]);
    for site in ["2001:db8:a::7", "2001:db8:b::9"] {
        packet.extend(
            site.parse::<std::net::Ipv6Addr>()
                .expect("an address")
                .octets(),
        );
    }
    packet.extend(body);
    packet
}

pub(crate) fn ipv4(src: [u8; 4], dst: [u8; 4], protocol: u8, body: &[u8]) -> Vec<u8> {
    let total = u16::try_from(20 + body.len()).expect("short").to_be_bytes();
    let mut packet = vec![
        0x45, 0, total[0], total[1], 0, 1, 0x40, 0, 64, protocol, 0, 0,
    ];
    packet.extend(src);
    packet.extend(dst);
    fix_checksum(&mut packet);
    packet.extend(body);
    packet
}

/// Makes the checksum of a header of 20 bytes right.
pub(crate) fn fix_checksum(packet: &mut [u8]) {
    packet[10..12].fill(0);
    let mut sum: u32 = packet[..20]
        .chunks(2)
        .map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])))
        .sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    let checksum = !u16::try_from(sum).expect("folded");
    packet[10..12].copy_from_slice(&checksum.to_be_bytes());
}

fn udp(payload: usize) -> Vec<u8> {
    let length = u16::try_from(8 + payload).expect("short").to_be_bytes();
    let mut body = vec![0x0f, 0xa0, 0, 53, length[0], length[1], 0, 0];
    body.extend((0..=255).cycle().take(payload));
    body
}
